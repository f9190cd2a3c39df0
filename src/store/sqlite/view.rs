//! Writing the view: what settling does to the tables.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::failure::ErrorContext as _;
use super::staging::{Staged, StagedDelivery, StagedRecord, StagedSetting, bytes_in_file};
use super::{integer, items};
use crate::access::{AccessKey, AccessRecord, AuditEntry};
use crate::settings::{HandOuts, SettingId};
use crate::store::{KeyEntry, OwedDelivery, StoreError};
use crate::task::{Delivery, DeliveryId, Json, LOG_BYTES_MAX, LOG_LINES_MAX, LogLine, Task};

/// The most bytes of history kept of one task: some two thousand transitions. The oldest go. A task is handed out a
/// thousand times at most, but every crash and every restart of the hub leaves a line too, and the history is written
/// anew with each settling.
pub(super) const HISTORY_BYTES_MAX: usize = 256 << 10;

/// Log lines are gathered into rows up to this size: the newest row is written anew for each settling that has more
/// lines, and the oldest are dropped whole.
const LOG_ROW_BYTES: usize = 8 << 10;

const STEP: &str = "settle";

/// What is kept beside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    Payload = 1,
    Result = 2,
    Checkpoint = 3,
    Links = 4,
    // Those from `items::FIRST` on are items of a payload that is gathered.
}

/// The statements of one settling.
pub(super) struct View<'c> {
    insert: CachedStatement<'c>,
    update: CachedStatement<'c>,
    progress: CachedStatement<'c>,
    exists: CachedStatement<'c>,
    known: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    label: CachedStatement<'c>,
    delete_label: CachedStatement<'c>,
    part: CachedStatement<'c>,
    delete_parts: CachedStatement<'c>,
    log_row: CachedStatement<'c>,
    newest_log_row: CachedStatement<'c>,
    log_rows: CachedStatement<'c>,
    trim_logs: CachedStatement<'c>,
    delete_logs: CachedStatement<'c>,
    tombstone: CachedStatement<'c>,
    key: CachedStatement<'c>,
    setting: CachedStatement<'c>,
    delete_setting: CachedStatement<'c>,
    hand_outs: CachedStatement<'c>,
    owe: CachedStatement<'c>,
    delivery: CachedStatement<'c>,
    delivered: CachedStatement<'c>,
    access: CachedStatement<'c>,
    delete_access: CachedStatement<'c>,
    audit: CachedStatement<'c>,
    ids: Vec<u8>,
}

