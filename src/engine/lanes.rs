//! Ready tasks, and which of them is next.
//!
//! ```text
//! queue ──► lane ──────► party ──────────────► bucket ─────────────► tasks
//! open?     each type    whose turn it is      one user and key,     by rank
//!                        (a queue that is      listed, or blocked
//!                        shared out)           by a limit
//! ```
//!
//! **Tasks** of one user and one key, as far as that matters to the queue, stand in a *bucket*, by *rank*: priority, then
//! age; or, where a queue ages, the two weighed. In most queues it does not matter, and a lane has one bucket.
//!
//! **Limits** of users and keys ([`limits`](super::limits)) close buckets, lazily. A bucket is *listed* while it may be
//! next, and *blocked* at a limit once it was found to be under one that is full. What is at the head of a lane is looked at
//! when its limit becomes full, and anything else when it comes to the head. When a limit has room again, of those that it blocks the best of each lane is listed, and stands for the others: when it is
//! taken off the list, for whatever reason, the next one comes. So no event costs more than a few steps, however many
//! buckets there are; a bucket is looked at once for each time that it is listed. A bucket that stands for others may itself
//! be under another limit: then it is blocked there, and the next one of the first stands in. So a lane with nothing listed
//! has nothing that could run.
//!
//! **Parties** share a queue that is fair: its users, or its keys. Each has a *turn*, the number of the last time it was
//! served; the lowest is next, in all lanes of the queue, and one that comes back after it had nothing joins at the end of the
//! round. Turns are the one thing here that no record knows: see [`private`](super::private).
//!
//! **Queues** are open or closed: paused, or as many running as may. A closed queue is taken out of what worker groups look
//! at, with all of its lanes at once.
//!
//! Worker groups ([`groups`](super::groups)) are told when the head of a lane changes. What stands where follows from the
//! records and the settings: a revert or a restart needs nothing more than `insert`, `remove`, `begin` and `end`, and what is
//! set anew is applied by taking all tasks of the queue out and putting them in again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::settings::{self, FairBy, QueueSettings, Rate, RateBy};
use crate::task::{Name, Task, TaskId};

use super::buckets::{Bucket, BucketId, BucketName, Head, Lane, LaneId, Party, Place, QueueId, Rank};
use super::few::Few;
use super::groups::{GroupId, WorkerGroups};
use super::limits::{IsOpen, LimitId, Limits};
use super::slab::Slab;

/// Empty lanes that are kept because they will fill again soon. Beyond this, an empty lane is dropped.
const EMPTY_LANES_MAX: usize = 1_024;

/// All ready tasks, and what is counted of those that run.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) queues: Slab<Queue>,
    pub(super) queue_ids: HashMap<Name, QueueId>,
    pub(super) lanes: Slab<Lane>,
    pub(super) lane_ids: HashMap<(Name, Name), LaneId>,
    pub(super) limits: Limits,
    /// What is set of queues and users.
    set_queues: HashMap<Name, Arc<QueueSettings>>,
    set_limits: Arc<settings::Limits>,
    /// Whether the tasks of any user that run at once are limited over all queues.
    users_limited: bool,
    /// Lanes of which groups are to be told.
    touched: Vec<LaneId>,
    /// How often a bucket was put somewhere.
    #[cfg(test)]
    pub(super) placed: u64,
}

pub(super) struct Queue {
    name: Name,
    pub(super) settings: Arc<QueueSettings>,
    /// Its users are told apart.
    by_user: bool,
    pub(super) running: u32,
    /// Attempts that keep a key though they are over for the hub.
    stuck: u32,
    /// As many were handed out as its rate allows.
    rate_reached: bool,
    /// Windows in which something of it counts.
    windows: u32,
    open: bool,
    pub(super) lanes: Vec<LaneId>,
    /// Of a queue that is shared out: those that have something ready.
    pub(super) parties: HashMap<Party, Turn>,
    turns: u64,
}

pub(super) struct Turn {
    pub(super) number: u64,
    ready: usize,
}

impl Queue {
    pub(super) fn is_shared(&self) -> bool {
        self.settings.fair_by != FairBy::None
    }

    pub(super) fn party_of(&self, task: &Task) -> Party {
        match self.settings.fair_by {
            FairBy::None => None,
            FairBy::User => task.user_id.clone(),
            FairBy::Key => task.concurrency_key().cloned(),
        }
    }

