//! What went wrong in SQLite, as the hub wants to know it: at which step, and whether waiting may help.

use std::fmt;

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Names the step that failed.
pub(super) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, StoreError>;
}

impl<T> Step<T> for rusqlite::Result<T> {
    fn step(self, step: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError { step, lasting: is_lasting(&error), cause: error.to_string() })
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError { step, cause: error.to_string(), lasting: false })
    }
}

/// Stored bytes are not what was written. Waiting does not help.
pub(super) fn damaged(step: &'static str, what: impl fmt::Display) -> StoreError {
    StoreError { step, cause: format!("damaged: {what}"), lasting: true }
}

/// The disk, its permissions and other processes can change their mind. A damaged file does not, nor does a statement
/// that SQLite refuses.
fn is_lasting(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_and_what_may_not() {
        use rusqlite::ffi;
        for (code, lasting) in [
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_READONLY_DBMOVED, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_CORRUPT, true),
            (ffi::SQLITE_CORRUPT_INDEX, true),
            (ffi::SQLITE_NOTADB, true),
            (ffi::SQLITE_CONSTRAINT, true),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(is_lasting(&error), lasting, "{code}");
        }
    }
}
