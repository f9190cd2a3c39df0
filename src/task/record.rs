//! The record of a task, as the hub keeps it in memory and writes it down.
//!
//! A hub may hold a million waiting tasks, so the record is small: what every task has stands in [`Task`], what few have
//! in a boxed [`Detail`], what only started tasks have in a boxed [`Run`]. It is written as JSON once per transition
//! ([`Task::write_json`]); those bytes serve the log, the feed and every list. [`Task::parse`] reads them back.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::new_task::CANCEL_GRACE_MS;
use super::{
    Callbacks, Failure, Gather, Json, LargeResult, Links, Name, OnDependencyFailure, Progress, RetryPolicy, Status,
    TaskId, TaskView, Ties, Timestamp, Unique, Workflow,
};

/// A result up to this many bytes of JSON text stands in the record, and so in lists and events.
pub const RESULT_INLINE_BYTES: usize = 4 << 10;

/// One task. Records are never changed in place: a transition makes a new one with a new `rev`.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub task_id: TaskId,
    pub task_type: Name,
    pub queue: Name,
    pub user_id: Option<Name>,
    /// The hub-wide number of the transition that made this record.
    pub rev: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Not before this time: as asked for at submit, or the time of the next try.
    pub run_at: Option<Timestamp>,
    pub priority: i8,
    pub status: Status,
    /// It is scheduled for the end of a wait that was asked for as so long. Then `run_at` is when the wait began,
    /// `updated_at`, and its length; what counts is the length, whatever a clock does meanwhile.
    pub delayed: bool,
    /// Hand-outs so far. Grows with each, never goes back: it fences.
    pub attempt: u32,
    /// Attempts that failed or are running.
    pub tries: u32,
    pub max_attempts: u32,
    /// Attempts lost with their worker.
    pub crashes: u32,
    pub max_crashes: u32,
    pub detail: Option<Box<Detail>>,
    pub run: Option<Box<Run>>,
}

/// What few tasks say at submit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    pub title: Option<Box<str>>,
    pub description: Option<Box<str>>,
    pub labels: BTreeMap<String, String>,
    pub timing: Option<Box<Timing>>,
    pub concurrency_key: Option<Name>,
    pub parent_id: Option<TaskId>,
    pub unique: Option<Box<Unique>>,
    pub gather: Option<Box<Gather>>,
    pub ties: Option<Box<Ties>>,
    /// Each record of a task has the same.
    pub callbacks: Option<Arc<Callbacks>>,
    pub made_by: Option<Box<MadeBy>>,
}

/// Which schedule made a task, and for which due time.
#[derive(Clone, Debug, PartialEq)]
pub struct MadeBy {
    pub schedule: Name,
    /// None where the schedule was run by hand.
    pub due_at: Option<Timestamp>,
}

/// How long a task may take and wait, where that is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    pub timeout_ms: Option<u64>,
    pub unserved_ms: Option<u64>,
    pub retry: Option<RetryPolicy>,
    /// By when it must be final.
    pub deadline: Option<By>,
    /// By when it must have been handed out for the first time.
    pub start_by: Option<By>,
    pub silence_ms: Option<NonZeroU64>,
    pub cancel_grace_ms: Option<u64>,
}

impl Timing {
    /// As a record has it: nothing, where it says nothing.
    pub fn boxed(self) -> Option<Box<Timing>> {
        (self != Timing::default()).then(|| Box::new(self))
    }
}

/// A time by which something must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    pub at: Timestamp,
    /// It was asked for as so long. Then what counts is the length, whatever a clock does meanwhile.
    pub ms: Option<u64>,
}

impl By {
    /// As it was asked for at `now`, as a moment or as so long.
    pub fn asked(at: Option<Timestamp>, ms: Option<u64>, now: Timestamp) -> Option<By> {
        at.or(ms.map(|ms| now.plus_millis(ms))).map(|at| By { at, ms })
    }
}

