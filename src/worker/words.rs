//! What a command says to the hub on its standard output: a JSON object with exactly one key that is a word of ours
//! (`progress`, `log`, `checkpoint`, `result`), on a line of its own, or printed over several.
//!
//! An object that seems to be meant for the hub and cannot be read is told from chatter, so that it is not lost without
//! notice: with `NaN` in it, cut short, with two of the words, in single quotes. To tell, the text is scanned for its
//! keys more leniently than JSON allows. One that has a key which is no word of ours belongs to somebody else's log; that
//! is told too, but it does not count as a word.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::lines::OBJECT_BYTES_MAX;
use crate::task::{Json, Level, Progress, RESULT_BYTES_MAX, read_strictly};
use crate::wire::LogLineBody;

/// What is shown of a text that cannot be read.
const TOKEN_CHARS: usize = 24;
/// Lines of an object over several that stay in the log when it cannot be read.
const HELD_LINES_MAX: usize = 20;

/// What a line means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Progress(Progress),
    Log(LogLineBody),
    Checkpoint(Json),
    Result(Json),
    /// Seems to be a word, and is none for this reason.
    Unread {
        word: Word,
        why: String,
        /// It has other keys, too.
        mixed: bool,
    },
    /// Anything else.
    Line,
    /// Held back: it may be a part of a word.
    Held,
    /// What was held back, and is not.
    Released(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    Progress,
    Log,
    Checkpoint,
    Result,
}

impl Word {
    fn of(key: &[u8]) -> Option<Word> {
        match key {
            b"progress" => Some(Word::Progress),
            b"log" => Some(Word::Log),
            b"checkpoint" => Some(Word::Checkpoint),
            b"result" => Some(Word::Result),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Word::Progress => "progress",
            Word::Log => "log",
            Word::Checkpoint => "checkpoint",
            Word::Result => "result",
        }
    }
}

/// Reads lines for their words. An object that is printed over several lines is gathered.
#[derive(Debug, Default)]
pub(super) struct Words {
    open: Option<Open>,
}

/// An object that has not ended with its line.
#[derive(Debug)]
struct Open {
    /// Its lines, as far as there is room for them.
    text: Vec<u8>,
    lines: usize,
    /// Some did not fit.
    cut: bool,
    scan: Scan,
}

impl Words {
    /// Tells what a line means. The last thing that `each` gets is about this line; what comes before it is about lines
    /// that were held back.
    pub(super) fn line(&mut self, line: &[u8], cut: bool, mut each: impl FnMut(Said)) {
        let start = begin(line);
        let text = start.trim_ascii();
        if let Some(open) = self.open.take() {
            // What is inside is indented: one at the first column that is a word by itself is the next one.
            let is_next = !cut && start.starts_with(b"{") && read(text).is_some_and(|read| read.is_ok());
            if is_part(line) && !is_next {
                return self.gather(open, line, cut, &mut each);
            }
            open.cut_short(&mut each);
        }
        if line.contains(&0) {
            return each(of_wide(line));
        }
        if !text.starts_with(b"{") {
            return each(after_text(text));
        }
        if cut {
            return each(Scan::of(text).too_long());
        }
        if let Some(read) = read(text) {
            return each(read.unwrap_or_else(|(word, why)| Said::Unread { word, why, mixed: false }));
        }
        let scan = Scan::of(text);
        if scan.is_open() && (text == b"{" || scan.is_meant()) {
            self.open = Some(Open { text: start.to_vec(), lines: 1, cut: false, scan });
            return each(Said::Held);
        }
        each(scan.unreadable(text));
    }

    /// The output has ended.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Said)) {
        if let Some(open) = self.open.take() {
            open.cut_short(&mut each);
        }
    }

    fn gather(&mut self, mut open: Open, line: &[u8], cut: bool, each: &mut impl FnMut(Said)) {
        let known = open.scan.is_meant();
        open.scan.take(line);
        open.keep(line, cut);
        let scan = &open.scan;
        if scan.is_open() && (scan.is_meant() || (!known && line.trim_ascii().is_empty())) {
            self.open = Some(open);
            return each(Said::Held);
        }
        if !open.cut
            && let Some(Ok(said)) = read(&open.text)
        {
            return each(said);
        }
        open.release(each);
        let said = if open.cut { open.scan.too_long() } else { open.scan.unreadable(&open.text) };
        if said != Said::Line {
            each(said);
        }
        // The line was released with the others.
        each(Said::Held);
    }
}

