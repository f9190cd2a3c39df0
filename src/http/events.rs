//! Live clients on server-sent events: one subscription, the same lines, the same order.
//!
//! `GET /api/v1/events` takes the filters of a list, and `limit`, `order`, `max_hz`, `logs`. Each line is the `data` of an
//! event named after its type; a mark carries an id, from which a browser resumes by itself.
//!
//! A browser gives an event stream up for good at the first answer that is not 200. So a hub that has no room now answers
//! 200, says `bye` and when to come back (`retry:`), and ends; what is wrong for good has its own status.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::caller::{Caller, CountedBy};
use super::live_op::{TaskSubscription, Topic};
use super::query::Params;
use super::session::{Carrier, Ending, Session};
use super::state::{App, SocketKind};
use crate::hub::CallerHub;
use crate::lived::{self, TooLate};
use crate::task::LOG_LINES_MAX;
use crate::wire::{CloseCode, LogsSpec, Problem, Since, SnapshotOrder, SnapshotSpec, bye_line};

/// The name of the one subscription, where lines carry one.
const SUB: &str = "events";

/// `GET /api/v1/events`.
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    Caller(hub): Caller,
    by: CountedBy,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let tasks = asked(query.as_deref(), last)?;
    let guard = match app.open_socket(SocketKind::Events, by) {
        Ok(guard) => guard,
        Err(crowded) => {
            let mut goodbye = Vec::new();
            write_bye(&mut goodbye, crowded.close_code(), app.clients());
            return Ok(stream_of(Body::from(goodbye)));
        }
    };
    // One message on its way: what waits longer waits in the feed, where something newer can replace it.
    let (sender, mut messages) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut stream = Stream {
            sender,
            epoch: hub.epoch().into(),
            stall: app.live.stall,
            clients: guard.clients(),
            is_begun: false,
        };
        if let Some(Ending::Close(code, _)) = serve(&mut stream, app, hub, tasks).await.err()
            && code != CloseCode::TooSlow
        {
            let mut goodbye = Vec::new();
            write_bye(&mut goodbye, code, guard.clients());
            let _ = stream.put(goodbye).await;
        }
        drop(guard);
    });
    Ok(stream_of(Body::from_stream(
        futures::stream::poll_fn(move |cx| messages.poll_recv(cx)).map(Ok::<_, Infallible>),
    )))
}

