//! Who may do what, and who did what: what is kept about access, and the audit.
//!
//! Both go through the writer, like all that lasts. A step about access is decided there from the records as they are, so of two
//! tokens of one name the second is refused; it counts for everybody once it is on disk, and before whoever asked for it
//! is answered: the [`AccessListener`] hears of it in between. The row of a command is in the commit of what it is about, and
//! only where the command was accepted.
//!
//! What was not accepted has no commit of its own. It is put down here, up to a bound, and goes with the next commit, or a moment
//! later by itself. Who is refused again and again fills that room and is only counted from then on; nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use super::authors::Authors;
use super::inbox::{Bound, Reply, Request};
use super::{Hub, HubError};
use crate::access::{AccessChange, AccessRecord, AccessRecords, AccessRefusal, AuditRow};
use crate::engine::{Answer, Command};
use crate::seldom::Seldom;
use crate::store::{AuditPage, AuditQuery};

/// Rows of refusals that may wait for a commit: five times as many a second are written at most.
const REFUSALS_MAX: usize = 200;
/// The longest text of such a row: a name that is too long stands there cut.
const REFUSAL_TEXT_BYTES_MAX: usize = 256;
/// How long the audit is kept, where nothing else is said.
pub(super) const AUDIT_KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Hears of each step about access, once it is on disk.
pub trait AccessListener: Send + Sync {
    /// Called by the writer, in the order of the steps: so it must be quick, and must not ask the hub for anything.
    fn changed(&self, change: &AccessChange);
}

/// Why a step about access was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessError {
    Refused(AccessRefusal),
    Failed(HubError),
}

impl From<HubError> for AccessError {
    fn from(error: HubError) -> AccessError {
        AccessError::Failed(error)
    }
}

/// What everybody shares of it.
pub(super) struct Ledger {
    kept: RwLock<Kept>,
    refusals: Mutex<Vec<AuditRow>>,
    /// Told when somebody may be let in no longer.
    ended: Notify,
}

struct Kept {
    records: AccessRecords,
    authors: Authors,
    listener: Option<Arc<dyn AccessListener>>,
}

impl Ledger {
    pub(super) fn new(records: Vec<AccessRecord>) -> Ledger {
        let mut authors = Authors::default();
        for record in &records {
            authors.apply(&AccessChange::Put(record.clone()));
        }
        let kept = Kept { records: AccessRecords::of(records), authors, listener: None };
        Ledger { kept: RwLock::new(kept), refusals: Mutex::default(), ended: Notify::new() }
    }

    /// Looks at the records as they are on disk.
    pub(super) fn look<T>(&self, look: impl FnOnce(&AccessRecords) -> T) -> T {
        look(&self.kept.read().records)
    }

    /// Looks at who is let in, as it is on disk.
    pub(super) fn look_authors<T>(&self, look: impl FnOnce(&Authors) -> T) -> T {
        look(&self.kept.read().authors)
    }

    /// Resolves once somebody may be let in no longer.
    pub(super) async fn someone_ended(&self) {
        self.ended.notified().await;
    }

    /// These steps are on disk.
    pub(super) fn apply(&self, changes: &[AccessChange]) {
        if changes.is_empty() {
            return;
        }
        let mut kept = self.kept.write();
        for change in changes {
            kept.records.apply(change);
            if kept.authors.apply(change) {
                self.ended.notify_one();
            }
            if let Some(listener) = &kept.listener {
                listener.changed(change);
            }
        }
    }

    /// The rows of refusals that wait.
    pub(super) fn take_refusals(&self) -> Vec<AuditRow> {
        std::mem::take(&mut self.refusals.lock())
    }

    /// Those that could not be written wait again. Says how many were dropped because there were too many.
    pub(super) fn put_back(&self, rows: impl Iterator<Item = AuditRow>) -> usize {
        let mut refusals = self.refusals.lock();
        refusals.splice(..0, rows);
        let over = refusals.len().saturating_sub(REFUSALS_MAX);
        refusals.truncate(REFUSALS_MAX);
        over
    }
}

impl Hub {
    /// What is kept about access, API tokens by name.
    pub fn access_records(&self) -> Vec<AccessRecord> {
        self.shared().ledger.look(|records| records.iter().cloned().collect())
    }

    /// Makes a listener from the records that there are, which hears of each step from then on: none is missed in between. It
    /// takes the place of one before.
    pub fn listen_to_access<L, E>(&self, make: impl FnOnce(Vec<AccessRecord>) -> Result<Arc<L>, E>) -> Result<Arc<L>, E>
    where
        L: AccessListener + 'static,
    {
        let mut kept = self.shared().ledger.kept.write();
        let listener = make(kept.records.iter().cloned().collect())?;
        kept.listener = Some(listener.clone());
        Ok(listener)
    }

    /// Takes these steps, all or none, with the row that says who did. When this returns they are on disk, and hold.
    pub async fn change_access(&self, changes: Vec<AccessChange>, audit: Option<AuditRow>) -> Result<(), AccessError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Access { changes, row: audit.map(Box::new), reply: Some(reply) };
        // Never turned away, so that a token can be taken back while whoever has it floods the hub. Bounded by those who wait.
        self.shared().inbox.push(request, Bound::Free)?;
        answer.await.unwrap_or(Err(AccessError::Failed(HubError::Stopped)))
    }

    /// Notes that somebody was not let do something. Where too many of these wait, this one is only counted.
    pub fn note_refused(&self, mut row: AuditRow) {
        row.clip(REFUSAL_TEXT_BYTES_MAX);
        let shared = self.shared();
        let mut refusals = shared.ledger.refusals.lock();
        if refusals.len() >= REFUSALS_MAX {
            drop(refusals);
            shared.metrics.audit_dropped(1);
            static DROPPED: Seldom = Seldom::new();
            if let Some(unsaid) = DROPPED.happened() {
                tracing::warn!(unsaid, "too much is refused: not all of it is in the audit");
            }
            return;
        }
        refusals.push(row);
        let first = refusals.len() == 1;
        drop(refusals);
        if first {
            let _ = shared.inbox.push(Request::Refusals, Bound::Free);
        }
    }

    /// A page of the audit, the newest first.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, HubError> {
        self.shared().read(move |reader| reader.audit(&query)).await
    }

    /// Sends the writer a command and waits for its answer; with the row that says who sent it, where that is to be known.
    pub(super) async fn ask_noted(
        &self,
        command: Command,
        bound: Bound,
        row: Option<Box<AuditRow>>,
    ) -> Result<Answer, HubError> {
        let (sender, answer) = oneshot::channel();
        self.shared().inbox.push(Request::Command { command, reply: Reply::Caller(sender, row) }, bound)?;
        answer.await.unwrap_or(Err(HubError::Stopped))
    }
}

#[cfg(test)]
mod tests;
