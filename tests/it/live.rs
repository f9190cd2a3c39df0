//! The live stream: what happens, in order, to everyone who asked and to nobody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::kit::{TestHub, TestSocket, eventually, id, in_time, millis};

/// Subscribes and reads up to the first mark; answers what came.
async fn subscribe(socket: &mut TestSocket, words: Value) -> Vec<Value> {
    let mut said = json!({"op": "subscribe", "id": 1, "sub": "s"});
    said.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
    socket.say(said).await;
    socket.through("the mark after subscribing", |line| line["type"] == "mark").await
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["type"].as_str().unwrap()).collect()
}

/// `EVENT status attempt` of a task line.
fn step(line: &Value) -> String {
    let event = line["event"].as_str().unwrap_or_else(|| panic!("no event: {line}")).replace("task.", "");
    format!("{event} {} {}", line["task"]["status"].as_str().unwrap(), line["task"]["attempt"])
}

async fn complete(hub: &TestHub, task_id: &str, attempt: u64) {
    hub.attempt(task_id, attempt, "complete", json!({"result": attempt})).await.expect(200);
}

#[tokio::test]
async fn the_hub_says_who_it_is_first() {
    let hub = TestHub::start().await;
    let mut socket = TestSocket::open(&hub, "/api/v1/ws", &["taskhub.v1"]).await;
    assert_eq!(socket.protocol.as_deref(), Some("taskhub.v1"));
    let hello = socket.expect("hello").await;
    let stats = hub.get("/api/v1/stats").await.expect(200);
    assert_eq!((&hello["epoch"], &hello["rev"], &hello["ping_ms"]), (&stats["epoch"], &json!(0), &json!(25_000)));
    assert_eq!((&hello["limits"]["subscriptions"], &hello["limits"]["filter_values"]), (&json!(64), &json!(1_000)));
    socket.say(json!({"op": "hello", "id": 5})).await;
    assert_eq!(socket.expect("hello").await["id"], 5);
    // The sender of a token believes to be somebody, so a wrong one is told also where none is needed.
    socket.say(json!({"op": "refresh", "id": 6, "token": "x"})).await;
    let refused = socket.expect("error").await;
    assert_eq!((&refused["id"], &refused["code"]), (&json!(6), &json!("unauthenticated")));
    socket.say_text("{\"op\":\"ping\",\"id\":7}\n {\"op\":\"ping\"} ").await;
    assert_eq!(socket.next().await, json!({"type": "pong", "id": 7}));
    assert_eq!(socket.next().await, json!({"type": "pong"}));
    let mut plain = TestSocket::open(&hub, "/api/v1/ws", &[]).await;
    plain.expect("hello").await;
    assert_eq!(hub.get("/api/v1/ws").await.problem(), "422 invalid_field Upgrade");
}

#[tokio::test]
async fn a_life_is_told_step_by_step() {
    let hub = TestHub::start().await;
    let mut socket = hub.live().await;
    let start = subscribe(&mut socket, json!({})).await;
    assert_eq!(kinds(&start), ["subscribed", "snapshot", "mark"]);
    assert_eq!((&start[0]["id"], &start[0]["sub"], &start[0]["mode"]), (&json!(1), &json!("s"), &json!("snapshot")));
    assert_eq!((&start[1]["tasks"], &start[1]["more"]), (&json!([]), &json!(false)));

    let retry = json!({"base_ms": 0});
    let task_id = id(&hub.submit(json!({"task_type": "t", "payload": 1, "max_attempts": 2, "retry": retry})).await);
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "fail", json!({"error": {"kind": "x"}})).await.expect(200);
    hub.claim("w").await;
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(202);
    hub.attempt(&task_id, 2, "cancelled", json!({})).await.expect(200);
    hub.tell(&format!("/api/v1/tasks/{task_id}/retry")).await.expect(200);
    hub.claim("w").await;
    complete(&hub, &task_id, 3).await;
    hub.delete(&format!("/api/v1/tasks/{task_id}")).await.expect(204);

    let told = socket.through("the end", |line| line["type"] == "gone").await;
    let (gone, told) = told.split_last().unwrap();
    let told: Vec<&Value> = told.iter().filter(|line| line["type"] != "mark").collect();
    let steps: Vec<String> = told.iter().map(|line| step(line)).collect();
    assert_eq!(
        steps,
        [
            "created pending 0",
            "running running 1",
            "retrying scheduled 1",
            "pending pending 1",
            "running running 2",
            "cancel_requested running 2",
            "cancelled cancelled 2",
            "retrying pending 2",
            "running running 3",
            "completed completed 3",
        ]
    );
    for (at, line) in told.iter().enumerate() {
        assert_eq!(line["rev"], at + 1, "one rev a step, without holes");
        assert_eq!((&line["task"]["rev"], &line["task"]["tick"]), (&line["rev"], &json!(0)));
        assert!(line["task"].get("payload").is_none(), "{line}");
    }
    assert_eq!(told.last().unwrap()["task"]["result"], 3);
    assert_eq!(*gone, json!({"type": "gone", "task_id": task_id, "rev": 11}));
    let mark = socket.expect("mark").await;
    assert_eq!(mark["rev"], 11, "a mark comes with the quiet");
}

