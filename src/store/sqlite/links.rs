//! What stands beside a record of its ties, and how the record comes by it.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};

use super::failure::{ErrorContext as _, damaged};
use super::view::Part;
use super::{SqliteStore, json_of};
use crate::store::StoreError;
use crate::task::{Json, Links, Task};

/// Gives a record the links that stand beside it.
pub(super) fn attach(task: &mut Task, links: Option<&Json>) -> Result<(), serde_json::Error> {
    if let (Some(ties), Some(links)) = (task.detail.as_mut().and_then(|detail| detail.ties.as_mut()), links) {
        ties.links = Some(Arc::new(Links::parse(links)?));
    }
    Ok(())
}

impl SqliteStore {
    /// Gives a record of the view its links.
    pub(super) fn attach_links(&self, task: &mut Task) -> Result<(), StoreError> {
        const STEP: &str = "read the links of a task";
        if task.ties().is_none_or(|ties| ties.dependencies == 0 && ties.workflow.is_none()) {
            return Ok(());
        }
        let links = self
            .conn
            .prepare_cached("SELECT json FROM parts WHERE task_id = ?1 AND part = ?2")
            .and_then(|mut statement| {
                let id = task.task_id.as_bytes().as_slice();
                statement.query_row(params![id, Part::Links as u8], |row| json_of(row, 0)).optional()
            })
            .context(STEP)?;
        attach(task, links.flatten().as_ref()).map_err(|error| damaged(STEP, format!("task {}: {error}", task.task_id)))
    }
}
