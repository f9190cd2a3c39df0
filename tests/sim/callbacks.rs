//! The checker's account of what callbacks are owed.
//!
//! It knows which words each task asked to be told of, from what was submitted. Each committed transition owes each callback
//! that asked for its word one delivery and the others none, whatever failed, was taken back or was killed in between; no two
//! deliveries of a history have the same id; and a record that is read again from its text owes the same.

use std::collections::HashMap;

use taskhub::task::{Change, ChangeKind, Delivery, DeliveryId, Event, IdHasher, NewCallback, NewTask, Task, TaskId};

const USUAL: [&str; 3] = ["completed", "failed", "cancelled"];

#[derive(Default)]
pub struct Owed {
    /// Of each task with callbacks: the words that each of these is told.
    asked: HashMap<TaskId, Vec<Vec<String>>, IdHasher>,
    owed: HashMap<DeliveryId, (TaskId, u64, u8)>,
}

impl Owed {
    /// Somebody asked for a task, which got this id.
    pub fn created(&mut self, new: &NewTask, task_id: TaskId) {
        let words = |callback: &NewCallback| match &callback.events {
            Some(words) => words.clone(),
            None => USUAL.map(str::to_owned).to_vec(),
        };
        if !new.callbacks.is_empty() {
            self.asked.insert(task_id, new.callbacks.iter().map(words).collect());
        }
    }

    /// These are on disk.
    pub fn committed(&mut self, changes: &[Change]) {
        for change in changes {
            let task = &change.task;
            let word = match change.kind {
                ChangeKind::Transition(event) => event.as_str().strip_prefix("task.").expect("an event of a task"),
                ChangeKind::Gone => "",
            };
            let asked = self.asked.get(&task.task_id).into_iter().flatten();
            let places = (0u8..).zip(asked).filter(|(_, words)| words.iter().any(|asked| asked == word));
            let places: Vec<u8> = places.map(|(place, _)| place).collect();
            let owed: Vec<Delivery> = change.deliveries().collect();
            assert_eq!(owed.iter().map(|it| it.place).collect::<Vec<_>>(), places, "what is owed of {change:?}");
            if let ChangeKind::Transition(event) = change.kind {
                assert_eq!(read_again(task, event, change), owed);
            }
            for it in owed {
                assert_eq!((it.task_id, it.rev, it.at), (task.task_id, change.rev, change.at));
                let before = self.owed.insert(it.id, (it.task_id, it.rev, it.place));
                assert_eq!(before, None, "{:?} has the id of another", it.id);
            }
        }
    }
}

fn read_again(task: &Task, event: Event, change: &Change) -> Vec<Delivery> {
    let read = Task::parse(&task.to_json()).expect("the hub reads what it wrote");
    Delivery::of(&read, event, change.at).collect()
}
