//! What each caller may see, said a second time and as simply as can be: nothing here knows how the hub does it.
//!
//! Each task has a number, and each of its parts a secret word with that number and the letter of the part. The words, and the
//! id of the task, are looked for in every byte that a caller is sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde_json::{Value, json};
use taskhub::access::Role;
use taskhub::task::TaskId;

/// A part of a task, by the letter of its words.
pub const RECORD: char = 'c';
pub const PAYLOAD: char = 'p';
pub const RESULT: char = 'r';
pub const LOGS: char = 'l';

pub fn word(number: usize, part: char) -> String {
    format!("zq.{number}{part}.")
}

/// What never changes of a task.
#[derive(Clone, Debug)]
pub struct Facts {
    pub task_id: TaskId,
    pub number: usize,
    pub task_type: String,
    pub queue: String,
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub workflow_id: Option<TaskId>,
    /// Whether it depends on others.
    pub depends: bool,
    pub deleted: bool,
    /// The callers whose workers run it, or ran it.
    pub holds: HashSet<usize>,
    pub held: HashSet<usize>,
}

/// A filter, as what it means.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub task_ids: Option<Vec<TaskId>>,
    pub task_types: Option<Vec<String>>,
    pub queues: Option<Vec<String>>,
    pub users: Option<Vec<String>>,
    pub workflow_ids: Option<Vec<TaskId>>,
    pub projects: Option<Vec<String>>,
}

/// One who calls.
#[derive(Clone)]
pub struct Caller {
    pub name: String,
    pub token: String,
    pub role: Role,
    pub user: Option<String>,
    /// All of them hold.
    pub scopes: Vec<Scope>,
    /// The letters of the parts that are hidden.
    pub hides: Vec<char>,
    /// What a scoped token allows.
    pub allow: Option<Vec<&'static str>>,
    pub maker: Option<usize>,
    pub jti: Option<String>,
    pub is_alive: bool,
}

/// Without the token.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<String> = self.scopes.iter().map(|scope| scope.json().to_string()).collect();
        let Caller { name, user, hides, allow, is_alive, .. } = self;
        write!(f, "[{name}: user {user:?}, sees {scopes:?} without {hides:?}, may {allow:?}, alive: {is_alive}]")
    }
}

fn any(list: &Option<Vec<String>>, value: &str) -> bool {
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(beginning) => value.starts_with(beginning),
        None => value == pattern,
    };
    list.as_ref().is_none_or(|list| list.iter().any(fits))
}

impl Scope {
    pub fn of_user(user: &str) -> Scope {
        Scope { users: Some(vec![user.to_owned()]), ..Scope::default() }
    }

    pub fn of_task(task_id: TaskId) -> Scope {
        Scope { task_ids: Some(vec![task_id]), ..Scope::default() }
    }

    pub fn means(&self, task: &Facts) -> bool {
        self.task_ids.as_ref().is_none_or(|ids| ids.contains(&task.task_id))
            && any(&self.task_types, &task.task_type)
            && any(&self.queues, &task.queue)
            && (self.users.is_none() || task.user.as_ref().is_some_and(|user| any(&self.users, user)))
            && self.workflow_ids.as_ref().is_none_or(|ids| task.workflow_id.is_some_and(|id| ids.contains(&id)))
            && (self.projects.is_none()
                || task.labels.get("project").is_some_and(|project| any(&self.projects, project)))
    }

    /// As it stands on the wire.
    pub fn json(&self) -> Value {
        let mut object = json!({});
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                object[key] = value;
            }
        };
        put("task_id", json!(self.task_ids));
        put("task_type", json!(self.task_types));
        put("queue", json!(self.queues));
        put("user_id", json!(self.users));
        put("workflow_id", json!(self.workflow_ids));
        put("labels", self.projects.as_ref().map_or(Value::Null, |projects| json!({"project": projects})));
        object
    }

    /// As a query says it; a query has no lists of users and labels.
    pub fn query(&self) -> Vec<(String, String)> {
        let lists = [
            ("task_id", self.task_ids.as_ref().map(|ids| ids.iter().map(ToString::to_string).collect())),
            ("task_type", self.task_types.clone()),
            ("queue", self.queues.clone()),
            ("user_id", self.users.clone()),
            ("workflow_id", self.workflow_ids.as_ref().map(|ids| ids.iter().map(ToString::to_string).collect())),
            ("label.project", self.projects.clone()),
        ];
        let said = |(key, list): (&str, Option<Vec<String>>)| Some((key.to_owned(), list?.join(",")));
        lists.into_iter().filter_map(said).collect()
    }

    /// The same, as far as a query can say it.
    pub fn for_query(mut self) -> Scope {
        [&mut self.task_types, &mut self.queues, &mut self.users, &mut self.projects]
            .into_iter()
            .flatten()
            .for_each(|list| list.truncate(1));
        self.workflow_ids.iter_mut().for_each(|ids| ids.truncate(1));
        self
    }
}

