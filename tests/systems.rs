//! The five kinds of system that people build themselves before they use a hub. Each test replays what the users of one
//! do, and asks for what that system promised them, or should have.

mod kit;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kit::{PATIENCE, TestHub, eventually, id, in_time, millis};
use serde_json::json;
use taskhub::Hub;
use taskhub::client::{Client, LiveEvent, Subscribe, TaskEvent};
use taskhub::task::{NewTask, Progress, Status, TaskId};
use taskhub::worker::{Context, TaskFailure, Worker};
use tokio::sync::{Notify, Semaphore, oneshot};

/// A worker of the crate, until its handle is dropped.
fn work(worker: Worker) -> tokio_util::task::AbortOnDropHandle<()> {
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        worker.run(std::future::pending()).await.expect("the hub wants this worker");
    }))
}

/// One that counts for as long as it is there, however it ends.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one(count: Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A table of jobs in a database, and a process that looks every few seconds for the next pending row, three at a time.
/// Here rows are picked up at once, never more than three run, each goes pending → running → completed or failed, and a
/// worker that dies leaves nothing in `running` for somebody to repair by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_worker_over_a_table() {
    let hub = TestHub::builder().set(|config| config.grace = millis(200)).start().await;
    let client = Client::new(&hub.url).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let worker = |name: &str| {
        let (now, most, gate) = (now.clone(), most.clone(), gate.clone());
        Worker::new(&hub.url).id(name).concurrency(3).register("convert", move |ctx: Context| {
            let (now, most, gate) = (now.clone(), most.clone(), gate.clone());
            async move {
                let row: u64 = ctx.payload()?;
                let running = Counted::one(now);
                most.fetch_max(running.now(), Ordering::SeqCst);
                gate.acquire().await.expect("the gate stays open").forget();
                drop(running);
                match row % 5 {
                    4 => Err(TaskFailure::new("bad_row", format!("row {row} cannot be converted"))),
                    _ => Ok(row * 10),
                }
            }
        })
    };
    let first = work(worker("first"));
    eventually("the worker is there", async || (!client.workers().await.unwrap().is_empty()).then_some(())).await;

    let begun = Instant::now();
    let rows: Vec<NewTask> = (0..10).map(|row: u64| NewTask::new("convert").payload(&row).unwrap()).collect();
    let rows = client.submit_batch(&rows, None).await.unwrap();
    assert!(rows.iter().all(|row| row.attempt == 0));
    eventually("three run", async || (now.load(Ordering::SeqCst) == 3).then_some(())).await;
    assert!(begun.elapsed() < millis(1_000), "picked up after {:?}", begun.elapsed());
    let stats = client.stats().await.unwrap().tasks;
    assert_eq!((stats.running, stats.pending), (3, 7));

    // The process dies with three rows in its hands; another takes over, and nobody repairs anything.
    drop(first);
    eventually("its three have stopped", async || (now.load(Ordering::SeqCst) == 0).then_some(())).await;
    let _second = work(worker("second"));
    gate.add_permits(10);
    for (at, row) in rows.iter().enumerate() {
        let row = in_time("every row ends", client.wait(row.task_id)).await.unwrap();
        match at % 5 {
            4 => assert_eq!(row.error.unwrap().kind, "bad_row"),
            _ => assert_eq!(row.result.unwrap().to::<usize>().unwrap(), at * 10),
        }
        assert_eq!((row.crashes, row.attempt), if at < 3 { (1, 2) } else { (0, 1) }, "row {at}");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let events = hub.events(&rows[9].task_id.to_string()).await;
    assert_eq!(events, ["created", "running", "failed"]);
}

