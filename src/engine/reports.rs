//! What workers say of their attempts, and how an attempt ends when they say nothing.

use crate::task::{
    Event, Failure, Invalid, Json, Outcome, RESULT_BYTES_MAX, RESULT_INLINE_BYTES, Status, Task, TaskId,
};

use super::core::{Engine, Step, full_progress, keep_progress};
use super::{Answer, Cx, Notice, Refusal, Report, Ticks};

/// How an attempt was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// With its worker: a crash.
    Crash,
    /// By nobody's fault: the hub restarted or goes down.
    GivenBack,
    /// The worker gave it back.
    Released,
}

/// Who ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedBy {
    /// Its worker, by a report that it may repeat.
    Worker,
    Hub,
}

impl Engine {
    pub(super) fn report(
        &mut self,
        task_id: TaskId,
        attempt: u32,
        report: Report,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        let Some(task) = self.tasks.get(&task_id) else {
            self.attempt_over(task_id, attempt);
            return Err(Refusal::TaskNotFound);
        };
        if task.status != Status::Running || task.attempt != attempt {
            let repeated = repeats(task, attempt, &report);
            self.attempt_over(task_id, attempt);
            return if repeated { Ok(Answer::Reported { cancel_requested: false }) } else { Err(Refusal::LeaseLost) };
        }
        check(&report).map_err(Refusal::Invalid)?;
        let cancel_requested = task.cancel_requested();
        if matches!(report, Report::Cancelled) && !cancel_requested {
            return Err(Refusal::CancelNotRequested);
        }
        let task = Task::clone(task);
        self.heard_of(&task, cx.now);
        match report {
            Report::Heartbeat => return Ok(Answer::Reported { cancel_requested }),
            Report::Complete { result } => self.complete(task, result, cx),
            Report::Fail { error, retryable } => {
                self.fail(task, error.cut(), retryable, EndedBy::Worker, cx);
            }
            Report::Cancelled => self.finish_cancelled(task, EndedBy::Worker, "stopped", cx),
            Report::Release => self.lose(task, Lost::Released, "given back", cx),
        }
        Ok(Answer::Reported { cancel_requested })
    }

    fn complete(&mut self, mut task: Task, result: Json, cx: &mut Cx<'_>) {
        let task_id = task.task_id;
        self.end_attempt(&mut task, EndedBy::Worker, cx.ticks);
        task.status = Status::Completed;
        let run = task.run.get_or_insert_default();
        run.finished_at = Some(cx.now.at);
        run.progress = run.progress.take().and_then(|progress| full_progress(&progress));
        let beside = (result.len() > RESULT_INLINE_BYTES).then(|| result.clone());
        run.outcome = Some(if beside.is_some() { Outcome::ResultOmitted } else { Outcome::Result(result) });
        self.step(Some(task_id), Step { result: beside, ..Step::new(task, Event::Completed) }, cx);
    }

    /// A try failed: another follows, or the task has failed.
    fn fail(&mut self, mut task: Task, error: Failure, retryable: bool, by: EndedBy, cx: &mut Cx<'_>) {
        if task.cancel_requested() {
            return self.finish_cancelled(task, by, "failed while stopping", cx);
        }
        let task_id = task.task_id;
        self.end_attempt(&mut task, by, cx.ticks);
        let event = if retryable && task.tries < task.max_attempts {
            task.status = Status::Scheduled;
            let delay = task.retry_policy().delay_ms(task.tries, &mut self.random);
            task.run_at = Some(cx.now.at.plus_millis(delay));
            task.delayed = true;
            task.run.get_or_insert_default().last_error = Some(error);
            Event::Retrying
        } else {
            task.status = Status::Failed;
            let run = task.run.get_or_insert_default();
            run.finished_at = Some(cx.now.at);
            run.outcome = Some(Outcome::Error(error));
            Event::Failed
        };
        // Of failures the hub knows this one by itself; the others are in the words of the worker.
        let note = (by == EndedBy::Hub).then(|| "timeout".into());
        self.step(Some(task_id), Step { note, ..Step::new(task, event) }, cx);
    }

