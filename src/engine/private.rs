//! What the engine knows of a task beyond its record.
//!
//! Almost all of the engine's state follows from the records, so a revert only has to put the old record in the place of
//! the new one. The exceptions are times of clocks that no record knows, when a lease was renewed, when a wait ends; and
//! whose turn it was. They belong to one record, named by its `rev`. When a later record takes its place within a batch, they are kept in the
//! [`Journal`] until the batch is over, and a revert finds them there.

use std::collections::HashMap;

use crate::task::{Status, Task};

use super::leases::Lease;

/// What is known beside one record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Private {
    /// Of a running task.
    pub(super) lease: Option<Lease>,
    /// When waits are over, on the monotonic clock: the one that it is scheduled for, …
    pub(super) wait_ends: Option<u64>,
    /// … and those that go on from one record to the next.
    pub(super) deadline_ends: Option<u64>,
    pub(super) start_by_ends: Option<u64>,
    /// Of a ready task in a queue that is shared out: the turn of its party.
    pub(super) turn: Option<u64>,
    /// Of a ready task with `unserved_ms`: when it was last served, in lived time.
    pub(super) served_at: Option<u64>,
}

impl Private {
    /// What goes on from one record of a task to the next, or back: an attempt keeps its lease, and a wait its end unless
    /// it began anew.
    pub(super) fn carry_over(&mut self, from: &Private, old: &Task, new: &Task) {
        let runs = |task: &Task| task.status == Status::Running;
        let both = |status: Status| old.status == status && new.status == status;
        if both(Status::Pending) {
            (self.turn, self.served_at) = (from.turn, from.served_at);
        }
        // A wait that began anew ends at another time.
        if both(Status::Scheduled) && old.delayed && new.delayed && old.run_at == new.run_at {
            self.wait_ends = from.wait_ends;
        }
        if runs(old) && runs(new) && old.attempt == new.attempt {
            self.lease = from.lease.clone();
        }
        if old.deadline() == new.deadline() {
            self.deadline_ends = from.deadline_ends.or(self.deadline_ends);
        }
        if old.start_by() == new.start_by() {
            self.start_by_ends = from.start_by_ends.or(self.start_by_ends);
        }
    }
}

/// Private state of records that were replaced in this batch, by the `rev` of the record.
#[derive(Default)]
pub(super) struct Journal(HashMap<u64, Private>);

impl Journal {
    /// A record was replaced.
    pub(super) fn keep(&mut self, rev: u64, private: Private) {
        if private != Private::default() {
            self.0.insert(rev, private);
        }
    }

    /// A record stands again.
    pub(super) fn take(&mut self, rev: u64) -> Option<Private> {
        self.0.remove(&rev)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The batch is over: nothing of it can come back.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
