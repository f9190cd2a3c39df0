//! The feed: every transition and tick, to everyone who asked, and to nobody else.
