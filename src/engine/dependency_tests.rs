//! Tasks that wait for others: what frees them, what ends them, and what becomes of both when a round is taken back.

use crate::task::{Event, NewTask, OnDependencyFailure, Status, TaskId, WaitsFor};

use super::rig::{EngineRig, runs, submit};
use super::{Answer, Command, Options, Refusal, Report};

fn after(depends_on: &[String]) -> NewTask {
    NewTask { depends_on: depends_on.to_vec(), ..NewTask::new("t") }
}

fn named(name: &str, depends_on: &[&str]) -> NewTask {
    NewTask {
        reference: Some(name.to_owned()),
        ..after(&depends_on.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }
}

fn submit_all(rig: &mut EngineRig, tasks: Vec<NewTask>) -> Vec<TaskId> {
    match rig.decide(submit(tasks)) {
        Ok(Answer::Submitted { tasks, .. }) => tasks.iter().map(|task| task.task_id).collect(),
        other => panic!("not submitted: {other:?}"),
    }
}

fn on(task_id: TaskId) -> String {
    task_id.to_string()
}

fn report(rig: &mut EngineRig, task_id: TaskId, report: Report) {
    let attempt = rig.task(task_id).attempt;
    rig.decide(Command::Report { task_id, attempt, report }).expect("it runs");
}

fn complete(rig: &mut EngineRig, task_id: TaskId) {
    report(rig, task_id, Report::Complete { result: crate::task::Json::null() });
}

fn fail(rig: &mut EngineRig, task_id: TaskId) {
    let error = crate::task::Failure::new("error", "no");
    report(rig, task_id, Report::Fail { error, retryable: false, retry_after_ms: None });
}

/// The tasks that a round hands out.
fn handed_out(rig: &mut EngineRig) -> Vec<TaskId> {
    runs(&rig.round()).into_iter().map(|(task_id, _)| task_id).collect()
}

fn statuses(rig: &EngineRig, ids: &[TaskId]) -> Vec<Status> {
    ids.iter().map(|id| rig.status(*id)).collect()
}

use Status::*;

#[test]
fn a_chain_runs_link_by_link_and_each_link_goes_out_in_the_round_that_frees_it() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let ids = submit_all(&mut rig, vec![named("c", &["@b"]), named("b", &["@a"]), named("a", &[])]);
    assert_eq!(handed_out(&mut rig), [ids[2]]);
    assert_eq!(statuses(&rig, &ids), [Waiting, Waiting, Running]);
    complete(&mut rig, ids[2]);
    assert_eq!(handed_out(&mut rig), [ids[1]]);
    complete(&mut rig, ids[1]);
    assert_eq!(handed_out(&mut rig), [ids[0]]);
    complete(&mut rig, ids[0]);
    assert_eq!(statuses(&rig, &ids), [Completed; 3]);
}

#[test]
fn a_task_waits_for_all_that_it_names_and_says_for_which() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let (a, b) = (rig.submit(NewTask::new("t")), rig.submit(NewTask::new("t")));
    let both = rig.submit(after(&[on(a), on(b)]));
    rig.round();
    let waits = |rig: &mut EngineRig| match rig.decide(Command::WaitsFor { task_id: both }) {
        Ok(Answer::Waits(waits)) => waits,
        other => panic!("{other:?}"),
    };
    assert_eq!(waits(&mut rig), [WaitsFor::Dependency { task_ids: vec![a, b], count: 2 }]);
    complete(&mut rig, b);
    assert_eq!(rig.status(both), Waiting);
    assert_eq!(waits(&mut rig), [WaitsFor::Dependency { task_ids: vec![a], count: 1 }]);
    complete(&mut rig, a);
    assert_eq!(rig.status(both), Pending);
    let after_all = rig.submit(after(&[on(a), on(b)]));
    assert_eq!(rig.status(after_all), Pending, "what it depends on is over already");
}

