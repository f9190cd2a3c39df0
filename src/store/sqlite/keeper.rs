//! What watches over an open store beside its tables: its names, its witness, and what was found damaged.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::FILE_NAME;
use super::failure::{ErrorContext as _, damaged};
use super::names::{Look, Names};
use super::wal;
use super::witness::{Carried, Head, WalEnd, Witness};
use crate::store::StoreError;

/// What is wrong with a store for good, shared with the thread that looks for it. Empty: nothing is known to be.
#[derive(Clone, Default)]
pub(super) struct Damage(Arc<Mutex<Option<String>>>);

/// The same, for a thread that ends with the store.
pub(super) struct WeakDamage(Weak<Mutex<Option<String>>>);

impl WeakDamage {
    pub fn upgrade(&self) -> Option<Damage> {
        self.0.upgrade().map(Damage)
    }
}

impl Damage {
    pub fn downgrade(&self) -> WeakDamage {
        WeakDamage(Arc::downgrade(&self.0))
    }

    /// The first that was found stays.
    pub fn found(&self, what: impl Into<String>) {
        self.0.lock().get_or_insert_with(|| what.into());
    }

    pub fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Refuses where there is some.
    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.0.lock() {
            None => Ok(()),
            Some(what) => Err(StoreError { step: "use the store", cause: what.clone(), lasting: true }),
        }
    }
}

/// Of a store in a folder.
pub(super) struct Keeper {
    pub names: Arc<Mutex<Names>>,
    witness: Witness,
    /// The write-ahead log, to read its name from.
    log: File,
    head: Head,
    /// As SQLite counts what others have written.
    data_version: i64,
    witness_fails: bool,
}

impl Keeper {
    /// Once everything is open, and before anything is written. `head`: what the witness said.
    pub fn begin(folder: &Path, conn: &Connection, head: Head) -> Result<Keeper, StoreError> {
        const STEP: &str = "write the witness";
        // Makes the write-ahead log and its index where they are missing.
        conn.query_row("SELECT count(*) FROM probe", [], |_| Ok(())).context(STEP)?;
        let mut witness = Witness::open(folder).context(STEP)?;
        witness.write(&head).context(STEP)?;
        witness.sync().context(STEP)?;
        let log = File::open(folder.join(format!("{FILE_NAME}-wal"))).context("open the write-ahead log")?;
        let names = Arc::new(Mutex::new(Names::of(folder)?));
        let data_version = data_version(conn)?;
        Ok(Keeper { names, witness, log, head, data_version, witness_fails: false })
    }

    /// Whether the files are still there under their names, and still ours.
    pub fn look(&self, conn: &Connection) -> Result<(), StoreError> {
        match self.names.lock().look()? {
            Look::Same => Ok(()),
            // Another hub may have had them.
            Look::Back if data_version(conn)? == self.data_version => Ok(()),
            Look::Back => {
                Err(damaged("find the data folder", "another program wrote to the database while it was away"))
            }
        }
    }

    /// A commit is on disk, and the write-ahead log has so many frames now.
    pub fn committed(&mut self, opening: &str, rev: u64, row: u64, frames: usize) {
        let frames = frames as u64;
        let name = match self.head.wal {
            WalEnd::At { name, frames: before, carried: Carried::Nothing | Carried::Some } if frames > before => {
                Some(name)
            }
            _ => wal::name(&mut self.log),
        };
        let carried = match self.head.wal {
            WalEnd::At { name: before, carried: Carried::Some, .. } if Some(before) == name => Carried::Some,
            _ => Carried::Nothing,
        };
        if self.head.opening != opening {
            self.head.opening = opening.to_owned();
        }
        (self.head.rev, self.head.row) = (rev, row);
        self.head.wal = name.map_or(WalEnd::Open, |name| WalEnd::At { name, frames, carried });
        self.write();
    }

    /// So many frames of the write-ahead log are in the database too. Where that is not all, what stands there is of different
    /// moments, and only together with the log is it a whole.
    pub fn carried_over(&mut self, frames: u64, carried: u64) {
        if let Some(name) = wal::name(&mut self.log) {
            let carried = if carried == frames { Carried::All } else { Carried::Some };
            self.head.wal = WalEnd::At { name, frames, carried };
            self.write();
        }
    }

    /// The write-ahead log is empty, and nothing is written any more.
    pub fn closed(&mut self) {
        self.head.wal = WalEnd::Closed;
        self.write();
        let _ = self.witness.sync();
    }

    /// A witness that cannot be written is older than the history, which is allowed.
    fn write(&mut self) {
        if let Err(error) = self.witness.write(&self.head)
            && !std::mem::replace(&mut self.witness_fails, true)
        {
            tracing::warn!(%error, "cannot write down how far the history goes: a loss of its end may not be noticed");
        }
    }
}

fn data_version(conn: &Connection) -> Result<i64, StoreError> {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0)).context("find the data folder")
}
