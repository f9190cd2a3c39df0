//! Times by which something must have happened: `deadline`, `start_by`, and `silence_ms`.
//!
//! A deadline and a `start_by` are moments, or waits from the submission on; they hold whatever becomes of the task, so
//! their alarms stay set from one record to the next. What is due ends the task at once: an attempt that runs is fenced,
//! its worker is told to stop, and its slot stays taken until it has let go.
//!
//! Silence is judged like a lease, by the time that the hub lived through, but by what the attempt *reports*: progress,
//! checkpoints and log lines. Heartbeats say that a worker is alive, and not that the work goes on. What is reported goes
//! past the engine, so its alarm asks [`Ticks`](super::Ticks) when that was, and is set again where it was lately.

use crate::task::{By, Failure, Status, Task, TaskId};

use super::core::Engine;
use super::private::Private;
use super::timers::{Alarm, At};
use super::{Cx, Now};

impl Engine {
    /// A record stands in the engine that is not final.
    pub(super) fn set_deadlines(&mut self, task: &Task, private: &Private, now: Now) {
        let at = |by: By, ends: Option<u64>| match by.ms {
            Some(_) => At::Mono(ends.unwrap_or_else(|| now.mono + by.at.millis_since(now.at))),
            None => At::Wall(by.at),
        };
        if let Some(deadline) = task.deadline() {
            self.timers.set(Alarm::Deadline(task.task_id), at(deadline, private.deadline_ends));
        }
        if let Some(start_by) = task.start_by() {
            self.timers.set(Alarm::StartBy(task.task_id), at(start_by, private.start_by_ends));
        }
    }

    /// It leaves the engine.
    pub(super) fn clear_deadlines(&mut self, task: &Task, private: &mut Private) {
        let mut clear = |alarm: Alarm| self.timers.clear(&alarm).and_then(At::wait_ends);
        if task.deadline().is_some() {
            private.deadline_ends = clear(Alarm::Deadline(task.task_id));
        }
        if task.start_by().is_some() {
            private.start_by_ends = clear(Alarm::StartBy(task.task_id));
        }
    }

    pub(super) fn deadline_over(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let task = Task::clone(&self.tasks[&task_id]);
        if task.status == Status::Running {
            self.fence(&task, "deadline", cx);
        }
        let by = task.deadline().map(|by| by.at).unwrap_or_default();
        let error = Failure::new("deadline", format!("was not done by {by}"));
        self.end_for_good(task, error, "the deadline is over", cx);
    }

    pub(super) fn never_started(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let task = Task::clone(&self.tasks[&task_id]);
        let by = task.start_by().map(|by| by.at).unwrap_or_default();
        let error = Failure::new("expired", format!("was not started by {by}"));
        self.end_for_good(task, error, "it was not started in time", cx);
    }

    pub(super) fn check_silence(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.tasks.get(&task_id).filter(|task| task.status == Status::Running).cloned() else {
            return;
        };
        let Some(silence_ms) = task.silence_ms() else { return };
        let Some(lease) = self.lease_of(&task) else { return };
        if let Some(spoke) = cx.ticks.spoke(task_id, task.attempt) {
            lease.spoke = lease.spoke.max(spoke);
        }
        let ends_at = lease.spoke + silence_ms;
        if ends_at > cx.now.lived {
            return self.timers.set(Alarm::Silence(task_id), At::Lived(ends_at));
        }
        self.fence(&task, "silent", cx);
        let error = Failure::new("silent", format!("reported nothing for {silence_ms} ms"));
        self.fail_by_hub(Task::clone(&task), error, "silent", cx);
    }
}
