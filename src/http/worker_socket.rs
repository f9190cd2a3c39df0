//! Workers on a WebSocket.
//!
//! One future owns the socket. It reads whatever is there before it answers, gathers what the hub pushes, writes that as
//! frames into one buffer, and flushes once. While a worker takes nothing, the hub still listens to it for a while, so
//! that two sides that write to each other do not wait for each other for ever.
//!
//! Leases are the engine's: this file only says that the worker was heard. A message that is JSON but wrong is answered
//! and the socket stays; one that is no JSON closes it.

mod hello;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::header;
use axum::response::Response;
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use self::hello::introduce;
use super::accepts;
use super::caller::{Arriving, CountedBy};
use super::gate::{self, until_ended};
use super::json::{first, parse};
use super::query::NoQuery;
use super::refusal::accept_and_close;
use super::state::{App, FRAME_FACTOR, SocketGuard, SocketKind};
use super::submit::{check_key, not_empty};
use super::upgrade::Upgrade;
use super::worker_http::{text_for, write_task};
use super::workflows::spawn_route;
use crate::access::{Principal, Right};
use crate::hub::{CallerHub, HubError, Pushed, Report, SubmitKey, WorkerLink};
use crate::keys::{Ended, Keys};
use crate::lived::{self, Deadline};
use crate::task::{Json, PayloadFault, Spawner, TaskId};
use crate::wire::{
    BatchBody, CloseCode, Code, Held, Problem, WORKER_PROTOCOL, WorkerOp, WorkerRefresh, WorkerSays, bye_line,
};

/// How long a worker may take to introduce itself.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long the other side may take to close, once it was told.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// After how many leases of silence the connection counts as dead. Its tasks are gone after one.
const SILENCE_LEASES_MAX: u32 = 3;
/// What is read at once. Messages are small; a larger one takes several reads.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// What is gathered before it is written.
const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// The most operations taken from a worker that does not read its answers. Each answer is some 100 bytes that wait.
const UNANSWERED_MAX: usize = 1_024;

