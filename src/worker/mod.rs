//! Runs tasks: the worker's side of the worker protocol.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use taskhub::task::Progress;
//! use taskhub::worker::{Context, TaskFailure, Worker};
//!
//! Worker::new("http://127.0.0.1:8080")
//!     .concurrency(4)
//!     .register("report", |ctx: Context| async move {
//!         let months: u64 = ctx.payload()?;
//!         for month in 0..months {
//!             ctx.progress(Progress::of(month, months));
//!             tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//!         }
//!         Ok::<_, TaskFailure>(months)
//!     })
//!     .run(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//! * A worker keeps one WebSocket, and comes back for as long as it runs. It ends by itself only when the hub refuses
//!   it: a wrong token, or another worker with the same id.
//! * How a task ended is kept and told again after a cut, until the hub acknowledged or refused it.
//! * A task whose attempt is lost (the hub gave it to somebody else) is dropped here, and nothing is said of it.
//! * Progress conflates here already: the first report at once, then the latest some fifty times a second, and the last
//!   one always before the end. Log lines are gathered, and bounded.
//! * When asked to stop, a worker takes no new work, finishes what it runs within a limit, and gives the rest back.
//!
//! # Inside
//! One future owns the socket (`session`). It reads all there is to read, spawns a future for each task, takes what
//! the tasks left in the `outbox`, and writes many answers as one message. What is held, and what was reported and
//! not yet acknowledged, stands in the `roster`, which knows no sockets.

pub(crate) mod attempt;
mod badge;
mod command;
mod config;
mod failure;
pub(crate) mod handlers;
mod lines;
mod listener;
pub(crate) mod outbox;
mod output;
mod program;
mod redraws;
pub(crate) mod roster;
mod session;
pub(crate) mod spawn;
#[cfg(test)]
mod tests;
pub(crate) mod upload;
mod words;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

pub use attempt::Context;
pub use command::{CommandRun, CommandSpec, Ended, Exit, Stopped, Tee};
pub use config::{ConfigError, TaskConfig, WorkerConfig};
pub use failure::TaskFailure;
pub use program::NotStarted;
pub use spawn::SpawnError;
pub use upload::UploadError;

use self::handlers::{Handler, Handlers};
use crate::dial::{BadUrl, HubUrl};
use crate::task::{Json, NameError, Pattern, RESULT_BYTES_MAX};
use crate::wire::WorkerHello;

pub use crate::dial::{NoToken, Token};
pub use crate::wire::CONCURRENCY_MAX;

/// Runs tasks with the functions registered with it.
pub struct Worker {
    url: String,
    ca_cert: Option<PathBuf>,
    token: Option<Token>,
    worker_id: Option<String>,
    queues: Option<Vec<String>>,
    pub(crate) concurrency: u32,
    pub(crate) cancel_grace: Duration,
    drain_limit: Duration,
    pub(crate) handlers: Handlers,
}

