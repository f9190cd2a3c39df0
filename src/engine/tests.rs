//! The engine's decisions, table by table, and the stories of its fixed bugs. What holds over whole histories is in
//! `tests/sim`.

use crate::task::{Json, NewTask, Status};

use super::desk::{Desk, runs};
use super::{Answer, Command, Notice, Options, Refusal, Report};

fn complete() -> Report {
    Report::Complete { result: Json::null() }
}

#[test]
fn a_place_is_free_again_though_its_task_was_deleted() {
    // The task timed out and was deleted; what its worker said of it then was refused before it was understood.
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask { timeout_ms: Some(100), ..NewTask::new("t") });
    desk.hello("w", 1, &[]);
    desk.round();
    desk.pass(100);
    desk.round();
    desk.decide(Command::Delete { task_id }).unwrap();
    desk.commit();
    let next = desk.submit(NewTask::new("t"));
    assert_eq!(runs(&desk.round()), [], "it may still be at the first");
    assert_eq!(desk.report(task_id, 1, complete()).unwrap_err(), Refusal::TaskNotFound);
    assert_eq!(runs(&desk.round()), [(next, "w".to_owned())]);
}

#[test]
fn a_long_grace_does_not_outlast_the_lease_of_a_worker_that_came_back() {
    // Its alarm was still set for the end of the grace, so its silence was noticed that much later.
    let mut desk = Desk::with(Options { lease_ms: 100, grace_ms: 10_000, ..Options::default() });
    let task_id = desk.submit(NewTask::new("t"));
    desk.hello("w", 1, &[]);
    desk.round();
    desk.left("w");
    desk.hello("w", 1, &[(task_id, 1)]);
    desk.round();
    assert_eq!(desk.engine.next_in(desk.now), Some(100));
    desk.pass(100);
    desk.round();
    assert_eq!(desk.status(task_id), Status::Pending);
}

#[test]
fn a_claim_that_waited_longer_than_a_lease_is_handed_a_whole_lease() {
    // The worker had said nothing since it claimed, so what it was handed was taken away with the next look at it.
    let mut desk = Desk::new();
    desk.claim("w", 1, 7);
    desk.commit();
    for _ in 0..3 {
        desk.pass(9_999);
        desk.round();
    }
    let task_id = desk.submit(NewTask::new("t"));
    assert!(matches!(desk.round()[..], [Notice::Claimed { ticket: 7, .. }]));
    desk.pass(9_999);
    desk.round();
    assert_eq!(desk.status(task_id), Status::Running);
    desk.pass(1);
    desk.round();
    assert_eq!((desk.status(task_id), desk.task(task_id).crashes), (Status::Pending, 1));
}

#[test]
fn a_worker_whose_socket_closed_takes_by_a_claim_that_is_still_open() {
    let mut desk = Desk::new();
    desk.hello("w", 0, &[]);
    desk.claim("w", 1, 7);
    desk.left("w");
    desk.round();
    desk.pass(60_000);
    let task_id = desk.submit(NewTask::new("t"));
    desk.round();
    desk.pass(9_999);
    desk.round();
    assert_eq!(desk.status(task_id), Status::Running);
}

#[test]
fn a_task_deleted_in_this_batch_stays_deleted() {
    // It was looked up in the store, which still had it, and so could be deleted twice, or retried by hand after that.
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask::new("t"));
    desk.decide(Command::Cancel { task_id, reason: None }).unwrap();
    desk.commit();
    desk.decide(Command::Delete { task_id }).unwrap();
    for command in [Command::Delete { task_id }, Command::Retry { task_id }, Command::Cancel { task_id, reason: None }]
    {
        assert_eq!(desk.decide(command).unwrap_err(), Refusal::TaskNotFound);
    }
    assert_eq!(desk.changes().len(), 1);
    desk.take_back();
    desk.decide(Command::Retry { task_id }).unwrap();
}

#[test]
fn a_loss_that_was_taken_back_is_decided_again() {
    // The alarm had gone off, and nothing set it again: a worker that stayed silent with its socket open kept its tasks.
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask::new("t"));
    desk.hello("w", 1, &[]);
    desk.round();
    for away in [false, true] {
        if away {
            desk.round();
            desk.heard("w");
            desk.left("w");
        }
        let attempt = desk.task(task_id).attempt;
        desk.pass(10_000);
        desk.go();
        assert_eq!(desk.status(task_id), Status::Pending);
        desk.take_back();
        assert_eq!((desk.status(task_id), desk.engine.next_in(desk.now)), (Status::Running, Some(0)));
        desk.go();
        // Nor is the crash forgotten with the worker.
        assert_eq!((desk.status(task_id), desk.task(task_id).crashes), (Status::Pending, attempt));
        desk.commit();
        desk.hello("w", 1, &[]);
    }
}

