//! WebSocket frames as a hub sends them, taken apart no further than counting needs: where frames and lines begin, and how
//! each line begins. What a line says beyond that is skipped, not parsed, so a client built on this costs little beside
//! the system calls it makes.

/// How much of a line is kept: enough for its type, and for the `rev` or `epoch` that stands near.
const LINE_HEAD_BYTES: usize = 96;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// What comes in, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// How a line begins.
    Line(&'a [u8]),
    /// The end of a text message that held the lines before.
    Message,
    Ping,
    Close,
}

/// The frames of one socket, in whatever pieces they come.
pub struct Frames {
    head: [u8; 10],
    head_len: usize,
    /// Of the payload of the frame that has begun.
    left: usize,
    line: [u8; LINE_HEAD_BYTES],
    line_len: usize,
}

impl Frames {
    pub fn new() -> Frames {
        Frames { head: [0; 10], head_len: 0, left: 0, line: [0; LINE_HEAD_BYTES], line_len: 0 }
    }

    /// Takes what was read.
    pub fn take(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen<'_>)) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.head_len < self.head_bytes() {
                self.head[self.head_len] = first;
                self.head_len += 1;
                bytes = rest;
                if self.head_len == self.head_bytes() {
                    self.left = self.payload_bytes();
                }
            } else {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                bytes = rest;
                if self.opcode() <= TEXT {
                    self.take_text(payload, &mut seen);
                }
            }
            if self.left == 0 && self.head_len == self.head_bytes() {
                self.end_frame(&mut seen);
            }
        }
    }

    fn take_text(&mut self, mut text: &[u8], seen: &mut impl FnMut(Seen<'_>)) {
        while let Some(end) = find_newline(text) {
            self.keep(&text[..end]);
            self.end_line(seen);
            text = &text[end + 1..];
        }
        self.keep(text);
    }

    fn keep(&mut self, text: &[u8]) {
        let len = text.len().min(LINE_HEAD_BYTES - self.line_len);
        self.line[self.line_len..self.line_len + len].copy_from_slice(&text[..len]);
        self.line_len += len;
    }

    fn end_line(&mut self, seen: &mut impl FnMut(Seen<'_>)) {
        seen(Seen::Line(&self.line[..self.line_len]));
        self.line_len = 0;
    }

    fn end_frame(&mut self, seen: &mut impl FnMut(Seen<'_>)) {
        let is_last = self.head[0] & 0x80 != 0;
        match self.opcode() {
            PING => seen(Seen::Ping),
            CLOSE => seen(Seen::Close),
            0 | TEXT if is_last => {
                self.end_line(seen);
                seen(Seen::Message);
            }
            _ => {}
        }
        self.head_len = 0;
    }

    fn opcode(&self) -> u8 {
        self.head[0] & 0x0f
    }

    /// How long the head is, as far as it is known.
    fn head_bytes(&self) -> usize {
        match self.head[1] & 0x7f {
            _ if self.head_len < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn payload_bytes(&self) -> usize {
        match self.head_bytes() {
            2 => (self.head[1] & 0x7f).into(),
            long => self.head[2..long].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
        }
    }
}

/// The C library's search takes many bytes at once, the standard library's takes one.
fn find_newline(text: &[u8]) -> Option<usize> {
    // SAFETY: the pointer and the length are those of `text`, which is only read.
    let at = unsafe { libc::memchr(text.as_ptr().cast(), b'\n'.into(), text.len()) };
    (!at.is_null()).then(|| at as usize - text.as_ptr() as usize)
}

/// A text frame as a server sends it.
pub fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x80 | TEXT);
    match text.len() {
        len @ ..126 => out.push(len as u8),
        len @ ..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// A text frame as a client sends it, under a mask of nothing.
pub fn push_masked_text(out: &mut Vec<u8>, text: &[u8]) {
    let at = out.len();
    push_text(out, text);
    out[at + 1] |= 0x80;
    let head_bytes = out.len() - text.len();
    out.splice(head_bytes..head_bytes, [0; 4]);
}

/// A client's answer to a ping that says nothing.
pub const MASKED_PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

/// The number after `key`, as in `"rev":12`.
pub fn number_after(line: &[u8], key: &[u8]) -> Option<u64> {
    let at = line.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
