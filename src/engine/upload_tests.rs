//! Large results: which of them an attempt leaves.

use crate::task::{Failure, Json, LargeResult, NewTask, Outcome, ResultId, Status, TaskId};

use super::rig::EngineRig;
use super::tests::{complete, fail};
use super::{Command, Refusal, Report};

fn upload(bytes: u64) -> (LargeResult, Report) {
    let large = LargeResult { id: ResultId::random(), bytes, content_type: "text/plain".into() };
    (large.clone(), Report::Upload(Box::new(large)))
}

/// A task that runs as attempt 1 of the worker `w`, and may be tried again.
fn running() -> (EngineRig, TaskId) {
    let mut rig = EngineRig::new();
    rig.begins("w", 1);
    let task_id = rig.submit(NewTask { max_attempts: Some(2), timeout_ms: Some(5_000), ..NewTask::new("t") });
    rig.round();
    assert_eq!(rig.status(task_id), Status::Running);
    (rig, task_id)
}

#[test]
fn the_last_one_is_left() {
    let (mut rig, task_id) = running();
    let (_, first) = upload(1);
    let (large, second) = upload(2);
    rig.report(task_id, 1, first).unwrap();
    rig.report(task_id, 1, second).unwrap();
    rig.commit();
    assert_eq!((rig.status(task_id), rig.task(task_id).large_result()), (Status::Running, Some(&large)));
    let two = Report::Complete { result: Json::trusted("1") };
    assert!(matches!(rig.report(task_id, 1, two), Err(Refusal::Invalid(invalid)) if invalid.field == "result"));
    rig.report(task_id, 1, complete()).unwrap();
    assert_eq!(rig.task(task_id).run().unwrap().outcome, Some(Outcome::Large(Box::new(large.clone()))));
    assert_eq!(rig.changes().last().unwrap().result, None, "it stands in its file alone");
    rig.commit();
    assert_eq!(rig.report(task_id, 1, upload(3).1).unwrap_err(), Refusal::LeaseLost);
    rig.report(task_id, 1, complete()).unwrap();
    rig.restart();
    assert!(rig.decide(Command::Delete { task_id }).is_ok());
    assert_eq!(rig.changes()[0].task.large_result(), Some(&large), "whoever removes the file is told of it");
}

#[test]
fn an_attempt_that_does_not_complete_leaves_none() {
    type End = fn(&mut EngineRig, TaskId);
    let ends: [(&str, End); 6] = [
        ("failed", |rig, task_id| drop(rig.report(task_id, 1, fail(true)).unwrap())),
        ("failed for good", |rig, task_id| drop(rig.report(task_id, 1, fail(false)).unwrap())),
        ("released", |rig, task_id| drop(rig.report(task_id, 1, Report::Release).unwrap())),
        ("crashed", |rig, _| drop(rig.hello("w", 0, &[]))),
        ("out of time", |rig, _| {
            rig.pass(5_000);
            rig.go();
        }),
        ("cancelled", |rig, task_id| {
            rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
            rig.report(task_id, 1, Report::Cancelled).unwrap();
        }),
    ];
    for (name, end) in ends {
        let (mut rig, task_id) = running();
        rig.report(task_id, 1, upload(1).1).unwrap();
        rig.commit();
        end(&mut rig, task_id);
        assert_eq!(rig.task(task_id).large_result(), None, "{name}");
        assert!(
            rig.changes().iter().any(|change| change.prev.as_ref().is_some_and(|prev| prev.large_result().is_some()))
        );
    }
    // What asks it to stop takes nothing away; nor does a restart.
    let (mut rig, task_id) = running();
    let (large, report) = upload(1);
    rig.report(task_id, 1, report).unwrap();
    rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
    rig.commit();
    rig.restart();
    assert_eq!(rig.task(task_id).large_result(), Some(&large));
    rig.report(task_id, 1, complete()).unwrap();
    assert_eq!((rig.status(task_id), rig.task(task_id).large_result()), (Status::Completed, Some(&large)));
}

/// A commit that fails takes the upload back, and the one before counts again.
#[test]
fn what_is_taken_back_names_the_file_of_before() {
    let (mut rig, task_id) = running();
    let (large, report) = upload(1);
    rig.report(task_id, 1, report).unwrap();
    rig.commit();
    rig.report(task_id, 1, upload(2).1).unwrap();
    rig.take_back();
    assert_eq!(rig.task(task_id).large_result(), Some(&large));
    rig.report(task_id, 1, complete()).unwrap();
    rig.take_back();
    assert_eq!((rig.status(task_id), rig.task(task_id).large_result()), (Status::Running, Some(&large)));
    let failed = Report::Fail { error: Failure::new("x", ""), retryable: false, retry_after_ms: None };
    rig.report(task_id, 1, failed).unwrap();
    rig.take_back();
    assert_eq!(rig.task(task_id).large_result(), Some(&large));
}
