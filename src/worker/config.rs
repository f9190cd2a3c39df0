//! The file of `taskhub worker`: which commands run which tasks.
//!
//! It means the same wherever the worker is started: what it names by a relative path is seen from its own folder. That is
//! where commands run unless a `cwd` is named, and where their programs are looked for if they are not found from there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{CONCURRENCY_MAX, CommandSpec, NotStarted, Token, Worker};
use crate::task::{NAME_CHARS_MAX, Name, Pattern, Strict};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The hub's address.
    pub hub: Option<String>,
    pub worker_id: Option<String>,
    /// The queues served; a name may end in `*`. `default` where absent.
    pub queues: Option<Vec<String>>,
    /// How many tasks run at once, of all types without a number of their own; 1.
    pub concurrency: Option<u32>,
    /// By task type, which may end in `*`.
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskConfig>,
    /// The folder of the file, where it was read from one.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
}

/// How tasks of one type are run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// The program and its arguments. No shell, unless it is named here.
    pub command: Vec<String>,
    /// Where it runs, seen from the folder of the file; that folder if absent.
    pub cwd: Option<PathBuf>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How many of this type run at once, beside what the others run.
    pub concurrency: Option<u32>,
    pub timeout_ms: Option<u64>,
    /// Between `SIGTERM` and `SIGKILL`; 5,000.
    pub kill_grace_ms: Option<u64>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub path: PathBuf,
    pub why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why.trim_end())
    }
}

impl std::error::Error for ConfigError {}

impl WorkerConfig {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<WorkerConfig, ConfigError> {
        let wrong = |why: String| ConfigError { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
        let mut config = WorkerConfig::parse(&text).map_err(wrong)?;
        // What comes from a pipe has no folder.
        if path.is_file() {
            let path = std::path::absolute(path).map_err(|why| wrong(why.to_string()))?;
            config.folder = path.parent().map(Path::to_owned);
        }
        Ok(config)
    }

    /// The task types whose commands could not be started now, and why.
    pub fn unready(&self) -> Vec<(&str, NotStarted)> {
        let unready = |(name, task): (_, &TaskConfig)| Some((name, self.spec(task).check().err()?));
        self.tasks.iter().map(|(name, task)| (name.as_str(), task)).filter_map(unready).collect()
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str) -> Result<WorkerConfig, String> {
        let text = text.trim_start_matches('\u{feff}');
        let Strict(config) = toml::from_str::<Strict<WorkerConfig>>(text).map_err(|why| why.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(worker_id) = &self.worker_id {
            Name::parse(worker_id).map_err(|why| format!("worker_id {why}"))?;
        }
        if self.queues.as_ref().is_some_and(Vec::is_empty) {
            return Err("queues must not be empty; leave it out for the queue \"default\"".into());
        }
        for queue in self.queues.iter().flatten() {
            Pattern::parse(queue).map_err(|why| format!("queues: {queue:?} {why}"))?;
        }
        let concurrency = |field: &str, number: Option<u32>| match number {
            Some(number) if !(1..=CONCURRENCY_MAX).contains(&number) => {
                Err(format!("{field} must be from 1 to {CONCURRENCY_MAX}"))
            }
            _ => Ok(()),
        };
        concurrency("concurrency", self.concurrency)?;
        if self.tasks.is_empty() {
            return Err("there is no task type to run; add a table like [tasks.report]".into());
        }
        for (task_type, task) in &self.tasks {
            let at = format!("tasks.{task_type}");
            Pattern::parse(task_type).map_err(|why| format!("{at}: the task type {why}"))?;
            if task.command.first().is_none_or(String::is_empty) {
                return Err(format!("{at}.command must name a program"));
            }
            concurrency(&format!("{at}.concurrency"), task.concurrency)?;
            if task.timeout_ms == Some(0) {
                return Err(format!("{at}.timeout_ms must be at least 1"));
            }
            if let Some(name) = task.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
                return Err(format!("{at}.env: {name:?} is no name of a variable"));
            }
        }
        Ok(())
    }

