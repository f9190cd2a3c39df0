//! A store that tests hold up, or break: its commits wait at a gate, and its disk is full when they say so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::{Commit, Count, HandOuts, Reader, Recovered, SqliteStore, Store, StoreError};
use crate::task::{Digest, Json, KeyEntry, Task, TaskId, Timestamp};

/// Whether commits go through, and whether one stands before the gate. A broken store takes neither commits nor settlings.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(bool, bool)>,
    moved: Condvar,
    /// The disk is full.
    pub broken: AtomicBool,
    /// Bytes of results in the largest commit.
    pub largest: AtomicUsize,
}

impl Gate {
    pub fn set(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.moved.notify_all();
    }

    /// Blocks until a commit stands before the closed gate.
    pub fn until_stuck(&self) {
        drop(self.moved.wait_while(self.state.lock().unwrap(), |(_, stuck)| !*stuck).unwrap());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 = state.0;
        self.moved.notify_all();
        drop(self.moved.wait_while(state, |(closed, _)| *closed).unwrap());
    }
}

impl Gate {
    fn works(&self, step: &'static str) -> Result<(), StoreError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(StoreError { step, cause: "the disk is full".into(), lasting: false }),
            false => Ok(()),
        }
    }
}

/// A store whose commits wait at a gate.
pub struct Gated(pub SqliteStore, pub Arc<Gate>);

impl Store for Gated {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.0.recover()
    }

    fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.1.pass();
        self.1.works("append")?;
        let bytes = commit.changes.iter().filter_map(|entry| entry.change.result.as_ref()).map(Json::len).sum();
        self.1.largest.fetch_max(bytes, Ordering::SeqCst);
        self.0.append(commit)
    }

    fn settle(&mut self, tasks_max: usize) -> Result<Vec<(TaskId, u64)>, StoreError> {
        self.1.works("settle")?;
        self.0.settle(tasks_max)
    }

    fn unsettled(&self) -> (usize, usize) {
        self.0.unsettled()
    }

    fn task(&mut self, task_id: TaskId) -> Result<Option<Task>, StoreError> {
        self.0.task(task_id)
    }

    fn log_end(&mut self, task_id: TaskId) -> Result<u64, StoreError> {
        self.0.log_end(task_id)
    }

    fn key(&mut self, key: Digest, now: Timestamp) -> Result<Option<KeyEntry>, StoreError> {
        self.0.key(key, now)
    }

    fn sweep(&mut self, now: Timestamp, tombstones_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.sweep(now, tombstones_before, rows_max)
    }

    fn hand_outs(&mut self, now: Count) -> Result<Vec<HandOuts>, StoreError> {
        self.0.hand_outs(now)
    }

    fn forget_hand_outs(&mut self, until: i64, mono: u64, rows_max: usize) -> Result<usize, StoreError> {
        self.0.forget_hand_outs(until, mono, rows_max)
    }

    fn forget_deliveries(&mut self, tried_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.forget_deliveries(tried_before, rows_max)
    }

    fn forget_audit(&mut self, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.0.forget_audit(before, rows_max)
    }

    fn shrink(&mut self) -> Result<bool, StoreError> {
        self.1.works("shrink")?;
        self.0.shrink()
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.1.works("probe")?;
        self.0.probe()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Store::reader(&self.0)
    }
}
