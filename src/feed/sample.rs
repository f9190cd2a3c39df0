//! Tasks, steps and lines for the tests of the feed.

use std::sync::Arc;

use super::handle::Published;
use super::logs::{LogEvent, log_events};
use crate::task::{ChangeKind, Event, Level, LogLine, Name, Status, Task, TaskId, Timestamp};

pub fn id(n: u32) -> TaskId {
    TaskId::from_bytes((0x0190_0000_0000_7000_8000_0000_0000_0000u128 + u128::from(n)).to_be_bytes())
}

pub fn task(task_id: TaskId, status: Status) -> Task {
    Task {
        task_id,
        task_type: Name::new("t"),
        queue: Name::new("default"),
        user_id: None,
        rev: 1,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        run_at: None,
        delayed: false,
        priority: 0,
        status,
        attempt: 0,
        tries: 0,
        max_attempts: 1,
        crashes: 0,
        max_crashes: 3,
        detail: None,
        run: None,
    }
}

/// A step of a task to `status`; the line says `rev task status`.
pub fn published(rev: u64, task_id: TaskId, prev: Option<&Published>, status: Status) -> Published {
    Published {
        rev,
        kind: ChangeKind::Transition(Event::Pending),
        task: Arc::new(Task { rev, ..task(task_id, status) }),
        prev: prev.map(|prev| prev.task.clone()),
        line: format!("{rev} {task_id} {status}").into(),
    }
}

/// A log event whose line is just `text`.
pub fn log_event(task_id: TaskId, seq: u64, attempt: u32, text: &str) -> LogEvent {
    let at = Timestamp::from_millis(0);
    let line = LogLine { seq, at, attempt, level: Level::Info, message: String::new() };
    let event = log_events(task_id, &[line]).remove(0);
    LogEvent { line: text.to_owned().into(), ..event }
}
