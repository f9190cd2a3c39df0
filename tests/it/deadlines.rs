//! Times by which something must have happened, waits that are named, and requests to stop that are followed to their end.

use std::time::Duration;

use serde_json::{Value, json};
use taskhub::client::Client;
use taskhub::task::{NewTask, Timestamp};
use taskhub::worker::{Context, TaskFailure, Worker};

use crate::kit::{HubProcess, PATIENCE, TestHub, TestSocket, eventually, id, in_time, program};

const HOUR_MS: u64 = 3_600_000;

fn in_an_hour() -> Timestamp {
    Timestamp::now().plus_millis(HOUR_MS)
}

/// Attempts that were taken from the worker, and that it has not let go of.
async fn stuck(hub: &TestHub, worker_id: &str) -> Value {
    let workers = hub.get("/api/v1/workers").await.expect(200);
    let mut all = workers["workers"].as_array().expect("workers").iter();
    let worker = all.find(|worker| worker["worker_id"] == worker_id).expect("the worker is known");
    worker.get("stuck").cloned().unwrap_or_else(|| json!([]))
}

/// Says of an attempt that it has let go, and reads the refusal and whatever the slot is given.
async fn let_go(worker: &mut TestSocket, task_id: &str, attempt: u64) {
    worker.say(json!({"op": "cancelled", "task_id": task_id, "attempt": attempt})).await;
    let refused = worker.next_of("refused").await;
    assert_eq!((&refused["task_id"], &refused["code"]), (&json!(task_id), &json!("lease_lost")));
}

#[tokio::test]
async fn each_end_has_a_kind_of_its_own() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("w", json!({"queues": ["served"]})).await;
    for (field, kind) in [("deadline_ms", "deadline"), ("timeout_ms", "timeout"), ("silence_ms", "silent")] {
        let task_id = id(&hub.submit(json!({"task_type": "t", "queue": "served", field: 50})).await);
        worker.expect("run").await;
        let told = worker.expect("cancel").await;
        assert_eq!((&told["task_id"], &told["reason"]), (&json!(task_id), &json!(kind)));
        let task = hub.finished(&task_id).await;
        assert_eq!((&task["status"], &task["error"]["kind"]), (&json!("failed"), &json!(kind)));
        assert_eq!((&task["ended_by_hub"], &task["tries"]), (&json!(true), &json!(1)));
        assert_eq!(hub.attempt(&task_id, 1, "complete", json!({})).await.problem(), "409 lease_lost", "it is fenced");
    }
    // Nobody serves these.
    let past = Timestamp::from_millis(0);
    for (task, kind) in [
        (json!({"task_type": "t", "deadline_ms": 20}), "deadline"),
        (json!({"task_type": "t", "deadline_ms": 20, "delay_ms": 19}), "deadline"),
        (json!({"task_type": "t", "deadline_ms": 20, "run_at": in_an_hour()}), "deadline"),
        (json!({"task_type": "t", "deadline_at": past}), "deadline"),
        (json!({"task_type": "t", "start_by_ms": 20, "deadline_ms": HOUR_MS}), "expired"),
        (json!({"task_type": "t", "start_by_at": past}), "expired"),
    ] {
        let task_id = id(&hub.submit(task.clone()).await);
        let ended = hub.finished(&task_id).await;
        assert_eq!((&ended["status"], &ended["error"]["kind"]), (&json!("failed"), &json!(kind)), "{task}");
        assert_eq!((&ended["attempt"], ended.get("run_at")), (&json!(0), None));
        assert_eq!(hub.events(&task_id).await.last().map(String::as_str), Some("failed"));
    }
}

