//! Keys that make submitting twice harmless, and those that are held for a time.

use super::{TaskId, Timestamp};

/// 128 bits of a digest: of an idempotency key with its caller and route, of a request body, or of what a task is the only
/// one of.
pub type Digest = u128;

/// What a key stands for: an idempotency key for what was submitted under it; one that is held for a time, whatever becomes of
/// who holds it, for that task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub key: Digest,
    pub body: Digest,
    pub tasks: Vec<TaskId>,
    /// The places of those that were there already when the submission came.
    pub existing: Vec<u32>,
    /// The key is forgotten after this.
    pub expires_at: Timestamp,
}
