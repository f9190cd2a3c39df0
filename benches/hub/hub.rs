//! A hub to measure: the release binary on a free port, in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;
use crate::connection::Connection;
use crate::process::Process;

/// Names another binary to measure instead: for before and after.
const OTHER_BINARY: &str = "TASKHUB_BENCH_BINARY";

/// A new folder on the disk that holds `target/`; gone when this goes.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Outcome<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hub-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The binary that is measured, with these arguments and the folder after them. Nothing that happens to be set outside
/// changes what it does.
fn program(arguments: &[&str], folder: &Folder) -> Command {
    let mut command =
        Command::new(std::env::var_os(OTHER_BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_taskhub").into()));
    command.args(arguments).arg(folder.path());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TASKHUB_")) {
        command.env_remove(name);
    }
    command.env("TASKHUB_LOG", "warn");
    command
}

/// A running hub; killed when this goes.
pub struct Hub {
    pub process: Process,
    pub address: SocketAddr,
    /// From the start of the process until it answered.
    pub ready: Duration,
    /// Of its admin; empty where the hub is open.
    pub token: String,
    calls: Connection,
}

impl Hub {
    pub async fn start(folder: &Folder) -> Outcome<Hub> {
        Hub::start_with(folder, &[]).await
    }

    pub async fn start_with(folder: &Folder, options: &[&str]) -> Outcome<Hub> {
        Hub::launch(folder, options, String::new()).await
    }

    /// One that asks everyone for a token, and whose admin this is.
    pub async fn start_closed(folder: &Folder, options: &[&str]) -> Outcome<Hub> {
        let made = program(&["token", "create", "--role", "admin", "--data"], folder).stderr(Stdio::null()).output()?;
        if !made.status.success() {
            return Err("no token was made".into());
        }
        Hub::launch(folder, options, String::from_utf8(made.stdout)?.trim().to_owned()).await
    }

    async fn launch(folder: &Folder, options: &[&str], token: String) -> Outcome<Hub> {
        let mut command = program(&["serve", "--listen", "127.0.0.1:0", "--data"], folder);
        command.args(options);
        let begun = Instant::now();
        let mut process = Process::start(&mut command)?;
        let line = process.hear()?;
        let address: SocketAddr = line.rsplit_once("http://").ok_or("no address")?.1.parse()?;
        let mut calls = Connection::open_as(address, &token).await?;
        calls.get("/readyz").await?;
        Ok(Hub { process, address, ready: begun.elapsed(), token, calls })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn get(&mut self, path: &str) -> Outcome<Value> {
        Ok(serde_json::from_slice(self.calls.get(path).await?)?)
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> Outcome<Value> {
        Ok(serde_json::from_slice(self.calls.post(path, body).await?)?)
    }

    /// How many tasks have this status.
    pub async fn count(&mut self, status: &str) -> Outcome<u64> {
        let stats = self.get("/api/v1/stats").await?;
        Ok(stats["tasks"][status].as_u64().ok_or("no such count")?)
    }

    /// Looks every few milliseconds until at least so many tasks have this status.
    pub async fn until_count(&mut self, status: &str, count: u64, limit: Duration) -> Outcome {
        let begun = Instant::now();
        while self.count(status).await? < count {
            if begun.elapsed() > limit {
                let stats = self.get("/api/v1/stats").await?;
                return Err(format!("{count} {status} tasks were expected: {}", stats["tasks"]).into());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    /// Starts a worker and waits until the hub knows it. `ending` says what becomes of `hold` tasks.
    pub async fn worker(&mut self, id: &str, concurrency: u32, ending: &str) -> Outcome<Process> {
        let worker = Process::role("worker", &[&self.url(), id, &concurrency.to_string(), ending])?;
        self.until_worker(id).await?;
        Ok(worker)
    }

    pub async fn until_worker(&mut self, id: &str) -> Outcome {
        let begun = Instant::now();
        loop {
            let list = self.get("/api/v1/workers").await?;
            let known = list["workers"].as_array().is_some_and(|list| list.iter().any(|one| one["worker_id"] == id));
            if known {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!("the worker {id} did not come").into());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}
