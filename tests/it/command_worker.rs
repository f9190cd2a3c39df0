//! `taskhub worker`: commands as tasks, heard to the last word, stopped well, and told for what they are when they cannot
//! be started.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{PATIENCE, Program, TestHub, eventually, id, program};

/// A worker in a process of its own, of the hub at `url`. It is started elsewhere than where its file is.
fn command(hub: &TestHub, folder: &Path, config: &str) -> Command {
    let file = folder.join("worker.toml");
    std::fs::write(&file, config).expect("a file in a temporary folder");
    let mut command = program();
    command.args(["worker", "--hub", &hub.url, "--config"]).arg(file).current_dir("/");
    command
}

/// A command that is this script of a shell.
fn shell(script: &str) -> String {
    format!("command = [\"/bin/sh\", \"-c\", '''{script}''']\n")
}

async fn start(hub: &TestHub, folder: &Path, config: &str) -> Program {
    let worker = Program::start(command(hub, folder, config));
    connected(hub).await;
    worker
}

async fn connected(hub: &TestHub) {
    eventually("the worker is there", async || {
        let workers = hub.get("/api/v1/workers").await.expect(200);
        (workers["workers"] != json!([])).then_some(())
    })
    .await;
}

async fn submit(hub: &TestHub, task_type: &str) -> String {
    id(&hub.submit(json!({"task_type": task_type})).await)
}

async fn run(hub: &TestHub, task_type: &str) -> Value {
    let task_id = submit(hub, task_type).await;
    hub.finished(&task_id).await
}

/// The log of a task, as `level message`.
async fn log(hub: &TestHub, task: &Value) -> Vec<String> {
    let path = format!("/api/v1/tasks/{}/logs?tail=10000", id(task));
    let lines = hub.get(&path).await.expect(200);
    let line =
        |line: &Value| format!("{} {}", line["level"].as_str().unwrap_or("?"), line["message"].as_str().unwrap_or("?"));
    lines["lines"].as_array().expect("lines").iter().map(line).collect()
}

