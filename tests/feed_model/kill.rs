//! Watchers of a hub in a process of its own: what they see of SIGKILL, of SIGTERM, and of a thousand others that come
//! back at the same moment.

use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use taskhub::task::FilterSpec;

use super::PATIENCE;
use super::kit::{HubProcess, TestSocket, millis};
use super::watcher::{Connection, Watcher};

struct Caller {
    url: String,
    http: reqwest::Client,
}

impl Caller {
    fn new(hub: &HubProcess) -> Caller {
        super::kit::agree_on_tls();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Caller { url: hub.url.clone(), http }
    }

    /// `None` where the hub was gone before there was an answer.
    async fn post(&self, path: &str, body: Value) -> Option<Value> {
        let request = self.http.post(format!("{}/api/v1/{path}", self.url)).timeout(millis(5_000)).json(&body);
        request.send().await.ok()?.json().await.ok()
    }

    async fn tasks(&self) -> Vec<Value> {
        let url = format!("{}/api/v1/tasks?limit=500", self.url);
        let list: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        list["tasks"].as_array().unwrap().clone()
    }

    /// A few tasks are submitted, run, and mostly completed. Answers whether the hub was there to its end.
    async fn work(&self, round: usize) -> Option<()> {
        let task =
            |n: usize| json!({"task_type": if n.is_multiple_of(2) { "even" } else { "odd" }, "max_crashes": 100});
        self.post("tasks/batch", json!({"tasks": (0..3).map(task).collect::<Vec<_>>()})).await?;
        let claimed = self.post("worker/claim", json!({"worker_id": format!("w{round}"), "max": 2})).await?;
        for given in claimed["tasks"].as_array()? {
            let path = format!("tasks/{}/attempts/{}", given["task"]["task_id"].as_str()?, given["attempt"]);
            self.post(&format!("{path}/progress"), json!({"progress": {"percentage": round % 100}})).await?;
            if !round.is_multiple_of(3) {
                self.post(&format!("{path}/complete"), json!({"result": round})).await?;
            }
        }
        Some(())
    }
}

fn watchers(count: usize) -> Vec<Watcher> {
    let filter = |n: usize| match n % 3 {
        0 => FilterSpec::default(),
        1 => FilterSpec { task_type: Some(vec!["ev*".into()]), ..FilterSpec::default() },
        _ => FilterSpec { queue: Some(vec!["default".into()]), ..FilterSpec::default() },
    };
    let watcher = |n| {
        let mut watcher = Watcher::on_socket(fastrand::Rng::with_seed(n as u64));
        watcher.subscribe(filter(n));
        watcher
    };
    (0..count).map(watcher).collect()
}

fn connect(hub: &HubProcess, watchers: &mut [Watcher]) {
    for watcher in watchers {
        watcher.retry();
        let head = "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let stream = TcpStream::connect(hub.address()).expect("nobody is refused");
        watcher.opened(Connection::new(stream, head.to_owned()));
    }
}

/// Everyone reads, until all of them are as they should be.
async fn until(what: &str, watchers: &mut [Watcher], is_done: impl Fn(&Watcher) -> bool) {
    let begun = Instant::now();
    while !watchers.iter().all(&is_done) {
        let mut any = false;
        for watcher in watchers.iter_mut() {
            any |= watcher.pump(1 << 16);
        }
        if !any {
            tokio::time::sleep(millis(1)).await;
        }
        if begun.elapsed() > PATIENCE {
            let one = watchers.iter().find(|watcher| !is_done(watcher)).expect("somebody");
            panic!("waited in vain: {what}; {:?} {}", one.close_code, one.said());
        }
    }
}

/// Whether its picture is what the list says.
fn sees(watcher: &Watcher, tasks: &[Value]) -> bool {
    let view = &watcher.subs["s1"];
    let is_meant = |task: &&Value| {
        let types = view.spec.task_type.is_some();
        !types || task["task_type"] == "even"
    };
    let meant: Vec<&Value> = tasks.iter().filter(is_meant).collect();
    meant.len() == view.known.len()
        && meant.iter().all(|task| {
            let known = view.known.get(&super::watcher::id(task));
            known.and_then(|known| known.task.as_ref()).is_some_and(|known| place(known) == place(task))
        })
}

/// Where a record stands. The rest follows from it, but for the estimate, which goes on.
fn place(task: &Value) -> [&Value; 4] {
    [&task["rev"], &task["tick"], &task["status"], &task["progress"]["percentage"]]
}

/// Everyone reads, until every picture is what the list says.
async fn all_see(hub: &HubProcess, watchers: &mut [Watcher]) {
    let caller = Caller::new(hub);
    let begun = Instant::now();
    loop {
        until("marks", watchers, Watcher::has_all).await;
        let tasks = caller.tasks().await;
        assert!(tasks.len() < 500, "too many for one page");
        let Some(one) = watchers.iter().find(|watcher| !sees(watcher, &tasks)) else { return };
        if begun.elapsed() > PATIENCE / 4 {
            let known = one.subs["s1"].known.values().filter_map(|known| known.task.as_ref());
            let wrong: Vec<&Value> = known.filter(|task| !tasks.iter().any(|one| place(one) == place(task))).collect();
            panic!("not in the list: {wrong:#?}; {}", one.said());
        }
        for watcher in watchers.iter_mut() {
            watcher.pump(1 << 16);
        }
    }
}

