//! A real-time task hub: submit by REST, run anywhere, watch it live.
//!
//! taskhub stands between applications, workers and the people who wait. It keeps tasks, hands them to workers, and tells
//! every transition and every tick of progress to everyone who asked, within milliseconds; what it acknowledged is on disk.
//!
//! As a library it is used in three ways:
//!
//! * **A hub inside your program**: [`Hub::builder`] opens one with handlers in the same process. [`server::Server`]
//!   serves it, or a hub of its own, to others.
//! * **A worker** in its own process: [`worker::Worker`] runs registered functions, or commands, for a hub elsewhere.
//! * **A client**: [`client::Client`] submits and asks over REST, and follows the live stream across cuts and restarts.
//!
//! # The map
//!
//! *The engine decides, the store remembers, the writer orders, the board shows, the feed tells, http translates.*
//!
//! | module | what | knows |
//! |---|---|---|
//! | [`task`] | the record of a task, its states, filters, ids | nothing of ours |
//! | [`access`] | who calls, and what they may: roles, rights, sight, credentials | task |
//! | [`keys`] | which credentials are in force | access, task |
//! | [`settings`] | what people set while it runs: queues, limits, schedules, task types | schema, task |
//! | [`schema`] | JSON Schema of payloads, in bounded time | task |
//! | [`engine`] | every decision, without clock, I/O or runtime | task, settings |
//! | [`store`] | a log of commits and a view behind it, on SQLite | task, settings |
//! | [`feed`] | who hears of what, and how fast | task |
//! | [`callbacks`] | telling URLs of what becomes of tasks: in which order, where to, how signed | task, lived |
//! | [`hub`] | the one writer, the board, the handle | engine, store, feed, callbacks |
//! | [`wire`] | every public JSON shape and code | task |
//! | [`http`] | routes, sockets, problems, the page | hub, feed, wire |
//! | [`worker`], [`client`] | the other ends of the wire | wire |
//! | [`embedded`] | a hub in your program, with its handlers | hub, store, worker |
//! | [`listen`] | where a hub listens: an address, or a Unix socket | nothing of ours |
//! | [`signals`], [`children`] | when a program is to end, and what ends before it | nothing of ours |
//! | [`lived`] | waits that leave out what the process did not live through | nothing of ours |
//! | [`server`], [`cli`] | where it all meets | everything |
//!
//! `ARCHITECTURE.md` has the invariants and walks one task from submit to the browser.

pub mod access;
pub mod callbacks;
pub mod children;
pub mod cli;
pub mod client;
pub mod config;
pub mod dial;
pub mod embedded;
pub mod engine;
pub mod feed;
pub mod http;
pub mod hub;
pub mod keys;
pub mod listen;
pub mod lived;
pub mod schema;
mod seldom;
pub mod server;
pub mod settings;
pub mod signals;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod wire;
pub mod worker;

pub use hub::Hub;
