//! The handle: what everyone but the writer holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::access::AuditRow;
use crate::engine::{Accepts, Answer, Batch, Command, Engine, Fitted, Refusal, Report, SubmitKey, Tasks, WorkerState};
use crate::feed::Feed;
use crate::store::{Aside, LogRange, Order, Page, Query, Reader, Store, StoreError, Stored};
use crate::task::{
    Filter, Invalid, Json, LINE_BYTES, Level, LogLine, Name, NewTask, Progress, Status, Submission, Task, TaskId,
    TaskPatch, Transition, WaitsFor,
};
use crate::telemetry::Metrics;

use super::authors;
use super::board::{Board, Heard};
use super::caller::Actor;
use super::clock::Clock;
use super::couriers::{self, Callbacks};
use super::expire;
use super::inbox::{Bound, Reply, Request};
use super::missed::{MISSED_STEP, Missed};
use super::shared::{Body, Ended, Given, Parts, Push, Shared};
use super::system_random::SystemRandom;
use super::task_types::Judge;
use super::worker_link::HandedOut;
use super::writer::Writer;
use super::{HubError, HubOptions, Submitted, Until};

/// Bytes of payloads that are hashed where nobody may be kept waiting: well under a millisecond of work.
const HASHED_HERE_BYTES_MAX: usize = 64 << 10;

/// How long the writer may take to say why a task waits.
const WAITS_PATIENCE: Duration = Duration::from_millis(250);

/// A handle to a running hub.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    /// Who it acts for, where that is written down.
    actor: Option<Arc<Actor>>,
}

impl Hub {
    /// Starts a hub on a store, within a tokio runtime. When this returns, everything the store held is there, and the
    /// leases of running tasks are confirmed.
    pub fn start(mut store: Box<dyn Store>, options: HubOptions) -> Result<Hub, StoreError> {
        let recovered = store.recover()?;
        let clock = Arc::new(Clock::start(recovered.last_at, options.engine.lease_ms));
        let unfinished = recovered.unfinished.len();
        let (counts, finals) = (recovered.counts, recovered.user_finals);
        let board = Arc::new(Board::new(recovered.rev, counts, finals, recovered.settings.clone(), clock.clone()));
        let (mut engine, batch) = Engine::recover(
            options.engine,
            recovered.rev,
            recovered.last_id,
            recovered.settings,
            Tasks { unfinished: recovered.unfinished, relatives: recovered.relatives },
            fastrand::u64(..),
            clock.look(),
        );
        let random = SystemRandom::new().map_err(|why| StoreError {
            step: "draw the system's randomness",
            cause: why.to_string(),
            lasting: false,
        })?;
        engine.draw_ids_from(Box::new(random));
        if recovered.damage.is_none() {
            engine.remember_hand_outs(store.hand_outs(clock.count())?, clock.now());
        }
        let batch = match recovered.damage.is_some() {
            // Nothing of it can be written, so nothing of it is shown.
            true => {
                engine.revert(batch, clock.now());
                Batch::default()
            }
            false => batch,
        };
        for task in engine.tasks().filter(|task| !task.status.is_final()) {
            let runs = task.status == Status::Running;
            let log_end = if runs { Some(store.log_end(task.task_id)?) } else { None };
            board.restore(task, log_end);
        }
        board.roll_up_all(|task_id| engine.rollup(task_id));
        let metrics = Arc::<Metrics>::default();
        let feed = Feed::start(board.clone(), metrics.clone(), recovered.rev, options.feed);
        let (callbacks, words) = Callbacks::new(&options.callbacks, recovered.deliveries_failed);
        let parts = Parts { clock, board, feed, callbacks, metrics, store: &*store };
        let shared = Arc::new(Shared::new(options, recovered.openings, recovered.access, parts)?);
        if recovered.damage.is_none() {
            shared.results.clear_leftovers(store.reader())?;
        }
        let mut writer = Writer::new(engine, store, shared.clone(), recovered.audit);
        match recovered.damage {
            Some(what) => writer.begin_damaged(what),
            None => writer.begin(batch)?,
        }
        tracing::info!(epoch = shared.openings.epoch(), rev = shared.board.rev(), unfinished, "the hub is up");
        let hub = Hub { shared: shared.clone(), actor: None };
        tokio::spawn(couriers::run(shared.clone(), recovered.deliveries, words));
        tokio::spawn(expire::run(hub.clone(), shared.clone()));
        // Before the writer does what is due.
        shared.stop_orphans();
        tokio::spawn(authors::run(shared));
        std::thread::Builder::new().name("writer".into()).spawn(move || writer.run()).map_err(|error| StoreError {
            step: "start the writer",
            cause: error.to_string(),
            lasting: true,
        })?;
        Ok(hub)
    }

