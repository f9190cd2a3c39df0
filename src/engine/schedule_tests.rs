//! Schedules: one task a due time, whatever clocks, commits and restarts do.

use crate::settings::{CatchUp, Overlap, SCHEDULES_MAX, Schedule, ScheduleSpec, SettingValue, SkipReason, UserLimits};
use crate::task::{InvalidKind, Name, NewTask, Status, Task, TaskId, Timestamp};

use super::rig::EngineRig;
use super::{Answer, Command, Notice, Options, Quota, Refusal, Report};

/// Rigs begin at eight in the morning.
const MINUTE: u64 = 60_000;

fn every(ms: u64) -> ScheduleSpec {
    ScheduleSpec { every_ms: Some(ms), ..ScheduleSpec::new(NewTask::new("t")) }
}

fn cron(pattern: &str) -> ScheduleSpec {
    ScheduleSpec { cron: Some(pattern.into()), ..ScheduleSpec::new(NewTask::new("t")) }
}

fn set(rig: &mut EngineRig, name: &str, spec: ScheduleSpec) {
    rig.decide(Command::SetSchedule { name: Name::new(name), spec }).expect("it may be set");
    rig.round();
}

fn pause(rig: &mut EngineRig, name: &str, paused: bool) {
    rig.decide(Command::PauseSchedule { name: Name::new(name), paused, author: None }).expect("it is there");
    rig.round();
}

fn schedule(rig: &EngineRig, name: &str) -> Schedule {
    let setting = rig.engine.settings().find(|setting| setting.name.as_str() == name).expect("it is set");
    match &setting.value {
        SettingValue::Schedule(schedule) => schedule.clone(),
        other => panic!("{other:?}"),
    }
}

/// Minutes since eight.
fn minute(at: Timestamp) -> i64 {
    (at.as_millis() - 1_800_000_000_000) / MINUTE as i64
}

/// The due times, as minutes since eight, that tasks of a schedule are for, in order; −1 where one was run by hand.
fn made(rig: &EngineRig, name: &str) -> Vec<i64> {
    let of = |task: &&std::sync::Arc<Task>| task.schedule().is_some_and(|schedule| schedule.as_str() == name);
    let due = |task: &std::sync::Arc<Task>| task.due_at().map_or(-1, minute);
    let mut made: Vec<i64> = rig.engine.tasks().filter(of).map(due).collect();
    made.sort();
    made
}

/// So many minutes pass, and something is done each second.
fn run_for(rig: &mut EngineRig, minutes: u64) {
    for _ in 0..minutes * 60 {
        rig.pass(1_000);
        if rig.engine.workers() > 0 {
            rig.heard("w");
        }
        rig.round();
    }
}

#[test]
fn a_due_time_makes_one_task_that_says_so() {
    let mut rig = EngineRig::new();
    set(&mut rig, "s", cron("*/5 * * * *"));
    run_for(&mut rig, 4);
    assert_eq!(made(&rig, "s"), [0; 0]);
    run_for(&mut rig, 12);
    assert_eq!(made(&rig, "s"), [5, 10, 15]);
    let known = schedule(&rig, "s");
    let last = known.state.last.expect("it ran");
    let task = rig.task(last.task_id);
    assert_eq!((task.status, task.task_type.as_str()), (Status::Pending, "t"));
    assert_eq!((task.due_at(), minute(last.due_at.unwrap())), (last.due_at, 15));
    assert_eq!(known.upcoming().into_iter().map(minute).collect::<Vec<_>>(), [20, 25, 30, 35, 40]);
    rig.decide(Command::UnsetSchedule { name: Name::new("s") }).unwrap();
    run_for(&mut rig, 10);
    assert_eq!(made(&rig, "s"), [5, 10, 15]);
}

/// The new task and what the schedule says of it stand in one batch.
#[test]
fn a_commit_that_fails_takes_back_both_the_task_and_the_due_time() {
    let mut rig = EngineRig::new();
    set(&mut rig, "s", every(MINUTE));
    rig.pass(MINUTE);
    for _ in 0..3 {
        rig.go();
        assert_eq!((rig.batch.changes.len(), rig.batch.settings.len()), (1, 1));
        assert_eq!(made(&rig, "s"), [1]);
        rig.take_back();
        assert_eq!(made(&rig, "s"), [0; 0]);
        assert_eq!(schedule(&rig, "s").state.last, None);
        rig.pass(1_000);
    }
    rig.round();
    rig.round();
    assert_eq!(made(&rig, "s"), [1]);
    rig.restart();
    rig.round();
    assert_eq!(made(&rig, "s"), [1], "it is not made again");
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s"), [1, 2]);
}

