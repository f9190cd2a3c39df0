//! The checker's account of rates: what was handed out when.
//!
//! It is kept twice. The *truth* has each hand-out in the time of this world, which no clock shows and no restart ends; by it no
//! window may hold too much. What is *known* has the times that a hub can know, on the count of its machine; by it a
//! task that may run does.

use std::collections::BTreeMap;

use taskhub::engine::Now;
use taskhub::settings::{HandOuts, Rate, RateBy, Setting, SettingValue};
use taskhub::task::{Name, Task, WaitsFor};

/// What is counted together: in a queue, by what, and whose.
pub type Counted = (Name, RateBy, Option<Name>);

/// What counts in a queue: as known, and in truth.
pub type Saved = (BTreeMap<Counted, Vec<i64>>, BTreeMap<Counted, Vec<u64>>);

#[derive(Default)]
pub struct Rates {
    known: BTreeMap<Counted, Vec<i64>>,
    truth: BTreeMap<Counted, Vec<u64>>,
    /// The same by when it was decided, which is all that the next hub knows.
    decided: BTreeMap<Counted, Vec<u64>>,
    /// What this round handed out, with the rates.
    round: Vec<(Counted, Rate)>,
    /// When that was decided, in the time of this world.
    pub time: u64,
    now: Option<Now>,
}

/// What a task counts with, where its queue has a rate.
fn counted(task: &Task, rate: Option<Rate>) -> Option<(Counted, Rate)> {
    let rate = rate?;
    let name = match rate.by {
        RateBy::Queue => None,
        RateBy::User => Some(task.user_id.clone()?),
        RateBy::Key => Some(task.concurrency_key()?.clone()),
    };
    Some(((task.queue.clone(), rate.by, name), rate))
}

impl Rates {
    /// Decisions are made at this time.
    pub fn at(&mut self, now: Now) {
        self.now = Some(now);
    }

    /// What a task waits for, where it is a rate.
    pub fn closes(&self, task: &Task, rate: Option<Rate>) -> Option<WaitsFor> {
        let now = self.now.expect("something is being decided");
        let opens_at = self.opens_at(task, rate)?;
        let until = now.wall.plus_millis((opens_at - now.mono as i64) as u64);
        Some(WaitsFor::Rate { until })
    }

    fn opens_at(&self, task: &Task, rate: Option<Rate>) -> Option<i64> {
        let now = self.now.expect("something is being decided");
        let (counted, rate) = counted(task, rate)?;
        // Times are of whole milliseconds, so it takes one more to be sure.
        let ends = self.known.get(&counted)?.iter().map(|at| at + rate.per_ms as i64 + 1);
        let mut ends: Vec<i64> = ends.filter(|end| *end > now.mono as i64).collect();
        ends.sort_unstable();
        let room_after = (ends.len() + 1).checked_sub(rate.limit as usize).filter(|after| *after > 0)?;
        Some(ends[room_after - 1])
    }

    /// In how many milliseconds a task may run that waits for a rate.
    pub fn opens_in(&self, task: &Task, rate: Option<Rate>) -> Option<u64> {
        let mono = self.now.expect("something is being decided").mono as i64;
        self.opens_at(task, rate).map(|at| (at - mono) as u64)
    }

    /// A task was handed out.
    pub fn served(&mut self, task: &Task, rate: Option<Rate>) {
        let Some((counted, rate)) = counted(task, rate) else { return };
        let mono = self.now.expect("something is being decided").mono as i64;
        self.known.entry(counted.clone()).or_default().push(mono);
        self.round.push((counted, rate));
    }

    /// What the round handed out was not written down.
    pub fn taken_back(&mut self) {
        for (counted, _) in self.round.drain(..).rev() {
            self.known.get_mut(&counted).expect("it was put there").pop();
        }
    }

    /// It was, and given away by this time of the world, and this count.
    pub fn given(&mut self, time: u64, mono: u64) {
        let mut of_round: BTreeMap<&Counted, usize> = BTreeMap::new();
        for (counted, rate) in &self.round {
            *of_round.entry(counted).or_default() += 1;
            let decided = self.time;
            let truth = self.truth.entry(counted.clone()).or_default();
            let within = truth.iter().filter(|at| *at + rate.per_ms >= decided).count() as u32;
            assert!(within < rate.limit, "{} of {counted:?} within {} ms at {decided}", within + 1, rate.per_ms);
            truth.push(time);
            self.decided.entry(counted.clone()).or_default().push(decided);
            truth.retain(|at| *at + rate.per_ms >= decided);
        }
        for (counted, count) in of_round {
            let known = self.known.get_mut(counted).expect("it was put there");
            let from = known.len() - count;
            known[from..].fill(mono as i64);
        }
        self.round.clear();
    }

    /// A queue has another rate. Answers what is forgotten with that.
    pub fn changes(&mut self, queue: &Name, old: Option<Rate>, new: Option<Rate>) -> Saved {
        let is_of = |counted: &Counted| counted.0 == *queue;
        let mut known = BTreeMap::new();
        let mut truth = BTreeMap::new();
        let mono = self.now.expect("something is being decided").mono as i64;
        let goes_on = old.filter(|old| new.is_some_and(|new| new.by == old.by));
        for (counted, times) in self.known.iter_mut().filter(|(counted, _)| is_of(counted)) {
            known.insert(counted.clone(), times.clone());
            times.retain(|at| goes_on.is_some_and(|old| at + old.per_ms as i64 + 1 > mono));
            times.retain(|at| new.is_some_and(|new| at + new.per_ms as i64 + 1 > mono));
        }
        for (counted, times) in self.truth.iter_mut().filter(|(counted, _)| is_of(counted)) {
            truth.insert(counted.clone(), times.clone());
            let time = self.time;
            times.retain(|at| goes_on.is_some_and(|old| at + old.per_ms >= time));
            times.retain(|at| new.is_some_and(|new| at + new.per_ms >= time));
        }
        (known, truth)
    }

    /// It has not.
    pub fn stays(&mut self, (known, truth): Saved) {
        self.known.extend(known);
        self.truth.extend(truth);
    }

    /// Another hub begins, and knows of these; by their rates, where there is one.
    pub fn restarted<'a>(&mut self, rows: &[HandOuts], settings: impl Iterator<Item = &'a Setting>, now: Now) {
        self.now = Some(now);
        self.round.clear();
        self.known.clear();
        let rates: BTreeMap<&Name, Rate> = settings
            .filter_map(|setting| match &setting.value {
                SettingValue::Queue(settings) => Some((&setting.name, settings.rate?)),
                _ => None,
            })
            .collect();
        for HandOuts { queue, by, name, at, count, .. } in rows {
            if rates.get(queue).is_some_and(|rate| rate.by == *by) {
                let known = self.known.entry((queue.clone(), *by, name.clone())).or_default();
                known.extend(std::iter::repeat_n(*at, *count as usize));
            }
        }
        // What was given later than it was decided, this hub does not know.
        for (counted, times) in &mut self.truth {
            let decided = self.decided.get(counted).map(Vec::as_slice).unwrap_or_default();
            let from = decided.len() - times.len().min(decided.len());
            times.clear();
            times.extend(&decided[from..]);
        }
    }
}