#[test]
fn a_timeout_that_was_taken_back_takes_no_second_place() {
    // The worker then completed the attempt, and never spoke of the end that had not been: one place of it was lost.
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask { timeout_ms: Some(100), ..NewTask::new("t") });
    desk.hello("w", 1, &[]);
    desk.round();
    desk.pass(100);
    desk.go();
    assert_eq!(desk.status(task_id), Status::Failed);
    desk.take_back();
    desk.report(task_id, 1, complete()).unwrap();
    let next = desk.submit(NewTask::new("t"));
    assert_eq!(runs(&desk.round()), [(next, "w".to_owned())]);
}

#[test]
fn a_wall_clock_set_forward_ends_no_attempt() {
    // Each further step of a running task counted its timeout anew, from the wall clock.
    let mut desk = Desk::new();
    let task_id = desk.submit(NewTask { timeout_ms: Some(9_000), ..NewTask::new("t") });
    desk.hello("w", 1, &[]);
    desk.round();
    desk.set_wall(3_600_000);
    desk.hello("w", 1, &[(task_id, 1)]);
    desk.round();
    desk.decide(Command::Cancel { task_id, reason: None }).unwrap();
    desk.report(task_id, 1, complete()).unwrap();
    desk.take_back();
    desk.pass(8_999);
    desk.round();
    assert_eq!(desk.status(task_id), Status::Running);
    desk.pass(1);
    desk.round();
    assert_eq!(desk.status(task_id), Status::Failed);
}

#[test]
fn a_task_whose_hand_out_was_lost_on_the_way_is_not_kept_by_the_next_claim() {
    // Whatever a worker over HTTP said renewed all it held. So a task in an answer that never arrived was never given to
    // anybody else, for as long as its worker went on claiming and working.
    let mut desk = Desk::new();
    let lost = desk.submit(NewTask::new("t"));
    desk.claim("w", 1, 1);
    assert!(matches!(desk.round()[..], [Notice::Claimed { ticket: 1, .. }]));
    let task_id = desk.submit(NewTask::new("t"));
    desk.claim("w", 1, 2);
    assert!(matches!(desk.round()[..], [Notice::Claimed { ticket: 2, .. }]));
    for at in 1..=5 {
        desk.pass(2_000);
        desk.report(task_id, 1, Report::Heartbeat).unwrap();
        desk.claim("w", 0, 2 + at);
        desk.decide(Command::Unclaim { ticket: 2 + at }).unwrap();
        desk.round();
        assert_eq!(desk.status(task_id), Status::Running);
        assert_eq!(desk.status(lost), if at < 5 { Status::Running } else { Status::Pending });
    }
}

#[test]
fn what_nobody_confirmed_after_a_restart_is_lost_without_a_crash() {
    let mut desk = Desk::new();
    let [first, second] = [(); 2].map(|()| desk.submit(NewTask::new("t")));
    desk.claim("w", 2, 1);
    desk.round();
    desk.restart();
    desk.pass(6_000);
    desk.report(first, 1, Report::Heartbeat).unwrap();
    desk.pass(6_000);
    desk.round();
    desk.pass(6_000);
    desk.round();
    for (task_id, crashes) in [(first, 1), (second, 0)] {
        assert_eq!((desk.status(task_id), desk.task(task_id).crashes), (Status::Pending, crashes));
    }
}

#[test]
fn a_key_that_is_used_again_after_it_expired_is_a_young_one() {
    // It stood in line for being forgotten where it had stood before, and went while its batch was not even on disk.
    let mut desk = Desk::new();
    let submit = |desk: &mut Desk, key: u128| {
        let key = Some(super::SubmitKey { key, body: 0 });
        desk.decide(Command::Submit { tasks: vec![NewTask::new("t")], key }).unwrap()
    };
    submit(&mut desk, 0);
    desk.commit();
    desk.pass(Options::default().key_ms);
    for key in 1..4_096 {
        submit(&mut desk, key);
    }
    desk.commit();
    assert!(matches!(submit(&mut desk, 0), Answer::Submitted { .. }));
    submit(&mut desk, 5_000);
    assert!(matches!(submit(&mut desk, 0), Answer::Replayed { .. }));
}
