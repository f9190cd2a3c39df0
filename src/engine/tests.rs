//! The engine's decisions, table by table, and the stories of its fixed bugs. What holds over whole histories is in
//! `tests/sim`.

use crate::task::{Json, NewTask, Status};

use super::desk::{Desk, runs};
use super::{Command, Options, Refusal, Report};

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
