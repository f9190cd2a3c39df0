//! How far a write-ahead log goes, read without SQLite.
//!
//! SQLite takes a log up to the last commit before the first frame whose checksum is wrong, and says nothing of what came
//! after it. So the hub counts for itself, before SQLite opens the files, and compares with what the
//! [witness](super::witness) remembers. The format is documented with SQLite ("WAL Format") and does not change.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::PAGE_BYTES;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The bytes of a header that say which log it is: how often it was begun anew, and its salts.
const NAME: std::ops::Range<usize> = 12..24;

/// Which of the logs that were written to the same file one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogName {
    /// Grows by one each time the log is begun anew.
    pub sequence: u32,
    /// So does this.
    pub salt: u32,
    pub random: u32,
}

impl LogName {
    fn of(header: &[u8; HEADER_BYTES]) -> LogName {
        let number = |at: usize| u32::from_be_bytes(header[NAME][at..at + 4].try_into().expect("four bytes"));
        LogName { sequence: number(0), salt: number(4), random: number(8) }
    }

    /// Whether this one was begun right after `other` was carried over.
    pub fn follows(self, other: LogName) -> bool {
        self.sequence == other.sequence.wrapping_add(1) && self.salt == other.salt.wrapping_add(1)
    }
}

/// What a log holds, up to the last commit that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub name: LogName,
    pub frames: u64,
    /// The pages of the database that are in it.
    pub pages: BTreeSet<u32>,
    /// How many pages the database has with it.
    pub size: u32,
}

/// The name in the header of a log; `None` where there is no header.
pub(super) fn name(file: &mut (impl Read + std::io::Seek)) -> Option<LogName> {
    let mut header = [0; HEADER_BYTES];
    file.seek(std::io::SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut header)).ok()?;
    Some(LogName::of(&header))
}

/// Reads a log to its end. `None`: there is none, or it is empty, or its header is not whole, so SQLite takes nothing of it.
pub(super) fn read(path: &Path) -> std::io::Result<Option<Log>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut header = [0; HEADER_BYTES];
    if !filled(&mut file, &mut header)? {
        return Ok(None);
    }
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (magic, page_bytes) = (word(&header, 0), word(&header, 8));
    let is_big_endian = magic & 1 == 1;
    let mut sums = add([0, 0], &header[..24], is_big_endian);
    let is_whole = magic & !1 == 0x377f_0682
        && page_bytes as usize == PAGE_BYTES
        && sums == [word(&header, 24), word(&header, 28)];
    if !is_whole {
        return Ok(None);
    }
    let mut log = Log { name: LogName::of(&header), ..Log::default() };
    let (mut read, mut pages) = (0, Vec::new());
    let mut frame = vec![0; FRAME_HEADER_BYTES + PAGE_BYTES];
    while filled(&mut file, &mut frame)? {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        sums = add(add(sums, &head[..8], is_big_endian), page, is_big_endian);
        if head[8..16] != header[16..24] || sums != [word(head, 16), word(head, 20)] || word(head, 0) == 0 {
            break;
        }
        read += 1;
        pages.push(word(head, 0));
        // The last frame of a commit says how large the database is then.
        if word(head, 4) != 0 {
            (log.frames, log.size) = (read, word(head, 4));
            log.pages.extend(pages.drain(..));
        }
    }
    Ok(Some(log))
}

fn filled(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn add(mut sums: [u32; 2], bytes: &[u8], is_big_endian: bool) -> [u32; 2] {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| {
            let bytes = pair[at..at + 4].try_into().expect("four bytes");
            if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        sums[0] = sums[0].wrapping_add(word(0)).wrapping_add(sums[1]);
        sums[1] = sums[1].wrapping_add(word(4)).wrapping_add(sums[0]);
    }
    sums
}
