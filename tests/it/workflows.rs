//! Tasks that belong together, over REST, the live stream, restarts and retention.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, eventually, id, millis, program};

async fn submit(hub: &TestHub, workflow: Value) -> (String, Vec<String>) {
    let whole = hub.post("/api/v1/workflows", workflow).await.expect(201);
    (id(&whole["workflow"]), whole["tasks"].as_array().expect("a list").iter().map(id).collect())
}

async fn show(hub: &TestHub, workflow_id: &str) -> Value {
    hub.get(&format!("/api/v1/workflows/{workflow_id}")).await.expect(200)
}

/// Claims the next task and ends it.
async fn run_next(hub: &TestHub, verb: &str, body: Value) -> String {
    let given = hub.claim("w").await;
    let (task_id, attempt) = (id(&given["task"]), given["task"]["attempt"].as_u64().expect("it runs"));
    hub.attempt(&task_id, attempt, verb, body).await.expect(200);
    task_id
}

async fn complete_next(hub: &TestHub, result: Value) -> String {
    run_next(hub, "complete", json!({"result": result})).await
}

async fn fail_next(hub: &TestHub) -> String {
    run_next(hub, "fail", json!({"error": {"message": "no luck"}, "retryable": false})).await
}

async fn retry(hub: &TestHub, task_id: &str) -> Answer {
    hub.tell(&format!("/api/v1/tasks/{task_id}/retry")).await
}

#[tokio::test]
async fn a_chain_runs_to_its_end_over_restarts() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let chain = json!({"title": "Release", "user_id": "ann", "chain": [
        {"task_type": "build"}, {"task_type": "test", "ref": "check"}, {"task_type": "publish"},
    ]});
    let answer = hub.post("/api/v1/workflows", chain).await;
    let location = answer.header("location").to_owned();
    let whole = answer.expect(201);
    let workflow = id(&whole["workflow"]);
    assert_eq!(location, format!("workflows/{workflow}"));
    let ids: Vec<String> = whole["tasks"].as_array().unwrap().iter().map(id).collect();
    let refs: Vec<&str> = whole["tasks"].as_array().unwrap().iter().map(|task| task["ref"].as_str().unwrap()).collect();
    assert_eq!(refs, ["0", "check", "2"]);
    for task in whole["tasks"].as_array().unwrap() {
        assert_eq!((&task["workflow_id"], &task["user_id"]), (&json!(workflow), &json!("ann")));
    }
    assert_eq!(
        (&whole["workflow"]["status"], &whole["workflow"]["task_type"]),
        (&json!("pending"), &json!("workflow"))
    );
    let shown = show(&hub, &workflow).await;
    assert_eq!(shown["edges"], json!([[ids[0], ids[1]], [ids[1], ids[2]]]));
    assert_eq!(hub.get(&format!("/api/v1/workflows/{}", ids[0])).await.problem(), "404 workflow_not_found");
    assert_eq!(hub.get("/api/v1/workflows/nothing").await.problem(), "404 workflow_not_found");

    assert_eq!(complete_next(&hub, json!("built")).await, ids[0]);
    hub.restart().await;
    let running = hub.task(&workflow).await;
    assert_eq!((&running["status"], &running["attempt"]), (&json!("running"), &json!(0)));
    assert_eq!(running["progress"]["percentage"], json!(33.3));
    assert_eq!(running["progress"]["counters"]["success"], json!(1));
    assert_eq!(complete_next(&hub, json!("tested")).await, ids[1]);
    hub.restart().await;
    assert_eq!(complete_next(&hub, json!({"version": "1.2"})).await, ids[2]);
    let done = hub.finished(&workflow).await;
    assert_eq!(done["status"], "completed");
    // Nothing depends on the last one.
    let left = json!({"2": {"task_id": ids[2], "status": "completed", "result": {"version": "1.2"}}});
    assert_eq!(done["result"], left);
    assert_eq!(hub.events(&workflow).await, ["created", "running", "completed"]);
    let of_it = hub.get(&format!("/api/v1/tasks?workflow_id={workflow}&order=asc")).await.expect(200);
    assert_eq!(of_it["tasks"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn a_large_result_is_passed_up_over_a_restart() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let large = json!("x".repeat(100_000));
    let workflow = json!({"tasks": [
        {"ref": "big", "task_type": "t"}, {"ref": "last", "task_type": "t", "depends_on": ["@big"]},
    ], "output": "@big"});
    let (workflow, _) = submit(&hub, workflow).await;
    complete_next(&hub, large.clone()).await;
    hub.restart().await;
    complete_next(&hub, json!(null)).await;
    let done = hub.finished(&workflow).await;
    assert_eq!(done["result"], large);
    assert_eq!(hub.get(&format!("/api/v1/tasks/{workflow}/result")).await.expect(200)["result"], large);
}

#[tokio::test]
async fn watchers_of_a_workflow_see_its_tasks_and_how_far_it_is() {
    let hub = TestHub::start().await;
    let mut live = hub.live().await;
    let (workflow, ids) = submit(&hub, json!({"group": [{"task_type": "t", "weight": 3}, {"task_type": "t"}]})).await;
    hub.submit_any().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "tasks", "filter": {"workflow_id": [workflow]}})).await;
    live.say(json!({"op": "subscribe", "id": 2, "sub": "itself", "filter": {"task_id": [workflow]}})).await;
    live.next_of("mark").await;
    let given = hub.claim("w").await;
    assert_eq!(id(&given["task"]), ids[0]);
    let running =
        live.until("the workflow runs", |line| line["event"] == "task.running" && line["task"]["task_id"] == workflow);
    running.await;
    hub.attempt(&ids[0], 1, "progress", json!({"progress": {"percentage": 40}})).await.expect(200);
    // Three of four parts of the weight, 40 % of these.
    let tick = live.until("it is 30 % done", |line| {
        line["type"] == "progress" && line["task_id"] == workflow && line["progress"]["percentage"] == 30.0
    });
    let tick = tick.await;
    assert_eq!((&tick["attempt"], &tick["progress"]["total"]), (&json!(0), &json!(2)));
    hub.attempt(&ids[0], 1, "complete", json!({"result": 1})).await.expect(200);
    let ended = live.until("it is 75 % done", |line| {
        line["type"] == "progress" && line["task_id"] == workflow && line["progress"]["percentage"] == 75.0
    });
    assert_eq!(ended.await["progress"]["counters"], json!({"success": 1, "failed": 0, "skipped": 0}));
    complete_next(&hub, json!(2)).await;
    let lines =
        live.through("it ends", |line| line["event"] == "task.completed" && line["task"]["task_id"] == workflow);
    let lines = lines.await;
    let seen: BTreeSet<&str> = lines.iter().filter_map(|line| line["task"]["task_id"].as_str()).collect();
    assert!(seen.contains(ids[1].as_str()) && seen.len() <= 3, "{seen:?}");
}