#[test]
fn the_policy_says_what_a_failure_does() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let with = |on: &str, policy| NewTask { on_dependency_failure: Some(policy), ..after(&[on.to_owned()]) };
    let [ended, cancelled] = [(); 2].map(|()| rig.submit(NewTask::new("t")));
    rig.round();
    let of = |rig: &mut EngineRig, task_id: TaskId| {
        [OnDependencyFailure::Cancel, OnDependencyFailure::Fail, OnDependencyFailure::Run]
            .map(|policy| rig.submit(with(&on(task_id), policy)))
    };
    let (before, others) = (of(&mut rig, ended), of(&mut rig, cancelled));
    let beyond = rig.submit(after(&[on(before[0])]));
    fail(&mut rig, ended);
    rig.decide(Command::Cancel { task_id: cancelled, reason: None }).unwrap();
    report(&mut rig, cancelled, Report::Cancelled);
    let late = of(&mut rig, ended);
    for ids in [before, others, late] {
        assert_eq!(statuses(&rig, &ids), [Cancelled, Failed, Pending]);
    }
    assert_eq!(rig.status(beyond), Cancelled, "and what depends on what was cancelled");
    let error = rig.task(before[1]).run().and_then(|run| run.outcome.clone());
    let crate::task::Outcome::Error(error) = error.unwrap() else { panic!("it failed") };
    assert_eq!(error.kind, "dependency");
    assert_eq!(error.details.unwrap().as_str(), format!(r#"{{"task_id":"{ended}","status":"failed"}}"#));
}

#[test]
fn what_is_free_still_waits_for_its_time() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let a = rig.submit(NewTask::new("t"));
    let b = rig.submit(NewTask { delay_ms: Some(1_000), ..after(&[on(a)]) });
    rig.round();
    complete(&mut rig, a);
    assert_eq!(rig.status(b), Scheduled);
    assert_eq!(
        rig.changes().last().map(|change| change.kind),
        Some(crate::task::ChangeKind::Transition(Event::Scheduled))
    );
    rig.pass(1_000);
    rig.round();
    assert_eq!(rig.status(b), Running);
}

#[test]
fn what_cannot_be_depended_on_is_refused_and_nothing_is_taken() {
    let mut rig = EngineRig::new();
    let nobody = TaskId::from_bytes([7; 16]);
    let refused = rig.decide(submit(vec![NewTask::new("t"), after(&[on(nobody)])])).unwrap_err();
    assert_eq!(refused.to_string(), format!("tasks[1].depends_on[0] names no task that is there: {nobody}"));
    assert_eq!(rig.engine.unfinished(), 0);
    let many = rig.submit(NewTask::new("t"));
    submit_all(&mut rig, vec![after(&[on(many)]); 10_000]);
    let refused = rig.decide(submit(vec![after(&[on(many)])])).unwrap_err();
    assert_eq!(refused.to_string(), "depends_on[0] must be at most 10000 tasks that wait for one");
}

#[test]
fn a_round_that_is_taken_back_leaves_the_dependents_as_they_were() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let ids = submit_all(&mut rig, vec![named("a", &[]), named("b", &["@a"]), named("c", &["@b"])]);
    rig.round();
    for _ in 0..2 {
        fail(&mut rig, ids[0]);
        assert_eq!(statuses(&rig, &ids), [Failed, Cancelled, Cancelled]);
        rig.take_back();
        assert_eq!(statuses(&rig, &ids), [Running, Waiting, Waiting]);
        complete(&mut rig, ids[0]);
        assert_eq!(statuses(&rig, &ids), [Completed, Pending, Waiting]);
        rig.take_back();
        assert_eq!(statuses(&rig, &ids), [Running, Waiting, Waiting]);
    }
    complete(&mut rig, ids[0]);
    assert_eq!(handed_out(&mut rig), [ids[1]]);
}

