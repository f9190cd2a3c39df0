//! What a final task left, and only that.

use serde_json::json;

use crate::kit::TestHub;

#[tokio::test]
async fn each_end_has_its_result() {
    let hub = TestHub::start().await;
    for (verb, body, expected) in [
        ("complete", json!({"result": {"a": [1, 2]}}), json!({"status": "completed", "result": {"a": [1, 2]}})),
        ("complete", json!({"result": null}), json!({"status": "completed", "result": null})),
        ("complete", json!({}), json!({"status": "completed", "result": null})),
        (
            "fail",
            json!({"error": {"kind": "io", "message": "no disk", "details": {"n": 1}}}),
            json!({"status": "failed", "error": {"kind": "io", "message": "no disk", "details": {"n": 1}}}),
        ),
        ("fail", json!({}), json!({"status": "failed", "error": {"kind": "error", "message": ""}})),
    ] {
        let task_id = hub.submit_any().await;
        let path = format!("/api/v1/tasks/{task_id}/result");
        assert_eq!(hub.get(&path).await.problem(), "409 task_not_finished");
        hub.claim("w").await;
        assert_eq!(hub.get(&path).await.problem(), "409 task_not_finished");
        hub.attempt(&task_id, 1, verb, body).await.expect(200);
        let mut result = hub.get(&path).await.expect(200);
        assert_eq!(result.as_object_mut().unwrap().remove("task_id").unwrap(), task_id);
        assert_eq!(result, expected);
        let task = hub.task(&task_id).await;
        for (field, value) in expected.as_object().unwrap() {
            assert!(task.get(field) == Some(value), "{field} of {task}");
        }
    }
    let task_id = hub.submit_any().await;
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    let result = hub.get(&format!("/api/v1/tasks/{task_id}/result")).await.expect(200);
    assert_eq!(result, json!({"task_id": task_id, "status": "cancelled"}));
}

/// Up to 4 KiB a result travels with its record, beyond it is read where it is asked for; both come back byte for byte,
/// also when the hub has restarted.
#[tokio::test]
async fn results_of_every_size_come_back() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let mut kept = Vec::new();
    for length in [1, 4_094, 4_095, 100_000, (1 << 20) - 2] {
        let task_id = hub.submit_any().await;
        hub.claim("w").await;
        let result = "r".repeat(length);
        hub.attempt(&task_id, 1, "complete", json!({"result": result})).await.expect(200);
        kept.push((task_id, result));
    }
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let over = hub.attempt(&task_id, 1, "complete", json!({"result": "r".repeat((1 << 20) - 1)})).await;
    assert_eq!(over.problem(), "413 payload_too_large result");
    assert_eq!(hub.task(&task_id).await["status"], "running", "a refused result ends nothing");
    for _ in 0..2 {
        for (task_id, result) in &kept {
            assert_eq!(hub.get(&format!("/api/v1/tasks/{task_id}/result")).await.body["result"], *result);
            assert_eq!(hub.task(task_id).await["result"], *result);
        }
        hub.restart().await;
    }
}
