//! The socket of a live client: whole messages in, whole messages out.
//!
//! One future holds it. It writes only while the feed does not (see [`feed::Client::flow`](crate::feed::Client::flow)).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::frames::{Broken, Heard, Inbound, close_frame, ping_frame, pong_frame};
use super::session::{Carrier, Ending};
use super::state::{FRAME_FACTOR, LiveLimits};
use super::upgrade::Wire;
use crate::feed::text_frame;
use crate::lived;
use crate::wire::{CloseCode, bye_line};

/// The close code of a client that is done, and nothing is wrong. RFC 6455, section 7.4.1.
const NORMAL: u16 = 1000;
/// How long the other side may take to close, once it was told.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// What is read at once.
const READ_BYTES: usize = 4 << 10;

pub(super) struct Socket {
    wire: Arc<Wire>,
    inbound: Inbound,
    message_bytes_max: usize,
    /// Read with the handshake.
    early: Bytes,
    /// Nothing that comes now can be understood.
    is_broken: bool,
    /// What is left of a message that the other side was too slow to take.
    unsent: Bytes,
    /// The other side may take this long to take anything.
    stall: Duration,
    rate: Rate,
}

/// What a read found.
pub(super) enum Read {
    /// Some bytes, now in the buffer.
    Some,
    /// Nothing more for now.
    Nothing,
}

impl Socket {
    /// `early` was read before.
    pub(super) fn new(wire: Arc<Wire>, early: Bytes, limits: &LiveLimits) -> Socket {
        let LiveLimits { message_bytes_max, stall, .. } = *limits;
        let (inbound, rate) = (Inbound::new(message_bytes_max), Rate::new(limits.messages_per_s_max, Instant::now()));
        Socket { wire, inbound, message_bytes_max, early, is_broken: false, unsent: Bytes::new(), stall, rate }
    }

    /// Resolves when there may be something to read. May be dropped and called again.
    pub(super) async fn readable(&self) -> Result<(), Ending> {
        std::future::poll_fn(|context| self.wire.poll_readable(context)).await.map_err(|_| Ending::Gone)
    }

