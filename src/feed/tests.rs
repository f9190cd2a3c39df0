//! The promises of the feed as a whole: a shard, its clients, and a board that is ahead of them, driven by hand with any
//! interleaving; and a few rounds of the real futures.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;

use super::cell::{End, Pipe};
use super::client::Client;
use super::handle::{Feed, FeedOptions, Published, Tick, Truth};
use super::inbox::Inbox;
use super::index::Scope;
use super::logs::LogReaders;
use super::outbox::{OutboxLimits, Taken};
use super::pulses::Pulses;
use super::sample::{id, task};
use super::shard::{Pace, Shard};
use crate::task::{ChangeKind, Event, Filter, FilterSpec, Level, LogLine, Status, Task, TaskId, Timestamp};

/// The board: what is committed, ahead of what the feed has told.
#[derive(Default)]
struct Board {
    tasks: Mutex<BTreeMap<TaskId, (Arc<Task>, u64)>>,
}

impl Truth for Board {
    fn task(&self, task_id: TaskId) -> Option<Arc<Task>> {
        Some(self.tasks.lock().get(&task_id)?.0.clone())
    }

    fn progress(&self, task_id: TaskId) -> Option<Tick> {
        let tasks = self.tasks.lock();
        let (task, tick) = tasks.get(&task_id)?;
        let line = format!("p {task_id} {} {tick}", task.rev).into();
        (task.status == Status::Running && *tick > 0).then_some(Tick { rev: task.rev, tick: *tick, line })
    }
}

impl Board {
    /// Applies a step, and gives what is to be published.
    fn step(&self, rev: u64, task_id: TaskId, status: Option<Status>) -> Published {
        let mut tasks = self.tasks.lock();
        let prev = tasks.get(&task_id).map(|(task, _)| task.clone());
        let (task, kind, line) = match status {
            Some(status) => {
                let next = Arc::new(Task { rev, ..task(task_id, status) });
                tasks.insert(task_id, (next.clone(), 0));
                (next, ChangeKind::Transition(Event::Pending), format!("t {task_id} {rev} {status}"))
            }
            None => {
                let last = tasks.remove(&task_id).expect("only what exists is deleted").0;
                (last, ChangeKind::Gone, format!("g {task_id} {rev}"))
            }
        };
        Published { rev, kind, task, prev, line: line.into() }
    }

    fn tick(&self, task_id: TaskId) {
        self.tasks.lock().get_mut(&task_id).expect("only what exists ticks").1 += 1;
    }
}

fn filter(json: &str) -> Arc<Filter> {
    Arc::new(serde_json::from_str::<FilterSpec>(json).unwrap().checked().unwrap())
}

const PACE: Pace = Pace { max_hz: 10.0, ping: Duration::from_secs(25) };

/// A shard and all around it, driven by hand.
struct World {
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    pulses: Arc<Pulses>,
    shard: Shard,
    log_readers: Arc<LogReaders>,
    now: Instant,
    rev: u64,
    /// Applied to the board, and not published yet.
    committed: Vec<Published>,
    clients_made: u64,
}

impl World {
    fn new(inbox_len_max: usize) -> World {
        let (board, pulses) = (Arc::<Board>::default(), Arc::<Pulses>::default());
        World {
            inbox: Arc::new(Inbox::new(inbox_len_max, inbox_len_max == 20, 0)),
            shard: Shard::new(0, 0, PACE, board.clone(), Arc::new(()), pulses.clone(), Some(Arc::default())),
            board,
            pulses,
            log_readers: Arc::default(),
            now: Instant::now(),
            rev: 0,
            committed: Vec::new(),
            clients_made: 0,
        }
    }

    fn client(&mut self, limits: OutboxLimits) -> Client {
        self.piped(limits, None)
    }

    fn piped(&mut self, limits: OutboxLimits, pipe: Option<Arc<dyn Pipe>>) -> Client {
        self.clients_made += 1;
        Client::new(self.clients_made, Scope::All, 10.0, limits, pipe, self.inbox.clone(), self.log_readers.clone())
    }

