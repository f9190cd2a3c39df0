//! What the writer and all handles share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::access::AccessRecord;
use crate::engine::Refusal;
use crate::feed::Feed;
use crate::seldom::Seldom;
use crate::store::{Openings, Page, Query, Reader, Store, StoreError};
use crate::task::{Json, Task, TaskId};
use crate::telemetry::Metrics;

use super::board::Board;
use super::caller::Holders;
use super::clock::Clock;
use super::couriers::Callbacks;
use super::inbox::Inbox;
use super::ledger::Ledger;
use super::mailbox::Mailbox;
use super::missed::Missed;
use super::single_flight::SingleFlight;
use super::stats::StatsLine;
use super::unwritten::Unwritten;
use super::uploads::Results;
use super::{HubError, HubOptions};

/// Large payloads that are looked at at once: half the cores of a small machine, for it takes up to a second of one.
const LOOKS_MAX: usize = 2;
/// Reads over many tasks at once: half the connections that the store has for readers.
const LONG_READS_MAX: usize = 2;

pub(super) struct Shared {
    pub(super) options: HubOptions,
    pub(super) openings: Openings,
    pub(super) clock: Arc<Clock>,
    pub(super) inbox: Inbox,
    /// Log lines on their way to the store.
    pub(super) unwritten: Unwritten,
    pub(super) board: Arc<Board>,
    pub(super) feed: Feed,
    pub(super) callbacks: Callbacks,
    pub(super) ledger: Ledger,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) results: Results,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stats_line: StatsLine,
    pub(super) settle_cost: SettleCost,
    /// Which workers are whose.
    pub(super) holders: Holders,
    /// Workers on sockets, by connection.
    links: DashMap<u64, Arc<Mailbox<Push>>>,
    /// Workers the engine knows of: on sockets, over HTTP, and away for a moment.
    workers: AtomicU64,
    /// Open claims over HTTP, by ticket.
    claims: DashMap<u64, oneshot::Sender<Result<Vec<Given>, HubError>>>,
    /// The next connection or ticket.
    numbers: AtomicU64,
    /// Reads over many tasks take turns, so that the store's few readers are never all busy with them.
    pub(super) pages: Arc<SingleFlight<Query, Arc<Page>>>,
    pub(super) missed: Arc<SingleFlight<u64, Arc<Missed>>>,
    /// Turns at looking at large payloads.
    looks: Semaphore,
    broken: RwLock<Option<String>>,
    pub(super) draining: AtomicBool,
    /// Set once watchers and workers should be told goodbye.
    pub(super) goodbye: watch::Sender<bool>,
    /// Set once the writer has ended.
    ended: watch::Sender<Option<Ended>>,
}

/// What a hub is put together from.
pub(super) struct Parts<'a> {
    pub(super) clock: Arc<Clock>,
    pub(super) board: Arc<Board>,
    pub(super) feed: Feed,
    pub(super) callbacks: Callbacks,
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: &'a dyn Store,
}

/// A task on its way to a worker.
pub(super) struct Given {
    pub(super) task: Arc<Task>,
    pub(super) body: Body,
}

/// What goes with it.
pub(super) enum Body {
    Ready {
        payload: Option<Json>,
        checkpoint: Option<Json>,
    },
    /// To be read from the store.
    Stored,
}

/// What the writer says to a connected worker.
pub(super) enum Push {
    Run(Given),
    Stop { task_id: TaskId, attempt: u32, reason: Option<Box<str>> },
    Ack { task_id: TaskId, attempt: u32 },
    Refused { task_id: TaskId, attempt: u32, refusal: Refusal },
    Spawned { id: Option<u64>, task_id: TaskId, attempt: u32, outcome: Result<Vec<TaskId>, HubError> },
    Drain,
    Goodbye,
    Replaced,
}

/// How a hub ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and everything is written.
    Well,
    /// The writer panicked. What was acknowledged is on disk; only a new start can go on from there.
    Failed,
}

/// How long the writer takes to settle a task, of late.
#[derive(Default)]
pub(super) struct SettleCost {
    nanos: AtomicU64,
}

impl SettleCost {
    /// So many tasks were settled in this time.
    pub(super) fn add(&self, tasks: usize, took: Duration) {
        let nanos = took.as_nanos() as u64 / tasks.max(1) as u64;
        self.nanos.store((3 * self.nanos.load(Ordering::Relaxed) + nanos) / 4, Ordering::Relaxed);
    }

    /// What so many tasks will take.
    pub(super) fn of(&self, tasks: usize) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed) * tasks as u64)
    }
}

