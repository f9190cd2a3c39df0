//! Opening a folder: is all there that was acknowledged, and is it what was written?
//!
//! Before SQLite opens anything, the witness is compared with what stands in the folder: a database that is missing, a
//! write-ahead log that is too short. After it was opened, the newest opening, `rev` and row are compared. Then every page
//! is read once and its checksum looked at, a small file at once, a large one in a thread beside the hub's work.
//!
//! Where something is missing or damaged, the store opens all the same, so that people can read what is left; but it takes
//! no writes, changes none of the files, and says what it found, until the operator decides. Where there is nothing that could
//! be read, it does not open.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::failure::{ErrorContext as _, damaged};
use super::keeper::Damage;
use super::pages;
use super::pool::Location;
use super::wal::{self, Log};
use super::witness::{self, Carried, Found, Head, WalEnd};
use super::{FILE_NAME, PAGE_BYTES};
use crate::store::{Opening, Openings, StoreError};

/// A file up to this size is read to its end before the store is open: some tens of milliseconds.
const SCAN_AT_ONCE_BYTES: u64 = 32 << 20;
/// The wait after every half mebibyte of a larger one.
const SCAN_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// At most so many openings are remembered. A client that was cut off so many restarts ago begins anew.
const OPENINGS_MAX: i64 = 1_000;

/// What people can do about it.
pub(super) const WHAT_TO_DO: &str =
    "restore a backup (taskhub restore), or go on with what is left (taskhub check --accept)";

/// What stands in a folder before anything is opened.
pub(super) struct Ground {
    pub found: Found,
    /// What is missing of it.
    pub lost: Option<String>,
    /// The pages are as a hub wrote them. Other programs copy or carry over pages without making up their checksums: a file
    /// without a witness was put here, and a write-ahead log that is gone with nothing lost was carried over.
    pub is_ours: bool,
}

impl Ground {
    /// Looks at a folder. Fails where there is nothing to open and should be.
    pub fn look(folder: &Path) -> Result<Ground, StoreError> {
        const STEP: &str = "look at the data folder";
        let path = folder.join(FILE_NAME);
        let found = witness::read(folder).context(STEP)?;
        let log_path = log_path(folder);
        let log = wal::read(&log_path).context("read the write-ahead log")?;
        let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        if bytes == 0 {
            let what = if path.exists() { "is empty" } else { "is missing" };
            let name = path.display();
            let why = match (&found, &log) {
                (Found::Nothing, None) => return Ok(Ground { found, lost: None, is_ours: true }),
                (found, _) if found.head().is_some_and(|head| head.rev > 0) => {
                    format!("rev {} was acknowledged here", found.head().map_or(0, |head| head.rev))
                }
                (Found::Nothing, Some(_)) => "a write-ahead log of it is there".to_owned(),
                _ => "there was one here".to_owned(),
            };
            let cause = format!("{name} {what}, and {why}: put it back, or {WHAT_TO_DO}");
            return Err(StoreError { step: STEP, cause, lasting: true });
        }
        let head = found.head();
        let nothing_in_log = log.as_ref().is_none_or(|log| log.frames == 0);
        let is_ours = match head.map(|head| head.wal) {
            None => false,
            Some(WalEnd::At { carried: Carried::Nothing, .. }) => !nothing_in_log,
            Some(_) => true,
        };
        let mut lost = head.and_then(|head| head.misses(log.as_ref()));
        lost = lost.or_else(|| too_short(&path, bytes, log.as_ref()));
        if let (None, false, Some(head)) = (&lost, is_ours, head) {
            lost = ends_before(&path, head);
        }
        match &found {
            Found::Damaged(_) => tracing::error!(
                "{} is damaged: whether the newest commits are there cannot be told for certain; it is made anew",
                folder.join(witness::HEAD_NAME).display()
            ),
            Found::Nothing => tracing::warn!(
                "{} is missing: whether all is there that was acknowledged cannot be told; it is made anew",
                folder.join(witness::HEAD_NAME).display()
            ),
            Found::Head(_) => {}
        }
        Ok(Ground { found, lost, is_ours })
    }

    /// What the witness is to say while the store is being opened.
    pub fn head(&self, last: &Openings, rev: u64, row: u64) -> Head {
        match self.found.head() {
            Some(Head { wal: WalEnd::At { name, frames, carried }, .. }) => Head {
                opening: last.epoch().to_owned(),
                rev,
                row,
                wal: WalEnd::At { name: *name, frames: *frames, carried: *carried },
            },
            _ => Head { opening: last.epoch().to_owned(), rev, row, wal: WalEnd::Open },
        }
    }

    /// Compares with what the store holds.
    pub fn check_end(&self, openings: &Openings, rev: u64, row: u64) -> Option<String> {
        let head = self.found.head()?;
        if head.rev > rev {
            return Some(format!("the history ends at rev {rev}, and rev {} was acknowledged", head.rev));
        }
        if !openings.know(&head.opening) {
            return Some(format!(
                "the database is another than the one that was last open in this folder, which had come to rev {}",
                head.rev
            ));
        }
        (head.row > row).then(|| {
            format!("the log of commits ends {} commits before the last that was acknowledged", head.row - row)
        })
    }
}