/// A dictionary of tasks in the web process: each user sees their own, filtered by state; a task moves through named steps
/// that the page polls for; and what ended a day ago is cleaned up. Here the page is told, others' tasks stay out of the
/// picture, and the day is the default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_task_manager() {
    assert_eq!(taskhub::config::ServeConfig::default().retain, Duration::from_secs(24 * 3_600));
    let hub = TestHub::builder().set(|config| config.retain = millis(1_000)).start().await;
    let client = Client::new(&hub.url).unwrap();
    const STEPS: [&str; 4] = ["upload", "parse", "embed", "index"];
    let go = Arc::new(Semaphore::new(0));
    let handler_go = go.clone();
    let _worker = work(Worker::new(&hub.url).concurrency(4).register("import", move |ctx: Context| {
        let go = handler_go.clone();
        async move {
            for (at, step) in STEPS.into_iter().enumerate() {
                ctx.progress(Progress { step: Some(step.into()), ..Progress::of(at as u64, 4) });
                go.acquire().await.expect("never closed").forget();
            }
            Ok::<_, TaskFailure>("indexed")
        }
    }));

    let mut live = client.live();
    let mine = live.subscribe(Subscribe {
        filter: serde_json::from_value(json!({"user_id": ["ada"]})).unwrap(),
        ..Subscribe::default()
    });
    let submit = async |user: &str, title: &str| {
        id(&hub.submit(json!({"task_type": "import", "user_id": user, "title": title})).await)
    };
    let adas = submit("ada", "ada's file").await;
    let bobs = submit("bob", "bob's file").await;

    // One step of each at a time, so that no tick replaces another before the page has seen it.
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    let told = async {
        while let Some(event) = live.next().await {
            let LiveEvent::Of(sub, event) = event else { continue };
            assert_eq!(sub, mine);
            let tasks = match event {
                TaskEvent::Snapshot { tasks, .. } => tasks,
                TaskEvent::Task { task, .. } | TaskEvent::Progress { task } => vec![task],
                _ => continue,
            };
            for task in tasks {
                seen.insert(task.user_id.clone().unwrap().as_str().to_owned());
                let step = task.progress.as_ref().and_then(|progress| progress.step.clone());
                if step.is_some() && step != steps.last().cloned().flatten() {
                    steps.push(step);
                    go.add_permits(2);
                }
                if task.status == Status::Completed {
                    return;
                }
            }
        }
    };
    in_time("ada's page sees the end", told).await;
    assert_eq!(steps.into_iter().flatten().collect::<Vec<_>>(), STEPS);
    assert_eq!(seen, BTreeSet::from(["ada".to_owned()]), "nobody else's tasks");
    go.add_permits(100);
    hub.finished(&bobs).await;

    let of = async |query: &str| {
        let list = hub.get(&format!("/api/v1/tasks?{query}")).await.expect(200);
        list["tasks"].as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(of("user_id=ada").await, std::slice::from_ref(&adas));
    assert_eq!(of("user_id=ada&status=running,pending").await, Vec::<String>::new());
    assert_eq!(of("user_id=bob&status=completed").await, [bobs]);
    eventually("what ended is cleaned up", async || of("").await.is_empty().then_some(())).await;
    assert_eq!(hub.get(&format!("/api/v1/tasks/{adas}")).await.status, 404);
}

