//! Clients that take less than there is to tell, against the server as it listens.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use taskhub::Hub;
use taskhub::config::ServeConfig;
use taskhub::engine::{Accepts, Report};
use taskhub::listen::Listen;
use taskhub::server::Server;
use taskhub::task::{Filter, FilterSpec, Name, NewTask, Pattern, PatternSet, Progress, Task, TaskId};

use super::found;
use super::ledger::Ledger;
use super::watcher::{Connection, Watcher};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the kernel is asked to hold for a client that reads slowly; it takes twice that.
const RECEIVE_BYTES: usize = 16 << 10;
/// What the server lets the kernel hold beyond that, at most, before it is full.
const UNSENT_BYTES: usize = 32 << 10;
/// The largest message of several lines, or nearly.
const MESSAGE_BYTES: usize = 32 << 10;
const QUEUES: usize = 10;

struct Setup {
    hub: Hub,
    address: SocketAddr,
    ledger: Ledger,
    _server: Server,
}

impl Setup {
    /// A hub with two hundred tasks in ten queues.
    async fn start(stall: Option<Duration>) -> Setup {
        let mut config = ServeConfig { lease: Duration::from_secs(3_600), ..ServeConfig::for_trial() };
        config.live.live_stall = stall.unwrap_or(config.live.live_stall);
        let server = Server::start(config).await.unwrap();
        let Listen::Tcp(address) = *server.address() else { panic!("a trial listens on TCP") };
        let hub = server.hub().clone();
        // Together much more than may be on its way to a client.
        let description = Some("x".repeat(1_500));
        let task = |n: usize| NewTask {
            queue: Some(format!("q{}", n % QUEUES)),
            description: description.clone(),
            ..NewTask::new("t")
        };
        let tasks = (0..200).map(task).collect();
        let submitted = hub.submit_all(tasks, None).await.unwrap();
        let mut ledger = Ledger::default();
        submitted.records.iter().for_each(|record| ledger.submitted(Task::parse(record).unwrap()));
        Setup { hub, address, ledger, _server: server }
    }

