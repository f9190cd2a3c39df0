//! The operating system's randomness, for what nobody should foresee.
//!
//! A system call for each id would cost more than the rest of a submission. So a page is fetched at once, and each byte of it is given
//! out one time.

use std::io;

use crate::task::Entropy;

/// A page: the bytes of some 400 ids.
const FETCHED_BYTES: usize = 4_096;

/// Bytes of the system, each given out one time.
pub(super) struct SystemRandom {
    bytes: Box<[u8; FETCHED_BYTES]>,
    /// Those before were given out.
    at: usize,
}

impl SystemRandom {
    /// Fails where the system has none.
    pub(super) fn new() -> io::Result<SystemRandom> {
        let mut bytes = Box::new([0; FETCHED_BYTES]);
        getrandom::fill(&mut *bytes)?;
        Ok(SystemRandom { bytes, at: 0 })
    }

    /// A system that had randomness has it: on Linux the call cannot fail once it succeeded. Where one does all the same, ids stay apart,
    /// which is what the hub needs, and it is said that they may be foreseen.
    fn fetch(&mut self) {
        if let Err(why) = getrandom::fill(&mut *self.bytes) {
            tracing::error!(%why, "the system gives no randomness; ids of new tasks may be foreseen");
            fastrand::fill(&mut *self.bytes);
        }
        self.at = 0;
    }
}

impl Entropy for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(FETCHED_BYTES) {
            if self.bytes.len() - self.at < part.len() {
                self.fetch();
            }
            let given = &mut self.bytes[self.at..self.at + part.len()];
            part.copy_from_slice(given);
            // Who reads this memory later reads no ids to come, and none that were.
            given.fill(0);
            self.at += part.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::task::{IdSource, Timestamp};

    #[test]
    fn no_byte_is_given_out_twice() {
        let mut random = SystemRandom::new().unwrap();
        let seen: HashSet<[u8; 10]> = std::iter::repeat_with(|| {
            let mut bytes = [0; 10];
            random.fill(&mut bytes);
            bytes
        })
        .take(2_000)
        .collect();
        assert_eq!(seen.len(), 2_000);
        let mut more = vec![0; 3 * FETCHED_BYTES + 7];
        random.fill(&mut more);
        assert!(more.chunks(16).all(|chunk| chunk.len() < 16 || chunk.iter().any(|byte| *byte != 0)));
    }

    #[test]
    fn each_bit_of_an_id_that_is_not_time_is_either_way_as_often() {
        let mut random = SystemRandom::new().unwrap();
        let ids: Vec<u128> = (0..4_000)
            .map(|_| IdSource::default().next(Timestamp::from_millis(1_700_000_000_000), &mut random).as_u128())
            .collect();
        // The version and the variant stand between.
        for bit in (0..76).filter(|bit| !(62..64).contains(bit)) {
            let set = ids.iter().filter(|id| **id >> bit & 1 == 1).count();
            // Beyond eight standard deviations on either side.
            assert!((1_740..=2_260).contains(&set), "bit {bit} is set in {set} of 4000");
        }
    }
}
