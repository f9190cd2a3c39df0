//! The gate: by what a request comes, and who its caller is.
//!
//! A credential stands in one of three places: `Authorization: Bearer TOKEN`; the second offered subprotocol of a socket,
//! `taskhub.token.TOKEN`, for browsers, which cannot send the header there; or a ticket in the query, for what a browser fetches
//! without a script. Sockets may also say it in their `hello`. A token in an address is refused before the address is written
//! down anywhere: addresses stand in logs, histories and referrers. A ticket may stand there, for it is spent by then.
//!
//! An open hub asks nobody; but a token that is wrong is refused there, too, for its sender believes to be somebody. What
//! everyone may see (the page's files, the documents, the probes) asks nobody either.
//!
//! Which right a call needs stands in the table of routes. It is looked up where the hub is taken in hand
//! ([`Caller`](super::caller::Caller)), so a route without a line there gets no hub at all.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderMap, Method, header};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::caller::{AdminDoor, Peer};
use super::routes::{LIVE_PATH, METRICS_PATH, WORKER_PATH};
use super::state::App;
use crate::access::{Principal, SUBPROTOCOL_TOKEN_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::keys::{Ended, Keys, Unauthenticated};
use crate::task::Timestamp;
use crate::wire::{CloseCode, Code, Problem};

/// How an offered subprotocol that is a token begins.
const TOKEN_PROTOCOL: &str = "taskhub.token.";
/// What a request brings.
#[derive(Debug, PartialEq)]
enum Presented {
    Nothing,
    Token(String),
    Ticket(String),
}

/// What is known of a request's caller by its head.
pub(super) enum Known {
    /// All that is to be known: it goes on.
    Now,
    /// Once this is ready.
    Soon(BoxFuture<'static, Result<Arc<Principal>, Problem>>),
}

/// Finds out who calls.
pub(super) fn identify(app: &Arc<App>, parts: &mut Parts) -> Result<Known, Problem> {
    let path = parts.uri.path();
    if !is_guarded(path) || parts.extensions.get::<AdminDoor>().is_some() {
        return Ok(Known::Now);
    }
    let (is_socket, is_metrics) = (path == LIVE_PATH || path == WORKER_PATH, path == METRICS_PATH);
    let presented = presented(parts)?;
    let keys = app.keys().clone();
    match presented {
        Presented::Nothing if keys.is_open() || is_socket => Ok(Known::Now),
        Presented::Nothing if is_metrics && keys.are_metrics_open() => {
            parts.extensions.insert(Arc::new(Principal::scraper()));
            Ok(Known::Now)
        }
        Presented::Nothing => Err(unauthenticated()),
        Presented::Ticket(ticket) => {
            let who = keys.redeem(&ticket, Timestamp::now()).map_err(|why| refused(&why))?;
            parts.extensions.insert(who);
            Ok(Known::Now)
        }
        Presented::Token(token) => {
            let from = parts.extensions.get().map(|Peer(address)| *address);
            Ok(Known::Soon(async move { authenticated(&keys, &token, from).await }.boxed()))
        }
    }
}

/// Who comes with a token. A wrong one is answered later and later, where it may have been made up: a right one never waits.
pub(super) async fn authenticated(keys: &Keys, token: &str, from: Option<IpAddr>) -> Result<Arc<Principal>, Problem> {
    let why = match keys.authenticate(token, Timestamp::now()).await {
        Ok(who) => return Ok(who),
        Err(why) => why,
    };
    if let Some(address) = from {
        tokio::time::sleep(keys.guessed(address, &why)).await;
    }
    Err(refused(&why))
}

/// Whether a path asks who calls. What is not there is not told to nobody either.
fn is_guarded(path: &str) -> bool {
    path.starts_with("/api/v1/") || path == "/api/v1" || path == METRICS_PATH
}

/// What a request brings; it is taken out of it. At most one thing.
fn presented(parts: &mut Parts) -> Result<Presented, Problem> {
    let mut found = Vec::new();
    for value in parts.headers.get_all(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer).ok_or_else(unauthenticated)?;
        found.push(Presented::Token(bounded(token, TOKEN_BYTES_MAX)?));
    }
    if let Some(token) = offered_token(&parts.headers) {
        found.push(Presented::Token(bounded(&token, SUBPROTOCOL_TOKEN_BYTES_MAX)?));
    }
    if let Some(ticket) = take_ticket(parts)? {
        found.push(Presented::Ticket(bounded(&ticket, TOKEN_BYTES_MAX)?));
    }
    let one = found.pop();
    match found.is_empty() {
        true => Ok(one.unwrap_or(Presented::Nothing)),
        false => Err(Problem::new(Code::InvalidRequest, "a request has one credential, and this one has several")),
    }
}

/// The token of `Bearer TOKEN`. RFC 9110 wants no regard for the case of the first word.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn bounded(token: &str, bytes_max: usize) -> Result<String, Problem> {
    if token.len() > bytes_max { Err(unauthenticated()) } else { Ok(token.to_owned()) }
}

/// The token among the subprotocols that a socket offers.
fn offered_token(headers: &HeaderMap) -> Option<String> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut names = offered.flat_map(|value| value.split(','));
    names.find_map(|name| name.trim().strip_prefix(TOKEN_PROTOCOL).map(str::to_owned))
}

