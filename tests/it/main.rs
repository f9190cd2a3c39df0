//! The hub as its users meet it: over HTTP and sockets, a module for each promise.

mod bad_input;
mod cancel;
mod crash_poison;
mod dashboard;
mod docs;
mod drain;
mod history;
mod idempotency;
#[path = "../kit/mod.rs"]
mod kit;
mod list;
mod live;
mod logs;
mod metrics;
mod priority;
mod progress;
mod result;
mod retention;
mod retry_backoff;
mod retry_delete;
mod schedule;
mod sse;
mod stats;
mod submit;
mod timeout;
mod wait;
mod workers_http;
mod workers_socket;
