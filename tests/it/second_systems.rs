//! What people keep a second system for, beside their queue: each played through on a hub that is killed in the middle, and
//! asked for in each of the ways there are, by REST, by command, and in Rust.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use taskhub::client::Client;
use taskhub::settings::{FairBy, Overlap, QueueSettings, ScheduleSpec};
use taskhub::task::{
    NewGather, NewTask, NewWorkflow, OnConflict, OnDependencyFailure, OnFailure, Status, TaskId, Timestamp,
};
use taskhub::worker::{Context, TaskFailure, Worker};
use tokio_util::task::AbortOnDropHandle;

use crate::browser::Browser;
use crate::kit::{HubProcess, eventually, id, program};

/// How something is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Rest,
    Command,
    Rust,
}

const WAYS: [Way; 3] = [Way::Rest, Way::Command, Way::Rust];

/// A hub that is killed now and then, and comes back where it was.
struct Hub {
    process: Option<HubProcess>,
    folder: tempfile::TempDir,
    url: String,
    client: Client,
    http: reqwest::Client,
}

impl Hub {
    const OPTIONS: [&str; 4] = ["--lease", "1500ms", "--grace", "1s"];

    fn start() -> Hub {
        let folder = tempfile::tempdir().unwrap();
        let process = HubProcess::start(folder.path(), Hub::OPTIONS);
        let (url, http) = (process.url.clone(), reqwest::Client::builder().no_proxy().build().unwrap());
        let client = Client::new(&url).unwrap();
        Hub { process: Some(process), folder, url, client, http }
    }

    fn kill(&mut self) {
        let mut killed = self.process.take().expect("it runs");
        killed.program.kill();
        self.process = Some(HubProcess::start_at(killed.address(), self.folder.path(), Hub::OPTIONS));
    }

    /// What a call is answered with; one of these statuses is expected.
    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let ask = async || {
            let method = method.parse().expect("a method");
            let answer =
                self.http.request(method, format!("{}/api/v1/{path}", self.url)).json(body).send().await.ok()?;
            let status = answer.status();
            let text = answer.text().await.ok()?;
            assert!(status.is_success(), "{method} {path}: {status} {text}", method = "call");
            Some(serde_json::from_str(&text).unwrap_or_default())
        };
        eventually("the hub answers", ask).await
    }

    /// What a command prints.
    fn command(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = program().args(&args).env("TASKHUB_URL", &self.url).output().expect("the program runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{args:?}: {why}: {output:?}"))
    }

    async fn task(&self, task_id: TaskId) -> taskhub::task::TaskView {
        eventually("the hub answers", async || self.client.get(task_id).await.ok()).await
    }

    async fn finished(&self, task_id: TaskId) -> taskhub::task::TaskView {
        eventually("it is final", async || {
            let task = self.client.wait_ms(task_id, 5_000).await.ok()?;
            task.status.is_final().then_some(task)
        })
        .await
    }
}

fn work(worker: Worker) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        worker.run(std::future::pending()).await.expect("the hub wants this worker");
    }))
}

fn task_id(task: &Value) -> TaskId {
    id(task).parse().expect("an id")
}

