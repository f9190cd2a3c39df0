//! Any interleaving of transitions, ticks, sending, slow readers and full pipes: what a client reads grows, marks are true, and in
//! the end every picture equals the board.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use futures::FutureExt;

use super::client::Client;
use super::delivery::Pipe;
use super::handle::LatestState;
use super::outbox::{OutboxLimits, Taken};
use super::sample::{id, task};
use super::shard::Pace;
use super::world::{Board, PACE, Room, World, filter, text};
use crate::task::{Filter, Status, TaskId};

/// What is known of a task: `rev`, `tick`, and its status unless it was deleted.
type Known = (u64, u64, Option<Status>);

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
    /// The newest of the board at the last snapshot.
    snapshot_rev: u64,
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
            snapshot_rev: 0,
            has_left: false,
        }
    }

    /// How often it lagged and was restarted, and how many lines flowed.
    fn met(&self) -> (u64, u64, u64) {
        (self.lagged, self.restarts, self.flowed)
    }

    /// Takes once; whether there was anything.
    fn read(&mut self, board: &Board, bytes_max: usize) -> bool {
        let rest = self.client.stop();
        let flowed = self.pipe.as_ref().map_or(Vec::new(), |pipe| pipe.lines(&rest));
        self.flowed += flowed.len() as u64;
        self.learn_lines(flowed, board);
        let mut out = Vec::new();
        let taken = self.client.take(&mut out, bytes_max);
        if taken == Taken::Overflowed {
            self.restarts += 1;
            self.client.restart();
            for name in self.subs.keys().cloned().collect::<Vec<_>>() {
                self.snapshot(&name, board);
            }
        }
        self.learn_lines(out, board);
        taken != Taken::Nothing
    }

    fn learn_lines(&mut self, lines: Vec<Bytes>, board: &Board) {
        for line in lines.into_iter().map(text) {
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
            let is_known = self.subs.values().any(|(_, view)| view.get(&task_id).is_some_and(|known| known.0 >= rev));
            // What a snapshot did not show any more was told to leave after it.
            let explained = is_known || rev <= self.snapshot_rev || self.has_left;
            assert!(status.is_some() || explained, "progress ahead of its record: {line}");
            let before = last.map_or(Some(Status::Running), |(_, _, status)| status);
            self.live.insert(task_id, (rev, tick, status.unwrap_or(before)));
            for (_, view) in self.subs.values_mut() {
                learn(view, task_id, rev, tick, status);
            }
        }
    }

    fn snapshot(&mut self, name: &str, board: &Board) {
        let (filter, view) = self.subs.get_mut(name).unwrap();
        view.clear();
        self.snapshot_rev = board.tasks.lock().values().map(|(task, _)| task.rev).max().unwrap_or(0);
        for (task, tick) in board.tasks.lock().values().filter(|(task, _)| filter.matches(task)) {
            learn(view, task.task_id, task.rev, *tick, Some(Some(task.status)));
        }
        self.client.release(name);
    }

    /// A client that resumes from a mark is sent what changed after it: all else must be known already.
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

/// Any interleaving of transitions, ticks, sending, slow readers and subscriptions that come and go: what a client reads grows,
/// marks are true, and in the end every picture equals the board.
#[test]
fn every_picture_converges() {
    let (mut lagged, mut restarts, mut flowed) = (0, 0, 0);
    for seed in 0..3_000 {
        let (l, r, f) = converge(seed);
        (lagged, restarts, flowed) = (lagged + l, restarts + r, flowed + f);
    }
    let met = format!("the test has to meet lag ({lagged}), overflow ({restarts}) and flow ({flowed})");
    assert!(lagged > 100 && restarts > 20 && flowed > 10_000, "{met}");
}

fn converge(seed: u64) -> (u64, u64, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let on_failure = PrintOnPanic(seed);
    let pace = Pace { pending_bytes_max: *random.choice(&[1, 150, 1_000, 32_000]).unwrap(), ..PACE };
    let mut world = World::with_pace(*random.choice(&[3, 20, 1_000]).unwrap(), pace);
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
    let attach = |world: &mut World, random: &mut fastrand::Rng| {
        let limits = OutboxLimits {
            len_max: random.usize(2..20),
            bytes_max: random.usize(100..2_000),
            collapsed_max: *random.choice(&[7, 1_000]).unwrap(),
        };
        let pipe = random.bool().then(Arc::<Room>::default);
        Reader::new(world.piped(limits, pipe.clone().map(|pipe| pipe as Arc<dyn Pipe>)), pipe)
    };
    let mut readers: Vec<Reader> = (0..4).map(|_| attach(&mut world, &mut random)).collect();
    let mut left = Vec::new();

    for _ in 0..random.usize(50..600) {
        let task_id = *random.choice(&ids).unwrap();
        let which = random.usize(..readers.len());
        let reader = &mut readers[which];
        if let Some(pipe) = &reader.pipe {
            pipe.bytes.lock().0 = *random.choice(&[0, 0, 50, 1_000]).unwrap();
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
                world.now += Duration::from_millis(*random.choice(&[0, 10, 100, 300]).unwrap());
                world.go_on(random.usize(..=4));
            }
            16..=17 => {
                let bytes_max = *random.choice(&[1, 100, 10_000]).unwrap();
                reader.read(&world.board, bytes_max);
                reader.client.flow();
            }
            18 if random.u8(..8) == 0 => {
                // Its slot is free for the next, whatever it was owed.
                let next = attach(&mut world, &mut random);
                left.push(std::mem::replace(reader, next).met());
            }
            18 => {
                reader.read(&world.board, random.usize(..=1));
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
                world.go_on(random.usize(..=1));
                assert!(done.now_or_never().is_some());
                reader.read(&world.board, 0);
                reader.check_mark(&world.board);
                if random.bool() {
                    let status = world.board.task(task_id).map(|task| task.status);
                    if status.is_none_or(|status| status.may_become(Status::Pending)) {
                        world.commit(task_id, Some(Status::Pending));
                        world.publish();
                        world.go_on(random.usize(..=4));
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
    left.extend(readers.iter().map(Reader::met));
    left.iter().fold((0, 0, 0), |(l, r, f), met| (l + met.0, r + met.1, f + met.2))
}

/// Says with which seed a run failed.
struct PrintOnPanic(u64);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        eprintln!("seed {}", self.0);
    }
}
