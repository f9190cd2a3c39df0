//! Which running tasks have ticked since their shards last looked.
//!
//! A bit per task and shard. A tick that finds its bits set costs a look-up and one atomic instruction, however many
//! come; only a bit that was clear is worth a note to its shard. There is an entry per running task that reports progress.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::task::TaskId;

/// More shards than there are bits would be of no use: a shard is a core's worth of clients.
pub(super) const SHARDS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct DirtyTicks {
    bits: DashMap<TaskId, AtomicU64>,
}

impl DirtyTicks {
    /// Sets the bits of `shards`, and tells which of them were clear.
    pub fn set(&self, task_id: TaskId, shards: u64) -> u64 {
        // Always a read-modify-write, never a plain look first: it comes either before `clear`, and then whoever cleared
        // sees the tick, or after it, and then finds the bit clear.
        let set = |bits: &AtomicU64| shards & !bits.fetch_or(shards, Ordering::AcqRel);
        match self.bits.get(&task_id) {
            Some(bits) => set(&bits),
            None => set(&self.bits.entry(task_id).or_default()),
        }
    }

    /// Clears the bit of a shard. Whatever ticked before is on the board now.
    pub fn clear(&self, task_id: TaskId, shard: usize) {
        if let Some(bits) = self.bits.get(&task_id) {
            bits.fetch_and(!(1 << shard), Ordering::AcqRel);
        }
    }

    /// Clears every bit of a shard.
    pub fn clear_all(&self, shard: usize) {
        for bits in self.bits.iter() {
            bits.fetch_and(!(1 << shard), Ordering::AcqRel);
        }
    }

    /// Forgets a task that runs no more. Should it tick again, its next tick finds every bit clear.
    pub fn forget(&self, task_id: TaskId) {
        self.bits.remove(&task_id);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.bits.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::id;
    use super::*;

    #[test]
    fn only_a_clear_bit_is_worth_a_note() {
        let dirty = DirtyTicks::default();
        assert_eq!(dirty.set(id(1), 0b11), 0b11);
        assert_eq!(dirty.set(id(1), 0b11), 0);
        dirty.clear(id(1), 1);
        assert_eq!(dirty.set(id(1), 0b11), 0b10);
        assert_eq!(dirty.set(id(2), 0b01), 0b01);
        dirty.forget(id(1));
        assert_eq!(dirty.set(id(1), 0b11), 0b11);
    }
}
