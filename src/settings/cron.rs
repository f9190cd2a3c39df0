//! Cron patterns: on which days of the calendar, and at which times of the day.
//!
//! A pattern is read by `croner`, and kept here as bit masks: one bit a second, minute, hour and month, and for the days one
//! mask for each kind of month there is (four lengths, seven weekdays of its first day), made by asking `croner` about each
//! day of each. That has room for everything a day field can say (`L`, `#`, `W`, day of month or day of week), takes 150
//! bytes instead of the library's 6,000, and finds the next or the previous time in a few steps, whatever lies between.
//!
//! Times here are civil: what a calendar and a clock on the wall show. Time zones are [`timing`](super::timing)'s.

use croner::parser::{CronParser, Seconds, Year};
use croner::{CronPattern, Weekday};
use jiff::civil::{self, Date, DateTime, Time};

/// The longest pattern, in bytes.
pub const CRON_BYTES_MAX: usize = 256;

/// How far a time is looked for. The rarest date, the 29th of February on one weekday, comes after 40 years at the latest: a
/// pattern that matches nothing in so long never does.
const MONTHS_MAX: usize = 41 * 12;

/// One year and month of each length.
const MONTHS: [(i32, u32); 4] = [(2023, 2), (2024, 2), (2023, 4), (2023, 1)];
/// The shortest month.
const DAYS_MIN: u32 = 28;

/// A pattern that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u32,
    months: u16,
    /// By the length of a month and the weekday of its first day: a bit for each of its days, from bit 1 on.
    days: [[u32; 7]; 4],
}

impl Cron {
    /// Reads a pattern of five fields, or of six with the seconds first, or a word such as `@daily`. Fails with what is
    /// wrong, to be read after the field's name.
    pub fn parse(text: &str) -> Result<Cron, String> {
        if text.len() > CRON_BYTES_MAX {
            return Err(format!("must be at most {CRON_BYTES_MAX} bytes"));
        }
        // The library would take it as "both must match", which no other cron knows.
        if text.contains('+') {
            return Err("must not contain +".into());
        }
        if text.split_whitespace().flat_map(|field| field.split(',')).any(str::is_empty) {
            return Err("must not have a comma beside which nothing stands".into());
        }
        let text = if text.trim().eq_ignore_ascii_case("@midnight") { "@daily" } else { text };
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|why| format!("must be a cron pattern: {why}"))?.pattern;
        Ok(Cron {
            seconds: mask(pattern.seconds.values()),
            minutes: mask(pattern.minutes.values()),
            hours: mask(pattern.hours.values()) as u32,
            months: mask(pattern.months.values()) as u16,
            days: MONTHS.map(|(year, month)| {
                std::array::from_fn(|first| {
                    let of_month = (1..=31).filter(|day| day_matches(&pattern, (year, month, *day), first as u32));
                    mask(of_month.map(|day| day as u16)) as u32
                })
            }),
        })
    }

    /// The first time that matches, from this second on; `None` if there is none.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        let mut month = from.date().first_of_month();
        for _ in 0..=MONTHS_MAX {
            let mut days = self.days_of(month);
            if month.month() == from.month() && month.year() == from.year() {
                days &= !0 << from.day();
                // Of the first day only what is not over.
                if days & 1 << from.day() != 0 {
                    if let Some(time) = self.next_time(from.time()) {
                        return Some(from.date().to_datetime(time));
                    }
                    days &= !(1 << from.day());
                }
            }
            if let Some(day) = lowest(days.into()) {
                return Some(with_day(month, day)?.to_datetime(self.next_time(Time::midnight())?));
            }
            month = month.checked_add(jiff::Span::new().months(1)).ok()?;
        }
        None
    }

    /// The last time that matches, up to this second; `None` if there is none.
    pub(super) fn previous(&self, until: DateTime) -> Option<DateTime> {
        let mut month = until.date().first_of_month();
        for _ in 0..=MONTHS_MAX {
            let mut days = self.days_of(month);
            if month.month() == until.month() && month.year() == until.year() {
                days &= !(!1 << until.day());
                if days & 1 << until.day() != 0 {
                    if let Some(time) = self.previous_time(until.time()) {
                        return Some(until.date().to_datetime(time));
                    }
                    days &= !(1 << until.day());
                }
            }
            if let Some(day) = highest(days.into()) {
                return Some(with_day(month, day)?.to_datetime(self.previous_time(civil::time(23, 59, 59, 0))?));
            }
            month = month.checked_sub(jiff::Span::new().months(1)).ok()?;
        }
        None
    }

    /// The days of a month that match.
    fn days_of(&self, first: Date) -> u32 {
        if self.months & 1 << first.month() == 0 {
            return 0;
        }
        let length = first.days_in_month() as usize - DAYS_MIN as usize;
        self.days[length][first.weekday().to_sunday_zero_offset() as usize]
    }

    fn next_time(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour() as u32, from.minute() as u32, from.second() as u32);
        let hours = u64::from(self.hours);
        if hours & 1 << hour != 0 {
            if self.minutes & 1 << minute != 0
                && let Some(second) = lowest(self.seconds & !0 << second)
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = lowest(self.minutes & !1 << minute) {
                return time(hour, minute, lowest(self.seconds)?);
            }
        }
        time(lowest(hours & !1 << hour)?, lowest(self.minutes)?, lowest(self.seconds)?)
    }

    fn previous_time(&self, until: Time) -> Option<Time> {
        let (hour, minute, second) = (until.hour() as u32, until.minute() as u32, until.second() as u32);
        let hours = u64::from(self.hours);
        if hours & 1 << hour != 0 {
            if self.minutes & 1 << minute != 0
                && let Some(second) = highest(self.seconds & !(!1 << second))
            {
                return time(hour, minute, second);
            }
            if let Some(minute) = highest(self.minutes & !(!0 << minute)) {
                return time(hour, minute, highest(self.seconds)?);
            }
        }
        time(highest(hours & !(!0 << hour))?, highest(self.minutes)?, highest(self.seconds)?)
    }
}

