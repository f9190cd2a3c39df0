//! The one binary: roles as subcommands; what comes of one is an exit code.

use std::process::ExitCode;

/// Millions of small records come and go on two kinds of threads: the system's allocator takes more CPU for that, and
/// gives less back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    taskhub::cli::main()
}
