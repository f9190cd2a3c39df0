//! Commands as tasks: a process in a group of its own, fed with the payload, read line by line, and stopped with all it
//! started.
//!
//! The command is named by whoever runs the worker. Nothing of a task ever becomes part of a command line: the payload
//! goes to standard input, and what else is told is told in variables.
//!
//! A process is driven by a future of its own, so that it is ended properly (`SIGTERM`, a grace, `SIGKILL`, to its whole
//! group) whoever stops caring for it. Should the worker itself be killed, the kernel kills the command; what the command
//! started is then left to itself.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::lines::{Line, Lines, Said};
use super::{Context, TaskFailure};
use crate::task::{Json, Level};

/// What is read from a pipe at once.
const READ_BYTES: usize = 8 << 10;
/// What of standard error becomes the message of a failure.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 4 << 10;
/// How long the pipes of a command that has ended are read on, when something it started still holds them open.
const LINGER: Duration = Duration::from_secs(1);

/// How a command is run.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandSpec {
    /// The program and its arguments. No shell, unless it is named here.
    pub command: Vec<String>,
    pub cwd: Option<PathBuf>,
    /// Variables beside those of the worker.
    pub env: BTreeMap<String, String>,
    /// The longest it may take.
    pub timeout: Option<Duration>,
    /// Between `SIGTERM` and `SIGKILL`.
    pub kill_grace: Duration,
}

impl CommandSpec {
    /// This command, with a grace of 5 s.
    pub fn new(command: Vec<String>) -> CommandSpec {
        CommandSpec { command, cwd: None, env: BTreeMap::new(), timeout: None, kill_grace: Duration::from_secs(5) }
    }
}

/// Where a command's output goes beside the task's log, and what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tee {
    /// Nowhere; it reads the payload.
    Off,
    /// To our own standard output and error, unchanged; it reads our own standard input.
    On,
}

/// Why a command was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Cancelled,
    Timeout,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub status: Ended,
    /// It was told to end, and had not yet.
    pub stopped: Option<Stopped>,
    /// The last result it printed.
    result: Option<Json>,
    result_too_large: bool,
    /// The last lines of its standard error.
    tail: String,
}

/// What a process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
}

impl Ended {
    /// As shells tell it: 128 and the number for a signal.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Code(code) => code as u8,
            Ended::Signal(number) => (128 + number) as u8,
        }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct CommandRun {
    /// Who is told what it says.
    ctx: Mutex<Option<Context>>,
    stop: watch::Sender<Option<Stopped>>,
    exit: watch::Sender<Option<Arc<Exit>>>,
}

impl CommandRun {
    /// Starts it. It goes on by itself until it ends or is told to; what it says goes to `ctx`.
    pub fn start(spec: &CommandSpec, url: &str, ctx: Context, tee: Tee) -> io::Result<Arc<CommandRun>> {
        let mut command = to_run(spec, url, &ctx)?;
        // Who reads a terminal must be in its foreground group, which is ours.
        let own_group = tee == Tee::Off || !io::IsTerminal::is_terminal(&io::stdin());
        if own_group {
            command.process_group(0);
        }
        let stdin = if tee == Tee::On { Stdio::inherit() } else { Stdio::piped() };
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = child.id().expect("a child that was not waited for has an id") as i32;
        let payload = ctx.task().payload.as_ref().map(|json| json.bytes().clone()).unwrap_or_default();
        let run = Arc::new(CommandRun {
            ctx: Mutex::new(Some(ctx)),
            stop: watch::Sender::new(None),
            exit: watch::Sender::new(None),
        });
        let group = Group { pid, whole: own_group };
        tokio::spawn(drive(run.clone(), child, group, payload, spec.kill_grace, tee));
        Ok(run)
    }

    /// From now on tells this one what it says.
    pub fn attach(&self, ctx: Context) {
        *self.ctx.lock() = Some(ctx);
    }

    /// Tells it to end: `SIGTERM`, and after its grace `SIGKILL`. The first reason counts.
    pub fn stop(&self, why: Stopped) {
        self.stop.send_if_modified(|stop| stop.is_none() && stop.replace(why).is_none());
    }

    /// How it ended, once it has, and all it said has been taken.
    pub async fn exit(&self) -> Arc<Exit> {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await.expect("the sender is ours");
        exit.clone().expect("just waited for")
    }

    fn ctx(&self) -> Option<Context> {
        self.ctx.lock().clone()
    }
}

