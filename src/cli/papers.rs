//! What a system keeps beside a program: completions for its shells, and manual pages. `make install` writes them where
//! they belong.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::outcome::{Failed, Outcome, print};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Prints a script; `source <(taskhub completions bash)` tries it.
pub(super) fn completions(args: CompletionsArgs, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "taskhub", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command it is about; the whole program where absent
    about: Option<String>,
    /// Write the pages of all commands into this folder, instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "about")]
    to: Option<PathBuf>,
}

/// Prints a manual page; `taskhub man serve | man -l -` shows one.
pub(super) fn man(args: ManArgs, command: Command) -> Outcome {
    let mut command = command.disable_help_subcommand(true);
    if let Some(folder) = args.to {
        let wrong = |why| Failed::here(format!("{}: {why}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(wrong)?;
        clap_mangen::generate_to(command, &folder).map_err(wrong)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Only then do commands know the whole of their names.
    command.build();
    let command = match args.about {
        None => command,
        Some(name) => match command.find_subcommand(&name) {
            Some(found) => found.clone(),
            None => return Err(Failed::usage(format!("there is no command {name}"))),
        },
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(|why| Failed::here(why.to_string()))?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
