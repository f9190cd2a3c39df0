//! What a shard and one of its clients share: the lines that wait, and the way out.
//!
//! A client may have a [`Pipe`]: a way out that takes bytes without waiting. It has one writer at a time. While the client
//! *flows*, its outbox is empty and the shard writes to the pipe: no queue, no wake-up. When the pipe is full, or something
//! has to be sent that does not come through the send queue (an answer, a snapshot, log lines), the flow stops. From then on
//! messages wait in the outbox, and the future that holds the [`Client`](super::Client) writes them, until the outbox is
//! empty and it lets the client flow again.
//!
//! A frame that the pipe took only in part is finished before anything else is written: its rest is kept here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use super::outbox::Outbox;
use super::send_queue::{Delivered, Pending, SendQueue};

/// A way out that takes bytes without waiting.
pub trait Pipe: Send + Sync {
    /// Takes as much of `bytes` as there is room for now; an error for none. A broken connection is noticed by
    /// the future that reads from it.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// Why the feed wants a client to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The hub goes down, and this client is to leave now.
    Dismissed,
    /// Nothing was received for two pings.
    Silent,
    /// The shard failed: what this client was sent is not known.
    Lost,
}

/// What a shard and its client share.
pub(super) struct DeliveryState {
    pipe: Option<Arc<dyn Pipe>>,
    shared: Mutex<Shared>,
    /// Something was received since the shard last looked.
    heard: AtomicBool,
    wake: AtomicWaker,
}

pub(super) struct Shared {
    pub outbox: Outbox,
    /// The outbox is empty, and the shard writes to the pipe.
    flows: bool,
    /// What is left of a frame that the pipe took in part.
    rest: Bytes,
    end: Option<End>,
}

impl DeliveryState {
    pub fn new(outbox: Outbox, pipe: Option<Arc<dyn Pipe>>) -> DeliveryState {
        let shared = Shared { outbox, flows: false, rest: Bytes::new(), end: None };
        DeliveryState { pipe, shared: Mutex::new(shared), heard: AtomicBool::new(true), wake: AtomicWaker::new() }
    }

    /// Puts something in the outbox, past the send queue, and stops the flow.
    pub fn put(&self, lines: impl FnOnce(&mut Outbox)) {
        let mut shared = self.shared.lock();
        shared.flows = false;
        lines(&mut shared.outbox);
        drop(shared);
        self.wake();
    }

    /// For the future that holds the client; others only read.
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    pub fn has_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    /// Says that there may be something to take. Many calls before the client looks are one.
    fn wake(&self) {
        self.wake.wake();
    }

    /// As [`is_ready`](Self::is_ready); if not, `context` is woken when it may be.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.wake.register(context.waker());
        if self.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Hands over what is `pending`, which is everything after `handed_rev` and up to `matched_rev`: writes it as a frame if
    /// the client flows, else puts its messages in the outbox. Answers what was written.
    pub fn deliver(
        &self,
        send_queue: &mut SendQueue,
        pending: Pending,
        mark: Option<&Bytes>,
        handed_rev: u64,
        matched_rev: u64,
    ) -> Option<Delivered> {
        let mut shared = self.shared.lock();
        if shared.flows {
            let frame = send_queue.frame(pending, mark);
            let taken = self.write(&mut shared, &frame);
            if taken > 0 {
                shared.outbox.set_written(matched_rev);
                if taken < frame.len() {
                    shared.rest = frame.slice(taken..);
                    drop(shared);
                    self.wake();
                }
                return Some(send_queue.delivered(pending));
            }
            // Until now the shard wrote directly: tells the outbox which revs were delivered already.
            shared.outbox.set_written(handed_rev);
        }
        send_queue.move_to(pending, &mut shared.outbox);
        drop(shared);
        self.wake();
        None
    }

    /// Writes a frame that is not worth keeping in the outbox, if the client flows; everything up to `rev` was handed over.
    /// Answers whether it is on its way.
    pub fn write_now(&self, frame: &Bytes, matched_rev: u64) -> bool {
        let mut shared = self.shared.lock();
        if !shared.flows {
            return false;
        }
        shared.outbox.set_written(matched_rev);
        let taken = self.write(&mut shared, frame);
        if taken < frame.len() {
            // Also when nothing was taken: the client's future then has something to write, and measures how long it takes.
            shared.rest = frame.slice(taken..);
            drop(shared);
            self.wake();
        }
        true
    }

    /// Writes what the pipe takes; unless that is all of it, the flow stops.
    fn write(&self, shared: &mut Shared, frame: &Bytes) -> usize {
        let pipe = self.pipe.as_ref().expect("only a client with a pipe flows");
        let taken = pipe.write(frame).unwrap_or(0);
        shared.flows = taken == frame.len();
        taken
    }

    /// Lets the shard write from now on, unless there is something to do before. Answers whether it does.
    pub fn flow(&self) -> bool {
        let mut shared = self.shared.lock();
        shared.flows = self.pipe.is_some() && shared.end.is_none() && shared.rest.is_empty() && !shared.outbox.waits();
        shared.flows
    }

    /// Whether the future that holds the client has something to do.
    pub fn is_ready(&self) -> bool {
        let shared = self.shared.lock();
        match self.pipe {
            Some(_) => !shared.flows,
            None => shared.end.is_some() || shared.outbox.is_ready(),
        }
    }

    pub fn end(&self, why: End) {
        let mut shared = self.shared.lock();
        shared.flows = false;
        shared.end.get_or_insert(why);
        drop(shared);
        self.wake();
    }

    /// Something was received from the other side, or was taken by it.
    pub fn set_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether anything was received since the last call.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }
}

impl Shared {
    /// The shard writes no more by itself. What is left of its last frame is to be written next.
    pub fn stop(&mut self) -> Bytes {
        self.flows = false;
        std::mem::take(&mut self.rest)
    }

    pub fn why_end(&self) -> Option<End> {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::OutboxLimits;
    use super::*;

    /// A pipe that takes so much of each write.
    struct Takes(usize);

    impl Pipe for Takes {
        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes.len().min(self.0)) }
        }
    }

    fn flowing(takes: usize) -> DeliveryState {
        let delivery = DeliveryState::new(Outbox::new(OutboxLimits::default(), 0), Some(Arc::new(Takes(takes))));
        assert!(delivery.flow());
        delivery
    }

    /// Regression: a ping for which the pipe has no room is left to the client's future, which sees that nothing is taken.
    #[test]
    fn what_found_no_room_is_for_the_holder_to_write() {
        for (takes, rest) in [(0, "ping"), (1, "ing"), (9, "")] {
            let delivery = flowing(takes);
            assert!(delivery.write_now(&"ping".into(), 7));
            assert_eq!(delivery.is_ready(), !rest.is_empty(), "a client that flows on is not woken");
            assert_eq!(delivery.flow(), rest.is_empty(), "the rest comes first");
            let mut shared = delivery.lock();
            assert_eq!((shared.stop(), shared.outbox.mark(0)), (rest.into(), 7));
        }
    }

    #[test]
    fn a_client_that_does_not_flow_is_not_written_to() {
        let delivery = flowing(9);
        delivery.put(|outbox| outbox.progress(super::super::sample::id(1), "tick".into()));
        assert!(delivery.is_ready() && !delivery.write_now(&"ping".into(), 1) && !delivery.flow());
        delivery.lock().outbox.take(&mut Vec::new(), 100);
        assert!(delivery.flow());
        delivery.end(End::Silent);
        assert!(delivery.is_ready() && !delivery.flow());
    }
}
