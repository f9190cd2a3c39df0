//! Task ids: UUID v7, so that the order of ids is the order of creation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// The identity of a task. Ids made by one hub grow: comparing two tells which task is older.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The 16 bytes, most significant first; their order is the order of ids.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id of these 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> TaskId {
        TaskId(Uuid::from_bytes(bytes))
    }

    /// When it was made, as it says itself.
    pub fn made_at(self) -> Timestamp {
        Timestamp::from_millis((self.as_u128() >> 80) as i64)
    }

    /// The id as a number, as large as it is young.
    pub fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a task id (a UUID is expected)")
    }
}

impl std::error::Error for ParseIdError {}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<TaskId, ParseIdError> {
        Uuid::try_parse(text).map(TaskId).map_err(|_| ParseIdError)
    }
}

/// Where the bits of ids come from that are not time.
pub trait Entropy {
    fn fill(&mut self, bytes: &mut [u8]);
}

/// For tests and simulations, which are to be repeated.
impl Entropy for fastrand::Rng {
    fn fill(&mut self, bytes: &mut [u8]) {
        fastrand::Rng::fill(self, bytes);
    }
}

/// Makes ids that only grow, whatever the clock does.
#[derive(Clone, Debug, Default)]
pub struct IdSource {
    last: u128,
}

impl IdSource {
    /// A source whose next id is above `last`, the youngest one known.
    pub fn above(last: Option<TaskId>) -> IdSource {
        IdSource { last: last.map_or(0, |id| id.as_u128()) }
    }

    /// The next id: `now` in its first 48 bits and randomness after, or the last id plus a little where the clock stood
    /// still or went back.
    pub fn next(&mut self, now: Timestamp, random: &mut (impl Entropy + ?Sized)) -> TaskId {
        let millis = now.as_millis().max(0) as u64;
        let mut fresh = [0u8; 10];
        random.fill(&mut fresh);
        let fresh = uuid::Builder::from_unix_timestamp_millis(millis, &fresh).into_uuid().as_u128();
        self.last = if fresh > self.last { fresh } else { step(self.last, random) };
        TaskId(Uuid::from_u128(self.last))
    }
}

/// The variant bits stand above the low 62 random bits; a step is small enough never to carry into them in practice,
/// and when it would, the version and variant are simply set again above it.
fn step(last: u128, random: &mut (impl Entropy + ?Sized)) -> u128 {
    const LOW: u128 = (1 << 62) - 1;
    const RAND_A: u128 = 0xfff << 64;
    let mut by = [0; 4];
    random.fill(&mut by);
    let low = (last & LOW) + u128::from(u32::from_le_bytes(by).max(1));
    if low <= LOW {
        return (last & !LOW) | low;
    }
    let high = (last & RAND_A) + (1 << 64);
    if high <= RAND_A {
        return (last & !(LOW | RAND_A)) | high | (low & LOW);
    }
    let millis = ((last >> 80) + 1) as u64;
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid().as_u128()
}

/// Hashes task ids by the bits that are random already. Only ids the hub made are ever kept in a map, so nobody can choose
/// them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher;

impl std::hash::BuildHasher for IdHasher {
    type Hasher = FoldedId;

    fn build_hasher(&self) -> FoldedId {
        FoldedId(0)
    }
}

/// The state of [`IdHasher`].
pub struct FoldedId(u64);

impl std::hash::Hasher for FoldedId {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(25) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_while_the_clock_stands_still_or_goes_back() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut ids = IdSource::default();
        let mut last = ids.next(Timestamp::from_millis(1_000_000), &mut random);
        for step in 0..10_000 {
            let now = Timestamp::from_millis(1_000_000 - step % 3);
            let next = ids.next(now, &mut random);
            assert!(next > last);
            assert_eq!(next.made_at(), Timestamp::from_millis(1_000_000));
            assert_eq!(next.0.get_version_num(), 7);
            assert_eq!(next.0.get_variant(), uuid::Variant::RFC4122);
            last = next;
        }
    }

    #[test]
    fn a_step_carries_without_losing_version_or_variant() {
        let mut random = fastrand::Rng::with_seed(7);
        for full in [
            u128::from_str_radix("0190000000007fffbfffffffffffffff", 16).unwrap(),
            u128::from_str_radix("01900000000070ffbfffffffffffffff", 16).unwrap(),
        ] {
            let next = step(full, &mut random);
            assert!(next > full);
            let uuid = Uuid::from_u128(next);
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        }
    }

    #[test]
    fn a_source_starts_above_what_is_known() {
        let mut random = fastrand::Rng::with_seed(7);
        let youngest = IdSource::default().next(Timestamp::from_millis(9_000), &mut random);
        assert!(IdSource::above(Some(youngest)).next(Timestamp::from_millis(10), &mut random) > youngest);
    }
}
