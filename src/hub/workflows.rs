//! Workflows, for everyone but the writer.

use std::collections::HashSet;

use bytes::Bytes;

use crate::engine::{Answer, Command, Refusal, SubmitKey};
use crate::store::{Order, Query};
use crate::task::{Filter, Links, NewTask, NewWorkflow, Spawner, Submission, Task, TaskId};

use super::inbox::Bound;
use super::{Hub, HubError, Submitted};

/// Tasks read, or deleted, in one step.
const STEP: usize = 1_000;

/// A workflow with all of its tasks.
#[derive(Clone, Debug, Default)]
pub struct WholeWorkflow {
    /// Its own record as JSON.
    pub record: Bytes,
    /// Those of its tasks, oldest first.
    pub tasks: Vec<Bytes>,
    /// Which of these depend on which: the dependency first.
    pub edges: Vec<(TaskId, TaskId)>,
}

fn is_workflow(record: &[u8]) -> bool {
    Task::parse(record).is_ok_and(|task| task.is_workflow())
}

impl Hub {
    /// Takes a workflow and all of its tasks, or nothing. The answer's first task is the workflow. When this returns they are
    /// on disk.
    pub async fn submit_workflow(&self, workflow: NewWorkflow, key: Option<SubmitKey>) -> Result<Submitted, HubError> {
        let checked = Submission::check_workflow(workflow, self.options().engine.payload_bytes_max);
        self.submit_checked(checked, key).await
    }

    /// Takes tasks that a running attempt adds, all or none.
    pub async fn spawn(
        &self,
        spawner: Spawner,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
    ) -> Result<Submitted, HubError> {
        let checked = Submission::check_spawned(spawner, tasks, self.options().engine.payload_bytes_max);
        self.submit_checked(checked, key).await
    }

    /// A workflow with its tasks. `None`: there is no such task, or it is none.
    pub async fn workflow(&self, task_id: TaskId) -> Result<Option<WholeWorkflow>, HubError> {
        let Some(stored) = self.task(task_id).await? else { return Ok(None) };
        if !is_workflow(&stored.record) {
            return Ok(None);
        }
        let mut whole = WholeWorkflow { record: stored.record, ..WholeWorkflow::default() };
        let filter = Filter { workflow_id: Some([task_id].into()), ..Filter::default() };
        let mut query = Query::all(filter, Order::OldestFirst, STEP);
        loop {
            let page = self.find(query.clone()).await?;
            let task_ids: Vec<TaskId> = page.tasks.iter().map(|(task_id, _)| *task_id).collect();
            query.beyond = task_ids.last().copied().or(query.beyond);
            let links = self.shared().read(move |reader| Ok((reader.links(&task_ids)?, task_ids)));
            let (links, task_ids) = links.await?;
            for (links, to) in links.into_iter().zip(task_ids) {
                let links = links.and_then(|links| Links::parse(&links).ok()).unwrap_or_default();
                whole.edges.extend(links.depends_on.into_iter().map(|from| (from, to)));
            }
            whole.tasks.extend(page.tasks.iter().map(|(_, record)| record.clone()));
            if !page.more {
                return Ok(Some(whole));
            }
        }
    }

    pub(super) async fn is_workflow(&self, task_id: TaskId) -> Result<bool, HubError> {
        if let Some(task) = self.shown(task_id) {
            return Ok(task.is_workflow());
        }
        let records = self.shared().read(move |reader| reader.records(&[task_id])).await?;
        Ok(records.into_iter().flatten().next().is_some_and(|record| is_workflow(&record)))
    }

    /// Deletes the tasks of a final workflow, and those of the workflows within it: a workflow is deleted last, so that none
    /// of its tasks is left alone.
    pub(super) async fn delete_parts(&self, workflow_id: TaskId) -> Result<(), HubError> {
        loop {
            let task_ids = self.innermost(vec![workflow_id], STEP).await?;
            if task_ids == [workflow_id] {
                return Ok(());
            }
            let asked = task_ids.len();
            let Answer::Count(gone) = self.ask(Command::Expire { task_ids }, Bound::Held).await? else {
                unreachable!("the tasks that are gone are counted");
            };
            if gone == 0 && asked > 0 {
                // They run again, or what follows from their end is not done yet.
                return Err(HubError::Refused(Refusal::TaskNotFinished));
            }
        }
    }

    /// Of these tasks and all that are within them as workflows, some that have none within: up to `limit`.
    pub(super) async fn innermost(&self, task_ids: Vec<TaskId>, limit: usize) -> Result<Vec<TaskId>, HubError> {
        self.shared()
            .read(move |reader| {
                let (mut level, mut bare) = (task_ids, Vec::new());
                while !level.is_empty() && bare.len() < limit {
                    let parts = reader.parts_of(&level, limit)?;
                    if parts.len() < limit {
                        // All are there; else the rest of the level is looked at the next time.
                        let has_parts: HashSet<TaskId> = parts.iter().map(|(within, _)| *within).collect();
                        bare.extend(level.into_iter().filter(|task_id| !has_parts.contains(task_id)));
                    }
                    level = parts.into_iter().map(|(_, task_id)| task_id).collect();
                }
                bare.truncate(limit);
                Ok(bare)
            })
            .await
    }
}
