//! Deadlines, silence, and requests to stop.

use crate::task::{Cancel, Json, NewTask, Outcome, RetryPolicy, Status, Task, TaskId, Timestamp};

use super::rig::{EngineRig, runs};
use super::tests::{complete, fail};
use super::{Answer, Command, Cx, NotNow, Notice, Now, Refusal, Report, Ticks};

/// How a task failed.
fn kind(task: &Task) -> &str {
    match task.run().and_then(|run| run.outcome.as_ref()) {
        Some(Outcome::Error(error)) => &error.kind,
        other => panic!("it has no error: {other:?}"),
    }
}

/// Why the worker was told to stop.
fn reasons(notices: &[Notice]) -> Vec<&str> {
    notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Stop { reason, .. } => reason.as_deref(),
            _ => None,
        })
        .collect()
}

#[test]
fn a_deadline_ends_a_task_wherever_it_is() {
    let mut rig = EngineRig::new();
    let retry = RetryPolicy::delays_ms([60_000]);
    let with =
        || NewTask { deadline_ms: Some(5_000), max_attempts: Some(3), retry: Some(retry.clone()), ..NewTask::new("t") };
    let running = rig.submit(with());
    rig.hello("w", 1, &[]);
    rig.round();
    let pending = rig.submit(with());
    let scheduled = rig.submit(NewTask { delay_ms: Some(4_999), ..with() });
    let again = rig.submit(NewTask { queue: Some("other".into()), ..with() });
    rig.hello_for("v", "*", "other", 1, &[]);
    rig.round();
    rig.report(again, 1, fail(true)).unwrap();
    rig.pass(4_999);
    rig.heard("w");
    rig.heard("v");
    rig.round();
    assert_eq!(rig.status(running), Status::Running);
    rig.pass(1);
    let told = rig.round();
    for task_id in [running, pending, scheduled, again] {
        let task = rig.task(task_id);
        assert_eq!((task.status, kind(task)), (Status::Failed, "deadline"), "{task:?}");
        let run = task.run().unwrap();
        assert_eq!((run.ended_by_hub, run.finished_at), (task_id == running, Some(rig.now.at)));
    }
    assert!(reasons(&told).iter().all(|reason| *reason == "deadline") && !told.is_empty());
    assert_eq!(rig.report(running, 1, complete()).unwrap_err(), Refusal::LeaseLost, "it is fenced");
}

#[test]
fn a_length_is_a_length_and_a_moment_a_moment() {
    for (by_length, set_wall, ends) in [(true, 3_600_000, false), (true, -3_600_000, true), (false, 3_600_000, true)] {
        let mut rig = EngineRig::new();
        let at = rig.now.wall.plus_millis(5_000);
        let new = match by_length {
            true => NewTask { deadline_ms: Some(5_000), ..NewTask::new("t") },
            false => NewTask { deadline_at: Some(at), ..NewTask::new("t") },
        };
        let task_id = rig.submit(new);
        rig.round();
        rig.set_wall(set_wall);
        if by_length && ends {
            rig.pass(5_000);
        }
        rig.round();
        assert_eq!(rig.status(task_id).is_final(), ends, "by_length: {by_length}, the clock was set by {set_wall}");
    }
}

#[test]
fn a_length_goes_on_from_one_record_to_the_next_whatever_the_clock_shows() {
    for (with, over) in [
        (NewTask { deadline_ms: Some(5_000), ..NewTask::new("t") }, "deadline"),
        (NewTask { start_by_ms: Some(5_000), ..NewTask::new("t") }, "expired"),
    ] {
        let mut rig = EngineRig::new();
        let task_id = rig.submit(NewTask { delay_ms: Some(1_000), ..with });
        rig.round();
        rig.set_wall(3_600_000);
        rig.pass(1_000);
        rig.go();
        assert_eq!(rig.status(task_id), Status::Pending);
        rig.take_back();
        assert_eq!(rig.status(task_id), Status::Scheduled);
        rig.round();
        assert_eq!(rig.status(task_id), Status::Pending);
        rig.pass(3_999);
        rig.round();
        assert_eq!(rig.status(task_id), Status::Pending, "{over}");
        rig.pass(1);
        rig.round();
        assert_eq!((rig.status(task_id), kind(rig.task(task_id))), (Status::Failed, over));
    }
}

