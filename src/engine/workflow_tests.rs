//! Workflows: how they begin, go on and end, and what becomes of them when rounds are taken back and hubs restart.

use crate::task::{
    Cancel, Failure, Json, NewTask, NewWorkflow, OnDependencyFailure, OnFailure, Outcome, Status, Submission, Task,
    TaskId, TaskPatch, WaitsFor,
};

use super::rig::{EngineRig, runs};
use super::{Answer, Command, Options, Refusal, Report};

use Status::*;

fn named(name: &str, depends_on: &[&str]) -> NewTask {
    let depends_on = depends_on.iter().map(|text| text.to_string()).collect();
    NewTask { reference: Some(name.to_owned()), depends_on, ..NewTask::new("t") }
}

fn some(count: usize) -> Vec<NewTask> {
    vec![NewTask::new("t"); count]
}

/// Submits a workflow. Answers its id and those of its tasks.
fn begin(rig: &mut EngineRig, workflow: NewWorkflow) -> (TaskId, Vec<TaskId>) {
    let submission = Submission::check_workflow(workflow, 1 << 20).expect("the test's workflow is right");
    let Ok(Answer::Submitted { tasks, .. }) = rig.decide(Command::Submit { submission, key: None }) else { panic!() };
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.task_id).collect();
    (ids[0], ids[1..].to_vec())
}

fn handed_out(rig: &mut EngineRig) -> Vec<TaskId> {
    runs(&rig.round()).into_iter().map(|(task_id, _)| task_id).collect()
}

fn complete(rig: &mut EngineRig, task_id: TaskId, result: &'static str) {
    let attempt = rig.task(task_id).attempt;
    rig.decide(Command::Report { task_id, attempt, report: Report::Complete { result: Json::trusted(result) } })
        .unwrap();
}

fn fail(rig: &mut EngineRig, task_id: TaskId) {
    let attempt = rig.task(task_id).attempt;
    let error = Failure::new("exit", "no");
    let report = Report::Fail { error, retryable: false, retry_after_ms: None };
    rig.decide(Command::Report { task_id, attempt, report }).unwrap();
}

fn retry(rig: &mut EngineRig, task_id: TaskId) -> Result<Answer, Refusal> {
    rig.decide(Command::Retry { task_id, payload: None })
}

fn statuses(rig: &EngineRig, ids: &[TaskId]) -> Vec<Status> {
    ids.iter().map(|id| rig.status(*id)).collect()
}

