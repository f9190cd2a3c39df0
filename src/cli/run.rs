//! `taskhub run`: one command as a tracked task, here.
//!
//! The task waits in a queue that only this process serves, so nobody else takes it. The command is what counts: once it
//! runs it is not stopped because the hub is away, nor because the hub gave the task up meanwhile; only whoever cancels
//! it, here or at the hub, stops it. And it is not left undone because the hub cannot take the task: unless told
//! otherwise, it then runs without being tracked. A hub that took the task and went away before it handed it out is
//! followed again when it is back.
//!
//! Nor does the task outlive the process: lost while it runs, it is poison; and while it waits, before it was handed out
//! or since a hub that went down gave it back, it fails as lost once nobody has been there for it.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::outcome::{FAILED, Failed, Outcome, tell};
use super::submit::{Words, labels};
use super::worker::listen;
use crate::children;
use crate::client::{Client, ClientError};
use crate::signals::Signals;
use crate::task::{Json, NewTask, Status, TITLE_CHARS_MAX, TaskId, TaskView};
use crate::worker::{CommandRun, CommandSpec, Context, NotStarted, Stopped, TaskFailure, Tee, Worker, WorkerError};

/// How long this process may be away from a task that waits for it. It comes back to a hub within a few seconds.
const UNSERVED_MS: u64 = 6_000;
/// How long the hub may take to hear how it ended: as long as a hub that is started again needs.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long the hub may take to pass on a cancel; then the command is stopped without it.
const CANCEL_MAX: Duration = Duration::from_secs(2);
/// How long a command waits for a hub that does not answer, or does not hand its task out, before it runs without.
const DOWN_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    words: Words,
    /// Its task type
    #[arg(long = "type", value_name = "TYPE", default_value = "run")]
    task_type: String,
    /// The hub's address
    #[arg(long, value_name = "URL", env = "TASKHUB_URL", default_value = super::DEFAULT_URL)]
    hub: String,
    /// Believe a hub at https:// by the certificates of this file, in PEM, instead of the machine's
    #[arg(long, value_name = "FILE", env = "TASKHUB_CA_CERT")]
    ca_cert: Option<PathBuf>,
    /// Between SIGTERM and SIGKILL when it is cancelled
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    kill_grace: Duration,
    /// If the hub cannot take the task: run the command untracked, or fail with exit code 3
    #[arg(long, value_name = "WHAT", default_value = "run")]
    if_down: IfDown,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What becomes of the command when the hub cannot take its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IfDown {
    Run,
    Fail,
}

/// The command, once it was started.
enum Started {
    Not,
    Running(Arc<CommandRun>),
    /// It could not be.
    Never(NotStarted),
}

struct Run {
    spec: CommandSpec,
    url: String,
    started: Mutex<Started>,
    /// The hub has handed the task out.
    handed_out: AtomicBool,
    /// What to exit with, once that is known.
    exit: watch::Sender<Option<u8>>,
}

impl Run {
    /// Starts the command, or tells the one that runs whom to talk to.
    fn start(self: &Arc<Run>, ctx: Option<Context>) -> Result<Arc<CommandRun>, NotStarted> {
        let mut started = self.started.lock();
        match &*started {
            Started::Running(command) => {
                if let Some(ctx) = ctx {
                    command.attach(ctx);
                }
                return Ok(command.clone());
            }
            Started::Never(why) => return Err(why.clone()),
            Started::Not => {}
        }
        match CommandRun::start(&self.spec, &self.url, ctx, Tee::On) {
            Ok(command) => {
                *started = Started::Running(command.clone());
                let (run, ending) = (self.clone(), command.clone());
                tokio::spawn(async move {
                    let code = ending.exit().await.status.exit_code();
                    run.exit.send_replace(Some(code));
                });
                Ok(command)
            }
            Err(why) => {
                tell(format_args!("taskhub: {why}"));
                *started = Started::Never(why.clone());
                self.exit.send_replace(Some(why.exit_code));
                Err(why)
            }
        }
    }

