//! Submissions put together in code: a method for each field, named like it.
//!
//! The fields can be set as well (`NewTask { priority: Some(5), ..NewTask::new("report") }`); both come down to the same record, and
//! what contradicts itself or is out of bounds is refused when it is submitted, with the field's name.
//!
//! ```
//! use std::time::Duration;
//! use taskhub::task::{NewGather, NewTask, NewUnique, NewWorkflow, OnConflict, OnFailure, OnHeld, RetryPolicy};
//!
//! // At most one report of a customer at a time; who asks again gets the one that is there.
//! NewTask::new("report")
//!     .payload(&serde_json::json!({"customer": 7}))?
//!     .queue("reports")
//!     .priority(10)
//!     .unique(NewUnique::by(["payload/customer"]))
//!     .max_attempts(5)
//!     .retry(RetryPolicy { base_ms: 2_000, ..RetryPolicy::default() })
//!     .timeout(Duration::from_secs(600));
//!
//! // A new commit ends the build of the one before.
//! NewTask::new("build").concurrency_key("shop/main").on_conflict(OnConflict::CancelRunning);
//!
//! // Ten events, or those of a minute, become one task.
//! NewTask::new("digest").gather(NewGather::key("events").max_count(10).max_wait(Duration::from_secs(60)));
//!
//! // Typing: only what was said last is done, a second after it was, and never later than ten.
//! NewTask::new("index")
//!     .delay(Duration::from_secs(1))
//!     .unique(NewUnique::key("draft-7").on_conflict(OnHeld::Replace).max_wait(Duration::from_secs(10)));
//!
//! // Many files, and a summary of them all, whatever becomes of some.
//! let files = (0..200).map(|file| NewTask::new("parse").payload(&file)).collect::<Result<_, _>>()?;
//! let summary = NewTask::new("summary").payload(&serde_json::json!({"files": {"$result": "@group"}}))?;
//! NewWorkflow::chord("All files", files, summary).on_failure(OnFailure::Finish).label("project", "shop");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use super::{
    HeldUntil, NewCallback, NewGather, NewTask, NewUnique, NewWorkflow, OnConflict, OnDependencyFailure, OnFailure,
    OnHeld, RetryPolicy, TaskId, Timestamp,
};

/// Milliseconds of a time that may be longer than any that is allowed; then it is refused as too long.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl NewTask {
    /// Where it waits; `default`.
    pub fn queue(self, queue: impl Into<String>) -> NewTask {
        NewTask { queue: Some(queue.into()), ..self }
    }

    /// What people see; up to 256 characters.
    pub fn title(self, title: impl Into<String>) -> NewTask {
        NewTask { title: Some(title.into()), ..self }
    }

    pub fn description(self, description: impl Into<String>) -> NewTask {
        NewTask { description: Some(description.into()), ..self }
    }

    /// Whose it is, for limits, fairness and filters.
    pub fn user_id(self, user_id: impl Into<String>) -> NewTask {
        NewTask { user_id: Some(user_id.into()), ..self }
    }

    /// One label more.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> NewTask {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// −100…100, higher first; 0.
    pub fn priority(self, priority: i8) -> NewTask {
        NewTask { priority: Some(priority), ..self }
    }

    /// Not before this time.
    pub fn run_at(self, at: Timestamp) -> NewTask {
        NewTask { run_at: Some(at), ..self }
    }

    /// Not before so long from when it is submitted.
    pub fn delay(self, delay: Duration) -> NewTask {
        NewTask { delay_ms: Some(ms(delay)), ..self }
    }

    /// How many tries it has, 1–1,000; 1.
    pub fn max_attempts(self, tries: u32) -> NewTask {
        NewTask { max_attempts: Some(tries), ..self }
    }

    /// How long it waits between tries.
    pub fn retry(self, policy: RetryPolicy) -> NewTask {
        NewTask { retry: Some(policy), ..self }
    }

    /// The longest a try may take.
    pub fn timeout(self, limit: Duration) -> NewTask {
        NewTask { timeout_ms: Some(ms(limit)), ..self }
    }

    /// Not final so long after it was submitted, it has failed.
    pub fn deadline(self, limit: Duration) -> NewTask {
        NewTask { deadline_ms: Some(ms(limit)), ..self }
    }

    /// Never handed out so long after it was submitted, it has failed.
    pub fn start_by(self, limit: Duration) -> NewTask {
        NewTask { start_by_ms: Some(ms(limit)), ..self }
    }

    /// A try that says nothing for so long has failed.
    pub fn silence(self, limit: Duration) -> NewTask {
        NewTask { silence_ms: Some(ms(limit)), ..self }
    }

    /// How long its worker may take to stop once somebody asked for it; 30 s.
    pub fn cancel_grace(self, grace: Duration) -> NewTask {
        NewTask { cancel_grace_ms: Some(ms(grace)), ..self }
    }

    /// Tasks of one queue and key run one at a time, or as many as the queue's `key_concurrency` says.
    pub fn concurrency_key(self, key: impl Into<String>) -> NewTask {
        NewTask { concurrency_key: Some(key.into()), ..self }
    }

    /// What happens where as many tasks with its key are unfinished as may run.
    pub fn on_conflict(self, what: OnConflict) -> NewTask {
        NewTask { on_conflict: Some(what), ..self }
    }

    /// There is one such task at a time.
    pub fn unique(self, unique: NewUnique) -> NewTask {
        NewTask { unique: Some(Box::new(unique)), ..self }
    }

    /// Such tasks become one, whose payload is the list of theirs.
    pub fn gather(self, gather: NewGather) -> NewTask {
        NewTask { gather: Some(Box::new(gather)), ..self }
    }

    /// One URL more that is told how it ended; [`NewCallback::on`] is told of what is named.
    pub fn callback(mut self, callback: impl Into<NewCallback>) -> NewTask {
        self.callbacks.push(callback.into());
        self
    }

    /// How others of the same call name it, as `@reference`.
    pub fn reference(self, reference: impl Into<String>) -> NewTask {
        NewTask { reference: Some(reference.into()), ..self }
    }

    /// One more task that is to be final before it runs: the id of one that is there, or `@reference`.
    pub fn depends_on(mut self, task: impl ToString) -> NewTask {
        self.depends_on.push(task.to_string());
        self
    }

    /// What becomes of it where one of these fails or is cancelled; it is cancelled too.
    pub fn on_dependency_failure(self, what: OnDependencyFailure) -> NewTask {
        NewTask { on_dependency_failure: Some(what), ..self }
    }

    /// How much it counts in the progress of its workflow, 1–1,000,000; 1.
    pub fn weight(self, weight: u32) -> NewTask {
        NewTask { weight: Some(weight), ..self }
    }

    /// The task that it belongs to.
    pub fn parent(self, parent_id: TaskId) -> NewTask {
        NewTask { parent_id: Some(parent_id), ..self }
    }
}