/// A cron daemon. Here the times are those of a zone, also in the nights in which its clocks are changed, and known ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nightly_report() {
    let mut hub = Hub::start();
    let start_at = "2027-03-27T00:00:00Z";
    let task = json!({"task_type": "report", "payload": {"of": "yesterday"}});
    for way in WAYS {
        let name = format!("{way:?}").to_lowercase();
        match way {
            Way::Rest => {
                let body = json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "overlap": "skip",
                    "start_at": start_at, "task": task});
                hub.call("PUT", &format!("schedules/{name}"), &body).await;
            }
            Way::Command => {
                let when = ["--cron", "30 2 * * *", "--time-zone", "Europe/Berlin", "--overlap", "skip"];
                let what = ["schedule", "set", &name, "report", r#"{"of":"yesterday"}"#, "--start-at", start_at];
                hub.command(&[&what[..], &when].concat());
            }
            Way::Rust => {
                let report = NewTask::new("report").payload(&json!({"of": "yesterday"})).unwrap();
                let nightly = ScheduleSpec {
                    start_at: Some(Timestamp::parse(start_at).unwrap()),
                    ..ScheduleSpec::new(report).cron("30 2 * * *").time_zone("Europe/Berlin").overlap(Overlap::Skip)
                };
                hub.client.set_schedule(&name, &nightly).await.unwrap();
            }
        }
    }
    hub.kill();
    let schedules = hub.client.schedules().await.unwrap();
    assert_eq!(schedules.len(), WAYS.len());
    for schedule in &schedules {
        // On the 28th half past two is left out, and the report is made when the clocks go on.
        let next: Vec<String> = schedule.next.iter().map(Timestamp::to_string).collect();
        let expected = ["03-27T01:30", "03-28T01:00", "03-29T00:30", "03-30T00:30", "03-31T00:30"];
        assert_eq!(next, expected.map(|time| format!("2027-{time}:00.000Z")), "{}", schedule.name);
    }
    let _worker = work(Worker::new(&hub.url).register("report", |ctx: Context| async move {
        let payload: Value = ctx.payload()?;
        Ok::<_, TaskFailure>(payload["of"].clone())
    }));
    let now = hub.client.run_schedule("rust").await.unwrap();
    hub.kill();
    let report = hub.finished(now.task_id).await;
    assert_eq!(report.result.expect("a result").as_str(), r#""yesterday""#);
}

const FILES: u64 = 200;
const BROKEN: [u64; 2] = [17, 150];

/// A canvas over a broker. Here the summary has every result there is, knows which are missing, and a person sees it go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_and_a_summary_though_two_fail() {
    let mut hub = Hub::start();
    let parsed = Arc::new(AtomicUsize::new(0));
    let counted = parsed.clone();
    let worker = Worker::new(&hub.url).concurrency(4).register("parse", move |ctx: Context| {
        let counted = counted.clone();
        async move {
            let file: u64 = ctx.payload()?;
            tokio::time::sleep(Duration::from_millis(10)).await;
            counted.fetch_add(1, Ordering::SeqCst);
            match BROKEN.contains(&file) {
                true => Err(TaskFailure::new("parse", format!("file {file} is broken"))),
                false => Ok(file),
            }
        }
    });
    let worker = worker.register("summary", |ctx: Context| async move {
        let files: Vec<Option<u64>> = ctx.payload()?;
        let missing: Vec<usize> = (0..files.len()).filter(|at| files[*at].is_none()).collect();
        Ok::<_, TaskFailure>(json!({"sum": files.iter().flatten().sum::<u64>(), "missing": missing}))
    });
    let _worker = work(worker);

    let files: Vec<Value> = (0..FILES).map(|file| json!({"task_type": "parse", "payload": file})).collect();
    let then = json!({"task_type": "summary", "payload": {"$result": "@group"}, "on_dependency_failure": "run"});
    let body = json!({"title": "All files", "on_failure": "finish", "chord": {"group": files, "then": then}});
    let mut page = Browser::start().await.open(&hub.url).await;
    page.until("document.querySelector('#connection')?.innerText === 'Live'").await;
    for way in WAYS {
        let before = parsed.load(Ordering::SeqCst);
        let workflow_id = match way {
            Way::Rest => task_id(&hub.call("POST", "workflows", &body).await["workflow"]),
            Way::Command => {
                let file = hub.folder.path().join("workflow.json");
                std::fs::write(&file, body.to_string()).unwrap();
                task_id(&hub.command(&["workflow", "submit", &format!("@{}", file.display())])["workflow"])
            }
            Way::Rust => {
                let files =
                    (0..FILES).map(|file| NewTask::new("parse").payload(&file)).collect::<Result<_, _>>().unwrap();
                let then = NewTask::new("summary").payload(&json!({"$result": "@group"})).unwrap();
                let then = then.on_dependency_failure(OnDependencyFailure::Run);
                let workflow = NewWorkflow::chord("All files", files, then).on_failure(OnFailure::Finish);
                hub.client.submit_workflow(&workflow, None).await.unwrap().workflow.task_id
            }
        };
        if way == Way::Rest {
            page.look(&format!("location.hash = '#/task/{workflow_id}', 0")).await;
            page.until("document.body.innerText.includes(' of 201 ended')").await;
        }
        eventually("some are parsed", async || (parsed.load(Ordering::SeqCst) > before + 40).then_some(())).await;
        hub.kill();
        let workflow = hub.finished(workflow_id).await;
        assert_eq!(workflow.status, Status::Failed, "{way:?}");
        assert_eq!(workflow.error.expect("an error").kind, "child");
        let whole = eventually("the hub answers", async || hub.client.workflow(workflow_id).await.ok()).await;
        let mut counts = BTreeMap::new();
        for task in &whole.tasks {
            *counts.entry(task.status.as_str()).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([("completed", 199), ("failed", 2)]), "{way:?}");
        let summary = hub.task(whole.tasks.last().expect("a summary").task_id).await;
        let result: Value = summary.result.expect("a result").to().unwrap();
        let sum = (0..FILES).sum::<u64>() - BROKEN.iter().sum::<u64>();
        assert_eq!(result, json!({"sum": sum, "missing": BROKEN}), "{way:?}");
        if way == Way::Rest {
            page.until("document.body.innerText.includes('201 of 201 ended')").await;
        }
    }
    // Its hub is gone by now: from here on it looks for none. What the browser itself said of that is expected.
    page.look("location.href = 'about:blank', 0").await;
    page.until("location.href === 'about:blank'").await;
    page.errors.retain(|error| !error.contains("WebSocket connection") && !error.contains("net::ERR"));
    page.close().await;
}

