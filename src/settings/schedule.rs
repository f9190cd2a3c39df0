//! A schedule: a task that is made again and again, at its due times.
//!
//! What somebody asks for is a [`ScheduleSpec`]; what stands in the record besides is how far it has come. Of that the most
//! important is `done_until`: every due time up to it is dealt with, because it had its task or because it was passed over,
//! and it never goes back, whatever clocks do. The record is replaced in the same commit that makes a task. So after any crash
//! either both are there or none, and a due time has one task.
//!
//! What is due at some moment is decided here, as a function of the record and that moment ([`Schedule::plan`]); the engine
//! makes the tasks.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::queue::range;
use super::timing::{Timing, zone};
use crate::task::{Author, AuthorEnd, DELAY_MS_MAX, Invalid, Json, Name, NewTask, TaskId, Timestamp, saturated};

/// The most schedules: each costs memory and a line of every list.
pub const SCHEDULES_MAX: usize = 100_000;
/// The largest payload of a schedule's task, in bytes of JSON text: it is held in memory, and written with each record of the
/// schedule.
pub const SCHEDULE_PAYLOAD_BYTES_MAX: usize = 16 << 10;
/// The shortest interval.
pub const EVERY_MS_MIN: u64 = 1_000;
/// The most due times that are caught up at once.
pub const CATCH_UP_MAX: u32 = 1_000;
/// The longest jitter: a day.
pub const JITTER_MS_MAX: u64 = 86_400_000;
/// A due time that is looked at within so long is in time, and not missed.
pub const LATE_MS: u64 = 5_000;
/// Due times that an answer lists.
pub const NEXT_LEN: usize = 5;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// When it is due: a cron pattern, or …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// … so many milliseconds after each other.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub every_ms: Option<u64>,
    /// The IANA name of the zone whose clocks `cron` is about.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What is submitted at each due time.
    pub task: Arc<NewTask>,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Of `catch_up: "all"`: how many of the newest.
    #[serde(default = "catch_up_max")]
    pub catch_up_max: u32,
    /// Tasks are made up to so long after their due time, each schedule's by a time of its own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub jitter_ms: Option<u64>,
    /// There are no due times before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// There are no due times after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<Timestamp>,
    /// Nothing is due.
    #[serde(default)]
    pub paused: bool,
    /// Who asked for it, where it is to end with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
}

fn utc() -> String {
    "UTC".into()
}

fn catch_up_max() -> u32 {
    100
}

impl ScheduleSpec {
    /// A schedule of this task, with everything but its times left to the defaults.
    pub fn new(task: NewTask) -> ScheduleSpec {
        ScheduleSpec {
            cron: None,
            every_ms: None,
            time_zone: utc(),
            task: Arc::new(task),
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            catch_up_max: catch_up_max(),
            jitter_ms: None,
            start_at: None,
            end_at: None,
            paused: false,
            author: None,
        }
    }

    /// It is due whenever this says, such as `0 9 * * MON-FRI`.
    pub fn cron(self, cron: impl Into<String>) -> ScheduleSpec {
        ScheduleSpec { cron: Some(cron.into()), ..self }
    }

    /// The IANA name of the zone whose clocks `cron` is about; UTC.
    pub fn time_zone(self, zone: impl Into<String>) -> ScheduleSpec {
        ScheduleSpec { time_zone: zone.into(), ..self }
    }

