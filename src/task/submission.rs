//! A submission as it is decided: new tasks, and what they depend on, with the names that they give each other resolved.
//!
//! All that can be said of it without knowing any other task is said here, before the one who decides is troubled with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::ties::{OnFailure, TIES_MAX};
use super::workflow::{After, Flat, flatten};
use super::{
    Author, Defaults, Invalid, Name, NewCallback, NewTask, NewWorkflow, OpenList, PayloadFault, Placeholder, Task,
    TaskId, TypesVersion, Unique, has_placeholders, placeholders,
};

/// The most dependencies of one submission. Each is kept in memory until what has it runs.
pub const EDGES_MAX: usize = 100_000;

/// Names that stand for something else than a task that is called so.
const RESERVED: [&str; 3] = ["self", "prev", "group"];

/// New tasks that have passed all checks that need no others.
#[derive(Clone, Debug)]
pub struct Submission {
    tasks: Vec<NewTask>,
    /// One for each task; empty where none has any.
    ties: Vec<NewTies>,
    /// The same of those that may be there already.
    kinds: Vec<Option<Kind>>,
    paths: Paths,
    spawner: Option<Spawner>,
    /// Nothing where no types are declared.
    typed: Option<Box<Typed>>,
}

/// What declared types have made of a submission.
#[derive(Clone, Debug, Default)]
struct Typed {
    /// Those that it was prepared with.
    version: TypesVersion,
    /// The tasks as they were sent, where something was filled in.
    own: Option<Vec<NewTask>>,
    /// What does not fit of their payloads.
    unfit: Vec<PayloadFault>,
}

/// A running attempt that adds tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawner {
    pub task_id: TaskId,
    pub attempt: u32,
}

/// How the tasks of a submission are called in errors.
#[derive(Clone, Debug)]
pub enum Paths {
    /// One, or several in a list.
    List { alone: bool },
    /// Those of a workflow; that itself by nothing.
    Workflow(Arc<[String]>),
}

impl Paths {
    /// An error of the task at this place.
    pub fn within(&self, place: usize, invalid: Invalid) -> Invalid {
        match self {
            Paths::List { alone: true } => invalid,
            Paths::List { alone: false } => invalid.within(format_args!("tasks[{place}]")),
            Paths::Workflow(paths) if paths[place].is_empty() => invalid,
            Paths::Workflow(paths) => invalid.within(&paths[place]),
        }
    }

    fn name(&self, place: usize) -> String {
        match self {
            Paths::List { .. } => format!("tasks[{place}]"),
            Paths::Workflow(paths) => paths[place].clone(),
        }
    }
}

/// What ties a new task to others.
#[derive(Clone, Debug, Default)]
pub struct NewTies {
    pub depends_on: Vec<Dependency>,
    /// See [`Links`](super::Links).
    pub names: BTreeMap<Name, (u32, u32)>,
    /// The place of the workflow that it is part of, …
    pub parent: Option<u32>,
    /// … or its id, where that was there before.
    pub workflow_id: Option<TaskId>,
    /// Its name in there.
    pub reference: Option<Name>,
    /// Its weight in there; 0 outside of workflows.
    pub weight: u32,
    /// It is a workflow.
    pub work: Option<NewWork>,
    /// Its payload has places for results.
    pub takes_results: bool,
}

/// What a new workflow is.
#[derive(Clone, Debug)]
pub struct NewWork {
    pub on_failure: OnFailure,
    /// The place of the task whose result is the workflow's, …
    pub output: Option<u32>,
    /// … or those of the tasks of which it tells all results.
    pub sinks: Vec<(u32, Name)>,
}

/// A new task, its ties, and its kind where it may be there already.
pub type Part = (NewTask, NewTies, Option<Kind>);

/// What makes a submission the same as one that may be there already.
#[derive(Clone, Debug)]
pub enum Kind {
    /// There is one such task at a time.
    Unique(Unique),
    /// Such tasks become one.
    Gather(OpenList),
}

/// A task that a new one depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    On(TaskId),
    /// On another one of the same submission: its place.
    OnNew(u32),
}

impl Submission {
    /// Checks what can be checked without knowing other tasks, and resolves `@` names.
    pub fn check(tasks: Vec<NewTask>, payload_bytes_max: usize) -> Result<Submission, Invalid> {
        Submission::check_of(None, tasks, payload_bytes_max)
    }

