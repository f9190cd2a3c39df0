//! The commands that stay: `watch` and `logs`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::outcome::{FAILED, Failed, Outcome, print, print_json, tell};
use super::submit::label;
use super::tasks::status;
use super::{Bars, Endings, HubArgs, TaskName, show};
use crate::client::{Client, LiveEvent, LiveStatus, Subscribe, TaskEvent};
use crate::task::{Event, FilterSpec, LogLine, Progress, Status, TaskId, TaskView, Timestamp};
use crate::wire::{LogsSpec, SnapshotSpec, Stats};

/// Progress reports a second of a task, where each is a line.
const LINES_HZ: f64 = 1.0;

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only these tasks, until they have ended; exit with 1 if one failed or was cancelled
    #[arg(value_name = "ID")]
    task_id: Vec<TaskName>,
    /// Only tasks in these states
    #[arg(long, short, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<Status>,
    /// Only tasks of these types; one may end in *
    #[arg(long = "type", short, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only tasks of these queues; one may end in *
    #[arg(long, short, value_name = "QUEUE", value_delimiter = ',')]
    queue: Vec<String>,
    /// Only tasks of these users
    #[arg(long, value_name = "USER_ID", value_delimiter = ',')]
    user: Vec<String>,
    /// Only tasks with this label; several values of one key mean any of them
    #[arg(long = "label", short, value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    hub: HubArgs,
}

impl WatchArgs {
    async fn find_tasks(&self, client: &Client) -> Result<Vec<TaskId>, Failed> {
        let mut found = Vec::with_capacity(self.task_id.len());
        for name in &self.task_id {
            found.push(name.find(client).await?);
        }
        Ok(found)
    }

