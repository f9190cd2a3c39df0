//! What the hub says of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::task::Change;

/// Counters of one hub.
#[derive(Default)]
pub struct Metrics {
    sockets: AtomicU64,
}

impl Metrics {
    /// A commit of so many changes was written.
    pub fn committed(&self, _changes: usize, _took: Duration) {}

    /// These changes are visible now.
    pub fn changed<'a>(&self, _changes: impl Iterator<Item = &'a Change>) {}

    /// Open live sockets.
    pub fn sockets(&self) -> u64 {
        self.sockets.load(Ordering::Relaxed)
    }
}
