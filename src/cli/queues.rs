//! `queue` and `limits`: what is set while a hub runs.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::HubArgs;
use super::outcome::{Outcome, print, print_all, print_json, tell};
use super::tables::{self, Look};
use crate::settings::{FairBy, QueueSettings, Rate, RateBy, UserLimits};
use crate::wire::QueueView;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Every queue: what is set of it, and what stands in it
    List(ListArgs),
    /// One queue
    Show(OneArgs),
    /// Set some of a queue; the rest stays as it is
    Set(SetArgs),
    /// Set a queue back to the defaults
    Unset(OneArgs),
    /// Hand out nothing of it
    Pause(OneArgs),
    /// Let it go on
    Resume(OneArgs),
    /// Cancel what does not run
    Purge(OneArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The queue
    #[arg(value_name = "QUEUE")]
    name: String,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The queue
    #[arg(value_name = "QUEUE")]
    name: String,
    /// The most of its tasks that run at once, or none
    #[arg(long, value_name = "N", value_parser = limit)]
    concurrency: Option<Limit>,
    /// The most of one key
    #[arg(long, value_name = "N")]
    key_concurrency: Option<u32>,
    /// The most of one user, or none
    #[arg(long, value_name = "N", value_parser = limit)]
    user_concurrency: Option<Limit>,
    /// The most that are handed out within a while, such as 100/1m; or none
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    rate: Option<RateArg>,
    /// Whose hand-outs are counted together: those of the queue, of each key or of each user
    #[arg(long, value_name = "WHOM", value_parser = rate_by)]
    rate_by: Option<RateBy>,
    /// Between whom its hand-outs are shared in turn: user, key or none
    #[arg(long, value_name = "WHOM", value_parser = fair_by)]
    fair_by: Option<FairBy>,
    /// So much waiting outweighs one priority, such as 1m; or none
    #[arg(long, value_name = "TIME", value_parser = time)]
    ageing: Option<Time>,
    /// How long its final tasks are kept, such as 7d; or none: as long as the hub keeps any
    #[arg(long, value_name = "TIME", value_parser = time)]
    retain: Option<Time>,
    /// The most of its final tasks that are kept, the newest; or none
    #[arg(long, value_name = "N", value_parser = number)]
    retain_count: Option<Number>,
    /// The most bytes of them, or none
    #[arg(long, value_name = "BYTES", value_parser = number)]
    retain_bytes: Option<Number>,
    #[command(flatten)]
    hub: HubArgs,
}

/// A number, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<u32>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => text.parse().map(|number| Limit(Some(number))).map_err(|_| "a limit is a number, or none".into()),
    }
}

#[derive(Clone, Copy, Debug)]
struct Number(Option<u64>);

fn number(text: &str) -> Result<Number, String> {
    match text {
        "none" => Ok(Number(None)),
        _ => text.parse().map(|number| Number(Some(number))).map_err(|_| "it is a number, or none".into()),
    }
}

#[derive(Clone, Copy, Debug)]
struct Time(Option<Duration>);

fn time(text: &str) -> Result<Time, String> {
    match text {
        "none" => Ok(Time(None)),
        _ => humantime::parse_duration(text).map(|time| Time(Some(time))).map_err(|why| why.to_string()),
    }
}

/// So many in so many milliseconds, or none.
#[derive(Clone, Copy, Debug)]
struct RateArg(Option<(u32, u64)>);

fn rate(text: &str) -> Result<RateArg, String> {
    if text == "none" {
        return Ok(RateArg(None));
    }
    let (limit, time) = text.split_once('/').ok_or("a rate is a number and a time, such as 100/1m, or none")?;
    let limit = limit.trim().parse().map_err(|_| "before the slash there is a number")?;
    let time = humantime::parse_duration(time.trim()).map_err(|why| why.to_string())?;
    Ok(RateArg(Some((limit, u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))))
}

fn rate_by(text: &str) -> Result<RateBy, String> {
    match text {
        "queue" => Ok(RateBy::Queue),
        "key" => Ok(RateBy::Key),
        "user" => Ok(RateBy::User),
        _ => Err("it is queue, key or user".into()),
    }
}

/// The rate that a queue is to have, which has this one.
fn new_rate(known: Option<Rate>, asked: Option<RateArg>, by: Option<RateBy>) -> Result<Option<Rate>, super::Failed> {
    let rate = match asked {
        Some(RateArg(rate)) => rate,
        None => known.map(|rate| (rate.limit, rate.per_ms)),
    };
    let by_before = known.map(|rate| rate.by).unwrap_or_default();
    match (rate, by) {
        (None, Some(_)) => Err(super::Failed::usage("--rate-by needs a --rate")),
        (rate, by) => Ok(rate.map(|(limit, per_ms)| Rate { limit, per_ms, by: by.unwrap_or(by_before) })),
    }
}

