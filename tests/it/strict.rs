//! What is not meant is not taken: an object is an object, what is not known is refused, and what is the same is treated
//! alike.

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Answer, TestHub, id};

async fn post_text(hub: &TestHub, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = hub.request(Method::POST, path).header("content-type", "application/json");
    Answer::of(request.body(body.into())).await
}

/// Every call of the served document, with a task and an attempt in the place of its parameters.
async fn calls(hub: &TestHub) -> Vec<(Method, String, Value)> {
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let document = hub.get("/api/openapi.json").await.expect(200);
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if path.starts_with("/api/v1/") && method.as_str() != "PARAMETERS" {
                let path = path.replace("{id}", &task_id).replace("{attempt}", "1");
                calls.push((method, path, operation.clone()));
            }
        }
    }
    assert!(calls.len() > 15);
    calls
}

/// Regression: calls without parameters did not look at those that were there.
#[tokio::test]
async fn a_parameter_that_no_call_has_is_refused_by_all() {
    let hub = TestHub::start().await;
    for (method, path, _) in calls(&hub).await {
        let answer = Answer::of(hub.request(method.clone(), &format!("{path}?colour=red"))).await;
        assert_eq!(answer.problem(), "422 unknown_field colour", "{method} {path}");
        let twice = Answer::of(hub.request(method.clone(), &format!("{path}?a=1&a=2"))).await;
        assert_eq!(twice.problem(), "422 invalid_field a", "{method} {path}");
    }
    for path in ["/healthz?x=1", "/readyz?x=1", "/metrics?x=1", "/?x=1", "/api/openapi.json?x=1", "/api/v1/stats?"] {
        assert_eq!(hub.get(path).await.status, 200, "{path}");
    }
}

