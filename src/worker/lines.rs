//! What a command says on its output, line by line: memory stays bounded however long a line is, and a line that is
//! meant for the hub is told from one for people.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::task::{Json, LOG_LINE_BYTES_MAX, Level, Progress, RESULT_BYTES_MAX};
use crate::wire::LogLineBody;

/// The longest line that may be meant for the hub: a result of full size and the braces around it.
const OBJECT_BYTES_MAX: usize = RESULT_BYTES_MAX + 64;

/// One line of output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Progress(Progress),
    Log(LogLineBody),
    Checkpoint(Json),
    Result(Json),
    /// A result that is too large to be one.
    ResultTooLarge,
    /// Anything else.
    Line(String),
}

/// What a line of standard output means: a JSON object with exactly one key that is a word of ours, or just a line.
pub(super) fn said(line: &[u8]) -> Said {
    let plain = || Said::Line(String::from_utf8_lossy(line).into_owned());
    if line.first() != Some(&b'{') {
        return plain();
    }
    let Ok(Only { key, value }) = serde_json::from_slice(line) else { return plain() };
    let value = value.get();
    let meant = match key.as_str() {
        "progress" if value.starts_with('{') => serde_json::from_str(value).map(Said::Progress).ok(),
        "progress" => serde_json::from_str(value).map(|percent| Said::Progress(Progress::percent(percent))).ok(),
        "log" if value.starts_with('{') => serde_json::from_str(value).map(Said::Log).ok(),
        "log" => {
            let line = |message| Said::Log(LogLineBody { level: Level::Info, message });
            serde_json::from_str(value).map(line).ok()
        }
        "checkpoint" => Json::parse(value).map(Said::Checkpoint).ok(),
        "result" if value.len() > RESULT_BYTES_MAX => Some(Said::ResultTooLarge),
        "result" => Json::parse(value).map(Said::Result).ok(),
        _ => None,
    };
    meant.unwrap_or_else(plain)
}

/// An object with exactly one key.
struct Only {
    key: String,
    value: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Only {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Only, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Only;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object with one key")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Only, A::Error> {
                use serde::de::Error;
                let (key, value) = map.next_entry()?.ok_or_else(|| A::Error::custom("no key"))?;
                match map.next_key::<String>()? {
                    None => Ok(Only { key, value }),
                    Some(_) => Err(A::Error::custom("a second key")),
                }
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// Whether a line may be an object for the hub, and so be long.
    objects: bool,
    line: Vec<u8>,
    /// What the line had beyond its limit was dropped.
    cut: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
}

/// A line without its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) cut: bool,
}

impl Line<'_> {
    /// What it means as a line of standard output.
    pub(super) fn said(&self) -> Said {
        if !self.cut {
            return said(self.bytes);
        }
        let start: Vec<u8> = self.bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(10).collect();
        if start == b"{\"result\":" {
            return Said::ResultTooLarge;
        }
        Said::Line(self.text())
    }

    /// As a line for people.
    pub(super) fn text(&self) -> String {
        let end = self.bytes.len().min(LOG_LINE_BYTES_MAX);
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }
}

impl Lines {
    pub(super) fn new(objects: bool) -> Lines {
        Lines { objects, line: Vec::new(), cut: false, after_return: false }
    }

