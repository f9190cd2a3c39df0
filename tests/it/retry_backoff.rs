//! A failed try is followed by another, after a wait that grows, until there are none left.

use std::time::Instant;

use serde_json::json;

use crate::kit::{TestHub, id, millis};

#[tokio::test]
async fn tries_wait_longer_and_longer_and_then_the_task_has_failed() {
    let hub = TestHub::start().await;
    let retry = json!({"base_ms": 60, "factor": 3.0, "max_ms": 100, "jitter": 0.0});
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 4, "retry": retry})).await);
    let mut begun = Instant::now();
    for (attempt, wait_ms) in [(1, 0), (2, 60), (3, 100), (4, 100)] {
        assert_eq!(hub.claim("w").await["attempt"], attempt);
        assert!(begun.elapsed() + millis(2) >= millis(wait_ms), "{:?} before try {attempt}", begun.elapsed());
        let error = json!({"error": {"kind": "x", "message": format!("try {attempt}")}});
        begun = Instant::now();
        hub.attempt(&task_id, attempt, "fail", error).await.expect(200);
        let task = hub.task(&task_id).await;
        if attempt < 4 {
            assert_eq!((&task["status"], &task["tries"]), (&json!("scheduled"), &json!(attempt)));
            assert_eq!(task["last_error"]["message"], format!("try {attempt}"));
            assert!(task["run_at"].is_string() && task.get("error").is_none(), "{task}");
        }
    }
    let task = hub.finished(&task_id).await;
    assert_eq!((&task["status"], &task["tries"], &task["attempt"]), (&json!("failed"), &json!(4), &json!(4)));
    assert_eq!(task["error"]["message"], "try 4");
}

#[tokio::test]
async fn one_try_is_all_where_nothing_is_said_and_jitter_stays_below_the_wait() {
    let hub = TestHub::start().await;
    let once = hub.submit_any().await;
    hub.claim("w").await;
    hub.attempt(&once, 1, "fail", json!({})).await.expect(200);
    assert_eq!(hub.task(&once).await["status"], "failed");

    let retry = json!({"base_ms": 10_000, "jitter": 1.0});
    let waits: Vec<i64> = {
        let mut waits = Vec::new();
        for _ in 0..12 {
            let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 2, "retry": retry})).await);
            hub.claim("w").await;
            hub.attempt(&task_id, 1, "fail", json!({})).await.expect(200);
            let task = hub.task(&task_id).await;
            let at = |field: &str| {
                let text = task[field].as_str().unwrap();
                taskhub::task::Timestamp::parse(text).unwrap().as_millis()
            };
            waits.push(at("run_at") - at("updated_at"));
        }
        waits
    };
    assert!(waits.iter().all(|wait| (0..=10_000).contains(wait)), "{waits:?}");
    assert!(waits.iter().max().unwrap() - waits.iter().min().unwrap() > 1_000, "they are spread: {waits:?}");
}
