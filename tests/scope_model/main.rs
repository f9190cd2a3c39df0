//! Who may see what, over whole hubs under random use: nobody is ever sent a byte of what is not theirs, and everybody is sent all
//! that is.
//!
//! A run is a hub in this process that knows its callers, with its routes; API tokens of each role, and scoped tokens that are made
//! as it goes, with filters, hidden parts and rights; and tasks of several users that are submitted, run, fail, are cancelled,
//! retried and deleted, by callers who may and by others who try. Callers read by every route, page through lists, ask for the same
//! at once, and watch on sockets and event streams that are cut, resumed (also from marks of others), given other tokens, and whose
//! tokens are taken back.
//!
//! What each may see is said a second time, simply, in `law.rs`. In every part of a task stands a secret word, and every answer and
//! every line is searched for words and ids that are out of sight. What changed is looked at after each call that changes
//! something: nothing that its caller does not see. In the end each watcher's picture is all that it may see.
//!
//! `TASKHUB_SCOPE_RUNS` sets how many runs there are. A failure prints its seed; `TASKHUB_SEED` runs that one alone.

mod law;
mod steps;
mod watcher;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::Value;
use taskhub::Hub;
use taskhub::access::{AccessChange, AccessRecord, NewApiToken, Role};
use taskhub::config::ServeConfig;
use taskhub::feed::OutboxLimits;
use taskhub::http::{App, router};
use taskhub::hub::{Order, Query};
use taskhub::keys::{KeyOptions, Keys};
use taskhub::store::in_memory;
use taskhub::task::{Filter, Task, TaskId, Timestamp};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tower::ServiceExt as _;

use law::{Caller, Facts, Law, Scope};
use watcher::{Counts, Watcher, Wire};

const RUNS: u64 = 300;
/// Runs at a time: each waits for marks in the end.
const RUNS_AT_ONCE: usize = 24;
/// The bound of a run that hangs. Nothing should take as long.
const PATIENCE: Duration = Duration::from_secs(180);
pub const MISSING: &str = "01890000-0000-7000-8000-00000000dead";

#[test]
fn nobody_is_told_what_is_not_theirs_and_everybody_what_is() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("TASKHUB_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TASKHUB_SCOPE_RUNS").unwrap_or(RUNS)).collect(),
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
    if runs >= 300 {
        let Counts { resumes, scope_resets, refreshes, not_found, revocations, held_ended, .. } = counts;
        let least = [resumes, scope_resets, refreshes, not_found, revocations, held_ended].into_iter().min();
        assert!(least > Some(50), "too little happened to tell: {counts:?}");
    }
}

async fn run(seed: u64) -> Counts {
    tokio::time::timeout(PATIENCE, async {
        let mut world = World::new(seed).await;
        let steps = world.random.usize(20..70);
        for _ in 0..steps {
            world.step().await;
            world.pump();
        }
        world.converge().await;
        world.end()
    })
    .await
    .expect("a run comes to its end")
}

