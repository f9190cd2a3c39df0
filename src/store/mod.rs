//! What the hub remembers.
//!
//! The store is a **log of commits** and a **view** of the newest record of each task.
//!
//! * A commit is *appended*: one row with every record it changes, on disk (fsync) before anyone hears of it. That is all
//!   the durability there is, and it costs the same whether a commit carries one change or a thousand.
//! * The view (a row a task, with its history) is brought up to date behind the log, in steps (*settling*). A task that
//!   was created, ran and completed in the meantime costs one row write instead of three; what was settled leaves the log.
//! * Opening a store settles what the log still holds, so a restart reads only the view.
//!
//! Every read merges the view with what is not settled yet, so it sees all that was committed before it began, and needs
//! nothing from the writer: a store that takes no writes is still read.
//!
//! The [`Store`] half belongs to the one writer, the [`Reader`] half to everybody. Several hubs on one history would put
//! the log elsewhere and keep the view: changes are full records in order of `rev`.

mod audit;
mod deliveries;
#[cfg(test)]
pub(crate) mod gated;
#[cfg(test)]
mod measure;
mod memory;
mod openings;
mod results;
mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::access::{AccessChange, AccessRecord, AuditEntry};
use crate::settings::{HandOuts, Setting, SettingChange};
use crate::task::{
    Change, Delivery, DeliveryId, DeliveryStep, Digest, Filter, Json, KeyEntry, Links, LogLine, Name, Status, Task,
    TaskId, TaskView, Timestamp, Transition,
};

pub use audit::{AuditPage, AuditQuery};
pub use deliveries::{DeliveryPage, DeliveryQuery, OwedDelivery};
pub use memory::in_memory;
pub use openings::{Opening, Openings};
pub use results::{NewResult, ResultFiles, ResultName};
pub use sqlite::{Findings, SqliteOptions, SqliteStore, accept, backup, check, restore};

/// What becomes durable together, or not at all.
#[derive(Default)]
pub struct Commit {
    /// Of tasks, in order of `rev`; the first follows the last of the commit before.
    pub changes: Vec<Entry>,
    /// The same of settings: together with those of tasks they have no holes.
    pub settings: Vec<SettingEntry>,
    /// Idempotency keys that now stand for tasks.
    pub keys: Vec<KeyEntry>,
    /// What was handed out under rates, in order of `rev`.
    pub hand_outs: Vec<HandOuts>,
    /// What is kept beside the records.
    pub asides: Vec<Aside>,
    /// What became of deliveries. What is newly owed follows from the changes.
    pub deliveries: Vec<DeliveryStep>,
    /// Steps of what is kept about access, in order.
    pub access: Vec<AccessChange>,
    /// What was done, and by whom; the first follows the last of the commit before.
    pub audit: Vec<AuditEntry>,
}

impl Commit {
    /// Whether there is nothing to write down.
    pub fn is_empty(&self) -> bool {
        // Hand-outs are changes too.
        self.changes.is_empty()
            && self.settings.is_empty()
            && self.keys.is_empty()
            && self.asides.is_empty()
            && self.deliveries.is_empty()
            && self.access.is_empty()
            && self.audit.is_empty()
    }

    /// What callbacks are owed of the changes, each with the record that it tells of.
    pub fn owed(&self) -> impl Iterator<Item = (Delivery, &Bytes)> {
        self.changes.iter().flat_map(|Entry { change, record }| change.deliveries().map(move |it| (it, record)))
    }

    /// The first change that does not follow the one before, and the number that would have. `first` is the one after the
    /// last commit's.
    fn hole(&self, first: u64) -> Option<(u64, u64)> {
        let mut settings = self.settings.iter().map(|entry| entry.change.rev).peekable();
        let mut changes = self.changes.iter().map(|entry| entry.change.rev).peekable();
        for expected in first.. {
            if settings.next_if_eq(&expected).or_else(|| changes.next_if_eq(&expected)).is_none() {
                return settings.peek().or(changes.peek()).map(|rev| (*rev, expected));
            }
        }
        None
    }
}

/// A change with its record as text ([`Task::write_json`]).
#[derive(Clone)]
pub struct Entry {
    pub change: Change,
    pub record: Bytes,
}

/// A change to a setting, with its record as text, or the text that says that it is not set any more.
#[derive(Clone)]
pub struct SettingEntry {
    pub change: SettingChange,
    pub record: Bytes,
}

/// A moment on the monotonic count of a machine, which begins anew when the machine is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Names this start of the machine.
    pub boot: u128,
    /// In milliseconds.
    pub mono: u64,
}

