//! The readers' half: the staging first, the view second. Reads over many tasks merge the two ([`super::fresh`]).
//!
//! One question about one task is one statement, so that it sees one state of the view, also while the writer settles.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{ErrorContext as _, damaged};
use super::fresh::{Fresh, Newer};
use super::items::{self, Items};
use super::keeper::Damage;
use super::pool::Pool;
use super::query;
use super::staging::{StagedRecord, Staging};
use super::view::Part;
use super::{id_of, integer, json_of};
use crate::store::{
    AuditPage, AuditQuery, Beyond, ChangedSince, ChangedTask, DeliveryPage, DeliveryQuery, EndedAt, HandOut, LogRange,
    Looked, OwedDelivery, Page, Query, Reader, StoreError, Stored,
};
use crate::task::{
    DeliveryId, Json, LOG_BYTES_MAX, LOG_LINES_MAX, LogLine, Name, TaskId, Timestamp, Transition, read_strictly,
};

/// What the writer and the readers share.
pub(super) struct Shared {
    pub staging: RwLock<Staging>,
    pub pool: Pool,
    /// What is wrong for good; the writer writes nothing then.
    pub damage: Damage,
}

/// What the staging knows of a task.
enum AtHand {
    Gone,
    /// All there is: the view does not know the task yet.
    Whole(Stored),
    /// The newest record, and what is to be put behind the items in the view. What does not change with each is in there.
    Beside(Stored, Option<Items>),
}

impl Shared {
    fn staged(&self, task_id: TaskId) -> Option<AtHand> {
        let staging = self.staging.read();
        let staged = staging.get(task_id)?;
        let record = staged.record.as_ref()?;
        if record.gone {
            return Some(AtHand::Gone);
        }
        let items = staged.items.as_deref();
        let whole = || items.filter(|_| !record.in_view).map(Items::list);
        let stored = Stored {
            record: record.bytes.clone(),
            payload: staged.payload.clone().or_else(whole),
            result: staged.result.clone(),
            links: staged.links.clone(),
        };
        Some(if record.in_view { AtHand::Beside(stored, items.cloned()) } else { AtHand::Whole(stored) })
    }
}

impl Shared {
    /// The newest log line of a task where that is staged, or nothing of it is left.
    pub fn staged_log_end(&self, task_id: TaskId) -> Option<u64> {
        let staging = self.staging.read();
        let staged = staging.get(task_id)?;
        if staged.gone() { Some(0) } else { staged.log_end() }
    }
}

impl Reader for Shared {
    fn task(&self, task_id: TaskId) -> Result<Option<Stored>, StoreError> {
        const STEP: &str = "read a task";
        let newer = match self.staged(task_id) {
            Some(AtHand::Gone) => return Ok(None),
            Some(AtHand::Whole(stored)) => return Ok(Some(stored)),
            Some(AtHand::Beside(stored, items)) => Some((stored, items)),
            None => None,
        };
        let (newer, staged) = newer.map_or((None, None), |(stored, items)| (Some(stored), items));
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached(
                "SELECT record, (SELECT json FROM parts WHERE task_id = ?1 AND part = ?2),
                 (SELECT json FROM parts WHERE task_id = ?1 AND part = ?3),
                 (SELECT json FROM parts WHERE task_id = ?1 AND part = ?4) FROM tasks WHERE task_id = ?1",
            )
            .context(STEP)?;
        let found = statement
            .query_row(
                params![task_id.as_bytes().as_slice(), Part::Payload as u8, Part::Result as u8, Part::Links as u8],
                |row| {
                    Ok(Stored {
                        record: bytes_of(row, 0)?,
                        payload: json_of(row, 1)?,
                        result: json_of(row, 2)?,
                        links: json_of(row, 3)?,
                    })
                },
            )
            .optional()
            .context(STEP)?;
        let stored = match (found, newer) {
            // Deleted between the two looks, where there was a newer one.
            (None, _) => None,
            (found, None) => found,
            (Some(found), Some(newer)) => Some(Stored {
                record: newer.record,
                payload: newer.payload.or(found.payload),
                result: newer.result.or(found.result),
                links: newer.links.or(found.links),
            }),
        };
        stored
            .map(|mut stored| {
                if stored.payload.is_none() && items::may_have(&stored.record) {
                    stored.payload = items::read(&conn, task_id, staged).context(STEP)?;
                }
                Ok(stored)
            })
            .transpose()
    }

