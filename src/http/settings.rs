//! What is set: queues, and limits of users.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::JsonBody;
use super::caller::Caller;
use super::path::Path;
use super::query::NoQuery;
use super::splice;
use crate::access::Right;
use crate::hub::Refusal;
use crate::settings::Limits;
use crate::task::Name;
use crate::wire::{BulkChanged, LimitsBody, Problem, Purged, QueueBody, QueueList};

/// `GET /api/v1/queues`.
pub(super) async fn queues(Caller(hub): Caller, _: NoQuery) -> Response {
    splice::json_of(&QueueList { queues: hub.queues() })
}

/// `GET /api/v1/queues/{name}`.
pub(super) async fn queue(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.queue(&known(&name)?).ok_or(Refusal::QueueNotFound)?))
}

/// `PUT /api/v1/queues/{name}`.
pub(super) async fn set_queue(
    Caller(hub): Caller,
    _: NoQuery,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<QueueBody>,
) -> Result<Response, Problem> {
    let name = Name::parse(&name).map_err(|why| Problem::wrong("name", &why.to_string()))?;
    let (queue, is_new) = hub.whole(Right::ChangeSettings)?.set_queue(name, body.into()).await?;
    Ok((splice::made(is_new), splice::json_of(&queue)).into_response())
}

/// `DELETE /api/v1/queues/{name}`.
pub(super) async fn unset_queue(
    Caller(hub): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    hub.whole(Right::ChangeSettings)?.unset_queue(known(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/queues/{name}/pause`.
pub(super) async fn pause(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.whole(Right::ChangeSettings)?.pause_queue(known(&name)?, true).await?))
}

/// `POST /api/v1/queues/{name}/resume`.
pub(super) async fn resume(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.whole(Right::ChangeSettings)?.pause_queue(known(&name)?, false).await?))
}

/// `POST /api/v1/queues/{name}/purge`.
pub(super) async fn purge(Caller(hub): Caller, _: NoQuery, Path(name): Path<String>) -> Result<Response, Problem> {
    let BulkChanged { matched, changed, .. } = hub.whole(Right::ChangeSettings)?.purge_queue(known(&name)?).await?;
    Ok(splice::json_of(&Purged { matched, changed }))
}

/// `GET /api/v1/limits`.
pub(super) async fn limits(Caller(hub): Caller, _: NoQuery) -> Response {
    splice::json_of(&hub.limits())
}

/// `PUT /api/v1/limits`.
pub(super) async fn set_limits(
    Caller(hub): Caller,
    _: NoQuery,
    JsonBody(LimitsBody { user, users }): JsonBody<LimitsBody>,
) -> Result<Response, Problem> {
    let is_new = hub.whole(Right::ChangeSettings)?.set_limits(Limits { user, users }).await?;
    Ok((splice::made(is_new), splice::json_of(&hub.limits())).into_response())
}

/// The name in a path. What is no name names no queue.
fn known(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_| Refusal::QueueNotFound.into())
}