    fn commit(&mut self, task_id: TaskId, status: Option<Status>) {
        self.rev += 1;
        self.committed.push(self.board.step(self.rev, task_id, status));
    }

    fn publish(&mut self) {
        if !self.committed.is_empty() {
            self.inbox.publish(&std::mem::take(&mut self.committed).into());
        }
    }

    fn tick(&mut self, task_id: TaskId) {
        self.board.tick(task_id);
        if self.pulses.set(task_id, 1) != 0 {
            self.inbox.tick(task_id);
        }
    }

    /// What [`run`](super::shard::run) does each time it wakes.
    fn sweep(&mut self) {
        let mut waiting = self.inbox.take().unwrap();
        let mut round = std::pin::pin!(self.shard.round(&mut waiting, self.now, &self.inbox));
        while round.as_mut().now_or_never().is_none() {}
        self.inbox.set_idle();
    }

    fn after_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.sweep();
    }
}

fn take(client: &mut Client) -> Vec<String> {
    let mut out = Vec::new();
    client.take(&mut out, 1 << 30);
    out.into_iter().map(text).collect()
}

fn text(line: Bytes) -> String {
    String::from_utf8(line.to_vec()).unwrap()
}

fn subscribe(world: &mut World, client: &mut Client, json: &str, max_hz: Option<f64>) {
    let done = client.ask_to_subscribe("a", filter(json), max_hz, false);
    world.sweep();
    assert!(done.now_or_never().is_some(), "answered in the next sweep");
    client.release("a");
}

#[test]
fn progress_is_paced_and_its_last_tick_told() {
    let mut world = World::new(100);
    let mut client = world.client(OutboxLimits::default());
    let mut slow = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", None);
    subscribe(&mut world, &mut slow, "{}", Some(2.0));
    world.commit(id(1), Some(Status::Running));
    world.publish();
    world.sweep();
    assert_eq!((take(&mut client).len(), take(&mut slow).len()), (1, 1));

    let (mut told, mut told_slowly) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        for _ in 0..100 {
            world.tick(id(1));
        }
        world.after_ms(1);
        told.extend(take(&mut client));
        told_slowly.extend(take(&mut slow));
    }
    world.after_ms(500);
    told.extend(take(&mut client));
    told_slowly.extend(take(&mut slow));
    assert_eq!(told.len(), 11, "one at once, then one every 100 ms");
    assert_eq!(told_slowly.len(), 3, "one at once, then one every 500 ms");
    let last = format!("p {} 1 100000", id(1));
    assert_eq!((told.last(), told_slowly.last()), (Some(&last), Some(&last)));
}

#[test]
fn a_flood_of_ticks_leaves_one_note() {
    let mut world = World::new(100);
    world.commit(id(1), Some(Status::Running));
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", None);
    for _ in 0..100_000 {
        world.tick(id(1));
    }
    assert_eq!(world.inbox.take().unwrap().ticks.len(), 1);
}

#[test]
fn a_tick_never_overtakes_the_transition_it_follows() {
    let mut world = World::new(100);
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", None);
    world.commit(id(1), Some(Status::Running));
    world.tick(id(1));
    world.sweep();
    assert_eq!(take(&mut client), [""; 0], "the board is ahead of the feed");
    world.publish();
    world.sweep();
    assert_eq!(take(&mut client), [format!("t {} 1 running", id(1)), format!("p {} 1 1", id(1))]);
}

