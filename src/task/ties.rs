//! What ties a task to others: the tasks that it depends on, and the workflow that it is part of.
//!
//! What a task depends on never changes, and may be ten thousand ids. So it is written once, beside the record, like a
//! payload: [`Links`]. The record itself says only how many they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Json, Name, TaskId};

/// The most tasks that one depends on, that depend on one, and that a workflow is made of.
pub const TIES_MAX: usize = 10_000;

/// What few tasks have: ties to others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ties {
    /// How many tasks it depends on.
    pub dependencies: u32,
    /// Which these are. Of every unfinished task that has some; a final one that was read from the store may lack them.
    pub links: Option<Arc<Links>>,
    pub on_dependency_failure: OnDependencyFailure,
    /// The workflow that it is part of, …
    pub workflow_id: Option<TaskId>,
    /// … its name there, …
    pub reference: Option<Name>,
    /// … and how much it counts in the progress of that.
    pub weight: u32,
    /// Its payload has places for results of what it depends on.
    pub takes_results: bool,
    /// It is a workflow: no worker takes it, its work is other tasks.
    pub workflow: Option<Workflow>,
}

/// What a workflow is beside a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    pub on_failure: OnFailure,
}

/// What becomes of a workflow when one of its tasks fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// What has not started is cancelled, but for tasks that run whatever became of those that they depend on.
    #[default]
    Stop,
    /// What still can run does.
    Finish,
}

/// What becomes of a task when one that it depends on fails or is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDependencyFailure {
    /// It is cancelled.
    #[default]
    Cancel,
    /// It fails, with the kind `dependency`.
    Fail,
    /// It runs all the same, once all are final.
    Run,
}

impl OnDependencyFailure {
    /// Whether it is what holds where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == OnDependencyFailure::default()
    }
}

/// What stands beside the record of a task with ties.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// In the order in which they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    #[serde(flatten, skip_serializing_if = "Option::is_none", deserialize_with = "where_said")]
    pub results: Option<Box<PassedOn>>,
}

/// Which results are passed on: into the payload of a task, or as what a workflow leaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassedOn {
    /// Names in the payload, each with the places in `depends_on` that it stands for: from, and so many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<Name, (u32, u32)>,
    /// Of a workflow: the task whose result is its own, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<TaskId>,
    /// … or those of which it tells all results, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<(Name, TaskId)>,
}

impl PassedOn {
    /// As links have it: nothing, where it says nothing.
    pub fn boxed(self) -> Option<Box<PassedOn>> {
        (self != PassedOn::default()).then(|| Box::new(self))
    }
}

fn where_said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<PassedOn>>, D::Error> {
    PassedOn::deserialize(deserializer).map(PassedOn::boxed)
}

impl Links {
    /// The text in which they are kept.
    pub fn to_json(&self) -> Json {
        Json::of(self).expect("ids and names are JSON")
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn parse(text: &Json) -> Result<Links, serde_json::Error> {
        text.to()
    }
}
