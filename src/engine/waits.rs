//! Why a task waits, asked for one task at a time.
//!
//! Nothing is kept for it: what a lane, a group and a record say is put into words when somebody asks. The nearest reason
//! comes first: what must happen before anything else does.

use std::collections::BTreeSet;

use crate::task::{AHEAD_MAX, Status, Task, TaskId, WaitsFor};

use super::core::Engine;
use super::groups::WorkerGroups;
use super::lanes::{Lanes, Rank};
use super::{Link, Now};

impl Engine {
    pub(super) fn waits_for(&self, task_id: TaskId, now: Now) -> Vec<WaitsFor> {
        let Some(task) = self.tasks.get(&task_id) else { return Vec::new() };
        let time = match task.status {
            Status::Scheduled => Some(WaitsFor::Time { until: self.ready_at(task, now) }),
            Status::Pending => None,
            _ => return Vec::new(),
        };
        let then = match self.is_taken(task) {
            false => Some(WaitsFor::NoWorker),
            true if task.status == Status::Pending => {
                Some(WaitsFor::Turn { ahead: self.lanes.ahead(task, &self.groups) })
            }
            true => None,
        };
        time.into_iter().chain(then).collect()
    }

    /// Whether a worker is connected or claims that takes this task, busy or not.
    fn is_taken(&self, task: &Task) -> bool {
        let (queue, task_type) = (task.queue.as_str(), task.task_type.as_str());
        // Groups are few and workers many: look at these only where there may be one.
        self.groups.has_member_for(queue, task_type)
            && (self.claims.values().any(|claim| self.groups.takes(claim.group, queue, task_type))
                || self
                    .workers
                    .values()
                    .any(|worker| worker.link != Link::Away && worker.accepts.takes(queue, task_type)))
    }
}

impl Lanes {
    /// How many ready tasks come before this one for the workers that take it, at most [`AHEAD_MAX`].
    fn ahead(&self, task: &Task, groups: &WorkerGroups) -> usize {
        let Some(own) = self.lane_of(task) else { return 0 };
        let taking: BTreeSet<_> = own.groups().iter().copied().filter(|id| groups.has_members(*id)).collect();
        let rank = Rank::of(task);
        let mut ahead = 0;
        for lane in self.iter().filter(|lane| lane.groups().iter().any(|id| taking.contains(id))) {
            ahead += lane.before(rank).take(AHEAD_MAX - ahead).count();
        }
        ahead
    }
}
