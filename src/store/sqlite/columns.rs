//! Values as they stand in columns.

use bytes::Bytes;
use rusqlite::Row;

use crate::task::{Digest, Json, KeyEntry, TaskId, Timestamp};

/// A number for SQLite, which knows none above `i64::MAX`: what is larger is as good as that.
pub(super) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn id_of(row: &Row<'_>, column: usize) -> rusqlite::Result<TaskId> {
    row.get(column).map(TaskId::from_bytes)
}

/// JSON text that stands in the database. A [`Json`] promises to be UTF-8.
pub(super) fn json_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Json>> {
    let Some(text) = row.get_ref(column)?.as_blob_or_null()? else { return Ok(None) };
    std::str::from_utf8(text)?;
    Ok(Some(Json::trusted(Bytes::copy_from_slice(text))))
}

pub(super) fn key_of(key: Digest, row: &Row<'_>) -> rusqlite::Result<KeyEntry> {
    let body = u128::from_be_bytes(row.get(0)?);
    let expires_at = Timestamp::from_millis(row.get(1)?);
    let ids = row.get_ref(2)?.as_blob()?.chunks_exact(16);
    let tasks = ids.map(|id| TaskId::from_bytes(id.try_into().expect("chunks are of 16 bytes"))).collect();
    let places = row.get_ref(3)?.as_blob_or_null()?.unwrap_or_default().chunks_exact(4);
    let existing = places.map(|place| u32::from_le_bytes(place.try_into().expect("chunks are of 4 bytes"))).collect();
    Ok(KeyEntry { key, body, tasks, existing, expires_at })
}
