//! Whole hubs under random use: what every watcher is told is compared with what really happened.
//!
//! A run is a hub in this process with its routes on a real port, and a handful of watchers on WebSockets and event
//! streams that read little by little, are cut off at any byte, come back, subscribe and unsubscribe, while tasks are
//! submitted, run, fail, are cancelled, retried and deleted, and the hub goes away and comes back, with its history or
//! with another one. Buffers and bounds are small, so that every queue is full now and then.
//!
//! Checked of every watcher: the (`rev`, `tick`) of a task grows, and nothing is said of progress after the end; a mark is
//! true; nothing is lost unless that was said (`lag`, `reset`); nothing comes that nobody asked for; and in the end the
//! picture is what the hub itself finds.
//!
//! `TASKHUB_MODEL_RUNS` sets how many runs there are. A failure prints its seed; `TASKHUB_SEED` runs that one alone.
//! Choices are seeded, threads are not: a seed brings the same use, and mostly the same failure.

#[path = "../kit/mod.rs"]
mod kit;

mod kill;
mod ledger;
mod slow;
mod watcher;

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::Value;
use taskhub::Hub;
use taskhub::config::ServeConfig;
use taskhub::engine::{Accepts, Report};
use taskhub::feed::OutboxLimits;
use taskhub::http::{App, router};
use taskhub::hub::{HubError, Order, Query};
use taskhub::keys::{KeyOptions, Keys};
use taskhub::settings::HandOuts;
use taskhub::store::{Commit, Count, Reader, Recovered, SqliteStore, Store, StoreError, in_memory};
use taskhub::task::{
    Digest, Failure, Filter, FilterSpec, Json, KeyEntry, Name, NewTask, PatternSet, Progress, RetryPolicy, Status,
    Task, TaskId, Timestamp,
};
use tokio::net::TcpListener;

use ledger::Ledger;
use watcher::{Connection, Counts, Watcher};

const RUNS: u64 = 1_000;
/// Runs at a time: each mostly waits for marks.
const RUNS_AT_ONCE: usize = 96;
/// The bound of a run that hangs. Nothing should take as long.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_watcher_knows_what_happened() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("TASKHUB_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TASKHUB_MODEL_RUNS").unwrap_or(RUNS)).collect(),
    };
    let runs = seeds.len();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let begun = Instant::now();
    let counts = runtime.block_on(async {
        let runs = futures::stream::iter(seeds).map(async |seed| match tokio::spawn(run(seed)).await {
            Ok(counts) => counts,
            Err(_) => panic!("it failed with TASKHUB_SEED={seed}"),
        });
        runs.buffer_unordered(RUNS_AT_ONCE)
            .fold(Counts::default(), async |mut sum, counts| {
                sum.add(counts);
                sum
            })
            .await
    });
    eprintln!("{runs} runs in {:.1} s: {counts:?}", begun.elapsed().as_secs_f64());
    if runs >= 500 {
        let Counts { lags, resets, resumes, byes, .. } = counts;
        assert!(lags > 100 && resets > 50 && resumes > 500 && byes > 20, "too little happened to tell: {counts:?}");
    }
}

/// A store that outlives its hub.
struct Kept(Arc<Mutex<SqliteStore>>);

impl Store for Kept {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.0.lock().recover()
    }
    fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.0.lock().append(commit)
    }
    fn settle(&mut self, tasks_max: usize) -> Result<Vec<(TaskId, u64)>, StoreError> {
        self.0.lock().settle(tasks_max)
    }
    fn unsettled(&self) -> (usize, usize) {
        self.0.lock().unsettled()
    }
    fn task(&mut self, task_id: TaskId) -> Result<Option<Task>, StoreError> {
        self.0.lock().task(task_id)
    }
    fn log_end(&mut self, task_id: TaskId) -> Result<u64, StoreError> {
        self.0.lock().log_end(task_id)
    }
    fn key(&mut self, key: Digest, now: Timestamp) -> Result<Option<KeyEntry>, StoreError> {
        self.0.lock().key(key, now)
    }
    fn sweep(&mut self, now: Timestamp, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.lock().sweep(now, before, rows_max)
    }
    fn hand_outs(&mut self, now: Count) -> Result<Vec<HandOuts>, StoreError> {
        self.0.lock().hand_outs(now)
    }
    fn forget_hand_outs(&mut self, until: i64, mono: u64, rows_max: usize) -> Result<usize, StoreError> {
        self.0.lock().forget_hand_outs(until, mono, rows_max)
    }

    fn forget_deliveries(&mut self, tried_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.lock().forget_deliveries(tried_before, rows_max)
    }

    fn forget_audit(&mut self, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.lock().forget_audit(before, rows_max)
    }
    fn shrink(&mut self) -> Result<bool, StoreError> {
        self.0.lock().shrink()
    }
    fn probe(&mut self) -> Result<(), StoreError> {
        self.0.lock().probe()
    }
    fn reader(&self) -> Arc<dyn Reader> {
        self.0.lock().reader()
    }
}

