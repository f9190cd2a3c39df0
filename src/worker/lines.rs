//! Cuts what a command writes into lines, and lines into the states they were drawn in.
//!
//! A line ends with a line feed. Programs that show their own progress draw a line again and again: a carriage return, or
//! the escape sequences that move to the first column (`ESC [ G`) or erase the line (`ESC [ 2 K`), end one state of it
//! and begin the next. `CR LF` is an end like any other: an empty last state. Drawing over lines further up (`ESC [ n A`,
//! `ESC [ n F`) is told too: the next `n` lines replace others. A backspace takes a character back.
//!
//! Memory stays bounded however long a line is: what is beyond the limit is dropped, and the line is said to be cut.

use crate::task::{LOG_LINE_BYTES_MAX, RESULT_BYTES_MAX};

/// The longest line that may be meant for the hub: a result of full size and the braces around it.
pub(super) const OBJECT_BYTES_MAX: usize = RESULT_BYTES_MAX + 64;
/// An escape sequence that is longer is none of those that matter here.
const SEQUENCE_BYTES_MAX: usize = 16;
/// A screen has fewer lines.
const ROWS_MAX: u32 = 1_000;

/// A line, or one state of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// What it had beyond its limit was dropped.
    pub(super) cut: bool,
    pub(super) end: End,
}

/// What came after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The next state of the same line.
    State,
    /// The next line.
    Line,
    /// The next line; this one was drawn over an older one.
    LineAbove,
}

impl Piece<'_> {
    /// As text for people.
    pub(super) fn text(&self) -> String {
        text(self.bytes)
    }
}

/// Bytes of a line as text for people.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LOG_LINE_BYTES_MAX)]).into_owned()
}

/// Cuts a stream of bytes into pieces.
#[derive(Debug)]
pub(super) struct Lines {
    /// Whether a line may be an object for the hub, and so be long.
    objects: bool,
    line: Vec<u8>,
    /// The line begins like an object. Not known while it is blank.
    object: Option<bool>,
    cut: bool,
    /// Where in the line an escape sequence began that has not ended.
    sequence: Option<usize>,
    /// How many lines are still to be drawn over others.
    above: u32,
}

impl Lines {
    pub(super) fn new(objects: bool) -> Lines {
        Lines { objects, line: Vec::new(), object: None, cut: false, sequence: None, above: 0 }
    }

