//! The checker's account of workflows.

use std::collections::BTreeSet;
use std::sync::Arc;

use taskhub::engine::{Answer, Notice, Now, Refusal};
use taskhub::task::{
    Change, ChangeKind, Event, OnDependencyFailure, OnFailure, Outcome, Status, Submission, Task, TaskId,
};

use super::check::Checker;
use super::world::Live;

pub const BEGAN: &str = "a task of it has started";
pub const OVER: &str = "all of its tasks have ended";
pub const ENDED: &str = "its workflow ended";
pub const FAILED: &str = "another task of its workflow failed";

/// Whether a worker is told to stop for what became of other tasks.
pub fn is_consequence(notice: &Notice) -> bool {
    matches!(notice, Notice::Stop { reason: Some(reason), .. } if [ENDED, FAILED].contains(&&**reason))
}

fn waits(task: &Task) -> bool {
    matches!(task.status, Status::Waiting | Status::Scheduled | Status::Pending)
}

fn undone(task: &Task) -> bool {
    matches!(task.status, Status::Failed | Status::Cancelled)
}

impl Checker {
    /// The tasks of a workflow.
    fn parts(&self, workflow_id: TaskId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().filter(move |task| task.workflow_id() == Some(workflow_id))
    }

    /// The workflow that a task is part of, where that is still there.
    pub fn workflow_of(&self, task: &Task) -> Option<&Arc<Task>> {
        self.tasks.get(&task.workflow_id()?)
    }

    /// Whether a workflow holds its tasks.
    pub fn is_shut(&self, workflow: &Task) -> bool {
        matches!(workflow.status, Status::Waiting | Status::Scheduled)
    }

    /// Whether the record of a final task is needed by its workflow, or it is one with tasks that are not final.
    pub fn is_needed(&self, task: &Task) -> bool {
        let mut outer = self.workflow_of(task);
        while let Some(workflow) = outer {
            if !workflow.status.is_final() {
                return true;
            }
            outer = self.workflow_of(workflow);
        }
        self.parts(task.task_id).any(|part| !part.status.is_final())
    }

    /// What a new workflow and its tasks should be tied to.
    pub fn is_tied(&self, submission: &Submission, created: &[Arc<Task>]) {
        let parts = submission.clone().into_parts();
        for ((_, ties, _), task) in parts.zip(created) {
            assert_eq!(task.workflow_id(), ties.parent.map(|place| created[place as usize].task_id));
            assert_eq!(task.is_workflow(), ties.work.is_some());
            assert_eq!(task.depends_on().len(), ties.depends_on.len());
        }
    }

    /// Whether a workflow, or one of its tasks, should have been moved on.
    pub fn is_overdue(&self, workflow: &Task) -> bool {
        let parts: Vec<&Arc<Task>> = self.parts(workflow.task_id).collect();
        let to_end = |task: &&&Arc<Task>| !task.status.is_final() && !task.cancel_requested();
        if workflow.status.is_final() || workflow.cancel_requested() {
            return parts.iter().any(|task| to_end(&task)) || self.all_over(workflow);
        }
        let failed = parts.iter().any(|task| task.status == Status::Failed);
        let stops = failed && workflow.workflow().is_some_and(|it| it.on_failure == OnFailure::Stop);
        let spared = |task: &Task| task.on_dependency_failure() == OnDependencyFailure::Run;
        if stops && parts.iter().any(|task| waits(task) && !spared(task)) {
            return true;
        }
        let begins = workflow.status == Status::Pending && parts.iter().any(|task| task.has_started());
        begins || self.all_over(workflow)
    }

    fn all_over(&self, workflow: &Task) -> bool {
        !workflow.status.is_final()
            && !self.is_shut(workflow)
            && self.parts(workflow.task_id).all(|task| task.status.is_final())
    }

