//! What a new task takes from its declared type where it does not say it itself.
//!
//! A field of its own wins, whole, and so does what it says in another way: a default that contradicts the submission falls
//! away, so a default never makes wrong what was right without it. What is about one task only (ids, moments, what it depends
//! on, what it is the only one of) has no default, and neither has a payload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::saturated;
use super::callback::callbacks;
use super::new_task::{labels, optional_priority};
use super::{Failure, Invalid, Json, Name, NewCallback, NewTask, OnConflict, RetryPolicy};

/// Fields of new tasks of a type. All may be left out, or `null`; each means what it means at submit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// All of them: a task with labels of its own has none of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_priority")]
    pub priority: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub delay_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_crashes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub unserved_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub deadline_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub start_by_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub silence_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub cancel_grace_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// All of them: a task with callbacks of its own has none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "callbacks")]
    pub callbacks: Vec<NewCallback>,
    /// Of tasks that have a `concurrency_key`, their own or this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
}

/// Names the task types that are declared at some moment: the newest change of one that is there, and how many there are. No
/// other moment with other types has the same, for a type is changed by a newer record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypesVersion {
    pub newest: u64,
    pub count: u32,
}

/// What does not fit of a payload, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadFault {
    /// Which payload: `payload`, `tasks[3].payload`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// JSON Pointer into it.
    pub pointer: String,
    /// What must hold there.
    pub message: String,
}

/// So many faults stand in the details of a failure, which have a bound.
const FAULTS_TOLD_MAX: usize = 5;

impl PayloadFault {
    /// The failure of a task whose payload has these.
    pub fn failure(task_type: &Name, faults: &[PayloadFault]) -> Failure {
        let first = faults.first().map(PayloadFault::words).unwrap_or_default();
        let told = &faults[..faults.len().min(FAULTS_TOLD_MAX)];
        let details = Json::of(&BTreeMap::from([("errors", told)])).ok();
        let message = format!("its payload does not fit what is declared of {task_type}: {first}");
        Failure { details, ..Failure::new("payload", message) }
    }

    /// What is wrong, for people.
    pub fn words(&self) -> String {
        let place = if self.pointer.is_empty() { "it" } else { &self.pointer };
        format!("{place} {}", self.message)
    }
}

impl Defaults {
    /// Checks each field as that of a submission.
    pub fn check(&self) -> Result<(), Invalid> {
        // What a default of `on_conflict` is about may be said by the tasks.
        let mut new = NewTask { concurrency_key: Some("k".to_owned()), ..NewTask::new("t") };
        new.concurrency_key = self.concurrency_key.clone().or(new.concurrency_key);
        self.fill(&mut new);
        // Beside each other, whether or not one would fall away.
        (new.deadline_ms, new.start_by_ms) = (self.deadline_ms, self.start_by_ms);
        new.check(0)
    }

    /// Fills in what a new task leaves out.
    pub fn fill(&self, new: &mut NewTask) {
        self.fill_workflow(new);
        or(&mut new.queue, &self.queue);
        or(&mut new.priority, &self.priority);
        or(&mut new.max_attempts, &self.max_attempts);
        or(&mut new.max_crashes, &self.max_crashes);
        or(&mut new.timeout_ms, &self.timeout_ms);
        or(&mut new.unserved_ms, &self.unserved_ms);
        or(&mut new.retry, &self.retry);
        or(&mut new.silence_ms, &self.silence_ms);
        or(&mut new.cancel_grace_ms, &self.cancel_grace_ms);
        or(&mut new.concurrency_key, &self.concurrency_key);
        if new.concurrency_key.is_some() {
            or(&mut new.on_conflict, &self.on_conflict);
        }
    }

    /// The same of a workflow, which has not all fields of a task.
    pub fn fill_workflow(&self, new: &mut NewTask) {
        or(&mut new.title, &self.title);
        or(&mut new.description, &self.description);
        if new.labels.is_empty() {
            new.labels.clone_from(&self.labels);
        }
        if new.callbacks.is_empty() {
            new.callbacks.clone_from(&self.callbacks);
        }
        let ends = [new.deadline_ms, new.start_by_ms];
        let is_before = |delay_ms: &u64| ends.iter().flatten().all(|end_ms| end_ms > delay_ms);
        if new.run_at.is_none() && new.gather.is_none() {
            or(&mut new.delay_ms, &self.delay_ms.filter(is_before));
        }
        // A time from the submission on says nothing where the submission names the time itself.
        let delay_ms = new.run_at.map_or(new.delay_ms.unwrap_or(0), |_| u64::MAX);
        let is_after = |end_ms: &u64| *end_ms > delay_ms;
        if new.deadline_at.is_none() {
            or(&mut new.deadline_ms, &self.deadline_ms.filter(is_after));
        }
        if new.start_by_at.is_none() {
            or(&mut new.start_by_ms, &self.start_by_ms.filter(is_after));
        }
    }
}

