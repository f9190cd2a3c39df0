//! Declared task types: set while the hub runs, over REST, on the command line and on the page; what their tasks take from them,
//! and payloads that do not fit, wherever they come from.

use serde_json::{Value, json};
use taskhub::Hub;
use taskhub::task::{NewTask, TaskId};

use crate::browser::Browser;
use crate::kit::{HubProcess, TestHub, eventually, id, program};

const PATH: &str = "/api/v1/task-types/report";

fn report() -> Value {
    json!({"title": "A report", "description": "For a month.",
        "defaults": {"queue": "slow", "priority": 5, "max_attempts": 3, "labels": {"kind": "night"}, "timeout_ms": 60_000,
            "retry": {"delays_ms": [1_000, 5_000]}},
        "payload_schema": {"type": "object", "required": ["month"],
            "properties": {"month": {"type": "string", "pattern": "^\\d{4}-\\d{2}$"}}}})
}

/// A hub that knows what a report is.
async fn reporting() -> TestHub {
    let hub = TestHub::start().await;
    hub.put(PATH, report()).await.expect(201);
    hub
}

/// What is said of payloads that do not fit, as `field pointer message`.
fn faults(problem: &Value) -> Vec<String> {
    let text = |fault: &Value, name: &str| fault[name].as_str().unwrap_or_default().to_owned();
    let words =
        |fault: &Value| format!("{} {} {}", text(fault, "field"), text(fault, "pointer"), text(fault, "message"));
    problem["errors"].as_array().unwrap_or_else(|| panic!("{problem}")).iter().map(words).collect()
}

