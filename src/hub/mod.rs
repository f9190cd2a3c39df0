//! The hub: one writer that owns the truth, and a handle for everybody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::{Accepts, Refusal, Report, SubmitKey};
use crate::feed::Feed;
use crate::store::{ChangedSince, LogRange, Order, Page, Query, Store, Stored};
use crate::task::{Failure, Filter, Json, LogLine, Name, NewTask, Progress, Task, TaskId, Transition};

/// Who is calling. An open hub has one caller, who may do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    pub user_id: Option<Name>,
}

/// Why a call did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubError {
    /// The domain says no.
    Refused(Refusal),
    /// Nothing was written, nothing has changed: try again later.
    StorageUnavailable,
    /// More waits for the writer than it may hold.
    Overloaded,
    /// The hub has stopped.
    Stopped,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct HubOptions {
    pub engine: crate::engine::Options,
    pub retain: Duration,
    pub max_hz: f64,
}

/// The answer to a submission.
pub struct Submitted {
    /// The records, in the order they were submitted.
    pub records: Vec<Bytes>,
    /// Whether an idempotency key brought back what it stood for.
    pub replayed: bool,
}

/// What a wait waits for.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Final,
    /// A `rev` above this one, or final.
    RevAbove(u64),
}

/// A worker's connection: what the hub pushes comes out, what the worker says goes in.
pub struct WorkerLink {}

/// What the hub says to a connected worker.
pub enum Push {
    /// `checkpoint` is what any earlier attempt left.
    Run {
        task: Arc<Task>,
        payload: Option<Json>,
        checkpoint: Option<Json>,
    },
    Stop {
        task_id: TaskId,
        attempt: u32,
        reason: Option<Box<str>>,
    },
    Ack {
        task_id: TaskId,
        attempt: u32,
    },
    Refused {
        task_id: TaskId,
        attempt: u32,
        refusal: Refusal,
    },
    /// The hub goes down: finish what runs.
    Drain,
    /// Say goodbye now, and close with 4001.
    Goodbye,
    /// A newer connection took this worker's place: close with 4506.
    Replaced,
}

/// A handle to the hub.
#[derive(Clone)]
pub struct Hub {}

#[allow(unused_variables, missing_docs)]
impl Hub {
    pub fn start(store: Box<dyn Store>, options: HubOptions) -> Result<Hub, crate::store::StoreError> {
        todo!()
    }
    pub async fn submit_as(
        &self,
        who: &Principal,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        todo!()
    }
    pub async fn cancel_as(
        &self,
        who: &Principal,
        task_id: TaskId,
        reason: Option<String>,
    ) -> Result<Arc<Task>, HubError> {
        todo!()
    }
    pub async fn retry_as(&self, who: &Principal, task_id: TaskId) -> Result<Arc<Task>, HubError> {
        todo!()
    }
    pub async fn delete_as(&self, who: &Principal, task_id: TaskId) -> Result<(), HubError> {
        todo!()
    }

    /// Record with live progress, payload, large result. `None`: no such task.
    pub async fn task(&self, task_id: TaskId) -> Result<Option<Stored>, HubError> {
        todo!()
    }
    /// As `task`, but not before `until` holds or `patience` is over.
    pub async fn wait_for(
        &self,
        task_id: TaskId,
        until: Until,
        patience: Duration,
    ) -> Result<Option<Stored>, HubError> {
        todo!()
    }
    pub async fn find(&self, query: Query) -> Result<Page, HubError> {
        todo!()
    }
    pub async fn changed_since(&self, rev: u64, limit: usize) -> Result<ChangedSince, HubError> {
        todo!()
    }
    pub async fn history(&self, task_id: TaskId) -> Result<Option<Vec<Transition>>, HubError> {
        todo!()
    }
    pub async fn logs(&self, task_id: TaskId, range: LogRange) -> Result<Option<Vec<LogLine>>, HubError> {
        todo!()
    }
    /// The newest progress line of each running task that matches, for a client that resumes.
    pub fn progress_lines(&self, filter: &Filter) -> Vec<Bytes> {
        todo!()
    }
    pub fn stats(&self) -> crate::wire::Stats {
        todo!()
    }
    pub async fn workers(&self) -> Result<Vec<crate::engine::WorkerState>, HubError> {
        todo!()
    }
    pub fn epoch(&self) -> &str {
        todo!()
    }
    /// The last `rev` that is committed and published.
    pub fn rev(&self) -> u64 {
        todo!()
    }
    pub fn feed(&self) -> &Feed {
        todo!()
    }
    pub fn options(&self) -> &HubOptions {
        todo!()
    }

