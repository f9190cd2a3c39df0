//! Why a task waits.

use serde::{Deserialize, Serialize};

use super::{TaskId, Timestamp};

/// Up to so many tasks before one are counted.
pub const AHEAD_MAX: usize = 1_000;

/// Up to so many tasks that one depends on are named.
pub const DEPENDENCIES_TOLD_MAX: usize = 100;

/// Something that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WaitsFor {
    /// Tasks that it depends on and that are not final; the first [`DEPENDENCIES_TOLD_MAX`] of so many.
    Dependency { task_ids: Vec<TaskId>, count: usize },
    /// A moment, or the end of a wait.
    Time { until: Timestamp },
    /// Its queue is paused.
    QueuePaused,
    /// As many tasks of its queue run as may.
    QueueLimit { limit: u32, running: u32 },
    /// As many tasks of its `concurrency_key` run as may.
    KeyLimit { limit: u32, running: u32 },
    /// As many tasks of its user run as may, in its queue or over all.
    UserLimit { limit: u32, running: u32 },
    /// As many tasks of its queue, its `concurrency_key` or its user were handed out within a while as may; the next may be by
    /// then.
    Rate { until: Timestamp },
    /// No worker is connected, and no claim open, that takes its queue and type.
    NoWorker,
    /// Its turn: so many ready tasks go to the same workers before it, exact up to [`AHEAD_MAX`].
    Turn {
        /// Absent for a caller who does not see all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ahead: Option<usize>,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}
