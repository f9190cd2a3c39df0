//! A hub whose disk does not keep up: who is turned away, who waits, and who does not notice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::state::open_keys;
use super::{App, router};
use crate::config::ServeConfig;
use crate::hub::{Accepts, Hub, HubError, LogRange, Missed, Pushed, Refusal, Report, Until};
use crate::store::gated::{Gate, Gated};
use crate::store::{Order, Query};
use crate::task::{Cancel, Filter, Json, Level, Name, NewTask, PatternSet, Status, Task, TaskId};

/// The bound of a test that hangs. Nothing should take as long.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// Regression: a list, a log and each snapshot had the whole view settled: work for the one thread that everybody shares,
/// and nothing was read where the disk took no writes.
#[tokio::test]
async fn reads_need_nothing_from_the_writer() {
    let config = ServeConfig::for_trial();
    let gate = Arc::new(Gate::default());
    let store = Gated(crate::store::in_memory().unwrap(), gate.clone());
    let hub = Hub::start(Box::new(store), config.hub_options()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(hub.submit_all(vec![NewTask::new("t")], None).await.unwrap().task_ids[0]);
    }
    hub.cancel_task(ids[0], None).await.unwrap();
    hub.cancel_task(ids[1], None).await.unwrap();
    hub.delete_task(ids[1]).await.unwrap();
    let query = |named: &[TaskId], status: Option<Status>| Query {
        filter: Filter {
            task_id: Some(named.iter().copied().collect()),
            status: status.map(|status| [status].into()),
            ..Filter::default()
        },
        text: None,
        created_after: None,
        created_before: None,
        order: Order::NewestFirst,
        beyond: None,
        limit: 10,
    };
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    hub.claim(Name::new("w"), accepts, 1, PATIENCE).await.unwrap();
    // All of it settles, so that the first is no longer on the board.
    let settled = async {
        while hub.shown(ids[0]).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("the store settles");
    hub.cancel_task(ids[3], None).await.unwrap();
    hub.log(ids[2], 1, vec![(Level::Info, "said".into())]).unwrap();
    let rev = hub.rev();

    gate.set(true);
    let mut submitted = Box::pin(hub.submit_all(vec![NewTask::new("t")], None));
    assert!(submitted.as_mut().now_or_never().is_none());
    let stuck = gate.clone();
    tokio::task::spawn_blocking(move || stuck.until_stuck()).await.unwrap();
    let check = async |query: Query, expected: &[usize], more: bool| {
        let page = tokio::time::timeout(PATIENCE, hub.find(query)).await.expect("nothing settles").unwrap();
        let found: Vec<TaskId> = page.tasks.iter().map(|(id, _)| *id).collect();
        assert_eq!((found, page.more), (expected.iter().map(|at| ids[*at]).collect(), more));
        for (id, record) in &page.tasks {
            assert_eq!(Task::parse(record).unwrap().task_id, *id);
        }
    };
    let unnamed = |status: Option<Status>| Query {
        filter: Filter { task_id: None, ..query(&[], status).filter },
        ..query(&[], None)
    };
    check(unnamed(None), &[3, 2, 0], false).await;
    check(unnamed(Some(Status::Cancelled)), &[3, 0], false).await;
    check(Query { limit: 1, beyond: Some(ids[3]), ..unnamed(None) }, &[2], true).await;
    check(Query { order: Order::OldestFirst, text: Some("T".into()), ..unnamed(None) }, &[0, 2, 3], false).await;
    let lines = hub.logs(ids[2], LogRange::Tail(5)).await.unwrap().expect("a task");
    assert_eq!(lines.iter().map(|line| (line.seq, &*line.message)).collect::<Vec<_>>(), [(1, "said")]);
    assert_eq!(hub.history(ids[3]).await.unwrap().map(|steps| steps.len()), Some(2));
    match &*hub.missed_since(rev - 1).await.unwrap() {
        Missed::Known { tasks, rev: up_to, more } => {
            let told: Vec<_> = tasks.iter().map(|missed| missed.task.task_id).collect();
            assert_eq!((told, *up_to, *more), (vec![ids[3]], rev, false));
        }
        Missed::TooOld => panic!("the newest change is known"),
    }
    check(query(&ids, None), &[3, 2, 0], false).await;
    check(query(&ids[3..], None), &[3], false).await;
    check(query(&ids[..1], None), &[0], false).await;
    check(query(&ids[1..2], None), &[], false).await;
    check(query(&ids, Some(Status::Cancelled)), &[3, 0], false).await;
    check(query(&ids, Some(Status::Running)), &[2], false).await;
    check(Query { order: Order::OldestFirst, ..query(&ids, None) }, &[0, 2, 3], false).await;
    check(Query { limit: 2, ..query(&ids, None) }, &[3, 2], true).await;
    check(Query { beyond: Some(ids[2]), ..query(&ids, None) }, &[0], false).await;
    check(Query { beyond: Some(ids[0]), order: Order::OldestFirst, limit: 2, ..query(&ids, None) }, &[2, 3], false)
        .await;
    gate.set(false);
    submitted.await.unwrap();
    hub.stop().await;
}

#[tokio::test]
async fn what_workers_say_waits_or_is_turned_away_while_the_disk_does_not_keep_up() {
    // All of it was taken, at a MiB a word, for as long as the disk hung.
    let config = ServeConfig::for_trial();
    let gate = Arc::new(Gate::default());
    let store = Gated(crate::store::in_memory().unwrap(), gate.clone());
    let hub = Hub::start(Box::new(store), config.hub_options()).unwrap();
    let app = App::new(hub.clone(), open_keys(), config.door().unwrap(), config.http_limits(), config.live_limits());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(app)).await });

    let task_id = hub.submit_all(vec![NewTask::new("t")], None).await.unwrap().task_ids[0];
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    hub.claim(Name::new("w"), accepts, 1, PATIENCE).await.unwrap();
    let mut request = format!("ws://{address}/api/v1/worker/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "taskhub.worker.v1".parse().unwrap());
    let (mut worker, _) = connect_async(request).await.unwrap();
    let hello = json!({"op": "hello", "worker_id": "socket", "task_types": ["none"]});
    worker.send(Message::text(hello.to_string())).await.unwrap();
    assert!(worker.next().await.unwrap().unwrap().to_text().unwrap().contains("welcome"));

    gate.set(true);
    let mut submitted = Box::pin(hub.submit_all(vec![NewTask::new("none")], None));
    assert!(submitted.as_mut().now_or_never().is_none());
    let stuck = gate.clone();
    tokio::task::spawn_blocking(move || stuck.until_stuck()).await.unwrap();

    // Over HTTP: so much waits for its answer, the rest is told to come again.
    let result = Json::of(&"x".repeat(MIB - 2)).unwrap();
    let (mut waiting, mut turned_away) = (Vec::new(), 0);
    for _ in 0..80 {
        let mut report = Box::pin(hub.report(task_id, 9, Report::Complete { result: result.clone() }));
        match report.as_mut().now_or_never() {
            None => waiting.push(report),
            Some(Err(HubError::Overloaded)) => turned_away += 1,
            Some(other) => panic!("answered by {other:?}, and nothing was written"),
        }
    }
    assert_eq!((waiting.len(), turned_away), (63, 17));
    // The room that is left takes what is small.
    let checkpoint = Json::of(&"x".repeat(60_000)).unwrap();
    while hub.progress(task_id, 1, None, Some(checkpoint.clone())).now_or_never().is_none() {}
    let path = format!("http://{address}/api/v1/tasks/{task_id}/attempts/1/progress");
    let body = json!({"checkpoint": "x".repeat(60_000)});
    crate::dial::agree_in_tests();
    let answer = reqwest::Client::new().post(path).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "overloaded");
    // Log lines have a bound of their own, and no more of a task's than are kept: a flood of them keeps nothing out.
    for _ in 0..10 {
        hub.log(task_id, 1, vec![Default::default(); 40_000]).unwrap();
    }
    assert_eq!(hub.logs(task_id, LogRange::Tail(1)).await.unwrap().expect("a task")[0].seq, 400_000);
    // New work has a bound of its own, and who only looks is answered.
    let mut more = Box::pin(hub.submit_all(vec![NewTask::new("none")], None));
    assert!(more.as_mut().now_or_never().is_none());
    crate::dial::agree_in_tests();
    assert!(reqwest::get(format!("http://{address}/api/v1/stats")).await.unwrap().status().is_success());

    // On a socket: it is not read, and so the worker cannot go on, however much it would say.
    let word = json!({"op": "complete", "task_id": task_id, "attempt": 9, "result": "y".repeat(MIB - 2)}).to_string();
    let (mut says, mut hears) = worker.split();
    let mut said = 0;
    while said < 64 {
        says.feed(Message::text(word.clone())).await.unwrap();
        said += 1;
        if tokio::time::timeout(Duration::from_millis(500), says.flush()).await.is_err() {
            break;
        }
    }
    assert!(said < 64, "all of it was read");

    gate.set(false);
    for report in waiting {
        assert_eq!(report.await.unwrap_err(), HubError::Refused(Refusal::LeaseLost));
    }
    submitted.await.unwrap();
    more.await.unwrap();
    let mut answers = 0;
    let hear_all = async {
        while answers < said {
            let message = hears.next().await.expect("the socket stays").unwrap();
            answers += message.to_text().unwrap().matches("lease_lost").count();
        }
    };
    let both = futures::future::join(says.flush(), hear_all);
    tokio::time::timeout(PATIENCE, both).await.expect("the socket is read again, and answered").0.unwrap();
    hub.stop().await;
}

