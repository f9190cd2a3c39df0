//! Results that are uploaded into files: whole or not at all, given back as they came, gone with their tasks, and whatever a
//! crash leaves is cleared away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use taskhub::Hub;
use taskhub::client::{Client, FetchedResult};
use taskhub::task::{NewTask, TaskId};
use taskhub::worker::{Context, TaskFailure, UploadError, Worker};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::{Answer, HubProcess, TestHub, eventually, id, in_time, millis, program};

const MIB: usize = 1 << 20;

/// Bytes that are no text and do not repeat soon.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    std::iter::repeat_with(|| random.u64(..).to_le_bytes()).flatten().take(bytes).collect()
}

async fn put(hub: &TestHub, task_id: &str, attempt: u64, content_type: &str, body: impl Into<Body>) -> Answer {
    let path = format!("/api/v1/tasks/{task_id}/attempts/{attempt}/result");
    Answer::of(hub.request(Method::PUT, &path).header("content-type", content_type).body(body)).await
}

/// A result as it is given: its status, headers and bytes.
async fn fetched(hub: &TestHub, task_id: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Vec<u8>) {
    fetched_by(hub, Method::GET, task_id, headers).await
}

async fn fetched_by(
    hub: &TestHub,
    method: Method,
    task_id: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, Vec<u8>) {
    let request = hub.request(method, &format!("/api/v1/tasks/{task_id}/result"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.bytes().await.unwrap().to_vec())
}

/// A task that runs as attempt 1.
async fn running(hub: &TestHub) -> String {
    let task_id = hub.submit_any().await;
    assert_eq!(id(&hub.claim("w").await["task"]), task_id);
    task_id
}

/// The names of the files there are.
fn files(data: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(data.join("results")) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn until_files(data: &Path, expected: usize) -> Vec<String> {
    eventually(format!("there are {expected} files"), async || {
        Some(files(data)).filter(|files| files.len() == expected)
    })
    .await
}

#[tokio::test]
async fn a_result_is_taken_and_given_as_it_is() {
    let hub = TestHub::builder().on_disk().start().await;
    let task_id = running(&hub).await;
    let mut live = hub.live().await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": {"task_id": [task_id]}})).await;
    live.next_of("mark").await;
    let result = noise(3 * MIB + 17);
    let answer = put(&hub, &task_id, 1, "application/pdf", result.clone()).await.expect(200);
    assert_eq!(answer, json!({"cancel_requested": false}));
    // It is told of at once, and given once the task is done.
    let task = hub.task(&task_id).await;
    assert_eq!((&task["status"], &task["result_bytes"]), (&json!("running"), &json!(result.len())));
    assert!(task.get("result_omitted").is_none(), "{task}");
    assert_eq!(live.event("task.updated").await["task"]["result_type"], "application/pdf");
    let early = hub.get(&format!("/api/v1/tasks/{task_id}/result")).await;
    assert_eq!(early.problem(), "409 task_not_finished");
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    let done = live.event("task.completed").await["task"].clone();
    for task in [&done, &hub.task(&task_id).await] {
        assert_eq!(task["result_omitted"], true, "{task}");
        let expected = (&json!(result.len()), &json!("application/pdf"));
        assert_eq!((&task["result_bytes"], &task["result_type"]), expected);
        assert!(task.get("result").is_none());
    }
    let (status, headers, bytes) = fetched(&hub, &task_id, &[]).await;
    assert!(status == 200 && bytes == result);
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-length"), result.len().to_string());
    assert_eq!(header("content-type"), "application/pdf");
    assert_eq!(header("accept-ranges"), "bytes");
    assert_eq!(header("etag"), format!("\"{}\"", done["result_id"].as_str().unwrap()));
    assert_eq!(header("taskhub-streamed"), "true");
    // The hub's own page is of the same origin: nothing of this is to run there.
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("content-disposition").starts_with("attachment"));
    assert!(header("content-security-policy").contains("sandbox"));
    // A repeated report is acknowledged, another upload is not.
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    assert_eq!(put(&hub, &task_id, 1, "text/plain", "late").await.problem(), "409 lease_lost");
    assert_eq!(hub.events(&task_id).await, ["created", "running", "updated", "completed"]);
}

#[tokio::test]
async fn parts_and_tags() {
    let hub = TestHub::builder().on_disk().start().await;
    let task_id = running(&hub).await;
    let result = noise(100_000);
    put(&hub, &task_id, 1, "text/html", result.clone()).await.expect(200);
    hub.attempt(&task_id, 1, "complete", json!({"result": null})).await.expect(200);
    let tag = format!("\"{}\"", hub.task(&task_id).await["result_id"].as_str().unwrap());
    for (asked, from, to) in [("bytes=0-9", 0, 10), ("bytes=99990-", 99_990, 100_000), ("bytes=-5", 99_995, 100_000)] {
        for if_range in [None, Some(tag.as_str())] {
            let mut asked = vec![("range", asked)];
            asked.extend(if_range.map(|tag| ("if-range", tag)));
            let (status, headers, bytes) = fetched(&hub, &task_id, &asked).await;
            assert_eq!(
                (status, headers["content-range"].to_str().unwrap()),
                (206, &*format!("bytes {from}-{}/100000", to - 1))
            );
            assert!(bytes == result[from..to] && headers["content-length"] == (to - from).to_string().as_str());
        }
    }
    for all in [
        &[("range", "bytes=0-1,5-6")][..],
        &[("range", "lines=0-1")],
        &[("range", "bytes=0-1"), ("if-range", "\"0000000000000000\"")],
        &[("range", "bytes=0-1"), ("if-range", "Mon, 30 Nov 2026 00:00:00 GMT")],
    ] {
        let (status, _, bytes) = fetched(&hub, &task_id, all).await;
        assert!(status == 200 && bytes == result, "{all:?}: {status}");
    }
    let (status, headers, body) = fetched(&hub, &task_id, &[("range", "bytes=100000-")]).await;
    assert_eq!((status, headers["content-range"].to_str().unwrap()), (416, "bytes */100000"));
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["code"], "range_not_satisfiable");
    let (status, headers, body) = fetched(&hub, &task_id, &[("if-none-match", &tag)]).await;
    assert_eq!((status, headers["etag"].to_str().unwrap(), body.len()), (304, &*tag, 0));
    let (status, headers, body) = fetched_by(&hub, Method::HEAD, &task_id, &[]).await;
    assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (200, "100000", 0));
}

