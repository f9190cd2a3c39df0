//! Looking after a store from outside: checking it, copying it while a hub runs, putting a copy back, and going on with what
//! is left of a damaged one.
//!
//! A check and a copy only read, beside a running hub or without one. A copy is one file, written anew by SQLite from one
//! moment's state (`VACUUM INTO`), so it holds no free pages and no log; it is marked as ours, so that its checksums count,
//! and read to its end before it gets its name.
//!
//! Results in files go along: each copy has them in a folder of its name and `.results`, as links where that can be. They are taken
//! before the database is copied, and what ended since then after it, so that none is missed that is deleted meanwhile.
//!
//! What is put back is another history than the one it was copied from, from the first moment on: its openings are
//! forgotten and it has a new name, so every watching client begins anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use uuid::Uuid;

use super::access;
use super::audit;
use super::body;
use super::failure::{ErrorContext as _, damaged};
use super::names::{keep_private, lock};
use super::opening::{self, Ground};
use super::pages;
use super::pool::Location;
use super::schema;
use super::witness::{self, HEAD_NAME, Head, WalEnd, Witness};
use super::{FILE_NAME, LOCK_NAME, sync_folder};
use crate::access::{AccessRecord, AccessRecords};
use crate::store::StoreError;
use crate::store::results::{self, ResultName};
use crate::task::Status;

/// In the header of a copy that this hub has made ("THub"): its pages have their checksums.
const COPY: i32 = 0x5448_7562;

/// At most so many lines of SQLite's own check are told.
const COMPLAINTS_MAX: usize = 20;

/// What was found of a store.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The file that was looked at.
    pub file: PathBuf,
    /// A hub is running on it.
    pub in_use: bool,
    /// The newest opening.
    pub epoch: String,
    pub openings: usize,
    pub rev: u64,
    pub tasks: BTreeMap<Status, u64>,
    /// Results in files that its records name, and their bytes.
    pub results: usize,
    pub result_bytes: u64,
    /// The hub asks who calls.
    pub closed: bool,
    pub api_tokens: usize,
    /// Entries of the audit.
    pub audit: u64,
    pub pages: u64,
    /// The pages have checksums, and these were looked at.
    pub summed: bool,
    /// What is known to be missing, damaged, or doubtful; empty for a sound store.
    pub problems: Vec<String>,
    /// What was given up, where a loss was accepted.
    pub given_up: Vec<String>,
}

/// Reads a store, or a copy of one, to its end.
pub fn check(path: &Path) -> Result<Findings, StoreError> {
    let in_folder = path.is_dir();
    let file = if in_folder { path.join(FILE_NAME) } else { path.to_owned() };
    let mut findings = Findings { file: file.clone(), ..Findings::default() };
    let mut is_ours = true;
    let (mut witness, mut _lock) = (None, None);
    if in_folder {
        if path.join(LOCK_NAME).exists() {
            match lock(path) {
                Ok(lock) => _lock = Some(lock),
                Err(error) if error.is_in_use() => findings.in_use = true,
                Err(error) => return Err(error),
            }
        }
        // Before the database, which may go on meanwhile.
        witness = witness::read(path).context("read the witness")?.head().cloned();
        if !findings.in_use {
            let ground = Ground::look(path)?;
            is_ours = ground.is_ours;
            findings.problems.extend(ground.lost);
            if witness.is_none() && version(&file) != Some(1) {
                findings
                    .problems
                    .push(format!("{HEAD_NAME} is missing or damaged: whether the end is there cannot be told"));
            }
        }
    }
    if std::fs::metadata(&file).context("open the database")?.len() == 0 {
        return Err(damaged("open the database", format!("{} is empty", file.display())));
    }
    match look_through(&file, is_ours, in_folder, &mut findings) {
        Ok((row, named)) => {
            findings.problems.extend(witness.and_then(|head| ends_early(&head, &findings, row)));
            (findings.results, findings.result_bytes) = (named.len(), named.values().sum());
            let mut wrong = wrong_results(&results_of(&file, in_folder), &named);
            if findings.in_use && !wrong.is_empty() {
                // They may have gone with their tasks meanwhile.
                let now = named_results(&Location::File(file).reader().context("open the database")?)?;
                wrong.retain(|name, _| now.contains_key(name));
            }
            findings.problems.extend(wrong.into_values());
        }
        Err(error) => findings.problems.push(error.to_string()),
    }
    Ok(findings)
}

