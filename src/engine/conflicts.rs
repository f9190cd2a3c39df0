//! Submissions that do not simply wait for others with their `concurrency_key`.
//!
//! That tasks with one key do not run beside each other is a limit ([`limits`](super::limits)). Here it is decided what a new
//! one does where as many are unfinished as may run: it waits as well, is refused, or takes the place of those before it,
//! of which only its own user's are ever touched.

use std::collections::{BTreeSet, HashMap};

use crate::task::{Name, OnConflict, Status, Task, TaskId};

use super::core::Engine;
use super::{Cx, Refusal};

/// Why a task is cancelled in whose place a newer one comes.
pub(super) const REPLACED: &str = "replaced by a newer task";

/// Unfinished tasks by queue and key, those of each user beside each other: a submission looks at none but its own user's,
/// however many others have.
#[derive(Default)]
pub(super) struct Keyed(HashMap<(Name, Name), BTreeSet<Owned>>);

/// A task behind the user that it is of.
type Owned = (Option<Name>, TaskId);

fn owned(task: &Task) -> Owned {
    (task.user_id.clone(), task.task_id)
}

impl Keyed {
    pub(super) fn insert(&mut self, task: &Task) {
        if let Some(key) = task.concurrency_key() {
            self.0.entry((task.queue.clone(), key.clone())).or_default().insert(owned(task));
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        let Some(key) = task.concurrency_key() else { return };
        let name = (task.queue.clone(), key.clone());
        if let Some(tasks) = self.0.get_mut(&name) {
            tasks.remove(&owned(task));
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
        let first = (user.cloned(), TaskId::from_bytes([0; 16]));
        let own = unfinished.range(first..).take_while(|(of, _)| of.as_ref() == user).map(|(_, task_id)| *task_id);
        if strategy == OnConflict::Reject {
            return if own.take(max).count() < max { Ok(()) } else { Err(Refusal::KeyTaken) };
        }
        if unfinished.len() < max {
            return Ok(());
        }
        for task_id in own.collect::<Vec<_>>() {
            let runs = self.tasks[&task_id].status == Status::Running;
            if !runs || strategy == OnConflict::CancelRunning {
                // Of a task that is not final, and without a reason that could be too long.
                let _ = self.cancel(task_id, Some(REPLACED.into()), cx);
            }
        }
        Ok(())
    }
}
