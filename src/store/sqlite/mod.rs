//! The store on SQLite: one file, `taskhub.db`, in a folder of its own.
//!
//! **Append.** A commit is encoded into one row of the table `log` ([`body`]) and inserted; with the write-ahead log and
//! `synchronous=FULL` that is one write to the end of a file and one fsync. Then it goes into the [`staging`], from where
//! readers see it.
//!
//! **Settle.** The tasks that have waited longest are written to the [`view`], their log rows deleted, in one
//! transaction. It waits for the disk too. It could do without, since a crash that took it back would bring the log rows
//! back as well; but were a later fsync to fail, the machine could drop the pages of the settling unwritten, and an append
//! that is acknowledged after that would stand behind a hole in the write-ahead log.
//!
//! **Open.** Whatever the log holds is staged again and settled. A row may hold changes that were settled already,
//! because another task's of the same row were not; those are known by their `rev`.
//!
//! **What was acknowledged stays, or it is said.** A [`witness`] beside the database knows how far the history went, each page
//! has a checksum ([`pages`]), and the names of the files are looked at again and again ([`names`]). What is found wrong when a
//! store is opened, or later, ends its writing: see [`opening`].
//!
//! **When the disk fails.** SQLite takes a failed transaction back, nothing was staged, and the next append writes over
//! its remains. One thing cannot be had: where the *fsync* failed and the machine stops before the next append, that
//! commit may be found after all. It was refused, not acknowledged, so this breaks no promise; it is a submission whose
//! answer got lost.
//!
//! The pages of the write-ahead log are carried over to the database (a checkpoint) at the beginning of a settling, not
//! within an append.

mod access;
mod audit;
mod body;
mod care;
mod checkpoint;
mod columns;
#[cfg(test)]
mod damage_tests;
mod deliveries;
mod failure;
mod fresh;
mod hand_outs;
mod items;
mod keeper;
mod links;
mod names;
mod opening;
mod pages;
mod pool;
mod query;
mod reader;
mod recovery;
mod retention;
mod schema;
mod staging;
mod sweep;
#[cfg(test)]
mod tests;
mod vacuum;
mod view;
mod wal;
mod witness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use uuid::Uuid;

pub use self::care::{Findings, accept, backup, check, restore};

use self::body::{ChangeItem, Encoder, Item, SettingItem};
use self::checkpoint::{CHECKPOINT_PAGES, CHECKPOINT_PAGES_MAX};
use self::columns::{id_of, integer, json_of, key_of};
use self::failure::{ErrorContext as _, damaged};
use self::keeper::{Damage, Keeper};
use self::links::attach;
use self::names::{FolderLock, keep_private, lock, sync_folder};
use self::opening::Ground;
use self::pool::{Location, Pool};
use self::reader::Shared;
use self::staging::{NewRecord, Staged, StagedRecord, StagedSetting, Staging};
use self::view::View;
use super::{
    Aside, Commit, Count, Digest, Entry, KeyEntry, Opening, Openings, OwedDelivery, Reader, Recovered, ResultFiles,
    SettingEntry, Store, StoreError,
};
use crate::settings::HandOuts;
use crate::task::{ChangeKind, Delivery, Links, Task, TaskId, Timestamp, Transition, read_strictly};

/// The name of the database in its folder.
const FILE_NAME: &str = "taskhub.db";
/// Locked for as long as a hub writes there.
const LOCK_NAME: &str = "taskhub.lock";

/// Rows of the view fit into a page without overflow up to a quarter of it, and a row with a short history is 1–2 KiB.
const PAGE_BYTES: usize = 8 << 10;

/// After a burst the write-ahead log is cut back to this.
const WAL_BYTES_KEPT: usize = 64 << 20;

/// Tasks settled in one transaction while a store is opened.
const REPLAY_TASKS: usize = 5_000;

/// What the probe writes: a group of a hundred commits is about as large.
const PROBE_BYTES: usize = 64 << 10;

/// How a store uses the machine.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Connections for reading, so also the most queries at once; more wait. Default 4.
    pub readers_max: usize,
    /// Page cache of the writer; each reader has half of it. Default 2 MiB: what is read again is mostly the end of the
    /// trees and of the log, and the kernel has the rest. Four times as much made settling no faster.
    pub cache_bytes: usize,
}

impl Default for SqliteOptions {
    fn default() -> SqliteOptions {
        SqliteOptions { readers_max: 4, cache_bytes: 2 << 20 }
    }
}

