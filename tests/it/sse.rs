//! The live stream as server-sent events: the same objects, resumed by the browser itself.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::kit::{TestHub, id, in_time, millis};

/// An open stream of events.
struct Events {
    response: reqwest::Response,
    text: String,
}

/// One event: its name, its id, its data.
#[derive(Debug)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Events {
    async fn open(hub: &TestHub, query: &str, last: Option<&str>) -> Events {
        let mut request = hub.request(Method::GET, &format!("/api/v1/events{query}")).timeout(Duration::from_secs(60));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.map(str::to_owned)
                };
                let data = serde_json::from_str(&field("data").unwrap()).unwrap();
                let event = Event { name: field("event").unwrap(), id: field("id"), data };
                self.text = rest.to_owned();
                assert_eq!(event.data["type"], event.name);
                return Some(event);
            }
            let chunk = in_time("an event", self.response.chunk()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if event.name == name {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn the_same_objects_in_the_same_order() {
    let hub = TestHub::start().await;
    let other = hub.submit(json!({"task_type": "other", "queue": "nobody"})).await;
    let mut events = Events::open(&hub, "?task_type=t&max_hz=5", None).await;
    let mut names = Vec::new();
    while names.last().map(String::as_str) != Some("mark") {
        names.push(events.next().await.unwrap().name);
    }
    assert_eq!(names, ["hello", "subscribed", "snapshot", "mark"]);
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "progress", json!({"progress": {"percentage": 9}})).await.expect(200);
    hub.cancel_other(&other).await;
    assert_eq!(events.until("task").await.data["event"], "task.created");
    assert_eq!(events.until("progress").await.data["progress"]["percentage"], 9);
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    let done = events.until("task").await;
    assert_eq!((&done.data["event"], id(&done.data["task"])), (&json!("task.completed"), task_id));
}

impl TestHub {
    async fn cancel_other(&self, task: &Value) {
        self.tell(&format!("/api/v1/tasks/{}/cancel", id(task))).await.expect(200);
    }
}

#[tokio::test]
async fn the_id_of_a_mark_resumes() {
    let hub = TestHub::start().await;
    let first = hub.submit_any().await;
    let mut events = Events::open(&hub, "", None).await;
    let mark = events.until("mark").await.id.expect("a mark has an id");
    let stats = hub.get("/api/v1/stats").await.expect(200);
    // A mark may stand below what the snapshot showed, where the feed has not told it yet; then that is told again.
    let at_first = [0, 1].map(|rev| format!("{}:{rev}", stats["epoch"].as_str().unwrap()));
    assert!(at_first.contains(&mark), "{mark}");
    drop(events);
    let second = hub.submit_any().await;
    let mut events = Events::open(&hub, "", Some(&mark)).await;
    assert_eq!(events.until("subscribed").await.data["mode"], "resumed");
    let mut missed = id(&events.until("task").await.data["task"]);
    if mark == at_first[0] {
        assert_eq!(missed, first);
        missed = id(&events.until("task").await.data["task"]);
    }
    assert_eq!(missed, second, "and not {first}");
    let mut lost = Events::open(&hub, "", Some("another:1")).await;
    assert_eq!(lost.until("reset").await.data["reason"], "epoch");
    assert_eq!(lost.until("snapshot").await.data["tasks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn log_lines_and_wrong_questions() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": "a"}, {"message": "b"}]})).await.expect(200);
    let mut events = Events::open(&hub, &format!("?task_id={task_id}&logs=1"), None).await;
    assert_eq!(events.until("log").await.data["lines"][0]["message"], "b");
    hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": "c"}]})).await.expect(200);
    assert_eq!(events.until("log").await.data["lines"][0]["seq"], 3);
    for (query, expected) in [
        ("?status=done", "422 bad_filter status"),
        ("?logs=5", "422 invalid_field logs"),
        ("?max_hz=0", "422 invalid_field max_hz"),
        ("?limit=1001", "422 limit_exceeded limit"),
        ("?page=1", "422 unknown_field page"),
    ] {
        assert_eq!(hub.get(&format!("/api/v1/events{query}")).await.problem(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_hub_that_goes_down_says_goodbye_and_ends_the_stream() {
    let mut hub = TestHub::builder().set(|config| config.drain_timeout = millis(100)).start().await;
    let mut events = Events::open(&hub, "", None).await;
    events.until("mark").await;
    hub.begin_shutdown();
    assert_eq!(events.until("bye").await.data["code"], 4001);
    assert!(events.next().await.is_none());
}

/// Regression: a hub that was full for a moment answered 503, after which a browser never tries again; and no stream said
/// when to come back, so that after a restart all came after the browser's own three seconds.
#[tokio::test]
async fn a_full_hub_lets_a_browser_come_back() {
    let hub = TestHub::builder().set(|config| config.sockets_max = 1).start().await;
    let first = hub.live().await;
    let full = hub.get("/api/v1/events").await;
    assert_eq!((full.status, full.header("content-type")), (200, "text/event-stream"));
    assert!(full.header("cache-control").contains("no-transform"));
    let (retry, bye) = full.text.split_once('\n').unwrap();
    assert_eq!(bye, "event: bye\ndata: {\"type\":\"bye\",\"code\":4006,\"retry_ms\":[500,5000]}\n\n");
    assert!((500..=5_000).contains(&retry_ms(retry)), "{retry}");

    let mut page = Browser::start().await.open(&format!("{}/favicon.svg", hub.url)).await;
    let open = "globalThis.heard = []; globalThis.stream = new EventSource('/api/v1/events');
                for (const kind of ['bye', 'hello']) stream.addEventListener(kind, () => heard.push(kind)); 0";
    page.look(open).await;
    page.until("heard.includes('bye')").await;
    assert_ne!(page.look("stream.readyState").await, 2, "it has not given up");
    first.close().await;
    page.until("heard.at(-1) === 'hello'").await;
    drop(page);
}

fn retry_ms(line: &str) -> u64 {
    line.strip_prefix("retry: ").and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[tokio::test]
async fn each_stream_is_told_its_own_time_to_come_back() {
    let hub = TestHub::start().await;
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let mut stream = hub.request(Method::GET, "/api/v1/events").send().await.unwrap();
        let first = in_time("the first event", stream.chunk()).await.unwrap().unwrap();
        let ms = retry_ms(std::str::from_utf8(&first).unwrap().lines().next().unwrap());
        assert!((500..=15_000).contains(&ms), "{ms}");
        told.insert(ms);
    }
    assert!(told.len() > 3, "{told:?}");
}