#[tokio::test]
async fn a_retry_by_hand_counts_a_wait_anew_and_not_a_moment() {
    let hub = TestHub::start().await;
    let retry = async |task: Value| {
        let task_id = id(&hub.submit(task).await);
        hub.finished(&task_id).await;
        (task_id.clone(), hub.tell(&format!("/api/v1/tasks/{task_id}/retry")).await)
    };
    let past = Timestamp::from_millis(0);
    for field in ["deadline_at", "start_by_at"] {
        let (task_id, refused) = retry(json!({"task_type": "t", field: past})).await;
        assert_eq!(refused.problem(), "409 conflict");
        assert_eq!(hub.task(&task_id).await["status"], "failed");
    }
    for field in ["deadline_ms", "start_by_ms"] {
        let (task_id, again) = retry(json!({"task_type": "t", field: 20})).await;
        assert_eq!(again.expect(200)["status"], "pending");
        assert_eq!(hub.finished(&task_id).await["status"], "failed", "and it holds again");
        let events = hub.events(&task_id).await;
        assert_eq!(events, ["created", "failed", "retrying", "failed"]);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_field() {
    let hub = TestHub::start().await;
    let at = in_an_hour();
    for (more, problem) in [
        (json!({"deadline_ms": -1}), "422 invalid_field deadline_ms"),
        (json!({"deadline_ms": 0}), "422 invalid_field deadline_ms"),
        (json!({"deadline_ms": "5"}), "422 invalid_field deadline_ms"),
        (json!({"deadline_ms": [5]}), "422 invalid_field deadline_ms"),
        (json!({"deadline_ms": u64::MAX}), "422 limit_exceeded deadline_ms"),
        (json!({"start_by_ms": u64::MAX}), "422 limit_exceeded start_by_ms"),
        (json!({"silence_ms": u64::MAX}), "422 limit_exceeded silence_ms"),
        (json!({"cancel_grace_ms": u64::MAX}), "422 limit_exceeded cancel_grace_ms"),
        (json!({"cancel_grace_ms": true}), "422 invalid_field cancel_grace_ms"),
        (json!({"silence_ms": 0}), "422 invalid_field silence_ms"),
        (json!({"deadline_at": 5}), "422 invalid_field deadline_at"),
        (json!({"deadline_at": "tomorrow"}), "422 invalid_field deadline_at"),
        (json!({"start_by_at": {}}), "422 invalid_field start_by_at"),
        (json!({"deadline_at": at, "deadline_ms": 5}), "422 invalid_field deadline_ms"),
        (json!({"deadline_at": at, "run_at": at}), "422 invalid_field deadline_at"),
        (json!({"start_by_ms": 5, "delay_ms": 6}), "422 invalid_field start_by_ms"),
        (json!({"retry": {"delays_ms": []}}), "422 invalid_field retry"),
        (json!({"retry": {"delays_ms": [1], "base_ms": 1}}), "422 invalid_field retry"),
        (json!({"retry": {"delays_ms": [1, null]}}), "422 invalid_field retry.delays_ms[1]"),
        (json!({"retry": {"delays_ms": [1, "2"]}}), "422 invalid_field retry.delays_ms[1]"),
        (json!({"retry": {"delays_ms": [1, u64::MAX]}}), "422 limit_exceeded retry.delays_ms[1]"),
        (json!({"retry": {"delays_ms": vec![1; 101]}}), "422 limit_exceeded retry.delays_ms"),
    ] {
        let mut task = json!({"task_type": "t"});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(hub.post("/api/v1/tasks", task).await.problem(), problem, "{more}");
    }
    // Null is as good as nothing.
    let nothing = json!({"task_type": "t", "deadline_at": null, "deadline_ms": null, "start_by_at": null, "start_by_ms": null,
        "silence_ms": null, "cancel_grace_ms": null, "retry": {"delays_ms": null, "base_ms": 1}});
    let task = hub.submit(nothing).await;
    assert!(
        ["deadline_at", "start_by_at", "silence_ms", "cancel_grace_ms"].iter().all(|field| task.get(field).is_none())
    );
    let task_id = id(&task);
    hub.claim("w").await;
    for (body, problem) in [
        (json!({"retry_after_ms": -1}), "422 invalid_field retry_after_ms"),
        (json!({"retry_after_ms": "soon"}), "422 invalid_field retry_after_ms"),
        (json!({"retry_after_ms": u64::MAX}), "422 limit_exceeded retry_after_ms"),
    ] {
        assert_eq!(hub.attempt(&task_id, 1, "fail", body).await.problem(), problem);
    }
    assert_eq!(hub.task(&task_id).await["status"], "running", "what was refused has changed nothing");
}

#[tokio::test]
async fn heartbeats_do_not_break_a_silence() {
    let hub = TestHub::start().await;
    let task_id = id(&hub
        .submit(json!({"task_type": "t", "silence_ms": 300, "max_attempts": 2, "retry": {"delays_ms": [0]}}))
        .await);
    hub.claim("w").await;
    eventually("the silent attempt is fenced", async || {
        let beat = hub.attempt(&task_id, 1, "heartbeat", json!({})).await;
        (beat.status != 200).then(|| assert_eq!(beat.problem(), "409 lease_lost"))
    })
    .await;
    let again = hub.claim("w").await;
    assert_eq!((&again["attempt"], &again["task"]["tries"]), (&json!(2), &json!(2)), "it was a try");
    let history = hub.get(&format!("/api/v1/tasks/{task_id}/history")).await.expect(200);
    let silent =
        history["transitions"].as_array().unwrap().iter().find(|line| line["event"] == "task.retrying").unwrap();
    assert_eq!(silent["note"], "silent");
}

#[tokio::test]
async fn who_does_not_stop_is_fenced_and_its_slot_is_stuck_until_it_lets_go() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("w", json!({})).await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "cancel_grace_ms": 50})).await);
    worker.expect("run").await;
    hub.post(&format!("/api/v1/tasks/{task_id}/cancel"), json!({"reason": "enough"})).await.expect(202);
    assert_eq!(worker.expect("cancel").await["reason"], "enough");
    assert_eq!(worker.expect("cancel").await["reason"], "cancelled", "it is told that it is fenced");
    let task = hub.finished(&task_id).await;
    assert_eq!((&task["status"], &task["cancel"]), (&json!("cancelled"), &json!("ignored")));
    let held = json!([{"task_id": task_id, "attempt": 1}]);
    assert_eq!(stuck(&hub, "w").await, held);
    let next = hub.submit_any().await;
    // Neither a sign of life nor a word of its work frees the slot.
    worker.say(json!({"op": "heartbeat"})).await;
    worker.say(json!({"op": "progress", "task_id": task_id, "attempt": 1, "progress": {"percentage": 5}})).await;
    assert_eq!(worker.expect("refused").await["code"], "lease_lost");
    assert_eq!(hub.attempt(&task_id, 1, "heartbeat", json!({})).await.problem(), "409 lease_lost");
    assert_eq!((stuck(&hub, "w").await, &hub.task(&next).await["status"]), (held, &json!("pending")));
    let_go(&mut worker, &task_id, 1).await;
    assert_eq!(hub.once(&next, "running").await["worker_id"], "w");
    assert_eq!(stuck(&hub, "w").await, json!([]));
    assert_eq!(hub.task(&task_id).await["cancel"], "ignored", "a late word changes nothing");
}

