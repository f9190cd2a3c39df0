//! The calls against a hub in memory, without sockets between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Request, header};
use futures::FutureExt;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::state::open_keys;
use super::{App, router};
use crate::config::ServeConfig;
use crate::hub::Hub;

/// A hub and its routes.
struct Api {
    hub: Hub,
    app: Arc<App>,
    router: Router,
}

/// What came back.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
    raw: String,
}

impl Api {
    fn start() -> Api {
        Api::with(ServeConfig::for_trial())
    }

    fn with(config: ServeConfig) -> Api {
        let store = Box::new(crate::store::in_memory().unwrap());
        let hub = Hub::start(store, config.hub_options()).unwrap();
        let app =
            App::new(hub.clone(), open_keys(), config.door().unwrap(), config.http_limits(), config.live_limits());
        Api { router: router(app.clone()), app, hub }
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let raw = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, raw }
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path).await
    }

    async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.post_with(path, body, &[]).await
    }

    async fn post_with(&self, path: &str, body: impl ToString, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method("POST").uri(path).header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Submits a task and answers its id.
    async fn submit(&self, body: Value) -> String {
        self.post("/api/v1/tasks", body).await.expect(201).text("task_id")
    }

    /// Claims one task over HTTP and answers its path with the attempt.
    async fn claim(&self) -> String {
        let claimed = self.post("/api/v1/worker/claim", json!({"worker_id": "w1"})).await.expect(200);
        let task = &claimed.body["tasks"][0];
        let (id, attempt) = (task["task"]["task_id"].as_str().unwrap(), task["attempt"].as_u64().unwrap());
        format!("/api/v1/tasks/{id}/attempts/{attempt}")
    }
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> &Answer {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.body["status"], status);
        self
    }

    #[track_caller]
    fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no text {field} in {}", self.body)).to_owned()
    }
}

