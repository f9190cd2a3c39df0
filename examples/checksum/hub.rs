//! The hub of the demo: the program next door, as a child.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A hub answers within this; one with much to take up again says so in its log.
const START_MAX: Duration = Duration::from_secs(60);
/// It gives its watchers and what runs so long; then it is ended.
const END_MAX: Duration = Duration::from_secs(40);

/// A hub that runs.
pub struct Hub {
    child: Child,
    pub url: String,
}

impl Hub {
    /// Starts `taskhub serve`, and waits until it answers. What it logs goes to `hub.log` in its folder.
    pub async fn start(listen: &str, data: &Path) -> Result<Hub, String> {
        let program = program()?;
        std::fs::create_dir_all(data).map_err(|why| format!("{}: {why}", data.display()))?;
        let log = data.join("hub.log");
        let stderr = File::options().create(true).append(true).open(&log);
        let stderr = stderr.map_err(|why| format!("{}: {why}", log.display()))?;
        let mut child = Command::new(&program)
            .args(["serve", "--listen", listen, "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C is for us; the hub is told when its worker has ended.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|why| format!("{}: {why}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let first = tokio::time::timeout(START_MAX, lines.next_line()).await;
        let url = match first {
            Ok(Ok(Some(line))) => line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned),
            Ok(_) => None,
            Err(_) => return Err(format!("the hub did not answer within {START_MAX:?}; see {}", log.display())),
        };
        let Some(url) = url else {
            let why = std::fs::read_to_string(&log).unwrap_or_default();
            let why = why.lines().next_back().unwrap_or("it said nothing").to_owned();
            return Err(format!("the hub did not start: {why}"));
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Hub { child, url })
    }

    /// Ready when the hub has ended, which it should not by itself.
    pub async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Asks the hub to end, and waits until it has.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            // SAFETY: sends a signal to a child that was not waited for; touches no memory.
            unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        }
        if tokio::time::timeout(END_MAX, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// `taskhub`, built beside the folder of examples.
fn program() -> Result<PathBuf, String> {
    let ours = std::env::current_exe().map_err(|why| format!("where am I? {why}"))?;
    let program = ours.parent().and_then(Path::parent).map(|folder| folder.join("taskhub")).unwrap_or_default();
    if program.exists() {
        return Ok(program);
    }
    Err(format!("{} is not there: build it with `cargo build --bin taskhub`, or use `make demo`", program.display()))
}
