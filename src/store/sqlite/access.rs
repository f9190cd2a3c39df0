//! What is kept about access, in the view.
//!
//! A hub that lost it would be open to everybody. So where it cannot be read, what is left says that the hub is closed; who may
//! write to its folder can still make a token.

use rusqlite::Connection;

use super::failure::{ErrorContext as _, damaged};
use super::{SqliteStore, schema};
use crate::access::{AccessChange, AccessKey, AccessRecord, AccessRecords};
use crate::store::StoreError;
use crate::task::Timestamp;

const STEP: &str = "read what is kept about access";

/// All records that are in the view. None are in one that an older hub wrote.
pub(super) fn read(conn: &Connection) -> Result<Vec<AccessRecord>, StoreError> {
    if schema::known_version(conn)? < schema::WITH_ACCESS {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare("SELECT key, record FROM access ORDER BY key").context(STEP)?;
    let mut rows = statement.query([]).context(STEP)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().context(STEP)? {
        let key: String = row.get(0).context(STEP)?;
        let record = row.get_ref(1).and_then(|record| Ok(record.as_blob()?)).context(STEP)?;
        let wrong = |why: String| damaged(STEP, format!("{key}: {why}"));
        let record: AccessRecord = serde_json::from_slice(record).map_err(|error| wrong(error.to_string()))?;
        let is_its_key = serde_json::from_str::<AccessKey>(&key).is_ok_and(|key| key == record.key());
        if !is_its_key {
            return Err(wrong("it stands there under another name".into()));
        }
        records.push(record);
    }
    Ok(records)
}

/// Gives up records that cannot be read, and has the hub closed then. Tells which.
pub(super) fn mend(conn: &Connection) -> Result<Vec<String>, StoreError> {
    if schema::known_version(conn)? < schema::WITH_ACCESS || read(conn).is_ok() {
        return Ok(Vec::new());
    }
    let mut given_up = Vec::new();
    {
        let mut statement = conn.prepare("SELECT key, record FROM access").context(STEP)?;
        let mut rows = statement.query([]).context(STEP)?;
        while let Some(row) = rows.next().context(STEP)? {
            let key: String = row.get(0).context(STEP)?;
            let record = row.get_ref(1).context(STEP)?.as_blob().ok().map(serde_json::from_slice::<AccessRecord>);
            let record = record.and_then(Result::ok).and_then(|it| serde_json::to_string(&it.key()).ok());
            if record.is_none_or(|its_key| its_key != key) {
                given_up.push(key);
            }
        }
    }
    let closed = AccessRecord::Closed { since: Timestamp::now() };
    let key = serde_json::to_string(&closed.key()).expect("plain values");
    for key in &given_up {
        conn.execute("DELETE FROM access WHERE key = ?1", [key]).context(STEP)?;
    }
    let record = serde_json::to_vec(&closed).expect("plain values");
    conn.execute("INSERT OR IGNORE INTO access VALUES (?1, ?2)", (key, record)).context(STEP)?;
    Ok(given_up.into_iter().map(|key| format!("about access: {key} cannot be read")).collect())
}

impl SqliteStore {
    /// What can be read of a store that is not whole.
    pub(super) fn access_left(&self) -> Vec<AccessRecord> {
        let since = Timestamp::from_millis(0);
        let settled = read(&self.conn).unwrap_or_else(|_| vec![AccessRecord::Closed { since }]);
        let mut records = AccessRecords::of(settled);
        for (key, record) in self.shared.staging.read().access_records() {
            records.apply(&match record {
                Some(record) => AccessChange::Put(record.clone()),
                None => AccessChange::Remove(key.clone()),
            });
        }
        records.iter().cloned().collect()
    }
}