#[test]
fn no_progress_follows_a_final_record() {
    let mut world = World::new(100);
    let (mut client, mut slow) = (world.client(OutboxLimits::default()), world.client(OutboxLimits::default()));
    subscribe(&mut world, &mut client, "{}", None);
    subscribe(&mut world, &mut slow, "{}", Some(1.0));
    world.commit(id(1), Some(Status::Running));
    world.publish();
    for _ in 0..3 {
        world.tick(id(1));
        world.after_ms(150);
    }
    world.tick(id(1));
    world.commit(id(1), Some(Status::Completed));
    world.publish();
    world.after_ms(5_000);
    world.after_ms(100);
    for client in [&mut client, &mut slow] {
        let lines = take(client);
        assert_eq!(lines.last().unwrap(), &format!("t {} 2 completed", id(1)));
        assert_eq!(lines.iter().filter(|line| line.starts_with('p')).count(), 0, "{lines:?}");
    }
    assert_eq!(world.pulses.len(), 0, "nothing is kept of a task that ended");
    assert_eq!(world.shard.next_at(), None);
}

#[test]
fn nothing_is_left_of_a_client_that_went() {
    let mut world = World::new(100);
    let mut client = world.client(OutboxLimits::default());
    subscribe(&mut world, &mut client, "{}", Some(1.0));
    world.commit(id(1), Some(Status::Running));
    world.publish();
    world.tick(id(1));
    world.tick(id(1));
    world.sweep();
    drop(client);
    world.after_ms(100);
    let mut next = world.client(OutboxLimits::default());
    world.after_ms(5_000);
    world.commit(id(1), Some(Status::Completed));
    world.publish();
    world.sweep();
    assert_eq!(take(&mut next), [""; 0], "the next one in this seat has no subscription");
    drop(next);
    assert!(!world.inbox.has_clients());
}

/// What is known of a task: `rev`, `tick`, and its status unless it was deleted.
type Known = (u64, u64, Option<Status>);

/// A pipe that takes what there is room for; the room comes and goes.
#[derive(Default)]
struct Room {
    bytes: Mutex<(usize, Vec<u8>)>,
}

impl Pipe for Room {
    fn write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        let (room, taken) = &mut *self.bytes.lock();
        let len = bytes.len().min(*room);
        *room -= len;
        taken.extend_from_slice(&bytes[..len]);
        if len == 0 { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }
}

impl Room {
    /// The lines of the whole frames that came through, and of `rest` behind them.
    fn lines(&self, rest: &[u8]) -> Vec<Bytes> {
        let (_, taken) = &mut *self.bytes.lock();
        taken.extend_from_slice(rest);
        let mut lines = Vec::new();
        while let [first, short, long @ ..] = &taken[..] {
            let (head, len) = match *short {
                126 if long.len() >= 2 => (4, usize::from(u16::from_be_bytes([long[0], long[1]]))),
                126 => break,
                short => (2, usize::from(short)),
            };
            if taken.len() < head + len {
                break;
            }
            if *first == 0x81 {
                lines.extend(taken[head..head + len].split(|byte| *byte == b'\n').map(Bytes::copy_from_slice));
            } else {
                assert_eq!((*first, len), (0x89, 0), "a ping is all else that is said");
            }
            taken.drain(..head + len);
        }
        assert!(rest.is_empty() || taken.is_empty(), "what is left of a message completes it");
        lines
    }
}

/// A client that follows the contract: what is not above the (`rev`, `tick`) known of a task is ignored, and what a
/// subscription shows begins with its snapshot.
struct Reader {
    client: Client,
    pipe: Option<Arc<Room>>,
    flowed: u64,
    subs: BTreeMap<String, (Arc<Filter>, BTreeMap<TaskId, Known>)>,
    /// The last live line of each task.
    live: HashMap<TaskId, Known>,
    marked: u64,
    lagged: u64,
    restarts: u64,
    /// Whether it ever ended a subscription.
    has_left: bool,
}

impl Reader {
    fn new(client: Client, pipe: Option<Arc<Room>>) -> Reader {
        Reader {
            client,
            pipe,
            flowed: 0,
            subs: BTreeMap::new(),
            live: HashMap::new(),
            marked: 0,
            lagged: 0,
            restarts: 0,
            has_left: false,
        }
    }

