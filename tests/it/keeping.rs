//! What a hub has stored, while it is there, when it is gone, damaged, copied, or put back.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use taskhub::hub::{Ended, Hub, HubError, HubOptions};
use taskhub::settings::HandOuts;
use taskhub::store::{Commit, Count, Reader, Recovered, Store, StoreError, in_memory};
use taskhub::task::{Digest, KeyEntry, Task, TaskId, Timestamp};

use crate::kit::{HubProcess, MEANT, PATIENCE, TestSocket, program};

struct Caller(reqwest::Client, String);

impl Caller {
    fn new(hub: &HubProcess) -> Caller {
        Caller(reqwest::Client::new(), hub.url.clone())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.0.get(format!("{}{path}", self.1)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn submit(&self, key: &str) -> (u16, Value) {
        let request = self.0.post(format!("{}/api/v1/tasks", self.1)).json(&json!({"task_type": "t"}));
        let answer = request.header("idempotency-key", key).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Until `/readyz` says so.
    async fn until_ready_says(&self, status: u16) -> Value {
        let begun = Instant::now();
        loop {
            let (said, why) = self.get("/readyz").await;
            if said == status {
                return why;
            }
            assert!(begun.elapsed() < PATIENCE, "/readyz says {said}: {why}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

fn start(folder: &Path) -> HubProcess {
    HubProcess::start(folder, ["--drain-timeout", "100ms", "--goodbye", "10ms"])
}

fn end(hub: &mut HubProcess) {
    hub.program.signal(libc::SIGTERM);
    assert!(hub.program.wait(PATIENCE).success());
}

fn taskhub(words: &[&str]) -> (Output, String) {
    let output = program().args(words).output().expect("the program starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // Not the hub's socket.
        if !file.file_type().unwrap().is_file() {
            continue;
        }
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

async fn subscribed(hub: &HubProcess, since: Value) -> (String, Vec<String>) {
    let mut socket = TestSocket::dial(hub.address(), "/api/v1/ws", &[]).await;
    let epoch = socket.expect("hello").await["epoch"].as_str().unwrap().to_owned();
    socket.say(json!({"op": "subscribe", "sub": "a", "filter": {}, "since": since})).await;
    let lines = socket.through("a mark", |line| line["type"] == "mark").await;
    let said = |line: &Value| match line["type"].as_str().unwrap() {
        "subscribed" => line["mode"].as_str().unwrap().to_owned(),
        "reset" => format!("reset {}", line["reason"].as_str().unwrap()),
        other => other.to_owned(),
    };
    (epoch, lines.iter().map(said).filter(|said| said != "task").collect())
}

/// A database of the first version, made by the hub of then: a task that completed, with a log and a result, a cancelled one,
/// and one that waits.
#[tokio::test]
async fn a_file_of_the_first_version_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy("tests/fixtures/version_1.db", folder.path().join("taskhub.db")).unwrap();
    let hub = start(folder.path());
    let caller = Caller::new(&hub);
    let (_, list) = caller.get("/api/v1/tasks?order=asc").await;
    let tasks = list["tasks"].as_array().unwrap();
    let statuses: Vec<_> = tasks.iter().map(|task| task["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["completed", "pending", "cancelled"]);
    let path = format!("/api/v1/tasks/{}", tasks[0]["task_id"].as_str().unwrap());
    let (_, first) = caller.get(&path).await;
    assert_eq!(
        (&first["title"], &first["payload"]["n"], &first["result"]["ok"]),
        (&json!("number 1"), &json!(1), &json!(true))
    );
    let (_, log) = caller.get(&format!("{path}/logs")).await;
    assert_eq!(log["lines"][1]["message"], "two");
    let (_, history) = caller.get(&format!("{path}/history")).await;
    assert_eq!(history["transitions"].as_array().unwrap().len(), 3);
    let known = json!({"epoch": "01a22b8e3a7073a798f1dddcbdd4e07f", "rev": 4});
    assert_eq!(subscribed(&hub, known).await.1, ["resumed", "mark"]);
    let (output, said) = taskhub(&["check", folder.path().to_str().unwrap()]);
    assert!(output.status.success() && said.contains("each with its checksum"), "{said}");
}

/// A folder of the second version, with its witness, which knows of no settings: tasks that ended, wait for a time, for a next
/// try, and for a worker.
#[tokio::test]
async fn a_folder_of_the_second_version_is_read_whole_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["taskhub.db", "taskhub.head"] {
        std::fs::copy(format!("tests/fixtures/version_2/{name}"), folder.path().join(name)).unwrap();
    }
    let hub = start(folder.path());
    let caller = Caller::new(&hub);
    let (_, list) = caller.get("/api/v1/tasks?order=asc").await;
    let tasks = list["tasks"].as_array().unwrap();
    let titles: Vec<_> = tasks.iter().map(|task| format!("{} {}", task["title"], task["status"])).collect();
    let expected = ["completed", "failed", "scheduled", "scheduled", "pending"];
    let titled = ["Completed", "Failed", "Scheduled", "Retried", "Pending"];
    let expected: Vec<_> = titled.iter().zip(expected).map(|(title, status)| format!("{title:?} {status:?}")).collect();
    assert_eq!(titles, expected);
    assert_eq!(tasks[0]["result"], json!({"pages": 7}));
    assert!(tasks[3]["delay_ms"].as_u64() > Some(2_000_000_000), "the wait for its next try goes on: {}", tasks[3]);
    assert_eq!((&tasks[4]["priority"], &tasks[4]["deadline_at"]), (&json!(7), &json!("2999-01-01T00:00:00.000Z")));
    let path = format!("/api/v1/tasks/{}", tasks[0]["task_id"].as_str().unwrap());
    assert_eq!(caller.get(&path).await.1["payload"], json!({"month": "2026-10"}));
    assert_eq!(caller.get(&format!("{path}/logs")).await.1["lines"][0]["message"], "a line");
    // What is set is new to it, and stays.
    let put = caller.0.put(format!("{}/api/v1/queues/other", caller.1)).json(&json!({"concurrency": 3}));
    assert_eq!(put.send().await.expect("an answer").status().as_u16(), 201);
    drop(hub);
    let hub = start(folder.path());
    let caller = Caller::new(&hub);
    assert_eq!(caller.get("/api/v1/queues/other").await.1["concurrency"], 3);
    assert_eq!(caller.get("/api/v1/tasks").await.1["tasks"].as_array().map(Vec::len), Some(5));
}

/// Regression: the folder was deleted under a running hub, which went on to say 201; now it says 503, and why, until what is
/// gone is back. What has another's place is never written to.
#[tokio::test]
async fn a_hub_whose_files_are_gone_takes_no_work() {
    let above = tempfile::tempdir().unwrap();
    let (data, away) = (above.path().join("data"), above.path().join("away"));
    let hub = start(&data);
    let caller = Caller::new(&hub);
    assert_eq!(caller.submit("first").await.0, 201);
    for name in ["", "taskhub.db", "taskhub.db-wal", "taskhub.db-shm", "taskhub.lock", "taskhub.head"] {
        let path = if name.is_empty() { data.clone() } else { data.join(name) };
        std::fs::rename(&path, &away).unwrap();
        let why = caller.until_ready_says(503).await;
        assert!(why["detail"].as_str().unwrap().contains("cannot be found"), "{why}");
        let (status, problem) = caller.submit("gone").await;
        assert_eq!((status, &problem["code"]), (503, &json!("storage_unavailable")), "{name}");
        std::fs::rename(&away, &path).unwrap();
        caller.until_ready_says(200).await;
        assert_eq!(caller.submit(&format!("back {name}")).await.0, 201);
    }
    // Another in its place.
    std::fs::rename(&data, &away).unwrap();
    copy(&away, &data);
    let before = std::fs::read(data.join("taskhub.db-wal")).unwrap();
    let why = caller.until_ready_says(503).await;
    assert!(why["detail"].as_str().unwrap().contains("another than the one"), "{why}");
    assert_eq!(caller.submit("replaced").await.0, 503);
    assert_eq!(std::fs::read(data.join("taskhub.db-wal")).unwrap(), before);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::remove_dir_all(&away).unwrap();
    assert_eq!(caller.submit("deleted").await.0, 503);
    let said = hub.program.said();
    assert_eq!(said.matches("the store does not take writes").count(), 7, "once for each loss: {said}");
}

/// Regression: a folder that was put back gave its numbers out a second time, and a page resumed into a wrong picture.
#[tokio::test]
async fn who_saw_more_than_a_copy_knows_begins_anew() {
    let above = tempfile::tempdir().unwrap();
    let (data, saved) = (above.path().join("data"), above.path().join("saved"));
    let mut hub = start(&data);
    Caller::new(&hub).submit("kept").await;
    let (first, _) = subscribed(&hub, json!({"epoch": "none", "rev": 0})).await;
    end(&mut hub);
    copy(&data, &saved);
    hub = start(&data);
    assert_eq!(subscribed(&hub, json!({"epoch": first, "rev": 1})).await.1, ["resumed", "mark"]);
    Caller::new(&hub).submit("lost").await;
    let (second, said) = subscribed(&hub, json!({"epoch": first, "rev": 1})).await;
    assert_eq!(said, ["resumed", "mark"]);
    end(&mut hub);
    std::fs::remove_dir_all(&data).unwrap();
    copy(&saved, &data);
    hub = start(&data);
    for at in 0..5 {
        Caller::new(&hub).submit(&format!("other {at}")).await;
    }
    assert_eq!(subscribed(&hub, json!({"epoch": first, "rev": 1})).await.1, ["resumed", "mark"]);
    for rev in [0, 1, 2] {
        let said = subscribed(&hub, json!({"epoch": second, "rev": rev})).await.1;
        assert_eq!(said, ["snapshot", "reset epoch", "snapshot", "mark"], "rev {rev}");
    }
    // The same over event streams, where a browser resumes by itself.
    let request = Caller::new(&hub).0.get(format!("{}/api/v1/events", hub.url));
    let mut stream = request.header("last-event-id", format!("{second}:2")).send().await.unwrap();
    let mut said = String::new();
    while !said.contains("event: mark") {
        said.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("it goes on")));
    }
    assert!(said.contains(r#""reason":"epoch""#), "{said}");
}

/// Regression: a flipped byte was read as if it had been written. Now it is said at the start, what can be read is read, and
/// nothing is written until people decide: a backup, or what is left.
#[tokio::test]
async fn a_damaged_store_is_said_until_somebody_decides() {
    let above = tempfile::tempdir().unwrap();
    let (data, saved) = (above.path().join("data"), above.path().join("saved.db"));
    let (data_text, saved_text) = (data.to_str().unwrap().to_owned(), saved.to_str().unwrap().to_owned());
    let mut hub = start(&data);
    for at in 0..30 {
        Caller::new(&hub).submit(&at.to_string()).await;
    }
    let (output, said) = taskhub(&["backup", &saved_text, "--data", &data_text]);
    assert!(output.status.success() && said.contains("30 pending"), "{said}");
    let (output, said) = taskhub(&["backup", &saved_text, "--data", &data_text]);
    assert!(output.status.code() == Some(1) && said.contains("is there already"), "{said}");
    let (output, said) = taskhub(&["restore", &saved_text, "--data", &data_text]);
    assert!(output.status.code() == Some(1) && said.contains("another hub is running"), "{said}");
    let (epoch, _) = subscribed(&hub, json!({"epoch": "none", "rev": 0})).await;
    end(&mut hub);

    // In the middle of a record.
    let file = std::fs::File::options().read(true).write(true).open(data.join("taskhub.db")).unwrap();
    let bytes = std::fs::read(data.join("taskhub.db")).unwrap();
    let at = bytes.windows(12).rposition(|part| part == br#""task_type":"#).unwrap() as u64 + 14;
    file.write_all_at(b"!", at).unwrap();
    hub = start(&data);
    let caller = Caller::new(&hub);
    let (status, why) = caller.get("/readyz").await;
    assert_eq!((status, &why["code"]), (503, &json!("storage_unavailable")));
    assert!(why["detail"].as_str().unwrap().contains("do not match their checksum"), "{why}");
    assert_eq!(caller.submit("more").await.0, 503);
    assert_eq!(caller.get("/api/v1/stats").await.0, 200);
    assert!(hub.program.said().contains("the store is damaged"), "{}", hub.program.said());
    end(&mut hub);
    let (output, said) = taskhub(&["check", &data_text, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["sound"]), (Some(1), &json!(false)), "{said}");

    // What is left: the page is taken as it is.
    let left = above.path().join("left");
    copy(&data, &left);
    let (output, said) = taskhub(&["check", left.to_str().unwrap(), "--accept"]);
    assert!(output.status.success() && said.contains("29 pending") && said.contains("given up  task"), "{said}");
    hub = start(&left);
    let caller = Caller::new(&hub);
    assert_eq!((caller.get("/readyz").await.0, caller.submit("more").await.0), (200, 201));
    assert_eq!(subscribed(&hub, json!({"epoch": epoch, "rev": 1})).await.1[1], "reset epoch");
    end(&mut hub);

    // The backup.
    let (output, said) = taskhub(&["restore", &saved_text, "--data", &data_text]);
    assert!(output.status.code() == Some(1) && said.contains("--replace"), "{said}");
    let (output, said) = taskhub(&["restore", &saved_text, "--data", &data_text, "--replace"]);
    assert!(output.status.success() && said.contains("replaced-"), "{said}");
    hub = start(&data);
    let caller = Caller::new(&hub);
    let (status, replayed) = caller.submit("0").await;
    assert_eq!((status, &replayed["rev"]), (200, &json!(1)), "its keys are there as well");
    assert_eq!((caller.get("/readyz").await.0, caller.submit("more").await.0), (200, 201));
    assert_eq!(subscribed(&hub, json!({"epoch": epoch, "rev": 1})).await.1[1], "reset epoch");
    end(&mut hub);

    // A backup that is damaged itself.
    let mut bytes = std::fs::read(&saved).unwrap();
    let at = bytes.len() - 3_000;
    bytes[at] ^= 1;
    std::fs::write(&saved, bytes).unwrap();
    let (output, said) = taskhub(&["restore", &saved_text, "--data", above.path().join("new").to_str().unwrap()]);
    assert!(output.status.code() == Some(1) && said.contains("checksum"), "{said}");
}

/// A hub that cannot read anything of its store does not start, and says what to do.
#[test]
fn a_database_that_is_gone_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap().to_owned();
    for name in ["taskhub.db", ""] {
        end(&mut start(folder.path()));
        let database = folder.path().join("taskhub.db");
        if name.is_empty() { std::fs::write(&database, "x".repeat(9_000)) } else { std::fs::remove_file(&database) }
            .unwrap();
        let (output, said) = taskhub(&["serve", "--listen", "127.0.0.1:0", "--data", &data]);
        assert!(output.status.code() == Some(1) && said.contains("cannot open the store"), "{said}");
        let (output, _) = taskhub(&["check", &data]);
        assert_eq!(output.status.code(), Some(1));
        if !name.is_empty() {
            assert!(said.contains("is missing") && said.contains("taskhub restore"), "{said}");
            assert!(!database.exists());
            let (output, said) = taskhub(&["check", &data, "--accept"]);
            assert!(output.status.success(), "{said}");
        }
    }
}

/// A store that fails as no store should.
struct Panics(Box<dyn Store>);

impl Store for Panics {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.0.recover()
    }
    fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        assert!(commit.is_empty(), "{MEANT}");
        Ok(())
    }
    fn settle(&mut self, tasks_max: usize) -> Result<Vec<(TaskId, u64)>, StoreError> {
        self.0.settle(tasks_max)
    }
    fn unsettled(&self) -> (usize, usize) {
        self.0.unsettled()
    }
    fn task(&mut self, task_id: TaskId) -> Result<Option<Task>, StoreError> {
        self.0.task(task_id)
    }
    fn log_end(&mut self, task_id: TaskId) -> Result<u64, StoreError> {
        self.0.log_end(task_id)
    }
    fn key(&mut self, key: Digest, now: Timestamp) -> Result<Option<KeyEntry>, StoreError> {
        self.0.key(key, now)
    }
    fn sweep(&mut self, now: Timestamp, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.sweep(now, before, rows_max)
    }
    fn hand_outs(&mut self, now: Count) -> Result<Vec<HandOuts>, StoreError> {
        self.0.hand_outs(now)
    }
    fn forget_hand_outs(&mut self, until: i64, mono: u64, rows_max: usize) -> Result<usize, StoreError> {
        self.0.forget_hand_outs(until, mono, rows_max)
    }

    fn forget_deliveries(&mut self, tried_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.forget_deliveries(tried_before, rows_max)
    }

    fn forget_audit(&mut self, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.forget_audit(before, rows_max)
    }
    fn shrink(&mut self) -> Result<bool, StoreError> {
        self.0.shrink()
    }
    fn probe(&mut self) -> Result<(), StoreError> {
        self.0.probe()
    }
    fn reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }
}

/// Regression: the writer panicked, and the hub stayed to refuse for ever. Now it is known to have ended, and the server,
/// which waits for that beside its signals, ends the program.
#[tokio::test]
async fn a_writer_that_panics_ends_the_hub() {
    let hub = Hub::start(Box::new(Panics(Box::new(in_memory().unwrap()))), HubOptions::default()).unwrap();
    let task = serde_json::from_value(json!({"task_type": "t"})).unwrap();
    assert_eq!(hub.submit_all(vec![task], None).await.unwrap_err(), HubError::Stopped);
    assert_eq!(tokio::time::timeout(PATIENCE, hub.ended()).await, Ok(Ended::Failed));
    assert!(hub.storage().is_err());

    let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
    hub.stop().await;
    assert_eq!(hub.ended().await, Ended::Well);
}