pub struct World {
    random: fastrand::Rng,
    hub: Hub,
    router: Router,
    listener: TcpListener,
    law: Law,
    callers: Vec<Caller>,
    watchers: Vec<Watcher>,
    /// Attempts of workers: of the hub's own program, or of a caller.
    running: Vec<(TaskId, u32, Option<usize>)>,
    numbers: usize,
    /// Keys of idempotency that were used, by whose they are.
    used_keys: HashSet<(String, String)>,
    /// Who submitted what last with a key, and where.
    sent: Option<(usize, String, Value, String)>,
    /// A cursor, with the query it is of.
    cursor: Option<(String, String)>,
    counts: Counts,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

impl World {
    async fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = ServeConfig { max_hz: 200.0, goodbye: Duration::from_millis(10), ..ServeConfig::for_trial() };
        let mut options = config.hub_options();
        options.engine.lease_ms = 3_600_000;
        // A mark comes at least as often, also to those for whom nothing happened.
        (options.feed.shards, options.feed.ping) = (2, Duration::from_secs(1));
        options.feed.outbox = OutboxLimits {
            len_max: *random.choice(&[3, 1_024]).unwrap(),
            bytes_max: *random.choice(&[1_000, 100_000]).unwrap(),
            collapsed_max: *random.choice(&[3, 1_000]).unwrap(),
        };
        let hub = Hub::start(Box::new(in_memory().expect("a store in memory")), options).expect("the hub starts");
        let now = Timestamp::now();
        let mut changes = vec![AccessChange::Put(AccessRecord::Closed { since: now })];
        let mut callers = Vec::new();
        for (name, role, user) in [
            ("admin", Role::Admin, None),
            ("operator", Role::Operator, None),
            ("viewer", Role::Viewer, None),
            ("ann", Role::User, Some("ann")),
            ("ann-too", Role::User, Some("ann")),
            ("bob", Role::User, Some("bob")),
            ("worker", Role::Worker, None),
            ("narrow-worker", Role::Worker, None),
        ] {
            let new = NewApiToken {
                name: name.into(),
                role,
                user_id: user.map(Into::into),
                task_types: (name == "narrow-worker").then(|| vec!["t.*".to_owned()]),
                queues: None,
                expires_at: None,
            };
            let (record, token) = new.make(now).expect("a token");
            changes.push(AccessChange::Put(AccessRecord::ApiToken(record)));
            callers.push(Caller {
                name: name.to_owned(),
                token,
                role,
                user: user.map(Into::into),
                scopes: user.map(Scope::of_user).into_iter().collect(),
                hides: Vec::new(),
                allow: None,
                maker: None,
                jti: None,
                is_alive: true,
            });
        }
        hub.change_access(changes, None).await.expect("the first tokens");
        let keys = hub.listen_to_access(|records| Keys::new(KeyOptions::default(), records)).expect("the keys");
        hub.change_access(keys.upkeep(now).expect("randomness"), None).await.expect("a key to sign with");
        let app = App::new(hub.clone(), keys, config.door().unwrap(), config.http_limits(), config.live_limits());
        let mut world = World {
            random,
            hub,
            router: router(app),
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            law: Law::default(),
            callers,
            watchers: Vec::new(),
            running: Vec::new(),
            numbers: 0,
            used_keys: HashSet::new(),
            sent: None,
            cursor: None,
            counts: Counts::default(),
        };
        world.settings().await;
        for _ in 0..3 {
            world.submit().await;
        }
        for _ in 0..2 {
            world.mint().await;
        }
        for _ in 0..world.random.usize(2..5) {
            world.watch().await;
        }
        world
    }

    fn number(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }

    /// A call, whose answer is searched for what is not its caller's. What the caller says itself is no news to it.
    async fn call(&mut self, caller: usize, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(caller, method, path, body, None).await
    }

