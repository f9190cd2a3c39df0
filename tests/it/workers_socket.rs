//! Workers on a socket: pushed work up to their concurrency, leases that follow the connection, and attempts that fence.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::kit::{TestHub, TestSocket, eventually, id, millis};

const PATH: &str = "/api/v1/worker/ws";
const PROTOCOL: &str = "taskhub.worker.v1";

fn of(task_id: &str, attempt: u64, op: &str, more: Value) -> Value {
    let mut words = json!({"op": op, "task_id": task_id, "attempt": attempt});
    words.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    words
}

fn held(task_id: &str, attempt: u64) -> Value {
    json!({"task_id": task_id, "attempt": attempt})
}

async fn hello(hub: &TestHub, words: Value) -> (TestSocket, Value) {
    let mut socket = TestSocket::open(hub, PATH, &[PROTOCOL]).await;
    socket.say(words).await;
    let welcome = socket.expect("welcome").await;
    (socket, welcome)
}

#[tokio::test]
async fn a_task_is_run_said_of_and_acknowledged() {
    let hub = TestHub::start().await;
    let (mut worker, welcome) = hello(&hub, json!({"op": "hello", "worker_id": "w"})).await;
    assert_eq!(welcome, json!({"type": "welcome", "lease_ms": 10_000, "heartbeat_ms": 3_000, "keep": [], "drop": []}));
    assert_eq!(worker.protocol.as_deref(), Some(PROTOCOL));
    let task_id = id(&hub.submit(json!({"task_type": "t", "payload": {"n": 1}})).await);
    let run = worker.expect("run").await;
    assert_eq!((&run["task"]["task_id"], &run["attempt"]), (&json!(task_id), &json!(1)));
    assert_eq!((&run["task"]["payload"], &run["task"]["worker_id"]), (&json!({"n": 1}), &json!("w")));
    // Several objects in one message are as good as several messages.
    let words = [
        of(&task_id, 1, "progress", json!({"progress": {"percentage": 50}})),
        of(&task_id, 1, "log", json!({"lines": [{"message": "half"}]})),
        json!({"op": "heartbeat"}),
        of(&task_id, 1, "complete", json!({"result": [1]})),
    ];
    worker.say_text(words.map(|word| word.to_string()).join("\n")).await;
    assert_eq!(worker.next().await, json!({"type": "ack", "task_id": task_id, "attempt": 1}));
    let task = hub.task(&task_id).await;
    assert_eq!((&task["result"], &task["progress"]["percentage"]), (&json!([1]), &json!(100)));
    let logs = hub.get(&format!("/api/v1/tasks/{task_id}/logs")).await.expect(200);
    assert_eq!(logs["lines"][0]["message"], "half");
}

#[tokio::test]
async fn reports_are_fenced_by_the_attempt_and_may_be_repeated() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("w", json!({"concurrency": 2})).await;
    let task_id = hub.submit_any().await;
    worker.expect("run").await;
    let refused = async |worker: &mut TestSocket, attempt: u64, code: &str| {
        let said = worker.expect("refused").await;
        assert_eq!(
            (&said["task_id"], &said["attempt"], &said["code"]),
            (&json!(task_id), &json!(attempt), &json!(code))
        );
    };
    for op in ["complete", "fail", "cancelled", "release", "progress", "log"] {
        let more = if op == "log" { json!({"lines": [{"message": "m"}]}) } else { json!({}) };
        worker.say(of(&task_id, 2, op, more)).await;
        refused(&mut worker, 2, "lease_lost").await;
    }
    worker.say(of(&task_id, 1, "cancelled", json!({}))).await;
    refused(&mut worker, 1, "cancel_not_requested").await;
    assert_eq!(hub.task(&task_id).await["status"], "running");
    for _ in 0..3 {
        worker.say(of(&task_id, 1, "complete", json!({"result": 1}))).await;
        worker.expect("ack").await;
    }
    worker.say(of(&task_id, 1, "fail", json!({}))).await;
    refused(&mut worker, 1, "lease_lost").await;
    assert_eq!(hub.task(&task_id).await["status"], "completed");
    let nobody = "01890000-0000-7000-8000-00000000002a";
    worker.say(of(nobody, 1, "complete", json!({}))).await;
    assert_eq!(worker.expect("refused").await["code"], "task_not_found");
}