impl Caller {
    pub fn sees_all(&self) -> bool {
        self.role != Role::Worker && self.scopes.iter().all(|scope| scope.json() == json!({}))
    }

    /// Whether a task is theirs to see. `None`: a worker's that ran it, and may see it a while longer.
    pub fn sees(&self, own: usize, task: &Facts) -> Option<bool> {
        if self.role != Role::Worker {
            return Some(self.scopes.iter().all(|scope| scope.means(task)));
        }
        match (task.holds.contains(&own), task.held.contains(&own)) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }

    pub fn may(&self, right: &str) -> bool {
        let by_role = match self.role {
            Role::Viewer => matches!(right, "see" | "watch" | "mint" | "hub" | "settings"),
            Role::User => {
                matches!(right, "see" | "watch" | "submit" | "cancel" | "retry" | "change" | "mint" | "settings")
            }
            Role::Worker => matches!(right, "see" | "work"),
            Role::Operator | Role::Admin => right != "work" || self.role == Role::Admin,
        };
        let by_token = self.allow.as_ref().is_none_or(|allow| match right {
            "see" | "watch" => allow.contains(&"read"),
            "submit" | "cancel" | "retry" => allow.contains(&right),
            _ => false,
        });
        by_role && by_token
    }

    /// Whose keys of idempotency it uses.
    pub fn keys_of(&self) -> String {
        let user = self.user.clone().unwrap_or_default();
        let leaves_all_of = |scope: &Scope| {
            let others = Scope { users: None, ..scope.clone() };
            others.json() == json!({}) && scope.users.as_ref().is_none_or(|users| users.contains(&user))
        };
        let sees_its_user = self.user.is_some() && !self.sees_all() && self.scopes.iter().all(leaves_all_of);
        match &self.jti {
            Some(jti) if !sees_its_user => format!("{user}/{jti}"),
            _ => user,
        }
    }
}

/// All that was ever submitted.
#[derive(Default)]
pub struct Law {
    pub tasks: Vec<Facts>,
    places: HashMap<TaskId, usize>,
    numbers: HashMap<usize, usize>,
}

impl Law {
    pub fn submitted(&mut self, facts: Facts) {
        self.places.insert(facts.task_id, self.tasks.len());
        self.numbers.insert(facts.number, self.tasks.len());
        self.tasks.push(facts);
    }

    pub fn task(&self, task_id: TaskId) -> Option<&Facts> {
        self.places.get(&task_id).map(|at| &self.tasks[*at])
    }

    fn sees_workflow_of(&self, own: usize, caller: &Caller, task: &Facts) -> bool {
        let workflow = task.workflow_id.and_then(|workflow_id| self.task(workflow_id));
        workflow.is_some_and(|workflow| caller.sees(own, workflow) != Some(false))
    }

    /// What is in a text that this caller must not be told, if anything. Ids in `named` the caller has said first.
    pub fn foreign(&self, own: usize, caller: &Caller, text: &str, named: &str) -> Option<String> {
        for (at, _) in text.match_indices("zq.") {
            let digits: String = text[at + 3..].chars().take_while(char::is_ascii_digit).collect();
            let mut rest = text[at + 3 + digits.len()..].chars();
            let (Ok(number), Some(part), Some('.')) = (digits.parse::<usize>(), rest.next(), rest.next()) else {
                continue;
            };
            // A word that the caller has said, it knows.
            if named.contains(&word(number, part)) {
                continue;
            }
            // The answer to a submission comes before its task is known here.
            let Some(task) = self.numbers.get(&number).map(|at| &self.tasks[*at]) else { continue };
            // The result of a workflow is made of those of its tasks.
            let is_told = part == RESULT && self.sees_workflow_of(own, caller, task);
            if (caller.sees(own, task) == Some(false) && !is_told) || caller.hides.contains(&part) {
                return Some(format!("the word {} of {task:?}", word(number, part)));
            }
        }
        for (at, _) in text.match_indices('-').filter(|(at, _)| *at >= 8) {
            let Some(id) = text.get(at - 8..at + 28).and_then(|id| id.parse::<TaskId>().ok()) else { continue };
            let Some(task) = self.task(id) else { continue };
            // Whoever sees a task sees of which workflow it is.
            let is_said = |part: &Facts| part.workflow_id == Some(id) && caller.sees(own, part) != Some(false);
            if caller.sees(own, task) == Some(false)
                && !named.contains(&id.to_string())
                && !self.tasks.iter().any(is_said)
                && !self.sees_workflow_of(own, caller, task)
            {
                return Some(format!("the id of {task:?}"));
            }
        }
        None
    }
}
