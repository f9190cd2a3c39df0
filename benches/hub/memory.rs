//! What a waiting task holds in memory, at a hundred thousand and at a million; and how soon a hub with a million stored
//! tasks is back after SIGKILL. The second needs what the first leaves, so they are one.

use std::time::Duration;

use crate::Outcome;
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, grouped, median};
use crate::roles::Flood;

pub const NAMES: [&str; 4] = [
    "memory/100_000_waiting",
    "memory/1_000_000_waiting",
    "restart/1_000_000_stored_100_000_unfinished",
    "memory/100_000_tied",
];

const WARM_UP: usize = 1_000;
const SOME: usize = 100_000;
const MANY: usize = 1_000_000;
const RESTARTS: usize = 3;

pub async fn run(report: &mut Report) -> Outcome {
    if report.wants(&NAMES[3..]) {
        tied(report).await?;
    }
    if !report.wants(&NAMES[..3]) {
        return Ok(());
    }
    let folder = Folder::new()?;
    let hub = Hub::start(&folder).await?;
    let task = format!(r#"{{"task_type":"noop","payload":"{}"}}"#, "x".repeat(198));
    let flood = Flood { connections: 2, tasks: WARM_UP, batch: 1_000, task };
    flood.run(hub.address).await?;
    hub.process.until_quiet().await?;
    let empty = hub.process.memory()?;
    let mut waiting = WARM_UP;
    for (name, count) in [(NAMES[0], SOME), (NAMES[1], MANY)] {
        if count == MANY && !report.wants(&NAMES[1..3]) {
            return Ok(());
        }
        Flood { tasks: WARM_UP + count - waiting, ..flood.clone() }.run(hub.address).await?;
        waiting = WARM_UP + count;
        hub.process.until_quiet().await?;
        let bytes = (hub.process.memory()? - empty) as f64 / count as f64;
        let disk = std::fs::metadata(folder.path().join("taskhub.db"))?.len() as f64 / waiting as f64;
        report.row(Row {
            name,
            measured: format!("{bytes:.0} bytes a task (and {disk:.0} on disk)"),
            target: "≤ 500 bytes",
            floor: None,
            peers: "JetStream 241 (+358 on disk), arq 575, BullMQ 810, Celery 1,430",
        });
    }
    if report.wants(&NAMES[2..3]) {
        restart(report, &folder, hub).await?;
    }
    Ok(())
}

/// Runs nine tenths of the tasks, and then kills the hub several times.
async fn restart(report: &mut Report, folder: &Folder, mut hub: Hub) -> Outcome {
    let worker = hub.worker("w1", 500, "done").await?;
    while hub.count("completed").await? < (MANY - SOME) as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(worker);
    hub.until_count("pending", 1, Duration::from_secs(30)).await?;
    let (done, mut times) = (hub.count("completed").await?, Vec::new());
    for _ in 0..RESTARTS {
        hub.process.kill()?;
        hub = Hub::start(folder).await?;
        times.push(hub.ready.as_secs_f64());
        let now = hub.count("completed").await?;
        if now < done {
            return Err(format!("{done} tasks were completed before the restart, {now} after").into());
        }
    }
    let unfinished = hub.count("pending").await? + hub.count("running").await?;
    report.row(Row {
        name: NAMES[2],
        measured: format!(
            "{:.2} s, the first {:.2} s ({} completed, {} unfinished)",
            median(times.clone()),
            times[0],
            grouped(done as f64),
            grouped(unfinished as f64)
        ),
        target: "≤ 3 s",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// Tasks of ten thousand users and a thousand concurrency keys that wait for two others each; and such that wait for none and
/// are unique (one cannot be both).
async fn tied(report: &mut Report) -> Outcome {
    let (depending, unique) = (Tied::measure(false).await?, Tied::measure(true).await?);
    report.row(Row {
        name: NAMES[3],
        measured: format!(
            "{depending:.0} bytes a task with user, key and two dependencies, {unique:.0} with user, key and unique"
        ),
        target: "≤ 700 bytes",
        floor: None,
        peers: "",
    });
    Ok(())
}

struct Tied {
    hub: Hub,
    unique: bool,
    payload: String,
    waiting: usize,
}

impl Tied {
    const BATCH: usize = 1_000;

    async fn measure(unique: bool) -> Outcome<f64> {
        let folder = Folder::new()?;
        let mut tied = Tied { hub: Hub::start(&folder).await?, unique, payload: "x".repeat(198), waiting: 0 };
        tied.submit(10 * WARM_UP).await?;
        let empty = tied.hub.process.memory()?;
        tied.submit(10 * WARM_UP + SOME).await?;
        Ok((tied.hub.process.memory()? - empty) as f64 / SOME as f64)
    }

    /// Submits until so many wait, and waits until the hub has settled.
    async fn submit(&mut self, count: usize) -> Outcome {
        while self.waiting < count {
            let held = r#"{"tasks":[{"task_type":"held","queue":"held"},{"task_type":"held","queue":"held"}]}"#;
            let held = self.hub.post("/api/v1/tasks/batch", held.as_bytes()).await?;
            let held = format!("{},{}", held["tasks"][0]["task_id"], held["tasks"][1]["task_id"]);
            let task = |n: usize| {
                let (user, key, payload) = (n % 10_000, n % 1_000, &self.payload);
                let tie = match self.unique {
                    true => format!(r#""unique":{{"key":"only-{n}"}}"#),
                    false => format!(r#""depends_on":[{held}]"#),
                };
                format!(
                    r#"{{"task_type":"noop","user_id":"user-{user}","concurrency_key":"key-{key}","payload":"{payload}",{tie}}}"#
                )
            };
            let tasks: Vec<String> = (self.waiting..self.waiting + Tied::BATCH).map(task).collect();
            self.hub.post("/api/v1/tasks/batch", format!(r#"{{"tasks":[{}]}}"#, tasks.join(",")).as_bytes()).await?;
            self.waiting += Tied::BATCH;
        }
        self.hub.process.until_quiet().await
    }
}