    fn task_at_hand(&self, task_id: TaskId) -> Option<Stored> {
        match self.staged(task_id)? {
            AtHand::Whole(stored) => Some(stored),
            AtHand::Beside(..) | AtHand::Gone => None,
        }
    }

    fn hand_out(&self, task_ids: &[TaskId]) -> Result<Vec<HandOut>, StoreError> {
        const STEP: &str = "read payloads";
        let mut found: Vec<HandOut> = vec![(None, None); task_ids.len()];
        // New tasks are in the staging with all they have.
        let mut to_look_up = Vec::new();
        {
            let staging = self.staging.read();
            for (at, (task_id, found)) in task_ids.iter().zip(&mut found).enumerate() {
                let staged = staging.get(*task_id);
                let record = staged.and_then(|staged| staged.record.as_ref());
                let known_whole = record.is_some_and(|record| record.gone || !record.in_view);
                let items = staged.and_then(|staged| staged.items.as_deref()).filter(|_| known_whole);
                if let Some(staged) = staged {
                    let payload = staged.payload.clone().or_else(|| items.map(Items::list));
                    *found = (payload, staged.checkpoint.clone());
                }
                if !known_whole {
                    to_look_up.push((at, staged.and_then(|staged| staged.items.as_deref().cloned())));
                }
            }
        }
        if to_look_up.is_empty() {
            return Ok(found);
        }
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached(
                "SELECT part, json FROM parts WHERE task_id = ?1 AND (part IN (?2, ?3) OR part >= ?4) ORDER BY part",
            )
            .context(STEP)?;
        for (at, staged) in to_look_up {
            let mut gathered = Items::default();
            let id = task_ids[at].as_bytes().as_slice();
            let mut rows = statement
                .query(params![id, Part::Payload as u8, Part::Checkpoint as u8, items::FIRST])
                .context(STEP)?;
            while let Some(row) = rows.next().context(STEP)? {
                let part: u32 = row.get(0).context(STEP)?;
                let json = json_of(row, 1).context(STEP)?;
                let slot = match part {
                    items::FIRST.. => {
                        json.into_iter().for_each(|item| gathered.push(part - items::FIRST, item));
                        continue;
                    }
                    part if part == Part::Payload as u32 => &mut found[at].0,
                    _ => &mut found[at].1,
                };
                if slot.is_none() {
                    *slot = json;
                }
            }
            if found[at].0.is_none() {
                found[at].0 = gathered.with(staged).whole();
            }
        }
        Ok(found)
    }

    fn find(&self, query: &Query) -> Result<Page, StoreError> {
        let fresh = query::fresh(&self.staging.read(), query);
        query::find(&*self.pool.checkout()?, query, fresh).context("find tasks")
    }

