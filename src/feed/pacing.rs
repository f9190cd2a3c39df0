//! Which ticks wait, and by which rule.
//!
//! A tick never queues: a task is *dirty* for a shard, or it is not. [`DirtyTicks`] is what all shards share, a bit per task
//! and shard. A tick that finds its bits set costs a look-up and one atomic instruction, however many come; only a bit that
//! was clear is worth a note to its shard. There is an entry per running task that reports progress.
//!
//! [`Pacing`] is a shard's own. A dirty task is *ready* to be looked at, unless it waits for one of these:
//!
//! * its next time at the hub's rate;
//! * a transition: its tick is of a `rev` that the shard has not matched yet, and must not be sent before that record;
//! * and, once it was looked at, for a single client that asked for a lower rate, its next time at that rate.

use std::collections::{HashSet, VecDeque};
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::client::ClientId;
use super::handle::Tick;
use super::throttle::{self, Throttle};
use crate::task::TaskId;

/// As many shards as an entry has bits. More would be of no use: a shard is a core's worth of clients.
pub(super) const SHARDS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct DirtyTicks {
    bits: DashMap<TaskId, AtomicU64>,
}

impl DirtyTicks {
    /// Sets the bits of `shards`, and tells which of them were clear.
    pub fn set(&self, task_id: TaskId, shards: u64) -> u64 {
        // Always a read-modify-write, never a plain look first: it comes either before `clear`, and then the shard that cleared
        // it sees the tick, or after it, and then finds the bit clear.
        let set = |bits: &AtomicU64| shards & !bits.fetch_or(shards, Ordering::AcqRel);
        match self.bits.get(&task_id) {
            Some(bits) => set(&bits),
            None => set(&self.bits.entry(task_id).or_default()),
        }
    }

    /// Clears the bit of a shard. Whatever ticked before is on the board now.
    pub fn clear(&self, task_id: TaskId, shard: usize) {
        if let Some(bits) = self.bits.get(&task_id) {
            bits.fetch_and(!(1 << shard), Ordering::AcqRel);
        }
    }

    /// Clears every bit of a shard.
    pub fn clear_all(&self, shard: usize) {
        for bits in self.bits.iter() {
            bits.fetch_and(!(1 << shard), Ordering::AcqRel);
        }
    }

    /// Forgets a task that runs no more. Should it tick again, its next tick finds every bit clear.
    pub fn forget(&self, task_id: TaskId) {
        self.bits.remove(&task_id);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.bits.len()
    }
}

/// The ticks that wait in one shard.
pub(super) struct Pacing {
    max_hz: f64,
    /// To be looked at next.
    ready: VecDeque<TaskId>,
    /// Wait for their transition to be matched.
    ahead: HashSet<TaskId>,
    /// The hub's rate.
    tasks: Throttle<TaskId, ()>,
    /// The rates of clients that asked for less.
    clients: Throttle<(ClientId, TaskId), Tick>,
}

impl Pacing {
    pub fn new(max_hz: f64) -> Pacing {
        Pacing {
            max_hz,
            ready: VecDeque::new(),
            ahead: HashSet::new(),
            tasks: Throttle::default(),
            clients: Throttle::default(),
        }
    }

    /// When something that waits for its time is due.
    pub fn next_at(&self) -> Option<Instant> {
        [self.tasks.next_at(), self.clients.next_at()].into_iter().flatten().min()
    }

    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Makes ready what may be sent now, of the tasks that just ticked and of those that waited. To be called when all that
    /// was published before was matched.
    pub fn admit(&mut self, ticked: Vec<TaskId>, now: Instant) {
        for task_id in take(&mut self.ahead) {
            // Ready in any case; the offer has what comes after paced from here.
            self.tasks.offer(task_id, (), self.interval(), now);
            self.ready.push_back(task_id);
        }
        for task_id in ticked {
            if self.tasks.offer(task_id, (), self.interval(), now).is_some() {
                self.ready.push_back(task_id);
            }
        }
        self.ready.extend(std::iter::from_fn(|| self.tasks.due(now)).map(|(task_id, ())| task_id));
    }

    fn interval(&self) -> Duration {
        throttle::interval(self.max_hz)
    }

    /// The next task whose newest tick is to be looked at.
    pub fn next(&mut self) -> Option<TaskId> {
        self.ready.pop_front()
    }

    /// The newest tick of a task is ahead of its transition: to be looked at again with the next [`admit`](Self::admit).
    pub fn hold_back(&mut self, task_id: TaskId) {
        self.ahead.insert(task_id);
    }

    /// Whether `(rev, tick)` was not sent yet. If so it is sent now.
    pub fn is_news(&mut self, task_id: TaskId, at: (u64, u64), now: Instant) -> bool {
        self.tasks.is_news(task_id, at, now)
    }

    /// Whether a client with a rate of `hz` is sent this tick now; else it waits for [`due`](Self::due).
    pub fn is_due(&mut self, client_id: ClientId, task_id: TaskId, hz: f64, tick: &Tick, now: Instant) -> bool {
        let key = (client_id, task_id);
        if hz < self.max_hz {
            return self.clients.offer(key, tick.clone(), throttle::interval(hz), now).is_some();
        }
        self.clients.forget(&key);
        true
    }

    /// A tick that has waited for the rate of one client, and is due.
    pub fn due(&mut self, now: Instant) -> Option<((ClientId, TaskId), Tick)> {
        self.clients.due(now)
    }

    /// The client is sent a record that is newer than a tick which may wait for it.
    pub fn forget(&mut self, client_id: ClientId, task_id: TaskId) {
        self.clients.forget(&(client_id, task_id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::id;
    use super::*;

    #[test]
    fn only_a_clear_bit_is_worth_a_note() {
        let dirty = DirtyTicks::default();
        assert_eq!(dirty.set(id(1), 0b11), 0b11);
        assert_eq!(dirty.set(id(1), 0b11), 0);
        dirty.clear(id(1), 1);
        assert_eq!(dirty.set(id(1), 0b11), 0b10);
        assert_eq!(dirty.set(id(2), 0b01), 0b01);
        dirty.forget(id(1));
        assert_eq!(dirty.set(id(1), 0b11), 0b11);
    }
}
