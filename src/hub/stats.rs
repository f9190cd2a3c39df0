//! Small counters: unfinished tasks by name, and how many tasks a second; and the line that tells of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::task::{Event, Name, Status};
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
    /// Of all names together.
    pub(super) fn of(by_status: &BTreeMap<Status, u64>) -> UnfinishedCounts {
        let mut all = UnfinishedCounts::default();
        by_status.iter().for_each(|(status, count)| all.add(*status, *count as i64));
        all
    }

    pub(super) fn add(&mut self, status: Status, by: i64) {
        if let Some(count) = self.0.get_mut(status as usize) {
            *count = count.saturating_add_signed(by);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn less(mut self, others: &UnfinishedCounts) -> UnfinishedCounts {
        self.0.iter_mut().zip(others.0).for_each(|(count, other)| *count = count.saturating_sub(other));
        self
    }

    fn stats(&self) -> wire::QueueStats {
        let [waiting, scheduled, pending, running] = self.0;
        wire::QueueStats { waiting, scheduled, pending, running }
    }
}

/// The most queues, and the most types, that are told by name: more than a person reads, and with the longest of names
/// still less than a page loads once. There may be a million, with an id in each.
const NAMES_MAX: usize = 200;
/// Where there are more, those with the most tasks are looked for at most this often, and in no more than this part of the
/// time: it is a look at every name, under the lock that commits take.
const CHOOSE_EVERY: Duration = Duration::from_secs(1);
const CHOOSE_PART: u32 = 100;

/// Unfinished tasks by name.
#[derive(Default)]
pub(super) struct NameCounts {
    counts: HashMap<Name, UnfinishedCounts>,
    /// The names that are told, where there are more than may be; and until when they are.
    told: Vec<Name>,
    told_until: Option<Instant>,
}

/// Counts of the names that are told, and of all others together.
pub(super) struct Told {
    named: Vec<(Name, UnfinishedCounts)>,
    other: Option<(usize, UnfinishedCounts)>,
}

impl NameCounts {
    pub(super) fn add(&mut self, name: &Name, status: Status, by: i64) {
        match self.counts.get_mut(name) {
            Some(counts) => {
                counts.add(status, by);
                if counts.is_empty() {
                    self.counts.remove(name);
                }
            }
            None => self.counts.entry(name.clone()).or_default().add(status, by),
        }
    }

    /// Of one name.
    pub(super) fn of(&self, name: &Name) -> wire::QueueStats {
        self.counts.get(name).copied().unwrap_or_default().stats()
    }

    /// What is told; `all` is the sum of all names. The counts are of now, whenever their names were chosen.
    pub(super) fn told(&mut self, all: UnfinishedCounts, now: Instant) -> Told {
        if self.counts.len() <= NAMES_MAX {
            (self.told, self.told_until) = (Vec::new(), None);
            return Told {
                named: self.counts.iter().map(|(name, counts)| (name.clone(), *counts)).collect(),
                other: None,
            };
        }
        if self.told_until.is_none_or(|until| now >= until) {
            let begun = Instant::now();
            self.told = self.largest();
            self.told_until = Some(now + CHOOSE_EVERY.max(CHOOSE_PART * begun.elapsed()));
        }
        let counts = |name: &Name| Some((name.clone(), *self.counts.get(name)?));
        let named: Vec<_> = self.told.iter().filter_map(counts).collect();
        let rest = named.iter().fold(all, |rest, (_, counts)| rest.less(counts));
        Told { other: Some((self.counts.len() - named.len(), rest)), named }
    }

    /// The names with the most tasks.
    fn largest(&self) -> Vec<Name> {
        let mut largest = BinaryHeap::with_capacity(NAMES_MAX + 1);
        let mut least = 0;
        for (name, counts) in &self.counts {
            let total = counts.total();
            if largest.len() < NAMES_MAX || total > least {
                largest.push(Reverse((total, name)));
                if largest.len() > NAMES_MAX {
                    largest.pop();
                }
                least = largest.peek().map_or(0, |Reverse((total, _))| *total);
            }
        }
        largest.into_iter().map(|Reverse((_, name))| name.clone()).collect()
    }
}

impl Told {
    pub(super) fn stats(self) -> (BTreeMap<String, wire::QueueStats>, Option<wire::OtherStats>) {
        let named = self.named.into_iter().map(|(name, counts)| (name.to_string(), counts.stats())).collect();
        let other = |(names, counts): (usize, UnfinishedCounts)| wire::OtherStats {
            names: names as u64,
            counts: counts.stats(),
        };
        (named, self.other.map(other))
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
    /// `now` is in milliseconds on the monotonic count, as everywhere here: a rate is of time that passed.
    pub(super) fn add(&mut self, event: Event, now: u64) {
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

    pub(super) fn read(&mut self, now: u64) -> wire::Rates {
        self.turn_to(now);
        let rate =
            |column: usize| self.seconds.iter().map(|second| second[column]).sum::<u64>() as f64 / SECONDS as f64;
        wire::Rates { created: rate(0), completed: rate(1), failed: rate(2), cancelled: rate(3) }
    }

    /// Empties the seconds that have passed since the last look.
    fn turn_to(&mut self, now: u64) {
        let second = (now / 1_000) as i64;
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

    /// Names with their tasks, most first; and how many others, with theirs.
    type Counted = (Vec<(String, u64)>, Option<(u64, u64)>);

    fn told(counts: &mut NameCounts, now: Instant) -> Counted {
        let mut all = UnfinishedCounts::default();
        for count in counts.counts.values() {
            all.0.iter_mut().zip(count.0).for_each(|(all, count)| *all += count);
        }
        let (named, other) = counts.told(all, now).stats();
        let mut named: Vec<_> = named.into_iter().map(|(name, counts)| (name, counts.pending)).collect();
        named.sort_by_key(|(name, pending)| (Reverse(*pending), name.clone()));
        (named, other.map(|other| (other.names, other.counts.pending)))
    }

    /// Regression: all names were told, each second, to everybody who looked: megabytes, where names carry an id.
    #[test]
    fn the_largest_are_told_and_the_others_are_summed() {
        let (mut counts, now) = (NameCounts::default(), Instant::now());
        let name = |n: i64| Name::new(&format!("queue-{n:05}"));
        for n in 1..=NAMES_MAX as i64 {
            counts.add(&name(n), Status::Pending, n);
        }
        let (named, other) = told(&mut counts, now);
        assert_eq!((named.len(), named[0].1, other), (NAMES_MAX, NAMES_MAX as u64, None), "as many as may be");
        for n in 201..=20_000 {
            counts.add(&name(n), Status::Pending, n);
        }
        let (named, other) = told(&mut counts, now);
        let sum = |from: u64, to: u64| (from..=to).sum::<u64>();
        assert_eq!((named.len(), named[0].1, named[199].1), (NAMES_MAX, 20_000, 19_801));
        assert_eq!(other, Some((19_800, sum(1, 19_800))));
        // A moment later: the counts are new, the names are not looked for again yet.
        counts.add(&name(20_000), Status::Pending, -20_000);
        counts.add(&name(1), Status::Pending, 99_999);
        let (named, other) = told(&mut counts, now + Duration::from_millis(500));
        assert_eq!((named.len(), named[0].1), (NAMES_MAX - 1, 19_999));
        assert_eq!(other, Some((19_800, sum(1, 19_800) + 99_999)));
        let (named, other) = told(&mut counts, now + Duration::from_secs(60));
        assert_eq!((named.len(), named[0].1, named[199].1), (NAMES_MAX, 100_000, 19_801));
        assert_eq!(other, Some((19_799, sum(2, 19_800))));
        for n in 1..=19_990 {
            let left = counts.counts.get(&name(n)).map_or(0, |counts| counts.total() as i64);
            counts.add(&name(n), Status::Pending, -left);
        }
        assert_eq!(told(&mut counts, now + Duration::from_secs(60)).0.len(), 9, "few are all told, at once");
    }

    #[test]
    fn rates_forget_after_ten_seconds() {
        let at = |second: u64| 1_000_000 + second * 1_000;
        let mut rates = Rates::default();
        for second in 0..20 {
            for _ in 0..5 {
                rates.add(Event::Created, at(second));
            }
        }
        assert_eq!(rates.read(at(19)).created, 5.0);
        assert_eq!(rates.read(at(24)).created, 2.5);
        assert_eq!(rates.read(at(5)).created, 2.5, "who has waited for the lock");
        assert_eq!(rates.read(at(40)).created, 0.0);
    }
}
