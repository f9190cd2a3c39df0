//! One step in the hub's history.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Event, Json, Links, Name, Status, Task, Timestamp};

/// A step that was decided: the new record of one task, and what goes down with it once.
#[derive(Clone, Debug)]
pub struct Change {
    /// The hub-wide number of this step: the one before it plus one, without holes.
    pub rev: u64,
    pub at: Timestamp,
    pub kind: ChangeKind,
    /// The record this one follows; `None` for a new task.
    pub prev: Option<Arc<Task>>,
    /// The new record. Of a deleted task, the last one.
    pub task: Arc<Task>,
    /// A few words for the history: why, by whom.
    pub note: Option<Box<str>>,
    /// With the first record of a task that has one, with one that got another; and with each that gathered one more, that
    /// ([`item`](Self::item)).
    pub payload: Option<Json>,
    /// With the final record, where the result is too large to stand in it.
    pub result: Option<Json>,
}

/// What kind of step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Transition(Event),
    /// The task was deleted.
    Gone,
}

impl Change {
    /// The place of its payload in the list that the task gathers, where it is an item of that.
    pub fn item(&self) -> Option<u32> {
        let gathered = self.task.gathered()?;
        let before = self.prev.as_ref().and_then(|prev| prev.gathered());
        (before != Some(gathered)).then_some(gathered - 1)
    }

    /// What is written beside the record of a new task of its ties.
    pub fn links(&self) -> Option<&Links> {
        self.task.links().filter(|_| self.prev.is_none())
    }

    /// The line this step leaves in the history of its task; `None` for a deletion, which takes the history along.
    pub fn transition(&self) -> Option<Transition> {
        let ChangeKind::Transition(event) = self.kind else { return None };
        // The attempt that just ended is worth naming: the new record no longer says who ran it.
        let worker_id = self.task.worker_id().or(self.prev.as_ref().and_then(|prev| prev.worker_id()));
        Some(Transition {
            rev: self.rev,
            at: self.at,
            event,
            status: self.task.status,
            attempt: self.task.attempt,
            worker_id: worker_id.cloned(),
            note: self.note.as_deref().map(str::to_owned),
        })
    }
}

/// A line in the history of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    pub rev: u64,
    pub at: Timestamp,
    pub event: Event,
    pub status: Status,
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
