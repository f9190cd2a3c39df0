//! The tables, and how a file of an older hub becomes one of this hub.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, ffi};

use super::failure::ErrorContext as _;
use super::{pages, vacuum};
use crate::store::StoreError;

/// One step a version, first to last. A released step never changes; what is to be different is a new step.
/// `PRAGMA user_version` says how many of them a file has seen.
const MIGRATIONS: &[&str] =
    &[FIRST, OPENINGS, SETTINGS, WORKFLOWS, HAND_OUTS, RETENTION, EXISTING, CALLBACKS, ACCESS, OF_USERS];

/// * `log`: commits that are not settled, see [`super::body`].
/// * `tasks`: the view, a row a task. The columns before `progress` are in the record too; they are what filters, order
///   and indexes need. `history` is the task's transitions as JSON, each after a newline. Ids grow, so new rows go to the
///   end of the tree.
/// * `labels`: the labels of tasks, to find tasks by.
/// * `parts`: what is too large for the record or not for everybody: see [`super::view::Part`].
/// * `logs`: log lines as JSON, each after a newline, some KiB a row.
/// * `keys`: idempotency keys. `tasks` is the ids, one after the other.
/// * `tombstones`: deletions, for those who ask what changed.
/// * `state`: one row. `known_from` is the lowest `rev` from which all that changed is still known.
/// * `probe`: always empty.
const FIRST: &str = "
CREATE TABLE log (row INTEGER PRIMARY KEY, body BLOB NOT NULL);

