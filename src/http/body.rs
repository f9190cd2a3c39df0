//! Bodies: read within their bound, and within the room that all of them have together.
//!
//! A large body is a long piece of work, and small requests are not to wait for it. So it is read into values on a thread
//! of its own, of which there are few ([`App::aside`]), and it keeps its room until that is done: what waits for its turn
//! is as much in memory as what arrives. The threads that talk to everybody only ever parse what takes microseconds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::json::parse;
use super::state::{App, Room};
use crate::wire::{Code, Problem};

/// The longest a body may take to arrive. A client that is slower holds memory for nothing.
const BODY_READ_TIME: Duration = Duration::from_secs(60);
/// Bodies from this size on are parsed aside: it takes a tenth of a millisecond and more.
const ASIDE_BYTES: usize = 64 << 10;

/// A JSON body within [`HttpLimits::body_bytes_max`](super::HttpLimits::body_bytes_max).
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<JsonBody<T>, Problem> {
        let arrived = read_json(app, request, app.limits.body_bytes_max()).await?;
        arrived.with(app, |bytes| parse(bytes)).await.map(JsonBody)
    }
}

/// A JSON body that may be left out.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default + Send + 'static> FromRequest<Arc<App>> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<OptionalBody<T>, Problem> {
        let (parts, body) = request.into_parts();
        check_coding(&parts.headers)?;
        let arrived = read(app, body, &parts.headers, app.limits.body_bytes_max()).await?;
        if arrived.bytes.is_empty() {
            return Ok(OptionalBody(T::default()));
        }
        check_media_type(&parts.headers)?;
        arrived.with(app, |bytes| parse(bytes)).await.map(OptionalBody)
    }
}

/// The text of a body, and the room that it takes.
pub(super) struct Arrived<'a> {
    bytes: Bytes,
    room: Room<'a>,
}

impl Arrived<'_> {
    /// Makes something of the text, which is gone afterwards.
    pub(super) async fn with<T: Send + 'static>(
        self,
        app: &App,
        make: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let Arrived { bytes, room } = self;
        if bytes.len() < ASIDE_BYTES {
            return make(&bytes);
        }
        let made = app.aside(move || make(&bytes)).await;
        drop(room);
        made.unwrap_or_else(|| Err(Problem::new(Code::Internal, "the body could not be read")))
    }
}

/// The text of a body that is declared as JSON.
pub(super) async fn read_json<'a>(app: &'a App, request: Request, bytes_max: usize) -> Result<Arrived<'a>, Problem> {
    let (parts, body) = request.into_parts();
    check_coding(&parts.headers)?;
    check_media_type(&parts.headers)?;
    read(app, body, &parts.headers, bytes_max).await
}

/// Refuses a body that is packed: it would have to be unpacked without knowing how large it becomes.
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let packed = |coding: &&str| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity");
    match codings.flat_map(|codings| codings.split(',')).map(str::trim).find(packed) {
        None => Ok(()),
        Some(coding) => Err(Problem::new(
            Code::UnsupportedMediaType,
            format!("Content-Encoding: {coding} is not taken; send the body as it is"),
        )),
    }
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

async fn read<'a>(app: &'a App, body: Body, headers: &HeaderMap, bytes_max: usize) -> Result<Arrived<'a>, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let mut room = app.body_room();
    // All of it at once where the length is known, so that no two bodies get half of what each of them needs.
    if !room.grow(declared.unwrap_or(0)) {
        return Err(no_room());
    }
    let mut chunks = body.into_data_stream();
    let arriving = collect(&mut chunks, declared, bytes_max, &mut room);
    let whole = tokio::time::timeout(BODY_READ_TIME, arriving).await;
    let bytes = whole.unwrap_or_else(|_| Err(Problem::new(Code::InvalidJson, "the body did not arrive in time")))?;
    Ok(Arrived { bytes, room })
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body is larger than {bytes_max} bytes");
    Problem { limit: Some(bytes_max as u64), ..Problem::new(Code::PayloadTooLarge, detail) }
}

fn no_room() -> Problem {
    Problem::new(Code::Overloaded, "too many large bodies are arriving; try again later")
}

/// The whole body. Most are one chunk, which is then not copied.
async fn collect(
    chunks: &mut BodyDataStream,
    declared: Option<usize>,
    bytes_max: usize,
    room: &mut Room<'_>,
) -> Result<Bytes, Problem> {
    let mut length = 0;
    let mut next = async || match chunks.next().await {
        None => Ok(None),
        Some(Err(_)) => Err(Problem::new(Code::InvalidJson, "the body ended early")),
        Some(Ok(chunk)) => {
            length += chunk.len();
            match length {
                length if length > bytes_max => Err(too_large(bytes_max)),
                length if !room.grow(length) => Err(no_room()),
                _ => Ok(Some(chunk)),
            }
        }
    };
    let Some(first) = next().await? else { return Ok(Bytes::new()) };
    let Some(second) = next().await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(declared.unwrap_or(0).max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(chunk) = next().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn packed_bodies() {
        let check = |codings: &[&str], refused: Option<&str>| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
            }
            let got = check_coding(&headers).err().map(|problem| (problem.status, problem.detail));
            assert_eq!(got.as_ref().map(|(status, _)| *status), refused.map(|_| 415), "{codings:?}");
            assert!(refused.is_none_or(|coding| got.unwrap().1.contains(coding)), "{codings:?}");
        };
        check(&[], None);
        check(&["identity"], None);
        check(&["Identity, identity"], None);
        check(&["gzip"], Some("gzip"));
        check(&["identity, br"], Some("br"));
        check(&["identity", "deflate"], Some("deflate"));
        check(&["nonsense"], Some("nonsense"));
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes() {
        let all = crate::http::state::Rooms::new();
        for (length, chunks, taken) in [(100, 1, true), (101, 1, false), (100, 4, true), (104, 4, false)] {
            let chunk = Bytes::from(vec![b'x'; length / chunks]);
            let stream = futures::stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
            let mut stream = Body::from_stream(stream).into_data_stream();
            let got = collect(&mut stream, None, 100, &mut all.body()).await;
            assert_eq!(got.map(|whole| whole.len()).ok(), taken.then_some(length));
        }
    }

    /// Regression: a body of unknown length took room for the largest there may be, and eight of them all there is.
    #[tokio::test]
    async fn a_body_takes_as_much_room_as_it_has_bytes() {
        const MIB: usize = 1 << 20;
        let all = crate::http::state::Rooms::new();
        let mut rooms: Vec<Room<'_>> = Vec::new();
        for _ in 0..511 {
            rooms.push(all.body());
            assert!(rooms.last_mut().unwrap().grow(MIB));
        }
        let chunks = |chunks| {
            let chunk = Bytes::from(vec![b'x'; MIB / 4]);
            let stream = futures::stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
            Body::from_stream(stream).into_data_stream()
        };
        let small = collect(&mut chunks(4), None, 64 * MIB, &mut all.body()).await;
        assert_eq!(small.unwrap().len(), MIB);
        let large = collect(&mut chunks(5), None, 64 * MIB, &mut all.body()).await;
        assert_eq!(large.unwrap_err().code, Code::Overloaded);
        assert!(!all.body().grow(2 * MIB) && all.body().grow(1_000), "what is small is always taken");
        drop(rooms);
        assert!(all.body().grow(512 * MIB));
    }
}
