//! What belongs to one caller: their counts, their limits, what they held, what they may make.

use super::*;

#[tokio::test]
async fn a_user_is_told_the_counts_of_their_own_tasks() {
    let mut hub = Closed::start_with_signer();
    let ended = hub.submit("ann", json!({"task_type": "t"})).await;
    hub.submit("ann", json!({"task_type": "t", "queue": "q"})).await;
    hub.submit("bob", json!({"task_type": "secret-type", "queue": "secret-queue"})).await;
    hub.submit("operator", json!({"task_type": "t"})).await;
    hub.call("ann", "POST", &format!("/api/v1/tasks/{ended}/cancel"), None).await;
    let own = hub.get("ann", "/api/v1/stats").await;
    assert_eq!(own.status, 200, "{}", own.text);
    let (stats, all) = (own.json(), hub.get("viewer", "/api/v1/stats").await.json());
    let counts = |stats: &Value| (stats["tasks"]["pending"].clone(), stats["tasks"]["cancelled"].clone());
    assert_eq!(counts(&stats), (json!(1), json!(1)));
    assert_eq!(counts(&all), (json!(3), json!(1)));
    assert_eq!(stats["queues"], json!({"q": {"waiting": 0, "scheduled": 0, "pending": 1, "running": 0}}));
    assert_eq!(stats["types"], json!({"t": {"waiting": 0, "scheduled": 0, "pending": 1, "running": 0}}));
    assert_eq!((&stats["rates"]["created"], &all["rates"]["created"]), (&json!(0.2), &json!(0.4)));
    assert_eq!((&stats["workers"], &stats["sockets"]), (&Value::Null, &Value::Null));
    assert!(!own.text.contains("secret"), "{}", own.text);
    // Of a task that is gone nothing is left.
    hub.call("ann", "DELETE", &format!("/api/v1/tasks/{ended}"), None).await;
    assert_eq!(counts(&hub.get("ann", "/api/v1/stats").await.json()), (json!(1), json!(0)));

    // A token for all tasks of one user tells the same, and one for fewer tells nothing.
    for (name, maker, filter, status) in [
        ("page", "ann", json!({}), 200),
        ("partner", "operator", json!({"user_id": ["ann"]}), 200),
        ("queue", "ann", json!({"queue": ["q"]}), 403),
        ("two", "operator", json!({"user_id": ["ann", "bob"]}), 403),
        ("foreign", "ann", json!({"user_id": ["bob"]}), 403),
    ] {
        let ask = json!({"allow": ["read"], "filter": filter});
        let minted = hub.call(maker, "POST", "/api/v1/tokens", Some(ask)).await.json();
        hub.tokens.push((name, minted["token"].as_str().unwrap().to_owned()));
        let told = hub.get(name, "/api/v1/stats").await;
        assert_eq!(told.status, status, "{name}: {}", told.text);
        if status == 200 {
            assert_eq!(told.json()["tasks"], hub.get("ann", "/api/v1/stats").await.json()["tasks"], "{name}");
        }
    }
}

#[tokio::test]
async fn whoever_asks_who_they_are_is_told_what_they_may_have_and_have() {
    let mut hub = Closed::start_with_signer();
    assert_eq!(hub.get("ann", "/api/v1/me").await.json()["use"], json!({}), "nothing is limited");
    let put = async |path: &str, body: Value| {
        let answer = hub.call("operator", "PUT", path, Some(body)).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
    };
    put("/api/v1/limits", json!({"user": {"running": 3, "submits_per_min": 9}, "users": {"ann": {"waiting": 5}}}))
        .await;
    put("/api/v1/queues/q", json!({"user_concurrency": 2})).await;
    put("/api/v1/queues/r", json!({"rate": {"limit": 7, "per_ms": 60_000, "by": "user"}})).await;
    put("/api/v1/queues/other", json!({"concurrency": 2})).await;
    for (user, queue, count) in [("ann", "q", 2), ("ann", "r", 2), ("bob", "q", 3)] {
        for _ in 0..count {
            hub.submit(user, json!({"task_type": "t", "queue": queue})).await;
        }
    }
    let claim = async |worker: &str, queue: &str, max: u32| {
        let claim = json!({"worker_id": worker, "queues": [queue], "max": max});
        hub.call("worker", "POST", "/api/v1/worker/claim", Some(claim)).await.json()["tasks"].as_array().unwrap().len()
    };
    assert_eq!((claim("w1", "q", 1).await, claim("w2", "r", 2).await), (1, 2));
    let me = hub.get("ann", "/api/v1/me").await.json();
    assert_eq!(me["limits"], json!({"running": 3, "waiting": 5, "submits_per_min": 9}));
    assert_eq!(me["use"], json!({"running": 3, "waiting": 1, "submits": 4}));
    let rate = json!({"limit": 7, "per_ms": 60_000, "by": "user"});
    let queues = json!({"q": {"user_concurrency": 2, "running": 1}, "r": {"rate": rate, "handed_out": 2}});
    assert_eq!(me["queues"], queues);
    let bob = hub.get("bob", "/api/v1/me").await.json();
    assert_eq!(bob["use"], json!({"running": 0, "submits": 3}));
    assert_eq!((&bob["queues"]["q"]["running"], &bob["queues"]["r"]["handed_out"]), (&json!(0), &json!(0)));
    // Who sees one task of hers is not told of the others.
    let (_, token) = shared(&hub, json!({"allow": ["read"]})).await;
    hub.tokens.push(("link", token));
    let link = hub.get("link", "/api/v1/me").await.json();
    assert_eq!([&link["limits"], &link["use"], &link["queues"]], [&Value::Null; 3], "{link}");
    assert_eq!(hub.get("viewer", "/api/v1/me").await.json()["limits"], Value::Null);
}

