//! Results in payloads.
//!
//! Anywhere in the payload of a task, `{"$result":"@a"}` stands for what another task of the same call left, or a part of it:
//! `{"$result":"@a","path":"/docs/0"}`, or something else where nothing is there: `"default":…`. It is put in when the task is
//! handed out; until then the payload is kept as it was sent, and so is every other byte of it afterwards.
//!
//! A payload is JSON already, so a placeholder is found in one pass over its bytes, however deep it stands: an object is one
//! if the key `$result` stands in it, written just so.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Invalid, Json};

/// The most placeholders of one payload.
const PLACEHOLDERS_MAX: usize = 1_000;
/// Results are kept for the next placeholder that names them up to so many bytes.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// What an object must have to be one.
const KEY: &[u8] = b"\"$result\"";

/// A place in a payload where a result belongs.
#[derive(Clone, Debug)]
pub struct Placeholder {
    /// Its bytes in the payload.
    pub range: Range<usize>,
    /// Of the task whose result it is, or of several.
    pub name: String,
    /// JSON Pointer into that.
    pub path: String,
    /// Where nothing is there.
    pub default: Option<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words<'a> {
    #[serde(rename = "$result")]
    result: String,
    #[serde(default)]
    path: String,
    /// `null` is one like any other.
    #[serde(default, borrow, deserialize_with = "present")]
    default: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Whether a payload may have some. Cheap.
pub fn has_placeholders(payload: &Json) -> bool {
    payload.as_str().contains("\"$result\"")
}

/// Finds the placeholders of a payload, in their order.
pub fn placeholders(payload: &Json) -> Result<Vec<Placeholder>, Invalid> {
    if !has_placeholders(payload) {
        return Ok(Vec::new());
    }
    let text = payload.as_str();
    let objects = objects(text.as_bytes());
    if objects.len() > PLACEHOLDERS_MAX {
        return Err(Invalid::limit("payload", PLACEHOLDERS_MAX as u64, "places where results belong"));
    }
    objects.into_iter().map(|range| read(text, range)).collect()
}

/// The outermost objects that have the key, in their order.
fn objects(text: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    // Of each object that is open: where it began, and whether it has the key; of each array, `None`.
    let mut open: Vec<Option<(usize, bool)>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' => open.push(Some((at, false))),
            b'[' => open.push(None),
            b'}' | b']' => {
                if let Some(Some((from, true))) = open.pop() {
                    // Those within it are part of it.
                    while found.pop_if(|inner| inner.start > from).is_some() {}
                    found.push(from..at + 1);
                }
            }
            b'"' => {
                let end = string_end(text, at);
                let is_key = text[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if is_key
                    && &text[at..end] == KEY
                    && let Some(Some((_, has_key))) = open.last_mut()
                {
                    *has_key = true;
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Behind the closing quote of a string.
pub(super) fn string_end(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn read(text: &str, range: Range<usize>) -> Result<Placeholder, Invalid> {
    let wrong = |why: String| Invalid::value("payload", format!("has a wrong $result at byte {}: {why}", range.start));
    let words: Words<'_> = serde_json::from_str(&text[range.clone()]).map_err(|why| wrong(why.to_string()))?;
    let name = words.result.strip_prefix('@').filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong("it must be the @ref of a task".to_owned()))?.to_owned();
    if !words.path.is_empty() && !words.path.starts_with('/') {
        return Err(wrong("path must be a JSON Pointer, such as /docs/0".to_owned()));
    }
    let default = words.default.map(|text| Json::trusted(text.get().to_owned()));
    Ok(Placeholder { range, name, path: words.path, default })
}

/// Why a payload could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfilled {
    /// Nothing is there, and no default.
    Nothing(String),
    /// It would be longer than a payload may be.
    TooLong,
}

/// The payload with a value for each of its placeholders. `result` gives what a name stands for as JSON, if it is there. The
/// outer error is of `result`.
pub fn fill<E>(
    payload: &Json,
    bytes_max: usize,
    mut result: impl FnMut(&str) -> Result<Option<Json>, E>,
) -> Result<Result<Json, Unfilled>, E> {
    let text = payload.as_str();
    let mut known: HashMap<String, Option<Json>> = HashMap::new();
    let mut kept = 0;
    let (mut filled, mut at) = (String::with_capacity(text.len()), 0);
    // They were found when the task was submitted; one that somebody put there since and that is wrong stays as it is.
    for range in objects(text.as_bytes()) {
        let Ok(place) = read(text, range) else { continue };
        if !known.contains_key(&place.name) {
            let whole = result(&place.name)?;
            kept += whole.as_ref().map_or(0, Json::len);
            if kept > KEPT_BYTES_MAX {
                known.clear();
                kept = whole.as_ref().map_or(0, Json::len);
            }
            known.insert(place.name.clone(), whole);
        }
        let whole = known.get(&place.name).and_then(Option::as_ref);
        let value = whole.and_then(|whole| point(whole.as_str(), &place.path));
        let value = match (value, &place.default) {
            (Some(value), _) => value,
            (None, Some(default)) => default.as_str(),
            (None, None) => return Ok(Err(Unfilled::Nothing(format!("@{}{}", place.name, place.path)))),
        };
        filled.push_str(&text[at..place.range.start]);
        filled.push_str(value);
        at = place.range.end;
        if filled.len() > bytes_max {
            return Ok(Err(Unfilled::TooLong));
        }
    }
    filled.push_str(&text[at..]);
    Ok(if filled.len() > bytes_max { Err(Unfilled::TooLong) } else { Ok(Json::trusted(filled)) })
}

/// The text of what a JSON Pointer leads to. One pass, however many steps the pointer has.
fn point<'t>(text: &'t str, path: &str) -> Option<&'t str> {
    let steps: Vec<String> = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    walk(text, skip(text.as_bytes(), 0), &steps).1
}

/// Walks through the value that begins at `at`. Answers where it ends, and what the steps lead to in it. Of a name that
/// stands twice in an object the last counts, as for most readers. It goes down only where the steps lead, and a result is
/// no deeper than others may be.
fn walk<'t>(text: &'t str, at: usize, steps: &[String]) -> (usize, Option<&'t str>) {
    let bytes = text.as_bytes();
    let Some((step, rest)) = steps.split_first() else {
        let end = value_end(bytes, at);
        return (end, text.get(at..end));
    };
    let is_object = match bytes.get(at) {
        Some(b'{') => true,
        Some(b'[') => false,
        _ => return (value_end(bytes, at), None),
    };
    let wanted: Option<usize> = step.parse().ok().filter(|_| step == "0" || !step.starts_with(['0', '+']));
    let (mut at, mut found) = (at + 1, None);
    for place in 0.. {
        at = skip(bytes, at);
        if matches!(bytes.get(at), None | Some(b']' | b'}')) {
            return (at + 1, found);
        }
        let leads = if is_object {
            let end = string_end(bytes, at);
            let is_name = text.get(at..end).is_some_and(|name| is_text(name, step));
            at = skip(bytes, end);
            is_name
        } else {
            wanted == Some(place)
        };
        let (end, inner) = if leads { walk(text, at, rest) } else { (value_end(bytes, at), None) };
        if leads {
            found = inner;
        }
        at = end;
    }
    (at, found)
}

/// The next byte that is a value, or the end of what that would stand in.
pub(super) fn skip(text: &[u8], from: usize) -> usize {
    let between = |byte: &&u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b':');
    from + text.iter().skip(from).take_while(between).count()
}

