//! The feed: sends every transition and tick to the clients whose subscriptions cover it.
//!
//! # What it promises
//!
//! * Each transition that a client's subscriptions cover, in order, in its old or its new state, once. If the client is
//!   too slow for that, the newest record of each task, and a `lag` message that says so. Never silence.
//! * Progress as it is now, at a bounded rate: the first tick at once, the last one always (in a message of its own, or in
//!   the record of the transition that follows), none after a final record. `(rev, tick)` of a task only grows.
//! * A mark ([`Client::mark`]) names a `rev` only when everything up to it was written.
//! * Publishers and clients never wait for a client: [`Feed::publish`] and [`Feed::tick`] only leave a note, and a client
//!   that takes nothing costs a bounded amount of memory and nothing else.
//!
//! # How
//!
//! ```text
//! writer ── publish ──► inbox ─┐                                 ┌─► pipe ─────────────► a socket that takes all
//! workers ── tick ──► a bit ───┴► shard: index, pacing, queue ───┼─► outbox ── Client ─► a socket that is full
//!                                                                └─► outbox ── Client ─► an event stream
//! ```
//!
//! Clients are dealt to *shards*, one a core. A shard is one future that owns the index and the pacing of its clients. It
//! takes what was published from its inbox, matches it against the subscriptions, and enqueues it for the clients it
//! matches. The *send queue* is fair: the client whose oldest pending message is the oldest comes first, and is sent all that
//! is pending for it. Clients with the same messages pending share one frame, joined and encoded once. Messages are encoded
//! by the writer, once for all, so none can say anything about the client that reads it.
//!
//! A client with a [`Pipe`] and an empty outbox is written to by the shard when it comes first in the send queue; that costs
//! a system call, and no future is woken. Batching adapts by itself: the longer it takes until a client comes first again,
//! the more leaves in one frame. When a pipe is full, or where there is none, messages wait in the client's outbox, and the
//! session, which holds the [`Client`], takes them from there at the other side's own pace. Only there do messages conflate
//! and collapse.
//!
//! Progress never queues. A tick sets a bit beside the task; only the tick that finds it clear leaves a note. When the task's
//! next tick may be sent the bit is cleared and *then* the newest tick is read from the [`LatestState`], so that of a hundred
//! thousand ticks a second ten are encoded, and always the last.
//!
//! The board is ahead of a shard by what waits in its inbox. A tick of a `rev` that the shard has not matched yet is
//! therefore held back until it has: otherwise the client would know a later position than the record that explains it,
//! and would ignore that record.
//!
//! # Positions
//!
//! Each part knows up to which `rev` it has come; these names end in `_rev`. None is ever above one that it points to:
//!
//! ```text
//!  mark ─► written_rev ─► matched_rev ─► published ─► committed
//!  each      client's       shard's ▲     in the       on the
//!  client    outbox                 │     inbox        board
//!                      handed_rev ──┘
//!                        shard's
//! ```
//!
//! * `matched_rev`: the shard has matched every transition up to here, and enqueued it for the clients it is for. Where
//!   transitions were merged it moves once, when all of them are matched.
//! * `handed_rev`: all of these have left the send queue, for a pipe or an outbox, for every client of the shard. It is the
//!   smallest of all its clients', so it says nothing against a client with a larger `written_rev`. While a shard has no
//!   clients, the inbox moves it past what it skips, and a client that comes then begins there; the shard follows before it
//!   matches anything for that client.
//! * `written_rev`: every transition up to here that is for this client was written to its pipe, or taken from its outbox.
//!   While nothing waits in the outbox, that is at least `handed_rev`.
//! * a mark is the `written_rev` of the moment in which it was made, so a client resumes from it without a hole.
//! * [`Feed::published_rev`] is set when every inbox has the batch, so a fast shard may be ahead of that number for a moment.
//!   It is for readers that ask how far the feed has come; nothing in here compares with it.
//!
//! The feed knows nothing of sockets. What a [`Pipe`] is, and which future reads a [`Client`], is up to the routes.

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
pub use handle::{Feed, FeedOptions, LatestState, Meter, Published, Tick};
pub use logs::{LOG_WAITING_BYTES_MAX, LOG_WAITING_LINES_MAX, LogEvent, log_events, skipped_before};
pub use outbox::{OutboxLimits, Taken};
pub use send_queue::{Delivered, text_frame};
pub use shard::SILENT_PINGS;
pub use watch::Watch;
