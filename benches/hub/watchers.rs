//! What it costs to tell an event to many who watch, and what each of them costs while nothing happens.
//!
//! Each delivery ends in one system call that no hub can do without, so the measure is a bare loop of those: see
//! [`bare_feed`](crate::bare_feed). Both are driven and listened to by a [`crowd`](crate::crowd), run by run in turn, with
//! the same events. A percentage says how much of what the hub spends the bare loop would have spent too.

use std::time::Duration;

use crate::Outcome;
use crate::crowd::{Crowd, Delivered, Drive};
use crate::hub::{Folder, Hub};
use crate::process::Process;
use crate::report::{Report, Row, median};
use crate::seat::Watcher;
use crate::socket::Socket;

pub const NAMES: [&str; 4] = ["watchers/paced", "watchers/flat_out", "watchers/audience", "watchers/idle_memory"];

pub const RUNS: usize = 3;
/// Its event has about 400 bytes.
pub const TASK: &str =
    r#"{"task_type":"report.monthly","title":"Report for March","labels":{"project_id":"p1"},"payload":{"n":1}}"#;

pub async fn run(report: &mut Report) -> Outcome {
    if report.wants(&NAMES[..1]) {
        paced(report).await?;
    }
    if report.wants(&NAMES[1..2]) {
        flat_out(report).await?;
    }
    if report.wants(&NAMES[2..3]) {
        audience(report).await?;
    }
    if report.wants(&NAMES[3..]) {
        idle_memory(report).await?;
    }
    Ok(())
}

/// The hub, or the bare loop, and those who watch it.
pub struct Side {
    pub process: Process,
    pub crowd: Crowd,
}

impl Side {
    /// A hub with so many watchers of everything, and an event as it tells it.
    pub async fn hub(folder: &Folder, watchers: u32) -> Outcome<(Side, String)> {
        let mut hub = Hub::start(folder).await?;
        let event = event(&mut hub).await?;
        let mut crowd = Crowd::start(hub.address)?;
        crowd.join(vec!["{}".into(); watchers as usize])?;
        hub.process.until_quiet().await?;
        Ok((Side { process: hub.process, crowd }, event))
    }

    /// A bare loop on so many threads, with as many watchers.
    pub fn bare(event: &str, watchers: u32, threads: usize) -> Outcome<Side> {
        let mut process = Process::role("bare-feed", &[event, &threads.to_string()])?;
        let mut crowd = Crowd::start(process.hear()?.parse()?)?;
        crowd.join(vec!["{}".into(); watchers as usize])?;
        Ok(Side { process, crowd })
    }

    /// Microseconds of CPU a delivery.
    pub fn deliver(&mut self, drive: &Drive) -> Outcome<(f64, Delivered)> {
        let before = self.process.cpu()?;
        let delivered = self.crowd.deliver(drive)?;
        let cpu = self.process.cpu()? - before;
        Ok((cpu.as_secs_f64() * 1e6 / delivered.deliveries as f64, delivered))
    }
}

/// A hub and a bare loop with the same watchers of everything.
async fn both(folder: &Folder, watchers: u32) -> Outcome<(Side, Side)> {
    let (hub, event) = Side::hub(folder, watchers).await?;
    let bare = Side::bare(&event, watchers, 1)?;
    Ok((hub, bare))
}

