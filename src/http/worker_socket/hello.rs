//! How a worker introduces itself on its socket: who it is, where the handshake did not say it, and what it takes.

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures::StreamExt as _;

use super::super::accepts::{self, accepts};
use super::super::gate;
use super::super::json::first;
use super::super::state::App;
use super::{Ending, binary, broken, error_text, not_json, restarting};
use crate::hub::{CallerHub, HubError, Refusal, Welcome, WorkerLink};
use crate::task::TaskId;
use crate::wire::{CONCURRENCY_MAX, CloseCode, Code, Held, Problem, WorkerHello, WorkerOp, WorkerSays};

/// Waits for a good hello. Answers with the link, the welcome, and what came behind the hello in the same message.
pub(super) async fn introduce(
    socket: &mut WebSocket,
    app: &App,
    hub: &mut CallerHub,
) -> Result<(WorkerLink, String, Utf8Bytes), Ending> {
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => return Err(binary()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_))) | None => return Err(Ending::Gone),
            Some(Err(error)) => return Err(broken(&error)),
        };
        let mut rest = text.as_str();
        while !rest.bytes().all(|byte| byte.is_ascii_whitespace()) {
            let said: Result<WorkerSays, Problem> = first(&mut rest).ok_or(not_json())?;
            let problem = match said.and_then(|says| says.op().map_err(|why| Problem::new(Code::InvalidField, why))) {
                Ok(WorkerOp::Hello(hello)) => {
                    match attach(app, identified(app, hub, hello.token.as_deref()).await?, hello).await {
                        Ok((link, welcome)) => return Ok((link, welcome, rest.to_owned().into())),
                        Err(Refused::Wrong(problem)) => problem,
                        Err(Refused::Hub(HubError::Overloaded | HubError::StorageUnavailable)) => {
                            return Err(Ending::Close(CloseCode::Overloaded, "overloaded"));
                        }
                        Err(Refused::Hub(HubError::Refused(Refusal::Draining) | HubError::Stopped)) => {
                            return Err(restarting());
                        }
                        Err(Refused::Hub(HubError::Forbidden(_))) => {
                            return Err(Ending::Close(CloseCode::Forbidden, "not with this token"));
                        }
                        Err(Refused::Hub(error)) => error.into(),
                    }
                }
                Ok(_) => Problem::new(Code::InvalidField, "the first message must be a hello"),
                Err(problem) => problem,
            };
            if socket.send(Message::Text(error_text(&problem).into())).await.is_err() {
                return Err(Ending::Gone);
            }
        }
    }
}

/// Who a worker says it is in its hello, where the handshake did not say it.
async fn identified<'h>(app: &App, hub: &'h mut CallerHub, token: Option<&str>) -> Result<&'h CallerHub, Ending> {
    if let Some(token) = token {
        let nobody = |_| Ending::Close(CloseCode::Unauthenticated, "the token is not valid");
        let who = gate::authenticated(app.keys(), token, hub.address()).await.map_err(nobody)?;
        *hub = app.as_caller(who, hub.address());
    }
    if hub.who().is_nobody() {
        return Err(Ending::Close(CloseCode::Unauthenticated, "a token is needed"));
    }
    Ok(hub)
}

enum Refused {
    Wrong(Problem),
    Hub(HubError),
}

async fn attach(app: &App, hub: &CallerHub, hello: WorkerHello) -> Result<(WorkerLink, String), Refused> {
    let wrong = |invalid: crate::task::Invalid| Refused::Wrong(invalid.into());
    let worker_id = accepts::worker_id(&hello.worker_id).map_err(wrong)?;
    let accepts = accepts(hello.task_types, hello.queues, &hub.who().works).map_err(wrong)?;
    let concurrency = accepts::at_least_one("concurrency", hello.concurrency, CONCURRENCY_MAX).map_err(wrong)?;
    let holding = hello.holding.map(|holding| holding.iter().map(|held| (held.task_id, held.attempt)).collect());
    let attached = hub.attach_worker(worker_id, accepts, concurrency, holding).await;
    let Welcome { link, keep, drop } = attached.map_err(Refused::Hub)?;
    let lease_ms = app.options().engine.lease_ms;
    Ok((link, welcome(lease_ms, &keep, &drop)))
}

pub(super) fn welcome(lease_ms: u64, keep: &[(TaskId, u32)], drop: &[(TaskId, u32)]) -> String {
    let held = |list: &[(TaskId, u32)]| {
        let list: Vec<Held> = list.iter().map(|&(task_id, attempt)| Held { task_id, attempt }).collect();
        serde_json::to_string(&list).expect("ids and numbers are JSON")
    };
    let heartbeat_ms = accepts::heartbeat_ms(lease_ms);
    let (keep, drop) = (held(keep), held(drop));
    format!(r#"{{"type":"welcome","lease_ms":{lease_ms},"heartbeat_ms":{heartbeat_ms},"keep":{keep},"drop":{drop}}}"#)
}
