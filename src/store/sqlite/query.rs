//! Finding tasks: the staging merged with the view.
//!
//! A page is read in order of `task_id`, from the cursor on, and reading stops where the page is full; so what matters
//! is that SQLite walks an index that is in that order and wastes few rows. The walk is chosen here, not by the
//! planner: over the ids asked for, one workflow, one status, one user or one label, or over all tasks. Where a filter lists several
//! values, each gets a walk of its own, and SQLite merges them. Everything else is checked row by row.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::fresh::{Fresh, Newer};
use super::staging::Staging;
use super::{id_of, integer};
use crate::store::{Order, Page, Query, has_text};
use crate::task::{Filter, Name, Pattern, PatternSet, Status, TaskId};

use bytes::Bytes;

/// The most walks that are merged; a longer list is gathered and sorted. SQLite allows 500.
const WALKS_MAX: usize = 32;

/// Of what is staged, what a query means, in its order.
pub(super) fn fresh(staging: &Staging, query: &Query) -> Fresh<u128, (TaskId, Bytes)> {
    let text = query.lower_text();
    Fresh::of(
        staging,
        query.limit,
        |record| {
            let meant = !record.gone && query.matches(&record.task, text.as_deref());
            meant.then(|| sort_key(query.order, record.task.task_id))
        },
        |record| (record.task.task_id, record.bytes.clone()),
    )
}

/// What the tasks of a page are sorted by.
fn sort_key(order: Order, task_id: TaskId) -> u128 {
    match order {
        Order::OldestFirst => task_id.as_u128(),
        Order::NewestFirst => !task_id.as_u128(),
    }
}

/// Reads a page.
pub(super) fn find(conn: &Connection, query: &Query, fresh: Fresh<u128, (TaskId, Bytes)>) -> rusqlite::Result<Page> {
    let built = Built::new(query, fresh.len());
    let mut statement = conn.prepare_cached(&built.sql)?;
    let mut rows = statement.query(params_from_iter(built.values))?;
    let text = query.lower_text();
    let next = |newer: &Newer| {
        while let Some(row) = rows.next()? {
            let task_id = id_of(row, 0)?;
            if newer.contains(&task_id) {
                continue;
            }
            // SQLite's `LIKE` knows the case of ASCII only.
            if let Some(text) = &text
                && !has_text(row.get_ref(2)?.as_str_or_null()?, row.get_ref(3)?.as_str()?, task_id, text)
            {
                continue;
            }
            let record = Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?);
            return Ok(Some((sort_key(query.order, task_id), (task_id, record))));
        }
        Ok(None)
    };
    let (tasks, more) = fresh.merge(query.limit, next)?;
    Ok(Page { tasks, more })
}

/// A statement and its parameters. Nothing from outside stands in the statement itself.
struct Built {
    sql: String,
    values: Vec<Value>,
}

/// What is walked.
struct Walk {
    from: &'static str,
    /// The column that holds the id, in the order of which the walk goes.
    id: &'static str,
    condition: String,
}

impl Built {
    /// The statement of a query that passes over up to so many rows.
    fn new(query: &Query, passed_over: usize) -> Built {
        let mut built = Built { sql: String::new(), values: Vec::new() };
        let walks = built.walks(&query.filter);
        let rest = built.rest(query);
        let columns = if query.text.is_some() { "t.record, t.title, t.task_type" } else { "t.record" };
        let beyond = query.beyond.map(|id| built.bind(id.as_bytes().to_vec()));
        // The id of a task begins with the time it was made, or a later one where the clock went back.
        let first = query.created_after.map(|after| built.bind(first_id(after.as_millis())));
        let (side, order) = match query.order {
            Order::NewestFirst => ("<", "DESC"),
            Order::OldestFirst => (">", "ASC"),
        };
        let mut sql = String::new();
        for (at, walk) in walks.iter().enumerate() {
            let Walk { from, id, condition } = walk;
            let union = if at > 0 { " UNION ALL " } else { "" };
            write!(sql, "{union}SELECT {id}, {columns} FROM {from} WHERE {condition}{rest}").expect(FITS);
            if let Some(beyond) = &beyond {
                write!(sql, " AND {id} {side} {beyond}").expect(FITS);
            }
            if let Some(first) = &first {
                write!(sql, " AND {id} >= {first}").expect(FITS);
            }
        }
        write!(sql, " ORDER BY 1 {order}").expect(FITS);
        if query.text.is_none() {
            // One more, to see whether there is more.
            let limit = built.bind(integer(query.limit.saturating_add(1).saturating_add(passed_over)));
            write!(sql, " LIMIT {limit}").expect(FITS);
        }
        built.sql = sql;
        built
    }

