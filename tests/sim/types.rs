//! Declared task types: somebody declares some while everything goes on, and the checker's account of what tasks take from them.
//!
//! Submissions are prepared with what is committed when they are sent, so some are decided when other types are declared by
//! then: those must come back. What is made has what is declared when its `rev` is given, field by field, as a look at both
//! texts says.

use std::sync::Arc;

use fastrand::Rng;
use serde_json::{Map, Value};
use taskhub::engine::{Command, Fitted, Refusal};
use taskhub::settings::{Setting, SettingKind, SettingValue, TaskType, TaskTypeSpec, TaskTypes};
use taskhub::task::{
    Change, ChangeKind, Defaults, Event, Json, Name, NewTask, Outcome, RetryPolicy, Status, TypesVersion,
};

use super::apps::{QUEUES, TYPES};
use super::check::Checker;
use super::mix::Mix;
use super::world::{From, World};

/// A schema that no payload here fits, and others that each does: payloads are null, or not there.
const UNFIT: &str = r#"{"type":"object"}"#;
const FIT: [&str; 2] = ["true", r#"{"type":"null"}"#];

fn some_defaults(random: &mut Rng, mix: &Mix) -> Defaults {
    let mut ms = |yes: bool, from: u64| (yes && random.u8(0..4) == 0).then(|| random.u64(from..6_000));
    let (delay_ms, timeout_ms, silence_ms) = (ms(mix.delays, 0), ms(mix.timeouts, 1), ms(mix.timeouts, 1));
    let (deadline_ms, start_by_ms) = (ms(mix.timeouts, 6_000 - 1), ms(mix.timeouts, 6_000 - 1));
    let retry = RetryPolicy::delays_ms(vec![random.u64(0..500)]);
    Defaults {
        queue: random.bool().then(|| QUEUES[random.usize(0..QUEUES.len())].to_owned()),
        title: random.bool().then(|| "of its type".to_owned()),
        labels: if random.bool() { [("project_id".to_owned(), "p3".to_owned())].into() } else { Default::default() },
        priority: random.bool().then(|| [0, 7, -7][random.usize(0..3)]),
        delay_ms,
        max_attempts: random.bool().then(|| random.u32(1..4)),
        max_crashes: random.bool().then(|| random.u32(1..4)),
        timeout_ms,
        retry: random.bool().then_some(retry),
        // Whatever delay there is, these are longer.
        deadline_ms,
        start_by_ms,
        silence_ms,
        cancel_grace_ms: random.bool().then(|| random.u64(0..800)),
        concurrency_key: (mix.keys && random.u8(0..4) == 0).then(|| "of-its-type".to_owned()),
        ..Defaults::default()
    }
}

/// What is declared: the types of tasks, and that of workflows.
fn names() -> impl Iterator<Item = Name> {
    TYPES.into_iter().chain(["workflow"]).map(Name::new)
}

impl World {
    pub fn declare_something(&mut self) {
        let name = names().nth(self.random.usize(0..TYPES.len() + 1)).expect("one of them");
        let random = &mut self.random;
        let command = match random.u8(0..5) {
            0 => Command::UnsetTaskType { name },
            _ => {
                let schema = match random.u8(0..6) {
                    0 => Some(UNFIT),
                    1 | 2 => Some(FIT[random.usize(0..2)]),
                    _ => None,
                };
                let payload_schema = schema.map(|text| Json::parse(text).expect("it is JSON"));
                let defaults = some_defaults(random, &self.mix);
                let spec = TaskTypeSpec { defaults, payload_schema, ..TaskTypeSpec::default() };
                Command::SetTaskType { name, task_type: TaskType::of(spec).expect("it is right") }
            }
        };
        self.push(command, From::App);
    }

    /// Nothing is declared any more.
    pub fn unset_types(&mut self) {
        for name in names() {
            self.push(Command::UnsetTaskType { name }, From::App);
        }
    }

    /// What is committed, as everybody sees it.
    fn types(&self) -> TaskTypes {
        let settings: Vec<Arc<Setting>> = self.store.settings.values().cloned().map(Arc::new).collect();
        TaskTypes::of(&settings)
    }

    /// A command as it is sent.
    pub fn prepared(&self, mut command: Command) -> Command {
        if !self.mix.types {
            return command;
        }
        match &mut command {
            Command::Submit { submission, .. } => {
                self.types().prepare(submission, self.mix.options.payload_bytes_max);
            }
            Command::Update { types, .. } | Command::Retry { payload: Some(Fitted { types, .. }), .. } => {
                *types = self.types().version();
            }
            _ => {}
        }
        command
    }
}

impl Checker {
    fn declared_type(&self, name: &str) -> Option<&TaskTypeSpec> {
        match &self.settings.get(&(SettingKind::TaskType, Name::new(name)))?.value {
            SettingValue::TaskType(task_type) => Some(&task_type.spec),
            _ => None,
        }
    }

    /// The types of now.
    fn types_version(&self) -> TypesVersion {
        let types = self.settings.iter().filter(|((kind, _), _)| *kind == SettingKind::TaskType);
        let revs: Vec<u64> = types.map(|(_, setting)| setting.rev).collect();
        TypesVersion { newest: revs.iter().copied().max().unwrap_or(0), count: revs.len() as u32 }
    }

    /// What must come of something that was prepared with these types, if not what it asks for.
    pub(super) fn is_of_other_types(&self, version: TypesVersion) -> Option<Refusal> {
        (version != self.types_version()).then_some(Refusal::TypesChanged)
    }

    /// Whether payloads of a type do not fit it.
    pub(super) fn is_unfit(&self, new: &NewTask) -> bool {
        let schema = self.declared_type(&new.task_type).and_then(|spec| spec.payload_schema.as_ref());
        schema.is_some_and(|schema| schema.as_str() == UNFIT)
    }

    /// A new task with what its type gives to it.
    pub(super) fn with_defaults(&self, own: &NewTask, is_workflow: bool) -> NewTask {
        let Some(spec) = self.declared_type(&own.task_type) else { return own.clone() };
        let fields = |value: Value| match value {
            Value::Object(fields) => fields,
            other => panic!("{other} has no fields"),
        };
        let own: Map<String, Value> = fields(serde_json::to_value(own).expect("a task is JSON"));
        let mut all = own.clone();
        let ms = |field: &str| own.get(field).and_then(Value::as_u64);
        let delay_ms = |all: &Map<String, Value>| all.get("delay_ms").and_then(Value::as_u64).unwrap_or(0);
        for (field, value) in fields(serde_json::to_value(&spec.defaults).expect("defaults are JSON")) {
            let number = value.as_u64().unwrap_or(0);
            let contradicts = match field.as_str() {
                "delay_ms" => {
                    let ends = [ms("deadline_ms"), ms("start_by_ms")];
                    own.contains_key("run_at")
                        || own.contains_key("gather")
                        || ends.into_iter().flatten().any(|end_ms| end_ms <= number)
                }
                "deadline_ms" | "start_by_ms" => {
                    own.contains_key("run_at")
                        || own.contains_key(&field.replace("_ms", "_at"))
                        || number <= delay_ms(&own)
                }
                _ => false,
            };
            let of_workflows = ["title", "description", "labels", "delay_ms", "deadline_ms", "start_by_ms"];
            if !contradicts && !own.contains_key(&field) && (!is_workflow || of_workflows.contains(&field.as_str())) {
                all.insert(field, value);
            }
        }
        serde_json::from_str(&Value::Object(all).to_string()).expect("a task is read")
    }

    /// A task of a schedule whose payload does not fit any more has failed as soon as it was made.
    pub(super) fn fails_unfit(
        &mut self,
        new: &NewTask,
        made: &Change,
        changes: &mut &[Change],
        now: taskhub::engine::Now,
    ) {
        if !self.is_unfit(new) {
            return;
        }
        let change = changes.split_off_first().expect("it fails at once");
        assert_eq!((change.task.task_id, change.kind), (made.task.task_id, ChangeKind::Transition(Event::Failed)));
        assert_eq!(change.task.status, Status::Failed);
        let outcome = change.task.run().and_then(|run| run.outcome.as_ref());
        assert!(matches!(outcome, Some(Outcome::Error(error)) if error.kind == "payload"), "{outcome:?}");
        self.step(change, now);
    }
}
