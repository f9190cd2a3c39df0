//! Live clients against a hub in memory, over real sockets.

mod access;
mod limits;
mod logs;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::state::open_keys;
use super::{App, LiveLimits, router};
use crate::config::ServeConfig;
use crate::engine::{Accepts, Report};
use crate::feed::FeedOptions;
use crate::hub::Hub;
use crate::keys::Keys;
use crate::task::{Json, Level, Name, NewTask, PatternSet, Progress, TaskId};

/// The bound of a test that hangs. Nothing should take as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hub that listens.
struct TestHub {
    hub: Hub,
    address: String,
}

impl TestHub {
    async fn start() -> TestHub {
        TestHub::with(LiveLimits::default(), FeedOptions::default().ping).await
    }

    async fn with(live: LiveLimits, ping: Duration) -> TestHub {
        TestHub::with_config(ServeConfig::for_trial(), live, ping).await
    }

    async fn limited(live: LiveLimits) -> TestHub {
        TestHub::with(live, FeedOptions::default().ping).await
    }

    async fn with_config(config: ServeConfig, live: LiveLimits, ping: Duration) -> TestHub {
        TestHub::with_keys(config, open_keys(), live, ping).await
    }

    async fn with_keys(config: ServeConfig, keys: Arc<Keys>, live: LiveLimits, ping: Duration) -> TestHub {
        crate::dial::agree_in_tests();
        let mut options = config.hub_options();
        options.feed.ping = ping;
        let hub = Hub::start(Box::new(crate::store::in_memory().unwrap()), options).unwrap();
        let app = App::new(hub.clone(), keys, config.door().unwrap(), config.http_limits(), live);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router(app)).await });
        TestHub { hub, address }
    }

    async fn stalling(stall: Duration) -> TestHub {
        TestHub::with(LiveLimits { stall, ..LiveLimits::default() }, FeedOptions::default().ping).await
    }

    async fn socket(&self) -> TestSocket {
        let mut socket = self.socket_of(&["taskhub.v1"]).await;
        assert_eq!(socket.next().await["type"], "hello");
        socket
    }

    async fn socket_of(&self, protocols: &[&str]) -> TestSocket {
        let mut request = format!("ws://{}/api/v1/ws", self.address).into_client_request().unwrap();
        if !protocols.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", protocols.join(", ").parse().unwrap());
        }
        let (socket, response) = connect_async(request).await.unwrap();
        let protocol = response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap().to_owned());
        TestSocket { socket, lines: VecDeque::new(), protocol }
    }

    async fn submit(&self, task_type: &str) -> TaskId {
        let tasks = vec![NewTask::new(task_type)];
        self.hub.submit_all(tasks, None).await.unwrap().task_ids[0]
    }

    /// Claims one task.
    async fn claim(&self) -> (TaskId, u32) {
        let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
        let handed = self.hub.claim(Name::new("w"), accepts, 1, PATIENCE).await.unwrap();
        (handed[0].task.task_id, handed[0].task.attempt)
    }

    async fn tick(&self, (task_id, attempt): (TaskId, u32), percentage: f64) {
        self.hub.progress(task_id, attempt, Some(Progress::percent(percentage)), None).await.unwrap();
    }

    async fn complete(&self, (task_id, attempt): (TaskId, u32)) {
        self.hub.report(task_id, attempt, Report::Complete { result: Json::null() }).await.unwrap();
    }

    async fn delete(&self, task_id: TaskId) {
        self.hub.delete_task(task_id).await.unwrap();
    }
}

struct TestSocket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    lines: VecDeque<Value>,
    protocol: Option<String>,
}

impl TestSocket {
    async fn say(&mut self, op: Value) {
        self.say_text(op.to_string()).await;
    }

