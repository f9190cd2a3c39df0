//! A hub with its routes, on a free port, in this process.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use taskhub::Hub;
use taskhub::config::{ServeConfig, StoreKind};
use taskhub::server::{Server, StartError};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{PATIENCE, TestSocket};

/// Panics on threads of hubs. A task that panics in tokio only ends, so somebody has to count.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What a panic says that a test causes by intent.
pub const MEANT: &str = "this panic belongs to a test";

/// How the threads of a hub are called.
const THREADS: &str = "hub";

/// A hub on a runtime and a thread of its own, so that ending it does not need the runtime of the test.
///
/// It is ended when it is dropped, and that is checked: the drain, the goodbyes and the writer come to an end within
/// [`PATIENCE`], nothing in it has panicked, and a folder can be opened again afterwards.
pub struct TestHub {
    pub url: String,
    /// `None` once it was told to end: a handle keeps files open.
    hub: Option<Hub>,
    http: reqwest::Client,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    config: ServeConfig,
    folder: Option<TempDir>,
}

/// What a hub is started with.
pub struct HubBuilder {
    config: ServeConfig,
    folder: Option<TempDir>,
}

/// An answer of the hub.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The text as JSON, or null where it is none.
    pub body: Value,
}

impl HubBuilder {
    /// Changes anything that `taskhub serve` can be told.
    pub fn set(mut self, change: impl FnOnce(&mut ServeConfig)) -> HubBuilder {
        change(&mut self.config);
        self
    }

    /// Keeps tasks in a folder, so that the hub can be restarted.
    pub fn on_disk(mut self) -> HubBuilder {
        let folder = tempfile::tempdir().expect("a temporary folder");
        self.config.data = folder.path().to_owned();
        self.config.store = StoreKind::Sqlite;
        self.folder = Some(folder);
        self
    }

    pub async fn start(self) -> TestHub {
        super::agree_on_tls();
        let HubBuilder { config, folder } = self;
        let (server, end, thread) = launch(config.clone()).await;
        TestHub {
            url: server.0,
            hub: Some(server.1),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            end: Some(end),
            thread: Some(thread),
            config,
            folder,
        }
    }
}

async fn launch(config: ServeConfig) -> ((String, Hub), oneshot::Sender<()>, JoinHandle<()>) {
    count_panics();
    let (end, told) = oneshot::channel();
    let (up, started) = oneshot::channel();
    let thread = std::thread::Builder::new().name(THREADS.into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREADS)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = started_at_last(config).await;
            let _ = up.send((server.url(), server.hub().clone()));
            let _ = told.await;
            server.shutdown().await;
        });
    });
    let server = started.await.expect("the hub is up");
    (server, end, thread.expect("a thread"))
}

/// A hub that starts again takes the port that it had. Meanwhile a connection of another test may have been given it, and lets
/// go of it soon.
async fn started_at_last(config: ServeConfig) -> Server {
    let begun = std::time::Instant::now();
    loop {
        match Server::start(config.clone()).await {
            Ok(server) => return server,
            Err(StartError::Bind { cause, .. })
                if cause.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("the hub starts: {error:?}"),
        }
    }
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let said = panic.payload();
            let said = said.downcast_ref::<String>().map(String::as_str).or(said.downcast_ref::<&str>().copied());
            let is_meant = said == Some(MEANT);
            if !is_meant && std::thread::current().name().is_some_and(|name| name == THREADS || name == "writer") {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            usual(panic);
        }));
    });
}

impl TestHub {
    /// A hub in memory that gives nothing time to finish when it ends.
    pub fn builder() -> HubBuilder {
        let config = ServeConfig { drain_timeout: Duration::ZERO, ..ServeConfig::for_trial() };
        HubBuilder { config, folder: None }
    }

    pub async fn start() -> TestHub {
        TestHub::builder().start().await
    }

    /// The handle of the hub itself.
    pub fn hub(&self) -> &Hub {
        self.hub.as_ref().expect("it was not told to end")
    }

    /// The folder of a hub on disk.
    pub fn data(&self) -> &std::path::Path {
        self.folder.as_ref().expect("it is on disk").path()
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        let (_, rest) = self.url.split_once("://").expect("an address");
        rest.split('/').next().expect("there is a first part")
    }

    /// Tells the hub to end, as SIGTERM does, and does not wait.
    pub fn begin_shutdown(&mut self) {
        self.hub = None;
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }

    /// Ends the hub, and checks that it ends well.
    pub async fn shutdown(&mut self) {
        self.begin_shutdown();
        self.wait_until_ended();
    }

    /// Ends the hub and starts it again, on the same folder and the same port.
    pub async fn restart(&mut self) {
        assert!(self.folder.is_some(), "only what is on disk is there after a restart");
        self.config.listen = self.address().parse().expect("the address of before");
        self.shutdown().await;
        let ((url, hub), end, thread) = launch(self.config.clone()).await;
        (self.url, self.hub, self.end, self.thread) = (url, Some(hub), Some(end), Some(thread));
    }

