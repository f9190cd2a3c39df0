//! A hub inside a program, with handlers in the same program: no socket, no second process.
//!
//! The handlers are those of a [`Worker`], and so is everything they are promised; only what carries their words is the
//! hub's own [`WorkerLink`](crate::hub::WorkerLink) instead of a WebSocket (`local`). A hub embedded like this can also be
//! served to others: see `taskhub::server`.

mod local;
mod uploads;

use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;

use self::local::Local;
use crate::hub::{Hub, HubError, HubOptions, Refusal, Until};
use crate::settings::{QueueSettings, ScheduleSpec, TaskTypeSpec};
use crate::store::{SqliteOptions, SqliteStore, Store, StoreError, in_memory};
use crate::task::{Invalid, Name, NewTask, NewWorkflow, TaskId, TaskView};
use crate::wire::{QueueView, ScheduleView, TaskTypeView};
use crate::worker::{Context, TaskFailure, Worker, WorkerError};

/// One wait is renewed after this; it bounds nothing but a single subscription.
const WAIT_STEP: Duration = Duration::from_secs(60);

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
        let submitted = self.submit_all(vec![task], None).await?;
        Ok(submitted.task_ids[0])
    }

    /// Takes a workflow and all of its tasks, or nothing. They are on disk when this returns. The workflow is a task itself:
    /// [`wait`](Self::wait) waits for all of it.
    ///
    /// ```
    /// use taskhub::Hub;
    /// use taskhub::task::{NewTask, NewWorkflow};
    /// use taskhub::worker::{Context, TaskFailure};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::builder()
    ///     .register("square", |ctx: Context| async move {
    ///         let n: u64 = ctx.payload()?;
    ///         Ok::<_, TaskFailure>(n * n)
    ///     })
    ///     .register("sum", |ctx: Context| async move {
    ///         let all: Vec<u64> = ctx.payload()?;
    ///         Ok::<_, TaskFailure>(all.iter().sum::<u64>())
    ///     })
    ///     .open()
    ///     .await?;
    /// let squares = (1..=10).map(|n| NewTask::new("square").payload(&n)).collect::<Result<_, _>>()?;
    /// let sum = NewTask::new("sum").payload(&serde_json::json!({"$result": "@group"}))?;
    /// let workflow_id = hub.run_workflow(NewWorkflow::chord("Sum of squares", squares, sum).output("then")).await?;
    /// let workflow = hub.wait(workflow_id).await?.expect("it was just submitted");
    /// assert_eq!(workflow.result.unwrap().to::<u64>()?, 385);
    /// # hub.shutdown(std::time::Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_workflow(&self, workflow: NewWorkflow) -> Result<TaskId, HubError> {
        let submitted = self.submit_workflow(workflow, None).await?;
        Ok(submitted.task_ids[0])
    }

    /// Sets what is submitted at which times. The one of this name, if there is one, becomes this.
    ///
    /// ```
    /// use taskhub::Hub;
    /// use taskhub::settings::{Overlap, ScheduleSpec};
    /// use taskhub::task::NewTask;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::builder().open().await?;
    /// let nightly = ScheduleSpec::new(NewTask::new("report"))
    ///     .cron("30 2 * * *")
    ///     .time_zone("Europe/Berlin")
    ///     .overlap(Overlap::Skip);
    /// let schedule = hub.put_schedule("nightly", nightly).await?;
    /// assert_eq!(schedule.next.len(), 5);
    /// # hub.shutdown(std::time::Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_schedule(&self, name: &str, schedule: ScheduleSpec) -> Result<ScheduleView, HubError> {
        let (schedule, _) = self.set_schedule(named(name)?, schedule).await?;
        Ok(schedule)
    }

    /// Sets what is limited in a queue: all of it, but whether it is paused.
    ///
    /// ```
    /// use taskhub::Hub;
    /// use taskhub::settings::{FairBy, QueueSettings};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::builder().open().await?;
    /// let fair = QueueSettings { user_concurrency: Some(3), fair_by: FairBy::User, ..QueueSettings::default() };
    /// hub.put_queue("imports", fair).await?;
    /// # hub.shutdown(std::time::Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_queue(&self, name: &str, settings: QueueSettings) -> Result<QueueView, HubError> {
        let (queue, _) = self.set_queue(named(name)?, settings).await?;
        Ok(queue)
    }

    /// Declares a task type, all of it. It holds for all that is submitted once this returned.
    ///
    /// ```
    /// use taskhub::Hub;
    /// use taskhub::settings::TaskTypeSpec;
    /// use taskhub::task::{Defaults, NewTask};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::builder().open().await?;
    /// let defaults = Defaults { queue: Some("slow".into()), max_attempts: Some(3), ..Defaults::default() };
    /// let schema = serde_json::json!({"type": "object", "required": ["month"]});
    /// hub.put_task_type("report", TaskTypeSpec::new(defaults).payload_schema(&schema)?).await?;
    /// assert!(hub.submit(NewTask::new("report")).await.is_err(), "it has no month");
    /// # hub.shutdown(std::time::Duration::from_secs(5)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_task_type(&self, name: &str, task_type: TaskTypeSpec) -> Result<TaskTypeView, HubError> {
        let (task_type, _) = self.set_task_type(named(name)?, task_type).await?;
        Ok(task_type)
    }

    /// Cancels a task, or asks what runs it to stop. [`wait`](Self::wait) tells when it has.
    pub async fn cancel(&self, task_id: TaskId) -> Result<(), HubError> {
        self.cancel_task(task_id, None).await.map(|_| ())
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

fn named(name: &str) -> Result<Name, HubError> {
    Name::parse(name).map_err(|why| HubError::Refused(Refusal::Invalid(Invalid::value("name", why.to_string()))))
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

    /// Lets callbacks go to private and local addresses, too.
    pub fn callbacks_private(mut self) -> HubBuilder {
        self.options.callbacks.private = true;
        self
    }

    /// How many tasks the handlers run at once, 1–1,000; 16.
    pub fn concurrency(mut self, concurrency: u32) -> HubBuilder {
        self.worker = self.worker.concurrency(concurrency);
        self
    }

    /// Runs tasks of this type with `run`, as [`Worker::register`] does.
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
        let HubBuilder { folder, mut options, worker } = self;
        options.callbacks.folder = folder.clone();
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
