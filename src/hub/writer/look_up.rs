//! What the engine needs and does not have: the writer reads it from the store.

use std::cell::Cell;
use std::collections::HashSet;

use super::Writer;
use crate::engine::{Command, NotNow, Now, Ticks};
use crate::hub::board::Board;
use crate::hub::results::told_result;
use crate::store::{Commit, Entry, Reader, StoreError};
use crate::task::{Json, Status, Task, TaskId};

/// What running tasks say, and what ended ones left.
pub(super) struct Told<'a> {
    pub(super) board: &'a Board,
    pub(super) reader: &'a dyn Reader,
    /// Why a result could not be read.
    pub(super) failed: Cell<Option<StoreError>>,
}

impl Ticks for Told<'_> {
    fn newest(&self, task_id: TaskId) -> Option<Json> {
        self.board.newest(task_id)
    }

    fn spoke(&self, task_id: TaskId, attempt: u32) -> Option<u64> {
        self.board.spoke(task_id, attempt)
    }

    fn result(&self, task_id: TaskId) -> Result<Option<Json>, NotNow> {
        told_result(self.reader, task_id).map_err(|error| {
            self.failed.set(Some(error));
            NotNow
        })
    }
}

impl Writer {
    /// Brings what a command speaks of and the engine does not have at hand from the store.
    pub(super) fn look_up(&mut self, command: &Command, now: Now) -> Result<(), StoreError> {
        let (mut looked_for, mut families, mut keys) = (HashSet::new(), HashSet::new(), HashSet::new());
        loop {
            for key in self.engine.absent_keys(command) {
                if keys.insert(key)
                    && let Some(entry) = self.store.key(key, now.at)?
                {
                    self.engine.admit_key(entry);
                }
            }
            let mut absent = self.engine.absent(command);
            absent.retain(|task_id| looked_for.insert(*task_id));
            let family = self.engine.absent_family(command).filter(|id| families.insert(*id));
            if absent.is_empty() && family.is_none() {
                break;
            }
            for task_id in absent {
                if let Some(task) = self.store.task(task_id)? {
                    self.engine.admit(task);
                }
            }
            if let Some(workflow_id) = family {
                let (workflow, parts) = (self.store.task(workflow_id)?, self.parts(workflow_id)?);
                self.engine.admit_family(workflow_id, workflow, parts);
            }
        }
        Ok(())
    }

    /// The tasks of a final workflow.
    fn parts(&mut self, workflow_id: TaskId) -> Result<Vec<Task>, StoreError> {
        let mut parts = Vec::new();
        for (_, task_id) in self.shared.reader.parts_of(&[workflow_id], usize::MAX)? {
            parts.extend(self.store.task(task_id)?);
        }
        Ok(parts)
    }

    /// Where the log of a task goes on that is handed out again, if that is not known any more. The next attempt cannot
    /// number its lines without.
    pub(super) fn look_up_log_ends(&mut self, commit: &Commit) {
        for Entry { change, .. } in &commit.changes {
            let task = &change.task;
            if task.status != Status::Running || !self.shared.board.lacks_log_end(task) {
                continue;
            }
            let end = match self.shared.unwritten.end(task.task_id) {
                Some(end) => Ok(end),
                None => self.store.log_end(task.task_id),
            };
            match end {
                Ok(end) => self.shared.board.remember_log_end(task.task_id, end),
                Err(error) => tracing::error!(task.id = %task.task_id, %error, "the end of a log cannot be read"),
            }
        }
    }
}
