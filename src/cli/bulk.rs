//! `bulk`: one call for many tasks.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::outcome::{Failed, Outcome, print_json, tell};
use super::submit::{label, labels};
use super::tasks::status;
use super::{HubArgs, TaskName};
use crate::client::Client;
use crate::task::{FilterSpec, Status};
use crate::wire::BulkChanged;

#[derive(Debug, Subcommand)]
pub(super) enum BulkCommand {
    /// Cancel those that are not finished
    Cancel(CancelArgs),
    /// Run those again that failed or were cancelled
    Retry(BulkArgs),
    /// Delete those that are finished
    Delete(BulkArgs),
}

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// Why, for their histories
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    of: BulkArgs,
}

#[derive(Debug, Args)]
pub(super) struct BulkArgs {
    /// Every task that it can be done to
    #[arg(long, conflicts_with_all = ["status", "task_type", "queue", "user", "workflow", "labels"])]
    all: bool,
    /// Only these; may be given several times, or with commas
    #[arg(long, short, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<Status>,
    /// Only tasks of this type; a trailing * stands for any end
    #[arg(long = "type", short, value_name = "TYPE")]
    task_type: Option<String>,
    /// Only tasks of this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Only tasks of this user
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,
    /// Only tasks of this workflow
    #[arg(long, value_name = "ID")]
    workflow: Option<TaskName>,
    /// Only tasks with this label; may be given several times
    #[arg(long = "label", short, value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Do nothing: say how many it would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    hub: HubArgs,
}

impl BulkArgs {
    async fn filter(&self, client: &Client) -> Result<FilterSpec, Failed> {
        let labels = labels(&self.labels)?;
        let filter = FilterSpec {
            task_type: self.task_type.clone().map(|name| vec![name]),
            queue: self.queue.clone().map(|name| vec![name]),
            status: (!self.status.is_empty()).then(|| self.status.clone()),
            user_id: self.user.clone().map(|user| vec![user]),
            workflow_id: match &self.workflow {
                Some(workflow) => Some(vec![workflow.find(client).await?]),
                None => None,
            },
            labels: (!labels.is_empty()).then(|| labels.into_iter().map(|(key, value)| (key, vec![value])).collect()),
            ..FilterSpec::default()
        };
        match filter == FilterSpec::default() && !self.all {
            true => Err(Failed::usage("say which tasks, or --all")),
            false => Ok(filter),
        }
    }
}

pub(super) async fn bulk(command: BulkCommand) -> Outcome {
    let (args, what) = match &command {
        BulkCommand::Cancel(CancelArgs { of, .. }) => (of, "cancelled, or asked to stop"),
        BulkCommand::Retry(of) => (of, "run again"),
        BulkCommand::Delete(of) => (of, "deleted"),
    };
    let client = args.hub.client()?;
    let filter = args.filter(&client).await?;
    let mut all = BulkChanged { matched: 0, changed: 0, more: false };
    loop {
        let done = match &command {
            BulkCommand::Cancel(CancelArgs { reason, .. }) => {
                client.cancel_many(filter.clone(), reason.as_deref(), args.dry_run).await?
            }
            BulkCommand::Retry(_) => client.retry_many(filter.clone(), args.dry_run).await?,
            BulkCommand::Delete(_) => client.delete_many(filter.clone(), args.dry_run).await?,
        };
        (all.matched, all.changed, all.more) = (all.matched + done.matched, all.changed + done.changed, done.more);
        // What was not changed would be met again and again.
        if !done.more || args.dry_run || done.changed == 0 {
            break;
        }
    }
    if args.hub.json {
        print_json(&all)?;
    } else {
        let more = if all.more { ", and there are more" } else { "" };
        let would = if args.dry_run { "would be " } else { "" };
        tell(format_args!("{} of {} {would}{what}{more}", all.changed, all.matched));
    }
    Ok(ExitCode::SUCCESS)
}
