//! Clients that follow the live stream, and what they may count on: the (`rev`, `tick`) of a task only grows, and a client
//! that is up to date has the newest record of everything.

use std::collections::BTreeMap;

use taskhub::engine::Batch;
use taskhub::task::{ChangeKind, TaskId};

use super::world::{Live, Store};

#[derive(Default)]
pub struct Watcher {
    /// The newest it knows of each task; `None` once it is gone.
    known: BTreeMap<TaskId, (u64, u64, bool)>,
    /// Everything up to here has been sent.
    mark: u64,
    pub connected: bool,
}

impl Watcher {
    /// Comes back and resumes from its mark, or starts anew with a snapshot.
    pub fn connect(&mut self, store: &Store, live: &Live, fresh: bool) {
        if fresh {
            *self = Watcher::default();
        }
        self.connected = true;
        for (task_id, task) in &store.tasks {
            if task.rev > self.mark {
                self.hear(*task_id, (task.rev, 0), false);
            }
        }
        for (task_id, rev) in &store.gone {
            if *rev > self.mark && self.known.contains_key(task_id) {
                self.hear(*task_id, (*rev, 0), true);
            }
        }
        for (task_id, live) in live.iter() {
            if live.tick > 0 {
                self.hear(task_id, (live.rev, live.tick), false);
            }
        }
        self.mark = store.rev;
        self.agrees(store);
    }

    /// What is not news is ignored: that is the client rule.
    fn hear(&mut self, task_id: TaskId, at: (u64, u64), gone: bool) {
        let known = self.known.entry(task_id).or_default();
        if at > (known.0, known.1) {
            *known = (at.0, at.1, gone);
        }
    }

    pub fn changes(&mut self, batch: &Batch) {
        if !self.connected {
            return;
        }
        let mut settings = batch.settings.iter().map(|change| change.rev).peekable();
        for change in &batch.changes {
            let task_id = change.task.task_id;
            let known = self.known.entry(task_id).or_default();
            assert!((change.rev, 0) > (known.0, known.1), "an event that is no news: {change:?} after {known:?}");
            assert!(!known.2, "an event of a task that is gone: {change:?}");
            *known = (change.rev, 0, change.kind == ChangeKind::Gone);
            // What is set has numbers of the same order, and goes to those who watch that.
            while settings.next_if_eq(&(self.mark + 1)).is_some() {
                self.mark += 1;
            }
            assert_eq!(change.rev, self.mark + 1, "an event was left out");
            self.mark = change.rev;
        }
        self.mark = self.mark.max(settings.last().unwrap_or(0));
    }

    pub fn tick(&mut self, task_id: TaskId, rev: u64, tick: u64) {
        if !self.connected {
            return;
        }
        let known = self.known.get_mut(&task_id).expect("a tick of a task nobody was told of");
        assert!((rev, tick) > (known.0, known.1), "a tick that is no news: {task_id} {rev}/{tick} after {known:?}");
        assert_eq!(rev, known.0, "a tick of a record that is not the newest");
        known.1 = tick;
    }

    /// A client that is up to date has the newest of everything.
    pub fn agrees(&self, store: &Store) {
        for (task_id, task) in &store.tasks {
            let known = self.known.get(task_id).unwrap_or_else(|| panic!("{task_id} was never told of"));
            assert_eq!((known.0, known.2), (task.rev, false), "{task_id} is known differently");
        }
        for (task_id, known) in &self.known {
            assert!(known.2 || store.tasks.contains_key(task_id), "{task_id} is gone, and nobody said so");
        }
    }
}
