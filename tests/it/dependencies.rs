//! Tasks that wait for others, over REST, the command line and restarts.

use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, id, program};

async fn batch(hub: &TestHub, tasks: Value) -> Answer {
    hub.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await
}

async fn batch_ids(hub: &TestHub, tasks: Value) -> Vec<String> {
    batch(hub, tasks).await.expect(201)["tasks"].as_array().expect("a list").iter().map(id).collect()
}

async fn run_next(hub: &TestHub, verb: &str, body: Value) -> String {
    let given = hub.claim("w").await;
    let (task_id, attempt) = (id(&given["task"]), given["task"]["attempt"].as_u64().expect("it runs"));
    hub.attempt(&task_id, attempt, verb, body).await.expect(200);
    task_id
}

#[tokio::test]
async fn a_batch_runs_in_the_order_of_its_names_also_over_a_restart() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let tasks = json!([
        {"task_type": "t", "ref": "publish", "depends_on": ["@build", "@test"]},
        {"task_type": "t", "ref": "build"},
        {"task_type": "t", "ref": "test", "depends_on": ["@build"]},
    ]);
    let ids = batch_ids(&hub, tasks).await;
    let publish = hub.task(&ids[0]).await;
    assert_eq!((&publish["status"], &publish["dependencies"]), (&json!("waiting"), &json!(2)));
    assert_eq!(publish["depends_on"], json!([ids[1], ids[2]]));
    assert_eq!(publish["waits_for"], json!([{"kind": "dependency", "task_ids": [ids[1], ids[2]], "count": 2}]));
    hub.restart().await;
    assert_eq!(run_next(&hub, "complete", json!({"result": 1})).await, ids[1]);
    hub.restart().await;
    let publish = hub.task(&ids[0]).await;
    assert_eq!(publish["waits_for"], json!([{"kind": "dependency", "task_ids": [ids[2]], "count": 1}]));
    assert_eq!(run_next(&hub, "complete", json!({"result": 1})).await, ids[2]);
    assert_eq!(run_next(&hub, "complete", json!({"result": 1})).await, ids[0]);
    assert_eq!(hub.events(&ids[0]).await, ["created", "pending", "running", "completed"]);
    // What it depended on is told for as long as it is there.
    assert_eq!(hub.task(&ids[0]).await["depends_on"], json!([ids[1], ids[2]]));
}

#[tokio::test]
async fn watchers_hear_what_a_failure_does_to_others() {
    let hub = TestHub::start().await;
    let first = id(&hub.submit(json!({"task_type": "t"})).await);
    let with = |policy: &str| json!({"task_type": "t", "depends_on": [first], "on_dependency_failure": policy});
    let ids = batch_ids(&hub, json!([with("cancel"), with("fail"), with("run")])).await;
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a"})).await;
    live.next_of("subscribed").await;
    let error = json!({"error": {"kind": "exit", "message": "no"}, "retryable": false});
    assert_eq!(run_next(&hub, "fail", error).await, first);
    let mut told = Vec::new();
    while told.len() < 3 {
        let event = live.next_of("task").await;
        if let Some(at) = ids.iter().position(|id| event["task"]["task_id"] == json!(id)) {
            told.push((at, event["event"].as_str().expect("an event has a name").to_owned()));
        }
    }
    told.sort();
    assert_eq!(told, [(0, "task.cancelled".into()), (1, "task.failed".into()), (2, "task.pending".into())]);
    let failed = hub.task(&ids[1]).await;
    assert_eq!(
        (&failed["error"]["kind"], &failed["error"]["details"]["task_id"]),
        (&json!("dependency"), &json!(first))
    );
    assert_eq!(failed["on_dependency_failure"], "fail");

    // To run them again one begins with the first.
    let retry = async |id: &str| hub.tell(&format!("/api/v1/tasks/{id}/retry")).await;
    assert_eq!(retry(&ids[0]).await.problem(), "409 dependency_failed");
    retry(&first).await.expect(200);
    assert_eq!(retry(&ids[0]).await.expect(200)["status"], "waiting");
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name_and_nothing_of_it_is_taken() {
    let hub = TestHub::start().await;
    let nobody = "01890000-0000-7000-8000-00000000002a";
    for (tasks, expected) in [
        (json!([{"task_type": "t", "depends_on": [nobody]}]), "422 invalid_field tasks[0].depends_on[0]"),
        (json!([{"task_type": "t", "depends_on": ["@b"]}]), "422 invalid_field tasks[0].depends_on[0]"),
        (
            json!([{"task_type": "t"}, {"task_type": "t", "depends_on": ["x"]}]),
            "422 invalid_field tasks[1].depends_on[0]",
        ),
        (json!([{"task_type": "t", "ref": "a b"}]), "422 invalid_field tasks[0].ref"),
        (
            json!([{"task_type": "t", "ref": "a", "depends_on": ["@b"]}, {"task_type": "t", "ref": "b", "depends_on": ["@a"]}]),
            "422 invalid_field tasks[0].depends_on",
        ),
        (
            json!([{"task_type": "t", "on_dependency_failure": "run"}]),
            "422 invalid_field tasks[0].on_dependency_failure",
        ),
        (json!([{"task_type": "t", "depends_on": "x"}]), "422 invalid_field tasks[0].depends_on"),
    ] {
        assert_eq!(batch(&hub, tasks).await.problem(), expected);
    }
    let one = hub.post("/api/v1/tasks", json!({"task_type": "t", "depends_on": [nobody]})).await;
    assert_eq!(one.problem(), "422 invalid_field depends_on[0]");
    assert_eq!(hub.get("/api/v1/tasks").await.expect(200)["tasks"], json!([]));
}

#[tokio::test]
async fn the_command_line_submits_what_waits_and_says_for_what() {
    let hub = TestHub::start().await;
    let first = id(&hub.submit(json!({"task_type": "t"})).await);
    let run = |args: &[&str]| {
        let output = program().args(args).env("TASKHUB_URL", &hub.url).output().expect("the program runs");
        String::from_utf8(output.stdout).expect("it prints text").trim_end().to_owned()
    };
    let second = run(&["submit", "t", "--depends-on", &first, "--on-dependency-failure", "run"]);
    let task = hub.task(&second).await;
    assert_eq!((&task["depends_on"], &task["on_dependency_failure"]), (&json!([first]), &json!("run")));
    assert_eq!(run(&["why", &second]), format!("it depends on {first}, which is not finished"));
}
