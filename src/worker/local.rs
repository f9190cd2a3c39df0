//! A hub inside a program, with handlers in the same program: no socket, no second process.
//!
//! The handlers are those of a [`Worker`](super::Worker), and so is everything they are promised; only what carries their
//! words is the hub's own [`WorkerLink`] instead of a WebSocket. A hub embedded like this can also be served to others:
//! see `taskhub::server`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, poll_fn};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{Attempt, Slot};
use super::outbox::{News, Outbox};
use super::roster::{Refused, Report, Roster, State, Stop};
use super::session::{Word, handler_of, run};
use super::{Context, Handler, TaskFailure, Worker, WorkerError};
use crate::engine::{Accepts, Report as Reported};
use crate::hub::{HandedOut, Hub, HubError, HubOptions, Principal, Pushed, Until, WorkerLink};
use crate::store::{SqliteOptions, SqliteStore, Store, StoreError, in_memory};
use crate::task::{Name, NewTask, Pattern, PatternSet, Task, TaskId, TaskView};
use crate::wire::Held;

/// One wait is renewed after this; it bounds nothing but a single subscription.
const WAIT_STEP: Duration = Duration::from_secs(60);
/// A sign of life is given this often.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The pause before a payload that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_millis(250);

/// Builds a hub for the same program.
pub struct HubBuilder {
    folder: Option<PathBuf>,
    options: HubOptions,
    worker: Worker,
}

/// Why an embedded hub did not start.
#[derive(Debug)]
pub enum OpenError {
    Store(StoreError),
    /// A handler's type, the queues or the concurrency are not what a hub takes.
    Handlers(WorkerError),
    Hub(HubError),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Store(error) => write!(f, "open the store: {error}"),
            OpenError::Handlers(error) => write!(f, "register the handlers: {error}"),
            OpenError::Hub(error) => write!(f, "attach the handlers: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl Hub {
    /// A hub for the same program. Without [`data`](HubBuilder::data) it forgets everything when it ends.
    ///
    /// ```
    /// use taskhub::Hub;
    /// use taskhub::task::NewTask;
    /// use taskhub::worker::{Context, TaskFailure};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::builder()
    ///     .register("square", |ctx: Context| async move {
    ///         let n: u64 = ctx.payload()?;
    ///         Ok::<_, TaskFailure>(n * n)
    ///     })
    ///     .open()
    ///     .await?;
    /// let task_id = hub.submit(NewTask::new("square").payload(&12)?).await?;
    /// let task = hub.wait(task_id).await?.expect("it was just submitted");
    /// assert_eq!(task.result.unwrap().to::<u64>()?, 144);
    /// # hub.shutdown(std::time::Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> HubBuilder {
        // The address is never used: nothing is dialled.
        let worker = Worker::new("http://localhost").id("in-process").queues(["*"]).concurrency(16);
        HubBuilder { folder: None, options: HubOptions::default(), worker }
    }

    /// Takes a task. It is on disk when this returns.
    pub async fn submit(&self, task: NewTask) -> Result<TaskId, HubError> {
        let submitted = self.submit_all(&Principal::default(), vec![task], None).await?;
        Ok(submitted.task_ids[0])
    }

    /// Cancels a task, or asks what runs it to stop. [`wait`](Self::wait) tells when it has.
    pub async fn cancel(&self, task_id: TaskId) -> Result<(), HubError> {
        self.cancel_as(&Principal::default(), task_id, None).await.map(|_| ())
    }

    /// A task as it is now, with payload and result. `None`: there is no such task.
    pub async fn get(&self, task_id: TaskId) -> Result<Option<TaskView>, HubError> {
        Ok(self.task(task_id).await?.map(|stored| stored.view()))
    }

    /// A task once it is final, however long that takes. `None`: there is no such task.
    pub async fn wait(&self, task_id: TaskId) -> Result<Option<TaskView>, HubError> {
        loop {
            let stored = self.wait_for(task_id, Until::Final, WAIT_STEP).await?;
            match stored.map(|stored| stored.view()) {
                Some(task) if !task.status.is_final() => {}
                task => return Ok(task),
            }
        }
    }

    /// Waits for all of these, in any order, and answers in theirs.
    pub async fn wait_all(&self, task_ids: &[TaskId]) -> Result<Vec<Option<TaskView>>, HubError> {
        join_all(task_ids.iter().map(|task_id| self.wait(*task_id))).await.into_iter().collect()
    }

