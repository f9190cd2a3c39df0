//! What is due when. Every rule that waits for a time is an [`Alarm`], and an alarm is set for at most one time.
//!
//! A time is a time of one clock ([`Clock`](super::Clock)): people name moments of the wall clock, a wait of so long is
//! counted on the monotonic clock, and silence is judged by the time that the hub lived through.

use std::collections::{BTreeSet, HashMap};

use crate::task::{Name, TaskId, Timestamp};

use super::Now;
use super::rates::WindowId;

/// A rule that waits for a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A scheduled task becomes ready.
    Due(TaskId),
    /// A worker may have fallen silent, or its grace may be over.
    Worker(Name),
    /// An attempt has taken as long as it may.
    Timeout(TaskId),
    /// An attempt may have reported nothing for too long.
    Silence(TaskId),
    /// An attempt may have ignored for too long that it was asked to stop.
    CancelGrace(TaskId),
    /// A task is not final in time.
    Deadline(TaskId),
    /// A task was not handed out in time.
    StartBy(TaskId),
    /// Something may not count any more under a rate.
    Rate(WindowId),
    /// A ready task has waited so long that there should be a worker for it.
    Unserved(TaskId),
    /// A schedule is due.
    Schedule(Name),
}

/// A time on one of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Wall(Timestamp),
    Mono(u64),
    Lived(u64),
}

impl At {
    /// When a wait is over, where it is one: no record knows.
    pub(super) fn wait_ends(self) -> Option<u64> {
        if let At::Mono(ends) = self { Some(ends) } else { None }
    }
}

/// All alarms that are set.
#[derive(Default)]
pub(super) struct Timers {
    set: HashMap<Alarm, At>,
    wall: BTreeSet<(Timestamp, Alarm)>,
    mono: BTreeSet<(u64, Alarm)>,
    lived: BTreeSet<(u64, Alarm)>,
}

impl Timers {
    /// Sets an alarm, in place of the time it was set for.
    pub(super) fn set(&mut self, alarm: Alarm, at: At) {
        self.clear(&alarm);
        match at {
            At::Wall(at) => self.wall.insert((at, alarm.clone())),
            At::Mono(at) => self.mono.insert((at, alarm.clone())),
            At::Lived(at) => self.lived.insert((at, alarm.clone())),
        };
        self.set.insert(alarm, at);
    }

    /// Takes an alarm back. Answers what it was set for.
    pub(super) fn clear(&mut self, alarm: &Alarm) -> Option<At> {
        let (alarm, at) = self.set.remove_entry(alarm)?;
        match at {
            At::Wall(at) => self.wall.remove(&(at, alarm)),
            At::Mono(at) => self.mono.remove(&(at, alarm)),
            At::Lived(at) => self.lived.remove(&(at, alarm)),
        };
        Some(at)
    }

    /// What an alarm is set for.
    pub(super) fn at(&self, alarm: &Alarm) -> Option<At> {
        self.set.get(alarm).copied()
    }

    /// The first alarm of the wall clock or the monotonic clock that is due. It stays set.
    pub(super) fn due(&self, now: Now) -> Option<Alarm> {
        let wall = self.wall.first().filter(|(at, _)| *at <= now.wall).map(|(_, alarm)| alarm);
        wall.or_else(|| self.mono.first().filter(|(at, _)| *at <= now.mono).map(|(_, alarm)| alarm)).cloned()
    }

    /// The first alarm of lived time that is due. It stays set.
    pub(super) fn due_to_judge(&self, now: Now) -> Option<Alarm> {
        self.lived.first().filter(|(at, _)| *at <= now.lived).map(|(_, alarm)| alarm.clone())
    }

    /// How many milliseconds until something is due; `None` if nothing ever is.
    pub(super) fn next_in(&self, now: Now) -> Option<u64> {
        let wall = self.wall.first().map(|(at, _)| at.millis_since(now.wall));
        let mono = self.mono.first().map(|(at, _)| at.saturating_sub(now.mono));
        let lived = self.lived.first().map(|(at, _)| at.saturating_sub(now.lived));
        wall.into_iter().chain(mono).chain(lived).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_has_one_time_on_one_clock() {
        let mut timers = Timers::default();
        let alarm = Alarm::Due(TaskId::from_bytes([1; 16]));
        let now = |wall, mono, lived| Now { wall: Timestamp::from_millis(wall), at: Timestamp::default(), mono, lived };
        timers.set(alarm.clone(), At::Wall(Timestamp::from_millis(10)));
        timers.set(alarm.clone(), At::Mono(20));
        timers.set(Alarm::Timeout(TaskId::from_bytes([1; 16])), At::Lived(30));
        assert_eq!(timers.due(now(1_000, 19, 1_000)), None, "a new time replaces the old one, also on another clock");
        assert_eq!(timers.next_in(now(1_000, 19, 0)), Some(1));
        assert_eq!(timers.due(now(0, 20, 0)), Some(alarm.clone()));
        assert_eq!(timers.due_to_judge(now(0, 20, 29)), None);
        assert!(timers.due_to_judge(now(0, 0, 30)).is_some());
        assert_eq!((timers.clear(&alarm), timers.clear(&alarm)), (Some(At::Mono(20)), None));
        assert_eq!(timers.next_in(now(0, 20, 0)), Some(30));
    }
}
