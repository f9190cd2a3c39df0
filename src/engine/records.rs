//! Records come and go: a step, its indexes, and the way back.
//!
//! Every index (lanes, leases, timers, dependencies, the counts of workflows) is a function of the records. One is changed by
//! taking the old record out of all of them and putting the new one in, and a change that could not be made durable is taken
//! back the same way, the newest first. What an index knows beside the record goes along as [`Private`].

use std::sync::Arc;

use crate::settings::SettingChange;
use crate::task::{Change, ChangeKind, Status, Task, TaskId, Timestamp};

use super::consequences::Consequence;
use super::core::{Engine, Step};
use super::gather::close_unless_scheduled;
use super::private::Private;
use super::timers::{Alarm, At};
use super::workflows::is_shut;
use super::{Batch, Cx, Now};

impl Engine {
    /// Makes a step: the next `rev`, the indexes, the change. The one place where a task gets a new record.
    pub(super) fn step(&mut self, prev: Option<TaskId>, step: Step, cx: &mut Cx<'_>) -> Arc<Task> {
        let Step { mut task, event, note, payload, result } = step;
        let prev = prev.map(|id| self.tasks[&id].clone());
        debug_assert!(
            prev.as_ref().is_none_or(|prev| prev.status.may_become(task.status)),
            "{:?} may not become {:?}",
            prev.map(|prev| prev.status),
            task.status
        );
        close_unless_scheduled(&mut task);
        self.rev += 1;
        task.rev = self.rev;
        task.updated_at = prev.as_ref().map_or(cx.now.at, |prev| prev.updated_at.max(cx.now.at));
        let task = Arc::new(task);
        self.replace(prev.as_ref(), Some(&task), cx.now);
        cx.batch.changes.push(Change {
            rev: self.rev,
            at: task.updated_at,
            kind: ChangeKind::Transition(event),
            prev,
            task: task.clone(),
            note,
            payload,
            result,
        });
        let before = cx.batch.changes.last().and_then(|change| change.prev.clone());
        self.tell_others(before.as_deref(), &task);
        task
    }

    /// What follows from a step for other tasks is looked at later.
    fn tell_others(&mut self, before: Option<&Task>, task: &Task) {
        let was = before.map(|before| before.status);
        if task.status == Status::Waiting && was != Some(Status::Waiting) {
            self.consequences.push(self.rev, Consequence::Waits(task.task_id));
        }
        let ended = task.status.is_final() && was.is_some_and(|was| !was.is_final());
        if ended || before.is_some_and(is_shut) && !is_shut(task) {
            self.tell_dependents(task);
        }
        if task.ties().is_some() {
            self.tell_workflow(before, task);
        }
    }

    /// Takes back everything a batch changed, because it could not be made durable. Claims that it answered stay
    /// answered: whoever waits for them is told.
    pub fn revert(&mut self, batch: Batch, now: Now) {
        self.take_back_hand_outs(&batch.hand_outs);
        self.take_back(&mut { batch.changes }, &mut { batch.settings }, (0, 0), now);
        self.quotas.take_back(0);
        for key in &batch.keys {
            self.keys.forget(key.key);
        }
    }

    /// Takes back what follows the first so many changes of tasks and of settings, the newest first.
    pub(super) fn take_back(
        &mut self,
        changes: &mut Vec<Change>,
        settings: &mut Vec<SettingChange>,
        (keep_changes, keep_settings): (usize, usize),
        now: Now,
    ) {
        loop {
            let change = changes.get(keep_changes..).and_then(|rest| rest.last()).map(|change| change.rev);
            let setting = settings.get(keep_settings..).and_then(|rest| rest.last()).map(|change| change.rev);
            let Some(rev) = change.max(setting) else { break };
            if change == Some(rev)
                && let Some(change) = changes.pop()
            {
                let next = (change.kind != ChangeKind::Gone).then_some(&change.task);
                self.replace(next, change.prev.as_ref(), now);
                // Its number is given again.
                self.journal.take(rev);
            } else if let Some(SettingChange { id, prev, .. }) = settings.pop() {
                self.put_setting(id, prev, now);
                self.restore_windows(rev);
            }
            self.rev = rev - 1;
        }
        self.consequences.take_back(self.rev);
    }

