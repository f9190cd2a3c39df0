//! What is due when, on either clock.

use std::collections::BTreeSet;

use crate::task::{Name, TaskId, Timestamp};

use super::Now;

/// What happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A worker may have fallen silent, or its grace may be over.
    Worker(Name),
    /// An attempt has taken as long as it may.
    Timeout(TaskId),
}

/// Alarms in order of time.
#[derive(Default)]
pub(super) struct Timers {
    /// Scheduled tasks, by wall time.
    due: BTreeSet<(Timestamp, TaskId)>,
    /// The rest, by monotonic time.
    alarms: BTreeSet<(u64, Alarm)>,
}

impl Timers {
    pub(super) fn schedule(&mut self, at: Timestamp, task_id: TaskId) {
        self.due.insert((at, task_id));
    }

    pub(super) fn unschedule(&mut self, at: Timestamp, task_id: TaskId) {
        self.due.remove(&(at, task_id));
    }

    pub(super) fn set(&mut self, at: u64, alarm: Alarm) {
        self.alarms.insert((at, alarm));
    }

    pub(super) fn clear(&mut self, at: u64, alarm: Alarm) {
        self.alarms.remove(&(at, alarm));
    }

    /// A scheduled task whose time has come; it stays until it is rescheduled.
    pub(super) fn first_due(&self, now: Now) -> Option<TaskId> {
        self.due.first().filter(|(at, _)| *at <= now.wall).map(|(_, task_id)| *task_id)
    }

    /// Takes an alarm that has gone off.
    pub(super) fn pop_alarm(&mut self, now: Now) -> Option<Alarm> {
        self.alarms
            .first()
            .is_some_and(|(at, _)| *at <= now.mono)
            .then(|| self.alarms.pop_first())?
            .map(|(_, alarm)| alarm)
    }

    /// How many milliseconds until something is due; `None` if nothing ever is.
    pub(super) fn next_in(&self, now: Now) -> Option<u64> {
        let due = self.due.first().map(|(at, _)| at.millis_since(now.wall));
        let alarm = self.alarms.first().map(|(at, _)| at.saturating_sub(now.mono));
        due.into_iter().chain(alarm).min()
    }
}
