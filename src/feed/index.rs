//! Which clients a task is for: finds the few subscriptions that match without checking the many.
//!
//! A subscription is filed under *index keys*: the values of the most selective exact list of its filter. One without such a
//! list (or with a pattern in it) is filed under "all". A task is looked up by its own values, and only the subscriptions
//! found there are checked in full. What a filter looks at, except `status`, never changes in the life of a task, so one look-up
//! serves its old and its new record. Labels may be replaced: then those of before are kept in the record, and looked up too.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use crate::task::{Filter, Pattern, PatternSet, Status, Task};

/// The slot of a client in its shard: an index into its entries. Small numbers, used again.
pub(super) type ClientSlot = u32;
/// A subscription in the index. Small numbers, used again.
pub(super) type SubKey = u32;

/// A subscription, as the index knows it.
#[derive(Debug)]
pub(super) struct Sub {
    pub slot: ClientSlot,
    pub filter: std::sync::Arc<Filter>,
    /// The most progress ticks a second.
    pub hz: f64,
}

impl Sub {
    /// Whether the task is meant, in any of these states.
    fn wants(&self, task: &Task, states: States) -> bool {
        let status = self.filter.status.as_ref().is_none_or(|meant| meant.iter().any(|status| states.has(*status)));
        // Where its labels were replaced, those who see it no longer are to hear that.
        status && (self.filter.matches_unchanging(task) || states.are_relabelled() && self.filter.matches_ever(task))
    }
}

/// The states a task went through: the old and the new one of a transition, and of merged ones all of them. A client may
/// have read any of these in a snapshot, for the board is ahead of the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct States(u8);

/// Beside the statuses.
const RELABELLED: u8 = 1 << Status::ALL.len();

impl States {
    /// Those of the transition from `prev` to `next`.
    pub fn of(prev: Option<&Task>, next: &Task) -> States {
        let replaced = |prev: &Task| !next.former_labels().is_empty() && prev.labels() != next.labels();
        let relabelled = if prev.is_some_and(replaced) { RELABELLED } else { 0 };
        States(1 << next.status as u8 | prev.map_or(0, |prev| 1 << prev.status as u8) | relabelled)
    }

    pub fn and(self, other: States) -> States {
        States(self.0 | other.0)
    }

    /// Whether other labels took the place of those it had.
    fn are_relabelled(self) -> bool {
        self.0 & RELABELLED != 0
    }

    fn has(self, status: Status) -> bool {
        self.0 & (1 << status as u8) != 0
    }
}

/// A client that an event is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hit {
    pub slot: ClientSlot,
    /// The highest rate of its subscriptions that match.
    pub hz: f64,
}

#[derive(Default)]
pub(super) struct Index {
    subs: Vec<Option<Sub>>,
    free: Vec<SubKey>,
    /// By the digest of an index key. Two keys with one digest cost a look, not an error: all is checked in full.
    subs_by_key: HashMap<u64, BTreeSet<SubKey>>,
    all: BTreeSet<SubKey>,
    digest: RandomState,
    /// By slot: the last look-up that found it, and where in its result.
    found: Vec<(u64, usize)>,
    lookups: u64,
}