#[tokio::test]
async fn no_more_than_its_concurrency_is_pushed() {
    let hub = TestHub::start().await;
    let tasks: Vec<Value> = (0..10).map(|_| json!({"task_type": "t"})).collect();
    hub.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
    let mut worker = hub.worker("w", json!({"concurrency": 3})).await;
    let mut mine = Vec::new();
    for _ in 0..3 {
        mine.push(id(&worker.expect("run").await["task"]));
    }
    let running = async || hub.get("/api/v1/stats").await.body["tasks"]["running"].clone();
    assert_eq!(running().await, 3);
    // Each that ends makes room for exactly one: the ack and the next run, nothing else.
    for _ in 0..7 {
        worker.say(of(&mine.remove(0), 1, "complete", json!({}))).await;
        let (one, two) = (worker.next().await, worker.next().await);
        let (ack, run) = if one["type"] == "ack" { (one, two) } else { (two, one) };
        assert_eq!((&ack["type"], &run["type"]), (&json!("ack"), &json!("run")));
        mine.push(id(&run["task"]));
        assert_eq!(running().await, 3);
    }
    worker.say(json!({"op": "drain"})).await;
    hub.submit_any().await;
    for task_id in mine {
        worker.say(of(&task_id, 1, "complete", json!({}))).await;
        assert_eq!(worker.next().await["type"], "ack", "who drains gets no new work");
    }
    assert_eq!(running().await, 0);
}

