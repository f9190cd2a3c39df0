//! Queues and limits: set and paused while the hub runs, over REST, on the command line and on the page, and kept over
//! restarts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::kit::{PATIENCE, TestHub, id};

#[tokio::test]
async fn what_is_set_of_a_queue_holds_and_is_there_after_a_restart() {
    let mut hub = TestHub::builder().on_disk().start().await;
    hub.get("/api/v1/queues/mail").await.refused(404, "queue_not_found");
    let set = hub.put("/api/v1/queues/mail", json!({"concurrency": 1, "fair_by": "user"})).await.expect(201);
    assert_eq!(
        (&set["name"], &set["concurrency"], &set["key_concurrency"], &set["fair_by"], &set["paused"]),
        (&json!("mail"), &json!(1), &json!(1), &json!("user"), &json!(false))
    );
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(id(&hub.submit(json!({"task_type": "t", "queue": "mail"})).await));
        }
        ids
    };
    let claim = || json!({"worker_id": "w", "queues": ["mail"], "max": 5});
    let given = hub.post("/api/v1/worker/claim", claim()).await.expect(200);
    assert_eq!(given["tasks"].as_array().map(Vec::len), Some(1));
    let queue = hub.get("/api/v1/queues/mail").await.expect(200);
    assert_eq!(queue["tasks"], json!({"waiting": 0, "scheduled": 0, "pending": 2, "running": 1}));
    // Its own answer may be put back.
    let again = hub.put("/api/v1/queues/mail", queue.clone()).await.expect(200);
    assert_eq!(again["rev"], queue["rev"], "nothing is different");

    hub.tell("/api/v1/queues/mail/pause").await.expect(200);
    hub.restart().await;
    let queue = hub.get("/api/v1/queues/mail").await.expect(200);
    assert_eq!((&queue["paused"], &queue["concurrency"]), (&json!(true), &json!(1)));
    let waits = hub.get(&format!("/api/v1/tasks/{}", ids[2])).await.expect(200)["waits_for"].clone();
    assert_eq!(waits[0], json!({"kind": "queue_paused"}));

    hub.delete("/api/v1/queues/mail").await.expect(204);
    let given = hub.post("/api/v1/worker/claim", claim()).await.expect(200);
    assert_eq!(given["tasks"].as_array().map(Vec::len), Some(3), "neither paused nor limited");
    hub.restart().await;
    assert_eq!(hub.get("/api/v1/queues/mail").await.expect(200).get("rev"), None);
}

#[tokio::test]
async fn wrong_settings_are_refused_by_name() {
    let hub = TestHub::start().await;
    for (body, code, field) in [
        (json!({"concurrency": 0}), "invalid_field", "concurrency"),
        (json!({"key_concurrency": 1_000_001}), "limit_exceeded", "key_concurrency"),
        (json!({"user_concurrency": 1e30}), "limit_exceeded", "user_concurrency"),
        (json!({"ageing_ms": 0}), "invalid_field", "ageing_ms"),
        (json!({"retain_ms": 0}), "invalid_field", "retain_ms"),
        (json!({"retain_count": 1e30}), "limit_exceeded", "retain_count"),
        (json!({"retain_bytes": -1}), "invalid_field", "retain_bytes"),
        (json!({"rate": {"limit": 0, "per_ms": 1}}), "invalid_field", "rate.limit"),
        (json!({"rate": {"limit": 1, "per_ms": 1e12}}), "limit_exceeded", "rate.per_ms"),
        (json!({"rate": {"limit": 1}}), "invalid_field", "rate.per_ms"),
        (json!({"rate": [1, 2]}), "invalid_field", "rate"),
        (json!({"rate": {"limit": 1, "per_ms": 1, "by": "moon"}}), "invalid_field", "rate.by"),
        (json!({"rate": {"limit": 1, "per_ms": 1, "burst": 1}}), "unknown_field", "rate.burst"),
        (json!({"fair_by": "moon"}), "invalid_field", "fair_by"),
        (json!({"colour": "red"}), "unknown_field", "colour"),
    ] {
        let problem = hub.put("/api/v1/queues/q", body.clone()).await.refused(422, code);
        assert_eq!(problem["field"], field, "{body}");
    }
    let problem = hub.put("/api/v1/queues/a%20b", json!({})).await.refused(422, "invalid_field");
    assert_eq!(problem["field"], "name");
    for verb in ["pause", "resume", "purge"] {
        hub.tell(&format!("/api/v1/queues/nobody/{verb}")).await.refused(404, "queue_not_found");
    }
    let problem = hub.put("/api/v1/limits", json!({"users": {"u": {"running": 0}}})).await;
    assert_eq!(problem.refused(422, "invalid_field")["field"], "users.u.running");
    let problem = hub.post("/api/v1/tasks", json!({"task_type": "t", "on_conflict": "reject"})).await;
    assert_eq!(problem.refused(422, "invalid_field")["field"], "on_conflict");
}