    /// Takes once; whether there was anything.
    fn read(&mut self, board: &Board, bytes_max: usize) -> bool {
        let rest = self.client.stop();
        let mut out = self.pipe.as_ref().map_or(Vec::new(), |pipe| pipe.lines(&rest));
        self.flowed += out.len() as u64;
        let taken = self.client.take(&mut out, bytes_max);
        if taken == Taken::Overflowed {
            self.restarts += 1;
            self.client.restart();
            for name in self.subs.keys().cloned().collect::<Vec<_>>() {
                self.snapshot(&name, board);
            }
        }
        for line in out.into_iter().map(text) {
            let words: Vec<&str> = line.split(' ').collect();
            if let Some(mark) = line.strip_prefix(r#"{"type":"mark","rev":"#) {
                self.learn_mark(mark.strip_suffix('}').unwrap().parse().unwrap(), board);
                continue;
            }
            if words[0].starts_with('{') {
                assert!(line.starts_with(r#"{"type":"lag","collapsed":"#), "{line}");
                self.lagged += 1;
                continue;
            }
            let task_id: TaskId = words[1].parse().unwrap();
            let rev: u64 = words[2].parse().unwrap();
            let (tick, status) = match words[0] {
                "t" => (0, Some(Status::parse(words[3]))),
                "g" => (0, Some(None)),
                "p" => (words[3].parse().unwrap(), None),
                _ => panic!("{line}"),
            };
            let last = self.live.get(&task_id).copied();
            if let Some((last_rev, last_tick, last)) = last {
                assert!((rev, tick) > (last_rev, last_tick), "{line} after {last_rev} {last_tick} {last:?}");
            }
            let explained = self.subs.values().any(|(_, view)| view.get(&task_id).is_some_and(|known| known.0 >= rev));
            assert!(status.is_some() || explained || self.has_left, "progress ahead of its record: {line}");
            let before = last.map_or(Some(Status::Running), |(_, _, status)| status);
            self.live.insert(task_id, (rev, tick, status.unwrap_or(before)));
            for (_, view) in self.subs.values_mut() {
                learn(view, task_id, rev, tick, status);
            }
        }
        taken != Taken::Nothing
    }

    fn snapshot(&mut self, name: &str, board: &Board) {
        let (filter, view) = self.subs.get_mut(name).unwrap();
        view.clear();
        for (task, tick) in board.tasks.lock().values().filter(|(task, _)| filter.matches(task)) {
            learn(view, task.task_id, task.rev, *tick, Some(Some(task.status)));
        }
        self.client.release(name);
    }

    /// Whoever resumes from a mark is sent what changed after it: all else must be known already.
    fn check_mark(&mut self, board: &Board) {
        let mark = self.client.mark();
        self.learn_mark(mark, board);
    }

    fn learn_mark(&mut self, mark: u64, board: &Board) {
        assert!(mark >= self.marked);
        self.marked = mark;
        for (filter, view) in self.subs.values() {
            for (task, _) in board.tasks.lock().values().filter(|(task, _)| task.rev <= mark && filter.matches(task)) {
                let known = view.get(&task.task_id).map(|(rev, _, status)| (*rev, *status));
                assert_eq!(known, Some((task.rev, Some(task.status))), "{} at mark {mark}", task.task_id);
            }
        }
    }

    /// Everything was read: each view is what the board says.
    fn check_end(&self, board: &Board) {
        let tasks = board.tasks.lock();
        for (filter, view) in self.subs.values() {
            let meant = |id: TaskId, status: Option<Status>| status.is_some_and(|s| filter.matches(&task(id, s)));
            let known: BTreeMap<TaskId, Known> =
                view.iter().filter(|(id, known)| meant(**id, known.2)).map(|(id, known)| (*id, *known)).collect();
            let expected: BTreeMap<TaskId, Known> = tasks
                .values()
                .filter(|(task, _)| filter.matches(task))
                .map(|(task, tick)| (task.task_id, (task.rev, *tick, Some(task.status))))
                .collect();
            assert_eq!(known, expected);
        }
    }
}

fn learn(view: &mut BTreeMap<TaskId, Known>, task_id: TaskId, rev: u64, tick: u64, status: Option<Option<Status>>) {
    let known = view.get(&task_id).copied();
    if known.is_none_or(|(r, t, _)| (rev, tick) > (r, t))
        && let Some(status) = status.or(known.map(|(_, _, status)| status))
    {
        view.insert(task_id, (rev, tick, status));
    }
}

/// Any interleaving of steps, ticks, sweeps, slow readers and subscriptions that come and go: what a client reads grows,
/// marks are true, and in the end every picture equals the board.
#[test]
fn every_picture_converges() {
    let (mut lagged, mut restarts, mut flowed) = (0, 0, 0);
    for seed in 0..1_000 {
        let (l, r, f) = converge(seed);
        (lagged, restarts, flowed) = (lagged + l, restarts + r, flowed + f);
    }
    let met = format!("the test has to meet lag ({lagged}), overflow ({restarts}) and flow ({flowed})");
    assert!(lagged > 100 && restarts > 20 && flowed > 10_000, "{met}");
}

fn converge(seed: u64) -> (u64, u64, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let on_failure = PrintOnPanic(seed);
    let mut world = World::new(*random.choice(&[3, 20, 1_000]).unwrap());
    let ids: Vec<TaskId> = (0..12).map(id).collect();
    let filters: Vec<Arc<Filter>> = [
        "{}".to_owned(),
        r#"{"status":["running"]}"#.to_owned(),
        r#"{"status":["completed","failed"],"task_type":["t*"]}"#.to_owned(),
        format!(r#"{{"task_id":["{}","{}"]}}"#, ids[0], ids[1]),
        r#"{"queue":["default"]}"#.to_owned(),
    ]
    .iter()
    .map(|json| filter(json))
    .collect();
    let mut readers: Vec<Reader> = (0..4)
        .map(|_| {
            let limits = OutboxLimits {
                len_max: random.usize(2..20),
                bytes_max: random.usize(100..2_000),
                collapsed_max: *random.choice(&[7, 1_000]).unwrap(),
            };
            let pipe = random.bool().then(Arc::<Room>::default);
            Reader::new(world.piped(limits, pipe.clone().map(|pipe| pipe as Arc<dyn Pipe>)), pipe)
        })
        .collect();

    for _ in 0..random.usize(50..600) {
        let task_id = *random.choice(&ids).unwrap();
        let which = random.usize(..readers.len());
        let reader = &mut readers[which];
        if let Some(pipe) = &reader.pipe {
            pipe.bytes.lock().0 += *random.choice(&[0, 0, 50, 1_000]).unwrap();
        }
        match random.u32(0..20) {
            0..=6 => {
                let status = world.board.task(task_id).map(|task| task.status);
                let next: Vec<Option<Status>> = match status {
                    None => vec![Some(Status::Pending), Some(Status::Scheduled)],
                    Some(status) => {
                        let mut next: Vec<_> =
                            Status::ALL.into_iter().filter(|next| status.may_become(*next)).map(Some).collect();
                        next.extend(status.is_final().then_some(None));
                        next
                    }
                };
                world.commit(task_id, *random.choice(&next).unwrap());
            }
            7..=9 => world.publish(),
            10..=13 => {
                if world.board.task(task_id).is_some_and(|task| task.status == Status::Running) {
                    world.tick(task_id);
                }
            }
            14..=15 => {
                let ms = *random.choice(&[0, 10, 100, 300]).unwrap();
                world.after_ms(ms);
            }
            16..=17 => {
                let bytes_max = *random.choice(&[1, 100, 10_000]).unwrap();
                reader.read(&world.board, bytes_max);
                reader.client.flow();
            }
            18 => {
                reader.read(&world.board, 1);
                reader.check_mark(&world.board);
            }
            _ => {
                let name = random.u32(..2).to_string();
                if reader.subs.remove(&name).is_some() {
                    reader.client.unsubscribe(&name);
                    reader.has_left = true;
                    continue;
                }
                let filter = random.choice(&filters).unwrap().clone();
                let done = reader.client.ask_to_subscribe(&name, filter.clone(), random.bool().then_some(2.0), false);
                world.sweep();
                assert!(done.now_or_never().is_some());
                if random.bool() {
                    let status = world.board.task(task_id).map(|task| task.status);
                    if status.is_none_or(|status| status.may_become(Status::Pending)) {
                        world.commit(task_id, Some(Status::Pending));
                        world.publish();
                        world.sweep();
                    }
                }
                while reader.read(&world.board, 100) {}
                reader.subs.insert(name.clone(), (filter, BTreeMap::new()));
                reader.snapshot(&name, &world.board);
            }
        }
    }

    world.publish();
    for _ in 0..3 {
        world.after_ms(1_000);
    }
    for reader in &mut readers {
        while reader.read(&world.board, 50) {}
        assert_eq!(reader.client.flow(), reader.pipe.is_some(), "all was taken");
        reader.check_mark(&world.board);
        assert_eq!(reader.marked, world.rev, "all was taken, so the mark is the newest");
        reader.check_end(&world.board);
    }
    std::mem::forget(on_failure);
    let sum = |count: fn(&Reader) -> u64| readers.iter().map(count).sum();
    (sum(|reader| reader.lagged), sum(|reader| reader.restarts), sum(|reader| reader.flowed))
}

struct PrintOnPanic(u64);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        eprintln!("seed {}", self.0);
    }
}

/// Waits for lines of the real feed; a minute is the bound of a test that hangs, not a time anything should take.
async fn next_lines(client: &mut Client) -> Vec<String> {
    tokio::time::timeout(Duration::from_secs(60), client.ready()).await.expect("lines come");
    take(client)
}

fn logs<const N: usize>(feed: &Feed, task_id: TaskId, lines: [LogLine; N]) {
    feed.logs(task_id, &lines.into());
    feed.tell_logs();
}

fn log_line(seq: u64) -> LogLine {
    LogLine { seq, at: Timestamp::from_millis(0), attempt: 1, level: Level::Info, message: format!("line {seq}") }
}

#[tokio::test]
async fn the_futures_deliver_what_a_plain_thread_publishes() {
    let board = Arc::<Board>::default();
    let feed = Feed::start(board.clone(), Arc::new(()), 0, FeedOptions { shards: 3, ..FeedOptions::default() });
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = feed.attach(Scope::All, None);
        client.subscribe("all", filter("{}"), None, false).await;
        client.release("all");
        clients.push(client);
    }
    let mut watch = feed.watch(id(1));
    let publisher = feed.clone();
    let truth = board.clone();
    std::thread::spawn(move || {
        publisher.publish([truth.step(1, id(1), Some(Status::Running))].into());
        truth.tick(id(1));
        publisher.tick(id(1));
    })
    .join()
    .unwrap();
    assert_eq!(feed.published_rev(), 1);
    tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.expect("the watch hears of it");
    for client in &mut clients {
        let mut lines = next_lines(client).await;
        while lines.len() < 2 {
            lines.extend(next_lines(client).await);
        }
        assert_eq!(lines, [format!("t {} 1 running", id(1)), format!("p {} 1 1", id(1))]);
        assert_eq!(client.mark(), 1);
    }
}