fn mask(values: impl IntoIterator<Item = u16>) -> u64 {
    values.into_iter().fold(0, |mask, value| mask | 1 << value)
}

/// Whether a day matches, in a month of this length that begins on this weekday.
fn day_matches(pattern: &CronPattern, (year, month, day): (i32, u32, u32), first: u32) -> bool {
    let weekday = Weekday::from_days_from_sunday((first + day - 1) % 7);
    // Of a day that the month does not have it says that there is none.
    pattern.day_match(year, month, day, weekday).unwrap_or(false)
}

fn lowest(mask: u64) -> Option<u32> {
    (mask != 0).then(|| mask.trailing_zeros())
}

fn highest(mask: u64) -> Option<u32> {
    mask.checked_ilog2()
}

fn with_day(first: Date, day: u32) -> Option<Date> {
    Date::new(first.year(), first.month(), day as i8).ok()
}

fn time(hour: u32, minute: u32, second: u32) -> Option<Time> {
    Time::new(hour as i8, minute as i8, second as i8, 0).ok()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn at(text: &str) -> DateTime {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_and_when_they_match() {
        let check = |pattern: &str, from: &str, expected: &[&str]| {
            let cron = Cron::parse(pattern).unwrap();
            let mut from = at(from);
            for expected in expected {
                let next = cron.next(from).unwrap();
                assert_eq!(next, at(expected), "{pattern}");
                from = next.checked_add(jiff::Span::new().seconds(1)).unwrap();
            }
            // And back again.
            let mut until = at(expected.last().unwrap());
            for expected in expected.iter().rev() {
                let previous = cron.previous(until).unwrap();
                assert_eq!(previous, at(expected), "{pattern}, backwards");
                until = previous.checked_sub(jiff::Span::new().seconds(1)).unwrap();
            }
        };
        // 2026-11-30 is a Monday.
        check("0 9 * * MON-FRI", "2026-12-03T10:00", &["2026-12-04T09:00", "2026-12-07T09:00", "2026-12-08T09:00"]);
        check("*/20 * * * *", "2026-12-31T23:30", &["2026-12-31T23:40", "2027-01-01T00:00", "2027-01-01T00:20"]);
        check("30 0 9 * * *", "2026-12-31T09:00:30", &["2026-12-31T09:00:30", "2027-01-01T09:00:30"]);
        check("15-45/15 * * * * *", "2026-12-31T23:59:40", &["2026-12-31T23:59:45", "2027-01-01T00:00:15"]);
        // The last of February, of a leap year and of others.
        check("0 0 L * *", "2028-01-31T00:01", &["2028-02-29T00:00", "2028-03-31T00:00", "2028-04-30T00:00"]);
        check("0 0 L FEB *", "2026-01-01T00:00", &["2026-02-28T00:00", "2027-02-28T00:00", "2028-02-29T00:00"]);
        check("0 0 29 2 *", "2097-01-01T00:00", &["2104-02-29T00:00", "2108-02-29T00:00"]);
        // The second Tuesday, the last Friday, the weekday nearest to the 15th.
        check("0 0 * * TUE#2", "2026-12-01T00:00", &["2026-12-08T00:00", "2027-01-12T00:00"]);
        check("0 0 * * 5L", "2026-12-01T00:00", &["2026-12-25T00:00", "2027-01-29T00:00"]);
        check("0 0 15W * *", "2026-11-01T00:00", &["2026-11-16T00:00", "2026-12-15T00:00", "2027-01-15T00:00"]);
        // Day of month and day of week: either.
        check("0 0 13 * FRI", "2026-12-10T00:00", &["2026-12-11T00:00", "2026-12-13T00:00", "2026-12-18T00:00"]);
        // 0 and 7 are Sunday.
        check("0 0 * * 0", "2026-12-01T00:00", &["2026-12-06T00:00", "2026-12-13T00:00"]);
        check("0 0 * * 7", "2026-12-01T00:00", &["2026-12-06T00:00", "2026-12-13T00:00"]);
        check("0 0 * * SAT-SUN", "2026-12-01T00:00", &["2026-12-05T00:00", "2026-12-06T00:00", "2026-12-12T00:00"]);
        check("0 0 ? jan,Jul *", "2026-07-31T00:00", &["2026-07-31T00:00", "2027-01-01T00:00"]);
        check("@hourly", "2026-12-31T23:00:01", &["2027-01-01T00:00", "2027-01-01T01:00"]);
        check("@daily", "2026-12-31T00:00:01", &["2027-01-01T00:00", "2027-01-02T00:00"]);
        check("@midnight", "2026-12-31T00:00:01", &["2027-01-01T00:00"]);
        check("@weekly", "2026-12-31T00:00:01", &["2027-01-03T00:00", "2027-01-10T00:00"]);
        check("@monthly", "2026-12-31T00:00:01", &["2027-01-01T00:00", "2027-02-01T00:00"]);
        check("@yearly", "2026-12-31T00:00:01", &["2027-01-01T00:00", "2028-01-01T00:00"]);
    }

    #[test]
    fn what_is_no_pattern_or_never_matches() {
        for wrong in [
            "",
            " ",
            "* * * *",
            "* * * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "1.5 * * * *",
            "@never",
            "0 0 @daily",
            "0 0 * * +MON",
            "0 0 1 * MONDAY",
            "0 0 * * MON#6",
            "L * * * *",
            ", * * * *",
            "0 0 , * *",
            "0,,1 * * * *",
            ",0 * * * *",
            "0 0 * * MON,",
            "5/15 * * * *",
            "0 9 * * FRI-MON",
            "H * * * *",
            "@reboot",
            "@every 5m",
            "99999999999 * * * *",
            "ß * * * *",
            &"1,".repeat(200),
        ] {
            assert!(Cron::parse(wrong).is_err(), "{wrong}");
        }
        for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 * * L"] {
            let cron = Cron::parse(never).unwrap();
            assert_eq!(
                (cron.next(at("2026-12-01T00:00")), cron.previous(at("2026-12-01T00:00"))),
                (None, None),
                "{never}"
            );
        }
        let cron = Cron::parse("@daily").unwrap();
        assert_eq!(cron.next(at("9999-12-31T00:00:01")), None, "after the last day there is none");
        assert_eq!(cron.previous(DateTime::MIN), Some(DateTime::MIN));
    }

    /// The rarest date is the 29th of February on one weekday. Calendars repeat after 400 years.
    #[test]
    fn whatever_comes_at_all_is_found_from_anywhere() {
        for weekday in 0..7 {
            let cron = Cron::parse(&format!("0 0 * 2 {weekday}#5")).unwrap();
            for year in 2000..2400 {
                let from = civil::date(year, 3, 1).to_datetime(Time::midnight());
                let next = cron.next(from).unwrap();
                assert_eq!((next.month(), next.day()), (2, 29));
                assert!(next.year() - year <= 40);
                assert!(cron.previous(from).is_some());
            }
        }
    }

    /// Patterns with whatever a field may hold, against the library's own search.
    #[test]
    fn it_agrees_with_the_library() {
        let mut random = fastrand::Rng::with_seed(7);
        let field = |random: &mut fastrand::Rng, min: u32, max: u32, special: &[&str]| {
            let number = |random: &mut fastrand::Rng| random.u32(min..=max).to_string();
            match random.u8(0..8) {
                0..=2 => "*".to_owned(),
                3 => format!("*/{}", random.u32(1..=max)),
                4 => {
                    let (a, b) = (random.u32(min..=max), random.u32(min..=max));
                    format!("{}-{}", a.min(b), a.max(b))
                }
                5 if !special.is_empty() => special[random.usize(0..special.len())].to_owned(),
                6 => format!("{},{}", number(random), number(random)),
                _ => number(random),
            }
        };
        let mut found = 0;
        for _ in 0..3_000 {
            let pattern = [
                field(&mut random, 0, 59, &[]),
                field(&mut random, 0, 59, &[]),
                field(&mut random, 0, 23, &[]),
                field(&mut random, 1, 31, &["L", "LW", "15W", "1W", "31W", "L,3"]),
                field(&mut random, 1, 12, &["JAN", "FEB-APR", "2"]),
                field(&mut random, 0, 7, &["MON#1", "FRI#5", "5L", "SUN", "7#2", "1-5"]),
            ]
            .join(" ");
            let (ours, theirs) = (Cron::parse(&pattern).unwrap(), croner::Cron::from_str(&pattern).unwrap());
            let from =
                at("2024-01-01T00:00").checked_add(jiff::Span::new().seconds(random.i64(0..126_230_400))).unwrap();
            let (next, previous) = (ours.next(from), ours.previous(from));
            // The library looks further than the last year that a calendar has.
            if next.is_some() && previous.is_some() {
                assert_eq!(next, theirs.find_next_occurrence(&from, true).ok(), "{pattern} from {from}");
                assert_eq!(previous, theirs.find_previous_occurrence(&from, true).ok(), "{pattern} until {from}");
                found += 1;
            }
        }
        assert!(found > 2_500, "{found}");
    }
}
