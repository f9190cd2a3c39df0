//! The engine: everything the hub decides, and nothing else.
//!
//! It is a state machine without a clock, without I/O and without a runtime. A [`Command`] and the time go in; what comes
//! out is an [`Answer`] or a [`Refusal`], and, in a [`Batch`], the [`Change`]s that must become durable and the [`Notice`]s
//! that may be given once they are. So a simulation drives it a million steps a second, and a failing run is replayed
//! from its seed.
//!
//! # Deciding ahead of the disk
//!
//! The writer decides a whole batch before it commits it, so within a batch the engine's state runs ahead of the store.
//! If the commit fails, [`Engine::revert`] takes the batch back, newest change first. That is possible because every index
//! (lanes, timers, leases) is a function of the records: a change is *unindex the old record, index the new
//! one*, and its reverse is the reverse. What a worker's connection does (hello, heartbeat, leaving) is no change, is never
//! durable, and is not taken back.
//!
//! # Time
//!
//! [`Now`] carries what a machine's clocks say, made fit for promises by [`Clock`]: a moment that somebody named, a wait of
//! so long, a verdict on somebody who is silent, and what is written down each have a reading of their own.
//!
//! # Who gets what
//!
//! Ready tasks stand in *lanes*, one for each queue and type, ordered as the queue is set: by priority and then age, or in
//! turn between users or keys. Workers that accept the same types and queues form a *group*; a group keeps the heads of the
//! lanes it takes in order, so that the next task for it is found without a look at other lanes; a lane whose queue is closed
//! has none, and what a limit of a user or key keeps from running is not among them. A worker with room, or an open claim over HTTP, is a free *slot*; of all
//! slots that there is a task for, the least loaded comes first, then the one that waits longest.

mod at_hand;
mod buckets;
mod cancel;
mod claims;
mod clock;
mod conflicts;
mod consequences;
mod core;
#[cfg(test)]
mod deadline_tests;
mod deadlines;
mod dependencies;
#[cfg(test)]
mod dependency_tests;
mod few;
mod gather;
#[cfg(test)]
mod gather_tests;
mod groups;
mod in_use;
mod keys;
mod lanes;
mod leases;
mod limits;
mod private;
#[cfg(test)]
mod queue_tests;
mod quotas;
#[cfg(test)]
mod rate_tests;
mod rates;
mod records;
mod recover;
mod reports;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod schedule_tests;
mod schedules;
mod service;
mod settings;
mod slab;
mod submit;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;
mod timers;
#[cfg(test)]
mod type_tests;
mod types;
mod unique;
#[cfg(test)]
mod unique_tests;
mod update;
#[cfg(test)]
mod upload_tests;
mod waits;
mod workers;
#[cfg(test)]
mod workflow_tests;
mod workflows;

use std::fmt;
use std::sync::Arc;

use crate::settings::{HandOuts, Limits, QueueSettings, ScheduleSpec, Setting, SettingChange, TaskType};
use crate::task::{
    Author, AuthorEnd, Change, Failure, Json, KeyEntry, LargeResult, Name, PatternSet, PayloadFault, Submission, Task,
    TaskId, TaskPatch, Timestamp, TypesVersion, WaitsFor,
};

pub use self::clock::{Clock, HEARING_MS, late_ms};
pub use self::core::{Engine, Options};
pub use in_use::{InUse, QueueInUse};
pub use keys::SubmitKey;
pub use recover::Tasks;

/// The time, as [`Clock`] makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// What the machine's clock shows, with which a moment that somebody named is compared. It may be set.
    pub wall: Timestamp,
    /// What is written down. It never goes back.
    pub at: Timestamp,
    /// Milliseconds on the machine's monotonic count, for waits.
    pub mono: u64,
    /// Milliseconds that the hub has lived through, for verdicts on those who are silent.
    pub lived: u64,
}

