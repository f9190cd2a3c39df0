//! For those who run the hub: how much there is, who works, whether it is well.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::caller::Caller;
use super::query::NoQuery;
use super::splice;
use super::state::App;
use crate::access::Right;
use crate::hub::{Link, WorkerState};
use crate::telemetry::Depth;
use crate::wire::{Code, Held, Problem, WorkerList, WorkerView};

/// A feed that is further behind is no live stream any more: whoever looks at the hub from outside is to know. Ten times
/// what a page begins to complain of, and far beyond what a burst of commits costs.
const FEED_LAG_MAX: Duration = Duration::from_secs(10);

/// `GET /api/v1/stats`.
pub(super) async fn stats(Caller(hub): Caller, _: NoQuery) -> Result<Response, Problem> {
    Ok(splice::json_of(&hub.stats()?))
}

/// `GET /api/v1/workers`.
pub(super) async fn workers(Caller(hub): Caller, _: NoQuery) -> Result<Response, Problem> {
    let workers = hub.whole(Right::SeeHub)?.workers().await?.into_iter().map(worker_view).collect();
    Ok(splice::json_of(&WorkerList { workers }))
}

fn worker_view(worker: WorkerState) -> WorkerView {
    let held = |attempts: Vec<_>| attempts.into_iter().map(|(task_id, attempt)| Held { task_id, attempt }).collect();
    WorkerView {
        worker_id: worker.worker_id.as_str().to_owned(),
        task_types: worker.accepts.task_types.texts(),
        queues: worker.accepts.queues.texts(),
        concurrency: worker.concurrency,
        running: held(worker.running),
        stuck: held(worker.stuck),
        connected_at: worker.connected_at,
        last_heard_at: worker.last_heard_at,
        link: match worker.link {
            Link::Socket => "socket",
            Link::Http => "http",
            Link::Away => "away",
        }
        .to_owned(),
        draining: worker.retiring,
    }
}

/// `GET /healthz`: the program runs and answers.
pub(super) async fn healthz() -> Response {
    splice::json(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// `GET /readyz`: the hub takes new work, and tells of it.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.is_draining() {
        return Err(Problem::new(Code::Draining, "the hub is going down and takes no new work"));
    }
    app.storage().map_err(|why| Problem::new(Code::StorageUnavailable, why))?;
    keeps_up(app.feed_lag())?;
    Ok(splice::json(StatusCode::OK, r#"{"status":"ready"}"#))
}

/// Whether live clients hear of what happens while it matters.
fn keeps_up(lag: Duration) -> Result<(), Problem> {
    if lag <= FEED_LAG_MAX {
        return Ok(());
    }
    let detail = format!("the feed is behind: what was committed {} s ago is not told yet", lag.as_secs());
    Err(Problem::new(Code::Overloaded, detail))
}

/// `GET /metrics`, in the OpenMetrics text format that Prometheus reads.
pub(super) async fn metrics(State(app): State<Arc<App>>, Caller(hub): Caller) -> Result<Response, Problem> {
    let hub = hub.whole(Right::SeeHub)?;
    let (stats, metrics) = (hub.stats(), hub.metrics());
    let tasks = &stats.tasks;
    metrics.set_tasks([
        ("waiting", tasks.waiting),
        ("scheduled", tasks.scheduled),
        ("pending", tasks.pending),
        ("running", tasks.running),
        ("completed", tasks.completed),
        ("failed", tasks.failed),
        ("cancelled", tasks.cancelled),
    ]);
    let other = stats.queues_other.iter().map(|other| ("other", &other.counts));
    let queues = stats.queues.iter().map(|(queue, depth)| (queue.as_str(), depth));
    metrics.set_queues(queues.chain(other).map(|(queue, depth)| Depth {
        queue,
        waiting: depth.waiting,
        scheduled: depth.scheduled,
        pending: depth.pending,
        running: depth.running,
    }));
    let callbacks = hub.callback_counts();
    metrics.set_callbacks(callbacks.pending, callbacks.failed, Duration::from_millis(callbacks.oldest_ms));
    metrics.set_feed_lag(app.feed_lag());
    metrics.set_workers(stats.workers.unwrap_or_default());
    metrics.set_rev(stats.rev);
    metrics.set_refused(app.keys().refused());
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.render()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_is_far_behind_is_not_ready() {
        for ms in [0, 1_000, 10_000] {
            assert_eq!(keeps_up(Duration::from_millis(ms)), Ok(()));
        }
        let problem = keeps_up(Duration::from_millis(12_400)).unwrap_err();
        assert_eq!((problem.status, problem.code), (503, Code::Overloaded));
        assert_eq!(problem.detail, "the feed is behind: what was committed 12 s ago is not told yet");
    }
}