    /// It is due so long after each other.
    pub fn every(self, interval: Duration) -> ScheduleSpec {
        ScheduleSpec { every_ms: Some(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// What happens where the task of the time before is not final; both run.
    pub fn overlap(self, overlap: Overlap) -> ScheduleSpec {
        ScheduleSpec { overlap, ..self }
    }

    /// What becomes of due times that the hub was away for; the last of them is made up for.
    pub fn catch_up(self, catch_up: CatchUp) -> ScheduleSpec {
        ScheduleSpec { catch_up, ..self }
    }

    /// Checks each value against its bounds. When it is due is checked where it is read.
    fn check(&self, payload_bytes_max: usize) -> Result<(), Invalid> {
        match (&self.cron, self.every_ms) {
            (Some(_), Some(_)) => return Err(Invalid::value("every_ms", "must not stand beside cron")),
            (None, None) => return Err(Invalid::value("cron", "must be there, or every_ms")),
            (None, Some(ms)) if ms < EVERY_MS_MIN => {
                return Err(Invalid::value("every_ms", format!("must be at least {EVERY_MS_MIN}")));
            }
            _ => range("every_ms", self.every_ms, DELAY_MS_MAX)?,
        }
        if self.start_at.zip(self.end_at).is_some_and(|(start, end)| end < start) {
            return Err(Invalid::value("end_at", "must not be before start_at"));
        }
        range("catch_up_max", Some(self.catch_up_max.into()), CATCH_UP_MAX.into())?;
        if self.jitter_ms.is_some_and(|ms| ms > JITTER_MS_MAX) {
            return Err(Invalid::limit("jitter_ms", JITTER_MS_MAX, ""));
        }
        let task = &*self.task;
        for (field, given) in [
            ("run_at", task.run_at.is_some()),
            ("delay_ms", task.delay_ms.is_some()),
            ("deadline_at", task.deadline_at.is_some()),
            ("start_by_at", task.start_by_at.is_some()),
            ("depends_on", !task.depends_on.is_empty()),
            ("unique", task.unique.is_some()),
            ("gather", task.gather.is_some()),
            ("on_dependency_failure", task.on_dependency_failure.is_some()),
            ("ref", task.reference.is_some()),
            ("weight", task.weight.is_some()),
            ("workflow", task.workflow.is_some()),
        ] {
            if given {
                return Err(Invalid::value(format!("task.{field}"), "must not stand in a schedule"));
            }
        }
        let payload_bytes_max = payload_bytes_max.min(SCHEDULE_PAYLOAD_BYTES_MAX);
        self.task.check(payload_bytes_max).map_err(|invalid| invalid.within("task"))
    }

    /// Whether something is due at other times than by another.
    fn has_other_times(&self, other: &ScheduleSpec) -> bool {
        let times = |spec: &ScheduleSpec| (spec.cron.clone(), spec.every_ms, spec.time_zone.clone(), spec.start_at);
        times(self) != times(other)
    }
}

/// What becomes of a due time while a task of an earlier one is not final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Its task is made as well.
    #[default]
    Allow,
    /// It is passed over.
    Skip,
    /// Its task is made, and runs when those are final: one at a time, and none is left out.
    Queue,
    /// Those are cancelled, and its task runs when they have ended.
    Replace,
}

/// What becomes of due times that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// They are passed over.
    None,
    /// The last of them has its task.
    #[default]
    Last,
    /// Each has, the oldest first, as far as they are among the newest `catch_up_max`.
    All,
}

/// How far a schedule has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// What `every_ms` counts from.
    pub counts_from: Timestamp,
    /// Every due time up to this one is dealt with. It never goes back.
    pub done_until: Timestamp,
    /// The newest task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRun>,
    /// The newest due time that was passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    /// It is paused because its author is one no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<AuthorEnd>,
}

/// A task that a schedule made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    pub task_id: TaskId,
    /// Absent where somebody ran it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
}

/// A due time that has no task, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub due_at: Timestamp,
    pub reason: SkipReason,
}

/// Why a due time has no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The hub was not there, and it is not caught up.
    Missed,
    /// A task of an earlier one was not final.
    Overlap,
    /// Its task wanted no others with its `concurrency_key` beside it.
    Conflict,
    /// A limit of its user was reached.
    QuotaExceeded,
}

impl SkipReason {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Missed => "missed",
            SkipReason::Overlap => "overlap",
            SkipReason::Conflict => "conflict",
            SkipReason::QuotaExceeded => "quota_exceeded",
        }
    }
}

/// A schedule, as it stands in its record.
#[derive(Clone, Debug, Serialize)]
pub struct Schedule {
    #[serde(flatten)]
    pub spec: ScheduleSpec,
    #[serde(flatten)]
    pub state: ScheduleState,
    #[serde(skip)]
    timing: Arc<Timing>,
}