#[tokio::test]
async fn types_and_queues_choose_the_worker() {
    let hub = TestHub::start().await;
    let mut ingest = hub.worker("ingest", json!({"task_types": ["ingest.*"], "concurrency": 10})).await;
    let mut slow = hub.worker("slow", json!({"queues": ["slow", "night*"], "concurrency": 10})).await;
    for (task_type, queue) in [
        ("ingest.pdf", "default"),
        ("report", "default"),
        ("ingest.csv", "slow"),
        ("x", "nightly"),
        ("ingest", "default"),
    ] {
        hub.submit(json!({"task_type": task_type, "queue": queue})).await;
    }
    assert_eq!(ingest.expect("run").await["task"]["task_type"], "ingest.pdf");
    assert_eq!(slow.expect("run").await["task"]["task_type"], "ingest.csv");
    assert_eq!(slow.expect("run").await["task"]["task_type"], "x");
    let left = hub.get("/api/v1/tasks?status=pending&order=asc").await.expect(200);
    let left: Vec<&Value> = left["tasks"].as_array().unwrap().iter().map(|task| &task["task_type"]).collect();
    assert_eq!(left, [&json!("report"), &json!("ingest")]);
    let workers = hub.get("/api/v1/workers").await.expect(200);
    let seen: Vec<String> = workers["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| {
            let running = worker["running"].as_array().unwrap().len();
            format!("{} {} {} {running}", worker["worker_id"], worker["task_types"], worker["queues"])
        })
        .collect();
    assert_eq!(seen, [r#""ingest" ["ingest.*"] ["default"] 1"#, r#""slow" ["*"] ["slow","night*"] 2"#]);
}

#[tokio::test]
async fn a_worker_that_was_cut_off_keeps_what_it_holds() {
    let hub = TestHub::start().await;
    let (one, two) = (hub.submit_any().await, hub.submit_any().await);
    let mut worker = hub.worker("w", json!({"concurrency": 2})).await;
    worker.expect("run").await;
    worker.expect("run").await;
    let before = hub.task(&one).await;
    worker.cut();
    let holding = json!([held(&one, 1), held(&two, 7), held("01890000-0000-7000-8000-00000000002a", 1)]);
    let words = json!({"op": "hello", "worker_id": "w", "concurrency": 1, "holding": holding});
    let (mut worker, welcome) = hello(&hub, words).await;
    assert_eq!(welcome["keep"], json!([held(&one, 1)]));
    assert_eq!(welcome["drop"], json!([held(&two, 7), held("01890000-0000-7000-8000-00000000002a", 1)]));
    // The one it does not hold any more was given up at once; the one it holds goes on, with a higher rev.
    let lost = hub.task(&two).await;
    assert_eq!((&lost["status"], &lost["crashes"]), (&json!("pending"), &json!(1)));
    let kept = hub.task(&one).await;
    assert_eq!((&kept["status"], &kept["attempt"]), (&json!("running"), &json!(1)));
    assert!(kept["rev"].as_u64() > before["rev"].as_u64());
    worker.say(of(&one, 1, "complete", json!({"result": 1}))).await;
    assert_eq!(id(&worker.next_of("run").await["task"]), two);
    assert_eq!(hub.task(&one).await["result"], 1);
}

#[tokio::test]
async fn a_worker_that_does_not_come_back_loses_its_tasks_after_the_grace() {
    let hub = TestHub::builder().set(|config| config.grace = millis(100)).start().await;
    let task_id = hub.submit_any().await;
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    let mut other = hub.worker("other", json!({})).await;
    worker.cut();
    let run = other.expect("run").await;
    assert_eq!((id(&run["task"]), &run["attempt"]), (task_id.clone(), &json!(2)));
    let words = json!({"op": "hello", "worker_id": "w", "holding": [held(&task_id, 1)]});
    let (mut late, welcome) = hello(&hub, words).await;
    assert_eq!((&welcome["keep"], &welcome["drop"]), (&json!([]), &json!([held(&task_id, 1)])));
    late.say(of(&task_id, 1, "complete", json!({"result": "late"}))).await;
    assert_eq!(late.expect("refused").await["code"], "lease_lost");
    other.say(of(&task_id, 2, "complete", json!({"result": "mine"}))).await;
    other.expect("ack").await;
    let task = hub.task(&task_id).await;
    assert_eq!((&task["result"], &task["crashes"]), (&json!("mine"), &json!(1)));
}

/// A socket that is open and says nothing is as good as gone; one that says anything at all is not.
#[tokio::test]
async fn silence_loses_the_lease_and_a_heartbeat_keeps_it() {
    let hub = TestHub::builder().set(|config| config.lease = millis(400)).start().await;
    let (kept, lost) = (hub.submit_any().await, hub.submit_any().await);
    let mut beating = hub.worker("beating", json!({})).await;
    assert_eq!(id(&beating.expect("run").await["task"]), kept);
    let mut silent = hub.worker("silent", json!({})).await;
    assert_eq!(id(&silent.expect("run").await["task"]), lost);
    eventually("the silent one loses its task", async || {
        beating.say(json!({"op": "heartbeat"})).await;
        (hub.task(&lost).await["status"] == "pending").then_some(())
    })
    .await;
    assert_eq!(hub.task(&kept).await["status"], "running");
    // It is told to stop, and reads that when it reads again.
    let stop = json!({"type": "cancel", "task_id": lost, "attempt": 1, "reason": "lease lost"});
    assert_eq!(silent.expect("cancel").await, stop);
    silent.say(of(&lost, 1, "complete", json!({}))).await;
    // What it said late is refused; and heard of again, it gets work again.
    let told = [silent.next_of_either("refused", "run").await, silent.next_of_either("refused", "run").await];
    let of =
        |kind: &str| told.iter().find(|said| said["type"] == kind).unwrap_or_else(|| panic!("no {kind}: {told:?}"));
    assert_eq!(of("refused")["code"], "lease_lost");
    assert_eq!((id(&of("run")["task"]), &of("run")["attempt"]), (lost, &json!(2)));
}

#[tokio::test]
async fn the_newest_connection_of_a_worker_replaces_the_older() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let mut old = hub.worker("w", json!({})).await;
    old.expect("run").await;
    let words = json!({"op": "hello", "worker_id": "w", "holding": [held(&task_id, 1)]});
    let (mut new, welcome) = hello(&hub, words).await;
    assert_eq!(welcome["keep"], json!([held(&task_id, 1)]));
    assert_eq!(old.close_code().await, 4506);
    new.say(of(&task_id, 1, "complete", json!({}))).await;
    new.expect("ack").await;
    let workers = hub.get("/api/v1/workers").await.expect(200);
    assert_eq!(workers["workers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn giving_back_costs_nothing_and_failing_for_good_ends_it() {
    let hub = TestHub::start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 5})).await);
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    worker.say(of(&task_id, 1, "progress", json!({"checkpoint": [1, 2]}))).await;
    worker.say(of(&task_id, 1, "release", json!({}))).await;
    let (one, two) = (worker.next().await, worker.next().await);
    let run = if one["type"] == "run" { &one } else { &two };
    assert_eq!((&run["attempt"], &run["checkpoint"]), (&json!(2), &json!([1, 2])));
    assert_eq!((&run["task"]["tries"], &run["task"]["crashes"]), (&json!(1), &json!(0)));
    let error = json!({"error": {"kind": "x", "message": "for good"}, "retryable": false});
    worker.say(of(&task_id, 2, "fail", error)).await;
    worker.next_of("ack").await;
    let task = hub.task(&task_id).await;
    assert_eq!((&task["status"], &task["error"]["message"]), (&json!("failed"), &json!("for good")));
}

