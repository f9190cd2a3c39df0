//! A hub on a Unix socket: everything is served there, and whoever may not open the file is nobody.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use taskhub::client::Client;
use taskhub::task::NewTask;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::kit::{HubProcess, PATIENCE, Program, TestHub, eventually, id, in_time, program};

async fn hub_at(path: &Path) -> TestHub {
    let listen = format!("unix:{}", path.display()).parse().unwrap();
    TestHub::builder().set(|config| config.listen = listen).start().await
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    (folder, path)
}

/// The head of the answer to a request as it stands here.
async fn raw(path: &Path, request: &str) -> String {
    let mut socket = UnixStream::connect(path).await.expect("the hub is there");
    socket.write_all(request.as_bytes()).await.expect("the hub reads");
    let mut answer = Vec::new();
    in_time("an answer", socket.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8(answer).expect("it is text")
}

#[tokio::test]
async fn the_programs_and_others_reach_it() {
    let (_folder, path) = place();
    let hub = hub_at(&path).await;
    assert_eq!(hub.url, format!("unix:{}", path.display()));

    // A worker and a watcher on sockets, which are Unix sockets too.
    let client = Client::new(&hub.url).unwrap();
    let mut worker = program();
    let config = path.with_extension("toml");
    std::fs::write(&config, "[tasks.greet]\ncommand = [\"sh\", \"-c\", \"echo '{\\\"said\\\":1}'\"]\n").unwrap();
    worker.args(["worker", "--hub", &hub.url, "--config"]).arg(&config);
    let _worker = Program::start(worker);
    let task = client.submit(&NewTask::new("greet")).await.unwrap();
    let done = in_time("the task ends", client.task(task.task_id).finished()).await.unwrap();
    assert_eq!(done.status.to_string(), "completed", "{done:?}");

    let mut command = program();
    command.args(["get", &task.task_id.to_string(), "--json", "--hub", &hub.url]);
    let output = command.output().unwrap();
    assert_eq!(id(&serde_json::from_slice(&output.stdout).unwrap()), task.task_id.to_string(), "{output:?}");
    let mut command = program();
    command.args(["open", "--no-open", "--hub", &hub.url]);
    let output = command.output().unwrap();
    assert!(
        output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("no browser"),
        "{output:?}"
    );

    let curl =
        Command::new("curl").args(["-sS", "--unix-socket"]).arg(&path).arg("http://localhost/api/v1/stats").output();
    let stats: Value = serde_json::from_slice(&curl.expect("curl is there").stdout).unwrap();
    assert_eq!(stats["tasks"]["completed"], json!(1), "{stats}");
}

/// The rule is that of loopback: a proxy that passes on what browsers send opens nothing.
#[tokio::test]
async fn names_and_pages_are_checked_there_too() {
    let (_folder, path) = place();
    let _hub = hub_at(&path).await;
    let ask = async |heads: &str| {
        let request = format!("GET /api/v1/tasks HTTP/1.1\r\n{heads}Connection: close\r\n\r\n");
        raw(&path, &request).await[9..12].to_owned()
    };
    for heads in
        ["Host: localhost\r\n", "Host: 127.0.0.1:80\r\n", "Host: localhost\r\nOrigin: http://localhost:3000\r\n"]
    {
        assert_eq!(ask(heads).await, "200", "{heads}");
    }
    for heads in [
        "Host: evil.example\r\n",
        "Host: \r\n",
        "Host: hub\r\n",
        "Host: 10.0.0.1\r\n",
        "",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(ask(heads).await, "403", "{heads}");
    }
    let absolute =
        raw(&path, "GET http://evil.example/api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
    assert_eq!(&absolute[9..12], "403");
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let (folder, path) = place();
    let listen = format!("unix:{}", path.display());
    let data = |name: &str| folder.path().join(name);
    let hub = HubProcess::start_at(&listen, &data("a"), [""; 0]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(hub.url, listen);
    let mut second = program();
    second.args(["serve", "--listen", &listen, "--data"]).arg(data("b"));
    let mut second = Program::start(second);
    let status = second.wait(PATIENCE);
    let words = second.said();
    assert!(!status.success() && words.contains("another program listens there"), "{words}");
    assert!(!data("b").exists(), "a hub that cannot listen touches nothing");
    Client::new(&listen).unwrap().stats().await.unwrap();

    // Killed, it leaves its file.
    drop(hub);
    assert!(path.exists());
    let hub = HubProcess::start_at(&listen, &data("a"), ["--unix-mode", "0660"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    Client::new(&listen).unwrap().stats().await.unwrap();
    hub.program.signal(libc::SIGTERM);
    eventually("the file goes with the hub", async || (!path.exists()).then_some(())).await;
}