    /// The same of tasks that a running one adds: they may depend on each other and on `@self`.
    pub fn check_spawned(
        spawner: Spawner,
        tasks: Vec<NewTask>,
        payload_bytes_max: usize,
    ) -> Result<Submission, Invalid> {
        let invalid = |at: usize, wrong: Invalid| wrong.within(format_args!("tasks[{at}]"));
        for (at, new) in tasks.iter().enumerate() {
            if new.parent_id.is_some_and(|parent| parent != spawner.task_id) {
                return Err(invalid(at, Invalid::value("parent_id", "must be the task that spawns it")));
            }
        }
        Submission::check_of(Some(spawner), tasks, payload_bytes_max)
    }

    fn check_of(
        spawner: Option<Spawner>,
        tasks: Vec<NewTask>,
        payload_bytes_max: usize,
    ) -> Result<Submission, Invalid> {
        let paths = Paths::List { alone: tasks.len() == 1 && spawner.is_none() };
        let within = |place: usize, invalid: Invalid| paths.within(place, invalid);
        for (place, new) in tasks.iter().enumerate() {
            new.check(payload_bytes_max).map_err(|invalid| within(place, invalid))?;
            for (field, stands) in [("workflow", new.workflow.is_some()), ("weight", new.weight.is_some())] {
                if stands {
                    return Err(within(place, Invalid::value(field, "must stand in a workflow")));
                }
            }
        }
        let names = named(&tasks, within)?;
        let kinds = kinds(&tasks, payload_bytes_max);
        if spawner.is_some() {
            for (place, new) in tasks.iter().enumerate() {
                let detail = "must not stand at a task that another one adds";
                Invalid::no_unique(new, detail).map_err(|invalid| within(place, invalid))?;
            }
        }
        // Alone it has nobody to take results of, and its payload is nobody's business.
        let alone = tasks.len() == 1 && spawner.is_none();
        let is_plain =
            |new: &NewTask| new.depends_on.is_empty() && (alone || !new.payload.as_ref().is_some_and(has_placeholders));
        if tasks.iter().all(is_plain) {
            for (place, new) in tasks.iter().enumerate() {
                check_policy(new, false).map_err(|invalid| within(place, invalid))?;
            }
            return Ok(Submission { tasks, ties: Vec::new(), kinds, paths, spawner, typed: None });
        }
        let places: Vec<u32> = (0..tasks.len() as u32).collect();
        let names = Names { names: &names, places: &places, spawner: spawner.map(|spawner| spawner.task_id) };
        let ties = |place: usize, new: &NewTask| -> Result<NewTies, Invalid> {
            let mut ties = names.ties(&new.depends_on, place, After::Nothing)?;
            if !alone {
                names.take_results(new, place, &mut ties)?;
            }
            check_policy(new, !ties.depends_on.is_empty())?;
            if !ties.depends_on.is_empty() {
                Invalid::no_unique(new, "must not stand at a task that depends on others")?;
            }
            Ok(ties)
        };
        let ties = tasks.iter().enumerate().map(|(place, new)| ties(place, new).map_err(|wrong| within(place, wrong)));
        let ties: Vec<NewTies> = ties.collect::<Result<_, _>>()?;
        for dependency in ties.iter().flat_map(|ties| &ties.depends_on) {
            if let Dependency::OnNew(place) = *dependency {
                let detail = "must not stand where others of the call depend on the task";
                Invalid::no_unique(&tasks[place as usize], detail)
                    .map_err(|invalid| within(place as usize, invalid))?;
            }
        }
        Ok(Submission { kinds, ..Submission::of(tasks, ties, paths, spawner)? })
    }

    /// The same of a workflow: the task that it is comes first, and its parts follow.
    pub fn check_workflow(workflow: NewWorkflow, payload_bytes_max: usize) -> Result<Submission, Invalid> {
        let Flat { tasks, ties, paths } = flatten(workflow, payload_bytes_max)?;
        Submission::of(tasks, ties, Paths::Workflow(paths.into()), None)
    }