fn result(task: &Task) -> String {
    match task.run().and_then(|run| run.outcome.clone()) {
        Some(Outcome::Result(result)) => result.as_str().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn error(task: &Task) -> Failure {
    match task.run().and_then(|run| run.outcome.clone()) {
        Some(Outcome::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chord_runs_its_group_and_then_its_last_task() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let chord = NewWorkflow { output: Some("@then".into()), ..NewWorkflow::chord("c", some(3), NewTask::new("t")) };
    let (workflow, ids) = begin(&mut rig, chord);
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Pending, vec![Pending, Pending, Pending, Waiting]));
    assert_eq!(handed_out(&mut rig), ids[..3]);
    rig.round();
    assert_eq!(rig.status(workflow), Running);
    for task_id in &ids[..3] {
        complete(&mut rig, *task_id, "1");
    }
    assert_eq!(handed_out(&mut rig), ids[3..]);
    complete(&mut rig, ids[3], "[7]");
    let task = rig.task(workflow);
    assert_eq!((task.status, result(task).as_str(), task.attempt), (Completed, "[7]", 0));
    let progress = task.run().and_then(|run| run.progress.clone()).unwrap();
    let expected = r#"{"percentage":100,"current":4,"total":4,"counters":{"success":4,"failed":0,"skipped":0}}"#;
    assert_eq!(progress.as_str(), expected);
}

#[test]
fn without_an_output_its_last_tasks_say_what_they_left() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let tasks = vec![named("a", &[]), named("b", &["@a"]), named("c", &["@a"])];
    let (workflow, ids) = begin(&mut rig, NewWorkflow::new("w", tasks));
    rig.round();
    complete(&mut rig, ids[0], "0");
    rig.round();
    complete(&mut rig, ids[1], "{}");
    let large: &'static str = Box::leak(format!("\"{}\"", "x".repeat(5_000)).into_boxed_str());
    complete(&mut rig, ids[2], large);
    let expected = format!(
        r#"{{"b":{{"task_id":"{}","status":"completed","result":{{}}}},"c":{{"task_id":"{}","status":"completed"}}}}"#,
        ids[1], ids[2]
    );
    assert_eq!(result(rig.task(workflow)), expected);
}

#[test]
fn a_failure_stops_what_has_not_started_or_lets_the_rest_finish() {
    for (on_failure, left) in
        [(OnFailure::Stop, [Cancelled, Cancelled, Waiting]), (OnFailure::Finish, [Pending, Cancelled, Waiting])]
    {
        let mut rig = EngineRig::new();
        rig.hello("w", 2, &[]);
        let cleanup =
            NewTask { on_dependency_failure: Some(OnDependencyFailure::Run), ..named("cleanup", &["@a", "@b"]) };
        let tasks = vec![named("a", &[]), named("b", &[]), named("c", &[]), named("d", &["@a"]), cleanup];
        let workflow = NewWorkflow { on_failure: Some(on_failure), ..NewWorkflow::new("w", tasks) };
        let (workflow, ids) = begin(&mut rig, workflow);
        assert_eq!(handed_out(&mut rig), ids[..2]);
        fail(&mut rig, ids[0]);
        assert_eq!(statuses(&rig, &ids[2..]), left, "{on_failure:?}");
        assert_eq!((rig.status(ids[1]), rig.status(workflow)), (Running, Running), "what runs goes on");
        complete(&mut rig, ids[1], "1");
        for _ in 0..3 {
            handed_out(&mut rig).into_iter().for_each(|task_id| complete(&mut rig, task_id, "1"));
        }
        assert_eq!(rig.status(ids[4]), Completed, "what runs in any case ran");
        let error = error(rig.task(workflow));
        assert_eq!((rig.status(workflow), error.kind.as_str()), (Failed, "child"));
        assert_eq!(error.details.unwrap().as_str(), format!(r#"{{"failed":1,"ref":"a","task_id":"{}"}}"#, ids[0]));
    }
}

#[test]
fn to_cancel_a_workflow_cancels_what_waits_and_asks_what_runs() {
    let mut rig = EngineRig::new();
    rig.hello("w", 1, &[]);
    let (workflow, ids) = begin(&mut rig, NewWorkflow::group("g", some(3)));
    rig.round();
    rig.round();
    let cancel = |task_id| Command::Cancel { task_id, reason: None };
    rig.decide(cancel(workflow)).unwrap();
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Running, vec![Running, Cancelled, Cancelled]));
    assert!(rig.task(ids[0]).cancel_requested());
    rig.take_back();
    assert!(!rig.task(ids[0]).cancel_requested() && rig.status(ids[1]) == Pending);
    rig.decide(cancel(workflow)).unwrap();
    rig.report(ids[0], 1, Report::Cancelled).unwrap();
    let task = rig.task(workflow);
    assert_eq!((task.status, task.run().and_then(|run| run.cancel)), (Cancelled, Some(Cancel::Acknowledged)));
    // One of which nothing has started ends at once.
    let (workflow, ids) = begin(&mut rig, NewWorkflow::group("g", some(2)));
    rig.decide(cancel(workflow)).unwrap();
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Cancelled, vec![Cancelled; 2]));
}

#[test]
fn a_workflow_that_waits_holds_its_tasks() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let first = rig.submit(NewTask::new("t"));
    rig.round();
    let late =
        NewWorkflow { depends_on: vec![first.to_string()], delay_ms: Some(1_000), ..NewWorkflow::chain("c", some(2)) };
    let (workflow, ids) = begin(&mut rig, late);
    let waits = |rig: &mut EngineRig, task_id| match rig.decide(Command::WaitsFor { task_id }) {
        Ok(Answer::Waits(waits)) => waits,
        other => panic!("{other:?}"),
    };
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Waiting, vec![Waiting; 2]));
    assert_eq!(waits(&mut rig, ids[0]), [WaitsFor::Dependency { task_ids: vec![workflow], count: 1 }]);
    complete(&mut rig, first, "1");
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Scheduled, vec![Waiting; 2]));
    assert!(matches!(waits(&mut rig, workflow)[..], [WaitsFor::Time { .. }]));
    rig.pass(1_000);
    assert_eq!(handed_out(&mut rig), ids[..1]);
    assert_eq!(statuses(&rig, &ids), [Running, Waiting]);
}