#[test]
fn what_was_due_while_the_hub_was_away_is_caught_up_as_asked() {
    let mut rig = EngineRig::new();
    for (name, catch_up) in [("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)] {
        set(&mut rig, name, ScheduleSpec { catch_up, catch_up_max: 3, ..every(MINUTE) });
    }
    run_for(&mut rig, 1);
    rig.away(4 * MINUTE + 30_000);
    rig.restart();
    rig.round();
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "none"), [1, 6]);
    assert_eq!(made(&rig, "last"), [1, 5, 6]);
    assert_eq!(made(&rig, "all"), [1, 3, 4, 5, 6]);
    let skipped = schedule(&rig, "all").state.skipped.expect("the second was one too many");
    assert_eq!((minute(skipped.due_at), skipped.reason), (2, SkipReason::Missed));
    // What is less than five seconds late is in time.
    rig.away(MINUTE - 35_000 + 3_500);
    rig.restart();
    rig.round();
    for name in ["none", "last", "all"] {
        assert_eq!(made(&rig, name).last(), Some(&7), "{name}");
    }
}

/// After a long absence thousands of schedules may have much to catch up; what is due now does not wait for that.
#[test]
fn what_is_caught_up_keeps_nothing_else_waiting() {
    let mut rig = EngineRig::new();
    for n in 0..10 {
        set(&mut rig, &format!("s{n}"), ScheduleSpec { catch_up: CatchUp::All, ..every(MINUTE) });
    }
    set(&mut rig, "hourly", cron("@hourly"));
    rig.away(60 * MINUTE - 1_500);
    rig.restart();
    rig.pass(500);
    rig.round();
    assert_eq!(made(&rig, "hourly"), [60]);
    assert!((0..10).all(|n| made(&rig, &format!("s{n}")).len() == 16), "each has begun");
    run_for(&mut rig, 1);
    for n in 0..10 {
        assert_eq!(made(&rig, &format!("s{n}")), (1..=61).collect::<Vec<_>>());
    }
}

#[test]
fn with_skip_there_is_one_task_at_a_time() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    set(&mut rig, "s", ScheduleSpec { overlap: Overlap::Skip, catch_up: CatchUp::All, ..every(MINUTE) });
    run_for(&mut rig, 3);
    assert_eq!(made(&rig, "s"), [1]);
    let skipped = schedule(&rig, "s").state.skipped.unwrap();
    assert_eq!((minute(skipped.due_at), skipped.reason), (3, SkipReason::Overlap));
    let first = schedule(&rig, "s").state.last.unwrap().task_id;
    // Also over a restart, and after a failed commit.
    rig.restart();
    rig.hello("w", 10, &[(first, 1)]);
    run_for(&mut rig, 1);
    rig.report(first, 1, Report::Complete { result: crate::task::Json::null() }).unwrap();
    rig.take_back();
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s"), [1], "its end was taken back");
    rig.report(first, 1, Report::Complete { result: crate::task::Json::null() }).unwrap();
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s"), [1, 6]);
}

/// The tasks of a schedule in the order of their due times, each with how it stands, and with the places of those that it
/// depends on.
fn stand(rig: &EngineRig, name: &str) -> Vec<(TaskId, Status, Vec<usize>)> {
    let of = |task: &&std::sync::Arc<Task>| task.schedule().is_some_and(|schedule| schedule.as_str() == name);
    let mut tasks: Vec<_> = rig.engine.tasks().filter(of).collect();
    tasks.sort_by_key(|task| task.task_id);
    let place = |id: &TaskId| tasks.iter().position(|task| task.task_id == *id).expect("it is of the schedule too");
    tasks.iter().map(|task| (task.task_id, task.status, task.depends_on().iter().map(place).collect())).collect()
}

fn statuses(rig: &EngineRig, name: &str) -> Vec<Status> {
    stand(rig, name).into_iter().map(|(_, status, _)| status).collect()
}

fn end(rig: &mut EngineRig, task_id: TaskId, report: Report) {
    let attempt = rig.task(task_id).attempt;
    rig.report(task_id, attempt, report).expect("it runs");
    rig.round();
}

