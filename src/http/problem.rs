//! Problems as answers, and the one place where what the hub says no to becomes one.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::hub::{Forbidden, HubError, Quota, Refusal};
use crate::task::{Invalid, InvalidKind};
use crate::wire::{Code, Problem};

/// The media type of problems.
pub(super) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem is plain values with string keys");
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let known = self.retry_after_s.map(HeaderValue::from);
        if self.code == Code::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"taskhub\""));
        }
        if let Some(seconds) = known.or(retry_after(self.code).map(HeaderValue::from_static)) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// When to come back, in seconds, where coming back can help.
fn retry_after(code: Code) -> Option<&'static str> {
    match code {
        // A restart takes about as long.
        Code::Draining => Some("5"),
        // The writer looks at the disk about as often.
        Code::StorageUnavailable => Some("2"),
        Code::Overloaded | Code::RateLimited | Code::QuotaExceeded => Some("1"),
        _ => None,
    }
}

impl From<HubError> for Problem {
    fn from(error: HubError) -> Problem {
        match error {
            HubError::Refused(refusal) => refusal.into(),
            HubError::Forbidden(Forbidden { detail, field }) => {
                Problem { field, ..Problem::new(Code::Forbidden, detail) }
            }
            HubError::StorageUnavailable => {
                Problem::new(Code::StorageUnavailable, "nothing was written and nothing has changed; try again later")
            }
            HubError::Overloaded => {
                Problem::new(Code::Overloaded, "too much waits to be written; nothing has changed; try again later")
            }
            HubError::CallbacksFull => {
                let detail =
                    "too many callbacks wait to be delivered; nothing was taken; submit it without, or try again later";
                Problem::new(Code::Overloaded, detail).at("callbacks")
            }
            HubError::Internal => Problem::new(Code::Internal, "the hub failed at this; its log says more"),
            HubError::Stopped => Problem::new(Code::Draining, "the hub has stopped"),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let (code, detail) = match refusal {
            Refusal::Invalid(invalid) => return invalid.into(),
            Refusal::TaskNotFound => (Code::TaskNotFound, "no task has this id"),
            Refusal::TaskFinished => (Code::TaskFinished, "the task is finished"),
            Refusal::TaskNotFinished => (Code::TaskNotFinished, "the task is not finished"),
            Refusal::TaskRunning => (Code::TaskRunning, "the task is running"),
            Refusal::LeaseLost => (Code::LeaseLost, "the task is no longer leased to this attempt"),
            Refusal::CancelNotRequested => (Code::CancelNotRequested, "nobody asked this attempt to stop"),
            Refusal::IdempotencyConflict => {
                (Code::IdempotencyConflict, "the key came with another body before, or what it stands for was deleted")
            }
            Refusal::Draining => (Code::Draining, "the hub is going down and takes no new work"),
            Refusal::DeadlineOver => (Code::Conflict, "the time by which it had to be done or started is over"),
            Refusal::Full => (Code::Overloaded, "the hub holds as many unfinished tasks as it may"),
            Refusal::ScheduleNotFound => (Code::ScheduleNotFound, "there is no schedule of this name"),
            Refusal::TaskTypeNotFound => (Code::TaskTypeNotFound, "no task type of this name is declared"),
            Refusal::PayloadInvalid(errors) => {
                let field = errors.first().map(|fault| fault.field.clone());
                let detail = Refusal::PayloadInvalid(errors.clone()).to_string();
                return Problem { field, errors, ..Problem::new(Code::PayloadInvalid, detail) };
            }
            Refusal::TypesChanged => (Code::Overloaded, "other task types are declared by now; try again"),
            Refusal::QueueNotFound => (Code::QueueNotFound, "the queue is neither set nor has unfinished tasks"),
            Refusal::DependencyFailed(_) => return Problem::new(Code::DependencyFailed, refusal.to_string()),
            Refusal::KeyTaken => {
                let detail = "as many tasks with this concurrency_key as may run are there already";
                return Problem::new(Code::Conflict, detail).at("concurrency_key");
            }
            Refusal::KeyHeld(_) => return Problem::new(Code::Conflict, refusal.to_string()).at("unique"),
            Refusal::Quota(quota) => {
                let detail = format!("{}; nothing was taken", Refusal::Quota(quota));
                let (limit, retry_after_ms) = match quota {
                    Quota::Waiting { limit } => (limit, None),
                    Quota::SubmitsPerMin { limit, retry_after_ms } => (limit, Some(retry_after_ms)),
                };
                let retry_after_s = retry_after_ms.map(|ms| ms.div_ceil(1_000).max(1));
                let limit = Some(u64::from(limit));
                return Problem { limit, retry_after_s, ..Problem::new(Code::QuotaExceeded, detail) };
            }
        };
        Problem::new(code, detail)
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        let (code, limit) = match invalid.kind {
            InvalidKind::Value => (Code::InvalidField, None),
            InvalidKind::Limit(limit) => (Code::LimitExceeded, Some(limit)),
            InvalidKind::PayloadTooLarge(limit) => (Code::PayloadTooLarge, Some(limit)),
        };
        Problem { limit, ..Problem::new(code, invalid.to_string()).at(invalid.field) }
    }
}

impl Problem {
    /// The problem, found at this field.
    pub(super) fn at(mut self, field: impl Into<String>) -> Problem {
        self.field = Some(field.into());
        self
    }