/// What the engine is asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// All of these, or none.
    Submit {
        submission: Submission,
        key: Option<SubmitKey>,
    },
    Cancel {
        task_id: TaskId,
        reason: Option<String>,
    },
    /// The same, unless it runs by now.
    CancelWaiting {
        task_id: TaskId,
        reason: String,
    },
    /// What a running attempt was asked to do has reached its worker.
    CancelDelivered {
        task_id: TaskId,
        attempt: u32,
    },
    Retry {
        task_id: TaskId,
        /// In place of the payload it has.
        payload: Option<Fitted>,
    },
    /// Change a task that waits. It has passed [`TaskPatch::check`].
    Update {
        task_id: TaskId,
        patch: TaskPatch,
        /// With which its payload was looked at, where it has one.
        types: TypesVersion,
    },
    Delete {
        task_id: TaskId,
    },
    /// Delete these as far as they are final: their retention is over.
    Expire {
        task_ids: Vec<TaskId>,
    },
    /// A worker connected, or came back.
    Hello(Hello),
    /// The socket of a worker closed.
    Left {
        worker_id: Name,
        session: u64,
    },
    /// Any sign of life of a worker.
    Heard {
        worker_id: Name,
    },
    /// A worker on a socket wants no new work.
    Retire {
        worker_id: Name,
        session: u64,
    },
    /// A worker over HTTP asks for up to `max` tasks. Answered by [`Notice::Claimed`] with this ticket.
    Claim {
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        /// How long each lease lasts; the hub's own where that is longer.
        lease_ms: Option<u64>,
        ticket: u64,
    },
    /// The claim is no longer waited for.
    Unclaim {
        ticket: u64,
    },
    /// What a worker says of an attempt.
    Report {
        task_id: TaskId,
        attempt: u32,
        report: Report,
    },
    /// Set a queue, all of it but whether it is paused; what is like the default is kept too.
    SetQueue {
        name: Name,
        settings: QueueSettings,
    },
    /// Nothing is set of a queue any more.
    UnsetQueue {
        name: Name,
    },
    PauseQueue {
        name: Name,
        paused: bool,
    },
    SetLimits {
        limits: Limits,
    },
    /// Set a schedule, all of it.
    SetSchedule {
        name: Name,
        spec: ScheduleSpec,
    },
    UnsetSchedule {
        name: Name,
    },
    PauseSchedule {
        name: Name,
        paused: bool,
        /// Whose it is from now on, where it goes on and had stopped.
        author: Option<Author>,
    },
    /// Make its task now, whatever is due, beside all others and while it is paused.
    RunSchedule {
        name: Name,
    },
    /// Pause a schedule because its author is one no longer. One that is another's by now goes on.
    StopSchedule {
        name: Name,
        author: Author,
        reason: AuthorEnd,
    },
    /// Declare a task type, all of it.
    SetTaskType {
        name: Name,
        task_type: TaskType,
    },
    UnsetTaskType {
        name: Name,
    },
    /// No new work for anybody: the hub is going down.
    Drain,
    /// The drain is over: what still runs is given back.
    GiveBack,
    /// Who works here.
    Workers,
    /// Why a task waits.
    WaitsFor {
        task_id: TaskId,
    },
    /// How much of its limits a user has in use, also in these queues.
    InUse {
        user: Name,
        queues: Vec<Name>,
    },
}

/// A payload that was looked at with the types of this version.
#[derive(Clone, Debug)]
pub struct Fitted {
    pub payload: Json,
    pub types: TypesVersion,
}

/// A worker connecting by socket.
#[derive(Clone, Debug)]
pub struct Hello {
    pub worker_id: Name,
    /// Names the connection, so that the end of an older one is told from the end of this one.
    pub session: u64,
    pub accepts: Accepts,
    pub concurrency: u32,
    /// What it still runs. `None`: its process is new, and what it held under this name before is lost.
    pub holding: Option<Vec<(TaskId, u32)>>,
}

/// Which tasks a worker takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accepts {
    pub task_types: PatternSet,
    pub queues: PatternSet,
}

/// What a worker says of an attempt it runs.
#[derive(Clone, Debug)]
pub enum Report {
    /// It is alive.
    Heartbeat,
    /// It has uploaded a result, which it will leave when it completes. The file is there, whole.
    Upload(Box<LargeResult>),
    /// With `null` where it has uploaded its result.
    Complete { result: Json },
    Fail {
        error: Failure,
        retryable: bool,
        /// Milliseconds until the next try, in place of what the task's policy says.
        retry_after_ms: Option<u64>,
    },
    /// It stopped because it was asked to.
    Cancelled,
    /// It gives the task back; no try is counted.
    Release,
}

/// What the engine answers when it does not refuse.
#[derive(Clone, Debug)]
pub enum Answer {
    Submitted {
        tasks: Vec<Arc<Task>>,
        /// The places of those that were there already.
        existing: Vec<u32>,
    },
    /// The idempotency key already stands for these.
    Replayed {
        task_ids: Vec<TaskId>,
        /// As it was answered the first time.
        existing: Vec<u32>,
    },
    Task(Arc<Task>),
    Welcome {
        keep: Vec<(TaskId, u32)>,
        drop: Vec<(TaskId, u32)>,
    },
    Reported {
        cancel_requested: bool,
    },
    Count(usize),
    Workers(Vec<WorkerState>),
    /// The nearest first; none where it does not wait.
    Waits(Vec<WaitsFor>),
    InUse(InUse),
    /// What is set now, and whether nothing was before.
    Set {
        setting: Arc<Setting>,
        is_new: bool,
    },
    Done,
}

/// What the domain says no to. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A value is wrong; nothing of the submission was taken.
    Invalid(crate::task::Invalid),
    TaskNotFound,
    TaskFinished,
    TaskNotFinished,
    TaskRunning,
    LeaseLost,
    CancelNotRequested,
    IdempotencyConflict,
    Draining,
    /// `Options::tasks_max` unfinished tasks are here already.
    Full,
    /// The moment by which it had to be final is over, or the one by which it had to be started.
    DeadlineOver,
    QueueNotFound,
    /// A task that it depends on did not complete, and is to be run again before it.
    DependencyFailed(TaskId),
    ScheduleNotFound,
    TaskTypeNotFound,
    /// Payloads do not fit what is declared of their types; nothing of the submission was taken.
    PayloadInvalid(Vec<PayloadFault>),
    /// Other task types are declared than those that it was prepared with: it is to be prepared again.
    TypesChanged,
    /// As many tasks of the same `concurrency_key` are unfinished as may run, and it does not want to wait for them.
    KeyTaken,
    /// Another task holds what it is to be the only one of: this one, or one of the same submission.
    KeyHeld(Option<TaskId>),
    /// A limit of its user is reached.
    Quota(Quota),
}

