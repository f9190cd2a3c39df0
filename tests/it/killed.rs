//! All that can be asked of a hub, asked at once and without a pause, while it is killed again and again. What was acknowledged
//! is written down here, and looked for afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kit::{HubProcess, PATIENCE, id, millis};

/// A hub in a process, by its address.
struct Caller {
    url: String,
    http: reqwest::Client,
    stop: AtomicBool,
}

impl Caller {
    /// Status and body of an answer; `None` where the hub was gone before there was a whole one.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}/api/v1/{path}", self.url)).json(body);
        let answered = async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let text = response.text().await.ok()?;
            Some((status, serde_json::from_str(&text).unwrap_or_default()))
        };
        let answer = answered.await;
        if answer.is_none() {
            // It comes back.
            tokio::time::sleep(millis(10)).await;
        }
        answer
    }

    /// Asks until there is an answer: only for what may be asked again.
    async fn insist(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let begun = Instant::now();
        loop {
            match self.ask(method, path, body).await {
                Some(answer) => return answer,
                None => assert!(begun.elapsed() < PATIENCE, "{method} {path}: the hub does not answer"),
            }
        }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.insist("GET", path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }
}

/// What was acknowledged.
#[derive(Default)]
struct Ledger {
    /// The last number that a queue and a schedule were set to.
    set: Mutex<BTreeMap<&'static str, u64>>,
    /// Workflows, with their tasks.
    workflows: Mutex<BTreeMap<String, Vec<String>>>,
    /// Items of lists, by their number: the task that took them.
    items: Mutex<BTreeMap<u64, String>>,
    /// Unique tasks, by their key.
    unique: Mutex<BTreeMap<u64, BTreeSet<String>>>,
    /// Tasks that running ones added: their parent.
    spawned: Mutex<BTreeMap<String, String>>,
    /// New titles.
    titles: Mutex<BTreeMap<String, String>>,
    deleted: Mutex<BTreeSet<String>>,
    /// Tasks that a schedule made when it was told to.
    runs: Mutex<BTreeSet<String>>,
}

/// Sets the same things to ever greater numbers.
async fn sets(caller: &Caller, ledger: &Ledger) {
    let mut n = 1;
    while caller.goes_on() {
        let schedule = json!({"every_ms": 86_400_000, "jitter_ms": n, "task": {"task_type": "plain"}});
        for (name, path, body) in [
            ("queue", "queues/set", json!({"concurrency": n})),
            ("schedule", "schedules/set", schedule),
            ("limits", "limits", json!({"user": {"submits_per_min": 100_000 + n}})),
            ("type", "task-types/set", json!({"defaults": {"timeout_ms": n}})),
        ] {
            if let Some((status, answer)) = caller.ask("PUT", path, &body).await {
                assert!(matches!(status, 200 | 201), "{answer}");
                ledger.set.lock().unwrap().insert(name, n);
            }
        }
        if let Some((status, task)) = caller.ask("POST", "schedules/set/run", &Value::Null).await
            && status == 201
        {
            ledger.runs.lock().unwrap().insert(id(&task));
        }
        n += 1;
    }
}

/// Submits workflows of four tasks, of which the last takes the results of the others.
async fn deploys(caller: &Caller, ledger: &Ledger) {
    let part = json!({"task_type": "plain"});
    let then = json!({"task_type": "plain", "payload": {"$result": "@group"}});
    let body = json!({"chord": {"group": [part, part, part], "then": then}});
    while caller.goes_on() {
        if let Some((status, answer)) = caller.ask("POST", "workflows", &body).await {
            assert_eq!(status, 201, "{answer}");
            let tasks = answer["tasks"].as_array().expect("tasks").iter().map(id).collect();
            ledger.workflows.lock().unwrap().insert(id(&answer["workflow"]), tasks);
        }
    }
}

/// Submits numbered items of lists of five.
async fn gathers(caller: &Caller, ledger: &Ledger) {
    let mut n = 0;
    while caller.goes_on() {
        let body =
            json!({"task_type": "list", "payload": n, "gather": {"key": "k", "max_count": 5, "max_wait_ms": 300}});
        if let Some((status, answer)) = caller.ask("POST", "tasks", &body).await {
            assert!(matches!(status, 200 | 201), "{answer}");
            ledger.items.lock().unwrap().insert(n, id(&answer));
        }
        // One that was not acknowledged may still have been taken.
        n += 1;
    }
}