/// A queue for each customer, and workers that poll them in turn. Here one that floods is not felt by the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_tenants_of_which_one_floods() {
    let mut hub = Hub::start();
    for way in WAYS {
        let queue = format!("{way:?}").to_lowercase();
        match way {
            Way::Rest => drop(hub.call("PUT", &format!("queues/{queue}"), &json!({"fair_by": "user"})).await),
            Way::Command => drop(hub.command(&["queue", "set", &queue, "--fair-by", "user"])),
            Way::Rust => {
                let fair = QueueSettings { fair_by: FairBy::User, ..QueueSettings::default() };
                hub.client.set_queue(&queue, &fair).await.unwrap();
            }
        }
        let task = |user: &str| NewTask::new("import").queue(&queue).user_id(user);
        let flood: Vec<NewTask> = (0..300).map(|_| task("flood")).collect();
        hub.client.submit_batch(&flood, None).await.unwrap();
        let small: Vec<NewTask> = (0..10).map(|n| task(["second", "third"][n % 2])).collect();
        let small = hub.client.submit_batch(&small, None).await.unwrap();
        hub.kill();
        let order = Arc::new(order::Order::default());
        let noted = order.clone();
        let _worker =
            work(Worker::new(&hub.url).id(&queue).queues([&queue]).register("import", move |ctx: Context| {
                noted.push(ctx.task().user_id.clone().expect("a user"));
                async { Ok::<_, TaskFailure>(()) }
            }));
        for task in &small {
            hub.finished(task.task_id).await;
        }
        let users = order.take();
        // Each of the others was started after at most one of those of the flood.
        let last = users.iter().rposition(|user| user != "flood").expect("they ran");
        assert!(last < 3 * 5 + 2, "{way:?}: the last one ran after {last} others: {users:?}");
    }
}

/// In what order things were begun, from several threads.
mod order {
    #[derive(Default)]
    pub struct Order(std::sync::Mutex<Vec<String>>);

    impl Order {
        pub fn push(&self, name: impl ToString) {
            self.0.lock().unwrap().push(name.to_string());
        }

        pub fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }
}

