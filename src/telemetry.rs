//! What the hub says of itself: log lines, and numbers for Prometheus.
//!
//! Each hub has a [`Metrics`] of its own, so that two in one process do not mix. Counting is an atomic addition; the
//! few numbers that are known elsewhere (how many tasks stand where) are set when somebody asks.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::task::{Change, ChangeKind, Event, Name, Status};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One object a line, for programs.
    Json,
}

/// What is logged unless `TASKHUB_LOG` or `RUST_LOG` says otherwise.
const LOG_FILTER: &str = "info";

/// Writes log lines of the whole process to stderr. Only the edge of the program calls it, once; a second call changes
/// nothing.
///
/// Whatever is asked for, other crates say no more than `info`: at finer levels some log what they carry, tokens and payloads too.
pub fn start_logging(format: LogFormat) {
    let filter = ["TASKHUB_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::builder().parse_lossy(filter.as_deref().unwrap_or(LOG_FILTER));
    let discreet =
        filter_fn(|line| *line.level() <= Level::INFO || line.target().split("::").next() == Some("taskhub"));
    // A line that cannot be written (a closed terminal or pipe) is lost, and said nowhere: to say it on the same standard
    // error would be a panic.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        LogFormat::Pretty => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(discreet).with(lines).try_init();
}

/// The most task types that are told apart; more are counted as `other`, so that nobody fills the memory with names.
const TASK_TYPES_MAX: usize = 200;

/// Every name, and what it counts.
mod names {
    pub(super) const TABLE: &[(&str, &str)] = &[
        ("tasks", "Tasks by status, final ones too as long as they are kept"),
        ("queue_tasks", "Unfinished tasks by queue and status; beyond 200 queues the smallest together as other"),
        ("transitions", "Transitions by event"),
        ("task_seconds", "From the start of the last attempt to the end, by type and final status"),
        ("commit_seconds", "How long a commit took, with its fsync"),
        ("commit_changes", "Transitions in one commit"),
        ("commit_failures", "Commits that the store did not take"),
        ("unsettled_tasks", "Tasks whose newest record is in the log and not yet in the view"),
        ("feed_deliveries", "Lines told to live clients, by kind"),
        ("feed_delivered_bytes", "Bytes of those lines"),
        ("feed_told_seconds", "From a commit until a shard had handed it to all its clients, by shard"),
        ("feed_lag_seconds", "How long the oldest transition has waited that was not handed to every client"),
        ("outbox_collapses", "How often a slow client's waiting transitions were merged"),
        ("outbox_collapsed", "Transitions that were merged"),
        ("outbox_lagging", "Live clients that are behind"),
        ("callbacks", "Callbacks by status: pending ones are owed, failed ones were given up"),
        ("callback_tries", "Tries of callbacks by outcome: delivered, failed (another follows) or given_up"),
        ("callback_oldest_seconds", "How long the oldest callback has been owed"),
        ("audit_entries", "Entries of the audit"),
        ("audit_dropped", "Refusals that are not in the audit, for there were too many"),
        ("refused_credentials", "Tokens and tickets that let nobody in, by reason"),
        ("subscriptions", "Subscriptions of live clients"),
        ("sockets", "Open sockets by kind"),
        ("workers", "Workers the hub knows of"),
        ("rev", "The number of the last transition"),
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabel {
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ShardLabel {
    shard: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabels {
    task_type: TypeLabel,
    status: &'static str,
}

/// The letters are shared with the tasks.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct TypeLabel(Name);

impl EncodeLabelValue for TypeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

/// How many unfinished tasks stand in a queue.
pub struct Depth<'a> {
    pub queue: &'a str,
    pub waiting: u64,
    pub scheduled: u64,
    pub pending: u64,
    pub running: u64,
}

/// What is handed to a live client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Transition,
    Progress,
    Log,
    /// Snapshots, marks, answers and everything else.
    Other,
}

/// The numbers of one hub.
pub struct Metrics {
    registry: Mutex<Registry>,
    tasks: Family<StatusLabel, Gauge>,
    queue_tasks: Family<QueueLabels, Gauge>,
    transitions: [Counter; Event::ALL.len()],
    task_seconds: Family<TypeLabels, Histogram, fn() -> Histogram>,
    /// How many types and final states `task_seconds` tells apart.
    task_series: AtomicUsize,
    commit_seconds: Histogram,
    commit_changes: Histogram,
    commit_failures: Counter,
    unsettled_tasks: Gauge,
    deliveries: [Counter; 4],
    delivered_bytes: Counter,
    feed_told_seconds: Family<ShardLabel, Histogram, fn() -> Histogram>,
    feed_lag_seconds: Gauge<f64, AtomicU64>,
    outbox_collapses: Counter,
    outbox_collapsed: Counter,
    outbox_lagging: Gauge,
    callbacks: Family<StatusLabel, Gauge>,
    callback_tries: Family<OutcomeLabel, Counter>,
    callback_oldest_seconds: Gauge<f64, AtomicU64>,
    audit_entries: Gauge,
    audit_dropped: Counter,
    subscriptions: Gauge,
    refused_credentials: Family<ReasonLabel, Counter>,
    sockets: Family<KindLabel, Gauge>,
    /// All of them, for whoever wants one number.
    sockets_open: AtomicU64,
    workers: Gauge,
    rev: Gauge,
}

const DELIVERIES: [(Delivery, &str); 4] = [
    (Delivery::Transition, "transition"),
    (Delivery::Progress, "progress"),
    (Delivery::Log, "log"),
    (Delivery::Other, "other"),
];

impl Default for Metrics {
    fn default() -> Metrics {
        let transitions: Family<EventLabel, Counter> = Family::default();
        let deliveries: Family<KindLabel, Counter> = Family::default();
        let metrics = Metrics {
            registry: Mutex::new(Registry::with_prefix("taskhub")),
            tasks: Family::default(),
            queue_tasks: Family::default(),
            transitions: Event::ALL.map(|event| transitions.get_or_create_owned(&EventLabel { event: event.as_str() })),
            // 1 ms to 9 hours.
            task_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 13))),
            task_series: AtomicUsize::new(0),
            // 50 µs to 3 s.
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.5, 13)),
            commit_changes: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            commit_failures: Counter::default(),
            unsettled_tasks: Gauge::default(),
            deliveries: DELIVERIES.map(|(_, kind)| deliveries.get_or_create_owned(&KindLabel { kind })),
            delivered_bytes: Counter::default(),
            // 50 µs to 3 s.
            feed_told_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.5, 13))),
            feed_lag_seconds: Gauge::default(),
            outbox_collapses: Counter::default(),
            outbox_collapsed: Counter::default(),
            outbox_lagging: Gauge::default(),
            callbacks: Family::default(),
            callback_tries: Family::default(),
            callback_oldest_seconds: Gauge::default(),
            audit_entries: Gauge::default(),
            audit_dropped: Counter::default(),
            subscriptions: Gauge::default(),
            refused_credentials: Family::default(),
            sockets: Family::default(),
            sockets_open: AtomicU64::new(0),
            workers: Gauge::default(),
            rev: Gauge::default(),
        };
        {
            let mut registry = metrics.registry.lock();
            for (name, help) in names::TABLE {
                match *name {
                    "tasks" => registry.register(*name, *help, metrics.tasks.clone()),
                    "queue_tasks" => registry.register(*name, *help, metrics.queue_tasks.clone()),
                    "transitions" => registry.register(*name, *help, transitions.clone()),
                    "task_seconds" => registry.register(*name, *help, metrics.task_seconds.clone()),
                    "commit_seconds" => registry.register(*name, *help, metrics.commit_seconds.clone()),
                    "commit_changes" => registry.register(*name, *help, metrics.commit_changes.clone()),
                    "commit_failures" => registry.register(*name, *help, metrics.commit_failures.clone()),
                    "unsettled_tasks" => registry.register(*name, *help, metrics.unsettled_tasks.clone()),
                    "feed_deliveries" => registry.register(*name, *help, deliveries.clone()),
                    "feed_delivered_bytes" => registry.register(*name, *help, metrics.delivered_bytes.clone()),
                    "feed_told_seconds" => registry.register(*name, *help, metrics.feed_told_seconds.clone()),
                    "feed_lag_seconds" => registry.register(*name, *help, metrics.feed_lag_seconds.clone()),
                    "outbox_collapses" => registry.register(*name, *help, metrics.outbox_collapses.clone()),
                    "outbox_collapsed" => registry.register(*name, *help, metrics.outbox_collapsed.clone()),
                    "outbox_lagging" => registry.register(*name, *help, metrics.outbox_lagging.clone()),
                    "callbacks" => registry.register(*name, *help, metrics.callbacks.clone()),
                    "callback_tries" => registry.register(*name, *help, metrics.callback_tries.clone()),
                    "callback_oldest_seconds" => {
                        registry.register(*name, *help, metrics.callback_oldest_seconds.clone());
                    }
                    "audit_entries" => registry.register(*name, *help, metrics.audit_entries.clone()),
                    "audit_dropped" => registry.register(*name, *help, metrics.audit_dropped.clone()),
                    "refused_credentials" => registry.register(*name, *help, metrics.refused_credentials.clone()),
                    "subscriptions" => registry.register(*name, *help, metrics.subscriptions.clone()),
                    "sockets" => registry.register(*name, *help, metrics.sockets.clone()),
                    "workers" => registry.register(*name, *help, metrics.workers.clone()),
                    "rev" => registry.register(*name, *help, metrics.rev.clone()),
                    other => unreachable!("{other} has no number"),
                }
            }
        }
        metrics
    }
}

