//! The timers of a shard for the clients it writes to itself: delayed marks, pings, and goodbyes.
//!
//! Delayed marks are a queue in the order of their times. Pings go through the slots in a hundred interleaved slices, and
//! goodbyes in ranges, so that ten thousand clients are never due at one moment. No clock in here, `now` is an argument.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::index::ClientSlot;

/// A mark is added to a frame if the client's last one is at least this old, so that most marks cost no frame of their own.
pub(super) const MARK_WITH: Duration = Duration::from_millis(200);
/// A mark follows a frame without one after this long. The contract says within a second.
const MARK_AFTER: Duration = Duration::from_millis(400);
/// Capacity for so many delayed marks is kept when there are none.
const UNMARKED_KEPT: usize = 1_024;
/// Slices of the slots; each is pinged at a time of its own.
const PING_SLICES: u32 = 100;
/// If a slice is later than this, the process was stopped. It is then put off by `HEARING`, for what clients sent meanwhile
/// to be read first: a ping is also when the shard checks whether the one before was answered.
const LATE: Duration = Duration::from_millis(1_500);
const HEARING: Duration = Duration::from_secs(1);
/// Between two ranges of goodbyes.
const LEAVE_STEP: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Keepalive {
    ping: Duration,
    ping_slice: u32,
    /// When the next slice is due; `None` while there are no clients to ping.
    ping_at: Option<Instant>,
    /// The last slice was put off by `HEARING`.
    put_off: bool,
    /// Clients that were sent something without a mark, and when.
    unmarked: VecDeque<(ClientSlot, Instant)>,
    leaving: Option<Leaving>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    window: Duration,
    /// Slots below this were told to leave.
    left: usize,
    next_at: Option<Instant>,
}

impl Keepalive {
    pub fn new(ping: Duration) -> Keepalive {
        Keepalive { ping, ping_slice: 0, ping_at: None, put_off: false, unmarked: VecDeque::new(), leaving: None }
    }

    /// The same clocks for a shard without clients.
    pub fn anew(self) -> Keepalive {
        Keepalive { unmarked: VecDeque::new(), ..self }
    }

    pub fn next_at(&self) -> Option<Instant> {
        let leave_at = self.leaving.and_then(|leaving| leaving.next_at);
        let mark_at = self.unmarked.front().map(|(_, since)| *since + MARK_AFTER);
        [self.ping_at, mark_at, leave_at].into_iter().flatten().min()
    }

    /// The client in `slot` was sent something without a mark: one follows.
    pub fn schedule_mark(&mut self, slot: ClientSlot, now: Instant) {
        self.unmarked.push_back((slot, now));
    }

    /// The next client whose mark is due, and since when it has waited. It may have been sent one with a later frame, so the
    /// caller compares the time.
    pub fn mark_due(&mut self, now: Instant) -> Option<(ClientSlot, Instant)> {
        let is_due = self.unmarked.front().is_some_and(|(_, since)| *since + MARK_AFTER <= now);
        let due = if is_due { self.unmarked.pop_front() } else { None };
        if self.unmarked.is_empty() {
            self.unmarked.shrink_to(UNMARKED_KEPT);
        }
        due
    }

    /// There is a client to ping: starts the timer unless it runs.
    pub fn begin_pings(&mut self, now: Instant) {
        self.ping_at.get_or_insert(now + self.ping_every());
    }

    /// Of so many slots, the slice that is due. A slot is always in the same slice, however many clients come and go.
    pub fn pings(&mut self, now: Instant, slots: usize) -> impl Iterator<Item = usize> + use<> {
        let late = self.ping_at.is_some_and(|at| at + LATE < now);
        // At most once in a row, so that an overloaded shard pings all the same.
        self.put_off = late && !self.put_off;
        if self.put_off {
            self.ping_at = Some(now + HEARING);
        }
        let due = self.ping_at.take_if(|at| *at <= now);
        let slice = if due.is_some() { self.ping_slice as usize..slots } else { 0..0 };
        if let Some(at) = due {
            self.ping_slice = (self.ping_slice + 1) % PING_SLICES;
            // From when it was due, so that delays do not add up; but not in the past, after the process was stopped.
            self.ping_at = (slots > 0).then(|| (at + self.ping_every()).max(now));
        }
        slice.step_by(PING_SLICES as usize)
    }

    /// Between two slices. Clients count on a ping within `ping`, so going through all of them takes a little less.
    fn ping_every(&self) -> Duration {
        (self.ping * 4 / 5 / PING_SLICES).max(Duration::from_millis(1))
    }

