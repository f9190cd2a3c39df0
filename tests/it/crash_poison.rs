//! A task that keeps taking its workers down with it is stopped; one that only had bad luck is not.

use serde_json::json;

use crate::kit::{TestHub, id, millis};

#[tokio::test]
async fn the_third_lost_worker_is_one_too_many() {
    let hub = TestHub::builder().set(|config| config.grace = millis(20)).start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 1})).await);
    for attempt in 1..=3 {
        let mut worker = hub.worker("w", json!({})).await;
        assert_eq!(worker.expect("run").await["attempt"], attempt);
        worker.cut();
        // The same worker comes back only after its grace, so that it does not take the task up again.
        hub.get(&format!("/api/v1/tasks/{task_id}?wait_ms=5000&since_rev={}", hub.task(&task_id).await["rev"])).await;
    }
    let task = hub.finished(&task_id).await;
    assert_eq!((&task["status"], &task["crashes"], &task["tries"]), (&json!("failed"), &json!(3), &json!(0)));
    assert_eq!(task["error"]["kind"], "poison");
    // Retried by hand it may crash as often again.
    let again = hub.tell(&format!("/api/v1/tasks/{task_id}/retry")).await.expect(200);
    assert_eq!((&again["crashes"], &again["attempt"]), (&json!(0), &json!(3)));
}

#[tokio::test]
async fn what_is_nobodys_fault_is_no_crash() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_crashes": 1})).await);
    for attempt in 1..=3 {
        assert_eq!(hub.claim("w").await["attempt"], attempt);
        match attempt {
            1 => drop(hub.attempt(&task_id, attempt, "release", json!({})).await.expect(200)),
            // The drain gives back what does not finish.
            _ => hub.restart().await,
        }
        let task = hub.task(&task_id).await;
        assert_eq!((&task["status"], &task["crashes"]), (&json!("pending"), &json!(0)), "{attempt}");
    }
}
