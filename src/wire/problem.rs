//! Problems (RFC 9457) and their closed list of codes.

use serde::{Deserialize, Serialize};

use crate::task::PayloadFault;

/// The body of every refusal and error, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A name for the kind of problem: `urn:taskhub:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: Code,
    pub detail: String,
    /// The field that is wrong, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The limit that was passed, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Where payloads do not fit what is declared of their types: what does not fit, the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<PayloadFault>,
    /// When to come back, in seconds, where that is known; it goes into the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem of this code; `detail` says what happened this time.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:taskhub:problem:{}", code.as_str()),
            title: code.title().into(),
            status: code.status(),
            code,
            detail: detail.into(),
            field: None,
            limit: None,
            errors: Vec::new(),
            retry_after_s: None,
        }
    }
}

macro_rules! codes {
    ($($variant:ident $word:literal $status:literal $title:literal,)*) => {
        /// Every code a client may meet. The list is closed: a new code is a change of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $word)] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $word,)* }
            }

            /// The HTTP status it comes with.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* }
            }

            /// What it means, for people.
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }
        }
    };
}

codes! {
    InvalidJson "invalid_json" 400 "The body is not JSON",
    InvalidRequest "invalid_request" 400 "The request contradicts itself",
    InvalidField "invalid_field" 422 "A value is wrong",
    UnknownField "unknown_field" 422 "A field or parameter is not known",
    LimitExceeded "limit_exceeded" 422 "A value is over its limit",
    PayloadTooLarge "payload_too_large" 413 "The body is too large",
    RangeNotSatisfiable "range_not_satisfiable" 416 "The range is beyond the end",
    UnsupportedMediaType "unsupported_media_type" 415 "The body is not declared as JSON",
    NotFound "not_found" 404 "There is nothing at this path",
    MethodNotAllowed "method_not_allowed" 405 "The path does not take this method",
    TaskNotFound "task_not_found" 404 "There is no such task",
    WorkflowNotFound "workflow_not_found" 404 "There is no such workflow",
    QueueNotFound "queue_not_found" 404 "There is no such queue",
    ScheduleNotFound "schedule_not_found" 404 "There is no such schedule",
    CallbackNotFound "callback_not_found" 404 "There is no such callback",
    TokenNotFound "token_not_found" 404 "There is no such token",
    TaskTypeNotFound "task_type_not_found" 404 "There is no such task type",
    TaskNotFinished "task_not_finished" 409 "The task is not finished",
    TaskFinished "task_finished" 409 "The task is finished",
    TaskRunning "task_running" 409 "The task is running",
    LeaseLost "lease_lost" 409 "The attempt is no longer the task's own",
    CancelNotRequested "cancel_not_requested" 409 "Nobody asked the attempt to stop",
    DependencyFailed "dependency_failed" 409 "A task that it depends on did not complete",
    Conflict "conflict" 409 "It conflicts with what is there",
    IdempotencyConflict "idempotency_conflict" 409 "The idempotency key was used for something else",
    PayloadInvalid "payload_invalid" 422 "A payload does not fit its type",
    BadFilter "bad_filter" 422 "The filter is wrong",
    BadCursor "bad_cursor" 422 "The cursor is not one of this list",
    Unauthenticated "unauthenticated" 401 "Who is calling is not known",
    Forbidden "forbidden" 403 "The caller may not do this",
    RateLimited "rate_limited" 429 "Too many requests",
    QuotaExceeded "quota_exceeded" 429 "A quota is used up",
    Draining "draining" 503 "The hub is going down",
    Overloaded "overloaded" 503 "The hub has too much to do",
    StorageUnavailable "storage_unavailable" 503 "The hub cannot write",
    Internal "internal" 500 "The hub failed",
}
