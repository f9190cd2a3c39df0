//! Schedules: tasks that are made at their due times.
//!
//! A schedule is a setting, and one alarm: the first due time that its record does not call dealt with, on the wall clock.
//! When it goes off, the tasks that are due are made, and the schedule gets a new record that says so; both are changes of
//! one batch, so they are committed together, or taken back together, and the alarm, which follows from the record, goes off
//! again. That is all it takes for one task a due time, over failed commits and restarts.
//!
//! Where much was missed, a schedule makes a few tasks and then stands at the end of those that are due now, so that what
//! thousands of schedules have to catch up after a long absence keeps none of them from being in time.
//!
//! Where tasks of one schedule are not to run beside each other, a due time whose task has to wait for others is no rule of
//! its own: the new task [depends](super::dependencies) on those before it, however they end, and so waits for them over
//! restarts as every other does, and says so.
//!
//! A task of a schedule is submitted as any other: limits hold, and what a schedule's own user may not have is passed over,
//! with the reason in the record. Two things are different. While the hub holds as many tasks as it may, the due time waits.
//! And a hub that is going down goes on making tasks, since nobody else will; the next one hands them out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::settings::{
    LastRun, Overlap, Schedule, ScheduleSpec, Setting, SettingKind, SettingValue, SkipReason, Skipped,
};
use crate::task::{
    Author, AuthorEnd, Dependency, MadeBy, Name, NewTask, NewTies, OnDependencyFailure, Task, TaskId, Timestamp,
};

use super::conflicts::REPLACED;
use super::core::Engine;
use super::timers::{Alarm, At};
use super::{Answer, Cx, Refusal};

/// Tasks that a schedule makes before others have their turn.
const MADE_MAX: usize = 16;
/// How soon a due time is tried again that there was no room for.
const FULL_RETRY_MS: u64 = 1_000;

/// Tasks that a new one replaces, the newest of those that are not final. More are there only where tasks were made beside
/// each other before: their turn comes with the next due times.
const REPLACED_MAX: usize = 1_000;

/// The tasks of each schedule that are not final.
#[derive(Default)]
pub(super) struct Unfinished(HashMap<Name, OfOne>);

/// The unfinished tasks of one schedule.
#[derive(Default)]
struct OfOne {
    due: BTreeSet<TaskId>,
    /// Those that were run by hand.
    by_hand: BTreeSet<TaskId>,
}

impl OfOne {
    fn like(&mut self, task: &Task) -> &mut BTreeSet<TaskId> {
        match task.due_at().is_some() {
            true => &mut self.due,
            false => &mut self.by_hand,
        }
    }

    fn newest_first(&self) -> impl Iterator<Item = TaskId> {
        self.due.iter().rev().chain(self.by_hand.iter().rev()).copied()
    }
}

impl Unfinished {
    pub(super) fn insert(&mut self, task: &Task) {
        if let Some(schedule) = task.schedule() {
            self.0.entry(schedule.clone()).or_default().like(task).insert(task.task_id);
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        if let Some(schedule) = task.schedule()
            && let Some(tasks) = self.0.get_mut(schedule)
        {
            tasks.like(task).remove(&task.task_id);
            if tasks.due.is_empty() && tasks.by_hand.is_empty() {
                self.0.remove(schedule);
            }
        }
    }
}

impl Engine {
    pub(super) fn set_schedule(&mut self, name: Name, spec: ScheduleSpec, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let bytes_max = self.options.payload_bytes_max;
        // Checked first: what is refused changes nothing.
        let asked = Schedule::set(spec.clone(), None, bytes_max, cx.now.wall).map_err(Refusal::Invalid)?;
        let unfit = self.unfit(&asked);
        if !unfit.is_empty() {
            return Err(Refusal::PayloadInvalid(unfit));
        }
        self.make_due(&name, cx);
        let known = self.schedule_of(&name);
        let schedule = Schedule::set(spec, known.as_deref().and_then(of), bytes_max, cx.now.wall);
        let value = SettingValue::Schedule(schedule.map_err(Refusal::Invalid)?);
        self.set((SettingKind::Schedule, name), value, cx)
    }

    pub(super) fn unset_schedule(&mut self, name: Name, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        self.make_due(&name, cx);
        self.schedule_of(&name).ok_or(Refusal::ScheduleNotFound)?;
        self.change_setting((SettingKind::Schedule, name), None, cx);
        Ok(Answer::Done)
    }

