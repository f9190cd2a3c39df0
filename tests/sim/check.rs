//! The other account of what happens, and the promises it is held against.
//!
//! The checker is told of every command as it is decided, of every commit and of every reply. It keeps its own picture:
//! the record of every task as decided so far, who holds what, who was heard of when. It never asks the engine what should
//! be; it says what should be, from the contract, and compares.
//!
//! * Every step is one of the table, fills in exactly what it should, and has a cause: the command it came with, or a
//!   timer that was due on the clock it belongs to. What is due has happened when the timers have fired.
//! * `rev` has no holes, `updated_at` and attempts never go back, ids grow, one run ends once.
//! * A hand-out is the best task for that slot, and of all slots that take the task to the emptiest; no slot and task
//!   that fit each other are left.
//! * A refusal has changed nothing, and was right. Nothing is answered that is not in the store.
//! * After a failed commit the engine is what the store says.
//! * What was acknowledged is there in the end, or was deleted by somebody.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use taskhub::engine::{
    Accepts, Answer, Batch, Command, Engine, Fitted, Hello, Link, Notice, Now, Options, Quota, Refusal, Report,
};
use taskhub::settings::{QueueSettings, Setting, SettingChange, SettingId, SettingKind, SettingValue};
use taskhub::task::{
    AHEAD_MAX, By, Cancel, Change, ChangeKind, Event, IdHasher, Json, KeyEntry, Name, NewTask, OnConflict, Outcome,
    RESULT_INLINE_BYTES, Run, Status, Task, TaskId, TaskPatch, Timestamp, WaitsFor, item_of,
};

use super::callbacks::Owed;
use super::gather::Lists;
use super::rates::{Rates, Saved};
use super::rules::{Ready, Rules};
use super::ties::{Stand, is_consequence};
use super::unique::Kinds;
use super::workflows;
use super::world::{Live, Store};

mod due;

pub struct Checker {
    pub(super) options: Options,
    /// Every task as decided, ahead of the store.
    pub(super) tasks: HashMap<TaskId, Arc<Task>, IdHasher>,
    /// Those that are not final.
    open: BTreeMap<TaskId, Arc<Task>>,
    /// Ready tasks of each queue and type: the smaller, the sooner.
    ready: Ready,
    /// What is set.
    rules: Rules,
    pub rates: Rates,
    /// Every timer that was due has gone off in this round.
    all_fired: bool,
    pub(super) settings: BTreeMap<SettingId, Arc<Setting>>,
    /// Who holds which attempts.
    held: BTreeMap<Name, BTreeMap<TaskId, u32>>,
    rev: u64,
    youngest: Option<TaskId>,
    keys: HashMap<u128, KeyEntry>,
    stations: BTreeMap<Name, Station>,
    claims: BTreeMap<u64, Claim>,
    draining: bool,
    /// When a wait is over that was asked for as so long, on the monotonic count: not before the one and not after the other.
    waits: HashMap<(TaskId, u64), (u64, u64), IdHasher>,
    /// Since when a task is ready, and since when no worker was there for it, in time that the hub lived through.
    unserved: HashMap<TaskId, (u64, u64), IdHasher>,
    /// The newest time that was written down, and the last that was decided at.
    last_at: Timestamp,
    lived: u64,
    /// When an attempt is to time out, in time that the hub lived through.
    timeouts: HashMap<(TaskId, u32), u64, IdHasher>,
    /// When deadlines that are waits are over, on the monotonic count, by what their records say: not before the one and not
    /// after the other.
    bys: HashMap<(TaskId, Timestamp), (u64, u64)>,
    /// Until when an attempt may take to stop that was asked to, in time that the hub lived through.
    stop_by: HashMap<(TaskId, u32), u64, IdHasher>,
    /// When an attempt began to be silent if it has reported nothing since, in time that the hub lived through.
    quiet_since: HashMap<(TaskId, u32), u64, IdHasher>,
    /// When a running attempt was last spoken of.
    signs: HashMap<(TaskId, u32), Sign, IdHasher>,
    /// How attempts ended, as decided; not those that were released.
    ends: HashMap<(TaskId, u32), End, IdHasher>,
    /// What this round decided, to be forgotten if its commit fails.
    undecided: Vec<Undo>,
    rounds: usize,
    /// Finals since the last retry by hand, as committed.
    acknowledged: Vec<Promise>,
    given: HashSet<(TaskId, u32), IdHasher>,
    /// What tasks are to be the only ones of, by what was submitted.
    pub(super) kinds: Kinds,
    pub(super) lists: Lists,
    pub owed: Owed,
    /// Whether it has been looked, since the last restart or failed commit, at what was to follow from the steps before it.
    pub has_looked: bool,
    /// The due times of schedules that have their tasks.
    due_made: BTreeMap<Name, BTreeSet<Timestamp>>,
    /// Until when a schedule does nothing, since there was too much to do or no room.
    held_up: BTreeMap<Name, Timestamp>,
}

/// A worker, as the hub should see it.
struct Station {
    accepts: Accepts,
    concurrency: u32,
    link: Link,
    session: u64,
    retiring: bool,
    last_heard: u64,
    /// While it is away: when its tasks are lost.
    away_until: u64,
    silent: bool,
    ending: BTreeSet<(TaskId, u32)>,
}

/// What is known of a running attempt beside its record.
#[derive(Clone, Copy)]
struct Sign {
    heard: u64,
    /// It is from before a restart, and its worker has not said anything of it since.
    restored: bool,
}

struct Claim {
    worker_id: Name,
    accepts: Accepts,
    wanted: u32,
    /// What it asked for beyond the hub's own.
    lease_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
    Cancelled,
    /// By no report: it took too long, or was lost.
    ByHub,
}

enum Undo {
    Task(TaskId, Option<Arc<Task>>, Stood),
    Setting(SettingId, Option<Arc<Setting>>),
    Rate(Saved),
    Key(u128, Option<KeyEntry>),
    End((TaskId, u32)),
    Made(Name, Timestamp),
    Forgot(Name, BTreeSet<Timestamp>),
}

/// How a ready task stood: the turn of its party, and since when no worker was there for it.
#[derive(Clone, Copy, Default)]
struct Stood {
    turn: Option<u64>,
    unserved: Option<(u64, u64)>,
}

/// What somebody was told.
enum Promise {
    Submitted(TaskId),
    Completed(TaskId, u32, Json),
    Deleted(TaskId),
}

/// Why an attempt was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Crash,
    GivenBack,
}

impl Checker {
    pub fn new(options: Options) -> Checker {
        Checker {
            options,
            tasks: HashMap::default(),
            open: BTreeMap::new(),
            ready: BTreeMap::new(),
            rules: Rules::default(),
            rates: Rates::default(),
            all_fired: true,
            settings: BTreeMap::new(),
            held: BTreeMap::new(),
            rev: 0,
            youngest: None,
            keys: HashMap::new(),
            stations: BTreeMap::new(),
            claims: BTreeMap::new(),
            draining: false,
            waits: HashMap::default(),
            unserved: HashMap::default(),
            last_at: Timestamp::default(),
            lived: 0,
            timeouts: HashMap::default(),
            bys: HashMap::default(),
            stop_by: HashMap::default(),
            quiet_since: HashMap::default(),
            signs: HashMap::default(),
            ends: HashMap::default(),
            undecided: Vec::new(),
            rounds: 0,
            acknowledged: Vec::new(),
            given: HashSet::default(),
            kinds: Kinds::default(),
            lists: Lists::default(),
            owed: Owed::default(),
            has_looked: true,
            due_made: BTreeMap::new(),
            held_up: BTreeMap::new(),
        }
    }

    pub(super) fn rev(&self) -> u64 {
        self.rev
    }

    pub fn unfinished(&self) -> usize {
        self.open.len()
    }

