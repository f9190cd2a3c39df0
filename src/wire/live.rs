//! What live clients and the hub say to each other.

use serde::{Deserialize, Serialize};

use crate::task::{FilterSpec, LogLine, Progress, TaskId, TaskView};

/// A message from a live client: every field any `op` may have.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveOp {
    /// `hello`, `subscribe`, `unsubscribe`, `refresh`, `ping`.
    pub op: String,
    /// Chosen by the client, repeated in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The client's name for the subscription, 1–64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hz: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<bool>,
}

/// How much of what exists is sent first.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// ≤ 1,000, default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(default)]
    pub order: SnapshotOrder,
}

/// By creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotOrder {
    #[default]
    Desc,
    Asc,
}

/// A place in the history, taken from a `mark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    pub epoch: String,
    pub rev: u64,
}

/// The log lines of the one task a filter names.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsSpec {
    /// How many of the newest lines come first; default 100, at most 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
}

/// A message from the hub, as a live client reads it: every field any `type` may have.
#[derive(Clone, Debug, Deserialize)]
pub struct LiveSays {
    #[serde(rename = "type")]
    pub kind: String,
    pub id: Option<u64>,
    pub epoch: Option<String>,
    pub rev: Option<u64>,
    pub ping_ms: Option<u64>,
    pub sub: Option<String>,
    pub mode: Option<String>,
    pub tasks: Option<Vec<TaskView>>,
    pub more: Option<bool>,
    pub truncated: Option<bool>,
    pub event: Option<String>,
    pub task: Option<TaskView>,
    pub task_id: Option<TaskId>,
    pub tick: Option<u64>,
    pub attempt: Option<u32>,
    pub progress: Option<Progress>,
    pub lines: Option<Vec<LogLine>>,
    pub collapsed: Option<u64>,
    pub reason: Option<String>,
    pub code: Option<serde_json::Value>,
    pub detail: Option<String>,
    pub retry_ms: Option<[u64; 2]>,
    pub user_id: Option<String>,
}

/// Why the hub closes a socket. Below 4500: come back and resume. From 4500: do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    TooBig = 1009,
    Restarting = 4001,
    TooSlow = 4002,
    NoPong = 4003,
    TokenExpired = 4004,
    RateLimited = 4005,
    Overloaded = 4006,
    BadMessage = 4500,
    Unauthenticated = 4501,
    Forbidden = 4503,
    TooManyConnections = 4504,
    UnknownProtocol = 4505,
    Replaced = 4506,
}