    async fn say_text(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    /// The next line of any kind; the close frame is `{"close":CODE}`.
    async fn next(&mut self) -> Value {
        while self.lines.is_empty() {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes");
            match message.expect("a close comes before the end").unwrap() {
                Message::Text(text) => {
                    self.lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
                }
                Message::Close(frame) => return json!({"close": u16::from(frame.unwrap().code)}),
                _ => {}
            }
        }
        self.lines.pop_front().unwrap()
    }

    /// The next line that is no mark.
    async fn event(&mut self) -> Value {
        loop {
            let line = self.next().await;
            if line["type"] != "mark" {
                return line;
            }
        }
    }

    /// Lines up to and with the first of this type.
    async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.next().await);
            if lines.last().unwrap()["type"] == kind {
                return lines;
            }
        }
    }

    async fn subscribe(&mut self, filter: Value) -> Vec<Value> {
        self.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": filter})).await;
        self.until("mark").await
    }

    /// Subscribes to everything.
    async fn resume_from(&mut self, test: &TestHub, rev: u64) {
        let since = json!({"epoch": test.hub.epoch(), "rev": rev});
        self.say(json!({"op": "subscribe", "sub": "a", "filter": {}, "since": since})).await;
    }

    async fn mark_from(&mut self, rev: u64) -> u64 {
        loop {
            let lines = self.until("mark").await;
            let mark = lines.last().unwrap()["rev"].as_u64().unwrap();
            if mark >= rev {
                return mark;
            }
        }
    }
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_life_in_events() {
    let test = TestHub::start().await;
    let old = test.submit("report").await;
    let mut socket = test.socket_of(&[]).await;
    assert_eq!(socket.protocol.as_deref(), None, "nothing was offered, so nothing is chosen");
    let hello = socket.next().await;
    assert_eq!((&hello["type"], &hello["epoch"]), (&json!("hello"), &json!(test.hub.epoch())));
    assert_eq!((&hello["rev"], &hello["ping_ms"], &hello["id"]), (&json!(1), &json!(25_000), &Value::Null));
    assert_eq!(hello["limits"]["subscriptions"], 64);

    let lines = socket.subscribe(json!({})).await;
    assert_eq!(kinds(&lines), ["subscribed", "snapshot", "mark"]);
    assert_eq!(lines[0], json!({"type": "subscribed", "id": 1, "sub": "a", "mode": "snapshot", "rev": 1}));
    assert_eq!((&lines[1]["tasks"][0]["task_id"], &lines[1]["more"]), (&json!(old), &json!(false)));
    assert_eq!(lines[2]["rev"], 1);

    let attempt = test.claim().await;
    test.tick(attempt, 10.0).await;
    let running = socket.event().await;
    assert_eq!((&running["event"], &running["rev"]), (&json!("task.running"), &json!(2)));
    assert_eq!((&running["task"]["status"], &running["task"]["attempt"]), (&json!("running"), &json!(1)));
    let tick = socket.event().await;
    assert_eq!((&tick["type"], &tick["rev"], &tick["tick"]), (&json!("progress"), &json!(2), &json!(1)));
    assert_eq!((&tick["attempt"], &tick["progress"]["percentage"]), (&json!(1), &json!(10)));
    test.tick(attempt, 90.0).await;
    test.complete(attempt).await;
    let completed = loop {
        let line = socket.event().await;
        if line["type"] == "task" {
            break line;
        }
    };
    assert_eq!((&completed["event"], &completed["task"]["result"]), (&json!("task.completed"), &Value::Null));
    assert_eq!(completed["task"]["progress"]["percentage"], 100, "the final record has the last tick");
    test.delete(old).await;
    assert_eq!(socket.event().await, json!({"type": "gone", "task_id": old, "rev": 4}));
    assert_eq!(socket.mark_from(4).await, 4, "a mark follows when it is quiet");
}

