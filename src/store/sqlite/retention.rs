//! Which final tasks of a queue are the oldest, and which the newest.
//!
//! One index has the final tasks of each queue by when they ended, with the bytes that each takes. What is not settled is not in
//! it, and is taken from the staging, as by every read of many tasks ([`super::fresh`]).

use rusqlite::{Connection, OptionalExtension as _, params};

use super::failure::ErrorContext as _;
use super::fresh::{Fresh, Newer};
use super::reader::Shared;
use super::staging::{StagedRecord, bytes_in_file};
use super::{id_of, integer};
use crate::store::{Beyond, EndedAt, StoreError};
use crate::task::{Name, TaskId, Timestamp};

/// The first queue that has final tasks, or the next one after a queue: one look into the index.
const FIRST_QUEUE: &str =
    "SELECT queue FROM tasks INDEXED BY tasks_finished WHERE finished_at IS NOT NULL ORDER BY queue LIMIT 1";
const NEXT_QUEUE: &str = "SELECT queue FROM tasks INDEXED BY tasks_finished WHERE finished_at IS NOT NULL AND queue > ?1 ORDER BY queue LIMIT 1";

/// A final task of a queue, as it is not settled yet.
fn staged(record: &StagedRecord, queue: &Name) -> Option<EndedAt> {
    let at = record.finished_at().filter(|_| !record.gone && record.task.queue == *queue)?;
    Some((at, record.task.task_id))
}

fn queues(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names: Vec<String> = conn.query_row(FIRST_QUEUE, [], |row| row.get(0)).optional()?.into_iter().collect();
    let mut next = conn.prepare_cached(NEXT_QUEUE)?;
    while let Some(last) = names.last()
        && let Some(name) = next.query_row([last], |row| row.get(0)).optional()?
    {
        names.push(name);
    }
    Ok(names)
}

/// When the last of all final tasks ended.
pub(super) fn last_ended(conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let mut newest = conn.prepare_cached(
        "SELECT max(finished_at) FROM tasks INDEXED BY tasks_finished WHERE queue = ?1 AND finished_at IS NOT NULL",
    )?;
    let mut last = None;
    for queue in queues(conn)? {
        last = last.max(newest.query_row([queue], |row| row.get::<_, Option<i64>>(0))?);
    }
    Ok(last.map(Timestamp::from_millis))
}

impl Shared {
    pub(super) fn find_queues_with_ended(&self) -> Result<Vec<Name>, StoreError> {
        let names = queues(&*self.pool.checkout()?).context("find the queues of finished tasks")?;
        Ok(names.iter().map(|name| Name::new(name)).collect())
    }

    pub(super) fn find_ended_before(
        &self,
        queue: &Name,
        before: EndedAt,
        limit: usize,
    ) -> Result<Vec<TaskId>, StoreError> {
        const STEP: &str = "find finished tasks";
        let ended = |record: &StagedRecord| staged(record, queue).filter(|ended| *ended < before);
        let fresh = Fresh::of(&self.staging.read(), limit, ended, |record| record.task.task_id);
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached(
                "SELECT finished_at, task_id FROM tasks INDEXED BY tasks_finished
                 WHERE queue = ?1 AND finished_at IS NOT NULL AND (finished_at, task_id) < (?2, ?3)
                 ORDER BY finished_at, task_id LIMIT ?4",
            )
            .context(STEP)?;
        let (at, task_id) = (before.0.as_millis(), before.1);
        let rows_max = integer(limit.saturating_add(fresh.len()));
        let mut rows =
            statement.query(params![queue.as_str(), at, task_id.as_bytes().as_slice(), rows_max]).context(STEP)?;
        let next = |newer: &Newer| {
            while let Some(row) = rows.next()? {
                let ended = (Timestamp::from_millis(row.get(0)?), id_of(row, 1)?);
                if !newer.contains(&ended.1) {
                    return Ok(Some((ended, ended.1)));
                }
            }
            Ok(None)
        };
        fresh.merge(limit, next).map(|(task_ids, _)| task_ids).context(STEP)
    }