impl Metrics {
    /// These changes are visible now.
    pub fn changed<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        for change in changes {
            let ChangeKind::Transition(event) = change.kind else { continue };
            self.transitions[event as usize].inc();
            let task = &change.task;
            if !task.status.is_final() {
                continue;
            }
            if let Some(started_at) = task.run().and_then(|run| run.started_at) {
                let took = Duration::from_millis(change.at.millis_since(started_at));
                self.finished(&task.task_type, task.status, took);
            }
        }
    }

    /// A task reached a final status, this long after its last attempt began.
    fn finished(&self, task_type: &Name, status: Status, took: Duration) {
        let labels = TypeLabels { task_type: TypeLabel(task_type.clone()), status: status.as_str() };
        if let Some(histogram) = self.task_seconds.get(&labels) {
            return histogram.observe(took.as_secs_f64());
        }
        // A type may have three final states.
        let room = self.task_series.fetch_add(1, Ordering::Relaxed) < 3 * TASK_TYPES_MAX;
        let labels = if room { labels } else { TypeLabels { task_type: TypeLabel(Name::new("other")), ..labels } };
        self.task_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A commit of so many transitions is on disk.
    pub fn committed(&self, changes: usize, took: Duration) {
        self.commit_changes.observe(changes as f64);
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// The store did not take a commit.
    pub fn commit_failed(&self) {
        self.commit_failures.inc();
    }

    /// How many tasks wait to be settled.
    pub fn set_unsettled(&self, tasks: usize) {
        self.unsettled_tasks.set(tasks as i64);
    }

    /// Frames were handed to live clients.
    pub fn delivered(&self, delivery: Delivery, frames: u64, bytes: u64) {
        self.deliveries[delivery as usize].inc_by(frames);
        self.delivered_bytes.inc_by(bytes);
    }

    /// A commit was handed to all clients of a shard after this long.
    pub fn feed_told(&self, shard: usize, after: Duration) {
        let labels = ShardLabel { shard: shard as u32 };
        self.feed_told_seconds.get_or_create(&labels).observe(after.as_secs_f64());
    }

    /// How long the oldest transition has waited for the feed.
    pub fn set_feed_lag(&self, lag: Duration) {
        self.feed_lag_seconds.set(lag.as_secs_f64());
    }

    /// So many live clients fell behind, and so many transitions were merged.
    pub fn collapsed(&self, clients: u64, transitions: u64) {
        self.outbox_collapses.inc_by(clients);
        self.outbox_collapsed.inc_by(transitions);
    }

    /// A live client fell behind (`1`) or caught up (`-1`).
    pub fn lagging(&self, by: i64) {
        self.outbox_lagging.inc_by(by);
    }

    /// A callback was tried, with this outcome.
    pub fn callback_tried(&self, outcome: &'static str) {
        self.callback_tries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// How many callbacks are owed and were given up, and since when the oldest is owed.
    pub fn set_callbacks(&self, pending: u64, failed: u64, oldest: Duration) {
        for (status, count) in [("pending", pending), ("failed", failed)] {
            self.callbacks.get_or_create(&StatusLabel { status }).set(count as i64);
        }
        self.callback_oldest_seconds.set(oldest.as_secs_f64());
    }

    /// How many entries the audit has.
    pub fn set_audit_entries(&self, entries: u64) {
        self.audit_entries.set(entries as i64);
    }

    /// So many refusals are not in the audit.
    pub fn audit_dropped(&self, refusals: u64) {
        self.audit_dropped.inc_by(refusals);
    }

    /// How many credentials were refused so far, by reason.
    pub fn set_refused(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in counts {
            self.refused_credentials.get_or_create(&ReasonLabel { reason }).inner().store(count, Ordering::Relaxed);
        }
    }

    /// Subscriptions came (`1`) or went (`-1`).
    pub fn subscribed(&self, by: i64) {
        self.subscriptions.inc_by(by);
    }

    /// A socket of this kind opened.
    pub fn socket_opened(&self, kind: &'static str) {
        self.sockets.get_or_create(&KindLabel { kind }).inc();
        self.sockets_open.fetch_add(1, Ordering::Relaxed);
    }

    /// A socket of this kind closed.
    pub fn socket_closed(&self, kind: &'static str) {
        self.sockets.get_or_create(&KindLabel { kind }).dec();
        self.sockets_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many sockets are open.
    pub fn sockets(&self) -> u64 {
        self.sockets_open.load(Ordering::Relaxed)
    }

    /// How many tasks there are of each status.
    pub fn set_tasks(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        for (status, count) in counts {
            self.tasks.get_or_create(&StatusLabel { status }).set(count as i64);
        }
    }

    /// How many tasks stand in each queue; two of one name are added up. Queues that are not named any more are no longer
    /// shown.
    pub fn set_queues<'a>(&self, depths: impl IntoIterator<Item = Depth<'a>>) {
        self.queue_tasks.clear();
        for depth in depths {
            for (status, count) in [
                ("waiting", depth.waiting),
                ("scheduled", depth.scheduled),
                ("pending", depth.pending),
                ("running", depth.running),
            ] {
                let labels = QueueLabels { queue: depth.queue.to_owned(), status };
                self.queue_tasks.get_or_create(&labels).inc_by(count as i64);
            }
        }
    }

    /// How many workers there are.
    pub fn set_workers(&self, workers: u64) {
        self.workers.set(workers as i64);
    }

    /// The number of the last transition.
    pub fn set_rev(&self, rev: u64) {
        self.rev.set(rev as i64);
    }

    /// All of it, as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(8 << 10);
        text::encode(&mut out, &self.registry.lock()).expect("a String takes every write");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_number() {
        let metrics = Metrics::default();
        for (at, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, at);
        }
        for (at, (delivery, _)) in DELIVERIES.into_iter().enumerate() {
            assert_eq!(delivery as usize, at);
        }
        metrics.transitions[Event::Completed as usize].inc();
        metrics.finished(&Name::new("report"), Status::Completed, Duration::from_millis(20));
        metrics.committed(3, Duration::from_millis(2));
        metrics.delivered(Delivery::Progress, 2, 200);
        metrics.feed_told(1, Duration::from_millis(1));
        metrics.set_tasks([("pending", 4)]);
        metrics.set_queues([Depth { queue: "default", waiting: 0, scheduled: 1, pending: 2, running: 3 }]);
        metrics.socket_opened("worker");
        metrics.callback_tried("delivered");
        metrics.set_callbacks(2, 1, Duration::from_secs(3));
        metrics.set_refused([("expired", 7)]);
        let text = metrics.render();
        for (name, _) in names::TABLE {
            assert!(text.contains(&format!("# TYPE taskhub_{name} ")), "{name} is missing in\n{text}");
        }
        for line in [
            r#"taskhub_transitions_total{event="task.completed"} 1"#,
            r#"taskhub_queue_tasks{queue="default",status="pending"} 2"#,
            r#"taskhub_feed_deliveries_total{kind="progress"} 2"#,
            r#"taskhub_sockets{kind="worker"} 1"#,
            r#"taskhub_callbacks{status="failed"} 1"#,
            r#"taskhub_refused_credentials_total{reason="expired"} 7"#,
            r#"taskhub_task_seconds_count{task_type="report",status="completed"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn names_cannot_fill_the_memory() {
        let metrics = Metrics::default();
        for at in 0..10_000 {
            metrics.finished(&Name::new(&format!("type-{at}")), Status::Failed, Duration::ZERO);
        }
        let series = metrics.render().matches("task_seconds_count{").count();
        assert_eq!(series, 3 * TASK_TYPES_MAX + 1);
    }

    #[test]
    fn two_hubs_count_apart() {
        let (one, two) = (Metrics::default(), Metrics::default());
        one.commit_failed();
        assert!(one.render().contains("taskhub_commit_failures_total 1"));
        assert!(two.render().contains("taskhub_commit_failures_total 0"));
    }
}
