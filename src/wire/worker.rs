//! What workers and the hub say to each other.
//!
//! Messages are flat JSON objects that name their kind in `op` (worker) or `type` (hub). Reading goes through one flat
//! struct a direction, because serde's tagged enums cannot hold JSON that is passed on unread.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::task::{self, Failure, Json, LOG_LINES_MAX, Level, Progress, TaskId, TaskView};

/// The most tasks a worker may run at once.
pub const CONCURRENCY_MAX: u32 = 1_000;
/// The most patterns of types or queues. A worker that takes more than a hundred kinds of work takes all.
pub const PATTERNS_MAX: usize = 100;

/// A worker introducing itself.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct WorkerHello {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub worker_id: String,
    /// Types it can run, may end in `*`; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_types: Option<Vec<String>>,
    /// Queues it serves, may end in `*`; `default` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// How many tasks it runs at once, 1–1,000; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// What it still runs, after a reconnect, even if that is nothing. A process that is new leaves it out: what one
    /// before it held under this name is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<Vec<Held>>,
}

/// Without the token: this is printed where things go wrong.
impl fmt::Debug for WorkerHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerHello { token: _, worker_id, task_types, queues, concurrency, holding } = self;
        let mut f = f.debug_struct("WorkerHello");
        f.field("worker_id", worker_id).field("task_types", task_types).field("queues", queues);
        f.field("concurrency", concurrency).field("holding", holding).finish_non_exhaustive()
    }
}

/// One attempt of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    pub task_id: TaskId,
    pub attempt: u32,
}

/// A line as a worker sends it; the hub gives it its `seq` and time. What it says is taken whatever it is: lines are cut,
/// never refused, and one that reads oddly takes no others with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLineBody {
    #[serde(default, deserialize_with = "Level::loose")]
    pub level: Level,
    #[serde(default, deserialize_with = "task::any_text")]
    pub message: String,
}

pub(super) fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    task::optional_list(deserializer, PATTERNS_MAX, "patterns")
}

/// A worker holds no more than it may run at once.
fn holding<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Held>>, D::Error> {
    /// Closed, unlike those that the hub sends.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Holding {
        task_id: TaskId,
        attempt: u32,
    }
    let holding: Option<Vec<Holding>> = task::optional_list(deserializer, CONCURRENCY_MAX as usize, "attempts")?;
    let held = |Holding { task_id, attempt }| Held { task_id, attempt };
    Ok(holding.map(|holding| holding.into_iter().map(held).collect()))
}

/// Reads the newest [`LOG_LINES_MAX`] lines: of one task no more are kept.
fn lines<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LogLineBody>, D::Error> {
    struct Newest;
    impl<'de> Visitor<'de> for Newest {
        type Value = Vec<LogLineBody>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<LogLineBody>, A::Error> {
            let mut lines = Vec::new();
            while let Some(line) = seq.next_element()? {
                if lines.len() == 2 * LOG_LINES_MAX {
                    lines.drain(..LOG_LINES_MAX);
                }
                lines.push(line);
            }
            let older = lines.len().saturating_sub(LOG_LINES_MAX);
            lines.drain(..older);
            Ok(lines)
        }
    }
    deserializer.deserialize_seq(Newest)
}

fn optional_lines<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<LogLineBody>>, D::Error> {
    #[derive(Deserialize)]
    struct Lines(#[serde(deserialize_with = "lines")] Vec<LogLineBody>);
    Ok(Option::<Lines>::deserialize(deserializer)?.map(|Lines(lines)| lines))
}

/// A newer token of a worker.
#[derive(Clone, Serialize)]
pub struct WorkerRefresh {
    pub token: String,
}

/// Without the token: this is printed where things go wrong.
impl fmt::Debug for WorkerRefresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerRefresh").finish_non_exhaustive()
    }
}

/// A message from a worker, checked for its parts. Serialized as it goes over the socket.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum WorkerOp {
    Hello(WorkerHello),
    Progress {
        task_id: TaskId,
        attempt: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<Progress>,
        #[serde(skip_serializing_if = "Option::is_none")]
        checkpoint: Option<Json>,
    },
    Log {
        task_id: TaskId,
        attempt: u32,
        lines: Vec<LogLineBody>,
    },
    Complete {
        task_id: TaskId,
        attempt: u32,
        result: Json,
    },
    Fail {
        task_id: TaskId,
        attempt: u32,
        error: Failure,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    Cancelled {
        task_id: TaskId,
        attempt: u32,
    },
    Release {
        task_id: TaskId,
        attempt: u32,
    },
    /// Adds tasks to the one that runs. Answered by `spawned`, or `refused`, with the same `id`.
    Spawn {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        task_id: TaskId,
        attempt: u32,
        /// The same key and tasks again are answered by the first ones.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// A list of tasks, unread: what is wrong in it is told as a refusal.
        tasks: Json,
    },
    /// Goes on with a newer token of the same holder. Answered only where it is not taken.
    Refresh(WorkerRefresh),
    Heartbeat,
    Drain,
}