    pub(super) fn pause_schedule(
        &mut self,
        name: Name,
        paused: bool,
        author: Option<Author>,
        cx: &mut Cx<'_>,
    ) -> Result<Answer, Refusal> {
        self.make_due(&name, cx);
        let setting = self.schedule_of(&name).ok_or(Refusal::ScheduleNotFound)?;
        let schedule = of(&setting).ok_or(Refusal::ScheduleNotFound)?;
        let next = match paused {
            true => schedule.pause(true, cx.now.wall),
            false => schedule.resume(author, cx.now.wall),
        };
        self.set((SettingKind::Schedule, name), SettingValue::Schedule(next), cx)
    }

    /// Pauses a schedule whose author is one no longer. What is due by now is not made any more.
    pub(super) fn stop_schedule(&mut self, name: Name, author: Author, reason: AuthorEnd, cx: &mut Cx<'_>) -> Answer {
        if let Some(setting) = self.schedule_of(&name)
            && let Some(schedule) = of(&setting)
            && schedule.spec.author == Some(author)
            && schedule.state.paused_reason.is_none()
        {
            self.replace_schedule(name, schedule.stop(reason, cx.now.wall), cx);
        }
        Answer::Done
    }

    pub(super) fn run_schedule(&mut self, name: Name, cx: &mut Cx<'_>) -> Result<Answer, Refusal> {
        let setting = self.schedule_of(&name).ok_or(Refusal::ScheduleNotFound)?;
        let schedule = of(&setting).ok_or(Refusal::ScheduleNotFound)?;
        if self.draining {
            return Err(Refusal::Draining);
        }
        let unfit = self.unfit(schedule);
        if !unfit.is_empty() {
            return Err(Refusal::PayloadInvalid(unfit));
        }
        let task = self.create_one(&name, schedule, None, cx)?;
        let mut state = schedule.state.clone();
        state.last = Some(LastRun { task_id: task.task_id, due_at: None });
        self.replace_schedule(name, schedule.with(state), cx);
        Ok(Answer::Submitted { tasks: vec![task], existing: Vec::new() })
    }

    /// Does what is due of a schedule by now.
    pub(super) fn make_due(&mut self, name: &Name, cx: &mut Cx<'_>) {
        let Some(setting) = self.schedule_of(name) else { return };
        let Some(schedule) = of(&setting) else { return };
        let until = cx.now.wall.as_millis() - schedule.delay_ms(name) as i64;
        let Some(next) = schedule.next() else { return };
        if next.as_millis() > until {
            // The clock was set back since.
            return self.await_due(name, Some(&setting));
        }
        let plan = schedule.plan(Timestamp::from_millis(until));
        let mut state = schedule.state.clone();
        if let Some(due_at) = plan.missed {
            state.done_until = due_at;
            state.skipped = Some(Skipped { due_at, reason: SkipReason::Missed });
        }
        let mut is_full = false;
        for due_at in plan.make.iter().copied().take(MADE_MAX) {
            match self.make(name, schedule, due_at, cx) {
                Ok(task) => state.last = Some(LastRun { task_id: task.task_id, due_at: Some(due_at) }),
                Err(None) => {
                    is_full = true;
                    break;
                }
                Err(Some(reason)) => state.skipped = Some(Skipped { due_at, reason }),
            }
            state.done_until = due_at;
        }
        if state != schedule.state {
            self.replace_schedule(name.clone(), schedule.with(state), cx);
        }
        let alarm = Alarm::Schedule(name.clone());
        if is_full {
            self.timers.set(alarm, At::Wall(cx.now.wall.plus_millis(FULL_RETRY_MS)));
        } else if matches!(self.timers.at(&alarm), Some(At::Wall(at)) if at <= cx.now.wall) {
            // There is more: others come first.
            self.timers.set(alarm, At::Wall(cx.now.wall.plus_millis(1)));
        }
    }

