//! The counts are the truth, in every state and after a restart.

use serde_json::json;

use crate::kit::TestHub;

#[tokio::test]
async fn every_state_is_counted() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let fresh = hub.get("/api/v1/stats").await.expect(200);
    let none = json!({"waiting": 0, "scheduled": 0, "pending": 0, "running": 0, "completed": 0, "failed": 0,
        "cancelled": 0});
    assert_eq!((&fresh["tasks"], &fresh["rev"], &fresh["workers"]), (&none, &json!(0), &json!(0)));
    for verb in ["complete", "fail", "complete"] {
        let task_id = hub.submit_any().await;
        hub.claim("w").await;
        hub.attempt(&task_id, 1, verb, json!({})).await.expect(200);
    }
    let cancelled = hub.submit_any().await;
    hub.tell(&format!("/api/v1/tasks/{cancelled}/cancel")).await.expect(200);
    hub.submit(json!({"task_type": "later", "queue": "slow", "delay_ms": 3_600_000})).await;
    hub.submit_any().await;
    hub.submit_any().await;
    let expected = json!({"waiting": 0, "scheduled": 1, "pending": 2, "running": 0, "completed": 2, "failed": 1,
        "cancelled": 1});
    let stats = hub.get("/api/v1/stats").await.expect(200);
    assert_eq!(stats["tasks"], expected);
    assert_eq!(stats["queues"]["default"], json!({"waiting": 0, "scheduled": 0, "pending": 2, "running": 0}));
    assert_eq!(stats["types"]["later"]["scheduled"], 1);
    assert!(stats["rates"]["created"].as_f64() > Some(0.0), "{stats}");
    assert!(stats["feed_lag_ms"].as_u64() < Some(1_000), "{stats}");
    hub.restart().await;
    let after = hub.get("/api/v1/stats").await.expect(200);
    assert_eq!((&after["tasks"], &after["rev"]), (&expected, &stats["rev"]));
    // The history has its name before the dot, and each start of a hub one after it.
    let history = |stats: &serde_json::Value| stats["epoch"].as_str().unwrap().split('.').next().unwrap().to_owned();
    assert_eq!(history(&after), history(&stats));
    assert_ne!(after["epoch"], stats["epoch"]);
    assert_eq!(after["queues"], stats["queues"]);
    hub.get("/healthz").await.expect(200);
    hub.get("/readyz").await.expect(200);
}
