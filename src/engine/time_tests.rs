//! Time: restarts, absences of the hub, clocks that are set, and waits.

use crate::task::{NewTask, Outcome, RetryPolicy, Status, Task, TaskId};

use super::rig::{EngineRig, runs};
use super::tests::{complete, fail};
use super::{Command, Report};

/// Regression: such a worker counted as there to the end of its grace, and a task that only it took waited as long.
#[test]
fn a_worker_that_is_away_and_has_nothing_left_is_gone() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(1_000), max_attempts: Some(2), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.left("w");
    rig.pass(900);
    rig.round();
    assert_eq!(rig.engine.workers(), 1, "it may come back with what it holds");
    rig.pass(100);
    rig.go();
    rig.take_back();
    assert_eq!(rig.engine.workers(), 1, "that it holds nothing was taken back");
    rig.round();
    assert_eq!((rig.status(task_id), rig.engine.workers()), (Status::Scheduled, 0));
}

#[test]
fn what_nobody_came_back_to_after_a_restart_is_a_crash() {
    // Regression: it was given back, so a task that took hub and worker along was handed out for ever. Whoever comes back
    // in time loses nothing.
    let mut rig = EngineRig::new();
    let [first, second] = [(); 2].map(|()| rig.submit(NewTask::new("t")));
    rig.claim("w", 2, 1);
    rig.round();
    rig.restart();
    rig.pass(9_000);
    rig.report(first, 1, Report::Heartbeat).unwrap();
    rig.pass(9_999);
    rig.round();
    assert_eq!((rig.status(first), rig.status(second)), (Status::Running, Status::Running));
    rig.pass(1);
    rig.round();
    for task_id in [first, second] {
        assert_eq!((rig.status(task_id), rig.task(task_id).crashes), (Status::Pending, 1));
    }
}

#[test]
fn a_task_that_takes_hub_and_worker_along_is_poison_in_the_end() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { max_crashes: Some(2), ..NewTask::new("t") });
    for round in 1..=2 {
        rig.begins("w", 1);
        assert_eq!(runs(&rig.round()).len(), 1);
        rig.restart();
        if round == 1 {
            // Its supervisor starts it again, under the same name.
            rig.begins("w", 0);
        } else {
            rig.pass(15_000);
        }
        rig.round();
        assert_eq!(rig.task(task_id).crashes, round);
    }
    assert_eq!(rig.status(task_id), Status::Failed);
}

#[test]
fn what_the_hub_died_with_before_it_was_handed_out_is_no_crash() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask::new("t"));
    rig.hello("w", 1, &[]);
    rig.round();
    rig.restart();
    rig.hello("w", 0, &[]);
    rig.round();
    assert_eq!((rig.status(task_id), rig.task(task_id).crashes), (Status::Pending, 0));
}

/// The writer was away for an hour, and woke up.
fn slept(rig: &mut EngineRig) {
    rig.away(3_600_000);
    rig.round();
    rig.pass(1_000);
}

#[test]
fn nobody_is_judged_by_time_that_the_hub_did_not_live_through() {
    let mut rig = EngineRig::new();
    let submit = |rig: &mut EngineRig, timeout_ms| rig.submit(NewTask { timeout_ms, ..NewTask::new("t") });
    let [leased, gone, timed, claimed] = [None, None, Some(9_000), None].map(|timeout_ms| submit(&mut rig, timeout_ms));
    for worker_id in ["leased", "gone", "timed"] {
        rig.hello(worker_id, 1, &[]);
        rig.round();
    }
    rig.claim("claimed", 1, 1);
    rig.round();
    rig.left("gone");
    rig.pass(4_000);
    slept(&mut rig);
    rig.round();
    for task_id in [leased, gone, timed, claimed] {
        assert_eq!(rig.status(task_id), Status::Running, "nothing counts but the 4 s before");
    }
    // Then time goes on, for each as if nothing had been.
    rig.pass(1_000);
    rig.round();
    assert_eq!((rig.status(gone), rig.status(timed)), (Status::Pending, Status::Running));
    rig.heard("timed");
    rig.pass(4_000);
    rig.round();
    assert_eq!((rig.status(timed), rig.status(leased)), (Status::Failed, Status::Running));
    rig.pass(1_000);
    rig.round();
    assert_eq!((rig.status(leased), rig.status(claimed)), (Status::Pending, Status::Pending));
}

