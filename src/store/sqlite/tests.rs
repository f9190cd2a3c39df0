//! What only a store in a file has to stand: full disks, damage, other hubs, older and newer ones.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::tempdir;

use super::*;
use crate::store::suite::{World, killed, settle_all};
use crate::store::{ChangedSince, LogRange, Query};
use crate::task::{Event, Json, Name, Status};

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, SqliteOptions::default()).unwrap()
}

fn refusal(folder: &Path) -> StoreError {
    match SqliteStore::open(folder, SqliteOptions::default()) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

fn append_tasks(world: &mut World, store: &mut SqliteStore, count: usize) -> Result<Vec<TaskId>, StoreError> {
    let mut commit = Commit::default();
    let ids = (0..count).map(|_| world.create(&mut commit)).collect();
    store.append(&commit).map(|()| ids)
}

/// The disk is full from here on, but for this many pages.
fn fill_disk(store: &SqliteStore, pages_left: i64) {
    let pages: i64 = store.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    set_disk(store, pages + pages_left);
}

fn set_disk(store: &SqliteStore, pages: i64) {
    store.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
}

/// A payload of a mebibyte in which nothing repeats, so that packing leaves it as large.
fn noise() -> Json {
    let mut random = fastrand::Rng::with_seed(1);
    let text: String = (0..1 << 20).map(|_| random.alphanumeric()).collect();
    Json::trusted(format!("\"{text}\""))
}

fn large_commit(world: &mut World) -> Commit {
    let mut commit = Commit::default();
    (0..2_000).for_each(|_| _ = world.create(&mut commit));
    commit
}

#[test]
fn a_second_hub_on_the_same_folder_is_refused() {
    let folder = tempdir().unwrap();
    let first = open(folder.path());
    let error = refusal(folder.path());
    assert!(error.to_string().contains("another hub is running on"), "{error}");
    drop(first);
    open(folder.path());
}

#[test]
fn a_file_of_a_newer_hub_is_refused_and_left_as_it_is() {
    let folder = tempdir().unwrap();
    let store = open(folder.path());
    store.conn.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    drop(store);
    for _ in 0..2 {
        let error = refusal(folder.path());
        assert!(error.lasting);
        assert!(error.to_string().contains("run the newer hub"), "{error}");
    }
    let conn = Location::File(folder.path().join(FILE_NAME)).writer().unwrap();
    conn.pragma_update(None, "user_version", schema::VERSION).unwrap();
    drop(conn);
    open(folder.path());
}

#[test]
fn a_file_that_is_no_database_is_refused_for_good() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), "x".repeat(100_000)).unwrap();
    assert!(refusal(folder.path()).lasting);
}

#[test]
fn a_folder_that_cannot_be_made_is_named_by_its_step() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(refusal(&folder.path().join("file/data")).step, "create the data folder");
}

#[test]
fn each_opening_has_a_name_and_knows_those_before_it() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut heard: Vec<(String, u64)> = Vec::new();
    for _ in 0..4 {
        let mut store = open(folder.path());
        let openings = store.recover().unwrap().openings;
        assert!(heard.iter().all(|(epoch, rev)| openings.include(epoch, *rev, world.rev)));
        assert!(heard.iter().all(|(epoch, rev)| !openings.include(epoch, rev + 1, world.rev + 9)));
        append_tasks(&mut world, &mut store, 3).unwrap();
        heard.push((openings.epoch().to_owned(), world.rev));
    }
    let names: BTreeSet<_> = heard.iter().map(|(epoch, _)| epoch).collect();
    assert_eq!(names.len(), 4);
}

