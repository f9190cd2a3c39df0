//! `taskhub demo`, as a real process: what it shows, and that nothing of it is left.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kit::{PATIENCE, Program, Terminal, eventually, lines, program};

/// A demo that plays fast, on a port of its own, with a temporary folder that it could leave something in.
struct Demo {
    program: Program,
    url: String,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start() -> Demo {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program();
        command.args(["demo", "--no-open", "--listen", "127.0.0.1:0", "--speed", "20"]);
        command.current_dir(folder.path()).env("TMPDIR", folder.path()).env("HOME", folder.path());
        let mut program = Program::start(command);
        assert!(program.first_line().contains("in memory"), "{}", program.said());
        let printed = program.printed();
        let url =
            printed.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_else(|| panic!("{printed}"));
        Demo { url: url.trim_end_matches('/').to_owned(), program, folder }
    }

    async fn list(&self, query: &str) -> Vec<Value> {
        let answer =
            reqwest::get(format!("{}/api/v1/tasks?limit=500&{query}", self.url)).await.expect("the hub answers");
        let mut page: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        page["tasks"].take().as_array().cloned().unwrap_or_default()
    }

    async fn until(&self, what: &str, query: &str, is: impl Fn(&Value) -> bool) {
        eventually(what, async || self.list(query).await.iter().any(&is).then_some(())).await;
    }

    /// The processes that it started.
    fn children(&self) -> Vec<i32> {
        let parent = self.program.id().to_string();
        let pids =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            // `PID (NAME) STATE PARENT …`, where the name may hold anything.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&parent))
        })
        .collect()
    }
}

fn is_there(pid: i32) -> bool {
    // SAFETY: signal 0 only looks.
    unsafe { libc::kill(pid, 0) == 0 }
}

#[tokio::test]
async fn it_shows_every_kind_of_task() {
    let demo = Demo::start();
    demo.until("progress in steps, with counts and time left", "status=running", |task| {
        let progress = &task["progress"];
        progress["step"].is_string() && progress["counters"].is_object() && progress["eta_ms"].is_u64()
    })
    .await;
    demo.until("one that is scheduled", "status=scheduled", |task| task["run_at"].is_string()).await;
    demo.until("one that waits for its turn", "status=pending", |_| true).await;
    demo.until("a priority", "", |task| task["priority"] == 50).await;
    demo.until("a failed try, and why", "", |task| task["last_error"]["message"].is_string()).await;
    demo.until("all tries failed", "status=failed", |task| task["error"]["kind"] == "http").await;
    demo.until("a lost worker, and another in its place", "", |task| task["crashes"] == 1 && task["attempt"] == 2)
        .await;
    demo.until("poison", "status=failed", |task| task["crashes"] == 2).await;
    demo.until("one that was cancelled while it ran", "status=cancelled", |task| task["started_at"].is_string()).await;
    demo.until("a task below another", "", |task| task["parent_id"].is_string()).await;
    demo.until("one that ran out of time, and was tried again", "", |task| task["last_error"]["kind"] == "timeout")
        .await;
    let tasks = demo.list("").await;
    let distinct = |field: &str| tasks.iter().map(|task| task[field].to_string()).collect::<BTreeSet<_>>().len();
    let kinds = ["task_type", "queue", "user_id", "labels"].map(distinct);
    assert!(kinds.iter().all(|kinds| *kinds >= 5), "{kinds:?}");
    let built = tasks.iter().rev().find(|task| task["task_type"] == "build.image").expect("a build");
    let logs = format!("{}/api/v1/tasks/{}/logs", demo.url, built["task_id"].as_str().unwrap());
    let logs = reqwest::get(logs).await.unwrap().text().await.unwrap();
    assert!(logs.contains(r"\u001b[1;32mCompiling"), "{logs}");
}

/// Regression: the hub of the demo outlived its terminal, and the next demo failed.
#[tokio::test]
async fn it_ends_with_its_terminal_and_leaves_nothing() {
    for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT, libc::SIGKILL] {
        let mut demo = Demo::start();
        demo.until("a worker that works", "status=running", |_| true).await;
        let children = demo.children();
        assert!(children.len() >= 4, "{children:?}");
        demo.program.signal(signal);
        let ended = demo.program.wait(PATIENCE);
        assert!(ended.success() || signal == libc::SIGKILL, "{signal}: {ended}: {}", demo.program.said());
        eventually(format_args!("all of {children:?} end after signal {signal}"), async || {
            children.iter().all(|pid| !is_there(*pid)).then_some(())
        })
        .await;
        let left: Vec<_> =
            std::fs::read_dir(demo.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{signal}: {left:?}");
        // The port is free again.
        let address = demo.url.strip_prefix("http://").unwrap();
        std::net::TcpListener::bind(address).unwrap_or_else(|why| panic!("{address} after signal {signal}: {why}"));
    }
}

/// In a terminal that is closed, and of which it takes no more than the width.
#[test]
fn its_terminal_is_closed() {
    let mut command = program();
    command.args(["demo", "--no-open", "--listen", "127.0.0.1:0", "--speed", "20"]);
    let terminal = Terminal::start(command, 60, 24);
    let told = terminal.until(0, "was killed (SIGKILL)");
    let told: Vec<_> = lines(&told).into_iter().skip_while(|line| !line.starts_with("00:")).collect();
    assert!(told.iter().all(|line| line.chars().count() <= 60), "{told:#?}");
    assert!(terminal.close().success());
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = program();
    command.args(["demo", "--no-open", "--listen", &taken.local_addr().unwrap().to_string()]);
    let mut demo = Program::start(command);
    assert_eq!(demo.wait(PATIENCE).code(), Some(1));
    assert!(demo.said().contains("--listen"), "{}", demo.said());
}