#[tokio::test]
async fn a_failure_stops_what_has_not_started_and_a_retry_goes_on() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let tasks = json!({"tasks": [
        {"ref": "a", "task_type": "t", "priority": 9},
        {"ref": "b", "task_type": "t", "priority": 8},
        {"ref": "c", "task_type": "t", "depends_on": ["@b"]},
        {"ref": "clean", "task_type": "t", "depends_on": ["@c"], "on_dependency_failure": "run"},
    ]});
    let (workflow, ids) = submit(&hub, tasks).await;
    assert_eq!(complete_next(&hub, json!(1)).await, ids[0]);
    assert_eq!(fail_next(&hub).await, ids[1]);
    assert_eq!(hub.task(&ids[2]).await["status"], "cancelled");
    // That one is spared.
    assert_eq!(complete_next(&hub, json!("clean")).await, ids[3]);
    let failed = hub.finished(&workflow).await;
    assert_eq!((&failed["status"], &failed["error"]["kind"]), (&json!("failed"), &json!("child")));
    assert_eq!(failed["error"]["details"], json!({"ref": "b", "task_id": ids[1], "failed": 1}));
    assert_eq!(failed["progress"]["counters"], json!({"success": 2, "failed": 1, "skipped": 1}));

    hub.restart().await;
    assert_eq!(retry(&hub, &workflow).await.expect(200)["status"], "pending");
    hub.restart().await;
    assert_eq!(complete_next(&hub, json!(2)).await, ids[1]);
    assert_eq!(complete_next(&hub, json!(3)).await, ids[2]);
    let done = hub.finished(&workflow).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["progress"]["counters"], json!({"success": 4, "failed": 0, "skipped": 0}));
}

