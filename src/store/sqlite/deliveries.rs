//! Deliveries in the view: what is owed to callbacks, and what was given up.
//!
//! What is owed follows from the changes, so it is staged with them, when they are appended and when the log is read again.
//! One that arrives before it is settled was never in the view.

use std::collections::HashSet;

use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};

use super::failure::{ErrorContext as _, damaged};
use super::reader::{Shared, bytes_of};
use super::{SqliteStore, id_of, integer};
use crate::store::{DeliveryPage, DeliveryQuery, OwedDelivery, StoreError};
use crate::task::{Delivery, DeliveryId, DeliveryState, DeliveryStatus, Event, Timestamp, read_strictly};

const STEP: &str = "read deliveries";

/// What [`delivery_of`] reads.
const COLUMNS: &str = "callback_id, task_id, place, url, rev, at, event, state";

impl Shared {
    pub(super) fn find_delivery(&self, id: DeliveryId) -> Result<Option<OwedDelivery>, StoreError> {
        let newer = {
            let staging = self.staging.read();
            let staged = staging.get_delivery(id);
            if let Some(owed) = staged.and_then(|staged| staged.owed.as_deref()) {
                let whole = staged.and_then(|staged| staged.whole());
                return Ok(whole.map(|delivery| OwedDelivery { delivery, record: owed.record.clone() }));
            }
            staged.map(|staged| staged.state.clone())
        };
        if matches!(newer, Some(None)) {
            return Ok(None);
        }
        let conn = self.pool.checkout()?;
        let mut statement = conn
            .prepare_cached(&format!("SELECT {COLUMNS}, record FROM callbacks WHERE callback_id = ?1"))
            .context(STEP)?;
        let read = |row: &Row<'_>| Ok(delivery_of(row).map(|delivery| (delivery, bytes_of(row, 8))));
        let found = statement.query_row([id.as_bytes().as_slice()], read).optional().context(STEP)?;
        let Some((mut delivery, record)) = found.transpose()? else { return Ok(None) };
        if let Some(state) = newer.flatten() {
            delivery.state = state;
        }
        Ok(Some(OwedDelivery { delivery, record: record.context(STEP)? }))
    }

    pub(super) fn find_deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        // Of what is staged the view is not asked, unless it knows what that is.
        let (mut found, mut newer, mut states) = (Vec::new(), HashSet::new(), Vec::new());
        for (id, staged) in self.staging.read().deliveries() {
            newer.insert(*id);
            match (&staged.owed, &staged.state) {
                (Some(_), _) => found.extend(staged.whole().filter(|delivery| query.matches(delivery))),
                (None, Some(state)) => states.push((*id, state.clone())),
                (None, None) => {}
            }
        }
        let conn = self.pool.checkout()?;
        let mut one =
            conn.prepare_cached(&format!("SELECT {COLUMNS} FROM callbacks WHERE callback_id = ?1")).context(STEP)?;
        for (id, state) in states {
            let known =
                one.query_row([id.as_bytes().as_slice()], |row| Ok(delivery_of(row))).optional().context(STEP)?;
            let known = known.transpose()?.map(|known| Delivery { state, ..known });
            found.extend(known.filter(|delivery| query.matches(delivery)));
        }
        let (wanted, order) = match (query.status, query.task_id) {
            (_, Some(_)) => ("(?1 IS NULL OR status = ?1) AND task_id = ?2", "INDEXED BY callbacks_task"),
            (Some(_), None) => ("status = ?1 AND ?2 IS NULL", "INDEXED BY callbacks_status"),
            (None, None) => ("?1 IS NULL AND ?2 IS NULL", ""),
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM callbacks {order} WHERE {wanted} AND (?3 IS NULL OR callback_id < ?3)
             ORDER BY callback_id DESC"
        );
        let mut statement = conn.prepare_cached(&sql).context(STEP)?;
        let status = query.status.map(|status| status as u8);
        let task_id = query.task_id.as_ref().map(|id| id.as_bytes().as_slice());
        let beyond = query.beyond.as_ref().map(|id| id.as_bytes().as_slice());
        let mut rows = statement.query(params![status, task_id, beyond]).context(STEP)?;
        let mut read = 0;
        while read <= query.limit
            && let Some(row) = rows.next().context(STEP)?
        {
            let delivery = delivery_of(row)?;
            if !newer.contains(&delivery.id) {
                read += 1;
                found.push(delivery);
            }
        }
        found.sort_unstable_by_key(|delivery| std::cmp::Reverse(delivery.id));
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        Ok(DeliveryPage { deliveries: found, more })
    }
}

impl SqliteStore {
    /// What is owed, of a store whose log is settled.
    pub(super) fn read_pending(&self) -> Result<Vec<Delivery>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM callbacks WHERE status = ?1 ORDER BY callback_id");
        let mut statement = self.conn.prepare(&sql).context(STEP)?;
        let mut rows = statement.query([DeliveryStatus::Pending as u8]).context(STEP)?;
        let mut pending = Vec::new();
        while let Some(row) = rows.next().context(STEP)? {
            pending.push(delivery_of(row)?);
        }
        Ok(pending)
    }

    pub(super) fn count_failed(&self) -> Result<u64, StoreError> {
        let failed = [DeliveryStatus::Failed as u8];
        let count: i64 = self
            .conn
            .query_row("SELECT count(*) FROM callbacks WHERE status = ?1", failed, |row| row.get(0))
            .context(STEP)?;
        Ok(count as u64)
    }

    pub(super) fn sweep_deliveries(&mut self, tried_before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        const STEP: &str = "forget deliveries";
        self.writable()?;
        let mut old = Vec::new();
        {
            let sql = format!("SELECT {COLUMNS} FROM callbacks WHERE status = ?1 ORDER BY callback_id LIMIT ?2");
            let mut statement = self.conn.prepare_cached(&sql).context(STEP)?;
            let mut rows = statement.query(params![DeliveryStatus::Failed as u8, integer(rows_max)]).context(STEP)?;
            let staging = self.shared.staging.read();
            while let Some(row) = rows.next().context(STEP)? {
                let Delivery { id, state, .. } = delivery_of(row)?;
                // Somebody may have had it tried again.
                if state.tried_at.is_none_or(|at| at < tried_before) && staging.get_delivery(id).is_none() {
                    old.push(id);
                }
            }
        }
        if old.is_empty() {
            return Ok(0);
        }
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
        for id in &old {
            tx.execute("DELETE FROM callbacks WHERE callback_id = ?1", [id.as_bytes().as_slice()]).context(STEP)?;
        }
        tx.commit().context(STEP)?;
        Ok(old.len())
    }
}

fn delivery_of(row: &Row<'_>) -> Result<Delivery, StoreError> {
    let read = || -> rusqlite::Result<(Delivery, u8, Vec<u8>)> {
        let delivery = Delivery {
            id: row.get(0).map(DeliveryId::from_bytes)?,
            task_id: id_of(row, 1)?,
            place: row.get(2)?,
            url: row.get::<_, String>(3)?.into(),
            rev: row.get::<_, i64>(4)? as u64,
            at: Timestamp::from_millis(row.get(5)?),
            event: Event::Created,
            state: DeliveryState::default(),
        };
        Ok((delivery, row.get(6)?, row.get(7)?))
    };
    let (delivery, event, state) = read().context(STEP)?;
    let event = Event::from_code(event).ok_or_else(|| damaged(STEP, format!("unknown event {event}")))?;
    let wrong = |error| damaged(STEP, format!("delivery {}: {error}", delivery.id));
    let state = read_strictly(&state).map_err(wrong)?;
    Ok(Delivery { event, state, ..delivery })
}
