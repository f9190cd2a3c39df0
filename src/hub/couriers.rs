//! Deliveries, from the store to their receivers and back.
//!
//! One task owns the [`Queue`] of what is owed. It hears from the writer what a commit brought, has each tried when its turn
//! comes, and gives the writer what came of it, with all others of the meantime in one commit. Only once that is on disk does
//! the queue know of it. So nothing is forgotten that did not arrive, and nothing overtakes in its line; where the store takes
//! no writes, tries end when each that can be is under way, and go on by themselves.
//!
//! In memory stands where something goes and when; what is sent is read when it is sent.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use url::{Position, Url};

use crate::callbacks::{
    CallbackClient, FOR, Message, Miss, Owed, Queue, Secret, Secrets, Verdict, first_try, signature, verdict,
};
use crate::seldom::Seldom;
use crate::store::{DeliveryPage, DeliveryQuery, OwedDelivery, StoreError};
use crate::task::{Delivery, DeliveryId, DeliveryState, DeliveryStatus, DeliveryStep, Invalid, Submission, Task};
use crate::wire::open_task_line;

use super::inbox::{Bound, Request};
use super::shared::Shared;
use super::{Hub, HubError};

/// So many deliveries may be owed before new tasks with callbacks are turned away; those that are there go on to add theirs.
/// Each takes some 250 bytes of memory.
const OWED_MAX: u64 = 100_000;
/// How long deliveries that were given up are kept: time to find out, and to have them tried again.
pub(super) const FAILED_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// The wait after something failed that is not the receiver's: a read of the store, or of the secret.
const OWN_FAULT_MS: u64 = 5_000;
/// The wait before what became of tries is given to a writer again that could not write.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// What can be set.
#[derive(Clone, Debug)]
pub struct CallbackOptions {
    /// They may go to addresses that are not public, too.
    pub private: bool,
    /// How long each is tried.
    pub patience: Duration,
    /// Where the signing secret stands: the folder of the store. Without, it is as long there as the hub is.
    pub folder: Option<std::path::PathBuf>,
}

impl Default for CallbackOptions {
    fn default() -> CallbackOptions {
        CallbackOptions { private: false, patience: FOR, folder: None }
    }
}

/// What everybody shares with the couriers.
pub(super) struct Callbacks {
    words: mpsc::UnboundedSender<Word>,
    secrets: Arc<Secrets>,
    owed: AtomicU64,
    failed: AtomicU64,
    /// The time of the oldest that is owed, in milliseconds since 1970; 0 where there is none.
    oldest: AtomicI64,
}

/// What the couriers are told. What waits here is bounded by what is owed.
pub(super) enum Word {
    Owed(Vec<Delivery>),
    Retry { id: DeliveryId, reply: oneshot::Sender<Result<bool, HubError>> },
}

/// How many deliveries there are, for those who run the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackCounts {
    pub pending: u64,
    pub failed: u64,
    pub oldest_ms: u64,
}

impl Callbacks {
    pub(super) fn new(options: &CallbackOptions, failed: u64) -> (Callbacks, mpsc::UnboundedReceiver<Word>) {
        let (words, heard) = mpsc::unbounded_channel();
        let secrets = Arc::new(Secrets::new(options.folder.clone()));
        let (owed, oldest) = (AtomicU64::new(0), AtomicI64::new(0));
        (Callbacks { words, secrets, owed, failed: AtomicU64::new(failed), oldest }, heard)
    }

    /// A commit is on disk that brought these.
    pub(super) fn owe(&self, deliveries: Vec<Delivery>) {
        if !deliveries.is_empty() {
            self.owed.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
            let _ = self.words.send(Word::Owed(deliveries));
        }
    }

    /// So many that were given up are forgotten.
    pub(super) fn forgot(&self, count: usize) {
        let _ = self
            .failed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failed| Some(failed.saturating_sub(count as u64)));
    }
}