fn or<T: Clone>(own: &mut Option<T>, default: &Option<T>) {
    if own.is_none() {
        own.clone_from(default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::read_strictly;

    fn filled(defaults: &str, own: &str) -> NewTask {
        let defaults: Defaults = read_strictly(defaults.as_bytes()).unwrap();
        let mut new: NewTask = read_strictly(own.as_bytes()).unwrap();
        defaults.check().unwrap();
        defaults.fill(&mut new);
        new.check(100).unwrap();
        new
    }

    const ALL: &str = r#"{"queue":"q","title":"T","description":"D","labels":{"a":"1"},"priority":5,"delay_ms":10,
        "max_attempts":4,"max_crashes":2,"timeout_ms":1000,"unserved_ms":2000,"retry":{"delays_ms":[1]},
        "deadline_ms":5000,"start_by_ms":4000,"silence_ms":100,"cancel_grace_ms":50,"concurrency_key":"k",
        "on_conflict":"reject","callbacks":[{"url":"https://app.example/"}]}"#;

    #[test]
    fn what_a_task_leaves_out_is_taken_from_its_type() {
        let new = filled(ALL, r#"{"task_type":"t","payload":1}"#);
        let mut same: serde_json::Value = serde_json::from_str(ALL).unwrap();
        same["task_type"] = "t".into();
        same["payload"] = 1.into();
        let expected: NewTask = read_strictly(same.to_string().as_bytes()).unwrap();
        assert_eq!(new, expected);
    }

    #[test]
    fn what_a_task_says_itself_wins() {
        let own = r#"{"task_type":"t","queue":"p","title":"","description":"","labels":{"b":"2"},"priority":0,"delay_ms":0,"max_attempts":1,
            "max_crashes":3,"timeout_ms":1,"unserved_ms":1,"retry":{},"deadline_ms":1,"start_by_ms":1,"silence_ms":1,
            "cancel_grace_ms":0,"concurrency_key":"own","on_conflict":"queue",
            "callbacks":[{"url":"https://own.example/"}]}"#;
        assert_eq!(filled(ALL, own), read_strictly(own.as_bytes()).unwrap());
    }

    #[test]
    fn a_default_that_contradicts_falls_away() {
        let at = r#""2099-01-01T00:00:00Z""#;
        let new = filled(ALL, &format!(r#"{{"task_type":"t","run_at":{at}}}"#));
        assert_eq!((new.delay_ms, new.deadline_ms, new.start_by_ms), (None, None, None));
        let new = filled(ALL, &format!(r#"{{"task_type":"t","deadline_at":{at}}}"#));
        assert_eq!((new.delay_ms, new.deadline_ms, new.start_by_ms), (Some(10), None, Some(4_000)));
        let new = filled(ALL, r#"{"task_type":"t","delay_ms":4500}"#);
        assert_eq!((new.delay_ms, new.deadline_ms, new.start_by_ms), (Some(4_500), Some(5_000), None));
        let new = filled(ALL, r#"{"task_type":"t","deadline_ms":9}"#);
        assert_eq!((new.delay_ms, new.deadline_ms, new.start_by_ms), (None, Some(9), Some(4_000)));
        let new = filled(ALL, r#"{"task_type":"t","gather":{"key":"k","max_count":2}}"#);
        assert_eq!(new.delay_ms, None);
        let key = r#"{"on_conflict":"reject"}"#;
        assert_eq!(filled(key, r#"{"task_type":"t"}"#).on_conflict, None);
        assert_eq!(filled(key, r#"{"task_type":"t","concurrency_key":"k"}"#).on_conflict, Some(OnConflict::Reject));
    }

    #[test]
    fn a_workflow_takes_what_it_may_have() {
        let defaults: Defaults = read_strictly(ALL.as_bytes()).unwrap();
        let mut new = NewTask::new("workflow");
        defaults.fill_workflow(&mut new);
        let taken = NewTask {
            title: Some("T".into()),
            description: Some("D".into()),
            labels: [("a".to_owned(), "1".to_owned())].into(),
            delay_ms: Some(10),
            deadline_ms: Some(5_000),
            start_by_ms: Some(4_000),
            callbacks: defaults.callbacks.clone(),
            ..NewTask::new("workflow")
        };
        assert_eq!(new, taken);
    }

    #[test]
    fn each_field_is_checked_as_that_of_a_submission() {
        let wrong = |json: &str| {
            let defaults: Defaults = read_strictly(json.as_bytes()).unwrap();
            defaults.check().err().map(|invalid| invalid.field.to_string())
        };
        for (json, field) in [
            (r#"{"queue":"a b"}"#, "queue"),
            (r#"{"priority":101}"#, "priority"),
            (r#"{"max_attempts":0}"#, "max_attempts"),
            (r#"{"deadline_ms":5,"delay_ms":5}"#, "deadline_ms"),
            (r#"{"concurrency_key":""}"#, "concurrency_key"),
            (r#"{"retry":{"factor":0.5}}"#, "retry.factor"),
            (r#"{"labels":{"":"x"}}"#, "labels"),
        ] {
            assert_eq!(wrong(json).as_deref(), Some(field), "{json}");
        }
        assert_eq!(wrong(r#"{"on_conflict":"reject","queue":null}"#), None);
        for field in ["task_type", "payload", "user_id", "run_at", "depends_on", "ref", "unique", "gather", "workflow"]
        {
            let why = read_strictly::<Defaults>(format!(r#"{{"{field}":null}}"#).as_bytes()).unwrap_err();
            assert!(why.to_string().starts_with(&format!("unknown field `{field}`")), "{why}");
        }
    }
}
