//! The declared types of some moment, by name: for the engine, which has those of now, and for all who prepare what it is
//! asked.
//!
//! Filling in defaults is cheap, and looking at payloads is not, so neither is done by the one who decides: whoever submits
//! does it with the types that were committed last, and says by their [version](TypesVersion) which these were. The engine
//! takes what was prepared with the types that it has itself, and sends everything else back to be prepared again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::task_type::TaskType;
use super::{Setting, SettingValue};
use crate::schema::FAULTS_MAX;
use crate::task::{Json, Name, NewTask, PayloadFault, Submission, TypesVersion};

/// Declared types.
#[derive(Clone, Debug, Default)]
pub struct TaskTypes {
    by_name: HashMap<Name, Arc<Setting>>,
    revs: BTreeSet<u64>,
}

impl TaskTypes {
    /// Those among these settings.
    pub fn of<'a>(settings: impl IntoIterator<Item = &'a Arc<Setting>>) -> TaskTypes {
        let mut types = TaskTypes::default();
        for setting in settings {
            if matches!(setting.value, SettingValue::TaskType(_)) {
                types.put(&setting.name, Some(setting));
            }
        }
        types
    }

    /// Puts a type in the place of another of its name.
    pub fn put(&mut self, name: &Name, next: Option<&Arc<Setting>>) {
        let prev = match next {
            Some(next) => {
                self.revs.insert(next.rev);
                self.by_name.insert(name.clone(), next.clone())
            }
            None => self.by_name.remove(name),
        };
        if let Some(prev) = prev {
            self.revs.remove(&prev.rev);
        }
    }

    /// Which these are.
    pub fn version(&self) -> TypesVersion {
        TypesVersion { newest: self.revs.last().copied().unwrap_or(0), count: self.by_name.len() as u32 }
    }

    /// A type, where it is declared.
    pub fn get(&self, name: &str) -> Option<&TaskType> {
        match &self.by_name.get(name)?.value {
            SettingValue::TaskType(task_type) => Some(task_type),
            _ => None,
        }
    }

    /// How many bytes of a submission are looked at when it is prepared.
    pub fn bytes_of(&self, submission: &Submission) -> usize {
        let looked_at = |new: &&NewTask| self.get(&new.task_type).is_some_and(TaskType::has_schema);
        let payloads = submission.tasks().iter().filter(looked_at).filter_map(|new| new.payload.as_ref());
        payloads.map(Json::len).sum()
    }

    /// Prepares a submission: fills in what its tasks leave out, and looks at their payloads. Those that take results are looked
    /// at when they are handed out, for they are not whole before.
    pub fn prepare(&self, submission: &mut Submission, payload_bytes_max: usize) {
        submission.fill(self.version(), payload_bytes_max, |task_type| self.get(task_type).map(|it| &it.spec.defaults));
        let mut faults: Vec<PayloadFault> = Vec::new();
        for (place, new) in submission.with_whole_payloads() {
            if faults.len() >= FAULTS_MAX {
                break;
            }
            if let Some(task_type) = self.get(&new.task_type) {
                faults.extend(named(task_type, new.payload.as_ref(), || submission.payload_name(place)));
            }
        }
        faults.truncate(FAULTS_MAX);
        submission.set_unfit(faults);
    }

    /// What does not fit of the payload of a task of this type, called so.
    pub fn faults(&self, task_type: &str, payload: Option<&Json>, field: &str) -> Vec<PayloadFault> {
        let task_type = self.get(task_type);
        task_type.map_or_else(Vec::new, |task_type| named(task_type, payload, || field.to_owned()))
    }

    /// Fills in what one new task leaves out.
    pub fn fill(&self, new: &mut NewTask) {
        if let Some(task_type) = self.get(&new.task_type) {
            task_type.spec.defaults.fill(new);
        }
    }
}

fn named(task_type: &TaskType, payload: Option<&Json>, field: impl Fn() -> String) -> Vec<PayloadFault> {
    let faults = task_type.faults(payload).into_iter();
    faults.map(|(pointer, message)| PayloadFault { field: field(), pointer, message }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::TaskTypeSpec;
    use crate::task::{Defaults, Timestamp};

    fn setting(name: &str, rev: u64, spec: TaskTypeSpec) -> Arc<Setting> {
        let value = SettingValue::TaskType(TaskType::of(spec).unwrap());
        Arc::new(Setting { name: Name::new(name), rev, updated_at: Timestamp::from_millis(0), value })
    }

    #[test]
    fn a_version_names_what_is_declared() {
        let mut types = TaskTypes::default();
        let mut known = vec![types.version()];
        for (name, rev) in [("a", Some(5)), ("b", Some(6)), ("c", Some(7)), ("a", None), ("d", Some(8)), ("b", None)] {
            let next = rev.map(|rev| setting(name, rev, TaskTypeSpec::default()));
            types.put(&Name::new(name), next.as_ref());
            assert!(!known.contains(&types.version()), "{name}");
            known.push(types.version());
        }
        // What was taken back is as it was.
        let before = types.version();
        types.put(&Name::new("c"), Some(&setting("c", 9, TaskTypeSpec::default())));
        types.put(&Name::new("c"), Some(&setting("c", 7, TaskTypeSpec::default())));
        assert_eq!(types.version(), before);
    }

    #[test]
    fn a_submission_is_prepared_again_from_what_it_said() {
        let schema = Json::parse(r#"{"type":"object"}"#).unwrap();
        let defaults = |queue: &str| Defaults { queue: Some(queue.into()), ..Defaults::default() };
        let spec = |queue: &str, payload_schema| TaskTypeSpec {
            defaults: defaults(queue),
            payload_schema,
            ..Default::default()
        };
        let (first, second) = (setting("t", 5, spec("a", Some(schema))), setting("t", 6, spec("b", None)));
        let mut submission = Submission::check(vec![NewTask::new("t"), NewTask::new("u")], 100).unwrap();
        TaskTypes::of([&first]).prepare(&mut submission, 100);
        assert_eq!(submission.tasks()[0].queue.as_deref(), Some("a"));
        let fault = |field: &str| PayloadFault {
            field: field.into(),
            pointer: String::new(),
            message: "must be object".into(),
        };
        assert_eq!(submission.unfit(), [fault("tasks[0].payload")]);
        TaskTypes::of([&second]).prepare(&mut submission, 100);
        assert_eq!((submission.tasks()[0].queue.as_deref(), submission.unfit()), (Some("b"), &[][..]));
        TaskTypes::default().prepare(&mut submission, 100);
        assert_eq!((submission.tasks()[0].queue.as_deref(), submission.types()), (None, TypesVersion::default()));
    }
}
