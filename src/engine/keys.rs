//! Keys that are written down: idempotency keys, under which a submission that is sent twice is one, and those that tasks hold
//! for a time ([`unique`](super::unique)).

use std::collections::{HashMap, VecDeque};

use sha2::{Digest as _, Sha256};

use crate::task::{Digest, KeyEntry};

use super::Now;
use super::core::Engine;

/// Keys at hand between two batches; more are looked up in the store. Within a batch none goes, for what it has brought forth
/// cannot be looked up yet.
const KEYS_RESIDENT_MAX: usize = 4_096;

/// An idempotency key with its caller and route, and the body it came with, as digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmitKey {
    pub key: Digest,
    pub body: Digest,
}

impl SubmitKey {
    /// The key that a caller gives to this body on this route. `whose` tells callers apart.
    pub fn new(whose: &str, route: &str, key: &str, body: &[u8]) -> SubmitKey {
        let user = whose;
        // Lengths go in, so that no two triples run into the same text.
        let whose = format!("{}:{user}{}:{route}{key}", user.len(), route.len());
        SubmitKey { key: digest(whose.as_bytes()), body: digest(body) }
    }
}

/// The first 128 bits of the SHA-256.
fn digest(bytes: &[u8]) -> Digest {
    let hash = Sha256::digest(bytes);
    u128::from_be_bytes(hash[..16].try_into().expect("a SHA-256 has 32 bytes"))
}

/// Keys that were used lately.
#[derive(Default)]
pub(super) struct Keys {
    entries: HashMap<u128, KeyEntry>,
    order: VecDeque<u128>,
}

impl Keys {
    /// Whether it is at hand, or was looked up and is over.
    pub(super) fn knows(&self, key: u128) -> bool {
        self.entries.contains_key(&key)
    }

    /// The entry of a key, over or not.
    pub(super) fn at_hand(&self, key: u128) -> Option<&KeyEntry> {
        self.entries.get(&key)
    }

    pub(super) fn get(&self, key: u128, now: Now) -> Option<&KeyEntry> {
        self.entries.get(&key).filter(|entry| entry.expires_at > now.at)
    }

    pub(super) fn insert(&mut self, entry: KeyEntry) {
        let key = entry.key;
        if self.entries.insert(key, entry).is_some() {
            // Used again after it expired: it is the youngest now, and must not go in the place of the old one.
            self.order.retain(|known| *known != key);
        }
        self.order.push_back(key);
    }

    /// The round is over: all of it is in the store.
    pub(super) fn round_over(&mut self) {
        while self.order.len() > KEYS_RESIDENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn forget(&mut self, key: u128) {
        self.entries.remove(&key);
        self.order.retain(|known| *known != key);
    }
}

impl Engine {
    /// Takes in a key from the store; see [`absent_keys`](Self::absent_keys).
    pub fn admit_key(&mut self, entry: KeyEntry) {
        self.keys.insert(entry);
    }
}
