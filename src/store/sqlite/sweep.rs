//! Forgetting idempotency keys and tombstones whose time is over.

use rusqlite::{TransactionBehavior, params};

use super::failure::ErrorContext as _;
use super::{SqliteStore, integer};
use crate::store::StoreError;
use crate::task::Timestamp;

impl SqliteStore {
    pub(super) fn sweep_keys_and_tombstones(
        &mut self,
        now: Timestamp,
        tombstones_before: Timestamp,
        rows_max: usize,
    ) -> Result<usize, StoreError> {
        const STEP: &str = "sweep";
        self.writable()?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
        let keys = tx
            .prepare_cached(
                "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
            )
            .and_then(|mut statement| statement.execute(params![now.as_millis(), integer(rows_max)]))
            .context(STEP)?;
        // From the oldest on, up to the first that is kept: those that know from when on all is known.
        let mut last = None;
        {
            let mut statement =
                tx.prepare_cached("SELECT rev, at FROM tombstones ORDER BY rev LIMIT ?1").context(STEP)?;
            let mut rows = statement.query([integer(rows_max)]).context(STEP)?;
            while let Some(row) = rows.next().context(STEP)? {
                let (rev, at): (i64, i64) = (row.get(0).context(STEP)?, row.get(1).context(STEP)?);
                if at >= tombstones_before.as_millis() {
                    break;
                }
                last = Some(rev);
            }
        }
        let mut tombstones = 0;
        if let Some(rev) = last {
            tombstones = tx.execute("DELETE FROM tombstones WHERE rev <= ?1", [rev]).context(STEP)?;
            tx.execute("UPDATE state SET known_from = max(known_from, ?1)", [rev]).context(STEP)?;
        }
        tx.commit().context(STEP)?;
        Ok(keys + tombstones)
    }
}
