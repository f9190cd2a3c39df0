//! Tasks that do nothing, from a batch submission through a worker to `completed`: what the machinery itself costs.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::floor::Floor;
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, grouped, median};
use crate::roles::Flood;

pub const NAMES: [&str; 2] = ["noop/cpu_per_1000", "noop/tasks_a_second"];

const TASKS: usize = 40_000;
const WARM_UP: usize = 4_000;
const RUNS: usize = 3;
const CONCURRENCY: u32 = 200;

pub async fn run(report: &mut Report, floor: &Floor) -> Outcome {
    let (mut costs, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (cost, rate) = once().await?;
        costs.push(cost);
        rates.push(rate);
    }
    let total = |cost: &Cost| cost.hub + cost.worker + cost.submitter;
    costs.sort_by(|a, b| total(a).total_cmp(&total(b)));
    let cost = &costs[RUNS / 2];
    report.row(Row {
        name: NAMES[0],
        measured: format!(
            "{:.1} ms (hub {:.1}, worker {:.1}, submitter {:.1})",
            total(cost),
            cost.hub,
            cost.worker,
            cost.submitter
        ),
        target: "≤ 40 ms",
        floor: Some(format!("{:.1} × (batched task + row)", total(cost) / (floor.batched_task_us + floor.row_us))),
        peers: "graphile-worker 99, apalis (Redis) 124, apalis (SQLite, sync off) 159, pg-boss 226, BullMQ 235–267 (with \
                fsync 343), TaskIQ + NATS 578, Dramatiq 827, Celery 2,863",
    });
    report.row(Row {
        name: NAMES[1],
        measured: format!("{}/s", grouped(median(rates))),
        target: "≥ 32,250/s (1.5 × graphile-worker)",
        floor: None,
        peers: "graphile-worker 21,500, apalis 9,000–11,000, BullMQ 10,700 (with fsync 7,100), pg-boss 5,300, TaskIQ \
                3,000, Celery 580",
    });
    Ok(())
}

/// Milliseconds of CPU for a thousand tasks; settling is in the hub's.
struct Cost {
    hub: f64,
    worker: f64,
    submitter: f64,
}

async fn once() -> Outcome<(Cost, f64)> {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let worker = hub.worker("w1", CONCURRENCY, "done").await?;
    let task = r#"{"task_type":"noop","payload":{"n":1}}"#.to_owned();
    let flood = Flood { connections: 2, tasks: TASKS, batch: 1_000, task };
    Flood { tasks: WARM_UP, ..flood.clone() }.run(hub.address).await?;
    hub.until_count("completed", WARM_UP as u64, Duration::from_secs(30)).await?;
    hub.process.until_quiet().await?;

    let before = (hub.process.cpu()?, worker.cpu()?);
    let begun = Instant::now();
    let flooded = flood.run(hub.address).await?;
    // Tasks run in the order they came, so that this asks the hub few times while it works.
    hub.get(&format!("/api/v1/tasks/{}?wait_ms=60000", flooded.last_task_id)).await?;
    hub.until_count("completed", (WARM_UP + TASKS) as u64, Duration::from_secs(30)).await?;
    let rate = TASKS as f64 / begun.elapsed().as_secs_f64();
    hub.process.until_quiet().await?;

    let per_1000 = |seconds: f64| seconds * 1e6 / TASKS as f64;
    let cost = Cost {
        hub: per_1000((hub.process.cpu()? - before.0).as_secs_f64()),
        worker: per_1000((worker.cpu()? - before.1).as_secs_f64()),
        submitter: per_1000(flooded.cpu_seconds),
    };
    Ok((cost, rate))
}
