//! Declared task types, as people set and see them; and what is prepared with them before the writer is asked.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::engine::{Command, Fitted, Refusal, SubmitKey};
use crate::settings::{Setting, SettingKind, SettingValue, TaskType, TaskTypeSpec, TaskTypes};
use crate::task::{Json, Name, NewCallback, Submission, Task, TaskId, TypesVersion};
use crate::wire::{TaskTypeList, TaskTypeView};

use super::inbox::{Bound, NotTaken, Reply, Request};
use super::{Hub, HubError, Submitted};

/// Bytes of payloads that are looked at where nobody may be kept waiting: some tenths of a millisecond.
const LOOKED_AT_HERE_BYTES_MAX: usize = 16 << 10;
/// How often something is prepared again because the types changed meanwhile. Each time somebody must have set one within the
/// milliseconds that a submission takes.
const PREPARED_MAX: usize = 16;

/// Says whether a prepared submission may be made.
pub(super) type Judge<'a> = dyn Fn(&Submission) -> Result<(), HubError> + Send + Sync + 'a;

impl Hub {
    /// One declared type; `None` where there is none of this name.
    pub fn task_type(&self, name: &Name) -> Option<TaskTypeView> {
        let setting = self.shared().board.settings.get(SettingKind::TaskType, name)?;
        view(&setting)
    }

    /// Declared types by name, at most so many of those after this one.
    pub fn task_types(&self, after: Option<Name>, len_max: usize) -> TaskTypeList {
        let mut settings = self.shared().board.settings.page(SettingKind::TaskType, after, len_max + 1);
        let more = settings.len() > len_max;
        settings.truncate(len_max);
        let task_types: Vec<TaskTypeView> = settings.iter().filter_map(|setting| view(setting)).collect();
        let next_cursor = task_types.last().filter(|_| more).map(|last| last.name.to_string());
        TaskTypeList { task_types, next_cursor }
    }