#[tokio::test]
async fn a_task_that_is_run_again_opens_its_workflow() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let (workflow, ids) =
        submit(&hub, json!({"on_failure": "finish", "group": [{"task_type": "t"}, {"task_type": "t"}]})).await;
    fail_next(&hub).await;
    complete_next(&hub, json!(1)).await;
    assert_eq!(hub.finished(&workflow).await["status"], "failed");
    hub.restart().await;
    retry(&hub, &ids[0]).await.expect(200);
    // Another one of it has run.
    assert_eq!(hub.task(&workflow).await["status"], "running");
    complete_next(&hub, json!(2)).await;
    assert_eq!(hub.finished(&workflow).await["status"], "completed");
    assert_eq!(hub.events(&workflow).await, ["created", "running", "failed", "retrying", "running", "completed"]);
}

#[tokio::test]
async fn cancelling_a_workflow_cancels_its_tasks_within_others_too() {
    let hub = TestHub::start().await;
    let tasks = json!({"tasks": [
        {"ref": "run", "task_type": "t", "priority": 1},
        {"ref": "inner", "workflow": {"chain": [{"task_type": "t"}, {"task_type": "t"}]}},
    ]});
    let (workflow, ids) = submit(&hub, tasks).await;
    assert_eq!(ids.len(), 4);
    let given = hub.claim("w").await;
    assert_eq!(id(&given["task"]), ids[0]);
    let asked = hub.post(&format!("/api/v1/tasks/{workflow}/cancel"), json!({"reason": "enough"})).await.expect(202);
    assert_eq!((&asked["status"], &asked["cancel"]), (&json!("running"), &json!("requested")));
    for task_id in &ids[1..] {
        assert_eq!(hub.finished(task_id).await["status"], "cancelled");
    }
    assert_eq!(hub.task(&ids[0]).await["status"], "running");
    hub.attempt(&ids[0], 1, "cancelled", json!({})).await.expect(200);
    assert_eq!(hub.finished(&workflow).await["status"], "cancelled");
}

#[tokio::test]
async fn tasks_go_with_their_workflow_and_not_before() {
    let hub = TestHub::builder().on_disk().set(|config| config.retain = millis(1_000)).start().await;
    let tasks = json!({"on_failure": "finish", "tasks": [
        {"ref": "a", "task_type": "t", "priority": 9},
        {"ref": "inner", "workflow": {"group": [{"task_type": "t"}]}},
        {"ref": "last", "task_type": "t", "depends_on": ["@inner"]},
    ]});
    let (workflow, ids) = submit(&hub, tasks).await;
    complete_next(&hub, json!(1)).await;
    assert_eq!(hub.delete(&format!("/api/v1/tasks/{}", ids[0])).await.problem(), "409 task_not_finished");
    assert_eq!(hub.delete(&format!("/api/v1/tasks/{workflow}")).await.problem(), "409 task_not_finished");
    // What ended after it is gone when its time is over, so its own is too.
    let witness = id(&hub.submit(json!({"task_type": "other"})).await);
    hub.tell(&format!("/api/v1/tasks/{witness}/cancel")).await.expect(200);
    let gone = async |task_id: &str| (hub.get(&format!("/api/v1/tasks/{task_id}")).await.status == 404).then_some(());
    eventually("a final task goes", async || gone(&witness).await).await;
    assert_eq!(hub.task(&ids[0]).await["status"], "completed");
    complete_next(&hub, json!(2)).await;
    complete_next(&hub, json!(3)).await;
    assert_eq!(hub.finished(&workflow).await["status"], "completed");
    for task_id in ids.iter().chain([&workflow]) {
        eventually("all of the workflow goes", async || gone(task_id).await).await;
    }
}