/// A trigger that counts what is unprocessed. Here ten become a task at once, and fewer once the first has waited long enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_at_ten_unprocessed_or_after_a_while() {
    let mut hub = Hub::start();
    for way in WAYS {
        let task_type = format!("digest.{way:?}");
        let mut ids = Vec::new();
        for n in 0..23 {
            let task_id = match way {
                Way::Rest => {
                    let gather = json!({"key": "events", "max_count": 10, "max_wait_ms": 1_500});
                    let body = json!({"task_type": task_type, "payload": n, "gather": gather});
                    task_id(&hub.call("POST", "tasks", &body).await)
                }
                Way::Command => {
                    let gather = ["--gather-key", "events", "--gather-count", "10", "--gather-wait", "1500ms"];
                    task_id(&hub.command(&[&["submit", &task_type, &n.to_string()][..], &gather].concat()))
                }
                Way::Rust => {
                    let gather = NewGather::key("events").max_count(10).max_wait(Duration::from_millis(1_500));
                    let task = NewTask::new(&task_type).payload(&n).unwrap().gather(gather);
                    hub.client.submit(&task).await.unwrap().task_id
                }
            };
            if !ids.contains(&task_id) {
                ids.push(task_id);
            }
            if n == 21 {
                hub.kill();
            }
        }
        let _worker = work(Worker::new(&hub.url).id(&task_type).register(&task_type, |ctx: Context| async move {
            let items: Vec<u64> = ctx.payload()?;
            Ok::<_, TaskFailure>(items)
        }));
        let mut items = Vec::new();
        for (at, task_id) in ids.iter().enumerate() {
            let done: Vec<u64> = hub.finished(*task_id).await.result.expect("a result").to().unwrap();
            assert!(done.len() <= 10, "{way:?}: {done:?}");
            // Commands are slow, so that a list of theirs may be closed by its time before it is full.
            assert!(way == Way::Command || at == ids.len() - 1 || done.len() == 10, "{way:?}: {done:?}");
            items.extend(done);
        }
        assert_eq!(items, (0..23).collect::<Vec<_>>(), "{way:?}: each once, in order");
    }
}

/// A lock in a build server. Here a new commit ends the build of the one before, and no two of a branch run at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_commit_cancels_the_old_build() {
    let mut hub = Hub::start();
    let order = Arc::new(order::Order::default());
    let begun = order.clone();
    let _worker = work(Worker::new(&hub.url).concurrency(4).register("build", move |ctx: Context| {
        begun.push(ctx.task().title.clone().expect("a commit"));
        async move {
            let commit = ctx.task().title.clone().expect("a commit");
            if commit.ends_with("new") {
                return Ok::<_, TaskFailure>("built");
            }
            ctx.cancelled().await;
            Ok("too late")
        }
    }));
    for way in WAYS {
        let branch = format!("{way:?}");
        let mut builds = Vec::new();
        for commit in ["old", "skipped", "new"] {
            let title = format!("{branch} {commit}");
            let task_id = match way {
                Way::Rest => {
                    let body = json!({"task_type": "build", "title": title, "concurrency_key": branch,
                        "on_conflict": "cancel_running"});
                    task_id(&hub.call("POST", "tasks", &body).await)
                }
                Way::Command => {
                    let key = ["--concurrency-key", &branch, "--on-conflict", "cancel-running"];
                    task_id(&hub.command(&[&["submit", "build", "--title", &title][..], &key].concat()))
                }
                Way::Rust => {
                    let build = NewTask::new("build").title(&title);
                    let build = build.concurrency_key(&branch).on_conflict(OnConflict::CancelRunning);
                    hub.client.submit(&build).await.unwrap().task_id
                }
            };
            builds.push(task_id);
            match commit {
                "old" => {
                    let is_running = async || (hub.task(task_id).await.status == Status::Running).then_some(());
                    eventually("the old one runs", is_running).await;
                    hub.kill();
                }
                "new" => hub.kill(),
                _ => {}
            }
        }
        assert_eq!(hub.finished(builds[2]).await.result.expect("a result").as_str(), r#""built""#, "{way:?}");
        assert_ne!(hub.finished(builds[0]).await.status, Status::Failed, "{way:?}");
        assert_ne!(hub.finished(builds[1]).await.status, Status::Failed, "{way:?}");
    }
}
