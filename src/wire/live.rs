//! What live clients and the hub say to each other.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{RETRY_FULL_MS, RETRY_LEAST_MS, RETRY_MOST_MS, Stats};
use crate::task::{self, Event, FilterSpec, LogLine, Progress, TaskId, TaskView};

/// A message from a live client: every field any `op` may have.
#[derive(Clone, Default, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<bool>,
}

/// Without the token: this is printed where things go wrong.
impl fmt::Debug for LiveOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LiveOp { op, id, sub, .. } = self;
        f.debug_struct("LiveOp").field("op", op).field("id", id).field("sub", sub).finish_non_exhaustive()
    }
}

/// How much of what exists is sent first.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// ≤ 1,000, default 200.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub limit: Option<u32>,
    #[serde(default, deserialize_with = "task::or_default")]
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "task::saturated")]
    pub tail: Option<u32>,
}

/// A message from the hub, as a live client reads it. Read with [`LiveSays::parse`].
#[derive(Clone, Debug)]
pub enum LiveSays {
    Hello(LiveHello),
    Subscribed {
        sub: String,
        resumed: bool,
    },
    Snapshot {
        sub: String,
        tasks: Vec<TaskView>,
        more: bool,
        truncated: bool,
    },
    Task {
        event: Option<Event>,
        task: Box<TaskView>,
    },
    Progress {
        task_id: TaskId,
        rev: u64,
        tick: u64,
        progress: Box<Progress>,
    },
    Log {
        task_id: TaskId,
        lines: Vec<LogLine>,
    },
    Gone {
        task_id: TaskId,
        rev: u64,
    },
    Stats(Box<Stats>),
    /// A queue, a schedule, or the limits of users: as it is set now, or that it is not any more.
    Setting {
        kind: String,
        name: String,
        rev: u64,
        deleted: bool,
    },
    /// All that is set up to `rev` was said; where it is `all` there is, what was not among it is not set.
    Settings {
        rev: u64,
        all: bool,
    },
    Mark {
        rev: u64,
    },
    Lag {
        collapsed: u64,
    },
    Reset {
        sub: String,
        /// The history is another one than it was resumed from, though it has the same name: a store was put back.
        epoch: bool,
    },
    Unsubscribed {
        sub: String,
    },
    Pong,
    Error {
        id: Option<u64>,
        code: String,
        detail: String,
    },
    Bye {
        code: u16,
        retry_ms: Option<[u64; 2]>,
    },
    /// A word of a newer hub.
    Unknown,
}

/// The hub's first word, and its answer to a token.
#[derive(Clone, Debug, Deserialize)]
pub struct LiveHello {
    /// Absent in the first word.
    #[serde(default)]
    pub id: Option<u64>,
    pub epoch: String,
    pub rev: u64,
    pub ping_ms: Option<u64>,
    #[serde(default)]
    pub limits: Option<HelloLimits>,
    #[serde(default)]
    pub user_id: Option<String>,
    /// False in the first word of a hub that wants to know who calls before it says more.
    #[serde(default = "authenticated")]
    pub authenticated: bool,
}

fn authenticated() -> bool {
    true
}

/// Of what the hub's first word says that a client has to keep to, what this one looks at.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct HelloLimits {
    #[serde(default)]
    pub messages_per_s: Option<u64>,
}

