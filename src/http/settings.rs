//! What is set: queues, and limits of users.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::JsonBody;
use super::caller::Caller;
use super::path::Path;
use super::query::NoQuery;
use super::splice;
use super::state::App;
use crate::hub::Refusal;
use crate::settings::Limits;
use crate::task::Name;
use crate::wire::{BulkChanged, LimitsBody, Problem, Purged, QueueBody, QueueList};

/// `GET /api/v1/queues`.
pub(super) async fn queues(State(app): State<Arc<App>>, Caller(_): Caller, _: NoQuery) -> Response {
    splice::json_of(&QueueList { queues: app.hub.queues() })
}

/// `GET /api/v1/queues/{name}`.
pub(super) async fn queue(
    State(app): State<Arc<App>>,
    Caller(_): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(splice::json_of(&app.hub.queue(&known(&name)?).ok_or(Refusal::QueueNotFound)?))
}

/// `PUT /api/v1/queues/{name}`.
pub(super) async fn set_queue(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<QueueBody>,
) -> Result<Response, Problem> {
    let name = Name::parse(&name).map_err(|why| Problem::wrong("name", &why.to_string()))?;
    let (queue, is_new) = app.hub.set_queue(&who, name, body.into()).await?;
    Ok((splice::made(is_new), splice::json_of(&queue)).into_response())
}

/// `DELETE /api/v1/queues/{name}`.
pub(super) async fn unset_queue(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    app.hub.unset_queue(&who, known(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/queues/{name}/pause`.
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(splice::json_of(&app.hub.pause_queue(&who, known(&name)?, true).await?))
}

/// `POST /api/v1/queues/{name}/resume`.
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(splice::json_of(&app.hub.pause_queue(&who, known(&name)?, false).await?))
}

/// `POST /api/v1/queues/{name}/purge`.
pub(super) async fn purge(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let BulkChanged { matched, changed, .. } = app.hub.purge_queue(&who, known(&name)?).await?;
    Ok(splice::json_of(&Purged { matched, changed }))
}

/// `GET /api/v1/limits`.
pub(super) async fn limits(State(app): State<Arc<App>>, Caller(_): Caller, _: NoQuery) -> Response {
    splice::json_of(&app.hub.limits())
}

/// `PUT /api/v1/limits`.
pub(super) async fn set_limits(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    JsonBody(LimitsBody { user, users }): JsonBody<LimitsBody>,
) -> Result<Response, Problem> {
    let is_new = app.hub.set_limits(&who, Limits { user, users }).await?;
    Ok((splice::made(is_new), splice::json_of(&app.hub.limits())).into_response())
}

/// The name in a path. What is no name names no queue.
fn known(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_| Refusal::QueueNotFound.into())
}
