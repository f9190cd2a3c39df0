//! What workers say of their attempts, and how an attempt ends when they say nothing.

use std::sync::Arc;

use crate::task::{
    Cancel, Event, Failure, Invalid, Json, LargeResult, Outcome, RESULT_BYTES_MAX, RESULT_INLINE_BYTES, RetryPolicy,
    Status, Task, TaskId, Timestamp,
};

use super::core::{Engine, Step, full_progress, keep_progress};
use super::{Answer, Cx, Refusal, Report, Ticks};

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
pub(super) enum EndedBy {
    /// Its worker, by a report that it may repeat.
    Worker,
    Hub,
}

/// How a try failed.
struct TryFailed {
    error: Failure,
    retryable: bool,
    /// When the next try may begin, where that is known better than the task's policy does.
    retry_after_ms: Option<u64>,
    /// What the hub knows by itself; the rest is in the words of the worker.
    note: Option<Box<str>>,
}

impl Engine {
    pub(super) fn report(
        &mut self,
        task_id: TaskId,
        attempt: u32,
        report: Report,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        // A workflow has no attempt, and there is none with the number 0.
        let running = |task: &&Arc<Task>| task.status == Status::Running && task.attempt == attempt && attempt > 0;
        let Some(task) = self.tasks.get(&task_id).filter(running) else {
            let repeated = self.tasks.get(&task_id).map(|task| repeats(task, attempt, &report));
            // A worker that says it is alive has not let go.
            if !matches!(report, Report::Heartbeat) {
                self.attempt_over(task_id, attempt);
            }
            return match repeated {
                Some(true) => Ok(Answer::Reported { cancel_requested: false }),
                Some(false) => Err(Refusal::LeaseLost),
                None => Err(Refusal::TaskNotFound),
            };
        };
        check(&report).map_err(Refusal::Invalid)?;
        let cancel_requested = task.cancel_requested();
        if matches!(report, Report::Cancelled) && !cancel_requested {
            return Err(Refusal::CancelNotRequested);
        }
        let has_uploaded = task.run().is_some_and(|run| run.upload.is_some());
        if let Report::Complete { result } = &report
            && has_uploaded
            && *result != Json::null()
        {
            return Err(Refusal::Invalid(Invalid::value(
                "result",
                "must not stand here: the attempt has uploaded one",
            )));
        }
        let task = Task::clone(task);
        self.heard_of(&task, cx.now);
        match report {
            Report::Heartbeat => return Ok(Answer::Reported { cancel_requested }),
            Report::Upload(large) => self.uploaded(task, large, cx),
            Report::Complete { result } => self.complete(task, result, cx),
            Report::Fail { error, retryable, retry_after_ms } => {
                let how = TryFailed { error: error.cut(), retryable, retry_after_ms, note: None };
                self.fail(task, how, EndedBy::Worker, cx);
            }
            Report::Cancelled => {
                let mut task = task;
                task.run.get_or_insert_default().cancel = Some(Cancel::Acknowledged);
                self.finish_cancelled(task, EndedBy::Worker, "stopped", cx);
            }
            Report::Release => self.lose(task, Lost::Released, "given back", cx),
        }
        Ok(Answer::Reported { cancel_requested })
    }

    /// An attempt has uploaded a result, perhaps in the place of an earlier one.
    fn uploaded(&mut self, mut task: Task, large: Box<LargeResult>, cx: &mut Cx<'_>) {
        let note = format!("uploaded a result of {} bytes", large.bytes);
        keep_progress(&mut task, cx.ticks);
        task.run.get_or_insert_default().upload = Some(large);
        self.step(Some(task.task_id), Step::new(task, Event::Updated).note(note), cx);
    }

    fn complete(&mut self, mut task: Task, result: Json, cx: &mut Cx<'_>) {
        let task_id = task.task_id;
        let upload = task.run.as_mut().and_then(|run| run.upload.take());
        self.end_attempt(&mut task, EndedBy::Worker, cx.ticks);
        task.status = Status::Completed;
        let run = task.run.get_or_insert_default();
        run.finished_at = Some(cx.now.at);
        run.progress = run.progress.take().and_then(|progress| full_progress(&progress));
        let beside = (result.len() > RESULT_INLINE_BYTES).then(|| result.clone());
        run.outcome = Some(match upload {
            Some(large) => Outcome::Large(large),
            None if beside.is_some() => Outcome::ResultOmitted,
            None => Outcome::Result(result),
        });
        self.step(Some(task_id), Step { result: beside, ..Step::new(task, Event::Completed) }, cx);
    }

