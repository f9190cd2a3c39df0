//! All records that a hub keeps about access, and which steps may follow.
//!
//! What is decided here is decided before anything is written, by whoever writes: a hub's writer, or the command line where no hub
//! runs. Steps that wait for their commit count as if they were taken, so several may share one.

use std::collections::BTreeMap;
use std::fmt;

use super::{AccessChange, AccessKey, AccessRecord, Revocation, Revoked};
use crate::task::Timestamp;

/// So many API tokens there may be: those of a large company's programs. Each is looked through when a list is asked for.
pub const API_TOKENS_MAX: usize = 10_000;
/// So many keys to sign with: those of a century of monthly rotation.
const SIGNING_KEYS_MAX: usize = 1_000;
/// So many revoked tokens of one kind: each is held in memory, some 200 bytes, until it would have expired by itself.
const REVOCATIONS_MAX: usize = 100_000;

/// The records, by what they are found by.
#[derive(Debug, Default)]
pub struct AccessRecords {
    records: BTreeMap<AccessKey, AccessRecord>,
    /// How many there are of each kind.
    counts: [usize; KINDS],
}

const KINDS: usize = 5;

/// Why a step is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessRefusal {
    /// There is an API token of this name.
    Taken,
    /// There is no such record.
    NotThere,
    /// There are as many of this kind as there may be.
    Full { max: usize },
    /// That a hub is closed is not taken back.
    StaysClosed,
}

impl fmt::Display for AccessRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessRefusal::Taken => f.write_str("there is a token of this name"),
            AccessRefusal::NotThere => f.write_str("there is no such token"),
            AccessRefusal::Full { max } => write!(f, "there are {max} of these, the most there may be"),
            AccessRefusal::StaysClosed => f.write_str("a hub that is closed stays so"),
        }
    }
}

impl std::error::Error for AccessRefusal {}

fn kind(key: &AccessKey) -> (usize, usize) {
    match key {
        AccessKey::Closed => (0, 1),
        AccessKey::ApiToken { .. } => (1, API_TOKENS_MAX),
        AccessKey::SigningKey { .. } => (2, SIGNING_KEYS_MAX),
        AccessKey::Scoped { .. } => (3, REVOCATIONS_MAX),
        AccessKey::Subject { .. } => (4, REVOCATIONS_MAX),
    }
}

impl AccessRecords {
    pub fn of(records: Vec<AccessRecord>) -> AccessRecords {
        let mut all = AccessRecords::default();
        records.into_iter().for_each(|record| all.apply(&AccessChange::Put(record)));
        all
    }

    /// All of them, API tokens by name.
    pub fn iter(&self) -> impl Iterator<Item = &AccessRecord> {
        self.records.values()
    }

    pub fn get(&self, key: &AccessKey) -> Option<&AccessRecord> {
        self.records.get(key)
    }

