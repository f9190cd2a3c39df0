//! What people do to a task: change, cancel, retry, delete.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::{JsonBody, OptionalBody};
use super::caller::Caller;
use super::gate::while_known;
use super::path::Path;
use super::query::NoQuery;
use super::read::{record, task_id};
use super::splice;
use super::state::App;
use crate::hub::{BULK_MAX, BulkAction, CallerHub};
use crate::task::{Status, TaskPatch};
use crate::wire::{BulkBody, CancelBody, Problem, RetryBody};

const ENDED_MEANWHILE: &str =
    "the caller's token ended before all tasks were looked at; what was changed by then stays so";

/// `POST /api/v1/tasks/{id}/cancel`.
pub(super) async fn cancel(
    Caller(hub): Caller,
    _: NoQuery,
    Path(id): Path<String>,
    OptionalBody(CancelBody { reason }): OptionalBody<CancelBody>,
) -> Result<Response, Problem> {
    let (status, task) = hub.cancel(task_id(&id)?, reason).await?;
    let status = if status == Status::Cancelled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(record(status, task))
}

/// `POST /api/v1/tasks/{id}/retry`.
pub(super) async fn retry(
    Caller(hub): Caller,
    _: NoQuery,
    Path(id): Path<String>,
    OptionalBody(RetryBody { payload }): OptionalBody<RetryBody>,
) -> Result<Response, Problem> {
    let task = hub.retry(task_id(&id)?, payload).await?;
    Ok(record(StatusCode::OK, task))
}

/// `POST /api/v1/tasks/cancel`.
pub(super) async fn cancel_many(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(body): JsonBody<BulkBody>,
) -> Result<Response, Problem> {
    many(&app, &hub, BulkAction::Cancel, body).await
}

/// `POST /api/v1/tasks/retry`.
pub(super) async fn retry_many(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(body): JsonBody<BulkBody>,
) -> Result<Response, Problem> {
    many(&app, &hub, BulkAction::Retry, body).await
}

/// `POST /api/v1/tasks/delete`.
pub(super) async fn delete_many(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(body): JsonBody<BulkBody>,
) -> Result<Response, Problem> {
    many(&app, &hub, BulkAction::Delete, body).await
}

/// What is done for a caller ends with them: what was changed by then stays so.
async fn many(app: &App, hub: &CallerHub, action: BulkAction, body: BulkBody) -> Result<Response, Problem> {
    let BulkBody { filter, dry_run, reason } = body;
    if reason.is_some() && action != BulkAction::Cancel {
        return Err(Problem::wrong("reason", "must stand where tasks are cancelled only"));
    }
    let filter = filter.checked().map_err(|invalid| Problem::from(invalid.within("filter")))?;
    let changed = while_known(app, hub.who(), hub.bulk(action, filter, reason, dry_run, BULK_MAX)).await;
    let changed = changed.map_err(|problem| Problem { detail: ENDED_MEANWHILE.into(), ..problem })?;
    Ok(splice::json_of(&changed?))
}

/// `PATCH /api/v1/tasks/{id}`.
pub(super) async fn update(
    Caller(hub): Caller,
    _: NoQuery,
    Path(id): Path<String>,
    JsonBody(patch): JsonBody<TaskPatch>,
) -> Result<Response, Problem> {
    let task = hub.update(task_id(&id)?, patch).await?;
    Ok(record(StatusCode::OK, task))
}

/// `DELETE /api/v1/tasks/{id}`.
pub(super) async fn delete(Caller(hub): Caller, _: NoQuery, Path(id): Path<String>) -> Result<Response, Problem> {
    hub.delete(task_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