    pub fn unfinished_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.open.values()
    }

    pub fn running(&self) -> usize {
        self.held.values().map(BTreeMap::len).sum()
    }

    // What is decided.

    #[expect(clippy::too_many_arguments, reason = "everything there is to know of a decision")]
    pub fn decided(
        &mut self,
        command: &Command,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        settings: &[SettingChange],
        notices: &[Notice],
        now: Now,
        live: &Live,
    ) {
        self.lived = now.lived;
        self.rates.at(now);
        // Consequences come at the end.
        let own = changes.iter().take_while(|change| !is_consequence(change)).count();
        let (changes, followed) = changes.split_at(own);
        let (notices, stops) = split(notices);
        self.decided_alone(command, result, changes, settings, &notices, now, live);
        self.follow(followed, stops, now, live);
    }

    /// What follows from the steps before.
    fn follow(&mut self, changes: &[Change], mut stops: Vec<Notice>, now: Now, live: &Live) {
        changes.iter().for_each(|change| self.followed(change, &mut stops, now, live));
        assert!(stops.is_empty(), "workers were told to stop for nothing: {stops:?}");
    }

    #[expect(clippy::too_many_arguments, reason = "everything there is to know of a decision")]
    fn decided_alone(
        &mut self,
        command: &Command,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        settings: &[SettingChange],
        notices: &[Notice],
        now: Now,
        live: &Live,
    ) {
        if result.is_err() {
            let nothing = changes.is_empty() && settings.is_empty() && notices.is_empty();
            assert!(nothing, "a refusal changed something: {command:?} {changes:?}");
        }
        if !matches!(
            command,
            Command::SetQueue { .. }
                | Command::UnsetQueue { .. }
                | Command::PauseQueue { .. }
                | Command::SetLimits { .. }
                | Command::SetSchedule { .. }
                | Command::UnsetSchedule { .. }
                | Command::PauseSchedule { .. }
                | Command::StopSchedule { .. }
                | Command::RunSchedule { .. }
                | Command::SetTaskType { .. }
                | Command::UnsetTaskType { .. }
        ) {
            assert!(settings.is_empty(), "{command:?} set something");
        }
        match command {
            Command::Submit { submission, key } => {
                let tasks = submission.tasks();
                let entry = key.and_then(|key| Some((self.keys.get(&key.key)?.clone(), key.body)));
                let entry = entry.filter(|(entry, _)| entry.expires_at > now.at);
                match (result, entry) {
                    (Ok(Answer::Replayed { task_ids, existing }), Some((entry, body))) => {
                        assert_eq!((task_ids, body), (&entry.tasks, entry.body), "a key brought back something else");
                        assert_eq!(existing, &entry.existing, "it is answered as the first time");
                        assert!(changes.is_empty());
                    }
                    (Err(Refusal::IdempotencyConflict), Some((entry, body))) => assert_ne!(entry.body, body),
                    (_, Some(_)) => panic!("a key was used again, and the answer is {result:?}"),
                    (Err(Refusal::TypesChanged), None) => {
                        assert!(!self.draining && self.is_of_other_types(submission.types()).is_some());
                    }
                    (Err(Refusal::PayloadInvalid(faults)), None) => {
                        assert!(!self.draining && self.is_of_other_types(submission.types()).is_none());
                        assert!(!faults.is_empty() && tasks.iter().any(|new| self.is_unfit(new)));
                    }
                    (Ok(Answer::Submitted { tasks: created, existing }), None) => {
                        assert_eq!(self.is_of_other_types(submission.types()), None);
                        for ((own, new), task) in submission.own().iter().zip(tasks).zip(created) {
                            assert_eq!(*new, self.with_defaults(own, task.is_workflow()));
                            assert!(task.is_workflow() || !self.is_unfit(new), "its payload does not fit: {new:?}");
                        }
                        let made = tasks.len() - existing.len();
                        // Of those that may be there already each is counted when it comes, behind those that made way.
                        let each = tasks.iter().any(|new| new.unique.is_some() || new.gather.is_some());
                        assert!(!self.draining && (each || self.open.len() + made <= self.options.tasks_max));
                        assert_eq!(tasks.len(), created.len());
                        let (mut changes, mut notices) = (changes, notices);
                        assert!(self.knows_all(submission), "a task depends on one that is not there");
                        self.is_tied(submission, created);
                        let is_new = |(place, _): &(usize, &Arc<Task>)| !existing.contains(&(*place as u32));
                        let new_ones = created.iter().enumerate().filter(is_new).map(|(_, task)| task.task_id);
                        let new_ones: BTreeSet<TaskId> = new_ones.collect();
                        let is_workflow = created.first().is_some_and(|task| task.is_workflow());
                        for (place, (new, task)) in tasks.iter().zip(created).enumerate() {
                            let open = self.gathers(new, &mut changes, now);
                            let met = self.meets(new, now).or(open.clone());
                            assert_eq!(met.is_some(), existing.contains(&(place as u32)), "{new:?} met {met:?}");
                            if let Some(open) = open {
                                self.is_gathered(new, &open, task, &mut changes, now);
                                continue;
                            }
                            if let Some(holder) = met {
                                self.is_held(new, &holder, task, &mut changes, now);
                                continue;
                            }
                            if !is_workflow {
                                assert_eq!(task.depends_on(), self.names(new, submission, created));
                            }
                            assert_eq!(task.on_dependency_failure(), new.on_dependency_failure.unwrap_or_default());
                            self.makes_way(new, &mut changes, &mut notices, now, live);
                            let change = changes.split_off_first().expect("each task is created");
                            assert!(Arc::ptr_eq(task, &change.task) && task.schedule().is_none());
                            let stand = match task.depends_on().iter().any(|id| new_ones.contains(id)) {
                                true => Stand::Held,
                                false => self.stand(task),
                            };
                            self.created(new, stand, change, now);
                        }
                        assert!(changes.is_empty() && notices.is_empty(), "more came of it: {changes:?} {notices:?}");
                        assert!(made == 0 || self.open.len() <= self.options.tasks_max);
                        if let Some(key) = key {
                            let tasks = created.iter().map(|task| task.task_id).collect();
                            let expires_at = now.at.plus_millis(self.options.key_ms);
                            let existing = existing.clone();
                            let entry = KeyEntry { key: key.key, body: key.body, tasks, existing, expires_at };
                            let before = self.keys.insert(key.key, entry);
                            self.undecided.push(Undo::Key(key.key, before));
                        }
                    }
                    (Err(Refusal::Draining), None) => assert!(self.draining),
                    (Err(Refusal::Invalid(invalid)), None) => {
                        assert!(invalid.field.contains("depends_on[") && !self.knows_all(submission), "{invalid}");
                    }
                    (Err(Refusal::KeyHeld(holder)), None) => self.is_rejected(tasks, *holder, now),
                    (Err(Refusal::KeyTaken), None) => match tasks {
                        [new] => assert!(self.conflicts(new).is_some_and(|own| own.is_none()), "its key is not taken"),
                        tasks => assert!(tasks.iter().any(|new| new.on_conflict == Some(OnConflict::Reject))),
                    },
                    (Err(Refusal::Quota(quota)), None) => {
                        let limits = tasks.iter().filter_map(|new| new.user_id.as_deref());
                        let limits: Vec<_> = limits.map(|user| self.rules.limits().of(user)).collect();
                        assert!(match quota {
                            Quota::Waiting { limit } => limits.iter().any(|it| it.waiting == Some(*limit)),
                            Quota::SubmitsPerMin { limit, retry_after_ms } => {
                                *retry_after_ms <= 60_100 && limits.iter().any(|it| it.submits_per_min == Some(*limit))
                            }
                        });
                        if let ([new], Quota::Waiting { limit }) = (tasks, quota) {
                            assert!(self.waiting_of(new.user_id.as_deref()) >= *limit as usize);
                        }
                    }
                    (Err(Refusal::Full), None) => assert!(self.open.len() + tasks.len() > self.options.tasks_max),
                    other => panic!("a submission is answered by {other:?}"),
                }
            }
            Command::Cancel { task_id, reason } => {
                self.cancelled(*task_id, reason, result, changes, notices, now, live)
            }
            Command::CancelWaiting { task_id, reason } => {
                match self.tasks.get(task_id).is_some_and(|task| task.status == Status::Running || task.is_workflow()) {
                    true => assert_eq!(result.as_ref().err(), Some(&Refusal::TaskRunning)),
                    false => {
                        self.cancelled(*task_id, &Some(reason.clone()), result, changes, notices, now, live);
                    }
                }
            }
            Command::Update { patch, types, .. }
                if patch.payload.is_some() && self.is_of_other_types(*types).is_some() =>
            {
                assert_eq!(result.as_ref().err(), self.is_of_other_types(*types).as_ref());
            }
            Command::Update { task_id, patch, .. } => self.updated(*task_id, patch, result, changes, now),
            Command::SetTaskType { name, task_type } => {
                let value = SettingValue::TaskType(task_type.clone());
                self.is_set((SettingKind::TaskType, name.clone()), value, result, settings, now);
            }
            Command::UnsetTaskType { name } => {
                let id = (SettingKind::TaskType, name.clone());
                if !self.settings.contains_key(&id) {
                    return assert_eq!(result.as_ref().err(), Some(&Refusal::TaskTypeNotFound));
                }
                let [change] = settings else { panic!("one setting was to go, not {settings:?}") };
                assert!(change.next.is_none() && change.id == id && matches!(result, Ok(Answer::Done)));
                self.put_setting(change);
            }
            Command::Retry { payload: Some(Fitted { types, .. }), .. } if self.is_of_other_types(*types).is_some() => {
                assert_eq!(result.as_ref().err(), self.is_of_other_types(*types).as_ref());
            }
            Command::SetQueue { name, settings: asked } => {
                let paused = self.rules.queue(name).paused;
                let value = SettingValue::Queue(QueueSettings { paused, ..asked.clone() });
                self.is_set((SettingKind::Queue, name.clone()), value, result, settings, now);
            }
            Command::PauseQueue { name, paused } => {
                let value = SettingValue::Queue(QueueSettings { paused: *paused, ..self.rules.queue(name) });
                self.is_set((SettingKind::Queue, name.clone()), value, result, settings, now);
            }
            Command::SetLimits { limits } => {
                let value = SettingValue::Limits(limits.clone());
                self.is_set((SettingKind::Limits, Name::new("limits")), value, result, settings, now);
            }
            Command::UnsetQueue { name } => {
                let id = (SettingKind::Queue, name.clone());
                assert!(changes.is_empty() && matches!(result, Ok(Answer::Done)));
                match self.settings.contains_key(&id) {
                    false => assert!(settings.is_empty()),
                    true => {
                        let [change] = settings else { panic!("one setting was to go, not {settings:?}") };
                        assert!(change.next.is_none() && change.id == id);
                        self.put_setting(change);
                    }
                }
            }
            Command::Retry { task_id, payload } => {
                let is_of_workflow = |task: &Arc<Task>| {
                    task.is_workflow() || self.workflow_of(task).is_some_and(|workflow| workflow.status.is_final())
                };
                if let Some(task) = self.tasks.get(task_id).filter(|task| is_of_workflow(task))
                    && matches!(task.status, Status::Failed | Status::Cancelled)
                    && !self.draining
                    && self.open.len() < self.options.tasks_max
                    && self.fails_again(task).is_none()
                {
                    return self.retried_together(*task_id, result, changes, now);
                }
                let expected = match self.tasks.get(task_id).map(|task| task.status) {
                    None => Err(Refusal::TaskNotFound),
                    Some(Status::Failed | Status::Cancelled) if self.draining => Err(Refusal::Draining),
                    Some(Status::Failed | Status::Cancelled) if self.open.len() >= self.options.tasks_max => {
                        Err(Refusal::Full)
                    }
                    Some(Status::Failed | Status::Cancelled) if self.fails_again(&self.tasks[task_id]).is_some() => {
                        Err(self.fails_again(&self.tasks[task_id]).expect("it does"))
                    }
                    Some(Status::Failed | Status::Cancelled) if self.other_holder(*task_id, now).is_some() => {
                        Err(Refusal::KeyHeld(self.other_holder(*task_id, now)))
                    }
                    Some(Status::Failed | Status::Cancelled) if self.is_too_late(*task_id, now) => {
                        Err(Refusal::DeadlineOver)
                    }
                    Some(Status::Failed | Status::Cancelled) => Ok(()),
                    Some(Status::Completed) => Err(Refusal::TaskFinished),
                    Some(Status::Running) => Err(Refusal::TaskRunning),
                    Some(Status::Waiting | Status::Scheduled | Status::Pending) => Err(Refusal::TaskNotFinished),
                };
                assert_eq!(result.as_ref().map(|_| ()).map_err(Clone::clone), expected, "retry of {task_id}");
                if expected.is_ok() {
                    let (change, task) = self.one_step(changes, *task_id, Event::Retrying, now);
                    assert_eq!(change.payload.as_ref(), payload.as_ref().map(|fitted| &fitted.payload));
                    let held = self.stand(&task) == Stand::Held;
                    let expected = if held { Status::Waiting } else { Status::Pending };
                    assert_eq!((task.status, task.tries, task.crashes), (expected, 0, 0));
                    let anew = |run: &Run| *run == Run { ended_by_hub: run.ended_by_hub, ..Run::default() };
                    assert!(task.run().is_none_or(anew) && task.run_at.is_none(), "a retry by hand starts anew");
                    self.counts_from_now(&task, now);
                    self.is_answered_with(result, &task);
                }
            }
            Command::CancelDelivered { task_id, attempt } => {
                let before = self.tasks.get(task_id).cloned();
                let is_news = |task: &Arc<Task>| {
                    task.status == Status::Running
                        && task.attempt == *attempt
                        && task.run().is_some_and(|run| run.cancel == Some(Cancel::Requested))
                };
                match before.filter(is_news) {
                    None => assert!(changes.is_empty(), "nobody is told anything new"),
                    Some(before) => {
                        let (_, task) = self.one_step(changes, *task_id, Event::CancelRequested, now);
                        assert_eq!(task.run().and_then(|run| run.cancel), Some(Cancel::Delivered));
                        self.goes_on(&before, &task, live);
                    }
                }
            }
            Command::Delete { task_id } => {
                let is_final = |task: &Arc<Task>| task.status.is_final() && !self.is_needed(task);
                let expected = match self.tasks.get(task_id).map(is_final) {
                    None => Err(Refusal::TaskNotFound),
                    Some(false) => Err(Refusal::TaskNotFinished),
                    Some(true) => Ok(()),
                };
                let got = result.as_ref().map(|_| ()).map_err(Clone::clone);
                if got == Err(Refusal::TaskNotFinished) && self.is_still_told(*task_id) {
                    return;
                }
                assert_eq!(got, expected, "deletion of {task_id}");
                assert_eq!(changes.len(), usize::from(expected.is_ok()));
                changes.iter().for_each(|change| self.gone(change, *task_id));
            }
            Command::Expire { task_ids } => {
                let mut left = changes.iter();
                for task_id in task_ids {
                    let told = left.as_slice().first().is_none_or(|change| change.task.task_id != *task_id);
                    if told && self.is_still_told(*task_id) {
                        continue;
                    }
                    if self.tasks.get(task_id).is_some_and(|task| task.status.is_final() && !self.is_needed(task)) {
                        self.gone(left.next().expect("a final task whose time is over is deleted"), *task_id);
                    }
                }
                assert!(left.next().is_none(), "more was deleted than was asked for");
                assert!(matches!(result, Ok(Answer::Count(count)) if *count == changes.len()));
            }
            Command::Hello(hello) => self.hello(hello, result, changes, notices, now, live),
            Command::Left { worker_id, session } => {
                assert!(changes.is_empty());
                if let Some(station) = self.stations.get_mut(worker_id)
                    && station.session == *session
                    && station.link == Link::Socket
                {
                    station.link = Link::Away;
                    station.away_until = now.lived + self.options.grace_ms;
                    station.ending.clear();
                    self.forget_stuck();
                }
            }
            Command::Heard { worker_id } => {
                assert!(changes.is_empty());
                self.heard(worker_id, now);
            }
            Command::Retire { worker_id, session } => {
                assert!(changes.is_empty());
                if let Some(station) = self.stations.get_mut(worker_id).filter(|station| station.session == *session) {
                    station.retiring = true;
                }
            }
            Command::Claim { worker_id, accepts, max, lease_ms, ticket } => {
                assert!(changes.is_empty());
                if self.draining {
                    assert_eq!(result.as_ref().err(), Some(&Refusal::Draining));
                    return;
                }
                assert!(matches!(result, Ok(Answer::Done)));
                self.comes_by_http(worker_id, accepts, now);
                let lease_ms = lease_ms.filter(|asked| *asked > self.options.lease_ms);
                let claim = Claim { worker_id: worker_id.clone(), accepts: accepts.clone(), wanted: *max, lease_ms };
                self.claims.insert(*ticket, claim);
                self.present(worker_id, now);
            }
            Command::Unclaim { ticket } => {
                assert!(changes.is_empty());
                self.claims.remove(ticket);
            }
            Command::Report { task_id, attempt, report } => {
                self.reported(*task_id, *attempt, report, result, changes, notices, now, live);
            }
            Command::Drain => {
                assert!(changes.is_empty());
                self.draining = true;
                let open = std::mem::take(&mut self.claims).into_keys();
                let told: Vec<u64> = notices
                    .iter()
                    .map(|notice| match notice {
                        Notice::Claimed { ticket, tasks } if tasks.is_empty() => *ticket,
                        other => panic!("a drain made {other:?}"),
                    })
                    .collect();
                assert_eq!(told, open.collect::<Vec<_>>(), "open claims are told that nothing comes");
            }
            Command::GiveBack => {
                let mut running: BTreeSet<TaskId> = self.held.values().flat_map(|held| held.keys().copied()).collect();
                assert_eq!(changes.len(), running.len());
                for change in changes {
                    assert!(running.remove(&change.task.task_id), "given back twice");
                    self.ended(change.task.task_id, change.task.attempt, End::ByHub);
                    self.lost(change, Lost::GivenBack, now, live);
                }
            }
            Command::InUse { .. } | Command::StopSchedule { .. } => assert!(changes.is_empty()),
            Command::WaitsFor { task_id } => {
                assert!(changes.is_empty());
                let Ok(Answer::Waits(waits)) = result else { panic!("why is answered by {result:?}") };
                self.waits_truly(*task_id, waits);
            }
            Command::SetSchedule { spec, .. } if self.is_unfit(&spec.task) => {
                assert!(matches!(result, Err(Refusal::PayloadInvalid(_))), "{spec:?}: {result:?}");
            }
            Command::SetSchedule { name, .. }
            | Command::UnsetSchedule { name }
            | Command::PauseSchedule { name, .. } => {
                // What is due by now comes first.
                let (mut changes, mut settings) = (changes, settings);
                let mut stops = Vec::new();
                self.makes_due(name, (&mut changes, &mut settings), &mut stops, now, live);
                assert!(changes.is_empty(), "more came of it: {changes:?}");
                assert_eq!(told_to_stop(notices), stops);
                if !settings.is_empty() {
                    self.held_up.remove(name);
                }
                match command {
                    Command::SetSchedule { spec, .. } => self.schedule_is_set(name, spec, result, settings, now),
                    Command::PauseSchedule { paused, .. } => {
                        self.schedule_is_paused(name, *paused, result, settings, now);
                    }
                    _ => self.schedule_is_unset(name, result, settings),
                }
            }
            Command::RunSchedule { name } => self.schedule_is_run(name, result, changes, settings, now),
            Command::Workers => {
                assert!(changes.is_empty());
                let Ok(Answer::Workers(workers)) = result else { panic!("workers are answered by {result:?}") };
                let mut running: BTreeMap<TaskId, u32> = BTreeMap::new();
                for worker in workers {
                    for (task_id, attempt) in &worker.running {
                        let held = self.held.get(&worker.worker_id).and_then(|held| held.get(task_id));
                        assert_eq!(held, Some(attempt), "{} is said to run {task_id}", worker.worker_id);
                        assert!(running.insert(*task_id, *attempt).is_none(), "{task_id} runs twice");
                    }
                }
                assert_eq!(running.len(), self.running(), "somebody runs a task and is not among the workers");
            }
        }
    }

    /// What a task is said to wait for is what it waits for, and nothing is left out.
    fn waits_truly(&self, task_id: TaskId, waits: &[WaitsFor]) {
        let task = self.tasks.get(&task_id);
        if let Some(task) = task.filter(|task| task.status == Status::Waiting) {
            return assert_eq!(waits, [self.held_by(task)], "{task:?}");
        }
        let Some(task) = task.filter(|task| matches!(task.status, Status::Scheduled | Status::Pending)) else {
            return assert_eq!(waits, [], "{task:?} waits for nothing");
        };
        let there = self.stations.values().filter(|station| station.link != Link::Away).map(|station| &station.accepts);
        let is_taken =
            there.chain(self.claims.values().map(|claim| &claim.accepts)).any(|accepts| takes(accepts, task));
        // In a round that was held short the engine may have forgotten workers that this account still has.
        let may_be_gone =
            |station: &Station| station.link == Link::Http && station.silent_at(&self.options) <= self.lived;
        let waits_on = |accepts: &Accepts| self.claims.values().any(|claim| claim.accepts == *accepts);
        if self.stations.values().any(|it| may_be_gone(it) && takes(&it.accepts, task) && !waits_on(&it.accepts)) {
            return;
        }
        let all = self.stations.values().map(|station| &station.accepts);
        let taking: Vec<_> =
            all.chain(self.claims.values().map(|claim| &claim.accepts)).filter(|it| takes(it, task)).collect();
        let together = |queue: &Name, task_type: &Name| {
            taking.iter().any(|accepts| accepts.takes(queue.as_str(), task_type.as_str()))
        };
        // One over HTTP whose time is over may be forgotten already, and not yet where the last round was held short.
        let due = |it: &Station| it.link == Link::Http && !it.silent && it.silent_at(&self.options) <= self.lived;
        if self.stations.values().any(|station| due(station) && takes(&station.accepts, task)) {
            return;
        }
        if task.is_workflow() {
            return match (task.status, waits) {
                (Status::Scheduled, [WaitsFor::Time { .. }]) | (Status::Pending, []) => {}
                other => panic!("{task:?} is said to wait for {other:?}"),
            };
        }
        if task.status == Status::Scheduled {
            return match (is_taken, waits) {
                (false, [WaitsFor::Time { .. }, WaitsFor::NoWorker]) | (true, [WaitsFor::Time { .. }]) => {}
                other => panic!("{task:?} is said to wait for {other:?}"),
            };
        }
        let mut expected = self.rules.closed_by(task, &self.running_tasks(), &self.rates);
        if !is_taken {
            expected.push(WaitsFor::NoWorker);
        } else if expected.is_empty() {
            let lanes = self.ready.iter().filter(|((queue, task_type), _)| together(queue, task_type));
            let others: Vec<_> = lanes.flat_map(|(_, lane)| lane.iter().map(|(_, id)| &self.tasks[id])).collect();
            expected.push(WaitsFor::Turn { ahead: Some(self.rules.ahead(task, &others).min(AHEAD_MAX)) });
        }
        assert_eq!(waits, expected, "{task:?}");
    }

    fn running_tasks(&self) -> Vec<&Arc<Task>> {
        self.held.values().flat_map(|held| held.keys().map(|id| &self.tasks[id])).collect()
    }

    /// Unfinished tasks of a user that do not run.
    fn waiting_of(&self, user: Option<&str>) -> usize {
        let waits = |task: &&Arc<Task>| {
            task.status != Status::Running
                && !task.is_workflow()
                && user.is_some()
                && task.user_id.as_ref().map(Name::as_str) == user
        };
        self.open.values().filter(waits).count()
    }

    fn updated(
        &mut self,
        task_id: TaskId,
        patch: &TaskPatch,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        now: Now,
    ) {
        let Some(before) = self.tasks.get(&task_id).cloned() else {
            return assert_eq!(result.as_ref().err(), Some(&Refusal::TaskNotFound));
        };
        if before.status.is_final() || before.status == Status::Running {
            let expected = if before.status == Status::Running { Refusal::TaskRunning } else { Refusal::TaskFinished };
            return assert_eq!(result.as_ref().err(), Some(&expected));
        }
        let moved = patch.run_at.is_some() && !self.is_shut(&before);
        let is_too_much = patch.priority.is_some() || patch.payload.is_some() || patch.max_attempts.is_some() || moved;
        if before.is_workflow() && is_too_much {
            return assert!(matches!(result, Err(Refusal::Invalid(_))), "{patch:?} of a workflow: {result:?}");
        }
        if before.open_list().is_some() && patch.payload.is_some() {
            return assert!(matches!(result, Err(Refusal::Invalid(_))), "{patch:?} of {before:?}: {result:?}");
        }
        let too_few = patch.max_attempts.is_some_and(|max| max <= before.tries);
        let by = [before.deadline(), before.start_by()].into_iter().flatten();
        let too_late = patch.run_at.is_some_and(|run_at| by.into_iter().any(|by| by.at <= run_at));
        if too_few || too_late {
            return assert!(matches!(result, Err(Refusal::Invalid(_))), "{patch:?} of {before:?}: {result:?}");
        }
        if patch.is_empty() {
            return assert!(changes.is_empty());
        }
        let mut expected = Task::clone(&before);
        expected.priority = patch.priority.unwrap_or(before.priority);
        expected.max_attempts = patch.max_attempts.unwrap_or(before.max_attempts);
        if let Some(run_at) = patch.run_at {
            (expected.run_at, expected.delayed) = (Some(run_at), false);
            let ready = if run_at > now.wall { Status::Scheduled } else { Status::Pending };
            expected.status = if before.status == Status::Waiting { Status::Waiting } else { ready };
        }
        if expected.status != Status::Scheduled {
            expected.detail.iter_mut().flat_map(|it| &mut it.gather).for_each(|gather| gather.open = None);
        }
        if let Some(title) = &patch.title {
            expected.detail.get_or_insert_default().title = Some(title.clone().into());
        }
        let (change, task) = self.changed_in_place(&before, expected, changes, now);
        assert_eq!(change.payload, patch.payload);
        self.is_answered_with(result, &task);
    }

    /// A task that waits is now as it should be; what waits on goes on.
    pub(super) fn changed_in_place(
        &mut self,
        before: &Task,
        mut expected: Task,
        changes: &[Change],
        now: Now,
    ) -> (Change, Arc<Task>) {
        let task_id = before.task_id;
        let waited = self.waits.get(&(task_id, before.rev)).copied();
        let stood = (self.rules.turn_of(before), self.unserved.get(&task_id).copied());
        let (change, task) = self.one_step(changes, task_id, Event::Updated, now);
        (expected.rev, expected.updated_at) = (task.rev, task.updated_at);
        assert_eq!(*task, expected);
        match waited.filter(|_| before.run_at == task.run_at) {
            Some(waited) if task.delayed => _ = self.waits.insert((task_id, task.rev), waited),
            None if task.delayed => self.waits(&task, task.run_at.map_or(0, |at| at.millis_since(now.at)), now),
            _ => {}
        }
        if !task.is_workflow() && before.status == Status::Pending && task.status == Status::Pending {
            if let Some(turn) = stood.0 {
                self.rules.not_served(&task, turn);
            }
            if let Some(unserved) = stood.1 {
                self.unserved.insert(task_id, unserved);
            }
        }
        (change, task)
    }

    /// What a submission meets that does not wait for others with its key: those of its user that have to go, or, where
    /// it is to be refused, none.
    fn conflicts(&self, new: &NewTask) -> Option<Option<Vec<TaskId>>> {
        let (strategy, key) = (new.on_conflict.unwrap_or_default(), new.concurrency_key.as_deref()?);
        let queue = Name::new(new.queue.as_deref().unwrap_or("default"));
        let same_key = |task: &&Arc<Task>| {
            task.queue == queue && task.concurrency_key().is_some_and(|of_task| of_task.as_str() == key)
        };
        let all: Vec<_> = self.open.values().filter(same_key).collect();
        let of_user = |task: &&&Arc<Task>| task.user_id.as_ref().map(Name::as_str) == new.user_id.as_deref();
        let own: Vec<_> = all.iter().filter(of_user).collect();
        let max = self.rules.queue(&queue).key_concurrency as usize;
        let ids = |runs: bool| {
            own.iter().filter(|task| runs || task.status != Status::Running).map(|task| task.task_id).collect()
        };
        match strategy {
            OnConflict::Queue => None,
            OnConflict::Reject => (own.len() >= max).then_some(None),
            OnConflict::ReplaceWaiting => (all.len() >= max).then(|| Some(ids(false))),
            OnConflict::CancelRunning => (all.len() >= max).then(|| Some(ids(true))),
        }
    }

    /// Those that are in the way of a new task with its key have gone, or were asked to.
    fn makes_way(&mut self, new: &NewTask, changes: &mut &[Change], notices: &mut &[Notice], now: Now, live: &Live) {
        let Some(own) = self.conflicts(new) else { return };
        let own = own.expect("a task was taken though its key was");
        for task_id in own {
            if self.tasks[&task_id].cancel_requested() {
                continue;
            }
            let runs = self.tasks[&task_id].status == Status::Running;
            let change = std::slice::from_ref(changes.split_off_first().expect("it is cancelled"));
            let notice = match runs {
                true => std::slice::from_ref(notices.split_off_first().expect("its worker is told")),
                false => &[],
            };
            let result = Ok(Answer::Task(change[0].task.clone()));
            let reason = Some("replaced by a newer task".to_owned());
            self.cancelled(task_id, &reason, &result, change, notice, now, live);
        }
    }

    fn is_set(
        &mut self,
        id: SettingId,
        value: SettingValue,
        result: &Result<Answer, Refusal>,
        settings: &[SettingChange],
        now: Now,
    ) {
        let Ok(Answer::Set { setting, is_new }) = result else { panic!("setting {id:?} is answered by {result:?}") };
        let before = self.settings.get(&id).cloned();
        assert_eq!(*is_new, before.is_none());
        assert_eq!(setting.value, value);
        if before.as_ref().is_some_and(|before| before.value == value) {
            return assert!(settings.is_empty(), "nothing is different");
        }
        let [change] = settings else { panic!("one thing was set, not {settings:?}") };
        assert_eq!((&change.id, change.at, setting.rev, setting.updated_at), (&id, now.at, change.rev, now.at));
        assert!(change.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, setting)));
        self.put_setting(change);
    }

    fn put_setting(&mut self, change: &SettingChange) {
        assert_eq!(change.rev, self.rev + 1, "a hole in the revs");
        self.rev += 1;
        self.last_at = change.at;
        let rate = self.rules.queue(&change.id.1).rate;
        let before = self.apply_setting(change.id.clone(), change.next.clone());
        assert_eq!(change.prev, before);
        self.undecided.push(Undo::Setting(change.id.clone(), before));
        let next = self.rules.queue(&change.id.1).rate;
        if change.id.0 == SettingKind::Queue && rate != next {
            self.undecided.push(Undo::Rate(self.rates.changes(&change.id.1, rate, next)));
        }
    }

    fn apply_setting(&mut self, id: SettingId, next: Option<Arc<Setting>>) -> Option<Arc<Setting>> {
        let before = match &next {
            Some(next) => self.settings.insert(id.clone(), next.clone()),
            None => self.settings.remove(&id),
        };
        let (queue, limits) = (self.rules.queue(&id.1), self.rules.limits().clone());
        self.rules.put(id.clone(), next.as_deref());
        let ready = self.open.values().filter(|task| task.status == Status::Pending && !task.is_workflow());
        match id.0 {
            SettingKind::Queue if Rules::moves(&queue, &self.rules.queue(&id.1)) => {
                self.rules.join_anew(Some(&id.1), ready);
            }
            SettingKind::Limits if Rules::limits_move(&limits, self.rules.limits()) => {
                self.rules.join_anew(None, ready);
            }
            SettingKind::Queue | SettingKind::Limits | SettingKind::Schedule | SettingKind::TaskType => {}
        }
        before
    }

    /// Keys are held only by attempts that workers may be at.
    fn forget_stuck(&mut self) {
        let Checker { rules, stations, .. } = self;
        rules.still_stuck(|attempt| stations.values().any(|station| station.ending.contains(&attempt)));
    }

    /// Whether a moment is over by which it had to be final, or started.
    pub(super) fn is_too_late(&self, task_id: TaskId, now: Now) -> bool {
        let task = &self.tasks[&task_id];
        let moments = [task.deadline(), task.start_by()].into_iter().flatten().filter(|by| by.ms.is_none());
        moments.into_iter().any(|by| by.at <= now.wall)
    }

    fn created(&mut self, new: &NewTask, stand: Stand, change: &Change, now: Now) {
        let task = &change.task;
        assert_eq!(change.kind, ChangeKind::Transition(Event::Created));
        assert!(change.prev.is_none());
        assert!(self.youngest.is_none_or(|youngest| youngest < task.task_id), "ids must grow");
        self.youngest = Some(task.task_id);
        assert_eq!(task.task_type.as_str(), new.task_type);
        assert_eq!(task.queue.as_str(), new.queue.as_deref().unwrap_or("default"));
        assert_eq!(task.user_id.as_ref().map(Name::as_str), new.user_id.as_deref());
        assert_eq!((task.priority, task.created_at), (new.priority.unwrap_or(0), now.at));
        assert_eq!((task.attempt, task.tries, task.crashes), (0, 0, 0));
        assert_eq!(task.max_attempts, new.max_attempts.unwrap_or(1));
        assert_eq!(task.max_crashes, new.max_crashes.unwrap_or(3));
        assert_eq!((task.timeout_ms(), task.retry_policy()), (new.timeout_ms, new.retry.clone().unwrap_or_default()));
        assert_eq!(task.labels().cloned().unwrap_or_default(), new.labels);
        let item = new.gather.as_ref().map(|_| item_of(new));
        assert_eq!(change.payload, item.or(new.payload.clone()));
        let opens = task.open_list().is_some();
        let wait = new.gather.as_ref().filter(|_| opens).and_then(|gather| gather.max_wait_ms);
        let delay_ms = new.delay_ms.or(wait);
        let run_at = new.run_at.or(delay_ms.map(|delay| now.at.plus_millis(delay)));
        assert_eq!(
            task.task_id.made_at().max(task.created_at),
            task.task_id.made_at(),
            "an id is as young as its task"
        );
        assert_eq!(task.run_at, run_at);
        let later = match delay_ms {
            Some(delay) => delay > 0,
            None => new.run_at.is_some_and(|at| at > now.wall),
        };
        let status = match stand {
            Stand::Held | Stand::Failed => Status::Waiting,
            Stand::Free if later => Status::Scheduled,
            Stand::Free => Status::Pending,
        };
        assert_eq!(task.status, status);
        assert_eq!(task.concurrency_key().map(Name::as_str), new.concurrency_key.as_deref());
        if !task.is_workflow() {
            self.rules.submitted(task, self.waiting_of(new.user_id.as_deref()), now.mono);
        }
        self.step(change, now);
        if let Some(delay) = delay_ms.filter(|_| task.status == Status::Scheduled) {
            self.waits(task, delay, now);
        }
        assert_eq!(task.deadline(), By::asked(new.deadline_at, new.deadline_ms, now.at));
        assert_eq!(task.start_by(), By::asked(new.start_by_at, new.start_by_ms, now.at));
        assert_eq!(task.silence_ms(), new.silence_ms);
        self.counts_from_now(task, now);
        self.owed.created(new, task.task_id);
        self.is_of_kind(new, task);
        self.begins_list(new, task);
    }

    /// Deadlines that are waits begin.
    pub(super) fn counts_from_now(&mut self, task: &Task, now: Now) {
        for by in [task.deadline(), task.start_by()].into_iter().flatten() {
            if let Some(ms) = by.ms {
                assert_eq!(by.at, now.at.plus_millis(ms), "its record says so");
                self.bys.insert((task.task_id, by.at), (now.mono + ms, now.mono + ms));
            }
        }
    }

    /// Whether it may be over; with `surely`, whether it must be.
    fn is_over(&self, task: &Task, by: By, surely: bool, now: Now) -> bool {
        match by.ms {
            None => by.at <= now.wall,
            Some(_) => {
                let (from, until) = self.bys[&(task.task_id, by.at)];
                now.mono >= if surely { until } else { from }
            }
        }
    }

    /// Until when a running attempt must have stopped, if it was asked to.
    fn must_stop_by(&self, task: &Task) -> Option<u64> {
        let due = self.stop_by.get(&(task.task_id, task.attempt));
        due.copied().filter(|_| task.cancel_requested())
    }

    /// When a running attempt is silent, if it says nothing more.
    fn silent_at(&self, task: &Task, live: &Live) -> Option<u64> {
        let since = self.quiet_since.get(&(task.task_id, task.attempt))?;
        let spoke = live.get(task.task_id).filter(|live| live.attempt == task.attempt).map_or(0, |live| live.spoke);
        Some(spoke.max(*since) + task.silence_ms()?)
    }

    #[expect(clippy::too_many_arguments, reason = "everything there is to know of a decision")]
    pub(super) fn cancelled(
        &mut self,
        task_id: TaskId,
        reason: &Option<String>,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        notices: &[Notice],
        now: Now,
        live: &Live,
    ) {
        let before = self.tasks.get(&task_id).cloned();
        match before {
            None => assert_eq!(result.as_ref().err(), Some(&Refusal::TaskNotFound)),
            Some(task) if task.status.is_final() => assert_eq!(result.as_ref().err(), Some(&Refusal::TaskFinished)),
            Some(task) if task.cancel_requested() => {
                assert!(changes.is_empty());
                self.is_answered_with(result, &task);
            }
            Some(before) if before.status == Status::Running && before.is_workflow() => {
                let (_, task) = self.one_step(changes, task_id, Event::CancelRequested, now);
                assert!(notices.is_empty() && task.cancel_requested());
                self.is_answered_with(result, &task);
            }
            Some(before) if before.status == Status::Running => {
                let (change, task) = self.one_step(changes, task_id, Event::CancelRequested, now);
                assert_eq!(change.note.as_deref(), reason.as_deref());
                let run = task.run().expect("it runs");
                assert_eq!((run.cancel_requested_at, run.cancel), (Some(now.at), Some(Cancel::Requested)));
                self.stop_by.insert((task_id, before.attempt), now.lived + before.cancel_grace_ms());
                self.goes_on(&before, &task, live);
                let [Notice::Stop { worker_id, task_id: stopped, attempt, .. }] = notices else {
                    panic!("its worker must be told to stop: {notices:?}")
                };
                assert_eq!(
                    (Some(worker_id), *stopped, *attempt),
                    (before.worker_id(), task_id, before.attempt),
                    "the wrong worker was told to stop"
                );
                self.is_answered_with(result, &task);
            }
            Some(before) => {
                let (_, task) = self.one_step(changes, task_id, Event::Cancelled, now);
                assert_eq!((task.tries, task.crashes), (before.tries, before.crashes));
                assert_eq!(task.run().and_then(|run| run.finished_at), Some(now.at));
                self.is_answered_with(result, &task);
            }
        }
    }

    fn hello(
        &mut self,
        hello: &Hello,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        notices: &[Notice],
        now: Now,
        live: &Live,
    ) {
        let Ok(Answer::Welcome { keep, drop }) = result else { panic!("hello is answered by {result:?}") };
        let before = self.stations.remove(&hello.worker_id);
        self.forget_stuck();
        let replaced = before.as_ref().filter(|station| station.link == Link::Socket).map(|station| station.session);
        let mut station = Station::new(&hello.accepts, Link::Socket);
        station.session = hello.session;
        station.concurrency = hello.concurrency;
        self.stations.insert(hello.worker_id.clone(), station);
        self.present(&hello.worker_id, now);

        let mine: BTreeMap<TaskId, u32> = self.held.get(&hello.worker_id).cloned().unwrap_or_default();
        let holding: BTreeSet<(TaskId, u32)> = hello.holding.iter().flatten().copied().collect();
        let kept: BTreeSet<_> =
            mine.iter().map(|(id, attempt)| (*id, *attempt)).filter(|it| holding.contains(it)).collect();
        assert_eq!(keep.iter().copied().collect::<BTreeSet<_>>(), kept, "what a worker may go on with");
        let dropped: BTreeSet<_> = holding.difference(&kept).copied().collect();
        assert_eq!(drop.iter().copied().collect::<BTreeSet<_>>(), dropped, "what a worker must let go of");
        assert_eq!(changes.len(), mine.len(), "each of its tasks is confirmed or given up, and nothing else");
        for change in changes {
            let task_id = change.task.task_id;
            let attempt = mine[&task_id];
            if kept.contains(&(task_id, attempt)) {
                let before = self.tasks[&task_id].clone();
                assert_eq!(change.kind, ChangeKind::Transition(Event::Running));
                self.goes_on(&before, &change.task, live);
                self.step(change, now);
                self.signs.insert((task_id, attempt), Sign { heard: now.lived, restored: false });
            } else {
                self.ended(task_id, attempt, End::ByHub);
                // A process that was there before the hub restarted never had what it does not hold.
                let never_had = self.signs[&(task_id, attempt)].restored && hello.holding.is_some();
                self.lost(change, if never_had { Lost::GivenBack } else { Lost::Crash }, now, live);
            }
        }
        let mut stops: BTreeSet<(TaskId, u32)> =
            kept.iter().filter(|(id, _)| self.tasks[id].cancel_requested()).copied().collect();
        let mut closed = None;
        for notice in notices {
            match notice {
                Notice::Replaced { session } => assert!(closed.replace(*session).is_none()),
                Notice::Stop { task_id, attempt, .. } => {
                    assert!(stops.remove(&(*task_id, *attempt)), "told to stop {task_id}, which nobody cancelled");
                }
                other => panic!("hello made {other:?}"),
            }
        }
        assert_eq!(closed, replaced, "the older connection is closed");
        assert!(stops.is_empty(), "it must hear again what to stop: {stops:?}");
    }

    fn comes_by_http(&mut self, worker_id: &Name, accepts: &Accepts, now: Now) {
        let station = self.stations.entry(worker_id.clone()).or_insert_with(|| Station::new(accepts, Link::Http));
        if station.link == Link::Away {
            station.link = Link::Http;
            for held in self.held.get(worker_id).into_iter().flatten() {
                self.signs.get_mut(&(*held.0, *held.1)).expect("it runs").heard = now.lived;
            }
        }
    }

    /// A worker is there. On a socket that renews all it holds; over HTTP, only what is said of an attempt does.
    fn present(&mut self, worker_id: &Name, now: Now) {
        let Some(station) = self.stations.get_mut(worker_id) else { return };
        station.last_heard = now.lived;
        station.silent = false;
        if station.link == Link::Away && station.session == 0 {
            let accepts = station.accepts.clone();
            self.comes_by_http(worker_id, &accepts, now);
        }
    }

    fn heard(&mut self, worker_id: &Name, now: Now) {
        self.present(worker_id, now);
        if self.stations.get(worker_id).is_some_and(|station| station.link == Link::Http) {
            for held in self.held.get(worker_id).into_iter().flatten() {
                self.signs.get_mut(&(*held.0, *held.1)).expect("it runs").heard = now.lived;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything there is to know of a decision")]
    fn reported(
        &mut self,
        task_id: TaskId,
        attempt: u32,
        report: &Report,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        notices: &[Notice],
        now: Now,
        live: &Live,
    ) {
        assert!(notices.is_empty(), "a report made {notices:?}");
        let before = self.tasks.get(&task_id).cloned();
        if attempt == 0 && before.is_some() {
            return assert_eq!(result.as_ref().err(), Some(&Refusal::LeaseLost), "there is no attempt 0");
        }
        let over = before.as_ref().is_none_or(|before| before.status != Status::Running || before.attempt != attempt);
        if over && !matches!(report, Report::Heartbeat) {
            for station in self.stations.values_mut() {
                station.ending.remove(&(task_id, attempt));
                let Checker { rules, .. } = self;
                rules.still_stuck(|stuck| stuck != (task_id, attempt));
            }
        }
        let Some(before) = before else {
            assert_eq!(result.as_ref().err(), Some(&Refusal::TaskNotFound));
            return;
        };
        if before.status != Status::Running || before.attempt != attempt {
            assert!(changes.is_empty(), "attempt {attempt} of {task_id} is over, and changed something: {changes:?}");
            let ended = self.ends.get(&(task_id, attempt)).copied();
            let said = match report {
                Report::Complete { .. } => Some(End::Completed),
                Report::Fail { .. } => Some(End::Failed),
                Report::Cancelled => Some(End::Cancelled),
                Report::Heartbeat | Report::Upload(_) | Report::Release => None,
            };
            let refused = match result {
                Ok(Answer::Reported { cancel_requested: false }) => false,
                Err(Refusal::LeaseLost) => true,
                other => panic!("a report on an attempt that is over was answered by {other:?}"),
            };
            let resent = said.is_some() && said == ended && before.attempt == attempt;
            if resent && before.status != Status::Pending {
                assert!(!refused, "the same report of {task_id} was accepted before, and must be acknowledged again");
            }
            let by_hub = ended == Some(End::ByHub);
            if said.is_none() || before.attempt != attempt || (said == Some(End::Completed) && said != ended) || by_hub
            {
                assert!(refused, "{report:?} of attempt {attempt} of {task_id} was acknowledged, and is not so");
            }
            return;
        }
        if matches!(report, Report::Cancelled) && !before.cancel_requested() {
            assert_eq!(result.as_ref().err(), Some(&Refusal::CancelNotRequested));
            return;
        }
        let uploaded = before.run().and_then(|run| run.upload.clone());
        if let (Report::Complete { result: said }, true) = (report, uploaded.is_some())
            && *said != Json::null()
        {
            return assert!(matches!(result, Err(Refusal::Invalid(_))), "it leaves two results: {result:?}");
        }
        let Ok(Answer::Reported { cancel_requested }) = result else { panic!("{report:?} was answered by {result:?}") };
        assert_eq!(*cancel_requested, before.cancel_requested());
        self.present(before.worker_id().expect("it runs"), now);
        self.signs.insert((task_id, attempt), Sign { heard: now.lived, restored: false });
        let end = match report {
            Report::Heartbeat => {
                assert!(changes.is_empty());
                return;
            }
            Report::Upload(large) => {
                let (_, task) = self.one_step(changes, task_id, Event::Updated, now);
                self.goes_on(&before, &task, live);
                return assert_eq!(task.large_result(), Some(&**large));
            }
            Report::Complete { result } => {
                let (change, task) = self.one_step(changes, task_id, Event::Completed, now);
                self.ends_run(&before, &task, live, now);
                assert_eq!((task.tries, task.crashes), (before.tries, before.crashes));
                let outcome = task.run().and_then(|run| run.outcome.clone());
                if let Some(large) = uploaded {
                    assert_eq!((outcome, change.result), (Some(Outcome::Large(large)), None));
                } else if result.len() > RESULT_INLINE_BYTES {
                    assert_eq!((outcome, change.result), (Some(Outcome::ResultOmitted), Some(result.clone())));
                } else {
                    assert_eq!((outcome, change.result), (Some(Outcome::Result(result.clone())), None));
                }
                End::Completed
            }
            Report::Fail { error, retryable, retry_after_ms } => {
                let [change] = changes else { panic!("a failure is one step: {changes:?}") };
                self.failed(change, *retryable, *retry_after_ms, now, live);
                let run = change.task.run().expect("it ran");
                match change.task.status {
                    Status::Failed => assert_eq!(run.outcome, Some(Outcome::Error(error.clone()))),
                    Status::Scheduled => assert_eq!(run.last_error.as_ref(), Some(error)),
                    _ => {}
                }
                End::Failed
            }
            Report::Cancelled => {
                let (_, task) = self.one_step(changes, task_id, Event::Cancelled, now);
                assert_eq!(task.run().and_then(|run| run.cancel), Some(Cancel::Acknowledged));
                self.ends_run(&before, &task, live, now);
                assert_eq!((task.tries, task.crashes), (before.tries, before.crashes));
                End::Cancelled
            }
            Report::Release => {
                let [change] = changes else { panic!("giving back is one step: {changes:?}") };
                return self.lost(change, Lost::GivenBack, now, live);
            }
        };
        self.ended(task_id, attempt, end);
    }

    fn ended(&mut self, task_id: TaskId, attempt: u32, end: End) {
        self.ends.insert((task_id, attempt), end);
        self.undecided.push(Undo::End((task_id, attempt)));
    }

    /// Timers have fired. If all of them could, nothing that is due is left.
    pub fn fired(
        &mut self,
        (changes, settings): (&[Change], &[SettingChange]),
        notices: &[Notice],
        now: Now,
        live: &Live,
        all: bool,
    ) {
        let mut stops: Vec<(TaskId, u32)> = Vec::new();
        let (notices, mut followed) = split(notices);
        self.has_looked = true;
        self.lived = now.lived;
        self.rates.at(now);
        self.all_fired = all;
        let (mut rest, mut settings) = (changes, settings);
        let mut was_full = false;
        loop {
            was_full |= self.open.len() >= self.options.tasks_max;
            let rev = self.rev + 1;
            let made_by = self.next_made(rest).filter(|_| rest[0].rev == rev).and_then(|next| next.task.schedule());
            let next_set = settings.first().filter(|next| next.rev == rev).map(|next| &next.id.1);
            if let Some(name) = made_by.or(next_set).cloned() {
                let before = self.rev;
                self.makes_due(&name, (&mut rest, &mut settings), &mut stops, now, live);
                assert!(self.rev > before, "{name} did something that was not due: {rest:?} {settings:?}");
                continue;
            }
            let Some(change) = rest.split_off_first() else { break };
            if is_consequence(change) {
                self.followed(change, &mut followed, now, live);
                continue;
            }
            let before = self.tasks[&change.task.task_id].clone();
            let task_id = before.task_id;
            let is_fenced = |note: Option<&str>| matches!(note, Some("timeout" | "silent"));
            match before.status {
                _ if change.note.as_deref() == Some("the deadline is over") => {
                    let by = before.deadline().expect("it has a deadline");
                    assert!(self.is_over(&before, by, false, now), "{task_id} has time until {by:?}: {now:?}");
                    self.ends_for_good(change, "deadline", &mut stops, now);
                }
                _ if change.note.as_deref() == Some("it was not started in time") => {
                    let by = before.start_by().expect("it was never started");
                    assert!(self.is_over(&before, by, false, now), "{task_id} has time until {by:?}: {now:?}");
                    self.ends_for_good(change, "expired", &mut stops, now);
                }
                Status::Scheduled => {
                    match self.waits.get(&(task_id, before.rev)) {
                        Some((from, _)) => assert!(*from <= now.mono, "{task_id} waits until {from}: {now:?}"),
                        None => assert!(before.run_at.is_some_and(|at| at <= now.wall), "{task_id} has time"),
                    }
                    assert_eq!(change.task.run_at, before.run_at);
                    assert_eq!(change.kind, ChangeKind::Transition(Event::Pending));
                    self.step(change, now);
                }
                Status::Running if change.note.as_deref() == Some("it did not stop") => {
                    let due = self.stop_by.get(&(task_id, before.attempt)).copied();
                    assert!(before.cancel_requested() && due.is_some_and(|due| due <= now.lived), "{due:?} {now:?}");
                    assert_eq!(change.task.run().and_then(|run| run.cancel), Some(Cancel::Ignored));
                    self.ends_for_good(change, "none", &mut stops, now);
                }
                Status::Running if is_fenced(change.note.as_deref()) || self.is_fenced(change, live, now) => {
                    let timeout = self.timeouts.get(&(task_id, before.attempt)).copied();
                    let silent = self.silent_at(&before, live);
                    let due = match change.note.as_deref() {
                        Some("timeout") => timeout,
                        Some("silent") => silent,
                        _ => timeout.into_iter().chain(silent).min(),
                    };
                    assert!(due.is_some_and(|due| due <= now.lived), "{task_id} was fenced at {now:?}, due {due:?}");
                    let worker_id = before.worker_id().expect("it runs");
                    if let Some(station) = self.stations.get_mut(worker_id).filter(|it| it.link == Link::Socket) {
                        station.ending.insert((task_id, before.attempt));
                        self.rules.stuck(&before);
                    }
                    stops.push((task_id, before.attempt));
                    self.ended(task_id, before.attempt, End::ByHub);
                    self.failed(change, true, None, now, live);
                    if let Some(Outcome::Error(error)) = change.task.run().and_then(|run| run.outcome.as_ref()) {
                        assert_eq!(Some(error.kind.as_str()), change.note.as_deref());
                    }
                }
                Status::Running => {
                    let worker_id = before.worker_id().expect("it runs");
                    let until = self.lease_ends(&before);
                    assert!(
                        until <= now.lived,
                        "{task_id} was taken from {worker_id}, which has until {until}: {now:?}"
                    );
                    let station = self.stations.get_mut(worker_id).expect("who runs something is known");
                    if station.link == Link::Socket {
                        station.ending.insert((task_id, before.attempt));
                        self.rules.stuck(&before);
                        stops.push((task_id, before.attempt));
                    }
                    self.ended(task_id, before.attempt, End::ByHub);
                    self.lost(change, Lost::Crash, now, live);
                }
                Status::Pending => {
                    let unserved_ms = before.unserved_ms().expect("it does not wait for ever");
                    assert!(!self.is_served(&before), "there is somebody for {task_id}");
                    let ready = now.lived - self.unserved[&task_id].0;
                    assert!(ready >= unserved_ms, "{task_id} was ready for {ready} ms of {unserved_ms}");
                    self.ends_for_good(change, "lost", &mut stops, now);
                }
                other => panic!("a timer made {task_id} leave {other}"),
            }
        }
        assert!(settings.is_empty(), "a timer set {settings:?}");
        if was_full {
            self.waits_for_room(now);
        }
        let told = told_to_stop(&notices);
        assert!(followed.is_empty(), "workers were told to stop for nothing: {followed:?}");
        assert_eq!(told, stops, "whoever took too long, or lost its lease on an open socket, is told to stop");
        let ready: Vec<Arc<Task>> = self.open.values().filter(|task| task.status == Status::Pending).cloned().collect();
        for task in ready.iter().filter(|task| task.unserved_ms().is_some()) {
            let (ready, since) = self.unserved[&task.task_id];
            if self.is_served(task) {
                self.unserved.insert(task.task_id, (ready, now.lived));
            } else if all {
                let alone = now.lived - since;
                assert!(Some(alone) < task.unserved_ms(), "{} is unserved for {alone} ms", task.task_id);
            }
        }
        if !all {
            return;
        }
        for station in self.stations.values_mut() {
            station.silent |= station.silent_at(&self.options) <= now.lived;
        }
        if let Some((0, name)) = self.soonest_due(now) {
            panic!("{name} is overdue at {now:?}: {:?}", self.settings);
        }
        if !self.looks_at_all() {
            return;
        }
        for task in self.open.values() {
            let task_id = task.task_id;
            match task.status {
                Status::Scheduled => {
                    // A try that has just timed out may be due again at once: that is for the next round.
                    let since = changes.first().map_or(u64::MAX, |change| change.rev);
                    let due = match self.waits.get(&(task_id, task.rev)) {
                        Some((_, until)) => *until <= now.mono,
                        None => task.run_at.is_none_or(|at| at <= now.wall),
                    };
                    assert!(!due || task.rev >= since, "{task_id} is overdue");
                }
                Status::Running if !task.is_workflow() => {
                    let worker_id = task.worker_id().expect("it runs");
                    assert!(self.lease_ends(task) > now.lived, "{worker_id} still has {task_id}, at {now:?}");
                    let due = self.timeouts.get(&(task_id, task.attempt));
                    assert!(due.is_none_or(|due| *due > now.lived), "{task_id} should have timed out at {due:?}");
                    let due = self.silent_at(task, live);
                    assert!(due.is_none_or(|due| due > now.lived), "{task_id} is silent since {due:?}");
                    let due = self.must_stop_by(task);
                    assert!(due.is_none_or(|due| due > now.lived), "{task_id} should have stopped by {due:?}");
                }
                _ => {}
            }
            for by in [task.deadline(), task.start_by()].into_iter().flatten() {
                assert!(!self.is_over(task, by, true, now), "{task_id} should have ended by {by:?}");
            }
        }
    }

    /// The hub ended a task whose time was over, whatever it did.
    fn ends_for_good(&mut self, change: &Change, kind: &str, stops: &mut Vec<(TaskId, u32)>, now: Now) {
        let before = self.tasks[&change.task.task_id].clone();
        if let Some(worker_id) = before.worker_id() {
            let attempt = (before.task_id, before.attempt);
            if let Some(station) = self.stations.get_mut(worker_id).filter(|it| it.link == Link::Socket) {
                station.ending.insert(attempt);
                self.rules.stuck(&before);
            }
            stops.push(attempt);
            self.ended(before.task_id, before.attempt, End::ByHub);
        }
        self.step(change, now);
        let run = change.task.run().expect("it has an end");
        let status = if before.cancel_requested() { Status::Cancelled } else { Status::Failed };
        assert_eq!((change.task.status, run.finished_at), (status, Some(now.at)));
        assert!(run.ended_by_hub || before.status != Status::Running);
        assert_eq!((change.task.tries, change.task.crashes), (before.tries, before.crashes));
        if let Some(Outcome::Error(error)) = &run.outcome {
            assert_eq!((error.kind.as_str(), status), (kind, Status::Failed));
        }
    }

    /// It waits for so long from now on, whatever a clock does.
    pub(super) fn waits(&mut self, task: &Task, delay_ms: u64, now: Now) {
        assert_eq!(task.delay_ms(), Some(delay_ms), "its record says so");
        self.waits.insert((task.task_id, task.rev), (now.mono + delay_ms, now.mono + delay_ms));
    }

    /// Whether there is anybody that takes it, busy or not.
    fn is_served(&self, task: &Task) -> bool {
        let workers = self.stations.values().map(|station| &station.accepts);
        workers.chain(self.claims.values().map(|claim| &claim.accepts)).any(|accepts| takes(accepts, task))
    }

    /// When a running task is taken from its worker.
    fn lease_ends(&self, task: &Task) -> u64 {
        let station = self.stations.get(task.worker_id().expect("it runs")).expect("who runs something is known");
        let heard = self.signs[&(task.task_id, task.attempt)].heard;
        let asked_ms = task.run().and_then(|run| run.lease_ms);
        match station.link {
            Link::Away => station.away_until.max(heard + asked_ms.unwrap_or(0)),
            Link::Socket => station.last_heard + self.options.lease_ms,
            Link::Http => heard + asked_ms.unwrap_or(self.options.lease_ms),
        }
    }

    /// Looking at every open task in every round would make large runs quadratic.
    fn looks_at_all(&self) -> bool {
        self.rounds.is_multiple_of(1 + self.open.len() / 64)
    }

    /// Whether a loss that does not say so is a timeout, or silence: one that ended as cancelled.
    fn is_fenced(&self, change: &Change, live: &Live, now: Now) -> bool {
        let before = &self.tasks[&change.task.task_id];
        let timeout = self.timeouts.get(&(before.task_id, before.attempt)).copied();
        let due = timeout.into_iter().chain(self.silent_at(before, live)).any(|due| due <= now.lived);
        let note = change.note.as_deref().unwrap_or_default();
        due && change.task.status == Status::Cancelled && note == "failed while stopping"
    }

    /// Ready tasks were handed out. If there was no bound, no task and slot that fit are left.
    pub fn assigned(&mut self, changes: &[Change], notices: &[Notice], now: Now, live: &Live, all: bool) {
        let (changes, followed) = changes.split_at(changes.iter().take_while(|change| !is_consequence(change)).count());
        let (notices, stops) = split(notices);
        self.handed_out(changes, &notices, now, all);
        self.follow(followed, stops, now, live);
    }

    fn handed_out(&mut self, changes: &[Change], notices: &[Notice], now: Now, all: bool) {
        let mut runs: Vec<(Name, TaskId)> = Vec::new();
        let mut claimed: BTreeMap<u64, Vec<TaskId>> = BTreeMap::new();
        for notice in notices {
            match notice {
                Notice::Run { worker_id, task } => runs.push((worker_id.clone(), task.task_id)),
                Notice::Claimed { ticket, tasks } => {
                    let tasks = tasks.iter().map(|task| task.task_id).collect();
                    assert!(claimed.insert(*ticket, tasks).is_none(), "a claim was answered twice");
                }
                other => panic!("handing out made {other:?}"),
            }
        }
        assert!(!self.draining || changes.is_empty(), "work was handed out while the hub drains");
        let mut runs = runs.into_iter().peekable();
        let mut filled: BTreeMap<u64, u32> = BTreeMap::new();
        for change in changes {
            let task = change.task.clone();
            let task_id = task.task_id;
            let before = self.tasks[&task_id].clone();
            let worker_id = task.worker_id().expect("it was handed to somebody").clone();
            let ticket = claimed.iter().find(|(_, tasks)| tasks.contains(&task_id)).map(|(ticket, _)| *ticket);
            let (accepts, load) = match ticket {
                Some(ticket) => {
                    let claim = &self.claims[&ticket];
                    assert_eq!(claim.worker_id, worker_id);
                    let filled = filled.entry(ticket).or_default();
                    let load = *filled;
                    *filled += 1;
                    assert!(*filled <= claim.wanted, "more than was claimed");
                    // Whoever waits for an answer is there.
                    let accepts = self.claims[&ticket].accepts.clone();
                    self.comes_by_http(&worker_id, &accepts, now);
                    self.present(&worker_id, now);
                    (accepts, load)
                }
                None => {
                    assert_eq!(runs.next(), Some((worker_id.clone(), task_id)), "handed out, and nobody is told");
                    let station = &self.stations[&worker_id];
                    assert!(self.may_take(&worker_id), "{worker_id} has no place for {task_id}");
                    (station.accepts.clone(), self.load(&worker_id))
                }
            };
            assert!(takes(&accepts, &before), "{worker_id} does not take {task_id}");
            let best = self.best(&accepts).expect("this one, or a better");
            let queues = [&self.tasks[&best].queue, &before.queue];
            let mut ready = self.open.values().filter(|task| task.status == Status::Pending);
            let is_mixed = ready.any(|task| queues.contains(&&task.queue) && self.rules.is_mixed(task));
            // A rate may have room that the engine has not looked at yet.
            let not_seen = !self.all_fired && self.rules.queue(&self.tasks[&best].queue).rate.is_some();
            assert!(best == task_id || is_mixed || not_seen, "{best} was next, and not {task_id}");
            let closed = self.rules.closed_by(&before, &self.running_tasks(), &self.rates);
            assert!(closed.is_empty(), "{task_id} runs beyond {closed:?}");
            for (other_id, other) in &self.stations {
                if takes(&other.accepts, &before) && self.must_take(other_id, now) {
                    assert!(self.load(other_id) >= load, "{other_id} is emptier than {worker_id}");
                }
            }
            for (other, claim) in self.claims.iter().filter(|(_, claim)| takes(&claim.accepts, &before)) {
                let has = filled.get(other).copied().unwrap_or(0);
                assert!(has >= claim.wanted.min(load), "claim {other} has less than {worker_id}");
            }
            assert_eq!(
                (task.attempt, task.tries, task.crashes),
                (before.attempt + 1, before.tries + 1, before.crashes)
            );
            let run = task.run().expect("it runs");
            assert_eq!(run.started_at, Some(now.at));
            assert_eq!(run.lease_ms, ticket.and_then(|ticket| self.claims[&ticket].lease_ms));
            assert!(run.cancel_requested_at.is_none() && run.progress.is_none() && run.outcome.is_none());
            assert_eq!(change.kind, ChangeKind::Transition(Event::Running));
            self.step(change, now);
            self.rules.served(&task);
            self.rates.served(&task, self.rules.queue(&task.queue).rate);
            self.signs.insert((task_id, task.attempt), Sign { heard: now.lived, restored: false });
            self.timeouts.remove(&(task_id, task.attempt));
            if let Some(timeout) = task.timeout_ms() {
                self.timeouts.insert((task_id, task.attempt), now.lived + timeout);
            }
            self.quiet_since.insert((task_id, task.attempt), now.lived);
        }
        assert!(runs.next().is_none(), "somebody is told to run what was not handed out");
        for (ticket, tasks) in claimed {
            assert_eq!(filled.get(&ticket).copied(), Some(tasks.len() as u32), "a claim was answered with too much");
            self.claims.remove(&ticket);
        }
        if all && !self.draining && !self.ready.is_empty() {
            let stations = self.stations.iter().filter(|(id, _)| self.must_take(id, now)).map(|(_, it)| &it.accepts);
            for accepts in stations.chain(self.claims.values().map(|claim| &claim.accepts)) {
                let left = self.best(accepts);
                let is_rated = |id: TaskId| self.rules.queue(&self.tasks[&id].queue).rate.is_some();
                let not_seen = !self.all_fired && left.is_some_and(is_rated);
                assert!(left.is_none() || not_seen, "a slot is free for {left:?}");
            }
        }
    }

    /// The next task for somebody who accepts this.
    fn best(&self, accepts: &Accepts) -> Option<TaskId> {
        let lanes =
            self.ready.iter().filter(|((queue, task_type), _)| accepts.takes(queue.as_str(), task_type.as_str()));
        if self.rules.are_plain() && self.open.values().all(|task| task.concurrency_key().is_none()) {
            return lanes.filter_map(|(_, lane)| lane.first()).min().map(|(_, task_id)| *task_id);
        }
        // Of each queue what is first in its own order, and of these the most urgent.
        let running = self.running_tasks();
        let mut firsts: BTreeMap<&Name, &Arc<Task>> = BTreeMap::new();
        for task in lanes.flat_map(|(_, lane)| lane).map(|(_, task_id)| &self.tasks[task_id]) {
            let is_first = firsts.get(&task.queue).is_none_or(|first| self.rules.order(task) < self.rules.order(first));
            if is_first && self.rules.closed_by(task, &running, &self.rates).is_empty() {
                firsts.insert(&task.queue, task);
            }
        }
        firsts.values().map(|task| (-i16::from(task.priority), task.task_id)).min().map(|(_, task_id)| task_id)
    }

    fn may_take(&self, worker_id: &Name) -> bool {
        let station = &self.stations[worker_id];
        station.link == Link::Socket
            && !station.retiring
            && !station.silent
            && self.load(worker_id) < station.concurrency
    }

    /// A worker whose lease has run out may be noticed a round late, if that round was held short.
    fn must_take(&self, worker_id: &Name, now: Now) -> bool {
        self.may_take(worker_id) && self.stations[worker_id].silent_at(&self.options) > now.lived
    }

    fn load(&self, worker_id: &Name) -> u32 {
        let running = self.held.get(worker_id).map_or(0, BTreeMap::len);
        (running + self.stations[worker_id].ending.len()) as u32
    }

    /// The writer sleeps as long as the engine says; by then nothing may be overdue.
    pub fn sleeps_no_longer_than(&self, next_in: Option<u64>, live: &Live, now: Now, all: bool) {
        if !all || !self.looks_at_all() {
            return;
        }
        let mut soonest: Option<(u64, &Arc<Task>)> = None;
        for task in self.open.values() {
            let within = match task.status {
                Status::Scheduled => match self.waits.get(&(task.task_id, task.rev)) {
                    Some((_, until)) => Some(until.saturating_sub(now.mono)),
                    None => task.run_at.map(|at| at.millis_since(now.wall)),
                },
                Status::Running if !task.is_workflow() => {
                    let lost = self.lease_ends(task);
                    let due = self.timeouts.get(&(task.task_id, task.attempt)).copied().unwrap_or(u64::MAX);
                    let others = self.silent_at(task, live).into_iter().chain(self.must_stop_by(task));
                    Some(others.fold(lost.min(due), u64::min).saturating_sub(now.lived))
                }
                Status::Pending if !task.is_workflow() => self.rates.opens_in(task, self.rules.queue(&task.queue).rate),
                Status::Waiting if self.stand(task) != Stand::Held => Some(0),
                _ if task.is_workflow() && self.is_overdue(task) => Some(0),
                _ => None,
            };
            let bys = [task.deadline(), task.start_by()].into_iter().flatten();
            let over = bys.map(|by| match by.ms {
                None => by.at.millis_since(now.wall),
                Some(_) => self.bys[&(task.task_id, by.at)].1.saturating_sub(now.mono),
            });
            let within = within.into_iter().chain(over).min();
            soonest = soonest.into_iter().chain(within.map(|within| (within, task))).min_by_key(|(within, _)| *within);
        }
        if let Some((soonest, name)) = self.soonest_due(now) {
            let in_time = next_in.is_some_and(|next_in| next_in <= soonest);
            assert!(in_time, "in {soonest} ms {name} is due, and the engine sleeps for {next_in:?} at {now:?}");
        }
        if let Some((soonest, task)) = soonest {
            assert!(
                next_in.is_some_and(|next_in| next_in <= soonest),
                "in {soonest} ms something is due for {task:?}, and the engine sleeps for {next_in:?} at {now:?}"
            );
        }
    }

    // Single steps.

    /// The one change of a command.
    fn one_step(&mut self, changes: &[Change], task_id: TaskId, event: Event, now: Now) -> (Change, Arc<Task>) {
        let [change] = changes else { panic!("one step was expected, not {changes:?}") };
        assert_eq!((change.task.task_id, change.kind), (task_id, ChangeKind::Transition(event)));
        self.step(change, now);
        (change.clone(), change.task.clone())
    }

    fn is_answered_with(&self, result: &Result<Answer, Refusal>, task: &Arc<Task>) {
        let Ok(Answer::Task(answer)) = result else { panic!("a task is the answer, not {result:?}") };
        assert_eq!(answer, task);
    }

    /// What holds for every step of every task.
    pub(super) fn step(&mut self, change: &Change, now: Now) {
        let task = &change.task;
        let before = self.tasks.get(&task.task_id).cloned();
        let follows = match (&change.prev, &before) {
            (Some(prev), Some(before)) => same(prev, before),
            (None, None) => true,
            _ => false,
        };
        assert!(follows, "a step from a record that is not the newest: {:?}, not {before:?}", change.prev);
        assert_eq!((change.rev, task.rev), (self.rev + 1, self.rev + 1), "a hole in the revs");
        self.rev += 1;
        assert_eq!(change.at, task.updated_at);
        assert_eq!(task.updated_at, now.at, "one step has one time");
        let run = task.run();
        let times = [
            Some(task.created_at),
            before.as_ref().map(|before| before.updated_at),
            run.and_then(|run| run.started_at),
            run.and_then(|run| run.cancel_requested_at),
            run.and_then(|run| run.finished_at),
            Some(self.last_at),
        ];
        assert!(times.into_iter().flatten().all(|at| at <= task.updated_at), "times go back: {task:?}");
        self.last_at = change.at;
        let ChangeKind::Transition(event) = change.kind else { panic!("{change:?} is no transition") };
        assert_eq!(task.worker_id().is_some(), task.status == Status::Running && !task.is_workflow());
        assert!(task.status == Status::Running || !task.cancel_requested());
        let may_have_file = matches!(task.status, Status::Running | Status::Completed);
        assert!(may_have_file || task.large_result().is_none(), "it names a file that nobody left: {task:?}");
        assert!(task.tries <= task.max_attempts && task.crashes <= task.max_crashes, "{task:?}");
        if let Some(before) = &before {
            assert!(before.status.may_become(task.status), "{} became {}", before.status, task.status);
            let by_hand = before.status.is_final();
            let expected = match (before.status, task.status) {
                _ if by_hand => Event::Retrying,
                _ if event == Event::Updated => event,
                (_, Status::Waiting) => unreachable!("nothing begins to wait again by itself"),
                (Status::Waiting, Status::Scheduled) => Event::Scheduled,
                (_, Status::Scheduled) => Event::Retrying,
                (_, Status::Pending) => Event::Pending,
                (_, Status::Running) if event == Event::CancelRequested => event,
                (_, Status::Running) => Event::Running,
                (_, Status::Completed) => Event::Completed,
                (_, Status::Failed) => Event::Failed,
                (_, Status::Cancelled) => Event::Cancelled,
            };
            assert_eq!(event, expected);
            let handed_out = before.status == Status::Pending && task.status == Status::Running && !task.is_workflow();
            assert_eq!(task.attempt, before.attempt + u32::from(handed_out));
            let fixed = |task: &Task| {
                (
                    (task.task_type.clone(), task.queue.clone(), task.user_id.clone(), task.created_at),
                    task.max_crashes,
                    // These may be changed while it waits.
                    (event != Event::Updated).then_some((task.priority, task.max_attempts)),
                )
            };
            assert_eq!(fixed(task), fixed(before));
            // A deadline that is a wait begins anew with a retry by hand.
            let fixed = |task: &Task| {
                let mut detail = task.detail.clone().unwrap_or_default();
                // A list is closed when it does not wait any more.
                detail.gather.iter_mut().for_each(|gather| gather.open = None);
                if event == Event::Updated {
                    detail.title = None;
                    detail.labels.clear();
                    detail.gather.iter_mut().for_each(|gather| gather.gathered = 0);
                    detail.unique.iter_mut().for_each(|unique| unique.former_labels.clear());
                }
                for timing in detail.timing.iter_mut() {
                    for by in [&mut timing.deadline, &mut timing.start_by].into_iter().flatten() {
                        by.at = if by_hand && by.ms.is_some() { Timestamp::default() } else { by.at };
                    }
                }
                detail
            };
            assert_eq!(fixed(task), fixed(before));
        }
        self.put(task.task_id, Some(task.clone()));
    }

    fn gone(&mut self, change: &Change, task_id: TaskId) {
        assert_eq!((change.kind, change.task.task_id), (ChangeKind::Gone, task_id));
        assert_eq!(change.prev.as_ref(), self.tasks.get(&task_id));
        assert_eq!(change.rev, self.rev + 1, "a hole in the revs");
        self.rev += 1;
        self.put(task_id, None);
    }

    /// The record of a task, in every picture that is drawn from records.
    fn put(&mut self, task_id: TaskId, task: Option<Arc<Task>>) {
        let (before, stood) = self.draw(task_id, task);
        self.undecided.push(Undo::Task(task_id, before, stood));
    }

    /// Answers the record before, and how that stood.
    fn draw(&mut self, task_id: TaskId, task: Option<Arc<Task>>) -> (Option<Arc<Task>>, Stood) {
        let mut stood = Stood::default();
        if let Some(before) = self.tasks.get(&task_id) {
            self.open.remove(&task_id);
            if before.status == Status::Pending && !before.is_workflow() {
                let turn = self.rules.not_ready(before);
                stood = Stood { turn, unserved: self.unserved.remove(&task_id) };
                let lane = (before.queue.clone(), before.task_type.clone());
                let ready = self.ready.get_mut(&lane).expect("what is ready has a lane");
                ready.remove(&(-i16::from(before.priority), task_id));
                if ready.is_empty() {
                    self.ready.remove(&lane);
                }
            }
            if let Some(worker_id) = before.worker_id() {
                let held = self.held.get_mut(worker_id).expect("whoever runs it holds it");
                held.remove(&task_id);
                if held.is_empty() {
                    self.held.remove(worker_id);
                }
            }
        }
        let Some(task) = task else { return (self.tasks.remove(&task_id), stood) };
        if !task.status.is_final() {
            self.open.insert(task_id, task.clone());
        }
        if task.status == Status::Pending && !task.is_workflow() {
            self.unserved.insert(task_id, (self.lived, self.lived));
            let lane = self.ready.entry((task.queue.clone(), task.task_type.clone())).or_default();
            lane.insert((-i16::from(task.priority), task_id));
            self.rules.ready(&task);
        }
        if let Some(worker_id) = task.worker_id() {
            self.held.entry(worker_id.clone()).or_default().insert(task_id, task.attempt);
        }
        (self.tasks.insert(task_id, task), stood)
    }

    /// A try failed: another follows, or the task has failed, or it was to be cancelled anyway.
    fn failed(&mut self, change: &Change, retryable: bool, retry_after_ms: Option<u64>, now: Now, live: &Live) {
        let before = self.tasks[&change.task.task_id].clone();
        let task = change.task.clone();
        self.step(change, now);
        assert_eq!((task.tries, task.crashes), (before.tries, before.crashes));
        let expected = match () {
            () if before.cancel_requested() => Status::Cancelled,
            () if retryable && before.tries < before.max_attempts => Status::Scheduled,
            () => Status::Failed,
        };
        assert_eq!(task.status, expected, "{before:?} failed (retryable: {retryable})");
        self.ends_run(&before, &task, live, now);
        if task.status == Status::Scheduled {
            let policy = task.retry_policy();
            let grown = policy.base_ms as f64 * policy.factor.powi(task.tries as i32 - 1);
            let longest = grown.min(policy.max_ms as f64);
            let delay_ms = task.run_at.expect("it has a time").millis_since(now.at);
            self.waits(&task, delay_ms, now);
            let delay = delay_ms as f64;
            if let Some(asked) = retry_after_ms {
                return assert_eq!(delay_ms, asked, "its worker said when");
            }
            if let Some(last) = policy.delays_ms.last() {
                let expected = policy.delays_ms.get(task.tries as usize - 1).unwrap_or(last);
                return assert_eq!(delay_ms, *expected, "waits as its list says");
            }
            assert!(
                delay <= longest && delay >= (longest * (1.0 - policy.jitter)).floor() - 1.0,
                "waits {delay} ms for try {}, by {policy:?}",
                task.tries + 1
            );
        }
    }

    /// An attempt was lost: the task is ready again, or it was one crash too many, or it was to be cancelled anyway.
    fn lost(&mut self, change: &Change, how: Lost, now: Now, live: &Live) {
        let before = self.tasks[&change.task.task_id].clone();
        let task = change.task.clone();
        self.step(change, now);
        self.ends_run(&before, &task, live, now);
        if before.cancel_requested() {
            assert_eq!(task.status, Status::Cancelled, "a lost lease ends a cancelled task");
            return;
        }
        let crashes = before.crashes + u32::from(how == Lost::Crash);
        assert_eq!((task.tries, task.crashes), (before.tries - 1, crashes), "lost by {how:?}: {change:?}");
        if how == Lost::Crash && crashes >= before.max_crashes {
            assert_eq!(task.status, Status::Failed);
            let outcome = task.run().and_then(|run| run.outcome.as_ref());
            assert!(matches!(outcome, Some(Outcome::Error(error)) if error.kind == "poison"), "{outcome:?}");
        } else {
            assert_eq!((task.status, task.run_at), (Status::Pending, None));
        }
    }

    /// The end of an attempt keeps the last tick.
    fn ends_run(&self, before: &Task, task: &Task, live: &Live, now: Now) {
        let run = task.run().expect("it ran");
        assert_eq!(run.finished_at, task.status.is_final().then_some(now.at));
        self.keeps_tick(before, task, live);
    }

    /// A running task stays with its worker.
    fn goes_on(&self, before: &Task, task: &Task, live: &Live) {
        assert_eq!((task.attempt, task.tries, task.crashes), (before.attempt, before.tries, before.crashes));
        assert_eq!((task.status, task.worker_id()), (Status::Running, before.worker_id()));
        assert_eq!(task.run().map(|run| run.started_at), before.run().map(|run| run.started_at));
        self.keeps_tick(before, task, live);
    }

    fn keeps_tick(&self, before: &Task, task: &Task, live: &Live) {
        let ticked = live.get(before.task_id).is_some_and(|live| live.attempt == before.attempt && live.tick > 0);
        let progress = task.run().and_then(|run| run.progress.as_ref());
        assert!(!ticked || progress.is_some(), "the last tick of {} is lost", before.task_id);
        if let Some(progress) = progress.filter(|_| task.status == Status::Completed) {
            assert!(progress.as_str().contains("\"percentage\":100"), "completed at {progress:?}");
        }
    }

    // Commits, replies, restarts.

    /// What was decided is on disk.
    pub fn committed(&mut self, batch: &Batch) {
        self.owed.committed(&batch.changes);
        self.undecided.clear();
        self.rules.round_over(false);
    }

    /// A commit failed: what was decided since the last is forgotten.
    pub fn taken_back(&mut self, store: &Store) {
        self.rates.taken_back();
        // Their numbers are given again.
        self.waits.retain(|(_, rev), _| *rev <= store.rev);
        self.has_looked = false;
        while let Some(undo) = self.undecided.pop() {
            match undo {
                Undo::Task(task_id, before, Stood { turn, unserved }) => {
                    self.draw(task_id, before.clone());
                    if let (Some(before), Some(turn)) = (before, turn) {
                        self.rules.not_served(&before, turn);
                    }
                    if let Some(unserved) = unserved {
                        self.unserved.insert(task_id, unserved);
                    }
                }
                Undo::Setting(id, before) => _ = self.apply_setting(id, before),
                Undo::Rate(saved) => self.rates.stays(saved),
                Undo::Key(key, None) => drop(self.keys.remove(&key)),
                Undo::Key(key, Some(before)) => drop(self.keys.insert(key, before)),
                Undo::End(attempt) => drop(self.ends.remove(&attempt)),
                due @ (Undo::Made(..) | Undo::Forgot(..)) => self.forget_due(due),
            }
        }
        self.rules.round_over(true);
        self.rev = store.rev;
        self.forget_items();
        let running: BTreeSet<(TaskId, u32)> =
            self.held.values().flatten().map(|(task_id, attempt)| (*task_id, *attempt)).collect();
        for station in self.stations.values_mut() {
            station.ending.retain(|attempt| !running.contains(attempt));
        }
        self.forget_stuck();
    }

    /// Between two rounds, workers that are gone and hold nothing are forgotten.
    pub fn round_over(&mut self) {
        self.rounds += 1;
        let Checker { held, stations, claims, .. } = self;
        stations.retain(|worker_id, station| {
            let waits = claims.values().any(|claim| claim.worker_id == *worker_id);
            let gone = match station.link {
                Link::Socket => false,
                Link::Away => true,
                Link::Http => station.silent && !waits,
            };
            !gone || held.contains_key(worker_id)
        });
    }

    /// The engine says what the store says, and nothing else.
    pub fn agrees(&self, engine: &Engine, store: &Store) {
        assert_eq!(engine.rev(), store.rev, "the engine's rev is not the store's");
        assert_eq!(self.tasks.len(), store.tasks.len());
        let mut unfinished = 0;
        for task in engine.tasks() {
            let stored =
                store.tasks.get(&task.task_id).expect("the engine has a task that was never stored, or is gone");
            assert!(same(stored, task), "the engine has {task:?}, the store {stored:?}");
            unfinished += usize::from(!task.status.is_final());
        }
        let set: BTreeMap<SettingId, &Setting> = engine.settings().map(|it| (it.id(), &**it)).collect();
        assert!(set.values().copied().eq(store.settings.values()), "the engine's settings are not the store's");
        assert_eq!((unfinished, engine.unfinished()), (self.open.len(), self.open.len()), "unfinished tasks");
        for task_id in self.open.keys() {
            assert!(engine.task(*task_id).is_some(), "{task_id} is not at hand");
        }
    }

    /// A task is about to reach a worker.
    pub fn given(&mut self, task: &Task, store: &Store) {
        let newest = store.tasks.get(&task.task_id);
        let told = newest.is_some_and(|newest| newest.rev >= task.rev && newest.attempt >= task.attempt);
        assert!(told || store.gone.contains_key(&task.task_id), "{task:?} was handed out before it was durable");
        assert!(self.given.insert((task.task_id, task.attempt)), "attempt {} went out twice: {task:?}", task.attempt);
    }

    /// Somebody is told that something was done.
    pub fn acknowledged(&mut self, command: &Command, answer: &Answer, store: &Store) {
        let durable = |task: &Task| store.rev >= task.rev && store.ids.binary_search(&task.task_id).is_ok();
        match (command, answer) {
            (Command::Submit { .. }, Answer::Submitted { tasks, .. }) => {
                for task in tasks {
                    assert!(durable(task), "{} was acknowledged before it was durable", task.task_id);
                    self.acknowledged.push(Promise::Submitted(task.task_id));
                }
            }
            (Command::Submit { .. }, Answer::Replayed { task_ids, .. }) => {
                assert!(task_ids.iter().all(|task_id| store.ids.binary_search(task_id).is_ok()), "replayed a dream");
            }
            (Command::Cancel { .. } | Command::Retry { .. }, Answer::Task(task)) => {
                assert!(durable(task), "{command:?} was acknowledged before it was durable");
            }
            (Command::Delete { task_id }, Answer::Done) => {
                assert!(!store.tasks.contains_key(task_id), "{task_id} was acknowledged as deleted");
                self.acknowledged.push(Promise::Deleted(*task_id));
            }
            (Command::Report { task_id, attempt, report: Report::Complete { result } }, _) => {
                let gone = store.gone.contains_key(task_id);
                let completed = store.tasks.get(task_id).is_some_and(|task| task.status == Status::Completed);
                assert!(gone || completed, "a result of {task_id} was acknowledged, and is not there");
                if self
                    .acknowledged
                    .iter()
                    .rev()
                    .take(50)
                    .all(|it| !matches!(it, Promise::Completed(id, ..) if id == task_id))
                {
                    self.acknowledged.push(Promise::Completed(*task_id, *attempt, result.clone()));
                }
            }
            _ => {}
        }
    }

    /// A new hub has read the store.
    pub fn restarted(&mut self, store: &Store, now: Now) {
        self.has_looked = false;
        while let Some(undo) = self.undecided.pop() {
            self.forget_due(undo);
        }
        self.held_up.clear();
        self.tasks.clear();
        self.open.clear();
        self.ready.clear();
        self.held.clear();
        self.stations.clear();
        self.claims.clear();
        self.timeouts.clear();
        self.signs.clear();
        self.bys.clear();
        self.stop_by.clear();
        self.quiet_since.clear();
        self.waits.clear();
        self.unserved.clear();
        self.draining = false;
        (self.last_at, self.lived) = (store.last_at, now.lived);
        self.rev = store.rev;
        self.forget_items();
        self.youngest = store.ids.last().copied();
        self.keys = store.keys.clone();
        self.settings = store.settings.iter().map(|(id, setting)| (id.clone(), Arc::new(setting.clone()))).collect();
        self.rules = Rules::of(store.settings.values());
        self.rates.restarted(&store.hand_outs, store.settings.values(), now);
        for (task_id, task) in &store.tasks {
            self.draw(*task_id, Some(task.clone()));
            if let Some(worker_id) = task.worker_id() {
                let accepts = Accepts {
                    task_types: taskhub::task::PatternSet::exactly(&task.task_type),
                    queues: taskhub::task::PatternSet::exactly(&task.queue),
                };
                let station =
                    self.stations.entry(worker_id.clone()).or_insert_with(|| Station::new(&accepts, Link::Away));
                self.signs.insert((*task_id, task.attempt), Sign { heard: now.lived, restored: true });
                let return_by = now.lived + self.options.lease_ms + self.options.grace_ms;
                station.away_until = return_by;
                // There is only what is written down to say how long it has run.
                if let (Some(timeout), Some(run)) = (task.timeout_ms(), task.run()) {
                    let started_at = run.started_at.expect("it runs");
                    let due = (now.lived + timeout).saturating_sub(now.at.millis_since(started_at));
                    self.timeouts.insert((*task_id, task.attempt), due.max(return_by));
                }
                self.quiet_since.insert((*task_id, task.attempt), return_by);
                if let Some(asked_at) = task.run().and_then(|run| run.cancel_requested_at) {
                    let due = (now.lived + task.cancel_grace_ms()).saturating_sub(now.at.millis_since(asked_at));
                    self.stop_by.insert((*task_id, task.attempt), due.max(return_by));
                }
            }
            for by in [task.deadline(), task.start_by()].into_iter().flatten().filter(|by| by.ms.is_some()) {
                self.bys.insert((*task_id, by.at), (0, now.mono + by.at.millis_since(now.at)));
            }
            if task.status == Status::Scheduled && task.delayed {
                let delay = task.delay_ms().expect("it waits");
                self.waits.insert((*task_id, task.rev), (0, now.mono + delay));
            }
        }
        self.ends.retain(|(task_id, attempt), end| {
            // What was decided and never committed is forgotten.
            store.tasks.get(task_id).is_some_and(|task| match end {
                End::Completed => task.status == Status::Completed,
                End::Failed | End::Cancelled | End::ByHub => task.attempt > *attempt || task.status != Status::Running,
            })
        });
    }

    /// Each running task gets a transition before the new hub answers anyone.
    pub fn confirmed(&mut self, batch: &Batch, now: Now) {
        assert!(batch.notices.is_empty() && batch.keys.is_empty());
        let mut running: BTreeSet<TaskId> = self.held.values().flat_map(|held| held.keys().copied()).collect();
        for change in &batch.changes {
            assert!(running.remove(&change.task.task_id), "{change:?} was not running");
            assert_eq!(change.kind, ChangeKind::Transition(Event::Running));
            let before = self.tasks[&change.task.task_id].clone();
            self.goes_on(&before, &change.task, &Live::default());
            assert_eq!(change.task.cancel_requested(), before.cancel_requested());
            self.step(change, now);
        }
        assert!(running.is_empty(), "these were not confirmed: {running:?}");
    }

    /// Everything has ended.
    pub fn finish(&self, engine: &Engine, store: &Store) {
        self.agrees(engine, store);
        assert_eq!(engine.unfinished(), 0);
        for promise in &self.acknowledged {
            match promise {
                Promise::Submitted(task_id) => {
                    let there = store.tasks.contains_key(task_id) || store.gone.contains_key(task_id);
                    assert!(there, "{task_id} was acknowledged, and is lost");
                }
                Promise::Completed(task_id, attempt, result) => {
                    let Some(task) = store.tasks.get(task_id) else {
                        assert!(store.gone.contains_key(task_id), "{task_id} was completed, and is lost");
                        continue;
                    };
                    assert_eq!((task.status, task.attempt), (Status::Completed, *attempt), "{task_id} was completed");
                    match task.run().and_then(|run| run.outcome.as_ref()) {
                        Some(Outcome::Result(_) | Outcome::ResultOmitted | Outcome::Large(_)) => {}
                        other => panic!("{task_id} was completed with {result:?}, and has {other:?}"),
                    }
                }
                Promise::Deleted(task_id) => assert!(store.gone.contains_key(task_id), "{task_id} was deleted"),
            }
        }
    }
}

impl Station {
    fn new(accepts: &Accepts, link: Link) -> Station {
        Station {
            accepts: accepts.clone(),
            concurrency: 0,
            link,
            session: 0,
            retiring: false,
            last_heard: 0,
            away_until: 0,
            silent: false,
            ending: BTreeSet::new(),
        }
    }

    /// When it gets no more work, unless it is heard of.
    fn silent_at(&self, options: &Options) -> u64 {
        match self.link {
            Link::Away => self.away_until,
            Link::Socket | Link::Http => self.last_heard + options.lease_ms,
        }
    }
}

/// What workers are told, and what they are told because of others.
fn split(notices: &[Notice]) -> (Vec<Notice>, Vec<Notice>) {
    notices.iter().cloned().partition(|notice| !workflows::is_consequence(notice))
}

/// The attempts that workers are told to stop, which is all that they are told.
fn told_to_stop(notices: &[Notice]) -> Vec<(TaskId, u32)> {
    let attempt = |notice: &Notice| match notice {
        Notice::Stop { task_id, attempt, .. } => (*task_id, *attempt),
        other => panic!("a timer made {other:?}"),
    };
    notices.iter().map(attempt).collect()
}

/// Whether two records are the same; mostly they are one.
fn same(a: &Arc<Task>, b: &Arc<Task>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn takes(accepts: &Accepts, task: &Task) -> bool {
    accepts.takes(task.queue.as_str(), task.task_type.as_str())
}
