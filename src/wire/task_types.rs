//! Declared task types as they are set and shown.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::settings::{TaskType, TaskTypeSpec};
use crate::task::{Defaults, Json, Name, Timestamp};

/// The most types of one answer: a schema may be large.
pub const TASK_TYPES_LEN_MAX: usize = 100;

/// `GET /task-types`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskTypeList {
    pub task_types: Vec<TaskTypeView>,
    /// Where there are more: what to ask with for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A declared type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskTypeView {
    pub name: Name,
    /// Of the change that made this record.
    pub rev: u64,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default)]
    pub defaults: Defaults,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub payload_schema: Option<Json>,
}

impl TaskTypeView {
    /// What is shown of a type, whose record has this `rev` and time.
    pub fn of(name: Name, (rev, updated_at): (u64, Timestamp), it: &TaskType) -> TaskTypeView {
        let TaskTypeSpec { title, description, defaults, payload_schema } = it.spec.clone();
        TaskTypeView { name, rev, updated_at, title, description, defaults, payload_schema }
    }
}

/// What of it can be set.
impl From<TaskTypeView> for TaskTypeSpec {
    fn from(view: TaskTypeView) -> TaskTypeSpec {
        let TaskTypeView { title, description, defaults, payload_schema, .. } = view;
        TaskTypeSpec { title, description, defaults, payload_schema }
    }
}

/// `PUT /task-types/{name}`: all that can be set. What a type is read with besides is passed over, so that it can be put back.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTypeBody {
    #[serde(default)]
    pub title: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub defaults: Option<Defaults>,
    /// `null` is none.
    #[serde(default)]
    pub payload_schema: Option<Json>,
    #[serde(default)]
    pub r#type: Option<IgnoredAny>,
    #[serde(default)]
    pub name: Option<IgnoredAny>,
    #[serde(default)]
    pub rev: Option<IgnoredAny>,
    #[serde(default)]
    pub updated_at: Option<IgnoredAny>,
}

impl From<TaskTypeBody> for TaskTypeSpec {
    fn from(body: TaskTypeBody) -> TaskTypeSpec {
        let TaskTypeBody { title, description, defaults, payload_schema, .. } = body;
        TaskTypeSpec { title, description, defaults: defaults.unwrap_or_default(), payload_schema }
    }
}