/// Behind the value that begins here.
pub(super) fn value_end(text: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0usize, from);
    while at < text.len() {
        match text[at] {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => at += text[at..].iter().take_while(|byte| !is_mark(**byte)).count().max(1),
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// What a number or a word ends at.
fn is_mark(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']')
}

/// Whether a string as it stands in JSON says this.
pub(super) fn is_text(json: &str, text: &str) -> bool {
    match json.contains('\\') {
        true => serde_json::from_str::<String>(json).is_ok_and(|said| said == text),
        false => json.trim_matches('"') == text && json.len() == text.len() + 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse_verbatim(text).unwrap()
    }

    fn filled(payload: &str) -> Result<String, Unfilled> {
        let result = |name: &str| {
            Ok::<_, std::convert::Infallible>(match name {
                "a" => Some(json(r#"{"docs": [ {"n":1.10}, null ], "10": "x", "a/b": 2, "~": 3}"#)),
                "list" => Some(json("[1, 2]")),
                "long" => Some(json(&format!("{:?}", "x".repeat(900)))),
                _ => None,
            })
        };
        let Ok(filled) = fill(&json(payload), 1_000, result);
        filled.map(|filled| filled.as_str().to_owned())
    }

    #[test]
    fn results_are_put_in_and_all_else_stays_byte_for_byte() {
        for (payload, expected) in [
            (r#"{ "x" : 1e400, "x":2 }"#, r#"{ "x" : 1e400, "x":2 }"#),
            (r#"{"$result":"@list"}"#, "[1, 2]"),
            (r#"[ {"$result" : "@list"} , 1.10]"#, "[ [1, 2] , 1.10]"),
            (
                r#"{"a":{"$result":"@a","path":"/docs/0"},"b":{"path":"/docs/0/n","$result":"@a"}}"#,
                r#"{"a":{"n":1.10},"b":1.10}"#,
            ),
            (r#"{"$result":"@a","path":"/docs/1"}"#, "null"),
            (r#"{"$result":"@a","path":"/10"}"#, r#""x""#),
            (r#"[{"$result":"@a","path":"/a~1b"},{"$result":"@a","path":"/~0"}]"#, "[2,3]"),
            (r#"{"$result":"@a","path":"/docs/2","default":{"$result":"literal"}}"#, r#"{"$result":"literal"}"#),
            (r#"{"$result":"@nobody","default":null}"#, "null"),
            // No key of an object.
            (
                r#"["$result", {"k":"$result"}, {"\"$result\"":1}]"#,
                r#"["$result", {"k":"$result"}, {"\"$result\"":1}]"#,
            ),
            (r#"{"t":"{\"$result\":\"@a\"}"}"#, r#"{"t":"{\"$result\":\"@a\"}"}"#),
        ] {
            assert_eq!(filled(payload).as_deref(), Ok(expected), "{payload}");
        }
        for (payload, expected) in [
            (r#"{"$result":"@nobody"}"#, "@nobody"),
            (r#"{"$result":"@a","path":"/docs/2"}"#, "@a/docs/2"),
            (r#"{"$result":"@a","path":"/docs/00"}"#, "@a/docs/00"),
            (r#"{"$result":"@list","path":"/x"}"#, "@list/x"),
            (r#"{"$result":"@a","path":"/10/0"}"#, "@a/10/0"),
        ] {
            assert_eq!(filled(payload), Err(Unfilled::Nothing(expected.to_owned())), "{payload}");
        }
        assert!(filled(r#"{"$result":"@long"}"#).is_ok());
        assert_eq!(filled(r#"[{"$result":"@long"},{"$result":"@long"}]"#), Err(Unfilled::TooLong));
    }

    #[test]
    fn what_is_no_placeholder_is_said() {
        for wrong in [
            r#"{"$result":1}"#,
            r#"{"$result":"a"}"#,
            r#"{"$result":"@"}"#,
            r#"{"$result":"@a","path":"docs"}"#,
            r#"{"$result":"@a","extra":1}"#,
            r#"{"$result":"@a","$result":"@b"}"#,
        ] {
            let why = placeholders(&json(&format!("[1, {wrong}]"))).unwrap_err();
            assert!(why.field == "payload" && why.detail.contains("at byte 4"), "{wrong}: {why}");
        }
        assert_eq!(placeholders(&json(r#"[{"$result":"@a"},{"$result":"@b"}]"#)).unwrap().len(), 2);
    }

    /// Whatever stands there, it is found where every reader of JSON finds it.
    #[test]
    fn a_pointer_leads_where_others_do() {
        fn value(random: &mut fastrand::Rng, depth: u32) -> String {
            let space = |random: &mut fastrand::Rng| ["", " ", "\n\t"][random.usize(0..3)];
            let names = ["a", "b", "0", "1", "a/b", "~", "\\u0061", "\\\"", "", "x{"];
            match random.u32(0..if depth == 0 { 4 } else { 8 }) {
                0 => random.i32(-9..99).to_string(),
                1 => "null".into(),
                2 => "\"]}, \\\" :[\"".into(),
                3 => "1.5e3".into(),
                4 | 5 => {
                    let items: Vec<String> = (0..random.u32(0..4)).map(|_| value(random, depth - 1)).collect();
                    format!("[{0}{1}{0}]", space(random), items.join([",", " , "][random.usize(0..2)]))
                }
                _ => {
                    let item = |random: &mut fastrand::Rng| {
                        let name = names[random.usize(0..names.len())];
                        format!("\"{name}\"{}:{}{}", space(random), space(random), value(random, depth - 1))
                    };
                    let items: Vec<String> = (0..random.u32(0..5)).map(|_| item(random)).collect();
                    format!("{{{0}{1}{0}}}", space(random), items.join([",", "\n,"][random.usize(0..2)]))
                }
            }
        }
        let mut random = fastrand::Rng::with_seed(9);
        let mut there = 0;
        for _ in 0..40_000 {
            let text = format!(" {} ", value(&mut random, 5));
            let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
            let steps = ["a", "b", "0", "1", "2", "a~1b", "~0", "\"", "", "00", "x{"];
            let path: String =
                (0..random.usize(0..4)).map(|_| format!("/{}", steps[random.usize(0..steps.len())])).collect();
            let got = point(&text, &path).map(|found| serde_json::from_str::<serde_json::Value>(found).unwrap());
            assert_eq!(got.as_ref(), whole.pointer(&path), "{path} in {text}");
            there += usize::from(got.is_some() && !path.is_empty());
        }
        assert!(there > 500, "{there}");
    }

    /// A payload may be as deep as it is long.
    #[test]
    fn a_deep_payload_is_read_in_one_pass() {
        let depth = 200_000;
        let text = format!("{}{{\"$result\":\"@list\"}}{}", "[".repeat(depth), "]".repeat(depth));
        let deep = Json::trusted(text);
        assert_eq!(placeholders(&deep).unwrap().len(), 1);
        let Ok(out) = fill(&deep, usize::MAX, |_| Ok::<_, std::convert::Infallible>(Some(json("7"))));
        assert_eq!(out.unwrap().len(), 2 * depth + 1);
    }
}
