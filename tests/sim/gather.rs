//! The checker's account of submissions that become one task.

use std::collections::HashMap;
use std::sync::Arc;

use taskhub::engine::Now;
use taskhub::task::{Change, ChangeKind, Event, IdHasher, Json, NewGather, NewTask, Status, Task, TaskId};

use super::check::Checker;

/// The lists of tasks that gather, by what was submitted: an account of their own, beside the records.
#[derive(Default)]
pub struct Lists(HashMap<TaskId, List, IdHasher>);

struct List {
    /// Queue, type, user and key.
    kind: [Option<String>; 4],
    /// What the first one said.
    bounds: NewGather,
    /// What is in it, with the `rev` of the step that it came with.
    items: Vec<(u64, String)>,
}

impl List {
    fn text(&self) -> String {
        let items: Vec<&str> = self.items.iter().map(|(_, item)| item.as_str()).collect();
        format!("[{}]", items.join(","))
    }

    fn is_met(&self, bytes_max: usize) -> bool {
        self.items.len() >= self.bounds.max_count.unwrap_or(10_000) as usize
            || self.text().len() >= self.bounds.max_bytes.map_or(bytes_max, |max| bytes_max.min(max as usize))
    }
}

fn kind(new: &NewTask, gather: &NewGather) -> [Option<String>; 4] {
    let queue = new.queue.clone().unwrap_or_else(|| "default".into());
    [Some(queue), Some(new.task_type.clone()), new.user_id.clone(), Some(gather.key.clone())]
}

fn item(new: &NewTask) -> String {
    new.payload.as_ref().map_or("null", Json::as_str).to_owned()
}

impl Checker {
    /// What came after the last commit never did.
    pub fn forget_items(&mut self) {
        let rev = self.rev();
        self.lists.0.values_mut().for_each(|list| list.items.retain(|(came, _)| *came <= rev));
        self.lists.0.retain(|_, list| !list.items.is_empty());
    }

    /// A task whose list is open for this submission. One that does not fit has closed it.
    pub fn gathers(&mut self, new: &NewTask, changes: &mut &[Change], now: Now) -> Option<Arc<Task>> {
        let gather = new.gather.as_deref()?;
        let of_kind = |(_, list): &(&TaskId, &List)| list.kind == kind(new, gather);
        let is_open = |task: &&Arc<Task>| task.status == Status::Scheduled && task.open_list().is_some();
        let mut open = self.lists.0.iter().filter(of_kind).filter_map(|(id, _)| self.tasks.get(id)).filter(is_open);
        let task = open.next().cloned()?;
        assert!(open.next().is_none(), "two lists are open for {new:?}");
        let list = &self.lists.0[&task.task_id];
        let bytes_max = self.options.payload_bytes_max;
        let bytes_max = list.bounds.max_bytes.map_or(bytes_max, |max| bytes_max.min(max as usize));
        if list.text().len() + 1 + item(new).len() > bytes_max {
            let change = changes.split_off_first().expect("it is ready, for the next one does not fit");
            assert_eq!((change.task.task_id, change.kind), (task.task_id, ChangeKind::Transition(Event::Pending)));
            let delayed = false;
            let closed = Task { status: Status::Pending, delayed, ..Task::clone(&task) };
            self.is_list_of(&change.task, closed);
            self.step(change, now);
            return None;
        }
        Some(task)
    }

    /// A record is as it should be, but for its number and its time; a list is closed unless it waits for its time.
    fn is_list_of(&self, task: &Task, mut expected: Task) {
        (expected.rev, expected.updated_at) = (task.rev, task.updated_at);
        let list = &self.lists.0[&task.task_id];
        let gather = expected.detail.as_mut().and_then(|it| it.gather.as_mut()).expect("it gathers");
        gather.gathered = list.items.len() as u32;
        if task.status == Status::Scheduled {
            gather.open.as_mut().expect("it takes more").bytes = list.text().len() as u64;
        } else {
            gather.open = None;
        }
        assert_eq!(*task, expected);
    }

    /// A submission went into the list of a task.
    pub fn is_gathered(
        &mut self,
        new: &NewTask,
        before: &Arc<Task>,
        answer: &Arc<Task>,
        changes: &mut &[Change],
        now: Now,
    ) {
        let change = changes.split_off_first().expect("it is one item more");
        let rev = change.rev;
        let list = self.lists.0.get_mut(&before.task_id).expect("it gathers");
        list.items.push((rev, item(new)));
        let mut expected = Task::clone(before);
        if list.is_met(self.options.payload_bytes_max) {
            (expected.status, expected.delayed) = (Status::Pending, false);
        }
        assert_eq!(change.item(), Some(list.items.len() as u32 - 1));
        assert_eq!(change.payload.as_ref().map(Json::as_str), Some(&*item(new)));
        assert!(Arc::ptr_eq(answer, &change.task));
        self.is_list_of(&change.task, expected.clone());
        let gather = change.task.detail.as_ref().and_then(|detail| detail.gather.clone());
        expected.detail.as_mut().expect("it gathers").gather = gather;
        self.changed_in_place(before, expected, std::slice::from_ref(change), now);
    }

    /// A task has begun a list.
    pub fn begins_list(&mut self, new: &NewTask, task: &Task) {
        assert_eq!(new.gather.is_some(), task.gathered().is_some());
        let Some(gather) = new.gather.as_deref() else { return };
        let items = vec![(task.rev, item(new))];
        let list = List { kind: kind(new, gather), bounds: gather.clone(), items };
        let met = list.is_met(self.options.payload_bytes_max);
        self.lists.0.insert(task.task_id, list);
        assert_eq!((task.gathered(), task.open_list().is_some()), (Some(1), !met));
    }
}
