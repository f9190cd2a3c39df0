//! A rate limit for values of which only the newest counts: the first passes at once, then one per interval, the last always.
//!
//! No clock in here, `now` is an argument. A key costs memory only while its newest interval lasts.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Paces the values of many keys, each on its own; within an interval the newest value wins.
#[derive(Debug)]
pub(super) struct Throttle<K, V> {
    paces: HashMap<K, Pace<V>>,
    /// The end of the interval of each key in `paces`.
    ends: BinaryHeap<Reverse<(Instant, K)>>,
}

#[derive(Debug)]
struct Pace<V> {
    interval: Duration,
    /// When it ends. An older end in the heap is not this one's.
    end: Instant,
    /// Delivered when the interval ends.
    waiting: Option<V>,
    /// `(rev, tick)` of what passed last.
    delivered: (u64, u64),
}

impl<K, V> Default for Throttle<K, V>
where
    K: Ord,
{
    fn default() -> Throttle<K, V> {
        Throttle { paces: HashMap::new(), ends: BinaryHeap::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord, V> Throttle<K, V> {
    /// Gives the value back if it may pass now; else keeps it, in place of one that was kept before. A shorter interval
    /// than the last one holds at once.
    pub fn offer(&mut self, key: K, value: V, interval: Duration, now: Instant) -> Option<V> {
        match self.paces.get_mut(&key) {
            Some(pace) => {
                pace.waiting = Some(value);
                if interval < pace.interval {
                    pace.end = pace.end - pace.interval + interval;
                    self.ends.push(Reverse((pace.end, key)));
                }
                pace.interval = interval;
                None
            }
            None => {
                let end = now + interval;
                self.paces.insert(key, Pace { interval, end, waiting: None, delivered: (0, 0) });
                self.ends.push(Reverse((end, key)));
                Some(value)
            }
        }
    }

    /// When [`due`](Self::due) will next have something to do.
    pub fn next_at(&self) -> Option<Instant> {
        self.ends.peek().map(|Reverse((at, _))| *at)
    }

    /// A value whose interval has ended; `None` when there is no more at `now`.
    pub fn due(&mut self, now: Instant) -> Option<(K, V)> {
        while let Some(Reverse((at, key))) = self.ends.peek().copied()
            && at <= now
        {
            self.ends.pop();
            let Some(pace) = self.paces.get_mut(&key).filter(|pace| pace.end == at) else { continue };
            match pace.waiting.take() {
                Some(value) => {
                    pace.end = now + pace.interval;
                    self.ends.push(Reverse((pace.end, key)));
                    return Some((key, value));
                }
                None => {
                    self.paces.remove(&key);
                }
            }
        }
        None
    }

    /// Whether `(rev, tick)` is above what passed last of this key. If so it passes now, and the next interval begins.
    pub fn is_news(&mut self, key: K, at: (u64, u64), now: Instant) -> bool {
        let Some(pace) = self.paces.get_mut(&key) else { return true };
        if at <= pace.delivered {
            return false;
        }
        pace.delivered = at;
        let end = now + pace.interval;
        if pace.end < end {
            pace.end = end;
            self.ends.push(Reverse((end, key)));
        }
        true
    }

    /// Forgets the value that waits for this key.
    pub fn forget(&mut self, key: &K) {
        if !self.paces.is_empty()
            && let Some(pace) = self.paces.get_mut(key)
        {
            pace.waiting = None;
        }
    }
}

/// The longest interval. A key is kept for as long, also when no client wants it any more: clients come and go, and what they
/// leave behind must not pile up.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The interval at `hz` a second; at most a minute.
pub(super) fn interval(hz: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / hz).map_or(INTERVAL_MAX, |interval| interval.min(INTERVAL_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    #[test]
    fn first_at_once_then_paced_and_the_last_always() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.offer("a", 1, EVERY, at(0)), Some(1));
        assert_eq!(throttle.offer("a", 2, EVERY, at(10)), None);
        assert_eq!(throttle.offer("a", 3, EVERY, at(99)), None);
        assert_eq!(throttle.offer("b", 9, EVERY, at(99)), Some(9), "one never delays another");
        assert_eq!(throttle.due(at(99)), None);
        assert_eq!(throttle.next_at(), Some(at(100)));
        assert_eq!(throttle.due(at(103)), Some(("a", 3)));
        assert_eq!(throttle.due(at(103)), None);
        // Quiet: after its interval the key is forgotten, and the next is a first one.
        assert_eq!(throttle.due(at(203)), None);
        assert_eq!(throttle.next_at(), None);
        assert!(throttle.paces.is_empty());
        assert_eq!(throttle.offer("a", 4, EVERY, at(204)), Some(4));
    }

    #[test]
    fn a_second_holds_no_more_than_its_rate() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let mut delivered = Vec::new();
        for ms in 0..1_000u64 {
            let now = start + Duration::from_millis(ms);
            delivered.extend(throttle.due(now).map(|(_, v)| v));
            for tick in 0..100 {
                delivered.extend(throttle.offer((), ms * 100 + tick, EVERY, now));
            }
        }
        delivered.extend(throttle.due(start + Duration::from_millis(1_000)).map(|(_, v)| v));
        assert_eq!(delivered.len(), 11);
        assert!(delivered.is_sorted());
        assert_eq!(delivered.last(), Some(&99_999));
    }

    /// A client that raised its rate was paced by the old one until its interval ended.
    #[test]
    fn a_shorter_interval_holds_at_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.offer("a", 1, Duration::from_secs(60), at(0)), Some(1));
        assert_eq!(throttle.offer("a", 2, EVERY, at(10)), None);
        assert_eq!((throttle.next_at(), throttle.due(at(99))), (Some(at(100)), None));
        assert_eq!(throttle.due(at(100)), Some(("a", 2)));
        assert_eq!(throttle.offer("a", 3, EVERY, at(150)), None);
        assert_eq!(throttle.due(at(200)), Some(("a", 3)));
        assert_eq!((throttle.due(at(300)), throttle.due(at(60_000))), (None, None));
        assert!(throttle.paces.is_empty() && throttle.ends.is_empty());
    }

    #[test]
    fn what_was_forgotten_does_not_pass() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        throttle.offer(1, 'a', EVERY, now);
        throttle.offer(1, 'b', EVERY, now);
        throttle.forget(&1);
        assert_eq!(throttle.due(now + EVERY), None);
    }

    #[test]
    fn only_growing_positions_are_news() {
        let now = Instant::now();
        let mut throttle: Throttle<u8, ()> = Throttle::default();
        throttle.offer(1, (), EVERY, now);
        assert!(throttle.is_news(1, (5, 1), now));
        assert!(!throttle.is_news(1, (5, 1), now));
        assert!(throttle.is_news(1, (6, 1), now));
        assert!(!throttle.is_news(1, (5, 9), now));
    }

    /// Regression: the interval counts from when a value passed, also where that was later than it might have been.
    #[test]
    fn the_interval_counts_from_when_it_passed() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut throttle = Throttle::default();
        assert!(throttle.offer(1, (), EVERY, at(0)).is_some());
        assert!(throttle.is_news(1, (5, 1), at(250)));
        assert_eq!((throttle.due(at(260)), throttle.offer(1, (), EVERY, at(260))), (None, None));
        assert!(!throttle.is_news(1, (5, 1), at(270)));
        assert_eq!(throttle.due(at(349)), None);
        assert_eq!(throttle.due(at(350)), Some((1, ())));
    }

    #[test]
    fn intervals() {
        assert_eq!(interval(10.0), Duration::from_millis(100));
        assert_eq!(interval(0.0), INTERVAL_MAX);
        assert_eq!(interval(f64::MIN_POSITIVE), INTERVAL_MAX);
    }
}