#[tokio::test]
async fn the_snapshot_is_what_there_is() {
    let hub = TestHub::start().await;
    let tasks: Vec<Value> = (0..250).map(|n| json!({"task_type": "t", "title": n.to_string()})).collect();
    let made = hub.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
    let ids: Vec<Value> = made["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].clone()).collect();
    let given = hub.claim("w").await;
    hub.attempt(&id(&given["task"]), 1, "progress", json!({"progress": {"percentage": 5}})).await.expect(200);
    for (snapshot, expected, truncated) in [
        (json!({}), ids.iter().rev().take(200).cloned().collect::<Vec<_>>(), true),
        (json!({"snapshot": {"limit": 3}}), ids.iter().rev().take(3).cloned().collect(), true),
        (json!({"snapshot": {"limit": 1000}}), ids.iter().rev().cloned().collect(), false),
        (json!({"snapshot": {"limit": 250, "order": "asc"}}), ids.clone(), false),
    ] {
        let mut socket = hub.live().await;
        let start = subscribe(&mut socket, snapshot.clone()).await;
        let pages: Vec<&Value> = start.iter().filter(|line| line["type"] == "snapshot").collect();
        let seen: Vec<Value> = pages
            .iter()
            .flat_map(|page| page["tasks"].as_array().unwrap())
            .map(|task| task["task_id"].clone())
            .collect();
        assert_eq!(seen, expected, "{snapshot}");
        let (last, before) = pages.split_last().unwrap();
        assert!(before.iter().all(|page| page["more"] == true && page.get("truncated").is_none()));
        assert_eq!((last["more"] == true, last["truncated"] == true), (false, truncated), "{snapshot}");
        let oldest =
            pages.iter().flat_map(|page| page["tasks"].as_array().unwrap()).find(|task| task["task_id"] == ids[0]);
        assert!(oldest.is_none_or(|task| task["progress"]["percentage"] == 5 && task["tick"] == 1), "{oldest:?}");
    }
}

#[tokio::test]
async fn filters_choose_and_a_task_is_seen_to_leave() {
    let hub = TestHub::start().await;
    let mut socket = hub.live().await;
    subscribe(&mut socket, json!({"filter": {"status": ["pending"], "labels": {"p": ["1", "2"]}}})).await;
    hub.submit(json!({"task_type": "t", "queue": "nobody"})).await;
    hub.submit(json!({"task_type": "t", "queue": "nobody", "labels": {"p": "3"}})).await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "labels": {"p": "1", "q": "x"}})).await);
    hub.claim("w").await;
    complete(&hub, &task_id, 1).await;
    let last = id(&hub.submit(json!({"task_type": "t", "labels": {"p": "2"}})).await);
    let told = socket.through("the last task", |line| line["task"]["task_id"] == last).await;
    let steps: Vec<String> = told.iter().filter(|line| line["type"] == "task").map(step).collect();
    // It enters, and is seen to leave; what happens to it outside the filter is not told.
    assert_eq!(steps, ["created pending 0", "running running 1", "created pending 0"]);

    for (filter, matches) in [
        (json!({"task_type": ["ingest.*", "x"]}), true),
        (json!({"task_type": ["ingest"]}), false),
        (json!({"queue": ["slow"]}), true),
        (json!({"queue": ["slo"]}), false),
        (json!({"user_id": ["u1", "u2"]}), true),
        (json!({"user_id": ["u2"]}), false),
        (json!({"status": ["pending", "running"]}), true),
        (json!({"status": ["failed"]}), false),
        (json!({"labels": {"p": ["1"]}, "user_id": ["u1"]}), true),
        (json!({"labels": {"p": ["1"], "q": ["1"]}}), false),
        (json!({"workflow_id": ["w"]}), false),
        (json!({}), true),
    ] {
        let mut socket = hub.live().await;
        subscribe(&mut socket, json!({"filter": filter})).await;
        // A second subscription, to see that nothing of the first is on its way when this is told.
        socket
            .say(json!({"op": "subscribe", "sub": "fence", "filter": {"queue": ["fence"]}, "snapshot": {"limit": 1}}))
            .await;
        socket.next_of("mark").await;
        let task = json!({"task_type": "ingest.pdf", "queue": "slow", "user_id": "u1", "labels": {"p": "1"}});
        let task_id = id(&hub.submit(task).await);
        hub.submit(json!({"task_type": "fence", "queue": "fence"})).await;
        let told = socket.through("the fence", |line| line["task"]["queue"] == "fence").await;
        assert_eq!(told.iter().any(|line| line["task"]["task_id"] == task_id), matches, "{filter}");
    }
}

