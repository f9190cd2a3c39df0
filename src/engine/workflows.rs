//! Workflows: tasks whose work is other tasks.
//!
//! ```text
//! waiting, scheduled ──► pending ──► running ──► completed   none failed, none was cancelled
//!        shut             open       one of its      ├──► failed      one failed
//!                                    tasks started   └──► cancelled   one was, or it was asked to be
//! ```
//!
//! A workflow is a task like any other in the log, the feed and lists, but no worker takes it: it stands in no lane, and what
//! moves it is what its tasks do. While it is *shut*, waiting for others or for its time, it holds its tasks as if they
//! depended on it ([`dependencies`](super::dependencies)).
//!
//! What its tasks come to is counted here as their records come and go, so that a revert and a restart need nothing of
//! their own; those that are final are counted too, though their records are let go of. What follows from it is decided by
//! one look at the workflow ([`Engine::look_at_workflow`]), as a consequence of each step of its tasks: it begins, it ends, or, once
//! it is to end, the next of its tasks is cancelled, whose step is the reason for the next look. So the end of a large
//! workflow is spread over rounds like everything that follows from a step.
//!
//! A workflow that is final is let go of with its counts. To run it or one of its tasks again, the records of all of them are
//! brought back from the store first ([`Engine::admit_family`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::task::{
    Cancel, Event, Failure, Json, Name, OnDependencyFailure, OnFailure, Outcome, RESULT_INLINE_BYTES, Rollup, Status,
    Task, TaskId,
};

use super::consequences::Consequence;
use super::core::{Engine, Step};
use super::submit::begin_anew;
use super::{Command, Cx, NotNow, Refusal};

/// What is known of the tasks of a workflow.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) rollup: Rollup,
    /// How many were ever handed out.
    started: u32,
    /// Those that failed, by the `rev` of that.
    failed: BTreeMap<u64, (TaskId, Option<Name>)>,
    /// Those that are not final, by what is to be done to end them.
    open: BTreeSet<(Stage, TaskId)>,
    /// Those that ended and did not complete.
    undone: BTreeSet<TaskId>,
}

/// How a task that is not final is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has not started, and is cancelled when another one fails.
    Idle,
    /// It has not started, and runs whatever became of others.
    Spared,
    Running,
    /// It runs, and was asked to stop.
    Asked,
}

impl Stage {
    fn of(task: &Task) -> Option<Stage> {
        match task.status {
            status if status.is_final() => None,
            Status::Running if task.cancel_requested() => Some(Stage::Asked),
            Status::Running => Some(Stage::Running),
            _ if task.on_dependency_failure() == OnDependencyFailure::Run => Some(Stage::Spared),
            _ => Some(Stage::Idle),
        }
    }
}

impl Parts {
    pub(super) fn insert(&mut self, task: &Task) {
        self.rollup.add(task);
        self.started += u32::from(task.has_started());
        if task.status == Status::Failed {
            let name = task.ties().and_then(|ties| ties.reference.clone());
            self.failed.insert(task.rev, (task.task_id, name));
        }
        self.open.extend(Stage::of(task).map(|stage| (stage, task.task_id)));
        if matches!(task.status, Status::Failed | Status::Cancelled) {
            self.undone.insert(task.task_id);
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        self.rollup.remove(task);
        self.started = self.started.saturating_sub(task.has_started().into());
        if task.status == Status::Failed {
            self.failed.remove(&task.rev);
        }
        if let Some(stage) = Stage::of(task) {
            self.open.remove(&(stage, task.task_id));
        }
        self.undone.remove(&task.task_id);
    }

    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The next task that is to end: any, or only one that has not started.
    fn next_to_end(&self, all: bool) -> Option<TaskId> {
        let last = if all { Stage::Running } else { Stage::Idle };
        self.open.first().filter(|(stage, _)| *stage <= last).map(|(_, task_id)| *task_id)
    }
}

/// Whether a workflow holds its tasks.
pub(super) fn is_shut(task: &Task) -> bool {
    task.is_workflow() && matches!(task.status, Status::Waiting | Status::Scheduled)
}

impl Engine {
    /// Looks whether a workflow begins or ends, or one of its tasks is to. Fails where a result cannot be read now.
    pub(super) fn look_at_workflow(&mut self, task_id: TaskId, cx: &mut Cx<'_>) -> Result<(), NotNow> {
        let (Some(task), Some(parts)) = (self.tasks.get(&task_id), self.parts.get(&task_id)) else { return Ok(()) };
        let ends = task.status.is_final() || task.cancel_requested();
        let fails = !parts.failed.is_empty() && task.workflow().is_some_and(|it| it.on_failure == OnFailure::Stop);
        if (ends || fails)
            && let Some(part) = parts.next_to_end(ends)
        {
            let reason = if ends { "its workflow ended" } else { "another task of its workflow failed" };
            // Of a task that is not final, and without a reason that could be too long.
            let _ = self.cancel(part, Some(reason.into()), cx);
            return Ok(());
        }
        if task.status.is_final() || is_shut(task) {
            return Ok(());
        }
        if task.status == Status::Pending && parts.started > 0 {
            let mut next = Task::clone(task);
            next.status = Status::Running;
            next.run.get_or_insert_default().started_at = Some(cx.now.at);
            self.step(Some(task_id), Step::new(next, Event::Running).note("a task of it has started"), cx);
            return Ok(());
        }
        if parts.open.is_empty() { self.end_workflow(task.clone(), cx) } else { Ok(()) }
    }

