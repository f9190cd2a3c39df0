//! How somebody is told that they are not wanted: in the form that their side can read.
//!
//! A program gets a problem. A person who looks at the page gets a page. A socket is opened, told, and closed: a browser
//! does not show the answer to a handshake, but it shows the close code and the reason of a socket.

use std::sync::Arc;

use axum::extract::FromRequestParts as _;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};

use super::routes::{LIVE_PATH, WORKER_PATH};
use super::socket::Socket;
use super::state::App;
use super::upgrade::Upgrade;
use crate::wire::{CloseCode, Code, LIVE_PROTOCOL, Problem, WORKER_PROTOCOL};

/// What people see. It has the marks of the page that it stands for, so that whoever looks for the connection finds it.
const PAGE: &str = include_str!("refusal.html");
const PAGE_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'");

/// Tells the sender of a request that it is forbidden, before its body is read.
pub(super) async fn tell(app: Arc<App>, why: String, mut parts: Parts) -> Response {
    let protocol = match parts.uri.path() {
        LIVE_PATH => Some(LIVE_PROTOCOL),
        WORKER_PATH => Some(WORKER_PROTOCOL),
        _ => None,
    };
    if let Some(protocol) = protocol
        && let Ok(upgrade) = Upgrade::from_request_parts(&mut parts, &()).await
        && let Some(answer) = accept_and_close(app, upgrade, protocol, CloseCode::Forbidden, &why)
    {
        return answer;
    }
    if is_looked_at(&parts) { page(&why) } else { Problem::new(Code::Forbidden, why).into_response() }
}

/// Whether a person waits for a page.
fn is_looked_at(parts: &Parts) -> bool {
    let accepted = parts.headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    parts.method == Method::GET && accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

fn page(why: &str) -> Response {
    let why = why.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let mut answer = (StatusCode::FORBIDDEN, Html(PAGE.replace("{why}", &why))).into_response();
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    answer
}

/// Answers a handshake, says why, and closes. `None` while too many are being told so; then the handshake has to be
/// refused.
pub(super) fn accept_and_close(
    app: Arc<App>,
    upgrade: Upgrade,
    protocol: &'static str,
    code: CloseCode,
    reason: &str,
) -> Option<Response> {
    let (room, reason) = (app.refuse_socket()?, reason.to_owned());
    Some(upgrade.accept(protocol, move |wire, early| async move {
        Socket::new(wire, early, &app.live).close(code, &reason).await;
        drop(room);
    }))
}
