//! Workers, what they hold, and for how long.
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
//! than the hub's own: a script, or a person at a terminal, has no thread for heartbeats. That stands in the record, so
//! that a restart of the hub takes nothing from those who do not know of it.
//!
//! **Over a restart of the hub** leases go on, and their workers have a lease and a grace to come back. Whoever comes back
//! with its attempts, or speaks of them, loses nothing. What nobody comes back to is a crash, as it would be without a
//! restart: a task that takes hub and worker along must not be handed out for ever. One case is known to be none: a process
//! that the hub had welcomed before comes back without an attempt. Then the hub went down between writing the hand-out and
//! sending it.
//!
//! Leases are counted in time that the hub lived through ([`Clock`](super::Clock)), and judged only once all that was said
//! before is decided ([`Engine::judge`]). What a batch ended and took back has the lease it had.

use std::collections::HashMap;
use std::sync::Arc;

use crate::task::{Event, IdHasher, Name, Status, Task, TaskId, Timestamp};

use super::core::{Engine, Step, keep_progress, lived_of};
use super::groups::{FreeSlot, GroupId, Slot};
use super::reports::Lost;
use super::timers::{Alarm, At};
use super::{Accepts, Answer, Cx, Hello, Link, Notice, Now, Refusal, WorkerState};

/// A worker the engine knows of.
pub(super) struct Worker {
    worker_id: Name,
    accepts: Accepts,
    group: GroupId,
    concurrency: u32,
    link: Link,
    session: u64,
    /// It wants no new work.
    retiring: bool,
    /// It was not heard of for a whole lease, though its socket is open.
    silent: bool,
    connected_at: Timestamp,
    last_heard: u64,
    last_heard_at: Timestamp,
    /// While it is away: how long it may be.
    away_until: u64,
    pub(super) running: HashMap<TaskId, Lease, IdHasher>,
    /// Attempts that are over for the hub and perhaps not for the worker: each takes a place until the worker says so.
    ending: Vec<(TaskId, u32)>,
    /// The key of its free slot, while it has one.
    free: Option<FreeSlot>,
}

/// A task in the hands of a worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lease {
    attempt: u32,
    timeout_at: Option<u64>,
    /// When the attempt was last spoken of. It counts where the worker has no socket.
    heard: u64,
    /// Until when it may take to stop, once it was asked to.
    stop_by: Option<u64>,
    /// When it last reported something, as far as was asked for: see `silence_ms`.
    pub(super) spoke: u64,
    /// How long it lasts over HTTP, where its claim asked for more than the hub's own.
    asked_ms: Option<u64>,
    /// It is from before a restart of the hub, and its worker has not spoken of it yet: perhaps it was never handed out.
    restored: bool,
}

/// An open claim over HTTP.
pub(super) struct Claim {
    pub(super) worker_id: Name,
    group: GroupId,
    wanted: u32,
    /// How long the leases last that it gets, where it asked for more than the hub's own.
    pub(super) lease_ms: Option<u64>,
    free: FreeSlot,
    given: Vec<Arc<Task>>,
}

impl Claim {
    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    /// How many more it takes.
    pub(super) fn open(&self) -> u32 {
        self.wanted - self.given.len() as u32
    }
}

impl Worker {
    fn new(worker_id: Name, accepts: Accepts, group: GroupId, link: Link, now: Now) -> Worker {
        Worker {
            worker_id,
            accepts,
            group,
            concurrency: 0,
            link,
            session: 0,
            retiring: false,
            silent: false,
            connected_at: now.at,
            last_heard: now.lived,
            last_heard_at: now.at,
            away_until: 0,
            running: HashMap::default(),
            ending: Vec::new(),
            free: None,
        }
    }

    #[cfg(test)]
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    pub(super) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn takes(&self, queue: &str, task_type: &str) -> bool {
        self.accepts.takes(queue, task_type)
    }

    fn load(&self) -> u32 {
        (self.running.len() + self.ending.len()) as u32
    }

    /// A worker without a socket is there all the same. What it holds it holds from now on.
    fn comes_by_http(&mut self, now: Now) {
        if self.link == Link::Away {
            self.link = Link::Http;
            self.running.values_mut().for_each(|lease| lease.heard = now.lived);
        }
    }

