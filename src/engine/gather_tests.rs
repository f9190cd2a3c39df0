//! Submissions that become one task.

use crate::task::{Json, NewGather, NewTask, Status, Task, TaskId, TaskPatch};

use super::rig::{EngineRig, submit};
use super::{Answer, Command, Refusal};

fn item(gather: NewGather, payload: &'static str) -> NewTask {
    NewTask { gather: Some(Box::new(gather)), payload: Some(Json::trusted(payload)), ..NewTask::new("t") }
}

fn up_to(max_count: u32) -> NewGather {
    NewGather { key: "k".into(), max_count: Some(max_count), ..NewGather::default() }
}

fn within(max_wait_ms: u64) -> NewGather {
    NewGather { key: "k".into(), max_wait_ms: Some(max_wait_ms), ..NewGather::default() }
}

fn bytes(max_bytes: u64) -> NewGather {
    NewGather { key: "k".into(), max_bytes: Some(max_bytes), ..NewGather::default() }
}

/// The task that a submission became or came into, and how many it has.
fn put(rig: &mut EngineRig, new: NewTask) -> (TaskId, u32) {
    match rig.decide(submit(vec![new])) {
        Ok(Answer::Submitted { tasks, existing }) => {
            let gathered = tasks[0].gathered().expect("it gathers");
            assert_eq!(existing.is_empty(), gathered == 1);
            (tasks[0].task_id, gathered)
        }
        other => panic!("{other:?}"),
    }
}

fn is_open(task: &Task) -> bool {
    task.status == Status::Scheduled && task.open_list().is_some()
}

#[test]
fn the_item_that_meets_a_bound_makes_the_task_ready() {
    let mut rig = EngineRig::new();
    let (first, _) = put(&mut rig, item(up_to(3), "1"));
    assert!(is_open(rig.task(first)));
    assert_eq!(rig.engine.next_in(rig.now), None, "it waits for no time");
    rig.commit();
    rig.restart();
    // The bounds of the first hold.
    assert_eq!(put(&mut rig, item(up_to(9), "2")), (first, 2));
    assert_eq!(
        rig.changes().last().map(|change| (change.item(), change.payload.clone())),
        Some((Some(1), Some(Json::trusted("2"))))
    );
    assert_eq!(put(&mut rig, NewTask { payload: None, ..item(up_to(1), "") }), (first, 3));
    assert_eq!(rig.changes().last().and_then(|change| change.payload.clone()), Some(Json::null()));
    assert_eq!((rig.status(first), rig.task(first).open_list()), (Status::Pending, None));
    let (second, count) = put(&mut rig, item(up_to(3), "4"));
    assert!(second != first && count == 1);
    // What was not written down never came.
    rig.take_back();
    assert_eq!(rig.task(first).gathered(), Some(1));
    assert_eq!(put(&mut rig, item(up_to(3), "2")), (first, 2));
    let (alone, _) = put(&mut rig, NewTask { queue: Some("q".into()), ..item(up_to(1), "1") });
    assert_eq!(rig.status(alone), Status::Pending);
}

#[test]
fn an_item_that_would_pass_a_bound_begins_another_task() {
    let mut rig = EngineRig::new();
    let (first, _) = put(&mut rig, item(bytes(10), "\"abc\""));
    // [“abc”] and a comma are 8 bytes.
    assert_eq!(put(&mut rig, item(bytes(10), "1")), (first, 2));
    let (second, _) = put(&mut rig, item(bytes(10), "22"));
    assert_ne!(second, first);
    assert_eq!((rig.status(first), rig.task(first).gathered()), (Status::Pending, Some(2)));
    // Ten bytes exactly are enough.
    assert_eq!(put(&mut rig, item(bytes(10), "333")).0, second);
    assert!(is_open(rig.task(second)));
    assert_eq!(put(&mut rig, item(bytes(10), "4")), (second, 3));
    assert_eq!(rig.status(second), Status::Pending);
    let (large, _) = put(&mut rig, item(bytes(10), "\"123456789\""));
    assert_eq!(rig.status(large), Status::Pending, "it is not refused, and takes nothing more");
}

#[test]
fn what_is_gathered_waits_from_the_first_item_on() {
    let mut rig = EngineRig::new();
    let (first, _) = put(&mut rig, item(within(1_000), "1"));
    rig.round();
    for _ in 0..3 {
        rig.pass(300);
        assert_eq!(put(&mut rig, item(within(1_000), "2")).0, first);
        rig.round();
    }
    rig.set_wall(-3_600_000);
    rig.pass(99);
    rig.round();
    assert!(is_open(rig.task(first)));
    rig.pass(1);
    rig.go();
    assert_eq!((rig.status(first), rig.task(first).gathered()), (Status::Pending, Some(4)));
    let (second, _) = put(&mut rig, item(within(1_000), "1"));
    assert_ne!(second, first);
    rig.restart();
    // What is left of the wait is told by what is written down, which is behind: a quarter slower since the clock was set back.
    rig.pass(100);
    rig.go();
    assert_eq!(rig.status(first), Status::Pending);
}

#[test]
fn one_that_does_not_wait_any_more_takes_nothing() {
    let mut rig = EngineRig::new();
    let (first, _) = put(&mut rig, item(up_to(5), "1"));
    let patch = |patch: TaskPatch| Command::Update { task_id: first, patch, types: Default::default() };
    let payload = TaskPatch { payload: Some(Json::null()), ..TaskPatch::default() };
    assert!(matches!(rig.decide(patch(payload.clone())), Err(Refusal::Invalid(invalid)) if invalid.field == "payload"));
    let later = Some(rig.now.wall.plus_millis(5_000));
    rig.decide(patch(TaskPatch { run_at: later, ..TaskPatch::default() })).unwrap();
    assert_eq!(put(&mut rig, item(up_to(5), "2")), (first, 2));
    rig.decide(patch(TaskPatch { run_at: Some(rig.now.wall), ..TaskPatch::default() })).unwrap();
    rig.decide(patch(TaskPatch { run_at: later, ..TaskPatch::default() })).unwrap();
    assert_eq!(rig.status(first), Status::Scheduled);
    let (second, _) = put(&mut rig, item(up_to(5), "1"));
    assert_ne!(second, first, "it was closed");
    rig.decide(patch(payload)).expect("what is closed is a task like any other");
    rig.decide(Command::Cancel { task_id: second, reason: None }).unwrap();
    rig.decide(Command::Retry { task_id: second, payload: None }).unwrap();
    assert_ne!(put(&mut rig, item(up_to(5), "1")).0, second);
}

#[test]
fn within_one_call_they_become_one() {
    let mut rig = EngineRig::new();
    let Ok(Answer::Submitted { tasks, existing }) = rig.decide(submit(vec![item(up_to(2), "1"); 5])) else { panic!() };
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.task_id).collect();
    assert_eq!((ids[0], ids[2], existing), (ids[1], ids[3], vec![1, 3]));
    assert!(ids[0] != ids[2] && ids[2] != ids[4]);
    assert!(is_open(rig.task(ids[4])));
}
