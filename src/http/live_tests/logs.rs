//! The log of a task: its tail, and then every line.

use futures::future::join_all;

use super::super::live_op::{TaskSubscription, Topic};
use super::super::session::{Carrier, Ending, Session};
use super::*;
use std::sync::Arc;

use crate::access::Principal;
use crate::http::state::open_keys;
use crate::hub::Order;
use crate::task::Filter;

fn line(text: impl ToString) -> (Level, String) {
    (Level::Info, text.to_string())
}

fn session(test: &TestHub) -> Session {
    let config = ServeConfig::for_trial();
    let app =
        App::new(test.hub.clone(), open_keys(), config.door().unwrap(), config.http_limits(), LiveLimits::default());
    Session::new(app.clone(), app.as_caller(Arc::new(Principal::everyone()), None), None)
}

/// The numbers of the lines in these messages.
fn seqs<'l>(messages: impl IntoIterator<Item = &'l Value>) -> Vec<u64> {
    let logs = messages.into_iter().filter(|message| message["type"] == "log");
    logs.flat_map(|log| log["lines"].as_array().unwrap()).map(|line| line["seq"].as_u64().unwrap()).collect()
}

/// A carrier that has a task say lines as soon as `subscribed` is out, and gathers what it is sent.
struct Interrupting {
    hub: Hub,
    task: (TaskId, u32),
    lines_len: u64,
    sent: Vec<Value>,
}

impl Carrier for Interrupting {
    async fn send(&mut self, lines: &mut Vec<bytes::Bytes>) -> Result<(), Ending> {
        for text in lines.drain(..) {
            let message: Value = serde_json::from_slice(&text).unwrap();
            if message["type"] == "subscribed" {
                for n in 0..self.lines_len {
                    self.hub.log(self.task.0, self.task.1, vec![line(n)]).unwrap();
                }
            }
            self.sent.push(message);
        }
        Ok(())
    }
}

/// Regression: the tail was read after `subscribed` was said and cut to its length then, so that lines in between never
/// came. What is logged before is cut to the tail; every line after it comes.
#[tokio::test]
async fn every_line_after_subscribed_is_sent() {
    // (lines before, the tail, lines after `subscribed`, the first that comes)
    for (before, tail, after, first) in [
        (0, 2, 30, 1),
        (5, 2, 30, 4),
        (5, 0, 30, 6),
        (5, 0, 0, 6),
        (5, 100, 3, 1),
        (3, 3, 2_500, 1),
        (100, 10, 5_000, 91),
        (12_000, 10_000, 50, 2_051),
    ] {
        let test = TestHub::start().await;
        test.submit("t").await;
        let task = test.claim().await;
        test.hub.log(task.0, task.1, (0..before).map(line).collect()).unwrap();
        let mut session = session(&test);
        let mut out = Interrupting { hub: test.hub.clone(), task, lines_len: after, sent: Vec::new() };
        let filter = Filter { task_id: Some([task.0].into()), ..Filter::default() };
        let asked = TaskSubscription {
            asked: Arc::new(filter.clone()),
            filter: filter.into(),
            limit: 10,
            order: Order::NewestFirst,
            since: None,
            max_hz: None,
            log_tail: Some(tail),
        };
        session.subscribe(None, "a".into(), Topic::Tasks(asked), &mut out).await.unwrap();
        test.hub.log(task.0, task.1, vec![line("last")]).unwrap();
        let end = before + after + 1;
        while seqs(&out.sent).last() != Some(&end) {
            tokio::time::timeout(PATIENCE, session.ready()).await.expect("the last line comes");
            session.pass_on(&mut out).await.unwrap();
        }
        let expected: Vec<u64> = (first..=end).collect();
        assert_eq!(seqs(&out.sent), expected, "{before} before, a tail of {tail}, {after} after");
    }
}

/// Lines that are no longer kept when the tail is read are said to be missing.
#[tokio::test]
async fn what_was_not_kept_is_said() {
    let test = TestHub::start().await;
    test.submit("t").await;
    let task = test.claim().await;
    let mut session = session(&test);
    let mut out = Interrupting { hub: test.hub.clone(), task, lines_len: 10_250, sent: Vec::new() };
    let filter = Filter { task_id: Some([task.0].into()), ..Filter::default() };
    let (limit, order, log_tail) = (10, Order::NewestFirst, Some(5));
    let filter = Arc::new(filter);
    let asked = TaskSubscription { asked: filter.clone(), filter, limit, order, since: None, max_hz: None, log_tail };
    session.subscribe(None, "a".into(), Topic::Tasks(asked), &mut out).await.unwrap();
    let log = out.sent.iter().find(|message| message["type"] == "log").unwrap();
    assert_eq!((&log["lines"][0]["seq"], &log["lines"][0]["message"]), (&json!(250), &json!("250 lines skipped")));
    assert_eq!(seqs(&out.sent), (250..=10_250).collect::<Vec<_>>());
}

