//! Submissions that become one task.
//!
//! A task that gathers is `scheduled` while its list is *open*. Which list is open for a kind of submission follows from the
//! records, and stands beside the keys that tasks hold ([`unique`](super::unique)). An item that comes makes a step of the task,
//! with nothing but that item beside it: the store keeps items one by one and joins them where the payload is read. So however
//! long a list grows, an item costs what it costs.
//!
//! A list is closed when a bound is met: by the item that meets it, by one that would pass it, or by an alarm like that of any
//! other task that waits. A task that does not wait for its time any more, for whatever reason, takes nothing more.

use crate::task::{Event, Gather, Json, NewTask, OpenList, Status, Task, TaskId, item_of};

use super::Cx;
use super::core::{Engine, Step};
use super::unique::Met;

/// What a new task is to be whose payload is a list with one item.
pub(super) struct NewList {
    pub(super) gather: Gather,
    pub(super) max_wait_ms: Option<u64>,
    pub(super) payload: Json,
}

impl NewList {
    pub(super) fn of(new: &NewTask, list: OpenList) -> NewList {
        let open = (!list.is_full(1)).then_some(list);
        let max_wait_ms = new.gather.as_ref().and_then(|gather| gather.max_wait_ms);
        NewList { gather: Gather { gathered: 1, open }, max_wait_ms, payload: item_of(new) }
    }
}

impl Engine {
    /// Puts a submission into the list that is open for it, if one is and has room.
    pub(super) fn gather(&mut self, new: NewTask, list: &OpenList, cx: &mut Cx<'_>) -> Met {
        let Some(task) = self.holder_of(list.digest).cloned() else { return Met::Free(new) };
        let item = item_of(&new);
        if !task.open_list().is_some_and(|open| open.has_room_for(&item)) {
            self.close_list(task.task_id, cx);
            return Met::Free(new);
        }
        let mut next = Task::clone(&task);
        if let Some(Gather { gathered, open: Some(open) }) =
            next.detail.as_mut().and_then(|it| it.gather.as_deref_mut())
        {
            open.push(&item);
            *gathered += 1;
            if open.is_full(*gathered) {
                next.status = Status::Pending;
                next.delayed = false;
            }
        }
        let step = Step { payload: Some(item), ..Step::new(next, Event::Updated) };
        Met::Holder(self.step(Some(task.task_id), step, cx))
    }

    /// What comes next does not fit: the task is ready as it is.
    fn close_list(&mut self, task_id: TaskId, cx: &mut Cx<'_>) {
        let mut next = Task::clone(&self.tasks[&task_id]);
        next.status = Status::Pending;
        next.delayed = false;
        self.step(Some(task_id), Step::new(next, Event::Pending).note("the next one does not fit"), cx);
    }
}

/// A record of a task that does not wait for its time takes no more items.
pub(super) fn close_unless_scheduled(task: &mut Task) {
    if task.status != Status::Scheduled
        && let Some(gather) = task.detail.as_mut().and_then(|detail| detail.gather.as_mut())
    {
        gather.open = None;
    }
}
