//! New tasks, and the keys that make submitting them twice harmless.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::task::{
    By, Cancel, Detail, Digest, Event, Invalid, Json, KeyEntry, Name, NewTask, Run, Status, Task, TaskId,
};

use super::core::{Engine, Step, keep_progress};
use super::{Answer, Cx, Notice, Now, Refusal};

/// Keys at hand; more are looked up in the store.
const KEYS_RESIDENT_MAX: usize = 4_096;

/// An idempotency key with its caller and route, and the body it came with, as digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmitKey {
    pub key: Digest,
    pub body: Digest,
}

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

/// Keys that were used lately.
#[derive(Default)]
pub(super) struct Keys {
    entries: HashMap<u128, KeyEntry>,
    order: VecDeque<u128>,
}

impl Keys {
    fn get(&self, key: u128, now: Now) -> Option<&KeyEntry> {
        self.entries.get(&key).filter(|entry| entry.expires_at > now.at)
    }

    fn insert(&mut self, entry: KeyEntry) {
        let key = entry.key;
        if self.entries.insert(key, entry).is_some() {
            // Used again after it expired: it is the youngest now, and must not go in the place of the old one.
            self.order.retain(|known| *known != key);
        }
        self.order.push_back(key);
        if self.order.len() > KEYS_RESIDENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn forget(&mut self, key: u128) {
        self.entries.remove(&key);
        self.order.retain(|known| *known != key);
    }
}

impl Engine {
    /// Whether a key is at hand. If not, whoever drives the engine looks it up in the store and
    /// [`admit_key`](Self::admit_key)s it.
    pub fn knows_key(&self, key: u128) -> bool {
        self.keys.entries.contains_key(&key)
    }

    /// Takes in a key from the store.
    pub fn admit_key(&mut self, entry: KeyEntry) {
        self.keys.insert(entry);
    }

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
        let tasks: Vec<Arc<Task>> = tasks.into_iter().map(|new| self.create(new, cx)).collect();
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

    fn create(&mut self, new: NewTask, cx: &mut Cx<'_>) -> Arc<Task> {
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
            parent_id: new.parent_id,
        };
        let task = Task {
            task_id: self.ids.next(cx.now.at, &mut self.random),
            task_type: Name::new(&new.task_type),
            queue: Name::new(new.queue.as_deref().unwrap_or("default")),
            user_id: new.user_id.as_deref().map(Name::new),
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
        self.step(None, Step { payload: new.payload, ..Step::new(task, Event::Created) }, cx)
    }

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
