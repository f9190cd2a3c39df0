#![doc = "A real-time task hub: submit by REST, run anywhere, watch it live."]

pub mod cli;
pub mod client;
pub mod config;
pub mod dial;
pub mod engine;
pub mod feed;
pub mod http;
pub mod hub;
pub mod server;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod wire;
pub mod worker;

pub use hub::Hub;
