//! The hub of a folder, for whoever may write there: while it runs, by the socket in the folder; else by its files.
//!
//! Which of the two it is, is asked of the lock that a hub has on its folder. Whoever has it here has the files alone until the
//! command ends; a hub that is started meanwhile says that another is running.

use std::path::Path;

use super::outcome::Failed;
use crate::access::{AccessChange, AccessRecords, AuditEntry, AuditRow, Principal};
use crate::client::Client;
use crate::server::ADMIN_SOCKET;
use crate::store::{AuditPage, AuditQuery, Commit, SqliteOptions, SqliteStore, Store, StoreError};
use crate::task::Timestamp;

pub(super) enum Folder {
    Running(Client),
    Resting(Box<Resting>),
}

/// The files of a hub that does not run.
pub(super) struct Resting {
    store: SqliteStore,
    records: AccessRecords,
    audit_seq: u64,
    /// The newest time that is written down.
    last_at: Timestamp,
}

/// Whether a folder without a hub's files becomes one with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfNone {
    Make,
    Refuse,
}

impl Folder {
    pub(super) fn open(folder: &Path, if_none: IfNone) -> Result<Folder, Failed> {
        if if_none == IfNone::Refuse && !SqliteStore::is_in(folder) {
            let why = format!("{} is no folder of a hub: name it with --data", folder.display());
            return Err(Failed::usage(why));
        }
        match SqliteStore::open(folder, SqliteOptions::default()) {
            Ok(store) => Resting::begin(store).map(|resting| Folder::Resting(Box::new(resting))),
            Err(error) if error.is_in_use() => {
                Ok(Folder::Running(Client::new(&format!("unix:{}", folder.join(ADMIN_SOCKET).display()))?))
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

impl Resting {
    fn begin(mut store: SqliteStore) -> Result<Resting, Failed> {
        let recovered = store.recover().map_err(|error| failed(&error))?;
        if let Some(damage) = recovered.damage {
            return Err(Failed::here(damage));
        }
        let records = AccessRecords::of(recovered.access);
        Ok(Resting { store, records, audit_seq: recovered.audit.1, last_at: recovered.last_at })
    }

    pub(super) fn records(&self) -> &AccessRecords {
        &self.records
    }

    /// Takes these steps, all or none, and writes down that whoever may write here did `action` to `target`.
    pub(super) fn change(&mut self, changes: Vec<AccessChange>, action: &str, target: &str) -> Result<(), Failed> {
        let (mut steps, at) = (Vec::new(), Timestamp::now().max(self.last_at));
        let taken = self.records.extend(&mut steps, changes, at);
        taken.map_err(|refusal| Failed::refused(format!("{target}: {refusal}")))?;
        let row = AuditRow::of(&Principal::owner(), None, action, Some(target.to_owned()), AuditRow::OK);
        let commit =
            Commit { access: steps, audit: vec![AuditEntry { seq: self.audit_seq + 1, at, row }], ..Commit::default() };
        self.store.append(&commit).map_err(|error| failed(&error))?;
        self.audit_seq += 1;
        self.last_at = at;
        commit.access.iter().for_each(|step| self.records.apply(step));
        Ok(())
    }

    pub(super) fn audit(&self, query: &AuditQuery) -> Result<AuditPage, Failed> {
        self.store.reader().audit(query).map_err(|error| failed(&error))
    }
}

fn failed(error: &StoreError) -> Failed {
    Failed::here(error.to_string())
}
