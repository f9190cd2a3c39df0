//! How far running workflows are.
//!
//! A workflow says nothing of itself. What its tasks come to is counted by the engine, and shown after each commit; how far
//! the running ones are is known here. The two become one progress when somebody is about to see it, as with any tick, so a
//! tick of one of its tasks costs a workflow one look-up.

use std::collections::BTreeMap;

use super::{Board, Live};
use crate::store::Entry;
use crate::task::{ChangeKind, Progress, Rollup, Status, Task, TaskId, weight_of};

/// The tasks of a workflow that run, with their weights.
pub(super) type Running = BTreeMap<TaskId, u64>;

impl Board {
    /// A task that runs from now on, or does not any more, may be part of a workflow.
    pub(super) fn runs_within(&self, task: &Task, runs: bool) {
        let Some(workflow_id) = task.workflow_id() else { return };
        match runs {
            true => _ = self.within.entry(workflow_id).or_default().insert(task.task_id, weight_of(task)),
            false => {
                if let Some(mut running) = self.within.get_mut(&workflow_id) {
                    running.remove(&task.task_id);
                }
                self.within.remove_if(&workflow_id, |_, running| running.is_empty());
            }
        }
    }

    /// Shows what the tasks of running workflows come to after a commit. Says of which workflows that is a tick.
    pub(in crate::hub) fn roll_up(&self, entries: &[Entry], rollup: impl Fn(TaskId) -> Option<Rollup>) -> Vec<TaskId> {
        let mut changed: Vec<TaskId> = Vec::new();
        for Entry { change, .. } in entries.iter().filter(|entry| entry.change.kind != ChangeKind::Gone) {
            let task = &change.task;
            let own = (task.is_workflow() && task.status == Status::Running).then_some(task.task_id);
            for workflow_id in own.into_iter().chain(task.workflow_id()) {
                if changed.last() != Some(&workflow_id) {
                    changed.push(workflow_id);
                }
            }
        }
        changed.sort_unstable();
        changed.dedup();
        let mut ticked = Vec::new();
        for workflow_id in changed {
            if let Some(mut live) = self.live.get_mut(&workflow_id) {
                live.rollup = rollup(workflow_id).map(Box::new);
            }
            ticked.extend(self.stir(Some(workflow_id)));
        }
        ticked
    }

    /// The same of every workflow that runs, when the hub starts.
    pub(in crate::hub) fn roll_up_all(&self, rollup: impl Fn(TaskId) -> Option<Rollup>) {
        for mut live in self.live.iter_mut() {
            live.rollup = rollup(*live.key()).map(Box::new);
        }
    }

    /// A task of a workflow has gone on: so have that, and those around it. Says which of them run.
    pub(in crate::hub) fn stir(&self, workflow_id: Option<TaskId>) -> Vec<TaskId> {
        let (mut stirred, mut next) = (Vec::new(), workflow_id);
        while let Some(workflow_id) = next
            && let Some(mut live) = self.live.get_mut(&workflow_id)
        {
            live.tick += 1;
            live.line = None;
            stirred.push(workflow_id);
            next = live.workflow_id;
        }
        stirred
    }

    /// Brings the progress of a running workflow up to date, if it is one.
    pub(super) fn refresh_workflow(&self, task_id: TaskId) {
        if let Some(progress) = self.progress_within(task_id)
            && let Some(mut live) = self.live.get_mut(&task_id)
        {
            live.progress = Some(progress);
        }
    }

    fn progress_within(&self, workflow_id: TaskId) -> Option<Progress> {
        // No two look-ups at a time: the others may be in the same part of the map.
        let rollup = self.live.get(&workflow_id)?.rollup.as_deref().copied()?;
        let running = self.within.get(&workflow_id).map(|running| running.clone()).unwrap_or_default();
        Some(rollup.progress(running.into_iter().map(|(task_id, weight)| (weight, self.percentage(task_id)))))
    }

    fn percentage(&self, task_id: TaskId) -> f64 {
        let of = |progress: Progress| progress.percentage;
        let own = |live: &Live| live.progress.as_ref().and_then(|progress| progress.percentage);
        // Let go of before the next look-up.
        let is_workflow = self.live.get(&task_id).is_some_and(|live| live.rollup.is_some());
        let percentage = match is_workflow {
            true => self.progress_within(task_id).and_then(of),
            false => self.live.get(&task_id).and_then(|live| own(&live)),
        };
        percentage.unwrap_or(0.0)
    }
}