#[test]
fn a_wait_is_as_long_as_was_asked_for_whatever_the_clock_does() {
    // Regression: with the clock an hour back, a next try in 1 s and a delay of 1 s waited for an hour.
    for (set, then) in [(-3_600_000, 0), (3_600_000, 0), (-3_600_000, 3_600_000), (86_400_000, -86_400_000)] {
        let mut rig = EngineRig::new();
        let delayed = rig.submit(NewTask { delay_ms: Some(5_000), ..NewTask::new("t") });
        let retried = rig.submit(NewTask {
            max_attempts: Some(2),
            retry: Some(RetryPolicy { base_ms: 5_000, jitter: 0.0, ..RetryPolicy::default() }),
            ..NewTask::new("t")
        });
        rig.claim("w", 1, 1);
        rig.round();
        rig.report(retried, 1, fail(true)).unwrap();
        rig.round();
        let base = |task: &Task| (task.updated_at, task.run_at, task.delay_ms());
        for task_id in [delayed, retried] {
            let (updated_at, run_at, delay_ms) = base(rig.task(task_id));
            assert_eq!((run_at, delay_ms), (Some(updated_at.plus_millis(5_000)), Some(5_000)));
        }
        rig.set_wall(set);
        rig.pass(2_000);
        rig.set_wall(then);
        rig.pass(2_999);
        // What was decided meanwhile and taken back changes nothing of it.
        rig.decide(Command::Cancel { task_id: delayed, reason: None }).unwrap();
        rig.take_back();
        rig.round();
        assert_eq!((rig.status(delayed), rig.status(retried)), (Status::Scheduled, Status::Scheduled));
        rig.pass(1);
        rig.round();
        assert_eq!((rig.status(delayed), rig.status(retried)), (Status::Pending, Status::Pending), "{set}, {then}");
        assert_eq!(rig.task(delayed).delay_ms(), None);
    }
}

#[test]
fn after_a_restart_a_wait_is_no_longer_than_it_was_whatever_the_clock_was_set_to() {
    for set in [-3_600_000, 0, 3_600_000] {
        let mut rig = EngineRig::new();
        let delayed = rig.submit(NewTask { delay_ms: Some(5_000), ..NewTask::new("t") });
        let moment = rig.now.wall.plus_millis(5_000);
        let named = rig.submit(NewTask { run_at: Some(moment), ..NewTask::new("t") });
        rig.round();
        rig.set_wall(set);
        rig.restart();
        rig.pass(5_000);
        rig.round();
        assert_eq!(rig.status(delayed), Status::Pending, "set by {set} ms");
        let due = rig.now.wall >= moment;
        assert_eq!(rig.status(named) == Status::Pending, due, "a moment that was named is the clock's");
    }
}

#[test]
fn one_moment_has_one_time_and_nothing_finishes_before_it_started() {
    // Regression: with the clock set back during a run, it finished two hours before it started, and at another time than
    // its history said.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask::new("t"));
    rig.claim("w", 1, 1);
    rig.round();
    let started_at = rig.task(task_id).run().unwrap().started_at.unwrap();
    rig.set_wall(-7_200_000);
    rig.pass(4_000);
    rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
    let asked_at = rig.task(task_id).run().unwrap().cancel_requested_at.unwrap();
    rig.pass(4_000);
    rig.report(task_id, 1, complete()).unwrap();
    let written_at = rig.changes().last().unwrap().at;
    let task = rig.task(task_id);
    let finished_at = task.run().unwrap().finished_at.unwrap();
    assert_eq!((finished_at, task.updated_at), (written_at, written_at));
    assert!(task.created_at <= started_at && started_at < asked_at && asked_at < finished_at);
    let late = rig.submit(NewTask::new("t"));
    assert_eq!(rig.task(late).created_at, finished_at);
    assert_eq!(late.made_at(), finished_at);
}

#[test]
fn a_timeout_is_not_judged_before_a_restarted_hub_could_hear_how_it_ended() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(2_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.pass(1_999);
    rig.restart();
    rig.round();
    rig.pass(3_000);
    rig.round();
    rig.hello("w", 1, &[(task_id, 1)]);
    rig.round();
    rig.report(task_id, 1, complete()).unwrap();
    assert_eq!(rig.status(task_id), Status::Completed);
}

#[test]
fn a_task_that_only_one_process_can_do_ends_when_that_is_gone() {
    let unserved = || NewTask { unserved_ms: Some(8_000), queue: Some("only".into()), ..NewTask::new("t") };
    let ends = |rig: &mut EngineRig, task_id: TaskId| {
        rig.pass(7_999);
        rig.round();
        assert_eq!(rig.status(task_id), Status::Pending);
        rig.pass(1);
        rig.round();
        let Some(Outcome::Error(error)) = &rig.task(task_id).run().unwrap().outcome else { panic!("it has no error") };
        assert_eq!((rig.status(task_id), error.kind.as_str()), (Status::Failed, "lost"));
    };
    // Nobody ever came.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(unserved());
    rig.hello("other", 1, &[]);
    rig.round();
    ends(&mut rig, task_id);
    // It was given back, and with the hub its process went down.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(unserved());
    rig.hello_for("w", "*", "only", 1, &[]);
    rig.round();
    rig.decide(Command::GiveBack).unwrap();
    rig.commit();
    rig.restart();
    ends(&mut rig, task_id);
    // While its worker is there it waits, though that has no room.
    let mut rig = EngineRig::new();
    rig.hello_for("w", "*", "only", 1, &[]);
    let first = rig.submit(NewTask { queue: Some("only".into()), ..NewTask::new("t") });
    rig.round();
    let task_id = rig.submit(unserved());
    for _ in 0..20 {
        rig.pass(2_000);
        rig.heard("w");
        rig.round();
    }
    assert_eq!((rig.status(first), rig.status(task_id)), (Status::Running, Status::Pending));
    // And what it failed by is taken back like anything else.
    rig.left("w");
    rig.pass(5_000);
    rig.round();
    rig.pass(8_000);
    rig.go();
    assert_eq!(rig.status(task_id), Status::Failed);
    rig.take_back();
    assert_eq!(rig.status(task_id), Status::Pending);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Failed, "what was due then is due now");
}