    async fn call_with(
        &mut self,
        caller: usize,
        method: &str,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> Answer {
        self.counts.calls += 1;
        let answer = send(&self.router, &self.callers[caller].token, method, path, body.as_ref(), key).await;
        let said = format!("{path}{}", body.unwrap_or_default());
        self.look_at(caller, &said, &answer);
        answer
    }

    fn look_at(&mut self, caller: usize, said: &str, answer: &Answer) {
        let who = &self.callers[caller];
        self.counts.not_found += u64::from(answer.status == 404);
        assert!(answer.status < 500, "{who:?} {said}: {answer:?}");
        assert_eq!(answer.status == 401, !who.is_alive, "{who:?} {said}: {answer:?}");
        if let Some(foreign) = self.law.foreign(caller, who, &answer.text, said) {
            panic!("{who:?} said {said} and was told {foreign}: {answer:?}");
        }
    }

    /// All tasks there are, as they are.
    async fn truth(&self) -> HashMap<TaskId, Task> {
        let (filter, order) = (Filter::default(), Order::OldestFirst);
        let query =
            Query { filter, text: None, created_after: None, created_before: None, order, beyond: None, limit: 500 };
        let page = self.hub.find(query).await.expect("a page");
        assert!(!page.more, "too many tasks for this test");
        page.tasks.iter().map(|(task_id, record)| (*task_id, Task::parse(record).expect("a record"))).collect()
    }

    /// Takes over what was submitted, by this answer.
    fn submitted(&mut self, record: &Value, number: usize, depends: bool) {
        let text = |key: &str| record[key].as_str().map(str::to_owned);
        let task_id: TaskId = text("task_id").expect("an id").parse().expect("an id");
        if self.law.task(task_id).is_some() {
            return;
        }
        let labels: BTreeMap<String, String> = serde_json::from_value(record["labels"].clone()).unwrap_or_default();
        self.law.submitted(Facts {
            task_id,
            number,
            task_type: text("task_type").expect("a type"),
            queue: text("queue").expect("a queue"),
            user: text("user_id"),
            labels,
            workflow_id: text("workflow_id").map(|id| id.parse().expect("an id")),
            depends,
            deleted: false,
            holds: HashSet::new(),
            held: HashSet::new(),
        });
    }

    async fn open(&mut self, at: usize, since: Option<(String, u64)>) {
        let token = self.callers[self.watchers[at].caller].token.clone();
        if !self.watchers[at].is_socket {
            let watcher = &self.watchers[at];
            let mut query = watcher.scope.query();
            query.extend(watcher.logs_of.map(|_| ("logs".to_owned(), "100".to_owned())));
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            let mut request = Request::get(format!("/api/v1/events?{query}"))
                .header(header::HOST, "localhost")
                .header(header::AUTHORIZATION, format!("Bearer {token}"));
            if let Some((epoch, rev)) = since {
                request = request.header("last-event-id", format!("{epoch}:{rev}"));
            }
            let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200, "{:?} watches {query}", self.callers[self.watchers[at].caller]);
            let body = response.into_body().into_data_stream();
            self.watchers[at].opened(Wire::Events { body: Mutex::new(body), text: Vec::new() });
            return;
        }
        let address = self.listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).await.expect("the hub listens");
        let (served, _) = self.listener.accept().await.expect("the one that has just come");
        served.set_nodelay(true).expect("a socket");
        let service = TowerToHyperService::new(self.router.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(served), service).with_upgrades());
        let mut request = "ws://localhost/api/v1/ws".into_client_request().unwrap();
        let says_hello = self.random.bool();
        if !says_hello {
            request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a handshake");
        self.watchers[at].opened(Wire::Socket(Box::new(socket)));
        self.watchers[at].begin(says_hello.then_some(&token), since).await;
    }

    fn pump(&mut self) {
        for watcher in &mut self.watchers {
            // Some read slowly.
            if self.random.u8(..3) > 0 {
                watcher.pump(&self.law, &self.callers, self.random.usize(1..8));
            }
        }
    }

    /// Everybody who may watch comes back, reads all that there is, and knows it.
    async fn converge(&mut self) {
        for at in 0..self.watchers.len() {
            let watcher = &self.watchers[at];
            if watcher.wire.is_none() && self.callers[watcher.caller].is_alive {
                let since = watcher.mark.clone().filter(|_| self.random.bool());
                self.open(at, since).await;
            }
        }
        let rev = self.hub.rev();
        let truth = self.truth().await;
        for at in 0..self.watchers.len() {
            let watcher = &self.watchers[at];
            if !self.callers[watcher.caller].is_alive {
                assert!(watcher.wire.is_none(), "its token was taken back: {}", watcher.story());
                continue;
            }
            let begun = Instant::now();
            while self.watchers[at].was.is_some() || !self.watchers[at].has_all(rev) {
                if self.watchers[at].is_lost() {
                    self.open(at, None).await;
                }
                let watcher = &mut self.watchers[at];
                let story = |watcher: &Watcher| format!("{:?}: {}", self.callers[watcher.caller], watcher.story());
                assert!(watcher.wire.is_some(), "it was closed, with {:?}: {}", watcher.code, story(watcher));
                let heard = tokio::time::timeout(PATIENCE / 4, watcher.next(&self.law, &self.callers)).await;
                assert!(heard.is_ok() && begun.elapsed() < PATIENCE / 2, "no mark {rev}: {}", story(watcher));
            }
            let watcher = &mut self.watchers[at];
            let who = &self.callers[watcher.caller];
            let own = watcher.caller;
            let is_meant = |facts: &&Facts| who.sees(own, facts) == Some(true) && watcher.scope.means(facts);
            let meant = self.law.tasks.iter().filter(is_meant).filter_map(|facts| truth.get(&facts.task_id));
            let expected: HashMap<TaskId, u64> = meant.map(|task| (task.task_id, task.rev)).collect();
            let picture = watcher.picture();
            let differs = |(task_id, rev): &(&TaskId, &u64)| picture.get(*task_id) != Some(*rev);
            let lacks: Vec<_> = expected.iter().filter(differs).collect();
            let has: Vec<_> = picture.iter().filter(|(task_id, _)| !expected.contains_key(task_id)).collect();
            assert!(lacks.is_empty() && has.is_empty(), "{who:?} lacks {lacks:?} and has {has:?}: {}", watcher.story());
            if let Some(task_id) = watcher.logs_of
                && expected.contains_key(&task_id)
            {
                let end = self.hub.log_ends(vec![task_id]).await.expect("its log")[0];
                while watcher.log_end < end {
                    let heard = tokio::time::timeout(PATIENCE / 4, watcher.next(&self.law, &self.callers)).await;
                    assert!(heard.is_ok(), "no log line {end}: {}", watcher.story());
                }
            }
        }
    }

    fn end(self) -> Counts {
        let mut counts = self.counts;
        self.watchers.iter().for_each(|watcher| counts.add(watcher.counts));
        counts
    }
}

pub async fn send(
    router: &Router,
    token: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    // What stands in the headers is told as well.
    let heads = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let text = String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    assert!(heads.is_empty() || text.contains(heads.rsplit('/').next().unwrap()), "{heads} {text}");
    Answer { status, text }
}
