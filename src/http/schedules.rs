//! Schedules: tasks that the hub submits by itself, again and again.

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::JsonBody;
use super::caller::Caller;
use super::path::Path;
use super::query::{NoQuery, page_of_names};
use super::splice;
use crate::access::Right;
use crate::hub::Refusal;
use crate::task::Name;
use crate::wire::{Problem, SCHEDULES_LEN_MAX, ScheduleBody};

/// `GET /api/v1/schedules`.
pub(super) async fn list(Caller(hub): Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (after, limit) = page_of_names(query.as_deref(), SCHEDULES_LEN_MAX)?;
    Ok(splice::json_of(&hub.schedules(after, limit).await?))
}

/// `GET /api/v1/schedules/{name}`.
pub(super) async fn one(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.schedule(&known(&name)?).await?.ok_or(Refusal::ScheduleNotFound)?))
}

/// `PUT /api/v1/schedules/{name}`.
pub(super) async fn set(
    Caller(hub): Caller,
    _: NoQuery,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<ScheduleBody>,
) -> Result<Response, Problem> {
    let name = Name::parse(&name).map_err(|why| Problem::wrong("name", &why.to_string()))?;
    let (schedule, is_new) = hub.whole(Right::ChangeSettings)?.set_schedule(name, body.into()).await?;
    Ok((splice::made(is_new), splice::json_of(&schedule)).into_response())
}

/// `DELETE /api/v1/schedules/{name}`.
pub(super) async fn delete(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    hub.whole(Right::ChangeSettings)?.delete_schedule(known(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/schedules/{name}/run`.
pub(super) async fn run(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    let task = hub.whole(Right::ChangeSettings)?.run_schedule(known(&name)?).await?;
    let response = splice::json(StatusCode::CREATED, task.to_json());
    Ok(splice::located(response, format!("../../tasks/{}", task.task_id)))
}

/// `POST /api/v1/schedules/{name}/pause`.
pub(super) async fn pause(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.whole(Right::ChangeSettings)?.pause_schedule(known(&name)?, true).await?))
}

/// `POST /api/v1/schedules/{name}/resume`.
pub(super) async fn resume(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.whole(Right::ChangeSettings)?.pause_schedule(known(&name)?, false).await?))
}

/// The name in a path. What is no name names no schedule.
fn known(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_| Refusal::ScheduleNotFound.into())
}
