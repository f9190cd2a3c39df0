//! Giving space back.
//!
//! What is deleted leaves free pages, and SQLite writes new rows there. After a burst they may be most of the file. A file
//! that keeps *pointer maps* (`auto_vacuum`) can be cut without being written anew: its last pages are moved to free places,
//! some at a time, and the end of the file goes with the next checkpoint. A pointer map costs a page a commit at most.
//!
//! New files keep them. A file of an older hub begins to when it is written anew for its checksums (see
//! [`schema`](super::schema)); one for which there was no room stays as large as it is.

use rusqlite::Connection;

use super::failure::ErrorContext as _;
use crate::store::StoreError;

/// Free pages that are left for new rows: a part of the file, and at least so many (4 MiB).
const FREE_PART: i64 = 8;
const FREE_PAGES: i64 = 512;
/// Pages moved in one step: about as much work as settling some tasks.
const CUT_PAGES: i64 = 64;

const STEP: &str = "give space back";

/// SQLite's number for a file that is cut when it is asked for.
const INCREMENTAL: i64 = 2;

/// Has a new file keep pointer maps, or one that is about to be written anew. To be called before anything is in it; of no
/// effect on others.
pub(super) fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "auto_vacuum", INCREMENTAL)
}

/// What one call did.
pub(super) struct Cut {
    /// It cut some pages off.
    pub cut: bool,
    /// More could go.
    pub more: bool,
}

/// Cuts some pages off, where more are free than are left for new rows.
pub(super) fn cut_some(conn: &Connection) -> Result<Cut, StoreError> {
    let left = |conn: &Connection| -> Result<i64, StoreError> {
        let (all, free) = (pragma(conn, "page_count")?, pragma(conn, "freelist_count")?);
        Ok(free - FREE_PAGES.max(all / FREE_PART))
    };
    let excess = left(conn)?;
    if excess <= 0 || !keeps_maps(conn)? {
        return Ok(Cut { cut: false, more: false });
    }
    cut(conn, excess.min(CUT_PAGES)).context(STEP)?;
    Ok(Cut { cut: true, more: left(conn)? > 0 })
}

/// SQLite cuts a page each time it is asked for the next row.
fn cut(conn: &Connection, pages: i64) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn keeps_maps(conn: &Connection) -> Result<bool, StoreError> {
    Ok(pragma(conn, "auto_vacuum")? == INCREMENTAL)
}

fn pragma(conn: &Connection, name: &str) -> Result<i64, StoreError> {
    conn.pragma_query_value(None, name, |row| row.get(0)).context(STEP)
}
