//! Steering tasks that the caller sees. What comes back is the record, without what is hidden from the caller.

use bytes::Bytes;

use crate::task::{Filter, Json, Status, Task, TaskId, TaskPatch};
use crate::wire::BulkChanged;

use super::super::{BulkAction, HubError};
use super::CallerHub;

impl CallerHub {
    /// Cancels a task, or asks the worker that runs it to stop: the status tells which.
    pub async fn cancel(&self, task_id: TaskId, reason: Option<String>) -> Result<(Status, Bytes), HubError> {
        self.in_sight(task_id).await?;
        let task = self.hub.cancel_task(task_id, reason).await?;
        Ok((task.status, self.shown_task(&task)))
    }

    /// Runs a failed or cancelled task again; with another payload, where there is one.
    pub async fn retry(&self, task_id: TaskId, payload: Option<Json>) -> Result<Bytes, HubError> {
        self.in_sight(task_id).await?;
        Ok(self.shown_task(&*self.hub.retry_task(task_id, payload).await?))
    }

    /// Changes a task that waits.
    pub async fn update(&self, task_id: TaskId, patch: TaskPatch) -> Result<Bytes, HubError> {
        self.in_sight(task_id).await?;
        Ok(self.shown_task(&*self.hub.update_task(task_id, patch).await?))
    }

    fn shown_task(&self, task: &Task) -> Bytes {
        self.shown_record(task.to_json().into())
    }

    /// Deletes a final task; of a workflow, all of its tasks before it.
    pub async fn delete(&self, task_id: TaskId) -> Result<(), HubError> {
        self.in_sight(task_id).await?;
        self.hub.delete_task(task_id).await
    }

    /// Does this to every task that the filter means and the caller sees, to so many of them at most.
    pub async fn bulk(
        &self,
        action: BulkAction,
        filter: Filter,
        reason: Option<String>,
        dry_run: bool,
        tasks_max: usize,
    ) -> Result<BulkChanged, HubError> {
        let filter = self.scoped(filter);
        if filter.is_nothing() {
            return Ok(BulkChanged::default());
        }
        self.hub.bulk(action, filter, reason, dry_run, tasks_max).await
    }
}
