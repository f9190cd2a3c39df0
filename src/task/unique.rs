//! Tasks of which there is one at a time: `unique` at submit, and what a record keeps of it.
//!
//! What a task must be the only one of is said as a `key`, or as parts of the submission that make one up (`by`). Of either
//! comes a *digest* of 128 bits, with the type of the task and its user in it: made once, when the submission is checked, and
//! kept in the record. So the engine compares numbers, and what it knows of keys follows from records.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::bounds::{optional_list, saturated};
use super::canonical::{is_pointer, write_string};
use super::new_task::{DELAY_MS_MAX, LABELS_MAX, NewTask, chars, range};
use super::{Detail, Digest, Invalid, Json, Task};

/// The most labels that a record keeps of those it had before.
const FORMER_LABELS_MAX: usize = 4 * LABELS_MAX;
/// The longest key, in characters.
pub const UNIQUE_KEY_CHARS_MAX: usize = 256;
/// The most parts that make up a key, and the longest path of one, in characters.
pub const UNIQUE_BY_MAX: usize = 16;
pub const UNIQUE_PATH_CHARS_MAX: usize = 256;

/// What a new task wants to be the only one of, among those of its type and user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUnique {
    /// 1–256 characters. Not together with `by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Parts of the submission that make up the key: `task_type`, `queue`, `payload`, `labels`, or a JSON Pointer into one of
    /// the last two, such as `payload/customer/id` or `labels/k`; up to 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "paths")]
    pub by: Vec<String>,
    /// How long it holds its key; `finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<HeldUntil>,
    /// For so long after it was made, whatever becomes of it. Not together with `until`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub within_ms: Option<u64>,
    /// What becomes of it where another task holds its key; `return`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnHeld>,
    /// With `replace` and a delay: however often it is replaced, it does not wait longer than this from the first on.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub max_wait_ms: Option<u64>,
}

/// Until when a task holds its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldUntil {
    /// Until it is handed out for the first time.
    Started,
    /// Until it is final; again, where it is run again.
    #[default]
    Finished,
}

/// What becomes of a submission whose key is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnHeld {
    /// It is answered with the task that holds it.
    #[default]
    Return,
    /// It is refused.
    Reject,
    /// The one that holds it becomes what this one says, if it waits; if not, as `return`.
    Replace,
}

/// What a record keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    #[serde(with = "hexadecimal")]
    pub digest: Digest,
    #[serde(flatten)]
    pub held: Held,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait_ms: Option<u64>,
    /// Labels that it had before another submission replaced them, the newest last; those of the last few submissions. Whoever
    /// watches tasks by these must hear that it has others now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_labels: Vec<(String, String)>,
}

/// How long a task holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Until(HeldUntil),
    /// Milliseconds from `created_at` on.
    WithinMs(u64),
}

fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    optional_list(deserializer, UNIQUE_BY_MAX, "parts").map(Option::unwrap_or_default)
}

impl NewUnique {
    /// The only one with this key.
    pub fn key(key: impl Into<String>) -> NewUnique {
        NewUnique { key: Some(key.into()), ..NewUnique::default() }
    }

    /// The only one with the same of these parts.
    pub fn by(parts: impl IntoIterator<Item = impl Into<String>>) -> NewUnique {
        NewUnique { by: parts.into_iter().map(Into::into).collect(), ..NewUnique::default() }
    }

    /// About what it holds in memory.
    pub fn bytes(&self) -> usize {
        let texts = self.key.iter().chain(&self.by).map(|text| text.len() + size_of::<String>());
        size_of::<NewUnique>() + size_of::<Unique>() + texts.sum::<usize>()
    }

