//! The hub behind proxies, by a name of its own and under a path: nginx and HAProxy, configured as the examples say.
//!
//! Regression: behind nginx as most people write it the page came, the socket was refused, and nobody said so; under a path
//! the API's page looked for its document where the hub was not.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Url;
use serde_json::{Value, json};
use taskhub::client::{Client, LiveEvent, Subscribe, TaskEvent};
use taskhub::task::NewTask;
use taskhub::worker::{TaskFailure, Worker};
use tempfile::TempDir;

use crate::browser::Browser;
use crate::kit::{PATIENCE, Program, TestHub, TestSocket, eventually, id, in_time, millis, program};
use crate::tls::Certificate;

const RULES: &str = "--host-resolver-rules=MAP *.example 127.0.0.1";

/// A proxy in front of a hub, until it is dropped.
struct Proxy {
    port: u16,
    _process: Program,
    _folder: TempDir,
}

impl Proxy {
    /// nginx with these server blocks, which listen at port 80 and know the hub at port 8080.
    async fn nginx(hub: &TestHub, servers: &str) -> Proxy {
        Proxy::nginx_at(|port| {
            servers.replace("listen 80;", &format!("listen 127.0.0.1:{port};")).replace("127.0.0.1:8080", hub.address())
        })
        .await
    }

    /// nginx with these server blocks, which listen at the port that they are given.
    async fn nginx_at(servers: impl Fn(u16) -> String) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = folder.path().display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|name| format!("{name}_temp_path {at}/{name};")).concat();
        Proxy::start("nginx", &["-c"], "nginx.conf", folder, |port| {
            let servers = servers(port);
            format!(
                "daemon off; master_process off; pid {at}/pid; error_log stderr;
                 events {{}} http {{ access_log off; {temporary} {servers} }}"
            )
        })
        .await
    }

    async fn haproxy(hub: &TestHub, config: &str) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Proxy::start("haproxy", &["-db", "-f"], "haproxy.cfg", folder, |port| {
            config.replace("bind :80", &format!("bind 127.0.0.1:{port}")).replace("127.0.0.1:8080", hub.address())
        })
        .await
    }

    /// On a port that was free a moment ago; if it is taken meanwhile, on another.
    async fn start(name: &str, options: &[&str], file: &str, folder: TempDir, text: impl Fn(u16) -> String) -> Proxy {
        let paths = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let program = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file());
        let program = program.unwrap_or_else(|| panic!("{name} is needed to test proxies: run tests/deps.sh"));
        let begun = Instant::now();
        loop {
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound").port();
            let path = folder.path().join(file);
            std::fs::write(&path, text(port)).expect("the folder can be written");
            let mut command = Command::new(&program);
            command.args(options).arg(&path).current_dir(folder.path());
            let mut process = Program::start(command);
            while process.is_running() {
                if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Proxy { port, _process: process, _folder: folder };
                }
                tokio::time::sleep(millis(5)).await;
            }
            assert!(begun.elapsed() < PATIENCE, "{name} does not start: {}", process.said());
        }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL by this name.
    fn url(&self, name: &str) -> String {
        format!("http://{name}:{}", self.port)
    }
}

fn example(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file)).expect("an example")
}

/// A client that finds every name on this machine.
fn client(names: &[&str]) -> reqwest::Client {
    let here = "127.0.0.1:0".parse().expect("an address");
    let client = names.iter().fold(reqwest::Client::builder().no_proxy(), |client, name| client.resolve(name, here));
    client.timeout(Duration::from_secs(30)).build().expect("a client")
}

/// A hub that knows the names of the examples.
async fn hub() -> TestHub {
    TestHub::builder().set(|config| config.hosts = vec!["hub.example".into(), "app.example".into()]).start().await
}