#[tokio::test]
async fn several_subscriptions_get_an_event_once() {
    let test = TestHub::start().await;
    let mut socket = test.socket().await;
    for (sub, filter) in [("a", json!({})), ("b", json!({"task_type": ["re*"]})), ("c", json!({"status": ["running"]}))]
    {
        socket.say(json!({"op": "subscribe", "sub": sub, "filter": filter})).await;
        let lines = socket.until("mark").await;
        assert_eq!(kinds(&lines), ["subscribed", "snapshot", "mark"]);
    }
    test.submit("report").await;
    test.submit("other").await;
    assert_eq!(socket.event().await["task"]["task_type"], "report");
    assert_eq!(socket.event().await["task"]["task_type"], "other");
    socket.say(json!({"op": "unsubscribe", "id": 9, "sub": "a"})).await;
    assert_eq!(socket.event().await, json!({"type": "unsubscribed", "id": 9, "sub": "a"}));
    test.submit("other").await;
    test.submit("report").await;
    assert_eq!(socket.event().await["task"]["task_type"], "report", "nobody asks for the other any more");
}

#[tokio::test]
async fn a_client_sees_a_task_leave() {
    let test = TestHub::start().await;
    let mut socket = test.socket().await;
    socket.subscribe(json!({"status": ["running"]})).await;
    test.submit("t").await;
    let attempt = test.claim().await;
    assert_eq!(socket.event().await["event"], "task.running");
    test.complete(attempt).await;
    assert_eq!(socket.event().await["event"], "task.completed");
}

#[tokio::test]
async fn snapshots_have_pages_and_say_where_they_were_cut() {
    let test = TestHub::start().await;
    let tasks = (0..250).map(|_| NewTask::new("t")).collect();
    test.hub.submit_all(tasks, None).await.unwrap();
    let mut socket = test.socket().await;
    let lines = socket.subscribe(json!({})).await;
    let pages: Vec<_> = lines.iter().filter(|line| line["type"] == "snapshot").collect();
    assert!(pages.iter().all(|page| page["tasks"].as_array().unwrap().len() <= 100));
    assert_eq!(pages.iter().map(|page| page["tasks"].as_array().unwrap().len()).sum::<usize>(), 200);
    let (last, others) = pages.split_last().unwrap();
    assert!(others.iter().all(|page| page["more"] == true && page["truncated"] == Value::Null));
    assert_eq!((&last["more"], &last["truncated"]), (&json!(false), &json!(true)));
    let revs: Vec<u64> =
        pages.iter().flat_map(|page| page["tasks"].as_array().unwrap()).map(|t| t["rev"].as_u64().unwrap()).collect();
    assert!(revs.is_sorted_by(|a, b| a > b), "newest first");
}

#[tokio::test]
async fn who_resumes_gets_what_was_missed() {
    let test = TestHub::start().await;
    let (first, second) = (test.submit("t").await, test.submit("t").await);
    let unchanged = test.submit("t").await;
    test.submit("other").await;
    let mut socket = test.socket().await;
    socket.subscribe(json!({"task_type": ["t"]})).await;
    let since = json!({"epoch": test.hub.epoch(), "rev": 4});
    drop(socket);

    let attempt = test.claim().await;
    assert_eq!(attempt.0, first);
    test.tick(attempt, 50.0).await;
    test.hub.cancel_task(second, None).await.unwrap();
    test.delete(second).await;
    let mut socket = test.socket().await;
    socket
        .say(json!({"op": "subscribe", "id": 2, "sub": "a", "filter": {"task_type": ["t"], "status": ["pending"]},
            "since": since}))
        .await;
    let lines = socket.until("mark").await;
    assert_eq!(kinds(&lines), ["subscribed", "task", "gone", "mark"]);
    assert_eq!((&lines[0]["mode"], &lines[0]["id"]), (&json!("resumed"), &json!(2)));
    assert_eq!((&lines[1]["task"]["task_id"], &lines[1]["event"]), (&json!(first), &json!("task.running")));
    assert_eq!((&lines[2]["task_id"], &lines[2]["rev"]), (&json!(second), &json!(7)));
    assert_eq!(lines[3]["rev"], 7);

    socket.say(json!({"op": "subscribe", "sub": "b", "filter": {}, "since": since})).await;
    let lines = socket.until("mark").await;
    assert_eq!(kinds(&lines), ["subscribed", "task", "gone", "progress", "mark"], "the newest tick of what runs");
    assert_eq!((&lines[3]["task_id"], &lines[3]["progress"]["percentage"]), (&json!(first), &json!(50)));

    for (since, reason) in
        [(json!({"epoch": "another", "rev": 4}), "epoch"), (json!({"epoch": test.hub.epoch(), "rev": 99}), "epoch")]
    {
        socket.say(json!({"op": "subscribe", "sub": "c", "filter": {}, "since": since})).await;
        let lines = socket.until("mark").await;
        assert_eq!(kinds(&lines), ["subscribed", "reset", "snapshot", "mark"]);
        assert_eq!((&lines[0]["mode"], &lines[1]["reason"]), (&json!("snapshot"), &json!(reason)));
        assert!(lines[2]["tasks"].as_array().unwrap().iter().any(|task| task["task_id"] == json!(unchanged)));
    }
}

