//! Payloads with the results of other tasks in them.

use std::sync::Arc;

use crate::engine::{Command, Report};
use crate::settings::TaskTypes;
use crate::store::{HandOut, Reader, StoreError};
use crate::task::{Failure, Json, LargeResult, Outcome, PayloadFault, Task, TaskId, Unfilled, fill};

use super::HubError;
use super::inbox::{Bound, Reply, Request};
use super::shared::Shared;

/// The results of a group are read up to so many times the bytes that a payload may have: not all of them may be wanted.
const GROUP_TIMES: usize = 16;

/// What a task is handed out with, or why it cannot be.
pub(super) type Filled = Result<HandOut, Failure>;

/// Reads payloads and checkpoints, and puts results in where they belong; what that makes is looked at with the types of now.
fn bodies(
    reader: &dyn Reader,
    tasks: &[Arc<Task>],
    types: Option<&TaskTypes>,
    bytes_max: usize,
) -> Result<Vec<Filled>, StoreError> {
    let task_ids: Vec<TaskId> = tasks.iter().map(|task| task.task_id).collect();
    let bodies = reader.hand_out(&task_ids)?;
    let filled = tasks.iter().zip(bodies).map(|(task, (payload, checkpoint))| match payload {
        Some(payload) if task.takes_results() => {
            let payload = fill(&payload, bytes_max, |name| named(reader, task, name, bytes_max))?;
            let takes_large = payload.is_err() && takes_large(reader, task)?;
            let payload = payload.map_err(|why| unfilled(why, takes_large));
            let fitting = payload.and_then(|payload| fitting(types, task, payload));
            Ok(fitting.map(|payload| (Some(payload), checkpoint)))
        }
        payload => Ok(Ok((payload, checkpoint))),
    });
    filled.collect()
}

fn fitting(types: Option<&TaskTypes>, task: &Task, payload: Json) -> Result<Json, Failure> {
    let faults = types.map(|types| types.faults(task.task_type.as_str(), Some(&payload), "")).unwrap_or_default();
    match faults.is_empty() {
        true => Ok(payload),
        false => Err(PayloadFault::failure(&task.task_type, &faults)),
    }
}

/// Whether something that it depends on left a result in a file.
fn takes_large(reader: &dyn Reader, task: &Task) -> Result<bool, StoreError> {
    let records = reader.records(task.depends_on())?;
    let is_large = |record: &bytes::Bytes| Task::parse(record).is_ok_and(|task| task.large_result().is_some());
    Ok(records.iter().flatten().any(is_large))
}

fn unfilled(why: Unfilled, takes_large: bool) -> Failure {
    let message = match why {
        Unfilled::Nothing(what) if takes_large => {
            format!(
                "its payload takes {what}, where nothing is: a result that was uploaded into a file cannot be taken"
            )
        }
        Unfilled::Nothing(what) => format!("its payload takes {what}, where nothing is"),
        Unfilled::TooLong => "its payload is too long with the results that it takes".to_owned(),
    };
    Failure::new("dependency", message)
}

/// What a name in a payload stands for: the result of a task, or a list of several, with `null` for those that did not
/// complete.
fn named(reader: &dyn Reader, task: &Task, name: &str, bytes_max: usize) -> Result<Option<Json>, StoreError> {
    let Some(links) = task.links() else { return Ok(None) };
    let passed_on = links.results.as_ref();
    let Some((from, count)) = passed_on.and_then(|it| it.names.get(name)).copied() else { return Ok(None) };
    let (from, count) = (from as usize, count as usize);
    let Some(of) = links.depends_on.get(from..from + count) else { return Ok(None) };
    match (of, name) {
        (of, "group") => {
            let mut list = String::from("[");
            for task_id in of {
                if list.len() > 1 {
                    list.push(',');
                }
                list.push_str(result(reader, *task_id)?.as_ref().map_or("null", Json::as_str));
                if list.len() > bytes_max.saturating_mul(GROUP_TIMES) {
                    return Ok(None);
                }
            }
            list.push(']');
            Ok(Some(Json::trusted(list)))
        }
        ([task_id], _) => result(reader, *task_id),
        _ => Ok(None),
    }
}

/// What a completed task left.
enum Left {
    Result(Json),
    /// In a file: nobody can take it.
    Large(Box<LargeResult>),
    Nothing,
}

fn left(reader: &dyn Reader, task_id: TaskId) -> Result<Left, StoreError> {
    let Some(stored) = reader.task(task_id)? else { return Ok(Left::Nothing) };
    if let Some(result) = stored.result {
        return Ok(Left::Result(result));
    }
    Ok(match Task::parse(&stored.record).ok().and_then(|task| task.run).and_then(|run| run.outcome) {
        Some(Outcome::Result(result)) => Left::Result(result),
        Some(Outcome::Large(large)) => Left::Large(large),
        _ => Left::Nothing,
    })
}

/// The result of a completed task, as far as others can take it.
fn result(reader: &dyn Reader, task_id: TaskId) -> Result<Option<Json>, StoreError> {
    Ok(match left(reader, task_id)? {
        Left::Result(result) => Some(result),
        Left::Large(_) | Left::Nothing => None,
    })
}

/// The same for a workflow of which it is the output, where a large one is told of.
pub(super) fn told_result(reader: &dyn Reader, task_id: TaskId) -> Result<Option<Json>, StoreError> {
    Ok(match left(reader, task_id)? {
        Left::Result(result) => Some(result),
        Left::Large(large) => Some(large.told_of(task_id)),
        Left::Nothing => None,
    })
}

impl Shared {
    /// What these tasks are handed out with.
    pub(super) async fn bodies(&self, tasks: Vec<Arc<Task>>) -> Result<Vec<Filled>, HubError> {
        let bytes_max = self.options.engine.payload_bytes_max;
        let types = self.board.settings.types();
        self.read(move |reader| bodies(reader, &tasks, types.as_deref(), bytes_max)).await
    }

    /// A task that was handed out and cannot be run: its attempt fails for good, and its worker never hears of it.
    pub(super) fn fail_unfilled(&self, task: &Task, error: Failure) {
        let report = Report::Fail { error, retryable: false, retry_after_ms: None };
        let command = Command::Report { task_id: task.task_id, attempt: task.attempt, report };
        let _ = self.inbox.push(Request::Command { command, reply: Reply::Nobody }, Bound::Free);
    }
}
