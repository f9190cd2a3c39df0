//! What waits for a shard.
//!
//! Adding never waits. For a shard that falls behind, transitions are merged to the newest of each task; it sends them as
//! lag, for that is what it is.

use std::collections::{HashMap, VecDeque};
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::client::{ClientId, SubNumber};
use super::delivery::DeliveryState;
use super::handle::Published;
use super::index::States;
use crate::task::{Filter, TaskId};

/// Transitions that wait in order for one shard: some hundred milliseconds of its work, and merging them once costs the
/// writer a few milliseconds.
pub(super) const INBOX_LEN_MAX: usize = 16_384;

pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
    len_max: usize,
    /// If true, commits are not queued while the shard has no clients.
    skip_while_idle: bool,
    /// Every transition up to here has left the shard's send queue, for every client.
    handed_rev: AtomicU64,
    /// Clients of the shard. Without any, ticks leave no note.
    clients: AtomicUsize,
    /// When the oldest of what the shard took, and has not handed to every client yet, was published.
    undelivered_since: Mutex<Option<Instant>>,
}

#[derive(Default)]
pub(super) struct Waiting {
    /// At most a few for each client: one that subscribes waits for its answer.
    pub ops: VecDeque<Op>,
    pub batches: Vec<Batch>,
    len: usize,
    pub merged: Option<Merged>,
    /// Transitions up to here were not queued, for there was no client.
    pub skipped_rev: Option<u64>,
    /// Each running task once.
    pub ticks: Vec<TaskId>,
    closed: bool,
}

impl Waiting {
    /// What was published together: the last `rev` of it, and when that was.
    pub fn published(&self) -> impl Iterator<Item = (u64, Instant)> {
        let merged = self.merged.iter().filter_map(|merged| Some((merged.rev, merged.since?)));
        merged.chain(self.batches.iter().filter_map(|batch| Some((batch.transitions.last()?.rev, batch.since))))
    }

    /// When the oldest of it was published.
    fn since(&self) -> Option<Instant> {
        self.published().next().map(|(_, since)| since)
    }
}

/// Transitions that were published together.
pub(super) struct Batch {
    pub transitions: Arc<[Published]>,
    pub since: Instant,
}

/// What a client asks of its shard.
pub(super) enum Op {
    Attach(ClientId, Arc<DeliveryState>),
    Subscribe(Subscribe),
    Unsubscribe(ClientId, SubNumber),
    Detach(ClientId),
    /// Everyone is to leave within this time.
    Dismiss(Duration),
}

pub(super) struct Subscribe {
    pub client_id: ClientId,
    pub sub: SubNumber,
    pub filter: Arc<Filter>,
    pub hz: f64,
    pub done: oneshot::Sender<()>,
}

/// Transitions of which only the newest of each task is left.
#[derive(Default)]
pub(super) struct Merged {
    pub tasks: HashMap<TaskId, MergedTask>,
    /// Of the last transition that went in.
    pub rev: u64,
    /// When the first of them was published.
    pub since: Option<Instant>,
}

pub(super) struct MergedTask {
    /// Those it went through.
    pub states: States,
    pub newest: Published,
    pub len: u64,
}

impl Merged {
    pub fn add_batch(&mut self, batch: &Batch) {
        self.since.get_or_insert(batch.since);
        batch.transitions.iter().for_each(|published| self.add(published));
    }

    fn add(&mut self, published: &Published) {
        self.rev = published.rev;
        let states = published.states();
        self.tasks
            .entry(published.task.task_id)
            .and_modify(|task| {
                task.states = task.states.and(states);
                task.newest = published.clone();
                task.len += 1;
            })
            .or_insert_with(|| MergedTask { states, newest: published.clone(), len: 1 });
    }
}

impl Inbox {
    pub fn new(len_max: usize, skip_while_idle: bool, rev: u64) -> Inbox {
        Inbox {
            waiting: Mutex::default(),
            wake: Notify::new(),
            len_max,
            skip_while_idle,
            handed_rev: AtomicU64::new(rev),
            clients: AtomicUsize::new(0),
            undelivered_since: Mutex::default(),
        }
    }