    /// Makes the task of a due time, or says why it has none; without a reason where it has to wait for room.
    fn make(
        &mut self,
        name: &Name,
        schedule: &Schedule,
        due_at: Timestamp,
        cx: &mut Cx<'_>,
    ) -> Result<Arc<Task>, Option<SkipReason>> {
        if schedule.spec.overlap == Overlap::Skip && self.scheduled.0.contains_key(name) {
            return Err(Some(SkipReason::Overlap));
        }
        self.create_one(name, schedule, Some(due_at), cx).map_err(|refusal| match refusal {
            Refusal::Quota(_) => Some(SkipReason::QuotaExceeded),
            Refusal::KeyTaken => Some(SkipReason::Conflict),
            _ => None,
        })
    }

    /// Makes one task, for a due time or beside all others. A refusal has changed nothing.
    fn create_one(
        &mut self,
        name: &Name,
        schedule: &Schedule,
        due_at: Option<Timestamp>,
        cx: &mut Cx<'_>,
    ) -> Result<Arc<Task>, Refusal> {
        if self.unfinished() >= self.options.tasks_max {
            return Err(Refusal::Full);
        }
        let task_id = self.next_id(cx.now.at);
        let mut new = NewTask { author: schedule.spec.author, ..NewTask::clone(&schedule.spec.task) };
        self.types.fill(&mut new);
        let unfit = self.unfit(schedule);
        self.whole(cx, |engine, cx| {
            let after = match schedule.spec.overlap {
                Overlap::Queue if due_at.is_some() => engine.last_unfinished(name),
                Overlap::Replace if due_at.is_some() => engine.cancel_unfinished(name, cx),
                Overlap::Allow | Overlap::Skip | Overlap::Queue | Overlap::Replace => Vec::new(),
            };
            new.on_dependency_failure = (!after.is_empty()).then_some(OnDependencyFailure::Run);
            let ties = NewTies { depends_on: after.into_iter().map(Dependency::On).collect(), ..NewTies::default() };
            let made_by = MadeBy { schedule: name.clone(), due_at };
            let task = engine.create(task_id, (new, ties, None), &[task_id], Some(made_by), cx)?;
            if !unfit.is_empty() {
                engine.fail_unfit(task_id, unfit, cx);
            }
            Ok(task)
        })
    }

    /// What the next task of a schedule waits for, so that they run one at a time: the last one, which waits for the one before
    /// it, and the last that was run by hand, for which none waits yet.
    fn last_unfinished(&self, name: &Name) -> Vec<TaskId> {
        let Some(OfOne { due, by_hand }) = self.scheduled.0.get(name) else { return Vec::new() };
        due.last().into_iter().chain(by_hand.last()).copied().collect()
    }

    /// Cancels the tasks of a schedule. Answers those that have yet to stop.
    fn cancel_unfinished(&mut self, name: &Name, cx: &mut Cx<'_>) -> Vec<TaskId> {
        let Some(unfinished) = self.scheduled.0.get(name) else { return Vec::new() };
        let mut replaced: Vec<TaskId> = unfinished.newest_first().take(REPLACED_MAX).collect();
        replaced.sort_unstable();
        for task_id in &replaced {
            // Of a task that is not final, and without a reason that could be too long.
            let _ = self.cancel(*task_id, Some(REPLACED.into()), cx);
        }
        replaced.retain(|task_id| self.tasks.get(task_id).is_some_and(|task| !task.status.is_final()));
        replaced
    }

    fn replace_schedule(&mut self, name: Name, schedule: Schedule, cx: &mut Cx<'_>) {
        let value = SettingValue::Schedule(schedule);
        let setting = Setting { name: name.clone(), rev: self.rev + 1, updated_at: cx.now.at, value };
        self.change_setting((SettingKind::Schedule, name), Some(Arc::new(setting)), cx);
    }

    /// Sets the alarm of a schedule, as its record says.
    pub(super) fn await_due(&mut self, name: &Name, setting: Option<&Setting>) {
        let alarm = Alarm::Schedule(name.clone());
        match setting.and_then(of).and_then(|schedule| Some((schedule, schedule.next()?))) {
            Some((schedule, due)) => self.timers.set(alarm, At::Wall(due.plus_millis(schedule.delay_ms(name)))),
            None => _ = self.timers.clear(&alarm),
        }
    }

    fn schedule_of(&self, name: &Name) -> Option<Arc<Setting>> {
        self.settings.get(&(SettingKind::Schedule, name.clone())).cloned()
    }
}

fn of(setting: &Setting) -> Option<&Schedule> {
    match &setting.value {
        SettingValue::Schedule(schedule) => Some(schedule),
        _ => None,
    }
}
