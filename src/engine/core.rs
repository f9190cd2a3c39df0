//! The engine's state, and the few ways it may change.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::settings::{Setting, SettingId, SettingKind, TaskTypes};
use crate::task::{Entropy, Event, IdHasher, IdSource, Json, Name, Progress, Run, Status, Task, TaskId, Timestamp};

use super::claims::Claim;
use super::conflicts::Keyed;
use super::consequences::Consequences;
use super::dependencies::Dependencies;
use super::groups::{Slot, WorkerGroups};
use super::keys::Keys;
use super::lanes::Lanes;
use super::leases::Ending;
use super::private::Journal;
use super::quotas::Quotas;
use super::rates::Rates;
use super::schedules::Unfinished;
use super::timers::{Alarm, Timers};
use super::unique::Holders;
use super::workers::Worker;
use super::workflows::Parts;
use super::{Answer, Command, Cx, NotNow, Notice, Now, Refusal, Ticks, WorkerState};

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

/// The whole state that decisions are made from.
pub struct Engine {
    pub(super) options: Options,
    pub(super) random: fastrand::Rng,
    pub(super) ids: IdSource,
    /// Of ids; else `random`.
    pub(super) entropy: Option<Box<dyn Entropy + Send>>,
    pub(super) rev: u64,
    pub(super) tasks: HashMap<TaskId, Arc<Task>, IdHasher>,
    pub(super) unfinished: usize,
    /// Final tasks in `tasks`, in the order they came.
    pub(super) finals: VecDeque<TaskId>,
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
    pub(super) set_counts: HashMap<SettingKind, usize>,
    pub(super) types: TaskTypes,
    pub(super) keyed: Keyed,
    pub(super) holders: Holders,
    pub(super) quotas: Quotas,
    pub(super) rates: Rates,
    pub(super) dependencies: Dependencies,
    pub(super) consequences: Consequences,
    /// The tasks of workflows, counted. Of each that is not final, and of some that are.
    pub(super) parts: HashMap<TaskId, Parts, IdHasher>,
    pub(super) scheduled: Unfinished,
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
            entropy: None,
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
            set_counts: HashMap::new(),
            types: TaskTypes::default(),
            keyed: Keyed::default(),
            holders: Holders::default(),
            quotas: Quotas::default(),
            rates: Rates::default(),
            dependencies: Dependencies::default(),
            consequences: Consequences::default(),
            parts: HashMap::default(),
            scheduled: Unfinished::default(),
            draining: false,
            recovering: false,
        }
    }

    /// Takes what is random in ids from here from now on. What is drawn by the seed is known to whoever has seen enough of it.
    pub fn draw_ids_from(&mut self, entropy: Box<dyn Entropy + Send>) {
        self.entropy = Some(entropy);
    }

    /// The id of a new task.
    pub(super) fn next_id(&mut self, now: Timestamp) -> TaskId {
        match &mut self.entropy {
            Some(entropy) => self.ids.next(now, &mut **entropy),
            None => self.ids.next(now, &mut self.random),
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
                // A workflow stands in no queue.
                match self.tasks.get(&task_id).is_some_and(|task| task.status == Status::Running || task.is_workflow())
                {
                    true => Err(Refusal::TaskRunning),
                    false => self.cancel(task_id, Some(reason), cx),
                }
            }
            Command::CancelDelivered { task_id, attempt } => {
                self.cancel_delivered(task_id, attempt, cx);
                Ok(Answer::Done)
            }
            Command::Retry { task_id, payload } => {
                let payload = self.fitted(payload)?;
                self.retry(task_id, payload, cx)
            }
            Command::Update { task_id, patch, types } => {
                if patch.payload.is_some() {
                    self.check_types(types)?;
                }
                self.update(task_id, patch, cx)
            }
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
            Command::SetSchedule { name, spec } => self.set_schedule(name, spec, cx),
            Command::UnsetSchedule { name } => self.unset_schedule(name, cx),
            Command::PauseSchedule { name, paused, author } => self.pause_schedule(name, paused, author, cx),
            Command::StopSchedule { name, author, reason } => Ok(self.stop_schedule(name, author, reason, cx)),
            Command::RunSchedule { name } => self.run_schedule(name, cx),
            Command::SetTaskType { name, task_type } => self.set_task_type(name, task_type, cx),
            Command::UnsetTaskType { name } => self.unset_task_type(name, cx),
            Command::Drain => {
                self.draining = true;
                self.dismiss_claims(cx);
                Ok(Answer::Count(self.running()))
            }
            Command::GiveBack => Ok(Answer::Count(self.give_back_all(cx))),
            Command::Workers => Ok(Answer::Workers(self.worker_states())),
            Command::WaitsFor { task_id } => Ok(Answer::Waits(self.waits_for(task_id, cx.now))),
            Command::InUse { user, queues } => Ok(Answer::InUse(self.in_use(&user, &queues, cx.now))),
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
            Alarm::Rate(window) => self.look_at_window(*window, cx.now),
            Alarm::StartBy(task_id) => self.never_started(*task_id, cx),
            Alarm::Schedule(name) => self.make_due(name, cx),
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
        if let Some((limit, rate)) = self.lanes.serve(&task, &mut self.groups) {
            self.count_hand_out(&task, limit, rate, cx);
        }
        match slot {
            Slot::Worker(worker_id) => cx.batch.notices.push(Notice::Run { worker_id, task }),
            Slot::Claim(ticket) => self.give_to_claim(ticket, task, cx.now),
        }
        true
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
