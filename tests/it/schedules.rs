//! Schedules: set while the hub runs, over REST, on the command line and on the page; one task a due time, also where the hub
//! is killed around it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use taskhub::task::Timestamp;

use crate::browser::Browser;
use crate::kit::{HubProcess, TestHub, eventually, id, program};

/// Of a schedule that is due once a year: nothing of it happens while a test looks.
fn yearly() -> Value {
    json!({"cron": "0 9 29 2 *", "time_zone": "europe/berlin", "overlap": "skip", "jitter_ms": 5,
        "task": {"task_type": "report", "queue": "slow", "payload": {"n": 1.50}}})
}

#[tokio::test]
async fn what_is_set_of_a_schedule_is_there_after_a_restart_and_may_be_put_back() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let path = "/api/v1/schedules/leap";
    hub.get(path).await.refused(404, "schedule_not_found");
    assert_eq!(hub.get("/api/v1/schedules").await.expect(200), json!({"schedules": []}));
    let set = hub.put(path, yearly()).await.expect(201);
    assert_eq!(
        (&set["name"], &set["time_zone"], &set["catch_up"], &set["catch_up_max"], &set["paused"]),
        (&json!("leap"), &json!("Europe/Berlin"), &json!("last"), &json!(100), &json!(false))
    );
    assert_eq!(set["task"], yearly()["task"]);
    let next = set["next"].as_array().unwrap();
    assert!(next.len() == 5 && next[0].as_str().unwrap().ends_with("-02-29T08:00:00.000Z"), "{next:?}");
    assert_eq!(hub.put(path, set.clone()).await.expect(200), set, "nothing is different");
    hub.restart().await;
    assert_eq!(hub.get(path).await.expect(200), set);

    let paused = hub.tell(&format!("{path}/pause")).await.expect(200);
    assert_eq!((&paused["paused"], &paused["next"]), (&json!(true), &json!([])));
    hub.restart().await;
    assert_eq!(hub.put(path, hub.get(path).await.expect(200)).await.expect(200)["rev"], paused["rev"]);
    assert_eq!(hub.tell(&format!("{path}/resume")).await.expect(200)["next"], set["next"]);

    hub.put("/api/v1/schedules/a", yearly()).await.expect(201);
    hub.put("/api/v1/schedules/z", yearly()).await.expect(201);
    let names = |list: &Value| {
        let all = list["schedules"].as_array().unwrap();
        all.iter().map(|schedule| schedule["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = hub.get("/api/v1/schedules?limit=2").await.expect(200);
    assert_eq!((names(&first), &first["next_cursor"]), (vec!["a".into(), "leap".into()], &json!("leap")));
    let rest = hub.get("/api/v1/schedules?limit=2&cursor=leap").await.expect(200);
    assert_eq!((names(&rest), rest.get("next_cursor")), (vec!["z".into()], None));
    hub.get("/api/v1/schedules?limit=1001").await.refused(422, "limit_exceeded");
    hub.get("/api/v1/schedules?cursor=a/b").await.refused(422, "bad_cursor");

    hub.delete(path).await.expect(204);
    hub.delete(path).await.refused(404, "schedule_not_found");
    hub.restart().await;
    hub.get(path).await.refused(404, "schedule_not_found");
}

#[tokio::test]
async fn wrong_schedules_are_refused_by_name() {
    let hub = TestHub::start().await;
    for (body, code, field) in [
        (json!({}), "invalid_field", "cron"),
        (json!({"cron": "@daily", "every_ms": 1_000}), "invalid_field", "every_ms"),
        (json!({"cron": "61 * * * *"}), "invalid_field", "cron"),
        (json!({"cron": "0 0 30 2 *"}), "invalid_field", "cron"),
        (json!({"every_ms": 999}), "invalid_field", "every_ms"),
        (json!({"every_ms": 1e30}), "limit_exceeded", "every_ms"),
        (json!({"cron": "@daily", "time_zone": "Mars/Olympus"}), "invalid_field", "time_zone"),
        (json!({"every_ms": 1_000, "overlap": "wait"}), "invalid_field", "overlap"),
        (json!({"every_ms": 1_000, "catch_up": "some"}), "invalid_field", "catch_up"),
        (json!({"every_ms": 1_000, "catch_up_max": 1_001}), "limit_exceeded", "catch_up_max"),
        (json!({"every_ms": 1_000, "jitter_ms": 1e9}), "limit_exceeded", "jitter_ms"),
        (
            json!({"every_ms": 1_000, "start_at": "2027-01-02T00:00:00Z", "end_at": "2027-01-01T00:00:00Z"}),
            "invalid_field",
            "end_at",
        ),
        (json!({"every_ms": 1_000, "colour": "red"}), "unknown_field", "colour"),
        (json!({"every_ms": 1_000, "task": {"task_type": "a b"}}), "invalid_field", "task.task_type"),
        (json!({"every_ms": 1_000, "task": {"task_type": "t", "delay_ms": 5}}), "invalid_field", "task.delay_ms"),
        (json!({"every_ms": 1_000, "task": {"task_type": "t", "colour": "red"}}), "unknown_field", "task.colour"),
        (json!({"every_ms": 1_000, "task": {}}), "invalid_field", "task.task_type"),
        (json!({"every_ms": 1_000, "task": {"task_type": "t", "queue": "a/b"}}), "invalid_field", "task.queue"),
        (
            json!({"every_ms": 1_000, "task": {"task_type": "t", "depends_on": ["@a"]}}),
            "invalid_field",
            "task.depends_on",
        ),
        (json!({"every_ms": 1_000, "task": {"workflow": {"chain": []}}}), "invalid_field", "task.workflow"),
        (json!({"every_ms": 1_000, "task": null}), "invalid_field", "task"),
    ] {
        let mut body = body;
        body.as_object_mut().unwrap().entry("task").or_insert(json!({"task_type": "t"}));
        let problem = hub.put("/api/v1/schedules/s", body.clone()).await.refused(422, code);
        assert_eq!(problem["field"], field, "{body}");
    }
    let problem = hub.put("/api/v1/schedules/s", json!({"every_ms": 1_000})).await.refused(422, "invalid_field");
    assert_eq!(problem["field"], "task");
    let problem = hub.put("/api/v1/schedules/a%20b", yearly()).await.refused(422, "invalid_field");
    assert_eq!(problem["field"], "name");
    for verb in ["run", "pause", "resume"] {
        hub.tell(&format!("/api/v1/schedules/nobody/{verb}")).await.refused(404, "schedule_not_found");
    }
    assert_eq!(hub.get("/api/v1/schedules").await.expect(200), json!({"schedules": []}));
}

#[tokio::test]
async fn a_schedule_submits_tasks_that_say_so_and_runs_when_it_is_told() {
    let hub = TestHub::start().await;
    let path = "/api/v1/schedules/tick";
    let body =
        json!({"every_ms": 1_000, "overlap": "skip", "task": {"task_type": "t", "payload": [1], "title": "tick"}});
    hub.put(path, body).await.expect(201);
    let last = eventually("a task", async || hub.get(path).await.expect(200).get("last").cloned()).await;
    hub.tell(&format!("{path}/pause")).await.expect(200);
    let task = hub.task(last["task_id"].as_str().unwrap()).await;
    assert_eq!(
        (&task["schedule"], &task["due_at"], &task["payload"], &task["title"], &task["status"]),
        (&json!("tick"), &last["due_at"], &json!([1]), &json!("tick"), &json!("pending"))
    );
    assert_eq!(last["status"], "pending");
    // By hand it runs beside that, and while it is paused.
    let answer = hub.tell(&format!("{path}/run")).await;
    assert_eq!(answer.header("location").split('/').next_back().map(str::len), Some(36));
    let run = answer.expect(201);
    assert_eq!((&run["schedule"], run.get("due_at"), &run["status"]), (&json!("tick"), None, &json!("pending")));
    let last = hub.get(path).await.expect(200)["last"].clone();
    assert_eq!(last, json!({"task_id": run["task_id"], "status": "pending"}));
    hub.tell(&format!("/api/v1/tasks/{}/cancel", id(&run))).await.expect(200);
    assert_eq!(hub.get(path).await.expect(200)["last"]["status"], "cancelled");
    hub.delete(&format!("/api/v1/tasks/{}", id(&run))).await.expect(204);
    assert_eq!(hub.get(path).await.expect(200)["last"], json!({"task_id": run["task_id"]}));
    hub.delete(path).await.expect(204);
    assert_eq!(hub.task(&id(&task)).await["schedule"], "tick", "its tasks stay");
}

#[tokio::test]
async fn tasks_that_are_not_to_overlap_wait_for_each_other_or_give_way() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let body = |overlap: &str| json!({"every_ms": 1_000, "overlap": overlap, "task": {"task_type": "t"}});
    for overlap in ["queue", "replace"] {
        let set = hub.put(&format!("/api/v1/schedules/{overlap}"), body(overlap)).await.expect(201);
        assert_eq!(set["overlap"], overlap);
    }
    let tasks = async |hub: &TestHub, overlap: &str| {
        let list = hub.get("/api/v1/tasks?task_type=t&limit=100").await.expect(200);
        let of = |task: &&Value| task["schedule"] == overlap;
        let mut tasks: Vec<Value> = list["tasks"].as_array().unwrap().iter().filter(of).cloned().collect();
        tasks.sort_by_key(|task| task["due_at"].as_str().unwrap().to_owned());
        tasks
    };
    eventually("three of each", async || {
        let enough = tasks(&hub, "queue").await.len() >= 3 && tasks(&hub, "replace").await.len() >= 3;
        enough.then_some(())
    })
    .await;
    for overlap in ["queue", "replace"] {
        hub.tell(&format!("/api/v1/schedules/{overlap}/pause")).await.expect(200);
    }
    hub.restart().await;
    let queued = tasks(&hub, "queue").await;
    for (at, task) in queued.iter().enumerate() {
        let task = hub.task(&id(task)).await;
        match at.checked_sub(1) {
            None => assert_eq!((&task["status"], task.get("depends_on")), (&json!("pending"), None)),
            Some(before) => assert_eq!(
                (&task["status"], &task["depends_on"], &task["on_dependency_failure"]),
                (&json!("waiting"), &json!([queued[before]["task_id"]]), &json!("run"))
            ),
        }
    }
    let statuses: Vec<Value> = tasks(&hub, "replace").await.iter().map(|task| task["status"].clone()).collect();
    let (last, before) = statuses.split_last().unwrap();
    assert!(last == "pending" && before.iter().all(|status| status == "cancelled"), "{statuses:?}");
    // However the first ends, the second may run.
    hub.tell(&format!("/api/v1/tasks/{}/cancel", id(&queued[0]))).await.expect(200);
    assert_eq!(hub.task(&id(&queued[1])).await["status"], "pending");
}

#[tokio::test]
async fn schedules_are_told_live() {
    let hub = TestHub::start().await;
    hub.put("/api/v1/schedules/a", yearly()).await.expect(201);
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "s", "settings": true})).await;
    let told = live.next_of("schedule").await;
    assert_eq!((&told["name"], &told["task"]), (&json!("a"), &yearly()["task"]));
    assert_eq!(live.next_of("settings").await["all"], true);
    let run = hub.tell("/api/v1/schedules/a/run").await.expect(201);
    assert_eq!(live.next_of("schedule").await["last"], json!({"task_id": run["task_id"]}));
    hub.delete("/api/v1/schedules/a").await.expect(204);
    assert_eq!(live.next_of("schedule").await["deleted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_set_and_run_by_command_and_on_the_page() {
    let hub = TestHub::start().await;
    let set = ["schedule", "set", "nightly", "report", r#"{"all":true}"#, "--cron", "0 3 29 2 *", "--queue", "slow"];
    let said = hub.command(&[&set[..], &["--time-zone", "Europe/Berlin", "--overlap", "skip"]].concat());
    assert!(said.contains("0 3 29 2 *") && said.contains("Europe/Berlin") && said.contains("02-29T02:00"), "{said}");
    let change = ["schedule", "set", "nightly", "--catch-up", "all", "--jitter", "30s", "--label", "a=b", "--json"];
    let said: Value = serde_json::from_str(&hub.command(&change)).expect("it is JSON");
    assert_eq!((&said["cron"], &said["overlap"]), (&json!("0 3 29 2 *"), &json!("skip")), "the rest stays");
    assert_eq!((&said["catch_up"], &said["jitter_ms"]), (&json!("all"), &json!(30_000)));
    assert_eq!(
        said["task"],
        json!({"task_type": "report", "queue": "slow", "payload": {"all": true}, "labels": {"a": "b"}})
    );
    let said = hub.command(&["schedule", "set", "often", "--every", "90d", "--task", r#"{"task_type":"poll"}"#]);
    assert!(said.contains("every 90 d") && said.contains("poll"), "{said}");
    assert_eq!(hub.command(&["schedule", "list", "--json"]).lines().count(), 2);
    let task = hub.command(&["schedule", "run", "nightly"]).trim().to_owned();
    assert_eq!(hub.task(&task).await["schedule"], "nightly");
    let output = program().args(["schedule", "show", "x"]).env("TASKHUB_URL", &hub.url).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "it is refused");

    let mut page = Browser::start().await.open(&format!("{}#/schedules", hub.url)).await;
    page.until("document.querySelectorAll('.schedules li').length === 2").await;
    let text = page.text(".schedules").await;
    assert!(text.contains("0 3 29 2 *, Europe/Berlin") && text.contains("last pending, by hand"), "{text}");
    assert!(text.contains("every 90d"), "{text}");
    page.click(".schedules li .buttons button:last-child").await;
    page.until("document.querySelector('.schedules .buttons button:last-child').innerText === 'Resume'").await;
    assert_eq!(hub.get("/api/v1/schedules/nightly").await.expect(200)["paused"], true);
    page.click(".schedules li .buttons button:first-child").await;
    page.until(&format!("!document.querySelector('.schedules li a').href.includes('{task}')")).await;
    let last = hub.get("/api/v1/schedules/nightly").await.expect(200)["last"]["task_id"].clone();
    assert_ne!(last, json!(task));
    page.click(".schedules li a").await;
    page.until("document.querySelector('.facts')?.innerText.includes('nightly')").await;
    hub.command(&["schedule", "resume", "nightly"]);
    hub.command(&["schedule", "delete", "often"]);
    page.look("location.hash = '#/schedules'").await;
    page.until("document.querySelectorAll('.schedules li').length === 1").await;
    page.until("document.querySelector('.schedules .buttons button:last-child').innerText === 'Pause'").await;
    page.close().await;
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A hub that is killed around due times: each second has exactly one task, whatever was on its way to the disk.
#[tokio::test]
async fn each_due_time_has_one_task_though_the_hub_is_killed_around_it() {
    let folder = tempfile::tempdir().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let start = || HubProcess::start(folder.path(), [] as [&str; 0]);
    let mut hub = start();
    let names = ["cron", "every"];
    for (name, when) in names.iter().zip([json!({"cron": "* * * * * *"}), json!({"every_ms": 1_000})]) {
        let mut body = when;
        body["catch_up"] = json!("all");
        body["task"] = json!({"task_type": "t", "labels": {"of": name}});
        let put = http.put(format!("{}/api/v1/schedules/{name}", hub.url)).json(&body).send().await.unwrap();
        assert_eq!(put.status().as_u16(), 201);
    }
    // Before the second, and while its commit is under way.
    for after in [0, 1, 2, 3, 5, 8, 990, 999] {
        let now = now();
        tokio::time::sleep(Duration::from_millis((1_000 - now % 1_000) + after)).await;
        hub.program.kill();
        hub = start();
    }
    let mut until = BTreeMap::new();
    for name in names {
        let pause = http.post(format!("{}/api/v1/schedules/{name}/pause", hub.url));
        let schedule: Value = pause.send().await.unwrap().json().await.unwrap();
        until.insert(name, schedule);
    }
    hub.program.kill();
    let hub = start();
    for name in names {
        let (mut due, mut cursor) = (Vec::new(), String::new());
        loop {
            let url = format!("{}/api/v1/tasks?order=asc&label.of={name}{cursor}", hub.url);
            let page: Value = http.get(url).send().await.unwrap().json().await.unwrap();
            for task in page["tasks"].as_array().unwrap() {
                assert_eq!(task["schedule"], name);
                due.push(Timestamp::parse(task["due_at"].as_str().expect("a due time")).unwrap());
            }
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let time = |field: &str| Timestamp::parse(until[name][field].as_str().unwrap()).unwrap();
        assert!(due.len() >= 8, "{due:?}");
        for (at, pair) in due.windows(2).enumerate() {
            assert_eq!(pair[1].millis_since(pair[0]), 1_000, "{name}: {at} of {due:?}");
        }
        assert!(due[0].millis_since(time("counts_from")) <= 1_000, "the first of {due:?}");
        assert_eq!(due.last(), Some(&time("done_until")), "the last");
    }
}
