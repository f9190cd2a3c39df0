//! Ready tasks that do not wait for ever for somebody who takes them.
//!
//! Most work can wait: workers come and go, and a queue that nobody serves tonight is served tomorrow. Some work has one
//! process that can do it (`taskhub run`), and when that is gone, nobody ever will. Such a task carries `unserved_ms`:
//! while it is ready, it is looked now and then whether a worker is there, or a claim open, that takes its queue and type,
//! and when there was none for so long, it fails as `lost`. A worker that is away in its grace counts as there; how busy
//! it is does not matter.
//!
//! The time is lived time, and begins anew with each hub. After a revert it goes on as it was
//! ([`private`](super::private)).

use crate::task::{Failure, Task, TaskId};

use super::core::Engine;
use super::timers::{Alarm, At};
use super::{Cx, Now};

/// Looks in the time that a task may be unserved.
const LOOKS: u64 = 4;

impl Engine {
    /// A task is ready, and should be served.
    pub(super) fn expect_service(&mut self, task: &Task, served_at: Option<u64>, now: Now) {
        if let Some(unserved_ms) = task.unserved_ms() {
            self.look_again(task.task_id, unserved_ms, served_at.unwrap_or(now.lived), now);
        }
    }

    /// It is not ready any more. Answers when it was last served.
    pub(super) fn end_service(&mut self, task: &Task) -> Option<u64> {
        task.unserved_ms()?;
        self.timers.clear(&Alarm::Unserved(task.task_id));
        self.served_at.remove(&task.task_id)
    }

    fn look_again(&mut self, task_id: TaskId, unserved_ms: u64, served_at: u64, now: Now) {
        let look_at = (served_at + unserved_ms).min(now.lived + (unserved_ms / LOOKS).max(1));
        self.served_at.insert(task_id, served_at);
        self.timers.set(Alarm::Unserved(task_id), At::Lived(look_at));
    }

    pub(super) fn check_served(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let Some(task) = self.tasks.get(&task_id).cloned() else { return };
        let Some(mut served_at) = self.served_at.get(&task_id).copied() else { return };
        let Some(unserved_ms) = task.unserved_ms() else { return };
        if self.groups.has_member_for(task.queue.as_str(), task.task_type.as_str()) {
            served_at = cx.now.lived;
        }
        if cx.now.lived < served_at + unserved_ms {
            return self.look_again(task_id, unserved_ms, served_at, cx.now);
        }
        let error = Failure::new("lost", format!("no worker was there that takes it for {unserved_ms} ms"));
        self.end_for_good(Task::clone(&task), error, "no worker takes it", cx);
    }
}