    /// Checks what it says of a task that is right otherwise.
    pub(super) fn check(&self, new: &NewTask) -> Result<(), Invalid> {
        let wrong = |field: &'static str, detail: &str| Err(Invalid::value(field, detail));
        match (&self.key, self.by.is_empty()) {
            (Some(_), false) => return wrong("unique.by", "must not stand beside key"),
            (None, true) => return wrong("unique", "must have key, or by with at least one part"),
            (Some(key), true) if key.is_empty() => return wrong("unique.key", "must not be empty"),
            _ => {}
        }
        chars("unique.key", self.key.as_deref(), UNIQUE_KEY_CHARS_MAX)?;
        for (at, path) in self.by.iter().enumerate() {
            let within = |invalid: Invalid| Invalid { field: format!("unique.by[{at}]").into(), ..invalid };
            chars("", Some(path), UNIQUE_PATH_CHARS_MAX).map_err(within)?;
            let (word, pointer) = split(path);
            let is_known = match word {
                "task_type" | "queue" => pointer.is_empty(),
                "payload" | "labels" => is_pointer(pointer),
                _ => false,
            };
            if !is_known {
                let known = "must be task_type, queue, payload, labels, or a JSON Pointer such as payload/customer/id";
                return Err(within(Invalid::value("", known)));
            }
            if self.by[..at].contains(path) {
                return Err(within(Invalid::value("", "stands there twice")));
            }
        }
        if self.until.is_some() && self.within_ms.is_some() {
            return wrong("unique.within_ms", "must not stand beside until");
        }
        range("unique.within_ms", self.within_ms, 1, DELAY_MS_MAX)?;
        range("unique.max_wait_ms", self.max_wait_ms, 1, DELAY_MS_MAX)?;
        if let Some(max_wait_ms) = self.max_wait_ms {
            if self.on_conflict != Some(OnHeld::Replace) {
                return wrong("unique.max_wait_ms", "must stand with on_conflict replace");
            }
            match new.delay_ms {
                None => return wrong("unique.max_wait_ms", "must stand with delay_ms"),
                Some(delay_ms) if delay_ms > max_wait_ms => {
                    return wrong("unique.max_wait_ms", "must not be shorter than delay_ms");
                }
                Some(_) => {}
            }
        }
        if !new.depends_on.is_empty() {
            return wrong("unique", "must not stand beside depends_on");
        }
        Ok(())
    }

    /// What the record of a task keeps that was checked.
    pub(super) fn of(&self, new: &NewTask) -> Unique {
        let held = match self.within_ms {
            Some(within_ms) => Held::WithinMs(within_ms),
            None => Held::Until(self.until.unwrap_or_default()),
        };
        Unique { digest: self.digest(new), held, max_wait_ms: self.max_wait_ms, former_labels: Vec::new() }
    }

    /// Whatever is hashed says first what it is, and of texts how long they are, so no two keys run into one text.
    fn digest(&self, new: &NewTask) -> Digest {
        let mut form = b"unique 1".to_vec();
        write_string(new.task_type.as_bytes(), &mut form);
        match &new.user_id {
            Some(user) => write_string(user.as_bytes(), &mut form),
            None => form.push(b'-'),
        }
        match &self.key {
            Some(key) => {
                form.push(b'k');
                write_string(key.as_bytes(), &mut form);
            }
            None => {
                let mut paths: Vec<&String> = self.by.iter().collect();
                // In whatever order they are said.
                paths.sort_unstable();
                for path in paths {
                    form.push(b'b');
                    write_string(path.as_bytes(), &mut form);
                    write_part(new, path, &mut form);
                }
            }
        }
        let hash = Sha256::digest(&form);
        u128::from_be_bytes(hash[..16].try_into().expect("a SHA-256 has 32 bytes"))
    }
}

impl NewTask {
    /// About how many bytes of it are hashed when it is checked.
    pub fn hashed_bytes(&self) -> usize {
        let by = self.unique.iter().flat_map(|unique| &unique.by).filter(|path| split(path).0 == "payload").count();
        by * self.payload.as_ref().map_or(0, Json::len)
    }
}

impl Detail {
    /// Other labels take the place of those it has.
    pub fn replace_labels(&mut self, labels: BTreeMap<String, String>) {
        let before = std::mem::replace(&mut self.labels, labels);
        let Some(unique) = &mut self.unique else { return };
        let former = &mut unique.former_labels;
        former.extend(before.into_iter().filter(|(key, value)| self.labels.get(key) != Some(value)));
        former.dedup();
        former.drain(..former.len().saturating_sub(FORMER_LABELS_MAX));
    }
}

