//! Who is calling, and from where.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;

use super::gate::unauthenticated;
use super::routes::{self, Need};
use super::state::App;
use crate::access::Principal;
use crate::hub::CallerHub;
use crate::task::Name;
use crate::wire::Problem;

/// The hub, as the caller of a request has it: all that a route is given of it.
pub(super) struct Caller(pub(super) CallerHub);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Problem> {
        let who = match parts.extensions.get::<Arc<Principal>>() {
            Some(who) => who.clone(),
            None if parts.extensions.get::<AdminDoor>().is_some() => app.owner(),
            None => app.unnamed().ok_or_else(unauthenticated)?,
        };
        let path = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let hub = app.as_caller(who, address(parts));
        match path.and_then(|path| routes::need(&parts.method, path)) {
            Some(Need::Right(right)) => hub.needs(right)?,
            Some(Need::Known) => {}
            // A route without a line in the table has no hub.
            Some(Need::Nothing) | None => return Err(Problem::no_path()),
        }
        Ok(Caller(hub))
    }
}

/// The hub as the other end of a socket has it, which may say later who it is.
pub(super) struct Arriving(pub(super) CallerHub);

impl FromRequestParts<Arc<App>> for Arriving {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Arriving, Infallible> {
        let is_owner = parts.extensions.get::<AdminDoor>().is_some();
        let known = parts.extensions.get::<Arc<Principal>>().cloned();
        let known = known.or_else(|| is_owner.then(|| app.owner())).or_else(|| app.unnamed());
        Ok(Arriving(app.as_caller(known.unwrap_or_else(|| app.nobody()), address(parts))))
    }
}

fn address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get().map(|Peer(address)| *address)
}

/// Where a request comes from, as far as a trusted proxy knows, put there by whoever accepted its connection. None comes by a
/// Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Stands with a request that came by the socket in the hub's own folder. Whoever may open that may write to the store, and so do
/// everything.
#[derive(Clone, Copy, Debug)]
pub struct AdminDoor;

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

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<CountedBy, Problem> {
        let user = parts.extensions.get::<Arc<Principal>>().and_then(|who| who.user_id.clone());
        Ok(user.map(CountedBy::User).or(address(parts).map(CountedBy::Address)).unwrap_or(CountedBy::Nothing))
    }
}
