//! The engine's decisions, table by table, and the stories of its fixed bugs. What holds over whole histories is in
//! `tests/sim`.

use crate::task::{AHEAD_MAX, Failure, Json, Name, NewTask, Status, TaskId, WaitsFor};

use super::rig::{EngineRig, runs, submit};
use super::{Answer, Command, Cx, Notice, Options, Refusal, Report};

pub(super) fn complete() -> Report {
    Report::Complete { result: Json::null() }
}

pub(super) fn fail(retryable: bool) -> Report {
    Report::Fail { error: Failure::new("error", "no luck"), retryable, retry_after_ms: None }
}

#[test]
fn the_table_of_transitions_is_the_one_in_the_contract() {
    use Status::*;
    let table: [(Status, &[Status]); 7] = [
        // The same again, or scheduled once it was ready: somebody changed it.
        (Waiting, &[Waiting, Scheduled, Pending, Failed, Cancelled]),
        (Scheduled, &[Scheduled, Pending, Failed, Cancelled]),
        (Pending, &[Scheduled, Pending, Running, Failed, Cancelled]),
        // Running again: the lease was confirmed, or the task was asked to stop.
        (Running, &[Scheduled, Pending, Running, Completed, Failed, Cancelled]),
        (Completed, &[]),
        // By hand only.
        (Failed, &[Waiting, Pending]),
        (Cancelled, &[Waiting, Pending]),
    ];
    for (from, expected) in table {
        let next: Vec<_> = Status::ALL.into_iter().filter(|to| from.may_become(*to)).collect();
        assert_eq!(next, expected, "from {from}");
    }
}

/// How an attempt comes to its end.
#[derive(Clone, Debug)]
enum End {
    Said(Report),
    Crash,
    Timeout,
    GivenBack,
}

/// Ends the first attempt of a task that the worker `w` runs, with a timeout of 5 s.
fn end_attempt(rig: &mut EngineRig, task_id: TaskId, end: End) {
    match end {
        End::Said(report) => drop(rig.report(task_id, 1, report).unwrap()),
        End::Crash => drop(rig.hello("w", 0, &[])),
        End::Timeout => {
            rig.pass(5_000);
            rig.engine.judge(&mut Cx { now: rig.now, ticks: &(), batch: &mut rig.batch }, 10);
        }
        End::GivenBack => drop(rig.decide(Command::GiveBack).unwrap()),
    }
}

#[test]
fn a_task_that_waits_says_for_what() {
    let mut rig = EngineRig::new();
    let why = |rig: &mut EngineRig, task_id| match rig.decide(Command::WaitsFor { task_id }) {
        Ok(Answer::Waits(waits)) => waits,
        other => panic!("{other:?}"),
    };
    let low = rig.submit(NewTask { priority: Some(-1), ..NewTask::new("t") });
    let delayed = rig.submit(NewTask { delay_ms: Some(5_000), ..NewTask::new("t") });
    let until = rig.now.wall.plus_millis(5_000);
    assert_eq!(why(&mut rig, low), [WaitsFor::NoWorker]);
    assert_eq!(why(&mut rig, delayed), [WaitsFor::Time { until }, WaitsFor::NoWorker]);
    // A worker that takes this and another type, and one that takes neither.
    rig.hello_for("both", "t u", "default", 1, &[]);
    rig.hello_for("other", "v", "default", 9, &[]);
    rig.round();
    assert_eq!((rig.status(low), why(&mut rig, low)), (Status::Running, vec![]));
    let first = rig.submit(NewTask::new("t"));
    for task_type in ["u", "w", "t"] {
        rig.submit(NewTask::new(task_type));
    }
    let last = rig.submit(NewTask { priority: Some(-1), ..NewTask::new("t") });
    rig.round();
    assert_eq!(why(&mut rig, first), [WaitsFor::Turn { ahead: Some(0) }]);
    assert_eq!(why(&mut rig, last), [WaitsFor::Turn { ahead: Some(3) }], "what other workers take is not before it");
    assert_eq!(why(&mut rig, delayed), [WaitsFor::Time { until }]);
    for _ in 0..AHEAD_MAX {
        rig.submit(NewTask::new("u"));
    }
    assert_eq!(why(&mut rig, last), [WaitsFor::Turn { ahead: Some(AHEAD_MAX) }]);
    rig.left("both");
    assert_eq!(why(&mut rig, first), [WaitsFor::NoWorker], "it is away");
    rig.claim("h", 1, 7);
    assert_eq!(why(&mut rig, first), [WaitsFor::Turn { ahead: Some(0) }]);
}

