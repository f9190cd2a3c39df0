//! `taskhub submit`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::outcome::{FAILED, Failed, Outcome, print, print_json, tell};
use super::{Bars, Endings, HubArgs};
use crate::client::{Client, LiveEvent, Subscribe, TaskEvent};
use crate::task::{
    FilterSpec, HeldUntil, Json, NewCallback, NewGather, NewTask, NewUnique, OnConflict, OnDependencyFailure, OnHeld,
    RetryPolicy, Status, TaskId, TaskView, Timestamp,
};
use crate::wire::SnapshotSpec;

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// What to run
    task_type: String,
    /// The payload: JSON, @FILE, or - for standard input
    payload: Option<String>,
    /// Wait for its end; print its result, and exit with 1 if it failed or was cancelled
    #[arg(long, short)]
    wait: bool,
    /// The queue it waits in
    #[arg(long, short)]
    queue: Option<String>,
    #[command(flatten)]
    words: Words,
    /// -100 to 100, higher first; 0 unless its type says otherwise
    #[arg(long, short, allow_negative_numbers = true)]
    priority: Option<i8>,
    /// Not before this much time, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Not before this moment, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    run_at: Option<Timestamp>,
    /// The longest an attempt may take, such as 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Failed if it has not ended by then: so much time from now, or a moment
    #[arg(long, value_name = "WHEN", value_parser = by)]
    deadline: Option<By>,
    /// Failed if it was not started by then
    #[arg(long, value_name = "WHEN", value_parser = by)]
    start_by: Option<By>,
    /// The longest an attempt may report neither progress nor a log line
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    silence: Option<Duration>,
    /// The waits after failed tries, such as 1s,5s,1m; the last one repeats
    #[arg(long, value_name = "TIMES", value_delimiter = ',', value_parser = humantime::parse_duration)]
    retry_delays: Option<Vec<Duration>>,
    /// How many tries it has
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// At how many lost attempts it fails
    #[arg(long, value_name = "N")]
    max_crashes: Option<u32>,
    /// Tasks of its queue with the same key run one after the other, or as many at once as the queue is set to
    #[arg(long, value_name = "KEY")]
    concurrency_key: Option<String>,
    /// Where such tasks are unfinished: queue, reject, replace-waiting or cancel-running
    #[arg(long, value_name = "WHAT", value_parser = on_conflict, requires = "concurrency_key")]
    on_conflict: Option<OnConflict>,
    #[command(flatten)]
    unique: Uniqueness,
    #[command(flatten)]
    gather: Gathering,
    /// Not before this task is finished; may be given several times
    #[arg(long, value_name = "TASK")]
    depends_on: Vec<TaskId>,
    /// What becomes of it where one of these fails or is cancelled: cancel, fail or run
    #[arg(long, value_name = "WHAT", value_parser = on_dependency_failure, requires = "depends_on")]
    on_dependency_failure: Option<OnDependencyFailure>,
    /// A URL that is told how it ended; may be given several times
    #[arg(long, value_name = "URL")]
    callback: Vec<String>,
    /// What these are told instead, such as running,failed
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', requires = "callback")]
    callback_events: Option<Vec<String>>,
    /// The same key and task again, within 24 hours, give the first task
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

/// What a task is the only one of.
#[derive(Clone, Debug, Default, Args)]
struct Uniqueness {
    /// There is one task of its type, user and this key at a time
    #[arg(long, value_name = "KEY", conflicts_with = "unique_by")]
    unique_key: Option<String>,
    /// The same, of those with the same of these: queue, payload, payload/customer/id, labels/k, ...
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    unique_by: Vec<String>,
    /// It holds its key until it is started or finished
    #[arg(long, value_name = "WHEN", value_parser = until, conflicts_with = "unique_within")]
    unique_until: Option<HeldUntil>,
    /// It holds its key for so long from now, such as 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unique_within: Option<Duration>,
    /// Where another holds it: return, reject or replace
    #[arg(long, value_name = "WHAT", value_parser = on_held)]
    unique_on_conflict: Option<OnHeld>,
    /// With replace and --delay: it is not put off for longer than this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    unique_max_wait: Option<Duration>,
}

impl Uniqueness {
    fn unique(&self) -> Option<Box<NewUnique>> {
        let unique = NewUnique {
            key: self.unique_key.clone(),
            by: self.unique_by.clone(),
            until: self.unique_until,
            within_ms: self.unique_within.map(millis),
            on_conflict: self.unique_on_conflict,
            max_wait_ms: self.unique_max_wait.map(millis),
        };
        (unique != NewUnique::default()).then(|| Box::new(unique))
    }
}

