//! Which worker takes which task next: worker groups, and the free slots in them.
//!
//! Workers and open claims that accept the same queues and types form a *group*. A group keeps the heads of the lanes it
//! takes: those of one queue in the order of that queue, and of each open queue the best, by priority and then age. And it
//! keeps the free *slots* of its members: the least loaded first, then the one that waits longest.
//!
//! Groups overlap: a worker for everything and a worker for one type both wait for that type. So the next slot is chosen
//! among all groups that have a ready task, by the same rule as within one. Served group by group, the first would take
//! all there is for as long as it has room.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::task::{Name, TaskId};

use super::Accepts;
use super::buckets::{Head, LaneId, QueueId};
use super::lanes::Lanes;

/// Groups without members that are kept for the next claim. Beyond this, the one that was left first is dropped.
const EMPTY_GROUPS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u32);

/// Where tasks can be handed to: a worker on a socket, or an open claim over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Worker(Name),
    Claim(u64),
}

/// A free slot, in the order in which slots are filled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FreeSlot {
    /// How many tasks its worker has, or its claim was given.
    pub(super) load: u32,
    /// When it became free, as the number of that event.
    since: u64,
    pub(super) slot: Slot,
}

struct Group {
    accepts: Accepts,
    /// The head of each lane that this group takes, by queue.
    lanes: HashMap<QueueId, BTreeSet<(Head, LaneId)>>,
    /// The first of each of these, where the queue is open.
    heads: BTreeSet<(AmongQueues, QueueId)>,
    free: BTreeSet<FreeSlot>,
    /// Its key in [`WorkerGroups::matchable`], while it is there.
    key: Option<MatchKey>,
    members: usize,
    empty_since: u64,
}

/// The place of a head among those of other queues.
type AmongQueues = (u8, TaskId);

/// The load and the `since` of a group's first free slot.
type MatchKey = (u32, u64);

/// All groups.
#[derive(Default)]
pub(super) struct WorkerGroups {
    by_accepts: HashMap<Accepts, GroupId>,
    /// `None` where a group was dropped.
    groups: Vec<Option<Group>>,
    /// Groups that have both a ready task and a free slot, in the order of those slots.
    matchable: BTreeSet<(MatchKey, GroupId)>,
    closed: HashSet<QueueId>,
    /// Counts events, to tell which was earlier.
    events: u64,
}

impl WorkerGroups {
    /// The group of those that accept this, with one member more.
    pub(super) fn join(&mut self, accepts: &Accepts, lanes: &mut Lanes) -> GroupId {
        if let Some(&id) = self.by_accepts.get(accepts) {
            self.group(id).members += 1;
            return id;
        }
        let group = Group {
            accepts: accepts.clone(),
            lanes: HashMap::new(),
            heads: BTreeSet::new(),
            free: BTreeSet::new(),
            key: None,
            members: 1,
            empty_since: 0,
        };
        let id = match self.groups.iter().position(Option::is_none) {
            Some(hole) => {
                self.groups[hole] = Some(group);
                GroupId(hole as u32)
            }
            None => {
                self.groups.push(Some(group));
                GroupId(self.groups.len() as u32 - 1)
            }
        };
        self.by_accepts.insert(accepts.clone(), id);
        lanes.add_group(id, self);
        id
    }

    /// One member less.
    pub(super) fn leave(&mut self, id: GroupId, lanes: &mut Lanes) {
        self.events += 1;
        let now = self.events;
        let group = self.group(id);
        group.members -= 1;
        group.empty_since = now;
        let empty = |group: &Option<Group>| group.as_ref().filter(|group| group.members == 0).map(|it| it.empty_since);
        if self.groups.iter().filter_map(empty).count() > EMPTY_GROUPS_MAX {
            let oldest = (0..self.groups.len()).filter_map(|at| Some((empty(&self.groups[at])?, at))).min();
            if let Some((_, at)) = oldest
                && let Some(group) = self.groups[at].take()
            {
                self.by_accepts.remove(&group.accepts);
                lanes.remove_group(GroupId(at as u32));
            }
        }
    }

    /// Adds a free slot with this load. Answers with the key that removes it.
    pub(super) fn add_slot(&mut self, id: GroupId, slot: Slot, load: u32) -> FreeSlot {
        self.events += 1;
        let free = FreeSlot { load, since: self.events, slot };
        self.group(id).free.insert(free.clone());
        self.update_match(id);
        free
    }

