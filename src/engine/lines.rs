//! Ready tasks, in line.

use std::collections::{BTreeSet, HashMap};

use crate::task::{Name, Task, TaskId};

use super::crews::{CrewId, Crews};

/// Empty lines that are kept because they will fill again soon. Beyond this, an empty line is dropped.
const IDLE_LINES_MAX: usize = 1_024;

/// A place in line: the smaller, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// 0 for the highest priority.
    rank: u8,
    /// Ids grow with age, so the oldest comes first.
    pub(super) task_id: TaskId,
}

impl Place {
    fn of(task: &Task) -> Place {
        Place { rank: (100 - i16::from(task.priority)).clamp(0, 200) as u8, task_id: task.task_id }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LineId(u32);

/// One line for each queue and type.
#[derive(Default)]
pub(super) struct Lines {
    by_name: HashMap<(Name, Name), LineId>,
    lines: Vec<Line>,
    unused: Vec<LineId>,
}

pub(super) struct Line {
    pub(super) queue: Name,
    pub(super) task_type: Name,
    ready: BTreeSet<Place>,
    /// Crews that accept what stands here.
    crews: Vec<CrewId>,
}

impl Lines {
    /// Puts a ready task in line.
    pub(super) fn insert(&mut self, task: &Task, crews: &mut Crews) {
        let id = self.line_for(task, crews);
        let line = &mut self.lines[id.0 as usize];
        let before = line.ready.first().copied();
        line.ready.insert(Place::of(task));
        let after = line.ready.first().copied();
        crews.head_moved(&line.crews, id, before, after);
    }

    /// Takes a task out of its line.
    pub(super) fn remove(&mut self, task: &Task, crews: &mut Crews) {
        let name = (task.queue.clone(), task.task_type.clone());
        let Some(&id) = self.by_name.get(&name) else { return };
        let line = &mut self.lines[id.0 as usize];
        let before = line.ready.first().copied();
        line.ready.remove(&Place::of(task));
        let after = line.ready.first().copied();
        crews.head_moved(&line.crews, id, before, after);
        if line.ready.is_empty() && self.by_name.len() > IDLE_LINES_MAX {
            line.crews.clear();
            self.by_name.remove(&name);
            self.unused.push(id);
        }
    }

    /// A new crew is told of every line it accepts.
    pub(super) fn join(&mut self, crew: CrewId, crews: &mut Crews) {
        for id in self.by_name.values() {
            let line = &mut self.lines[id.0 as usize];
            if crews.accepts(crew, line) {
                line.crews.push(crew);
                crews.head_moved(&[crew], *id, None, line.ready.first().copied());
            }
        }
    }

    /// A crew that is no more is forgotten by every line.
    pub(super) fn leave(&mut self, crew: CrewId) {
        for line in &mut self.lines {
            line.crews.retain(|id| *id != crew);
        }
    }

    fn line_for(&mut self, task: &Task, crews: &Crews) -> LineId {
        let name = (task.queue.clone(), task.task_type.clone());
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let mut line = Line {
            queue: task.queue.clone(),
            task_type: task.task_type.clone(),
            ready: BTreeSet::new(),
            crews: Vec::new(),
        };
        line.crews = crews.accepting(&line);
        let id = match self.unused.pop() {
            Some(id) => {
                self.lines[id.0 as usize] = line;
                id
            }
            None => {
                self.lines.push(line);
                LineId(self.lines.len() as u32 - 1)
            }
        };
        self.by_name.insert(name, id);
        id
    }
}