#[test]
fn a_workflow_within_another_is_one_of_its_tasks() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let inner = NewTask {
        reference: Some("inner".into()),
        depends_on: vec!["@a".into()],
        workflow: Some(Box::new(NewWorkflow::group("inner", some(2)))),
        ..NewTask::default()
    };
    let (workflow, ids) =
        begin(&mut rig, NewWorkflow::new("outer", vec![named("a", &[]), inner, named("z", &["@inner"])]));
    // a, inner, its two tasks, z
    assert_eq!(statuses(&rig, &ids), [Pending, Waiting, Waiting, Waiting, Waiting]);
    assert_eq!(rig.task(ids[2]).workflow_id(), Some(ids[1]));
    rig.round();
    complete(&mut rig, ids[0], "1");
    assert_eq!(handed_out(&mut rig), ids[2..4]);
    complete(&mut rig, ids[2], "1");
    fail(&mut rig, ids[3]);
    assert_eq!(statuses(&rig, &[ids[1], ids[4], workflow]), [Failed, Cancelled, Failed]);
    // The one that failed is run again, and both workflows go on.
    retry(&mut rig, ids[3]).unwrap();
    assert_eq!(statuses(&rig, &[ids[3], ids[1], workflow]), [Pending, Running, Running]);
    rig.take_back();
    assert_eq!(
        statuses(&rig, &[ids[2], ids[3], ids[1], ids[4], workflow]),
        [Running, Running, Running, Waiting, Running]
    );
}

#[test]
fn a_retry_runs_all_that_did_not_complete_in_order() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let (workflow, ids) = begin(
        &mut rig,
        NewWorkflow::new("w", vec![named("c", &["@b"]), named("b", &["@a"]), named("a", &[]), named("d", &[])]),
    );
    rig.round();
    complete(&mut rig, ids[3], "1");
    fail(&mut rig, ids[2]);
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Failed, vec![Cancelled, Cancelled, Failed, Completed]));
    rig.commit();
    // Long ago: all of it is brought back from the store.
    for _ in 0..1_100 {
        let task_id = rig.submit(NewTask { queue: Some("other".into()), ..NewTask::new("t") });
        rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
        rig.commit();
    }
    assert!(rig.engine.task(workflow).is_none() && rig.engine.rollup(workflow).is_none());
    retry(&mut rig, workflow).unwrap();
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Running, vec![Waiting, Waiting, Pending, Completed]));
    rig.take_back();
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Failed, vec![Cancelled, Cancelled, Failed, Completed]));
    retry(&mut rig, workflow).unwrap();
    for task_id in [ids[2], ids[1], ids[0]] {
        assert_eq!(handed_out(&mut rig), [task_id]);
        complete(&mut rig, task_id, "1");
    }
    assert_eq!(rig.status(workflow), Completed);
    assert_eq!(retry(&mut rig, workflow).unwrap_err(), Refusal::TaskFinished);
}

#[test]
fn a_deadline_ends_it_and_all_of_its_tasks() {
    let mut rig = EngineRig::new();
    rig.begins("w", 1);
    let late = NewWorkflow { deadline_ms: Some(1_000), start_by_ms: Some(500), ..NewWorkflow::group("g", some(3)) };
    let (workflow, ids) = begin(&mut rig, late);
    rig.round();
    rig.round();
    rig.pass(600);
    rig.round();
    assert_eq!(rig.status(workflow), Running, "it was started in time");
    rig.pass(400);
    rig.round();
    assert_eq!((rig.status(workflow), error(rig.task(workflow)).kind.as_str()), (Failed, "deadline"));
    assert_eq!(statuses(&rig, &ids), [Running, Cancelled, Cancelled]);
    assert!(rig.task(ids[0]).cancel_requested());
    assert_eq!(rig.decide(Command::Delete { task_id: workflow }).unwrap_err(), Refusal::TaskNotFinished);
}

#[test]
fn a_large_end_is_spread_over_rounds_also_over_a_restart() {
    for restarts in [false, true] {
        let mut rig = EngineRig::with(Options { changes_max: 5, ..Options::default() });
        rig.hello("w", 1, &[]);
        let (workflow, ids) = begin(&mut rig, NewWorkflow::group("g", some(20)));
        rig.commit();
        rig.round();
        rig.round();
        fail(&mut rig, ids[0]);
        rig.commit();
        let open = |rig: &EngineRig| {
            ids.iter().filter(|id| rig.engine.task(**id).is_some_and(|it| !it.status.is_final())).count()
        };
        assert_eq!(open(&rig), 15);
        if restarts {
            rig.restart();
        }
        for expected in [10, 5, 0] {
            let cx = &mut super::Cx { now: rig.now, ticks: &(), batch: &mut rig.batch };
            rig.engine.fire(cx, 0);
            assert_eq!(open(&rig), expected);
            rig.commit();
        }
        rig.round();
        assert_eq!(rig.status(workflow), Failed);
    }
}

