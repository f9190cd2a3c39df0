//! Progress as fast as a worker can say it, and what a tick costs the hub with some and with many who watch.
//!
//! The library's worker would conflate ticks before it sends them; here every tick is a message of its own, as a worker in
//! another language might send it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::connection::find;
use crate::floor::Floor;
use crate::hub::{Folder, Hub};
use crate::process::Process;
use crate::report::{Report, Row, median};
use crate::roles::{say, until_told};
use crate::socket::Socket;

pub const NAMES: [&str; 2] = ["progress/1_watcher", "progress/100_watchers"];

const TASKS: usize = 1_000;
const TICKS: usize = 100;
const RUNS: usize = 3;
/// What is held back for its pace is told within this.
const TAIL: Duration = Duration::from_millis(400);

pub async fn run(report: &mut Report, floor: &Floor) -> Outcome {
    for (name, watchers, target) in [(NAMES[0], 1, "≤ 10 µs a tick"), (NAMES[1], 100, "≤ 15 µs a tick")] {
        if !report.wants(&[name]) {
            continue;
        }
        let (mut costs, mut told) = (Vec::new(), String::new());
        for _ in 0..RUNS {
            let (cost, bytes) = once(watchers).await?;
            costs.push(cost);
            told = format!("{:.1} MB told", bytes as f64 / 1e6);
        }
        let cost = median(costs);
        report.row(Row {
            name,
            measured: format!("{cost:.1} µs of hub CPU a tick ({told})"),
            target,
            floor: Some(format!("{:.2} × bare axum request", cost / floor.request_us)),
            peers: "BullMQ 53 without a reader, 76 with one; Celery 571; TaskIQ 455–1,074",
        });
    }
    Ok(())
}

/// Microseconds of hub CPU a tick, and the bytes all watchers got.
async fn once(watchers: usize) -> Outcome<(f64, u64)> {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let task = r#"{"task_type":"tick"}"#;
    let body = format!(r#"{{"tasks":[{}]}}"#, vec![task; TASKS].join(","));
    hub.post("/api/v1/tasks/batch", body.as_bytes()).await?;
    let address = hub.address.to_string();
    let mut ticker = Process::role("ticker", &[&address, &TASKS.to_string(), &TICKS.to_string()])?;
    ticker.hear()?;
    let mut audience = Process::role("watchers", &[&address, &watchers.to_string()])?;
    audience.hear()?;
    hub.process.until_quiet().await?;

    let before = hub.process.cpu()?;
    ticker.say("go")?;
    ticker.hear()?;
    tokio::time::sleep(TAIL).await;
    let cost = (hub.process.cpu()? - before).as_secs_f64() * 1e6 / (TASKS * TICKS) as f64;
    let list = hub.get("/api/v1/tasks?limit=500").await?;
    let tasks = list["tasks"].as_array().ok_or("no tasks")?;
    if tasks.iter().any(|task| task["progress"]["current"] != TICKS) {
        return Err("the hub did not take every tick".into());
    }
    audience.say("how much")?;
    Ok((cost, audience.hear()?.parse()?))
}

/// The role `ticker`: a worker that holds all the tasks, and when told to reports every tick of them.
pub async fn ticker(address: SocketAddr, tasks: usize, ticks: usize) -> Outcome {
    let mut socket = Socket::open(address, "/api/v1/worker/ws", "taskhub.worker.v1").await?;
    socket.send(&format!(r#"{{"op":"hello","worker_id":"ticker","concurrency":{tasks}}}"#)).await?;
    let mut held = Vec::new();
    while held.len() < tasks {
        let text = socket.next().await?;
        for line in text.lines().filter(|line| line.contains(r#""type":"run""#)) {
            let run: serde_json::Value = serde_json::from_str(line)?;
            held.push(run["task"]["task_id"].as_str().ok_or("a run without task_id")?.to_owned());
        }
    }
    say("holding")?;
    let mut told = std::pin::pin!(until_told());
    let mut heartbeat = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            order = &mut told => { order?; break }
            _ = heartbeat.tick() => socket.send(r#"{"op":"heartbeat"}"#).await?,
        }
    }
    for tick in 1..=ticks {
        for (at, task_id) in held.iter().enumerate() {
            socket
                .feed(format!(
                    r#"{{"op":"progress","task_id":"{task_id}","attempt":1,"progress":{{"current":{tick},"total":{ticks},"message":"step {tick}"}}}}"#
                ))
                .await?;
            if at % 100 == 99 {
                socket.flush().await?;
            }
        }
    }
    socket.until_heard().await?;
    say("sent")?;
    std::future::pending().await
}

/// The role `watchers`: sockets that watch everything, and only count what they get.
pub async fn watchers(address: SocketAddr, watchers: usize) -> Outcome {
    let counted = std::rc::Rc::new(std::cell::Cell::new(0));
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for _ in 0..watchers {
                let mut stream = watch(address).await?;
                let counted = counted.clone();
                tokio::task::spawn_local(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                        counted.set(counted.get() + len as u64);
                    }
                });
            }
            say("watching")?;
            until_told().await?;
            say(counted.get())
        })
        .await
}

/// A socket whose frames nobody takes apart: subscribed to everything, and past its snapshot.
async fn watch(address: SocketAddr) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let upgrade = "GET /api/v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   sec-websocket-protocol: taskhub.v1\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await?;
    let subscribe = br#"{"op":"subscribe","id":1,"sub":"a","filter":{},"snapshot":{"limit":1}}"#;
    // A text frame with a mask of nothing.
    let mut frame = vec![0x81, 0x80 | subscribe.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(subscribe);
    stream.write_all(&frame).await?;
    let mut read = Vec::new();
    while find(&read, br#""type":"mark""#).is_none() {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(format!("no live socket: {}", String::from_utf8_lossy(&read)).into());
        }
    }
    Ok(stream)
}
