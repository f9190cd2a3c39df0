//! How many tasks of one user or one key run at once, or are handed out within a while, and who waits for that.
//!
//! A *limit* counts running tasks; that of a rate counts hand-outs, for as long as [`rates`](super::rates) says. While it is full, what it holds back is *blocked*: the buckets of ready tasks that are
//! under it ([`lanes`](super::lanes)), by lane, best first. A limit that blocks nothing and counts nothing is not kept, so
//! that users and keys of the past cost nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::settings::RateBy;
use crate::task::Name;

use super::buckets::{BucketId, LaneId, QueueId, Rank};

/// Whose tasks are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum LimitId {
    /// A user's, over all queues.
    User(Name),
    /// A user's, in one queue.
    QueueUser(QueueId, Name),
    /// Those of a `concurrency_key`, in one queue.
    QueueKey(QueueId, Name),
    /// What was handed out of a queue. It blocks nothing by itself: a queue is closed as a whole.
    Rate(QueueId),
    /// What was handed out of a user, in one queue.
    RateUser(QueueId, Name),
    /// What was handed out of a `concurrency_key`, in one queue.
    RateKey(QueueId, Name),
}

impl LimitId {
    /// The queue, where it is of one.
    pub(super) fn queue(&self) -> Option<QueueId> {
        match self {
            LimitId::User(_) => None,
            LimitId::QueueUser(id, _)
            | LimitId::QueueKey(id, _)
            | LimitId::Rate(id)
            | LimitId::RateUser(id, _)
            | LimitId::RateKey(id, _) => Some(*id),
        }
    }

    /// Whose hand-outs it counts, where it is the limit of a rate.
    pub(super) fn rate(&self) -> Option<(RateBy, Option<Name>)> {
        match self {
            LimitId::Rate(_) => Some((RateBy::Queue, None)),
            LimitId::RateUser(_, user) => Some((RateBy::User, Some(user.clone()))),
            LimitId::RateKey(_, key) => Some((RateBy::Key, Some(key.clone()))),
            LimitId::User(_) | LimitId::QueueUser(..) | LimitId::QueueKey(..) => None,
        }
    }
}

struct Limit {
    max: u32,
    running: u32,
    blocked: BTreeMap<LaneId, BTreeSet<(Rank, BucketId)>>,
    /// Lanes whose head is under it.
    heads: BTreeSet<LaneId>,
}

impl Limit {
    fn new(max: u32) -> Limit {
        Limit { max, running: 0, blocked: BTreeMap::new(), heads: BTreeSet::new() }
    }

    fn is_open(&self) -> bool {
        self.running < self.max
    }
}

/// Whether a limit has room.
pub(super) struct IsOpen(pub(super) bool);

/// All limits that count or block something.
#[derive(Default)]
pub(super) struct Limits(HashMap<LimitId, Limit>);

impl Limits {
    pub(super) fn is_open(&self, id: &LimitId) -> bool {
        self.0.get(id).is_none_or(Limit::is_open)
    }

    /// How many run under it.
    pub(super) fn running(&self, id: &LimitId) -> u32 {
        self.0.get(id).map_or(0, |limit| limit.running)
    }

    /// One task more runs under a limit. Answers the lanes that it blocks something of, or whose head is under it, if it is
    /// full from now on.
    pub(super) fn begin(&mut self, id: &LimitId, max: u32) -> Vec<LaneId> {
        let limit = self.0.entry(id.clone()).or_insert_with(|| Limit::new(max));
        let was_open = limit.is_open();
        limit.running += 1;
        match was_open && !limit.is_open() {
            true => limit.blocked.keys().chain(&limit.heads).copied().collect(),
            false => Vec::new(),
        }
    }

    /// The head of a lane is under a limit.
    pub(super) fn add_head(&mut self, id: &LimitId, max: u32, lane: LaneId) {
        self.0.entry(id.clone()).or_insert_with(|| Limit::new(max)).heads.insert(lane);
    }

    pub(super) fn remove_head(&mut self, id: &LimitId, lane: LaneId) {
        if let Some(limit) = self.0.get_mut(id) {
            limit.heads.remove(&lane);
        }
        self.drop_unused(id);
    }

    /// One task less. Answers the lanes of what it blocks, if it has room from now on.
    pub(super) fn end(&mut self, id: &LimitId) -> Vec<LaneId> {
        let Some(limit) = self.0.get_mut(id) else { return Vec::new() };
        let was_open = limit.is_open();
        limit.running -= 1;
        let opened = !was_open && limit.is_open();
        let lanes = if opened { limit.blocked.keys().copied().collect() } else { Vec::new() };
        self.drop_unused(id);
        lanes
    }

    /// So many count under the limit of a rate. Answers whether it has room where it had none, or the other way round, and the
    /// lanes that are to be looked at for that.
    pub(super) fn set(&mut self, id: &LimitId, max: u32, count: u32) -> Option<(IsOpen, Vec<LaneId>)> {
        let limit = self.0.entry(id.clone()).or_insert_with(|| Limit::new(max));
        let was_open = limit.is_open();
        limit.running = count;
        let changed = match (was_open, limit.is_open()) {
            (true, false) => Some((IsOpen(false), limit.blocked.keys().chain(&limit.heads).copied().collect())),
            (false, true) => Some((IsOpen(true), limit.blocked.keys().copied().collect())),
            _ => None,
        };
        self.drop_unused(id);
        changed
    }

    /// A bucket waits for a limit that is full.
    pub(super) fn block(&mut self, id: &LimitId, lane: LaneId, rank: Rank, bucket: BucketId) {
        let limit = self.0.get_mut(id).expect("a limit that is full counts something");
        limit.blocked.entry(lane).or_default().insert((rank, bucket));
    }

    /// It does not wait for it any more.
    pub(super) fn unblock(&mut self, id: &LimitId, lane: LaneId, rank: Rank, bucket: BucketId) {
        let Some(limit) = self.0.get_mut(id) else { return };
        if let Some(blocked) = limit.blocked.get_mut(&lane) {
            blocked.remove(&(rank, bucket));
            if blocked.is_empty() {
                limit.blocked.remove(&lane);
            }
        }
        self.drop_unused(id);
    }

    /// The best of a lane that waits for a limit.
    pub(super) fn first_blocked(&self, id: &LimitId, lane: LaneId) -> Option<(Rank, BucketId)> {
        self.0.get(id)?.blocked.get(&lane)?.first().copied()
    }

    fn drop_unused(&mut self, id: &LimitId) {
        if self.0.get(id).is_some_and(|limit| limit.running == 0 && limit.blocked.is_empty() && limit.heads.is_empty())
        {
            self.0.remove(id);
        }
    }
}
