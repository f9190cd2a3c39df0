//! Workflows as they are submitted: tasks that belong together, and how they hang together.
//!
//! A workflow is a task whose work is other tasks. However it is written (as a list of tasks that name each other, a chain, a
//! group, or a group with one task after it), what comes of it is the same: one new task for the workflow, one for each of
//! its parts, and what these depend on. [`flatten`] makes that of it; a part may be a workflow again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::bounds::saturated;
use super::callback::callbacks;
use super::new_task::{labels, range};
use super::submission::{Names, NewTies, NewWork, check_name, check_policy};
use super::ties::{OnDependencyFailure, OnFailure, TIES_MAX};
use super::{Dependency, Invalid, Json, Name, NewCallback, NewTask, Timestamp, room};

/// How deep workflows may stand within workflows.
const DEPTH_MAX: usize = 8;
/// The most that a task may weigh in the progress of its workflow.
const WEIGHT_MAX: u32 = 1_000_000;
/// A workflow without `output` leaves the results of its last tasks where these are so many at most.
pub const SINKS_MAX: usize = 100;

/// A workflow. One of `tasks`, `chain`, `group` and `chord` says what it is made of; everything else may be left out, or
/// `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct NewWorkflow {
    /// `workflow` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whose it is, and its tasks are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// None of its tasks runs before this time. Not together with `delay_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub delay_ms: Option<u64>,
    /// What is not final by then has failed, and its tasks are cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub deadline_ms: Option<u64>,
    /// The same, where none of its tasks was started by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    pub start_by_ms: Option<u64>,
    /// URLs that are told of the workflow's own transitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "callbacks")]
    pub callbacks: Vec<NewCallback>,
    /// None of its tasks runs before these are final: ids of tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "room::dependencies")]
    pub depends_on: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_dependency_failure: Option<OnDependencyFailure>,
    /// What becomes of the others when one of its tasks fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// `@ref` of the task whose result is the workflow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Tasks that may depend on each other.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "room::some_tasks")]
    pub tasks: Option<Vec<NewTask>>,
    /// Tasks of which each depends on the one before.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "room::some_tasks")]
    pub chain: Option<Vec<NewTask>>,
    /// Tasks that do not depend on each other.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "room::some_tasks")]
    pub group: Option<Vec<NewTask>>,
    /// A group, and a task that depends on all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chord: Option<Chord>,
}

/// Read where it is counted what it holds.
impl Serialize for NewWorkflow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NewWorkflow::serialize(self, serializer)
    }
}

/// A group, and a task after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chord {
    #[serde(deserialize_with = "room::tasks")]
    pub group: Vec<NewTask>,
    #[serde(deserialize_with = "room::task")]
    pub then: Box<NewTask>,
}

impl NewWorkflow {
    /// Tasks that may depend on each other, by `reference` and `depends_on`.
    pub fn new(title: impl Into<String>, tasks: Vec<NewTask>) -> NewWorkflow {
        NewWorkflow { title: Some(title.into()), tasks: Some(tasks), ..NewWorkflow::default() }
    }

    /// Tasks of which each depends on the one before.
    pub fn chain(title: impl Into<String>, tasks: Vec<NewTask>) -> NewWorkflow {
        NewWorkflow { title: Some(title.into()), chain: Some(tasks), ..NewWorkflow::default() }
    }

    /// Tasks that do not depend on each other.
    pub fn group(title: impl Into<String>, tasks: Vec<NewTask>) -> NewWorkflow {
        NewWorkflow { title: Some(title.into()), group: Some(tasks), ..NewWorkflow::default() }
    }

    /// A group, and a task that depends on all of it.
    pub fn chord(title: impl Into<String>, group: Vec<NewTask>, then: NewTask) -> NewWorkflow {
        let chord = Chord { group, then: Box::new(then) };
        NewWorkflow { title: Some(title.into()), chord: Some(chord), ..NewWorkflow::default() }
    }

    /// The task that the workflow itself is.
    fn as_task(&mut self) -> NewTask {
        NewTask {
            task_type: self.task_type.take().unwrap_or_else(|| "workflow".to_owned()),
            title: self.title.take(),
            description: self.description.take(),
            user_id: self.user_id.clone(),
            labels: std::mem::take(&mut self.labels),
            run_at: self.run_at,
            delay_ms: self.delay_ms,
            deadline_at: self.deadline_at,
            deadline_ms: self.deadline_ms,
            start_by_at: self.start_by_at,
            start_by_ms: self.start_by_ms,
            callbacks: std::mem::take(&mut self.callbacks),
            depends_on: std::mem::take(&mut self.depends_on),
            on_dependency_failure: self.on_dependency_failure,
            ..NewTask::default()
        }
    }

