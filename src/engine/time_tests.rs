//! Time: restarts, absences of the hub, clocks that are set, and waits.

use crate::task::{NewTask, Outcome, RetryPolicy, Status, Task, TaskId};

use super::desk::{Desk, runs};
use super::tests::{complete, fail};
use super::{Command, Report};

/// Regression: such a worker counted as there to the end of its grace, and a task that only it took waited as long.
#[test]
fn a_worker_that_is_away_and_has_nothing_left_is_gone() {
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask { timeout_ms: Some(1_000), max_attempts: Some(2), ..NewTask::new("t") });
    desk.hello("w", 1, &[]);
    desk.round();
    desk.left("w");
    desk.pass(900);
    desk.round();
    assert_eq!(desk.engine.workers(), 1, "it may come back with what it holds");
    desk.pass(100);
    desk.go();
    desk.take_back();
    assert_eq!(desk.engine.workers(), 1, "that it holds nothing was taken back");
    desk.round();
    assert_eq!((desk.status(task_id), desk.engine.workers()), (Status::Scheduled, 0));
}

#[test]
fn what_nobody_came_back_to_after_a_restart_is_a_crash() {
    // Regression: it was given back, so a task that took hub and worker along was handed out for ever. Whoever comes back
    // in time loses nothing.
    let mut desk = Desk::new();
    let [first, second] = [(); 2].map(|()| desk.submit(NewTask::new("t")));
    desk.claim("w", 2, 1);
    desk.round();
    desk.restart();
    desk.pass(9_000);
    desk.report(first, 1, Report::Heartbeat).unwrap();
    desk.pass(9_999);
    desk.round();
    assert_eq!((desk.status(first), desk.status(second)), (Status::Running, Status::Running));
    desk.pass(1);
    desk.round();
    for task_id in [first, second] {
        assert_eq!((desk.status(task_id), desk.task(task_id).crashes), (Status::Pending, 1));
    }
}

#[test]
fn a_task_that_takes_hub_and_worker_along_is_poison_in_the_end() {
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask { max_crashes: Some(2), ..NewTask::new("t") });
    for round in 1..=2 {
        desk.begins("w", 1);
        assert_eq!(runs(&desk.round()).len(), 1);
        desk.restart();
        if round == 1 {
            // Its supervisor starts it again, under the same name.
            desk.begins("w", 0);
        } else {
            desk.pass(15_000);
        }
        desk.round();
        assert_eq!(desk.task(task_id).crashes, round);
    }
    assert_eq!(desk.status(task_id), Status::Failed);
}

#[test]
fn what_the_hub_died_with_before_it_was_handed_out_is_no_crash() {
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask::new("t"));
    desk.hello("w", 1, &[]);
    desk.round();
    desk.restart();
    desk.hello("w", 0, &[]);
    desk.round();
    assert_eq!((desk.status(task_id), desk.task(task_id).crashes), (Status::Pending, 0));
}

/// The writer was away for an hour, and woke up.
fn slept(desk: &mut Desk) {
    desk.away(3_600_000);
    desk.round();
    desk.pass(1_000);
}

#[test]
fn nobody_is_judged_by_time_that_the_hub_did_not_live_through() {
    let mut desk = Desk::new();
    let submit = |desk: &mut Desk, timeout_ms| desk.submit(NewTask { timeout_ms, ..NewTask::new("t") });
    let [leased, gone, timed, claimed] =
        [None, None, Some(9_000), None].map(|timeout_ms| submit(&mut desk, timeout_ms));
    for worker_id in ["leased", "gone", "timed"] {
        desk.hello(worker_id, 1, &[]);
        desk.round();
    }
    desk.claim("claimed", 1, 1);
    desk.round();
    desk.left("gone");
    desk.pass(4_000);
    slept(&mut desk);
    desk.round();
    for task_id in [leased, gone, timed, claimed] {
        assert_eq!(desk.status(task_id), Status::Running, "nothing counts but the 4 s before");
    }
    // Then time goes on, for each as if nothing had been.
    desk.pass(1_000);
    desk.round();
    assert_eq!((desk.status(gone), desk.status(timed)), (Status::Pending, Status::Running));
    desk.heard("timed");
    desk.pass(4_000);
    desk.round();
    assert_eq!((desk.status(timed), desk.status(leased)), (Status::Failed, Status::Running));
    desk.pass(1_000);
    desk.round();
    assert_eq!((desk.status(leased), desk.status(claimed)), (Status::Pending, Status::Pending));
}

#[test]
fn a_wait_is_as_long_as_was_asked_for_whatever_the_clock_does() {
    // Regression: with the clock an hour back, a next try in 1 s and a delay of 1 s waited for an hour.
    for (set, then) in [(-3_600_000, 0), (3_600_000, 0), (-3_600_000, 3_600_000), (86_400_000, -86_400_000)] {
        let mut desk = Desk::new();
        let delayed = desk.submit(NewTask { delay_ms: Some(5_000), ..NewTask::new("t") });
        let retried = desk.submit(NewTask {
            max_attempts: Some(2),
            retry: Some(RetryPolicy { base_ms: 5_000, jitter: 0.0, ..RetryPolicy::default() }),
            ..NewTask::new("t")
        });
        desk.claim("w", 1, 1);
        desk.round();
        desk.report(retried, 1, fail(true)).unwrap();
        desk.round();
        let base = |task: &Task| (task.updated_at, task.run_at, task.delay_ms());
        for task_id in [delayed, retried] {
            let (updated_at, run_at, delay_ms) = base(desk.task(task_id));
            assert_eq!((run_at, delay_ms), (Some(updated_at.plus_millis(5_000)), Some(5_000)));
        }
        desk.set_wall(set);
        desk.pass(2_000);
        desk.set_wall(then);
        desk.pass(2_999);
        // What was decided meanwhile and taken back changes nothing of it.
        desk.decide(Command::Cancel { task_id: delayed, reason: None }).unwrap();
        desk.take_back();
        desk.round();
        assert_eq!((desk.status(delayed), desk.status(retried)), (Status::Scheduled, Status::Scheduled));
        desk.pass(1);
        desk.round();
        assert_eq!((desk.status(delayed), desk.status(retried)), (Status::Pending, Status::Pending), "{set}, {then}");
        assert_eq!(desk.task(delayed).delay_ms(), None);
    }
}

