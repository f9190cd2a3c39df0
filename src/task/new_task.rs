//! What a submission may say, and the checks it must pass.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::bounds::{optional_map, saturated};
use super::callback::callbacks;
use super::ties::OnDependencyFailure;
use super::{
    Author, Json, JsonError, Name, NewCallback, NewGather, NewUnique, NewWorkflow, RetryPolicy, TaskId, Timestamp, room,
};

/// The longest title, in characters.
pub const TITLE_CHARS_MAX: usize = 256;
/// The longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 4_096;
/// The longest user id, in characters.
pub const USER_ID_CHARS_MAX: usize = 128;
/// The most labels of a task.
pub const LABELS_MAX: usize = 16;
const LABELS_UNIT: &str = "labels";
/// The longest key of a label, in characters.
pub const LABEL_KEY_CHARS_MAX: usize = 64;
/// The longest value of a label, in characters.
pub const LABEL_VALUE_CHARS_MAX: usize = 256;
/// The largest payload unless configured otherwise, in bytes of its JSON text.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The most tries of a task: each leaves a line in its history.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// The most crashes a task may be allowed.
pub const CRASHES_MAX: u32 = 100;
/// The longest timeout of an attempt: thirty days.
pub const TIMEOUT_MS_MAX: u64 = 30 * 86_400_000;
/// How long a worker may take to stop, unless the task says otherwise.
pub const CANCEL_GRACE_MS: u64 = 30_000;
/// The longest `concurrency_key`, in characters.
pub const CONCURRENCY_KEY_CHARS_MAX: usize = 256;
/// The queue of a task that names none, and what a worker serves that names none.
pub const DEFAULT_QUEUE: &str = "default";
/// The longest delay of a task: ten years.
pub const DELAY_MS_MAX: u64 = 3_650 * 86_400_000;

/// A new task. Everything but `task_type` may be left out, or `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// What to run: 1–128 of `A-Z a-z 0-9 . _ : -`. Absent only where `workflow` stands.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task_type: String,
    /// The queue it waits in; same characters; `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Any JSON, kept byte for byte; `null` is a payload like any other.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present_verbatim")]
    pub payload: Option<Json>,
    /// −100…100, higher first; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_priority")]
    pub priority: Option<i8>,
    /// Not before this time. Not together with `delay_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Not before this many milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub delay_ms: Option<u64>,
    /// How many tries are allowed, 1–1,000; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_attempts: Option<u32>,
    /// At how many lost attempts the task fails as poison, 1–100; default 3.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_crashes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<TaskId>,
    /// The longest an attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub timeout_ms: Option<u64>,
    /// Once it is ready, it fails as `lost` when no worker that takes it has been there for this long. For work that only
    /// one process can do, and that shall not wait for ever where that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub unserved_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// What is not final by this time has failed, whatever it does then. Not together with `deadline_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Timestamp>,
    /// The same, so many milliseconds from now; a retry by hand begins it anew.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub deadline_ms: Option<u64>,
    /// What was never handed out by this time has failed. Not together with `start_by_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by_at: Option<Timestamp>,
    /// The same, so many milliseconds from now; a retry by hand begins it anew.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub start_by_ms: Option<u64>,
    /// An attempt that reports neither progress nor a log line for so long is over, as a failed try.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub silence_ms: Option<u64>,
    /// How long its worker may take to stop once somebody asked for it; then the attempt is taken from it, and the task is
    /// cancelled. Default 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub cancel_grace_ms: Option<u64>,
    /// Tasks of its queue with the same key run at most `key_concurrency` of the queue at a time, which is 1 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// What happens where as many tasks with its key are unfinished as may run. Only with `concurrency_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
    /// What it is the only one of, among the tasks of its type and user. Not together with `depends_on`, nor in a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Box<NewUnique>>,
    /// It becomes one task with others: their payloads are the list that is its own. Not together with `unique`, `run_at`,
    /// `delay_ms` or `depends_on`, nor in a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gather: Option<Box<NewGather>>,
    /// Its name within the call, for others to depend on as `@ref`: same characters as a type.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// It waits until these are final: ids of tasks, or `@ref` of others of the same call; up to 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "room::dependencies")]
    pub depends_on: Vec<String>,
    /// What becomes of it where one of these fails or is cancelled. Only with `depends_on`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_dependency_failure: Option<OnDependencyFailure>,
    /// URLs that are told of its transitions, up to 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "callbacks")]
    pub callbacks: Vec<NewCallback>,
    /// How much it counts in the progress of its workflow, 1–1,000,000; default 1. Only there.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub weight: Option<u32>,
    /// A workflow in the place of a task of another. Only there, and beside nothing but `ref`, `weight`, `depends_on` and
    /// `on_dependency_failure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Box<NewWorkflow>>,
    /// A token for the new task is asked for. Only where tasks are submitted over REST, alone or in a batch: it is no part of
    /// them, and answered beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Box<Json>>,
    /// Who submits it, where its callbacks are to end with them. Not for those who submit it to say.
    #[serde(skip)]
    pub author: Option<Author>,
}

