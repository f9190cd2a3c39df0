//! There is one task of a kind at a time: over REST, over restarts, in batches and on the command line.

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, id, program};

async fn submit(hub: &TestHub, body: Value) -> Answer {
    hub.call(Method::POST, "/api/v1/tasks", Some(&body)).await
}

#[tokio::test]
async fn what_is_there_is_the_answer() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let body = json!({"task_type": "t", "payload": {"customer": {"id": 7}, "n": 1}, "unique": {"by": ["payload/customer/id"]}});
    let first = submit(&hub, body.clone()).await;
    assert_eq!((first.status, first.header("taskhub-existing")), (201, ""));
    let again = json!({"task_type": "t", "payload": {"n": 2, "customer": {"id": 7}}, "unique": {"by": ["payload/customer/id"]}});
    let there = submit(&hub, again.clone()).await;
    assert_eq!((there.status, there.header("taskhub-existing")), (200, "true"));
    assert_eq!((id(&there.body), there.header("location")), (id(&first.body), first.header("location")));
    let other =
        json!({"task_type": "t", "payload": {"customer": {"id": 7.0}}, "unique": {"by": ["payload/customer/id"]}});
    assert_eq!(submit(&hub, other).await.status, 201, "numbers are told apart by their digits");

    // It is answered as it is by now: with its newest tick, and after a restart.
    let given = hub.claim("w").await;
    assert_eq!(given["task"]["task_id"], first.body["task_id"]);
    let progress = json!({"progress": {"percentage": 40}});
    let path = format!("/api/v1/tasks/{}/attempts/1/progress", id(&first.body));
    hub.call(Method::POST, &path, Some(&progress)).await.expect(200);
    let there = submit(&hub, again.clone()).await;
    assert_eq!((there.status, &there.body["progress"]["percentage"]), (200, &json!(40)));
    hub.restart().await;
    assert_eq!(id(&submit(&hub, again.clone()).await.body), id(&first.body));
    let mut reject = again.clone();
    reject["unique"]["on_conflict"] = json!("reject");
    let refused = submit(&hub, reject).await;
    assert_eq!(refused.problem(), "409 conflict unique");
}

#[tokio::test]
async fn a_time_that_is_held_outlives_the_task_and_the_hub() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let body = json!({"task_type": "t", "unique": {"key": "k", "within_ms": 3_600_000}});
    let first = id(&submit(&hub, body.clone()).await.expect(201));
    hub.claim("w").await;
    let path = format!("/api/v1/tasks/{first}/attempts/1/complete");
    hub.call(Method::POST, &path, Some(&json!({"result": 5}))).await.expect(200);
    hub.restart().await;
    let there = submit(&hub, body.clone()).await;
    assert_eq!((there.status, &there.body["status"], &there.body["result"]), (200, &json!("completed"), &json!(5)));
    hub.delete(&format!("/api/v1/tasks/{first}")).await.expect(204);
    let second = submit(&hub, body).await;
    assert_eq!(second.status, 201);
    assert_ne!(id(&second.body), first);
}

#[tokio::test]
async fn a_newer_submission_takes_the_place_of_one_that_waits() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let unique = json!({"key": "k", "until": "started", "on_conflict": "replace", "max_wait_ms": 60_000});
    let body = |n: u64| {
        json!({"task_type": "t", "title": format!("number {n}"), "payload": {"n": n}, "priority": n, "delay_ms": 50_000,
            "labels": {"version": n.to_string()}, "unique": unique})
    };
    let first = id(&submit(&hub, body(1)).await.expect(201));
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": {"labels": {"version": ["1"]}}})).await;
    let mark = live.next_of("mark").await["rev"].clone();
    let epoch = hub.hub().epoch().to_owned();
    let there = submit(&hub, body(2)).await;
    assert_eq!((there.status, there.header("taskhub-existing")), (200, "true"));
    assert_eq!((&there.body["title"], &there.body["priority"]), (&json!("number 2"), &json!(2)));
    assert_eq!(there.body["labels"], json!({"version": "2"}));
    // Whoever watched it by what it was sees it leave.
    let event = live.event("task.updated").await;
    assert_eq!((&event["task"]["task_id"], &event["task"]["labels"]), (&json!(first), &json!({"version": "2"})));
    for (label, count) in [("1", 0), ("2", 1)] {
        let found = hub.get(&format!("/api/v1/tasks?label.version={label}")).await.expect(200);
        assert_eq!(found["tasks"].as_array().map(Vec::len), Some(count), "version {label}");
    }
    // So does who was away meanwhile.
    hub.restart().await;
    let mut live = hub.live().await;
    let filter = json!({"labels": {"version": ["1"]}});
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": filter, "since": {"epoch": epoch, "rev": mark}}))
        .await;
    assert_eq!(live.next_of("task").await["task"]["labels"], json!({"version": "2"}));
    for (label, count) in [("1", 0), ("2", 1)] {
        let found = hub.get(&format!("/api/v1/tasks?label.version={label}")).await.expect(200);
        assert_eq!(found["tasks"].as_array().map(Vec::len), Some(count), "version {label}");
    }
    let mut last = body(3);
    last["delay_ms"] = json!(0);
    last["unique"].as_object_mut().unwrap().remove("max_wait_ms");
    assert_eq!(submit(&hub, last).await.expect(200)["status"], "pending");
    let given = hub.claim("w").await;
    assert_eq!((&given["task"]["task_id"], &given["task"]["payload"]), (&json!(first), &json!({"n": 3})));
    assert_eq!(hub.events(&first).await[..3], ["created", "updated", "updated"]);
    assert_eq!(submit(&hub, body(4)).await.status, 201, "that one has started");
}