/// What is due follows from the rest.
impl PartialEq for Schedule {
    fn eq(&self, other: &Schedule) -> bool {
        (&self.spec, &self.state) == (&other.spec, &other.state)
    }
}

/// What is to be done of a schedule at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The newest due time that was missed and is not caught up.
    pub missed: Option<Timestamp>,
    /// Due times whose tasks are to be made, the oldest first.
    pub make: Vec<Timestamp>,
}

impl Schedule {
    /// A schedule as somebody sets it at this moment, in place of what is known of it. What is due by now has been dealt with
    /// before. Fails with what is wrong.
    pub fn set(
        mut spec: ScheduleSpec,
        known: Option<&Schedule>,
        payload_bytes_max: usize,
        now: Timestamp,
    ) -> Result<Schedule, Invalid> {
        spec.check(payload_bytes_max)?;
        if let Some(payload) = &spec.task.payload {
            // It stands in the record, which is one line.
            let payload = Json::of(payload).unwrap_or_else(|_| payload.clone());
            Arc::make_mut(&mut spec.task).payload = Some(payload);
        }
        let fresh = ScheduleState {
            counts_from: spec.start_at.unwrap_or(now),
            done_until: now,
            last: None,
            skipped: None,
            paused_reason: None,
        };
        let mut state = known.map_or_else(|| fresh.clone(), |known| known.state.clone());
        state.paused_reason = None;
        spec.time_zone = zone(&spec.time_zone)
            .ok_or_else(|| Invalid::value("time_zone", "must be the name of a time zone, such as Europe/Berlin"))?
            .1;
        if let Some(known) = known {
            let other_times = known.spec.has_other_times(&spec);
            if other_times {
                state.counts_from = fresh.counts_from;
            }
            // What would have been due by other times, after its end, or while it was paused, is not.
            let goes_on = known.spec.paused && !spec.paused;
            if other_times || known.spec.end_at != spec.end_at || goes_on {
                state.done_until = state.done_until.max(now);
            }
        }
        let schedule = Schedule::of(spec, state)?;
        let begins = schedule.spec.start_at.map_or(now, |start| start.max(now));
        if schedule.spec.cron.is_some() && schedule.timing.after(begins).is_none() {
            return Err(Invalid::value("cron", "must match a time that comes"));
        }
        // By what is asked for alone, so that a schedule whose end has come may be set again.
        let first = schedule.spec.start_at.and_then(|start| schedule.timing.after(just_before(start)));
        if first.zip(schedule.spec.end_at).is_some_and(|(first, end)| end < first) {
            return Err(Invalid::value("end_at", "must not be before the first due time after start_at"));
        }
        Ok(schedule)
    }

    /// A schedule from what its record says.
    pub(super) fn of(spec: ScheduleSpec, state: ScheduleState) -> Result<Schedule, Invalid> {
        let timing = match (&spec.cron, spec.every_ms) {
            (Some(cron), None) => {
                let cron = Cron::parse(cron).map_err(|why| Invalid::value("cron", why))?;
                let (zone, _) = zone(&spec.time_zone)
                    .ok_or_else(|| Invalid::value("time_zone", "must be the name of a time zone"))?;
                Timing::Cron { cron, zone }
            }
            (_, ms) => Timing::Every { ms: ms.unwrap_or_default(), from: state.counts_from },
        };
        Ok(Schedule { spec, state, timing: Arc::new(timing) })
    }

    /// The same, further on.
    pub fn with(&self, state: ScheduleState) -> Schedule {
        Schedule { spec: self.spec.clone(), state, timing: self.timing.clone() }
    }

    /// The same, paused or not. What was due while it was paused is passed over.
    pub fn pause(&self, paused: bool, now: Timestamp) -> Schedule {
        let mut next = self.clone();
        next.spec.paused = paused;
        if self.spec.paused && !paused {
            next.state.done_until = next.state.done_until.max(now);
        }
        next
    }

    /// The same, let go on for somebody: where it had stopped with its author, it is theirs from now on.
    pub fn resume(&self, author: Option<Author>, now: Timestamp) -> Schedule {
        let mut next = self.pause(false, now);
        if next.state.paused_reason.take().is_some() {
            next.spec.author = author;
        }
        next
    }