#[tokio::test]
async fn a_stuck_slot_is_free_when_its_connection_ends() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("w", json!({})).await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "deadline_ms": 50})).await);
    worker.expect("run").await;
    hub.finished(&task_id).await;
    assert_eq!(stuck(&hub, "w").await, json!([{"task_id": task_id, "attempt": 1}]));
    let next = hub.submit_any().await;
    worker.cut();
    let mut worker = hub.worker("w", json!({"holding": [{"task_id": task_id, "attempt": 1}]})).await;
    assert_eq!(id(&worker.next_of("run").await["task"]), next);
    assert_eq!(stuck(&hub, "w").await, json!([]));
}

#[tokio::test]
async fn how_far_a_request_to_stop_has_come_is_seen_live() {
    let hub = TestHub::start().await;
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": {}})).await;
    live.next_of("subscribed").await;
    let mut worker = hub.worker("socket", json!({"queues": ["sockets"]})).await;
    for (queue, verb, status, ends) in [
        ("sockets", "cancelled", "cancelled", "acknowledged"),
        ("sockets", "complete", "completed", "delivered"),
        ("default", "cancelled", "cancelled", "acknowledged"),
        ("default", "fail", "cancelled", "delivered"),
    ] {
        let task_id = id(&hub.submit(json!({"task_type": "t", "queue": queue, "cancel_grace_ms": HOUR_MS})).await);
        if queue == "default" {
            drop(hub.claim("http").await)
        } else {
            drop(worker.next_of("run").await)
        }
        assert_eq!(hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(202)["cancel"], "requested");
        if queue == "default" {
            // It hears of it with its next answer.
            let told = hub.attempt(&task_id, 1, "heartbeat", json!({})).await.expect(200);
            assert_eq!(told["cancel_requested"], true);
        } else {
            worker.next_of("cancel").await;
        }
        let of = |event: &Value| event["type"] == "task" && event["task"]["task_id"] == json!(task_id);
        let delivered = |event: &Value| of(event) && event["task"]["cancel"] == "delivered";
        let seen = live.through("it is delivered", delivered).await;
        let asked: Vec<&Value> = seen.iter().filter(|event| event["event"] == "task.cancel_requested").collect();
        assert_eq!(asked.iter().map(|event| &event["task"]["cancel"]).collect::<Vec<_>>(), ["requested", "delivered"]);
        assert!(
            asked.iter().all(|event| event["task"]["cancel_requested_at"] == asked[0]["task"]["cancel_requested_at"])
        );
        hub.attempt(&task_id, 1, verb, json!({})).await.expect(200);
        let last = live.until("it is final", |event| of(event) && event["task"].get("finished_at").is_some()).await;
        assert_eq!(
            (&last["task"]["status"], &last["task"]["cancel"]),
            (&json!(status), &json!(ends)),
            "{queue} {verb}"
        );
        assert_eq!(hub.task(&task_id).await["cancel"], ends);
    }
}