#[tokio::test]
async fn what_a_broken_store_left_is_written_in_commits_of_a_bounded_size() {
    // All that had gathered while the disk was full went into the one commit after it.
    const TASKS: usize = 48;
    let config = ServeConfig::for_trial();
    let gate = Arc::new(Gate::default());
    let store = Gated(crate::store::in_memory().unwrap(), gate.clone());
    let hub = Hub::start(Box::new(store), config.hub_options()).unwrap();
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    let attached = hub.attach_worker(Name::new("w"), accepts, TASKS as u32, None).await;
    let mut link = attached.unwrap_or_else(|error| panic!("{error}")).link;
    hub.submit_all(vec![NewTask::new("t"); TASKS], None).await.unwrap();
    let mut pushed = Vec::new();
    while pushed.len() < TASKS {
        tokio::time::timeout(PATIENCE, link.next(&mut pushed)).await.expect("all of them are handed out").unwrap();
    }
    gate.broken.store(true, Ordering::SeqCst);
    let result = Json::of(&"x".repeat(MIB - 2)).unwrap();
    for push in pushed.drain(..) {
        let Pushed::Run(given) = push else { panic!("{push:?} instead of a task") };
        link.report(given.task.task_id, 1, Report::Complete { result: result.clone() });
    }
    // When this is answered, every report before it has been tried.
    let refused = hub.submit_all(vec![NewTask::new("t")], None).await;
    assert_eq!(refused.unwrap_err(), HubError::StorageUnavailable);
    assert!(hub.storage().is_err() && pushed.is_empty());
    gate.broken.store(false, Ordering::SeqCst);
    while pushed.len() < TASKS {
        tokio::time::timeout(PATIENCE, link.next(&mut pushed)).await.expect("all of them are acknowledged").unwrap();
    }
    assert!(pushed.iter().all(|push| matches!(push, Pushed::Ack { .. })), "{pushed:?}");
    let largest = gate.largest.load(Ordering::SeqCst);
    assert!(largest <= 8 * MIB, "{largest} bytes in one commit");
    hub.stop().await;
}

