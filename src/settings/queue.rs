//! What is set of a queue.

use serde::{Deserialize, Deserializer, Serialize};

use super::rate::Rate;
use crate::task::{Invalid, saturated};

/// The largest limit on what runs at once.
pub const LIMIT_MAX: u32 = 1_000_000;
/// The longest wait that counts as one priority more: thirty days.
pub const AGEING_MS_MAX: u64 = 30 * 86_400_000;

/// The longest that final tasks are kept: ten years.
pub const RETAIN_MS_MAX: u64 = 3_650 * 86_400_000;
/// The most final tasks of a queue, and the most bytes of them, that its retention may count.
pub const RETAIN_COUNT_MAX: u64 = 1_000_000_000;
pub const RETAIN_BYTES_MAX: u64 = 1 << 50;

/// The most queues that are set: each costs memory and a line of every list.
pub const SET_QUEUES_MAX: usize = 10_000;

/// How a queue hands out its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueSettings {
    /// The most tasks of the queue that run at once; without, as many as there are slots for.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub concurrency: Option<u32>,
    /// The most tasks of one `concurrency_key` that run at once.
    #[serde(deserialize_with = "key_concurrency")]
    pub key_concurrency: u32,
    /// The most tasks of one user that run at once.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub user_concurrency: Option<u32>,
    /// The most tasks that are handed out within a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Between whom the hand-outs are shared.
    pub fair_by: FairBy,
    /// So many milliseconds of being ready outweigh one priority; without, priority is strict.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub ageing_ms: Option<u64>,
    /// How long its final tasks are kept, in milliseconds; without, as long as the hub keeps those of any queue.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub retain_ms: Option<u64>,
    /// How many of them are kept, the newest.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub retain_count: Option<u64>,
    /// How many bytes of them are kept, the newest: records with what came with them and what they left, without logs.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub retain_bytes: Option<u64>,
    /// Nothing is handed out.
    pub paused: bool,
}

impl Default for QueueSettings {
    fn default() -> QueueSettings {
        QueueSettings {
            concurrency: None,
            key_concurrency: 1,
            user_concurrency: None,
            rate: None,
            fair_by: FairBy::None,
            ageing_ms: None,
            retain_ms: None,
            retain_count: None,
            retain_bytes: None,
            paused: false,
        }
    }
}

/// Between whom a queue shares out its hand-outs: in turn, one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FairBy {
    /// Nobody: by priority and age alone.
    #[default]
    None,
    User,
    Key,
}

fn key_concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(saturated(deserializer)?.unwrap_or(1))
}

impl QueueSettings {
    /// Checks each value against its bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        let limit = |field, limit: Option<u32>| range(field, limit.map(u64::from), u64::from(LIMIT_MAX));
        limit("concurrency", self.concurrency)?;
        limit("key_concurrency", Some(self.key_concurrency))?;
        limit("user_concurrency", self.user_concurrency)?;
        self.rate.as_ref().map_or(Ok(()), Rate::check).map_err(|invalid| invalid.within("rate"))?;
        range("ageing_ms", self.ageing_ms, AGEING_MS_MAX)?;
        range("retain_ms", self.retain_ms, RETAIN_MS_MAX)?;
        range("retain_count", self.retain_count, RETAIN_COUNT_MAX)?;
        range("retain_bytes", self.retain_bytes, RETAIN_BYTES_MAX)?;
        Ok(())
    }
}

/// A number from 1 up, where there is one.
pub(super) fn range(field: &'static str, number: Option<u64>, max: u64) -> Result<(), Invalid> {
    match number {
        Some(0) => Err(Invalid::value(field, "must be at least 1")),
        Some(number) if number > max => Err(Invalid::limit(field, max, "")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_at_its_edge() {
        let check = |json: &str, wrong: Option<&str>| {
            let settings: QueueSettings = serde_json::from_str(json).unwrap();
            assert_eq!(settings.check().err().map(|invalid| invalid.field.to_string()).as_deref(), wrong, "{json}");
        };
        check("{}", None);
        for field in ["concurrency", "key_concurrency", "user_concurrency"] {
            check(&format!(r#"{{"{field}":0}}"#), Some(field));
            check(&format!(r#"{{"{field}":1000000}}"#), None);
            check(&format!(r#"{{"{field}":1e30}}"#), Some(field));
        }
        check(r#"{"ageing_ms":0}"#, Some("ageing_ms"));
        for (field, max) in
            [("retain_ms", RETAIN_MS_MAX), ("retain_count", RETAIN_COUNT_MAX), ("retain_bytes", RETAIN_BYTES_MAX)]
        {
            check(&format!(r#"{{"{field}":0}}"#), Some(field));
            check(&format!(r#"{{"{field}":{max}}}"#), None);
            check(&format!(r#"{{"{field}":{}}}"#, max + 1), Some(field));
        }
        check(r#"{"rate":{"limit":0,"per_ms":1}}"#, Some("rate.limit"));
    }
}
