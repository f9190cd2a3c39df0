//! The commands that ask once and answer: `get`, `list`, `cancel`, `retry`, `stats`, `workers`.

use std::process::ExitCode;

use clap::Args;

use super::HubArgs;
use super::outcome::{FAILED, Failed, Outcome, print, print_json};
use super::show::{self, Table};
use super::submit::{finished, label};
use crate::client::{ListQuery, Order};
use crate::task::{Status, TaskId, Timestamp};
use crate::wire::QueueStats;

#[derive(Debug, Args)]
pub(super) struct HubOnly {
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    task_id: TaskId,
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
    let task = if args.wait { finished(&client, args.task_id).await? } else { client.get(args.task_id).await? };
    let history = if args.history { Some(client.history(args.task_id).await?) } else { None };
    if args.hub.json {
        match &history {
            Some(history) => print_json(&serde_json::json!({ "task": task, "transitions": history }))?,
            None => print_json(&task)?,
        }
    } else {
        print(&show::task(&task, Timestamp::now(), show::colours()))?;
        if let Some(history) = history {
            let mut table = Table::new(&["AT", "EVENT", "STATUS", "ATTEMPT", "WORKER", "NOTE"], &[3]);
            for step in history {
                table.row([
                    step.at.to_string(),
                    step.event.as_str().to_owned(),
                    step.status.to_string(),
                    step.attempt.to_string(),
                    step.worker_id.map(|worker| worker.to_string()).unwrap_or_default(),
                    show::plain(step.note.as_deref().unwrap_or_default()),
                ]);
            }
            print(&format!("\n{}", table.text(show::terminal_width())))?;
        }
    }
    let failed = args.wait && task.status != Status::Completed;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
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
        labels: args.labels.into_iter().collect(),
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
    let (now, colours) = (Timestamp::now(), show::colours());
    let mut table = Table::new(&["TASK", "STATUS", "DONE", "AGE", "QUEUE", "TYPE", "TITLE"], &[2, 3]);
    for task in &tasks {
        table.row([
            task.task_id.to_string(),
            show::status(task.status, 0, colours),
            show::cut(&show::short_progress(task.progress.as_ref()), 12),
            show::age(task.created_at, now),
            task.queue.to_string(),
            task.task_type.to_string(),
            show::plain(task.title.as_deref().unwrap_or_default()),
        ]);
    }
    print(&table.text(show::terminal_width()))?;
    if more {
        eprintln!("(there are more; -n shows them)");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    #[arg(required = true)]
    task_id: Vec<TaskId>,
    /// Why, for its history
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn cancel(args: CancelArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut refused = None;
    for task_id in args.task_id {
        match client.cancel(task_id, args.reason.as_deref()).await {
            Ok(task) if args.hub.json => print_json(&task)?,
            Ok(task) if task.status == Status::Cancelled => print(&format!("{task_id} cancelled\n"))?,
            Ok(_) => print(&format!("{task_id} asked to stop\n"))?,
            Err(why) => note(&mut refused, why.into(), task_id)?,
        }
    }
    refused.map_or(Ok(ExitCode::SUCCESS), Err)
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    #[arg(required = true)]
    task_id: Vec<TaskId>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn retry(args: RetryArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut refused = None;
    for task_id in args.task_id {
        match client.retry(task_id).await {
            Ok(task) if args.hub.json => print_json(&task)?,
            Ok(task) => print(&format!("{task_id} {}\n", task.status))?,
            Err(why) => note(&mut refused, why.into(), task_id)?,
        }
    }
    refused.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// One refusal does not keep the others from being tried; the last one is told at the end, the others here.
fn note(refused: &mut Option<Failed>, why: Failed, task_id: TaskId) -> Result<(), Failed> {
    if !why.is_refusal() {
        return Err(why);
    }
    if let Some(earlier) = refused.replace(why.about(task_id)) {
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
    let counts = stats.tasks;
    let mut text = format!(
        "up {}   rev {}   {} workers   {} sockets\n\n",
        show::span(stats.uptime_ms),
        stats.rev,
        stats.workers,
        stats.sockets
    );
    let numbers = [
        counts.waiting,
        counts.scheduled,
        counts.pending,
        counts.running,
        counts.completed,
        counts.failed,
        counts.cancelled,
    ];
    let rates = [None, None, Some(stats.rates.created), None]
        .into_iter()
        .chain([stats.rates.completed, stats.rates.failed, stats.rates.cancelled].map(Some));
    let mut table = Table::new(&["STATUS", "TASKS", "A SECOND"], &[1, 2]);
    for ((status, count), rate) in Status::ALL.into_iter().zip(numbers).zip(rates) {
        // New tasks mostly are ready at once: that line shows how many come.
        let rate = rate.map(|rate| format!("{rate:.1}")).unwrap_or_default();
        table.row([show::status(status, 0, show::colours()), count.to_string(), rate]);
    }
    text.push_str(&table.text(None));
    for (head, lines) in [("QUEUE", &stats.queues), ("TYPE", &stats.types)] {
        if lines.is_empty() {
            continue;
        }
        let mut table = Table::new(&[head, "WAITING", "SCHEDULED", "PENDING", "RUNNING"], &[1, 2, 3, 4]);
        for (name, QueueStats { waiting, scheduled, pending, running }) in lines {
            let counts = [waiting, scheduled, pending, running].map(u64::to_string);
            table.row(std::iter::once(name.clone()).chain(counts));
        }
        text.push('\n');
        text.push_str(&table.text(None));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn workers(args: HubOnly) -> Outcome {
    let workers = args.hub.client()?.workers().await?;
    if args.hub.json {
        for worker in &workers {
            print_json(worker)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["WORKER", "LINK", "RUNS", "OF", "HEARD", "QUEUES", "TYPES"], &[2, 3, 4]);
    for worker in workers {
        table.row([
            worker.worker_id,
            if worker.draining { format!("{}, draining", worker.link) } else { worker.link },
            worker.running.len().to_string(),
            worker.concurrency.to_string(),
            show::age(worker.last_heard_at, now),
            worker.queues.join(" "),
            worker.task_types.join(" "),
        ]);
    }
    print(&table.text(show::terminal_width()))?;
    Ok(ExitCode::SUCCESS)
}