    fn bucket_of(&self, task: &Task) -> BucketName {
        BucketName { user: task.user_id.clone().filter(|_| self.by_user), key: task.concurrency_key().cloned() }
    }

    /// The limit of its rate that tasks of this user and key are under.
    fn limit_of_rate(&self, id: QueueId, user: Option<&Name>, key: Option<&Name>) -> Option<(LimitId, Rate)> {
        let rate = self.settings.rate?;
        let limit = match rate.by {
            RateBy::Queue => LimitId::Rate(id),
            RateBy::User => LimitId::RateUser(id, user?.clone()),
            RateBy::Key => LimitId::RateKey(id, key?.clone()),
        };
        Some((limit, rate))
    }

    fn may_run(&self) -> bool {
        !self.settings.paused && !self.rate_reached && self.settings.concurrency.is_none_or(|max| self.running < max)
    }
}

impl Lanes {
    /// A task became ready. `turn` is its party's, where a start was taken back.
    pub(super) fn insert(&mut self, task: &Task, turn: Option<u64>, groups: &mut WorkerGroups) {
        let id = self.lane_for(task, groups);
        let queue_id = self.lanes[id.0].queue;
        let queue = &mut self.queues[queue_id.0];
        let party = queue.party_of(task);
        if queue.is_shared() {
            let next = queue.turns + 1;
            let of_party = queue.parties.entry(party.clone()).or_insert_with(|| {
                queue.turns = next;
                Turn { number: next, ready: 0 }
            });
            of_party.ready += 1;
            if let Some(turn) = turn.filter(|turn| *turn < of_party.number) {
                self.set_turn(queue_id, &party, turn);
            }
        }
        let queue = &self.queues[queue_id.0];
        let (rank, name) = (Rank::of(task, queue.settings.ageing_ms), queue.bucket_of(task));
        let lane = &mut self.lanes[id.0];
        lane.ready += 1;
        let (bucket_id, before) = match lane.bucket_ids.get(&name) {
            Some(bucket_id) => {
                let bucket = &mut lane.buckets[bucket_id.0];
                let before = bucket.ready.first();
                bucket.ready.insert(rank);
                (*bucket_id, before)
            }
            None => {
                let bucket = Bucket { name: name.clone(), party, ready: Few::One(rank), place: Place::Nowhere };
                let bucket_id = BucketId(lane.buckets.insert(bucket));
                lane.bucket_ids.insert(name, bucket_id);
                (bucket_id, None)
            }
        };
        if before.is_none_or(|before| rank < before) {
            self.place(id, bucket_id, before);
        }
        self.update_open(queue_id, groups);
        self.tell(groups);
    }

    /// A task is not ready any more. Answers the turn of its party, where its queue is shared out.
    pub(super) fn remove(&mut self, task: &Task, groups: &mut WorkerGroups) -> Option<u64> {
        let id = *self.lane_ids.get(&(task.queue.clone(), task.task_type.clone()))?;
        let queue_id = self.lanes[id.0].queue;
        let queue = &mut self.queues[queue_id.0];
        let party = queue.party_of(task);
        let turn = queue.parties.get_mut(&party).map(|turn| {
            turn.ready -= 1;
            (turn.number, turn.ready)
        });
        if let Some((_, 0)) = turn {
            queue.parties.remove(&party);
        }
        let (rank, name) = (Rank::of(task, queue.settings.ageing_ms), queue.bucket_of(task));
        let lane = &mut self.lanes[id.0];
        if let Some(&bucket_id) = lane.bucket_ids.get(&name) {
            lane.ready -= 1;
            let bucket = &mut lane.buckets[bucket_id.0];
            let before = bucket.ready.first();
            bucket.ready.remove(rank);
            if before == Some(rank) {
                self.place(id, bucket_id, before);
            }
        }
        self.tell(groups);
        self.drop_unused(id, groups);
        turn.map(|(number, _)| number)
    }

    /// A task runs.
    pub(super) fn begin(&mut self, task: &Task, groups: &mut WorkerGroups) {
        let queue_id = self.queue_for(&task.queue);
        self.queues[queue_id.0].running += 1;
        for (limit, max) in self.limits_of_running(queue_id, task.user_id.as_ref(), task.concurrency_key()) {
            self.begin_under(&limit, max);
        }
        self.update_open(queue_id, groups);
        self.tell(groups);
    }

