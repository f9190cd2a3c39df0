//! How much of everything there is in a run.

use fastrand::Rng;
use taskhub::engine::Options;

/// Chances are in a thousand. Each seed leaves some faults out altogether, so that the rare ones meet each other and the
/// common ones do not drown them.
#[derive(Clone, Debug)]
pub struct Mix {
    pub steps: u32,
    pub options: Options,
    pub sockets: usize,
    pub https: usize,
    /// Two workers under one name.
    pub twins: bool,
    /// The chance that a step runs a round of the writer: the smaller, the larger the batches.
    pub round: u32,
    /// The longest time between two steps, in milliseconds.
    pub pause_ms: u64,
    pub lie: u32,
    pub cut: u32,
    pub crash: u32,
    pub stall: u32,
    pub retire: u32,
    pub commit_fails: u32,
    pub look_up_fails: u32,
    /// The chance that a store that failed fails again.
    pub fails_again: u32,
    pub hub_dies: u32,
    pub drain: u32,
    pub wall_jumps: u32,
    /// The hub's process is stopped, and goes on.
    pub pauses: u32,
    /// A commit takes its time.
    pub stalls: u32,
    /// The chance that a round does no more than a few hand-outs and timers.
    pub tight: u32,
    /// Whether tasks come in with delays, timeouts, retries.
    pub delays: bool,
    pub timeouts: bool,
    /// Whether people set queues and limits, and whether tasks have keys.
    pub rules: bool,
    pub keys: bool,
    /// Whether schedules are set.
    pub schedules: bool,
    /// Submissions by the hundred, so that final tasks are let go of.
    pub flood: bool,
    /// Whether tasks depend on others.
    pub dependencies: bool,
    /// Whether they belong to workflows.
    pub workflows: bool,
    /// Whether tasks are to be the only ones of their kind.
    pub unique: bool,
    /// Whether they become one.
    pub gather: bool,
    /// Whether task types are declared.
    pub types: bool,
}

impl Mix {
    pub fn of(seed: u64) -> Mix {
        // Not the world's own randomness: a change here must not shift everything else.
        let mut random = Rng::with_seed(seed ^ 0x6d69_7800);
        let mut some = |chance: u32| if random.bool() { random.u32(1..=chance) } else { 0 };
        let (lie, cut, crash, stall, retire) = (some(60), some(60), some(40), some(40), some(8));
        let (commit_fails, look_up_fails, hub_dies, drain) = (some(150), some(40), some(12), some(3));
        let (wall_jumps, tight) = (some(10), some(200));
        let (pauses, stalls) = (some(8), some(8));
        let flood = random.u32(0..60) == 0;
        let mut mix = Mix {
            steps: if flood { 4_000 } else { random.u32(100..800) },
            options: Options {
                lease_ms: random.u64(300..2_000),
                grace_ms: random.u64(100..1_000),
                tasks_max: if random.u32(0..8) == 0 { 12 } else { 1_000_000 },
                payload_bytes_max: 64,
                key_ms: random.u64(500..20_000),
                ..Options::default()
            },
            sockets: random.usize(0..5),
            https: random.usize(0..4),
            twins: random.u32(0..4) == 0,
            round: random.u32(150..1_000),
            pause_ms: random.u64(2..60),
            lie,
            cut,
            crash,
            stall,
            retire,
            commit_fails,
            look_up_fails,
            fails_again: random.u32(0..900),
            hub_dies,
            drain,
            wall_jumps,
            pauses,
            stalls,
            tight,
            delays: random.bool(),
            timeouts: random.bool(),
            rules: random.bool(),
            keys: random.bool(),
            schedules: random.u8(0..3) == 0,
            flood,
            dependencies: random.bool(),
            workflows: random.bool(),
            unique: random.bool(),
            gather: random.bool(),
            types: random.u8(0..3) == 0,
        };
        if random.u32(0..4) == 0 {
            mix.options.changes_max = random.usize(1..12);
        }
        mix
    }
}