impl LiveSays {
    /// Reads one message. The kind is looked up first, and then only what that kind has is read: serde's own tagged
    /// enums cannot hold JSON that is passed on unread.
    pub fn parse(line: &str) -> Result<LiveSays, serde_json::Error> {
        use serde_json::from_str;

        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct OfSub {
            sub: String,
            #[serde(default)]
            mode: String,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            tasks: Vec<TaskView>,
            #[serde(default)]
            more: bool,
            #[serde(default)]
            truncated: bool,
        }
        #[derive(Deserialize)]
        struct OfTask {
            event: String,
            task: Box<TaskView>,
        }
        #[derive(Deserialize)]
        struct OfTick {
            task_id: TaskId,
            rev: u64,
            tick: u64,
            progress: Box<Progress>,
        }
        #[derive(Deserialize)]
        struct OfLog {
            task_id: TaskId,
            lines: Vec<LogLine>,
        }
        #[derive(Deserialize)]
        struct OfGone {
            task_id: TaskId,
            rev: u64,
        }
        #[derive(Deserialize)]
        struct OfSetting {
            name: String,
            rev: u64,
            #[serde(default)]
            deleted: bool,
        }
        #[derive(Deserialize)]
        struct OfSettings {
            rev: u64,
            #[serde(default)]
            all: bool,
        }
        #[derive(Deserialize)]
        struct OfMark {
            rev: u64,
        }
        #[derive(Deserialize)]
        struct OfLag {
            #[serde(default)]
            collapsed: u64,
        }
        #[derive(Deserialize)]
        struct OfError {
            #[serde(default)]
            id: Option<u64>,
            code: String,
            #[serde(default)]
            detail: String,
        }
        #[derive(Deserialize)]
        struct OfBye {
            code: u16,
            #[serde(default)]
            retry_ms: Option<[u64; 2]>,
        }

        Ok(match from_str::<Kind>(line)?.kind.as_ref() {
            "hello" => LiveSays::Hello(from_str(line)?),
            "subscribed" => {
                let OfSub { sub, mode, .. } = from_str(line)?;
                LiveSays::Subscribed { sub, resumed: mode == "resumed" }
            }
            "snapshot" => {
                let OfSub { sub, tasks, more, truncated, .. } = from_str(line)?;
                LiveSays::Snapshot { sub, tasks, more, truncated }
            }
            "task" => {
                let OfTask { event, task } = from_str(line)?;
                LiveSays::Task { event: Event::parse(&event), task }
            }
            "progress" => {
                let OfTick { task_id, rev, tick, progress } = from_str(line)?;
                LiveSays::Progress { task_id, rev, tick, progress }
            }
            "log" => {
                let OfLog { task_id, lines } = from_str(line)?;
                LiveSays::Log { task_id, lines }
            }
            "gone" => {
                let OfGone { task_id, rev } = from_str(line)?;
                LiveSays::Gone { task_id, rev }
            }
            "stats" => LiveSays::Stats(from_str(line)?),
            kind @ ("queue" | "limits" | "schedule" | "task_type") => {
                let OfSetting { name, rev, deleted } = from_str(line)?;
                LiveSays::Setting { kind: kind.to_owned(), name, rev, deleted }
            }
            "settings" => {
                let OfSettings { rev, all } = from_str(line)?;
                LiveSays::Settings { rev, all }
            }
            "mark" => LiveSays::Mark { rev: from_str::<OfMark>(line)?.rev },
            "lag" => LiveSays::Lag { collapsed: from_str::<OfLag>(line)?.collapsed },
            "reset" => {
                let OfSub { sub, reason, .. } = from_str(line)?;
                LiveSays::Reset { sub, epoch: reason == "epoch" }
            }
            "unsubscribed" => LiveSays::Unsubscribed { sub: from_str::<OfSub>(line)?.sub },
            "pong" => LiveSays::Pong,
            "error" => {
                let OfError { id, code, detail } = from_str(line)?;
                LiveSays::Error { id, code, detail }
            }
            "bye" => {
                let OfBye { code, retry_ms } = from_str(line)?;
                LiveSays::Bye { code, retry_ms }
            }
            _ => LiveSays::Unknown,
        })
    }
}

/// Why the hub closes a socket. Below 4500: come back and resume. From 4500: do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    BrokenProtocol = 1002,
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

impl CloseCode {
    /// Between which bounds a client picks its wait before it comes back, in milliseconds, where so many clients come
    /// back with it: a thousand each second, so that a page that is alone is live again at once.
    pub fn retry_ms(self, clients: usize) -> [u64; 2] {
        let most = match self {
            CloseCode::Overloaded | CloseCode::TooManyConnections => RETRY_FULL_MS,
            _ => RETRY_MOST_MS.min(2 * RETRY_LEAST_MS + clients as u64),
        };
        [RETRY_LEAST_MS, most]
    }
}

/// The last line of a hub that ends a connection, while it has so many clients.
pub fn bye_line(code: CloseCode, clients: usize) -> Bytes {
    let [least, most] = code.retry_ms(clients);
    format!(r#"{{"type":"bye","code":{},"retry_ms":[{least},{most}]}}"#, code as u16).into()
}

/// Begins the line that tells of a transition; the record as JSON and `}` follow.
pub fn open_task_line(out: &mut Vec<u8>, event: Event, rev: u64) {
    out.extend_from_slice(b"{\"type\":\"task\",\"event\":\"");
    out.extend_from_slice(event.as_str().as_bytes());
    out.extend_from_slice(b"\",\"rev\":");
    out.extend_from_slice(itoa::Buffer::new().format(rev).as_bytes());
    out.extend_from_slice(b",\"task\":");
}

/// The line that tells of counts and rates.
pub fn stats_line(stats: &Stats) -> Bytes {
    let counts = serde_json::to_string(stats).expect("counts are plain values");
    counts.replacen('{', r#"{"type":"stats","#, 1).into()
}

/// The line that tells of a deletion.
/// The record within a line of a task; `None` where the line is another.
pub fn record_in(line: &[u8]) -> Option<&[u8]> {
    const TASK: &[u8] = br#"{"type":"task","#;
    const RECORD: &[u8] = br#","task":"#;
    if !line.starts_with(TASK) {
        return None;
    }
    let at = line.windows(RECORD.len()).position(|part| part == RECORD)? + RECORD.len();
    line.get(at..)?.strip_suffix(b"}")
}

pub fn gone_line(task_id: TaskId, rev: u64) -> Bytes {
    format!(r#"{{"type":"gone","task_id":"{task_id}","rev":{rev}}}"#).into()
}
