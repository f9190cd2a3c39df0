//! Running tasks that add others over their worker's socket, or from a function in Rust.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use taskhub::Hub;
use taskhub::task::{NewTask, TaskId};
use taskhub::worker::{Context, SpawnError, TaskFailure, Worker};

use crate::kit::{HubProcess, TestHub, eventually, id, in_time, millis};

fn spawn(id: u64, task_id: &str, attempt: u64, tasks: Value) -> Value {
    json!({"op": "spawn", "id": id, "task_id": task_id, "attempt": attempt, "tasks": tasks})
}

/// How many tasks there are of this type.
async fn count(hub: &TestHub, task_type: &str) -> usize {
    let list = hub.get(&format!("/api/v1/tasks?task_type={task_type}&limit=500")).await.expect(200);
    list["tasks"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_attempt_adds_tasks_and_hears_their_ids() {
    let hub = TestHub::start().await;
    let body = json!({"user_id": "ann", "chain": [{"task_type": "plan"}]});
    let workflow = hub.post("/api/v1/workflows", body).await.expect(201);
    let plan = id(&workflow["tasks"][0]);
    let mut worker = hub.worker("w", json!({"task_types": ["plan"]})).await;
    worker.expect("run").await;
    let tasks = json!([
        {"ref": "page", "task_type": "page", "payload": {"n": 1}},
        {"ref": "sum", "task_type": "sum", "depends_on": ["@page", "@self"]},
    ]);
    // What is reported in the same breath is decided after it.
    let words = [spawn(7, &plan, 1, tasks), json!({"op": "complete", "task_id": plan, "attempt": 1})];
    worker.say_text(words.map(|word| word.to_string()).join("\n")).await;
    let spawned = worker.expect("spawned").await;
    assert_eq!((&spawned["id"], &spawned["task_id"], &spawned["attempt"]), (&json!(7), &json!(plan), &json!(1)));
    worker.expect("ack").await;
    let task_ids: Vec<&str> = spawned["task_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let (page, sum) = (hub.task(task_ids[0]).await, hub.task(task_ids[1]).await);
    assert_eq!((&page["task_type"], &sum["task_type"]), (&json!("page"), &json!("sum")));
    for task in [&page, &sum] {
        let expected = (&json!(plan), &workflow["workflow"]["task_id"], &json!("ann"));
        assert_eq!((&task["parent_id"], &task["workflow_id"], &task["user_id"]), expected);
    }
    assert_eq!(sum["depends_on"], json!([task_ids[0], plan]));
}

/// What is declared of their types holds for them too: defaults, and schemas for payloads of any size.
#[tokio::test]
async fn declared_types_hold_for_what_is_added() {
    let hub = TestHub::start().await;
    let declared = json!({"defaults": {"queue": "slow"}, "payload_schema": {"type": "object", "required": ["n"]}});
    hub.put("/api/v1/task-types/s", declared).await.expect(201);
    let task_id = hub.submit_any().await;
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    for (id, padding) in [(1, 10), (2, 100_000)] {
        let payload = json!({"padding": "x".repeat(padding)});
        worker.say(spawn(id, &task_id, 1, json!([{"task_type": "s", "payload": payload}]))).await;
        let refused = worker.expect("refused").await;
        assert_eq!((&refused["id"], &refused["code"]), (&json!(id), &json!("payload_invalid")), "{refused}");
        assert!(refused["errors"][0]["message"].is_string(), "{refused}");
    }
    let payload = json!({"n": 1, "padding": "x".repeat(100_000)});
    let words = [
        spawn(3, &task_id, 1, json!([{"task_type": "s", "payload": payload}])),
        json!({"op": "complete", "task_id": task_id, "attempt": 1}),
    ];
    worker.say_text(words.map(|word| word.to_string()).join("\n")).await;
    let spawned = worker.expect("spawned").await;
    worker.expect("ack").await;
    assert_eq!(hub.task(spawned["task_ids"][0].as_str().unwrap()).await["queue"], "slow");
}

/// Large submissions wait in a line of their own, but not those of an attempt: what it reports next would pass them.
#[tokio::test]
async fn a_large_call_is_decided_before_what_is_reported_after_it() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("w", json!({"task_types": ["t"]})).await;
    for _ in 0..5 {
        let task_id = hub.submit_any().await;
        worker.expect("run").await;
        let tasks = json!([{"task_type": "s", "payload": "x".repeat(900_000)}]);
        let words = [spawn(1, &task_id, 1, tasks), json!({"op": "complete", "task_id": task_id, "attempt": 1})];
        worker.say_text(words.map(|word| word.to_string()).join("\n")).await;
        worker.expect("spawned").await;
        worker.expect("ack").await;
    }
}

#[tokio::test]
async fn what_cannot_be_added_is_refused_by_its_field() {
    let hub = TestHub::start().await;
    let (task_id, other) = (hub.submit_any().await, hub.submit_any().await);
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    let one = || json!([{"task_type": "s"}]);
    let many: Vec<Value> = (0..10_001).map(|_| json!({"task_type": "s"})).collect();
    let nobody = "01890000-0000-7000-8000-00000000002a";
    for (at, (words, code, field)) in [
        (spawn(0, &task_id, 2, one()), "lease_lost", None),
        (spawn(1, &other, 1, one()), "lease_lost", None),
        (spawn(2, nobody, 1, one()), "task_not_found", None),
        (spawn(3, &task_id, 1, json!([])), "invalid_field", Some("tasks")),
        (spawn(4, &task_id, 1, json!({"task_type": "s"})), "invalid_field", Some("tasks")),
        (spawn(5, &task_id, 1, json!(many)), "limit_exceeded", Some("tasks")),
        (spawn(6, &task_id, 1, json!([{"task_type": "s"}, {}])), "invalid_field", Some("tasks[1].task_type")),
        (spawn(7, &task_id, 1, json!([{"task_type": "s", "typ": 1}])), "unknown_field", Some("tasks[0].typ")),
        (
            spawn(8, &task_id, 1, json!([{"task_type": "s", "run_at": "2030-01-01T00:00:00Z", "delay_ms": 1}])),
            "invalid_field",
            Some("tasks[0].delay_ms"),
        ),
        (
            spawn(9, &task_id, 1, json!([{"task_type": "s", "parent_id": other}])),
            "invalid_field",
            Some("tasks[0].parent_id"),
        ),
        (
            spawn(10, &task_id, 1, json!([{"task_type": "s", "depends_on": ["@nobody"]}])),
            "invalid_field",
            Some("tasks[0].depends_on[0]"),
        ),
        (
            spawn(11, &task_id, 1, json!([{"task_type": "s", "unique": {"key": "k"}}])),
            "invalid_field",
            Some("tasks[0].unique"),
        ),
        (
            spawn(12, &task_id, 1, json!([{"task_type": "s", "callbacks": [{"url": "http://127.0.0.1/"}]}])),
            "invalid_field",
            Some("tasks[0].callbacks[0].url"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        worker.say(words.clone()).await;
        let said = worker.expect("refused").await;
        assert_eq!((&said["id"], &said["code"]), (&json!(at), &json!(code)), "{said}");
        assert_eq!((&said["task_id"], &said["attempt"]), (&words["task_id"], &words["attempt"]));
        assert_eq!(said["field"].as_str(), field, "{said}");
    }
    for key in ["", &"k".repeat(256)] {
        let mut words = spawn(20, &task_id, 1, one());
        words["key"] = json!(key);
        worker.say(words).await;
        assert_eq!(worker.expect("refused").await["field"], "key");
    }
    // Without an id it is answered without one; what is no message at all is told as such.
    let mut words = spawn(0, &task_id, 2, one());
    words.as_object_mut().unwrap().remove("id");
    worker.say(words).await;
    assert!(worker.expect("refused").await.get("id").is_none());
    worker.say(json!({"op": "spawn", "task_id": task_id, "attempt": 1})).await;
    worker.expect("error").await;
    assert_eq!(count(&hub, "s").await, 0, "nothing was half done");
    worker.say(spawn(30, &task_id, 1, one())).await;
    assert_eq!(worker.expect("spawned").await["id"], 30);
}

#[tokio::test]
async fn a_call_that_is_made_again_adds_nothing_twice() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = hub.submit_any().await;
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    let with_key = |id: u64, attempt: u64, tasks: Value| {
        let mut words = spawn(id, &task_id, attempt, tasks);
        words["key"] = json!("k");
        words
    };
    let tasks = || json!([{"task_type": "s"}, {"task_type": "s"}]);
    worker.say(with_key(1, 1, tasks())).await;
    let first = worker.expect("spawned").await["task_ids"].clone();
    worker.cut();
    let holding = json!({"holding": [{"task_id": task_id, "attempt": 1}], "task_types": ["t"]});
    let mut worker = hub.worker("w", holding.clone()).await;
    worker.say(with_key(2, 1, tasks())).await;
    assert_eq!(worker.expect("spawned").await["task_ids"], first);
    worker.say(with_key(3, 1, json!([{"task_type": "s"}]))).await;
    let other = worker.expect("refused").await;
    assert_eq!((&other["id"], &other["code"]), (&json!(3), &json!("idempotency_conflict")));
    drop(worker);
    hub.restart().await;
    let mut worker = hub.worker("w", holding).await;
    worker.say(with_key(4, 1, tasks())).await;
    // The restart gave the task back.
    let said = worker.next_of_either("refused", "run").await;
    let attempt = if said["type"] == "run" { said["attempt"].as_u64().unwrap() } else { 2 };
    worker.say(with_key(5, attempt, tasks())).await;
    let again = worker.until("the answer", |said| said["id"] == 5).await;
    assert_eq!(again["task_ids"], first, "also by the next attempt: {again}");
    assert_eq!(count(&hub, "s").await, 2);
}

#[tokio::test]
async fn only_so_many_calls_of_a_connection_wait_at_once() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let mut worker = hub.worker("w", json!({"task_types": ["t"]})).await;
    worker.expect("run").await;
    let words: Vec<String> =
        (0..65).map(|id| spawn(id, &task_id, 1, json!([{"task_type": "s"}])).to_string()).collect();
    worker.say_text(words.join("\n")).await;
    let refused = worker.expect("refused").await;
    assert_eq!((&refused["id"], &refused["code"]), (&json!(64), &json!("overloaded")));
    for id in 0..64 {
        assert_eq!(worker.expect("spawned").await["id"], id);
    }
    worker.say(spawn(65, &task_id, 1, json!([{"task_type": "s"}]))).await;
    worker.expect("spawned").await;
    assert_eq!(count(&hub, "s").await, 65);
}

/// Fans out, and gathers what came of it.
async fn fan_out(ctx: Context) -> Result<Vec<TaskId>, TaskFailure> {
    let parts: Vec<u64> = ctx.payload()?;
    let tasks: Vec<NewTask> = parts.iter().map(|part| NewTask::new("part").payload(part)).collect::<Result<_, _>>()?;
    Ok(ctx.spawn(&tasks).await?)
}

#[tokio::test]
async fn a_function_adds_tasks_over_a_socket_and_within_its_hub() {
    let part = |ctx: Context| async move { Ok::<_, TaskFailure>(10 * ctx.payload::<u64>()?) };
    let hub = TestHub::start().await;
    let worker = Worker::new(&hub.url).concurrency(4).register("fan-out", fan_out).register("part", part);
    let worker = tokio::spawn(worker.run(std::future::pending()));
    let remote = id(&hub.submit(json!({"task_type": "fan-out", "payload": [1, 2, 3]})).await);
    let task = hub.finished(&remote).await;
    let task_ids = task["result"].as_array().unwrap();
    assert_eq!(task_ids.len(), 3, "{task}");
    for (at, task_id) in task_ids.iter().enumerate() {
        let part = hub.finished(task_id.as_str().unwrap()).await;
        assert_eq!((&part["result"], &part["parent_id"]), (&json!(10 * (at + 1)), &json!(remote)));
    }
    worker.abort();

    let local = Hub::builder().register("fan-out", fan_out).register("part", part).open().await.unwrap();
    let task_id = local.submit(NewTask::new("fan-out").payload(&[4, 5]).unwrap()).await.unwrap();
    let task = in_time("it ends", local.wait(task_id)).await.unwrap().unwrap();
    let task_ids: Vec<TaskId> = task.result.unwrap().to().unwrap();
    let parts = in_time("they end", local.wait_all(&task_ids)).await.unwrap();
    let results: Vec<u64> = parts.into_iter().map(|task| task.unwrap().result.unwrap().to().unwrap()).collect();
    assert_eq!(results, [40, 50]);
    local.shutdown(millis(0)).await;
}

#[tokio::test]
async fn a_function_hears_why_its_tasks_are_refused() {
    async fn wrong(ctx: Context) -> Result<String, TaskFailure> {
        let tasks = [NewTask { priority: Some(101), ..NewTask::new("s") }];
        let refused = |spawned| match spawned {
            Err(SpawnError::Refused { code, field, .. }) => format!("{code} {}", field.unwrap_or_default()),
            other => panic!("{other:?}"),
        };
        let first = refused(ctx.spawn(&tasks).await);
        let second = refused(ctx.spawn(&[]).await);
        let once = ctx.spawn_once("k", &[NewTask::new("s")]).await?;
        assert_eq!(ctx.spawn_once("k", &[NewTask::new("s")]).await?, once);
        let third = refused(ctx.spawn_once("k", &[NewTask::new("other")]).await);
        Ok([first, second, third].join(", "))
    }
    let expected = "invalid_field tasks[0].priority, invalid_field tasks, idempotency_conflict ";
    let hub = TestHub::start().await;
    let worker = tokio::spawn(Worker::new(&hub.url).register("t", wrong).run(std::future::pending()));
    let task_id = hub.submit_any().await;
    assert_eq!(hub.finished(&task_id).await["result"], expected);
    worker.abort();
    let local = Hub::builder().register("t", wrong).open().await.unwrap();
    let task_id = local.submit(NewTask::new("t")).await.unwrap();
    let task = in_time("it ends", local.wait(task_id)).await.unwrap().unwrap();
    assert_eq!(task.result.unwrap().to::<String>().unwrap(), expected);
    local.shutdown(millis(0)).await;
}

/// A hub that is killed between a call and its answer, again and again: each call adds its tasks once.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hub_adds_nothing_twice_and_loses_nothing() {
    const CALLS: u32 = 40;
    let folder = tempfile::tempdir().unwrap();
    let first = HubProcess::start(folder.path(), ["--lease", "30s", "--grace", "30s"]);
    let (url, address) = (first.url.clone(), first.address().to_owned());
    let done = Arc::new(AtomicU32::new(0));
    let calls = done.clone();
    let worker = Worker::new(&url).id("w").register("t", move |ctx: Context| {
        let calls = calls.clone();
        async move {
            let mut all = Vec::new();
            for call in 0..CALLS {
                all.extend(ctx.spawn(&[NewTask::new("s").payload(&call)?, NewTask::new("s").payload(&call)?]).await?);
                calls.store(call + 1, Ordering::SeqCst);
            }
            Ok::<_, TaskFailure>(all)
        }
    });
    let worker = tokio::spawn(worker.run(std::future::pending()));
    let client = taskhub::client::Client::new(&url).unwrap();
    let task_id = client.submit(&NewTask::new("t")).await.unwrap().task_id;
    let mut hub = first;
    for kill in 1..=4 {
        eventually("some calls are answered", async || (done.load(Ordering::SeqCst) >= kill * 8).then_some(())).await;
        hub.program.kill();
        hub = HubProcess::start_at(&address, folder.path(), ["--lease", "30s", "--grace", "30s"]);
    }
    let task = in_time("it ends", async {
        loop {
            if let Ok(task) = client.wait(task_id).await {
                return task;
            }
        }
    })
    .await;
    let told: Vec<TaskId> = task.result.unwrap().to().unwrap();
    assert_eq!(told.len(), 2 * CALLS as usize);
    let query = taskhub::client::ListQuery {
        task_type: Some("s".into()),
        order: taskhub::client::Order::OldestFirst,
        limit: Some(500),
        ..Default::default()
    };
    let mut there: Vec<TaskId> = client.list(&query).await.unwrap().tasks.iter().map(|task| task.task_id).collect();
    there.sort();
    let mut told = told;
    told.sort();
    assert_eq!(there, told, "what was told is there, and nothing else");
    worker.abort();
}
