//! Which credentials are in force.
//!
//! [`Keys`] is shared by all who check callers. It holds no truth: what is durable about access are records, which the hub
//! commits and then hands here ([`Keys::apply`]); what issuers publish is fetched again after a restart.
//!
//! * **An API token** costs one SHA-256 and one lookup in a sharded map.
//! * **What is signed** (JWTs of applications, scoped tokens of the hub) costs a signature the first time. Then its principal is in a
//!   bounded cache, by the digest of its text, and costs what an API token does. The cache is never told that something ended:
//!   what is found there is checked, like any principal.
//! * **What stops being in force** is found by asking again: [`Keys::check`] takes the principal that somebody has held for hours,
//!   and says whether its credential is still in force: its record, the key that signed it, and for a scoped token its
//!   maker's, too. [`Keys::changes`] says when to ask.
//! * **The keys of issuers** change while the hub runs: [`Keys::tend`] looks after them, and a token with an unknown key is a reason
//!   to look at once.
//! * **Tickets** are in memory only; **guesses** are put off by address.
//!
//! What reads and verifies the texts of credentials is pure, and stands in [`access`](crate::access).

mod cache;
mod guesses;
mod issuer;
mod options;
mod registry;
mod tickets;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use self::guesses::{GUESS_WAIT_MAX, GUESSES_FREE};
pub use self::options::{AuthConfig, ClaimNames, ISSUERS_MAX, JwtIssuer, KeyOptions, seen_from};
pub use self::tickets::{NoTicket, TICKET_MS, TICKETS_PER_CALLER_MAX, Ticket};
pub use crate::access::Unauthenticated;

use self::cache::Cache;
use self::guesses::Guesses;
use self::issuer::{Issuer, LOOK_EVERY};
use self::registry::Registry;
use self::tickets::Tickets;
use crate::access::{
    AccessChange, AccessRecord, Credential, Fingerprint, Jws, Maker, MintError, Minted, NewScoped, Principal,
    Revocation, Revoked, Right, SCOPED_MS_MAX, Signed, TokenKind, is_jti, is_maker,
};
use crate::task::Timestamp;

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
    metrics_open: bool,
    registry: Registry,
    issuers: Vec<Issuer>,
    cache: Cache,
    tickets: Tickets,
    guesses: Guesses,
    changes: watch::Sender<u64>,
    refused: [AtomicU64; Unauthenticated::WORDS.len()],
}

impl Keys {
    /// With what is kept; or what is wrong with the options or the records. Reads the files of keys, and fetches nothing.
    pub fn new(options: KeyOptions, records: Vec<AccessRecord>) -> Result<Arc<Keys>, String> {
        if options.issuers.len() > ISSUERS_MAX {
            return Err(format!("auth.jwt: at most {ISSUERS_MAX} issuers are taken"));
        }
        let registry = Registry::default();
        for record in records {
            registry.put(record)?;
        }
        Ok(Arc::new(Keys {
            open: options.open,
            metrics_open: options.metrics_open,
            registry,
            issuers: options.issuers.iter().map(Issuer::new).collect::<Result<_, _>>()?,
            cache: Cache::default(),
            tickets: Tickets::default(),
            guesses: Guesses::default(),
            changes: watch::Sender::new(0),
            refused: Default::default(),
        }))
    }

    /// Whether callers without a credential are served: none was ever made, and no issuer is set.
    pub fn is_open(&self) -> bool {
        self.open || self.issuers.is_empty() && !self.registry.is_closed()
    }

    /// Whether the hub's numbers (`/metrics`) are for whoever asks.
    pub fn are_metrics_open(&self) -> bool {
        self.metrics_open
    }