    /// The workers that do what the file says, as `worker_id` of the hub at `hub`. A type with a concurrency of its own
    /// gets a connection of its own (`ID.TYPE`), so that the hub keeps to that number; the others share one.
    pub fn workers(&self, hub: &str, worker_id: &str, token: Option<&Token>) -> Vec<Worker> {
        let worker = |id: String, concurrency: Option<u32>| {
            let id: String = id.chars().take(NAME_CHARS_MAX).collect();
            let mut worker = Worker::new(hub).id(id).concurrency(concurrency.unwrap_or(1));
            if let Some(queues) = &self.queues {
                worker = worker.queues(queues.iter().cloned());
            }
            if let Some(token) = token {
                worker = worker.token(token.clone());
            }
            // A command has a grace of its own, after which it is killed: it need not be dropped before that.
            let slowest = self.tasks.values().map(|task| task.kill_grace()).max().unwrap_or_default();
            worker.cancel_grace(slowest + Duration::from_secs(5))
        };
        let (own, shared): (Vec<_>, Vec<_>) = self.tasks.iter().partition(|(_, task)| task.concurrency.is_some());
        let mut workers = Vec::new();
        if !shared.is_empty() {
            let all =
                shared.into_iter().fold(worker(worker_id.to_owned(), self.concurrency), |worker, (name, task)| {
                    worker.register_command(name, self.spec(task))
                });
            workers.push(all);
        }
        for (task_type, task) in own {
            let id = format!("{worker_id}.{}", task_type.trim_end_matches('*'));
            workers.push(worker(id, task.concurrency).register_command(task_type, self.spec(task)));
        }
        workers
    }

    fn spec(&self, task: &TaskConfig) -> CommandSpec {
        let cwd = match &self.folder {
            Some(folder) => Some(folder.join(task.cwd.as_deref().unwrap_or(Path::new("")))),
            None => task.cwd.clone(),
        };
        CommandSpec {
            command: task.command.clone(),
            cwd,
            folder: self.folder.clone(),
            env: task.env.clone(),
            timeout: task.timeout_ms.map(Duration::from_millis),
            kill_grace: task.kill_grace(),
        }
    }
}

impl TaskConfig {
    fn kill_grace(&self) -> Duration {
        Duration::from_millis(self.kill_grace_ms.unwrap_or(5_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        hub = "http://127.0.0.1:8080"
        worker_id = "host-7"
        queues = ["default", "media.*"]
        concurrency = 4

        [tasks.report]
        command = ["python3", "report.py"]
        cwd = "jobs"
        env = { KEY = "value" }
        timeout_ms = 60000
        kill_grace_ms = 100

        [tasks."media.*"]
        command = ["ffmpeg"]
        concurrency = 2
    "#;

    #[test]
    fn a_whole_file() {
        let config = WorkerConfig::parse(WHOLE).unwrap();
        assert_eq!(config.concurrency, Some(4));
        assert_eq!(config.tasks["report"].kill_grace(), Duration::from_millis(100));
        assert_eq!(config.tasks["media.*"].concurrency, Some(2));
        let workers = config.workers("http://hub", "host-7", None);
        let ids: Vec<_> = workers.iter().map(|worker| worker.worker_id.clone().unwrap()).collect();
        assert_eq!(ids, ["host-7", "host-7.media."]);
        assert_eq!(workers[1].concurrency, 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, words: &str| {
            let why = WorkerConfig::parse(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        };
        check("", "no task type");
        check("concurency = 2", "unknown field `concurency`");
        check("[tasks.a]\ncommand = [\"x\"]\nshell = true", "unknown field `shell`");
        assert!(
            WorkerConfig::parse("\u{feff}[tasks.a]\ncommand = [\"x\"]").is_ok(),
            "a byte order mark is no part of it"
        );
        check("tasks = []", "expected an object");
        check("tasks.a = []", "expected an object");
        check("tasks.a = [[\"x\"]]", "expected an object");
        check("[tasks.a]\ncommand = [\"x\"]\nenv = []", "expected an object");
        check("[tasks.a]", "missing field `command`");
        check("[tasks.a]\ncommand = \"x y\"", "expected an array");
        check("[tasks.a]\ncommand = []", "tasks.a.command must name a program");
        check("[tasks.\"a b\"]\ncommand = [\"x\"]", "must be of A-Z");
        check("concurrency = 0\n[tasks.a]\ncommand = [\"x\"]", "concurrency must be from 1 to 1000");
        check("[tasks.a]\ncommand = [\"x\"]\nconcurrency = 1001", "tasks.a.concurrency");
        check("[tasks.a]\ncommand = [\"x\"]\ntimeout_ms = 0", "tasks.a.timeout_ms");
        check("queues = []\n[tasks.a]\ncommand = [\"x\"]", "queues must not be empty");
        check("[tasks.a]\ncommand = [\"x\"]\nenv = { \"A=B\" = \"c\" }", "no name of a variable");
    }

    #[test]
    fn a_folder_is_seen_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        std::fs::write(&path, WHOLE).unwrap();
        let config = WorkerConfig::read(&path).unwrap();
        assert_eq!(config.spec(&config.tasks["report"]).cwd, Some(folder.path().join("jobs")));
        assert_eq!(config.spec(&config.tasks["media.*"]).cwd, Some(folder.path().join("")));
        let missing = WorkerConfig::read(&folder.path().join("none.toml")).unwrap_err();
        assert!(missing.to_string().contains("none.toml"), "{missing}");
    }
}