#[tokio::test]
async fn an_event_is_sent_once_however_many_subscriptions_match() {
    let hub = TestHub::start().await;
    let mut socket = hub.live().await;
    for (sub, filter) in [("a", json!({})), ("b", json!({"task_type": ["t"]})), ("c", json!({"status": ["pending"]}))] {
        subscribe(&mut socket, json!({"sub": sub, "filter": filter})).await;
    }
    let first = hub.submit_any().await;
    for sub in ["a", "c"] {
        socket.say(json!({"op": "unsubscribe", "id": 9, "sub": sub})).await;
        let done = socket.next_of("unsubscribed").await;
        assert_eq!((&done["id"], &done["sub"]), (&json!(9), &json!(sub)));
    }
    hub.submit(json!({"task_type": "other"})).await;
    let second = hub.submit_any().await;
    let told = socket.through("the second task", |line| line["task"]["task_id"] == second).await;
    let seen: Vec<&Value> = told.iter().filter(|line| line["type"] == "task").collect();
    assert!(seen.len() <= 2 && seen.iter().all(|line| line["task"]["task_type"] == "t"), "{first} twice? {told:#?}");
    socket.say(json!({"op": "unsubscribe", "id": 10, "sub": "a"})).await;
    assert_eq!(socket.next_of("error").await["id"], 10);
}

#[tokio::test]
async fn progress_is_told_at_its_pace_and_the_last_tick_always() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let mut slow = hub.live().await;
    let mut fast = hub.live().await;
    subscribe(&mut slow, json!({"max_hz": 4})).await;
    subscribe(&mut fast, json!({"max_hz": 1_000_000})).await;
    let mut worker = TestSocket::open(&hub, "/api/v1/worker/ws", &[]).await;
    worker.say(json!({"op": "hello", "worker_id": "chatty", "queues": ["nobody"]})).await;
    worker.expect("welcome").await;
    let begun = Instant::now();
    let mut ticks = 0;
    // As fast as they come, for a while that is not too short.
    while begun.elapsed() < millis(900) {
        for _ in 0..20 {
            ticks += 1;
            let progress = json!({"current": ticks, "total": 1_000_000});
            worker.say(json!({"op": "progress", "task_id": task_id, "attempt": 1, "progress": progress})).await;
        }
        worker.say(json!({"op": "complete", "task_id": task_id, "attempt": 9})).await;
        worker.expect("refused").await;
    }
    for (socket, hz) in [(&mut slow, 4.0), (&mut fast, 10.0)] {
        let told = socket.through("the last tick", |line| line["progress"]["current"] == ticks).await;
        let took = begun.elapsed().as_secs_f64();
        let progress: Vec<&Value> = told.iter().filter(|line| line["type"] == "progress").collect();
        assert!(progress.len() >= 2, "{told:#?}");
        assert!((progress.len() as f64) <= took * hz + 2.0, "{} in {took} s at {hz} Hz", progress.len());
        let order: Vec<u64> = progress.iter().map(|line| line["tick"].as_u64().unwrap()).collect();
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
        assert_eq!(*order.last().unwrap(), ticks);
        let task = hub.task(&task_id).await;
        assert!(progress.iter().all(|line| line["rev"] == task["rev"] && line["attempt"] == 1));
    }
}