    pub fn publish(&self, batch: &Arc<[Published]>) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        // A client that attaches after this look is sent what is published later; what it reads from the hub includes this.
        if self.skip_while_idle && !self.has_clients() {
            let rev = batch.last().map(|last| last.rev);
            waiting.skipped_rev = rev;
            self.handed_rev.fetch_max(rev.unwrap_or(0), Ordering::AcqRel);
            return;
        }
        waiting.len += batch.len();
        waiting.batches.push(Batch { transitions: batch.clone(), since: Instant::now() });
        if waiting.len > self.len_max || waiting.merged.is_some() {
            let waiting = &mut *waiting;
            let merged = waiting.merged.get_or_insert_default();
            take(&mut waiting.batches).iter().for_each(|batch| merged.add_batch(batch));
            waiting.len = 0;
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub fn tick(&self, task_id: TaskId) {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.ticks.push(task_id);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// An op for a shard that has stopped is dropped, and with it the way to answer it.
    pub fn ask(&self, op: Op) {
        match op {
            Op::Attach(..) => self.clients.fetch_add(1, Ordering::SeqCst),
            Op::Detach(..) => self.clients.fetch_sub(1, Ordering::SeqCst),
            Op::Subscribe(_) | Op::Unsubscribe(..) | Op::Dismiss(_) => 0,
        };
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.ops.push_back(op);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// The shard stops once it sees this.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock();
        *waiting = Waiting { closed: true, ..Waiting::default() };
        drop(waiting);
        self.wake.notify_one();
    }

    /// Resolves when something may have come in.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Everything that waits, or only the ops of it; `None` once closed.
    pub fn take(&self, only_ops: bool) -> Option<Waiting> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return None;
        }
        if only_ops {
            return Some(Waiting { ops: take(&mut waiting.ops), ..Waiting::default() });
        }
        let taken = take(&mut *waiting);
        let mut undelivered_since = self.undelivered_since.lock();
        *undelivered_since = undelivered_since.or(taken.since());
        Some(taken)
    }

    /// How long the oldest transition has waited that was not handed to every client.
    pub fn lag(&self) -> Duration {
        let undelivered_since = *self.undelivered_since.lock();
        undelivered_since.or_else(|| self.waiting.lock().since()).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The shard has handed everything up to `rev` to its clients; what it took beyond that was published from `undelivered_since`
    /// on.
    pub fn set_handed(&self, rev: u64, undelivered_since: Option<Instant>) {
        self.handed_rev.fetch_max(rev, Ordering::AcqRel);
        *self.undelivered_since.lock() = undelivered_since;
    }

    pub fn handed_rev(&self) -> u64 {
        self.handed_rev.load(Ordering::Acquire)
    }

    pub fn has_clients(&self) -> bool {
        self.clients.load(Ordering::SeqCst) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, published};
    use super::*;
    use crate::task::Status;

    #[test]
    fn beyond_its_bound_it_keeps_the_newest_of_each_task() {
        let inbox = Inbox::new(3, false, 0);
        let pending = published(1, id(1), None, Status::Pending);
        let running = published(3, id(1), Some(&pending), Status::Running);
        let other = published(2, id(2), None, Status::Pending);
        inbox.publish(&[pending.clone(), other].into());
        inbox.publish(&[running.clone()].into());
        let waiting = inbox.take(false).unwrap();
        assert_eq!((waiting.batches.len(), waiting.merged.is_none()), (2, true));

        let completed = published(4, id(1), Some(&running), Status::Completed);
        inbox.publish(&[running.clone(), completed].into());
        inbox.publish(&[published(5, id(2), None, Status::Pending), published(6, id(3), None, Status::Pending)].into());
        inbox.publish(&[published(7, id(3), None, Status::Cancelled)].into());
        let waiting = inbox.take(false).unwrap();
        assert!(waiting.batches.is_empty());
        let merged = waiting.merged.unwrap();
        assert_eq!((merged.rev, merged.tasks.len()), (7, 3));
        let task = &merged.tasks[&id(1)];
        let pending_running_completed = States::of(Some(&pending.task), &running.task).and(task.newest.states());
        assert_eq!(task.states, pending_running_completed);
        assert_eq!((task.newest.rev, task.len), (4, 2));
    }

    #[test]
    fn after_the_end_nothing_is_kept() {
        let inbox = Inbox::new(3, false, 0);
        inbox.tick(id(1));
        inbox.close();
        inbox.tick(id(1));
        inbox.publish(&[published(1, id(1), None, Status::Pending)].into());
        assert!(inbox.take(false).is_none());
        assert!(inbox.waiting.lock().ticks.is_empty() && inbox.waiting.lock().batches.is_empty());
    }
}
