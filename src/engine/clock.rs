//! The hub's clock: from two readings of the machine, everything the hub goes by in time.
//!
//! A machine offers a *wall clock*, which people set and which is set by itself, and a *monotonic count*, which runs on
//! while the hub's process is stopped (Ctrl-Z, `docker pause`, a snapshot of the machine). Neither is what a promise can be
//! held by. So a [`Now`] carries four readings, and each question has one of them:
//!
//! | reading | for | what it does |
//! |---|---|---|
//! | `wall` | a moment that somebody named, `run_at` | whatever the machine's clock does |
//! | `at` | every time that is written down | never goes back, also over restarts |
//! | `mono` | a wait of so long: `delay_ms`, backoff | runs, whatever the wall clock does |
//! | `lived` | a verdict on somebody who is silent: leases, graces, timeouts | stands still while the hub was not there |
//!
//! # What is written down
//!
//! `at` is the wall clock as long as that goes forward. When it is set back, `at` runs on from where it was, a quarter
//! slower, until the wall clock has caught up: an attempt that begins and ends meanwhile shows about how long it took, and
//! two hours are made up for in eight. A new hub begins at the last time its store knows. So within a history nothing
//! finishes before it started, and all that one step writes down has one time.
//!
//! A clock set forward makes everything older look old at once. [`Clock::ago`] takes such steps out again, so that
//! retention is counted in time that passed.
//!
//! # What was lived through
//!
//! The writer judges, so the writer's time counts: it [`look`](Clock::look)s at the clock whenever it goes on, and says
//! how long it means to sleep before it looks again. A look that comes later than that by more than [`late_ms`] ends an
//! *absence*: the process was stopped, or a commit took that long. None of it counts. After it `lived` stands still for
//! [`HEARING_MS`] more, in which the sockets are read: what workers said to a hub that was stopped is heard before
//! anybody is judged. Then it runs on, as if the absence had not been.
//!
//! From the third on, each absence that follows others at once counts for [`late_ms`], so that on a machine that is always
//! late time passes slowly, and not never. Not sooner: what was said in an absence is read only after it. Where the
//! machine sleeps with its monotonic count, nobody has to notice anything.

use std::collections::VecDeque;

use crate::task::Timestamp;

use super::Now;

/// How late a look may be without being an absence: longer than a slow commit, and far shorter than a lease.
pub fn late_ms(lease_ms: u64) -> u64 {
    (lease_ms / 8).clamp(20, 500)
}

/// How long after an absence nobody is judged. Reading what some ten thousand sockets hold takes less.
pub const HEARING_MS: u64 = 1_000;
/// So many absences in a row may be pauses and stalls; more are a machine that is always late.
const ABSENCES_MAX: u32 = 2;
/// While the wall clock is behind, `at` runs at this many quarters of its pace.
const QUARTERS: u64 = 3;
/// The wall clock runs ahead of the monotonic count by more than this: it was set, or the machine slept.
const STEP_MS: u64 = 60_000;
/// Steps forward that are remembered: each leaves within a retention, and a clock is not set for sport.
const STEPS_MAX: usize = 32;

/// See the essay above. It reads no clock itself.
#[derive(Debug)]
pub struct Clock {
    /// The last `at`, and the count it belongs to.
    at: Timestamp,
    at_mono: u64,
    /// Set while the wall clock is behind: from where `at` runs on by itself.
    behind: Option<(Timestamp, u64)>,
    /// Steps forward, oldest first.
    steps: VecDeque<Step>,
    lived: u64,
    /// The newest `lived` that anybody was told.
    seen: u64,
    /// The count at the last look, and how long the writer meant to sleep after it.
    looked: u64,
    sleep: u64,
    late_ms: u64,
    /// Until then sockets are read and nobody is judged.
    hearing_until: u64,
    /// How many absences have followed each other, without a look in time between them.
    absences: u32,
}

/// The wall clock was set forward.
#[derive(Debug)]
struct Step {
    /// What `at` was right after it.
    to: Timestamp,
    by: u64,
}

impl Clock {
    /// A clock for a hub that begins now and judges by leases of this length. `last` is the newest time that its store
    /// knows.
    pub fn new(last: Timestamp, wall: Timestamp, mono: u64, lease_ms: u64) -> Clock {
        let behind = (wall < last).then_some((last, mono));
        Clock {
            at: last.max(wall),
            at_mono: mono,
            behind,
            steps: VecDeque::new(),
            // Counted from 1, so that 0 can mean "no alarm".
            lived: 1,
            seen: 1,
            looked: mono,
            sleep: 0,
            late_ms: late_ms(lease_ms),
            hearing_until: 0,
            absences: 0,
        }
    }