/// Sockets and event streams that come at any moment while a task says lines all the time: each sees its tail, and from
/// there on every line once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_while_lines_come_misses_none() {
    const LINES: u64 = 3_000;
    let test = std::sync::Arc::new(TestHub::start().await);
    test.submit("t").await;
    let task = test.claim().await;
    // Lines that the hub has surely, and lines that it may have.
    let said = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let saying = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let says = {
        let (test, said, saying) = (test.clone(), said.clone(), saying.clone());
        tokio::spawn(async move {
            let mut next = 0;
            while next < LINES {
                let some = fastrand::u64(1..=7).min(LINES - next);
                saying.store(next + some, std::sync::atomic::Ordering::SeqCst);
                test.hub.log(task.0, task.1, (0..some).map(line).collect()).unwrap();
                next += some;
                said.store(next, std::sync::atomic::Ordering::SeqCst);
                // Others have a turn, now and then the disk too.
                match fastrand::u8(..) {
                    0..8 => tokio::time::sleep(Duration::from_millis(1)).await,
                    _ => tokio::task::yield_now().await,
                }
            }
        })
    };
    let readers = (0..24u64).map(|n| {
        let (test, said, saying) = (test.clone(), said.clone(), saying.clone());
        tokio::spawn(async move {
            let begins_at = n * LINES / 24;
            while said.load(std::sync::atomic::Ordering::SeqCst) < begins_at {
                tokio::task::yield_now().await;
            }
            let tail = fastrand::u64(0..20);
            let before = said.load(std::sync::atomic::Ordering::SeqCst);
            let (seqs, at_subscribed) = match n % 2 {
                0 => read_socket(&test, task.0, tail, &saying).await,
                _ => read_events(&test, task.0, tail, &saying).await,
            };
            let first = seqs.first().copied().expect("lines");
            assert!(first + tail > before, "a tail of {tail} after {before} lines began at {first}");
            assert!(first <= at_subscribed + 1, "lines from {} on are due, {first} came first", at_subscribed + 1);
            assert_eq!(seqs, (first..=LINES).collect::<Vec<_>>());
        })
    });
    join_all(readers).await.into_iter().for_each(|reader| reader.unwrap());
    says.await.unwrap();

    async fn read_socket(
        test: &TestHub,
        task_id: TaskId,
        tail: u64,
        saying: &std::sync::atomic::AtomicU64,
    ) -> (Vec<u64>, u64) {
        let mut socket = test.socket().await;
        let filter = json!({"task_id": [task_id]});
        socket.say(json!({"op": "subscribe", "sub": "a", "filter": filter, "logs": {"tail": tail}})).await;
        socket.until("subscribed").await;
        let at_subscribed = saying.load(std::sync::atomic::Ordering::SeqCst);
        let mut got = Vec::new();
        while got.last() != Some(&LINES) {
            got.extend(seqs([&socket.next().await]));
        }
        (got, at_subscribed)
    }

    async fn read_events(
        test: &TestHub,
        task_id: TaskId,
        tail: u64,
        saying: &std::sync::atomic::AtomicU64,
    ) -> (Vec<u64>, u64) {
        let url = format!("http://{}/api/v1/events?task_id={task_id}&logs={tail}", test.address);
        let mut body = reqwest::get(url).await.unwrap();
        let (mut text, mut got, mut at_subscribed) = (String::new(), Vec::new(), None);
        while got.last() != Some(&LINES) {
            let some = tokio::time::timeout(PATIENCE, body.chunk()).await.expect("something comes");
            text.push_str(std::str::from_utf8(&some.unwrap().expect("it does not end")).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or("{}");
                let message: Value = serde_json::from_str(data).unwrap();
                if message["type"] == "subscribed" {
                    at_subscribed = Some(saying.load(std::sync::atomic::Ordering::SeqCst));
                }
                got.extend(seqs([&message]));
                text = rest.to_owned();
            }
        }
        (got, at_subscribed.expect("subscribed comes first"))
    }
}
