//! A task that waits is changed: its priority, time, title, payload and tries.

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, id, program};

async fn patch(hub: &TestHub, task: &str, body: Value) -> Answer {
    hub.call(Method::PATCH, &format!("/api/v1/tasks/{task}"), Some(&body)).await
}

#[tokio::test]
async fn a_task_that_waits_is_changed_and_watchers_hear_of_it() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let first = id(&hub.submit(json!({"task_type": "t", "title": "first"})).await);
    let second = id(&hub.submit(json!({"task_type": "t", "title": "second", "payload": 1})).await);
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a", "snapshot": {"limit": 10}})).await;
    live.next_of("mark").await;
    let changes = json!({"priority": 5, "title": "now the first", "payload": {"n": 2}, "max_attempts": 3});
    let changed = patch(&hub, &second, changes).await.expect(200);
    assert_eq!(
        (&changed["priority"], &changed["title"], &changed["max_attempts"]),
        (&json!(5), &json!("now the first"), &json!(3))
    );
    let event = live.event("task.updated").await;
    assert_eq!((&event["task"]["task_id"], &event["task"]["priority"]), (&json!(second), &json!(5)));

    // It is found by its new title, also after a restart; and it goes first, with its new payload.
    hub.restart().await;
    let found = hub.get("/api/v1/tasks?q=now+the").await.expect(200);
    assert_eq!(found["tasks"].as_array().map(Vec::len), Some(1));
    assert_eq!(hub.get("/api/v1/tasks?q=second").await.expect(200)["tasks"], json!([]));
    let given = hub.claim("w").await;
    assert_eq!((&given["task"]["task_id"], &given["task"]["payload"]), (&json!(second), &json!({"n": 2})));
    assert_eq!(patch(&hub, &second, json!({"priority": 1})).await.problem(), "409 task_running");
    hub.tell(&format!("/api/v1/tasks/{first}/cancel")).await.expect(200);
    assert_eq!(patch(&hub, &first, json!({"priority": 1})).await.problem(), "409 task_finished");
    assert_eq!(hub.events(&second).await[..2], ["created", "updated"]);
}

#[tokio::test]
async fn its_time_may_be_moved_both_ways() {
    let hub = TestHub::start().await;
    let later = id(&hub.submit(json!({"task_type": "t", "run_at": "2999-01-01T00:00:00Z"})).await);
    assert_eq!(patch(&hub, &later, json!({"run_at": "2020-01-01T00:00:00Z"})).await.expect(200)["status"], "pending");
    assert_eq!(patch(&hub, &later, json!({"run_at": "2999-01-01T00:00:00Z"})).await.expect(200)["status"], "scheduled");
    let output = program()
        .args(["update", &later, "--run-at", "2020-01-01T00:00:00Z", "--priority", "-7"])
        .env("TASKHUB_URL", &hub.url)
        .output()
        .expect("the program runs");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{later} pending\n"));
    assert_eq!(hub.task(&later).await["priority"], -7);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let hub = TestHub::start().await;
    let task = json!({"task_type": "t", "deadline_at": "2999-01-01T00:00:00Z"});
    let task = id(&hub.submit(task).await);
    for (body, expected) in [
        (json!({"priority": 101}), "422 invalid_field priority"),
        (json!({"title": "x".repeat(257)}), "422 limit_exceeded title"),
        (json!({"max_attempts": 0}), "422 invalid_field max_attempts"),
        (json!({"run_at": "2999-01-01T00:00:00Z"}), "422 invalid_field run_at"),
        (json!({"queue": "other"}), "422 unknown_field queue"),
        (json!({"labels": {}}), "422 unknown_field labels"),
    ] {
        assert_eq!(patch(&hub, &task, body.clone()).await.problem(), expected, "{body}");
    }
    let before = hub.task(&task).await;
    assert_eq!(patch(&hub, &task, json!({})).await.expect(200)["rev"], before["rev"], "nothing is changed");
    let nobody = "0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5c6d";
    assert_eq!(patch(&hub, nobody, json!({"priority": 1})).await.problem(), "404 task_not_found");
}
