//! Log lines: numbered without holes, kept within bounds, cut and never refused for their length.

use serde_json::{Value, json};

use crate::kit::{TestHub, id};

async fn running(hub: &TestHub) -> String {
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    task_id
}

async fn lines(hub: &TestHub, task_id: &str, query: &str) -> Vec<Value> {
    let logs = hub.get(&format!("/api/v1/tasks/{task_id}/logs{query}")).await.expect(200);
    logs["lines"].as_array().unwrap().clone()
}

fn seqs(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn lines_come_back_in_order_with_level_and_attempt() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 2, "retry": {"base_ms": 0}})).await);
    hub.claim("w").await;
    let said = json!({"lines": [{"message": "one"}, {"level": "warn", "message": "zwei\nDrei"}]});
    let answer = hub.attempt(&task_id, 1, "log", said).await.expect(200);
    assert_eq!(answer, json!({"cancel_requested": false}));
    hub.attempt(&task_id, 1, "fail", json!({})).await.expect(200);
    hub.claim("w").await;
    hub.attempt(&task_id, 2, "log", json!({"lines": [{"level": "error", "message": ""}]})).await.expect(200);
    for _ in 0..2 {
        let got: Vec<String> = lines(&hub, &task_id, "")
            .await
            .iter()
            .map(|line| format!("{} {} {} {}", line["seq"], line["attempt"], line["level"], line["message"]))
            .collect();
        assert_eq!(got, [r#"1 1 "info" "one""#, r#"2 1 "warn" "zwei\nDrei""#, r#"3 2 "error" """#]);
        hub.restart().await;
    }
}

#[tokio::test]
async fn tail_after_and_limit_choose() {
    let hub = TestHub::start().await;
    let task_id = running(&hub).await;
    let many: Vec<Value> = (1..=250).map(|n| json!({"message": n.to_string()})).collect();
    hub.attempt(&task_id, 1, "log", json!({"lines": many})).await.expect(200);
    let all: Vec<u64> = (1..=250).collect();
    for (query, expected) in [
        ("", &all[150..]),
        ("?tail=3", &all[247..]),
        ("?tail=10000", &all[..]),
        ("?after=0", &all[..100]),
        ("?after=0&limit=2", &all[..2]),
        ("?after=248", &all[248..]),
        ("?after=250", &[]),
        ("?after=9999", &[]),
    ] {
        assert_eq!(seqs(&lines(&hub, &task_id, query).await), expected, "{query}");
    }
}

#[tokio::test]
async fn the_newest_ten_thousand_are_kept() {
    let hub = TestHub::start().await;
    let task_id = running(&hub).await;
    let thousand: Vec<Value> = (0..1_000).map(|n| json!({"message": n.to_string()})).collect();
    for _ in 0..11 {
        hub.attempt(&task_id, 1, "log", json!({"lines": thousand})).await.expect(200);
    }
    let kept = seqs(&lines(&hub, &task_id, "?tail=10000").await);
    assert_eq!((kept.len(), kept[0], kept[9_999]), (10_000, 1_001, 11_000));
    assert_eq!(seqs(&lines(&hub, &task_id, "?after=0&limit=1").await), [1_001], "what is gone is passed over");
}

#[tokio::test]
async fn a_mebibyte_of_lines_is_kept_and_each_is_cut_at_eight_kibibytes() {
    let hub = TestHub::start().await;
    let task_id = running(&hub).await;
    // Two bytes a letter: the cut must not split one.
    let long = "é".repeat(5_000);
    for _ in 0..150 {
        hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": long}]})).await.expect(200);
    }
    let kept = lines(&hub, &task_id, "?tail=10000").await;
    assert!(kept.iter().all(|line| line["message"].as_str().unwrap().len() == 8 << 10));
    assert_eq!(kept.len(), 128, "128 lines of 8 KiB are one MiB");
    assert_eq!(*seqs(&kept).last().unwrap(), 150);
}

#[tokio::test]
async fn lines_of_an_attempt_that_is_over_are_refused() {
    let hub = TestHub::start().await;
    let task_id = running(&hub).await;
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    let late = hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": "late"}]})).await;
    assert_eq!(late.problem(), "409 lease_lost");
    assert!(lines(&hub, &task_id, "").await.is_empty());
    let none = hub.get("/api/v1/tasks/01890000-0000-7000-8000-00000000002a/logs").await;
    assert_eq!(none.problem(), "404 task_not_found");
}