#[tokio::test]
async fn a_task_from_submit_to_deletion() {
    let api = Api::start();
    let submitted = api
        .post("/api/v1/tasks", r#"{"task_type":"report","title":"Nightly","payload":{"b" : 1.0}}"#)
        .await
        .expect(201);
    let id = submitted.text("task_id");
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(submitted.headers[header::LOCATION], format!("tasks/{id}"));
    assert_eq!(submitted.body["status"], "pending");

    let got = api.get(&path).await.expect(200);
    assert_eq!(got.body["payload"], json!({"b": 1.0}));
    assert_eq!(got.body["title"], "Nightly");
    api.get(&format!("{path}/result")).await.problem(409, "task_not_finished");
    api.call("DELETE", &path).await.problem(409, "task_not_finished");
    api.post(&format!("{path}/retry"), "").await.problem(409, "task_not_finished");

    let cancelled = api.post(&format!("{path}/cancel"), json!({"reason": "not needed"})).await.expect(200);
    assert_eq!(cancelled.body["status"], "cancelled");
    api.call("POST", &format!("{path}/cancel")).await.problem(409, "task_finished");
    assert_eq!(api.call("POST", &format!("{path}/retry")).await.expect(200).body["status"], "pending");
    api.call("POST", &format!("{path}/cancel")).await.expect(200);
    let history = api.get(&format!("{path}/history")).await.expect(200);
    let events: Vec<_> =
        history.body["transitions"].as_array().unwrap().iter().map(|t| t["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["task.created", "task.cancelled", "task.retrying", "task.cancelled"]);

    api.call("DELETE", &path).await.expect(204);
    for gone in ["", "/result", "/history", "/logs"] {
        api.get(&format!("{path}{gone}")).await.problem(404, "task_not_found");
    }
}

#[tokio::test]
async fn payloads_come_back_byte_for_byte() {
    let api = Api::start();
    let payload = "{\"b\" : 1.0e3,\n  \"a\":\"é\\u00e9\"}";
    let body = format!(r#"{{"task_type":"t","payload":{payload}}}"#);
    let id = api.post("/api/v1/tasks", body).await.expect(201).text("task_id");
    let got = api.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
    assert!(got.raw.contains(&format!("\"payload\":{payload}")));
}

#[tokio::test]
async fn a_worker_over_plain_http() {
    let api = Api::start();
    let id = api.submit(json!({"task_type": "t", "payload": [1, 2], "max_attempts": 2})).await;
    let path = format!("/api/v1/tasks/{id}");
    let claim = json!({"worker_id": "w1", "task_types": ["t*"], "queues": ["default"], "max": 5});
    let claimed = api.post("/api/v1/worker/claim", claim).await.expect(200);
    assert_eq!((&claimed.body["lease_ms"], &claimed.body["heartbeat_ms"]), (&json!(10_000), &json!(3_000)));
    let handed = &claimed.body["tasks"][0];
    assert_eq!((&handed["task"]["payload"], &handed["attempt"]), (&json!([1, 2]), &json!(1)));
    assert_eq!(handed["task"]["status"], "running");

    let attempt = format!("{path}/attempts/1");
    let not_asked = json!({"cancel_requested": false});
    let tick = json!({"progress": {"current": 1, "total": 4}, "checkpoint": {"at": 1}});
    assert_eq!(api.post(&format!("{attempt}/progress"), tick).await.expect(200).body, not_asked);
    let lines = json!({"lines": [{"message": "one"}, {"level": "warn", "message": "two"}]});
    assert_eq!(api.post(&format!("{attempt}/log"), lines).await.expect(200).body, not_asked);
    assert_eq!(api.call("POST", &format!("{attempt}/heartbeat")).await.expect(200).body, not_asked);
    api.call("POST", &format!("{attempt}/cancelled")).await.problem(409, "cancel_not_requested");
    assert_eq!(api.get(&path).await.body["progress"]["percentage"], 25);
    let logs = api.get(&format!("{path}/logs?tail=1")).await.expect(200);
    assert_eq!((&logs.body["lines"][0]["seq"], &logs.body["lines"][0]["level"]), (&json!(2), &json!("warn")));
    assert_eq!(api.get(&format!("{path}/logs?after=0&limit=1")).await.body["lines"][0]["message"], "one");

    // It gives the task back, and the next attempt gets its checkpoint.
    api.call("POST", &format!("{attempt}/release")).await.expect(200);
    api.post(&format!("{attempt}/progress"), json!({"progress": {}})).await.problem(409, "lease_lost");
    let again = api.post("/api/v1/worker/claim", json!({"worker_id": "w1"})).await.expect(200);
    assert_eq!(again.body["tasks"][0]["checkpoint"], json!({"at": 1}));
    let attempt = format!("{path}/attempts/2");
    api.post(&format!("{attempt}/progress"), json!({"progress": {"percentage": 60}})).await.expect(200);

    // Asked to stop, it completes nevertheless.
    assert_eq!(api.call("POST", &format!("{path}/cancel")).await.expect(202).body["status"], "running");
    let heartbeat = api.call("POST", &format!("{attempt}/heartbeat")).await.expect(200);
    assert_eq!(heartbeat.body, json!({"cancel_requested": true}));
    let complete = json!({"result": {"ok": true}});
    api.post(&format!("{attempt}/complete"), &complete).await.expect(200);
    api.post(&format!("{attempt}/complete"), &complete).await.expect(200);
    api.post(&format!("{attempt}/fail"), json!({})).await.problem(409, "lease_lost");
    let result = api.get(&format!("{path}/result")).await.expect(200);
    assert_eq!(result.body, json!({"task_id": id, "status": "completed", "result": {"ok": true}}));
    assert_eq!(api.get(&path).await.body["progress"]["percentage"], 100);

    api.post(&format!("{path}/attempts/x/complete"), "{}").await.problem(404, "not_found");
    api.post(&format!("{path}/attempts/99999999999/complete"), "{}").await.problem(409, "lease_lost");
}

#[tokio::test]
async fn a_large_result_stands_beside_the_record() {
    let api = Api::start();
    let id = api.submit(json!({"task_type": "t"})).await;
    let attempt = api.claim().await;
    let large = "x".repeat(10_000);
    api.post(&format!("{attempt}/complete"), json!({"result": large})).await.expect(200);
    let got = api.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
    assert_eq!((got.body["result"].as_str(), got.body.get("result_omitted")), (Some(large.as_str()), None));
    assert_eq!(api.get(&format!("/api/v1/tasks/{id}/result")).await.body["result"], large);
    let listed = api.get("/api/v1/tasks").await.expect(200);
    let task = &listed.body["tasks"][0];
    assert_eq!((task.get("result"), &task["result_omitted"]), (None, &json!(true)));

    // Line breaks between tokens would break events in two, and mean nothing.
    let id = api.submit(json!({"task_type": "t"})).await;
    let attempt = api.claim().await;
    api.post(&format!("{attempt}/complete"), "{\"result\":{\n\"a\":1}}").await.expect(200);
    assert_eq!(api.get(&format!("/api/v1/tasks/{id}")).await.body["result"], json!({"a": 1}));
}

#[tokio::test]
async fn waiting_ends_with_the_transition() {
    let api = Arc::new(Api::start());
    let id = api.submit(json!({"task_type": "t"})).await;
    let attempt = api.claim().await;
    let waiter = tokio::spawn({
        let (api, path) = (api.clone(), format!("/api/v1/tasks/{id}/result?wait_ms=30000"));
        async move { (api.get(&path).await, Instant::now()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiter.is_finished());
    let begun = Instant::now();
    api.post(&format!("{attempt}/complete"), json!({"result": 7})).await.expect(200);
    let (answer, at) = waiter.await.unwrap();
    assert_eq!(answer.expect(200).body["result"], 7);
    assert!(at.duration_since(begun) < Duration::from_secs(5));

    // A final task answers at once, whatever is waited for.
    let got = api.get(&format!("/api/v1/tasks/{id}?wait_ms=60000&since_rev=999999")).await.expect(200);
    assert_eq!(got.body["status"], "completed");
    // When time runs out, the task as it is.
    let id = api.submit(json!({"task_type": "t"})).await;
    assert_eq!(api.get(&format!("/api/v1/tasks/{id}?wait_ms=20")).await.expect(200).body["status"], "pending");
    api.get(&format!("/api/v1/tasks/{id}/result?wait_ms=20")).await.problem(409, "task_not_finished");
    api.get(&format!("/api/v1/tasks/{id}?wait_ms=60001")).await.problem(422, "limit_exceeded");
}

#[tokio::test]
async fn submitting_twice_with_a_key_is_once() {
    let api = Api::start();
    let key = [("idempotency-key", "k1")];
    let first = api.post_with("/api/v1/tasks", r#"{"task_type":"t"}"#, &key).await.expect(201).text("task_id");
    let again = api.post_with("/api/v1/tasks", r#"{"task_type":"t"}"#, &key).await.expect(200);
    assert_eq!(again.text("task_id"), first);
    assert_eq!(again.headers[header::LOCATION], format!("tasks/{first}"));
    api.post_with("/api/v1/tasks", r#"{"task_type":"t" }"#, &key).await.problem(409, "idempotency_conflict");
    let batch = r#"{"tasks":[{"task_type":"t"},{"task_type":"u"}]}"#;
    let one = api.post_with("/api/v1/tasks/batch", batch, &key).await.expect(201).body;
    let two = api.post_with("/api/v1/tasks/batch", batch, &key).await.expect(200).body;
    assert_eq!(one, two);
    api.post(&format!("/api/v1/tasks/{first}/cancel"), "").await.expect(200);
    api.call("DELETE", &format!("/api/v1/tasks/{first}")).await.expect(204);
    api.post_with("/api/v1/tasks", r#"{"task_type":"t"}"#, &key).await.problem(409, "idempotency_conflict");
    let long = "k".repeat(256);
    let key = [("idempotency-key", long.as_str())];
    api.post_with("/api/v1/tasks", r#"{"task_type":"t"}"#, &key).await.problem(422, "limit_exceeded");
}

#[tokio::test]
async fn lists_are_paged_without_holes() {
    let api = Api::start();
    let tasks: Vec<_> = (0..25).map(|at| json!({"task_type": "t", "labels": {"n": (at % 2).to_string()}})).collect();
    api.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
    for order in ["asc", "desc"] {
        let mut seen = Vec::new();
        let mut next = format!("/api/v1/tasks?limit=10&order={order}");
        loop {
            let page = api.get(&next).await.expect(200);
            seen.extend(
                page.body["tasks"].as_array().unwrap().iter().map(|t| t["task_id"].as_str().unwrap().to_owned()),
            );
            let Some(cursor) = page.body.get("next_cursor") else { break };
            next = format!("/api/v1/tasks?limit=10&order={order}&cursor={}", cursor.as_str().unwrap());
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.is_sorted_by(|a, b| if order == "asc" { a < b } else { a > b }));
    }
    let odd = api.get("/api/v1/tasks?label.n=1&limit=5").await.expect(200);
    assert_eq!(odd.body["tasks"].as_array().unwrap().len(), 5);
    let cursor = odd.text("next_cursor");
    api.get(&format!("/api/v1/tasks?cursor={cursor}")).await.problem(422, "bad_cursor");
    let of_none = format!("/api/v1/tasks?workflow_id={}", &odd.body["tasks"][0]["task_id"].as_str().unwrap());
    assert_eq!(api.get(&of_none).await.expect(200).body, json!({"tasks": []}));
    api.get("/api/v1/tasks?workflow_id=w").await.problem(422, "bad_filter");
    assert_eq!(api.get("/api/v1/tasks?status=failed").await.expect(200).body, json!({"tasks": []}));
}

#[tokio::test]
async fn a_payload_of_exactly_the_limit_passes() {
    for limit in [1_000, crate::task::PAYLOAD_BYTES_MAX] {
        let api = Api::with(ServeConfig { payload_max: limit, ..ServeConfig::for_trial() });
        let body = |bytes: usize| json!({"task_type": "t", "payload": "x".repeat(bytes - 2)});
        api.post("/api/v1/tasks", body(limit)).await.expect(201);
        let refused = api.post("/api/v1/tasks", body(limit + 1)).await;
        refused.problem(413, "payload_too_large");
        assert_eq!((&refused.body["limit"], &refused.body["field"]), (&json!(limit), &json!("payload")));
        // A body that no payload explains is not even parsed.
        let larger = api.app.limits.body_bytes_max() + 1;
        api.post("/api/v1/tasks", " ".repeat(larger)).await.problem(413, "payload_too_large");
    }
}

#[tokio::test]
async fn wrong_requests_are_told_apart() {
    let api = Api::start();
    let id = api.submit(json!({"task_type": "t"})).await;
    let tasks = "/api/v1/tasks";
    api.post(tasks, "{").await.problem(400, "invalid_json");
    api.post(tasks, "").await.problem(400, "invalid_json");
    api.post(tasks, "[]").await.problem(422, "invalid_field");
    let unknown = api.post(tasks, r#"{"task_type":"t","prio":1}"#).await;
    assert_eq!(unknown.problem(422, "unknown_field").body["field"], "prio");
    let priority = api.post(tasks, r#"{"task_type":"t","priority":101}"#).await;
    assert_eq!(priority.problem(422, "invalid_field").body["field"], "priority");
    let deep = format!(r#"{{"task_type":"t","payload":{}{}}}"#, "[".repeat(129), "]".repeat(129));
    assert_eq!(api.post(tasks, deep).await.problem(422, "limit_exceeded").body["limit"], 128);
    let item = api.post("/api/v1/tasks/batch", r#"{"tasks":[{"task_type":"t"},{"task_type":"t","queue":"/"}]}"#).await;
    assert_eq!(item.problem(422, "invalid_field").body["field"], "tasks[1].queue");
    let item = api.post("/api/v1/tasks/batch", r#"{"tasks":[{"task_type":"t","queue":"/"}]}"#).await;
    assert_eq!(item.problem(422, "invalid_field").body["field"], "tasks[0].queue");
    let many = json!({"tasks": vec![json!({"task_type": "t"}); 10_001]});
    assert_eq!(api.post("/api/v1/tasks/batch", many).await.problem(422, "limit_exceeded").body["limit"], 10_000);

    let plain = Request::post(tasks).header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}")).unwrap();
    api.send(plain).await.problem(415, "unsupported_media_type");
    let bare = Request::post(tasks).body(Body::from("{}")).unwrap();
    api.send(bare).await.problem(415, "unsupported_media_type");

    api.get(&format!("{tasks}?colour=red")).await.problem(422, "unknown_field");
    api.get(&format!("{tasks}?status=done")).await.problem(422, "bad_filter");
    api.get(&format!("{tasks}?limit=501")).await.problem(422, "limit_exceeded");
    api.get(&format!("{tasks}/nonsense")).await.problem(404, "task_not_found");
    api.get(&format!("{tasks}/01890000-0000-7000-8000-00000000002a")).await.problem(404, "task_not_found");
    api.get(&format!("{tasks}/{id}?colour=red")).await.problem(422, "unknown_field");
    api.get("/api/v1/jobs").await.problem(404, "not_found");
    api.get("/nothing.js").await.problem(404, "not_found");
    api.post("/api/v1/worker/claim", json!({"worker_id": "a b"})).await.problem(422, "invalid_field");
    api.post("/api/v1/worker/claim", json!({"worker_id": "w", "max": 101})).await.problem(422, "limit_exceeded");
    let waits = json!({"worker_id": "w", "wait_ms": 60_001});
    api.post("/api/v1/worker/claim", waits).await.problem(422, "limit_exceeded");
    api.post(&format!("{tasks}/{id}/attempts/1/complete"), json!({"resultt": 1})).await.problem(422, "unknown_field");
    api.get("/api/v1/worker/ws").await.problem(422, "invalid_field");

    let wrong = api.call("PUT", tasks).await;
    wrong.problem(405, "method_not_allowed");
    let allow = wrong.headers[header::ALLOW].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let head = api.call("HEAD", tasks).await;
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn those_who_run_it_can_look() {
    let api = Api::start();
    api.submit(json!({"task_type": "t", "queue": "night"})).await;
    api.submit(json!({"task_type": "t"})).await;
    api.claim().await;
    let stats = api.get("/api/v1/stats").await.expect(200);
    assert_eq!((&stats.body["tasks"]["pending"], &stats.body["tasks"]["running"]), (&json!(1), &json!(1)));
    assert_eq!(stats.body["queues"]["night"]["pending"], 1);
    let workers = api.get("/api/v1/workers").await.expect(200);
    assert_eq!(
        (&workers.body["workers"][0]["worker_id"], &workers.body["workers"][0]["link"]),
        (&json!("w1"), &json!("http"))
    );
    api.get("/healthz").await.expect(200);
    api.get("/readyz").await.expect(200);
    let text = api.get("/metrics").await.expect(200).raw;
    for line in [
        r#"taskhub_tasks{status="pending"} 1"#,
        r#"taskhub_queue_tasks{queue="night",status="pending"} 1"#,
        r#"taskhub_transitions_total{event="task.created"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }

    api.hub.drain(Duration::ZERO).await;
    let not_ready = api.get("/readyz").await;
    not_ready.problem(503, "draining");
    assert!(not_ready.headers.contains_key(header::RETRY_AFTER));
    api.get("/healthz").await.expect(200);
    api.post("/api/v1/tasks", r#"{"task_type":"t"}"#).await.problem(503, "draining");
    api.post("/api/v1/worker/claim", json!({"worker_id": "w1"})).await.problem(503, "draining");
}

#[tokio::test]
async fn a_feed_that_stands_still_is_counted() {
    let api = Api::start();
    assert_eq!(api.get("/api/v1/stats").await.expect(200).body["feed_lag_ms"], 0);
    // This test and the shards share one thread: while it spins here, nobody is told anything.
    // The writer has one of its own, and needs no more than to be asked.
    let _ = api.post("/api/v1/tasks", json!({"task_type": "t"})).now_or_never();
    let begun = Instant::now();
    while api.hub.stats().feed_lag_ms < 20 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the lag is not counted");
        std::thread::sleep(Duration::from_millis(1));
    }
    let line: Value = serde_json::from_slice(&api.hub.stats_line()).unwrap();
    assert!(line["feed_lag_ms"].as_u64() >= Some(20), "{line}");
    api.get("/readyz").await.expect(200);
    tokio::time::timeout(Duration::from_secs(20), async {
        while api.hub.stats().feed_lag_ms > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is told in the end");
}

#[tokio::test]
async fn the_contract_is_served_and_browsable() {
    let api = Api::start();
    assert_eq!(api.get("/api/openapi.json").await.expect(200).body["openapi"], "3.1.0");
    assert_eq!(api.get("/api/asyncapi.json").await.expect(200).body["asyncapi"], "3.0.0");
    let to_page = api.get("/api/docs").await.expect(308);
    assert_eq!(to_page.headers[header::LOCATION], "docs/");
    for (file, media_type) in [
        ("", "text/html"),
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-initializer.js", "text/javascript"),
    ] {
        let got = api.get(&format!("/api/docs/{file}")).await.expect(200);
        let declared = got.headers[header::CONTENT_TYPE].to_str().unwrap();
        assert!(declared.starts_with(media_type), "{file}: {declared}");
        assert!(got.headers.contains_key(header::CONTENT_SECURITY_POLICY));
    }
    api.get("/api/docs/nothing").await.problem(404, "not_found");
}

#[tokio::test]
async fn the_dashboard_is_inside() {
    let api = Api::start();
    let page = api.get("/").await.expect(200);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'self'"));
    assert_eq!(page.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let script = api.get("/taskhub.js").await.expect(200);
    assert_eq!(script.headers[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
    let tag = script.headers[header::ETAG].clone();
    let again = Request::get("/taskhub.js").header(header::IF_NONE_MATCH, tag).body(Body::empty()).unwrap();
    api.send(again).await.expect(304);
    let wrong = api.call("POST", "/taskhub.js").await;
    wrong.problem(405, "method_not_allowed");
    assert_eq!(wrong.headers[header::ALLOW], "GET,HEAD");
    for outside in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "//etc/passwd"] {
        api.get(outside).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn documented_parameters_are_taken() {
    let api = Api::start();
    let id = api.submit(json!({"task_type": "t"})).await;
    let document: Value = serde_json::from_str(super::docs::OPENAPI).unwrap();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        // A stream does not end.
        if path == "/api/v1/events" {
            continue;
        }
        for parameter in item["get"]["parameters"].as_array().into_iter().flatten() {
            let place = parameter["$ref"].as_str().map(|place| place.trim_start_matches('#'));
            let parameter = place.map_or(parameter, |place| document.pointer(place).unwrap());
            if parameter["in"] == "header" {
                continue;
            }
            let name = match parameter["name"].as_str().unwrap() {
                "label" => "label.project_id",
                name => name,
            };
            let answer = api.get(&format!("{}?{name}=", path.replace("{id}", &id))).await;
            assert_ne!(answer.body["code"], "unknown_field", "{path} does not take {name}");
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried}");
}

#[tokio::test]
async fn bodies_that_arrive_hold_a_bounded_memory() {
    let api = Api::start();
    let room = || Some(api.app.body_room()).and_then(|mut room| room.grow(64 << 20).then_some(room));
    let held: Vec<_> = std::iter::from_fn(room).collect();
    assert_eq!(held.len(), 8);
    let large = json!({"task_type": "t", "payload": "x".repeat(200_000)}).to_string();
    let length = large.len().to_string();
    let headers = [("content-length", length.as_str())];
    api.post_with("/api/v1/tasks", &large, &headers).await.problem(503, "overloaded");
    let small = r#"{"task_type":"t"}"#;
    api.post_with("/api/v1/tasks", small, &[("content-length", "17")]).await.expect(201);
    drop(held);
    api.post_with("/api/v1/tasks", &large, &headers).await.expect(201);
}
