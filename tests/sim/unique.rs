//! The checker's account of tasks of which there is one at a time.

use std::collections::HashMap;
use std::sync::Arc;

use taskhub::engine::Now;
use taskhub::task::{Change, Held, HeldUntil, IdHasher, Json, NewTask, NewUnique, OnHeld, Status, Task, TaskId};

use super::check::Checker;

/// What a task is to be the only one of: its type, its user, and what else was said. Two are the same where all of it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    task_type: String,
    user: Option<String>,
    rest: Vec<(String, Option<String>)>,
}

/// The tasks of each kind that were ever made, and what each said of the longest wait.
#[derive(Default)]
pub struct Kinds {
    of: HashMap<TaskId, (Kind, Option<u64>), IdHasher>,
    tasks: HashMap<Kind, Vec<TaskId>>,
}

impl Kind {
    fn of(new: &NewTask, unique: &NewUnique) -> Kind {
        let part = |path: &String| match path.as_str() {
            "queue" => Some(new.queue.clone().unwrap_or_else(|| "default".into())),
            "payload" => new.payload.as_ref().map(|payload| payload.as_str().to_owned()),
            "labels/project_id" => new.labels.get("project_id").cloned(),
            other => panic!("no application says {other}"),
        };
        let mut rest: Vec<_> = unique.by.iter().map(|path| (path.clone(), part(path))).collect();
        rest.sort();
        rest.extend(unique.key.iter().map(|key| ("the key".to_owned(), Some(key.clone()))));
        Kind { task_type: new.task_type.clone(), user: new.user_id.clone(), rest }
    }
}

fn holds(task: &Task, now: Now) -> bool {
    match task.unique().expect("it is of a kind").held {
        Held::Until(HeldUntil::Finished) => !task.status.is_final(),
        Held::Until(HeldUntil::Started) => !task.status.is_final() && task.attempt == 0,
        Held::WithinMs(within_ms) => task.created_at.plus_millis(within_ms) > now.at,
    }
}

impl Checker {
    /// The one task that holds this.
    fn holder(&self, kind: &Kind, now: Now) -> Option<Arc<Task>> {
        let of_kind = self.kinds.tasks.get(kind).into_iter().flatten().filter_map(|id| self.tasks.get(id));
        let mut holders = of_kind.filter(|task| holds(task, now));
        let holder = holders.next().cloned();
        assert!(holders.next().is_none(), "{kind:?} is held twice: {holder:?}");
        holder
    }

    /// What a new task meets.
    pub fn meets(&self, new: &NewTask, now: Now) -> Option<Arc<Task>> {
        self.holder(&Kind::of(new, new.unique.as_deref()?), now)
    }

    /// A task that another is in the way of when it is to be run again.
    pub fn other_holder(&self, task_id: TaskId, now: Now) -> Option<TaskId> {
        let holder = self.holder(&self.kinds.of.get(&task_id)?.0, now)?;
        Some(holder.task_id).filter(|holder| *holder != task_id)
    }

    /// It was made as it was submitted.
    pub fn is_of_kind(&mut self, new: &NewTask, task: &Task) {
        assert_eq!(new.unique.is_some(), task.unique().is_some());
        let (Some(unique), Some(kept)) = (new.unique.as_deref(), task.unique()) else { return };
        let until = || Held::Until(unique.until.unwrap_or(HeldUntil::Finished));
        assert_eq!(kept.held, unique.within_ms.map_or_else(until, Held::WithinMs));
        let kind = Kind::of(new, unique);
        self.kinds.tasks.entry(kind.clone()).or_default().push(task.task_id);
        self.kinds.of.insert(task.task_id, (kind, unique.max_wait_ms));
    }

    /// A submission was refused because of what it met.
    pub fn is_rejected(&self, tasks: &[NewTask], said: Option<TaskId>, now: Now) {
        let rejects = |new: &&NewTask| new.unique.as_ref().is_some_and(|it| it.on_conflict == Some(OnHeld::Reject));
        assert!(tasks.iter().any(|new| rejects(&new)));
        match said {
            Some(said) => {
                let meets = |new: &NewTask| self.meets(new, now).is_some_and(|holder| holder.task_id == said);
                assert!(tasks.iter().filter(rejects).any(meets), "{said} holds nothing of it");
            }
            None => assert!(tasks.len() > 1, "there is no other task in the call"),
        }
    }

    /// A submission was answered with the task that it met, which may have become what it says.
    pub fn is_held(
        &mut self,
        new: &NewTask,
        before: &Arc<Task>,
        answer: &Arc<Task>,
        changes: &mut &[Change],
        now: Now,
    ) {
        let unique = new.unique.as_deref().expect("it met something");
        assert_ne!(unique.on_conflict, Some(OnHeld::Reject), "it met {before:?} and was not refused");
        let waits = matches!(before.status, Status::Waiting | Status::Scheduled | Status::Pending);
        if unique.on_conflict != Some(OnHeld::Replace) || !waits {
            return assert_eq!(answer, before, "it is answered with what is there");
        }
        let mut expected = Task::clone(before);
        expected.priority = new.priority.unwrap_or(0);
        if let Some(title) = &new.title {
            expected.detail.get_or_insert_default().title = Some(title.as_str().into());
        }
        if !new.labels.is_empty() {
            expected.detail.get_or_insert_default().labels = new.labels.clone();
        }
        // Whoever watches it by what it was must be able to hear of it.
        let former = answer.former_labels();
        let was = before.labels().into_iter().flatten();
        let replaced =
            |(key, value): &(&String, &String)| answer.labels().and_then(|now| now.get(*key)) != Some(*value);
        for (key, value) in was.filter(replaced) {
            assert!(former.contains(&(key.clone(), value.clone())), "{key} was {value}: {answer:?}");
        }
        let unique_now = expected.detail.as_mut().and_then(|detail| detail.unique.as_mut());
        unique_now.expect("it is of a kind").former_labels = former.to_vec();
        let longest = [self.kinds.of[&before.task_id].1, unique.max_wait_ms].into_iter().flatten().min();
        let latest = longest.map(|longest| before.created_at.plus_millis(longest));
        let asked = new.delay_ms.map(|delay_ms| now.at.plus_millis(delay_ms)).or(new.run_at);
        let ends = [before.deadline(), before.start_by()].into_iter().flatten().map(|by| by.at).min();
        let run_at = asked.map(|at| latest.map_or(at, |latest| at.min(latest)));
        if let Some(run_at) = run_at.filter(|run_at| ends.is_none_or(|ends| ends > *run_at)) {
            let later = if new.delay_ms.is_some() { run_at > now.at } else { run_at > now.wall };
            expected.run_at = Some(run_at);
            expected.status = if later { Status::Scheduled } else { Status::Pending };
            expected.delayed = later && new.delay_ms.is_some();
        }
        let change = std::slice::from_ref(changes.split_off_first().expect("it becomes what was submitted"));
        let (change, task) = self.changed_in_place(before, expected, change, now);
        assert_eq!(
            (&task, change.payload.as_ref().map(Json::as_str)),
            (answer, new.payload.as_ref().map(Json::as_str))
        );
    }
}
