//! A task as people name it: by its id, or by as much of its beginning or end as tells it from the others.
//!
//! The page and `taskhub list` show the last eight characters of an id; whoever has less of it than all asks the hub which
//! task that is.

use std::fmt;
use std::str::FromStr;

use super::outcome::Failed;
use super::show;
use crate::client::{Client, ListQuery};
use crate::task::{TaskId, TaskView};

/// Less of an id says nothing.
const PART_MIN: usize = 4;
/// The largest page a hub gives.
const PAGE: u32 = 500;
/// Pages that are read. A text of hexadecimal digits is seldom in that many titles.
const PAGES_MAX: usize = 20;
/// Tasks that are named where several are meant.
const NAMED_MAX: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TaskName {
    Id(TaskId),
    /// The beginning or the end of one, in small letters.
    Part(String),
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<TaskName, String> {
        // The address of a task's page names it, too.
        let text = text.rsplit_once("/task/").map_or(text, |(_, id)| id).trim_start_matches('…');
        if let Ok(task_id) = text.parse() {
            return Ok(TaskName::Id(task_id));
        }
        let fits = (PART_MIN..36).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Ok(TaskName::Part(text.to_ascii_lowercase()));
        }
        Err(format!("a task's id is expected, or at least {PART_MIN} characters of its beginning or its end"))
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskName::Id(task_id) => task_id.fmt(f),
            TaskName::Part(part) => f.write_str(part),
        }
    }
}

impl TaskName {
    /// The task that is meant; the hub is asked where the name is not whole.
    pub(super) async fn find(&self, client: &Client) -> Result<TaskId, Failed> {
        let part = match self {
            TaskName::Id(task_id) => return Ok(*task_id),
            TaskName::Part(part) => part,
        };
        let mut query = ListQuery { text: Some(part.clone()), limit: Some(PAGE), ..ListQuery::default() };
        let mut found: Vec<TaskView> = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = client.list(&query).await?;
            found.extend(page.tasks.into_iter().filter(|task| is_part(part, task.task_id)));
            query.cursor = page.next_cursor;
            if query.cursor.is_none() || found.len() > NAMED_MAX {
                break;
            }
        }
        match &found[..] {
            [] if query.cursor.is_some() => {
                Err(Failed::usage(format!("{part} is in the titles of too many tasks; give more of the id")))
            }
            [] => Err(Failed::refused(format!("there is no task whose id begins or ends with {part}"))),
            [task] => Ok(task.task_id),
            several => Err(Failed::usage(ambiguous(part, several))),
        }
    }
}

fn is_part(part: &str, task_id: TaskId) -> bool {
    let id = task_id.to_string();
    id.starts_with(part) || id.ends_with(part)
}

fn ambiguous(part: &str, tasks: &[TaskView]) -> String {
    let mut words = format!("{part} may be any of these; give more of the id:");
    for task in tasks.iter().take(NAMED_MAX) {
        words.push_str(&format!("\n  {}  {}  {}", task.task_id, task.status, show::title(task)));
    }
    if tasks.len() > NAMED_MAX {
        words.push_str("\n  and others");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5c01";

    #[test]
    fn what_names_a_task() {
        let whole = TaskName::Id(ID.parse().unwrap());
        for text in [ID, &ID.to_uppercase(), &format!("http://127.0.0.1:8080/#/task/{ID}")] {
            assert_eq!(text.parse::<TaskName>().as_ref(), Ok(&whole), "{text}");
        }
        for (text, part) in [("3a4b5c01", "3a4b5c01"), ("0198F3A2-5", "0198f3a2-5"), ("…3a4b5c01", "3a4b5c01")] {
            assert_eq!(text.parse(), Ok(TaskName::Part(part.into())), "{text}");
            assert!(is_part(part, ID.parse().unwrap()));
        }
        assert!(!is_part("5c1e", ID.parse().unwrap()), "the middle is no part people see");
        for wrong in ["", "5c0", "nope", "report", "0198f3a2-5c1e-7a3b-9c4d-1f2e3a4b5c01f"] {
            assert!(wrong.parse::<TaskName>().is_err(), "{wrong}");
        }
    }
}