/// Kept beside a record, without a transition.
#[derive(Clone, Debug)]
pub enum Aside {
    /// The newest checkpoint of a task. Replaces the one before.
    Checkpoint { task_id: TaskId, checkpoint: Json },
    /// The newest tick of a running task, so that a restart does not fall back to nothing. Ignored where the view has a
    /// record above `rev`.
    Progress { task_id: TaskId, rev: u64, progress: Json },
    /// Log lines, oldest first, following those before.
    Logs { task_id: TaskId, lines: Arc<[LogLine]> },
}

/// What a store holds when it is opened.
pub struct Recovered {
    /// The openings of this history, this one the last; its name is the epoch that clients see.
    pub openings: Openings,
    /// The last `rev`, 0 in a new store.
    pub rev: u64,
    /// The youngest id ever given, also where that task was deleted.
    pub last_id: Option<TaskId>,
    /// The newest time that is written down, as far as it can be told without a look at everything.
    pub last_at: Timestamp,
    /// What is set, in no order.
    pub settings: Vec<Setting>,
    /// Every unfinished task, oldest first, with its newest kept tick in `run.progress`, and with its links.
    pub unfinished: Vec<Task>,
    /// Final tasks that these need: those that a waiting one depends on; and of each workflow that is not final, or has a task
    /// that is not, itself and its tasks. As far as they are still there.
    pub relatives: Vec<Task>,
    /// What callbacks are owed, oldest first, and how many deliveries were given up.
    pub deliveries: Vec<Delivery>,
    pub deliveries_failed: u64,
    /// What is kept about access. Where that cannot be read: that the hub is closed.
    pub access: Vec<AccessRecord>,
    /// The numbers of the oldest and of the newest entry of the audit; the newest also where it is forgotten.
    pub audit: (u64, u64),
    /// How many tasks there are of each status, final ones too.
    pub counts: BTreeMap<Status, u64>,
    /// How many final tasks there are of each user. None of a damaged store.
    pub user_finals: Vec<(Name, Status, u64)>,
    /// What is missing or damaged, in words, where something is: then the store takes no writes, and what stands above is
    /// what is left.
    pub damage: Option<String>,
}

/// The writer's half. Every call blocks until it is done.
pub trait Store: Send {
    /// What was there when the store was opened. Called once, before anything else.
    fn recover(&mut self) -> Result<Recovered, StoreError>;

    /// Appends a commit. When this returns, it is on disk; when it fails, nothing of it is.
    fn append(&mut self, commit: &Commit) -> Result<(), StoreError>;

    /// Brings the view up to date for at most `tasks_max` tasks, oldest change first, and tells which records are now
    /// in it: `(task, rev)`, with the `rev` of the deletion where that was the newest. Tasks of which only asides waited
    /// are not among them, so a caller that settles until nothing waits asks [`unsettled`](Self::unsettled). When it fails,
    /// everything waits as before.
    fn settle(&mut self, tasks_max: usize) -> Result<Vec<(TaskId, u64)>, StoreError>;

    /// How many tasks wait to be settled, and how many bytes of commits are held for them.
    fn unsettled(&self) -> (usize, usize);

    /// The newest record of a task, with its links.
    fn task(&mut self, task_id: TaskId) -> Result<Option<Task>, StoreError>;

    /// The `seq` of the newest log line of a task, 0 where there is none.
    fn log_end(&mut self, task_id: TaskId) -> Result<u64, StoreError>;

    /// What an idempotency key stands for, unless it is expired at `now`.
    fn key(&mut self, key: Digest, now: Timestamp) -> Result<Option<KeyEntry>, StoreError>;

    /// Forgets expired keys, and tombstones that are older than `tombstones_before`; at most `rows_max` of each.
    /// Says how many rows went.
    fn sweep(&mut self, now: Timestamp, tombstones_before: Timestamp, rows_max: usize) -> Result<usize, StoreError>;

    /// What was handed out under rates, in order of `rev`, as of the count of this machine. Where that began anew, what passed
    /// between the last that is known of its count before and now is taken for nothing. Called once, after
    /// [`recover`](Self::recover).
    fn hand_outs(&mut self, now: Count) -> Result<Vec<HandOuts>, StoreError>;

    /// Forgets what was handed out at this count or before, at most `rows_max` commits of it, and knows from now on that the
    /// count has come so far. Says how much went.
    fn forget_hand_outs(&mut self, until: i64, mono: u64, rows_max: usize) -> Result<usize, StoreError>;

    /// Forgets deliveries that were given up and last tried before this, at most `rows_max`. Says how many.
    fn forget_deliveries(&mut self, tried_before: Timestamp, rows_max: usize) -> Result<usize, StoreError>;

    /// Forgets entries of the audit from before this time, the oldest first, at most `rows_max`. Says how many.
    fn forget_audit(&mut self, before: Timestamp, rows_max: usize) -> Result<usize, StoreError>;