impl Open {
    fn keep(&mut self, line: &[u8], cut: bool) {
        self.lines += 1;
        let fits = self.text.len() + line.len() < OBJECT_BYTES_MAX;
        self.cut |= cut || !fits;
        if fits {
            self.text.push(b'\n');
            self.text.extend_from_slice(line);
        }
    }

    fn cut_short(self, each: &mut impl FnMut(Said)) {
        self.release(each);
        if let Some(word) = self.scan.word() {
            let why = if self.cut { too_large() } else { "it ends before its last brace".into() };
            each(Said::Unread { word, why, mixed: self.scan.mixed });
        }
    }

    /// Gives back the lines: all that there are of somebody else's object, and the first ones of a word.
    fn release(&self, each: &mut impl FnMut(Said)) {
        let mut text = self.text.clone();
        if self.scan.is_meant() && self.lines > HELD_LINES_MAX {
            let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
            let end = ends.nth(HELD_LINES_MAX - 1).unwrap_or(text.len());
            text.truncate(end);
            text.extend_from_slice(format!("\n({} more lines of it)", self.lines - HELD_LINES_MAX).as_bytes());
        }
        each(Said::Released(text));
    }
}

/// Whether a line can be inside an object that is printed over several. What a program says after an object that was cut
/// short is not held back with it.
fn is_part(line: &[u8]) -> bool {
    line.first().is_none_or(|first| first.is_ascii_whitespace() || matches!(first, b'"' | b'{' | b'}' | b']'))
}

/// A line from where its text begins: some programs put the mark of UTF-8 before it.
fn begin(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// Reads an object whose one key is a word: what it says, or why its value is not what the word takes. `None` where it is
/// no such object.
fn read(text: &[u8]) -> Option<Result<Said, (Word, String)>> {
    let Only { key, value } = serde_json::from_slice(text).ok()?;
    let word = Word::of(key.as_bytes())?;
    let value = value.get();
    let object = value.starts_with('{');
    let words = |why: serde_json::Error| why.to_string();
    let said = match word {
        Word::Progress if object => read_strictly(value.as_bytes()).map(Said::Progress).map_err(words),
        Word::Progress => serde_json::from_str(value)
            .map(|percent| Said::Progress(Progress::percent(percent)))
            .map_err(|_| "it must be a number from 0 to 100, or an object".into()),
        Word::Log if object => read_strictly(value.as_bytes()).map(Said::Log).map_err(words),
        Word::Log => serde_json::from_str(value)
            .map(|message| Said::Log(LogLineBody { level: Level::Info, message }))
            .map_err(|_| "it must be a text, or an object with level and message".into()),
        Word::Checkpoint => Json::parse(value).map(Said::Checkpoint).map_err(|why| why.to_string()),
        Word::Result if value.len() > RESULT_BYTES_MAX => Err(too_large()),
        Word::Result => Json::parse(value).map(Said::Result).map_err(|why| why.to_string()),
    };
    Some(said.map_err(|why| (word, why)))
}

fn too_large() -> String {
    format!("it is larger than the {RESULT_BYTES_MAX} bytes that a task may leave")
}

/// A line in UTF-16, as far as it can be told.
fn of_wide(line: &[u8]) -> Said {
    let text: Vec<u8> = line.iter().copied().filter(|byte| !matches!(byte, 0 | 0xfe | 0xff)).collect();
    let text = text.trim_ascii();
    match Scan::of(text).word().filter(|_| text.starts_with(b"{")) {
        Some(word) => Said::Unread { word, why: "it is written in UTF-16, and must be in UTF-8".into(), mixed: false },
        None => Said::Line,
    }
}

/// A line that does not begin like an object, and may end with one: dots, and then a result.
fn after_text(line: &[u8]) -> Said {
    let object = line.iter().position(|byte| *byte == b'{').map(|at| &line[at..]);
    match object.filter(|object| object.ends_with(b"}")).and_then(read) {
        Some(Ok(said)) => {
            let word = match said {
                Said::Progress(_) => Word::Progress,
                Said::Log(_) => Word::Log,
                Said::Checkpoint(_) => Word::Checkpoint,
                _ => Word::Result,
            };
            Said::Unread { word, why: "it must stand on a line of its own".into(), mixed: true }
        }
        _ => Said::Line,
    }
}

/// The keys of an object that need not be JSON.
#[derive(Debug, Default)]
struct Scan {
    depth: u32,
    /// The mark that ends the text which is being read.
    quote: Option<u8>,
    escaped: bool,
    /// What of that text was read, as far as it may be a word.
    text: Vec<u8>,
    /// A text of the outermost object has ended: a colon makes it a key.
    last: Option<Option<Word>>,
    /// The words among the keys.
    words: Vec<Word>,
    /// Keys that are no words.
    mixed: bool,
    /// A key was in single quotes.
    single: bool,
}

impl Scan {
    fn of(text: &[u8]) -> Scan {
        let mut scan = Scan::default();
        scan.take(text);
        scan
    }

    fn take(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(quote) = self.quote {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    _ if byte == quote => {
                        self.quote = None;
                        self.last = (self.depth == 1).then(|| Word::of(&self.text));
                        self.single |= quote == b'\'' && self.last.flatten().is_some();
                    }
                    _ if self.text.len() <= Word::Checkpoint.as_str().len() => self.text.push(byte),
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' | b'\'' => {
                    self.quote = Some(byte);
                    self.text.clear();
                }
                b':' => match self.last.take() {
                    Some(Some(word)) => self.words.push(word),
                    Some(None) => self.mixed = true,
                    None => {}
                },
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                byte if byte.is_ascii_whitespace() => {}
                _ => self.last = None,
            }
            // Two are enough to know that there is not exactly one.
            self.words.truncate(2);
        }
    }

    /// Whether more of it may follow on the next line. A text does not go over lines.
    fn is_open(&self) -> bool {
        self.depth > 0 && self.quote.is_none()
    }

    /// Whether it seems to be meant for the hub, and for nobody else.
    fn is_meant(&self) -> bool {
        !self.words.is_empty() && !self.mixed
    }

    /// The word that would be missed most.
    fn word(&self) -> Option<Word> {
        self.words.iter().max().copied()
    }

    fn too_long(&self) -> Said {
        match self.word() {
            Some(word) => Said::Unread { word, why: too_large(), mixed: self.mixed },
            None => Said::Line,
        }
    }

    /// What an object means that could not be read as one word.
    fn unreadable(&self, text: &[u8]) -> Said {
        let Some(word) = self.word() else { return Said::Line };
        let why = if self.mixed {
            "it has other keys beside it, and must be alone".into()
        } else if self.single {
            "it is in single quotes, as Python prints a dict: print json.dumps(…) instead".into()
        } else {
            match serde_json::from_slice::<&RawValue>(text) {
                Ok(_) => "it must be alone, once, in an object of its own".into(),
                Err(why) => malformed(text, &why),
            }
        };
        Said::Unread { word, why, mixed: self.mixed }
    }
}