#[tokio::test]
async fn a_purge_cancels_what_does_not_run() {
    let hub = TestHub::start().await;
    let runs = id(&hub.submit(json!({"task_type": "t"})).await);
    hub.post("/api/v1/worker/claim", json!({"worker_id": "w"})).await.expect(200);
    let tasks: Vec<Value> = (0..1_200).map(|n| json!({"task_type": "t", "delay_ms": n % 2 * 600_000})).collect();
    hub.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await.expect(201);
    let elsewhere = id(&hub.submit(json!({"task_type": "t", "queue": "other"})).await);
    let purged = hub.tell("/api/v1/queues/default/purge").await.expect(200);
    assert_eq!(purged, json!({"matched": 1_200, "changed": 1_200}));
    assert_eq!(hub.task(&runs).await["status"], "running");
    assert_eq!(hub.task(&elsewhere).await["status"], "pending");
    assert_eq!(hub.get("/api/v1/stats").await.expect(200)["tasks"]["cancelled"], 1_200);
}

#[tokio::test]
async fn users_over_their_limits_wait_or_are_told_when_to_come_back() {
    let hub = TestHub::start().await;
    let limits = json!({"user": {"running": 1, "waiting": 2}, "users": {"busy": {"submits_per_min": 1}}});
    hub.put("/api/v1/limits", limits.clone()).await.expect(201);
    assert_eq!(hub.get("/api/v1/limits").await.expect(200), limits);
    let task = |user: &str| json!({"task_type": "t", "user_id": user});
    let first = id(&hub.submit(task("u")).await);
    let second = id(&hub.submit(task("u")).await);
    let answer = hub.post("/api/v1/tasks", task("u")).await;
    assert_eq!(answer.refused(429, "quota_exceeded")["limit"], 2);
    hub.submit(task("busy")).await;
    let answer = hub.post("/api/v1/tasks", task("busy")).await;
    let after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((55..=61).contains(&after), "{after}");
    answer.refused(429, "quota_exceeded");

    let given = hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "max": 5})).await.expect(200);
    assert_eq!(given["tasks"].as_array().map(Vec::len), Some(2), "one of each user");
    assert_eq!(hub.task(&first).await["status"], "running");
    let waits = hub.get(&format!("/api/v1/tasks/{second}")).await.expect(200)["waits_for"][0].clone();
    assert_eq!(waits, json!({"kind": "user_limit", "limit": 1, "running": 1}));
}

