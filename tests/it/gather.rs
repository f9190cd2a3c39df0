//! Many submissions become one task, whose payload is the list of theirs, byte for byte.

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, id};

async fn submit(hub: &TestHub, body: &str) -> Answer {
    let request = hub.request(Method::POST, "/api/v1/tasks").header("content-type", "application/json");
    Answer::of(request.body(body.to_owned())).await
}

fn item(payload: &str, gather: &str) -> String {
    format!(r#"{{"task_type":"t","payload":{payload},"gather":{{"key":"k",{gather}}}}}"#)
}

/// The text of a task's payload, as GET shows it.
async fn payload(hub: &TestHub, task: &str) -> String {
    let text = hub.get(&format!("/api/v1/tasks/{task}")).await.text;
    let (_, payload) = text.split_once(",\"payload\":").expect("it has a payload");
    // One that waits says for what behind it.
    let payload = payload.split_once(",\"waits_for\":").map_or(payload, |(payload, _)| payload);
    payload.strip_suffix('}').unwrap_or(payload).to_owned()
}

#[tokio::test]
async fn many_become_one_and_each_is_kept_as_it_came() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let gather = r#""max_count":4,"max_wait_ms":600000"#;
    let first = submit(&hub, &item("{\"b\" : 1.0,\n \"a\":\"\\u00e9\"}", gather)).await;
    assert_eq!((first.status, &first.body["gathered"], &first.body["status"]), (201, &json!(1), &json!("scheduled")));
    let task = id(&first.body);
    let second = submit(&hub, &item("[ ]", gather)).await;
    assert_eq!((second.status, id(&second.body), &second.body["gathered"]), (200, task.clone(), &json!(2)));
    assert_eq!(payload(&hub, &task).await, "[{\"b\" : 1.0,\n \"a\":\"\\u00e9\"},[ ]]");
    // Some are in the file by now, and some that come are not.
    hub.restart().await;
    assert_eq!(payload(&hub, &task).await, "[{\"b\" : 1.0,\n \"a\":\"\\u00e9\"},[ ]]");
    let nothing = format!(r#"{{"task_type":"t","gather":{{"key":"k",{gather}}}}}"#);
    assert_eq!(submit(&hub, &nothing).await.expect(200)["gathered"], 3);
    assert_eq!(payload(&hub, &task).await, "[{\"b\" : 1.0,\n \"a\":\"\\u00e9\"},[ ],null]");
    let last = submit(&hub, &item("1e2", gather)).await;
    assert_eq!((&last.body["gathered"], &last.body["status"]), (&json!(4), &json!("pending")));
    let next = submit(&hub, &item("5", gather)).await;
    assert_eq!((next.status, &next.body["gathered"]), (201, &json!(1)));

    let claim = json!({"worker_id": "w", "wait_ms": 5_000});
    let claimed = hub.call(Method::POST, "/api/v1/worker/claim", Some(&claim)).await;
    assert!(claimed.text.contains("\"payload\":[{\"b\" : 1.0,\n \"a\":\"\\u00e9\"},[ ],null,1e2]"), "{}", claimed.text);
    assert_eq!(hub.events(&task).await[..4], ["created", "updated", "updated", "updated"]);
    // A retry may bring another payload, in the place of all of them.
    let path = format!("/api/v1/tasks/{task}/attempts/1/fail");
    hub.call(Method::POST, &path, Some(&json!({"error": {"kind": "k", "message": "m"}}))).await.expect(200);
    let path = format!("/api/v1/tasks/{task}/retry");
    hub.call(Method::POST, &path, Some(&json!({"payload": ["other"]}))).await.expect(200);
    assert_eq!(payload(&hub, &task).await, r#"["other"]"#);
    hub.restart().await;
    assert_eq!(payload(&hub, &task).await, r#"["other"]"#);
    let claimed = hub.call(Method::POST, "/api/v1/worker/claim", Some(&claim)).await;
    assert!(claimed.text.contains(r#""payload":["other"]"#), "{}", claimed.text);
}

#[tokio::test]
async fn a_flood_is_gathered_without_loss() {
    let hub = TestHub::builder().on_disk().start().await;
    let put = |n: usize| {
        let (hub, body) = (&hub, item(&n.to_string(), r#""max_count":100"#));
        async move { submit(hub, &body).await }
    };
    let answers = futures::future::join_all((0..250).map(put)).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 3);
    let mut all: Vec<u64> = Vec::new();
    for answer in answers.iter().filter(|answer| answer.status == 201) {
        let list: Vec<u64> = serde_json::from_str(&payload(&hub, &id(&answer.body)).await).unwrap();
        assert!(list.len() == 100 || list.len() == 50, "{}", list.len());
        all.extend(list);
    }
    all.sort_unstable();
    assert_eq!(all, (0..250).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_task_is_ready_once_its_time_is_over_or_it_is_large_enough() {
    let hub = TestHub::start().await;
    let task = id(&submit(&hub, &item("1", r#""max_wait_ms":30"#)).await.expect(201));
    let done = hub.get(&format!("/api/v1/tasks/{task}?wait_ms=5000&since_rev=1")).await.expect(200);
    assert_eq!(done["status"], "pending");
    let large = id(&submit(&hub, &item("\"123\"", r#""max_bytes":10"#)).await.expect(201));
    let other = id(&submit(&hub, &item("\"456\"", r#""max_bytes":10"#)).await.expect(201));
    assert_ne!(large, other);
    assert_eq!(hub.task(&large).await["status"], "pending");
}

#[tokio::test]
async fn in_a_batch_they_stand_in_their_places() {
    let hub = TestHub::start().await;
    let one = json!({"task_type": "t", "payload": 1, "gather": {"key": "k", "max_count": 2}});
    let body = json!({"tasks": [one, {"task_type": "t"}, one, one]});
    let answer = hub.call(Method::POST, "/api/v1/tasks/batch", Some(&body)).await.expect(201);
    let tasks = answer["tasks"].as_array().unwrap();
    let gathered: Vec<Option<&Value>> = tasks.iter().map(|task| task.get("gathered")).collect();
    assert_eq!(gathered, [Some(&json!(1)), None, Some(&json!(2)), Some(&json!(1))]);
    let existing: Vec<Option<&Value>> = tasks.iter().map(|task| task.get("existing")).collect();
    assert_eq!(existing, [None, None, Some(&json!(true)), None]);
    assert_eq!(id(&tasks[0]), id(&tasks[2]));
}

#[tokio::test]
async fn what_cannot_be_gathered_is_refused_by_name() {
    let hub = TestHub::start().await;
    let gather = json!({"key": "k", "max_count": 2});
    for (path, body, expected) in [
        ("tasks", json!({"task_type": "t", "gather": {"max_count": 2}}), "422 invalid_field gather.key"),
        ("tasks", json!({"task_type": "t", "gather": {"key": "k"}}), "422 invalid_field gather"),
        ("tasks", json!({"task_type": "t", "gather": gather, "delay_ms": 5}), "422 invalid_field gather"),
        ("tasks", json!({"task_type": "t", "gather": gather, "unique": {"key": "k"}}), "422 invalid_field gather"),
        ("workflows", json!({"tasks": [{"task_type": "t", "gather": gather}]}), "422 invalid_field tasks[0].gather"),
        (
            "workflows",
            json!({"chain": [{"task_type": "t", "unique": {"key": "k"}}]}),
            "422 invalid_field chain[0].unique",
        ),
    ] {
        let refused = hub.call(Method::POST, &format!("/api/v1/{path}"), Some(&body)).await;
        assert_eq!(refused.problem(), expected, "{body}");
    }
    let task = id(&hub.submit(json!({"task_type": "t", "gather": gather})).await);
    let patched = hub.call(Method::PATCH, &format!("/api/v1/tasks/{task}"), Some(&json!({"payload": 1}))).await;
    assert_eq!(patched.problem(), "422 invalid_field payload");
}