/// What a task has once it was handed out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// When the newest attempt began.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Set only while it runs.
    pub worker_id: Option<Name>,
    /// Set only while it runs, and where its claim asked for a longer lease than the hub's own.
    pub lease_ms: Option<u64>,
    /// Set only while it runs.
    pub cancel_requested_at: Option<Timestamp>,
    /// Of an attempt that was asked to stop, also when it is over.
    pub cancel: Option<Cancel>,
    /// The last tick of an attempt that is over.
    pub progress: Option<Json>,
    /// What a running attempt has uploaded, to be left when it completes.
    pub upload: Option<Box<LargeResult>>,
    /// What a final task left.
    pub outcome: Option<Outcome>,
    /// Why the newest failed try failed, while another follows.
    pub last_error: Option<Failure>,
    /// The hub ended the newest attempt: it took too long, or was lost with its worker. What its worker says of it later
    /// repeats no report that was accepted.
    pub ended_by_hub: bool,
}

/// How far a request to stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cancel {
    /// The hub knows of it.
    Requested,
    /// Its worker was told.
    Delivered,
    /// Its worker stopped because of it.
    Acknowledged,
    /// Its worker did not stop within the grace.
    Ignored,
}

/// What a final task left.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A result of at most [`RESULT_INLINE_BYTES`].
    Result(Json),
    /// A larger result, kept beside the record.
    ResultOmitted,
    /// One that stands in a file beside the store.
    Large(Box<LargeResult>),
    Error(Failure),
}

impl Task {
    /// The title and the other rare fields, where there are any.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }

    /// How long it may take and wait, where that is said.
    fn timing(&self) -> Option<&Timing> {
        self.detail()?.timing.as_deref()
    }

