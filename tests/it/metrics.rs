//! `/metrics` is what Prometheus reads, and its numbers are those of the hub.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kit::TestHub;

/// The samples of an OpenMetrics text, checked line by line.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut described = Vec::new();
    assert!(text.ends_with("# EOF\n"), "an OpenMetrics text has an end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            described.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(described.iter().any(|family| name.starts_with(family)), "{name} has no HELP");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} stands there twice");
        }
    }
    samples
}

#[tokio::test]
async fn the_numbers_follow_what_happens() {
    let hub = TestHub::start().await;
    hub.submit(json!({"task_type": "other", "queue": "slow"})).await;
    let task_id = hub.submit_any().await;
    let _worker = hub.worker("idle", json!({"queues": ["nobody"]})).await;
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    let answer = hub.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let samples = samples(&answer.text);
    let sample = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("no {name} in\n{}", answer.text));
    assert_eq!(sample(r#"taskhub_tasks{status="pending"}"#), 1.0);
    assert_eq!(sample(r#"taskhub_tasks{status="completed"}"#), 1.0);
    assert_eq!(sample(r#"taskhub_queue_tasks{queue="slow",status="pending"}"#), 1.0);
    assert_eq!(sample("taskhub_rev"), 4.0);
    assert!(sample("taskhub_feed_lag_seconds") < 1.0);
    assert_eq!(sample(r#"taskhub_sockets{kind="worker"}"#), 1.0);
    for part in ["taskhub_transitions", "taskhub_commit_seconds", "taskhub_task_seconds", "taskhub_commit_changes"] {
        assert!(samples.keys().any(|name| name.starts_with(part)), "no {part}");
    }
}