struct World {
    random: fastrand::Rng,
    outbox: OutboxLimits,
    inbox_len_max: usize,
    store: Arc<Mutex<SqliteStore>>,
    hub: Hub,
    router: Router,
    listener: TcpListener,
    watchers: Vec<Watcher>,
    ledgers: HashMap<String, Ledger>,
    tasks: Vec<TaskId>,
    running: Vec<(TaskId, u32)>,
    ticks: u64,
}

fn new_store() -> Arc<Mutex<SqliteStore>> {
    Arc::new(Mutex::new(in_memory().expect("a store in memory")))
}

fn start(store: &Arc<Mutex<SqliteStore>>, outbox: OutboxLimits, inbox_len_max: usize) -> (Hub, Router) {
    let config = ServeConfig { max_hz: 200.0, goodbye: Duration::from_millis(10), ..ServeConfig::for_trial() };
    let mut options = config.hub_options();
    options.engine.lease_ms = 3_600_000;
    (options.feed.shards, options.feed.outbox, options.feed.inbox_len_max) = (2, outbox, inbox_len_max);
    let hub = Hub::start(Box::new(Kept(store.clone())), options).expect("the hub starts");
    let app = App::new(
        hub.clone(),
        Keys::new(KeyOptions::default(), Vec::new()).unwrap(),
        config.door().unwrap(),
        config.http_limits(),
        config.live_limits(),
    );
    (hub, router(app))
}

async fn run(seed: u64) -> Counts {
    tokio::time::timeout(PATIENCE, async {
        let mut world = World::new(seed).await;
        let steps = world.random.usize(60..240);
        for _ in 0..steps {
            world.step().await;
        }
        world.converge().await;
        world.end().await
    })
    .await
    .expect("a run comes to its end")
}