    /// The same, for somebody.
    pub(super) fn acting_for(&self, actor: Option<Arc<Actor>>) -> Hub {
        Hub { shared: self.shared.clone(), actor }
    }

    pub(super) fn actor(&self) -> Option<&Actor> {
        self.actor.as_deref()
    }

    /// What is written down of a command.
    pub(super) fn row_of(&self, command: &Command) -> Option<Box<AuditRow>> {
        self.actor.as_ref()?.row_of(command)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends the writer a command and waits for its answer.
    pub(super) fn ask(&self, command: Command, bound: Bound) -> impl Future<Output = Result<Answer, HubError>> {
        let row = self.row_of(&command);
        self.ask_noted(command, bound, row)
    }

    /// Takes these tasks, all or none. When this returns they are on disk.
    pub async fn submit_all(&self, tasks: Vec<NewTask>, key: Option<SubmitKey>) -> Result<Submitted, HubError> {
        let checked = self.checked(tasks).await?;
        self.submit_checked(checked, key).await
    }

    /// Checks tasks here, and not on the writer's thread: a payload is walked to its end. What is also put in order and hashed
    /// takes some milliseconds a MiB.
    pub(super) async fn checked(&self, tasks: Vec<NewTask>) -> Result<Result<Submission, Invalid>, HubError> {
        let hashed: usize = tasks.iter().map(NewTask::hashed_bytes).sum();
        let bytes_max = self.options().engine.payload_bytes_max;
        let check = move || Submission::check(tasks, bytes_max);
        match hashed > HASHED_HERE_BYTES_MAX {
            true => tokio::task::spawn_blocking(check).await.map_err(|_| HubError::Internal),
            false => Ok(check()),
        }
    }

    /// The same of what was checked.
    pub(super) async fn submit_checked(
        &self,
        checked: Result<Submission, Invalid>,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        let submission = checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        self.submit_judged(submission, key, &|_| Ok(())).await
    }

    /// The same, if it may be made once it is prepared.
    pub(super) async fn submit_judged(
        &self,
        submission: Submission,
        key: Option<SubmitKey>,
        judge: &Judge<'_>,
    ) -> Result<Submitted, HubError> {
        self.check_callbacks(&submission)?;
        let mut submitted = self.submit_prepared(submission, key, judge).await?;
        if submitted.replayed {
            return self.replay(submitted).await;
        }
        let Submitted { task_ids, records, existing, .. } = &mut submitted;
        for place in existing.iter().map(|place| *place as usize) {
            records[place] = self.shared.board.refresh(task_ids[place], std::mem::take(&mut records[place]));
        }
        Ok(submitted)
    }

    /// What an idempotency key stood for, as it is now.
    async fn replay(&self, submitted: Submitted) -> Result<Submitted, HubError> {
        let task_ids = &submitted.task_ids;
        let wanted = task_ids.clone();
        let stored = self.shared.read(move |reader| reader.records(&wanted)).await?;
        let records: Option<Vec<Bytes>> = task_ids
            .iter()
            .zip(stored)
            .map(|(task_id, record)| Some(self.shared.board.refresh(*task_id, record?)))
            .collect();
        // The first task was deleted: what the key stood for is gone.
        let records = records.ok_or(HubError::Refused(Refusal::IdempotencyConflict))?;
        Ok(Submitted { records, ..submitted })
    }

    /// Cancels a task, or asks the worker that runs it to stop: the answer's status tells which.
    pub async fn cancel_task(&self, task_id: TaskId, reason: Option<String>) -> Result<Arc<Task>, HubError> {
        self.ask_for_task(Command::Cancel { task_id, reason }).await
    }

    /// Runs a failed or cancelled task again; with another payload, where there is one.
    pub async fn retry_task(&self, task_id: TaskId, payload: Option<Json>) -> Result<Arc<Task>, HubError> {
        if let Some(payload) = &payload {
            let checked = Invalid::json("payload", payload, self.options().engine.payload_bytes_max);
            checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        }
        self.with_fitted(task_id, payload, |payload| Command::Retry { task_id, payload }).await
    }

    /// Changes a task that waits.
    pub async fn update_task(&self, task_id: TaskId, patch: TaskPatch) -> Result<Arc<Task>, HubError> {
        let checked = patch.check(self.options().engine.payload_bytes_max);
        checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        let payload = patch.payload.clone();
        let update = |fitted: Option<Fitted>| {
            let types = fitted.map(|fitted| fitted.types).unwrap_or_default();
            Command::Update { task_id, patch: patch.clone(), types }
        };
        self.with_fitted(task_id, payload, update).await
    }

    /// Deletes a final task; of a workflow, all of its tasks before it.
    pub async fn delete_task(&self, task_id: TaskId) -> Result<(), HubError> {
        if self.is_workflow(task_id).await? {
            self.delete_parts(task_id).await?;
        }
        self.ask(Command::Delete { task_id }, Bound::Held).await.map(|_| ())
    }

    pub(super) async fn ask_for_task(&self, command: Command) -> Result<Arc<Task>, HubError> {
        match self.ask(command, Bound::Held).await? {
            Answer::Task(task) => Ok(task),
            other => unreachable!("a task is the answer to this command, not {other:?}"),
        }
    }

    /// A task with its newest tick, its payload and its result. `None`: there is no such task.
    pub async fn task(&self, task_id: TaskId) -> Result<Option<Stored>, HubError> {
        // A task that just ended is at hand, and whoever waited for it need not wait for another thread.
        let stored = match self.shared.reader.task_at_hand(task_id) {
            Some(stored) => Some(stored),
            None => self.shared.read(move |reader| reader.task(task_id)).await?,
        };
        Ok(stored.map(|stored| Stored { record: self.shared.board.refresh(task_id, stored.record), ..stored }))
    }

    /// Why a task waits, the nearest reason first; `None` where that cannot be told, because the writer is busy for longer
    /// than people wait for an answer.
    pub async fn waits_for(&self, task_id: TaskId) -> Option<Vec<WaitsFor>> {
        let asked = self.ask(Command::WaitsFor { task_id }, Bound::Held);
        match tokio::time::timeout(WAITS_PATIENCE, asked).await {
            Ok(Ok(Answer::Waits(waits))) => Some(waits),
            _ => None,
        }
    }

    /// The newest record of an unfinished task, and of a final one for a moment longer.
    pub fn shown(&self, task_id: TaskId) -> Option<Arc<Task>> {
        self.shared.board.get(task_id)
    }

    /// As [`task`](Self::task), once `until` holds or `patience` is over, whichever comes first.
    pub async fn wait_for(
        &self,
        task_id: TaskId,
        until: Until,
        patience: Duration,
    ) -> Result<Option<Stored>, HubError> {
        let deadline = Instant::now() + patience;
        let holds = |task: &Task| match until {
            Until::Final => task.status.is_final(),
            Until::RevAbove(rev) => task.status.is_final() || task.rev > rev,
        };
        // Subscribed before the first look, so no transition falls between the two.
        let mut watch = self.shared.feed.watch(task_id);
        loop {
            match self.shared.board.get(task_id) {
                Some(task) if !holds(&task) => {}
                _ => return self.task(task_id).await,
            }
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return self.task(task_id).await;
            }
        }
    }