    fn changed_since(&self, rev: u64, limit: usize) -> Result<ChangedSince, StoreError> {
        const STEP: &str = "read changes";
        let changed = |record: &StagedRecord| ChangedTask {
            task_id: record.task.task_id,
            rev: record.rev,
            record: record.bytes.clone(),
            gone: record.gone,
        };
        let after = |record: &StagedRecord| (record.rev > rev).then_some(record.rev);
        let fresh = Fresh::of(&self.staging.read(), limit, after, changed);
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached(
                "SELECT rev, task_id, record, FALSE FROM tasks INDEXED BY tasks_rev WHERE rev > ?1
                 UNION ALL SELECT rev, task_id, record, TRUE FROM tombstones WHERE rev > ?1 ORDER BY rev LIMIT ?2",
            )
            .context(STEP)?;
        let rows_max = limit.saturating_add(1).saturating_add(fresh.len());
        let mut rows = statement.query(params![integer(rev), integer(rows_max)]).context(STEP)?;
        let next = |newer: &Newer| {
            while let Some(row) = rows.next()? {
                if !newer.contains(&id_of(row, 1)?) {
                    return changed_of(row).map(|changed| Some((changed.rev, changed)));
                }
            }
            Ok(None)
        };
        let (changes, more) = fresh.merge(limit, next).context(STEP)?;
        drop(rows);
        // Asked for last: had tombstones been swept in the meantime, it would say so.
        let known_from: i64 = conn
            .prepare_cached("SELECT known_from FROM state")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .context(STEP)?;
        Ok(if integer(rev) < known_from { ChangedSince::TooOld } else { ChangedSince::Known { changes, more } })
    }

    fn history(&self, task_id: TaskId) -> Result<Vec<Transition>, StoreError> {
        const STEP: &str = "read a history";
        let mut newer = (Vec::new(), u64::MAX);
        if let Some(staged) = self.staging.read().get(task_id) {
            if staged.gone() {
                return Ok(Vec::new());
            }
            newer = (staged.lines.clone(), staged.lines_from);
        }
        let conn = self.pool.checkout()?;
        let stored: Option<Vec<u8>> = conn
            .prepare_cached("SELECT history FROM tasks WHERE task_id = ?1")
            .and_then(|mut statement| statement.query_row([task_id.as_bytes().as_slice()], |row| row.get(0)).optional())
            .context(STEP)?;
        let mut history: Vec<Transition> = lines(stored.as_deref().unwrap_or_default(), STEP)?;
        history.retain(|line| line.rev < newer.1);
        history.extend(lines::<Transition>(&newer.0, STEP)?);
        Ok(history)
    }

    fn logs(&self, task_id: TaskId, range: LogRange, newer: &[Arc<[LogLine]>]) -> Result<Vec<LogLine>, StoreError> {
        const STEP: &str = "read log lines";
        let mut newest = Newest::of(range);
        newer.iter().rev().flat_map(|lines| lines.iter().rev()).for_each(|line| newest.take(line));
        if let Some(staged) = self.staging.read().get(task_id) {
            if staged.gone() {
                return Ok(Vec::new());
            }
            staged.logs().rev().flat_map(|lines| lines.iter().rev()).for_each(|line| newest.take(line));
        }
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached("SELECT lines FROM logs WHERE task_id = ?1 AND last_seq > ?2 ORDER BY first_seq DESC")
            .context(STEP)?;
        let mut rows = statement.query(params![task_id.as_bytes().as_slice(), integer(newest.after)]).context(STEP)?;
        while !newest.done
            && let Some(row) = rows.next().context(STEP)?
        {
            let text = row.get_ref(0).and_then(|text| Ok(text.as_blob()?)).context(STEP)?;
            lines::<LogLine>(text, STEP)?.iter().rev().for_each(|line| newest.take(line));
        }
        let mut lines = newest.lines;
        lines.reverse();
        if let LogRange::After { limit, .. } = range {
            lines.truncate(limit);
        }
        Ok(lines)
    }

    fn log_end(&self, task_id: TaskId) -> Result<u64, StoreError> {
        match self.staged_log_end(task_id) {
            Some(end) => Ok(end),
            None => log_end(&*self.pool.checkout()?, task_id),
        }
    }

    fn report(&self, error: &StoreError) {
        if error.lasting {
            self.damage.found(error.to_string());
        }
    }

    fn ended_before(&self, queue: &Name, before: EndedAt, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.find_ended_before(queue, before, limit)
    }

    fn queues_with_ended(&self) -> Result<Vec<Name>, StoreError> {
        self.find_queues_with_ended()
    }