    /// The first of its tasks has started.
    pub fn began(&mut self, change: &Change, now: Now) {
        let before = self.tasks[&change.task.task_id].clone();
        assert!(before.is_workflow() && before.status == Status::Pending);
        assert!(self.parts(before.task_id).any(|task| task.has_started()), "nothing of it has started");
        self.step(change, now);
        assert_eq!(change.kind, ChangeKind::Transition(Event::Running));
        assert_eq!(change.task.run().and_then(|run| run.started_at), Some(now.at));
    }

    /// All of its tasks are final, and so is it.
    pub fn ended_workflow(&mut self, change: &Change, now: Now) {
        let before = self.tasks[&change.task.task_id].clone();
        assert!(before.is_workflow() && self.all_over(&before), "{change:?} came too early");
        let parts: Vec<Arc<Task>> = self.parts(before.task_id).cloned().collect();
        self.step(change, now);
        let has = |status: Status| parts.iter().any(|task| task.status == status);
        let expected = match (has(Status::Failed), has(Status::Cancelled) || before.cancel_requested()) {
            (true, _) => Status::Failed,
            (false, true) => Status::Cancelled,
            (false, false) => Status::Completed,
        };
        let task = &change.task;
        let run = task.run().expect("it has ended");
        assert_eq!((task.status, run.finished_at, run.cancel_requested_at), (expected, Some(now.at), None));
        match (&run.outcome, expected) {
            (Some(Outcome::Error(error)), Status::Failed) => assert_eq!(error.kind, "child"),
            (Some(Outcome::Result(result)), Status::Completed) => {
                let passed_on =
                    before.links().and_then(|links| links.results.as_ref()).expect("it says what it leaves");
                if let Some(output) = passed_on.output {
                    let left = parts.iter().find(|task| task.task_id == output).and_then(|task| task.run()).cloned();
                    match left.map(|run| run.outcome) {
                        Some(Some(Outcome::Result(expected))) => assert_eq!(*result, expected),
                        Some(Some(Outcome::Large(large))) => assert_eq!(*result, large.told_of(output)),
                        // One that is too large for its record is nowhere in this world.
                        Some(Some(Outcome::ResultOmitted)) => {}
                        Some(other) => panic!("{other:?} left {result:?}"),
                        None => assert_eq!(result.as_str(), "null", "it was deleted while the workflow was over"),
                    }
                } else {
                    assert!(passed_on.sinks.iter().all(|(_, task_id)| result.as_str().contains(&task_id.to_string())));
                }
            }
            (Some(Outcome::ResultOmitted), Status::Completed) => {
                let output = before
                    .links()
                    .and_then(|links| links.results.as_ref()?.output)
                    .expect("the results of several are short");
                let left = parts.iter().find(|task| task.task_id == output).and_then(|task| task.run());
                assert!(matches!(left.and_then(|run| run.outcome.as_ref()), Some(Outcome::ResultOmitted)));
                assert!(change.result.is_some());
            }
            (None, Status::Cancelled) => {}
            other => panic!("{other:?}"),
        }
        let progress: taskhub::task::Progress = run.progress.as_ref().expect("it says how far it came").to().unwrap();
        assert_eq!((progress.percentage, progress.total), (Some(100.0), Some(parts.len() as f64)));
    }

    /// A task is cancelled, or asked to stop, because of its workflow.
    pub fn ends_with_its_workflow(&mut self, change: &Change, stops: &mut Vec<Notice>, now: Now, live: &Live) {
        let task_id = change.task.task_id;
        let before = self.tasks[&task_id].clone();
        let workflow = self.workflow_of(&before).expect("it is part of one").clone();
        let ends = workflow.status.is_final() || workflow.cancel_requested();
        if change.note.as_deref() == Some(FAILED) {
            let failed = self.parts(workflow.task_id).any(|task| task.status == Status::Failed);
            assert!(failed && !ends && workflow.workflow().is_some_and(|it| it.on_failure == OnFailure::Stop));
            assert!(waits(&before) && before.on_dependency_failure() != OnDependencyFailure::Run);
        } else {
            assert!(ends, "{workflow:?} goes on");
        }
        let runs = before.status == Status::Running && !before.is_workflow();
        let notice = runs.then(|| stops.remove(0));
        let result = Ok(Answer::Task(change.task.clone()));
        let reason = change.note.as_deref().map(str::to_owned);
        let change = std::slice::from_ref(change);
        self.cancelled(task_id, &reason, &result, change, notice.as_slice(), now, live);
    }

