//! New tasks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::body::{parse, read_json};
use super::caller::Caller;
use super::splice;
use super::state::App;
use crate::hub::{HubError, Principal, Refusal, SubmitKey, Submitted};
use crate::task::{Digest, NewTask};
use crate::wire::{BatchBody, Code, Problem};

/// The most tasks of a batch. They are decided and committed as one, and the writer does nothing else meanwhile.
const BATCH_LEN_MAX: usize = 10_000;
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest `Idempotency-Key`, in characters.
const KEY_CHARS_MAX: usize = 255;
/// Bodies from this size on are parsed where blocking is allowed: it takes a millisecond and more.
const PARSE_ASIDE_BYTES: usize = 512 << 10;

/// `POST /api/v1/tasks`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    request: Request,
) -> Result<Response, Problem> {
    let key = request.headers().get(KEY_HEADER).cloned();
    let bytes = read_json(&app, request, app.limits.body_bytes_max()).await?;
    let key = submit_key(&who, "tasks", key.as_ref(), &bytes)?;
    let value: NewTask = parse(&bytes)?;
    let Submitted { task_ids, records, replayed } = app.hub.submit_all(&who, vec![value], key).await?;
    let (Some(task_id), Some(record)) = (task_ids.first(), records.into_iter().next()) else {
        return Err(Problem::new(Code::Internal, "the submission left no task"));
    };
    let location = HeaderValue::try_from(format!("/api/v1/tasks/{task_id}")).expect("an id is plain text");
    let mut response = splice::json(created(replayed), record);
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `POST /api/v1/tasks/batch`.
pub(super) async fn batch(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    request: Request,
) -> Result<Response, Problem> {
    let key = request.headers().get(KEY_HEADER).cloned();
    let bytes = read_json(&app, request, app.limits.batch_bytes_max()).await?;
    let key = submit_key(&who, "tasks/batch", key.as_ref(), &bytes)?;
    let BatchBody { tasks } = parse_aside(bytes).await?;
    if tasks.len() > BATCH_LEN_MAX {
        return Err(Problem::over("tasks", BATCH_LEN_MAX as u64, "tasks"));
    }
    if tasks.is_empty() {
        return Err(Problem::wrong("tasks", "must not be empty"));
    }
    let alone = tasks.len() == 1;
    let Submitted { records, replayed, .. } =
        app.hub.submit_all(&who, tasks, key).await.map_err(|error| match error {
            // With several the hub names the one.
            HubError::Refused(Refusal::Invalid(invalid)) if alone && !invalid.field.starts_with("tasks[") => {
                Problem::from(invalid.within("tasks[0]"))
            }
            error => error.into(),
        })?;
    let mut text = Vec::with_capacity(records.iter().map(Bytes::len).sum::<usize>() + records.len() + 16);
    splice::list(&mut text, "tasks", records.iter());
    Ok(splice::json(created(replayed), text))
}

async fn parse_aside(bytes: Bytes) -> Result<BatchBody, Problem> {
    if bytes.len() < PARSE_ASIDE_BYTES {
        return parse(&bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
    parsed.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the body could not be read")))
}

fn created(replayed: bool) -> StatusCode {
    if replayed { StatusCode::OK } else { StatusCode::CREATED }
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
    if key.is_empty() {
        return Err(Problem::wrong("Idempotency-Key", "must not be empty"));
    }
    if key.chars().count() > KEY_CHARS_MAX {
        return Err(Problem::over("Idempotency-Key", KEY_CHARS_MAX as u64, "characters"));
    }
    let user = who.user_id.as_ref().map_or("", |user| user.as_str());
    // Lengths go in, so that no two triples run into the same text.
    let whose = format!("{}:{user}{}:{route}{key}", user.len(), route.len());
    Ok(Some(SubmitKey { key: digest(whose.as_bytes()), body: digest(body) }))
}

/// The first 128 bits of the SHA-256.
fn digest(bytes: &[u8]) -> Digest {
    let hash = Sha256::digest(bytes);
    u128::from_be_bytes(hash[..16].try_into().expect("a SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Name;

    #[test]
    fn a_key_is_one_callers_on_one_route() {
        let key = |user: Option<&str>, route: &str, key: &str| {
            let who = Principal { user_id: user.map(Name::new) };
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