fn failed() -> Report {
    let error = crate::task::Failure::new("exit", "no");
    Report::Fail { error, retryable: false, retry_after_ms: None }
}

#[test]
fn with_queue_none_is_left_out_and_one_runs_at_a_time() {
    use Status::{Completed, Failed, Running, Waiting};
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    set(&mut rig, "s", ScheduleSpec { overlap: Overlap::Queue, ..every(MINUTE) });
    run_for(&mut rig, 3);
    assert_eq!(made(&rig, "s"), [1, 2, 3]);
    assert_eq!(statuses(&rig, "s"), [Running, Waiting, Waiting]);
    let depends_on: Vec<Vec<usize>> = stand(&rig, "s").into_iter().map(|(.., depends_on)| depends_on).collect();
    assert_eq!(depends_on, [vec![], vec![0], vec![1]]);
    // However one ends, the next begins; also over a restart and a commit that fails.
    let ids: Vec<TaskId> = stand(&rig, "s").into_iter().map(|(task_id, ..)| task_id).collect();
    rig.restart();
    rig.hello("w", 10, &[(ids[0], 1)]);
    rig.report(ids[0], 1, failed()).unwrap();
    rig.go();
    rig.take_back();
    assert_eq!(statuses(&rig, "s"), [Running, Waiting, Waiting]);
    end(&mut rig, ids[0], failed());
    assert_eq!(statuses(&rig, "s"), [Failed, Running, Waiting]);
    // What is run by hand waits for none, and what is due later waits for it as well.
    rig.decide(Command::RunSchedule { name: Name::new("s") }).unwrap();
    rig.round();
    run_for(&mut rig, 1);
    assert_eq!(statuses(&rig, "s"), [Failed, Running, Waiting, Running, Waiting]);
    assert_eq!(stand(&rig, "s")[4].2, [2, 3]);
    end(&mut rig, ids[1], Report::Complete { result: crate::task::Json::null() });
    end(&mut rig, ids[2], Report::Complete { result: crate::task::Json::null() });
    assert_eq!(statuses(&rig, "s"), [Failed, Completed, Completed, Running, Waiting]);
    let by_hand = stand(&rig, "s")[3].0;
    end(&mut rig, by_hand, failed());
    assert_eq!(statuses(&rig, "s")[4], Running);
}

#[test]
fn with_replace_the_newest_runs_when_those_before_it_have_ended() {
    use Status::{Cancelled, Pending, Running, Waiting};
    let mut rig = EngineRig::new();
    let task = NewTask { cancel_grace_ms: Some(10 * MINUTE), ..NewTask::new("t") };
    set(&mut rig, "s", ScheduleSpec { overlap: Overlap::Replace, task: task.into(), ..every(MINUTE) });
    run_for(&mut rig, 2);
    assert_eq!(statuses(&rig, "s"), [Cancelled, Pending], "what has not begun need not stop");
    rig.hello("w", 10, &[]);
    rig.round();
    let runs = stand(&rig, "s")[1].0;
    // One that is run by hand replaces nothing, and is replaced.
    rig.decide(Command::RunSchedule { name: Name::new("s") }).unwrap();
    rig.round();
    let by_hand = stand(&rig, "s")[2].0;
    assert_eq!(statuses(&rig, "s"), [Cancelled, Running, Running]);
    rig.pass(MINUTE);
    rig.heard("w");
    rig.go();
    let stopped: Vec<TaskId> = (rig.batch.notices.iter())
        .filter_map(|notice| match notice {
            Notice::Stop { task_id, .. } => Some(*task_id),
            _ => None,
        })
        .collect();
    assert_eq!(stopped, [runs, by_hand]);
    rig.take_back();
    assert!(!rig.task(runs).cancel_requested(), "the commit failed");
    rig.round();
    assert!(rig.task(runs).cancel_requested() && rig.task(by_hand).cancel_requested());
    assert_eq!((statuses(&rig, "s")[3], stand(&rig, "s")[3].2.as_slice()), (Waiting, &[1, 2][..]));
    end(&mut rig, by_hand, Report::Cancelled);
    // The next takes the place of the one that waits, and waits for what is still to stop.
    run_for(&mut rig, 1);
    assert_eq!(statuses(&rig, "s"), [Cancelled, Running, Cancelled, Cancelled, Waiting]);
    assert_eq!(stand(&rig, "s")[4].2, [1]);
    rig.restart();
    rig.hello("w", 10, &[(runs, 1)]);
    end(&mut rig, runs, Report::Cancelled);
    assert_eq!(statuses(&rig, "s"), [Cancelled, Cancelled, Cancelled, Cancelled, Running]);
}

