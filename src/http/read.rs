//! Looking at tasks: one, many, what became of it, how it got there, what it said.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::caller::Caller;
use super::gate::while_known;
use super::path::Path;
use super::query::Params;
use super::state::App;
use super::{cursor, results, splice};
use crate::access::Part;
use crate::hub::{CallerHub, HubError, LogRange, Order, Query, Refusal, Stored, Until};
use crate::task::{Json, LOG_LINES_MAX, LargeResult, Links, Status, Task, TaskId, read_strictly};
use crate::wire::{Code, History, LogList, Problem};

/// The largest page of a list; larger answers take long to read on either side.
pub(super) const PAGE_LEN_MAX: u64 = 500;
pub(super) const PAGE_LEN: u64 = 50;
/// How many log lines are answered where nothing is said.
const LOG_LINES: u64 = 100;
/// The longest text to look for, in characters: as long as a title.
const TEXT_CHARS_MAX: usize = 256;

/// The id in a path. What is no id names no task.
pub(super) fn task_id(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|_| Problem::from(Refusal::TaskNotFound))
}

/// `GET /api/v1/tasks`.
pub(super) async fn list(Caller(hub): Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let list = cursor::list_of(query.as_deref());
    let query = list_query(query.as_deref(), &list)?;
    // A filter that names no task needs no look.
    let none = query.filter.task_id.as_ref().is_some_and(|ids| ids.is_empty());
    let page = if none { Arc::default() } else { hub.find(query).await? };
    let mut text = Vec::with_capacity(page.tasks.iter().map(|(_, record)| record.len() + 1).sum::<usize>() + 80);
    splice::list(&mut text, "tasks", page.tasks.iter().map(|(_, record)| record));
    let next = page.tasks.last().filter(|_| page.more).map(|(id, _)| format!("\"{}\"", cursor::encode(*id, &list)));
    splice::with(&mut text, "next_cursor", next.map(Json::trusted).as_ref());
    Ok(splice::json(StatusCode::OK, text))
}

fn list_query(query: Option<&str>, list: &str) -> Result<Query, Problem> {
    let mut params = Params::of(query)?;
    let filter = params.filter()?;
    let text = params.text("q").filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| text.chars().count() > TEXT_CHARS_MAX) {
        return Err(Problem::over("q", TEXT_CHARS_MAX as u64, "characters"));
    }
    let order = match params.text("order").as_deref() {
        None | Some("desc") => Order::NewestFirst,
        Some("asc") => Order::OldestFirst,
        Some(_) => return Err(Problem::wrong("order", "must be desc or asc")),
    };
    let query = Query {
        filter,
        text,
        created_after: params.time("created_after")?,
        created_before: params.time("created_before")?,
        order,
        beyond: params.text("cursor").map(|cursor| cursor::decode(&cursor, list)).transpose()?,
        limit: params.number("limit", 1, PAGE_LEN_MAX)?.unwrap_or(PAGE_LEN) as usize,
    };
    params.finish()?;
    Ok(query)
}

/// `GET /api/v1/tasks/{id}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let mut params = Params::of(query.as_deref())?;
    let timeout = params.wait()?;
    let until = match params.number("since_rev", 0, 1 << 53)? {
        Some(rev) => Until::RevAbove(rev),
        None => Until::Final,
    };
    params.finish()?;
    let stored = look(&app, &hub, id, until, timeout).await?;
    let mut text = Vec::new();
    splice::whole(&mut text, &stored);
    splice::with(&mut text, "depends_on", depends_on(&stored).as_ref());
    splice::with(&mut text, "waits_for", waits_for(&hub, id, &stored).await.as_ref());
    Ok(splice::json(StatusCode::OK, text))
}

/// What a task depends on.
fn depends_on(stored: &Stored) -> Option<Json> {
    let links = Links::parse(stored.links.as_ref()?).ok()?;
    Json::of(&links.depends_on).ok().filter(|_| !links.depends_on.is_empty())
}

