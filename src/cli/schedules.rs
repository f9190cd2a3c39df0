//! `schedule`: tasks that the hub submits by itself, again and again.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::outcome::{Failed, Outcome, print, print_all, print_json};
use super::submit::{self, Words};
use super::tables::{self, Look};
use super::{HubArgs, show};
use crate::client::ClientError;
use crate::settings::{CatchUp, Overlap, ScheduleSpec};
use crate::task::{NewTask, Timestamp};
use crate::wire::{Code, ScheduleView};

#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// Every schedule: when it is due, and how its last task did
    List(ListArgs),
    /// One schedule
    Show(OneArgs),
    /// Set some of a schedule, or make one; the rest stays as it is
    Set(Box<SetArgs>),
    /// Delete a schedule; its tasks stay
    Delete(OneArgs),
    /// Submit its task now
    Run(OneArgs),
    /// Submit nothing until it is resumed
    Pause(OneArgs),
    /// Let it go on; nothing is caught up
    Resume(OneArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    name: String,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    name: String,
    /// What its tasks run
    task_type: Option<String>,
    /// Their payload: JSON, @FILE, or - for standard input
    payload: Option<String>,
    /// When it is due: five fields, or six with the seconds first, or @daily and the like
    #[arg(long, value_name = "PATTERN", conflicts_with = "every")]
    cron: Option<String>,
    /// When it is due: so much time after each other, such as 90s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    every: Option<Duration>,
    /// The zone whose clocks the pattern is about, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// The queue its tasks wait in
    #[arg(long, short)]
    queue: Option<String>,
    #[command(flatten)]
    words: Words,
    /// -100 to 100, higher first
    #[arg(long, short, allow_negative_numbers = true)]
    priority: Option<i8>,
    /// All fields of its tasks, in place of those it has: JSON, @FILE, or -
    #[arg(long, value_name = "TASK", conflicts_with_all = ["task_type", "payload", "queue", "priority"])]
    task: Option<String>,
    /// While an earlier task is not final: allow, skip, queue or replace
    #[arg(long, value_name = "WHAT", value_parser = overlap)]
    overlap: Option<Overlap>,
    /// Of what was missed: none, last or all
    #[arg(long, value_name = "WHAT", value_parser = catch_up)]
    catch_up: Option<CatchUp>,
    /// The most that are caught up, the newest of them
    #[arg(long, value_name = "N")]
    catch_up_max: Option<u32>,
    /// Up to so long after its due times, always the same for one schedule
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    jitter: Option<Duration>,
    /// Nothing is due before this moment
    #[arg(long, value_name = "MOMENT", value_parser = submit::moment)]
    start_at: Option<Timestamp>,
    /// Nothing is due after this moment
    #[arg(long, value_name = "MOMENT", value_parser = submit::moment)]
    end_at: Option<Timestamp>,
    #[command(flatten)]
    hub: HubArgs,
}

fn overlap(text: &str) -> Result<Overlap, String> {
    match text {
        "allow" => Ok(Overlap::Allow),
        "skip" => Ok(Overlap::Skip),
        "queue" => Ok(Overlap::Queue),
        "replace" => Ok(Overlap::Replace),
        _ => Err("it is allow, skip, queue or replace".into()),
    }
}

fn catch_up(text: &str) -> Result<CatchUp, String> {
    match text {
        "none" => Ok(CatchUp::None),
        "last" => Ok(CatchUp::Last),
        "all" => Ok(CatchUp::All),
        _ => Err("it is none, last or all".into()),
    }
}