    /// What it is made of, with the field that says so; each with the names that it depends on beside those that it says.
    fn parts(&mut self) -> Result<Vec<Part>, Invalid> {
        let ways = [self.tasks.is_some(), self.chain.is_some(), self.group.is_some(), self.chord.is_some()];
        match ways.iter().filter(|way| **way).count() {
            0 => return Err(Invalid::value("tasks", "must stand, or one of chain, group and chord")),
            1 => {}
            _ => {
                return Err(Invalid::value("tasks", "must stand alone: only one of tasks, chain, group and chord may"));
            }
        }
        let empty = |field: &'static str| Invalid::value(field, "must not be empty");
        let plain = |field: &'static str, tasks: Vec<NewTask>| -> Result<Vec<Part>, Invalid> {
            if tasks.is_empty() {
                return Err(empty(field));
            }
            let part =
                |(at, new): (usize, NewTask)| Part { new, path: format!("{field}[{at}]"), after: After::Nothing };
            Ok(tasks.into_iter().enumerate().map(part).collect())
        };
        if let Some(tasks) = self.tasks.take() {
            return plain("tasks", tasks);
        }
        if let Some(tasks) = self.group.take() {
            return plain("group", tasks);
        }
        if let Some(tasks) = self.chain.take() {
            let mut parts = plain("chain", tasks)?;
            parts.iter_mut().skip(1).for_each(|part| part.after = After::Previous);
            return Ok(parts);
        }
        let Some(Chord { group, then }) = self.chord.take() else { return Err(empty("chord")) };
        let mut parts = plain("chord.group", group)?;
        let mut then = *then;
        then.reference.get_or_insert_with(|| "then".to_owned());
        parts.push(Part { new: then, path: "chord.then".to_owned(), after: After::Group });
        Ok(parts)
    }
}

/// A part of a workflow on its way.
struct Part {
    new: NewTask,
    path: String,
    after: After,
}

/// What a part depends on by its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    Previous,
    Group,
}

/// A workflow as new tasks: itself, and behind it its parts.
pub(super) struct Flat {
    pub(super) tasks: Vec<NewTask>,
    pub(super) ties: Vec<NewTies>,
    /// How each is called in errors; empty for the workflow itself.
    pub(super) paths: Vec<String>,
}

/// Makes new tasks of a workflow, and checks them.
pub(super) fn flatten(workflow: NewWorkflow, payload_bytes_max: usize) -> Result<Flat, Invalid> {
    let mut flat = Flat { tasks: Vec::new(), ties: Vec::new(), paths: Vec::new() };
    let mut left = TIES_MAX;
    let nobody = Names { names: &BTreeMap::new(), places: &[0], spawner: None };
    let own = Own { ties: nobody.ties(&workflow.depends_on, 0, After::Nothing)?, path: String::new() };
    flatten_into(&mut flat, workflow, own, (0, &mut left), payload_bytes_max)?;
    Ok(flat)
}

/// What a workflow is within another.
struct Own {
    ties: NewTies,
    path: String,
}

