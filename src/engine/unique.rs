//! Tasks of which there is one at a time.
//!
//! A task with `unique` *holds* its key, and while it does, a submission with the same key makes no other: it is answered with
//! the holder, refused, or changes the holder into what it says itself. The holder says how long it holds, the newcomer what
//! happens.
//!
//! A key is held in one of two ways, and neither needs anything of its own in a revert or a restart.
//!
//! * **Until it starts, or ends.** Whether a task holds its key then follows from its record alone, and such a task is
//!   unfinished, so it is at hand: an index like any other ([`Holders`]), a digest and an id for each.
//! * **Within a time from when it was made**, whatever becomes of it. It may be final long before that, and no longer at
//!   hand, and there may be any number of them. So that is a key as idempotency keys are ([`keys`](super::keys)): written
//!   down with the task, at hand for the newest few thousand, looked up in the store for the others, and swept when its time
//!   is over. What is found there counts as long as the task does: deleting it frees the key.
//!
//! That time, and the longest wait of a task that is put off again and again, are told by `created_at`, by the times that are
//! written down: so a hub that restarted tells them as the one before did.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::task::{By, Digest, Event, Held, HeldUntil, KeyEntry, NewTask, OnHeld, Status, Task, TaskId, Unique};

use super::core::{Engine, Step};
use super::{Command, Cx, Now, Refusal};

/// Who holds what until it starts or ends.
#[derive(Default)]
pub(super) struct Holders(HashMap<Digest, TaskId>);

impl Task {
    /// The key that it holds by its record alone: of what it is the only one, or of the list that it has open.
    fn held_key(&self) -> Option<Digest> {
        if let Some(open) = self.open_list() {
            return Some(open.digest);
        }
        let Unique { digest, held, .. } = self.unique()?;
        let holds = match held {
            Held::Until(HeldUntil::Started) => !self.status.is_final() && !self.has_started(),
            Held::Until(HeldUntil::Finished) => !self.status.is_final(),
            Held::WithinMs(_) => false,
        };
        holds.then_some(*digest)
    }
}