    /// All of its tasks are final.
    fn end_workflow(&mut self, task: Arc<Task>, cx: &mut Cx<'_>) -> Result<(), NotNow> {
        let task_id = task.task_id;
        let Parts { rollup, failed, .. } = &self.parts[&task_id];
        let (count, cancelled) = (failed.len(), rollup.count(Status::Cancelled));
        let mut next = Task::clone(&task);
        let run = next.run.get_or_insert_default();
        run.finished_at = Some(cx.now.at);
        run.progress = rollup.progress(std::iter::empty()).encode().ok();
        let was_asked = run.cancel_requested_at.take().is_some();
        let mut result = None;
        let event = if let Some((first, name)) = failed.values().next() {
            let name = name.as_ref().map_or("", |name| name.as_str());
            let message = format!("{count} of {} tasks failed, the first was {name}", rollup.total());
            let details = serde_json::json!({"ref": name, "task_id": first, "failed": count});
            let details = Json::of(&details).ok();
            run.outcome = Some(Outcome::Error(Failure { details, ..Failure::new("child", message) }));
            next.status = Status::Failed;
            Event::Failed
        } else if was_asked || cancelled > 0 {
            run.cancel = was_asked.then_some(Cancel::Acknowledged);
            next.status = Status::Cancelled;
            Event::Cancelled
        } else {
            let left = self.output(&task, cx)?;
            result = (left.len() > RESULT_INLINE_BYTES).then(|| left.clone());
            let outcome = if result.is_some() { Outcome::ResultOmitted } else { Outcome::Result(left) };
            next.run.get_or_insert_default().outcome = Some(outcome);
            next.status = Status::Completed;
            Event::Completed
        };
        let step = Step { result, ..Step::new(next, event) }.note("all of its tasks have ended");
        self.step(Some(task_id), step, cx);
        Ok(())
    }

    /// What a workflow leaves of which all tasks completed: the result of one, or what its last tasks left.
    fn output(&self, task: &Task, cx: &Cx<'_>) -> Result<Json, NotNow> {
        let Some(passed_on) = task.links().and_then(|links| links.results.as_ref()) else { return Ok(Json::null()) };
        if let Some(output) = passed_on.output {
            if let Some(large) = self.tasks.get(&output).and_then(|task| task.large_result()) {
                return Ok(large.told_of(output));
            }
            return Ok(self.result_of(output, usize::MAX, cx)?.unwrap_or_else(Json::null));
        }
        if passed_on.sinks.is_empty() {
            return Ok(Json::null());
        }
        let mut text = String::from("{");
        for (at, (name, task_id)) in passed_on.sinks.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            // A name needs no escapes.
            text += &format!("{comma}\"{name}\":{{\"task_id\":\"{task_id}\",\"status\":\"completed\"");
            if let Some(result) = self.result_of(*task_id, RESULT_INLINE_BYTES, cx)? {
                text += ",\"result\":";
                text += result.as_str();
            }
            text.push('}');
        }
        text.push('}');
        Ok(Json::trusted(text))
    }