    /// Starts the command without a task to follow it.
    fn start_alone(self: &Arc<Run>, why: &str) {
        tell(format_args!("taskhub: {why}; the command runs untracked"));
        // Why it does not start has been told then, and its exit code is ours.
        let _ = self.start(None);
    }

    fn stop(&self) {
        if let Started::Running(command) = &*self.started.lock() {
            command.stop(Stopped::Cancelled);
        }
    }

    fn is_started(&self) -> bool {
        !matches!(*self.started.lock(), Started::Not)
    }
}

async fn follow(run: Arc<Run>, ctx: Context) -> Result<Json, TaskFailure> {
    let command = run.start(Some(ctx.clone())).map_err(|why| why.failure().permanent())?;
    let exit = tokio::select! {
        exit = command.exit() => exit,
        () = ctx.cancelled() => {
            if !ctx.is_lost() {
                command.stop(Stopped::Cancelled);
            }
            command.exit().await
        }
    };
    exit.outcome().map_err(TaskFailure::permanent)
}

pub(super) async fn run(args: RunArgs) -> Outcome {
    let client = super::client(&args.hub, args.ca_cert.as_deref())?;
    // From the randomness of the system: nobody else is to guess it.
    let unique = format!("run.{:016x}", uuid::Uuid::new_v4().as_u64_pair().1);
    let title = args.words.title.clone().unwrap_or_else(|| args.command.join(" "));
    let new = NewTask {
        queue: Some(unique.clone()),
        title: Some(title.chars().take(TITLE_CHARS_MAX).collect()),
        description: args.words.description,
        user_id: args.words.user,
        labels: labels(&args.words.labels)?,
        // A command that was lost from sight is not started a second time.
        max_crashes: Some(1),
        unserved_ms: Some(UNSERVED_MS),
        ..NewTask::new(args.task_type)
    };
    let mut signals = listen()?;
    tokio::spawn(children::reap_orphans());
    let run = Arc::new(Run {
        spec: CommandSpec { kill_grace: args.kill_grace, ..CommandSpec::new(args.command) },
        url: args.hub.clone(),
        started: Mutex::new(Started::Not),
        handed_out: AtomicBool::new(false),
        exit: watch::Sender::new(None),
    });
    let submitted = tokio::select! {
        submitted = submit(&client, &new, args.if_down) => submitted,
        number = signals.next() => return Ok(ExitCode::from(128 + number)),
    };
    let task = match submitted {
        Ok(task) => task,
        Err(why) if args.if_down == IfDown::Run && is_down(&why) => return untracked(&run, &why, signals).await,
        Err(why) => return Err(why.into()),
    };
    if std::io::stderr().is_terminal() {
        tell(format_args!("taskhub: task {}", task.task_id));
    }
    let mut worker = Worker::new(&args.hub)
        .id(&unique)
        .queues([&unique])
        .drain_limit(FAREWELL)
        .cancel_grace(args.kill_grace + Duration::from_secs(5));
    if let Some(path) = &args.ca_cert {
        worker = worker.ca_cert(path);
    }
    if let Some(token) = super::tokens::of(client.url())? {
        worker = worker.token(token);
    }
    let of_handler = run.clone();
    let worker = worker.register(new.task_type, move |ctx| {
        of_handler.handed_out.store(true, Ordering::Relaxed);
        follow(of_handler.clone(), ctx)
    });
    let mut exited = run.exit.subscribe();
    let shutdown = {
        let mut exited = run.exit.subscribe();
        async move {
            let _ = exited.wait_for(Option::is_some).await;
        }
    };
    let mut working = tokio::spawn(worker.run(shutdown));
    let mut ended = tokio::spawn(ended_elsewhere(client.clone(), task.task_id));
    let (mut asked, mut over, mut refused) = (0, false, None);
    let overdue = tokio::time::sleep(DOWN_AFTER);
    tokio::pin!(overdue);
    loop {
        tokio::select! {
            done = &mut working, if refused.is_none() => {
                let done = done.unwrap_or_else(|why| {
                    Err(WorkerError::Refused { code: None, reason: why.to_string() })
                });
                match done {
                    Ok(()) => break,
                    // The command goes on without being followed.
                    Err(why) if run.is_started() => refused = Some(why),
                    Err(why) => return Err(Failed::refused(why.to_string())),
                }
            }
            _ = exited.wait_for(Option::is_some), if refused.is_some() => break,
            status = &mut ended, if !over => {
                over = true;
                let status = status.unwrap_or(Status::Failed);
                if !run.is_started() {
                    // Whoever cancelled it does not want it run; that the hub gave it up is no such word.
                    if args.if_down == IfDown::Fail || status == Status::Cancelled {
                        let status = status.as_str();
                        return Err(Failed::here(format!("the task was {status} before the command was started")));
                    }
                    run.start_alone("the hub has given the task up");
                }
            }
            () = &mut overdue, if args.if_down == IfDown::Run && !run.is_started() => {
                run.start_alone("the hub has not handed the task out");
            }
            number = signals.next() => {
                asked += 1;
                if asked > 1 || !run.is_started() {
                    let _ = tokio::time::timeout(CANCEL_MAX, client.cancel(task.task_id, Some("interrupted"))).await;
                    return Ok(ExitCode::from(128 + number));
                }
                tokio::spawn(cancel(client.clone(), task.task_id, run.clone()));
            }
        }
    }
    if let Some(why) = refused {
        tell(format_args!("taskhub: {why}; how the command ended is not known there"));
    } else if !run.handed_out.load(Ordering::Relaxed) {
        // Nobody will ever run it.
        let _ = tokio::time::timeout(CANCEL_MAX, client.cancel(task.task_id, Some("it ran untracked"))).await;
    }
    let code = run.exit.borrow().unwrap_or(FAILED);
    Ok(ExitCode::from(code))
}

