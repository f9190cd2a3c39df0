//! An engine with the tasks a store kept.

use std::sync::Arc;

use crate::settings::Setting;
use crate::task::{Task, TaskId};

use super::core::{Engine, Options};
use super::{Batch, Cx, Now};

/// The tasks of a store that an engine begins with.
pub struct Tasks {
    /// Every unfinished one.
    pub unfinished: Vec<Task>,
    /// The final ones that a waiting one depends on; and of each unfinished workflow, and each that an unfinished one is part
    /// of, itself and its tasks.
    pub relatives: Vec<Task>,
}

impl Tasks {
    /// The workflows of which all tasks are here, and are counted.
    fn families(&self) -> impl Iterator<Item = TaskId> {
        let own = self.unfinished.iter().filter(|task| task.is_workflow()).map(|task| task.task_id);
        own.chain(self.unfinished.iter().filter_map(|task| task.workflow_id()))
    }
}

impl Engine {
    /// Takes up where a store left off, with what was set and its tasks. The batch confirms the leases of running tasks and must
    /// be committed before anybody is answered. Their workers have a lease and a grace to come back.
    pub fn recover(
        options: Options,
        rev: u64,
        last_id: Option<TaskId>,
        settings: Vec<Setting>,
        tasks: Tasks,
        seed: u64,
        now: Now,
    ) -> (Engine, Batch) {
        let mut engine = Engine::new(options, rev, last_id, seed);
        for setting in settings {
            engine.put_setting(setting.id(), Some(Arc::new(setting)), now);
        }
        engine.tasks.reserve(tasks.unfinished.len());
        let parts: Vec<Task> = tasks.relatives.iter().filter(|task| task.workflow_id().is_some()).cloned().collect();
        for workflow_id in tasks.families() {
            engine.parts.entry(workflow_id).or_default();
        }
        tasks.relatives.into_iter().for_each(|task| engine.admit(task));
        for part in parts {
            if let Some(parts) = part.workflow_id().and_then(|workflow_id| engine.parts.get_mut(&workflow_id)) {
                parts.insert(&part);
            }
        }
        engine.recovering = true;
        for task in tasks.unfinished {
            engine.replace(None, Some(&Arc::new(task)), now);
        }
        engine.recovering = false;
        engine.look_at_what_waits();
        let mut batch = Batch::default();
        engine.confirm_leases(&mut Cx { now, ticks: &(), batch: &mut batch });
        (engine, batch)
    }
}