#[test]
fn how_an_attempt_ends() {
    use End::*;
    let check = |max_attempts: u32, max_crashes: u32, end: End, cancelled: bool, expected: (Status, u32, u32)| {
        let mut rig = EngineRig::new();
        let new = NewTask { timeout_ms: Some(5_000), ..NewTask::new("t") };
        let task_id = rig.submit(NewTask { max_attempts: Some(max_attempts), max_crashes: Some(max_crashes), ..new });
        rig.hello("w", 1, &[]);
        rig.round();
        if cancelled {
            rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
        }
        end_attempt(&mut rig, task_id, end.clone());
        let task = rig.task(task_id);
        let got = (task.status, task.tries, task.crashes);
        assert_eq!(got, expected, "{end:?} of {max_attempts} tries, {max_crashes} crashes, cancelled: {cancelled}");
        assert_eq!((task.worker_id(), task.cancel_requested(), task.attempt), (None, false, 1));
    };
    use Status::*;
    check(1, 3, Said(complete()), false, (Completed, 1, 0));
    check(2, 3, Said(fail(true)), false, (Scheduled, 1, 0));
    check(1, 3, Said(fail(true)), false, (Failed, 1, 0));
    check(2, 3, Said(fail(false)), false, (Failed, 1, 0));
    check(2, 3, Timeout, false, (Scheduled, 1, 0));
    check(1, 3, Timeout, false, (Failed, 1, 0));
    check(1, 3, Said(Report::Release), false, (Pending, 0, 0));
    check(1, 1, GivenBack, false, (Pending, 0, 0));
    check(1, 3, Crash, false, (Pending, 0, 1));
    check(9, 1, Crash, false, (Failed, 0, 1));
    // Asked to stop: a result still counts, anything else is the end.
    check(1, 3, Said(complete()), true, (Completed, 1, 0));
    check(1, 3, Said(Report::Cancelled), true, (Cancelled, 1, 0));
    check(2, 3, Said(fail(true)), true, (Cancelled, 1, 0));
    check(2, 3, Timeout, true, (Cancelled, 1, 0));
    check(1, 3, Said(Report::Release), true, (Cancelled, 1, 0));
    check(1, 3, GivenBack, true, (Cancelled, 1, 0));
    check(1, 3, Crash, true, (Cancelled, 1, 0));
}

#[test]
fn what_is_said_of_an_attempt_that_is_over() {
    let check = |ended: Report, said: Report, acknowledged: bool| {
        let mut rig = EngineRig::new();
        let task_id = rig.submit(NewTask { max_attempts: Some(2), ..NewTask::new("t") });
        rig.hello("w", 1, &[]);
        rig.round();
        if matches!(ended, Report::Cancelled) {
            rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
        }
        rig.report(task_id, 1, ended.clone()).unwrap();
        rig.commit();
        let got = rig.report(task_id, 1, said.clone());
        assert!(rig.changes().is_empty(), "{said:?} after {ended:?} changed {:?}", rig.changes());
        match (got, acknowledged) {
            (Ok(Answer::Reported { cancel_requested: false }), true) | (Err(Refusal::LeaseLost), false) => {}
            (got, _) => panic!("{said:?} after {ended:?}: {got:?}"),
        }
        // Once the next attempt runs, nothing that is said of this one is heard.
        rig.pass(600_000);
        rig.hello("w", 1, &[]);
        rig.round();
        if rig.status(task_id) == Status::Running {
            assert_eq!(rig.report(task_id, 1, said).unwrap_err(), Refusal::LeaseLost);
            assert!(rig.changes().is_empty());
        }
    };
    let all = [complete(), fail(true), fail(false), Report::Cancelled, Report::Release, Report::Heartbeat];
    for (ended, acknowledged) in [
        (complete(), [true, false, false, false, false, false]),
        (fail(true), [false, true, true, false, false, false]),
        (fail(false), [false, true, true, false, false, false]),
        (Report::Release, [false; 6]),
    ] {
        for (said, acknowledged) in all.iter().zip(acknowledged) {
            check(ended.clone(), said.clone(), acknowledged);
        }
    }
    check(Report::Cancelled, Report::Cancelled, true);
    check(Report::Cancelled, complete(), false);
}

