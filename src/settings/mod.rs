//! What people set while the hub runs, beside its tasks: queues, limits, schedules and task types.
//!
//! A setting is a record as a task is one: whoever changes it makes a new record with a new `rev` of the one order, which is
//! on disk before anybody hears of it, comes back after a restart, and is taken back with a commit that fails. What is not set
//! has its defaults. Everything here is plain data: no clock, no I/O.

mod cron;
mod limits;
mod queue;
mod rate;
mod schedule;
mod task_type;
mod task_types;
mod timing;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::task::{Name, Timestamp, read_strictly};

pub use cron::CRON_BYTES_MAX;
pub use limits::{LIMITED_USERS_MAX, Limits, UserLimits};
pub use queue::{
    AGEING_MS_MAX, FairBy, LIMIT_MAX, QueueSettings, RETAIN_BYTES_MAX, RETAIN_COUNT_MAX, RETAIN_MS_MAX, SET_QUEUES_MAX,
};
pub use rate::{HandOuts, RATE_PER_MS_MAX, Rate, RateBy};
pub use schedule::{
    CATCH_UP_MAX, CatchUp, EVERY_MS_MIN, JITTER_MS_MAX, LATE_MS, LastRun, Overlap, Plan, SCHEDULE_PAYLOAD_BYTES_MAX,
    SCHEDULES_MAX, Schedule, ScheduleSpec, ScheduleState, SkipReason, Skipped,
};
pub use task_type::{TASK_TYPES_MAX, TaskType, TaskTypeSpec};
pub use task_types::TaskTypes;

/// What kind of thing is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SettingKind {
    Queue = 1,
    Limits = 2,
    Schedule = 3,
    TaskType = 4,
}

impl SettingKind {
    /// Every kind.
    pub const ALL: [SettingKind; 4] =
        [SettingKind::Queue, SettingKind::Limits, SettingKind::Schedule, SettingKind::TaskType];

    /// The kind with this discriminant, as stored.
    pub fn from_code(code: u8) -> Option<SettingKind> {
        SettingKind::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            SettingKind::Queue => "queue",
            SettingKind::Limits => "limits",
            SettingKind::Schedule => "schedule",
            SettingKind::TaskType => "task_type",
        }
    }
}

/// Which setting: its kind, and its name where there are several of a kind.
pub type SettingId = (SettingKind, Name);

/// One setting. Records are never changed in place.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub name: Name,
    /// The hub-wide number of the change that made this record.
    pub rev: u64,
    pub updated_at: Timestamp,
    pub value: SettingValue,
}

/// What is set.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    Queue(QueueSettings),
    Limits(Limits),
    Schedule(Schedule),
    TaskType(TaskType),
}

impl SettingValue {
    /// What kind of thing it is.
    pub fn kind(&self) -> SettingKind {
        match self {
            SettingValue::Queue(_) => SettingKind::Queue,
            SettingValue::Limits(_) => SettingKind::Limits,
            SettingValue::Schedule(_) => SettingKind::Schedule,
            SettingValue::TaskType(_) => SettingKind::TaskType,
        }
    }
}

/// The name of the one record of limits.
pub const LIMITS_NAME: &str = "limits";

/// A change to a setting that was decided.
#[derive(Clone, Debug)]
pub struct SettingChange {
    /// The hub-wide number of this step, in one order with those of tasks.
    pub rev: u64,
    pub at: Timestamp,
    pub id: SettingId,
    pub prev: Option<Arc<Setting>>,
    /// `None`: it is not set any more.
    pub next: Option<Arc<Setting>>,
}

/// A record as text: first what every setting has, then what is set.
#[derive(Serialize)]
struct Written<'a, T> {
    r#type: &'static str,
    rev: u64,
    name: &'a str,
    updated_at: Timestamp,
    #[serde(flatten)]
    value: &'a T,
}

impl Setting {
    /// Which setting it is.
    pub fn id(&self) -> SettingId {
        (self.value.kind(), self.name.clone())
    }