    /// A worker introduces itself on a socket. Answers with its link and (keep, drop).
    #[allow(clippy::type_complexity)]
    pub async fn attach_worker(
        &self,
        worker_id: Name,
        accepts: Accepts,
        concurrency: u32,
        holding: Vec<(TaskId, u32)>,
    ) -> Result<(WorkerLink, Vec<(TaskId, u32)>, Vec<(TaskId, u32)>), HubError> {
        todo!()
    }
    /// Claims up to `max` tasks over HTTP, waiting up to `patience` for the first.
    #[allow(clippy::type_complexity)]
    pub async fn claim(
        &self,
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        patience: Duration,
    ) -> Result<Vec<(Arc<Task>, Option<Json>, Option<Json>)>, HubError> {
        todo!()
    }
    /// A report over HTTP; answers whether a cancel was requested.
    pub async fn report(&self, task_id: TaskId, attempt: u32, report: Report) -> Result<bool, HubError> {
        todo!()
    }
    /// A tick and/or a checkpoint of a running attempt. A checkpoint is durable when this returns. Answers whether a
    /// cancel was requested.
    pub async fn progress(
        &self,
        task_id: TaskId,
        attempt: u32,
        progress: Option<Progress>,
        checkpoint: Option<Json>,
    ) -> Result<bool, HubError> {
        todo!()
    }
    /// Log lines of a running attempt.
    pub fn log(
        &self,
        task_id: TaskId,
        attempt: u32,
        lines: Vec<(crate::task::Level, String)>,
    ) -> Result<bool, HubError> {
        todo!()
    }

    /// Whether the store takes writes; `Err` says since when it does not, in words.
    pub fn storage(&self) -> Result<(), String> {
        todo!()
    }
    pub fn is_draining(&self) -> bool {
        todo!()
    }
    /// Resolves when watchers should be told goodbye.
    pub async fn goodbye(&self) {
        todo!()
    }
    /// Stops new work, waits for what runs (at most `patience`), gives the rest back, then lets goodbyes be said.
    pub async fn drain(&self, patience: Duration) {
        todo!()
    }
    /// Ends the writer once everything accepted is settled. The store is closed when this returns.
    pub async fn stop(&self) {
        todo!()
    }
}

#[allow(unused_variables, missing_docs)]
impl WorkerLink {
    /// Everything to push that has gathered; waits for at least one. `None` when the hub is gone.
    pub async fn next(&mut self, out: &mut Vec<Push>) -> Option<()> {
        todo!()
    }
    /// A report; its answer comes as `Push::Ack` or `Push::Refused`. Never blocks.
    pub fn report(&self, task_id: TaskId, attempt: u32, report: Report) {
        todo!()
    }
    /// Sign of life; call on every message or heartbeat, it is cheap.
    pub fn heard(&self) {
        todo!()
    }
    /// The worker wants no new work.
    pub fn retire(&self) {
        todo!()
    }
    /// A tick and/or checkpoint, not waited for; refused when the attempt is over.
    pub fn progress(
        &self,
        task_id: TaskId,
        attempt: u32,
        progress: Option<Progress>,
        checkpoint: Option<Json>,
    ) -> Result<(), Refusal> {
        todo!()
    }
    pub fn log(&self, task_id: TaskId, attempt: u32, lines: Vec<(crate::task::Level, String)>) -> Result<(), Refusal> {
        todo!()
    }
}
