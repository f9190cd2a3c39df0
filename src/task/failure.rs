//! What a task that did not complete leaves behind.

use serde::{Deserialize, Deserializer, Serialize};

use super::Json;
use super::log::any_text;

/// Why a try or a task failed. `kind` is for programs, `message` for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// A short word. The hub's own: `timeout` (an attempt took longer than `timeout_ms`), `silent` (it reported nothing for
    /// `silence_ms`), `deadline` (it was not final in time), `expired` (it was not started in time), `poison` (lost with
    /// its worker `max_crashes` times), `lost` (no worker was there to run it for `unserved_ms`), `dependency` (a task that
    /// it depends on did not complete), `payload` (it does not fit what is declared of its type) and `child` (a task of this workflow failed). `taskhub worker` adds `exit` and `signal`. ≤ 128 characters.
    #[serde(default = "Failure::default_kind", deserialize_with = "kind")]
    pub kind: String,
    /// ≤ 8 KiB, cut beyond. Whatever a worker sends here is taken: a report of a failure is not lost for its words.
    #[serde(default, deserialize_with = "any_text")]
    pub message: String,
    /// Anything more, ≤ 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::deserialize(deserializer).map(|kind| kind.unwrap_or_else(Failure::default_kind))
}

impl Failure {
    /// The longest `kind`, in characters; more is refused.
    pub const KIND_CHARS_MAX: usize = 128;
    /// The longest message, in bytes; more is cut.
    pub const MESSAGE_BYTES_MAX: usize = 8 << 10;
    /// The largest details, in bytes of JSON text; more is refused.
    pub const DETAILS_BYTES_MAX: usize = 64 << 10;

    /// A failure of this kind.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { kind: kind.into(), message: message.into(), details: None }
    }

    fn default_kind() -> String {
        "error".into()
    }

    /// The failure with its message within bounds.
    pub fn cut(mut self) -> Failure {
        super::log::cut(&mut self.message, Failure::MESSAGE_BYTES_MAX);
        self
    }
}
