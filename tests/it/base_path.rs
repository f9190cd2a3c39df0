//! A hub under a path: everything is there and nothing is beside it, but for the probes.

use serde_json::json;
use taskhub::client::Client;

use crate::kit::{Answer, TestHub, TestSocket, id, program};

async fn hub() -> TestHub {
    TestHub::builder().set(|config| config.base_path = "/tasks".parse().unwrap()).start().await
}

/// The hub's address without the path.
fn root(hub: &TestHub) -> String {
    format!("http://{}", hub.address())
}

fn bare() -> reqwest::Client {
    let stays = reqwest::redirect::Policy::none();
    reqwest::Client::builder().no_proxy().redirect(stays).build().unwrap()
}

#[tokio::test]
async fn everything_stands_under_the_path() {
    let hub = hub().await;
    assert!(hub.url.ends_with("/tasks"), "{}", hub.url);
    let submitted = bare().post(format!("{}/api/v1/tasks", hub.url)).json(&json!({"task_type": "t"})).send().await;
    let submitted = submitted.unwrap();
    let location = submitted.url().join(submitted.headers()["location"].to_str().unwrap()).unwrap();
    assert!(location.path().starts_with("/tasks/api/v1/tasks/"), "{location}");
    assert_eq!(bare().get(location).send().await.unwrap().status(), 200);
    for path in
        ["/", "/taskhub.js", "/healthz", "/readyz", "/metrics", "/api/openapi.json", "/api/docs/", "/api/v1/stats"]
    {
        assert_eq!(hub.get(path).await.status, 200, "{path}");
    }
    assert_eq!(hub.get("/api/v1/nothing").await.problem(), "404 not_found");
    assert_eq!(Answer::of(hub.request(reqwest::Method::PUT, "/api/v1/tasks")).await.status, 405);

    let mut worker =
        TestSocket::dial_with(hub.address(), "/tasks/api/v1/worker/ws", &["taskhub.worker.v1"], "Host: localhost")
            .await;
    let mut live = TestSocket::dial_with(hub.address(), "/tasks/api/v1/ws", &["taskhub.v1"], "Host: localhost").await;
    live.expect("hello").await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a"})).await;
    live.next_of("mark").await;
    worker.say(json!({"op": "hello", "worker_id": "w"})).await;
    worker.next_of("run").await;
    live.event("task.running").await;

    // The programs are given the address with the path.
    let mut command = program();
    command.args(["submit", "t", "{}", "--json", "--hub", &hub.url]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let task_id = id(&serde_json::from_slice(&output.stdout).unwrap());
    let client = Client::new(&hub.url).unwrap();
    assert_eq!(client.get(task_id.parse().unwrap()).await.unwrap().task_id.to_string(), task_id);
}

#[tokio::test]
async fn nothing_is_beside_the_path_but_the_probes() {
    let hub = hub().await;
    for path in ["/healthz", "/readyz"] {
        let answer = bare().get(root(&hub) + path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    for path in [
        "/",
        "/api/v1/tasks",
        "/api/v1/ws",
        "/metrics",
        "/tasksx/api/v1/tasks",
        "/Tasks/",
        "/tasks%2fapi/v1/tasks",
        "/x/../tasks",
    ] {
        // The library would resolve the dots.
        let answer = Answer::of(bare().get(root(&hub) + path)).await;
        assert!(answer.status == 404 || path.contains(".."), "{path}: {}", answer.text);
        if answer.status == 404 {
            assert!(answer.body["detail"].as_str().unwrap().contains("/tasks/"), "{path}: {}", answer.text);
        }
    }
    let bare_path = bare().get(format!("{}/tasks?x=1", root(&hub))).send().await.unwrap();
    assert_eq!((bare_path.status().as_u16(), &bare_path.headers()["location"]), (308, &"/tasks/?x=1".parse().unwrap()));
}

/// The door is in front of both sides.
#[tokio::test]
async fn the_door_holds_within_and_beside_the_path() {
    let hub = hub().await;
    for path in ["/healthz", "/tasks", "/tasks/", "/tasks/healthz", "/api/v1/tasks", "/tasks/api/v1/tasks"] {
        for (name, value) in
            [("host", "evil.example"), ("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")]
        {
            let answer = Answer::of(bare().get(root(&hub) + path).header(name, value)).await;
            assert_eq!(answer.problem(), "403 forbidden", "{path} {name}");
        }
    }
    let follow = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for (path, expected) in [("/", 200), ("/api/v1/tasks", 403)] {
        let request = bare().get(format!("{}{path}", hub.url));
        let request = follow.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        assert_eq!(Answer::of(request).await.status, expected, "{path}");
    }
    for path in ["/tasks/api/v1/ws", "/tasks/api/v1/worker/ws"] {
        let mut socket = TestSocket::dial_with(hub.address(), path, &[], "Host: evil.example").await;
        assert_eq!(socket.closed().await.0, 4503, "{path}");
    }
}
