//! The one binary: roles as subcommands; what comes of one is an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    taskhub::cli::main()
}
