//! What a running task says in words.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A log line longer than this is cut, in bytes.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// The most lines kept of one task; the oldest go.
pub const LOG_LINES_MAX: usize = 10_000;
/// The most bytes of messages kept of one task; the oldest go.
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// 1 for the first line of a task, then without holes.
    pub seq: u64,
    pub at: Timestamp,
    pub attempt: u32,
    pub level: Level,
    pub message: String,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// `message` within [`LOG_LINE_BYTES_MAX`], cut at a character.
pub fn cut_line(mut message: String) -> String {
    cut(&mut message, LOG_LINE_BYTES_MAX);
    message
}

/// Cuts a text to at most `bytes_max`, at a character.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}
