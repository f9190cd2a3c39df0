//! What is owed, and in which order it is tried.
//!
//! Deliveries to one callback of one task are a *line*, in order of `rev`; only its first is tried, and what failed holds the
//! rest. The firsts wait for their time, and then, with others for the same host, for their turn. Hosts take turns, so none is
//! kept waiting by what there is for another; each has so many tries at a time, and one that does not answer at all has one,
//! with a bound over all such: the rest of the tries is there for hosts that do.
//!
//! A delivery is in here until what became of it is on disk: so its successor is never tried before that, and what a crash
//! has repeated comes before all that follows it, not after.
//!
//! Plain state without a clock: time is an argument, in milliseconds of any count that does not go back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::task::{DeliveryId, TaskId};

/// The most tries at once, and those of one host.
pub const TRIES_MAX: usize = 64;
pub const HOST_TRIES_MAX: usize = 8;
/// The most tries at once of hosts that did not answer the last time.
pub const MUTE_TRIES_MAX: usize = 32;

/// Something that is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    pub id: DeliveryId,
    pub task_id: TaskId,
    pub place: u8,
    pub rev: u64,
    /// Where it goes: scheme, host and port.
    pub host: Arc<str>,
}

/// A callback of a task.
type LineKey = (TaskId, u8);

#[derive(Default)]
pub struct Queue {
    lines: HashMap<LineKey, VecDeque<Waiting>>,
    /// Where each delivery stands. The first is the oldest.
    places: BTreeMap<DeliveryId, LineKey>,
    /// The lines whose first waits for its time.
    clock: BTreeSet<(u64, LineKey)>,
    hosts: HashMap<Arc<str>, Host>,
    /// Hosts with something ready and room for it, each once, the next first.
    turns: VecDeque<Arc<str>>,
    tries: usize,
    mute_tries: usize,
}

struct Waiting {
    owed: Owed,
    /// Not before this time.
    at: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For those before it, or for its time.
    Waits,
    /// For its turn.
    Ready,
    /// Counted as one of a host that is mute, or not.
    Tried { mute: bool },
}

#[derive(Default)]
struct Host {
    /// All that is owed there.
    owed: usize,
    ready: VecDeque<LineKey>,
    tries: usize,
    is_mute: bool,
    has_turn: bool,
}

impl Host {
    fn has_room(&self) -> bool {
        self.tries < if self.is_mute { 1 } else { HOST_TRIES_MAX }
    }
}

impl Queue {
    /// How many are owed.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The oldest that is owed.
    pub fn oldest(&self) -> Option<DeliveryId> {
        self.places.keys().next().copied()
    }

    pub fn contains(&self, id: DeliveryId) -> bool {
        self.places.contains_key(&id)
    }

    /// Something is owed, to be tried at `at` or when all before it in its line are done.
    pub fn push(&mut self, mut owed: Owed, at: u64) {
        let key = (owed.task_id, owed.place);
        if self.places.insert(owed.id, key).is_some() {
            return;
        }
        // All that goes to one host has one text of it.
        if let Some((host, _)) = self.hosts.get_key_value(&owed.host) {
            owed.host = host.clone();
        }
        self.hosts.entry(owed.host.clone()).or_default().owed += 1;
        let line = self.lines.entry(key).or_default();
        let mut place = line.partition_point(|before| before.owed.rev < owed.rev);
        // What is being tried is first, whatever comes.
        if place == 0 && line.front().is_some_and(|first| matches!(first.stage, Stage::Tried { .. })) {
            place = 1;
        }
        if place == 0 {
            self.stop_first(key);
        }
        let line = self.lines.entry(key).or_default();
        line.insert(place, Waiting { owed, at, stage: Stage::Waits });
        if place == 0 {
            self.start_first(key);
        }
    }

