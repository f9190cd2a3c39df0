//! What the commands print, character for character, against the files in `tests/golden`.
//!
//! People and scripts read these texts, so a changed file is a changed promise and belongs in the changelog. What the hub
//! answered is in the `.json` files there; what is made of it, in `.txt` for people and in `.jsonl` with `--json`.
//! `GOLDEN=write cargo test golden` writes them anew.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bars::{Picture, ending};
use super::outcome::json_line;
use super::show;
use super::tables::{self, Look};
use super::watch::{in_json, in_lines};
use crate::client::{Follower, LiveEvent, LiveStatus, Subscribe, TaskEvent};
use crate::task::{Event, Level, LogLine, Status, TaskView, Timestamp, Transition};
use crate::wire::{Stats, WorkerList};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(path(name)).expect("the file is there");
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{name}: {why}"))
}

#[track_caller]
fn check(name: &str, printed: &str) {
    if std::env::var("GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(path(name), printed).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(path(name)).unwrap_or_default();
    assert!(printed == expected, "tests/golden/{name} is\n{expected}\nand this is printed\n{printed}");
}

fn json<T: Serialize>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| json_line(&value).expect("it is JSON")).collect()
}

fn now() -> Timestamp {
    serde_json::from_str("\"2026-11-21T14:20:00.000Z\"").expect("a time")
}

fn look() -> Look {
    Look { now: now(), colours: false, width: None }
}

#[test]
fn list() {
    let tasks: Vec<TaskView> = read("tasks.json");
    check("list.txt", &tables::tasks(&tasks, look()));
    check("list.jsonl", &json(&tasks));
    for width in [60, 120] {
        let look = Look { colours: true, width: Some(width), ..look() };
        check(&format!("list_{width}.txt"), &tables::tasks(&tasks, look));
    }
}

#[test]
fn get() {
    let tasks: Vec<TaskView> = read("tasks.json");
    let texts: Vec<String> = tasks.iter().map(|task| tables::task(task, None, look())).collect();
    check("get.txt", &texts.join("\n"));
    check("get_history.txt", &tables::task(&tasks[0], Some(&read::<Vec<Transition>>("history.json")), look()));
}

#[test]
fn stats() {
    let stats: Stats = read("stats.json");
    check("stats.txt", &tables::stats(&stats, look()));
    check("stats.jsonl", &json([&stats]));
}

#[test]
fn workers() {
    let WorkerList { workers } = read("workers.json");
    check("workers.txt", &tables::workers(&workers, look()));
    check("workers.jsonl", &json(&workers));
}

/// What `watch` draws in terminals of two sizes, and that no line is wider.
#[test]
fn bars() {
    let mut tasks: Vec<TaskView> = read("tasks.json");
    let running = tasks[2].clone();
    let another = |n: u8, title: &str| TaskView {
        task_id: format!("0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5d{n:02}").parse().expect("an id"),
        title: Some(title.into()),
        ..running.clone()
    };
    tasks.push(another(1, "A title that is as long as titles are where people write whole sentences into them"));
    tasks.push(another(2, "日本語の題名はふたつぶんの幅をとる"));
    tasks.push(TaskView { progress: None, cancel_requested_at: None, ..another(3, "Says nothing") });
    for (width, height) in [(60, 24), (120, 24), (60, 8)] {
        let mut picture = Picture::with_counts();
        for task in &tasks {
            picture.set(task);
        }
        picture.set(&TaskView { status: Status::Completed, ..another(3, "") });
        picture.set(&another(3, "Runs again"));
        let lines = picture.lines((width, height), now());
        assert!(lines.iter().all(|line| show::shown_width(line) < width), "{lines:#?}");
        check(&format!("bars_{width}x{height}.txt"), &format!("{}\n", lines.join("\n")));
    }
    let endings = [40, 120].map(|width| show::cut(&ending(&tasks[4], width), width));
    check("endings.txt", &format!("{}\n", endings.join("\n")));
}

#[test]
fn watch() {
    let tasks: Vec<Arc<TaskView>> = read::<Vec<TaskView>>("tasks.json").into_iter().map(Arc::new).collect();
    let sub = Follower::new(0, || 0.0).subscribe(Subscribe::default());
    let [pending, _, running, completed, failed, cancelled] = &tasks[..] else { panic!("six tasks") };
    let status = |status, reason: Option<&str>, retry_ms| LiveEvent::Status {
        status,
        behind: false,
        retry_ms,
        reason: reason.map(str::to_owned),
    };
    let line = LogLine { seq: 1, at: now(), attempt: 2, level: Level::Warn, message: "careful".into() };
    let of = |event| LiveEvent::Of(sub, event);
    let events = [
        status(LiveStatus::Live, None, None),
        of(TaskEvent::Snapshot { tasks: tasks[..3].to_vec(), truncated: true }),
        of(TaskEvent::Task { event: Some(Event::Running), task: running.clone() }),
        of(TaskEvent::Progress { task: running.clone() }),
        of(TaskEvent::Log { task_id: running.task_id, lines: vec![line] }),
        of(TaskEvent::Task { event: Some(Event::Completed), task: completed.clone() }),
        of(TaskEvent::Task { event: Some(Event::Failed), task: failed.clone() }),
        of(TaskEvent::Leave { event: Some(Event::Cancelled), task: cancelled.clone() }),
        of(TaskEvent::Leave { event: None, task: pending.clone() }),
        LiveEvent::Lag { collapsed: 37 },
        of(TaskEvent::Stats(read("stats.json"))),
        of(TaskEvent::Gone { task_id: pending.task_id }),
        LiveEvent::Complaint { code: "bad_filter".into(), detail: "no such field".into() },
        status(LiveStatus::Offline, Some("closed with 4001"), Some(1_500)),
    ];
    check("watch.txt", &events.iter().map(|event| in_lines(event, now())).collect::<String>());
    check("watch.jsonl", &json(events.iter().map(in_json)));
}
