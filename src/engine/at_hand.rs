//! The records at hand.
//!
//! Every task that is not final is here, and some that are: those that ended lately, and those that a command speaks of, which
//! whoever drives the engine brings from the store before it is decided ([`Engine::absent`], [`Engine::admit`]). What is
//! final and was not asked for is let go of between batches ([`Engine::shed`]).

use std::sync::Arc;

use crate::task::{Change, ChangeKind, Task, TaskId};

use super::core::Engine;
use super::workflows::Parts;
use super::{Command, Cx, Refusal};

/// How many final tasks stay at hand.
const FINALS_RESIDENT_MAX: usize = 1_024;

impl Engine {
    /// The tasks a command is about that are not at hand. Whoever drives the engine looks them up in the store,
    /// [`admit`](Self::admit)s those that exist, and asks again until it has looked for all: so a decision about old tasks is
    /// made from their records.
    pub fn absent(&self, command: &Command) -> Vec<TaskId> {
        let ids: &[TaskId] = match command {
            Command::Submit { submission, .. } => {
                let known = submission.known().map(|(.., task_id)| task_id).filter(|task_id| self.is_absent(*task_id));
                return known.chain(self.absent_holders(submission.uniques())).collect();
            }
            Command::Retry { task_id, .. } if !self.is_absent(*task_id) => {
                // What goes on with it, and what all of that depends on.
                let again: Vec<TaskId> = self.around(*task_id).chain(self.undone_with(*task_id)).collect();
                let known = again.iter().filter_map(|id| self.tasks.get(id));
                let depends_on = known.flat_map(|task| task.depends_on());
                let own = depends_on.chain(&again).copied().filter(|id| self.is_absent(*id));
                let unique = self.tasks.get(task_id).and_then(|task| task.unique());
                return own.chain(self.absent_holders(unique.into_iter())).collect();
            }
            Command::Cancel { task_id, .. }
            | Command::CancelWaiting { task_id, .. }
            | Command::Retry { task_id, .. }
            | Command::Update { task_id, .. }
            | Command::Report { task_id, .. } => std::slice::from_ref(task_id),
            // With the workflows around them, which may need them.
            Command::Delete { task_id } => return self.absent_around(*task_id).into_iter().collect(),
            Command::Expire { task_ids } => return task_ids.iter().filter_map(|id| self.absent_around(*id)).collect(),
            _ => return Vec::new(),
        };
        ids.iter().copied().filter(|id| self.is_absent(*id)).collect()
    }

    pub(super) fn is_absent(&self, task_id: TaskId) -> bool {
        !self.tasks.contains_key(&task_id) && !self.gone.contains(&task_id)
    }

    /// Takes in a final task from the store. Ignored if it is at hand, deleted in this batch, or not final: every
    /// unfinished task is here.
    pub fn admit(&mut self, task: Task) {
        if task.status.is_final() && self.is_absent(task.task_id) {
            self.finals.push_back(task.task_id);
            self.tasks.insert(task.task_id, Arc::new(task));
        }
    }

    /// Lets go of final tasks beyond those kept at hand, and of workers that are gone. To be called between batches, when
    /// the store and the engine say the same: what a revert would bring back must still be here.
    pub fn shed(&mut self) {
        for task_id in self.gone.drain().filter(|task_id| !self.tasks.contains_key(task_id)) {
            self.parts.remove(&task_id);
        }
        self.journal.clear();
        self.quotas.round_over();
        self.rates_round_over();
        self.keys.round_over();
        self.consequences.round_over();
        self.forget_leaving();
        if !self.consequences.is_empty() {
            // They may ask how a task ended.
            return;
        }
        let mut kept = Vec::new();
        while self.finals.len() > FINALS_RESIDENT_MAX {
            let Some(task_id) = self.finals.pop_front() else { break };
            if !self.tasks.get(&task_id).is_some_and(|task| task.status.is_final()) {
                continue;
            }
            if self.parts.get(&task_id).is_some_and(Parts::has_open) {
                kept.push(task_id);
                continue;
            }
            self.parts.remove(&task_id);
            self.tasks.remove(&task_id);
        }
        self.finals.extend(kept);
    }

    pub(super) fn delete(&mut self, task_id: TaskId, cx: &mut Cx<'_>) -> Result<(), Refusal> {
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?.clone();
        let has_open = self.parts.get(&task_id).is_some_and(Parts::has_open);
        if !task.status.is_final() || has_open || self.is_needed(&task) || self.is_still_told(task_id) {
            return Err(Refusal::TaskNotFinished);
        }
        self.rev += 1;
        self.replace(Some(&task), None, cx.now);
        self.gone.insert(task_id);
        cx.batch.changes.push(Change {
            rev: self.rev,
            at: cx.now.at,
            kind: ChangeKind::Gone,
            prev: Some(task.clone()),
            task,
            note: None,
            payload: None,
            result: None,
        });
        Ok(())
    }
}
