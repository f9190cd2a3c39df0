//! Large results: taken as they come, given as they are.
//!
//! Neither is ever in memory as a whole. What is taken may be anything, and the hub's own page is of the same origin as what
//! is given back; so a browser is told to save it and not to show it, to guess no other type than the declared one, and should
//! it show it all the same, to run nothing in it.

use std::fs::File;
use std::io::SeekFrom;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::body::check_coding;
use super::caller::Caller;
use super::dashboard::matches;
use super::path::Path;
use super::query::NoQuery;
use super::splice;
use super::worker_http::attempt_of;
use crate::hub::CallerHub;
use crate::task::{CONTENT_TYPE_BYTES_MAX, LargeResult, TaskId};
use crate::wire::{AttemptAnswer, Code, Problem};

/// How long each part of an upload may take, so that one that stands still holds no room.
const PART_TIME: Duration = Duration::from_secs(30);
const PART_BYTES: usize = 64 << 10;
/// What is read of a file at once.
const READ_BYTES: usize = 64 << 10;
/// What is not declared to be anything.
const UNDECLARED: &str = "application/octet-stream";
/// Tells a result that was streamed from one that stands in a JSON object.
const STREAMED_HEADER: HeaderName = HeaderName::from_static("taskhub-streamed");

/// `PUT /api/v1/tasks/{id}/attempts/{attempt}/result`.
pub(super) async fn put(
    Caller(hub): Caller,
    _: NoQuery,
    Path(path): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (task_id, attempt) = attempt_of(path)?;
    let (parts, body) = request.into_parts();
    check_coding(&parts.headers)?;
    if parts.headers.contains_key(header::CONTENT_RANGE) {
        return Err(Problem::wrong("Content-Range", "must not stand here: a result is uploaded whole"));
    }
    let content_type = content_type(&parts.headers)?;
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut upload = hub.upload(task_id, attempt, content_type, declared).await?;
    let mut chunks = body.into_data_stream();
    let mut part = 0;
    let mut late = tokio::time::Instant::now() + PART_TIME;
    loop {
        let next = tokio::time::timeout_at(late, chunks.next());
        let wrong = |detail: &str| Problem::new(Code::InvalidField, detail);
        match next.await.map_err(|_| wrong("the result did not arrive in time"))? {
            None => break,
            Some(Err(_)) => return Err(wrong("the result ended early")),
            Some(Ok(chunk)) => {
                part += chunk.len();
                upload.write(chunk).await?;
            }
        }
        if part >= PART_BYTES {
            part = 0;
            late = tokio::time::Instant::now() + PART_TIME;
        }
    }
    let cancel_requested = upload.finish().await?;
    Ok(splice::json_of(&AttemptAnswer { cancel_requested }))
}

/// What an upload is declared to be.
fn content_type(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut declared = headers.get_all(header::CONTENT_TYPE).iter();
    let wrong = || Problem::wrong("Content-Type", "must be one media type, such as application/pdf");
    let Some(value) = declared.next() else { return Ok(UNDECLARED) };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(Problem::over("Content-Type", CONTENT_TYPE_BYTES_MAX as u64, "bytes"));
    }
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |word: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !word.is_empty() && word.bytes().all(known)
    };
    match essence.split_once('/') {
        Some((kind, of_it)) if declared.next().is_none() && is_token(kind) && is_token(of_it) => Ok(text),
        _ => Err(wrong()),
    }
}

/// The file of a result, or the part of it that is asked for.
pub(super) async fn give(
    hub: &CallerHub,
    task_id: TaskId,
    large: &LargeResult,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", large.id);
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|known| matches(known, &tag)) {
        return Ok(described(StatusCode::NOT_MODIFIED.into_response(), task_id, large, &tag));
    }
    // A part of another file than the one that is meant is of no use.
    let is_meant = text(header::IF_RANGE).is_none_or(|known| known.trim() == tag);
    let part = match text(header::RANGE).filter(|_| is_meant) {
        Some(asked) => Part::of(asked, large.bytes),
        None => Part::All,
    };
    let bytes = large.bytes;
    let (status, from, to) = match part {
        Part::All => (StatusCode::OK, 0, bytes),
        Part::Some { from, to } => (StatusCode::PARTIAL_CONTENT, from, to),
        Part::None => {
            let problem = Problem::new(Code::RangeNotSatisfiable, format!("the result has {bytes} bytes"));
            let mut response = problem.into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, plain(format!("bytes */{bytes}")));
            return Ok(response);
        }
    };
    let gone = || Problem::from(crate::hub::Refusal::TaskNotFound);
    let file = hub.open_result(task_id, large).await?.ok_or_else(gone)?;
    let body =
        read(file, from, to - from).await.map_err(|_| Problem::new(Code::Internal, "the file cannot be read"))?;
    let mut response = described(body.into_response(), task_id, large, &tag);
    *response.status_mut() = status;
    let out = response.headers_mut();
    out.insert(header::CONTENT_LENGTH, (to - from).into());
    if status == StatusCode::PARTIAL_CONTENT {
        out.insert(header::CONTENT_RANGE, plain(format!("bytes {from}-{}/{bytes}", to - 1)));
    }
    Ok(response)
}

