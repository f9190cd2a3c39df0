//! An attempt that takes longer than it may is ended, counts as a try, and keeps its worker's place until that lets go.

use serde_json::json;

use crate::kit::{TestHub, id};

#[tokio::test]
async fn a_late_attempt_fails_and_its_worker_is_told() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("w", json!({})).await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "timeout_ms": 80})).await);
    worker.expect("run").await;
    let told = worker.expect("cancel").await;
    assert_eq!((&told["task_id"], &told["attempt"], &told["reason"]), (&json!(task_id), &json!(1), &json!("timeout")));
    let task = hub.finished(&task_id).await;
    assert_eq!((&task["status"], &task["tries"]), (&json!("failed"), &json!(1)));
    assert_eq!(task["error"], json!({"kind": "timeout", "message": "took longer than 80 ms"}));
    // Its place is taken until it says that it has let go, whatever words it uses.
    let next = hub.submit_any().await;
    assert_eq!(hub.task(&next).await["status"], "pending");
    worker.say(json!({"op": "complete", "task_id": task_id, "attempt": 1, "result": "late"})).await;
    let (one, two) = (worker.next().await, worker.next().await);
    let (refused, run) = if one["type"] == "refused" { (one, two) } else { (two, one) };
    assert_eq!((&refused["code"], id(&run["task"])), (&json!("lease_lost"), next));
    assert_eq!(hub.task(&task_id).await["status"], "failed");
}

#[tokio::test]
async fn a_timeout_is_a_try_and_the_clock_starts_with_each_attempt() {
    let hub = TestHub::start().await;
    let task = json!({"task_type": "t", "timeout_ms": 60, "max_attempts": 2, "retry": {"base_ms": 0}});
    let task_id = id(&hub.submit(task).await);
    hub.claim("w").await;
    let again = hub.claim("w").await;
    assert_eq!((&again["attempt"], &again["task"]["tries"]), (&json!(2), &json!(2)));
    hub.attempt(&task_id, 2, "complete", json!({})).await.expect(200);
    assert_eq!(hub.events(&task_id).await, ["created", "running", "retrying", "pending", "running", "completed"]);
}
