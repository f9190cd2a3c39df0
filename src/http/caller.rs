//! Who is calling, and from where.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::hub::Principal;
use crate::task::Name;
use crate::wire::Problem;

/// The caller of a request. An open hub has one, who may do everything.
pub(super) struct Caller(pub(super) Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Caller, Problem> {
        Ok(Caller(Principal::default()))
    }
}

/// Where a request comes from, as far as a trusted proxy knows, put there by whoever accepted its connection. None comes by a
/// Unix socket.
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