    /// Whether the hub asks who calls.
    pub fn is_closed(&self) -> bool {
        self.records.contains_key(&AccessKey::Closed)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds these changes to the steps that wait for a commit, all or none; and with the first API token, that the hub is
    /// closed from now on.
    pub fn extend(
        &self,
        steps: &mut Vec<AccessChange>,
        changes: Vec<AccessChange>,
        now: Timestamp,
    ) -> Result<(), AccessRefusal> {
        let before = steps.len();
        let added = changes.into_iter().try_for_each(|change| self.add(steps, change, now));
        added.inspect_err(|_| steps.truncate(before))
    }

    fn add(&self, steps: &mut Vec<AccessChange>, change: AccessChange, now: Timestamp) -> Result<(), AccessRefusal> {
        let record = match change {
            AccessChange::Remove(AccessKey::Closed) => return Err(AccessRefusal::StaysClosed),
            AccessChange::Remove(key) => {
                self.after(steps, &key).ok_or(AccessRefusal::NotThere)?;
                steps.push(AccessChange::Remove(key));
                return Ok(());
            }
            AccessChange::Put(record) => record,
        };
        let key = record.key();
        let there = self.after(steps, &key);
        let record = match (record, there) {
            (AccessRecord::ApiToken(_), Some(_)) => return Err(AccessRefusal::Taken),
            // Since when it is, is not changed.
            (AccessRecord::Closed { .. }, Some(_)) => return Ok(()),
            (AccessRecord::Revocation(new), Some(AccessRecord::Revocation(old))) => {
                AccessRecord::Revocation(stronger(new, old))
            }
            (record, Some(_)) => record,
            (record, None) => {
                let (kind, max) = kind(&key);
                let is_same =
                    |step: &&AccessChange| matches!(step, AccessChange::Put(new) if self::kind(&new.key()).0 == kind);
                if self.counts[kind] + steps.iter().filter(is_same).count() >= max {
                    return Err(AccessRefusal::Full { max });
                }
                record
            }
        };
        if matches!(record, AccessRecord::ApiToken(_)) && self.after(steps, &AccessKey::Closed).is_none() {
            steps.push(AccessChange::Put(AccessRecord::Closed { since: now }));
        }
        steps.push(AccessChange::Put(record));
        Ok(())
    }

    /// What will be there once these steps are taken.
    fn after<'a>(&'a self, steps: &'a [AccessChange], key: &AccessKey) -> Option<&'a AccessRecord> {
        let newest = steps.iter().rev().find_map(|step| match step {
            AccessChange::Put(record) => (record.key() == *key).then_some(Some(record)),
            AccessChange::Remove(removed) => (removed == key).then_some(None),
        });
        newest.unwrap_or_else(|| self.records.get(key))
    }

    /// A step that is on disk.
    pub fn apply(&mut self, change: &AccessChange) {
        match change {
            AccessChange::Put(record) => {
                let key = record.key();
                let at = kind(&key).0;
                if self.records.insert(key, record.clone()).is_none() {
                    self.counts[at] += 1;
                }
            }
            AccessChange::Remove(key) => {
                if self.records.remove(key).is_some() {
                    self.counts[kind(key).0] -= 1;
                }
            }
        }
    }

    /// Revocations that mean nothing any more, at most so many.
    pub fn forgettable(&self, now: Timestamp, max: usize) -> Vec<AccessChange> {
        let old = self
            .records
            .iter()
            .filter(|(_, record)| matches!(record, AccessRecord::Revocation(Revocation { until, .. }) if *until < now));
        old.take(max).map(|(key, _)| AccessChange::Remove(key.clone())).collect()
    }
}

/// Of two revocations of one thing, what both say.
fn stronger(new: Revocation, old: &Revocation) -> Revocation {
    let until = new.until.max(old.until);
    let what = match (new.what, &old.what) {
        (Revoked::Subject { issuer, subject, before }, Revoked::Subject { before: earlier, .. }) => {
            Revoked::Subject { issuer, subject, before: before.max(*earlier) }
        }
        (what, _) => what,
    };
    Revocation { what, until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{ApiToken, Role};
    use crate::task::Name;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn token(name: &str) -> AccessRecord {
        AccessRecord::ApiToken(ApiToken {
            name: Name::new(name),
            digest: format!("digest of {name}"),
            role: Role::Admin,
            user_id: None,
            task_types: None,
            queues: None,
            created_at: at(1),
            expires_at: None,
        })
    }

    fn subject(before: i64, until: i64) -> AccessChange {
        let what = Revoked::Subject { issuer: "i".into(), subject: "s".into(), before: at(before) };
        AccessChange::Put(AccessRecord::Revocation(Revocation { what, until: at(until) }))
    }

    fn scoped(jti: &str, until: i64) -> AccessChange {
        let what = Revoked::Scoped { jti: jti.into() };
        AccessChange::Put(AccessRecord::Revocation(Revocation { what, until: at(until) }))
    }

    fn take(records: &mut AccessRecords, changes: Vec<AccessChange>) -> Result<(), AccessRefusal> {
        let mut steps = Vec::new();
        records.extend(&mut steps, changes, at(5))?;
        steps.iter().for_each(|step| records.apply(step));
        Ok(())
    }

    #[test]
    fn the_first_token_closes_the_hub_and_nothing_opens_it() {
        let mut records = AccessRecords::default();
        take(&mut records, vec![AccessChange::Put(token("a"))]).unwrap();
        let closed = AccessRecord::Closed { since: at(5) };
        assert_eq!(records.get(&AccessKey::Closed), Some(&closed));
        take(&mut records, vec![AccessChange::Put(AccessRecord::Closed { since: at(9) })]).unwrap();
        let a = AccessKey::ApiToken { name: Name::new("a") };
        take(&mut records, vec![AccessChange::Remove(a.clone())]).unwrap();
        assert_eq!(take(&mut records, vec![AccessChange::Remove(AccessKey::Closed)]), Err(AccessRefusal::StaysClosed));
        assert_eq!(records.iter().collect::<Vec<_>>(), [&closed], "without a token it is as closed, and since then");
        assert_eq!(take(&mut records, vec![AccessChange::Remove(a)]), Err(AccessRefusal::NotThere));
    }

    #[test]
    fn of_two_tokens_with_one_name_the_second_is_refused_with_all_that_came_with_it() {
        let mut records = AccessRecords::default();
        let mut steps = Vec::new();
        records.extend(&mut steps, vec![AccessChange::Put(token("a"))], at(1)).unwrap();
        let again = vec![AccessChange::Put(token("b")), AccessChange::Put(token("a"))];
        assert_eq!(records.extend(&mut steps, again, at(2)), Err(AccessRefusal::Taken));
        assert_eq!(steps.len(), 2, "closed, and the first");
        // What is removed in the same commit is free again.
        let renew =
            vec![AccessChange::Remove(AccessKey::ApiToken { name: Name::new("a") }), AccessChange::Put(token("a"))];
        records.extend(&mut steps, renew, at(3)).unwrap();
        steps.iter().for_each(|step| records.apply(step));
        assert_eq!((records.len(), records.counts), (2, [1, 1, 0, 0, 0]));
    }

    #[test]
    fn a_revocation_is_only_ever_made_stronger_and_forgotten_in_time() {
        let mut records = AccessRecords::default();
        take(&mut records, vec![subject(100, 500), subject(50, 400), scoped("x", 10)]).unwrap();
        take(&mut records, vec![subject(70, 600)]).unwrap();
        let key = AccessKey::Subject { issuer: "i".into(), subject: "s".into() };
        let AccessChange::Put(expected) = subject(100, 600) else { unreachable!() };
        assert_eq!(records.get(&key), Some(&expected));
        assert_eq!(records.forgettable(at(10), 9), []);
        assert_eq!(records.forgettable(at(11), 9), [AccessChange::Remove(AccessKey::Scoped { jti: "x".into() })]);
        assert_eq!(records.forgettable(at(601), 1).len(), 1);
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let mut records = AccessRecords::default();
        for n in 0..REVOCATIONS_MAX {
            let AccessChange::Put(record) = scoped(&n.to_string(), 10) else { unreachable!() };
            records.apply(&AccessChange::Put(record));
        }
        let full = Err(AccessRefusal::Full { max: REVOCATIONS_MAX });
        assert_eq!(take(&mut records, vec![scoped("more", 10)]), full);
        take(&mut records, vec![scoped("7", 20), subject(1, 10)]).unwrap();
        let seven = AccessKey::Scoped { jti: "7".into() };
        take(&mut records, vec![AccessChange::Remove(seven)]).unwrap();
        take(&mut records, vec![scoped("more", 10)]).unwrap();
    }
}
