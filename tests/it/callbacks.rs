//! Callbacks: what is told is told at least once, in order, signed, and to public places only.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{Answer, HubBuilder, HubProcess, PATIENCE, Program, TestHub, eventually, id, in_time, program};

/// A server that keeps what it is told.
struct Receiver {
    url: String,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    messages: Vec<Message>,
    /// What the next ones are answered; with 204 where nothing is left.
    answers: VecDeque<How>,
}

#[derive(Clone, Debug)]
struct Message {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// How a message is answered.
#[derive(Clone, Copy, Debug)]
enum How {
    Status(u16),
    RetryAfter(u16, u64),
    Redirect,
    /// With a body that never ends.
    Endless,
    Never,
}

impl Message {
    fn id(&self) -> String {
        self.headers["webhook-id"].to_str().unwrap().to_owned()
    }

    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn word(&self) -> String {
        self.event()["event"].as_str().unwrap().replace("task.", "")
    }
}

impl Receiver {
    async fn start() -> Receiver {
        let heard = Arc::<Mutex<Heard>>::default();
        let router = Router::new().fallback(answer).with_state(heard.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Receiver { url, heard }
    }

    fn answers(&self, answers: impl IntoIterator<Item = How>) {
        self.heard.lock().unwrap().answers = answers.into_iter().collect();
    }

    fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap().messages.clone()
    }

    /// What it has heard once that is so many messages.
    async fn once(&self, count: usize) -> Vec<Message> {
        let what = format!("{count} messages");
        eventually(what, async || Some(self.heard()).filter(|heard| heard.len() >= count)).await
    }
}

async fn answer(State(heard): State<Arc<Mutex<Heard>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let how = {
        let mut heard = heard.lock().unwrap();
        heard.messages.push(Message { path: uri.path().to_owned(), headers, body });
        heard.answers.pop_front().unwrap_or(How::Status(204))
    };
    match how {
        How::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        How::RetryAfter(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, seconds)]).into_response()
        }
        How::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        How::Endless => {
            let more = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 65_536])));
            Body::from_stream(more).into_response()
        }
        How::Never => std::future::pending().await,
    }
}

fn private() -> HubBuilder {
    TestHub::builder().set(|config| config.callbacks_private = true)
}

/// Submits a task with one callback, has it run and complete, and answers its id.
async fn completed(hub: &TestHub, callback: Value) -> String {
    let task_id = id(&hub.submit(json!({"task_type": "t", "callbacks": [callback]})).await);
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "complete", json!({"result": {"n": 1}})).await.expect(200);
    task_id
}

async fn callbacks(hub: &TestHub, query: &str) -> Vec<Value> {
    let list = hub.get(&format!("/api/v1/callbacks{query}")).await.expect(200);
    list["callbacks"].as_array().unwrap().clone()
}

/// The callbacks that are owed or were given up, once they look like this.
async fn once(hub: &TestHub, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, async || Some(callbacks(hub, "").await).filter(|list| wanted(list))).await
}

#[tokio::test]
async fn a_callback_is_told_what_the_live_stream_tells() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    let mut stream = hub.request(Method::GET, "/api/v1/events").send().await.unwrap();
    let url = format!("{}/hook?a=1", receiver.url);
    let events = ["created", "running", "completed"];
    let task_id = completed(&hub, json!({"url": url, "events": events})).await;
    let heard = receiver.once(3).await;
    assert_eq!(heard.iter().map(Message::word).collect::<Vec<_>>(), events);
    for message in &heard {
        assert_eq!((message.path.as_str(), message.event()["task"]["task_id"].as_str()), ("/hook", Some(&*task_id)));
        assert_eq!(message.headers["content-type"], "application/json");
        assert!(message.headers["user-agent"].to_str().unwrap().starts_with("taskhub/"));
    }
    let mut told = String::new();
    while !told.contains(r#""event":"task.completed""#) {
        let chunk = in_time("the end on the live stream", stream.chunk()).await.unwrap().expect("it goes on");
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    for message in &heard {
        let line = format!("data: {}\n", std::str::from_utf8(&message.body).unwrap());
        assert!(told.contains(&line), "{line} is not in\n{told}");
    }
    let task = hub.task(&task_id).await;
    assert_eq!(task["callbacks"], json!([{"url": url, "events": events}]));
    once(&hub, "all have arrived", <[_]>::is_empty).await;
    let ids: std::collections::BTreeSet<_> = heard.iter().map(Message::id).collect();
    assert_eq!(ids.len(), 3);
    for id in ids {
        hub.get(&format!("/api/v1/callbacks/{id}")).await.refused(404, "callback_not_found");
    }
}

