//! The public contract over HTTP: what comes in is checked and becomes a call of the hub, what the hub answers becomes
//! bytes. Nothing is decided here.
//!
//! * `routes` is the whole URL table.
//! * What every request has to pass first is the `door`.
//! * Everything that refuses does so with a [`Problem`](crate::wire::Problem); `problem` holds the one match that makes
//!   problems of what the hub says no to.
//! * Records reach clients as the bytes they were written in (`splice`); they are never read and written again.
//! * A socket is owned by one future. It is counted, and waited for when the hub goes down, through
//!   `App::open_socket`.

mod accepts;
mod access;
#[cfg(test)]
mod access_tests;
mod answers;
mod base_path;
mod body;
mod callbacks;
mod caller;
mod change;
#[cfg(test)]
mod contract;
mod cursor;
mod dashboard;
mod docs;
mod door;
mod events;
mod exchange;
mod forwarded;
mod frames;
mod gate;
mod json;
mod live;
mod live_op;
#[cfg(test)]
mod live_tests;
mod ops;
#[cfg(test)]
mod overload_tests;
mod path;
mod problem;
mod query;
mod read;
mod refusal;
mod results;
mod routes;
mod schedules;
mod session;
mod settings;
mod share;
mod socket;
mod splice;
mod state;
mod submit;
mod task_types;
#[cfg(test)]
mod tests;
mod upgrade;
mod worker_http;
mod worker_socket;
mod workflows;

pub use base_path::BasePath;
pub use caller::{AdminDoor, Peer};
pub use door::Door;
pub use exchange::{Linger, Unread, answer};
pub use forwarded::TrustedProxies;
pub use routes::router;
pub use state::{App, HttpLimits, LiveLimits, SocketGuard, SocketKind};

/// What conformance and fuzz tests reach from outside. No part of what the library promises.
#[doc(hidden)]
pub mod inside {
    pub use super::frames::{Broken, Heard, Inbound, close_frame, pong_frame};
    pub use super::query::query_filter;
}
