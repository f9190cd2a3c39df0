//! Keys that make submitting twice harmless.

use super::{TaskId, Timestamp};

/// 128 bits of a digest: of an idempotency key with its caller and route, or of a request body.
pub type Digest = u128;

/// What an idempotency key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub key: Digest,
    pub body: Digest,
    pub tasks: Vec<TaskId>,
    /// The key is forgotten after this.
    pub expires_at: Timestamp,
}