/// Where the results of a store are, or of a copy.
fn results_of(file: &Path, in_folder: bool) -> PathBuf {
    if in_folder { file.with_file_name(results::FOLDER) } else { beside(file, ".results") }
}

/// The names of files, and how long they are.
type NamedResults = BTreeMap<String, u64>;

/// The files with results that the records of a store name.
fn named_results(conn: &Connection) -> Result<NamedResults, StoreError> {
    const STEP: &str = "look for results";
    let mut named = BTreeMap::new();
    let mut note = |task: &crate::task::Task, gone: bool| match task.large_result().filter(|_| !gone) {
        Some(large) => _ = named.insert(task.task_id, (ResultName::of(task.task_id, large).to_string(), large.bytes)),
        None => _ = named.remove(&task.task_id),
    };
    let mut statement = conn
        .prepare("SELECT record FROM tasks WHERE instr(record, CAST('\"result_id\":\"' AS BLOB)) > 0")
        .context(STEP)?;
    let mut rows = statement.query([]).context(STEP)?;
    while let Some(row) = rows.next().context(STEP)? {
        let record = row.get_ref(0).context(STEP)?.as_blob().map_err(|error| damaged(STEP, error))?;
        note(&crate::task::Task::parse(record).map_err(|error| damaged(STEP, error))?, false);
    }
    let mut statement = conn.prepare("SELECT body FROM log ORDER BY row").context(STEP)?;
    let mut rows = statement.query([]).context(STEP)?;
    while let Some(row) = rows.next().context(STEP)? {
        let items = body::decode(row.get::<_, Vec<u8>>(0).context(STEP)?.into());
        for item in items.map_err(|damage| damaged(STEP, damage))? {
            if let body::Item::Change(change) = item {
                note(&crate::task::Task::parse(&change.record).map_err(|error| damaged(STEP, error))?, change.gone);
            }
        }
    }
    Ok(named.into_values().collect())
}

/// What is wrong with the files that should be there.
fn wrong_results(folder: &Path, named: &NamedResults) -> BTreeMap<String, String> {
    let wrong = |(name, bytes): (&String, &u64)| {
        let wrong = match std::fs::metadata(folder.join(name)) {
            Ok(file) if file.len() == *bytes => return None,
            Ok(file) => format!("has {} bytes and not {bytes}", file.len()),
            Err(error) => format!("cannot be found: {error}"),
        };
        Some((name.clone(), format!("the result {} {wrong}", folder.join(name).display())))
    };
    named.iter().filter_map(wrong).collect()
}

/// Has another folder have this file too: as a link, or on another disk as a copy. `None`: there is none any more.
fn take_result(from: &Path, to: &Path, name: &str) -> Result<Option<()>, StoreError> {
    const STEP: &str = "copy the results";
    std::fs::create_dir_all(to).context(STEP)?;
    let (from, to) = (from.join(name), to.join(name));
    let taken = match std::fs::hard_link(&from, &to) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => Err(error),
        Err(_) => std::fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all()),
        linked => linked,
    };
    match taken {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Some(())),
        taken => taken.map(Some).context(STEP),
    }
}

/// The same of all files that are whole.
fn take_results(from: &Path, to: &Path) -> Result<(), StoreError> {
    for name in results::names(from).context("copy the results")? {
        take_result(from, to, &name.to_string())?;
    }
    Ok(())
}

/// Has a copy have just the results that its records name.
fn keep_named(from: &Path, to: &Path, named: &NamedResults) -> Result<(), StoreError> {
    const STEP: &str = "copy the results";
    for name in named.keys() {
        take_result(from, to, name)?.ok_or_else(|| StoreError {
            step: STEP,
            cause: format!("{name} was deleted meanwhile: try again"),
            lasting: false,
        })?;
    }
    for (path, name) in results::files(to).context(STEP)? {
        if !named.contains_key(&name) {
            std::fs::remove_file(path).context(STEP)?;
        }
    }
    if to.exists() { results::sync_folder(to).context(STEP) } else { Ok(()) }
}