    /// A page of tasks, running ones with their newest tick.
    pub async fn find(&self, query: Query) -> Result<Arc<Page>, HubError> {
        let by_id = query.text.is_none() && query.created_after.is_none() && query.created_before.is_none();
        if let (true, Some(ids)) = (by_id, &query.filter.task_id) {
            return self.find_named(ids, &query).await.map(Arc::new);
        }
        let hub = self.clone();
        let read = {
            let query = query.clone();
            move || async move {
                let mut page = hub.shared.read(move |reader| reader.find(&query)).await?;
                for (task_id, record) in &mut page.tasks {
                    *record = hub.shared.board.refresh(*task_id, std::mem::take(record));
                }
                Ok(Arc::new(page))
            }
        };
        self.shared.pages.get(query, read).await
    }

    /// A page of the tasks that a query names, from the board and reads by id: those who come to watch one task each need
    /// no look at all the others.
    async fn find_named(&self, ids: &BTreeSet<TaskId>, query: &Query) -> Result<Page, HubError> {
        let board = &self.shared.board;
        let shown: Vec<_> =
            ids.iter().copied().filter(|id| query.is_beyond(*id)).map(|id| (id, board.get(id))).collect();
        let absent: Vec<TaskId> = shown.iter().filter(|(_, task)| task.is_none()).map(|(id, _)| *id).collect();
        let mut stored = match absent.is_empty() {
            true => Vec::new(),
            false => self.shared.read(move |reader| reader.records(&absent)).await?,
        }
        .into_iter();
        let record = |(id, task): (TaskId, Option<Arc<Task>>)| {
            let record = match task {
                Some(task) => query.filter.matches(&task).then(|| board.record(&task).into()),
                None => {
                    let matches = |record: &Bytes| Task::parse(record).is_ok_and(|task| query.filter.matches(&task));
                    stored.next().flatten().filter(matches).map(|record| board.refresh(id, record))
                }
            };
            record.map(|record| (id, record))
        };
        let mut tasks: Vec<(TaskId, Bytes)> = shown.into_iter().filter_map(record).collect();
        if query.order == Order::NewestFirst {
            tasks.reverse();
        }
        let more = tasks.len() > query.limit;
        tasks.truncate(query.limit);
        Ok(Page { tasks, more })
    }