fn flatten_into(
    flat: &mut Flat,
    mut workflow: NewWorkflow,
    own: Own,
    (depth, left): (usize, &mut usize),
    payload_bytes_max: usize,
) -> Result<(), Invalid> {
    let within = |invalid: Invalid| if own.path.is_empty() { invalid } else { invalid.within(&own.path) };
    if depth >= DEPTH_MAX {
        return Err(within(Invalid::limit("workflow", DEPTH_MAX as u64, "within each other")));
    }
    let parts = workflow.parts().map_err(within)?;
    let depends = !own.ties.depends_on.is_empty();
    let place = flat.tasks.len();
    let user_id = workflow.user_id.clone();
    let (on_failure, output) = (workflow.on_failure.unwrap_or_default(), workflow.output.take());
    let own_path = own.path.clone();
    let task = workflow.as_task();
    check_policy(&task, depends).map_err(within)?;
    task.check(payload_bytes_max).map_err(within)?;
    flat.tasks.push(task);
    flat.ties.push(own.ties);
    flat.paths.push(own.path);

    // The names first, for any part may depend on any other.
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let mut places: Vec<u32> = Vec::with_capacity(parts.len());
    let at = |path: &str, invalid: Invalid| {
        let invalid = invalid.within(path);
        if own_path.is_empty() { invalid } else { invalid.within(&own_path) }
    };
    // The place of a part is known once those before it are counted.
    let mut next = place as u32 + 1;
    for (index, part) in parts.iter().enumerate() {
        let name = part.new.reference.clone().unwrap_or_else(|| index.to_string());
        check_name(&name).map_err(|invalid| at(&part.path, invalid))?;
        if names.insert(name, next).is_some() {
            return Err(at(&part.path, Invalid::value("ref", "is the name of another task of this workflow")));
        }
        places.push(next);
        next += 1 + part.new.workflow.as_ref().map_or(0, |workflow| workflow.count());
    }
    if (next as usize - place - 1) > *left {
        let limit = Invalid::limit("tasks", TIES_MAX as u64, "tasks in a workflow");
        return Err(if own_path.is_empty() { limit } else { limit.within(&own_path) });
    }
    *left -= parts.len();
    let resolver = Names { names: &names, places: &places, spawner: None };
    let count = parts.len();
    let mut needed = vec![false; count];
    for (index, Part { mut new, path, after }) in parts.into_iter().enumerate() {
        let wrong = |invalid: Invalid| at(&path, invalid);
        // Before anything is read of its payload.
        let inner = new.workflow.take();
        match inner {
            Some(_) => check_bare(&new).map_err(wrong)?,
            None => new.check(payload_bytes_max).map_err(wrong)?,
        }
        let mut ties = resolver.ties(&new.depends_on, index, after).map_err(wrong)?;
        resolver.take_results(&new, index, &mut ties).map_err(wrong)?;
        for dependency in &ties.depends_on {
            if let Dependency::OnNew(place) = dependency
                && let Ok(at) = places.binary_search(place)
            {
                needed[at] = true;
            }
        }
        check_policy(&new, !ties.depends_on.is_empty()).map_err(wrong)?;
        Invalid::no_unique(&new, "must not stand in a workflow").map_err(wrong)?;
        ties.parent = Some(place as u32);
        ties.reference = Some(Name::new(new.reference.as_deref().unwrap_or(&index.to_string())));
        range("weight", new.weight.map(u64::from), 1, WEIGHT_MAX.into()).map_err(wrong)?;
        ties.weight = new.weight.take().unwrap_or(1);
        if let Some(user) = new.user_id.as_ref().filter(|user| user_id.as_ref() != Some(user)) {
            return Err(wrong(Invalid::value("user_id", format!("must be the workflow's, not {user}"))));
        }
        match inner {
            None => {
                new.user_id = user_id.clone();
                flat.tasks.push(new);
                flat.ties.push(ties);
                flat.paths.push(if own_path.is_empty() { path } else { format!("{own_path}.{path}") });
            }
            Some(mut inner) => {
                if inner.user_id.is_some() || !inner.depends_on.is_empty() {
                    let field = if inner.user_id.is_some() { "workflow.user_id" } else { "workflow.depends_on" };
                    return Err(wrong(Invalid::value(field, "must not stand in a workflow within another")));
                }
                inner.user_id = user_id.clone();
                inner.depends_on = new.depends_on;
                inner.on_dependency_failure = new.on_dependency_failure;
                let path = if own_path.is_empty() { path } else { format!("{own_path}.{path}") };
                let own = Own { ties, path: format!("{path}.workflow") };
                flatten_into(flat, *inner, own, (depth + 1, left), payload_bytes_max)?;
            }
        }
    }
    let wrong = |detail: String| {
        let invalid = Invalid::value("output", detail);
        if own_path.is_empty() { invalid } else { invalid.within(&own_path) }
    };
    let output = match output {
        None => None,
        Some(text) => {
            let place = text.strip_prefix('@').and_then(|name| names.get(name));
            Some(*place.ok_or_else(|| wrong(format!("must be the @ref of a task of this workflow, not {text}")))?)
        }
    };
    let last = |place: &u32| places.binary_search(place).is_ok_and(|index| !needed[index]);
    let mut sinks: Vec<(u32, Name)> =
        names.iter().filter(|(_, place)| last(place)).map(|(name, place)| (*place, Name::new(name))).collect();
    sinks.sort_unstable();
    if output.is_some() || sinks.len() > SINKS_MAX {
        sinks = Vec::new();
    }
    flat.ties[place].work = Some(NewWork { on_failure, output, sinks });
    Ok(())
}