/// What is uploaded again replaces what was; what an attempt leaves behind that does not complete goes.
#[tokio::test]
async fn only_what_the_attempt_that_completes_uploaded_last_stays() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let data = hub.data().to_owned();
    let task_id = id(&hub.submit(json!({"task_type": "t", "max_attempts": 3, "retry": {"base_ms": 0}})).await);
    hub.claim("w").await;
    put(&hub, &task_id, 1, "text/plain", "one").await.expect(200);
    let first = until_files(&data, 1).await;
    put(&hub, &task_id, 1, "text/csv", "another").await.expect(200);
    let second = eventually("the first is removed", async || {
        Some(files(&data)).filter(|files| files.len() == 1 && *files != first)
    })
    .await;
    assert!(second[0].starts_with(&task_id));
    hub.attempt(&task_id, 1, "fail", json!({})).await.expect(200);
    until_files(&data, 0).await;
    assert_eq!(hub.claim("w").await["attempt"], 2);
    assert_eq!(hub.task(&task_id).await.get("result_bytes"), None);
    // Fenced: the first attempt's worker goes on as if nothing had happened.
    assert_eq!(put(&hub, &task_id, 1, "text/plain", "late").await.problem(), "409 lease_lost");
    put(&hub, &task_id, 2, "text/plain", "").await.expect(200);
    hub.restart().await;
    let again = hub.claim("w").await["attempt"].as_u64().unwrap();
    until_files(&data, 0).await;
    put(&hub, &task_id, again, "text/plain; charset=utf-8", "at last").await.expect(200);
    // With a result of its own it would leave two.
    let two = hub.attempt(&task_id, again, "complete", json!({"result": 1})).await;
    assert_eq!(two.problem(), "422 invalid_field result");
    assert_eq!(hub.task(&task_id).await["status"], "running");
    hub.attempt(&task_id, again, "complete", json!({})).await.expect(200);
    for _ in 0..2 {
        let (status, headers, bytes) = fetched(&hub, &task_id, &[]).await;
        assert_eq!(
            (status, headers["content-type"].to_str().unwrap(), &*bytes),
            (200, "text/plain; charset=utf-8", &b"at last"[..])
        );
        assert_eq!(files(&data).len(), 1);
        hub.restart().await;
    }
    assert_eq!(hub.delete(&format!("/api/v1/tasks/{task_id}")).await.status, 204);
    until_files(&data, 0).await;
    assert_eq!(hub.get(&format!("/api/v1/tasks/{task_id}/result")).await.problem(), "404 task_not_found");
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_and_leaves_nothing() {
    let hub = TestHub::builder().on_disk().set(|config| config.result_max = 1_000).start().await;
    let task_id = running(&hub).await;
    let waiting = hub.submit_any().await;
    let nobody = "01890000-0000-7000-8000-00000000002a";
    for (task_id, attempt, expected) in [
        (nobody, 1, "404 task_not_found"),
        ("x", 1, "404 task_not_found"),
        (&*waiting, 1, "409 lease_lost"),
        (&*task_id, 2, "409 lease_lost"),
    ] {
        assert_eq!(put(&hub, task_id, attempt, "text/plain", "x").await.problem(), expected);
    }
    let over = put(&hub, &task_id, 1, "text/plain", vec![b'x'; 1_001]).await;
    assert_eq!((over.problem().as_str(), &over.body["limit"]), ("413 payload_too_large result", &json!(1_000)));
    let chunks = (0..11).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100]));
    let over = put(&hub, &task_id, 1, "text/plain", Body::wrap_stream(futures::stream::iter(chunks))).await;
    assert_eq!(over.problem(), "413 payload_too_large result");
    let path = format!("/api/v1/tasks/{task_id}/attempts/1/result");
    for (name, value, expected) in [
        ("content-type", "text", "422 invalid_field Content-Type"),
        ("content-encoding", "gzip", "415 unsupported_media_type"),
        ("content-range", "bytes 0-1/2", "422 invalid_field Content-Range"),
    ] {
        let answer = Answer::of(hub.request(Method::PUT, &path).header(name, value).body("x")).await;
        assert_eq!(answer.problem(), expected);
    }
    assert_eq!(hub.put(&format!("{path}?x=1"), json!(1)).await.status, 422);
    until_files(hub.data(), 0).await;
    assert_eq!(hub.task(&task_id).await.get("result_bytes"), None);
    // At its limit, without a type.
    let exact = Answer::of(hub.request(Method::PUT, &path).body(vec![b'x'; 1_000])).await;
    exact.expect(200);
    assert_eq!(hub.task(&task_id).await["result_type"], "application/octet-stream");

    let memory = TestHub::start().await;
    let task_id = running(&memory).await;
    let refused = put(&memory, &task_id, 1, "text/plain", "x").await;
    assert_eq!((refused.problem().as_str(), &refused.body["limit"]), ("413 payload_too_large result", &json!(0)));
}

