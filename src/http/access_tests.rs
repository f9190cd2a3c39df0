//! Who may do what, over the whole table of routes: each role, on own tasks, on those of others and on none at all.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::routes::{Need, listed, need};
use super::{App, router};
use crate::access::{AccessRecord, NewApiToken, Role};
use crate::config::ServeConfig;
use crate::hub::{Accepts, Hub};
use crate::keys::{KeyOptions, Keys};
use crate::task::{Name, PatternSet, Timestamp};

/// A hub that serves those that it knows: one of each role, and two users.
struct Closed {
    hub: Hub,
    keys: Arc<Keys>,
    router: Router,
    tokens: Vec<(&'static str, String)>,
}

/// What came back, to the byte.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

const CALLERS: [(&str, Role, Option<&str>); 6] = [
    ("viewer", Role::Viewer, None),
    ("ann", Role::User, Some("ann")),
    ("bob", Role::User, Some("bob")),
    ("worker", Role::Worker, None),
    ("operator", Role::Operator, None),
    ("admin", Role::Admin, None),
];
const MISSING: &str = "01890000-0000-7000-8000-00000000dead";

impl Closed {
    fn start() -> Closed {
        Closed::start_with(KeyOptions::default())
    }

    fn start_with(options: KeyOptions) -> Closed {
        let config = ServeConfig::for_trial();
        let hub = Hub::start(Box::new(crate::store::in_memory().unwrap()), config.hub_options()).unwrap();
        Closed::on(hub, options, &config)
    }

    fn on(hub: Hub, options: KeyOptions, config: &ServeConfig) -> Closed {
        let now = Timestamp::now();
        let mut records = vec![AccessRecord::Closed { since: now }];
        let mut tokens = Vec::new();
        for (name, role, user_id) in CALLERS {
            let new = NewApiToken {
                name: name.into(),
                role,
                user_id: user_id.map(Into::into),
                task_types: None,
                queues: None,
                expires_at: None,
            };
            let (record, text) = new.make(now).unwrap();
            records.push(AccessRecord::ApiToken(record));
            tokens.push((name, text));
        }
        let keys = Keys::new(options, records).unwrap();
        let limits = (config.http_limits(), config.live_limits());
        let app = App::new(hub.clone(), keys.clone(), config.door().unwrap(), limits.0, limits.1);
        Closed { hub, keys, router: router(app), tokens }
    }

    /// The same, with a key to sign tokens with, and steps about access that hold as in a server.
    fn start_with_signer() -> Closed {
        let hub = Closed::start();
        for change in hub.keys.upkeep(Timestamp::now()).unwrap() {
            hub.keys.apply(&change);
        }
        let keys = hub.keys.clone();
        hub.hub.listen_to_access(|_| Ok::<_, ()>(keys)).unwrap();
        hub
    }

    fn token(&self, caller: &str) -> Option<&str> {
        self.tokens.iter().find(|(name, _)| *name == caller).map(|(_, token)| token.as_str())
    }

    async fn call(&self, caller: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(caller, method, path, body, None).await
    }

    /// A call with a key of idempotency.
    async fn call_with(
        &self,
        caller: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        key: Option<&'static str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if let Some(token) = self.token(caller) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        // A stream of events has no end.
        let text = match response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream") {
            true => String::new(),
            false => String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap(),
        };
        Answer { status, text }
    }

    async fn get(&self, caller: &str, path: &str) -> Answer {
        self.call(caller, "GET", path, None).await
    }

