//! Declared task types: what is prepared with others is sent back, and what a schedule submits is prepared as of now.

use crate::settings::{ScheduleSpec, Setting, SettingValue, TaskType, TaskTypeSpec, TaskTypes};
use crate::task::{Defaults, Json, Name, NewTask, Outcome, Status, Submission, TaskPatch, TypesVersion};

use super::rig::{EngineRig, submit};
use super::{Answer, Command, Fitted, Refusal};

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

fn declare(rig: &mut EngineRig, priority: i8, schema: Option<&str>) {
    let defaults = Defaults { priority: Some(priority), ..Defaults::default() };
    let spec = TaskTypeSpec { defaults, payload_schema: schema.map(json), ..TaskTypeSpec::default() };
    let task_type = TaskType::of(spec).unwrap();
    rig.decide(Command::SetTaskType { name: Name::new("t"), task_type }).expect("it may be declared");
}

/// The types that the engine has, as everybody else sees them.
fn types(rig: &EngineRig) -> TaskTypes {
    TaskTypes::of(rig.engine.settings())
}

fn prepared(types: &TaskTypes, new: NewTask) -> Command {
    let mut submission = Submission::check(vec![new], 1 << 20).unwrap();
    types.prepare(&mut submission, 1 << 20);
    Command::Submit { submission, key: None }
}

