//! A log line that others can cause as often as they like: the first is written at once, then one in a while, which says
//! how many were not.
//!
//! A full disk, a page that keeps knocking, a machine without file descriptors: what is worth a line is worth it once, and
//! thousands a second would fill the disk and hide every other line.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often such a line is written at most.
const EVERY: Duration = Duration::from_secs(10);

/// Counts the occurrences of one log line. One for each line, where the line is written.
#[derive(Debug, Default)]
pub struct Seldom {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub const fn new() -> Seldom {
        Seldom { state: Mutex::new(State { said_at: None, unsaid: 0 }) }
    }

    /// Counts one. `Some` when it is to be written, with the number of those before it that were not.
    pub fn happened(&self) -> Option<u64> {
        self.happened_at(Instant::now())
    }

    fn happened_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.said_at.is_some_and(|said_at| now.saturating_duration_since(said_at) < EVERY) {
            state.unsaid += 1;
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_one_in_a_while_with_the_number_of_the_others() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.happened_at(start), Some(0));
        let flood = (0..500).map(|n| start + EVERY * n / 501);
        assert!(flood.into_iter().all(|at| seldom.happened_at(at).is_none()));
        assert_eq!(seldom.happened_at(start + EVERY), Some(500));
        assert_eq!(seldom.happened_at(start + EVERY * 3), Some(0));
    }
}