fn ends_early(head: &Head, findings: &Findings, row: u64) -> Option<String> {
    let (known, rev) = (head.rev, findings.rev);
    if known > rev {
        return Some(format!("the history ends at rev {rev}, and rev {known} was acknowledged"));
    }
    (head.row > row)
        .then(|| format!("the log of commits ends {} before the last that was acknowledged", head.row - row))
}

/// Answers the last row of the log of commits, and what results there should be.
fn look_through(
    file: &Path,
    is_ours: bool,
    in_folder: bool,
    findings: &mut Findings,
) -> Result<(u64, NamedResults), StoreError> {
    const STEP: &str = "check the database";
    let mark = application(file);
    let has_sums = is_ours && (in_folder || mark == Some(COPY));
    let conn =
        if has_sums { Location::File(file.to_owned()).reader() } else { plain(file) }.context("open the database")?;
    let conn = conn.unchecked_transaction().context(STEP)?;
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).context(STEP)?;
    if !(1..=schema::VERSION).contains(&found) {
        return Err(damaged(STEP, format!("it is no database of a hub, or of a newer one: version {found}")));
    }
    let pages = pages::scan(&conn, || true)?;
    findings.pages = conn.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).context(STEP)? as u64;
    findings.summed = pages.summed;
    if let Err(error) = pages.check() {
        findings.problems.push(error.cause);
    }
    let (rev, row) = if found == 1 {
        let rev = conn.query_row("SELECT rev FROM state", [], |row| row.get::<_, i64>(0)).context(STEP)?;
        findings.epoch = conn.query_row("SELECT epoch FROM state", [], |row| row.get(0)).context(STEP)?;
        (rev, 0)
    } else {
        let openings = opening::read(&conn)?;
        (findings.epoch, findings.openings) = (openings.epoch().to_owned(), openings.count());
        conn.query_row("SELECT rev, row FROM state", [], |row| Ok((row.get(0)?, row.get(1)?))).context(STEP)?
    };
    findings.rev = rev as u64;
    let mut row = row as u64;
    let mut counts = BTreeMap::new();
    let mut statement = conn.prepare("SELECT status, count(*) FROM tasks GROUP BY status").context(STEP)?;
    let mut rows = statement.query([]).context(STEP)?;
    while let Some(found) = rows.next().context(STEP)? {
        let (code, count): (u8, i64) = (found.get(0).context(STEP)?, found.get(1).context(STEP)?);
        let status = Status::from_code(code).ok_or_else(|| damaged(STEP, format!("unknown status {code}")))?;
        counts.insert(status, count as u64);
    }
    drop(rows);
    let mut statement = conn.prepare("SELECT row, body FROM log ORDER BY row").context(STEP)?;
    let mut rows = statement.query([]).context(STEP)?;
    let mut kept = AccessRecords::of(access::read(&conn)?);
    findings.audit = audit::count(&conn)?;
    // What is not settled yet is told of as it will be.
    let mut newest: BTreeMap<_, Option<Status>> = BTreeMap::new();
    while let Some(found) = rows.next().context(STEP)? {
        let (at, bytes): (i64, Vec<u8>) = (found.get(0).context(STEP)?, found.get(1).context(STEP)?);
        let items =
            body::decode(bytes.into()).map_err(|damage| damaged(STEP, format!("row {at} of the log: {damage}")))?;
        row = row.max(at as u64);
        for item in items {
            match item {
                body::Item::Change(change) => {
                    findings.rev = findings.rev.max(change.rev);
                    let task = crate::task::Task::parse(&change.record).map_err(|error| damaged(STEP, error))?;
                    newest.insert(change.task_id, (!change.gone).then_some(task.status));
                }
                body::Item::Access(change) => kept.apply(&change),
                body::Item::Audit(_) => findings.audit += 1,
                _ => {}
            }
        }
    }
    drop(rows);
    findings.closed = kept.is_closed();
    findings.api_tokens = kept.iter().filter(|record| matches!(record, AccessRecord::ApiToken(_))).count();
    for (task_id, status) in newest {
        let before: Option<u8> = conn
            .query_row("SELECT status FROM tasks WHERE task_id = ?1", [task_id.as_bytes().as_slice()], |row| row.get(0))
            .optional()
            .context(STEP)?;
        if let Some(before) = before.and_then(Status::from_code) {
            counts.entry(before).and_modify(|count| *count -= 1);
        }
        if let Some(status) = status {
            *counts.entry(status).or_default() += 1;
        }
    }
    counts.retain(|_, count| *count > 0);
    findings.tasks = counts;
    let mut statement = conn.prepare(&format!("PRAGMA integrity_check({COMPLAINTS_MAX})")).context(STEP)?;
    let mut rows = statement.query([]).context(STEP)?;
    while let Some(found) = rows.next().context(STEP)? {
        let complaint: String = found.get(0).context(STEP)?;
        if complaint != "ok" {
            findings.problems.push(complaint);
        }
    }
    Ok((row, named_results(&conn)?))
}

