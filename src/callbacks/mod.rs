//! Callbacks: telling URLs of what becomes of tasks, by [Standard Webhooks](https://www.standardwebhooks.com).
//!
//! A task may name up to four URLs. Each transition that one of them is to be told of is a *delivery*, which is owed from the
//! commit of the transition on ([`Change::deliveries`](crate::task::Change::deliveries)), and no longer once the commit is on
//! disk that says it has arrived, or was given up. So each is made at least once, over any crash; a receiver knows a
//! repetition by its id.
//!
//! What stands here knows nothing of a hub:
//!
//! * [`Queue`] says what is tried next: in order for each callback of a task, with bounds for all and for each host.
//! * [`verdict`](verdict()) says what follows from a try: it has arrived, is tried again after so long, or is given up.
//! * [`CallbackClient`] makes the tries, to addresses that [`addresses`] lets pass.
//! * [`Secrets`] are what they are signed with.
//!
//! The hub's `couriers` carry what is owed from the store to the queue, from there to the client, and what came of it back.

pub mod addresses;
mod client;
mod queue;
mod secrets;
mod verdict;

pub use client::{CallbackClient, Message, Miss};
pub use queue::{Owed, Queue};
pub use secrets::{OLD_SECRET_MS, SECRET_FILE, Secret, Secrets, read_or_make, rotate, signature};
pub use verdict::{FOR, Verdict, first_try, verdict};
