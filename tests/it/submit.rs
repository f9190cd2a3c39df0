//! A submission leaves a task that says what was asked for, and nothing that was not.

use serde_json::{Value, json};

use crate::kit::{TestHub, id};

#[tokio::test]
async fn a_task_has_its_defaults_and_nothing_more() {
    let hub = TestHub::start().await;
    let answer = hub.post("/api/v1/tasks", json!({"task_type": "report"})).await;
    let task = &answer.body;
    assert_eq!((answer.status, answer.header("content-type")), (201, "application/json"));
    assert_eq!(answer.header("location"), format!("tasks/{}", id(task)));
    let mut fields: Vec<&str> = task.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "attempt",
            "crashes",
            "created_at",
            "max_attempts",
            "max_crashes",
            "priority",
            "queue",
            "rev",
            "status",
            "task_id",
            "task_type",
            "tick",
            "tries",
            "updated_at"
        ]
    );
    let expected = json!({"task_type": "report", "queue": "default", "status": "pending", "priority": 0, "attempt": 0,
        "tries": 0, "max_attempts": 1, "crashes": 0, "max_crashes": 3, "tick": 0});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(task[field], *value, "{field}");
    }
    let id: uuid::Uuid = id(task).parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    let at = task["created_at"].as_str().unwrap();
    assert!(at.len() == "2026-01-31T12:00:00.000Z".len() && at.ends_with('Z'), "{at}");
}

#[tokio::test]
async fn everything_that_can_be_said_is_kept() {
    let hub = TestHub::start().await;
    let parent = hub.submit_any().await;
    let said = json!({
        "task_type": "ingest.pdf", "queue": "slow", "title": "Ünïcode \"title\"", "description": "two\nlines",
        "user_id": "u 1", "labels": {"project_id": "p1", "k": ""}, "payload": {"b": 1, "a": [null, 1.50]},
        "priority": -100, "max_attempts": 5, "max_crashes": 7, "timeout_ms": 60_000, "parent_id": parent,
        "retry": {"base_ms": 10, "factor": 3.0, "max_ms": 1000, "jitter": 0.5},
    });
    let submitted = hub.submit(said.clone()).await;
    assert!(submitted.get("payload").is_none() || submitted["payload"] == said["payload"]);
    let task = hub.task(&id(&submitted)).await;
    for (field, value) in said.as_object().unwrap() {
        assert_eq!(task[field], *value, "{field}");
    }
}

/// What is in a payload is the caller's: numbers, spaces and order of keys come back as they went in.
#[tokio::test]
async fn a_payload_is_kept_byte_for_byte() {
    let hub = TestHub::start().await;
    for payload in
        ["null", "0", r#""é\u00e9""#, "{ \"b\" : 1.0,\n \"a\":1e2, \"a\":2 }", "123456789012345678901234567890"]
    {
        let body = format!(r#"{{"task_type":"t","payload":{payload}}}"#);
        let request = hub.request(reqwest::Method::POST, "/api/v1/tasks").header("content-type", "application/json");
        let task = crate::kit::Answer::of(request.body(body)).await.expect(201);
        let whole = hub.get(&format!("/api/v1/tasks/{}", id(&task))).await;
        assert!(whole.text.contains(&format!(r#""payload":{payload}"#)), "{payload} became {}", whole.text);
    }
    let none = hub.get(&format!("/api/v1/tasks/{}", hub.submit_any().await)).await;
    assert!(none.body.get("payload").is_none(), "{}", none.text);
}

#[tokio::test]
async fn revs_count_without_holes_and_ids_grow() {
    let hub = TestHub::start().await;
    let mut before = (0, String::new());
    for _ in 0..20 {
        let task = hub.submit(json!({"task_type": "t"})).await;
        let this = (task["rev"].as_u64().unwrap(), id(&task));
        assert!(this.0 == before.0 + 1 && this.1 > before.1, "{this:?} after {before:?}");
        before = this;
    }
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_in_order() {
    let hub = TestHub::start().await;
    let batch = |tasks: Vec<Value>| json!({"tasks": tasks});
    let tasks: Vec<Value> = (0..50).map(|n| json!({"task_type": "t", "title": format!("{n}")})).collect();
    let made = hub.post("/api/v1/tasks/batch", batch(tasks.clone())).await.expect(201);
    let titles: Vec<&Value> = made["tasks"].as_array().unwrap().iter().map(|task| &task["title"]).collect();
    assert_eq!(titles, (0..50).map(|n| json!(n.to_string())).collect::<Vec<_>>().iter().collect::<Vec<_>>());

    let mut bad = tasks;
    bad[37]["priority"] = json!(101);
    let refused = hub.post("/api/v1/tasks/batch", batch(bad)).await;
    assert_eq!(refused.problem(), "422 invalid_field tasks[37].priority");
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["pending"], 50);
}
