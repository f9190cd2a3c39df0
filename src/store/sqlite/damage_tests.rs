//! Folders that were cut, flipped, zeroed, emptied, thinned out and put back, at random places: either all that was
//! acknowledged is there and right, or it is said. Never silent.
//!
//! `TASKHUB_DAMAGE_CASES=5000 cargo test --lib damage` tries as many; `TASKHUB_SEED=7` begins with that one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::access::{AccessChange, AccessRecord, AccessRecords, ApiToken};
use crate::store::suite::{World, killed, settle_all};
use crate::task::{Event, Status};

/// A folder, what was acknowledged when it was so, and the folder at earlier moments.
struct Image {
    folder: TempDir,
    world: World,
    epoch: String,
    earlier: Vec<TempDir>,
}

fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(folder, SqliteOptions::default())
}

/// A history with everything in it, ended in one of several ways.
fn image(seed: u64) -> Image {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempdir().unwrap();
    let (mut world, mut earlier) = (World::new(seed), Vec::new());
    let mut store = open(folder.path()).unwrap();
    let rounds = random.usize(4..14);
    for round in 0..rounds {
        let mut commit = Commit::default();
        let ids: Vec<_> = (0..random.usize(1..6)).map(|_| world.create(&mut commit)).collect();
        world.key(&mut commit, u128::from(seed) << 8 | round as u128);
        world.access(&mut commit, ["a", "b", "c"][random.usize(..3)]);
        store.append(&commit).unwrap();
        for task_id in ids {
            let mut commit = Commit::default();
            world.step(&mut commit, task_id, Status::Running, Event::Running);
            if random.bool() {
                world.log(&mut commit, task_id, random.usize(1..30), random.usize(0..400));
                world.checkpoint(&mut commit, task_id);
            }
            if random.bool() {
                world.step(&mut commit, task_id, Status::Completed, Event::Completed);
            }
            store.append(&commit).unwrap();
            if world.tasks[&task_id].task.status.is_final() && random.u8(..4) == 0 {
                let mut commit = Commit::default();
                world.delete(&mut commit, task_id);
                store.append(&commit).unwrap();
            }
        }
        match random.u8(..8) {
            0..4 => drop(store.settle(random.usize(1..20)).unwrap()),
            4 => drop(store.carry_over("PRAGMA wal_checkpoint(PASSIVE)").unwrap()),
            5 => {
                drop(store);
                earlier.push(killed(folder.path()));
                store = open(folder.path()).unwrap();
            }
            6 => {
                earlier.push(killed(folder.path()));
            }
            _ => {}
        }
    }
    // The last word is something that must not get lost.
    let mut commit = Commit::default();
    let task_id = world.create(&mut commit);
    store.append(&commit).unwrap();
    let mut commit = Commit::default();
    world.step(&mut commit, task_id, Status::Running, Event::Running);
    if random.bool() {
        store.append(&commit).unwrap();
        commit = Commit::default();
        world.checkpoint(&mut commit, task_id);
    }
    store.append(&commit).unwrap();
    let epoch = store.openings.epoch().to_owned();
    let folder = match random.u8(..3) {
        0 => {
            drop(store);
            folder
        }
        1 => {
            settle_all(&mut store, 1_000);
            killed(folder.path())
        }
        _ => killed(folder.path()),
    };
    Image { folder, world, epoch, earlier }
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| {
        let file = file.unwrap();
        (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
    });
    files.collect()
}

