//! The checker's account of schedules: which due times have their tasks, and when.
//!
//! Due times are counted here one by one, from what the record says; each of them has at most one task, ever. And each that
//! the hub is up for has one, unless the schedule itself says why not.

use std::collections::BTreeSet;
use std::sync::Arc;

use taskhub::engine::{Answer, Notice, Now, Quota, Refusal};
use taskhub::settings::{
    CatchUp, LastRun, Overlap, Schedule, ScheduleSpec, ScheduleState, Setting, SettingChange, SettingId, SettingKind,
    SettingValue, SkipReason, Skipped,
};
use taskhub::task::{Change, Name, OnDependencyFailure, Task, TaskId, Timestamp};

use super::super::ties::Stand;
use super::super::world::Live;
use super::{Checker, Undo};

/// Tasks that one schedule makes at once.
const MADE_MAX: usize = 16;
/// How soon it is tried again that there was no room for one.
const FULL_RETRY_MS: u64 = 1_000;
/// Why a task is cancelled in whose place a newer one comes.
const REPLACED: &str = "replaced by a newer task";
/// What is looked at so late was missed.
const LATE_MS: i64 = 5_000;

fn id(name: &Name) -> SettingId {
    (SettingKind::Schedule, name.clone())
}

fn of(setting: &Setting) -> Option<&Schedule> {
    match &setting.value {
        SettingValue::Schedule(schedule) => Some(schedule),
        _ => None,
    }
}

/// The due times after one moment and up to another, in milliseconds since 1970.
fn due_times(schedule: &Schedule, after: Timestamp, until: i64) -> Vec<i64> {
    let ScheduleSpec { cron, every_ms, start_at, end_at, .. } = &schedule.spec;
    // The patterns of the applications here are about seconds that divide the minute.
    let seconds = |cron: &String| cron.split(['/', ' ']).nth(1).and_then(|n| n.parse::<i64>().ok());
    let (period, from) = match (cron.as_ref().and_then(seconds), every_ms) {
        (Some(seconds), None) => (seconds * 1_000, 0),
        (None, Some(ms)) => (*ms as i64, schedule.state.counts_from.as_millis()),
        other => panic!("{other:?} is no schedule"),
    };
    let after = start_at.map_or(after.as_millis(), |start| after.as_millis().max(start.as_millis() - 1)).max(from - 1);
    let until = end_at.map_or(until, |end| until.min(end.as_millis()));
    let first = from + (after - from).div_euclid(period) * period + period;
    (0..).map(|n| first + n * period).take_while(|due| *due <= until).collect()
}

impl Checker {
    fn schedule(&self, name: &Name) -> Option<Schedule> {
        self.settings.get(&id(name)).and_then(|setting| of(setting)).cloned()
    }