    /// The same, paused because its author is one no longer.
    pub fn stop(&self, reason: AuthorEnd, now: Timestamp) -> Schedule {
        let mut next = self.pause(true, now);
        next.state.paused_reason = Some(reason);
        next
    }

    fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let before_start = self.spec.start_at.map(just_before);
        let due = self.timing.after(before_start.map_or(moment, |before| before.max(moment)))?;
        // At the beginning of time nothing is before.
        (due > moment && self.spec.end_at.is_none_or(|end| due <= end)).then_some(due)
    }

    fn until(&self, moment: Timestamp) -> Option<Timestamp> {
        let due = self.timing.until(self.spec.end_at.map_or(moment, |end| end.min(moment)))?;
        self.spec.start_at.is_none_or(|start| due >= start).then_some(due)
    }

    /// The first due time that is not dealt with. None while it is paused.
    pub fn next(&self) -> Option<Timestamp> {
        self.after(self.state.done_until).filter(|_| !self.spec.paused)
    }

    /// The next due times.
    pub fn upcoming(&self) -> Vec<Timestamp> {
        std::iter::successors(self.next(), |due| self.after(*due)).take(NEXT_LEN).collect()
    }

    /// How long after its due times the tasks of a schedule of this name are made: always the same, and spread evenly over
    /// the jitter.
    pub fn delay_ms(&self, name: &Name) -> u64 {
        let Some(jitter_ms) = self.spec.jitter_ms else { return 0 };
        // FNV-1a: its low bits alone are well mixed.
        let hash = name
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        (hash ^ (hash >> 32)) % (jitter_ms + 1)
    }

    /// What is to be done now of the due times up to a moment: those that are not [`LATE_MS`] late have their tasks, each of
    /// them, and of those that were missed as many as are caught up.
    pub fn plan(&self, until: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let is_late = |due: Timestamp| until.millis_since(due) >= LATE_MS;
        let mut catch_up = match self.spec.catch_up {
            CatchUp::None => 0,
            CatchUp::Last => 1,
            CatchUp::All => self.spec.catch_up_max,
        };
        let mut due = self.until(until);
        while let Some(at) = due.filter(|at| *at > self.state.done_until) {
            if is_late(at) {
                if catch_up == 0 {
                    plan.missed = Some(at);
                    break;
                }
                catch_up -= 1;
            } else if self.spec.catch_up == CatchUp::Last {
                catch_up = 0;
            }
            plan.make.push(at);
            due = self.until(just_before(at));
        }
        plan.make.reverse();
        plan
    }
}

