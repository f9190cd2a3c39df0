//! A JSON text less some of its places.
//!
//! A place is the path of a JSON Pointer. At an array a step means the item of that number, and beyond RFC 6901 what is called so
//! in each of the items: a list of payloads is cut like each of them. What is cut out of an object is gone, whether it
//! stands there once or twice; an item of an array becomes `null`, so that the others keep their numbers.
//!
//! One pass over the text, however many places there are. What is cut nowhere stays to the byte. The text is well-formed, or
//! it would be no [`Json`]; where it were not, what is left ends with the text.

use super::Json;
use super::placeholders::{is_text, skip, string_end, value_end};

/// The steps that are left of a path.
pub type Steps<'p> = &'p [String];

/// Reads a path, which is empty or begins with a slash. `None`: it is none.
pub fn steps(path: &str) -> Option<Vec<String>> {
    let is_path = (path.is_empty() || path.starts_with('/')) && super::canonical::is_pointer(path);
    is_path.then(|| path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// The text of a path.
pub fn path(steps: Steps<'_>) -> String {
    steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

/// The text without what is at these places.
pub fn without(json: &Json, places: &[Steps<'_>]) -> Json {
    cut(json, places, false)
}

/// The text without what is at these places, from wherever in it one goes.
pub fn without_anywhere(json: &Json, places: &[Steps<'_>]) -> Json {
    cut(json, places, true)
}

fn cut(json: &Json, places: &[Steps<'_>], anywhere: bool) -> Json {
    let text = json.as_str();
    let mut out = String::with_capacity(text.len());
    if places.iter().any(|place| place.is_empty()) {
        return Json::null();
    }
    value(text, skip(text.as_bytes(), 0), places, anywhere, &mut out);
    Json::trusted(out)
}

/// Writes the value that begins at `at`. Answers where it ends.
fn value(text: &str, at: usize, places: &[Steps<'_>], anywhere: bool, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    let is_object = match bytes.get(at) {
        Some(b'{') if !places.is_empty() => true,
        Some(b'[') if !places.is_empty() => false,
        _ => {
            let end = value_end(bytes, at);
            out.push_str(text.get(at..end).unwrap_or_default());
            return end;
        }
    };
    out.push(if is_object { '{' } else { '[' });
    let (from, mut at) = (out.len(), at + 1);
    for number in 0.. {
        at = skip(bytes, at);
        if matches!(bytes.get(at), None | Some(b']' | b'}')) {
            break;
        }
        let name = is_object.then(|| {
            let end = string_end(bytes, at);
            let name = text.get(at..end).unwrap_or_default();
            at = skip(bytes, end);
            name
        });
        let mut within = match name {
            Some(name) => below(places, |step| is_text(name, step)),
            None => {
                let number = number.to_string();
                below(places, |step| *step == number)
            }
        };
        if anywhere || !is_object {
            within.extend(places);
            within.sort_unstable();
            within.dedup();
        }
        let is_cut = within.iter().any(|place| place.is_empty());
        if is_cut && is_object {
            at = value_end(bytes, at);
            continue;
        }
        if out.len() > from {
            out.push(',');
        }
        if let Some(name) = name {
            out.push_str(name);
            out.push(':');
        }
        if is_cut {
            out.push_str("null");
            at = value_end(bytes, at);
        } else {
            at = value(text, at, &within, anywhere, out);
        }
    }
    out.push(if is_object { '}' } else { ']' });
    at + 1
}

/// What is left of the places that begin with such a step.
fn below<'p>(places: &[Steps<'p>], is_step: impl Fn(&String) -> bool) -> Vec<Steps<'p>> {
    places
        .iter()
        .filter_map(|place| place.split_first().filter(|(step, _)| is_step(step)).map(|(_, rest)| rest))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn less(text: &str, paths: &[&str]) -> String {
        let places: Vec<Vec<String>> = paths.iter().map(|path| steps(path).unwrap()).collect();
        let places: Vec<Steps<'_>> = places.iter().map(Vec::as_slice).collect();
        without(&Json::parse_verbatim(text).unwrap(), &places).as_str().to_owned()
    }

    #[test]
    fn what_is_cut_is_gone_and_the_rest_stays_to_the_byte() {
        let text = r#"{"a":1.10,"b":{"c":"x","d":[ {"e":1}, 2 ]},"a\u002fb":"\ud83d\ude00","~":[0,1,2]}"#;
        for (paths, expected) in [
            (&["/a"][..], r#"{"b":{"c":"x","d":[ {"e":1}, 2 ]},"a\u002fb":"\ud83d\ude00","~":[0,1,2]}"#),
            (&["/b/c", "/a~1b", "/~0/1"], r#"{"a":1.10,"b":{"d":[ {"e":1}, 2 ]},"~":[0,null,2]}"#),
            (&["/b", "/b/c", "/~0"], r#"{"a":1.10,"a\u002fb":"\ud83d\ude00"}"#),
            (
                &["/x", "/a/b", "/b/d/7"],
                r#"{"a":1.10,"b":{"c":"x","d":[{"e":1},2]},"a\u002fb":"\ud83d\ude00","~":[0,1,2]}"#,
            ),
        ] {
            assert_eq!(less(text, paths), expected, "{paths:?}");
        }
        assert_eq!(less(r#"{"a":1,"\u0061":2,"b":3}"#, &["/a"]), r#"{"b":3}"#, "twice, and written otherwise");
        assert_eq!(less("[1,2]", &[""]), "null");
        assert_eq!(less("\"a\"", &["/a"]), "\"a\"");
    }

    #[test]
    fn a_name_at_an_array_is_looked_for_in_each_item() {
        assert_eq!(less(r#"[{"a":1,"b":2},{"a":3},7,[{"a":4}]]"#, &["/a"]), r#"[{"b":2},{},7,[{}]]"#);
        assert_eq!(less(r#"{"l":[{"0":1},{"0":2}]}"#, &["/l/0"]), r#"{"l":[null,{}]}"#);
    }

    #[test]
    fn anywhere() {
        let text = Json::parse_verbatim(r#"{"a":{"result":{"a":{"result":{"s":1,"t":2}},"s":3}},"s":4}"#).unwrap();
        let place = steps("/s").unwrap();
        let left = without_anywhere(&text, &[&place]);
        assert_eq!(left.as_str(), r#"{"a":{"result":{"a":{"result":{"t":2}}}}}"#);
    }

    #[test]
    fn paths() {
        assert_eq!(steps("/a~1b/~0/"), Some(vec!["a/b".to_owned(), "~".into(), String::new()]));
        assert_eq!((steps(""), steps("a"), steps("/~2"), steps("/~")), (Some(vec![]), None, None, None));
        assert_eq!(path(&steps("/a~1b/~0/").unwrap()), "/a~1b/~0/");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), "[a\"\\\\é]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let map = prop::collection::btree_map("[ab/~\"]{1,2}", inner.clone(), 0..4);
            prop_oneof![
                map.prop_map(|map| Value::Object(map.into_iter().collect())),
                prop::collection::vec(inner, 0..4).prop_map(Value::Array)
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_left_is_json_and_nothing_is_at_the_place(value in values(), names in prop::collection::vec("[ab/~\"0-2]{1,2}", 1..4), spaced: bool) {
            let text = if spaced { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let left = less(&text, &[&path(&names)]);
            let left: Value = serde_json::from_str(&left).unwrap();
            prop_assert!(left.pointer(&path(&names)).is_none_or(Value::is_null), "{left}");
            if value.pointer(&path(&names)).is_none() && !text.contains('[') {
                prop_assert_eq!(left, value);
            }
        }
    }
}