impl Exit {
    /// What becomes of the task.
    pub fn outcome(&self) -> Result<Json, TaskFailure> {
        let message = |otherwise: String| if self.tail.is_empty() { otherwise } else { self.tail.clone() };
        match (self.stopped, self.status) {
            (Some(Stopped::Cancelled), _) => Err(TaskFailure::new("cancelled", message("it was stopped".into()))),
            (Some(Stopped::Timeout), _) => Err(TaskFailure::new("timeout", message("it took too long".into()))),
            (None, Ended::Code(0)) if self.result_too_large => {
                Err(TaskFailure::new("result", "the result is larger than a task may leave").permanent())
            }
            (None, Ended::Code(0)) => Ok(self.result.clone().unwrap_or_else(Json::null)),
            (None, Ended::Code(code)) => {
                let details = serde_json::json!({ "exit_code": code });
                Err(TaskFailure::new("exit", message(format!("exit code {code}"))).details(&details))
            }
            (None, Ended::Signal(number)) => {
                let details = serde_json::json!({ "signal": number });
                Err(TaskFailure::new("signal", message(format!("killed by signal {number}"))).details(&details))
            }
        }
    }
}

/// Why a command did not start, as a shell would tell it.
pub fn not_started(spec: &CommandSpec, why: &io::Error) -> (u8, TaskFailure) {
    let code = if why.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    let program = spec.command.first().map(String::as_str).unwrap_or_default();
    let failure = TaskFailure::new("exit", format!("{program:?} could not be started: {why}"));
    (code, failure.details(&serde_json::json!({ "exit_code": code })))
}

/// Runs a task as its command.
pub(super) async fn run_task(spec: Arc<CommandSpec>, url: String, ctx: Context) -> Result<Json, TaskFailure> {
    /// Whoever stops caring for the command ends it.
    struct Care(Arc<CommandRun>);
    impl Drop for Care {
        fn drop(&mut self) {
            self.0.stop(Stopped::Cancelled);
        }
    }
    let run = CommandRun::start(&spec, &url, ctx.clone(), Tee::Off).map_err(|why| not_started(&spec, &why).1)?;
    let care = Care(run.clone());
    let timeout = async {
        match spec.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let exit = tokio::select! {
        exit = run.exit() => exit,
        () = ctx.cancelled() => {
            run.stop(Stopped::Cancelled);
            run.exit().await
        }
        () = timeout => {
            run.stop(Stopped::Timeout);
            run.exit().await
        }
    };
    drop(care);
    exit.outcome()
}

fn to_run(spec: &CommandSpec, url: &str, ctx: &Context) -> io::Result<Command> {
    let (program, arguments) =
        spec.command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no command is named"))?;
    let mut command = Command::new(program);
    let task = ctx.task();
    command
        .args(arguments)
        .envs(&spec.env)
        .env("TASKHUB_URL", url)
        .env("TASKHUB_TASK_ID", task.task_id.to_string())
        .env("TASKHUB_TASK_TYPE", task.task_type.as_str())
        .env("TASKHUB_ATTEMPT", ctx.attempt().to_string())
        .env_remove("TASKHUB_CHECKPOINT")
        .kill_on_drop(true);
    if let Some(checkpoint) = ctx.checkpoint_json() {
        command.env("TASKHUB_CHECKPOINT", checkpoint.as_str());
    }
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: between fork and exec only these two system calls are made; neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The worker may have died before the kernel was asked.
                if libc::getppid() as u32 != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
    }
    Ok(command)
}

/// A process, and what it started, where they have a group of their own.
#[derive(Clone, Copy, Debug)]
struct Group {
    pid: i32,
    whole: bool,
}

impl Group {
    fn signal(self, number: i32) {
        let target = if self.whole { -self.pid } else { self.pid };
        // SAFETY: sends a signal, touches no memory. The id is that of a child we have not waited for, or of its group:
        // the kernel does not give a number away that still names a group. Right after the wait of an empty group the
        // number is free in principle; the kernel hands numbers out in turn, so it is not taken in that instant.
        unsafe { libc::kill(target, number) };
    }
}

/// Ends the group should its driver be dropped.
struct EndGroup(Group);

impl Drop for EndGroup {
    fn drop(&mut self) {
        if self.0.whole {
            self.0.signal(libc::SIGKILL);
        }
    }
}

/// What the output has left behind so far.
#[derive(Default)]
struct Left {
    result: Option<Json>,
    result_too_large: bool,
    tail: VecDeque<String>,
    tail_bytes: usize,
}