/// What becomes of a submission, and of those before it, where tasks with its `concurrency_key` are unfinished already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It waits for them.
    #[default]
    Queue,
    /// It is refused, where those are of the same user.
    Reject,
    /// Those of the same user that do not run are cancelled.
    ReplaceWaiting,
    /// The same, and those that run are asked to stop.
    CancelRunning,
}

pub(super) fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    optional_map(deserializer, LABELS_MAX, LABELS_UNIT).map(Option::unwrap_or_default)
}

/// Reads any whole number: one that is far out of the range is refused with it like one that is just out of it.
pub(super) fn optional_priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i8>, D::Error> {
    let number = Option::<i64>::deserialize(deserializer)?;
    Ok(number.map(|number| number.clamp(i8::MIN.into(), i8::MAX.into()) as i8))
}

/// A value that is refused, with the field it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub kind: InvalidKind,
    /// The path of the field: `labels.project_id`, `tasks[3].priority`.
    pub field: Cow<'static, str>,
    /// What must hold, to be read after the field's name.
    pub detail: String,
}

/// In which way a value is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKind {
    /// Not of the kind, the letters or the range that is asked for.
    Value,
    /// Over a limit, which is named.
    Limit(u64),
    /// A payload or result over its limit in bytes.
    PayloadTooLarge(u64),
}

impl Invalid {
    /// A task is named that is not there. Its field is for whoever knows it.
    pub fn no_such_task(task_id: TaskId) -> Invalid {
        Invalid::value("", format!("names no task that is there: {task_id}"))
    }

    /// A wrong value.
    pub fn value(field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Invalid {
        Invalid { kind: InvalidKind::Value, field: field.into(), detail: detail.into() }
    }

    /// A value over its limit.
    pub fn limit(field: impl Into<Cow<'static, str>>, limit: u64, unit: &str) -> Invalid {
        Invalid {
            kind: InvalidKind::Limit(limit),
            field: field.into(),
            detail: format!("must be at most {limit} {unit}").trim_end().to_owned(),
        }
    }

    /// Refuses JSON text that is too large or too deep.
    pub fn json(field: &'static str, json: &Json, bytes_max: usize) -> Result<(), Invalid> {
        json.check(bytes_max).map_err(|refusal| Invalid {
            kind: match refusal {
                JsonError::TooLarge { .. } => InvalidKind::PayloadTooLarge(bytes_max as u64),
                JsonError::TooDeep => InvalidKind::Limit(super::PAYLOAD_DEPTH_MAX as u64),
                JsonError::Malformed => InvalidKind::Value,
            },
            field: field.into(),
            detail: refusal.to_string(),
        })
    }

    /// The same, found at `outer` of something larger.
    pub fn within(mut self, outer: impl fmt::Display) -> Invalid {
        self.field = format!("{outer}.{}", self.field).into();
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.detail)
    }
}