#[tokio::test]
async fn each_kind_of_task_has_its_callbacks() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    let to = |path: &str| json!([{"url": format!("{}/{path}", receiver.url), "events": ["created"]}]);
    let tasks = json!({"tasks": [{"task_type": "t", "callbacks": to("batch")}, {"task_type": "t"}]});
    hub.post("/api/v1/tasks/batch", tasks).await.expect(201);
    let part = json!({"task_type": "t", "callbacks": to("part")});
    hub.post("/api/v1/workflows", json!({"callbacks": to("workflow"), "tasks": [part]})).await.expect(201);
    let scheduled = json!({"every_ms": 86_400_000, "task": {"task_type": "t", "callbacks": to("schedule")}});
    hub.put("/api/v1/schedules/s", scheduled).await.expect(201);
    hub.tell("/api/v1/schedules/s/run").await.expect(201);
    // The first of those that become one has them.
    let gather = |path: &str| json!({"task_type": "g", "gather": {"key": "k", "max_count": 3}, "callbacks": to(path)});
    hub.post("/api/v1/tasks", gather("gather")).await.expect(201);
    hub.post("/api/v1/tasks", gather("another")).await.expect(200);
    let holder = hub.claim("w").await;
    let path = format!("/api/v1/tasks/{}/attempts/1/spawn", id(&holder["task"]));
    hub.post(&path, json!({"tasks": [{"task_type": "t", "callbacks": to("spawned")}]})).await.expect(201);
    let mut paths: Vec<_> = receiver.once(6).await.into_iter().map(|message| message.path).collect();
    paths.sort();
    assert_eq!(paths, ["/batch", "/gather", "/part", "/schedule", "/spawned", "/workflow"]);
}

#[tokio::test]
async fn one_that_fails_holds_the_later_ones_of_its_task_and_no_others() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    receiver.answers([How::Status(500), How::Status(404)]);
    let held = json!({"url": format!("{}/held", receiver.url), "events": ["running", "completed"]});
    let first = completed(&hub, held).await;
    let waiting = once(&hub, "the first is tried again", |list| list.iter().any(|it| it["attempts"] == 1)).await;
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    let of = |word: &str| waiting.iter().find(|it| it["event"] == format!("task.{word}")).unwrap().clone();
    let (running, ended) = (of("running"), of("completed"));
    assert_eq!((&running["last_error"], &running["status"]), (&json!("answered 500"), &json!("pending")));
    assert!(running["next_attempt_at"].is_string() && running["last_attempt_at"].is_string());
    assert_eq!((&ended["attempts"], &ended["task_id"]), (&json!(0), &json!(first)));

    completed(&hub, json!({"url": format!("{}/other", receiver.url)})).await;
    let heard = receiver.once(5).await;
    let held: Vec<_> = heard.iter().filter(|message| message.path == "/held").collect();
    let words: Vec<_> = held.iter().map(|message| message.word()).collect();
    let repeated = words.iter().filter(|word| *word == "running").count();
    assert_eq!(words[repeated..], ["completed"], "{words:?}");
    assert!(held[..repeated].iter().all(|message| message.id() == held[0].id() && message.body == held[0].body));
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_leads_nowhere() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    receiver.answers([How::Redirect]);
    completed(&hub, json!({"url": receiver.url})).await;
    let failed = once(&hub, "it was tried", |list| list.iter().any(|it| it["attempts"] == 1)).await;
    assert_eq!(failed[0]["last_error"], "answered 307: redirects are not followed");
    let heard = receiver.once(2).await;
    assert!(heard.iter().all(|message| message.path == "/"), "{heard:?}");
}

