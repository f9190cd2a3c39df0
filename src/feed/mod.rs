//! The feed: every transition and tick, to everyone who asked, and to nobody else.
//!
//! # What it promises
//!
//! * Each transition that a client's subscriptions cover, in order, in its old or its new state, once. If the client is
//!   too slow for that, the newest record of each task, and a `lag` line that says so. Never silence.
//! * Progress as it is now, at a bounded rate: the first tick at once, the last one always (in its own line, or in the
//!   record of the transition that follows), none after a final record. `(rev, tick)` of a task only grows.
//! * A mark ([`Client::mark`]) names a `rev` only when everything up to it was taken.
//! * Nobody waits for anybody: [`Feed::publish`] and [`Feed::tick`] only leave a note, and whoever does not take their
//!   lines costs a bounded amount of memory and nothing else.
//!
//! # How
//!
//! ```text
//! writer ── publish ──► inbox ─┐                                 ┌─► pipe ─────────────► a socket that takes all
//! workers ── tick ──► a bit ───┴► shard: index, throttle, turns ─┼─► outbox ── Client ─► a socket that is full
//!                                                                └─► outbox ── Client ─► an event stream
//! ```
//!
//! Clients are dealt to *shards*, one a core. A shard is one future that owns the index and the pacing of its clients; it
//! takes what came in and finds who wants it. They are told in *turns*: first who has been owed something for longest, and
//! each is told everything up to that moment. Clients that are owed the same lines get the same message, joined and framed
//! once. Lines are encoded by whoever publishes, so no line can say anything about the one who reads it.
//!
//! A client with a [`Pipe`] of which nothing waits is written to right when its turn comes; that costs a system call, and
//! no future is woken. A burst gathers by itself: the longer it takes until a client has its turn again, the more leaves
//! with it. When a pipe is full, or where there is none, lines wait in the client's outbox, and whoever holds the
//! [`Client`] takes them from there in the other side's own pace. Only there do lines conflate and collapse.
//!
//! Progress never queues. A tick sets a bit beside the task; only the tick that finds it clear leaves a note. When the task
//! may be told again the bit is cleared and *then* the newest tick is read from the [`LatestState`], so that of a hundred thousand
//! ticks a second ten are encoded, and always the last.
//!
//! The board is ahead of a shard by what waits in its inbox. A tick of a `rev` that the shard has not looked at yet is
//! therefore held back until it has: otherwise the client would know a later position than the record that explains it,
//! and would ignore that record.
//!
//! The feed knows nothing of sockets. What a [`Pipe`] is, and who reads a [`Client`], is up to the routes.

mod backlog;
mod client;
mod delivery;
mod frame;
mod handle;
mod inbox;
mod index;
mod keepalive;
mod logs;
#[cfg(test)]
mod model_tests;
mod outbox;
mod pacing;
#[cfg(test)]
mod sample;
mod send_queue;
mod shard;
#[cfg(test)]
mod tests;
mod throttle;
mod watch;
#[cfg(test)]
mod world;

pub use client::Client;
pub use delivery::{End, Pipe};
pub use frame::{FrameHead, Opcode};
/// The name by which the board implements it.
pub use handle::LatestState as Truth;
pub use handle::{Feed, FeedOptions, LatestState, Meter, Published, Tick};
pub use index::Scope;
pub use logs::{LOG_WAITING_BYTES_MAX, LOG_WAITING_LINES_MAX, LogEvent, log_events, skipped_before};
pub use outbox::{OutboxLimits, Taken};
pub use send_queue::{Delivered, text_frame};
pub use watch::Watch;