    /// Takes more bytes; `each` gets every piece that ended in them.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            if self.of_sequence(bytes[0], &mut each) {
                bytes = &bytes[1..];
                continue;
            }
            let special = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'\x08' | b'\x1b');
            let Some(at) = bytes.iter().position(special) else {
                self.keep(bytes);
                return;
            };
            self.keep(&bytes[..at]);
            match bytes[at] {
                b'\n' => self.end_line(&mut each),
                b'\r' => self.end(End::State, &mut each),
                b'\x08' => {
                    self.take_back();
                    // The line is being redrawn, though none of its states ends here.
                    each(Piece { bytes: b"", cut: false, end: End::State });
                }
                _ => self.begin_sequence(),
            }
            bytes = &bytes[at + 1..];
        }
    }

    /// The stream has ended; what is left is a line too.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if !self.line.is_empty() {
            self.end_line(&mut each);
        }
    }

    /// What the line shows now, where it does not look like an object that is still being written.
    pub(super) fn shown(&self) -> Option<String> {
        (self.object == Some(false)).then(|| text(&self.line))
    }

    fn end_line(&mut self, each: &mut impl FnMut(Piece<'_>)) {
        let end = if self.above > 0 { End::LineAbove } else { End::Line };
        self.above = self.above.saturating_sub(1);
        self.end(end, each);
    }

    fn end(&mut self, end: End, each: &mut impl FnMut(Piece<'_>)) {
        each(Piece { bytes: &self.line, cut: self.cut, end });
        self.line.clear();
        // A line of a megabyte is rare; its memory is not kept for the next.
        self.line.shrink_to(LOG_LINE_BYTES_MAX);
        (self.object, self.cut, self.sequence) = (None, false, None);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.object.is_none() {
            // Also behind the mark that some programs put before their text, and between the zeros of UTF-16.
            let blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
            self.object = bytes.iter().find(|byte| !blank(byte)).map(|byte| self.objects && *byte == b'{');
        }
        let bytes_max = if self.object == Some(true) { OBJECT_BYTES_MAX } else { LOG_LINE_BYTES_MAX };
        let room = bytes_max.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
    }

    fn take_back(&mut self) {
        while let Some(byte) = self.line.pop() {
            // The first byte of a character is no continuation of one.
            if byte & 0xc0 != 0x80 {
                break;
            }
        }
    }

    fn begin_sequence(&mut self) {
        let at = self.line.len();
        self.keep(b"\x1b");
        if self.line.len() > at {
            self.sequence = Some(at);
        }
    }

    /// Takes a byte of the escape sequence that has begun. One that moves or erases ends a state; any other (it colours,
    /// or is none) is part of the line, with the byte that ended it, which is then not taken here.
    fn of_sequence(&mut self, byte: u8, each: &mut impl FnMut(Piece<'_>)) -> bool {
        let Some(from) = self.sequence else { return false };
        let goes_on = match self.line.len() - from {
            1 => byte == b'[',
            2..SEQUENCE_BYTES_MAX => matches!(byte, 0x20..=0x3f),
            _ => false,
        };
        if goes_on {
            self.line.push(byte);
            return true;
        }
        self.sequence = None;
        let number = match self.line[from..].strip_prefix(b"\x1b[") {
            Some([]) => Some(1),
            Some(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok()),
            None => None,
        };
        match (byte, number) {
            (b'G', Some(0 | 1)) | (b'K', Some(2)) => {
                self.line.truncate(from);
                self.end(End::State, each);
                true
            }
            (b'A' | b'F', Some(rows)) => {
                self.line.truncate(from);
                self.above = self.above.saturating_add(rows).min(ROWS_MAX);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(lines: &mut Lines, bytes: &[u8]) -> Vec<(String, End)> {
        let mut got = Vec::new();
        lines.push(bytes, |piece| got.push((piece.text(), piece.end)));
        got
    }

    #[test]
    fn pieces_come_whole_however_the_bytes_come() {
        use End::{Line, LineAbove, State};
        let text = "one\ntwo\r\n\nthree\rfour\r\r\n{\"progress\":1}\n\
            \x1b[32mgreen\x1b[0m\n\x1b[2K\x1b[1Gdrawn\x1b[1G\x1b[0Kagain\n\
            99%\x08\x08\x08100%é\x08\n\rinner\x1b[A\router\n\x1b[2Fa\nb\nc\n\x1bc\x1b[\nlast";
        let expected = [
            ("one", Line),
            ("two", State),
            ("", Line),
            ("", Line),
            ("three", State),
            ("four", State),
            ("", State),
            ("", Line),
            ("{\"progress\":1}", Line),
            ("\x1b[32mgreen\x1b[0m", Line),
            ("", State),
            ("", State),
            ("drawn", State),
            ("\x1b[0Kagain", Line),
            ("", State),
            ("", State),
            ("", State),
            ("", State),
            ("100%", Line),
            ("", State),
            ("inner", State),
            ("outer", LineAbove),
            ("a", LineAbove),
            ("b", LineAbove),
            ("c", Line),
            ("\x1bc\x1b[", Line),
            ("last", Line),
        ];
        for size in 1..text.len() {
            let mut lines = Lines::new(true);
            let mut got = Vec::new();
            for bytes in text.as_bytes().chunks(size) {
                got.extend(pieces(&mut lines, bytes));
            }
            lines.finish(|piece| got.push((piece.text(), piece.end)));
            let got: Vec<_> = got.iter().map(|(text, end)| (text.as_str(), *end)).collect();
            assert_eq!(got, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        for bytes in [&[b'x'; 4_096][..], &[b'\x1b'; 4_096], &b"\x1b[31m".repeat(1_000), &[b' '; 4_096]] {
            let mut lines = Lines::new(true);
            for _ in 0..1_000 {
                lines.push(bytes, |_| panic!("no line has ended"));
            }
            assert!(lines.line.capacity() <= 2 * LOG_LINE_BYTES_MAX + SEQUENCE_BYTES_MAX, "{}", lines.line.capacity());
            let mut got = Vec::new();
            lines.push(b"\n", |piece| got.push((piece.text().len(), piece.cut)));
            assert_eq!(got, [(LOG_LINE_BYTES_MAX, true)]);
        }
    }

    #[test]
    fn what_begins_like_an_object_may_be_long() {
        for (begin, objects, length) in [
            ("{", true, OBJECT_BYTES_MAX),
            ("  {", true, OBJECT_BYTES_MAX),
            ("\u{feff}{", true, OBJECT_BYTES_MAX),
            ("x{", true, LOG_LINE_BYTES_MAX),
            ("{", false, LOG_LINE_BYTES_MAX),
        ] {
            let mut lines = Lines::new(objects);
            lines.push(begin.as_bytes(), |_| panic!("no line has ended"));
            for _ in 0..2 * RESULT_BYTES_MAX / 4_096 {
                lines.push(&[b'x'; 4_096], |_| panic!("no line has ended"));
            }
            lines.push(b"\n", |piece| assert_eq!((piece.bytes.len(), piece.cut), (length, true), "{begin}"));
        }
    }

    #[test]
    fn what_a_line_shows_is_known_before_it_ends() {
        let shown = |text: &str| {
            let mut lines = Lines::new(true);
            lines.push(text.as_bytes(), |_| {});
            lines.shown()
        };
        assert_eq!(shown("one\n50 %").as_deref(), Some("50 %"));
        assert_eq!(shown("one\r50 %").as_deref(), Some("50 %"));
        assert_eq!(shown("{\"progress\":"), None);
        assert_eq!(shown("one\n"), None);
    }
}
