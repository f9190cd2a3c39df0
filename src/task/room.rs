//! How much one text may bring: tasks, and what these depend on, over all lists in it.
//!
//! Lists of tasks stand within tasks, beside each other and behind each other, so what each of them may hold is no bound on
//! what all do, and what becomes of three bytes is a task's worth of memory. So the room that is left is kept for the thread
//! while it reads: whatever list or workflow stands outermost opens it and closes it, and all tasks and dependencies within
//! take from it.

use std::cell::Cell;

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::bounds::{OverBound, list, optional_list};
use super::submission::EDGES_MAX;
use super::ties::TIES_MAX;
use super::{NewTask, NewWorkflow};

const TASKS: OverBound = OverBound { max: TIES_MAX, unit: "tasks" };
const DEPENDENCIES: OverBound = OverBound { max: EDGES_MAX, unit: "dependencies in one submission" };

/// What may still come.
#[derive(Clone, Copy)]
struct Left {
    tasks: usize,
    dependencies: usize,
}

thread_local! {
    static LEFT: Cell<Option<Left>> = const { Cell::new(None) };
}

/// Something is read that may hold many tasks.
struct Room {
    is_outermost: bool,
}

impl Room {
    fn enter() -> Room {
        let is_outermost = LEFT.get().is_none();
        if is_outermost {
            LEFT.set(Some(Left { tasks: TASKS.max, dependencies: DEPENDENCIES.max }));
        }
        Room { is_outermost }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.is_outermost {
            LEFT.set(None);
        }
    }
}

/// Something that takes some of the room. `None`: there was none left, and it was passed over; whatever it stands in is
/// refused.
struct Counted<T>(Option<T>);

/// What is counted.
trait Count {
    fn left(left: &mut Left) -> &mut usize;
}

impl Count for NewTask {
    fn left(left: &mut Left) -> &mut usize {
        &mut left.tasks
    }
}

/// The name of a task that another depends on.
impl Count for String {
    fn left(left: &mut Left) -> &mut usize {
        &mut left.dependencies
    }
}

impl<'de, T: Deserialize<'de> + Count> Deserialize<'de> for Counted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Counted<T>, D::Error> {
        // A task alone is in no room, and needs none.
        if let Some(mut left) = LEFT.get() {
            let count = T::left(&mut left);
            let Some(less) = count.checked_sub(1) else {
                return IgnoredAny::deserialize(deserializer).map(|_| Counted(None));
            };
            *count = less;
            LEFT.set(Some(left));
        }
        T::deserialize(deserializer).map(|value| Counted(Some(value)))
    }
}

/// What was read, if there was room for all of it.
fn all<T, E: Error>(items: Vec<Counted<T>>, bound: OverBound) -> Result<Vec<T>, E> {
    items.into_iter().map(|Counted(item)| item).collect::<Option<_>>().ok_or_else(|| E::custom(bound))
}

/// Reads a list of tasks.
pub(crate) fn tasks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NewTask>, D::Error> {
    let _room = Room::enter();
    all(list(deserializer, TASKS.max, TASKS.unit)?, TASKS)
}

/// Reads a list of tasks that may be left out, or `null`.
pub(super) fn some_tasks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<NewTask>>, D::Error> {
    let tasks = optional_list(deserializer, TASKS.max, TASKS.unit)?;
    tasks.map(|tasks| all(tasks, TASKS)).transpose()
}

/// Reads a task that stands for itself beside others.
pub(super) fn task<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<NewTask>, D::Error> {
    let Counted(task) = Counted::deserialize(deserializer)?;
    task.map(Box::new).ok_or_else(|| D::Error::custom(TASKS))
}

/// Reads what a task depends on; it may be left out, or `null`.
pub(super) fn dependencies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = optional_list(deserializer, TASKS.max, TASKS.unit)?;
    all(names.unwrap_or_default(), DEPENDENCIES)
}

impl<'de> Deserialize<'de> for NewWorkflow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NewWorkflow, D::Error> {
        let _room = Room::enter();
        // By its fields.
        NewWorkflow::deserialize(deserializer)
    }
}
