//! What a running task says in words.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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

    /// The level that a logging library means by its word; info where that is not known. A line is kept whatever it
    /// calls itself.
    pub fn meant_by(word: &str) -> Level {
        let is = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word.trim()));
        if is(&["error", "err", "critical", "crit", "fatal", "alert", "emergency", "emerg", "panic", "severe"]) {
            Level::Error
        } else if is(&["warn", "warning"]) {
            Level::Warn
        } else if is(&["debug", "fine", "config"]) {
            Level::Debug
        } else if is(&["trace", "verbose", "silly", "finer", "finest"]) {
            Level::Trace
        } else {
            Level::Info
        }
    }

    /// Reads a level out of whatever stands there, as [`meant_by`](Self::meant_by).
    pub fn loose<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
        struct Loose;
        impl<'de> Visitor<'de> for Loose {
            type Value = Level;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a level")
            }
            fn visit_str<E>(self, word: &str) -> Result<Level, E> {
                Ok(Level::meant_by(word))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Level, E> {
                Ok(Level::Info)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Level, E> {
                Ok(Level::Info)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Level, E> {
                Ok(Level::Info)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Level, E> {
                Ok(Level::Info)
            }
            fn visit_unit<E>(self) -> Result<Level, E> {
                Ok(Level::Info)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Level, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Level::Info)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Level, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Level::Info)
            }
        }
        deserializer.deserialize_any(Loose)
    }
}

/// Reads a text out of whatever stands there: a string as it is, with signs in place of what is no character (half of a
/// surrogate pair, as it remains where a text is cut between them), nothing for `null`, and the JSON text of anything
/// else. For words that a program could not help sending.
pub fn any_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut text = String::from(Box::<str>::from(Box::<RawValue>::deserialize(deserializer)?));
    match text.as_bytes()[0] {
        b'"' if text.contains('\\') => {
            // As bytes, serde lets half a pair pass.
            let mut json = serde_json::Deserializer::from_str(&text);
            serde::Deserializer::deserialize_bytes(&mut json, Lossy).map_err(D::Error::custom)
        }
        b'"' => {
            text.pop();
            text.remove(0);
            Ok(text)
        }
        b'n' => Ok(String::new()),
        _ => Ok(text),
    }
}

struct Lossy;

impl Visitor<'_> for Lossy {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
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

    /// About what they hold.
    pub fn bytes(&self) -> usize {
        self.message_bytes + self.lines_len * LINE_BYTES
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Line {
        #[serde(default, deserialize_with = "Level::loose")]
        level: Level,
        #[serde(default, deserialize_with = "any_text")]
        message: String,
    }

    /// Regression: one line with a level of another library's took all lines of its message along.
    #[test]
    fn a_line_is_read_whatever_it_says() {
        let check = |text: &str, level: Level, message: &str| {
            let line: Line = serde_json::from_str(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!((line.level, line.message.as_str()), (level, message), "{text}");
        };
        for (word, level) in [
            ("info", Level::Info),
            ("INFO", Level::Info),
            ("warning", Level::Warn),
            ("Warn", Level::Warn),
            ("CRITICAL", Level::Error),
            ("fatal", Level::Error),
            (" error", Level::Error),
            ("DEBUG", Level::Debug),
            ("trace", Level::Trace),
            ("verbose", Level::Trace),
            ("notice", Level::Info),
            ("loud", Level::Info),
            ("", Level::Info),
        ] {
            check(&format!(r#"{{"level":"{word}","message":"m"}}"#), level, "m");
        }
        for level in ["30", "-1", "1.5", "null", "true", "[\"warn\",[]]", "{\"name\":{}}"] {
            check(&format!(r#"{{"level":{level},"message":"m"}}"#), Level::Info, "m");
        }
        for (message, expected) in [
            (r#""plain é""#, "plain é"),
            (r#""a \"b\" \u00e9\n\u0000""#, "a \"b\" é\n\0"),
            (r#""cut \ud83d""#, "cut \u{fffd}\u{fffd}\u{fffd}"),
            (r#""whole \ud83d\ude00""#, "whole 😀"),
            ("7", "7"),
            ("null", ""),
            ("false", "false"),
            (r#"{"a": [1]}"#, r#"{"a": [1]}"#),
        ] {
            check(&format!(r#"{{"message":{message}}}"#), Level::Info, expected);
        }
        check("{}", Level::Info, "");
    }
}
