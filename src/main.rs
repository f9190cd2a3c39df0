//! The one binary: roles as subcommands; what comes of one is an exit code.

use std::process::ExitCode;

/// Millions of small records come and go on two kinds of threads: the system's allocator takes more CPU for that, and
/// gives less back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    return_memory_soon();
    taskhub::cli::main()
}

/// Has the allocator give back what was free for a hundredth of the second it would wait by itself. Else a hub that rests
/// after a flood keeps what the flood's end left free, some 20 MB, until it has as much to do again.
fn return_memory_soon() {
    /// `mi_option_purge_delay`, which the bindings do not name.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const MILLISECONDS: libc::c_long = 10;
    // SAFETY: sets one number, which the allocator reads whenever it needs it.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) }
}
