//! The feed: every transition and tick, to everyone who asked, and to nobody else.

/// A handle to the feed.
#[derive(Clone)]
pub struct Feed {}
