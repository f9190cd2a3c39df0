//! A store that forgets: the same tables, in memory, gone with the last handle.
//!
//! It is for tests and for hubs without a folder. There is no second implementation that could behave differently.

use super::StoreError;
use super::sqlite::{SqliteOptions, SqliteStore};

/// A new, empty store of its own.
pub fn in_memory() -> Result<SqliteStore, StoreError> {
    SqliteStore::in_memory(SqliteOptions::default())
}