impl Hub {
    /// Refuses a submission whose callbacks may not be called.
    pub(super) fn check_callbacks(&self, submission: &Submission) -> Result<(), HubError> {
        let checked = submission.each_callback(|callback| self.check_callback(callback));
        checked.map_err(|invalid| HubError::Refused(crate::engine::Refusal::Invalid(invalid)))
    }

    /// Refuses a submission with callbacks while too many are owed.
    pub(super) fn check_owed(&self, submission: &Submission) -> Result<(), HubError> {
        match submission.has_callbacks() && self.shared().callbacks.owed.load(Ordering::Relaxed) >= OWED_MAX {
            true => Err(HubError::CallbacksFull),
            false => Ok(()),
        }
    }

    /// Refuses a URL that names an address where callbacks do not go. Names are looked at when they are called.
    pub(super) fn check_callback(&self, callback: &crate::task::NewCallback) -> Result<(), Invalid> {
        let url = callback.checked_url()?;
        if self.options().callbacks.private {
            return Ok(());
        }
        crate::callbacks::addresses::vet_literal(&url)
            .map_err(|refused| Invalid::value("url", format!("must not go to {refused}")))
    }

    /// A page of deliveries that are owed or were given up, the newest first.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, HubError> {
        self.shared().read(move |reader| reader.deliveries(&query)).await
    }

    /// One of them; `None` where there is none of this id (any more).
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, HubError> {
        let found = self.shared().read(move |reader| reader.delivery(id)).await?;
        Ok(found.map(|owed| owed.delivery))
    }

    /// Has a delivery be tried at once: one that was given up begins anew, one that waits for its next try waits no longer.
    /// `None` where there is none of this id.
    pub async fn retry_delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, HubError> {
        let Some(known) = self.delivery(id).await? else { return Ok(None) };
        let (reply, answer) = oneshot::channel();
        let _ = self.shared().callbacks.words.send(Word::Retry { id, reply });
        match answer.await.unwrap_or(Err(HubError::Stopped))? {
            // It may have arrived by now.
            true => Ok(Some(self.delivery(id).await?.unwrap_or(Delivery { state: first_try(&known.state), ..known }))),
            false => Ok(None),
        }
    }

    /// What callbacks are signed with, the newest first: what receivers verify them with. Makes it where there is none.
    pub async fn callback_secrets(&self) -> io::Result<Vec<String>> {
        let (secrets, now) = (self.shared().callbacks.secrets.clone(), self.shared().clock.now().wall);
        let read = tokio::task::spawn_blocking(move || secrets.current(now)).await.map_err(io::Error::other)?;
        Ok(read?.iter().map(Secret::text).collect())
    }

    /// How many deliveries there are.
    pub fn callback_counts(&self) -> CallbackCounts {
        let shared = self.shared();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let oldest = shared.callbacks.oldest.load(Ordering::Relaxed);
        let now = shared.clock.now().at.as_millis();
        CallbackCounts {
            pending: load(&shared.callbacks.owed),
            failed: load(&shared.callbacks.failed),
            oldest_ms: if oldest == 0 { 0 } else { (now - oldest).max(0) as u64 },
        }
    }
}

/// What a try came to.
enum Tried {
    Said(DeliveryState, Result<(), Miss>),
    /// It is not owed any more.
    Gone,
    /// It could not be made, for something of our own.
    NotMade,
}

/// What is to be written.
struct Outcome {
    owed: Owed,
    step: DeliveryStep,
    then: Then,
}

/// What follows once it is.
enum Then {
    Done { answered: bool, arrived: bool },
    Again { answered: bool, at: u64 },
    Begin { reply: oneshot::Sender<Result<bool, HubError>> },
}

