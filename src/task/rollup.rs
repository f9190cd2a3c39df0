//! How far a workflow is: what its tasks come to together.

use super::{Counters, Progress, Status, Task};

/// The tasks of a workflow, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    statuses: [u32; Status::ALL.len()],
    weight: u64,
    /// Of those that are final.
    done: u64,
}

impl Rollup {
    /// A task is one of the workflow's.
    pub fn add(&mut self, task: &Task) {
        self.statuses[task.status as usize] += 1;
        let weight = weight_of(task);
        self.weight += weight;
        self.done += if task.status.is_final() { weight } else { 0 };
    }

    /// It is not any more, or not as it was.
    pub fn remove(&mut self, task: &Task) {
        let count = &mut self.statuses[task.status as usize];
        *count = count.saturating_sub(1);
        let weight = weight_of(task);
        self.weight = self.weight.saturating_sub(weight);
        self.done = self.done.saturating_sub(if task.status.is_final() { weight } else { 0 });
    }

    /// How many are at this status.
    pub fn count(&self, status: Status) -> u32 {
        self.statuses[status as usize]
    }

    /// How many they are.
    pub fn total(&self) -> u32 {
        self.statuses.iter().sum()
    }

    /// How many of them are not final.
    pub fn open(&self) -> u32 {
        Status::ALL.iter().filter(|status| !status.is_final()).map(|status| self.count(*status)).sum()
    }

    /// The progress of the workflow, with what running tasks have done: of each its weight, and its percentage.
    pub fn progress(&self, running: impl Iterator<Item = (u64, f64)>) -> Progress {
        let partly: f64 = running.map(|(weight, percentage)| weight as f64 * percentage / 100.0).sum();
        let share = (self.done as f64 + partly) / self.weight.max(1) as f64;
        Progress {
            percentage: Some((share.min(1.0) * 1_000.0).round() / 10.0),
            current: Some(f64::from(self.total() - self.open())),
            total: Some(f64::from(self.total())),
            counters: Some(Counters {
                success: self.count(Status::Completed).into(),
                failed: self.count(Status::Failed).into(),
                skipped: self.count(Status::Cancelled).into(),
            }),
            ..Progress::default()
        }
    }
}

/// How much a task counts in the progress of its workflow.
pub fn weight_of(task: &Task) -> u64 {
    task.ties().map_or(1, |ties| ties.weight.into())
}