/// What makes one task of many submissions.
#[derive(Clone, Debug, Default, Args)]
struct Gathering {
    /// Submissions of its queue, type, user and this key become one task; with at least one bound
    #[arg(long, value_name = "KEY")]
    gather_key: Option<String>,
    /// It is ready with so many
    #[arg(long, value_name = "N", requires = "gather_key")]
    gather_count: Option<u32>,
    /// It is ready so long after the first, such as 5s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "gather_key")]
    gather_wait: Option<Duration>,
    /// It is ready with so many bytes of payload
    #[arg(long, value_name = "BYTES", requires = "gather_key")]
    gather_bytes: Option<u64>,
}

impl Gathering {
    fn gather(&self) -> Option<Box<NewGather>> {
        let max_wait_ms = self.gather_wait.map(millis);
        let gather = |key| NewGather { key, max_count: self.gather_count, max_wait_ms, max_bytes: self.gather_bytes };
        self.gather_key.clone().map(gather).map(Box::new)
    }
}

/// What a task says of itself to people.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Words {
    /// For people
    #[arg(long, short)]
    pub(super) title: Option<String>,
    /// For people, longer
    #[arg(long)]
    pub(super) description: Option<String>,
    /// Whose it is
    #[arg(long, value_name = "USER_ID")]
    pub(super) user: Option<String>,
    /// May be given several times
    #[arg(long = "label", short, value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

/// A time by which something must have happened: so long from now, or a moment.
#[derive(Clone, Copy, Debug)]
enum By {
    In(Duration),
    At(Timestamp),
}

impl By {
    fn at(self) -> Option<Timestamp> {
        if let By::At(at) = self { Some(at) } else { None }
    }

    fn ms(self) -> Option<u64> {
        if let By::In(time) = self { Some(millis(time)) } else { None }
    }
}

fn by(text: &str) -> Result<By, String> {
    let time = || humantime::parse_duration(text).map(By::In);
    let wrong = |_| format!("{text:?} is neither a time such as 10m nor a moment such as 2026-01-31T12:00:00Z");
    Timestamp::parse(text).map(By::At).or_else(|_| time()).map_err(wrong)
}

fn on_conflict(text: &str) -> Result<OnConflict, String> {
    match text {
        "queue" => Ok(OnConflict::Queue),
        "reject" => Ok(OnConflict::Reject),
        "replace-waiting" => Ok(OnConflict::ReplaceWaiting),
        "cancel-running" => Ok(OnConflict::CancelRunning),
        _ => Err("it is queue, reject, replace-waiting or cancel-running".into()),
    }
}

fn on_dependency_failure(text: &str) -> Result<OnDependencyFailure, String> {
    match text {
        "cancel" => Ok(OnDependencyFailure::Cancel),
        "fail" => Ok(OnDependencyFailure::Fail),
        "run" => Ok(OnDependencyFailure::Run),
        _ => Err("it is cancel, fail or run".into()),
    }
}

fn until(text: &str) -> Result<HeldUntil, String> {
    match text {
        "started" => Ok(HeldUntil::Started),
        "finished" => Ok(HeldUntil::Finished),
        _ => Err("it is started or finished".into()),
    }
}

fn on_held(text: &str) -> Result<OnHeld, String> {
    match text {
        "return" => Ok(OnHeld::Return),
        "reject" => Ok(OnHeld::Reject),
        "replace" => Ok(OnHeld::Replace),
        _ => Err("it is return, reject or replace".into()),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|why| format!("a moment {why}"))
}

impl SubmitArgs {
    fn callbacks(&self) -> Vec<NewCallback> {
        let callback = |url: &String| NewCallback { url: url.clone(), events: self.callback_events.clone() };
        self.callback.iter().map(callback).collect()
    }

    fn new_task(&self) -> Result<NewTask, Failed> {
        let mut new = NewTask {
            queue: self.queue.clone(),
            title: self.words.title.clone(),
            description: self.words.description.clone(),
            user_id: self.words.user.clone(),
            labels: labels(&self.words.labels)?,
            priority: self.priority,
            concurrency_key: self.concurrency_key.clone(),
            on_conflict: self.on_conflict,
            unique: self.unique.unique(),
            gather: self.gather.gather(),
            depends_on: self.depends_on.iter().map(TaskId::to_string).collect(),
            on_dependency_failure: self.on_dependency_failure,
            callbacks: self.callbacks(),
            run_at: self.run_at,
            delay_ms: self.delay.map(millis),
            timeout_ms: self.timeout.map(millis),
            deadline_at: self.deadline.and_then(By::at),
            deadline_ms: self.deadline.and_then(By::ms),
            start_by_at: self.start_by.and_then(By::at),
            start_by_ms: self.start_by.and_then(By::ms),
            silence_ms: self.silence.map(millis),
            retry: self
                .retry_delays
                .as_ref()
                .map(|times| RetryPolicy::delays_ms(times.iter().copied().map(millis).collect::<Vec<_>>())),
            max_attempts: self.max_attempts,
            max_crashes: self.max_crashes,
            ..NewTask::new(&self.task_type)
        };
        new.payload = self.payload.as_deref().map(payload).transpose()?;
        Ok(new)
    }
}

