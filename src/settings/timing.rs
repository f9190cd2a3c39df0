//! Due times: when a schedule is due, as moments.
//!
//! Two rules are known. *Every so long* counts from a moment, and is arithmetic. *Cron* matches what calendars and clocks on
//! the wall show in a time zone, and that is not the same as time: a clock that is set forward leaves out some of the day, and
//! one that is set back shows some of it twice. Each civil time that matches is due once:
//!
//! * what is left out is due at the end of the gap, when the clock has passed it;
//! * what is shown twice is due the first time.
//!
//! So a civil time stands for the first moment at which the clock shows it or a later one; the later the civil time, the
//! later the moment, and those of one gap fall together, and are one due time. To go on after a moment, it is enough to look
//! from the latest that the clock has shown up to then, also where it was set back since.
//!
//! The rules of time zones are part of the program: all of this is a function of its arguments, the same on every machine
//! and over restarts, which a database that the system changes under a running hub would not be.

use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::cron::Cron;
use crate::task::Timestamp;

/// No clock is set by more than this at once, and none is set twice within it.
const CLOCK_CHANGE_MS: i64 = 2 * 86_400_000;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The time zone of this IANA name, whatever the case of its letters, with the name as it is written.
pub(super) fn zone(name: &str) -> Option<(TimeZone, String)> {
    let zone = ZONES.get(name).ok().filter(|zone| !zone.is_unknown())?;
    let name = zone.iana_name()?.to_owned();
    Some((zone, name))
}

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Timing {
    Cron {
        cron: Cron,
        zone: TimeZone,
    },
    /// So many milliseconds after `from`, and after each other; `from` is a due time too.
    Every {
        ms: u64,
        from: Timestamp,
    },
}

impl Timing {
    /// The first due time after a moment; `None` if there is none.
    pub(super) fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        match self {
            Timing::Every { ms, from } if moment < *from => Some(*from).filter(|_| *ms > 0),
            Timing::Every { ms, from } => {
                let times = moment.millis_since(*from).checked_div(*ms)? + 1;
                let due = from.as_millis().checked_add_unsigned(times.checked_mul(*ms)?)?;
                Some(Timestamp::from_millis(due)).filter(|at| at.as_millis() == due)
            }
            Timing::Cron { cron, zone } => {
                let now = jiff::Timestamp::from_millisecond(moment.as_millis()).ok()?;
                let from = match set_back(zone, now) {
                    Some(latest) => latest,
                    None => shown(zone, now).checked_add(jiff::Span::new().seconds(1)).ok()?,
                };
                Some(first_shown(zone, cron.next(from)?)).flatten()
            }
        }
    }

    /// The last due time up to a moment; `None` if there is none.
    pub(super) fn until(&self, moment: Timestamp) -> Option<Timestamp> {
        match self {
            Timing::Every { from, .. } if moment < *from => None,
            Timing::Every { ms, from } => {
                let into = moment.millis_since(*from).checked_rem(*ms)?;
                Some(Timestamp::from_millis(moment.as_millis() - into as i64))
            }
            Timing::Cron { cron, zone } => {
                let now = jiff::Timestamp::from_millisecond(moment.as_millis()).ok()?;
                let until = match set_back(zone, now) {
                    Some(latest) => latest.checked_sub(jiff::Span::new().seconds(1)).ok()?,
                    None => shown(zone, now),
                };
                let due = first_shown(zone, cron.previous(until)?)?;
                (due.as_millis() > 0).then_some(due)
            }
        }
    }
}

/// What a clock on the wall shows, to the second.
fn shown(zone: &TimeZone, moment: jiff::Timestamp) -> DateTime {
    let shown = zone.to_datetime(moment);
    shown.with().subsec_nanosecond(0).build().unwrap_or(shown)
}

/// Where the clock was set back lately and does not yet show again what it had come to: the first civil time that it never
/// showed.
fn set_back(zone: &TimeZone, moment: jiff::Timestamp) -> Option<DateTime> {
    let next = moment.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
    let change = zone.preceding(next).next()?.timestamp();
    if moment.as_millisecond() - change.as_millisecond() > CLOCK_CHANGE_MS {
        return None;
    }
    let before = change.checked_sub(jiff::SignedDuration::from_nanos(1)).ok()?;
    let latest = zone.to_offset(before).to_datetime(change);
    (zone.to_datetime(moment) < latest).then_some(latest)
}

