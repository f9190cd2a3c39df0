//! New tasks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::body::read_json;
use super::caller::Caller;
use super::json::parse;
use super::query::NoQuery;
use super::share;
use super::splice;
use super::state::App;
use crate::access::Principal;
use crate::hub::{HubError, Refusal, SubmitKey, Submitted};
use crate::task::NewTask;
use crate::wire::{BatchBody, Code, Problem};

const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the task was there before the submission.
const EXISTING_HEADER: HeaderName = HeaderName::from_static("taskhub-existing");
/// The longest `Idempotency-Key`, in characters.
const KEY_CHARS_MAX: usize = 255;

/// A body that is one task. It is put where the hub takes it from as soon as it is read: a new task is half a KiB, which every
/// future on the way would hold and move.
struct Alone(Vec<NewTask>);

impl<'de> Deserialize<'de> for Alone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Alone, D::Error> {
        NewTask::deserialize(deserializer).map(|task| Alone(vec![task]))
    }
}

/// `POST /api/v1/tasks`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let bytes_max = app.limits.body_bytes_max();
    let (key, Alone(mut task)) = read_once(&app, hub.who(), "tasks", request, bytes_max).await?;
    let tokens = share::asked(&app, &hub, &mut task, |_| String::new())?;
    let Submitted { task_ids, records, existing, replayed } =
        share::spending(&app, &hub, async { Ok(hub.submit_all(task, key).await?) }).await?;
    let (Some(task_id), Some(record)) = (task_ids.first(), records.into_iter().next()) else {
        return Err(Problem::new(Code::Internal, "the submission left no task"));
    };
    let existed = !existing.is_empty();
    let record = tokens.put(&app, &hub, 0, *task_id, record)?;
    let response = splice::json(splice::made(!replayed && !existed), record);
    let mut response = splice::located(response, format!("tasks/{task_id}"));
    if existed {
        response.headers_mut().insert(EXISTING_HEADER, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// `POST /api/v1/tasks/batch`.
pub(super) async fn batch(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let bytes_max = app.limits.batch_bytes_max();
    let (key, BatchBody { mut tasks }) = read_once(&app, hub.who(), "tasks/batch", request, bytes_max).await?;
    not_empty(&tasks)?;
    let tokens = share::asked(&app, &hub, &mut tasks, |place| format!("tasks[{place}]."))?;
    let alone = tasks.len() == 1;
    let within = |error| match error {
        // With several the hub names the one.
        HubError::Refused(Refusal::Invalid(invalid)) if alone && !invalid.field.starts_with("tasks[") => {
            Problem::from(invalid.within("tasks[0]"))
        }
        error => error.into(),
    };
    let Submitted { task_ids, mut records, existing, replayed } =
        share::spending(&app, &hub, async { hub.submit_all(tasks, key).await.map_err(within) }).await?;
    for (place, (record, task_id)) in records.iter_mut().zip(task_ids).enumerate() {
        *record = tokens.put(&app, &hub, place, task_id, std::mem::take(record))?;
    }
    Ok(taken(replayed, &existing, records))
}

pub(super) fn not_empty(tasks: &[NewTask]) -> Result<(), Problem> {
    match tasks.is_empty() {
        true => Err(Problem::wrong("tasks", "must not be empty")),
        false => Ok(()),
    }
}

/// The answer to several tasks at once, some of which were there already.
pub(super) fn taken(replayed: bool, existing: &[u32], mut records: Vec<Bytes>) -> Response {
    for place in existing {
        splice::mark_existing(&mut records[*place as usize]);
    }
    let mut text = Vec::with_capacity(records.iter().map(Bytes::len).sum::<usize>() + records.len() + 16);
    splice::list(&mut text, "tasks", records.iter());
    splice::json(splice::made(!replayed && existing.len() < records.len()), text)
}

/// Reads a body, and what its `Idempotency-Key` stands for on this route.
pub(super) async fn read_once<T: DeserializeOwned + Send + 'static>(
    app: &App,
    who: &Arc<Principal>,
    route: impl Into<String>,
    request: Request,
    bytes_max: usize,
) -> Result<(Option<SubmitKey>, T), Problem> {
    let key = request.headers().get(KEY_HEADER).cloned();
    let (who, route) = (who.clone(), route.into());
    let read = move |bytes: &[u8]| Ok((submit_key(&who, &route, key.as_ref(), bytes)?, parse(bytes)?));
    read_json(app, request, bytes_max).await?.with(app, read).await
}

/// What the request's `Idempotency-Key` stands for: this caller's, on this route, with this body.
fn submit_key(
    who: &Principal,
    route: &str,
    header: Option<&HeaderValue>,
    body: &[u8],
) -> Result<Option<SubmitKey>, Problem> {
    let Some(value) = header else { return Ok(None) };
    let key = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Problem::wrong("Idempotency-Key", "must be text in UTF-8"))?;
    check_key("Idempotency-Key", key)?;
    Ok(Some(SubmitKey::new(&who.whose(), route, key, body)))
}

/// Whether an idempotency key is one, wherever it stands.
pub(super) fn check_key(field: &str, key: &str) -> Result<(), Problem> {
    if key.is_empty() {
        return Err(Problem::wrong(field, "must not be empty"));
    }
    if key.chars().count() > KEY_CHARS_MAX {
        return Err(Problem::over(field, KEY_CHARS_MAX as u64, "characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Credential, Role};
    use crate::task::Name;

    #[test]
    fn a_key_is_one_callers_on_one_route() {
        let key = |user: Option<&str>, route: &str, key: &str| {
            let who = Principal::new(Role::User, user.map(Name::new), Credential::None);
            let header = HeaderValue::from_bytes(key.as_bytes()).unwrap();
            submit_key(&who, route, Some(&header), b"{}").map(|key| key.unwrap().key)
        };
        let all = [
            key(None, "tasks", "a").unwrap(),
            key(None, "tasks/batch", "a").unwrap(),
            key(Some("u"), "tasks", "a").unwrap(),
            key(Some("u"), "tasks", "b").unwrap(),
            key(Some("v"), "tasks", "b").unwrap(),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
        assert_eq!(key(None, "tasks", "a").unwrap(), all[0]);
        assert!(key(None, "tasks", &"é".repeat(255)).is_ok());
        assert_eq!(key(None, "tasks", &"é".repeat(256)).unwrap_err().limit, Some(255));
        assert_eq!(key(None, "tasks", "").unwrap_err().code, Code::InvalidField);
    }
}
