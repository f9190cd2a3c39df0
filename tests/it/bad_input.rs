//! Bad input gets the documented problem, with the field that is wrong, and touches nothing else.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::{Answer, TestHub};

/// An id that no task has.
const NOBODY: &str = "/api/v1/tasks/01890000-0000-7000-8000-00000000002a";

/// A hub with a task in every state that is easy to reach, to see that bad input leaves them alone.
struct Bystanders {
    hub: TestHub,
    tasks: Value,
}

impl Bystanders {
    async fn new() -> Bystanders {
        let hub = TestHub::start().await;
        hub.submit_any().await;
        hub.claim("bystander").await;
        hub.submit_any().await;
        hub.submit(json!({"task_type": "t", "delay_ms": 3_600_000})).await;
        let tasks = hub.get("/api/v1/tasks").await.expect(200);
        Bystanders { hub, tasks }
    }

    async fn check(self) {
        assert_eq!(self.hub.get("/api/v1/tasks").await.expect(200), self.tasks, "somebody was affected");
        self.hub.get("/readyz").await.expect(200);
        let rev = self.hub.get("/api/v1/stats").await.body["rev"].as_u64();
        let next = self.hub.submit(json!({"task_type": "t"})).await;
        assert_eq!(next["rev"].as_u64(), rev.map(|rev| rev + 1), "a refusal uses no rev");
    }
}