    /// When a lease of this worker runs out.
    fn ends_at(&self, lease: &Lease, lease_ms: u64) -> u64 {
        match self.link {
            Link::Socket => self.last_heard + lease_ms,
            Link::Http => lease.heard + lease.asked_ms.unwrap_or(lease_ms),
            Link::Away => self.away_until.max(lease.heard + lease.asked_ms.unwrap_or(0)),
        }
    }

    fn may_take(&self) -> bool {
        self.link == Link::Socket && !self.retiring && !self.silent && self.load() < self.concurrency
    }

    /// `asked`: what its open claims would take. Over HTTP that and what it holds is all that is known of its places.
    pub(super) fn state(&self, tasks: &HashMap<TaskId, Arc<Task>, IdHasher>, asked: u32) -> WorkerState {
        let mut running: Vec<_> = self.running.iter().map(|(id, lease)| (*id, lease.attempt)).collect();
        running.retain(|(id, _)| tasks.contains_key(id));
        running.sort();
        WorkerState {
            worker_id: self.worker_id.clone(),
            accepts: self.accepts.clone(),
            concurrency: match self.link {
                Link::Socket => self.concurrency,
                Link::Away if self.session != 0 => self.concurrency,
                Link::Away | Link::Http => running.len() as u32 + asked,
            },
            running,
            stuck: self.ending.clone(),
            link: self.link,
            retiring: self.retiring,
            connected_at: self.connected_at,
            last_heard_at: self.last_heard_at,
        }
    }
}

impl Engine {
    pub(super) fn hello(&mut self, hello: Hello, cx: &mut Cx<'_>) -> Answer {
        let Hello { worker_id, session, accepts, concurrency, holding } = hello;
        let group = self.groups.join(&accepts, &mut self.lanes);
        match self.workers.get_mut(&worker_id) {
            None => {
                let worker = Worker::new(worker_id.clone(), accepts, group, Link::Socket, cx.now);
                self.workers.insert(worker_id.clone(), worker);
            }
            Some(worker) => {
                if worker.link == Link::Socket {
                    cx.batch.notices.push(Notice::Replaced { session: worker.session });
                }
                let old_group = std::mem::replace(&mut worker.group, group);
                if let Some(free) = worker.free.take() {
                    self.groups.remove_slot(old_group, &free);
                }
                worker.accepts = accepts;
                self.groups.leave(old_group, &mut self.lanes);
            }
        }
        let worker = self.workers.get_mut(&worker_id).expect("it was found or just put there");
        worker.link = Link::Socket;
        worker.session = session;
        worker.concurrency = concurrency;
        worker.retiring = false;
        worker.silent = false;
        worker.connected_at = cx.now.at;
        for ending in worker.ending.drain(..) {
            self.endings.remove(&ending);
        }

        let is_new = holding.is_none();
        let holding = holding.unwrap_or_default();
        let held = |id: &TaskId, attempt: u32| holding.contains(&(*id, attempt));
        let mut mine: Vec<_> = worker.running.iter().map(|(id, lease)| (*id, lease.attempt)).collect();
        mine.sort();
        let (keep, lost): (Vec<_>, Vec<_>) = mine.into_iter().partition(|(id, attempt)| held(id, *attempt));
        let drop = holding.iter().filter(|held| !keep.contains(held)).copied().collect();
        self.present(&worker_id, cx.now);
        for (task_id, attempt) in &keep {
            self.renew(&worker_id, *task_id, cx.now);
            let mut task = Task::clone(&self.tasks[task_id]);
            keep_progress(&mut task, cx.ticks);
            let step = Step::new(task, Event::Running).note("worker came back");
            let task = self.step(Some(*task_id), step, cx);
            if task.cancel_requested() {
                let worker_id = worker_id.clone();
                cx.batch.notices.push(Notice::Stop { worker_id, task_id: *task_id, attempt: *attempt, reason: None });
            }
        }
        for (task_id, _) in lost {
            // From before a restart, of a process that was there then: the hub was gone before it could hand this out.
            let never_had = !is_new && self.workers[&worker_id].running[&task_id].restored;
            let how = if never_had { Lost::GivenBack } else { Lost::Crash };
            self.lose_lease(task_id, how, "its worker came back without it", cx);
        }
        self.update_slot(&worker_id);
        Answer::Welcome { keep, drop }
    }

