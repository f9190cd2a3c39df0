//! What a shard does by the clock for the clients it writes to itself: marks, pings, and goodbyes.
//!
//! Marks follow in the order in which they are owed; pings and goodbyes go round the slots in small steps, so that ten
//! thousand clients are never due at one moment. No clock in here, `now` is an argument.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::index::ClientSlot;

/// A mark is said with a line if the last one is at least this old, so that most marks cost no message of their own.
pub(super) const MARK_WITH: Duration = Duration::from_millis(200);
/// A line without a mark gets one after this long. The contract says within a second.
const MARK_AFTER: Duration = Duration::from_millis(400);
/// Room for so many who are owed a mark is kept when nobody is.
const UNMARKED_KEPT: usize = 1_024;
/// Steps of one round of pings.
const PING_STEPS: u32 = 100;
/// A step of the pings that is later than this was slept through: the process was stopped. What clients said meanwhile is
/// read before the next, since a ping is also when it is looked whether the one before was answered.
const LATE: Duration = Duration::from_millis(1_500);
const HEARING: Duration = Duration::from_secs(1);
/// Between two steps of the goodbyes.
const LEAVE_STEP: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Rounds {
    ping: Duration,
    ping_step: u32,
    /// Not while nobody is there to be pinged.
    ping_at: Option<Instant>,
    /// The last step was put off.
    is_hearing: bool,
    /// Who is owed a mark, and since when.
    unmarked: VecDeque<(ClientSlot, Instant)>,
    leaving: Option<Leaving>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    window: Duration,
    /// Seats that were told, from the first.
    left: usize,
    next_at: Option<Instant>,
}

impl Rounds {
    pub fn new(ping: Duration) -> Rounds {
        Rounds { ping, ping_step: 0, ping_at: None, is_hearing: false, unmarked: VecDeque::new(), leaving: None }
    }

    /// The same clocks for a shard without clients.
    pub fn anew(self) -> Rounds {
        Rounds { unmarked: VecDeque::new(), ..self }
    }

    pub fn next_at(&self) -> Option<Instant> {
        let leave_at = self.leaving.and_then(|leaving| leaving.next_at);
        let mark_at = self.unmarked.front().map(|(_, since)| *since + MARK_AFTER);
        [self.ping_at, mark_at, leave_at].into_iter().flatten().min()
    }

    /// Somebody was told something without a mark.
    pub fn owe_mark(&mut self, slot: ClientSlot, now: Instant) {
        self.unmarked.push_back((slot, now));
    }

    /// Who is due for a mark, and since when it is owed one; it may have had that in the meantime.
    pub fn mark(&mut self, now: Instant) -> Option<(ClientSlot, Instant)> {
        let is_due = self.unmarked.front().is_some_and(|(_, since)| *since + MARK_AFTER <= now);
        let due = if is_due { self.unmarked.pop_front() } else { None };
        if self.unmarked.is_empty() {
            self.unmarked.shrink_to(UNMARKED_KEPT);
        }
        due
    }

    /// Somebody is there to be pinged.
    pub fn begin_pings(&mut self, now: Instant) {
        self.ping_at.get_or_insert(now + self.ping_every());
    }

    /// Of so many slots, those whose turn it is to be pinged. A slot has its turn in the same step of each round, however
    /// many come and go.
    pub fn pings(&mut self, now: Instant, slots: usize) -> impl Iterator<Item = usize> + use<> {
        let late = self.ping_at.is_some_and(|at| at + LATE < now);
        // Once, so that a shard with too much to do pings all the same.
        self.is_hearing = late && !self.is_hearing;
        if self.is_hearing {
            self.ping_at = Some(now + HEARING);
        }
        let due = self.ping_at.take_if(|at| *at <= now);
        let turn = if due.is_some() { self.ping_step as usize..slots } else { 0..0 };
        if let Some(at) = due {
            self.ping_step = (self.ping_step + 1) % PING_STEPS;
            // From when it was due, so that a round is never longer than it should be; but what was slept through is over.
            self.ping_at = (slots > 0).then(|| (at + self.ping_every()).max(now));
        }
        turn.step_by(PING_STEPS as usize)
    }

    /// Between two steps. Clients count on a ping within `ping`, so a round takes a little less.
    fn ping_every(&self) -> Duration {
        (self.ping * 4 / 5 / PING_STEPS).max(Duration::from_millis(1))
    }