#[tokio::test]
async fn what_was_missed_comes_in_pages() {
    const TASKS: usize = 2_500;
    for (resume_len_max, is_told) in [(TASKS, true), (TASKS - 1, false)] {
        let test = TestHub::limited(LiveLimits { resume_len_max, ..LiveLimits::default() }).await;
        test.hub.submit_all(vec![NewTask::new("t"); TASKS], None).await.unwrap();
        let mut socket = test.socket().await;
        socket.resume_from(&test, 0).await;
        let lines = socket.until("mark").await;
        if is_told {
            assert_eq!((&lines[0]["mode"], revs(&lines)), (&json!("resumed"), (1..=TASKS as u64).collect()));
        } else {
            assert_eq!(kinds(&lines), ["subscribed", "reset", "snapshot", "snapshot", "mark"]);
            assert_eq!((&lines[0]["mode"], &lines[1]["reason"]), (&json!("snapshot"), &json!("too_old")));
        }
        assert_eq!(lines.last().unwrap()["rev"], TASKS);
    }
}

/// What a client is told while more and more changes may become more than it is told of. Then everything starts anew.
#[tokio::test]
async fn a_resume_that_grows_too_long_becomes_a_reset() {
    // More than the kernel holds, so that the rest waits until the client reads on.
    const TASKS: usize = 6_000;
    let test = TestHub::limited(LiveLimits { resume_len_max: TASKS, ..LiveLimits::default() }).await;
    let described = NewTask { description: Some("x".repeat(4_000)), ..NewTask::new("t") };
    test.hub.submit_all(vec![described; TASKS], None).await.unwrap();
    let mut socket = test.socket().await;
    socket.resume_from(&test, 0).await;
    let mut lines = socket.until("subscribed").await;
    assert_eq!(lines[0]["mode"], "resumed");
    test.hub.submit_all(vec![NewTask::new("t")], None).await.unwrap();
    lines.extend(socket.until("mark").await);
    assert_eq!(revs(&lines), (1..=TASKS as u64).collect::<Vec<_>>());
    let rest = kinds(&lines[1 + TASKS..]);
    assert_eq!((rest[0], rest[1], rest.last()), ("reset", "snapshot", Some(&"mark")));
}

/// Of the transitions among these lines.
fn revs(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter(|line| line["type"] == "task").filter_map(|line| line["rev"].as_u64()).collect()
}