#[test]
fn what_follows_is_spread_over_rounds_and_survives_a_revert_and_a_restart() {
    let few = || {
        let mut rig = EngineRig::with(Options { changes_max: 3, ..Options::default() });
        rig.hello("w", 1, &[]);
        let root = rig.submit(NewTask::new("t"));
        rig.round();
        let dependents: Vec<TaskId> = (0..10).map(|_| rig.submit(after(&[on(root)]))).collect();
        rig.commit();
        fail(&mut rig, root);
        rig.commit();
        let left = move |rig: &EngineRig| dependents.iter().filter(|id| rig.status(**id) == Waiting).count();
        (rig, left)
    };
    let (mut rig, left) = few();
    assert_eq!(left(&rig), 8, "two more changes");
    assert_eq!(rig.engine.next_in(rig.now), Some(0), "the next round comes at once");
    rig.go();
    assert_eq!(left(&rig), 5);
    rig.take_back();
    assert_eq!(left(&rig), 8);
    for expected in [5, 2, 0, 0] {
        rig.round();
        assert_eq!(left(&rig), expected);
    }
    assert_ne!(rig.engine.next_in(rig.now), Some(0));
    let (mut rig, left) = few();
    rig.restart();
    for expected in [5, 2, 0] {
        rig.round();
        assert_eq!(left(&rig), expected);
    }
}

#[test]
fn a_retry_by_hand_goes_in_order() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let ids = submit_all(&mut rig, vec![named("a", &[]), named("b", &["@a"])]);
    rig.round();
    fail(&mut rig, ids[0]);
    rig.commit();
    let retry = |task_id| Command::Retry { task_id, payload: None };
    assert_eq!(rig.decide(retry(ids[1])).unwrap_err(), Refusal::DependencyFailed(ids[0]));
    rig.decide(retry(ids[0])).unwrap();
    rig.decide(retry(ids[1])).unwrap();
    assert_eq!(statuses(&rig, &ids), [Pending, Waiting]);
    rig.take_back();
    assert_eq!(statuses(&rig, &ids), [Failed, Cancelled]);
    rig.decide(retry(ids[0])).unwrap();
    rig.decide(retry(ids[1])).unwrap();
    rig.round();
    complete(&mut rig, ids[0]);
    assert_eq!(statuses(&rig, &ids), [Completed, Pending]);
}

#[test]
fn what_waits_is_cancelled_changed_and_ended_like_anything() {
    let mut rig = EngineRig::new();
    let a = rig.submit(NewTask::new("t"));
    let of = |new: NewTask| NewTask { depends_on: vec![on(a)], ..new };
    let cancelled = rig.submit(of(NewTask::new("t")));
    let late = rig.submit(of(NewTask { deadline_ms: Some(1_000), ..NewTask::new("t") }));
    let changed = rig.submit(of(NewTask::new("t")));
    rig.decide(Command::Cancel { task_id: cancelled, reason: None }).unwrap();
    let patch = crate::task::TaskPatch { priority: Some(7), ..Default::default() };
    rig.decide(Command::Update { task_id: changed, patch, types: Default::default() }).unwrap();
    rig.pass(1_000);
    rig.round();
    assert_eq!(statuses(&rig, &[cancelled, late, changed]), [Cancelled, Failed, Waiting]);
    rig.decide(Command::Cancel { task_id: a, reason: None }).unwrap();
    assert_eq!(rig.status(changed), Cancelled);
    assert_eq!(rig.engine.unfinished(), 0);
}

/// More of them end than are kept at hand, and what they ask of is the oldest.
#[test]
fn how_a_task_ended_is_known_until_all_that_hangs_on_it_was_told() {
    let mut rig = EngineRig::with(Options { changes_max: 300, ..Options::default() });
    rig.hello("w", 1, &[]);
    let first = rig.submit(NewTask::new("t"));
    let dependents = submit_all(&mut rig, vec![after(&[on(first)]); 1_500]);
    rig.round();
    rig.round();
    fail(&mut rig, first);
    rig.commit();
    assert_eq!(rig.decide(Command::Delete { task_id: first }).unwrap_err(), Refusal::TaskNotFinished);
    for _ in 0..20 {
        rig.round();
    }
    rig.decide(Command::Delete { task_id: first }).unwrap();
    assert!(dependents.iter().all(|task_id| rig.engine.task(*task_id).is_none_or(|task| task.status.is_final())));
}
