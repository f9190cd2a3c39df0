//! Idempotency keys: a submission that is sent twice is one.

use std::collections::{HashMap, VecDeque};

use crate::task::{Digest, KeyEntry};

use super::Now;
use super::core::Engine;

/// Keys at hand; more are looked up in the store.
const KEYS_RESIDENT_MAX: usize = 4_096;

/// An idempotency key with its caller and route, and the body it came with, as digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmitKey {
    pub key: Digest,
    pub body: Digest,
}

/// Keys that were used lately.
#[derive(Default)]
pub(super) struct Keys {
    entries: HashMap<u128, KeyEntry>,
    order: VecDeque<u128>,
}

impl Keys {
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
        if self.order.len() > KEYS_RESIDENT_MAX
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
    /// Whether a key is at hand. If not, whoever drives the engine looks it up in the store and
    /// [`admit_key`](Self::admit_key)s it.
    pub fn knows_key(&self, key: u128) -> bool {
        self.keys.entries.contains_key(&key)
    }

    /// Takes in a key from the store.
    pub fn admit_key(&mut self, entry: KeyEntry) {
        self.keys.insert(entry);
    }
}