    /// The tasks that are run again with this one: those of it, where it is a workflow, and the workflows around it.
    fn again(&self, task_id: TaskId) -> BTreeSet<TaskId> {
        let mut again: BTreeSet<TaskId> = [task_id].into();
        let mut outer = self.tasks[&task_id].workflow_id();
        while let Some(workflow) = outer.and_then(|id| self.tasks.get(&id)).filter(|it| it.status.is_final()) {
            again.insert(workflow.task_id);
            outer = workflow.workflow_id();
        }
        let mut inner = vec![task_id];
        while let Some(workflow_id) = inner.pop() {
            let is_empty = |part: &Task| part.is_workflow() && self.parts(part.task_id).next().is_none();
            for part in self.parts(workflow_id).filter(|part| undone(part) && !is_empty(part)) {
                again.insert(part.task_id);
                inner.push(part.task_id);
            }
        }
        again
    }

    /// A workflow is run again, or a task of one that had ended.
    pub fn retried_together(
        &mut self,
        task_id: TaskId,
        result: &Result<Answer, Refusal>,
        changes: &[Change],
        now: Now,
    ) {
        let mut again = self.again(task_id);
        match result {
            Ok(Answer::Task(task)) => assert_eq!(task.task_id, task_id),
            Err(Refusal::TaskFinished) => return assert!(self.parts(task_id).next().is_none()),
            Err(Refusal::TaskNotFinished) => {
                let still_ends = |id: &TaskId| self.parts(*id).any(|part| !part.status.is_final());
                return assert!(again.iter().any(still_ends), "what is not to end may begin anew");
            }
            Err(Refusal::DeadlineOver) => return assert!(again.iter().any(|id| self.is_too_late(*id, now))),
            Err(refusal @ Refusal::DependencyFailed(_)) => {
                let fails = |id: &TaskId| self.fails_again(&self.tasks[id]).as_ref() == Some(refusal);
                return assert!(again.iter().any(fails), "nothing keeps it from running");
            }
            Err(Refusal::Full) => return assert!(self.unfinished() + again.len() >= self.options.tasks_max),
            Err(Refusal::Invalid(invalid)) => {
                assert_eq!(invalid.field, "payload");
                return assert!(self.tasks[&task_id].is_workflow());
            }
            other => panic!("{other:?}"),
        }
        for change in changes {
            let task = &change.task;
            assert!(again.remove(&task.task_id), "{change:?} was not to be run again");
            assert!(undone(&self.tasks[&task.task_id]));
            assert_eq!(change.kind, ChangeKind::Transition(Event::Retrying));
            self.step(change, now);
            assert!(matches!(task.status, Status::Pending | Status::Waiting));
            assert_eq!((task.tries, task.crashes, task.run_at), (0, 0, None));
            self.counts_from_now(task, now);
        }
        assert!(again.is_empty(), "these were to be run again too: {again:?}");
        // Each waits for what it depends on as it is now.
        for change in changes.iter().filter(|change| change.task.status == Status::Pending) {
            let task = &change.task;
            let is_open = |id: &TaskId| self.tasks.get(id).is_some_and(|task| !task.status.is_final());
            assert!(!task.depends_on().iter().any(is_open), "{task:?} does not wait");
            assert_eq!(self.fails_again(task), None, "{task:?} is not to run");
            assert!(!self.workflow_of(task).is_some_and(|workflow| self.is_shut(workflow)), "{task:?} is held");
        }
    }
}