    fn beyond(&self, queue: &Name, count_max: u64, bytes_max: u64) -> Result<Beyond, StoreError> {
        self.find_beyond(queue, count_max, bytes_max)
    }

    fn ended_since(&self, queue: &Name, since: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.count_ended_since(queue, since, limit)
    }

    fn parts_of(&self, workflow_ids: &[TaskId], limit: usize) -> Result<Vec<(TaskId, TaskId)>, StoreError> {
        const STEP: &str = "find the tasks of a workflow";
        let mut found = Vec::new();
        let wanted: HashSet<TaskId> = workflow_ids.iter().copied().collect();
        let mut newer = HashSet::new();
        for record in self.staging.read().records() {
            let task = &record.task;
            if let Some(workflow_id) = task.workflow_id().filter(|id| wanted.contains(id)) {
                newer.insert(task.task_id);
                found.extend((!record.gone).then_some((workflow_id, task.task_id)));
            }
        }
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached("SELECT task_id FROM tasks INDEXED BY tasks_workflow WHERE workflow_id = ?1")
            .context(STEP)?;
        for workflow_id in workflow_ids {
            let mut rows = statement.query([workflow_id.as_bytes().as_slice()]).context(STEP)?;
            while found.len() < limit
                && let Some(row) = rows.next().context(STEP)?
            {
                let task_id = id_of(row, 0).context(STEP)?;
                found.extend((!newer.contains(&task_id)).then_some((*workflow_id, task_id)));
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    fn links(&self, task_ids: &[TaskId]) -> Result<Vec<Option<Json>>, StoreError> {
        const STEP: &str = "read the links of tasks";
        let staged = |staging: &Staging, task_id: &TaskId| staging.get(*task_id)?.links.clone();
        let mut found: Vec<_> = {
            let staging = self.staging.read();
            task_ids.iter().map(|task_id| staged(&staging, task_id)).collect()
        };
        if found.iter().all(Option::is_some) {
            return Ok(found);
        }
        let conn = self.pool.checkout()?;
        let mut statement =
            conn.prepare_cached("SELECT json FROM parts WHERE task_id = ?1 AND part = ?2").context(STEP)?;
        for (task_id, found) in task_ids.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let params = params![task_id.as_bytes().as_slice(), Part::Links as u8];
            *found = statement.query_row(params, |row| json_of(row, 0)).optional().context(STEP)?.flatten();
        }
        Ok(found)
    }

    fn delivery(&self, id: DeliveryId) -> Result<Option<OwedDelivery>, StoreError> {
        self.find_delivery(id)
    }

    fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.find_deliveries(query)
    }

    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.find_audit(query)
    }

    fn records(&self, task_ids: &[TaskId]) -> Result<Vec<Option<Bytes>>, StoreError> {
        const STEP: &str = "read records";
        let mut found = vec![None; task_ids.len()];
        let mut to_look_up = Vec::new();
        {
            let staging = self.staging.read();
            for (at, (task_id, found)) in task_ids.iter().zip(&mut found).enumerate() {
                match staging.get(*task_id).and_then(|staged| staged.record.as_ref()) {
                    Some(record) if record.gone => {}
                    Some(record) => *found = Some(record.bytes.clone()),
                    None => to_look_up.push(at),
                }
            }
        }
        if to_look_up.is_empty() {
            return Ok(found);
        }
        let conn = self.pool.checkout()?;
        let mut statement = conn.prepare_cached("SELECT record FROM tasks WHERE task_id = ?1").context(STEP)?;
        for at in to_look_up {
            let id = task_ids[at].as_bytes().as_slice();
            found[at] = statement.query_row([id], |row| bytes_of(row, 0)).optional().context(STEP)?;
        }
        Ok(found)
    }

