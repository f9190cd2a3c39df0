//! `make demo DIR=…`: a hub, a worker, and a folder tree to digest.
//!
//! Starts a hub and a worker in this process, submits a task for each folder in `DIR` and one (`.`) for the files beside
//! them, shows how they go, and stays until Ctrl-C or the end of its terminal, so that the hub's page can be looked at.
//! Each task leaves the SHA-256 of every file (see [`digest`]); one that was interrupted is taken up at the next start.

mod digest;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{IsTerminal, Write as _};
use std::net::ToSocketAddrs as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use taskhub::cli::{Bars, Endings};
use taskhub::client::{Client, LiveEvent, Subscribe, TaskEvent};
use taskhub::config::ServeConfig;
use taskhub::server::Server;
use taskhub::signals::Signals;
use taskhub::task::{Counters, FilterSpec, Json, NewTask, Progress, Status, TITLE_CHARS_MAX, TaskId, TaskView};
use taskhub::worker::{Context, TaskFailure, Worker};
use tokio::sync::watch;

use digest::{Depth, Digest, Stopped, Watch, digest, show_bytes};

/// The most tasks a hub takes at once.
const BATCH_MAX: usize = 10_000;
/// How long a folder that is being read may take to notice Ctrl-C; its task is given back.
const DRAIN: Duration = Duration::from_millis(200);
/// How long watchers have to be told; the page comes back by itself when the hub does.
const GOODBYE: Duration = Duration::from_millis(200);

/// What a task is to digest.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    folder: Place,
    /// Not the folders in it.
    #[serde(default)]
    top_only: bool,
}

/// A path, as text where it is some.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Place {
    Text(String),
    Bytes(Vec<u8>),
}

impl Place {
    fn of(path: &Path) -> Place {
        let bytes = path.as_os_str().as_bytes();
        std::str::from_utf8(bytes).map_or_else(|_| Place::Bytes(bytes.into()), |text| Place::Text(text.into()))
    }

    fn path(self) -> PathBuf {
        match self {
            Place::Text(text) => text.into(),
            Place::Bytes(bytes) => std::ffi::OsString::from_vec(bytes).into(),
        }
    }
}

/// What the digest tells its task.
struct OfTask(Context);

