//! Commands as tasks: a process in a group of its own, fed with the payload, read line by line, and stopped with all it
//! started.
//!
//! The command is named by whoever runs the worker. Nothing of a task ever becomes part of a command line: the payload
//! goes to standard input, and what else is told is told in variables.
//!
//! A process is driven by a future of its own, so that it is ended properly (`SIGTERM`, a grace, `SIGKILL`, to its whole
//! group) whoever stops caring for it. Should the worker itself be killed, the kernel kills the command; what the command
//! started is then left to itself.

use std::collections::BTreeMap;
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
use tokio::time::Instant;

use super::listener::Listener;
use super::program::{NotStarted, Program};
use super::{Context, TaskFailure};
use crate::children::{self, Own};
use crate::lived;
use crate::task::{Json, Level};

/// What is read from a pipe at once.
const READ_BYTES: usize = 8 << 10;
/// How long the pipes of a command that has ended are read on, when something it started still holds them open.
const LINGER: Duration = Duration::from_secs(1);

/// How a command is run.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandSpec {
    /// The program and its arguments. No shell, unless it is named here.
    pub command: Vec<String>,
    /// Where it runs; where the worker does if absent.
    pub cwd: Option<PathBuf>,
    /// Where a program that is named by a relative path is looked for, if there is none seen from `cwd`: the folder of the
    /// file that names it.
    pub folder: Option<PathBuf>,
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
        let kill_grace = Duration::from_secs(5);
        CommandSpec { command, cwd: None, folder: None, env: BTreeMap::new(), timeout: None, kill_grace }
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
    /// The last result it printed, or why it cannot be read.
    result: Option<Result<Json, String>>,
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
    /// Starts it. It goes on by itself until it ends or is told to; what it says goes to `ctx`, if there is one, and from
    /// there it has its payload.
    pub fn start(spec: &CommandSpec, url: &str, ctx: Option<Context>, tee: Tee) -> Result<Arc<CommandRun>, NotStarted> {
        let program = Program::find(spec)?;
        let mut command = to_run(spec, &program, url, ctx.as_ref());
        // Who reads a terminal must be in its foreground group, which is ours.
        let own_group = tee == Tee::Off || !io::IsTerminal::is_terminal(&io::stdin());
        if own_group {
            command.process_group(0);
        }
        let stdin = if tee == Tee::On { Stdio::inherit() } else { Stdio::piped() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let id = |child: &Child| child.id().expect("a child that was not waited for has an id") as i32;
        let (child, own) = children::start(|| command.spawn(), id).map_err(|why| program.refused(&why))?;
        let group = Group { pid: id(&child), whole: own_group };
        let payload = ctx.as_ref().and_then(|ctx| ctx.task().payload.as_ref()).map(|json| json.bytes().clone());
        let run = Arc::new(CommandRun {
            ctx: Mutex::new(ctx),
            stop: watch::Sender::new(None),
            exit: watch::Sender::new(None),
        });
        let process = Process { child, own, group, payload: payload.unwrap_or_default(), kill_grace: spec.kill_grace };
        tokio::spawn(drive(run.clone(), process, tee));
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
            (None, Ended::Code(0)) => match &self.result {
                Some(Err(why)) => Err(TaskFailure::new("result", why).permanent()),
                Some(Ok(result)) => Ok(result.clone()),
                None => Ok(Json::null()),
            },
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

/// Runs a task as its command.
pub(super) async fn run_task(spec: Arc<CommandSpec>, url: String, ctx: Context) -> Result<Json, TaskFailure> {
    /// Whoever stops caring for the command ends it.
    struct Care(Arc<CommandRun>);
    impl Drop for Care {
        fn drop(&mut self) {
            self.0.stop(Stopped::Cancelled);
        }
    }
    let run = CommandRun::start(&spec, &url, Some(ctx.clone()), Tee::Off).map_err(|why| why.failure())?;
    let care = Care(run.clone());
    let timeout = async {
        match spec.timeout {
            Some(timeout) => lived::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let exit = tokio::select! {
        // A command that has ended was not stopped, whatever this process slept through.
        biased;
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

fn to_run(spec: &CommandSpec, program: &Program, url: &str, ctx: Option<&Context>) -> Command {
    const OF_A_TASK: [&str; 4] = ["TASKHUB_TASK_ID", "TASKHUB_TASK_TYPE", "TASKHUB_ATTEMPT", "TASKHUB_CHECKPOINT"];
    let mut command = Command::new(&program.path);
    // The worker's token is not its commands'.
    command.env_remove("TASKHUB_TOKEN");
    command.arg0(&program.name).args(&spec.command[1..]).envs(&spec.env).env("TASKHUB_URL", url).kill_on_drop(true);
    for name in OF_A_TASK {
        // One that is run by the command of another task is not that task.
        command.env_remove(name);
    }
    if let Some(ctx) = ctx {
        let task = ctx.task();
        command
            .env("TASKHUB_TASK_ID", task.task_id.to_string())
            .env("TASKHUB_TASK_TYPE", task.task_type.as_str())
            .env("TASKHUB_ATTEMPT", ctx.attempt().to_string());
        if let Some(checkpoint) = ctx.checkpoint_json() {
            command.env("TASKHUB_CHECKPOINT", checkpoint.as_str());
        }
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
    command
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

/// A process that was started.
struct Process {
    child: Child,
    own: Own,
    group: Group,
    payload: Bytes,
    kill_grace: Duration,
}

async fn drive(run: Arc<CommandRun>, process: Process, tee: Tee) {
    let Process { mut child, own, group, payload, kill_grace } = process;
    let end_group = EndGroup(group);
    let (mut stdout, mut stderr) = (Listener::to_stdout(), Listener::to_stderr());
    let (out_pipe, err_pipe) = (child.stdout.take(), child.stderr.take());
    let (out_tee, err_tee) = ((tee == Tee::On).then(tokio::io::stdout), (tee == Tee::On).then(tokio::io::stderr));
    let feed = feed(child.stdin.take(), payload);
    let (status, stopped) = {
        let on_stdout = read(out_pipe, out_tee, &mut stdout, &run);
        let on_stderr = read(err_pipe, err_tee, &mut stderr, &run);
        let pipes = async { tokio::join!(feed, on_stdout, on_stderr) };
        tokio::pin!(pipes);

        let mut pipes_open = true;
        let mut stop = run.stop.subscribe();
        let mut stopped = None;
        let kill_timer = lived::sleep(Duration::ZERO);
        tokio::pin!(kill_timer);
        let mut killing = false;
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status,
                _ = &mut pipes, if pipes_open => pipes_open = false,
                why = stop.wait_for(Option::is_some), if stopped.is_none() => {
                    stopped = why.map_or(Some(Stopped::Cancelled), |why| *why);
                    group.signal(libc::SIGTERM);
                    kill_timer.set(lived::sleep(kill_grace));
                    killing = true;
                }
                () = &mut kill_timer, if killing => {
                    killing = false;
                    group.signal(libc::SIGKILL);
                }
            }
        };
        drop(own);
        // What it started and left behind may hold its pipes open. It gets a moment; then it goes, too. What has left the
        // group keeps the pipes, and is not heard any more.
        if pipes_open && tokio::time::timeout(LINGER, &mut pipes).await.is_err() {
            drop(end_group);
            let _ = tokio::time::timeout(LINGER, &mut pipes).await;
        } else {
            drop(end_group);
        }
        (status, stopped)
    };
    let ctx = run.ctx();
    stdout.finish(Instant::now(), ctx.as_ref());
    stderr.finish(Instant::now(), ctx.as_ref());
    let result = stdout.take_result();
    let status = status.map_or(Ended::Signal(libc::SIGKILL), ended);
    if let (Some(Ok(result)), Some(ctx)) = (&result, &ctx)
        && (status != Ended::Code(0) || stopped.is_some())
    {
        ctx.log(Level::Warn, format!("the result is not kept, because the command failed: {}", result.as_str()));
    }
    run.exit.send_replace(Some(Arc::new(Exit { status, stopped, result, tail: stderr.take_tail() })));
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
    listener: &mut Listener,
    run: &CommandRun,
) {
    let Some(mut pipe) = pipe else { return };
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let due = listener.due();
        let drawn = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let count = tokio::select! {
            // What is there to read comes first: it may be the end of what is drawn.
            biased;
            read = pipe.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            },
            () = drawn => 0,
        };
        let now = Instant::now();
        if let Some(writer) = &mut tee
            && let Err(why) = write(writer, &bytes[..count]).await
        {
            if why.kind() == io::ErrorKind::BrokenPipe {
                // Nobody reads us: then nobody reads the command either, and it is told so by its pipe.
                return;
            }
            // A terminal that is gone: the command goes on, as the task does.
            tee = None;
        }
        let ctx = run.ctx();
        listener.hear(&bytes[..count], now, ctx.as_ref());
        if due.is_some_and(|due| due <= now) {
            listener.show(now, ctx.as_ref());
        }
        if let Some(ctx) = ctx {
            ctx.log_room().await;
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