/// However a task ends, no alarm of it stays set.
#[test]
fn what_has_ended_leaves_nothing_behind() {
    const HOUR: u64 = 3_600_000;
    let with = || NewTask {
        timeout_ms: Some(HOUR),
        silence_ms: Some(HOUR),
        cancel_grace_ms: Some(HOUR),
        deadline_ms: Some(HOUR),
        start_by_at: Some(Timestamp::from_millis(4_000_000_000_000)),
        unserved_ms: Some(HOUR),
        ..NewTask::new("t")
    };
    for cancelled in [false, true] {
        for report in [complete(), fail(false), Report::Cancelled] {
            if matches!(report, Report::Cancelled) && !cancelled {
                continue;
            }
            let mut rig = EngineRig::new();
            let task_id = rig.submit(with());
            rig.hello("w", 1, &[]);
            rig.round();
            if cancelled {
                cancel(&mut rig, task_id);
            }
            rig.round();
            rig.report(task_id, 1, report).unwrap();
            rig.round();
            rig.left("w");
            rig.round();
            assert_eq!(rig.engine.next_in(rig.now), None, "cancelled: {cancelled}");
            assert!(rig.engine.journal.is_empty(), "a batch that is written is not taken back");
        }
    }
}

#[test]
fn a_deadline_goes_on_over_a_restart_and_a_failed_commit() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { deadline_ms: Some(5_000), ..NewTask::new("t") });
    rig.round();
    rig.pass(3_000);
    rig.restart();
    rig.pass(999);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Pending, "the restart took a second");
    rig.pass(1);
    rig.go();
    assert_eq!(rig.status(task_id), Status::Failed);
    rig.take_back();
    assert_eq!(rig.status(task_id), Status::Pending);
    rig.round();
    assert_eq!((rig.status(task_id), kind(rig.task(task_id))), (Status::Failed, "deadline"));
}

#[test]
fn a_retry_by_hand_begins_a_length_anew_and_not_a_moment() {
    let mut rig = EngineRig::new();
    let at = rig.now.wall.plus_millis(1_000);
    let length = rig.submit(NewTask { deadline_ms: Some(1_000), ..NewTask::new("t") });
    let moment = rig.submit(NewTask { deadline_at: Some(at), ..NewTask::new("t") });
    rig.round();
    rig.pass(1_000);
    rig.round();
    assert!([length, moment].iter().all(|task_id| rig.status(*task_id) == Status::Failed));
    assert_eq!(rig.decide(Command::Retry { task_id: moment, payload: None }).unwrap_err(), Refusal::DeadlineOver);
    rig.decide(Command::Retry { task_id: length, payload: None }).unwrap();
    rig.round();
    rig.pass(999);
    rig.round();
    assert_eq!(rig.status(length), Status::Pending);
    rig.pass(1);
    rig.round();
    assert_eq!(rig.status(length), Status::Failed);
}

#[test]
fn what_is_never_started_expires_and_what_was_started_does_not() {
    let mut rig = EngineRig::new();
    let with = || NewTask { start_by_ms: Some(2_000), max_attempts: Some(2), ..NewTask::new("t") };
    let started = rig.submit(with());
    rig.hello("w", 1, &[]);
    rig.round();
    let never = rig.submit(NewTask { queue: Some("other".into()), ..with() });
    rig.report(started, 1, fail(true)).unwrap();
    rig.pass(2_000);
    rig.heard("w");
    rig.round();
    assert_eq!((rig.status(never), kind(rig.task(never))), (Status::Failed, "expired"));
    assert!(!rig.status(started).is_final(), "it waits for its second try");
}

/// Ticks of one time.
struct Spoke(u64);

impl Ticks for Spoke {
    fn newest(&self, _: TaskId) -> Option<crate::task::Json> {
        None
    }

    fn spoke(&self, _: TaskId, attempt: u32) -> Option<u64> {
        (attempt == 1).then_some(self.0)
    }

    fn result(&self, _: TaskId) -> Result<Option<Json>, NotNow> {
        Ok(None)
    }
}

#[test]
fn silence_is_a_failed_try_and_heartbeats_do_not_break_it() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { silence_ms: Some(3_000), max_attempts: Some(2), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    let began: Now = rig.now;
    rig.pass(2_999);
    rig.heard("w");
    rig.round();
    rig.pass(1);
    // It had reported something a second after it began.
    let ticks = Spoke(began.lived + 1_000);
    rig.engine.judge(&mut Cx { now: rig.now, ticks: &ticks, batch: &mut rig.batch }, 10);
    rig.commit();
    assert_eq!(rig.status(task_id), Status::Running);
    assert_eq!(rig.engine.next_in(rig.now), Some(1_000), "it is looked at again when that is over");
    rig.pass(1_000);
    let told = rig.round();
    assert_eq!(reasons(&told), ["silent"]);
    let task = rig.task(task_id);
    let last_error = task.run().and_then(|run| run.last_error.as_ref()).unwrap();
    assert_eq!((task.status, last_error.kind.as_str(), task.tries), (Status::Scheduled, "silent", 1));
}

