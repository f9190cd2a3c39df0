//! Progress: a tick replaces the one before whole, and the last one stays with the task.

use serde_json::{Value, json};

use crate::kit::TestHub;

async fn tick(hub: &TestHub, task_id: &str, progress: Value) -> Value {
    hub.attempt(task_id, 1, "progress", json!({"progress": progress})).await.expect(200);
    hub.task(task_id).await
}

#[tokio::test]
async fn ticks_count_and_replace() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let running = hub.task(&task_id).await;
    assert!(running.get("progress").is_none() && running["tick"] == 0, "{running}");
    let all = json!({"percentage": 37.5, "current": 3, "total": 8, "step": "embedding", "message": "m",
        "details": {"a": [1]}, "counters": {"success": 3, "failed": 1, "skipped": 0}});
    let task = tick(&hub, &task_id, all.clone()).await;
    let mut progress = task["progress"].clone();
    progress.as_object_mut().unwrap().remove("eta_ms");
    assert_eq!((progress, &task["tick"], &task["rev"]), (all, &json!(1), &running["rev"]));
    let task = tick(&hub, &task_id, json!({"current": 1, "total": 3})).await;
    assert_eq!(task["tick"], 2);
    assert!((task["progress"]["percentage"].as_f64().unwrap() - 33.3).abs() < 0.1, "{task}");
    assert!(task["progress"].get("message").is_none(), "nothing of the tick before: {task}");
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    let task = hub.task(&task_id).await;
    assert_eq!((&task["progress"]["percentage"], &task["tick"]), (&json!(100), &json!(0)));
}

#[tokio::test]
async fn the_last_tick_stays_with_a_failure_and_none_is_made_up() {
    let hub = TestHub::start().await;
    let failed = hub.submit_any().await;
    hub.claim("w").await;
    tick(&hub, &failed, json!({"percentage": 60, "step": "parse"})).await;
    hub.attempt(&failed, 1, "fail", json!({})).await.expect(200);
    let task = hub.task(&failed).await;
    assert_eq!((&task["progress"]["percentage"], &task["progress"]["step"]), (&json!(60), &json!("parse")));
    let silent = hub.submit_any().await;
    hub.claim("w").await;
    hub.attempt(&silent, 1, "complete", json!({})).await.expect(200);
    assert!(hub.task(&silent).await.get("progress").is_none(), "nothing was reported at all");
}

/// Ticks are not durable, but a lost worker, a new attempt or a restart do not take the last kept one away unseen: the
/// rev grows, so no client believes an old tick.
#[tokio::test]
async fn a_restart_is_a_transition_of_what_runs() {
    let mut hub =
        TestHub::builder().on_disk().set(|config| config.drain_timeout = crate::kit::millis(50)).start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let before = tick(&hub, &task_id, json!({"percentage": 10})).await;
    hub.restart().await;
    let after = hub.task(&task_id).await;
    assert!(after["rev"].as_u64() > before["rev"].as_u64());
    assert_eq!((&after["status"], &after["progress"]["percentage"]), (&json!("pending"), &json!(10)));
}
