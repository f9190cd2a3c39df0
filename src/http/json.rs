//! JSON from outside, as values: the one reader of bodies and of what comes over sockets.
//!
//! All of it is read strictly ([`Strict`]). What is good is read once, straight from its bytes. Only what is bad is looked
//! at again, to say precisely what is wrong: whether it is JSON at all, and if so, which field.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::task::{OverBound, Strict};
use crate::wire::{Code, Problem};

/// How much of what somebody sent is said back to them, in characters: enough to recognise it.
const SAID_BACK_CHARS_MAX: usize = 200;
/// What some editors and shells put before a text. It is none of it, and JSON has no word for it.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The value of a JSON text, or what is wrong with it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(bytes);
    crate::task::read_strictly(bytes).map_err(|_| explain::<T>(bytes))
}

/// Takes the first JSON value from a text that may hold several. `None` when what follows is no JSON.
pub(super) fn first<T: DeserializeOwned>(text: &mut &str) -> Option<Result<T, Problem>> {
    *text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Strict<T>>();
    if let Ok(Strict(value)) = values.next()? {
        *text = &text[values.byte_offset()..];
        return Some(Ok(value));
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?.get();
    *text = &text[values.byte_offset()..];
    // A number or a word may run into what follows, and so be read alone but not here.
    Some(parse(value.as_bytes()))
}

/// Why `bytes` are no `T`.
fn explain<T: DeserializeOwned>(bytes: &[u8]) -> Problem {
    let malformed = |detail: String| Problem::new(Code::InvalidJson, detail);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return malformed("the body is empty".into());
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return malformed(format!("not UTF-8 from byte {} on", error.valid_up_to())),
    };
    if let Err(error) = <&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(text)) {
        return malformed(error.to_string());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let error = match serde_path_to_error::deserialize::<_, Strict<T>>(&mut json) {
        Ok(_) => return malformed("there is more after the JSON value".into()),
        Err(error) => error,
    };
    let path = cut(&error.path().to_string());
    let path = if path == "." { "" } else { path.as_str() };
    let said = error.inner().to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    wrong_field(path, said)
}

/// The problem of what serde said of the value at `path`.
fn wrong_field(path: &str, said: &str) -> Problem {
    let named = |start: &str| said.strip_prefix(start)?.split_once('`').map(|(name, _)| cut(name));
    if let Some(name) = named("unknown field `") {
        let field = child(path, &name);
        return Problem::new(Code::UnknownField, format!("{field} is not a known field")).at(field);
    }
    if let Some(name) = named("missing field `") {
        let field = child(path, &name);
        return Problem::new(Code::InvalidField, format!("{field} is missing")).at(field);
    }
    if let Some(name) = named("duplicate field `") {
        let field = child(path, &name);
        return Problem::new(Code::InvalidField, format!("{field} stands there twice")).at(field);
    }
    if let Some(limit) = OverBound::limit_in(said) {
        let problem = Problem::new(Code::LimitExceeded, format!("{path} {said}"));
        return Problem { limit: Some(limit), ..problem }.at(path);
    }
    let words = words(said);
    match path {
        "" => Problem::new(Code::InvalidField, format!("the whole {words}")),
        path => Problem::new(Code::InvalidField, format!("{path} {words}")).at(path),
    }
}

