//! What the commands that ask once print for people: whole texts, from what the hub answered and the time it is.

use std::collections::HashMap;

use super::show::{self, Table};
use crate::settings::{FairBy, Limits, QueueSettings, Rate, RateBy, UserLimits};
use crate::task::{Status, TaskId, TaskView, Timestamp, Transition};
use crate::wire::{CallbackView, QueueStats, QueueView, ScheduleView, Stats, TaskTypeView, WorkerView, WorkflowView};

/// What a text is made for.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub(super) now: Timestamp,
    pub(super) colours: bool,
    /// Of the terminal, if there is one.
    pub(super) width: Option<usize>,
}

impl Look {
    /// For standard output as it is, now.
    pub(super) fn here() -> Look {
        Look { now: Timestamp::now(), colours: show::colours(), width: show::terminal_width() }
    }
}

/// Names said of those that a task comes after; of the rest, how many they are.
const AFTER_MAX: usize = 5;

/// Narrower than this, queue and type make room.
const NARROW: usize = 80;

/// `list`: a line a task. A terminal shows ids as the page does; whoever reads a pipe gets them whole.
pub(super) fn tasks(tasks: &[TaskView], look: Look) -> String {
    let error = |task: &TaskView| task.error.as_ref().or(task.last_error.as_ref()).map(show::failure);
    let with_errors = tasks.iter().any(|task| error(task).is_some());
    let narrow = look.width.is_some_and(|width| width < NARROW);
    let heads = ["TASK", "STATUS", "DONE", "AGE", "QUEUE", "TYPE", "TITLE", "ERROR"];
    let is_shown = |column: usize| match heads[column] {
        "QUEUE" | "TYPE" => !narrow,
        "ERROR" => with_errors,
        _ => true,
    };
    let shown = |column: &usize| is_shown(*column);
    let heads: Vec<_> = (0..heads.len()).filter(shown).map(|column| heads[column]).collect();
    let mut table = Table::new(&heads, &[2, 3]);
    for task in tasks {
        let task_id = if look.width.is_some() { show::short_id(task) } else { task.task_id.to_string() };
        let title = task.title.as_deref().map(show::one_line).unwrap_or_default();
        let cells = [
            task_id,
            show::status(task.status, 0, look.colours),
            show::cut(&show::short_progress(task.progress.as_ref()), 12),
            show::age(task.created_at, look.now),
            task.queue.to_string(),
            task.task_type.to_string(),
            if narrow { show::title(task) } else { title },
            error(task).unwrap_or_default(),
        ];
        table.row(cells.into_iter().enumerate().filter(|(column, _)| is_shown(*column)).map(|(_, cell)| cell));
    }
    table.text(look.width)
}