/// A connection that looks at no checksums, and leaves nothing beside a file that has no log.
fn plain(file: &Path) -> rusqlite::Result<Connection> {
    let has_log = std::fs::metadata(beside(file, "-wal")).is_ok_and(|log| log.len() > 0);
    if has_log { Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY) } else { opening::immutable(file) }
}

/// Where the header of a database has its `application_id`.
const APPLICATION_AT: usize = 68;

fn application(file: &Path) -> Option<i32> {
    in_header(file, APPLICATION_AT)
}

/// As the header says it: not what stands in a log beside it.
fn version(file: &Path) -> Option<i32> {
    in_header(file, schema::VERSION_AT)
}

fn in_header(file: &Path, at: usize) -> Option<i32> {
    let mut header = [0; 100];
    File::open(file).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header)).ok()?;
    Some(i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes")))
}

/// Copies the store in a folder, whether a hub runs on it or not, to a file that does not exist yet; in `target` under a name
/// of its own, where that is a folder. Answers what is in the copy, which was checked.
pub fn backup(folder: &Path, target: &Path) -> Result<Findings, StoreError> {
    let found = check(folder)?;
    refuse_problems("back up", &found)?;
    let file = match target.is_dir() {
        true => {
            let now = crate::task::Timestamp::now().to_string();
            let now: String = now.chars().filter(|char| !matches!(char, ':' | '-' | '.')).collect();
            target.join(format!("taskhub-{now}.db"))
        }
        false => target.to_owned(),
    };
    // Takes the name, so that nothing is written over, also not by another backup at the same moment.
    File::create_new(&file).map_err(|error| StoreError {
        step: "create the backup",
        cause: match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!("{} is there already, and is not written over", file.display())
            }
            _ => format!("{}: {error}", file.display()),
        },
        lasting: false,
    })?;
    let partial = beside(&file, ".partial");
    let (files, taken) = (folder.join(results::FOLDER), results_of(&partial, false));
    let taken_at_last = results_of(&file, false);
    let made =
        take_results(&files, &taken).and_then(|()| copy(&folder.join(FILE_NAME), &partial, true)).and_then(|()| {
            let writer = Location::File(partial.clone()).writer().context("mark the backup")?;
            writer.pragma_update(None, "application_id", COPY).context("mark the backup")?;
            drop(writer);
            keep_private(&partial)?;
            let reader = Location::File(partial.clone()).reader().context("mark the backup")?;
            keep_named(&files, &taken, &named_results(&reader)?)?;
            drop(reader);
            let mut copied = check(&partial)?;
            refuse_problems("back up", &copied)?;
            if copied.rev < found.rev {
                return Err(damaged(
                    "check the backup",
                    format!("it ends at rev {}, before rev {}", copied.rev, found.rev),
                ));
            }
            sync(&partial)?;
            if taken.exists() {
                std::fs::rename(&taken, &taken_at_last).context("name the backup")?;
            }
            std::fs::rename(&partial, &file).context("name the backup")?;
            sync_folder(file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
            copied.file = file.clone();
            Ok(copied)
        });
    if made.is_err() {
        let _ = std::fs::remove_file(&partial);
        let _ = std::fs::remove_file(&file);
        let _ = std::fs::remove_dir_all(&taken);
    }
    made
}

