//! The witness: how far the history went, kept beside it.
//!
//! A database that lost its end looks like one that ended earlier: a write-ahead log that was cut short, emptied or taken
//! away, and a file that was put back from last week, are all valid. So a small file, `taskhub.head`, says after each commit
//! what was the last: the opening of the store, the `rev`, the row of the log, and how far the write-ahead log went. When a
//! store is opened, whatever ends before that has lost something, and it is said.
//!
//! It is not synced, which would cost as much as the commit: it outlives the process, and where the machine stops it may be
//! older than the history, never newer. It is written after the commit, so a hub that is killed in between leaves it one
//! commit behind. What it says is thus a lower bound; a history that goes further is sound.
//!
//! Two slots take turns, each with a checksum, so that a write which is cut short leaves the other. What it says of the
//! write-ahead log is for the log of that name only; a log that was begun anew right after it holds only newer things.
//! A witness that says `closed` knows of no log at all: everything was in the database. So it is changed to `open` before the
//! first write of an opening; a log that stands beside a closed database belongs to another.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::wal::{Log, LogName};

/// The name of the file.
pub(super) const HEAD_NAME: &str = "taskhub.head";

const MAGIC: [u8; 8] = *b"taskhub1";
const SLOT_BYTES: usize = 128;

/// What was the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The name of the opening that wrote it.
    pub opening: String,
    pub rev: u64,
    /// Of the log of commits.
    pub row: u64,
    pub wal: WalEnd,
}

/// How far the write-ahead log went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WalEnd {
    /// Everything is in the database, and there is no log.
    Closed,
    /// There may be one, and nothing was committed to it yet that matters.
    #[default]
    Open,
    /// So many frames.
    At { name: LogName, frames: u64, carried: Carried },
}

/// How much of a write-ahead log is in the database as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Or all of it, up to an earlier moment.
    Nothing,
    /// Pages of different moments: without the log they are no whole.
    Some,
    All,
}

/// What a folder's witness says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none.
    Nothing,
    /// A slot was written and is not whole.
    Damaged(Option<Head>),
    Head(Head),
}

impl Found {
    pub fn head(&self) -> Option<&Head> {
        match self {
            Found::Nothing => None,
            Found::Damaged(head) => head.as_ref(),
            Found::Head(head) => Some(head),
        }
    }
}

/// The file, open for writing.
pub(super) struct Witness {
    file: File,
    turn: u64,
}

impl Witness {
    /// Opens the witness of a folder, or makes it there.
    pub fn open(folder: &Path) -> std::io::Result<Witness> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(folder.join(HEAD_NAME))?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes)?;
        let turn = slots(&bytes).filter_map(|slot| read_slot(slot).map(|(turn, _)| turn)).max().unwrap_or(0);
        Ok(Witness { file, turn })
    }

    /// Writes what is now the last, over the older slot.
    pub fn write(&mut self, head: &Head) -> std::io::Result<()> {
        self.turn += 1;
        let offset = SLOT_BYTES as u64 * (self.turn % 2);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&slot(self.turn, head))
    }

    /// Has it outlive the machine.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_all()
    }
}

/// Reads the witness of a folder.
pub(super) fn read(folder: &Path) -> std::io::Result<Found> {
    let bytes = match std::fs::read(folder.join(HEAD_NAME)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        bytes => bytes?,
    };
    let (mut newest, mut damaged) = (None, bytes.is_empty() || bytes.len() > 2 * SLOT_BYTES);
    for bytes in slots(&bytes) {
        match read_slot(bytes) {
            Some(slot) => newest = newest.max_by_turn(slot),
            None => damaged |= bytes.iter().any(|byte| *byte != 0),
        }
    }
    let head = newest.map(|(_, head)| head);
    Ok(match head {
        Some(head) if !damaged => Found::Head(head),
        head => Found::Damaged(head),
    })
}

trait MaxByTurn {
    fn max_by_turn(self, other: (u64, Head)) -> Self;
}

impl MaxByTurn for Option<(u64, Head)> {
    fn max_by_turn(self, other: (u64, Head)) -> Self {
        match self {
            Some(this) if this.0 > other.0 => Some(this),
            _ => Some(other),
        }
    }
}

fn slots(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(SLOT_BYTES).take(2)
}

/// ```text
/// magic: 8, turn: u64, rev: u64, row: u64, state: u8 (0 closed, 1 open, 2 at, 3 and some carried, 4 and all),
/// sequence, salt, random: u32, frames: u64, length: u8, opening, zeroes, checksum of all before: 8
/// ```
fn slot(turn: u64, head: &Head) -> [u8; SLOT_BYTES] {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend_from_slice(&MAGIC);
    for number in [turn, head.rev, head.row] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let (state, name, frames) = match head.wal {
        WalEnd::Closed => (0, LogName::default(), 0),
        WalEnd::Open => (1, LogName::default(), 0),
        WalEnd::At { name, frames, carried } => (2 + carried as u8, name, frames),
    };
    bytes.push(state);
    for number in [name.sequence, name.salt, name.random] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&frames.to_le_bytes());
    let room = SLOT_BYTES - 8 - bytes.len() - 1;
    let opening = &head.opening.as_bytes()[..head.opening.len().min(room)];
    bytes.push(opening.len() as u8);
    bytes.extend_from_slice(opening);
    bytes.resize(SLOT_BYTES - 8, 0);
    let sum = super::pages::sum(0, &bytes);
    bytes.extend_from_slice(&sum);
    bytes.try_into().expect("a slot is as long as that")
}

