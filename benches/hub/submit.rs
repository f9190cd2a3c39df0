//! One task a call, from many connections at once.

use crate::Outcome;
use crate::floor::Floor;
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, grouped, median};
use crate::roles::Flood;

pub const NAMES: [&str; 2] = ["submit/64_connections", "submit/hub_cpu"];

const TASKS: usize = 60_000;
const RUNS: usize = 3;

pub async fn run(report: &mut Report, floor: &Floor) -> Outcome {
    let folder = Folder::new()?;
    let hub = Hub::start(&folder).await?;
    let task = r#"{"task_type":"noop","payload":{"n":1}}"#.to_owned();
    let flood = Flood { connections: 64, tasks: TASKS, batch: 1, task };
    Flood { tasks: 5_000, ..flood.clone() }.run(hub.address).await?;
    let (mut rates, mut answered, mut settled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        hub.process.until_quiet().await?;
        let before = hub.process.cpu()?;
        let flooded = flood.run(hub.address).await?;
        let each = |cpu: std::time::Duration| (cpu - before).as_secs_f64() * 1e6 / TASKS as f64;
        rates.push(TASKS as f64 / flooded.seconds);
        answered.push(each(hub.process.cpu()?));
        hub.process.until_quiet().await?;
        settled.push(each(hub.process.cpu()?));
    }
    let (rate, answered, settled) = (median(rates), median(answered), median(settled));
    report.row(Row {
        name: NAMES[0],
        measured: format!("{}/s", grouped(rate)),
        target: "≥ 20,000/s",
        floor: Some(format!("{:.2} × bare axum, which keeps nothing", rate / floor.requests_a_second)),
        peers: "50 in flight: BullMQ 10,900 (with fsync 6,200), graphile 820; a bare axum + group commit 22,000–43,000",
    });
    report.row(Row {
        name: NAMES[1],
        measured: format!("{settled:.1} µs each ({answered:.1} until answered, the rest settles)"),
        target: "≤ 40 µs",
        floor: Some(format!("{:.1} × bare axum", settled / floor.request_us)),
        peers: "",
    });
    Ok(())
}
