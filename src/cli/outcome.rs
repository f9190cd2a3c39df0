//! How a command of ours went, as an exit code and perhaps a line of text.

use std::io::{self, Write};
use std::process::ExitCode;

use super::tables::Look;
use crate::client::ClientError;
use crate::task::Json;

pub(super) type Outcome = Result<ExitCode, Failed>;

/// The task failed or was cancelled, or something went wrong here.
pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const UNREACHABLE: u8 = 3;
pub(super) const REFUSED: u8 = 4;

/// Why a command of ours did not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failed {
    code: u8,
    /// Nothing to say where whoever reads us has stopped reading.
    words: Option<String>,
}

impl Failed {
    pub(super) fn usage(words: impl Into<String>) -> Failed {
        Failed { code: USAGE, words: Some(words.into()) }
    }

    pub(super) fn unreachable(words: impl Into<String>) -> Failed {
        Failed { code: UNREACHABLE, words: Some(words.into()) }
    }

    /// No hub answers there. Whoever is new here has not started one.
    pub(super) fn no_hub(words: impl std::fmt::Display) -> Failed {
        Failed::unreachable(format!(
            "{words}\n  `taskhub serve` starts a hub on this machine, `taskhub demo` one to play with; --hub or TASKHUB_URL \
             names another"
        ))
    }

    pub(super) fn refused(words: impl Into<String>) -> Failed {
        Failed { code: REFUSED, words: Some(words.into()) }
    }

    /// Something of this machine went wrong.
    pub(super) fn here(words: impl Into<String>) -> Failed {
        Failed { code: FAILED, words: Some(words.into()) }
    }

    /// What was asked of this thing was wrong; the same may be right of another.
    pub(super) fn is_of_one(&self) -> bool {
        matches!(self.code, REFUSED | USAGE)
    }

    /// The same, said of this thing.
    pub(super) fn about(mut self, thing: impl std::fmt::Display) -> Failed {
        self.words = self.words.map(|words| format!("{thing}: {words}"));
        self
    }

    /// Whoever reads us has stopped reading.
    pub(super) fn silent() -> Failed {
        Failed { code: 0, words: None }
    }

    pub(super) fn tell(&self) {
        if let Some(words) = &self.words {
            tell(format_args!("taskhub: {words}"));
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Failed {
        let words = match &error {
            ClientError::Refused(problem) => {
                let field = problem.field.as_ref().map(|field| format!("{field} ")).unwrap_or_default();
                // Most details begin with the field that is wrong; the others need to be told it.
                let field = if problem.detail.starts_with(&field) { String::new() } else { field };
                let others =
                    problem.errors.iter().skip(1).map(|fault| format!("\n  {} {}", fault.field, fault.words()));
                let others: String = others.collect();
                let hint = match problem.status {
                    401 => "\n  `taskhub login` keeps a token for a hub, and TASKHUB_TOKEN says another",
                    _ => "",
                };
                format!("the hub refused: {field}{} ({}){others}{hint}", problem.detail, problem.code.as_str())
            }
            error => error.to_string(),
        };
        match error {
            ClientError::Address(_) | ClientError::Token(_) => Failed::usage(words),
            ClientError::Unreachable { .. } => Failed::no_hub(words),
            ClientError::Protocol { .. } => Failed::unreachable(words),
            ClientError::Refused(_) => Failed::refused(words),
        }
    }
}

/// Writes a line to standard error. A terminal that is gone is no reason to stop.
pub(super) fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to standard output. A reader who has stopped reading ends us, without a word.
pub(super) fn print(text: &str) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|why| match why.kind() {
        io::ErrorKind::BrokenPipe => Failed::silent(),
        _ => Failed::here(format!("failed to write: {why}")),
    })
}

/// Prints one value on one line, a payload too that came over several.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failed> {
    print(&json_line(value).map_err(|why| Failed::here(why.to_string()))?)
}

/// Several things: each as a line of JSON, or all of them as a table.
pub(super) fn print_all<T: serde::Serialize>(
    items: &[T],
    json: bool,
    table: impl FnOnce(&[T], Look) -> String,
) -> Result<(), Failed> {
    match json {
        true => items.iter().try_for_each(print_json),
        false => print(&table(items, Look::here())),
    }
}

pub(super) fn json_line(value: &impl serde::Serialize) -> Result<String, serde_json::Error> {
    Ok(format!("{}\n", Json::of(value)?.as_str()))
}
