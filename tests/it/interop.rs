//! Clients that are not ours.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::kit::{PATIENCE, Program, TestHub, eventually};

#[tokio::test]
async fn a_python_websocket_client_follows_a_task() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run tests/deps.sh", python.display());
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let mut command = Command::new(python);
    command.arg(root.join("tests/it/interop.py")).args([hub.address(), &task_id]);
    let mut client = Program::start(command);
    eventually("it has subscribed", async || client.printed().contains("mark").then_some(())).await;
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "progress", json!({"progress": {"current": 1, "total": 2}})).await.expect(200);
    eventually("it has heard of it", async || client.printed().contains("progress").then_some(())).await;
    hub.attempt(&task_id, 1, "complete", json!({"result": [1, "zwei"]})).await.expect(200);
    let status = client.wait(PATIENCE);
    eventually("it has seen the end", async || client.printed().contains("zwei").then_some(())).await;
    let printed = client.printed();
    assert!(status.success(), "{printed}\n{}", client.said());
    let steps: Vec<&str> = printed.lines().filter(|line| *line != "mark").collect();
    assert_eq!(steps, ["subscribed", "pending", "running", "progress 50", "completed", "[1, \"zwei\"]"]);
}
