//! Reading what a store holds when a hub starts on it: all of it, or what is left of a damaged one.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::OptionalExtension as _;

use super::failure::{ErrorContext as _, damaged};
use super::{SqliteStore, access, id_of, json_of, retention};
use crate::settings::{Setting, SettingId};
use crate::store::{LogRange, Reader as _, Recovered, Store as _, StoreError};
use crate::task::{Name, Run, Status, Task, TaskId, Timestamp};

const RECOVER: &str = "recover";

impl SqliteStore {
    pub(super) fn recover_whole(&mut self) -> Result<Recovered, StoreError> {
        self.settle_all()?;
        let mut counts = BTreeMap::new();
        let mut unfinished = Vec::new();
        self.read_counts(&mut counts)?;
        for status in Status::ALL.into_iter().filter(|status| !status.is_final()) {
            self.read_unfinished(status, &mut unfinished)?;
        }
        unfinished.sort_unstable_by_key(|task: &Task| task.task_id);
        unfinished.iter_mut().try_for_each(|task| self.attach_links(task))?;
        let relatives = self.read_relatives(&unfinished)?;
        let (openings, last_at) = (self.openings.clone(), self.last_at(&unfinished, &relatives)?);
        Ok(Recovered {
            openings,
            rev: self.rev,
            last_id: self.last_id,
            last_at,
            settings: self.read_settings()?,
            unfinished,
            relatives,
            deliveries: self.read_pending()?,
            deliveries_failed: self.count_failed()?,
            access: access::read(&self.conn)?,
            audit: self.audit_ends()?,
            counts,
            user_finals: self.read_user_finals()?,
            damage: None,
        })
    }

    /// The final tasks that these need.
    fn read_relatives(&mut self, unfinished: &[Task]) -> Result<Vec<Task>, StoreError> {
        let waiting = unfinished.iter().filter(|task| task.status == Status::Waiting);
        let mut named: BTreeSet<TaskId> = waiting.flat_map(|task| task.depends_on()).copied().collect();
        let own = unfinished.iter().filter(|task| task.is_workflow()).map(|task| task.task_id);
        let families: BTreeSet<TaskId> = own.chain(unfinished.iter().filter_map(|task| task.workflow_id())).collect();
        let families: Vec<TaskId> = families.into_iter().collect();
        named.extend(self.shared.parts_of(&families, usize::MAX)?.into_iter().map(|(_, task_id)| task_id));
        named.extend(families);
        let mut relatives = Vec::new();
        for task_id in named {
            if unfinished.binary_search_by_key(&task_id, |task| task.task_id).is_err() {
                relatives.extend(self.task(task_id)?);
            }
        }
        Ok(relatives)
    }

    fn read_settings(&self) -> Result<Vec<Setting>, StoreError> {
        let mut statement = self.conn.prepare("SELECT record, kind, name FROM settings").context(RECOVER)?;
        let mut rows = statement.query([]).context(RECOVER)?;
        let mut settings = Vec::new();
        while let Some(row) = rows.next().context(RECOVER)? {
            let record = row.get_ref(0).and_then(|record| Ok(record.as_blob()?)).context(RECOVER)?;
            let setting = Setting::parse(record).map_err(|error| {
                let name: String = row.get(2).unwrap_or_default();
                damaged(RECOVER, format!("setting {name:?}: {error}"))
            });
            settings.push(setting?);
        }
        Ok(settings)
    }

    fn read_counts(&self, counts: &mut BTreeMap<Status, u64>) -> Result<(), StoreError> {
        let mut statement = self.conn.prepare("SELECT status, count(*) FROM tasks GROUP BY status").context(RECOVER)?;
        let mut rows = statement.query([]).context(RECOVER)?;
        while let Some(row) = rows.next().context(RECOVER)? {
            let (code, count): (i64, i64) = (row.get(0).context(RECOVER)?, row.get(1).context(RECOVER)?);
            let status = u8::try_from(code).ok().and_then(Status::from_code);
            let status = status.ok_or_else(|| damaged(RECOVER, format!("unknown status {code}")))?;
            counts.insert(status, count as u64);
        }
        Ok(())
    }

    /// A walk along one index, which has all that is asked for, in the order of users.
    fn read_user_finals(&self) -> Result<Vec<(Name, Status, u64)>, StoreError> {
        const FINALS: [Status; 3] = [Status::Completed, Status::Failed, Status::Cancelled];
        const COUNTS: &str = "SELECT user_id, sum(status = ?1), sum(status = ?2), sum(status = ?3)
            FROM tasks INDEXED BY tasks_user WHERE user_id IS NOT NULL GROUP BY user_id";
        let mut statement = self.conn.prepare(COUNTS).context(RECOVER)?;
        let mut rows = statement.query(FINALS.map(|status| status as u8)).context(RECOVER)?;
        let mut finals = Vec::new();
        while let Some(row) = rows.next().context(RECOVER)? {
            let user: String = row.get(0).context(RECOVER)?;
            for (at, status) in FINALS.into_iter().enumerate() {
                let count: i64 = row.get(at + 1).context(RECOVER)?;
                if count > 0 {
                    finals.push((Name::new(&user), status, count as u64));
                }
            }
        }
        Ok(finals)
    }

