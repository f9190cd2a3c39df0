//! A point in time as the hub tells it: milliseconds since 1970, written as RFC 3339 in UTC.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::TimeError;

/// Milliseconds since 1970-01-01T00:00:00Z. On the wire `2026-11-21T14:15:00.000Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// The last moment of the year 9999.
const MILLIS_MAX: i64 = 253_402_300_799_999;

impl Timestamp {
    /// From milliseconds since 1970, held within the years 1970 to 9999.
    pub fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis.clamp(0, MILLIS_MAX))
    }

    /// The clock of this machine. Only the edges of the program call it.
    pub fn now() -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(since.as_millis().min(MILLIS_MAX as u128) as i64)
    }

    /// Milliseconds since 1970.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment and `millis` more, at most the year 9999.
    pub fn plus_millis(self, millis: u64) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_add(millis.min(MILLIS_MAX as u64) as i64))
    }

    /// How long after `earlier` this is, in milliseconds; 0 if it is not.
    pub fn millis_since(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0 - earlier.0).unwrap_or(0)
    }

    /// Reads RFC 3339 with any offset, of the years 1970 to 9999.
    pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
        super::rfc3339::parse(text)
    }

    /// Calls `f` with the RFC 3339 text, without allocating: this is written several times for every transition.
    fn with_text<T>(self, f: impl FnOnce(&str) -> T) -> T {
        let (year, month, day) = civil_from_days(self.0.div_euclid(86_400_000));
        let of_day = self.0.rem_euclid(86_400_000) as u32;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, width: usize, mut number: u32| {
            for place in (at..at + width).rev() {
                text[place] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, of_day / 3_600_000);
        put(14, 2, of_day / 60_000 % 60);
        put(17, 2, of_day / 1_000 % 60);
        put(20, 3, of_day % 1_000);
        f(std::str::from_utf8(&text).expect("digits and punctuation are UTF-8"))
    }
}

/// Year, month and day of a day number counted from 1970-01-01, after Howard Hinnant's `civil_from_days`, for days that
/// are not before 1970.
fn civil_from_days(days: i64) -> (u32, u32, u32) {
    let shifted = days as u64 + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a time in RFC 3339, such as 2026-01-31T12:00:00Z")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_agrees_with_a_calendar_library() {
        /// The last that the library has.
        const LATEST: i64 = 253_402_207_199_999;
        let mut random = fastrand::Rng::with_seed(1);
        for millis in [0, 1, LATEST, 951_782_400_000, 1_709_164_800_000, 4_107_542_400_000]
            .into_iter()
            .chain(std::iter::repeat_with(|| random.i64(0..=LATEST)).take(20_000))
        {
            let ours = Timestamp::from_millis(millis);
            let theirs = jiff::Timestamp::from_millisecond(millis).unwrap();
            assert_eq!(ours.to_string(), format!("{theirs:.3}"));
            assert_eq!(Timestamp::parse(&ours.to_string()), Ok(ours));
        }
    }

    #[test]
    fn the_last_moment() {
        assert_eq!(Timestamp::from_millis(MILLIS_MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).as_millis(), MILLIS_MAX);
    }
}