/// A request that is written by hand, so that it can be cut short.
async fn raw(hub: &TestHub, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(hub.address()).await.unwrap();
    let address = hub.address();
    stream.write_all(format!("{head}\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

async fn answer_of(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let read = in_time("an answer", stream.read_to_end(&mut text)).await;
    drop(read);
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn an_upload_that_is_cut_short_leaves_nothing() {
    let hub = TestHub::builder().on_disk().start().await;
    let data = hub.data().to_owned();
    let task_id = running(&hub).await;
    let line = format!("PUT /api/v1/tasks/{task_id}/attempts/1/result HTTP/1.1");
    // Less than it said, and gone.
    let stream = raw(&hub, &format!("{line}\r\nContent-Length: 5000000"), &vec![b'x'; 3 * MIB]).await;
    until_files(&data, 1).await;
    assert!(files(&data)[0].ends_with(".part"));
    drop(stream);
    until_files(&data, 0).await;
    // A chunk that is none.
    let stream = raw(&hub, &format!("{line}\r\nTransfer-Encoding: chunked"), b"5\r\nhello\r\nzz\r\n").await;
    assert!(!answer_of(stream).await.starts_with("HTTP/1.1 200"));
    until_files(&data, 0).await;
    // More than may come is answered before it has come.
    let stream = raw(&hub, &format!("{line}\r\nContent-Length: 2000000000\r\nExpect: 100-continue"), b"").await;
    assert!(answer_of(stream).await.starts_with("HTTP/1.1 413"));
    // More than it said is the next request.
    let stream = raw(&hub, &format!("{line}\r\nContent-Length: 3\r\nConnection: close"), b"abcdef").await;
    assert!(answer_of(stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(hub.task(&task_id).await["result_bytes"], 3);
    // The attempt ends while its result comes.
    let mut stream = raw(&hub, &format!("{line}\r\nContent-Length: 50000000"), &vec![b'x'; 2 * MIB]).await;
    until_files(&data, 2).await;
    hub.attempt(&task_id, 1, "fail", json!({"retryable": false})).await.expect(200);
    let more = vec![b'x'; 2 * MIB];
    let written = async { while stream.write_all(&more).await.is_ok() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), written).await;
    until_files(&data, 0).await;
    assert_eq!(hub.task(&task_id).await["status"], "failed");
}

#[tokio::test]
async fn so_many_uploads_at_a_time() {
    let hub = TestHub::builder().on_disk().start().await;
    let task_id = running(&hub).await;
    let line = format!("PUT /api/v1/tasks/{task_id}/attempts/1/result HTTP/1.1\r\nContent-Length: 5000000");
    let mut open = Vec::new();
    for count in 1..=16 {
        open.push(raw(&hub, &line, b"x").await);
        until_files(hub.data(), count).await;
    }
    let refused = put(&hub, &task_id, 1, "text/plain", "x").await;
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("503 overloaded", "1"));
    drop(open);
    until_files(hub.data(), 0).await;
    put(&hub, &task_id, 1, "text/plain", "x").await.expect(200);
}

/// An upload that lasts longer than a lease keeps it.
#[tokio::test]
async fn an_upload_renews_the_lease() {
    let hub = TestHub::builder().on_disk().set(|config| config.lease = millis(400)).start().await;
    let task_id = running(&hub).await;
    let parts = futures::stream::unfold(0, |count| async move {
        tokio::time::sleep(millis(50)).await;
        (count < 24).then(|| (Ok::<_, std::io::Error>(vec![b'x'; MIB]), count + 1))
    });
    put(&hub, &task_id, 1, "text/plain", Body::wrap_stream(parts)).await.expect(200);
    assert_eq!(hub.task(&task_id).await["crashes"], 0);
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
}

/// A payload takes results of other tasks, but not those in files; a workflow says where such an output is.
#[tokio::test]
async fn no_payload_takes_it() {
    let hub = TestHub::builder().on_disk().start().await;
    let workflow = json!({"on_failure": "finish", "tasks": [
        {"ref": "film", "task_type": "film"},
        {"ref": "cut", "task_type": "cut", "payload": {"film": {"$result": "@film"}}},
        {"ref": "poster", "task_type": "poster", "payload": {"film": {"$result": "@film", "default": "none"}}},
    ]});
    let made = hub.post("/api/v1/workflows", workflow).await.expect(201);
    let film = id(&hub.claim("w").await["task"]);
    put(&hub, &film, 1, "video/mp4", "film").await.expect(200);
    hub.attempt(&film, 1, "complete", json!({})).await.expect(200);
    let poster = in_time("the poster is handed out", async {
        loop {
            let claimed =
                hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "wait_ms": 1_000})).await.expect(200);
            if let Some(given) = claimed["tasks"].get(0) {
                return given["task"].clone();
            }
        }
    })
    .await;
    assert_eq!((&poster["task_type"], &poster["payload"]), (&json!("poster"), &json!({"film": "none"})));
    let cut = hub.finished(&id(&made["tasks"][1])).await;
    assert_eq!((&cut["status"], &cut["error"]["kind"]), (&json!("failed"), &json!("dependency")));
    assert!(cut["error"]["message"].as_str().unwrap().contains("uploaded into a file"), "{cut}");

    let output = json!({"tasks": [{"ref": "film", "task_type": "film"}], "output": "@film"});
    let made = hub.post("/api/v1/workflows", output).await.expect(201);
    let film = id(&hub.claim("w").await["task"]);
    put(&hub, &film, 1, "video/mp4", "film").await.expect(200);
    hub.attempt(&film, 1, "complete", json!({})).await.expect(200);
    let done = hub.finished(&id(&made["workflow"])).await;
    let told = &done["result"];
    let expected = (&json!(film), &json!(true), &json!(4), &json!("video/mp4"));
    assert_eq!((&told["task_id"], &told["result_omitted"], &told["result_bytes"], &told["result_type"]), expected);
}

#[tokio::test]
async fn what_is_kept_is_counted_with_its_files() {
    let hub = TestHub::builder().on_disk().start().await;
    let data = hub.data().to_owned();
    hub.put("/api/v1/queues/films", json!({"retain_bytes": 5_000_000})).await.expect(201);
    let mut films = Vec::new();
    for _ in 0..4 {
        let film = id(&hub.submit(json!({"task_type": "t", "queue": "films"})).await);
        hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "queues": ["films"]})).await.expect(200);
        put(&hub, &film, 1, "video/mp4", vec![0; 2_000_000]).await.expect(200);
        hub.attempt(&film, 1, "complete", json!({})).await.expect(200);
        films.push(film);
    }
    until_files(&data, 2).await;
    for (at, film) in films.iter().enumerate() {
        let status = fetched(&hub, film, &[]).await.0;
        assert_eq!(status, if at < 2 { 404 } else { 200 }, "the newest stay");
    }
}

