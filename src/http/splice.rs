//! Answers made of bytes that are there already: records are cut and joined, never read and written again.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::hub::Stored;
use crate::task::Json;

/// The media type of answers.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer with this JSON text.
pub(super) fn json(status: StatusCode, text: impl Into<Bytes>) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], text.into()).into_response()
}

/// The status of a call that made something, or met what was there.
pub(super) fn made(something: bool) -> StatusCode {
    if something { StatusCode::CREATED } else { StatusCode::OK }
}

/// Says where that stands which was made: as seen from the request, for the hub may stand under a path that it does not know of.
pub(super) fn located(mut response: Response, location: String) -> Response {
    let location = HeaderValue::try_from(location).expect("ids are plain text");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// An answer with the JSON of a plain value.
pub(super) fn json_of(value: &impl serde::Serialize) -> Response {
    json(StatusCode::OK, serde_json::to_vec(value).expect("answers are plain values with string keys"))
}

/// Appends a record with its payload and, where that is too large to stand in the record, its result.
pub(super) fn whole(out: &mut Vec<u8>, stored: &Stored) {
    let extra = [&stored.payload, &stored.result].into_iter().flatten().map(Json::len).sum::<usize>();
    out.reserve(stored.record.len() + extra + 32);
    match &stored.result {
        Some(_) => without(out, &stored.record, "result_omitted"),
        None => out.extend_from_slice(&stored.record),
    }
    with(out, "payload", stored.payload.as_ref());
    with(out, "result", stored.result.as_ref());
}

/// Puts a field at the end of the object that `out` ends with.
pub(super) fn with(out: &mut Vec<u8>, key: &str, value: Option<&Json>) {
    let Some(value) = value else { return };
    debug_assert_eq!(out.last(), Some(&b'}'));
    out.pop();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value.bytes());
    out.push(b'}');
}

/// A record of a task that was there before it was submitted.
pub(super) fn mark_existing(record: &mut Bytes) {
    let mut text = record.to_vec();
    with(&mut text, "existing", Some(&Json::trusted("true")));
    *record = text.into();
}

/// Appends `{"KEY":[…]}` of these texts.
pub(super) fn list<'a>(out: &mut Vec<u8>, key: &str, items: impl Iterator<Item = &'a Bytes>) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":[");
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
}

/// Appends an object less one of its own fields. Fields of that name further inside stay: people write those.
fn without(out: &mut Vec<u8>, object: &[u8], key: &str) {
    let (mut depth, mut at, mut field) = (0usize, 0, 1);
    let mut in_string = None;
    while at < object.len() {
        match object[at] {
            b'\\' if in_string.is_some() => at += 1,
            b'"' => match in_string.take() {
                None => in_string = Some(at + 1),
                Some(start) if depth == 1 && start == field + 1 && &object[start..at] == key.as_bytes() => {
                    let rest = after_value(object, at);
                    let before = &object[..field];
                    // Of two commas around the field one goes with it.
                    let (before, rest) = match (before.strip_suffix(b","), rest.strip_prefix(b",")) {
                        (_, Some(rest)) => (before, rest),
                        (Some(before), None) => (before, rest),
                        (None, None) => (before, rest),
                    };
                    out.extend_from_slice(before);
                    out.extend_from_slice(rest);
                    return;
                }
                Some(_) => {}
            },
            _ if in_string.is_some() => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => field = at + 1,
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(object);
}

/// What follows the plain value (no string, no structure) of a field, from the comma or brace on.
fn after_value(object: &[u8], at: usize) -> &[u8] {
    let rest = &object[at..];
    let end = rest.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(rest.len());
    &rest[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(record: &'static str, payload: Option<&'static str>, result: Option<&'static str>) -> String {
        let stored = Stored {
            record: Bytes::from_static(record.as_bytes()),
            payload: payload.map(Json::trusted),
            result: result.map(Json::trusted),
            links: None,
        };
        let mut out = Vec::new();
        whole(&mut out, &stored);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn large_parts_are_spliced_in() {
        assert_eq!(stored(r#"{"a":1}"#, None, None), r#"{"a":1}"#);
        assert_eq!(stored(r#"{"a":1}"#, Some("[1, 2]"), None), r#"{"a":1,"payload":[1, 2]}"#);
        assert_eq!(
            stored(r#"{"a":1,"result_omitted":true,"rev":2}"#, Some("null"), Some("\"x\"")),
            r#"{"a":1,"rev":2,"payload":null,"result":"x"}"#
        );
    }

    #[test]
    fn only_the_field_itself_is_left_out() {
        for (object, expected) in [
            (r#"{"k":true}"#, "{}"),
            (r#"{"k":true,"b":1}"#, r#"{"b":1}"#),
            (r#"{"a":1,"k":true}"#, r#"{"a":1}"#),
            (r#"{"a":{"k":true},"b":["k",{"k":1}],"k":true,"z":"k"}"#, r#"{"a":{"k":true},"b":["k",{"k":1}],"z":"k"}"#),
            (r#"{"a":"k","b":"\",\"k\":true","z":1}"#, r#"{"a":"k","b":"\",\"k\":true","z":1}"#),
        ] {
            let mut out = Vec::new();
            without(&mut out, object.as_bytes(), "k");
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{object}");
        }
    }

    #[test]
    fn lists() {
        let mut out = Vec::new();
        list(&mut out, "tasks", [Bytes::from_static(b"{}"), Bytes::from_static(b"1")].iter());
        assert_eq!(out, br#"{"tasks":[{},1]}"#);
        with(&mut out, "next_cursor", Some(&Json::trusted("\"c\"")));
        assert_eq!(out, br#"{"tasks":[{},1],"next_cursor":"c"}"#);
    }
}