    /// Takes more bytes; `each` gets every line that ended in them. A carriage return ends a line too: that is how
    /// programs draw their own progress.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(at);
            let second_half = rest[0] == b'\n' && self.after_return && line.is_empty();
            self.after_return = rest[0] == b'\r';
            if !second_half {
                self.keep(line);
                self.end(&mut each);
            }
            bytes = &rest[1..];
        }
        if !bytes.is_empty() {
            self.after_return = false;
            self.keep(bytes);
        }
    }

    /// The stream has ended; what is left is a line too.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.line.is_empty() {
            self.end(&mut each);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(Line<'_>)) {
        each(Line { bytes: &self.line, cut: self.cut });
        self.line.clear();
        // A line of a megabyte is rare; its memory is not kept for the next.
        self.line.shrink_to(LOG_LINE_BYTES_MAX);
        self.cut = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let object = self.objects && self.line.first().or(bytes.first()) == Some(&b'{');
        let bytes_max = if object { OBJECT_BYTES_MAX } else { LOG_LINE_BYTES_MAX };
        let room = bytes_max.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_protocol() {
        let line = |text: &str| Said::Line(text.to_owned());
        let check = |text: &str, expected: Said| assert_eq!(said(text.as_bytes()), expected, "{text}");
        check(r#"{"progress":40}"#, Said::Progress(Progress::percent(40.0)));
        check(r#"{ "progress" : {"current":3,"total":4} }"#, Said::Progress(Progress::of(3, 4)));
        check(r#"{"log":"hello"}"#, Said::Log(LogLineBody { level: Level::Info, message: "hello".into() }));
        check(
            r#"{"log":{"level":"error","message":"x"}}"#,
            Said::Log(LogLineBody { level: Level::Error, message: "x".into() }),
        );
        check(
            r#"{"log":{"level":"loud","message":"x"}}"#,
            Said::Log(LogLineBody { level: Level::Info, message: "x".into() }),
        );
        check(r#"{"checkpoint":[1,  2]}"#, Said::Checkpoint(Json::parse("[1,  2]").unwrap()));
        check(r#"{"result":null}"#, Said::Result(Json::null()));
        check(r#"{"result":{"a": 1}}"#, Said::Result(Json::parse(r#"{"a": 1}"#).unwrap()));
        // Not exactly one key, not ours, not of the right kind, or no JSON: a line.
        for plain in [
            "hello",
            "",
            "{}",
            r#"{"result":1,"progress":2}"#,
            r#"{"result":1,"result":2}"#,
            r#"{"results":1}"#,
            r#"{"progress":"half"}"#,
            r#"{"progress":null}"#,
            r#"{"log":5}"#,
            r#"{"result":1"#,
            r#"{"result":1} and more"#,
            r#"["result"]"#,
            r#" {"result":1}"#,
        ] {
            check(plain, line(plain));
        }
    }

    #[test]
    fn a_result_over_its_limit_is_noticed() {
        let text = |n: usize| format!("{{\"result\":\"{}\"}}", "x".repeat(n));
        assert!(matches!(said(text(RESULT_BYTES_MAX - 2).as_bytes()), Said::Result(_)));
        assert_eq!(said(text(RESULT_BYTES_MAX - 1).as_bytes()), Said::ResultTooLarge);
        let mut lines = Lines::new(true);
        let mut got = Vec::new();
        lines.push(text(3 * RESULT_BYTES_MAX).as_bytes(), |line| got.push(line.said()));
        lines.push(b"\nnext\n", |line| got.push(line.said()));
        assert_eq!(got, [Said::ResultTooLarge, Said::Line("next".into())]);
    }

    #[test]
    fn lines_come_whole_however_the_bytes_come() {
        let text = b"one\ntwo\r\n\nthree\rfour\r\r\n{\"progress\":1}\nlast";
        let expected = ["one", "two", "", "three", "four", "", "{\"progress\":1}", "last"];
        for size in 1..text.len() {
            let mut lines = Lines::new(true);
            let mut got = Vec::new();
            for bytes in text.chunks(size) {
                lines.push(bytes, |line| got.push(line.text()));
            }
            lines.finish(|line| got.push(line.text()));
            assert_eq!(got, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::new(false);
        for _ in 0..1_000 {
            lines.push(&[b'x'; 4_096], |_| panic!("no line has ended"));
        }
        assert!(lines.line.capacity() <= 2 * LOG_LINE_BYTES_MAX);
        let mut got = Vec::new();
        lines.push(b"\n", |line| got.push((line.text().len(), line.cut)));
        assert_eq!(got, [(LOG_LINE_BYTES_MAX, true)]);
    }
}