async fn read(file: File, from: u64, bytes: u64) -> std::io::Result<Body> {
    let mut file = tokio::fs::File::from_std(file);
    if from > 0 {
        file.seek(SeekFrom::Start(from)).await?;
    }
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(bytes), READ_BYTES)))
}

/// What is said of a result whatever part of it is given.
fn described(mut response: Response, task_id: TaskId, large: &LargeResult, tag: &str) -> Response {
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, plain(large.content_type.to_string()));
    out.insert(header::ETAG, plain(tag.to_owned()));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    out.insert(header::CONTENT_DISPOSITION, plain(format!("attachment; filename=\"{task_id}\"")));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    out.insert(STREAMED_HEADER, HeaderValue::from_static("true"));
    response
}

fn plain(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(UNDECLARED))
}

/// What a `Range` asks for, of so many bytes.
#[derive(Debug, PartialEq)]
enum Part {
    /// All of it: also where several parts are asked for, or it cannot be read.
    All,
    Some {
        from: u64,
        to: u64,
    },
    /// What is not there.
    None,
}

impl Part {
    fn of(asked: &str, bytes: u64) -> Part {
        Part::read(asked, bytes).unwrap_or(Part::All)
    }

    /// `None` for what is to be passed over.
    fn read(asked: &str, bytes: u64) -> Option<Part> {
        let (unit, range) = asked.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        let number = |digits: &str| {
            let are_digits = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            // One that is too large for a number is beyond the end of any file.
            are_digits.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        if first.is_empty() {
            return Some(match number(last)? {
                0 => Part::None,
                _ if bytes == 0 => Part::All,
                count => Part::Some { from: bytes.saturating_sub(count), to: bytes },
            });
        }
        let from = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        match (from > last, from >= bytes) {
            (true, _) => None,
            (_, true) => Some(Part::None),
            _ => Some(Part::Some { from, to: last.saturating_add(1).min(bytes) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file() {
        let check = |asked: &str, expected: Part| assert_eq!(Part::of(asked, 100), expected, "{asked}");
        let some = |from, to| Part::Some { from, to };
        check("bytes=0-0", some(0, 1));
        check("bytes=0-99", some(0, 100));
        check("Bytes = 10-19", some(10, 20));
        check("bytes=90-200", some(90, 100));
        check("bytes=90-99999999999999999999999", some(90, 100));
        check("bytes=99-", some(99, 100));
        check("bytes=-1", some(99, 100));
        check("bytes=-500", some(0, 100));
        check("bytes=100-", Part::None);
        check("bytes=99999999999999999999999-", Part::None);
        check("bytes=-0", Part::None);
        for passed_over in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,5-6",
            "bytes=+1-2",
            "lines=0-1",
            "bytes=1",
        ] {
            check(passed_over, Part::All);
        }
        assert_eq!(Part::of("bytes=-5", 0), Part::All);
        assert_eq!(Part::of("bytes=0-", 0), Part::None);
    }

    #[test]
    fn declared_types() {
        let check = |declared: &[&str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in declared {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(content_type(&headers).ok(), expected, "{declared:?}");
        };
        check(&[], Some("application/octet-stream"));
        check(&["text/csv; charset=utf-8"], Some("text/csv; charset=utf-8"));
        check(&["image/svg+xml"], Some("image/svg+xml"));
        check(&["é/x"], None);
        check(&["text"], None);
        check(&["text/"], None);
        check(&["text/a b"], None);
        check(&["text/a", "text/b"], None);
        check(&[&format!("text/{}", "a".repeat(251))], None);
        check(&[&format!("text/{}", "a".repeat(250))], Some(&format!("text/{}", "a".repeat(250))));
    }
}