    fn look_for(&self, task_ids: &[TaskId]) -> Result<Vec<Looked>, StoreError> {
        const STEP: &str = "look for tasks";
        let staged: Vec<Option<Looked>> = {
            let staging = self.staging.read();
            let staged = |task_id| staging.get(task_id).and_then(|staged| staged.record.as_ref());
            let looked = |record: &StagedRecord| Looked { is_there: !record.gone, record: record.bytes.clone() };
            task_ids.iter().map(|task_id| staged(*task_id).map(looked)).collect()
        };
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached("SELECT task_id = ?1, record FROM tasks WHERE task_id <= ?1 ORDER BY task_id DESC LIMIT 1")
            .context(STEP)?;
        let stored = |task_id: &TaskId| {
            let looked = |row: &rusqlite::Row<'_>| Ok(Looked { is_there: row.get(0)?, record: bytes_of(row, 1)? });
            statement.query_row([task_id.as_bytes().as_slice()], looked).optional().context(STEP)
        };
        // Whatever is staged, the table is read.
        let stored = task_ids.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
        Ok(staged.into_iter().zip(stored).map(|(staged, stored)| staged.or(stored).unwrap_or_default()).collect())
    }
}

impl Shared {
    /// The half for everybody.
    pub fn reader(self: &Arc<Shared>) -> Arc<dyn Reader> {
        self.clone()
    }
}

/// The newest kept line of a task in the view.
pub(super) fn log_end(conn: &Connection, task_id: TaskId) -> Result<u64, StoreError> {
    let end: Option<i64> = conn
        .prepare_cached("SELECT last_seq FROM logs WHERE task_id = ?1 ORDER BY first_seq DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([task_id.as_bytes().as_slice()], |row| row.get(0)).optional())
        .context("read the end of a log")?;
    Ok(end.and_then(|end| u64::try_from(end).ok()).unwrap_or(0))
}

/// Gathers lines from the newest to the oldest, within what is kept of a task.
struct Newest {
    lines: Vec<LogLine>,
    bytes: usize,
    /// Lines up to here are not asked for.
    after: u64,
    /// Of those up to `cut` so many more are.
    cut: u64,
    tail: usize,
    done: bool,
}

impl Newest {
    fn of(range: LogRange) -> Newest {
        let (after, cut, tail) = match range {
            LogRange::Tail(tail) => (0, u64::MAX, tail),
            LogRange::After { seq, .. } => (seq, seq, 0),
            LogRange::Cut { seq, tail } => (if tail == 0 { seq } else { 0 }, seq, tail),
        };
        Newest { lines: Vec::new(), bytes: 0, after, cut, tail, done: tail == 0 && cut == u64::MAX }
    }

    /// The next older line. One that is there already is passed over: the staging and the view may both have it.
    fn take(&mut self, line: &LogLine) {
        if self.done || self.lines.last().is_some_and(|oldest| oldest.seq <= line.seq) {
            return;
        }
        let bytes = self.bytes + line.message.len();
        if line.seq <= self.after || bytes > LOG_BYTES_MAX {
            self.done = true;
            return;
        }
        self.bytes = bytes;
        self.lines.push(line.clone());
        if line.seq <= self.cut {
            self.tail -= 1;
        }
        self.done = self.lines.len() == LOG_LINES_MAX || (line.seq <= self.cut && self.tail == 0);
    }
}

/// Texts that each stand after a newline. What stands before the first was cut off.
fn lines<T: serde::de::DeserializeOwned>(text: &[u8], step: &'static str) -> Result<Vec<T>, StoreError> {
    text.split(|byte| *byte == b'\n')
        .skip(1)
        .map(|line| read_strictly(line).map_err(|error| damaged(step, error)))
        .collect()
}

fn changed_of(row: &Row<'_>) -> rusqlite::Result<ChangedTask> {
    let rev: i64 = row.get(0)?;
    Ok(ChangedTask { rev: rev as u64, task_id: id_of(row, 1)?, record: bytes_of(row, 2)?, gone: row.get(3)? })
}

pub(super) fn bytes_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}