impl Shared {
    pub(super) fn new(
        options: HubOptions,
        openings: Openings,
        access: Vec<AccessRecord>,
        parts: Parts<'_>,
    ) -> Result<Shared, StoreError> {
        let Parts { clock, board, feed, callbacks, metrics, store } = parts;
        let long_reads = Arc::new(Semaphore::new(LONG_READS_MAX));
        Ok(Shared {
            options,
            openings,
            clock,
            inbox: Inbox::default(),
            unwritten: Unwritten::default(),
            board,
            feed,
            callbacks,
            ledger: Ledger::new(access),
            reader: store.reader(),
            results: Results::start(store.results())?,
            metrics,
            stats_line: StatsLine::default(),
            settle_cost: SettleCost::default(),
            holders: Holders::default(),
            links: DashMap::new(),
            workers: AtomicU64::new(0),
            claims: DashMap::new(),
            numbers: AtomicU64::new(1),
            pages: Arc::new(SingleFlight::new(long_reads.clone())),
            missed: Arc::new(SingleFlight::new(long_reads)),
            looks: Semaphore::new(LOOKS_MAX),
            broken: RwLock::new(None),
            draining: AtomicBool::new(false),
            goodbye: watch::Sender::new(false),
            ended: watch::Sender::new(None),
        })
    }

    /// A number for a connection or a claim that no other has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Opens the way to a worker's connection. What stands in it is bounded by the worker's concurrency and by the reports
    /// it has not heard of yet: its socket reads no more while it cannot write.
    pub(super) fn open_link(&self, session: u64) -> Arc<Mailbox<Push>> {
        let mailbox = Arc::new(Mailbox::default());
        self.links.insert(session, mailbox.clone());
        mailbox
    }

    pub(super) fn close_link(&self, session: u64) {
        self.links.remove(&session);
    }

    /// Says something to a connection, if it is still there.
    pub(super) fn push(&self, session: u64, push: Push) {
        if let Some(mailbox) = self.links.get(&session) {
            mailbox.push(push);
        }
    }

    /// Says something to every connection.
    pub(super) fn push_to_all(&self, push: impl Fn() -> Push) {
        for mailbox in self.links.iter() {
            mailbox.push(push());
        }
    }

    pub(super) fn workers(&self) -> u64 {
        self.workers.load(Ordering::Relaxed)
    }

    pub(super) fn set_workers(&self, workers: usize) {
        self.workers.store(workers as u64, Ordering::Relaxed);
    }

    pub(super) fn open_claim(&self, ticket: u64) -> oneshot::Receiver<Result<Vec<Given>, HubError>> {
        let (sender, receiver) = oneshot::channel();
        self.claims.insert(ticket, sender);
        receiver
    }

    pub(super) fn close_claim(&self, ticket: u64) {
        self.claims.remove(&ticket);
    }

    /// Answers a claim; hands back what nobody waits for any more.
    pub(super) fn answer_claim(&self, ticket: u64, answer: Result<Vec<Given>, HubError>) -> Result<(), Vec<Given>> {
        let unheard = match self.claims.remove(&ticket) {
            Some((_, sender)) => sender.send(answer).err(),
            None => Some(answer),
        };
        match unheard {
            Some(Ok(given)) => Err(given),
            Some(Err(_)) | None => Ok(()),
        }
    }

    pub(super) fn set_broken(&self, why: Option<String>) {
        *self.broken.write() = why;
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.broken.read().clone()
    }

    /// The writer has ended, as it was told or because it failed: nothing is decided any more, and nobody is to wait for it.
    pub(super) fn stopped(&self, how: Ended) {
        self.set_broken(Some("the writer has ended".into()));
        self.claims.clear();
        self.push_to_all(|| Push::Goodbye);
        self.ended.send_replace(Some(how));
    }

    pub(super) async fn until_stopped(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        // The sender lives in `self`, so this ends only because there is a value.
        let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| *how);
        how.unwrap_or(Ended::Failed)
    }

    /// Looks at large payloads where that keeps nobody waiting, a few at a time.
    pub(super) async fn look_at<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HubError> {
        // The semaphore is never closed.
        let _turn = self.looks.acquire().await.map_err(|_| HubError::Internal)?;
        tokio::task::spawn_blocking(f).await.map_err(|_| HubError::Internal)
    }

    /// Reads from the store where blocking is allowed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, HubError> {
        let reader = self.reader.clone();
        match tokio::task::spawn_blocking(move || f(&*reader)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                static FAILED: Seldom = Seldom::new();
                if let Some(unsaid) = FAILED.happened() {
                    tracing::error!(step = error.step, cause = error.cause, unsaid, "could not read from the store");
                }
                self.reader.report(&error);
                Err(HubError::StorageUnavailable)
            }
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a read panicked");
                Err(HubError::Internal)
            }
            // The runtime ends.
            Err(_) => Err(HubError::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::hub::{Hub, HubError, HubOptions};
    use crate::store::{Reader, in_memory};

    /// Regression: whoever asked heard that the hub had stopped, and came back in vain after a restart that never was.
    #[tokio::test]
    async fn a_read_that_panics_is_a_fault_of_the_hub_and_not_its_end() {
        let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
        let read = hub.shared().read(|_: &dyn Reader| -> Result<(), _> { panic!("a fault") });
        assert_eq!(read.await, Err(HubError::Internal));
        assert_eq!(hub.shared().read(|reader| reader.records(&[])).await, Ok(vec![]), "others are read");
        hub.stop().await;
    }
}
