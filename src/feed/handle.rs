//! The handle of the feed: the hub publishes to it, and routes attach clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::client::Client;
use super::delivery::Pipe;
use super::inbox::{INBOX_LEN_MAX, Inbox, Op};
use super::index::States;
use super::logs::LogReaders;
use super::outbox::OutboxLimits;
use super::pacing::{DirtyTicks, SHARDS_MAX};
use super::send_queue::{Delivered, PENDING_BYTES_MAX};
use super::shard::{self, Pace, Shard};
use super::watch::{Watch, Watches};
use crate::task::{ChangeKind, LogLine, Task, TaskId};

/// The newest committed state, read by the shards when they are about to send something. Must not block.
pub trait LatestState: Send + Sync {
    /// The record of a task that runs, or ran a moment ago.
    fn task(&self, task_id: TaskId) -> Option<Arc<Task>>;

    /// The newest tick of a running task, if it has one.
    fn progress(&self, task_id: TaskId) -> Option<Tick>;
}

/// Counts what the shards do.
pub trait Meter: Send + Sync {
    /// This much was written by a shard.
    fn written(&self, delivered: Delivered);
    /// A commit was handed to all of a shard's clients this long after it was published.
    fn delivered_after(&self, shard: usize, lag: Duration);
}

/// Counts nothing.
impl Meter for () {
    fn written(&self, _: Delivered) {}
    fn delivered_after(&self, _: usize, _: Duration) {}
}

/// A progress tick, ready to be sent.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Of the transition it follows.
    pub rev: u64,
    pub tick: u64,
    /// The whole `progress` message, without a newline.
    pub line: Bytes,
}

/// A transition or a deletion, ready to be sent.
#[derive(Clone, Debug)]
pub struct Published {
    pub rev: u64,
    pub kind: ChangeKind,
    /// The new record; of a deleted task the last one.
    pub task: Arc<Task>,
    /// The record before, unless the task is new.
    pub prev: Option<Arc<Task>>,
    /// The whole `task` or `gone` message, without a newline.
    pub line: Bytes,
}

impl Published {
    pub(super) fn states(&self) -> States {
        States::of(self.prev.as_deref(), &self.task)
    }
}

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    /// Futures among which the clients are shared out, 1–64; by default one a core.
    pub shards: usize,
    /// The most progress ticks of one task that a client is sent in a second.
    pub max_hz: f64,
    /// How often a client with a pipe is sent a ping and a mark.
    pub ping: Duration,
    /// Over how long goodbyes are spread, so that not all clients come back at once.
    pub goodbye: Duration,
    pub outbox: OutboxLimits,
    /// Transitions that wait in order for one shard; beyond, they are merged.
    pub inbox_len_max: usize,
}

impl Default for FeedOptions {
    fn default() -> FeedOptions {
        FeedOptions {
            shards: std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(SHARDS_MAX),
            max_hz: 10.0,
            ping: Duration::from_secs(25),
            goodbye: Duration::from_secs(2),
            outbox: OutboxLimits::default(),
            inbox_len_max: INBOX_LEN_MAX,
        }
    }
}

/// The feed. Clones are the same feed; with the last one its shards stop, and what was not sent by then is not sent.
#[derive(Clone)]
pub struct Feed {
    parts: Arc<Parts>,
}

struct Parts {
    options: FeedOptions,
    latest: Arc<dyn LatestState>,
    inboxes: Box<[Arc<Inbox>]>,
    dirty: Arc<DirtyTicks>,
    watches: Arc<Watches>,
    log_readers: Arc<LogReaders>,
    clients_made: AtomicU64,
    published_rev: AtomicU64,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.inboxes.iter().for_each(|inbox| inbox.close());
        self.log_readers.close();
    }
}