/// A connection that takes a database as it stands: without a log, without checksums, and without a trace.
pub(super) fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let name = path.display().to_string();
    let name = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)
}

/// What is missing of a database without a write-ahead log, read without looking at checksums.
fn ends_before(path: &Path, head: &Head) -> Option<String> {
    let read = || -> rusqlite::Result<(i64, i64)> {
        immutable(path)?.query_row(
            "SELECT rev, max(row, (SELECT ifnull(max(row), 0) FROM log)) FROM state",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    };
    match read() {
        Ok((_, row)) if row as u64 >= head.row => None,
        Ok((rev, _)) => Some(format!(
            "the write-ahead log is gone or holds nothing: the history ends at rev {rev} or soon after it, and rev {} was \
             acknowledged",
            head.rev
        )),
        Err(error) => Some(format!(
            "the write-ahead log is gone or holds nothing, and the database cannot be read without it: {error}"
        )),
    }
}

/// Where the write-ahead log is.
pub(super) fn log_path(folder: &Path) -> PathBuf {
    folder.join(format!("{FILE_NAME}-wal"))
}

/// Whether pages at the end of the database are nowhere.
fn too_short(path: &Path, bytes: u64, log: Option<&Log>) -> Option<String> {
    let mut header = [0; 100];
    std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header)).ok()?;
    pages::has_room(&header)?;
    let in_header = u32::from_be_bytes(header[28..32].try_into().expect("four bytes"));
    let size = log.filter(|log| log.frames > 0).map_or(in_header, |log| log.size);
    let there = (bytes / PAGE_BYTES as u64) as u32;
    let in_log = |page: u32| log.is_some_and(|log| log.pages.contains(&page));
    let missing = (there + 1..=size).find(|page| !in_log(*page))?;
    Some(format!("the database ends after {there} of its {size} pages, and page {missing} is nowhere"))
}

/// The openings that a store remembers.
pub(super) fn read(conn: &Connection) -> Result<Openings, StoreError> {
    const STEP: &str = "read the openings";
    let mut statement = conn.prepare("SELECT epoch, began FROM openings ORDER BY number").context(STEP)?;
    let rows = statement.query_map([], |row| {
        let began: i64 = row.get(1)?;
        Ok(Opening { epoch: row.get(0)?, began: began as u64 })
    });
    let list: Vec<_> = rows.and_then(|rows| rows.collect()).context(STEP)?;
    if list.is_empty() { Err(damaged(STEP, "there are none")) } else { Ok(Openings::new(list)) }
}

/// A name for a new opening of the history `base`.
pub(super) fn new_name(base: &str) -> String {
    format!("{base}.{:016x}", fastrand::u64(..))
}

/// Writes a new opening down, and forgets those from which no client can resume.
pub(super) fn write(conn: &Connection, base: &str, rev: u64) -> Result<Openings, StoreError> {
    const STEP: &str = "write the opening";
    let tx = conn.unchecked_transaction().context(STEP)?;
    tx.execute("INSERT INTO openings (epoch, began) VALUES (?1, ?2)", (new_name(base), rev as i64)).context(STEP)?;
    tx.execute(
        "DELETE FROM openings WHERE number <= (SELECT max(number) FROM openings) - ?1 OR number < (
         SELECT max(number) FROM openings WHERE began < (SELECT known_from FROM state))",
        [OPENINGS_MAX],
    )
    .context(STEP)?;
    tx.commit().context(STEP)?;
    read(conn)
}

/// Reads all pages of a store and tells `damage` what it finds: at once, or, of a large file, in a thread of its own.
pub(super) fn scan(location: &Location, conn: &Connection, damage: &Damage) -> Result<(), StoreError> {
    let Location::File(path) = location else { return Ok(()) };
    if std::fs::metadata(path).map_or(0, |file| file.len()) <= SCAN_AT_ONCE_BYTES {
        tell(pages::scan(conn, || true).and_then(|pages| pages.check()), damage);
        return Ok(());
    }
    let (conn, damage) = (location.reader().context("open a connection for reading")?, damage.downgrade());
    let scan = move || {
        // Not for longer than there is a store.
        let goes_on = || {
            std::thread::sleep(SCAN_PAUSE);
            damage.upgrade().is_some()
        };
        let found = pages::scan(&conn, goes_on).and_then(|pages| pages.check());
        if let Some(damage) = damage.upgrade() {
            tell(found, &damage);
        }
    };
    std::thread::Builder::new().name("scan".into()).spawn(scan).context("read the pages")?;
    Ok(())
}

fn tell(found: Result<(), StoreError>, damage: &Damage) {
    match found {
        Ok(()) => {}
        Err(error) if error.lasting => damage.found(format!("{}; {WHAT_TO_DO}", error.cause)),
        Err(error) => tracing::warn!(step = error.step, cause = error.cause, "could not look at all pages"),
    }
}

/// The whole sentence about what was found when a store was opened.
pub(super) fn sentence(what: &str) -> String {
    format!("{what}; {WHAT_TO_DO}")
}
