//! Records without the parts that are hidden from a caller.
//!
//! A record is read as pairs of a key and the text of a value, and only these two levels are looked at: what stays, stays to the
//! byte.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Hidden, Part};
use crate::task::Json;

/// An object, as the texts of its values.
struct Pairs<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'a>, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<'de>, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The record of a task without what is hidden, which it names. What cannot be read is not shown at all.
pub fn redacted(record: &[u8], hidden: &Hidden) -> Bytes {
    let Ok(Pairs(pairs)) = serde_json::from_slice(record) else { return Bytes::from_static(b"{}") };
    let is_workflow = is_workflow(&pairs);
    let left = |value: &RawValue| left_of_result(Json::trusted(value.get().to_owned()), is_workflow, hidden);
    let mut out = vec![b'{'];
    for (key, value) in pairs {
        match key {
            "result_omitted" if hidden.has(Part::Result) => {}
            "result" if hidden.touches(Part::Result) => {
                if let Some(left) = left(value) {
                    put(&mut out, key, left.bytes());
                }
            }
            "error" | "last_error" if hidden.touches(Part::Result) => put(&mut out, key, &less_details(value, left)),
            _ => put(&mut out, key, value.get().as_bytes()),
        }
    }
    put(&mut out, "hidden", &serde_json::to_vec(&hidden.words()).expect("words are JSON"));
    out.push(b'}');
    out.into()
}

/// What is left of a result that does not stand in the record of its task.
pub fn redacted_result(record: &[u8], result: Json, hidden: &Hidden) -> Option<Json> {
    if !hidden.touches(Part::Result) {
        return Some(result);
    }
    let Pairs(pairs) = serde_json::from_slice(record).ok()?;
    left_of_result(result, is_workflow(&pairs), hidden)
}

fn is_workflow(record: &[(&str, &RawValue)]) -> bool {
    record.iter().any(|(key, _)| *key == "workflow")
}

fn left_of_result(result: Json, is_workflow: bool, hidden: &Hidden) -> Option<Json> {
    match is_workflow && !hidden.has(Part::Result) {
        // It is made of others' results.
        true => Some(hidden.left_of_results(result)),
        false => hidden.left_of(Part::Result, result),
    }
}

/// A line of a live stream without what is hidden; `None` where all of it is.
pub fn redacted_line(line: &Bytes, hidden: &Hidden) -> Option<Bytes> {
    if hidden.is_nothing() {
        return Some(line.clone());
    }
    const LOG: &[u8] = br#"{"type":"log"#;
    const TASK: &[u8] = br#"{"type":"task""#;
    if line.starts_with(LOG) {
        return (!hidden.has(Part::Logs)).then(|| line.clone());
    }
    if !line.starts_with(TASK) {
        return Some(line.clone());
    }
    let Pairs(pairs) = serde_json::from_slice(line).ok()?;
    let mut out = vec![b'{'];
    for (key, value) in pairs {
        match key {
            "task" => put(&mut out, key, &redacted(value.get().as_bytes(), hidden)),
            _ => put(&mut out, key, value.get().as_bytes()),
        }
    }
    out.push(b'}');
    Some(out.into())
}

fn put(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    if out.len() > 1 {
        out.push(b',');
    }
    for part in [b"\"", key.as_bytes(), b"\":", value] {
        out.extend_from_slice(part);
    }
}

/// An error, with what is left of its details.
fn less_details(error: &RawValue, left: impl Fn(&RawValue) -> Option<Json>) -> Vec<u8> {
    let Ok(Pairs(pairs)) = serde_json::from_str(error.get()) else { return b"null".to_vec() };
    let mut out = vec![b'{'];
    for (key, value) in pairs {
        match key {
            "details" => {
                if let Some(left) = left(value) {
                    put(&mut out, key, left.bytes());
                }
            }
            _ => put(&mut out, key, value.get().as_bytes()),
        }
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_named_and_not_there() {
        let record = br#"{"task_id":"x","status":"failed","result":{"a":"secret"},"error":{"kind":"k","details":{"s":1}},"progress":{"p":1.50}}"#;
        let none = Hidden::default();
        let result = none.clone().with(Part::Result);
        assert_eq!(
            redacted(record, &result),
            r#"{"task_id":"x","status":"failed","error":{"kind":"k"},"progress":{"p":1.50},"hidden":["result"]}"#
        );
        // Regression: what an earlier try left was shown to those from whom results are hidden.
        let tried = br#"{"task_id":"x","last_error":{"kind":"k","details":{"s":1}}}"#;
        assert_eq!(redacted(tried, &result), r#"{"task_id":"x","last_error":{"kind":"k"},"hidden":["result"]}"#);
        let payload = redacted(record, &none.with(Part::Payload).with(Part::Logs));
        assert!(payload.ends_with(br#""progress":{"p":1.50},"hidden":["payload","logs"]}"#));
        assert_eq!(redacted(b"nonsense", &result), "{}");
    }

    #[test]
    fn places_within_results_are_cut_wherever_results_go() {
        let hidden = Hidden::default().with("result/s".parse::<crate::access::Hide>().unwrap());
        let check = |record: &str, expected: &str| {
            assert_eq!(redacted(record.as_bytes(), &hidden), format!(r#"{{{expected},"hidden":["result/s"]}}"#));
        };
        check(r#"{"result":{"s":1,"t":1.50}}"#, r#""result":{"t":1.50}"#);
        check(r#"{"result_omitted":true}"#, r#""result_omitted":true"#);
        check(r#"{"error":{"kind":"k","details":{"s":1}}}"#, r#""error":{"kind":"k","details":{}}"#);
        let flow = r#"{"workflow":{"on_failure":"stop"},"result":{"a":{"result":{"s":1,"t":2}}}}"#;
        check(flow, r#""workflow":{"on_failure":"stop"},"result":{"a":{"result":{"t":2}}}"#);
    }

    #[test]
    fn lines_of_a_stream() {
        let line = |text: &'static str| Bytes::from_static(text.as_bytes());
        let result = Hidden::default().with(Part::Result);
        let task = line(r#"{"type":"task","event":"completed","rev":7,"task":{"task_id":"x","result":1}}"#);
        assert_eq!(
            redacted_line(&task, &result).unwrap(),
            r#"{"type":"task","event":"completed","rev":7,"task":{"task_id":"x","hidden":["result"]}}"#
        );
        let log = line(r#"{"type":"log","task_id":"x","lines":[]}"#);
        assert_eq!(redacted_line(&log, &result), Some(log.clone()));
        assert_eq!(redacted_line(&log, &Hidden::default().with(Part::Logs)), None);
        assert_eq!(redacted_line(&task, &Hidden::default()), Some(task), "nothing is said of nothing");
        let mark = line(r#"{"type":"mark","rev":7}"#);
        assert_eq!(redacted_line(&mark, &result), Some(mark));
    }
}
