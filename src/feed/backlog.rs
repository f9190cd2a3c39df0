//! What a shard has taken from its inbox, and not matched yet.
//!
//! It is matched in order, as fast as clients can be sent to; see [`turns`](super::send_queue).

use std::collections::VecDeque;
use std::sync::Arc;

use super::handle::Published;
use super::inbox::{Batch, Merged, MergedTask};

#[derive(Default)]
pub(super) struct Backlog {
    batches: VecDeque<Batch>,
    /// So many transitions of the first batch were matched.
    at: usize,
    /// Newest first.
    merged: Vec<MergedTask>,
    /// The last of all; where tasks were merged, only all of them together reach up to here.
    rev: Option<u64>,
}

/// The next thing to match.
pub(super) enum News {
    /// A transition of a batch.
    Transition(Arc<[Published]>, usize),
    Merged(MergedTask),
    /// Every transition up to this `rev` was matched.
    UpTo(u64),
}

impl Backlog {
    /// Refills the empty backlog. Revs up to `skipped_rev` that are not in it had no client to be sent to.
    pub fn fill(&mut self, batches: Vec<Batch>, merged: Option<Merged>, skipped_rev: Option<u64>) {
        debug_assert!(self.is_empty());
        self.batches = batches.into();
        self.rev = merged.as_ref().map(|merged| merged.rev).max(skipped_rev);
        self.merged = merged.map_or(Vec::new(), |merged| merged.tasks.into_values().collect());
        self.merged.sort_by_key(|task| std::cmp::Reverse(task.newest.rev));
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.rev.is_none()
    }

    /// Whether what is left is merged: clients that were sent a part of it have no `rev` up to which they know everything.
    pub fn is_merged(&self) -> bool {
        self.batches.is_empty() && self.rev.is_some()
    }

    pub fn next(&mut self) -> Option<News> {
        if let Some(batch) = self.batches.front() {
            let news = News::Transition(batch.transitions.clone(), self.at);
            self.at += 1;
            if self.at == batch.transitions.len() {
                self.batches.pop_front();
                self.at = 0;
            }
            return Some(news);
        }
        self.merged.pop().map(News::Merged).or_else(|| self.rev.take().map(News::UpTo))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::sample::{id, published};
    use super::*;
    use crate::task::Status;

    fn revs(backlog: &mut Backlog) -> Vec<u64> {
        let rev = |news| match news {
            News::Transition(transitions, at) => transitions[at].rev,
            News::Merged(task) => task.newest.rev,
            News::UpTo(rev) => 100 + rev,
        };
        std::iter::from_fn(|| backlog.next()).map(rev).collect()
    }

    #[test]
    fn everything_comes_in_order() {
        let mut backlog = Backlog::default();
        let transitions =
            |revs: std::ops::RangeInclusive<u32>| revs.map(|rev| published(rev.into(), id(rev), None, Status::Pending));
        let batch = |revs| Batch { transitions: transitions(revs).collect(), since: Instant::now() };
        backlog.fill(vec![batch(1..=2), batch(3..=3)], None, Some(5));
        assert!(!backlog.is_merged());
        assert_eq!(revs(&mut backlog), [1, 2, 3, 105]);
        assert!(backlog.is_empty());

        let mut merged = Merged::default();
        merged.add_batch(&batch(6..=9));
        backlog.fill(Vec::new(), Some(merged), None);
        assert!(backlog.is_merged());
        assert_eq!(revs(&mut backlog), [6, 7, 8, 9, 109]);
        assert!(backlog.is_empty() && !backlog.is_merged());
    }
}
