//! Live clients on a WebSocket: what they ask is read here, what they get is the [`Session`]'s business.
//!
//! One future owns the socket. It writes as many lines as are there in one message, and flushes once; while a client takes
//! nothing, nothing is read from it either, and after [`LiveTimes::stall`](super::session::LiveTimes::stall) it is closed.
//! A message that is JSON but wrong is answered and the socket stays; one that is no JSON closes it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::caller::{Caller, check_origin};
use super::live_op::{Ask, ask, first};
use super::session::{Carrier, Ending, Session, bye_line};
use super::state::{App, FRAME_FACTOR, SocketGuard, SocketKind};
use crate::wire::{CloseCode, Code, LIVE_PROTOCOL, LiveOp, Problem};

/// The largest message of a client: a filter with all its values.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// What is read at once. Zeroed before each read, and held by every connection: messages are small and rare.
const READ_BUFFER_BYTES: usize = 2 << 10;
/// What is gathered before it is written.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// A message is flushed before the next is written, so this bounds one message: a page, or a single record with all at
/// its limits.
const WRITE_BUFFER_BYTES_MAX: usize = 4 << 20;
/// How long the other side may take to close, once it was told.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// `GET /api/v1/ws`.
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    Caller(_): Caller,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|why| Problem::wrong("Upgrade", &format!("must be a WebSocket handshake: {why}")))?;
    check_origin(&headers)?;
    let Some(guard) = app.open_socket(SocketKind::Live) else {
        return Err(Problem::new(Code::Overloaded, "the hub has as many sockets as it may"));
    };
    let upgrade = upgrade
        .protocols([LIVE_PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(FRAME_FACTOR * MESSAGE_BYTES_MAX);
    let known = upgrade.selected_protocol().is_some() || !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    Ok(upgrade.on_upgrade(move |socket| run(socket, app, guard, known)))
}

async fn run(socket: WebSocket, app: Arc<App>, guard: SocketGuard, known: bool) {
    let mut socket = Socket { socket, stall: app.live.stall };
    let ending = match known {
        true => serve(&mut socket, app).await.err().unwrap_or(Ending::Gone),
        false => Ending::Close(CloseCode::UnknownProtocol, "none of these protocols is known"),
    };
    if let Ending::Close(code, reason) = ending {
        let _ = tokio::time::timeout(CLOSE_TIME, socket.close(code, reason)).await;
    }
    drop(guard);
}

struct Socket {
    socket: WebSocket,
    stall: Duration,
}

impl Socket {
    async fn write(&mut self, message: Message) -> Result<(), Ending> {
        let written = async {
            self.socket.feed(message).await?;
            self.socket.flush().await
        };
        match tokio::time::timeout(self.stall, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ending::Gone),
            Err(_) => Err(Ending::Close(CloseCode::TooSlow, "too slow")),
        }
    }

    /// Says why, and waits until the other side has heard it; else its last frames would be cut off.
    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        if code == CloseCode::Restarting {
            let _ = self.write(Message::Text(text(bye_line()))).await;
        }
        let frame = CloseFrame { code: code as u16, reason: Utf8Bytes::from_static(reason) };
        if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = self.socket.next().await {}
        }
    }
}

impl Carrier for Socket {
    async fn send(&mut self, lines: &mut Vec<Bytes>) -> Result<(), Ending> {
        let message = joined(lines);
        self.write(Message::Text(text(message))).await
    }
}

/// Lines as one message. A line of its own is not copied.
fn joined(lines: &mut Vec<Bytes>) -> Bytes {
    if lines.len() == 1 {
        return lines.remove(0);
    }
    let mut message = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines.drain(..) {
        if !message.is_empty() {
            message.push(b'\n');
        }
        message.extend_from_slice(&line);
    }
    message.into()
}

fn text(message: Bytes) -> Utf8Bytes {
    Utf8Bytes::try_from(message).expect("records and messages are UTF-8")
}