impl From<NewWorkflow> for NewTask {
    /// A workflow in the place of a task of another one.
    fn from(workflow: NewWorkflow) -> NewTask {
        NewTask { workflow: Some(Box::new(workflow)), ..NewTask::default() }
    }
}

impl NewUnique {
    /// Until when it is the only one; until it is final.
    pub fn until(self, until: HeldUntil) -> NewUnique {
        NewUnique { until: Some(until), ..self }
    }

    /// It is the only one for so long after it was made, whatever becomes of it.
    pub fn within(self, time: Duration) -> NewUnique {
        NewUnique { within_ms: Some(ms(time)), ..self }
    }

    /// What becomes of it where there is one already; that one is the answer.
    pub fn on_conflict(self, what: OnHeld) -> NewUnique {
        NewUnique { on_conflict: Some(what), ..self }
    }

    /// However often it is replaced, it does not wait longer than this.
    pub fn max_wait(self, time: Duration) -> NewUnique {
        NewUnique { max_wait_ms: Some(ms(time)), ..self }
    }
}

impl NewGather {
    /// Submissions with this key. It takes at least one bound.
    pub fn key(key: impl Into<String>) -> NewGather {
        NewGather { key: key.into(), ..NewGather::default() }
    }

    /// The task is ready with so many items.
    pub fn max_count(self, items: u32) -> NewGather {
        NewGather { max_count: Some(items), ..self }
    }

    /// It is ready so long after its first item came.
    pub fn max_wait(self, time: Duration) -> NewGather {
        NewGather { max_wait_ms: Some(ms(time)), ..self }
    }

    /// It is ready with so many bytes of payload.
    pub fn max_bytes(self, bytes: u64) -> NewGather {
        NewGather { max_bytes: Some(bytes), ..self }
    }
}

impl NewWorkflow {
    /// Whose it is, and all of its tasks.
    pub fn user_id(self, user_id: impl Into<String>) -> NewWorkflow {
        NewWorkflow { user_id: Some(user_id.into()), ..self }
    }

    /// One label more.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> NewWorkflow {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// One URL more that is told how the workflow ended, as with [`NewTask::callback`].
    pub fn callback(mut self, callback: impl Into<NewCallback>) -> NewWorkflow {
        self.callbacks.push(callback.into());
        self
    }

    /// What becomes of the others when one of its tasks fails; what has not started is cancelled.
    pub fn on_failure(self, what: OnFailure) -> NewWorkflow {
        NewWorkflow { on_failure: Some(what), ..self }
    }

    /// The task whose result is the workflow's.
    pub fn output(self, reference: impl std::fmt::Display) -> NewWorkflow {
        NewWorkflow { output: Some(format!("@{reference}")), ..self }
    }

    /// One more task that is to be final before any of its own runs: the id of one that is there.
    pub fn depends_on(mut self, task_id: TaskId) -> NewWorkflow {
        self.depends_on.push(task_id.to_string());
        self
    }

    /// Not final so long after it was submitted, it has failed.
    pub fn deadline(self, limit: Duration) -> NewWorkflow {
        NewWorkflow { deadline_ms: Some(ms(limit)), ..self }
    }
}
