//! New tasks, and final ones that are run again.

use std::sync::Arc;

use crate::task::{By, Detail, Event, Json, KeyEntry, Name, NewTask, Run, Status, Task, TaskId};

use super::core::{Engine, Step};
use super::keys::SubmitKey;
use super::{Answer, Batch, Cx, Refusal};

/// Checks what can be checked of a submission without knowing anything else. [`Command::Submit`](super::Command::Submit)
/// relies on it.
pub fn check_submission(tasks: &[NewTask], payload_bytes_max: usize) -> Result<(), Refusal> {
    for (at, new) in tasks.iter().enumerate() {
        new.check(payload_bytes_max).map_err(|invalid| match tasks.len() {
            1 => Refusal::Invalid(invalid),
            _ => Refusal::Invalid(invalid.within(format_args!("tasks[{at}]"))),
        })?;
    }
    Ok(())
}

impl Engine {
    pub(super) fn submit(
        &mut self,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        if let Some(SubmitKey { key, body }) = key
            && let Some(entry) = self.keys.get(key, cx.now)
        {
            return match entry.body == body {
                true => Ok(Answer::Replayed { task_ids: entry.tasks.clone() }),
                false => Err(Refusal::IdempotencyConflict),
            };
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        if self.unfinished() + tasks.len() > self.options.tasks_max {
            return Err(Refusal::Full);
        }
        let (changes, settings, notices) = (cx.batch.changes.len(), cx.batch.settings.len(), cx.batch.notices.len());
        let counted = self.quotas.counted();
        let alone = tasks.len() == 1;
        let mut created = Vec::with_capacity(tasks.len());
        for (at, new) in tasks.into_iter().enumerate() {
            match self.create(new, cx) {
                Ok(task) => created.push(task),
                Err(refusal) => {
                    // All or nothing.
                    let Batch { changes: decided, settings: set, .. } = cx.batch;
                    self.take_back(decided, set, (changes, settings), cx.now);
                    cx.batch.notices.truncate(notices);
                    self.quotas.take_back(counted);
                    return Err(match refusal {
                        Refusal::Invalid(invalid) if !alone => {
                            Refusal::Invalid(invalid.within(format_args!("tasks[{at}]")))
                        }
                        refusal => refusal,
                    });
                }
            }
        }
        let tasks: Vec<Arc<Task>> = created;
        if let Some(SubmitKey { key, body }) = key {
            let entry = KeyEntry {
                key,
                body,
                tasks: tasks.iter().map(|task| task.task_id).collect(),
                expires_at: cx.now.at.plus_millis(self.options.key_ms),
            };
            cx.batch.keys.push(entry.clone());
            self.keys.insert(entry);
        }
        Ok(Answer::Submitted { tasks })
    }

    fn create(&mut self, new: NewTask, cx: &mut Cx<'_>) -> Result<Arc<Task>, Refusal> {
        let queue = Name::new(new.queue.as_deref().unwrap_or("default"));
        let user_id = new.user_id.as_deref().map(Name::new);
        let concurrency_key = new.concurrency_key.as_deref().map(Name::new);
        if let Some(key) = &concurrency_key {
            self.make_way(new.on_conflict.unwrap_or_default(), &queue, key, user_id.as_ref(), cx)?;
        }
        self.check_quota(user_id.as_ref(), cx.now)?;
        let delay_ms = new.delay_ms.filter(|_| new.run_at.is_none());
        let run_at = new.run_at.or(delay_ms.map(|delay| cx.now.at.plus_millis(delay)));
        let waits = match delay_ms {
            Some(delay) => delay > 0,
            None => run_at.is_some_and(|at| at > cx.now.wall),
        };
        let detail = Detail {
            title: new.title.map(Into::into),
            description: new.description.map(Into::into),
            labels: new.labels,
            timeout_ms: new.timeout_ms,
            unserved_ms: new.unserved_ms,
            retry: new.retry,
            deadline: By::asked(new.deadline_at, new.deadline_ms, cx.now.at),
            start_by: By::asked(new.start_by_at, new.start_by_ms, cx.now.at),
            silence_ms: new.silence_ms,
            cancel_grace_ms: new.cancel_grace_ms,
            concurrency_key,
            parent_id: new.parent_id,
        };
        let task = Task {
            task_id: self.ids.next(cx.now.at, &mut self.random),
            task_type: Name::new(&new.task_type),
            queue,
            user_id,
            rev: 0,
            created_at: cx.now.at,
            updated_at: cx.now.at,
            run_at,
            priority: new.priority,
            status: if waits { Status::Scheduled } else { Status::Pending },
            delayed: waits && delay_ms.is_some(),
            attempt: 0,
            tries: 0,
            max_attempts: new.max_attempts.unwrap_or(1),
            crashes: 0,
            max_crashes: new.max_crashes.unwrap_or(3),
            detail: (detail != Detail::default()).then(|| Box::new(detail)),
            run: None,
        };
        Ok(self.step(None, Step { payload: new.payload, ..Step::new(task, Event::Created) }, cx))
    }

    pub(super) fn retry(&mut self, task_id: TaskId, payload: Option<Json>, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?;
        match task.status {
            Status::Failed | Status::Cancelled if self.draining => return Err(Refusal::Draining),
            Status::Failed | Status::Cancelled if self.unfinished() >= self.options.tasks_max => {
                return Err(Refusal::Full);
            }
            Status::Failed | Status::Cancelled => {}
            Status::Completed => return Err(Refusal::TaskFinished),
            Status::Running => return Err(Refusal::TaskRunning),
            Status::Waiting | Status::Scheduled | Status::Pending => return Err(Refusal::TaskNotFinished),
        }
        let mut next = Task::clone(task);
        if let Some(detail) = &mut next.detail {
            let start_by = detail.start_by.as_mut().filter(|_| task.attempt == 0);
            for by in detail.deadline.as_mut().into_iter().chain(start_by) {
                match by.ms {
                    Some(ms) => by.at = cx.now.at.plus_millis(ms),
                    None if by.at <= cx.now.wall => return Err(Refusal::DeadlineOver),
                    None => {}
                }
            }
        }
        next.status = Status::Pending;
        next.run_at = None;
        next.tries = 0;
        next.crashes = 0;
        // All but the attempt starts anew, and who ended that.
        let by_hub = task.run().is_some_and(|run| run.ended_by_hub);
        next.run = by_hub.then(|| Box::new(Run { ended_by_hub: true, ..Run::default() }));
        let note = if payload.is_some() { "retried by hand, with another payload" } else { "retried by hand" };
        let step = Step { payload, ..Step::new(next, Event::Retrying).note(note) };
        Ok(Answer::Task(self.step(Some(task_id), step, cx)))
    }
}