/// Regression: a result with `NaN` in it was taken for a line of the log, and the task completed with null.
#[tokio::test]
async fn a_word_that_cannot_be_read_is_not_lost_without_notice() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = [
        "[tasks.nan]\n",
        &shell(r#"echo '{"result": {"loss": NaN}}'"#),
        "[tasks.cut]\n",
        &shell(r#"printf '{"result": {"loss": 1'"#),
        "[tasks.indented]\n",
        &shell(r#"printf '{\n  "result": {\n    "loss": 1\n  }\n}\n'"#),
        "[tasks.last]\n",
        &shell(r#"echo '{"result": NaN}'; echo '{"result": 2}'"#),
        "[tasks.failed]\n",
        &shell(r#"echo '{"result": {"rows": 7}}'; exit 3"#),
        "[tasks.unread]\n",
        &shell(r#"echo first; for n in $(seq 200); do echo '{"progress": NaN}'; done; echo '{"log": 5}'"#),
        "[tasks.over]\n",
        &shell(r#"echo first; for n in $(seq 200); do echo '{"progress": 101}'; done"#),
    ];
    let _worker = start(&hub, folder.path(), &config.concat()).await;
    for (task_type, words) in [("nan", "\"NaN\", which JSON does not have"), ("cut", "ends before its last brace")] {
        let task = run(&hub, task_type).await;
        let error = &task["error"];
        assert_eq!((&task["status"], &error["kind"]), (&json!("failed"), &json!("result")), "{task}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        let log = log(&hub, &task).await;
        assert!(log.iter().any(|line| line.starts_with("warn the result cannot be read")), "{log:?}");
        assert!(log.iter().any(|line| line.starts_with(r#"info {"result": {"loss""#)), "{log:?}");
    }
    assert_eq!(run(&hub, "indented").await["result"], json!({"loss": 1}));
    assert_eq!(run(&hub, "last").await["result"], 2, "the last one counts");
    let failed = run(&hub, "failed").await;
    assert_eq!(failed["error"]["details"]["exit_code"], 3);
    let lines = log(&hub, &failed).await;
    assert!(lines[0].starts_with("warn ") && lines[0].contains(r#"{"rows": 7}"#), "{lines:?}");
    // Any number of them leaves the rest of the log where it is.
    for task_type in ["unread", "over"] {
        let task = run(&hub, task_type).await;
        assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &Value::Null));
        let lines = log(&hub, &task).await;
        assert!(lines.len() < 20 && lines[0] == "info first", "{lines:?}");
        assert!(lines.last().unwrap().contains("more words for the hub could not be read"), "{lines:?}");
    }
}

/// Regression: each redraw was a line, and a bar of 12,000 pushed all else out of the log.
#[tokio::test]
async fn of_a_line_that_is_redrawn_the_last_state_is_logged() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let bar = |to: &str| {
        let code = format!(
            "import sys\nprint('loading model v7', flush=True)\n\
             for i in range(12001):\n sys.{to}.write('\\r%3d%%|####| %d/12000' % (i // 120, i))\n\
             print(file=sys.{to}, flush=True)\nprint('done')\n"
        );
        format!("[tasks.{to}]\ncommand = [\"python3\", \"-c\", '''{code}''']\n")
    };
    let gate = folder.path().join("gate");
    let slow = shell("printf '\\r50 %%'; while [ ! -e gate ]; do sleep 0.05; done; printf '\\r100 %%\\n'");
    let config = [bar("stdout"), bar("stderr"), format!("[tasks.slow]\n{slow}")].concat();
    let _worker = start(&hub, folder.path(), &config).await;
    for (task_type, level) in [("stdout", "info"), ("stderr", "warn")] {
        let task = run(&hub, task_type).await;
        let mut lines = log(&hub, &task).await;
        let last = format!("{level} 100%|####| 12000/12000");
        for expected in ["info loading model v7", &last, "info done"] {
            assert!(lines.iter().any(|line| line == expected), "{expected:?} in {lines:?}");
        }
        lines.retain(|line| line.contains("|####|"));
        // A machine that is busy for seconds sees some states on the way.
        assert!(lines.len() < 100, "{} states", lines.len());
    }
    // One that takes long shows where it is.
    let task = json!({"task_id": submit(&hub, "slow").await});
    eventually("a state is shown", async || (log(&hub, &task).await == ["info 50 %"]).then_some(())).await;
    std::fs::write(gate, "").unwrap();
    hub.finished(&id(&task)).await;
    assert_eq!(log(&hub, &task).await, ["info 50 %", "info 100 %"]);
}

/// The processes that have this one as their parent, have ended, and were not waited for.
fn zombies(parent: u32) -> usize {
    let of_parent = |stat: &str| {
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
    };
    let stats = std::fs::read_dir("/proc").expect("a table of processes").flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| of_parent(stat)).count()
}

/// Regression: as the first process of a container the worker was handed orphans, and never waited for them.
#[tokio::test]
async fn orphans_are_waited_for_and_no_status_of_a_command_is_taken() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    // Each command leaves a process that has left its group and outlives it, and one that ends at once.
    let orphans = "setsid sh -c 'sleep 0.2; exec true' >/dev/null 2>&1 & (setsid true >/dev/null 2>&1 &)";
    let config = format!(
        "concurrency = 8\n[tasks.a]\n{}[tasks.b]\n{}",
        shell(&format!("{orphans}; exit 7")),
        shell(&format!("{orphans}; echo '{{\"result\":\"kept\"}}'")),
    );
    let mut command = command(&hub, folder.path(), &config);
    // SAFETY: one system call between fork and exec. It makes the worker the parent of its descendants' orphans, as the
    // first process of a container is.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let worker = Program::start(command);
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push((submit(&hub, "a").await, submit(&hub, "b").await));
    }
    for (a, b) in &tasks {
        let (a, b) = (hub.finished(a).await, hub.finished(b).await);
        assert_eq!(a["error"]["details"]["exit_code"], 7, "{a}");
        assert_eq!(b["result"], "kept", "{b}");
    }
    eventually("no zombie is left", async || (zombies(worker.id()) == 0).then_some(())).await;
}

/// Regression: a closed terminal ended the worker at once, its command was killed unheard, and a crash was counted.
#[tokio::test]
async fn a_closed_terminal_drains_a_worker() {
    for signals in [&[libc::SIGHUP, libc::SIGHUP, libc::SIGTERM][..], &[libc::SIGQUIT]] {
        let hub = TestHub::start().await;
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo heard >heard; exit 0' TERM; echo '{\"progress\":1}'; while :; do sleep 0.05; done";
        let config = format!("[tasks.t]\n{}", shell(script));
        let mut command = command(&hub, folder.path(), &config);
        command.args(["--drain-timeout", "300ms"]);
        let mut worker = Program::start(command);
        let task_id = submit(&hub, "t").await;
        eventually("it runs", async || (hub.task(&task_id).await["tick"] == 1).then_some(())).await;
        for signal in signals {
            worker.signal(*signal);
        }
        let status = worker.wait(PATIENCE);
        assert_eq!(status.code(), Some(0), "{signals:?}: {}", worker.said());
        assert_eq!(std::fs::read_to_string(folder.path().join("heard")).unwrap_or_default(), "heard\n");
        let task = hub.task(&task_id).await;
        assert_eq!((&task["status"], &task["crashes"]), (&json!("pending"), &json!(0)), "{task}");
    }
}

#[tokio::test]
async fn a_worker_that_is_to_survive_its_terminal_does() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&hub, folder.path(), &format!("[tasks.t]\n{}", shell("exit 0")));
    // SAFETY: one system call between fork and exec, as nohup makes it.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            // And as careless parents do, after which the kernel keeps no exit statuses.
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut worker = Program::start(command);
    connected(&hub).await;
    worker.signal(libc::SIGHUP);
    let task = run(&hub, "t").await;
    assert_eq!(task["status"], "completed", "{task}");
    assert!(worker.is_running());
    worker.signal(libc::SIGTERM);
    assert_eq!(worker.wait(PATIENCE).code(), Some(0));
}

#[tokio::test]
async fn a_worker_goes_on_when_nobody_reads_what_it_says() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&hub, folder.path(), &format!("[tasks.t]\n{}", shell("echo hello >&2")));
    command.env("RUST_LOG", "debug").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut worker = command.spawn().unwrap();
    drop((worker.stdout.take(), worker.stderr.take()));
    let task = run(&hub, "t").await;
    let second = run(&hub, "t").await;
    let running = worker.try_wait().unwrap();
    let _ = worker.kill();
    let _ = worker.wait();
    assert_eq!((&task["status"], &second["status"]), (&json!("completed"), &json!("completed")));
    assert_eq!(running, None);
}

/// Regression: a missing folder was told as a missing program, and a program beside the file was looked for elsewhere.
#[tokio::test]
async fn a_file_means_the_same_wherever_the_worker_is_started() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let jobs = folder.path().join("jobs");
    std::fs::create_dir(&jobs).unwrap();
    for (file, text) in [("good.sh", "#!/bin/sh\npwd\n"), ("lost.sh", "#!/no/such/interpreter\n")] {
        std::fs::write(jobs.join(file), text).unwrap();
        std::fs::set_permissions(jobs.join(file), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let config = r#"
        [tasks.beside]
        command = ["jobs/good.sh"]
        [tasks.inside]
        command = ["./good.sh"]
        cwd = "jobs"
        [tasks.both]
        command = ["jobs/good.sh"]
        cwd = "jobs"
        [tasks.argument]
        command = ["sh", "jobs/good.sh"]
        [tasks.folder]
        command = ["true"]
        cwd = "none"
        [tasks.interpreter]
        command = ["jobs/lost.sh"]
        [tasks.program]
        command = ["no-such-program"]
    "#;
    let worker = start(&hub, folder.path(), config).await;
    let root = folder.path().to_str().unwrap().to_owned();
    for (task_type, place) in [("beside", ""), ("inside", "/jobs"), ("both", "/jobs"), ("argument", "")] {
        let task = run(&hub, task_type).await;
        assert_eq!(task["status"], "completed", "{task_type}: {task}");
        assert_eq!(log(&hub, &task).await, [format!("info {root}{place}")], "{task_type}");
    }
    for (task_type, code, words) in [
        ("folder", 126, format!("cwd \"{root}/none\": there is no such folder")),
        ("interpreter", 126, "\"/no/such/interpreter\", that is not there".into()),
        ("program", 127, "there is no program \"no-such-program\" in PATH".into()),
    ] {
        let error = run(&hub, task_type).await["error"].clone();
        assert_eq!((&error["kind"], &error["details"]["exit_code"]), (&json!("exit"), &json!(code)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(&words), "{error}");
        assert!(worker.said().contains("there is no such folder"), "said at the start: {}", worker.said());
    }
    let mut check = program();
    check.args(["worker", "--check", "--config"]).arg(folder.path().join("worker.toml"));
    let output = check.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tasks.folder: cwd") && said.contains("tasks.program: there is no program"), "{said}");
}
