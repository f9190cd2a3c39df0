//! What people set, and what it allows: the checker's account of queues, limits and turns.
//!
//! It is written to be seen through and not to be fast: every question is answered by a look at all there is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use taskhub::settings::{FairBy, Limits, QueueSettings, Rate, RateBy, Setting, SettingKind, SettingValue, UserLimits};
use taskhub::task::{Name, Task, TaskId, WaitsFor};

use super::rates::Rates;

pub type Ready = BTreeMap<(Name, Name), BTreeSet<(i16, TaskId)>>;

/// Whose turn it is in a queue that is shared out.
#[derive(Default)]
struct Turns {
    parties: BTreeMap<Option<Name>, (u64, usize)>,
    last: u64,
}

#[derive(Default)]
pub struct Rules {
    queues: BTreeMap<Name, QueueSettings>,
    limits: Limits,
    turns: BTreeMap<Name, Turns>,
    /// Keys of attempts that are over for the hub and perhaps not for their workers.
    stuck: HashMap<(TaskId, u32), (Name, Name)>,
    /// When tasks of a user for whom that is limited were submitted, on the monotonic count.
    submits: BTreeMap<String, VecDeque<u64>>,
    /// Whose in this round.
    submitted: Vec<String>,
}

impl Rules {
    /// What is set when a hub starts.
    pub fn of<'a>(settings: impl Iterator<Item = &'a Setting>) -> Rules {
        let mut rules = Rules::default();
        for setting in settings {
            rules.put((setting.value.kind(), setting.name.clone()), Some(setting));
        }
        rules
    }

    /// Nothing is set, and no task has a key: then only ranks count.
    pub fn are_plain(&self) -> bool {
        self.queues.is_empty() && self.limits == Limits::default()
    }

    pub fn put(&mut self, (kind, name): (SettingKind, Name), setting: Option<&Setting>) {
        match (kind, setting.map(|setting| &setting.value)) {
            (SettingKind::Queue, Some(SettingValue::Queue(settings))) => {
                self.queues.insert(name, settings.clone());
            }
            (SettingKind::Queue, _) => _ = self.queues.remove(&name),
            (SettingKind::Limits, Some(SettingValue::Limits(limits))) => self.limits = limits.clone(),
            (SettingKind::Limits, _) => self.limits = Limits::default(),
            (SettingKind::Schedule | SettingKind::TaskType, _) => {}
        }
    }

    pub fn queue(&self, name: &Name) -> QueueSettings {
        self.queues.get(name).cloned().unwrap_or_default()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether another setting of a queue moves its tasks, and does not only open or close it.
    pub fn moves(old: &QueueSettings, new: &QueueSettings) -> bool {
        let of_parts = |rate: &Rate| rate.by != RateBy::Queue;
        let all_but = |it: &QueueSettings| QueueSettings {
            concurrency: None,
            paused: false,
            rate: it.rate.filter(of_parts),
            ..it.clone()
        };
        all_but(old) != all_but(new)
    }

    /// The same of limits.
    pub fn limits_move(old: &Limits, new: &Limits) -> bool {
        let running = |limits: &Limits| {
            let users = limits.users.iter().filter_map(|(user, limits)| Some((user.clone(), limits.running?)));
            (limits.user.running, users.collect::<BTreeMap<_, _>>())
        };
        running(old) != running(new)
    }

    /// Whether its queue is shared out between some and limits others: who of those that a limit held back comes first then
    /// is not by turn.
    pub fn is_mixed(&self, task: &Task) -> bool {
        let settings = self.queue(&task.queue);
        match settings.fair_by {
            FairBy::None => false,
            FairBy::User => task.concurrency_key().is_some(),
            FairBy::Key => {
                let by_user = settings.rate.is_some_and(|rate| rate.by == RateBy::User);
                settings.user_concurrency.is_some() || self.limits.limit_running() || by_user
            }
        }
    }

    // Turns.

    fn party(&self, task: &Task) -> Option<Option<Name>> {
        match self.queue(&task.queue).fair_by {
            FairBy::None => None,
            FairBy::User => Some(task.user_id.clone()),
            FairBy::Key => Some(task.concurrency_key().cloned()),
        }
    }

    pub fn ready(&mut self, task: &Task) {
        let Some(party) = self.party(task) else { return };
        let turns = self.turns.entry(task.queue.clone()).or_default();
        let next = turns.last + 1;
        let (_, ready) = turns.parties.entry(party).or_insert_with(|| {
            turns.last = next;
            (next, 0)
        });
        *ready += 1;
    }

    /// Answers the turn of its party.
    pub fn not_ready(&mut self, task: &Task) -> Option<u64> {
        let party = self.party(task)?;
        let parties = &mut self.turns.get_mut(&task.queue)?.parties;
        let (turn, ready) = parties.get_mut(&party).expect("what is ready has a turn");
        let turn = *turn;
        *ready -= 1;
        if *ready == 0 {
            parties.remove(&party);
        }
        Some(turn)
    }

    /// A start was taken back.
    pub fn not_served(&mut self, task: &Task, turn: u64) {
        let Some(party) = self.party(task) else { return };
        let known = self.turns.get_mut(&task.queue).and_then(|turns| turns.parties.get_mut(&party));
        if let Some((known, _)) = known {
            *known = turn.min(*known);
        }
    }

    pub fn served(&mut self, task: &Task) {
        let Some(party) = self.party(task) else { return };
        let turns = self.turns.entry(task.queue.clone()).or_default();
        turns.last += 1;
        if let Some((turn, _)) = turns.parties.get_mut(&party) {
            *turn = turns.last;
        }
    }

    /// All parties of a queue, or of all, join anew.
    pub fn join_anew<'a>(&mut self, queue: Option<&Name>, ready: impl Iterator<Item = &'a Arc<Task>>) {
        let is_meant = |name: &Name| queue.is_none_or(|queue| queue == name);
        for (name, turns) in &mut self.turns {
            if is_meant(name) {
                turns.parties.clear();
            }
        }
        for task in ready.filter(|task| is_meant(&task.queue)) {
            self.ready(task);
        }
    }

    fn turn(&self, task: &Task) -> u64 {
        self.turn_of(task).unwrap_or(0)
    }

    /// The turn of its party, where its queue is shared out and it has something ready.
    pub fn turn_of(&self, task: &Task) -> Option<u64> {
        let party = self.party(task)?;
        self.turns.get(&task.queue)?.parties.get(&party).map(|(turn, _)| *turn)
    }

    /// The order within its queue.
    pub fn order(&self, task: &Task) -> (u64, i64, i16, TaskId) {
        (self.turn(task), self.aged(task), -i16::from(task.priority), task.task_id)
    }

    fn aged(&self, task: &Task) -> i64 {
        let ageing_ms = self.queue(&task.queue).ageing_ms;
        ageing_ms.map_or(0, |ms| task.updated_at.as_millis() - i64::from(task.priority) * ms as i64)
    }

    /// How many of these ready tasks go before one, all of which go to the same workers.
    pub fn ahead(&self, task: &Task, others: &[&Arc<Task>]) -> usize {
        let Some(own) = self.party(task) else {
            let before = |other: &&&Arc<Task>| match other.queue == task.queue {
                true => self.order(other) < self.order(task),
                false => (-i16::from(other.priority), other.task_id) < (-i16::from(task.priority), task.task_id),
            };
            return others.iter().filter(before).count();
        };
        let mut parties: BTreeMap<Option<Name>, usize> = BTreeMap::new();
        let (mut mine, mut of_others) = (0, 0);
        let rank = |task: &Task| (self.aged(task), -i16::from(task.priority), task.task_id);
        for other in others {
            if other.queue != task.queue {
                let before = (-i16::from(other.priority), other.task_id) < (-i16::from(task.priority), task.task_id);
                of_others += usize::from(before);
            } else if self.party(other) == Some(own.clone()) {
                mine += usize::from(rank(other) < rank(task));
            } else {
                *parties.entry(self.party(other).flatten()).or_default() += 1;
            }
        }
        let turn = |party: &Option<Name>| self.turns[&task.queue].parties[party].0;
        let before =
            |(party, ready): (&Option<Name>, &usize)| (*ready).min(mine + usize::from(turn(party) < turn(&own)));
        of_others + mine + parties.iter().map(before).sum::<usize>()
    }

    // Limits.

    /// An attempt is over for the hub and keeps its key.
    pub fn stuck(&mut self, task: &Task) {
        if let Some(key) = task.concurrency_key() {
            self.stuck.insert((task.task_id, task.attempt), (task.queue.clone(), key.clone()));
        }
    }

    /// Only these are stuck.
    pub fn still_stuck(&mut self, is: impl Fn((TaskId, u32)) -> bool) {
        self.stuck.retain(|attempt, _| is(*attempt));
    }

    /// What keeps a task from running, while these run.
    pub fn closed_by(&self, task: &Task, running: &[&Arc<Task>], rates: &Rates) -> Vec<WaitsFor> {
        let settings = self.queue(&task.queue);
        let count = |is: &dyn Fn(&Task) -> bool| running.iter().filter(|task| is(task)).count() as u32;
        let in_queue = |other: &Task| other.queue == task.queue;
        let of_user = |other: &Task| task.user_id.is_some() && other.user_id == task.user_id;
        let mut closed = Vec::new();
        if settings.paused {
            closed.push(WaitsFor::QueuePaused);
        }
        let of_queue = count(&in_queue);
        if let Some(limit) = settings.concurrency.filter(|limit| of_queue >= *limit) {
            closed.push(WaitsFor::QueueLimit { limit, running: of_queue });
        }
        let of_rate = || rates.closes(task, settings.rate);
        let of_whole = settings.rate.is_some_and(|rate| rate.by == RateBy::Queue);
        closed.extend(of_rate().filter(|_| of_whole));
        if let Some(key) = task.concurrency_key() {
            let stuck = self.stuck.values().filter(|held| held.0 == task.queue && held.1 == *key).count() as u32;
            let running = stuck + count(&|other| in_queue(other) && other.concurrency_key() == Some(key));
            if running >= settings.key_concurrency {
                closed.push(WaitsFor::KeyLimit { limit: settings.key_concurrency, running });
            }
        }
        let of_part = of_rate().filter(|_| !of_whole);
        let Some(user) = &task.user_id else {
            closed.extend(of_part);
            return closed;
        };
        let here = count(&|other| in_queue(other) && of_user(other));
        if let Some(limit) = settings.user_concurrency.filter(|limit| here >= *limit) {
            closed.push(WaitsFor::UserLimit { limit, running: here });
        }
        let over_all = count(&of_user);
        if let Some(limit) = self.limits.of(user.as_str()).running.filter(|limit| over_all >= *limit) {
            closed.push(WaitsFor::UserLimit { limit, running: over_all });
        }
        closed.extend(of_part);
        closed
    }

    // Quotas.

    /// A task of a user came in, who has so many waiting; it must have been allowed.
    pub fn submitted(&mut self, task: &Task, waiting: usize, mono: u64) {
        let Some(user) = &task.user_id else { return };
        let UserLimits { waiting: limit, submits_per_min, .. } = self.limits.of(user.as_str());
        assert!(
            limit.is_none_or(|limit| waiting < limit as usize),
            "{user} has {waiting} waiting and may have {limit:?}"
        );
        // It counts from when it is limited.
        let Some(limit) = submits_per_min else { return };
        let submits = self.submits.entry(user.to_string()).or_default();
        submits.retain(|at| at + 60_000 > mono);
        submits.push_back(mono);
        self.submitted.push(user.to_string());
        assert!(submits.len() as u32 <= limit, "{user} submitted {} in a minute", submits.len());
    }

    /// A round is over, or what came in in it was taken back.
    pub fn round_over(&mut self, taken_back: bool) {
        for user in self.submitted.drain(..) {
            if taken_back && let Some(submits) = self.submits.get_mut(&user) {
                submits.pop_back();
            }
        }
    }
}