#[test]
fn what_may_not_be_submitted_replaces_nothing() {
    let mut rig = EngineRig::new();
    let limits = UserLimits { submits_per_min: Some(1), ..UserLimits::default() };
    let limits = crate::settings::Limits { user: limits, ..crate::settings::Limits::default() };
    rig.decide(Command::SetLimits { limits }).unwrap();
    let task = NewTask { user_id: Some("u".into()), ..NewTask::new("t") };
    set(&mut rig, "s", ScheduleSpec { task: task.into(), overlap: Overlap::Replace, ..every(MINUTE / 2) });
    run_for(&mut rig, 1);
    assert_eq!(statuses(&rig, "s"), [Status::Pending]);
    assert_eq!(schedule(&rig, "s").state.skipped.map(|skipped| skipped.reason), Some(SkipReason::QuotaExceeded));
}

#[test]
fn nothing_is_caught_up_for_a_pause_and_a_run_by_hand_needs_none() {
    let mut rig = EngineRig::new();
    set(&mut rig, "s", ScheduleSpec { overlap: Overlap::Skip, catch_up: CatchUp::All, ..every(MINUTE) });
    run_for(&mut rig, 1);
    // What is due at the moment of the pause has its task.
    let first = schedule(&rig, "s").state.last.unwrap().task_id;
    rig.decide(Command::Cancel { task_id: first, reason: None }).unwrap();
    rig.pass(MINUTE);
    rig.decide(Command::PauseSchedule { name: Name::new("s"), paused: true, author: None }).unwrap();
    assert_eq!(made(&rig, "s"), [1, 2]);
    rig.commit();
    run_for(&mut rig, 2);
    rig.restart();
    run_for(&mut rig, 2);
    assert_eq!(made(&rig, "s"), [1, 2]);
    assert_eq!(schedule(&rig, "s").upcoming(), []);

    let run = |rig: &mut EngineRig| match rig.decide(Command::RunSchedule { name: Name::new("s") }) {
        Ok(Answer::Submitted { tasks, .. }) => tasks[0].clone(),
        other => panic!("{other:?}"),
    };
    let task = run(&mut rig);
    assert_eq!((task.schedule().map(Name::as_str), task.due_at()), (Some("s"), None));
    assert_eq!(schedule(&rig, "s").state.last.map(|last| (last.task_id, last.due_at)), Some((task.task_id, None)));
    rig.take_back();
    assert_eq!(made(&rig, "s"), [1, 2]);
    run(&mut rig);
    rig.commit();
    for task_id in rig.engine.tasks().map(|task| task.task_id).collect::<Vec<TaskId>>() {
        let _ = rig.decide(Command::Cancel { task_id, reason: None });
    }
    pause(&mut rig, "s", false);
    rig.round();
    assert_eq!(made(&rig, "s"), [-1, 1, 2]);
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s"), [-1, 1, 2, 7]);

    for command in [
        Command::UnsetSchedule { name: Name::new("x") },
        Command::PauseSchedule { name: Name::new("x"), paused: true, author: None },
        Command::RunSchedule { name: Name::new("x") },
    ] {
        assert_eq!(rig.decide(command).err(), Some(Refusal::ScheduleNotFound));
    }
}

#[test]
fn a_clock_that_is_set_repeats_nothing() {
    let mut rig = EngineRig::new();
    set(&mut rig, "s", every(MINUTE));
    run_for(&mut rig, 3);
    assert_eq!(made(&rig, "s"), [1, 2, 3]);
    rig.set_wall(-(2 * MINUTE as i64) - 30_000);
    run_for(&mut rig, 2);
    rig.restart();
    rig.round();
    assert_eq!(made(&rig, "s"), [1, 2, 3], "it shows the same times again");
    run_for(&mut rig, 2);
    assert_eq!(made(&rig, "s"), [1, 2, 3, 4]);
    // It is set forward: as after an absence.
    rig.set_wall(10 * MINUTE as i64);
    rig.round();
    assert_eq!(made(&rig, "s").len(), 5);
    rig.round();
    assert_eq!(made(&rig, "s").len(), 5);
    // It is set back while something is due, before anything is done.
    rig.pass(MINUTE);
    rig.set_wall(-(MINUTE as i64));
    rig.round();
    assert_eq!(made(&rig, "s").len(), 5);
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s").len(), 6);
}

