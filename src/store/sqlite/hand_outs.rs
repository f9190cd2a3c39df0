//! What was handed out under rates, for the next hub.
//!
//! All rows are of one count, that of the row in `machine`. When a hub begins on another, after the machine was started, they
//! are moved to its count: as much of it as is known passed, and what nobody knows of took no time. So they count too long
//! rather than too short.

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use super::failure::{ErrorContext as _, damaged};
use super::{SqliteStore, integer};
use crate::settings::{HandOuts, RateBy};
use crate::store::{Count, StoreError};
use crate::task::Name;

impl SqliteStore {
    pub(super) fn known_hand_outs(&mut self, now: Count) -> Result<Vec<HandOuts>, StoreError> {
        const STEP: &str = "read what was handed out";
        self.writable()?;
        let (boot, mono) = (now.boot.to_be_bytes(), now.mono as i64);
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
        let known = tx
            .query_row("SELECT boot, mono FROM machine", [], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()
            .context(STEP)?;
        let newest: Option<i64> = tx.query_row("SELECT max(at) FROM hand_outs", [], |row| row.get(0)).context(STEP)?;
        let seen = known.map(|(_, mono)| mono).max(newest);
        // Nor is a count the same that went back.
        let goes_on = known.is_some_and(|(of, _)| of == boot) && seen.is_none_or(|seen| seen <= mono);
        if !goes_on {
            if let Some(seen) = seen {
                tx.execute("UPDATE hand_outs SET at = at + ?1", [mono - seen]).context(STEP)?;
            }
            tx.execute("INSERT OR REPLACE INTO machine VALUES (1, ?1, ?2)", params![boot, mono]).context(STEP)?;
        }
        tx.commit().context(STEP)?;

        let mut statement = self
            .conn
            .prepare("SELECT rev, at, queue, counted_by, name, count FROM hand_outs ORDER BY rev")
            .context(STEP)?;
        let mut rows = statement.query([]).context(STEP)?;
        let mut hand_outs = Vec::new();
        while let Some(row) = rows.next().context(STEP)? {
            let by: u8 = row.get(3).context(STEP)?;
            let queue: String = row.get(2).context(STEP)?;
            let name: Option<String> = row.get(4).context(STEP)?;
            hand_outs.push(HandOuts {
                rev: row.get::<_, i64>(0).context(STEP)? as u64,
                at: row.get(1).context(STEP)?,
                queue: Name::new(&queue),
                by: RateBy::from_code(by).ok_or_else(|| damaged(STEP, format!("unknown kind of rate {by}")))?,
                name: name.as_deref().map(Name::new),
                count: row.get(5).context(STEP)?,
            });
        }
        Ok(hand_outs)
    }

    pub(super) fn sweep_hand_outs(&mut self, until: i64, mono: u64, rows_max: usize) -> Result<usize, StoreError> {
        const STEP: &str = "forget what was handed out";
        self.writable()?;
        let any: Option<i64> =
            self.conn.query_row("SELECT rev FROM hand_outs LIMIT 1", [], |row| row.get(0)).optional().context(STEP)?;
        if any.is_none() {
            return Ok(0);
        }
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
        // In the order of `rev` times never go back.
        let last: Option<i64> = tx
            .query_row(
                "SELECT max(rev) FROM (SELECT rev, at FROM hand_outs ORDER BY rev LIMIT ?1) WHERE at <= ?2",
                params![integer(rows_max), until],
                |row| row.get(0),
            )
            .context(STEP)?;
        let mut forgotten = 0;
        if let Some(last) = last {
            forgotten = tx.execute("DELETE FROM hand_outs WHERE rev <= ?1", [last]).context(STEP)?;
        }
        tx.execute("UPDATE machine SET mono = max(mono, ?1)", [integer(mono)]).context(STEP)?;
        tx.commit().context(STEP)?;
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteOptions;
    use crate::store::suite::World;
    use crate::store::{Commit, Store as _};

    const BOOT: u128 = 1;

    fn open(folder: &std::path::Path) -> SqliteStore {
        let mut store = SqliteStore::open(folder, SqliteOptions::default()).unwrap();
        assert_eq!(store.recover().unwrap().damage, None);
        store
    }

    fn hand_out(world: &mut World, store: &mut SqliteStore, name: Option<&str>, at: i64) {
        let mut commit = Commit::default();
        world.create(&mut commit);
        world.hand_out(&mut commit, "q", name, at);
        store.append(&commit).unwrap();
    }

    fn times(store: &mut SqliteStore, boot: u128, mono: u64) -> Vec<(Option<String>, i64)> {
        let hand_outs = store.hand_outs(Count { boot, mono }).unwrap();
        hand_outs.into_iter().map(|it| (it.name.map(|name| name.to_string()), it.at)).collect()
    }

    #[test]
    fn what_was_handed_out_is_there_for_the_next_hub_settled_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(1);
        let mut store = open(folder.path());
        assert_eq!(times(&mut store, BOOT, 1_000), []);
        hand_out(&mut world, &mut store, None, 1_100);
        hand_out(&mut world, &mut store, Some("u"), 1_200);
        store.settle(1).unwrap();
        store.settle(1).unwrap();
        hand_out(&mut world, &mut store, None, 1_300);
        drop(store);

        let all = [(None, 1_100), (Some("u".to_owned()), 1_200), (None, 1_300)];
        let mut store = open(folder.path());
        assert_eq!(times(&mut store, BOOT, 5_000), all);
        assert_eq!(store.forget_hand_outs(1_100, 6_000, 10).unwrap(), 1);
        drop(store);
        assert_eq!(times(&mut open(folder.path()), BOOT, 7_000), all[1..]);
    }

    #[test]
    fn after_a_start_of_the_machine_what_nobody_knows_of_took_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(2);
        let mut store = open(folder.path());
        times(&mut store, BOOT, 1_000_000);
        hand_out(&mut world, &mut store, None, 1_000_100);
        hand_out(&mut world, &mut store, None, 1_000_300);
        drop(store);
        // A second count begins, and a third: the newest is as old as it was when anybody last knew.
        let mut store = open(folder.path());
        assert_eq!(times(&mut store, 2, 50), [(None, -150), (None, 50)]);
        store.settle(10).unwrap();
        store.forget_hand_outs(-1_000, 450, 10).unwrap();
        drop(store);
        assert_eq!(times(&mut open(folder.path()), 3, 10), [(None, -590), (None, -390)]);
        // A count that went back is another one.
        assert_eq!(times(&mut open(folder.path()), 3, 5), [(None, -595), (None, -395)]);
    }
}
