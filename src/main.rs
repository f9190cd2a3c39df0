//! The `taskhub` program.

use std::process::ExitCode;

use clap::Parser;

/// A real-time task hub
#[derive(Parser)]
enum Role {
    /// Starts a hub
    Serve(taskhub::config::ServeConfig),
}

fn main() -> ExitCode {
    let Role::Serve(config) = Role::parse();
    taskhub::server::main(config)
}
