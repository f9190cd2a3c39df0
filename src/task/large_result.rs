//! Results that are too large for a record and for memory, and so are streamed into files beside the store.
//!
//! A record says that there is one, how long it is and what it is; the file is found by the task's id and the result's. A result
//! never changes: another upload has another id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Json, Status, TaskId};

/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// What an attempt has uploaded, or a completed task has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeResult {
    pub id: ResultId,
    pub bytes: u64,
    /// As it was declared: visible ASCII.
    pub content_type: Box<str>,
}

impl LargeResult {
    /// What stands for it in the result of a workflow of which it is the output: it is too large to stand there itself.
    pub fn told_of(&self, task_id: TaskId) -> Json {
        let told = serde_json::json!({
            "task_id": task_id, "status": Status::Completed, "result_omitted": true, "result_bytes": self.bytes,
            "result_type": self.content_type,
        });
        Json::trusted(told.to_string())
    }
}

/// Tells the uploads of a task apart. Sixteen hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultId(u64);

impl ResultId {
    /// One that no other upload has, as far as chance goes; where it does not, the file is there already.
    pub fn random() -> ResultId {
        ResultId(fastrand::u64(..))
    }
}

impl fmt::Display for ResultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ResultId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ResultId, &'static str> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = if is_one { u64::from_str_radix(text, 16).ok() } else { None };
        id.map(ResultId).ok_or("must be sixteen hexadecimal digits")
    }
}

impl Serialize for ResultId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResultId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ResultId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_digits() {
        let id = ResultId(0x2a);
        assert_eq!(id.to_string(), "000000000000002a");
        assert_eq!("000000000000002a".parse(), Ok(id));
        for wrong in ["", "2a", "000000000000002A", "+00000000000002a", "00000000000000002a"] {
            assert!(wrong.parse::<ResultId>().is_err(), "{wrong}");
        }
    }
}