#[tokio::test]
async fn held_lines_wait_for_the_snapshot() {
    let board = Arc::<Board>::default();
    let feed = Feed::start(board.clone(), Arc::new(()), 0, FeedOptions::default());
    let mut client = feed.attach(Scope::All, None);
    client.subscribe("a", filter("{}"), None, false).await;
    client.subscribe("b", filter("{}"), None, false).await;
    client.release("a");
    feed.publish([board.step(1, id(1), Some(Status::Pending))].into());
    let mut watch = feed.attach(Scope::All, None);
    // Whatever is published before an answer is handed over after it, and before the next one.
    watch.subscribe("x", filter("{}"), None, false).await;
    watch.subscribe("y", filter("{}"), None, false).await;
    assert!(client.ready().now_or_never().is_none());
    client.release("b");
    assert_eq!(next_lines(&mut client).await.len(), 1);
    assert!(client.unsubscribe("a") && !client.unsubscribe("a"));
}

#[tokio::test]
async fn logs_go_to_those_who_may_read_them() {
    let board = Arc::<Board>::default();
    let feed = Feed::start(board.clone(), Arc::new(()), 0, FeedOptions::default());
    board.step(1, id(1), Some(Status::Running));
    let by_id = filter(&format!(r#"{{"task_id":["{}"]}}"#, id(1)));
    let wrong_type = filter(&format!(r#"{{"task_id":["{}"],"task_type":["other"]}}"#, id(1)));
    let (mut reader, mut other, mut stranger) = (
        feed.attach(Scope::All, None),
        feed.attach(Scope::All, None),
        feed.attach(Scope::User(crate::task::Name::new("ann")), None),
    );
    reader.subscribe("a", by_id.clone(), None, true).await;
    reader.subscribe("b", by_id.clone(), None, true).await;
    other.subscribe("a", wrong_type, None, true).await;
    stranger.subscribe("a", by_id.clone(), None, true).await;
    for client in [&mut reader, &mut other, &mut stranger] {
        client.release("a");
    }
    logs(&feed, id(1), [log_line(1), log_line(2)]);
    logs(&feed, id(1), [log_line(3)]);
    logs(&feed, id(2), [log_line(1)]);
    reader.logs_known(id(1), 2);
    reader.release("b");
    // Written before the hub was read, and told only now.
    logs(&feed, id(1), [log_line(2)]);
    let lines = next_lines(&mut reader).await;
    assert_eq!(lines.len(), 1, "once, though two subscriptions ask: {lines:?}");
    assert!(lines[0].starts_with(&format!(r#"{{"type":"log","task_id":"{}","lines":[{{"seq":3,"#, id(1))), "{lines:?}");
    assert!(other.ready().now_or_never().is_none() && stranger.ready().now_or_never().is_none());
    reader.unsubscribe("a");
    drop(reader);
    logs(&feed, id(1), [log_line(4)]);
}

/// A board that cannot be asked about one task.
struct Trap;

impl Truth for Trap {
    fn task(&self, task_id: TaskId) -> Option<Arc<Task>> {
        assert_ne!(task_id, id(13), "this is the failure that the test is about");
        None
    }

    fn progress(&self, _: TaskId) -> Option<Tick> {
        None
    }
}

#[tokio::test]
async fn a_shard_that_fails_sends_its_clients_away_and_goes_on() {
    let feed = Feed::start(Arc::new(Trap), Arc::new(()), 0, FeedOptions { shards: 1, ..FeedOptions::default() });
    let mut client = feed.attach(Scope::All, None);
    client.subscribe("a", filter("{}"), None, false).await;
    client.release("a");
    feed.tick(id(13));
    tokio::time::timeout(Duration::from_secs(60), client.ready()).await.expect("it is told");
    assert_eq!(client.end(), Some(End::Lost));
    drop(client);
    let mut next = feed.attach(Scope::All, None);
    next.subscribe("a", filter("{}"), None, false).await;
    next.release("a");
    feed.publish([Board::default().step(1, id(1), Some(Status::Pending))].into());
    assert_eq!(next_lines(&mut next).await.len(), 1);
    assert_eq!((next.mark(), next.end()), (1, None));
}

#[tokio::test]
async fn a_feed_that_stopped_answers() {
    let feed = Feed::start(Arc::<Board>::default(), Arc::new(()), 0, FeedOptions::default());
    let mut client = feed.attach(Scope::All, None);
    drop(feed);
    client.subscribe("a", filter("{}"), None, false).await;
}
