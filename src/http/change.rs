//! What people do to a task: change, cancel, retry, delete.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::{JsonBody, OptionalBody};
use super::caller::Caller;
use super::path::Path;
use super::query::NoQuery;
use super::read::{record, task_id};
use super::state::App;
use crate::task::{Status, TaskPatch};
use crate::wire::{CancelBody, Problem, RetryBody};

/// `POST /api/v1/tasks/{id}/cancel`.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(id): Path<String>,
    OptionalBody(CancelBody { reason }): OptionalBody<CancelBody>,
) -> Result<Response, Problem> {
    let task = app.hub.cancel_as(&who, task_id(&id)?, reason).await?;
    let status = if task.status == Status::Cancelled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(record(status, task.to_json()))
}

/// `POST /api/v1/tasks/{id}/retry`.
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(id): Path<String>,
    OptionalBody(RetryBody { payload }): OptionalBody<RetryBody>,
) -> Result<Response, Problem> {
    let task = app.hub.retry_as(&who, task_id(&id)?, payload).await?;
    Ok(record(StatusCode::OK, task.to_json()))
}

/// `PATCH /api/v1/tasks/{id}`.
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(id): Path<String>,
    JsonBody(patch): JsonBody<TaskPatch>,
) -> Result<Response, Problem> {
    let task = app.hub.update_as(&who, task_id(&id)?, patch).await?;
    Ok(record(StatusCode::OK, task.to_json()))
}

/// `DELETE /api/v1/tasks/{id}`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    app.hub.delete_as(&who, task_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
