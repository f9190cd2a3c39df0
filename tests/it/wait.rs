//! `wait_ms` answers on the transition, not on a timer.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::kit::{TestHub, millis};

/// Far below any polling inside, and far above what a busy machine needs.
const PROMPT: Duration = Duration::from_millis(250);

#[tokio::test]
async fn the_answer_comes_with_the_end_of_the_task() {
    let hub = TestHub::start().await;
    for path in ["", "/result"] {
        let task_id = hub.submit_any().await;
        hub.claim("w").await;
        let path = format!("/api/v1/tasks/{task_id}{path}?wait_ms=20000");
        let waiting = async { (hub.get(&path).await.expect(200), Instant::now()) };
        let ending = async {
            // A tick is no transition: it must not end the wait.
            hub.attempt(&task_id, 1, "progress", json!({"progress": {"percentage": 1}})).await.expect(200);
            hub.attempt(&task_id, 1, "complete", json!({"result": 7})).await.expect(200);
            Instant::now()
        };
        let ((answer, answered), ended) = tokio::join!(waiting, ending);
        assert_eq!(answer["result"], 7);
        assert!(answered.saturating_duration_since(ended) < PROMPT, "{:?} late", answered - ended);
    }
}

#[tokio::test]
async fn since_rev_waits_for_the_next_transition_only() {
    let hub = TestHub::start().await;
    let task = hub.submit(json!({"task_type": "t"})).await;
    let (task_id, rev) = (task["task_id"].as_str().unwrap(), task["rev"].as_u64().unwrap());
    let path = |since: u64| format!("/api/v1/tasks/{task_id}?wait_ms=20000&since_rev={since}");
    let known = hub.get(&path(rev - 1)).await.expect(200);
    assert_eq!(known["status"], "pending", "a rev above it is there already");
    let (next, _) = tokio::join!(async { hub.get(&path(rev)).await.expect(200) }, hub.claim("w"));
    assert_eq!(next["status"], "running");
    assert!(next["rev"].as_u64() > Some(rev));
}

#[tokio::test]
async fn a_final_task_answers_at_once_and_time_runs_out_for_others() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let begun = Instant::now();
    let same = hub.get(&format!("/api/v1/tasks/{task_id}?wait_ms=100")).await.expect(200);
    assert_eq!(same["status"], "pending");
    assert!(begun.elapsed() >= millis(100), "{:?}", begun.elapsed());
    let early = hub.get(&format!("/api/v1/tasks/{task_id}/result?wait_ms=50")).await;
    assert_eq!(early.problem(), "409 task_not_finished");

    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    let begun = Instant::now();
    let done = hub.get(&format!("/api/v1/tasks/{task_id}?wait_ms=60000&since_rev=999999")).await.expect(200);
    assert_eq!(done["status"], "cancelled");
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_hundred_wait_for_the_same_task() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let path = format!("/api/v1/tasks/{task_id}?wait_ms=20000");
    let waiting = futures::future::join_all((0..100).map(|_| hub.get(&path)));
    let cancel = format!("/api/v1/tasks/{task_id}/cancel");
    let (answers, _) = tokio::join!(waiting, hub.tell(&cancel));
    assert!(answers.iter().all(|answer| answer.body["status"] == "cancelled"));
}

/// Whoever deletes the task ends the wait too.
#[tokio::test]
async fn a_task_that_is_not_there_is_not_waited_for() {
    let hub = TestHub::start().await;
    let begun = Instant::now();
    let none = hub.get("/api/v1/tasks/01890000-0000-7000-8000-00000000002a?wait_ms=20000").await;
    assert_eq!(none.problem(), "404 task_not_found");
    assert!(begun.elapsed() < PROMPT);
}
