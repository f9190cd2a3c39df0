//! What follows from a step for other tasks.
//!
//! A task that ends may free others, or end them. That never happens within its own step: the step puts its consequences
//! into a queue, and the queue is worked through at the end of each decision. So a step is a step, however much follows,
//! and a chain of any length takes no stack.
//!
//! The queue is worked through only until a round has come to [`Options::changes_max`](super::Options) changes; the rest
//! is left for the next round, so that the end of one task cannot hold up everybody else, whatever hangs on it. Until then
//! its dependents simply still wait. Nothing of it needs to be written down: each consequence is a question, *look at this
//! task again*, that is answered from the records, so a restart asks it of all that waits.
//!
//! If a round is taken back, what it worked off is put back as far as its cause stands, and what it brought forth is
//! dropped.

use std::collections::VecDeque;

use crate::task::TaskId;

use super::core::Engine;
use super::{Cx, NotNow};

/// Something to be looked at.
#[derive(Clone, Debug)]
pub(super) enum Consequence {
    /// A task that has begun to wait for others.
    Waits(TaskId),
    /// A task that waits, and that nothing holds.
    Release(TaskId),
    /// A task that waits, and of which one that it depends on did not complete.
    FailedBy { task_id: TaskId, dependency: TaskId },
    /// A workflow that has changed, or of which a task has.
    Workflow(TaskId),
}

/// What is still to be looked at.
#[derive(Default)]
pub(super) struct Consequences {
    /// Each with the `rev` of the step that it follows from.
    queue: VecDeque<(u64, Consequence)>,
    /// What this round has worked off, each with the `rev` before.
    done: Vec<(u64, u64, Consequence)>,
}

impl Consequences {
    pub(super) fn push(&mut self, cause: u64, consequence: Consequence) {
        self.queue.push_back((cause, consequence));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn pop(&mut self, rev: u64) -> Option<Consequence> {
        let (cause, consequence) = self.queue.pop_front()?;
        self.done.push((cause, rev, consequence.clone()));
        Some(consequence)
    }

    /// The last one cannot be worked off now.
    fn put_back(&mut self) {
        if let Some((cause, _, consequence)) = self.done.pop() {
            self.queue.push_front((cause, consequence));
        }
    }

    /// The steps above this `rev` are taken back.
    pub(super) fn take_back(&mut self, rev: u64) {
        self.queue.retain(|(cause, _)| *cause <= rev);
        while let Some((cause, _, consequence)) = self.done.pop_if(|(_, before, _)| *before >= rev) {
            if cause <= rev {
                self.queue.push_front((cause, consequence));
            }
        }
    }

    /// The round is over: nothing of it can be taken back.
    pub(super) fn round_over(&mut self) {
        self.done.clear();
    }
}

impl Engine {
    /// Works through what follows from the steps so far, up to the bound of a round.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>) {
        while cx.batch.changes.len() < self.options.changes_max
            && let Some(consequence) = self.consequences.pop(self.rev)
        {
            match consequence {
                Consequence::Waits(task_id) => self.look_at_dependencies(task_id, cx),
                Consequence::Release(task_id) => self.release(task_id, cx),
                Consequence::FailedBy { task_id, dependency } => self.fail_by(task_id, dependency, cx),
                Consequence::Workflow(task_id) => {
                    if let Err(NotNow) = self.look_at_workflow(task_id, cx) {
                        return self.consequences.put_back();
                    }
                }
            }
        }
    }
}