    fn connect(&self, watcher: &mut Watcher, receive_bytes: Option<usize>) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.connect(&self.address.into()).unwrap();
        let head = "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        watcher.opened(Connection::new(TcpStream::from(socket), head.to_owned()));
    }

    /// All of one queue begin, say how far they are, and are given back: forty transitions.
    async fn work(&self, round: usize) {
        let queue = Pattern::Exact(Name::new(&format!("q{}", round % QUEUES)));
        let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::new(vec![queue]) };
        let handed = self.hub.claim(Name::new("w"), accepts, 20, PATIENCE).await.unwrap();
        for handed in handed {
            let (task_id, attempt) = (handed.task.task_id, handed.task.attempt);
            self.hub.progress(task_id, attempt, Some(Progress::percent(round as f64 / 10.0)), None).await.unwrap();
            self.hub.report(task_id, attempt, Report::Release).await.unwrap();
        }
    }

    /// The watcher reads until it has all there is; then its picture is what the hub finds.
    async fn catch_up(&self, watcher: &mut Watcher) {
        let begun = Instant::now();
        let all = found(&self.hub, &Filter::default()).await;
        loop {
            while watcher.pump(1 << 16) {}
            let view = &watcher.subs["s1"];
            let has = |(task_id, task): (&TaskId, &serde_json::Value)| {
                view.known.get(task_id).is_some_and(|known| known.task.as_ref() == Some(task))
            };
            if watcher.has_all() && all.iter().all(has) && view.known.len() == all.len() {
                return;
            }
            assert!(watcher.connection.is_some(), "it was closed: {:?}", watcher.close_code);
            assert!(begun.elapsed() < PATIENCE, "it never has all; {}", watcher.said());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the watchers believed is true.
    async fn check(mut self, watchers: &mut [Watcher]) {
        watchers.iter_mut().for_each(|watcher| watcher.cut(None));
        let rev = self.hub.rev();
        for task_id in self.ledger.left().collect::<Vec<_>>() {
            let history = self.hub.history(task_id).await.unwrap().unwrap();
            self.ledger.learn(task_id, &history);
        }
        self.ledger.close(rev);
        for (_, _, belief) in watchers.iter().flat_map(|watcher| &watcher.beliefs) {
            self.ledger.check(belief).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}

fn watcher() -> Watcher {
    let mut watcher = Watcher::on_socket(fastrand::Rng::with_seed(1));
    watcher.subscribe(FilterSpec::default());
    watcher
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_little_stays_and_ends_with_the_newest_of_each_task() {
    let setup = Setup::start(None).await;
    let (mut slow, mut fast) = (watcher(), watcher());
    setup.connect(&mut slow, Some(RECEIVE_BYTES));
    setup.connect(&mut fast, None);
    setup.catch_up(&mut slow).await;
    setup.catch_up(&mut fast).await;
    // Each round is forty records, and the slow one takes two or three of them.
    for round in 0..150 {
        setup.work(round).await;
        slow.pump(1_000);
        while fast.pump(1 << 20) {}
    }
    assert!(slow.connection.is_some(), "closed with {:?}", slow.close_code);
    let newest: HashMap<TaskId, u64> = found(&setup.hub, &Filter::default())
        .await
        .into_iter()
        .map(|(task_id, task)| (task_id, task["rev"].as_u64().unwrap()))
        .collect();
    let told = slow.records.len();
    setup.catch_up(&mut slow).await;
    setup.catch_up(&mut fast).await;
    assert!(slow.counts.lags > 0 && slow.counts.resets == 0, "{:?}", slow.counts);
    assert_eq!(slow.counts.connections, 1);
    // What it still heard of the past was on its way already; all else was the newest of each task, once.
    let (mut stale_bytes, mut new) = (0, 0);
    for (task_id, rev, bytes) in &slow.records[told..] {
        if *rev < newest[task_id] {
            stale_bytes += bytes;
        } else {
            new += 1;
        }
    }
    let in_flight = 2 * RECEIVE_BYTES + 2 * UNSENT_BYTES + MESSAGE_BYTES;
    eprintln!("{stale_bytes} stale bytes of {in_flight}, {new} new records, {:?}", slow.counts);
    assert!(stale_bytes <= in_flight, "{stale_bytes} bytes were stale, and {in_flight} may be on their way");
    assert!(new <= 200, "{new} records that were the newest of 200 tasks");
    let told = (fast.records.len(), slow.records.len());
    assert!(told.0 > 2 * told.1, "the slow one was told less: {told:?}");
    setup.check(&mut [slow, fast]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_closed_and_resumes() {
    let stall = Duration::from_millis(500);
    let setup = Setup::start(Some(stall)).await;
    let (mut stuck, mut fast) = (watcher(), watcher());
    setup.connect(&mut stuck, Some(RECEIVE_BYTES));
    setup.connect(&mut fast, None);
    setup.catch_up(&mut stuck).await;
    setup.catch_up(&mut fast).await;
    let begun = Instant::now();
    let mut round = 0;
    while setup.hub.stats().sockets == Some(2) {
        setup.work(round).await;
        while fast.pump(1 << 20) {}
        round += 1;
        assert!(begun.elapsed() < PATIENCE, "it is never closed");
    }
    setup.catch_up(&mut fast).await;
    assert_eq!((fast.counts.connections, fast.counts.resets), (1, 0), "nobody else minds");
    while stuck.connection.is_some() {
        stuck.pump(1 << 16);
        assert!(begun.elapsed() < PATIENCE, "there is no end to what it is told");
    }
    stuck.retry();
    setup.connect(&mut stuck, None);
    setup.catch_up(&mut stuck).await;
    assert_eq!((stuck.counts.resumes, stuck.counts.resets), (1, 0), "it goes on where it was");

    // Whoever reads on in time hears why. When that is, only the hub knows: so it is tried at several times.
    let mut tries = 0;
    stuck.cut(None);
    while stuck.close_code != Some(4002) {
        stuck.retry();
        setup.connect(&mut stuck, Some(RECEIVE_BYTES));
        setup.catch_up(&mut stuck).await;
        for round in 0..20 {
            setup.work(round).await;
        }
        while fast.pump(1 << 20) {}
        tokio::time::sleep(stall + stall / 10 * (1 + tries % 9)).await;
        let begun = Instant::now();
        while stuck.connection.is_some() && begun.elapsed() < 2 * stall {
            stuck.pump(1 << 16);
        }
        stuck.cut(None);
        tries += 1;
        assert!(tries < 30, "it never hears why");
    }
    setup.catch_up(&mut fast).await;
    setup.check(&mut [stuck, fast]).await;
}