    /// What changed after a `rev`; at most a thousand tasks at once.
    pub async fn missed_since(&self, rev: u64) -> Result<Arc<Missed>, HubError> {
        let hub = self.clone();
        let read = move || async move {
            let missed = move |reader: &dyn Reader| Ok(Missed::of(reader.changed_since(rev, MISSED_STEP)?, rev));
            hub.shared.read(missed).await.map(Arc::new)
        };
        self.shared.missed.get(rev, read).await
    }

    /// The steps of a task, oldest first. `None`: there is no such task.
    pub async fn history(&self, task_id: TaskId) -> Result<Option<Vec<Transition>>, HubError> {
        let history = self.shared.read(move |reader| reader.history(task_id)).await?;
        Ok((!history.is_empty()).then_some(history))
    }

    /// Kept log lines of a task, oldest first. `None`: there is no such task.
    pub async fn logs(&self, task_id: TaskId, range: LogRange) -> Result<Option<Vec<LogLine>>, HubError> {
        // Before the store is looked at: a line that leaves here in between is found there.
        let newer = self.shared.unwritten.of(task_id);
        let (exists, lines) = self
            .shared
            .read(move |reader| {
                let lines = reader.logs(task_id, range, &newer)?;
                let exists = !lines.is_empty() || reader.task(task_id)?.is_some();
                Ok((exists, lines))
            })
            .await?;
        Ok(exists.then_some(lines))
    }

    /// The number of the newest log line of each of these tasks, 0 where there is none.
    pub async fn log_ends(&self, task_ids: Vec<TaskId>) -> Result<Vec<u64>, HubError> {
        let shared = &self.shared;
        let known = |task_id: &TaskId| shared.board.log_end(*task_id).or_else(|| shared.unwritten.end(*task_id));
        let known: Vec<Option<u64>> = task_ids.iter().map(known).collect();
        if known.iter().all(Option::is_some) {
            return Ok(known.into_iter().flatten().collect());
        }
        let ends = move |reader: &dyn Reader| {
            let end = |(known, task_id): (Option<u64>, TaskId)| known.map_or_else(|| reader.log_end(task_id), Ok);
            known.into_iter().zip(task_ids).map(end).collect()
        };
        shared.read(ends).await
    }

