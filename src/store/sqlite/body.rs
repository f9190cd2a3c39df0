//! The bytes of a commit in the log.
//!
//! A commit is written as one row of the log, or as several in one transaction where it is larger than
//! [`ROW_BYTES_MAX`]. Rows stand on their own; reading them in order gives the commits back.
//!
//! ```text
//! row      = version: u8, checksum of the rest: u64 little endian, the rest
//! rest     = item* in version 1; in version 2 the same, packed: its length: u32 little endian, an LZ4 block
//! item     = tag: u8, fields
//! change   = 1, flags: u8, task_id, rev, at, record, line (unless gone), payload, result, links (each if flagged)
//! key      = 2, key: 16, body: 16, expires_at, count, task_id*
//!          | 7, the same, count, place*
//! checkpoint = 3, task_id, json
//! progress = 4, task_id, rev, json
//! logs     = 5, task_id, count, (seq, at, attempt, level: u8, message)*
//! setting  = 6, kind: u8, flags: u8, name, rev, record
//! delivery = 9, id: 16, state as JSON (empty: it has arrived)
//! access   = 10, change as JSON
//! audit    = 11, seq, at, row as JSON
//! hand-outs = 7, by: u8, rev, at, queue, name (empty for none), count
//! ```
//!
//! Numbers are LEB128; texts and JSON are a length and their bytes; a `task_id` is its 16 bytes; times are milliseconds
//! since 1970. `line` is the [`Transition`] as JSON, the way it goes into the history.
//!
//! Rows of many changes are packed. Records repeat each other, so little is left, and packing takes less time than carrying
//! those bytes through the database, its write-ahead log and the disk, and away again. A single change is not worth it.
//!
//! Rows live for as long as it takes to settle them, so nothing but a crash of this version is between writing and
//! reading: the version byte is there for the hub that is upgraded after a crash.

mod damage;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block::{compress_into, decompress, get_maximum_output_size};
use serde::de::DeserializeOwned;

use crate::access::{AccessChange, AuditEntry};
use crate::settings::{HandOuts, RateBy, SettingChange, SettingId, SettingKind};
use crate::store::{Aside, Commit, Entry, KeyEntry, SettingEntry};
use crate::task::{
    ChangeKind, DeliveryId, DeliveryStep, Json, Level, LogLine, Name, TaskId, Timestamp, Transition, read_strictly,
};

pub(super) use self::damage::Damage;

const VERSION: u8 = 1;
const VERSION_PACKED: u8 = 2;
/// Version and checksum.
const HEADER_BYTES: usize = 9;
/// The length of what is packed.
const UNPACKED_LEN_BYTES: usize = 4;

/// A row that has reached this size takes no further item: SQLite copies a row whole, and refuses one over 1 GB. A
/// single item is a few MiB at most, so no row is much larger.
const ROW_BYTES_MAX: usize = 8 << 20;

/// Rows from this size on are packed: beyond a page of the database.
const PACKED_FROM: usize = 8 << 10;

/// The most that a byte of an LZ4 block can stand for.
const UNPACKED_BYTES_A_BYTE: usize = 255;

/// A buffer that has grown beyond this is given back after the commit.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

mod tag {
    pub const CHANGE: u8 = 1;
    pub const KEY: u8 = 2;
    pub const CHECKPOINT: u8 = 3;
    pub const PROGRESS: u8 = 4;
    pub const LOGS: u8 = 5;
    pub const SETTING: u8 = 6;
    pub const HAND_OUTS: u8 = 7;
    /// With the places of tasks that were there already.
    pub const KEY_EXISTING: u8 = 8;
    pub const DELIVERY: u8 = 9;
    pub const ACCESS: u8 = 10;
    pub const AUDIT: u8 = 11;
}

mod flag {
    /// The task was deleted; the record is its last one.
    pub const GONE: u8 = 1;
    pub const PAYLOAD: u8 = 2;
    pub const RESULT: u8 = 4;
    pub const LINKS: u8 = 8;
    /// The payload is the last item of those that the task has gathered.
    pub const ITEM: u8 = 16;
    pub const ALL: u8 = 31;
}

const LEVELS: [Level; 5] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];

/// Writes commits. Kept from one to the next, for its buffers.
#[derive(Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    packed: Vec<u8>,
    rows: Vec<Row>,
    lines: Vec<Range<usize>>,
}

/// Where a row stands.
enum Row {
    Plain(Range<usize>),
    Packed { row: Range<usize>, unpacked: usize },
}

