//! Small counters: unfinished tasks by name, and how many tasks a second; and the line that tells of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::task::{Event, Status, Timestamp};
use crate::wire;

/// How often the line of counts is written anew, at most.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The line of counts, the same bytes for everybody who watches them. It is written when somebody asks for it and the one
/// there is is old, so ten thousand who watch cost one line a second, and nobody costs none.
#[derive(Default)]
pub(super) struct StatsLine {
    newest: Mutex<Option<(Instant, Bytes)>>,
}

impl StatsLine {
    /// The line, from `write` where it is time for a new one. Who asks meanwhile waits for that.
    pub(super) fn get(&self, now: Instant, write: impl FnOnce() -> Bytes) -> Bytes {
        let mut newest = self.newest.lock();
        if let Some((written, line)) = &*newest
            && now.saturating_duration_since(*written) < LINE_EVERY
        {
            return line.clone();
        }
        let line = write();
        *newest = Some((now, line.clone()));
        line
    }
}

/// How many unfinished tasks of one name there are of each status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UnfinishedCounts([u64; 4]);

impl UnfinishedCounts {
    pub(super) fn add(&mut self, status: Status, by: i64) {
        if let Some(count) = self.0.get_mut(status as usize) {
            *count = count.saturating_add_signed(by);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    pub(super) fn stats(&self) -> wire::QueueStats {
        let [waiting, scheduled, pending, running] = self.0;
        wire::QueueStats { waiting, scheduled, pending, running }
    }
}

/// Seconds that the rates are averaged over.
const SECONDS: usize = 10;

/// How many tasks were created and how many ended, second by second.
#[derive(Default)]
pub(super) struct Rates {
    /// Created, completed, failed, cancelled; by second modulo [`SECONDS`].
    seconds: [[u64; 4]; SECONDS],
    newest: i64,
}

impl Rates {
    pub(super) fn add(&mut self, event: Event, now: Timestamp) {
        let column = match event {
            Event::Created => 0,
            Event::Completed => 1,
            Event::Failed => 2,
            Event::Cancelled => 3,
            _ => return,
        };
        self.turn_to(now);
        self.seconds[self.newest.rem_euclid(SECONDS as i64) as usize][column] += 1;
    }

    pub(super) fn read(&mut self, now: Timestamp) -> wire::Rates {
        self.turn_to(now);
        let rate =
            |column: usize| self.seconds.iter().map(|second| second[column]).sum::<u64>() as f64 / SECONDS as f64;
        wire::Rates { created: rate(0), completed: rate(1), failed: rate(2), cancelled: rate(3) }
    }

    /// Empties the seconds that have passed since the last look. A clock that went back adds to the newest second.
    fn turn_to(&mut self, now: Timestamp) {
        let second = now.as_millis() / 1_000;
        let passed = (second - self.newest).clamp(0, SECONDS as i64);
        for step in 1..=passed {
            self.seconds[(second - passed + step).rem_euclid(SECONDS as i64) as usize] = [0; 4];
        }
        self.newest = self.newest.max(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_watch_are_given_one_line_a_second() {
        // Each of them had a line of its own built, under the lock that commits take.
        let (line, begun) = (StatsLine::default(), Instant::now());
        let mut written = 0;
        let mut get = |millis: u64| {
            let now = begun + Duration::from_millis(millis);
            let line = line.get(now, || {
                written += 1;
                Bytes::from(written.to_string())
            });
            (line, written)
        };
        for who in 0..10_000 {
            assert_eq!(get(who / 11), ("1".into(), 1));
        }
        assert_eq!(get(1_000), ("2".into(), 2));
        assert_eq!(get(900), ("2".into(), 2), "who has waited for the lock");
        assert_eq!(get(1_999), ("2".into(), 2));
        assert_eq!(get(60_000), ("3".into(), 3), "nothing is written while nobody asks");
    }

    #[test]
    fn rates_forget_after_ten_seconds() {
        let at = |second: i64| Timestamp::from_millis(1_000_000 + second * 1_000);
        let mut rates = Rates::default();
        for second in 0..20 {
            for _ in 0..5 {
                rates.add(Event::Created, at(second));
            }
        }
        assert_eq!(rates.read(at(19)).created, 5.0);
        assert_eq!(rates.read(at(24)).created, 2.5);
        assert_eq!(rates.read(at(5)).created, 2.5, "a clock that goes back loses nothing");
        assert_eq!(rates.read(at(40)).created, 0.0);
    }
}