    fn finish_cancelled(&mut self, mut task: Task, by: EndedBy, note: &str, cx: &mut Cx<'_>) {
        let task_id = task.task_id;
        self.end_attempt(&mut task, by, cx.ticks);
        task.status = Status::Cancelled;
        task.run.get_or_insert_default().finished_at = Some(cx.now.at);
        self.step(Some(task_id), Step::new(task, Event::Cancelled).note(note), cx);
    }

    /// An attempt ends without a word of its own: the task is ready again, or that was one crash too many.
    pub(super) fn lose(&mut self, mut task: Task, lost: Lost, note: &str, cx: &mut Cx<'_>) {
        let by = if lost == Lost::Released { EndedBy::Worker } else { EndedBy::Hub };
        if task.cancel_requested() {
            return self.finish_cancelled(task, by, note, cx);
        }
        let task_id = task.task_id;
        self.end_attempt(&mut task, by, cx.ticks);
        task.tries -= 1;
        task.crashes += u32::from(lost == Lost::Crash);
        let event = if task.crashes >= task.max_crashes && lost == Lost::Crash {
            task.status = Status::Failed;
            let message = format!("lost with its worker {} times", task.crashes);
            let run = task.run.get_or_insert_default();
            run.finished_at = Some(cx.now.at);
            run.outcome = Some(Outcome::Error(Failure::new("poison", message)));
            Event::Failed
        } else {
            task.status = Status::Pending;
            task.run_at = None;
            Event::Pending
        };
        self.step(Some(task_id), Step::new(task, event).note(note), cx);
    }

    /// The attempt took longer than it may. The worker is told, and its place stays taken until it has let go.
    pub(super) fn time_out(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.tasks.get(&task_id).filter(|task| task.status == Status::Running) else { return };
        let task = Task::clone(task);
        if let Some(worker_id) = task.worker_id().cloned() {
            self.occupy(&worker_id, task_id, task.attempt);
            let (attempt, reason) = (task.attempt, Some("timeout".into()));
            cx.batch.notices.push(Notice::Stop { worker_id, task_id, attempt, reason });
        }
        let millis = task.timeout_ms().unwrap_or_default();
        let error = Failure::new("timeout", format!("took longer than {millis} ms"));
        self.fail(task, error, true, EndedBy::Hub, cx);
    }

    /// What every end of an attempt has in common.
    fn end_attempt(&mut self, task: &mut Task, by: EndedBy, ticks: &dyn Ticks) {
        keep_progress(task, ticks);
        let run = task.run.get_or_insert_default();
        run.worker_id = None;
        run.lease_ms = None;
        run.cancel_requested_at = None;
        run.ended_by_hub = by == EndedBy::Hub;
    }
}

fn check(report: &Report) -> Result<(), Invalid> {
    match report {
        Report::Complete { result } => Invalid::json("result", result, RESULT_BYTES_MAX),
        Report::Fail { error, .. } => {
            if error.kind.chars().count() > Failure::KIND_CHARS_MAX {
                return Err(Invalid::limit("error.kind", Failure::KIND_CHARS_MAX as u64, "characters"));
            }
            error
                .details
                .as_ref()
                .map_or(Ok(()), |details| Invalid::json("error.details", details, Failure::DETAILS_BYTES_MAX))
        }
        Report::Heartbeat | Report::Cancelled | Report::Release => Ok(()),
    }
}

/// Whether a report repeats the one that ended this attempt, so that a worker may send it again after a cut.
fn repeats(task: &Task, attempt: u32, report: &Report) -> bool {
    let by_hub = task.run().is_some_and(|run| run.ended_by_hub);
    task.attempt == attempt
        && !by_hub
        && match report {
            Report::Complete { .. } => task.status == Status::Completed,
            Report::Cancelled => task.status == Status::Cancelled,
            // A failure ended the task, or the task as cancelled, or it waits for its next try.
            Report::Fail { .. } => {
                matches!(task.status, Status::Failed | Status::Cancelled)
                    || task.run().is_some_and(|run| run.last_error.is_some())
            }
            Report::Heartbeat | Report::Release => false,
        }
}
