//! Rates: how many tasks of a queue, of a key or of a user are handed out within a while.
//!
//! A rate is a limit as others are ([`limits`](super::limits), [`lanes`](super::lanes)). The difference is for how long a task
//! counts: under the others while it runs, under a rate for `per_ms` from its hand-out on, however it ends. A *window* keeps
//! the times of the hand-outs that still count; while there are `limit` of them, the queue is closed, or what is of that key
//! or user is blocked, and an alarm opens it again when the oldest has become too old. A window lives as long as something
//! counts in it, so users and keys of the past cost nothing, and a queue without a rate has none.
//!
//! **The promise** is that no window of `per_ms`, wherever it begins, holds more than `limit` hand-outs. So what counts is each
//! time of its own, and not a count for each minute, which two halves of two minutes would pass. A hand-out counts as of the
//! moment when its commit was on disk and it was given away, not when it was decided ([`Engine::handed_out`]): else one that
//! waited for a slow disk could meet those of the next window. And it counts for a millisecond longer than `per_ms`, as times
//! are of whole milliseconds.
//!
//! **The clock** is the machine's monotonic count: whatever the wall clock is set to, what passed is what counts. It goes on
//! while no hub runs, so hand-outs are written down with it, in the commit that makes them ([`HandOuts`]), and the next
//! hub begins with the same windows. Where the machine itself was started in between, its count began anew, and the wall clock
//! may be wrong. Then the store takes the time when there was no hub for no time at all: a window may be open too late by
//! that, and never too early.
//!
//! **A failed commit** takes its hand-outs back, the newest first. Another rate goes on with what counts: with a shorter
//! window older ones are forgotten, and with a longer one those count that are known. Where a rate is taken away, or counts for
//! others, its windows are dropped. What that forgets is kept until the commit is written ([`Rates::saved`]).

use std::collections::{HashMap, VecDeque};

use crate::settings::{HandOuts, Rate, RateBy, SettingValue};
use crate::task::{Name, Task};

use super::core::Engine;
use super::limits::LimitId;
use super::slab::Slab;
use super::timers::{Alarm, At};
use super::{Cx, Now};

/// A window of more different times than this puts those together that are close to each other, as of the later one. So
/// a window takes 16 KiB at most, and is late by a five hundredth of its length.
const TIMES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct WindowId(u32);

/// All windows in which something counts.
#[derive(Default)]
pub(super) struct Rates {
    windows: Slab<Window>,
    ids: HashMap<LimitId, WindowId>,
    /// Those that were added to in this round.
    fresh: Vec<WindowId>,
    /// The windows of a queue before its rate was changed in this round, by the `rev` of that change.
    saved: Vec<(u64, Vec<Saved>)>,
}

/// A window as it was, by the names of what it counts, since numbers of queues are given anew.
struct Saved {
    queue: Name,
    by: RateBy,
    name: Option<Name>,
    times: VecDeque<Time>,
}

struct Window {
    limit: LimitId,
    /// Oldest first.
    times: VecDeque<Time>,
    /// How many hand-outs that are.
    count: u32,
}

/// So many hand-outs at one moment of the monotonic count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    at: i64,
    count: u32,
}

/// When a hand-out does not count any more.
fn ends_at(at: i64, rate: Rate) -> i64 {
    at + rate.per_ms as i64 + 1
}

impl Window {
    fn add(&mut self, at: i64, count: u32) {
        self.count += count;
        match self.times.back_mut().filter(|newest| newest.at >= at) {
            Some(newest) => newest.count += count,
            None => self.times.push_back(Time { at, count }),
        }
    }

    /// The newest are taken back.
    fn take_back(&mut self, mut count: u32) {
        while let Some(newest) = self.times.back_mut()
            && count > 0
        {
            let of_it = newest.count.min(count);
            newest.count -= of_it;
            self.count -= of_it;
            count -= of_it;
            if newest.count == 0 {
                self.times.pop_back();
            }
        }
    }

    /// Forgets what does not count any more.
    fn forget(&mut self, now: Now, rate: Rate) {
        while let Some(oldest) = self.times.front()
            && ends_at(oldest.at, rate) <= now.mono as i64
        {
            self.count -= oldest.count;
            self.times.pop_front();
        }
    }

    /// When it has room, where it is full.
    fn opens_at(&self, rate: Rate) -> Option<i64> {
        let mut left = self.count;
        let last = self.times.iter().find(|time| {
            let is_full = left >= rate.limit;
            left -= time.count;
            is_full && left < rate.limit
        })?;
        Some(ends_at(last.at, rate))
    }

