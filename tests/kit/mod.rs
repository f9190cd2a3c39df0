//! What the tests at the edge share: a hub with everything around it, sockets to it, and bounded waits.
//!
//! Nothing here sleeps for luck. What is waited for is a condition with a bound, and a bound that is passed says what was
//! waited for and what was there instead.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part of this")]

mod hub;
mod process;
mod socket;
mod terminal;

use std::fmt::Display;
use std::time::{Duration, Instant};

pub use hub::{Answer, HubBuilder, MEANT, TestHub, id};
pub use process::{HubProcess, Program, program};
pub use socket::TestSocket;
pub use terminal::{Terminal, lines};

/// How long anything may take that should take milliseconds, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `look` gives something, looking again every few milliseconds.
pub async fn eventually<T>(what: impl Display, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The future's value, within [`PATIENCE`].
pub async fn in_time<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Agrees on one cryptography for the clients that the tests make themselves; those of the hub have their own.
pub fn agree_on_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