const KEYS: u64 = 3;

/// Submits tasks of which there is one at a time.
async fn is_unique(caller: &Caller, ledger: &Ledger) {
    let mut n = 0;
    while caller.goes_on() {
        let key = n % KEYS;
        let body = json!({"task_type": "only", "payload": key, "unique": {"key": key.to_string()}});
        if let Some((status, answer)) = caller.ask("POST", "tasks", &body).await {
            assert!(matches!(status, 200 | 201), "{answer}");
            ledger.unique.lock().unwrap().entry(key).or_default().insert(id(&answer));
        }
        n += 1;
    }
}

/// Submits tasks for later, and gives them another title; and deletes some that it has cancelled.
async fn changes(caller: &Caller, ledger: &Ledger) {
    let mut n = 0;
    while caller.goes_on() {
        let body = json!({"task_type": "later", "delay_ms": 3_600_000});
        let Some((201, task)) = caller.ask("POST", "tasks", &body).await else { continue };
        let task_id = id(&task);
        let path = format!("tasks/{task_id}");
        if n % 2 == 0 {
            let title = format!("number {n}");
            if let Some((200, _)) = caller.ask("PATCH", &path, &json!({"title": title})).await {
                ledger.titles.lock().unwrap().insert(task_id, title);
            }
        } else if let Some((200, _)) = caller.ask("POST", &format!("{path}/cancel"), &Value::Null).await
            && let Some((204, _)) = caller.ask("DELETE", &path, &Value::Null).await
        {
            ledger.deleted.lock().unwrap().insert(task_id);
        }
        n += 1;
    }
}

/// Runs what there is. Tasks of the type `parent` add two others, and say so again until they hear an answer.
async fn works(caller: &Caller, ledger: &Ledger, name: &str, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        let claim = json!({"worker_id": name, "max": 8, "wait_ms": 100});
        let Some((200, claimed)) = caller.ask("POST", "worker/claim", &claim).await else { continue };
        for given in claimed["tasks"].as_array().expect("tasks") {
            let task = &given["task"];
            let (task_id, attempt) = (id(task), given["attempt"].as_u64().expect("an attempt"));
            let path = format!("tasks/{task_id}/attempts/{attempt}");
            if task["task_type"] == "parent" {
                let body = json!({"tasks": [{"task_type": "plain"}, {"task_type": "plain"}]});
                if let (201, answer) = caller.insist_keyed(&format!("{path}/spawn"), &task_id, &body).await {
                    for child in answer["tasks"].as_array().expect("tasks") {
                        ledger.spawned.lock().unwrap().insert(id(child), task_id.clone());
                    }
                }
            }
            let result = json!({"result": task["payload"]});
            let (status, answer) = caller.insist("POST", &format!("{path}/complete"), &result).await;
            assert!(matches!(status, 200 | 409), "{answer}");
        }
    }
}

