//! Tasks that wait for others.
//!
//! ```text
//! a ──► b      an edge leads from each task that another names to that one, while that one waits
//! ```
//!
//! A task that waits has a count of the tasks it names that *hold* it: those that are not final. Edges and counts follow
//! from the records: an edge stands for as long as the task behind it waits, and a task that becomes final, or is run
//! again, is taken off the counts of its dependents, or put on. It does not matter in which order records come, so a
//! revert and a restart need nothing of their own.
//!
//! What *follows* when the count is 0, or when a dependency has failed, is a consequence
//! ([`consequences`](super::consequences)), and never happens within the step that it follows from.

use std::collections::HashMap;

use crate::task::{Event, Failure, IdHasher, Invalid, Json, OnDependencyFailure, Status, TIES_MAX, Task, TaskId};

use super::consequences::Consequence;
use super::core::{Engine, Step};
use super::few::Few;
use super::workflows::is_shut;
use super::{Cx, Refusal};

/// Who waits for whom.
#[derive(Default)]
pub(super) struct Dependencies {
    /// Of each task that others wait for: which.
    dependents: HashMap<TaskId, Few<TaskId>, IdHasher>,
    /// Of each task that waits: how many of those that it names hold it.
    held_by: HashMap<TaskId, u32, IdHasher>,
}

/// What a waiting task may be held by: what it depends on, and the workflow that it is part of.
fn names(task: &Task) -> impl Iterator<Item = TaskId> {
    task.depends_on().iter().copied().chain(task.workflow_id())
}

impl Task {
    /// Whether it holds a task that waits and names it: until it is final, or, as the workflow of that, until it is open.
    pub(super) fn holds(&self, dependent: &Task) -> bool {
        match dependent.workflow_id() == Some(self.task_id) {
            true => is_shut(self),
            false => !self.status.is_final(),
        }
    }
}

impl Dependencies {
    /// A record stands that waits.
    pub(super) fn insert(&mut self, task: &Task, holds: impl Fn(TaskId) -> bool) {
        let mut held_by = 0;
        for dependency in names(task) {
            self.dependents.entry(dependency).or_default().insert(task.task_id);
            held_by += u32::from(holds(dependency));
        }
        self.held_by.insert(task.task_id, held_by);
    }

    /// It stands no more.
    pub(super) fn remove(&mut self, task: &Task) {
        for dependency in names(task) {
            let Some(dependents) = self.dependents.get_mut(&dependency) else { continue };
            dependents.remove(task.task_id);
            if dependents.len() == 0 {
                self.dependents.remove(&dependency);
            }
        }
        self.held_by.remove(&task.task_id);
    }

    /// A task holds some of its dependents from now on, or does not any more: `holds` says so of each, where it changed.
    pub(super) fn changed(&mut self, task_id: TaskId, holds: impl Fn(TaskId) -> Option<bool>) {
        let Some(dependents) = self.dependents.get(&task_id) else { return };
        for dependent in dependents.iter() {
            if let (Some(held_by), Some(holds)) = (self.held_by.get_mut(&dependent), holds(dependent)) {
                *held_by = if holds { *held_by + 1 } else { held_by.saturating_sub(1) };
            }
        }
    }

    /// The tasks that wait and name this one.
    fn dependents(&self, task_id: TaskId) -> impl Iterator<Item = TaskId> {
        self.dependents.get(&task_id).into_iter().flat_map(Few::iter)
    }

    fn fan_out(&self, task_id: TaskId) -> usize {
        self.dependents.get(&task_id).map_or(0, Few::len)
    }

    /// Whether a task that waits is held by nothing.
    fn is_free(&self, task_id: TaskId) -> bool {
        self.held_by.get(&task_id) == Some(&0)
    }
}

impl Engine {
    /// Those that a waiting task names and that hold it.
    pub(super) fn held_by<'e>(&'e self, task: &'e Task) -> impl Iterator<Item = TaskId> + 'e {
        names(task).filter(|dependency| self.tasks.get(dependency).is_some_and(|other| other.holds(task)))
    }

    /// Whether a new task may depend on this one.
    pub(super) fn check_dependency(&self, task_id: TaskId) -> Result<(), Refusal> {
        if !self.tasks.contains_key(&task_id) {
            return Err(Refusal::Invalid(Invalid::no_such_task(task_id)));
        }
        if self.dependencies.fan_out(task_id) >= TIES_MAX {
            return Err(Refusal::Invalid(Invalid::limit("", TIES_MAX as u64, "tasks that wait for one")));
        }
        Ok(())
    }

