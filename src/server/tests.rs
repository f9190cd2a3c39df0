//! A hub on a port: workers on sockets, and how it ends.

use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Server;
use crate::config::ServeConfig;

/// How long anything may take before a test says that it did not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A worker on a socket.
struct Worker(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Worker {
    /// Connects with these headers, without a hello.
    async fn connect(server: &Server, headers: &[(&'static str, &str)]) -> Result<Worker, Error> {
        let url = format!("ws://{}/api/v1/worker/ws", server.address());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::try_from(*value).unwrap());
        }
        connect_async(request).await.map(|(socket, _)| Worker(socket))
    }

    /// Connects and is welcomed.
    async fn hello(server: &Server, hello: Value) -> (Worker, Value) {
        let mut worker = Worker::connect(server, &[]).await.unwrap();
        worker.say(&hello.to_string()).await;
        let welcome = worker.hear().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (worker, welcome)
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next message of the hub.
    #[track_caller]
    fn hear(&mut self) -> impl Future<Output = Value> {
        let from = std::panic::Location::caller();
        async move {
            match self.next().await {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                other => panic!("heard {other:?} at {from}"),
            }
        }
    }

    /// The code with which the hub closes, and what it said before.
    async fn closed(&mut self) -> (u16, Vec<Value>) {
        let mut said = Vec::new();
        loop {
            match self.next().await {
                Message::Text(text) => said.push(serde_json::from_str(&text).unwrap()),
                Message::Close(Some(frame)) => return (frame.code.into(), said),
                other => panic!("heard {other:?}"),
            }
        }
    }

    async fn next(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message in time");
            match message.expect("an open socket").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }
}

async fn start() -> Server {
    crate::dial::agree_in_tests();
    Server::start(ServeConfig::for_trial()).await.unwrap()
}

async fn submit(server: &Server, body: Value) -> String {
    let tasks = format!("{}/api/v1/tasks", server.url());
    let answer = reqwest::Client::new().post(tasks).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.unwrap()["task_id"].as_str().unwrap().to_owned()
}

async fn get(server: &Server, path: &str) -> Value {
    reqwest::get(format!("{}{path}", server.url())).await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_worker_runs_a_task() {
    let server = start().await;
    let (mut worker, welcome) =
        Worker::hello(&server, json!({"op": "hello", "worker_id": "w1", "task_types": ["t*"], "concurrency": 2})).await;
    assert_eq!(welcome, json!({"type": "welcome", "lease_ms": 10_000, "heartbeat_ms": 3_000, "keep": [], "drop": []}));
    let id = submit(&server, json!({"task_type": "t", "payload": {"n": 1}})).await;
    let run = worker.hear().await;
    assert_eq!((&run["type"], &run["attempt"], &run["task"]["payload"]), (&json!("run"), &json!(1), &json!({"n": 1})));
    assert_eq!(run["task"]["task_id"], id);

    worker
        .say(&format!(
            "{}\n{}\n{}",
            json!({"op": "progress", "task_id": id, "attempt": 1, "progress": {"percentage": 40}, "checkpoint": [1]}),
            json!({"op": "log", "task_id": id, "attempt": 1, "lines": [{"message": "hi"}]}),
            json!({"op": "complete", "task_id": id, "attempt": 1, "result": {"ok": true}}),
        ))
        .await;
    assert_eq!(worker.hear().await, json!({"type": "ack", "task_id": id, "attempt": 1}));
    let task = get(&server, &format!("/api/v1/tasks/{id}")).await;
    assert_eq!((&task["status"], &task["result"]["ok"]), (&json!("completed"), &json!(true)));
    assert_eq!(get(&server, &format!("/api/v1/tasks/{id}/logs")).await["lines"][0]["message"], "hi");
    // Said again after a cut, it is acknowledged again; something else is not.
    worker.say(&json!({"op": "complete", "task_id": id, "attempt": 1, "result": 1}).to_string()).await;
    assert_eq!(worker.hear().await["type"], "ack");
    worker.say(&json!({"op": "fail", "task_id": id, "attempt": 1}).to_string()).await;
    let refused = worker.hear().await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("refused"), &json!("lease_lost")));
    let stats = get(&server, "/api/v1/stats").await;
    assert_eq!((&stats["workers"], &stats["sockets"]), (&json!(1), &json!(1)));
    server.shutdown().await;
}

#[tokio::test]
async fn cancel_reaches_the_worker() {
    let server = start().await;
    let (mut worker, _) = Worker::hello(&server, json!({"op": "hello", "worker_id": "w1"})).await;
    let id = submit(&server, json!({"task_type": "t"})).await;
    worker.hear().await;
    let cancel = format!("{}/api/v1/tasks/{id}/cancel", server.url());
    let answer = reqwest::Client::new().post(cancel).json(&json!({"reason": "late"})).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(worker.hear().await, json!({"type": "cancel", "task_id": id, "attempt": 1, "reason": "late"}));
    worker.say(&json!({"op": "cancelled", "task_id": id, "attempt": 1}).to_string()).await;
    assert_eq!(worker.hear().await["type"], "ack");
    assert_eq!(get(&server, &format!("/api/v1/tasks/{id}/result")).await["status"], "cancelled");
    server.shutdown().await;
}

#[tokio::test]
async fn wrong_messages_are_answered_and_nonsense_closes() {
    let server = start().await;
    let mut worker = Worker::connect(&server, &[]).await.unwrap();
    for wrong in [
        r#"{"op":"heartbeat"}"#,
        r#"{"op":"hello"}"#,
        r#"{"op":"hello","worker_id":"a b"}"#,
        r#"{"op":"hello","worker_id":"w","concurrency":1001}"#,
        r#"{"op":"hello","worker_id":"w","colour":"red"}"#,
        "[1, 2]",
    ] {
        worker.say(wrong).await;
        assert_eq!(worker.hear().await["type"], "error", "{wrong}");
    }
    worker.say("{\"op\":\"hello\",\"worker_id\":\"w\"}\n{\"op\":\"dance\"}\n{\"op\":\"heartbeat\"}\n{\"op\":1}").await;
    assert_eq!(worker.hear().await["type"], "welcome");
    assert_eq!(worker.hear().await["type"], "error");
    assert_eq!(worker.hear().await["type"], "error");
    worker.say(r#"{"op":"progress","task_id":"01890000-0000-7000-8000-00000000002a","attempt":1}"#).await;
    assert_eq!(worker.hear().await["type"], "refused");
    worker.say("nonsense").await;
    assert_eq!(worker.closed().await.0, 4500);

    let mut binary = Worker::connect(&server, &[]).await.unwrap();
    binary.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(binary.closed().await.0, 4500);

    let mut large = Worker::hello(&server, json!({"op": "hello", "worker_id": "large"})).await.0;
    let _ = large.0.send(Message::text(" ".repeat(3 << 20))).await;
    assert_eq!(large.closed().await.0, 1009);
    server.shutdown().await;
}

#[tokio::test]
async fn subprotocols_and_origins() {
    let server = start().await;
    let protocol = "sec-websocket-protocol";
    let mut unknown = Worker::connect(&server, &[(protocol, "taskhub.worker.v9")]).await;
    match &mut unknown {
        Ok(worker) => assert_eq!(worker.closed().await.0, 4505),
        // This client gives up by itself where no protocol was chosen.
        Err(Error::Protocol(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let offers = [(protocol, "other, taskhub.worker.v1")];
    assert!(Worker::connect(&server, &offers).await.is_ok());
    let mut foreign = Worker::connect(&server, &[("origin", "https://evil.example")]).await.unwrap();
    assert_eq!(foreign.closed().await.0, 4503);
    assert!(Worker::connect(&server, &[("origin", &server.url())]).await.is_ok());
    server.shutdown().await;
}

#[tokio::test]
async fn the_newest_connection_of_a_worker_counts() {
    let server = start().await;
    let (mut old, _) = Worker::hello(&server, json!({"op": "hello", "worker_id": "w1"})).await;
    let id = submit(&server, json!({"task_type": "t"})).await;
    old.hear().await;
    let held = json!({"task_id": id, "attempt": 1});
    let stale = json!({"task_id": id, "attempt": 7});
    let hello = json!({"op": "hello", "worker_id": "w1", "holding": [held, stale]});
    let (mut new, welcome) = Worker::hello(&server, hello).await;
    assert_eq!((&welcome["keep"], &welcome["drop"]), (&json!([held]), &json!([stale])));
    assert_eq!(old.closed().await.0, 4506);
    new.say(&json!({"op": "complete", "task_id": id, "attempt": 1}).to_string()).await;
    assert_eq!(new.hear().await["type"], "ack");
    server.shutdown().await;
}

#[tokio::test]
async fn work_goes_on_while_a_large_backlog_is_pushed() {
    let server = start().await;
    let (mut worker, _) = Worker::hello(&server, json!({"op": "hello", "worker_id": "w1", "concurrency": 100})).await;
    let tasks: Vec<_> = (0..300).map(|_| json!({"task_type": "t", "payload": "x".repeat(20_000)})).collect();
    let batch = format!("{}/api/v1/tasks/batch", server.url());
    let answer = reqwest::Client::new().post(batch).json(&json!({"tasks": tasks})).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let (mut runs, mut acks) = (0, 0);
    while acks < 300 {
        let said = worker.hear().await;
        match said["type"].as_str() {
            Some("run") => {
                runs += 1;
                let (id, result) = (&said["task"]["task_id"], "y".repeat(20_000));
                worker.say(&json!({"op": "complete", "task_id": id, "attempt": 1, "result": result}).to_string()).await;
            }
            Some("ack") => acks += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(runs, 300);
    server.shutdown().await;
}

#[tokio::test]
async fn the_end_lets_running_work_finish_and_says_goodbye() {
    let config = ServeConfig { drain_timeout: PATIENCE, ..ServeConfig::for_trial() };
    let server = Server::start(config).await.unwrap();
    let url = server.url();
    let (mut worker, _) = Worker::hello(&server, json!({"op": "hello", "worker_id": "w1"})).await;
    let id = submit(&server, json!({"task_type": "t"})).await;
    worker.hear().await;
    let waits = tokio::spawn(reqwest::get(format!("{url}/api/v1/tasks/{id}/result?wait_ms=30000")));
    let ending = tokio::spawn(server.shutdown());
    assert_eq!(worker.hear().await, json!({"type": "drain"}));
    let ready = reqwest::get(format!("{url}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    worker.say(&json!({"op": "complete", "task_id": id, "attempt": 1, "result": 5}).to_string()).await;
    let (code, said) = worker.closed().await;
    assert_eq!(code, 4001);
    assert_eq!(
        said,
        [
            json!({"type": "ack", "task_id": id, "attempt": 1}),
            json!({"type": "bye", "code": 4001, "retry_ms": [500, 1_001]})
        ]
    );
    let answer: Value = waits.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(answer["result"], 5);
    tokio::time::timeout(PATIENCE, ending).await.unwrap().unwrap();
    assert!(reqwest::get(format!("{url}/healthz")).await.is_err());
}

#[tokio::test]
async fn waiting_calls_and_unfinished_work_do_not_hold_up_the_end() {
    let server = start().await;
    let url = server.url();
    let (mut worker, _) = Worker::hello(&server, json!({"op": "hello", "worker_id": "w1"})).await;
    let id = submit(&server, json!({"task_type": "t"})).await;
    worker.hear().await;
    let waits = tokio::spawn(reqwest::get(format!("{url}/api/v1/tasks/{id}?wait_ms=60000")));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    server.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(waits.await.unwrap().unwrap().json::<Value>().await.unwrap()["status"], "pending");
    assert_eq!(worker.closed().await.0, 4001);
}

#[tokio::test]
async fn a_hub_that_cannot_start_says_why() {
    let server = start().await;
    let taken = ServeConfig { listen: server.address().clone(), ..ServeConfig::for_trial() };
    assert!(Server::start(taken).await.err().unwrap().to_string().starts_with("cannot listen on 127.0.0.1:"));
    let open = ServeConfig { listen: "0.0.0.0:0".parse().unwrap(), ..ServeConfig::for_trial() };
    assert!(Server::start(open).await.err().unwrap().to_string().contains("--insecure-open"));
    server.shutdown().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = ServeConfig {
        store: crate::config::StoreKind::Sqlite,
        data: folder.path().join("data"),
        ..ServeConfig::for_trial()
    };
    let server = Server::start(config.clone()).await.unwrap();
    let id = submit(&server, json!({"task_type": "t", "payload": 1})).await;
    assert!(Server::start(config.clone()).await.is_err(), "a second hub on the same folder");
    server.shutdown().await;
    let server = Server::start(config).await.unwrap();
    assert_eq!(get(&server, &format!("/api/v1/tasks/{id}")).await["payload"], 1);
    server.shutdown().await;
}