/// A limit of a user that a submission would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// The most unfinished tasks that do not run.
    Waiting { limit: u32 },
    /// The most tasks submitted within a minute; so many milliseconds later there is room again.
    SubmitsPerMin { limit: u32, retry_after_ms: u64 },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Invalid(invalid) => return write!(f, "{invalid}"),
            Refusal::TaskNotFound => "there is no such task",
            Refusal::TaskFinished => "the task is finished",
            Refusal::TaskNotFinished => "the task is not finished",
            Refusal::TaskRunning => "the task is running",
            Refusal::LeaseLost => "the attempt is no longer the task's own",
            Refusal::CancelNotRequested => "nobody asked the attempt to stop",
            Refusal::IdempotencyConflict => "the idempotency key was used for something else",
            Refusal::Draining => "the hub is going down",
            Refusal::Full => "the hub holds as many unfinished tasks as it may",
            Refusal::DeadlineOver => "the task's deadline_at or start_by_at is over",
            Refusal::QueueNotFound => "the queue is neither set nor has tasks",
            Refusal::DependencyFailed(task_id) => {
                return write!(f, "it depends on {task_id}, which did not complete: retry that first");
            }
            Refusal::ScheduleNotFound => "there is no such schedule",
            Refusal::TaskTypeNotFound => "no such task type is declared",
            Refusal::PayloadInvalid(faults) => {
                let first = faults.first().cloned().unwrap_or_default();
                return write!(f, "{} does not fit what is declared of its type: {}", first.field, first.words());
            }
            Refusal::TypesChanged => "other task types are declared by now",
            Refusal::KeyTaken => "unfinished tasks with this concurrency_key are there already",
            Refusal::KeyHeld(None) => "another task of this call has the same unique key",
            Refusal::KeyHeld(Some(task_id)) => return write!(f, "task {task_id} holds its unique key"),
            Refusal::Quota(Quota::Waiting { limit }) => {
                return write!(f, "the user may have {limit} unfinished tasks that do not run");
            }
            Refusal::Quota(Quota::SubmitsPerMin { limit, .. }) => {
                return write!(f, "the user may submit {limit} tasks a minute");
            }
        })
    }
}

/// What must be done outside once the batch is durable.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Hand this task to the worker's socket.
    Run { worker_id: Name, task: Arc<Task> },
    /// Ask the worker to stop an attempt.
    Stop { worker_id: Name, task_id: TaskId, attempt: u32, reason: Option<Box<str>> },
    /// A claim over HTTP is answered.
    Claimed { ticket: u64, tasks: Vec<Arc<Task>> },
    /// Close this older connection of a worker: a newer one took its place.
    Replaced { session: u64 },
}

/// What one round of deciding brought forth.
#[derive(Default)]
pub struct Batch {
    /// Of tasks and of settings, each in order of `rev`; together they have no holes.
    pub changes: Vec<Change>,
    pub settings: Vec<SettingChange>,
    pub notices: Vec<Notice>,
    pub keys: Vec<KeyEntry>,
    /// What was handed out under a rate, in order of `rev`.
    pub hand_outs: Vec<HandOuts>,
}

/// What a decision is made with, and where its outcome goes.
pub struct Cx<'a> {
    pub now: Now,
    pub ticks: &'a dyn Ticks,
    /// What this round of decisions has come to so far.
    pub batch: &'a mut Batch,
}

/// What is kept beside the records: the newest progress of running tasks, which is told and never decided from; and large
/// results.
pub trait Ticks {
    /// The newest tick since the record's transition, if there was one.
    fn newest(&self, task_id: TaskId) -> Option<Json>;

    /// When the attempt last reported progress, a checkpoint or a log line, in lived time; known only of tasks with
    /// `silence_ms`.
    fn spoke(&self, task_id: TaskId, attempt: u32) -> Option<u64>;

    /// What a completed task left, where its record is not at hand or does not hold it.
    fn result(&self, task_id: TaskId) -> Result<Option<Json>, NotNow>;
}

/// Something that is needed for a decision cannot be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow;

/// A worker as the engine knows it.
#[derive(Clone, Debug)]
pub struct WorkerState {
    pub worker_id: Name,
    pub accepts: Accepts,
    pub concurrency: u32,
    pub running: Vec<(TaskId, u32)>,
    /// Attempts that were taken from it, and that it has not let go of: each takes a slot.
    pub stuck: Vec<(TaskId, u32)>,
    pub link: Link,
    pub retiring: bool,
    pub connected_at: Timestamp,
    pub last_heard_at: Timestamp,
}

/// How a worker is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Socket,
    Http,
    /// Its socket closed; it has a grace to come back.
    Away,
}
