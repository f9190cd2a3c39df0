//! `taskhub worker`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::DEFAULT_URL;
use super::outcome::{Failed, Outcome};
use crate::worker::{WorkerConfig, WorkerError};

#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// The file that says which command runs which tasks
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The hub's address [default: the one in the file, or http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "TASKHUB_URL")]
    hub: Option<String>,
    /// Who is calling, where the hub asks
    #[arg(long, value_name = "TOKEN", env = "TASKHUB_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How long running tasks may take to finish once the worker is asked to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// Read the file, say what is wrong with it, and exit
    #[arg(long)]
    check: bool,
}

pub(super) async fn worker(args: WorkerArgs) -> Outcome {
    let config = WorkerConfig::read(&args.config).map_err(|why| Failed::usage(why.to_string()))?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    log_to_stderr();
    let hub = args.hub.as_deref().or(config.hub.as_deref()).unwrap_or(DEFAULT_URL);
    let worker_id = config.worker_id.clone().unwrap_or_else(own_name);
    let (stop, stopped) = watch::channel(false);
    let mut working: FuturesUnordered<_> = config
        .workers(hub, &worker_id, args.token.as_deref())
        .into_iter()
        .map(|worker| {
            let mut stopped = stopped.clone();
            let shutdown = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            worker.drain_limit(args.drain_timeout).run(shutdown)
        })
        .collect();
    let mut signals = Signals::new()?;
    let mut outcome = Ok(());
    let mut asked = 0;
    loop {
        tokio::select! {
            done = working.next() => match done {
                None => break,
                // One connection that the hub refuses ends all: half a worker is harder to notice than none.
                Some(done) => {
                    outcome = outcome.and(done);
                    stop.send_replace(true);
                }
            },
            number = signals.next() => {
                asked += 1;
                if asked > 1 {
                    return Ok(ExitCode::from(128 + number));
                }
                stop.send_replace(true);
            }
        }
    }
    outcome.map(|()| ExitCode::SUCCESS).map_err(|why| match &why {
        WorkerError::Address(_) | WorkerError::Setting { .. } => Failed::usage(why.to_string()),
        WorkerError::Refused { .. } => Failed::refused(why.to_string()),
        WorkerError::Unheard { .. } => Failed::unreachable(why.to_string()),
    })
}

/// `SIGINT`, `SIGTERM` and `SIGHUP`.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Signals, Failed> {
        let listen = |kind| signal(kind).map_err(|why| Failed::here(format!("could not listen for signals: {why}")));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT as u8,
            _ = self.terminate.recv() => libc::SIGTERM as u8,
            _ = self.hang_up.recv() => libc::SIGHUP as u8,
        }
    }
}

/// The name of this machine and the number of this process: two workers on one machine are two.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' };
    let host: String = host.trim().chars().take(64).map(letter).collect();
    let host = if host.is_empty() { "worker".to_owned() } else { host };
    format!("{host}-{}", std::process::id())
}

/// What a worker notices goes to standard error; `RUST_LOG` says how much.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr);
    // Whoever has set one up before us keeps it.
    let _ = lines.try_init();
}