/// The process's memory that is not shared, in bytes.
fn memory(hub: &HubProcess) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", hub.program.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says it");
    1_024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}

/// A client of a hub in a process of its own.
struct Caller {
    url: String,
    http: reqwest::Client,
}

impl Caller {
    fn of(hub: &HubProcess) -> Caller {
        Caller { url: hub.url.clone(), http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> (u16, Vec<u8>) {
        let request = self.http.request(method, format!("{}/api/v1/{path}", self.url));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, bytes) = self.call(method, path, body.to_string()).await;
        assert!(status < 300, "{status}: {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// A task that runs as attempt 1.
    async fn running(&self) -> String {
        let task_id = id(&self.json(Method::POST, "tasks", json!({"task_type": "t"})).await);
        self.json(Method::POST, "worker/claim", json!({"worker_id": "w"})).await;
        task_id
    }
}

#[tokio::test]
async fn fifty_mebibytes_pass_through_a_hub_that_holds_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = HubProcess::start(folder.path(), [""; 0]);
    let caller = Caller::of(&hub);
    let task_id = caller.running().await;
    let before = memory(&hub);
    let part = noise(MIB);
    let parts: Vec<Result<Vec<u8>, std::io::Error>> = (0..50).map(|_| Ok(part.clone())).collect();
    let path = format!("tasks/{task_id}/attempts/1/result");
    let uploaded = caller.call(Method::PUT, &path, Body::wrap_stream(futures::stream::iter(parts))).await;
    assert_eq!(uploaded.0, 200);
    let taken = memory(&hub);
    assert!(taken < before + 20 * MIB, "it took {} KiB", (taken - before) / 1_024);
    caller.json(Method::POST, &format!("tasks/{task_id}/attempts/1/complete"), json!({})).await;
    let (status, result) = caller.call(Method::GET, &format!("tasks/{task_id}/result"), "").await;
    assert!(status == 200 && result.len() == 50 * MIB && result.chunks(MIB).all(|chunk| chunk == part));
    let given = memory(&hub);
    assert!(given < before + 20 * MIB, "it took {} KiB", given.saturating_sub(before) / 1_024);
}

/// SIGKILL while a result comes, once it was taken, and once its task is done: what was acknowledged is there, and nothing
/// else is.
#[tokio::test]
async fn a_killed_hub_keeps_what_was_acknowledged_and_clears_away_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let options = ["--lease", "30s", "--grace", "30s"];
    let mut hub = HubProcess::start(data, options);
    let again = |mut hub: HubProcess| {
        hub.program.kill();
        HubProcess::start(data, options)
    };
    let caller = Caller::of(&hub);
    let task_id = caller.running().await;
    let result = format!("tasks/{task_id}/attempts/1/result");

    // While it comes.
    let mut stream = TcpStream::connect(hub.address()).await.unwrap();
    let head = format!("PUT /api/v1/{result} HTTP/1.1\r\nHost: {}\r\nContent-Length: 9000000\r\n\r\n", hub.address());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 3 * MIB]).await.unwrap();
    assert!(until_files(data, 1).await[0].ends_with(".part"));
    hub = again(hub);
    until_files(data, 0).await;

    // Once it was taken, and before the task is done. One that no record names lies beside it.
    let caller = Caller::of(&hub);
    let expected = noise(2 * MIB);
    assert_eq!(caller.call(Method::PUT, &result, expected.clone()).await.0, 200);
    let named = until_files(data, 1).await;
    let other = data.join("results").join(format!("{task_id}.00000000000000aa"));
    std::fs::write(&other, "garbage").unwrap();
    let unknown = data.join("results/01890000-0000-7000-8000-00000000002a.00000000000000aa");
    std::fs::write(&unknown, "garbage").unwrap();
    hub = again(hub);
    assert_eq!(until_files(data, 1).await, named);
    let caller = Caller::of(&hub);
    let task = caller.json(Method::GET, &format!("tasks/{task_id}"), json!(null)).await;
    assert_eq!((&task["status"], &task["result_bytes"]), (&json!("running"), &json!(expected.len())));
    caller.json(Method::POST, &format!("tasks/{task_id}/attempts/1/complete"), json!({})).await;

    // Once the task is done.
    hub = again(hub);
    let caller = Caller::of(&hub);
    let (status, bytes) = caller.call(Method::GET, &format!("tasks/{task_id}/result"), "").await;
    assert!(status == 200 && bytes == expected);
    assert_eq!(files(data), named);

    // Once the task is deleted: whether the file went before or not.
    assert_eq!(caller.call(Method::DELETE, &format!("tasks/{task_id}"), "").await.0, 204);
    let _hub = again(hub);
    until_files(data, 0).await;
}