    /// Of tasks whose names are resolved.
    fn of(
        tasks: Vec<NewTask>,
        ties: Vec<NewTies>,
        paths: Paths,
        spawner: Option<Spawner>,
    ) -> Result<Submission, Invalid> {
        let mut edges = 0;
        for (place, ties) in ties.iter().enumerate() {
            edges += ties.depends_on.len();
            if edges > EDGES_MAX {
                let over = Invalid::limit("depends_on", EDGES_MAX as u64, "dependencies in one submission");
                return Err(paths.within(place, over));
            }
        }
        let Some(cycle) = cycle(&ties) else {
            return Ok(Submission { tasks, ties, kinds: Vec::new(), paths, spawner, typed: None });
        };
        let name = |place: &u32| match &tasks[*place as usize].reference {
            Some(name) => format!("@{name}"),
            None => paths.name(*place as usize),
        };
        let names: Vec<String> = cycle.iter().map(name).collect();
        let detail = format!("must not go in a circle: {}", names.join(" needs "));
        Err(paths.within(cycle[0] as usize, Invalid::value("depends_on", detail)))
    }

    /// Fills in what its tasks leave out, as their types of this version say; whatever was filled in before is forgotten.
    pub fn fill<'d>(
        &mut self,
        version: TypesVersion,
        payload_bytes_max: usize,
        defaults: impl Fn(&str) -> Option<&'d Defaults>,
    ) {
        let own = self.typed.take().and_then(|typed| typed.own);
        let was_filled = own.is_some();
        self.tasks = own.unwrap_or_else(|| std::mem::take(&mut self.tasks));
        let is_typed = self.tasks.iter().any(|new| defaults(&new.task_type).is_some());
        let own = is_typed.then(|| self.tasks.clone());
        for (place, new) in self.tasks.iter_mut().enumerate().filter(|_| is_typed) {
            match defaults(&new.task_type) {
                Some(defaults) if self.ties.get(place).is_some_and(|ties| ties.work.is_some()) => {
                    defaults.fill_workflow(new);
                }
                Some(defaults) => defaults.fill(new),
                None => {}
            }
        }
        if self.has_kinds() && (is_typed || was_filled) {
            self.kinds = kinds(&self.tasks, payload_bytes_max);
        }
        self.typed = Some(Box::new(Typed { version, own, unfit: Vec::new() }));
    }

    /// The same as they were sent, before types filled anything in.
    pub fn own(&self) -> &[NewTask] {
        self.typed.as_ref().and_then(|typed| typed.own.as_ref()).unwrap_or(&self.tasks)
    }

    /// The types that it was prepared with.
    pub fn types(&self) -> TypesVersion {
        self.typed.as_ref().map(|typed| typed.version).unwrap_or_default()
    }

    /// What does not fit of payloads, as those types say.
    pub fn unfit(&self) -> &[PayloadFault] {
        self.typed.as_ref().map_or(&[], |typed| &typed.unfit)
    }

    pub fn set_unfit(&mut self, unfit: Vec<PayloadFault>) {
        self.typed.get_or_insert_default().unfit = unfit;
    }

    /// Those of its tasks, with their places, whose payloads are whole: they take no results, and are no workflows.
    pub fn with_whole_payloads(&self) -> impl Iterator<Item = (usize, &NewTask)> {
        let is_whole =
            |place: &usize| self.ties.get(*place).is_none_or(|ties| ties.work.is_none() && !ties.takes_results);
        self.tasks.iter().enumerate().filter(move |(place, _)| is_whole(place))
    }

    /// How the payload of a task is called in errors.
    pub fn payload_name(&self, place: usize) -> String {
        self.paths.within(place, Invalid::value("payload", "")).field.into_owned()
    }

    /// How its tasks are called in errors.
    pub fn paths(&self) -> Paths {
        self.paths.clone()
    }

    /// The new tasks.
    pub fn tasks(&self) -> &[NewTask] {
        &self.tasks
    }

    /// Those of its tasks that have callbacks are this author's.
    pub fn set_author(&mut self, author: Option<Author>) {
        let with_callbacks = self.tasks.iter_mut().filter(|new| !new.callbacks.is_empty());
        with_callbacks.for_each(|new| new.author = author);
    }

    /// Whether some have callbacks.
    pub fn has_callbacks(&self) -> bool {
        self.tasks.iter().any(|new| !new.callbacks.is_empty())
    }

    /// Looks at each callback; what is found wrong is said with its place.
    pub fn each_callback(&self, mut look: impl FnMut(&NewCallback) -> Result<(), Invalid>) -> Result<(), Invalid> {
        self.tasks.iter().enumerate().try_for_each(|(place, new)| {
            new.each_callback(&mut look).map_err(|invalid| self.paths.within(place, invalid))
        })
    }

    /// Who adds them, where a running attempt does.
    pub fn spawner(&self) -> Option<Spawner> {
        self.spawner
    }

    /// Gives what a task adds to it: its children are of its user, and part of its workflow.
    pub fn adopt(&mut self, parent: &Task) -> Result<(), Invalid> {
        for (at, new) in self.tasks.iter_mut().enumerate() {
            new.parent_id = Some(parent.task_id);
            let Some(user_id) = &parent.user_id else { continue };
            match &new.user_id {
                Some(said) if said != user_id.as_str() => {
                    let wrong = format!("must be that of the task that spawns it, not {said}");
                    return Err(self.paths.within(at, Invalid::value("user_id", wrong)));
                }
                _ => new.user_id = Some(user_id.as_str().to_owned()),
            }
        }
        let Some(workflow_id) = parent.workflow_id() else { return Ok(()) };
        self.ties.resize_with(self.tasks.len(), NewTies::default);
        for (new, ties) in self.tasks.iter().zip(&mut self.ties) {
            (ties.workflow_id, ties.weight) = (Some(workflow_id), 1);
            ties.reference = new.reference.as_deref().map(Name::new);
        }
        Ok(())
    }

    /// Whether some of them depend on others.
    pub fn has_ties(&self) -> bool {
        !self.ties.is_empty()
    }

    /// The tasks of before that they depend on: the place of the task that does, where it says so, and the id.
    pub fn known(&self) -> impl Iterator<Item = (usize, usize, TaskId)> {
        self.ties.iter().enumerate().flat_map(|(place, ties)| {
            ties.depends_on.iter().enumerate().filter_map(move |(at, dependency)| match dependency {
                Dependency::On(task_id) => Some((place, at, *task_id)),
                Dependency::OnNew(_) => None,
            })
        })
    }

    /// Whether some may be there already.
    pub fn has_kinds(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// What those are the only ones of that are.
    pub fn uniques(&self) -> impl Iterator<Item = &Unique> {
        self.kinds.iter().flatten().filter_map(|kind| match kind {
            Kind::Unique(unique) => Some(unique),
            Kind::Gather(_) => None,
        })
    }

    /// The new tasks, each with its ties, and with its kind where it may be there already.
    pub fn into_parts(self) -> impl ExactSizeIterator<Item = Part> {
        let (mut ties, mut kinds) = (self.ties.into_iter(), self.kinds.into_iter());
        self.tasks.into_iter().map(move |new| (new, ties.next().unwrap_or_default(), kinds.next().flatten()))
    }
}

