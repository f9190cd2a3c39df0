//! The history of a task: every transition, oldest first, with who and why.

use serde_json::json;

use crate::kit::TestHub;

#[tokio::test]
async fn a_life_in_full() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task = hub.submit(json!({"task_type": "t", "max_attempts": 2, "retry": {"base_ms": 0}})).await;
    let task_id = crate::kit::id(&task);
    hub.claim("w1").await;
    hub.attempt(&task_id, 1, "fail", json!({"error": {"kind": "x"}})).await.expect(200);
    hub.claim("w2").await;
    let asked = hub.post(&format!("/api/v1/tasks/{task_id}/cancel"), json!({"reason": "not needed"})).await;
    assert_eq!(asked.status, 202);
    hub.attempt(&task_id, 2, "cancelled", json!({})).await.expect(200);
    hub.tell(&format!("/api/v1/tasks/{task_id}/retry")).await.expect(200);
    for _ in 0..2 {
        let history = hub.get(&format!("/api/v1/tasks/{task_id}/history")).await.expect(200);
        let lines = history["transitions"].as_array().unwrap();
        let said: Vec<String> = lines
            .iter()
            .map(|line| {
                let word = |name: &str| line[name].as_str().unwrap_or("-");
                format!("{} {} {} {}", word("event"), word("status"), line["attempt"], word("worker_id"))
            })
            .collect();
        assert_eq!(
            said,
            [
                "task.created pending 0 -",
                "task.running running 1 w1",
                "task.retrying scheduled 1 w1",
                "task.pending pending 1 -",
                "task.running running 2 w2",
                "task.cancel_requested running 2 w2",
                "task.cancelled cancelled 2 w2",
                "task.retrying pending 2 -",
            ]
        );
        assert_eq!(lines[5]["note"], "not needed");
        let revs: Vec<u64> = lines.iter().map(|line| line["rev"].as_u64().unwrap()).collect();
        assert!(revs.windows(2).all(|pair| pair[0] < pair[1]), "{revs:?}");
        assert_eq!(hub.task(&task_id).await["rev"], *revs.last().unwrap());
        hub.restart().await;
    }
}

#[tokio::test]
async fn no_task_has_no_history() {
    let hub = TestHub::start().await;
    let none = hub.get("/api/v1/tasks/01890000-0000-7000-8000-00000000002a/history").await;
    assert_eq!(none.problem(), "404 task_not_found");
}