#[tokio::test]
async fn a_workflow_is_deleted_with_all_of_its_tasks() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let tasks = json!({"group": [{"workflow": {"group": vec![json!({"task_type": "t"}); 3]}}, {"task_type": "t"}]});
    let (workflow, ids) = submit(&hub, tasks).await;
    hub.tell(&format!("/api/v1/tasks/{workflow}/cancel")).await.expect(200);
    hub.finished(&workflow).await;
    hub.restart().await;
    hub.delete(&format!("/api/v1/tasks/{workflow}")).await.expect(204);
    for task_id in ids.iter().chain([&workflow]) {
        assert_eq!(hub.get(&format!("/api/v1/tasks/{task_id}")).await.problem(), "404 task_not_found");
    }
    assert_eq!(hub.get("/api/v1/stats").await.body["tasks"]["cancelled"], 0);
}

#[tokio::test]
async fn what_is_wrong_is_said_by_its_place_and_nothing_is_taken() {
    let hub = TestHub::start().await;
    let t = || json!({"task_type": "t"});
    let deep = (0..9).fold(json!({"group": [t()]}), |inner, _| json!({"group": [{"workflow": inner}]}));
    for (body, code, field) in [
        (json!({}), "invalid_field", "tasks"),
        (json!({"tasks": []}), "invalid_field", "tasks"),
        (json!({"tasks": [t()], "chain": [t()]}), "invalid_field", "tasks"),
        (json!({"tasks": [{}]}), "invalid_field", "tasks[0].task_type"),
        (json!({"tasks": [t(), {"task_type": "no good"}]}), "invalid_field", "tasks[1].task_type"),
        (json!({"chord": {"group": [t()]}}), "invalid_field", "chord.then"),
        (json!({"chord": {"group": [], "then": t()}}), "invalid_field", "chord.group"),
        (json!({"tasks": [{"task_type": "t", "depends_on": ["@b"]}]}), "invalid_field", "tasks[0].depends_on[0]"),
        (json!({"tasks": [{"ref": "self", "task_type": "t"}]}), "invalid_field", "tasks[0].ref"),
        (
            json!({"tasks": [{"ref": "a", "task_type": "t"}, {"ref": "a", "task_type": "t"}]}),
            "invalid_field",
            "tasks[1].ref",
        ),
        (
            json!({"tasks": [{"ref": "a", "task_type": "t", "depends_on": ["@b"]}, {"ref": "b", "task_type": "t", "depends_on": ["@a"]}]}),
            "invalid_field",
            "tasks[0].depends_on",
        ),
        (json!({"tasks": [t()], "output": "@nothing"}), "invalid_field", "output"),
        (json!({"tasks": [t()], "on_failure": "explode"}), "invalid_field", "on_failure"),
        (json!({"tasks": [{"task_type": "t", "weight": 0}]}), "invalid_field", "tasks[0].weight"),
        (json!({"tasks": [{"task_type": "t", "weight": 1_000_001}]}), "limit_exceeded", "tasks[0].weight"),
        (json!({"tasks": [{"workflow": {"group": [t()]}, "queue": "q"}]}), "invalid_field", "tasks[0].queue"),
        (
            json!({"tasks": [{"workflow": {"group": [{"task_type": "t", "priority": 101}]}}]}),
            "invalid_field",
            "tasks[0].workflow.group[0].priority",
        ),
        (
            json!({"tasks": [{"task_type": "t", "user_id": "bob"}], "user_id": "ann"}),
            "invalid_field",
            "tasks[0].user_id",
        ),
        (json!({"tasks": [t()], "retries": 3}), "unknown_field", "retries"),
        (json!({"group": vec![t(); 10_001]}), "limit_exceeded", "group"),
        (
            json!({"group": vec![json!({"workflow": {"group": vec![t(); 1_001]}}); 10]}),
            "limit_exceeded",
            "group[9].workflow.group",
        ),
    ] {
        let answer = hub.post("/api/v1/workflows", body.clone()).await;
        assert_eq!(answer.problem(), format!("422 {code} {field}"), "{body}: {}", answer.body);
    }
    let answer = hub.post("/api/v1/workflows", deep).await;
    assert!(answer.problem().starts_with("422 limit_exceeded group[0].workflow."), "{}", answer.body);
    // What stands in a workflow only.
    for (body, field) in [
        (json!({"task_type": "t", "weight": 2}), "weight"),
        (json!({"workflow": {"group": [t()]}, "task_type": "t"}), "workflow"),
    ] {
        let problem = hub.post("/api/v1/tasks", body).await.problem();
        assert_eq!(problem, format!("422 invalid_field {field}"));
    }
    assert_eq!(hub.get("/api/v1/tasks").await.expect(200)["tasks"], json!([]));
}

