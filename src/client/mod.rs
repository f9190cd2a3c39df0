//! The hub as a Rust program sees it: one call, one answer ([`Client`]); and what happens, as it happens ([`Live`]).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use taskhub::client::Client;
//! use taskhub::task::NewTask;
//!
//! let hub = Client::new("http://127.0.0.1:8080")?;
//! let task = hub.submit(&NewTask::new("report").payload(&5)?).await?;
//! let task = hub.wait(task.task_id).await?;
//! println!("{}: {:?}", task.status, task.result);
//! # Ok(())
//! # }
//! ```
//!
//! The client keeps nothing and tries nothing twice: a call that fails, fails, and says why. The live stream is the
//! opposite: it comes back by itself until the hub refuses it, resumes where it was, and tells each change once.
//!
//! [`Follower`] is the live stream without sockets and clocks, for tests and for other runtimes.

mod access;
mod error;
mod follower;
mod identity;
mod live;
mod news;
mod outbox;
mod picture;
mod rest;
mod subscription;
mod watch;

pub use access::AuditQuery;
pub use error::ClientError;
pub use follower::{Action, Follower};
pub use live::Live;
pub use news::{LiveEvent, LiveStatus, TaskEvent};
pub use rest::{CallbackQuery, Changed, Client, FetchedResult, ListQuery, Order, ResultStream};
pub use subscription::{SubId, Subscribe};
pub use watch::{TaskNews, TaskWatch};

pub use crate::dial::{NoToken, Token};
pub use crate::wire::MeView;
