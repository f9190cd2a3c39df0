//! Which tasks somebody wants to see: an AND of lists, each a non-empty OR.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::bounds::{optional_list, optional_map};
use super::{Invalid, Name, Pattern, PatternSet, Status, Task, TaskId};

/// The most values of all lists of a filter together.
pub const FILTER_VALUES_MAX: usize = 1_000;

/// A filter as it stands on the wire. A list that is absent asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSpec {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values")]
    pub task_id: Option<Vec<TaskId>>,
    /// Names, or beginnings of names with a trailing `*`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values")]
    pub task_type: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values")]
    pub queue: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values")]
    pub status: Option<Vec<Status>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values")]
    pub user_id: Option<Vec<String>>,
    /// The workflows that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values")]
    pub workflow_id: Option<Vec<TaskId>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "labels")]
    pub labels: Option<BTreeMap<String, Vec<String>>>,
}

const VALUES_UNIT: &str = "values";

fn values<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    optional_list(deserializer, FILTER_VALUES_MAX, VALUES_UNIT)
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, Vec<String>>>, D::Error> {
    #[derive(Deserialize)]
    struct Values(#[serde(deserialize_with = "required")] Vec<String>);
    fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        super::bounds::list(deserializer, FILTER_VALUES_MAX, VALUES_UNIT)
    }
    let labels: Option<BTreeMap<String, Values>> = optional_map(deserializer, FILTER_VALUES_MAX, VALUES_UNIT)?;
    Ok(labels.map(|labels| labels.into_iter().map(|(key, Values(values))| (key, values)).collect()))
}

/// A checked filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    pub task_id: Option<BTreeSet<TaskId>>,
    pub task_type: Option<PatternSet>,
    pub queue: Option<PatternSet>,
    pub status: Option<BTreeSet<Status>>,
    pub user_id: Option<BTreeSet<Name>>,
    pub workflow_id: Option<BTreeSet<TaskId>>,
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// Labels that a task must have now, whatever it had before: those of a caller's sight.
    pub labels_now: BTreeMap<String, BTreeSet<String>>,
}

impl FilterSpec {
    /// Values of all lists together.
    pub fn values_len(&self) -> usize {
        self.task_id.as_ref().map_or(0, Vec::len)
            + self.task_type.as_ref().map_or(0, Vec::len)
            + self.queue.as_ref().map_or(0, Vec::len)
            + self.status.as_ref().map_or(0, Vec::len)
            + self.user_id.as_ref().map_or(0, Vec::len)
            + self.workflow_id.as_ref().map_or(0, Vec::len)
            + self.labels.iter().flat_map(BTreeMap::values).map(Vec::len).sum::<usize>()
    }

    /// As [`checked`](Self::checked), of what is to mean the same tasks for as long as they live.
    pub fn checked_unchanging(self) -> Result<Filter, Invalid> {
        match self.status {
            Some(_) => Err(Invalid::value("status", "cannot be asked for: it changes")),
            None => self.checked(),
        }
    }

    /// Checks the bounds: every list has at least one value, all together at most [`FILTER_VALUES_MAX`].
    pub fn checked(self) -> Result<Filter, Invalid> {
        if self.values_len() > FILTER_VALUES_MAX {
            return Err(Invalid::limit("filter", FILTER_VALUES_MAX as u64, VALUES_UNIT));
        }
        let patterns = |field: &'static str, list: Option<Vec<String>>| -> Result<Option<PatternSet>, Invalid> {
            let Some(list) = list else { return Ok(None) };
            let patterns = list
                .iter()
                .map(|text| Pattern::parse(text).map_err(|why| Invalid::value(field, why.to_string())))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Some(PatternSet::new(patterns)))
        };
        Ok(Filter {
            task_id: non_empty("task_id", self.task_id)?.map(|list| list.into_iter().collect()),
            task_type: patterns("task_type", non_empty("task_type", self.task_type)?)?,
            queue: patterns("queue", non_empty("queue", self.queue)?)?,
            status: non_empty("status", self.status)?.map(|list| list.into_iter().collect()),
            user_id: non_empty("user_id", self.user_id)?.map(|list| list.iter().map(|id| Name::new(id)).collect()),
            workflow_id: non_empty("workflow_id", self.workflow_id)?.map(|list| list.into_iter().collect()),
            labels: self
                .labels
                .unwrap_or_default()
                .into_iter()
                .map(|(key, values)| {
                    let values = non_empty(format!("labels.{key}"), Some(values))?.unwrap_or_default();
                    Ok((key, values.into_iter().collect()))
                })
                .collect::<Result<_, Invalid>>()?,
            labels_now: BTreeMap::new(),
        })
    }
}

