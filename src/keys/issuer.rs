//! The keys of an issuer of JWTs, which change while the hub runs.
//!
//! Files are looked at every [`LOOK_EVERY`], sets behind a URL are fetched anew every `jwks_refresh`. A token that names a key which is
//! not known is a reason to fetch at once, since whoever changes keys signs with the new one a moment later: such callers wait, all of
//! them for the same fetch. It is no reason to fetch more often than every [`FETCH_EVERY_MIN`], as anyone can name a key.
//!
//! A fetch that fails, or brings what is no set of keys, leaves those that are known: the set of an issuer that is down for
//! an hour is the one from before. One that succeeds replaces them all, so a key that is taken back is in force
//! no longer, and neither is what it has signed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::Unauthenticated;
use super::options::{JwtIssuer, Source};
use crate::access::{Alg, Fingerprint, Jws, JwtRules, KeySource, Principal, VerifyKey, read_keys};
use crate::dial;
use crate::lived;
use crate::task::Timestamp;

/// How often files are looked at, and whether a set is due.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a set is fetched at most because tokens name unknown keys.
const FETCH_EVERY_MIN: Duration = Duration::from_secs(2);
/// How long all of a fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// The largest file or set. A hundred keys have about 50 KiB.
const SET_BYTES_MAX: usize = 256 << 10;
/// The most callers that wait for a fetch; more are refused at once.
const WAITERS_MAX: usize = 1_000;
/// The most keys that are tried for a token that names none.
const TRIES_MAX: usize = 8;

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    rules: JwtRules,
    source: Source,
    /// `None`: never fetched.
    keys: RwLock<Option<Arc<[VerifyKey]>>>,
    fetched: Mutex<Fetched>,
    waiters: AtomicUsize,
    /// Made when it is first needed: it reads the certificates of the machine.
    http: OnceCell<reqwest::Client>,
}

#[derive(Debug, Default)]
struct Fetched {
    began: Option<Instant>,
    /// How the bytes looked that the keys were last read from, or tried to be.
    seen: Option<Fingerprint>,
}

enum Verdict {
    Signed(Fingerprint),
    /// By none of the keys that it may be.
    Wrong,
    /// There may be keys that are not known yet.
    Unknown,
}

impl Issuer {
    /// With its keys, where they stand in a file; or what is wrong.
    pub(super) fn new(config: &JwtIssuer) -> Result<Issuer, String> {
        let (rules, source) = config.parts()?;
        let (keys, seen) = match source.file() {
            None => (None, None),
            Some(path) => {
                let read = || {
                    let bytes = read_now(path).map_err(|why| why.to_string())?;
                    Ok((read_keys(&bytes, source.kind())?, Fingerprint::of(&bytes)))
                };
                let (keys, seen) = read().map_err(|why: String| format!("{}: {why}", path.display()))?;
                (Some(keys.into()), Some(seen))
            }
        };
        Ok(Issuer {
            rules,
            source,
            keys: RwLock::new(keys),
            fetched: Mutex::new(Fetched { began: None, seen }),
            waiters: AtomicUsize::new(0),
            http: OnceCell::new(),
        })
    }

    pub(super) fn is(&self, issuer: &str) -> bool {
        *self.rules.issuer == *issuer
    }

    /// Whether this is one of its keys.
    pub(super) fn has(&self, key: Fingerprint) -> bool {
        self.keys.read().iter().flat_map(|keys| keys.iter()).any(|own| own.print() == key)
    }

    /// Whether a principal that it made once could be made now, as far as its rules go.
    pub(super) fn would_make(&self, who: &Principal) -> bool {
        who.role <= self.rules.roles_max
    }

    /// Who comes with a token of its. May wait for its keys. `changed` is called when these are others than before.
    pub(super) async fn principal(
        &self,
        jws: &Jws<'_>,
        now: Timestamp,
        changed: impl Fn(),
    ) -> Result<Principal, Unauthenticated> {
        let mut verdict = self.verify(jws);
        if matches!(verdict, Verdict::Unknown) && matches!(self.source, Source::SetFile(_) | Source::Url { .. }) {
            verdict = self.verify_fetching(jws, changed).await;
        }
        match verdict {
            Verdict::Signed(key) => self.rules.principal(jws, key, now),
            Verdict::Unknown if self.keys.read().is_none() => Err(Unauthenticated::Unavailable),
            Verdict::Wrong | Verdict::Unknown => Err(Unauthenticated::Signature),
        }
    }

    fn verify(&self, jws: &Jws<'_>) -> Verdict {
        let Some(keys) = self.keys.read().clone() else { return Verdict::Unknown };
        if self.rules.algs.as_ref().is_some_and(|algs| !algs.contains(&jws.alg())) {
            return Verdict::Wrong;
        }
        // A name is a hint where one of the two has none.
        let may_be = |key: &&VerifyKey| match (jws.kid(), key.kid()) {
            (Some(named), Some(own)) => named == own,
            _ => true,
        };
        let mut tried = keys.iter().filter(|key| key.alg() == jws.alg()).filter(may_be).take(TRIES_MAX);
        let signed = tried.find(|key| jws.is_signed_by(key));
        let is_named = || jws.kid().is_some() && keys.iter().any(|key| key.kid() == jws.kid());
        match signed {
            Some(key) => Verdict::Signed(key.print()),
            // What is fetched has no secrets, now or later.
            None if is_named() || jws.alg() == Alg::Hs256 && self.source.kind() == KeySource::Public => Verdict::Wrong,
            None => Verdict::Unknown,
        }
    }