/// The writer's half.
pub struct SqliteStore {
    conn: Connection,
    shared: Arc<Shared>,
    encoder: Encoder,
    openings: Openings,
    /// Of a store in a folder that is sound.
    keeper: Option<Keeper>,
    results: Option<ResultFiles>,
    /// The number of the next row of the log.
    next_row: i64,
    /// The last `rev` and the youngest id that are on disk.
    rev: u64,
    last_id: Option<TaskId>,
    /// The last number that was given in the audit.
    audit_seq: u64,
    /// Pages in the write-ahead log, as of the last commit.
    wal_pages: Arc<AtomicUsize>,
    /// Pages were cut off that are still in the file.
    cut: bool,
    /// Dropped last.
    _lock: Option<FolderLock>,
}

impl SqliteStore {
    /// Whether there is a store in this folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE_NAME).exists()
    }

    /// Opens the store in `folder`, or makes it there, and settles what its log holds. Fails where another hub has it
    /// open, or a newer hub has written it, or nothing in it can be read. Where some of it is missing or damaged, it opens and
    /// takes no writes; [`Recovered::damage`] says why.
    pub fn open(folder: &Path, options: SqliteOptions) -> Result<SqliteStore, StoreError> {
        std::fs::create_dir_all(folder).context("create the data folder")?;
        let lock = lock(folder)?;
        let ground = Ground::look(folder)?;
        let path = folder.join(FILE_NAME);
        if ground.lost.is_none() {
            schema::have_checksums(&path, ground.is_ours)?;
        }
        let location = Location::File(path.clone());
        let mut store = SqliteStore::start(location.clone(), options, Some(lock), Some(&ground))?;
        keep_private(&path)?;
        store.results = Some(ResultFiles::within(folder));
        let (row, last) = (store.next_row as u64 - 1, store.openings.clone());
        if let Some(lost) = ground.check_end(&last, store.rev, row) {
            store.shared.damage.found(opening::sentence(&lost));
        }
        opening::scan(&location, &store.conn, &store.shared.damage)?;
        if store.shared.damage.get().is_some() {
            store.leave_alone()?;
            return Ok(store);
        }
        let keeper = Keeper::begin(folder, &store.conn, ground.head(&last, store.rev, row))?;
        store.shared.pool.know(keeper.names.clone());
        store.keeper = Some(keeper);
        store.begin()?;
        if ground.found.head().is_none() {
            // The tables themselves stand in the database from here on, and not only in a log that may get lost.
            store.carry_over("PRAGMA wal_checkpoint(PASSIVE)")?;
        }
        sync_folder(folder)?;
        Ok(store)
    }

    /// A new store in memory.
    pub(super) fn in_memory(options: SqliteOptions) -> Result<SqliteStore, StoreError> {
        let mut store = SqliteStore::start(Location::new_memory(), options, None, None)?;
        store.begin()?;
        Ok(store)
    }

    /// Opens the database and stages what its log holds. Writes nothing but a new database, or the tables of a newer hub.
    fn start(
        location: Location,
        options: SqliteOptions,
        lock: Option<FolderLock>,
        ground: Option<&Ground>,
    ) -> Result<SqliteStore, StoreError> {
        const STEP: &str = "open the database";
        let mut conn = location.writer().context(STEP)?;
        // Else SQLite would checkpoint, or delete, a log that an operator may want to look at.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).context(STEP)?;
        conn.pragma_update(None, "page_size", PAGE_BYTES as i64).context(STEP)?;
        if matches!(location, Location::File(_)) {
            pages::make_room(&conn).context(STEP)?;
        }
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).context(STEP)?;
        if pages == 0 {
            // Only now, since it writes the header of the file, and only here, since it writes to files that have one, too.
            vacuum::prepare(&conn).context(STEP)?;
        }
        conn.pragma_update(None, "cache_size", -((options.cache_bytes >> 10) as i64)).context(STEP)?;
        conn.pragma_update(None, "synchronous", "full").context(STEP)?;
        conn.pragma_update(None, "temp_store", "memory").context(STEP)?;
        conn.pragma_update(None, "cell_size_check", true).context(STEP)?;
        if matches!(location, Location::File(_)) {
            let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).context(STEP)?;
            if mode != "wal" {
                return Err(StoreError { step: STEP, cause: format!("the journal mode stays {mode}"), lasting: true });
            }
            let kept = format!("PRAGMA journal_size_limit = {WAL_BYTES_KEPT}");
            conn.query_row(&kept, [], |_| Ok(())).context(STEP)?;
        }
        schema::known_version(&conn)?;
        let lost = ground.and_then(|ground| ground.lost.as_deref());
        if let Some(head) = ground.and_then(|ground| ground.found.head()) {
            schema::check(&conn, head.rev)?;
        }
        if lost.is_none() {
            schema::migrate(&mut conn, &Uuid::now_v7().simple().to_string())?;
        }

        let wal_pages = Arc::new(AtomicUsize::new(0));
        let seen = wal_pages.clone();
        // Takes the place of the automatic checkpoint.
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .context(STEP)?;

        // Of a database that is left as it is, an older hub may have written the last.
        let audit_seq = audit::last_seq(&conn)?;
        let (rev, last_id, row) = conn
            .query_row("SELECT rev, last_id, row FROM state", [], |row| {
                let rev: i64 = row.get(0)?;
                let last_id = row.get_ref(1)?.as_blob_or_null()?.map(|_| id_of(row, 1)).transpose()?;
                Ok((rev as u64, last_id, row.get::<_, i64>(2)?))
            })
            .context("read the state")?;
        let openings = opening::read(&conn)?;
        let pool = Pool::new(location, options.readers_max, options.cache_bytes >> 11);
        let mut store = SqliteStore {
            conn,
            shared: Arc::new(Shared { staging: RwLock::default(), pool, damage: Damage::default() }),
            encoder: Encoder::default(),
            openings,
            keeper: None,
            results: None,
            next_row: 1,
            rev,
            last_id,
            audit_seq,
            wal_pages,
            cut: false,
            _lock: lock,
        };
        if let Some(lost) = lost {
            store.shared.damage.found(opening::sentence(lost));
        }
        match store.stage_log(row) {
            Ok(()) => Ok(store),
            Err(error) if error.lasting => {
                store
                    .shared
                    .damage
                    .found(opening::sentence(&format!("the log of commits cannot be read: {}", error.cause)));
                Ok(store)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes an opening of its own, and settles what was staged.
    fn begin(&mut self) -> Result<(), StoreError> {
        let base: String =
            self.conn.query_row("SELECT epoch FROM state", [], |row| row.get(0)).context("read the state")?;
        self.openings = opening::write(&self.conn, &base, self.rev)?;
        self.witness();
        self.settle_all()
    }

    /// Keeps the files as they are: they are read, and not written.
    fn leave_alone(&mut self) -> Result<(), StoreError> {
        self.conn.pragma_update(None, "query_only", true).context("open the database")?;
        // What clients hear of a history that is not whole is part of no other.
        let name = opening::new_name("damaged");
        self.openings = self.openings.clone().with(Opening { epoch: name, began: self.rev });
        Ok(())
    }

    /// Tells the witness of a commit.
    fn witness(&mut self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if let Some(keeper) = &mut self.keeper {
            keeper.committed(self.openings.epoch(), self.rev, self.next_row as u64 - 1, pages);
        }
    }

    /// Whether it may be written to.
    fn writable(&mut self) -> Result<(), StoreError> {
        self.shared.damage.check()?;
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.look(&self.conn).inspect_err(|error| self.shared.report(error))
    }

    /// Stages what the log holds. `known`: the last row when the view was last brought up to date.
    fn stage_log(&mut self, known: i64) -> Result<(), StoreError> {
        const STEP: &str = "read the log";
        let mut before = None;
        while let Some((row, body)) = self.row_from(self.next_row)? {
            let missing = before.map_or(row > known + 1, |before| row != before + 1);
            if missing {
                return Err(damaged(STEP, format!("rows before row {row} are missing")));
            }
            let bytes = body.len();
            let items = body::decode(body).map_err(|damage| damaged(STEP, format!("row {row}: {damage}")))?;
            let shared = self.shared.clone();
            let mut staging = shared.staging.write();
            for item in items {
                self.replay_item(&mut staging, row, item)?;
            }
            staging.row(row, bytes);
            self.next_row = row + 1;
            before = Some(row);
        }
        if before.is_some_and(|last| last < known) {
            return Err(damaged(STEP, format!("it ends before row {known}")));
        }
        self.next_row = self.next_row.max(known + 1);
        Ok(())
    }

    fn settle_all(&mut self) -> Result<(), StoreError> {
        while !self.shared.staging.read().is_empty() {
            self.settle(REPLAY_TASKS)?;
        }
        Ok(())
    }

    fn row_from(&self, row: i64) -> Result<Option<(i64, Bytes)>, StoreError> {
        self.conn
            .prepare_cached("SELECT row, body FROM log WHERE row >= ?1 ORDER BY row LIMIT 1")
            .and_then(|mut statement| {
                statement.query_row([row], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?.into()))).optional()
            })
            .context("read the log")
    }

    fn replay_item(&mut self, staging: &mut Staging, row: i64, item: Item) -> Result<(), StoreError> {
        match item {
            Item::Key(entry) => staging.key(row, entry),
            Item::HandOuts(hand_outs) => staging.hand_outs(row, hand_outs),
            Item::Setting(SettingItem { id, rev, record }) => {
                self.rev = self.rev.max(rev);
                staging.setting(row, id, StagedSetting { rev, record });
            }
            Item::Aside(Aside::Logs { task_id, lines }) => {
                let known = reader::log_end(&self.conn, task_id)?;
                let new = lines.iter().filter(|line| line.seq > known).cloned().collect();
                staging.aside(row, &Aside::Logs { task_id, lines: new });
            }
            Item::Aside(aside) => staging.aside(row, &aside),
            Item::Delivery(step) => staging.delivery(row, step),
            Item::Access(change) => staging.access(row, change),
            Item::Audit(entry) => {
                self.audit_seq = self.audit_seq.max(entry.seq);
                staging.audit(row, entry);
            }
            Item::Change(change) => {
                self.remember(change.rev, change.task_id);
                let ChangeItem { task_id, rev, at, gone, record, line, payload, is_item, result, links } = change;
                let mut task = Task::parse(&record).map_err(|error| damaged("read the log", error))?;
                // Also where the task was settled: what it is owed waits for the rest of the row.
                if !gone && task.callbacks().is_some() {
                    let line: Transition = read_strictly(&line).map_err(|error| damaged("read the log", error))?;
                    Delivery::of(&task, line.event, at).for_each(|delivery| {
                        staging.owe(row, OwedDelivery { delivery, record: record.clone() });
                    });
                }
                let in_view = match staging.get(task_id).and_then(|staged| staged.record.as_ref()) {
                    Some(record) => record.in_view,
                    None => match self.view_rev(task_id)? {
                        // Settled before; so was what came with it.
                        Some(settled) if settled >= rev => return Ok(()),
                        settled => settled.is_some(),
                    },
                };
                let staged = staging.get(task_id).and_then(|staged| staged.links.as_ref());
                attach(&mut task, links.as_ref().or(staged)).map_err(|error| damaged("read the log", error))?;
                let item = task.gathered().filter(|_| is_item).map(|gathered| gathered.saturating_sub(1));
                staging.change(
                    row,
                    NewRecord {
                        record: StagedRecord { task: Arc::new(task), bytes: record, rev, at, in_view, gone },
                        line: &line,
                        payload: payload.as_ref(),
                        item,
                        result: result.as_ref(),
                        links,
                    },
                );
            }
        }
        Ok(())
    }

    fn view_rev(&self, task_id: TaskId) -> Result<Option<u64>, StoreError> {
        let rev: Option<i64> = self
            .conn
            .prepare_cached("SELECT rev FROM tasks WHERE task_id = ?1")
            .and_then(|mut statement| statement.query_row([task_id.as_bytes().as_slice()], |row| row.get(0)).optional())
            .context("read a task")?;
        Ok(rev.map(|rev| rev as u64))
    }

    fn remember(&mut self, rev: u64, task_id: TaskId) {
        self.rev = self.rev.max(rev);
        self.last_id = self.last_id.max(Some(task_id));
    }
}

