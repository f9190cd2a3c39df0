//! Items of a payload that is gathered: each is kept by itself, and they are joined where the payload is read.
//!
//! So an item that comes is written once, however many there are. Among the parts of a task they stand from [`FIRST`] on, in
//! their order. A payload that somebody put in their place stands where payloads stand, and comes first.

use rusqlite::{Connection, params};

use super::json_of;
use crate::task::{Json, TaskId};

/// The number of the first item among the parts of a task.
pub(super) const FIRST: u32 = 16;

/// The number of the item at this place.
pub(super) fn part(place: u32) -> u32 {
    FIRST + place
}

/// Items that follow each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Items {
    from: u32,
    items: Vec<Json>,
}

impl Items {
    /// One more, which follows those that are there.
    pub fn push(&mut self, place: u32, item: Json) {
        if self.items.is_empty() {
            self.from = place;
        }
        self.items.push(item);
    }

    /// Each with its place.
    pub fn each(&self) -> impl Iterator<Item = (u32, &Json)> {
        (self.from..).zip(&self.items)
    }

    /// About what they hold in memory.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.len() + size_of::<Json>()).sum()
    }

    /// Those that were settled, with those that were not when that was looked at, and may be by now.
    pub fn with(mut self, newer: Option<Items>) -> Items {
        if let Some(newer) = newer {
            self.items.truncate(newer.from as usize);
            self.items.extend(newer.items);
        }
        self
    }

    /// The payload, where there is one.
    pub fn whole(&self) -> Option<Json> {
        (!self.items.is_empty()).then(|| self.list())
    }

    /// The list of them, each as it came.
    pub fn list(&self) -> Json {
        let mut text = Vec::with_capacity(self.items.iter().map(|item| item.len() + 1).sum::<usize>() + 2);
        text.push(b'[');
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                text.push(b',');
            }
            text.extend_from_slice(item.bytes());
        }
        text.push(b']');
        Json::trusted(text)
    }
}

/// Whether a record may be that of a task with items: to be sure it is read.
pub(super) fn may_have(record: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"gathered\":";
    record.windows(FIELD.len()).any(|window| window == FIELD)
}

/// The payload of a task that is made of its items: those in the view, and those that were staged when that was looked at.
pub(super) fn read(conn: &Connection, task_id: TaskId, staged: Option<Items>) -> rusqlite::Result<Option<Json>> {
    let mut statement =
        conn.prepare_cached("SELECT part, json FROM parts WHERE task_id = ?1 AND part >= ?2 ORDER BY part")?;
    let mut rows = statement.query(params![task_id.as_bytes().as_slice(), FIRST])?;
    let mut settled = Items::default();
    while let Some(row) = rows.next()? {
        let part: u32 = row.get(0)?;
        json_of(row, 1)?.into_iter().for_each(|item| settled.push(part - FIRST, item));
    }
    Ok(settled.with(staged).whole())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::store::suite::World;
    use crate::store::{Commit, Store as _};
    use crate::task::{Detail, Event, Gather, Status, Task};

    fn of(gathered: u32) -> Option<Box<Detail>> {
        let gather = Some(Box::new(Gather { gathered, open: None }));
        Some(Box::new(Detail { gather, ..Detail::default() }))
    }

    /// Items are joined wherever they are: in the log of a hub that died, not settled yet, in the view, or here and there.
    #[test]
    fn items_are_joined_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(1);
        let mut store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        store.recover().unwrap();
        let mut expected: Vec<String> = Vec::new();
        let mut task_id = None;
        for n in 0..40u32 {
            let mut commit = Commit::default();
            let known = task_id.map(|id| Task::clone(&world.tasks[&id].task));
            let id = match known {
                None => world.create_as(&mut commit, |task| (task.status, task.detail) = (Status::Scheduled, of(1))),
                Some(mut task) => {
                    task.detail = of(n + 1);
                    world.put(&mut commit, task, Event::Updated)
                }
            };
            task_id = Some(id);
            let item = format!("{{\"n\" : {n}}}");
            commit.changes[0].change.payload = Some(Json::trusted(item.clone()));
            assert_eq!(commit.changes[0].change.item(), Some(n));
            expected.push(item);
            store.append(&commit).unwrap();
            match n % 5 {
                1 => drop(store.settle(10).unwrap()),
                3 => {
                    // What was not settled is read from the log.
                    drop(store);
                    store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
                }
                _ => {}
            }
            let list = format!("[{}]", expected.join(","));
            let reader = store.reader();
            let stored = reader.task(id).unwrap().unwrap();
            assert_eq!(stored.payload.as_ref().map(Json::as_str), Some(list.as_str()), "after {n}");
            let given = reader.hand_out(&[id]).unwrap();
            assert_eq!(given[0].0.as_ref().map(Json::as_str), Some(list.as_str()), "after {n}");
        }
    }
}