    /// Takes from these changes what a schedule does of itself at this moment.
    pub(super) fn makes_due(
        &mut self,
        name: &Name,
        (changes, settings): (&mut &[Change], &mut &[SettingChange]),
        stops: &mut Vec<(TaskId, u32)>,
        now: Now,
        live: &Live,
    ) {
        let Some(schedule) = self.schedule(name).filter(|schedule| !schedule.spec.paused) else { return };
        let delay = schedule.delay_ms(name);
        assert!(delay <= schedule.spec.jitter_ms.unwrap_or(0));
        let until = now.wall.as_millis() - delay as i64;
        let due = due_times(&schedule, schedule.state.done_until, until);
        let (late, in_time): (Vec<i64>, Vec<i64>) = due.iter().partition(|due| until - **due >= LATE_MS);
        let caught_up = match schedule.spec.catch_up {
            CatchUp::None => 0,
            CatchUp::Last => usize::from(in_time.is_empty()),
            CatchUp::All => schedule.spec.catch_up_max as usize,
        };
        let (missed, caught_up) = late.split_at(late.len().saturating_sub(caught_up));
        let mut state = schedule.state.clone();
        if let Some(due_at) = missed.last() {
            state.done_until = Timestamp::from_millis(*due_at);
            state.skipped = Some(Skipped { due_at: state.done_until, reason: SkipReason::Missed });
        }
        let make: Vec<i64> = caught_up.iter().chain(&in_time).copied().collect();
        if make.len() > MADE_MAX {
            self.held_up.insert(name.clone(), now.wall.plus_millis(1));
        }
        for due_at in make.into_iter().take(MADE_MAX).map(Timestamp::from_millis) {
            let mut unfinished = self.open.values().filter(|task| task.schedule() == Some(name));
            let skips = schedule.spec.overlap == Overlap::Skip && unfinished.next().is_some();
            let is_made = self
                .next_made(changes)
                .is_some_and(|change| (change.task.schedule(), change.task.due_at()) == (Some(name), Some(due_at)));
            let reason = match () {
                () if skips => Some(SkipReason::Overlap),
                () if self.open.len() >= self.options.tasks_max => {
                    self.held_up.insert(name.clone(), now.wall.plus_millis(FULL_RETRY_MS));
                    break;
                }
                () if is_made => None,
                () => {
                    self.may_be_refused(&schedule);
                    Some(SkipReason::QuotaExceeded)
                }
            };
            match reason {
                Some(reason) => state.skipped = Some(Skipped { due_at, reason }),
                None => {
                    let depends_on = self.comes_after(name, &schedule, changes, stops, now, live);
                    let change = changes.split_off_first().expect("it was looked at");
                    assert_eq!(change.task.depends_on(), depends_on, "{name} is {:?}", schedule.spec.overlap);
                    let policy =
                        if depends_on.is_empty() { OnDependencyFailure::default() } else { OnDependencyFailure::Run };
                    assert_eq!(change.task.on_dependency_failure(), policy);
                    let stand = if depends_on.is_empty() { Stand::Free } else { Stand::Held };
                    let new = self.with_defaults(&schedule.spec.task, false);
                    self.created(&new, stand, change, now);
                    self.fails_unfit(&new, change, changes, now);
                    state.last = Some(LastRun { task_id: change.task.task_id, due_at: Some(due_at) });
                    let made = self.due_made.entry(name.clone()).or_default();
                    assert!(made.insert(due_at), "{due_at} of {name} has a second task: {change:?}");
                    self.undecided.push(Undo::Made(name.clone(), due_at));
                }
            }
            state.done_until = due_at;
        }
        if state != schedule.state {
            self.goes_on_with(name, &schedule, state, settings, now);
        }
    }

