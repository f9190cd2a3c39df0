//! What the hub costs, measured the way it is used: the release binary as its own process with its folder on a real disk,
//! a worker built on the library as another, and a thin submitter as a third. Every acknowledgement comes after its fsync.
//!
//! ```text
//! cargo bench --bench hub                     every row, some minutes
//! cargo bench --bench hub -- submit memory    the rows whose names contain one of these
//! ```
//!
//! `TASKHUB_BENCH_BINARY=PATH` measures another build of the hub, for before and after.
//!
//! Names say the axis. A machine floor is measured in the same run (a bare axum handler, a bare SQLite commit, a bare
//! echo), so that what counts, the ratio, can be compared across machines. CPU is what the kernel charged to whole
//! processes, so a busy machine blurs it less than elapsed time. Nothing here fails because something was slow: numbers
//! are for reading. It does fail when a task is lost.
//!
//! The program starts itself again for every role but the hub: `hub --as worker …`, see [`roles`].

mod access;
mod bare_feed;
mod connection;
mod crash;
mod crowd;
mod flood;
mod floor;
mod frames;
mod hub;
mod latency;
mod limits;
mod memory;
mod noop;
mod process;
mod progress;
mod promptness;
mod report;
mod retention;
mod roles;
mod seat;
mod socket;
mod submit;
mod watchers;
mod workflows;

use crate::report::Report;

/// As the program has it, for the worker and the bare server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What goes wrong ends the program with its story; there is nobody to handle it.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let [flag, role, rest @ ..] = &arguments[..]
        && flag == "--as"
    {
        return runtime.block_on(roles::run(role, rest));
    }
    // Cargo adds `--bench`; every other word is a part of a name.
    let wanted = arguments.into_iter().filter(|word| !word.starts_with('-')).collect();
    runtime.block_on(measure(Report::new(wanted)))
}

async fn measure(mut report: Report) -> Outcome {
    let floor = floor::measure().await?;
    report.note(floor.to_string());
    if report.wants(&noop::NAMES) {
        noop::run(&mut report, &floor).await?;
    }
    if report.wants(&submit::NAMES) {
        submit::run(&mut report, &floor).await?;
    }
    if report.wants(&latency::NAMES) {
        latency::run(&mut report, &floor).await?;
    }
    if report.wants(&progress::NAMES) {
        progress::run(&mut report, &floor).await?;
    }
    if report.wants(&watchers::NAMES) {
        watchers::run(&mut report).await?;
    }
    if report.wants(&promptness::NAMES) {
        promptness::run(&mut report).await?;
    }
    if report.wants(&crash::NAMES) {
        crash::run(&mut report).await?;
    }
    if report.wants(&memory::NAMES) {
        memory::run(&mut report).await?;
    }
    if report.wants(&limits::NAMES) {
        limits::run(&mut report)?;
    }
    if report.wants(&flood::NAMES) {
        flood::run(&mut report).await?;
    }
    if report.wants(&retention::NAMES) {
        retention::run(&mut report).await?;
    }
    if report.wants(&workflows::NAMES) {
        workflows::run(&mut report).await?;
    }
    if report.wants(&access::NAMES) {
        access::run(&mut report).await?;
    }
    report.print();
    Ok(())
}