    pub(super) fn find_beyond(&self, queue: &Name, count_max: u64, bytes_max: u64) -> Result<Beyond, StoreError> {
        const STEP: &str = "find the newest finished tasks";
        let mut newer = Newer::default();
        let mut found: Vec<(EndedAt, u64)> = Vec::new();
        {
            let staging = self.staging.read();
            for record in staging.records() {
                newer.insert(record.task.task_id);
                // What came with it may be settled already; the next look knows.
                let bytes = record.bytes.len() as u64 + bytes_in_file(&record.task);
                found.extend(staged(record, queue).map(|ended| (ended, bytes)));
            }
        }
        found.sort_unstable();
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached(
                "SELECT finished_at, task_id, bytes FROM tasks INDEXED BY tasks_finished
                 WHERE queue = ?1 AND finished_at IS NOT NULL ORDER BY finished_at DESC, task_id DESC",
            )
            .context(STEP)?;
        let mut rows = statement.query([queue.as_str()]).context(STEP)?;
        let mut next_row = || -> rusqlite::Result<Option<(EndedAt, u64)>> {
            while let Some(row) = rows.next()? {
                let ended = (Timestamp::from_millis(row.get(0)?), id_of(row, 1)?);
                if !newer.contains(&ended.1) {
                    return Ok(Some((ended, row.get::<_, i64>(2)? as u64)));
                }
            }
            Ok(None)
        };
        let mut row = next_row().context(STEP)?;
        let (mut beyond, mut count, mut bytes, mut oldest_kept) = (Beyond::default(), 0, 0, None);
        loop {
            let is_staged = found.last().is_some_and(|(staged, _)| row.is_none_or(|(stored, _)| *staged > stored));
            let next = match is_staged {
                true => found.pop(),
                false => std::mem::replace(&mut row, next_row().context(STEP)?),
            };
            let Some((ended, of_it)) = next else { return Ok(beyond) };
            (count, bytes) = (count + 1, bytes + of_it);
            beyond.newest = beyond.newest.max(ended.0);
            beyond.looked += 1;
            if count > count_max || bytes > bytes_max {
                // Where not even the newest may stay, all of its moment goes.
                let all = (ended.0.plus_millis(1), TaskId::from_bytes([0; 16]));
                beyond.before = Some(oldest_kept.unwrap_or(all));
                return Ok(beyond);
            }
            oldest_kept = Some(ended);
        }
    }

    pub(super) fn count_ended_since(&self, queue: &Name, since: Timestamp, limit: usize) -> Result<usize, StoreError> {
        const STEP: &str = "count finished tasks";
        let conn = self.pool.checkout()?;
        let count = conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_finished
                 WHERE queue = ?1 AND finished_at >= ?2 LIMIT ?3)",
            )
            .and_then(|mut statement| {
                let bounds = params![queue.as_str(), since.as_millis(), integer(limit)];
                statement.query_row(bounds, |row| row.get::<_, i64>(0))
            })
            .context(STEP)?;
        Ok(count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::World;
    use crate::store::{Commit, Store as _, in_memory};
    use crate::task::{Event, Status};

    /// The bytes of a task are those of its record, its payload and its result, in however many settlings they come.
    #[test]
    fn the_newest_are_kept_up_to_so_many_bytes() {
        for settled in [1, 2, 3, 99] {
            let mut store = in_memory().unwrap();
            let (mut world, mut ids) = (World::new(settled), Vec::new());
            for _ in 0..12 {
                let mut steps: Vec<Commit> = (0..3).map(|_| Commit::default()).collect();
                let task_id = world.create(&mut steps[0]);
                world.step(&mut steps[1], task_id, Status::Running, Event::Running);
                world.step(&mut steps[2], task_id, Status::Completed, Event::Completed);
                for (at, commit) in steps.iter().enumerate() {
                    store.append(commit).unwrap();
                    if (at as u64 + 1).is_multiple_of(settled) {
                        store.settle(1_000).unwrap();
                    }
                }
                ids.push(task_id);
            }
            store.settle(1_000).unwrap();
            let reader = store.reader();
            let queue = Name::new("default");
            let of_queue: Vec<_> = ids.iter().map(|id| reader.task(*id).unwrap().unwrap()).collect();
            let of_queue: Vec<(TaskId, u64)> = ids
                .iter()
                .zip(of_queue)
                .filter(|(_, stored)| crate::task::Task::parse(&stored.record).unwrap().queue == queue)
                .map(|(task_id, stored)| {
                    let beside = [&stored.payload, &stored.result].into_iter().flatten().map(|json| json.len());
                    (*task_id, (stored.record.len() + beside.sum::<usize>()) as u64)
                })
                .collect();
            assert!(of_queue.len() > 3);
            for kept in 1..of_queue.len() {
                let at = of_queue.len() - kept;
                let bytes: u64 = of_queue[at..].iter().map(|(_, bytes)| bytes).sum();
                let beyond = reader.beyond(&queue, u64::MAX, bytes).unwrap();
                assert_eq!(beyond.before.unwrap().1, of_queue[at].0, "{kept} have {bytes} bytes");
                let one_more = reader.beyond(&queue, u64::MAX, bytes - 1).unwrap();
                assert!(kept == 1 || one_more.before.unwrap().1 == of_queue[at + 1].0);
                let gone = reader.ended_before(&queue, beyond.before.unwrap(), 1_000).unwrap();
                assert_eq!(gone, of_queue[..at].iter().map(|(task_id, _)| *task_id).collect::<Vec<_>>());
            }
        }
    }
}