#[tokio::test]
async fn nothing_is_said_of_progress_after_the_end() {
    let hub = TestHub::start().await;
    let mut socket = hub.live().await;
    subscribe(&mut socket, json!({})).await;
    for round in 0..30 {
        let task_id = hub.submit_any().await;
        hub.claim("w").await;
        for n in 0..3 {
            let progress = json!({"progress": {"percentage": n, "message": round.to_string()}});
            hub.attempt(&task_id, 1, "progress", progress).await.expect(200);
        }
        let verb = if round % 2 == 0 { "complete" } else { "fail" };
        hub.attempt(&task_id, 1, verb, json!({})).await.expect(200);
    }
    let fence = id(&hub.submit(json!({"task_type": "fence"})).await);
    let told = socket.through("the fence", |line| line["task"]["task_id"] == fence).await;
    let mut newest: BTreeMap<String, (u64, u64, bool)> = BTreeMap::new();
    for line in &told {
        let (task, tick) = match line["type"].as_str().unwrap() {
            "task" => (&line["task"], 0),
            "progress" => (line, line["tick"].as_u64().unwrap()),
            _ => continue,
        };
        let is_final = line["task"]["finished_at"].is_string();
        let this = (line["rev"].as_u64().unwrap(), tick, is_final);
        let before = newest.insert(id(task), this);
        assert!(
            before.is_none_or(|(rev, tick, ended)| !ended && (rev, tick) < (this.0, this.1)),
            "{line} after {before:?}"
        );
        if is_final {
            let percentage = if line["task"]["status"] == "completed" { 100 } else { 2 };
            assert_eq!(line["task"]["progress"]["percentage"], percentage, "the final record carries the last tick");
        }
    }
    assert_eq!(newest.values().filter(|(.., ended)| *ended).count(), 30);
}

#[tokio::test]
async fn who_was_away_resumes_from_a_mark_without_a_hole() {
    let hub = TestHub::start().await;
    let (kept, ended, deleted) = (hub.submit_any().await, hub.submit_any().await, hub.submit_any().await);
    let mut socket = hub.live().await;
    let start = subscribe(&mut socket, json!({})).await;
    let mark = start.last().unwrap()["rev"].clone();
    let epoch = hub.get("/api/v1/stats").await.body["epoch"].clone();
    socket.cut();

    for task_id in [&kept, &ended] {
        assert_eq!(id(&hub.claim("w").await["task"]), **task_id);
    }
    hub.attempt(&kept, 1, "progress", json!({"progress": {"percentage": 30}})).await.expect(200);
    complete(&hub, &ended, 1).await;
    hub.tell(&format!("/api/v1/tasks/{deleted}/cancel")).await.expect(200);
    hub.delete(&format!("/api/v1/tasks/{deleted}")).await.expect(204);
    let new = id(&hub.submit(json!({"task_type": "t", "queue": "new"})).await);

    let mut socket = hub.live().await;
    let since = json!({"epoch": epoch, "rev": mark});
    let missed = subscribe(&mut socket, json!({"since": since})).await;
    assert_eq!((&missed[0]["type"], &missed[0]["mode"]), (&json!("subscribed"), &json!("resumed")));
    let of = |task_id: &str, kind: &str| {
        let is_of = |line: &&Value| line["task_id"] == task_id || line["task"]["task_id"] == task_id;
        missed.iter().filter(is_of).filter(|line| line["type"] == kind).collect::<Vec<_>>()
    };
    assert_eq!(of(&kept, "task")[0]["task"]["status"], "running");
    assert_eq!(of(&kept, "progress").iter().map(|line| &line["progress"]["percentage"]).next_back(), Some(&json!(30)));
    assert_eq!(of(&ended, "task").iter().map(|line| step(line)).collect::<Vec<_>>(), ["completed completed 1"]);
    assert_eq!((of(&deleted, "gone").len(), of(&deleted, "task").len()), (1, 0));
    assert_eq!(of(&new, "task").len(), 1);
    assert_eq!(missed.last().unwrap()["rev"], hub.get("/api/v1/stats").await.body["rev"]);

    // Nothing missed is nothing sent; the status is no part of what decides; and the rest of a filter is.
    let mark = missed.last().unwrap()["rev"].clone();
    let none = subscribe(&mut socket, json!({"since": {"epoch": epoch, "rev": mark}})).await;
    assert!(kinds(&none).iter().all(|kind| ["subscribed", "progress", "mark"].contains(kind)), "{none:#?}");
    let filter = json!({"status": ["pending"], "queue": ["default"]});
    let some = subscribe(&mut socket, json!({"since": since, "filter": filter})).await;
    let seen: Vec<String> = some.iter().filter(|line| line["type"] == "task").map(|line| id(&line["task"])).collect();
    assert!(seen.contains(&ended) && seen.contains(&kept) && !seen.contains(&new), "{some:#?}");
}