    /// Puts times together that are close to each other, where there are too many.
    fn thin_out(&mut self, rate: Rate) {
        if self.times.len() <= TIMES_MAX {
            return;
        }
        let together = (rate.per_ms as i64) / (TIMES_MAX as i64 / 2) + 1;
        let mut thin: VecDeque<Time> = VecDeque::new();
        for time in self.times.drain(..) {
            match thin.back_mut().filter(|before| before.at.div_euclid(together) == time.at.div_euclid(together)) {
                Some(before) => (before.at, before.count) = (time.at, before.count + time.count),
                None => thin.push_back(time),
            }
        }
        self.times = thin;
    }
}

impl Rates {
    fn of_queue(&self, is_of: impl Fn(&LimitId) -> bool) -> Vec<WindowId> {
        let mut ids: Vec<WindowId> = self.ids.iter().filter(|(limit, _)| is_of(limit)).map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// When there is room under a rate that is reached, on the monotonic count.
    pub(super) fn opens_at(&self, limit: &LimitId, rate: Rate) -> Option<u64> {
        let id = self.ids.get(limit)?;
        self.windows[id.0].opens_at(rate).map(|at| at.max(0) as u64)
    }

    #[cfg(test)]
    pub(super) fn windows(&self) -> usize {
        self.ids.len()
    }
}

impl Engine {
    /// A task was handed out under a rate of its queue.
    pub(super) fn count_hand_out(&mut self, task: &Task, limit: LimitId, rate: Rate, cx: &mut Cx<'_>) {
        let at = cx.now.mono as i64;
        let (by, name) = limit.rate().expect("it is the limit of a rate");
        match cx.batch.hand_outs.last_mut().filter(|it| it.queue == task.queue && (it.by, &it.name) == (by, &name)) {
            Some(before) => (before.rev, before.count) = (task.rev, before.count + 1),
            None => {
                cx.batch.hand_outs.push(HandOuts { rev: task.rev, at, queue: task.queue.clone(), by, name, count: 1 });
            }
        }
        let id = self.window(limit);
        let window = &mut self.rates.windows[id.0];
        window.forget(cx.now, rate);
        window.add(at, 1);
        if self.rates.fresh.last() != Some(&id) {
            self.rates.fresh.push(id);
        }
        self.show_window(id, rate);
    }

    /// What the last round handed out is on disk, and was given away before this moment.
    pub fn handed_out(&mut self, now: Now) {
        for id in &self.rates.fresh {
            if let Some(newest) = self.rates.windows[id.0].times.back_mut() {
                newest.at = newest.at.max(now.mono as i64);
            }
        }
    }

    /// What was handed out before this hub began counts too, in the order of `rev`, by the count of the machine now.
    pub fn remember_hand_outs(&mut self, hand_outs: Vec<HandOuts>, now: Now) {
        for HandOuts { at, queue, by, name, count, .. } in hand_outs {
            let Some(rate) = self.lanes.settings_of(&queue).rate.filter(|rate| rate.by == by) else { continue };
            if ends_at(at, rate) <= now.mono as i64 {
                continue;
            }
            let limit = self.lanes.limit_of_rate(&queue, by, name);
            let id = self.window(limit);
            let window = &mut self.rates.windows[id.0];
            window.add(at.min(now.mono as i64), count);
            window.thin_out(rate);
            self.show_window(id, rate);
        }
    }

    /// What was handed out longer ago than this, in milliseconds, counts under no rate.
    pub fn longest_rate_ms(&self) -> u64 {
        let rates = self.settings.values().filter_map(|setting| match &setting.value {
            SettingValue::Queue(settings) => settings.rate,
            _ => None,
        });
        rates.map(|rate| rate.per_ms + 1).max().unwrap_or(0)
    }

    /// A window is looked at again: something in it may not count any more.
    pub(super) fn look_at_window(&mut self, id: WindowId, now: Now) {
        let Some(rate) = self.lanes.rate_under(&self.rates.windows[id.0].limit) else { return };
        let window = &mut self.rates.windows[id.0];
        window.forget(now, rate);
        match window.count {
            0 => self.drop_window(id),
            _ => self.show_window(id, rate),
        }
    }

    /// A round was taken back; these are its hand-outs.
    pub(super) fn take_back_hand_outs(&mut self, hand_outs: &[HandOuts]) {
        self.rates.fresh.clear();
        for HandOuts { queue, by, name, count, .. } in hand_outs.iter().rev() {
            let limit = self.lanes.limit_of_rate(queue, *by, name.clone());
            let (Some(&id), Some(rate)) = (self.rates.ids.get(&limit), self.lanes.rate_under(&limit)) else { continue };
            let window = &mut self.rates.windows[id.0];
            window.take_back(*count);
            match window.count {
                0 => self.drop_window(id),
                _ => self.show_window(id, rate),
            }
        }
    }