/// `GET /api/v1/worker/ws`.
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    Arriving(hub): Arriving,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let guard = match app.open_socket(SocketKind::Worker, CountedBy::Nothing) {
        Ok(guard) => guard,
        Err(crowded) => {
            let upgrade = Upgrade::from_request_parts(&mut parts, &()).await?;
            let told = accept_and_close(app, upgrade, WORKER_PROTOCOL, crowded.close_code(), crowded.words());
            return told.ok_or_else(|| crowded.into());
        }
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|why| Problem::wrong("Upgrade", &format!("must be a WebSocket handshake: {why}")))?;
    let message_bytes_max = app.limits.body_bytes_max();
    let upgrade = upgrade
        .protocols([WORKER_PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        // Room for a task with its payload and checkpoint on top of a full buffer; no more is written before that is out.
        .max_write_buffer_size(2 * WRITE_BUFFER_BYTES + 2 * message_bytes_max)
        .max_message_size(message_bytes_max)
        .max_frame_size(FRAME_FACTOR * message_bytes_max);
    let known = upgrade.selected_protocol().is_some() || !parts.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    Ok(upgrade.on_upgrade(move |socket| run(socket, app, hub, guard, known)))
}

async fn run(mut socket: WebSocket, app: Arc<App>, hub: CallerHub, guard: SocketGuard, known: bool) {
    let ending =
        if known { serve(&mut socket, &app, hub).await } else { Ending::Close(CloseCode::UnknownProtocol, "") };
    if let Ending::Close(code, reason) = ending {
        let _ = tokio::time::timeout(CLOSE_TIME, close(&mut socket, code, reason, guard.clients())).await;
    }
    drop(guard);
}

/// How a connection ends.
enum Ending {
    /// The other side is gone already.
    Gone,
    Close(CloseCode, &'static str),
}

/// Says why, and waits until the other side has heard it; else its last frames would be cut off.
async fn close(socket: &mut WebSocket, code: CloseCode, reason: &'static str, clients: usize) {
    if code == CloseCode::Restarting {
        let _ = socket.feed(Message::Text(text(bye_line(code, clients)))).await;
    }
    let frame = CloseFrame { code: code as u16, reason: Utf8Bytes::from_static(reason) };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

async fn serve(socket: &mut WebSocket, app: &App, mut hub: CallerHub) -> Ending {
    let (mut link, welcome, rest) = match lived::timeout(HELLO_TIME, introduce(socket, app, &mut hub)).await {
        Ok(Ok(introduced)) => introduced,
        Ok(Err(ending)) => return ending,
        Err(_) => return Ending::Close(CloseCode::BadMessage, "no hello came in time"),
    };
    let lease = Duration::from_millis(app.options().engine.lease_ms);
    let watch_every = (lease / 3).max(Duration::from_millis(1));
    let mut watch = std::pin::pin!(tokio::time::sleep(watch_every));
    let mut nobody = Box::pin(ended(app.keys().clone(), hub.who().clone()));
    let mut connection = WorkerConnection {
        socket,
        app,
        hub,
        is_renewed: false,
        outbox: VecDeque::from([Say::Text(welcome)]),
        unflushed: false,
        unanswered: 0,
        stops: Vec::new(),
        stops_flushed: Vec::new(),
    };
    let silence = lease * SILENCE_LEASES_MAX;
    let mut silent = Deadline::after(silence);
    let mut pushes = Vec::new();
    if let Err(ending) = connection.take(&rest, &link).await {
        return ending;
    }
    loop {
        // Backpressure: while too much waits for the writer, this socket is written and not read, so only its worker waits.
        let (listens, room) = (link.has_room(), link.room());
        let wake = tokio::select! {
            received = connection.receive(listens) => Wake::Received(received),
            () = room, if !listens => Wake::Room,
            pushed = link.next(&mut pushes), if connection.outbox.is_empty() => Wake::Pushes(pushed),
            () = &mut watch => Wake::Watch,
            ended = &mut nobody => Wake::Ended(ended),
        };
        match wake {
            Wake::Received(Received::Heard(text)) => {
                silent = Deadline::after(silence);
                link.heard();
                if let Err(ending) = connection.take(&text, &link).await {
                    return ending;
                }
                if std::mem::take(&mut connection.is_renewed) {
                    nobody = Box::pin(ended(app.keys().clone(), connection.hub.who().clone()));
                }
            }
            Wake::Received(Received::Other) => {
                for Held { task_id, attempt } in connection.stops_flushed.drain(..) {
                    link.told_to_stop(task_id, attempt);
                }
            }
            Wake::Received(Received::Ended(ending)) => return ending,
            Wake::Ended(ended) => {
                let (code, reason) = gate::ending(ended);
                return Ending::Close(code, reason);
            }
            Wake::Pushes(Err(HubError::Stopped)) => return restarting(),
            // The worker reconnects with what it holds; what could not be handed to it goes to others.
            Wake::Pushes(Err(_)) => return Ending::Close(CloseCode::Overloaded, "overloaded"),
            Wake::Pushes(Ok(())) => {
                for push in pushes.drain(..) {
                    match push {
                        Pushed::Replaced => {
                            return Ending::Close(CloseCode::Replaced, "replaced by a newer connection");
                        }
                        Pushed::Goodbye => return restarting(),
                        push => connection.outbox.push_back(Say::Push(push)),
                    }
                }
            }
            // The worker was not read from, so its silence counts only from now on.
            Wake::Room => {
                silent = Deadline::after(silence);
                link.heard();
            }
            Wake::Watch => {
                let now = Instant::now();
                if !listens {
                    silent = Deadline::after(silence);
                    link.heard();
                } else if silent.is_over(now) {
                    return Ending::Close(CloseCode::NoPong, "nothing was heard");
                }
                watch.as_mut().reset(silent.at().min(now + watch_every));
            }
        }
    }
}

/// Resolves once this caller is nobody any more.
async fn ended(keys: Arc<Keys>, who: Arc<Principal>) -> Ended {
    until_ended(&keys, &who).await
}

/// Why the future of a connection goes on.
enum Wake {
    Received(Received),
    Room,
    Pushes(Result<(), HubError>),
    Watch,
    /// The worker's credential is over.
    Ended(Ended),
}

/// The socket of a worker, and what is still to be written to it.
struct WorkerConnection<'a> {
    socket: &'a mut WebSocket,
    app: &'a App,
    /// The hub, as the other end has it.
    hub: CallerHub,
    /// Its token was renewed.
    is_renewed: bool,
    outbox: VecDeque<Say>,
    /// Whether something was written that is not flushed.
    unflushed: bool,
    /// Operations taken since everything was last out.
    unanswered: usize,
    /// Attempts of which a `stop` was written, and not flushed yet.
    stops: Vec<Held>,
    /// Attempts of which a `stop` was flushed, and the hub does not know that yet.
    stops_flushed: Vec<Held>,
}

/// Something to say to the worker. What the hub pushed is encoded only when it can be written.
enum Say {
    Push(Pushed),
    Text(String),
}

/// What came from the worker, or became of the socket.
enum Received {
    Heard(Utf8Bytes),
    /// A ping, which the library answers, or the outbox became empty.
    Other,
    Ended(Ending),
}

impl WorkerConnection<'_> {
    /// Writes as much as goes, and waits for the next message where it `listens`.
    async fn receive(&mut self, listens: bool) -> Received {
        std::future::poll_fn(|cx| self.poll_receive(listens, cx)).await
    }

    fn poll_receive(&mut self, listens: bool, cx: &mut Context<'_>) -> Poll<Received> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(true)) => return Poll::Ready(Received::Other),
            Poll::Ready(Ok(false)) | Poll::Pending => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Received::Ended(Ending::Gone)),
        }
        let unheard = (self.unflushed || !self.outbox.is_empty()) && self.unanswered > UNANSWERED_MAX;
        if !listens || unheard {
            return Poll::Pending;
        }
        Pin::new(&mut *self.socket).poll_next(cx).map(|message| match message {
            Some(Ok(Message::Text(text))) => Received::Heard(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::Other,
            Some(Ok(Message::Binary(_))) => Received::Ended(binary()),
            Some(Ok(Message::Close(_))) | None => Received::Ended(Ending::Gone),
            Some(Err(error)) => Received::Ended(broken(&error)),
        })
    }

    /// Writes what waits. Ready with `true` when that emptied the outbox, with `false` when there was nothing to do.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, axum::Error>> {
        if self.outbox.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(false));
        }
        while !self.outbox.is_empty() {
            std::task::ready!(Pin::new(&mut *self.socket).poll_ready(cx))?;
            let say = self.outbox.pop_front();
            if let Some(Say::Push(Pushed::Stop { task_id, attempt, .. })) = say {
                self.stops.push(Held { task_id, attempt });
            }
            if let Some(text) = say.and_then(encode) {
                Pin::new(&mut *self.socket).start_send(Message::Text(text))?;
                self.unflushed = true;
            }
        }
        std::task::ready!(Pin::new(&mut *self.socket).poll_flush(cx))?;
        self.unflushed = false;
        self.unanswered = 0;
        self.stops_flushed.append(&mut self.stops);
        Poll::Ready(Ok(true))
    }

    /// Goes on with a newer token. One that is not valid leaves the old one; one of somebody else ends the connection.
    async fn renew(&mut self, token: &str) -> Result<Option<String>, Ending> {
        let who = match gate::authenticated(self.app.keys(), token, self.hub.address()).await {
            Ok(who) => who,
            Err(problem) => return Ok(Some(error_text(&problem))),
        };
        if who.credential.holder() != self.hub.who().credential.holder()
            || !(who.may(Right::Work) || who.may(Right::Submit))
        {
            return Err(Ending::Close(CloseCode::Unauthenticated, "the token is another caller's"));
        }
        self.hub = self.app.as_caller(who, self.hub.address());
        self.is_renewed = true;
        Ok(None)
    }

    /// Does what each JSON object of a message asks for.
    async fn take(&mut self, text: &str, link: &WorkerLink) -> Result<(), Ending> {
        let mut rest = text;
        while !rest.bytes().all(|byte| byte.is_ascii_whitespace()) {
            let said: Result<WorkerSays, Problem> = first(&mut rest).ok_or(not_json())?;
            self.unanswered += 1;
            let op = said.and_then(|says| says.op().map_err(|why| Problem::new(Code::InvalidField, why)));
            let answer = match op {
                Ok(WorkerOp::Refresh(WorkerRefresh { token })) => self.renew(&token).await?,
                Ok(op) => act(op, &self.hub, link).await,
                Err(problem) => Some(error_text(&problem)),
            };
            self.outbox.extend(answer.map(Say::Text));
        }
        Ok(())
    }
}

