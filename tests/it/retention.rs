//! Final tasks go after their time, in the background; what is not final never does.

use std::time::Instant;

use serde_json::json;

use crate::kit::{TestHub, TestSocket, millis};

#[tokio::test]
async fn what_is_final_goes_and_what_is_not_stays() {
    let hub = TestHub::builder().on_disk().set(|config| config.retain = millis(1_000)).start().await;
    let running = hub.submit_any().await;
    hub.claim("busy").await;
    let pending = hub.submit_any().await;
    let mut ended = Vec::new();
    for n in 0..3 {
        let task_id = hub.submit(json!({"task_type": "short", "title": n.to_string()})).await;
        let task_id = crate::kit::id(&task_id);
        hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
        ended.push(task_id);
    }
    let begun = Instant::now();
    for task_id in &ended {
        crate::kit::eventually("a final task goes", async || {
            (hub.get(&format!("/api/v1/tasks/{task_id}")).await.status == 404).then_some(())
        })
        .await;
    }
    assert!(begun.elapsed() >= millis(900), "gone after {:?} already", begun.elapsed());
    // A tenth of the retention or 5 s, whichever is more.
    assert!(begun.elapsed() < millis(1_000 + 5_000 + 1_000), "{:?}", begun.elapsed());
    assert_eq!(hub.task(&running).await["status"], "running");
    assert_eq!(hub.task(&pending).await["status"], "pending");
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["cancelled"], 0);
    assert_eq!(hub.get(&format!("/api/v1/tasks/{}/history", ended[0])).await.problem(), "404 task_not_found");
}

/// More than is deleted in one step: all of it goes, watchers hear of each, and new work is taken meanwhile.
#[tokio::test]
async fn many_go_step_by_step() {
    const TASKS: usize = 1_000;
    let hub = TestHub::builder().on_disk().set(|config| config.retain = millis(1_000)).start().await;
    let mut page = TestSocket::open(&hub, "/api/v1/ws", &["taskhub.v1"]).await;
    page.say(json!({"op": "subscribe", "sub": "a", "filter": {}})).await;
    page.next_of("mark").await;
    let batch =
        hub.post("/api/v1/tasks/batch", json!({"tasks": vec![json!({"task_type": "t"}); TASKS]})).await.expect(201);
    for task in batch["tasks"].as_array().unwrap() {
        hub.tell(&format!("/api/v1/tasks/{}/cancel", crate::kit::id(task))).await.expect(200);
    }
    let mut gone = std::collections::BTreeSet::new();
    while gone.len() < TASKS {
        let line = page.next_of("gone").await;
        assert!(gone.insert(line["task_id"].as_str().unwrap().to_owned()), "told twice: {line}");
        if gone.len().is_multiple_of(250) {
            hub.submit_any().await;
        }
    }
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["cancelled"], 0);
    let left = hub.get("/api/v1/tasks?status=cancelled").await.expect(200);
    assert_eq!(left["tasks"], json!([]));
    assert_eq!(hub.get("/api/v1/tasks").await.expect(200)["tasks"].as_array().map(Vec::len), Some(4));
    page.close().await;
}
