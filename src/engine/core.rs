//! The engine's state, and the few ways it may change.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::settings::{Setting, SettingChange, SettingId};
use crate::task::{
    Change, ChangeKind, Event, IdHasher, IdSource, Json, Name, Progress, Run, Status, Task, TaskId, Timestamp,
};

use super::claims::Claim;
use super::conflicts::Keyed;
use super::consequences::{Consequence, Consequences};
use super::dependencies::Dependencies;
use super::groups::{Slot, WorkerGroups};
use super::keys::Keys;
use super::lanes::Lanes;
use super::leases::Ending;
use super::private::{Journal, Private};
use super::quotas::Quotas;
use super::timers::{Alarm, At, Timers};
use super::workers::Worker;
use super::workflows::{Parts, is_shut};
use super::{Answer, Batch, Command, Cx, NotNow, Notice, Now, Refusal, Ticks, WorkerState};

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A worker that is not heard of for this long loses its tasks, in milliseconds.
    pub lease_ms: u64,
    /// A worker whose socket closed may come back within this, in milliseconds.
    pub grace_ms: u64,
    /// The most unfinished tasks: beyond it, submissions and retries by hand are refused. At about 300 bytes each this
    /// bounds the memory.
    pub tasks_max: usize,
    /// The largest payload, in bytes of JSON text.
    pub payload_bytes_max: usize,
    /// How long an idempotency key stands for its tasks, in milliseconds.
    pub key_ms: u64,
    /// What follows from the steps of a round is left for the next one once the round has come to so many changes: some
    /// tens of milliseconds of the writer's time.
    pub changes_max: usize,
}

impl Options {
    /// How long workers have to come back to a hub that restarted.
    pub fn return_ms(&self) -> u64 {
        self.lease_ms + self.grace_ms
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lease_ms: 10_000,
            grace_ms: 5_000,
            tasks_max: 10_000_000,
            payload_bytes_max: crate::task::PAYLOAD_BYTES_MAX,
            key_ms: 24 * 3_600_000,
            changes_max: 20_000,
        }
    }
}

/// Final tasks that stay at hand, because a worker may repeat its report or a person retry at once. Older ones are
/// looked up in the store.
const FINALS_RESIDENT_MAX: usize = 1_024;

/// The whole state that decisions are made from.
pub struct Engine {
    pub(super) options: Options,
    pub(super) random: fastrand::Rng,
    pub(super) ids: IdSource,
    pub(super) rev: u64,
    pub(super) tasks: HashMap<TaskId, Arc<Task>, IdHasher>,
    unfinished: usize,
    /// Final tasks in `tasks`, in the order they came.
    finals: VecDeque<TaskId>,
    /// Deleted in this batch: the store still has them, but a later command must not bring them back from there.
    pub(super) gone: HashSet<TaskId, IdHasher>,
    pub(super) lanes: Lanes,
    pub(super) groups: WorkerGroups,
    pub(super) timers: Timers,
    pub(super) journal: Journal,
    pub(super) workers: HashMap<Name, Worker>,
    /// Who may still be at an attempt that is over for the hub.
    pub(super) endings: HashMap<(TaskId, u32), Ending, IdHasher>,
    /// Workers that seem to be gone for good. They are forgotten between batches, since a revert may give them back what
    /// they held.
    pub(super) leaving: Vec<Name>,
    pub(super) claims: HashMap<u64, Claim>,
    /// When ready tasks that do not wait for ever were last served, in lived time.
    pub(super) served_at: HashMap<TaskId, u64, IdHasher>,
    pub(super) keys: Keys,
    pub(super) settings: HashMap<SettingId, Arc<Setting>>,
    pub(super) keyed: Keyed,
    pub(super) quotas: Quotas,
    pub(super) dependencies: Dependencies,
    pub(super) consequences: Consequences,
    /// The tasks of workflows, counted. Of each that is not final, and of some that are.
    pub(super) parts: HashMap<TaskId, Parts, IdHasher>,
    pub(super) draining: bool,
    /// What is leased now is from before a restart.
    pub(super) recovering: bool,
}

/// One step of a task: everything but what the engine fills in itself.
pub(super) struct Step {
    pub(super) task: Task,
    pub(super) event: Event,
    pub(super) note: Option<Box<str>>,
    pub(super) payload: Option<Json>,
    pub(super) result: Option<Json>,
}

impl Step {
    pub(super) fn new(task: Task, event: Event) -> Step {
        Step { task, event, note: None, payload: None, result: None }
    }