    fn filter(&self, task_ids: &[TaskId]) -> FilterSpec {
        let mut labels = BTreeMap::<String, Vec<String>>::new();
        for (key, value) in &self.labels {
            labels.entry(key.clone()).or_default().push(value.clone());
        }
        FilterSpec {
            task_id: some(task_ids),
            task_type: some(&self.types),
            queue: some(&self.queue),
            status: some(&self.status),
            user_id: some(&self.user),
            labels: (!labels.is_empty()).then_some(labels),
            ..FilterSpec::default()
        }
    }
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// The most tasks of a snapshot.
const SNAPSHOT_MAX: u32 = 1_000;

/// How what happens is shown.
enum Screen {
    Json,
    Lines,
    Bars(Bars),
}

pub(super) async fn watch(args: WatchArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut screen = match args.hub.json {
        true => Screen::Json,
        false if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() => {
            Screen::Bars(Bars::new(Endings::All).with_counts())
        }
        false => Screen::Lines,
    };
    let mut live = client.live();
    let task_ids = args.find_tasks(&client).await?;
    let filter = args.filter(&task_ids);
    let max_hz = matches!(screen, Screen::Lines).then_some(LINES_HZ);
    let of_all = filter == FilterSpec::default();
    let limit = match (&screen, task_ids.len()) {
        // What comes next is told only where all is known.
        (Screen::Bars(_), 0) => Some(SNAPSHOT_MAX),
        (_, 0) => None,
        (_, named) => Some((named as u32).min(SNAPSHOT_MAX)),
    };
    let snapshot = limit.map(|limit| SnapshotSpec { limit: Some(limit), ..SnapshotSpec::default() });
    live.subscribe(Subscribe { filter, snapshot, max_hz, ..Subscribe::default() });
    if of_all && matches!(screen, Screen::Bars(_)) {
        live.subscribe(Subscribe { stats: true, ..Subscribe::default() });
    }
    // The tasks that were named, and how they stand; `None` for what is not there.
    let mut named: BTreeMap<TaskId, Option<Status>> = BTreeMap::new();
    let mut was_live = false;
    loop {
        let event = tokio::select! {
            event = live.next() => event,
            () = screen.pause() => continue,
        };
        let Some(event) = event else { break };
        was_live |= live.status() == LiveStatus::Live;
        let event = match event {
            LiveEvent::Status { status: LiveStatus::Offline, reason, .. } if !was_live => {
                return Err(never_live(&args.hub, reason));
            }
            LiveEvent::Of(_, TaskEvent::Ended { code, detail }) => {
                return Err(ended(&code, &detail));
            }
            event => event,
        };
        screen.show(&event)?;
        match &event {
            LiveEvent::Of(_, TaskEvent::Snapshot { tasks, .. }) => {
                named = task_ids.iter().map(|task_id| (*task_id, None)).collect();
                for task in tasks {
                    named.entry(task.task_id).and_modify(|status| *status = Some(task.status));
                }
            }
            LiveEvent::Of(_, TaskEvent::Task { task, .. }) => {
                named.entry(task.task_id).and_modify(|status| *status = Some(task.status));
            }
            LiveEvent::Of(_, TaskEvent::Gone { task_id }) => {
                named.entry(*task_id).and_modify(|status| *status = None);
            }
            _ => {}
        }
        if !named.is_empty() && named.values().all(|status| status.is_none_or(Status::is_final)) {
            if let Screen::Bars(bars) = &mut screen {
                bars.clear();
            }
            if let Some((task_id, _)) = named.iter().find(|(_, status)| status.is_none()) {
                return Err(Failed::refused(format!("there is no task {task_id}")));
            }
            let all_done = named.values().all(|status| *status == Some(Status::Completed));
            return Ok(if all_done { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The subscription ended: by itself, or with the connection.
fn ended(code: &str, detail: &str) -> Failed {
    Failed::refused(if code == "refused" { detail.to_owned() } else { format!("the hub refused: {detail} ({code})") })
}

fn never_live(hub: &HubArgs, reason: Option<String>) -> Failed {
    Failed::no_hub(format!("the hub at {} cannot be reached: {}", hub.hub, reason.unwrap_or_default()))
}

impl Screen {
    /// Until it is time to draw again; for ever where nothing is drawn.
    async fn pause(&mut self) {
        match self {
            Screen::Bars(bars) => {
                Bars::pause().await;
                bars.tick();
            }
            Screen::Json | Screen::Lines => std::future::pending().await,
        }
    }

    fn show(&mut self, event: &LiveEvent) -> Result<(), Failed> {
        match self {
            Screen::Json => print_json(&in_json(event)),
            Screen::Lines => {
                if let Some(note) = note(event) {
                    tell(note);
                }
                match in_lines(event, Timestamp::now()) {
                    text if text.is_empty() => Ok(()),
                    text => print(&text),
                }
            }
            Screen::Bars(bars) => {
                on_bars(bars, event);
                Ok(())
            }
        }
    }
}

/// An event as one line of JSON, with the words of the live stream.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said<'a> {
    Status {
        status: String,
        behind: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    Lag {
        collapsed: u64,
    },
    Snapshot {
        tasks: &'a [Arc<TaskView>],
        truncated: bool,
    },
    Task {
        event: Option<Event>,
        task: &'a TaskView,
    },
    /// The filter does not match any more.
    Leave {
        event: Option<Event>,
        task: &'a TaskView,
    },
    Progress {
        task_id: TaskId,
        rev: u64,
        tick: u64,
        attempt: u32,
        progress: Option<&'a Progress>,
    },
    Log {
        task_id: TaskId,
        lines: &'a [LogLine],
    },
    Gone {
        task_id: TaskId,
    },
    Stats(&'a Stats),
    Error {
        code: &'a str,
        detail: &'a str,
    },
}

pub(super) fn in_json(event: &LiveEvent) -> Said<'_> {
    match event {
        LiveEvent::Status { status, behind, retry_ms, reason } => Said::Status {
            status: format!("{status:?}").to_lowercase(),
            behind: *behind,
            retry_ms: *retry_ms,
            reason: reason.as_deref().filter(|reason| !reason.is_empty()),
        },
        LiveEvent::Lag { collapsed } => Said::Lag { collapsed: *collapsed },
        LiveEvent::Complaint { code, detail } => Said::Error { code, detail },
        LiveEvent::Of(_, event) => match event {
            TaskEvent::Snapshot { tasks, truncated } => Said::Snapshot { tasks, truncated: *truncated },
            TaskEvent::Task { event, task } => Said::Task { event: *event, task },
            TaskEvent::Leave { event, task } => Said::Leave { event: *event, task },
            TaskEvent::Progress { task } => Said::Progress {
                task_id: task.task_id,
                rev: task.rev,
                tick: task.tick,
                attempt: task.attempt,
                progress: task.progress.as_ref(),
            },
            TaskEvent::Log { task_id, lines } => Said::Log { task_id: *task_id, lines },
            TaskEvent::Gone { task_id } => Said::Gone { task_id: *task_id },
            TaskEvent::Stats(stats) => Said::Stats(stats),
            TaskEvent::Ended { code, detail } => Said::Error { code, detail },
        },
    }
}

/// What is told beside the lines, of the connection. That it is live is how it should be; a refusal is told at the end.
fn note(event: &LiveEvent) -> Option<String> {
    match event {
        LiveEvent::Status { status: LiveStatus::Live, behind: false, .. }
        | LiveEvent::Status { status: LiveStatus::Refused, .. } => None,
        LiveEvent::Status { status, behind, retry_ms, reason } => {
            Some(connection(*status, *behind, *retry_ms, reason.as_deref()))
        }
        LiveEvent::Complaint { code, detail } => Some(format!("the hub: {detail} ({code})")),
        LiveEvent::Lag { .. } | LiveEvent::Of(..) => None,
    }
}

/// An event as lines for people, or as none.
pub(super) fn in_lines(event: &LiveEvent, now: Timestamp) -> String {
    let LiveEvent::Of(_, event) = event else { return String::new() };
    match event {
        TaskEvent::Snapshot { tasks, .. } => {
            tasks.iter().map(|task| line(task.updated_at, task.status.as_str(), task)).collect()
        }
        TaskEvent::Task { event, task } | TaskEvent::Leave { event, task } => {
            line(task.updated_at, event.map_or(task.status.as_str(), short_event), task)
        }
        TaskEvent::Progress { task } => line(now, "progress", task),
        TaskEvent::Gone { task_id } => format!("{now}  {:<16} {task_id}\n", "gone"),
        TaskEvent::Log { .. } | TaskEvent::Stats(_) | TaskEvent::Ended { .. } => String::new(),
    }
}

/// The event without the `task.` that all have.
fn short_event(event: Event) -> &'static str {
    event.as_str().trim_start_matches("task.")
}

fn line(at: Timestamp, word: &str, task: &TaskView) -> String {
    let mut words = vec![show::title(task)];
    if task.title.is_some() {
        words.push(task.task_type.to_string());
    }
    let running = task.status == Status::Running;
    words.extend(task.progress.as_ref().filter(|_| running).map(|tick| show::progress(tick, true)));
    let last_error = task.last_error.as_ref().filter(|_| !running && !task.status.is_final());
    words.extend(task.error.as_ref().or(last_error).map(show::failure));
    words.extend(show::stopping(task).map(str::to_owned));
    words.retain(|word| !word.is_empty());
    format!("{at}  {word:<16} {}  {}\n", task.task_id, words.join(" · "))
}

fn connection(status: LiveStatus, behind: bool, retry_ms: Option<u64>, reason: Option<&str>) -> String {
    let reason = reason.filter(|reason| !reason.is_empty()).map(|reason| format!(" ({reason})")).unwrap_or_default();
    match status {
        LiveStatus::Offline => {
            format!("offline{reason}, trying again in {}", show::span(retry_ms.unwrap_or_default()))
        }
        LiveStatus::Resuming | LiveStatus::Connecting => "connected, catching up".into(),
        LiveStatus::Live if behind => "behind: the hub merged what came too fast".into(),
        LiveStatus::Live => "live".into(),
        LiveStatus::Refused => "refused".into(),
    }
}

fn on_bars(bars: &mut Bars, event: &LiveEvent) {
    match event {
        LiveEvent::Status { status: LiveStatus::Live, behind: false, .. } => bars.connection(String::new()),
        LiveEvent::Status { status: LiveStatus::Refused, .. } => {}
        LiveEvent::Status { status, behind, retry_ms, reason } => {
            bars.connection(connection(*status, *behind, *retry_ms, reason.as_deref()));
        }
        LiveEvent::Of(_, event) => match event {
            TaskEvent::Snapshot { tasks, truncated } => {
                bars.replace(tasks.iter().map(Arc::as_ref), *truncated);
            }
            TaskEvent::Task { task, .. } | TaskEvent::Progress { task } | TaskEvent::Leave { task, event: Some(_) } => {
                bars.set(task);
            }
            TaskEvent::Leave { task, event: None } => bars.forget(&task.task_id),
            TaskEvent::Gone { task_id } => bars.forget(task_id),
            TaskEvent::Stats(stats) => bars.stats(stats),
            TaskEvent::Log { .. } | TaskEvent::Ended { .. } => {}
        },
        LiveEvent::Lag { .. } | LiveEvent::Complaint { .. } => {}
    }
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    #[arg(value_name = "ID")]
    task_id: TaskName,
    /// Go on until the task has ended; exit with 1 if it failed or was cancelled
    #[arg(long, short)]
    follow: bool,
    /// How many of the newest lines
    #[arg(long, short = 'n', default_value_t = 100)]
    tail: u32,
    /// With time, attempt and level of each line
    #[arg(long, short)]
    long: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Lines asked for at once, to complete what the stream has told.
const REST_LINES: u32 = 1_000;

pub(super) async fn logs(args: LogsArgs) -> Outcome {
    let client = args.hub.client()?;
    let task_id = args.task_id.find(&client).await?;
    if !args.follow {
        print_lines(&args, &client.logs(task_id, Some(args.tail)).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut live = client.live();
    let filter = FilterSpec { task_id: Some(vec![task_id]), ..FilterSpec::default() };
    let logs = Some(LogsSpec { tail: Some(args.tail) });
    let snapshot = Some(SnapshotSpec { limit: Some(1), ..SnapshotSpec::default() });
    live.subscribe(Subscribe { filter, snapshot, logs, ..Subscribe::default() });
    let (mut was_live, mut told) = (false, 0);
    while let Some(event) = live.next().await {
        was_live |= live.status() == LiveStatus::Live;
        let status = match event {
            LiveEvent::Status { status: LiveStatus::Offline, reason, .. } if !was_live => {
                return Err(never_live(&args.hub, reason));
            }
            LiveEvent::Of(_, TaskEvent::Ended { code, detail }) => {
                return Err(ended(&code, &detail));
            }
            LiveEvent::Of(_, TaskEvent::Log { lines, .. }) => {
                told = lines.last().map_or(told, |line| line.seq);
                print_lines(&args, &lines)?;
                continue;
            }
            LiveEvent::Of(_, TaskEvent::Snapshot { tasks, .. }) => match tasks.first() {
                Some(task) => task.status,
                None => return Err(Failed::refused(format!("there is no task {task_id}"))),
            },
            LiveEvent::Of(_, TaskEvent::Task { task, .. }) => task.status,
            LiveEvent::Of(_, TaskEvent::Gone { .. }) => return Ok(ExitCode::SUCCESS),
            _ => continue,
        };
        if !status.is_final() {
            continue;
        }
        // The last lines may still be on their way; what has not been told is asked for.
        loop {
            let rest = match told {
                0 => client.logs(task_id, Some(args.tail)).await?,
                told => client.logs_after(task_id, told, REST_LINES).await?,
            };
            let Some(last) = rest.last() else { break };
            told = last.seq;
            print_lines(&args, &rest)?;
        }
        return Ok(if status == Status::Completed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    Err(Failed::refused("the hub refused the connection"))
}

fn print_lines(args: &LogsArgs, lines: &[LogLine]) -> Result<(), Failed> {
    let mut text = String::new();
    for line in lines {
        if args.hub.json {
            text.push_str(&serde_json::to_string(line).map_err(|why| Failed::here(why.to_string()))?);
        } else if args.long {
            let LogLine { at, attempt, level, message, .. } = line;
            text.push_str(&format!("{at}  {attempt}  {:<5}  {}", level.as_str(), show::plain(message)));
        } else {
            text.push_str(&show::plain(&line.message));
        }
        text.push('\n');
    }
    print(&text)
}
