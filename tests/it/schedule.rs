//! A task with a time waits for it.

use std::time::Instant;

use serde_json::json;
use taskhub::task::Timestamp;

use crate::kit::{TestHub, id, millis};

#[tokio::test]
async fn a_delayed_task_runs_when_its_time_has_come() {
    let hub = TestHub::start().await;
    let begun = Instant::now();
    let task = hub.submit(json!({"task_type": "t", "delay_ms": 200})).await;
    assert_eq!(task["status"], "scheduled");
    let at = |field: &str| Timestamp::parse(task[field].as_str().unwrap()).unwrap().as_millis();
    assert_eq!(at("run_at") - at("created_at"), 200);
    let now = hub.submit_any().await;
    assert_eq!(id(&hub.claim("w").await["task"]), now, "others do not wait for it");
    assert_eq!(id(&hub.claim("w").await["task"]), id(&task));
    let waited = begun.elapsed();
    assert!(waited >= millis(195) && waited < millis(1_500), "{waited:?}");
    assert_eq!(hub.events(&id(&task)).await, ["created", "pending", "running"]);
}

#[tokio::test]
async fn a_time_in_the_past_is_now_and_both_are_too_much() {
    let hub = TestHub::start().await;
    let past = hub.submit(json!({"task_type": "t", "run_at": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(past["status"], "pending");
    let offset = hub.submit(json!({"task_type": "t", "run_at": "2999-01-01T02:00:00.5+02:00"})).await;
    assert_eq!((&offset["status"], &offset["run_at"]), (&json!("scheduled"), &json!("2999-01-01T00:00:00.500Z")));
    let both = json!({"task_type": "t", "run_at": "2999-01-01T00:00:00Z", "delay_ms": 1});
    assert_eq!(hub.post("/api/v1/tasks", both).await.problem(), "422 invalid_field delay_ms");
}

#[tokio::test]
async fn a_time_outlives_a_restart() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let (soon, late) = (
        id(&hub.submit(json!({"task_type": "t", "delay_ms": 300})).await),
        id(&hub.submit(json!({"task_type": "t", "delay_ms": 3_600_000})).await),
    );
    hub.restart().await;
    hub.once(&soon, "pending").await;
    assert_eq!(hub.task(&late).await["status"], "scheduled");
}