fn stream_of(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // What a proxy packs, it gathers first.
        (header::CACHE_CONTROL, "no-store, no-transform"),
        // Proxies that gather answers would hold back what is live.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

/// What the query and the id of the last event ask for.
fn asked(query: Option<&str>, last: Option<&str>) -> Result<TaskSubscription, Problem> {
    let mut params = Params::of(query)?;
    let filter = params.filter()?;
    let max_hz = match params.text("max_hz") {
        Some(text) => Some(text.parse().map_err(|_| Problem::wrong("max_hz", "must be a number"))?),
        None => None,
    };
    let tail = params.number("logs", 0, LOG_LINES_MAX as u64)?;
    let limit = params.number("limit", 1, u64::from(u32::MAX))?.map(|limit| limit as u32);
    let order = match params.text("order").as_deref() {
        None | Some("desc") => SnapshotOrder::Desc,
        Some("asc") => SnapshotOrder::Asc,
        Some(_) => return Err(Problem::wrong("order", "must be asc or desc")),
    };
    params.finish()?;
    // An id that is none of ours cannot be resumed from.
    let since = last.and_then(|id| {
        let (epoch, rev) = id.rsplit_once(':')?;
        Some(Since { epoch: epoch.to_owned(), rev: rev.parse().ok()? })
    });
    let logs = tail.map(|tail| LogsSpec { tail: Some(tail as u32) });
    TaskSubscription::checked(filter, SnapshotSpec { limit, order }, since, max_hz, logs).map_err(|mut problem| {
        problem.field = problem.field.map(|field| field.replace("snapshot.", ""));
        problem
    })
}

struct Stream {
    sender: mpsc::Sender<Bytes>,
    epoch: Box<str>,
    stall: Duration,
    /// How many clients the hub had when this one came.
    clients: usize,
    /// Something was sent already.
    is_begun: bool,
}

impl Stream {
    async fn put(&mut self, message: Vec<u8>) -> Result<(), Ending> {
        match lived::timeout(self.stall, self.sender.send(message.into())).await {
            Ok(sent) => sent.map_err(|_| Ending::Gone),
            Err(TooLate) => Err(Ending::Close(CloseCode::TooSlow, "too slow")),
        }
    }
}

impl Carrier for Stream {
    async fn send(&mut self, lines: &mut Vec<Bytes>) -> Result<(), Ending> {
        let mut message = Vec::with_capacity(lines.iter().map(|line| line.len() + 32).sum());
        if !std::mem::replace(&mut self.is_begun, true) {
            // For a hub that goes without a goodbye. It is no event of its own, and goes with the first.
            write_retry(&mut message, CloseCode::Restarting, self.clients);
        }
        for line in lines.drain(..) {
            write_event(&mut message, &line, &self.epoch);
        }
        self.put(message).await
    }
}

/// A line as an event. Every line begins with its type, and only a mark has nothing but a `rev` behind it.
fn write_event(out: &mut Vec<u8>, line: &[u8], epoch: &str) {
    let kind = line.strip_prefix(br#"{"type":""#).and_then(|rest| rest.split(|byte| *byte == b'"').next());
    let kind = kind.unwrap_or(b"message");
    if kind == b"mark" {
        let rev = line.strip_prefix(br#"{"type":"mark","rev":"#).and_then(|rest| rest.strip_suffix(b"}"));
        for part in [b"id: ", epoch.as_bytes(), b":", rev.unwrap_or_default(), b"\n"] {
            out.extend_from_slice(part);
        }
    }
    if kind == b"reset" {
        // What was shown is void, and so is the place it could be resumed from, until the next mark.
        out.extend_from_slice(b"id:\n");
    }
    for part in [b"event: ", kind, b"\ndata: ", line, b"\n\n"] {
        out.extend_from_slice(part);
    }
}

/// Says when to come back: a browser waits as long after every end of the stream, each client as long as it was told, so
/// that they do not all come at once.
fn write_retry(out: &mut Vec<u8>, code: CloseCode, clients: usize) {
    let [least, most] = code.retry_ms(clients);
    out.extend_from_slice(format!("retry: {}\n", fastrand::u64(least..=most)).as_bytes());
}

/// The last event of a stream. A browser comes back after it; programs know from its code whether they should.
fn write_bye(out: &mut Vec<u8>, code: CloseCode, clients: usize) {
    write_retry(out, code, clients);
    write_event(out, &bye_line(code, clients), "");
}

/// Serves a client until one side has enough. Never returns `Ok`.
async fn serve(stream: &mut Stream, app: Arc<App>, hub: CallerHub, tasks: TaskSubscription) -> Result<(), Ending> {
    let closed = stream.sender.clone();
    let mut session = Session::new(app, hub, None);
    session.greet(None, stream).await?;
    session.subscribe(None, SUB.into(), Topic::Tasks(tasks), stream).await?;
    if !session.is_subscribed() {
        // The question was checked before, so it is the hub that cannot answer it now.
        return Err(Ending::Close(CloseCode::Overloaded, "overloaded"));
    }
    loop {
        tokio::select! {
            () = closed.closed() => return Err(Ending::Gone),
            () = session.credentials_changed() => session.is_still_known()?,
            () = session.ready() => {
                session.ended()?;
                session.is_still_known()?;
                session.pass_on(stream).await?;
            }
            () = tokio::time::sleep_until(session.next_at()) => session.on_time(Instant::now(), stream).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_events() {
        let mut out = Vec::new();
        write_event(&mut out, br#"{"type":"progress","task_id":"x"}"#, "e1");
        write_event(&mut out, br#"{"type":"mark","rev":42}"#, "e1");
        write_event(&mut out, br#"{"type":"reset","sub":"events"}"#, "e1");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "event: progress\ndata: {\"type\":\"progress\",\"task_id\":\"x\"}\n\nid: e1:42\nevent: mark\ndata: {\"type\":\"mark\",\"rev\":42}\n\nid:\nevent: reset\ndata: {\"type\":\"reset\",\"sub\":\"events\"}\n\n"
        );
    }

    #[test]
    fn queries() {
        let id = "01890000-0000-7000-8000-000000000001";
        let tasks = asked(Some(&format!("task_id={id}&logs=5&max_hz=2&limit=7&order=asc")), Some("e:1:42")).unwrap();
        assert_eq!((tasks.limit, tasks.max_hz, tasks.log_tail), (7, Some(2.0), Some(5)));
        assert_eq!(tasks.since, Some(Since { epoch: "e:1".into(), rev: 42 }));
        assert_eq!(asked(None, Some("nonsense")).unwrap().since, None);
        for (query, field) in
            [("limit=1001", "limit"), ("max_hz=x", "max_hz"), ("max_hz=-1", "max_hz"), ("logs=5", "logs"), ("q=x", "q")]
        {
            assert_eq!(asked(Some(query), None).unwrap_err().field.as_deref(), Some(field), "{query}");
        }
    }
}