    /// How many tasks are not final.
    pub fn active(&self) -> u64 {
        let tasks = self.stats().tasks;
        tasks.waiting + tasks.scheduled + tasks.pending + tasks.running
    }

    /// Whether there is such a task and it is not final.
    pub fn is_active(&self, task_id: TaskId) -> bool {
        self.shown(task_id).is_some_and(|task| !task.status.is_final())
    }

    /// Takes no new work, gives what runs up to `drain` to finish, and closes the store. What had not finished is pending
    /// when the hub is opened again.
    pub async fn shutdown(&self, drain: Duration) {
        self.drain(drain).await;
        self.dismiss_workers();
        self.stop().await;
    }
}

impl HubBuilder {
    /// Keeps tasks in this folder.
    pub fn data(mut self, folder: impl Into<PathBuf>) -> HubBuilder {
        self.folder = Some(folder.into());
        self
    }

    /// How long final tasks are kept; 24 h.
    pub fn retain(mut self, retain: Duration) -> HubBuilder {
        self.options.retain = retain;
        self
    }

    /// How many tasks the handlers run at once, 1–1,000; 16.
    pub fn concurrency(mut self, concurrency: u32) -> HubBuilder {
        self.worker = self.worker.concurrency(concurrency);
        self
    }

    /// Runs tasks of this type with `run`, as [`Worker::register`](super::Worker::register) does.
    pub fn register<F, Fut, T, E>(mut self, task_type: impl Into<String>, run: F) -> HubBuilder
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize,
        E: Into<TaskFailure>,
    {
        self.worker = self.worker.register(task_type, run);
        self
    }

    /// Opens the store, takes up what was unfinished, and lets the handlers begin.
    pub async fn open(self) -> Result<Hub, OpenError> {
        let HubBuilder { folder, options, worker } = self;
        let opening = tokio::task::spawn_blocking(move || {
            let store: Box<dyn Store> = match folder {
                Some(folder) => Box::new(SqliteStore::open(&folder, SqliteOptions::default())?),
                None => Box::new(in_memory()?),
            };
            Hub::start(store, options)
        });
        let hub = match opening.await {
            Ok(opened) => opened.map_err(OpenError::Store)?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if !worker.handlers.is_empty() {
            Local::attach(&hub, worker).await?;
        }
        Ok(hub)
    }
}

/// The handlers of this program at work.
struct Local {
    link: WorkerLink,
    handlers: BTreeMap<String, Handler>,
    cancel_grace: Duration,
    roster: Roster<AbortOnDropHandle<()>>,
    outbox: Arc<Outbox>,
    graces: Vec<(Instant, Held)>,
}

impl Local {
    async fn attach(hub: &Hub, worker: Worker) -> Result<(), OpenError> {
        let hello = worker.hello().map_err(OpenError::Handlers)?;
        // `hello` has checked every one of these.
        let patterns = |texts: Option<Vec<String>>| {
            PatternSet::new(texts.iter().flatten().filter_map(|text| Pattern::parse(text).ok()).collect())
        };
        let accepts = Accepts { task_types: patterns(hello.task_types), queues: patterns(hello.queues) };
        let welcome = hub
            .attach_worker(Name::new(&hello.worker_id), accepts, worker.concurrency, None)
            .await
            .map_err(OpenError::Hub)?;
        let local = Local {
            link: welcome.link,
            handlers: worker.handlers,
            cancel_grace: worker.cancel_grace,
            roster: Roster::new(),
            outbox: Arc::default(),
            graces: Vec::new(),
        };
        local.outbox.set_up(true);
        tokio::spawn(local.run());
        Ok(())
    }

    async fn run(mut self) {
        let (mut pushed, mut news) = (Vec::new(), Vec::new());
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let grace = self.graces.iter().map(|(at, _)| *at).min();
            let outbox = self.outbox.clone();
            tokio::select! {
                given = self.link.next(&mut pushed) => match given {
                    Ok(()) => {
                        for push in pushed.drain(..) {
                            if self.heard(push) == Connection::Over {
                                return;
                            }
                        }
                    }
                    // The store could not be read. What was handed out waits in the link; it is read again.
                    Err(error) => {
                        tracing::warn!(%error, "could not read what was handed out, trying again");
                        tokio::time::sleep(READ_AGAIN).await;
                    }
                },
                // With too much waiting for the writer handlers wait too; it is looked at again with the next heartbeat.
                () = poll_fn(|cx| outbox.poll(cx)), if self.link.has_room() => {
                    outbox.take(&mut news);
                    for news in news.drain(..) {
                        self.take(news);
                    }
                }
                () = until(grace) => self.end_graces(),
                _ = heartbeat.tick() => self.link.heard(),
            }
        }
    }