impl Caller {
    /// A POST with an idempotency key, until there is an answer.
    async fn insist_keyed(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let begun = Instant::now();
        loop {
            let request = self.http.post(format!("{}/api/v1/{path}", self.url)).header("idempotency-key", key);
            if let Ok(response) = request.json(body).send().await {
                let status = response.status().as_u16();
                if let Ok(body) = response.json().await {
                    return (status, body);
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{path}: the hub does not answer");
            tokio::time::sleep(millis(10)).await;
        }
    }
}

/// Submits tasks that add others.
async fn spawns(caller: &Caller) {
    while caller.goes_on() {
        let _ = caller.ask("POST", "tasks", &json!({"task_type": "parent"})).await;
        tokio::time::sleep(millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_acknowledged_stands_though_the_hub_is_killed() {
    const KILLS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lease", "1500ms", "--grace", "300ms"];
    let mut hub = HubProcess::start(folder.path(), options);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let caller = Caller { url: hub.url.clone(), http, stop: AtomicBool::new(false) };
    let (ledger, done) = (Ledger::default(), AtomicBool::new(false));

    let load = async {
        tokio::join!(
            sets(&caller, &ledger),
            deploys(&caller, &ledger),
            gathers(&caller, &ledger),
            is_unique(&caller, &ledger),
            changes(&caller, &ledger),
            spawns(&caller),
        );
    };
    let work = async { tokio::join!(works(&caller, &ledger, "w1", &done), works(&caller, &ledger, "w2", &done)) };
    let killing = async {
        for _ in 0..KILLS {
            tokio::time::sleep(millis(fastrand::u64(50..400))).await;
            hub.program.kill();
            hub = HubProcess::start_at(hub.address(), folder.path(), options);
        }
        caller.stop.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        loop {
            let tasks = caller.get("stats").await["tasks"].clone();
            if ["waiting", "pending", "running"].iter().all(|status| tasks[status] == 0) {
                break;
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "never done: {tasks}");
            tokio::time::sleep(millis(20)).await;
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, work, killing);

    // Settings are what they were set to last, or what was on its way.
    for (name, set) in ledger.set.into_inner().unwrap() {
        let value = match name {
            "queue" => caller.get("queues/set").await["concurrency"].clone(),
            "schedule" => caller.get("schedules/set").await["jitter_ms"].clone(),
            "type" => caller.get("task-types/set").await["defaults"]["timeout_ms"].clone(),
            _ => json!(caller.get("limits").await["user"]["submits_per_min"].as_u64().unwrap() - 100_000),
        };
        assert!(value == set || value == set + 1, "{name} is {value}, and {set} was acknowledged");
    }
    for task_id in ledger.runs.into_inner().unwrap() {
        assert_eq!(caller.get(&format!("tasks/{task_id}")).await["schedule"], "set");
    }
    let workflows = ledger.workflows.into_inner().unwrap();
    assert!(workflows.len() > 20, "too little happened to tell: {}", workflows.len());
    for (workflow_id, tasks) in workflows {
        let whole = caller.get(&format!("workflows/{workflow_id}")).await;
        assert_eq!(whole["workflow"]["status"], "completed", "{whole}");
        let found: Vec<String> = whole["tasks"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(found, tasks);
        let then = caller.get(&format!("tasks/{}", tasks[3])).await;
        assert_eq!(then["result"], json!([null, null, null]), "it had the results of the others: {then}");
    }
    // Each item is in one list, the one that was named, in order.
    let mut lists = BTreeMap::new();
    for task in all(&caller, "list").await {
        lists.insert(id(&task), caller.get(&format!("tasks/{}", id(&task))).await["payload"].clone());
    }
    let mut items: Vec<u64> =
        lists.values().flat_map(|list| list.as_array().unwrap().clone()).map(|item| item.as_u64().unwrap()).collect();
    let count = items.len();
    items.sort_unstable();
    items.dedup();
    assert_eq!(items.len(), count, "an item stands in two lists, or twice in one");
    for (item, task_id) in ledger.items.into_inner().unwrap() {
        assert!(lists[&task_id].as_array().unwrap().contains(&json!(item)), "{item} is not in {}", lists[&task_id]);
    }
    // Of each key there was one task at a time.
    let mut lives: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let mut made = BTreeSet::new();
    for task in all(&caller, "only").await {
        let history = caller.get(&format!("tasks/{}/history", id(&task))).await;
        let revs: Vec<u64> =
            history["transitions"].as_array().unwrap().iter().map(|line| line["rev"].as_u64().unwrap()).collect();
        let whole = caller.get(&format!("tasks/{}", id(&task))).await;
        lives.entry(whole["payload"].to_string()).or_default().push((revs[0], *revs.last().unwrap()));
        made.insert(id(&task));
    }
    for (key, mut lives) in lives {
        lives.sort_unstable();
        assert!(
            lives.windows(2).all(|pair| pair[0].1 < pair[1].0),
            "of the key {key} two were there at once: {lives:?}"
        );
    }
    for task_id in ledger.unique.into_inner().unwrap().values().flatten() {
        assert!(made.contains(task_id), "an acknowledged task is gone: {task_id}");
    }
    for (task_id, parent) in ledger.spawned.into_inner().unwrap() {
        assert_eq!(caller.get(&format!("tasks/{task_id}")).await["parent_id"], json!(parent));
    }
    for (task_id, title) in ledger.titles.into_inner().unwrap() {
        assert_eq!(caller.get(&format!("tasks/{task_id}")).await["title"], json!(title));
    }
    for task_id in ledger.deleted.into_inner().unwrap() {
        assert_eq!(caller.insist("GET", &format!("tasks/{task_id}"), &Value::Null).await.0, 404, "{task_id} is back");
    }
}

/// Every task of a type.
async fn all(caller: &Caller, task_type: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = caller.get(&format!("tasks?task_type={task_type}&order=asc&limit=500{cursor}")).await;
        all.extend(page["tasks"].as_array().expect("tasks").clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}
