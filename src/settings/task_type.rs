//! What is declared of a task type: words for people, defaults, and a schema that payloads must fit.
//!
//! A type need not be declared to be used. Where it is, what is declared holds for tasks as they are made, and for payloads as
//! they come; a task that is there keeps what it was made with, whatever becomes of its type.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::schema::{FAULTS_MAX, Schema};
use crate::task::{DESCRIPTION_CHARS_MAX, Defaults, Invalid, Json, TITLE_CHARS_MAX, chars};

/// The most declared types: each is held in memory with its schema.
pub const TASK_TYPES_MAX: usize = 1_000;

/// What somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskTypeSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What a new task takes where it does not say it itself.
    #[serde(default)]
    pub defaults: Defaults,
    /// What a payload must fit. One that is not there is looked at as `null`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub payload_schema: Option<Json>,
}

/// A declared type, as it stands in its record.
#[derive(Clone, Debug, Serialize)]
pub struct TaskType {
    #[serde(flatten)]
    pub spec: TaskTypeSpec,
    #[serde(skip)]
    schema: Option<Arc<Schema>>,
}

/// The schema follows from the rest.
impl PartialEq for TaskType {
    fn eq(&self, other: &TaskType) -> bool {
        self.spec == other.spec
    }
}

impl TaskTypeSpec {
    /// A type with these defaults.
    pub fn new(defaults: Defaults) -> TaskTypeSpec {
        TaskTypeSpec { defaults, ..TaskTypeSpec::default() }
    }

    /// With a schema that payloads must fit. Fails where serde cannot write it as JSON.
    pub fn payload_schema<T: Serialize + ?Sized>(self, schema: &T) -> Result<TaskTypeSpec, serde_json::Error> {
        Ok(TaskTypeSpec { payload_schema: Some(Json::of(schema)?), ..self })
    }
}

impl TaskType {
    /// A type as somebody declares it; fails with what is wrong. Reading a large schema takes some milliseconds.
    pub fn of(mut spec: TaskTypeSpec) -> Result<TaskType, Invalid> {
        chars("title", spec.title.as_deref(), TITLE_CHARS_MAX)?;
        chars("description", spec.description.as_deref(), DESCRIPTION_CHARS_MAX)?;
        spec.defaults.check().map_err(|invalid| invalid.within("defaults"))?;
        // It stands in the record, which is one line.
        spec.payload_schema = spec.payload_schema.map(Json::one_line);
        let read = |text: &Json| Schema::read(text).map(Arc::new);
        let schema = spec.payload_schema.as_ref().map(read).transpose();
        let schema = schema.map_err(|why| Invalid::value("payload_schema", why.to_string()))?;
        Ok(TaskType { spec, schema })
    }

    /// Whether payloads are looked at.
    pub fn has_schema(&self) -> bool {
        self.schema.is_some()
    }

    /// What does not fit of a payload, as pointers and messages.
    pub fn faults(&self, payload: Option<&Json>) -> Vec<(String, String)> {
        let Some(schema) = &self.schema else { return Vec::new() };
        let null = Json::null();
        let faults = schema.faults(payload.unwrap_or(&null), FAULTS_MAX);
        faults.into_iter().map(|fault| (fault.pointer, fault.message)).collect()
    }
}