impl Task {
    /// Labels that it had before others took their place.
    pub fn former_labels(&self) -> &[(String, String)] {
        self.unique().map_or(&[], |unique| &unique.former_labels)
    }
}

impl Invalid {
    /// A task cannot be the only one of its kind, nor become part of another, where others count on it to be made.
    pub(super) fn no_unique(new: &NewTask, detail: &str) -> Result<(), Invalid> {
        match (&new.unique, &new.gather) {
            (Some(_), _) => Err(Invalid::value("unique", detail)),
            (None, Some(_)) => Err(Invalid::value("gather", detail)),
            (None, None) => Ok(()),
        }
    }
}

/// The first word of a path, and the JSON Pointer after it.
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

/// Appends what a submission says at this path. Nothing there is another thing than `null`.
fn write_part(new: &NewTask, path: &str, form: &mut Vec<u8>) {
    let (word, pointer) = split(path);
    let value = match word {
        "task_type" => return write_string(new.task_type.as_bytes(), form),
        "queue" => return write_string(new.queue_name().as_bytes(), form),
        "payload" => new.payload.as_ref().and_then(|payload| payload.at_pointer(pointer)),
        _ => Json::of(&new.labels).ok().and_then(|labels| labels.at_pointer(pointer)),
    };
    match value {
        Some(value) => value.write_canonical(form),
        None => form.push(b'-'),
    }
}

