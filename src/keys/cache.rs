//! Signed credentials that were verified before, by the digest of their text.
//!
//! Each shard has two maps. What is new goes to the young one; when that is full it becomes the old one, and what was old is
//! forgotten. What is found in the old one goes to the young one again. So what is used stays, nothing is searched for, and the
//! whole holds at most [`CACHED_MAX`].

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::{Fingerprint, Principal};

/// The most that are kept. Each is a principal, some hundred bytes.
const CACHED_MAX: usize = 32_768;
const SHARDS: usize = 16;
const YOUNG_MAX: usize = CACHED_MAX / SHARDS / 2;

/// Signed credentials that were verified before. What is found is still to be checked.
#[derive(Debug, Default)]
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Fingerprint, Arc<Principal>>,
    old: HashMap<Fingerprint, Arc<Principal>>,
}

impl Cache {
    fn shard(&self, text: Fingerprint) -> &Mutex<Shard> {
        &self.shards[usize::from(text.byte()) % SHARDS]
    }

    pub(super) fn get(&self, text: Fingerprint) -> Option<Arc<Principal>> {
        let mut shard = self.shard(text).lock();
        if let Some(found) = shard.young.get(&text) {
            return Some(found.clone());
        }
        let found = shard.old.remove(&text)?;
        shard.put(text, found.clone());
        Some(found)
    }

    /// Keeps it, unless another has been quicker: then it is that one.
    pub(super) fn put(&self, text: Fingerprint, who: Arc<Principal>) -> Arc<Principal> {
        let mut shard = self.shard(text).lock();
        if let Some(found) = shard.young.get(&text) {
            return found.clone();
        }
        shard.put(text, who.clone());
        who
    }

    pub(super) fn remove(&self, text: Fingerprint) {
        let mut shard = self.shard(text).lock();
        shard.young.remove(&text);
        shard.old.remove(&text);
    }
}

impl Shard {
    fn put(&mut self, text: Fingerprint, who: Arc<Principal>) {
        if self.young.len() >= YOUNG_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_makes_room() {
        let (cache, used) = (Cache::default(), Fingerprint::of("used"));
        let who = Arc::new(Principal::everyone());
        cache.put(used, who.clone());
        for n in 0..CACHED_MAX * 2 {
            cache.put(Fingerprint::of(n.to_string()), Arc::new(Principal::everyone()));
            if n % 64 == 0 {
                assert!(cache.get(used).is_some_and(|found| Arc::ptr_eq(&found, &who)), "after {n}");
            }
        }
        let len = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        assert!(cache.shards.iter().map(len).sum::<usize>() <= CACHED_MAX);
        assert!(cache.get(Fingerprint::of("0")).is_none());
        cache.remove(used);
        assert!(cache.get(used).is_none());
    }
}
