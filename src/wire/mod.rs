//! Every public JSON shape and code, in one place: what the routes, the two sockets and the Rust clients share.
//!
//! Shapes that readers of other versions meet are open (a reader ignores what it does not know); shapes that people send
//! us are closed (`deny_unknown_fields`), so that a typo is told and not swallowed.

mod access;
mod callbacks;
mod live;
mod problem;
mod rest;
mod schedules;
mod task_types;
mod worker;

pub use access::{
    ACCESS_PAGE_LEN_MAX, ApiTokenBody, ApiTokenList, ApiTokenMade, ApiTokenView, AuditList, InUseView, ME_QUEUES_MAX,
    MeView, QueueInUseView, RevocationBody,
};
pub use callbacks::{CallbackList, CallbackView};
pub use live::{
    CloseCode, HelloLimits, LiveHello, LiveOp, LiveSays, LogsSpec, Since, SnapshotOrder, SnapshotSpec, bye_line,
    gone_line, open_task_line, record_in, stats_line,
};
pub use problem::{Code, Problem};
pub use rest::{
    AttemptAnswer, BATCH_LEN_MAX, BatchBody, BulkBody, BulkChanged, CancelBody, ClaimBody, Claimed, History,
    LimitsBody, LogList, OtherStats, Purged, QueueBody, QueueList, QueueStats, QueueView, Rates, RetryBody, Stats,
    TaskCounts, TaskList, TaskResult, WorkerList, WorkerRunning, WorkerView, WorkflowView,
};
pub use schedules::{LastRunView, SCHEDULES_LEN_MAX, ScheduleBody, ScheduleList, ScheduleView};
pub use task_types::{TASK_TYPES_LEN_MAX, TaskTypeBody, TaskTypeList, TaskTypeView};
pub use worker::{
    CONCURRENCY_MAX, CompleteBody, FailBody, HandOut, Held, HubSays, LogBody, LogLineBody, NoBody, PATTERNS_MAX,
    ProgressBody, WorkerHello, WorkerOp, WorkerRefresh, WorkerSays,
};

/// The least wait of a client that comes back after a goodbye, in milliseconds.
pub const RETRY_LEAST_MS: u64 = 500;
/// The longest wait that a hub ever asks for.
pub const RETRY_MOST_MS: u64 = 15_000;
/// The longest wait where the hub is well, and only has no room for the moment.
pub const RETRY_FULL_MS: u64 = 5_000;

/// The subprotocol of the live stream.
pub const LIVE_PROTOCOL: &str = "taskhub.v1";
/// The subprotocol of workers.
pub const WORKER_PROTOCOL: &str = "taskhub.worker.v1";