    /// The time, for all but the writer.
    pub fn read(&mut self, wall: Timestamp, mono: u64) -> Now {
        let mono = mono.max(self.at_mono);
        if !self.is_late(mono) {
            // Somebody is awake, and has seen so much.
            self.seen = self.seen.max(self.lived + self.heard_out(mono));
        }
        Now { wall, at: self.write_down(wall, mono), mono, lived: self.seen }
    }

    /// The time, for the writer: what it lived through since its last look counts.
    pub fn look(&mut self, wall: Timestamp, mono: u64) -> Now {
        let mono = mono.max(self.at_mono);
        let absent = self.is_late(mono);
        if absent && self.hearing_until <= self.looked {
            self.hearing_until = mono + HEARING_MS;
        }
        self.absences = if absent { self.absences + 1 } else { 0 };
        let counts = match self.heard_out(mono) {
            passed if !absent => passed,
            // What was said in it is not read yet.
            _ if self.absences <= ABSENCES_MAX => 0,
            passed => passed.min(self.late_ms),
        };
        self.lived = self.seen.max(self.lived + counts);
        self.seen = self.lived;
        (self.looked, self.sleep) = (mono, 0);
        Now { wall, at: self.write_down(wall, mono), mono, lived: self.lived }
    }

    /// The writer sleeps for at most so long, unless it is woken, and looks again.
    pub fn sleeps(&mut self, millis: u64) {
        self.sleep = millis;
    }

    /// What is written down as the time `millis` before `at`, counted in time that passed.
    pub fn ago(&self, millis: u64) -> Timestamp {
        let back = |from: Timestamp, millis: u64| {
            Timestamp::from_millis(from.as_millis().saturating_sub(i64::try_from(millis).unwrap_or(i64::MAX)))
        };
        self.steps
            .iter()
            .rev()
            .fold(back(self.at, millis), |before, step| if before < step.to { back(before, step.by) } else { before })
    }

    fn is_late(&self, mono: u64) -> bool {
        mono.saturating_sub(self.looked) > self.sleep + self.late_ms
    }

    /// What passed since the last look, without what was for hearing only.
    fn heard_out(&self, mono: u64) -> u64 {
        mono.saturating_sub(self.looked.max(self.hearing_until))
    }

    fn write_down(&mut self, wall: Timestamp, mono: u64) -> Timestamp {
        let passed = mono - self.at_mono;
        if wall < self.at && self.behind.is_none() {
            self.behind = Some((self.at, self.at_mono));
        }
        let runs_on = self.behind.map(|(from, since)| from.plus_millis((mono - since) * QUARTERS / 4));
        if runs_on.is_none_or(|runs_on| wall >= runs_on) {
            self.behind = None;
        }
        let at = runs_on.map_or(wall, |runs_on| runs_on.max(wall)).max(self.at);
        let ahead = at.millis_since(self.at.plus_millis(passed));
        if ahead > STEP_MS {
            self.steps.push_back(Step { to: at, by: ahead });
            if self.steps.len() > STEPS_MAX {
                self.steps.pop_front();
            }
        }
        (self.at, self.at_mono) = (at, mono);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: i64 = 1_800_000_000_000;

    /// A clock, and a machine whose wall clock is ahead of its count by `wall`.
    struct Rig {
        clock: Clock,
        wall: i64,
        mono: u64,
    }

    impl Rig {
        fn new() -> Rig {
            let begin = Timestamp::from_millis(BEGIN);
            Rig { clock: Clock::new(begin, begin, 0, 10_000), wall: BEGIN, mono: 0 }
        }

        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(self.wall + self.mono as i64)
        }

        /// The writer is awake, and looks often.
        fn pass(&mut self, millis: u64) -> Now {
            let end = self.mono + millis;
            loop {
                let now = self.clock.look(self.wall(), self.mono);
                if self.mono == end {
                    return now;
                }
                self.mono = end.min(self.mono + 100);
            }
        }

        /// Nobody is awake.
        fn stop(&mut self, millis: u64) -> Now {
            self.mono += millis;
            self.clock.look(self.wall(), self.mono)
        }
    }

