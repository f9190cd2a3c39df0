//! Whether floods are felt: single submissions while workers log without end, and while others submit large payloads.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::Outcome;
use crate::connection::{Connection, last_task_id};
use crate::hub::{Folder, Hub};
use crate::process::Process;
use crate::report::{Report, Row, quantile};
use crate::roles::{PAUSE, say, until_told};
use crate::socket::Socket;

pub const NAMES: [&str; 2] = ["flood/submit_while_2_workers_log", "flood/submit_while_64_post_1_mib"];

const SAMPLES: usize = 1_000;
const LINES: usize = 500;
const LOGGERS: usize = 2;
const POSTERS: usize = 64;

pub async fn run(report: &mut Report) -> Outcome {
    let kinds: [(&str, &str, usize, &str); 2] =
        [(NAMES[0], "logs", LOGGERS, "p99 ≤ 50 ms"), (NAMES[1], "bodies", 1, "p50 ≤ 10 ms")];
    for (name, kind, processes, target) in kinds {
        if !report.wants(&[name]) {
            continue;
        }
        let folder = Folder::new()?;
        let hub = Hub::start(&folder).await?;
        let mut connection = Connection::open(hub.address).await?;
        let mut floods = Vec::new();
        for _ in 0..processes {
            if kind == "logs" {
                connection.post("/api/v1/tasks", br#"{"task_type":"logs"}"#).await?;
            }
            floods.push(Process::role("flood", &[&hub.address.to_string(), kind])?);
        }
        for flood in &mut floods {
            flood.hear()?;
            flood.say("go")?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut times = Vec::new();
        for _ in 0..SAMPLES {
            tokio::time::sleep(PAUSE).await;
            let begun = Instant::now();
            connection.post("/api/v1/tasks", br#"{"task_type":"waits"}"#).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let mut a_second = 0.0;
        for flood in &mut floods {
            flood.say("enough")?;
            a_second += flood.hear()?.parse::<f64>()?;
        }
        let what = if kind == "logs" { "lines" } else { "MiB" };
        report.row(Row {
            name,
            measured: format!(
                "p50 {:.2} ms, p99 {:.1} ms, at {a_second:.0} {what}/s",
                quantile(&mut times, 0.5),
                quantile(&mut times, 0.99)
            ),
            target,
            floor: None,
            peers: "",
        });
    }
    Ok(())
}

/// Floods until it is told that it is enough, and says how much it was a second.
pub async fn flood(address: SocketAddr, kind: &str) -> Outcome {
    say("ready")?;
    until_told().await?;
    let (begun, amount) = (Instant::now(), Cell::new(0));
    let flood = async {
        match kind {
            "logs" => log(address, &amount).await,
            _ => try_join_all((0..POSTERS).map(|_| post(address, &amount))).await.map(drop),
        }
    };
    tokio::select! {
        ended = flood => ended?,
        told = until_told() => told?,
    }
    say(f64::from(amount.get()) / begun.elapsed().as_secs_f64())
}

/// A worker whose task logs as fast as the hub reads.
async fn log(address: SocketAddr, lines: &Cell<u32>) -> Outcome {
    let mut socket = Socket::open(address, "/api/v1/worker/ws", "taskhub.worker.v1").await?;
    let id = std::process::id();
    socket.send(&format!(r#"{{"op":"hello","worker_id":"w{id}","task_types":["logs"],"concurrency":1}}"#)).await?;
    let task_id = loop {
        let said = socket.next().await?;
        if said.contains(r#""type":"run""#) {
            break last_task_id(said.as_bytes())?;
        }
    };
    let line =
        r#"{"level":"info","message":"one of very many lines, as long as lines are when somebody left debug on"}"#;
    let lines_of = vec![line; LINES].join(",");
    let message = format!(r#"{{"op":"log","task_id":"{task_id}","attempt":1,"lines":[{lines_of}]}}"#);
    loop {
        socket.send(&message).await?;
        lines.set(lines.get() + LINES as u32);
    }
}

/// A client that submits payloads of 1 MiB. Where there is no room for one it is refused, and tries again.
async fn post(address: SocketAddr, bodies: &Cell<u32>) -> Outcome {
    let mut connection = Connection::open(address).await?;
    let body = format!(r#"{{"task_type":"large","payload":"{}"}}"#, "x".repeat((1 << 20) - 2));
    loop {
        match connection.try_post("/api/v1/tasks", body.as_bytes()).await? {
            201 => bodies.set(bodies.get() + 1),
            503 => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                connection = Connection::open(address).await?;
            }
            status => return Err(format!("a large payload was answered with {status}").into()),
        }
    }
}