/// Those who deliver.
pub(super) struct Couriers {
    shared: Arc<Shared>,
    client: CallbackClient,
    queue: Queue,
    random: fastrand::Rng,
    tries: JoinSet<(Owed, Tried)>,
    /// What is being tried, for a try that fails by itself.
    trying: HashMap<tokio::task::Id, Owed>,
    outcomes: Vec<Outcome>,
    /// What the writer has, until it says that it is written.
    writing: Vec<Outcome>,
    written: Option<oneshot::Receiver<Result<(), HubError>>>,
    /// When the writer is asked again.
    again_at: Option<tokio::time::Instant>,
}

/// Delivers for as long as the hub is there, what was owed when it began and what comes.
pub(super) async fn run(shared: Arc<Shared>, pending: Vec<Delivery>, mut words: mpsc::UnboundedReceiver<Word>) {
    let mut couriers = Couriers {
        client: CallbackClient::new(shared.options.callbacks.private),
        shared: shared.clone(),
        queue: Queue::default(),
        random: fastrand::Rng::new(),
        tries: JoinSet::new(),
        trying: HashMap::new(),
        outcomes: Vec::new(),
        writing: Vec::new(),
        written: None,
        again_at: None,
    };
    shared.callbacks.owed.fetch_add(pending.len() as u64, Ordering::Relaxed);
    couriers.take(pending);
    let stopped = shared.until_stopped();
    tokio::pin!(stopped);
    loop {
        couriers.send();
        couriers.write();
        couriers.show();
        let wait = couriers.queue.next_at().map(|at| Duration::from_millis(at.saturating_sub(shared.clock.mono())));
        tokio::select! {
            word = words.recv() => match word {
                Some(Word::Owed(deliveries)) => couriers.take(deliveries),
                Some(Word::Retry { id, reply }) => couriers.retry(id, reply).await,
                None => return,
            },
            Some(tried) = couriers.tries.join_next_with_id() => couriers.tried(tried),
            written = until(&mut couriers.written) => couriers.wrote(written),
            () = sleep_until(couriers.again_at) => couriers.again_at = None,
            () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {}
            _ = &mut stopped => return,
        }
    }
}