#[test]
fn what_may_not_be_submitted_waits_or_is_passed_over() {
    let mut rig = EngineRig::with(Options { tasks_max: 2, ..Options::default() });
    set(&mut rig, "s", every(MINUTE));
    run_for(&mut rig, 2);
    assert_eq!(made(&rig, "s"), [1, 2]);
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s"), [1, 2], "there is no room");
    assert_eq!(rig.engine.next_in(rig.now), Some(1_000), "it is tried now and then");
    assert_eq!(rig.decide(Command::RunSchedule { name: Name::new("s") }).err(), Some(Refusal::Full));
    assert_eq!(rig.batch.settings.len(), 0);
    let first = rig.engine.tasks().map(|task| task.task_id).min().unwrap();
    rig.decide(Command::Cancel { task_id: first, reason: None }).unwrap();
    rig.pass(2_000);
    rig.round();
    assert_eq!(made(&rig, "s"), [1, 2, 3]);

    let mut rig = EngineRig::new();
    let limits = UserLimits { waiting: Some(1), ..UserLimits::default() };
    let limits = crate::settings::Limits { user: limits, ..crate::settings::Limits::default() };
    rig.decide(Command::SetLimits { limits }).unwrap();
    let task = NewTask { user_id: Some("u".into()), ..NewTask::new("t") };
    set(&mut rig, "s", ScheduleSpec { task: task.into(), ..every(MINUTE) });
    run_for(&mut rig, 2);
    assert_eq!(made(&rig, "s"), [1]);
    assert_eq!(schedule(&rig, "s").state.skipped.map(|skipped| skipped.reason), Some(SkipReason::QuotaExceeded));
    let refused = rig.decide(Command::RunSchedule { name: Name::new("s") }).err();
    assert_eq!(refused, Some(Refusal::Quota(Quota::Waiting { limit: 1 })));
    // A hub that goes down makes them all the same, for the next.
    let mut rig = EngineRig::new();
    set(&mut rig, "s", every(MINUTE));
    rig.decide(Command::Drain).unwrap();
    run_for(&mut rig, 1);
    assert_eq!(made(&rig, "s"), [1]);
    assert_eq!(rig.decide(Command::RunSchedule { name: Name::new("s") }).err(), Some(Refusal::Draining));
}

#[test]
fn each_schedule_has_its_own_delay() {
    let mut rig = EngineRig::new();
    set(&mut rig, "s", ScheduleSpec { jitter_ms: Some(30_000), ..every(MINUTE) });
    let delay = schedule(&rig, "s").delay_ms(&Name::new("s"));
    assert!(delay > 1_000, "another name would show more: {delay}");
    rig.pass(MINUTE + delay - 1);
    rig.round();
    assert_eq!(made(&rig, "s"), [0; 0]);
    rig.pass(1);
    rig.round();
    assert_eq!(made(&rig, "s"), [1], "the due time is without");
    assert_eq!(schedule(&rig, "s").next().map(minute), Some(2));
}

#[test]
fn schedules_are_numbered_and_wrong_ones_change_nothing() {
    let mut rig = EngineRig::new();
    let command = |n: usize| Command::SetSchedule { name: Name::new(&format!("s{n}")), spec: every(MINUTE) };
    for n in 0..SCHEDULES_MAX {
        rig.decide(command(n)).unwrap();
    }
    let Err(Refusal::Invalid(invalid)) = rig.decide(command(SCHEDULES_MAX)) else { panic!("one too many") };
    assert_eq!(invalid.kind, InvalidKind::Limit(SCHEDULES_MAX as u64));
    rig.decide(command(1)).expect("one that is there");
    assert_eq!(rig.engine.rev(), SCHEDULES_MAX as u64, "nothing of it is different");
    rig.commit();
    rig.pass(MINUTE);
    let wrong = Command::SetSchedule { name: Name::new("s1"), spec: cron("0 0 30 2 *") };
    assert!(matches!(rig.decide(wrong), Err(Refusal::Invalid(_))));
    assert_eq!((rig.batch.changes.len(), rig.batch.settings.len()), (0, 0));
}