#[tokio::test]
async fn only_public_places_are_called_unless_that_is_said() {
    let (hub, receiver) = (TestHub::start().await, Receiver::start().await);
    let port = receiver.url.rsplit(':').next().unwrap();
    let with = |url: &str| json!({"task_type": "t", "callbacks": [{"url": "https://app.example/"}, {"url": url}]});
    for url in ["http://127.0.0.1/", "http://0x7f.1:80/", "https://[::ffff:10.0.0.1]/", "http://169.254.169.254/x"] {
        let refused = hub.post("/api/v1/tasks", with(url)).await;
        assert_eq!(refused.problem(), "422 invalid_field callbacks[1].url", "{url}");
        let refused = hub.post("/api/v1/tasks/batch", json!({"tasks": [{"task_type": "t"}, with(url)]})).await;
        assert_eq!(refused.problem(), "422 invalid_field tasks[1].callbacks[1].url", "{url}");
        let refused = hub.post("/api/v1/workflows", json!({"tasks": [with(url)]})).await;
        assert_eq!(refused.problem(), "422 invalid_field tasks[0].callbacks[1].url", "{url}");
        let refused = hub.put("/api/v1/schedules/s", json!({"every_ms": 60_000, "task": with(url)})).await;
        assert_eq!(refused.problem(), "422 invalid_field task.callbacks[1].url", "{url}");
    }
    assert_eq!(hub.get("/api/v1/tasks").await.expect(200)["tasks"], json!([]), "nothing half done");
    // A name is looked at when it is called.
    completed(&hub, json!({"url": format!("http://localhost:{port}/")})).await;
    let failed = once(&hub, "it was tried", |list| list.iter().any(|it| it["attempts"].as_u64() > Some(1))).await;
    let why = failed[0]["last_error"].as_str().unwrap();
    assert!(why.contains("is a loopback address") && why.contains("--callbacks-private"), "{why}");
    assert_eq!(receiver.heard().len(), 0);

    let hub = private().start().await;
    completed(&hub, json!({"url": format!("http://localhost:{port}/")})).await;
    receiver.once(1).await;
}

#[tokio::test]
async fn what_is_no_callback_is_refused_where_it_stands() {
    let hub = TestHub::start().await;
    let refused = async |callbacks: Value| {
        let answer = hub.post("/api/v1/tasks", json!({"task_type": "t", "callbacks": callbacks})).await;
        answer.problem()
    };
    let app = "https://app.example/";
    assert_eq!(refused(json!([{"url": "ftp://app.example/"}])).await, "422 invalid_field callbacks[0].url");
    assert_eq!(refused(json!([{"url": "https://u:p@app.example/"}])).await, "422 invalid_field callbacks[0].url");
    assert_eq!(refused(json!([{"url": app, "events": ["done"]}])).await, "422 invalid_field callbacks[0].events[0]");
    assert_eq!(refused(json!([{"url": app, "events": []}])).await, "422 invalid_field callbacks[0].events");
    assert_eq!(refused(json!([{"url": app, "secret": "s"}])).await, "422 unknown_field callbacks[0].secret");
    assert_eq!(refused(json!([{"events": ["failed"]}])).await, "422 invalid_field callbacks[0].url");
    assert_eq!(refused(json!({"url": app})).await, "422 invalid_field callbacks");
    assert_eq!(refused(json!(vec![json!({"url": app}); 5])).await, "422 limit_exceeded callbacks");
    for path in ["/api/v1/callbacks/x", "/api/v1/callbacks/0198f3a2-61aa-7c1e-8f0a-5b6c7d8e9f01"] {
        hub.get(path).await.refused(404, "callback_not_found");
        hub.tell(&format!("{path}/retry")).await.refused(404, "callback_not_found");
    }
    assert_eq!(hub.get("/api/v1/callbacks?status=done").await.problem(), "422 bad_filter status");
    assert_eq!(hub.get("/api/v1/callbacks?task_id=1").await.problem(), "422 bad_filter task_id");
    assert_eq!(hub.get("/api/v1/callbacks?cursor=1").await.problem(), "422 bad_cursor cursor");
    assert_eq!(hub.get("/api/v1/callbacks?limit=501").await.problem(), "422 limit_exceeded limit");
    assert_eq!(hub.get("/api/v1/callbacks?x=1").await.problem(), "422 unknown_field x");
}

