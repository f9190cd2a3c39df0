//! What a task is: its record, its states, and the small values it is made of.
//!
//! Everything here is plain data and total functions: no clock, no I/O, no runtime. The engine decides with these
//! types, the store keeps them, the feed and the routes show them.
//!
//! * [`Task`] is the record. A change to a task is a *new record*, never a difference, so whoever applies records in
//!   order of `rev` has the state.
//! * [`Status`] holds the table of transitions; nothing else in the crate knows which step may follow which.
//! * Large parts (payload, a result over [`RESULT_INLINE_BYTES`], log lines) are kept beside the record, as
//!   [`Json`] text that is never parsed twice.

mod author;
mod bounds;
mod builder;
mod callback;
mod canonical;
mod change;
mod cut;
mod defaults;
mod delivery;
mod failure;
mod filter;
mod gather;
mod id;
mod json;
mod key;
mod large_result;
mod log;
mod name;
mod new_task;
mod patch;
mod placeholders;
mod progress;
mod record;
mod retry;
mod rfc3339;
mod rollup;
mod room;
mod status;
mod strict;
mod submission;
mod ties;
mod time;
mod unique;
mod view;
mod waits_for;
mod workflow;

pub use author::{Author, AuthorEnd};
pub use bounds::OverBound;
pub(crate) use bounds::{optional_list, optional_map, or_default, saturated};
pub use callback::{CALLBACK_URL_BYTES_MAX, CALLBACKS_MAX, Callback, Callbacks, Events, NewCallback};
pub(crate) use canonical::Walk;
pub use change::{Change, ChangeKind, Transition};
pub use cut::{path as pointer_path, steps as pointer_steps, without, without_anywhere};
pub use defaults::{Defaults, PayloadFault, TypesVersion};
pub use delivery::{Delivery, DeliveryId, DeliveryState, DeliveryStatus, DeliveryStep};
pub use failure::Failure;
pub use filter::{FILTER_VALUES_MAX, Filter, FilterSpec};
pub use gather::{GATHERED_MAX, Gather, NewGather, OpenList, item_of};
pub use id::{Entropy, IdHasher, IdSource, ParseIdError, TaskId};
pub use json::{Json, JsonError, PAYLOAD_DEPTH_MAX};
pub use key::{Digest, KeyEntry};
pub use large_result::{CONTENT_TYPE_BYTES_MAX, LargeResult, ResultId};
pub(crate) use log::any_text;
pub use log::{
    LINE_BYTES, LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, Level, LogLine, NewestLines, cut_line, line_bytes,
};
pub use name::{NAME_CHARS_MAX, Name, NameError, Pattern, PatternSet};
pub(crate) use new_task::chars;
pub use new_task::{
    ATTEMPTS_MAX, CONCURRENCY_KEY_CHARS_MAX, CRASHES_MAX, DEFAULT_QUEUE, DELAY_MS_MAX, DESCRIPTION_CHARS_MAX, Invalid,
    InvalidKind, LABEL_KEY_CHARS_MAX, LABEL_VALUE_CHARS_MAX, LABELS_MAX, NewTask, OnConflict, PAYLOAD_BYTES_MAX,
    TIMEOUT_MS_MAX, TITLE_CHARS_MAX, USER_ID_CHARS_MAX,
};
pub use patch::TaskPatch;
pub use placeholders::{Placeholder, Unfilled, fill, has_placeholders, placeholders};
pub use progress::{Counters, PROGRESS_BYTES_MAX, Progress};
pub use record::{By, Cancel, Detail, MadeBy, Outcome, RESULT_INLINE_BYTES, Run, Task, Timing};
pub use retry::RetryPolicy;
pub use rfc3339::TimeError;
pub use rollup::{Rollup, weight_of};
pub(crate) use room::tasks as read_tasks;
pub use status::{Event, Status};
pub use strict::{Strict, from_slice as read_strictly};
pub use submission::{Dependency, EDGES_MAX, Kind, NewTies, NewWork, Part, Paths, Spawner, Submission};
pub use ties::{Links, OnDependencyFailure, OnFailure, PassedOn, TIES_MAX, Ties, Workflow};
pub use time::Timestamp;
pub use unique::{
    Held, HeldUntil, NewUnique, OnHeld, UNIQUE_BY_MAX, UNIQUE_KEY_CHARS_MAX, UNIQUE_PATH_CHARS_MAX, Unique,
};
pub use view::TaskView;
pub use waits_for::{AHEAD_MAX, DEPENDENCIES_TOLD_MAX, WaitsFor};
pub use workflow::{Chord, NewWorkflow, SINKS_MAX};

/// The largest result a task may leave, in bytes of its JSON text.
pub const RESULT_BYTES_MAX: usize = 1 << 20;

/// The largest checkpoint, in bytes of its JSON text.
pub const CHECKPOINT_BYTES_MAX: usize = 64 << 10;