    fn read_unfinished(&self, status: Status, unfinished: &mut Vec<Task>) -> Result<(), StoreError> {
        const TASKS: &str =
            "SELECT record, progress, task_id FROM tasks INDEXED BY tasks_status WHERE status = ?1 ORDER BY task_id";
        let mut statement = self.conn.prepare(TASKS).context(RECOVER)?;
        let mut rows = statement.query([status as u8]).context(RECOVER)?;
        while let Some(row) = rows.next().context(RECOVER)? {
            let record = row.get_ref(0).and_then(|record| Ok(record.as_blob()?)).context(RECOVER)?;
            let mut task = Task::parse(record).map_err(|error| {
                let task_id = id_of(row, 2).map(|id| id.to_string()).unwrap_or_default();
                damaged(RECOVER, format!("task {task_id}: {error}"))
            })?;
            if let Some(progress) = json_of(row, 1).context(RECOVER)? {
                task.run.get_or_insert_with(|| Box::new(Run::default())).progress = Some(progress);
            }
            unfinished.push(task);
        }
        Ok(())
    }

    /// What can be read of a store that is not whole: of each status up to the first damage, with what was not settled.
    pub(super) fn what_is_left(&self, damage: String) -> Recovered {
        let (mut counts, mut unfinished) = (BTreeMap::new(), Vec::new());
        let _ = self.read_counts(&mut counts);
        for status in Status::ALL.into_iter().filter(|status| !status.is_final()) {
            let _ = self.read_unfinished(status, &mut unfinished);
        }
        let mut by_id: BTreeMap<TaskId, Task> = unfinished.into_iter().map(|task| (task.task_id, task)).collect();
        for record in self.shared.staging.read().records() {
            let task_id = record.task.task_id;
            if record.in_view
                && let Ok(Some(before)) = self.view_status(task_id)
            {
                counts.entry(before).and_modify(|count| *count = count.saturating_sub(1));
            }
            by_id.remove(&task_id);
            if record.gone {
                continue;
            }
            *counts.entry(record.task.status).or_default() += 1;
            if !record.task.status.is_final() {
                by_id.insert(task_id, Task::clone(&record.task));
            }
        }
        // As far as they can be read.
        let mut unfinished: Vec<Task> = by_id.into_values().collect();
        unfinished.iter_mut().for_each(|task| _ = self.attach_links(task));
        let settled = self.read_settings().unwrap_or_default();
        let mut settings: BTreeMap<SettingId, Setting> =
            settled.into_iter().map(|setting| (setting.id(), setting)).collect();
        for (id, staged) in self.shared.staging.read().settings() {
            settings.remove(id);
            settings.extend(
                staged.record.as_ref().and_then(|record| Setting::parse(record).ok()).map(|it| (id.clone(), it)),
            );
        }
        Recovered {
            openings: self.openings.clone(),
            rev: self.rev,
            last_id: self.last_id,
            last_at: self.last_at(&unfinished, &[]).unwrap_or_default(),
            settings: settings.into_values().collect(),
            unfinished,
            relatives: Vec::new(),
            // None of what is owed is told: that it was could not be written down.
            deliveries: Vec::new(),
            deliveries_failed: 0,
            access: self.access_left(),
            audit: (self.audit_seq + 1, self.audit_seq),
            counts,
            user_finals: Vec::new(),
            damage: Some(damage),
        }
    }

    fn view_status(&self, task_id: TaskId) -> rusqlite::Result<Option<Status>> {
        let code: Option<u8> = self
            .conn
            .query_row("SELECT status FROM tasks WHERE task_id = ?1", [task_id.as_bytes().as_slice()], |row| row.get(0))
            .optional()?;
        Ok(code.and_then(Status::from_code))
    }

    /// The newest time that is written down: of a task that was made, went on or ended, of a deletion, of what a running
    /// task said. What is not looked at is older than one of these.
    fn last_at(&self, unfinished: &[Task], relatives: &[Task]) -> Result<Timestamp, StoreError> {
        const STEP: &str = "find the last time";
        let deleted = "SELECT at FROM tombstones ORDER BY rev DESC LIMIT 1";
        let mut times: Vec<Timestamp> = Vec::new();
        let millis = self.conn.query_row(deleted, [], |row| row.get(0)).optional().context(STEP)?;
        times.extend(millis.map(Timestamp::from_millis));
        times.extend(retention::last_ended(&self.conn).context(STEP)?);
        times.extend(self.last_id.map(TaskId::made_at));
        times.extend(self.last_audit_at());
        times.extend(self.read_settings().unwrap_or_default().into_iter().map(|setting| setting.updated_at));
        let reader = &self.shared;
        times.extend(relatives.iter().map(|task| task.updated_at));
        for task in unfinished {
            times.push(task.updated_at);
            if task.status == Status::Running {
                times.extend(reader.logs(task.task_id, LogRange::Tail(1), &[])?.last().map(|line| line.at));
            }
        }
        Ok(times.into_iter().max().unwrap_or_default())
    }
}