impl Holders {
    pub(super) fn insert(&mut self, task: &Task) {
        if let Some(key) = task.held_key()
            && let Entry::Vacant(free) = self.0.entry(key)
        {
            free.insert(task.task_id);
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        if let Some(key) = task.held_key()
            && let Entry::Occupied(held) = self.0.entry(key)
            && *held.get() == task.task_id
        {
            held.remove();
        }
    }
}

/// What comes of a submission whose key is held.
pub(super) enum Met {
    /// Nobody holds its key: it is made.
    Free(NewTask),
    /// It is answered with this one.
    Holder(Arc<Task>),
}

impl Engine {
    /// The keys that a command needs and that are not at hand. Whoever drives the engine looks them up in the store, and
    /// [`admit_key`](Self::admit_key)s those that exist, before it asks for [`absent`](Self::absent) tasks.
    pub fn absent_keys(&self, command: &Command) -> Vec<Digest> {
        match command {
            Command::Submit { submission, key } => {
                let held = submission.uniques().map(|unique| unique.digest);
                let held = held.filter(|key| !self.holders.0.contains_key(key));
                key.iter().map(|key| key.key).chain(held).filter(|key| !self.keys.knows(*key)).collect()
            }
            Command::Retry { task_id, .. } => {
                let unique = self.tasks.get(task_id).and_then(|task| task.unique());
                unique.map(|unique| unique.digest).filter(|key| !self.keys.knows(*key)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The tasks that hold keys of a submission and are not at hand.
    pub(super) fn absent_holders<'a>(
        &'a self,
        uniques: impl Iterator<Item = &'a Unique>,
    ) -> impl Iterator<Item = TaskId> {
        let entries = uniques.filter_map(|unique| self.keys.at_hand(unique.digest));
        entries.flat_map(|entry| entry.tasks.iter().copied()).filter(|task_id| self.is_absent(*task_id))
    }

    /// Who holds a key by its record alone.
    pub(super) fn holder_of(&self, key: Digest) -> Option<&Arc<Task>> {
        self.tasks.get(self.holders.0.get(&key)?)
    }

    /// Who holds a key.
    fn holder(&self, key: Digest, now: Now) -> Option<&Arc<Task>> {
        let within = || self.keys.get(key, now).and_then(|entry| entry.tasks.first());
        self.tasks.get(self.holders.0.get(&key).or_else(within)?)
    }

    /// A task that is run again by hand needs its key to be free.
    pub(super) fn check_held(&self, task: &Task, now: Now) -> Result<(), Refusal> {
        let holder = task.unique().and_then(|unique| self.holder(unique.digest, now));
        match holder.filter(|holder| holder.task_id != task.task_id) {
            Some(holder) => Err(Refusal::KeyHeld(Some(holder.task_id))),
            None => Ok(()),
        }
    }

    /// What a submission meets that wants to be the only one.
    pub(super) fn meet_holder(&mut self, new: NewTask, unique: &Unique, cx: &mut Cx<'_>) -> Result<Met, Refusal> {
        let Some(holder) = self.holder(unique.digest, cx.now) else { return Ok(Met::Free(new)) };
        let on_held = new.unique.as_ref().and_then(|unique| unique.on_conflict).unwrap_or_default();
        let waits = matches!(holder.status, Status::Waiting | Status::Scheduled | Status::Pending);
        match on_held {
            OnHeld::Reject => Err(Refusal::KeyHeld(Some(holder.task_id))),
            OnHeld::Replace if waits => {
                let holder = holder.clone();
                Ok(Met::Holder(self.become_newer(&holder, new, cx)))
            }
            OnHeld::Return | OnHeld::Replace => Ok(Met::Holder(holder.clone())),
        }
    }

    /// A task that waits becomes what a newer submission says; what that leaves out stays as it is.
    fn become_newer(&mut self, holder: &Task, new: NewTask, cx: &mut Cx<'_>) -> Arc<Task> {
        let mut next = Task::clone(holder);
        next.priority = new.priority.unwrap_or_default();
        if new.title.is_some() || !new.labels.is_empty() {
            let detail = next.detail.get_or_insert_default();
            detail.title = new.title.as_deref().map(Into::into).or(detail.title.take());
            if !new.labels.is_empty() {
                detail.replace_labels(new.labels.clone());
            }
        }
        put_off(&mut next, &new, cx.now);
        let step = Step { payload: new.payload, ..Step::new(next, Event::Updated) };
        self.step(Some(holder.task_id), step.note("submitted again"), cx)
    }

    /// A new task holds its key for a time: that is written down beside it.
    pub(super) fn hold_within(&mut self, task: &Task, cx: &mut Cx<'_>) {
        if let Some(Unique { digest: key, held: Held::WithinMs(within_ms), .. }) = task.unique() {
            let expires_at = task.created_at.plus_millis(*within_ms);
            let entry = KeyEntry { key: *key, body: 0, tasks: vec![task.task_id], existing: Vec::new(), expires_at };
            self.keys.insert(entry.clone());
            cx.batch.keys.push(entry);
        }
    }
}

/// Moves the time of a task to that of a newer submission, where that has one: never beyond the longest wait of either, from
/// when the task was made on, and not to where it would end before it could begin.
fn put_off(next: &mut Task, new: &NewTask, now: Now) {
    let longest = [next.unique().and_then(|it| it.max_wait_ms), new.unique.as_ref().and_then(|it| it.max_wait_ms)];
    let latest = longest.into_iter().flatten().min().map(|max_wait_ms| next.created_at.plus_millis(max_wait_ms));
    let (asked, delayed) = match (new.delay_ms, new.run_at) {
        (Some(delay_ms), _) => (now.at.plus_millis(delay_ms), true),
        (None, Some(run_at)) => (run_at, false),
        (None, None) => return,
    };
    let run_at = latest.map_or(asked, |latest| asked.min(latest));
    if [next.deadline(), next.start_by()].into_iter().flatten().any(|By { at, .. }| at <= run_at) {
        return;
    }
    let is_early = if delayed { run_at > now.at } else { run_at > now.wall };
    next.run_at = Some(run_at);
    next.delayed = delayed && is_early;
    if next.status != Status::Waiting {
        next.status = if is_early { Status::Scheduled } else { Status::Pending };
    }
}
