//! The hub: one writer that owns the truth, and a handle for everybody else.
//!
//! * [`Hub`] is the handle: cheap to clone, every method either sends the writer a command and waits for its answer, or
//!   reads what has been committed.
//! * `writer` is the loop: decide, commit, show, tell, answer, in this order.
//! * `couriers` deliver what callbacks are owed.
//! * `ledger` has what is kept about access, and the audit.
//! * `board` shows what has been committed; nothing is decided from it.
//! * [`CallerHub`] is the handle as one caller has it: what they may not see is not there, and what they may not do is refused.
//! * [`WorkerLink`] is a worker's connection, whatever carries it: a socket, or a handler in the same program.

mod authors;
mod board;
mod bulk;
mod caller;
mod clock;
mod couriers;
mod expire;
mod handle;
mod inbox;
mod ledger;
mod mailbox;
mod meter;
mod missed;
mod pace;
mod payloads;
mod results;
mod schedules;
mod settings;
mod shared;
mod single_flight;
mod stats;
mod system_random;
mod task_types;
mod unwritten;
mod uploads;
mod worker_link;
mod workflows;
mod writer;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::access::Right;
pub use crate::feed::FeedOptions;
use crate::task::TaskId;

// What the methods of a hub take and give, so that who asks one need not know what it is made of.
pub use crate::engine::{Accepts, Link, Quota, Refusal, Report, SubmitKey, WorkerState};
pub use crate::store::{AuditPage, AuditQuery, DeliveryPage, DeliveryQuery, LogRange, Order, Page, Query, Stored};
pub use bulk::{BULK_MAX, BulkAction};
pub use caller::CallerHub;
pub use couriers::{CallbackCounts, CallbackOptions};
pub use handle::Hub;
pub use ledger::{AccessError, AccessListener};
pub use missed::{Missed, MissedTask};
pub use settings::SettingLines;
pub use shared::Ended;
pub use uploads::Upload;
pub use worker_link::{HandedOut, Pushed, Welcome, WorkerLink};
pub use workflows::WholeWorkflow;

/// Why a call did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubError {
    /// The domain says no.
    Refused(Refusal),
    /// The caller may not do this, whatever it is done to; where a value is to blame, with its field.
    Forbidden(Forbidden),
    /// Nothing was written, nothing has changed: try again later.
    StorageUnavailable,
    /// More waits for the writer than it may hold. Nothing has changed.
    Overloaded,
    /// As many callbacks are owed as may be before tasks with more are turned away. Nothing has changed.
    CallbacksFull,
    /// The hub has a fault of its own, which its log tells of.
    Internal,
    /// The hub has stopped. Whether the call still did something is not known.
    Stopped,
}

/// What a caller may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    pub detail: String,
    pub field: Option<String>,
}

impl Forbidden {
    /// The caller lacks this right.
    pub fn lacks(right: Right) -> Forbidden {
        Forbidden { detail: format!("the caller may not {}", right.words()), field: None }
    }

    /// The caller may not say this, at this field.
    pub fn at(field: impl Into<String>, detail: impl Into<String>) -> Forbidden {
        Forbidden { detail: detail.into(), field: Some(field.into()) }
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HubError::Refused(refusal) => write!(f, "{refusal}"),
            HubError::Forbidden(forbidden) => f.write_str(&forbidden.detail),
            HubError::StorageUnavailable => f.write_str("the hub cannot write"),
            HubError::Overloaded => f.write_str("the hub has too much to do"),
            HubError::CallbacksFull => f.write_str("too many callbacks wait to be delivered"),
            HubError::Internal => f.write_str("the hub failed at this"),
            HubError::Stopped => f.write_str("the hub has stopped"),
        }
    }
}

impl std::error::Error for HubError {}

/// What can be set.
#[derive(Clone, Debug)]
pub struct HubOptions {
    pub engine: crate::engine::Options,
    /// How long final tasks are kept.
    pub retain: Duration,
    /// How long what was deleted is remembered, for clients that resume.
    pub tombstones: Duration,
    /// How long the audit is kept.
    pub audit: Duration,
    /// The largest result that is uploaded into a file, in bytes; 0 for none.
    pub result_bytes_max: u64,
    pub feed: FeedOptions,
    pub callbacks: CallbackOptions,
}

impl HubOptions {
    /// A gibibyte.
    pub const RESULT_BYTES_MAX: u64 = 1 << 30;
}

impl Default for HubOptions {
    fn default() -> HubOptions {
        HubOptions {
            engine: Default::default(),
            retain: Duration::from_secs(24 * 3_600),
            tombstones: Duration::from_secs(600),
            audit: ledger::AUDIT_KEPT,
            result_bytes_max: HubOptions::RESULT_BYTES_MAX,
            feed: FeedOptions::default(),
            callbacks: CallbackOptions::default(),
        }
    }
}

/// The answer to a submission.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// In the order they were submitted.
    pub task_ids: Vec<TaskId>,
    /// Their records as JSON.
    pub records: Vec<Bytes>,
    /// The places of those that were there already, in order.
    pub existing: Vec<u32>,
    /// Whether an idempotency key brought back what it stood for.
    pub replayed: bool,
}

/// What a wait waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Final,
    /// A `rev` above this one, or final.
    RevAbove(u64),
}