/// Labels by their keys. One that is given twice is a slip, not a choice.
pub(super) fn labels(given: &[(String, String)]) -> Result<BTreeMap<String, String>, Failed> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(Failed::usage(format!("--label {key}= is given twice")));
        }
    }
    Ok(labels)
}

/// Reads a payload from where the words say.
/// A payload as it is given to a command: JSON, `@FILE`, or `-`.
pub(super) fn payload(words: &str) -> Result<Json, Failed> {
    let (text, place) = if words == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|why| Failed::usage(format!("standard input: {why}")))?;
        (text, "standard input".to_owned())
    } else if let Some(path) = words.strip_prefix('@') {
        (std::fs::read_to_string(path).map_err(|why| Failed::usage(format!("{path}: {why}")))?, path.to_owned())
    } else {
        (words.to_owned(), "the payload".to_owned())
    };
    // What editors and shells of Windows begin a file with is no part of its text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // The value itself only to say where it goes wrong; what is sent is the text.
    let wrong = |why: serde_json::Error| Failed::usage(format!("{place} is not JSON: {why}"));
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(wrong)?;
    Json::parse_verbatim(text).map_err(|why| Failed::usage(format!("{place} {why}")))
}

pub(super) async fn submit(args: SubmitArgs) -> Outcome {
    let new = args.new_task()?;
    let client = args.hub.client()?;
    let task = match &args.idempotency_key {
        Some(key) => client.submit_once(&new, key).await?,
        None => client.submit(&new).await?,
    };
    if let (Some(gathered), false) = (task.gathered, args.hub.json) {
        tell(format_args!("  number {gathered} of {}", task.task_id));
    } else if task.existing && !args.hub.json {
        tell(format_args!("  {} was there already", task.task_id));
    }
    if !args.wait {
        if args.hub.json {
            print_json(&task)?
        } else {
            print(&format!("{}\n", task.task_id))?
        }
        return Ok(ExitCode::SUCCESS);
    }
    let task = finished(&client, task.task_id).await?;
    if args.hub.json {
        print_json(&task)?;
    } else if let Some(result) = &task.result {
        print(&format!("{}\n", result.as_str()))?;
    } else {
        tell(super::bars::ending(&task, usize::MAX));
        tell(format_args!("  taskhub get {}", task.task_id));
    }
    Ok(if task.status == Status::Completed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The task once it is final; with a bar where somebody looks.
pub(super) async fn finished(client: &Client, task_id: TaskId) -> Result<TaskView, Failed> {
    let bar = async {
        if !std::io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        let mut bars = Bars::new(Endings::All);
        let mut live = client.live();
        let filter = FilterSpec { task_id: Some(vec![task_id]), ..FilterSpec::default() };
        let snapshot = Some(SnapshotSpec { limit: Some(1), ..SnapshotSpec::default() });
        live.subscribe(Subscribe { filter, snapshot, ..Subscribe::default() });
        loop {
            let event = tokio::select! {
                event = live.next() => event,
                () = Bars::pause() => {
                    bars.tick();
                    continue;
                }
            };
            match event {
                Some(LiveEvent::Of(_, TaskEvent::Snapshot { tasks, .. })) => {
                    tasks.iter().for_each(|task| bars.set(task))
                }
                Some(LiveEvent::Of(_, TaskEvent::Task { task, .. } | TaskEvent::Progress { task })) => bars.set(&task),
                Some(_) => {}
                None => break,
            }
        }
        std::future::pending().await
    };
    // What counts is asked for by itself: the stream is only for the eye.
    let task = tokio::select! {
        task = client.wait(task_id) => task?,
        never = bar => never,
    };
    Ok(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_given_once() {
        let given = |words: &[&str]| words.iter().map(|word| label(word).unwrap()).collect::<Vec<_>>();
        assert_eq!(labels(&given(&["a=1", "b=", "c=x=y"])).unwrap()["c"], "x=y");
        assert!(labels(&given(&["a=1", "a=1"])).is_err());
    }

    #[test]
    fn a_payload_is_kept_as_its_file_has_it_but_for_the_mark_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payload.json");
        std::fs::write(&path, "\u{feff}{\"b\" : 1.0,\n \"a\":2}").unwrap();
        let read = payload(&format!("@{}", path.display())).unwrap_or_else(|_| panic!("it is JSON"));
        assert_eq!(read.as_str(), "{\"b\" : 1.0,\n \"a\":2}");
    }
}
