//! `taskhub serve`: its words, those of its file, and what comes of both.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::config_file;
use super::outcome::{Failed, Outcome, print};
use crate::config::ServeConfig;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// A file of settings in TOML: each option is a key of the same name, without the dashes before it
    ///
    /// What is said here or in the environment goes before the file. --print-config shows all keys.
    #[arg(long = "config", env = "TASKHUB_CONFIG", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print the settings that hold, as a file for --config, and exit
    #[arg(long)]
    print_config: bool,

    #[command(flatten)]
    config: ServeConfig,
}

/// The file that is named.
pub(super) fn file(serve: &ArgMatches) -> Option<&PathBuf> {
    serve.get_one("file")
}

pub(super) fn serve(mut args: ServeArgs, matches: Option<&ArgMatches>) -> Outcome {
    if let Some(path) = &args.file {
        args.config.auth = config_file::auth(path).map_err(Failed::usage)?;
    }
    if let (true, Some(matches)) = (args.print_config, matches) {
        args.config.check().map_err(Failed::usage)?;
        print(&config_file::text(matches, args.file.as_deref()).map_err(Failed::usage)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(crate::server::main(args.config))
}