    /// The problem of a value over this limit, to be read after its name.
    pub(super) fn over(field: &str, limit: u64, unit: &str) -> Problem {
        Invalid::limit(field.to_owned(), limit, unit).into()
    }

    /// The problem of a wrong value, to be read after its name.
    pub(super) fn wrong(field: &str, detail: &str) -> Problem {
        Invalid::value(field.to_owned(), detail).into()
    }

    /// There is nothing at this path.
    pub(super) fn no_path() -> Problem {
        Problem::new(Code::NotFound, "see api/docs for what there is")
    }

    /// The same, where the wrong value stands in a filter. Limits stay limits.
    pub(super) fn in_filter(mut self) -> Problem {
        if self.code == Code::InvalidField {
            let (detail, field) = (self.detail, self.field);
            self = Problem { field, ..Problem::new(Code::BadFilter, detail) };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: HubError, status: u16, code: &str, retry_after: Option<&str>) {
        let problem = Problem::from(error.clone());
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{error:?}");
        assert_eq!(problem.kind, format!("urn:taskhub:problem:{code}"));
        let response = problem.into_response();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let header = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
        assert_eq!(header, retry_after, "{error:?}");
    }

    #[test]
    fn every_no_has_its_problem() {
        use Refusal::*;
        for (refusal, status, code) in [
            (TaskNotFound, 404, "task_not_found"),
            (TaskFinished, 409, "task_finished"),
            (TaskNotFinished, 409, "task_not_finished"),
            (TaskRunning, 409, "task_running"),
            (LeaseLost, 409, "lease_lost"),
            (CancelNotRequested, 409, "cancel_not_requested"),
            (IdempotencyConflict, 409, "idempotency_conflict"),
            (QueueNotFound, 404, "queue_not_found"),
            (ScheduleNotFound, 404, "schedule_not_found"),
            (TaskTypeNotFound, 404, "task_type_not_found"),
            (PayloadInvalid(Vec::new()), 422, "payload_invalid"),
            (KeyTaken, 409, "conflict"),
            (KeyHeld(None), 409, "conflict"),
        ] {
            check(HubError::Refused(refusal), status, code, None);
        }
        check(HubError::Refused(Draining), 503, "draining", Some("5"));
        check(HubError::Refused(Full), 503, "overloaded", Some("1"));
        check(HubError::Refused(Quota(super::Quota::Waiting { limit: 3 })), 429, "quota_exceeded", Some("1"));
        let submits = super::Quota::SubmitsPerMin { limit: 3, retry_after_ms: 41_001 };
        check(HubError::Refused(Quota(submits)), 429, "quota_exceeded", Some("42"));
        check(HubError::StorageUnavailable, 503, "storage_unavailable", Some("2"));
        check(HubError::Overloaded, 503, "overloaded", Some("1"));
        check(HubError::CallbacksFull, 503, "overloaded", Some("1"));
        check(HubError::Stopped, 503, "draining", Some("5"));
    }

    #[test]
    fn wrong_values_name_their_field_and_limit() {
        let problem = Problem::from(Invalid::limit("title", 256, "characters"));
        assert_eq!(
            (problem.code, problem.field.as_deref(), problem.limit),
            (Code::LimitExceeded, Some("title"), Some(256))
        );
        assert_eq!(problem.detail, "title must be at most 256 characters");
        let problem = Problem::from(Invalid::value("priority", "must be from -100 to 100")).in_filter();
        assert_eq!((problem.code, problem.status, problem.limit), (Code::BadFilter, 422, None));
    }
}