/// Does something to the files, and says what. `None`: nothing that could be noticed.
fn damage(folder: &Path, image: &Image, random: &mut fastrand::Rng) -> Option<String> {
    let names = [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")];
    let files: Vec<_> = names.iter().filter(|name| folder.join(name).metadata().is_ok_and(|f| f.len() > 0)).collect();
    let name = files[random.usize(..files.len())];
    let path = folder.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = random.usize(..bytes.len());
    let what = match random.u8(..9) {
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1..4 => {
            bytes[at] ^= 1 << random.u8(..8);
            format!("flipped at {at}")
        }
        4 => {
            let from = at / PAGE_BYTES * PAGE_BYTES;
            let to = (from + PAGE_BYTES).min(bytes.len());
            if bytes[from..to].iter().all(|byte| *byte == 0) {
                return None;
            }
            bytes[from..to].fill(0);
            format!("zeroed {from}..{to}")
        }
        5 => {
            bytes.clear();
            "emptied".to_owned()
        }
        6 => {
            std::fs::remove_file(&path).unwrap();
            return Some(format!("{name} removed"));
        }
        // A page in the place of another.
        7 if bytes.len() > 2 * PAGE_BYTES => {
            let pages = bytes.len() / PAGE_BYTES;
            let (from, to) = (random.usize(..pages) * PAGE_BYTES, random.usize(..pages) * PAGE_BYTES);
            if bytes[from..from + PAGE_BYTES] == bytes[to..to + PAGE_BYTES] {
                return None;
            }
            bytes.copy_within(from..from + PAGE_BYTES, to);
            format!("page at {from} written to {to}")
        }
        // One file of an earlier moment.
        _ => {
            let earlier = image.earlier.get(random.usize(..image.earlier.len().max(1)))?;
            let old = std::fs::read(earlier.path().join(name)).ok().filter(|old| *old != bytes)?;
            bytes = old;
            "put back alone".to_owned()
        }
    };
    std::fs::write(&path, bytes).unwrap();
    Some(format!("{name} {what}"))
}

/// What is said of a folder; `None` where it is taken for whole.
fn said(folder: &Path, image: &Image) -> Option<String> {
    let before = contents(folder);
    let checked = check(folder);
    let changes_nothing = |why: &str| {
        let mut after = contents(folder);
        after.retain(|name, _| before.contains_key(name));
        assert!(after == before, "{why}, and the files were changed");
    };
    let mut store = match open(folder) {
        Err(error) => {
            assert!(error.lasting, "{error}");
            changes_nothing(&error.to_string());
            return Some(error.to_string());
        }
        Ok(store) => store,
    };
    let recovered = store.recover().unwrap();
    if let Some(damage) = recovered.damage {
        let mut commit = Commit::default();
        World::new(1).create(&mut commit);
        assert!(store.append(&commit).unwrap_err().lasting);
        assert!(store.probe().is_err() && store.look().is_err());
        drop(store);
        changes_nothing(&damage);
        assert!(
            checked.is_err() || checked.is_ok_and(|found| !found.problems.is_empty()),
            "not found by a check: {damage}"
        );
        return Some(damage);
    }
    let checked = checked.unwrap();
    assert_eq!((checked.rev, &checked.problems), (image.world.rev, &Vec::new()));
    assert_eq!(recovered.rev, image.world.rev);
    assert!(recovered.openings.include(&image.epoch, image.world.rev, recovered.rev));
    image.world.check_by_id(&mut store);
    image.world.check_view(&mut store);
    image.world.check_audit(&*store.reader());
    let closed = image.world.access.is_closed();
    assert_eq!((checked.closed, checked.audit), (closed, image.world.audit.len() as u64));
    None
}

fn cases() -> usize {
    std::env::var("TASKHUB_DAMAGE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(120)
}

#[test]
fn no_damage_is_silent() {
    const CASES_AN_IMAGE: usize = 20;
    let first = std::env::var("TASKHUB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut tried, mut noticed) = (0, 0);
    for seed in first..first + cases().div_ceil(CASES_AN_IMAGE) as u64 {
        let image = image(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let sound = killed(image.folder.path());
        assert_eq!(said(sound.path(), &image), None, "TASKHUB_SEED={seed}: nothing was done to it");
        for case in 0..CASES_AN_IMAGE {
            let folder = killed(image.folder.path());
            let Some(what) = damage(folder.path(), &image, &mut random) else { continue };
            tried += 1;
            match catch_unwind(AssertUnwindSafe(|| said(folder.path(), &image))) {
                Ok(said) => noticed += usize::from(said.is_some()),
                Err(panic) => {
                    eprintln!("TASKHUB_SEED={seed}, case {case}: {what}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    println!("{noticed} of {tried} were noticed, the others did no harm");
    assert!(noticed > tried / 2);
}

/// A hub whose tokens cannot be read serves nobody, and goes on once the loss of them is accepted: closed.
#[test]
fn what_is_kept_about_access_and_cannot_be_read_leaves_the_hub_closed() {
    let made = |name: &str| AccessRecord::ApiToken(ApiToken::sample(name));
    let is_closed = |records: &[AccessRecord]| records.iter().any(|it| matches!(it, AccessRecord::Closed { .. }));
    for damage in [
        "UPDATE access SET record = CAST('{}' AS BLOB) WHERE key LIKE '%\"a\"%'",
        "UPDATE access SET record = (SELECT record FROM access WHERE key LIKE '%\"b\"%') WHERE key LIKE '%\"a\"%'",
        "UPDATE access SET key = '{\"kind\":\"nothing\"}' WHERE key LIKE '%\"a\"%'",
        "UPDATE access SET record = x'ff', key = 'x' WHERE key LIKE '%\"a\"%'; DELETE FROM access WHERE key LIKE '%closed%'",
    ] {
        let folder = tempdir().unwrap();
        let mut store = open(folder.path()).unwrap();
        store.recover().unwrap();
        let access = ["a", "b"].map(|name| AccessChange::Put(made(name)));
        let mut steps = Vec::new();
        AccessRecords::default().extend(&mut steps, access.into(), Timestamp::from_millis(1)).unwrap();
        store.append(&Commit { access: steps, ..Commit::default() }).unwrap();
        store.settle(1).unwrap();
        store.conn.execute_batch(damage).unwrap();
        store.append(&Commit { access: vec![AccessChange::Put(made("c"))], ..Commit::default() }).unwrap();
        drop(store);

        assert!(!check(folder.path()).unwrap().problems.is_empty(), "{damage}");
        let recovered = open(folder.path()).unwrap().recover().unwrap();
        assert!(recovered.damage.is_some() && is_closed(&recovered.access), "{damage}: {:?}", recovered.access);
        let (findings, _) = accept(folder.path()).unwrap();
        assert!(findings.problems.is_empty() && findings.closed && findings.given_up.len() == 1, "{findings:?}");
        let recovered = open(folder.path()).unwrap().recover().unwrap();
        assert!(recovered.damage.is_none() && is_closed(&recovered.access), "{damage}");
        assert_eq!(recovered.access[..2], [made("b"), made("c")], "what can be read is kept");
    }
}

/// Keys to sign with are in it, and in its copies.
#[test]
fn a_database_and_its_copies_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = tempdir().unwrap();
    let database = folder.path().join(FILE_NAME);
    drop(open(folder.path()).unwrap());
    // As an earlier hub made it.
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut store = open(folder.path()).unwrap();
    let mut commit = Commit::default();
    World::new(1).create(&mut commit);
    store.append(&commit).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().contains(".db") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    let copy = folder.path().join("copy.db");
    backup(folder.path(), &copy).unwrap();
    assert_eq!(mode(&copy), 0o600);
}

/// The folder whole, as it was: nothing of it is damaged, and nobody takes it for the history that went on.
#[test]
fn a_folder_put_back_is_no_damage_and_no_continuation() {
    let mut tried = 0;
    for seed in 100..112 {
        let image = image(seed);
        for earlier in &image.earlier {
            tried += 1;
            let mut store = open(earlier.path()).unwrap();
            let recovered = store.recover().unwrap();
            assert_eq!(recovered.damage, None, "seed {seed}");
            assert!(recovered.rev < image.world.rev);
            assert!(!recovered.openings.include(&image.epoch, image.world.rev, image.world.rev + 1_000));
        }
    }
    assert!(tried > 5);
}
