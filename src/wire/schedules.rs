//! Schedules as they are set and shown. Their fields stand out one by one: a payload is text that has to be read where it
//! stands.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::settings::{CatchUp, Overlap, Schedule, ScheduleSpec, Skipped};
use crate::task::{self, AuthorEnd, Name, NewTask, Status, TaskId, Timestamp};

/// The most schedules of one answer.
pub const SCHEDULES_LEN_MAX: usize = 1_000;

/// `GET /schedules`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduleList {
    pub schedules: Vec<ScheduleView>,
    /// Where there are more: what to ask with for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduleView {
    pub name: Name,
    /// Of the change that made this record: somebody set it, or it was due.
    pub rev: u64,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    pub time_zone: String,
    pub task: Arc<NewTask>,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    pub catch_up_max: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<Timestamp>,
    pub paused: bool,
    /// Why, where nobody paused it: the token of who made it is in force no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<AuthorEnd>,
    /// What `every_ms` counts from.
    pub counts_from: Timestamp,
    /// Every due time up to this one had its task, or was passed over.
    pub done_until: Timestamp,
    /// The next five due times; none while it is paused.
    pub next: Vec<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRunView>,
    /// The newest due time that was passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// The newest task of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRunView {
    pub task_id: TaskId,
    /// Absent where somebody ran it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// Absent once the task is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

impl ScheduleView {
    /// What is shown of a schedule, whose record has this `rev` and time.
    pub fn of(
        name: Name,
        (rev, updated_at): (u64, Timestamp),
        it: &Schedule,
        last: Option<LastRunView>,
    ) -> ScheduleView {
        let ScheduleSpec {
            cron,
            every_ms,
            time_zone,
            task,
            overlap,
            catch_up,
            catch_up_max,
            jitter_ms,
            start_at,
            end_at,
            paused,
            author: _,
        } = it.spec.clone();
        ScheduleView {
            name,
            rev,
            updated_at,
            cron,
            every_ms,
            time_zone,
            task,
            overlap,
            catch_up,
            catch_up_max,
            jitter_ms,
            start_at,
            end_at,
            paused,
            paused_reason: it.state.paused_reason,
            counts_from: it.state.counts_from,
            done_until: it.state.done_until,
            next: it.upcoming(),
            last,
            skipped: it.state.skipped,
        }
    }
}

/// What of it can be set.
impl From<ScheduleView> for ScheduleSpec {
    fn from(view: ScheduleView) -> ScheduleSpec {
        ScheduleSpec {
            cron: view.cron,
            every_ms: view.every_ms,
            time_zone: view.time_zone,
            task: view.task,
            overlap: view.overlap,
            catch_up: view.catch_up,
            catch_up_max: view.catch_up_max,
            jitter_ms: view.jitter_ms,
            start_at: view.start_at,
            end_at: view.end_at,
            paused: view.paused,
            author: None,
        }
    }
}

/// `PUT /schedules/{name}`: all that can be set. What a schedule is read with besides is passed over, so that it can be put
/// back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleBody {
    #[serde(default)]
    pub cron: Option<String>,
    #[serde(default, deserialize_with = "task::saturated")]
    pub every_ms: Option<u64>,
    #[serde(default)]
    pub time_zone: Option<String>,
    pub task: NewTask,
    #[serde(default)]
    pub overlap: Option<Overlap>,
    #[serde(default)]
    pub catch_up: Option<CatchUp>,
    #[serde(default, deserialize_with = "task::saturated")]
    pub catch_up_max: Option<u32>,
    #[serde(default, deserialize_with = "task::saturated")]
    pub jitter_ms: Option<u64>,
    #[serde(default)]
    pub start_at: Option<Timestamp>,
    #[serde(default)]
    pub end_at: Option<Timestamp>,
    #[serde(default)]
    pub paused: Option<bool>,
    #[serde(default)]
    pub r#type: Option<IgnoredAny>,
    #[serde(default)]
    pub name: Option<IgnoredAny>,
    #[serde(default)]
    pub rev: Option<IgnoredAny>,
    #[serde(default)]
    pub updated_at: Option<IgnoredAny>,
    #[serde(default)]
    pub counts_from: Option<IgnoredAny>,
    #[serde(default)]
    pub done_until: Option<IgnoredAny>,
    #[serde(default)]
    pub next: Option<IgnoredAny>,
    #[serde(default)]
    pub last: Option<IgnoredAny>,
    #[serde(default)]
    pub skipped: Option<IgnoredAny>,
    #[serde(default)]
    pub paused_reason: Option<IgnoredAny>,
    #[serde(default)]
    pub author: Option<IgnoredAny>,
}

impl From<ScheduleBody> for ScheduleSpec {
    fn from(body: ScheduleBody) -> ScheduleSpec {
        let usual = ScheduleSpec::new(body.task);
        ScheduleSpec {
            cron: body.cron,
            every_ms: body.every_ms,
            time_zone: body.time_zone.unwrap_or(usual.time_zone),
            task: usual.task,
            overlap: body.overlap.unwrap_or(usual.overlap),
            catch_up: body.catch_up.unwrap_or(usual.catch_up),
            catch_up_max: body.catch_up_max.unwrap_or(usual.catch_up_max),
            jitter_ms: body.jitter_ms,
            start_at: body.start_at,
            end_at: body.end_at,
            paused: body.paused.unwrap_or(usual.paused),
            author: None,
        }
    }
}
