//! Carrying the write-ahead log over to the database.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::config::DbConfig;

use super::SqliteStore;
use super::failure::ErrorContext as _;
use crate::store::StoreError;

/// A checkpoint is made once the write-ahead log has this many pages (16 MiB): large enough that pages which change
/// again and again are carried over once, small enough to take well under a tenth of a second.
pub(super) const CHECKPOINT_PAGES: usize = 2_000;

/// An append checkpoints by itself only where nothing was settled for this many pages.
pub(super) const CHECKPOINT_PAGES_MAX: usize = 4 * CHECKPOINT_PAGES;

impl SqliteStore {
    /// Carries the write-ahead log over to the database, where it has so many pages. Readers go on reading, so a part may
    /// remain for the next time. Says whether all of it was carried over.
    pub(super) fn checkpoint(&mut self, pages_min: usize) -> Result<bool, StoreError> {
        if self.wal_pages.load(Ordering::Relaxed) < pages_min {
            return Ok(false);
        }
        let carried = self.carry_over("PRAGMA wal_checkpoint(PASSIVE)")?;
        self.wal_pages.store(0, Ordering::Relaxed);
        Ok(carried)
    }

    /// Says whether all of it was.
    pub(super) fn carry_over(&mut self, how: &str) -> Result<bool, StoreError> {
        let counts = self.conn.query_row(how, [], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        let (frames, carried) = counts.context("checkpoint")?;
        if let Some(keeper) = self.keeper.as_mut().filter(|_| frames > 0) {
            keeper.carried_over(frames as u64, carried as u64);
        }
        Ok(frames == carried)
    }
}

/// How long the store waits for readers when it is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

impl Drop for SqliteStore {
    /// Leaves everything in the one file, also while other connections read it: SQLite itself does this only for the last
    /// connection, and that may be one that cannot write. Files that were replaced or damaged are left alone.
    fn drop(&mut self) {
        if self.keeper.is_none() || self.writable().is_err() {
            return;
        }
        // Where it fails, all is in the log beside the file, and found there.
        let closed = self.conn.busy_timeout(CLOSE_WAIT).context("close").and_then(|()| {
            let carried = self.carry_over("PRAGMA wal_checkpoint(FULL)")?;
            Ok(carried && self.carry_over("PRAGMA wal_checkpoint(TRUNCATE)")?)
        });
        if let Some(keeper) = self.keeper.as_mut().filter(|_| matches!(closed, Ok(true))) {
            keeper.closed();
            let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
    }
}
