//! Working on tasks: which worker is whose, and what it may say of which attempt.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::access::{Credential, Principal, Right};
use crate::engine::{Accepts, Refusal, Report};
use crate::store::Entry;
use crate::task::{Json, Level, Name, Pattern, PatternSet, Progress, Status, Task, TaskId};

use super::super::mailbox::Mailbox;
use super::super::shared::Push;
use super::super::{Forbidden, HandedOut, HubError, Upload, Welcome};
use super::{CallerHub, Sight};

/// A worker id that was not heard of for this long, and is not connected, may be taken by another caller.
const HOLDER_IDLE: Duration = Duration::from_secs(60);
/// How the queues begin that each serve one command (`taskhub run`).
const RUN_QUEUES: &str = "run.";
/// Beyond so many, those that are idle are forgotten.
const HOLDERS_MAX: usize = 10_000;
/// How long a worker goes on seeing a task whose attempt has ended: so it can look at what became of what it did.
const HELD_FOR: Duration = Duration::from_secs(60);
/// The most ended attempts that are remembered for that, the newest: some 15 MB. With more than a thousand a second each is
/// seen for less than a minute.
const ENDED_MAX: usize = 100_000;

/// Which worker ids are whose. Only a worker that introduces itself, claims or reports becomes a holder; whoever looks at a task
/// does not.
#[derive(Default)]
pub(in super::super) struct Holders {
    workers: DashMap<Name, Holder>,
    /// Some see what they hold and nothing else. Else nothing is remembered.
    are_narrow: AtomicBool,
    ended: Mutex<Ended>,
}

/// Attempts that ended a moment ago.
#[derive(Default)]
struct Ended {
    /// The newest end of each task's attempts, by whose they were.
    at: HashMap<(TaskId, Arc<str>), Instant>,
    /// In their order.
    order: VecDeque<(Instant, TaskId, Arc<str>)>,
}

impl Ended {
    fn note(&mut self, task_id: TaskId, of: Arc<str>, now: Instant) {
        while self.order.front().is_some_and(|(at, ..)| self.order.len() >= ENDED_MAX || *at + HELD_FOR <= now) {
            let Some((at, task_id, of)) = self.order.pop_front() else { break };
            // Another attempt may have ended since.
            let key = (task_id, of);
            if self.at.get(&key) == Some(&at) {
                self.at.remove(&key);
            }
        }
        self.at.insert((task_id, of.clone()), now);
        self.order.push_back((now, task_id, of));
    }

    fn has(&self, task_id: TaskId, of: Arc<str>, now: Instant) -> bool {
        self.at.get(&(task_id, of)).is_some_and(|at| now < *at + HELD_FOR)
    }
}

struct Holder {
    of: Arc<str>,
    /// It sees what it holds and nothing else.
    is_narrow: bool,
    heard: Instant,
    /// Its socket, if it has one.
    link: Weak<Mailbox<Push>>,
}

impl Holder {
    fn new(of: &str) -> Holder {
        Holder { of: of.into(), is_narrow: false, heard: Instant::now(), link: Weak::new() }
    }

    fn is_idle(&self) -> bool {
        self.link.strong_count() == 0 && self.heard.elapsed() >= HOLDER_IDLE
    }
}

impl Holders {
    /// Takes a worker id for a caller, or answers that it is another's.
    fn take(&self, worker_id: &Name, who: &Principal) -> bool {
        self.hear(worker_id, who, Holder::is_idle)
    }

    /// Whether this caller speaks for a worker. For one that nobody took since the hub started, whoever reports first does: a worker
    /// that goes on over HTTP says nothing before its next report.
    fn speaks_for(&self, worker_id: &Name, who: &Principal) -> bool {
        self.hear(worker_id, who, |_| false)
    }

    fn hear(&self, worker_id: &Name, who: &Principal, gives_up: impl Fn(&Holder) -> bool) -> bool {
        if self.workers.len() > HOLDERS_MAX {
            self.workers.retain(|_, holder| !holder.is_idle());
        }
        let of = who.credential.holder();
        let mut holder = self.workers.entry(worker_id.clone()).or_insert_with(|| Holder::new(&of));
        if *holder.of == *of {
            holder.heard = Instant::now();
        } else if gives_up(&holder) {
            *holder = Holder::new(&of);
        } else {
            return false;
        }
        if who.sight == Sight::Held && !holder.is_narrow {
            holder.is_narrow = true;
            self.are_narrow.store(true, Ordering::Relaxed);
        }
        true
    }

