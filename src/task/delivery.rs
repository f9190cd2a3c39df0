//! Deliveries: what a task's callbacks are owed.
//!
//! A transition that one of the task's callbacks is to be told is a *delivery*. What is owed follows from the transition
//! alone ([`Change::deliveries`]): so it stands in no log beside it, cannot be lost without it, and cannot be there without
//! it. That holds for its id too, which is the same whoever makes it up again: a receiver knows what it had by it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Change, ChangeKind, Event, ParseIdError, Task, TaskId, Timestamp};

/// The identity of a delivery: UUID v7, whose time is that of the transition, and whose rest follows from what it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

/// A transition that a callback is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub task_id: TaskId,
    /// The place of the callback among those of the task.
    pub place: u8,
    pub url: Box<str>,
    pub rev: u64,
    pub at: Timestamp,
    pub event: Event,
    pub state: DeliveryState,
}

/// How far it has come; one that has arrived is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryState {
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub tries: u32,
    /// How long it has waited between tries so far, as it was meant to: what the machine's clock or a hub that was down
    /// adds to that is not the receiver's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<Timestamp>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// Why the newest try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
}

/// What a try has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryStep {
    pub id: DeliveryId,
    /// How it stands now; `None`: it has arrived, and is owed no longer.
    pub state: Option<DeliveryState>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DeliveryStatus {
    /// It is tried, or waits for its next try, or for one before it.
    #[default]
    Pending = 0,
    /// It was given up, until somebody has it tried again.
    Failed = 1,
}

impl DeliveryId {
    fn of(task_id: TaskId, rev: u64, place: u8, at: Timestamp) -> DeliveryId {
        let mut form = [0; 25];
        form[..16].copy_from_slice(task_id.as_bytes());
        form[16..24].copy_from_slice(&rev.to_be_bytes());
        form[24] = place;
        let hash = Sha256::digest(form);
        let rest = hash[..10].try_into().expect("a SHA-256 has 32 bytes");
        DeliveryId(uuid::Builder::from_unix_timestamp_millis(at.as_millis() as u64, rest).into_uuid())
    }

    /// The 16 bytes; their order is that of the transitions, but for those of one millisecond.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// When the transition was, as it says itself.
    pub fn told_at(self) -> Timestamp {
        Timestamp::from_millis((self.0.as_u128() >> 80) as i64)
    }

    /// The id of these 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> DeliveryId {
        DeliveryId(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeliveryId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<DeliveryId, ParseIdError> {
        Uuid::try_parse(text).map(DeliveryId).map_err(|_| ParseIdError)
    }
}

impl DeliveryStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryStatus::Pending => "pending",
            DeliveryStatus::Failed => "failed",
        }
    }

    /// The status with this discriminant, as stored.
    pub fn from_code(code: u8) -> Option<DeliveryStatus> {
        [DeliveryStatus::Pending, DeliveryStatus::Failed].into_iter().find(|status| *status as u8 == code)
    }

    /// The status that [`as_str`](Self::as_str) names, if any.
    pub fn parse(word: &str) -> Option<DeliveryStatus> {
        [DeliveryStatus::Pending, DeliveryStatus::Failed].into_iter().find(|status| status.as_str() == word)
    }
}

impl Delivery {
    /// What is owed of the transition that made this record.
    pub fn of(task: &Task, event: Event, at: Timestamp) -> impl Iterator<Item = Delivery> {
        let callbacks = task.callbacks().into_iter().flat_map(|callbacks| callbacks.iter());
        callbacks.filter(move |(_, callback)| callback.events.has(event)).map(move |(place, callback)| Delivery {
            id: DeliveryId::of(task.task_id, task.rev, place, at),
            task_id: task.task_id,
            place,
            url: callback.url.clone(),
            rev: task.rev,
            at,
            event,
            state: DeliveryState::default(),
        })
    }
}

impl Change {
    /// What the callbacks of the task are owed of this step.
    pub fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        let event = match self.kind {
            ChangeKind::Transition(event) => Some(event),
            ChangeKind::Gone => None,
        };
        event.into_iter().flat_map(|event| Delivery::of(&self.task, event, self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_what_it_is_of_and_its_order_from_the_time() {
        let (task, at) = (TaskId::from_bytes([1; 16]), Timestamp::from_millis(1_790_000_000_123));
        let id = DeliveryId::of(task, 7, 0, at);
        assert_eq!(id, DeliveryId::of(task, 7, 0, at));
        for other in [
            DeliveryId::of(TaskId::from_bytes([2; 16]), 7, 0, at),
            DeliveryId::of(task, 8, 0, at),
            DeliveryId::of(task, 7, 1, at),
            // The same number of another history.
            DeliveryId::of(task, 7, 0, at.plus_millis(1)),
        ] {
            assert_ne!(id, other);
        }
        assert!(id < DeliveryId::of(task, 7, 0, at.plus_millis(1)));
        assert_eq!((id.0.get_version_num(), id.0.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
