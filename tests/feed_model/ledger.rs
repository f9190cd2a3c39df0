//! What really happened, and what is checked against it: every transition of a history, by `rev`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use taskhub::task::{Filter, Status, Task, TaskId, Transition};

/// The transitions of one epoch.
#[derive(Default)]
pub struct Ledger {
    /// As they were submitted: what filters look at, but for the status, never changes.
    tasks: HashMap<TaskId, Task>,
    steps: BTreeMap<u64, (TaskId, Option<Status>)>,
    /// In the order they were deleted.
    deleted: Vec<TaskId>,
}

/// Something that a client may believe, to be checked once it is known what happened.
pub enum Belief {
    /// All up to `rev` that `filter` means is known: the `rev` known of each task.
    Mark { rev: u64, filter: Arc<Filter>, known: HashMap<TaskId, u64> },
    /// Every transition after `from` and up to `to` that `filter` means came by itself.
    Whole { from: u64, to: u64, filter: Arc<Filter>, received: BTreeSet<u64> },
    /// Nothing came that none of `filters` means.
    Meant { filters: Vec<Arc<Filter>>, received: BTreeSet<u64> },
}

impl Ledger {
    pub fn submitted(&mut self, task: Task) {
        self.tasks.insert(task.task_id, task);
    }

    /// A task that is no more, and the steps it made before.
    pub fn deleted(&mut self, task_id: TaskId, history: &[Transition]) {
        self.learn(task_id, history);
        self.deleted.push(task_id);
    }

    pub fn learn(&mut self, task_id: TaskId, history: &[Transition]) {
        self.steps.extend(history.iter().map(|step| (step.rev, (task_id, Some(step.status)))));
    }

    pub fn left(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.keys().copied().filter(|task_id| !self.deleted.contains(task_id))
    }

    /// All steps up to `rev` were learned: those that no task remembers are the deletions.
    pub fn close(&mut self, rev: u64) {
        let holes: Vec<u64> = (1..=rev).filter(|rev| !self.steps.contains_key(rev)).collect();
        assert_eq!(holes.len(), self.deleted.len(), "every rev is a step of a task or a deletion: {holes:?}");
        for (rev, task_id) in holes.into_iter().zip(&self.deleted) {
            self.steps.insert(rev, (*task_id, None));
        }
    }

    fn meets(&self, filter: &Filter, task_id: TaskId, status: Status) -> bool {
        let task = Task { status, ..self.tasks[&task_id].clone() };
        filter.matches(&task)
    }

    /// Whether the old or the new state of this step is meant.
    fn is_meant(&self, filter: &Filter, rev: u64) -> bool {
        let (task_id, status) = self.steps[&rev];
        let before = self.steps.range(..rev).rev().find(|(_, (of, _))| *of == task_id);
        let before = before.and_then(|(_, (_, status))| *status);
        [before, status].into_iter().flatten().any(|status| self.meets(filter, task_id, status))
    }

    /// What is wrong with it, if anything.
    pub fn check(&self, belief: &Belief) -> Result<(), String> {
        match belief {
            Belief::Mark { rev, filter, known } => {
                let newest: HashMap<TaskId, u64> = self.steps.range(..=rev).map(|(rev, (id, _))| (*id, *rev)).collect();
                for (task_id, newest) in newest {
                    let Some(known) = known.get(&task_id) else {
                        let status = self.steps[&newest].1;
                        // A snapshot may be younger than the mark after it; what left in between is told later.
                        let changes_later = self.steps.range(rev + 1..).any(|(_, (of, _))| *of == task_id);
                        if !changes_later && status.is_some_and(|status| self.meets(filter, task_id, status)) {
                            return Err(format!("mark {rev}, and nothing of {task_id}: {status:?} since {newest}"));
                        }
                        continue;
                    };
                    let missed = self.steps.range(known + 1..).take_while(|(at, _)| *at <= rev);
                    let mut missed = missed.filter(|(_, (of, _))| *of == task_id).map(|(at, _)| *at);
                    if let Some(at) = missed.find(|at| self.is_meant(filter, *at)) {
                        return Err(format!("mark {rev}, and {at} of {task_id} is not known, only {known}"));
                    }
                }
            }
            Belief::Whole { from, to, filter, received } => {
                let mut revs = self.steps.range(from + 1..).map(|(rev, _)| *rev).take_while(|rev| rev <= to);
                if let Some(rev) = revs.find(|rev| !received.contains(rev) && self.is_meant(filter, *rev)) {
                    return Err(format!("{rev} was lost without a word between the marks {from} and {to}"));
                }
            }
            Belief::Meant { filters, received } => {
                let is_meant = |rev: &u64| filters.iter().any(|filter| self.is_meant(filter, *rev));
                if let Some(rev) = received.iter().find(|rev| !is_meant(rev)) {
                    return Err(format!("{rev} came, and nobody asked: {filters:?}"));
                }
            }
        }
        Ok(())
    }
}
