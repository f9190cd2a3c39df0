//! `workflow`: tasks that belong together.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::outcome::{FAILED, Failed, Outcome, print, print_json, tell};
use super::submit::{finished, payload};
use super::tables::{self, Look};
use super::{HubArgs, TaskName};
use crate::task::{NewWorkflow, Status};

#[derive(Debug, Subcommand)]
pub(super) enum WorkflowCommand {
    /// Submit a workflow
    Submit(SubmitArgs),
    /// Show a workflow with its tasks
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// The workflow: JSON, @FILE, or - for standard input
    workflow: String,
    /// Wait for its end; print its result, and exit with 1 if it failed or was cancelled
    #[arg(long, short)]
    wait: bool,
    /// The same key and workflow again, within 24 hours, give the first one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[arg(value_name = "ID")]
    task_id: TaskName,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn workflow(command: WorkflowCommand) -> Outcome {
    match command {
        WorkflowCommand::Submit(args) => submit(args).await,
        WorkflowCommand::Show(args) => show(args).await,
    }
}

async fn submit(args: SubmitArgs) -> Outcome {
    let text = payload(&args.workflow)?;
    let new: NewWorkflow =
        serde_json::from_str(text.as_str()).map_err(|why| Failed::usage(format!("this is no workflow: {why}")))?;
    let client = args.hub.client()?;
    let whole = client.submit_workflow(&new, args.idempotency_key.as_deref()).await?;
    if !args.wait {
        match args.hub.json {
            true => print_json(&whole)?,
            false => print(&format!("{}\n", whole.workflow.task_id))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let ended = finished(&client, whole.workflow.task_id).await?;
    if args.hub.json {
        print_json(&ended)?;
    } else if let Some(result) = &ended.result {
        print(&format!("{}\n", result.as_str()))?;
    } else {
        tell(super::bars::ending(&ended, usize::MAX));
        tell(format_args!("  taskhub workflow show {}", ended.task_id));
    }
    Ok(if ended.status == Status::Completed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn show(args: ShowArgs) -> Outcome {
    let client = args.hub.client()?;
    let task_id = args.task_id.find(&client).await?;
    let whole = client.workflow(task_id).await?;
    match args.hub.json {
        true => print_json(&whole)?,
        false => print(&tables::workflow(&whole, Look::here()))?,
    }
    Ok(ExitCode::SUCCESS)
}
