//! Leases: which worker holds an attempt, and for how long.
//!
//! An attempt is held by a *lease*, and how that ends depends on how its worker is linked to the hub:
//!
//! ```text
//!             hello                        socket closes                     grace is over: all is lost
//!   (new) ───────────► Socket ─────────────────────────────────► Away ──────────────────────────────────► forgotten
//!     │                  │ ▲  hello, with what it holds            │ ▲
//!     │ claim            │ └───────────────────────────────────────┤ │ hub restarted: known from its tasks' records
//!     ▼                  │ nothing heard for a lease: all is lost  │ └──────────────────────────────────── (records)
//!    Http ◄──────────────┴─────────────────────────────────────────┘ claims, or speaks of an attempt
//!     │ an attempt was not spoken of for its lease: that one is lost
//!     └─► forgotten, once it holds nothing, is silent and has no open claim
//! ```
//!
//! **On a socket** a worker holds all its tasks by one lease: whatever it says renews it, and after a cut it says what it
//! still holds. When the lease has run out its slot is taken away, and so are its tasks; it is told to stop them, and when
//! it is heard again, each takes a place until it has let go.
//!
//! **Over HTTP** a worker may never have got the answer that handed it a task, and has no way to say so. There each attempt
//! has its own lease, which only what is said of that attempt renews; a claim renews none. A claim may ask for longer leases
//! than the hub's own: a script, or a person at a terminal, has no thread for heartbeats. Its length stands in the record,
//! so that a restart of the hub takes nothing from a worker that knows nothing of it.
//!
//! **Over a restart of the hub** leases go on, and their workers have a lease and a grace to come back. A worker that
//! comes back with its attempts, or speaks of them, loses nothing. An attempt that no worker comes back to is a crash, as
//! it would be without a restart: a task that takes hub and worker along must not be handed out for ever. One case is
//! known to be none: a process that the hub had welcomed before comes back without an attempt. Then the hub went down
//! between writing the hand-out and sending it.
//!
//! **Taken away** is an attempt that took too long, was silent, ignored a cancel or outlived its deadline: it is *fenced*.
//! What its worker says of it later is refused; the worker is told to stop, and one of its slots stays taken until it has
//! let go. So does its `concurrency_key`: another task with that key might else run beside it.
//!
//! Leases are counted in time that the hub lived through ([`Clock`](super::Clock)), and judged only once all that was said
//! before is decided ([`Engine::judge`]). After a revert an attempt has the lease that it had
//! ([`private`](super::private)).

use crate::task::{Event, Name, Task, TaskId};

use super::core::{Engine, Step, lived_of};
use super::reports::Lost;
use super::timers::{Alarm, At};
use super::{Cx, Link, Notice, Now};

/// A task in the hands of a worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lease {
    pub(super) attempt: u32,
    pub(super) timeout_at: Option<u64>,
    /// When the attempt was last spoken of. It counts where the worker has no socket.
    pub(super) heard: u64,
    /// Until when it may take to stop, once it was asked to.
    pub(super) stop_by: Option<u64>,
    /// When it last reported something, as far as was asked for: see `silence_ms`.
    pub(super) spoke: u64,
    /// How long it lasts over HTTP, where its claim asked for more than the hub's own.
    pub(super) asked_ms: Option<u64>,
    /// It is from before a restart of the hub, and its worker has not spoken of it yet: perhaps it was never handed out.
    pub(super) restored: bool,
}

/// An attempt that is over for the hub and perhaps not for its worker.
pub(super) struct Ending {
    worker_id: Name,
    /// The queue and key that it holds until then.
    key: Option<(Name, Name)>,
}

impl Engine {
    /// A sign of life of one attempt.
    pub(super) fn heard_of(&mut self, task: &Task, now: Now) {
        if let Some(worker_id) = task.worker_id() {
            self.present(worker_id, now);
            self.renew(worker_id, task.task_id, now);
        }
    }

    pub(super) fn renew(&mut self, worker_id: &Name, task_id: TaskId, now: Now) {
        if let Some(lease) = self.workers.get_mut(worker_id).and_then(|worker| worker.running.get_mut(&task_id)) {
            lease.heard = now.lived;
            lease.restored = false;
        }
    }

    /// A running record stands in the engine: its worker holds it.
    pub(super) fn lease(&mut self, task: &Task, known: Option<Lease>, now: Now) {
        let Some(worker_id) = task.worker_id() else { return };
        let lease_ms = self.options.lease_ms;
        // After a restart, how it ended while the hub was not there is told first.
        let told_by = if self.recovering { now.lived + self.options.return_ms() } else { 0 };
        let mut lease = known.unwrap_or_else(|| {
            let started_at = task.run().and_then(|run| run.started_at).unwrap_or(now.at);
            let timeout_at = task.timeout_ms().map(|timeout| lived_of(started_at, timeout, now));
            let timeout_at = timeout_at.map(|at| at.max(told_by));
            let asked_ms = task.run().and_then(|run| run.lease_ms);
            let spoke = now.lived.max(told_by);
            let restored = self.recovering;
            Lease { attempt: task.attempt, timeout_at, heard: now.lived, stop_by: None, spoke, asked_ms, restored }
        });
        let asked_at = task.run().and_then(|run| run.cancel_requested_at);
        lease.stop_by = asked_at.map(|asked_at| {
            let stop_by = || lived_of(asked_at, task.cancel_grace_ms(), now).max(told_by);
            lease.stop_by.unwrap_or_else(stop_by)
        });
        if let Some(at) = lease.stop_by {
            self.timers.set(Alarm::CancelGrace(task.task_id), At::Lived(at));
        }
        if let Some(silence_ms) = task.silence_ms() {
            self.timers.set(Alarm::Silence(task.task_id), At::Lived(lease.spoke + silence_ms));
        }
        if let Some(at) = lease.timeout_at {
            self.timers.set(Alarm::Timeout(task.task_id), At::Lived(at));
        }
        if !self.workers.contains_key(worker_id) {
            self.restore_worker(worker_id, task, now);
        }
        let worker = self.workers.get_mut(worker_id).expect("it was found or just restored");
        // If its end was taken back, it takes one place again, not two.
        let attempt = (task.task_id, task.attempt);
        if let Some(Ending { key, .. }) = self.endings.remove(&attempt) {
            worker.ending.retain(|ending| *ending != attempt);
            if let Some(key) = key {
                self.lanes.release_key(&key, &mut self.groups);
            }
        }
        // If the alarm went off, and what came of it was taken back, it goes off again at once.
        let ends_at = worker.ends_at(&lease, lease_ms);
        worker.running.insert(task.task_id, lease);
        self.look_at_worker_by(worker_id, ends_at);
        self.update_slot(worker_id);
    }