/// What serde says of a value, to be read after its name: without the names of our types, and of theirs.
fn words(said: &str) -> String {
    let wrong = said.strip_prefix("invalid type: ").or_else(|| said.strip_prefix("invalid value: "));
    let Some((found, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) else {
        return match said.starts_with("must ") {
            true => said.to_owned(),
            false => format!("is wrong: {said}"),
        };
    };
    let found = match found {
        "sequence" => "an array",
        "map" => "an object",
        found => ["integer `", "floating point `", "boolean `"]
            .iter()
            .find_map(|kind| found.strip_prefix(kind)?.strip_suffix('`'))
            .or_else(|| found.strip_prefix("string "))
            .unwrap_or(found),
    };
    let expected = match expected {
        "a boolean" => "true or false",
        expected => expected.strip_prefix("a borrowed ").unwrap_or(expected),
    };
    format!("must be {expected}, not {}", cut(found))
}

/// The beginning of a text that somebody sent.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SAID_BACK_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The path of field `name` of what stands at `path`. Serde reports an unknown field sometimes at itself, sometimes at
/// what it stands in.
fn child(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::NewTask;
    use crate::wire::{BATCH_LEN_MAX, BatchBody, LiveOp};

    fn check<T: DeserializeOwned>(body: &str, code: Code, field: Option<&str>) {
        let problem = parse::<T>(body.as_bytes()).err().unwrap_or_else(|| panic!("{body} was taken"));
        assert_eq!((problem.code, problem.field.as_deref()), (code, field), "{body}: {}", problem.detail);
    }

    #[test]
    fn each_wrong_body_is_told_apart() {
        use Code::*;
        for malformed in
            ["", " \n", "{", "hello", r#"{"task_type":"t""#, r#"{"task_type":"t"} x"#, r#"[1,"#, "\u{1}", r#"{'a':1}"#]
        {
            check::<NewTask>(malformed, InvalidJson, None);
        }
        for (wrong, field) in [
            ("[]", None),
            (r#"["t"]"#, None),
            ("null", None),
            ("\"t\"", None),
            (r#"{"task_type":7}"#, Some("task_type")),
            (r#"{"task_type":null}"#, Some("task_type")),
            (r#"{"task_type":"t","task_type":"u"}"#, Some("task_type")),
            (r#"{"task_type":"t","priority":"high"}"#, Some("priority")),
            (r#"{"task_type":"t","priority":1.5}"#, Some("priority")),
            (r#"{"task_type":"t","labels":{"k":1}}"#, Some("labels.k")),
            (r#"{"task_type":"t","labels":[]}"#, Some("labels")),
            (r#"{"task_type":"t","labels":{"k":"1","k":"2"}}"#, Some("labels.k")),
            (r#"{"task_type":"t","retry":[]}"#, Some("retry")),
            (r#"{"task_type":"t","run_at":"soon"}"#, Some("run_at")),
            (r#"{"task_type":"t","delay_ms":-1}"#, Some("delay_ms")),
            (r#"{"task_type":"t","parent_id":"x"}"#, Some("parent_id")),
            (r#"{"task_type":"t","retry":{"factor":"x"}}"#, Some("retry.factor")),
            (r#"{"task_type":"t","title":"\ud800"}"#, Some("title")),
        ] {
            check::<NewTask>(wrong, InvalidField, field);
        }
        check::<NewTask>(r#"{"task_type":"t","payloud":{}}"#, UnknownField, Some("payloud"));
        check::<NewTask>(r#"{"task_type":"t","retry":{"base":1}}"#, UnknownField, Some("retry.base"));
        check::<NewTask>(&format!(r#"{{"x":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000)), UnknownField, Some("x"));
        check::<BatchBody>(
            r#"{"tasks":[{"task_type":"t"},{"task_type":1}]}"#,
            InvalidField,
            Some("tasks[1].task_type"),
        );
        check::<BatchBody>("{}", InvalidField, Some("tasks"));
        check::<BatchBody>(r#"{"tasks":[{"task_type":"t","x":1}]}"#, UnknownField, Some("tasks[0].x"));
        check::<BatchBody>(r#"{"task":[]}"#, UnknownField, Some("task"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_not_json() {
        let problem = parse::<NewTask>(b"{\"task_type\":\"t\",\"payload\":\"\xff\"}").unwrap_err();
        assert_eq!(problem.code, Code::InvalidJson);
    }

    #[test]
    fn nesting_does_not_overflow_the_stack() {
        let deep = format!(r#"{{"task_type":"t","payload":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        let task: NewTask = parse(deep.as_bytes()).unwrap();
        assert!(task.check(1 << 20).is_err());
    }

    /// Regression: a word of 60 MB was said back whole, and details named the types of this program.
    #[test]
    fn what_is_wrong_is_said_in_plain_words() {
        let check = |rest: &str, expected: &str| {
            let problem = parse::<NewTask>(format!(r#"{{"task_type":"t",{rest}}}"#).as_bytes()).unwrap_err();
            assert_eq!(problem.detail, expected, "{rest}");
        };
        check(r#""priority":"high""#, "priority must be a whole number, not \"high\"");
        check(r#""priority":1.5"#, "priority must be a whole number, not 1.5");
        check(r#""delay_ms":-1"#, "delay_ms must be a whole number from 0 up, not -1");
        check(r#""max_attempts":true"#, "max_attempts must be a whole number from 0 up, not true");
        check(r#""retry":[]"#, "retry must be an object, not an array");
        check(r#""retry":{"factor":"2"}"#, "retry.factor must be a number, not \"2\"");
        check(r#""title":{}"#, "title must be a string, not an object");
        check(r#""title":["a"]"#, "title must be a string, not an array");
        check(r#""run_at":"soon""#, "run_at must be a time in RFC 3339, such as 2026-01-31T12:00:00Z");
        check(r#""colour":1"#, "colour is not a known field");
        let long = "x".repeat(1 << 20);
        for body in [
            format!(r#"{{"task_type":"t","priority":"{long}"}}"#),
            format!(r#"{{"task_type":"t","{long}":1}}"#),
            format!(r#"{{"task_type":"t","labels":{{"{long}":1}}}}"#),
        ] {
            let problem = parse::<NewTask>(body.as_bytes()).unwrap_err();
            assert!(problem.detail.len() < 1_000 && problem.field.unwrap().len() < 1_000);
        }
        assert_eq!(parse::<NewTask>(b"[]").unwrap_err().detail, "the whole must be an object, not an array");
    }

    #[test]
    fn null_is_the_same_as_absent_for_all_that_may_be_left_out() {
        let all = r#"{"task_type":"t","queue":null,"title":null,"description":null,"user_id":null,"labels":null,
            "priority":null,"run_at":null,"delay_ms":null,"max_attempts":null,"max_crashes":null,"parent_id":null,
            "timeout_ms":null,"unserved_ms":null,"retry":null}"#;
        let got: NewTask = parse(all.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&got).unwrap(), r#"{"task_type":"t"}"#);
        let retry: NewTask = parse(br#"{"task_type":"t","retry":{"base_ms":null,"jitter":null}}"#).unwrap();
        assert_eq!(retry.retry, Some(Default::default()));
    }

    #[test]
    fn counts_are_bounded_while_they_are_read() {
        let many = |item: &str, count: usize| vec![item; count].join(",");
        let check = |body: String, limit: u64, field: &str| {
            let problem = parse::<BatchBody>(body.as_bytes()).map(|_| ()).unwrap_err();
            let got = (problem.code, problem.limit, problem.field.as_deref());
            assert_eq!(got, (Code::LimitExceeded, Some(limit), Some(field)), "{}", problem.detail);
        };
        let task = r#"{"task_type":"t"}"#;
        assert!(parse::<BatchBody>(format!(r#"{{"tasks":[{}]}}"#, many(task, BATCH_LEN_MAX)).as_bytes()).is_ok());
        check(format!(r#"{{"tasks":[{}]}}"#, many(task, BATCH_LEN_MAX + 1)), 10_000, "tasks");
        // What stands behind the bound is not looked at.
        check(format!(r#"{{"tasks":[{},7]}}"#, many(task, BATCH_LEN_MAX + 1)), 10_000, "tasks");
        let labels = (0..17).map(|n| format!(r#""{n}":"v""#)).collect::<Vec<_>>().join(",");
        check(format!(r#"{{"tasks":[{{"task_type":"t","labels":{{{labels}}}}}]}}"#), 16, "tasks[0].labels");
        // Regression: what stands in workflows, which no batch may have, was counted for each of them.
        let workflow = format!(r#"{{"workflow":{{"group":[{}]}}}}"#, many("{}", 3_000));
        check(format!(r#"{{"tasks":[{}]}}"#, many(&workflow, 4)), 10_000, "tasks[3].workflow.group");
        let depending = format!(r#"{{"depends_on":[{}]}}"#, many(r#""@a""#, 9_000));
        check(format!(r#"{{"tasks":[{}]}}"#, many(&depending, 12)), 100_000, "tasks[11].depends_on");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        assert!(parse::<NewTask>("\u{feff}{\"task_type\":\"t\"}".as_bytes()).is_ok());
        let problem = parse::<NewTask>("\u{feff}\u{feff}{}".as_bytes()).unwrap_err();
        assert_eq!(problem.code, Code::InvalidJson);
        let mut text = "\u{feff}{\"op\":\"ping\"}";
        assert!(first::<LiveOp>(&mut text).unwrap().is_ok() && text.is_empty());
    }

    #[test]
    fn a_message_may_hold_several() {
        let mut text = "{\"op\":\"ping\",\"id\":1}\n {\"op\":7}\n7 [] nonsense";
        let mut next = || first::<LiveOp>(&mut text).map(|said| said.map_err(|problem| problem.field));
        assert_eq!(next().unwrap().unwrap().id, Some(1));
        assert_eq!(next().unwrap().unwrap_err().as_deref(), Some("op"));
        assert_eq!(next().unwrap().unwrap_err(), None);
        assert_eq!(next().unwrap().unwrap_err(), None);
        assert!(next().is_none());
    }
}
