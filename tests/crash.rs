//! Real processes, and what is done to them: SIGKILL in the middle of everything, SIGTERM, a disk that is full.
//!
//! What was acknowledged is written down here, as the callers heard it, and looked for afterwards.

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::{HubProcess, PATIENCE, Program, TestSocket, eventually, id, millis, program};
use serde_json::{Value, json};

/// A hub in a process, by its address: what was asked of it and what it said.
struct Caller {
    url: String,
    http: reqwest::Client,
}

impl Caller {
    fn new(url: &str) -> Caller {
        kit::agree_on_tls();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
        Caller { url: url.to_owned(), http }
    }

    /// The status and the body of an answer; `None` where the hub was gone before there was a whole one.
    async fn try_post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let response = self.http.post(format!("{}/api/v1/{path}", self.url)).json(body).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().await.ok()?))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.try_post(path, &body).await.expect("the hub answers")
    }

    /// Asks again where the connection was one to the hub that was killed.
    async fn get(&self, path: &str) -> (u16, Value) {
        let ask = async || -> reqwest::Result<(u16, Value)> {
            let response = self.http.get(format!("{}{path}", self.url)).send().await?;
            Ok((response.status().as_u16(), response.json().await?))
        };
        let mut tries = 0;
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => assert!(tries < 20, "the hub does not answer: {error}"),
            }
            tries += 1;
            pause().await;
        }
    }

    async fn ready(&self) -> u16 {
        self.get("/readyz").await.0
    }

    async fn stats(&self) -> Value {
        self.get("/api/v1/stats").await.1
    }

    async fn task(&self, task_id: &str) -> Value {
        let (status, task) = self.get(&format!("/api/v1/tasks/{task_id}")).await;
        assert_eq!(status, 200, "{task}");
        task
    }

    /// Every task, page by page, by id.
    async fn all(&self) -> BTreeMap<String, Value> {
        let (mut all, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let (_, list) = self.get(&format!("/api/v1/tasks?order=asc&limit=500{cursor}")).await;
            for task in list["tasks"].as_array().expect("tasks") {
                assert!(all.insert(id(task), task.clone()).is_none(), "listed twice: {task}");
            }
            match list["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}

// Killing the hub.

/// What the hub has acknowledged.
#[derive(Default)]
struct Heard {
    /// Submitted tasks, with the rev of the answer.
    submitted: Mutex<BTreeMap<String, u64>>,
    /// Completed tasks, with the result that was acknowledged.
    completed: Mutex<BTreeMap<String, String>>,
    cancelled: Mutex<BTreeSet<String>>,
    /// How many reports were refused because the attempt was lost.
    lost: AtomicU64,
    rev: AtomicU64,
}

impl Heard {
    fn rev(&self, task: &Value) {
        self.rev.fetch_max(task["rev"].as_u64().expect("a rev"), Ordering::SeqCst);
    }
}

/// Submits one task after the other, now and then a batch, and cancels some, until it is told to stop.
async fn submitter(name: usize, caller: &Caller, heard: &Heard, stop: &AtomicBool) {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        let task = json!({"task_type": "t", "title": format!("{name}-{count}"), "max_crashes": 100, "payload": "p".repeat(300)});
        let answer = if count % 5 == 0 {
            caller.try_post("tasks/batch", &json!({"tasks": [task, task, task]})).await
        } else {
            caller.try_post("tasks", &task).await
        };
        let Some((status, body)) = answer else { return pause().await };
        assert_eq!(status, 201, "{body}");
        let tasks = body["tasks"].as_array().cloned().unwrap_or_else(|| vec![body]);
        for task in &tasks {
            heard.rev(task);
            heard.submitted.lock().unwrap().insert(id(task), task["rev"].as_u64().unwrap());
        }
        if count % 7 == 0 {
            let task_id = id(&tasks[0]);
            let Some((status, task)) = caller.try_post(&format!("tasks/{task_id}/cancel"), &json!({})).await else {
                return pause().await;
            };
            // 202 and 409: a worker was faster.
            if status == 200 {
                heard.rev(&task);
                heard.cancelled.lock().unwrap().insert(task_id);
            }
        }
    }
}

/// Claims and completes until it is told to stop. What it has not heard an answer to it says again, as long as it takes.
async fn claimer(name: usize, caller: &Caller, heard: &Heard, stop: &AtomicBool) {
    // The name stays: what it was given and never heard of runs out all the same.
    let worker_id = format!("claimer-{name}");
    while !stop.load(Ordering::SeqCst) {
        let claim = json!({"worker_id": worker_id, "max": 4, "wait_ms": 100});
        let Some((status, claimed)) = caller.try_post("worker/claim", &claim).await else { return pause().await };
        assert_eq!(status, 200, "{claimed}");
        for given in claimed["tasks"].as_array().expect("tasks") {
            let (task_id, attempt) = (id(&given["task"]), given["attempt"].as_u64().unwrap());
            let result = format!("{worker_id} attempt {attempt} {}", fastrand::u32(..));
            let path = format!("tasks/{task_id}/attempts/{attempt}/complete");
            let (status, _) = loop {
                match caller.try_post(&path, &json!({"result": result})).await {
                    Some(answer) => break answer,
                    None => pause().await,
                }
            };
            match status {
                200 => {
                    let before = heard.completed.lock().unwrap().insert(task_id.clone(), result);
                    assert!(before.is_none(), "{task_id} has two results that were acknowledged");
                }
                409 => drop(heard.lost.fetch_add(1, Ordering::SeqCst)),
                other => panic!("a report got {other}"),
            }
        }
    }
}

/// The hub is away: whoever calls tries again soon.
async fn pause() {
    tokio::time::sleep(millis(10)).await;
}

#[tokio::test]
async fn a_killed_hub_keeps_what_it_acknowledged() {
    const KILLS: usize = 8;
    let seed = std::env::var("TASKHUB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    eprintln!("TASKHUB_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lease", "1500ms", "--grace", "300ms"];
    let mut hub = HubProcess::start(folder.path(), options);
    let caller = Caller::new(&hub.url);
    let history = |stats: &Value| stats["epoch"].as_str().and_then(|epoch| epoch.split('.').next()).map(str::to_owned);
    let begun = history(&caller.stats().await);
    let (heard, stop_submitting, stop) = (Heard::default(), AtomicBool::new(false), AtomicBool::new(false));

    let load = async {
        let submitting = (0..4).map(async |name| {
            while !stop_submitting.load(Ordering::SeqCst) {
                submitter(name, &caller, &heard, &stop_submitting).await;
            }
        });
        let working = (0..3).map(async |name| {
            while !stop.load(Ordering::SeqCst) {
                claimer(name, &caller, &heard, &stop).await;
            }
        });
        tokio::join!(futures::future::join_all(submitting), futures::future::join_all(working));
    };
    let killing = async {
        for _ in 0..KILLS {
            tokio::time::sleep(millis(random.u64(50..500))).await;
            hub.program.kill();
            let rev = heard.rev.load(Ordering::SeqCst);
            let address = hub.address().to_owned();
            hub = HubProcess::start_at(&address, folder.path(), options);
            let stats = caller.stats().await;
            assert_eq!(history(&stats), begun, "the history goes on");
            assert_eq!(caller.ready().await, 200, "nothing is missed of it");
            assert!(stats["rev"].as_u64().unwrap() >= rev, "rev {} after {rev} was acknowledged", stats["rev"]);
        }
        stop_submitting.store(true, Ordering::SeqCst);
        // What was in nobody's hands when the hub died is given to somebody after a lease.
        let begun = Instant::now();
        loop {
            let tasks = caller.stats().await["tasks"].clone();
            if tasks["pending"] == 0 && tasks["running"] == 0 {
                break;
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "never done: {tasks}");
            pause().await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, killing);

    let all = caller.all().await;
    let (submitted, completed) = (heard.submitted.into_inner().unwrap(), heard.completed.into_inner().unwrap());
    let cancelled = heard.cancelled.into_inner().unwrap();
    eprintln!(
        "{} acknowledged of {} tasks, {} completed, {} cancelled, {} attempts lost",
        submitted.len(),
        all.len(),
        completed.len(),
        cancelled.len(),
        heard.lost.into_inner(),
    );
    assert!(submitted.len() > 100 && completed.len() > 50 && !cancelled.is_empty(), "too little happened to tell");
    for task_id in submitted.keys() {
        assert!(all.contains_key(task_id), "an acknowledged submission is gone: {task_id}");
    }
    for (task_id, result) in &completed {
        let task = &all[task_id];
        assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!(result)), "{task}");
    }
    for task_id in &cancelled {
        assert_eq!(all[task_id]["status"], "cancelled", "{task_id}");
    }
    // Nothing was deleted, so the histories of all tasks together are every rev there was, each once.
    let mut revs = BTreeSet::new();
    for task_id in all.keys() {
        let (_, history) = caller.get(&format!("/api/v1/tasks/{task_id}/history")).await;
        let lines = history["transitions"].as_array().unwrap();
        let ends = lines.iter().filter(|line| line["event"] == "task.completed" || line["event"] == "task.cancelled");
        assert_eq!(ends.count(), 1, "{history}");
        for line in lines {
            assert!(revs.insert(line["rev"].as_u64().unwrap()), "a rev stands there twice: {line}");
        }
    }
    let last = caller.stats().await["rev"].as_u64().unwrap();
    assert_eq!((revs.len() as u64, revs.last()), (last, Some(&last)), "revs have holes");
}

#[tokio::test]
async fn running_tasks_are_confirmed_by_their_worker_or_pending_after_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lease", "1s", "--grace", "300ms"];
    let mut hub = HubProcess::start(folder.path(), options);
    let caller = Caller::new(&hub.url);
    let mut ids = Vec::new();
    for worker in ["back", "away"] {
        let (_, task) = caller.post("tasks", json!({"task_type": worker})).await;
        ids.push(id(&task));
    }
    let mut workers = Vec::new();
    for worker in ["back", "away"] {
        let hello = json!({"op": "hello", "worker_id": worker, "task_types": [worker]});
        let mut socket = TestSocket::dial(hub.address(), "/api/v1/worker/ws", &["taskhub.worker.v1"]).await;
        socket.say(hello).await;
        socket.expect("welcome").await;
        socket.expect("run").await;
        workers.push(socket);
    }
    let tick = json!({"op": "progress", "task_id": ids[0], "attempt": 1, "progress": {"percentage": 70}});
    workers[0].say(tick).await;
    let ticked = eventually("the tick is there", async || {
        let task = caller.task(&ids[0]).await;
        (task["tick"] == 1).then_some(task)
    })
    .await;
    hub.program.kill();
    let address = hub.address().to_owned();
    let _hub = HubProcess::start_at(&address, folder.path(), options);

    // Before anybody is answered each has a transition, so that no client believes a tick from before.
    let confirmed = caller.task(&ids[0]).await;
    assert_eq!((&confirmed["status"], &confirmed["attempt"]), (&json!("running"), &json!(1)));
    assert!(confirmed["rev"].as_u64() > ticked["rev"].as_u64());
    let mut back = TestSocket::dial(&address, "/api/v1/worker/ws", &["taskhub.worker.v1"]).await;
    let holding = json!([{"task_id": ids[0], "attempt": 1}]);
    back.say(json!({"op": "hello", "worker_id": "back", "task_types": ["back"], "holding": holding})).await;
    assert_eq!(back.expect("welcome").await["keep"], holding);
    let away = eventually("the other is pending", async || {
        back.say(json!({"op": "heartbeat"})).await;
        let task = caller.task(&ids[1]).await;
        (task["status"] == "pending").then_some(task)
    })
    .await;
    assert_eq!(away["crashes"], 1, "what nobody came back to went down with its worker");
    assert_eq!(caller.task(&ids[0]).await["crashes"], 0, "a restart of the hub is nobody's crash");
    back.say(json!({"op": "complete", "task_id": ids[0], "attempt": 1, "result": 1})).await;
    back.expect("ack").await;
    assert_eq!(caller.task(&ids[0]).await["status"], "completed");
}

/// Regression: the timers went off before the sockets were read, and everybody had crashed, though workers and watchers
/// had spoken all the while.
#[tokio::test]
async fn a_hub_that_was_stopped_and_goes_on_takes_nothing_from_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lease", "1s", "--grace", "500ms", "--live-ping", "1s"];
    let hub = HubProcess::start(folder.path(), options);
    let caller = Caller::new(&hub.url);
    let mut workers = Vec::new();
    for number in 0..5 {
        let mut socket = TestSocket::dial(hub.address(), "/api/v1/worker/ws", &["taskhub.worker.v1"]).await;
        socket.say(json!({"op": "hello", "worker_id": format!("w{number}"), "concurrency": 2})).await;
        socket.expect("welcome").await;
        workers.push(socket);
    }
    let mut watcher = TestSocket::dial(hub.address(), "/api/v1/ws", &["taskhub.v1"]).await;
    watcher.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": {}})).await;
    for _ in 0..10 {
        caller.post("tasks", json!({"task_type": "t", "max_crashes": 1, "timeout_ms": 20_000})).await;
    }
    eventually("all of them run", async || (caller.stats().await["tasks"]["running"] == 10).then_some(())).await;
    hub.program.signal(libc::SIGSTOP);
    let stopped = Instant::now();
    // Three leases, and more than two pings.
    while stopped.elapsed() < Duration::from_secs(3) {
        for worker in &mut workers {
            worker.say(json!({"op": "heartbeat"})).await;
        }
        watcher.say(json!({"op": "ping", "id": 2})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    hub.program.signal(libc::SIGCONT);
    let went_on = Instant::now();
    while went_on.elapsed() < Duration::from_secs(2) {
        for worker in &mut workers {
            worker.say(json!({"op": "heartbeat"})).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let tasks = caller.all().await;
    assert_eq!(tasks.len(), 10);
    for task in tasks.values() {
        assert_eq!((&task["status"], &task["crashes"], &task["attempt"]), (&json!("running"), &json!(0), &json!(1)));
    }
    watcher.say(json!({"op": "ping", "id": 3})).await;
    watcher.until("the last pong: the watcher is still there", |said| said["type"] == "pong" && said["id"] == 3).await;
    // And whoever is silent from now on is missed as ever.
    drop(workers);
    eventually("all of them are lost", async || (caller.stats().await["tasks"]["failed"] == 10).then_some(())).await;
}

/// Regression: after a reboot the task waited for ever in a queue that nobody would ever serve.
#[tokio::test]
async fn a_task_of_taskhub_run_ends_with_its_process_over_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lease", "1s", "--grace", "500ms", "--drain-timeout", "100ms", "--goodbye", "0s"];
    for by_signal in [libc::SIGKILL, libc::SIGTERM] {
        let data = folder.path().join(by_signal.to_string());
        let mut hub = HubProcess::start(&data, options);
        let caller = Caller::new(&hub.url);
        let mut command = program();
        command.args(["run", "--hub", &hub.url, "--", "sleep", "60"]);
        let mut running = Program::start(command);
        let task_id = eventually("the command runs", async || {
            caller.all().await.into_values().find(|task| task["status"] == "running").map(|task| id(&task))
        })
        .await;
        // A machine that goes down in good order ends the hub first, which gives the task back.
        hub.program.signal(by_signal);
        hub.program.wait(PATIENCE);
        running.kill();
        let hub = HubProcess::start_at(hub.address(), &data, options);
        let caller = Caller::new(&hub.url);
        let task = eventually("the task ends", async || {
            let task = caller.task(&task_id).await;
            (task["status"] == "failed").then_some(task)
        })
        .await;
        let kind = if by_signal == libc::SIGKILL { "poison" } else { "lost" };
        assert_eq!(task["error"]["kind"], kind);
    }
}

#[tokio::test]
async fn a_command_that_is_run_goes_on_without_the_hub_and_is_told_of_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut hub = HubProcess::start::<&str>(&data, []);
    let gate = folder.path().join("gate");
    let script = format!(
        "echo '{{\"progress\":1}}'; echo '{{\"result\":1}}'; while [ ! -e {} ]; do sleep 0.05; done",
        gate.display()
    );
    let mut command = program();
    command.args(["run", "--hub", &hub.url, "--", "sh", "-c", &script]);
    let mut running = Program::start(command);
    let caller = Caller::new(&hub.url);
    let task_id = eventually("the command runs", async || {
        caller.all().await.into_values().find(|task| task["tick"] == 1).map(|task| id(&task))
    })
    .await;
    hub.program.kill();
    // It ends while the hub is away, and has not long to wait for it.
    std::fs::write(gate, "").expect("a file in a temporary folder");
    let hub = HubProcess::start_at::<&str>(hub.address(), &data, []);
    assert_eq!(running.wait(PATIENCE).code(), Some(0), "{}", running.said());
    let task = Caller::new(&hub.url).task(&task_id).await;
    assert_eq!((&task["status"], &task["result"], &task["crashes"]), (&json!("completed"), &json!(1), &json!(0)));
}

// Killing a worker.

fn worker_process(folder: &Path, name: &str, url: &str, command: &str) -> Program {
    let config = folder.join(format!("{name}.toml"));
    let text =
        format!("worker_id = \"{name}\"\nconcurrency = 4\n[tasks.t]\ncommand = [\"sh\", \"-c\", \"{command}\"]\n");
    std::fs::write(&config, text).expect("a file in a temporary folder");
    let mut command = program();
    command.args(["worker", "--hub", url, "--config"]).arg(config);
    Program::start(command)
}

#[tokio::test]
async fn a_killed_workers_tasks_run_elsewhere_within_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let hub = HubProcess::start::<&str>(&folder.path().join("data"), []);
    let caller = Caller::new(&hub.url);
    let tasks: Vec<Value> = (0..4).map(|n| json!({"task_type": "t", "payload": n})).collect();
    let (_, made) = caller.post("tasks/batch", json!({"tasks": tasks})).await;
    let ids: Vec<String> = made["tasks"].as_array().unwrap().iter().map(id).collect();
    let mut first = worker_process(folder.path(), "first", &hub.url, "sleep 600");
    eventually("the first worker runs them", async || (caller.stats().await["tasks"]["running"] == 4).then_some(()))
        .await;
    let _second = worker_process(folder.path(), "second", &hub.url, "cat");
    eventually("the second worker is there", async || {
        (caller.get("/api/v1/workers").await.1["workers"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    first.kill();
    let killed = Instant::now();
    for task_id in &ids {
        let (status, task) = caller.get(&format!("/api/v1/tasks/{task_id}?wait_ms=10000")).await;
        assert_eq!((status, &task["status"]), (200, &json!("completed")), "after {:?}: {task}", killed.elapsed());
        assert_eq!((&task["attempt"], &task["crashes"]), (&json!(2), &json!(1)));
    }
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
}

// Ending the hub.

#[tokio::test]
async fn sigterm_drains_and_exits_with_zero() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--drain-timeout", "8s", "--goodbye", "50ms"];
    let mut hub = HubProcess::start(folder.path(), options);
    let caller = Caller::new(&hub.url);
    let (_, task) = caller.post("tasks", json!({"task_type": "t"})).await;
    let (_, waiting) = caller.post("tasks", json!({"task_type": "t"})).await;
    caller.post("worker/claim", json!({"worker_id": "w"})).await;
    hub.program.signal(libc::SIGTERM);
    eventually("it drains", async || (caller.get("/readyz").await.0 == 503).then_some(())).await;
    let (status, problem) = caller.post("tasks", json!({"task_type": "t"})).await;
    assert_eq!((status, &problem["code"]), (503, &json!("draining")));
    assert!(hub.program.is_running());
    let done = format!("tasks/{}/attempts/1/complete", id(&task));
    assert_eq!(caller.post(&done, json!({"result": "in time"})).await.0, 200);
    let status = hub.program.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", hub.program.said());
    let hub = HubProcess::start(folder.path(), options);
    let caller = Caller::new(&hub.url);
    assert_eq!(caller.task(&id(&task)).await["result"], "in time");
    assert_eq!(caller.task(&id(&waiting)).await["status"], "pending");
}

/// Regression: a hub whose terminal was closed ended at once, without a word to anyone.
#[tokio::test]
async fn a_closed_terminal_drains_and_does_not_hurry() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = HubProcess::start(folder.path(), ["--drain-timeout", "600s", "--goodbye", "50ms"]);
    let caller = Caller::new(&hub.url);
    let (_, task) = caller.post("tasks", json!({"task_type": "t"})).await;
    caller.post("worker/claim", json!({"worker_id": "w"})).await;
    // The shell, the kernel, and the end of the session.
    hub.program.signal(libc::SIGHUP);
    eventually("it drains", async || (caller.get("/readyz").await.0 == 503).then_some(())).await;
    hub.program.signal(libc::SIGHUP);
    hub.program.signal(libc::SIGTERM);
    let done = format!("tasks/{}/attempts/1/complete", id(&task));
    assert_eq!(caller.post(&done, json!({"result": "in time"})).await.0, 200);
    assert_eq!(hub.program.wait(PATIENCE).code(), Some(0), "{}", hub.program.said());
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = HubProcess::start(folder.path(), ["--drain-timeout", "600s"]);
    let caller = Caller::new(&hub.url);
    let (_, task) = caller.post("tasks", json!({"task_type": "t"})).await;
    caller.post("worker/claim", json!({"worker_id": "w"})).await;
    hub.program.signal(libc::SIGTERM);
    eventually("it drains", async || (caller.get("/readyz").await.0 == 503).then_some(())).await;
    let done = format!("tasks/{}/attempts/1/progress", id(&task));
    assert_eq!(caller.post(&done, json!({"checkpoint": "kept"})).await.0, 200);
    hub.program.signal(libc::SIGTERM);
    let begun = Instant::now();
    let status = hub.program.wait(PATIENCE);
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert!(begun.elapsed() < millis(1_000), "{:?}", begun.elapsed());
    let hub = HubProcess::start(folder.path(), ["--lease", "200ms"]);
    let caller = Caller::new(&hub.url);
    let claim = json!({"worker_id": "other", "wait_ms": 10_000});
    let (_, claimed) = caller.post("worker/claim", claim).await;
    assert_eq!((id(&claimed["tasks"][0]["task"]), &claimed["tasks"][0]["checkpoint"]), (id(&task), &json!("kept")));
}

// Starting where it must not.

/// Runs the hub where it is expected not to start; answers what it said.
fn refused(folder: &Path, options: &[&str]) -> String {
    let mut command = program();
    command.args(["serve", "--data"]).arg(folder).args(options);
    let mut refused = Program::start(command);
    let status = refused.wait(PATIENCE);
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    // The pipe is read by another thread.
    let begun = Instant::now();
    while refused.said().is_empty() && begun.elapsed() < PATIENCE {
        std::thread::sleep(millis(2));
    }
    refused.said()
}

#[tokio::test]
async fn a_second_hub_on_the_same_folder_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let hub = HubProcess::start::<&str>(folder.path(), []);
    let said = refused(folder.path(), &["--listen", "127.0.0.1:0"]);
    assert!(said.contains("another hub") || said.contains("in use"), "{said}");
    assert_eq!(Caller::new(&hub.url).post("tasks", json!({"task_type": "t"})).await.0, 201, "the first goes on");
    let other = tempfile::tempdir().unwrap();
    let said = refused(other.path(), &["--listen", hub.address()]);
    assert!(said.contains(hub.address()), "{said}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0, "who cannot listen leaves nothing");
}

#[tokio::test]
async fn others_are_let_in_only_when_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = refused(folder.path(), &["--listen", "0.0.0.0:0"]);
    assert!(said.contains("--insecure-open"), "{said}");
    let hub = HubProcess::start_at("0.0.0.0:0", folder.path(), ["--insecure-open"]);
    let port = hub.address().rsplit_once(':').unwrap().1;
    assert_eq!(Caller::new(&format!("http://127.0.0.1:{port}")).get("/readyz").await.0, 200);
}

// A disk that is full.

/// How large a file of this process may become: a disk that is full, and has room again, by the same call.
#[cfg(target_os = "linux")]
fn limit_files(pid: u32, bytes: Option<u64>) {
    let limit = libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is valid, and nothing of it is kept.
    let outcome = unsafe { libc::prlimit(pid as i32, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_said_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    // SAFETY: only a signal disposition is set between fork and exec. Ignored, a write beyond the limit is an error, as on
    // a disk without space, and not the end of the process.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut hub = HubProcess::from(command);
    let caller = Caller::new(&hub.url);
    let (_, task) = caller.post("tasks", json!({"task_type": "t"})).await;
    caller.post("worker/claim", json!({"worker_id": "w"})).await;
    let complete = format!("tasks/{}/attempts/1/complete", id(&task));
    let log = format!("tasks/{}/attempts/1/log", id(&task));
    caller.post(&log, json!({"lines": [{"message": "before"}]})).await;

    let mut acknowledged = vec![id(&task)];
    let submit = json!({"task_type": "later", "queue": "slow", "payload": "p".repeat(20_000)});
    limit_files(hub.program.id(), Some(1 << 20));
    let refused = loop {
        match caller.post("tasks", submit.clone()).await {
            (201, task) => acknowledged.push(id(&task)),
            refused => break refused,
        }
        assert!(acknowledged.len() < 1_000, "the disk is never full");
    };
    // From here on there is no room for the smallest of writes either.
    limit_files(hub.program.id(), Some(0));
    assert_eq!(caller.post("tasks", json!({"task_type": "later", "queue": "slow"})).await.0, 503);
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("storage_unavailable")));
    let (status, problem) = caller.get("/readyz").await;
    assert_eq!((status, &problem["code"]), (503, &json!("storage_unavailable")));
    assert_eq!(caller.get("/healthz").await.0, 200, "it lives");
    // Regression: lists, logs and new subscriptions had the writer write first, so that nobody saw anything when people
    // look. They show what there is, and a line that waits for the disk is there to be read.
    let listed: Vec<String> = caller.all().await.into_keys().collect();
    acknowledged.sort();
    assert_eq!(listed, acknowledged);
    assert_eq!(caller.post(&log, json!({"lines": [{"message": "during"}]})).await.0, 200);
    let (status, logs) = caller.get(&format!("/api/v1/tasks/{}/logs", id(&task))).await;
    let messages: Vec<&Value> = logs["lines"].as_array().expect("lines").iter().map(|line| &line["message"]).collect();
    assert_eq!((status, messages), (200, vec![&json!("before"), &json!("during")]));
    assert_eq!(caller.get(&format!("/api/v1/tasks/{}/history", id(&task))).await.0, 200);
    let mut page = TestSocket::dial(hub.address(), "/api/v1/ws", &["taskhub.v1"]).await;
    page.say(json!({"op": "subscribe", "sub": "all", "filter": {}})).await;
    let snapshot = page.next_of("snapshot").await;
    assert_eq!(snapshot["tasks"].as_array().map(Vec::len), Some(acknowledged.len().min(100)));
    page.next_of("mark").await;
    page.close().await;
    // No report is acknowledged that could not be written.
    assert_eq!(caller.task(&id(&task)).await["status"], "running");
    assert_eq!(caller.post(&complete, json!({"result": "early"})).await.0, 503);
    assert_eq!(caller.task(&id(&task)).await["status"], "running");
    for _ in 0..5 {
        assert_eq!(caller.post("tasks", submit.clone()).await.0, 503);
    }

    limit_files(hub.program.id(), None);
    eventually("it goes on by itself", async || (caller.get("/readyz").await.0 == 200).then_some(())).await;
    let (_, logs) = caller.get(&format!("/api/v1/tasks/{}/logs", id(&task))).await;
    assert_eq!(logs["lines"].as_array().map(Vec::len), Some(2), "{logs}");
    assert_eq!(caller.post(&complete, json!({"result": "after all"})).await.0, 200);
    let (status, last) = caller.post("tasks", submit).await;
    assert_eq!(status, 201, "{last}");
    acknowledged.push(id(&last));
    for _ in 0..2 {
        let all: Vec<String> = caller.all().await.into_keys().collect();
        acknowledged.sort();
        assert_eq!(all, acknowledged, "what was acknowledged, and nothing that was refused");
        let (task, stats) = (caller.task(&id(&task)).await, caller.stats().await);
        assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!("after all")));
        assert_eq!(stats["rev"].as_u64(), Some(acknowledged.len() as u64 + 2), "a refusal uses no rev");
        hub.program.kill();
        let address = hub.address().to_owned();
        hub = HubProcess::start_at::<&str>(&address, folder.path(), []);
    }
}