/// The ticket of a query, which is taken out of it.
fn take_ticket(parts: &mut Parts) -> Result<Option<String>, Problem> {
    let Some(query) = parts.uri.query() else { return Ok(None) };
    // Most have neither.
    if !query.contains("t") {
        return Ok(None);
    }
    let (mut ticket, mut kept) = (None, Vec::new());
    for pair in query.split('&') {
        let (name, value) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
        match &*name {
            "token" | "access_token" => {
                let detail = "must not stand in an address, where it is written down; send Authorization: Bearer TOKEN";
                return Err(Problem::wrong("token", detail));
            }
            "ticket" if ticket.is_some() => return Err(Problem::wrong("ticket", "stands there twice")),
            "ticket" => ticket = Some(value.into_owned()),
            _ => kept.push(pair),
        }
    }
    if ticket.is_none() {
        return Ok(None);
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Problem::wrong("ticket", "must stand where something is read only"));
    }
    let path = parts.uri.path();
    let rest = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = rest.parse::<PathAndQuery>().ok();
    parts.uri = Uri::from_parts(uri).map_err(|_| Problem::no_path())?;
    Ok(ticket)
}

/// The problem of a caller who is not known.
pub(super) fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "a valid token is needed: Authorization: Bearer TOKEN")
}

/// The problem of a token that lets nobody in.
pub(super) fn refused(why: &Unauthenticated) -> Problem {
    let code = match why {
        Unauthenticated::Unavailable => Code::Overloaded,
        _ => Code::Unauthenticated,
    };
    Problem::new(code, format!("the token {why}"))
}

/// How a socket is closed whose caller is nobody any more.
pub(super) fn ending(ended: Ended) -> (CloseCode, &'static str) {
    match ended {
        Ended::Expired => (CloseCode::TokenExpired, "the token is expired"),
        Ended::Revoked => (CloseCode::Unauthenticated, "the token is not valid any more"),
    }
}

/// Resolves once this caller is nobody any more: its credential is over or was taken back.
pub(super) async fn until_ended(keys: &Keys, who: &Principal) -> Ended {
    let mut changes = keys.changes();
    loop {
        changes.mark_unchanged();
        let now = Timestamp::now();
        if let Err(ended) = keys.check(who, now) {
            return ended;
        }
        let left = who.expires_at.map(|at| std::time::Duration::from_millis(at.millis_since(now) + 1));
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            // A clock that is set is looked at again.
            () = tokio::time::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)), if left.is_some() => {}
        }
    }
}

/// What a call comes to that is held open; a caller who is nobody meanwhile hears that.
pub(super) async fn while_known<T>(app: &App, who: &Principal, held: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::select! {
        biased;
        answer = held => Ok(answer),
        _ = until_ended(app.keys(), who) => Err(unauthenticated()),
    }
}

/// How often an expiry is looked at: wall clocks are set.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(method: &str, uri: &str, headers: &[(&str, &str)]) -> (Result<Presented, Code>, String) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let presented = presented(&mut parts).map_err(|problem| problem.code);
        (presented, parts.uri.to_string())
    }

    #[test]
    fn one_credential_in_one_place() {
        let token = |text: &str| Ok(Presented::Token(text.into()));
        let authorized = [("authorization", "bEaReR  abc ")];
        assert_eq!(check("GET", "/x", &[]).0, Ok(Presented::Nothing));
        assert_eq!(check("GET", "/x", &authorized).0, token("abc"));
        assert_eq!(check("GET", "/x", &[("sec-websocket-protocol", "taskhub.v1, taskhub.token.abc")]).0, token("abc"));
        for wrong in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(check("GET", "/x", &[("authorization", wrong)]).0, Err(Code::Unauthenticated), "{wrong}");
        }
        let two = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(check("GET", "/x", &two).0, Err(Code::InvalidRequest));
        assert_eq!(check("GET", "/x?ticket=thk_a", &authorized).0, Err(Code::InvalidRequest));
        let long = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1));
        assert_eq!(check("GET", "/x", &[("authorization", &long)]).0, Err(Code::Unauthenticated));
    }

    #[test]
    fn a_ticket_is_taken_out_of_the_address_and_a_token_is_refused_there() {
        let ticket = Ok(Presented::Ticket("thk_a".into()));
        assert_eq!(check("GET", "/x?ticket=thk_a", &[]), (ticket, "/x".into()));
        let ticket = Ok(Presented::Ticket("thk_a".into()));
        assert_eq!(check("GET", "/x?a=1&ticket=thk%5Fa&b=2", &[]), (ticket, "/x?a=1&b=2".into()));
        assert_eq!(check("POST", "/x?ticket=thk_a", &[]).0, Err(Code::InvalidField));
        assert_eq!(check("GET", "/x?ticket=a&ticket=b", &[]).0, Err(Code::InvalidField));
        assert_eq!(check("GET", "/x?token=a", &[]).0, Err(Code::InvalidField));
        assert_eq!(check("GET", "/x?tok%65n=a", &[]).0, Err(Code::InvalidField));
        assert_eq!(check("GET", "/x?status=running", &[]).0, Ok(Presented::Nothing));
    }
}