    pub(super) fn note(mut self, note: impl Into<Box<str>>) -> Step {
        self.note = Some(note.into());
        self
    }
}

impl Engine {
    /// An engine without tasks; `rev` is the last number given, `last_id` the youngest id.
    pub fn new(options: Options, rev: u64, last_id: Option<TaskId>, seed: u64) -> Engine {
        Engine {
            options,
            random: fastrand::Rng::with_seed(seed),
            ids: IdSource::above(last_id),
            rev,
            tasks: HashMap::default(),
            unfinished: 0,
            finals: VecDeque::new(),
            gone: HashSet::default(),
            lanes: Lanes::default(),
            groups: WorkerGroups::default(),
            timers: Timers::default(),
            journal: Journal::default(),
            workers: HashMap::new(),
            endings: HashMap::default(),
            leaving: Vec::new(),
            claims: HashMap::new(),
            served_at: HashMap::default(),
            keys: Keys::default(),
            settings: HashMap::new(),
            keyed: Keyed::default(),
            quotas: Quotas::default(),
            dependencies: Dependencies::default(),
            consequences: Consequences::default(),
            parts: HashMap::default(),
            draining: false,
            recovering: false,
        }
    }

    /// The number of the last step.
    pub fn rev(&self) -> u64 {
        self.rev
    }