#[tokio::test]
async fn a_key_makes_a_resend_harmless() {
    let hub = TestHub::start().await;
    let send = async || {
        let body = json!({"chain": [{"task_type": "t"}, {"task_type": "t"}]});
        let request = hub.request(Method::POST, "/api/v1/workflows").header("Idempotency-Key", "k").json(&body);
        Answer::of(request).await
    };
    let first = send().await.expect(201);
    complete_next(&hub, json!(1)).await;
    let again = send().await.expect(200);
    assert_eq!((id(&first["workflow"]), id(&first["tasks"][1])), (id(&again["workflow"]), id(&again["tasks"][1])));
    assert_eq!((&again["workflow"]["status"], &again["tasks"][0]["status"]), (&json!("running"), &json!("completed")));
}

#[tokio::test]
async fn a_workflow_waits_as_a_whole() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let first = id(&hub.submit(json!({"task_type": "t"})).await);
    let (workflow, ids) =
        submit(&hub, json!({"depends_on": [first], "group": [{"task_type": "t", "priority": 5}]})).await;
    assert_eq!(hub.task(&workflow).await["status"], "waiting");
    let waits = hub.task(&ids[0]).await;
    assert_eq!(waits["waits_for"], json!([{"kind": "dependency", "task_ids": [workflow], "count": 1}]));
    hub.restart().await;
    assert_eq!(complete_next(&hub, json!(1)).await, first);
    hub.once(&workflow, "pending").await;
    assert_eq!(complete_next(&hub, json!(2)).await, ids[0]);
    assert_eq!(hub.finished(&workflow).await["status"], "completed");
    // No queue holds a workflow, so to purge one leaves it alone.
    let (workflow, _) = submit(&hub, json!({"group": [{"task_type": "t", "queue": "other"}]})).await;
    hub.tell("/api/v1/queues/default/purge").await.expect(200);
    assert_eq!(hub.task(&workflow).await["status"], "pending");
}

#[tokio::test]
async fn the_command_line_submits_a_workflow_waits_for_it_and_shows_it() {
    let hub = TestHub::start().await;
    let run = |args: &[&str]| {
        let output = program().args(args).env("TASKHUB_URL", &hub.url).output().expect("the program runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("it prints text").trim_end().to_owned())
    };
    let text = r#"{"title": "Release", "tasks": [
        {"ref": "build", "task_type": "build", "payload": {"exact": 1.10}},
        {"ref": "test", "task_type": "test", "depends_on": ["@build"]}
    ], "output": "@test"}"#;
    let (code, workflow) = run(&["workflow", "submit", text]);
    assert_eq!(code, Some(0));
    let (_, shown) = run(&["workflow", "show", &workflow]);
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["title", "Release"]), "{shown}");
    let test = lines.last().expect("a table");
    assert_eq!((test[0], test[2], *test.last().unwrap()), ("test", "waiting", "build"), "{shown}");
    let given = hub.post("/api/v1/worker/claim", json!({"worker_id": "w"})).await;
    assert!(given.text.contains(r#"{"exact": 1.10}"#), "{}", given.text);
    hub.attempt(&id(&given.body["tasks"][0]["task"]), 1, "complete", json!({})).await.expect(200);
    complete_next(&hub, json!("shipped")).await;
    assert_eq!(hub.finished(&workflow).await["result"], "shipped");
    assert_eq!(run(&["workflow", "submit", "{\"tasks\": 1}"]).0, Some(2));
}

async fn claimed(hub: &TestHub) -> (String, String) {
    let given = hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "wait_ms": 5_000})).await;
    let task = &given.body["tasks"][0];
    (id(&task["task"]), task["task"]["payload"].to_string())
}