    /// Chooses by what is likely to be few: ids; the tasks of a workflow; running tasks, which are as many as workers can hold; a label; a user;
    /// a status.
    fn walks(&mut self, filter: &Filter) -> Vec<Walk> {
        const STATUS: &str = "tasks AS t INDEXED BY tasks_status";
        const USER: &str = "tasks AS t INDEXED BY tasks_user";
        const WORKFLOW: &str = "tasks AS t INDEXED BY tasks_workflow";
        if let Some(ids) = &filter.task_id {
            let list = self.list(ids.iter().map(|id| id.as_bytes().to_vec()));
            return vec![Walk { from: "tasks AS t", id: "t.task_id", condition: format!("t.task_id IN {list}") }];
        }
        if let Some(ids) = &filter.workflow_id {
            let ids = ids.iter().map(|id| id.as_bytes().to_vec());
            return self.each("t.workflow_id", ids, |condition| Walk { from: WORKFLOW, id: "t.task_id", condition });
        }
        let statuses = filter.status.as_ref();
        let only_running = statuses.is_some_and(|set| set.iter().all(|status| *status == Status::Running));
        if !only_running && let Some((key, values)) = filter.labels.first_key_value() {
            let key = self.bind(key.clone());
            let mut walks = self.each("l.value", values.iter().cloned(), |condition| Walk {
                from: "labels AS l CROSS JOIN tasks AS t ON t.task_id = l.task_id",
                id: "l.task_id",
                condition,
            });
            walks.iter_mut().for_each(|walk| walk.condition = format!("l.key = {key} AND {}", walk.condition));
            return walks;
        }
        let walk = |from| move |condition| Walk { from, id: "t.task_id", condition };
        match (&filter.user_id, statuses) {
            (Some(users), _) if !only_running => {
                self.each("t.user_id", users.iter().map(|user| user.as_str().to_owned()), walk(USER))
            }
            (_, Some(statuses)) => self.each("t.status", statuses.iter().map(|s| *s as i64), walk(STATUS)),
            _ => vec![Walk { from: "tasks AS t", id: "t.task_id", condition: "TRUE".to_owned() }],
        }
    }

    /// All conditions, those of the walk included: to check them twice costs little.
    fn rest(&mut self, query: &Query) -> String {
        // Those it must have now are among `labels`, and rows are found by what a task has now.
        let Filter { task_id: _, task_type, queue, status, user_id, workflow_id, labels, labels_now: _ } =
            &query.filter;
        let mut rest = String::new();
        let mut and = |condition: String| write!(rest, " AND {condition}").expect(FITS);
        if let Some(statuses) = status {
            // The `+` keeps the planner from thinking of the index.
            and(format!("+t.status IN {}", self.list(statuses.iter().map(|status| *status as i64))));
        }
        if let Some(users) = user_id {
            and(format!("+t.user_id IN {}", self.list(users.iter().map(|user: &Name| user.as_str().to_owned()))));
        }
        if let Some(ids) = workflow_id {
            and(format!("+t.workflow_id IN {}", self.list(ids.iter().map(|id| id.as_bytes().to_vec()))));
        }
        for (column, patterns) in [("t.task_type", task_type), ("t.queue", queue)] {
            if let Some(patterns) = patterns {
                and(self.patterns(column, patterns));
            }
        }
        for (key, values) in labels {
            let key = self.bind(key.clone());
            let list = self.list(values.iter().cloned());
            and(format!(
                "EXISTS (SELECT 1 FROM labels AS m WHERE m.key = {key} AND m.value IN {list} AND m.task_id = t.task_id)"
            ));
        }
        if let Some(after) = query.created_after {
            and(format!("t.created_at >= {}", self.bind(after.as_millis())));
        }
        if let Some(before) = query.created_before {
            and(format!("t.created_at < {}", self.bind(before.as_millis())));
        }
        rest
    }

    fn patterns(&mut self, column: &str, patterns: &PatternSet) -> String {
        let (mut exact, mut each) = (Vec::new(), Vec::new());
        for pattern in patterns.iter() {
            match pattern {
                Pattern::Exact(name) => exact.push(name.as_str().to_owned()),
                Pattern::Prefix(prefix) => {
                    let chars = prefix.as_str().chars().count();
                    each.push(format!("substr({column}, 1, {chars}) = {}", self.bind(prefix.as_str().to_owned())));
                }
            }
        }
        // One list, not a chain of ORs: SQLite bounds how deep an expression is, and a filter may name a thousand.
        if !exact.is_empty() {
            let list = self.list(exact.into_iter());
            each.push(format!("{column} IN {list}"));
        }
        if each.is_empty() { "FALSE".to_owned() } else { format!("({})", each.join(" OR ")) }
    }