    /// What the newest attempt left or leaves, where there was one.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_deref()
    }

    /// Who runs it, while it runs.
    pub fn worker_id(&self) -> Option<&Name> {
        self.run()?.worker_id.as_ref()
    }

    /// Whether a running task was asked to stop.
    pub fn cancel_requested(&self) -> bool {
        self.run().is_some_and(|run| run.cancel_requested_at.is_some())
    }

    /// The result that it has in a file: what its running attempt has uploaded, or what it left.
    pub fn large_result(&self) -> Option<&LargeResult> {
        let run = self.run()?;
        match &run.outcome {
            Some(Outcome::Large(large)) => Some(large),
            _ => run.upload.as_deref(),
        }
    }

    /// How a failed try waits for the next.
    pub fn retry_policy(&self) -> RetryPolicy {
        self.timing().and_then(|timing| timing.retry.clone()).unwrap_or_default()
    }

    /// How long it waits from `updated_at` on, where it is a wait that it is scheduled for.
    pub fn delay_ms(&self) -> Option<u64> {
        self.run_at.filter(|_| self.delayed).map(|at| at.millis_since(self.updated_at))
    }

    /// The longest an attempt may take, where that is bounded.
    pub fn timeout_ms(&self) -> Option<u64> {
        self.timing()?.timeout_ms
    }

    /// How long it stays ready while no worker is there that takes it, where that is bounded.
    pub fn unserved_ms(&self) -> Option<u64> {
        self.timing()?.unserved_ms
    }

    /// By when it must be final, where that is bounded.
    pub fn deadline(&self) -> Option<By> {
        self.timing()?.deadline
    }

    /// By when it must have been handed out, where that is bounded and it was not yet.
    pub fn start_by(&self) -> Option<By> {
        self.timing()?.start_by.filter(|_| !self.has_started())
    }

    /// How long an attempt may report nothing, where that is bounded.
    pub fn silence_ms(&self) -> Option<u64> {
        self.timing()?.silence_ms.map(NonZeroU64::get)
    }

    /// How long its worker may take to stop once it was asked to.
    pub fn cancel_grace_ms(&self) -> u64 {
        self.timing().and_then(|timing| timing.cancel_grace_ms).unwrap_or(CANCEL_GRACE_MS)
    }

    /// What keeps it from running beside others of its queue, where something does.
    pub fn concurrency_key(&self) -> Option<&Name> {
        self.detail()?.concurrency_key.as_ref()
    }

    /// What it is the only one of, where it is.
    pub fn unique(&self) -> Option<&Unique> {
        self.detail()?.unique.as_deref()
    }

    /// What is told of its transitions, where something is.
    pub fn callbacks(&self) -> Option<&Callbacks> {
        self.detail()?.callbacks.as_deref()
    }

    /// What ties it to others, where something does.
    pub fn ties(&self) -> Option<&Ties> {
        self.detail()?.ties.as_deref()
    }

    /// Whether its payload has places for results of what it depends on.
    pub fn takes_results(&self) -> bool {
        self.ties().is_some_and(|ties| ties.takes_results)
    }

    /// What stands beside the record of its ties, where that is at hand.
    pub fn links(&self) -> Option<&Links> {
        self.ties()?.links.as_deref()
    }

    /// What it depends on, where that is at hand.
    pub fn depends_on(&self) -> &[TaskId] {
        self.links().map_or(&[], |links| &links.depends_on)
    }

    /// What becomes of it when one of these fails or is cancelled.
    pub fn on_dependency_failure(&self) -> OnDependencyFailure {
        self.ties().map(|ties| ties.on_dependency_failure).unwrap_or_default()
    }

    /// Whether it was handed out; of a workflow, whether one of its tasks was.
    pub fn has_started(&self) -> bool {
        self.attempt > 0 || self.run().is_some_and(|run| run.started_at.is_some())
    }

    /// What it is beside a task, where it is a workflow.
    pub fn workflow(&self) -> Option<Workflow> {
        self.ties()?.workflow
    }

    /// Whether it is a workflow: no worker takes it, its work is other tasks.
    pub fn is_workflow(&self) -> bool {
        self.workflow().is_some()
    }

    /// The workflow that it is part of.
    pub fn workflow_id(&self) -> Option<TaskId> {
        self.ties()?.workflow_id
    }

    /// The schedule that made it, where one did.
    pub fn schedule(&self) -> Option<&Name> {
        Some(&self.detail()?.made_by.as_ref()?.schedule)
    }

    /// The due time of its schedule that it was made for.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.detail()?.made_by.as_ref()?.due_at
    }

    /// The labels, where there are any.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.detail().map(|detail| &detail.labels)
    }

    /// Appends the record as a JSON object. `live` is the newest tick of a running task, with its number.
    pub fn write_json(&self, out: &mut Vec<u8>, live: Option<(&Json, u64)>) {
        let (detail, timing) = (self.detail(), self.timing());
        let run = self.run();
        let mut object = Object { out, first: true };
        object.out.push(b'{');
        object.display("task_id", &self.task_id);
        object.plain("task_type", self.task_type.as_str());
        object.plain("queue", self.queue.as_str());
        object.some("title", detail.and_then(|d| d.title.as_ref()));
        object.some("description", detail.and_then(|d| d.description.as_ref()));
        object.some("user_id", self.user_id.as_ref());
        object.some("labels", detail.map(|d| &d.labels).filter(|labels| !labels.is_empty()));
        object.number("priority", i64::from(self.priority));
        object.plain("status", self.status.as_str());
        if let Some(progress) = live.map(|(tick, _)| tick).or(run.and_then(|r| r.progress.as_ref())) {
            object.raw("progress", progress);
        }
        object.number("attempt", i64::from(self.attempt));
        object.number("tries", i64::from(self.tries));
        object.number("max_attempts", i64::from(self.max_attempts));
        object.number("crashes", i64::from(self.crashes));
        object.number("max_crashes", i64::from(self.max_crashes));
        object.some("timeout_ms", self.timeout_ms());
        object.some("unserved_ms", self.unserved_ms());
        object.some("retry", timing.and_then(|t| t.retry.as_ref()));
        let (deadline, start_by) = (timing.and_then(|t| t.deadline), timing.and_then(|t| t.start_by));
        object.some("deadline_at", deadline.map(|by| by.at));
        object.some("deadline_ms", deadline.and_then(|by| by.ms));
        object.some("start_by_at", start_by.map(|by| by.at));
        object.some("start_by_ms", start_by.and_then(|by| by.ms));
        object.some("silence_ms", self.silence_ms());
        object.some("cancel_grace_ms", timing.and_then(|t| t.cancel_grace_ms));
        object.some("concurrency_key", self.concurrency_key());
        object.some("unique", self.unique());
        object.some("gathered", self.gathered());
        object.some("gather", self.open_list());
        object.some("parent_id", detail.and_then(|d| d.parent_id));
        if let Some(ties) = self.ties() {
            object.some("dependencies", Some(ties.dependencies).filter(|count| *count > 0));
            object.some("on_dependency_failure", Some(ties.on_dependency_failure).filter(|it| !it.is_default()));
            object.some("workflow_id", ties.workflow_id);
            object.some("ref", ties.reference.as_ref());
            object.some("weight", Some(ties.weight).filter(|weight| *weight > 1));
            object.some("takes_results", ties.takes_results.then_some(true));
            object.some("workflow", ties.workflow);
        }
        object.some("callbacks", self.callbacks());
        object.some("callbacks_by", self.callbacks().and_then(Callbacks::author));
        object.some("schedule", self.schedule());
        object.some("due_at", self.due_at());
        match run.and_then(|r| r.outcome.as_ref()) {
            Some(Outcome::Result(result)) => object.raw("result", result),
            Some(Outcome::ResultOmitted | Outcome::Large(_)) => object.some("result_omitted", Some(true)),
            Some(Outcome::Error(error)) => object.some("error", Some(error)),
            None => {}
        }
        if let Some(large) = self.large_result() {
            object.display("result_id", &large.id);
            object.number("result_bytes", large.bytes as i64);
            object.some("result_type", Some(&large.content_type));
        }
        object.some("last_error", run.and_then(|r| r.last_error.as_ref()));
        object.some("ended_by_hub", run.filter(|r| r.ended_by_hub).map(|_| true));
        object.display("created_at", &self.created_at);
        object.some("run_at", self.run_at);
        object.some("delay_ms", self.delay_ms());
        object.some("started_at", run.and_then(|r| r.started_at));
        object.some("finished_at", run.and_then(|r| r.finished_at));
        object.display("updated_at", &self.updated_at);
        object.some("worker_id", run.and_then(|r| r.worker_id.as_ref()));
        object.some("lease_ms", run.and_then(|r| r.lease_ms));
        object.some("cancel_requested_at", run.and_then(|r| r.cancel_requested_at));
        object.some("cancel", run.and_then(|r| r.cancel));
        object.number("rev", self.rev as i64);
        object.number("tick", live.map_or(0, |(_, tick)| tick as i64));
        object.out.push(b'}');
    }

    /// The record as JSON text of its own.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.write_json(&mut out, None);
        out
    }

    /// The `rev` of a record as text. It is the last field but one of what [`write_json`](Self::write_json) wrote, so the
    /// record need not be read for it. `None` for anything else.
    pub fn rev_of(record: &[u8]) -> Option<u64> {
        let tail = std::str::from_utf8(&record[record.len().saturating_sub(64)..]).ok();
        // The tail may begin within a character of a text; then the numbers are still plain.
        let tail = tail.map_or_else(|| String::from_utf8_lossy(&record[record.len().saturating_sub(64)..]), Into::into);
        let (_, rev) = tail.rsplit_once(",\"rev\":")?;
        rev.split_once(',')?.0.parse().ok()
    }

    /// Reads what [`write_json`](Self::write_json) wrote, by this version of the hub or an older one.
    pub fn parse(record: &[u8]) -> Result<Task, serde_json::Error> {
        super::strict::from_slice::<TaskView>(record).map(Task::from)
    }
}