#[tokio::test]
async fn waits_between_tries_are_those_of_the_list_or_of_the_worker() {
    let hub = TestHub::start().await;
    let with = |delays: &[u64]| json!({"task_type": "t", "max_attempts": 9, "retry": {"delays_ms": delays}});
    let task_id = id(&hub.submit(with(&[0, HOUR_MS])).await);
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "fail", json!({})).await.expect(200);
    assert_eq!(hub.claim("w").await["attempt"], 2);
    hub.attempt(&task_id, 2, "fail", json!({})).await.expect(200);
    let task = hub.task(&task_id).await;
    assert_eq!((&task["status"], &task["delay_ms"]), (&json!("scheduled"), &json!(HOUR_MS)));
    assert_eq!(task["retry"], json!({"delays_ms": [0, HOUR_MS]}), "it is shown as it was said");

    let task_id = id(&hub.submit(with(&[HOUR_MS])).await);
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "fail", json!({"retry_after_ms": 0})).await.expect(200);
    let mut worker = hub.worker("socket", json!({})).await;
    assert_eq!(worker.expect("run").await["attempt"], 2);
    let fail = |after: u64| json!({"op": "fail", "task_id": task_id, "attempt": 2, "retry_after_ms": after});
    worker.say(fail(31 * 24 * HOUR_MS)).await;
    assert_eq!(worker.expect("refused").await["code"], "limit_exceeded");
    worker.say(fail(2 * HOUR_MS)).await;
    worker.expect("ack").await;
    let task = hub.task(&task_id).await;
    assert_eq!((&task["status"], &task["delay_ms"]), (&json!("scheduled"), &json!(2 * HOUR_MS)));
}

#[tokio::test]
async fn the_library_says_when_to_try_again() {
    let hub = TestHub::start().await;
    let worker = Worker::new(&hub.url).register("t", |ctx: Context| async move {
        let wait = Duration::from_millis(if ctx.attempt() == 1 { 0 } else { 2 * HOUR_MS });
        Err::<(), _>(TaskFailure::new("busy", "come back").retry_after(wait))
    });
    let working = tokio::spawn(worker.run(std::future::pending()));
    let task_id =
        id(&hub.submit(json!({"task_type": "t", "max_attempts": 9, "retry": {"delays_ms": [HOUR_MS]}})).await);
    let waits = eventually("two tries failed", async || {
        let task = hub.task(&task_id).await;
        (task["status"] == "scheduled" && task["attempt"] == 2).then_some(task)
    });
    let task = waits.await;
    assert_eq!((&task["delay_ms"], &task["last_error"]["kind"]), (&json!(2 * HOUR_MS), &json!("busy")));
    working.abort();
}

