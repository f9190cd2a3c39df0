//! Rows of commits: round trips, damage and nonsense.

use proptest::prelude::*;

use super::*;
use crate::store::suite::World;
use crate::task::{DeliveryState, Event, Links, Status};

/// A commit with everything in it, some of it many times.
fn commit(seed: u64, tasks: usize) -> Commit {
    let mut world = World::new(seed);
    let mut commit = Commit::default();
    for at in 0..tasks {
        let task_id = world.create(&mut commit);
        world.step(&mut commit, task_id, Status::Running, Event::Running);
        world.checkpoint(&mut commit, task_id);
        world.progress(&mut commit, task_id);
        world.log(&mut commit, task_id, at % 4, at * 50);
        world.step(&mut commit, task_id, Status::Completed, Event::Completed);
        world.key(&mut commit, u128::from(seed) << 64 | at as u128);
        world.hand_out(&mut commit, "q", (at % 2 == 0).then_some("u \"1\""), at as i64);
        let id = DeliveryId::from_bytes([at as u8; 16]);
        let error = Some("answered \"500\"".into());
        let state = (at % 2 == 0).then(|| DeliveryState { tries: at as u32, error, ..DeliveryState::default() });
        commit.deliveries.push(DeliveryStep { id, state });
        world.access(&mut commit, ["a", "b"][at % 2]);
        if at % 3 == 0 {
            world.delete(&mut commit, task_id);
        }
    }
    commit
}

fn rows(commit: &Commit) -> Vec<Bytes> {
    let mut encoder = Encoder::default();
    encoder.encode(commit);
    assert_eq!(encoder.lines().len(), commit.changes.len());
    encoder.rows().map(Bytes::copy_from_slice).collect()
}

fn check_same(commit: &Commit, items: &[Item]) {
    let changes = items.iter().filter_map(|item| match item {
        Item::Change(change) => Some(change),
        _ => None,
    });
    assert_eq!(changes.clone().count(), commit.changes.len());
    for (got, Entry { change, record }) in changes.zip(&commit.changes) {
        assert_eq!((got.task_id, got.rev, got.at), (change.task.task_id, change.rev, change.at));
        assert_eq!((got.gone, &got.record), (change.kind == ChangeKind::Gone, record));
        assert_eq!((&got.payload, &got.result), (&change.payload, &change.result));
        assert_eq!(got.links, change.links().map(Links::to_json));
        let line = change.transition().map(|line| serde_json::to_vec(&line).unwrap());
        assert_eq!(got.line, line.unwrap_or_default());
    }
    let settings = items.iter().filter_map(|item| if let Item::Setting(item) = item { Some(item) } else { None });
    assert_eq!(settings.clone().count(), commit.settings.len());
    for (got, SettingEntry { change, record }) in settings.zip(&commit.settings) {
        assert_eq!((&got.id, got.rev), (&change.id, change.rev));
        assert_eq!(got.record.as_ref(), change.next.is_some().then_some(record));
    }
    let keys: Vec<_> =
        items.iter().filter_map(|item| if let Item::Key(key) = item { Some(key) } else { None }).collect();
    assert_eq!(keys, commit.keys.iter().collect::<Vec<_>>());
    let hand_outs = items.iter().filter_map(|item| if let Item::HandOuts(item) = item { Some(item) } else { None });
    assert_eq!(hand_outs.collect::<Vec<_>>(), commit.hand_outs.iter().collect::<Vec<_>>());
    let asides: Vec<_> = items
        .iter()
        .filter_map(|item| if let Item::Aside(aside) = item { Some(format!("{aside:?}")) } else { None })
        .collect();
    let steps = items.iter().filter_map(|item| if let Item::Delivery(step) = item { Some(step) } else { None });
    assert_eq!(steps.collect::<Vec<_>>(), commit.deliveries.iter().collect::<Vec<_>>());
    let changes = items.iter().filter_map(|item| if let Item::Access(change) = item { Some(change) } else { None });
    assert_eq!(changes.collect::<Vec<_>>(), commit.access.iter().collect::<Vec<_>>());
    let entries = items.iter().filter_map(|item| if let Item::Audit(entry) = item { Some(entry) } else { None });
    assert_eq!(entries.collect::<Vec<_>>(), commit.audit.iter().collect::<Vec<_>>());
    assert_eq!(asides, commit.asides.iter().map(|aside| format!("{aside:?}")).collect::<Vec<_>>());
}

#[test]
fn a_large_commit_takes_several_rows() {
    let mut commit = commit(1, 3);
    let large = Json::trusted(format!("\"{}\"", "x".repeat(3 << 20)));
    for entry in &mut commit.changes {
        entry.change.payload = Some(large.clone());
    }
    let rows = rows(&commit);
    assert!(rows.len() > 2);
    assert!(rows.iter().all(|row| row.len() < ROW_BYTES_MAX + (4 << 20)));
    assert!(rows.iter().all(|row| row[0] == VERSION_PACKED));
    let items: Vec<_> = rows.into_iter().flat_map(|row| decode(row).unwrap()).collect();
    check_same(&commit, &items);
}

#[test]
fn numbers_round_trip_and_too_large_ones_are_refused() {
    for given in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
        let mut out = Vec::new();
        number(&mut out, given);
        let mut from = Cursor { bytes: out.into() };
        assert_eq!(from.number(), Ok(given));
        assert!(from.bytes.is_empty());
    }
    for (given, expected) in [
        (&[0xff; 10][..], Damage::Number),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], Damage::Number),
        (&[0x80], Damage::Short),
    ] {
        assert_eq!(Cursor { bytes: Bytes::from_static(given) }.number(), Err(expected));
    }
}

#[test]
fn an_unknown_version_is_named() {
    let mut row = rows(&commit(1, 1))[0].to_vec();
    row[0] = 3;
    assert_eq!(decode(row.into()).unwrap_err(), Damage::Version(3));
    assert_eq!(decode(Bytes::new()).unwrap_err(), Damage::Short);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_round_trip(seed in any::<u64>(), tasks in 0usize..12) {
        let commit = commit(seed, tasks);
        let items: Vec<_> = rows(&commit).into_iter().flat_map(|row| decode(row).unwrap()).collect();
        check_same(&commit, &items);
    }

    #[test]
    fn damage_is_noticed(seed in any::<u64>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let row = rows(&commit(seed, 3)).remove(0);
        let mut damaged = row.to_vec();
        let at = at.index(row.len());
        damaged[at] ^= flip;
        prop_assert!(decode(damaged.into()).is_err());
        prop_assert!(decode(row.slice(..at)).is_err());
    }

    /// Past the checksum: whatever the items say, reading them ends, without a panic and without much memory.
    #[test]
    fn nonsense_is_read_to_its_end(
        seed in any::<u64>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let row = rows(&commit(seed, 2)).remove(0);
        let rest = row.slice(HEADER_BYTES..);
        let mut items = if row[0] == VERSION_PACKED { unpack(&rest).unwrap() } else { rest }.to_vec();
        for (at, byte) in flips {
            let at = at.index(items.len());
            items[at] = byte;
        }
        let _ = unpack(&items);
        let _ = unpack(&noise);
        let _ = decode_items(items.into());
        let _ = decode_items(noise.into());
    }
}
