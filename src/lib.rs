#![doc = "A real-time task hub: submit by REST, run anywhere, watch it live."]

pub mod client;
pub mod dial;
pub mod feed;
pub mod store;
pub mod task;
pub mod wire;
pub mod worker;
