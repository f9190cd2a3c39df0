//! What workflows and schedules cost: a link of a chain against a task on its own, a task of a large group against a plain
//! one, and how late schedules are when there are a hundred thousand.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::connection::Connection;
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row, grouped, median, quantile};
use crate::roles::{Flood, PAUSE};

pub const NAMES: [&str; 3] = ["workflow/chain_of_1000", "workflow/group_of_10000", "schedules/100_000"];

const LINKS: usize = 1_000;
const SINGLES: usize = 300;
const GROUP: usize = 10_000;
const RUNS: usize = 3;
const NOOP: &str = r#"{"task_type":"noop","payload":{"n":1}}"#;

pub async fn run(report: &mut Report) -> Outcome {
    if report.wants(&NAMES[..1]) {
        chain(report).await?;
    }
    if report.wants(&NAMES[1..2]) {
        group(report).await?;
    }
    if report.wants(&NAMES[2..]) {
        schedules(report).await?;
    }
    Ok(())
}

/// Submits, and waits until it is final; milliseconds.
async fn submit_and_wait(connection: &mut Connection, path: &str, body: &str, id: &str) -> Outcome<f64> {
    let begun = Instant::now();
    let answer: Value = serde_json::from_slice(connection.post(path, body.as_bytes()).await?)?;
    let task_id = answer.pointer(id).and_then(Value::as_str).ok_or("no task_id")?.to_owned();
    let task: Value = serde_json::from_slice(connection.get(&format!("/api/v1/tasks/{task_id}?wait_ms=60000")).await?)?;
    match task["status"].as_str() {
        Some("completed") => Ok(begun.elapsed().as_secs_f64() * 1e3),
        other => Err(format!("the task is {other:?}").into()),
    }
}

/// Each link is handed out when the one before is on disk as completed, so that a link takes what a task does on its own.
async fn chain(report: &mut Report) -> Outcome {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let _worker = hub.worker("w1", 8, "done").await?;
    let mut connection = Connection::open(hub.address).await?;
    let chain = format!(r#"{{"title":"links","chain":[{}]}}"#, vec![NOOP; LINKS].join(","));
    let (mut singles, mut links) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        for _ in 0..SINGLES {
            tokio::time::sleep(PAUSE).await;
            singles.push(submit_and_wait(&mut connection, "/api/v1/tasks", NOOP, "/task_id").await?);
        }
        let took = submit_and_wait(&mut connection, "/api/v1/workflows", &chain, "/workflow/task_id").await?;
        links.push(took / LINKS as f64);
    }
    let (single, link) = (median(singles), median(links));
    report.row(Row {
        name: NAMES[0],
        measured: format!(
            "{:.2} ×: {link:.2} ms a link, {single:.2} ms a task on its own until its result",
            link / single
        ),
        target: "≤ 1.3 ×",
        floor: None,
        peers: "",
    });
    Ok(())
}

/// The CPU of all processes but the submitter, for a task in a group with one after it (as many as a workflow takes), and for one
/// in a batch.
async fn group(report: &mut Report) -> Outcome {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let worker = hub.worker("w1", 200, "done").await?;
    let flood = Flood { connections: 2, tasks: GROUP, batch: 1_000, task: NOOP.to_owned() };
    let chord =
        format!(r#"{{"title":"many","chord":{{"group":[{}],"then":{NOOP}}}}}"#, vec![NOOP; GROUP - 1].join(","));
    let mut connection = Connection::open(hub.address).await?;
    let (mut plain, mut grouped_tasks, mut completed) = (Vec::new(), Vec::new(), 0);
    // The first of each warms up.
    for run in 0..=RUNS {
        for is_group in [false, true] {
            hub.process.until_quiet().await?;
            let before = hub.process.cpu()? + worker.cpu()?;
            if is_group {
                submit_and_wait(&mut connection, "/api/v1/workflows", &chord, "/workflow/task_id").await?;
                completed += GROUP + 1;
            } else {
                flood.run(hub.address).await?;
                completed += GROUP;
            }
            hub.until_count("completed", completed as u64, Duration::from_secs(60)).await?;
            hub.process.until_quiet().await?;
            let cost = (hub.process.cpu()? + worker.cpu()? - before).as_secs_f64() * 1e6 / GROUP as f64;
            if run > 0 {
                if is_group { &mut grouped_tasks } else { &mut plain }.push(cost);
            }
        }
    }
    let (plain, grouped_task) = (median(plain), median(grouped_tasks));
    report.row(Row {
        name: NAMES[1],
        measured: format!(
            "{:.2} ×: {grouped_task:.1} µs of CPU a task of a group with one after it, {plain:.1} in batches",
            grouped_task / plain
        ),
        target: "≤ 1.3 ×",
        floor: None,
        peers: "",
    });
    Ok(())
}

const SCHEDULES: u64 = 100_000;
const EVERY_MS: u64 = 100_000;
const WATCHED: Duration = Duration::from_secs(20);

/// As many schedules as there may be, a thousand of them due each second.
async fn schedules(report: &mut Report) -> Outcome {
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    // Far enough from now that all of them are set when the first is due.
    let start = std::time::SystemTime::UNIX_EPOCH.elapsed()? + Duration::from_secs(30);
    let next = Cell::new(0);
    let set = async || -> Outcome {
        let mut connection = Connection::open(hub.address).await?;
        while next.get() < SCHEDULES {
            let n = next.replace(next.get() + 1);
            let due = start + Duration::from_millis(n * EVERY_MS / SCHEDULES);
            let start_at = taskhub::task::Timestamp::from_millis(due.as_millis() as i64);
            let body = json!({"every_ms": EVERY_MS, "start_at": start_at, "task": {"task_type": "due"}}).to_string();
            connection.put(&format!("/api/v1/schedules/s{n}"), body.as_bytes()).await?;
        }
        Ok(())
    };
    let begun = Instant::now();
    for done in futures::future::join_all((0..64).map(|_| set())).await {
        done?;
    }
    let took = begun.elapsed();
    let wait = start.checked_sub(std::time::SystemTime::UNIX_EPOCH.elapsed()?).ok_or("setting them took too long")?;
    tokio::time::sleep(wait).await;
    let before = hub.process.cpu()?;
    tokio::time::sleep(WATCHED).await;
    let cpu = hub.process.cpu()? - before;

    let (mut late, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = hub.get(&format!("/api/v1/tasks?limit=500{cursor}")).await?;
        for task in page["tasks"].as_array().ok_or("no tasks")? {
            let at = |field: &str| -> Outcome<f64> {
                let time = task[field].as_str().ok_or("no time")?;
                Ok(taskhub::task::Timestamp::parse(time)?.as_millis() as f64)
            };
            late.push(at("created_at")? - at("due_at")?);
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    if (late.len() as u64) < WATCHED.as_secs() * 1_000 {
        return Err(format!("only {} tasks came of the schedules", late.len()).into());
    }
    report.row(Row {
        name: NAMES[2],
        measured: format!(
            "{} tasks, p50 {:.0} ms and p99 {:.0} ms after they were due; {:.0} ms of CPU a second; set in {:.1} s",
            grouped(late.len() as f64),
            quantile(&mut late, 0.5),
            quantile(&mut late, 0.99),
            cpu.as_secs_f64() * 1e3 / WATCHED.as_secs_f64(),
            took.as_secs_f64()
        ),
        target: "p99 ≤ 50 ms",
        floor: None,
        peers: "",
    });
    Ok(())
}