impl Encoder {
    /// Writes a commit in place of the one before.
    pub fn encode(&mut self, commit: &Commit) {
        for buffer in [&mut self.bytes, &mut self.packed] {
            buffer.clear();
            buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
        self.rows.clear();
        self.lines.clear();
        let mut start = self.start_row();
        for entry in &commit.changes {
            start = self.next_row(start);
            self.change(entry);
        }
        for entry in &commit.settings {
            start = self.next_row(start);
            self.setting(entry);
        }
        for key in &commit.keys {
            start = self.next_row(start);
            self.key(key);
        }
        for hand_outs in &commit.hand_outs {
            start = self.next_row(start);
            self.hand_outs(hand_outs);
        }
        for aside in &commit.asides {
            start = self.next_row(start);
            self.aside(aside);
        }
        for step in &commit.deliveries {
            start = self.next_row(start);
            self.delivery(step);
        }
        for change in &commit.access {
            start = self.next_row(start);
            self.access(change);
        }
        for entry in &commit.audit {
            start = self.next_row(start);
            self.audit(entry);
        }
        self.finish_row(start);
    }

    /// The rows of the commit.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.rows.iter().map(|row| match row {
            Row::Plain(row) => &self.bytes[row.clone()],
            Row::Packed { row, .. } => &self.packed[row.clone()],
        })
    }

    /// How many bytes each row stands for: as many are held in memory until it is settled.
    pub fn sizes(&self) -> impl ExactSizeIterator<Item = usize> {
        self.rows.iter().map(|row| match row {
            Row::Plain(row) => row.len(),
            Row::Packed { unpacked, .. } => *unpacked,
        })
    }

    /// The history line of each change, in order; empty for a deletion.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.lines.iter().map(|line| &self.bytes[line.clone()])
    }

    fn start_row(&mut self) -> usize {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_BYTES, 0);
        start
    }

    fn next_row(&mut self, start: usize) -> usize {
        if self.bytes.len() - start < ROW_BYTES_MAX {
            return start;
        }
        self.finish_row(start);
        self.start_row()
    }

    fn finish_row(&mut self, start: usize) {
        let items = start + HEADER_BYTES..self.bytes.len();
        if items.len() < PACKED_FROM {
            seal(&mut self.bytes[start..], VERSION);
            self.rows.push(Row::Plain(start..items.end));
            return;
        }
        let (items, start) = (&self.bytes[items], self.packed.len());
        let block = start + HEADER_BYTES + UNPACKED_LEN_BYTES;
        self.packed.resize(block + get_maximum_output_size(items.len()), 0);
        let len = compress_into(items, &mut self.packed[block..]).expect("there is room for the worst case");
        self.packed.truncate(block + len);
        let unpacked = items.len();
        let header = u32::try_from(unpacked).expect("a row is some MiB at most").to_le_bytes();
        self.packed[block - UNPACKED_LEN_BYTES..block].copy_from_slice(&header);
        seal(&mut self.packed[start..], VERSION_PACKED);
        self.rows.push(Row::Packed { row: start..self.packed.len(), unpacked });
    }

    fn change(&mut self, entry: &Entry) {
        let change = &entry.change;
        let gone = change.kind == ChangeKind::Gone;
        let flags = if gone { flag::GONE } else { 0 }
            | if change.payload.is_some() { flag::PAYLOAD } else { 0 }
            | if change.result.is_some() { flag::RESULT } else { 0 }
            | if change.links().is_some() { flag::LINKS } else { 0 }
            | if change.item().is_some() { flag::ITEM } else { 0 };
        let out = &mut self.bytes;
        out.extend_from_slice(&[tag::CHANGE, flags]);
        out.extend_from_slice(change.task.task_id.as_bytes());
        number(out, change.rev);
        number(out, millis(change.at));
        bytes(out, &entry.record);
        let line = match change.transition() {
            None => 0..0,
            Some(transition) => later_bytes(out, |out| write_line(out, &transition)),
        };
        self.lines.push(line);
        for json in [&change.payload, &change.result].into_iter().flatten() {
            bytes(out, json.bytes());
        }
        if let Some(links) = change.links() {
            bytes(out, links.to_json().bytes());
        }
    }

    fn setting(&mut self, entry: &SettingEntry) {
        let SettingChange { rev, id: (kind, name), next, .. } = &entry.change;
        let out = &mut self.bytes;
        out.extend_from_slice(&[tag::SETTING, *kind as u8, if next.is_none() { flag::GONE } else { 0 }]);
        bytes(out, name.as_str().as_bytes());
        number(out, *rev);
        bytes(out, &entry.record);
    }

    fn key(&mut self, entry: &KeyEntry) {
        let out = &mut self.bytes;
        out.push(if entry.existing.is_empty() { tag::KEY } else { tag::KEY_EXISTING });
        out.extend_from_slice(&entry.key.to_be_bytes());
        out.extend_from_slice(&entry.body.to_be_bytes());
        number(out, millis(entry.expires_at));
        number(out, entry.tasks.len() as u64);
        for task_id in &entry.tasks {
            out.extend_from_slice(task_id.as_bytes());
        }
        if !entry.existing.is_empty() {
            number(out, entry.existing.len() as u64);
            entry.existing.iter().for_each(|place| number(out, u64::from(*place)));
        }
    }

    fn hand_outs(&mut self, HandOuts { rev, at, queue, by, name, count }: &HandOuts) {
        let out = &mut self.bytes;
        out.extend_from_slice(&[tag::HAND_OUTS, *by as u8]);
        number(out, *rev);
        number(out, u64::try_from(*at).unwrap_or(0));
        bytes(out, queue.as_str().as_bytes());
        bytes(out, name.as_ref().map_or("", |name| name.as_str()).as_bytes());
        number(out, u64::from(*count));
    }

    fn delivery(&mut self, DeliveryStep { id, state }: &DeliveryStep) {
        let out = &mut self.bytes;
        out.push(tag::DELIVERY);
        out.extend_from_slice(id.as_bytes());
        let state = state.as_ref().map(|state| serde_json::to_vec(state).expect(FITS));
        bytes(out, &state.unwrap_or_default());
    }

    fn access(&mut self, change: &AccessChange) {
        self.bytes.push(tag::ACCESS);
        later_bytes(&mut self.bytes, |out| serde_json::to_writer(out, change).expect(FITS));
    }

    fn audit(&mut self, AuditEntry { seq, at, row }: &AuditEntry) {
        let out = &mut self.bytes;
        out.push(tag::AUDIT);
        number(out, *seq);
        number(out, millis(*at));
        later_bytes(out, |out| serde_json::to_writer(out, row).expect(FITS));
    }

    fn aside(&mut self, aside: &Aside) {
        let out = &mut self.bytes;
        match aside {
            Aside::Checkpoint { task_id, checkpoint } => {
                out.push(tag::CHECKPOINT);
                out.extend_from_slice(task_id.as_bytes());
                bytes(out, checkpoint.bytes());
            }
            Aside::Progress { task_id, rev, progress } => {
                out.push(tag::PROGRESS);
                out.extend_from_slice(task_id.as_bytes());
                number(out, *rev);
                bytes(out, progress.bytes());
            }
            Aside::Logs { task_id, lines } => {
                out.push(tag::LOGS);
                out.extend_from_slice(task_id.as_bytes());
                number(out, lines.len() as u64);
                for line in lines.iter() {
                    number(out, line.seq);
                    number(out, millis(line.at));
                    number(out, u64::from(line.attempt));
                    out.push(line.level as u8);
                    bytes(out, line.message.as_bytes());
                }
            }
        }
    }
}