/// What the socket's future woke up for.
enum Step {
    Heard(Option<Result<Message, axum::Error>>),
    Ready,
    Time,
    Goodbye,
}

/// Serves a client until one side has enough. Never returns `Ok`.
async fn serve(socket: &mut Socket, app: Arc<App>) -> Result<(), Ending> {
    let times = app.live;
    let hub = app.hub.clone();
    let mut goodbye = std::pin::pin!(hub.goodbye());
    let mut leave_at = None;
    let mut session = Session::new(app.clone());
    session.greet(None, MESSAGE_BYTES_MAX, socket).await?;
    let mut heard_at = Instant::now();
    let mut ping_at = heard_at + times.ping;
    loop {
        let wake_at = [session.next_at(), ping_at].into_iter().chain(leave_at).min().expect("two at least");
        let step = tokio::select! {
            heard = socket.socket.next() => Step::Heard(heard),
            () = session.ready() => Step::Ready,
            () = tokio::time::sleep_until(wake_at) => Step::Time,
            () = &mut goodbye, if leave_at.is_none() => Step::Goodbye,
        };
        match step {
            Step::Heard(message) => {
                heard_at = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => hear(&text, &mut session, socket).await?,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Binary(_))) => {
                        return Err(Ending::Close(CloseCode::BadMessage, "binary messages are not understood"));
                    }
                    Some(Ok(Message::Close(_))) | None => return Err(Ending::Gone),
                    Some(Err(error)) => return Err(broken(&error)),
                }
            }
            Step::Ready => {
                session.pass_on(socket).await?;
            }
            Step::Time => {
                let now = Instant::now();
                if leave_at.is_some_and(|at| now >= at) {
                    return Err(Ending::Close(CloseCode::Restarting, "restarting"));
                }
                if now.duration_since(heard_at) >= 2 * times.ping {
                    return Err(Ending::Close(CloseCode::NoPong, "nothing was heard"));
                }
                if now >= ping_at {
                    ping_at = now + times.ping;
                    socket.write(Message::Ping(Bytes::new())).await?;
                }
                session.on_time(now, socket).await?;
            }
            // All at once they would all come back at once.
            Step::Goodbye => leave_at = Some(Instant::now() + app.goodbye.mul_f64(fastrand::f64())),
        }
    }
}

/// Does what each JSON object of a message asks for.
async fn hear(text: &str, session: &mut Session, socket: &mut Socket) -> Result<(), Ending> {
    let mut rest = text;
    while !rest.trim_ascii_start().is_empty() {
        let Some(said) = first::<LiveOp>(&mut rest) else {
            return Err(Ending::Close(CloseCode::BadMessage, "not JSON"));
        };
        let id = said.id;
        match said.op.and_then(ask) {
            Ok(Ask::Hello) => session.greet(id, MESSAGE_BYTES_MAX, socket).await?,
            Ok(Ask::Ping) => session.pong(id, socket).await?,
            Ok(Ask::Subscribe(name, subject)) => session.subscribe(id, name, subject, socket).await?,
            Ok(Ask::Unsubscribe(name)) => session.unsubscribe(id, &name, socket).await?,
            Err(problem) => session.refuse(id, &problem, socket).await?,
        }
    }
    Ok(())
}

/// The frames broke the protocol or a bound, or the connection broke.
fn broken(error: &axum::Error) -> Ending {
    // The library tells these apart only in words.
    let words = error.to_string();
    if words.contains("too long") || words.contains("too big") {
        Ending::Close(CloseCode::TooBig, "too big")
    } else if words.to_ascii_lowercase().contains("utf-8") {
        Ending::Close(CloseCode::BadMessage, "not UTF-8")
    } else {
        Ending::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined() {
        assert_eq!(joined(&mut vec!["a".into()]), "a");
        let mut lines = vec!["a".into(), "b".into(), "c".into()];
        assert_eq!(joined(&mut lines), "a\nb\nc");
        assert!(lines.is_empty());
    }
}
