//! The head of a WebSocket frame as a server sends it: whole messages, unmasked (RFC 6455, 5.2).

use std::ops::Deref;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

/// The two to ten bytes before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    bytes: [u8; 10],
    len: u8,
}

impl FrameHead {
    /// The head of a frame that is a whole message with a payload of so many bytes.
    pub fn new(opcode: Opcode, payload_bytes: usize) -> FrameHead {
        let mut bytes = [0; 10];
        bytes[0] = 0x80 | opcode as u8;
        let len = match payload_bytes {
            0..=125 => {
                bytes[1] = payload_bytes as u8;
                2
            }
            126..=0xFFFF => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
                10
            }
        };
        FrameHead { bytes, len }
    }
}

impl Deref for FrameHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_the_shortest_way() {
        for (bytes, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xFFFF, &[0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(&*FrameHead::new(Opcode::Text, bytes), head, "{bytes}");
        }
        assert_eq!(&*FrameHead::new(Opcode::Ping, 0), [0x89, 0]);
        assert_eq!(&*FrameHead::new(Opcode::Pong, 4), [0x8A, 4]);
    }
}