/// Writes the header of a row.
fn seal(row: &mut [u8], version: u8) {
    let sum = checksum(&row[HEADER_BYTES..]);
    row[0] = version;
    row[1..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0)
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What serde would write, for a third of the time: there is one for every change.
fn write_line(out: &mut Vec<u8>, transition: &Transition) {
    let Transition { rev, at, event, status, attempt, worker_id, note } = transition;
    let (event, status) = (event.as_str(), status.as_str());
    write!(out, "{{\"rev\":{rev},\"at\":\"{at}\",\"event\":\"{event}\",\"status\":\"{status}\",\"attempt\":{attempt}")
        .expect(FITS);
    for (key, text) in
        [(&b",\"worker_id\":"[..], worker_id.as_ref().map(|name| name.as_str())), (b",\"note\":", note.as_deref())]
    {
        if let Some(text) = text {
            out.extend_from_slice(key);
            serde_json::to_writer(&mut *out, text).expect(FITS);
        }
    }
    out.push(b'}');
}

const FITS: &str = "a Vec takes every write";

/// Bytes whose length is known only once they are written: the length takes four bytes then, whatever it is.
fn later_bytes(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    const LEN_BYTES: usize = 4;
    let start = out.len() + LEN_BYTES;
    out.resize(start, 0);
    write(out);
    let len = out.len() - start;
    debug_assert!(len < 1 << (7 * LEN_BYTES));
    for at in 0..LEN_BYTES {
        let more = if at + 1 < LEN_BYTES { 0x80 } else { 0 };
        out[start - LEN_BYTES + at] = (len >> (7 * at)) as u8 & 0x7f | more;
    }
    start..out.len()
}

/// Every single damaged word changes it: each step is a bijection of the sum before.
fn checksum(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(ODD);
    let mut words = bytes.chunks_exact(8);
    let mut sum = bytes.len() as u64;
    for word in &mut words {
        sum = mix(sum, u64::from_le_bytes(word.try_into().expect("chunks are of 8 bytes")));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(sum, u64::from_le_bytes(last))
}

/// What stands in a row.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Change(ChangeItem),
    Setting(SettingItem),
    Key(KeyEntry),
    HandOuts(HandOuts),
    Aside(Aside),
    Delivery(DeliveryStep),
    Access(AccessChange),
    Audit(AuditEntry),
}

/// A change to a setting as it is written down.
#[derive(Clone, Debug)]
pub(super) struct SettingItem {
    pub id: SettingId,
    pub rev: u64,
    /// `None`: it is not set any more.
    pub record: Option<Bytes>,
}

/// A change as it is written down.
#[derive(Clone, Debug)]
pub(super) struct ChangeItem {
    pub task_id: TaskId,
    pub rev: u64,
    pub at: Timestamp,
    pub gone: bool,
    pub record: Bytes,
    /// Empty for a deletion.
    pub line: Bytes,
    pub payload: Option<Json>,
    pub is_item: bool,
    pub result: Option<Json>,
    pub links: Option<Json>,
}

/// Reads a row. Never panics, whatever it is given.
pub(super) fn decode(row: Bytes) -> Result<Vec<Item>, Damage> {
    let version = *row.first().ok_or(Damage::Short)?;
    if version != VERSION && version != VERSION_PACKED {
        return Err(Damage::Version(version));
    }
    let sum = row.get(1..HEADER_BYTES).ok_or(Damage::Short)?;
    if checksum(&row[HEADER_BYTES..]).to_le_bytes() != sum {
        return Err(Damage::Checksum);
    }
    let rest = row.slice(HEADER_BYTES..);
    decode_items(if version == VERSION_PACKED { unpack(&rest)? } else { rest })
}

fn unpack(rest: &[u8]) -> Result<Bytes, Damage> {
    let (len, block) = rest.split_first_chunk().ok_or(Damage::Short)?;
    let len = u32::from_le_bytes(*len) as usize;
    // No memory is taken on the word of a length.
    if len > block.len().saturating_mul(UNPACKED_BYTES_A_BYTE) {
        return Err(Damage::Packed);
    }
    let items = decompress(block, len).map_err(|_| Damage::Packed)?;
    if items.len() == len { Ok(items.into()) } else { Err(Damage::Packed) }
}

fn decode_items(items: Bytes) -> Result<Vec<Item>, Damage> {
    let mut from = Cursor { bytes: items };
    let mut items = Vec::new();
    while !from.bytes.is_empty() {
        items.push(from.item()?);
    }
    Ok(items)
}

struct Cursor {
    bytes: Bytes,
}

impl Cursor {
    fn item(&mut self) -> Result<Item, Damage> {
        Ok(match self.byte()? {
            tag::CHANGE => Item::Change(self.change()?),
            tag::SETTING => Item::Setting(self.setting()?),
            tag @ (tag::KEY | tag::KEY_EXISTING) => {
                let key = u128::from_be_bytes(self.array()?);
                let body = u128::from_be_bytes(self.array()?);
                let expires_at = self.time()?;
                // No capacity is taken on the word of a length.
                let tasks = (0..self.number()?).map(|_| self.task_id()).collect::<Result<_, _>>()?;
                let count = if tag == tag::KEY_EXISTING { self.number()? } else { 0 };
                let existing = (0..count).map(|_| self.small()).collect::<Result<_, _>>()?;
                Item::Key(KeyEntry { key, body, tasks, existing, expires_at })
            }
            tag::HAND_OUTS => Item::HandOuts(self.hand_outs()?),
            tag::CHECKPOINT => Item::Aside(Aside::Checkpoint { task_id: self.task_id()?, checkpoint: self.json()? }),
            tag::PROGRESS => {
                let (task_id, rev, progress) = (self.task_id()?, self.number()?, self.json()?);
                Item::Aside(Aside::Progress { task_id, rev, progress })
            }
            tag::LOGS => {
                let task_id = self.task_id()?;
                let lines = (0..self.number()?).map(|_| self.log_line()).collect::<Result<Arc<[_]>, _>>()?;
                Item::Aside(Aside::Logs { task_id, lines })
            }
            tag::DELIVERY => Item::Delivery(self.delivery()?),
            tag::ACCESS => Item::Access(self.shape()?),
            tag::AUDIT => Item::Audit(AuditEntry { seq: self.number()?, at: self.time()?, row: self.shape()? }),
            unknown => return Err(Damage::Tag(unknown)),
        })
    }

    fn change(&mut self) -> Result<ChangeItem, Damage> {
        let flags = self.byte()?;
        if flags & !flag::ALL != 0 {
            return Err(Damage::Flags(flags));
        }
        let has = |flag: u8| flags & flag != 0;
        Ok(ChangeItem {
            task_id: self.task_id()?,
            rev: self.number()?,
            at: self.time()?,
            gone: has(flag::GONE),
            record: self.slice()?,
            line: if has(flag::GONE) { Bytes::new() } else { self.slice()? },
            payload: if has(flag::PAYLOAD) { Some(self.json()?) } else { None },
            result: if has(flag::RESULT) { Some(self.json()?) } else { None },
            links: if has(flag::LINKS) { Some(self.json()?) } else { None },
            is_item: has(flag::ITEM),
        })
    }

    fn setting(&mut self) -> Result<SettingItem, Damage> {
        let (kind, flags) = (self.byte()?, self.byte()?);
        let kind = SettingKind::from_code(kind).ok_or(Damage::Kind(kind))?;
        if flags & !flag::GONE != 0 {
            return Err(Damage::Flags(flags));
        }
        let name = self.name()?;
        let (rev, record) = (self.number()?, self.slice()?);
        Ok(SettingItem { id: (kind, name), rev, record: (flags == 0).then_some(record) })
    }

    fn hand_outs(&mut self) -> Result<HandOuts, Damage> {
        let by = self.byte()?;
        let by = RateBy::from_code(by).ok_or(Damage::Rate(by))?;
        let (rev, at) = (self.number()?, i64::try_from(self.number()?).map_err(|_| Damage::Number)?);
        let (queue, name) = (self.name()?, self.name()?);
        let name = Some(name).filter(|name| !name.as_str().is_empty());
        let count = u32::try_from(self.number()?).map_err(|_| Damage::Number)?;
        Ok(HandOuts { rev, at, queue, by, name, count })
    }

    fn delivery(&mut self) -> Result<DeliveryStep, Damage> {
        let (id, state) = (DeliveryId::from_bytes(self.array()?), self.slice()?);
        let state = (!state.is_empty()).then(|| read_strictly(&state)).transpose().map_err(|_| Damage::Text)?;
        Ok(DeliveryStep { id, state })
    }

    fn shape<T: DeserializeOwned>(&mut self) -> Result<T, Damage> {
        serde_json::from_slice(&self.slice()?).map_err(|_| Damage::Text)
    }

    fn name(&mut self) -> Result<Name, Damage> {
        let name = self.slice()?;
        Ok(Name::new(std::str::from_utf8(&name).map_err(|_| Damage::Text)?))
    }

    fn log_line(&mut self) -> Result<LogLine, Damage> {
        Ok(LogLine {
            seq: self.number()?,
            at: self.time()?,
            attempt: self.small()?,
            level: {
                let level = self.byte()?;
                *LEVELS.get(usize::from(level)).ok_or(Damage::Level(level))?
            },
            message: String::from_utf8(self.slice()?.to_vec()).map_err(|_| Damage::Text)?,
        })
    }

    fn take(&mut self, len: usize) -> Result<Bytes, Damage> {
        if len > self.bytes.len() {
            return Err(Damage::Short);
        }
        Ok(self.bytes.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let taken = self.take(N)?;
        Ok(taken[..].try_into().expect("as many were taken"))
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, Damage> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Damage::Number);
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damage::Number)
    }

    fn small(&mut self) -> Result<u32, Damage> {
        u32::try_from(self.number()?).map_err(|_| Damage::Number)
    }

    fn time(&mut self) -> Result<Timestamp, Damage> {
        let millis = i64::try_from(self.number()?).map_err(|_| Damage::Number)?;
        Ok(Timestamp::from_millis(millis))
    }

    fn task_id(&mut self) -> Result<TaskId, Damage> {
        Ok(TaskId::from_bytes(self.array()?))
    }

    fn slice(&mut self) -> Result<Bytes, Damage> {
        let len = usize::try_from(self.number()?).map_err(|_| Damage::Number)?;
        self.take(len)
    }

    fn json(&mut self) -> Result<Json, Damage> {
        let text = self.slice()?;
        // A `Json` promises to be UTF-8, and panics where it is not.
        std::str::from_utf8(&text).map_err(|_| Damage::Text)?;
        Ok(Json::trusted(text))
    }
}