    /// It runs no more.
    pub(super) fn end(&mut self, task: &Task, groups: &mut WorkerGroups) {
        let Some(&queue_id) = self.queue_ids.get(&task.queue) else { return };
        self.queues[queue_id.0].running -= 1;
        // First under all of them: else what one has room for would be moved to the next, to come back from there at once.
        let limits = self.limits_of_running(queue_id, task.user_id.as_ref(), task.concurrency_key());
        let opened: Vec<_> = limits.map(|(limit, _)| (self.limits.end(&limit), limit)).collect();
        for (lanes, limit) in opened {
            lanes.into_iter().for_each(|id| self.list_blocked(&limit, id));
        }
        self.update_open(queue_id, groups);
        self.tell(groups);
        self.drop_queue(queue_id, groups);
    }

    /// An attempt is over for the hub and perhaps not for its worker: until then it keeps its key.
    pub(super) fn hold_key(&mut self, (queue, key): &(Name, Name), groups: &mut WorkerGroups) {
        let queue_id = self.queue_for(queue);
        let queue = &mut self.queues[queue_id.0];
        queue.stuck += 1;
        let max = queue.settings.key_concurrency;
        self.begin_under(&LimitId::QueueKey(queue_id, key.clone()), max);
        self.tell(groups);
    }

    pub(super) fn release_key(&mut self, (queue, key): &(Name, Name), groups: &mut WorkerGroups) {
        let Some(&queue_id) = self.queue_ids.get(queue) else { return };
        self.queues[queue_id.0].stuck -= 1;
        self.end_under(&LimitId::QueueKey(queue_id, key.clone()));
        self.tell(groups);
        self.drop_queue(queue_id, groups);
    }

    /// A task was handed out: its party has had its turn. Answers the rate that it counts under.
    pub(super) fn serve(&mut self, task: &Task, groups: &mut WorkerGroups) -> Option<(LimitId, Rate)> {
        let queue_id = *self.queue_ids.get(&task.queue)?;
        let queue = &mut self.queues[queue_id.0];
        if queue.is_shared() {
            queue.turns += 1;
            let (party, turn) = (queue.party_of(task), queue.turns);
            self.set_turn(queue_id, &party, turn);
            self.tell(groups);
        }
        self.queues[queue_id.0].limit_of_rate(queue_id, task.user_id.as_ref(), task.concurrency_key())
    }

    /// So many hand-outs count under a rate of so many.
    pub(super) fn set_handed_out(&mut self, limit: &LimitId, count: u32, max: u32, groups: &mut WorkerGroups) {
        if let LimitId::Rate(queue_id) = limit {
            self.queues[queue_id.0].rate_reached = count >= max;
            return self.update_open(*queue_id, groups);
        }
        let Some((IsOpen(is_open), lanes)) = self.limits.set(limit, max, count) else { return };
        match is_open {
            true => lanes.into_iter().for_each(|id| self.list_blocked(limit, id)),
            false => self.touched.extend(lanes),
        }
        self.tell(groups);
    }

    /// A window of a rate is there: the number of its queue stays.
    pub(super) fn hold_queue(&mut self, id: QueueId) {
        self.queues[id.0].windows += 1;
    }

    pub(super) fn release_queue(&mut self, id: QueueId, groups: &mut WorkerGroups) {
        self.queues[id.0].windows -= 1;
        self.drop_queue(id, groups);
    }

    /// The limit of the rate of a queue.
    pub(super) fn limit_of_rate(&mut self, queue: &Name, by: RateBy, name: Option<Name>) -> LimitId {
        let id = self.queue_for(queue);
        match (by, name) {
            (RateBy::User, Some(user)) => LimitId::RateUser(id, user),
            (RateBy::Key, Some(key)) => LimitId::RateKey(id, key),
            _ => LimitId::Rate(id),
        }
    }

    /// The rate that a limit is of, as it is set now.
    pub(super) fn rate_under(&self, limit: &LimitId) -> Option<Rate> {
        let (by, _) = limit.rate()?;
        self.queues[limit.queue()?.0].settings.rate.filter(|rate| rate.by == by)
    }

