//! A worker against a hub of a few lines: what it says, when, and what it says again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;
use crate::task::{Level, NewTask, Progress};

mod command_tests;
mod token_tests;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(20);

const ID_1: &str = "0190a0b0-0000-7000-8000-000000000001";
const ID_2: &str = "0190a0b0-0000-7000-8000-000000000002";

/// Nothing here waits for a heartbeat: a word that only leaves with one is late, and its test fails.
const NEVER_MS: u64 = 3_600_000;

struct Hub {
    listener: TcpListener,
}

struct Line {
    socket: WebSocketStream<TcpStream>,
    said: VecDeque<Value>,
    /// How many texts came.
    texts: usize,
}

impl Hub {
    async fn new() -> Hub {
        Hub { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn worker(&self) -> Worker {
        Worker::new(format!("http://{}", self.listener.local_addr().unwrap())).id("w1")
    }

    /// The next connection, and its hello.
    async fn accept(&self) -> (Line, Value) {
        let (stream, _) = tokio::time::timeout(LONG, self.listener.accept()).await.expect("it connects").unwrap();
        #[allow(clippy::result_large_err, reason = "the shape of the callback is not ours")]
        let speak = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/api/v1/worker/ws");
            response.headers_mut().insert("sec-websocket-protocol", "taskhub.worker.v1".parse().unwrap());
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, speak).await.unwrap();
        let mut line = Line { socket, said: VecDeque::new(), texts: 0 };
        let hello = line.next().await;
        assert_eq!(hello["op"], "hello");
        (line, hello)
    }

    /// The next connection, welcomed.
    async fn welcome(&self) -> Line {
        let (mut line, _) = self.accept().await;
        line.say(json!({"type": "welcome", "lease_ms": NEVER_MS, "heartbeat_ms": NEVER_MS, "keep": [], "drop": []}))
            .await;
        line
    }
}

impl Line {
    async fn say(&mut self, says: Value) {
        self.socket.send(Message::text(says.to_string())).await.unwrap();
    }

    async fn run(&mut self, id: &str, attempt: u32, payload: Value) {
        self.say(json!({"type": "run", "task": task(id, attempt, payload), "attempt": attempt})).await;
    }

    async fn ack(&mut self, id: &str, attempt: u32) {
        self.say(json!({"type": "ack", "task_id": id, "attempt": attempt})).await;
    }

    async fn cancel(&mut self, id: &str, reason: &str) {
        self.say(json!({"type": "cancel", "task_id": id, "attempt": 1, "reason": reason})).await;
    }

    /// The next thing the worker says, but for heartbeats.
    async fn next(&mut self) -> Value {
        self.try_next().await.expect("the worker says something")
    }

    async fn try_next(&mut self) -> Option<Value> {
        loop {
            if let Some(said) = self.said.pop_front() {
                if said["op"] != "heartbeat" {
                    return Some(said);
                }
                continue;
            }
            match tokio::time::timeout(LONG, self.socket.next()).await.expect("the worker says something in time") {
                Some(Ok(Message::Text(text))) => {
                    self.texts += 1;
                    self.said.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
                }
                Some(Ok(Message::Close(_))) | None => return None,
                Some(Ok(_)) => {}
                Some(Err(why)) => panic!("{why}"),
            }
        }
    }