#[tokio::test]
async fn what_is_declared_is_there_after_a_restart_and_may_be_put_back() {
    let mut hub = TestHub::builder().on_disk().start().await;
    hub.get(PATH).await.refused(404, "task_type_not_found");
    assert_eq!(hub.get("/api/v1/task-types").await.expect(200), json!({"task_types": []}));
    let set = hub.put(PATH, report()).await.expect(201);
    assert_eq!((&set["name"], &set["title"]), (&json!("report"), &json!("A report")));
    for field in ["description", "payload_schema"] {
        assert_eq!(set[field], report()[field]);
    }
    assert_eq!(set["defaults"]["retry"]["delays_ms"], json!([1_000, 5_000]));
    assert_eq!(hub.put(PATH, set.clone()).await.expect(200), set, "nothing is different");
    hub.restart().await;
    assert_eq!(hub.get(PATH).await.expect(200), set);
    let task = hub.submit(json!({"task_type": "report", "payload": {"month": "2026-10"}})).await;
    assert_eq!((&task["queue"], &task["priority"]), (&json!("slow"), &json!(5)));
    // All of it: what is left out is gone.
    let bare = hub.put(PATH, json!({"payload_schema": true})).await.expect(200);
    assert_eq!((&bare["defaults"], bare.get("title"), &bare["payload_schema"]), (&json!({}), None, &json!(true)));
    assert_eq!(hub.task(&id(&task)).await["queue"], "slow", "a task keeps what it was made with");

    for name in ["a", "z"] {
        hub.put(&format!("/api/v1/task-types/{name}"), json!({})).await.expect(201);
    }
    let names = |list: &Value| {
        let all = list["task_types"].as_array().unwrap();
        all.iter().map(|task_type| task_type["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = hub.get("/api/v1/task-types?limit=2").await.expect(200);
    assert_eq!((names(&first), &first["next_cursor"]), (vec!["a".into(), "report".into()], &json!("report")));
    let rest = hub.get("/api/v1/task-types?limit=2&cursor=report").await.expect(200);
    assert_eq!((names(&rest), rest.get("next_cursor")), (vec!["z".into()], None));
    hub.get("/api/v1/task-types?limit=101").await.refused(422, "limit_exceeded");
    hub.get("/api/v1/task-types?cursor=a/b").await.refused(422, "bad_cursor");

    hub.delete(PATH).await.expect(204);
    hub.delete(PATH).await.refused(404, "task_type_not_found");
    hub.delete("/api/v1/task-types/a%20b").await.refused(404, "task_type_not_found");
    hub.restart().await;
    hub.get(PATH).await.refused(404, "task_type_not_found");
    assert_eq!(hub.submit(json!({"task_type": "report"})).await["queue"], "default");
}

#[tokio::test]
async fn wrong_types_are_refused_by_name_and_place() {
    let hub = TestHub::start().await;
    let deep = format!("{}true{}", r#"{"items":"#.repeat(129), "}".repeat(129));
    let deep: Box<serde_json::value::RawValue> = serde_json::from_str(&deep).unwrap();
    let deep = format!(r#"{{"payload_schema":{deep}}}"#);
    let long = json!({"payload_schema": {"title": "x".repeat(64 << 10)}}).to_string();
    let schema = |schema: Value| json!({"payload_schema": schema}).to_string();
    for (body, code, field, detail) in [
        (json!({"defaults": {"priority": 101}}).to_string(), "invalid_field", "defaults.priority", "-100 to 100"),
        (json!({"defaults": {"queue": "a b"}}).to_string(), "invalid_field", "defaults.queue", ""),
        (json!({"defaults": {"max_attempts": 1_001}}).to_string(), "limit_exceeded", "defaults.max_attempts", ""),
        (
            json!({"defaults": {"deadline_ms": 5, "delay_ms": 5}}).to_string(),
            "invalid_field",
            "defaults.deadline_ms",
            "",
        ),
        (json!({"defaults": {"payload": 1}}).to_string(), "unknown_field", "defaults.payload", ""),
        (json!({"defaults": {"task_type": "t"}}).to_string(), "unknown_field", "defaults.task_type", ""),
        (json!({"defaults": {"depends_on": []}}).to_string(), "unknown_field", "defaults.depends_on", ""),
        (json!({"defaults": {"unique": {"key": "k"}}}).to_string(), "unknown_field", "defaults.unique", ""),
        (json!({"defaults": []}).to_string(), "invalid_field", "defaults", ""),
        (json!({"title": "x".repeat(257)}).to_string(), "limit_exceeded", "title", ""),
        (json!({"colour": "red"}).to_string(), "unknown_field", "colour", ""),
        (schema(json!("object")), "invalid_field", "payload_schema", "must be an object or a boolean"),
        (
            schema(json!({"properties": {"a": {"type": "strin"}}})),
            "invalid_field",
            "payload_schema",
            "/properties/a/type",
        ),
        (schema(json!({"minimum": "1"})), "invalid_field", "payload_schema", "/minimum"),
        (
            schema(json!({"$ref": "https://example.com/s.json"})),
            "invalid_field",
            "payload_schema",
            "nothing is fetched",
        ),
        (schema(json!({"items": {"$ref": "file:///etc/passwd"}})), "invalid_field", "payload_schema", "/items/$ref"),
        (schema(json!({"$ref": "#/$defs/no"})), "invalid_field", "payload_schema", "leads nowhere"),
        (schema(json!({"anyOf": [{"$ref": "#"}]})), "invalid_field", "payload_schema", "refer to itself"),
        (schema(json!({"pattern": "(?=a)"})), "invalid_field", "payload_schema", "look-around"),
        (schema(json!({"pattern": "^(a{1000}){1000}$"})), "invalid_field", "payload_schema", "smaller"),
        (deep, "invalid_field", "payload_schema", "nested deeper"),
        (long, "invalid_field", "payload_schema", "65536 bytes"),
    ] {
        let request = hub.request(reqwest::Method::PUT, PATH).header("content-type", "application/json");
        let answer = crate::kit::Answer::of(request.body(body.clone())).await;
        let said = answer.body["detail"].as_str().unwrap_or_default().to_owned();
        let (problem, cut) = (answer.problem(), &body[..body.len().min(200)]);
        assert_eq!(problem, format!("422 {code} {field}"), "{cut}: {said}");
        assert!(said.contains(detail), "{cut}: {said}");
    }
    let problem = hub.put("/api/v1/task-types/a%20b", json!({})).await.refused(422, "invalid_field");
    assert_eq!(problem["field"], "name");
    assert_eq!(hub.get("/api/v1/task-types").await.expect(200), json!({"task_types": []}));
}

#[tokio::test]
async fn tasks_take_what_they_leave_out_however_they_are_made() {
    let hub = reporting().await;
    let payload = json!({"month": "2026-10"});
    let check = |task: &Value| {
        assert_eq!((&task["queue"], &task["priority"], &task["max_attempts"]), (&json!("slow"), &json!(5), &json!(3)));
        assert_eq!((&task["labels"], &task["timeout_ms"]), (&json!({"kind": "night"}), &json!(60_000)));
    };
    let new = json!({"task_type": "report", "payload": payload});
    check(&hub.submit(new.clone()).await);
    let own =
        json!({"task_type": "report", "payload": payload, "queue": "default", "priority": 0, "labels": {"a": "b"}});
    let own = hub.submit(own).await;
    assert_eq!((&own["queue"], &own["priority"], &own["max_attempts"]), (&json!("default"), &json!(0), &json!(3)));
    assert_eq!(own["labels"], json!({"a": "b"}));
    let batch = json!({"tasks": [new, {"task_type": "other"}]});
    let batch = hub.post("/api/v1/tasks/batch", batch).await.expect(201);
    check(&batch["tasks"][0]);
    assert_eq!(batch["tasks"][1]["queue"], "default");
    hub.put("/api/v1/task-types/workflow", json!({"defaults": {"title": "W", "queue": "slow", "max_attempts": 9}}))
        .await
        .expect(201);
    let workflow = json!({"tasks": [new, {"workflow": {"chain": [new]}}]});
    let workflow = hub.post("/api/v1/workflows", workflow).await.expect(201);
    let own = &workflow["workflow"];
    assert_eq!((&own["title"], &own["queue"], &own["max_attempts"]), (&json!("W"), &json!("default"), &json!(1)));
    let parts = workflow["tasks"].as_array().unwrap();
    parts.iter().filter(|task| task["task_type"] == "report").for_each(check);
    assert_eq!(parts.iter().filter(|task| task["task_type"] == "report").count(), 2);

    let parent = id(&hub.submit(json!({"task_type": "parent"})).await);
    let claim = json!({"worker_id": "w", "task_types": ["parent"], "wait_ms": 10_000});
    hub.post("/api/v1/worker/claim", claim).await.expect(200);
    let spawned = hub.attempt(&parent, 1, "spawn", json!({"tasks": [new]})).await.expect(201);
    check(&spawned["tasks"][0]);
    let schedule = json!({"cron": "0 9 29 2 *", "task": new});
    hub.put("/api/v1/schedules/s", schedule).await.expect(201);
    check(&hub.tell("/api/v1/schedules/s/run").await.expect(201));
    assert_eq!(hub.get("/api/v1/schedules/s").await.expect(200)["task"], new, "the schedule says what it was told");

    // What is there already is not touched, also where it is run again.
    let task = id(&hub.submit(new).await);
    hub.put(PATH, json!({"defaults": {"queue": "other"}})).await.expect(200);
    hub.tell(&format!("/api/v1/tasks/{task}/cancel")).await.expect(200);
    check(&hub.tell(&format!("/api/v1/tasks/{task}/retry")).await.expect(200));
    // A queue of its type is part of what a task is the only one of.
    let unique = json!({"task_type": "report", "unique": {"by": ["queue"]}});
    let first = hub.submit(unique.clone()).await;
    assert_eq!(first["queue"], "other");
    assert_eq!(id(&hub.post("/api/v1/tasks", unique).await.expect(200)), id(&first));
    let same = json!({"task_type": "report", "queue": "other", "unique": {"by": ["queue"]}});
    assert_eq!(id(&hub.post("/api/v1/tasks", same).await.expect(200)), id(&first));
}

#[tokio::test]
async fn payloads_that_do_not_fit_are_refused_with_each_fault() {
    let hub = reporting().await;
    let (good, bad) = (json!({"month": "2026-10"}), json!({"month": "October"}));
    let new = |payload: &Value| json!({"task_type": "report", "payload": payload});
    let problem = hub.post("/api/v1/tasks", new(&bad)).await.refused(422, "payload_invalid");
    assert_eq!(problem["field"], "payload");
    assert_eq!(
        problem["errors"],
        json!([{"field": "payload", "pointer": "/month", "message": r"must match ^\d{4}-\d{2}$"}])
    );
    // None is looked at as null.
    let none = hub.post("/api/v1/tasks", json!({"task_type": "report"})).await.refused(422, "payload_invalid");
    assert_eq!(faults(&none), ["payload  must be object"]);

    let batch = json!({"tasks": [new(&good), new(&bad), {"task_type": "other", "payload": 1}, new(&json!({}))]});
    let problem = hub.post("/api/v1/tasks/batch", batch).await.refused(422, "payload_invalid");
    assert_eq!(problem["field"], "tasks[1].payload");
    assert_eq!(
        faults(&problem),
        [r"tasks[1].payload /month must match ^\d{4}-\d{2}$", r#"tasks[3].payload  must have the property "month""#,]
    );
    let many: Vec<Value> = (0..1_000).map(|_| new(&bad)).collect();
    let problem = hub.post("/api/v1/tasks/batch", json!({"tasks": many})).await.refused(422, "payload_invalid");
    assert_eq!(faults(&problem).len(), 20);
    let chord = json!({"chord": {"group": [new(&bad)], "then": {"workflow": {"group": [new(&bad)]}}}});
    let problem = hub.post("/api/v1/workflows", chord).await.refused(422, "payload_invalid");
    assert_eq!(
        faults(&problem),
        [
            r"chord.group[0].payload /month must match ^\d{4}-\d{2}$",
            r"chord.then.workflow.group[0].payload /month must match ^\d{4}-\d{2}$",
        ]
    );
    let schedule = json!({"cron": "@daily", "task": new(&bad)});
    let problem = hub.put("/api/v1/schedules/s", schedule).await.refused(422, "payload_invalid");
    assert_eq!(problem["field"], "task.payload");
    assert_eq!(hub.get("/api/v1/stats").await.expect(200)["tasks"]["pending"], 0, "nothing of it was taken");

    let task = id(&hub.submit(new(&good)).await);
    let path = format!("/api/v1/tasks/{task}");
    let patch = async |payload: &Value| {
        let request = hub.request(reqwest::Method::PATCH, &path).json(&json!({"payload": payload}));
        crate::kit::Answer::of(request).await
    };
    patch(&bad).await.refused(422, "payload_invalid");
    patch(&good).await.expect(200);
    hub.tell(&format!("{path}/cancel")).await.expect(200);
    let retry = format!("{path}/retry");
    assert_eq!(faults(&hub.post(&retry, json!({"payload": null})).await.refused(422, "payload_invalid")).len(), 1);
    hub.post(&retry, json!({"payload": {"month": "2026-11"}})).await.expect(200);
    let parent = id(&hub.submit(json!({"task_type": "parent"})).await);
    let claim = json!({"worker_id": "w", "task_types": ["parent"], "wait_ms": 10_000});
    hub.post("/api/v1/worker/claim", claim).await.expect(200);
    let spawned = hub.attempt(&parent, 1, "spawn", json!({"tasks": [new(&bad)]})).await;
    assert_eq!(spawned.refused(422, "payload_invalid")["field"], "tasks[0].payload");
}

/// The first answer stands, whatever is declared since.
#[tokio::test]
async fn a_submission_that_is_repeated_is_not_looked_at_again() {
    let hub = reporting().await;
    let submit = async |key: &str, payload: Value| {
        let body = json!({"task_type": "report", "payload": payload});
        let request = hub.request(reqwest::Method::POST, "/api/v1/tasks").header("idempotency-key", key);
        crate::kit::Answer::of(request.json(&body)).await
    };
    submit("b", json!(1)).await.refused(422, "payload_invalid");
    let task = submit("a", json!({"month": "2026-10"})).await.expect(201);
    hub.put(PATH, json!({"payload_schema": false})).await.expect(200);
    assert_eq!(id(&submit("a", json!({"month": "2026-10"})).await.expect(200)), id(&task));
    submit("c", json!({"month": "2026-10"})).await.refused(422, "payload_invalid");
    hub.put(PATH, json!({})).await.expect(200);
    submit("b", json!(1)).await.expect(201);
}

#[tokio::test]
async fn a_payload_that_takes_results_is_looked_at_when_it_is_handed_out() {
    let hub = reporting().await;
    let workflow = json!({"tasks": [
        {"ref": "a", "task_type": "month"},
        {"ref": "good", "task_type": "report", "payload": {"month": {"$result": "@a", "path": "/good"}}},
        {"ref": "bad", "task_type": "report", "payload": {"month": {"$result": "@a", "path": "/bad"}}}], "on_failure": "finish"});
    let workflow = hub.post("/api/v1/workflows", workflow).await.expect(201);
    let parts = workflow["tasks"].as_array().unwrap();
    let claim = json!({"worker_id": "w", "wait_ms": 10_000});
    hub.post("/api/v1/worker/claim", claim).await.expect(200);
    let result = json!({"result": {"good": "2026-10", "bad": 7}});
    hub.attempt(&id(&parts[0]), 1, "complete", result).await.expect(200);
    let claim = json!({"worker_id": "w", "queues": ["slow"], "max": 10, "wait_ms": 10_000});
    let claimed = hub.post("/api/v1/worker/claim", claim).await.expect(200);
    let bad = hub.finished(&id(&parts[2])).await;
    assert_eq!((&bad["status"], &bad["error"]["kind"]), (&json!("failed"), &json!("payload")));
    assert_eq!(bad["error"]["details"], json!({"errors": [{"pointer": "/month", "message": "must be string"}]}));
    let claimed = claimed["tasks"].as_array().unwrap();
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    assert_eq!(claimed[0]["task"]["payload"], json!({"month": "2026-10"}));
}

#[tokio::test]
async fn a_due_time_whose_payload_does_not_fit_any_more_has_a_task_that_failed() {
    let hub = reporting().await;
    let body = json!({"every_ms": 1_000, "task": {"task_type": "report", "payload": {"month": "2026-10"}}});
    hub.put("/api/v1/schedules/s", body).await.expect(201);
    hub.put(PATH, json!({"payload_schema": {"required": ["year"]}})).await.expect(200);
    let failed = eventually("a task that failed", async || {
        let list = hub.get("/api/v1/tasks?status=failed").await.expect(200);
        list["tasks"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!((&failed["error"]["kind"], &failed["schedule"]), (&json!("payload"), &json!("s")));
    hub.tell("/api/v1/schedules/s/run").await.refused(422, "payload_invalid");
}

#[tokio::test]
async fn task_types_are_told_live() {
    let hub = reporting().await;
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "s", "settings": true})).await;
    let told = live.next_of("task_type").await;
    assert_eq!((&told["name"], &told["payload_schema"]), (&json!("report"), &report()["payload_schema"]));
    assert_eq!(live.next_of("settings").await["all"], true);
    let set = hub.put(PATH, json!({"title": "Other"})).await.expect(200);
    let told = live.next_of("task_type").await;
    assert_eq!((&told["rev"], &told["title"]), (&set["rev"], &json!("Other")));
    live.cut();
    hub.put("/api/v1/task-types/new", json!({})).await.expect(201);
    hub.delete(PATH).await.expect(204);
    // Whoever comes back is told all there is.
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "s", "settings": true})).await;
    let told = live.next_of("task_type").await;
    assert_eq!((&told["name"], told.get("deleted")), (&json!("new"), None));
    assert_eq!(live.next_of("settings").await["all"], true);
    hub.delete("/api/v1/task-types/new").await.expect(204);
    let told = live.next_of("task_type").await;
    assert_eq!((&told["name"], &told["deleted"]), (&json!("new"), &json!(true)));
}

/// Bodies of a megabyte and more are looked at aside, and nobody waits for them.
#[tokio::test]
async fn large_payloads_are_looked_at_in_bounded_time() {
    let hub = TestHub::start().await;
    let twice = json!({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]});
    hub.put("/api/v1/task-types/twice", json!({"payload_schema": twice})).await.expect(201);
    hub.put("/api/v1/task-types/list", json!({"payload_schema": {"items": {"type": "integer"}}})).await.expect(201);
    let deep = format!(r#"{{"task_type":"twice","payload":{}1{}}}"#, "[".repeat(60), "]".repeat(60));
    let numbers = |last: &str| format!(r#"{{"task_type":"list","payload":[{}{last}]}}"#, "1,".repeat(400_000));
    let submit = async |body: String| {
        let request = hub.request(reqwest::Method::POST, "/api/v1/tasks").header("content-type", "application/json");
        crate::kit::Answer::of(request.body(body)).await
    };
    let problem = submit(deep).await.refused(422, "payload_invalid");
    assert_eq!(faults(&problem), ["payload  takes too many steps to be checked against the schema"]);
    let problem = submit(numbers("1.5")).await.refused(422, "payload_invalid");
    assert_eq!(faults(&problem), ["payload /400000 must be integer"]);
    submit(numbers("1e400")).await.expect(201);
}

/// Types that change all the while keep no submission from being taken, and each has one of them as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn submissions_go_on_while_types_change() {
    let hub = TestHub::start().await;
    let set = |n: u64| json!({"defaults": {"queue": format!("q{n}"), "title": format!("q{n}")}});
    hub.put("/api/v1/task-types/t", set(0)).await.expect(201);
    let changes = async {
        for n in 1..100 {
            hub.put("/api/v1/task-types/t", set(n)).await.expect(200);
            let task = hub.submit(json!({"task_type": "t"})).await;
            assert_eq!(task["queue"], format!("q{n}"), "what was declared before holds");
        }
    };
    let submits = async {
        for _ in 0..100 {
            let task = hub.submit(json!({"task_type": "t"})).await;
            assert_eq!(task["queue"], task["title"]);
        }
    };
    tokio::join!(changes, submits, async {
        for n in 0..50 {
            hub.put("/api/v1/task-types/other", json!({"title": format!("{n}")})).await;
        }
    });
}

#[tokio::test]
async fn what_was_declared_is_kept_though_the_hub_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut hub = HubProcess::start(folder.path(), [] as [&str; 0]);
    for n in 0..5 {
        let body = json!({"defaults": {"priority": n}, "payload_schema": {"const": n}});
        let put = http.put(format!("{}/api/v1/task-types/t{n}", hub.url)).json(&body).send().await.unwrap();
        assert_eq!(put.status().as_u16(), 201);
        hub.program.kill();
        hub = HubProcess::start(folder.path(), [] as [&str; 0]);
        for known in 0..=n {
            let new = json!({"task_type": format!("t{known}"), "payload": known});
            let task = http.post(format!("{}/api/v1/tasks", hub.url)).json(&new).send().await.unwrap();
            assert_eq!(task.json::<Value>().await.unwrap()["priority"], known);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_set_by_command_and_seen_on_the_page() {
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    std::fs::write(&file, report().to_string()).unwrap();
    let file = file.to_str().unwrap();
    let said = hub.command(&["types", "set", "report", "--file", file]);
    assert!(said.contains("A report") && said.contains("queue \"slow\"") && said.contains("^\\\\d{4}"), "{said}");
    let said = hub.command(&["type", "set", "report", "--title", "Other", "--defaults", r#"{"priority":7}"#, "--json"]);
    let said: Value = serde_json::from_str(&said).expect("it is JSON");
    assert_eq!((&said["title"], &said["defaults"]), (&json!("Other"), &json!({"priority": 7})));
    assert_eq!(said["payload_schema"], report()["payload_schema"], "the rest stays");
    hub.command(&["type", "set", "bare", "--schema", "none"]);
    let said = hub.command(&["type", "list"]);
    assert!(said.contains("report") && said.contains("priority 7") && said.contains("bare"), "{said}");
    assert_eq!(hub.command(&["type", "list", "--json"]).lines().count(), 2);
    let run = |args: &[&str]| program().args(args).env("TASKHUB_URL", &hub.url).output().unwrap();
    let refused = run(&["submit", "report", r#"{"month":1}"#]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(4) && said.contains("/month must be string (payload_invalid)"), "{said}");
    let task: Value =
        serde_json::from_str(&hub.command(&["submit", "report", r#"{"month":"2026-10"}"#, "--json"])).unwrap();
    assert_eq!(hub.task(task["task_id"].as_str().unwrap()).await["priority"], 7);
    assert_eq!(run(&["type", "set", "x", "--file", "/nowhere"]).status.code(), Some(2));
    let mut page = Browser::start().await.open(&format!("{}#/types", hub.url)).await;
    page.until("document.querySelectorAll('.types li').length === 2").await;
    let text = page.text(".types").await;
    assert!(text.contains("Other") && text.contains("priority 7") && text.contains("fit a schema"), "{text}");
    hub.command(&["type", "delete", "bare"]);
    page.until("document.querySelectorAll('.types li').length === 1").await;
    page.close().await;
    hub.command(&["type", "delete", "report"]);
    assert_eq!(run(&["type", "show", "report"]).status.code(), Some(4));
}

#[tokio::test]
async fn the_hub_inside_a_program_knows_them_too() {
    let hub = reporting().await;
    let inside: &Hub = hub.hub();
    let refused = inside.submit(NewTask::new("report")).await.unwrap_err().to_string();
    assert!(refused.contains("must be object"), "{refused}");
    let new = NewTask::new("report").payload(&json!({"month": "2026-10"})).unwrap();
    let task_id: TaskId = inside.submit(new).await.unwrap();
    assert_eq!(hub.task(&task_id.to_string()).await["queue"], "slow");
}
