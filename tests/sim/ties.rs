//! The checker's account of what tasks depend on.

use std::sync::Arc;

use taskhub::engine::{Notice, Now, Refusal};
use taskhub::task::{
    Change, ChangeKind, DEPENDENCIES_TOLD_MAX, Event, NewTask, OnDependencyFailure, Outcome, Status, Submission, Task,
    TaskId, WaitsFor,
};

use super::check::Checker;
use super::workflows::{BEGAN, ENDED, FAILED, OVER};
use super::world::Live;

/// How the things stand that a task depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Some are not final.
    Held,
    /// One did not complete, and that ends it.
    Failed,
    Free,
}

/// Whether a step follows from what became of other tasks.
pub fn is_consequence(change: &Change) -> bool {
    let note = change.note.as_deref().unwrap_or_default();
    [BEGAN, OVER, ENDED, FAILED, "what it depends on is over"].contains(&note) || note.starts_with("it depends on ")
}

impl Checker {
    pub fn stand(&self, task: &Task) -> Stand {
        let statuses: Vec<Status> =
            task.depends_on().iter().filter_map(|id| self.tasks.get(id)).map(|task| task.status).collect();
        let failed = |status: &Status| matches!(status, Status::Failed | Status::Cancelled);
        if task.on_dependency_failure() != OnDependencyFailure::Run && statuses.iter().any(failed) {
            Stand::Failed
        } else if self.workflow_of(task).is_some_and(|workflow| self.is_shut(workflow) || workflow.status.is_final()) {
            // One that has ended does not let it go: it is cancelled.
            Stand::Held
        } else if statuses.iter().any(|status| !status.is_final()) {
            Stand::Held
        } else {
            Stand::Free
        }
    }

    /// What a waiting task should be said to wait for.
    pub fn held_by(&self, task: &Task) -> WaitsFor {
        let held = |id: &&TaskId| self.tasks.get(*id).is_some_and(|task| !task.status.is_final());
        let mut all: Vec<TaskId> = task.depends_on().iter().filter(held).copied().collect();
        all.extend(self.workflow_of(task).filter(|workflow| self.is_shut(workflow)).map(|workflow| workflow.task_id));
        let count = all.len();
        WaitsFor::Dependency { task_ids: all.into_iter().take(DEPENDENCIES_TOLD_MAX).collect(), count }
    }

    /// What a new task depends on, by the ids of those that were made with it.
    pub fn names(&self, new: &NewTask, submission: &Submission, created: &[Arc<Task>]) -> Vec<TaskId> {
        let id = |text: &String| match text.strip_prefix('@') {
            None => text.parse().expect("it was checked"),
            Some(name) => {
                let place = submission.tasks().iter().position(|new| new.reference.as_deref() == Some(name));
                created[place.expect("it was checked")].task_id
            }
        };
        new.depends_on.iter().map(id).collect()
    }

    /// Whether all that a submission names of before is there.
    pub fn knows_all(&self, submission: &Submission) -> bool {
        submission.known().all(|(.., task_id)| self.tasks.contains_key(&task_id))
    }

    /// A step that follows from the end of others.
    pub fn followed(&mut self, change: &Change, stops: &mut Vec<Notice>, now: Now, live: &Live) {
        match change.note.as_deref() {
            Some(BEGAN) => return self.began(change, now),
            Some(OVER) => return self.ended_workflow(change, now),
            Some(ENDED | FAILED) => return self.ends_with_its_workflow(change, stops, now, live),
            _ => {}
        }
        let before = self.tasks[&change.task.task_id].clone();
        let stand = self.stand(&before);
        assert_eq!(before.status, Status::Waiting, "nothing follows for what does not wait: {change:?}");
        self.step(change, now);
        let task = &change.task;
        let finished_at = task.run().and_then(|run| run.finished_at);
        let ChangeKind::Transition(event) = change.kind else { panic!("{change:?}") };
        match (stand, before.on_dependency_failure()) {
            (Stand::Held, policy) => panic!("{change:?} came too early, with {policy:?}"),
            (Stand::Free, _) => {
                let early = before.run_at.is_some_and(|at| at > now.wall);
                let expected =
                    if early { (Status::Scheduled, Event::Scheduled) } else { (Status::Pending, Event::Pending) };
                assert_eq!((task.status, event), expected);
                assert_eq!((task.run_at, task.delayed), (before.run_at, false));
            }
            (Stand::Failed, OnDependencyFailure::Cancel) => {
                assert_eq!((task.status, finished_at), (Status::Cancelled, Some(now.at)));
            }
            (Stand::Failed, policy) => {
                assert_eq!(policy, OnDependencyFailure::Fail);
                assert_eq!((task.status, finished_at), (Status::Failed, Some(now.at)));
                let Some(Outcome::Error(error)) = task.run().and_then(|run| run.outcome.as_ref()) else { panic!() };
                assert_eq!(error.kind, "dependency");
            }
        }
    }

    /// Whether what follows from its end may not have been done yet, for there was much to do.
    pub fn is_still_told(&self, task_id: TaskId) -> bool {
        (self.options.changes_max < 1_000 || !self.has_looked)
            && self.tasks.values().any(|it| it.status == Status::Waiting && it.depends_on().contains(&task_id))
    }

    /// Why a task cannot be run again yet, where that is for what it depends on.
    pub fn fails_again(&self, task: &Task) -> Option<Refusal> {
        let failed = |id: &&TaskId| {
            self.tasks.get(*id).is_some_and(|task| matches!(task.status, Status::Failed | Status::Cancelled))
        };
        let first = task.depends_on().iter().find(failed).copied();
        first.filter(|_| task.on_dependency_failure() != OnDependencyFailure::Run).map(Refusal::DependencyFailed)
    }
}
