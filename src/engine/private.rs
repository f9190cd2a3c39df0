//! What the engine knows of a task beyond its record.
//!
//! Almost all of the engine's state follows from the records, so a revert only has to put the old record in the place of
//! the new one. The exceptions are times of clocks that no record knows: when a lease was renewed, when a wait ends. They
//! belong to one record, named by its `rev`. When a later record takes its place within a batch, they are kept in the
//! [`Journal`] until the batch is over, and a revert finds them there.

use std::collections::HashMap;

use super::leases::Lease;

/// What is known beside one record.
#[derive(Debug)]
pub(super) enum Private {
    /// Of a running task.
    Lease(Lease),
    /// Of a task that waits for so long: when that is over, on the monotonic clock.
    WaitEnds(u64),
}

/// Private state of records that were replaced in this batch, by the `rev` of the record.
#[derive(Default)]
pub(super) struct Journal(HashMap<u64, Private>);

impl Journal {
    /// A record was replaced.
    pub(super) fn keep(&mut self, rev: u64, private: Option<Private>) {
        if let Some(private) = private {
            self.0.insert(rev, private);
        }
    }

    /// A record stands again.
    pub(super) fn take(&mut self, rev: u64) -> Option<Private> {
        self.0.remove(&rev)
    }

    /// The batch is over: nothing of it can come back.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
