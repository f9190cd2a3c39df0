//! `callback`: URLs that are told of what becomes of tasks.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::outcome::{Failed, Outcome, print, print_all, print_json, tell};
use super::tables;
use super::{HubArgs, block_on};
use crate::callbacks::{Secret, read_or_make, rotate};
use crate::client::CallbackQuery;
use crate::task::{DeliveryId, DeliveryStatus, TaskId, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum CallbackCommand {
    /// List callbacks that are owed or were given up
    List(ListArgs),
    /// Have callbacks tried at once
    Retry(RetryArgs),
    /// Show the secret that callbacks are signed with
    ///
    /// It stands in a file in the hub's data folder that nobody else may read, so this is for whoever may. It is made where there
    /// is none yet.
    Secret(SecretArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those that are owed (pending), or were given up (failed)
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<DeliveryStatus>,
    /// Only those of this task
    #[arg(long, value_name = "TASK_ID")]
    task: Option<TaskId>,
    /// The most of them
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// Which ones, as `callback list` shows them
    #[arg(value_name = "CALLBACK_ID", required_unless_present = "failed")]
    ids: Vec<DeliveryId>,
    /// All that were given up
    #[arg(long, conflicts_with = "ids")]
    failed: bool,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    /// Change it: callbacks are signed with the old one, too, for 24 hours
    #[arg(long)]
    rotate: bool,
    /// The hub's data folder
    #[arg(long, env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER")]
    data: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

fn status(word: &str) -> Result<DeliveryStatus, String> {
    DeliveryStatus::parse(word).ok_or_else(|| "it is pending or failed".into())
}

pub(super) fn callback(command: CallbackCommand) -> Outcome {
    match command {
        CallbackCommand::List(args) => block_on(list(args)),
        CallbackCommand::Retry(args) => block_on(retry(args)),
        CallbackCommand::Secret(args) => secret(&args),
    }
}

async fn list(args: ListArgs) -> Outcome {
    let query = CallbackQuery { status: args.status, task_id: args.task, limit: Some(args.limit), cursor: None };
    let found = args.hub.client()?.callbacks(&query).await?;
    print_all(&found.callbacks, args.hub.json, tables::callbacks)?;
    if found.next_cursor.is_some() {
        tell(format_args!("there are more: --limit up to 500, --status and --task say which"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn retry(args: RetryArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut ids = args.ids;
    let mut query =
        CallbackQuery { status: Some(DeliveryStatus::Failed), limit: Some(500), ..CallbackQuery::default() };
    let mut more = args.failed;
    while more {
        let page = client.callbacks(&query).await?;
        ids.extend(page.callbacks.iter().map(|callback| callback.callback_id));
        query.cursor = page.next_cursor;
        more = query.cursor.is_some();
    }
    // The oldest first, as they were listed the newest first.
    for id in ids.iter().rev() {
        let callback = client.retry_callback(*id).await.map_err(|error| Failed::from(error).about(id))?;
        match args.hub.json {
            true => print_json(&callback)?,
            false => tell(format_args!("{id} is tried again")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn secret(args: &SecretArgs) -> Outcome {
    let failed = |why: std::io::Error| {
        let folder = args.data.display();
        Failed::here(match why.kind() {
            std::io::ErrorKind::NotFound => format!("there is no folder {folder}: name the hub's with --data"),
            _ => format!("the secret of {folder}: {why}"),
        })
    };
    let secrets = match args.rotate {
        true => rotate(&args.data, Timestamp::now()),
        false => read_or_make(&args.data),
    };
    let secrets = secrets.map_err(failed)?;
    let is_used = |secret: &&Secret| secret.until.is_none_or(|until| until >= Timestamp::now());
    let (current, old) = secrets.split_first().ok_or_else(|| Failed::here("there is no secret"))?;
    let old: Vec<&Secret> = old.iter().filter(is_used).collect();
    if args.json {
        let old: Vec<_> = old.iter().map(|it| json!({"secret": it.text(), "until": it.until})).collect();
        print_json(&json!({"secret": current.text(), "old": old}))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("{}\n", current.text()))?;
    for until in old.iter().filter_map(|secret| secret.until) {
        tell(format_args!("callbacks are signed with the one before, too, until {until}"));
    }
    Ok(ExitCode::SUCCESS)
}
