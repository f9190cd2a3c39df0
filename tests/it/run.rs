//! `taskhub run`: a command as a task, whatever becomes of the hub.

use std::process::Command;

use serde_json::{Value, json};

use crate::kit::{PATIENCE, Program, TestHub, eventually, id, program};

/// Nothing listens there.
const NO_HUB: &str = "http://127.0.0.1:9";

fn run(hub: &str, options: &[&str], script: &str) -> Command {
    let mut command = program();
    command.args(["run", "--hub", hub]).args(options).args(["--", "sh", "-c", script]);
    command
}

async fn only_task(hub: &TestHub) -> Value {
    eventually("the task is there", async || {
        let tasks = hub.get("/api/v1/tasks").await.expect(200);
        tasks["tasks"].as_array().and_then(|tasks| tasks.first().cloned())
    })
    .await
}

#[tokio::test]
async fn it_prints_what_the_command_prints_and_exits_as_it_does() {
    let hub = TestHub::start().await;
    let output = run(&hub.url, &["--title", "nightly"], "echo out; echo err >&2; exit 3").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let task = hub.finished(&id(&only_task(&hub).await)).await;
    assert_eq!((&task["title"], &task["status"]), (&json!("nightly"), &json!("failed")));
    assert_eq!(task["error"], json!({"kind": "exit", "message": "err", "details": {"exit_code": 3}}));
}

#[tokio::test]
async fn what_cannot_be_started_is_told_as_shells_tell_it() {
    let hub = TestHub::start().await;
    for (words, code, said) in [("no-such-program", 127, "there is no program"), ("/", 126, "is a folder")] {
        let output = program().args(["run", "--hub", &hub.url, "--", words]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{words}");
    }
}

/// Regression: a backup that was run this way was skipped because the hub was down.
#[tokio::test]
async fn without_a_hub_the_command_runs_untracked_or_not_at_all_as_told() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("touch {}/$0-$TASKHUB_TASK_ID; echo out; exit 5", folder.path().display());
    for options in [&[][..], &["--if-down", "run"]] {
        let mut command = run(NO_HUB, options, &script);
        let output = command.arg("ran").env("TASKHUB_TASK_ID", "another's").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert_eq!(output.stdout, b"out\n");
        assert!(said.contains("cannot be reached") && said.contains("runs untracked"), "{said}");
        std::fs::remove_file(folder.path().join("ran-")).expect("it ran, and not as the task of another");
    }
    let output = run(NO_HUB, &["--if-down=fail"], &script).arg("ran").output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b""[..]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it did not run");
    // A word that no hub would take is no hub that is down.
    let hub = TestHub::start().await;
    let output = run(&hub.url, &["--type", "no type"], &script).arg("ran").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it did not run");
}

/// A hub that cannot take it now is as good as none.
#[tokio::test]
async fn with_a_hub_that_is_going_down_the_command_runs_untracked() {
    let mut hub = TestHub::builder().set(|config| config.drain_timeout = PATIENCE).start().await;
    hub.submit_any().await;
    hub.claim("w").await;
    hub.begin_shutdown();
    eventually("it drains", async || (hub.get("/readyz").await.status == 503).then_some(())).await;
    let output = run(&hub.url, &[], "echo out").output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"out\n"[..]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("runs untracked"), "{said}");
    let (task, attempt) = (only_task(&hub).await, 1);
    hub.attempt(&id(&task), attempt, "complete", json!({})).await.expect(200);
}

/// Closed terminals send SIGHUP. The task ends as cancelled, and not as lost.
#[tokio::test]
async fn a_signal_cancels_it() {
    for (signal, hub_is_there) in [(libc::SIGHUP, true), (libc::SIGTERM, true), (libc::SIGHUP, false)] {
        let hub = TestHub::start().await;
        let url = if hub_is_there { &hub.url } else { NO_HUB };
        let script = "trap 'echo heard; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        let mut running = Program::start(run(url, &[], script));
        assert_eq!(running.first_line(), "ready", "{}", running.said());
        running.signal(signal);
        assert_eq!(running.wait(PATIENCE).code(), Some(9), "{}", running.said());
        eventually("what it said is read", async || running.printed().contains("heard").then_some(())).await;
        if hub_is_there {
            let task = hub.finished(&id(&only_task(&hub).await)).await;
            assert_eq!(task["status"], "cancelled", "{task}");
        }
    }
}