/// The kind of each task that may be there already; nothing where none may.
fn kinds(tasks: &[NewTask], payload_bytes_max: usize) -> Vec<Option<Kind>> {
    if tasks.iter().all(|new| new.unique.is_none() && new.gather.is_none()) {
        return Vec::new();
    }
    let kind = |new: &NewTask| {
        let gather = || new.gather.as_ref().map(|gather| Kind::Gather(gather.of(new, payload_bytes_max)));
        new.unique.as_ref().map(|unique| Kind::Unique(unique.of(new))).or_else(gather)
    };
    tasks.iter().map(kind).collect()
}

/// The names that tasks of one call, or one workflow, may depend on each other by.
pub(super) struct Names<'a> {
    /// The places in the submission of those that have a name.
    pub(super) names: &'a BTreeMap<String, u32>,
    /// The places of all, in their order.
    pub(super) places: &'a [u32],
    /// Whom `@self` means, where a running task adds these.
    pub(super) spawner: Option<TaskId>,
}

impl Names<'_> {
    /// What a task depends on: by its place among them, and by what it says.
    pub(super) fn ties(&self, said: &[String], index: usize, after: After) -> Result<NewTies, Invalid> {
        let mut ties = NewTies::default();
        let (before, name) = match after {
            After::Nothing => (0..0, ""),
            After::Previous => (index - 1..index, "prev"),
            After::Group => (0..index, "group"),
        };
        if !before.is_empty() {
            ties.names.insert(Name::new(name), (0, before.len() as u32));
            ties.depends_on.extend(self.places[before].iter().map(|place| Dependency::OnNew(*place)));
        }
        let by_place = ties.depends_on.len();
        let mut known: HashSet<Dependency> = ties.depends_on.iter().copied().collect();
        for (at, text) in said.iter().enumerate() {
            let wrong = |detail: String| Invalid::value(format!("depends_on[{at}]"), detail);
            if by_place > 0 && text.strip_prefix('@') == Some(name) {
                // It does anyway.
                continue;
            }
            let dependency = match (text.strip_prefix('@'), self.spawner) {
                (Some("self"), Some(spawner)) => {
                    ties.names.insert(Name::new("self"), (ties.depends_on.len() as u32, 1));
                    Dependency::On(spawner)
                }
                (Some(name), _) => {
                    let unknown = || wrong(format!("names no task of this call: {text}"));
                    let place = *self.names.get(name).ok_or_else(unknown)?;
                    if place == self.places[index] {
                        return Err(wrong("must not be the task itself".to_owned()));
                    }
                    let dependency = Dependency::OnNew(place);
                    let at = ties.depends_on[..by_place].iter().position(|known| *known == dependency);
                    ties.names.insert(Name::new(name), (at.unwrap_or(ties.depends_on.len()) as u32, 1));
                    if at.is_some() {
                        continue;
                    }
                    dependency
                }
                (None, _) => {
                    let task_id = text.parse().map_err(|_| wrong("must be the id of a task, or @ref".to_owned()))?;
                    Dependency::On(task_id)
                }
            };
            if !known.insert(dependency) {
                return Err(wrong(format!("stands there twice: {text}")));
            }
            ties.depends_on.push(dependency);
        }
        if ties.depends_on.len() > TIES_MAX {
            return Err(Invalid::limit("depends_on", TIES_MAX as u64, "tasks"));
        }
        Ok(ties)
    }
}