    /// Begins the goodbyes: spreads them over all slots within `window`.
    pub fn leave(&mut self, now: Instant, window: Duration) {
        self.leaving.get_or_insert(Leaving { since: now, window, left: 0, next_at: Some(now) });
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Of so many slots, the range that is to leave now.
    pub fn leavers(&mut self, now: Instant, slots: usize) -> Range<usize> {
        let Some(leaving) = &mut self.leaving else { return 0..0 };
        if leaving.next_at.take_if(|at| *at <= now).is_none() {
            return 0..0;
        }
        let passed = now.duration_since(leaving.since);
        let is_over = passed >= leaving.window;
        let share = if is_over { 1.0 } else { passed.as_secs_f64() / leaving.window.as_secs_f64() };
        let due = leaving.left..((slots as f64 * share) as usize).clamp(leaving.left, slots.max(leaving.left));
        leaving.left = due.end;
        leaving.next_at = (!is_over).then_some(now + LEAVE_STEP);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_pinged_once_a_period() {
        let mut now = Instant::now();
        let mut keepalive = Keepalive::new(Duration::from_secs(25));
        assert_eq!((keepalive.next_at(), keepalive.pings(now, 7).count()), (None, 0));
        keepalive.begin_pings(now);
        let mut pings = [0; 1_007];
        for _ in 0..3 * PING_SLICES {
            now = keepalive.next_at().unwrap();
            let due: Vec<usize> = keepalive.pings(now, pings.len()).collect();
            assert!(due.len() <= 11);
            due.into_iter().for_each(|slot| pings[slot] += 1);
        }
        assert_eq!(pings, [3; 1_007]);
        now = keepalive.next_at().unwrap();
        assert_eq!(keepalive.pings(now, 0).count(), 0);
        assert_eq!(keepalive.next_at(), None, "there are no clients");
    }

    /// Regression: the pongs that came while the process was stopped are read before a ping judges by them.
    #[test]
    fn a_late_slice_comes_after_a_moment_to_hear() {
        let mut keepalive = Keepalive::new(Duration::from_secs(25));
        keepalive.begin_pings(Instant::now());
        let woken = keepalive.next_at().unwrap() + Duration::from_secs(60);
        assert_eq!(keepalive.pings(woken, 1_000).count(), 0);
        let next = keepalive.next_at().unwrap();
        assert_eq!(next, woken + HEARING);
        assert_eq!(keepalive.pings(next + Duration::from_secs(60), 1_000).count(), 10, "once");
    }

    /// Regression: a slot stays in its slice when many clients come, so every client is pinged in time.
    #[test]
    fn clients_that_come_in_between_delay_no_ping() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Duration::from_secs(25));
        keepalive.begin_pings(start);
        let mut pinged_at = vec![start; 1_000];
        for slice in 0..3 * PING_SLICES {
            let now = keepalive.next_at().unwrap() + Duration::from_millis(3);
            for slot in keepalive.pings(now, if slice < 50 { 1_000 } else { 10_000 }).filter(|slot| *slot < 1_000) {
                assert!(now - pinged_at[slot] <= Duration::from_secs(25), "slot {slot}");
                pinged_at[slot] = now;
            }
        }
    }

    #[test]
    fn everyone_leaves_within_the_window() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Duration::from_secs(25));
        keepalive.leave(start, Duration::from_secs(1));
        let (mut now, mut left, mut half) = (start, 0, 0);
        while let Some(at) = keepalive.next_at() {
            now = at.max(now);
            let due = keepalive.leavers(now, 1_000);
            assert_eq!(due.start, left);
            left = due.end;
            if now.duration_since(start) <= Duration::from_millis(500) {
                half = left;
            }
        }
        assert_eq!((left, half), (1_000, 500));
        keepalive.leave(now, Duration::from_secs(1));
        assert_eq!(keepalive.leavers(now, 1_000), 0..0, "they have left already");
    }

    #[test]
    fn without_a_window_all_leave_at_once() {
        let mut keepalive = Keepalive::new(Duration::from_secs(25));
        keepalive.leave(Instant::now(), Duration::ZERO);
        assert_eq!(keepalive.leavers(Instant::now(), 3), 0..3);
        assert_eq!(keepalive.next_at(), None);
    }

    #[test]
    fn marks_follow_in_order() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut keepalive = Keepalive::new(Duration::from_secs(25));
        keepalive.schedule_mark(7, now);
        keepalive.schedule_mark(8, at(100));
        assert_eq!((keepalive.next_at(), keepalive.mark_due(at(399))), (Some(at(400)), None));
        assert_eq!((keepalive.mark_due(at(499)), keepalive.mark_due(at(499))), (Some((7, now)), None));
        assert_eq!((keepalive.mark_due(at(500)), keepalive.next_at()), (Some((8, at(100))), None));
    }
}
