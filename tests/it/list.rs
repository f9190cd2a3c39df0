//! Lists: what matches, in order, page by page, nothing twice and nothing left out.

use serde_json::{Value, json};

use crate::kit::{TestHub, id};

fn titles(list: &Value) -> Vec<&str> {
    list["tasks"].as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap()).collect()
}

async fn titles_of(hub: &TestHub, query: &str) -> String {
    let list = hub.get(&format!("/api/v1/tasks?order=asc&{query}")).await.expect(200);
    titles(&list).join(" ")
}

#[tokio::test]
async fn filters_are_an_and_of_ors() {
    let hub = TestHub::start().await;
    let mut ids = Vec::new();
    for task in [
        json!({"title": "a", "task_type": "report", "labels": {"p": "1", "q": "x"}}),
        json!({"title": "b", "task_type": "ingest.pdf", "queue": "slow", "user_id": "u1"}),
        json!({"title": "c", "task_type": "ingest.csv", "user_id": "u1", "labels": {"p": "1"}}),
        json!({"title": "d", "task_type": "report", "queue": "slow", "user_id": "u2", "labels": {"p": "2"}}),
    ] {
        ids.push(id(&hub.submit(task).await));
    }
    hub.tell(&format!("/api/v1/tasks/{}/cancel", ids[3])).await.expect(200);
    for (query, expected) in [
        ("", "a b c d"),
        ("status=pending", "a b c"),
        ("status=cancelled,failed", "d"),
        ("task_type=report", "a d"),
        ("task_type=ingest.*", "b c"),
        ("task_type=report,ingest.csv", "a c d"),
        ("queue=slow", "b d"),
        ("queue=slow&user_id=u1", "b"),
        ("user_id=u1", "b c"),
        ("label.p=1", "a c"),
        ("label.p=1&label.q=x", "a"),
        ("label.p=3", ""),
        ("workflow_id=01890000-0000-7000-8000-00000000002a", ""),
        (&format!("task_id={},{}", ids[0], ids[3]), "a d"),
        (&format!("task_id={},{}&status=pending", ids[0], ids[3]), "a"),
        ("q=INGEST", "b c"),
        ("q=PORT", "a d"),
        (&format!("q={}", ids[2]), "c"),
        ("q=nothing like it", ""),
        ("created_after=2020-01-01T00:00:00Z", "a b c d"),
        ("created_before=2020-01-01T00:00:00Z", ""),
    ] {
        assert_eq!(titles_of(&hub, query).await, expected, "{query}");
    }
    let newest = hub.get("/api/v1/tasks?limit=2").await.expect(200);
    assert_eq!(titles(&newest), ["d", "c"], "newest first where nothing is said");
}

#[tokio::test]
async fn pages_follow_each_other_while_tasks_come_and_change() {
    let hub = TestHub::start().await;
    for n in 0..25 {
        hub.submit(json!({"task_type": "t", "title": format!("{n:02}")})).await;
    }
    for order in ["asc", "desc"] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let list = hub.get(&format!("/api/v1/tasks?order={order}&limit=10{cursor}")).await.expect(200);
            seen.extend(titles(&list).into_iter().map(str::to_owned));
            pages += 1;
            let Some(next) = list["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // A new task belongs before the pages of a newest-first list, and at the end of the other.
            hub.submit(json!({"task_type": "t", "title": "new"})).await;
            hub.claim("w").await;
        }
        let old: Vec<&str> = seen.iter().map(String::as_str).filter(|title| *title != "new").collect();
        let mut expected: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
        if order == "desc" {
            expected.reverse();
        }
        assert_eq!(old, expected);
        assert!(pages >= 3);
    }
}

#[tokio::test]
async fn the_last_page_has_no_cursor_and_none_fits_another_list() {
    let hub = TestHub::start().await;
    for _ in 0..4 {
        hub.submit_any().await;
    }
    let all = hub.get("/api/v1/tasks?limit=4").await.expect(200);
    assert!(all.get("next_cursor").is_none(), "{all}");
    let some = hub.get("/api/v1/tasks?limit=2&status=pending").await.expect(200);
    let cursor = some["next_cursor"].as_str().unwrap();
    let rest = hub.get(&format!("/api/v1/tasks?status=pending&limit=500&cursor={cursor}")).await.expect(200);
    assert_eq!(rest["tasks"].as_array().unwrap().len(), 2, "the size of a page may change");
    let other = hub.get(&format!("/api/v1/tasks?status=running&cursor={cursor}")).await;
    assert_eq!(other.problem(), "422 bad_cursor cursor");
}

/// What a task did a moment ago is in the list, whatever of it is settled: unfinished, final, running with its tick.
#[tokio::test]
async fn a_list_shows_what_was_acknowledged() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    assert_eq!(hub.get("/api/v1/tasks").await.body["tasks"][0]["status"], "pending");
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "progress", json!({"progress": {"percentage": 12}})).await.expect(200);
    let list = hub.get("/api/v1/tasks?status=running").await.expect(200);
    assert_eq!(list["tasks"][0]["progress"]["percentage"], 12);
    let large = "x".repeat(5_000);
    hub.attempt(&task_id, 1, "complete", json!({"result": large})).await.expect(200);
    let list = hub.get("/api/v1/tasks").await.expect(200);
    let task = &list["tasks"][0];
    assert_eq!((task["status"].as_str(), &task["result_omitted"]), (Some("completed"), &json!(true)));
    assert!(task.get("result").is_none() && task.get("payload").is_none(), "{task}");
}