impl NewWorkflow {
    /// How many tasks it is made of, itself not counted.
    fn count(&self) -> u32 {
        let of = |tasks: &[NewTask]| {
            let inner = |new: &NewTask| 1 + new.workflow.as_ref().map_or(0, |workflow| workflow.count());
            tasks.iter().map(inner).fold(0u32, u32::saturating_add)
        };
        let lists = [&self.tasks, &self.chain, &self.group].into_iter().flatten();
        let chord = self.chord.as_ref().map_or(0, |chord| of(&chord.group) + of(std::slice::from_ref(&chord.then)));
        lists.map(|tasks| of(tasks)).fold(chord, u32::saturating_add)
    }
}

/// A workflow in a task's place says all about itself.
fn check_bare(new: &NewTask) -> Result<(), Invalid> {
    // Of its payload it is enough that there is one.
    let payload = new.payload.as_ref().map(|_| Json::null());
    let new = NewTask { payload, weight: None, reference: None, on_dependency_failure: None, ..new.clone() };
    let rest = NewTask { depends_on: Vec::new(), ..new };
    let text = serde_json::to_value(&rest).unwrap_or_default();
    match text.as_object().and_then(|fields| fields.keys().next()) {
        Some(field) => {
            let detail = "must not stand beside workflow: it says so itself";
            Err(Invalid::value(field.clone(), detail))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::read_strictly;

    fn refused(json: &str) -> String {
        let workflow: NewWorkflow = read_strictly(json.as_bytes()).unwrap();
        flatten(workflow, 1_000).err().map(|invalid| invalid.to_string()).unwrap_or_default()
    }

    /// Regression: the name of a workflow within another was taken as it came, and stands in the result of the outer one:
    /// with a quote in it, that and the record were no JSON.
    #[test]
    fn the_name_of_a_workflow_within_another_is_a_name() {
        let named = |name: &str| {
            let inner = r#"{"group":[{"task_type":"t"}]}"#;
            refused(&format!(r#"{{"tasks":[{{"ref":"{name}","workflow":{inner}}}]}}"#))
        };
        assert_eq!(named("in.ner_1"), "");
        for wrong in ["a\\\"b", "", "a b", &"x".repeat(129)] {
            assert!(named(wrong).starts_with("tasks[0].ref "), "{wrong}: {}", named(wrong));
        }
    }

    /// Regression: a payload was looked through for results before anybody had looked at its size, and one beside a
    /// workflow was made a tree of values, or passed over where it was deeper than such a tree may be.
    #[test]
    fn a_payload_is_measured_before_it_is_read() {
        let deep = format!("{}{{\"$result\":\"@a\"}}{}", "[".repeat(200), "]".repeat(200));
        let of = |field: &str| {
            refused(&format!(r#"{{"tasks":[{{"ref":"a","task_type":"t"}},{{{field},"payload":{deep}}}]}}"#))
        };
        assert_eq!(of(r#""task_type":"t""#), "tasks[1].payload is nested deeper than 128");
        let beside = "tasks[1].payload must not stand beside workflow: it says so itself";
        assert_eq!(of(r#""workflow":{"group":[{"task_type":"t"}]}"#), beside);
        assert!(Json::parse(&deep).is_ok());
    }

    /// Regression: each list of tasks was counted, and not what stands in lists beside it and behind it.
    #[test]
    fn what_is_read_is_counted_over_all_lists() {
        let tasks = |count: usize| vec!["{}"; count].join(",");
        let read =
            |json: String| read_strictly::<NewWorkflow>(json.as_bytes()).map(|_| ()).map_err(|why| why.to_string());
        let over = |json: String| read(json).is_err_and(|why| why.starts_with("must be at most 10000 tasks"));
        let half = tasks(5_000);
        assert!(read(format!(r#"{{"tasks":[{half}],"chain":[{half}]}}"#)).is_ok(), "which it says when it is checked");
        assert!(over(format!(r#"{{"tasks":[{half}],"chain":[{half},{{}}]}}"#)));
        assert!(over(format!(r#"{{"chord":{{"group":[{half}],"then":{{"workflow":{{"group":[{half}]}}}}}}}}"#)));
        assert!(read(format!(r#"{{"chord":{{"group":[{half}],"then":{{}}}}}}"#)).is_ok());
        assert!(read(format!(r#"{{"group":[{half}]}}"#)).is_ok(), "each is counted for itself");
        let names = vec!["\"@a\""; 9_000].join(",");
        let depending = |count: usize| vec![format!(r#"{{"depends_on":[{names}]}}"#); count].join(",");
        assert!(read(format!(r#"{{"tasks":[{}]}}"#, depending(11))).is_ok());
        let why = read(format!(r#"{{"tasks":[{}]}}"#, depending(12))).unwrap_err();
        assert!(why.starts_with("must be at most 100000 dependencies"), "{why}");
    }
}