/// Workers on a broker, TaskIQ on NATS and its like: one stage puts the next task on the queue, progress goes out every ten
/// items, results are looked up by id. Here a stage submits under a key made of its own id, so that a stage that runs twice
/// does not start the next one twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_with_chained_workers() {
    let hub = TestHub::start().await;
    let client = Client::new(&hub.url).unwrap();
    let stage = |next: Option<&'static str>, client: Client| {
        move |ctx: Context| {
            let client = client.clone();
            async move {
                let mut items: Vec<u64> = ctx.payload()?;
                let total = items.len() as u64;
                for (at, item) in items.iter_mut().enumerate() {
                    *item += 1;
                    if (at + 1) % 10 == 0 {
                        ctx.progress(Progress::of(at as u64 + 1, total));
                        tokio::task::yield_now().await;
                    }
                }
                let Some(next) = next else { return Ok::<_, TaskFailure>(json!({"sum": items.iter().sum::<u64>()})) };
                let task =
                    NewTask { parent_id: Some(ctx.task().task_id), queue: Some(next.into()), ..NewTask::new(next) };
                let task = task.payload(&items)?;
                let key = format!("{}:{next}", ctx.task().task_id);
                let first = client.submit_once(&task, &key).await?;
                let again = client.submit_once(&task, &key).await?;
                assert_eq!(first.task_id, again.task_id, "a stage that runs twice starts the next one once");
                Ok(json!({"next": first.task_id}))
            }
        }
    };
    let _fetch = work(Worker::new(&hub.url).queues(["fetch"]).register("fetch", stage(Some("parse"), client.clone())));
    let _parse = work(Worker::new(&hub.url).queues(["parse"]).register("parse", stage(Some("store"), client.clone())));
    let _store = work(Worker::new(&hub.url).queues(["store"]).register("store", stage(None, client.clone())));

    let items: Vec<u64> = (0..100).collect();
    let new = NewTask { queue: Some("fetch".into()), ..NewTask::new("fetch") }.payload(&items).unwrap();
    let mut task = client.submit(&new).await.unwrap();
    let chain = [("fetch", true), ("parse", true), ("store", false)];
    for (task_type, has_next) in chain {
        let done = in_time(task_type, client.wait(task.task_id)).await.unwrap();
        assert_eq!((done.status, done.task_type.as_str()), (Status::Completed, task_type), "{:?}", done.error);
        let progress = done.progress.unwrap();
        assert_eq!((progress.current, progress.total, progress.percentage), (Some(100.0), Some(100.0), Some(100.0)));
        let result: serde_json::Value = done.result.unwrap().to().unwrap();
        if has_next {
            let next: TaskId = serde_json::from_value(result["next"].clone()).unwrap();
            let parent = std::mem::replace(&mut task, client.get(next).await.unwrap());
            assert_eq!(task.parent_id, Some(parent.task_id));
        } else {
            assert_eq!(result, json!({"sum": 99 * 100 / 2 + 300}));
        }
    }
    assert_eq!(client.stats().await.unwrap().tasks.completed, 3);
}

