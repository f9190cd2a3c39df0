//! The hub as its users meet it: over HTTP and sockets, a module for each promise.

mod bad_input;
mod browser;
mod cancel;
mod client;
mod connections;
mod crash_poison;
mod dashboard;
mod docs;
mod drain;
mod examples;
mod history;
mod idempotency;
mod interop;
#[path = "../kit/mod.rs"]
mod kit;
mod list;
mod live;
mod logs;
mod metrics;
mod page;
mod priority;
mod progress;
mod result;
mod retention;
mod retry_backoff;
mod retry_delete;
mod schedule;
mod sse;
mod stats;
mod strict;
mod submit;
mod timeout;
mod wait;
mod workers_http;
mod workers_socket;