/// The line that tells of a new task.
async fn event(hub: &mut Hub) -> Outcome<String> {
    let mut socket = Socket::open(hub.address, "/api/v1/ws", "taskhub.v1").await?;
    socket.send(r#"{"op":"subscribe","id":1,"sub":"a","filter":{},"snapshot":{"limit":1}}"#).await?;
    socket.until(&[r#""type":"mark""#]).await?;
    hub.post("/api/v1/tasks", TASK.as_bytes()).await?;
    loop {
        let text = socket.next().await?;
        if let Some(line) = text.lines().find(|line| line.starts_with(r#"{"type":"task""#)) {
            return Ok(line.to_owned());
        }
    }
}

/// One event at a time: each is with everybody before the next comes, so a delivery is a write.
async fn paced(report: &mut Report) -> Outcome {
    const WATCHERS: u32 = 1_000;
    const HZ: f64 = 60.0;
    let drive =
        Drive { task: TASK.into(), events: 240, batch: 1, receivers: WATCHERS, hz: Some(HZ), window: 1, timed: false };
    let warm_up = Drive { events: 30, ..drive.clone() };
    costs(report, NAMES[0], &drive, &warm_up, "≥ 90 % of a bare loop, a message a write").await
}

/// As fast as the hub commits and its watchers take it, with so little on the way that nobody lags.
async fn flat_out(report: &mut Report) -> Outcome {
    const WATCHERS: u32 = 1_000;
    let drive =
        Drive { task: TASK.into(), events: 5_120, batch: 64, receivers: WATCHERS, hz: None, window: 256, timed: false };
    let warm_up = Drive { events: 512, ..drive.clone() };
    costs(report, NAMES[1], &drive, &warm_up, "≥ 50 % of a bare loop, 64 messages a write").await
}

async fn costs(
    report: &mut Report,
    name: &'static str,
    drive: &Drive,
    warm_up: &Drive,
    target: &'static str,
) -> Outcome {
    let folder = Folder::new()?;
    let (mut hub, mut bare) = both(&folder, drive.receivers).await?;
    hub.deliver(warm_up)?;
    bare.deliver(warm_up)?;
    let (mut of_hub, mut of_bare, mut lags, mut messages, mut seconds) = (vec![], vec![], 0, 0, 0.0);
    for _ in 0..RUNS {
        let (cost, delivered) = hub.deliver(drive)?;
        of_hub.push(cost);
        lags += delivered.lags;
        messages += delivered.messages;
        seconds += delivered.seconds;
        of_bare.push(bare.deliver(drive)?.0);
    }
    let deliveries = (RUNS * drive.events) as f64 * f64::from(drive.receivers);
    let (of_hub, of_bare) = (median(of_hub), median(of_bare));
    report.row(Row {
        name,
        measured: format!(
            "{of_hub:.2} µs of hub CPU a delivery, none lost, {lags} lag lines ({:.0} events/s, {:.1} a message)",
            (RUNS * drive.events) as f64 / seconds,
            deliveries / messages as f64
        ),
        target,
        floor: Some(format!("{:.0} % of it is the bare loop's {of_bare:.2} µs", 100.0 * of_bare / of_hub)),
        peers: "",
    });
    Ok(())
}

/// An event for one watcher, while few and while many watch something else. What the others cost anyway, by being there, is
/// taken off.
async fn audience(report: &mut Report) -> Outcome {
    const OTHERS: [usize; 2] = [100, 10_000];
    const IDLE: Duration = Duration::from_secs(2);
    let drive = Drive { task: TASK.into(), events: 3_000, batch: 1, receivers: 1, hz: None, window: 4, timed: false };
    let (folders, mut sides, mut costs) = ([Folder::new()?, Folder::new()?], Vec::new(), [vec![], vec![]]);
    for (folder, others) in folders.iter().zip(OTHERS) {
        let mut hub = Hub::start(folder).await?;
        let mut crowd = Crowd::start(hub.address)?;
        let mut filters = each_alone(&waiting(&mut hub, others).await?);
        filters.push(r#"{"task_type":["report.monthly"]}"#.into());
        crowd.join(filters)?;
        crowd.deliver(&Drive { events: 300, ..drive.clone() })?;
        hub.process.until_quiet().await?;
        sides.push(Side { process: hub.process, crowd });
    }
    for _ in 0..RUNS {
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            let before = side.process.cpu()?;
            tokio::time::sleep(IDLE).await;
            let idle_us_a_second = (side.process.cpu()? - before).as_secs_f64() * 1e6 / IDLE.as_secs_f64();
            let (cost, delivered) = side.deliver(&drive)?;
            costs.push(cost - idle_us_a_second * delivered.seconds / delivered.deliveries as f64);
        }
    }
    let [few, many] = costs.map(median);
    report.row(Row {
        name: NAMES[2],
        measured: format!(
            "{:.2} ×: {many:.0} µs of hub CPU an event with 10,000 others connected, {few:.0} with 100, commit and all",
            many / few
        ),
        target: "≤ 1.2 ×",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// Ten thousand who wait: for one task each, and for everything.
async fn idle_memory(report: &mut Report) -> Outcome {
    const WATCHERS: usize = 10_000;
    const WARM_UP: usize = 100;
    let mut each_kib = Vec::new();
    for of_one_task in [true, false] {
        let folder = Folder::new()?;
        let mut hub = Hub::start(&folder).await?;
        let mut filters = each_alone(&waiting(&mut hub, WARM_UP + WATCHERS).await?);
        if !of_one_task {
            filters.fill("{}".into());
        }
        let mut crowd = Crowd::start(hub.address)?;
        crowd.join(filters.split_off(WATCHERS))?;
        hub.process.until_quiet().await?;
        let before = hub.process.memory()?;
        crowd.join(filters)?;
        hub.process.until_quiet().await?;
        let bytes = hub.process.memory()?.saturating_sub(before);
        each_kib.push(bytes as f64 / WATCHERS as f64 / 1024.0);
    }
    report.row(Row {
        name: NAMES[3],
        measured: format!("{:.2} KiB a watcher of one task, {:.2} KiB of everything", each_kib[0], each_kib[1]),
        target: "≤ 2.5 KiB",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// Submits so many tasks that wait for ever.
pub async fn waiting(hub: &mut Hub, count: usize) -> Outcome<Vec<String>> {
    let mut task_ids = Vec::new();
    while task_ids.len() < count {
        let batch = (count - task_ids.len()).min(5_000);
        let body = format!(r#"{{"tasks":[{}]}}"#, vec![r#"{"task_type":"other"}"#; batch].join(","));
        let made = hub.post("/api/v1/tasks/batch", body.as_bytes()).await?;
        let made = made["tasks"].as_array().ok_or("no tasks")?;
        task_ids.extend(made.iter().filter_map(|task| task["task_id"].as_str().map(str::to_owned)));
    }
    Ok(task_ids)
}

/// For each task one who watches it alone.
pub fn each_alone(task_ids: &[String]) -> Vec<Watcher> {
    task_ids.iter().map(|task_id| format!(r#"{{"task_id":["{task_id}"]}}"#).as_str().into()).collect()
}
