//! What a shard and one of its clients share: the lines that wait, and the way out.
//!
//! A client may have a [`Pipe`]: a way out that takes bytes without waiting. It has one writer at a time. While the client
//! *flows*, nothing waits for it, and its shard writes to the pipe straight from a sweep: no queue, no wake-up. When the
//! pipe is full, or something has to be said that no sweep says (an answer, a snapshot, log lines), the flow stops. From
//! then on lines wait in the outbox, and whoever holds the [`Client`](super::Client) writes them, until nothing waits and
//! they let it flow again.
//!
//! A message that the pipe took only in part is finished before anything else is written: its rest stands here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use super::outbox::Outbox;
use super::sweep::{Node, Sweep, Told};

/// A way out that takes bytes without waiting.
pub trait Pipe: Send + Sync {
    /// Takes as much of `bytes` as there is room for now; an error for none. That it is broken is noticed by whoever reads
    /// from the other side of it.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// Why the feed wants a client to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The hub goes down, and it is this client's turn to leave.
    Dismissed,
    /// Nothing was heard for two pings.
    Silent,
    /// The feed lost track of what this client was told.
    Lost,
}

/// What a shard and its client share.
pub(super) struct Cell {
    pipe: Option<Arc<dyn Pipe>>,
    state: Mutex<State>,
    /// Something was heard since the shard last looked.
    heard: AtomicBool,
    wake: AtomicWaker,
}

pub(super) struct State {
    pub outbox: Outbox,
    /// Nothing waits, and the shard writes by itself.
    flows: bool,
    /// What is left of a message that the pipe took in part.
    rest: Bytes,
    end: Option<End>,
}

impl Cell {
    pub fn new(outbox: Outbox, pipe: Option<Arc<dyn Pipe>>) -> Cell {
        let state = State { outbox, flows: false, rest: Bytes::new(), end: None };
        Cell { pipe, state: Mutex::new(state), heard: AtomicBool::new(true), wake: AtomicWaker::new() }
    }

    /// To change what waits. Whoever puts something in calls [`State::stop`] before, and [`wake`](Self::wake) after.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn has_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    /// Says that there may be something to take. Many calls before the client looks are one.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// As [`is_ready`](Self::is_ready); if not, `context` is woken when it may be.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.wake.register(context.waker());
        if self.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// From a sweep that hands over everything after `before` and up to `rev`: writes the message of `node` if the client
    /// flows, else puts its lines in the outbox. Answers what was written.
    pub fn tell(&self, sweep: &mut Sweep, node: Node, mark: Option<&Bytes>, before: u64, rev: u64) -> Option<Told> {
        let mut state = self.state.lock();
        if state.flows {
            let message = sweep.message(node, mark);
            let taken = self.write(&mut state, &message);
            if taken > 0 {
                state.outbox.told(rev);
                if taken < message.len() {
                    drop(state);
                    self.wake();
                }
                return Some(sweep.told(node));
            }
            state.outbox.told(before);
        }
        sweep.queue(node, &mut state.outbox);
        drop(state);
        self.wake();
        None
    }

    /// Writes a message that need not arrive, if the client flows; everything up to `rev` was handed over. Answers whether
    /// it is on its way.
    pub fn mention(&self, message: &Bytes, rev: u64) -> bool {
        let mut state = self.state.lock();
        if !state.flows {
            return false;
        }
        state.outbox.told(rev);
        let taken = self.write(&mut state, message);
        if taken < message.len() {
            drop(state);
            self.wake();
        }
        taken > 0
    }

    /// Writes what the pipe takes; unless that is all of it, the flow stops.
    fn write(&self, state: &mut State, message: &Bytes) -> usize {
        let pipe = self.pipe.as_ref().expect("only a client with a pipe flows");
        let taken = pipe.write(message).unwrap_or(0);
        if taken < message.len() {
            state.flows = false;
            if taken > 0 {
                state.rest = message.slice(taken..);
            }
        }
        taken
    }

    /// Lets the shard write from now on, unless there is something to do before. Answers whether it does.
    pub fn flow(&self) -> bool {
        let mut state = self.state.lock();
        state.flows = self.pipe.is_some() && state.end.is_none() && state.rest.is_empty() && !state.outbox.waits();
        state.flows
    }

    /// Whether whoever holds the client has something to do.
    pub fn is_ready(&self) -> bool {
        let state = self.state.lock();
        match self.pipe {
            Some(_) => !state.flows,
            None => state.end.is_some() || state.outbox.is_ready(),
        }
    }

    pub fn end(&self, why: End) {
        let mut state = self.state.lock();
        state.flows = false;
        state.end.get_or_insert(why);
        drop(state);
        self.wake();
    }

    /// Something came from the other side, or was taken by it.
    pub fn set_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether anything was heard since the last call.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }
}

impl State {
    /// The shard writes no more by itself. What is left of its last message is to be written next.
    pub fn stop(&mut self) -> Bytes {
        self.flows = false;
        std::mem::take(&mut self.rest)
    }

    /// As [`stop`](Self::stop), by somebody who does not write.
    pub fn interrupt(&mut self) {
        self.flows = false;
    }

    pub fn why_end(&self) -> Option<End> {
        self.end
    }
}
