//! Deliveries to callbacks as they are shown.

use serde::{Deserialize, Serialize};

use crate::task::{Delivery, DeliveryId, DeliveryStatus, Event, TaskId, Timestamp};

/// `GET /callbacks`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallbackList {
    pub callbacks: Vec<CallbackView>,
    /// Where there are more: what to ask with for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A transition that a callback of a task is to be told, until it has arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallbackView {
    /// The same as its `webhook-id`.
    pub callback_id: DeliveryId,
    pub task_id: TaskId,
    pub event: Event,
    /// That of the transition.
    pub rev: u64,
    pub url: String,
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// When the transition was.
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<Timestamp>,
    /// When it is tried again; absent where that is now, or after an earlier one of its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Why it did not arrive the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl From<Delivery> for CallbackView {
    fn from(Delivery { id, task_id, url, rev, at, event, state, .. }: Delivery) -> CallbackView {
        CallbackView {
            callback_id: id,
            task_id,
            event,
            rev,
            url: url.into(),
            status: state.status,
            attempts: state.tries,
            created_at: at,
            last_attempt_at: state.tried_at,
            next_attempt_at: state.next_at,
            last_error: state.error.map(Into::into),
        }
    }
}
