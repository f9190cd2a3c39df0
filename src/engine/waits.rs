//! Why a task waits, asked for one task at a time.
//!
//! Nothing is kept for it: what a lane, a group and a record say is put into words when somebody asks. The nearest reason
//! comes first: what must happen before anything else does.

use std::collections::{BTreeMap, BTreeSet};

use crate::task::{AHEAD_MAX, DEPENDENCIES_TOLD_MAX, Status, Task, TaskId, WaitsFor};

use super::buckets::{Lane, Party, Rank};
use super::core::Engine;
use super::groups::WorkerGroups;
use super::lanes::Lanes;
use super::limits::LimitId;
use super::rates::Rates;
use super::{Link, Now};

impl Engine {
    pub(super) fn waits_for(&self, task_id: TaskId, now: Now) -> Vec<WaitsFor> {
        let Some(task) = self.tasks.get(&task_id) else { return Vec::new() };
        let time = match task.status {
            Status::Scheduled if task.is_workflow() => {
                return vec![WaitsFor::Time { until: self.ready_at(task, now) }];
            }
            Status::Scheduled if task.run_at.is_none() => return Vec::new(),
            Status::Scheduled => Some(WaitsFor::Time { until: self.ready_at(task, now) }),
            Status::Pending if task.is_workflow() => return Vec::new(),
            Status::Pending => None,
            Status::Waiting => {
                let count = self.held_by(task).count();
                let task_ids = self.held_by(task).take(DEPENDENCIES_TOLD_MAX).collect();
                return vec![WaitsFor::Dependency { task_ids, count }];
            }
            _ => return Vec::new(),
        };
        let closed = if time.is_some() { Vec::new() } else { self.lanes.closed_by(task, &self.rates, now) };
        let then = match self.is_taken(task) {
            false => Some(WaitsFor::NoWorker),
            // Where it stands counts once nothing else is in its way.
            true if time.is_none() && closed.is_empty() => {
                Some(WaitsFor::Turn { ahead: Some(self.lanes.ahead(task, &self.groups)) })
            }
            true => None,
        };
        time.into_iter().chain(closed).chain(then).collect()
    }

    /// Whether a worker is connected or claims that takes this task, busy or not.
    fn is_taken(&self, task: &Task) -> bool {
        let (queue, task_type) = (task.queue.as_str(), task.task_type.as_str());
        // Groups are few and workers many: look at these only where there may be one.
        self.groups.has_member_for(queue, task_type)
            && (self.claims.values().any(|claim| self.groups.takes(claim.group, queue, task_type))
                || self
                    .workers
                    .values()
                    .any(|worker| worker.link != Link::Away && worker.accepts.takes(queue, task_type)))
    }
}

impl Lanes {
    /// What closes a task's way beside its turn, the widest first.
    fn closed_by(&self, task: &Task, rates: &Rates, now: Now) -> Vec<WaitsFor> {
        let Some(&queue_id) = self.queue_ids.get(&task.queue) else { return Vec::new() };
        let queue = &self.queues[queue_id.0];
        let mut closed = Vec::new();
        if queue.settings.paused {
            closed.push(WaitsFor::QueuePaused);
        }
        if let Some(limit) = queue.settings.concurrency.filter(|max| queue.running >= *max) {
            closed.push(WaitsFor::QueueLimit { limit, running: queue.running });
        }
        let until = |limit: &LimitId| {
            // Where that is over, and only not looked at yet, it does not wait for it.
            let left_ms =
                rates.opens_at(limit, queue.settings.rate?)?.checked_sub(now.mono).filter(|left| *left > 0)?;
            Some(WaitsFor::Rate { until: now.wall.plus_millis(left_ms) })
        };
        closed.extend(until(&LimitId::Rate(queue_id)));
        for (id, limit) in self.limits_of(queue_id, task.user_id.as_ref(), task.concurrency_key()) {
            if self.limits.is_open(&id) {
                continue;
            }
            let running = self.limits.running(&id);
            closed.extend(match id {
                LimitId::QueueKey(..) => Some(WaitsFor::KeyLimit { limit, running }),
                LimitId::User(_) | LimitId::QueueUser(..) => Some(WaitsFor::UserLimit { limit, running }),
                LimitId::Rate(_) | LimitId::RateUser(..) | LimitId::RateKey(..) => until(&id),
            });
        }
        closed
    }

    /// How many ready tasks come before this one for the workers that take it, at most [`AHEAD_MAX`]. In a queue that is
    /// shared out these are, of its own party, those of better rank, and of each other one as many as have their turn before.
    fn ahead(&self, task: &Task, groups: &WorkerGroups) -> usize {
        let Some(own_id) = self.lane_ids.get(&(task.queue.clone(), task.task_type.clone())) else { return 0 };
        let own = &self.lanes[own_id.0];
        let taking: BTreeSet<_> = own.groups.iter().copied().filter(|id| groups.has_members(*id)).collect();
        let queue = &self.queues[own.queue.0];
        let rank = Rank::of(task, queue.settings.ageing_ms);
        let competes = |lane: &&Lane| lane.groups.iter().any(|id| taking.contains(id));
        let mut ahead = 0;
        let mut parties: BTreeMap<Party, usize> = BTreeMap::new();
        for lane in self.lane_ids.values().map(|id| &self.lanes[id.0]).filter(competes) {
            if lane.queue != own.queue {
                let (urgency, task_id) = rank.among_queues();
                let ageing = self.queues[lane.queue.0].settings.ageing_ms.is_some();
                let before = |other: &Rank| other.among_queues() < (urgency, task_id);
                ahead += match ageing {
                    false => lane.before(Rank { order: i64::from(urgency), task_id }, AHEAD_MAX - ahead),
                    true => lane
                        .buckets
                        .iter()
                        .flat_map(|it| it.ready.iter())
                        .filter(before)
                        .take(AHEAD_MAX - ahead)
                        .count(),
                };
            } else if queue.is_shared() {
                for bucket in lane.buckets.iter() {
                    let count = parties.entry(bucket.party.clone()).or_default();
                    *count += match bucket.party == queue.party_of(task) {
                        true => bucket.ready.before(rank, AHEAD_MAX),
                        false => bucket.ready.len(),
                    };
                }
            } else {
                ahead += lane.before(rank, AHEAD_MAX - ahead);
            }
        }
        if queue.is_shared() {
            let own = queue.party_of(task);
            let turn = |party: &Party| queue.parties.get(party).map_or(u64::MAX, |turn| turn.number);
            let mine = parties.get(&own).copied().unwrap_or(0);
            ahead += mine;
            for (party, ready) in parties.iter().filter(|(party, _)| **party != own) {
                ahead += (*ready).min(mine + usize::from(turn(party) < turn(&own)));
                if ahead >= AHEAD_MAX {
                    break;
                }
            }
        }
        ahead.min(AHEAD_MAX)
    }
}
