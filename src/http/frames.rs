//! What a WebSocket client says, read from bytes as they come (RFC 6455, 5), and the control frames said back. No I/O.
//!
//! A connection on which nothing is half received costs [`Inbound`] itself, two words, and no heap: what is half received
//! stands in a box that goes when the rest has come. A frame that came whole is read where it lies.
//!
//! What breaks a rule is refused at the byte that breaks it, so that nobody makes us take the rest: a head before its
//! payload, a message too large before a byte of it is held, text that is not UTF-8 in the middle of a frame. No memory
//! is set aside for what was only announced.
//!
//! Extensions are not offered, so no reserved bit may be set.

use bytes::Bytes;

use crate::feed::{FrameHead, Opcode};

/// The most bytes of a control frame's payload (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// The longest head of a client's frame: two bytes, eight of length, four of key.
const HEAD_BYTES_MAX: usize = 14;
/// The most frames of one message that carry nothing. The others are bounded by the bytes of the message; these would go
/// on for ever. Some clients end a stream with one, and none has a use for many.
const EMPTY_FRAMES_MAX: u8 = 64;

/// What the other side said. Control frames are heard between the frames of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A whole message.
    Text(String),
    /// A whole message.
    Binary(Vec<u8>),
    /// To be answered with a [`pong_frame`] of the same bytes, at most 125.
    Ping(Bytes),
    Pong,
    /// With the code that was given. Nothing that comes behind it means anything.
    Close(Option<u16>),
}

/// The other side broke a rule or a bound. Nothing that comes behind it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Protocol(&'static str),
    /// A text, or the reason of a close.
    NotUtf8,
    /// A message over its bound. `left` bytes of payload, none of them taken yet, follow before the frame ends.
    TooBig {
        left: u64,
    },
}

impl Broken {
    /// The code to close with (RFC 6455, 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Broken::Protocol(_) => 1002,
            Broken::NotUtf8 => 1007,
            Broken::TooBig { .. } => 1009,
        }
    }
}

/// Reads what one client says.
#[derive(Debug)]
pub struct Inbound {
    message_bytes_max: usize,
    /// Nothing, when no frame and no message is half received.
    half: Option<Box<Half>>,
}

/// What is half received. A head, or else a frame; and beside it a message, when control frames stand in it.
#[derive(Debug, Default)]
struct Half {
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    frame: Option<Frame>,
    /// The payload so far, when `frame` is a control frame.
    control: Vec<u8>,
    message: Option<Message>,
}

impl Half {
    fn is_empty(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }
}

impl Inbound {
    /// Nothing was heard yet, and no message may have more than so many bytes of payload.
    pub fn new(message_bytes_max: usize) -> Inbound {
        Inbound { message_bytes_max, half: None }
    }

    /// Whether nothing is half received.
    pub fn is_idle(&self) -> bool {
        self.half.is_none()
    }

    /// How much memory is held beside this, in bytes: none where nothing is half received.
    pub fn heap_bytes(&self) -> usize {
        self.half.as_ref().map_or(0, |half| {
            let payload = half.message.as_ref().map_or(0, |message| message.payload.capacity());
            size_of::<Half>() + half.control.capacity() + payload
        })
    }

