//! Callbacks that are owed or were given up.

use axum::extract::RawQuery;
use axum::response::Response;

use super::caller::Caller;
use super::cursor;
use super::path::Path;
use super::query::{NoQuery, Params};
use super::read::{PAGE_LEN, PAGE_LEN_MAX};
use super::splice;
use crate::access::Right;
use crate::hub::DeliveryQuery;
use crate::task::{DeliveryId, DeliveryStatus, TaskId};
use crate::wire::{CallbackList, CallbackView, Code, Problem};

/// `GET /api/v1/callbacks`.
pub(super) async fn list(Caller(hub): Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let list = cursor::list_of(query.as_deref());
    let mut params = Params::of(query.as_deref())?;
    let status = params.text("status").map(|word| {
        DeliveryStatus::parse(&word).ok_or_else(|| Problem::wrong("status", "must be pending or failed").in_filter())
    });
    let task_id = params.text("task_id").map(|text| {
        text.parse::<TaskId>().map_err(|_| Problem::wrong("task_id", "must be the id of a task").in_filter())
    });
    let query = DeliveryQuery {
        status: status.transpose()?,
        task_id: task_id.transpose()?,
        beyond: params.text("cursor").map(|text| cursor::decode(&text, &list)).transpose()?.map(id_of),
        limit: params.number("limit", 1, PAGE_LEN_MAX)?.unwrap_or(PAGE_LEN) as usize,
    };
    params.finish()?;
    let page = hub.whole(Right::SeeHub)?.deliveries(query).await?;
    let last = page.deliveries.last().filter(|_| page.more);
    let next_cursor = last.map(|last| cursor::encode(TaskId::from_bytes(*last.id.as_bytes()), &list));
    let callbacks = page.deliveries.into_iter().map(CallbackView::from).collect();
    Ok(splice::json_of(&CallbackList { callbacks, next_cursor }))
}

/// Cursors are made of the ids of any list.
fn id_of(place: TaskId) -> DeliveryId {
    DeliveryId::from_bytes(*place.as_bytes())
}

/// `GET /api/v1/callbacks/{id}`.
pub(super) async fn one(Caller(hub): Caller, _: NoQuery, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = hub.whole(Right::SeeHub)?.delivery(known(&id)?).await?.ok_or_else(not_found)?;
    Ok(splice::json_of(&CallbackView::from(found)))
}

/// `POST /api/v1/callbacks/{id}/retry`.
pub(super) async fn retry(Caller(hub): Caller, _: NoQuery, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = hub.whole(Right::ChangeSettings)?.retry_delivery(known(&id)?).await?.ok_or_else(not_found)?;
    Ok(splice::json_of(&CallbackView::from(found)))
}

/// The id in a path. What is no id is that of no callback.
fn known(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map_err(|_| not_found())
}

fn not_found() -> Problem {
    Problem::new(
        Code::CallbackNotFound,
        "no callback that is owed or was given up has this id; one that arrived is not kept",
    )
}
