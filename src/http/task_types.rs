//! Declared task types: what new tasks take from them, and what their payloads must fit.

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
use crate::wire::{Problem, TASK_TYPES_LEN_MAX, TaskTypeBody};

/// `GET /api/v1/task-types`.
pub(super) async fn list(Caller(hub): Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (after, limit) = page_of_names(query.as_deref(), TASK_TYPES_LEN_MAX)?;
    Ok(splice::json_of(&hub.task_types(after, limit)))
}

/// `GET /api/v1/task-types/{name}`.
pub(super) async fn one(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.task_type(&known(&name)?).ok_or(Refusal::TaskTypeNotFound)?))
}

/// `PUT /api/v1/task-types/{name}`.
pub(super) async fn set(
    Caller(hub): Caller,
    _: NoQuery,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<TaskTypeBody>,
) -> Result<Response, Problem> {
    let name = Name::parse(&name).map_err(|why| Problem::wrong("name", &why.to_string()))?;
    let (task_type, is_new) = hub.whole(Right::ChangeSettings)?.set_task_type(name, body.into()).await?;
    Ok((splice::made(is_new), splice::json_of(&task_type)).into_response())
}

/// `DELETE /api/v1/task-types/{name}`.
pub(super) async fn delete(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    hub.whole(Right::ChangeSettings)?.delete_task_type(known(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The name in a path. What is no name names no type.
fn known(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_| Refusal::TaskTypeNotFound.into())
}