    /// Who comes with this text: an API token, a scoped token, or a JWT. May wait for the keys of its issuer, a few seconds.
    ///
    /// The same principal each time, as long as nothing changes about it.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, Unauthenticated> {
        let found = match TokenKind::of(token) {
            Some(TokenKind::Api) => self.registry.find(token),
            Some(signed) => self.signed(token, signed, now).await,
            None => Err(Unauthenticated::Malformed("it is no token")),
        };
        let checked = found.and_then(|who| self.check(&who, now).map(|()| who).map_err(Into::into));
        checked.inspect_err(|why| self.refuse(why))
    }

    async fn signed(
        &self,
        token: &str,
        kind: TokenKind<'_>,
        now: Timestamp,
    ) -> Result<Arc<Principal>, Unauthenticated> {
        let print = Fingerprint::of(token);
        if let Some(who) = self.cache.get(print) {
            if self.check(&who, now).is_err() {
                self.cache.remove(print);
            }
            return Ok(who);
        }
        let who = match kind {
            TokenKind::Scoped(jwt) => self.scoped(&Jws::read(jwt)?, now)?,
            _ => self.jwt(&Jws::read(token)?, now).await?,
        };
        let who = Arc::new(who);
        // What is refused all the same needs no place.
        if self.check(&who, now).is_err() { Ok(who) } else { Ok(self.cache.put(print, who)) }
    }

    async fn jwt(&self, jws: &Jws<'_>, now: Timestamp) -> Result<Principal, Unauthenticated> {
        let claimed = jws.claimed_issuer()?;
        let mut why_not = Unauthenticated::Unknown;
        for issuer in self.issuers.iter().filter(|issuer| issuer.is(&claimed)) {
            match issuer.principal(jws, now, || self.moved()).await {
                Ok(who) => return Ok(who),
                Err(why) => why_not = why,
            }
        }
        Err(why_not)
    }

    fn scoped(&self, jws: &Jws<'_>, now: Timestamp) -> Result<Principal, Unauthenticated> {
        let (claims, signer) = self.registry.verify(jws, now)?;
        let maker = match &claims.mk {
            Maker::Api { .. } => self.registry.maker(&claims.mk),
            other => other.principal().map(Arc::new),
        };
        claims.principal(&signer, maker.ok_or(Unauthenticated::Revoked)?)
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
            Credential::Jwt(signed) => self.is_issued(who, signed) && !self.registry.is_revoked(signed),
            Credential::Scoped(scoped) => {
                // A maker is never scoped itself, so this is one step down.
                self.registry.is_in_force(scoped) && self.check(&scoped.maker, now).is_ok()
            }
        };
        if is_in_force { Ok(()) } else { Err(Ended::Revoked) }
    }

    /// Whether its issuer is one still, has its key, and may make such a principal.
    fn is_issued(&self, who: &Principal, signed: &Signed) -> bool {
        let mut issuers = self.issuers.iter().filter(|issuer| issuer.is(&signed.issuer));
        issuers.any(|issuer| issuer.has(signed.key) && issuer.would_make(who))
    }

    /// Moves whenever something that was in force may be so no longer.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes a scoped token of what `maker` may, less what is not asked for.
    pub fn mint(&self, maker: &Arc<Principal>, new: NewScoped, now: Timestamp) -> Result<Minted, MintError> {
        let Some(signer) = self.registry.signer() else {
            let is_anyone = maker.credential == Credential::None;
            return Err(if is_anyone { MintError::Open } else { MintError::Unavailable });
        };
        signer.mint(maker, new, now)
    }

    /// A ticket for one request of this caller.
    pub fn ticket(&self, who: Arc<Principal>, now: Timestamp) -> Result<Ticket, NoTicket> {
        self.tickets.make(who, now)
    }

    /// Whose ticket this is. From here on it is spent.
    pub fn redeem(&self, text: &str, now: Timestamp) -> Result<Arc<Principal>, Unauthenticated> {
        let found = self.tickets.take(text, now);
        let checked = found.and_then(|who| self.check(&who, now).map(|()| who).map_err(Into::into));
        checked.inspect_err(|why| self.refuse(why))
    }

    /// What is to be committed for the scoped token of this name to end; `None` if it is not for the caller to end, or no such name.
    pub fn revoke_scoped(&self, who: &Principal, jti: &str, now: Timestamp) -> Option<AccessChange> {
        let may = is_jti(jti) && (who.may(Right::Administer) || is_maker(who, jti));
        may.then(|| scoped_revocation(jti, now))
    }

    /// What is to be committed for all that a subject of an issuer was given before that time to end.
    pub fn revoke_subject(&self, issuer: &str, subject: &str, before: Timestamp) -> AccessChange {
        let what = Revoked::Subject { issuer: issuer.to_owned(), subject: subject.to_owned(), before };
        // How long its tokens live is for the issuer to say.
        let until = Timestamp::from_millis(i64::MAX);
        AccessChange::Put(AccessRecord::Revocation(Revocation { what, until }))
    }

    /// Spends a token that is for one submission. What is to be committed with it, if anything; or that it has ended, perhaps by
    /// another submission a moment ago. Where the submission is not committed, [`unspend`](Self::unspend) it.
    pub fn spend(&self, who: &Principal, now: Timestamp) -> Result<Option<AccessChange>, Ended> {
        match &who.credential {
            Credential::Scoped(scoped) if scoped.once => {
                if self.registry.end(&scoped.jti) {
                    Ok(Some(scoped_revocation(&scoped.jti, now)))
                } else {
                    Err(Ended::Revoked)
                }
            }
            _ => Ok(None),
        }
    }

    /// Takes back what [`spend`](Self::spend) did, where nothing came of it.
    pub fn unspend(&self, who: &Principal) {
        if let Credential::Scoped(scoped) = &who.credential
            && scoped.once
        {
            self.registry.revive(&scoped.jti);
        }
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

    /// What is to be committed because of the time: at the start, and every hour or so. A hub makes scoped tokens once it has
    /// committed and applied this. Fails where the system has no randomness.
    pub fn upkeep(&self, now: Timestamp) -> std::io::Result<Vec<AccessChange>> {
        self.registry.upkeep(now)
    }

    /// Looks after the keys of issuers, for as long as it is polled.
    pub async fn tend(&self) {
        loop {
            let looks = self.issuers.iter().map(|issuer| issuer.look(|| self.moved()));
            futures::future::join_all(looks).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Counts a wrong credential of this address: for how long its refusal is to wait. Nothing for what was right once.
    pub fn guessed(&self, address: IpAddr, why: &Unauthenticated) -> Duration {
        if why.is_guess() { self.guesses.wrong(address, Instant::now()) } else { Duration::ZERO }
    }

    /// How many credentials were refused so far, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Unauthenticated::WORDS.into_iter().zip(self.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    fn refuse(&self, why: &Unauthenticated) {
        self.refused[why.index()].fetch_add(1, Ordering::Relaxed);
    }

    fn moved(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Forgotten when the longest of all would have ended.
fn scoped_revocation(jti: &str, now: Timestamp) -> AccessChange {
    let what = Revoked::Scoped { jti: jti.to_owned() };
    AccessChange::Put(AccessRecord::Revocation(Revocation { what, until: now.plus_millis(SCOPED_MS_MAX) }))
}

#[cfg(test)]
mod jwt_tests;
#[cfg(test)]
mod tests;