#[test]
fn what_a_workflow_is_not_is_refused() {
    let mut rig = EngineRig::new();
    let (workflow, ids) = begin(&mut rig, NewWorkflow::group("g", some(2)));
    let refused = rig.report(workflow, 0, Report::Complete { result: Json::null() });
    assert_eq!(refused.unwrap_err(), Refusal::LeaseLost);
    let patch = |patch| Command::Update { task_id: workflow, patch, types: Default::default() };
    let refused = rig.decide(patch(TaskPatch { priority: Some(1), ..TaskPatch::default() })).unwrap_err();
    assert_eq!(refused.to_string(), "priority is nothing that a workflow has");
    rig.decide(patch(TaskPatch { title: Some("another".into()), ..TaskPatch::default() })).unwrap();
    rig.decide(Command::Cancel { task_id: ids[0], reason: None }).unwrap();
    assert_eq!(
        rig.decide(Command::Delete { task_id: ids[0] }).unwrap_err(),
        Refusal::TaskNotFinished,
        "its workflow goes on"
    );
    let refused = rig.decide(Command::Retry { task_id: workflow, payload: None }).unwrap_err();
    assert_eq!(refused, Refusal::TaskNotFinished);
}

/// Regression: only tasks waited for what is run again with them; a workflow in a task's place began at once.
#[test]
fn a_retry_holds_a_workflow_within_until_what_it_depends_on_has_run_again() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let inner = NewTask {
        depends_on: vec!["@a".into()],
        workflow: Some(Box::new(NewWorkflow::group("inner", some(1)))),
        ..NewTask::default()
    };
    // inner, its task, a
    let (workflow, ids) = begin(&mut rig, NewWorkflow::new("outer", vec![inner, named("a", &[])]));
    assert_eq!(handed_out(&mut rig), ids[2..]);
    fail(&mut rig, ids[2]);
    assert_eq!(statuses(&rig, &ids), [Cancelled, Cancelled, Failed]);
    retry(&mut rig, workflow).unwrap();
    assert_eq!(statuses(&rig, &ids), [Waiting, Waiting, Pending]);
    assert_eq!(handed_out(&mut rig), ids[2..]);
    complete(&mut rig, ids[2], "1");
    assert_eq!(handed_out(&mut rig), ids[1..2]);
}

/// Regression: a retry of the workflow ran a task whose dependency outside of it had failed, which a retry of that task
/// itself does not.
#[test]
fn a_retry_does_not_run_what_something_outside_keeps_from_running() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let outside = rig.submit(NewTask::new("t"));
    rig.round();
    fail(&mut rig, outside);
    let after = named("after", &[&outside.to_string()]);
    let (workflow, ids) = begin(&mut rig, NewWorkflow::new("w", vec![after, named("a", &[])]));
    assert_eq!(handed_out(&mut rig), ids[1..]);
    fail(&mut rig, ids[1]);
    assert_eq!(statuses(&rig, &ids), [Cancelled, Failed]);
    rig.commit();
    rig.restart();
    retry(&mut rig, workflow).unwrap();
    assert_eq!(statuses(&rig, &ids), [Cancelled, Pending], "it depends on what failed");
    assert_eq!(retry(&mut rig, ids[0]).unwrap_err(), Refusal::DependencyFailed(outside));
}

/// Regression: a task of a workflow that never began, because of what that depends on, was run by a retry by hand.
#[test]
fn a_task_is_not_run_again_before_what_its_workflow_depends_on() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let outside = rig.submit(NewTask::new("t"));
    let waits = NewWorkflow { depends_on: vec![outside.to_string()], ..NewWorkflow::group("g", some(1)) };
    let (workflow, ids) = begin(&mut rig, waits);
    rig.round();
    fail(&mut rig, outside);
    assert_eq!(statuses(&rig, &[workflow, ids[0]]), [Cancelled, Cancelled]);
    rig.commit();
    rig.restart();
    assert_eq!(retry(&mut rig, ids[0]).unwrap_err(), Refusal::DependencyFailed(outside));
    retry(&mut rig, outside).unwrap();
    retry(&mut rig, ids[0]).unwrap();
    assert_eq!(statuses(&rig, &[workflow, ids[0]]), [Waiting, Waiting]);
    rig.hello("w", 5, &[]);
    assert_eq!(handed_out(&mut rig), [outside]);
    complete(&mut rig, outside, "1");
    assert_eq!(handed_out(&mut rig), ids);
}

