//! What clients missed: the newest record of every task that changed after a `rev`, ready to be told.
//!
//! After a restart everyone asks for the same. So it is read once, and what was read is looked into and written as lines
//! once, for all who asked in the meantime.

use bytes::Bytes;

use crate::seldom::Seldom;
use crate::store::{ChangedSince, ChangedTask};
use crate::task::{Event, Task};
use crate::wire::{gone_line, open_task_line};

/// Changed tasks read at once.
pub(super) const MISSED_STEP: usize = 1_000;

/// What happened after a `rev`.
#[derive(Debug)]
pub enum Missed {
    Known {
        /// By the `rev` of their newest change.
        tasks: Vec<MissedTask>,
        /// Everything up to here is in it.
        rev: u64,
        more: bool,
    },
    /// The hub no longer knows what was deleted since then.
    TooOld,
}

/// A task that changed.
#[derive(Debug)]
pub struct MissedTask {
    /// Its newest record; of a deleted task the last one, so that filters can look at it.
    pub task: Task,
    /// The line that tells of it.
    pub line: Bytes,
}

impl Missed {
    /// Of what the store found after `rev`.
    pub(super) fn of(found: ChangedSince, rev: u64) -> Missed {
        match found {
            ChangedSince::TooOld => Missed::TooOld,
            ChangedSince::Known { changes, more } => Missed::Known {
                rev: changes.last().map_or(rev, |last| last.rev),
                tasks: changes.iter().filter_map(missed_task).collect(),
                more,
            },
        }
    }
}

fn missed_task(change: &ChangedTask) -> Option<MissedTask> {
    match Task::parse(&change.record) {
        Ok(task) => {
            let line =
                if change.gone { gone_line(change.task_id, change.rev) } else { task_line(&task, &change.record) };
            Some(MissedTask { task, line })
        }
        Err(error) => {
            // It is met again by each client that resumes.
            static UNREADABLE: Seldom = Seldom::new();
            if let Some(unsaid) = UNREADABLE.happened() {
                tracing::error!(task.id = %change.task_id, %error, unsaid, "a stored record cannot be read");
            }
            None
        }
    }
}

/// A record that is sent for its state, not for the step that led there.
fn task_line(task: &Task, record: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(record.len() + 80);
    open_task_line(&mut line, Event::of(task.status), task.rev);
    line.extend_from_slice(record);
    line.push(b'}');
    line.into()
}
