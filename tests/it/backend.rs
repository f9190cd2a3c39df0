//! An application puts a hub before its users: `examples/backend.py`, as it says in it. Each user's page watches exactly one task,
//! over renewals of its token and over SIGKILL of the hub; whoever it is not for learns nothing by any way; and when the
//! application's token is revoked, all of it is over.

use std::path::Path;
use std::process::Command;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::kit::{HubProcess, Program, TestSocket, eventually, program};

/// What the program prints when it is called so on a folder.
fn taskhub(at: &Path, words: &[&str]) -> String {
    let output = program().args(words).current_dir(at).output().expect("the program runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn serve(at: &Path, listen: &str) -> HubProcess {
    let mut command = program();
    command.args(["serve", "--config", "taskhub.toml", "--listen", listen]).current_dir(at);
    HubProcess::from(command)
}

/// A call of the hub with a token, and its answer.
async fn call(url: &str, token: &str, method: reqwest::Method, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Client::new().request(method, format!("{url}/api/v1{path}")).bearer_auth(token);
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.send().await.expect("an answer");
    (answer.status(), serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default())
}

/// The task that a page shows.
async fn shown(page: &mut Page) -> String {
    page.until("document.body.dataset.live === 'live'").await;
    let source = page.look("document.querySelector('script').textContent").await;
    let source = source.as_str().expect("a text");
    let at = source.find("[\"http").expect("the hub and the task");
    let both: (String, String) = serde_json::from_str(source[at..].split_once(';').expect("a line").0).expect("JSON");
    both.1
}

const TOKENS: &str = "performance.getEntriesByType('resource').filter((each) => each.name.includes('/token')).length";

#[tokio::test]
async fn each_user_watches_their_own_report_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    taskhub(at, &["init"]);
    let app = taskhub(at, &["token", "create", "--role", "operator", "--name", "app"]);
    let worker = taskhub(at, &["token", "create", "--role", "worker", "--name", "reports", "--type", "report"]);
    let bob = taskhub(at, &["token", "create", "--role", "user", "--user", "bob"]);
    let mut hub = serve(at, "127.0.0.1:0");
    let (url, address) = (hub.url.clone(), hub.address().to_owned());
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/backend.py"));
    // Short lives, so that a token is renewed while the test looks on.
    command.envs([("TASKHUB_URL", url.as_str()), ("TASKHUB_TOKEN", &app), ("PORT", "0"), ("TTL_MS", "4000")]);
    let mut backend = Program::start(command);
    let site = backend.first_line().trim().to_owned();

    let mut of_ann = Browser::start().await.open(&format!("{site}/?as=ann")).await;
    let mut of_bob = Browser::start().await.open(&format!("{site}/?as=bob")).await;
    let (ann_task, bob_task) = (shown(&mut of_ann).await, shown(&mut of_bob).await);
    let claim = json!({"worker_id": "w", "queues": ["default"], "task_types": ["report"], "max": 2, "wait_ms": 5_000});
    let (status, claimed) = call(&url, &worker, reqwest::Method::POST, "/worker/claim", claim).await;
    assert_eq!((status, claimed["tasks"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{claimed}");
    let tick = async |percentage: u32| {
        let path = format!("/tasks/{ann_task}/attempts/1/progress");
        let body = json!({"progress": {"percentage": percentage, "message": format!("at {percentage}")}});
        let (status, told) = call(&url, &worker, reqwest::Method::POST, &path, body).await;
        assert_eq!(status, StatusCode::OK, "{told}");
    };
    tick(20).await;
    of_ann.until("document.querySelector('#word').value === 'running: at 20'").await;
    // It goes on with other tokens on the same connection.
    of_ann.until(&format!("{TOKENS} >= 3")).await;
    tick(40).await;
    of_ann.until("document.querySelector('#word').value === 'running: at 40'").await;

    // The hub dies, and is back.
    hub.program.kill();
    of_ann.until("document.body.dataset.live === 'offline'").await;
    let hub = serve(at, &address);
    of_ann.until("document.body.dataset.live === 'live'").await;
    tick(60).await;
    of_ann.until("document.querySelector('#word').value === 'running: at 60'").await;
    let of_bob_still = of_bob.text("#word").await;
    assert!(!of_bob_still.contains("at "), "a page shows what is not its own: {of_bob_still}");

    // Bob tries everything.
    let missing = "0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5c6d";
    for (method, path) in [
        ("GET", ""),
        ("GET", "/logs"),
        ("GET", "/history"),
        ("GET", "/result"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let ask = async |task_id: &str| {
            let (status, body) =
                call(&url, &bob, method.clone(), &format!("/tasks/{task_id}{path}"), Value::Null).await;
            (status, body.to_string().replace(task_id, "ID"))
        };
        let foreign = ask(&ann_task).await;
        assert_eq!((foreign.0, &foreign), (StatusCode::NOT_FOUND, &ask(missing).await), "{method} {path}");
    }
    let (_, list) = call(&url, &bob, reqwest::Method::GET, "/tasks", Value::Null).await;
    let ids: Vec<&Value> = list["tasks"].as_array().expect("a list").iter().map(|task| &task["task_id"]).collect();
    assert_eq!(ids, [&json!(bob_task)]);
    let head = format!("Host: {address}\r\nAuthorization: Bearer {bob}");
    let mut socket = TestSocket::dial_with(&address, "/api/v1/ws", &["taskhub.v1"], &head).await;
    let filter = json!({"task_id": [ann_task]});
    socket.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": filter, "snapshot": {}})).await;
    let heard = socket.through("the mark", |message| message["type"] == "mark").await;
    tick(80).await;
    of_ann.until("document.querySelector('#word').value === 'running: at 80'").await;
    socket.say(json!({"op": "ping", "id": 2})).await;
    let later = socket.through("the pong", |message| message["type"] == "pong").await;
    assert!(!heard.iter().chain(&later).any(|message| message.to_string().contains(&ann_task)), "{heard:?} {later:?}");
    let stolen = of_bob.look(&format!("fetch('/token?task_id={ann_task}').then((answer) => answer.status)")).await;
    assert_eq!(stolen, 403, "the application gives its tokens to those they are for");

    // While both watch.
    taskhub(at, &["token", "revoke", "app"]);
    for page in [&mut of_ann, &mut of_bob] {
        page.until("document.body.dataset.live !== 'live'").await;
    }
    let again = eventually("the application is refused", async || {
        let answer = Client::new().get(format!("{site}/?as=ann")).send().await.expect("an answer");
        (answer.status() == StatusCode::BAD_GATEWAY).then_some(())
    });
    again.await;
    for mut page in [of_ann, of_bob] {
        page.errors.clear();
        page.close().await;
    }
    drop(hub);
}