async fn until(written: &mut Option<oneshot::Receiver<Result<(), HubError>>>) -> Result<(), HubError> {
    match written {
        Some(receiver) => receiver.await.unwrap_or(Err(HubError::Stopped)),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Couriers {
    /// These are owed.
    fn take(&mut self, deliveries: Vec<Delivery>) {
        let now = self.shared.clock.now();
        for delivery in deliveries {
            // Of one that waited when the hub ended, the rest of that wait.
            let wait_ms = delivery.state.next_at.map_or(0, |at| at.millis_since(now.wall));
            let at = self.shared.clock.mono() + wait_ms.min(3_600_000);
            self.queue.push(owed(&delivery), at);
        }
    }

    /// Has each be tried whose turn it is.
    fn send(&mut self) {
        while let Some(owed) = self.queue.next(self.shared.clock.mono()) {
            let (shared, client, known) = (self.shared.clone(), self.client.clone(), owed.clone());
            let handle = self.tries.spawn(async move {
                let tried = try_once(shared, client, owed.id).await;
                (owed, tried)
            });
            self.trying.insert(handle.id(), known);
        }
    }

    fn tried(&mut self, tried: Result<(tokio::task::Id, (Owed, Tried)), tokio::task::JoinError>) {
        let (owed, tried) = match tried {
            Ok((id, tried)) => {
                self.trying.remove(&id);
                tried
            }
            Err(error) => {
                tracing::error!(%error, "a try of a callback panicked");
                let Some(owed) = self.trying.remove(&error.id()) else { return };
                (owed, Tried::NotMade)
            }
        };
        let mono = self.shared.clock.mono();
        let (before, said) = match tried {
            Tried::Said(before, said) => (before, said),
            Tried::Gone => {
                self.shared.callbacks.owed.fetch_sub(1, Ordering::Relaxed);
                return self.queue.done(owed.id, true);
            }
            Tried::NotMade => return self.queue.again(owed.id, true, mono + OWN_FAULT_MS),
        };
        let answered = !matches!(said, Err(Miss::Unanswered(_)));
        let (id, patience) = (owed.id, self.shared.options.callbacks.patience);
        let verdict = verdict(&before, said.as_ref().copied(), patience, self.shared.clock.now().at, &mut self.random);
        let (state, then) = match verdict {
            Verdict::Arrived => (None, Then::Done { answered, arrived: true }),
            Verdict::Again(state, wait_ms) => (Some(state), Then::Again { answered, at: mono + wait_ms }),
            Verdict::GivenUp(state) => {
                let error = state.error.as_deref();
                tracing::warn!(callback.id = %id, task.id = %owed.task_id, tries = state.tries, error, "a callback was given up");
                (Some(state), Then::Done { answered, arrived: false })
            }
        };
        self.shared.metrics.callback_tried(match &then {
            Then::Done { arrived: true, .. } => "delivered",
            Then::Done { .. } => "given_up",
            Then::Again { .. } | Then::Begin { .. } => "failed",
        });
        self.outcomes.push(Outcome { owed, step: DeliveryStep { id, state }, then });
    }

    /// Somebody wants one tried now.
    async fn retry(&mut self, id: DeliveryId, reply: oneshot::Sender<Result<bool, HubError>>) {
        if self.queue.contains(id) {
            self.queue.hurry(id);
            let _ = reply.send(Ok(true));
            return;
        }
        match self.shared.read(move |reader| reader.delivery(id)).await {
            Err(error) => _ = reply.send(Err(error)),
            Ok(None) => _ = reply.send(Ok(false)),
            Ok(Some(OwedDelivery { delivery, .. })) => {
                let state = Some(first_try(&delivery.state));
                let step = DeliveryStep { id, state };
                self.outcomes.push(Outcome { owed: owed(&delivery), step, then: Then::Begin { reply } });
            }
        }
    }

    /// Gives the writer what there is to write, unless it has some already.
    fn write(&mut self) {
        if self.written.is_some() || self.again_at.is_some() {
            return;
        }
        self.writing.append(&mut self.outcomes);
        if self.writing.is_empty() {
            return;
        }
        let steps = self.writing.iter().map(|outcome| outcome.step.clone()).collect();
        let (reply, written) = oneshot::channel();
        // Bounded by the tries that there are at once. A hub that has stopped ends this too.
        let _ = self.shared.inbox.push(Request::Deliveries { steps, reply }, Bound::Free);
        self.written = Some(written);
    }

    fn wrote(&mut self, written: Result<(), HubError>) {
        self.written = None;
        if written.is_err() {
            // What became of tries is not to be lost; who asked for one is told.
            for Outcome { then, .. } in
                self.writing.extract_if(.., |outcome| matches!(outcome.then, Then::Begin { .. }))
            {
                if let Then::Begin { reply } = then {
                    let _ = reply.send(Err(HubError::StorageUnavailable));
                }
            }
            self.again_at = Some(tokio::time::Instant::now() + WRITE_AGAIN);
            return;
        }
        let counts = &self.shared.callbacks;
        for Outcome { owed, then, .. } in std::mem::take(&mut self.writing) {
            match then {
                Then::Done { answered, arrived } => {
                    self.queue.done(owed.id, answered);
                    counts.owed.fetch_sub(1, Ordering::Relaxed);
                    counts.failed.fetch_add(u64::from(!arrived), Ordering::Relaxed);
                }
                Then::Again { answered, at } => self.queue.again(owed.id, answered, at),
                Then::Begin { reply } => {
                    if !self.queue.contains(owed.id) {
                        counts.owed.fetch_add(1, Ordering::Relaxed);
                        counts.forgot(1);
                        self.queue.push(owed, 0);
                    }
                    let _ = reply.send(Ok(true));
                }
            }
        }
    }

    fn show(&self) {
        let oldest = self.queue.oldest().map_or(0, |id| id.told_at().as_millis());
        self.shared.callbacks.oldest.store(oldest, Ordering::Relaxed);
    }
}

fn owed(delivery: &Delivery) -> Owed {
    let Delivery { id, task_id, place, rev, url, .. } = delivery;
    // As one text: what stands before the path.
    let host = Url::parse(url).map_or_else(|_| (&**url).into(), |url| url[..Position::BeforePath].into());
    Owed { id: *id, task_id: *task_id, place: *place, rev: *rev, host }
}

async fn try_once(shared: Arc<Shared>, client: CallbackClient, id: DeliveryId) -> Tried {
    let (secrets, now, preparing) = (shared.callbacks.secrets.clone(), shared.clock.now().wall, client.clone());
    let ledger = shared.clone();
    let read = shared.read(move |reader| {
        let ledger = &ledger.ledger;
        preparing.prepare();
        let Some(owed) = reader.delivery(id)?.filter(|owed| owed.delivery.state.status == DeliveryStatus::Pending)
        else {
            return Ok(None);
        };
        let author = Task::parse(&owed.record).ok().and_then(|task| task.callbacks()?.author());
        if let Some(end) = author.and_then(|author| ledger.look_authors(|authors| authors.ended(author, now))) {
            return Ok(Some(Err((owed.delivery.state, end))));
        }
        let secrets = secrets.current(now).map_err(|error| StoreError {
            step: "read the signing secret of callbacks",
            cause: error.to_string(),
            lasting: false,
        })?;
        let (body, at) = (body(&owed), now.as_millis() / 1_000);
        let signature = signature(&secrets, &id.to_string(), at, &body);
        let message = Message { url: owed.delivery.url, id: id.to_string(), at, signature, body };
        Ok(Some(Ok((message, owed.delivery.state))))
    });
    match read.await {
        Ok(Some(Err((state, end)))) => Tried::Said(state, Err(Miss::Withdrawn(end))),
        Ok(Some(Ok((message, state)))) => {
            let said = client.send(message).await;
            if let Err(miss) = &said {
                static MISSED: Seldom = Seldom::new();
                if let Some(unsaid) = MISSED.happened() {
                    tracing::info!(callback.id = %id, %miss, unsaid, "a callback did not arrive");
                }
            }
            Tried::Said(state, said)
        }
        Ok(None) => Tried::Gone,
        Err(_) => Tried::NotMade,
    }
}

/// The event, as it was told on the live stream.
fn body(OwedDelivery { delivery, record }: &OwedDelivery) -> Bytes {
    let mut body = Vec::with_capacity(record.len() + 64);
    open_task_line(&mut body, delivery.event, delivery.rev);
    body.extend_from_slice(record);
    body.push(b'}');
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::HubOptions;
    use crate::settings::TaskTypeSpec;
    use crate::store::in_memory;
    use crate::task::{Defaults, Name, NewTask};

    #[tokio::test]
    async fn with_too_many_owed_new_ones_are_turned_away_and_nothing_else() {
        let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
        let submit = async |new: NewTask| hub.submit_all(vec![new], None).await.map(drop);
        let with = || NewTask::new("t").callback("https://app.example/");
        assert_eq!(submit(with()).await, Ok(()));
        hub.shared().callbacks.owed.store(OWED_MAX, Ordering::Relaxed);
        assert_eq!(submit(with()).await, Err(HubError::CallbacksFull));
        assert_eq!(submit(NewTask::new("t")).await, Ok(()));
        // Those that its type brings count as well.
        let defaults = Defaults { callbacks: with().callbacks, ..Defaults::default() };
        let spec = TaskTypeSpec { defaults, ..TaskTypeSpec::default() };
        hub.set_task_type(Name::new("called"), spec).await.unwrap();
        assert_eq!(submit(NewTask::new("called")).await, Err(HubError::CallbacksFull));
        hub.shared().callbacks.owed.store(OWED_MAX - 1, Ordering::Relaxed);
        assert_eq!(submit(with()).await, Ok(()));
        hub.stop().await;
    }
}
