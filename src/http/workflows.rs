//! Tasks that belong together.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use super::body::read_json;
use super::caller::Caller;
use super::path::Path;
use super::query::NoQuery;
use super::read::task_id;
use super::splice;
use super::state::App;
use super::submit::{KEY_HEADER, created, not_empty, read_once, taken};
use super::worker_http::attempt_of;
use crate::hub::Submitted;
use crate::task::{Json, NewWorkflow, Spawner};
use crate::wire::{BatchBody, Code, Problem};

/// `POST /api/v1/workflows`.
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let key = request.headers().get(KEY_HEADER).cloned();
    let arrived = read_json(&app, request, app.limits.batch_bytes_max()).await?;
    let (key, workflow) = arrived.with(&app, read_once::<NewWorkflow>(&who, "workflows", key)).await?;
    let Submitted { task_ids, records, replayed, .. } = app.hub.submit_workflow(&who, workflow, key).await?;
    let (Some(task_id), Some((record, tasks))) = (task_ids.first(), records.split_first()) else {
        return Err(Problem::new(Code::Internal, "the submission left no task"));
    };
    let location = HeaderValue::try_from(format!("workflows/{task_id}")).expect("an id is plain text");
    let mut response = splice::json(created(!replayed), whole(record, tasks));
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `GET /api/v1/workflows/{id}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Caller(_): Caller,
    _: NoQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::WorkflowNotFound, "there is no such workflow");
    let id = task_id(&id).map_err(|_| missing())?;
    let workflow = app.hub.workflow(id).await?.ok_or_else(missing)?;
    let mut text = whole(&workflow.record, &workflow.tasks);
    splice::with(&mut text, "edges", Json::of(&workflow.edges).ok().as_ref());
    Ok(splice::json(StatusCode::OK, text))
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/spawn`.
pub(super) async fn spawn(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (task_id, attempt) = attempt_of(path)?;
    let key = request.headers().get(KEY_HEADER).cloned();
    let arrived = read_json(&app, request, app.limits.batch_bytes_max()).await?;
    // Of the task: what an attempt added and its worker never heard of is not added again by the next one.
    let read = read_once(&who, format!("tasks/{task_id}/spawn"), key);
    let (key, BatchBody { tasks }) = arrived.with(&app, read).await?;
    not_empty(&tasks)?;
    let Submitted { records, existing, replayed, .. } =
        app.hub.spawn(&who, Spawner { task_id, attempt }, tasks, key).await?;
    Ok(taken(replayed, &existing, records))
}

/// A workflow and its tasks.
fn whole(record: &Bytes, tasks: &[Bytes]) -> Vec<u8> {
    let mut text = Vec::with_capacity(tasks.iter().map(|task| task.len() + 1).sum::<usize>() + record.len() + 64);
    splice::list(&mut text, "tasks", tasks.iter());
    splice::with(&mut text, "workflow", Some(&Json::trusted(record.clone())));
    text
}