    /// A running record leaves the engine.
    pub(super) fn unlease(&mut self, task: &Task) -> Option<Lease> {
        let worker_id = task.worker_id()?;
        let worker = self.workers.get_mut(worker_id)?;
        let lease = worker.running.remove(&task.task_id);
        if let Some(lease) = &lease {
            if lease.timeout_at.is_some() {
                self.timers.clear(&Alarm::Timeout(task.task_id));
            }
            if task.silence_ms().is_some() {
                self.timers.clear(&Alarm::Silence(task.task_id));
            }
            if lease.stop_by.is_some() {
                self.timers.clear(&Alarm::CancelGrace(task.task_id));
            }
            if worker.link != Link::Socket && worker.running.is_empty() {
                // It may be gone, and this may be all it was known for.
                self.leaving.push(worker_id.clone());
            }
        }
        self.update_slot(worker_id);
        lease
    }

    /// The lease of a running task.
    pub(super) fn lease_of(&mut self, task: &Task) -> Option<&mut Lease> {
        self.workers.get_mut(task.worker_id()?)?.running.get_mut(&task.task_id)
    }

    /// Takes an attempt from its worker. That is told to stop, and its slot stays taken until it has let go.
    pub(super) fn fence(&mut self, task: &Task, reason: &str, cx: &mut Cx<'_>) {
        let Some(worker_id) = task.worker_id().cloned() else { return };
        let (task_id, attempt) = (task.task_id, task.attempt);
        self.occupy(&worker_id, task);
        cx.batch.notices.push(Notice::Stop { worker_id, task_id, attempt, reason: Some(reason.into()) });
    }

    /// The attempt is over for the hub, but the worker may still be at it.
    fn occupy(&mut self, worker_id: &Name, task: &Task) {
        let Some(worker) = self.workers.get_mut(worker_id).filter(|worker| worker.link == Link::Socket) else { return };
        let attempt = (task.task_id, task.attempt);
        worker.ending.push(attempt);
        let key = task.concurrency_key().map(|key| (task.queue.clone(), key.clone()));
        if let Some(key) = &key {
            self.lanes.hold_key(key, &mut self.groups);
        }
        self.endings.insert(attempt, Ending { worker_id: worker_id.clone(), key });
    }

    /// The keys of a queue, or of all, that attempts hold which are over for the hub.
    pub(super) fn held_keys(&self, queue: Option<&Name>) -> Vec<(Name, Name)> {
        let keys = self.endings.values().filter_map(|ending| ending.key.clone());
        keys.filter(|(of_queue, _)| queue.is_none_or(|queue| of_queue == queue)).collect()
    }

    /// Nothing is known of an attempt any more that its worker may have been at. Answers who that was.
    pub(super) fn forget_ending(&mut self, attempt: (TaskId, u32)) -> Option<Name> {
        let Ending { worker_id, key } = self.endings.remove(&attempt)?;
        if let Some(key) = key {
            self.lanes.release_key(&key, &mut self.groups);
        }
        Some(worker_id)
    }

    /// The worker told the end of an attempt that is over: now it is over for both.
    pub(super) fn attempt_over(&mut self, task_id: TaskId, attempt: u32) {
        if let Some(worker_id) = self.forget_ending((task_id, attempt))
            && let Some(worker) = self.workers.get_mut(&worker_id)
        {
            worker.ending.retain(|ending| *ending != (task_id, attempt));
            self.update_slot(&worker_id);
        }
    }

    pub(super) fn lose_lease(&mut self, task_id: TaskId, how: Lost, note: &str, cx: &mut Cx<'_>) {
        let task = Task::clone(&self.tasks[&task_id]);
        self.lose(task, how, note, cx);
    }

    pub(super) fn give_back_all(&mut self, cx: &mut Cx<'_>) -> usize {
        let mut running: Vec<_> = self.workers.values().flat_map(|worker| worker.running.keys().copied()).collect();
        running.sort();
        for task_id in &running {
            let task = Task::clone(&self.tasks[task_id]);
            self.lose(task, Lost::GivenBack, "the hub went down", cx);
        }
        running.len()
    }

    /// Confirms every lease after a restart: a transition, because the ticks of before are not known any more.
    pub(super) fn confirm_leases(&mut self, cx: &mut Cx<'_>) {
        let mut running: Vec<_> = self.workers.values().flat_map(|worker| worker.running.keys().copied()).collect();
        running.sort();
        for task_id in running {
            let task = Task::clone(&self.tasks[&task_id]);
            self.step(Some(task_id), Step::new(task, Event::Running).note("the hub restarted"), cx);
        }
    }
}