fn non_empty<T>(
    field: impl Into<std::borrow::Cow<'static, str>>,
    list: Option<Vec<T>>,
) -> Result<Option<Vec<T>>, Invalid> {
    match list {
        Some(list) if list.is_empty() => Err(Invalid::value(field, "must not be an empty list")),
        list => Ok(list),
    }
}

impl Filter {
    /// Values of the lists by which it is looked up.
    pub fn values_len(&self) -> usize {
        self.task_id.as_ref().map_or(0, BTreeSet::len)
            + self.user_id.as_ref().map_or(0, BTreeSet::len)
            + self.workflow_id.as_ref().map_or(0, BTreeSet::len)
            + self.labels.values().map(BTreeSet::len).sum::<usize>()
    }

    /// The filter that means what both mean.
    pub fn and(&self, other: &Filter) -> Filter {
        fn sets<T: Ord + Clone>(a: &Option<BTreeSet<T>>, b: &Option<BTreeSet<T>>) -> Option<BTreeSet<T>> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a & b),
                (one, None) | (None, one) => one.clone(),
            }
        }
        let patterns = |a: &Option<PatternSet>, b: &Option<PatternSet>| match (a, b) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (one, None) | (None, one) => one.clone(),
        };
        let labels = |mine: &BTreeMap<String, BTreeSet<String>>, theirs: &BTreeMap<String, BTreeSet<String>>| {
            let mut labels = mine.clone();
            for (key, values) in theirs {
                labels.entry(key.clone()).and_modify(|mine| *mine = &*mine & values).or_insert_with(|| values.clone());
            }
            labels
        };
        Filter {
            task_id: sets(&self.task_id, &other.task_id),
            task_type: patterns(&self.task_type, &other.task_type),
            queue: patterns(&self.queue, &other.queue),
            status: sets(&self.status, &other.status),
            user_id: sets(&self.user_id, &other.user_id),
            workflow_id: sets(&self.workflow_id, &other.workflow_id),
            labels: labels(&self.labels, &other.labels),
            labels_now: labels(&self.labels_now, &other.labels_now),
        }
    }

    /// The filter that means what this one means within what somebody sees: a task that they see no longer, because others took
    /// the place of its labels, is none of theirs, though it had them before.
    pub fn within(&self, sight: &Filter) -> Filter {
        Filter { labels_now: sight.labels.clone(), ..self.and(sight) }
    }

    /// Tells filters apart, also from one start of a program to the next.
    pub fn digest(&self) -> u64 {
        let hash = Sha256::digest(format!("{self:?}").as_bytes());
        u64::from_be_bytes(hash[..8].try_into().expect("a SHA-256 has 32 bytes"))
    }

    /// Whether it cannot mean any task, because one of its lists is empty.
    pub fn is_nothing(&self) -> bool {
        self.task_id.as_ref().is_some_and(BTreeSet::is_empty)
            || self.task_type.as_ref().is_some_and(PatternSet::is_empty)
            || self.queue.as_ref().is_some_and(PatternSet::is_empty)
            || self.status.as_ref().is_some_and(BTreeSet::is_empty)
            || self.user_id.as_ref().is_some_and(BTreeSet::is_empty)
            || self.workflow_id.as_ref().is_some_and(BTreeSet::is_empty)
            || self.labels.values().any(BTreeSet::is_empty)
    }

    /// Whether the record is meant.
    pub fn matches(&self, task: &Task) -> bool {
        self.status.as_ref().is_none_or(|statuses| statuses.contains(&task.status))
            && self.matches_unchanging(task)
            && (task.former_labels().is_empty() || has_labels(task, &self.labels))
    }

    fn matched_labels(&self, task: &Task) -> bool {
        let former = task.former_labels();
        let had =
            |key: &str, values: &BTreeSet<String>| former.iter().any(|(k, value)| k == key && values.contains(value));
        let has = |key: &str| task.labels().and_then(|labels| labels.get(key));
        let each = |(key, values): (&String, &BTreeSet<String>)| {
            has(key).is_some_and(|value| values.contains(value)) || had(key, values)
        };
        !former.is_empty() && self.labels.iter().all(each)
    }

    /// Whether the parts of the record that never change are meant: all but `status`. Of labels that were replaced, those of
    /// before count too: whoever watches by them must hear where the task has gone.
    pub fn matches_unchanging(&self, task: &Task) -> bool {
        (self.labels_now.is_empty() || has_labels(task, &self.labels_now)) && self.matches_ever(task)
    }

    /// Whether the record is, or was before its labels were replaced, one that is meant, in whatever status.
    pub fn matches_ever(&self, task: &Task) -> bool {
        self.task_id.as_ref().is_none_or(|ids| ids.contains(&task.task_id))
            && self.task_type.as_ref().is_none_or(|types| types.matches(task.task_type.as_str()))
            && self.queue.as_ref().is_none_or(|queues| queues.matches(task.queue.as_str()))
            && self.user_id.as_ref().is_none_or(|users| task.user_id.as_ref().is_some_and(|user| users.contains(user)))
            && self.workflow_id.as_ref().is_none_or(|ids| task.workflow_id().is_some_and(|id| ids.contains(&id)))
            && (has_labels(task, &self.labels) || self.matched_labels(task))
    }
}