impl World {
    async fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let outbox = OutboxLimits {
            len_max: *random.choice(&[3, 20, 1_024]).unwrap(),
            bytes_max: *random.choice(&[1_000, 20_000]).unwrap(),
            collapsed_max: *random.choice(&[5, 1_000]).unwrap(),
        };
        let inbox_len_max = *random.choice(&[2, 4_096]).unwrap();
        let store = new_store();
        let (hub, router) = start(&store, outbox, inbox_len_max);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut world = World {
            outbox,
            inbox_len_max,
            store,
            ledgers: HashMap::from([(hub.epoch().to_owned(), Ledger::default())]),
            hub,
            router,
            listener,
            watchers: Vec::new(),
            tasks: Vec::new(),
            running: Vec::new(),
            ticks: 0,
            random,
        };
        world.submit().await;
        for _ in 0..world.random.usize(2..5) {
            let watcher = if world.random.u8(..4) == 0 {
                Watcher::on_events(world.filter(true))
            } else {
                let mut watcher = Watcher::on_socket(world.random.fork());
                let spec = world.filter(false);
                watcher.subscribe(spec);
                watcher
            };
            world.watchers.push(watcher);
        }
        world
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.ledgers.get_mut(self.hub.epoch()).expect("the one of this history")
    }

    /// Something to watch; for an event stream what its query can say.
    fn filter(&mut self, for_query: bool) -> FilterSpec {
        let random = &mut self.random;
        let mut spec = FilterSpec::default();
        if random.u8(..3) == 0 {
            return spec;
        }
        let mut some = |values: &[&str]| -> Option<Vec<String>> {
            let mut values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            random.shuffle(&mut values);
            values.truncate(random.usize(1..=values.len().min(2)));
            (random.u8(..3) == 0).then_some(values)
        };
        spec.task_type = some(&["t", "t.*", "u", "t.a", "*"]);
        spec.queue = some(&["q", "r", "r*"]);
        spec.status = some(&["pending", "running", "completed", "failed", "cancelled", "scheduled"])
            .map(|words| words.iter().map(|word| Status::parse(word).unwrap()).collect());
        spec.user_id = some(&["ann", "bob"]);
        spec.labels = some(&["1", "2"]).map(|values| BTreeMap::from([("project".to_owned(), values)]));
        if self.random.u8(..4) == 0 && !self.tasks.is_empty() {
            let count = self.random.usize(1..4);
            spec.task_id = Some((0..count).map(|_| *self.random.choice(&self.tasks).unwrap()).collect());
        }
        if for_query {
            spec.user_id.iter_mut().for_each(|users| users.truncate(1));
            spec.labels.iter_mut().flatten().for_each(|(_, values)| values.truncate(1));
        }
        spec
    }

    async fn step(&mut self) {
        match self.random.u32(..1_000) {
            0..120 => self.submit().await,
            120..220 => self.claim().await,
            220..330 => self.tick().await,
            330..430 => self.report().await,
            430..470 => {
                if let Some(task_id) = self.random.choice(&self.tasks).copied() {
                    let _ = self.hub.cancel_task(task_id, None).await;
                }
            }
            470..500 => {
                if let Some(task_id) = self.random.choice(&self.tasks).copied() {
                    let _ = self.hub.retry_task(task_id, None).await;
                }
            }
            500..540 => self.delete().await,
            540..548 => self.restart().await,
            548..570 => {
                let at = self.random.usize(..self.watchers.len());
                self.watchers[at].cut(None);
            }
            570..600 => self.change_subscriptions(),
            600..610 => tokio::time::sleep(Duration::from_millis(self.random.u64(..20))).await,
            610..640 => {
                // A mark comes after a while.
                let whole = self.random.bool();
                self.pump(if whole { 1 << 16 } else { 64 }).await;
            }
            _ => {
                let at = self.random.usize(..self.watchers.len());
                let bytes = *self.random.choice(&[1, 7, 100, 1_000, 1 << 16]).unwrap();
                self.connect(at).await;
                self.watchers[at].pump(bytes);
                tokio::task::yield_now().await;
            }
        }
    }

    async fn submit(&mut self) {
        let count = self.random.usize(1..4);
        let tasks = (0..count).map(|_| self.task()).collect();
        let submitted = self.hub.submit_all(tasks, None).await.expect("room for it");
        for record in &submitted.records {
            let task = Task::parse(record).expect("a record");
            self.tasks.push(task.task_id);
            self.ledger().submitted(task);
        }
    }

    fn task(&mut self) -> NewTask {
        let random = &mut self.random;
        let mut task = NewTask::new(*random.choice(&["t", "t.a", "t.b", "u"]).unwrap());
        task.queue = Some((*random.choice(&["q", "r", "rr"]).unwrap()).into());
        task.user_id = random.choice(&[None, Some("ann"), Some("bob"), Some("cid")]).unwrap().map(str::to_owned);
        if random.bool() {
            let project = *random.choice(&["1", "2", "3"]).unwrap();
            task.labels = BTreeMap::from([("project".to_owned(), project.to_owned())]);
        }
        task.description = random.bool().then(|| "x".repeat(random.usize(..2_000)));
        task.delay_ms = (random.u8(..8) == 0).then(|| random.u64(1..20));
        task.max_attempts = Some(random.u32(1..3));
        task.retry = Some(RetryPolicy { base_ms: 5, jitter: 0.0, ..RetryPolicy::default() });
        task
    }

    async fn claim(&mut self) {
        let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
        let max = self.random.u32(1..4);
        let handed = self.hub.claim(Name::new("w"), accepts, max, Duration::ZERO).await.expect("a claim");
        self.running.extend(handed.iter().map(|handed| (handed.task.task_id, handed.task.attempt)));
    }

    async fn tick(&mut self) {
        let Some((task_id, attempt)) = self.random.choice(&self.running).copied() else { return };
        for _ in 0..self.random.u64(1..4) {
            self.ticks += 1;
            let progress = Progress::of(self.ticks, 1_000_000);
            let _ = self.hub.progress(task_id, attempt, Some(progress), None).await;
        }
    }

    async fn report(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (task_id, attempt) = self.running.swap_remove(self.random.usize(..self.running.len()));
        let report = match self.random.u8(..8) {
            0..4 => Report::Complete { result: Json::parse("{\"some\":[1,2]}").unwrap() },
            4..6 => Report::Fail { error: Failure::new("x", "broken"), retryable: true, retry_after_ms: None },
            6 => Report::Cancelled,
            _ => Report::Release,
        };
        let _ = self.hub.report(task_id, attempt, report).await;
    }

    async fn delete(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let at = self.random.usize(..self.tasks.len());
        let task_id = self.tasks[at];
        let history = self.hub.history(task_id).await.expect("a history").expect("it is there");
        match self.hub.delete_task(task_id).await {
            Ok(()) => {
                self.tasks.swap_remove(at);
                self.ledger().deleted(task_id, &history);
            }
            Err(HubError::Refused(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn change_subscriptions(&mut self) {
        let at = self.random.usize(..self.watchers.len());
        if self.watchers[at].follower.is_none() {
            return;
        }
        let names: Vec<String> = self.watchers[at].subs.keys().cloned().collect();
        if names.len() > 1 && self.random.bool() {
            let name = self.random.choice(&names).unwrap().clone();
            self.watchers[at].unsubscribe(&name);
        } else if names.len() < 4 {
            let spec = self.filter(false);
            self.watchers[at].subscribe(spec);
        }
    }

    /// Brings a watcher to the hub, if it is not there.
    async fn connect(&mut self, at: usize) {
        self.watchers[at].retry();
        if !self.watchers[at].wants_to_open {
            return;
        }
        let address = self.listener.local_addr().expect("an address");
        let domain = socket2::Domain::IPV4;
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        let is_narrow = self.random.bool();
        if is_narrow {
            socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
        }
        // A cut is a cut, and leaves no port behind that waits for a minute.
        socket.set_linger(Some(Duration::ZERO)).expect("no lingering");
        socket.connect(&address.into()).expect("the hub listens");
        let (stream, _) = self.listener.accept().await.expect("the one that has just come");
        if is_narrow {
            socket2::SockRef::from(&stream).set_send_buffer_size(4 << 10).expect("a small buffer");
        }
        stream.set_nodelay(true).expect("a socket");
        let service = TowerToHyperService::new(self.router.clone());
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::spawn(serving);
        let watcher = &mut self.watchers[at];
        let head = match &watcher.follower {
            Some(_) => "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: taskhub.v1\r\n\r\n"
                .to_owned(),
            None => {
                let query = query(&watcher.subs[watcher::EVENTS].spec);
                let last = match watcher.last_event_id.as_str() {
                    "" => String::new(),
                    id => format!("Last-Event-ID: {id}\r\n"),
                };
                format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n")
            }
        };
        watcher.opened(Connection::new(TcpStream::from(socket), head));
    }

    /// Everyone reads a little.
    async fn pump(&mut self, bytes: usize) -> bool {
        let mut any = false;
        for at in 0..self.watchers.len() {
            self.connect(at).await;
            any |= self.watchers[at].pump(bytes);
        }
        any
    }

    async fn restart(&mut self) {
        let says_goodbye = self.random.bool();
        if says_goodbye {
            self.hub.drain(Duration::ZERO).await;
            while self.watchers.iter().any(|watcher| watcher.connection.is_some()) {
                if !self.watchers.iter_mut().fold(false, |any, watcher| watcher.pump(1 << 16) | any) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        } else {
            self.watchers.iter_mut().for_each(|watcher| watcher.cut(None));
        }
        self.running.clear();
        let replaces = self.random.u8(..3) == 0;
        if replaces {
            self.close_ledger().await;
        }
        self.hub.stop().await;
        if replaces {
            self.store = new_store();
            self.tasks.clear();
        }
        (self.hub, self.router) = start(&self.store, self.outbox, self.inbox_len_max);
        if replaces {
            self.ledgers.insert(self.hub.epoch().to_owned(), Ledger::default());
        }
    }

    async fn close_ledger(&mut self) {
        let rev = self.hub.rev();
        for task_id in self.ledger().left().collect::<Vec<_>>() {
            let history = self.hub.history(task_id).await.expect("a history").expect("it is there");
            self.ledger().learn(task_id, &history);
        }
        self.ledger().close(rev);
    }

    /// Nothing happens any more, and everyone reads, until all know all.
    async fn converge(&mut self) {
        let begun = Instant::now();
        loop {
            let waits = self.pump(1 << 16).await;
            let rev = self.hub.rev();
            let behind = self.watchers.iter().find(|watcher| !watcher.has_all());
            let difference = match behind.map(|watcher| format!("no mark after all was told; {}", watcher.said())) {
                None => self.difference().await,
                behind => behind,
            };
            if difference.is_none() && self.hub.rev() == rev && self.hub.stats().tasks.scheduled == 0 {
                return self.watchers.iter().for_each(|watcher| watcher.check_ahead());
            }
            if begun.elapsed() > PATIENCE / 4 {
                panic!("at rev {rev}: {}", difference.unwrap_or_default());
            }
            if !waits {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// What some watcher sees otherwise than the hub.
    async fn difference(&mut self) -> Option<String> {
        let views = self.watchers.iter().flat_map(|watcher| watcher.subs.values());
        let filters: Vec<_> = views.map(|view| view.filter.clone()).collect();
        let mut all_found = Vec::new();
        for filter in &filters {
            all_found.push(found(&self.hub, filter).await);
        }
        let mut all_found = all_found.into_iter();
        for watcher in &self.watchers {
            for (name, view) in &watcher.subs {
                let found = all_found.next().expect("one for each view");
                let known: BTreeMap<TaskId, Value> = view
                    .known
                    .iter()
                    .filter_map(|(task_id, known)| Some((*task_id, known.task.clone()?)))
                    .filter(|(_, task)| {
                        view.filter.matches(&Task::parse(task.to_string().as_bytes()).expect("a record"))
                    })
                    .collect();
                if known != found {
                    let (filter, said) = (&view.filter, watcher.said());
                    return Some(format!("{name} {filter:?}: {known:#?} is known, and {found:#?} is true; {said}"));
                }
                let Some((follower, sub)) = watcher.follower.as_ref().zip(view.id) else { continue };
                let told = follower.tasks(sub);
                let told: BTreeMap<TaskId, (u64, u64)> =
                    told.iter().map(|task| (task.task_id, (task.rev, task.tick))).collect();
                let place = |task: &Value| (task["rev"].as_u64().unwrap(), task["tick"].as_u64().unwrap());
                let expected = found.iter().map(|(task_id, task)| (*task_id, place(task))).collect();
                if told != expected {
                    let said = watcher.said();
                    return Some(format!(
                        "the Rust client, {name}: {told:?} is known, and {expected:?} is true; {said}"
                    ));
                }
            }
        }
        None
    }

    async fn end(mut self) -> Counts {
        self.watchers.iter_mut().for_each(|watcher| watcher.cut(None));
        self.close_ledger().await;
        let mut counts = Counts::default();
        for watcher in &self.watchers {
            for (epoch, heard, belief) in &watcher.beliefs {
                if let Err(why) = self.ledgers[epoch].check(belief) {
                    let heard = &watcher.said[..*heard];
                    panic!("{why}; it heard\n{}", heard[heard.len().saturating_sub(60)..].join("\n"));
                }
            }
            counts.add(watcher.counts);
            counts.beliefs += watcher.beliefs.len() as u64;
        }
        self.hub.stop().await;
        counts
    }
}

/// What the hub finds.
async fn found(hub: &Hub, filter: &Filter) -> BTreeMap<TaskId, Value> {
    let query = Query {
        filter: filter.clone(),
        text: None,
        created_after: None,
        created_before: None,
        order: Order::NewestFirst,
        beyond: None,
        limit: 1_000,
    };
    let page = hub.find(query).await.expect("a page");
    page.tasks.iter().map(|(task_id, record)| (*task_id, serde_json::from_slice(record).expect("JSON"))).collect()
}

fn query(spec: &FilterSpec) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut list = |name: &str, values: Option<Vec<String>>| {
        if let Some(values) = values {
            query.append_pair(name, &values.join(","));
        }
    };
    list("task_id", spec.task_id.as_ref().map(|ids| ids.iter().map(TaskId::to_string).collect()));
    list("task_type", spec.task_type.clone());
    list("queue", spec.queue.clone());
    list("status", spec.status.as_ref().map(|all| all.iter().map(|status| status.as_str().to_owned()).collect()));
    list("user_id", spec.user_id.clone());
    for (key, values) in spec.labels.iter().flatten() {
        list(&format!("label.{key}"), Some(values.clone()));
    }
    format!("?{}", query.finish())
}
