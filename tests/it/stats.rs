//! The counts are the truth, in every state and after a restart.

use serde_json::json;

use crate::kit::{TestHub, TestSocket};

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

/// Regression: with an id in type or queue, every page that was open was sent megabytes of counts a second.
#[tokio::test]
async fn of_many_names_the_largest_are_told_and_the_rest_is_summed() {
    let hub = TestHub::start().await;
    let task = |n| json!({"task_type": format!("report.{n}"), "queue": format!("user-{n}")});
    let tasks: Vec<_> = (0..3_000).map(task).collect();
    hub.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
    let largest = vec![json!({"task_type": "large", "queue": "large"}); 7];
    hub.post("/api/v1/tasks/batch", json!({"tasks": largest})).await.expect(201);
    let answer = hub.get("/api/v1/stats").await;
    let stats = &answer.body;
    for (named, other) in [("queues", "queues_other"), ("types", "types_other")] {
        assert_eq!(stats[named].as_object().map(serde_json::Map::len), Some(200), "{named}");
        assert_eq!(stats[named]["large"]["pending"], 7);
        let expected = json!({"names": 2_801, "waiting": 0, "scheduled": 0, "pending": 2_801, "running": 0});
        assert_eq!(stats[other], expected);
    }
    let mut page = TestSocket::open(&hub, "/api/v1/ws", &["taskhub.v1"]).await;
    page.say(json!({"op": "subscribe", "sub": "s", "stats": true})).await;
    let line = page.next_of("stats").await;
    assert_eq!((&line["queues_other"]["names"], &line["types"]["large"]["pending"]), (&json!(2_801), &json!(7)));
    assert!(line.to_string().len() < 60_000, "{} bytes", line.to_string().len());
    let metrics = hub.get("/metrics").await.text;
    let queues = metrics.lines().filter(|line| line.starts_with("taskhub_queue_tasks{")).count();
    assert_eq!(queues, 4 * 201);
    assert!(metrics.contains(r#"taskhub_queue_tasks{queue="other",status="pending"} 2801"#), "no sum of the others");
    page.close().await;
}

/// Regression: workers over HTTP are counted, and none of them runs more than it has places for.
#[tokio::test]
async fn workers_are_counted_however_they_come() {
    let hub = TestHub::start().await;
    let socket = hub.worker("on-a-socket", json!({"queues": ["nobody"], "concurrency": 5})).await;
    for _ in 0..9 {
        hub.submit_any().await;
    }
    let counts = async || {
        let workers = hub.get("/api/v1/workers").await.expect(200)["workers"].take();
        let places = |worker: &serde_json::Value| {
            let running = worker["running"].as_array().unwrap().len();
            (worker["worker_id"].as_str().unwrap().to_owned(), running, worker["concurrency"].as_u64().unwrap())
        };
        workers.as_array().unwrap().iter().map(places).collect::<Vec<_>>()
    };
    let known = async || hub.get("/api/v1/stats").await.expect(200)["workers"].as_u64();
    let claim = async |max: u32| {
        hub.post("/api/v1/worker/claim", json!({"worker_id": "by-http", "max": max})).await.expect(200);
        crate::kit::eventually("both are counted", async || (known().await == Some(2)).then_some(())).await;
    };
    claim(7).await;
    assert_eq!(counts().await, [("by-http".into(), 7, 7), ("on-a-socket".into(), 0, 5)]);
    claim(1).await;
    assert_eq!(counts().await, [("by-http".into(), 8, 8), ("on-a-socket".into(), 0, 5)]);
    claim(3).await;
    assert_eq!(counts().await, [("by-http".into(), 9, 9), ("on-a-socket".into(), 0, 5)], "there was only one more");
    let open = claim_and_wait(&hub);
    tokio::pin!(open);
    let waits = crate::kit::eventually("the claim is open", async || {
        counts().await.contains(&("waits".into(), 0, 4)).then_some(())
    });
    tokio::select! { _ = &mut open => panic!("there is nothing to claim"), () = waits => {} }
    drop(socket);
    crate::kit::eventually("the socket's worker is gone", async || {
        (counts().await.len() == 2 && known().await == Some(2)).then_some(())
    })
    .await;
}

async fn claim_and_wait(hub: &TestHub) {
    let claim = json!({"worker_id": "waits", "max": 4, "wait_ms": 30_000});
    hub.post("/api/v1/worker/claim", claim).await.expect(200);
}