#[tokio::test]
async fn what_is_done_to_many_ends_with_its_caller() {
    let config = ServeConfig::for_trial();
    let gate = Arc::new(crate::store::gated::Gate::default());
    let store = crate::store::gated::Gated(crate::store::in_memory().unwrap(), gate.clone());
    let hub = Closed::on(Hub::start(Box::new(store), config.hub_options()).unwrap(), KeyOptions::default(), &config);
    for _ in 0..3 {
        hub.submit("ann", json!({"task_type": "t"})).await;
    }
    gate.set(true);
    let cancel = hub.call("ann", "POST", "/api/v1/tasks/cancel", Some(json!({"filter": {}})));
    let revoke = async {
        let stuck = gate.clone();
        tokio::task::spawn_blocking(move || stuck.until_stuck()).await.unwrap();
        let name = Name::new("ann");
        hub.keys.apply(&crate::access::AccessChange::Remove(crate::access::AccessKey::ApiToken { name }));
    };
    let (answer, ()) = tokio::join!(cancel, revoke);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("unauthenticated")));
    assert!(answer.text.contains("what was changed by then stays so"), "{}", answer.text);
    gate.set(false);
}

#[tokio::test]
async fn a_worker_goes_on_seeing_what_it_held_a_moment_ago() {
    let mut hub = Closed::start();
    let new = NewApiToken {
        name: "other".into(),
        role: Role::Worker,
        user_id: None,
        task_types: None,
        queues: None,
        expires_at: None,
    };
    let (record, text) = new.make(Timestamp::now()).unwrap();
    hub.keys.apply(&crate::access::AccessChange::Put(AccessRecord::ApiToken(record)));
    hub.tokens.push(("other", text));
    for end in ["complete", "release"] {
        let id = hub.submit("ann", json!({"task_type": end})).await;
        let path = format!("/api/v1/tasks/{id}");
        let claim = json!({"worker_id": "w1", "task_types": [end]});
        assert_eq!(hub.call("worker", "POST", "/api/v1/worker/claim", Some(claim)).await.status, 200);
        let ended = hub.call("worker", "POST", &format!("{path}/attempts/1/{end}"), Some(json!({}))).await;
        assert_eq!(ended.status, 200, "{}", ended.text);
        for part in ["", "/history", "/logs"] {
            assert_eq!(hub.get("worker", &format!("{path}{part}")).await.status, 200, "{end} {part}");
            let missing = hub.get("other", &format!("/api/v1/tasks/{MISSING}{part}")).await;
            assert_eq!(hub.get("other", &format!("{path}{part}")).await, missing, "{end} {part}");
        }
        // It sees it, and says nothing of it any more.
        let late = hub
            .call(
                "worker",
                "POST",
                &format!("{path}/attempts/1/progress"),
                Some(json!({"progress": {"percentage": 1}})),
            )
            .await;
        assert_eq!(late.status, 409, "{}", late.text);
    }
}

#[tokio::test]
async fn a_submission_is_judged_with_all_that_its_type_gives_it() {
    // Regression: a token for some queues put tasks into others, by a type whose defaults name one of these.
    let mut hub = Closed::start_with_signer();
    let set = async |name: &str, defaults: Value| {
        let body = Some(json!({"defaults": defaults}));
        let answer = hub.call("operator", "PUT", &format!("/api/v1/task-types/{name}"), body).await;
        assert!(answer.status < 300, "{}", answer.text);
    };
    set("in", json!({"queue": "open.1", "labels": {"from": "a"}})).await;
    set("out", json!({"queue": "secret", "labels": {"from": "z"}})).await;
    let mut tokens = Vec::new();
    for (name, filter) in [
        ("queues", json!({"queue": ["open.*"]})),
        ("queue", json!({"queue": ["only"]})),
        ("labels", json!({"labels": {"from": ["a", "b"]}})),
    ] {
        let ask = json!({"allow": ["submit", "read"], "filter": filter});
        let minted = hub.call("operator", "POST", "/api/v1/tokens", Some(ask)).await;
        tokens.push((name, minted.json()["token"].as_str().unwrap().to_owned()));
    }
    hub.tokens.extend(tokens);
    let submit = async |caller: &str, task: Value| hub.call(caller, "POST", "/api/v1/tasks", Some(task)).await;
    for (caller, task_type, field) in [
        ("queues", "in", None),
        ("queues", "out", Some("queue")),
        ("queues", "none", Some("queue")),
        ("queue", "out", None),
        ("labels", "in", None),
        ("labels", "out", Some("labels.from")),
        ("labels", "none", Some("labels.from")),
    ] {
        let answer = submit(caller, json!({"task_type": task_type})).await;
        let expected = field.map_or((201, Value::Null), |field| (403, json!(field)));
        assert_eq!((answer.status, answer.json()["field"].clone()), expected, "{caller} {task_type}: {}", answer.text);
        if answer.status == 201 {
            let id = answer.json()["task_id"].as_str().unwrap().to_owned();
            assert_eq!(hub.get(caller, &format!("/api/v1/tasks/{id}")).await.status, 200, "{caller} {task_type}");
        }
    }
    // Also as one of several, with the path to it.
    let tasks = json!({"tasks": [{"task_type": "in"}, {"task_type": "out"}]});
    let batch = hub.call("queues", "POST", "/api/v1/tasks/batch", Some(tasks)).await;
    assert_eq!((batch.status, &batch.json()["field"]), (403, &json!("tasks[1].queue")), "{}", batch.text);
}