/// The first moment at which the clock shows a civil time or a later one.
fn first_shown(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    let moment = match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok()?,
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok()?,
        AmbiguousOffset::Gap { before, after } => {
            // What the clock is set to by the change would show it earlier than the change.
            let early = after.to_timestamp(civil).ok()?;
            let change = zone.following(early).find(|change| change.offset() == after).map(|change| change.timestamp());
            let late = before.to_timestamp(civil).ok()?;
            change.filter(|change| *change <= late).unwrap_or(late)
        }
    };
    let millis = moment.as_millisecond();
    Some(Timestamp::from_millis(millis)).filter(|at| at.as_millis() == millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(pattern: &str, name: &str) -> Timing {
        Timing::Cron { cron: Cron::parse(pattern).unwrap(), zone: zone(name).unwrap().0 }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    /// The due times after a moment, and the same backwards.
    fn check(timing: &Timing, after: &str, expected: &[&str]) {
        let mut moment = at(after);
        for expected in expected {
            let due = timing.after(moment).unwrap();
            assert_eq!(due.to_string(), at(expected).to_string(), "{timing:?} after {moment}");
            moment = due;
        }
        for pair in expected.windows(2).rev() {
            let before = Timestamp::from_millis(at(pair[1]).as_millis() - 1);
            assert_eq!(
                timing.until(before).unwrap().to_string(),
                at(pair[0]).to_string(),
                "{timing:?} before {before}"
            );
            assert_eq!(timing.until(at(pair[0])), Some(at(pair[0])));
        }
    }

    #[test]
    fn a_day_that_is_an_hour_short() {
        // Berlin: 2027-03-28, 02:00 becomes 03:00, at 01:00 in UTC.
        check(
            &cron("30 2 * * *", "Europe/Berlin"),
            "2027-03-27T00:00:00Z",
            &["2027-03-27T02:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"],
        );
        // All that is left out is due together, also with what is due at the end itself, and is due once.
        check(
            &cron("*/15 * * * *", "Europe/Berlin"),
            "2027-03-28T00:29:59Z",
            &[
                "2027-03-28T01:30:00+01:00",
                "2027-03-28T01:45:00+01:00",
                "2027-03-28T03:00:00+02:00",
                "2027-03-28T03:15:00+02:00",
            ],
        );
        // New York: 2027-03-14, 02:00 becomes 03:00, at 07:00 in UTC.
        check(
            &cron("0 0 2 * * *", "America/New_York"),
            "2027-03-13T00:00:00Z",
            &["2027-03-13T02:00:00-05:00", "2027-03-14T03:00:00-04:00", "2027-03-15T02:00:00-04:00"],
        );
        // Lord Howe: 2027-10-03, 02:00 becomes 02:30, half an hour only.
        check(
            &cron("15 2 * * *", "Australia/Lord_Howe"),
            "2027-10-02T00:00:00Z",
            &["2027-10-03T02:30:00+11:00", "2027-10-04T02:15:00+11:00"],
        );
        check(
            &cron("45 2 * * *", "Australia/Lord_Howe"),
            "2027-10-02T00:00:00Z",
            &["2027-10-03T02:45:00+11:00", "2027-10-04T02:45:00+11:00"],
        );
        // Beirut changes at midnight: a day without a 00:30.
        check(
            &cron("30 0 * * *", "Asia/Beirut"),
            "2027-03-27T00:00:00+02:00",
            &["2027-03-27T00:30:00+02:00", "2027-03-28T01:00:00+03:00", "2027-03-29T00:30:00+03:00"],
        );
        // Samoa left out a whole day, 2011-12-30.
        check(
            &cron("0 12 * * *", "Pacific/Apia"),
            "2011-12-29T00:00:00-10:00",
            &["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"],
        );
    }

    #[test]
    fn a_day_that_is_an_hour_long() {
        // Berlin: 2027-10-31, 03:00 becomes 02:00, at 01:00 in UTC.
        check(
            &cron("30 2 * * *", "Europe/Berlin"),
            "2027-10-30T00:00:00Z",
            &["2027-10-30T02:30:00+02:00", "2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"],
        );
        // What is shown twice is due the first time only, from wherever one looks.
        let often = cron("*/20 * * * *", "Europe/Berlin");
        check(&often, "2027-10-31T02:30:00+02:00", &["2027-10-31T02:40:00+02:00", "2027-10-31T03:00:00+01:00"]);
        for within in ["02:00:00", "02:19:59", "02:59:59"] {
            check(&often, &format!("2027-10-31T{within}+01:00"), &["2027-10-31T03:00:00+01:00"]);
            let moment = at(&format!("2027-10-31T{within}+01:00"));
            assert_eq!(often.until(moment), Some(at("2027-10-31T02:40:00+02:00")));
        }
        // New York: 2027-11-07, 02:00 becomes 01:00, at 06:00 in UTC.
        check(
            &cron("0 1 * * *", "America/New_York"),
            "2027-11-06T12:00:00Z",
            &["2027-11-07T01:00:00-04:00", "2027-11-08T01:00:00-05:00"],
        );
        // Lord Howe: 2027-04-04, 02:00 becomes 01:30.
        check(
            &cron("45 1 * * *", "Australia/Lord_Howe"),
            "2027-04-03T00:00:00Z",
            &["2027-04-04T01:45:00+11:00", "2027-04-05T01:45:00+10:30"],
        );
        // In UTC no clock is set.
        check(&cron("@hourly", "UTC"), "2027-10-31T00:00:00.001Z", &["2027-10-31T01:00:00Z", "2027-10-31T02:00:00Z"]);
    }

    /// Whatever the zone, from any moment: due times grow, none is left out between two, and back is the way forward.
    #[test]
    fn forward_and_back_agree_in_every_zone() {
        let mut random = fastrand::Rng::with_seed(3);
        let names: Vec<String> = ZONES.available().map(|name| name.as_str().to_owned()).collect();
        assert!(names.len() > 400, "{}", names.len());
        for name in &names {
            let Some((of_name, _)) = zone(name) else { continue };
            // About a change of the clock, where there is one.
            let begin = jiff::Timestamp::from_second(random.i64(1_700_000_000..1_900_000_000)).unwrap();
            let change = of_name.following(begin).next().map_or(begin, |change| change.timestamp());
            for pattern in ["*/7 * * * *", "0 0 * * *", "30 */2 * * *", "5 5 1,2,3 * * *"] {
                let timing = cron(pattern, name);
                let mut moment = Timestamp::from_millis(change.as_millisecond() - random.i64(0..90_000_000));
                for _ in 0..40 {
                    let due = timing.after(moment).unwrap();
                    assert!(due > moment, "{name} {pattern} {moment}");
                    let between = moment.as_millis() + random.i64(0..due.as_millis() - moment.as_millis());
                    assert_eq!(timing.after(Timestamp::from_millis(between)), Some(due), "{name} {pattern} {between}");
                    assert_eq!(timing.until(due), Some(due), "{name} {pattern}");
                    if let Some(earlier) = timing.until(Timestamp::from_millis(due.as_millis() - 1)) {
                        assert!(earlier <= moment, "{name} {pattern}: {earlier} between {moment} and {due}");
                    }
                    moment = due;
                }
            }
        }
    }

    #[test]
    fn so_often_counts_from_a_moment() {
        let every = Timing::Every { ms: 1_500, from: at("2027-01-01T00:00:00.250Z") };
        check(&every, "2026-01-01T00:00:00Z", &["2027-01-01T00:00:00.250Z", "2027-01-01T00:00:01.750Z"]);
        check(&every, "2027-01-01T00:00:01.750Z", &["2027-01-01T00:00:03.250Z"]);
        assert_eq!(every.until(at("2027-01-01T00:00:00.249Z")), None);
        let last = Timing::Every { ms: u64::MAX, from: at("2027-01-01T00:00:00Z") };
        assert_eq!(last.after(at("2027-01-01T00:00:00Z")), None, "there is none after the year 9999");
        assert_eq!(Timing::Every { ms: 0, from: at("2027-01-01T00:00:00Z") }.after(at("2028-01-01T00:00:00Z")), None);
    }

    #[test]
    fn zones_are_known_by_name() {
        assert_eq!(zone("europe/BERLIN").unwrap().1, "Europe/Berlin");
        assert_eq!(zone("UTC").unwrap().1, "UTC");
        for unknown in ["", "Europe/Atlantis", "Etc/Unknown", "CET-1CEST", "../../etc/passwd", "+01:00"] {
            assert!(zone(unknown).is_none(), "{unknown}");
        }
    }
}
