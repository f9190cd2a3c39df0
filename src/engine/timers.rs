//! What is due when, each on the clock it belongs to: see [`Clock`](super::Clock).
//!
//! A task is scheduled for a moment, or for the end of a wait. A wait is counted, so when it ends cannot be told from the
//! record, which knows times that people see; it is kept here beside the task, with the `rev` it belongs to, so that a
//! revert finds it again.

use std::collections::{BTreeSet, HashMap};

use crate::task::{IdHasher, Name, Task, TaskId, Timestamp};

use super::Now;

/// What happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A worker may have fallen silent, or its grace may be over.
    Worker(Name),
    /// An attempt has taken as long as it may.
    Timeout(TaskId),
    /// A ready task has waited so long that there should be somebody for it.
    Unserved(TaskId),
}

/// Alarms in order of time.
#[derive(Default)]
pub(super) struct Timers {
    /// Tasks that are scheduled for a moment, by wall time.
    due: BTreeSet<(Timestamp, TaskId)>,
    /// Tasks that wait for so long, by the monotonic count.
    waits: BTreeSet<(u64, TaskId)>,
    /// The `rev` of each of them and when its wait ends; until the batch is over, also of those that wait no more.
    wait_ends: HashMap<TaskId, (u64, u64), IdHasher>,
    /// Those that wait no more.
    waited: Vec<TaskId>,
    /// The rest, by time that the hub lived through.
    alarms: BTreeSet<(u64, Alarm)>,
}

impl Timers {
    pub(super) fn schedule(&mut self, task: &Task, now: Now) {
        let at = task.run_at.unwrap_or_default();
        if !task.delayed {
            self.due.insert((at, task.task_id));
            return;
        }
        // After a restart the record is all there is. Its times never go back, so what is left is no more than the wait.
        let ends = now.mono + at.millis_since(now.at);
        let known = self.wait_ends.get(&task.task_id).filter(|(rev, _)| *rev == task.rev);
        let ends = known.map_or(ends, |(_, ends)| *ends);
        self.wait_ends.insert(task.task_id, (task.rev, ends));
        self.waits.insert((ends, task.task_id));
    }

    pub(super) fn unschedule(&mut self, task: &Task) {
        if !task.delayed {
            self.due.remove(&(task.run_at.unwrap_or_default(), task.task_id));
        } else if let Some((_, ends)) = self.wait_ends.get(&task.task_id) {
            self.waits.remove(&(*ends, task.task_id));
            self.waited.push(task.task_id);
        }
    }

    /// The batch is over: nothing of it can come back.
    pub(super) fn shed(&mut self) {
        for task_id in self.waited.drain(..) {
            if self.wait_ends.get(&task_id).is_some_and(|(_, ends)| !self.waits.contains(&(*ends, task_id))) {
                self.wait_ends.remove(&task_id);
            }
        }
    }

    pub(super) fn set(&mut self, at: u64, alarm: Alarm) {
        self.alarms.insert((at, alarm));
    }

    pub(super) fn clear(&mut self, at: u64, alarm: Alarm) {
        self.alarms.remove(&(at, alarm));
    }

    /// A scheduled task whose time has come; it stays until it is rescheduled.
    pub(super) fn first_due(&self, now: Now) -> Option<TaskId> {
        let due = self.due.first().filter(|(at, _)| *at <= now.wall).map(|(_, task_id)| *task_id);
        due.or_else(|| self.waits.first().filter(|(at, _)| *at <= now.mono).map(|(_, task_id)| *task_id))
    }

    /// Takes an alarm that has gone off.
    pub(super) fn pop_alarm(&mut self, now: Now) -> Option<Alarm> {
        self.alarms
            .first()
            .is_some_and(|(at, _)| *at <= now.lived)
            .then(|| self.alarms.pop_first())?
            .map(|(_, alarm)| alarm)
    }

    /// How many milliseconds until something is due; `None` if nothing ever is.
    pub(super) fn next_in(&self, now: Now) -> Option<u64> {
        let due = self.due.first().map(|(at, _)| at.millis_since(now.wall));
        let wait = self.waits.first().map(|(at, _)| at.saturating_sub(now.mono));
        let alarm = self.alarms.first().map(|(at, _)| at.saturating_sub(now.lived));
        due.into_iter().chain(wait).chain(alarm).min()
    }
}