fn fair_by(text: &str) -> Result<FairBy, String> {
    match text {
        "none" => Ok(FairBy::None),
        "user" => Ok(FairBy::User),
        "key" => Ok(FairBy::Key),
        _ => Err("it is user, key or none".into()),
    }
}

pub(super) async fn queue(command: QueueCommand) -> Outcome {
    match command {
        QueueCommand::List(ListArgs { hub }) => {
            print_all(&hub.client()?.queues().await?, hub.json, tables::queues)?;
        }
        QueueCommand::Show(OneArgs { name, hub }) => show(&hub, &hub.client()?.queue(&name).await?)?,
        QueueCommand::Set(args) => set(args).await?,
        QueueCommand::Unset(OneArgs { name, hub }) => hub.client()?.unset_queue(&name).await?,
        QueueCommand::Pause(OneArgs { name, hub }) => show(&hub, &hub.client()?.pause_queue(&name).await?)?,
        QueueCommand::Resume(OneArgs { name, hub }) => show(&hub, &hub.client()?.resume_queue(&name).await?)?,
        QueueCommand::Purge(OneArgs { name, hub }) => {
            let purged = hub.client()?.purge_queue(&name).await?;
            match hub.json {
                true => print_json(&purged)?,
                false => tell(format!("{} of {} cancelled", purged.changed, purged.matched)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs) -> Result<(), super::Failed> {
    let client = args.hub.client()?;
    let known = client.queues().await?.into_iter().find(|queue| queue.name.as_str() == args.name);
    let known = known.map(|queue| queue.settings).unwrap_or_default();
    let settings = QueueSettings {
        concurrency: args.concurrency.map_or(known.concurrency, |Limit(limit)| limit),
        key_concurrency: args.key_concurrency.unwrap_or(known.key_concurrency),
        user_concurrency: args.user_concurrency.map_or(known.user_concurrency, |Limit(limit)| limit),
        rate: new_rate(known.rate, args.rate, args.rate_by)?,
        fair_by: args.fair_by.unwrap_or(known.fair_by),
        retain_ms: args.retain.map_or(known.retain_ms, |Time(time)| time.map(|time| time.as_millis() as u64)),
        retain_count: args.retain_count.map_or(known.retain_count, |Number(number)| number),
        retain_bytes: args.retain_bytes.map_or(known.retain_bytes, |Number(number)| number),
        ageing_ms: args.ageing.map_or(known.ageing_ms, |Time(time)| time.map(|time| time.as_millis() as u64)),
        paused: known.paused,
    };
    show(&args.hub, &client.set_queue(&args.name, &settings).await?)
}

fn show(hub: &HubArgs, queue: &QueueView) -> Result<(), super::Failed> {
    match hub.json {
        true => print_json(queue),
        false => print(&tables::queues(std::slice::from_ref(queue), Look::here())),
    }
}

#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    /// Of one user, and not of all
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,
    /// The most tasks that run at once, or none
    #[arg(long, value_name = "N", value_parser = limit)]
    running: Option<Limit>,
    /// The most unfinished tasks that do not run, or none
    #[arg(long, value_name = "N", value_parser = limit)]
    waiting: Option<Limit>,
    /// The most tasks submitted within a minute, or none
    #[arg(long, value_name = "N", value_parser = limit)]
    submits_per_min: Option<Limit>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn limits(args: LimitsArgs) -> Outcome {
    let client = args.hub.client()?;
    let mut limits = client.limits().await?;
    if args.running.is_some() || args.waiting.is_some() || args.submits_per_min.is_some() {
        let of = match &args.user {
            Some(user) => limits.users.entry(user.clone()).or_default(),
            None => &mut limits.user,
        };
        let UserLimits { running, waiting, submits_per_min } = of;
        for (limit, asked) in
            [(running, args.running), (waiting, args.waiting), (submits_per_min, args.submits_per_min)]
        {
            *limit = asked.map_or(*limit, |Limit(asked)| asked);
        }
        limits.users.retain(|_, limits| *limits != UserLimits::default());
        limits = client.set_limits(&limits).await?;
    }
    match args.hub.json {
        true => print_json(&limits)?,
        false => print(&tables::limits(&limits, Look::here()))?,
    }
    Ok(ExitCode::SUCCESS)
}