#[tokio::test]
async fn in_a_batch_what_is_there_stands_in_its_place() {
    let hub = TestHub::start().await;
    let unique = |key: &str| json!({"task_type": "t", "unique": {"key": key}});
    let batch = |tasks: Vec<Value>| json!({"tasks": tasks});
    let first = id(&submit(&hub, unique("a")).await.expect(201));
    let path = "/api/v1/tasks/batch";
    let body = batch(vec![json!({"task_type": "t"}), unique("a"), unique("b"), unique("b")]);
    let request = || hub.request(Method::POST, path).header("idempotency-key", "i").json(&body);
    let answer = Answer::of(request()).await;
    assert_eq!(answer.status, 201);
    let tasks = answer.body["tasks"].as_array().unwrap();
    let existing: Vec<_> = tasks.iter().map(|task| task.get("existing")).collect();
    assert_eq!(existing, [None, Some(&json!(true)), None, Some(&json!(true))]);
    assert_eq!((id(&tasks[1]), id(&tasks[3])), (first.clone(), id(&tasks[2])));
    // The key's answer is that of the first time.
    let again = Answer::of(request()).await;
    assert_eq!((again.status, &again.body), (200, &answer.body));

    let all = hub.call(Method::POST, path, Some(&batch(vec![unique("a"), unique("b")]))).await;
    assert_eq!(all.status, 200, "nothing was made");
    let mut reject = unique("b");
    reject["unique"]["on_conflict"] = json!("reject");
    let before = hub.get("/api/v1/stats").await.body["rev"].clone();
    let refused = hub.call(Method::POST, path, Some(&batch(vec![unique("c"), reject]))).await;
    assert_eq!(refused.problem(), "409 conflict unique");
    assert_eq!(hub.get("/api/v1/stats").await.body["rev"], before);
}

#[tokio::test]
async fn a_storm_of_the_same_makes_one_task() {
    let hub = TestHub::start().await;
    let body = json!({"task_type": "t", "payload": [1, 2], "unique": {"by": ["payload"], "within_ms": 60_000}});
    let answers = futures::future::join_all((0..40).map(|_| submit(&hub, body.clone()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| id(&answer.body) == id(&answers[0].body)));
}

#[tokio::test]
async fn what_cannot_be_unique_is_refused_by_name() {
    let hub = TestHub::start().await;
    let unique = json!({"key": "k"});
    let first = id(&submit(&hub, json!({"task_type": "t"})).await.expect(201));
    for (path, body, expected) in [
        ("tasks", json!({"task_type": "t", "unique": {"by": ["payload/a", "user"]}}), "422 invalid_field unique.by[1]"),
        ("tasks", json!({"task_type": "t", "unique": {"key": "k", "how": 1}}), "422 unknown_field unique.how"),
        ("tasks", json!({"task_type": "t", "unique": {"by": vec!["queue"; 17]}}), "422 limit_exceeded unique.by"),
        ("tasks", json!({"task_type": "t", "unique": ["k"]}), "422 invalid_field unique"),
        ("tasks", json!({"task_type": "t", "unique": unique, "depends_on": [first]}), "422 invalid_field unique"),
        (
            "tasks/batch",
            json!({"tasks": [{"task_type": "t", "depends_on": ["@a"]}, {"task_type": "t", "ref": "a", "unique": unique}]}),
            "422 invalid_field tasks[1].unique",
        ),
    ] {
        let refused = hub.call(Method::POST, &format!("/api/v1/{path}"), Some(&body)).await;
        assert_eq!(refused.problem(), expected, "{body}");
    }
}

#[tokio::test]
async fn a_retry_into_a_key_that_another_holds_is_a_conflict() {
    let hub = TestHub::start().await;
    let body = json!({"task_type": "t", "unique": {"key": "k"}});
    let first = id(&submit(&hub, body.clone()).await.expect(201));
    hub.tell(&format!("/api/v1/tasks/{first}/cancel")).await.expect(200);
    let second = id(&submit(&hub, body).await.expect(201));
    assert_eq!(hub.tell(&format!("/api/v1/tasks/{first}/retry")).await.problem(), "409 conflict unique");
    hub.tell(&format!("/api/v1/tasks/{second}/cancel")).await.expect(200);
    hub.tell(&format!("/api/v1/tasks/{first}/retry")).await.expect(200);
}

#[tokio::test]
async fn the_command_and_the_client_say_that_it_was_there() {
    let hub = TestHub::start().await;
    let run = || {
        let words = ["submit", "t", "{\"a\":1}", "--unique-by", "queue,payload/a", "--unique-within", "1h"];
        program().args(words).env("TASKHUB_URL", &hub.url).output().expect("the program runs")
    };
    let first = run();
    let again = run();
    assert!(first.status.success() && again.status.success());
    assert_eq!(first.stdout, again.stdout);
    assert!(first.stderr.is_empty());
    assert!(String::from_utf8_lossy(&again.stderr).contains("was there already"));
    let client = taskhub::client::Client::new(&hub.url).unwrap();
    let unique = Some(Box::new(taskhub::task::NewUnique::key("k")));
    let new = taskhub::task::NewTask { unique, ..taskhub::task::NewTask::new("t") };
    assert!(!client.submit(&new).await.unwrap().existing);
    assert!(client.submit(&new).await.unwrap().existing);
    let batch = client.submit_batch(&[new, taskhub::task::NewTask::new("t")], None).await.unwrap();
    assert_eq!(batch.iter().map(|task| task.existing).collect::<Vec<_>>(), [true, false]);
}