#[test]
fn a_cancelled_report_needs_a_cancel() {
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask::new("t"));
    rig.hello("w", 1, &[]);
    rig.round();
    assert_eq!(rig.report(task_id, 1, Report::Cancelled).unwrap_err(), Refusal::CancelNotRequested);
    assert_eq!(rig.report(task_id, 2, complete()).unwrap_err(), Refusal::LeaseLost);
    assert_eq!(rig.status(task_id), Status::Running);
}

#[test]
fn a_worker_that_comes_back_says_what_it_holds() {
    // It runs two tasks of its own at their first attempt; a third is somebody else's.
    let check = |holding: &[(usize, u32)], keep: &[(usize, u32)], expected: [Status; 3]| {
        let mut rig = EngineRig::new();
        let tasks: Vec<TaskId> = (0..3).map(|_| rig.submit(NewTask::new("t"))).collect();
        rig.hello("w", 2, &[]);
        rig.round();
        rig.hello("other", 1, &[]);
        rig.round();
        rig.left("w");
        rig.commit();
        let named = |list: &[(usize, u32)]| list.iter().map(|(at, attempt)| (tasks[*at], *attempt)).collect::<Vec<_>>();
        assert_eq!(rig.hello("w", 2, &named(holding)), named(keep), "{holding:?}");
        let steps: Vec<_> = rig.changes().iter().map(|change| change.task.task_id).collect();
        assert_eq!(steps.len(), 2, "each of its own is confirmed or given up");
        assert_eq!([0, 1, 2].map(|at| rig.status(tasks[at])), expected, "{holding:?}");
    };
    use Status::{Pending, Running};
    check(&[(0, 1), (1, 1)], &[(0, 1), (1, 1)], [Running, Running, Running]);
    check(&[(1, 1)], &[(1, 1)], [Pending, Running, Running]);
    check(&[], &[], [Pending, Pending, Running]);
    check(&[(0, 2), (1, 0)], &[], [Pending, Pending, Running]);
    check(&[(2, 1), (0, 1), (0, 1)], &[(0, 1)], [Running, Pending, Running]);
}

#[test]
fn a_newer_connection_closes_the_older() {
    let mut rig = EngineRig::new();
    rig.hello("w", 1, &[]);
    rig.commit();
    rig.hello("w", 1, &[]);
    assert!(matches!(rig.commit()[..], [Notice::Replaced { session: 1 }]));
    // The end of the older says nothing of the newer.
    rig.decide(Command::Left { worker_id: Name::new("w"), session: 1 }).unwrap();
    let task_id = rig.submit(NewTask::new("t"));
    assert_eq!(runs(&rig.round()), [(task_id, "w".to_owned())]);
}

#[test]
fn who_takes_what_in_which_order() {
    let check = |task_types: &str, queues: &str, expected: &[usize]| {
        let mut rig = EngineRig::new();
        let tasks: Vec<TaskId> = [
            ("a", "default", 0),
            ("b.x", "default", 0),
            ("b.y", "default", 5),
            ("a", "fast", 0),
            ("b", "default", -5),
            ("a", "default", 5),
        ]
        .into_iter()
        .map(|(task_type, queue, priority)| {
            rig.submit(NewTask { queue: Some(queue.to_owned()), priority: Some(priority), ..NewTask::new(task_type) })
        })
        .collect();
        rig.hello_for("w", task_types, queues, 10, &[]);
        let got: Vec<_> = runs(&rig.round()).into_iter().map(|(task_id, _)| task_id).collect();
        let expected: Vec<_> = expected.iter().map(|at| tasks[*at]).collect();
        assert_eq!(got, expected, "{task_types} in {queues}");
    };
    check("*", "default", &[2, 5, 0, 1, 4]);
    check("*", "*", &[2, 5, 0, 1, 3, 4]);
    check("a", "*", &[5, 0, 3]);
    check("b.*", "default", &[2, 1]);
    check("b*", "default", &[2, 1, 4]);
    check("b a", "default fast", &[5, 0, 3, 4]);
    check("c", "*", &[]);
}

