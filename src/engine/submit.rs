//! New tasks, and final ones that are run again.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::task::{
    By, Callbacks, Dependency, Detail, Event, Invalid, Json, KeyEntry, Kind, Links, MadeBy, Name, NewTies, NewWork,
    OnDependencyFailure, Part, PassedOn, Run, Spawner, Status, Submission, TIES_MAX, Task, TaskId, Ties, Timing,
    Workflow,
};

use super::core::{Engine, Step};
use super::gather::NewList;
use super::keys::SubmitKey;
use super::unique::Met;
use super::workflows::is_shut;
use super::{Answer, Batch, Cx, Now, Refusal};

impl Engine {
    pub(super) fn submit(
        &mut self,
        mut submission: Submission,
        key: Option<SubmitKey>,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        if let Some(SubmitKey { key, body }) = key
            && let Some(entry) = self.keys.get(key, cx.now)
        {
            return match entry.body == body {
                true => Ok(Answer::Replayed { task_ids: entry.tasks.clone(), existing: entry.existing.clone() }),
                false => Err(Refusal::IdempotencyConflict),
            };
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        self.check_types(submission.types())?;
        if !submission.unfit().is_empty() {
            return Err(Refusal::PayloadInvalid(submission.unfit().to_vec()));
        }
        let count = submission.tasks().len();
        // Of those that have a kind some may be there already.
        if !submission.has_kinds() && self.unfinished() + count > self.options.tasks_max {
            return Err(Refusal::Full);
        }
        if let Some(spawner) = submission.spawner() {
            let parent = self.spawning(spawner, count)?;
            submission.adopt(&parent).map_err(Refusal::Invalid)?;
        }
        let paths = submission.paths();
        // Each has its id before the first is made, for they may name those that come later.
        let ids: Vec<TaskId> = (0..count).map(|_| self.next_id(cx.now.at)).collect();
        let (tasks, existing) = self.whole(cx, |engine, cx| {
            let mut tasks: Vec<Arc<Task>> = Vec::with_capacity(count);
            let mut existing = Vec::new();
            for (at, (new, ties, kind)) in submission.into_parts().enumerate() {
                let met = match &kind {
                    Some(Kind::Gather(list)) => engine.gather(new, list, cx),
                    Some(Kind::Unique(unique)) => {
                        engine.meet_holder(new, unique, cx).map_err(|refusal| match refusal {
                            Refusal::KeyHeld(Some(holder)) if ids.binary_search(&holder).is_ok() => {
                                Refusal::KeyHeld(None)
                            }
                            refusal => refusal,
                        })?
                    }
                    None => Met::Free(new),
                };
                match met {
                    Met::Holder(task) => {
                        existing.push(at as u32);
                        tasks.push(task);
                    }
                    Met::Free(_) if engine.unfinished() >= engine.options.tasks_max => return Err(Refusal::Full),
                    Met::Free(new) => {
                        let task = engine.create(ids[at], (new, ties, kind), &ids, None, cx);
                        tasks.push(task.map_err(|refusal| match refusal {
                            Refusal::Invalid(invalid) => Refusal::Invalid(paths.within(at, invalid)),
                            refusal => refusal,
                        })?);
                    }
                }
            }
            Ok((tasks, existing))
        })?;
        if let Some(SubmitKey { key, body }) = key {
            let entry = KeyEntry {
                key,
                body,
                tasks: tasks.iter().map(|task| task.task_id).collect(),
                existing: existing.clone(),
                expires_at: cx.now.at.plus_millis(self.options.key_ms),
            };
            cx.batch.keys.push(entry.clone());
            self.keys.insert(entry);
        }
        Ok(Answer::Submitted { tasks, existing })
    }

    /// The task that adds so many others.
    fn spawning(&self, Spawner { task_id, attempt }: Spawner, count: usize) -> Result<Arc<Task>, Refusal> {
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?;
        if task.status != Status::Running || task.attempt != attempt || task.is_workflow() {
            return Err(Refusal::LeaseLost);
        }
        let rollup = task.workflow_id().and_then(|workflow_id| self.rollup(workflow_id));
        if rollup.is_some_and(|rollup| rollup.total() as usize + count > TIES_MAX) {
            return Err(Refusal::Invalid(Invalid::limit("tasks", TIES_MAX as u64, "tasks in a workflow")));
        }
        Ok(task.clone())
    }

    /// Decides something of several steps: if it is refused, none of them was made.
    pub(super) fn whole<T>(
        &mut self,
        cx: &mut Cx<'_>,
        decide: impl FnOnce(&mut Engine, &mut Cx<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (changes, settings, notices) = (cx.batch.changes.len(), cx.batch.settings.len(), cx.batch.notices.len());
        let (counted, keys) = (self.quotas.counted(), cx.batch.keys.len());
        decide(self, cx).inspect_err(|_| {
            let Batch { changes: decided, settings: set, .. } = cx.batch;
            self.take_back(decided, set, (changes, settings), cx.now);
            cx.batch.notices.truncate(notices);
            cx.batch.keys.drain(keys..).for_each(|entry| self.keys.forget(entry.key));
            self.quotas.take_back(counted);
        })
    }

    /// Makes a new task, for a schedule where that is named. A refusal may have changed something, which is to be taken back.
    pub(super) fn create(
        &mut self,
        task_id: TaskId,
        (new, ties, kind): Part,
        ids: &[TaskId],
        made_by: Option<MadeBy>,
        cx: &mut Cx<'_>,
    ) -> Result<Arc<Task>, Refusal> {
        let queue = Name::new(new.queue_name());
        let user_id = new.user_id.as_deref().map(Name::new);
        let concurrency_key = new.concurrency_key.as_deref().map(Name::new);
        if let Some(key) = &concurrency_key {
            self.make_way(new.on_conflict.unwrap_or_default(), &queue, key, user_id.as_ref(), cx)?;
        }
        if ties.work.is_none() {
            self.check_quota(user_id.as_ref(), cx.now)?;
        }
        let ties = self.tie(ties, new.on_dependency_failure.unwrap_or_default(), ids)?;
        let waits = ties.as_ref().is_some_and(|ties| self.must_wait(ties, ids));
        let (unique, list) = match kind {
            Some(Kind::Unique(unique)) => (Some(Box::new(unique)), None),
            Some(Kind::Gather(list)) => (None, Some(NewList::of(&new, list))),
            None => (None, None),
        };
        let gathers = list.as_ref().is_some_and(|list| list.gather.open.is_some());
        let max_wait_ms = list.as_ref().filter(|_| gathers).and_then(|list| list.max_wait_ms);
        let delay_ms = new.delay_ms.filter(|_| new.run_at.is_none()).or(max_wait_ms);
        let run_at = new.run_at.or(delay_ms.map(|delay| cx.now.at.plus_millis(delay)));
        let is_early = match delay_ms {
            Some(delay) => delay > 0,
            None => gathers || run_at.is_some_and(|at| at > cx.now.wall),
        };
        let status = match (waits, is_early) {
            (true, _) => Status::Waiting,
            (false, true) => Status::Scheduled,
            (false, false) => Status::Pending,
        };
        let timing = Timing {
            timeout_ms: new.timeout_ms,
            unserved_ms: new.unserved_ms,
            retry: new.retry,
            deadline: By::asked(new.deadline_at, new.deadline_ms, cx.now.at),
            start_by: By::asked(new.start_by_at, new.start_by_ms, cx.now.at),
            silence_ms: new.silence_ms.and_then(NonZeroU64::new),
            cancel_grace_ms: new.cancel_grace_ms,
        };
        let detail = Detail {
            title: new.title.map(Into::into),
            description: new.description.map(Into::into),
            labels: new.labels,
            timing: timing.boxed(),
            concurrency_key,
            parent_id: new.parent_id,
            unique,
            gather: list.as_ref().map(|list| Box::new(list.gather.clone())),
            ties: ties.map(Box::new),
            callbacks: Callbacks::of(&new.callbacks, new.author),
            made_by: made_by.map(Box::new),
        };
        let task = Task {
            task_id,
            task_type: Name::new(&new.task_type),
            queue,
            user_id,
            rev: 0,
            created_at: cx.now.at,
            updated_at: cx.now.at,
            run_at,
            priority: new.priority.unwrap_or_default(),
            status,
            delayed: status == Status::Scheduled && delay_ms.is_some(),
            attempt: 0,
            tries: 0,
            max_attempts: new.max_attempts.unwrap_or(1),
            crashes: 0,
            max_crashes: new.max_crashes.unwrap_or(3),
            detail: (detail != Detail::default()).then(|| Box::new(detail)),
            run: None,
        };
        let payload = list.map(|list| list.payload).or(new.payload);
        let task = self.step(None, Step { payload, ..Step::new(task, Event::Created) }, cx);
        self.hold_within(&task, cx);
        Ok(task)
    }

    /// The ties of a new task; `ids` are those of all that are made with it.
    fn tie(
        &self,
        ties: NewTies,
        on_dependency_failure: OnDependencyFailure,
        ids: &[TaskId],
    ) -> Result<Option<Ties>, Refusal> {
        if ties.depends_on.is_empty() && ties.parent.is_none() && ties.workflow_id.is_none() && ties.work.is_none() {
            return Ok(None);
        }
        let mut depends_on = Vec::with_capacity(ties.depends_on.len());
        for (at, dependency) in ties.depends_on.into_iter().enumerate() {
            depends_on.push(match dependency {
                Dependency::OnNew(place) => ids[place as usize],
                Dependency::On(task_id) => {
                    self.check_dependency(task_id).map_err(|refusal| match refusal {
                        Refusal::Invalid(invalid) => {
                            Refusal::Invalid(Invalid { field: format!("depends_on[{at}]").into(), ..invalid })
                        }
                        refusal => refusal,
                    })?;
                    task_id
                }
            });
        }
        let mut results = PassedOn { names: ties.names, ..PassedOn::default() };
        let workflow = ties.work.map(|NewWork { on_failure, output, sinks }| {
            results.output = output.map(|place| ids[place as usize]);
            results.sinks = sinks.into_iter().map(|(place, name)| (name, ids[place as usize])).collect();
            Workflow { on_failure }
        });
        let links = Links { depends_on, results: results.boxed() };
        Ok(Some(Ties {
            dependencies: links.depends_on.len() as u32,
            links: (links != Links::default()).then(|| Arc::new(links)),
            on_dependency_failure,
            workflow_id: ties.workflow_id.or(ties.parent.map(|place| ids[place as usize])),
            reference: ties.reference,
            weight: ties.weight,
            takes_results: ties.takes_results,
            workflow,
        }))
    }

    /// Whether something that a new task depends on is not final, or ends it.
    fn must_wait(&self, ties: &Ties, ids: &[TaskId]) -> bool {
        let met = |task_id: &TaskId| match self.tasks.get(task_id).map(|task| task.status) {
            Some(Status::Completed) => true,
            Some(Status::Failed | Status::Cancelled) => ties.on_dependency_failure == OnDependencyFailure::Run,
            _ => false,
        };
        let is_shut = |task_id: TaskId| self.tasks.get(&task_id).is_some_and(|task| is_shut(task));
        let mut depends_on = ties.links.iter().flat_map(|links| &links.depends_on);
        ties.workflow_id.is_some_and(is_shut)
            || depends_on.any(|task_id| ids.binary_search(task_id).is_ok() || !met(task_id))
    }

    pub(super) fn retry(&mut self, task_id: TaskId, payload: Option<Json>, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let task = self.tasks.get(&task_id).ok_or(Refusal::TaskNotFound)?;
        match task.status {
            Status::Failed | Status::Cancelled if self.draining => return Err(Refusal::Draining),
            Status::Failed | Status::Cancelled if self.unfinished() >= self.options.tasks_max => {
                return Err(Refusal::Full);
            }
            Status::Failed | Status::Cancelled => {}
            Status::Completed => return Err(Refusal::TaskFinished),
            Status::Running => return Err(Refusal::TaskRunning),
            Status::Waiting | Status::Scheduled | Status::Pending => return Err(Refusal::TaskNotFinished),
        }
        if let Some(dependency) = self.failed_dependency(task) {
            return Err(Refusal::DependencyFailed(dependency));
        }
        self.check_held(task, cx.now)?;
        let task = task.clone();
        self.whole(cx, |engine, cx| {
            if let Some(workflow_id) = task.workflow_id() {
                engine.reopen(workflow_id, cx)?;
            }
            if task.is_workflow() {
                let wrong = || Refusal::Invalid(Invalid::value("payload", "must not stand here: a workflow has none"));
                return if payload.is_some() {
                    Err(wrong())
                } else {
                    engine.retry_workflow(&task, false, cx).map(Answer::Task)
                };
            }
            let mut next = begin_anew(&task, cx.now)?;
            let waits = engine.held_by(&next).next().is_some();
            next.status = if waits { Status::Waiting } else { Status::Pending };
            let note = if payload.is_some() { "retried by hand, with another payload" } else { "retried by hand" };
            let step = Step { payload, ..Step::new(next, Event::Retrying).note(note) };
            Ok(Answer::Task(engine.step(Some(task_id), step, cx)))
        })
    }
}

/// A final task as it is run again: its waits begin anew, and so does all but the attempt and who ended that. Its status is
/// still to be said.
pub(super) fn begin_anew(task: &Task, now: Now) -> Result<Task, Refusal> {
    let mut next = Task::clone(task);
    if let Some(timing) = next.detail.as_mut().and_then(|detail| detail.timing.as_mut()) {
        let start_by = timing.start_by.as_mut().filter(|_| !task.has_started());
        for by in timing.deadline.as_mut().into_iter().chain(start_by) {
            match by.ms {
                Some(ms) => by.at = now.at.plus_millis(ms),
                None if by.at <= now.wall => return Err(Refusal::DeadlineOver),
                None => {}
            }
        }
    }
    next.run_at = None;
    next.tries = 0;
    next.crashes = 0;
    // That a workflow was started is said by nothing else.
    let started_at = task.run().filter(|_| task.is_workflow()).and_then(|run| run.started_at);
    let ended_by_hub = task.run().is_some_and(|run| run.ended_by_hub);
    let run = Run { started_at, ended_by_hub, ..Run::default() };
    next.run = (run != Run::default()).then(|| Box::new(run));
    Ok(next)
}
