//! What is kept about access, as it is looked up.

use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use parking_lot::RwLock;

use super::Unauthenticated;
use crate::access::{
    AccessChange, AccessKey, AccessRecord, ApiToken, Fingerprint, Jws, Maker, Principal, Revoked, SCOPED_MS_MAX,
    Scoped, ScopedClaims, Signed, Signer, SigningKey,
};
use crate::task::{Name, Timestamp};

/// How long a key of the hub signs.
const SIGNS_MS: u64 = 30 * 86_400_000;
/// How long it is kept after that: as long as what it has signed may be in force.
const KEPT_MS: u64 = SCOPED_MS_MAX + 3_600_000;

/// What is kept about access, as it is looked up.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Since when callers need a credential.
    closed: RwLock<Option<Timestamp>>,
    tokens: DashMap<Fingerprint, Token>,
    /// The fingerprint of each token. Put after the token and removed before it, so it leads to none that is not there.
    names: DashMap<Name, Fingerprint>,
    /// The hub's own keys, the newest first.
    signers: RwLock<Vec<Arc<Signer>>>,
    /// Scoped tokens that were revoked, or spent.
    ended: DashSet<Box<str>>,
    /// What subjects of issuers were given before these times is in force no longer.
    subjects: DashMap<(Box<str>, Box<str>), Timestamp>,
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

    /// The principal of the API token that made something.
    pub(super) fn maker(&self, maker: &Maker) -> Option<Arc<Principal>> {
        let Maker::Api { name, .. } = maker else { return None };
        let print = *self.names.get(name)?;
        let token = self.tokens.get(&print)?;
        maker.is_api_token(&token.record).then(|| token.principal.clone())
    }

    /// Whether the token is there, and the one that it was.
    pub(super) fn has(&self, token: &ApiToken) -> bool {
        let Some(print) = Fingerprint::parse(&token.digest) else { return false };
        self.tokens.get(&print).is_some_and(|found| *found.record == *token)
    }

    /// Whether what a subject was given has been revoked.
    pub(super) fn is_revoked(&self, signed: &Signed) -> bool {
        !self.subjects.is_empty() && {
            let key = ((*signed.issuer).into(), (*signed.subject).into());
            self.subjects.get(&key).is_some_and(|before| signed.issued_at < *before)
        }
    }

    /// Whether a scoped token, and the key that signed it, are still what they were.
    pub(super) fn is_in_force(&self, scoped: &Scoped) -> bool {
        !self.ended.contains(&*scoped.jti) && self.signers.read().iter().any(|signer| *signer.kid() == *scoped.kid)
    }

    /// Ends a scoped token. Whether it had not ended before.
    pub(super) fn end(&self, jti: &str) -> bool {
        self.ended.insert(jti.into())
    }

    /// Takes back that a scoped token has ended.
    pub(super) fn revive(&self, jti: &str) {
        self.ended.remove(jti);
    }

    /// The key that signs.
    pub(super) fn signer(&self) -> Option<Arc<Signer>> {
        self.signers.read().first().cloned()
    }

    /// What a scoped token says, and the key that signed it.
    pub(super) fn verify(&self, jws: &Jws<'_>, now: Timestamp) -> Result<(ScopedClaims, Arc<Signer>), Unauthenticated> {
        let signer = self.signers.read().iter().find(|signer| signer.is_named_by(jws)).cloned();
        let signer = signer.ok_or(Unauthenticated::Signature)?;
        Ok((signer.verify(jws, now)?, signer))
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
            AccessRecord::SigningKey(key) => {
                let signer = Signer::new(&key).ok_or_else(|| format!("the signing key {} is damaged", key.kid))?;
                let mut signers = self.signers.write();
                signers.retain(|known| known.kid() != signer.kid());
                signers.push(Arc::new(signer));
                signers.sort_by_key(|signer| std::cmp::Reverse(signer.created_at()));
                Ok(false)
            }
            AccessRecord::Revocation(revocation) => {
                match revocation.what {
                    Revoked::Scoped { jti } => drop(self.ended.insert(jti.into())),
                    Revoked::Subject { issuer, subject, before } => {
                        self.subjects.insert((issuer.into(), subject.into()), before);
                    }
                }
                Ok(true)
            }
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
            AccessKey::SigningKey { kid } => {
                let mut signers = self.signers.write();
                let len = signers.len();
                signers.retain(|signer| signer.kid() != kid);
                signers.len() < len
            }
            AccessKey::Scoped { jti } => {
                self.ended.remove(&**jti);
                false
            }
            AccessKey::Subject { issuer, subject } => {
                self.subjects.remove(&(issuer.as_str().into(), subject.as_str().into()));
                false
            }
        }
    }

    /// What is to be committed because of the time: a key that signs where there is none or an old one, and that those go which signed
    /// nothing that is in force. Fails where the system has no randomness.
    pub(super) fn upkeep(&self, now: Timestamp) -> std::io::Result<Vec<AccessChange>> {
        let mut changes = Vec::new();
        let signers = self.signers.read().clone();
        let signs_until = |signer: &Signer| signer.created_at().plus_millis(SIGNS_MS);
        if signers.first().is_none_or(|newest| signs_until(newest) <= now) {
            changes.push(AccessChange::Put(AccessRecord::SigningKey(SigningKey::generate(now)?)));
        }
        // Each signed until the one after it was made.
        for pair in signers.windows(2) {
            if pair[0].created_at().plus_millis(KEPT_MS) <= now {
                changes.push(AccessChange::Remove(AccessKey::SigningKey { kid: pair[1].kid().to_owned() }));
            }
        }
        Ok(changes)
    }

    fn close(&self, since: Timestamp) -> bool {
        let mut closed = self.closed.write();
        let was_open = closed.is_none();
        closed.get_or_insert(since);
        was_open
    }
}