    fn heard(&mut self, push: Pushed) -> Connection {
        match push {
            Pushed::Run(given) => self.start(given),
            Pushed::Stop { task_id, attempt, reason } => {
                self.stop(Held { task_id, attempt }, Stop::Cancel, reason.as_deref().unwrap_or("cancelled"));
                self.link.told_to_stop(task_id, attempt);
            }
            Pushed::Ack { task_id, attempt } => self.roster.acknowledged(&Held { task_id, attempt }),
            Pushed::Refused { task_id, attempt, refusal } => {
                let held = Held { task_id, attempt };
                let code = if refusal == crate::engine::Refusal::LeaseLost { "lease_lost" } else { "refused" };
                match self.roster.refused(&held, code, &refusal.to_string()) {
                    Refused::Over => self.stop(held, Stop::Over, "the hub has ended the attempt"),
                    Refused::Report => self.tell(held),
                    Refused::Nothing => {}
                }
            }
            Pushed::Drain => {}
            Pushed::Goodbye | Pushed::Replaced => return Connection::Over,
        }
        Connection::Open
    }

    fn start(&mut self, given: HandedOut) {
        let HandedOut { task, payload, checkpoint } = given;
        let held = Held { task_id: task.task_id, attempt: task.attempt };
        let attempt = Attempt::new(held, Box::new(view(&task, payload)), checkpoint, self.outbox.clone());
        let handler = handler_of(&self.handlers, task.task_type.as_str());
        let word = Word { outbox: self.outbox.clone(), held, ending: None };
        let running = tokio::spawn(run(word, handler, attempt.clone()));
        self.roster.add(attempt, AbortOnDropHandle::new(running));
    }

    fn stop(&mut self, held: Held, why: Stop, reason: &str) {
        let Some(entry) = self.roster.stop(&held, why, reason) else { return };
        let lost = why >= Stop::Over;
        if entry.attempt.stop(reason, lost) && !lost {
            self.graces.push((Instant::now() + self.cancel_grace, held));
        } else {
            self.abort(&held);
        }
    }

    fn abort(&self, held: &Held) {
        if let Some(State::Running { run, .. }) = self.roster.get(held).map(|entry| &entry.state) {
            run.abort();
        }
    }

    fn end_graces(&mut self) {
        let now = Instant::now();
        let (over, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.graces).into_iter().partition(|(at, _)| *at <= now);
        self.graces = rest;
        for (_, held) in over {
            self.abort(&held);
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Ended(held, ending) => {
                if self.roster.ended(&held, ending) {
                    self.tell(held);
                }
            }
            News::Said(attempt) => {
                self.pass_on(attempt.held, &mut attempt.slot());
                attempt.make_room();
            }
        }
    }

    /// How an attempt ended, after all that was said before.
    fn tell(&self, held: Held) {
        let Some(entry) = self.roster.get(&held) else { return };
        let State::Reported(report) = &entry.state else { return };
        self.pass_on(held, &mut entry.attempt.slot());
        let report = match report {
            Report::Complete(result) => Reported::Complete { result: result.clone() },
            Report::Fail(TaskFailure { failure, retryable, retry_after_ms }) => {
                Reported::Fail { error: failure.clone(), retryable: *retryable, retry_after_ms: *retry_after_ms }
            }
            Report::Cancelled => Reported::Cancelled,
            Report::Release => Reported::Release,
        };
        self.link.report(held.task_id, held.attempt, report);
    }

    fn pass_on(&self, held: Held, slot: &mut Slot) {
        let Held { task_id, attempt } = held;
        let lines: Vec<_> = slot.take_lines().into_iter().map(|line| (line.level, line.message)).collect();
        // A word of an attempt that is over is lost with it: its end is on its way here.
        if !lines.is_empty() {
            let _ = self.link.log(task_id, attempt, lines);
        }
        let (progress, checkpoint) = (slot.progress.take(), slot.checkpoint.take());
        if progress.is_some() || checkpoint.is_some() {
            let _ = self.link.progress(task_id, attempt, progress, checkpoint);
        }
    }
}

#[derive(PartialEq)]
enum Connection {
    Open,
    Over,
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn view(task: &Task, payload: Option<crate::task::Json>) -> TaskView {
    let mut view = TaskView::of(&task.to_json());
    view.payload = payload;
    view
}
