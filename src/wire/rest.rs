//! Bodies of the REST calls.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::{FairBy, LIMITED_USERS_MAX, QueueSettings, Rate, UserLimits};
use crate::task::{
    self, Failure, FilterSpec, Json, LogLine, Name, NewTask, Status, TaskId, TaskView, Timestamp, Transition,
};

use super::worker::patterns;
use super::{HandOut, Held};

/// The most tasks of a batch. They are decided and committed as one, and the writer does nothing else meanwhile.
pub const BATCH_LEN_MAX: usize = 10_000;

/// `POST /tasks/batch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    #[serde(deserialize_with = "task::read_tasks")]
    pub tasks: Vec<NewTask>,
}

/// `POST /tasks/{id}/cancel`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /tasks/cancel`, `/tasks/retry` and `/tasks/delete`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkBody {
    /// Which tasks; of these, those that it can be done to.
    pub filter: FilterSpec,
    /// Nothing is done: only how many it would be is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Of a cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a call on many tasks did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkChanged {
    /// How many tasks were meant.
    pub matched: u64,
    /// How many of them were changed, or would have been.
    pub changed: u64,
    /// There are more: the call is to be made again.
    pub more: bool,
}

/// `POST /tasks/{id}/retry`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryBody {
    /// In place of the payload it has; `null` is a payload like any other.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present_verbatim")]
    pub payload: Option<Json>,
}

/// `GET /tasks`, and the answer to a batch.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskList {
    pub tasks: Vec<TaskView>,
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// `POST /workflows` and `GET /workflows/{id}`: a workflow with its tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkflowView {
    pub workflow: TaskView,
    pub tasks: Vec<TaskView>,
    /// Which of them depend on which: the dependency first. Only where the workflow was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<(TaskId, TaskId)>,
}

/// `GET /tasks/{id}/result`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskResult {
    pub task_id: TaskId,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub result: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// `GET /tasks/{id}/history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    pub transitions: Vec<Transition>,
}

/// `GET /tasks/{id}/logs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogList {
    pub lines: Vec<LogLine>,
}

/// `POST /worker/claim`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimBody {
    pub worker_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "patterns")]
    pub task_types: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "patterns")]
    pub queues: Option<Vec<String>>,
    /// 1–100, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub max: Option<u32>,
    /// ≤ 60,000, default 0. The hub answers after 55,000 at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub wait_ms: Option<u64>,
    /// How long each lease lasts, ≤ 3,600,000. The hub's own is the shortest, and the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub lease_ms: Option<u64>,
}

/// The answer to a claim.
#[derive(Clone, Debug, Deserialize)]
pub struct Claimed {
    pub tasks: Vec<HandOut>,
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
}

/// The answer to `POST …/attempts/{n}/VERB`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AttemptAnswer {
    pub cancel_requested: bool,
}

/// How many tasks there are of each status; all seven are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    pub waiting: u64,
    pub scheduled: u64,
    pub pending: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
}

/// What stands in one queue, or of one type: unfinished tasks only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    pub waiting: u64,
    pub scheduled: u64,
    pub pending: u64,
    pub running: u64,
}

/// What stands in all the queues, or is of all the types, that are not named: they are many, and these have the fewest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherStats {
    /// How many they are.
    pub names: u64,
    #[serde(flatten)]
    pub counts: QueueStats,
}

/// Tasks a second, averaged over the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub created: f64,
    pub completed: f64,
    pub failed: f64,
    pub cancelled: f64,
}

/// `GET /stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    pub tasks: TaskCounts,
    /// The 200 with the most unfinished tasks.
    pub queues: BTreeMap<String, QueueStats>,
    /// All others together, where there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues_other: Option<OtherStats>,
    /// As the queues.
    pub types: BTreeMap<String, QueueStats>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types_other: Option<OtherStats>,
    pub rates: Rates,
    /// Absent for a caller who does not see all tasks, as are the sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u64>,
    pub epoch: String,
    pub rev: u64,
    pub uptime_ms: u64,
    /// How long the oldest transition has waited that was not handed to every live client; 0 when all were told all.
    #[serde(default)]
    pub feed_lag_ms: u64,
}

/// `GET /queues`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueList {
    pub queues: Vec<QueueView>,
}

/// A queue: what is set of it, or the defaults, and how many unfinished tasks stand in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueView {
    pub name: Name,
    /// Of the change that set it; absent where nothing is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    #[serde(flatten)]
    pub settings: QueueSettings,
    /// What stands in it; absent for a caller who does not see all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<QueueStats>,
}

/// `PUT /queues/{name}`: all that can be set. What a queue is read with besides is passed over, so that it can be put back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueBody {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub key_concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub user_concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fair_by: Option<FairBy>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub ageing_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub retain_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub retain_count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub retain_bytes: Option<u64>,
    #[serde(default, skip_serializing)]
    pub r#type: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    pub name: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    pub rev: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    pub updated_at: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    pub paused: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    pub tasks: Option<IgnoredAny>,
}

impl From<QueueBody> for QueueSettings {
    fn from(body: QueueBody) -> QueueSettings {
        let usual = QueueSettings::default();
        QueueSettings {
            concurrency: body.concurrency,
            key_concurrency: body.key_concurrency.unwrap_or(usual.key_concurrency),
            user_concurrency: body.user_concurrency,
            rate: body.rate,
            fair_by: body.fair_by.unwrap_or(usual.fair_by),
            ageing_ms: body.ageing_ms,
            retain_ms: body.retain_ms,
            retain_count: body.retain_count,
            retain_bytes: body.retain_bytes,
            paused: usual.paused,
        }
    }
}

/// `PUT /limits`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsBody {
    #[serde(default)]
    pub user: UserLimits,
    #[serde(default, deserialize_with = "users")]
    pub users: BTreeMap<String, UserLimits>,
}

fn users<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, UserLimits>, D::Error> {
    task::optional_map(deserializer, LIMITED_USERS_MAX, "users").map(Option::unwrap_or_default)
}

/// The answer to `POST /queues/{name}/purge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    pub matched: u64,
    pub changed: u64,
}

/// `GET /workers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
}

/// A worker the hub knows of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerView {
    pub worker_id: String,
    pub task_types: Vec<String>,
    pub queues: Vec<String>,
    pub concurrency: u32,
    pub running: Vec<WorkerRunning>,
    /// Attempts that were taken from it, and that it has not let go of: each still takes one of its places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<WorkerRunning>,
    pub connected_at: Timestamp,
    pub last_heard_at: Timestamp,
    /// `socket`, `http`, or `away` within the grace after a cut.
    pub link: String,
    #[serde(default)]
    pub draining: bool,
}

/// A task that a worker runs.
pub type WorkerRunning = Held;
