//! Running an ended task again by hand, and deleting it.

use serde_json::json;

use crate::kit::{TestHub, id, program};

#[tokio::test]
async fn a_retried_task_starts_anew_and_its_history_goes_on() {
    let hub = TestHub::start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "payload": {"keep": "me"}})).await);
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "progress", json!({"progress": {"percentage": 40}})).await.expect(200);
    hub.attempt(&task_id, 1, "fail", json!({"error": {"kind": "x"}})).await.expect(200);
    let failed = hub.task(&task_id).await;
    let again = hub.tell(&format!("/api/v1/tasks/{task_id}/retry")).await.expect(200);
    assert_eq!((again["status"].as_str(), again["attempt"].as_u64()), (Some("pending"), Some(1)));
    assert_eq!((again["tries"].as_u64(), again["crashes"].as_u64()), (Some(0), Some(0)));
    for gone in ["error", "progress", "finished_at", "started_at", "result", "worker_id"] {
        assert!(again.get(gone).is_none(), "{gone}: {again}");
    }
    assert!(again["rev"].as_u64() > failed["rev"].as_u64());
    let handed = hub.claim("w").await;
    assert_eq!((handed["attempt"].as_u64(), &handed["task"]["payload"]), (Some(2), &json!({"keep": "me"})));
    hub.attempt(&task_id, 1, "complete", json!({})).await.problem();
    hub.attempt(&task_id, 2, "complete", json!({"result": 1})).await.expect(200);
    assert_eq!(hub.events(&task_id).await, ["created", "running", "failed", "retrying", "running", "completed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_may_bring_another_payload() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "payload": {"old": 1}})).await);
    let retry = format!("/api/v1/tasks/{task_id}/retry");
    // It was never handed out: what is at hand of it is replaced, too.
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    hub.post(&retry, json!({"payload": {"new": [1]}})).await.expect(200);
    assert_eq!(hub.task(&task_id).await["payload"], json!({"new": [1]}));
    assert_eq!(hub.claim("w").await["task"]["payload"], json!({"new": [1]}));
    hub.attempt(&task_id, 1, "fail", json!({"retryable": false})).await.expect(200);
    // Over a restart, and null is a payload like any other.
    hub.post(&retry, json!({"payload": null})).await.expect(200);
    hub.restart().await;
    assert_eq!(hub.task(&task_id).await.get("payload"), Some(&serde_json::Value::Null));
    assert_eq!(hub.claim("w").await["task"].get("payload"), Some(&serde_json::Value::Null));
    hub.attempt(&task_id, 2, "fail", json!({"retryable": false})).await.expect(200);
    let large = hub.post(&retry, json!({"payload": "x".repeat(1 << 20)})).await;
    assert_eq!(large.problem(), "413 payload_too_large payload");
    let output = program().args(["retry", &task_id, "--payload", "[7]"]).env("TASKHUB_URL", &hub.url).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hub.claim("w").await["task"]["payload"], json!([7]));
    hub.attempt(&task_id, 3, "fail", json!({"retryable": false})).await.expect(200);
    hub.tell(&retry).await.expect(200);
    assert_eq!(hub.claim("w").await["task"]["payload"], json!([7]), "without one it keeps the one it has");
}

#[tokio::test]
async fn only_what_failed_or_was_cancelled_is_retried() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let retry = format!("/api/v1/tasks/{task_id}/retry");
    assert_eq!(hub.tell(&retry).await.problem(), "409 task_not_finished");
    hub.claim("w").await;
    assert_eq!(hub.tell(&retry).await.problem(), "409 task_running");
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    assert_eq!(hub.tell(&retry).await.problem(), "409 task_finished");
    let cancelled = hub.submit_any().await;
    hub.tell(&format!("/api/v1/tasks/{cancelled}/cancel")).await.expect(200);
    hub.tell(&format!("/api/v1/tasks/{cancelled}/retry")).await.expect(200);
    assert_eq!(hub.task(&cancelled).await["status"], "pending");
}

#[tokio::test]
async fn a_final_task_can_be_deleted_with_all_it_left() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = hub.submit_any().await;
    let path = format!("/api/v1/tasks/{task_id}");
    assert_eq!(hub.delete(&path).await.problem(), "409 task_not_finished");
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": "m"}]})).await.expect(200);
    assert_eq!(hub.delete(&path).await.problem(), "409 task_not_finished");
    hub.attempt(&task_id, 1, "complete", json!({"result": "r".repeat(9_000)})).await.expect(200);
    let answer = hub.delete(&path).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    for _ in 0..2 {
        for rest in ["", "/result", "/history", "/logs"] {
            assert_eq!(hub.get(&format!("{path}{rest}")).await.problem(), "404 task_not_found", "{rest}");
        }
        assert_eq!(hub.delete(&path).await.problem(), "404 task_not_found");
        assert_eq!(hub.get("/api/v1/tasks").await.body["tasks"], json!([]));
        assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["completed"], 0);
        hub.restart().await;
    }
}
