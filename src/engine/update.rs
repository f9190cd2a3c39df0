//! Changes by hand to a task that waits.

use crate::task::{By, Event, Invalid, Status, Task, TaskId, TaskPatch};

use super::core::{Engine, Step};
use super::workflows::is_shut;
use super::{Answer, Cx, Refusal};

impl Engine {
    /// Relies on [`TaskPatch::check`].
    pub(super) fn update(&mut self, task_id: TaskId, patch: TaskPatch, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?;
        match task.status {
            Status::Waiting | Status::Scheduled | Status::Pending => {}
            Status::Running => return Err(Refusal::TaskRunning),
            Status::Completed | Status::Failed | Status::Cancelled => return Err(Refusal::TaskFinished),
        }
        if task.is_workflow() {
            for (field, stands) in [
                ("priority", patch.priority.is_some()),
                ("payload", patch.payload.is_some()),
                ("max_attempts", patch.max_attempts.is_some()),
                ("run_at", patch.run_at.is_some() && !is_shut(task)),
            ] {
                if stands {
                    let detail = if field == "run_at" {
                        "must not be moved once it is open"
                    } else {
                        "is nothing that a workflow has"
                    };
                    return Err(Refusal::Invalid(Invalid::value(field, detail)));
                }
            }
        }
        if task.open_list().is_some() && patch.payload.is_some() {
            let detail = "must not be replaced while the task gathers those of others";
            return Err(Refusal::Invalid(Invalid::value("payload", detail)));
        }
        if patch.is_empty() {
            return Ok(Answer::Task(task.clone()));
        }
        let TaskPatch { priority, run_at, title, payload, max_attempts } = patch;
        let mut next = Task::clone(task);
        if let Some(max_attempts) = max_attempts {
            if max_attempts <= next.tries {
                let had = format!("must be above the {} tries that it had", next.tries);
                return Err(Refusal::Invalid(Invalid::value("max_attempts", had)));
            }
            next.max_attempts = max_attempts;
        }
        if let Some(run_at) = run_at {
            for (by, field) in [(next.deadline(), "deadline_at"), (next.start_by(), "start_by_at")] {
                if by.is_some_and(|By { at, .. }| at <= run_at) {
                    let early = format!("must be before its {field}");
                    return Err(Refusal::Invalid(Invalid::value("run_at", early)));
                }
            }
            next.run_at = Some(run_at);
            next.delayed = false;
            if next.status != Status::Waiting {
                next.status = if run_at > cx.now.wall { Status::Scheduled } else { Status::Pending };
            }
        }
        next.priority = priority.unwrap_or(next.priority);
        if let Some(title) = title {
            next.detail.get_or_insert_default().title = Some(title.into());
        }
        let step = Step { payload, ..Step::new(next, Event::Updated) };
        Ok(Answer::Task(self.step(Some(task_id), step, cx)))
    }
}