    fn wait_until_ended(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let begun = std::time::Instant::now();
        while !thread.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "the hub did not end within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        thread.join().expect("the hub ended without a panic");
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something in a hub has panicked; see above");
        if let Some(folder) = &self.folder {
            let log = folder.path().join("taskhub.db-wal");
            let left = log.metadata().map_or(0, |log| log.len());
            assert_eq!(left, 0, "the store was not closed: this much is not in its file");
        }
    }

    // Calls.

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::of(request).await
    }

    /// A request to fill in; `path` begins with `/`.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).timeout(Duration::from_secs(30))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(&body)).await
    }

    /// What a command prints about this hub.
    pub fn command(&self, args: &[&str]) -> String {
        let output = super::program().args(args).env("TASKHUB_URL", &self.url).output().expect("the program runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// A POST without a body.
    pub async fn tell(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None).await
    }

    // Tasks.

    /// Submits a task, and answers it.
    pub async fn submit(&self, task: Value) -> Value {
        self.post("/api/v1/tasks", task).await.expect(201)
    }

    /// Submits a task of type `t`, and answers its id.
    pub async fn submit_any(&self) -> String {
        id(&self.submit(json!({"task_type": "t"})).await)
    }

    pub async fn task(&self, task_id: &str) -> Value {
        self.get(&format!("/api/v1/tasks/{task_id}")).await.expect(200)
    }

    /// The task once it is final.
    pub async fn finished(&self, task_id: &str) -> Value {
        let task = self.get(&format!("/api/v1/tasks/{task_id}?wait_ms=20000")).await.expect(200);
        assert!(task["finished_at"].is_string(), "not final: {task}");
        task
    }

    /// The task once it has this status.
    pub async fn once(&self, task_id: &str, status: &str) -> Value {
        let mut task = self.task(task_id).await;
        let begun = std::time::Instant::now();
        while task["status"] != status {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {status}: {task}");
            let path = format!("/api/v1/tasks/{task_id}?wait_ms=5000&since_rev={}", task["rev"]);
            task = self.get(&path).await.expect(200);
        }
        task
    }

    /// The events of a task's history, oldest first.
    pub async fn events(&self, task_id: &str) -> Vec<String> {
        let history = self.get(&format!("/api/v1/tasks/{task_id}/history")).await.expect(200);
        let transitions = history["transitions"].as_array().expect("transitions");
        transitions.iter().map(|line| line["event"].as_str().expect("an event").replace("task.", "")).collect()
    }

    // Workers.

    /// Claims one task over plain HTTP, waiting for it.
    pub async fn claim(&self, worker_id: &str) -> Value {
        let claim = json!({"worker_id": worker_id, "wait_ms": 10_000});
        let claimed = self.post("/api/v1/worker/claim", claim).await.expect(200);
        assert_eq!(claimed["tasks"].as_array().map(Vec::len), Some(1), "{claimed}");
        claimed["tasks"][0].clone()
    }

    /// Says something of an attempt over plain HTTP.
    pub async fn attempt(&self, task_id: &str, attempt: u64, verb: &str, body: Value) -> Answer {
        self.post(&format!("/api/v1/tasks/{task_id}/attempts/{attempt}/{verb}"), body).await
    }

    /// A worker on a socket that was welcomed.
    pub async fn worker(&self, worker_id: &str, hello: Value) -> TestSocket {
        let mut socket = TestSocket::open(self, "/api/v1/worker/ws", &["taskhub.worker.v1"]).await;
        let mut words = json!({"op": "hello", "worker_id": worker_id});
        words.as_object_mut().expect("an object").extend(hello.as_object().expect("an object").clone());
        socket.say(words).await;
        socket.expect("welcome").await;
        socket
    }

    /// A live client that has read the hub's hello.
    pub async fn live(&self) -> TestSocket {
        let mut socket = TestSocket::open(self, "/api/v1/ws", &["taskhub.v1"]).await;
        let hello = socket.expect("hello").await;
        assert!(hello.get("id").is_none(), "the first word answers nothing: {hello}");
        socket
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.begin_shutdown();
        if !std::thread::panicking() {
            self.wait_until_ended();
        }
    }
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the hub answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("an answer is text");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, text, body }
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// A refusal with this status and code.
    pub fn refused(self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code);
        problem
    }

    /// The problem of a refusal, checked for its shape, as `code` or `code field`.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let text = |name: &str| self.body[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.text));
        let code = text("code");
        assert_eq!(text("type"), format!("urn:taskhub:problem:{code}"), "{}", self.text);
        assert_eq!(self.body["status"], self.status, "{}", self.text);
        assert!(!text("title").is_empty() && !text("detail").is_empty(), "{}", self.text);
        match self.body["field"].as_str() {
            Some(field) => format!("{} {code} {field}", self.status),
            None => format!("{} {code}", self.status),
        }
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a plain header"))
    }
}

/// The id of a task.
#[track_caller]
pub fn id(task: &Value) -> String {
    task["task_id"].as_str().unwrap_or_else(|| panic!("no task: {task}")).to_owned()
}