    /// The next one to be tried now, if there is one and room for it.
    pub fn next(&mut self, now: u64) -> Option<Owed> {
        self.wake(now);
        if self.tries >= TRIES_MAX {
            return None;
        }
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let host = self.hosts.get_mut(&name).expect("a host with a turn is there");
            if host.is_mute && self.mute_tries >= MUTE_TRIES_MAX {
                self.turns.push_back(name);
                continue;
            }
            host.has_turn = false;
            let key = host.ready.pop_front().expect("a host with a turn has something ready");
            let mute = host.is_mute;
            host.tries += 1;
            self.tries += 1;
            self.mute_tries += usize::from(mute);
            self.give_turn(&name);
            let first = self.first(key).expect("a line that is ready has a first");
            first.stage = Stage::Tried { mute };
            return Some(first.owed.clone());
        }
        None
    }

    /// When there may be something to try, where nothing else happens before.
    pub fn next_at(&self) -> Option<u64> {
        self.clock.first().map(|(at, _)| *at)
    }

    /// It is on disk that this one has arrived, or was given up. `answered`: its host said something.
    pub fn done(&mut self, id: DeliveryId, answered: bool) {
        let Some(key) = self.end_try(id, answered) else { return };
        let line = self.lines.get_mut(&key).expect("what is tried stands in a line");
        let Some(Waiting { owed, .. }) = line.pop_front() else { return };
        if line.is_empty() {
            self.lines.remove(&key);
        }
        self.places.remove(&id);
        let host = self.hosts.get_mut(&owed.host).expect("the host of what is owed is there");
        host.owed -= 1;
        if host.owed == 0 {
            self.hosts.remove(&owed.host);
        }
        self.start_first(key);
    }

    /// It is on disk that this one is to be tried again at `at`.
    pub fn again(&mut self, id: DeliveryId, answered: bool, at: u64) {
        let Some(key) = self.end_try(id, answered) else { return };
        let line = self.lines.get_mut(&key).expect("what is tried stands in a line");
        let first = line.front_mut().expect("what is tried is the first");
        (first.at, first.stage) = (at, Stage::Waits);
        // One that somebody has tried again, that comes before it, may have come meanwhile.
        line.make_contiguous().sort_by_key(|waiting| waiting.owed.rev);
        self.start_first(key);
    }

    /// Has one be tried now that waits for its time.
    pub fn hurry(&mut self, id: DeliveryId) {
        let Some(key) = self.places.get(&id).copied() else { return };
        let line = self.lines.get_mut(&key).expect("what is owed stands in a line");
        let place = line.iter().position(|waiting| waiting.owed.id == id).expect("in that line");
        if line[place].stage != Stage::Waits {
            return;
        }
        if place == 0 {
            self.stop_first(key);
        }
        self.lines.get_mut(&key).expect("it is there")[place].at = 0;
        if place == 0 {
            self.start_first(key);
        }
    }

    /// What has come to its time is ready.
    fn wake(&mut self, now: u64) {
        while let Some((at, key)) = self.clock.first().copied()
            && at <= now
        {
            self.clock.pop_first();
            let first = self.first(key).expect("a line that waits has a first");
            first.stage = Stage::Ready;
            let name = first.owed.host.clone();
            self.hosts.get_mut(&name).expect("the host of what is owed is there").ready.push_back(key);
            self.give_turn(&name);
        }
    }

    fn first(&mut self, key: LineKey) -> Option<&mut Waiting> {
        self.lines.get_mut(&key)?.front_mut()
    }

    /// The first of a line begins to wait for its time.
    fn start_first(&mut self, key: LineKey) {
        if let Some(first) = self.first(key)
            && first.stage == Stage::Waits
        {
            let at = first.at;
            self.clock.insert((at, key));
        }
    }

    /// The first of a line is it no longer, or waits for another time.
    fn stop_first(&mut self, key: LineKey) {
        let Some(first) = self.first(key) else { return };
        let (at, stage, name) = (first.at, first.stage, first.owed.host.clone());
        first.stage = Stage::Waits;
        match stage {
            Stage::Waits => _ = self.clock.remove(&(at, key)),
            Stage::Ready => {
                let host = self.hosts.get_mut(&name).expect("the host of what is owed is there");
                host.ready.retain(|ready| *ready != key);
                if host.ready.is_empty() && std::mem::take(&mut host.has_turn) {
                    self.turns.retain(|turn| *turn != name);
                }
            }
            Stage::Tried { .. } => unreachable!("what is tried stays the first"),
        }
    }

    fn end_try(&mut self, id: DeliveryId, answered: bool) -> Option<LineKey> {
        let key = self.places.get(&id).copied()?;
        let first = self.first(key).filter(|first| first.owed.id == id)?;
        let Stage::Tried { mute } = first.stage else { return None };
        let name = first.owed.host.clone();
        self.tries -= 1;
        self.mute_tries -= usize::from(mute);
        let host = self.hosts.get_mut(&name).expect("the host of what is owed is there");
        host.tries -= 1;
        host.is_mute = !answered;
        self.give_turn(&name);
        Some(key)
    }

    /// A host takes its turn where it has something ready and room.
    fn give_turn(&mut self, name: &Arc<str>) {
        let host = self.hosts.get_mut(name).expect("the host of what is owed is there");
        if !host.has_turn && !host.ready.is_empty() && host.has_room() {
            host.has_turn = true;
            self.turns.push_back(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(task: u8, place: u8, rev: u64, host: &str) -> Owed {
        let mut id = [task; 16];
        id[8] = place;
        id[9..].copy_from_slice(&rev.to_be_bytes()[1..]);
        let (id, task_id) = (DeliveryId::from_bytes(id), TaskId::from_bytes([task; 16]));
        Owed { id, task_id, place, rev, host: host.into() }
    }

    /// All that can be tried now.
    fn tried(queue: &mut Queue, now: u64) -> Vec<(u8, u64)> {
        let mut tried: Vec<_> =
            std::iter::from_fn(|| queue.next(now)).map(|owed| (owed.task_id.as_bytes()[0], owed.rev)).collect();
        tried.sort_unstable();
        tried
    }

    #[test]
    fn one_that_fails_holds_the_later_ones_of_its_callback_and_no_others() {
        let mut queue = Queue::default();
        let first = owed(1, 0, 5, "a");
        queue.push(owed(1, 0, 7, "a"), 0);
        queue.push(first.clone(), 0);
        queue.push(owed(1, 1, 6, "a"), 0);
        queue.push(owed(2, 0, 8, "a"), 0);
        assert_eq!(tried(&mut queue, 0), [(1, 5), (1, 6), (2, 8)]);
        queue.again(first.id, true, 100);
        assert_eq!(tried(&mut queue, 99), []);
        assert_eq!(queue.next_at(), Some(100));
        assert_eq!(tried(&mut queue, 100), [(1, 5)]);
        assert_eq!(tried(&mut queue, 1_000), []);
        queue.done(first.id, true);
        assert_eq!(tried(&mut queue, 1_000), [(1, 7)]);
        assert_eq!(queue.len(), 3);
        for owed in [owed(1, 0, 7, "a"), owed(1, 1, 6, "a"), owed(2, 0, 8, "a")] {
            queue.done(owed.id, true);
        }
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.hosts.is_empty() && queue.turns.is_empty());
        assert_eq!((queue.tries, queue.mute_tries), (0, 0));
    }

    #[test]
    fn what_is_tried_again_by_hand_comes_before_what_follows_it() {
        let mut queue = Queue::default();
        queue.push(owed(1, 0, 7, "a"), 50);
        queue.push(owed(1, 0, 5, "a"), 0);
        assert_eq!(tried(&mut queue, 60), [(1, 5)]);
        // Unless that is being tried already.
        queue.push(owed(1, 0, 3, "a"), 0);
        assert_eq!(tried(&mut queue, 60), []);
        queue.again(owed(1, 0, 5, "a").id, true, 70);
        assert_eq!(tried(&mut queue, 60), [(1, 3)]);
        queue.done(owed(1, 0, 3, "a").id, true);
        assert_eq!(tried(&mut queue, 60), []);
        queue.hurry(owed(1, 0, 5, "a").id);
        queue.hurry(owed(1, 0, 7, "a").id);
        assert_eq!(tried(&mut queue, 60), [(1, 5)]);
        queue.done(owed(1, 0, 5, "a").id, true);
        assert_eq!(tried(&mut queue, 60), [(1, 7)], "and that one was hurried too");
    }

    #[test]
    fn a_host_has_so_many_tries_and_one_while_it_does_not_answer() {
        let mut queue = Queue::default();
        (0..20).for_each(|task| queue.push(owed(task, 0, 1, "dead"), 0));
        assert_eq!(tried(&mut queue, 0).len(), HOST_TRIES_MAX);
        (0..HOST_TRIES_MAX as u8).for_each(|task| queue.again(owed(task, 0, 1, "dead").id, false, 1_000));
        assert_eq!(tried(&mut queue, 0), [(8, 1)]);
        assert_eq!(tried(&mut queue, 2_000), []);
        queue.done(owed(8, 0, 1, "dead").id, true);
        assert_eq!(tried(&mut queue, 2_000).len(), HOST_TRIES_MAX, "it answers again");
    }

    #[test]
    fn hosts_that_do_not_answer_leave_room_for_those_that_do() {
        let mut queue = Queue::default();
        for task in 0..100 {
            queue.push(owed(task, 0, 1, &format!("dead{task}")), 0);
        }
        assert_eq!(tried(&mut queue, 0).len(), TRIES_MAX);
        let all: Vec<_> = (0..TRIES_MAX as u8).collect();
        all.iter().for_each(|task| queue.again(owed(*task, 0, 1, &format!("dead{task}")).id, false, 0));
        // Those that were not tried yet may answer.
        assert_eq!(tried(&mut queue, 0).len(), 36 + (TRIES_MAX - 36).min(MUTE_TRIES_MAX));
        (64..100).for_each(|task| queue.again(owed(task, 0, 1, &format!("dead{task}")).id, false, 0));
        assert!(queue.mute_tries <= MUTE_TRIES_MAX);
        tried(&mut queue, 0);
        assert_eq!(queue.mute_tries, MUTE_TRIES_MAX);
        queue.push(owed(200, 0, 1, "well"), 0);
        assert_eq!(tried(&mut queue, 0), [(200, 1)]);
    }

    #[test]
    fn hosts_take_turns() {
        let mut queue = Queue::default();
        for task in 0..40 {
            queue.push(owed(task, 0, 1, if task < 37 { "busy" } else { "quiet" }), 0);
        }
        let first: Vec<_> = (0..4).map(|_| queue.next(0).unwrap().host).collect();
        assert_eq!(first.iter().filter(|host| &***host == "quiet").count(), 2);
    }

    /// Random walks: nothing is lost, nothing is tried twice at once, no line out of order, and no bound passed.
    #[test]
    fn nothing_is_lost_whatever_happens_in_whatever_order() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut queue = Queue::default();
            let (mut now, mut rev, mut flying, mut open) = (0, 0, Vec::<Owed>::new(), 0usize);
            for _ in 0..400 {
                match random.u8(0..10) {
                    0..4 => {
                        rev += 1;
                        let (task, place) = (random.u8(0..12), random.u8(0..2));
                        queue
                            .push(owed(task, place, rev, &format!("h{}", (task + place) % 5)), now + random.u64(0..20));
                        open += 1;
                    }
                    4..7 => flying.extend(std::iter::from_fn(|| queue.next(now))),
                    7..9 if !flying.is_empty() => {
                        let it = flying.swap_remove(random.usize(..flying.len()));
                        match random.bool() {
                            true => {
                                queue.done(it.id, random.bool());
                                open -= 1;
                            }
                            false => queue.again(it.id, random.bool(), now + random.u64(0..30)),
                        }
                    }
                    _ => now += random.u64(0..15),
                }
                let mut keys: Vec<_> = flying.iter().map(|it| (it.task_id, it.place)).collect();
                keys.sort_unstable();
                assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "two of one line at once");
                assert!(flying.len() <= TRIES_MAX && flying.len() == queue.tries);
                assert_eq!(queue.len(), open);
            }
            // In the end all arrive, each line in its order.
            let mut last: HashMap<LineKey, u64> = HashMap::new();
            for _ in 0..10_000 {
                if queue.is_empty() {
                    break;
                }
                now += 10;
                flying.extend(std::iter::from_fn(|| queue.next(now)));
                for it in flying.drain(..) {
                    assert!(last.insert((it.task_id, it.place), it.rev).is_none_or(|before| before < it.rev));
                    queue.done(it.id, true);
                }
            }
            assert!(queue.is_empty() && queue.hosts.is_empty() && queue.clock.is_empty() && queue.turns.is_empty());
        }
    }
}