impl<'c> View<'c> {
    pub fn new(conn: &'c Connection) -> Result<View<'c>, StoreError> {
        let prepare = |sql: &str| conn.prepare_cached(sql).context(STEP);
        Ok(View {
            insert: prepare(
                "INSERT INTO tasks (task_id, rev, status, created_at, finished_at, task_type, queue, user_id, title,
                 progress, record, history, workflow_id, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?,
            // What does not fit is cut off anywhere in the oldest line; readers begin at the first newline.
            update: prepare(&format!(
                "UPDATE tasks SET rev = ?2, status = ?3, finished_at = ?4, progress = ?5, record = ?6, title = ?8,
                 bytes = max(0, bytes - length(record)) + ?9,
                 history = CASE WHEN length(history) + length(?7) <= {HISTORY_BYTES_MAX}
                     THEN CAST(history || ?7 AS BLOB)
                     ELSE substr(CAST(history || ?7 AS BLOB), -{HISTORY_BYTES_MAX}) END
                 WHERE task_id = ?1"
            ))?,
            progress: prepare("UPDATE tasks SET progress = ?3 WHERE task_id = ?1 AND rev <= ?2")?,
            exists: prepare("SELECT 1 FROM tasks WHERE task_id = ?1")?,
            known: prepare("SELECT record FROM tasks WHERE task_id = ?1")?,
            delete: prepare("DELETE FROM tasks WHERE task_id = ?1")?,
            label: prepare("INSERT OR REPLACE INTO labels VALUES (?1, ?2, ?3)")?,
            delete_label: prepare("DELETE FROM labels WHERE key = ?1 AND value = ?2 AND task_id = ?3")?,
            part: prepare("INSERT OR REPLACE INTO parts VALUES (?1, ?2, ?3)")?,
            delete_parts: prepare("DELETE FROM parts WHERE task_id = ?1")?,
            log_row: prepare("INSERT OR REPLACE INTO logs VALUES (?1, ?2, ?3, ?4, ?5)")?,
            newest_log_row: prepare(
                "SELECT first_seq, last_seq, bytes, lines FROM logs WHERE task_id = ?1 ORDER BY first_seq DESC LIMIT 1",
            )?,
            log_rows: prepare("SELECT last_seq, bytes FROM logs WHERE task_id = ?1 ORDER BY first_seq DESC")?,
            trim_logs: prepare("DELETE FROM logs WHERE task_id = ?1 AND last_seq <= ?2")?,
            delete_logs: prepare("DELETE FROM logs WHERE task_id = ?1")?,
            tombstone: prepare("INSERT OR REPLACE INTO tombstones VALUES (?1, ?2, ?3, ?4)")?,
            key: prepare("INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3, ?4, ?5)")?,
            setting: prepare("INSERT OR REPLACE INTO settings VALUES (?1, ?2, ?3, ?4)")?,
            delete_setting: prepare("DELETE FROM settings WHERE kind = ?1 AND name = ?2")?,
            hand_outs: prepare("INSERT OR REPLACE INTO hand_outs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
            owe: prepare("INSERT OR REPLACE INTO callbacks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?,
            delivery: prepare("UPDATE callbacks SET status = ?2, state = ?3 WHERE callback_id = ?1")?,
            delivered: prepare("DELETE FROM callbacks WHERE callback_id = ?1")?,
            access: prepare("INSERT OR REPLACE INTO access VALUES (?1, ?2)")?,
            delete_access: prepare("DELETE FROM access WHERE key = ?1")?,
            audit: prepare("INSERT OR REPLACE INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?,
            ids: Vec::new(),
        })
    }

    /// Brings one task up to date.
    pub fn task(&mut self, staged: &Staged) -> Result<(), StoreError> {
        let id = staged.task_id.as_bytes().as_slice();
        match &staged.record {
            Some(record) if record.gone => return self.gone(id, record).context(STEP),
            Some(record) => self.record(id, record, staged).context(STEP)?,
            // The hub writes asides of tasks it knows, so this is about a task that was deleted since.
            None if !self.exists.exists([id]).context(STEP)? => return Ok(()),
            None => {
                if let Some((rev, progress)) = &staged.progress {
                    self.progress.execute(params![id, *rev as i64, &progress.bytes()[..]]).context(STEP)?;
                }
            }
        }
        let parts = [
            (Part::Payload, &staged.payload),
            (Part::Result, &staged.result),
            (Part::Checkpoint, &staged.checkpoint),
            (Part::Links, &staged.links),
        ];
        for (part, json) in parts {
            if let Some(json) = json {
                self.part.execute(params![id, part as u8, &json.bytes()[..]]).context(STEP)?;
            }
        }
        for (place, item) in staged.items.iter().flat_map(|items| items.each()) {
            self.part.execute(params![id, items::part(place), &item.bytes()[..]]).context(STEP)?;
        }
        if staged.log_end().is_some() {
            self.logs(id, staged.logs().flat_map(|lines| lines.iter()))?;
        }
        Ok(())
    }

    fn record(&mut self, id: &[u8], record: &StagedRecord, staged: &Staged) -> rusqlite::Result<()> {
        let task = &record.task;
        let rev = record.rev as i64;
        let status = task.status as u8;
        let finished_at = record.finished_at().map(|at| at.as_millis());
        let progress = staged.progress.as_ref().map(|(_, progress): &(u64, Json)| &progress.bytes()[..]);
        let (text, lines) = (&record.bytes[..], &staged.lines[..]);
        let title = task.detail().and_then(|detail| detail.title.as_deref());
        let beside = [&staged.payload, &staged.result].into_iter().flatten().map(Json::len).sum::<usize>();
        let bytes = (text.len() + beside) as i64 + integer(bytes_in_file(task));
        if record.in_view {
            if !task.former_labels().is_empty() {
                self.forget_labels(id)?;
                self.labels(id, task)?;
            }
            let updated =
                self.update.execute(params![id, rev, status, finished_at, progress, text, lines, title, bytes])?;
            if updated == 1 {
                return Ok(());
            }
        }
        self.insert.execute(params![
            id,
            rev,
            status,
            task.created_at.as_millis(),
            finished_at,
            task.task_type.as_str(),
            task.queue.as_str(),
            task.user_id.as_ref().map(|user| user.as_str()),
            title,
            progress,
            text,
            lines,
            task.workflow_id().as_ref().map(|id| id.as_bytes().as_slice()),
            bytes,
        ])?;
        self.labels(id, task)
    }

    fn labels(&mut self, id: &[u8], task: &Task) -> rusqlite::Result<()> {
        for (key, value) in task.labels().into_iter().flatten() {
            self.label.execute(params![key, value, id])?;
        }
        Ok(())
    }

    /// A task is not found any more by the labels that the view knows of: it has others, or is gone.
    fn forget_labels(&mut self, id: &[u8]) -> rusqlite::Result<()> {
        let known = self.known.query_row([id], |row| Ok(Task::parse(row.get_ref(0)?.as_blob()?))).optional()?;
        // What cannot be read is found to be damaged where it is asked for.
        let known = known.and_then(Result::ok);
        for (key, value) in known.as_ref().and_then(Task::labels).into_iter().flatten() {
            self.delete_label.execute(params![key, value, id])?;
        }
        Ok(())
    }

    fn gone(&mut self, id: &[u8], record: &StagedRecord) -> rusqlite::Result<()> {
        if record.in_view {
            if !record.task.former_labels().is_empty() {
                self.forget_labels(id)?;
            }
            self.delete.execute([id])?;
            self.delete_parts.execute([id])?;
            self.delete_logs.execute([id])?;
            for (key, value) in record.task.labels().into_iter().flatten() {
                self.delete_label.execute(params![key, value, id])?;
            }
        }
        self.tombstone.execute(params![record.rev as i64, record.at.as_millis(), id, &record.bytes[..]])?;
        Ok(())
    }

    fn logs<'l>(&mut self, id: &[u8], lines: impl Iterator<Item = &'l LogLine>) -> Result<(), StoreError> {
        let newest = self.newest_log_row.query_row([id], |row| {
            let lines: Vec<u8> = row.get(3)?;
            Ok(LogRow { first_seq: row.get(0)?, last_seq: row.get(1)?, bytes: row.get(2)?, lines })
        });
        let mut row = newest.optional().context(STEP)?.filter(|row| row.lines.len() < LOG_ROW_BYTES);
        for line in lines {
            let open = row.get_or_insert_with(|| LogRow::from(line.seq as i64));
            open.push(line);
            if open.lines.len() >= LOG_ROW_BYTES {
                self.log_row(id, row.take())?;
            }
        }
        self.log_row(id, row)?;
        self.trim(id).context(STEP)
    }

    fn log_row(&mut self, id: &[u8], row: Option<LogRow>) -> Result<(), StoreError> {
        if let Some(row) = row {
            self.log_row.execute(params![id, row.first_seq, row.last_seq, row.bytes, row.lines]).context(STEP)?;
        }
        Ok(())
    }

    /// Drops rows that are wholly beyond the bounds, and so keeps a little more than the newest lines that are promised;
    /// readers cut that off.
    fn trim(&mut self, id: &[u8]) -> rusqlite::Result<()> {
        let (mut newest, mut bytes) = (None, 0);
        let mut rows = self.log_rows.query([id])?;
        let mut beyond = None;
        while let Some(row) = rows.next()? {
            let (last_seq, row_bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            let newest = *newest.get_or_insert(last_seq);
            if newest - last_seq >= LOG_LINES_MAX as i64 || bytes >= LOG_BYTES_MAX as i64 {
                beyond = Some(last_seq);
                break;
            }
            bytes += row_bytes;
        }
        drop(rows);
        if let Some(last_seq) = beyond {
            self.trim_logs.execute(params![id, last_seq])?;
        }
        Ok(())
    }

    /// Writes down what is set, or that nothing is.
    pub fn setting(&mut self, (kind, name): &SettingId, setting: &StagedSetting) -> Result<(), StoreError> {
        let (kind, name) = (*kind as u8, name.as_str());
        match &setting.record {
            Some(record) => self.setting.execute(params![kind, name, setting.rev as i64, &record[..]]),
            None => self.delete_setting.execute(params![kind, name]),
        }
        .context(STEP)?;
        Ok(())
    }

    /// Writes down what was handed out under a rate.
    pub fn hand_outs(&mut self, HandOuts { rev, at, queue, by, name, count }: &HandOuts) -> Result<(), StoreError> {
        let name = name.as_ref().map(|name| name.as_str());
        self.hand_outs.execute(params![*rev as i64, at, queue.as_str(), *by as u8, name, count]).context(STEP)?;
        Ok(())
    }

    /// Writes down how a delivery stands.
    pub fn delivery(&mut self, id: &DeliveryId, staged: &StagedDelivery) -> Result<(), StoreError> {
        let id = id.as_bytes().as_slice();
        let Some(state) = &staged.state else {
            self.delivered.execute([id]).context(STEP)?;
            return Ok(());
        };
        let (status, state) = (state.status as u8, serde_json::to_vec(state).expect("a state is plain values"));
        match &staged.owed {
            None => self.delivery.execute(params![id, status, state]),
            Some(owed) => {
                let OwedDelivery { delivery: Delivery { task_id, place, url, rev, at, event, .. }, record } = &**owed;
                let task_id = task_id.as_bytes().as_slice();
                let (rev, at, event, record) = (*rev as i64, at.as_millis(), *event as u8, &record[..]);
                self.owe.execute(params![id, task_id, place, url, rev, at, event, status, state, record])
            }
        }
        .context(STEP)?;
        Ok(())
    }

    /// Writes down a record about access, or that it is gone.
    pub fn access(&mut self, key: &AccessKey, record: &Option<AccessRecord>) -> Result<(), StoreError> {
        const PLAIN: &str = "these are plain values";
        let key = serde_json::to_string(key).expect(PLAIN);
        match record {
            Some(record) => self.access.execute(params![key, serde_json::to_vec(record).expect(PLAIN)]),
            None => self.delete_access.execute([key]),
        }
        .context(STEP)?;
        Ok(())
    }

    /// Writes down what somebody did.
    pub fn audit(&mut self, AuditEntry { seq, at, row }: &AuditEntry) -> Result<(), StoreError> {
        let (seq, at, who) = (*seq as i64, at.as_millis(), row.who.as_ref().map(|who| who.as_str()));
        let (role, address) = (row.role.word(), row.address.map(|address| address.to_string()));
        let values = params![seq, at, who, role, row.token, address, row.action, row.target, row.outcome];
        self.audit.execute(values).context(STEP)?;
        Ok(())
    }

    /// Writes down what an idempotency key stands for.
    pub fn key(&mut self, entry: &KeyEntry) -> Result<(), StoreError> {
        self.ids.clear();
        entry.tasks.iter().for_each(|task_id| self.ids.extend_from_slice(task_id.as_bytes()));
        let (key, body) = (entry.key.to_be_bytes(), entry.body.to_be_bytes());
        let existing: Vec<u8> = entry.existing.iter().flat_map(|place| place.to_le_bytes()).collect();
        let existing = (!existing.is_empty()).then_some(existing);
        self.key.execute(params![key, body, entry.expires_at.as_millis(), self.ids, existing]).context(STEP)?;
        Ok(())
    }
}

struct LogRow {
    first_seq: i64,
    last_seq: i64,
    /// Of the messages.
    bytes: i64,
    lines: Vec<u8>,
}

impl LogRow {
    fn from(first_seq: i64) -> LogRow {
        LogRow { first_seq, last_seq: first_seq, bytes: 0, lines: Vec::new() }
    }

    fn push(&mut self, line: &LogLine) {
        self.last_seq = line.seq as i64;
        self.bytes += line.message.len() as i64;
        self.lines.push(b'\n');
        serde_json::to_writer(&mut self.lines, line).expect("a log line is JSON, and a Vec takes every write");
    }
}