    /// A worker is on a socket: it stays its caller's until that is closed.
    fn connected(&self, worker_id: &Name, link: Weak<Mailbox<Push>>) {
        if let Some(mut holder) = self.workers.get_mut(worker_id) {
            holder.link = link;
        }
    }

    /// These are about to be shown: attempts that end in them are remembered for their workers.
    pub(in super::super) fn look_at(&self, entries: &[Entry]) {
        if !self.are_narrow.load(Ordering::Relaxed) {
            return;
        }
        for Entry { change, .. } in entries {
            let Some(prev) = change.prev.as_ref().filter(|prev| prev.status == Status::Running) else { continue };
            let goes_on = change.task.status == Status::Running && change.task.attempt == prev.attempt;
            if let Some(worker_id) = prev.worker_id().filter(|_| !goes_on)
                && let Some(holder) = self.workers.get(worker_id).filter(|holder| holder.is_narrow)
            {
                self.ended.lock().note(prev.task_id, holder.of.clone(), Instant::now());
            }
        }
    }

    /// Whether a task is run by a worker of this caller, or was a moment ago.
    pub(super) fn shows(&self, credential: &Credential, task: &Task) -> bool {
        let of = credential.holder();
        let holder = task.worker_id().and_then(|worker_id| self.workers.get(worker_id));
        let runs = holder.is_some_and(|holder| *holder.of == *of);
        runs || self.ended.lock().has(task.task_id, of.into(), Instant::now())
    }
}

impl CallerHub {
    /// Refuses a report on an attempt that is not the caller's, in the same words whatever task it names.
    pub fn holds(&self, task_id: TaskId) -> Result<(), HubError> {
        if self.sees_all() && self.who.may(Right::Work) {
            return Ok(());
        }
        let is_held = self.hub.shown(task_id).is_some_and(|task| {
            // Of others than workers, a command that they run themselves.
            let may = if self.who.sight == Sight::Held { self.takes(&task) } else { self.sees(&task) };
            let holders = &self.hub.shared().holders;
            may && task.worker_id().is_some_and(|worker_id| holders.speaks_for(worker_id, &self.who))
        });
        if is_held { Ok(()) } else { Err(HubError::Refused(Refusal::LeaseLost)) }
    }

    /// Whether the caller's token is for such tasks.
    fn takes(&self, task: &Task) -> bool {
        let works = &self.who.works;
        works.task_types.as_ref().is_none_or(|types| types.matches(task.task_type.as_str()))
            && works.queues.as_ref().is_none_or(|queues| queues.matches(task.queue.as_str()))
    }

    /// Whether the caller may work on tasks at all: those of other programs, or the one that a command of theirs is. That waits in
    /// a queue of its own, with a name that nobody else knows.
    fn may_work(&self, accepts: &Accepts) -> bool {
        let is_own = |pattern: &Pattern| match pattern {
            Pattern::Exact(queue) => queue.as_str().starts_with(RUN_QUEUES),
            Pattern::Prefix(_) => false,
        };
        self.who.may(Right::Work) || self.who.may(Right::Submit) && accepts.queues.iter().all(is_own)
    }

    /// Refuses a worker id that is another caller's, and tasks that the caller's token is not for.
    fn check_worker(&self, worker_id: &Name, accepts: &Accepts) -> Result<(), HubError> {
        if !self.may_work(accepts) {
            return Err(self.forbidden("work", Forbidden::lacks(Right::Work)));
        }
        let works = &self.who.works;
        let wider = |asked: &PatternSet, given: &Option<PatternSet>| {
            given.as_ref().is_some_and(|given| asked.and(given) != *asked)
        };
        for (field, is_wider) in [
            ("task_types", wider(&accepts.task_types, &works.task_types)),
            ("queues", wider(&accepts.queues, &works.queues)),
        ] {
            if is_wider {
                let detail = format!("{field} are wider than those of the caller's token");
                return Err(self.forbidden("work", Forbidden::at(field, detail)));
            }
        }
        match self.hub.shared().holders.take(worker_id, &self.who) {
            true => Ok(()),
            false => Err(self.forbidden("work", Forbidden::at("worker_id", "the worker_id is another caller's"))),
        }
    }

    /// Hands out tasks over HTTP, with a lease on each that lasts as long as this, where the hub's own is shorter.
    pub async fn claim_for(
        &self,
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        lease: Option<Duration>,
        patience: Duration,
    ) -> Result<Vec<HandedOut>, HubError> {
        self.check_worker(&worker_id, &accepts)?;
        self.hub.claim_for(worker_id, accepts, max, lease, patience).await
    }