fn refuse_problems(what: &'static str, found: &Findings) -> Result<(), StoreError> {
    match found.problems.first() {
        None => Ok(()),
        Some(problem) => Err(damaged(what, format!("{}: {problem}", found.file.display()))),
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Writes the database anew into another file, with room for checksums.
fn copy(from: &Path, to: &Path, has_sums: bool) -> Result<(), StoreError> {
    const STEP: &str = "copy the database";
    let _ = std::fs::remove_file(to);
    let conn = if has_sums { Location::File(from.to_owned()).reader() } else { plain(from) }.context(STEP)?;
    conn.pragma_update(None, "query_only", false).context(STEP)?;
    pages::make_room(&conn).context(STEP)?;
    let name = to.to_str().ok_or_else(|| StoreError {
        step: STEP,
        cause: format!("the name {} is not UTF-8", to.display()),
        lasting: false,
    })?;
    conn.execute("VACUUM INTO ?1", [name]).context(STEP)?;
    if !has_sums {
        pages::seal_all(to).context(STEP)?;
    }
    Ok(())
}

fn sync(file: &Path) -> Result<(), StoreError> {
    File::open(file).and_then(|file| file.sync_all()).context("sync the file")
}

/// Puts a copy, or the store of another folder, into `folder`, as the beginning of a history of its own. What is there already
/// is refused, or, with `replace`, moved into a folder beside it, which is answered.
pub fn restore(from: &Path, folder: &Path, replace: bool) -> Result<(Findings, Option<PathBuf>), StoreError> {
    const STEP: &str = "restore";
    let mut found = check(from)?;
    if found.in_use {
        let cause = format!("a hub is running on {}: make a backup of it first", from.display());
        return Err(StoreError { step: STEP, cause, lasting: false });
    }
    refuse_problems(STEP, &found)?;
    std::fs::create_dir_all(folder).context("create the data folder")?;
    let _lock = lock(folder)?;
    let there = std::fs::read_dir(folder).context(STEP)?;
    let there: Vec<_> =
        there.filter_map(|file| Some(file.ok()?.file_name())).filter(|name| name != LOCK_NAME).collect();
    if !there.is_empty() && !replace {
        let cause = format!("{} is not empty; with --replace its files are moved aside", folder.display());
        return Err(StoreError { step: STEP, cause, lasting: false });
    }
    let fresh = folder.join(format!("{FILE_NAME}.restoring"));
    let has_sums = from.is_dir() || application(&found.file) == Some(COPY);
    copy(&found.file, &fresh, has_sums)?;
    let (files, taken) =
        (results_of(&found.file, from.is_dir()), folder.join(format!("{}.restoring", results::FOLDER)));
    let _ = std::fs::remove_dir_all(&taken);
    let row = begin_history(&fresh)?;
    keep_named(&files, &taken, &named_results(&Location::File(fresh.clone()).reader().context(STEP)?)?)?;
    sync(&fresh)?;
    let aside = if there.is_empty() { None } else { Some(move_aside(folder)?) };
    if taken.exists() {
        std::fs::rename(&taken, folder.join(results::FOLDER)).context(STEP)?;
    }
    std::fs::rename(&fresh, folder.join(FILE_NAME)).context(STEP)?;
    write_head(folder, row, found.rev)?;
    found.file = folder.join(FILE_NAME);
    found.epoch = epoch_of(&found.file)?;
    Ok((found, aside))
}

/// Has a database begin a history of a new name. Answers the last row of its log.
fn begin_history(file: &Path) -> Result<u64, StoreError> {
    const STEP: &str = "begin a history";
    let mut conn = Location::File(file.to_owned()).writer().context(STEP)?;
    let base = Uuid::now_v7().simple().to_string();
    schema::migrate(&mut conn, &base)?;
    conn.pragma_update(None, "application_id", 0).context(STEP)?;
    let tx = conn.unchecked_transaction().context(STEP)?;
    tx.execute("DELETE FROM openings", []).context(STEP)?;
    tx.execute("INSERT INTO openings VALUES (1, ?1, 0)", [&base]).context(STEP)?;
    tx.execute("UPDATE state SET epoch = ?1", [&base]).context(STEP)?;
    tx.commit().context(STEP)?;
    last_row(&conn)
}

fn last_row(conn: &Connection) -> Result<u64, StoreError> {
    let last =
        conn.query_row("SELECT max(row, (SELECT ifnull(max(row), 0) FROM log)) FROM state", [], |row| row.get(0));
    last.map(|row: i64| row as u64).context("read the state")
}

fn epoch_of(file: &Path) -> Result<String, StoreError> {
    let conn = Location::File(file.to_owned()).reader().context("read the state")?;
    conn.query_row("SELECT epoch FROM state", [], |row| row.get(0)).context("read the state")
}

fn write_head(folder: &Path, row: u64, rev: u64) -> Result<(), StoreError> {
    let opening = epoch_of(&folder.join(FILE_NAME))?;
    let _ = std::fs::remove_file(folder.join(HEAD_NAME));
    let mut witness = Witness::open(folder).context("write the witness")?;
    witness.write(&Head { opening, rev, row, wal: WalEnd::Closed }).context("write the witness")?;
    witness.sync().context("write the witness")?;
    sync_folder(folder)
}

/// Moves a store's files into a new folder within theirs.
fn move_aside(folder: &Path) -> Result<PathBuf, StoreError> {
    const STEP: &str = "move the old files aside";
    let aside = folder.join(format!("replaced-{}", crate::task::Timestamp::now().as_millis()));
    std::fs::create_dir(&aside).context(STEP)?;
    // The witness last: while it stands, the others are missed.
    let files = [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal"), format!("{FILE_NAME}-shm")];
    for name in files.into_iter().chain([results::FOLDER.to_owned(), HEAD_NAME.to_owned()]) {
        match std::fs::rename(folder.join(&name), aside.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(STEP),
            _ => {}
        }
    }
    Ok(aside)
}

/// Goes on with what is left of a store that was found damaged, or to have lost its end: the files as they are now count.
/// What they were is kept in a folder beside them, which is answered. Where SQLite cannot read the tables any more, nothing
/// is changed.
pub fn accept(folder: &Path) -> Result<(Findings, PathBuf), StoreError> {
    const STEP: &str = "accept the loss";
    let _lock = lock(folder)?;
    let file = folder.join(FILE_NAME);
    if std::fs::metadata(&file).map_or(0, |file| file.len()) == 0 {
        let aside = move_aside(folder)?;
        return Ok((Findings { file, ..Findings::default() }, aside));
    }
    // On copies, so that a failure leaves everything as it was.
    let fresh = folder.join(format!("{FILE_NAME}.accepting"));
    let log = |file: &Path| beside(file, "-wal");
    for (from, to) in [(file.clone(), fresh.clone()), (log(&file), log(&fresh))] {
        match std::fs::copy(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.context(STEP)?),
        }
    }
    let mended = mend(&fresh);
    if mended.is_err() {
        for leftover in [fresh.clone(), log(&fresh), beside(&fresh, "-shm")] {
            let _ = std::fs::remove_file(leftover);
        }
    }
    let (row, given_up) = mended?;
    let aside = move_aside(folder)?;
    // Those of what is given up are kept there, the others here too.
    take_results(&aside.join(results::FOLDER), &folder.join(results::FOLDER))?;
    std::fs::rename(&fresh, &file).context(STEP)?;
    let conn = Location::File(file.clone()).reader().context(STEP)?;
    let rev: i64 = conn.query_row("SELECT rev FROM state", [], |row| row.get(0)).context(STEP)?;
    drop(conn);
    write_head(folder, row, rev as u64)?;
    drop(_lock);
    Ok((Findings { given_up, ..check(folder)? }, aside))
}

/// Makes a file whole by itself, if its tables can be read, with checksums of what is in it now and a history of its own.
fn mend(file: &Path) -> Result<(u64, Vec<String>), StoreError> {
    const STEP: &str = "accept the loss";
    let conn = Connection::open(file).context(STEP)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).context(STEP)?;
    if mode != "delete" {
        return Err(damaged(STEP, format!("the journal mode stays {mode}")));
    }
    let sound = || conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0)).context(STEP);
    if sound()? != "ok" {
        // What is wrong with an index is made up from the table.
        conn.execute_batch("REINDEX").context(STEP)?;
        let complaint = sound()?;
        if complaint != "ok" {
            return Err(damaged(STEP, format!("the tables cannot be read any more, restore a backup: {complaint}")));
        }
    }
    drop(conn);
    pages::seal_all(file).context(STEP)?;
    let mut given_up = mend_log(file)?;
    given_up.extend(mend_tasks(file)?);
    given_up.extend(access::mend(&Location::File(file.to_owned()).writer().context(STEP)?)?);
    Ok((begin_history(file)?, given_up))
}

