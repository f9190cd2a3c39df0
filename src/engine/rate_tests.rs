//! Rates: how much is handed out within a while, over failures, restarts and whatever clocks do.

use crate::settings::{QueueSettings, Rate, RateBy};
use crate::task::{Name, NewTask, RetryPolicy, Status, TaskId, WaitsFor};

use super::rig::{EngineRig, runs};
use super::{Answer, Command, Report};

fn set(rig: &mut EngineRig, rate: Rate) {
    let settings = QueueSettings { rate: Some(rate), ..QueueSettings::default() };
    rig.decide(Command::SetQueue { name: Name::new("default"), settings }).expect("it may be set");
}

fn rate(limit: u32, per_ms: u64, by: RateBy) -> Rate {
    Rate { limit, per_ms, by }
}

fn many(rig: &mut EngineRig, count: usize) -> Vec<TaskId> {
    (0..count).map(|_| rig.submit(NewTask::new("t"))).collect()
}

/// How many are handed out in a round.
fn given(rig: &mut EngineRig) -> usize {
    runs(&rig.round()).len()
}

fn waits(rig: &mut EngineRig, task_id: TaskId) -> Vec<WaitsFor> {
    match rig.decide(Command::WaitsFor { task_id }) {
        Ok(Answer::Waits(waits)) => waits,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_window_wherever_it_begins_holds_more_than_the_limit() {
    let mut rig = EngineRig::new();
    rig.hello("w", 100, &[]);
    set(&mut rig, rate(3, 1_000, RateBy::Queue));
    let first = rig.submit(NewTask::new("t"));
    assert_eq!(given(&mut rig), 1);
    rig.pass(900);
    let ids = many(&mut rig, 10);
    assert_eq!(given(&mut rig), 2);
    let until = rig.now.wall.plus_millis(101);
    assert_eq!(waits(&mut rig, ids[2]), [WaitsFor::Rate { until }]);
    assert_eq!(waits(&mut rig, first), []);
    assert_eq!(rig.engine.next_in(rig.now), Some(101));
    rig.pass(100);
    assert_eq!(given(&mut rig), 0, "times are of whole milliseconds: it may be a little less than a second ago");
    rig.pass(1);
    assert_eq!(given(&mut rig), 1, "the first is out of the window, and the two after it are not");
    rig.pass(899);
    assert_eq!(given(&mut rig), 0);
    rig.pass(1);
    assert_eq!(given(&mut rig), 2);
    rig.pass(5_000);
    assert_eq!(given(&mut rig), 3);
}

#[test]
fn retries_count_and_a_task_that_ends_makes_no_room() {
    let mut rig = EngineRig::new();
    rig.hello("w", 100, &[]);
    set(&mut rig, rate(2, 1_000, RateBy::Queue));
    let retry = RetryPolicy { base_ms: 10, ..RetryPolicy::default() };
    let task_id = rig.submit(NewTask { max_attempts: Some(5), retry: Some(retry), ..NewTask::new("t") });
    for attempt in 1..=2 {
        rig.pass(20);
        assert_eq!(given(&mut rig), 1);
        let error = crate::task::Failure::new("exit", "no");
        rig.report(task_id, attempt, Report::Fail { error, retryable: true, retry_after_ms: Some(10) }).unwrap();
    }
    rig.pass(20);
    assert_eq!((given(&mut rig), rig.status(task_id)), (0, Status::Pending));
    rig.pass(1_000);
    assert_eq!(given(&mut rig), 1);
}

#[test]
fn users_and_keys_have_windows_of_their_own() {
    for by in [RateBy::User, RateBy::Key] {
        let mut rig = EngineRig::new();
        rig.hello("w", 100, &[]);
        let of = |name: &str| match by {
            RateBy::User => NewTask { user_id: Some(name.into()), ..NewTask::new("t") },
            _ => NewTask { concurrency_key: Some(name.into()), ..NewTask::new("t") },
        };
        let settings =
            QueueSettings { rate: Some(rate(1, 1_000, by)), key_concurrency: 100, ..QueueSettings::default() };
        rig.decide(Command::SetQueue { name: Name::new("default"), settings }).unwrap();
        let ids = ["a", "a", "b"].map(|name| rig.submit(of(name)));
        many(&mut rig, 5);
        assert_eq!(given(&mut rig), 7, "one of each, and all that have none");
        assert!(matches!(waits(&mut rig, ids[1])[..], [WaitsFor::Rate { .. }]));
        rig.pass(500);
        let c = rig.submit(of("c"));
        assert_eq!((given(&mut rig), rig.status(c)), (1, Status::Running), "what is held back holds nobody else back");
        rig.pass(501);
        assert_eq!((given(&mut rig), rig.status(ids[1])), (1, Status::Running));
        rig.pass(2_000);
        rig.round();
        assert_eq!(rig.engine.rates.windows(), 0, "nothing is known of those of the past");
    }
}

#[test]
fn what_was_taken_back_does_not_count() {
    let mut rig = EngineRig::new();
    rig.hello("w", 100, &[]);
    for by in [RateBy::Queue, RateBy::User] {
        set(&mut rig, rate(2, 1_000, by));
        rig.commit();
        for _ in 0..4 {
            rig.submit(NewTask { user_id: Some("u".into()), ..NewTask::new("t") });
        }
        rig.commit();
        for _ in 0..3 {
            rig.go();
            rig.take_back();
        }
        assert_eq!(given(&mut rig), 2);
        rig.take_back();
        assert_eq!(given(&mut rig), 0);
        rig.pass(1_001);
        assert_eq!(given(&mut rig), 2);
        rig.pass(1_001);
    }
}

/// A change that could not be written down brings back what it forgot.
#[test]
fn a_rate_that_was_taken_away_in_vain_goes_on() {
    let mut rig = EngineRig::new();
    rig.hello("w", 100, &[]);
    set(&mut rig, rate(2, 1_000, RateBy::Queue));
    many(&mut rig, 10);
    assert_eq!(given(&mut rig), 2);
    let name = Name::new("default");
    for settings in [
        QueueSettings::default(),
        QueueSettings { rate: Some(rate(2, 1, RateBy::Queue)), ..QueueSettings::default() },
        QueueSettings { rate: Some(rate(2, 1_000, RateBy::User)), ..QueueSettings::default() },
    ] {
        rig.pass(100);
        rig.decide(Command::SetQueue { name: name.clone(), settings }).unwrap();
        rig.go();
        rig.take_back();
        assert_eq!(given(&mut rig), 0);
    }
    rig.pass(701);
    assert_eq!(given(&mut rig), 2);
    rig.decide(Command::UnsetQueue { name }).unwrap();
    assert_eq!(given(&mut rig), 6);
}

#[test]
fn another_rate_goes_on_with_what_counts() {
    for by in [RateBy::Queue, RateBy::User] {
        let mut rig = EngineRig::new();
        rig.hello("w", 100, &[]);
        set(&mut rig, rate(4, 1_000, by));
        for _ in 0..20 {
            rig.submit(NewTask { user_id: Some("u".into()), ..NewTask::new("t") });
        }
        assert_eq!(given(&mut rig), 4);
        set(&mut rig, rate(2, 2_000, by));
        assert_eq!(given(&mut rig), 0);
        rig.pass(1_500);
        assert_eq!(given(&mut rig), 0, "they count as the window is now");
        set(&mut rig, rate(5, 2_000, by));
        assert_eq!(given(&mut rig), 1);
        set(&mut rig, rate(5, 1_000, by));
        assert_eq!(given(&mut rig), 4);
    }
}

#[test]
fn the_wall_clock_moves_no_window() {
    for by_millis in [7_200_000, -7_200_000] {
        let mut rig = EngineRig::new();
        rig.hello("w", 100, &[]);
        set(&mut rig, rate(2, 1_000, RateBy::Queue));
        many(&mut rig, 10);
        assert_eq!(given(&mut rig), 2);
        rig.set_wall(by_millis);
        assert_eq!(given(&mut rig), 0);
        rig.pass(999);
        rig.restart();
        rig.hello("w", 100, &[]);
        // The rig's hub is gone for a second.
        rig.set_wall(by_millis);
        assert_eq!(given(&mut rig), 2);
    }
}

#[test]
fn a_restart_forgets_nothing_that_counts() {
    for by in [RateBy::Queue, RateBy::User] {
        let mut rig = EngineRig::new();
        rig.hello("w", 100, &[]);
        set(&mut rig, rate(3, 5_000, by));
        for _ in 0..10 {
            rig.submit(NewTask { user_id: Some("u".into()), ..NewTask::new("t") });
        }
        rig.commit();
        rig.restart();
        rig.hello("w", 100, &[]);
        assert_eq!(given(&mut rig), 3);
        rig.pass(2_000);
        rig.restart();
        rig.hello("w", 100, &[]);
        assert_eq!(given(&mut rig), 0);
        rig.pass(2_000);
        assert_eq!(given(&mut rig), 0);
        rig.pass(1);
        assert_eq!(given(&mut rig), 3);
    }
}

/// A hand-out is seen when its commit is on disk: one that waited for that must not meet those of the next window.
#[test]
fn what_a_slow_disk_held_up_counts_from_when_it_was_given() {
    let mut rig = EngineRig::new();
    rig.hello("w", 100, &[]);
    set(&mut rig, rate(1, 1_000, RateBy::Queue));
    many(&mut rig, 3);
    rig.go();
    rig.pass(700);
    assert_eq!(runs(&rig.commit()).len(), 1);
    rig.pass(500);
    assert_eq!(given(&mut rig), 0);
    rig.pass(501);
    assert_eq!(given(&mut rig), 1);
}

#[test]
fn a_large_window_stays_small_and_lets_nothing_through_early() {
    let mut rig = EngineRig::new();
    rig.hello("w", 100_000, &[]);
    set(&mut rig, rate(3_000, 10_000, RateBy::Queue));
    many(&mut rig, 4_000);
    rig.commit();
    let mut times = Vec::new();
    for _ in 0..8_000 {
        let cx = &mut super::Cx { now: rig.now, ticks: &(), batch: &mut rig.batch };
        rig.engine.fire(cx, usize::MAX);
        // In the end as many as may: what was put together must not come early.
        rig.engine.assign(cx, if times.len() < 3_000 { 1 } else { usize::MAX });
        let started = runs(&rig.commit()).len();
        times.extend(std::iter::repeat_n(rig.now.mono, started));
        rig.heard("w");
        rig.pass(3);
    }
    assert_eq!(times.len(), 4_000);
    let gaps: Vec<u64> = times.windows(3_001).map(|window| window[3_000] - window[0]).collect();
    assert!(gaps.iter().all(|gap| *gap > 10_000), "too early");
    assert!(gaps.iter().all(|gap| *gap < 10_100), "late by more than one in a hundred: {:?}", gaps.iter().max());
}