#[test]
fn the_emptiest_worker_is_served_first() {
    let mut rig = EngineRig::new();
    rig.hello("busy", 5, &[]);
    rig.submit(NewTask::new("t"));
    rig.submit(NewTask::new("t"));
    rig.round();
    rig.hello("idle", 3, &[]);
    for _ in 0..7 {
        rig.submit(NewTask::new("t"));
    }
    let notices = rig.round();
    let got: Vec<_> = runs(&notices).into_iter().map(|(_, worker_id)| worker_id).collect();
    assert_eq!(got, ["idle", "idle", "busy", "idle", "busy", "busy"], "the seventh waits");
}

#[test]
fn a_worker_that_retires_or_falls_silent_takes_nothing_new() {
    let mut rig = EngineRig::new();
    rig.hello("w", 1, &[]);
    rig.decide(Command::Retire { worker_id: Name::new("w"), session: 1 }).unwrap();
    let task_id = rig.submit(NewTask::new("t"));
    assert_eq!(runs(&rig.round()), []);
    rig.hello("w", 1, &[]);
    rig.pass(10_000);
    assert_eq!(runs(&rig.round()), []);
    rig.heard("w");
    assert_eq!(runs(&rig.round()), [(task_id, "w".to_owned())]);
}

#[test]
fn a_claim_is_answered_once_with_what_there_is() {
    let claimed = |notices: Vec<Notice>| -> Vec<(u64, usize)> {
        let one = |notice| match notice {
            Notice::Claimed { ticket, tasks } => (ticket, tasks.len()),
            other => panic!("{other:?} instead of an answer to a claim"),
        };
        notices.into_iter().map(one).collect()
    };
    let mut rig = EngineRig::new();
    rig.claim("w", 2, 1);
    assert_eq!(claimed(rig.round()), [], "nothing is there yet");
    rig.submit(NewTask::new("t"));
    assert_eq!(claimed(rig.round()), [(1, 1)], "one is enough");
    for _ in 0..5 {
        rig.submit(NewTask::new("t"));
    }
    assert_eq!(claimed(rig.round()), [], "the first claim is over");
    rig.claim("w", 2, 2);
    rig.claim("x", 9, 3);
    assert_eq!(claimed(rig.round()), [(2, 2), (3, 3)]);
    rig.claim("w", 1, 4);
    rig.decide(Command::Unclaim { ticket: 4 }).unwrap();
    rig.submit(NewTask::new("t"));
    assert_eq!(claimed(rig.round()), [], "nobody waits");
    // A failed commit leaves the tasks; the claim is told, and gone.
    rig.claim("w", 1, 5);
    rig.go();
    rig.take_back();
    assert_eq!(claimed(rig.round()), []);
    rig.claim("w", 1, 6);
    assert_eq!(claimed(rig.round()), [(6, 1)]);
    // A hub that goes down lets nobody wait.
    rig.claim("w", 1, 7);
    rig.decide(Command::Drain).unwrap();
    assert_eq!(claimed(rig.round()), [(7, 0)]);
}

#[test]
fn a_place_is_free_again_though_its_task_was_deleted() {
    // The task timed out and was deleted; what its worker said of it then was refused before it was understood.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(100), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.pass(100);
    rig.round();
    rig.decide(Command::Delete { task_id }).unwrap();
    rig.commit();
    let next = rig.submit(NewTask::new("t"));
    assert_eq!(runs(&rig.round()), [], "it may still be at the first");
    assert_eq!(rig.report(task_id, 1, complete()).unwrap_err(), Refusal::TaskNotFound);
    assert_eq!(runs(&rig.round()), [(next, "w".to_owned())]);
}

#[test]
fn a_long_grace_does_not_outlast_the_lease_of_a_worker_that_came_back() {
    // Its alarm was still set for the end of the grace, so its silence was noticed that much later.
    let mut rig = EngineRig::with(Options { lease_ms: 100, grace_ms: 10_000, ..Options::default() });
    let task_id = rig.submit(NewTask::new("t"));
    rig.hello("w", 1, &[]);
    rig.round();
    rig.left("w");
    rig.hello("w", 1, &[(task_id, 1)]);
    rig.round();
    assert_eq!(rig.engine.next_in(rig.now), Some(100));
    rig.pass(100);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Pending);
}