/// Gives up tasks whose records cannot be read.
fn mend_tasks(file: &Path) -> Result<Vec<String>, StoreError> {
    const STEP: &str = "accept the loss";
    let conn = Location::File(file.to_owned()).writer().context(STEP)?;
    let mut unreadable = Vec::new();
    {
        let mut statement = conn.prepare("SELECT task_id, record, history FROM tasks").context(STEP)?;
        let mut rows = statement.query([]).context(STEP)?;
        while let Some(row) = rows.next().context(STEP)? {
            let record = row.get_ref(1).context(STEP)?.as_blob().ok();
            if record.is_none_or(|record| crate::task::Task::parse(record).is_err()) {
                unreadable.push(row.get::<_, Vec<u8>>(0).context(STEP)?);
            }
        }
    }
    let tx = conn.unchecked_transaction().context(STEP)?;
    for id in &unreadable {
        for table in ["tasks", "labels", "parts", "logs"] {
            tx.execute(&format!("DELETE FROM {table} WHERE task_id = ?1"), [id]).context(STEP)?;
        }
    }
    tx.commit().context(STEP)?;
    let name = |id: Vec<u8>| <[u8; 16]>::try_from(id).map(crate::task::TaskId::from_bytes);
    Ok(unreadable
        .into_iter()
        .map(|id| match name(id) {
            Ok(task_id) => format!("task {task_id}: its record cannot be read"),
            Err(_) => "a task whose id cannot be read".to_owned(),
        })
        .collect())
}

