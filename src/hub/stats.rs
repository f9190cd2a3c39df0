//! Small counters: unfinished tasks by name, all tasks by user, and how many tasks a second; and the line that tells of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::task::{Event, Name, Status, Task};
use crate::wire;

use super::Hub;

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

    /// One task goes from one status to another, or comes or goes.
    fn shift(&mut self, from: Option<Status>, to: Option<Status>) {
        from.into_iter().for_each(|status| self.add(status, -1));
        to.into_iter().for_each(|status| self.add(status, 1));
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

    /// One task of a name goes from one status to another; `None` is where it is not there, and where it is final.
    pub(super) fn shift(&mut self, name: &Name, from: Option<Status>, to: Option<Status>) {
        if from == to {
            return;
        }
        match self.counts.get_mut(name) {
            Some(counts) => {
                counts.shift(from, to);
                if counts.is_empty() {
                    self.counts.remove(name);
                }
            }
            None => self.counts.entry(name.clone()).or_default().shift(from, to),
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

/// All tasks of each user. A user whose last task is gone costs nothing, one without unfinished tasks some hundred bytes.
#[derive(Default)]
pub(super) struct UserCounts(HashMap<Name, OfUser>);

#[derive(Default)]
struct OfUser {
    /// By status.
    tasks: [u32; Status::ALL.len()],
    /// Those that are unfinished; `None` where none is.
    names: Option<Box<Unfinished>>,
}

/// Unfinished tasks by queue and by type.
#[derive(Default)]
struct Unfinished {
    queues: NameCounts,
    types: NameCounts,
}

impl UserCounts {
    /// So many final tasks of a user were there before the hub started.
    pub(super) fn restore(&mut self, user: Name, status: Status, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.0.entry(user).or_default().tasks[status as usize] += count;
    }

    /// One task goes from one status to another, or comes or goes.
    pub(super) fn shift(&mut self, task: &Task, from: Option<Status>, to: Option<Status>) {
        let Some(user) = task.user_id.as_ref().filter(|_| from != to) else { return };
        if !self.0.contains_key(user) {
            self.0.insert(user.clone(), OfUser::default());
        }
        let Some(of) = self.0.get_mut(user) else { return };
        for (status, by) in from.map(|status| (status, -1)).into_iter().chain(to.map(|status| (status, 1))) {
            let count = &mut of.tasks[status as usize];
            *count = count.saturating_add_signed(by);
        }
        let names = of.names.get_or_insert_default();
        let (from, to) = (unfinished(from), unfinished(to));
        names.queues.shift(&task.queue, from, to);
        names.types.shift(&task.task_type, from, to);
        if names.queues.counts.is_empty() && names.types.counts.is_empty() {
            of.names = None;
            if of.tasks.iter().all(|count| *count == 0) {
                self.0.remove(user);
            }
        }
    }

    /// The counts of one user: of each status, and of the unfinished ones by queue and by type.
    pub(super) fn told(&mut self, user: &Name, now: Instant) -> (BTreeMap<Status, u64>, Told, Told) {
        let none = || Told { named: Vec::new(), other: None };
        let Some(of) = self.0.get_mut(user) else { return (BTreeMap::new(), none(), none()) };
        let by_status = Status::ALL.into_iter().map(|status| (status, of.tasks[status as usize].into())).collect();
        let all = UnfinishedCounts::of(&by_status);
        match &mut of.names {
            Some(names) => (by_status, names.queues.told(all, now), names.types.told(all, now)),
            None => (by_status, none(), none()),
        }
    }
}

/// A status that stands for an unfinished task.
pub(super) fn unfinished(status: Option<Status>) -> Option<Status> {
    status.filter(|status| !status.is_final())
}

/// Seconds that the rates are averaged over.
const SECONDS: usize = 10;

/// How many tasks were created and how many ended, second by second.
#[derive(Default)]
pub(super) struct Rates {
    /// Created, completed, failed, cancelled; by second modulo [`SECONDS`].
    seconds: [[u32; 4]; SECONDS],
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
        let rate = |column: usize| {
            self.seconds.iter().map(|second| u64::from(second[column])).sum::<u64>() as f64 / SECONDS as f64
        };
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

/// Rates of those users whose tasks came or ended a moment ago.
///
/// Who has none any more is let go of without a look at each: those of the last seconds stand in one map, those of the seconds before
/// in another, which is then dropped as a whole.
#[derive(Default)]
pub(super) struct UserRates {
    newer: HashMap<Name, Rates>,
    older: HashMap<Name, Rates>,
    /// Which [`SECONDS`] those in `newer` are of.
    period: u64,
}

impl UserRates {
    pub(super) fn add(&mut self, user: &Name, event: Event, now: u64) {
        self.turn_to(now);
        match self.newer.get_mut(user) {
            Some(rates) => rates.add(event, now),
            None => {
                let mut rates = self.older.remove(user).unwrap_or_default();
                rates.add(event, now);
                self.newer.insert(user.clone(), rates);
            }
        }
    }

    pub(super) fn read(&mut self, user: &Name, now: u64) -> wire::Rates {
        self.turn_to(now);
        let rates = self.newer.get_mut(user).or_else(|| self.older.get_mut(user));
        rates.map(|rates| rates.read(now)).unwrap_or_default()
    }

    fn turn_to(&mut self, now: u64) {
        let period = now / 1_000 / SECONDS as u64;
        if period <= self.period {
            return;
        }
        let newer = std::mem::take(&mut self.newer);
        self.older = if period == self.period + 1 { newer } else { HashMap::new() };
        self.period = period;
    }
}

impl Hub {
    /// Counts and rates.
    pub fn stats(&self) -> wire::Stats {
        wire::Stats {
            workers: Some(self.shared().workers()),
            sockets: Some(self.shared().metrics.sockets()),
            ..self.with_state(self.shared().board.stats())
        }
    }

    /// Counts and rates of one user's tasks.
    pub fn stats_of(&self, user: &Name) -> wire::Stats {
        self.with_state(self.shared().board.stats_of(user))
    }

    fn with_state(&self, counts: wire::Stats) -> wire::Stats {
        wire::Stats {
            epoch: self.epoch().to_owned(),
            uptime_ms: self.shared().clock.uptime().as_millis() as u64,
            feed_lag_ms: self.feed().lag().as_millis() as u64,
            ..counts
        }
    }

    /// The line that tells those who watch the counts of them: at most a second old, and the same bytes for all.
    pub fn stats_line(&self) -> Bytes {
        self.shared().stats_line.get(Instant::now(), || wire::stats_line(&self.stats()))
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
    fn a_user_without_tasks_costs_nothing() {
        let task = |user: &str| {
            let record = r#"{"task_id":"01890000-0000-7000-8000-000000000001","task_type":"t","queue":"q","rev":1,
                "created_at":"2026-12-01T12:00:00Z","updated_at":"2026-12-01T12:00:00Z","priority":0,"status":"pending",
                "attempt":0,"tries":0,"max_attempts":1,"crashes":0,"max_crashes":3}"#;
            Task { user_id: Some(Name::new(user)), ..Task::parse(record.as_bytes()).unwrap() }
        };
        let (ann, bob, now) = (task("ann"), task("bob"), Instant::now());
        let mut users = UserCounts::default();
        users.restore(Name::new("ann"), Status::Failed, 2);
        users.shift(&ann, None, Some(Status::Pending));
        users.shift(&bob, None, Some(Status::Pending));
        let told = |users: &mut UserCounts, user: &str| {
            let (by_status, queues, types) = users.told(&Name::new(user), now);
            let by_status: Vec<_> = by_status.into_iter().filter(|(_, count)| *count > 0).collect();
            (by_status, queues.stats().0.len(), types.stats().0.len())
        };
        assert_eq!(told(&mut users, "ann"), (vec![(Status::Pending, 1), (Status::Failed, 2)], 1, 1));
        users.shift(&ann, Some(Status::Pending), Some(Status::Running));
        users.shift(&ann, Some(Status::Running), Some(Status::Completed));
        assert_eq!(told(&mut users, "ann"), (vec![(Status::Completed, 1), (Status::Failed, 2)], 0, 0));
        assert_eq!(told(&mut users, "bob"), (vec![(Status::Pending, 1)], 1, 1));
        assert_eq!(told(&mut users, "eve"), (vec![], 0, 0));
        users.shift(&bob, Some(Status::Pending), None);
        users.shift(&ann, Some(Status::Completed), None);
        users.shift(&ann, Some(Status::Failed), None);
        assert_eq!(users.0.len(), 1);
        users.shift(&ann, Some(Status::Failed), None);
        assert!(users.0.is_empty());
    }

    #[test]
    fn rates_of_users_who_do_nothing_are_let_go() {
        let at = |second: u64| 1_000_000 + second * 1_000;
        let (mut rates, ann, bob) = (UserRates::default(), Name::new("ann"), Name::new("bob"));
        for second in 0..20 {
            rates.add(&ann, Event::Created, at(second));
        }
        rates.add(&bob, Event::Failed, at(19));
        assert_eq!((rates.read(&ann, at(19)).created, rates.read(&bob, at(19)).failed), (1.0, 0.1));
        assert_eq!(rates.read(&ann, at(24)).created, 0.5);
        rates.add(&bob, Event::Failed, at(25));
        assert_eq!(rates.read(&bob, at(25)).failed, 0.2);
        assert_eq!(rates.read(&ann, at(40)).created, 0.0);
        assert_eq!(rates.newer.len() + rates.older.len(), 0);
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
