//! A task as it stands on the wire: flat, complete, and owned by whoever read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Author, Callbacks, Cancel, Failure, Json, Name, OnDependencyFailure, OpenList, Progress, ResultId, RetryPolicy,
    Status, TaskId, Timestamp, Unique, WaitsFor, Workflow,
};

/// A task as clients read it. Fields that are not set are absent, not null.
///
/// New fields may appear at any time: a reader ignores what it does not know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TaskView {
    pub task_id: TaskId,
    pub task_type: Name,
    pub queue: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Name>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub priority: i8,
    pub status: Status,
    /// The newest tick, or the last one of a task that runs no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Hand-outs so far, 0 before the first.
    pub attempt: u32,
    /// Attempts that failed or are running.
    pub tries: u32,
    pub max_attempts: u32,
    /// Attempts lost with their worker.
    pub crashes: u32,
    pub max_crashes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// By when it must be final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Timestamp>,
    /// Where that was asked for as so long: how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// By when it must have been handed out for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_grace_ms: Option<u64>,
    /// Tasks of its queue with the same key do not run beside each other, or only as many as the queue allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<Name>,
    /// What it is the only one of, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// How many submissions it is made of, where several become one; its payload is the list of theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gathered: Option<u32>,
    /// While it takes more: how many bytes they are so far, and what bounds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gather: Option<OpenList>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<TaskId>,
    /// How many tasks it depends on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dependencies: u32,
    /// What becomes of it when one of these fails or is cancelled.
    #[serde(default, skip_serializing_if = "OnDependencyFailure::is_default")]
    pub on_dependency_failure: OnDependencyFailure,
    /// The workflow that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<TaskId>,
    /// Its name there.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Name>,
    /// How much it counts in the progress of that, where that is not 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Its payload has places for results of what it depends on, which are put in when it is handed out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_results: bool,
    /// It is a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Workflow>,
    /// Which these are. Only where one task is asked for by its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// URLs that are told of its transitions, with the events that each is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callbacks: Option<Arc<Callbacks>>,
    /// As whom: who submitted it, where that may be taken back. It says no more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callbacks_by: Option<Author>,
    /// The schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Name>,
    /// The due time that it was made for; absent where its schedule was run by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// What a completed task left; absent with `result_omitted` where lists and events leave out a large one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub result: Option<Json>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result_omitted: bool,
    /// Of a result that was streamed: names this one, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_id: Option<ResultId>,
    /// … how long it is, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
    /// … and its content type. While the task runs, of what its attempt has uploaded so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_type: Option<String>,
    /// Why a failed task failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Why the newest failed try failed, while another follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
    /// The hub ended the newest attempt: it took too long, or was lost with its worker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_by_hub: bool,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Of a scheduled task: it waits for so long from `updated_at` on, whatever a clock does meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// When the newest attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    /// Who runs it, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
    /// How far a request to stop has come; it stays on the final record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// How long its lease lasts, while it runs and where its claim asked for more than the hub's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// The hub-wide number of its last transition.
    pub rev: u64,
    /// Progress ticks since that transition.
    #[serde(default)]
    pub tick: u64,
    /// Why it waits, the nearest reason first. Only where one task is asked for by its id, and while it waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<WaitsFor>,
    /// Only where one task is asked for by its id, or handed to a worker.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present_verbatim")]
    pub payload: Option<Json>,
    /// Only in the answer to a submission: the task was there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl TaskView {
    /// Reads a record that the hub itself wrote.
    pub(crate) fn of(record: &[u8]) -> TaskView {
        serde_json::from_slice(record).expect("the hub writes records that every client can read")
    }
}
