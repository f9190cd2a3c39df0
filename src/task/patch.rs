//! What may be changed of a task that waits.

use serde::{Deserialize, Serialize};

use super::bounds::saturated;
use super::new_task::{ATTEMPTS_MAX, TITLE_CHARS_MAX, chars, optional_priority, range};
use super::{Invalid, Json, Timestamp};

/// Changes to a task; what is absent stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPatch {
    /// −100…100, higher first.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_priority")]
    pub priority: Option<i8>,
    /// Not before this time; a time that is over makes it ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// In place of the payload it has; `null` is a payload like any other.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present_verbatim")]
    pub payload: Option<Json>,
    /// How many tries are allowed; no fewer than it had.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_attempts: Option<u32>,
}

impl TaskPatch {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        let TaskPatch { priority, run_at, title, payload, max_attempts } = self;
        priority.is_none() && run_at.is_none() && title.is_none() && payload.is_none() && max_attempts.is_none()
    }

    /// Checks what can be checked without knowing the task.
    pub fn check(&self, payload_bytes_max: usize) -> Result<(), Invalid> {
        if self.priority.is_some_and(|priority| !(-100..=100).contains(&priority)) {
            return Err(Invalid::value("priority", "must be from -100 to 100"));
        }
        chars("title", self.title.as_deref(), TITLE_CHARS_MAX)?;
        if let Some(payload) = &self.payload {
            Invalid::json("payload", payload, payload_bytes_max)?;
        }
        range("max_attempts", self.max_attempts.map(u64::from), 1, u64::from(ATTEMPTS_MAX))
    }
}
