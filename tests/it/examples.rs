//! The examples do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::browser::Browser;
use crate::kit::{Program, TestHub, id, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An example that cargo has built beside the program; `cargo test` without a choice of targets does.
fn example(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_taskhub"));
    let path = program.with_file_name("examples").join(name);
    assert!(path.is_file(), "{} is not there: run cargo build --examples", path.display());
    path
}

fn lines_of(file: &str) -> usize {
    std::fs::read_to_string(root().join("examples").join(file)).expect("an example").lines().count()
}

#[test]
fn embedded() {
    let folder = tempfile::tempdir().unwrap();
    for run in ["the first time", "on the folder of the first"] {
        let output = Command::new(example("embedded")).arg(folder.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{run}: {}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[1..], ["completed: 4 words", "completed: 9 words", "completed: 13 words"], "{run}");
        assert!(lines[0].ends_with(" tasks are not done yet"), "{}", lines[0]);
    }
}

#[tokio::test]
async fn worker_py() {
    assert!(lines_of("worker.py") <= 40);
    let hub = TestHub::start().await;
    let mut command = Command::new("python3");
    command.arg(root().join("examples/worker.py")).arg(&hub.url);
    let mut worker = Program::start(command);
    let texts = ["one two", "three", ""];
    let task_id = id(&hub.submit(json!({"task_type": "word-count", "payload": texts})).await);
    let done = hub.finished(&task_id).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("completed"), &json!(3)), "{}", worker.said());
    assert_eq!(done["progress"], json!({"percentage": 100, "current": 3, "total": 3}));
    let logs = hub.get(&format!("/api/v1/tasks/{task_id}/logs")).await.expect(200);
    assert_eq!(logs["lines"][2]["message"], "reading text 3");
    let wrong = id(&hub.submit(json!({"task_type": "word-count", "payload": 7})).await);
    let failed = hub.finished(&wrong).await;
    assert_eq!((&failed["status"], &failed["error"]["kind"]), (&json!("failed"), &json!("TypeError")));
    let none = id(&hub.submit(json!({"task_type": "word-count", "payload": []})).await);
    assert_eq!(hub.finished(&none).await["result"], 0);
    assert!(worker.is_running(), "{}", worker.said());
}

/// The page is opened as it says in it, from another port than the hub's.
#[tokio::test]
async fn progress_html() {
    assert!(lines_of("progress.html") <= 20);
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(root()).arg("0");
    let mut server = Program::start(command);
    let line = server.first_line();
    let port = line.split(" port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{line}"));

    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let url = format!("http://127.0.0.1:{port}/examples/progress.html?hub={}&task={task_id}", hub.url);
    let mut page = Browser::start().await.open(&url).await;
    page.until("document.querySelector('#word')?.value === 'pending'").await;
    hub.claim("w").await;
    let tick = json!({"progress": {"percentage": 40, "message": "almost half"}});
    hub.attempt(&task_id, 1, "progress", tick).await.expect(200);
    page.until("document.querySelector('#word').value === 'running: almost half'").await;
    assert_eq!(page.look("document.querySelector('#bar').value").await, 40);
    hub.attempt(&task_id, 1, "complete", json!({"result": {"ok": true}})).await.expect(200);
    page.until("document.title === 'completed: {\"ok\":true}'").await;
    assert_eq!(page.look("document.querySelector('#bar').value").await, 100);
    page.errors.retain(|error| !error.contains("favicon.ico"));
    page.close().await;
}

/// The lines of the README: its file, its script, its payload, from any folder.
#[tokio::test]
async fn worker_toml() {
    let file = root().join("examples/worker.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (_, shown) = text.split_once('\n').unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("```toml\n{shown}```")), "the README shows the file as it is");
    assert!(readme.contains("taskhub worker --config examples/worker.toml"));
    assert!(readme.contains("taskhub submit report '{\"month\":\"2026-10\"}' --wait"));
    let hub = TestHub::start().await;
    let mut command = program();
    command.args(["worker", "--hub", &hub.url, "--config"]).arg(&file).current_dir("/");
    let worker = Program::start(command);
    let mut submit = program();
    submit.args(["submit", "--hub", &hub.url, "report", r#"{"month":"2026-10"}"#, "--wait"]);
    let output = tokio::task::spawn_blocking(move || submit.output().unwrap()).await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, "{\"month\": \"2026-10\", \"total\": 46500}\n", "{}", worker.said());
}
