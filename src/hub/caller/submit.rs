//! Handing in tasks.

use crate::access::{Part, Sight};
use crate::engine::{Refusal, SubmitKey};
use crate::task::{Filter, Invalid, Name, NewTask, NewWorkflow, Spawner, Submission, TaskId};

use super::super::{Forbidden, HubError, Submitted};
use super::CallerHub;

/// Whether what is made of this would match, by what never changes of a task.
pub(super) fn fits(filter: &Filter, new: &NewTask) -> bool {
    field_out_of(filter, new).is_none()
}

/// The first field of a new task by which a filter does not mean it.
fn field_out_of(filter: &Filter, new: &NewTask) -> Option<String> {
    if filter.task_id.is_some() {
        return Some("task_id".into());
    }
    if filter.workflow_id.is_some() {
        return Some("workflow_id".into());
    }
    let user = new.user_id.as_deref().map(Name::new);
    if filter.user_id.as_ref().is_some_and(|users| user.is_none_or(|user| !users.contains(&user))) {
        return Some("user_id".into());
    }
    if filter.task_type.as_ref().is_some_and(|types| !types.matches(&new.task_type)) {
        return Some("task_type".into());
    }
    if filter.queue.as_ref().is_some_and(|queues| !queues.matches(new.queue_name())) {
        return Some("queue".into());
    }
    let out =
        filter.labels.iter().find(|(key, values)| new.labels.get(*key).is_none_or(|value| !values.contains(value)));
    out.map(|(key, _)| format!("labels.{key}"))
}

/// The user whose tasks a filter means, where it is one.
fn only_user(filter: &Filter) -> Option<String> {
    let users = filter.user_id.as_ref().filter(|users| users.len() == 1)?;
    users.first().map(|user| user.as_str().to_owned())
}

/// Fills in what a filter leaves no choice of.
fn fill(filter: &Filter, new: &mut NewTask) {
    if new.user_id.is_none() {
        new.user_id = only_user(filter);
    }
    if new.queue.is_none() {
        let only = filter.queue.as_ref().and_then(|queues| queues.only());
        new.queue = only.map(|queue| queue.as_str().to_owned());
    }
    for (key, values) in &filter.labels {
        if let (Some(only), 1) = (values.first(), values.len()) {
            new.labels.entry(key.clone()).or_insert_with(|| only.clone());
        }
    }
}

impl CallerHub {
    /// Takes these tasks, all or none. When this returns they are on disk.
    pub async fn submit_all(&self, mut tasks: Vec<NewTask>, key: Option<SubmitKey>) -> Result<Submitted, HubError> {
        let Sight::Of(sight) = &self.who.sight else {
            return self.submit_any(self.hub.checked(tasks).await?, key).await;
        };
        tasks.iter_mut().for_each(|new| fill(sight, new));
        let checked = self.hub.checked(tasks).await?;
        self.submit_own(sight, checked, key).await
    }

    /// Takes a workflow and all of its tasks, or nothing. The answer's first task is the workflow. When this returns they are
    /// on disk.
    pub async fn submit_workflow(
        &self,
        mut workflow: NewWorkflow,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        let bytes_max = self.hub.options().engine.payload_bytes_max;
        let Sight::Of(sight) = &self.who.sight else {
            return self.submit_any(Submission::check_workflow(workflow, bytes_max), key).await;
        };
        // Its tasks are of its user.
        if workflow.user_id.is_none() {
            workflow.user_id = only_user(sight);
        }
        let checked = Submission::check_workflow(workflow, bytes_max);
        self.submit_own(sight, checked, key).await
    }

    /// Takes tasks that a running attempt adds, all or none.
    pub async fn spawn(
        &self,
        spawner: Spawner,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        self.holds(spawner.task_id)?;
        self.hub.spawn(spawner, tasks, key).await
    }

    /// Takes a submission, if the caller would see all of its tasks, and sees all that they depend on. It is judged as it will be:
    /// what types give to tasks is filled in before, and again where they change meanwhile.
    async fn submit_own(
        &self,
        sight: &Filter,
        checked: Result<Submission, Invalid>,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        let mut submission = checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        self.may_call_back(&submission)?;
        if let Some(types) = self.hub.other_types(submission.types()) {
            submission = Box::pin(self.hub.prepare(submission, types)).await?;
        }
        self.check_own(sight, &submission)?;
        let known: Vec<_> = submission.known().collect();
        let task_ids: Vec<TaskId> = known.iter().map(|(.., task_id)| *task_id).collect();
        if !task_ids.is_empty() {
            let sees = self.sees_each(task_ids).await?;
            if let Some(((place, at, task_id), _)) = known.into_iter().zip(sees).find(|(_, sees)| !sees) {
                let invalid = Invalid { field: format!("depends_on[{at}]").into(), ..Invalid::no_such_task(task_id) };
                return Err(HubError::Refused(Refusal::Invalid(submission.paths().within(place, invalid))));
            }
        }
        let is_own = |prepared: &Submission| self.check_own(sight, prepared);
        Ok(self.shown_submitted(self.hub.submit_judged(submission, key, &is_own).await?))
    }

    /// Takes a submission of a caller who sees all tasks.
    async fn submit_any(
        &self,
        checked: Result<Submission, Invalid>,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        if let Ok(submission) = &checked {
            self.may_call_back(submission)?;
        }
        Ok(self.shown_submitted(self.hub.submit_checked(checked, key).await?))
    }

    /// Refuses callbacks of a caller from whom results are hidden: they carry them.
    fn may_call_back(&self, submission: &Submission) -> Result<(), HubError> {
        if submission.has_callbacks() && self.who.hidden.touches(Part::Result) {
            let detail = "would tell of results, which are hidden from the caller";
            return Err(self.forbidden("submit", Forbidden::at("callbacks", detail)));
        }
        Ok(())
    }

    /// What was submitted may have been there before, and have a result.
    fn shown_submitted(&self, mut submitted: Submitted) -> Submitted {
        if !self.who.hidden.is_nothing() {
            submitted.records.iter_mut().for_each(|record| *record = self.shown_record(std::mem::take(record)));
        }
        submitted
    }

    /// Refuses a submission with a task that would be none of the caller's, with all that its type gives it.
    fn check_own(&self, sight: &Filter, submission: &Submission) -> Result<(), HubError> {
        for (place, new) in submission.tasks().iter().enumerate() {
            if let Some((field, detail)) = self.not_own(sight, new) {
                let Invalid { field, detail, .. } = submission.paths().within(place, Invalid::value(field, detail));
                return Err(self.forbidden("submit", Forbidden::at(field, detail)));
            }
        }
        Ok(())
    }

    /// The field by which a new task is none of the caller's, and why.
    fn not_own(&self, sight: &Filter, new: &NewTask) -> Option<(String, &'static str)> {
        if let Some(field) = field_out_of(sight, new) {
            return Some((field, "is not one that the caller may submit tasks with"));
        }
        // Such keys belong to a user. Who sees only some of that user's tasks would be told of others.
        let held = [("unique", new.unique.is_some()), ("gather", new.gather.is_some())];
        let (field, _) = held.into_iter().find(|(_, stands)| *stands)?;
        let detail = "may stand only where the caller sees all tasks of its user";
        (!self.who.sees_its_user()).then(|| (field.to_owned(), detail))
    }
}
