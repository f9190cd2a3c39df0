//! Workers without a socket: claim, say what becomes of it, stay alive.

use std::time::Instant;

use serde_json::{Value, json};

use crate::kit::{TestHub, id, millis};

fn handed(claimed: &Value) -> Vec<String> {
    claimed["tasks"].as_array().unwrap().iter().map(|given| id(&given["task"])).collect()
}

#[tokio::test]
async fn a_claim_takes_what_fits_and_no_more_than_asked() {
    let hub = TestHub::start().await;
    let mut ids = Vec::new();
    for (task_type, queue) in [("a.1", "default"), ("a.2", "default"), ("b", "default"), ("a.1", "other")] {
        ids.push(id(&hub.submit(json!({"task_type": task_type, "queue": queue, "payload": [task_type]})).await));
    }
    let claim = async |body: Value| hub.post("/api/v1/worker/claim", body).await.expect(200);
    let first = claim(json!({"worker_id": "w", "task_types": ["a.*"], "max": 1})).await;
    assert_eq!(handed(&first), [ids[0].clone()]);
    let given = &first["tasks"][0];
    assert_eq!((&given["attempt"], &given["task"]["payload"]), (&json!(1), &json!(["a.1"])));
    assert_eq!((&given["task"]["status"], &given["task"]["worker_id"]), (&json!("running"), &json!("w")));
    assert!(given.get("checkpoint").is_none(), "{given}");
    assert_eq!((&first["lease_ms"], &first["heartbeat_ms"]), (&json!(10_000), &json!(3_000)));
    let rest = claim(json!({"worker_id": "w", "max": 100})).await;
    assert_eq!(handed(&rest), ids[1..3], "any type, in the queue default");
    let none = claim(json!({"worker_id": "w", "queues": ["nobody"]})).await;
    assert_eq!(handed(&none), Vec::<String>::new());
    let other = claim(json!({"worker_id": "w2", "queues": ["o*"], "task_types": ["a.1"]})).await;
    assert_eq!(handed(&other), ids[3..]);
}

/// A person types slower than the hub's lease lasts, and a script has no thread for heartbeats.
#[tokio::test]
async fn a_claim_may_ask_for_a_longer_lease() {
    let hub = TestHub::builder().set(|config| config.lease = millis(100)).start().await;
    let (long, usual) = (hub.submit_any().await, hub.submit_any().await);
    let ask =
        async |lease_ms: u64| hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "lease_ms": lease_ms})).await;
    let claimed = ask(60_000).await.expect(200);
    assert_eq!((&claimed["lease_ms"], &claimed["heartbeat_ms"]), (&json!(60_000), &json!(18_000)));
    assert_eq!(ask(10).await.expect(200)["lease_ms"], 100);
    hub.once(&usual, "pending").await;
    hub.attempt(&long, 1, "progress", json!({"progress": {"percentage": 50}})).await.expect(200);
    hub.attempt(&long, 1, "complete", json!({"result": "done"})).await.expect(200);
    assert_eq!(ask(3_600_001).await.problem(), "422 limit_exceeded lease_ms");
}

#[tokio::test]
async fn a_claim_that_waits_is_answered_when_there_is_work() {
    let hub = TestHub::start().await;
    let (claimed, task_id) = tokio::join!(hub.claim("w"), async {
        // The claim should be open first; the other order is right too, and tells less.
        crate::kit::eventually("the claim is open", async || {
            let workers = hub.get("/api/v1/workers").await.expect(200);
            (workers["workers"][0]["worker_id"] == "w").then_some(())
        })
        .await;
        let begun = Instant::now();
        (hub.submit_any().await, begun)
    });
    assert_eq!(id(&claimed["task"]), task_id.0);
    assert!(task_id.1.elapsed() < millis(500), "{:?}", task_id.1.elapsed());

    let begun = Instant::now();
    let none = hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "wait_ms": 80})).await.expect(200);
    assert_eq!((handed(&none).len(), begun.elapsed() >= millis(80)), (0, true));
}

/// A claim whose caller has gone away takes nothing with it.
#[tokio::test]
async fn a_claim_that_is_dropped_takes_no_task() {
    let hub = TestHub::start().await;
    let path = "/api/v1/worker/claim";
    let waiting = hub.request(reqwest::Method::POST, path).json(&json!({"worker_id": "gone", "wait_ms": 60_000}));
    let waiting = tokio::spawn(waiting.send());
    crate::kit::eventually("the claim is open", async || {
        let workers = hub.get("/api/v1/workers").await.expect(200);
        (workers["workers"][0]["worker_id"] == "gone").then_some(())
    })
    .await;
    waiting.abort();
    let _ = waiting.await;
    let task_id = hub.submit_any().await;
    let given = hub.claim("w").await;
    assert_eq!(id(&given["task"]), task_id);
    assert!(given["attempt"].as_u64() <= Some(2), "at worst it was given, and given back");
}