fn just_before(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.as_millis() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn spec(json: &str) -> ScheduleSpec {
        serde_json::from_str(json).unwrap()
    }

    const NOW: &str = "2026-12-01T12:00:00Z";

    #[test]
    fn each_bound_names_its_field() {
        let check = |json: &str, wrong: Option<&str>| {
            let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
            value.as_object_mut().unwrap().entry("task").or_insert(serde_json::json!({"task_type": "t"}));
            let set = Schedule::set(spec(&value.to_string()), None, 1 << 20, at(NOW));
            assert_eq!(set.err().map(|invalid| invalid.field.to_string()).as_deref(), wrong, "{json}");
        };
        check(r#"{"cron":"0 9 * * *"}"#, None);
        check(r#"{"every_ms":1000}"#, None);
        check(r#"{}"#, Some("cron"));
        check(r#"{"cron":"0 9 * * *","every_ms":1000}"#, Some("every_ms"));
        check(r#"{"every_ms":999}"#, Some("every_ms"));
        check(r#"{"every_ms":1e30}"#, Some("every_ms"));
        check(r#"{"cron":"moon"}"#, Some("cron"));
        check(r#"{"cron":"0 0 30 2 *"}"#, Some("cron"));
        check(r#"{"cron":"0 0 * 2 MON#5"}"#, None);
        check(r#"{"cron":"@daily","start_at":"9999-12-31T23:59:59Z"}"#, Some("cron"));
        check(r#"{"cron":"@daily","time_zone":"Europe/Atlantis"}"#, Some("time_zone"));
        check(r#"{"every_ms":1000,"time_zone":"Europe/Atlantis"}"#, Some("time_zone"));
        check(r#"{"every_ms":1000,"start_at":"2027-01-01T00:00:00Z","end_at":"2026-01-01T00:00:00Z"}"#, Some("end_at"));
        check(r#"{"every_ms":1000,"end_at":"2026-01-01T00:00:00Z"}"#, None);
        check(r#"{"every_ms":1000,"catch_up_max":0}"#, Some("catch_up_max"));
        check(r#"{"every_ms":1000,"catch_up_max":1001}"#, Some("catch_up_max"));
        check(r#"{"every_ms":1000,"jitter_ms":86400001}"#, Some("jitter_ms"));
        check(r#"{"every_ms":1000,"task":{"task_type":"a b"}}"#, Some("task.task_type"));
        check(r#"{"every_ms":1000,"task":{"task_type":"t","delay_ms":0}}"#, Some("task.delay_ms"));
        check(r#"{"every_ms":1000,"task":{"task_type":"t","run_at":"2027-01-01T00:00:00Z"}}"#, Some("task.run_at"));
        // What is about one task only.
        for (field, value) in [
            ("deadline_at", r#""2027-01-01T00:00:00Z""#),
            ("start_by_at", r#""2027-01-01T00:00:00Z""#),
            ("depends_on", r#"["01a3185d-8dcf-7ed6-a6a1-7f96626f21f2"]"#),
            ("on_dependency_failure", r#""run""#),
            ("ref", r#""a""#),
            ("weight", "2"),
            ("workflow", r#"{"chain":[{"task_type":"t"}]}"#),
            ("unique", r#"{"key":"k"}"#),
            ("gather", r#"{"key":"k","max_count":2}"#),
        ] {
            let json = format!(r#"{{"every_ms":1000,"task":{{"task_type":"t","{field}":{value}}}}}"#);
            check(&json, Some(&format!("task.{field}")));
        }
        check(r#"{"every_ms":1000,"task":{"task_type":"t","deadline_ms":5,"start_by_ms":5}}"#, None);
        // Whenever that is set.
        let within = |start: &str, end: &str| {
            format!(r#"{{"cron":"0 0 1 1 *","start_at":"{start}T00:00:00Z","end_at":"{end}T00:00:00Z"}}"#)
        };
        check(&within("2027-01-02", "2027-12-31"), Some("end_at"));
        check(&within("2020-01-02", "2020-12-31"), Some("end_at"));
        check(&within("2027-01-01", "2027-01-01"), None);
        check(&within("2020-01-02", "2021-01-01"), None);
        let large = format!(r#"{{"every_ms":1000,"task":{{"task_type":"t","payload":"{}"}}}}"#, "x".repeat(16 << 10));
        check(&large, Some("task.payload"));
    }

    #[test]
    fn what_is_missed_and_what_is_caught_up() {
        let seconds = |plan: &Plan| {
            let of = |at: &Timestamp| (at.as_millis() - self::at(NOW).as_millis()) / 1_000;
            (plan.missed.as_ref().map(of), plan.make.iter().map(of).collect::<Vec<_>>())
        };
        let check = |catch_up: &str, every: u64, after_ms: u64, expected: (Option<i64>, &[i64])| {
            let json = format!(r#"{{"every_ms":{every},"task":{{"task_type":"t"}},{catch_up}}}"#);
            let schedule = Schedule::set(spec(&json), None, 1 << 20, at(NOW)).unwrap();
            let (missed, make) = seconds(&schedule.plan(at(NOW).plus_millis(after_ms)));
            assert_eq!((missed, make.as_slice()), expected, "{json} {after_ms}");
        };
        let (none, last) = (r#""catch_up":"none""#, r#""catch_up":"last""#);
        let all = r#""catch_up":"all","catch_up_max":3"#;
        for catch_up in [none, last, all] {
            check(catch_up, 60_000, 59_999, (None, &[]));
            check(catch_up, 60_000, 60_000, (None, &[60]));
            check(catch_up, 60_000, 64_999, (None, &[60]));
            // The hub was there, and a little late.
            check(catch_up, 1_000, 4_999, (None, &[1, 2, 3, 4]));
        }
        check(none, 60_000, 65_000, (Some(60), &[]));
        check(last, 60_000, 65_000, (None, &[60]));
        check(last, 60_000, 605_000, (Some(540), &[600]));
        check(last, 60_000, 604_999, (Some(540), &[600]));
        check(all, 60_000, 605_000, (Some(420), &[480, 540, 600]));
        check(all, 60_000, 601_000, (Some(360), &[420, 480, 540, 600]));
        check(none, 1_000, 60_500, (Some(55), &[56, 57, 58, 59, 60]));
        check(last, 1_000, 60_500, (Some(55), &[56, 57, 58, 59, 60]));
    }

    #[test]
    fn what_is_set_anew_goes_on_or_begins_anew() {
        let set = |json: &str, known: Option<&Schedule>, now: &str| {
            Schedule::set(spec(&json.replace('}', r#","task":{"task_type":"t"}}"#)), known, 1 << 20, at(now)).unwrap()
        };
        let every = set(r#"{"every_ms":60000}"#, None, NOW);
        assert_eq!(every.next(), Some(at("2026-12-01T12:01:00Z")));
        let later = "2026-12-01T12:00:30Z";
        let again = set(r#"{"every_ms":60000,"overlap":"skip"}"#, Some(&every), later);
        assert_eq!(again.next(), Some(at("2026-12-01T12:01:00Z")), "nothing of its times is different");
        let other = set(r#"{"every_ms":30000}"#, Some(&every), later);
        assert_eq!(other.next(), Some(at("2026-12-01T12:01:00Z")), "it counts from now");
        let zoned = set(r#"{"every_ms":60000,"time_zone":"Europe/Berlin"}"#, Some(&every), later);
        assert_eq!(zoned.next(), Some(at("2026-12-01T12:01:30Z")));
        // The clock was set back: what was dealt with stays so.
        let done = every.with(ScheduleState { done_until: at("2026-12-01T13:00:00Z"), ..every.state.clone() });
        assert_eq!(set(r#"{"every_ms":60000}"#, Some(&done), later).next(), Some(at("2026-12-01T13:01:00Z")));
        assert!(set(r#"{"every_ms":30000}"#, Some(&done), later).next() > Some(at("2026-12-01T13:00:00Z")));
        // It begins at its start, and ends with its end, both included.
        let json = r#"{"every_ms":60000,"start_at":"2027-01-01T00:00:00Z","end_at":"2027-01-01T00:02:00Z"}"#;
        let times = ["2027-01-01T00:00:00Z", "2027-01-01T00:01:00Z", "2027-01-01T00:02:00Z"].map(at);
        assert_eq!(set(json, None, NOW).upcoming(), times);
        assert_eq!(set(json, None, NOW).plan(at("2028-01-01T00:00:00Z")).make, [times[2]]);
        assert_eq!(set(&json.replace("60000", "60000,\"paused\":true"), None, NOW).upcoming(), []);
        let began = r#"{"every_ms":60000,"start_at":"2026-12-01T11:00:10Z"}"#;
        assert_eq!(set(began, None, NOW).next(), Some(at("2026-12-01T12:00:10Z")), "what was before is not caught up");
        // What would have been due after its end is not, once it goes on.
        let ended = set(r#"{"every_ms":60000,"end_at":"2026-12-01T12:00:00Z"}"#, Some(&every), later);
        assert_eq!(ended.next(), None);
        let on = set(r#"{"every_ms":60000}"#, Some(&ended), "2026-12-01T14:00:30Z");
        assert_eq!(on.next(), Some(at("2026-12-01T14:01:00Z")));
    }

    #[test]
    fn jitter_is_a_schedules_own() {
        let json = r#"{"every_ms":60000,"jitter_ms":9,"task":{"task_type":"t"}}"#;
        let schedule = Schedule::set(spec(json), None, 1 << 20, at(NOW)).unwrap();
        let mut counts = [0; 10];
        for n in 0..10_000 {
            counts[schedule.delay_ms(&Name::new(&format!("s{n}"))) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