#[tokio::test]
async fn no_more_is_handed_out_in_a_window_than_its_rate_says_also_over_a_restart() {
    let mut hub = TestHub::builder().on_disk().start().await;
    const PER: Duration = Duration::from_millis(1_500);
    for (queue, by) in [("calls", "queue"), ("of_users", "user")] {
        let rate = json!({"limit": 2, "per_ms": PER.as_millis() as u64, "by": by});
        hub.put(&format!("/api/v1/queues/{queue}"), json!({ "rate": rate })).await.expect(201);
        let tasks = vec![json!({"task_type": "t", "queue": queue, "user_id": "u1"}); 5];
        let made = hub.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await.expect(201);
        let last = made["tasks"][4]["task_id"].as_str().unwrap().to_owned();
        let claim = || json!({"worker_id": "w", "queues": [queue], "max": 5, "wait_ms": 20_000});
        let begun = Instant::now();
        let given = hub.post("/api/v1/worker/claim", claim()).await.expect(200);
        assert_eq!(given["tasks"].as_array().map(Vec::len), Some(2));
        let waits = hub.get(&format!("/api/v1/tasks/{last}")).await.expect(200)["waits_for"][0].clone();
        assert_eq!(waits["kind"], "rate");
        assert!(waits["until"].as_str().unwrap() > given["tasks"][0]["task"]["started_at"].as_str().unwrap());
        hub.restart().await;
        let given = hub.post("/api/v1/worker/claim", claim()).await.expect(200);
        assert!(begun.elapsed() >= PER, "too early by {:?}", PER - begun.elapsed());
        assert_eq!(given["tasks"].as_array().map(Vec::len), Some(2));
    }
}

/// Completes so many tasks of a queue, one after the other. Answers their ids.
async fn completed(hub: &TestHub, queue: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let payload = "x".repeat(1_000);
        let task = json!({"task_type": "t", "queue": queue, "title": format!("{n}"), "payload": payload});
        let task_id = id(&hub.submit(task).await);
        hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "queues": [queue]})).await.expect(200);
        hub.post(&format!("/api/v1/tasks/{task_id}/attempts/1/complete"), json!({"result": n})).await.expect(200);
        ids.push(task_id);
    }
    ids
}

