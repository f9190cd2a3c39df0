//! One call for many tasks.

use serde_json::{Value, json};

use crate::kit::{TestHub, id, program};

async fn many(hub: &TestHub, action: &str, body: Value) -> Value {
    hub.post(&format!("/api/v1/tasks/{action}"), body).await.expect(200)
}

#[tokio::test]
async fn what_a_filter_means_is_cancelled_retried_and_deleted() {
    let hub = TestHub::start().await;
    for n in 0..5 {
        let queue = if n < 3 { "mail" } else { "other" };
        hub.submit(json!({"task_type": format!("t.{n}"), "queue": queue, "labels": {"n": n.to_string()}})).await;
    }
    let claim = json!({"worker_id": "w", "queues": ["mail"]});
    let running = id(&hub.post("/api/v1/worker/claim", claim).await.expect(200)["tasks"][0]["task"]);
    let mail = json!({"queue": ["mail"]});
    let dry = many(&hub, "cancel", json!({"filter": mail, "dry_run": true})).await;
    assert_eq!(dry, json!({"matched": 3, "changed": 3, "more": false}));
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["cancelled"], 0, "nothing was done");
    let done = many(&hub, "cancel", json!({"filter": mail, "reason": "wrong template"})).await;
    assert_eq!(done, json!({"matched": 3, "changed": 3, "more": false}));
    let stats = hub.get("/api/v1/stats").await.body["tasks"].clone();
    assert_eq!((&stats["cancelled"], &stats["pending"], &stats["running"]), (&json!(2), &json!(2), &json!(1)));
    assert!(hub.task(&running).await["cancel_requested_at"].is_string());
    // What it cannot be done to is not meant, whatever the filter says.
    let none = json!({"matched": 0, "changed": 0, "more": false});
    assert_eq!(many(&hub, "delete", json!({"filter": {"status": ["pending"]}})).await, none);
    assert_eq!(many(&hub, "retry", json!({"filter": {"task_type": ["u.*"]}})).await, none);
    assert_eq!(many(&hub, "retry", json!({"filter": {"labels": {"n": ["1", "3"]}}})).await["changed"], 1);
    assert_eq!(many(&hub, "delete", json!({"filter": {}})).await["changed"], 1);
    for (body, expected) in [
        (json!({}), "422 invalid_field filter"),
        (json!({"filter": {"status": []}}), "422 invalid_field filter.status"),
        (json!({"filter": {"colour": ["red"]}}), "422 unknown_field filter.colour"),
        (json!({"filter": {}, "reason": "x"}), "422 invalid_field reason"),
    ] {
        assert_eq!(hub.post("/api/v1/tasks/delete", body).await.problem(), expected);
    }
}

#[tokio::test]
async fn a_call_does_so_many_and_the_command_line_does_the_rest() {
    const TASKS: usize = 10_050;
    let hub = TestHub::start().await;
    for part in [10_000, TASKS - 10_000] {
        hub.post("/api/v1/tasks/batch", json!({"tasks": vec![json!({"task_type": "t"}); part]})).await.expect(201);
    }
    let done = many(&hub, "cancel", json!({"filter": {}, "dry_run": true})).await;
    assert_eq!(done, json!({"matched": 10_000, "changed": 10_000, "more": true}));
    let run = |args: &[&str]| {
        let output = program().args(args).env("TASKHUB_URL", &hub.url).output().expect("the program runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("it prints text"))
    };
    assert_eq!(run(&["bulk", "cancel"]).0, Some(2), "nobody means all by saying nothing");
    let (code, said) = run(&["bulk", "cancel", "--all"]);
    assert_eq!((code, said.trim_end()), (Some(0), "10050 of 10050 cancelled, or asked to stop"));
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["cancelled"], json!(TASKS));
}