    /// Whether a task is to end because of this one.
    fn is_failed_by(&self, task: &Task, dependency: TaskId) -> bool {
        let failed = |status| matches!(status, Status::Failed | Status::Cancelled);
        task.on_dependency_failure() != OnDependencyFailure::Run
            && self.tasks.get(&dependency).is_some_and(|dependency| failed(dependency.status))
    }

    /// One that a task depends on, and because of which it is not to run.
    pub(super) fn failed_dependency(&self, task: &Task) -> Option<TaskId> {
        task.depends_on().iter().copied().find(|dependency| self.is_failed_by(task, *dependency))
    }

    /// Whether what follows from its end may not have been done yet. Until then its record is needed.
    pub(super) fn is_still_told(&self, task_id: TaskId) -> bool {
        !self.consequences.is_empty() && self.dependencies.fan_out(task_id) > 0
    }

    /// What follows from a step for the tasks that name this one.
    pub(super) fn tell_dependents(&mut self, task: &Task) {
        let task_id = task.task_id;
        for dependent in self.dependencies.dependents(task_id) {
            let Some(other) = self.tasks.get(&dependent) else { continue };
            if other.workflow_id() == Some(task_id) {
                // Where it ended, its tasks are cancelled.
                if !task.status.is_final() && self.dependencies.is_free(dependent) {
                    self.consequences.push(self.rev, Consequence::Release(dependent));
                }
            } else if self.is_failed_by(other, task_id) {
                self.consequences.push(self.rev, Consequence::FailedBy { task_id: dependent, dependency: task_id });
            } else if self.dependencies.is_free(dependent) {
                self.consequences.push(self.rev, Consequence::Release(dependent));
            }
        }
    }

    /// A task has begun to wait, perhaps for what is over already.
    pub(super) fn look_at_dependencies(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.waiting(task_id) else { return };
        match self.failed_dependency(task) {
            Some(dependency) => self.fail_by(task_id, dependency, cx),
            None => self.release(task_id, cx),
        }
    }

    /// Nothing that a task depends on holds it any more: it goes on to wait for its time, or is ready.
    pub(super) fn release(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.waiting(task_id).filter(|_| self.dependencies.is_free(task_id)) else { return };
        let workflow = task.workflow_id().and_then(|workflow_id| self.tasks.get(&workflow_id));
        if workflow.is_some_and(|workflow| workflow.status.is_final()) {
            // It is cancelled. Where the workflow was deleted, it goes on without.
            return;
        }
        let mut next = Task::clone(task);
        let is_early = next.run_at.is_some_and(|at| at > cx.now.wall);
        let event = if is_early { Event::Scheduled } else { Event::Pending };
        next.status = if is_early { Status::Scheduled } else { Status::Pending };
        self.step(Some(task_id), Step::new(next, event).note("what it depends on is over"), cx);
    }

    /// A task that waits ends, because one that it depends on did not complete.
    pub(super) fn fail_by(&mut self, task_id: TaskId, dependency: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.waiting(task_id).filter(|task| self.is_failed_by(task, dependency)) else { return };
        let status = self.tasks[&dependency].status;
        let note = format!(
            "it depends on {dependency}, which {}",
            if status == Status::Failed { "failed" } else { "was cancelled" }
        );
        let mut next = Task::clone(task);
        if task.on_dependency_failure() == OnDependencyFailure::Cancel {
            next.status = Status::Cancelled;
            next.run_at = None;
            next.run.get_or_insert_default().finished_at = Some(cx.now.at);
            self.step(Some(task_id), Step::new(next, Event::Cancelled).note(note), cx);
            return;
        }
        let details = format!(r#"{{"task_id":"{dependency}","status":"{status}"}}"#);
        let error = Failure { details: Some(Json::trusted(details)), ..Failure::new("dependency", note.clone()) };
        self.end_for_good(next, error, &note, cx);
    }

    /// After a restart: what followed from the last steps may not have been done.
    pub(super) fn look_at_what_waits(&mut self) {
        let mut waiting: Vec<TaskId> = self.dependencies.held_by.keys().copied().collect();
        waiting.sort_unstable();
        waiting.into_iter().for_each(|task_id| self.consequences.push(self.rev, Consequence::Waits(task_id)));
        let mut workflows: Vec<TaskId> = self.parts.keys().copied().collect();
        workflows.sort_unstable();
        workflows.into_iter().for_each(|task_id| self.consequences.push(self.rev, Consequence::Workflow(task_id)));
    }

    fn waiting(&self, task_id: TaskId) -> Option<&Task> {
        self.tasks.get(&task_id).filter(|task| task.status == Status::Waiting).map(|task| &**task)
    }
}