/// A disk that takes no files takes small results all the same.
#[tokio::test]
async fn where_no_file_can_be_written_the_hub_goes_on() {
    let hub = TestHub::builder().on_disk().start().await;
    let task_id = running(&hub).await;
    let folder = hub.data().join("results");
    std::fs::write(&folder, "in the way").unwrap();
    let refused = put(&hub, &task_id, 1, "text/plain", "x").await;
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("503 storage_unavailable", "2"));
    hub.get("/readyz").await.expect(200);
    std::fs::remove_file(&folder).unwrap();
    put(&hub, &task_id, 1, "text/plain", "x").await.expect(200);
    // One that somebody takes away is a fault of the hub's, and said to be one.
    hub.attempt(&task_id, 1, "complete", json!({})).await.expect(200);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(hub.get(&format!("/api/v1/tasks/{task_id}/result")).await.problem(), "500 internal");
    let small = running(&hub).await;
    hub.attempt(&small, 1, "complete", json!({"result": 1})).await.expect(200);
}

/// Of a store that is damaged nothing is cleared away, and what is accepted of it goes on with its files.
#[tokio::test]
async fn a_damaged_store_keeps_its_files() {
    use std::os::unix::fs::FileExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut hub = HubProcess::start(data, [""; 0]);
    let caller = Caller::of(&hub);
    let task_id = caller.running().await;
    assert_eq!(caller.call(Method::PUT, &format!("tasks/{task_id}/attempts/1/result"), "kept").await.0, 200);
    caller.json(Method::POST, &format!("tasks/{task_id}/attempts/1/complete"), json!({})).await;
    // On another page of the database.
    let others: Vec<Value> =
        (0..100).map(|at| json!({"task_type": if at < 99 { "other" } else { "damaged" }})).collect();
    caller.json(Method::POST, "tasks/batch", json!({"tasks": others})).await;
    hub.program.signal(libc::SIGTERM);
    assert!(hub.program.wait(Duration::from_secs(10)).success());
    let named = files(data);
    std::fs::write(data.join("results").join(format!("{task_id}.00000000000000aa")), "of before").unwrap();
    let database = data.join("taskhub.db");
    let bytes = std::fs::read(&database).unwrap();
    let at = bytes.windows(9).rposition(|part| part == b"\"damaged\"").unwrap() as u64;
    std::fs::File::options().write(true).open(&database).unwrap().write_all_at(b"!", at).unwrap();
    let mut hub = HubProcess::start(data, [""; 0]);
    let caller = Caller::of(&hub);
    let (status, bytes) = caller.call(Method::GET, &format!("tasks/{task_id}/result"), "").await;
    assert_eq!((status, &*bytes), (200, &b"kept"[..]));
    hub.program.signal(libc::SIGTERM);
    hub.program.wait(Duration::from_secs(10));
    assert_eq!(files(data).len(), 2, "nothing is cleared away");
    let accepted = program().args(["check", "--accept"]).arg(data).output().unwrap();
    assert!(accepted.status.success(), "{accepted:?}");
    let _hub = HubProcess::start(data, [""; 0]);
    assert_eq!(until_files(data, 1).await, named);
    let aside = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("replaced-"));
    assert_eq!(aside.map(|aside| files(&aside).len()).collect::<Vec<_>>(), [2], "all of them are kept beside");
}