    /// The record as JSON, which is what the store keeps and what watchers are told.
    pub fn to_json(&self) -> Vec<u8> {
        let Setting { name, rev, updated_at, value } = self;
        let (r#type, rev, name, updated_at) = (value.kind().as_str(), *rev, name.as_str(), *updated_at);
        let written = match value {
            SettingValue::Queue(value) => serde_json::to_vec(&Written { r#type, rev, name, updated_at, value }),
            SettingValue::Limits(value) => serde_json::to_vec(&Written { r#type, rev, name, updated_at, value }),
            SettingValue::Schedule(value) => serde_json::to_vec(&Written { r#type, rev, name, updated_at, value }),
            SettingValue::TaskType(value) => serde_json::to_vec(&Written { r#type, rev, name, updated_at, value }),
        };
        written.expect("settings are plain values")
    }

    /// Reads what [`to_json`](Self::to_json) wrote, by this version of the hub or an older one.
    pub fn parse(record: &[u8]) -> Result<Setting, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head {
            r#type: String,
            rev: u64,
            name: Name,
            updated_at: Timestamp,
        }
        let Head { r#type, rev, name, updated_at } = read_strictly(record)?;
        let value = match r#type.as_str() {
            "queue" => SettingValue::Queue(serde_json::from_slice(record)?),
            "limits" => SettingValue::Limits(serde_json::from_slice(record)?),
            "schedule" => {
                let schedule = Schedule::of(serde_json::from_slice(record)?, serde_json::from_slice(record)?);
                SettingValue::Schedule(schedule.map_err(serde::de::Error::custom)?)
            }
            "task_type" => {
                let task_type = TaskType::of(serde_json::from_slice(record)?);
                SettingValue::TaskType(task_type.map_err(serde::de::Error::custom)?)
            }
            _ => return Err(serde::de::Error::custom(format!("there is no setting of type {}", r#type))),
        };
        Ok(Setting { name, rev, updated_at, value })
    }
}

/// The text that says that a setting is not set any more.
pub fn deleted_json(id: &SettingId, rev: u64) -> Vec<u8> {
    let (kind, name) = id;
    let name = serde_json::to_string(name.as_str()).expect("a text is JSON");
    format!(r#"{{"type":"{}","rev":{rev},"name":{name},"deleted":true}}"#, kind.as_str()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let user = UserLimits { running: Some(3), waiting: None, submits_per_min: Some(60) };
        let now = Timestamp::from_millis(1_790_000_000_123);
        let payload = crate::task::Json::parse_verbatim("{\n \"a\": 1.50 }").unwrap();
        let spec = ScheduleSpec {
            cron: Some("0 9 * * MON-FRI".into()),
            time_zone: "Europe/Berlin".into(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::All,
            jitter_ms: Some(5),
            start_at: Some(now),
            end_at: Some(now.plus_millis(7 * 86_400_000)),
            paused: true,
            author: Some(crate::task::Author::token("d")),
            ..ScheduleSpec::new(crate::task::NewTask { payload: Some(payload), ..crate::task::NewTask::new("t") })
        };
        let schedule = Schedule::set(spec, None, 1 << 20, now).unwrap();
        let ran = ScheduleState {
            last: Some(LastRun { task_id: crate::task::TaskId::from_bytes([7; 16]), due_at: Some(now) }),
            skipped: Some(Skipped { due_at: now, reason: SkipReason::QuotaExceeded }),
            paused_reason: Some(crate::task::AuthorEnd::Expired),
            ..schedule.state.clone()
        };
        for value in [
            SettingValue::Schedule(schedule.with(ran)),
            SettingValue::Schedule(schedule),
            SettingValue::Queue(QueueSettings::default()),
            SettingValue::Queue(QueueSettings {
                concurrency: Some(8),
                key_concurrency: 2,
                user_concurrency: Some(3),
                rate: Some(Rate { limit: 100, per_ms: 60_000, by: RateBy::User }),
                fair_by: FairBy::Key,
                ageing_ms: Some(60_000),
                retain_ms: Some(3_600_000),
                retain_count: Some(1_000),
                retain_bytes: Some(1 << 30),
                paused: true,
            }),
            SettingValue::Limits(Limits { user: user.clone(), users: [("u \"1\"".to_owned(), user)].into() }),
            SettingValue::TaskType(TaskType::of(TaskTypeSpec::default()).unwrap()),
            SettingValue::TaskType(
                TaskType::of(TaskTypeSpec {
                    title: Some("T".into()),
                    description: Some("D".into()),
                    defaults: crate::task::Defaults { priority: Some(0), max_attempts: Some(3), ..Default::default() },
                    payload_schema: Some(crate::task::Json::parse_verbatim("{\n\"maximum\": 1.50e400}").unwrap()),
                })
                .unwrap(),
            ),
        ] {
            let setting =
                Setting { name: Name::new("q"), rev: 7, updated_at: Timestamp::from_millis(1_790_000_000_123), value };
            assert_eq!(Setting::parse(&setting.to_json()).unwrap(), setting);
        }
        assert!(Setting::parse(br#"{"type":"moon","rev":1,"name":"q","updated_at":"2026-01-01T00:00:00Z"}"#).is_err());
    }

    #[test]
    fn kinds_have_codes() {
        for kind in SettingKind::ALL {
            assert_eq!(SettingKind::from_code(kind as u8), Some(kind));
        }
        assert_eq!(SettingKind::from_code(0), None);
    }
}