CREATE TABLE tasks (
    task_id BLOB PRIMARY KEY,
    rev INTEGER NOT NULL,
    status INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    task_type TEXT NOT NULL,
    queue TEXT NOT NULL,
    user_id TEXT,
    title TEXT,
    progress BLOB,
    record BLOB NOT NULL,
    history BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX tasks_rev ON tasks (rev);
CREATE INDEX tasks_status ON tasks (status, task_id);
CREATE INDEX tasks_user ON tasks (user_id, task_id) WHERE user_id IS NOT NULL;
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE labels (key TEXT, value TEXT, task_id BLOB, PRIMARY KEY (key, value, task_id)) WITHOUT ROWID;

CREATE TABLE parts (task_id BLOB, part INTEGER, json BLOB NOT NULL, PRIMARY KEY (task_id, part)) WITHOUT ROWID;

CREATE TABLE logs (
    task_id BLOB,
    first_seq INTEGER,
    last_seq INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    lines BLOB NOT NULL,
    PRIMARY KEY (task_id, first_seq)
) WITHOUT ROWID;

CREATE TABLE keys (
    key BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    tasks BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_expiry ON keys (expires_at);

CREATE TABLE tombstones (
    rev INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    task_id BLOB NOT NULL,
    record BLOB NOT NULL
);

CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    rev INTEGER NOT NULL,
    last_id BLOB,
    known_from INTEGER NOT NULL
);

CREATE TABLE probe (filler BLOB NOT NULL);
";

/// * `openings`: each time the store was opened, see [`Openings`](crate::store::Openings). The history as it was before has
///   the name that it had.
/// * `state.row`: the last row of the log that there was when the view was last brought up to date.
const OPENINGS: &str = "
CREATE TABLE openings (number INTEGER PRIMARY KEY, epoch TEXT NOT NULL, began INTEGER NOT NULL);
INSERT INTO openings SELECT 1, epoch, 0 FROM state;
ALTER TABLE state ADD COLUMN row INTEGER NOT NULL DEFAULT 0;
";

/// * `settings`: the newest record of each setting as JSON. `kind` is a [`SettingKind`](crate::settings::SettingKind).
const SETTINGS: &str = "
CREATE TABLE settings (
    kind INTEGER,
    name TEXT,
    rev INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
";

/// * `tasks.workflow_id`: the workflow that a task is part of. `finished_at` is empty then: it is kept for as long as that is.
const WORKFLOWS: &str = "
ALTER TABLE tasks ADD COLUMN workflow_id BLOB;
CREATE INDEX tasks_workflow ON tasks (workflow_id, task_id) WHERE workflow_id IS NOT NULL;
";

/// * `hand_outs`: what was handed out under rates, a row for what one commit handed out that is counted together. `at` is
///   on the count of the machine, `counted_by` a [`RateBy`](crate::settings::RateBy).
/// * `machine`: one row. Which start of a machine that count is of, and how far it is known to have come.
const HAND_OUTS: &str = "
CREATE TABLE hand_outs (
    rev INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    queue TEXT NOT NULL,
    counted_by INTEGER NOT NULL,
    name TEXT,
    count INTEGER NOT NULL
);
CREATE TABLE machine (one INTEGER PRIMARY KEY CHECK (one = 1), boot BLOB NOT NULL, mono INTEGER NOT NULL);
";

/// * `tasks.bytes`: how many bytes the record, the payload and the result of a task are, also where that is in a file; 0 of one that an earlier hub settled, which
///   then only goes with those that are newer.
const RETENTION: &str = "
ALTER TABLE tasks ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
DROP INDEX tasks_finished;
CREATE INDEX tasks_finished ON tasks (queue, finished_at, task_id, bytes) WHERE finished_at IS NOT NULL;
";

/// * `keys.existing`: which of the tasks were there already when they were submitted: their places, as four bytes each, the
///   lowest first.
const EXISTING: &str = "
ALTER TABLE keys ADD COLUMN existing BLOB;
";

/// * `callbacks`: deliveries that are owed or were given up. `place` is that of the callback among its task's, `event` and `status`
///   are an [`Event`](crate::task::Event) and a [`DeliveryStatus`](crate::task::DeliveryStatus), `record` is the one that
///   the transition made, and `state` a [`DeliveryState`](crate::task::DeliveryState) as JSON. They stay when their task
///   goes. Ids grow, but for those of one millisecond.
const CALLBACKS: &str = "
CREATE TABLE callbacks (
    callback_id BLOB PRIMARY KEY,
    task_id BLOB NOT NULL,
    place INTEGER NOT NULL,
    url TEXT NOT NULL,
    rev INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event INTEGER NOT NULL,
    status INTEGER NOT NULL,
    state BLOB NOT NULL,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX callbacks_status ON callbacks (status, callback_id);
CREATE INDEX callbacks_task ON callbacks (task_id, callback_id);
";

/// * `access`: what is kept about access: `key` is an [`AccessKey`](crate::access::AccessKey) as JSON, `record` an
///   [`AccessRecord`](crate::access::AccessRecord).
/// * `audit`: the columns are those of an [`AuditEntry`](crate::access::AuditEntry). Numbers have no holes, and times do not go back in
///   their order, so what is of a time is found by the numbers.
/// * `state.audit_seq`: the last number that was given, also where its entry is forgotten.
const ACCESS: &str = "
CREATE TABLE access (key TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT,
    role TEXT NOT NULL,
    token TEXT NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    target TEXT,
    outcome TEXT NOT NULL
);
CREATE INDEX audit_target ON audit (target, seq) WHERE target IS NOT NULL;
ALTER TABLE state ADD COLUMN audit_seq INTEGER NOT NULL DEFAULT 0;
";

/// `tasks_user` has the status too: so what a user has of each is counted when a hub starts, without a look at the rows.
const OF_USERS: &str = "
DROP INDEX tasks_user;
CREATE INDEX tasks_user ON tasks (user_id, task_id, status) WHERE user_id IS NOT NULL;
";

/// The first version with the tables of [`ACCESS`].
pub(super) const WITH_ACCESS: usize = 9;

/// The version this hub writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The first version whose hubs leave a witness.
const WITNESSED: i64 = 2;

/// Refuses a file that no hub with a witness has written, where there is one, which knows `rev`.
pub(super) fn check(conn: &Connection, rev: u64) -> Result<(), StoreError> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).context("read the schema version")?;
    if found >= WITNESSED {
        return Ok(());
    }
    Err(StoreError {
        step: "check the schema version",
        cause: format!(
            "the database is older than the one that was last open in this folder, or was never whole; rev {rev} was \
             acknowledged here: {}",
            super::opening::WHAT_TO_DO
        ),
        lasting: true,
    })
}

/// How many steps the file has seen. A file of a newer hub is refused untouched.
pub(super) fn known_version(conn: &Connection) -> Result<usize, StoreError> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).context("read the schema version")?;
    usize::try_from(found).ok().filter(|_| found <= VERSION).ok_or_else(|| refused(found))
}

