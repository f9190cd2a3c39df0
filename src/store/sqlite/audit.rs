//! The audit: entries in the order of their numbers, the newest of them staged.
//!
//! There is an index by target, because what was done to a task is what people ask. All else is looked for from the newest on, so
//! many entries a page: more indexes would cost each entry more than each question is worth.

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use super::failure::{ErrorContext as _, damaged};
use super::reader::Shared;
use super::{SqliteStore, integer, schema};
use crate::access::{AuditEntry, AuditRow};
use crate::store::{AuditPage, AuditQuery, StoreError};
use crate::task::{Name, Timestamp};

const STEP: &str = "read the audit";

/// Entries that are looked at for one page: some tens of milliseconds.
const LOOKED_MAX: usize = 20_000;

/// The last number that was given to an entry of the view; 0 where an older hub wrote it.
pub(super) fn last_seq(conn: &Connection) -> Result<u64, StoreError> {
    if schema::known_version(conn)? < schema::WITH_ACCESS {
        return Ok(0);
    }
    conn.query_row("SELECT audit_seq FROM state", [], |row| row.get(0)).map(|seq: i64| seq as u64).context(STEP)
}

/// How many entries the view has.
pub(super) fn count(conn: &Connection) -> Result<u64, StoreError> {
    if schema::known_version(conn)? < schema::WITH_ACCESS {
        return Ok(0);
    }
    conn.query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).map(|count: i64| count as u64).context(STEP)
}

/// The number and the time of the last entry up to this number.
fn up_to(conn: &Connection, seq: i64) -> Result<Option<(i64, Timestamp)>, StoreError> {
    conn.prepare_cached("SELECT seq, at FROM audit WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1")
        .and_then(|mut it| it.query_row([seq], |row| Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?)))).optional())
        .context(STEP)
}

/// The number from which on all are at this time or later.
fn first_at(conn: &Connection, at: Timestamp) -> Result<i64, StoreError> {
    // All up to `below` are earlier, and none from `from` on.
    let (mut below, mut from) = (0, up_to(conn, i64::MAX)?.map_or(1, |(last, _)| last + 1));
    while below + 1 < from {
        let middle = below + (from - below) / 2;
        match up_to(conn, middle)? {
            Some((_, found)) if found >= at => from = middle,
            _ => below = middle,
        }
    }
    Ok(from)
}

impl Shared {
    pub(super) fn find_audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let mut found = Found { query, page: AuditPage::default(), looked: 0, last: 0 };
        let staged_from = {
            let staging = self.staging.read();
            for entry in staging.audit_entries() {
                if !found.look(entry) {
                    return Ok(found.page);
                }
            }
            staging.audit_entries().last().map(|entry| entry.seq)
        };
        let conn = self.pool.checkout()?;
        let mut below = [staged_from, query.beyond].into_iter().flatten().min().map_or(i64::MAX, |seq| seq as i64);
        if let Some(before) = query.before {
            below = below.min(first_at(&conn, before)?);
        }
        let of_target = query.target.is_some();
        let which = if of_target { "INDEXED BY audit_target WHERE target = ?2 AND" } else { "WHERE ?2 IS NULL AND" };
        let sql = format!(
            "SELECT seq, at, who, role, token, address, action, target, outcome FROM audit {which} seq < ?1
             ORDER BY seq DESC"
        );
        let mut statement = conn.prepare_cached(&sql).context(STEP)?;
        let mut rows = statement.query(params![below, query.target]).context(STEP)?;
        while let Some(row) = rows.next().context(STEP)? {
            let entry = entry_of(row)?;
            let is_over = query.after.is_some_and(|after| entry.at < after);
            if is_over || !found.look(&entry) {
                break;
            }
        }
        Ok(found.page)
    }
}

/// A page that is being filled.
struct Found<'q> {
    query: &'q AuditQuery,
    page: AuditPage,
    looked: usize,
    /// The last that was looked at.
    last: u64,
}

impl Found<'_> {
    /// Whether the next is to be looked at.
    fn look(&mut self, entry: &AuditEntry) -> bool {
        if self.looked == LOOKED_MAX {
            self.page.beyond = Some(self.last);
            return false;
        }
        if self.query.matches(entry) {
            if self.page.entries.len() == self.query.limit {
                self.page.beyond = Some(self.last);
                return false;
            }
            self.page.entries.push(entry.clone());
        }
        // Those that are beyond the page before it are not of this one.
        if self.query.beyond.is_none_or(|beyond| entry.seq < beyond) {
            self.looked += 1;
            self.last = entry.seq;
        }
        true
    }
}

fn entry_of(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    let wrong = |what: &str| damaged(STEP, format!("an entry has an unknown {what}"));
    let text = |at: usize| row.get::<_, String>(at).context(STEP);
    let role = text(3)?.parse().map_err(|_| wrong("role"))?;
    let address: Option<String> = row.get(5).context(STEP)?;
    let address = address.map(|address| address.parse()).transpose().map_err(|_| wrong("address"))?;
    let who: Option<String> = row.get(2).context(STEP)?;
    Ok(AuditEntry {
        seq: row.get::<_, i64>(0).context(STEP)? as u64,
        at: Timestamp::from_millis(row.get(1).context(STEP)?),
        row: AuditRow {
            who: who.as_deref().map(Name::new),
            role,
            token: text(4)?,
            address,
            action: text(6)?,
            target: row.get(7).context(STEP)?,
            outcome: text(8)?,
        },
    })
}

impl SqliteStore {
    /// The numbers of the oldest entry and of the newest, of a store whose log is settled.
    pub(super) fn audit_ends(&self) -> Result<(u64, u64), StoreError> {
        let first: Option<i64> =
            self.conn.query_row("SELECT min(seq) FROM audit", [], |row| row.get(0)).context(STEP)?;
        Ok((first.map_or(self.audit_seq + 1, |seq| seq as u64), self.audit_seq))
    }

    /// The time of the newest entry of the view.
    pub(super) fn last_audit_at(&self) -> Option<Timestamp> {
        Some(up_to(&self.conn, i64::MAX).ok()??.1)
    }

    pub(super) fn sweep_audit(&mut self, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
        const STEP: &str = "forget entries of the audit";
        self.writable()?;
        let old: Option<i64> = self
            .conn
            .prepare_cached("SELECT max(seq) FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT ?1) WHERE at < ?2")
            .and_then(|mut it| it.query_row(params![integer(rows_max), before.as_millis()], |row| row.get(0)))
            .context(STEP)?;
        let Some(last) = old else { return Ok(0) };
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).context(STEP)?;
        let forgotten = tx.execute("DELETE FROM audit WHERE seq <= ?1", [last]).context(STEP)?;
        tx.commit().context(STEP)?;
        Ok(forgotten)
    }
}