impl Watch for OfTask {
    fn tell(&self, progress: Progress) {
        self.0.progress(progress);
    }
    fn is_stopped(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Runs a `checksum` task, on a thread of its own: files are read without awaiting.
async fn checksum(ctx: Context) -> Result<Digest, TaskFailure> {
    let Order { folder, top_only } = ctx.payload()?;
    let folder = folder.path();
    let depth = if top_only { Depth::Top } else { Depth::All };
    let reading = tokio::task::spawn_blocking(move || digest(&folder, depth, &OfTask(ctx)));
    match reading.await? {
        Ok(digest) => Ok(digest),
        Err(Stopped::Asked) => Err(TaskFailure::new("cancelled", "stopped when asked to")),
        Err(Stopped::Folder(why)) => Err(TaskFailure::new("folder", why.to_string())),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(code) => code,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The variable, where it says anything: `make` exports those that nobody set.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

async fn demo() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let listen = variable("LISTEN").unwrap_or_else(|| "127.0.0.1:8080".into());
    let listen = listen.to_str().and_then(|listen| listen.to_socket_addrs().ok()?.next());
    let listen = listen.ok_or("LISTEN is an address, such as 127.0.0.1:8080")?;
    let data = PathBuf::from(variable("DATA").unwrap_or_else(|| "./data".into()));
    let roots = match variable("DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => cargo_sources()?,
    };
    let orders = orders(&roots)?;
    let mut signals = Signals::listen()?;

    let hub = Server::start(ServeConfig {
        listen: listen.into(),
        data: data.clone(),
        goodbye: GOODBYE,
        ..ServeConfig::default()
    });
    let hub = hub.await.map_err(|why| format!("{why}; LISTEN=… and DATA=… name another address and folder"))?;
    let url = hub.url();
    println!("The hub listens on {url} (its folder: {}).", data.display());
    println!("Open {url}/ and watch; Ctrl-C ends all.\n");
    let client = Client::new(&url)?;

    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().clamp(2, 4)) as u32;
    let (stop, mut stopped) = watch::channel(false);
    let shutdown = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let worker = Worker::new(&url)
        .id(format!("checksum-{}", std::process::id()))
        .concurrency(threads)
        .drain_limit(DRAIN)
        .register("checksum", checksum);
    let mut worker = tokio::spawn(worker.run(shutdown));

    let outcome = tokio::select! {
        shown = async {
            let summary = show(&client, orders).await?;
            println!("\n{summary}\nThe hub stays at {url}/ until Ctrl-C.");
            std::future::pending().await
        } => shown,
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        ended = &mut worker => Err(format!("the worker ended: {ended:?}").into()),
    };
    // Whoever asks twice does not want to wait.
    let end = async {
        stop.send_replace(true);
        if !worker.is_finished() {
            let _ = (&mut worker).await;
        }
        hub.shutdown().await;
    };
    // Perhaps the terminal is what has ended.
    let _ = writeln!(std::io::stderr(), "\nStopping…");
    tokio::select! {
        () = end => outcome,
        _ = signals.next() => Ok(ExitCode::from(130)),
    }
}

/// The sources of the crates that cargo has fetched: a tree that everyone who built this has.
fn cargo_sources() -> Result<Vec<PathBuf>, String> {
    let home = variable("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cargo")));
    let sources = home.ok_or("say DIR=… (there is no CARGO_HOME)")?.join("registry/src");
    let entries = std::fs::read_dir(&sources).map_err(|why| format!("say DIR=… ({}: {why})", sources.display()))?;
    let mut roots: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    roots.sort();
    Ok(roots)
}

/// A name and an order for each folder in these, and one for the files beside them.
fn orders(roots: &[PathBuf]) -> Result<Vec<(String, Order)>, String> {
    let mut orders = Vec::new();
    for root in roots {
        let wrong = |why: std::io::Error| format!("{}: {why}", root.display());
        let root = root.canonicalize().map_err(wrong)?;
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&root).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            if entry.file_type().map_err(wrong)?.is_dir() {
                folders.push(entry.path());
            }
        }
        folders.sort();
        orders.push((".".to_owned(), Order { folder: Place::of(&root), top_only: true }));
        orders.extend(folders.into_iter().map(|folder| {
            let name = folder.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
            let name = name.chars().take(TITLE_CHARS_MAX).collect();
            (name, Order { folder: Place::of(&folder), top_only: false })
        }));
    }
    Ok(orders)
}

/// Submits the orders and shows how they go, until all have ended. Answers with a summary.
async fn show(client: &Client, orders: Vec<(String, Order)>) -> Result<String, Box<dyn std::error::Error>> {
    let began = Instant::now();
    let count = orders.len();
    // What this start submits is known by a label: the hub may have more to do.
    let run = format!("{:08x}", fastrand::u32(..));
    let mut live = client.live();
    let labels = [("run".to_owned(), vec![run.clone()])].into();
    live.subscribe(Subscribe {
        filter: FilterSpec { labels: Some(labels), ..FilterSpec::default() },
        ..Subscribe::default()
    });
    let in_terminal = std::io::stderr().is_terminal();
    let mut bars = Bars::new(Endings::Bad);
    let mut tally = Tally::default();
    let mut tasks = Some(orders);
    loop {
        let event = tokio::select! {
            event = live.next() => event,
            () = Bars::pause() => {
                bars.tick();
                continue;
            }
        };
        let event = match event {
            Some(LiveEvent::Of(_, event)) => event,
            Some(_) => continue,
            None => return Err("the hub refused to tell how they go".into()),
        };
        match event {
            TaskEvent::Snapshot { tasks: shown, .. } => {
                shown.iter().for_each(|task| tally.take(task));
                // Only now, so that nothing of them is missed.
                if let Some(orders) = tasks.take() {
                    submit(client, &run, orders).await?;
                }
            }
            TaskEvent::Task { task, .. } => {
                bars.set(&task);
                tally.take(&task);
                if !in_terminal && task.status.is_final() {
                    println!("{:9}  {}", task.status, task.title.as_deref().unwrap_or_default());
                }
            }
            TaskEvent::Progress { task } => {
                bars.set(&task);
                tally.take(&task);
            }
            TaskEvent::Gone { task_id } => {
                tally.ended.insert(task_id);
            }
            TaskEvent::Ended { code, detail } => return Err(format!("{detail} ({code})").into()),
            _ => {}
        }
        let took = began.elapsed();
        bars.total(tally.ended.len() as u64, count as u64, tally.words(took));
        if tally.ended.len() >= count {
            bars.clear();
            return Ok(tally.summary(took));
        }
    }
}

