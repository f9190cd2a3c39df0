//! Higher priority first, and among equals the oldest.

use serde_json::json;

use crate::kit::TestHub;

#[tokio::test]
async fn the_order_of_a_line() {
    let mut hub = TestHub::builder().on_disk().start().await;
    for (title, priority) in
        [("e", 0), ("f", 0), ("i", -100), ("a", 100), ("c", 7), ("g", 0), ("b", 100), ("h", -1), ("d", 7)]
    {
        hub.submit(json!({"task_type": "t", "title": title, "priority": priority})).await;
    }
    let mut order = String::new();
    for claim in 0..9 {
        if claim == 4 {
            hub.restart().await;
        }
        let given = hub.claim("w").await;
        order += given["task"]["title"].as_str().unwrap();
        let task_id = crate::kit::id(&given["task"]);
        hub.attempt(&task_id, given["attempt"].as_u64().unwrap(), "complete", json!({})).await.expect(200);
    }
    assert_eq!(order, "abcdefghi");
}

/// Also across types and queues, for a worker that serves several.
#[tokio::test]
async fn one_worker_of_many_lines_takes_the_first_of_all() {
    let hub = TestHub::start().await;
    for (title, queue, task_type, priority) in
        [("c", "one", "x", 0), ("a", "two", "y", 9), ("d", "two", "x", 0), ("b", "one", "y", 5)]
    {
        hub.submit(json!({"task_type": task_type, "title": title, "queue": queue, "priority": priority})).await;
    }
    let claim = json!({"worker_id": "w", "queues": ["one", "two"], "max": 4});
    let given = hub.post("/api/v1/worker/claim", claim).await.expect(200);
    let order: String =
        given["tasks"].as_array().unwrap().iter().map(|given| given["task"]["title"].as_str().unwrap()).collect();
    assert_eq!(order, "abcd");
}
