//! The commands that ask once and answer: `get`, `why`, `list`, `update`, `cancel`, `retry`, `stats`, `workers`.

use std::process::ExitCode;

use clap::Args;

use super::outcome::{FAILED, Failed, Outcome, print, print_all, print_json, tell};
use super::show;
use super::submit::{finished, label, labels, moment, payload};
use super::tables::{self, Look};
use super::{HubArgs, TaskName};
use crate::client::{ListQuery, Order};
use crate::task::{Status, TaskPatch, Timestamp};

#[derive(Debug, Args)]
pub(super) struct HubOnly {
    #[command(flatten)]
    pub(super) hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[arg(value_name = "ID")]
    task_id: TaskName,
    /// Wait for its end; exit with 1 if it failed or was cancelled
    #[arg(long, short)]
    wait: bool,
    /// Show its history, too
    #[arg(long)]
    history: bool,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn get(args: GetArgs) -> Outcome {
    let client = args.hub.client()?;
    let task_id = args.task_id.find(&client).await?;
    let task = if args.wait { finished(&client, task_id).await? } else { client.get(task_id).await? };
    let history = if args.history { Some(client.history(task_id).await?) } else { None };
    if args.hub.json {
        match &history {
            Some(history) => print_json(&serde_json::json!({ "task": task, "transitions": history }))?,
            None => print_json(&task)?,
        }
    } else {
        print(&tables::task(&task, history.as_deref(), Look::here()))?;
    }
    let failed = args.wait && task.status != Status::Completed;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[arg(value_name = "ID")]
    task_id: TaskName,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn why(args: WhyArgs) -> Outcome {
    let client = args.hub.client()?;
    let task_id = args.task_id.find(&client).await?;
    let task = client.get(task_id).await?;
    match args.hub.json {
        true => print_json(&serde_json::json!({ "status": task.status, "waits_for": task.waits_for }))?,
        false => print(&show::why(&task, Timestamp::now()))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only these; may be given several times, or with commas
    #[arg(long, short, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<Status>,
    /// Only tasks of this type
    #[arg(long = "type", short, value_name = "TYPE")]
    task_type: Option<String>,
    /// Only tasks of this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Only tasks of this user
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,
    /// Only tasks with this label; may be given several times
    #[arg(long = "label", short, value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only tasks with this text in title, type or id
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Oldest first
    #[arg(long)]
    oldest: bool,
    /// How many
    #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) fn status(word: &str) -> Result<Status, String> {
    let words = || Status::ALL.map(Status::as_str).join(", ");
    Status::parse(word).ok_or_else(|| format!("a status is one of {}", words()))
}

/// The largest page a hub gives.
const PAGE_MAX: u32 = 500;

pub(super) async fn list(args: ListArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut query = ListQuery {
        status: args.status,
        task_type: args.task_type,
        queue: args.queue,
        user_id: args.user,
        labels: labels(&args.labels)?,
        text: args.text,
        order: if args.oldest { Order::OldestFirst } else { Order::NewestFirst },
        ..ListQuery::default()
    };
    let mut tasks = Vec::new();
    let more = loop {
        query.limit = Some((args.limit - tasks.len() as u32).min(PAGE_MAX));
        let page = client.list(&query).await?;
        tasks.extend(page.tasks);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() || tasks.len() as u32 >= args.limit {
            break query.cursor.is_some();
        }
    };
    if args.hub.json {
        for task in &tasks {
            print_json(task)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    print(&tables::tasks(&tasks, Look::here()))?;
    if more {
        tell("(there are more; -n shows them)");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    #[arg(required = true, value_name = "ID")]
    task_id: Vec<TaskName>,
    /// Why, for its history
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn cancel(args: CancelArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut refused = None;
    for name in args.task_id {
        let cancelled = async {
            let task_id = name.find(&client).await?;
            Ok(client.cancel(task_id, args.reason.as_deref()).await?)
        };
        match cancelled.await {
            Ok(task) if args.hub.json => print_json(&task)?,
            Ok(task) if task.status == Status::Cancelled => print(&format!("{} cancelled\n", task.task_id))?,
            Ok(task) => print(&format!("{} asked to stop\n", task.task_id))?,
            Err(why) => note(&mut refused, why, &name)?,
        }
    }
    refused.map_or(Ok(ExitCode::SUCCESS), Err)
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[arg(value_name = "ID")]
    task_id: TaskName,
    /// -100 to 100, higher first
    #[arg(long, short, allow_negative_numbers = true)]
    priority: Option<i8>,
    /// Not before this moment, such as 2026-01-31T12:00:00Z; one that is over makes it ready
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    run_at: Option<Timestamp>,
    /// For people
    #[arg(long, short)]
    title: Option<String>,
    /// Another payload in place of the one it has: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "PAYLOAD")]
    payload: Option<String>,
    /// How many tries it has
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn update(args: UpdateArgs) -> Outcome {
    let client = args.hub.client()?;
    let task_id = args.task_id.find(&client).await?;
    let patch = TaskPatch {
        priority: args.priority,
        run_at: args.run_at,
        title: args.title,
        payload: args.payload.as_deref().map(payload).transpose()?,
        max_attempts: args.max_attempts,
    };
    let task = client.update(task_id, &patch).await?;
    match args.hub.json {
        true => print_json(&task)?,
        false => print(&format!("{} {}\n", task.task_id, task.status))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    #[arg(required = true, value_name = "ID")]
    task_id: Vec<TaskName>,
    /// Another payload in place of the one they have: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "PAYLOAD")]
    payload: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn retry(args: RetryArgs) -> Outcome {
    let payload = args.payload.as_deref().map(payload).transpose()?;
    let client = args.hub.client()?;
    let mut refused = None;
    for name in args.task_id {
        let retried = async {
            let task_id = name.find(&client).await?;
            Ok(match payload.clone() {
                None => client.retry(task_id).await?,
                Some(payload) => client.retry_with(task_id, payload).await?,
            })
        };
        match retried.await {
            Ok(task) if args.hub.json => print_json(&task)?,
            Ok(task) => print(&format!("{} {}\n", task.task_id, task.status))?,
            Err(why) => note(&mut refused, why, &name)?,
        }
    }
    refused.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// One refusal does not keep the others from being tried; the last one is told at the end, the others here.
fn note(refused: &mut Option<Failed>, why: Failed, name: &TaskName) -> Result<(), Failed> {
    if !why.is_of_one() {
        return Err(why);
    }
    if let Some(earlier) = refused.replace(why.about(name)) {
        earlier.tell();
    }
    Ok(())
}

pub(super) async fn stats(args: HubOnly) -> Outcome {
    let stats = args.hub.client()?.stats().await?;
    if args.hub.json {
        print_json(&stats)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&tables::stats(&stats, Look::here()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn workers(args: HubOnly) -> Outcome {
    print_all(&args.hub.client()?.workers().await?, args.hub.json, tables::workers)?;
    Ok(ExitCode::SUCCESS)
}
