//! Small counters: unfinished tasks by name, and how many tasks a second.

use crate::task::{Event, Status, Timestamp};
use crate::wire;

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