impl Names<'_> {
    /// A task depends on those whose results it takes.
    pub(super) fn take_results(&self, new: &NewTask, index: usize, ties: &mut NewTies) -> Result<(), Invalid> {
        let Some(payload) = &new.payload else { return Ok(()) };
        for Placeholder { name, .. } in placeholders(payload)? {
            ties.takes_results = true;
            if ties.names.contains_key(name.as_str()) {
                continue;
            }
            let wrong = |detail: String| Invalid::value("payload", detail);
            if let (Some(spawner), "self") = (self.spawner, name.as_str()) {
                ties.names.insert(Name::new("self"), (ties.depends_on.len() as u32, 1));
                ties.depends_on.push(Dependency::On(spawner));
                continue;
            }
            let place = self
                .names
                .get(&name)
                .ok_or_else(|| wrong(format!("takes the result of no task of this call: @{name}")))?;
            if *place == self.places[index] {
                return Err(wrong("must not take the result of the task itself".to_owned()));
            }
            let dependency = Dependency::OnNew(*place);
            let at = ties.depends_on.iter().position(|known| *known == dependency).unwrap_or(ties.depends_on.len());
            if at == ties.depends_on.len() {
                ties.depends_on.push(dependency);
            }
            ties.names.insert(Name::new(&name), (at as u32, 1));
        }
        if ties.depends_on.len() > TIES_MAX {
            return Err(Invalid::limit("depends_on", TIES_MAX as u64, "tasks"));
        }
        Ok(())
    }
}

/// Whether a task may say what becomes of it when one that it depends on does not complete.
pub(super) fn check_policy(new: &NewTask, depends: bool) -> Result<(), Invalid> {
    match new.on_dependency_failure.is_some() && !depends {
        true => Err(Invalid::value("on_dependency_failure", "must not stand without depends_on")),
        false => Ok(()),
    }
}

/// Whether a task may be called so by others.
pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    if RESERVED.contains(&name) {
        return Err(Invalid::value("ref", "must not be self, prev or group"));
    }
    Name::parse(name).map(|_| ()).map_err(|why| Invalid::value("ref", why.to_string()))
}

/// The places of the tasks that have a name.
fn named(tasks: &[NewTask], within: impl Fn(usize, Invalid) -> Invalid) -> Result<BTreeMap<String, u32>, Invalid> {
    let mut places = BTreeMap::new();
    for (place, new) in tasks.iter().enumerate() {
        let Some(name) = &new.reference else { continue };
        check_name(name).map_err(|invalid| within(place, invalid))?;
        if places.insert(name.clone(), place as u32).is_some() {
            return Err(within(place, Invalid::value("ref", "is the name of another task of this call")));
        }
    }
    Ok(places)
}

