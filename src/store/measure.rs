//! What the store costs. Not a test: run it by hand, built for release, on a quiet machine:
//!
//!     cargo test --release --lib store::measure -- --ignored --nocapture

use std::time::Instant;

use super::suite::{World, settle_all};
use super::*;
use crate::task::{Event, FilterSpec};

/// Nanoseconds this thread was running.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

struct Cost {
    wall: f64,
    cpu: f64,
}

/// Microseconds for each of `count` things.
fn cost(count: usize, act: impl FnOnce()) -> Cost {
    let (start, cpu) = (Instant::now(), cpu_ns());
    act();
    let (wall, cpu) = (start.elapsed().as_secs_f64() * 1e6, (cpu_ns() - cpu) as f64 / 1e3);
    Cost { wall: wall / count as f64, cpu: cpu / count as f64 }
}

fn tell(what: &str, cost: Cost) {
    println!("{what:<56} {:>9.2} µs wall {:>9.2} µs cpu", cost.wall, cost.cpu);
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var_os("MEASURE_IN").unwrap_or_else(|| std::env::temp_dir().into())).unwrap()
}

#[test]
#[ignore = "a measurement"]
fn append_and_settle() {
    const COMMITS: usize = 150;
    const CHANGES: usize = 100;
    let folder = folder();
    let mut store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let mut world = World::new(1);
    for round in 0..3 {
        println!("round {round}");
        let mut ids = Vec::new();
        let mut commits = |world: &mut World, status: Option<(Status, Event)>| -> Vec<Commit> {
            (0..COMMITS)
                .map(|at| {
                    let mut commit = Commit::default();
                    for n in 0..CHANGES {
                        match status {
                            None => ids.push(world.create(&mut commit)),
                            Some((status, event)) => world.step(&mut commit, ids[at * CHANGES + n], status, event),
                        }
                    }
                    // Large results would be measured instead of changes.
                    commit.changes.iter_mut().for_each(|entry| entry.change.result = None);
                    commit
                })
                .collect()
        };
        let created = commits(&mut world, None);
        let running = commits(&mut world, Some((Status::Running, Event::Running)));
        let completed = commits(&mut world, Some((Status::Completed, Event::Completed)));
        let bytes: usize = created.iter().flat_map(|commit| &commit.changes).map(|entry| entry.record.len()).sum();
        println!("{} bytes a record", bytes / COMMITS / CHANGES);
        let all = COMMITS * CHANGES;
        let append = |store: &mut SqliteStore, commits: &[Commit]| {
            commits.iter().for_each(|commit| store.append(commit).unwrap());
        };
        tell("append, of 100 created, a change", cost(all, || append(&mut store, &created)));
        if round > 0 {
            tell("settle, created, a task", cost(all, || settle_all(&mut store, 1_000)));
        }
        tell("append, of 100 running, a change", cost(all, || append(&mut store, &running)));
        tell("append, of 100 completed, a change", cost(all, || append(&mut store, &completed)));
        let (tasks, bytes) = store.unsettled();
        let what = if round > 0 { "updated by two changes" } else { "created, ran and completed" };
        let steps = if round > 1 { 100 } else { 1_000 };
        let what = format!("settle, {what}, steps of {steps}, a task");
        tell(&what, cost(all, || settle_all(&mut store, steps)));
        println!("{tasks} tasks, {} bytes of log a change", bytes / 3 / all);
    }
    longest_stalls(&mut store, &mut world);
    println!("file {} MiB", std::fs::metadata(folder.path().join("taskhub.db")).unwrap().len() >> 20);
}

/// What a commit may have to wait for: the longest of many calls.
fn longest_stalls(store: &mut SqliteStore, world: &mut World) {
    let (mut appends, mut settles) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let mut commit = Commit::default();
        (0..20).for_each(|_| _ = world.create(&mut commit));
        let start = Instant::now();
        store.append(&commit).unwrap();
        appends.push(start.elapsed());
        if store.unsettled().0 >= 500 {
            let start = Instant::now();
            store.settle(500).unwrap();
            settles.push(start.elapsed());
        }
    }
    for (what, mut times) in [("append of 20", appends), ("settle of 500", settles)] {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 1_000];
        println!("{what}: median {:?}, 99 % {:?}, longest {:?}", at(500), at(990), at(1_000));
    }
}

#[test]
#[ignore = "a measurement"]
fn recover_a_million() {
    const TASKS: usize = 1_000_000;
    let folder = folder();
    let mut store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let mut world = World::new(1);
    let fill = cost(TASKS, || {
        for batch in 0..TASKS / 10_000 {
            let mut commit = Commit::default();
            for _ in 0..10_000 {
                let task_id = world.create(&mut commit);
                if batch % 10 > 0 {
                    world.step(&mut commit, task_id, Status::Running, Event::Running);
                    world.step(&mut commit, task_id, Status::Completed, Event::Completed);
                }
            }
            commit.changes.iter_mut().for_each(|entry| entry.change.result = None);
            store.append(&commit).unwrap();
            settle_all(&mut store, 1_000);
            world.tasks.clear();
        }
    });
    tell("fill, a task (the making of it included)", fill);
    drop(store);
    println!("file {} MiB", std::fs::metadata(folder.path().join("taskhub.db")).unwrap().len() >> 20);
    let mut opened = None;
    tell("open", cost(1, || opened = Some(SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap())));
    let mut store = opened.unwrap();
    let mut unfinished = 0;
    tell("recover", cost(1, || unfinished = store.recover().unwrap().unfinished.len()));
    println!("{unfinished} unfinished");
    let reader = store.reader();
    let query = |filter: FilterSpec| Query { filter: filter.checked().unwrap(), ..super::suite::all_tasks() };
    let all = FilterSpec::default;
    let user = || Some(vec!["user 1".to_owned()]);
    let labels = || Some([("project".to_owned(), vec!["p\"2".to_owned()])].into());
    for (what, query) in [
        ("newest", query(all())),
        ("status=running", query(FilterSpec { status: Some(vec![Status::Running]), ..all() })),
        ("status=pending", query(FilterSpec { status: Some(vec![Status::Pending]), ..all() })),
        ("all final", query(FilterSpec { status: Some(vec![Status::Completed, Status::Failed]), ..all() })),
        ("a user", query(FilterSpec { user_id: user(), ..all() })),
        ("a user's pending", query(FilterSpec { user_id: user(), status: Some(vec![Status::Pending]), ..all() })),
        ("a label", query(FilterSpec { labels: labels(), ..all() })),
        ("a type with tasks", query(FilterSpec { task_type: Some(vec!["ingest.*".to_owned()]), ..all() })),
        ("a type without tasks: reads all", query(FilterSpec { task_type: Some(vec!["none".to_owned()]), ..all() })),
        ("a text without tasks: reads all", Query { text: Some("nowhere".to_owned()), ..query(all()) }),
    ] {
        let mut found = 0;
        for _ in 0..2 {
            let cost = cost(1, || found = reader.find(&query).unwrap().tasks.len());
            tell(&format!("find {what}: {found}"), cost);
        }
    }
    tell("changed since, 1,000", cost(1, || drop(reader.changed_since(world.rev / 2, 1_000).unwrap())));
    let (queue, now) = (Name::new("default"), (world.now, TaskId::from_bytes([0; 16])));
    tell("ended before, 1,000", cost(1, || drop(reader.ended_before(&queue, now, 1_000).unwrap())));
    tell("beyond the newest million", cost(1, || assert!(reader.beyond(&queue, 1_000_000, u64::MAX).is_ok())));
}