#[tokio::test]
async fn json_that_is_wrong_is_answered_and_the_socket_stays() {
    let hub = TestHub::start().await;
    let mut worker = TestSocket::open(&hub, PATH, &[PROTOCOL]).await;
    for wrong in [
        json!({"op": "heartbeat"}),
        json!({"op": "hello"}),
        json!({"op": "hello", "worker_id": "a b"}),
        json!({"op": "hello", "worker_id": "w", "concurrency": 0}),
        json!({"op": "hello", "worker_id": "w", "concurrency": 1001}),
        json!({"op": "hello", "worker_id": "w", "queues": []}),
        json!({"op": "hello", "worker_id": "w", "queue": "q"}),
        json!([1]),
    ] {
        worker.say(wrong.clone()).await;
        let said = worker.next().await;
        assert_eq!(said["type"], "error", "{wrong} got {said}");
        assert!(said["code"].is_string() && said["detail"].is_string(), "{said}");
    }
    // What stands behind the wrong one in the same message counts all the same.
    worker.say_text("{\"op\":\"drain\"} {\"op\":\"hello\",\"worker_id\":\"w\"} {\"op\":\"heartbeat\"}").await;
    worker.expect("error").await;
    worker.expect("welcome").await;
    let task_id = hub.submit_any().await;
    worker.expect("run").await;
    for wrong in [
        json!({"op": "explode"}),
        json!({"op": "complete"}),
        json!({"op": "complete", "task_id": "x", "attempt": 1}),
        json!({"op": "complete", "task_id": task_id, "attempt": 1, "results": 1}),
        json!({"op": "log", "task_id": task_id, "attempt": 1}),
        json!({"op": "progress", "task_id": task_id, "attempt": 1, "progress": {"percentage": 300}}),
        json!({"op": "hello", "worker_id": "w"}),
        json!(7),
    ] {
        worker.say(wrong.clone()).await;
        let said = worker.next().await;
        assert!(said["type"] == "error" || said["type"] == "refused", "{wrong} got {said}");
    }
    worker.say(of(&task_id, 1, "complete", json!({}))).await;
    worker.expect("ack").await;
}

#[tokio::test]
async fn what_is_no_json_closes_the_socket() {
    let hub = TestHub::start().await;
    for first in [true, false] {
        for (message, code) in [
            (Message::text("{"), 4500),
            (Message::text("hello"), 4500),
            (Message::text("{\"op\":\"heartbeat\"} x"), 4500),
            (Message::binary(b"{}".to_vec()), 4500),
            (Message::text(format!("\"{}\"", "x".repeat(3 << 20))), 1009),
        ] {
            let mut worker = TestSocket::open(&hub, PATH, &[PROTOCOL]).await;
            if !first {
                worker.say(json!({"op": "hello", "worker_id": "w"})).await;
                worker.expect("welcome").await;
            }
            worker.send(message.clone()).await;
            assert_eq!(worker.close_code().await, code, "{:.60}", message.to_string());
        }
    }
    hub.get("/readyz").await.expect(200);
}

#[tokio::test]
async fn a_worker_of_another_version_is_told() {
    let hub = TestHub::start().await;
    let mut unknown = TestSocket::open(&hub, PATH, &["taskhub.worker.v9"]).await;
    assert_eq!((unknown.protocol.clone(), unknown.close_code().await), (None, 4505));
    let mut several = TestSocket::open(&hub, PATH, &["taskhub.worker.v9", PROTOCOL]).await;
    several.say(json!({"op": "hello", "worker_id": "w"})).await;
    several.expect("welcome").await;
    assert_eq!(several.protocol.as_deref(), Some(PROTOCOL));
    let mut none = TestSocket::open(&hub, PATH, &[]).await;
    none.say(json!({"op": "hello", "worker_id": "v"})).await;
    none.expect("welcome").await;
    let plain = hub.get(PATH).await;
    assert_eq!(plain.problem(), "422 invalid_field Upgrade");
}