    /// The record of a task that is at hand: every unfinished one, and some final ones.
    pub fn task(&self, task_id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&task_id)
    }

    /// Every task at hand, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// How many tasks are not final.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// The settings it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How many milliseconds until [`fire`](Self::fire) has something to do.
    pub fn next_in(&self, now: Now) -> Option<u64> {
        if self.consequences.is_empty() { self.timers.next_in(now) } else { Some(0) }
    }

    /// The tasks a command is about that are not at hand. Whoever drives the engine looks them up in the store,
    /// [`admit`](Self::admit)s those that exist, and asks again until it has looked for all: so a decision about old tasks is
    /// made from their records.
    pub fn absent(&self, command: &Command) -> Vec<TaskId> {
        let ids: &[TaskId] = match command {
            Command::Submit { submission, .. } => return submission.known().filter(|id| self.is_absent(*id)).collect(),
            Command::Retry { task_id, .. } if !self.is_absent(*task_id) => {
                let depends_on = self.tasks.get(task_id).into_iter().flat_map(|task| task.depends_on()).copied();
                return depends_on.chain(self.undone_with(*task_id)).filter(|id| self.is_absent(*id)).collect();
            }
            Command::Cancel { task_id, .. }
            | Command::CancelWaiting { task_id, .. }
            | Command::Retry { task_id, .. }
            | Command::Update { task_id, .. }
            | Command::Report { task_id, .. } => std::slice::from_ref(task_id),
            // With the workflows around them, which may need them.
            Command::Delete { task_id } => return self.absent_around(*task_id).into_iter().collect(),
            Command::Expire { task_ids } => return task_ids.iter().filter_map(|id| self.absent_around(*id)).collect(),
            _ => return Vec::new(),
        };
        ids.iter().copied().filter(|id| self.is_absent(*id)).collect()
    }

    pub(super) fn is_absent(&self, task_id: TaskId) -> bool {
        !self.tasks.contains_key(&task_id) && !self.gone.contains(&task_id)
    }

    /// Takes in a final task from the store. Ignored if it is at hand, deleted in this batch, or not final: every
    /// unfinished task is here.
    pub fn admit(&mut self, task: Task) {
        if task.status.is_final() && self.is_absent(task.task_id) {
            self.finals.push_back(task.task_id);
            self.tasks.insert(task.task_id, Arc::new(task));
        }
    }

    /// Lets go of final tasks beyond those kept at hand, and of workers that are gone. To be called between batches, when
    /// the store and the engine say the same: what a revert would bring back must still be here.
    pub fn shed(&mut self) {
        for task_id in self.gone.drain().filter(|task_id| !self.tasks.contains_key(task_id)) {
            self.parts.remove(&task_id);
        }
        self.journal.clear();
        self.quotas.round_over();
        self.consequences.round_over();
        self.forget_leaving();
        if !self.consequences.is_empty() {
            // They may ask how a task ended.
            return;
        }
        let mut kept = Vec::new();
        while self.finals.len() > FINALS_RESIDENT_MAX {
            let Some(task_id) = self.finals.pop_front() else { break };
            if !self.tasks.get(&task_id).is_some_and(|task| task.status.is_final()) {
                continue;
            }
            if self.parts.get(&task_id).is_some_and(Parts::has_open) {
                kept.push(task_id);
                continue;
            }
            self.parts.remove(&task_id);
            self.tasks.remove(&task_id);
        }
        self.finals.extend(kept);
    }

    /// Decides one command, with what follows. A refusal has changed nothing.
    pub fn decide(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let answer = self.decide_alone(command, cx);
        self.follow(cx);
        answer
    }

    fn decide_alone(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        match command {
            Command::Submit { submission, key } => self.submit(submission, key, cx),
            Command::Cancel { task_id, reason } => self.cancel(task_id, reason, cx),
            Command::CancelWaiting { task_id, reason } => {
                match self.tasks.get(&task_id).is_some_and(|task| task.status == Status::Running) {
                    true => Err(Refusal::TaskRunning),
                    false => self.cancel(task_id, Some(reason), cx),
                }
            }
            Command::CancelDelivered { task_id, attempt } => {
                self.cancel_delivered(task_id, attempt, cx);
                Ok(Answer::Done)
            }
            Command::Retry { task_id, payload } => self.retry(task_id, payload, cx),
            Command::Update { task_id, patch } => self.update(task_id, patch, cx),
            Command::Delete { task_id } => self.delete(task_id, cx).map(|()| Answer::Done),
            Command::Expire { task_ids } => {
                let gone = task_ids.iter().filter(|id| self.delete(**id, cx).is_ok()).count();
                Ok(Answer::Count(gone))
            }
            Command::Hello(hello) => Ok(self.hello(hello, cx)),
            Command::Left { worker_id, session } => {
                self.left(&worker_id, session, cx.now);
                Ok(Answer::Done)
            }
            Command::Heard { worker_id } => {
                self.heard(&worker_id, cx.now);
                Ok(Answer::Done)
            }
            Command::Retire { worker_id, session } => {
                self.retire(&worker_id, session);
                Ok(Answer::Done)
            }
            Command::Claim { worker_id, accepts, max, lease_ms, ticket } => {
                self.claim(worker_id, accepts, max, lease_ms, ticket, cx.now)
            }
            Command::Unclaim { ticket } => {
                self.unclaim(ticket);
                Ok(Answer::Done)
            }
            Command::Report { task_id, attempt, report } => self.report(task_id, attempt, report, cx),
            Command::SetQueue { name, settings } => self.set_queue(name, settings, cx),
            Command::UnsetQueue { name } => {
                self.unset_queue(name, cx);
                Ok(Answer::Done)
            }
            Command::PauseQueue { name, paused } => self.pause_queue(name, paused, cx),
            Command::SetLimits { limits } => self.set_limits(limits, cx),
            Command::Drain => {
                self.draining = true;
                self.dismiss_claims(cx);
                Ok(Answer::Count(self.running()))
            }
            Command::GiveBack => Ok(Answer::Count(self.give_back_all(cx))),
            Command::Workers => Ok(Answer::Workers(self.worker_states())),
            Command::WaitsFor { task_id } => Ok(Answer::Waits(self.waits_for(task_id, cx.now))),
        }
    }

    /// Does what is due at this moment or after this wait, at most `steps_max` times; more wait for the next call.
    pub fn fire(&mut self, cx: &mut Cx<'_>, steps_max: usize) {
        for _ in 0..steps_max {
            let Some(alarm) = self.timers.due(cx.now) else { break };
            self.go_off(alarm, cx);
        }
        self.follow(cx);
    }

    /// Ends what has taken too long and takes tasks from those who were silent too long, at most `steps_max` times; more
    /// wait for the next call. To be called once all that was said before has been decided.
    pub fn judge(&mut self, cx: &mut Cx<'_>, steps_max: usize) {
        for _ in 0..steps_max {
            let Some(alarm) = self.timers.due_to_judge(cx.now) else { break };
            self.go_off(alarm, cx);
        }
        self.follow(cx);
    }

    /// An alarm is due. It is cleared, unless its rule has set it for another time.
    fn go_off(&mut self, alarm: Alarm, cx: &mut Cx<'_>) {
        let at = self.timers.at(&alarm);
        match &alarm {
            Alarm::Due(task_id) => self.make_ready(*task_id, cx),
            Alarm::Worker(worker_id) => self.check_worker(worker_id, cx),
            Alarm::Timeout(task_id) => self.time_out(*task_id, cx),
            Alarm::Unserved(task_id) => self.check_served(*task_id, cx),
            Alarm::Silence(task_id) => self.check_silence(*task_id, cx),
            Alarm::CancelGrace(task_id) => self.cancel_ignored(*task_id, cx),
            Alarm::Deadline(task_id) => self.deadline_over(*task_id, cx),
            Alarm::StartBy(task_id) => self.never_started(*task_id, cx),
        }
        if self.timers.at(&alarm) == at {
            self.timers.clear(&alarm);
        }
    }

    fn make_ready(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let mut task = Task::clone(&self.tasks[&task_id]);
        task.status = Status::Pending;
        task.delayed = false;
        self.step(Some(task_id), Step::new(task, Event::Pending), cx);
    }

    /// Gives ready tasks to free slots until one of the two runs out, at most `tasks_max`. Returns whether it stopped
    /// for that bound.
    pub fn assign(&mut self, cx: &mut Cx<'_>, tasks_max: usize) -> bool {
        let mut left = tasks_max;
        while !self.draining && left > 0 && self.assign_one(cx) {
            left -= 1;
        }
        self.answer_claims(cx);
        self.follow(cx);
        left == 0
    }

    fn assign_one(&mut self, cx: &mut Cx<'_>) -> bool {
        let Some((task_id, slot)) = self.groups.next() else { return false };
        let slot = slot.clone();
        let (worker_id, lease_ms) = match &slot {
            Slot::Worker(worker_id) => (worker_id.clone(), None),
            Slot::Claim(ticket) => (self.claims[ticket].worker_id.clone(), self.claims[ticket].lease_ms),
        };
        let mut task = Task::clone(&self.tasks[&task_id]);
        task.status = Status::Running;
        task.attempt += 1;
        task.tries += 1;
        task.run = Some(Box::new(Run {
            started_at: Some(cx.now.at),
            worker_id: Some(worker_id.clone()),
            lease_ms,
            ..Run::default()
        }));
        let task = self.step(Some(task_id), Step::new(task, Event::Running), cx);
        self.lanes.serve(&task, &mut self.groups);
        match slot {
            Slot::Worker(worker_id) => cx.batch.notices.push(Notice::Run { worker_id, task }),
            Slot::Claim(ticket) => self.give_to_claim(ticket, task, cx.now),
        }
        true
    }

    /// Makes a step: the next `rev`, the indexes, the change. The one place where a task gets a new record.
    pub(super) fn step(&mut self, prev: Option<TaskId>, step: Step, cx: &mut Cx<'_>) -> Arc<Task> {
        let Step { mut task, event, note, payload, result } = step;
        let prev = prev.map(|id| self.tasks[&id].clone());
        debug_assert!(
            prev.as_ref().is_none_or(|prev| prev.status.may_become(task.status)),
            "{:?} may not become {:?}",
            prev.map(|prev| prev.status),
            task.status
        );
        self.rev += 1;
        task.rev = self.rev;
        task.updated_at = prev.as_ref().map_or(cx.now.at, |prev| prev.updated_at.max(cx.now.at));
        let task = Arc::new(task);
        self.replace(prev.as_ref(), Some(&task), cx.now);
        cx.batch.changes.push(Change {
            rev: self.rev,
            at: task.updated_at,
            kind: ChangeKind::Transition(event),
            prev,
            task: task.clone(),
            note,
            payload,
            result,
        });
        let before = cx.batch.changes.last().and_then(|change| change.prev.clone());
        self.tell_others(before.as_deref(), &task);
        task
    }

    /// What follows from a step for other tasks is looked at later.
    fn tell_others(&mut self, before: Option<&Task>, task: &Task) {
        let was = before.map(|before| before.status);
        if task.status == Status::Waiting && was != Some(Status::Waiting) {
            self.consequences.push(self.rev, Consequence::Waits(task.task_id));
        }
        let ended = task.status.is_final() && was.is_some_and(|was| !was.is_final());
        if ended || before.is_some_and(is_shut) && !is_shut(task) {
            self.tell_dependents(task);
        }
        if task.ties().is_some() {
            self.tell_workflow(before, task);
        }
    }

    fn delete(&mut self, task_id: TaskId, cx: &mut Cx<'_>) -> Result<(), Refusal> {
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?.clone();
        let has_open = self.parts.get(&task_id).is_some_and(Parts::has_open);
        if !task.status.is_final() || has_open || self.is_needed(&task) || self.is_still_told(task_id) {
            return Err(Refusal::TaskNotFinished);
        }
        self.rev += 1;
        self.replace(Some(&task), None, cx.now);
        self.gone.insert(task_id);
        cx.batch.changes.push(Change {
            rev: self.rev,
            at: cx.now.at,
            kind: ChangeKind::Gone,
            prev: Some(task.clone()),
            task,
            note: None,
            payload: None,
            result: None,
        });
        Ok(())
    }

    /// Takes back everything a batch changed, because it could not be made durable. Claims that it answered stay
    /// answered: whoever waits for them is told.
    pub fn revert(&mut self, batch: Batch, now: Now) {
        self.take_back(&mut { batch.changes }, &mut { batch.settings }, (0, 0), now);
        self.quotas.take_back(0);
        for key in &batch.keys {
            self.keys.forget(key.key);
        }
    }

    /// Takes back what follows the first so many changes of tasks and of settings, the newest first.
    pub(super) fn take_back(
        &mut self,
        changes: &mut Vec<Change>,
        settings: &mut Vec<SettingChange>,
        (keep_changes, keep_settings): (usize, usize),
        now: Now,
    ) {
        loop {
            let change = changes.get(keep_changes..).and_then(|rest| rest.last()).map(|change| change.rev);
            let setting = settings.get(keep_settings..).and_then(|rest| rest.last()).map(|change| change.rev);
            let Some(rev) = change.max(setting) else { break };
            if change == Some(rev)
                && let Some(change) = changes.pop()
            {
                let next = (change.kind != ChangeKind::Gone).then_some(&change.task);
                self.replace(next, change.prev.as_ref(), now);
                // Its number is given again.
                self.journal.take(rev);
            } else if let Some(SettingChange { id, prev, .. }) = settings.pop() {
                self.put_setting(id, prev);
            }
            self.rev = rev - 1;
        }
        self.consequences.take_back(self.rev);
    }

    /// Puts one record in the place of another, in the map and in every index.
    pub(super) fn replace(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>, now: Now) {
        let before = old.map(|old| self.unindex(old)).unwrap_or_default();
        let holds = |task: Option<&Arc<Task>>| task.is_some_and(|task| !task.status.is_final());
        let shut = |task: Option<&Arc<Task>>| task.is_some_and(|task| is_shut(task));
        if let Some(new) = new {
            let mut private = self.journal.take(new.rev).unwrap_or_default();
            if let Some(old) = old {
                private.carry_over(&before, old, new);
            }
            self.tasks.insert(new.task_id, new.clone());
            self.index(new, private, now);
        } else if let Some(old) = old {
            self.tasks.remove(&old.task_id);
        }
        if let Some(task) = new.or(old)
            && (holds(old) != holds(new) || shut(old) != shut(new))
        {
            let Engine { dependencies, tasks, .. } = self;
            dependencies.changed(task.task_id, |dependent| {
                let is_part = tasks.get(&dependent).is_some_and(|it| it.workflow_id() == Some(task.task_id));
                let (was, is) = if is_part { (shut(old), shut(new)) } else { (holds(old), holds(new)) };
                (was != is).then_some(is)
            });
        }
        // The counts of one that is deleted are needed again if that is taken back.
        if let Some(old) = old.filter(|old| new.is_none() && old.is_workflow() && !old.status.is_final()) {
            self.parts.remove(&old.task_id);
        }
        if let Some(old) = old {
            self.journal.keep(old.rev, before);
        }
    }

    fn index(&mut self, task: &Arc<Task>, private: Private, now: Now) {
        if let Some(parts) = task.workflow_id().and_then(|workflow_id| self.parts.get_mut(&workflow_id)) {
            parts.insert(task);
        }
        if task.status.is_final() {
            return self.finals.push_back(task.task_id);
        }
        self.unfinished += 1;
        if task.is_workflow() {
            self.parts.entry(task.task_id).or_default();
        } else {
            self.keyed.insert(task);
            self.quotas.insert(task);
        }
        self.set_deadlines(task, &private, now);
        match task.status {
            Status::Pending | Status::Running if task.is_workflow() => {}
            Status::Pending => {
                self.lanes.insert(task, private.turn, &mut self.groups);
                self.expect_service(task, private.served_at, now);
            }
            Status::Scheduled => self.schedule(task, private.wait_ends, now),
            Status::Running => {
                self.lanes.begin(task, &mut self.groups);
                self.lease(task, private.lease, now);
            }
            Status::Waiting => {
                let tasks = &self.tasks;
                self.dependencies.insert(task, |id| tasks.get(&id).is_some_and(|other| other.holds(task)));
            }
            Status::Completed | Status::Failed | Status::Cancelled => unreachable!("it is not final"),
        }
    }

    fn unindex(&mut self, task: &Arc<Task>) -> Private {
        let mut private = Private::default();
        if let Some(parts) = task.workflow_id().and_then(|workflow_id| self.parts.get_mut(&workflow_id)) {
            parts.remove(task);
        }
        if task.status.is_final() {
            return private;
        }
        self.unfinished -= 1;
        if !task.is_workflow() {
            self.keyed.remove(task);
            self.quotas.remove(task);
        }
        self.clear_deadlines(task, &mut private);
        match task.status {
            Status::Pending | Status::Running if task.is_workflow() => {}
            Status::Pending => {
                private.turn = self.lanes.remove(task, &mut self.groups);
                private.served_at = self.end_service(task);
            }
            Status::Scheduled => private.wait_ends = self.unschedule(task),
            Status::Running => {
                private.lease = self.unlease(task);
                self.lanes.end(task, &mut self.groups);
            }
            Status::Waiting => self.dependencies.remove(task),
            Status::Completed | Status::Failed | Status::Cancelled => {}
        }
        private
    }

    /// A task waits for a moment, or for the end of a wait. After a restart the record is all that is known of a wait; its
    /// times never go back, so what is left is no more than the wait.
    fn schedule(&mut self, task: &Task, wait_ends: Option<u64>, now: Now) {
        let run_at = task.run_at.unwrap_or_default();
        let at = match task.delayed {
            true => At::Mono(wait_ends.unwrap_or_else(|| now.mono + run_at.millis_since(now.at))),
            false => At::Wall(run_at),
        };
        self.timers.set(Alarm::Due(task.task_id), at);
    }

    /// When a scheduled task becomes ready, as the wall clock will show it if nobody sets it.
    pub(super) fn ready_at(&self, task: &Task, now: Now) -> Timestamp {
        match self.timers.at(&Alarm::Due(task.task_id)) {
            Some(At::Wall(at)) => at,
            Some(At::Mono(at)) => now.wall.plus_millis(at.saturating_sub(now.mono)),
            Some(At::Lived(_)) | None => now.wall,
        }
    }

    fn unschedule(&mut self, task: &Task) -> Option<u64> {
        self.timers.clear(&Alarm::Due(task.task_id)).and_then(At::wait_ends)
    }

    fn running(&self) -> usize {
        self.workers.values().map(|worker| worker.running.len()).sum()
    }

    /// How many workers it knows of: as many as [`Command::Workers`] lists.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    fn worker_states(&self) -> Vec<WorkerState> {
        let mut asked = HashMap::new();
        for claim in self.claims.values() {
            *asked.entry(&claim.worker_id).or_default() += claim.open();
        }
        let asked = |worker_id: &Name| asked.get(worker_id).copied().unwrap_or(0);
        let mut states: Vec<_> =
            self.workers.iter().map(|(worker_id, worker)| worker.state(&self.tasks, asked(worker_id))).collect();
        states.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        states
    }
}

/// Carries the newest tick of a running task into the record that follows.
pub(super) fn keep_progress(task: &mut Task, ticks: &dyn Ticks) {
    if let Some(tick) = ticks.newest(task.task_id) {
        task.run.get_or_insert_default().progress = Some(tick);
    }
}

/// A task that reported progress and completed is at 100 percent.
pub(super) fn full_progress(progress: &Json) -> Option<Json> {
    let mut progress: Progress = progress.to().ok()?;
    progress.percentage = Some(100.0);
    progress.eta_ms = None;
    Json::of(&progress).ok()
}

/// Nothing has ticked: for restarts and tests.
impl Ticks for () {
    fn newest(&self, _: TaskId) -> Option<Json> {
        None
    }

    fn spoke(&self, _: TaskId, _: u32) -> Option<u64> {
        None
    }

    fn result(&self, _: TaskId) -> Result<Option<Json>, NotNow> {
        Ok(None)
    }
}

/// When, in time that the hub lives through, something ends that is written down as begun at `since`.
pub(super) fn lived_of(since: Timestamp, after_ms: u64, now: Now) -> u64 {
    (now.lived + after_ms).saturating_sub(now.at.millis_since(since))
}
