//! `taskhub worker`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::DEFAULT_URL;
use super::outcome::{Failed, Outcome};
use super::tokens;
use crate::children;
use crate::dial::HubUrl;
use crate::signals::Signals;
use crate::worker::{WorkerConfig, WorkerError};

#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// The file that says which command runs which tasks
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The hub's address [default: the one in the file, or http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "TASKHUB_URL")]
    hub: Option<String>,
    /// Believe a hub at https:// by the certificates of this file, in PEM, instead of the machine's
    #[arg(long, value_name = "FILE", env = "TASKHUB_CA_CERT")]
    ca_cert: Option<PathBuf>,
    /// How long running tasks may take to finish once the worker is asked to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// Read the file, look for its programs, say what is wrong, and exit
    #[arg(long)]
    check: bool,
}

pub(super) async fn worker(args: WorkerArgs) -> Outcome {
    let config = WorkerConfig::read(&args.config).map_err(|why| Failed::usage(why.to_string()))?;
    if args.check {
        let wrong: Vec<String> =
            config.unready().iter().map(|(task_type, why)| format!("tasks.{task_type}: {why}")).collect();
        let path = args.config.display();
        return if wrong.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failed::usage(wrong.join("\n")).about(path)) };
    }
    log_to_stderr();
    // What is missing now may be there when it is needed, so this is no reason to stop.
    for (task_type, why) in config.unready() {
        tracing::warn!(task_type, "{why}");
    }
    let hub = args.hub.as_deref().or(config.hub.as_deref()).unwrap_or(DEFAULT_URL);
    let url = HubUrl::parse_trusting(hub, args.ca_cert.as_deref()).map_err(|why| Failed::usage(why.to_string()))?;
    let token = tokens::of(&url)?;
    let worker_id = config.worker_id.clone().unwrap_or_else(own_name);
    let (stop, stopped) = watch::channel(false);
    let mut signals = listen()?;
    tokio::spawn(children::reap_orphans());
    let mut working: FuturesUnordered<_> = config
        .workers(hub, &worker_id, token.as_ref())
        .into_iter()
        .map(|worker| match &args.ca_cert {
            Some(path) => worker.ca_cert(path),
            None => worker,
        })
        .map(|worker| {
            let mut stopped = stopped.clone();
            let shutdown = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            worker.drain_limit(args.drain_timeout).run(shutdown)
        })
        .collect();
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

pub(super) fn listen() -> Result<Signals, Failed> {
    Signals::listen().map_err(|why| Failed::here(format!("could not listen for signals: {why}")))
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
        .with_writer(std::io::stderr)
        // What cannot be written there cannot be complained of there.
        .log_internal_errors(false);
    // Whoever has set one up before us keeps it.
    let _ = lines.try_init();
}
