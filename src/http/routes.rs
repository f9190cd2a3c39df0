//! The whole URL table.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::door::DoorLayer;
use super::state::App;
use super::{
    access, callbacks, change, dashboard, docs, events, live, ops, read, results, schedules, settings, submit,
    task_types, worker_http, worker_socket, workflows,
};
use crate::access::Right;
use crate::wire::{Code, Problem};

/// Where the two WebSockets are.
pub(super) const LIVE_PATH: &str = "/api/v1/ws";
pub(super) const WORKER_PATH: &str = "/api/v1/worker/ws";
/// Where the hub's numbers are.
pub(super) const METRICS_PATH: &str = "/metrics";

/// What a caller needs for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nobody is asked who they are.
    Nothing,
    /// To be known, whoever that is; a socket asks for more in its own time.
    Known,
    Right(Right),
}

const NOTHING: Need = Need::Nothing;
const KNOWN: Need = Need::Known;
const SEE: Need = Need::Right(Right::See);
const WATCH: Need = Need::Right(Right::Watch);
const SUBMIT: Need = Need::Right(Right::Submit);
const CANCEL: Need = Need::Right(Right::Cancel);
const RETRY: Need = Need::Right(Right::Retry);
const CHANGE: Need = Need::Right(Right::Change);
const WORK: Need = Need::Right(Right::Work);
const SEE_SETTINGS: Need = Need::Right(Right::SeeSettings);
const CHANGE_SETTINGS: Need = Need::Right(Right::ChangeSettings);
const SEE_HUB: Need = Need::Right(Right::SeeHub);
const MINT: Need = Need::Right(Right::Mint);
const ADMINISTER: Need = Need::Right(Right::Administer);

/// A line of the table.
struct Entry {
    method: &'static str,
    path: &'static str,
    need: Need,
    handler: MethodRouter<Arc<App>>,
}

macro_rules! table {
    ($($method:ident $path:tt $need:ident $handler:path,)*) => {
        fn table() -> Vec<Entry> {
            vec![$(Entry {
                method: stringify!($method),
                path: $path,
                need: $need,
                handler: on(MethodFilter::$method, $handler),
            },)*]
        }
    };
}

