//! Bodies: read within their bound, parsed fast, and refused with the field that is wrong.
//!
//! A good body is parsed once, straight from its bytes. Only a bad one is looked at again, to say precisely what is
//! wrong: whether it is JSON at all, and if so, which field.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::state::App;
use crate::wire::{Code, Problem};

/// How much of a body that is too large is still read, so that the client gets to see the answer: a connection that is
/// closed while bytes arrive is reset, and the answer lost.
const OVERSIZE_READ_BYTES_MAX: usize = 16 << 20;
/// How long that may take.
const OVERSIZE_READ_TIME: Duration = Duration::from_secs(5);
/// The longest a body may take to arrive. A client that is slower holds memory for nothing.
const BODY_READ_TIME: Duration = Duration::from_secs(60);

/// A JSON body within [`HttpLimits::body_bytes_max`](super::HttpLimits::body_bytes_max).
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<JsonBody<T>, Problem> {
        let bytes = read_json(app, request, app.limits.body_bytes_max()).await?;
        parse(&bytes).map(JsonBody)
    }
}

/// A JSON body that may be left out.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<OptionalBody<T>, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(app, body, &parts.headers, app.limits.body_bytes_max()).await?;
        if bytes.is_empty() {
            return Ok(OptionalBody(T::default()));
        }
        check_media_type(&parts.headers)?;
        parse(&bytes).map(OptionalBody)
    }
}

/// The bytes of a body that is declared as JSON.
pub(super) async fn read_json(app: &App, request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    check_media_type(&parts.headers)?;
    read(app, body, &parts.headers, bytes_max).await
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let declared = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_json = |essence: &str| {
        essence.eq_ignore_ascii_case("application/json")
            || essence.to_ascii_lowercase().strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"))
    };
    match declared {
        Some(_) if is_json(essence) => Ok(()),
        Some(_) => Err(Problem::new(Code::UnsupportedMediaType, format!("{essence:?} is not application/json"))),
        None => Err(Problem::new(Code::UnsupportedMediaType, "the header Content-Type: application/json is missing")),
    }
}

async fn read(app: &App, body: Body, headers: &HeaderMap, bytes_max: usize) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared == Some(0) {
        return Ok(Bytes::new());
    }
    let mut chunks = body.into_data_stream();
    if declared.is_none_or(|length| length <= bytes_max) {
        let Some(_room) = app.body_room(declared.unwrap_or(bytes_max)) else {
            return Err(Problem::new(Code::Overloaded, "too many large bodies are arriving; try again later"));
        };
        let whole = tokio::time::timeout(BODY_READ_TIME, collect(&mut chunks, declared, bytes_max)).await;
        let whole = whole.map_err(|_| Problem::new(Code::InvalidJson, "the body did not arrive in time"))?;
        if let Some(whole) = whole.map_err(|_| Problem::new(Code::InvalidJson, "the body ended early"))? {
            return Ok(whole);
        }
    }
    let _ = tokio::time::timeout(OVERSIZE_READ_TIME, discard(&mut chunks)).await;
    let detail = format!("the body is larger than {bytes_max} bytes");
    Err(Problem { limit: Some(bytes_max as u64), ..Problem::new(Code::PayloadTooLarge, detail) })
}

/// The whole body, or `None` where it is larger than `bytes_max`. Most bodies are one chunk, which is then not copied.
async fn collect(
    chunks: &mut BodyDataStream,
    declared: Option<usize>,
    bytes_max: usize,
) -> Result<Option<Bytes>, axum::Error> {
    let Some(first) = chunks.next().await.transpose()? else { return Ok(Some(Bytes::new())) };
    let Some(second) = chunks.next().await.transpose()? else {
        return Ok((first.len() <= bytes_max).then_some(first));
    };
    let mut whole = BytesMut::with_capacity(declared.unwrap_or(0).max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while whole.len() <= bytes_max {
        match chunks.next().await.transpose()? {
            Some(chunk) => whole.extend_from_slice(&chunk),
            None => return Ok(Some(whole.freeze())),
        }
    }
    Ok(None)
}

async fn discard(chunks: &mut BodyDataStream) {
    let mut read = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        read += chunk.len();
        if read > OVERSIZE_READ_BYTES_MAX {
            break;
        }
    }
}

/// The value of a JSON text, or what is wrong with it.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|_| explain::<T>(bytes))
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
    let error = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => return malformed("there is more after the JSON value".into()),
        Err(error) => error,
    };
    let path = error.path().to_string();
    let path = if path == "." { "" } else { path.as_str() };
    let said = error.inner().to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    wrong_field(path, said)
}

/// The problem of what serde said of the value at `path`.
fn wrong_field(path: &str, said: &str) -> Problem {
    let named = |start: &str| said.strip_prefix(start)?.split_once('`').map(|(name, _)| name);
    if let Some(name) = named("unknown field `") {
        let field = child(path, name);
        return Problem::new(Code::UnknownField, format!("{field} is not a known field")).at(field);
    }
    if let Some(name) = named("missing field `") {
        let field = child(path, name);
        return Problem::new(Code::InvalidField, format!("{field} is missing")).at(field);
    }
    if let Some(name) = named("duplicate field `") {
        let field = child(path, name);
        return Problem::new(Code::InvalidField, format!("{field} stands there twice")).at(field);
    }
    match path {
        "" => Problem::new(Code::InvalidField, format!("the body is wrong: {said}")),
        path => Problem::new(Code::InvalidField, format!("{path} is wrong: {said}")).at(path),
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
    use crate::wire::BatchBody;

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
            ("{}", Some("task_type")),
            ("[]", None),
            ("null", None),
            ("\"t\"", None),
            (r#"{"task_type":7}"#, Some("task_type")),
            (r#"{"task_type":null}"#, Some("task_type")),
            (r#"{"task_type":"t","task_type":"u"}"#, Some("task_type")),
            (r#"{"task_type":"t","priority":"high"}"#, Some("priority")),
            (r#"{"task_type":"t","priority":300}"#, Some("priority")),
            (r#"{"task_type":"t","priority":1.5}"#, Some("priority")),
            (r#"{"task_type":"t","labels":{"k":1}}"#, Some("labels.k")),
            (r#"{"task_type":"t","labels":[]}"#, Some("labels")),
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
        check::<BatchBody>(r#"{"tasks":[{"task_type":"t"},{}]}"#, InvalidField, Some("tasks[1].task_type"));
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

    #[test]
    fn media_types() {
        let check = |declared: Option<&str>, allowed: bool| {
            let mut headers = HeaderMap::new();
            if let Some(declared) = declared {
                headers.insert(header::CONTENT_TYPE, declared.parse().unwrap());
            }
            assert_eq!(check_media_type(&headers).is_ok(), allowed, "{declared:?}");
        };
        check(Some("application/json"), true);
        check(Some("Application/JSON; charset=utf-8"), true);
        check(Some("application/vnd.api+json"), true);
        check(Some("text/plain"), false);
        check(Some("application/x-www-form-urlencoded"), false);
        check(None, false);
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes() {
        for (length, chunks, taken) in [(100, 1, true), (101, 1, false), (100, 4, true), (104, 4, false)] {
            let chunk = Bytes::from(vec![b'x'; length / chunks]);
            let stream = futures::stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
            let mut stream = Body::from_stream(stream).into_data_stream();
            let got = collect(&mut stream, None, 100).await.unwrap();
            assert_eq!(got.map(|whole| whole.len()), taken.then_some(length));
        }
    }
}
