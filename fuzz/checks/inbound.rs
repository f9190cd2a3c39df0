//! Any bytes of a client: they are heard alike however they are cut, never more is held than allowed, and what is heard
//! is what tungstenite hears.

use std::io::{self, Cursor, Read, Write};

use taskhub::http::inside::{Broken, Heard, Inbound};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// What a parser holds beside the payload, at most.
const BESIDE_BYTES_MAX: usize = 512;

/// The first byte says how the rest is cut, the second how long a message may be.
pub fn check(bytes: &[u8]) {
    let [seed, bound, stream @ ..] = bytes else { return };
    let message_bytes_max = [0, 1, 125, 126, 1_000, 70_000][usize::from(bound % 6)];
    check_stream(stream, message_bytes_max, *seed);
}

/// Checks a stream that is cut by a seed.
pub fn check_stream(stream: &[u8], message_bytes_max: usize, seed: u8) {
    let whole = hear(stream, message_bytes_max, || usize::MAX);
    let mut state = u32::from(seed);
    let cut = hear(stream, message_bytes_max, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Small pieces find the edges of heads, larger ones those of payloads.
        if seed.is_multiple_of(2) { 1 + (state >> 29) as usize } else { 1 + (state >> 24) as usize }
    });
    assert_eq!(whole, cut, "heard otherwise in pieces");
    check_against_tungstenite(stream, message_bytes_max, &whole);
}

/// All that is heard until a close or a breach.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub heard: Vec<Heard>,
    pub broken: Option<Broken>,
}

/// Hears a stream in pieces of these lengths.
pub fn hear(stream: &[u8], message_bytes_max: usize, mut piece_len: impl FnMut() -> usize) -> Outcome {
    let mut stream = stream.to_vec();
    let mut rest = &mut stream[..];
    let mut inbound = Inbound::new(message_bytes_max);
    let mut outcome = Outcome { heard: Vec::new(), broken: None };
    while !rest.is_empty() {
        let len = piece_len().min(rest.len());
        let mut piece = rest.split_off_mut(..len).expect("so many are there");
        loop {
            let before = piece.len();
            let next = inbound.next(&mut piece);
            let held = inbound.heap_bytes();
            assert!(held <= BESIDE_BYTES_MAX + 2 * message_bytes_max, "{held} bytes are held");
            assert_eq!(inbound.is_idle(), held == 0);
            match next {
                Ok(None) => break,
                Ok(Some(heard)) => {
                    let len = match &heard {
                        Heard::Text(text) => text.len(),
                        Heard::Binary(bytes) => bytes.len(),
                        Heard::Ping(payload) => payload.len().saturating_sub(125),
                        Heard::Pong | Heard::Close(_) => 0,
                    };
                    assert!(len <= message_bytes_max, "over its bound: {heard:?}");
                    assert!(piece.len() < before, "heard of nothing");
                    let is_close = matches!(heard, Heard::Close(_));
                    outcome.heard.push(heard);
                    if is_close {
                        return outcome;
                    }
                }
                Err(broken) => {
                    outcome.broken = Some(broken);
                    return outcome;
                }
            }
        }
        assert!(piece.is_empty(), "left over, and nothing heard");
    }
    outcome
}

struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was heard must be heard there too, and nothing more unless we refused it: tungstenite lets some things pass, such
/// as lengths not in their shortest form.
fn check_against_tungstenite(stream: &[u8], message_bytes_max: usize, ours: &Outcome) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max.max(125)));
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(stream.to_vec())), Role::Server, Some(config));
    for (at, heard) in ours.heard.iter().enumerate() {
        let theirs = socket.read();
        let alike = match (heard, &theirs) {
            (Heard::Text(text), Ok(Message::Text(other))) => text == other.as_str(),
            (Heard::Binary(bytes), Ok(Message::Binary(other))) => bytes == other,
            (Heard::Ping(payload), Ok(Message::Ping(other))) => payload == other,
            (Heard::Pong, Ok(Message::Pong(_))) => true,
            (Heard::Close(None), Ok(Message::Close(None))) => true,
            // The youngest of the registry's codes is unknown there.
            (Heard::Close(Some(1014)), Ok(Message::Close(Some(_)))) => true,
            (Heard::Close(Some(code)), Ok(Message::Close(Some(frame)))) => *code == u16::from(frame.code),
            _ => false,
        };
        assert!(alike, "{at}: we heard {heard:?}, tungstenite {theirs:?}");
    }
    if ours.broken.is_none() {
        let theirs = socket.read();
        assert!(theirs.is_err(), "we heard no more, tungstenite {theirs:?}");
    }
}