    /// Puts one record in the place of another, in the map and in every index.
    pub(super) fn replace(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>, now: Now) {
        let before = old.map(|old| self.unindex(old)).unwrap_or_default();
        let holds = |task: Option<&Arc<Task>>| task.is_some_and(|task| !task.status.is_final());
        let shut = |task: Option<&Arc<Task>>| task.is_some_and(|task| is_shut(task));
        if let Some(new) = new {
            let mut private = self.journal.take(new.rev).unwrap_or_default();
            if let Some(old) = old {
                private.carry_over(&before, old, new);
            }
            self.tasks.insert(new.task_id, new.clone());
            self.index(new, private, now);
        } else if let Some(old) = old {
            self.tasks.remove(&old.task_id);
        }
        if let Some(task) = new.or(old)
            && (holds(old) != holds(new) || shut(old) != shut(new))
        {
            let Engine { dependencies, tasks, .. } = self;
            dependencies.changed(task.task_id, |dependent| {
                let is_part = tasks.get(&dependent).is_some_and(|it| it.workflow_id() == Some(task.task_id));
                let (was, is) = if is_part { (shut(old), shut(new)) } else { (holds(old), holds(new)) };
                (was != is).then_some(is)
            });
        }
        // The counts of one that is deleted are needed again if that is taken back.
        if let Some(old) = old.filter(|old| new.is_none() && old.is_workflow() && !old.status.is_final()) {
            self.parts.remove(&old.task_id);
        }
        if let Some(old) = old {
            self.journal.keep(old.rev, before);
        }
    }

    fn index(&mut self, task: &Arc<Task>, private: Private, now: Now) {
        if let Some(parts) = task.workflow_id().and_then(|workflow_id| self.parts.get_mut(&workflow_id)) {
            parts.insert(task);
        }
        if task.status.is_final() {
            return self.finals.push_back(task.task_id);
        }
        self.unfinished += 1;
        if task.is_workflow() {
            self.parts.entry(task.task_id).or_default();
        } else {
            self.keyed.insert(task);
            self.holders.insert(task);
            self.quotas.insert(task);
            self.scheduled.insert(task);
        }
        self.set_deadlines(task, &private, now);
        match task.status {
            Status::Pending | Status::Running if task.is_workflow() => {}
            Status::Pending => {
                self.lanes.insert(task, private.turn, &mut self.groups);
                self.expect_service(task, private.served_at, now);
            }
            Status::Scheduled => self.schedule(task, private.wait_ends, now),
            Status::Running => {
                self.lanes.begin(task, &mut self.groups);
                self.lease(task, private.lease, now);
            }
            Status::Waiting => {
                let tasks = &self.tasks;
                self.dependencies.insert(task, |id| tasks.get(&id).is_some_and(|other| other.holds(task)));
            }
            Status::Completed | Status::Failed | Status::Cancelled => unreachable!("it is not final"),
        }
    }

    fn unindex(&mut self, task: &Arc<Task>) -> Private {
        let mut private = Private::default();
        if let Some(parts) = task.workflow_id().and_then(|workflow_id| self.parts.get_mut(&workflow_id)) {
            parts.remove(task);
        }
        if task.status.is_final() {
            return private;
        }
        self.unfinished -= 1;
        if !task.is_workflow() {
            self.keyed.remove(task);
            self.holders.remove(task);
            self.quotas.remove(task);
            self.scheduled.remove(task);
        }
        self.clear_deadlines(task, &mut private);
        match task.status {
            Status::Pending | Status::Running if task.is_workflow() => {}
            Status::Pending => {
                private.turn = self.lanes.remove(task, &mut self.groups);
                private.served_at = self.end_service(task);
            }
            Status::Scheduled => private.wait_ends = self.unschedule(task),
            Status::Running => {
                private.lease = self.unlease(task);
                self.lanes.end(task, &mut self.groups);
            }
            Status::Waiting => self.dependencies.remove(task),
            Status::Completed | Status::Failed | Status::Cancelled => {}
        }
        private
    }

    /// A task waits for a moment, or for the end of a wait. After a restart the record is all that is known of a wait; its
    /// times never go back, so what is left is no more than the wait.
    fn schedule(&mut self, task: &Task, wait_ends: Option<u64>, now: Now) {
        // What gathers until it has enough waits for no time.
        let Some(run_at) = task.run_at else { return };
        let at = match task.delayed {
            true => At::Mono(wait_ends.unwrap_or_else(|| now.mono + run_at.millis_since(now.at))),
            false => At::Wall(run_at),
        };
        self.timers.set(Alarm::Due(task.task_id), at);
    }

    /// When a scheduled task becomes ready, as the wall clock will show it if nobody sets it.
    pub(super) fn ready_at(&self, task: &Task, now: Now) -> Timestamp {
        match self.timers.at(&Alarm::Due(task.task_id)) {
            Some(At::Wall(at)) => at,
            Some(At::Mono(at)) => now.wall.plus_millis(at.saturating_sub(now.mono)),
            Some(At::Lived(_)) | None => now.wall,
        }
    }

    fn unschedule(&mut self, task: &Task) -> Option<u64> {
        self.timers.clear(&Alarm::Due(task.task_id)).and_then(At::wait_ends)
    }
}