async fn submit(client: &Client, run: &str, orders: Vec<(String, Order)>) -> Result<(), Box<dyn std::error::Error>> {
    let mut tasks = Vec::with_capacity(orders.len());
    for (name, order) in orders {
        tasks.push(NewTask {
            title: Some(name),
            payload: Some(Json::of(&order)?),
            labels: [("run".to_owned(), run.to_owned())].into(),
            ..NewTask::new("checksum")
        });
    }
    for batch in tasks.chunks(BATCH_MAX) {
        client.submit_batch(batch, None).await?;
    }
    Ok(())
}

/// What came of the tasks so far.
#[derive(Default)]
struct Tally {
    ended: HashSet<TaskId>,
    statuses: HashMap<TaskId, Status>,
    progress: HashMap<TaskId, (u64, Counters)>,
}

impl Tally {
    fn take(&mut self, task: &TaskView) {
        self.statuses.insert(task.task_id, task.status);
        if task.status.is_final() {
            self.ended.insert(task.task_id);
        } else {
            self.ended.remove(&task.task_id);
        }
        if let Some(progress) = &task.progress {
            let bytes = progress.current.unwrap_or_default() as u64;
            self.progress.insert(task.task_id, (bytes, progress.counters.unwrap_or_default()));
        }
    }

    fn bytes(&self) -> u64 {
        self.progress.values().map(|(bytes, _)| bytes).sum()
    }

    fn counters(&self) -> Counters {
        self.progress.values().fold(Counters::default(), |sum, (_, counters)| Counters {
            success: sum.success + counters.success,
            failed: sum.failed + counters.failed,
            skipped: sum.skipped + counters.skipped,
        })
    }

    fn words(&self, took: Duration) -> String {
        let Counters { success, failed, skipped } = self.counters();
        let pace = self.bytes() as f64 / took.as_secs_f64().max(0.001);
        let mut words = format!("{success} files, {} ({}/s)", show_bytes(self.bytes()), show_bytes(pace as u64));
        for (count, word) in [(failed, "unreadable"), (skipped, "skipped")] {
            if count > 0 {
                words.push_str(&format!(", {count} {word}"));
            }
        }
        words
    }

    fn summary(&self, took: Duration) -> String {
        let of = |status| self.statuses.values().filter(|each| **each == status).count();
        let tasks = [Status::Completed, Status::Failed, Status::Cancelled];
        let tasks = tasks.map(|status| (of(status), status)).into_iter().filter(|(count, _)| *count > 0);
        let tasks: Vec<_> = tasks.map(|(count, status)| format!("{count} {status}")).collect();
        format!(
            "{} tasks: {} in {:.1} s. {}.",
            self.ended.len(),
            tasks.join(", "),
            took.as_secs_f64(),
            self.words(took)
        )
    }
}
