//! Submissions that do not simply wait for others with their `concurrency_key`.
//!
//! That tasks with one key do not run beside each other is a limit ([`limits`](super::limits)). Here it is decided what a new
//! one does where as many are unfinished as may run: it waits as well, is refused, or takes the place of those before it,
//! of which only its own user's are ever touched.

use std::collections::{BTreeSet, HashMap};

use crate::task::{Name, OnConflict, Status, Task, TaskId};

use super::core::Engine;
use super::{Cx, Refusal};

/// Unfinished tasks by queue and key.
#[derive(Default)]
pub(super) struct Keyed(HashMap<(Name, Name), BTreeSet<TaskId>>);

impl Keyed {
    pub(super) fn insert(&mut self, task: &Task) {
        if let Some(key) = task.concurrency_key() {
            self.0.entry((task.queue.clone(), key.clone())).or_default().insert(task.task_id);
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        let Some(key) = task.concurrency_key() else { return };
        let name = (task.queue.clone(), key.clone());
        if let Some(tasks) = self.0.get_mut(&name) {
            tasks.remove(&task.task_id);
            if tasks.is_empty() {
                self.0.remove(&name);
            }
        }
    }
}

impl Engine {
    /// Makes way for a task with this key, or refuses it.
    pub(super) fn make_way(
        &mut self,
        strategy: OnConflict,
        queue: &Name,
        key: &Name,
        user: Option<&Name>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        if strategy == OnConflict::Queue {
            return Ok(());
        }
        let max = self.lanes.settings_of(queue).key_concurrency as usize;
        let Some(unfinished) = self.keyed.0.get(&(queue.clone(), key.clone())) else { return Ok(()) };
        let own: Vec<TaskId> =
            unfinished.iter().copied().filter(|id| self.tasks[id].user_id.as_ref() == user).collect();
        let count = if strategy == OnConflict::Reject { own.len() } else { unfinished.len() };
        if count < max {
            return Ok(());
        }
        if strategy == OnConflict::Reject {
            return Err(Refusal::KeyTaken);
        }
        for task_id in own {
            let runs = self.tasks[&task_id].status == Status::Running;
            if !runs || strategy == OnConflict::CancelRunning {
                // Of a task that is not final, and without a reason that could be too long.
                let _ = self.cancel(task_id, Some("replaced by a newer task".into()), cx);
            }
        }
        Ok(())
    }
}
