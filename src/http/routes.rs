//! The whole URL table.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::door::DoorLayer;
use super::state::App;
use super::{
    callbacks, change, dashboard, docs, events, live, ops, read, results, schedules, settings, submit, task_types,
    worker_http, worker_socket, workflows,
};
use crate::wire::{Code, Problem};

/// Where the two WebSockets are.
pub(super) const LIVE_PATH: &str = "/api/v1/ws";
pub(super) const WORKER_PATH: &str = "/api/v1/worker/ws";

/// A line of the table.
struct Entry {
    #[cfg(test)]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Arc<App>>,
}

macro_rules! table {
    ($($method:ident $path:tt $handler:path,)*) => {
        fn table() -> Vec<Entry> {
            vec![$(Entry {
                #[cfg(test)]
                method: stringify!($method),
                path: $path,
                handler: on(MethodFilter::$method, $handler),
            },)*]
        }
    };
}

table! {
    POST   "/api/v1/tasks"                                  submit::one,
    POST   "/api/v1/tasks/batch"                            submit::batch,
    POST   "/api/v1/tasks/cancel"                           change::cancel_many,
    POST   "/api/v1/tasks/retry"                            change::retry_many,
    POST   "/api/v1/tasks/delete"                           change::delete_many,
    GET    "/api/v1/tasks"                                  read::list,
    GET    "/api/v1/tasks/{id}"                             read::one,
    PATCH  "/api/v1/tasks/{id}"                             change::update,
    DELETE "/api/v1/tasks/{id}"                             change::delete,
    GET    "/api/v1/tasks/{id}/result"                      read::result,
    GET    "/api/v1/tasks/{id}/history"                     read::history,
    GET    "/api/v1/tasks/{id}/logs"                        read::logs,
    POST   "/api/v1/tasks/{id}/cancel"                      change::cancel,
    POST   "/api/v1/tasks/{id}/retry"                       change::retry,

    POST   "/api/v1/workflows"                              workflows::submit,
    GET    "/api/v1/workflows/{id}"                         workflows::one,

    GET    LIVE_PATH                                        live::connect,
    GET    "/api/v1/events"                                 events::connect,

    GET    WORKER_PATH                                      worker_socket::connect,
    POST   "/api/v1/worker/claim"                           worker_http::claim,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/progress"  worker_http::progress,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/log"       worker_http::log,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/complete"  worker_http::complete,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/fail"      worker_http::fail,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/cancelled" worker_http::cancelled,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/release"   worker_http::release,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/heartbeat" worker_http::heartbeat,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/spawn"     workflows::spawn,
    PUT    "/api/v1/tasks/{id}/attempts/{attempt}/result"    results::put,

    GET    "/api/v1/queues"                                 settings::queues,
    GET    "/api/v1/queues/{name}"                          settings::queue,
    PUT    "/api/v1/queues/{name}"                          settings::set_queue,
    DELETE "/api/v1/queues/{name}"                          settings::unset_queue,
    POST   "/api/v1/queues/{name}/pause"                    settings::pause,
    POST   "/api/v1/queues/{name}/resume"                   settings::resume,
    POST   "/api/v1/queues/{name}/purge"                    settings::purge,
    GET    "/api/v1/limits"                                 settings::limits,
    PUT    "/api/v1/limits"                                 settings::set_limits,

    GET    "/api/v1/schedules"                              schedules::list,
    GET    "/api/v1/schedules/{name}"                       schedules::one,
    PUT    "/api/v1/schedules/{name}"                       schedules::set,
    DELETE "/api/v1/schedules/{name}"                       schedules::delete,
    POST   "/api/v1/schedules/{name}/run"                   schedules::run,
    POST   "/api/v1/schedules/{name}/pause"                 schedules::pause,
    POST   "/api/v1/schedules/{name}/resume"                schedules::resume,

    GET    "/api/v1/callbacks"                              callbacks::list,
    GET    "/api/v1/callbacks/{id}"                         callbacks::one,
    POST   "/api/v1/callbacks/{id}/retry"                   callbacks::retry,

    GET    "/api/v1/task-types"                             task_types::list,
    GET    "/api/v1/task-types/{name}"                      task_types::one,
    PUT    "/api/v1/task-types/{name}"                      task_types::set,
    DELETE "/api/v1/task-types/{name}"                      task_types::delete,

    GET    "/api/v1/stats"                                  ops::stats,
    GET    "/api/v1/workers"                                ops::workers,

    GET    "/healthz"                                       ops::healthz,
    GET    "/readyz"                                        ops::readyz,
    GET    "/metrics"                                       ops::metrics,
    GET    "/api/openapi.json"                              docs::openapi,
    GET    "/api/asyncapi.json"                             docs::asyncapi,
    GET    "/api/docs"                                      docs::to_page,
    GET    "/api/docs/"                                     docs::page,
    GET    "/api/docs/{file}"                               docs::page_file,
    GET    "/"                                              dashboard::index,
}

/// Every route of a hub, behind its door.
pub fn router(app: Arc<App>) -> Router {
    let router = table().into_iter().fold(Router::new(), |router, entry| router.route(entry.path, entry.handler));
    let router = router.fallback(dashboard::file_or_nothing).method_not_allowed_fallback(wrong_method);
    router.with_state(app.clone()).layer(DoorLayer(app))
}

/// The header `Allow` is put there by the router.
async fn wrong_method(method: Method) -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        format!("this path does not take {method}; the header Allow says what it takes"),
    )
}

/// Every method and path of the table.
#[cfg(test)]
pub(super) fn listed() -> Vec<(&'static str, &'static str)> {
    table().into_iter().map(|entry| (entry.method, entry.path)).collect()
}