impl Store for SqliteStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        if self.shared.damage.get().is_none() {
            match self.recover_whole() {
                Err(error) if error.lasting => self.shared.damage.found(opening::sentence(&error.to_string())),
                recovered => return recovered,
            }
        }
        Ok(self.what_is_left(self.shared.damage.get().unwrap_or_default()))
    }

    fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        const STEP: &str = "append a commit";
        if commit.is_empty() {
            return Ok(());
        }
        self.writable()?;
        if let Some((rev, expected)) = commit.hole(self.rev + 1) {
            let cause = format!("rev {rev} came where {expected} follows");
            return Err(StoreError { step: STEP, cause, lasting: true });
        }
        let audit = commit.audit.iter().zip(self.audit_seq + 1..);
        if let Some((entry, expected)) = audit.into_iter().find(|(entry, expected)| entry.seq != *expected) {
            let cause = format!("entry {} of the audit came where {expected} follows", entry.seq);
            return Err(StoreError { step: STEP, cause, lasting: true });
        }
        self.encoder.encode(commit);

        let rows = self.encoder.rows();
        let count = rows.len() as i64;
        if count == 1 {
            // A statement outside of a transaction is its own, and taken back whole when its commit fails.
            insert_rows(&self.conn, self.next_row, rows).context(STEP)?;
        } else {
            let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
            insert_rows(&tx, self.next_row, rows).context(STEP)?;
            tx.commit().context(STEP)?;
        }

        // On disk. Nothing below can fail.
        let first_row = self.next_row;
        let mut staging = self.shared.staging.write();
        for (row, bytes) in (first_row..).zip(self.encoder.sizes()) {
            staging.row(row, bytes);
        }
        for (Entry { change, record }, line) in commit.changes.iter().zip(self.encoder.lines()) {
            let record = StagedRecord {
                task: change.task.clone(),
                bytes: record.clone(),
                rev: change.rev,
                at: change.at,
                in_view: change.prev.is_some(),
                gone: change.kind == ChangeKind::Gone,
            };
            let (payload, result) = (change.payload.as_ref(), change.result.as_ref());
            let (links, item) = (change.links().map(Links::to_json), change.item());
            staging.change(first_row, NewRecord { record, line, payload, item, result, links });
        }
        for (delivery, record) in commit.owed() {
            staging.owe(first_row, OwedDelivery { delivery, record: record.clone() });
        }
        for SettingEntry { change, record } in &commit.settings {
            let record = change.next.is_some().then(|| record.clone());
            staging.setting(first_row, change.id.clone(), StagedSetting { rev: change.rev, record });
            self.rev = self.rev.max(change.rev);
        }
        for key in &commit.keys {
            staging.key(first_row, key.clone());
        }
        for hand_outs in &commit.hand_outs {
            staging.hand_outs(first_row, hand_outs.clone());
        }
        for aside in &commit.asides {
            staging.aside(first_row, aside);
        }
        for step in &commit.deliveries {
            staging.delivery(first_row, step.clone());
        }
        for change in &commit.access {
            staging.access(first_row, change.clone());
        }
        for entry in &commit.audit {
            staging.audit(first_row, entry.clone());
        }
        drop(staging);
        self.audit_seq += commit.audit.len() as u64;
        self.next_row += count;
        for entry in &commit.changes {
            self.remember(entry.change.rev, entry.change.task.task_id);
        }
        self.witness();
        // The commit stands, whatever becomes of the checkpoint: a disk that is broken will show at the next append.
        let _ = self.checkpoint(CHECKPOINT_PAGES_MAX);
        Ok(())
    }

    fn settle(&mut self, tasks_max: usize) -> Result<Vec<(TaskId, u64)>, StoreError> {
        const STEP: &str = "settle";
        self.writable()?;
        // First, so that its failure does not hide what was settled.
        self.checkpoint(CHECKPOINT_PAGES)?;
        if self.shared.staging.read().is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared.clone();
        // Only this thread changes the staging, so readers are let in meanwhile.
        let staging = shared.staging.read();
        let batch = staging.next_batch(tasks_max);
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
        let mut view = View::new(&tx)?;
        for staged in &batch.tasks {
            view.task(staged)?;
        }
        for (id, setting) in &batch.settings {
            view.setting(id, setting)?;
        }
        for entry in &batch.keys {
            view.key(entry)?;
        }
        for hand_outs in &batch.hand_outs {
            view.hand_outs(hand_outs)?;
        }
        for (id, delivery) in &batch.deliveries {
            view.delivery(id, delivery)?;
        }
        for (key, record) in &batch.access {
            view.access(key, record)?;
        }
        for entry in &batch.audit {
            view.audit(entry)?;
        }
        drop(view);
        tx.prepare_cached("DELETE FROM log WHERE row < ?1")
            .and_then(|mut statement| statement.execute([batch.rows_below]))
            .context(STEP)?;
        tx.prepare_cached("UPDATE state SET rev = ?1, last_id = ?2, row = ?3, audit_seq = ?4")
            .and_then(|mut statement| {
                let last_id = self.last_id.as_ref().map(|id| id.as_bytes().as_slice());
                statement.execute(params![self.rev as i64, last_id, self.next_row - 1, self.audit_seq as i64])
            })
            .context(STEP)?;
        tx.commit().context(STEP)?;

        let record = |staged: &&Staged| Some((staged.task_id, staged.record.as_ref()?.rev));
        let settled = batch.tasks.iter().filter_map(record).collect();
        let done = batch.done();
        drop(staging);
        shared.staging.write().settled(done);
        Ok(settled)
    }

    fn unsettled(&self) -> (usize, usize) {
        self.shared.staging.read().size()
    }

    fn task(&mut self, task_id: TaskId) -> Result<Option<Task>, StoreError> {
        const STEP: &str = "read a task";
        if let Some(record) = self.shared.staging.read().get(task_id).and_then(|staged| staged.record.as_ref()) {
            return Ok((!record.gone).then(|| Task::clone(&record.task)));
        }
        let found = self
            .conn
            .prepare_cached("SELECT record FROM tasks WHERE task_id = ?1")
            .and_then(|mut statement| {
                let parse = |row: &Row<'_>| Ok(Task::parse(row.get_ref(0)?.as_blob()?));
                statement.query_row([task_id.as_bytes().as_slice()], parse).optional()
            })
            .context(STEP)?;
        let wrong = |error| damaged(STEP, format!("task {task_id}: {error}"));
        let Some(mut task) = found.transpose().map_err(wrong)? else { return Ok(None) };
        self.attach_links(&mut task)?;
        Ok(Some(task))
    }

    fn log_end(&mut self, task_id: TaskId) -> Result<u64, StoreError> {
        match self.shared.staged_log_end(task_id) {
            Some(end) => Ok(end),
            None => reader::log_end(&self.conn, task_id),
        }
    }

    fn key(&mut self, key: Digest, now: Timestamp) -> Result<Option<KeyEntry>, StoreError> {
        let staged = self.shared.staging.read().get_key(key).cloned();
        let found = match staged {
            Some(entry) => Some(entry),
            None => self
                .conn
                .prepare_cached("SELECT body, expires_at, tasks, existing FROM keys WHERE key = ?1")
                .and_then(|mut statement| statement.query_row([key.to_be_bytes()], |row| key_of(key, row)).optional())
                .context("read an idempotency key")?,
        };
        Ok(found.filter(|entry| now <= entry.expires_at))
    }

    fn sweep(&mut self, now: Timestamp, tombstones_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.sweep_keys_and_tombstones(now, tombstones_before, rows_max)
    }

    fn hand_outs(&mut self, now: Count) -> Result<Vec<HandOuts>, StoreError> {
        self.known_hand_outs(now)
    }

    fn forget_hand_outs(&mut self, until: i64, mono: u64, rows_max: usize) -> Result<usize, StoreError> {
        self.sweep_hand_outs(until, mono, rows_max)
    }

    fn forget_deliveries(&mut self, tried_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.sweep_deliveries(tried_before, rows_max)
    }

    fn forget_audit(&mut self, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        self.sweep_audit(before, rows_max)
    }

    fn look(&mut self) -> Result<(), StoreError> {
        self.writable()
    }

    fn shrink(&mut self) -> Result<bool, StoreError> {
        self.writable()?;
        let vacuum::Cut { cut, more } = vacuum::cut_some(&self.conn)?;
        self.cut |= cut;
        // The end of the file goes with a checkpoint, which settling may not make for a while.
        if self.cut {
            self.cut = !self.checkpoint(if more { CHECKPOINT_PAGES } else { 1 })?;
        }
        Ok(more)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        const STEP: &str = "probe";
        self.writable()?;
        self.conn.execute("INSERT INTO probe VALUES (zeroblob(?1))", [PROBE_BYTES as i64]).context(STEP)?;
        self.conn.execute("DELETE FROM probe", []).context(STEP)?;
        Ok(())
    }

    fn results(&self) -> Option<ResultFiles> {
        self.results.clone()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.shared.reader()
    }
}

fn insert_rows<'r>(conn: &Connection, first: i64, rows: impl Iterator<Item = &'r [u8]>) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached("INSERT INTO log VALUES (?1, ?2)")?;
    for (row, body) in (first..).zip(rows) {
        insert.execute(params![row, body])?;
    }
    Ok(())
}