/// Regression: derived readers take an array for the fields of an object in their order.
#[tokio::test]
async fn an_array_is_no_object() {
    let hub = TestHub::start().await;
    let mut bodies = 0;
    for (method, path, operation) in calls(&hub).await {
        // A result that is uploaded may be anything.
        if operation["requestBody"]["content"]["application/json"].is_null() {
            continue;
        }
        bodies += 1;
        for array in ["[]", r#"["t"]"#, r#"[["t"]]"#, r#"[null,null]"#] {
            let request = hub.request(method.clone(), &path).header("content-type", "application/json");
            let answer = Answer::of(request.body(array)).await;
            assert_eq!(answer.problem(), "422 invalid_field", "{method} {path} {array}");
            assert_eq!(answer.body["detail"], "the whole must be an object, not an array");
        }
    }
    assert!(bodies > 8);
    let attempt = calls(&hub).await.into_iter().find(|(_, path, _)| path.ends_with("/progress")).unwrap().1;
    for (path, body, expected) in [
        ("/api/v1/tasks/batch", r#"{"tasks":[["t"]]}"#, "422 invalid_field tasks[0]"),
        ("/api/v1/tasks/batch", r#"{"tasks":{"task_type":"t"}}"#, "422 invalid_field tasks"),
        ("/api/v1/tasks", r#"{"task_type":"t","retry":[1]}"#, "422 invalid_field retry"),
        ("/api/v1/tasks", r#"{"task_type":"t","labels":[]}"#, "422 invalid_field labels"),
        (&attempt, r#"{"progress":[]}"#, "422 invalid_field progress"),
        (&attempt, r#"{"progress":{"counters":[1]}}"#, "422 invalid_field progress.counters"),
        (&attempt.replace("progress", "fail"), r#"{"error":["k","m"]}"#, "422 invalid_field error"),
        (&attempt.replace("progress", "log"), r#"{"lines":[[]]}"#, "422 invalid_field lines[0]"),
    ] {
        assert_eq!(post_text(&hub, path, body).await.problem(), expected, "{path} {body}");
    }
}

#[tokio::test]
async fn an_array_is_no_object_on_sockets_either() {
    let hub = TestHub::start().await;
    let mut live = hub.live().await;
    for (op, field) in [
        (r#"["subscribe"]"#, None),
        (r#"{"op":"subscribe","sub":"a","filter":[]}"#, Some("filter")),
        (r#"{"op":"subscribe","sub":"a","filter":{"labels":[]}}"#, Some("filter.labels")),
        (r#"{"op":"subscribe","sub":"a","snapshot":[5]}"#, Some("snapshot")),
        (r#"{"op":"subscribe","sub":"a","since":["e",5]}"#, Some("since")),
    ] {
        live.say_text(op).await;
        let error = live.expect("error").await;
        assert_eq!(error["code"], "invalid_field", "{op}: {error}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.starts_with(field.unwrap_or("the whole")) && detail.ends_with("not an array"), "{op}: {error}");
    }
    let mut worker = hub.worker("w", json!({"task_types": ["t"]})).await;
    let task_id = hub.submit_any().await;
    worker.expect("run").await;
    let ops = [
        json!({"op": "progress", "task_id": task_id, "attempt": 1, "progress": []}),
        json!({"op": "fail", "task_id": task_id, "attempt": 1, "error": ["k"]}),
        json!({"op": "log", "task_id": task_id, "attempt": 1, "lines": [["info", "m"]]}),
        json!(["complete", task_id, 1]),
    ];
    for op in ops {
        worker.say(op.clone()).await;
        let error = worker.expect("error").await;
        assert!(error["detail"].as_str().unwrap().ends_with("not an array"), "{op}: {error}");
    }
    assert_eq!(hub.task(&task_id).await["status"], "running");
}

#[tokio::test]
async fn null_is_the_same_as_absent() {
    let hub = TestHub::start().await;
    let document = hub.get("/api/openapi.json").await.expect(200);
    for field in document["components"]["schemas"]["NewTask"]["properties"].as_object().unwrap().keys() {
        let with_null = json!({"task_type": "t", field.as_str(): null});
        let answer = hub.post("/api/v1/tasks", with_null).await;
        match field.as_str() {
            "task_type" => assert_eq!(answer.problem(), "422 invalid_field task_type"),
            _ => {
                let task = hub.task(&id(&answer.expect(201))).await;
                // A payload is any JSON, and so may be null.
                assert_eq!(task.get(field).is_some_and(Value::is_null), field == "payload", "{field}: {task}");
            }
        }
    }
}

/// Regression: a line with a level of another library's took a hundred others with it.
#[tokio::test]
async fn a_line_is_cut_and_never_refused() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    let lines = r#"{"lines":[{"level":"warning","message":"a"},{"level":"CRITICAL","message":"b"},{"level":10},
        {"level":null,"message":7},{"message":"cut \ud83d"},{"message":"a\u0000b"},{"message":{"b":1.10}},{"level":"loud"}]}"#;
    post_text(&hub, &format!("/api/v1/tasks/{task_id}/attempts/1/log"), lines).await.expect(200);
    let long = json!({"lines": [{"message": "é".repeat(20_000)}]});
    hub.attempt(&task_id, 1, "log", long).await.expect(200);
    let kept = hub.get(&format!("/api/v1/tasks/{task_id}/logs")).await.expect(200);
    let kept: Vec<_> =
        kept["lines"].as_array().unwrap().iter().map(|line| (&line["level"], &line["message"])).collect();
    let expected = [
        ("warn", "a"),
        ("error", "b"),
        ("info", ""),
        ("info", "7"),
        ("info", "cut \u{fffd}\u{fffd}\u{fffd}"),
        ("info", "a\0b"),
        ("info", r#"{"b":1.10}"#),
        ("info", ""),
    ];
    assert_eq!(kept.len(), expected.len() + 1);
    for (got, expected) in kept.iter().zip(expected) {
        assert_eq!((got.0.as_str(), got.1.as_str()), (Some(expected.0), Some(expected.1)));
    }
    assert_eq!(kept[8].1.as_str().map(str::len), Some(8 << 10));

    // Nor is a failure lost for its words.
    let failed = r#"{"error":{"kind":"decode","message":"bad name: \udcff"}}"#;
    post_text(&hub, &format!("/api/v1/tasks/{task_id}/attempts/1/fail"), failed).await.expect(200);
    let task = hub.task(&task_id).await;
    assert_eq!((&task["status"], &task["error"]["kind"]), (&json!("failed"), &json!("decode")));
    assert!(task["error"]["message"].as_str().unwrap().starts_with("bad name: "));
}

#[tokio::test]
async fn small_things_of_the_contract() {
    let hub = TestHub::start().await;
    let check = async |body: &[u8], expected: &str| {
        let answer = post_text(&hub, "/api/v1/tasks", body).await;
        let got = if answer.status == 201 { "201".to_owned() } else { answer.problem() };
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(body));
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        for word in ["u64", "u32", "i64", "i8", "f64", "struct", "sequence", "map,"] {
            assert!(!detail.contains(word), "{detail}");
        }
        answer.body
    };
    let with = |rest: &str| format!(r#"{{"task_type":"t",{rest}}}"#).into_bytes();
    check("\u{feff}{\"task_type\":\"t\"}".as_bytes(), "201").await;
    check(&with(r#""labels":{"a":"1","a":"1"}"#), "422 invalid_field labels.a").await;
    check(&with(r#""delay_ms":1000.0,"max_attempts":3e0,"priority":-1.0,"retry":{"base_ms":1e3}"#), "201").await;
    check(&with(r#""delay_ms":0.5"#), "422 invalid_field delay_ms").await;
    check(&with(r#""delay_ms":"7""#), "422 invalid_field delay_ms").await;
    check(&with(r#""delay_ms":1e300"#), "422 limit_exceeded delay_ms").await;
    check(&with(r#""max_attempts":99999999999"#), "422 limit_exceeded max_attempts").await;
    check(&with(r#""priority":-99999999999"#), "422 invalid_field priority").await;
    check(&with(r#""priority":{}"#), "422 invalid_field priority").await;
    check(&with(r#""title":[]"#), "422 invalid_field title").await;
    for (time, expected) in [
        ("2027-01-01T00:00:00+23:59", Ok("2026-12-31T00:01:00.000Z")),
        ("2027-01-01t00:00:00z", Ok("2027-01-01T00:00:00.000Z")),
        ("9999-12-31T23:59:59Z", Ok("9999-12-31T23:59:59.000Z")),
        ("2027-01-01T00:00:00+25:00", Err("RFC 3339")),
        ("2027-01-01T00:00:00+01:60", Err("RFC 3339")),
        ("2027-01-01", Err("RFC 3339")),
        ("1969-12-31T23:59:59Z", Err("must be from 1970")),
        ("9999-12-31T23:59:59-01:00", Err("must be from 1970")),
    ] {
        let body = with(&format!(r#""run_at":"{time}""#));
        match expected {
            Ok(told) => assert_eq!(check(&body, "201").await["run_at"], told, "{time}"),
            Err(words) => {
                let problem = check(&body, "422 invalid_field run_at").await;
                assert!(problem["detail"].as_str().unwrap().contains(words), "{time}: {problem}");
            }
        }
    }
    for (coding, status) in [("gzip", 415), ("deflate", 415), ("identity, br", 415), ("identity", 201)] {
        let request = hub.request(Method::POST, "/api/v1/tasks").header("content-type", "application/json");
        let answer = Answer::of(request.header("content-encoding", coding).body(r#"{"task_type":"t"}"#)).await;
        assert_eq!(answer.status, status, "{coding}: {}", answer.text);
        assert!(status == 201 || answer.text.contains("Content-Encoding"), "{}", answer.text);
    }
    let labelled = hub.submit(json!({"task_type": "t", "labels": {"e": ""}})).await;
    hub.submit(json!({"task_type": "t", "labels": {"e": "x"}})).await;
    let found = hub.get("/api/v1/tasks?label.e=").await.expect(200);
    assert_eq!(found["tasks"], json!([labelled]));
}