/// A copy has the files that its records name, and a check misses those that are not there.
#[tokio::test]
async fn copies_and_checks_have_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup, restored) =
        (folder.path().join("data"), folder.path().join("b.db"), folder.path().join("restored"));
    let hub = HubProcess::start(&data, [""; 0]);
    let caller = Caller::of(&hub);
    let mut tasks = Vec::new();
    for at in 0..2 {
        let task_id = caller.running().await;
        let path = format!("tasks/{task_id}/attempts/1/result");
        assert_eq!(caller.call(Method::PUT, &path, format!("result {at}")).await.0, 200);
        caller.json(Method::POST, &format!("tasks/{task_id}/attempts/1/complete"), json!({})).await;
        tasks.push(task_id);
    }
    std::fs::write(data.join("results/01890000-0000-7000-8000-00000000002a.00000000000000aa"), "garbage").unwrap();
    let run = |args: &[&str], paths: &[&PathBuf]| {
        let output = program().args(args).args(paths).arg("--json").output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), found)
    };
    let (code, found) = run(&["backup", "--data"], &[&data, &backup]);
    assert_eq!((code, &found["results"], &found["result_bytes"]), (Some(0), &json!(2), &json!(16)), "{found}");
    let copied = folder.path().join("b.db.results");
    assert_eq!(std::fs::read_dir(&copied).unwrap().count(), 2);
    assert_eq!(caller.call(Method::DELETE, &format!("tasks/{}", tasks[0]), "").await.0, 204);
    until_files(&data, 2).await;
    assert_eq!(run(&["check"], &[&data]).0, Some(0), "also beside a hub");

    let (code, found) = run(&["restore", "--data"], &[&restored, &backup]);
    assert_eq!(code, Some(0), "{found}");
    drop(hub);
    let hub = HubProcess::start(&restored, [""; 0]);
    let caller = Caller::of(&hub);
    for (at, task_id) in tasks.iter().enumerate() {
        let (status, bytes) = caller.call(Method::GET, &format!("tasks/{task_id}/result"), "").await;
        assert_eq!((status, bytes), (200, format!("result {at}").into_bytes()));
    }
    drop(hub);
    for wrong in ["short", ""] {
        let name = std::fs::read_dir(&copied).unwrap().next().unwrap().unwrap().path();
        match wrong {
            "" => std::fs::remove_file(&name).unwrap(),
            wrong => std::fs::write(&name, wrong).unwrap(),
        }
        let (code, found) = run(&["check"], &[&backup]);
        assert_eq!((code, found["problems"].as_array().unwrap().len()), (Some(1), 1), "{found}");
        assert!(found["problems"][0].as_str().unwrap().contains(name.file_name().unwrap().to_str().unwrap()));
    }
}