/// `get`: everything about one task, and its history if it was asked for.
pub(super) fn task(task: &TaskView, history: Option<&[Transition]>, look: Look) -> String {
    let mut text = show::task(task, look.now, look.colours);
    if let Some(history) = history {
        let mut table = Table::new(&["AT", "EVENT", "STATUS", "ATTEMPT", "WORKER", "NOTE"], &[3]);
        for step in history {
            table.row([
                step.at.to_string(),
                step.event.as_str().to_owned(),
                step.status.to_string(),
                step.attempt.to_string(),
                step.worker_id.as_ref().map(|worker| worker.to_string()).unwrap_or_default(),
                show::plain(step.note.as_deref().unwrap_or_default()),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text(look.width));
    }
    text
}

/// `workflow show`: the workflow, and a line for each of its tasks, in the order in which they were given.
pub(super) fn workflow(whole: &WorkflowView, look: Look) -> String {
    let mut text = show::task(&whole.workflow, look.now, look.colours);
    let names: HashMap<TaskId, String> = whole.tasks.iter().map(|task| (task.task_id, reference(task))).collect();
    let mut after: HashMap<TaskId, Vec<&str>> = HashMap::new();
    for (from, to) in &whole.edges {
        after.entry(*to).or_default().push(names.get(from).map_or("?", String::as_str));
    }
    let mut table = Table::new(&["REF", "TASK", "STATUS", "DONE", "TITLE", "AFTER"], &[3]);
    for task in &whole.tasks {
        let after = after.remove(&task.task_id).unwrap_or_default();
        let rest = after.len().saturating_sub(AFTER_MAX);
        let mut after = after.into_iter().take(AFTER_MAX).collect::<Vec<_>>().join(", ");
        if rest > 0 {
            after += &format!(" and {rest} more");
        }
        table.row([
            reference(task),
            if look.width.is_some() { show::short_id(task) } else { task.task_id.to_string() },
            show::status(task.status, 0, look.colours),
            show::cut(&show::short_progress(task.progress.as_ref()), 12),
            show::title(task),
            after,
        ]);
    }
    text.push('\n');
    text.push_str(&table.text(look.width));
    text
}

fn reference(task: &TaskView) -> String {
    task.reference.as_ref().map(|name| name.to_string()).unwrap_or_default()
}

/// `callback list`: a line for each.
pub(super) fn callbacks(callbacks: &[CallbackView], look: Look) -> String {
    let mut table = Table::new(&["CALLBACK", "TASK", "EVENT", "STATUS", "TRIES", "AGE", "URL", "WHY"], &[4]);
    for it in callbacks {
        table.row([
            it.callback_id.to_string(),
            it.task_id.to_string(),
            it.event.as_str().trim_start_matches("task.").to_owned(),
            it.status.as_str().to_owned(),
            it.attempts.to_string(),
            show::age(it.created_at, look.now),
            show::plain(&it.url),
            show::one_line(it.last_error.as_deref().unwrap_or_default()),
        ]);
    }
    table.text(look.width)
}

/// `stats`: counts, and unfinished tasks of each queue and type.
pub(super) fn stats(stats: &Stats, look: Look) -> String {
    let counts = &stats.tasks;
    let lag = match stats.feed_lag_ms {
        0..=1_000 => String::new(),
        behind => format!("   live updates are {:.1} s behind", behind as f64 / 1_000.0),
    };
    let many = |count: Option<u64>, what| count.map(|count| format!("   {count} {what}")).unwrap_or_default();
    let mut text = format!(
        "up {}   rev {}{}{}{lag}\n\n",
        show::span(stats.uptime_ms),
        stats.rev,
        many(stats.workers, "workers"),
        many(stats.sockets, "sockets")
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
        table.row([show::status(status, 0, look.colours), count.to_string(), rate]);
    }
    text.push_str(&table.text(None));
    let (queues, types) = ((&stats.queues, &stats.queues_other), (&stats.types, &stats.types_other));
    for (head, (lines, other)) in [("QUEUE", queues), ("TYPE", types)] {
        if lines.is_empty() {
            continue;
        }
        let mut table = Table::new(&[head, "WAITING", "SCHEDULED", "PENDING", "RUNNING"], &[1, 2, 3, 4]);
        let lines = lines.iter().map(|(name, counts)| (name.clone(), counts));
        let other = other.iter().map(|other| (format!("{} others", other.names), &other.counts));
        for (name, QueueStats { waiting, scheduled, pending, running }) in lines.chain(other) {
            let counts = [waiting, scheduled, pending, running].map(u64::to_string);
            table.row(std::iter::once(name).chain(counts));
        }
        text.push('\n');
        text.push_str(&table.text(None));
    }
    text
}

/// `queue`: a line a queue.
pub(super) fn queues(queues: &[QueueView], look: Look) -> String {
    let heads = [
        "QUEUE",
        "RUNNING",
        "READY",
        "SCHEDULED",
        "WAITING",
        "AT ONCE",
        "A USER",
        "A KEY",
        "RATE",
        "FAIR BY",
        "AGEING",
        "KEPT",
        "",
    ];
    let mut table = Table::new(&heads, &[1, 2, 3, 4, 5, 6, 7]);
    let number = |limit: Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
    for QueueView { name, settings, tasks, .. } in queues {
        let stands =
            |count: fn(&QueueStats) -> u64| tasks.as_ref().map(|tasks| count(tasks).to_string()).unwrap_or_default();
        table.row([
            name.to_string(),
            stands(|tasks| tasks.running),
            stands(|tasks| tasks.pending),
            stands(|tasks| tasks.scheduled),
            stands(|tasks| tasks.waiting),
            number(settings.concurrency),
            number(settings.user_concurrency),
            settings.key_concurrency.to_string(),
            settings.rate.as_ref().map(rate).unwrap_or_default(),
            match settings.fair_by {
                FairBy::None => "",
                FairBy::User => "user",
                FairBy::Key => "key",
            }
            .to_owned(),
            settings.ageing_ms.map(show::span).unwrap_or_default(),
            kept(settings),
            if settings.paused { "paused" } else { "" }.to_owned(),
        ]);
    }
    table.text(look.width)
}

/// What is kept of its final tasks, where that is set.
fn kept(QueueSettings { retain_ms, retain_count, retain_bytes, .. }: &QueueSettings) -> String {
    let bounds = [
        retain_ms.map(show::span),
        retain_count.map(|count| format!("{count} tasks")),
        retain_bytes.map(|bytes| format!("{bytes} bytes")),
    ];
    bounds.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn rate(Rate { limit, per_ms, by }: &Rate) -> String {
    let whose = match by {
        RateBy::Queue => "",
        RateBy::Key => ", each key",
        RateBy::User => ", each user",
    };
    format!("{limit} in {}{whose}", show::span(*per_ms))
}

/// `limits`: a line for all, and one for each user of whom something else is set.
pub(super) fn limits(limits: &Limits, look: Look) -> String {
    let mut table = Table::new(&["USER", "RUNNING", "WAITING", "SUBMITS A MINUTE"], &[1, 2, 3]);
    let number = |limit: Option<u32>, or: &str| limit.map_or_else(|| or.to_owned(), |limit| limit.to_string());
    let mut row = |user: &str, limits: &UserLimits, or: &str| {
        let UserLimits { running, waiting, submits_per_min } = limits;
        table.row([user.to_owned(), number(*running, or), number(*waiting, or), number(*submits_per_min, or)]);
    };
    row("(each)", &limits.user, "no limit");
    for (user, of_user) in &limits.users {
        row(user, of_user, "");
    }
    table.text(look.width)
}

/// `schedule`: a line a schedule.
pub(super) fn schedules(schedules: &[ScheduleView], look: Look) -> String {
    let mut table = Table::new(&["SCHEDULE", "WHEN", "ZONE", "TYPE", "NEXT", "LAST", "STATUS", ""], &[]);
    for schedule in schedules {
        let every = schedule.every_ms.map(|ms| format!("every {}", show::span(ms)));
        let zone = if schedule.cron.is_some() { schedule.time_zone.clone() } else { String::new() };
        let last = schedule.last.as_ref();
        let status = last.and_then(|last| last.status);
        table.row([
            schedule.name.to_string(),
            schedule.cron.as_deref().map(show::one_line).or(every).unwrap_or_default(),
            zone,
            schedule.task.task_type.clone(),
            match (schedule.next.first(), schedule.paused) {
                (_, true) => match schedule.paused_reason {
                    Some(end) => format!("paused: the token that made it {}", end.words()),
                    None => "paused".to_owned(),
                },
                (None, false) => "never".to_owned(),
                (Some(due), false) => format!("in {}", show::span(due.millis_since(look.now))),
            },
            last.map(|last| last.task_id.to_string()).unwrap_or_default(),
            status.map(|status| show::status(status, 0, look.colours)).unwrap_or_default(),
            match schedule.skipped {
                Some(skipped) if last.and_then(|last| last.due_at).is_none_or(|due_at| due_at < skipped.due_at) => {
                    format!("passed over {}: {}", skipped.due_at, skipped.reason.as_str().replace('_', " "))
                }
                _ => String::new(),
            },
        ]);
    }
    table.text(look.width)
}

/// `type list`: a line a type.
pub(super) fn task_types(task_types: &[TaskTypeView], look: Look) -> String {
    let mut table = Table::new(&["TYPE", "TITLE", "DEFAULTS", "PAYLOAD"], &[]);
    for task_type in task_types {
        let schema = if task_type.payload_schema.is_some() { "has a schema" } else { "" };
        table.row([
            task_type.name.to_string(),
            task_type.title.as_deref().map(show::one_line).unwrap_or_default(),
            show::cut(&default_lines(task_type).join(", "), 60),
            schema.to_owned(),
        ]);
    }
    table.text(look.width)
}

/// `type show`: all that is declared of one.
pub(super) fn task_type(task_type: &TaskTypeView) -> String {
    let mut text = format!("{}\n", task_type.name);
    for words in [&task_type.title, &task_type.description].into_iter().flatten() {
        text += &format!("{}\n", show::plain(words));
    }
    for line in default_lines(task_type) {
        text += &format!("  {line}\n");
    }
    if let Some(schema) = &task_type.payload_schema {
        text += &format!("payload schema: {}\n", show::plain(schema.as_str()));
    }
    text
}

/// The fields of its defaults, each with its value.
fn default_lines(task_type: &TaskTypeView) -> Vec<String> {
    let fields = serde_json::to_value(&task_type.defaults).unwrap_or_default();
    let fields = fields.as_object().into_iter().flatten();
    fields.map(|(field, value)| show::one_line(&format!("{field} {value}"))).collect()
}

/// `workers`: a line a worker.
pub(super) fn workers(workers: &[WorkerView], look: Look) -> String {
    let mut table = Table::new(&["WORKER", "LINK", "RUNS", "OF", "HEARD", "QUEUES", "TYPES"], &[2, 3, 4]);
    for worker in workers {
        table.row([
            worker.worker_id.clone(),
            if worker.draining { format!("{}, draining", worker.link) } else { worker.link.clone() },
            match worker.stuck.len() {
                0 => worker.running.len().to_string(),
                stuck => format!("{} (+{stuck} stuck)", worker.running.len()),
            },
            worker.concurrency.to_string(),
            show::age(worker.last_heard_at, look.now),
            worker.queues.join(" "),
            worker.task_types.join(" "),
        ]);
    }
    table.text(look.width)
}