    /// The result of a completed task, where it is no longer than this.
    fn result_of(&self, task_id: TaskId, bytes_max: usize, cx: &Cx<'_>) -> Result<Option<Json>, NotNow> {
        let outcome = self.tasks.get(&task_id).and_then(|task| task.run()?.outcome.as_ref());
        let result = match outcome {
            Some(Outcome::Result(result)) => Some(result.clone()),
            Some(Outcome::ResultOmitted) if bytes_max <= RESULT_INLINE_BYTES => None,
            Some(Outcome::Error(_) | Outcome::Large(_)) => None,
            Some(Outcome::ResultOmitted) | None => {
                let decided = cx.batch.changes.iter().rev().find(|change| change.task.task_id == task_id);
                match decided.and_then(|change| change.result.clone()) {
                    Some(result) => Some(result),
                    None => cx.ticks.result(task_id)?,
                }
            }
        };
        Ok(result.filter(|result| result.len() <= bytes_max))
    }

    /// A workflow is asked to stop, while tasks of it may run.
    pub(super) fn cancel_workflow(&mut self, task: &Task, reason: Option<Box<str>>, cx: &mut Cx<'_>) -> Arc<Task> {
        let mut next = Task::clone(task);
        let run = next.run.get_or_insert_default();
        (run.cancel_requested_at, run.cancel) = (Some(cx.now.at), Some(Cancel::Requested));
        let step = Step { note: reason, ..Step::new(next, Event::CancelRequested) };
        self.step(Some(task.task_id), step, cx)
    }

    /// A failed or cancelled workflow is run again: all of its tasks that did not complete are.
    /// `comes_again`: so is one that it depends on.
    pub(super) fn retry_workflow(
        &mut self,
        task: &Task,
        comes_again: bool,
        cx: &mut Cx<'_>,
    ) -> Result<Arc<Task>, Refusal> {
        let task_id = task.task_id;
        if self.has_no_parts(task_id) {
            // They were deleted: there is nothing to run again.
            return Err(Refusal::TaskFinished);
        }
        self.check_is_over(task_id)?;
        let again = self.parts.get(&task_id).map(|parts| parts.undone.clone()).unwrap_or_default();
        if self.unfinished() + again.len() >= self.options.tasks_max {
            return Err(Refusal::Full);
        }
        let mut next = begin_anew(task, cx.now)?;
        next.status = self.status_again(&next, comes_again);
        let next = self.step(Some(task_id), Step::new(next, Event::Retrying).note("retried by hand"), cx);
        for part in &again {
            let Some(part) = self.tasks.get(part).cloned() else { continue };
            // Some of these are final still, and will not be.
            let comes_again = part.depends_on().iter().any(|dependency| again.contains(dependency));
            if part.is_workflow() {
                if !self.has_no_parts(part.task_id) {
                    self.retry_workflow(&part, comes_again, cx)?;
                }
                continue;
            }
            let mut next = begin_anew(&part, cx.now)?;
            next.status = self.status_again(&next, comes_again);
            self.step(Some(part.task_id), Step::new(next, Event::Retrying).note("its workflow was retried"), cx);
        }
        Ok(next)
    }

    /// How a task begins that is run again: where it is held, or not to run, it waits, and what follows from that is said by
    /// what it depends on.
    fn status_again(&self, next: &Task, comes_again: bool) -> Status {
        let waits = comes_again || self.held_by(next).next().is_some() || self.failed_dependency(next).is_some();
        if waits { Status::Waiting } else { Status::Pending }
    }

    /// A final workflow of which not all tasks are cancelled yet is not run again: some would go on and some would not.
    fn check_is_over(&self, workflow_id: TaskId) -> Result<(), Refusal> {
        let has_open = self.parts.get(&workflow_id).is_some_and(Parts::has_open);
        if has_open { Err(Refusal::TaskNotFinished) } else { Ok(()) }
    }

    fn has_no_parts(&self, workflow_id: TaskId) -> bool {
        self.parts.get(&workflow_id).is_none_or(|parts| parts.rollup.total() == 0)
    }

    /// Whether a task is part of a workflow that goes on, or of one within it.
    pub(super) fn is_needed(&self, task: &Task) -> bool {
        let mut outer = task.workflow_id();
        while let Some(workflow) = outer.and_then(|workflow_id| self.tasks.get(&workflow_id)) {
            if !workflow.status.is_final() {
                return true;
            }
            outer = workflow.workflow_id();
        }
        false
    }

    /// The first of a task and the workflows around it, from within, whose record is to be looked up.
    pub(super) fn absent_around(&self, task_id: TaskId) -> Option<TaskId> {
        self.around(task_id).find(|task_id| self.is_absent(*task_id))
    }

    /// A task, and the workflows around it, from within, as far as they are at hand.
    pub(super) fn around(&self, task_id: TaskId) -> impl Iterator<Item = TaskId> {
        let outer = |task_id: &TaskId| self.tasks.get(task_id).and_then(|task| task.workflow_id());
        std::iter::successors(Some(task_id), outer)
    }

