//! Schedules, as people set and see them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::{Answer, Command, Refusal};
use crate::settings::{Schedule, ScheduleSpec, Setting, SettingKind, SettingValue};
use crate::task::{Name, Status, Task, TaskId};
use crate::wire::{LastRunView, ScheduleList, ScheduleView};

use super::inbox::Bound;
use super::{Hub, HubError};

impl Hub {
    /// One schedule; `None` where there is none of this name.
    pub async fn schedule(&self, name: &Name) -> Result<Option<ScheduleView>, HubError> {
        match self.shared().board.settings.get(SettingKind::Schedule, name) {
            Some(setting) => Ok(Some(self.schedule_view(&setting).await?)),
            None => Ok(None),
        }
    }

    /// Schedules by name, at most so many of those after this one.
    pub async fn schedules(&self, after: Option<Name>, len_max: usize) -> Result<ScheduleList, HubError> {
        let mut settings = self.shared().board.settings.page(SettingKind::Schedule, after, len_max + 1);
        let more = settings.len() > len_max;
        settings.truncate(len_max);
        let schedules = self.schedule_views(&settings).await?;
        let next_cursor = schedules.last().filter(|_| more).map(|last| last.name.to_string());
        Ok(ScheduleList { schedules, next_cursor })
    }

    /// Sets a schedule, all of it. Answers whether there was none of this name before.
    pub async fn set_schedule(&self, name: Name, mut spec: ScheduleSpec) -> Result<(ScheduleView, bool), HubError> {
        let checked = spec.task.each_callback(|callback| self.check_callback(callback));
        checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid.within("task"))))?;
        spec.author = self.author();
        let (setting, is_new) = self.set(Command::SetSchedule { name, spec }).await?;
        Ok((self.schedule_view(&setting).await?, is_new))
    }

    /// Deletes a schedule. Its tasks stay.
    pub async fn delete_schedule(&self, name: Name) -> Result<(), HubError> {
        self.ask(Command::UnsetSchedule { name }, Bound::Held).await.map(|_| ())
    }

    /// Pauses a schedule, or lets it go on. One that had stopped because the token of who made it is in force no longer goes on for
    /// whoever says so.
    pub async fn pause_schedule(&self, name: Name, paused: bool) -> Result<ScheduleView, HubError> {
        let (setting, _) = self.set(Command::PauseSchedule { name, paused, author: self.author() }).await?;
        self.schedule_view(&setting).await
    }

    /// Makes the task of a schedule now, whatever is due, beside all others and while it is paused.
    pub async fn run_schedule(&self, name: Name) -> Result<Arc<Task>, HubError> {
        match self.ask(Command::RunSchedule { name }, Bound::Held).await? {
            Answer::Submitted { tasks, .. } => tasks.into_iter().next().ok_or(HubError::Internal),
            other => unreachable!("a task is the answer to this command, not {other:?}"),
        }
    }

    async fn schedule_view(&self, setting: &Arc<Setting>) -> Result<ScheduleView, HubError> {
        let views = self.schedule_views(std::slice::from_ref(setting)).await?;
        // What was asked for may be another kind of setting only by a fault of ours.
        views.into_iter().next().ok_or(HubError::Refused(Refusal::ScheduleNotFound))
    }

    async fn schedule_views(&self, settings: &[Arc<Setting>]) -> Result<Vec<ScheduleView>, HubError> {
        let schedules = || settings.iter().filter_map(|setting| Some((setting, schedule(setting)?)));
        let statuses = self.statuses(schedules().filter_map(|(_, it)| it.state.last.map(|last| last.task_id))).await?;
        let view = |(setting, schedule): (&Arc<Setting>, &Schedule)| {
            let last = schedule.state.last.map(|last| LastRunView {
                task_id: last.task_id,
                due_at: last.due_at,
                status: statuses.get(&last.task_id).copied(),
            });
            ScheduleView::of(setting.name.clone(), (setting.rev, setting.updated_at), schedule, last)
        };
        Ok(schedules().map(view).collect())
    }

    /// The statuses of those of these tasks that are there.
    async fn statuses(&self, task_ids: impl Iterator<Item = TaskId>) -> Result<HashMap<TaskId, Status>, HubError> {
        let board = &self.shared().board;
        let (mut found, mut absent) = (HashMap::new(), Vec::new());
        for task_id in task_ids {
            match board.get(task_id) {
                Some(task) => _ = found.insert(task_id, task.status),
                None => absent.push(task_id),
            }
        }
        if !absent.is_empty() {
            let asked = absent.clone();
            let records = self.shared().read(move |reader| reader.records(&asked)).await?;
            let known = absent.into_iter().zip(records);
            found.extend(known.filter_map(|(id, record)| Some((id, Task::parse(&record?).ok()?.status))));
        }
        Ok(found)
    }
}

fn schedule(setting: &Setting) -> Option<&Schedule> {
    match &setting.value {
        SettingValue::Schedule(schedule) => Some(schedule),
        _ => None,
    }
}