    /// Whether the store is still what it was when it was opened: its files under their names, and nothing found damaged
    /// since. Cheap; to be asked about once a second.
    fn look(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Gives some space back that nothing uses, if there is much of it. Says whether there is more.
    fn shrink(&mut self) -> Result<bool, StoreError>;

    /// Writes something and takes it back: whether an append would work.
    fn probe(&mut self) -> Result<(), StoreError>;

    /// Where it keeps large results, if it does: a store in memory has no place for them.
    fn results(&self) -> Option<ResultFiles> {
        None
    }

    /// The half for everybody.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// The readers' half. Calls block for the length of a query, so async code makes them where blocking is allowed.
pub trait Reader: Send + Sync {
    /// A task with everything about it.
    fn task(&self, task_id: TaskId) -> Result<Option<Stored>, StoreError>;

    /// The same where it is known without a query, as of a task that was submitted a moment ago; never blocks.
    fn task_at_hand(&self, task_id: TaskId) -> Option<Stored>;

    /// What a worker needs beside the record, for each of these tasks: payload and newest checkpoint.
    fn hand_out(&self, task_ids: &[TaskId]) -> Result<Vec<HandOut>, StoreError>;

    /// A page of tasks.
    fn find(&self, query: &Query) -> Result<Page, StoreError>;

    /// The newest record of every task with a transition above `rev`, and tombstones of the deleted ones, in order of
    /// their `rev`, at most `limit`; or that the store no longer knows that far back.
    fn changed_since(&self, rev: u64, limit: usize) -> Result<ChangedSince, StoreError>;

    /// The steps of a task, oldest first; empty for an unknown one.
    fn history(&self, task_id: TaskId) -> Result<Vec<Transition>, StoreError>;

    /// Kept log lines of a task, oldest first. `newer` are lines on their way into the store, oldest first: they count as
    /// kept, whether they have arrived by now or not.
    fn logs(&self, task_id: TaskId, range: LogRange, newer: &[Arc<[LogLine]>]) -> Result<Vec<LogLine>, StoreError>;

    /// The `seq` of the newest kept log line of a task, 0 where there is none.
    fn log_end(&self, task_id: TaskId) -> Result<u64, StoreError>;

    /// Has the writer know of what a read met with, where it is lasting.
    fn report(&self, _error: &StoreError) {}

    /// Final tasks of a queue that ended before this, oldest first, at most `limit`. Those of workflows are none of them, here
    /// as below.
    fn ended_before(&self, queue: &Name, before: EndedAt, limit: usize) -> Result<Vec<TaskId>, StoreError>;

    /// The queues that have final tasks, by name; those that have had one for a moment only may be missing.
    fn queues_with_ended(&self) -> Result<Vec<Name>, StoreError>;

    /// Where the newest final tasks of a queue end that are no more than so many, and no more than so many bytes. It looks at
    /// each of them, as the index has it.
    fn beyond(&self, queue: &Name, count_max: u64, bytes_max: u64) -> Result<Beyond, StoreError>;

    /// How many of a queue ended since then, up to `limit`; some that just did may be missing.
    fn ended_since(&self, queue: &Name, since: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// The tasks of these workflows, each after the workflow that it is part of, in no order, at most `limit`.
    fn parts_of(&self, workflow_ids: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>, StoreError>;

    /// What these tasks depend on, in the same order: [`Links`] as text, where they have some.
    fn links(&self, task_ids: &[TaskId]) -> Result<Vec<Option<Json>>, StoreError>;

    /// A delivery that is owed or was given up, with the record that it tells of.
    fn delivery(&self, id: DeliveryId) -> Result<Option<OwedDelivery>, StoreError>;

    /// A page of deliveries, the newest first.
    fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError>;

    /// A page of the audit, the newest first.
    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError>;

    /// Those of `task_ids` that exist, in the same order; for looking up what an idempotency key stands for.
    fn records(&self, task_ids: &[TaskId]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// Looks for these tasks for whoever may not know whether they exist: the same is read, and as much, of one that is there and
    /// of one that is not, wherever it stands. In the same order.
    fn look_for(&self, task_ids: &[TaskId]) -> Result<Vec<Looked>, StoreError>;
}

/// What came of looking for a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub is_there: bool,
    /// Its newest record; where it is not there, that of the one before it, which is to be read all the same. Empty where there is
    /// none before it.
    pub record: Bytes,
}

/// When a task ended; those of one moment are in the order of their ids.
pub type EndedAt = (Timestamp, TaskId);

/// What is beyond the newest final tasks of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// All that ended before this, where there is any.
    pub before: Option<EndedAt>,
    /// When the newest ended.
    pub newest: Timestamp,
    /// How many tasks were looked at.
    pub looked: usize,
}

/// Payload and newest checkpoint of a task.
pub type HandOut = (Option<Json>, Option<Json>);

/// A task as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub record: Bytes,
    pub payload: Option<Json>,
    /// A result that is too large for the record; a smaller one stands in it.
    pub result: Option<Json>,
    /// Of a task with ties: [`Links`] as text.
    pub links: Option<Json>,
}

impl Stored {
    /// All of it in one piece.
    pub(crate) fn view(self) -> TaskView {
        let mut view = TaskView::of(&self.record);
        view.payload = self.payload;
        let links = self.links.and_then(|links| Links::parse(&links).ok());
        view.depends_on = links.map(|links| links.depends_on).unwrap_or_default();
        if self.result.is_some() {
            view.result = self.result;
            view.result_omitted = false;
        }
        view
    }
}

/// Which tasks, in which order, from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    pub filter: Filter,
    /// Case-insensitive text in title, type or id.
    pub text: Option<String>,
    /// At this time or later.
    pub created_after: Option<Timestamp>,
    /// Before this time.
    pub created_before: Option<Timestamp>,
    pub order: Order,
    /// Only tasks beyond this one, in the direction of `order`.
    pub beyond: Option<TaskId>,
    pub limit: usize,
}

impl Query {
    /// All tasks of a filter, the first `limit` of them.
    pub fn all(filter: Filter, order: Order, limit: usize) -> Query {
        Query { filter, text: None, created_after: None, created_before: None, order, beyond: None, limit }
    }