#[tokio::test]
async fn of_a_queue_as_many_finished_tasks_are_kept_as_it_says() {
    let hub = TestHub::start().await;
    for (queue, settings) in [
        ("counted", json!({"retain_count": 3})),
        ("weighed", json!({"retain_bytes": 4_500})),
        ("short", json!({"retain_ms": 1})),
        ("both", json!({"retain_ms": 86_400_000, "retain_count": 2})),
    ] {
        hub.put(&format!("/api/v1/queues/{queue}"), settings).await.expect(201);
    }
    let kept = [("counted", 3), ("weighed", 3), ("short", 0), ("both", 2), ("usual", 6)];
    let mut made = Vec::new();
    for (queue, _) in kept {
        made.push(completed(&hub, queue, 6).await);
    }
    let waits = id(&hub.submit(json!({"task_type": "t", "queue": "counted"})).await);
    for ((queue, count), made) in kept.into_iter().zip(made) {
        let begun = Instant::now();
        let expected: Vec<String> = made[6 - count..].to_vec();
        loop {
            let list = hub.get(&format!("/api/v1/tasks?queue={queue}&order=asc&status=completed")).await.expect(200);
            let left: Vec<String> = list["tasks"].as_array().unwrap().iter().map(|task| id(task)).collect();
            assert!(expected.iter().all(|task_id| left.contains(task_id)), "{queue}: one of the newest went");
            if left == expected {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{queue} still has {} finished tasks", left.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(hub.task(&waits).await["status"], "pending");
}

/// "Cancel the old build when a new commit comes."
#[tokio::test]
async fn a_newer_build_takes_the_place_of_the_older() {
    let hub = TestHub::start().await;
    let mut worker = hub.worker("ci", json!({"concurrency": 4})).await;
    let build = |commit: &str| json!({"task_type": "build", "title": commit, "concurrency_key": "main", "on_conflict": "cancel_running"});
    let old = id(&hub.submit(build("a1")).await);
    assert_eq!(worker.expect("run").await["task"]["task_id"], old);
    let skipped = id(&hub.submit(build("b2")).await);
    assert_eq!(worker.expect("cancel").await["task_id"], old);
    let new = id(&hub.submit(build("c3")).await);
    assert_eq!(hub.task(&skipped).await["status"], "cancelled");
    worker.say(json!({"op": "cancelled", "task_id": old, "attempt": 1})).await;
    let run = worker.until("the next build", |says| says["type"] == "run").await;
    assert_eq!(run["task"]["task_id"], new);
    assert_eq!(hub.task(&old).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_set_and_paused_by_command_and_on_the_page() {
    let hub = TestHub::start().await;
    let task = id(&hub.submit(json!({"task_type": "t", "queue": "mail"})).await);
    let said = hub.command(&["queue", "set", "mail", "--concurrency", "8", "--fair-by", "user", "--ageing", "1m"]);
    assert!(said.contains("mail") && said.contains('8') && said.contains("user"), "{said}");
    let said: Value =
        serde_json::from_str(&hub.command(&["queue", "set", "mail", "--user-concurrency", "2", "--json"]))
            .expect("it is JSON");
    assert_eq!(
        (&said["concurrency"], &said["user_concurrency"], &said["ageing_ms"]),
        (&json!(8), &json!(2), &json!(60_000))
    );
    let said = hub.command(&["queue", "set", "mail", "--rate", "100/1m", "--rate-by", "user"]);
    assert!(said.contains("100 in 1 m, each user"), "{said}");
    let kept = ["--retain", "2h", "--retain-count", "1000", "--retain-bytes", "5000"];
    let said = hub.command(&[&["queue", "set", "mail"][..], &kept].concat());
    assert!(said.contains("2 h, 1000 tasks, 5000 bytes"), "{said}");
    hub.command(&["limits", "--user", "u1", "--running", "3"]);
    assert_eq!(hub.get("/api/v1/limits").await.expect(200)["users"], json!({"u1": {"running": 3}}));
    assert!(hub.command(&["limits"]).contains("no limit"));

    let mut page = Browser::start().await.open(&format!("{}#/queues", hub.url)).await;
    page.until("document.querySelector('.queues li strong')?.innerText === 'mail'").await;
    let text = page.text(".queues").await;
    assert!(
        text.contains(
            "at most 8 at once, 2 a user, at most 100 handed out in any 1m for each user, in turn between users, one priority for each 1m of waiting, finished tasks kept for 2h"
        ),
        "{text}"
    );
    assert!(text.contains("1 ready"), "{text}");
    page.click(".queues button").await;
    page.until("document.querySelector('.queues button').innerText === 'Resume'").await;
    assert_eq!(hub.get("/api/v1/queues/mail").await.expect(200)["paused"], true);
    assert_eq!(hub.command(&["why", &task]).lines().next(), Some("its queue mail is paused"));
    page.until("document.querySelector('.page:not([hidden]) .summary').innerText === '1 queue, 1 paused'").await;
    hub.command(&["queue", "resume", "mail"]);
    page.until("document.querySelector('.queues button').innerText === 'Pause'").await;
    page.close().await;
}

/// What is set is told to those who watch it: all of it first, then each change.
#[tokio::test]
async fn what_is_set_is_told_live() {
    let hub = TestHub::start().await;
    hub.put("/api/v1/queues/a", json!({"concurrency": 1})).await.expect(201);
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "s", "settings": true})).await;
    assert_eq!(live.next_of("subscribed").await["mode"], "snapshot");
    let first = live.next_of("queue").await;
    assert_eq!((&first["name"], &first["concurrency"]), (&json!("a"), &json!(1)));
    assert_eq!(live.next_of("settings").await["all"], true);

    hub.put("/api/v1/limits", json!({"user": {"running": 2}})).await.expect(201);
    let limits = live.next_of("limits").await;
    assert_eq!(limits["user"], json!({"running": 2}));
    let whole = live.next_of("settings").await;
    assert_eq!((&whole["rev"], whole.get("all")), (&limits["rev"], None));
    hub.delete("/api/v1/queues/a").await.expect(204);
    let gone = live.next_of("queue").await;
    assert_eq!((&gone["name"], &gone["deleted"]), (&json!("a"), &json!(true)));

    // Whoever ends it hears no more of it.
    live.say(json!({"op": "unsubscribe", "id": 2, "sub": "s"})).await;
    live.next_of("unsubscribed").await;
    hub.put("/api/v1/queues/b", json!({})).await.expect(201);
    live.say(json!({"op": "ping", "id": 3})).await;
    live.next_of("pong").await;
}