async fn start_again(hub: &mut HubProcess, folder: &Path) {
    let address = hub.address().to_owned();
    hub.program.kill();
    *hub = HubProcess::start_at(&address, folder, OPTIONS);
}

const OPTIONS: [&str; 6] = ["--lease", "1h", "--goodbye", "500ms", "--drain-timeout", "0s"];

#[tokio::test(flavor = "multi_thread")]
async fn who_watched_a_hub_that_was_killed_goes_on_where_it_was() {
    const KILLS: u64 = 5;
    let folder = tempfile::tempdir().unwrap();
    let mut hub = HubProcess::start(folder.path(), OPTIONS);
    let mut watchers = watchers(12);
    connect(&hub, &mut watchers);
    until("the first marks", &mut watchers, Watcher::has_all).await;
    for kill in 0..KILLS {
        let caller = Caller::new(&hub);
        let load = tokio::spawn(async move {
            let mut round = 0;
            while caller.work(round).await.is_some() {
                round += 1;
            }
        });
        // Some marks are from before all this, some from the middle of it.
        let lines = |watchers: &[Watcher]| watchers[0].counts.lines;
        let enough = lines(&watchers) + 60;
        let begun = Instant::now();
        while lines(&watchers) < enough {
            for watcher in watchers.iter_mut().step_by(1 + kill as usize % 2) {
                watcher.pump(700);
            }
            tokio::time::sleep(millis(1)).await;
            assert!(begun.elapsed() < PATIENCE, "too little happens");
        }
        start_again(&mut hub, folder.path()).await;
        // A connection that was alive may have been the new hub's.
        load.abort();
        let _ = load.await;
        until("everyone notices", &mut watchers, |watcher| watcher.connection.is_none()).await;
        connect(&hub, &mut watchers);
        all_see(&hub, &mut watchers).await;
        for watcher in &watchers {
            assert_eq!((watcher.counts.resumes, watcher.counts.resets), (kill + 1, 0), "{}", watcher.said());
        }
    }

    let mark = json!({"epoch": epoch(&hub).await, "rev": 1});
    assert_eq!(subscribed(&hub, &mark).await, ["subscribed resumed", "mark"]);
    let other = tempfile::tempdir().unwrap();
    start_again(&mut hub, other.path()).await;
    assert_eq!(subscribed(&hub, &mark).await, ["subscribed snapshot", "reset epoch", "snapshot", "mark"]);
    until("everyone notices", &mut watchers, |watcher| watcher.connection.is_none()).await;
    connect(&hub, &mut watchers);
    until("marks of the new history", &mut watchers, Watcher::has_all).await;
    assert!(watchers.iter().all(|watcher| sees(watcher, &[])), "nothing of the old history is shown");
}

async fn epoch(hub: &HubProcess) -> Value {
    let mut socket = TestSocket::dial(hub.address(), "/api/v1/ws", &[]).await;
    socket.expect("hello").await["epoch"].clone()
}

/// How a subscription that wants to go on at `mark` begins, without the tasks.
async fn subscribed(hub: &HubProcess, since: &Value) -> Vec<String> {
    let mut socket = TestSocket::dial(hub.address(), "/api/v1/ws", &[]).await;
    socket.expect("hello").await;
    socket.say(json!({"op": "subscribe", "sub": "a", "filter": {}, "since": since})).await;
    let lines = socket.through("a mark", |line| line["type"] == "mark").await;
    let word = |line: &Value| {
        let more = line["mode"].as_str().or(line["reason"].as_str()).unwrap_or_default();
        format!("{} {more}", line["type"].as_str().unwrap()).trim().to_owned()
    };
    let mut words: Vec<String> = lines.iter().map(word).collect();
    words.retain(|word| word != "task" && word != "progress");
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_come_back_at_once_and_leave_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = HubProcess::start(folder.path(), OPTIONS);
    for round in 0..10 {
        Caller::new(&hub).work(round).await.unwrap();
    }
    let mut watchers = watchers(1_000);
    connect(&hub, &mut watchers);
    until("the first marks", &mut watchers, Watcher::has_all).await;
    Caller::new(&hub).work(11).await.unwrap();
    start_again(&mut hub, folder.path()).await;
    Caller::new(&hub).work(12).await.unwrap();
    until("everyone notices", &mut watchers, |watcher| watcher.connection.is_none()).await;
    connect(&hub, &mut watchers);
    until("everyone is back", &mut watchers, Watcher::has_all).await;
    all_see(&hub, &mut watchers).await;
    for watcher in &watchers {
        let counts = watcher.counts;
        assert_eq!((counts.connections, counts.resumes, counts.resets), (2, 1, 0), "{}", watcher.said());
    }

    hub.program.signal(libc::SIGTERM);
    until("everyone is told", &mut watchers, |watcher| watcher.connection.is_none()).await;
    for watcher in &watchers {
        assert_eq!((watcher.close_code, watcher.counts.byes), (Some(4001), 1), "{}", watcher.said());
    }
    assert!(hub.program.wait(PATIENCE).success());
}