#[tokio::test]
async fn who_cannot_resume_gets_a_reset_and_a_snapshot() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = hub.submit_any().await;
    let stats = hub.get("/api/v1/stats").await.expect(200);
    for (since, reason) in
        [(json!({"epoch": "another", "rev": 0}), "epoch"), (json!({"epoch": stats["epoch"], "rev": 999_999}), "epoch")]
    {
        let mut socket = hub.live().await;
        let start = subscribe(&mut socket, json!({"since": since})).await;
        assert_eq!(kinds(&start), ["subscribed", "reset", "snapshot", "mark"]);
        assert_eq!((&start[1]["sub"], &start[1]["reason"]), (&json!("s"), &json!(reason)));
        assert_eq!(start[2]["tasks"][0]["task_id"], task_id);
    }
    // A restart is the same history.
    hub.restart().await;
    let mut socket = hub.live().await;
    let start = subscribe(&mut socket, json!({"since": {"epoch": stats["epoch"], "rev": 0}})).await;
    assert_eq!(start[0]["mode"], "resumed");
    assert_eq!(start[1]["task"]["task_id"], task_id);
}

/// The one test of rule 1 and of the client's rule together: whoever connects in the middle of a storm, subscribes, is cut
/// off and resumes again and again, has in the end exactly what the hub has.
#[tokio::test]
async fn the_picture_of_a_client_is_always_whole() {
    let hub = TestHub::start().await;
    let (stop, calm) = (AtomicBool::new(false), AtomicBool::new(false));
    let storm = async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut known: Vec<String> = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let any = |random: &mut fastrand::Rng| known.get(random.usize(..known.len().max(1))).cloned();
            match random.u8(..10) {
                0..4 => known.push(hub.submit_any().await),
                4..7 => {
                    let claim = json!({"worker_id": "w"});
                    let claimed = hub.post("/api/v1/worker/claim", claim).await.expect(200);
                    if let Some(given) = claimed["tasks"].get(0) {
                        let (task_id, attempt) = (id(&given["task"]), given["attempt"].as_u64().unwrap());
                        let progress = json!({"progress": {"percentage": random.u8(..100)}});
                        hub.attempt(&task_id, attempt, "progress", progress).await;
                        let verb = ["complete", "fail", "release"][random.usize(..3)];
                        hub.attempt(&task_id, attempt, verb, json!({})).await;
                    }
                }
                7 => drop(hub.tell(&format!("/api/v1/tasks/{}/cancel", any(&mut random).unwrap_or_default())).await),
                8 => drop(hub.tell(&format!("/api/v1/tasks/{}/retry", any(&mut random).unwrap_or_default())).await),
                _ => drop(hub.delete(&format!("/api/v1/tasks/{}", any(&mut random).unwrap_or_default())).await),
            }
        }
        calm.store(true, Ordering::SeqCst);
    };
    let watching = async {
        let mut picture: BTreeMap<String, (u64, u64, Value)> = BTreeMap::new();
        let mut mark = None;
        let epoch = hub.get("/api/v1/stats").await.body["epoch"].clone();
        for round in 0..12 {
            let mut socket = hub.live().await;
            let mut words = json!({"op": "subscribe", "sub": "s", "snapshot": {"limit": 1000}});
            if let Some(rev) = mark.take() {
                words = json!({"op": "subscribe", "sub": "s", "since": {"epoch": epoch, "rev": rev}});
            }
            socket.say(words).await;
            let begun = Instant::now();
            if round == 11 {
                stop.store(true, Ordering::SeqCst);
            }
            let (mut subscribed, mut fresh) = (false, true);
            loop {
                let line = socket.next().await;
                match line["type"].as_str().unwrap() {
                    "subscribed" => subscribed = true,
                    "snapshot" => {
                        assert!(round == 0, "one snapshot, and then only what was missed");
                        if std::mem::take(&mut fresh) {
                            picture.clear();
                        }
                        for task in line["tasks"].as_array().unwrap() {
                            let at = (task["rev"].as_u64().unwrap(), task["tick"].as_u64().unwrap());
                            picture.insert(id(task), (at.0, at.1, task.clone()));
                        }
                    }
                    "task" => {
                        let (task, rev) = (line["task"].clone(), line["rev"].as_u64().unwrap());
                        if picture.get(&id(&task)).is_none_or(|known| (known.0, known.1) < (rev, 0)) {
                            picture.insert(id(&task), (rev, 0, task));
                        }
                    }
                    "progress" => {
                        let at = (line["rev"].as_u64().unwrap(), line["tick"].as_u64().unwrap());
                        if let Some(known) = picture.get_mut(line["task_id"].as_str().unwrap())
                            && (known.0, known.1) < at
                        {
                            known.2["progress"] = line["progress"].clone();
                            (known.0, known.1) = at;
                        }
                    }
                    "gone" => {
                        let task_id = line["task_id"].as_str().unwrap();
                        if picture.get(task_id).is_none_or(|known| known.0 < line["rev"].as_u64().unwrap()) {
                            picture.remove(task_id);
                        }
                    }
                    "mark" if subscribed => {
                        mark = line["rev"].as_u64();
                        // Looked at before: what the storm does last is then within the rev.
                        let calm = calm.load(Ordering::SeqCst);
                        let rev = hub.get("/api/v1/stats").await.body["rev"].as_u64();
                        if (round < 11 && begun.elapsed() > millis(150)) || (round == 11 && calm && mark == rev) {
                            break;
                        }
                    }
                    _ => {}
                }
                // Cut off anywhere, with or without a mark: then the former one is what there is to resume from.
                if round < 11 && mark.is_some() && begun.elapsed() > millis(250) {
                    break;
                }
            }
            socket.cut();
        }
        picture
    };
    let (picture, ()) = in_time("the storm ends", async { tokio::join!(watching, storm) }).await;
    let (mut truth, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let list = hub.get(&format!("/api/v1/tasks?limit=500{cursor}")).await.expect(200);
        truth.extend(list["tasks"].as_array().unwrap().iter().map(|task| (id(task), task.clone())));
        match list["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(truth.len() > 20, "too little happened to tell: {}", truth.len());
    let seen: Vec<&String> = picture.keys().collect();
    assert_eq!(seen, truth.keys().collect::<Vec<_>>());
    for (task_id, (rev, _, task)) in &picture {
        assert_eq!((json!(rev), &task["status"]), (truth[task_id]["rev"].clone(), &truth[task_id]["status"]));
    }
}

#[tokio::test]
async fn log_lines_come_tail_first_and_then_live_without_a_hole() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let log = async |from: u64, to: u64| {
        let lines: Vec<Value> = (from..=to).map(|n| json!({"message": n.to_string()})).collect();
        hub.attempt(&task_id, 1, "log", json!({"lines": lines})).await.expect(200);
    };
    log(1, 50).await;
    let mut with = hub.live().await;
    let mut without = hub.live().await;
    let filter = json!({"task_id": [task_id]});
    let mut lines = subscribe(&mut with, json!({"filter": filter, "logs": {"tail": 10}})).await;
    subscribe(&mut without, json!({"filter": filter})).await;
    for n in 0..10 {
        log(51 + n * 5, 55 + n * 5).await;
    }
    complete(&hub, &task_id, 1).await;
    let seqs = |lines: &[Value]| -> Vec<u64> {
        let logs = lines.iter().filter(|line| line["type"] == "log" && line["task_id"] == task_id);
        logs.flat_map(|line| line["lines"].as_array().unwrap()).map(|line| line["seq"].as_u64().unwrap()).collect()
    };
    while seqs(&lines).last() != Some(&100) {
        lines.push(with.next().await);
    }
    assert_eq!(seqs(&lines), (41..=100).collect::<Vec<u64>>());
    let end = without.through("the end", |line| line["event"] == "task.completed").await;
    assert_eq!(seqs(&end), Vec::<u64>::new(), "nobody asked");
}

