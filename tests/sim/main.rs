//! A simulation of the hub's engine, with everything around it made up from one seed: applications, honest, broken and
//! lying workers, a store that fails, clocks that jump, hubs that die.
//!
//! * [`world`] is the hub's process: the rounds of the writer, the committed store, both clocks, and what goes wrong.
//! * [`apps`] submit, cancel, retry and delete; [`workers`] run tasks, over sockets and over HTTP; [`watchers`] follow.
//! * [`check`] is told of every decision, commit and reply and holds each against its own, independent account.
//! * [`ties`] and [`workflows`] are its account of what tasks depend on, and are part of.
//! * [`callbacks`] is its account of what URLs are to be told.
//! * [`unique`] is its account of tasks of which there is one at a time.
//! * [`gather`] is its account of submissions that become one task.
//! * [`types`] declares task types, and is its account of what tasks take from them.
//! * [`rules`] is its account of what people set: queues, limits, turns.
//! * [`rates`] is its account of what was handed out within a while.
//! * [`mix`] says, from the seed, how much of everything there is.
//!
//! Nothing here reads a clock or the operating system, so the same seed makes the same run, step for step.
//!
//! A failing run prints its seed and the end of its trace. `SIM_SEED=n cargo test --test sim replay -- --nocapture` runs
//! that seed alone; `SIM_TRACE=all` prints its whole trace. With `SIM_SEEDS` that many fresh seeds are run, from
//! `SIM_FIRST` where that is said; `SIM_STEPS` makes every run that long.

mod apps;
mod callbacks;
mod check;
mod gather;
mod mix;
mod rates;
mod rules;
mod ties;
mod trace;
mod types;
mod unique;
mod watchers;
mod workers;
mod workflows;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use mix::Mix;
use trace::Trace;
use world::World;

/// What a run amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    hash: u64,
    steps: u64,
    commits: u64,
    changes: u64,
}

fn run(seed: u64, steps: Option<u32>, trace: &Trace) -> Run {
    let mut mix = Mix::of(seed);
    mix.steps = steps.unwrap_or(mix.steps);
    let mut world = World::new(seed, mix, trace.clone());
    world.live();
    world.end();
    Run { hash: trace.hash(), steps: world.steps, commits: world.commits, changes: world.changes }
}

/// Runs one seed. If it fails, runs it once more to print what led there.
fn check(seed: u64, steps: Option<u32>) -> Run {
    let quiet = Quiet::begin();
    if let Ok(run) = catch_unwind(|| run(seed, steps, &Trace::silent())) {
        return run;
    }
    let trace = Trace::kept();
    let again = catch_unwind(AssertUnwindSafe(|| run(seed, steps, &trace)));
    let why = quiet.end();
    eprintln!("--- the end of seed {seed}: {:?}\n{}{why}", Mix::of(seed), trace.end(60));
    let steps = steps.map_or(String::new(), |steps| format!("SIM_STEPS={steps} "));
    assert!(again.is_err(), "seed {seed} failed, but not when it was run again: the simulation is not deterministic");
    panic!("seed {seed} failed; {steps}SIM_SEED={seed} cargo test --test sim replay -- --nocapture");
}

thread_local! {
    /// What the last panic on this thread said, while panics are kept quiet.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While this is there, a panic on this thread is kept rather than printed: a failing run is run twice, and what it says
/// belongs below its trace.
struct Quiet;

impl Quiet {
    fn begin() -> Quiet {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let loud = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let kept = SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = panic.to_string()).is_some());
                if !kept {
                    loud(panic);
                }
            }));
        });
        SAID.set(Some(String::new()));
        Quiet
    }

    fn end(self) -> String {
        SAID.with_borrow_mut(Option::take).unwrap_or_default()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        SAID.set(None);
    }
}

/// Runs many seeds on all cores and stops at the first that fails.
fn check_all(first: u64, seeds: u64, steps: Option<u32>) {
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let totals = std::thread::scope(|scope| {
        let work = || {
            let mut total = Run::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + seeds || failed.load(Ordering::Relaxed) {
                    return Ok(total);
                }
                match catch_unwind(|| check(seed, steps)) {
                    Ok(run) => {
                        total.steps += run.steps;
                        total.commits += run.commits;
                        total.changes += run.changes;
                    }
                    Err(panic) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(panic);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("panics are caught")).collect::<Vec<_>>()
    });
    let mut total = Run::default();
    for run in totals {
        let run = run.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        total.steps += run.steps;
        total.commits += run.commits;
        total.changes += run.changes;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {} steps, {} commits, {} changes in {seconds:.1} s: {:.0} steps/s",
        total.steps,
        total.commits,
        total.changes,
        total.steps as f64 / seconds
    );
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// The seeds of every day, or as many fresh ones as `SIM_SEEDS` says.
#[test]
fn every_promise_holds_over_many_seeds() {
    match number("SIM_SEEDS") {
        None => check_all(number("SIM_FIRST").unwrap_or(0), 2_000, steps()),
        Some(seeds) => check_all(number("SIM_FIRST").unwrap_or_else(fresh), seeds, steps()),
    }
}

fn steps() -> Option<u32> {
    number("SIM_STEPS").map(|steps| u32::try_from(steps).expect("SIM_STEPS fits 32 bits"))
}

/// A seed nobody has tried. The only look at a clock, and it is printed.
fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let first = since.as_secs() << 24;
    println!("SIM_FIRST={first}");
    first
}

#[test]
fn same_seed_same_trace() {
    for seed in (0..40).map(|n| n * 7_919) {
        let [first, second] = [(); 2].map(|()| run(seed, None, &Trace::silent()));
        assert_eq!(first, second, "seed {seed} made two different runs");
    }
}

#[test]
fn replay() {
    let Some(seed) = number("SIM_SEED") else { return };
    let trace = Trace::kept();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, steps(), &trace)));
    let lines = if std::env::var("SIM_TRACE").is_ok() { usize::MAX } else { 200 };
    println!("--- seed {seed}: {:?}\n{}", Mix::of(seed), trace.end(lines));
    match outcome {
        Ok(run) => println!("{run:?}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
