//! The workers of the demo: processes of their own, so that they can be killed.
//!
//! A worker ends when its standard input does, and that is a pipe whose other end only the demo holds. So however the demo
//! ends, killed too, its workers end with it.

use std::io::Read as _;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::work;
use crate::cli::outcome::{Failed, Outcome, tell};

/// How the worker is called that has the dangerous type to itself.
pub(super) const SANDBOX: &str = "sandbox";
const WORKER: &str = "worker";
/// Workers at a time, beside the one in the sandbox.
const WORKERS: usize = 3;

/// After how long a worker that died is replaced: longer than the hub's grace, so that the others take over what it had.
const REPLACED_AFTER: Duration = Duration::from_secs(6);
/// The same for the sandbox, where nobody could take over.
const SANDBOX_REPLACED_AFTER: Duration = Duration::from_secs(1);

/// The workers, each replaced when it has died, until this is dropped.
pub(super) struct Cast {
    kill: watch::Sender<String>,
    _places: JoinSet<()>,
}

impl Cast {
    /// Starts the workers of the hub at this address.
    pub(super) fn start(hub: &str) -> Cast {
        let kill = watch::Sender::new(String::new());
        let numbers = Arc::new(AtomicU32::new(1));
        let mut places = JoinSet::new();
        for _ in 0..WORKERS {
            places.spawn(place(WORKER, hub.to_owned(), numbers.clone(), kill.subscribe(), REPLACED_AFTER));
        }
        let numbers = Arc::new(AtomicU32::new(1));
        places.spawn(place(SANDBOX, hub.to_owned(), numbers, kill.subscribe(), SANDBOX_REPLACED_AFTER));
        Cast { kill, _places: places }
    }

    /// Kills this worker as the kernel does: without a word.
    pub(super) fn kill(&self, worker_id: &str) {
        self.kill.send_replace(worker_id.to_owned());
    }
}

/// One worker after the other, each under a name of its own.
async fn place(
    name: &'static str,
    hub: String,
    numbers: Arc<AtomicU32>,
    mut kill: watch::Receiver<String>,
    replaced_after: Duration,
) {
    loop {
        let worker_id = format!("{name}-{}", numbers.fetch_add(1, Ordering::Relaxed));
        match start(&worker_id, &hub) {
            Ok((mut child, _input)) => {
                let killed = async { drop(kill.wait_for(|killed| *killed == worker_id).await) };
                tokio::select! {
                    _ = child.wait() => {}
                    // Its end is waited for, so that it is not left a zombie.
                    () = killed => drop(child.kill().await),
                }
            }
            Err(why) => tell(format_args!("taskhub: could not start {worker_id}: {why}")),
        }
        tokio::time::sleep(replaced_after).await;
    }
}

/// A worker, and the end of the pipe that it lives by.
fn start(worker_id: &str, hub: &str) -> std::io::Result<(Child, Option<ChildStdin>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg0(format!("taskhub: {worker_id} of the demo"))
        .arg("demo")
        .env(PART, format!("{worker_id} {hub}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for the demo.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    // Out of the child's hands: waiting for it would close it.
    let input = child.stdin.take();
    Ok((child, input))
}

/// Names the worker, and its hub, to a process that is one. No option, because nobody else has a use for it.
const PART: &str = "TASKHUB_DEMO_PART";

/// What this process plays, where it is one of the workers.
pub(super) struct Part {
    worker_id: String,
    hub: String,
}

impl Part {
    pub(super) fn ours() -> Option<Part> {
        let part = std::env::var(PART).ok()?;
        let (worker_id, hub) = part.split_once(' ')?;
        Some(Part { worker_id: worker_id.to_owned(), hub: hub.to_owned() })
    }

    /// Works until the demo is gone.
    pub(super) async fn act(self) -> Outcome {
        let (end, ended) = tokio::sync::oneshot::channel();
        // Reading blocks, and ends only with the demo.
        std::thread::spawn(move || {
            let mut nothing = [0; 64];
            while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
            let _ = end.send(());
        });
        tokio::select! {
            done = work::worker(&self.hub, &self.worker_id).run(std::future::pending()) => match done {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(why) => Err(Failed::refused(why.to_string())),
            },
            _ = ended => Ok(ExitCode::SUCCESS),
        }
    }
}
