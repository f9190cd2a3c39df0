//! Why a task waits.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Up to so many tasks before one are counted.
pub const AHEAD_MAX: usize = 1_000;

/// Something that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WaitsFor {
    /// A moment, or the end of a wait.
    Time { until: Timestamp },
    /// No worker is connected, and no claim open, that takes its queue and type.
    NoWorker,
    /// Its turn: so many ready tasks go to the same workers before it, exact up to [`AHEAD_MAX`].
    Turn { ahead: usize },
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}
