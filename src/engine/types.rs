//! Declared task types: what new tasks take from them, and whether payloads fit.
//!
//! What comes from outside was prepared with the types of some moment ([`TaskTypes::prepare`]): here it is only compared which
//! those were. If they are not the ones of now, it is refused with [`Refusal::TypesChanged`], and whoever sent it prepares it
//! again; so a record has what was declared when its `rev` was given, and no payload is looked at by the one who decides.
//!
//! What a schedule submits comes from nobody, so it is prepared here. Its payload is small, and a check has a bound in steps. A
//! due time whose payload does not fit any more has its task all the same, and that has failed: it would be lost without a
//! trace else.

use crate::settings::{Schedule, SettingKind, SettingValue, TaskType};
use crate::task::{Json, Name, NewTask, PayloadFault, Task, TaskId, TypesVersion};

use super::core::Engine;
use super::{Answer, Cx, Fitted, Refusal};

impl Engine {
    /// Refuses what was prepared with other types than those of now.
    pub(super) fn check_types(&self, version: TypesVersion) -> Result<(), Refusal> {
        match version == self.types.version() {
            true => Ok(()),
            false => Err(Refusal::TypesChanged),
        }
    }

    /// The same of another payload for a task that is there.
    pub(super) fn fitted(&self, payload: Option<Fitted>) -> Result<Option<Json>, Refusal> {
        let Some(Fitted { payload, types }) = payload else { return Ok(None) };
        self.check_types(types).map(|()| Some(payload))
    }

    /// Which types are declared now.
    pub fn types_version(&self) -> TypesVersion {
        self.types.version()
    }

    pub(super) fn set_task_type(
        &mut self,
        name: Name,
        task_type: TaskType,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        self.set((SettingKind::TaskType, name), SettingValue::TaskType(task_type), cx)
    }

    pub(super) fn unset_task_type(&mut self, name: Name, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        self.types.get(name.as_str()).ok_or(Refusal::TaskTypeNotFound)?;
        self.change_setting((SettingKind::TaskType, name), None, cx);
        Ok(Answer::Done)
    }

    /// What does not fit of the payload that a schedule submits.
    pub(super) fn unfit(&self, schedule: &Schedule) -> Vec<PayloadFault> {
        let NewTask { task_type, payload, .. } = &*schedule.spec.task;
        self.types.faults(task_type, payload.as_ref(), "task.payload")
    }

    /// A task that was made with a payload that does not fit has failed.
    pub(super) fn fail_unfit(&mut self, task_id: TaskId, faults: Vec<PayloadFault>, cx: &mut Cx<'_>) {
        let task = Task::clone(&self.tasks[&task_id]);
        let faults: Vec<_> = faults.into_iter().map(|fault| PayloadFault { field: String::new(), ..fault }).collect();
        let error = PayloadFault::failure(&task.task_type, &faults);
        self.end_for_good(task, error, "its payload does not fit its type", cx);
    }
}
