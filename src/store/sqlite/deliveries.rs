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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sqlite::SqliteOptions;
    use crate::store::suite::World;
    use crate::store::{Commit, Store as _};
    use crate::task::{Callbacks, Detail, NewCallback, Status, Task, TaskId};

    const LIMIT: usize = 100;

    fn open(folder: &std::path::Path) -> (SqliteStore, Vec<DeliveryId>, u64) {
        let mut store = SqliteStore::open(folder, SqliteOptions::default()).unwrap();
        let recovered = store.recover().unwrap();
        assert_eq!(recovered.damage, None);
        let pending = recovered.deliveries.iter().map(|delivery| delivery.id).collect();
        (store, pending, recovered.deliveries_failed)
    }

    /// Gives the task of a commit's changes callbacks that are told when it is created and how it ends.
    fn with_callbacks(commit: &mut Commit) {
        let new =
            [NewCallback::on("https://a.example/", ["created", "completed"]), NewCallback::new("http://b.example/")];
        for entry in &mut commit.changes {
            let mut task = Task::clone(&entry.change.task);
            let detail = task.detail.get_or_insert_with(|| Box::new(Detail::default()));
            detail.callbacks = Callbacks::of(&new, None);
            entry.record = task.to_json().into();
            entry.change.task = Arc::new(task);
        }
    }

    /// Tasks that were created, ran and completed, each step in a commit of its own, and those of all in turn: so what is settled of
    /// one leaves rows in the log that say something of it.
    fn lived<const N: usize>(world: &mut World, store: &mut SqliteStore) -> [TaskId; N] {
        let mut append = |world: &mut World, change: &mut dyn FnMut(&mut World, &mut Commit)| {
            let mut commit = Commit::default();
            change(world, &mut commit);
            with_callbacks(&mut commit);
            store.append(&commit).unwrap();
        };
        let task_ids = [(); N].map(|()| {
            let mut task_id = None;
            append(world, &mut |world, commit| task_id = Some(world.create(commit)));
            task_id.unwrap()
        });
        for (status, event) in [(Status::Running, Event::Running), (Status::Completed, Event::Completed)] {
            for task_id in task_ids {
                append(world, &mut |world, commit| world.step(commit, task_id, status, event));
            }
        }
        task_ids
    }

    fn step(store: &mut SqliteStore, id: DeliveryId, state: Option<DeliveryState>) {
        let steps = vec![crate::task::DeliveryStep { id, state }];
        store.append(&Commit { deliveries: steps, ..Commit::default() }).unwrap();
    }

    fn listed(store: &SqliteStore, query: DeliveryQuery) -> Vec<(u8, Event, u32)> {
        let page = store.reader().deliveries(&DeliveryQuery { limit: LIMIT, ..query }).unwrap();
        let mut listed: Vec<_> = page.deliveries.iter().map(|it| (it.place, it.event, it.state.tries)).collect();
        listed.sort_unstable_by_key(|(place, event, _)| (*place, *event as u8));
        listed
    }

    fn failed(tries: u32, at: i64) -> DeliveryState {
        let tried_at = Some(Timestamp::from_millis(at));
        DeliveryState { status: DeliveryStatus::Failed, tries, tried_at, ..DeliveryState::default() }
    }

    const OWED: [(u8, Event, u32); 3] = [(0, Event::Created, 0), (0, Event::Completed, 0), (1, Event::Completed, 0)];

    /// What is owed is the same at each moment between a commit and its settling, and after a crash at any of them.
    #[test]
    fn each_told_transition_is_owed_once_whatever_was_settled_when_the_hub_was_killed() {
        for settled in 0..6 {
            let folder = tempfile::tempdir().unwrap();
            let mut world = World::new(settled);
            let (mut store, pending, _) = open(folder.path());
            assert_eq!(pending, []);
            let [first, second] = lived(&mut world, &mut store);
            (0..settled).for_each(|_| drop(store.settle(1).unwrap()));
            let of = |task_id| DeliveryQuery { task_id: Some(task_id), ..DeliveryQuery::default() };
            assert_eq!((listed(&store, of(first)), listed(&store, of(second))), (OWED.to_vec(), OWED.to_vec()));
            let before = store.reader().deliveries(&DeliveryQuery { limit: LIMIT, ..of(first) }).unwrap().deliveries;
            let records: Vec<_> = before.iter().map(|it| store.reader().delivery(it.id).unwrap().unwrap()).collect();
            for owed in &records {
                let told = Task::parse(&owed.record).unwrap();
                assert_eq!((told.task_id, told.rev), (owed.delivery.task_id, owed.delivery.rev), "its own record");
            }
            drop(store);

            let (mut store, pending, _) = open(folder.path());
            assert_eq!(pending.len(), 6);
            let after: Vec<_> = before.iter().map(|it| store.reader().delivery(it.id).unwrap().unwrap()).collect();
            assert_eq!(after, records, "the same ids, and what they tell");
            // What arrives is owed no longer; what fails is tried again, or given up.
            step(&mut store, before[0].id, None);
            step(&mut store, before[1].id, Some(DeliveryState { tries: 1, ..DeliveryState::default() }));
            step(&mut store, before[2].id, Some(failed(2, 5)));
            (0..settled).for_each(|_| drop(store.settle(1).unwrap()));
            let check = |store: &SqliteStore| {
                assert_eq!(store.reader().delivery(before[0].id).unwrap(), None);
                let state = |at: usize| store.reader().delivery(before[at].id).unwrap().unwrap().delivery.state;
                assert_eq!((state(1).tries, state(2)), (1, failed(2, 5)));
                let failed = DeliveryQuery { status: Some(DeliveryStatus::Failed), ..DeliveryQuery::default() };
                assert_eq!((listed(store, failed).len(), listed(store, of(first)).len()), (1, 2));
            };
            check(&store);
            drop(store);
            let (store, pending, failed) = open(folder.path());
            assert_eq!((pending.len(), failed), (4, 1));
            check(&store);
        }
    }

    #[test]
    fn what_is_owed_stays_when_its_task_goes_and_what_was_given_up_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(1);
        let (mut store, ..) = open(folder.path());
        let [task_id] = lived(&mut world, &mut store);
        while store.unsettled().0 > 0 {
            store.settle(10).unwrap();
        }
        let mut commit = Commit::default();
        world.delete(&mut commit, task_id);
        store.append(&commit).unwrap();
        store.settle(10).unwrap();
        assert!(store.reader().task(task_id).unwrap().is_none());
        assert_eq!(listed(&store, DeliveryQuery::default()), OWED);

        let all =
            store.reader().deliveries(&DeliveryQuery { limit: LIMIT, ..DeliveryQuery::default() }).unwrap().deliveries;
        step(&mut store, all[0].id, Some(failed(9, 1_000)));
        step(&mut store, all[1].id, Some(failed(9, 2_000)));
        store.settle(10).unwrap();
        // Somebody has one tried again.
        step(&mut store, all[0].id, Some(DeliveryState::default()));
        let before = Timestamp::from_millis(2_000);
        assert_eq!(store.forget_deliveries(before, LIMIT).unwrap(), 0);
        step(&mut store, all[0].id, Some(failed(10, 1_999)));
        store.settle(10).unwrap();
        assert_eq!(store.forget_deliveries(before, LIMIT).unwrap(), 1);
        assert_eq!(store.reader().delivery(all[0].id).unwrap(), None);
        assert_eq!(listed(&store, DeliveryQuery::default()).len(), 2);
    }

    #[test]
    fn deliveries_come_in_pages_staged_or_not() {
        let mut world = World::new(3);
        let mut store = SqliteStore::in_memory(SqliteOptions::default()).unwrap();
        store.recover().unwrap();
        for round in 0..8 {
            lived::<1>(&mut world, &mut store);
            if round % 3 == 0 {
                store.settle(1).unwrap();
            }
        }
        let all = store.reader().deliveries(&DeliveryQuery { limit: LIMIT, ..DeliveryQuery::default() }).unwrap();
        assert!(!all.more && all.deliveries.len() == 24);
        assert!(all.deliveries.is_sorted_by(|one, next| one.id > next.id), "the newest first");
        for limit in [1, 5, 23, 24] {
            let (mut found, mut query) = (Vec::new(), DeliveryQuery { limit, ..DeliveryQuery::default() });
            loop {
                let page = store.reader().deliveries(&query).unwrap();
                assert!(page.deliveries.len() == limit || !page.more);
                query.beyond = page.deliveries.last().map(|last| last.id);
                found.extend(page.deliveries);
                if !page.more {
                    break;
                }
            }
            assert_eq!(found, all.deliveries);
        }
    }
}
