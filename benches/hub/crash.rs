//! SIGKILL, and what is left. These count what was lost, besides the time it took.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;
use crate::connection::{Connection, last_task_id};
use crate::hub::{Folder, Hub};
use crate::report::{Report, Row};

pub const NAMES: [&str; 2] = ["crash/worker_with_100_tasks", "crash/hub_after_10000_submits"];

pub async fn run(report: &mut Report) -> Outcome {
    if report.wants(&[NAMES[0]]) {
        worker_killed(report).await?;
    }
    if report.wants(&[NAMES[1]]) {
        hub_killed(report).await?;
    }
    Ok(())
}

/// A worker dies with all its tasks while another is there: they run again, each to one end.
async fn worker_killed(report: &mut Report) -> Outcome {
    const TASKS: usize = 100;
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let mut first = hub.worker("first", TASKS as u32, "never").await?;
    let body = format!(r#"{{"tasks":[{}]}}"#, vec![r#"{"task_type":"hold"}"#; TASKS].join(","));
    let tasks = hub.post("/api/v1/tasks/batch", body.as_bytes()).await?;
    hub.until_count("running", TASKS as u64, Duration::from_secs(10)).await?;
    let _second = hub.worker("second", TASKS as u32, "done").await?;

    let begun = Instant::now();
    first.kill()?;
    hub.until_count("completed", TASKS as u64, Duration::from_secs(60)).await?;
    let took = begun.elapsed();

    let (mut lost, mut twice) = (0, 0);
    for task in tasks["tasks"].as_array().ok_or("no tasks")? {
        let task_id = task["task_id"].as_str().ok_or("no task_id")?;
        let history = hub.get(&format!("/api/v1/tasks/{task_id}/history")).await?;
        let transitions = history["transitions"].as_array().ok_or("no history")?;
        match transitions.iter().filter(|one| one["status"] == "completed").count() {
            0 => lost += 1,
            1 => {}
            _ => twice += 1,
        }
    }
    report.row(Row {
        name: NAMES[0],
        measured: format!("{:.2} s, {lost} lost, {twice} finished twice", took.as_secs_f64()),
        target: "≤ 6 s, 0 lost, 0 twice",
        floor: None,
        peers: "TaskIQ 29 s, BullMQ 60 s, apalis 60–300 s, arq 309 s; graphile, Celery, pg-boss, Dramatiq, Procrastinate: \
                not within 400 s",
    });
    if lost + twice > 0 { Err("a killed worker cost tasks".into()) } else { Ok(()) }
}

/// The hub dies right after it acknowledged the last of many submissions, while more are under way.
async fn hub_killed(report: &mut Report) -> Outcome {
    const TASKS: usize = 10_000;
    let folder = Folder::new()?;
    let mut hub = Hub::start(&folder).await?;
    let (acknowledged, mut acknowledgements) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..64 {
        let mut connection = Connection::open(hub.address).await?;
        let acknowledged = acknowledged.clone();
        tokio::spawn(async move {
            // Ends with the hub.
            while let Some(task_id) = submit(&mut connection).await {
                if acknowledged.send(task_id).is_err() {
                    break;
                }
            }
        });
    }
    drop(acknowledged);
    let mut task_ids = Vec::new();
    while task_ids.len() < TASKS {
        task_ids.push(acknowledgements.recv().await.ok_or("the hub ended early")?);
    }
    hub.process.kill()?;
    // Answers that were on their way count too.
    while let Some(task_id) = acknowledgements.recv().await {
        task_ids.push(task_id);
    }
    drop(hub);

    let mut hub = Hub::start(&folder).await?;
    let mut found = HashSet::new();
    for hundred in task_ids.chunks(100) {
        let list = hub.get(&format!("/api/v1/tasks?limit=100&task_id={}", hundred.join(","))).await?;
        let tasks = list["tasks"].as_array().ok_or("no tasks")?;
        found.extend(tasks.iter().filter_map(|task| task["task_id"].as_str().map(str::to_owned)));
    }
    let there = task_ids.iter().filter(|task_id| found.contains(*task_id)).count();
    report.row(Row {
        name: NAMES[1],
        measured: format!("{there} of {} there", task_ids.len()),
        target: "all there",
        floor: None,
        peers: "Redis-based peers by default: 0",
    });
    if there < task_ids.len() { Err("a killed hub lost what it had acknowledged".into()) } else { Ok(()) }
}

async fn submit(connection: &mut Connection) -> Option<String> {
    let answer = connection.post("/api/v1/tasks", br#"{"task_type":"noop","payload":{"n":1}}"#).await.ok()?;
    debug_assert!(serde_json::from_slice::<Value>(answer).is_ok());
    last_task_id(answer).ok()
}
