//! What people set, and what follows from it for the tasks that are there.

use std::sync::Arc;

use crate::settings::{
    LIMITS_NAME, Limits, QueueSettings, Rate, RateBy, SCHEDULES_MAX, SET_QUEUES_MAX, Setting, SettingChange, SettingId,
    SettingKind, SettingValue, TASK_TYPES_MAX,
};
use crate::task::{Invalid, Name, Status, Task};

use super::core::Engine;
use super::{Answer, Cx, Now, Refusal};

impl Engine {
    pub(super) fn set_queue(
        &mut self,
        name: Name,
        mut settings: QueueSettings,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        settings.paused = self.lanes.settings_of(&name).paused;
        self.set((SettingKind::Queue, name), SettingValue::Queue(settings), cx)
    }

    pub(super) fn unset_queue(&mut self, name: Name, cx: &mut Cx<'_>) {
        let id = (SettingKind::Queue, name);
        if self.settings.contains_key(&id) {
            self.change_setting(id, None, cx);
        }
    }

    pub(super) fn pause_queue(&mut self, name: Name, paused: bool, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let settings = QueueSettings { paused, ..QueueSettings::clone(&self.lanes.settings_of(&name)) };
        self.set((SettingKind::Queue, name), SettingValue::Queue(settings), cx)
    }

    pub(super) fn set_limits(&mut self, limits: Limits, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        self.set((SettingKind::Limits, Name::new(LIMITS_NAME)), SettingValue::Limits(limits), cx)
    }

    /// Where nothing would be different, nothing changes.
    pub(super) fn set(&mut self, id: SettingId, value: SettingValue, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let known = self.settings.get(&id).cloned();
        if let Some(setting) = known.clone().filter(|setting| setting.value == value) {
            return Ok(Answer::Set { setting, is_new: false });
        }
        let most = match id.0 {
            SettingKind::Queue => Some(("queues", SET_QUEUES_MAX)),
            SettingKind::Schedule => Some(("schedules", SCHEDULES_MAX)),
            SettingKind::TaskType => Some(("task_types", TASK_TYPES_MAX)),
            SettingKind::Limits => None,
        };
        if let Some((field, most)) = most
            && known.is_none()
            && self.set_of(id.0) >= most
        {
            return Err(Refusal::Invalid(Invalid::limit(field, most as u64, "that are set")));
        }
        let setting = Setting { name: id.1.clone(), rev: self.rev + 1, updated_at: cx.now.at, value };
        let setting = Arc::new(setting);
        self.change_setting(id, Some(setting.clone()), cx);
        Ok(Answer::Set { setting, is_new: known.is_none() })
    }