#[tokio::test]
async fn what_was_given_up_can_be_tried_again() {
    let hub = private().set(|config| config.callbacks_for = Duration::from_secs(1)).on_disk();
    let (mut hub, receiver) = (hub.start().await, Receiver::start().await);
    receiver.answers([How::Status(500); 100]);
    let task_id = completed(&hub, json!({"url": receiver.url, "events": ["running", "completed"]})).await;
    let failed = once(&hub, "both were given up", |list| list.iter().all(|it| it["status"] == "failed")).await;
    assert_eq!(failed.len(), 2);
    assert_eq!(callbacks(&hub, "?status=pending").await, Vec::<Value>::new());
    assert_eq!(callbacks(&hub, &format!("?status=failed&task_id={task_id}")).await, failed);
    let first = hub.get("/api/v1/callbacks?status=failed&limit=1").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = callbacks(&hub, &format!("?status=failed&limit=1&cursor={cursor}")).await;
    assert_eq!([first["callbacks"][0].clone(), second[0].clone()], failed[..]);
    let metrics = hub.get("/metrics").await.text;
    assert!(metrics.contains("taskhub_callbacks{status=\"failed\"} 2"), "{metrics}");
    assert!(metrics.contains("taskhub_callback_tries_total{outcome=\"given_up\"} 2"), "{metrics}");

    // They stay over a restart, and when their task goes.
    hub.delete(&format!("/api/v1/tasks/{task_id}")).await.expect(204);
    hub.restart().await;
    assert_eq!(callbacks(&hub, "?status=failed").await, failed);
    receiver.answers([]);
    let before = receiver.heard().len();
    for it in &failed {
        let path = format!("/api/v1/callbacks/{}/retry", it["callback_id"].as_str().unwrap());
        let again = hub.tell(&path).await.expect(200);
        assert_eq!((&again["callback_id"], &again["status"]), (&it["callback_id"], &json!("pending")));
    }
    once(&hub, "both have arrived", <[_]>::is_empty).await;
    assert_eq!(receiver.heard().len(), before + 2);
    let path = format!("/api/v1/callbacks/{}/retry", failed[0]["callback_id"].as_str().unwrap());
    hub.tell(&path).await.refused(404, "callback_not_found");
    let metrics = hub.get("/metrics").await.text;
    assert!(metrics.contains("taskhub_callbacks{status=\"failed\"} 0"), "{metrics}");
}

#[tokio::test]
async fn a_receiver_says_that_it_wants_no_more_or_when() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    receiver.answers([How::Status(410)]);
    completed(&hub, json!({"url": receiver.url})).await;
    let gone = once(&hub, "it was given up", |list| list.iter().any(|it| it["status"] == "failed")).await;
    assert_eq!((&gone[0]["attempts"], &gone[0]["last_error"]), (&json!(1), &json!("answered 410")));

    receiver.answers([How::RetryAfter(503, 600)]);
    let task_id = completed(&hub, json!({"url": receiver.url})).await;
    let query = format!("?task_id={task_id}");
    let waits =
        eventually("it was tried", async || callbacks(&hub, &query).await.into_iter().find(|it| it["attempts"] == 1));
    let waits = waits.await;
    let millis = |field: &str| taskhub::task::Timestamp::parse(waits[field].as_str().unwrap()).unwrap().as_millis();
    assert_eq!(millis("next_attempt_at") - millis("last_attempt_at"), 600_000);
    // Somebody who knows better need not wait.
    hub.tell(&format!("/api/v1/callbacks/{}/retry", waits["callback_id"].as_str().unwrap())).await.expect(200);
    eventually("it has arrived", async || callbacks(&hub, &query).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn an_answer_without_end_is_an_answer() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    receiver.answers([How::Endless]);
    completed(&hub, json!({"url": receiver.url})).await;
    once(&hub, "it has arrived", <[_]>::is_empty).await;
    assert_eq!(receiver.heard().len(), 1);
}