#[tokio::test]
async fn bodies() {
    let all = Bystanders::new().await;
    let hub = &all.hub;
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let too_deep = format!(r#"{{"task_type":"t","payload":{}}}"#, deep(129));
    let far_too_deep = format!(r#"{{"task_type":"t","payload":{}}}"#, deep(100_000));
    let many_labels: Value = (0..17).map(|n| (n.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let many_labels = json!({"task_type": "t", "labels": many_labels}).to_string();
    let long = |field: &str, length: usize| json!({"task_type": "t", field: "é".repeat(length)}).to_string();
    let (title, description, user) = (long("title", 257), long("description", 4_097), long("user_id", 129));
    let (long_key, long_value) = ("k".repeat(65), "v".repeat(257));
    let long_key = json!({"task_type": "t", "labels": {long_key: "v"}}).to_string();
    let long_value = json!({"task_type": "t", "labels": {"k": long_value}}).to_string();
    let long_type = json!({"task_type": "t".repeat(129)}).to_string();
    for (body, expected) in [
        ("", "400 invalid_json"),
        ("  \n", "400 invalid_json"),
        ("{", "400 invalid_json"),
        ("{\"task_type\":\"t\"", "400 invalid_json"),
        ("{\"task_type\":\"t\"} {}", "400 invalid_json"),
        ("{'task_type':'t'}", "400 invalid_json"),
        ("NaN", "400 invalid_json"),
        ("[]", "422 invalid_field"),
        ("null", "422 invalid_field"),
        ("7", "422 invalid_field"),
        ("\"t\"", "422 invalid_field"),
        ("{}", "422 invalid_field task_type"),
        (r#"{"task_type":null}"#, "422 invalid_field task_type"),
        (r#"{"task_type":7}"#, "422 invalid_field task_type"),
        (r#"{"task_type":""}"#, "422 invalid_field task_type"),
        (r#"{"task_type":"a b"}"#, "422 invalid_field task_type"),
        (r#"{"task_type":"ingest.*"}"#, "422 invalid_field task_type"),
        (&long_type, "422 invalid_field task_type"),
        (r#"{"task_type":"t","task_type":"t"}"#, "422 invalid_field task_type"),
        (r#"{"task_type":"t","queue":"a/b"}"#, "422 invalid_field queue"),
        (r#"{"task_type":"t","queue":""}"#, "422 invalid_field queue"),
        (&title, "422 limit_exceeded title"),
        (&description, "422 limit_exceeded description"),
        (&user, "422 limit_exceeded user_id"),
        (r#"{"task_type":"t","user_id":""}"#, "422 invalid_field user_id"),
        (&many_labels, "422 limit_exceeded labels"),
        (&long_key, "422 limit_exceeded labels"),
        (&long_value, "422 limit_exceeded labels.k"),
        (r#"{"task_type":"t","labels":{"k":1}}"#, "422 invalid_field labels.k"),
        (r#"{"task_type":"t","labels":["k"]}"#, "422 invalid_field labels"),
        (r#"{"task_type":"t","priority":101}"#, "422 invalid_field priority"),
        (r#"{"task_type":"t","priority":-101}"#, "422 invalid_field priority"),
        (r#"{"task_type":"t","priority":1e9}"#, "422 invalid_field priority"),
        (r#"{"task_type":"t","priority":"1"}"#, "422 invalid_field priority"),
        (r#"{"task_type":"t","run_at":"tomorrow"}"#, "422 invalid_field run_at"),
        (r#"{"task_type":"t","run_at":1700000000}"#, "422 invalid_field run_at"),
        (r#"{"task_type":"t","delay_ms":-1}"#, "422 invalid_field delay_ms"),
        (r#"{"task_type":"t","delay_ms":1.5}"#, "422 invalid_field delay_ms"),
        (r#"{"task_type":"t","delay_ms":999999999999999}"#, "422 limit_exceeded delay_ms"),
        (r#"{"task_type":"t","max_attempts":0}"#, "422 invalid_field max_attempts"),
        (r#"{"task_type":"t","max_attempts":1001}"#, "422 limit_exceeded max_attempts"),
        (r#"{"task_type":"t","max_crashes":0}"#, "422 invalid_field max_crashes"),
        (r#"{"task_type":"t","timeout_ms":0}"#, "422 invalid_field timeout_ms"),
        (r#"{"task_type":"t","parent_id":"me"}"#, "422 invalid_field parent_id"),
        (r#"{"task_type":"t","retry":{"factor":0.5}}"#, "422 invalid_field retry.factor"),
        (r#"{"task_type":"t","retry":{"jitter":2}}"#, "422 invalid_field retry.jitter"),
        (r#"{"task_type":"t","retry":{"often":2}}"#, "422 unknown_field retry.often"),
        (r#"{"task_type":"t","payloud":1}"#, "422 unknown_field payloud"),
        (r#"{"task_type":"t","status":"completed"}"#, "422 unknown_field status"),
        (r#"{"task_type":"t","task_id":"x"}"#, "422 unknown_field task_id"),
        (&too_deep, "422 limit_exceeded payload"),
        (&far_too_deep, "422 limit_exceeded payload"),
    ] {
        let shown: String = body.chars().take(80).collect();
        assert_eq!(post_text(hub, "/api/v1/tasks", body).await.problem(), expected, "{shown}");
    }
    let nested = json!({"task_type": "t", "payload": serde_json::from_str::<Value>(&deep(100)).unwrap()});
    let fine = hub.post("/api/v1/tasks/batch", json!({"tasks": [nested, 1]})).await;
    assert_eq!(fine.problem(), "422 invalid_field tasks[1]");
    assert_eq!(hub.post("/api/v1/tasks/batch", json!({"tasks": []})).await.problem(), "422 invalid_field tasks");
    assert_eq!(hub.post("/api/v1/tasks/batch", json!({"tasks": 1})).await.problem(), "422 invalid_field tasks");
    let many = vec![json!({"task_type": "t"}); 10_001];
    assert_eq!(hub.post("/api/v1/tasks/batch", json!({"tasks": many})).await.problem(), "422 limit_exceeded tasks");
    all.check().await;
}

async fn post_text(hub: &TestHub, path: &str, body: &str) -> Answer {
    let request = hub.request(Method::POST, path).header("content-type", "application/json");
    Answer::of(request.body(body.to_owned())).await
}

#[tokio::test]
async fn bytes_that_are_no_text_and_bodies_that_are_declared_otherwise() {
    let all = Bystanders::new().await;
    let body = || all.hub.request(Method::POST, "/api/v1/tasks");
    let json = |request: reqwest::RequestBuilder| request.header("content-type", "application/json");
    let not_text = Answer::of(json(body()).body(b"{\"task_type\":\"\xff\"}".to_vec())).await;
    assert_eq!(not_text.problem(), "400 invalid_json");
    for declared in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"] {
        let answer = Answer::of(body().header("content-type", declared).body(r#"{"task_type":"t"}"#)).await;
        assert_eq!(answer.problem(), "415 unsupported_media_type", "{declared}");
    }
    let undeclared = Answer::of(body().body(r#"{"task_type":"t"}"#)).await;
    assert_eq!(undeclared.problem(), "415 unsupported_media_type");
    all.check().await;
}

#[tokio::test]
async fn a_payload_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let hub = TestHub::start().await;
    let body = |length: usize| format!(r#"{{"task_type":"t","payload":"{}"}}"#, "p".repeat(length - 2));
    let over = post_text(&hub, "/api/v1/tasks", &body((1 << 20) + 1)).await;
    assert_eq!(over.problem(), "413 payload_too_large payload");
    assert_eq!(over.body["limit"], 1 << 20);
    let batch = format!(r#"{{"tasks":[{{"task_type":"t"}},{}]}}"#, body((1 << 20) + 1));
    let over = post_text(&hub, "/api/v1/tasks/batch", &batch).await;
    assert_eq!(over.problem(), "413 payload_too_large tasks[1].payload");
    let task = post_text(&hub, "/api/v1/tasks", &body(1 << 20)).await.expect(201);
    let whole = hub.task(&crate::kit::id(&task)).await;
    assert_eq!(whole["payload"].as_str().map(str::len), Some((1 << 20) - 2));

    let small = TestHub::builder().set(|config| config.payload_max = 100).start().await;
    assert_eq!(post_text(&small, "/api/v1/tasks", &body(100)).await.status, 201);
    assert_eq!(post_text(&small, "/api/v1/tasks", &body(101)).await.problem(), "413 payload_too_large payload");
}

/// Also where the body has no end in sight, the answer arrives, and the connection after it is good for another call.
#[tokio::test]
async fn oversize_bodies_are_answered() {
    let all = Bystanders::new().await;
    let large = format!(r#"{{"task_type":"t","payload":"{}"}}"#, "p".repeat(3 << 20));
    let whole = post_text(&all.hub, "/api/v1/tasks", &large).await;
    assert_eq!(whole.problem(), "413 payload_too_large");
    assert!(whole.body["limit"].as_u64() > Some(1 << 20), "{}", whole.text);
    let mut unending = TcpStream::connect(all.hub.address()).await.unwrap();
    let head = "POST /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    unending.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..64 {
        unending.write_all(format!("10000\r\n{}\r\n", " ".repeat(64 << 10)).as_bytes()).await.unwrap();
    }
    unending
        .write_all(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answers = String::new();
    crate::kit::in_time("both answers", unending.read_to_string(&mut answers)).await.unwrap();
    let (first, second) = (answers.find("HTTP/1.1 413"), answers.find("HTTP/1.1 200"));
    assert!(first == Some(0) && second > first, "{answers}");
    all.check().await;
}

#[tokio::test]
async fn paths_and_methods() {
    let all = Bystanders::new().await;
    for (method, path, expected, allow) in [
        ("GET", "/nothing", "404 not_found", ""),
        ("GET", "/api/v1", "404 not_found", ""),
        ("GET", "/api/v1/nothing", "404 not_found", ""),
        ("GET", "/api/v1/tasks/x/y", "404 not_found", ""),
        ("GET", "/../Cargo.toml", "404 not_found", ""),
        ("GET", "/api/docs/nothing.js", "404 not_found", ""),
        ("GET", "/api/v1/tasks/x", "404 task_not_found", ""),
        ("GET", "/api/v1/tasks/%00", "404 task_not_found", ""),
        ("GET", "/api/v1/tasks/%ff", "404 not_found", ""),
        ("GET", NOBODY, "404 task_not_found", ""),
        ("DELETE", NOBODY, "404 task_not_found", ""),
        ("POST", "/api/v1/tasks/x/cancel", "404 task_not_found", ""),
        ("POST", "/api/v1/tasks/x/retry", "404 task_not_found", ""),
        ("GET", "/api/v1/tasks/x/history", "404 task_not_found", ""),
        ("GET", "/api/v1/tasks/x/logs", "404 task_not_found", ""),
        ("GET", "/api/v1/tasks/x/result", "404 task_not_found", ""),
        ("POST", "/api/v1/tasks/x/attempts/1/heartbeat", "404 task_not_found", ""),
        ("PUT", "/api/v1/tasks", "405 method_not_allowed", "GET,HEAD,POST"),
        ("DELETE", "/api/v1/tasks", "405 method_not_allowed", "GET,HEAD,POST"),
        ("POST", NOBODY, "405 method_not_allowed", "DELETE,GET,HEAD,PATCH"),
        ("PUT", NOBODY, "405 method_not_allowed", "DELETE,GET,HEAD,PATCH"),
        ("GET", "/api/v1/tasks/x/cancel", "405 method_not_allowed", "POST"),
        ("GET", "/api/v1/worker/claim", "405 method_not_allowed", "POST"),
        ("POST", "/healthz", "405 method_not_allowed", "GET,HEAD"),
        ("POST", "/", "405 method_not_allowed", "GET,HEAD"),
        ("POST", "/app.js", "405 method_not_allowed", "GET,HEAD"),
    ] {
        let answer = Answer::of(all.hub.request(method.parse().unwrap(), path)).await;
        assert_eq!(answer.problem(), expected, "{method} {path}");
        let mut allowed: Vec<&str> = answer.header("allow").split(',').filter(|word| !word.is_empty()).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
    all.check().await;
}

#[tokio::test]
async fn parameters() {
    let all = Bystanders::new().await;
    let many = format!("/api/v1/tasks?task_id={}", [&NOBODY["/api/v1/tasks/".len()..]; 101].join(","));
    let long = format!("/api/v1/tasks?q={}", "x".repeat(257));
    for (path, expected) in [
        ("/api/v1/tasks?page=2", "422 unknown_field page"),
        ("/api/v1/tasks?statuses=failed", "422 unknown_field statuses"),
        ("/api/v1/tasks?status=done", "422 bad_filter status"),
        ("/api/v1/tasks?status=", "422 bad_filter status"),
        ("/api/v1/tasks?status=failed&status=pending", "422 invalid_field status"),
        ("/api/v1/tasks?task_id=x", "422 bad_filter task_id"),
        ("/api/v1/tasks?task_type=a*b", "422 bad_filter task_type"),
        ("/api/v1/tasks?queue=a%20b", "422 bad_filter queue"),
        ("/api/v1/tasks?label.=x", "422 bad_filter label."),
        ("/api/v1/tasks?limit=0", "422 invalid_field limit"),
        ("/api/v1/tasks?limit=501", "422 limit_exceeded limit"),
        ("/api/v1/tasks?limit=99999999999999999999999", "422 limit_exceeded limit"),
        ("/api/v1/tasks?limit=many", "422 invalid_field limit"),
        ("/api/v1/tasks?order=up", "422 invalid_field order"),
        ("/api/v1/tasks?created_after=now", "422 invalid_field created_after"),
        ("/api/v1/tasks?cursor=x", "422 bad_cursor cursor"),
        (&many, "422 limit_exceeded task_id"),
        (&long, "422 limit_exceeded q"),
        (&format!("{NOBODY}?wait_ms=60001"), "422 limit_exceeded wait_ms"),
        (&format!("{NOBODY}?wait_ms=-1"), "422 invalid_field wait_ms"),
        (&format!("{NOBODY}?wait=1"), "422 unknown_field wait"),
        (&format!("{NOBODY}/result?since_rev=1"), "422 unknown_field since_rev"),
        (&format!("{NOBODY}/logs?tail=10001"), "422 limit_exceeded tail"),
        (&format!("{NOBODY}/logs?tail=1&after=1"), "422 invalid_field tail"),
        (&format!("{NOBODY}/logs?limit=1"), "422 invalid_field limit"),
        (&format!("{NOBODY}/history?tail=1"), "422 unknown_field tail"),
    ] {
        assert_eq!(all.hub.get(path).await.problem(), expected, "{path}");
    }
    all.check().await;
}

#[tokio::test]
async fn what_workers_say_wrong() {
    let all = Bystanders::new().await;
    let running = all.hub.get("/api/v1/tasks?status=running").await.body["tasks"][0]["task_id"].clone();
    let attempt = |verb: &str| format!("/api/v1/tasks/{}/attempts/1/{verb}", running.as_str().unwrap());
    let large = "x".repeat(9_000);
    for (path, body, expected) in [
        ("/api/v1/worker/claim", json!({}), "422 invalid_field worker_id"),
        ("/api/v1/worker/claim", json!({"worker_id": "a b"}), "422 invalid_field worker_id"),
        ("/api/v1/worker/claim", json!({"worker_id": "w", "max": 0}), "422 invalid_field max"),
        ("/api/v1/worker/claim", json!({"worker_id": "w", "max": 101}), "422 limit_exceeded max"),
        ("/api/v1/worker/claim", json!({"worker_id": "w", "wait_ms": 60_001}), "422 limit_exceeded wait_ms"),
        ("/api/v1/worker/claim", json!({"worker_id": "w", "task_types": []}), "422 invalid_field task_types"),
        ("/api/v1/worker/claim", json!({"worker_id": "w", "queues": ["a", "b c"]}), "422 invalid_field queues[1]"),
        ("/api/v1/worker/claim", json!({"worker_id": "w", "queue": "q"}), "422 unknown_field queue"),
        (&attempt("progress"), json!({"progress": {"percentage": 101}}), "422 invalid_field progress.percentage"),
        (&attempt("progress"), json!({"progress": {"percent": 1}}), "422 unknown_field progress.percent"),
        (&attempt("progress"), json!({"progress": {"current": -1}}), "422 invalid_field progress.current"),
        (&attempt("progress"), json!({"progress": {"message": large}}), "422 limit_exceeded progress"),
        (&attempt("progress"), json!({"checkpoint": "x".repeat(64 << 10)}), "413 payload_too_large checkpoint"),
        (&attempt("log"), json!({}), "422 invalid_field lines"),
        (&attempt("log"), json!({"lines": [{"message": "m", "colour": "red"}]}), "422 unknown_field lines[0].colour"),
        (&attempt("log"), json!({"lines": [["info", "m"]]}), "422 invalid_field lines[0]"),
        (&attempt("fail"), json!({"error": {"kind": "k".repeat(129)}}), "422 limit_exceeded error.kind"),
        (&attempt("fail"), json!({"error": "no"}), "422 invalid_field error"),
        (&attempt("fail"), json!({"retryable": "no"}), "422 invalid_field retryable"),
        (&attempt("complete"), json!({"results": 1}), "422 unknown_field results"),
        (&attempt("cancelled"), json!({}), "409 cancel_not_requested"),
        (&attempt("cancelled").replace("/1/", "/2/"), json!({}), "409 lease_lost"),
        (&attempt("complete").replace("/1/", "/0/"), json!({}), "409 lease_lost"),
        (&attempt("complete").replace("/1/", "/99999999999999/"), json!({}), "409 lease_lost"),
        (&attempt("complete").replace("/1/", "/one/"), json!({}), "404 not_found"),
        (&attempt("explode"), json!({}), "404 not_found"),
    ] {
        let answer = all.hub.post(path, body.clone()).await;
        assert!(answer.status >= 400, "{path} took {:.80}", body.to_string());
        assert_eq!(answer.problem(), expected, "{path} {:.80}", body.to_string());
    }
    let reason = json!({"reason": "r".repeat(1_025)});
    let path = format!("/api/v1/tasks/{}/cancel", running.as_str().unwrap());
    assert_eq!(all.hub.post(&path, reason).await.problem(), "422 limit_exceeded reason");
    assert_eq!(all.hub.post(&path, json!({"why": 1})).await.problem(), "422 unknown_field why");
    // A refused tick leaves no trace, and one of exactly the limit does.
    let room = (8 << 10) - r#"{"message":""}"#.len();
    let fits = all.hub.post(&attempt("progress"), json!({"progress": {"message": "x".repeat(room)}})).await;
    assert_eq!(fits.status, 200, "{}", fits.text);
    let over = all.hub.post(&attempt("progress"), json!({"progress": {"message": "x".repeat(room + 1)}})).await;
    assert_eq!(over.problem(), "422 limit_exceeded progress");
}

/// The bound on unfinished tasks refuses the whole batch, and there is room again when one ends.
#[tokio::test]
async fn a_full_hub_says_so() {
    let hub = TestHub::builder().set(|config| config.tasks_max = 3).start().await;
    let first = hub.submit_any().await;
    hub.submit_any().await;
    let two = json!({"tasks": [{"task_type": "t"}, {"task_type": "t"}]});
    let full = hub.post("/api/v1/tasks/batch", two).await;
    assert_eq!((full.problem().as_str(), full.header("retry-after")), ("503 overloaded", "1"));
    hub.submit_any().await;
    assert_eq!(hub.post("/api/v1/tasks", json!({"task_type": "t"})).await.problem(), "503 overloaded");
    hub.tell(&format!("/api/v1/tasks/{first}/cancel")).await.expect(200);
    hub.submit_any().await;
}
