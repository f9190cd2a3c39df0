//! Why a try failed, as a registered function says it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::task::{Failure, Json, RetryPolicy};

/// Why a try failed, and whether another may help.
///
/// Any error becomes one with `?`: of kind `error`, retryable, with its causes in the message. For that to work it is no
/// [`std::error::Error`] itself.
#[derive(Clone, PartialEq)]
pub struct TaskFailure {
    pub failure: Failure,
    /// Whether another try follows, where the task has tries left.
    pub retryable: bool,
    /// Milliseconds until that try, in place of what the task's `retry` says; at most 30 days.
    pub retry_after_ms: Option<u64>,
}

impl TaskFailure {
    /// A failure worth another try. `kind` is a short word for programs, `message` is for people.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> TaskFailure {
        TaskFailure { failure: Failure::new(kind, message), retryable: true, retry_after_ms: None }
    }

    /// The failure, final: no other try follows.
    pub fn permanent(mut self) -> TaskFailure {
        self.retryable = false;
        self
    }

    /// The failure, with the next try no sooner and no later than after this wait: for a service that says when to come
    /// back. Cut to 30 days.
    pub fn retry_after(mut self, wait: Duration) -> TaskFailure {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.retry_after_ms = Some(millis.min(RetryPolicy::MAX_MS_MAX));
        self
    }

    /// The failure with anything more, up to 64 KiB of JSON text; left out where it is more, or no JSON.
    pub fn details<T: Serialize + ?Sized>(mut self, details: &T) -> TaskFailure {
        self.failure.details = Json::of(details).ok().filter(|json| json.check(Failure::DETAILS_BYTES_MAX).is_ok());
        self
    }
}

impl<E: std::error::Error> From<E> for TaskFailure {
    fn from(error: E) -> TaskFailure {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors already say what their cause says.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        TaskFailure::new("error", message)
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.kind, self.failure.message)
    }
}

impl fmt::Debug for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