/// Why a task waits, if it still stands at the record that is shown.
async fn waits_for(hub: &CallerHub, id: TaskId, stored: &Stored) -> Option<Json> {
    let waits = |task: &Task| matches!(task.status, Status::Waiting | Status::Scheduled | Status::Pending);
    hub.shown(id).filter(|task| waits(task) && Task::rev_of(&stored.record) == Some(task.rev))?;
    let reasons = hub.waits_for(id).await?;
    Json::of(&reasons).ok().filter(|_| !reasons.is_empty())
}

/// The task, once `until` holds or time is up. A hub that goes down answers at once: nothing will change any more.
async fn look(app: &App, hub: &CallerHub, id: TaskId, until: Until, timeout: Duration) -> Result<Stored, Problem> {
    let stored = if timeout.is_zero() {
        hub.task(id).await
    } else {
        let held = async {
            tokio::select! {
                stored = hub.wait_for(id, until, timeout) => stored,
                () = app.goodbye() => hub.task(id).await,
            }
        };
        while_known(app, hub.who(), held).await?
    };
    stored?.ok_or_else(|| Refusal::TaskNotFound.into())
}

/// `GET /api/v1/tasks/{id}/result`.
pub(super) async fn result(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let mut params = Params::of(query.as_deref())?;
    let timeout = params.wait()?;
    params.finish()?;
    let stored = look(&app, &hub, id, Until::Final, timeout).await?;
    hub.needs_part(Part::Result)?;
    if let Some(large) = large(&stored) {
        return results::give(&hub, id, &large, &headers).await;
    }
    let text = result_text(&stored).ok_or_else(|| Problem::new(Code::Internal, "the record cannot be read"))??;
    Ok(splice::json(StatusCode::OK, text))
}

/// The result that a completed task left in a file.
fn large(stored: &Stored) -> Option<LargeResult> {
    // Nearly no record has one, and to read a record takes longer than to look for a word in it.
    let may_have = std::str::from_utf8(&stored.record).is_ok_and(|record| record.contains("\"result_id\":\""));
    if !may_have {
        return None;
    }
    let task = Task::parse(&stored.record).ok().filter(|task| task.status.is_final())?;
    task.large_result().cloned()
}

