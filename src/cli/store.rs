//! Looking after what a hub has stored: `check`, `backup`, `restore`.
//!
//! They work on the files, not through the hub's address: a hub that does not start is when they are needed most. A check
//! and a backup can be made beside a running hub.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::outcome::{FAILED, Failed, Outcome, print, print_json};
use crate::store::{self, Findings, StoreError};

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The hub's data folder, or a backup
    #[arg(env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER|FILE")]
    path: PathBuf,
    /// Go on with what is left, where something is missing or damaged
    ///
    /// What can be read becomes the beginning of a new history, and everyone who watches begins anew. The files as they were
    /// are kept in a folder beside. The hub must not be running.
    #[arg(long)]
    accept: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The file to write, which must not exist; or a folder, to give it a name there
    #[arg(value_name = "FILE|FOLDER")]
    target: PathBuf,
    /// The hub's data folder
    #[arg(long, env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER")]
    data: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup, or the data folder of a hub that does not run
    #[arg(value_name = "FILE|FOLDER")]
    backup: PathBuf,
    /// The hub's data folder; the hub must not be running
    #[arg(long, env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER")]
    data: PathBuf,
    /// Move away what is in the data folder, into a folder within it
    #[arg(long)]
    replace: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// `taskhub check`: exits with 1 where something is wrong.
pub(super) fn check(args: &CheckArgs) -> Outcome {
    let mut aside = None;
    let findings = match args.accept {
        true => {
            let (findings, moved) = store::accept(&args.path).map_err(failed)?;
            aside = Some(moved);
            findings
        }
        false => store::check(&args.path).map_err(failed)?,
    };
    tell(&findings, args.json, aside.map(|aside| ("the files as they were", aside)))?;
    Ok(if findings.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// `taskhub backup`.
pub(super) fn backup(args: &BackupArgs) -> Outcome {
    let findings = store::backup(&args.data, &args.target).map_err(failed)?;
    tell(&findings, args.json, None)?;
    Ok(ExitCode::SUCCESS)
}

/// `taskhub restore`.
pub(super) fn restore(args: &RestoreArgs) -> Outcome {
    let (findings, aside) = store::restore(&args.backup, &args.data, args.replace).map_err(failed)?;
    tell(&findings, args.json, aside.map(|aside| ("what was there before", aside)))?;
    Ok(ExitCode::SUCCESS)
}

fn failed(error: StoreError) -> Failed {
    Failed::here(error.to_string())
}

fn tell(findings: &Findings, as_json: bool, aside: Option<(&str, PathBuf)>) -> Result<(), Failed> {
    if as_json {
        return print_json(&in_json(findings, aside.map(|(_, aside)| aside)));
    }
    let mut text = in_words(findings);
    if let Some((what, aside)) = aside {
        let _ = writeln!(text, "{what}: {}", aside.display());
    }
    print(&text)
}

fn in_json(findings: &Findings, aside: Option<PathBuf>) -> Value {
    let Findings {
        file,
        in_use,
        epoch,
        openings,
        rev,
        tasks,
        results,
        result_bytes,
        closed,
        api_tokens,
        audit,
        pages,
        summed,
        problems,
        given_up,
    } = findings;
    let tasks: Map<_, _> = tasks.iter().map(|(status, count)| (status.as_str().to_owned(), json!(count))).collect();
    let mut value = json!({
        "file": file, "sound": problems.is_empty(), "in_use": in_use, "epoch": epoch, "openings": openings, "rev": rev,
        "tasks": tasks, "results": results, "result_bytes": result_bytes, "pages": pages, "checksums": summed, "problems": problems,
        "closed": closed, "api_tokens": api_tokens, "audit": audit,
    });
    if let Some(aside) = aside {
        value["aside"] = json!(aside);
        value["given_up"] = json!(given_up);
    }
    value
}

fn in_words(findings: &Findings) -> String {
    let Findings { file, in_use, epoch, rev, tasks, results, result_bytes, pages, summed, .. } = findings;
    let Findings { closed, api_tokens, audit, problems, given_up, .. } = findings;
    let mut text = String::new();
    let mut line = |name: &str, what: String| {
        let _ = writeln!(text, "{name:<9} {what}");
    };
    line("file", format!("{}{}", file.display(), if *in_use { ", a hub is running on it" } else { "" }));
    line("pages", format!("{pages}, {}", if *summed { "each with its checksum" } else { "without checksums" }));
    line("history", format!("{epoch}, up to rev {rev}"));
    let all: u64 = tasks.values().sum();
    let each: Vec<_> = tasks.iter().map(|(status, count)| format!("{count} {}", status.as_str())).collect();
    line("tasks", if all == 0 { "none".to_owned() } else { format!("{all}: {}", each.join(", ")) });
    if *results > 0 {
        line("results", format!("{results} in files, {result_bytes} bytes"));
    }
    if *closed {
        line("access", format!("closed, {api_tokens} API tokens, {audit} entries in the audit"));
    }
    given_up.iter().for_each(|what| line("given up", what.clone()));
    match problems.is_empty() {
        true => line("sound", "nothing is missing or damaged".to_owned()),
        false => problems.iter().for_each(|problem| line("WRONG", problem.clone())),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Status;

    #[test]
    fn a_report_says_what_is_wrong() {
        let mut findings = Findings {
            file: "data/taskhub.db".into(),
            epoch: "0198.7f".into(),
            rev: 1042,
            tasks: [(Status::Pending, 2), (Status::Completed, 40)].into(),
            pages: 12,
            summed: true,
            ..Findings::default()
        };
        assert_eq!(
            in_words(&findings),
            "file      data/taskhub.db\n\
             pages     12, each with its checksum\n\
             history   0198.7f, up to rev 1042\n\
             tasks     42: 2 pending, 40 completed\n\
             sound     nothing is missing or damaged\n"
        );
        assert_eq!(in_json(&findings, None)["sound"], true);
        findings.problems.push("the history ends at rev 1042, and rev 1044 was acknowledged".into());
        let words = in_words(&findings);
        assert!(words.ends_with("WRONG     the history ends at rev 1042, and rev 1044 was acknowledged\n"), "{words}");
        let json = in_json(&findings, Some("data/replaced-1".into()));
        assert_eq!(
            (&json["sound"], &json["tasks"]["completed"], &json["aside"]),
            (&json!(false), &json!(40), &json!("data/replaced-1"))
        );
    }
}
