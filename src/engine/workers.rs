//! Workers: how each is linked to the hub, how much it takes, and when it is gone. The essay is in
//! [`leases`](super::leases).

use std::collections::HashMap;
use std::sync::Arc;

use crate::task::{Event, IdHasher, Name, Task, TaskId, Timestamp};

use super::core::{Engine, Step, keep_progress};
use super::groups::{FreeSlot, GroupId, Slot};
use super::leases::Lease;
use super::reports::Lost;
use super::timers::{Alarm, At};
use super::{Accepts, Answer, Cx, Hello, Link, Notice, Now, WorkerState};

/// A worker the engine knows of.
pub(super) struct Worker {
    pub(super) worker_id: Name,
    pub(super) accepts: Accepts,
    pub(super) group: GroupId,
    pub(super) concurrency: u32,
    pub(super) link: Link,
    pub(super) session: u64,
    /// It wants no new work.
    pub(super) retiring: bool,
    /// It was not heard of for a whole lease, though its socket is open.
    pub(super) silent: bool,
    pub(super) connected_at: Timestamp,
    pub(super) last_heard: u64,
    pub(super) last_heard_at: Timestamp,
    /// While it is away: how long it may be.
    pub(super) away_until: u64,
    pub(super) running: HashMap<TaskId, Lease, IdHasher>,
    /// Attempts that are over for the hub and perhaps not for the worker: each takes a place until the worker says so.
    pub(super) ending: Vec<(TaskId, u32)>,
    /// The key of its free slot, while it has one.
    pub(super) free: Option<FreeSlot>,
}

impl Worker {
    pub(super) fn new(worker_id: Name, accepts: Accepts, group: GroupId, link: Link, now: Now) -> Worker {
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

    pub(super) fn load(&self) -> u32 {
        (self.running.len() + self.ending.len()) as u32
    }

    /// A worker without a socket is there all the same. What it holds it holds from now on.
    pub(super) fn comes_by_http(&mut self, now: Now) {
        if self.link == Link::Away {
            self.link = Link::Http;
            self.running.values_mut().for_each(|lease| lease.heard = now.lived);
        }
    }

    /// When a lease of this worker runs out.
    pub(super) fn ends_at(&self, lease: &Lease, lease_ms: u64) -> u64 {
        match self.link {
            Link::Socket => self.last_heard + lease_ms,
            Link::Http => lease.heard + lease.asked_ms.unwrap_or(lease_ms),
            Link::Away => self.away_until.max(lease.heard + lease.asked_ms.unwrap_or(0)),
        }
    }

    pub(super) fn may_take(&self) -> bool {
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
        let over = std::mem::take(&mut worker.ending);

        let is_new = holding.is_none();
        let holding = holding.unwrap_or_default();
        let held = |id: &TaskId, attempt: u32| holding.contains(&(*id, attempt));
        let mut mine: Vec<_> = worker.running.iter().map(|(id, lease)| (*id, lease.attempt)).collect();
        mine.sort();
        let (keep, lost): (Vec<_>, Vec<_>) = mine.into_iter().partition(|(id, attempt)| held(id, *attempt));
        let drop = holding.iter().filter(|held| !keep.contains(held)).copied().collect();
        for attempt in over {
            self.forget_ending(attempt);
        }
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
        let over = std::mem::take(&mut worker.ending);
        if worker.running.is_empty() {
            self.leaving.push(worker_id.clone());
        }
        for attempt in over {
            self.forget_ending(attempt);
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

    /// The worker is there, whatever it holds.
    pub(super) fn present(&mut self, worker_id: &Name, now: Now) {
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

    /// A worker known only from the record of a task it runs: the hub restarted, or it was gone but for an open claim.
    pub(super) fn restore_worker(&mut self, worker_id: &Name, task: &Task, now: Now) {
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

    pub(super) fn forget_worker(&mut self, worker_id: &Name) {
        if let Some(worker) = self.workers.remove(worker_id) {
            if let Some(free) = &worker.free {
                self.groups.remove_slot(worker.group, free);
            }
            self.groups.leave(worker.group, &mut self.lanes);
            self.timers.clear(&Alarm::Worker(worker_id.clone()));
        }
    }

    pub(super) fn set_worker_alarm(&mut self, worker_id: &Name, at: u64) {
        self.timers.set(Alarm::Worker(worker_id.clone()), At::Lived(at));
    }

    /// The worker is looked at no later than then. An alarm that goes off early looks again.
    pub(super) fn look_at_worker_by(&mut self, worker_id: &Name, at: u64) {
        let set = self.timers.at(&Alarm::Worker(worker_id.clone()));
        if !matches!(set, Some(At::Lived(set)) if set <= at) {
            self.set_worker_alarm(worker_id, at);
        }
    }

    /// Puts the worker's slot among the free ones, or takes it away, as its load and link say.
    pub(super) fn update_slot(&mut self, worker_id: &Name) {
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
}