/// A manager object in the program: start a coroutine and forget it, ask whether it is still active, cancel it, wait for
/// one or for all, and wait for the rest when the program ends. Here what was not done is still there after the restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_process_fire_and_forget_manager() {
    let folder = tempfile::tempdir().unwrap();
    let release = Arc::new(Notify::new());
    let open = async || {
        let release = release.clone();
        Hub::builder()
            .data(folder.path())
            .concurrency(8)
            .register("double", |ctx: Context| async move { Ok::<_, TaskFailure>(ctx.payload::<u64>()? * 2) })
            .register("fail", |_: Context| async move { Err::<(), _>(TaskFailure::new("x", "as asked")) })
            .register("panic", |_: Context| async move {
                assert!(std::hint::black_box(false), "a bug");
                Ok::<_, TaskFailure>(())
            })
            .register("until-cancelled", |ctx: Context| async move {
                ctx.cancelled().await;
                Err::<(), _>(TaskFailure::new("cancelled", "as asked"))
            })
            .register("until-released", move |ctx: Context| {
                let release = release.clone();
                async move {
                    ctx.progress(Progress::percent(50.0));
                    release.notified().await;
                    Ok::<_, TaskFailure>("released")
                }
            })
            .open()
            .await
            .unwrap()
    };
    let hub = open().await;
    let submit = async |hub: &Hub, task_type: &str| hub.submit(NewTask::new(task_type)).await.unwrap();

    let doubled = hub.submit(NewTask::new("double").payload(&21).unwrap()).await.unwrap();
    let (failed, panicked) = (submit(&hub, "fail").await, submit(&hub, "panic").await);
    let all = in_time("all end", hub.wait_all(&[doubled, failed, panicked])).await.unwrap();
    let ends: Vec<Status> = all.iter().map(|task| task.as_ref().unwrap().status).collect();
    assert_eq!(ends, [Status::Completed, Status::Failed, Status::Failed]);
    assert_eq!(all[0].as_ref().unwrap().result.as_ref().unwrap().to::<u64>().unwrap(), 42);
    assert_eq!(all[2].as_ref().unwrap().error.as_ref().unwrap().kind, "panic", "a bug in one is no bug in another");
    assert_eq!((hub.active(), hub.is_active(doubled)), (0, false));

    let stubborn = submit(&hub, "until-cancelled").await;
    eventually("it runs", async || (hub.get(stubborn).await.unwrap().unwrap().status == Status::Running).then_some(()))
        .await;
    assert!(hub.is_active(stubborn) && hub.active() == 1);
    hub.cancel(stubborn).await.unwrap();
    let task = in_time("it stops", hub.wait(stubborn)).await.unwrap().unwrap();
    assert_eq!(task.status, Status::Cancelled);

    // The program ends while something runs: it may finish, within the drain.
    let (kept, finishing) = (submit(&hub, "nobody-knows-this").await, submit(&hub, "until-released").await);
    eventually("it is half way", async || {
        let task = hub.get(finishing).await.unwrap().unwrap();
        task.progress.is_some().then_some(())
    })
    .await;
    let ending = hub.shutdown(PATIENCE);
    tokio::join!(in_time("the drain ends with the last task", ending), async {
        eventually("no new work", async || hub.submit(NewTask::new("double")).await.is_err().then_some(())).await;
        release.notify_one();
    });

    let hub = open().await;
    let task = hub.get(finishing).await.unwrap().unwrap();
    assert_eq!((task.status, task.result.unwrap().as_str()), (Status::Completed, r#""released""#));
    assert!(hub.is_active(kept), "what nobody ran is still there");
    let cut_off = submit(&hub, "until-released").await;
    eventually("it runs", async || (hub.get(cut_off).await.unwrap().unwrap().status == Status::Running).then_some(()))
        .await;
    in_time("a short drain is short", hub.shutdown(millis(50))).await;
    let hub = open().await;
    eventually("it runs again", async || (hub.get(cut_off).await.unwrap().unwrap().attempt == 2).then_some(())).await;
    release.notify_one();
    assert_eq!(in_time("it ends", hub.wait(cut_off)).await.unwrap().unwrap().crashes, 0);
    in_time("the hub ends", hub.shutdown(Duration::ZERO)).await;
}

/// A thread pool in the web server and an endpoint that says "not yet" until there is a result. Here the pool is a worker
/// with blocking threads; the endpoint says the same, or waits; and a restart of the server loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thread_pool_with_a_result_endpoint() {
    const POOL: u32 = 4;
    let mut hub = TestHub::builder().on_disk().set(|config| config.grace = millis(5_000)).start().await;
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, counted) = (busy.clone(), most.clone());
    let pool = Worker::new(&hub.url).id("pool").concurrency(POOL).register("primes", move |ctx: Context| {
        let (busy, most) = (counting.clone(), counted.clone());
        async move {
            let below: u64 = ctx.payload()?;
            let (done, count) = oneshot::channel();
            std::thread::spawn(move || {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let count = (2..below).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count();
                busy.fetch_sub(1, Ordering::SeqCst);
                let _ = done.send(count);
            });
            Ok::<_, TaskFailure>(count.await?)
        }
    });

    let tasks: Vec<_> = (0..12).map(|n| json!({"task_type": "primes", "payload": 1_000 * (n + 1)})).collect();
    let made = hub.post("/api/v1/tasks/batch", json!({"tasks": tasks})).await.expect(201);
    let ids: Vec<String> = made["tasks"].as_array().unwrap().iter().map(id).collect();
    let endpoint = |task_id: &str, wait: &str| format!("/api/v1/tasks/{task_id}/result{wait}");
    assert_eq!(hub.get(&endpoint(&ids[11], "")).await.problem(), "409 task_not_finished");

    let _pool = work(pool);
    // The server is restarted in the middle; whoever asks afterwards gets the answer all the same.
    hub.once(&ids[0], "completed").await;
    hub.restart().await;
    let known = [168, 303, 430, 550, 669, 783, 900, 1007, 1117, 1229, 1335, 1438];
    for (task_id, expected) in ids.iter().zip(known) {
        let result = hub.get(&endpoint(task_id, "?wait_ms=20000")).await.expect(200);
        assert_eq!((&result["status"], &result["result"]), (&json!("completed"), &json!(expected)));
    }
    assert!(most.load(Ordering::SeqCst) as u32 <= POOL, "{most:?} threads at once");
    assert_eq!(hub.get(&endpoint(&ids[0], "")).await.expect(200)["result"], 168, "as often as it is asked for");
}