/// Regression: that a worker was told to stop was lost where the store did not take it, and never said again.
#[tokio::test]
async fn that_a_worker_was_told_to_stop_is_written_once_the_store_takes_it() {
    let gate = Arc::new(Gate::default());
    let store = Gated(crate::store::in_memory().unwrap(), gate.clone());
    let hub = Hub::start(Box::new(store), ServeConfig::for_trial().hub_options()).unwrap();
    let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
    let attached = hub.attach_worker(Name::new("w"), accepts, 1, None).await;
    let mut link = attached.unwrap_or_else(|error| panic!("{error}")).link;
    let task_id = hub.submit(NewTask::new("t")).await.unwrap();
    let mut pushed = Vec::new();
    tokio::time::timeout(PATIENCE, link.next(&mut pushed)).await.expect("it is handed out").unwrap();
    hub.cancel(task_id).await.unwrap();
    gate.broken.store(true, Ordering::SeqCst);
    link.told_to_stop(task_id, 1);
    // When this is answered, what was said before has been tried.
    let refused = hub.submit_all(vec![NewTask::new("t")], None).await;
    assert_eq!(refused.unwrap_err(), HubError::StorageUnavailable);
    gate.broken.store(false, Ordering::SeqCst);
    let rev = hub.shown(task_id).unwrap().rev;
    let told = hub.wait_for(task_id, Until::RevAbove(rev), PATIENCE).await.unwrap().unwrap().view();
    assert_eq!((told.status, told.cancel), (Status::Running, Some(Cancel::Delivered)));
    hub.stop().await;
}