/// Where a text stops being JSON, and what stands there.
fn malformed(text: &[u8], why: &serde_json::Error) -> String {
    let hint = match token(text, why) {
        token if token.is_empty() => String::new(),
        token => {
            let hint = match token.trim_start_matches(['-', '+']) {
                "NaN" | "nan" | "NAN" | "Infinity" | "inf" | "Inf" | "INF" => ", which JSON does not have: say null",
                "None" | "True" | "False" => ", which is Python's: print json.dumps(…)",
                "undefined" => ", which JSON does not have: say null",
                _ => "",
            };
            format!(", at {token:?}{hint}")
        }
    };
    format!("it is not JSON: {why}{hint}")
}

/// The run of letters and digits at the place that an error names.
fn token(text: &[u8], why: &serde_json::Error) -> String {
    let line = text.split(|byte| *byte == b'\n').nth(why.line().saturating_sub(1)).unwrap_or_default();
    let at = why.column().saturating_sub(1).min(line.len());
    let of_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    let from = at - line[..at].iter().rev().take_while(|byte| of_token(byte)).count();
    let to = at + line[at..].iter().take_while(|byte| of_token(byte)).count();
    String::from_utf8_lossy(&line[from..to.min(from + TOKEN_CHARS)]).into_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the lines of an output mean, less those that are only lines.
    fn said(output: &str) -> Vec<Said> {
        let (mut words, mut all) = (Words::default(), Vec::new());
        for line in output.split('\n') {
            words.line(line.as_bytes(), false, |said| all.push(said));
        }
        words.finish(|said| all.push(said));
        all.retain(|said| !matches!(said, Said::Line | Said::Held | Said::Released(_)));
        all
    }

    #[test]
    fn words_of_the_protocol() {
        let check = |text: &str, expected: Said| assert_eq!(said(text), [expected], "{text}");
        let json = |text: &str| Json::parse(text).unwrap();
        check(r#"{"progress":40}"#, Said::Progress(Progress::percent(40.0)));
        check(r#"{ "progress" : {"current":3,"total":4} }"#, Said::Progress(Progress::of(3, 4)));
        check(r#"{"log":"hello"}"#, Said::Log(LogLineBody { level: Level::Info, message: "hello".into() }));
        check(
            r#"{"log":{"level":"error","message":"x"}}"#,
            Said::Log(LogLineBody { level: Level::Error, message: "x".into() }),
        );
        check(
            r#"{"log":{"level":"CRITICAL","message":"x"}}"#,
            Said::Log(LogLineBody { level: Level::Error, message: "x".into() }),
        );
        check(r#"{"checkpoint":[1,  2]}"#, Said::Checkpoint(json("[1,  2]")));
        check(r#"{"result":null}"#, Said::Result(Json::null()));
        check(r#"{"result":{"a": 1}}"#, Said::Result(json(r#"{"a": 1}"#)));
        // White space around it, and the mark of UTF-8 before it.
        check("  {\"result\":1}\t", Said::Result(json("1")));
        check("\u{feff}{\"result\":1}", Said::Result(json("1")));
        // Over several lines, as with an indent.
        check(
            "{\n  \"result\": {\n    \"a\": [\n      1\n    ]\n  }\n}",
            Said::Result(json("{\n    \"a\": [\n      1\n    ]\n  }")),
        );
        check("{\n\n  \"progress\": 5\n}", Said::Progress(Progress::percent(5.0)));
        check("{\"result\": [\n  {\"progress\": 1}\n]}", Said::Result(json("[\n  {\"progress\": 1}\n]")));
    }

    #[test]
    fn what_is_no_word_is_a_line() {
        for plain in [
            "hello",
            "",
            "{}",
            "{",
            "{\n}",
            "{\n  \"name\": 1,\n  \"version\": 2\n}",
            "{\ntext\n",
            r#"{"results":1}"#,
            r#"{"name":{"result":1}}"#,
            r#"{"name":"result"}"#,
            r#"["result"]"#,
            r#"{"msg":"a \"result\": 1"}"#,
            "{name} is done",
            "{\"name\": NaN}",
            "sent {\"name\":1}",
            "{'name': 'result'}",
            "{\0}",
        ] {
            assert_eq!(said(plain), [], "{plain}");
        }
    }

    /// Regression: a result with `NaN` in it, as Python prints it, was taken for a line, and the task completed without.
    #[test]
    fn what_is_nearly_a_word_is_told() {
        let check = |text: &str, word: Word, words: &str| match said(text).as_slice() {
            [Said::Unread { word: got, why, mixed: false }] => {
                assert_eq!(*got, word, "{text}");
                assert!(why.contains(words), "{text}: {why}");
            }
            got => panic!("{text}: {got:?}"),
        };
        use Word::{Checkpoint, Log, Progress, Result};
        check(r#"{"result": {"loss": NaN, "epoch": 3}}"#, Result, "column 21, at \"NaN\", which JSON does not have");
        check(r#"{"result": [1, Infinity]}"#, Result, "at \"Infinity\"");
        check(r#"{"result": -Infinity}"#, Result, "at \"-Infinity\"");
        check(r#"{"result": nan}"#, Result, "at \"nan\"");
        check(r#"{"result": None}"#, Result, "which is Python's");
        check(r#"{'result': {'a': 1}}"#, Result, "single quotes");
        check(r#"{"result":1"#, Result, "ends before its last brace");
        check("{\"result\": {\"text\": \"abc", Result, "EOF while parsing a string");
        check(r#"{"result":1} and more"#, Result, "trailing characters at line 1 column 14");
        check(r#"{"result":1},"#, Result, "trailing characters");
        check(r#"{"progress":1}{"result":2}"#, Result, "trailing characters");
        check(r#"{"result":1,}"#, Result, "key must be a string");
        check(r#"{"result":}"#, Result, "expected value");
        check(r#"{"result":01}"#, Result, "invalid number");
        check(r#"{"result":1,"progress":2}"#, Result, "must be alone");
        check(r#"{"result":1,"result":2}"#, Result, "must be alone");
        check("{\n  \"result\": NaN\n}", Result, "line 2 column 13, at \"NaN\"");
        check("{\n  \"result\": [\n    1,", Result, "ends before its last brace");
        let wide: String = r#"{"result":1}"#.chars().flat_map(|letter| [letter, '\0']).collect();
        check(&wide, Result, "UTF-16");
        check(r#"{"progress":"half"}"#, Progress, "must be a number from 0 to 100");
        check(r#"{"progress":null}"#, Progress, "must be a number");
        check(r#"{"progress":NaN}"#, Progress, "at \"NaN\"");
        check(r#"{"progress":{"percent":1}}"#, Progress, "unknown field `percent`");
        check(r#"{"progress":{"current":"1"}}"#, Progress, "expected a number");
        check(r#"{"progress":{"counters":[1,2,3]}}"#, Progress, "expected an object");
        check(r#"{"log":5}"#, Log, "must be a text");
        check(r#"{"log":{"msg":"x"}}"#, Log, "unknown field `msg`");
        check(r#"{"checkpoint":{"at":Infinity}}"#, Checkpoint, "at \"Infinity\"");
        let invalid = [b"{\"result\":\"".as_slice(), b"\xff\"}"].concat();
        let mut got = Vec::new();
        Words::default().line(&invalid, false, |said| got.push(said));
        assert!(matches!(&got[..], [Said::Unread { word: Result, why, .. }] if why.contains("unicode")), "{got:?}");
    }

    #[test]
    fn an_object_of_somebody_else_is_told_and_is_no_word() {
        for text in [
            r#"{"result":1,"elapsed":2}"#,
            r#"{"elapsed":2,"progress":1}"#,
            r#"{"level":"info","log":NaN}"#,
            "{\n  \"result\": [],\n  \"success\": true\n}",
            r#"...{"result":1}"#,
            r#"INFO sent {"progress":1}"#,
        ] {
            let got = said(text);
            assert!(matches!(got.as_slice(), [Said::Unread { mixed: true, .. }]), "{text}: {got:?}");
        }
    }

    #[test]
    fn one_that_was_cut_short_does_not_hide_the_next() {
        let got = said("{\"result\": {\"a\": 1\n{\"progress\":5}\n{\"result\":2}");
        let why = "it ends before its last brace".to_owned();
        let expected = [
            Said::Unread { word: Word::Result, why, mixed: false },
            Said::Progress(Progress::percent(5.0)),
            Said::Result(Json::parse("2").unwrap()),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn lines_that_were_held_back_are_not_lost() {
        // What would be logged.
        let logged = |output: &str| {
            let (mut words, mut lines) = (Words::default(), Vec::new());
            for line in output.split('\n') {
                let mut is_line = true;
                words.line(line.as_bytes(), false, |said| {
                    is_line = !matches!(said, Said::Held | Said::Result(_));
                    if let Said::Released(text) = said {
                        lines.extend(String::from_utf8(text).unwrap().split('\n').map(str::to_owned));
                    }
                });
                if is_line {
                    lines.push(line.to_owned());
                }
            }
            words.finish(|said| {
                if let Said::Released(text) = said {
                    lines.extend(String::from_utf8(text).unwrap().split('\n').map(str::to_owned));
                }
            });
            lines.join("\n")
        };
        for output in [
            "{\n  \"name\": 1\n}\nend",
            "{\n  \"result\": 1,\n  \"name\": 1\n}",
            "{\n\n  \"result\": NaN\n}\nend",
            "{\"result\": [\n2026-10-01 12:00 INFO goes on",
            "{\nhello",
            "{",
        ] {
            assert_eq!(logged(output), output);
        }
        assert_eq!(logged("one\n{\n  \"result\": 1\n}\ntwo"), "one\ntwo");
        let long = logged(&format!("{{\"result\": [\n{} NaN]}}\nend", "  1,\n".repeat(1_000)));
        assert!(long.ends_with("  1,\n(982 more lines of it)\nend") && long.lines().count() == 22, "{long}");
    }

    #[test]
    fn a_result_over_its_limit_is_told() {
        let text = |n: usize| format!("{{\"result\":\"{}\"}}", "x".repeat(n));
        assert!(matches!(said(&text(RESULT_BYTES_MAX - 2))[..], [Said::Result(_)]));
        let check = |got: &[Said]| match got {
            [Said::Unread { word: Word::Result, why, mixed: false }] => assert!(why.contains("1048576"), "{why}"),
            got => panic!("{got:?}"),
        };
        check(&said(&text(RESULT_BYTES_MAX - 1)));
        let mut got = Vec::new();
        Words::default().line(&text(OBJECT_BYTES_MAX).as_bytes()[..OBJECT_BYTES_MAX], true, |said| got.push(said));
        check(&got);
        // Printed over many lines: what is gathered is bounded.
        let lines = format!("{{\n \"result\": [\n{}1]}}", "   \"a line of a long list\",\n".repeat(50_000));
        check(&said(&lines));
    }
}