#[tokio::test]
async fn a_host_that_does_not_answer_holds_no_others() {
    let (hub, receiver, silent) = (private().start().await, Receiver::start().await, Receiver::start().await);
    silent.answers([How::Never; 100]);
    let tasks: Vec<Value> =
        (0..50).map(|_| json!({"task_type": "t", "callbacks": [{"url": silent.url, "events": ["created"]}]})).collect();
    hub.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
    silent.once(8).await;
    hub.submit(json!({"task_type": "t", "callbacks": [{"url": receiver.url, "events": ["created"]}]})).await;
    receiver.once(1).await;
    assert_eq!(silent.heard().len(), 8, "so many of one host at once");
}

/// Kills a hub with callbacks on their way: each arrives, in order, with the same id and body however often.
#[tokio::test]
async fn a_hub_that_is_killed_forgets_no_callback() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    let events = ["created", "cancelled"];
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut wanted = Vec::new();
    for round in 0..4 {
        let mut hub = HubProcess::start(folder.path(), ["--callbacks-private"]);
        if round == 1 {
            receiver.answers([How::Status(503); 30]);
        }
        let post = async |path: String, body: Value| {
            Answer::of(http.post(format!("{}/api/v1/{path}", hub.url)).json(&body)).await
        };
        for n in 0..20 {
            let callback = json!({"url": format!("{}/{n}", receiver.url), "events": events});
            let task = post("tasks".into(), json!({"task_type": "t", "callbacks": [callback]})).await.expect(201);
            post(format!("tasks/{}/cancel", id(&task)), json!({})).await.expect(200);
            wanted.push(id(&task));
        }
        hub.program.kill();
    }
    let hub = HubProcess::start(folder.path(), ["--callbacks-private"]);
    let left = async || {
        let list = Answer::of(http.get(format!("{}/api/v1/callbacks", hub.url))).await.expect(200);
        list["callbacks"].as_array().unwrap().is_empty().then_some(())
    };
    let begun = std::time::Instant::now();
    while left().await.is_none() {
        assert!(begun.elapsed() < 3 * PATIENCE, "some never arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let heard = receiver.heard();
    for task_id in wanted {
        let of: Vec<_> = heard.iter().filter(|it| it.event()["task"]["task_id"] == *task_id).collect();
        let words: Vec<_> = of.iter().map(|message| message.word()).collect();
        let first = words.iter().filter(|word| *word == "created").count();
        assert!(first > 0 && first < words.len() && words[first..].iter().all(|word| word == "cancelled"), "{words:?}");
        for of in [&of[..first], &of[first..]] {
            assert!(of.iter().all(|it| it.id() == of[0].id() && it.body == of[0].body));
        }
    }
}

fn secret_of(folder: &TempDir, rotate: bool) -> String {
    let mut command = program();
    command.args(["callback", "secret", "--data"]).arg(folder.path()).args(rotate.then_some("--rotate"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Has the library that others verify with look at a message.
fn verify(secret: &str, message: &Message) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run tests/deps.sh", python.display());
    let headers: serde_json::Map<String, Value> = message
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), json!(value.to_str().unwrap())))
        .collect();
    let body = String::from_utf8(message.body.to_vec()).unwrap();
    let asked = json!({"secret": secret, "headers": headers, "body": body}).to_string();
    let output = Command::new(python).arg(root.join("tests/it/verify_webhook.py")).arg(asked).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.trim() == "verified"
}

