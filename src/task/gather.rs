//! Submissions that become one task: `gather` at submit, and what a record keeps of it.
//!
//! Submissions of one queue, type, user and key are *items*: the payload of the task is the list of theirs. A list is *open*, and
//! takes more, until one of its bounds is met. Its items are kept beside the record, each once, as they came.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bounds::saturated;
use super::canonical::write_string;
use super::new_task::{DELAY_MS_MAX, NewTask, chars, range};
use super::unique::{UNIQUE_KEY_CHARS_MAX, hexadecimal};
use super::{Digest, Invalid, Json, Task};

/// The most items of a list. Each is kept by itself until the task is deleted.
pub const GATHERED_MAX: u32 = 10_000;
/// The brackets of a list.
const BRACKETS: u64 = 2;

/// Submissions with the same key, of one queue, type and user, become one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGather {
    /// 1–256 characters.
    pub key: String,
    /// The task is ready with so many items; 1–10,000.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_count: Option<u32>,
    /// It is ready so long after its first item came.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_wait_ms: Option<u64>,
    /// It is ready with so many bytes of payload; what would be more begins another.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_bytes: Option<u64>,
}

/// What a record keeps of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// How many items its payload has.
    pub gathered: u32,
    /// While it takes more.
    pub open: Option<OpenList>,
}

/// A list that takes more items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenList {
    /// Of queue, type, user and key: what has the same belongs into it.
    #[serde(with = "hexadecimal")]
    pub digest: Digest,
    /// Of its payload so far, in JSON text.
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

impl NewGather {
    /// Checks what it says of a task that is right otherwise.
    pub(super) fn check(&self, new: &NewTask) -> Result<(), Invalid> {
        let wrong = |field: &'static str, detail: &str| Err(Invalid::value(field, detail));
        if self.key.is_empty() {
            return wrong("gather.key", "must not be empty");
        }
        chars("gather.key", Some(&self.key), UNIQUE_KEY_CHARS_MAX)?;
        range("gather.max_count", self.max_count.map(u64::from), 1, GATHERED_MAX.into())?;
        range("gather.max_wait_ms", self.max_wait_ms, 1, DELAY_MS_MAX)?;
        range("gather.max_bytes", self.max_bytes, 1, u32::MAX.into())?;
        if self.max_count.is_none() && self.max_wait_ms.is_none() && self.max_bytes.is_none() {
            return wrong("gather", "must have max_count, max_wait_ms or max_bytes");
        }
        for (other, stands) in [
            ("unique", new.unique.is_some()),
            ("depends_on", !new.depends_on.is_empty()),
            ("run_at", new.run_at.is_some()),
            ("delay_ms", new.delay_ms.is_some()),
        ] {
            if stands {
                return Err(Invalid::value("gather", format!("must not stand beside {other}")));
            }
        }
        Ok(())
    }

    /// The list that a task begins with its payload, and that others of the same kind are put into. A payload is never larger than
    /// `bytes_max`, and neither is a list.
    pub(super) fn of(&self, new: &NewTask, bytes_max: usize) -> OpenList {
        let mut form = b"gather 1".to_vec();
        for text in [new.queue_name(), &new.task_type, &self.key] {
            write_string(text.as_bytes(), &mut form);
        }
        match &new.user_id {
            Some(user) => write_string(user.as_bytes(), &mut form),
            None => form.push(b'-'),
        }
        let hash = Sha256::digest(&form);
        let digest = u128::from_be_bytes(hash[..16].try_into().expect("a SHA-256 has 32 bytes"));
        let max_bytes = Some(self.max_bytes.unwrap_or(u64::MAX).min(bytes_max as u64));
        OpenList { digest, bytes: BRACKETS + item_of(new).len() as u64, max_count: self.max_count, max_bytes }
    }
}

/// What a submission puts into a list: one without a payload says `null`.
pub fn item_of(new: &NewTask) -> Json {
    new.payload.clone().unwrap_or_else(Json::null)
}

impl OpenList {
    /// Whether an item fits into it.
    pub fn has_room_for(&self, item: &Json) -> bool {
        self.max_bytes.is_none_or(|max_bytes| self.bytes + 1 + item.len() as u64 <= max_bytes)
    }

    /// One item more.
    pub fn push(&mut self, item: &Json) {
        self.bytes += 1 + item.len() as u64;
    }

    /// Whether it takes no more.
    pub fn is_full(&self, gathered: u32) -> bool {
        gathered >= self.max_count.unwrap_or(GATHERED_MAX)
            || self.max_bytes.is_some_and(|max_bytes| self.bytes >= max_bytes)
    }
}

impl Task {
    /// How many items its payload is the list of, where it is one.
    pub fn gathered(&self) -> Option<u32> {
        Some(self.detail()?.gather.as_ref()?.gathered)
    }

    /// The list of its payload, while that takes more.
    pub fn open_list(&self) -> Option<&OpenList> {
        self.detail()?.gather.as_ref()?.open.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::InvalidKind;

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        let check = |json: &str, expected: Result<(), (&str, InvalidKind)>| {
            let text = format!(r#"{{"task_type":"t",{json}}}"#);
            let new: NewTask = super::super::strict::from_slice(text.as_bytes()).expect("it is a task");
            let checked = new.check(1_000);
            let got = checked.as_ref().copied().map_err(|invalid| (invalid.field.as_ref(), invalid.kind));
            assert_eq!(got, expected, "{json}");
        };
        let value = |field| Err((field, InvalidKind::Value));
        check(r#""gather":{"key":"k","max_count":2,"max_wait_ms":5,"max_bytes":100}"#, Ok(()));
        check(r#""gather":{"key":"k"}"#, value("gather"));
        check(r#""gather":{"key":"","max_count":2}"#, value("gather.key"));
        check(r#""gather":{"key":"k","max_count":0}"#, value("gather.max_count"));
        check(r#""gather":{"key":"k","max_count":10001}"#, Err(("gather.max_count", InvalidKind::Limit(10_000))));
        check(r#""gather":{"key":"k","max_wait_ms":0}"#, value("gather.max_wait_ms"));
        check(r#""gather":{"key":"k","max_bytes":0}"#, value("gather.max_bytes"));
        for other in [r#""unique":{"key":"k"}"#, r#""delay_ms":5"#, r#""run_at":"2030-01-01T00:00:00Z""#] {
            check(&format!(r#""gather":{{"key":"k","max_count":2}},{other}"#), value("gather"));
        }
    }

    #[test]
    fn one_list_is_of_one_queue_type_user_and_key() {
        let gather = NewGather { key: "k".into(), max_count: Some(2), ..NewGather::default() };
        let of = |new: NewTask, key: &str| NewGather { key: key.into(), ..gather.clone() }.of(&new, 100).digest;
        let all = [
            of(NewTask::new("t"), "k"),
            of(NewTask::new("t"), "l"),
            of(NewTask::new("u"), "k"),
            of(NewTask { queue: Some("q".into()), ..NewTask::new("t") }, "k"),
            of(NewTask { user_id: Some("u".into()), ..NewTask::new("t") }, "k"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
        assert_eq!(of(NewTask { queue: Some("default".into()), ..NewTask::new("t") }, "k"), all[0]);
    }
}