    /// Shows a new group the head of every lane that it takes.
    pub(super) fn add_group(&mut self, group: GroupId, groups: &mut WorkerGroups) {
        for (name, id) in &self.lane_ids {
            let lane = &mut self.lanes[id.0];
            if groups.takes(group, name.0.as_str(), name.1.as_str()) {
                lane.groups.push(group);
                groups.head_changed(&[group], lane.queue, *id, None, lane.shown);
            }
        }
    }

    /// Forgets a group that was dropped.
    pub(super) fn remove_group(&mut self, group: GroupId) {
        for lane in self.lanes.iter_mut() {
            lane.groups.retain(|id| *id != group);
        }
    }

    /// The ready tasks of a queue, or of all.
    pub(super) fn ready(&self, queue: Option<&Name>) -> Vec<TaskId> {
        let of_queue = |lane: &&Lane| queue.is_none_or(|queue| lane.name.0 == *queue);
        let lanes = self.lane_ids.values().map(|id| &self.lanes[id.0]).filter(of_queue);
        lanes
            .flat_map(|lane| lane.buckets.iter())
            .flat_map(|bucket| bucket.ready.iter())
            .map(|rank| rank.task_id)
            .collect()
    }

    /// Other settings of a queue. Where more of them changed than what opens and closes the whole of it, none of its tasks is
    /// to stand here meanwhile.
    pub(super) fn set_queue(&mut self, name: &Name, settings: Option<Arc<QueueSettings>>, groups: &mut WorkerGroups) {
        match &settings {
            Some(settings) => _ = self.set_queues.insert(name.clone(), settings.clone()),
            None => _ = self.set_queues.remove(name),
        }
        let Some(&id) = self.queue_ids.get(name) else { return };
        let (settings, by_user) = self.set_of(name);
        let queue = &mut self.queues[id.0];
        (queue.settings, queue.by_user) = (settings, by_user);
        self.update_open(id, groups);
    }