pub(super) async fn schedule(command: ScheduleCommand) -> Outcome {
    match command {
        ScheduleCommand::List(ListArgs { hub }) => {
            print_all(&hub.client()?.schedules().await?, hub.json, tables::schedules)?;
        }
        ScheduleCommand::Show(OneArgs { name, hub }) => shown(&hub, &hub.client()?.schedule(&name).await?)?,
        ScheduleCommand::Set(args) => set(*args).await?,
        ScheduleCommand::Delete(OneArgs { name, hub }) => hub.client()?.delete_schedule(&name).await?,
        ScheduleCommand::Run(OneArgs { name, hub }) => {
            let task = hub.client()?.run_schedule(&name).await?;
            match hub.json {
                true => print_json(&task)?,
                false => print(&format!("{}\n", task.task_id))?,
            }
        }
        ScheduleCommand::Pause(OneArgs { name, hub }) => shown(&hub, &hub.client()?.pause_schedule(&name).await?)?,
        ScheduleCommand::Resume(OneArgs { name, hub }) => shown(&hub, &hub.client()?.resume_schedule(&name).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs) -> Result<(), Failed> {
    let client = args.hub.client()?;
    let known = match client.schedule(&args.name).await {
        Ok(schedule) => Some(ScheduleSpec::from(schedule)),
        Err(ClientError::Refused(problem)) if problem.code == Code::ScheduleNotFound => None,
        Err(error) => return Err(error.into()),
    };
    let spec = args.spec(known)?;
    shown(&args.hub, &client.set_schedule(&args.name, &spec).await?)
}

impl SetArgs {
    fn spec(&self, known: Option<ScheduleSpec>) -> Result<ScheduleSpec, Failed> {
        let mut spec = match (known, &self.task_type, &self.task) {
            (Some(known), ..) => known,
            (None, Some(task_type), _) => ScheduleSpec::new(NewTask::new(task_type)),
            (None, None, Some(_)) => ScheduleSpec::new(NewTask::default()),
            (None, None, None) => {
                return Err(Failed::usage(format!("there is no schedule {} yet: say what its tasks run", self.name)));
            }
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if self.cron.is_some() || self.every.is_some() {
            (spec.cron, spec.every_ms) = (self.cron.clone(), self.every.map(millis));
        }
        spec.time_zone = self.time_zone.clone().unwrap_or(spec.time_zone);
        spec.overlap = self.overlap.unwrap_or(spec.overlap);
        spec.catch_up = self.catch_up.unwrap_or(spec.catch_up);
        spec.catch_up_max = self.catch_up_max.unwrap_or(spec.catch_up_max);
        spec.jitter_ms = self.jitter.map(millis).or(spec.jitter_ms);
        spec.start_at = self.start_at.or(spec.start_at);
        spec.end_at = self.end_at.or(spec.end_at);
        let task = Arc::make_mut(&mut spec.task);
        if let Some(text) = &self.task {
            let json = submit::payload(text)?;
            *task = json.to().map_err(|why| Failed::usage(format!("--task is no task: {why}")))?;
        }
        task.task_type = self.task_type.clone().unwrap_or(std::mem::take(&mut task.task_type));
        if let Some(payload) = &self.payload {
            task.payload = Some(submit::payload(payload)?);
        }
        let given = |words: &Option<String>, known: &mut Option<String>| {
            if words.is_some() {
                known.clone_from(words);
            }
        };
        given(&self.queue, &mut task.queue);
        given(&self.words.title, &mut task.title);
        given(&self.words.description, &mut task.description);
        given(&self.words.user, &mut task.user_id);
        if !self.words.labels.is_empty() {
            task.labels = submit::labels(&self.words.labels)?;
        }
        task.priority = self.priority.or(task.priority);
        Ok(spec)
    }
}

fn shown(hub: &HubArgs, schedule: &ScheduleView) -> Result<(), Failed> {
    match hub.json {
        true => print_json(schedule),
        false => {
            let look = Look::here();
            print(&tables::schedules(std::slice::from_ref(schedule), look))?;
            let next =
                schedule.next.iter().map(|due| format!("{due}  in {}\n", show::span(due.millis_since(look.now))));
            print(&next.collect::<String>())
        }
    }
}