    /// A task of a workflow is run again: the workflow goes on, and the one that that is part of.
    pub(super) fn reopen(&mut self, workflow_id: TaskId, cx: &mut Cx<'_>) -> Result<(), Refusal> {
        let Some(task) = self.tasks.get(&workflow_id).filter(|task| task.status.is_final()).cloned() else {
            return Ok(());
        };
        if let Some(outer) = task.workflow_id() {
            self.reopen(outer, cx)?;
        }
        self.check_is_over(workflow_id)?;
        if let Some(dependency) = self.failed_dependency(&task) {
            return Err(Refusal::DependencyFailed(dependency));
        }
        let mut next = begin_anew(&task, cx.now)?;
        next.status = self.status_again(&next, false);
        self.step(Some(workflow_id), Step::new(next, Event::Retrying).note("a task of it was retried"), cx);
        Ok(())
    }

    /// The workflow of which a command needs all tasks, where not all of them are counted. Whoever drives the engine looks
    /// them up, and [`admit_family`](Self::admit_family)s them.
    pub fn absent_family(&self, command: &Command) -> Option<TaskId> {
        let Command::Retry { task_id, .. } = command else { return None };
        let task = self.tasks.get(task_id)?;
        let is_absent = |task_id: &TaskId| !self.parts.contains_key(task_id) && !self.gone.contains(task_id);
        // Upwards, for they go on as well, …
        let mut outer = task.workflow_id();
        while let Some(workflow_id) = outer {
            if is_absent(&workflow_id) {
                return Some(workflow_id);
            }
            outer = self.tasks.get(&workflow_id).and_then(|task| task.workflow_id());
        }
        // … and down, for their tasks are run again.
        self.workflows_undone(*task_id).into_iter().find(is_absent)
    }

    /// A workflow, if it is one, and those within it that are run again with it, as far as they are known.
    fn workflows_undone(&self, task_id: TaskId) -> Vec<TaskId> {
        let is_workflow = |task_id: &TaskId| self.tasks.get(task_id).is_some_and(|task| task.is_workflow());
        let mut found: Vec<TaskId> = [task_id].into_iter().filter(is_workflow).collect();
        let mut at = 0;
        while let Some(workflow_id) = found.get(at) {
            let undone = self.parts.get(workflow_id).map(|parts| &parts.undone);
            found.extend(undone.into_iter().flatten().copied().filter(is_workflow).collect::<Vec<_>>());
            at += 1;
        }
        found
    }

    /// The tasks that are run again with a workflow.
    pub(super) fn undone_with(&self, task_id: TaskId) -> impl Iterator<Item = TaskId> {
        let workflows = self.workflows_undone(task_id).into_iter();
        workflows.filter_map(|id| self.parts.get(&id)).flat_map(|parts| parts.undone.iter().copied())
    }

    /// Takes in a final workflow and all of its tasks from the store.
    pub fn admit_family(&mut self, workflow_id: TaskId, workflow: Option<Task>, tasks: Vec<Task>) {
        if self.parts.contains_key(&workflow_id) {
            return;
        }
        workflow.into_iter().for_each(|workflow| self.admit(workflow));
        let mut parts = Parts::default();
        for task in tasks {
            let task_id = task.task_id;
            self.admit(task);
            if let Some(task) = self.tasks.get(&task_id) {
                parts.insert(task);
            }
        }
        self.parts.insert(workflow_id, parts);
    }

    /// What the tasks of a workflow come to, as far as it is known here.
    pub fn rollup(&self, workflow_id: TaskId) -> Option<Rollup> {
        self.parts.get(&workflow_id).map(|parts| parts.rollup)
    }

    /// What follows from a step for the workflow that a task is, or is part of.
    pub(super) fn tell_workflow(&mut self, before: Option<&Task>, task: &Task) {
        let moved = |workflow: bool| match workflow {
            true => before.is_none_or(|before| {
                before.status != task.status || before.cancel_requested() != task.cancel_requested()
            }),
            false => before.is_none_or(|before| Stage::of(before) != Stage::of(task)),
        };
        if task.is_workflow() && moved(true) {
            self.consequences.push(self.rev, Consequence::Workflow(task.task_id));
        }
        if let Some(workflow_id) = task.workflow_id().filter(|_| moved(false)) {
            self.consequences.push(self.rev, Consequence::Workflow(workflow_id));
        }
    }
}
