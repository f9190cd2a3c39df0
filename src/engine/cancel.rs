//! Cancelling. A task that does not run is cancelled at once; one that runs is asked to stop, and that request is followed:
//!
//! ```text
//! requested ──► delivered ──► acknowledged   its worker says that it stopped
//!     │             └───────► delivered      it ended in another way before it did
//!     └──────────────────────► ignored        it did not within the grace: the attempt is fenced
//! ```
//!
//! The grace counts from the request, in time that the hub lived through.

use std::sync::Arc;

use crate::task::{Cancel, Event, Invalid, Status, Task, TaskId};

use super::core::{Engine, Step, keep_progress};
use super::reports::EndedBy;
use super::{Answer, Cx, Notice, Refusal};

impl Engine {
    pub(super) fn cancel(
        &mut self,
        task_id: TaskId,
        reason: Option<String>,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        const REASON_CHARS_MAX: usize = 1_024;
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
            return Err(Refusal::Invalid(Invalid::limit("reason", REASON_CHARS_MAX as u64, "characters")));
        }
        let reason = reason.map(String::into_boxed_str);
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?.clone();
        if task.status.is_final() {
            return Err(Refusal::TaskFinished);
        }
        if task.cancel_requested() {
            return Ok(Answer::Task(task));
        }
        if task.is_workflow() && task.status == Status::Running {
            return Ok(Answer::Task(self.cancel_workflow(&task, reason, cx)));
        }
        let mut next = Task::clone(&task);
        if task.status == Status::Running {
            keep_progress(&mut next, cx.ticks);
            let run = next.run.get_or_insert_default();
            (run.cancel_requested_at, run.cancel) = (Some(cx.now.at), Some(Cancel::Requested));
            let step = Step { note: reason.clone(), ..Step::new(next, Event::CancelRequested) };
            let next = self.step(Some(task_id), step, cx);
            if let Some(worker_id) = next.worker_id().cloned() {
                cx.batch.notices.push(Notice::Stop { worker_id, task_id, attempt: next.attempt, reason });
            }
            return Ok(Answer::Task(next));
        }
        next.status = Status::Cancelled;
        next.run_at = None;
        next.delayed = false;
        next.run.get_or_insert_default().finished_at = Some(cx.now.at);
        let step = Step { note: reason, ..Step::new(next, Event::Cancelled) };
        Ok(Answer::Task(self.step(Some(task_id), step, cx)))
    }

    /// The worker of a task was told to stop.
    pub(super) fn cancel_delivered(&mut self, task_id: TaskId, attempt: u32, cx: &mut Cx<'_>) {
        let is_news = |task: &&Arc<Task>| {
            let asked = task.run().is_some_and(|run| run.cancel == Some(Cancel::Requested));
            task.status == Status::Running && task.attempt == attempt && asked
        };
        let Some(task) = self.tasks.get(&task_id).filter(is_news) else { return };
        let mut next = Task::clone(task);
        keep_progress(&mut next, cx.ticks);
        next.run.get_or_insert_default().cancel = Some(Cancel::Delivered);
        self.step(Some(task_id), Step::new(next, Event::CancelRequested).note("its worker was told"), cx);
    }

    /// The attempt was asked to stop, and has not.
    pub(super) fn cancel_ignored(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.tasks.get(&task_id).filter(|task| task.status == Status::Running) else { return };
        let mut task = Task::clone(task);
        self.fence(&task, "cancelled", cx);
        task.run.get_or_insert_default().cancel = Some(Cancel::Ignored);
        self.finish_cancelled(task, EndedBy::Hub, "it did not stop", cx);
    }
}