    /// The next new task, where nothing comes before it but what it replaces.
    pub(super) fn next_made<'c>(&self, changes: &'c [Change]) -> Option<&'c Change> {
        changes.iter().find(|change| change.note.as_deref() != Some(REPLACED)).filter(|change| change.prev.is_none())
    }

    /// What the next task of a schedule depends on, once what it replaces was told to stop.
    fn comes_after(
        &mut self,
        name: &Name,
        schedule: &Schedule,
        changes: &mut &[Change],
        stops: &mut Vec<(TaskId, u32)>,
        now: Now,
        live: &Live,
    ) -> Vec<TaskId> {
        let of = |task: &&Arc<Task>| task.schedule() == Some(name);
        let unfinished: Vec<Arc<Task>> = self.open.values().filter(of).cloned().collect();
        let due = |task: &&Arc<Task>| task.due_at().is_some();
        match schedule.spec.overlap {
            Overlap::Allow | Overlap::Skip => Vec::new(),
            Overlap::Queue => {
                let last = unfinished.iter().rfind(due);
                let by_hand = unfinished.iter().rfind(|task| !due(task));
                last.into_iter().chain(by_hand).map(|task| task.task_id).collect()
            }
            Overlap::Replace => {
                for task in unfinished.iter().filter(|task| !task.cancel_requested()) {
                    let change = changes.split_off_first().expect("it is cancelled");
                    let reason = Some(REPLACED.to_owned());
                    let runs = task.worker_id().map(|worker_id| Notice::Stop {
                        worker_id: worker_id.clone(),
                        task_id: task.task_id,
                        attempt: task.attempt,
                        reason: Some(REPLACED.into()),
                    });
                    stops.extend(runs.as_ref().map(|_| (task.task_id, task.attempt)));
                    let result = Ok(Answer::Task(change.task.clone()));
                    let (change, told) = (std::slice::from_ref(change), runs.as_slice());
                    self.cancelled(task.task_id, &reason, &result, change, told, now, live);
                }
                unfinished.iter().map(|task| task.task_id).filter(|id| self.open.contains_key(id)).collect()
            }
        }
    }

    /// A schedule has a new record.
    fn goes_on_with(
        &mut self,
        name: &Name,
        schedule: &Schedule,
        state: ScheduleState,
        settings: &mut &[SettingChange],
        now: Now,
    ) {
        let change = settings.split_off_first().unwrap_or_else(|| panic!("{name} should say {state:?}"));
        let next = change.next.as_ref().expect("it is not deleted");
        assert!(state.done_until >= schedule.state.done_until, "it went back");
        assert_eq!((&change.id, change.at, next.updated_at), (&id(name), now.at, now.at));
        assert_eq!(next.value, SettingValue::Schedule(schedule.with(state)));
        self.put_setting(change);
    }

    /// A task of it may be refused for its user.
    fn may_be_refused(&self, schedule: &Schedule) {
        let user = schedule.spec.task.user_id.as_deref().expect("what has no user is not refused");
        let limits = self.rules.limits().of(user);
        let is_full = limits.waiting.is_some_and(|limit| self.waiting_of(Some(user)) >= limit as usize);
        assert!(is_full || limits.submits_per_min.is_some(), "a task of {user} was refused: {limits:?}");
    }

    pub(super) fn schedule_is_set(
        &mut self,
        name: &Name,
        spec: &ScheduleSpec,
        result: &Result<Answer, Refusal>,
        settings: &[SettingChange],
        now: Now,
    ) {
        let Ok(Answer::Set { setting, .. }) = result else { panic!("{spec:?} is answered by {result:?}") };
        let got = of(setting).expect("a schedule was set");
        assert_eq!(got.spec, *spec);
        let counts_from = spec.start_at.unwrap_or(now.wall);
        let mut state =
            ScheduleState { counts_from, done_until: now.wall, last: None, skipped: None, paused_reason: None };
        if let Some(known) = self.schedule(name) {
            let times = |it: &ScheduleSpec| (it.cron.clone(), it.every_ms, it.start_at);
            let others = times(&known.spec) != times(spec);
            let anew = others || known.spec.end_at != spec.end_at || (known.spec.paused && !spec.paused);
            state = ScheduleState {
                counts_from: if others { counts_from } else { known.state.counts_from },
                done_until: if anew { known.state.done_until.max(now.wall) } else { known.state.done_until },
                ..known.state
            };
        }
        let value = SettingValue::Schedule(got.with(state));
        self.is_set(id(name), value, result, settings, now);
    }

    pub(super) fn schedule_is_paused(
        &mut self,
        name: &Name,
        paused: bool,
        result: &Result<Answer, Refusal>,
        settings: &[SettingChange],
        now: Now,
    ) {
        let Some(known) = self.schedule(name) else {
            return assert_eq!(result.as_ref().err(), Some(&Refusal::ScheduleNotFound));
        };
        let mut next = known.clone();
        next.spec.paused = paused;
        if known.spec.paused && !paused {
            next.state.done_until = next.state.done_until.max(now.wall);
        }
        self.is_set(id(name), SettingValue::Schedule(next), result, settings, now);
    }

    pub(super) fn schedule_is_unset(
        &mut self,
        name: &Name,
        result: &Result<Answer, Refusal>,
        settings: &[SettingChange],
    ) {
        if self.schedule(name).is_none() {
            return assert_eq!(result.as_ref().err(), Some(&Refusal::ScheduleNotFound));
        }
        assert!(matches!(result, Ok(Answer::Done)));
        let [change] = settings else { panic!("one setting was to go, not {settings:?}") };
        assert!(change.next.is_none() && change.id == id(name));
        self.put_setting(change);
        // One of the same name is another.
        let made = self.due_made.remove(name).unwrap_or_default();
        self.undecided.push(Undo::Forgot(name.clone(), made));
    }

    pub(super) fn schedule_is_run(
        &mut self,
        name: &Name,
        result: &Result<Answer, Refusal>,
        mut changes: &[Change],
        mut settings: &[SettingChange],
        now: Now,
    ) {
        let Some(schedule) = self.schedule(name) else {
            return assert_eq!(result.as_ref().err(), Some(&Refusal::ScheduleNotFound));
        };
        match result {
            Err(Refusal::Draining) => assert!(self.draining),
            Err(Refusal::PayloadInvalid(_)) => assert!(self.is_unfit(&schedule.spec.task)),
            Err(Refusal::Full) => assert!(self.open.len() >= self.options.tasks_max),
            Err(Refusal::Quota(Quota::Waiting { .. } | Quota::SubmitsPerMin { .. })) => self.may_be_refused(&schedule),
            Ok(Answer::Submitted { tasks, .. }) => {
                assert!(!self.draining && self.open.len() < self.options.tasks_max);
                let change = changes.split_off_first().expect("a task is created");
                assert!(matches!(&tasks[..], [task] if Arc::ptr_eq(task, &change.task)));
                assert_eq!((change.task.schedule(), change.task.due_at()), (Some(name), None));
                assert!(!self.is_unfit(&schedule.spec.task));
                self.created(&self.with_defaults(&schedule.spec.task, false), Stand::Free, change, now);
                let last = Some(LastRun { task_id: change.task.task_id, due_at: None });
                let state = ScheduleState { last, ..schedule.state.clone() };
                self.goes_on_with(name, &schedule, state, &mut settings, now);
                assert!(changes.is_empty() && settings.is_empty());
            }
            other => panic!("a run is answered by {other:?}"),
        }
    }

    /// There was no room for a task: whatever is due may have been tried, and is tried again.
    pub(super) fn waits_for_room(&mut self, now: Now) {
        let due = self.due_in(now).filter(|(within, _)| *within == 0).map(|(_, name)| name.clone());
        let until = now.wall.plus_millis(FULL_RETRY_MS);
        let held_up: Vec<(Name, Timestamp)> = due.map(|name| (name, until)).collect();
        self.held_up.extend(held_up);
    }

    /// How many milliseconds until a schedule is due, by what is left of its due times; 0 where it is overdue.
    pub(super) fn soonest_due(&self, now: Now) -> Option<(u64, Name)> {
        let waits = |name: &Name| self.held_up.get(name).is_some_and(|until| now.wall < *until);
        self.due_in(now).filter(|(_, name)| !waits(name)).min().map(|(within, name)| (within, name.clone()))
    }

    /// The same of each schedule, also where there was no room.
    fn due_in(&self, now: Now) -> impl Iterator<Item = (u64, &Name)> {
        let all = self.settings.values().filter_map(|setting| Some((&setting.name, of(setting)?)));
        all.filter_map(move |(name, schedule)| {
            if schedule.spec.paused {
                return None;
            }
            // The first is not further than a period after what is done, the start, or what is counted from.
            let far = [Some(schedule.state.done_until), schedule.spec.start_at, Some(schedule.state.counts_from)];
            let until = far.into_iter().flatten().max()?.as_millis() + 60_000;
            let due = *due_times(schedule, schedule.state.done_until, until).first()?;
            let due = Timestamp::from_millis(due).plus_millis(schedule.delay_ms(name));
            Some((due.millis_since(now.wall), name))
        })
    }

    /// What was decided of due times, and never committed, is forgotten.
    pub(super) fn forget_due(&mut self, undo: Undo) {
        match undo {
            Undo::Made(name, due_at) => _ = self.due_made.entry(name).or_default().remove(&due_at),
            Undo::Forgot(name, made) => {
                let made: BTreeSet<Timestamp> = made;
                self.due_made.insert(name, made);
            }
            _ => {}
        }
    }
}