#[tokio::test]
async fn a_function_uploads_its_result_and_a_client_streams_it() {
    async fn render(ctx: Context) -> Result<(), TaskFailure> {
        let bytes: usize = ctx.payload()?;
        // What is cut short leaves nothing; what comes last counts.
        let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
            Ok(bytes::Bytes::from_static(b"beginning")),
            Err(std::io::Error::other("no more")),
        ]));
        let why = ctx.put_result("text/plain", broken).await.unwrap_err();
        assert!(matches!(why, UploadError::Read(_)), "{why:?}");
        ctx.put_result("text/plain", &b"first"[..]).await?;
        ctx.put_result("video/mp4", std::io::Cursor::new(noise(bytes))).await?;
        Ok(())
    }
    let hub = TestHub::builder().on_disk().start().await;
    let worker = tokio::spawn(Worker::new(&hub.url).register("render", render).run(std::future::pending()));
    let task_id = id(&hub.submit(json!({"task_type": "render", "payload": 2 * MIB})).await);
    let task = hub.finished(&task_id).await;
    assert_eq!((&task["status"], &task["result_bytes"]), (&json!("completed"), &json!(2 * MIB)), "{task}");
    let client = Client::new(&hub.url).unwrap();
    let FetchedResult::Stream(mut stream) = client.result(task_id.parse().unwrap()).await.unwrap() else { panic!() };
    assert_eq!((stream.content_type.as_str(), stream.bytes), ("video/mp4", 2 * MIB as u64));
    let mut result = Vec::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        result.extend_from_slice(&chunk);
    }
    assert!(result == noise(2 * MIB));
    until_files(hub.data(), 1).await;

    let film = tempfile::tempdir().unwrap().keep().join("film.mp4");
    assert_eq!(hub.command(&["result", &task_id, "--output", film.to_str().unwrap()]), "");
    assert!(std::fs::read(&film).unwrap() == result);
    let small = id(&hub.submit(json!({"task_type": "t"})).await);
    let socket = hub.worker("s", json!({"task_types": ["t"]})).await;
    hub.once(&small, "running").await;
    hub.attempt(&small, 1, "complete", json!({"result": {"a": 1}})).await.expect(200);
    assert_eq!(hub.command(&["result", &small]), "{\"a\":1}\n");
    let FetchedResult::Json(left) = client.result(small.parse().unwrap()).await.unwrap() else { panic!() };
    assert_eq!(left.result.unwrap().as_str(), "{\"a\":1}");
    drop(socket);
    // Much more than may come is told of, and not waited for.
    async fn flood(ctx: Context) -> Result<String, TaskFailure> {
        let refused = ctx.put_result("text/plain", tokio::io::repeat(7).take(1 << 30)).await;
        let UploadError::Refused { code, .. } = refused.unwrap_err() else { panic!() };
        Ok(code)
    }
    let narrow = TestHub::builder().on_disk().set(|config| config.result_max = MIB as u64).start().await;
    let flooding = tokio::spawn(Worker::new(&narrow.url).register("t", flood).run(std::future::pending()));
    let flooded = narrow.submit_any().await;
    assert_eq!(narrow.finished(&flooded).await["result"], "payload_too_large");
    flooding.abort();
    worker.abort();
    std::fs::remove_dir_all(film.parent().unwrap()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let local = Hub::builder().data(folder.path()).register("render", render).open().await.unwrap();
    let task_id: TaskId = local.submit(NewTask::new("render").payload(&5_000).unwrap()).await.unwrap();
    let task = in_time("it ends", local.wait(task_id)).await.unwrap().unwrap();
    assert_eq!((task.result_bytes, task.result_type.as_deref()), (Some(5_000), Some("video/mp4")), "{task:?}");
    assert_eq!(until_files(folder.path(), 1).await.len(), 1);
    let mut film = local.result_file(task_id).await.unwrap().expect("it left one");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut film, &mut text).unwrap();
    assert!(text == noise(5_000));
    local.shutdown(millis(0)).await;
}

/// A worker on a socket completes what it has uploaded over HTTP.
#[tokio::test]
async fn it_is_completed_over_a_socket() {
    let hub = TestHub::builder().on_disk().start().await;
    let task_id = hub.submit_any().await;
    let mut worker = hub.worker("w", json!({})).await;
    worker.expect("run").await;
    put(&hub, &task_id, 1, "text/plain", "here").await.expect(200);
    let two = json!({"op": "complete", "task_id": task_id, "attempt": 1, "result": 1});
    worker.say(two).await;
    let refused = worker.expect("refused").await;
    assert_eq!((&refused["code"], &refused["field"]), (&json!("invalid_field"), &json!("result")));
    worker.say(json!({"op": "complete", "task_id": task_id, "attempt": 1})).await;
    worker.expect("ack").await;
    assert_eq!(fetched(&hub, &task_id, &[]).await.2, b"here");
}
