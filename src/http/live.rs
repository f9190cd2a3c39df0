//! Live clients on a WebSocket: what they ask is read here, what they get is the [`Session`]'s business.
//!
//! One future holds the socket, and it is mostly asleep: while all is said, the feed writes events to the socket by
//! itself. The future wakes when something was heard, or when the feed cannot go on because the client takes no more. It
//! then takes the socket back, says what is to be said in the client's own pace, and gives it up again.
//!
//! A message that is JSON but wrong is answered and the socket stays; one that is no JSON closes it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use tokio::time::Instant;

use super::caller::{Arriving, CountedBy};
use super::frames::Heard;
use super::live_op::{LiveRequest, checked, first};
use super::query::NoQuery;
use super::refusal::accept_and_close;
use super::session::{Ending, Session};
use super::socket::{Read, Socket};
use super::state::{App, SocketGuard, SocketKind};
use super::upgrade::{Upgrade, Wire};
use crate::feed::Taken;
use crate::hub::CallerHub;
use crate::lived::Deadline;
use crate::wire::{CloseCode, Code, LIVE_PROTOCOL, Problem};

/// `GET /api/v1/ws`.
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    by: CountedBy,
    Arriving(hub): Arriving,
    _: NoQuery,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let (code, reason) = match app.open_socket(SocketKind::Live, by) {
        Ok(guard) if upgrade.allows(LIVE_PROTOCOL) => {
            return Ok(upgrade.accept(LIVE_PROTOCOL, move |wire, early| run(app, hub, guard, wire, early)));
        }
        Ok(_) => (CloseCode::UnknownProtocol, "none of these protocols is known"),
        Err(crowded) => (crowded.close_code(), crowded.words()),
    };
    accept_and_close(app, upgrade, LIVE_PROTOCOL, code, reason).ok_or_else(|| Problem::new(Code::Overloaded, reason))
}

/// Serves a client to its end.
///
/// Ten thousand of these futures sleep in memory. So what they hold is made before they begin, and what they only do now
/// and then is done in a box.
fn run(
    app: Arc<App>,
    hub: CallerHub,
    guard: SocketGuard,
    wire: Arc<Wire>,
    early: Bytes,
) -> impl Future<Output = ()> + Send {
    let mut socket = Socket::new(wire.clone(), early, &app.live);
    let mut session = Session::new(app, hub, Some(wire));
    async move {
        let Err(ending) = serve(&mut socket, &mut session).await;
        let rest = session.stop();
        Box::pin(socket.end(rest, ending, guard.clients())).await;
        drop(guard);
    }
}

/// Serves a client until one side has enough.
async fn serve(socket: &mut Socket, session: &mut Session) -> Result<Infallible, Ending> {
    let mut hello_by = Some(Deadline::after(session.limits().hello_time));
    Box::pin(session.greet(None, socket)).await?;
    loop {
        if Box::pin(talk(socket, session)).await? {
            hello_by = None;
        }
        let wake_at = [session.looks_at(), session.speaks_at(), hello_by.map(|by| by.at())].into_iter().flatten().min();
        let mut alarm = wake_at.map(|at| Box::pin(tokio::time::sleep_until(at)));
        tokio::select! {
            readable = socket.readable() => readable?,
            () = session.ready() => {}
            () = session.credentials_changed() => {}
            () = async { alarm.as_mut().expect("there is one").await }, if alarm.is_some() => {}
        }
        if hello_by.as_mut().is_some_and(|by| by.is_over(Instant::now())) {
            return Err(Ending::Close(CloseCode::NoPong, "nothing was said"));
        }
    }
}

/// Hears what was said, and says what is to be said, until the feed can go on by itself. Answers whether anything was
/// asked.
async fn talk(socket: &mut Socket, session: &mut Session) -> Result<bool, Ending> {
    let mut asked = false;
    loop {
        socket.write(&session.stop()).await?;
        session.ended()?;
        session.is_still_known()?;
        asked |= listen(socket, session).await?;
        let taken = session.pass_on(socket).await?;
        let now = Instant::now();
        if now >= session.next_at() {
            session.on_time(now, socket).await?;
        }
        if session.pings(now)? {
            socket.ping().await?;
        }
        if taken == Taken::Nothing && session.flow(socket).await? {
            return Ok(asked);
        }
    }
}

/// Reads what is there, and answers it. Answers whether anything was asked.
async fn listen(socket: &mut Socket, session: &mut Session) -> Result<bool, Ending> {
    let (mut buffer, mut asked) = (Vec::new(), false);
    while let Read::Some = socket.read(&mut buffer)? {
        tokio::task::consume_budget().await;
        session.set_heard();
        let mut bytes = &mut buffer[..];
        while let Some(heard) = socket.next(&mut bytes)? {
            match heard {
                Heard::Text(text) => {
                    hear(&text, session, socket).await?;
                    asked = true;
                }
                Heard::Binary(_) => {
                    return Err(Ending::Close(CloseCode::BadMessage, "binary messages are not understood"));
                }
                Heard::Ping(payload) => socket.pong(&payload).await?,
                Heard::Pong => {}
                Heard::Close(code) => return Err(Ending::Answer(code)),
            }
        }
    }
    Ok(asked)
}

/// Does what each JSON object of a message asks for.
async fn hear(text: &str, session: &mut Session, socket: &mut Socket) -> Result<(), Ending> {
    let mut rest = text;
    while !rest.trim_ascii_start().is_empty() {
        // A message may hold thousands.
        tokio::task::consume_budget().await;
        if rest.len() < text.len() {
            socket.count()?;
        }
        let Some(parsed) = first(&mut rest) else {
            return Err(Ending::Close(CloseCode::BadMessage, "not JSON"));
        };
        let id = parsed.id;
        match parsed.op.and_then(|op| checked(op, session.limits())) {
            Ok(LiveRequest::Hello(token)) => Box::pin(session.introduce(id, token, socket)).await?,
            Ok(_) if session.is_of_nobody() => {
                return Err(Ending::Close(
                    CloseCode::Unauthenticated,
                    "the first message must be a hello with a token",
                ));
            }
            Ok(LiveRequest::Ping) => session.pong(id, socket).await?,
            Ok(LiveRequest::Subscribe(name, topic)) => session.subscribe(id, name, topic, socket).await?,
            Ok(LiveRequest::Unsubscribe(name)) => session.unsubscribe(id, &name, socket).await?,
            Err(problem) => session.refuse(id, &problem, socket).await?,
        }
    }
    Ok(())
}
