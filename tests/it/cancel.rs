//! Cancelling: at once where nothing runs, by asking where something does; completing first still wins.

use serde_json::json;

use crate::kit::{TestHub, id};

async fn cancel(hub: &TestHub, task_id: &str) -> crate::kit::Answer {
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await
}

#[tokio::test]
async fn what_does_not_run_is_cancelled_at_once() {
    let hub = TestHub::start().await;
    for task in [json!({"task_type": "t"}), json!({"task_type": "t", "delay_ms": 60_000})] {
        let task_id = id(&hub.submit(task).await);
        let task = cancel(&hub, &task_id).await.expect(200);
        assert_eq!((task["status"].as_str(), task["finished_at"].is_string()), (Some("cancelled"), true));
        assert_eq!(cancel(&hub, &task_id).await.problem(), "409 task_finished");
    }
    assert!(hub.post("/api/v1/worker/claim", json!({"worker_id": "w"})).await.expect(200)["tasks"] == json!([]));
}

#[tokio::test]
async fn a_running_task_is_asked_and_its_worker_decides_how_it_ends() {
    let hub = TestHub::start().await;
    for (verb, body, status) in [
        ("cancelled", json!({}), "cancelled"),
        ("complete", json!({"result": 1}), "completed"),
        ("fail", json!({"retryable": true}), "cancelled"),
        ("release", json!({}), "cancelled"),
    ] {
        let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 9})).await);
        hub.claim("w").await;
        assert_eq!(hub.attempt(&task_id, 1, "cancelled", json!({})).await.problem(), "409 cancel_not_requested");
        let asked = cancel(&hub, &task_id).await.expect(202);
        assert_eq!(asked["status"], "running");
        assert!(asked["cancel_requested_at"].is_string());
        let again = cancel(&hub, &task_id).await.expect(202);
        assert_eq!(again["rev"], asked["rev"], "asking twice changes nothing");
        let told = hub.attempt(&task_id, 1, "heartbeat", json!({})).await.expect(200);
        assert_eq!(told, json!({"cancel_requested": true}), "the worker hears of it with any answer");
        hub.attempt(&task_id, 1, verb, body).await.expect(200);
        let task = hub.task(&task_id).await;
        assert_eq!(task["status"], status, "after {verb}");
        assert!(task.get("cancel_requested_at").is_none() && task.get("worker_id").is_none(), "{task}");
    }
}

#[tokio::test]
async fn a_lost_worker_ends_a_cancel_too() {
    let hub = TestHub::builder().set(|config| config.grace = crate::kit::millis(50)).start().await;
    let task_id = hub.submit_any().await;
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    hub.post(&format!("/api/v1/tasks/{task_id}/cancel"), json!({"reason": "enough"})).await.expect(202);
    let told = worker.expect("cancel").await;
    assert_eq!((&told["task_id"], &told["attempt"], &told["reason"]), (&json!(task_id), &json!(1), &json!("enough")));
    worker.cut();
    let task = hub.finished(&task_id).await;
    assert_eq!((task["status"].as_str(), task["crashes"].as_u64()), (Some("cancelled"), Some(0)));
}