    #[test]
    fn an_absence_does_not_count_and_is_followed_by_a_moment_to_hear() {
        let mut rig = Rig::new();
        let before = rig.pass(3_000);
        assert_eq!((before.lived, before.mono), (3_001, 3_000));
        let woken = rig.stop(13_000);
        assert_eq!((woken.lived, woken.mono), (3_001, 16_000), "what was not lived through does not count");
        assert_eq!(rig.clock.read(rig.wall(), rig.mono + 400).lived, 3_001);
        assert_eq!(rig.pass(HEARING_MS).lived, 3_001, "and while what waits is read, nobody is judged");
        assert_eq!(rig.pass(2_000).lived, 5_001, "then time passes as ever");
        assert_eq!(rig.clock.read(rig.wall(), rig.mono + 400).lived, 5_401, "for all");
    }

    #[test]
    fn a_sleep_that_was_meant_is_no_absence() {
        let mut rig = Rig::new();
        rig.clock.sleeps(1_000);
        assert_eq!(rig.stop(1_500).lived, 1_501);
        rig.clock.sleeps(1_000);
        assert_eq!(rig.stop(1_501).lived, 1_501);
        assert_eq!(rig.clock.read(rig.wall(), rig.mono + 10_000).lived, 1_501, "whoever looks before the writer");
    }

    #[test]
    fn a_machine_that_is_always_late_lives_all_the_same() {
        let mut rig = Rig::new();
        for _ in 0..100 {
            rig.stop(2_000);
        }
        let lived = rig.clock.read(rig.wall(), rig.mono).lived;
        assert!((10_000..200_000).contains(&lived), "{lived}");
    }

    #[test]
    fn what_is_written_down_never_goes_back_and_comes_round() {
        let mut rig = Rig::new();
        let before = rig.pass(1_000);
        rig.wall -= 7_200_000;
        let after = rig.pass(10_000);
        assert_eq!(after.wall.as_millis(), BEGIN - 7_200_000 + 11_000, "people's moments are the wall clock's");
        assert_eq!(after.at.millis_since(before.at), 7_500, "and times go on, a little slower");
        rig.wall -= 1_000;
        assert_eq!(rig.pass(1_000).at.millis_since(after.at), 750);
        rig.pass(4 * 7_200_000);
        let caught_up = rig.pass(10_000);
        assert_eq!(caught_up.at, caught_up.wall);
        rig.wall += 3_600_000;
        let forward = rig.pass(1);
        assert_eq!((forward.at, forward.wall), (rig.wall(), rig.wall()), "forward it goes at once");
    }

    #[test]
    fn times_are_in_order_whoever_reads_them_and_however_the_clock_is_set() {
        let mut rig = Rig::new();
        let mut random = fastrand::Rng::with_seed(5);
        let (mut at, mut mono, mut lived) = (Timestamp::default(), 0, 0);
        for _ in 0..20_000 {
            rig.mono += random.u64(0..700);
            match random.u8(0..50) {
                0 => rig.wall += random.i64(-7_200_000..7_200_000),
                1 => rig.wall -= 3,
                2 => rig.mono += 20_000,
                _ => {}
            }
            let reads = random.bool();
            let now = if reads { rig.clock.read(rig.wall(), rig.mono) } else { rig.clock.look(rig.wall(), rig.mono) };
            assert!(now.at >= at && now.mono >= mono && now.lived >= lived, "{now:?} after {at}, {mono}, {lived}");
            assert!(now.at >= now.wall);
            (at, mono, lived) = (now.at, now.mono, now.lived);
        }
    }

    #[test]
    fn a_new_hub_goes_on_from_the_last_time_that_is_known() {
        let known = Timestamp::from_millis(BEGIN + 3_600_000);
        let mut clock = Clock::new(known, Timestamp::from_millis(BEGIN), 0, 10_000);
        assert_eq!(clock.read(Timestamp::from_millis(BEGIN + 1_000), 1_000).at, known.plus_millis(750));
    }

    #[test]
    fn retention_is_counted_in_time_that_passed() {
        let mut rig = Rig::new();
        let finished = rig.pass(1_000).at;
        rig.wall += 2 * 86_400_000;
        let later = rig.pass(5_000).at;
        assert!(rig.clock.ago(6_000) < finished, "5 s ago, whatever the clock says");
        assert!(rig.clock.ago(4_000) > finished && rig.clock.ago(4_000) <= later);
        let finished = rig.pass(0).at;
        rig.pass(86_400_000);
        assert_eq!(rig.clock.ago(86_400_000), finished);
    }
}