#[test]
fn a_claim_that_waited_longer_than_a_lease_is_handed_a_whole_lease() {
    // The worker had said nothing since it claimed, so what it was handed was taken away with the next look at it.
    let mut rig = EngineRig::new();
    rig.claim("w", 1, 7);
    rig.commit();
    for _ in 0..3 {
        rig.pass(9_999);
        rig.round();
    }
    let task_id = rig.submit(NewTask::new("t"));
    assert!(matches!(rig.round()[..], [Notice::Claimed { ticket: 7, .. }]));
    rig.pass(9_999);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Running);
    rig.pass(1);
    rig.round();
    assert_eq!((rig.status(task_id), rig.task(task_id).crashes), (Status::Pending, 1));
}

#[test]
fn a_worker_whose_socket_closed_takes_by_a_claim_that_is_still_open() {
    let mut rig = EngineRig::new();
    rig.hello("w", 0, &[]);
    rig.claim("w", 1, 7);
    rig.left("w");
    rig.round();
    rig.pass(60_000);
    let task_id = rig.submit(NewTask::new("t"));
    rig.round();
    rig.pass(9_999);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Running);
}

#[test]
fn a_task_deleted_in_this_batch_stays_deleted() {
    // It was looked up in the store, which still had it, and so could be deleted twice, or retried by hand after that.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask::new("t"));
    rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
    rig.commit();
    rig.decide(Command::Delete { task_id }).unwrap();
    for command in [
        Command::Delete { task_id },
        Command::Retry { task_id, payload: None },
        Command::Cancel { task_id, reason: None },
    ] {
        assert_eq!(rig.decide(command).unwrap_err(), Refusal::TaskNotFound);
    }
    assert_eq!(rig.changes().len(), 1);
    rig.take_back();
    rig.decide(Command::Retry { task_id, payload: None }).unwrap();
}

#[test]
fn a_loss_that_was_taken_back_is_decided_again() {
    // The alarm had gone off, and nothing set it again: a worker that stayed silent with its socket open kept its tasks.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask::new("t"));
    rig.hello("w", 1, &[]);
    rig.round();
    for away in [false, true] {
        if away {
            rig.round();
            rig.heard("w");
            rig.left("w");
        }
        let attempt = rig.task(task_id).attempt;
        rig.pass(10_000);
        rig.go();
        assert_eq!(rig.status(task_id), Status::Pending);
        rig.take_back();
        assert_eq!((rig.status(task_id), rig.engine.next_in(rig.now)), (Status::Running, Some(0)));
        rig.go();
        // Nor is the crash forgotten with the worker.
        assert_eq!((rig.status(task_id), rig.task(task_id).crashes), (Status::Pending, attempt));
        rig.commit();
        rig.hello("w", 1, &[]);
    }
}

#[test]
fn a_timeout_that_was_taken_back_takes_no_second_place() {
    // The worker then completed the attempt, and never spoke of the end that had not been: one place of it was lost.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(100), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.pass(100);
    rig.go();
    assert_eq!(rig.status(task_id), Status::Failed);
    rig.take_back();
    rig.report(task_id, 1, complete()).unwrap();
    let next = rig.submit(NewTask::new("t"));
    assert_eq!(runs(&rig.round()), [(next, "w".to_owned())]);
}

#[test]
fn a_wall_clock_set_forward_ends_no_attempt() {
    // Each further step of a running task counted its timeout anew, from the wall clock.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(9_000), ..NewTask::new("t") });
    rig.hello("w", 1, &[]);
    rig.round();
    rig.set_wall(3_600_000);
    rig.hello("w", 1, &[(task_id, 1)]);
    rig.round();
    rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
    rig.report(task_id, 1, complete()).unwrap();
    rig.take_back();
    rig.pass(8_999);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Running);
    rig.pass(1);
    rig.round();
    assert_eq!(rig.status(task_id), Status::Failed);
}

#[test]
fn a_task_whose_hand_out_was_lost_on_the_way_is_not_kept_by_the_next_claim() {
    // Whatever a worker over HTTP said renewed all it held. So a task in an answer that never arrived was never given to
    // anybody else, for as long as its worker went on claiming and working.
    let mut rig = EngineRig::new();
    let lost = rig.submit(NewTask::new("t"));
    rig.claim("w", 1, 1);
    assert!(matches!(rig.round()[..], [Notice::Claimed { ticket: 1, .. }]));
    let task_id = rig.submit(NewTask::new("t"));
    rig.claim("w", 1, 2);
    assert!(matches!(rig.round()[..], [Notice::Claimed { ticket: 2, .. }]));
    for at in 1..=5 {
        rig.pass(2_000);
        rig.report(task_id, 1, Report::Heartbeat).unwrap();
        rig.claim("w", 0, 2 + at);
        rig.decide(Command::Unclaim { ticket: 2 + at }).unwrap();
        rig.round();
        assert_eq!(rig.status(task_id), Status::Running);
        assert_eq!(rig.status(lost), if at < 5 { Status::Running } else { Status::Pending });
    }
}