fn submitted(rig: &mut EngineRig, command: Command) -> std::sync::Arc<crate::task::Task> {
    match rig.decide(command) {
        Ok(Answer::Submitted { tasks, .. }) => tasks[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_prepared_with_other_types_is_sent_back() {
    let mut rig = EngineRig::new();
    let none = types(&rig);
    declare(&mut rig, 5, None);
    let first = types(&rig);
    let rev = rig.engine.rev();
    for old in [submit(vec![NewTask::new("t")]), prepared(&none, NewTask::new("t")), prepared(&none, NewTask::new("u"))]
    {
        assert_eq!(rig.decide(old).unwrap_err(), Refusal::TypesChanged);
    }
    assert_eq!(rig.engine.rev(), rev, "nothing was decided");
    assert_eq!(submitted(&mut rig, prepared(&first, NewTask::new("t"))).priority, 5);
    declare(&mut rig, 6, None);
    assert_eq!(rig.decide(prepared(&first, NewTask::new("t"))).unwrap_err(), Refusal::TypesChanged);
    // What was declared is taken back with a commit that fails.
    rig.commit();
    declare(&mut rig, 7, None);
    rig.take_back();
    let second = types(&rig);
    assert_eq!(submitted(&mut rig, prepared(&second, NewTask::new("t"))).priority, 6);
    rig.commit();
    rig.restart();
    assert_eq!(types(&rig).version(), rig.engine.types_version());
    let restarted = types(&rig);
    assert_eq!(submitted(&mut rig, prepared(&restarted, NewTask::new("t"))).priority, 6);
    rig.decide(Command::UnsetTaskType { name: Name::new("t") }).unwrap();
    let unset = Command::UnsetTaskType { name: Name::new("t") };
    assert_eq!(rig.decide(unset).unwrap_err(), Refusal::TaskTypeNotFound);
    assert_eq!(rig.engine.types_version(), TypesVersion::default());
    assert_eq!(submitted(&mut rig, submit(vec![NewTask::new("t")])).priority, 0);
}

#[test]
fn a_payload_that_does_not_fit_is_refused_and_another_for_a_task_is_looked_at_with_the_types_of_now() {
    let mut rig = EngineRig::new();
    declare(&mut rig, 5, Some(r#"{"type":"object"}"#));
    let known = types(&rig);
    let refused = rig.decide(prepared(&known, NewTask::new("t"))).unwrap_err();
    assert!(matches!(&refused, Refusal::PayloadInvalid(faults) if faults[0].field == "payload"), "{refused:?}");
    let new = NewTask { payload: Some(json("{}")), ..NewTask::new("t") };
    let task_id = submitted(&mut rig, prepared(&known, new)).task_id;
    rig.commit();
    let patch = TaskPatch { payload: Some(json("{}")), ..TaskPatch::default() };
    let update = |types| Command::Update { task_id, patch: patch.clone(), types };
    assert_eq!(rig.decide(update(TypesVersion::default())).unwrap_err(), Refusal::TypesChanged);
    rig.decide(update(known.version())).unwrap();
    let title = TaskPatch { title: Some("other".into()), ..TaskPatch::default() };
    rig.decide(Command::Update { task_id, patch: title, types: TypesVersion::default() }).expect("it has no payload");
    rig.decide(Command::Cancel { task_id, reason: None }).unwrap();
    rig.commit();
    let retry = |types| Command::Retry { task_id, payload: Some(Fitted { payload: json("{}"), types }) };
    assert_eq!(rig.decide(retry(TypesVersion::default())).unwrap_err(), Refusal::TypesChanged);
    rig.decide(retry(known.version())).unwrap();
}

/// Each due time has a task with what is declared then; where its payload does not fit any more it has failed, and says why.
#[test]
fn a_schedule_submits_what_is_declared_when_it_is_due() {
    let mut rig = EngineRig::new();
    declare(&mut rig, 5, Some(r#"{"type":"object"}"#));
    let spec = |payload: Option<&str>| {
        let task = NewTask { payload: payload.map(json), ..NewTask::new("t") };
        ScheduleSpec { every_ms: Some(1_000), ..ScheduleSpec::new(task) }
    };
    let set = |payload| Command::SetSchedule { name: Name::new("s"), spec: spec(payload) };
    let refused = rig.decide(set(Some("1"))).unwrap_err();
    assert!(matches!(&refused, Refusal::PayloadInvalid(faults) if faults[0].field == "task.payload"), "{refused:?}");
    assert!(matches!(rig.decide(set(None)).unwrap_err(), Refusal::PayloadInvalid(_)), "none is looked at as null");
    rig.decide(set(Some("{}"))).unwrap();
    rig.round();
    let due = |rig: &mut EngineRig| {
        let known: Vec<_> = rig.engine.tasks().map(|task| task.task_id).collect();
        rig.pass(1_000);
        rig.round();
        let made = rig.engine.tasks().find(|task| !known.contains(&task.task_id)).expect("it is due");
        (made.status, made.priority, made.clone())
    };
    assert!(matches!(due(&mut rig), (Status::Pending, 5, _)));
    declare(&mut rig, 6, None);
    assert!(matches!(due(&mut rig), (Status::Pending, 6, _)));
    declare(&mut rig, 7, Some(r#"{"required":["id"]}"#));
    let (status, priority, task) = due(&mut rig);
    assert_eq!((status, priority), (Status::Failed, 7));
    let outcome = task.run().and_then(|run| run.outcome.as_ref());
    let Some(Outcome::Error(error)) = outcome else { panic!("it says why, and not {outcome:?}") };
    assert_eq!((error.kind.as_str(), task.attempt), ("payload", 0));
    assert!(error.message.ends_with(r#"it must have the property "id""#), "{}", error.message);
    // Whoever runs it by hand is there to hear it.
    let run = Command::RunSchedule { name: Name::new("s") };
    assert!(matches!(rig.decide(run.clone()).unwrap_err(), Refusal::PayloadInvalid(_)));
    // A commit that fails takes back both, and it is due again.
    rig.pass(1_000);
    rig.go();
    rig.take_back();
    let (status, ..) = due(&mut rig);
    assert_eq!(status, Status::Failed);
    rig.decide(Command::UnsetTaskType { name: Name::new("t") }).unwrap();
    rig.decide(run).unwrap();
    assert!(matches!(due(&mut rig), (Status::Pending, 0, _)));
}

#[test]
fn declared_types_have_their_number() {
    let setting = |n: u64| {
        let value = SettingValue::TaskType(TaskType::of(TaskTypeSpec::default()).unwrap());
        Setting { name: Name::new(&format!("t{n}")), rev: n, updated_at: Default::default(), value }
    };
    let mut rig = EngineRig::new();
    let settings = (1..=crate::settings::TASK_TYPES_MAX as u64).map(setting).collect();
    let tasks = super::Tasks { unfinished: Vec::new(), relatives: Vec::new() };
    rig.engine = super::Engine::recover(super::Options::default(), 5_000, None, settings, tasks, 1, rig.now).0;
    let task_type = || TaskType::of(TaskTypeSpec { title: Some("T".into()), ..Default::default() }).unwrap();
    let over = rig.decide(Command::SetTaskType { name: Name::new("more"), task_type: task_type() }).unwrap_err();
    assert!(matches!(&over, Refusal::Invalid(invalid) if invalid.field == "task_types"), "{over:?}");
    rig.decide(Command::SetTaskType { name: Name::new("t7"), task_type: task_type() }).expect("it is there already");
}