    /// Keeps the windows of a queue as they are before a change of its settings.
    pub(super) fn save_windows(&mut self, rev: u64, queue: &Name) {
        let Some(queue_id) = self.lanes.queue_ids.get(queue) else { return };
        let saved = self.rates.of_queue(|limit| limit.queue() == Some(*queue_id)).into_iter().filter_map(|id| {
            let window = &self.rates.windows[id.0];
            let (by, name) = window.limit.rate()?;
            Some(Saved { queue: queue.clone(), by, name, times: window.times.clone() })
        });
        let saved: Vec<Saved> = saved.collect();
        if !saved.is_empty() {
            self.rates.saved.push((rev, saved));
        }
    }

    /// A change of settings was taken back: the windows are what they were.
    pub(super) fn restore_windows(&mut self, rev: u64) {
        let Some((_, saved)) = self.rates.saved.pop_if(|(of, _)| *of == rev) else { return };
        for Saved { queue, by, name, times } in saved {
            let limit = self.lanes.limit_of_rate(&queue, by, name);
            let Some(rate) = self.lanes.rate_under(&limit) else { continue };
            let id = self.window(limit);
            let window = &mut self.rates.windows[id.0];
            window.count = times.iter().map(|time| time.count).sum();
            window.times = times;
            self.show_window(id, rate);
        }
    }

    /// A queue has another rate.
    pub(super) fn rate_changed(&mut self, queue: &Name, old: Option<Rate>, new: Option<Rate>, now: Now) {
        let (Some(old), Some(queue_id)) = (old, self.lanes.queue_ids.get(queue).copied()) else { return };
        for id in self.rates.of_queue(|limit| limit.queue() == Some(queue_id)) {
            let window = &mut self.rates.windows[id.0];
            window.forget(now, old);
            let new = new.filter(|new| new.by == old.by);
            if let Some(new) = new {
                window.forget(now, new);
            }
            match new.filter(|_| window.count > 0) {
                None => self.drop_window(id),
                Some(new) => {
                    self.timers.clear(&Alarm::Rate(id));
                    // Its limit is another one.
                    self.lanes.set_handed_out(&self.rates.windows[id.0].limit, 0, old.limit, &mut self.groups);
                    self.show_window(id, new);
                }
            }
        }
    }

    /// The round is over: nothing of it is taken back any more.
    pub(super) fn rates_round_over(&mut self) {
        self.rates.saved.clear();
        for id in std::mem::take(&mut self.rates.fresh) {
            let window = &mut self.rates.windows[id.0];
            if let Some(rate) = self.lanes.rate_under(&window.limit) {
                window.thin_out(rate);
            }
        }
    }

    fn window(&mut self, limit: LimitId) -> WindowId {
        if let Some(id) = self.rates.ids.get(&limit) {
            return *id;
        }
        self.lanes.hold_queue(limit.queue().expect("a rate is one queue's"));
        let window = Window { limit: limit.clone(), times: VecDeque::new(), count: 0 };
        let id = WindowId(self.rates.windows.insert(window));
        self.rates.ids.insert(limit, id);
        id
    }

    /// Opens or closes what a window says, and sets its alarm: for when it opens, or else for when all of it is over. One that
    /// goes off early looks again.
    fn show_window(&mut self, id: WindowId, rate: Rate) {
        let window = &self.rates.windows[id.0];
        let alarm = Alarm::Rate(id);
        let at = match window.opens_at(rate) {
            Some(at) => Some(at),
            None if self.timers.at(&alarm).is_some() => None,
            None => window.times.back().map(|newest| ends_at(newest.at, rate)),
        };
        if let Some(at) = at {
            self.timers.set(alarm, At::Mono(at.max(0) as u64));
        }
        self.lanes.set_handed_out(&window.limit, window.count, rate.limit, &mut self.groups);
    }

    fn drop_window(&mut self, id: WindowId) {
        let Window { limit, .. } = self.rates.windows.remove(id.0);
        self.rates.ids.remove(&limit);
        self.rates.fresh.retain(|fresh| *fresh != id);
        self.timers.clear(&Alarm::Rate(id));
        self.lanes.set_handed_out(&limit, 0, 1, &mut self.groups);
        self.lanes.release_queue(limit.queue().expect("a rate is one queue's"), &mut self.groups);
    }
}
