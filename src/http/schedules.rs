//! Schedules: tasks that the hub submits by itself, again and again.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::JsonBody;
use super::caller::Caller;
use super::path::Path;
use super::query::{NoQuery, page_of_names};
use super::splice;
use super::state::App;
use crate::hub::Refusal;
use crate::task::Name;
use crate::wire::{Problem, SCHEDULES_LEN_MAX, ScheduleBody};

/// `GET /api/v1/schedules`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Caller(_): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (after, limit) = page_of_names(query.as_deref(), SCHEDULES_LEN_MAX)?;
    Ok(splice::json_of(&app.hub.schedules(after, limit).await?))
}

/// `GET /api/v1/schedules/{name}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Caller(_): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(splice::json_of(&app.hub.schedule(&known(&name)?).await?.ok_or(Refusal::ScheduleNotFound)?))
}

/// `PUT /api/v1/schedules/{name}`.
pub(super) async fn set(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<ScheduleBody>,
) -> Result<Response, Problem> {
    let name = Name::parse(&name).map_err(|why| Problem::wrong("name", &why.to_string()))?;
    let (schedule, is_new) = app.hub.set_schedule(&who, name, body.into()).await?;
    Ok((splice::made(is_new), splice::json_of(&schedule)).into_response())
}

/// `DELETE /api/v1/schedules/{name}`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    app.hub.delete_schedule(&who, known(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/schedules/{name}/run`.
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let task = app.hub.run_schedule(&who, known(&name)?).await?;
    let response = splice::json(StatusCode::CREATED, task.to_json());
    Ok(splice::located(response, format!("../../tasks/{}", task.task_id)))
}

/// `POST /api/v1/schedules/{name}/pause`.
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(splice::json_of(&app.hub.pause_schedule(&who, known(&name)?, true).await?))
}

/// `POST /api/v1/schedules/{name}/resume`.
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(splice::json_of(&app.hub.pause_schedule(&who, known(&name)?, false).await?))
}

/// The name in a path. What is no name names no schedule.
fn known(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_| Refusal::ScheduleNotFound.into())
}
