//! What a live client tells: how the connection stands, and what is new in the picture of each subscription.

use std::sync::Arc;

use super::SubId;
use crate::task::{Event, LogLine, TaskId, TaskView};
use crate::wire::Stats;

/// How the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveStatus {
    /// Not yet caught up for the first time.
    Connecting,
    /// All that happened has been told, but for what is on its way.
    Live,
    /// Cut; another attempt follows by itself.
    Offline,
    /// Connected again, catching up.
    Resuming,
    /// The hub does not want this connection. Nothing follows.
    Refused,
}

/// What is new.
#[derive(Clone, Debug)]
pub enum LiveEvent {
    /// The connection stands otherwise. `retry_ms` says when an offline one tries again.
    Status { status: LiveStatus, behind: bool, retry_ms: Option<u64>, reason: Option<String> },
    /// This many transitions were merged, because this client was slow. Until the next status it is `behind`.
    Lag { collapsed: u64 },
    /// The hub complained about something that is no subscription.
    Complaint { code: String, detail: String },
    /// News of a subscription.
    Of(SubId, TaskEvent),
}

/// What is new in the picture of a subscription.
#[derive(Clone, Debug)]
pub enum TaskEvent {
    /// The whole picture: what was told before is replaced. `truncated`: there were more than the limit.
    Snapshot {
        tasks: Vec<Arc<TaskView>>,
        truncated: bool,
    },
    /// A transition. `event` is `None` where a newer hub has a word for it that this client does not know.
    Task {
        event: Option<Event>,
        task: Arc<TaskView>,
    },
    /// A transition after which the filter does not match any more; or, without an event, a task that was dropped to
    /// make room.
    Leave {
        event: Option<Event>,
        task: Arc<TaskView>,
    },
    /// A progress report, in the record that now carries it.
    Progress {
        task: Arc<TaskView>,
    },
    /// Log lines that were not told before.
    Log {
        task_id: TaskId,
        lines: Vec<LogLine>,
    },
    /// Deleted, or not visible any more.
    Gone {
        task_id: TaskId,
    },
    Stats(Box<Stats>),
    /// The subscription ended: refused by the hub with this code, or (`refused`) with the whole connection.
    Ended {
        code: String,
        detail: String,
    },
}

impl TaskEvent {
    pub(super) fn ended(code: &str, detail: &str) -> TaskEvent {
        TaskEvent::Ended { code: code.into(), detail: detail.into() }
    }
}