#[test]
fn a_claim_may_ask_for_a_longer_lease_and_each_sign_of_life_renews_it() {
    let mut rig = EngineRig::new();
    let [long, usual] = [(); 2].map(|()| rig.submit(NewTask::new("t")));
    rig.claim_for("w", 1, Some(60_000), 1);
    rig.round();
    // Shorter than the hub's own is the hub's own.
    rig.claim_for("w", 1, Some(1), 2);
    rig.round();
    rig.pass(9_999);
    rig.round();
    assert_eq!([long, usual].map(|id| rig.status(id)), [Status::Running; 2]);
    rig.pass(1);
    rig.round();
    assert_eq!([long, usual].map(|id| rig.status(id)), [Status::Running, Status::Pending]);
    rig.pass(49_999);
    rig.round();
    rig.report(long, 1, Report::Heartbeat).unwrap();
    rig.pass(59_999);
    rig.round();
    assert_eq!(rig.status(long), Status::Running);
    rig.pass(1);
    rig.round();
    assert_eq!((rig.status(long), rig.task(long).crashes), (Status::Pending, 1));
}

#[test]
fn a_key_that_is_used_again_after_it_expired_is_a_young_one() {
    // Regression: it was still forgotten in the turn of its first use, while its new batch was not even on disk.
    let mut rig = EngineRig::new();
    let submit = |rig: &mut EngineRig, key: u128| {
        let key = Some(super::SubmitKey { key, body: 0 });
        let Command::Submit { submission, .. } = submit(vec![NewTask::new("t")]) else { unreachable!() };
        rig.decide(Command::Submit { submission, key }).unwrap()
    };
    submit(&mut rig, 0);
    rig.commit();
    rig.pass(Options::default().key_ms);
    for key in 1..4_096 {
        submit(&mut rig, key);
    }
    rig.commit();
    assert!(matches!(submit(&mut rig, 0), Answer::Submitted { .. }));
    submit(&mut rig, 5_000);
    assert!(matches!(submit(&mut rig, 0), Answer::Replayed { .. }));
}

#[test]
fn what_is_said_of_an_attempt_that_the_hub_ended_is_refused() {
    // It was acknowledged as if it repeated the report that had ended the attempt; there had been none.
    use End::*;
    for (end, max_attempts, max_crashes, cancelled) in [
        (Timeout, 1, 3, false),
        (Timeout, 2, 3, false),
        (Timeout, 1, 3, true),
        (Crash, 1, 1, false),
        (Crash, 1, 3, true),
        (GivenBack, 1, 3, true),
    ] {
        let mut rig = EngineRig::new();
        let new = NewTask { timeout_ms: Some(5_000), ..NewTask::new("t") };
        let task_id = rig.submit(NewTask { max_attempts: Some(max_attempts), max_crashes: Some(max_crashes), ..new });
        rig.hello("w", 1, &[]);
        rig.round();
        if cancelled {
            rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
        }
        end_attempt(&mut rig, task_id, end.clone());
        rig.commit();
        for said in [complete(), fail(true), fail(false), Report::Cancelled, Report::Release] {
            let got = rig.report(task_id, 1, said.clone());
            assert_eq!(got.unwrap_err(), Refusal::LeaseLost, "{said:?} after {end:?}, cancelled: {cancelled}");
        }
        // The record says so, and so it is the same after a restart.
        assert!(rig.task(task_id).run().is_some_and(|run| run.ended_by_hub), "{end:?}");
    }
    // The next attempt ends by itself.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask { timeout_ms: Some(5_000), max_attempts: Some(2), ..NewTask::new("t") });
    rig.hello("w", 2, &[]);
    rig.round();
    end_attempt(&mut rig, task_id, Timeout);
    rig.pass(600_000);
    rig.hello("w", 2, &[]);
    rig.round();
    rig.report(task_id, 2, fail(true)).unwrap();
    assert!(rig.report(task_id, 2, fail(true)).is_ok());
}