    /// Reads what is there, at most some kilobytes, into `buffer`.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Read, Ending> {
        if !self.early.is_empty() {
            *buffer = std::mem::take(&mut self.early).into();
            return Ok(Read::Some);
        }
        buffer.resize(READ_BYTES, 0);
        match self.wire.try_read(buffer) {
            Ok(0) => Err(Ending::Gone),
            Ok(len) => {
                buffer.truncate(len);
                Ok(Read::Some)
            }
            Err(error) if is_full(&error) => Ok(Read::Nothing),
            Err(_) => Err(Ending::Gone),
        }
    }

    /// The next message from the front of `bytes`; `None` when all was taken.
    pub(super) fn next(&mut self, bytes: &mut &mut [u8]) -> Result<Option<Heard>, Ending> {
        let heard = self.inbound.next(bytes).map_err(|broken| {
            self.is_broken = true;
            match broken {
                Broken::Protocol(why) => Ending::Close(CloseCode::BrokenProtocol, why),
                Broken::NotUtf8 => Ending::Close(CloseCode::BadMessage, "not UTF-8"),
                Broken::TooBig { .. } => Ending::Close(CloseCode::TooBig, "too big"),
            }
        })?;
        if heard.is_some() {
            self.count()?;
        }
        Ok(heard)
    }

    /// Counts a message; and each operation of a message but its first.
    pub(super) fn count(&mut self) -> Result<(), Ending> {
        match self.rate.allows(Instant::now()) {
            true => Ok(()),
            false => Err(Ending::Close(CloseCode::RateLimited, "too many messages")),
        }
    }

    pub(super) async fn pong(&mut self, payload: &[u8]) -> Result<(), Ending> {
        self.write(&pong_frame(payload)).await
    }

    pub(super) async fn ping(&mut self) -> Result<(), Ending> {
        self.write(&ping_frame()).await
    }

    /// Writes all of it, as long as the other side takes anything at all.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Ending> {
        while !bytes.is_empty() {
            match self.wire.try_write(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if is_full(&error) => match lived::timeout(self.stall, self.wire.writable()).await {
                    Ok(room) => room.map_err(|_| Ending::Gone)?,
                    Err(_) => {
                        self.unsent = Bytes::copy_from_slice(bytes);
                        return Err(Ending::Close(CloseCode::TooSlow, "too slow"));
                    }
                },
                Err(_) => return Err(Ending::Gone),
            }
        }
        Ok(())
    }

    /// Says why, after the `rest` of what was being said, and waits for a while until the other side has heard it; else its
    /// last frames would be cut off.
    pub(super) async fn end(&mut self, rest: Bytes, ending: Ending, clients: usize) {
        let mut last = [std::mem::take(&mut self.unsent), rest].concat();
        match ending {
            Ending::Gone => return,
            Ending::Close(code, reason) => {
                if code == CloseCode::Restarting {
                    last.extend_from_slice(&text_frame([bye_line(code, clients)].iter()));
                }
                last.extend_from_slice(&close_frame(code as u16, reason));
                // What was left of the message that broke a rule is none.
                self.is_broken |= !matches!(code, CloseCode::Restarting | CloseCode::NoPong);
            }
            Ending::Answer(code) => {
                last.extend_from_slice(&close_frame(code.unwrap_or(NORMAL), ""));
                let _ = tokio::time::timeout(CLOSE_TIME, self.write(&last)).await;
                return;
            }
        }
        self.close_after(&last).await;
    }

    /// Says why, and waits for a while until the other side has heard it.
    pub(super) async fn close(&mut self, code: CloseCode, reason: &str) {
        self.close_after(&close_frame(code as u16, reason)).await;
    }

    async fn close_after(&mut self, last: &[u8]) {
        let closing = async {
            if self.write(last).await.is_ok() {
                self.wire.shut();
                self.until_closed().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIME, closing).await;
    }

    /// Reads until the other side closes. Closing while bytes arrive resets the connection, and the close code is lost.
    async fn until_closed(&mut self) {
        let (mut buffer, mut left) = (Vec::new(), FRAME_FACTOR * self.message_bytes_max);
        loop {
            match self.read(&mut buffer) {
                Err(_) => return,
                Ok(Read::Nothing) => {
                    if self.readable().await.is_err() {
                        return;
                    }
                }
                Ok(Read::Some) => match left.checked_sub(buffer.len()) {
                    Some(less) if !self.closes(&mut buffer) => left = less,
                    _ => return,
                },
            }
        }
    }

    /// Whether the other side says in these bytes that it closes, too.
    fn closes(&mut self, mut bytes: &mut [u8]) -> bool {
        while !self.is_broken {
            match self.inbound.next(&mut bytes) {
                Ok(Some(Heard::Close(_))) => return true,
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => self.is_broken = true,
            }
        }
        false
    }
}

impl Carrier for Socket {
    async fn send(&mut self, lines: &mut Vec<Bytes>) -> Result<(), Ending> {
        let frame = text_frame(lines.iter());
        lines.clear();
        self.write(&frame).await
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// How many messages may come: so many a second, and as many at once after a quiet second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_second: f32,
    left: f32,
    since: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, now: Instant) -> Rate {
        Rate { per_second: per_second as f32, left: per_second as f32, since: now }
    }

    /// Counts a message.
    fn allows(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.since).as_secs_f32() * self.per_second;
        self.left = (self.left + earned).min(self.per_second) - 1.0;
        self.since = now;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_a_flood_is_not() {
        let now = Instant::now();
        let mut rate = Rate::new(10, now);
        assert!((0..10).all(|_| rate.allows(now)));
        assert!(!rate.allows(now));
        let mut rate = Rate::new(10, now);
        assert!((0..100).all(|n| rate.allows(now + Duration::from_millis(100) * n)));
    }
}