#[tokio::test]
async fn counts_are_told_about_once_a_second() {
    let hub = TestHub::start().await;
    let mut socket = hub.live().await;
    socket.say(json!({"op": "subscribe", "id": 1, "sub": "n", "stats": true})).await;
    assert_eq!(socket.expect("subscribed").await["sub"], "n");
    let first = socket.expect("stats").await;
    let mut rest = hub.get("/api/v1/stats").await.expect(200);
    for (field, value) in rest.as_object_mut().unwrap() {
        assert!(first.get(field).is_some(), "{field} {value} is missing");
    }
    assert_eq!((&first["tasks"]["pending"], &first["sockets"]), (&json!(0), &json!(1)));
    hub.submit_any().await;
    let begun = Instant::now();
    let next = socket.until("the new count", |line| line["tasks"]["pending"] == 1).await;
    assert!(begun.elapsed() < millis(2_500), "{next} after {:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_the_socket_stays() {
    let hub = TestHub::start().await;
    let mut socket = hub.live().await;
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    let task_id = "01890000-0000-7000-8000-00000000002a";
    for (wrong, code) in [
        (json!({"op": "explode", "id": 3}), "invalid_field"),
        (json!({"id": 3}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3, "sub": ""}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s".repeat(65)}), "limit_exceeded"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "filters": {}}), "unknown_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "filter": {"state": ["pending"]}}), "unknown_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "filter": {"status": []}}), "bad_filter"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "filter": {"queue": ["a b"]}}), "bad_filter"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "filter": {"user_id": many}}), "limit_exceeded"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "filter": {"status": ["done"]}}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "snapshot": {"limit": 1001}}), "limit_exceeded"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "max_hz": 0}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "max_hz": -1}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "logs": {}}), "invalid_field"),
        (json!({"op": "subscribe", "id": 3, "sub": "s", "stats": true, "filter": {}}), "unknown_field"),
        (
            json!({"op": "subscribe", "id": 3, "sub": "s", "filter": {"task_id": [task_id]}, "logs": {"tail": 10_001}}),
            "limit_exceeded",
        ),
        (json!({"op": "unsubscribe", "id": 3, "sub": "nobody"}), "not_found"),
    ] {
        socket.say(wrong.clone()).await;
        let said = socket.next().await;
        assert_eq!(
            (&said["type"], &said["code"], &said["id"]),
            (&json!("error"), &json!(code), &json!(3)),
            "{wrong} {said}"
        );
        assert!(said["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    for wrong in ["7", "[]", "null", "\"x\"", "{\"op\":7}"] {
        socket.say_text(wrong).await;
        assert_eq!(socket.next().await["type"], "error", "{wrong}");
    }
    for n in 0..64 {
        let start = subscribe(&mut socket, json!({"sub": n.to_string(), "filter": {"queue": [n.to_string()]}})).await;
        assert_eq!(start[0]["type"], "subscribed");
    }
    socket.say(json!({"op": "subscribe", "id": 3, "sub": "one more"})).await;
    assert_eq!(socket.next_of("error").await["code"], "limit_exceeded");
    let again = subscribe(&mut socket, json!({"sub": "63"})).await;
    assert_eq!(again[0]["type"], "subscribed", "a name that is taken is replaced");
}

#[tokio::test]
async fn what_is_no_json_closes_and_nobody_else_notices() {
    let hub = TestHub::start().await;
    let mut bystander = hub.live().await;
    subscribe(&mut bystander, json!({})).await;
    for (message, code) in [
        (Message::text("{"), 4500),
        (Message::text("hello"), 4500),
        (Message::text("{\"op\":\"ping\"} x"), 4500),
        (Message::binary(b"{\"op\":\"ping\"}".to_vec()), 4500),
        (Message::text(format!("\"{}\"", "x".repeat(70_000))), 1009),
    ] {
        let mut socket = hub.live().await;
        socket.send(message.clone()).await;
        assert_eq!(socket.close_code().await, code, "{:.40}", message.to_string());
    }
    // A browser that hears of none of its protocols breaks off, and would never learn why.
    let mut unknown = TestSocket::open(&hub, "/api/v1/ws", &["taskhub.v9", "mqtt"]).await;
    assert_eq!((unknown.protocol.clone().as_deref(), unknown.close_code().await), (Some("taskhub.v9"), 4505));
    let task_id = hub.submit_any().await;
    assert_eq!(id(&bystander.event("task.created").await["task"]), task_id);
}

/// A client that reads nothing for a while is told that transitions were merged, and ends with the newest of each task; the
/// others see every step meanwhile.
#[tokio::test]
async fn a_slow_client_lags_alone() {
    let hub = TestHub::start().await;
    let mut slow = hub.live().await;
    subscribe(&mut slow, json!({})).await;
    let mut prompt = hub.live().await;
    subscribe(&mut prompt, json!({"filter": {"task_type": ["last"]}})).await;
    // Enough to fill what the kernel and the outbox hold: records of some 4 KB each.
    let title = "ü".repeat(250);
    let tasks: Vec<Value> = (0..400)
        .map(|n| json!({"task_type": "t", "title": title, "description": "d".repeat(4_000), "labels": {"n": n.to_string()}}))
        .collect();
    for _ in 0..10 {
        let made = hub.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
        let cancels = made["tasks"].as_array().unwrap().iter().map(|task| {
            let path = format!("/api/v1/tasks/{}/cancel", id(task));
            let hub = &hub;
            async move { hub.tell(&path).await.expect(200) }
        });
        futures::future::join_all(cancels).await;
    }
    let begun = Instant::now();
    let last = id(&hub.submit(json!({"task_type": "last"})).await);
    assert_eq!(id(&prompt.event("task.created").await["task"]), last);
    assert!(begun.elapsed() < millis(1_000), "{:?}", begun.elapsed());
    let told = slow.through("the last task", |line| line["task"]["task_id"] == last).await;
    assert!(
        told.iter().any(|line| line["type"] == "lag" && line["collapsed"].as_u64() > Some(0)),
        "nothing was merged"
    );
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    for line in told.iter().filter(|line| line["type"] == "task") {
        newest.insert(id(&line["task"]), line["task"]["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(newest.len(), 4_001);
    assert_eq!(newest.values().filter(|status| *status == "cancelled").count(), 4_000);
}

#[tokio::test]
async fn a_deleted_and_an_expired_task_are_told_to_be_gone() {
    let hub = TestHub::builder().set(|config| config.retain = millis(1_000)).start().await;
    let mut socket = hub.live().await;
    let task_id = hub.submit_any().await;
    subscribe(&mut socket, json!({"filter": {"status": ["pending"]}})).await;
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    socket.event("task.cancelled").await;
    let mut all = hub.live().await;
    subscribe(&mut all, json!({})).await;
    let gone = all.next_of("gone").await;
    assert_eq!(gone["task_id"], task_id);
}

#[tokio::test]
async fn watchers_see_running_work_end_before_goodbye() {
    let mut hub = TestHub::builder().set(|config| config.drain_timeout = millis(8_000)).start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let mut sockets = [hub.live().await, hub.live().await];
    for socket in &mut sockets {
        subscribe(socket, json!({})).await;
    }
    hub.begin_shutdown();
    eventually("the hub drains", async || (hub.get("/readyz").await.status == 503).then_some(())).await;
    // Who comes while the hub drains is served too.
    let mut late = hub.live().await;
    subscribe(&mut late, json!({})).await;
    complete(&hub, &task_id, 1).await;
    for socket in sockets.iter_mut().chain([&mut late]) {
        socket.event("task.completed").await;
        let bye = socket.next_of("bye").await;
        assert_eq!((&bye["code"], &bye["retry_ms"][0]), (&json!(4001), &json!(500)));
        assert_eq!(socket.close_code().await, 4001);
    }
}
