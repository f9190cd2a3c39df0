//! Tasks that belong together.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use super::caller::Caller;
use super::path::Path;
use super::query::NoQuery;
use super::read::task_id;
use super::share;
use super::splice;
use super::state::App;
use super::submit::{not_empty, read_once, taken};
use super::worker_http::attempt_of;
use crate::hub::Submitted;
use crate::task::{Json, NewWorkflow, Spawner, TaskId};
use crate::wire::{BatchBody, Code, Problem};

/// `POST /api/v1/workflows`.
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let bytes_max = app.limits.batch_bytes_max();
    let (key, workflow) = read_once::<NewWorkflow>(&app, hub.who(), "workflows", request, bytes_max).await?;
    let Submitted { task_ids, records, replayed, .. } =
        share::spending(&app, &hub, async { Ok(hub.submit_workflow(workflow, key).await?) }).await?;
    let (Some(task_id), Some((record, tasks))) = (task_ids.first(), records.split_first()) else {
        return Err(Problem::new(Code::Internal, "the submission left no task"));
    };
    let response = splice::json(splice::made(!replayed), whole(record, tasks));
    Ok(splice::located(response, format!("workflows/{task_id}")))
}

/// `GET /api/v1/workflows/{id}`.
pub(super) async fn one(Caller(hub): Caller, _: NoQuery, Path(id): Path<String>) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::WorkflowNotFound, "there is no such workflow");
    let id = task_id(&id).map_err(|_| missing())?;
    let workflow = hub.workflow(id).await?.ok_or_else(missing)?;
    let mut text = whole(&workflow.record, &workflow.tasks);
    splice::with(&mut text, "edges", Json::of(&workflow.edges).ok().as_ref());
    Ok(splice::json(StatusCode::OK, text))
}

/// `POST /api/v1/tasks/{id}/attempts/{attempt}/spawn`.
pub(super) async fn spawn(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (task_id, attempt) = attempt_of(path)?;
    let (route, bytes_max) = (spawn_route(task_id), app.limits.batch_bytes_max());
    let (key, BatchBody { tasks }) = read_once(&app, hub.who(), route, request, bytes_max).await?;
    not_empty(&tasks)?;
    let Submitted { records, existing, replayed, .. } = hub.spawn(Spawner { task_id, attempt }, tasks, key).await?;
    Ok(taken(replayed, &existing, records))
}

/// Where keys of tasks that an attempt adds belong. They are the task's: what an attempt added and its worker never heard of is
/// not added again by the next one.
pub(super) fn spawn_route(task_id: TaskId) -> String {
    format!("tasks/{task_id}/spawn")
}

/// A workflow and its tasks.
fn whole(record: &Bytes, tasks: &[Bytes]) -> Vec<u8> {
    let mut text = Vec::with_capacity(tasks.iter().map(|task| task.len() + 1).sum::<usize>() + record.len() + 64);
    splice::list(&mut text, "tasks", tasks.iter());
    splice::with(&mut text, "workflow", Some(&Json::trusted(record.clone())));
    text
}