#[tokio::test]
async fn log_lines_come_tail_first_then_live() {
    let test = TestHub::start().await;
    let task_id = test.submit("t").await;
    let attempt = test.claim().await;
    let say = |text: &str| test.hub.log(task_id, attempt.1, vec![(Level::Info, text.to_owned())]).unwrap();
    for n in 1..=5 {
        say(&format!("line {n}"));
    }
    let mut socket = test.socket().await;
    let filter = json!({"task_id": [task_id]});
    socket.say(json!({"op": "subscribe", "sub": "a", "filter": filter, "logs": {"tail": 2}})).await;
    let lines = socket.until("mark").await;
    assert_eq!(kinds(&lines), ["subscribed", "snapshot", "log", "mark"]);
    let seqs = |line: &Value| -> Vec<u64> {
        line["lines"].as_array().unwrap().iter().map(|line| line["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!((seqs(&lines[2]), &lines[2]["task_id"]), (vec![4, 5], &json!(task_id)));
    say("line 6");
    let live = socket.event().await;
    assert_eq!((seqs(&live), &live["lines"][0]["message"]), (vec![6], &json!("line 6")));
}

#[tokio::test]
async fn counts_come_at_once_and_again() {
    let test = TestHub::start().await;
    test.submit("t").await;
    let mut socket = test.socket().await;
    socket.say(json!({"op": "subscribe", "id": 3, "sub": "s", "stats": true})).await;
    let lines = socket.until("stats").await;
    assert_eq!(kinds(&lines), ["subscribed", "stats"]);
    assert_eq!((&lines[1]["tasks"]["pending"], &lines[1]["sockets"]), (&json!(1), &json!(1)));
    assert_eq!(socket.event().await["type"], "stats");
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_socket_stays() {
    let test = TestHub::start().await;
    let mut socket = test.socket().await;
    socket.say_text("{\"op\":\"dance\",\"id\":1}\n{\"op\":\"ping\",\"id\":2} {\"op\":\"hello\",\"id\":3}").await;
    let error = socket.event().await;
    assert_eq!((&error["type"], &error["id"], &error["code"]), (&json!("error"), &json!(1), &json!("invalid_field")));
    assert_eq!(socket.event().await, json!({"type": "pong", "id": 2}));
    let hello = socket.event().await;
    assert_eq!((&hello["type"], &hello["id"]), (&json!("hello"), &json!(3)));
    for n in 0..=64 {
        socket.say(json!({"op": "subscribe", "id": n, "sub": format!("s{n}"), "stats": true})).await;
    }
    let error = socket.until("error").await.pop().unwrap();
    assert_eq!((&error["id"], &error["code"]), (&json!(64), &json!("limit_exceeded")));
    socket.say(json!({"op": "unsubscribe", "id": 7, "sub": "nobody"})).await;
    let error = socket.until("error").await.pop().unwrap();
    assert_eq!((&error["id"], &error["code"]), (&json!(7), &json!("not_found")));
}

#[tokio::test]
async fn what_is_no_json_closes() {
    let test = TestHub::start().await;
    for (message, code) in [
        (Message::text("nonsense"), 4500),
        (Message::text("{\"op\":"), 4500),
        (Message::binary(vec![1, 2]), 4500),
        (Message::text(format!("\"{}\"", "x".repeat(64 << 10))), 1009),
    ] {
        let mut socket = test.socket().await;
        socket.socket.send(message).await.unwrap();
        assert_eq!(socket.event().await, json!({"close": code}));
    }
    assert_eq!(close_code_of_unknown_protocol(&test.address).await, 4505);
}

/// The library refuses an answer without any of the protocols it offered; a browser does not, and neither do we here.
async fn close_code_of_unknown_protocol(address: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: taskhub.v9\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "accepted, so that a browser can hear why");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    match socket.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_hub_that_ends_says_goodbye() {
    let test = TestHub::start().await;
    let mut socket = test.socket().await;
    socket.subscribe(json!({})).await;
    let hub = test.hub.clone();
    tokio::spawn(async move { hub.drain(Duration::ZERO).await });
    let soon = "a client that is alone need not wait for others";
    assert_eq!(socket.event().await, json!({"type": "bye", "code": 4001, "retry_ms": [500, 1_001]}), "{soon}");
    assert_eq!(socket.event().await, json!({"close": 4001}));
}

#[tokio::test]
async fn everyone_hears_the_goodbye_also_who_comes_late() {
    let config = ServeConfig { goodbye: Duration::from_millis(300), ..ServeConfig::for_trial() };
    let test = TestHub::with_config(config, LiveLimits::default(), FeedOptions::default().ping).await;
    let mut sockets = Vec::new();
    for n in 0..60 {
        let mut socket = test.socket().await;
        // Some flow, and some never asked for anything.
        if n % 2 == 0 {
            socket.subscribe(json!({})).await;
        }
        sockets.push(socket);
    }
    test.hub.drain(Duration::ZERO).await;
    let mut late = test.socket_of(&[]).await;
    assert_eq!(late.next().await["type"], "hello");
    sockets.insert(0, late);
    for mut socket in sockets {
        let bye = socket.event().await;
        assert_eq!((&bye["type"], &bye["code"], &bye["retry_ms"][0]), (&json!("bye"), &json!(4001), &json!(500)));
        let most = bye["retry_ms"][1].as_u64().unwrap();
        assert!((1_001..=1_061).contains(&most), "as long as there were others: {most}");
        assert_eq!(socket.event().await, json!({"close": 4001}));
    }
    // Whoever comes when all the others have left has no turn to wait for.
    let mut last = test.socket_of(&[]).await;
    assert_eq!(last.next().await["type"], "hello");
    assert_eq!((last.event().await["type"].take(), last.event().await), (json!("bye"), json!({"close": 4001})));
}

/// As many ticks as a thread can make, of one task. Who watches it gets few of them, and the last; who watches another
/// does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_runaway_worker_costs_its_watchers_little_and_others_nothing() {
    const TICKS: u32 = 100_000;
    let test = TestHub::start().await;
    let runaway = {
        test.submit("runaway").await;
        test.claim().await
    };
    let calm = {
        test.submit("calm").await;
        test.claim().await
    };
    let (mut of_runaway, mut of_calm) = (test.socket().await, test.socket().await);
    of_runaway.subscribe(json!({"task_type": ["runaway"]})).await;
    of_calm.subscribe(json!({"task_type": ["calm"]})).await;
    let begun = std::time::Instant::now();
    let hub = test.hub.clone();
    let ticking = tokio::spawn(async move {
        for n in 1..=TICKS {
            // The writer keeps the attempt's lease; when it has too much to do, it says so, and the tick counts anyhow.
            let _ = hub.progress(runaway.0, runaway.1, Some(Progress::of(n.into(), TICKS.into())), None).await;
        }
    });
    let mut calm_ticks = 0;
    while !ticking.is_finished() {
        calm_ticks += 1;
        test.tick(calm, f64::from(calm_ticks % 100)).await;
        let told = of_calm.event().await;
        assert_eq!((&told["type"], &told["task_id"]), (&json!("progress"), &json!(calm.0)), "each its own, and soon");
        assert_eq!(told["tick"], calm_ticks);
    }
    ticking.await.unwrap();
    let (mut told, mut last) = (0, 0);
    while last < u64::from(TICKS) {
        let line = of_runaway.event().await;
        assert_eq!(line["type"], "progress", "{line}");
        assert!(line["tick"].as_u64().unwrap() > last);
        (told, last) = (told + 1, line["tick"].as_u64().unwrap());
    }
    let most = begun.elapsed().as_secs_f64() * test.hub.options().feed.max_hz + 2.0;
    assert!(f64::from(told) <= most, "{told} lines, and at most {most} were allowed");
    test.complete(runaway).await;
    let line = of_runaway.event().await;
    assert_eq!((&line["event"], &line["task"]["progress"]["current"]), (&json!("task.completed"), &json!(TICKS)));
}

#[tokio::test]
async fn a_silent_socket_is_closed_and_one_that_answers_is_not() {
    let test = TestHub::with(LiveLimits::default(), Duration::from_millis(300)).await;
    // Both get pings; only the one that is read answers them.
    let (mut silent, mut alive) = (test.socket().await, test.socket().await);
    let mut pings = 0;
    while test.hub.stats().sockets == Some(2) {
        if alive.next().await["type"] == "mark" {
            pings += 1;
        }
    }
    assert!(pings >= 2, "a mark comes with every ping");
    while silent.lines.is_empty() {
        let line = silent.next().await;
        if line["type"] != "mark" {
            assert_eq!(line, json!({"close": 4003}));
            break;
        }
    }
    alive.say(json!({"op": "ping"})).await;
    assert_eq!(alive.event().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn who_takes_nothing_is_closed_and_nobody_else_waits() {
    let test = TestHub::stalling(Duration::from_millis(200)).await;
    let (mut stuck, mut reader) = (test.socket().await, test.socket().await);
    stuck.say(json!({"op": "subscribe", "sub": "a", "filter": {}})).await;
    reader.subscribe(json!({})).await;
    let mut submitted = 0;
    // As much as the kernel takes for the one that does not read, and then some.
    while test.hub.stats().sockets == Some(2) {
        let described = NewTask { description: Some("x".repeat(4_000)), ..NewTask::new("t") };
        let tasks = vec![described; 20];
        test.hub.submit_all(tasks, None).await.unwrap();
        for _ in 0..20 {
            submitted += 1;
            let event = reader.event().await;
            assert_eq!((&event["type"], &event["rev"]), (&json!("task"), &json!(submitted)));
        }
    }
    assert!(submitted > 100);
}

#[tokio::test]
async fn a_slow_reader_is_told_so_and_ends_with_the_newest() {
    let test = TestHub::start().await;
    let mut slow = test.socket().await;
    slow.subscribe(json!({})).await;
    // More than the kernel holds for a socket that is not read, and than waits in order in the hub.
    let mut task_ids = Vec::new();
    for _ in 0..30 {
        let described = NewTask { description: Some("x".repeat(4_000)), ..NewTask::new("t") };
        let tasks = vec![described; 100];
        let submitted = test.hub.submit_all(tasks, None).await.unwrap().task_ids;
        for task_id in &submitted {
            test.hub.cancel_task(*task_id, None).await.unwrap();
        }
        task_ids.extend(submitted);
    }
    let (mut lag, mut known) = (0, std::collections::HashMap::new());
    let mut mark = 0;
    while mark < 6_000 {
        let line = slow.next().await;
        match line["type"].as_str().unwrap() {
            "lag" => lag += line["collapsed"].as_u64().unwrap(),
            "task" => {
                let rev = line["rev"].as_u64().unwrap();
                let status = line["task"]["status"].as_str().unwrap().to_owned();
                let before = known.insert(line["task"]["task_id"].as_str().unwrap().to_owned(), (rev, status));
                assert!(before.is_none_or(|(before, _)| before < rev), "no task goes back");
            }
            "mark" => mark = line["rev"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
    }
    assert!(lag > 1_000, "{lag}");
    for task_id in task_ids {
        assert_eq!(known[&task_id.to_string()].1, "cancelled");
    }
}

#[tokio::test]
async fn event_streams_say_the_same() {
    let test = TestHub::start().await;
    let task_id = test.submit("t").await;
    let url = format!("http://{}/api/v1/events?task_type=t", test.address);
    let mut response = reqwest::get(&url).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut read = async |until: &str| {
        while !text.contains(until) {
            let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        std::mem::take(&mut text)
    };
    let id = format!("id: {}:1\nevent: mark\ndata: {{\"type\":\"mark\",\"rev\":1}}\n\n", test.hub.epoch());
    let begin = read(&id).await;
    let events: Vec<&str> = begin.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events, ["hello", "subscribed", "snapshot", "mark"]);
    assert!(begin.contains(&task_id.to_string()));
    test.submit("other").await;
    let attempt = test.claim().await;
    assert!(read("event: task\n").await.contains("task.running"));
    drop(response);

    test.complete(attempt).await;
    let resumed = reqwest::Client::new().get(&url).header("Last-Event-ID", format!("{}:1", test.hub.epoch()));
    let mut response = resumed.send().await.unwrap();
    let mut text = String::new();
    while !text.contains("event: mark") {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events, ["hello", "subscribed", "task", "mark"], "{text}");
    assert!(text.contains("task.completed") && text.contains(r#""mode":"resumed""#));

    let refused = reqwest::get(format!("http://{}/api/v1/events?colour=red", test.address)).await.unwrap();
    assert_eq!(refused.status(), 422);
    test.hub.drain(Duration::ZERO).await;
    let mut end = String::new();
    while let Some(chunk) = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap() {
        end.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(end.ends_with("event: bye\ndata: {\"type\":\"bye\",\"code\":4001,\"retry_ms\":[500,1001]}\n\n"), "{end}");
}