    /// Other limits of users. Where those on what runs changed, no task is to stand here meanwhile.
    pub(super) fn set_limits(&mut self, limits: Arc<settings::Limits>) {
        self.users_limited = limits.limit_running();
        self.set_limits = limits;
        let ids: Vec<(Name, QueueId)> = self.queue_ids.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, id) in ids {
            self.queues[id.0].by_user = self.set_of(&name).1;
        }
    }

    /// The limits that hold for users.
    pub(super) fn user_limits(&self) -> &Arc<settings::Limits> {
        &self.set_limits
    }

    /// What is set of a queue, or the defaults.
    pub(super) fn settings_of(&self, name: &Name) -> Arc<QueueSettings> {
        self.set_of(name).0
    }

    fn set_of(&self, name: &Name) -> (Arc<QueueSettings>, bool) {
        let settings = self.set_queues.get(name).cloned().unwrap_or_default();
        let by_rate = settings.rate.is_some_and(|rate| rate.by == RateBy::User);
        let by_user =
            settings.fair_by == FairBy::User || settings.user_concurrency.is_some() || self.users_limited || by_rate;
        (settings, by_user)
    }

    /// The limits that tasks of this user and key are under, in a queue, each with how many there may be.
    pub(super) fn limits_of(
        &self,
        queue_id: QueueId,
        user: Option<&Name>,
        key: Option<&Name>,
    ) -> impl Iterator<Item = (LimitId, u32)> + use<> {
        let of_rate = self.queues[queue_id.0].limit_of_rate(queue_id, user, key);
        let of_rate = of_rate.filter(|(_, rate)| rate.by != RateBy::Queue).map(|(limit, rate)| (limit, rate.limit));
        self.limits_of_running(queue_id, user, key).chain(of_rate)
    }

    /// Those of them that count what runs.
    fn limits_of_running(
        &self,
        queue_id: QueueId,
        user: Option<&Name>,
        key: Option<&Name>,
    ) -> impl Iterator<Item = (LimitId, u32)> + use<> {
        let settings = &self.queues[queue_id.0].settings;
        let over_all = user.and_then(|user| Some((user, self.set_limits.running_of(user.as_str())?)));
        let over_all = over_all.map(|(user, max)| (LimitId::User(user.clone()), max));
        let of_user =
            user.and_then(|user| Some((LimitId::QueueUser(queue_id, user.clone()), settings.user_concurrency?)));
        let of_key = key.map(|key| (LimitId::QueueKey(queue_id, key.clone()), settings.key_concurrency));
        of_key.into_iter().chain(of_user).chain(over_all)
    }

    /// The first limit that keeps a bucket from being handed out.
    fn full_limit(&self, lane: &Lane, id: BucketId) -> Option<LimitId> {
        let BucketName { user, key } = &lane.buckets[id.0].name;
        if user.is_none() && key.is_none() {
            return None;
        }
        let mut limits = self.limits_of(lane.queue, user.as_ref(), key.as_ref());
        limits.find(|(limit, _)| !self.limits.is_open(limit)).map(|(limit, _)| limit)
    }

    /// Puts a bucket where it belongs now: on the list, at a limit that is full, or, where it is empty, nowhere. `before`:
    /// the rank with which it stood.
    fn place(&mut self, id: LaneId, bucket_id: BucketId, before: Option<Rank>) {
        #[cfg(test)]
        {
            self.placed += 1;
        }
        let lane = &mut self.lanes[id.0];
        let place = std::mem::replace(&mut lane.buckets[bucket_id.0].place, Place::Nowhere);
        let was_listed = matches!(place, Place::Listed);
        match (place, before) {
            (Place::Listed, Some(before)) => lane.unlist(bucket_id, before),
            (Place::Blocked(limit), Some(before)) => {
                self.limits.unblock(&limit, id, before, bucket_id);
            }
            _ => {}
        }
        self.touched.push(id);
        let lane = &self.lanes[id.0];
        let bucket = &lane.buckets[bucket_id.0];
        let name = bucket.name.clone();
        // What it may stand for from now on comes behind it.
        let mut stands_for = None;
        match (bucket.ready.first(), self.full_limit(lane, bucket_id)) {
            (None, _) => {
                let lane = &mut self.lanes[id.0];
                lane.bucket_ids.remove(&name);
                lane.buckets.remove(bucket_id.0);
            }
            (Some(rank), None) => {
                let turn = self.queues[lane.queue.0].parties.get(&bucket.party).map_or(0, |turn| turn.number);
                self.lanes[id.0].list(bucket_id, rank, turn);
                stands_for = Some(rank);
            }
            (Some(rank), Some(limit)) => {
                self.limits.block(&limit, id, rank, bucket_id);
                self.lanes[id.0].buckets[bucket_id.0].place = Place::Blocked(limit);
            }
        }
        if was_listed && (name.user.is_some() || name.key.is_some()) {
            // It may have stood for others.
            let queue_id = self.lanes[id.0].queue;
            for (limit, _) in self.limits_of(queue_id, name.user.as_ref(), name.key.as_ref()) {
                let better = |(first, _): (Rank, _)| stands_for.is_none_or(|rank| first < rank);
                if self.limits.is_open(&limit) && self.limits.first_blocked(&limit, id).is_some_and(better) {
                    self.list_blocked(&limit, id);
                }
            }
        }
    }

    /// A limit has room: the best of a lane that it blocks, and that no other limit does, comes on the list.
    fn list_blocked(&mut self, limit: &LimitId, id: LaneId) {
        while let Some((rank, bucket_id)) = self.limits.first_blocked(limit, id) {
            self.place(id, bucket_id, Some(rank));
            if matches!(self.lanes[id.0].buckets[bucket_id.0].place, Place::Listed) {
                break;
            }
        }
    }

    fn begin_under(&mut self, limit: &LimitId, max: u32) {
        self.touched.extend(self.limits.begin(limit, max));
    }

    fn end_under(&mut self, limit: &LimitId) {
        for id in self.limits.end(limit) {
            self.list_blocked(limit, id);
        }
    }

    fn set_turn(&mut self, queue_id: QueueId, party: &Party, number: u64) {
        let queue = &mut self.queues[queue_id.0];
        let Some(turn) = queue.parties.get_mut(party) else { return };
        turn.number = number;
        for id in &queue.lanes {
            if self.lanes[id.0].set_turn(party, number) {
                self.touched.push(*id);
            }
        }
    }

    fn update_open(&mut self, id: QueueId, groups: &mut WorkerGroups) {
        let queue = &mut self.queues[id.0];
        let open = queue.may_run();
        if std::mem::replace(&mut queue.open, open) != open {
            groups.queue_changed(id, open);
        }
    }

    /// Tells groups of the heads that changed.
    fn tell(&mut self, groups: &mut WorkerGroups) {
        while let Some(id) = self.touched.pop() {
            let (head, under) = self.open_head(id);
            let lane = &mut self.lanes[id.0];
            let before = std::mem::replace(&mut lane.shown, head);
            if lane.shown_under != under {
                let no_more = std::mem::replace(&mut lane.shown_under, under);
                no_more.iter().for_each(|(limit, _)| self.limits.remove_head(limit, id));
                lane.shown_under.iter().for_each(|(limit, max)| self.limits.add_head(limit, *max, id));
            }
            if before != head {
                groups.head_changed(&lane.groups, lane.queue, id, before, head);
            }
        }
    }

    /// The head of a lane, with the limits that it is under and that have room. What stands before it and is blocked goes
    /// there.
    fn open_head(&mut self, id: LaneId) -> (Option<Head>, Vec<(LimitId, u32)>) {
        loop {
            let lane = &self.lanes[id.0];
            let Some((head, party)) = lane.order.first() else { return (None, Vec::new()) };
            let (rank, bucket_id) =
                *lane.parties[party].listed.first().expect("a party in the order has something listed");
            let BucketName { user, key } = &lane.buckets[bucket_id.0].name;
            if user.is_none() && key.is_none() {
                return (Some(*head), Vec::new());
            }
            let limits: Vec<_> = self.limits_of(lane.queue, user.as_ref(), key.as_ref()).collect();
            if limits.iter().all(|(limit, _)| self.limits.is_open(limit)) {
                return (Some(*head), limits);
            }
            self.place(id, bucket_id, Some(rank));
        }
    }

    fn lane_for(&mut self, task: &Task, groups: &WorkerGroups) -> LaneId {
        let name = (task.queue.clone(), task.task_type.clone());
        if let Some(id) = self.lane_ids.get(&name) {
            return *id;
        }
        let queue = self.queue_for(&task.queue);
        let lane = Lane {
            queue,
            ready: 0,
            buckets: Slab::default(),
            bucket_ids: HashMap::new(),
            parties: HashMap::new(),
            order: BTreeSet::new(),
            groups: groups.accepting(name.0.as_str(), name.1.as_str()),
            shown: None,
            shown_under: Vec::new(),
            name: name.clone(),
        };
        let id = LaneId(self.lanes.insert(lane));
        self.queues[queue.0].lanes.push(id);
        self.lane_ids.insert(name, id);
        id
    }

    fn queue_for(&mut self, name: &Name) -> QueueId {
        if let Some(id) = self.queue_ids.get(name) {
            return *id;
        }
        let (settings, by_user) = self.set_of(name);
        let queue = Queue {
            name: name.clone(),
            by_user,
            running: 0,
            stuck: 0,
            rate_reached: false,
            windows: 0,
            open: true,
            lanes: Vec::new(),
            parties: HashMap::new(),
            turns: 0,
            settings,
        };
        let id = QueueId(self.queues.insert(queue));
        self.queue_ids.insert(name.clone(), id);
        id
    }

    fn drop_unused(&mut self, id: LaneId, groups: &mut WorkerGroups) {
        if self.lanes[id.0].ready > 0 || self.lane_ids.len() <= EMPTY_LANES_MAX {
            return;
        }
        let lane = self.lanes.remove(id.0);
        self.lane_ids.remove(&lane.name);
        self.queues[lane.queue.0].lanes.retain(|of_queue| *of_queue != id);
        self.drop_queue(lane.queue, groups);
    }

    fn drop_queue(&mut self, id: QueueId, groups: &mut WorkerGroups) {
        let queue = &self.queues[id.0];
        if queue.lanes.is_empty()
            && queue.running + queue.stuck + queue.windows == 0
            && self.queue_ids.len() > EMPTY_LANES_MAX
        {
            self.queue_ids.remove(&queue.name);
            self.queues.remove(id.0);
            // The number is another queue's the next time.
            groups.queue_changed(id, true);
        }
    }
}
