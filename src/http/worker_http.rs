//! Workers over plain HTTP: claim, and what becomes of each attempt.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use super::accepts::{self, accepts};
use super::body::{JsonBody, OptionalBody};
use super::caller::Caller;
use super::gate::while_known;
use super::path::Path;
use super::query::{NoQuery, WAIT_MS_MAX, held};
use super::read::task_id;
use super::splice;
use super::state::App;
use crate::hub::CallerHub;
use crate::hub::{HandedOut, Refusal, Report};
use crate::task::{Json, TaskId};
use crate::wire::{AttemptAnswer, ClaimBody, CompleteBody, FailBody, LogBody, NoBody, Problem, ProgressBody};

/// The most tasks of one claim.
const CLAIM_LEN_MAX: u32 = 100;
/// The longest lease that a claim can ask for: so long nobody else gets the tasks of a worker that died.
const LEASE_MS_MAX: u64 = 3_600_000;

/// `POST /api/v1/worker/claim`.
pub(super) async fn claim(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(claim): JsonBody<ClaimBody>,
) -> Result<Response, Problem> {
    let worker_id = accepts::worker_id(&claim.worker_id)?;
    let accepts = accepts(claim.task_types, claim.queues, &hub.who().works)?;
    let max = accepts::at_least_one("max", claim.max, CLAIM_LEN_MAX)?;
    let wait_ms = claim.wait_ms.unwrap_or(0);
    if wait_ms > WAIT_MS_MAX {
        return Err(Problem::over("wait_ms", WAIT_MS_MAX, "milliseconds"));
    }
    if claim.lease_ms.is_some_and(|lease_ms| lease_ms > LEASE_MS_MAX) {
        return Err(Problem::over("lease_ms", LEASE_MS_MAX, "milliseconds"));
    }
    let asked = claim.lease_ms.map(Duration::from_millis);
    let claimed = hub.claim_for(worker_id, accepts, max, asked, held(wait_ms));
    let tasks = while_known(&app, hub.who(), claimed).await??;
    let handed: Vec<Bytes> = tasks.iter().map(hand_out).collect();
    let lease_ms = app.options().engine.lease_ms.max(claim.lease_ms.unwrap_or(0));
    let mut text = Vec::with_capacity(handed.iter().map(Bytes::len).sum::<usize>() + handed.len() + 80);
    splice::list(&mut text, "tasks", handed.iter());
    splice::with(&mut text, "lease_ms", Some(&Json::trusted(lease_ms.to_string())));
    splice::with(&mut text, "heartbeat_ms", Some(&Json::trusted(accepts::heartbeat_ms(lease_ms).to_string())));
    Ok(splice::json(StatusCode::OK, text))
}

/// `{"task":{…,"payload":…},"attempt":1,"checkpoint":…}`
fn hand_out(handed: &HandedOut) -> Bytes {
    let mut text = text_for(handed);
    text.extend_from_slice(b"{\"task\":");
    write_task(&mut text, handed);
    text.into()
}

/// Room for a task that is handed out.
pub(super) fn text_for(handed: &HandedOut) -> Vec<u8> {
    let beside = [&handed.payload, &handed.checkpoint].into_iter().flatten().map(Json::len).sum::<usize>();
    Vec::with_capacity(640 + beside)
}

/// Appends `{…,"payload":…},"attempt":1,"checkpoint":…}`: the end of a claimed task as of a `run` message.
pub(super) fn write_task(text: &mut Vec<u8>, handed: &HandedOut) {
    handed.task.write_json(text, None);
    splice::with(text, "payload", handed.payload.as_ref());
    text.extend_from_slice(b",\"attempt\":");
    text.extend_from_slice(itoa::Buffer::new().format(handed.task.attempt).as_bytes());
    text.push(b'}');
    splice::with(text, "checkpoint", handed.checkpoint.as_ref());
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/progress`.
pub(super) async fn progress(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    JsonBody(ProgressBody { progress, checkpoint }): JsonBody<ProgressBody>,
) -> Result<Response, Problem> {
    let (task_id, attempt) = attempt_of(path)?;
    let cancel_requested = hub.progress(task_id, attempt, progress, checkpoint).await?;
    Ok(splice::json_of(&AttemptAnswer { cancel_requested }))
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/log`.
pub(super) async fn log(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    JsonBody(LogBody { lines }): JsonBody<LogBody>,
) -> Result<Response, Problem> {
    let (task_id, attempt) = attempt_of(path)?;
    let cancel_requested = hub.log(task_id, attempt, accepts::lines(lines)).await?;
    Ok(splice::json_of(&AttemptAnswer { cancel_requested }))
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/complete`.
pub(super) async fn complete(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    JsonBody(CompleteBody { result }): JsonBody<CompleteBody>,
) -> Result<Response, Problem> {
    report(&hub, path, accepts::complete(result)).await
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/fail`.
pub(super) async fn fail(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    JsonBody(body): JsonBody<FailBody>,
) -> Result<Response, Problem> {
    report(&hub, path, accepts::fail(body)).await
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/cancelled`.
pub(super) async fn cancelled(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    OptionalBody(NoBody {}): OptionalBody<NoBody>,
) -> Result<Response, Problem> {
    report(&hub, path, Report::Cancelled).await
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/release`.
pub(super) async fn release(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    OptionalBody(NoBody {}): OptionalBody<NoBody>,
) -> Result<Response, Problem> {
    report(&hub, path, Report::Release).await
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/heartbeat`.
pub(super) async fn heartbeat(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    OptionalBody(NoBody {}): OptionalBody<NoBody>,
) -> Result<Response, Problem> {
    report(&hub, path, Report::Heartbeat).await
}

async fn report(hub: &CallerHub, path: (String, String), report: Report) -> Result<Response, Problem> {
    let (task_id, attempt) = attempt_of(path)?;
    let cancel_requested = hub.report(task_id, attempt, report).await?;
    Ok(splice::json_of(&AttemptAnswer { cancel_requested }))
}

/// The attempt a path names. A number that no attempt can have is one that is over.
pub(super) fn attempt_of((id, attempt): (String, String)) -> Result<(TaskId, u32), Problem> {
    let task_id = task_id(&id)?;
    match attempt.parse() {
        Ok(attempt) => Ok((task_id, attempt)),
        Err(_) if !attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(Refusal::LeaseLost.into())
        }
        Err(_) => Err(Problem::no_path()),
    }
}
