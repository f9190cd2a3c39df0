//! What is kept about access, as it is looked up.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::RwLock;

use super::Unauthenticated;
use crate::access::{AccessKey, AccessRecord, ApiToken, Fingerprint, Principal};
use crate::task::{Name, Timestamp};

/// What is kept about access, as it is looked up.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Since when callers need a credential.
    closed: RwLock<Option<Timestamp>>,
    tokens: DashMap<Fingerprint, Token>,
    /// The fingerprint of each token. Put after the token and removed before it, so it leads to none that is not there.
    names: DashMap<Name, Fingerprint>,
}

#[derive(Debug)]
struct Token {
    record: Arc<ApiToken>,
    principal: Arc<Principal>,
}

impl Registry {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.read().is_some()
    }

    /// The principal of an API token.
    pub(super) fn find(&self, text: &str) -> Result<Arc<Principal>, Unauthenticated> {
        let token = self.tokens.get(&Fingerprint::of(text)).ok_or(Unauthenticated::Unknown)?;
        Ok(token.principal.clone())
    }

    /// Whether the token is there, and the one that it was.
    pub(super) fn has(&self, token: &ApiToken) -> bool {
        let Some(print) = Fingerprint::parse(&token.digest) else { return false };
        self.tokens.get(&print).is_some_and(|found| *found.record == *token)
    }

    /// Takes a record, in place of the one with its key. Whether something may have ended by that; or why it cannot be used.
    pub(super) fn put(&self, record: AccessRecord) -> Result<bool, String> {
        match record {
            AccessRecord::Closed { since } => Ok(self.close(since)),
            AccessRecord::ApiToken(record) => {
                let record = Arc::new(record);
                let print = Fingerprint::parse(&record.digest)
                    .ok_or_else(|| format!("the digest of the API token {} is none", record.name))?;
                let principal = record.principal().map_err(|why| format!("the API token {}: {why}", record.name))?;
                let (name, since) = (record.name.clone(), record.created_at);
                let replaced = self.tokens.insert(print, Token { record, principal: Arc::new(principal) });
                let before = self.names.insert(name, print).filter(|before| *before != print);
                if let Some(before) = before {
                    self.tokens.remove(&before);
                }
                // A hub that has a token is closed, even if that was not written down.
                Ok(self.close(since) | replaced.is_some() | before.is_some())
            }
            AccessRecord::SigningKey(_) | AccessRecord::Revocation(_) => Ok(false),
        }
    }

    /// Forgets a record. Whether something may have ended by that.
    pub(super) fn remove(&self, key: &AccessKey) -> bool {
        match key {
            // It is closed once and for all.
            AccessKey::Closed => false,
            AccessKey::ApiToken { name } => match self.names.remove(name) {
                Some((_, print)) => self.tokens.remove(&print).is_some(),
                None => false,
            },
            AccessKey::SigningKey { .. } | AccessKey::Scoped { .. } | AccessKey::Subject { .. } => false,
        }
    }

    fn close(&self, since: Timestamp) -> bool {
        let mut closed = self.closed.write();
        let was_open = closed.is_none();
        closed.get_or_insert(since);
        was_open
    }
}