/// Regression: a folder that was put back from a copy kept its epoch, and its numbers were given out again; now what was
/// heard of the lost history is known by no opening of the copy, and two copies are not taken for each other.
#[test]
fn a_copy_is_another_history_from_where_it_was_made() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    append_tasks(&mut world, &mut store, 4).unwrap();
    let first = store.openings.epoch().to_owned();
    drop(store);
    let (copy, other) = (killed(folder.path()), killed(folder.path()));
    // In the middle of an opening, too.
    let mut store = open(folder.path());
    append_tasks(&mut world, &mut store, 1).unwrap();
    let middle = killed(folder.path());
    append_tasks(&mut world, &mut store, 4).unwrap();
    let (second, rev) = (store.openings.epoch().to_owned(), world.rev);
    for (folder, known) in [(copy.path(), 4), (other.path(), 4), (middle.path(), 5)] {
        let mut copied = World::new(2);
        copied.rev = known;
        let mut store = open(folder);
        let openings = store.openings.clone();
        append_tasks(&mut copied, &mut store, 30).unwrap();
        assert!(openings.include(&first, 4, copied.rev));
        assert_eq!(openings.include(&second, 5, copied.rev), known == 5);
        assert!(!openings.include(&second, rev, copied.rev), "it was told what is not here");
    }
    assert_ne!(open(copy.path()).openings.epoch(), open(other.path()).openings.epoch());
}

#[test]
fn the_youngest_id_and_the_last_rev_outlive_their_task() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    let ids = append_tasks(&mut world, &mut store, 3).unwrap();
    let mut commit = Commit::default();
    world.step(&mut commit, ids[2], Status::Cancelled, Event::Cancelled);
    world.delete(&mut commit, ids[2]);
    store.append(&commit).unwrap();
    settle_all(&mut store, 1);
    store.sweep(world.now, world.now.plus_millis(1), 10).unwrap();
    drop(store);
    let recovered = open(folder.path()).recover().unwrap();
    assert_eq!((recovered.rev, recovered.last_id), (5, Some(ids[2])));
}

#[test]
fn a_full_disk_refuses_a_commit_whole_and_takes_it_later() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    append_tasks(&mut world, &mut store, 10).unwrap();

    let before = (world.rev, store.unsettled());
    let mut full = World::new(1);
    append_tasks(&mut full, &mut open(tempdir().unwrap().path()), 10).unwrap();
    let large = large_commit(&mut full);
    for pages_left in [0, 1, 10] {
        fill_disk(&store, pages_left);
        for _ in 0..3 {
            let error = store.append(&large).unwrap_err();
            assert!(!error.lasting, "{error}");
        }
        assert_eq!((world.rev, store.unsettled()), before);
        world.check_by_id(&mut store);
        // Killed now, nothing of it is found.
        let image = killed(folder.path());
        world.check_by_id(&mut open(image.path()));
    }
    fill_disk(&store, 0);
    assert!(!store.probe().unwrap_err().lasting);

    set_disk(&store, 1 << 30);
    store.probe().unwrap();
    store.append(&large).unwrap();
    full.check_by_id(&mut store);
    drop(store);
    full.check_view(&mut open(folder.path()));
}

#[test]
fn a_commit_of_several_rows_is_refused_whole() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    let mut commit = Commit::default();
    let payload = noise();
    for at in 0..20 {
        world.create(&mut commit);
        commit.changes[at].change.payload = Some(payload.clone());
    }
    world.tasks.values_mut().for_each(|known| known.payload = Some(payload.clone()));
    // Room for the first row.
    fill_disk(&store, 1_200);
    assert!(!store.append(&commit).unwrap_err().lasting);
    assert_eq!(store.unsettled(), (0, 0));
    let rows: i64 = store.conn.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
    set_disk(&store, 1 << 30);
    store.append(&commit).unwrap();
    let rows: i64 = store.conn.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    assert!(rows > 1);
    world.check_by_id(&mut store);
    world.check_by_id(&mut open(killed(folder.path()).path()));
}

#[test]
fn a_full_disk_leaves_settling_for_later() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    append_tasks(&mut world, &mut store, 300).unwrap();
    store.settle(10).unwrap();
    let before = store.unsettled();
    fill_disk(&store, 3);
    for _ in 0..3 {
        assert!(!store.settle(1_000).unwrap_err().lasting);
        assert_eq!(store.unsettled(), before);
        world.check_by_id(&mut store);
    }
    world.check_view(&mut open(killed(folder.path()).path()));
    set_disk(&store, 1 << 30);
    assert_eq!(store.settle(1_000).unwrap().len(), 290);
    world.check_by_id(&mut store);
    world.check_view(&mut store);
}