/// Everything that a hub is used for, at `base`: the address as people see it, perhaps with a path.
async fn check(proxy: &Proxy, base: &str) {
    let client = client(&["hub.example", "app.example"]);
    let base = Url::parse(&format!("{base}/")).unwrap();
    let name = base.host_str().unwrap();
    let path = base.path().trim_end_matches('/').to_owned();

    // REST: a submission, and where it says that the task is.
    let tasks = base.join("api/v1/tasks").unwrap();
    let task = json!({"task_type": "t", "payload": "x".repeat(900_000)});
    let submitted = client.post(tasks.clone()).json(&task).send().await.unwrap();
    assert_eq!(submitted.status(), 201, "{base}");
    let location = submitted.headers()["location"].to_str().unwrap().to_owned();
    let found = client.get(tasks.join(&location).unwrap()).send().await.unwrap();
    assert_eq!(found.status(), 200, "{base}: {location}");
    let task_id = id(&found.json::<Value>().await.unwrap());

    // Events arrive when they happen, though the proxy gathers answers.
    let mut events = client.get(base.join("api/v1/events").unwrap()).send().await.unwrap();
    let mut text = String::new();
    let mut until = async |wanted: &str| {
        while !text.contains(wanted) {
            let chunk =
                in_time(format_args!("{base}: {wanted} in {text}"), events.chunk()).await.unwrap().expect("more");
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    until("event: mark").await;

    // A worker on a socket takes the task, and what it says is heard on a live socket.
    let heads = format!("Host: {name}:{}\r\nOrigin: http://{name}:{}", proxy.port, proxy.port);
    let mut worker =
        TestSocket::dial_with(&proxy.address(), &format!("{path}/api/v1/worker/ws"), &["taskhub.worker.v1"], &heads)
            .await;
    let mut live = TestSocket::dial_with(&proxy.address(), &format!("{path}/api/v1/ws"), &["taskhub.v1"], &heads).await;
    live.expect("hello").await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a", "filter": {"task_id": [&task_id]}})).await;
    live.next_of("mark").await;
    worker.say(json!({"op": "hello", "worker_id": "w"})).await;
    worker.next_of("run").await;
    worker.say(json!({"op": "complete", "task_id": task_id, "attempt": 1, "result": 1})).await;
    worker.next_of("ack").await;
    live.event("task.completed").await;
    until("task.completed").await;
    drop((worker, live, events));

    // The page is live, and the API's page finds its document and calls the hub where it is.
    let mut page = Browser::start_with(&[RULES]).await.open(base.as_str()).await;
    page.until("document.querySelector('#connection')?.innerText === 'Live'").await;
    page.until(&format!("document.querySelector('a.row[href$=\"{task_id}\"]')?.dataset.status === 'completed'")).await;
    page.close().await;
    let mut docs = Browser::start_with(&[RULES]).await.open(base.join("api/docs").unwrap().as_str()).await;
    docs.until("document.querySelector('#operations-Operations-stats')").await;
    docs.click("#operations-Operations-stats .opblock-summary-control").await;
    docs.click("#operations-Operations-stats .try-out__btn").await;
    docs.click("#operations-Operations-stats .execute").await;
    docs.until(
        "document.querySelector('.live-responses-table tbody .response-col_status')?.innerText.startsWith('200')",
    )
    .await;
    docs.close().await;
}

#[tokio::test]
async fn nginx_as_in_the_example() {
    let hub = hub().await;
    let proxy = Proxy::nginx(&hub, &example("nginx.conf")).await;
    for base in [proxy.url("hub.example"), format!("{}/hub", proxy.url("app.example"))] {
        check(&proxy, &base).await;
    }
}

#[tokio::test]
async fn haproxy_as_in_the_example() {
    let hub = hub().await;
    let proxy = Proxy::haproxy(&hub, &example("haproxy.cfg")).await;
    for base in [proxy.url("hub.example"), format!("{}/hub", proxy.url("app.example"))] {
        check(&proxy, &base).await;
    }
}

/// A proxy that leaves the path on, before a hub that is told of it.
#[tokio::test]
async fn nginx_that_passes_the_path_on() {
    let set = |config: &mut taskhub::config::ServeConfig| {
        config.hosts = vec!["app.example".into()];
        config.base_path = "/in/tasks".parse().unwrap();
    };
    let hub = TestHub::builder().set(set).start().await;
    let config = example("nginx.conf").replace("/hub", "/in/tasks").replace("http://taskhub/;", "http://taskhub;");
    let proxy = Proxy::nginx(&hub, &config).await;
    check(&proxy, &format!("{}/in/tasks", proxy.url("app.example"))).await;
}

/// The programs find a hub under a path, too.
#[tokio::test]
async fn clients_and_commands_under_a_path() {
    let hub = TestHub::start().await;
    let proxy =
        Proxy::nginx(&hub, &example("nginx.conf").replace("server_name app.example", "server_name localhost")).await;
    let url = format!("{}/hub", proxy.url("localhost"));
    let client = Client::new(&url).unwrap();
    let mut live = client.live();
    live.subscribe(Subscribe::default());
    let mut command = program();
    command.args(["submit", "greet", "{}", "--json", "--hub", &url]);
    let submitted = command.output().unwrap();
    assert!(submitted.status.success(), "{submitted:?}");
    let task_id = id(&serde_json::from_slice(&submitted.stdout).unwrap());
    let heard = in_time("the task is told", async {
        loop {
            match live.next().await.expect("it goes on") {
                LiveEvent::Of(_, TaskEvent::Task { task, .. }) => return task.task_id.to_string(),
                LiveEvent::Of(_, TaskEvent::Snapshot { tasks, .. }) if !tasks.is_empty() => {
                    return tasks[0].task_id.to_string();
                }
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(heard, task_id);
}

/// TLS in front, a Unix socket behind: nothing of the hub is reached but through nginx.
#[tokio::test]
async fn nginx_with_tls_before_a_unix_socket() {
    let made = Certificate::new();
    let socket = made.cert().with_file_name("hub.sock");
    let listen = format!("unix:{}", socket.display()).parse().unwrap();
    let set = |config: &mut taskhub::config::ServeConfig| {
        config.listen = listen;
        config.trusted_proxies = vec!["unix".into()];
        config.live.live_per_caller_max = 3;
    };
    let _hub = TestHub::builder().set(set).start().await;
    let config = example("nginx-tls.conf")
        .replace("/run/taskhub/hub.sock", &socket.display().to_string())
        .replace("/etc/ssl/hub.example.pem", &made.cert().display().to_string())
        .replace("/etc/ssl/hub.example.key", &made.key().display().to_string());
    let proxy = Proxy::nginx_at(|port| config.replace("listen 443 ", &format!("listen 127.0.0.1:{port} "))).await;
    let url = format!("https://localhost:{}", proxy.port);

    let client = Client::trusting(&url, &made.cert()).unwrap();
    let task = NewTask::new("greet").payload(&"x".repeat(900_000)).unwrap();
    let task = client.submit(&task).await.unwrap();
    let worker = Worker::new(&url).ca_cert(made.cert()).register("greet", |_| async { Ok::<_, TaskFailure>(1) });
    let worker = tokio::spawn(worker.run(std::future::pending()));
    let done = in_time("the task ends", client.task(task.task_id).finished()).await.unwrap();
    assert_eq!(done.status.to_string(), "completed");
    worker.abort();

    let mut page = Browser::start_with(&["--ignore-certificate-errors"]).await.open(&format!("{url}/")).await;
    page.until("document.querySelector('#connection')?.innerText === 'Live'").await;
    page.until(&format!("document.querySelector('a.row[href$=\"{}\"]')?.dataset.status === 'completed'", task.task_id))
        .await;
    page.close().await;

    // Events come when they happen; and whoever claims other addresses has no more room than others.
    let plain = reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap();
    let stream = async |claim: &str| {
        let request = plain.get(format!("{url}/api/v1/events"));
        let request = request.header("x-forwarded-for", claim).header("forwarded", format!("for={claim}"));
        let mut answer = request.send().await.unwrap();
        let first = in_time("the first word", answer.chunk()).await.unwrap().expect("something is said");
        (!String::from_utf8_lossy(&first).contains("event: bye")).then_some(answer)
    };
    let mut held = Vec::new();
    // The page's socket may be there for a moment still.
    eventually("there is room for three", async || {
        held.extend(stream(&format!("198.51.100.{}", held.len())).await);
        (held.len() == 3).then_some(())
    })
    .await;
    for n in 0..5 {
        assert!(stream(&format!("203.0.113.{n}")).await.is_none(), "three are there");
    }
}

/// What most people write first: nginx tells the hub its own name for it, or leaves the port out. Without `--hosts` the page
/// says what is wrong and what to do; with it, all is well.
#[tokio::test]
async fn nginx_without_a_word_of_the_host() {
    const SOCKETS: &str =
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
    let server = |more: &str| {
        format!("server {{ listen 80; location / {{ proxy_pass http://127.0.0.1:8080; {SOCKETS} {more} }} }}")
    };
    for host in ["", "proxy_set_header Host $host;"] {
        let hub = TestHub::start().await;
        let proxy = Proxy::nginx(&hub, &server(host)).await;
        let mut page = Browser::start_with(&[RULES]).await.open(&proxy.url("hub.example")).await;
        page.until("document.querySelector('#connection')?.innerText === 'Refused'").await;
        let banner = page.text("#banner").await;
        assert!(banner.contains("hub.example") && banner.contains("--hosts hub.example"), "{host}: {banner}");

        let hub = TestHub::builder().set(|config| config.hosts = vec!["hub.example".into()]).start().await;
        let proxy = Proxy::nginx(&hub, &server(host)).await;
        let mut page = Browser::start_with(&[RULES]).await.open(&proxy.url("hub.example")).await;
        page.until("document.querySelector('#connection')?.innerText === 'Live'").await;
        page.close().await;
    }
}

/// A proxy gives up a connection on which nothing is said for a minute (here: five seconds). The hub says something before.
#[tokio::test]
async fn idle_connections_outlive_the_patience_of_a_proxy() {
    let hub = TestHub::builder().set(|config| config.live.live_ping = Duration::from_secs(1)).start().await;
    let patience = "proxy_read_timeout 5s; proxy_send_timeout 5s;";
    let proxy =
        Proxy::nginx(&hub, &example("nginx.conf").replace("hub.example;", &format!("localhost; {patience}"))).await;
    let heads = format!("Host: localhost:{}", proxy.port);
    let at = proxy.address();
    let mut live = TestSocket::dial_with(&at, "/api/v1/ws", &["taskhub.v1"], &heads).await;
    live.say(json!({"op": "subscribe", "id": 1, "sub": "a"})).await;
    let mut worker = TestSocket::dial_with(&at, "/api/v1/worker/ws", &["taskhub.worker.v1"], &heads).await;
    worker.say(json!({"op": "hello", "worker_id": "w"})).await;
    worker.expect("welcome").await;
    let mut events = client(&[]).get(format!("{}/api/v1/events", proxy.url("localhost"))).send().await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        worker.say(json!({"op": "heartbeat"})).await;
        // While nothing happens, marks come at the pace of pings.
        live.next_of("mark").await;
    }
    hub.submit_any().await;
    worker.next_of("run").await;
    live.event("task.created").await;
    let mut text = String::new();
    while !text.contains("task.created") {
        let chunk = in_time("an event", events.chunk()).await.unwrap().expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}