impl Left {
    fn keep(&mut self, line: String) {
        self.tail_bytes += line.len();
        self.tail.push_back(line);
        while self.tail.len() > TAIL_LINES || (self.tail_bytes > TAIL_BYTES && self.tail.len() > 1) {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.len();
        }
    }
}

async fn drive(run: Arc<CommandRun>, mut child: Child, group: Group, payload: Bytes, kill_grace: Duration, tee: Tee) {
    let end_group = EndGroup(group);
    let left = Mutex::new(Left::default());
    let feed = feed(child.stdin.take(), payload);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let on_stdout =
        read(stdout, (tee == Tee::On).then(tokio::io::stdout), Lines::new(true), &run, |line, ctx| match line.said() {
            Said::Progress(progress) => {
                let tried = ctx.map(|ctx| (ctx, ctx.try_progress(progress)));
                if let Some((ctx, Err(invalid))) = tried {
                    ctx.log(Level::Warn, format!("a progress report was left out: {invalid}"));
                }
            }
            Said::Log(line) => {
                if let Some(ctx) = ctx {
                    ctx.log(line.level, line.message);
                }
            }
            Said::Checkpoint(checkpoint) => {
                if let Some((ctx, Err(why))) = ctx.map(|ctx| (ctx, ctx.set_checkpoint_json(checkpoint))) {
                    ctx.log(Level::Warn, why);
                }
            }
            Said::Result(result) => {
                let mut left = left.lock();
                (left.result, left.result_too_large) = (Some(result), false);
            }
            Said::ResultTooLarge => left.lock().result_too_large = true,
            Said::Line(_) => {
                if let Some(ctx) = ctx {
                    ctx.log(Level::Info, line.text());
                }
            }
        });
    let on_stderr = read(stderr, (tee == Tee::On).then(tokio::io::stderr), Lines::new(false), &run, |line, ctx| {
        let text = line.text();
        left.lock().keep(text.clone());
        if let Some(ctx) = ctx {
            ctx.log(Level::Warn, text);
        }
    });
    let pipes = async { tokio::join!(feed, on_stdout, on_stderr) };
    tokio::pin!(pipes);

    let mut pipes_open = true;
    let mut stop = run.stop.subscribe();
    let mut stopped = None;
    let kill_timer = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(kill_timer);
    let mut killing = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut pipes, if pipes_open => pipes_open = false,
            why = stop.wait_for(Option::is_some), if stopped.is_none() => {
                stopped = why.map_or(Some(Stopped::Cancelled), |why| *why);
                group.signal(libc::SIGTERM);
                kill_timer.as_mut().reset(tokio::time::Instant::now() + kill_grace);
                killing = true;
            }
            () = &mut kill_timer, if killing => {
                killing = false;
                group.signal(libc::SIGKILL);
            }
        }
    };
    // What it started and left behind may hold its pipes open. It gets a moment; then it goes, too.
    if pipes_open && tokio::time::timeout(LINGER, &mut pipes).await.is_err() {
        drop(end_group);
        let _ = tokio::time::timeout(LINGER, &mut pipes).await;
    } else {
        drop(end_group);
    }
    let Left { result, result_too_large, tail, .. } = std::mem::take(&mut *left.lock());
    let tail = Vec::from(tail).join("\n");
    let status = status.map_or(Ended::Signal(libc::SIGKILL), ended);
    run.exit.send_replace(Some(Arc::new(Exit { status, stopped, result, result_too_large, tail })));
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}

/// Writes the payload and ends the input. A command need not read it.
async fn feed(stdin: Option<ChildStdin>, payload: Bytes) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&payload).await;
    }
}

/// Reads a pipe to its end. The hub's pace is the pipe's pace, as long as the hub can be reached.
async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    mut tee: Option<impl AsyncWrite + Unpin>,
    mut lines: Lines,
    run: &CommandRun,
    mut each: impl FnMut(Line<'_>, Option<&Context>),
) {
    let Some(mut pipe) = pipe else { return };
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let count = match pipe.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        if let Some(tee) = &mut tee
            && (tee.write_all(&bytes[..count]).await.is_err() || tee.flush().await.is_err())
        {
            // Nobody reads us: then nobody reads the command either, and it is told so by its pipe.
            break;
        }
        let ctx = run.ctx();
        lines.push(&bytes[..count], |line| each(line, ctx.as_ref()));
        if let Some(ctx) = ctx {
            ctx.log_room().await;
        }
    }
    let ctx = run.ctx();
    lines.finish(|line| each(line, ctx.as_ref()));
}
