//! Which credentials are in force.
//!
//! [`Keys`] is shared by all who check callers. It holds no truth: what is durable about access are records, which the hub
//! commits and then hands here ([`Keys::apply`]); what issuers publish is fetched again after a restart.
//!
//! * **An API token** costs one SHA-256 and one lookup in a sharded map.
//! * **What stops being in force** is found by asking again: [`Keys::check`] takes the principal that somebody has held for hours,
//!   and says whether its credential, and that of its maker, is still in force. [`Keys::changes`] says when to ask.
//!
//! What reads and verifies the texts of credentials is pure, and stands in [`access`](crate::access).

mod registry;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

pub use crate::access::Unauthenticated;
use crate::access::{AccessChange, AccessRecord, Credential, Principal, TokenKind};
use crate::task::Timestamp;

use self::registry::Registry;

/// What is set about access when a hub starts.
#[derive(Clone, Debug, Default)]
pub struct KeyOptions {
    /// Serves callers without a credential whatever is kept (`--open`).
    pub open: bool,
}

/// Why a principal is one no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Expired,
    /// Its credential was taken back, or its maker's was, or the hub was closed to those without.
    Revoked,
}

impl From<Ended> for Unauthenticated {
    fn from(ended: Ended) -> Unauthenticated {
        match ended {
            Ended::Expired => Unauthenticated::Expired,
            Ended::Revoked => Unauthenticated::Revoked,
        }
    }
}

/// The credentials that are in force.
#[derive(Debug)]
pub struct Keys {
    open: bool,
    registry: Registry,
    changes: watch::Sender<u64>,
    refused: [AtomicU64; Unauthenticated::WORDS.len()],
}

impl Keys {
    /// With what is kept; or what is wrong with the options or the records.
    pub fn new(options: KeyOptions, records: Vec<AccessRecord>) -> Result<Arc<Keys>, String> {
        let registry = Registry::default();
        for record in records {
            registry.put(record)?;
        }
        Ok(Arc::new(Keys { open: options.open, registry, changes: watch::Sender::new(0), refused: Default::default() }))
    }

    /// Whether callers without a credential are served.
    pub fn is_open(&self) -> bool {
        self.open || !self.registry.is_closed()
    }

    /// Who comes with this text.
    ///
    /// The same principal each time, as long as nothing changes about it.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, Unauthenticated> {
        let found = match TokenKind::of(token) {
            Some(TokenKind::Api) => self.registry.find(token),
            _ => Err(Unauthenticated::Unknown),
        };
        let checked = found.and_then(|who| self.check(&who, now).map(|()| who).map_err(Into::into));
        checked.inspect_err(|why| {
            self.refused[why.index()].fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Whether a principal still is one.
    pub fn check(&self, who: &Principal, now: Timestamp) -> Result<(), Ended> {
        if who.expires_at.is_some_and(|at| at <= now) {
            return Err(Ended::Expired);
        }
        let is_in_force = match &who.credential {
            Credential::Owner => true,
            Credential::None => self.is_open(),
            Credential::ApiToken(token) => self.registry.has(token),
            Credential::Jwt(_) | Credential::Scoped(_) => false,
        };
        if is_in_force { Ok(()) } else { Err(Ended::Revoked) }
    }

    /// Moves whenever something that was in force may be so no longer.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes over what was committed.
    pub fn apply(&self, change: &AccessChange) {
        let may_end = match change {
            // What does not read is in force for nobody. It was checked before it was committed.
            AccessChange::Put(record) => self.registry.put(record.clone()).unwrap_or_else(|why| {
                tracing::error!(why, "a record about access cannot be used");
                true
            }),
            AccessChange::Remove(key) => self.registry.remove(key),
        };
        if may_end {
            self.moved();
        }
    }

    /// How many credentials were refused so far, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Unauthenticated::WORDS.into_iter().zip(self.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    fn moved(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests;
