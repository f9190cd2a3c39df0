//! The engine's decisions, table by table, and the stories of its fixed bugs. What holds over whole histories is in
//! `tests/sim`.

use crate::task::{Json, NewTask};

use super::desk::{Desk, runs};
use super::{Command, Refusal, Report};

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
