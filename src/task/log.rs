//! What a running task says in words.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A log line longer than this is cut, in bytes.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// The most lines kept of one task; the oldest go.
pub const LOG_LINES_MAX: usize = 10_000;
/// The most bytes of messages kept of one task; the oldest go.
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// About what a line holds in memory beside its message.
pub const LINE_BYTES: usize = 64;

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

/// The newest lines of one task, in the parts in which they came: as much as is kept of a task, and at most one part more.
/// An older part goes as soon as those after it are all that anybody could read.
#[derive(Debug, Default)]
pub struct NewestLines {
    parts: VecDeque<Arc<[LogLine]>>,
    lines_len: usize,
    message_bytes: usize,
}

impl NewestLines {
    /// Adds lines that follow those before. Says how many bytes went.
    pub fn push(&mut self, part: Arc<[LogLine]>) -> usize {
        self.lines_len += part.len();
        self.message_bytes += message_bytes(&part);
        self.parts.push_back(part);
        let mut gone = 0;
        while let Some(oldest) = self.parts.front()
            && (self.lines_len - oldest.len() >= LOG_LINES_MAX
                || self.message_bytes - message_bytes(oldest) > LOG_BYTES_MAX)
        {
            gone += self.pop().map_or(0, |oldest| line_bytes(&oldest));
        }
        gone
    }

    /// Takes the oldest part.
    pub fn pop(&mut self) -> Option<Arc<[LogLine]>> {
        let part = self.parts.pop_front()?;
        self.lines_len -= part.len();
        self.message_bytes -= message_bytes(&part);
        Some(part)
    }

    /// The parts, oldest first.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &Arc<[LogLine]>> {
        self.parts.iter()
    }

    /// The number of the newest line.
    pub fn end(&self) -> Option<u64> {
        self.parts.back().and_then(|part| part.last()).map(|line| line.seq)
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

fn message_bytes(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| line.message.len()).sum()
}

/// About what lines hold in memory, and bring to a commit.
pub fn line_bytes(lines: &[LogLine]) -> usize {
    message_bytes(lines) + lines.len() * LINE_BYTES
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