impl Feed {
    /// Starts the shards on the runtime this is called in. `rev` is the last one of the history so far.
    pub fn start(latest: Arc<dyn LatestState>, meter: Arc<dyn Meter>, rev: u64, options: FeedOptions) -> Feed {
        let shards = options.shards.clamp(1, SHARDS_MAX);
        // The first shard notifies the watches, so it looks at every commit, also without clients.
        let inbox = |number| Arc::new(Inbox::new(options.inbox_len_max, number > 0, rev));
        let inboxes = (0..shards).map(inbox).collect::<Box<[_]>>();
        let (dirty, watches) = (Arc::<DirtyTicks>::default(), Arc::<Watches>::default());
        for (number, inbox) in inboxes.iter().enumerate() {
            let watches = (number == 0).then(|| watches.clone());
            let pace = Pace { max_hz: options.max_hz, ping: options.ping, pending_bytes_max: PENDING_BYTES_MAX };
            let shard = Shard::new(number, rev, pace, latest.clone(), meter.clone(), dirty.clone(), watches);
            tokio::spawn(shard::run(shard, inbox.clone()));
        }
        let log_readers = Arc::<LogReaders>::default();
        tokio::spawn(log_readers.clone().run());
        let parts = Parts {
            options,
            latest,
            inboxes,
            dirty,
            watches,
            log_readers,
            clients_made: AtomicU64::new(0),
            published_rev: AtomicU64::new(rev),
        };
        Feed { parts: Arc::new(parts) }
    }

    /// Publishes what was committed, in order of `rev` without holes, after the [`LatestState`] knows it. Never waits.
    pub fn publish(&self, batch: Arc<[Published]>) {
        let Some(last) = batch.last() else { return };
        self.parts.inboxes.iter().for_each(|inbox| inbox.publish(&batch));
        self.parts.published_rev.store(last.rev, Ordering::Release);
    }

    /// A running task has a new tick, and the [`LatestState`] knows it. Never waits; meant to be called for every tick.
    pub fn tick(&self, task_id: TaskId) {
        let parts = &*self.parts;
        let listening = parts.inboxes.iter().enumerate().filter(|(_, inbox)| inbox.has_clients());
        let listening = listening.fold(0u64, |bits, (number, _)| bits | 1 << number);
        if listening == 0 {
            return;
        }
        let mut news = parts.dirty.set(task_id, listening);
        while news != 0 {
            parts.inboxes[news.trailing_zeros() as usize].tick(task_id);
            news &= news - 1;
        }
    }

    /// A task wrote lines, oldest first. Costs a look-up where no client reads its log, and never more than a note.
    pub fn logs(&self, task_id: TaskId, lines: &Arc<[LogLine]>) {
        self.parts.log_readers.note(task_id, lines, || self.parts.latest.task(task_id));
    }

    /// A new reader. One with a `pipe` may let the feed write by itself, see
    /// [`Client::flow`].
    pub fn attach(&self, pipe: Option<Arc<dyn Pipe>>) -> Client {
        let parts = &*self.parts;
        let id = parts.clients_made.fetch_add(1, Ordering::Relaxed);
        let inbox = parts.inboxes[id as usize % parts.inboxes.len()].clone();
        let Parts { options, log_readers, .. } = parts;
        Client::new(id, options.max_hz, options.outbox, pipe, inbox, log_readers.clone())
    }

    /// Has every client end, spread over the `goodbye` time; also those that come later.
    pub fn dismiss(&self) {
        let window = self.parts.options.goodbye;
        self.parts.inboxes.iter().for_each(|inbox| inbox.ask(Op::Dismiss(window)));
    }

    /// How long the oldest transition has waited that was not handed to every client.
    pub fn lag(&self) -> Duration {
        self.parts.inboxes.iter().map(|inbox| inbox.lag()).max().unwrap_or_default()
    }

    /// Waits for the transitions of one task.
    pub fn watch(&self, task_id: TaskId) -> Watch {
        self.parts.watches.watch(task_id)
    }

    /// The last `rev` that was published.
    pub fn published_rev(&self) -> u64 {
        self.parts.published_rev.load(Ordering::Acquire)
    }

    /// What it was started with.
    pub fn options(&self) -> &FeedOptions {
        &self.parts.options
    }
}