#[test]
fn the_next_try_waits_as_its_list_or_its_worker_says() {
    let mut rig = EngineRig::new();
    let retry = Some(RetryPolicy::delays_ms([100, 2_000]));
    let task_id = rig.submit(NewTask { retry, max_attempts: Some(10), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    for (attempt, (asked, waits)) in
        [(None, 100), (None, 2_000), (None, 2_000), (Some(50), 50), (Some(0), 0)].iter().enumerate()
    {
        rig.round();
        let attempt = attempt as u32 + 1;
        let error = crate::task::Failure::new("error", "no luck");
        rig.report(task_id, attempt, Report::Fail { error, retryable: true, retry_after_ms: *asked }).unwrap();
        rig.commit();
        assert_eq!(rig.task(task_id).delay_ms(), Some(*waits), "after attempt {attempt}");
        rig.pass(*waits);
        rig.heard("w");
    }
    rig.round();
    let error = crate::task::Failure::new("error", "no luck");
    let too_long = Report::Fail { error, retryable: true, retry_after_ms: Some(RetryPolicy::MAX_MS_MAX + 1) };
    assert!(matches!(rig.report(task_id, 6, too_long), Err(Refusal::Invalid(_))));
    assert_eq!(rig.status(task_id), Status::Running);
}

fn cancel(rig: &mut EngineRig, task_id: TaskId) {
    rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
}

fn cancel_of(rig: &EngineRig, task_id: TaskId) -> Option<Cancel> {
    rig.task(task_id).run().and_then(|run| run.cancel)
}

#[test]
fn a_request_to_stop_is_followed_to_its_end() {
    for (report, ends) in [
        (Report::Cancelled, Some(Cancel::Acknowledged)),
        (complete(), Some(Cancel::Delivered)),
        (fail(true), Some(Cancel::Delivered)),
    ] {
        let mut rig = EngineRig::new();
        let task_id = rig.submit(NewTask::new("t"));
        rig.hello("w", 1, &[]);
        rig.round();
        cancel(&mut rig, task_id);
        rig.round();
        assert_eq!(cancel_of(&rig, task_id), Some(Cancel::Requested));
        rig.decide(Command::CancelDelivered { task_id, attempt: 2 }).unwrap();
        assert!(rig.changes().is_empty(), "another attempt is no matter of this one");
        let delivered = |rig: &mut EngineRig| {
            rig.decide(Command::CancelDelivered { task_id, attempt: 1 }).unwrap();
            let steps = rig.changes().len();
            rig.commit();
            steps
        };
        assert_eq!(delivered(&mut rig), 1);
        assert_eq!(cancel_of(&rig, task_id), Some(Cancel::Delivered));
        assert_eq!(delivered(&mut rig), 0, "said twice it is no news");
        rig.report(task_id, 1, report).unwrap();
        rig.commit();
        assert_eq!(cancel_of(&rig, task_id), ends);
        assert_eq!(delivered(&mut rig), 0, "nor when it is over");
    }
}

/// Regression: a worker that does not stop was waited for without end.
#[test]
fn a_worker_that_does_not_stop_is_fenced_and_keeps_its_slot_taken() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { cancel_grace_ms: Some(2_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    let next = rig.submit(NewTask::new("t"));
    rig.pass(1_000);
    cancel(&mut rig, task_id);
    rig.round();
    rig.pass(1_999);
    rig.heard("w");
    rig.round();
    assert_eq!(rig.status(task_id), Status::Running);
    rig.pass(1);
    rig.go();
    assert_eq!((rig.status(task_id), cancel_of(&rig, task_id)), (Status::Cancelled, Some(Cancel::Ignored)));
    rig.take_back();
    assert_eq!((rig.status(task_id), cancel_of(&rig, task_id)), (Status::Running, Some(Cancel::Requested)));
    let told = rig.round();
    assert_eq!((rig.status(task_id), reasons(&told)), (Status::Cancelled, vec!["cancelled"]));
    assert!(runs(&told).is_empty() && rig.status(next) == Status::Pending, "its slot is stuck");
    // Regression: a sign of life was taken for a word of its end.
    assert_eq!(rig.report(task_id, 1, Report::Heartbeat).unwrap_err(), Refusal::LeaseLost);
    assert!(runs(&rig.round()).is_empty(), "it is still at it");
    assert_eq!(rig.report(task_id, 1, complete()).unwrap_err(), Refusal::LeaseLost);
    let told = rig.round();
    assert_eq!(runs(&told), [(next, "w".to_owned())], "and free once it has let go");
}

#[test]
fn a_grace_is_as_long_as_it_is_whatever_the_clock_shows() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { cancel_grace_ms: Some(5_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    cancel(&mut rig, task_id);
    rig.round();
    rig.set_wall(3_600_000);
    // Another record of the attempt does not count it anew.
    rig.decide(Command::CancelDelivered { task_id, attempt: 1 }).unwrap();
    rig.pass(4_999);
    rig.heard("w");
    rig.round();
    assert_eq!(cancel_of(&rig, task_id), Some(Cancel::Delivered));
    rig.pass(1);
    rig.round();
    assert_eq!(cancel_of(&rig, task_id), Some(Cancel::Ignored));
}

#[test]
fn a_grace_goes_on_over_a_restart() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { cancel_grace_ms: Some(60_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    cancel(&mut rig, task_id);
    rig.round();
    rig.pass(10_000);
    rig.restart();
    rig.hello("w", 1, &[(task_id, 1)]);
    rig.commit();
    for _ in 0..48 {
        rig.pass(1_000);
        rig.heard("w");
        rig.round();
    }
    assert_eq!(rig.status(task_id), Status::Running);
    rig.pass(1_000);
    rig.round();
    assert_eq!((rig.status(task_id), cancel_of(&rig, task_id)), (Status::Cancelled, Some(Cancel::Ignored)));
}

#[test]
fn a_workers_list_says_which_slots_are_stuck() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(1_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.pass(1_000);
    rig.round();
    let stuck = |rig: &mut EngineRig| match rig.decide(Command::Workers) {
        Ok(Answer::Workers(workers)) => workers.into_iter().flat_map(|worker| worker.stuck).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stuck(&mut rig), [(task_id, 1)]);
    rig.left("w");
    assert!(
        stuck(&mut rig).is_empty() && rig.engine.endings.is_empty(),
        "what it did then is over with its connection"
    );
    rig.commit();
    // Over HTTP nobody knows of slots.
    rig.claim("h", 1, 7);
    rig.submit(NewTask { timeout_ms: Some(1_000), ..NewTask::new("t") });
    rig.round();
    rig.pass(1_000);
    rig.round();
    assert!(stuck(&mut rig).is_empty() && rig.engine.endings.is_empty());
}

#[test]
fn with_a_cancel_requested_every_end_is_cancelled() {
    let with = || NewTask { cancel_grace_ms: Some(60_000), max_attempts: Some(9), ..NewTask::new("t") };
    for new in [
        NewTask { deadline_ms: Some(5_000), ..with() },
        NewTask { silence_ms: Some(5_000), ..with() },
        NewTask { timeout_ms: Some(5_000), ..with() },
        NewTask { deadline_ms: Some(5_000), silence_ms: Some(5_000), timeout_ms: Some(5_000), ..with() },
    ] {
        let mut rig = EngineRig::new();
        let task_id = rig.submit(new);
        rig.hello("w", 1, &[]);
        rig.round();
        cancel(&mut rig, task_id);
        rig.round();
        rig.pass(5_000);
        rig.heard("w");
        let told = rig.round();
        assert_eq!(reasons(&told).len(), 1, "it is fenced once");
        let task = rig.task(task_id);
        let run = task.run().unwrap();
        assert_eq!((task.status, run.cancel, &run.outcome), (Status::Cancelled, Some(Cancel::Requested), &None));
    }
}

#[test]
fn what_was_started_in_time_may_be_retried_after_it() {
    let mut rig = EngineRig::new();
    let start_by = rig.now.wall.plus_millis(1_000);
    let task_id = rig.submit(NewTask { start_by_at: Some(start_by), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.report(task_id, 1, fail(false)).unwrap();
    rig.pass(1_000);
    rig.decide(Command::Retry { task_id, payload: None }).unwrap();
    rig.round();
    assert_eq!(rig.status(task_id), Status::Running);
}

#[test]
fn after_a_restart_a_worker_has_time_to_come_back_before_it_is_silent() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { silence_ms: Some(3_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.pass(2_999);
    rig.restart();
    rig.hello("w", 1, &[(task_id, 1)]);
    for _ in 0..17 {
        rig.pass(1_000);
        rig.heard("w");
        rig.round();
    }
    assert_eq!(rig.status(task_id), Status::Running);
    rig.pass(1_000);
    rig.round();
    assert_eq!((rig.status(task_id), kind(rig.task(task_id))), (Status::Failed, "silent"));
}
