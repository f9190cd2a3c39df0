//! What went wrong in SQLite, as the hub wants to know it: at which step, and whether waiting may help.

use std::fmt;

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

/// Says what was being done when it failed, as the error's `step`.
pub(super) trait ErrorContext<T> {
    fn context(self, step: &'static str) -> Result<T, StoreError>;
}

impl<T> ErrorContext<T> for rusqlite::Result<T> {
    fn context(self, step: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError { step, lasting: is_lasting(&error), cause: cause(&error) })
    }
}

fn cause(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(error) if error.extended_code == ffi::SQLITE_IOERR_DATA => {
            "a page of the database does not match its checksum".to_owned()
        }
        _ => error.to_string(),
    }
}

impl<T> ErrorContext<T> for std::io::Result<T> {
    fn context(self, step: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError { step, cause: error.to_string(), lasting: false })
    }
}

/// Stored bytes are not what was written. Waiting does not help.
pub(super) fn damaged(step: &'static str, what: impl fmt::Display) -> StoreError {
    StoreError { step, cause: format!("damaged: {what}"), lasting: true }
}

/// Whether what is stored is damaged, or is not what it should be. The disk, its permissions and other processes can change
/// their mind; and a statement that is too large for SQLite is a fault, but not of the file.
fn is_lasting(error: &rusqlite::Error) -> bool {
    let Some(error) = error.sqlite_error() else {
        // A value of another kind than was written.
        return true;
    };
    // A page that does not match its checksum, or a file system that says the like.
    matches!(error.extended_code, ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS)
        || matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_and_what_may_not() {
        for (code, lasting) in [
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_READONLY_DBMOVED, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_IOERR_DATA, true),
            (ffi::SQLITE_CORRUPT, true),
            (ffi::SQLITE_CORRUPT_INDEX, true),
            (ffi::SQLITE_NOTADB, true),
            (ffi::SQLITE_CONSTRAINT, true),
            (ffi::SQLITE_ERROR, false),
            (ffi::SQLITE_TOOBIG, false),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(is_lasting(&error), lasting, "{code}");
        }
    }
}