/// Regression: that a workflow had been started in time was forgotten by a retry, which was refused for it.
#[test]
fn a_workflow_that_was_started_in_time_may_be_run_again_later() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let start_by_at = Some(rig.now.wall.plus_millis(1_000));
    let (workflow, ids) = begin(&mut rig, NewWorkflow { start_by_at, ..NewWorkflow::group("g", some(1)) });
    rig.round();
    fail(&mut rig, ids[0]);
    assert_eq!(rig.status(workflow), Failed);
    rig.commit();
    rig.pass(2_000);
    rig.round();
    retry(&mut rig, workflow).unwrap();
    assert_eq!(handed_out(&mut rig), ids);
    complete(&mut rig, ids[0], "1");
    assert_eq!(rig.status(workflow), Completed);
}

/// Those that are run again are not over, whatever the policy of those after them: these wait for what comes.
#[test]
fn what_runs_after_a_failure_waits_for_the_retry_of_what_failed() {
    let mut rig = EngineRig::new();
    rig.hello("w", 1, &[]);
    let run = Some(OnDependencyFailure::Run);
    let after = NewTask { on_dependency_failure: run, ..named("after", &["@a"]) };
    let (workflow, ids) = begin(&mut rig, NewWorkflow::new("w", vec![after, named("a", &[])]));
    rig.round();
    fail(&mut rig, ids[1]);
    assert_eq!(handed_out(&mut rig), ids[..1]);
    fail(&mut rig, ids[0]);
    retry(&mut rig, workflow).unwrap();
    assert_eq!(statuses(&rig, &ids), [Waiting, Pending]);
    assert_eq!(handed_out(&mut rig), ids[1..]);
}

#[test]
fn a_workflow_that_has_ended_before_its_tasks_is_neither_run_again_nor_deleted() {
    let mut rig = EngineRig::new();
    rig.begins("w", 1);
    let late = NewWorkflow { deadline_ms: Some(1_000), ..NewWorkflow::group("g", some(2)) };
    let (workflow, ids) = begin(&mut rig, late);
    rig.round();
    rig.pass(1_000);
    rig.round();
    assert_eq!((rig.status(workflow), statuses(&rig, &ids)), (Failed, vec![Running, Cancelled]));
    // However many have ended since, it is known that one of its tasks runs.
    for _ in 0..1_100 {
        let task_id = rig.submit(NewTask { queue: Some("other".into()), ..NewTask::new("t") });
        rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
        rig.commit();
    }
    assert_eq!(retry(&mut rig, workflow).unwrap_err(), Refusal::TaskNotFinished);
    assert_eq!(retry(&mut rig, ids[1]).unwrap_err(), Refusal::TaskNotFinished);
    assert_eq!(rig.decide(Command::Delete { task_id: workflow }).unwrap_err(), Refusal::TaskNotFinished);
    let attempt = rig.task(ids[0]).attempt;
    rig.report(ids[0], attempt, Report::Cancelled).unwrap();
    retry(&mut rig, ids[1]).unwrap();
    assert_eq!(statuses(&rig, &[workflow, ids[0], ids[1]]), [Running, Cancelled, Pending]);
}

/// Regression: the counts of a workflow were forgotten with the round that deleted it, and missing when that was taken back.
#[test]
fn a_workflow_whose_deletion_is_taken_back_is_as_it_was() {
    let mut rig = EngineRig::new();
    rig.hello("w", 5, &[]);
    let group = NewWorkflow { on_failure: Some(OnFailure::Finish), ..NewWorkflow::group("g", some(3)) };
    let (workflow, ids) = begin(&mut rig, group);
    rig.round();
    complete(&mut rig, ids[0], "1");
    complete(&mut rig, ids[1], "2");
    fail(&mut rig, ids[2]);
    rig.round();
    let rollup = rig.engine.rollup(workflow);
    assert_eq!((rig.status(workflow), rollup.map(|rollup| rollup.total())), (Failed, Some(3)));
    rig.decide(Command::Delete { task_id: workflow }).unwrap();
    rig.take_back();
    assert_eq!(rig.engine.rollup(workflow), rollup);
    retry(&mut rig, ids[2]).unwrap();
    assert_eq!((rig.status(workflow), handed_out(&mut rig)), (Running, vec![ids[2]]));
    complete(&mut rig, ids[2], "3");
    rig.round();
    assert_eq!(rig.status(workflow), Completed);
}