#[tokio::test]
async fn results_are_passed_on() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let take = |name: &str| json!({"$result": name});
    let tasks = json!({"tasks": [
        {"ref": "a", "task_type": "t", "priority": 9},
        {"ref": "b", "task_type": "t", "payload": {"whole": take("@a"), "part": {"$result": "@a", "path": "/docs/1"}}},
        {"ref": "inner", "workflow": {"chord": {
            "group": [{"task_type": "t", "priority": 8}, {"task_type": "t", "priority": 7}],
            "then": {"task_type": "t", "payload": [take("@group"), {"$result": "@group", "path": "/1"}]},
        }}, "depends_on": ["@b"]},
        {"ref": "last", "task_type": "t", "payload": take("@inner"), "depends_on": ["@inner"]},
    ], "output": "@last"});
    let (workflow, ids) = submit(&hub, tasks).await;
    // Taking it is depending on it.
    assert_eq!(hub.task(&ids[1]).await["depends_on"], json!([ids[0]]));
    let large = json!({"docs": ["x".repeat(10_000), 1.5]});
    assert_eq!(complete_next(&hub, large.clone()).await, ids[0]);
    hub.restart().await;
    let (b, payload) = claimed(&hub).await;
    assert_eq!((&b, payload), (&ids[1], json!({"whole": large, "part": 1.5}).to_string()));
    // What was sent is what is shown.
    assert_eq!(hub.task(&b).await["payload"]["whole"], take("@a"));
    assert_eq!(hub.task(&b).await["takes_results"], true);
    hub.attempt(&b, 1, "complete", json!({})).await.expect(200);
    complete_next(&hub, json!("first")).await;
    complete_next(&hub, json!("second")).await;
    // Over a socket as well, after a restart.
    hub.restart().await;
    let mut worker = hub.worker("s", json!({"task_types": ["t"], "concurrency": 1})).await;
    let run = worker.next_of("run").await;
    assert_eq!(run["task"]["payload"], json!([["first", "second"], "second"]));
    let (then, attempt) = (run["task"]["task_id"].clone(), run["task"]["attempt"].clone());
    worker.say(json!({"op": "complete", "task_id": then, "attempt": attempt, "result": 7})).await;
    let run = worker.next_of("run").await;
    let left = json!({"then": {"task_id": then, "status": "completed", "result": 7}});
    assert_eq!(run["task"]["payload"], left);
    let (last, attempt) = (run["task"]["task_id"].clone(), run["task"]["attempt"].clone());
    worker.say(json!({"op": "complete", "task_id": last, "attempt": attempt, "result": "end"})).await;
    assert_eq!(hub.finished(&workflow).await["result"], "end");
}

#[tokio::test]
async fn a_task_fails_where_a_result_that_it_takes_is_not_there() {
    let hub = TestHub::start().await;
    let tasks = json!({"on_failure": "finish", "tasks": [
        {"ref": "a", "task_type": "t", "priority": 9},
        {"ref": "gap", "task_type": "t", "payload": {"$result": "@a", "path": "/nothing"}},
        {"ref": "default", "task_type": "t", "payload": {"$result": "@a", "path": "/nothing", "default": "else"}},
        {"ref": "spared", "task_type": "t", "payload": {"$result": "@gap", "default": null}, "on_dependency_failure": "run"},
    ]});
    let (workflow, ids) = submit(&hub, tasks).await;
    complete_next(&hub, json!({})).await;
    let (default, payload) = {
        let mut given = claimed_any(&hub).await;
        while given.is_none() {
            given = claimed_any(&hub).await;
        }
        given.unwrap()
    };
    assert_eq!((default.as_str(), payload.as_str()), (ids[2].as_str(), "\"else\""));
    let failed = hub.finished(&ids[1]).await;
    assert_eq!((&failed["error"]["kind"], &failed["attempt"]), (&json!("dependency"), &json!(1)));
    assert_eq!(failed["error"]["message"], "its payload takes @a/nothing, where nothing is");
    hub.attempt(&default, 1, "complete", json!({})).await.expect(200);
    let (spared, payload) = claimed(&hub).await;
    assert_eq!((spared, payload), (ids[3].clone(), "null".to_owned()));
    hub.attempt(&ids[3], 1, "complete", json!({})).await.expect(200);
    assert_eq!(hub.finished(&workflow).await["status"], "failed");
    for (wrong, detail) in [(json!({"$result": "@nobody"}), "@nobody"), (json!({"$result": 1}), "byte 0")] {
        let body = json!({"tasks": [{"task_type": "t"}, {"task_type": "t", "payload": wrong}]});
        for path in ["/api/v1/workflows", "/api/v1/tasks/batch"] {
            let answer = hub.post(path, body.clone()).await;
            assert_eq!(answer.problem(), "422 invalid_field tasks[1].payload");
            assert!(answer.text.contains(detail), "{}", answer.text);
        }
    }
    // Alone it is a payload like any other.
    let literal = json!({"$result": "@nobody"});
    let task = hub.submit(json!({"task_type": "t", "payload": literal})).await;
    assert_eq!(claimed(&hub).await, (id(&task), literal.to_string()));
}