table! {
    POST   "/api/v1/tasks"                                          SUBMIT           submit::one,
    POST   "/api/v1/tasks/batch"                                    SUBMIT           submit::batch,
    POST   "/api/v1/tasks/cancel"                                   CANCEL           change::cancel_many,
    POST   "/api/v1/tasks/retry"                                    RETRY            change::retry_many,
    POST   "/api/v1/tasks/delete"                                   CHANGE           change::delete_many,
    GET    "/api/v1/tasks"                                          WATCH            read::list,
    GET    "/api/v1/tasks/{id}"                                     SEE              read::one,
    PATCH  "/api/v1/tasks/{id}"                                     CHANGE           change::update,
    DELETE "/api/v1/tasks/{id}"                                     CHANGE           change::delete,
    GET    "/api/v1/tasks/{id}/result"                              SEE              read::result,
    GET    "/api/v1/tasks/{id}/history"                             SEE              read::history,
    GET    "/api/v1/tasks/{id}/logs"                                SEE              read::logs,
    POST   "/api/v1/tasks/{id}/cancel"                              CANCEL           change::cancel,
    POST   "/api/v1/tasks/{id}/retry"                               RETRY            change::retry,

    POST   "/api/v1/workflows"                                      SUBMIT           workflows::submit,
    GET    "/api/v1/workflows/{id}"                                 SEE              workflows::one,

    GET    LIVE_PATH                                                KNOWN            live::connect,
    GET    "/api/v1/events"                                         WATCH            events::connect,

    GET    WORKER_PATH                                              KNOWN            worker_socket::connect,
    POST   "/api/v1/worker/claim"                                   WORK             worker_http::claim,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/progress"         WORK             worker_http::progress,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/log"              WORK             worker_http::log,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/complete"         WORK             worker_http::complete,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/fail"             WORK             worker_http::fail,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/cancelled"        WORK             worker_http::cancelled,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/release"          WORK             worker_http::release,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/heartbeat"        WORK             worker_http::heartbeat,
    POST   "/api/v1/tasks/{id}/attempts/{attempt}/spawn"            WORK             workflows::spawn,
    PUT    "/api/v1/tasks/{id}/attempts/{attempt}/result"           WORK             results::put,

    GET    "/api/v1/queues"                                         SEE_SETTINGS     settings::queues,
    GET    "/api/v1/queues/{name}"                                  SEE_SETTINGS     settings::queue,
    PUT    "/api/v1/queues/{name}"                                  CHANGE_SETTINGS  settings::set_queue,
    DELETE "/api/v1/queues/{name}"                                  CHANGE_SETTINGS  settings::unset_queue,
    POST   "/api/v1/queues/{name}/pause"                            CHANGE_SETTINGS  settings::pause,
    POST   "/api/v1/queues/{name}/resume"                           CHANGE_SETTINGS  settings::resume,
    POST   "/api/v1/queues/{name}/purge"                            CHANGE_SETTINGS  settings::purge,
    GET    "/api/v1/limits"                                         SEE_SETTINGS     settings::limits,
    PUT    "/api/v1/limits"                                         CHANGE_SETTINGS  settings::set_limits,

    GET    "/api/v1/schedules"                                      SEE_SETTINGS     schedules::list,
    GET    "/api/v1/schedules/{name}"                               SEE_SETTINGS     schedules::one,
    PUT    "/api/v1/schedules/{name}"                               CHANGE_SETTINGS  schedules::set,
    DELETE "/api/v1/schedules/{name}"                               CHANGE_SETTINGS  schedules::delete,
    POST   "/api/v1/schedules/{name}/run"                           CHANGE_SETTINGS  schedules::run,
    POST   "/api/v1/schedules/{name}/pause"                         CHANGE_SETTINGS  schedules::pause,
    POST   "/api/v1/schedules/{name}/resume"                        CHANGE_SETTINGS  schedules::resume,

    GET    "/api/v1/callbacks"                                      SEE_HUB          callbacks::list,
    GET    "/api/v1/callbacks/{id}"                                 SEE_HUB          callbacks::one,
    POST   "/api/v1/callbacks/{id}/retry"                           CHANGE_SETTINGS  callbacks::retry,

    GET    "/api/v1/task-types"                                     SEE_SETTINGS     task_types::list,
    GET    "/api/v1/task-types/{name}"                              SEE_SETTINGS     task_types::one,
    PUT    "/api/v1/task-types/{name}"                              CHANGE_SETTINGS  task_types::set,
    DELETE "/api/v1/task-types/{name}"                              CHANGE_SETTINGS  task_types::delete,

    GET    "/api/v1/me"                                             KNOWN            access::me,
    POST   "/api/v1/tickets"                                        KNOWN            access::ticket,
    POST   "/api/v1/tokens"                                         MINT             access::mint,
    DELETE "/api/v1/tokens/{jti}"                                   MINT             access::revoke_scoped,
    POST   "/api/v1/revocations"                                    ADMINISTER       access::revoke_subject,
    GET    "/api/v1/api-tokens"                                     ADMINISTER       access::api_tokens,
    POST   "/api/v1/api-tokens"                                     ADMINISTER       access::make_api_token,
    DELETE "/api/v1/api-tokens/{name}"                              ADMINISTER       access::revoke_api_token,
    GET    "/api/v1/audit"                                          ADMINISTER       access::audit,

    GET    "/api/v1/stats"                                          WATCH            ops::stats,
    GET    "/api/v1/workers"                                        SEE_HUB          ops::workers,

    GET    "/healthz"                                               NOTHING          ops::healthz,
    GET    "/readyz"                                                NOTHING          ops::readyz,
    GET    METRICS_PATH                                             SEE_HUB          ops::metrics,
    GET    "/api/openapi.json"                                      NOTHING          docs::openapi,
    GET    "/api/asyncapi.json"                                     NOTHING          docs::asyncapi,
    GET    "/api/docs"                                              NOTHING          docs::to_page,
    GET    "/api/docs/"                                             NOTHING          docs::page,
    GET    "/api/docs/{file}"                                       NOTHING          docs::page_file,
    GET    "/"                                                      NOTHING          dashboard::index,
}

/// What a caller needs for a route of the table.
pub(super) fn need(method: &Method, path: &str) -> Option<Need> {
    static NEEDS: LazyLock<HashMap<(&str, &str), Need>> =
        LazyLock::new(|| table().into_iter().map(|entry| ((entry.path, entry.method), entry.need)).collect());
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    // The keys live as long as the program, and what is asked for does not.
    NEEDS.get(&(path, method)).copied()
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