    /// A walk for each value, or one for all where they are many.
    fn each<V: Into<Value>>(
        &mut self,
        column: &str,
        values: impl ExactSizeIterator<Item = V>,
        walk: impl Fn(String) -> Walk,
    ) -> Vec<Walk> {
        if values.len() == 0 || values.len() > WALKS_MAX {
            return vec![walk(format!("{column} IN {}", self.list(values)))];
        }
        values.map(|value| walk(format!("{column} = {}", self.bind(value)))).collect()
    }

    fn list<V: Into<Value>>(&mut self, values: impl Iterator<Item = V>) -> String {
        let each: Vec<_> = values.map(|value| self.bind(value)).collect();
        format!("({})", each.join(","))
    }

    /// The name of a parameter with this value.
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }
}

const FITS: &str = "a String takes every write";

/// The lowest id that may have been made at this time.
fn first_id(millis: i64) -> Vec<u8> {
    let mut id = vec![0; 16];
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::pool::Location;
    use crate::store::sqlite::schema;

    fn plan(query: &Query) -> String {
        let mut conn = Location::new_memory().writer().unwrap();
        schema::migrate(&mut conn, "epoch").unwrap();
        let built = Built::new(query, 0);
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", built.sql)).unwrap();
        let mut rows = statement.query(params_from_iter(built.values)).unwrap();
        let mut plan = String::new();
        while let Some(row) = rows.next().unwrap() {
            writeln!(plan, "{}", row.get_ref(3).unwrap().as_str().unwrap()).unwrap();
        }
        plan
    }

    fn query(filter: Filter) -> Query {
        Query {
            filter,
            text: None,
            created_after: None,
            created_before: None,
            order: Order::NewestFirst,
            beyond: Some(TaskId::from_bytes([7; 16])),
            limit: 50,
        }
    }

    #[test]
    fn each_filter_walks_its_index_in_order() {
        let status = |list: &[Status]| Some(list.iter().copied().collect());
        let users = |n: usize| Some((0..n).map(|at| Name::new(&format!("u{at}"))).collect());
        let labels = || [("k".to_owned(), ["v".to_owned(), "w".to_owned()].into())].into();
        let all = Filter::default;
        let workflow = || Some([TaskId::from_bytes([9; 16])].into());
        for (filter, index, sorts) in [
            (all(), "PRIMARY KEY (task_id<?)", false),
            (
                Filter { status: status(&[Status::Running]), ..all() },
                "INDEX tasks_status (status=? AND task_id<?)",
                false,
            ),
            (
                Filter { status: status(&[Status::Failed, Status::Completed]), ..all() },
                "INDEX tasks_status (status=? AND task_id<?)",
                false,
            ),
            (Filter { user_id: users(1), ..all() }, "INDEX tasks_user (user_id=? AND task_id<?)", false),
            (
                Filter { user_id: users(3), status: status(&[Status::Failed]), ..all() },
                "INDEX tasks_user (user_id=? AND task_id<?)",
                false,
            ),
            (
                Filter { user_id: users(3), status: status(&[Status::Running]), ..all() },
                "INDEX tasks_status (status=? AND task_id<?)",
                false,
            ),
            (Filter { user_id: users(WALKS_MAX + 1), ..all() }, "INDEX tasks_user (user_id=? AND task_id<?)", true),
            (
                Filter { workflow_id: workflow(), status: status(&[Status::Running]), ..all() },
                "INDEX tasks_workflow (workflow_id=? AND task_id<?)",
                false,
            ),
            (Filter { labels: labels(), ..all() }, "l USING PRIMARY KEY (key=? AND value=? AND task_id<?)", false),
        ] {
            let query = query(filter);
            let plan = plan(&query);
            assert!(plan.contains(index), "{:?}\n{plan}", query.filter);
            assert_eq!(plan.contains("TEMP B-TREE"), sorts, "{:?}\n{plan}", query.filter);
        }
    }

    #[test]
    fn an_id_made_at_a_time_is_not_below_the_first_of_that_time() {
        let now = crate::task::Timestamp::from_millis(1_790_000_000_123);
        let id = crate::task::IdSource::default().next(now, &mut fastrand::Rng::with_seed(1));
        assert!(id.as_bytes()[..] >= first_id(now.as_millis())[..]);
        assert!(id.as_bytes()[..] < first_id(now.as_millis() + 1)[..]);
    }
}
