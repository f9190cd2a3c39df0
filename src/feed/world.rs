//! A shard and all around it, driven by hand, for the tests of the feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;

use super::client::Client;
use super::delivery::Pipe;
use super::handle::{LatestState, Published, Tick};
use super::inbox::Inbox;
use super::logs::LogReaders;
use super::outbox::OutboxLimits;
use super::pacing::DirtyTicks;
use super::sample::task;
use super::send_queue::PENDING_BYTES_MAX;
use super::shard::{CLIENTS_AT_ONCE, Pace, Shard};
use crate::task::{ChangeKind, Event, Filter, FilterSpec, Status, Task, TaskId};

/// The board: what is committed, ahead of what the feed has matched.
#[derive(Default)]
pub struct Board {
    pub tasks: Mutex<BTreeMap<TaskId, (Arc<Task>, u64)>>,
}

impl LatestState for Board {
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
    pub fn step(&self, rev: u64, task_id: TaskId, status: Option<Status>) -> Published {
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

    pub fn tick(&self, task_id: TaskId) {
        self.tasks.lock().get_mut(&task_id).expect("only what exists ticks").1 += 1;
    }
}

/// A pipe that takes what there is room for; the room comes and goes.
#[derive(Default)]
pub struct Room {
    /// How many bytes more it takes, and those it took.
    pub bytes: Mutex<(usize, Vec<u8>)>,
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
    pub fn lines(&self, rest: &[u8]) -> Vec<Bytes> {
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

pub fn filter(json: &str) -> Arc<Filter> {
    Arc::new(serde_json::from_str::<FilterSpec>(json).unwrap().checked().unwrap())
}

pub const PACE: Pace = Pace { max_hz: 10.0, ping: Duration::from_secs(25), pending_bytes_max: PENDING_BYTES_MAX };

/// A shard and all around it, driven by hand.
pub struct World {
    pub board: Arc<Board>,
    pub inbox: Arc<Inbox>,
    pub dirty: Arc<DirtyTicks>,
    pub shard: Shard,
    pub log_readers: Arc<LogReaders>,
    pub now: Instant,
    pub rev: u64,
    /// Applied to the board, and not published yet.
    pub committed: Vec<Published>,
    pub clients_made: u64,
}

impl World {
    pub fn new(inbox_len_max: usize) -> World {
        World::with_pace(inbox_len_max, PACE)
    }

    pub fn with_pace(inbox_len_max: usize, pace: Pace) -> World {
        let (board, dirty) = (Arc::<Board>::default(), Arc::<DirtyTicks>::default());
        World {
            inbox: Arc::new(Inbox::new(inbox_len_max, inbox_len_max == 20, 0)),
            shard: Shard::new(0, 0, pace, board.clone(), Arc::new(()), dirty.clone(), Some(Arc::default())),
            board,
            dirty,
            log_readers: Arc::default(),
            now: Instant::now(),
            rev: 0,
            committed: Vec::new(),
            clients_made: 0,
        }
    }

    pub fn client(&mut self, limits: OutboxLimits) -> Client {
        self.piped(limits, None)
    }

    pub fn piped(&mut self, limits: OutboxLimits, pipe: Option<Arc<dyn Pipe>>) -> Client {
        self.clients_made += 1;
        Client::new(self.clients_made, 10.0, limits, pipe, self.inbox.clone(), self.log_readers.clone())
    }

    pub fn commit(&mut self, task_id: TaskId, status: Option<Status>) {
        self.rev += 1;
        self.committed.push(self.board.step(self.rev, task_id, status));
    }

    pub fn publish(&mut self) {
        if !self.committed.is_empty() {
            self.inbox.publish(&std::mem::take(&mut self.committed).into());
        }
    }

    pub fn tick(&mut self, task_id: TaskId) {
        self.board.tick(task_id);
        if self.dirty.set(task_id, 1) != 0 {
            self.inbox.tick(task_id);
        }
    }

    /// What [`run`](super::shard::run) does each time, with so many clients sent to.
    pub fn go_on(&mut self, clients: usize) {
        let mut waiting = self.shard.take(self.now, &self.inbox).unwrap();
        let mut going = std::pin::pin!(self.shard.go_on(&mut waiting, clients, self.now, &self.inbox));
        while going.as_mut().now_or_never().is_none() {}
    }

    /// Until there is nothing to do.
    pub fn until_delivered(&mut self) {
        self.go_on(CLIENTS_AT_ONCE);
        while self.shard.is_busy() {
            self.go_on(CLIENTS_AT_ONCE);
        }
    }

    pub fn after_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.until_delivered();
    }
}

pub fn text(line: Bytes) -> String {
    String::from_utf8(line.to_vec()).unwrap()
}