#[tokio::test]
async fn a_receiver_verifies_with_the_public_library_also_while_the_secret_changes() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_of(&folder, false);
    assert_eq!(secret_of(&folder, false), secret, "it is made once");
    let receiver = Receiver::start().await;
    let hub = HubProcess::start(folder.path(), ["--callbacks-private"]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let submit = async || {
        let callbacks = json!([{"url": receiver.url, "events": ["created"]}]);
        let task = json!({"task_type": "t", "title": "ä \"q\"", "callbacks": callbacks});
        Answer::of(http.post(format!("{}/api/v1/tasks", hub.url)).json(&task)).await.expect(201)
    };
    submit().await;
    let heard = receiver.once(1).await;
    assert!(verify(&secret, &heard[0]));
    let mut other = heard[0].clone();
    other.body = Bytes::from(String::from_utf8(other.body.to_vec()).unwrap().replace("created", "failed!"));
    assert!(!verify(&secret, &other), "a body that somebody changed");

    let new = secret_of(&folder, true);
    assert_ne!(new, secret);
    submit().await;
    let heard = receiver.once(2).await;
    assert!(verify(&new, &heard[1]) && verify(&secret, &heard[1]), "both, for a day");
    assert_eq!(heard[1].headers["webhook-signature"].to_str().unwrap().split(' ').count(), 2);
    assert!(!verify(&new, &heard[0]));
}

#[tokio::test]
async fn the_command_line_lists_and_retries() {
    let (hub, receiver) = (private().start().await, Receiver::start().await);
    receiver.answers([How::Status(410), How::Status(204)]);
    hub.command(&["submit", "t", "--callback", &receiver.url, "--callback-events", "created,failed"]);
    once(&hub, "it was given up", |list| list.iter().any(|it| it["status"] == "failed")).await;
    let listed = hub.command(&["callback", "list", "--status", "failed"]);
    assert!(listed.contains("answered 410") && listed.contains(&receiver.url), "{listed}");
    let listed: Value = serde_json::from_str(&hub.command(&["callback", "list", "--json"])).unwrap();
    assert_eq!(listed["status"], "failed");
    hub.command(&["callback", "retry", "--failed"]);
    once(&hub, "it has arrived", <[_]>::is_empty).await;
}

/// A certificate for `localhost` that nobody has signed but itself.
fn certificate(folder: &Path) -> [std::path::PathBuf; 2] {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]).arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let output = command.output().expect("openssl is there: run tests/deps.sh");
    assert!(output.status.success(), "{output:?}");
    [cert, key]
}

#[tokio::test]
async fn over_tls_a_receiver_is_told_that_this_machine_trusts_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = certificate(folder.path());
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls_receiver.py")).args([&cert, &key]);
    let mut receiver = Program::start(command);
    let callback = json!([{"url": format!("https://localhost:{}/", receiver.first_line()), "events": ["created"]}]);
    let task = json!({"task_type": "t", "callbacks": callback});
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let hub = |data: &str, trusted: bool| {
        let mut command = program();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--callbacks-private", "--data"])
            .arg(folder.path().join(data));
        command.env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        HubProcess::from(if trusted { with(command, &cert) } else { command })
    };
    let stranger = hub("a", false);
    Answer::of(http.post(format!("{}/api/v1/tasks", stranger.url)).json(&task)).await.expect(201);
    let why = eventually("it was tried", async || {
        let list = Answer::of(http.get(format!("{}/api/v1/callbacks", stranger.url))).await.expect(200);
        list["callbacks"][0]["last_error"].as_str().map(str::to_owned)
    });
    let why = why.await;
    assert!(why.contains("certificate"), "{why}");

    let hub = hub("b", true);
    Answer::of(http.post(format!("{}/api/v1/tasks", hub.url)).json(&task)).await.expect(201);
    eventually("it has arrived", async || (receiver.printed().lines().count() == 2).then_some(())).await;
}

fn with(mut command: Command, trusted: &Path) -> Command {
    command.env("SSL_CERT_FILE", trusted);
    command
}
