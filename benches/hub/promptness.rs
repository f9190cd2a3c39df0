//! How soon watchers have what happened: under load, beside one who stopped reading, and after all were cut at once.
//!
//! The hub tells no commit's time finer than a millisecond, so each arrival is timed twice. *From its submission* it holds
//! the way to the hub and the fsync too, so commit to client is surely less. *From its first word*, that is the answer to
//! the submission or the first arrival anywhere, whichever came first, it holds nothing before the commit, but may miss
//! what passed between the commit and that word. Both clocks are the crowd's own, and one.

use crate::Outcome;
use crate::connection::Connection;
use crate::crowd::{Crowd, Delivered, Drive, Resumed, Times};
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, median};
use crate::watchers::{RUNS, Side, TASK, each_alone, waiting};

pub const NAMES: [&str; 3] = ["watchers/latency", "watchers/stopped", "watchers/reconnect"];

pub async fn run(report: &mut Report) -> Outcome {
    if report.wants(&NAMES[..1]) {
        latency(report).await?;
    }
    if report.wants(&NAMES[1..2]) {
        stopped(report).await?;
    }
    if report.wants(&NAMES[2..]) {
        reconnect(report).await?;
    }
    Ok(())
}

/// 400 events a second, each timed at each watcher.
fn load(receivers: u32, events: usize) -> Drive {
    Drive { task: TASK.into(), events, batch: 1, receivers, hz: Some(400.0), window: events, timed: true }
}

/// The quantiles of several runs.
#[derive(Default)]
struct Runs {
    known_p50: Vec<f64>,
    known_p99: Vec<f64>,
    submitted_p99: Vec<f64>,
    lags: u64,
}

impl Runs {
    fn add(&mut self, delivered: Delivered) {
        let Delivered { known: Times { p50_ms, p99_ms }, submitted, lags, .. } = delivered;
        self.known_p50.push(p50_ms);
        self.known_p99.push(p99_ms);
        self.submitted_p99.push(submitted.p99_ms);
        self.lags += lags;
    }

    /// The medians: half and 99 of 100 from the first word, 99 of 100 from submission.
    fn medians(self) -> [f64; 3] {
        [self.known_p50, self.known_p99, self.submitted_p99].map(median)
    }
}

async fn latency(report: &mut Report) -> Outcome {
    const WATCHERS: u32 = 500;
    let cores = std::thread::available_parallelism()?.get();
    let folder = Folder::new()?;
    let (hub, event) = Side::hub(&folder, WATCHERS).await?;
    let mut sides = [hub, Side::bare(&event, WATCHERS, 1)?, Side::bare(&event, WATCHERS, cores)?];
    for side in &mut sides {
        side.crowd.deliver(&load(WATCHERS, 400))?;
    }
    let mut runs = [(); 3].map(|()| Runs::default());
    for _ in 0..RUNS {
        for (side, runs) in sides.iter_mut().zip(&mut runs) {
            runs.add(side.crowd.deliver(&load(WATCHERS, 1_200))?);
        }
    }
    let lags = runs[0].lags;
    let [[half, most, submitted], alone, shared] = runs.map(Runs::medians);
    let loop_of = |[half, most_bare, submitted]: [f64; 3], threads: usize| {
        let times = most / most_bare;
        format!(
            "{times:.2} × the p99 of a bare loop on {threads} (p50 {half:.2}, p99 {most_bare:.2}, {submitted:.2} ms)"
        )
    };
    report.row(Row {
        name: NAMES[0],
        measured: format!(
            "p50 {half:.2} ms, p99 {most:.2} ms from the first word of an event, p99 {submitted:.2} ms from its \
             submission ({lags} lag lines)"
        ),
        target: "p99 ≤ 10 ms, ≤ 1.5 × the bare loop's",
        floor: Some(format!("{}; {}", loop_of(alone, 1), loop_of(shared, cores))),
        peers: "",
    });
    Ok(())
}

/// Whether the others notice.
async fn stopped(report: &mut Report) -> Outcome {
    const WATCHERS: u32 = 100;
    let folder = Folder::new()?;
    let hub = Hub::start(&folder).await?;
    let mut crowd = Crowd::start(hub.address)?;
    crowd.join(vec!["{}".into(); WATCHERS as usize])?;
    crowd.deliver(&load(WATCHERS, 400))?;
    // More than the kernel keeps for a socket, which is 4 MiB at most, and what the hub keeps on top.
    let fill = Drive { events: 16_384, batch: 64, hz: None, window: 256, timed: false, ..load(WATCHERS, 0) };
    let (mut without, mut with, mut lagged, mut closed) = (Runs::default(), Runs::default(), 0, 0);
    for _ in 0..RUNS {
        without.add(crowd.deliver(&load(WATCHERS, 1_200))?);
        crowd.join_stopped()?;
        crowd.deliver(&fill)?;
        with.add(crowd.deliver(&load(WATCHERS, 1_200))?);
        match crowd.release_stopped()? {
            Some(lags) => lagged += usize::from(lags > 0),
            None => closed += 1,
        }
    }
    let lags = without.lags + with.lags;
    let [_, without_most, without_submitted] = without.medians();
    let [_, with_most, with_submitted] = with.medians();
    report.row(Row {
        name: NAMES[1],
        measured: format!(
            "p99 {with_most:.2} ms with it, {without_most:.2} without, from the first word of an event; \
             {with_submitted:.2} and {without_submitted:.2} from its submission (of {RUNS} runs it lagged in {lagged}, \
             was closed in {closed}; {lags} lag lines for the others)"
        ),
        target: "the same",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// All lose their sockets, some of them miss something, and all come back at the same moment.
async fn reconnect(report: &mut Report) -> Outcome {
    const WATCHERS: usize = 10_000;
    const CHANGED: usize = 100;
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let mut calls = Connection::open(hub.address).await?;
    let mut crowd = Crowd::start(hub.address)?;
    let task_ids = waiting(&mut hub, WATCHERS).await?;
    crowd.join(each_alone(&task_ids))?;
    let (mut seconds, mut cpu) = (Vec::new(), Vec::new());
    for changed in task_ids.chunks(CHANGED).take(RUNS) {
        hub.process.until_quiet().await?;
        crowd.cut()?;
        for task_id in changed {
            calls.change(&format!("/api/v1/tasks/{task_id}/cancel"), b"").await?;
        }
        let before = hub.process.cpu()?;
        let Resumed { seconds: took, resumed, resets, transitions } = crowd.resume()?;
        seconds.push(took);
        cpu.push((hub.process.cpu()? - before).as_secs_f64() * 1e6 / WATCHERS as f64);
        if (resumed, resets, transitions) != (WATCHERS as u64, 0, CHANGED as u64) {
            let story = format!("{resumed} resumed, {resets} were reset, {transitions} of {CHANGED} changes came");
            return Err(story.into());
        }
    }
    report.row(Row {
        name: NAMES[2],
        measured: format!(
            "{:.2} s until all 10,000 are live, none reset, nothing lost ({:.0} µs of hub CPU each)",
            median(seconds),
            median(cpu)
        ),
        target: "≤ 5 s",
        floor: None,
        peers: "",
    });
    Ok(())
}