/// Settling does not wait for the disk. What the machine forgets of it when the power goes is the end of the
/// write-ahead log, back to the last append at most.
#[test]
fn a_settling_that_the_disk_lost_is_done_again() {
    let folder = tempdir().unwrap();
    let wal = folder.path().join(format!("{FILE_NAME}-wal"));
    let mut world = World::new(1);
    // The tables are there: what is written from here on is all that the log holds, and its file grows with it.
    drop(open(folder.path()));
    let mut store = open(folder.path());
    let ids = append_tasks(&mut world, &mut store, 20).unwrap();
    store.settle(7).unwrap();
    let mut commit = Commit::default();
    world.step(&mut commit, ids[3], Status::Running, Event::Running);
    world.log(&mut commit, ids[3], 5, 5);
    world.checkpoint(&mut commit, ids[3]);
    store.append(&commit).unwrap();
    let durable = std::fs::metadata(&wal).unwrap().len();
    settle_all(&mut store, 5);
    let written = std::fs::metadata(&wal).unwrap().len();
    assert!(written > durable);
    for len in [durable, durable + 100, (durable + written) / 2, written - 1, written] {
        let image = killed(folder.path());
        std::fs::File::options()
            .write(true)
            .open(image.path().join(format!("{FILE_NAME}-wal")))
            .and_then(|wal| wal.set_len(len))
            .unwrap();
        let mut store = open(image.path());
        world.check_by_id(&mut store);
        world.check_view(&mut store);
    }
}

#[test]
fn a_damaged_log_is_read_up_to_there_and_says_where() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    let ids = append_tasks(&mut world, &mut store, 5).unwrap();
    append_tasks(&mut world, &mut store, 5).unwrap();
    let image = killed(folder.path());
    let conn = Location::File(image.path().join(FILE_NAME)).writer().unwrap();
    conn.execute("UPDATE log SET body = CAST(substr(body, 1, 500) || x'00' AS BLOB) WHERE row = 2", []).unwrap();
    drop(conn);
    let mut store = open(image.path());
    let recovered = store.recover().unwrap();
    assert!(recovered.damage.is_some_and(|damage| damage.contains("row 2") && damage.contains("taskhub restore")));
    assert_eq!(recovered.unfinished.iter().map(|task| task.task_id).collect::<Vec<_>>(), ids);
    assert!(append_tasks(&mut World::new(2), &mut store, 1).unwrap_err().lasting);
}

