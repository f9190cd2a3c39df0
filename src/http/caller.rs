//! Who is calling, and from where.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use crate::hub::Principal;
use crate::task::Name;
use crate::wire::{Code, Problem};

/// The caller of a request. An open hub has one, who may do everything.
pub(super) struct Caller(pub(super) Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Caller, Problem> {
        Ok(Caller(Principal::default()))
    }
}

/// Where a request comes from, put there by whoever accepted its connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// By whom live clients are counted: the user, or where there are no users, the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CountedBy {
    User(Name),
    Address(IpAddr),
    /// Nobody knows.
    Nothing,
}

impl<S: Sync> FromRequestParts<S> for CountedBy {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<CountedBy, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, state).await?;
        let address = parts.extensions.get().map(|Peer(address)| CountedBy::Address(*address));
        Ok(who.user_id.map(CountedBy::User).or(address).unwrap_or(CountedBy::Nothing))
    }
}

/// Refuses a WebSocket that a page of some other site opens. Browsers let every page connect anywhere, unlike with
/// requests that carry JSON, and an open hub has nothing but this to tell its own pages from theirs.
///
/// Programs send no `Origin`. Pages on this machine are let in, whatever their port: somebody develops there.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !authority.is_empty() && (authority.eq_ignore_ascii_case(host) || is_loopback(authority)) {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, format!("a page from {origin} may not connect here")))
}

/// Whether `HOST[:PORT]` names this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: &str, host: &str, allowed: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if !origin.is_empty() {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        assert_eq!(check_origin(&headers).is_ok(), allowed, "{origin} to {host}");
    }

    #[test]
    fn pages_of_other_sites_stay_out() {
        check("", "127.0.0.1:8080", true);
        check("http://127.0.0.1:8080", "127.0.0.1:8080", true);
        check("http://localhost:3000", "127.0.0.1:8080", true);
        check("http://[::1]:3000", "127.0.0.1:8080", true);
        check("https://hub.example", "hub.example", true);
        check("https://evil.example", "127.0.0.1:8080", false);
        check("https://localhost.evil.example", "127.0.0.1:8080", false);
        check("null", "127.0.0.1:8080", false);
    }
}