impl std::error::Error for Invalid {}

impl NewTask {
    /// A submission of this type, with everything else left to its default.
    pub fn new(task_type: impl Into<String>) -> NewTask {
        NewTask { task_type: task_type.into(), ..NewTask::default() }
    }

    /// The submission with a payload. Fails where serde cannot write the value as JSON.
    pub fn payload<T: Serialize + ?Sized>(mut self, payload: &T) -> Result<NewTask, serde_json::Error> {
        self.payload = Some(Json::of(payload)?);
        Ok(self)
    }

    /// The queue that it waits in, unless its type says another.
    pub fn queue_name(&self) -> &str {
        self.queue.as_deref().unwrap_or(DEFAULT_QUEUE)
    }

    /// Checks every field but the letters of `task_type` and `queue`, which are checked where they become names.
    pub fn check(&self, payload_bytes_max: usize) -> Result<(), Invalid> {
        if self.task_type.is_empty() {
            return Err(Invalid::value("task_type", "must say what is to be run"));
        }
        Name::parse(&self.task_type).map_err(|why| Invalid::value("task_type", why.to_string()))?;
        if let Some(queue) = &self.queue {
            Name::parse(queue).map_err(|why| Invalid::value("queue", why.to_string()))?;
        }
        chars("title", self.title.as_deref(), TITLE_CHARS_MAX)?;
        chars("description", self.description.as_deref(), DESCRIPTION_CHARS_MAX)?;
        chars("user_id", self.user_id.as_deref(), USER_ID_CHARS_MAX)?;
        if self.user_id.as_deref() == Some("") {
            return Err(Invalid::value("user_id", "must not be empty"));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(Invalid::limit("labels", LABELS_MAX as u64, LABELS_UNIT));
        }
        for (key, value) in &self.labels {
            if key.is_empty() {
                return Err(Invalid::value("labels", "must not have an empty key"));
            }
            if key.chars().count() > LABEL_KEY_CHARS_MAX {
                return Err(Invalid::limit("labels", LABEL_KEY_CHARS_MAX as u64, "characters a key"));
            }
            if value.chars().count() > LABEL_VALUE_CHARS_MAX {
                return Err(Invalid::limit(format!("labels.{key}"), LABEL_VALUE_CHARS_MAX as u64, "characters"));
            }
        }
        if self.token.is_some() {
            return Err(Invalid::value("token", "must stand where tasks are submitted over REST, alone or in a batch"));
        }
        if let Some(payload) = &self.payload {
            Invalid::json("payload", payload, payload_bytes_max)?;
        }
        if self.priority.is_some_and(|priority| !(-100..=100).contains(&priority)) {
            return Err(Invalid::value("priority", "must be from -100 to 100"));
        }
        if self.run_at.is_some() && self.delay_ms.is_some() {
            return Err(Invalid::value("delay_ms", "must not stand beside run_at"));
        }
        range("delay_ms", self.delay_ms, 0, DELAY_MS_MAX)?;
        range("max_attempts", self.max_attempts.map(u64::from), 1, u64::from(ATTEMPTS_MAX))?;
        range("max_crashes", self.max_crashes.map(u64::from), 1, u64::from(CRASHES_MAX))?;
        range("timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX)?;
        range("unserved_ms", self.unserved_ms, 1, TIMEOUT_MS_MAX)?;
        if let Some(retry) = &self.retry {
            range("retry.base_ms", Some(retry.base_ms), 0, RetryPolicy::MAX_MS_MAX)?;
            range("retry.max_ms", Some(retry.max_ms), 0, RetryPolicy::MAX_MS_MAX)?;
            if !(1.0..=10.0).contains(&retry.factor) {
                return Err(Invalid::value("retry.factor", "must be from 1 to 10"));
            }
            if !(0.0..=1.0).contains(&retry.jitter) {
                return Err(Invalid::value("retry.jitter", "must be from 0 to 1"));
            }
            for (at, delay) in retry.delays_ms.iter().enumerate() {
                range("retry.delays_ms", Some(*delay), 0, RetryPolicy::MAX_MS_MAX)
                    .map_err(|invalid| Invalid { field: format!("retry.delays_ms[{at}]").into(), ..invalid })?;
            }
        }
        range("silence_ms", self.silence_ms, 1, TIMEOUT_MS_MAX)?;
        range("cancel_grace_ms", self.cancel_grace_ms, 0, TIMEOUT_MS_MAX)?;
        chars("concurrency_key", self.concurrency_key.as_deref(), CONCURRENCY_KEY_CHARS_MAX)?;
        if self.concurrency_key.as_deref() == Some("") {
            return Err(Invalid::value("concurrency_key", "must not be empty"));
        }
        if self.on_conflict.is_some() && self.concurrency_key.is_none() {
            return Err(Invalid::value("on_conflict", "must not stand without concurrency_key"));
        }
        if let Some(name) = &self.reference {
            Name::parse(name).map_err(|why| Invalid::value("ref", why.to_string()))?;
        }
        self.check_by("deadline_at", self.deadline_at, "deadline_ms", self.deadline_ms)?;
        self.check_by("start_by_at", self.start_by_at, "start_by_ms", self.start_by_ms)?;
        self.check_callbacks()?;
        self.unique.as_ref().map_or(Ok(()), |unique| unique.check(self))?;
        self.gather.as_ref().map_or(Ok(()), |gather| gather.check(self))
    }

    /// A time by which something must have happened comes after the time at which the task may begin.
    fn check_by(
        &self,
        at_field: &'static str,
        at: Option<Timestamp>,
        ms_field: &'static str,
        ms: Option<u64>,
    ) -> Result<(), Invalid> {
        if at.is_some() && ms.is_some() {
            return Err(Invalid::value(ms_field, format!("must not stand beside {at_field}")));
        }
        range(ms_field, ms, 1, DELAY_MS_MAX)?;
        if at.is_some_and(|at| self.run_at.is_some_and(|run_at| at <= run_at)) {
            return Err(Invalid::value(at_field, "must be later than run_at"));
        }
        if ms.is_some_and(|ms| self.delay_ms.is_some_and(|delay_ms| ms <= delay_ms)) {
            return Err(Invalid::value(ms_field, "must be longer than delay_ms"));
        }
        Ok(())
    }
}

pub(crate) fn chars(field: &'static str, text: Option<&str>, chars_max: usize) -> Result<(), Invalid> {
    match text {
        Some(text) if text.len() > chars_max && text.chars().count() > chars_max => {
            Err(Invalid::limit(field, chars_max as u64, "characters"))
        }
        _ => Ok(()),
    }
}

pub(super) fn range(field: &'static str, number: Option<u64>, min: u64, max: u64) -> Result<(), Invalid> {
    match number {
        Some(n) if n > max => Err(Invalid::limit(field, max, "")),
        Some(n) if n < min => Err(Invalid::value(field, format!("must be at least {min}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<(), (&str, InvalidKind)>) {
        let new: NewTask = serde_json::from_str(json).unwrap();
        let got = new.check(100);
        let got = got.as_ref().copied().map_err(|invalid| (invalid.field.as_ref(), invalid.kind));
        assert_eq!(got, expected, "{json}");
    }

    #[test]
    fn each_limit_at_its_edge() {
        let value = |field| Err((field, InvalidKind::Value));
        let limit = |field, n| Err((field, InvalidKind::Limit(n)));
        let with = |rest: &str| format!(r#"{{"task_type":"t",{rest}}}"#);
        check(r#"{"task_type":"t"}"#, Ok(()));
        check(r#"{"task_type":""}"#, value("task_type"));
        check(&with(r#""queue":"a/b""#), value("queue"));
        check(&with(&format!(r#""title":"{}""#, "é".repeat(256))), Ok(()));
        check(&with(&format!(r#""title":"{}""#, "é".repeat(257))), limit("title", 256));
        check(&with(&format!(r#""payload":"{}""#, "x".repeat(98))), Ok(()));
        check(
            &with(&format!(r#""payload":"{}""#, "x".repeat(99))),
            Err(("payload", InvalidKind::PayloadTooLarge(100))),
        );
        check(&with(r#""priority":-100"#), Ok(()));
        check(&with(r#""priority":101"#), value("priority"));
        check(&with(r#""priority":-30000"#), value("priority"));
        check(&with(r#""delay_ms":1e30"#), limit("delay_ms", DELAY_MS_MAX));
        check(&with(r#""max_crashes":4294967296"#), limit("max_crashes", 100));
        check(&with(r#""run_at":"2030-01-01T00:00:00Z","delay_ms":1"#), value("delay_ms"));
        check(&with(r#""max_attempts":0"#), value("max_attempts"));
        check(&with(r#""max_attempts":1001"#), limit("max_attempts", 1000));
        check(&with(r#""labels":{"":"x"}"#), value("labels"));
        check(&with(&format!(r#""labels":{{"k":"{}"}}"#, "x".repeat(257))), limit("labels.k", 256));
        check(&with(r#""retry":{"factor":0.5}"#), value("retry.factor"));
        check(&with(r#""timeout_ms":0"#), value("timeout_ms"));
        check(&with(r#""silence_ms":0"#), value("silence_ms"));
        check(&with(r#""cancel_grace_ms":0"#), Ok(()));
        check(&with(r#""concurrency_key":"""#), value("concurrency_key"));
        check(&with(&format!(r#""concurrency_key":"{}""#, "é".repeat(256))), Ok(()));
        check(&with(&format!(r#""concurrency_key":"{}""#, "é".repeat(257))), limit("concurrency_key", 256));
        check(&with(r#""on_conflict":"reject""#), value("on_conflict"));
        check(&with(r#""on_conflict":"reject","concurrency_key":"k""#), Ok(()));
        check(&with(r#""cancel_grace_ms":1e30"#), limit("cancel_grace_ms", TIMEOUT_MS_MAX));
        let at = |field: &str, at: &str| with(&format!(r#""{field}":"{at}","run_at":"2030-01-01T00:00:00Z""#));
        for (at_field, ms_field) in [("deadline_at", "deadline_ms"), ("start_by_at", "start_by_ms")] {
            check(&at(at_field, "2030-01-01T00:00:00.001Z"), Ok(()));
            check(&at(at_field, "2030-01-01T00:00:00Z"), value(at_field));
            check(&with(&format!(r#""{ms_field}":5,"delay_ms":4"#)), Ok(()));
            check(&with(&format!(r#""{ms_field}":5,"delay_ms":5"#)), value(ms_field));
            check(&with(&format!(r#""{ms_field}":0"#)), value(ms_field));
            check(&with(&format!(r#""{ms_field}":1e30"#)), limit(ms_field, DELAY_MS_MAX));
            check(&with(&format!(r#""{ms_field}":5,"{at_field}":"2030-01-01T00:00:00Z""#)), value(ms_field));
        }
        check(&with(r#""retry":{"delays_ms":[0,2592000000]}"#), Ok(()));
        check(&with(r#""retry":{"delays_ms":[0,1e30]}"#), limit("retry.delays_ms[1]", RetryPolicy::MAX_MS_MAX));
    }

    #[test]
    fn a_null_payload_is_kept() {
        let new: NewTask = serde_json::from_str(r#"{"task_type":"t","payload":null}"#).unwrap();
        assert_eq!(new.payload, Some(Json::null()));
    }
}