/// Leaves out of the log of commits what cannot be read; the rest follows each other again.
fn mend_log(file: &Path) -> Result<Vec<String>, StoreError> {
    const STEP: &str = "accept the loss";
    let conn = Location::File(file.to_owned()).writer().context(STEP)?;
    let known: i64 = match conn.query_row("SELECT row FROM state", [], |row| row.get(0)) {
        // An older hub numbered the rows anew each time.
        Err(_) => return Ok(Vec::new()),
        row => row.context(STEP)?,
    };
    let tx = conn.unchecked_transaction().context(STEP)?;
    let mut statement = tx.prepare("SELECT body FROM log ORDER BY row").context(STEP)?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).context(STEP)?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>().context(STEP)?;
    drop(statement);
    tx.execute("DELETE FROM log", []).context(STEP)?;
    let all = rows.len();
    let whole: Vec<_> = rows.into_iter().filter(|body| body::decode(body.clone().into()).is_ok()).collect();
    let lost = all - whole.len();
    for (row, body) in (known + 1..).zip(whole) {
        tx.execute("INSERT INTO log VALUES (?1, ?2)", (row, body)).context(STEP)?;
    }
    tx.commit().context(STEP)?;
    Ok(if lost == 0 { Vec::new() } else { vec![format!("{lost} commits that cannot be read")] })
}
