//! Reading RFC 3339, to the letter: what its grammar (section 5.6) does not say is no time, however plain its meaning.
//!
//! A calendar library reads more than that, each its own more: week dates, commas, offsets of 25 hours. What a hub takes
//! should not hang on which library it is built with.

use std::fmt;

use jiff::civil;

use super::Timestamp;

/// Why a text is no time of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    Malformed,
    /// It is a time, before 1970 or after 9999.
    OutOfRange,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeError::Malformed => "must be a time in RFC 3339, such as 2026-01-31T12:00:00Z",
            TimeError::OutOfRange => "must be from 1970-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z",
        })
    }
}

impl std::error::Error for TimeError {}

/// Reads `2026-01-31T12:00:00.25+01:00`. The letters may be small, and a space may stand for the `T`, as the RFC allows. A
/// leap second is the first moment of the next day; what is finer than a millisecond is dropped.
pub(super) fn parse(text: &str) -> Result<Timestamp, TimeError> {
    let mut rest = Rest(text.as_bytes());
    let day = (|| {
        let year = rest.number(4)?;
        rest.one_of(b"-")?;
        let month = rest.number(2)?;
        rest.one_of(b"-")?;
        civil::Date::new(year as i16, month as i8, rest.number(2)? as i8).ok()
    })();
    let of_day = (|| {
        rest.one_of(b"Tt ")?;
        let hour = rest.number(2).filter(|hour| *hour < 24)?;
        rest.one_of(b":")?;
        let minute = rest.number(2).filter(|minute| *minute < 60)?;
        rest.one_of(b":")?;
        let second = rest.number(2).filter(|second| *second <= 60)?;
        let millis = if rest.one_of(b".").is_some() { rest.millis()? } else { 0 };
        let offset = match rest.one_of(b"Zz+-")? {
            b'Z' | b'z' => 0,
            sign => {
                let hours = rest.number(2).filter(|hours| *hours < 24)?;
                rest.one_of(b":")?;
                let minutes = rest.number(2).filter(|minutes| *minutes < 60)?;
                (hours * 60 + minutes) * if sign == b'-' { -1 } else { 1 }
            }
        };
        let minute = hour * 60 + minute - offset;
        // A leap second is put in before midnight in UTC.
        if second == 60 && minute.rem_euclid(1_440) != 1_439 {
            return None;
        }
        let millis = if second == 60 { 0 } else { millis };
        rest.0.is_empty().then_some((minute * 60 + second) * 1_000 + millis)
    })();
    let (Some(day), Some(of_day)) = (day, of_day) else { return Err(TimeError::Malformed) };
    let days = day.duration_since(civil::date(1970, 1, 1)).as_hours() / 24;
    let millis = days * 86_400_000 + of_day;
    let time = Timestamp::from_millis(millis);
    if time.as_millis() == millis { Ok(time) } else { Err(TimeError::OutOfRange) }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        bytes.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// A number of exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        (0..digits).try_fold(0, |number, _| Some(number * 10 + i64::from(self.one_of(b"0123456789")? - b'0')))
    }

    /// The digits behind a point, at least one, as milliseconds.
    fn millis(&mut self) -> Option<i64> {
        let mut millis = self.number(1)? * 100;
        for place in [10, 1] {
            match self.number(1) {
                Some(digit) => millis += digit * place,
                None => break,
            }
        }
        while self.number(1).is_some() {}
        Some(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_to_the_letter() {
        let check = |text: &str, expected: Result<i64, TimeError>| {
            assert_eq!(parse(text).map(Timestamp::as_millis), expected, "{text}");
        };
        const NEW_YEAR: i64 = 1_798_761_600_000;
        for text in [
            "2027-01-01T00:00:00Z",
            "2027-01-01t00:00:00z",
            "2027-01-01 00:00:00Z",
            "2027-01-01T00:00:00.0Z",
            "2027-01-01T00:00:00.000999999999Z",
            "2027-01-01T00:00:00+00:00",
            "2027-01-01T00:00:00-00:00",
            "2027-01-01T01:30:00+01:30",
            "2027-01-01T23:59:00+23:59",
            "2026-12-31T00:01:00-23:59",
            "2026-12-31T23:59:60Z",
            "2027-01-01T05:29:60.5+05:30",
        ] {
            check(text, Ok(NEW_YEAR));
        }
        check("2027-01-01T00:00:00.25Z", Ok(NEW_YEAR + 250));
        check("2027-01-01T00:00:00.1239Z", Ok(NEW_YEAR + 123));
        check("1970-01-01T00:00:00Z", Ok(0));
        check("9999-12-31T23:59:59Z", Ok(253_402_300_799_000));
        check("9999-12-31T23:59:59.999Z", Ok(253_402_300_799_999));
        check("2000-02-29T00:00:00Z", Ok(951_782_400_000));
        for text in [
            "",
            "yesterday",
            "2027-01-01",
            "2027-01-01T00:00Z",
            "2027-01-01T00:00:00",
            "2027-01-01T00:00:00,5Z",
            "2027-01-01T00:00:00.Z",
            "2027-01-01_00:00:00Z",
            "20270101T000000Z",
            "2027-W01-1T00:00:00Z",
            "+002027-01-01T00:00:00Z",
            "2027-1-01T00:00:00Z",
            "2027-00-01T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-02-29T00:00:00Z",
            "2027-04-31T00:00:00Z",
            "2027-01-00T00:00:00Z",
            "2027-01-01T24:00:00Z",
            "2027-01-01T00:60:00Z",
            "2027-01-01T00:00:61Z",
            "2027-01-01T00:00:60Z",
            "2027-01-01T00:00:00+25:00",
            "2027-01-01T00:00:00+24:00",
            "2027-01-01T00:00:00+01:60",
            "2027-01-01T00:00:00+0100",
            "2027-01-01T00:00:00+01",
            "2027-01-01T00:00:00 01:00",
            "2027-01-01T00:00:00ZZ",
            "2027-01-01T00:00:00Z[UTC]",
            " 2027-01-01T00:00:00Z",
            "2027-01-01T00:00:00\u{2212}01:00",
            "２027-01-01T00:00:00Z",
        ] {
            check(text, Err(TimeError::Malformed));
        }
        for text in [
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:60Z",
        ] {
            check(text, Err(TimeError::OutOfRange));
        }
    }

    #[test]
    fn what_the_hub_writes_is_what_it_reads() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let time = Timestamp::from_millis(random.i64(0..=253_402_300_799_999));
            assert_eq!(parse(&time.to_string()), Ok(time));
        }
    }
}
