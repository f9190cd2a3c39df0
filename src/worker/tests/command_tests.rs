//! Tasks that are commands: what they are given, how they are heard, and how they end.

use super::*;

async fn dies(pid: u64) {
    let dead = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, dead).await.expect("the process dies");
}

#[tokio::test]
async fn a_command_is_fed_and_heard() {
    let hub = Hub::new().await;
    let script = r#"
        read -r payload
        printf '%s\n' "payload $payload mark $MARK type $TASKHUB_TASK_TYPE attempt $TASKHUB_ATTEMPT checkpoint $TASKHUB_CHECKPOINT"
        echo "to people" >&2
        echo '{"progress":25}'
        echo '{"progress":{"current":1,"total":2}}'
        echo '{"checkpoint":{"at":1}}'
        echo '{"log":{"level":"error","message":"loud"}}'
        echo '{"result":1}'
        echo '{"result":{"rows":2}}'
    "#;
    let _working = work(hub.worker().register_command("t", shell(script)));
    let mut line = hub.welcome().await;
    let run = json!({"type": "run", "task": task(ID_1, 2, json!("a\tb; rm -rf x")), "attempt": 2, "checkpoint": [1]});
    line.say(run).await;
    let (mut lines, mut progress, mut checkpoint) = (Vec::new(), Value::Null, Value::Null);
    let complete = loop {
        let said = line.next().await;
        match said["op"].as_str() {
            Some("log") => lines.extend(said["lines"].as_array().unwrap().iter().cloned()),
            Some("progress") => {
                progress = said.get("progress").cloned().unwrap_or(progress);
                checkpoint = said.get("checkpoint").cloned().unwrap_or(checkpoint);
            }
            _ => break said,
        }
    };
    assert_eq!(complete["result"], json!({"rows": 2}));
    assert_eq!(progress, json!({"percentage": 50, "current": 1, "total": 2}));
    assert_eq!(checkpoint, json!({"at": 1}));
    let said = |level: &str, message: &str| json!({"level": level, "message": message});
    let first = r#"payload "a\tb; rm -rf x" mark from the file type t attempt 2 checkpoint [1]"#;
    for expected in [said("info", first), said("warn", "to people"), said("error", "loud")] {
        assert!(lines.contains(&expected), "{expected} in {lines:?}");
    }
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn how_a_command_ends() {
    let hub = Hub::new().await;
    let slow = CommandSpec { timeout: Some(Duration::from_millis(50)), ..shell("exec sleep 1000") };
    let scripts = [
        (
            "echo one >&2; echo two >&2; exit 3",
            json!({"kind": "exit", "message": "one\ntwo", "details": {"exit_code": 3}}),
        ),
        ("exit 4", json!({"kind": "exit", "message": "exit code 4", "details": {"exit_code": 4}})),
        ("kill -9 $$", json!({"kind": "signal", "message": "killed by signal 9", "details": {"signal": 9}})),
    ];
    let mut worker = hub.worker().register_command("slow", slow);
    worker = worker.register_command("none", CommandSpec::new(vec!["/does/not/exist".into()]));
    for (n, (script, _)) in scripts.iter().enumerate() {
        worker = worker.register_command(format!("t{n}"), shell(script));
    }
    let _working = work(worker);
    let mut line = hub.welcome().await;
    let mut fail = async |task_type: &str| {
        let mut task = task(ID_1, 1, json!(null));
        task["task_type"] = task_type.into();
        line.say(json!({"type": "run", "task": task, "attempt": 1})).await;
        let fail = line.until("fail").await;
        line.ack(ID_1, 1).await;
        fail["error"].clone()
    };
    for (n, (script, error)) in scripts.iter().enumerate() {
        assert_eq!(fail(&format!("t{n}")).await, *error, "{script}");
    }
    assert_eq!(fail("slow").await["kind"], "timeout");
    let none = fail("none").await;
    assert_eq!((&none["kind"], &none["details"]), (&json!("exit"), &json!({"exit_code": 127})));
}

#[tokio::test]
async fn a_cancel_ends_the_command_and_all_it_started() {
    let hub = Hub::new().await;
    // The shell and its child both refuse to go when they are asked to.
    let script = r#"
        trap '' TERM
        sh -c 'trap "" TERM; while :; do sleep 1; done' &
        echo "{\"checkpoint\":[$$,$!]}"
        wait
    "#;
    let _working = work(hub.worker().register_command("t", shell(script)));
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    let pids = line.until("progress").await["checkpoint"].clone();
    let pids: Vec<u64> = pids.as_array().unwrap().iter().map(|pid| pid.as_u64().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    line.cancel(ID_1, "enough").await;
    assert_eq!(line.until("cancelled").await["task_id"], ID_1);
    // Cancelled is said once the command has stopped, and not before.
    for pid in pids {
        dies(pid).await;
    }
}

#[tokio::test]
async fn a_lost_command_is_ended_too() {
    let hub = Hub::new().await;
    let _working = work(hub.worker().register_command("t", shell("echo \"{\\\"checkpoint\\\":$$}\"; sleep 1000")));
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    let pid = line.until("progress").await["checkpoint"].as_u64().unwrap();
    line.say(json!({"type": "refused", "task_id": ID_1, "attempt": 1, "code": "lease_lost"})).await;
    dies(pid).await;
    assert_eq!(line.next().await, json!({"op": "cancelled", "task_id": ID_1, "attempt": 1}));
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_hold_its_task() {
    let hub = Hub::new().await;
    let _working = work(hub.worker().register_command("t", shell("sleep 1000 & echo \"{\\\"result\\\":$!}\"")));
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    let complete = line.until("complete").await;
    dies(complete["result"].as_u64().unwrap()).await;
}

/// Regression: a last line without its end was lost where something that had left the command's group held the pipe.
#[tokio::test]
async fn the_last_words_are_heard_before_who_holds_the_pipe() {
    let hub = Hub::new().await;
    let script = "setsid sleep 1000 & printf '{\"checkpoint\":%d}\\n{\"result\":1}' $!";
    let _working = work(hub.worker().register_command("t", shell(script)));
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    let left = line.until("progress").await["checkpoint"].as_i64().unwrap();
    assert_eq!(line.until("complete").await["result"], 1);
    // SAFETY: sends a signal to the process that this test has left behind.
    unsafe { libc::kill(left as i32, libc::SIGKILL) };
}