    /// The verdict once keys were fetched for a token that none of the known ones has signed; soon after the last time.
    async fn verify_fetching(&self, jws: &Jws<'_>, changed: impl Fn()) -> Verdict {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let asked = Instant::now();
        let waits = self.waiters.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiters);
        if waits >= WAITERS_MAX {
            return Verdict::Unknown;
        }
        let mut fetched = self.fetched.lock().await;
        // Another one may have had them fetched meanwhile: for its own token, or for this one too.
        let verdict = self.verify(jws);
        if !matches!(verdict, Verdict::Unknown) || fetched.began.is_some_and(|began| began > asked) {
            return verdict;
        }
        if let Some(began) = fetched.began {
            tokio::time::sleep_until(began + FETCH_EVERY_MIN).await;
        }
        self.fetch(&mut fetched, changed).await;
        self.verify(jws)
    }

    /// Looks whether its keys are others by now, if it is time for that.
    pub(super) async fn look(&self, changed: impl Fn()) {
        let mut fetched = self.fetched.lock().await;
        let is_due = match &self.source {
            Source::KeyFile(_) | Source::SetFile(_) => true,
            Source::Url { refresh, .. } => {
                // What never came is asked for sooner.
                let wait = if self.keys.read().is_some() { *refresh } else { FETCH_EVERY_MIN };
                fetched.began.is_none_or(|began| began.elapsed() >= wait)
            }
        };
        if is_due {
            self.fetch(&mut fetched, changed).await;
        }
    }

    /// Looks, whether it is time for that or not.
    #[cfg(test)]
    pub(super) async fn look_now(&self) {
        self.fetch(&mut *self.fetched.lock().await, || ()).await;
    }

    async fn fetch(&self, fetched: &mut Fetched, changed: impl Fn()) {
        fetched.began = Some(Instant::now());
        let bytes = match lived::timeout(FETCH_TIME, self.bytes()).await {
            Ok(bytes) => bytes,
            Err(lived::TooLate) => Err(format!("no answer within {} s", FETCH_TIME.as_secs())),
        };
        let seen = bytes.as_ref().ok().map(Fingerprint::of);
        if seen.is_some() && seen == fetched.seen {
            return;
        }
        let is_news = seen != fetched.seen;
        fetched.seen = seen;
        match bytes.and_then(|bytes| read_keys(&bytes, self.source.kind())) {
            Ok(keys) => {
                let mut known = self.keys.write();
                if known.as_deref() != Some(&keys) {
                    tracing::info!(
                        issuer = &*self.rules.issuer,
                        keys = keys.len(),
                        "an issuer of tokens has other keys"
                    );
                    *known = Some(keys.into());
                    drop(known);
                    changed();
                }
            }
            // Said once for each thing that goes wrong.
            Err(why) if is_news => {
                tracing::warn!(
                    issuer = &*self.rules.issuer,
                    why,
                    "the keys of an issuer cannot be read; those before stay"
                );
            }
            Err(why) => tracing::debug!(issuer = &*self.rules.issuer, why, "the keys of an issuer cannot be read"),
        }
    }

    async fn bytes(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            Source::KeyFile(path) | Source::SetFile(path) => read_file(path).await.map_err(|why| why.to_string()),
            Source::Url { url, .. } => self.get(url).await,
        }
    }

    async fn get(&self, url: &reqwest::Url) -> Result<Vec<u8>, String> {
        let said = |why: reqwest::Error| {
            let mut cause: &dyn std::error::Error = &why;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        };
        let http = self.http.get_or_try_init(|| async { dial::plain_client() }).await?;
        let mut answer = http.get(url.clone()).header("accept", "application/json").send().await.map_err(said)?;
        if !answer.status().is_success() {
            return Err(format!("answered {}", answer.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(said)? {
            bytes.extend_from_slice(&part);
            if bytes.len() > SET_BYTES_MAX {
                return Err(too_large());
            }
        }
        Ok(bytes)
    }
}

impl Source {
    fn file(&self) -> Option<&Path> {
        match self {
            Source::KeyFile(path) | Source::SetFile(path) => Some(path),
            Source::Url { .. } => None,
        }
    }

    fn kind(&self) -> KeySource {
        match self {
            Source::KeyFile(_) => KeySource::KeyFile,
            Source::SetFile(_) => KeySource::SetFile,
            Source::Url { .. } => KeySource::Public,
        }
    }
}

fn too_large() -> String {
    format!("it has more than {} KiB", SET_BYTES_MAX >> 10)
}

fn bounded(bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    if bytes.len() > SET_BYTES_MAX { Err(std::io::Error::other(too_large())) } else { Ok(bytes) }
}

/// Blocks, while the hub starts.
fn read_now(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(
        &mut std::io::Read::take(std::fs::File::open(path)?, SET_BYTES_MAX as u64 + 1),
        &mut bytes,
    )?;
    bounded(bytes)
}

async fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    bounded(bytes)
}