#[test]
fn after_a_restart_a_wait_is_no_longer_than_it_was_whatever_the_clock_was_set_to() {
    for set in [-3_600_000, 0, 3_600_000] {
        let mut desk = Desk::new();
        let delayed = desk.submit(NewTask { delay_ms: Some(5_000), ..NewTask::new("t") });
        let moment = desk.now.wall.plus_millis(5_000);
        let named = desk.submit(NewTask { run_at: Some(moment), ..NewTask::new("t") });
        desk.round();
        desk.set_wall(set);
        desk.restart();
        desk.pass(5_000);
        desk.round();
        assert_eq!(desk.status(delayed), Status::Pending, "set by {set} ms");
        let due = desk.now.wall >= moment;
        assert_eq!(desk.status(named) == Status::Pending, due, "a moment that was named is the clock's");
    }
}

#[test]
fn one_moment_has_one_time_and_nothing_finishes_before_it_started() {
    // Regression: with the clock set back during a run, it finished two hours before it started, and at another time than
    // its history said.
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask::new("t"));
    desk.claim("w", 1, 1);
    desk.round();
    let started_at = desk.task(task_id).run().unwrap().started_at.unwrap();
    desk.set_wall(-7_200_000);
    desk.pass(4_000);
    desk.decide(Command::Cancel { task_id, reason: None }).unwrap();
    let asked_at = desk.task(task_id).run().unwrap().cancel_requested_at.unwrap();
    desk.pass(4_000);
    desk.report(task_id, 1, complete()).unwrap();
    let written_at = desk.changes().last().unwrap().at;
    let task = desk.task(task_id);
    let finished_at = task.run().unwrap().finished_at.unwrap();
    assert_eq!((finished_at, task.updated_at), (written_at, written_at));
    assert!(task.created_at <= started_at && started_at < asked_at && asked_at < finished_at);
    let late = desk.submit(NewTask::new("t"));
    assert_eq!(desk.task(late).created_at, finished_at);
    assert_eq!(late.made_at(), finished_at);
}

#[test]
fn a_timeout_is_not_judged_before_a_restarted_hub_could_hear_how_it_ended() {
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask { timeout_ms: Some(2_000), ..NewTask::new("t") });
    desk.hello("w", 1, &[]);
    desk.round();
    desk.pass(1_999);
    desk.restart();
    desk.round();
    desk.pass(3_000);
    desk.round();
    desk.hello("w", 1, &[(task_id, 1)]);
    desk.round();
    desk.report(task_id, 1, complete()).unwrap();
    assert_eq!(desk.status(task_id), Status::Completed);
}

#[test]
fn a_task_that_only_one_process_can_do_ends_when_that_is_gone() {
    let unserved = || NewTask { unserved_ms: Some(8_000), queue: Some("only".into()), ..NewTask::new("t") };
    let ends = |desk: &mut Desk, task_id: TaskId| {
        desk.pass(7_999);
        desk.round();
        assert_eq!(desk.status(task_id), Status::Pending);
        desk.pass(1);
        desk.round();
        let Some(Outcome::Error(error)) = &desk.task(task_id).run().unwrap().outcome else { panic!("it has no error") };
        assert_eq!((desk.status(task_id), error.kind.as_str()), (Status::Failed, "lost"));
    };
    // Nobody ever came.
    let mut desk = Desk::new();
    let task_id = desk.submit(unserved());
    desk.hello("other", 1, &[]);
    desk.round();
    ends(&mut desk, task_id);
    // It was given back, and with the hub its process went down.
    let mut desk = Desk::new();
    let task_id = desk.submit(unserved());
    desk.hello_for("w", "*", "only", 1, &[]);
    desk.round();
    desk.decide(Command::GiveBack).unwrap();
    desk.commit();
    desk.restart();
    ends(&mut desk, task_id);
    // While its worker is there it waits, though that has no room.
    let mut desk = Desk::new();
    desk.hello_for("w", "*", "only", 1, &[]);
    let first = desk.submit(NewTask { queue: Some("only".into()), ..NewTask::new("t") });
    desk.round();
    let task_id = desk.submit(unserved());
    for _ in 0..20 {
        desk.pass(2_000);
        desk.heard("w");
        desk.round();
    }
    assert_eq!((desk.status(first), desk.status(task_id)), (Status::Running, Status::Pending));
    // And what it failed by is taken back like anything else.
    desk.left("w");
    desk.pass(5_000);
    desk.round();
    desk.pass(8_000);
    desk.go();
    assert_eq!(desk.status(task_id), Status::Failed);
    desk.take_back();
    assert_eq!(desk.status(task_id), Status::Pending);
    ends(&mut desk, task_id);
}