    /// Declares a type, all of it. Answers whether there was none of this name before. It holds for all that is submitted once
    /// this returned.
    pub async fn set_task_type(&self, name: Name, spec: TaskTypeSpec) -> Result<(TaskTypeView, bool), HubError> {
        let checked = NewCallback::each(&spec.defaults.callbacks, |callback| self.check_callback(callback));
        checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid.within("defaults"))))?;
        let read = tokio::task::spawn_blocking(move || TaskType::of(spec));
        let task_type = read.await.map_err(|_| HubError::Internal)?;
        let task_type = task_type.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        let (setting, is_new) = self.set(Command::SetTaskType { name, task_type }).await?;
        // What was set is no other kind of setting but by a fault of ours.
        Ok((view(&setting).ok_or(HubError::Internal)?, is_new))
    }

    /// Takes back what is declared of a type. Its tasks stay as they are.
    pub async fn delete_task_type(&self, name: Name) -> Result<(), HubError> {
        self.ask(Command::UnsetTaskType { name }, Bound::Held).await.map(|_| ())
    }

    /// Prepares a submission with the declared types, and sends it; again where these changed in between.
    pub(super) async fn submit_prepared(
        &self,
        mut submission: Submission,
        key: Option<SubmitKey>,
        judge: &Judge<'_>,
    ) -> Result<Submitted, HubError> {
        for _ in 0..PREPARED_MAX {
            if let Some(types) = self.other_types(submission.types()) {
                // Few do: the others' futures are no larger for it.
                submission = Box::pin(self.prepare(submission, types)).await?;
                judge(&submission)?;
            }
            self.sign(&mut submission);
            self.check_prepared(&submission, key.is_some())?;
            let (sender, answer) = oneshot::channel();
            let command = Command::Submit { submission, key };
            let reply = Reply::Submitter(sender, self.row_of(&command));
            self.shared().inbox.push(Request::Command { command, reply }, Bound::Held)?;
            match answer.await {
                Ok(Ok(submitted)) => return Ok(submitted),
                Ok(Err(NotTaken::Failed(error))) => return Err(error),
                Ok(Err(NotTaken::TypesChanged(back))) => submission = *back,
                Err(_) => return Err(HubError::Stopped),
            }
        }
        Err(HubError::Overloaded)
    }

    /// Callbacks of a prepared submission end with who submits it.
    pub(super) fn sign(&self, submission: &mut Submission) {
        if submission.has_callbacks() {
            submission.set_author(self.author());
        }
    }

    /// Refuses what is prepared and cannot be taken. One with a key may have been taken before, when its payload did fit.
    pub(super) fn check_prepared(&self, submission: &Submission, has_key: bool) -> Result<(), HubError> {
        if !has_key && !submission.unfit().is_empty() {
            return Err(HubError::Refused(Refusal::PayloadInvalid(submission.unfit().to_vec())));
        }
        self.check_owed(submission)
    }

    /// Asks for something with another payload of a task, where there is one, that was looked at; again where types changed in
    /// between.
    pub(super) async fn with_fitted(
        &self,
        task_id: TaskId,
        payload: Option<Json>,
        command: impl Fn(Option<Fitted>) -> Command,
    ) -> Result<Arc<Task>, HubError> {
        for _ in 0..PREPARED_MAX {
            let fitted = match &payload {
                Some(payload) => Some(self.fit(task_id, payload.clone()).await?),
                None => None,
            };
            match self.ask_for_task(command(fitted)).await {
                Err(HubError::Refused(Refusal::TypesChanged)) => {}
                answer => return answer,
            }
        }
        Err(HubError::Overloaded)
    }

    /// The types that are declared now, unless these are those.
    pub(super) fn other_types(&self, version: TypesVersion) -> Option<Arc<TaskTypes>> {
        match self.shared().board.settings.types() {
            Some(types) => (types.version() != version).then_some(types),
            None => (version != TypesVersion::default()).then(Arc::default),
        }
    }

    /// Prepares a submission with these types.
    pub(super) async fn prepare(
        &self,
        mut submission: Submission,
        types: Arc<TaskTypes>,
    ) -> Result<Submission, HubError> {
        let bytes_max = self.options().engine.payload_bytes_max;
        if types.bytes_of(&submission) <= LOOKED_AT_HERE_BYTES_MAX {
            types.prepare(&mut submission, bytes_max);
            return Ok(submission);
        }
        self.shared()
            .look_at(move || {
                types.prepare(&mut submission, bytes_max);
                submission
            })
            .await
    }

    /// Looks at another payload for a task that is there. One that takes results is looked at when it is handed out.
    async fn fit(&self, task_id: TaskId, payload: Json) -> Result<Fitted, HubError> {
        let Some(types) = self.shared().board.settings.types() else {
            return Ok(Fitted { payload, types: TypesVersion::default() });
        };
        let version = types.version();
        // A task is of one type for ever, and takes results or does not: any record of it will do.
        let task = match self.shown(task_id) {
            Some(task) => Some(task),
            None => {
                let records = self.shared().read(move |reader| reader.records(&[task_id])).await?;
                let record = records.into_iter().flatten().next();
                record.and_then(|record| Task::parse(&record).ok()).map(Arc::new)
            }
        };
        let Some(task) = task.filter(|task| !task.takes_results() && !task.is_workflow()) else {
            return Ok(Fitted { payload, types: version });
        };
        let is_small = payload.len() <= LOOKED_AT_HERE_BYTES_MAX;
        let look = move || (types.faults(task.task_type.as_str(), Some(&payload), "payload"), payload);
        let (faults, payload) = if is_small { look() } else { self.shared().look_at(look).await? };
        match faults.is_empty() {
            true => Ok(Fitted { payload, types: version }),
            false => Err(HubError::Refused(Refusal::PayloadInvalid(faults))),
        }
    }
}

fn view(setting: &Setting) -> Option<TaskTypeView> {
    match &setting.value {
        SettingValue::TaskType(task_type) => {
            Some(TaskTypeView::of(setting.name.clone(), (setting.rev, setting.updated_at), task_type))
        }
        _ => None,
    }
}