    /// Takes a worker's introduction on a new connection.
    pub async fn attach_worker(
        &self,
        worker_id: Name,
        accepts: Accepts,
        concurrency: u32,
        holding: Option<Vec<(TaskId, u32)>>,
    ) -> Result<Welcome, HubError> {
        self.check_worker(&worker_id, &accepts)?;
        let welcome = self.hub.attach_worker(worker_id.clone(), accepts, concurrency, holding).await?;
        self.hub.shared().holders.connected(&worker_id, welcome.link.mailbox());
        Ok(welcome)
    }

    /// A report on an attempt. Durable when this returns; answers whether the attempt was asked to stop.
    pub async fn report(&self, task_id: TaskId, attempt: u32, report: Report) -> Result<bool, HubError> {
        self.holds(task_id)?;
        self.hub.report(task_id, attempt, report).await
    }

    /// A tick, a checkpoint, or both, of a running attempt.
    pub async fn progress(
        &self,
        task_id: TaskId,
        attempt: u32,
        progress: Option<Progress>,
        checkpoint: Option<Json>,
    ) -> Result<bool, HubError> {
        self.holds(task_id)?;
        self.hub.progress(task_id, attempt, progress, checkpoint).await
    }

    /// Log lines of a running attempt. Answers whether the attempt was asked to stop.
    pub async fn log(&self, task_id: TaskId, attempt: u32, lines: Vec<(Level, String)>) -> Result<bool, HubError> {
        self.holds(task_id)?;
        self.hub.log(task_id, attempt, lines)
    }

    /// Begins to take a result of a running attempt; `declared` is how long it is said to be, if it is said.
    pub async fn upload(
        &self,
        task_id: TaskId,
        attempt: u32,
        content_type: &str,
        declared: Option<u64>,
    ) -> Result<Upload, HubError> {
        self.holds(task_id)?;
        self.hub.upload(task_id, attempt, content_type, declared).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Fingerprint, Role};
    use crate::task::Timestamp;

    fn of(subject: &str) -> Principal {
        let (issuer, subject) = ("i".into(), subject.into());
        let issued_at = Timestamp::from_millis(0);
        let signed = crate::access::Signed { issuer, subject, issued_at, key: Fingerprint::of("k"), filter: None };
        Principal::new(Role::Worker, None, Credential::Jwt(Arc::new(signed)))
    }

    #[test]
    fn a_worker_is_its_callers_until_it_is_idle_and_not_connected() {
        let (holders, w) = (Holders::default(), Name::new("w"));
        let (ann, bob) = (of("ann"), of("bob"));
        assert!(holders.take(&w, &ann) && holders.take(&w, &ann) && !holders.take(&w, &bob));
        assert!(holders.speaks_for(&w, &ann) && !holders.speaks_for(&w, &bob));
        let idle = || holders.workers.get_mut(&w).unwrap().heard = Instant::now() - HOLDER_IDLE;
        // Regression: a worker that said nothing for a while was taken over by whoever reported on its task, or by another hello
        // while it was connected.
        let link = Arc::new(Mailbox::default());
        holders.connected(&w, Arc::downgrade(&link));
        idle();
        assert!(!holders.take(&w, &bob) && !holders.speaks_for(&w, &bob));
        drop(link);
        idle();
        assert!(!holders.speaks_for(&w, &bob) && holders.take(&w, &bob) && !holders.take(&w, &ann));
    }

    #[test]
    fn what_ended_is_remembered_for_a_minute_and_never_more_than_there_may_be() {
        let id = |n: u128| TaskId::from_bytes(n.to_be_bytes());
        let (mut ended, of, begun) = (Ended::default(), Arc::<str>::from("ann"), Instant::now());
        let at = |secs| begun + Duration::from_secs(secs);
        ended.note(id(1), of.clone(), at(0));
        assert!(ended.has(id(1), of.clone(), at(59)) && !ended.has(id(1), of.clone(), at(60)));
        assert!(!ended.has(id(1), "bob".into(), at(1)) && !ended.has(id(2), of.clone(), at(1)));
        // A later attempt of the same task.
        ended.note(id(1), of.clone(), at(30));
        ended.note(id(2), of.clone(), at(61));
        assert!(ended.has(id(1), of.clone(), at(61)) && ended.order.len() == 2);
        ended.note(id(3), of.clone(), at(300));
        assert_eq!((ended.at.len(), ended.order.len()), (1, 1));
        for n in 0..ENDED_MAX as u128 + 5 {
            ended.note(id(n), of.clone(), at(301));
        }
        assert_eq!((ended.at.len(), ended.order.len()), (ENDED_MAX, ENDED_MAX));
    }
}