    /// How many of a kind are set.
    fn set_of(&self, kind: SettingKind) -> usize {
        self.set_counts.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn change_setting(&mut self, id: SettingId, next: Option<Arc<Setting>>, cx: &mut Cx<'_>) {
        self.rev += 1;
        if id.0 == SettingKind::Queue {
            self.save_windows(self.rev, &id.1);
        }
        let prev = self.put_setting(id.clone(), next.clone(), cx.now);
        cx.batch.settings.push(SettingChange { rev: self.rev, at: cx.now.at, id, prev, next });
    }

    /// Puts a setting in the place of another. Answers what stood there.
    pub(super) fn put_setting(&mut self, id: SettingId, next: Option<Arc<Setting>>, now: Now) -> Option<Arc<Setting>> {
        let prev = match next.clone() {
            Some(next) => self.settings.insert(id.clone(), next),
            None => self.settings.remove(&id),
        };
        *self.set_counts.entry(id.0).or_default() += usize::from(next.is_some());
        *self.set_counts.entry(id.0).or_default() -= usize::from(prev.is_some());
        match id.0 {
            SettingKind::Schedule => {
                self.await_due(&id.1, next.as_deref());
                return prev;
            }
            SettingKind::TaskType => {
                self.types.put(&id.1, next.as_ref());
                return prev;
            }
            SettingKind::Queue | SettingKind::Limits => {}
        }
        let value = next.map(|next| next.value.clone());
        match (id.0, value) {
            (SettingKind::Queue, value) => {
                let name = id.1;
                let settings = match value {
                    Some(SettingValue::Queue(settings)) => Some(Arc::new(settings)),
                    _ => None,
                };
                let (old, new) = (self.lanes.settings_of(&name), settings.clone().unwrap_or_default());
                // Whether a queue is open is looked at again with each task, and what is kept of it elsewhere; all else is where its
                // tasks stand.
                let (concurrency, paused) = (old.concurrency, old.paused);
                let is_whole = |rate: Option<Rate>| rate.is_none_or(|rate| rate.by == RateBy::Queue);
                let rate = if is_whole(old.rate) && is_whole(new.rate) { old.rate } else { new.rate };
                let QueueSettings { retain_ms, retain_count, retain_bytes, .. } = *old;
                let alike = QueueSettings {
                    concurrency,
                    paused,
                    rate,
                    retain_ms,
                    retain_count,
                    retain_bytes,
                    ..(*new).clone()
                };
                let only_opens = *old == alike;
                match only_opens {
                    true => {
                        self.lanes.set_queue(&name, settings, &mut self.groups);
                        self.rate_changed(&name, old.rate, new.rate, now);
                    }
                    false => {
                        self.stand_anew(Some(&name.clone()), |engine| {
                            engine.lanes.set_queue(&name, settings, &mut engine.groups);
                            engine.rate_changed(&name, old.rate, new.rate, now);
                        });
                    }
                }
            }
            (SettingKind::Limits, value) => {
                let limits = match value {
                    Some(SettingValue::Limits(limits)) => Arc::new(limits),
                    _ => Arc::default(),
                };
                let running = |limits: &Limits| {
                    let of_users =
                        limits.users.iter().filter_map(|(user, limits)| Some((user.clone(), limits.running?)));
                    (limits.user.running, of_users.collect::<Vec<_>>())
                };
                match running(self.lanes.user_limits()) == running(&limits) {
                    true => self.lanes.set_limits(limits),
                    false => self.stand_anew(None, |engine| engine.lanes.set_limits(limits)),
                }
            }
            (SettingKind::Schedule | SettingKind::TaskType, _) => {}
        }
        prev
    }

    /// Takes the tasks of a queue, or all, out of the lanes, changes something, and puts them in again: a microsecond or two
    /// each.
    fn stand_anew(&mut self, queue: Option<&Name>, change: impl FnOnce(&mut Engine)) {
        let mut ready: Vec<Arc<Task>> = self.lanes.ready(queue).iter().map(|id| self.tasks[id].clone()).collect();
        ready.sort_unstable_by_key(|task| task.task_id);
        let of_queue = |task: &Arc<Task>| queue.is_none_or(|queue| task.queue == *queue);
        let leased = self.workers.values().flat_map(|worker| worker.running.keys());
        let mut running: Vec<Arc<Task>> = leased.map(|id| self.tasks[id].clone()).filter(of_queue).collect();
        running.retain(|task| task.status == Status::Running);
        running.sort_unstable_by_key(|task| task.task_id);
        let held = self.held_keys(queue);
        let Engine { lanes, groups, .. } = self;
        ready.iter().for_each(|task| _ = lanes.remove(task, groups));
        running.iter().for_each(|task| lanes.end(task, groups));
        held.iter().for_each(|key| lanes.release_key(key, groups));
        change(self);
        let Engine { lanes, groups, .. } = self;
        held.iter().for_each(|key| lanes.hold_key(key, groups));
        running.iter().for_each(|task| lanes.begin(task, groups));
        ready.iter().for_each(|task| lanes.insert(task, None, groups));
    }

    /// Everything that is set, in no order.
    pub fn settings(&self) -> impl Iterator<Item = &Arc<Setting>> {
        self.settings.values()
    }
}