    /// The newest tick's event of each running task that matches, for a client that has every record up to `rev`.
    pub fn progress_lines(&self, filter: &Filter, rev: u64) -> Vec<Bytes> {
        self.shared.board.progress_lines(filter, rev)
    }

    /// Every worker the hub knows of, by id.
    pub async fn workers(&self) -> Result<Vec<WorkerState>, HubError> {
        match self.ask(Command::Workers, Bound::Held).await? {
            Answer::Workers(workers) => Ok(workers),
            other => unreachable!("workers are the answer to this command, not {other:?}"),
        }
    }

    /// The name of the history this hub is on, and of this opening of it.
    pub fn epoch(&self) -> &str {
        self.shared.openings.epoch()
    }

    /// Whether what a client heard up to `rev`, when the epoch was called so, is part of this history: it can go on from
    /// there. It is not where the store was put back, or copied, before that.
    pub fn includes(&self, epoch: &str, rev: u64) -> bool {
        self.shared.openings.include(epoch, rev, self.rev())
    }

    /// The last `rev` that is committed and shown.
    pub fn rev(&self) -> u64 {
        self.shared.board.rev()
    }

    /// The feed of every transition and tick.
    pub fn feed(&self) -> &Feed {
        &self.shared.feed
    }

    /// What the hub was started with.
    pub fn options(&self) -> &HubOptions {
        &self.shared.options
    }

    /// What the hub counts of itself.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Claims up to `max` tasks, waiting up to `patience` for the first. A claim that is dropped takes nothing with it.
    pub async fn claim(
        &self,
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        patience: Duration,
    ) -> Result<Vec<HandedOut>, HubError> {
        self.claim_for(worker_id, accepts, max, None, patience).await
    }

    /// The same, with a lease on each task that lasts as long as this, where the hub's own is shorter.
    pub async fn claim_for(
        &self,
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        lease: Option<Duration>,
        patience: Duration,
    ) -> Result<Vec<HandedOut>, HubError> {
        let ticket = self.shared.number();
        let answer = self.shared.open_claim(ticket);
        let mut claim = OpenClaim { shared: &self.shared, ticket, answer, given: None };
        let lease_ms = lease.map(|lease| lease.as_millis() as u64);
        self.ask(Command::Claim { worker_id, accepts, max, lease_ms, ticket }, Bound::Held).await?;
        // Whatever has arrived by the time this is dropped is given back.
        if tokio::time::timeout(patience, claim.arrived()).await.is_err() {
            // After this the ticket can bring nothing more, but it may have in between.
            self.ask(Command::Unclaim { ticket }, Bound::Free).await?;
            claim.look();
        }
        let stored = claim.stored()?;
        let read = if stored.is_empty() { Vec::new() } else { self.shared.bodies(stored).await? };
        let mut read = read.into_iter();
        Ok(claim.take().into_iter().filter_map(|given| given.complete(&mut read, &self.shared)).collect())
    }

    /// A report on an attempt. Durable when this returns; answers whether the attempt was asked to stop.
    pub async fn report(&self, task_id: TaskId, attempt: u32, report: Report) -> Result<bool, HubError> {
        match self.ask(Command::Report { task_id, attempt, report }, Bound::Said).await? {
            Answer::Reported { cancel_requested } => {
                self.shared.told(task_id, attempt, cancel_requested);
                Ok(cancel_requested)
            }
            other => unreachable!("a report is answered as reported, not by {other:?}"),
        }
    }

    /// A tick, a checkpoint, or both, of a running attempt. A checkpoint is durable when this returns. Answers whether the
    /// attempt was asked to stop. Renews the lease.
    pub async fn progress(
        &self,
        task_id: TaskId,
        attempt: u32,
        progress: Option<Progress>,
        checkpoint: Option<Json>,
    ) -> Result<bool, HubError> {
        let (sender, kept) = oneshot::channel();
        let waits = checkpoint.is_some();
        let kept_by = waits.then_some(sender);
        let heard = self.shared.progress(task_id, attempt, progress, checkpoint, kept_by, Bound::Said)?;
        self.renew(task_id, attempt);
        if waits {
            kept.await.unwrap_or(Err(HubError::Stopped))?;
        }
        self.shared.told(task_id, attempt, heard.cancel_requested);
        Ok(heard.cancel_requested)
    }