    pub(super) fn left(&mut self, worker_id: &Name, session: u64, now: Now) {
        let grace_ms = self.options.grace_ms;
        let Some(worker) = self.workers.get_mut(worker_id) else { return };
        if worker.session != session || worker.link != Link::Socket {
            return;
        }
        worker.link = Link::Away;
        worker.away_until = now.lived + grace_ms;
        for ending in worker.ending.drain(..) {
            self.endings.remove(&ending);
        }
        if worker.running.is_empty() {
            self.leaving.push(worker_id.clone());
        }
        self.set_worker_alarm(worker_id, now.lived + grace_ms);
        self.update_slot(worker_id);
    }

    /// A sign of life, of which attempt is not said: it is for all of them.
    pub(super) fn heard(&mut self, worker_id: &Name, now: Now) {
        self.present(worker_id, now);
        if let Some(worker) = self.workers.get_mut(worker_id).filter(|worker| worker.link == Link::Http) {
            worker.running.values_mut().for_each(|lease| lease.heard = now.lived);
        }
    }

    /// A sign of life of one attempt.
    pub(super) fn heard_of(&mut self, task: &Task, now: Now) {
        if let Some(worker_id) = task.worker_id() {
            self.present(worker_id, now);
            self.renew(worker_id, task.task_id, now);
        }
    }

    fn renew(&mut self, worker_id: &Name, task_id: TaskId, now: Now) {
        if let Some(lease) = self.workers.get_mut(worker_id).and_then(|worker| worker.running.get_mut(&task_id)) {
            lease.heard = now.lived;
            lease.restored = false;
        }
    }

    /// The worker is there, whatever it holds.
    fn present(&mut self, worker_id: &Name, now: Now) {
        let lease_ms = self.options.lease_ms;
        let Some(worker) = self.workers.get_mut(worker_id) else { return };
        worker.last_heard = now.lived;
        worker.last_heard_at = now.at;
        if worker.session == 0 {
            // A worker over HTTP from before a restart has no socket to come back with: this is its return.
            worker.comes_by_http(now);
        }
        let was_silent = std::mem::take(&mut worker.silent);
        // An alarm that is set for later, after a long grace, would come too late.
        let at = now.lived + lease_ms;
        if worker.link != Link::Away {
            self.look_at_worker_by(worker_id, at);
        }
        if was_silent {
            self.update_slot(worker_id);
        }
    }

    pub(super) fn retire(&mut self, worker_id: &Name, session: u64) {
        if let Some(worker) = self.workers.get_mut(worker_id)
            && worker.session == session
        {
            worker.retiring = true;
            self.update_slot(worker_id);
        }
    }

