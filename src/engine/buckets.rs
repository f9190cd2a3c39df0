//! One lane: its ready tasks in buckets, and the parties whose turn they come in. The essay is in [`lanes`](super::lanes).

use std::collections::{BTreeSet, HashMap};

use crate::task::{Name, Task, TaskId};

use super::few::Few;
use super::groups::GroupId;
use super::limits::LimitId;
use super::slab::Slab;

/// The order of ready tasks: the smaller, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The lowest byte is the urgency, 0 for the highest priority; above it, in a queue that ages, when the task would have
    /// had to become ready to stand here with priority 0, in milliseconds.
    pub(super) order: i64,
    /// Ids grow with time, so the oldest task comes first.
    pub(super) task_id: TaskId,
}

impl Rank {
    pub(super) fn of(task: &Task, ageing_ms: Option<u64>) -> Rank {
        let urgency = (100 - i64::from(task.priority)).clamp(0, 200);
        let aged = ageing_ms.map_or(0, |ms| task.updated_at.as_millis() - i64::from(task.priority) * ms as i64);
        Rank { order: aged << 8 | urgency, task_id: task.task_id }
    }

    /// Its place beside the heads of other queues, which is by priority, then age, whatever counts within its own.
    pub(super) fn among_queues(self) -> (u8, TaskId) {
        (self.order as u8, self.task_id)
    }
}

/// What is next in a lane: the turn of its party, and its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub(super) turn: u64,
    pub(super) rank: Rank,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct QueueId(pub(super) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(pub(super) u32);

/// A bucket of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BucketId(pub(super) u32);

/// Between whom a queue is shared; all are one where it is not.
pub(super) type Party = Option<Name>;

/// The ready tasks of one queue and type.
pub(super) struct Lane {
    pub(super) queue: QueueId,
    pub(super) name: (Name, Name),
    pub(super) ready: usize,
    pub(super) buckets: Slab<Bucket>,
    pub(super) bucket_ids: HashMap<BucketName, BucketId>,
    /// The listed buckets of each party, …
    pub(super) parties: HashMap<Party, LaneParty>,
    /// … and the parties that have one, in the order in which they are served.
    pub(super) order: BTreeSet<(Head, Party)>,
    /// The groups that take these tasks, and the head that they know of.
    pub(super) groups: Vec<GroupId>,
    pub(super) shown: Option<Head>,
    /// The limits that the head is under.
    pub(super) shown_under: Vec<(LimitId, u32)>,
}

pub(super) struct LaneParty {
    pub(super) turn: u64,
    pub(super) listed: BTreeSet<(Rank, BucketId)>,
}

/// Whose tasks stand in a bucket, as far as the queue tells them apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct BucketName {
    pub(super) user: Option<Name>,
    pub(super) key: Option<Name>,
}

pub(super) struct Bucket {
    pub(super) name: BucketName,
    pub(super) party: Party,
    pub(super) ready: Few<Rank>,
    pub(super) place: Place,
}

pub(super) enum Place {
    /// Nowhere: it is new, or being moved.
    Nowhere,
    Listed,
    Blocked(LimitId),
}

impl Lane {
    pub(super) fn list(&mut self, id: BucketId, rank: Rank, turn: u64) {
        let bucket = &mut self.buckets[id.0];
        bucket.place = Place::Listed;
        let new = || LaneParty { turn, listed: BTreeSet::new() };
        let party = self.parties.entry(bucket.party.clone()).or_insert_with(new);
        let before = party.listed.first().copied();
        party.listed.insert((rank, id));
        if before.is_none_or(|(first, _)| rank < first) {
            if let Some((first, _)) = before {
                self.order.remove(&(Head { turn: party.turn, rank: first }, bucket.party.clone()));
            }
            self.order.insert((Head { turn: party.turn, rank }, bucket.party.clone()));
        }
    }

    /// Takes a bucket off the list, where it stood with this rank.
    pub(super) fn unlist(&mut self, id: BucketId, rank: Rank) {
        let name = &self.buckets[id.0].party;
        let Some(party) = self.parties.get_mut(name) else { return };
        let first = party.listed.first().copied();
        party.listed.remove(&(rank, id));
        if first == Some((rank, id)) {
            self.order.remove(&(Head { turn: party.turn, rank }, name.clone()));
            match party.listed.first() {
                Some((next, _)) => _ = self.order.insert((Head { turn: party.turn, rank: *next }, name.clone())),
                None => _ = self.parties.remove(name),
            }
        }
    }

    /// A party has another turn. Answers whether anything of it is listed here.
    pub(super) fn set_turn(&mut self, name: &Party, turn: u64) -> bool {
        let Some(party) = self.parties.get_mut(name) else { return false };
        if let Some((rank, _)) = party.listed.first() {
            self.order.remove(&(Head { turn: party.turn, rank: *rank }, name.clone()));
            self.order.insert((Head { turn, rank: *rank }, name.clone()));
        }
        party.turn = turn;
        true
    }

    /// The ready tasks before a place, whatever blocks them, at most `max`.
    pub(super) fn before(&self, rank: Rank, max: usize) -> usize {
        self.buckets.iter().fold(0, |n, bucket| n + bucket.ready.before(rank, max - n))
    }
}