/// Whatever stands in the tables, reading it ends in an answer or an error.
#[test]
fn damaged_tables_are_errors_not_panics() {
    for damage in [
        "UPDATE tasks SET record = x'7b22'",
        "UPDATE tasks SET record = 'text'",
        "UPDATE tasks SET history = x'0a7b22ff'",
        "UPDATE tasks SET history = x'ff'",
        "UPDATE tasks SET status = 99",
        "UPDATE tasks SET status = 'x'",
        "UPDATE tasks SET progress = x'ff'",
        "UPDATE tasks SET title = x'ff', task_type = x'ff'",
        "UPDATE tasks SET title = CAST(x'ff' AS TEXT)",
        "UPDATE tasks SET task_id = x'01' WHERE rev = 1",
        "UPDATE parts SET json = x'ff'",
        "UPDATE parts SET json = 7",
        "UPDATE logs SET lines = x'0a22'",
        "UPDATE logs SET last_seq = -5",
        "UPDATE keys SET tasks = x'0102', body = x''",
        "UPDATE state SET known_from = 'x'",
        "UPDATE tombstones SET task_id = x''",
    ] {
        let folder = tempdir().unwrap();
        let mut world = World::new(1);
        let mut store = open(folder.path());
        let ids = append_tasks(&mut world, &mut store, 5).unwrap();
        let mut commit = Commit::default();
        world.log(&mut commit, ids[0], 5, 5);
        world.checkpoint(&mut commit, ids[0]);
        world.key(&mut commit, 1);
        world.step(&mut commit, ids[4], Status::Cancelled, Event::Cancelled);
        world.delete(&mut commit, ids[4]);
        store.append(&commit).unwrap();
        settle_all(&mut store, 100);
        store.conn.execute_batch(damage).unwrap();
        let reader = store.reader();
        let _ = store.recover();
        for task_id in ids {
            let _ = reader.task(task_id);
            let _ = store.task(task_id);
            let _ = reader.history(task_id);
            let _ = reader.logs(task_id, LogRange::Tail(10), &[]);
            let _ = reader.log_end(task_id);
            let _ = reader.hand_out(&[task_id]);
            let _ = reader.records(&[task_id]);
        }
        let _ = reader.find(&Query { text: Some("x".into()), ..crate::store::suite::all_tasks() });
        let _ = reader.changed_since(0, 10);
        let _ = reader.queues_with_ended();
        let _ = reader.ended_before(&Name::new("default"), (world.now.plus_millis(9), TaskId::from_bytes([0; 16])), 10);
        let _ = reader.beyond(&Name::new("default"), 1, 1_000);
        let _ = reader.ended_since(&Name::new("default"), world.now, 10);
        let _ = store.key(1, world.now);
        let _ = store.sweep(world.now.plus_millis(1 << 20), world.now, 10);
    }
}

#[test]
fn a_history_is_bounded_and_begins_with_a_whole_line() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    let task_id = append_tasks(&mut world, &mut store, 1).unwrap()[0];
    for _ in 0..40 {
        let mut commit = Commit::default();
        for _ in 0..100 {
            world.step(&mut commit, task_id, Status::Running, Event::Running);
        }
        store.append(&commit).unwrap();
        store.settle(1).unwrap();
    }
    let all = &world.tasks[&task_id].history;
    let kept = store.reader().history(task_id).unwrap();
    assert!(kept.len() > 1_000 && kept.len() < all.len(), "{}", kept.len());
    assert_eq!(kept, all[all.len() - kept.len()..]);
    let bytes: i64 = store.conn.query_row("SELECT length(history) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(bytes, view::HISTORY_BYTES_MAX as i64);
}

#[test]
fn the_write_ahead_log_is_carried_over() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    let payload = noise();
    // An append carries it over by itself only where nothing is settled.
    for (settles, pages_max) in [(true, 2 * CHECKPOINT_PAGES), (false, CHECKPOINT_PAGES_MAX)] {
        for _ in 0..10 {
            let mut commit = Commit::default();
            (0..8).for_each(|_| _ = world.create(&mut commit));
            commit.changes.iter_mut().for_each(|entry| entry.change.payload = Some(payload.clone()));
            store.append(&commit).unwrap();
            if settles {
                store.settle(usize::MAX).unwrap();
            }
        }
        let wal = std::fs::metadata(folder.path().join(format!("{FILE_NAME}-wal"))).unwrap().len() as usize;
        assert!(wal > CHECKPOINT_PAGES * PAGE_BYTES && wal < (pages_max + 2_000) * PAGE_BYTES, "{wal}");
    }
    drop(store);
    assert_eq!(open(folder.path()).recover().unwrap().rev, world.rev);
}

#[test]
fn readers_wait_for_a_connection() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let options = SqliteOptions { readers_max: 1, ..SqliteOptions::default() };
    let mut store = SqliteStore::open(folder.path(), options).unwrap();
    append_tasks(&mut world, &mut store, 5).unwrap();
    settle_all(&mut store, 10);
    let held = store.shared.pool.checkout().unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| store.shared.clone().reader().changed_since(0, 10));
        drop(held);
        assert!(matches!(reading.join().unwrap(), Ok(ChangedSince::Known { changes, .. }) if changes.len() == 5));
    });
}

