//! The same submission under the same key makes one task, however often and however concurrently it arrives.

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, id};

async fn submit(hub: &TestHub, path: &str, key: &str, body: &Value) -> Answer {
    Answer::of(hub.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

#[tokio::test]
async fn a_repeated_key_brings_back_the_first_task_as_it_is_now() {
    let hub = TestHub::start().await;
    let body = json!({"task_type": "t", "payload": 1});
    let first = submit(&hub, "/api/v1/tasks", "k", &body).await;
    assert_eq!(first.status, 201);
    let again = submit(&hub, "/api/v1/tasks", "k", &body).await;
    assert_eq!((again.status, id(&again.body)), (200, id(&first.body)));
    hub.claim("w").await;
    let again = submit(&hub, "/api/v1/tasks", "k", &body).await;
    assert_eq!((again.status, &again.body["status"]), (200, &json!("running")));
    assert_eq!(again.header("location"), first.header("location"));

    let other = submit(&hub, "/api/v1/tasks", "k", &json!({"task_type": "t", "payload": 2})).await;
    assert_eq!(other.problem(), "409 idempotency_conflict");
    let fresh = submit(&hub, "/api/v1/tasks", "K", &body).await;
    assert_eq!(fresh.status, 201, "keys are told apart by case");
}

#[tokio::test]
async fn a_key_belongs_to_its_route() {
    let hub = TestHub::start().await;
    let batch = json!({"tasks": [{"task_type": "t"}, {"task_type": "t"}]});
    assert_eq!(submit(&hub, "/api/v1/tasks", "k", &json!({"task_type": "t"})).await.status, 201);
    let first = submit(&hub, "/api/v1/tasks/batch", "k", &batch).await;
    let again = submit(&hub, "/api/v1/tasks/batch", "k", &batch).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body["tasks"], again.body["tasks"]);
}

#[tokio::test]
async fn a_key_whose_task_was_deleted_is_a_conflict() {
    let hub = TestHub::start().await;
    let body = json!({"task_type": "t"});
    let task_id = id(&submit(&hub, "/api/v1/tasks", "k", &body).await.body);
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    hub.delete(&format!("/api/v1/tasks/{task_id}")).await.expect(204);
    assert_eq!(submit(&hub, "/api/v1/tasks", "k", &body).await.problem(), "409 idempotency_conflict");
}

#[tokio::test]
async fn a_storm_of_repeats_makes_one_task() {
    let hub = TestHub::start().await;
    let body = json!({"task_type": "t"});
    let storm = (0..40).map(|_| submit(&hub, "/api/v1/tasks", "k", &body));
    let answers = futures::future::join_all(storm).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 1);
    assert!(answers.iter().all(|answer| id(&answer.body) == id(&answers[0].body)));
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["pending"], 1);
}

#[tokio::test]
async fn keys_outlive_a_restart_and_failed_attempts_take_none() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let body = json!({"task_type": "t"});
    let first = submit(&hub, "/api/v1/tasks", "k", &body).await;
    let wrong = submit(&hub, "/api/v1/tasks", "wrong", &json!({"task_type": "t", "priority": 101})).await;
    assert_eq!(wrong.problem(), "422 invalid_field priority");
    hub.restart().await;
    let again = submit(&hub, "/api/v1/tasks", "k", &body).await;
    assert_eq!((again.status, id(&again.body)), (200, id(&first.body)));
    assert_eq!(submit(&hub, "/api/v1/tasks", "wrong", &body).await.status, 201);
}

#[tokio::test]
async fn keys_have_a_length() {
    let hub = TestHub::start().await;
    let body = json!({"task_type": "t"});
    assert_eq!(submit(&hub, "/api/v1/tasks", &"k".repeat(255), &body).await.status, 201);
    let long = submit(&hub, "/api/v1/tasks", &"k".repeat(256), &body).await;
    assert_eq!(long.problem(), "422 limit_exceeded Idempotency-Key");
    assert_eq!(submit(&hub, "/api/v1/tasks", "", &body).await.problem(), "422 invalid_field Idempotency-Key");
}
