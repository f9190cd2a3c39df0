//! What a watcher knows of the tasks: pure state.
//!
//! One rule carries everything: a task is ordered by (`rev`, `tick`), `rev` growing with each transition and `tick` with
//! each progress report between two of them. Whatever is not above what is known of a task is ignored. That makes
//! snapshots, duplicates and replays harmless, so nothing here needs to know where a record came from.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::task::{FilterSpec, Progress, TaskId, TaskView};

/// Deleted tasks whose `rev` is remembered, so that an old record that comes late does not bring them back. A late record
/// trails the deletion by seconds; ten thousand deletions are a long time for any watcher.
const GONE_MAX: usize = 10_000;

/// The newest record of each task.
#[derive(Debug, Default)]
pub(super) struct Picture {
    known: HashMap<TaskId, Known>,
    /// Tasks in the order they last made a transition, the longest quiet first.
    order: BTreeMap<u64, TaskId>,
    steps: u64,
    /// Progress of a transition whose record has not come yet.
    ahead: HashMap<TaskId, (u64, u64, Progress)>,
    gone: HashMap<TaskId, u64>,
    gone_order: VecDeque<TaskId>,
}

#[derive(Debug)]
struct Known {
    task: Arc<TaskView>,
    step: u64,
}

impl Picture {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, task_id: &TaskId) -> Option<&Arc<TaskView>> {
        self.known.get(task_id).map(|known| &known.task)
    }

    /// Takes a full record. Returns what is now known, or `None` when that was known already.
    pub(super) fn apply(&mut self, mut task: TaskView) -> Option<Arc<TaskView>> {
        let task_id = task.task_id;
        match self.known.get(&task_id) {
            Some(known) if (task.rev, task.tick) <= (known.task.rev, known.task.tick) => return None,
            None if self.gone.get(&task_id).is_some_and(|rev| *rev >= task.rev) => return None,
            _ => {}
        }
        if self.ahead.get(&task_id).is_some_and(|(rev, ..)| *rev <= task.rev)
            && let Some((rev, tick, progress)) = self.ahead.remove(&task_id)
            && (rev, tick) > (task.rev, task.tick)
        {
            (task.tick, task.progress) = (tick, Some(progress));
        }
        self.steps += 1;
        let task = Arc::new(task);
        self.order.insert(self.steps, task_id);
        if let Some(old) = self.known.insert(task_id, Known { task: task.clone(), step: self.steps }) {
            self.order.remove(&old.step);
        }
        self.gone.remove(&task_id);
        Some(task)
    }

    /// Takes a progress report. Returns the record that now carries it, or `None` when there is nothing new to see.
    pub(super) fn progress(
        &mut self,
        task_id: TaskId,
        rev: u64,
        tick: u64,
        progress: Progress,
    ) -> Option<Arc<TaskView>> {
        let known = &mut self.known.get_mut(&task_id)?.task;
        if (rev, tick) <= (known.rev, known.tick) {
            return None;
        }
        if rev > known.rev {
            // Taking its rev now would make the record of that transition look old when it comes.
            if self.ahead.get(&task_id).is_none_or(|(r, t, _)| (rev, tick) > (*r, *t)) {
                self.ahead.insert(task_id, (rev, tick, progress));
            }
            return None;
        }
        // Copies the record if an event still holds the one from before.
        let task = Arc::make_mut(known);
        (task.tick, task.progress) = (tick, Some(progress));
        Some(known.clone())
    }

    /// Takes a deletion. Returns whether the task was known, and has not changed since.
    pub(super) fn gone(&mut self, task_id: TaskId, rev: u64) -> bool {
        if self.get(&task_id).is_some_and(|task| task.rev > rev) {
            return false;
        }
        let known = self.forget(&task_id);
        if self.gone.insert(task_id, rev).is_none() {
            self.gone_order.push_back(task_id);
        }
        while self.gone_order.len() > GONE_MAX {
            let oldest = self.gone_order.pop_front().expect("it is not empty");
            self.gone.remove(&oldest);
        }
        known
    }

    /// Drops a record without a memory of it: the task may come back with any `rev`.
    pub(super) fn forget(&mut self, task_id: &TaskId) -> bool {
        self.ahead.remove(task_id);
        let Some(known) = self.known.remove(task_id) else { return false };
        self.order.remove(&known.step);
        true
    }

    /// The record to let go of first when there are too many: one that ended and has been quiet the longest.
    pub(super) fn oldest(&self) -> Option<Arc<TaskView>> {
        // All of the first hundred busy: looking further would cost more than it saves.
        let mut quiet = self.order.values().take(100).filter_map(|task_id| self.get(task_id));
        let first = quiet.next()?;
        let ended = |task: &&Arc<TaskView>| task.status.is_final();
        Some(std::iter::once(first).chain(quiet).find(ended).unwrap_or(first).clone())
    }

    /// Forgets everything, also what was deleted: the hub is on another history, its numbers mean something else.
    pub(super) fn clear(&mut self) {
        *self = Picture::default();
    }
}

/// Whether the record is meant by the filter: what [`Filter::matches`](crate::task::Filter::matches) is for the hub's
/// own records.
pub(super) fn matches(filter: &FilterSpec, task: &TaskView) -> bool {
    let pattern = |list: &Option<Vec<String>>, name: &str| {
        list.as_ref().is_none_or(|list| {
            list.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            })
        })
    };
    filter.task_id.as_ref().is_none_or(|ids| ids.contains(&task.task_id))
        && filter.workflow_id.as_ref().is_none_or(|ids| task.workflow_id.is_some_and(|id| ids.contains(&id)))
        && filter.status.as_ref().is_none_or(|statuses| statuses.contains(&task.status))
        && pattern(&filter.task_type, task.task_type.as_str())
        && pattern(&filter.queue, task.queue.as_str())
        && filter.user_id.as_ref().is_none_or(|users| {
            task.user_id.as_ref().is_some_and(|user| users.iter().any(|wanted| wanted == user.as_str()))
        })
        && filter.labels.iter().flatten().all(|(key, values)| task.labels.get(key).is_some_and(|v| values.contains(v)))
}