/// Tasks that wait for each other in a circle, where there are any: in the order in which each needs the next, the first
/// one again at the end.
fn cycle(ties: &[NewTies]) -> Option<Vec<u32>> {
    let new = |place: u32| {
        ties[place as usize].depends_on.iter().filter_map(|dependency| match dependency {
            Dependency::OnNew(place) => Some(*place),
            Dependency::On(_) => None,
        })
    };
    // Takes away what depends on nothing that is left, until nothing more can be taken.
    let mut left: Vec<usize> = (0..ties.len() as u32).map(|place| new(place).count()).collect();
    let mut dependents: Vec<Vec<u32>> = vec![Vec::new(); ties.len()];
    for place in 0..ties.len() as u32 {
        new(place).for_each(|dependency| dependents[dependency as usize].push(place));
    }
    let mut free: Vec<u32> = (0..ties.len() as u32).filter(|place| left[*place as usize] == 0).collect();
    while let Some(place) = free.pop() {
        for dependent in &dependents[place as usize] {
            left[*dependent as usize] -= 1;
            if left[*dependent as usize] == 0 {
                free.push(*dependent);
            }
        }
    }
    // From any that is left on, each one needs another that is.
    let is_left = |place: &u32| left[*place as usize] > 0;
    let mut path: Vec<u32> = vec![(0..ties.len() as u32).find(is_left)?];
    let mut seen: HashMap<u32, usize> = HashMap::new();
    loop {
        let last = path[path.len() - 1];
        if let Some(from) = seen.insert(last, path.len() - 1) {
            return Some(path.split_off(from));
        }
        path.push(new(last).find(is_left)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, depends_on: &[&str]) -> NewTask {
        NewTask {
            reference: Some(name.to_owned()),
            depends_on: depends_on.iter().map(|text| text.to_string()).collect(),
            ..NewTask::new("t")
        }
    }

    fn check(tasks: Vec<NewTask>) -> Result<Submission, String> {
        Submission::check(tasks, 1_000).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn names_are_resolved_forward_and_back() {
        let id = "01890000-0000-7000-8000-00000000002a";
        let submission =
            check(vec![task("a", &["@c"]), task("b", &[]), task("c", &["@b", id]), NewTask::new("t")]).unwrap();
        assert_eq!(submission.known().map(|(.., id)| id).collect::<Vec<_>>(), [id.parse().unwrap()]);
        let parts: Vec<_> = submission.into_parts().map(|(_, ties, _)| ties).collect();
        assert_eq!(parts[0].depends_on, [Dependency::OnNew(2)]);
        assert_eq!(parts[2].depends_on, [Dependency::OnNew(1), Dependency::On(id.parse().unwrap())]);
        assert_eq!(parts[2].names, [(Name::new("b"), (0, 1))].into());
        assert!(parts[1].depends_on.is_empty() && parts[3].depends_on.is_empty());
        assert!(!check(vec![task("a", &[])]).unwrap().has_ties());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (tasks, expected) in [
            (vec![task("a", &["@b"])], "depends_on[0] names no task of this call: @b"),
            (vec![task("a", &["b"])], "depends_on[0] must be the id of a task, or @ref"),
            (vec![task("a", &[]), task("a", &[])], "tasks[1].ref is the name of another task of this call"),
            (vec![task("self", &[])], "ref must not be self, prev or group"),
            (vec![task("a b", &[])], "ref"),
            (vec![task("a", &["@a"]), task("b", &[])], "tasks[0].depends_on[0] must not be the task itself"),
            (vec![task("a", &[]), task("b", &["@a", "@a"])], "tasks[1].depends_on[1] stands there twice: @a"),
            (
                vec![
                    task("x", &["@a"]),
                    task("a", &["@b"]),
                    task("b", &["@c", "@x2"]),
                    task("c", &["@a"]),
                    task("x2", &[]),
                ],
                "tasks[1].depends_on must not go in a circle: @a needs @b needs @c needs @a",
            ),
            (
                vec![NewTask { on_dependency_failure: Some(Default::default()), ..NewTask::new("t") }],
                "on_dependency_failure must not stand without depends_on",
            ),
        ] {
            let refused = check(tasks).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn many_dependencies_are_counted_over_all_tasks() {
        let names: Vec<String> = (0..317).map(|n| format!("@n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sources = || names.iter().map(|name| task(&name[1..], &[]));
        let sinks = |count: usize| (0..count).map(|n| task(&format!("s{n}"), &names));
        assert!(check(sources().chain(sinks(315)).collect()).is_ok());
        let refused = check(sources().chain(sinks(316)).collect()).unwrap_err();
        assert_eq!(refused, "tasks[632].depends_on must be at most 100000 dependencies in one submission");
    }
}