    /// Takes from the front of `bytes`, unmasking in place, and answers with what is heard next: `None` when all were
    /// taken and more are needed.
    pub fn next(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Heard>, Broken> {
        let heard = self.advance(bytes);
        if self.half.as_ref().is_some_and(|half| half.is_empty()) {
            self.half = None;
        }
        heard
    }

    fn advance(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Heard>, Broken> {
        loop {
            let begun = self.half.as_mut().and_then(|half| half.frame.take());
            let frame = match begun {
                Some(frame) => frame,
                None => match self.take_head(bytes)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            if let Some(heard) = self.take_payload(frame, bytes)? {
                return Ok(Some(heard));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Takes the head of a frame and checks that the frame may stand here. `None` when more is needed.
    fn take_head(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Frame>, Broken> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (mut head, before) = self.half.as_ref().map_or(([0; _], 0), |half| (half.head, half.head_len));
        let upto = HEAD_BYTES_MAX.min(before + bytes.len());
        head[before..upto].copy_from_slice(&bytes[..upto - before]);
        let Some((frame, len)) = Frame::read(&head[..upto])? else {
            take(bytes, upto - before);
            let half = self.half.get_or_insert_default();
            (half.head, half.head_len) = (head, upto);
            return Ok(None);
        };
        take(bytes, len - before);
        let message = self.half.as_mut().and_then(|half| {
            half.head_len = 0;
            half.message.as_mut()
        });
        let said_bytes = match (frame.kind, message) {
            (Kind::Ping | Kind::Pong | Kind::Close, _) => return Ok(Some(frame)),
            (Kind::Continuation, None) => return Err(Broken::Protocol("a continuation of nothing")),
            (Kind::Text | Kind::Binary, Some(_)) => return Err(Broken::Protocol("a message within a message")),
            (Kind::Text | Kind::Binary, None) => 0,
            (Kind::Continuation, Some(message)) => {
                message.empty_frames += u8::from(frame.left == 0);
                if message.empty_frames > EMPTY_FRAMES_MAX {
                    return Err(Broken::Protocol("too many empty frames"));
                }
                message.payload.len()
            }
        };
        if frame.left > (self.message_bytes_max - said_bytes) as u64 {
            return Err(Broken::TooBig { left: frame.left });
        }
        Ok(Some(frame))
    }

    /// Takes what is there of a frame's payload.
    fn take_payload(&mut self, mut frame: Frame, bytes: &mut &mut [u8]) -> Result<Option<Heard>, Broken> {
        let len = usize::try_from(frame.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let chunk = take(bytes, len);
        unmask(chunk, frame.key);
        let is_fresh = frame.is_fresh;
        frame.key.rotate_left(len % 4);
        frame.left -= len as u64;
        frame.is_fresh = false;
        let is_done = frame.left == 0;
        let is_whole = is_fresh && is_done;

        match frame.kind {
            kind @ (Kind::Ping | Kind::Pong | Kind::Close) => {
                if is_whole {
                    return control(kind, chunk).map(Some);
                }
                let half = self.half.get_or_insert_default();
                half.control.extend_from_slice(chunk);
                if is_done {
                    return control(kind, &std::mem::take(&mut half.control)).map(Some);
                }
                half.frame = Some(frame);
                Ok(None)
            }
            Kind::Text if is_whole && frame.is_last => {
                let text = std::str::from_utf8(chunk).map_err(|_| Broken::NotUtf8)?;
                Ok(Some(Heard::Text(text.to_owned())))
            }
            Kind::Binary if is_whole && frame.is_last => Ok(Some(Heard::Binary(chunk.to_vec()))),
            kind => {
                let half = self.half.get_or_insert_default();
                let message = half.message.get_or_insert_with(|| Message::new(kind));
                message.payload.push(chunk)?;
                if !is_done {
                    half.frame = Some(frame);
                } else if frame.is_last {
                    let payload = half.message.take().map(|message| message.payload);
                    return payload.map(Payload::finish).transpose();
                }
                Ok(None)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame, from its head on.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    /// Of its message.
    is_last: bool,
    /// Turned to the next byte of the payload.
    key: [u8; 4],
    /// How many bytes of the payload are still to come.
    left: u64,
    /// Nothing of the payload was taken.
    is_fresh: bool,
}

impl Frame {
    /// Reads the head of a frame, and says how long the head is. `None` when it goes on behind these bytes.
    fn read(head: &[u8]) -> Result<Option<(Frame, usize)>, Broken> {
        let Some(&first) = head.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Broken::Protocol("a reserved bit is set"));
        }
        let is_last = first & 0x80 != 0;
        let kind = match first & 0x0F {
            0x0 => Kind::Continuation,
            0x1 => Kind::Text,
            0x2 => Kind::Binary,
            0x8 => Kind::Close,
            0x9 => Kind::Ping,
            0xA => Kind::Pong,
            _ => return Err(Broken::Protocol("a reserved opcode")),
        };
        let is_control = matches!(kind, Kind::Close | Kind::Ping | Kind::Pong);
        if is_control && !is_last {
            return Err(Broken::Protocol("a control frame in parts"));
        }
        let Some(&second) = head.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Broken::Protocol("a client's frame is not masked"));
        }
        let short = second & 0x7F;
        if is_control && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Broken::Protocol("a control frame of more than 125 bytes"));
        }
        let (left, key_at) = match short {
            126 => match head[2..].first_chunk() {
                Some(long) => (u64::from(u16::from_be_bytes(*long)), 4),
                None => return Ok(None),
            },
            127 => match head[2..].first_chunk() {
                Some(long) => (u64::from_be_bytes(*long), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if left >> 63 != 0 {
            return Err(Broken::Protocol("a length of more than 63 bits"));
        }
        if (short == 126 && left < 126) || (short == 127 && left <= 0xFFFF) {
            return Err(Broken::Protocol("a length not in its shortest form"));
        }
        let Some(&key) = head[key_at..].first_chunk() else { return Ok(None) };
        Ok(Some((Frame { kind, is_last, key, left, is_fresh: true }, key_at + 4)))
    }
}

/// A message of which more is to come.
#[derive(Debug)]
struct Message {
    payload: Payload,
    empty_frames: u8,
}

impl Message {
    fn new(kind: Kind) -> Message {
        let payload = match kind {
            Kind::Text => Payload::Text { text: String::new(), cut: Cut::default() },
            _ => Payload::Binary(Vec::new()),
        };
        Message { payload, empty_frames: 0 }
    }
}

#[derive(Debug)]
enum Payload {
    Text { text: String, cut: Cut },
    Binary(Vec<u8>),
}

/// The beginning of a character whose rest is still to come.
#[derive(Debug, Default)]
struct Cut {
    bytes: [u8; 4],
    len: usize,
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Payload::Text { text, cut } => text.len() + cut.len,
            Payload::Binary(bytes) => bytes.len(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Payload::Text { text, .. } => text.capacity(),
            Payload::Binary(bytes) => bytes.capacity(),
        }
    }

    fn push(&mut self, mut chunk: &[u8]) -> Result<(), Broken> {
        let (text, cut) = match self {
            Payload::Text { text, cut } => (text, cut),
            Payload::Binary(bytes) => {
                bytes.extend_from_slice(chunk);
                return Ok(());
            }
        };
        while cut.len > 0 {
            let Some((&byte, rest)) = chunk.split_first() else { return Ok(()) };
            chunk = rest;
            cut.bytes[cut.len] = byte;
            cut.len += 1;
            match std::str::from_utf8(&cut.bytes[..cut.len]) {
                Ok(whole) => {
                    text.push_str(whole);
                    cut.len = 0;
                }
                Err(error) if error.error_len().is_some() => return Err(Broken::NotUtf8),
                Err(_) => {}
            }
        }
        match std::str::from_utf8(chunk) {
            Ok(more) => text.push_str(more),
            Err(error) if error.error_len().is_some() => return Err(Broken::NotUtf8),
            Err(error) => {
                let (more, rest) = chunk.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(more).map_err(|_| Broken::NotUtf8)?);
                cut.bytes[..rest.len()].copy_from_slice(rest);
                cut.len = rest.len();
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Heard, Broken> {
        match self {
            Payload::Text { cut, .. } if cut.len > 0 => Err(Broken::NotUtf8),
            Payload::Text { text, .. } => Ok(Heard::Text(text)),
            Payload::Binary(bytes) => Ok(Heard::Binary(bytes)),
        }
    }
}

/// What a whole control frame says.
fn control(kind: Kind, payload: &[u8]) -> Result<Heard, Broken> {
    match kind {
        Kind::Ping => Ok(Heard::Ping(Bytes::copy_from_slice(payload))),
        Kind::Pong => Ok(Heard::Pong),
        _ => close(payload).map(Heard::Close),
    }
}

fn close(payload: &[u8]) -> Result<Option<u16>, Broken> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(None),
            false => Err(Broken::Protocol("half a close code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // Those that the registry has given out, and those for libraries and applications. 1004 to 1006 and 1015 are never sent.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Broken::Protocol("a close code that may not be sent"));
    }
    std::str::from_utf8(reason).map_err(|_| Broken::NotUtf8)?;
    Ok(Some(code))
}

/// Takes the first `len` bytes, which are there.
fn take<'a>(bytes: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    bytes.split_off_mut(..len).unwrap_or_default()
}

fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let word_key = u32::from_ne_bytes(key);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// A close with a code and words, which are cut where they are too long.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut len = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    control_frame(Opcode::Close, &[&code.to_be_bytes(), &reason.as_bytes()[..len]].concat())
}

/// The answer to [`Heard::Ping`].
pub fn pong_frame(payload: &[u8]) -> Bytes {
    control_frame(Opcode::Pong, &payload[..payload.len().min(CONTROL_BYTES_MAX)])
}

/// Asks the other side whether it is there.
pub fn ping_frame() -> Bytes {
    control_frame(Opcode::Ping, &[])
}

fn control_frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    [&*FrameHead::new(opcode, payload.len()), payload].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1_000;
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A client's frame: its first byte, and its payload with the length in the shortest form.
    fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let payload = payload.as_ref();
        let mut frame = FrameHead::new(Opcode::Text, payload.len()).to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(KEY);
        let at = frame.len();
        frame.extend(payload);
        unmask(&mut frame[at..], KEY);
        frame
    }

    /// All that is heard when the bytes come in pieces of `step`.
    fn hear_by(step: usize, bytes: &[u8]) -> Result<Vec<Heard>, Broken> {
        let (mut inbound, mut all) = (Inbound::new(MAX), Vec::new());
        for piece in bytes.to_vec().chunks_mut(step) {
            let mut piece = piece;
            while let Some(heard) = inbound.next(&mut piece)? {
                all.push(heard);
            }
            assert!(piece.is_empty());
        }
        Ok(all)
    }

    fn brief(value: impl std::fmt::Debug) -> String {
        format!("{:.400}", format!("{value:?}"))
    }

    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: Result<&[Heard], Broken>) {
        let bytes = frames.concat();
        for step in [1, 2, 3, 7, bytes.len()] {
            let (got, expected) = (hear_by(step, &bytes), expected.map(<[_]>::to_vec));
            assert!(
                got == expected,
                "{step} at a time of {}: {} is not {}",
                brief(&bytes),
                brief(got),
                brief(expected)
            );
        }
    }

    fn text(words: &str) -> Heard {
        Heard::Text(words.to_owned())
    }

    #[test]
    fn whole_messages() {
        let long = "ä".repeat(MAX / 2);
        check(&[frame(0x81, "hello")], Ok(&[text("hello")]));
        check(&[frame(0x81, "")], Ok(&[text("")]));
        check(&[frame(0x81, &long), frame(0x82, [0xFF; 126])], Ok(&[text(&long), Heard::Binary(vec![0xFF; 126])]));
        let ping = |payload: &'static [u8]| Heard::Ping(Bytes::from_static(payload));
        check(&[frame(0x89, ""), frame(0x89, [7; 125])], Ok(&[ping(b""), ping(&[7; 125])]));
        check(&[frame(0x8A, "any"), frame(0x8A, "")], Ok(&[Heard::Pong, Heard::Pong]));
    }

    #[test]
    fn fragments_are_joined_and_control_frames_stand_between() {
        check(
            &[frame(0x01, "κό"), frame(0x89, "?"), frame(0x00, ""), frame(0x8A, ""), frame(0x80, "σμε")],
            Ok(&[Heard::Ping("?".into()), Heard::Pong, text("κόσμε")]),
        );
        // A character may be cut anywhere.
        let (front, back) = "a😀b".as_bytes().split_at(3);
        check(&[frame(0x01, front), frame(0x80, back)], Ok(&[text("a😀b")]));
        check(&[frame(0x02, [1]), frame(0x00, [0xFF]), frame(0x80, [])], Ok(&[Heard::Binary(vec![1, 0xFF])]));
        check(&[frame(0x01, ""), frame(0x80, ""), frame(0x81, "next")], Ok(&[text(""), text("next")]));
    }

    #[test]
    fn closes() {
        check(&[frame(0x88, "")], Ok(&[Heard::Close(None)]));
        let close = |code: u16, reason: &[u8]| vec![frame(0x88, [&code.to_be_bytes(), reason].concat())];
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            check(&close(code, "tschüß".as_bytes()), Ok(&[Heard::Close(Some(code))]));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            check(&close(code, b""), Err(Broken::Protocol("a close code that may not be sent")));
        }
        check(&close(1000, &[0xC3]), Err(Broken::NotUtf8));
        check(&[frame(0x88, [3])], Err(Broken::Protocol("half a close code")));
    }

    #[test]
    fn what_breaks_the_rules() {
        let head = |bytes: &[u8]| vec![bytes.to_vec()];
        for (frames, why) in [
            (head(&[0xC1]), "a reserved bit is set"),
            (head(&[0xA1]), "a reserved bit is set"),
            (head(&[0x91]), "a reserved bit is set"),
            (head(&[0x83]), "a reserved opcode"),
            (head(&[0x87]), "a reserved opcode"),
            (head(&[0x8B]), "a reserved opcode"),
            (head(&[0x8F]), "a reserved opcode"),
            (head(&[0x09]), "a control frame in parts"),
            (head(&[0x08]), "a control frame in parts"),
            (head(&[0x81, 0x05]), "a client's frame is not masked"),
            (head(&[0x89, 0xFE]), "a control frame of more than 125 bytes"),
            (head(&[0x88, 0xFF]), "a control frame of more than 125 bytes"),
            (head(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]), "a length of more than 63 bits"),
            (head(&[0x81, 0xFE, 0, 125]), "a length not in its shortest form"),
            (head(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), "a length not in its shortest form"),
            (vec![frame(0x80, "x")], "a continuation of nothing"),
            (vec![frame(0x81, "x"), frame(0x00, "x")], "a continuation of nothing"),
            (vec![frame(0x01, "x"), frame(0x81, "x")], "a message within a message"),
            (vec![frame(0x01, "x"), frame(0x02, "x")], "a message within a message"),
            ([vec![frame(0x01, "")], vec![frame(0x00, ""); 65]].concat(), "too many empty frames"),
        ] {
            let got = hear_by(1, &frames.concat()).unwrap_err();
            assert_eq!(got, Broken::Protocol(why), "{frames:02x?}");
            assert_eq!(got.code(), 1002);
        }
        check(&[frame(0x81, [0xFF])], Err(Broken::NotUtf8));
        check(&[frame(0x81, [0xC3])], Err(Broken::NotUtf8));
        check(&[frame(0x01, [0xE2, 0x82]), frame(0x80, "")], Err(Broken::NotUtf8));
    }

    #[test]
    fn text_is_refused_at_the_byte_that_breaks_it() {
        for bad in [&[0xC0][..], &[0xED, 0xA0], &[0xF4, 0x90], &[0xF5], &[0x80], &[0xE2, 0x28]] {
            let mut bytes = frame(0x01, [&[b'x'; 800], bad, &[b'x'; 150]].concat());
            let (mut front, mut back) = bytes.split_at_mut(8 + 800 + bad.len() - 1);
            let mut inbound = Inbound::new(MAX);
            assert_eq!(inbound.next(&mut front), Ok(None), "{bad:02x?}");
            assert_eq!(inbound.next(&mut back.split_off_mut(..1).unwrap()), Err(Broken::NotUtf8), "{bad:02x?}");
        }
    }

    /// Each way that bytes at the borders of UTF-8's ranges may follow each other, byte by byte: what stands so far is
    /// refused when no more could make it right.
    #[test]
    fn every_cut_of_every_kind_of_character() {
        let borders = [
            0x00, b'a', 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
            0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        let len = borders.len();
        for n in 0..len.pow(4) {
            let bytes = [n, n / len, n / len.pow(2), n / len.pow(3)].map(|n| borders[n % len]);
            let mut payload = Message::new(Kind::Text).payload;
            let refused = (1..=4).find_map(|upto| {
                let taken = payload.push(&bytes[upto - 1..upto]);
                let right = std::str::from_utf8(&bytes[..upto]).err().is_none_or(|error| error.error_len().is_none());
                assert_eq!(taken.is_ok(), right, "{upto} of {bytes:02x?}");
                taken.err()
            });
            let whole = std::str::from_utf8(&bytes).map(text);
            assert_eq!(refused.map_or_else(|| payload.finish(), Err).ok(), whole.ok(), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_message_too_large_is_refused_before_its_payload() {
        let head = |first, bytes| {
            let mut head = frame(first, vec![b'x'; bytes]);
            head.truncate(if bytes < 126 { 6 } else { 8 });
            head
        };
        check(&[frame(0x81, vec![b'x'; MAX])], Ok(&[text(&"x".repeat(MAX))]));
        check(&[head(0x81, MAX + 1)], Err(Broken::TooBig { left: MAX as u64 + 1 }));
        check(&[frame(0x01, vec![b'x'; MAX]), head(0x80, 1)], Err(Broken::TooBig { left: 1 }));
        check(&[frame(0x02, vec![b'x'; MAX]), frame(0x00, ""), head(0x00, 10)], Err(Broken::TooBig { left: 10 }));
        // A message that came before does not count, nor a control frame within.
        let full = frame(0x82, vec![0; MAX]);
        let heard = Heard::Binary(vec![0; MAX]);
        check(&[full.clone(), frame(0x8A, "x"), full], Ok(&[heard.clone(), Heard::Pong, heard]));
        let all = [0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        check(&[all.to_vec()], Err(Broken::TooBig { left: u64::MAX >> 1 }));

        // What is left is still there to be passed over.
        let mut bytes = frame(0x81, vec![b'x'; MAX + 1]);
        let mut rest = &mut bytes[..];
        assert_eq!(Inbound::new(MAX).next(&mut rest), Err(Broken::TooBig { left: rest.len() as u64 }));
    }

    #[test]
    fn nothing_is_held_but_what_is_half_received() {
        assert_eq!(size_of::<Inbound>(), 2 * size_of::<usize>());
        let frames = [frame(0x01, "ab"), frame(0x89, "?"), frame(0x80, "c")].concat();
        let mut inbound = Inbound::new(MAX);
        for turn in 0..2 {
            for (at, byte) in frames.clone().iter_mut().enumerate() {
                inbound.next(&mut std::slice::from_mut(byte)).unwrap();
                assert_eq!(inbound.is_idle(), at + 1 == frames.len(), "{turn} {at}");
            }
        }
        // A length that is only claimed sets nothing aside.
        let mut head = frame(0x82, vec![0; MAX]);
        inbound.next(&mut &mut head[..10]).unwrap();
        let message = inbound.half.unwrap().message.unwrap();
        assert!(matches!(message.payload, Payload::Binary(bytes) if bytes.capacity() <= 8));
    }

    #[test]
    fn control_frames_that_are_sent() {
        assert_eq!(pong_frame(b"ab"), &[0x8A, 2, b'a', b'b'][..]);
        assert_eq!(close_frame(4001, "hi"), &[0x88, 4, 0x0F, 0xA1, b'h', b'i'][..]);
        // 123 bytes of reason fit; a character is not cut.
        let long = close_frame(1000, &"ä".repeat(80));
        assert_eq!((long[1], long.len()), (124, 126));
        assert_eq!(pong_frame(&[0; 200]).len(), 127);
    }
}