/// A digest as records have it.
pub(super) mod hexadecimal {
    use super::*;

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{digest:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::InvalidKind;

    fn task(json: &str) -> NewTask {
        let text = format!(r#"{{"task_type":"t",{json}}}"#);
        super::super::strict::from_slice(text.as_bytes())
            .unwrap_or_else(|why: serde_json::Error| panic!("{text}: {why}"))
    }

    fn digest(json: &str) -> Digest {
        let new = task(json);
        new.check(1_000).unwrap();
        new.unique.as_ref().unwrap().of(&new).digest
    }

    #[test]
    fn what_says_the_same_has_one_key_and_what_does_not_another() {
        let same = [
            r#""unique":{"by":["queue","payload"]},"payload":{"a":1,"b":"é"}"#,
            r#""unique":{"by":["payload","queue"],"until":"started"},"payload":{ "b":"\u00e9", "a":1 }, "queue":"default""#,
        ];
        assert_eq!(digest(same[0]), digest(same[1]));
        let all = [
            same[0],
            r#""unique":{"by":["payload"]},"payload":{"a":1,"b":"é"}"#,
            r#""unique":{"by":["payload","queue"]},"payload":{"a":1.0,"b":"é"}"#,
            r#""unique":{"by":["payload","queue"]},"payload":{"a":1,"b":"é"},"queue":"other""#,
            r#""unique":{"by":["payload","queue"]},"payload":{"a":1,"b":"é"},"user_id":"u""#,
            r#""unique":{"by":["payload","queue"]},"payload":{"a":1,"b":"é"},"user_id":"-""#,
            r#""unique":{"by":["payload/x"]}"#,
            r#""unique":{"by":["payload/x"]},"payload":{"x":null}"#,
            r#""unique":{"by":["payload/x"]},"payload":{"x":"-"}"#,
            r#""unique":{"by":["payload/y"]},"payload":{"x":"-"}"#,
            r#""unique":{"by":["payload"]}"#,
            r#""unique":{"by":["payload"]},"payload":null"#,
            r#""unique":{"by":["labels/k"]},"labels":{"k":"1"}"#,
            r#""unique":{"by":["labels/k"]},"labels":{"k":"2"}"#,
            r#""unique":{"by":["labels"]},"labels":{"k":"2"}"#,
            r#""unique":{"key":"payload"}"#,
            r#""unique":{"key":"payload"},"user_id":"u""#,
        ];
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                assert_ne!(digest(a), digest(b), "{a} {b}");
            }
        }
        // What is not part of a key does not count.
        assert_eq!(
            digest(r#""unique":{"key":"k"},"payload":1"#),
            digest(r#""unique":{"key":"k","within_ms":5},"payload":2"#)
        );
        assert_eq!(
            digest(r#""unique":{"by":["labels/a~1b"]},"labels":{"a/b":"1","c":"2"}"#),
            digest(r#""unique":{"by":["labels/a~1b"]},"labels":{"a/b":"1"}"#)
        );
    }

    /// It stands in records: what is made of a submission today must be what was made of it before.
    #[test]
    fn a_digest_stays_what_it_is() {
        let found = format!(
            "{:032x}",
            digest(
                r#""unique":{"by":["payload/a","labels/k","queue"]},"payload":{"a":[1,{"b":2.50}]},"labels":{"k":"v"},"user_id":"u1""#
            )
        );
        assert_eq!(found, "2651b45ca649c139c878d58427ec9d84");
        let found = format!("{:032x}", digest(r#""unique":{"key":"é"}"#));
        assert_eq!(found, "adb6f42d7a5251dc0d71b0f7f8243862");
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        let check = |json: &str, expected: Result<(), (&str, InvalidKind)>| {
            let checked = task(json).check(1_000);
            let got = checked.as_ref().copied().map_err(|invalid| (invalid.field.as_ref(), invalid.kind));
            assert_eq!(got, expected, "{json}");
        };
        let value = |field| Err((field, InvalidKind::Value));
        let limit = |field, n| Err((field, InvalidKind::Limit(n)));
        check(r#""unique":null"#, Ok(()));
        check(r#""unique":{}"#, value("unique"));
        check(r#""unique":{"by":[]}"#, value("unique"));
        check(r#""unique":{"key":""}"#, value("unique.key"));
        check(r#""unique":{"key":"k","by":["queue"]}"#, value("unique.by"));
        check(&format!(r#""unique":{{"key":"{}"}}"#, "é".repeat(256)), Ok(()));
        check(&format!(r#""unique":{{"key":"{}"}}"#, "é".repeat(257)), limit("unique.key", 256));
        check(&format!(r#""unique":{{"by":["payload/{}"]}}"#, "x".repeat(249)), limit("unique.by[0]", 256));
        for by in ["user_id", "payload~", "payloads", "queue/x", "task_type/", "labels/~2", "", "/payload"] {
            check(&format!(r#""unique":{{"by":["queue","{by}"]}}"#), value("unique.by[1]"));
        }
        check(
            r#""unique":{"by":["task_type","queue","payload","payload/customer/id","labels/k","labels","payload/"]}"#,
            Ok(()),
        );
        check(r#""unique":{"by":["queue","queue"]}"#, value("unique.by[1]"));
        check(r#""unique":{"key":"k","until":"started","within_ms":5}"#, value("unique.within_ms"));
        check(r#""unique":{"key":"k","within_ms":0}"#, value("unique.within_ms"));
        check(r#""unique":{"key":"k","within_ms":1e30}"#, limit("unique.within_ms", DELAY_MS_MAX));
        check(r#""delay_ms":5,"unique":{"key":"k","max_wait_ms":5,"on_conflict":"replace"}"#, Ok(()));
        check(
            r#""delay_ms":5,"unique":{"key":"k","max_wait_ms":4,"on_conflict":"replace"}"#,
            value("unique.max_wait_ms"),
        );
        check(r#""delay_ms":5,"unique":{"key":"k","max_wait_ms":5}"#, value("unique.max_wait_ms"));
        check(r#""unique":{"key":"k","max_wait_ms":5,"on_conflict":"replace"}"#, value("unique.max_wait_ms"));
        let id = "01890000-0000-7000-8000-00000000002a";
        check(&format!(r#""unique":{{"key":"k"}},"depends_on":["{id}"]"#), value("unique"));
    }

    #[test]
    fn a_record_says_how_long_it_is_held() {
        for (held, text) in [
            (Held::Until(HeldUntil::Started), r#"{"digest":"0000000000000000000000000000002a","until":"started"}"#),
            (Held::WithinMs(5), r#"{"digest":"0000000000000000000000000000002a","within_ms":5}"#),
        ] {
            let unique = Unique { digest: 42, held, max_wait_ms: None, former_labels: Vec::new() };
            assert_eq!(serde_json::to_string(&unique).unwrap(), text);
            let read: Unique = super::super::strict::from_slice(text.as_bytes()).unwrap();
            assert_eq!(read, unique);
        }
    }
}