fn read_slot(bytes: &[u8]) -> Option<(u64, Head)> {
    let (body, sum) = bytes.split_at_checked(SLOT_BYTES - 8)?;
    if !body.starts_with(&MAGIC) || super::pages::sum(0, body) != *sum {
        return None;
    }
    let long = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
    let short = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes"));
    let name = LogName { sequence: short(33), salt: short(37), random: short(41) };
    let wal = match body[32] {
        0 => WalEnd::Closed,
        1 => WalEnd::Open,
        state => {
            let carried = match state {
                2 => Carried::Nothing,
                3 => Carried::Some,
                _ => Carried::All,
            };
            WalEnd::At { name, frames: long(45), carried }
        }
    };
    let opening = body.get(54..54 + usize::from(body[53]))?;
    let opening = String::from_utf8(opening.to_vec()).ok()?;
    Some((long(8), Head { opening, rev: long(16), row: long(24), wal }))
}

impl Head {
    /// What is wrong with the write-ahead log that stands beside the database, if anything.
    pub fn misses(&self, log: Option<&Log>) -> Option<String> {
        let frames = log.as_ref().map_or(0, |log| log.frames);
        match (self.wal, log) {
            (WalEnd::Closed, _) if frames > 0 => Some(format!(
                "the store was closed at rev {}, and beside it stands a write-ahead log that is not its own",
                self.rev
            )),
            (WalEnd::Closed | WalEnd::Open, _) => None,
            // Nothing of it was in the database, or all of it is. What the database says of its end then holds.
            (WalEnd::At { carried: Carried::Nothing | Carried::All, .. }, _) if frames == 0 => None,
            (WalEnd::At { name, frames: known, .. }, Some(log)) if log.name == name && log.frames < known => {
                Some(format!(
                    "the write-ahead log ends after {} of its {known} frames, and rev {} was acknowledged",
                    log.frames, self.rev
                ))
            }
            (WalEnd::At { name, .. }, Some(log)) if log.name == name || log.name.follows(name) => None,
            (WalEnd::At { frames: known, .. }, None) => Some(format!(
                "the write-ahead log is gone or cannot be read; it had {known} frames, and rev {} was acknowledged",
                self.rev
            )),
            (WalEnd::At { .. }, Some(_)) => Some(format!(
                "the write-ahead log is not the one that was written at rev {}, which was acknowledged",
                self.rev
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: LogName = LogName { sequence: 3, salt: 70, random: 9 };

    fn head(rev: u64, wal: WalEnd) -> Head {
        Head { opening: format!("{}.{:016x}", "e".repeat(32), rev), rev, row: rev + 7, wal }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Found::Nothing);
        let mut witness = Witness::open(folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Found::Damaged(None));
        for rev in 1..6 {
            let head = head(
                rev,
                WalEnd::At {
                    name: NAME,
                    frames: 5 * rev,
                    carried: if rev == 4 { Carried::All } else { Carried::Nothing },
                },
            );
            witness.write(&head).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Found::Head(head));
            // The next opening goes on from there.
            witness = Witness::open(folder.path()).unwrap();
        }
        let path = folder.path().join(HEAD_NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).unwrap();
            let Found::Damaged(Some(head)) = read(folder.path()).unwrap() else { panic!("byte {at}") };
            assert!(matches!(head.rev, 4 | 5), "{head:?}");
        }
        std::fs::write(&path, &whole[..200]).unwrap();
        assert!(matches!(read(folder.path()).unwrap(), Found::Damaged(Some(_))));
    }

    #[test]
    fn a_log_that_ends_too_early_is_missed() {
        let log = |name, frames| Some(Log { name, frames, ..Log::default() });
        let next = LogName { sequence: 4, salt: 71, random: 1 };
        let other = LogName { sequence: 1, salt: 5, random: 1 };
        let at = |carried| WalEnd::At { name: NAME, frames: 10, carried };
        use Carried::{All, Nothing};
        for (wal, log, is_missed) in [
            (WalEnd::Closed, None, false),
            (WalEnd::Closed, log(other, 0), false),
            (WalEnd::Closed, log(other, 3), true),
            (WalEnd::Open, log(other, 3), false),
            (at(Nothing), log(NAME, 10), false),
            (at(Nothing), log(NAME, 12), false),
            (at(Nothing), log(NAME, 9), true),
            (at(Nothing), None, false),
            (at(Carried::Some), None, true),
            (at(Carried::Some), log(NAME, 11), false),
            (at(Nothing), log(next, 2), false),
            (at(Nothing), log(other, 20), true),
            (at(All), None, false),
            (at(All), log(NAME, 0), false),
            (at(All), log(NAME, 3), true),
            (at(All), log(next, 3), false),
        ] {
            assert_eq!(head(7, wal).misses(log.as_ref()).is_some(), is_missed, "{wal:?} {log:?}");
        }
    }
}