impl From<TaskView> for Task {
    fn from(view: TaskView) -> Task {
        let ties = Ties {
            dependencies: view.dependencies,
            links: None,
            on_dependency_failure: view.on_dependency_failure,
            workflow_id: view.workflow_id,
            reference: view.reference,
            weight: view.weight.unwrap_or(view.workflow_id.is_some().into()),
            takes_results: view.takes_results,
            workflow: view.workflow,
        };
        let timing = Timing {
            timeout_ms: view.timeout_ms,
            unserved_ms: view.unserved_ms,
            retry: view.retry,
            deadline: view.deadline_at.map(|at| By { at, ms: view.deadline_ms }),
            start_by: view.start_by_at.map(|at| By { at, ms: view.start_by_ms }),
            silence_ms: view.silence_ms.and_then(NonZeroU64::new),
            cancel_grace_ms: view.cancel_grace_ms,
        };
        let detail = Detail {
            title: view.title.map(Into::into),
            description: view.description.map(Into::into),
            labels: view.labels,
            timing: timing.boxed(),
            concurrency_key: view.concurrency_key,
            parent_id: view.parent_id,
            unique: view.unique.map(Box::new),
            gather: view.gathered.map(|gathered| Box::new(Gather { gathered, open: view.gather })),
            ties: (ties != Ties::default()).then(|| Box::new(ties)),
            callbacks: view.callbacks.map(|callbacks| callbacks.by(view.callbacks_by)),
            made_by: view.schedule.map(|schedule| Box::new(MadeBy { schedule, due_at: view.due_at })),
        };
        let large = match (view.result_id, view.result_bytes, view.result_type) {
            (Some(id), Some(bytes), Some(content_type)) => {
                Some(Box::new(LargeResult { id, bytes, content_type: content_type.into() }))
            }
            _ => None,
        };
        let (upload, left) = if view.result_omitted { (None, large) } else { (large, None) };
        let outcome = match (view.result, view.error) {
            (Some(result), _) => Some(Outcome::Result(result)),
            (None, Some(error)) => Some(Outcome::Error(error)),
            (None, None) => match left {
                Some(large) => Some(Outcome::Large(large)),
                None => view.result_omitted.then_some(Outcome::ResultOmitted),
            },
        };
        let run = Run {
            started_at: view.started_at,
            finished_at: view.finished_at,
            worker_id: view.worker_id,
            lease_ms: view.lease_ms,
            cancel_requested_at: view.cancel_requested_at,
            // Records of older hubs do not say how far that has come.
            cancel: view.cancel.or(view.cancel_requested_at.map(|_| Cancel::Requested)),
            progress: view.progress.as_ref().and_then(|progress: &Progress| Json::of(progress).ok()),
            upload,
            outcome,
            last_error: view.last_error,
            ended_by_hub: view.ended_by_hub,
        };
        Task {
            task_id: view.task_id,
            task_type: view.task_type,
            queue: view.queue,
            user_id: view.user_id,
            rev: view.rev,
            created_at: view.created_at,
            updated_at: view.updated_at,
            run_at: view.run_at,
            priority: view.priority,
            status: view.status,
            delayed: view.delay_ms.is_some(),
            attempt: view.attempt,
            tries: view.tries,
            max_attempts: view.max_attempts,
            crashes: view.crashes,
            max_crashes: view.max_crashes,
            detail: (detail != Detail::default()).then(|| Box::new(detail)),
            run: (run != Run::default()).then(|| Box::new(run)),
        }
    }
}