fn has_labels(task: &Task, labels: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let value = |key: &String| task.labels().and_then(|labels| labels.get(key));
    labels.iter().all(|(key, values)| value(key).is_some_and(|value| values.contains(value)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Detail, Timestamp};
    use super::*;

    const NAMES: [&str; 5] = ["a", "b", "a.x", "a.y", "ab"];

    fn some_of<T: Clone + std::fmt::Debug + 'static>(of: Vec<T>) -> impl Strategy<Value = Option<Vec<T>>> {
        let all = of.len();
        prop::option::of(prop::sample::subsequence(of, 1..=all))
    }

    fn names() -> Vec<String> {
        NAMES.map(str::to_owned).to_vec()
    }

    fn ids() -> Vec<TaskId> {
        (0..3).map(|n| TaskId::from_bytes([n; 16])).collect()
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let patterns = || some_of(["a", "b", "a.*", "a.x", "*", "ab*"].map(str::to_owned).to_vec());
        let labels = prop::collection::btree_map("[kl]", some_of(names()).prop_map(Option::unwrap_or_default), 0..3);
        let labels = labels.prop_map(|labels| labels.into_iter().filter(|(_, values)| !values.is_empty()).collect());
        let users = some_of(names());
        (some_of(ids()), patterns(), patterns(), some_of(Status::ALL.to_vec()), users, labels).prop_map(
            |(task_id, task_type, queue, status, user_id, labels)| {
                let spec =
                    FilterSpec { task_id, task_type, queue, status, user_id, workflow_id: None, labels: Some(labels) };
                spec.checked().expect("it has no empty list")
            },
        )
    }

    fn task() -> impl Strategy<Value = Task> {
        let name = || prop::sample::select(NAMES.to_vec());
        let labels = prop::collection::btree_map("[kl]", name().prop_map(str::to_owned), 0..3);
        let (id, status) = (prop::sample::select(ids()), prop::sample::select(Status::ALL.to_vec()));
        (id, name(), name(), status, prop::option::of(name()), labels).prop_map(
            |(task_id, task_type, queue, status, user, labels)| Task {
                task_id,
                task_type: Name::new(task_type),
                queue: Name::new(queue),
                user_id: user.map(Name::new),
                rev: 1,
                created_at: Timestamp::from_millis(0),
                updated_at: Timestamp::from_millis(0),
                run_at: None,
                delayed: false,
                priority: 0,
                status,
                attempt: 0,
                tries: 0,
                max_attempts: 1,
                crashes: 0,
                max_crashes: 3,
                detail: (!labels.is_empty()).then(|| Box::new(Detail { labels, ..Detail::default() })),
                run: None,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

        /// What a caller sees through a scope rests on this.
        #[test]
        fn both_is_what_each_of_two_matches(a in filter(), b in filter(), tasks in prop::collection::vec(task(), 8)) {
            let both = a.and(&b);
            for task in &tasks {
                prop_assert_eq!(both.matches(task), a.matches(task) && b.matches(task), "{:?}", task);
                prop_assert!(!both.matches(task) || !both.is_nothing());
            }
            prop_assert_eq!(&both, &b.and(&a));
            prop_assert_eq!(&both.and(&a), &both);
            prop_assert_eq!(&a.and(&Filter::default()), &a);
        }
    }
}
