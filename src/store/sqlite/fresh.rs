//! What a read over many tasks takes from the staging, and how it is merged with what the view says.
//!
//! The staging has the newest record of a task that is not settled, so of such a task the view is never asked: its row is
//! passed over, and the staged record stands in its place, wherever the order of the read puts it. No read waits for
//! settling, so reads go on where the store takes no writes, and the writer does not hear of them.
//!
//! The staging is looked at first, as by every read ([`super::staging`]). A task that is settled between the two looks is
//! in both, and is taken as it was staged. One that changes in between may be taken as it was before or after; either was
//! its newest record at a moment after the read began, which is all that a read of many tasks promises.

use std::collections::HashSet;

use super::staging::{StagedRecord, Staging};
use crate::task::{IdHasher, TaskId};

/// Tasks of which the view may have an older record, or one that is gone.
pub(super) type Newer = HashSet<TaskId, IdHasher>;

/// What one read takes from the staging.
pub(super) struct Fresh<K, T> {
    newer: Newer,
    /// What is meant of them, last to first.
    found: Vec<(K, T)>,
}

impl<K: Ord + Copy, T> Fresh<K, T> {
    /// Looks at every staged record. `key` puts those that are meant in order, and `item` makes of a record what is read;
    /// of no more than the first `limit` and one, to see whether there are more.
    pub fn of(
        staging: &Staging,
        limit: usize,
        key: impl Fn(&StagedRecord) -> Option<K>,
        item: impl Fn(&StagedRecord) -> T,
    ) -> Fresh<K, T> {
        let mut newer = HashSet::with_capacity_and_hasher(staging.size().0, IdHasher);
        let mut found = Vec::new();
        for record in staging.records() {
            newer.insert(record.task.task_id);
            found.extend(key(record).map(|key| (key, record)));
        }
        let len = limit.saturating_add(1);
        if found.len() > len {
            found.select_nth_unstable_by_key(len - 1, |(key, _)| *key);
            found.truncate(len);
        }
        found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Fresh { newer, found: found.into_iter().map(|(key, record)| (key, item(record))).collect() }
    }

    /// How many rows of the view may have to be passed over.
    pub fn len(&self) -> usize {
        self.newer.len()
    }

    /// Merges the rows of the view, which `next` gives in order and without those of [`Newer`], with what was staged: the first
    /// `limit`, and whether there are more.
    pub fn merge(
        mut self,
        limit: usize,
        mut next: impl FnMut(&Newer) -> rusqlite::Result<Option<(K, T)>>,
    ) -> rusqlite::Result<(Vec<T>, bool)> {
        let mut merged = Vec::new();
        let mut row = next(&self.newer)?;
        loop {
            let staged_first = match (self.found.last(), &row) {
                (None, None) => return Ok((merged, false)),
                (Some((staged, _)), Some((stored, _))) => staged < stored,
                (staged, _) => staged.is_some(),
            };
            if merged.len() == limit {
                return Ok((merged, true));
            }
            let first = match staged_first {
                true => self.found.pop(),
                false => std::mem::replace(&mut row, next(&self.newer)?),
            };
            merged.extend(first.map(|(_, item)| item));
        }
    }
}