/// A value of a task under which subscriptions are found.
#[derive(Hash)]
enum IndexKey<'a> {
    Task(&'a [u8; 16]),
    Workflow(&'a [u8; 16]),
    User(&'a str),
    Label(&'a str, &'a str),
    Type(&'a str),
    Queue(&'a str),
}

/// The index keys of a subscription; `None` for "all".
fn index_keys(filter: &Filter) -> Option<Vec<IndexKey<'_>>> {
    if let Some(ids) = &filter.task_id {
        return Some(ids.iter().map(|id| IndexKey::Task(id.as_bytes())).collect());
    }
    if let Some(ids) = &filter.workflow_id {
        return Some(ids.iter().map(|id| IndexKey::Workflow(id.as_bytes())).collect());
    }
    if let Some(users) = &filter.user_id {
        return Some(users.iter().map(|user| IndexKey::User(user.as_str())).collect());
    }
    // The shortest list of values is the best guess at the rarest label.
    if let Some((key, values)) = filter.labels.iter().min_by_key(|(_, values)| values.len()) {
        return Some(values.iter().map(|value| IndexKey::Label(key, value)).collect());
    }
    let types = filter.task_type.as_ref().and_then(exact);
    if let Some(types) = types {
        return Some(types.into_iter().map(IndexKey::Type).collect());
    }
    let queues = filter.queue.as_ref().and_then(exact)?;
    Some(queues.into_iter().map(IndexKey::Queue).collect())
}

/// The names of a set that has no prefixes.
fn exact(patterns: &PatternSet) -> Option<Vec<&str>> {
    patterns
        .iter()
        .map(|pattern| match pattern {
            Pattern::Exact(name) => Some(name.as_str()),
            Pattern::Prefix(_) => None,
        })
        .collect()
}

impl Index {
    pub fn insert(&mut self, sub: Sub) -> SubKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.subs.push(None);
            (self.subs.len() - 1) as SubKey
        });
        match index_keys(&sub.filter) {
            None => {
                self.all.insert(key);
            }
            Some(index_keys) => {
                for index_key in index_keys {
                    self.subs_by_key.entry(self.digest.hash_one(index_key)).or_default().insert(key);
                }
            }
        }
        let slot = sub.slot as usize;
        if self.found.len() <= slot {
            self.found.resize(slot + 1, (0, 0));
        }
        self.subs[key as usize] = Some(sub);
        key
    }

    pub fn remove(&mut self, key: SubKey) {
        let Some(sub) = self.subs[key as usize].take() else { return };
        self.free.push(key);
        let Some(index_keys) = index_keys(&sub.filter) else {
            self.all.remove(&key);
            return;
        };
        for index_key in index_keys {
            let digest = self.digest.hash_one(index_key);
            if let Some(keys) = self.subs_by_key.get_mut(&digest) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.subs_by_key.remove(&digest);
                }
            }
        }
    }

    /// The clients with a subscription that covers a task which went through these states, each once, into `out`.
    pub fn audience(&mut self, task: &Task, states: States, out: &mut Vec<Hit>) {
        out.clear();
        self.lookups += 1;
        let under = |index_key: IndexKey| self.subs_by_key.get(&self.digest.hash_one(index_key));
        let former = task.former_labels().iter().map(|(key, value)| (key, value));
        let labels = task.labels().into_iter().flatten().chain(former);
        let labels = labels.filter_map(|(key, value)| under(IndexKey::Label(key, value)));
        let workflow_id = task.workflow_id();
        let candidates = [
            under(IndexKey::Task(task.task_id.as_bytes())),
            workflow_id.as_ref().and_then(|id| under(IndexKey::Workflow(id.as_bytes()))),
            task.user_id.as_ref().and_then(|user| under(IndexKey::User(user.as_str()))),
            under(IndexKey::Type(task.task_type.as_str())),
            under(IndexKey::Queue(task.queue.as_str())),
            Some(&self.all),
        ];
        for key in candidates.into_iter().flatten().chain(labels).flatten() {
            let Some(sub) = &self.subs[*key as usize] else { continue };
            if !sub.wants(task, states) {
                continue;
            }
            let (lookup, at) = &mut self.found[sub.slot as usize];
            if *lookup == self.lookups {
                out[*at].hz = out[*at].hz.max(sub.hz);
            } else {
                (*lookup, *at) = (self.lookups, out.len());
                out.push(Hit { slot: sub.slot, hz: sub.hz });
            }
        }
    }

    /// The highest rate of those of `keys` that want to hear of `task`; `None` if none does.
    pub fn rate(&self, keys: impl Iterator<Item = SubKey>, task: &Task) -> Option<f64> {
        keys.filter_map(|key| self.subs[key as usize].as_ref())
            .filter(|sub| sub.wants(task, States::of(None, task)))
            .map(|sub| sub.hz)
            .reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::sample::{id, task};
    use super::*;
    use crate::task::{FilterSpec, Name, Ties};

    fn filter(json: &str) -> Arc<Filter> {
        Arc::new(serde_json::from_str::<FilterSpec>(json).unwrap().checked().unwrap())
    }

    fn slots(index: &mut Index, prev: Option<&Task>, next: &Task) -> Vec<ClientSlot> {
        let mut hits = Vec::new();
        index.audience(next, States::of(prev, next), &mut hits);
        let mut slots: Vec<_> = hits.into_iter().map(|hit| hit.slot).collect();
        slots.sort();
        slots
    }

    #[test]
    fn a_task_is_for_those_who_mean_its_old_or_its_new_state() {
        let mut index = Index::default();
        index.insert(Sub { slot: 0, filter: filter(r#"{"status":["running"]}"#), hz: 10.0 });
        let pending = task(id(1), Status::Pending);
        let running = task(id(1), Status::Running);
        let completed = task(id(1), Status::Completed);
        assert_eq!(slots(&mut index, None, &pending), [0; 0]);
        assert_eq!(slots(&mut index, Some(&pending), &running), [0]);
        assert_eq!(slots(&mut index, Some(&running), &completed), [0], "so that the client sees it leave");
        assert_eq!(slots(&mut index, Some(&pending), &completed), [0; 0]);
    }

    #[test]
    fn a_client_is_found_once_with_its_highest_rate() {
        let mut index = Index::default();
        let a = index.insert(Sub { slot: 3, filter: filter("{}"), hz: 2.0 });
        let b = index.insert(Sub { slot: 3, filter: filter(r#"{"task_type":["t"]}"#), hz: 5.0 });
        let c = index.insert(Sub { slot: 3, filter: filter(r#"{"task_type":["other"]}"#), hz: 9.0 });
        let task = task(id(1), Status::Running);
        let mut hits = Vec::new();
        index.audience(&task, States::of(None, &task), &mut hits);
        assert_eq!(hits, [Hit { slot: 3, hz: 5.0 }]);
        assert_eq!(index.rate([a, b, c].into_iter(), &task), Some(5.0));
        assert_eq!(index.rate([c].into_iter(), &task), None);
        index.remove(b);
        index.audience(&task, States::of(None, &task), &mut hits);
        assert_eq!(hits, [Hit { slot: 3, hz: 2.0 }]);
    }

    #[test]
    fn nothing_is_left_of_a_subscription_that_went() {
        let mut index = Index::default();
        for json in
            ["{}", r#"{"queue":["a","b"]}"#, r#"{"labels":{"k":["1","2"],"l":["3"]}}"#, r#"{"task_type":["x*"]}"#]
        {
            let key = index.insert(Sub { slot: 0, filter: filter(json), hz: 1.0 });
            index.remove(key);
        }
        assert!(index.subs_by_key.is_empty() && index.all.is_empty());
        assert_eq!(index.subs.len(), 1, "keys are used again");
    }

    #[test]
    fn a_watcher_of_one_task_is_not_asked_about_others() {
        let mut index = Index::default();
        for n in 0..100 {
            let json = format!(r#"{{"task_id":["{}"]}}"#, id(n));
            index.insert(Sub { slot: n, filter: filter(&json), hz: 1.0 });
        }
        assert!(index.all.is_empty());
        assert!(index.subs_by_key.values().all(|keys| keys.len() == 1));
        assert_eq!(slots(&mut index, None, &task(id(7), Status::Running)), [7]);
    }

    fn some<T: std::fmt::Debug + Clone + 'static>(values: Vec<T>) -> impl Strategy<Value = Option<Vec<T>>> {
        let len = values.len();
        proptest::option::weighted(0.4, proptest::sample::subsequence(values, 1..=len))
    }

    prop_compose! {
        fn any_filter()(
            task_id in some((0..4).map(id).collect()),
            task_type in some(["t", "t.a", "t.*", "u", "*"].map(String::from).to_vec()),
            queue in some(["q", "r", "r*"].map(String::from).to_vec()),
            status in some(Status::ALL.to_vec()),
            user_id in some(["ann", "bob"].map(String::from).to_vec()),
            project in some(["1", "2"].map(String::from).to_vec()),
            region in some(["eu", "us"].map(String::from).to_vec()),
            workflow_id in some((8..10).map(id).collect()),
        ) -> Arc<Filter> {
            let labels = [("project", project), ("region", region)];
            let labels: std::collections::BTreeMap<_, _> =
                labels.into_iter().filter_map(|(key, values)| Some((key.to_owned(), values?))).collect();
            let labels = (!labels.is_empty()).then_some(labels);
            Arc::new(FilterSpec { task_id, task_type, queue, status, user_id, workflow_id, labels }.checked().unwrap())
        }
    }

    prop_compose! {
        fn any_task()(
            n in 0u32..5,
            status in proptest::sample::select(Status::ALL.to_vec()),
            task_type in proptest::sample::select(vec!["t", "t.a", "t.b", "u", "v"]),
            queue in proptest::sample::select(vec!["q", "r", "rr"]),
            user in proptest::sample::select(vec![None, Some("ann"), Some("bob"), Some("cid")]),
            project in proptest::sample::select(vec![None, Some("1"), Some("2"), Some("3")]),
            region in proptest::sample::select(vec![None, Some("eu")]),
            workflow in proptest::sample::select(vec![None, Some(8), Some(9), Some(10)]),
        ) -> Task {
            let mut task = task(id(n), status);
            task.task_type = Name::new(task_type);
            task.queue = Name::new(queue);
            task.user_id = user.map(Name::new);
            let labels = [("project", project), ("region", region)];
            let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
            task.detail = Some(Box::new(crate::task::Detail { labels: labels.collect(), ties: workflow.map(in_workflow), ..Default::default() }));
            task
        }
    }

    fn in_workflow(n: u32) -> Box<Ties> {
        Box::new(Ties { workflow_id: Some(id(n)), ..Ties::default() })
    }

    proptest! {
        /// The index finds exactly those that asking everyone finds.
        #[test]
        fn the_audience_is_what_asking_everyone_finds(
            subs in proptest::collection::vec((0u32..6, any_filter(), any::<bool>()), 0..40),
            next in any_task(),
            before in proptest::option::of(proptest::sample::select(Status::ALL.to_vec())),
        ) {
            let prev = before.map(|status| Task { status, ..next.clone() });
            let mut index = Index::default();
            let mut expected = BTreeSet::new();
            for (slot, filter, stays) in subs {
                let key = index.insert(Sub { slot, filter: filter.clone(), hz: 1.0 });
                if !stays {
                    index.remove(key);
                } else if filter.matches(&next) || prev.as_ref().is_some_and(|prev| filter.matches(prev)) {
                    expected.insert(slot);
                }
            }
            let found = slots(&mut index, prev.as_ref(), &next);
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