    /// Log lines of a running attempt. Answers whether the attempt was asked to stop. Renews the lease.
    pub fn log(&self, task_id: TaskId, attempt: u32, lines: Vec<(Level, String)>) -> Result<bool, HubError> {
        let heard = self.shared.log(task_id, attempt, lines, Bound::Said)?;
        self.renew(task_id, attempt);
        self.shared.told(task_id, attempt, heard.cancel_requested);
        Ok(heard.cancel_requested)
    }

    /// What is said of an attempt renews its lease; so often in the time of one, that a worker which ticks without end costs
    /// the writer no more than another.
    pub(super) fn renew(&self, task_id: TaskId, attempt: u32) {
        const RENEWALS_A_LEASE: u64 = 20;
        let every_ms = self.options().engine.lease_ms / RENEWALS_A_LEASE;
        if !self.shared.board.renews(task_id, attempt, self.shared.clock.mono(), every_ms) {
            return;
        }
        let command = Command::Report { task_id, attempt, report: Report::Heartbeat };
        // Free, for it is bounded by itself; and what was said before it has been taken already.
        let _ = self.shared.inbox.push(Request::Command { command, reply: Reply::Nobody }, Bound::Free);
    }

    /// Whether the store takes writes; if not, why, in words.
    pub fn storage(&self) -> Result<(), String> {
        self.shared.broken().map_or(Ok(()), Err)
    }

    /// Whether the hub is going down.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Resolves when watchers and workers should be told goodbye.
    pub async fn goodbye(&self) {
        let _ = self.shared.goodbye.subscribe().wait_for(|goodbye| *goodbye).await;
    }

    /// Takes no new work, waits up to `patience` for what runs, gives the rest back, and then has goodbyes said to
    /// watchers; workers are told by [`dismiss_workers`](Self::dismiss_workers).
    pub async fn drain(&self, patience: Duration) {
        self.shared.draining.store(true, Ordering::Relaxed);
        // A store that takes no writes keeps nobody from finishing, and nothing from being given back by the restart.
        let _ = self.ask(Command::Drain, Bound::Free).await;
        self.shared.push_to_all(|| Push::Drain);
        let mut running = self.shared.board.running();
        let _ = tokio::time::timeout(patience, running.wait_for(|running| *running == 0)).await;
        let _ = self.ask(Command::GiveBack, Bound::Free).await;
        self.shared.goodbye.send_replace(true);
        self.shared.feed.dismiss();
    }

    /// Tells every connected worker goodbye.
    pub fn dismiss_workers(&self) {
        self.shared.push_to_all(|| Push::Goodbye);
    }

    /// Resolves when the hub has ended, told to or not.
    pub async fn ended(&self) -> Ended {
        self.shared.until_stopped().await
    }

    /// Ends the writer once everything that was accepted is written. The store is closed when this returns.
    pub async fn stop(&self) {
        let _ = self.shared.inbox.push(Request::Stop, Bound::Free);
        self.shared.until_stopped().await;
    }
}

/// A claim, and what it brought until somebody has it. When whoever made it is gone, it is taken back, and so are the
/// tasks: their attempt counts nothing.
struct OpenClaim<'a> {
    shared: &'a Arc<Shared>,
    ticket: u64,
    answer: oneshot::Receiver<Result<Vec<Given>, HubError>>,
    given: Option<Result<Vec<Given>, HubError>>,
}