    /// A try failed: another follows, or the task has failed.
    fn fail(&mut self, mut task: Task, how: TryFailed, by: EndedBy, cx: &mut Cx<'_>) {
        let TryFailed { error, retryable, retry_after_ms, note } = how;
        if task.cancel_requested() {
            return self.finish_cancelled(task, by, "failed while stopping", cx);
        }
        let task_id = task.task_id;
        self.end_attempt(&mut task, by, cx.ticks);
        let event = if retryable && task.tries < task.max_attempts {
            task.status = Status::Scheduled;
            let delay = retry_after_ms.unwrap_or_else(|| task.retry_policy().delay_ms(task.tries, &mut self.random));
            task.run_at = Some(cx.now.at.plus_millis(delay));
            task.delayed = true;
            task.run.get_or_insert_default().last_error = Some(error);
            Event::Retrying
        } else {
            set_failed(&mut task, error, cx.now.at);
            Event::Failed
        };
        self.step(Some(task_id), Step { note, ..Step::new(task, event) }, cx);
    }

    pub(super) fn finish_cancelled(&mut self, mut task: Task, by: EndedBy, note: &str, cx: &mut Cx<'_>) {
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
            let message = format!("lost with its worker {} times", task.crashes);
            set_failed(&mut task, Failure::new("poison", message), cx.now.at);
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
        self.fence(&task, "timeout", cx);
        let millis = task.timeout_ms().unwrap_or_default();
        let error = Failure::new("timeout", format!("took longer than {millis} ms"));
        self.fail_by_hub(task, error, "timeout", cx);
    }

    /// An attempt broke a rule of its task, as a try that failed.
    pub(super) fn fail_by_hub(&mut self, task: Task, error: Failure, note: &str, cx: &mut Cx<'_>) {
        let try_failed = TryFailed { error, retryable: true, retry_after_ms: None, note: Some(note.into()) };
        self.fail(task, try_failed, EndedBy::Hub, cx);
    }

    /// The hub ends a task, whatever it has left. One that was asked to stop is cancelled.
    pub(super) fn end_for_good(&mut self, mut task: Task, error: Failure, note: &str, cx: &mut Cx<'_>) {
        if task.cancel_requested() {
            return self.finish_cancelled(task, EndedBy::Hub, note, cx);
        }
        let task_id = task.task_id;
        if task.status == Status::Running {
            self.end_attempt(&mut task, EndedBy::Hub, cx.ticks);
        }
        task.run_at = None;
        task.delayed = false;
        set_failed(&mut task, error, cx.now.at);
        self.step(Some(task_id), Step::new(task, Event::Failed).note(note), cx);
    }

    /// What every end of an attempt has in common.
    fn end_attempt(&mut self, task: &mut Task, by: EndedBy, ticks: &dyn Ticks) {
        keep_progress(task, ticks);
        let run = task.run.get_or_insert_default();
        run.worker_id = None;
        run.lease_ms = None;
        run.cancel_requested_at = None;
        // What an attempt has uploaded counts only where it completes.
        run.upload = None;
        run.ended_by_hub = by == EndedBy::Hub;
    }
}

fn set_failed(task: &mut Task, error: Failure, at: Timestamp) {
    task.status = Status::Failed;
    let run = task.run.get_or_insert_default();
    run.finished_at = Some(at);
    run.outcome = Some(Outcome::Error(error));
}

fn check(report: &Report) -> Result<(), Invalid> {
    match report {
        Report::Complete { result } => Invalid::json("result", result, RESULT_BYTES_MAX),
        Report::Fail { error, retry_after_ms, .. } => {
            if retry_after_ms.is_some_and(|ms| ms > RetryPolicy::MAX_MS_MAX) {
                return Err(Invalid::limit("retry_after_ms", RetryPolicy::MAX_MS_MAX, "ms"));
            }
            if error.kind.chars().count() > Failure::KIND_CHARS_MAX {
                return Err(Invalid::limit("error.kind", Failure::KIND_CHARS_MAX as u64, "characters"));
            }
            error
                .details
                .as_ref()
                .map_or(Ok(()), |details| Invalid::json("error.details", details, Failure::DETAILS_BYTES_MAX))
        }
        Report::Heartbeat | Report::Upload(_) | Report::Cancelled | Report::Release => Ok(()),
    }
}

/// Whether a report repeats the one that ended this attempt, so that a worker may send it again after a cut.
fn repeats(task: &Task, attempt: u32, report: &Report) -> bool {
    let by_hub = task.run().is_some_and(|run| run.ended_by_hub);
    task.attempt == attempt
        && attempt > 0
        && !by_hub
        && match report {
            Report::Complete { .. } => task.status == Status::Completed,
            Report::Cancelled => task.status == Status::Cancelled,
            // A failure ended the task, or the task as cancelled, or it waits for its next try.
            Report::Fail { .. } => {
                matches!(task.status, Status::Failed | Status::Cancelled)
                    || task.run().is_some_and(|run| run.last_error.is_some())
            }
            Report::Heartbeat | Report::Upload(_) | Report::Release => false,
        }
}