    /// Everyone leaves within `window`, each at a moment of their own.
    pub fn leave(&mut self, now: Instant, window: Duration) {
        self.leaving.get_or_insert(Leaving { since: now, window, left: 0, next_at: Some(now) });
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Of so many slots, those whose turn it is to leave.
    pub fn leavers(&mut self, now: Instant, slots: usize) -> Range<usize> {
        let Some(leaving) = &mut self.leaving else { return 0..0 };
        if leaving.next_at.take_if(|at| *at <= now).is_none() {
            return 0..0;
        }
        let passed = now.duration_since(leaving.since);
        let is_over = passed >= leaving.window;
        let share = if is_over { 1.0 } else { passed.as_secs_f64() / leaving.window.as_secs_f64() };
        let turn = leaving.left..((slots as f64 * share) as usize).clamp(leaving.left, slots.max(leaving.left));
        leaving.left = turn.end;
        leaving.next_at = (!is_over).then_some(now + LEAVE_STEP);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_pinged_once_a_round() {
        let mut now = Instant::now();
        let mut rounds = Rounds::new(Duration::from_secs(25));
        assert_eq!((rounds.next_at(), rounds.pings(now, 7).count()), (None, 0));
        rounds.begin_pings(now);
        let mut pings = [0; 1_007];
        for _ in 0..3 * PING_STEPS {
            now = rounds.next_at().unwrap();
            let turn: Vec<usize> = rounds.pings(now, pings.len()).collect();
            assert!(turn.len() <= 11);
            turn.into_iter().for_each(|slot| pings[slot] += 1);
        }
        assert_eq!(pings, [3; 1_007]);
        now = rounds.next_at().unwrap();
        assert_eq!(rounds.pings(now, 0).count(), 0);
        assert_eq!(rounds.next_at(), None, "nobody is there");
    }

    /// Regression: after a pause the hub pinged before it had read the pongs that were there, and took who had answered
    /// for silent.
    #[test]
    fn a_step_that_was_slept_through_comes_after_a_moment_to_hear() {
        let mut rounds = Rounds::new(Duration::from_secs(25));
        rounds.begin_pings(Instant::now());
        let woken = rounds.next_at().unwrap() + Duration::from_secs(60);
        assert_eq!(rounds.pings(woken, 1_000).count(), 0);
        let next = rounds.next_at().unwrap();
        assert_eq!(next, woken + HEARING);
        assert_eq!(rounds.pings(next + Duration::from_secs(60), 1_000).count(), 10, "once");
    }

    /// SendQueue were shares of the slots there were, so that a crowd that came in the middle of a round had others skipped.
    #[test]
    fn who_comes_in_the_middle_of_a_round_delays_nobody() {
        let start = Instant::now();
        let mut rounds = Rounds::new(Duration::from_secs(25));
        rounds.begin_pings(start);
        let mut pinged_at = vec![start; 1_000];
        for step in 0..3 * PING_STEPS {
            let now = rounds.next_at().unwrap() + Duration::from_millis(3);
            for slot in rounds.pings(now, if step < 50 { 1_000 } else { 10_000 }).filter(|slot| *slot < 1_000) {
                assert!(now - pinged_at[slot] <= Duration::from_secs(25), "slot {slot}");
                pinged_at[slot] = now;
            }
        }
    }

    #[test]
    fn everyone_leaves_within_the_window() {
        let start = Instant::now();
        let mut rounds = Rounds::new(Duration::from_secs(25));
        rounds.leave(start, Duration::from_secs(1));
        let (mut now, mut left, mut half) = (start, 0, 0);
        while let Some(at) = rounds.next_at() {
            now = at.max(now);
            let turn = rounds.leavers(now, 1_000);
            assert_eq!(turn.start, left);
            left = turn.end;
            if now.duration_since(start) <= Duration::from_millis(500) {
                half = left;
            }
        }
        assert_eq!((left, half), (1_000, 500));
        rounds.leave(now, Duration::from_secs(1));
        assert_eq!(rounds.leavers(now, 1_000), 0..0, "they have left already");
    }

    #[test]
    fn without_a_window_all_leave_at_once() {
        let mut rounds = Rounds::new(Duration::from_secs(25));
        rounds.leave(Instant::now(), Duration::ZERO);
        assert_eq!(rounds.leavers(Instant::now(), 3), 0..3);
        assert_eq!(rounds.next_at(), None);
    }

    #[test]
    fn marks_follow_in_the_order_they_are_owed() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut rounds = Rounds::new(Duration::from_secs(25));
        rounds.owe_mark(7, now);
        rounds.owe_mark(8, at(100));
        assert_eq!((rounds.next_at(), rounds.mark(at(399))), (Some(at(400)), None));
        assert_eq!((rounds.mark(at(499)), rounds.mark(at(499))), (Some((7, now)), None));
        assert_eq!((rounds.mark(at(500)), rounds.next_at()), (Some((8, at(100))), None));
    }
}
