//! What a user may have waiting, and submit in a minute.
//!
//! Tasks that wait are counted by user, which follows from the records. What was submitted in the last minute is remembered in
//! tenths of seconds, and only of users for whom that is limited; a restart forgets it.

use std::collections::{HashMap, VecDeque};

use crate::settings::UserLimits;
use crate::task::{Name, Status, Task};

use super::core::Engine;
use super::{Now, Quota, Refusal};

const MINUTE_MS: u64 = 60_000;
const SLOT_MS: u64 = 100;
const SHED_FROM: usize = 1_024;

#[derive(Default)]
pub(super) struct Quotas {
    /// Unfinished tasks that do not run.
    waiting: HashMap<Name, u32>,
    /// When so many tasks were submitted, on the monotonic clock: the end of a slot.
    submitted: HashMap<Name, VecDeque<(u64, u32)>>,
    /// Whose submissions were counted in this round of decisions, in order, and in which slot.
    counted: Vec<(Name, u64)>,
    /// At so many users those are forgotten who have submitted nothing for a minute.
    shed_at: usize,
}

impl Quotas {
    pub(super) fn insert(&mut self, task: &Task) {
        if let Some(user) = &task.user_id
            && task.status != Status::Running
        {
            *self.waiting.entry(user.clone()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        if let Some(user) = &task.user_id
            && task.status != Status::Running
            && let Some(count) = self.waiting.get_mut(user)
        {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(user);
            }
        }
    }

    /// One more task of a user comes in, unless that is too much.
    fn submit(&mut self, user: &Name, limits: &UserLimits, now: Now) -> Result<(), Quota> {
        if let Some(limit) = limits.waiting
            && self.waiting.get(user).is_some_and(|waiting| *waiting >= limit)
        {
            return Err(Quota::Waiting { limit });
        }
        let Some(limit) = limits.submits_per_min else { return Ok(()) };
        if self.submitted.len() >= self.shed_at {
            self.submitted.retain(|_, slots| slots.back().is_some_and(|(end, _)| end + MINUTE_MS > now.mono));
            self.shed_at = SHED_FROM.max(2 * self.submitted.len());
        }
        let slots = self.submitted.entry(user.clone()).or_default();
        while slots.front().is_some_and(|(end, _)| end + MINUTE_MS <= now.mono) {
            slots.pop_front();
        }
        let count: u32 = slots.iter().map(|(_, count)| count).sum();
        if count >= limit {
            // There is room once enough of them are a minute old: more than the first, where the limit was higher before.
            let mut left = count;
            let last = slots.iter().find(|(_, count)| {
                left -= count;
                left < limit
            });
            let end = last.map_or(now.mono, |(end, _)| *end);
            return Err(Quota::SubmitsPerMin { limit, retry_after_ms: end + MINUTE_MS - now.mono });
        }
        let end = (now.mono / SLOT_MS + 1) * SLOT_MS;
        match slots.back_mut().filter(|(last, _)| *last == end) {
            Some((_, count)) => *count += 1,
            None => slots.push_back((end, 1)),
        }
        self.counted.push((user.clone(), end));
        Ok(())
    }

    /// How many unfinished tasks of a user do not run.
    pub(super) fn waiting_of(&self, user: &Name) -> u32 {
        self.waiting.get(user).copied().unwrap_or_default()
    }

    /// How many tasks a user submitted within the last minute, where that is limited.
    pub(super) fn submitted_by(&self, user: &Name, now: Now) -> u32 {
        let slots = self.submitted.get(user).into_iter().flatten();
        slots.filter(|(end, _)| end + MINUTE_MS > now.mono).map(|(_, count)| count).sum()
    }

    /// How many submissions were counted in this round so far.
    pub(super) fn counted(&self) -> usize {
        self.counted.len()
    }

    /// Those after so many are taken back.
    pub(super) fn take_back(&mut self, keep: usize) {
        for (user, end) in self.counted.drain(keep..) {
            let slots = self.submitted.get_mut(&user).into_iter().flatten();
            slots.filter(|(of_slot, _)| *of_slot == end).for_each(|(_, count)| *count -= 1);
        }
    }

    /// The round is over: nothing of it is taken back any more.
    pub(super) fn round_over(&mut self) {
        self.counted.clear();
    }
}

impl Engine {
    /// Whether a user may submit one task more; then it counts.
    pub(super) fn check_quota(&mut self, user: Option<&Name>, now: Now) -> Result<(), Refusal> {
        let Some(user) = user else { return Ok(()) };
        let limits = self.lanes.user_limits().of(user.as_str());
        self.quotas.submit(user, &limits, now).map_err(Refusal::Quota)
    }
}