#[test]
fn a_deleted_task_leaves_nothing_but_its_tombstone() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    let ids = append_tasks(&mut world, &mut store, 30).unwrap();
    let mut commit = Commit::default();
    for task_id in &ids {
        world.log(&mut commit, *task_id, 50, 500);
        world.checkpoint(&mut commit, *task_id);
        world.step(&mut commit, *task_id, Status::Running, Event::Running);
        world.step(&mut commit, *task_id, Status::Completed, Event::Completed);
    }
    store.append(&commit).unwrap();
    settle_all(&mut store, 7);
    let count = |store: &SqliteStore, table: &str| -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    for table in ["tasks", "parts", "logs", "labels"] {
        assert!(count(&store, table) > 10, "{table}");
    }
    let mut commit = Commit::default();
    ids.into_iter().for_each(|task_id| world.delete(&mut commit, task_id));
    store.append(&commit).unwrap();
    settle_all(&mut store, 7);
    for table in ["tasks", "parts", "logs", "labels", "log"] {
        assert_eq!(count(&store, table), 0, "{table}");
    }
    assert_eq!(count(&store, "tombstones"), 30);
    let sound: String = store.conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

/// Tasks with large payloads, all but a few of them deleted, and their tombstones swept.
fn come_and_go(world: &mut World, store: &mut SqliteStore, mebibytes: usize) {
    let payload = noise();
    for _ in 0..mebibytes {
        let mut commit = Commit::default();
        let ids: Vec<_> = (0..4).map(|_| world.create(&mut commit)).collect();
        commit.changes[0].change.payload = Some(payload.clone());
        world.tasks.get_mut(&ids[0]).unwrap().payload = Some(payload.clone());
        store.append(&commit).unwrap();
        settle_all(store, 100);
    }
    let ids: Vec<_> = world.tasks.keys().copied().collect();
    for (at, task_id) in ids.into_iter().enumerate() {
        if at % 100 != 1 {
            let mut commit = Commit::default();
            world.step(&mut commit, task_id, Status::Cancelled, Event::Cancelled);
            world.delete(&mut commit, task_id);
            store.append(&commit).unwrap();
            settle_all(store, 100);
        }
    }
    while store.sweep(world.now, world.now.plus_millis(1), 500).unwrap() > 0 {}
    world.gone.clear();
}

fn file_bytes(folder: &Path) -> u64 {
    std::fs::metadata(folder.join(FILE_NAME)).unwrap().len()
}

/// Regression: a file stayed as large as it ever was.
#[test]
fn space_that_nothing_uses_is_given_back_step_by_step() {
    let folder = tempdir().unwrap();
    let mut world = World::new(1);
    let mut store = open(folder.path());
    come_and_go(&mut world, &mut store, 40);
    store.checkpoint(0).unwrap();
    let before = file_bytes(folder.path());
    assert!(before > 40 << 20, "{before} bytes");
    let mut steps = 1;
    while store.shrink().unwrap() {
        steps += 1;
    }
    assert!((40..400).contains(&steps), "{steps} steps are too large or too small");
    assert!(!store.shrink().unwrap(), "what is left is for new rows");
    let after = file_bytes(folder.path());
    assert!(after < 8 << 20, "{after} bytes of {before}");
    world.check_by_id(&mut store);
    drop(store);
    let mut store = open(folder.path());
    world.check_by_id(&mut store);
    let check: String = store.conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn a_file_of_an_older_hub_can_be_cut_from_now_on() {
    let folder = tempdir().unwrap();
    {
        let mut conn = Connection::open(folder.path().join(FILE_NAME)).unwrap();
        conn.pragma_update(None, "page_size", PAGE_BYTES as i64).unwrap();
        schema::migrate(&mut conn, "epoch").unwrap();
    }
    let mut world = World::new(1);
    let mut store = open(folder.path());
    come_and_go(&mut world, &mut store, 20);
    let before = file_bytes(folder.path());
    while store.shrink().unwrap() {}
    let after = file_bytes(folder.path());
    assert!(after < 8 << 20, "{after} bytes of {before}");
    world.check_by_id(&mut store);
}