/// Submits the task; where the command may run without, the hub is not waited for long.
async fn submit(client: &Client, new: &NewTask, if_down: IfDown) -> Result<TaskView, ClientError> {
    if if_down == IfDown::Fail {
        return client.submit(new).await;
    }
    match tokio::time::timeout(DOWN_AFTER, client.submit(new)).await {
        Ok(submitted) => submitted,
        Err(_) => {
            let why = format!("no answer within {} s", DOWN_AFTER.as_secs());
            Err(ClientError::Unreachable { url: client.url().to_string(), why })
        }
    }
}

/// Whether a hub that is well would have taken the task.
fn is_down(why: &ClientError) -> bool {
    match why {
        ClientError::Unreachable { .. } | ClientError::Protocol { .. } => true,
        ClientError::Refused(problem) => problem.status >= 500 || problem.status == 429,
        ClientError::Address(_) | ClientError::Token(_) => false,
    }
}

/// Runs the command without a task.
async fn untracked(run: &Arc<Run>, why: &ClientError, mut signals: Signals) -> Outcome {
    tell(format_args!("taskhub: {why}; the command runs untracked"));
    let command = match run.start(None) {
        Ok(command) => command,
        Err(why) => return Ok(ExitCode::from(why.exit_code)),
    };
    let mut asked = false;
    loop {
        tokio::select! {
            exit = command.exit() => return Ok(ExitCode::from(exit.status.exit_code())),
            number = signals.next() => {
                if std::mem::replace(&mut asked, true) {
                    return Ok(ExitCode::from(128 + number));
                }
                command.stop(Stopped::Cancelled);
            }
        }
    }
}

/// Lets the hub cancel the task, so that it ends there as cancelled; if the hub does not, the command is stopped anyway.
async fn cancel(client: Client, task_id: TaskId, run: Arc<Run>) {
    let _ = tokio::time::timeout(CANCEL_MAX, client.cancel(task_id, Some("interrupted"))).await;
    let mut exited = run.exit.subscribe();
    let _ = tokio::time::timeout(CANCEL_MAX, exited.wait_for(Option::is_some)).await;
    run.stop();
}

/// The status of a task that came to an end.
async fn ended_elsewhere(client: Client, task_id: TaskId) -> Status {
    loop {
        match client.wait(task_id).await {
            Ok(task) => return task.status,
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