/// A claim that met a task which could not be run may bring nothing.
async fn claimed_any(hub: &TestHub) -> Option<(String, String)> {
    let given = hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "wait_ms": 5_000})).await;
    let task = given.body["tasks"].get(0)?;
    Some((id(&task["task"]), task["task"]["payload"].to_string()))
}

#[tokio::test]
async fn a_running_task_adds_others() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let (workflow, ids) = submit(&hub, json!({"user_id": "ann", "chain": [{"task_type": "plan"}]})).await;
    assert_eq!(id(&hub.claim("w").await["task"]), ids[0]);
    let path = |attempt: u32| format!("/api/v1/tasks/{}/attempts/{attempt}/spawn", ids[0]);
    let tasks = json!({"tasks": [
        {"ref": "page", "task_type": "page"},
        {"ref": "sum", "task_type": "sum", "depends_on": ["@page", "@self"], "payload": {"plan": {"$result": "@self"}}},
    ]});
    let send = async |hub: &TestHub, attempt: u32| {
        Answer::of(hub.request(Method::POST, &path(attempt)).header("Idempotency-Key", "k").json(&tasks)).await
    };
    let spawned = send(&hub, 1).await.expect(201)["tasks"].clone();
    for task in spawned.as_array().unwrap() {
        let expected = (&json!(ids[0]), &json!(workflow), &json!("ann"));
        assert_eq!((&task["parent_id"], &task["workflow_id"], &task["user_id"]), expected);
    }
    // What the next attempt finds to be done is done already.
    hub.restart().await;
    let page = hub.claim("w").await;
    let again = hub.claim("w").await;
    let (page, again) = if id(&page["task"]) == ids[0] { (again, page) } else { (page, again) };
    assert_eq!((id(&page["task"]), &again["task"]["attempt"]), (id(&spawned[0]), &json!(2)));
    assert_eq!(send(&hub, 2).await.expect(200)["tasks"][1]["task_id"], spawned[1]["task_id"]);
    hub.attempt(&ids[0], 2, "complete", json!({"result": {"pages": 1}})).await.expect(200);
    assert_eq!(hub.task(&workflow).await["progress"]["total"], json!(3));
    hub.attempt(&id(&spawned[0]), 1, "complete", json!({})).await.expect(200);
    assert_eq!(claimed(&hub).await, (id(&spawned[1]), json!({"plan": {"pages": 1}}).to_string()));
    hub.attempt(&id(&spawned[1]), 1, "complete", json!({})).await.expect(200);
    assert_eq!(hub.finished(&workflow).await["status"], "completed");
    // One that does not run adds nothing.
    assert_eq!(hub.post(&path(2), tasks.clone()).await.problem(), "409 lease_lost");

    let alone = hub.submit_any().await;
    let other = hub.submit_any().await;
    hub.claim("w").await;
    let path = format!("/api/v1/tasks/{alone}/attempts/1/spawn");
    for (tasks, expected) in [
        (json!([]), "422 invalid_field tasks"),
        (json!([{"task_type": "t", "depends_on": ["@nobody"]}]), "422 invalid_field tasks[0].depends_on[0]"),
        (json!([{"task_type": "t", "parent_id": other}]), "422 invalid_field tasks[0].parent_id"),
    ] {
        assert_eq!(hub.post(&path, json!({ "tasks": tasks })).await.problem(), expected);
    }
    let more = hub.post(&path, json!({"tasks": [{"task_type": "t"}]})).await.expect(201);
    assert_eq!((&more["tasks"][0]["parent_id"], more["tasks"][0].get("workflow_id")), (&json!(alone), None));
}
