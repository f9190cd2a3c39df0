//! What waits for the writer.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::engine::{Answer, Command};
use crate::store::Aside;
use crate::task::TaskId;

use super::{HubError, Submitted};

/// Requests that may wait at once. At the writer's pace this is well under a second of work.
const REQUESTS_MAX: usize = 16_384;
/// Bytes of payloads and results that may wait at once.
const BYTES_MAX: usize = 256 << 20;

/// Something the writer is asked to do.
pub(super) enum Request {
    Command {
        command: Command,
        reply: Reply,
    },
    /// Kept beside the records. Without a reply it may wait for the next commit.
    Aside {
        aside: Aside,
        reply: Option<oneshot::Sender<Result<(), HubError>>>,
    },
    /// Write what waits, bring the view up to date, then say so: for readers of the view.
    Settle(oneshot::Sender<Result<(), HubError>>),
    /// Settle and end.
    Stop,
}

/// Who hears the outcome.
pub(super) enum Reply {
    Nobody,
    Caller(oneshot::Sender<Result<Answer, HubError>>),
    Submitter(oneshot::Sender<Result<Submitted, HubError>>),
    /// The socket of a worker: an ack or a refusal. Kept and tried again while the store cannot write.
    Link {
        session: u64,
        task_id: TaskId,
        attempt: u32,
    },
}

/// Whether a request may be turned away when too much waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// New work: turned away.
    Held,
    /// What ends or concerns work that is already here: bounded by the number of leases and sockets, and always taken.
    Free,
}

/// The writer's queue: many push, one takes everything.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    bytes: usize,
    /// The writer is gone; nothing is taken any more.
    closed: bool,
}

impl Inbox {
    /// Leaves a request of about `bytes`.
    pub(super) fn push(&self, request: Request, bytes: usize, bound: Bound) -> Result<(), HubError> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(HubError::Stopped);
        }
        let full = queue.requests.len() >= REQUESTS_MAX || queue.bytes.saturating_add(bytes) > BYTES_MAX;
        if full && bound == Bound::Held {
            return Err(HubError::Overloaded);
        }
        queue.requests.push(request);
        queue.bytes += bytes;
        let first = queue.requests.len() == 1;
        drop(queue);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes everything, waiting up to `patience` for something to come.
    pub(super) fn take(&self, patience: Duration) -> Vec<Request> {
        let mut queue = self.queue.lock();
        if queue.requests.is_empty() && !patience.is_zero() {
            self.wake.wait_for(&mut queue, patience);
        }
        queue.bytes = 0;
        std::mem::take(&mut queue.requests)
    }

    /// Whether so many bytes more may wait.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.queue.lock().bytes.saturating_add(bytes) <= BYTES_MAX
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().requests.is_empty()
    }

    /// Takes nothing more, and drops what waits: its callers hear that the hub has stopped.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.requests.clear();
    }
}
