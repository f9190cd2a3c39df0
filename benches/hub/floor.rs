//! What this machine charges for the bare minimum: an axum handler that puts a task into a map, a SQLite commit, an echo.
//! What the hub needs is told as a multiple of these.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::Outcome;
use crate::hub::Folder;
use crate::process::{Process, cpu_of_this_thread};
use crate::report::{grouped, median};
use crate::roles::{Flood, PAUSE, say};

pub struct Floor {
    /// CPU of the server for a request, 64 connections.
    pub request_us: f64,
    /// CPU of the server for a task, in batches of 100.
    pub batched_task_us: f64,
    pub requests_a_second: f64,
    /// CPU of a commit of one row of 300 bytes, and of a row in commits of 100.
    pub commit_us: f64,
    pub row_us: f64,
    /// A commit of one row from call to return, fsync included, on a machine at rest.
    pub fsync_ms: f64,
    /// There and back between two processes, on a machine at rest.
    pub echo_ms: f64,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "floor: axum + uuid + map {:.1} µs CPU a request ({:.2} µs a task in batches of 100), {} requests/s; SQLite \
             WAL/FULL {:.0} µs CPU a commit ({:.2} µs a row in commits of 100); after a pause, {:.2} ms a commit with its \
             fsync, {:.3} ms an echo",
            self.request_us,
            self.batched_task_us,
            grouped(self.requests_a_second),
            self.commit_us,
            self.row_us,
            self.fsync_ms,
            self.echo_ms,
        )
    }
}

pub async fn measure() -> Outcome<Floor> {
    let mut server = Process::role("bare-http", &[])?;
    let address: SocketAddr = server.hear()?.parse()?;
    let task = r#"{"task_type":"noop","payload":{"n":1}}"#.to_owned();
    let single = Flood { connections: 64, tasks: 40_000, batch: 1, task: task.clone() };
    let batched = Flood { connections: 2, tasks: 400_000, batch: 100, task };
    Flood { tasks: 2_000, ..single.clone() }.run(address).await?;
    let before = server.cpu()?;
    let flooded = single.run(address).await?;
    let between = server.cpu()?;
    batched.run(address).await?;
    let after = server.cpu()?;
    drop(server);

    let folder = Folder::new()?;
    let (commit_us, _) = commits(&folder, 1, 1_000, Duration::ZERO)?;
    let (commit_of_100_us, _) = commits(&folder, 100, 300, Duration::ZERO)?;
    // Whoever rests wakes slowly and finds the caches cold: an idle hub is compared with these.
    let (_, fsync_ms) = commits(&folder, 1, 300, PAUSE)?;
    Ok(Floor {
        request_us: (between - before).as_secs_f64() * 1e6 / single.tasks as f64,
        batched_task_us: (after - between).as_secs_f64() * 1e6 / batched.tasks as f64,
        requests_a_second: single.tasks as f64 / flooded.seconds,
        commit_us,
        row_us: commit_of_100_us / 100.0,
        fsync_ms,
        echo_ms: echo().await?,
    })
}

/// CPU of a commit of `rows` in microseconds, and the median time it takes in milliseconds, with a pause before each.
fn commits(folder: &Folder, rows: usize, count: usize, pause: Duration) -> Outcome<(f64, f64)> {
    let name = format!("floor-{rows}-{}.db", pause.as_millis());
    let mut conn = rusqlite::Connection::open(folder.path().join(name))?;
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.execute_batch("PRAGMA synchronous = FULL; CREATE TABLE log (row INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let body = [b'x'; 300];
    let mut times = Vec::new();
    let cpu = cpu_of_this_thread()?;
    for _ in 0..count {
        std::thread::sleep(pause);
        let begun = Instant::now();
        let tx = conn.transaction()?;
        {
            let mut insert = tx.prepare_cached("INSERT INTO log (body) VALUES (?1)")?;
            for _ in 0..rows {
                insert.execute([&body[..]])?;
            }
        }
        tx.commit()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_us = (cpu_of_this_thread()? - cpu).as_secs_f64() * 1e6 / count as f64;
    Ok((cpu_us, median(times)))
}

async fn echo() -> Outcome<f64> {
    let mut other = Process::role("bare-echo", &[])?;
    let mut stream = TcpStream::connect(other.hear()?.parse::<SocketAddr>()?).await?;
    stream.set_nodelay(true)?;
    let (mut times, mut buffer) = (Vec::new(), [0; 100]);
    for _ in 0..300 {
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        stream.write_all(&buffer).await?;
        stream.read_exact(&mut buffer).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times))
}

/// The role `bare-echo`: gives back what comes.
pub async fn bare_echo() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?)?;
    let (mut stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len]).await?,
        }
    }
}

#[derive(Deserialize)]
struct BareTask {
    task_type: String,
    payload: Box<RawValue>,
}

#[derive(Deserialize)]
struct BareBatch {
    tasks: Vec<BareTask>,
}

#[derive(Serialize)]
struct Kept {
    task_id: Uuid,
    task_type: String,
}

#[derive(Serialize)]
struct KeptBatch {
    tasks: Vec<Kept>,
}

type Map = Arc<Mutex<HashMap<Uuid, Box<RawValue>>>>;

/// The role `bare-http`: a server that takes tasks and does nothing that a hub does.
pub async fn bare_http() -> Outcome {
    let keep = |map: &Map, BareTask { task_type, payload }: BareTask| {
        let task_id = Uuid::now_v7();
        map.lock().insert(task_id, payload);
        Kept { task_id, task_type }
    };
    let one = move |State(map): State<Map>, Json(task): Json<BareTask>| async move {
        (StatusCode::CREATED, Json(keep(&map, task)))
    };
    let batch = move |State(map): State<Map>, Json(batch): Json<BareBatch>| async move {
        let tasks = batch.tasks.into_iter().map(|task| keep(&map, task)).collect();
        (StatusCode::CREATED, Json(KeptBatch { tasks }))
    };
    let router = Router::new()
        .route("/api/v1/tasks", post(one))
        .route("/api/v1/tasks/batch", post(batch))
        .with_state(Map::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}