/// Brings the file to [`VERSION`], one transaction a step. A file of a newer hub is refused untouched.
pub(super) fn migrate(conn: &mut Connection, new_epoch: &str) -> Result<(), StoreError> {
    let from = known_version(conn)?;
    for (at, step) in MIGRATIONS.iter().enumerate().skip(from) {
        let tx = conn.transaction().context("migrate the schema")?;
        tx.execute_batch(step).context("migrate the schema")?;
        if at == 0 {
            tx.execute("INSERT INTO state VALUES (1, ?1, 0, NULL, 0)", [new_epoch]).context("migrate the schema")?;
        }
        tx.pragma_update(None, "user_version", at as i64 + 1).context("migrate the schema")?;
        tx.commit().context("migrate the schema")?;
    }
    Ok(())
}

/// Where the header of a database has its `user_version`.
pub(super) const VERSION_AT: usize = 60;

/// Gives the pages of a file that an older hub made room for checksums, and fills them in: SQLite writes the file anew for
/// that, which takes a while where it is large, and as much room again. Where it cannot, the file is used as it is, and it is
/// tried again the next time. The same where the checksums are not as a hub left them (`is_ours`): they are made up anew if
/// the tables are sound. A file that has them is left alone.
pub(super) fn have_checksums(path: &Path, is_ours: bool) -> Result<(), StoreError> {
    const STEP: &str = "give the pages checksums";
    let mut header = [0; 100];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header));
    if read.is_err() {
        return Ok(());
    }
    let Some(has_room) = pages::has_room(&header) else { return Ok(()) };
    let version = u32::from_be_bytes(header[VERSION_AT..VERSION_AT + 4].try_into().expect("four bytes"));
    if i64::from(version) > VERSION || has_room && version > 1 && is_ours {
        return Ok(());
    }
    let begun = std::time::Instant::now();
    let rewrite = || -> rusqlite::Result<()> {
        // Not through the layer that checks them.
        let conn = Connection::open(path)?;
        // Of a file that turns out to be damaged nothing is carried over.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let sound: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            let code = ffi::Error::new(ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(sound)));
        }
        let mode: String = conn.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
        if mode != "delete" {
            return Err(rusqlite::Error::InvalidParameterName(format!("the journal mode stays {mode}")));
        }
        if !has_room {
            pages::make_room(&conn)?;
            vacuum::prepare(&conn)?;
            conn.execute_batch("VACUUM")?;
        }
        Ok(())
    };
    match rewrite() {
        Ok(()) => {
            pages::seal_all(path).context(STEP)?;
            let took_ms = begun.elapsed().as_millis() as u64;
            tracing::info!(took_ms, "the pages of the database were given checksums");
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => return Err(error).context(STEP),
        // What is wrong with the file itself is said when it is opened.
        Err(error) => {
            tracing::warn!(%error, "the pages of the database have no checksums: it could not be written anew")
        }
    }
    Ok(())
}

fn refused(found: i64) -> StoreError {
    StoreError {
        step: "check the schema version",
        cause: format!("the file has version {found}, this hub knows up to {VERSION}: run the newer hub that wrote it"),
        lasting: true,
    }
}
