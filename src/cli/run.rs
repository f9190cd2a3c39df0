//! `taskhub run`: one command as a tracked task, here.
//!
//! The task waits in a queue that only this process serves, so nobody else takes it. The command is what counts: once it
//! runs it is not stopped because the hub is away, nor because the hub gave the task up meanwhile; only whoever cancels
//! it, here or at the hub, stops it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::outcome::{FAILED, Failed, Outcome};
use super::submit::Words;
use super::worker::Signals;
use crate::client::Client;
use crate::task::{Json, NewTask, Status, TITLE_CHARS_MAX, TaskId};
use crate::worker::{CommandRun, CommandSpec, Context, Stopped, TaskFailure, Tee, Worker, WorkerError, not_started};

/// How long the hub may take to hear how it ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the hub may take to pass on a cancel; then the command is stopped without it.
const CANCEL_MAX: Duration = Duration::from_secs(2);

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
    /// Who is calling, where the hub asks
    #[arg(long, value_name = "TOKEN", env = "TASKHUB_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Between SIGTERM and SIGKILL when it is cancelled
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    kill_grace: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The command, once it was started.
enum Started {
    Not,
    Running(Arc<CommandRun>),
    /// It could not be; the exit code.
    Never(u8),
}

struct Run {
    spec: CommandSpec,
    url: String,
    started: Mutex<Started>,
    /// What to exit with, once that is known.
    exit: watch::Sender<Option<u8>>,
}

impl Run {
    /// Starts the command, or tells the one that runs whom to talk to.
    fn start(self: &Arc<Run>, ctx: &Context) -> Result<Arc<CommandRun>, TaskFailure> {
        let mut started = self.started.lock();
        match &*started {
            Started::Running(command) => {
                command.attach(ctx.clone());
                return Ok(command.clone());
            }
            Started::Never(code) => return Err(TaskFailure::new("exit", format!("exit code {code}")).permanent()),
            Started::Not => {}
        }
        match CommandRun::start(&self.spec, &self.url, ctx.clone(), Tee::On) {
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
                let (code, failure) = not_started(&self.spec, &why);
                eprintln!("taskhub: {}", failure.failure.message);
                *started = Started::Never(code);
                self.exit.send_replace(Some(code));
                Err(failure.permanent())
            }
        }
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
    let command = run.start(&ctx)?;
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
    let client = Client::new(&args.hub)?;
    let client = match &args.token {
        Some(token) => client.with_token(token),
        None => client,
    };
    let unique = format!("run.{:016x}", fastrand::u64(..));
    let title = args.words.title.clone().unwrap_or_else(|| args.command.join(" "));
    let new = NewTask {
        queue: Some(unique.clone()),
        title: Some(title.chars().take(TITLE_CHARS_MAX).collect()),
        description: args.words.description,
        user_id: args.words.user,
        labels: args.words.labels.into_iter().collect(),
        // A command that was lost from sight is not started a second time.
        max_crashes: Some(1),
        ..NewTask::new(args.task_type)
    };
    let mut signals = Signals::new()?;
    let task = client.submit(&new).await?;
    if std::io::stderr().is_terminal() {
        eprintln!("taskhub: task {}", task.task_id);
    }
    let run = Arc::new(Run {
        spec: CommandSpec { kill_grace: args.kill_grace, ..CommandSpec::new(args.command) },
        url: args.hub.clone(),
        started: Mutex::new(Started::Not),
        exit: watch::Sender::new(None),
    });
    let mut worker = Worker::new(&args.hub)
        .id(&unique)
        .queues([&unique])
        .drain_limit(FAREWELL)
        .cancel_grace(args.kill_grace + Duration::from_secs(5));
    if let Some(token) = &args.token {
        worker = worker.token(token);
    }
    let of_handler = run.clone();
    let worker = worker.register(new.task_type, move |ctx| follow(of_handler.clone(), ctx));
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
                if !run.is_started() {
                    let status = status.map_or("lost", Status::as_str);
                    return Err(Failed::here(format!("the task was {status} before the command was started")));
                }
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
        eprintln!("taskhub: {why}; how the command ended is not known there");
    }
    let code = run.exit.borrow().unwrap_or(FAILED);
    Ok(ExitCode::from(code))
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