    pub(super) fn claim(
        &mut self,
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        lease_ms: Option<u64>,
        ticket: u64,
        now: Now,
    ) -> Result<Answer, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let group = self.groups.join(&accepts, &mut self.lanes);
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.comes_by_http(now);
        } else {
            let member = self.groups.join(&accepts, &mut self.lanes);
            let worker = Worker::new(worker_id.clone(), accepts, member, Link::Http, now);
            self.workers.insert(worker_id.clone(), worker);
        }
        let free = self.groups.add_slot(group, Slot::Claim(ticket), 0);
        let lease_ms = lease_ms.filter(|asked_ms| *asked_ms > self.options.lease_ms);
        let claim = Claim { worker_id: worker_id.clone(), group, wanted: max, lease_ms, free, given: Vec::new() };
        self.claims.insert(ticket, claim);
        self.present(&worker_id, now);
        Ok(Answer::Done)
    }

    pub(super) fn unclaim(&mut self, ticket: u64) {
        if let Some(claim) = self.claims.remove(&ticket) {
            self.groups.remove_slot(claim.group, &claim.free);
            self.groups.leave(claim.group, &mut self.lanes);
            // It may have been all that was left of its worker.
            self.leaving.push(claim.worker_id);
        }
    }

    pub(super) fn give_to_claim(&mut self, ticket: u64, task: Arc<Task>, now: Now) {
        let Some(claim) = self.claims.get_mut(&ticket) else { return };
        claim.given.push(task);
        self.groups.remove_slot(claim.group, &claim.free);
        let load = claim.given.len() as u32;
        if load < claim.wanted {
            claim.free = self.groups.add_slot(claim.group, Slot::Claim(ticket), load);
        }
        // Whoever holds a claim open is there, though it may have said nothing for longer than a lease.
        let worker_id = claim.worker_id.clone();
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.comes_by_http(now);
        }
        self.present(&worker_id, now);
    }

    /// Every open claim is answered with what it has: nothing more will come.
    pub(super) fn dismiss_claims(&mut self, cx: &mut Cx<'_>) {
        let mut tickets: Vec<_> = self.claims.keys().copied().collect();
        tickets.sort_unstable();
        for ticket in tickets {
            self.close_claim(ticket, cx);
        }
    }

    fn close_claim(&mut self, ticket: u64, cx: &mut Cx<'_>) {
        if let Some(claim) = self.claims.remove(&ticket) {
            self.groups.remove_slot(claim.group, &claim.free);
            self.groups.leave(claim.group, &mut self.lanes);
            self.leaving.push(claim.worker_id);
            cx.batch.notices.push(Notice::Claimed { ticket, tasks: claim.given });
        }
    }

    /// Claims that got something are over.
    pub(super) fn answer_claims(&mut self, cx: &mut Cx<'_>) {
        if self.claims.is_empty() {
            return;
        }
        let mut answered: Vec<_> =
            self.claims.iter().filter(|(_, claim)| !claim.given.is_empty()).map(|(ticket, _)| *ticket).collect();
        answered.sort_unstable();
        for ticket in answered {
            self.close_claim(ticket, cx);
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
        if self.endings.remove(&attempt).is_some() {
            worker.ending.retain(|ending| *ending != attempt);
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
        self.occupy(&worker_id, task_id, attempt);
        cx.batch.notices.push(Notice::Stop { worker_id, task_id, attempt, reason: Some(reason.into()) });
    }

    /// The attempt is over for the hub, but the worker may still be at it.
    fn occupy(&mut self, worker_id: &Name, task_id: TaskId, attempt: u32) {
        if let Some(worker) = self.workers.get_mut(worker_id)
            && worker.link == Link::Socket
        {
            worker.ending.push((task_id, attempt));
            self.endings.insert((task_id, attempt), worker_id.clone());
        }
    }

    /// The worker told the end of an attempt that is over: now it is over for both.
    pub(super) fn attempt_over(&mut self, task_id: TaskId, attempt: u32) {
        if let Some(worker_id) = self.endings.remove(&(task_id, attempt))
            && let Some(worker) = self.workers.get_mut(&worker_id)
        {
            worker.ending.retain(|ending| *ending != (task_id, attempt));
            self.update_slot(&worker_id);
        }
    }

    pub(super) fn check_worker(&mut self, worker_id: &Name, cx: &mut Cx<'_>) {
        let lease_ms = self.options.lease_ms;
        let Some(worker) = self.workers.get_mut(worker_id) else { return };
        let away = worker.link == Link::Away;
        worker.silent = away || worker.last_heard + lease_ms <= cx.now.lived;
        let worker = &*worker;
        let is_over = |lease: &Lease| worker.ends_at(lease, lease_ms) <= cx.now.lived;
        let mut lost: Vec<_> = worker.running.iter().filter(|(_, lease)| is_over(lease)).map(|(id, _)| *id).collect();
        lost.sort();
        let on_socket = worker.link == Link::Socket;
        for task_id in lost {
            if on_socket {
                // It may only be slow. Told so, it does not go on for nothing beside whoever has the task next.
                let task = self.tasks[&task_id].clone();
                self.fence(&task, "lease lost", cx);
            }
            let note = if away { "its worker did not come back" } else { "its worker fell silent" };
            self.lose_lease(task_id, Lost::Crash, note, cx);
        }
        let waits = self.claims.values().any(|claim| claim.worker_id == *worker_id);
        let Some(worker) = self.workers.get(worker_id) else { return };
        let silent_at = (!worker.silent).then_some(worker.last_heard + lease_ms);
        let next = worker.running.values().map(|lease| worker.ends_at(lease, lease_ms)).chain(silent_at).min();
        match (worker.link, next) {
            (_, Some(at)) => self.set_worker_alarm(worker_id, at),
            (Link::Socket, None) => self.update_slot(worker_id),
            // A claim may be held open longer than a lease; the worker is only waiting.
            (Link::Http, None) if waits => self.set_worker_alarm(worker_id, cx.now.lived + lease_ms),
            (Link::Http | Link::Away, _) => self.leaving.push(worker_id.clone()),
        }
    }

    fn lose_lease(&mut self, task_id: TaskId, how: Lost, note: &str, cx: &mut Cx<'_>) {
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

    /// A worker known only from the record of a task it runs: the hub restarted, or it was gone but for an open claim.
    fn restore_worker(&mut self, worker_id: &Name, task: &Task, now: Now) {
        let accepts = Accepts {
            task_types: crate::task::PatternSet::exactly(&task.task_type),
            queues: crate::task::PatternSet::exactly(&task.queue),
        };
        let group = self.groups.join(&accepts, &mut self.lanes);
        let away_until = now.lived + self.options.return_ms();
        let worker = Worker { away_until, ..Worker::new(worker_id.clone(), accepts, group, Link::Away, now) };
        self.workers.insert(worker_id.clone(), worker);
        self.set_worker_alarm(worker_id, away_until);
    }

    /// Forgets those who left and have not come back, unless they hold something again.
    pub(super) fn forget_leaving(&mut self) {
        for worker_id in std::mem::take(&mut self.leaving) {
            let waits = || self.claims.values().any(|claim| claim.worker_id == worker_id);
            let gone = self.workers.get(&worker_id).is_some_and(|worker| match worker.link {
                Link::Socket => false,
                Link::Away => worker.running.is_empty(),
                Link::Http => worker.running.is_empty() && worker.silent && !waits(),
            });
            if gone {
                self.forget_worker(&worker_id);
            }
        }
    }

    fn forget_worker(&mut self, worker_id: &Name) {
        if let Some(worker) = self.workers.remove(worker_id) {
            if let Some(free) = &worker.free {
                self.groups.remove_slot(worker.group, free);
            }
            self.groups.leave(worker.group, &mut self.lanes);
            self.timers.clear(&Alarm::Worker(worker_id.clone()));
        }
    }

    fn set_worker_alarm(&mut self, worker_id: &Name, at: u64) {
        self.timers.set(Alarm::Worker(worker_id.clone()), At::Lived(at));
    }

    /// The worker is looked at no later than then. An alarm that goes off early looks again.
    fn look_at_worker_by(&mut self, worker_id: &Name, at: u64) {
        let set = self.timers.at(&Alarm::Worker(worker_id.clone()));
        if !matches!(set, Some(At::Lived(set)) if set <= at) {
            self.set_worker_alarm(worker_id, at);
        }
    }

    /// Puts the worker's slot among the free ones, or takes it away, as its load and link say.
    fn update_slot(&mut self, worker_id: &Name) {
        let Some(worker) = self.workers.get_mut(worker_id) else { return };
        let load = worker.may_take().then(|| worker.load());
        if worker.free.as_ref().map(|free| free.load) == load {
            return;
        }
        if let Some(free) = worker.free.take() {
            self.groups.remove_slot(worker.group, &free);
        }
        if let Some(load) = load {
            worker.free = Some(self.groups.add_slot(worker.group, Slot::Worker(worker_id.clone()), load));
        }
    }

    /// Confirms every lease after a restart: a transition, because the ticks of before are not known any more.
    pub(super) fn confirm_leases(&mut self, cx: &mut Cx<'_>) {
        let mut running: Vec<_> =
            self.tasks.values().filter(|task| task.status == Status::Running).map(|task| task.task_id).collect();
        running.sort();
        for task_id in running {
            let task = Task::clone(&self.tasks[&task_id]);
            self.step(Some(task_id), Step::new(task, Event::Running).note("the hub restarted"), cx);
        }
    }
}