    pub(super) fn remove_slot(&mut self, id: GroupId, free: &FreeSlot) {
        self.group(id).free.remove(free);
        self.update_match(id);
    }

    /// The next pair of a task and a slot: the best task for the emptiest slot that there is one for.
    pub(super) fn next(&self) -> Option<(TaskId, &Slot)> {
        let (_, id) = self.matchable.first()?;
        let group = self.groups[id.0 as usize].as_ref()?;
        let ((_, task_id), _) = group.heads.first()?;
        Some((*task_id, &group.free.first()?.slot))
    }

    /// Puts a group among those that can be served, or out of them, as its heads and slots say.
    fn update_match(&mut self, id: GroupId) {
        let group = self.group(id);
        let first = group.free.first().filter(|_| !group.heads.is_empty());
        let key = first.map(|free| (free.load, free.since));
        let old = std::mem::replace(&mut group.key, key);
        if old != key {
            if let Some(old) = old {
                self.matchable.remove(&(old, id));
            }
            if let Some(key) = key {
                self.matchable.insert((key, id));
            }
        }
    }

    /// Whether a worker is known, or a claim open, that takes tasks of this type in this queue.
    pub(super) fn has_member_for(&self, queue: &str, task_type: &str) -> bool {
        self.groups.iter().flatten().any(|group| group.members > 0 && group.accepts.takes(queue, task_type))
    }

    /// Whether a group takes tasks of this type in this queue.
    pub(super) fn takes(&self, id: GroupId, queue: &str, task_type: &str) -> bool {
        self.groups[id.0 as usize].as_ref().is_some_and(|group| group.accepts.takes(queue, task_type))
    }

    pub(super) fn has_members(&self, id: GroupId) -> bool {
        self.groups[id.0 as usize].as_ref().is_some_and(|group| group.members > 0)
    }

    pub(super) fn accepting(&self, queue: &str, task_type: &str) -> Vec<GroupId> {
        (0..self.groups.len() as u32).map(GroupId).filter(|id| self.takes(*id, queue, task_type)).collect()
    }

    /// Tells these groups that the head of a lane changed.
    pub(super) fn head_changed(
        &mut self,
        groups: &[GroupId],
        queue: QueueId,
        lane: LaneId,
        before: Option<Head>,
        after: Option<Head>,
    ) {
        let open = !self.closed.contains(&queue);
        for id in groups {
            let group = self.group(*id);
            let lanes = group.lanes.entry(queue).or_default();
            let first = lanes.first().copied();
            if let Some(before) = before {
                lanes.remove(&(before, lane));
            }
            if let Some(after) = after {
                lanes.insert((after, lane));
            }
            let now_first = lanes.first().copied();
            if now_first.is_none() {
                group.lanes.remove(&queue);
            }
            if open && first != now_first {
                group.heads_changed(queue, first, now_first);
                self.update_match(*id);
            }
        }
    }

    /// A queue was opened or closed.
    pub(super) fn queue_changed(&mut self, queue: QueueId, open: bool) {
        match open {
            true => _ = self.closed.remove(&queue),
            false => _ = self.closed.insert(queue),
        }
        for at in 0..self.groups.len() {
            let Some(group) = &mut self.groups[at] else { continue };
            let Some(first) = group.lanes.get(&queue).and_then(|lanes| lanes.first()).copied() else { continue };
            match open {
                true => group.heads_changed(queue, None, Some(first)),
                false => group.heads_changed(queue, Some(first), None),
            }
            self.update_match(GroupId(at as u32));
        }
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups[id.0 as usize].as_mut().expect("ids are held only by members and lanes of a living group")
    }
}

impl Group {
    fn heads_changed(&mut self, queue: QueueId, before: Option<(Head, LaneId)>, after: Option<(Head, LaneId)>) {
        if let Some((before, _)) = before {
            self.heads.remove(&(before.rank.among_queues(), queue));
        }
        if let Some((after, _)) = after {
            self.heads.insert((after.rank.among_queues(), queue));
        }
    }
}

impl Accepts {
    /// Whether a task of this type in this queue is taken.
    pub fn takes(&self, queue: &str, task_type: &str) -> bool {
        self.queues.matches(queue) && self.task_types.matches(task_type)
    }
}