#[tokio::test]
async fn each_verb_does_its_part_and_repeats_are_harmless() {
    let hub = TestHub::start().await;
    let quiet = json!({"cancel_requested": false});
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 3, "retry": {"base_ms": 0}})).await);
    hub.claim("w").await;
    for (verb, body) in [
        ("heartbeat", json!({})),
        ("progress", json!({"progress": {"current": 1, "total": 4}})),
        ("progress", json!({"checkpoint": {"at": 1}})),
        ("log", json!({"lines": []})),
    ] {
        assert_eq!(hub.attempt(&task_id, 1, verb, body).await.expect(200), quiet, "{verb}");
    }
    assert_eq!(hub.task(&task_id).await["progress"]["percentage"], 25);
    let bare = hub.tell(&format!("/api/v1/tasks/{task_id}/attempts/1/heartbeat")).await;
    assert_eq!(bare.status, 200, "a body that says nothing may be left out");

    hub.attempt(&task_id, 1, "release", json!({})).await.expect(200);
    let released = hub.task(&task_id).await;
    assert_eq!(
        (&released["status"], &released["attempt"], &released["tries"]),
        (&json!("pending"), &json!(1), &json!(0))
    );
    assert_eq!(hub.attempt(&task_id, 1, "release", json!({})).await.problem(), "409 lease_lost");

    let given = hub.claim("w").await;
    assert_eq!((&given["attempt"], &given["checkpoint"]), (&json!(2), &json!({"at": 1})));
    hub.attempt(&task_id, 2, "fail", json!({"error": {"kind": "x"}})).await.expect(200);
    hub.attempt(&task_id, 2, "fail", json!({"error": {"kind": "x"}})).await.expect(200);
    assert_eq!(hub.task(&task_id).await["tries"], 1, "the same failure is counted once");
    hub.claim("w").await;
    for _ in 0..2 {
        assert_eq!(hub.attempt(&task_id, 3, "complete", json!({"result": 1})).await.expect(200), quiet);
    }
    assert_eq!(hub.attempt(&task_id, 3, "fail", json!({})).await.problem(), "409 lease_lost");
    assert_eq!(hub.attempt(&task_id, 2, "complete", json!({})).await.problem(), "409 lease_lost");
    assert_eq!(hub.task(&task_id).await["result"], 1, "what comes late changes nothing");
}

#[tokio::test]
async fn a_heartbeat_keeps_the_lease_and_silence_loses_it() {
    let hub = TestHub::builder().set(|config| config.lease = millis(400)).start().await;
    let (kept, lost) = (hub.submit_any().await, hub.submit_any().await);
    let first = hub.post("/api/v1/worker/claim", json!({"worker_id": "kept"})).await.expect(200);
    assert_eq!(handed(&first), std::slice::from_ref(&kept));
    let second = hub.post("/api/v1/worker/claim", json!({"worker_id": "lost"})).await.expect(200);
    assert_eq!(handed(&second), std::slice::from_ref(&lost));
    // One beats until the other has been given up, which takes a whole lease.
    crate::kit::eventually("silence loses the lease", async || {
        hub.attempt(&kept, 1, "heartbeat", json!({})).await.expect(200);
        (hub.task(&lost).await["status"] == "pending").then_some(())
    })
    .await;
    assert_eq!(hub.task(&kept).await["status"], "running");
    let again = hub.task(&lost).await;
    assert_eq!((&again["crashes"], &again["tries"]), (&json!(1), &json!(0)));
    assert_eq!(hub.attempt(&lost, 1, "complete", json!({})).await.problem(), "409 lease_lost");
    assert_eq!(hub.claim("other").await["attempt"], 2);
}

/// Over HTTP each attempt is leased by itself: a worker whose claim was answered into a cut connection, or that was killed
/// and started again under its name, does not keep what it never heard of.
#[tokio::test]
async fn claiming_more_keeps_no_forgotten_attempt() {
    let hub = TestHub::builder().set(|config| config.lease = millis(300)).start().await;
    let (kept, forgotten) = (hub.submit_any().await, hub.submit_any().await);
    assert_eq!(id(&hub.claim("w").await["task"]), kept);
    assert_eq!(id(&hub.claim("w").await["task"]), forgotten);
    let again = crate::kit::eventually("the forgotten one is handed out again", async || {
        hub.attempt(&kept, 1, "heartbeat", json!({})).await.expect(200);
        let claim = json!({"worker_id": "w", "wait_ms": 20});
        let claimed = hub.post("/api/v1/worker/claim", claim).await.expect(200);
        claimed["tasks"].get(0).cloned()
    })
    .await;
    assert_eq!((id(&again["task"]), &again["attempt"]), (forgotten, &json!(2)));
    assert_eq!(hub.task(&kept).await["attempt"], 1, "what is spoken of stays");
}