impl OpenClaim<'_> {
    async fn arrived(&mut self) {
        self.given = Some((&mut self.answer).await.unwrap_or(Err(HubError::Stopped)));
    }

    fn look(&mut self) {
        if self.given.is_none() {
            self.given = self.answer.try_recv().ok();
        }
    }

    /// The tasks whose payloads are to be read.
    fn stored(&mut self) -> Result<Vec<Arc<Task>>, HubError> {
        match &self.given {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(given)) => {
                let stored = |given: &&Given| matches!(given.body, Body::Stored);
                Ok(given.iter().filter(stored).map(|given| given.task.clone()).collect())
            }
            None => Ok(Vec::new()),
        }
    }

    fn take(&mut self) -> Vec<Given> {
        self.given.take().and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for OpenClaim<'_> {
    fn drop(&mut self) {
        self.shared.close_claim(self.ticket);
        self.look();
        let unclaim = Command::Unclaim { ticket: self.ticket };
        let release = |given: Given| Command::Report {
            task_id: given.task.task_id,
            attempt: given.task.attempt,
            report: Report::Release,
        };
        for command in std::iter::once(unclaim).chain(self.take().into_iter().map(release)) {
            let _ = self.shared.inbox.push(Request::Command { command, reply: Reply::Nobody }, Bound::Free);
        }
    }
}

impl Shared {
    /// A worker was told whether an attempt is to stop.
    pub(super) fn told(&self, task_id: TaskId, attempt: u32, to_stop: bool) {
        if to_stop && self.board.is_first_told(task_id, attempt) {
            let command = Command::CancelDelivered { task_id, attempt };
            let _ = self.inbox.push(Request::Command { command, reply: Reply::Nobody }, Bound::Free);
        }
    }

    pub(super) fn progress(
        &self,
        task_id: TaskId,
        attempt: u32,
        progress: Option<Progress>,
        checkpoint: Option<Json>,
        kept: Option<oneshot::Sender<Result<(), HubError>>>,
        bound: Bound,
    ) -> Result<Heard, HubError> {
        let wrong = |invalid| HubError::Refused(Refusal::Invalid(invalid));
        let progress = progress.map(Progress::checked).transpose().map_err(wrong)?;
        if let Some(checkpoint) = &checkpoint {
            crate::task::Invalid::json("checkpoint", checkpoint, crate::task::CHECKPOINT_BYTES_MAX).map_err(wrong)?;
            self.check_room(checkpoint.len(), bound)?;
        }
        let heard = match progress {
            Some(progress) => {
                let heard = self.board.tick(task_id, attempt, progress).map_err(HubError::Refused)?;
                self.feed.tick(task_id);
                for workflow_id in self.board.stir(heard.workflow_id) {
                    self.feed.tick(workflow_id);
                }
                heard
            }
            None if checkpoint.is_some() => self.board.checkpoint(task_id, attempt).map_err(HubError::Refused)?,
            None => self.board.check(task_id, attempt).map_err(HubError::Refused)?,
        };
        if let Some(checkpoint) = checkpoint {
            let aside = Aside::Checkpoint { task_id, checkpoint };
            let _ = self.inbox.push(Request::Aside { aside, reply: kept }, Bound::Free);
        }
        Ok(heard)
    }

    /// Turns away, before anything of it has been shown, what there is no room for. A socket is not read in that case, so
    /// what it has said is taken.
    fn check_room(&self, bytes: usize, bound: Bound) -> Result<(), HubError> {
        match bound == Bound::Free || self.inbox.has_room_for(bytes) {
            true => Ok(()),
            false => Err(HubError::Overloaded),
        }
    }

    pub(super) fn log(
        &self,
        task_id: TaskId,
        attempt: u32,
        lines: Vec<(Level, String)>,
        bound: Bound,
    ) -> Result<Heard, HubError> {
        // A socket has said them already; it is not read again before there is room.
        let bytes = || lines.iter().map(|(_, message)| message.len() + LINE_BYTES).sum();
        if bound != Bound::Free && !self.unwritten.has_room_for(bytes()) {
            return Err(HubError::Overloaded);
        }
        let pass_on = |lines: Arc<[LogLine]>| {
            // In this order: a reader that comes in between finds them there, and is not told.
            if self.unwritten.push(task_id, lines.clone()) {
                let _ = self.inbox.push(Request::Lines, Bound::Free);
            }
            self.feed.logs(task_id, &lines);
        };
        self.board.number_lines(task_id, attempt, lines, pass_on)
    }
}