/// Does what a worker asks for, and says what is to be answered at once. What it says of a lost attempt is refused, not
/// wrong; reports are answered when they are on disk.
async fn act(op: WorkerOp, hub: &CallerHub, link: &WorkerLink) -> Option<String> {
    if let Some((id, held)) = about(&op)
        && let Err(error) = hub.holds(held.task_id)
    {
        return Some(refused_text(id, held, &error.into()));
    }
    let (held, taken) = match op {
        WorkerOp::Hello(_) => {
            return Some(error_text(&Problem::new(Code::InvalidField, "a connection has one hello")));
        }
        WorkerOp::Progress { task_id, attempt, progress, checkpoint } => {
            (Held { task_id, attempt }, link.progress(task_id, attempt, progress, checkpoint))
        }
        WorkerOp::Log { task_id, attempt, lines } => {
            (Held { task_id, attempt }, link.log(task_id, attempt, accepts::lines(lines)))
        }
        WorkerOp::Complete { task_id, attempt, result } => {
            link.report(task_id, attempt, accepts::complete(Some(result)));
            return None;
        }
        WorkerOp::Fail { task_id, attempt, error, retryable, retry_after_ms } => {
            link.report(task_id, attempt, Report::Fail { error, retryable, retry_after_ms });
            return None;
        }
        WorkerOp::Cancelled { task_id, attempt } => {
            link.report(task_id, attempt, Report::Cancelled);
            return None;
        }
        WorkerOp::Release { task_id, attempt } => {
            link.report(task_id, attempt, Report::Release);
            return None;
        }
        WorkerOp::Spawn { id, task_id, attempt, key, tasks } => {
            // Few do: the others' futures are no larger for it.
            let spawned = Box::pin(spawn(hub, link, id, Spawner { task_id, attempt }, key, &tasks)).await;
            return spawned.err().map(|problem| refused_text(id, Held { task_id, attempt }, &problem));
        }
        // A renewed token is no work.
        WorkerOp::Refresh(_) | WorkerOp::Heartbeat => return None,
        WorkerOp::Drain => {
            link.retire();
            return None;
        }
    };
    taken.err().map(|error| refused_text(None, held, &error.into()))
}