    /// The text that is looked for, as [`matches`](Self::matches) wants it.
    fn lower_text(&self) -> Option<String> {
        self.text.as_deref().map(str::to_lowercase)
    }

    /// Whether a record is meant. `text` is [`lower_text`](Self::lower_text), made once for many records.
    fn matches(&self, task: &Task, text: Option<&str>) -> bool {
        let title = || task.detail().and_then(|detail| detail.title.as_deref());
        self.is_beyond(task.task_id)
            && self.created_after.is_none_or(|after| task.created_at >= after)
            && self.created_before.is_none_or(|before| task.created_at < before)
            && self.filter.matches(task)
            && text.is_none_or(|text| has_text(title(), task.task_type.as_str(), task.task_id, text))
    }

    /// Whether a task stands beyond the last one of the page before.
    pub fn is_beyond(&self, task_id: TaskId) -> bool {
        match (self.beyond, self.order) {
            (None, _) => true,
            (Some(last), Order::NewestFirst) => task_id < last,
            (Some(last), Order::OldestFirst) => task_id > last,
        }
    }
}

/// Whether a task has this text, which is in lower case, somewhere that is looked through.
fn has_text(title: Option<&str>, task_type: &str, task_id: TaskId, text: &str) -> bool {
    title.is_some_and(|title| title.to_lowercase().contains(text))
        || task_type.to_lowercase().contains(text)
        || task_id.to_string().contains(text)
}

/// By creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// What a query found.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub tasks: Vec<(TaskId, Bytes)>,
    /// Whether there are more beyond the last.
    pub more: bool,
}

/// What happened after a `rev`.
#[derive(Clone, Debug)]
pub enum ChangedSince {
    Known {
        changes: Vec<ChangedTask>,
        more: bool,
    },
    /// Tombstones from then are gone.
    TooOld,
}

/// A task that changed.
#[derive(Clone, Debug)]
pub struct ChangedTask {
    pub task_id: TaskId,
    pub rev: u64,
    /// The newest record; of a deleted task the last one, so that filters can look at it.
    pub record: Bytes,
    pub gone: bool,
}

/// Which log lines.
#[derive(Clone, Copy, Debug)]
pub enum LogRange {
    /// The newest so many.
    Tail(usize),
    /// The oldest so many of those above a `seq`.
    After { seq: u64, limit: usize },
    /// All above a `seq`, and the newest so many up to it.
    Cut { seq: u64, tail: usize },
}

/// Why the store could not do it. The text is for the log of the hub, not for clients.
#[derive(Clone, Debug)]
pub struct StoreError {
    /// What was being done.
    pub step: &'static str,
    pub cause: String,
    /// Whether it cannot pass by itself, as a full disk or a lock can: what is stored is damaged.
    pub lasting: bool,
}

/// The step at which a store that another hub has open is found to be so.
const LOCKING: &str = "lock the data folder";

impl StoreError {
    /// Whether another hub has the store open.
    pub fn is_in_use(&self) -> bool {
        self.step == LOCKING
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

impl std::error::Error for StoreError {}
