//! The `taskhub` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    taskhub::server::main(taskhub::config::ServeConfig::parse())
}
