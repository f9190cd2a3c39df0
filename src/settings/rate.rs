//! How many tasks a queue hands out within a while.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::queue::{LIMIT_MAX, range};
use crate::task::{Invalid, Name, saturated};

/// The longest window of a rate: 31 days.
pub const RATE_PER_MS_MAX: u64 = 31 * 86_400_000;

/// No window of `per_ms` holds more than `limit` hand-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The most hand-outs, retries too.
    #[serde(deserialize_with = "limit")]
    pub limit: u32,
    /// How long the window is, in milliseconds.
    #[serde(deserialize_with = "per_ms")]
    pub per_ms: u64,
    /// Whose hand-outs are counted together.
    #[serde(default)]
    pub by: RateBy,
}

/// Whose hand-outs a rate counts together. Tasks without a key, or without a user, are not limited by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum RateBy {
    /// All of the queue.
    #[default]
    Queue = 1,
    /// Those of one `concurrency_key`.
    Key = 2,
    /// Those of one user.
    User = 3,
}

impl RateBy {
    /// The one with this discriminant, as stored.
    pub fn from_code(code: u8) -> Option<RateBy> {
        [RateBy::Queue, RateBy::Key, RateBy::User].into_iter().find(|by| *by as u8 == code)
    }
}

impl Rate {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        range("limit", Some(u64::from(self.limit)), u64::from(LIMIT_MAX))?;
        range("per_ms", Some(self.per_ms), RATE_PER_MS_MAX)
    }
}

/// Hand-outs that count under a rate, as they are kept for the next hub: those of one commit that are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOuts {
    /// The `rev` of the last of them.
    pub rev: u64,
    /// When, on the machine's monotonic count. It is below 0 where that began anew since.
    pub at: i64,
    pub queue: Name,
    pub by: RateBy,
    /// Which key, or which user.
    pub name: Option<Name>,
    pub count: u32,
}

fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    saturated(deserializer)?.ok_or_else(|| D::Error::custom("must be a whole number"))
}

fn per_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    saturated(deserializer)?.ok_or_else(|| D::Error::custom("must be a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_at_its_edge() {
        let check = |json: &str, wrong: Option<&str>| {
            let rate: Rate = serde_json::from_str(json).unwrap();
            assert_eq!(rate.check().err().map(|invalid| invalid.field.to_string()).as_deref(), wrong, "{json}");
        };
        check(r#"{"limit":1,"per_ms":1}"#, None);
        check(r#"{"limit":1000000,"per_ms":2678400000,"by":"user"}"#, None);
        check(r#"{"limit":0,"per_ms":1}"#, Some("limit"));
        check(r#"{"limit":1e9,"per_ms":1}"#, Some("limit"));
        check(r#"{"limit":1,"per_ms":0}"#, Some("per_ms"));
        check(r#"{"limit":1,"per_ms":2678400001}"#, Some("per_ms"));
        for wrong in ["{}", r#"{"limit":1}"#, r#"{"limit":null,"per_ms":1}"#, r#"{"limit":1,"per_ms":1,"by":"x"}"#] {
            assert!(serde_json::from_str::<Rate>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codes_are_known() {
        for by in [RateBy::Queue, RateBy::Key, RateBy::User] {
            assert_eq!(RateBy::from_code(by as u8), Some(by));
        }
        assert_eq!(RateBy::from_code(0), None);
    }
}