/// The attempt that an operation is about.
fn about(op: &WorkerOp) -> Option<(Option<u64>, Held)> {
    match *op {
        WorkerOp::Progress { task_id, attempt, .. }
        | WorkerOp::Log { task_id, attempt, .. }
        | WorkerOp::Complete { task_id, attempt, .. }
        | WorkerOp::Fail { task_id, attempt, .. }
        | WorkerOp::Cancelled { task_id, attempt }
        | WorkerOp::Release { task_id, attempt } => Some((None, Held { task_id, attempt })),
        WorkerOp::Spawn { id, task_id, attempt, .. } => Some((id, Held { task_id, attempt })),
        WorkerOp::Hello(_) | WorkerOp::Refresh(_) | WorkerOp::Heartbeat | WorkerOp::Drain => None,
    }
}

/// Reads the tasks that an attempt adds, and hands them on.
async fn spawn(
    hub: &CallerHub,
    link: &WorkerLink,
    id: Option<u64>,
    spawner: Spawner,
    key: Option<String>,
    tasks: &Json,
) -> Result<(), Problem> {
    // The names in errors are those of the message then, and of the same call over HTTP.
    let BatchBody { tasks: new } = parse(format!("{{\"tasks\":{}}}", tasks.as_str()).as_bytes())?;
    not_empty(&new)?;
    let key = key.map(|key| -> Result<SubmitKey, Problem> {
        check_key("key", &key)?;
        Ok(SubmitKey::new(&hub.who().whose(), &spawn_route(spawner.task_id), &key, tasks.bytes()))
    });
    Ok(link.spawn(id, spawner, new, key.transpose()?).await?)
}

