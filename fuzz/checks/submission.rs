//! Any JSON as a submission: what is taken is an object, its payload is kept byte for byte, what is bounded is within its
//! bounds, and it is read back as it was written.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use taskhub::task::{LABELS_MAX, NewTask, read_strictly};

pub fn check(bytes: &[u8]) {
    let Ok(new) = read_strictly::<NewTask>(bytes) else { return };
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes).expect("an object");
    assert!(fields.contains_key("task_type"));
    let payload = fields.get("payload").map(|text| text.get());
    assert_eq!(new.payload.as_ref().map(|payload| payload.as_str()), payload);
    for (name, text) in &fields {
        let is_object = text.get().starts_with('{') || text.get() == "null";
        assert!(is_object || !matches!(name.as_str(), "labels" | "retry"), "{name}: {text}");
    }
    assert!(new.labels.len() <= LABELS_MAX);
    let _ = new.check(1_000);
    let text = serde_json::to_string(&new).expect("a submission is JSON");
    let again: NewTask = read_strictly(text.as_bytes()).expect("what we wrote");
    assert_eq!(serde_json::to_string(&again).expect("a submission is JSON"), text);
}
