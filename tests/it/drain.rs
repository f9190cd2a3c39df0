//! Going down: no new work, what runs may finish, what does not is given back, and everyone is told.

use serde_json::{Value, json};

use crate::kit::{TestHub, eventually, millis};

fn patient() -> crate::kit::HubBuilder {
    TestHub::builder().on_disk().set(|config| config.drain_timeout = millis(8_000))
}

async fn draining(hub: &TestHub) {
    eventually("the hub drains", async || (hub.get("/readyz").await.status == 503).then_some(())).await;
}

#[tokio::test]
async fn new_work_is_refused_and_what_runs_may_finish() {
    let mut hub = patient().start().await;
    let (running, pending) = (hub.submit_any().await, hub.submit_any().await);
    let cancelled = hub.submit_any().await;
    hub.tell(&format!("/api/v1/tasks/{cancelled}/cancel")).await.expect(200);
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    hub.begin_shutdown();
    worker.expect("drain").await;
    draining(&hub).await;

    let refused = hub.post("/api/v1/tasks", json!({"task_type": "t"})).await;
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("503 draining", "5"));
    let batch = json!({"tasks": [{"task_type": "t"}]});
    assert_eq!(hub.post("/api/v1/tasks/batch", batch).await.problem(), "503 draining");
    assert_eq!(hub.post("/api/v1/worker/claim", json!({"worker_id": "x"})).await.problem(), "503 draining");
    assert_eq!(hub.tell(&format!("/api/v1/tasks/{cancelled}/retry")).await.problem(), "503 draining");
    assert_eq!(hub.get("/readyz").await.problem(), "503 draining");
    hub.get("/healthz").await.expect(200);
    hub.delete(&format!("/api/v1/tasks/{cancelled}")).await.expect(204);

    let progress = json!({"op": "progress", "task_id": running, "attempt": 1, "progress": {"percentage": 90}});
    worker.say(progress).await;
    eventually("ticks still count", async || (hub.task(&running).await["tick"] == 1).then_some(())).await;
    let path = format!("/api/v1/tasks/{running}?wait_ms=20000");
    let (ended, ()) = tokio::join!(hub.get(&path), async {
        worker.say(json!({"op": "complete", "task_id": running, "attempt": 1, "result": "in time"})).await;
        worker.expect("ack").await;
    });
    assert_eq!(ended.body["result"], "in time");
    // With nothing left to wait for the drain ends early, and the worker is told last.
    let bye = worker.expect("bye").await;
    assert_eq!((&bye["code"], &bye["retry_ms"]), (&json!(4001), &json!([500, 1_001])));
    assert_eq!(worker.close_code().await, 4001);
    hub.restart().await;
    assert_eq!(hub.task(&running).await["result"], "in time");
    assert_eq!(hub.task(&pending).await["status"], "pending");
}

#[tokio::test]
async fn what_does_not_finish_is_pending_after_the_restart() {
    let mut hub = TestHub::builder().on_disk().set(|config| config.drain_timeout = millis(100)).start().await;
    let (over_socket, over_http) = (hub.submit_any().await, hub.submit_any().await);
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    hub.claim("h").await;
    hub.begin_shutdown();
    worker.expect("drain").await;
    assert_eq!(worker.close_code().await, 4001);
    hub.restart().await;
    for task_id in [over_socket, over_http] {
        let task = hub.task(&task_id).await;
        let story = [&task["status"], &task["attempt"], &task["tries"], &task["crashes"]];
        assert_eq!(story, [&json!("pending"), &json!(1), &json!(0), &json!(0)]);
        assert_eq!(hub.attempt(&task_id, 1, "complete", json!({})).await.problem(), "409 lease_lost");
    }
}

/// Whoever waits is answered with the task as it is, not cut off.
#[tokio::test]
async fn open_waits_and_claims_are_answered() {
    let mut hub = patient().start().await;
    let task_id = hub.submit(json!({"task_type": "t", "queue": "nobody"})).await["task_id"].clone();
    let url = hub.url.clone();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let wait = client.get(format!("{url}/api/v1/tasks/{}?wait_ms=60000", task_id.as_str().unwrap()));
    let claim = client.post(format!("{url}/api/v1/worker/claim"));
    let claim = claim.json(&json!({"worker_id": "c", "wait_ms": 60_000}));
    let (wait, claim) = (tokio::spawn(wait.send()), tokio::spawn(claim.send()));
    eventually("the claim is open", async || {
        (hub.get("/api/v1/workers").await.body["workers"][0]["worker_id"] == "c").then_some(())
    })
    .await;
    hub.begin_shutdown();
    let claimed: Value = claim.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(claimed["tasks"], json!([]));
    let waited = wait.await.unwrap().unwrap();
    assert_eq!(waited.status(), 200);
    assert_eq!(waited.json::<Value>().await.unwrap()["status"], "pending");
}