/// A push as its message. Those that end the connection are none.
fn encode(say: Say) -> Option<Utf8Bytes> {
    let push = match say {
        Say::Text(text) => return Some(text.into()),
        Say::Push(push) => push,
    };
    Some(match push {
        Pushed::Run(handed) => {
            let mut text = text_for(&handed);
            text.extend_from_slice(br#"{"type":"run","task":"#);
            write_task(&mut text, &handed);
            self::text(text.into())
        }
        Pushed::Stop { task_id, attempt, reason } => {
            let reason = reason
                .map_or(String::new(), |reason| format!(r#","reason":{}"#, serde_json::Value::String(reason.into())));
            format!(r#"{{"type":"cancel","task_id":"{task_id}","attempt":{attempt}{reason}}}"#).into()
        }
        Pushed::Ack { task_id, attempt } => {
            format!(r#"{{"type":"ack","task_id":"{task_id}","attempt":{attempt}}}"#).into()
        }
        Pushed::Refused { task_id, attempt, refusal } => {
            refused_text(None, Held { task_id, attempt }, &refusal.into()).into()
        }
        Pushed::Spawned { id, task_id, attempt, outcome: Ok(task_ids) } => {
            let said = Said { id, task_ids: Some(&task_ids), ..Said::of("spawned", Held { task_id, attempt }) };
            said.text().into()
        }
        Pushed::Spawned { id, task_id, attempt, outcome: Err(error) } => {
            refused_text(id, Held { task_id, attempt }, &error.into()).into()
        }
        Pushed::Drain => Utf8Bytes::from_static(r#"{"type":"drain"}"#),
        Pushed::Goodbye | Pushed::Replaced => return None,
    })
}

/// Lines are made of JSON texts.
fn text(line: Bytes) -> Utf8Bytes {
    Utf8Bytes::try_from(line).expect("records and JSON texts are UTF-8")
}

/// An answer as it is written.
#[derive(Default, Serialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(flatten)]
    held: Option<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_ids: Option<&'a [TaskId]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [PayloadFault],
}

impl<'a> Said<'a> {
    fn of(kind: &'static str, held: Held) -> Said<'a> {
        Said { kind, held: Some(held), ..Said::default() }
    }

    fn with(self, problem: &'a Problem) -> Said<'a> {
        let (code, detail, field) = (problem.code.as_str(), &problem.detail, problem.field.as_deref());
        Said { code: Some(code), detail: Some(detail), field, errors: &problem.errors, ..self }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("ids and texts are JSON")
    }
}

/// The answer to what was said of an attempt, and cannot be.
fn refused_text(id: Option<u64>, held: Held, problem: &Problem) -> String {
    Said { id, ..Said::of("refused", held) }.with(problem).text()
}

/// The answer to everything else that is wrong.
fn error_text(problem: &Problem) -> String {
    Said { kind: "error", ..Said::default() }.with(problem).text()
}

fn restarting() -> Ending {
    Ending::Close(CloseCode::Restarting, "restarting")
}

fn not_json() -> Ending {
    Ending::Close(CloseCode::BadMessage, "not JSON")
}

fn binary() -> Ending {
    Ending::Close(CloseCode::BadMessage, "binary messages are not understood")
}

/// The frames broke the protocol or a bound, or the connection broke.
fn broken(error: &axum::Error) -> Ending {
    // The library tells these apart only in words.
    let text = error.to_string();
    if text.contains("too long") || text.contains("too big") {
        Ending::Close(CloseCode::TooBig, "too big")
    } else if text.contains("UTF-8") || text.contains("utf-8") {
        Ending::Close(CloseCode::BadMessage, "not UTF-8")
    } else {
        Ending::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::hello::welcome;
    use super::*;
    use crate::hub::{HandedOut, Refusal};
    use crate::task::{Json, Task};

    const ID: &str = "01890000-0000-7000-8000-00000000002a";

    #[test]
    fn messages_hold_several_objects() {
        let text = format!(
            "{{\"op\":\"heartbeat\"}}\n{{\"op\":\"complete\",\"task_id\":\"{ID}\",\"attempt\":1,\"result\":{{\n\"a\": 1}}}}\n\n7 {{\"op\":\"drain\",\"x\":1}}\n{{\"op\":\"drain\"}} nonsense"
        );
        let mut rest = text.as_str();
        let mut next = || first::<WorkerSays>(&mut rest);
        assert!(matches!(next().unwrap().unwrap().op(), Ok(WorkerOp::Heartbeat)));
        assert!(matches!(next().unwrap().unwrap().op(), Ok(WorkerOp::Complete { attempt: 1, .. })));
        assert_eq!(next().unwrap().unwrap_err().code, Code::InvalidField);
        assert_eq!(next().unwrap().unwrap_err().field.as_deref(), Some("x"));
        assert!(matches!(next().unwrap().unwrap().op(), Ok(WorkerOp::Drain)));
        assert!(next().is_none());
    }

    /// Regression: an array in place of an object was read as its fields in order; and a line of a log, or the words of a
    /// failure, that read oddly took the rest of their message along.
    #[test]
    fn what_a_worker_says_is_read_strictly_but_for_its_words() {
        let check = |rest: &str, expected: Result<(), &str>| {
            let text = format!(r#"{{"task_id":"{ID}","attempt":1,{rest}}}"#);
            let got = first::<WorkerSays>(&mut text.as_str()).unwrap().map(|_| ());
            let got = got.as_ref().map_err(|problem| problem.field.as_deref().unwrap_or_default());
            assert_eq!(got.copied(), expected, "{text}");
        };
        for (wrong, field) in [
            (r#""op":"progress","progress":[]"#, "progress"),
            (r#""op":"progress","progress":[50]"#, "progress"),
            (r#""op":"progress","progress":{"counters":[1,2,3]}"#, "progress.counters"),
            (r#""op":"fail","error":["kind"]"#, "error"),
            (r#""op":"log","lines":[["info","m"]]"#, "lines[0]"),
            (r#""op":"log","lines":{}"#, "lines"),
            (r#""op":"log","lines":["m"]"#, "lines[0]"),
            (r#""op":"log","lines":[{"message":"m","colour":"red"}]"#, "lines[0].colour"),
            (r#""op":"hello","holding":[["01890000-0000-7000-8000-00000000002a",1]]"#, "holding[0]"),
            (
                r#""op":"hello","holding":[{"task_id":"01890000-0000-7000-8000-00000000002a","attempt":1,"x":1}]"#,
                "holding[0].x",
            ),
        ] {
            check(wrong, Err(field));
        }
        for good in [
            r#""op":"log","lines":[{"level":"WARNING","message":"a"},{"level":7,"message":{"a":1}},{"message":"\ud800"},{}]"#,
            r#""op":"fail","error":{"message":"cut \ud83d"}"#,
            r#""op":"fail","error":{"kind":null,"message":["a"],"details":null}"#,
            r#""op":"hello","holding":null,"task_types":null,"concurrency":null,"lines":null,"progress":null"#,
            r#""op":"progress","progress":{"counters":{"success":3.0,"failed":null}}"#,
        ] {
            check(good, Ok(()));
        }
        let held = vec![format!(r#"{{"task_id":"{ID}","attempt":1}}"#); 1_001];
        check(&format!(r#""op":"hello","holding":[{}]"#, held[1..].join(",")), Ok(()));
        check(&format!(r#""op":"hello","holding":[{}]"#, held.join(",")), Err("holding"));
        check(&format!(r#""op":"hello","queues":[{}]"#, vec![r#""q""#; 101].join(",")), Err("queues"));
    }

    /// Of a task the newest lines are kept; more than those are not held either while a message is read.
    #[test]
    fn of_more_lines_than_are_kept_the_newest_are_read() {
        for count in [9_999, 10_000, 10_001, 30_001] {
            let lines: Vec<_> = (1..=count).map(|n| format!(r#"{{"message":"{n}"}}"#)).collect();
            let text = format!(r#"{{"op":"log","lines":[{}]}}"#, lines.join(","));
            let lines = first::<WorkerSays>(&mut text.as_str()).unwrap().unwrap().lines.unwrap();
            assert_eq!(lines.len(), count.min(10_000));
            assert_eq!(lines.last().unwrap().message, count.to_string());
            assert_eq!(lines[0].message, (count + 1 - lines.len()).to_string());
        }
    }

    #[test]
    fn pushes_as_messages() {
        let record = format!(
            r#"{{"task_id":"{ID}","task_type":"t","queue":"default","priority":0,"status":"running","attempt":2,"tries":1,"max_attempts":1,"crashes":1,"max_crashes":3,"created_at":"2026-01-01T00:00:00.000Z","updated_at":"2026-01-01T00:00:00.000Z","rev":7}}"#
        );
        let task = Arc::new(Task::parse(record.as_bytes()).unwrap());
        let task_id = task.task_id;
        let text = |push| encode(Say::Push(push)).unwrap().as_str().to_owned();
        let run = text(Pushed::Run(HandedOut {
            task: task.clone(),
            payload: Some(Json::trusted("{\"a\": 1}")),
            checkpoint: Some(Json::trusted("[5]")),
        }));
        let says: crate::wire::HubSays = serde_json::from_str(&run).unwrap();
        let got = says.task.unwrap();
        assert_eq!((says.kind.as_str(), got.task_id, says.attempt), ("run", task_id, Some(2)));
        assert_eq!((got.payload.unwrap().as_str(), says.checkpoint.unwrap().as_str()), ("{\"a\": 1}", "[5]"));
        let run = text(Pushed::Run(HandedOut { task, payload: None, checkpoint: None }));
        let says: crate::wire::HubSays = serde_json::from_str(&run).unwrap();
        assert!(says.checkpoint.is_none() && says.task.unwrap().payload.is_none());
        assert_eq!(
            text(Pushed::Stop { task_id, attempt: 2, reason: Some("no \"more\"".into()) }),
            format!(r#"{{"type":"cancel","task_id":"{ID}","attempt":2,"reason":"no \"more\""}}"#)
        );
        assert_eq!(
            text(Pushed::Ack { task_id, attempt: 2 }),
            format!(r#"{{"type":"ack","task_id":"{ID}","attempt":2}}"#)
        );
        let spawned = |outcome| text(Pushed::Spawned { id: Some(7), task_id, attempt: 2, outcome });
        assert_eq!(
            spawned(Ok(vec![task_id])),
            format!(r#"{{"type":"spawned","id":7,"task_id":"{ID}","attempt":2,"task_ids":["{ID}"]}}"#)
        );
        let says: crate::wire::HubSays = serde_json::from_str(&spawned(Err(HubError::StorageUnavailable))).unwrap();
        assert_eq!(
            (says.kind.as_str(), says.id, says.code.as_deref()),
            ("refused", Some(7), Some("storage_unavailable"))
        );
        let refused = text(Pushed::Refused { task_id, attempt: 2, refusal: Refusal::LeaseLost });
        assert!(refused.starts_with(&format!(
            r#"{{"type":"refused","task_id":"{ID}","attempt":2,"code":"lease_lost","detail":""#
        )));
        assert_eq!(
            welcome(10_000, &[(task_id, 1)], &[]),
            format!(
                r#"{{"type":"welcome","lease_ms":10000,"heartbeat_ms":3000,"keep":[{{"task_id":"{ID}","attempt":1}}],"drop":[]}}"#
            )
        );
    }
}