/// What a final task left, cut out of its record; or that it is not final. `None` for a record that cannot be read.
fn result_text(stored: &Stored) -> Option<Result<Vec<u8>, Problem>> {
    #[derive(Deserialize)]
    struct Left<'a> {
        task_id: TaskId,
        status: Status,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let left: Left<'_> = read_strictly(&stored.record).ok()?;
    if !left.status.is_final() {
        return Some(Err(Refusal::TaskNotFinished.into()));
    }
    let (key, value) = match (&stored.result, left.result, left.error) {
        (Some(result), ..) => ("result", result.as_str()),
        (None, Some(result), _) => ("result", result.get()),
        (None, None, Some(error)) => ("error", error.get()),
        // `"result":null` reads as absent.
        (None, None, None) if left.status == Status::Completed => ("result", "null"),
        (None, None, None) => {
            return Some(Ok(format!(r#"{{"task_id":"{}","status":"{}"}}"#, left.task_id, left.status).into_bytes()));
        }
    };
    let text = format!(r#"{{"task_id":"{}","status":"{}","{key}":{value}}}"#, left.task_id, left.status);
    Some(Ok(text.into_bytes()))
}

/// `GET /api/v1/tasks/{id}/history`.
pub(super) async fn history(
    Caller(hub): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    Params::of(query.as_deref())?.finish()?;
    let transitions = hub.history(id).await?.ok_or(HubError::Refused(Refusal::TaskNotFound))?;
    Ok(splice::json_of(&History { transitions }))
}

/// `GET /api/v1/tasks/{id}/logs`.
pub(super) async fn logs(
    Caller(hub): Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let range = log_range(query.as_deref())?;
    let lines = hub.logs(id, range).await?.ok_or(HubError::Refused(Refusal::TaskNotFound))?;
    Ok(splice::json_of(&LogList { lines }))
}

fn log_range(query: Option<&str>) -> Result<LogRange, Problem> {
    let mut params = Params::of(query)?;
    let tail = params.number("tail", 1, LOG_LINES_MAX as u64)?;
    let after = params.number("after", 0, 1 << 53)?;
    let limit = params.number("limit", 1, LOG_LINES_MAX as u64)?;
    params.finish()?;
    match (tail, after, limit) {
        (Some(_), Some(_), _) => Err(Problem::wrong("tail", "must not stand beside after")),
        (_, None, Some(_)) => Err(Problem::wrong("limit", "must stand beside after")),
        (tail, None, None) => Ok(LogRange::Tail(tail.unwrap_or(LOG_LINES) as usize)),
        (None, Some(seq), limit) => Ok(LogRange::After { seq, limit: limit.unwrap_or(LOG_LINES) as usize }),
    }
}

/// An answer with a record as it is.
pub(super) fn record(status: StatusCode, record: impl Into<Bytes>) -> Response {
    splice::json(status, record)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890000-0000-7000-8000-00000000002a";

    #[test]
    fn what_a_final_task_left() {
        let check = |rest: &str, large: Option<&str>, expected: Result<&str, Code>| {
            let record = format!(r#"{{"task_id":"{ID}","task_type":"t",{rest}}}"#);
            let stored = Stored {
                record: record.into(),
                payload: None,
                result: large.map(|r| Json::trusted(r.to_owned())),
                links: None,
            };
            let got = result_text(&stored).unwrap().map(|text| String::from_utf8(text).unwrap());
            match expected {
                Ok(rest) => assert_eq!(got.unwrap(), format!(r#"{{"task_id":"{ID}",{rest}}}"#)),
                Err(code) => assert_eq!(got.unwrap_err().code, code),
            }
        };
        check(r#""status":"completed","result":{"a": 1}"#, None, Ok(r#""status":"completed","result":{"a": 1}"#));
        check(r#""status":"completed","result":null"#, None, Ok(r#""status":"completed","result":null"#));
        let omitted = r#""status":"completed","result_omitted":true"#;
        check(omitted, Some("[1]"), Ok(r#""status":"completed","result":[1]"#));
        check(r#""status":"failed","error":{"kind":"x"}"#, None, Ok(r#""status":"failed","error":{"kind":"x"}"#));
        check(r#""status":"cancelled""#, None, Ok(r#""status":"cancelled""#));
        check(r#""status":"running""#, None, Err(Code::TaskNotFinished));
    }

    #[test]
    fn parameters_of_a_list() {
        let query = list_query(Some("order=asc&limit=500&q=Nightly&created_after=2026-01-31T12:00:00Z"), "").unwrap();
        assert_eq!((query.order, query.limit, query.text.as_deref()), (Order::OldestFirst, 500, Some("Nightly")));
        for (wrong, code, field) in [
            ("limit=501", Code::LimitExceeded, "limit"),
            ("order=up", Code::InvalidField, "order"),
            ("created_before=yesterday", Code::InvalidField, "created_before"),
            ("cursor=abc", Code::BadCursor, "cursor"),
            ("page=2", Code::UnknownField, "page"),
        ] {
            let problem = list_query(Some(wrong), "").unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (code, Some(field)), "{wrong}");
        }
    }

    #[test]
    fn parameters_of_logs() {
        assert!(matches!(log_range(None), Ok(LogRange::Tail(100))));
        assert!(matches!(log_range(Some("after=0&limit=5")), Ok(LogRange::After { seq: 0, limit: 5 })));
        assert!(log_range(Some("after=0&tail=5")).is_err());
        assert!(log_range(Some("limit=5")).is_err());
        assert_eq!(log_range(Some("tail=10001")).unwrap_err().limit, Some(10_000));
    }
}