/// Writes the fields of a JSON object. This is the one hot serializer of the hub; elsewhere serde does it.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A text that needs no escapes.
    fn plain(&mut self, key: &str, text: &str) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    /// A value whose `Display` needs no escapes.
    fn display(&mut self, key: &str, value: &impl std::fmt::Display) {
        self.key(key);
        write!(self.out, "\"{value}\"").expect("a Vec takes every write");
    }

    fn number(&mut self, key: &str, number: i64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn raw(&mut self, key: &str, json: &Json) {
        self.key(key);
        self.out.extend_from_slice(json.bytes());
    }

    fn some<T: Serialize>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.key(key);
            serde_json::to_writer(&mut *self.out, &value).expect("plain values are JSON, and a Vec takes every write");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Held, HeldUntil, NewCallback, OnFailure, OpenList, ResultId};

    fn full() -> Task {
        let mut random = fastrand::Rng::with_seed(3);
        let mut ids = super::super::IdSource::default();
        let now = Timestamp::from_millis(1_790_000_000_123);
        Task {
            task_id: ids.next(now, &mut random),
            task_type: Name::new("media.transcode"),
            queue: Name::new("default"),
            user_id: Some(Name::new("u \"1\"")),
            rev: 42,
            created_at: now,
            updated_at: now.plus_millis(5),
            run_at: Some(now),
            priority: -7,
            status: Status::Failed,
            delayed: false,
            attempt: 3,
            tries: 2,
            max_attempts: 5,
            crashes: 1,
            max_crashes: 3,
            detail: Some(Box::new(Detail {
                title: Some("a \"title\"\n".into()),
                description: Some("d".into()),
                labels: [("project_id".to_owned(), "p1".to_owned())].into(),
                timing: Some(Box::new(Timing {
                    timeout_ms: Some(1_000),
                    unserved_ms: Some(2_000),
                    retry: Some(RetryPolicy::delays_ms([1, 2])),
                    deadline: Some(By { at: now, ms: None }),
                    start_by: Some(By { at: now, ms: Some(5) }),
                    silence_ms: NonZeroU64::new(3_000),
                    cancel_grace_ms: Some(4_000),
                })),
                concurrency_key: Some(Name::new("k \"1\"")),
                parent_id: Some(ids.next(now, &mut random)),
                unique: Some(Box::new(Unique {
                    digest: 7,
                    held: Held::Until(HeldUntil::Started),
                    max_wait_ms: Some(5),
                    former_labels: vec![("k".to_owned(), "v".to_owned())],
                })),
                gather: Some(Box::new(Gather {
                    gathered: 2,
                    open: Some(OpenList { digest: 8, bytes: 9, max_count: Some(10), max_bytes: None }),
                })),
                ties: Some(Box::new(Ties {
                    dependencies: 3,
                    links: None,
                    on_dependency_failure: OnDependencyFailure::Run,
                    workflow_id: Some(ids.next(now, &mut random)),
                    takes_results: true,
                    reference: Some(Name::new("r")),
                    weight: 5,
                    workflow: Some(Workflow { on_failure: OnFailure::Finish }),
                })),
                callbacks: Callbacks::of(
                    &[NewCallback::on("https://app.example/\"?a", ["created", "failed"])],
                    Some(crate::task::Author::token("d")),
                ),
                made_by: Some(Box::new(MadeBy { schedule: Name::new("nightly"), due_at: Some(now) })),
            })),
            run: Some(Box::new(Run {
                started_at: Some(now),
                finished_at: Some(now),
                worker_id: Some(Name::new("w")),
                lease_ms: Some(60_000),
                cancel_requested_at: Some(now),
                cancel: Some(Cancel::Delivered),
                progress: Some(Json::trusted(r#"{"percentage":50,"current":1,"total":2}"#)),
                upload: None,
                outcome: Some(Outcome::Error(Failure::new("exit", "no \u{1}"))),
                last_error: Some(Failure::new("exit", "earlier")),
                ended_by_hub: true,
            })),
        }
    }

    #[test]
    fn records_round_trip() {
        let mut task = full();
        for outcome in [
            None,
            Some(Outcome::Error(Failure::new("exit", "no \u{1}"))),
            Some(Outcome::Result(Json::null())),
            Some(Outcome::ResultOmitted),
        ] {
            task.run.as_mut().unwrap().outcome = outcome;
            let text = task.to_json();
            assert_eq!(Task::rev_of(&text), Some(task.rev));
            assert_eq!(Task::parse(&text).unwrap(), task);
            let view: TaskView = serde_json::from_slice(&text).unwrap();
            let again: TaskView = serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap();
            assert_eq!(Task::from(again), task);
        }
        let large = LargeResult { id: ResultId::random(), bytes: 1 << 40, content_type: "text/\"plain\"".into() };
        for (upload, outcome) in
            [(Some(Box::new(large.clone())), None), (None, Some(Outcome::Large(Box::new(large.clone()))))]
        {
            let run = task.run.as_mut().unwrap();
            (run.upload, run.outcome) = (upload, outcome);
            assert_eq!(task.large_result(), Some(&large));
            assert_eq!(Task::parse(&task.to_json()).unwrap(), task);
        }
        task.detail = None;
        task.run = None;
        assert_eq!(Task::parse(&task.to_json()).unwrap(), task);
    }

    #[test]
    fn a_request_of_before_it_was_followed_is_followed_from_now_on() {
        let mut task = full();
        task.run.as_mut().unwrap().cancel = None;
        let cancel = |task: &Task| Task::parse(&task.to_json()).unwrap().run.unwrap().cancel;
        assert_eq!(cancel(&task), Some(Cancel::Requested));
        task.run.as_mut().unwrap().cancel_requested_at = None;
        assert_eq!(cancel(&task), None);
    }

    #[test]
    fn a_waiting_record_stays_small() {
        // With the two counts of its `Arc` that is 160, a size the allocator has; the next is 192.
        assert!(size_of::<Task>() <= 144, "{}", size_of::<Task>());
        // The same of what some have beside it; the next is 384.
        assert!(size_of::<Detail>() <= 320, "{}", size_of::<Detail>());
    }

    #[test]
    fn a_live_tick_replaces_the_stored_one() {
        let mut out = Vec::new();
        full().write_json(&mut out, Some((&Json::trusted("{\"percentage\":75}"), 9)));
        let view: TaskView = serde_json::from_slice(&out).unwrap();
        assert_eq!(view.progress, Some(Progress::percent(75.0)));
        assert_eq!(view.tick, 9);
    }
}
