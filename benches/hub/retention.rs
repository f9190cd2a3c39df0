//! Whether deleting is felt: single submissions to a hub that has a million finished tasks to delete.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::connection::Connection;
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, grouped, median, quantile};
use crate::roles::{Flood, PAUSE};

pub const NAMES: [&str; 1] = ["retention/submit_while_1_000_000_go"];

const MANY: usize = 1_000_000;
const SAMPLES: usize = 500;
/// Longer than it takes by far.
const LIMIT: Duration = Duration::from_secs(900);

pub async fn run(report: &mut Report) -> Outcome {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let worker = hub.worker("w1", 500, "done").await?;
    let task = format!(r#"{{"task_type":"noop","payload":"{}"}}"#, "x".repeat(198));
    Flood { connections: 2, tasks: MANY, batch: 1_000, task }.run(hub.address).await?;
    hub.until_count("completed", MANY as u64, Duration::from_secs(120)).await?;
    drop(worker);
    hub.process.until_quiet().await?;
    let mut connection = Connection::open(hub.address).await?;
    let mut before = Vec::new();
    for _ in 0..SAMPLES {
        before.push(submit(&mut connection).await?);
    }
    let full = file_size(&folder)?;
    hub.process.kill()?;

    // All of them fall due at once.
    let mut hub = Hub::start_with(&folder, &["--retain", "1s"]).await?;
    let mut connection = Connection::open(hub.address).await?;
    let begun = Instant::now();
    while hub.count("completed").await? >= MANY as u64 {
        tokio::time::sleep(PAUSE).await;
    }
    let (mut during, deleting) = (Vec::new(), Instant::now());
    while hub.count("completed").await? > 0 {
        if begun.elapsed() > LIMIT {
            return Err(format!("{} tasks are still there", hub.count("completed").await?).into());
        }
        for _ in 0..10 {
            during.push(submit(&mut connection).await?);
        }
    }
    let took = deleting.elapsed();
    let empty = smallest(&folder).await?;
    let (quiet, felt) = (median(before), median(during.clone()));
    report.row(Row {
        name: NAMES[0],
        measured: format!(
            "p50 {felt:.2} ms, without {quiet:.2}: {:.2} ×; p99 {:.1} ms; {}/s go; file {full:.0} → {empty:.0} MB",
            felt / quiet,
            quantile(&mut during, 0.99),
            grouped(MANY as f64 / took.as_secs_f64()),
        ),
        target: "p50 ≤ 2 ×",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// Milliseconds until a task is acknowledged, after a pause.
async fn submit(connection: &mut Connection) -> Outcome<f64> {
    tokio::time::sleep(PAUSE).await;
    let begun = Instant::now();
    connection.post("/api/v1/tasks", br#"{"task_type":"waits"}"#).await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn file_size(folder: &Folder) -> Outcome<f64> {
    Ok(std::fs::metadata(folder.path().join("taskhub.db"))?.len() as f64 / 1e6)
}

/// The size of the file once it has been the same for a while.
async fn smallest(folder: &Folder) -> Outcome<f64> {
    let mut last = file_size(folder)?;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let size = file_size(folder)?;
        if size >= last {
            return Ok(size);
        }
        last = size;
    }
}