/// Why a worker ended without being asked to.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerError {
    /// The address is none; nothing was sent.
    Address(BadUrl),
    /// A name, a pattern or a number the hub would not take.
    Setting { field: &'static str, why: String },
    /// The hub does not want this worker: it does not know who is calling (4501, 4503), or a newer connection has the
    /// same `worker_id` (4506). `code` is how it closed the socket, if it got that far.
    Refused { code: Option<u16>, reason: String },
    /// It was asked to stop and did, but the hub could not be told in time how so many attempts ended. They are handed
    /// out again.
    Unheard { attempts: usize },
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::Address(bad) => bad.fmt(f),
            WorkerError::Setting { field, why } => write!(f, "{field} {why}"),
            WorkerError::Refused { code: Some(4_506), .. } => {
                f.write_str("a newer worker with the same worker_id has taken over")
            }
            WorkerError::Refused { code: Some(code), reason } => {
                write!(f, "the hub refused this worker ({code} {reason})")
            }
            WorkerError::Unheard { attempts } => {
                write!(f, "stopped before the hub knew how {attempts} of its tasks ended")
            }
            WorkerError::Refused { code: None, reason } => write!(f, "the hub refused this worker: {reason}"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl Worker {
    /// A worker of the hub at this address, such as `http://127.0.0.1:8080`. It serves the queue `default`, one task at
    /// a time, under a random id.
    pub fn new(url: impl Into<String>) -> Worker {
        Worker {
            url: url.into(),
            ca_cert: None,
            token: None,
            worker_id: None,
            queues: None,
            concurrency: 1,
            cancel_grace: Duration::from_secs(5),
            drain_limit: Duration::from_secs(30),
            handlers: Handlers::default(),
        }
    }

    /// The name it is known by: 1–128 of `A-Z a-z 0-9 . _ : -`. The newest connection of a name replaces the older one.
    pub fn id(mut self, worker_id: impl Into<String>) -> Worker {
        self.worker_id = Some(worker_id.into());
        self
    }

    /// A hub at `https://…` must be known to the certificates of this file, in PEM, instead of the machine's.
    pub fn ca_cert(mut self, path: impl Into<PathBuf>) -> Worker {
        self.ca_cert = Some(path.into());
        self
    }

    /// Says who is calling: a text, or a [`Token`] that is fetched, and renewed before it expires.
    pub fn token(mut self, token: impl Into<Token>) -> Worker {
        self.token = Some(token.into());
        self
    }

    /// The queues it serves; a name may end in `*`.
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Worker {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// How many tasks it runs at once, 1–1,000.
    pub fn concurrency(mut self, concurrency: u32) -> Worker {
        self.concurrency = concurrency;
        self
    }

    /// How long a function that looks at [`Context::cancelled`] or [`Context::is_cancelled`] has to stop; 5 s. One that
    /// never looks is dropped at once, where it awaits.
    pub fn cancel_grace(mut self, grace: Duration) -> Worker {
        self.cancel_grace = grace;
        self
    }

    /// How long running tasks may take to finish once the worker is asked to stop; 30 s. The rest is given back.
    pub fn drain_limit(mut self, limit: Duration) -> Worker {
        self.drain_limit = limit;
        self
    }

    /// Runs tasks of this type with `run`. The type may end in `*` (`ingest.*`); the longest match is taken.
    ///
    /// What `run` returns is the result, up to 1 MiB of JSON text; one that is larger or no JSON is uploaded
    /// ([`Context::put_result`]). An error fails the try; a panic fails it too.
    pub fn register<F, Fut, T, E>(self, task_type: impl Into<String>, run: F) -> Worker
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize,
        E: Into<TaskFailure>,
    {
        self.register_raw(task_type.into(), move |ctx| {
            let outcome = run(ctx);
            async move {
                let result = outcome.await.map_err(Into::into)?;
                Json::of(&result).map_err(|why| TaskFailure::new("result", format!("is no JSON: {why}")).permanent())
            }
            .boxed()
        })
    }

    /// Registers a function whose result is JSON text already.
    fn register_raw(
        mut self,
        task_type: String,
        run: impl Fn(Context) -> BoxFuture<'static, Result<Json, TaskFailure>> + Send + Sync + 'static,
    ) -> Worker {
        let checked: Handler = Arc::new(move |ctx| {
            let outcome = run(ctx);
            async move {
                let result = outcome.await?;
                match result.check(RESULT_BYTES_MAX) {
                    Ok(()) => Ok(result),
                    Err(why) => Err(TaskFailure::new("result", format!("the result {why}")).permanent()),
                }
            }
            .boxed()
        });
        self.handlers.insert(task_type, checked);
        self
    }

    /// Runs each task of this type as a command of its own.
    pub fn register_command(self, task_type: impl Into<String>, command: CommandSpec) -> Worker {
        let command = Arc::new(command);
        let url = self.url.clone();
        self.register_raw(task_type.into(), move |ctx| command::run_task(command.clone(), url.clone(), ctx).boxed())
    }

    /// Works until `shutdown` is ready and what runs is finished or given back, or until the hub refuses it. Dropping
    /// the future drops what runs.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let url = HubUrl::parse_trusting(&self.url, self.ca_cert.as_deref()).map_err(WorkerError::Address)?;
        let hello = self.hello()?;
        let settings = session::Settings {
            url,
            hello,
            token: self.token,
            handlers: self.handlers,
            cancel_grace: self.cancel_grace,
            drain_limit: self.drain_limit,
        };
        session::Session::new(settings).run(shutdown).await
    }

    pub(crate) fn hello(&self) -> Result<WorkerHello, WorkerError> {
        let setting = |field| move |why: NameError| WorkerError::Setting { field, why: why.to_string() };
        let worker_id = self.worker_id.clone().unwrap_or_else(|| format!("worker-{:012x}", fastrand::u64(..1 << 48)));
        crate::task::Name::parse(&worker_id).map_err(setting("worker_id"))?;
        for queue in self.queues.iter().flatten() {
            Pattern::parse(queue).map_err(setting("queues"))?;
        }
        for task_type in self.handlers.task_types() {
            Pattern::parse(task_type).map_err(setting("task_type"))?;
        }
        if self.handlers.is_empty() {
            return Err(WorkerError::Setting { field: "task_types", why: "must not be empty: register one".into() });
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            let why = format!("must be from 1 to {CONCURRENCY_MAX}");
            return Err(WorkerError::Setting { field: "concurrency", why });
        }
        Ok(WorkerHello {
            token: None,
            worker_id,
            task_types: Some(self.handlers.task_types().cloned().collect()),
            queues: self.queues.clone(),
            concurrency: Some(self.concurrency),
            holding: None,
        })
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("url", &self.url)
            .field("worker_id", &self.worker_id)
            .field("task_types", &self.handlers.task_types())
            .finish_non_exhaustive()
    }
}
