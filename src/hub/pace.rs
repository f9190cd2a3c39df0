//! How often large work is taken while small work comes too.
//!
//! One commit with a batch of ten megabytes takes as long as a hundred small ones, and whatever comes in meanwhile waits
//! for its end. That cannot be cut: a batch is decided and written as one. But it can be spaced: after a round with large
//! work the writer takes none for three times as long as that round took, unless nothing small has come for a while. So
//! three of four small requests meet a writer that is free, however much large work waits; and without small work, large
//! work has all of the writer.

use std::time::{Duration, Instant};

/// The pause after a round with large work, in times of that round.
const PAUSE_ROUNDS: u32 = 3;
/// Small work that came this long ago is still expected to go on.
const RECENT: Duration = Duration::from_millis(250);

/// When large work may be taken again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    small_at: Option<Instant>,
    /// Since when the writer is busy with large work.
    since: Option<Instant>,
    again_at: Option<Instant>,
}

impl Pace {
    /// The writer has nothing to do any more.
    pub(super) fn rests(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.again_at = Some(now + now.saturating_duration_since(since) * PAUSE_ROUNDS);
        }
    }

    /// Small work was there.
    pub(super) fn saw_small(&mut self, now: Instant) {
        self.small_at = Some(now);
    }

    /// Large work was taken.
    pub(super) fn took_large(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Whether small work comes.
    pub(super) fn has_small(&self, now: Instant) -> bool {
        self.small_at.is_some_and(|at| now.saturating_duration_since(at) < RECENT)
    }

    /// In how long large work may be taken.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let Some(again_at) = self.again_at.filter(|_| self.has_small(now)) else { return Duration::ZERO };
        // Once small work no longer comes, the pause is over too.
        let quiet = self.small_at.map_or(now, |at| at + RECENT);
        again_at.min(quiet).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_work_has_a_quarter_of_the_time_where_small_work_comes() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!(pace.pause(at(0)), Duration::ZERO);
        pace.took_large(at(0));
        pace.rests(at(100));
        assert_eq!(pace.pause(at(100)), Duration::ZERO, "nothing small comes");
        pace.saw_small(at(100));
        pace.took_large(at(100));
        pace.rests(at(150));
        pace.rests(at(160));
        assert!(pace.has_small(at(150)));
        assert_eq!(pace.pause(at(150)), Duration::from_millis(150));
        assert_eq!(pace.pause(at(299)), Duration::from_millis(1));
        assert_eq!(pace.pause(at(300)), Duration::ZERO);
        // A long round, and then nothing small any more.
        pace.saw_small(at(300));
        pace.took_large(at(300));
        pace.rests(at(400));
        assert_eq!(pace.pause(at(400)), Duration::from_millis(150), "until it is quiet");
        assert_eq!(pace.pause(at(550)), Duration::ZERO);
    }
}
