//! Ready tasks in order: one *lane* for each queue and type.
//!
//! A lane is a sorted set of the ready tasks of one queue and type; its first element is its head. Worker groups are told
//! when a head changes, so that each of them keeps the heads of the lanes it takes in order, and never looks at others.
//! Which tasks stand where follows from their records alone: a revert or a restart needs nothing more than `insert` and
//! `remove`.

use std::collections::{BTreeSet, HashMap};

use crate::task::{Name, Task, TaskId};

use super::groups::{GroupId, WorkerGroups};

/// Empty lanes that are kept because they will fill again soon. Beyond this, an empty lane is dropped.
const EMPTY_LANES_MAX: usize = 1_024;

/// The order of ready tasks: the smaller, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// 0 for the highest priority.
    priority: u8,
    /// Ids grow with time, so the oldest task comes first.
    pub(super) task_id: TaskId,
}

impl Rank {
    pub(super) fn of(task: &Task) -> Rank {
        Rank { priority: (100 - i16::from(task.priority)).clamp(0, 200) as u8, task_id: task.task_id }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(u32);

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes {
    by_name: HashMap<(Name, Name), LaneId>,
    lanes: Vec<Lane>,
    unused: Vec<LaneId>,
}

pub(super) struct Lane {
    pub(super) queue: Name,
    pub(super) task_type: Name,
    ready: BTreeSet<Rank>,
    /// The groups that take these tasks.
    groups: Vec<GroupId>,
}

impl Lane {
    /// The groups that take what stands here.
    pub(super) fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// The tasks before this place.
    pub(super) fn before(&self, rank: Rank) -> impl Iterator<Item = &Rank> {
        self.ready.range(..rank)
    }
}

impl Lanes {
    /// Lanes in use, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.by_name.values().map(|id| &self.lanes[id.0 as usize])
    }

    /// The lane of a task, where there is one.
    pub(super) fn lane_of(&self, task: &Task) -> Option<&Lane> {
        let id = self.by_name.get(&(task.queue.clone(), task.task_type.clone()))?;
        Some(&self.lanes[id.0 as usize])
    }

    /// Adds a task that became ready.
    pub(super) fn insert(&mut self, task: &Task, groups: &mut WorkerGroups) {
        let id = self.lane_for(task, groups);
        let lane = &mut self.lanes[id.0 as usize];
        let before = lane.ready.first().copied();
        lane.ready.insert(Rank::of(task));
        let after = lane.ready.first().copied();
        groups.head_changed(&lane.groups, id, before, after);
    }

    /// Removes a task that is not ready any more.
    pub(super) fn remove(&mut self, task: &Task, groups: &mut WorkerGroups) {
        let name = (task.queue.clone(), task.task_type.clone());
        let Some(&id) = self.by_name.get(&name) else { return };
        let lane = &mut self.lanes[id.0 as usize];
        let before = lane.ready.first().copied();
        lane.ready.remove(&Rank::of(task));
        let after = lane.ready.first().copied();
        groups.head_changed(&lane.groups, id, before, after);
        if lane.ready.is_empty() && self.by_name.len() > EMPTY_LANES_MAX {
            lane.groups.clear();
            self.by_name.remove(&name);
            self.unused.push(id);
        }
    }

    /// Shows a new group the head of every lane that it takes.
    pub(super) fn add_group(&mut self, group: GroupId, groups: &mut WorkerGroups) {
        for id in self.by_name.values() {
            let lane = &mut self.lanes[id.0 as usize];
            if groups.accepts(group, lane) {
                lane.groups.push(group);
                groups.head_changed(&[group], *id, None, lane.ready.first().copied());
            }
        }
    }

    /// Forgets a group that was dropped.
    pub(super) fn remove_group(&mut self, group: GroupId) {
        for lane in &mut self.lanes {
            lane.groups.retain(|id| *id != group);
        }
    }

    fn lane_for(&mut self, task: &Task, groups: &WorkerGroups) -> LaneId {
        let name = (task.queue.clone(), task.task_type.clone());
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let mut lane = Lane {
            queue: task.queue.clone(),
            task_type: task.task_type.clone(),
            ready: BTreeSet::new(),
            groups: Vec::new(),
        };
        lane.groups = groups.accepting(&lane);
        let id = match self.unused.pop() {
            Some(id) => {
                self.lanes[id.0 as usize] = lane;
                id
            }
            None => {
                self.lanes.push(lane);
                LaneId(self.lanes.len() as u32 - 1)
            }
        };
        self.by_name.insert(name, id);
        id
    }
}