    /// The next thing of this kind; what comes before is skipped.
    async fn until(&mut self, op: &str) -> Value {
        loop {
            let said = self.next().await;
            if said["op"] == op {
                return said;
            }
        }
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        let _ = self.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

fn task(id: &str, attempt: u32, payload: Value) -> Value {
    json!({
        "task_id": id, "task_type": "t", "queue": "default", "priority": 0, "status": "running", "attempt": attempt,
        "tries": 1, "max_attempts": 1, "crashes": 0, "max_crashes": 3, "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z", "rev": 2, "tick": 0, "payload": payload,
    })
}

/// A worker that runs until it is told to stop.
struct Working {
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<Result<(), WorkerError>>,
}

fn work(worker: Worker) -> Working {
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    Working { stop: Some(stop), done: tokio::spawn(worker.run(shutdown)) }
}

impl Working {
    fn stop(&mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
    }

    async fn done(self) -> Result<(), WorkerError> {
        tokio::time::timeout(LONG, self.done).await.expect("it ends").unwrap()
    }
}

#[tokio::test]
async fn a_task_is_run_and_its_result_told_until_acknowledged() {
    let hub = Hub::new().await;
    let worker = hub.worker().queues(["q.*"]).concurrency(8).register("t", |ctx: Context| async move {
        let number: u64 = ctx.payload()?;
        assert_eq!(ctx.attempt(), 3);
        assert_eq!(ctx.checkpoint::<u64>()?, Some(7));
        ctx.progress(Progress::of(1, 2).message("half"));
        ctx.set_checkpoint(&8)?;
        ctx.log(Level::Info, "working");
        Ok::<_, TaskFailure>(number * 2)
    });
    let mut working = work(worker);
    let (mut line, hello) = hub.accept().await;
    let expected = json!({"op": "hello", "worker_id": "w1", "task_types": ["t"], "queues": ["q.*"], "concurrency": 8});
    assert_eq!(hello, expected);
    line.say(json!({"type": "welcome", "lease_ms": NEVER_MS, "heartbeat_ms": NEVER_MS, "keep": [], "drop": []})).await;
    line.say(json!({"type": "run", "task": task(ID_1, 3, json!(21)), "attempt": 3, "checkpoint": 7})).await;
    let log = line.next().await;
    assert_eq!(log["lines"], json!([{"level": "info", "message": "working"}]));
    let progress = line.next().await;
    assert_eq!(progress["progress"], json!({"percentage": 50, "current": 1, "total": 2, "message": "half"}));
    assert_eq!(progress["checkpoint"], 8);
    let complete = line.next().await;
    assert_eq!(complete, json!({"op": "complete", "task_id": ID_1, "attempt": 3, "result": 42}));
    // Not acknowledged: it is told again, and held until it is.
    line.close(4001).await;
    let (mut line, hello) = hub.accept().await;
    assert_eq!(hello["holding"], json!([{"task_id": ID_1, "attempt": 3}]));
    line.say(json!({"type": "welcome", "lease_ms": NEVER_MS, "heartbeat_ms": NEVER_MS, "keep": [{"task_id": ID_1, "attempt": 3}], "drop": []})).await;
    assert_eq!(line.next().await, complete);
    line.ack(ID_1, 3).await;
    line.close(1006).await;
    let (mut line, hello) = hub.accept().await;
    assert_eq!(hello["holding"], json!([]), "it is no new process, and holds nothing");
    line.say(json!({"type": "welcome"})).await;
    working.stop();
    assert_eq!(working.done().await, Ok(()));
}

#[tokio::test]
async fn a_call_that_adds_tasks_is_made_again_until_it_is_answered() {
    let hub = Hub::new().await;
    let worker = hub.worker().register("t", |ctx: Context| async move {
        let one = ctx.spawn(&[NewTask::new("s")]).await?;
        let refused = ctx.spawn(&[NewTask::new("other")]).await.unwrap_err();
        assert!(matches!(refused, SpawnError::Refused { code, field: Some(field), .. } if code == "x" && field == "f"));
        assert_eq!(ctx.spawn(&[NewTask::new("late")]).await, Err(SpawnError::Over));
        Ok::<_, TaskFailure>(one)
    });
    let mut working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    let call = line.next().await;
    let key = call["key"].as_str().unwrap();
    assert_eq!(
        call,
        json!({"op": "spawn", "id": 1, "task_id": ID_1, "attempt": 1, "key": key, "tasks": [{"task_type": "s"}]})
    );
    // The answer got lost; then there was no room.
    line.close(1006).await;
    let mut line = hub.welcome().await;
    assert_eq!(line.next().await, call, "under the same key");
    let answer = |kind: &str, id: u64, more: Value| {
        let mut words = json!({"type": kind, "id": id, "task_id": ID_1, "attempt": 1});
        words.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        words
    };
    line.say(answer("refused", 1, json!({"code": "overloaded"}))).await;
    assert_eq!(line.next().await, call);
    line.say(answer("spawned", 7, json!({"task_ids": [ID_1]}))).await;
    line.say(answer("spawned", 1, json!({"task_ids": [ID_2]}))).await;
    assert_eq!(line.next().await["id"], 2);
    line.say(answer("refused", 2, json!({"code": "x", "field": "f", "detail": "no"}))).await;
    assert_eq!(line.next().await["id"], 3);
    line.say(answer("refused", 3, json!({"code": "lease_lost"}))).await;
    // The hub has ended the attempt: it hears that it is let go of.
    assert_eq!(line.next().await["op"], "cancelled");
    line.ack(ID_1, 1).await;
    working.stop();
    assert_eq!(working.done().await, Ok(()));
}

#[tokio::test]
async fn errors_and_panics_fail_the_task() {
    let hub = Hub::new().await;
    let worker = hub.worker().concurrency(4).register("t", |ctx: Context| async move {
        match ctx.payload::<String>()?.as_str() {
            "panic" => panic!("at the disco"),
            "io" => Err(std::io::Error::other("disk on fire"))?,
            "final" => Err(TaskFailure::new("nope", "never").permanent().details(&json!({"n": 1})))?,
            "large" => return Ok("x".repeat(RESULT_BYTES_MAX)),
            _ => {}
        }
        Ok::<_, TaskFailure>("fine".to_owned())
    });
    let _working = work(worker);
    let mut line = hub.welcome().await;
    let mut check = async |payload: Value, error: Value, retryable: bool| {
        line.run(ID_1, 1, payload.clone()).await;
        let fail = line.next().await;
        let named: serde_json::Map<_, _> =
            error.as_object().unwrap().keys().map(|key| (key.clone(), fail["error"][key].clone())).collect();
        assert_eq!(
            (fail["op"].as_str(), Value::from(named), &fail["retryable"]),
            (Some("fail"), error, &json!(retryable))
        );
        line.ack(ID_1, 1).await;
    };
    check(json!("panic"), json!({"kind": "panic", "message": "at the disco"}), true).await;
    check(json!("io"), json!({"kind": "error", "message": "disk on fire"}), true).await;
    check(json!("final"), json!({"kind": "nope", "message": "never", "details": {"n": 1}}), false).await;
    check(json!("large"), json!({"kind": "result"}), false).await;
    check(json!(5), json!({"kind": "payload"}), false).await;
}

#[tokio::test]
async fn a_cancelled_function_is_dropped_or_ends_by_itself() {
    let hub = Hub::new().await;
    let worker = hub.worker().concurrency(4).register("t", |ctx: Context| async move {
        ctx.log(Level::Info, "begun");
        if ctx.payload::<bool>()? {
            ctx.cancelled().await;
            assert_eq!(ctx.cancel_reason().as_deref(), Some("enough"));
            return Ok::<_, TaskFailure>("what was done");
        }
        std::future::pending().await
    });
    let _working = work(worker);
    let mut line = hub.welcome().await;
    // One that never looks is dropped.
    line.run(ID_1, 1, json!(false)).await;
    line.until("log").await;
    line.cancel(ID_1, "enough").await;
    assert_eq!(line.next().await, json!({"op": "cancelled", "task_id": ID_1, "attempt": 1}));
    line.ack(ID_1, 1).await;
    // One that looks ends as it likes, and what was done counts.
    line.run(ID_2, 1, json!(true)).await;
    line.until("log").await;
    line.cancel(ID_2, "enough").await;
    assert_eq!(line.next().await["result"], "what was done");
    line.ack(ID_2, 1).await;
    // What does not run here is not waited for.
    line.cancel(ID_1, "enough").await;
    assert_eq!(line.next().await["op"], "cancelled");
}

#[tokio::test]
async fn a_hub_that_forgot_its_wish_hears_a_failure() {
    let hub = Hub::new().await;
    let worker = hub.worker().register("t", |ctx: Context| async move {
        ctx.log(Level::Info, "begun");
        std::future::pending::<Result<(), TaskFailure>>().await
    });
    let _working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    line.until("log").await;
    line.cancel(ID_1, "timeout").await;
    assert_eq!(line.next().await["op"], "cancelled");
    line.say(json!({"type": "refused", "task_id": ID_1, "attempt": 1, "code": "cancel_not_requested"})).await;
    let fail = line.next().await;
    assert_eq!((&fail["op"], &fail["error"]["kind"]), (&json!("fail"), &json!("timeout")));
}

#[tokio::test]
async fn what_is_lost_is_dropped_and_not_told() {
    struct OnDrop(Option<oneshot::Sender<()>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.take().expect("dropped once").send(());
        }
    }
    let hub = Hub::new().await;
    let (dropped, was_dropped) = oneshot::channel();
    let dropped = Arc::new(parking_lot::Mutex::new(Some(OnDrop(Some(dropped)))));
    let worker = hub.worker().concurrency(2).register("t", move |ctx: Context| {
        let dropped = dropped.clone();
        async move {
            let _guard = dropped.lock().take();
            ctx.log(Level::Info, "begun");
            // Looking does not help: nothing it does counts any more.
            ctx.cancelled().await;
            std::future::pending::<Result<(), TaskFailure>>().await
        }
    });
    let _working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    line.until("log").await;
    line.close(1006).await;
    let (mut line, hello) = hub.accept().await;
    let held = json!([{"task_id": ID_1, "attempt": 1}]);
    assert_eq!(hello["holding"], held);
    line.say(json!({"type": "welcome", "lease_ms": NEVER_MS, "heartbeat_ms": NEVER_MS, "keep": [], "drop": held}))
        .await;
    tokio::time::timeout(LONG, was_dropped).await.expect("the function is dropped").unwrap();
    line.run(ID_2, 1, json!(null)).await;
    assert_eq!(line.next().await["task_id"], ID_2);
    line.close(1006).await;
    let (_, hello) = hub.accept().await;
    assert_eq!(hello["holding"], json!([{"task_id": ID_2, "attempt": 1}]));
}

/// Regression: an attempt that the hub had ended, and that was dropped for it, was never spoken of again; its slot stayed
/// taken for as long as the worker was connected.
#[tokio::test]
async fn a_hub_that_ended_an_attempt_hears_once_it_is_let_go() {
    let hub = Hub::new().await;
    let worker = hub.worker().concurrency(2).register("t", |ctx: Context| async move {
        ctx.log(Level::Info, "begun");
        ctx.cancelled().await;
        std::future::pending::<Result<(), TaskFailure>>().await
    });
    let _working = work(worker);
    let mut line = hub.welcome().await;
    let let_go = |id: &str, attempt: u32| json!({"op": "cancelled", "task_id": id, "attempt": attempt});
    // It is told to stop, takes its time, and something that it still said is refused.
    line.run(ID_1, 1, json!(null)).await;
    line.until("log").await;
    line.cancel(ID_1, "timeout").await;
    line.say(json!({"type": "refused", "task_id": ID_1, "attempt": 1, "code": "lease_lost"})).await;
    assert_eq!(line.next().await, let_go(ID_1, 1));
    line.say(json!({"type": "refused", "task_id": ID_1, "attempt": 1, "code": "lease_lost"})).await;
    // Or the next attempt of the task comes here too.
    line.run(ID_2, 1, json!(null)).await;
    line.until("log").await;
    line.cancel(ID_2, "silent").await;
    line.run(ID_2, 2, json!(null)).await;
    let (one, two) = (line.next().await, line.next().await);
    let said = if one["op"] == "cancelled" { one } else { two };
    assert_eq!(said, let_go(ID_2, 1));
}

/// Regression: a wait that the hub refuses was said again as it was, and then nothing more of the attempt.
#[tokio::test]
async fn a_wait_that_is_refused_is_cut() {
    let hub = Hub::new().await;
    let worker = hub.worker().register("t", |_: Context| async move {
        Err::<(), _>(TaskFailure { retry_after_ms: Some(u64::MAX), ..TaskFailure::new("busy", "come back") })
    });
    let _working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    line.until("fail").await;
    line.say(json!({"type": "refused", "task_id": ID_1, "attempt": 1, "code": "limit_exceeded"})).await;
    assert_eq!(line.next().await["retry_after_ms"], 30 * 86_400_000_u64);
}

#[tokio::test]
async fn a_worker_that_is_to_stop_finishes_what_it_can_and_gives_the_rest_back() {
    let hub = Hub::new().await;
    let (go, gone) = tokio::sync::watch::channel(false);
    let limit = Duration::from_millis(200);
    let worker = hub.worker().concurrency(4).drain_limit(limit).register("t", move |ctx: Context| {
        let mut gone = gone.clone();
        async move {
            ctx.log(Level::Info, "begun");
            if ctx.payload::<bool>()? {
                let _ = gone.wait_for(|gone| *gone).await;
                return Ok::<_, TaskFailure>(());
            }
            std::future::pending().await
        }
    });
    let mut working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(true)).await;
    line.run(ID_2, 1, json!(false)).await;
    line.until("log").await;
    line.until("log").await;
    working.stop();
    assert_eq!(line.next().await, json!({"op": "drain"}));
    go.send_replace(true);
    assert_eq!(line.next().await["op"], "complete");
    line.ack(ID_1, 1).await;
    // What does not end in time goes back, and so does work that was on its way.
    let late = "0190a0b0-0000-7000-8000-000000000003";
    line.run(late, 1, json!(true)).await;
    let mut released = Vec::new();
    for _ in 0..2 {
        let release = line.next().await;
        assert_eq!(release["op"], "release");
        let id = release["task_id"].as_str().unwrap().to_owned();
        line.ack(&id, 1).await;
        released.push(id);
    }
    released.sort();
    assert_eq!(released, [ID_2, late]);
    assert_eq!(line.try_next().await, None);
    assert_eq!(working.done().await, Ok(()));
}

#[tokio::test]
async fn a_worker_that_stops_while_the_hub_is_away_says_what_it_could_not_tell() {
    let hub = Hub::new().await;
    let worker = hub
        .worker()
        .drain_limit(Duration::ZERO)
        .cancel_grace(LONG)
        .register("t", |_| async { Ok::<_, TaskFailure>(()) });
    let mut working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    assert_eq!(line.next().await["op"], "complete");
    drop(hub);
    line.close(1006).await;
    working.stop();
    assert_eq!(working.done().await, Err(WorkerError::Unheard { attempts: 1 }));
}

/// A hub that goes down asks workers to come back later, so that not all come at once. One that is to stop has no later.
#[tokio::test]
async fn a_worker_that_stops_does_not_wait_to_tell_how_things_ended() {
    let hub = Hub::new().await;
    let mut working = work(hub.worker().register("t", |_| async { Ok::<_, TaskFailure>(()) }));
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    assert_eq!(line.next().await["op"], "complete");
    line.say(json!({"type": "bye", "code": 4001, "retry_ms": [NEVER_MS, NEVER_MS]})).await;
    // Its answer to the goodbye says that it has heard it.
    line.close(4001).await;
    working.stop();
    let mut line = hub.welcome().await;
    assert_eq!(line.until("complete").await["task_id"], ID_1);
    line.ack(ID_1, 1).await;
    assert_eq!(working.done().await, Ok(()));
}

#[tokio::test]
async fn a_replaced_worker_ends() {
    let hub = Hub::new().await;
    let working = work(hub.worker().register("t", |_| async { Ok::<_, TaskFailure>(()) }));
    let mut line = hub.welcome().await;
    line.say(json!({"type": "bye", "code": 4506})).await;
    line.close(4506).await;
    let why = working.done().await.unwrap_err();
    assert!(matches!(why, WorkerError::Refused { code: Some(4506), .. }), "{why}");
}

#[tokio::test]
async fn progress_conflates_and_the_last_report_comes_before_the_end() {
    const REPORTS: u64 = 20_000;
    let hub = Hub::new().await;
    let _working = work(hub.worker().register("t", |ctx: Context| async move {
        for n in 1..=REPORTS {
            ctx.progress(Progress::of(n, REPORTS));
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok::<_, TaskFailure>(())
    }));
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    let mut reports = Vec::new();
    loop {
        let said = line.next().await;
        match said["op"].as_str() {
            Some("progress") => reports.push(said["progress"]["current"].as_u64().unwrap()),
            Some("complete") => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(reports.is_sorted() && reports.len() < 1_000, "{} reports", reports.len());
    assert_eq!(reports.last(), Some(&REPORTS));
}

#[tokio::test]
async fn many_tasks_in_one_text_are_answered_in_few() {
    const TASKS: usize = 500;
    let hub = Hub::new().await;
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = ran.clone();
    let _working = work(hub.worker().concurrency(1_000).register("t", move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, TaskFailure>(()) }
    }));
    let mut line = hub.welcome().await;
    let id = |n: usize| format!("0190a0b0-0000-7000-8000-{n:012}");
    let runs: Vec<_> = (0..TASKS)
        .map(|n| json!({"type": "run", "task": task(&id(n), 1, json!(n)), "attempt": 1}).to_string())
        .collect();
    line.socket.send(Message::text(runs.join("\n"))).await.unwrap();
    line.texts = 0;
    for _ in 0..TASKS {
        assert_eq!(line.next().await["op"], "complete");
    }
    assert_eq!(ran.load(Ordering::Relaxed), TASKS);
    assert!(line.texts <= 50, "{} texts for {TASKS} tasks", line.texts);
}

#[tokio::test]
async fn settings_are_checked_before_anything_is_sent() {
    let check = async |worker: Worker, words: &str| {
        let why = worker.run(std::future::pending()).await.unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
    };
    let registered = |url: &str| Worker::new(url).register("t", |_| async { Ok::<_, TaskFailure>(()) });
    check(registered("ftp://hub"), "it must begin with http").await;
    check(registered("http://hub").id("a b"), "worker_id must be of").await;
    check(registered("http://hub").concurrency(0), "concurrency must be").await;
    check(registered("http://hub").queues(["a*b"]), "queues must be of").await;
    check(Worker::new("http://hub"), "task_types must not be empty").await;
}

// Commands, run by /bin/sh.

fn shell(script: &str) -> CommandSpec {
    CommandSpec {
        env: std::collections::BTreeMap::from([("MARK".into(), "from the file".into())]),
        kill_grace: Duration::from_millis(200),
        ..CommandSpec::new(["/bin/sh", "-c", script].map(str::to_owned).into())
    }
}

/// Whether this process is there, and not only as the record of a dead one.
fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['R', 'S', 'D']))
}