#[test]
fn a_worker_that_fell_silent_is_told_to_stop_what_it_lost() {
    // Its socket stayed open, so nothing told it: it worked on at what another had by then, and took more beside it.
    let mut rig = EngineRig::new();
    let task_id = rig.submit(NewTask::new("t"));
    rig.hello("w", 1, &[]);
    rig.round();
    rig.pass(10_000);
    let stops = |notices: &[Notice]| -> Vec<(TaskId, u32, Option<String>)> {
        let stop = |notice: &Notice| match notice {
            Notice::Stop { worker_id, task_id, attempt, reason } if worker_id.as_str() == "w" => {
                Some((*task_id, *attempt, reason.as_deref().map(str::to_owned)))
            }
            _ => None,
        };
        notices.iter().filter_map(stop).collect()
    };
    assert_eq!(stops(&rig.round()), [(task_id, 1, Some("lease lost".to_owned()))]);
    assert_eq!(rig.status(task_id), Status::Pending);
    // It is heard again, and is still at it: its place is free once it has let go.
    rig.heard("w");
    assert_eq!(runs(&rig.round()), []);
    assert_eq!(rig.report(task_id, 1, Report::Cancelled).unwrap_err(), Refusal::LeaseLost);
    assert_eq!(runs(&rig.round()), [(task_id, "w".to_owned())]);
    // One that is away has no socket to be told by.
    rig.left("w");
    rig.pass(5_000);
    assert_eq!(stops(&rig.round()), []);
    assert_eq!(rig.status(task_id), Status::Pending);
}

#[test]
fn a_retry_by_hand_is_refused_where_a_submission_is() {
    // It went past the bound on unfinished tasks, which is what bounds the memory.
    let mut rig = EngineRig::with(Options { tasks_max: 2, ..Options::default() });
    let [first, second] = [(); 2].map(|()| rig.submit(NewTask::new("t")));
    rig.decide(Command::Cancel { task_id: first, reason: None }).unwrap();
    rig.submit(NewTask::new("t"));
    rig.commit();
    assert_eq!(rig.decide(Command::Retry { task_id: first, payload: None }).unwrap_err(), Refusal::Full);
    assert!(rig.changes().is_empty());
    assert_eq!(rig.decide(Command::Retry { task_id: second, payload: None }).unwrap_err(), Refusal::TaskNotFinished);
    rig.decide(Command::Cancel { task_id: second, reason: None }).unwrap();
    rig.decide(Command::Retry { task_id: first, payload: None }).unwrap();
    assert_eq!(rig.status(first), Status::Pending);
}

#[test]
fn workers_of_different_groups_take_turns() {
    // Regression: the workers of the group that was made first got everything, until they were full.
    let mut rig = EngineRig::new();
    rig.hello_for("all", "*", "default", 4, &[]);
    rig.hello_for("only", "t", "default", 4, &[]);
    rig.claim("http", 100, 7);
    rig.decide(Command::Unclaim { ticket: 7 }).unwrap();
    let mut taken = Vec::new();
    for _ in 0..6 {
        let task_id = rig.submit(NewTask::new("t"));
        taken.extend(runs(&rig.round()).into_iter().map(|(_, worker_id)| worker_id));
        rig.report(task_id, 1, complete()).unwrap();
    }
    assert_eq!(taken, ["all", "only", "all", "only", "all", "only"]);
    // The emptiest first, so of six at once each gets three.
    for _ in 0..6 {
        rig.submit(NewTask::new("t"));
    }
    let mut taken: Vec<String> = runs(&rig.round()).into_iter().map(|(_, worker_id)| worker_id).collect();
    taken.sort();
    assert_eq!(taken, ["all", "all", "all", "only", "only", "only"]);
}

#[test]
fn open_claims_share_what_comes() {
    // The claim that had waited longest took all that it had room for.
    let mut rig = EngineRig::new();
    rig.claim("w", 100, 1);
    rig.claim("x", 100, 2);
    for _ in 0..6 {
        rig.submit(NewTask::new("t"));
    }
    let mut shares: Vec<_> = rig
        .round()
        .into_iter()
        .map(|notice| match notice {
            Notice::Claimed { ticket, tasks } => (ticket, tasks.len()),
            other => panic!("{other:?} instead of an answer to a claim"),
        })
        .collect();
    shares.sort();
    assert_eq!(shares, [(1, 3), (2, 3)]);
}