/// Regression: a function that went on reporting after its attempt was ended was dropped without a word, and its slot
/// stayed stuck.
#[tokio::test]
async fn a_function_of_the_library_that_is_fenced_gives_its_slot_back() {
    let hub = TestHub::start().await;
    // It looks, so it is given its grace; and it goes on.
    let worker = Worker::new(&hub.url).id("w").concurrency(1).cancel_grace(Duration::from_secs(3_600)).register(
        "t",
        |ctx: Context| async move {
            for n in 0_u64.. {
                let _ = ctx.is_cancelled();
                ctx.progress(taskhub::task::Progress { message: Some(n.to_string()), ..Default::default() });
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, TaskFailure>(())
        },
    );
    let working = tokio::spawn(worker.run(std::future::pending()));
    for field in ["timeout_ms", "deadline_ms", "cancel_grace_ms"] {
        let task_id = id(&hub.submit(json!({"task_type": "t", field: 300})).await);
        if field == "cancel_grace_ms" {
            hub.once(&task_id, "running").await;
            hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(202);
        }
        let task = hub.finished(&task_id).await;
        assert!(task["finished_at"].is_string() && task["status"] != "completed", "{task}");
        eventually(format_args!("its slot is free after {field}"), async || {
            (stuck(&hub, "w").await == json!([])).then_some(())
        })
        .await;
    }
    working.abort();
}

#[test]
fn a_submission_by_command_says_all_of_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hub = runtime.block_on(TestHub::start());
    let submit = |words: &[&str]| {
        let mut command = program();
        command.args(["submit", "t", "--json"]).args(words).env("TASKHUB_URL", &hub.url);
        command.output().expect("the program runs")
    };
    let output = submit(&[
        "--deadline",
        "1h",
        "--start-by",
        "2199-01-31T12:00:00Z",
        "--silence",
        "30s",
        "--retry-delays",
        "1s,5s,1m",
        "--max-attempts",
        "4",
    ]);
    assert!(output.status.success(), "{output:?}");
    let task: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&task["deadline_ms"], &task["silence_ms"]), (&json!(HOUR_MS), &json!(30_000)));
    assert_eq!((&task["start_by_at"], task.get("start_by_ms")), (&json!("2199-01-31T12:00:00.000Z"), None));
    assert_eq!(task["retry"], json!({"delays_ms": [1_000, 5_000, 60_000]}));
    for (words, code) in [
        (["--deadline", "soon"], 2),
        (["--silence", "-1s"], 2),
        (["--retry-delays", "1s,,2s"], 2),
        (["--deadline", "0s"], 4),
        (["--retry-delays", "31days"], 4),
    ] {
        let output = submit(&words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_over_the_death_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = HubProcess::start(folder.path(), ["--goodbye", "10ms"]);
    let client = Client::new(&hub.url).unwrap();
    let submit = async |new: NewTask| client.submit(&new).await.unwrap();
    let soon = submit(NewTask { deadline_ms: Some(1_000), ..NewTask::new("t") }).await;
    let at = submit(NewTask { deadline_at: Some(Timestamp::now().plus_millis(1_000)), ..NewTask::new("t") }).await;
    let unstarted = submit(NewTask { start_by_ms: Some(1_000), delay_ms: Some(900), ..NewTask::new("t") }).await;
    let later = submit(NewTask { deadline_ms: Some(HOUR_MS), start_by_ms: Some(HOUR_MS), ..NewTask::new("t") }).await;
    hub.program.kill();
    hub.program.wait(PATIENCE);
    let hub = HubProcess::start(folder.path(), ["--goodbye", "10ms"]);
    let client = Client::new(&hub.url).unwrap();
    for (task, kind) in [(soon, "deadline"), (at, "deadline"), (unstarted, "expired")] {
        let task = in_time(kind, client.wait(task.task_id)).await.unwrap();
        assert_eq!(task.error.map(|error| error.kind).as_deref(), Some(kind));
    }
    let still = client.get(later.task_id).await.unwrap();
    assert_eq!((still.status, still.deadline_at), (later.status, later.deadline_at));
    assert_eq!((still.start_by_at, still.start_by_ms), (later.start_by_at, Some(HOUR_MS)));
}