    async fn submit(&self, caller: &str, body: Value) -> String {
        let answer = self.call(caller, "POST", "/api/v1/tasks", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["task_id"].as_str().unwrap().to_owned()
    }
}

/// A body that the route takes, as far as it has to be one.
fn body_of(method: &str, path: &str) -> Option<Value> {
    let task = json!({"task_type": "t"});
    Some(match (method, path) {
        ("POST", "/api/v1/tasks") => task,
        ("POST", "/api/v1/tasks/batch") => json!({"tasks": [task]}),
        ("POST", "/api/v1/tasks/cancel" | "/api/v1/tasks/retry" | "/api/v1/tasks/delete") => {
            json!({"filter": {"queue": ["none"]}})
        }
        ("PATCH", "/api/v1/tasks/{id}") => json!({"title": "x"}),
        ("POST", "/api/v1/workflows") => json!({"tasks": [task]}),
        ("POST", "/api/v1/worker/claim") => json!({"worker_id": "w9", "task_types": ["none"]}),
        ("POST", path) if path.ends_with("/spawn") => json!({"tasks": [task]}),
        ("POST", path) if path.ends_with("/progress") => json!({"progress": {"percentage": 0.5}}),
        ("POST", path) if path.ends_with("/log") => json!({"lines": [{"level": "info", "message": "x"}]}),
        ("POST", path) if path.ends_with("/fail") => json!({"error": {"kind": "k", "message": "m"}}),
        ("PUT", "/api/v1/queues/{name}") => json!({}),
        ("PUT", "/api/v1/limits") => json!({}),
        ("PUT", "/api/v1/schedules/{name}") => json!({"cron": "0 0 1 1 *", "task": task}),
        ("PUT", "/api/v1/task-types/{name}") => json!({}),
        _ => return None,
    })
}

fn filled(path: &str, id: &str) -> String {
    path.replace("{id}", id).replace("{attempt}", "1").replace("{name}", "n1").replace("{file}", "index.html")
}

#[tokio::test]
async fn each_route_asks_for_its_right_and_tells_nothing_to_those_without() {
    let hub = Closed::start();
    let own = hub.submit("ann", json!({"task_type": "t"})).await;
    for (method, path) in listed() {
        let need = need(&Method::from_bytes(method.as_bytes()).unwrap(), path).unwrap();
        let body = body_of(method, path);
        let at = |id: &str| filled(path, id);
        let Need::Right(right) = need else { continue };
        let nobody = hub.call("nobody", method, &at(&own), body.clone()).await;
        assert_eq!((nobody.status, nobody.json()["code"].as_str()), (401, Some("unauthenticated")), "{method} {path}");
        assert_eq!(nobody, hub.call("nobody", method, &at(MISSING), body.clone()).await, "{method} {path}");
        for (caller, role, _) in CALLERS {
            let body = body.clone().map(|mut body| {
                if let Some(worker_id) = body.get_mut("worker_id") {
                    *worker_id = json!(caller);
                }
                body
            });
            let (here, missing) = (
                hub.call(caller, method, &at(&own), body.clone()).await,
                hub.call(caller, method, &at(MISSING), body.clone()).await,
            );
            if role.rights().has(right) {
                assert_ne!(here.status, 401, "{caller} {method} {path}");
                // A role that sees all may do what it may.
                if matches!(role, Role::Operator | Role::Admin | Role::Viewer) {
                    assert_ne!(here.status, 403, "{caller} {method} {path}: {}", here.text);
                }
                continue;
            }
            assert_eq!(
                (here.status, here.json()["code"].as_str()),
                (403, Some("forbidden")),
                "{caller} {method} {path}"
            );
            assert_eq!(here, missing, "{caller} {method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_open_to_all_asks_nobody() {
    let hub = Closed::start();
    for path in ["/healthz", "/readyz", "/", "/api/openapi.json", "/api/asyncapi.json", "/api/docs/"] {
        assert_eq!(hub.get("nobody", path).await.status, 200, "{path}");
    }
    for path in ["/api/v1/nothing", "/api/v1/tasks/x/y/z", "/api/v1/", "/api/v1"] {
        assert_eq!(hub.get("nobody", path).await.status, 401, "{path}");
        assert_eq!(hub.get("ann", path).await.status, 404, "{path}");
    }
    assert_eq!(hub.get("nobody", "/metrics").await.status, 401);
    assert_eq!(hub.get("ann", "/metrics").await.status, 403);
    assert_eq!(hub.get("viewer", "/metrics").await.status, 200);
}

#[tokio::test]
async fn metrics_may_be_for_whoever_asks_and_nothing_else_is() {
    let mut hub = Closed::start_with(KeyOptions { metrics_open: true, ..KeyOptions::default() });
    hub.tokens.push(("wrong", format!("tht_{}", "x".repeat(43))));
    assert_eq!(hub.get("wrong", "/metrics").await.status, 401);
    let seen = hub.get("nobody", "/metrics").await;
    assert!(seen.text.contains("taskhub_refused_credentials_total{reason=\"unknown\"} 1"), "{}", seen.text);
    for path in ["/api/v1/stats", "/api/v1/tasks", "/api/v1/workers", "/metrics/", "/api/v1/../../metrics"] {
        assert!(matches!(hub.get("nobody", path).await.status, 401 | 404), "{path}");
    }
    assert_eq!(hub.get("ann", "/metrics").await.status, 403, "who says who they are is taken at their word");
}

#[tokio::test]
async fn a_task_of_another_is_one_that_is_not_there() {
    let hub = Closed::start();
    let own = hub.submit("ann", json!({"task_type": "t", "payload": {"secret": 1}})).await;
    for status in ["pending", "cancelled"] {
        for (method, path) in listed() {
            if !path.contains("{id}") || path.starts_with("/api/v1/callbacks") {
                continue;
            }
            let body = body_of(method, path);
            for caller in ["bob", "worker"] {
                let foreign = hub.call(caller, method, &filled(path, &own), body.clone()).await;
                let missing = hub.call(caller, method, &filled(path, MISSING), body.clone()).await;
                assert_eq!(foreign, missing, "{caller} {method} {path} {status}");
                assert!(foreign.status >= 400, "{caller} {method} {path}: {foreign:?}");
            }
        }
        let seen = hub.get("ann", &format!("/api/v1/tasks/{own}")).await.json();
        assert_eq!((seen["status"].as_str(), &seen["payload"]["secret"]), (Some(status), &json!(1)));
        hub.call("ann", "POST", &format!("/api/v1/tasks/{own}/cancel"), None).await;
    }
}

#[tokio::test]
async fn users_submit_as_themselves() {
    let hub = Closed::start();
    let own = hub.submit("ann", json!({"task_type": "t"})).await;
    assert_eq!(hub.get("viewer", &format!("/api/v1/tasks/{own}")).await.json()["user_id"], "ann");
    let as_bob = hub.call("ann", "POST", "/api/v1/tasks", Some(json!({"task_type": "t", "user_id": "bob"}))).await;
    assert_eq!((as_bob.status, &as_bob.json()["field"]), (403, &json!("user_id")));
    let tasks = json!({"tasks": [{"task_type": "t"}, {"task_type": "t", "user_id": "bob"}]});
    let batch = hub.call("ann", "POST", "/api/v1/tasks/batch", Some(tasks)).await;
    assert_eq!((batch.status, &batch.json()["field"]), (403, &json!("tasks[1].user_id")));
    let workflow = json!({"tasks": [{"task_type": "t"}]});
    let workflow = hub.call("ann", "POST", "/api/v1/workflows", Some(workflow)).await;
    assert_eq!(workflow.status, 201, "{}", workflow.text);
    assert!(workflow.json()["tasks"].as_array().unwrap().iter().all(|task| task["user_id"] == "ann"));
    // Somebody who acts for everyone names whom they like, or nobody.
    hub.submit("operator", json!({"task_type": "t", "user_id": "bob"})).await;
    hub.submit("operator", json!({"task_type": "t"})).await;
    let count = async |caller: &str| hub.get(caller, "/api/v1/tasks").await.json()["tasks"].as_array().unwrap().len();
    assert_eq!((count("ann").await, count("bob").await, count("viewer").await), (3, 1, 5));
    let of_bob = hub.get("ann", "/api/v1/tasks?user_id=bob").await;
    assert_eq!(of_bob.json()["tasks"], json!([]));
}

#[tokio::test]
async fn ids_that_are_out_of_sight_answer_as_unknown() {
    let hub = Closed::start();
    let own = hub.submit("ann", json!({"task_type": "t"})).await;
    let depends = |id: &str| Some(json!({"tasks": [{"task_type": "t"}, {"task_type": "t", "depends_on": [id]}]}));
    let foreign = hub.call("bob", "POST", "/api/v1/tasks/batch", depends(&own)).await;
    let missing = hub.call("bob", "POST", "/api/v1/tasks/batch", depends(MISSING)).await;
    assert_eq!((foreign.status, &foreign.json()["field"]), (422, &json!("tasks[1].depends_on[0]")), "{}", foreign.text);
    assert_eq!(foreign.text.replace(&own, MISSING), missing.text);
    assert_eq!(hub.call("ann", "POST", "/api/v1/tasks/batch", depends(&own)).await.status, 201);
}

#[tokio::test]
async fn what_a_task_depends_on_is_told_as_far_as_it_is_seen() {
    // Regression: whoever saw a task was told the ids of all that it depends on.
    let hub = Closed::start();
    let (own, foreign) =
        (hub.submit("ann", json!({"task_type": "t"})).await, hub.submit("bob", json!({"task_type": "t"})).await);
    let task = json!({"task_type": "t", "user_id": "ann", "depends_on": [foreign, own]});
    let path = format!("/api/v1/tasks/{}", hub.submit("operator", task).await);
    let depends_on = async |caller: &str| hub.get(caller, &path).await.json()["depends_on"].clone();
    assert_eq!((depends_on("ann").await, depends_on("viewer").await), (json!([own]), json!([foreign, own])));
}

#[tokio::test]
async fn what_is_hidden_is_in_no_answer_to_a_change() {
    // Regression: answers to who cancels, retries or submits once more showed what is hidden from them.
    let mut hub = Closed::start_with_signer();
    let maker = hub.keys.authenticate(hub.token("operator").unwrap(), Timestamp::now()).await.unwrap();
    let ask = json!({"allow": ["read", "cancel", "submit"], "hide": ["result"]});
    let minted = hub.keys.mint(&maker, serde_json::from_value(ask).unwrap(), Timestamp::now()).unwrap();
    hub.tokens.push(("scoped", minted.token));
    let body = json!({"task_type": "t", "max_attempts": 2, "retry": {"base_ms": 60_000, "jitter": 0.0}});
    let submit = async || hub.call_with("scoped", "POST", "/api/v1/tasks", Some(body.clone()), Some("k")).await;
    let id = submit().await.json()["task_id"].as_str().unwrap().to_owned();
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    let handed = hub.hub.claim(Name::new("w"), accepts, 1, Duration::from_secs(10)).await.unwrap();
    let details = Some(crate::task::Json::of(&"secret").unwrap());
    let error = crate::task::Failure { details, ..crate::task::Failure::new("k", "m") };
    let report = crate::engine::Report::Fail { error, retryable: true, retry_after_ms: None };
    hub.hub.report(handed[0].task.task_id, 1, report).await.unwrap();
    let (again, cancelled) =
        (submit().await, hub.call("scoped", "POST", &format!("/api/v1/tasks/{id}/cancel"), None).await);
    for (answer, what) in [(again, "replay"), (cancelled, "cancel")] {
        assert_eq!((answer.status, &answer.json()["hidden"]), (200, &json!(["result"])), "{what}");
        assert!(
            answer.json()["last_error"]["kind"] == "k" && !answer.text.contains("secret"),
            "{what} {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_bulk_call_reaches_only_what_its_caller_sees() {
    let hub = Closed::start();
    let of_ann = hub.submit("ann", json!({"task_type": "t"})).await;
    let of_bob = hub.submit("bob", json!({"task_type": "t"})).await;
    let done = hub.call("ann", "POST", "/api/v1/tasks/cancel", Some(json!({"filter": {}}))).await.json();
    assert_eq!((&done["matched"], &done["changed"]), (&json!(1), &json!(1)));
    let status = async |id: &str| hub.get("admin", &format!("/api/v1/tasks/{id}")).await.json()["status"].clone();
    assert_eq!((status(&of_ann).await, status(&of_bob).await), (json!("cancelled"), json!("pending")));
}

#[tokio::test]
async fn keys_of_idempotency_and_uniqueness_are_each_users_own() {
    let hub = Closed::start();
    let unique = json!({"task_type": "t", "unique": {"key": "k"}});
    let of_ann = hub.submit("ann", unique.clone()).await;
    let of_bob = hub.submit("bob", unique.clone()).await;
    assert_ne!(of_ann, of_bob);
    let again = hub.call("bob", "POST", "/api/v1/tasks", Some(unique)).await;
    assert_eq!((again.status, &again.json()["task_id"]), (200, &json!(of_bob)));
}

#[tokio::test]
async fn settings_show_users_no_more_than_theirs() {
    let hub = Closed::start();
    let put = async |path: &str, body: Value| {
        let answer = hub.call("operator", "PUT", path, Some(body)).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
    };
    put("/api/v1/queues/set", json!({"concurrency": 3})).await;
    put("/api/v1/limits", json!({"users": {"ann": {"waiting": 5}, "bob": {"waiting": 6}}})).await;
    let schedule =
        |user: &str| json!({"cron": "0 0 1 1 *", "task": {"task_type": "t", "user_id": user, "payload": user}});
    put("/api/v1/schedules/a1", schedule("ann")).await;
    put("/api/v1/schedules/b1", schedule("bob")).await;
    hub.submit("bob", json!({"task_type": "t", "queue": "of-bob"})).await;
    let queues = hub.get("ann", "/api/v1/queues").await.json();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 1);
    assert_eq!((&queues["queues"][0]["name"], &queues["queues"][0]["tasks"]), (&json!("set"), &Value::Null));
    assert_eq!(hub.get("ann", "/api/v1/queues/of-bob").await.status, 404);
    let limits = hub.get("ann", "/api/v1/limits").await;
    assert!(limits.text.contains("ann") && !limits.text.contains("bob"), "{}", limits.text);
    let schedules = hub.get("ann", "/api/v1/schedules").await;
    assert!(schedules.text.contains("a1") && !schedules.text.contains("bob"), "{}", schedules.text);
    assert_eq!(hub.get("ann", "/api/v1/schedules/b1").await.status, 404);
    assert_eq!(hub.get("viewer", "/api/v1/schedules").await.json()["schedules"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn workers_report_on_what_they_hold() {
    let hub = Closed::start();
    let id = hub.submit("ann", json!({"task_type": "t"})).await;
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(hub.get("worker", &path).await.status, 404, "nobody holds it");
    let claim = json!({"worker_id": "w1"});
    let claimed = hub.call("worker", "POST", "/api/v1/worker/claim", Some(claim.clone())).await;
    assert_eq!(claimed.json()["tasks"].as_array().unwrap().len(), 1, "{}", claimed.text);
    assert_eq!(hub.get("worker", &path).await.status, 200);
    assert_eq!(hub.call("admin", "POST", "/api/v1/worker/claim", Some(claim)).await.status, 403, "w1 is the worker's");
    let other = hub.submit("bob", json!({"task_type": "t"})).await;
    let claim = json!({"worker_id": "w2"});
    assert_eq!(hub.call("admin", "POST", "/api/v1/worker/claim", Some(claim)).await.status, 200);
    let complete = |id: &str| format!("/api/v1/tasks/{id}/attempts/1/complete");
    let foreign = hub.call("worker", "POST", &complete(&other), Some(json!({}))).await;
    let missing = hub.call("worker", "POST", &complete(MISSING), Some(json!({}))).await;
    assert_eq!((foreign.status, foreign.json()["code"].as_str()), (409, Some("lease_lost")));
    assert_eq!(foreign, missing);
    assert_eq!(hub.call("worker", "POST", &complete(&id), Some(json!({}))).await.status, 200);
}

#[tokio::test]
async fn one_that_was_taken_back_is_nobody() {
    let hub = Closed::start();
    assert_eq!(hub.get("ann", "/api/v1/tasks").await.status, 200);
    let name = Name::new("ann");
    hub.keys.apply(&crate::access::AccessChange::Remove(crate::access::AccessKey::ApiToken { name }));
    assert_eq!(hub.get("ann", "/api/v1/tasks").await.status, 401);
    assert_eq!(hub.get("bob", "/api/v1/tasks").await.status, 200);
    hub.hub.stop().await;
}

/// A task of ann's, and a scoped token for it that she asked for with the submission.
async fn shared(hub: &Closed, ask: Value) -> (String, String) {
    let body = json!({"task_type": "t", "payload": {"secret": 1}, "token": ask});
    let answer = hub.call("ann", "POST", "/api/v1/tasks", Some(body)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let text = |pointer: &str| answer.json().pointer(pointer).unwrap().as_str().unwrap().to_owned();
    (text("/task_id"), text("/token/token"))
}

#[tokio::test]
async fn a_submission_brings_a_token_for_its_task() {
    let mut hub = Closed::start_with_signer();
    let other = hub.submit("ann", json!({"task_type": "t"})).await;
    let (id, token) = shared(&hub, json!({"allow": ["read"]})).await;
    hub.tokens.push(("link", token));
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(hub.get("link", &path).await.json()["payload"]["secret"], 1);
    let list = hub.get("link", "/api/v1/tasks").await.json();
    assert_eq!(list["tasks"].as_array().unwrap().len(), 1);
    // It is for this task, and for looking.
    let foreign = hub.get("link", &format!("/api/v1/tasks/{other}")).await;
    assert_eq!(foreign, hub.get("link", &format!("/api/v1/tasks/{MISSING}")).await);
    assert_eq!(hub.call("link", "POST", &format!("{path}/cancel"), None).await.status, 403);
    assert_eq!(hub.call("link", "POST", "/api/v1/tasks", Some(json!({"task_type": "t"}))).await.status, 403);
    assert_eq!(hub.call("link", "POST", "/api/v1/tokens", Some(json!({"allow": ["read"]}))).await.status, 403);
    assert_eq!(hub.get("link", "/api/v1/me").await.json()["rights"], json!(["see", "watch"]));
    assert!(!hub.get("ann", &path).await.text.contains("ths_"), "a token is no part of its task");
    // What cannot be had is refused before anything is there.
    let count = async || hub.get("viewer", "/api/v1/stats").await.json()["tasks"]["pending"].clone();
    let before = count().await;
    for (ask, status) in
        [(json!({"allow": ["fly"]}), 422), (json!({"allow": []}), 422), (json!({"allow": ["read"], "x": 1}), 422)]
    {
        let body = json!({"task_type": "t", "token": ask});
        let refused = hub.call("ann", "POST", "/api/v1/tasks", Some(body)).await;
        assert_eq!(refused.status, status, "{}", refused.text);
        assert!(refused.json()["field"].as_str().unwrap().starts_with("token"), "{}", refused.text);
    }
    assert_eq!(count().await, before);
    // Its maker's end is its own.
    let name = Name::new("ann");
    hub.keys.apply(&crate::access::AccessChange::Remove(crate::access::AccessKey::ApiToken { name }));
    assert_eq!(hub.get("link", &path).await.status, 401);
}

#[tokio::test]
async fn what_is_hidden_is_nowhere() {
    let mut hub = Closed::start_with_signer();
    let (id, token) = shared(&hub, json!({"allow": ["read"], "hide": ["payload", "result", "logs"]})).await;
    hub.tokens.push(("link", token));
    let path = format!("/api/v1/tasks/{id}");
    let claimed = hub.call("worker", "POST", "/api/v1/worker/claim", Some(json!({"worker_id": "w"}))).await;
    assert_eq!(claimed.json()["tasks"][0]["task"]["payload"]["secret"], 1, "{}", claimed.text);
    let said = json!({"lines": [{"level": "info", "message": "secret 2"}]});
    assert_eq!(hub.call("worker", "POST", &format!("{path}/attempts/1/log"), Some(said)).await.status, 200);
    let done = json!({"result": {"secret": 3}});
    assert_eq!(hub.call("worker", "POST", &format!("{path}/attempts/1/complete"), Some(done)).await.status, 200);
    let seen = hub.get("link", &path).await;
    assert_eq!(seen.json()["hidden"], json!(["payload", "result", "logs"]));
    for answer in [seen, hub.get("link", "/api/v1/tasks").await, hub.get("link", &format!("{path}/history")).await] {
        assert!(answer.status == 200 && !answer.text.contains("secret"), "{}", answer.text);
    }
    for part in ["result", "logs"] {
        let refused = hub.get("link", &format!("{path}/{part}")).await;
        assert_eq!((refused.status, refused.text.contains("secret")), (403, false), "{part}: {}", refused.text);
    }
    assert!(hub.get("ann", &path).await.text.contains("secret"));
}

#[tokio::test]
async fn places_that_are_hidden_are_nowhere_and_the_rest_is_shown() {
    let mut hub = Closed::start_with_signer();
    let hide = json!(["payload/secret", "result/deep/secret", "result/list/secret"]);
    let (id, token) = shared(&hub, json!({"allow": ["read", "retry", "cancel"], "hide": hide})).await;
    hub.tokens.push(("link", token));
    let path = format!("/api/v1/tasks/{id}");
    assert_eq!(hub.get("link", &path).await.json()["payload"], json!({}));
    assert_eq!(hub.call("worker", "POST", "/api/v1/worker/claim", Some(json!({"worker_id": "w"}))).await.status, 200);
    let result = json!({"deep": {"secret": 3, "open": 4.5}, "list": [{"secret": 5}, {"open": 6}]});
    let left = json!({"deep": {"open": 4.5}, "list": [{}, {"open": 6}]});
    let failed = json!({"error": {"kind": "k", "message": "m", "details": result}});
    assert_eq!(hub.call("worker", "POST", &format!("{path}/attempts/1/fail"), Some(failed)).await.status, 200);
    assert_eq!(hub.get("link", &path).await.json()["error"]["details"], left);
    let again = hub.call("link", "POST", &format!("{path}/retry"), None).await;
    assert!(again.status == 200 && !again.text.contains("secret\":"), "{}", again.text);
    assert_eq!(hub.call("worker", "POST", "/api/v1/worker/claim", Some(json!({"worker_id": "w"}))).await.status, 200);
    let asked = hub.call("link", "POST", &format!("{path}/cancel"), None).await;
    assert!(asked.status == 202 && !asked.text.contains("secret\":"), "{}", asked.text);
    let done = json!({"result": result});
    assert_eq!(hub.call("worker", "POST", &format!("{path}/attempts/2/complete"), Some(done)).await.status, 200);
    let seen = hub.get("link", &path).await.json();
    assert_eq!((&seen["result"], &seen["hidden"]), (&left, &hide));
    assert_eq!(hub.get("link", &format!("{path}/result")).await.json()["result"], left);
    let listed = hub.get("link", "/api/v1/tasks").await.json();
    assert_eq!(listed["tasks"][0]["result"], left);
    assert_eq!(hub.get("ann", &path).await.json()["result"], result);
}

#[tokio::test]
async fn a_token_for_one_submission_is_good_for_one() {
    let mut hub = Closed::start_with_signer();
    let ask = json!({"allow": ["submit"], "filter": {"task_type": ["t"], "labels": {"from": ["form"]}}, "once": true});
    let minted = hub.call("ann", "POST", "/api/v1/tokens", Some(ask)).await;
    assert_eq!(minted.status, 201, "{}", minted.text);
    hub.tokens.push(("form", minted.json()["token"].as_str().unwrap().to_owned()));
    // What is refused spends nothing.
    let other = hub.call("form", "POST", "/api/v1/tasks", Some(json!({"task_type": "other"}))).await;
    assert_eq!((other.status, &other.json()["field"]), (403, &json!("task_type")), "{}", other.text);
    let made = hub.call("form", "POST", "/api/v1/tasks", Some(json!({"task_type": "t"}))).await;
    assert_eq!(
        (made.status, &made.json()["labels"]["from"], &made.json()["user_id"]),
        (201, &json!("form"), &json!("ann"))
    );
    let again = hub.call("form", "POST", "/api/v1/tasks", Some(json!({"task_type": "t"}))).await;
    assert_eq!(again.status, 401, "{}", again.text);
}

#[tokio::test]
async fn a_ticket_is_good_for_one_look() {
    let hub = Closed::start_with_signer();
    let of_ann = hub.submit("ann", json!({"task_type": "t"})).await;
    let ticket = hub.call("ann", "POST", "/api/v1/tickets", None).await;
    assert_eq!(ticket.status, 201, "{}", ticket.text);
    let path = format!("/api/v1/tasks?ticket={}", ticket.json()["ticket"].as_str().unwrap());
    let list = hub.get("nobody", &path).await.json();
    assert_eq!(list["tasks"][0]["task_id"], json!(of_ann));
    assert_eq!(hub.get("nobody", &path).await.status, 401, "it is spent");
    let token = hub.token("ann").unwrap();
    let refused = hub.get("nobody", &format!("/api/v1/tasks?token={token}")).await;
    assert_eq!((refused.status, refused.text.contains(token)), (422, false));
}

#[tokio::test]
async fn tokens_are_made_and_taken_back_over_rest() {
    let mut hub = Closed::start_with_signer();
    let made = hub.call("admin", "POST", "/api/v1/api-tokens", Some(json!({"name": "new", "role": "viewer"}))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    hub.tokens.push(("new", made.json()["token"].as_str().unwrap().to_owned()));
    assert_eq!(hub.get("new", "/api/v1/me").await.json()["role"], "viewer");
    let again = hub.call("admin", "POST", "/api/v1/api-tokens", Some(json!({"name": "new", "role": "viewer"}))).await;
    assert_eq!(again.status, 409, "{}", again.text);
    let list = hub.get("admin", "/api/v1/api-tokens").await;
    assert!(
        list.text.contains("\"new\"") && !list.text.contains("tht_") && !list.text.contains("digest"),
        "{}",
        list.text
    );
    assert_eq!(hub.call("admin", "DELETE", "/api/v1/api-tokens/new", None).await.status, 204);
    assert_eq!(hub.call("admin", "DELETE", "/api/v1/api-tokens/new", None).await.status, 404);
    assert_eq!(hub.get("new", "/api/v1/me").await.status, 401);
    // Who did what stands in the audit, and what was refused does too.
    hub.call("ann", "POST", "/api/v1/api-tokens", Some(json!({"role": "admin"}))).await;
    hub.submit("ann", json!({"task_type": "t", "title": "private"})).await;
    let audit = hub.get("admin", "/api/v1/audit").await;
    let rows: Vec<String> = audit.json()["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("token"), text("action"), text("outcome"))
        })
        .collect();
    for row in [
        "api:admin api_token.create ok",
        "api:admin api_token.revoke ok",
        "api:ann administer forbidden",
        "api:ann submit ok",
    ] {
        assert!(rows.contains(&row.to_owned()), "{row} is missing in {rows:?}");
    }
    assert!(!audit.text.contains("private"));
}

#[tokio::test]
async fn who_looks_at_a_task_does_not_become_its_worker() {
    // Regression: after a restart, when the hub had not heard of a worker yet, each other worker could look at what it ran, and
    // took its id by that.
    let hub = Closed::start();
    let id = hub.submit("ann", json!({"task_type": "t"})).await;
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    let claimed = hub.hub.claim(Name::new("w1"), accepts, 1, Duration::ZERO).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let path = format!("/api/v1/tasks/{id}");
    let missing = hub.get("worker", &format!("/api/v1/tasks/{MISSING}")).await;
    for _ in 0..2 {
        assert_eq!(hub.get("worker", &path).await, missing);
    }
    // A report is another thing: it is how a worker that goes on over HTTP is heard of again.
    let heartbeat = format!("{path}/attempts/1/heartbeat");
    assert_eq!(hub.call("worker", "POST", &heartbeat, Some(json!({}))).await.status, 200);
    assert_eq!(hub.get("worker", &path).await.status, 200);
}

mod own_tests;
