//! One call for many tasks.
//!
//! Each is decided for itself, so what was meant and has gone on in the meantime is told by its own refusal, and is not
//! changed. A call changes so many at most; whoever made it is told whether there are more, and calls again: so it can be
//! stopped, and no work is left behind that nobody waits for.

use crate::engine::{Command, Refusal};
use crate::store::{Order, Query};
use crate::task::{Filter, Status, TaskId};
use crate::wire::BulkChanged;

use super::inbox::Bound;
use super::{Hub, HubError};

/// The most tasks that one call looks at.
pub const BULK_MAX: usize = 10_000;
/// Tasks read at once.
const STEP: usize = 500;
/// Decisions asked for at once.
const AT_ONCE: usize = 64;

/// What is to be done to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkAction {
    Cancel,
    /// The same, where it does not run.
    Purge,
    Retry,
    Delete,
}

impl BulkAction {
    /// The statuses of tasks that it can be done to.
    fn statuses(self) -> &'static [Status] {
        match self {
            BulkAction::Cancel => &[Status::Waiting, Status::Scheduled, Status::Pending, Status::Running],
            BulkAction::Purge => &[Status::Waiting, Status::Scheduled, Status::Pending],
            BulkAction::Retry => &[Status::Failed, Status::Cancelled],
            BulkAction::Delete => &[Status::Completed, Status::Failed, Status::Cancelled],
        }
    }
}

impl Hub {
    /// Does this to every task that the filter means, to so many of them at most.
    pub async fn bulk(
        &self,
        action: BulkAction,
        mut filter: Filter,
        reason: Option<String>,
        dry_run: bool,
        tasks_max: usize,
    ) -> Result<BulkChanged, HubError> {
        let asked = filter.status.take();
        let can = action.statuses().iter().copied();
        filter.status = Some(can.filter(|status| asked.as_ref().is_none_or(|asked| asked.contains(status))).collect());
        let mut changed = BulkChanged::default();
        if filter.status.as_ref().is_some_and(|statuses| statuses.is_empty()) {
            return Ok(changed);
        }
        // What is made meanwhile is not met.
        let mut query = Query::all(filter, Order::NewestFirst, STEP);
        loop {
            query.limit = STEP.min(tasks_max - changed.matched as usize);
            let page = self.find(query.clone()).await?;
            changed.matched += page.tasks.len() as u64;
            query.beyond = page.tasks.last().map(|(task_id, _)| *task_id).or(query.beyond);
            if dry_run {
                changed.changed = changed.matched;
            } else {
                let task_ids: Vec<TaskId> = page.tasks.iter().map(|(task_id, _)| *task_id).collect();
                for task_ids in task_ids.chunks(AT_ONCE) {
                    let each = task_ids.iter().map(|task_id| self.one(action, *task_id, reason.clone()));
                    for done in futures::future::join_all(each).await {
                        changed.changed += u64::from(done?);
                    }
                }
            }
            changed.more = page.more;
            if !page.more || changed.matched as usize >= tasks_max {
                return Ok(changed);
            }
        }
    }

    /// Answers whether it was done.
    pub(super) async fn one(
        &self,
        action: BulkAction,
        task_id: TaskId,
        reason: Option<String>,
    ) -> Result<bool, HubError> {
        let done = match action {
            BulkAction::Cancel => self.cancel_task(task_id, reason).await.map(|_| ()),
            BulkAction::Purge => {
                let command = Command::CancelWaiting { task_id, reason: reason.unwrap_or_default() };
                self.ask(command, Bound::Held).await.map(|_| ())
            }
            BulkAction::Retry => self.retry_task(task_id, None).await.map(|_| ()),
            BulkAction::Delete => self.delete_task(task_id).await,
        };
        match done {
            Ok(()) => Ok(true),
            // The hub itself cannot: no task is to blame.
            Err(HubError::Refused(refusal @ (Refusal::Draining | Refusal::Full))) => Err(HubError::Refused(refusal)),
            Err(HubError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