/// A message from a worker as it is read: every field any `op` may have. [`WorkerSays::op`] sorts them.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSays {
    pub op: String,
    pub token: Option<String>,
    pub worker_id: Option<String>,
    #[serde(default, deserialize_with = "patterns")]
    pub task_types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "patterns")]
    pub queues: Option<Vec<String>>,
    #[serde(default, deserialize_with = "task::saturated")]
    pub concurrency: Option<u32>,
    #[serde(default, deserialize_with = "holding")]
    pub holding: Option<Vec<Held>>,
    pub task_id: Option<TaskId>,
    pub attempt: Option<u32>,
    pub progress: Option<Progress>,
    pub checkpoint: Option<Json>,
    #[serde(default, deserialize_with = "optional_lines")]
    pub lines: Option<Vec<LogLineBody>>,
    #[serde(default, deserialize_with = "Json::present")]
    pub result: Option<Json>,
    pub error: Option<Failure>,
    pub retryable: Option<bool>,
    #[serde(default, deserialize_with = "task::saturated")]
    pub retry_after_ms: Option<u64>,
    pub id: Option<u64>,
    pub key: Option<String>,
    #[serde(default, deserialize_with = "Json::present_verbatim")]
    pub tasks: Option<Json>,
}

/// Without the token: this is printed where things go wrong.
impl fmt::Debug for WorkerSays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerSays { op, task_id, attempt, .. } = self;
        f.debug_struct("WorkerSays")
            .field("op", op)
            .field("task_id", task_id)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}

impl WorkerSays {
    /// The message it is, or what it lacks.
    pub fn op(self) -> Result<WorkerOp, String> {
        let held = || match (self.task_id, self.attempt) {
            (Some(task_id), Some(attempt)) => Ok(Held { task_id, attempt }),
            _ => Err(format!("{:?} needs task_id and attempt", self.op)),
        };
        Ok(match self.op.as_str() {
            "hello" => WorkerOp::Hello(WorkerHello {
                token: self.token,
                worker_id: self.worker_id.ok_or("\"hello\" needs worker_id")?,
                task_types: self.task_types,
                queues: self.queues,
                concurrency: self.concurrency,
                holding: self.holding,
            }),
            "progress" => {
                let Held { task_id, attempt } = held()?;
                WorkerOp::Progress { task_id, attempt, progress: self.progress, checkpoint: self.checkpoint }
            }
            "log" => {
                let Held { task_id, attempt } = held()?;
                WorkerOp::Log { task_id, attempt, lines: self.lines.ok_or("\"log\" needs lines")? }
            }
            "complete" => {
                let Held { task_id, attempt } = held()?;
                WorkerOp::Complete { task_id, attempt, result: self.result.unwrap_or_else(Json::null) }
            }
            "fail" => {
                let Held { task_id, attempt } = held()?;
                let error = self.error.unwrap_or_else(|| Failure::new("error", ""));
                let (retryable, retry_after_ms) = (self.retryable.unwrap_or(true), self.retry_after_ms);
                WorkerOp::Fail { task_id, attempt, error, retryable, retry_after_ms }
            }
            "cancelled" => {
                let Held { task_id, attempt } = held()?;
                WorkerOp::Cancelled { task_id, attempt }
            }
            "release" => {
                let Held { task_id, attempt } = held()?;
                WorkerOp::Release { task_id, attempt }
            }
            "spawn" => {
                let Held { task_id, attempt } = held()?;
                let tasks = self.tasks.ok_or("\"spawn\" needs tasks")?;
                WorkerOp::Spawn { id: self.id, task_id, attempt, key: self.key, tasks }
            }
            "refresh" => WorkerOp::Refresh(WorkerRefresh { token: self.token.ok_or("\"refresh\" needs token")? }),
            "heartbeat" => WorkerOp::Heartbeat,
            "drain" => WorkerOp::Drain,
            other => return Err(format!("{other:?} is no op of a worker")),
        })
    }
}

/// A message from the hub to a worker, as a worker reads it: every field any `type` may have.
#[derive(Clone, Debug, Deserialize)]
pub struct HubSays {
    #[serde(rename = "type")]
    pub kind: String,
    pub lease_ms: Option<u64>,
    pub heartbeat_ms: Option<u64>,
    #[serde(default)]
    pub keep: Vec<Held>,
    #[serde(default)]
    pub drop: Vec<Held>,
    /// Boxed: most messages have none, and they are moved about as much.
    pub task: Option<Box<TaskView>>,
    pub task_id: Option<TaskId>,
    pub attempt: Option<u32>,
    pub checkpoint: Option<Json>,
    /// A word in a refusal, a number in `bye`.
    #[serde(default, deserialize_with = "word")]
    pub code: Option<String>,
    pub detail: Option<String>,
    pub field: Option<String>,
    pub reason: Option<String>,
    /// Of what was asked for with it.
    pub id: Option<u64>,
    /// The tasks that were added, in their order.
    #[serde(default)]
    pub task_ids: Vec<TaskId>,
    pub retry_ms: Option<[u64; 2]>,
}

/// A word, or a number as one.
fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Word(String),
        Number(u16),
    }
    Ok(Option::<Code>::deserialize(deserializer)?.map(|code| match code {
        Code::Word(word) => word,
        Code::Number(number) => number.to_string(),
    }))
}

/// A task handed to a worker over plain HTTP.
#[derive(Clone, Debug, Deserialize)]
pub struct HandOut {
    pub task: TaskView,
    pub attempt: u32,
    #[serde(default)]
    pub checkpoint: Option<Json>,
}

/// The body of `POST …/attempts/{n}/progress`. These bodies are the messages of the same name less `op`, `task_id` and
/// `attempt`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Json>,
}

/// The body of `POST …/attempts/{n}/log`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogBody {
    #[serde(deserialize_with = "lines")]
    pub lines: Vec<LogLineBody>,
}

/// The body of `POST …/attempts/{n}/complete`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteBody {
    /// Null where absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub result: Option<Json>,
}

/// The body of `POST …/attempts/{n}/fail`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// True where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// Milliseconds until the next try, in place of what the task's `retry` says.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub retry_after_ms: Option<u64>,
}

/// The body of a call that has nothing to say: `{}`, or none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoBody {}
