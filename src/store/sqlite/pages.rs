//! Pages that know their own damage.
//!
//! SQLite notices a damaged page only where its structure breaks; a flipped byte in a record is read as if it had been
//! written. So the last eight bytes of each page of the database are a checksum of the rest and of the page's number. SQLite
//! is told to leave them free ("reserved bytes"), and a layer between it and the operating system, a VFS, fills them in when
//! a page is written to the file and checks them when one is read from it: rows, indexes and free pages alike, on every
//! connection. A wrong one is an I/O error, [`SQLITE_IOERR_DATA`](ffi::SQLITE_IOERR_DATA), which no waiting mends.
//!
//! The write-ahead log needs nothing of the kind: its frames have checksums of SQLite's own, which end it at the first that
//! is wrong. That such an end came too early is seen by the [witness](super::witness).
//!
//! The layer is the default VFS with another `open`; files that are no database are opened as ever. Of a database each method
//! is passed on, but for reading and writing whole pages. A page is hashed once when it is carried over from the log and once
//! when it is read into a page cache, some half a microsecond each; a commit does neither.
//!
//! A file whose header reserves no such bytes was made by an older hub. It is read and written without checksums; see
//! [`schema`](super::schema) for how it gets them.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::{Connection, ffi};

use super::PAGE_BYTES;
use super::failure::{ErrorContext as _, damaged};
use crate::store::StoreError;

/// What the layer is called where a connection is opened.
const VFS_NAME: &CStr = c"taskhub";

/// What each page keeps free for its checksum.
pub(super) const SUM_BYTES: usize = 8;

/// Where the header of a database says how many bytes of each page are kept free.
const RESERVED_AT: usize = 20;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// SQLite locks a byte here, and keeps nothing in the page it belongs to.
const LOCK_PAGE_AT: u64 = 0x4000_0000;

/// A page may be read while it is being written; then it is whole a moment later.
const READ_AGAIN: u32 = 8;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// At most so many damaged pages are named.
const DAMAGED_NAMED_MAX: usize = 8;

/// The name of the layer for [`Connection::open_with_flags_and_vfs`]; registered by the first that asks.
pub(super) fn vfs() -> &'static CStr {
    static REGISTERED: LazyLock<()> = LazyLock::new(register);
    LazyLock::force(&REGISTERED);
    VFS_NAME
}

/// The checksum of a page. Every single damaged word changes it: each step is a bijection of the sum before. The four sums
/// do not wait for each other.
pub(super) fn sum(page: u64, body: &[u8]) -> [u8; SUM_BYTES] {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(ODD);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("words are of 8 bytes"));
    let mut sums = [page ^ ODD, 0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0];
    let mut blocks = body.chunks_exact(32);
    for block in &mut blocks {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = mix(*sum, word(&block[8 * at..8 * at + 8]));
        }
    }
    let rest = blocks.remainder().chunks_exact(8).fold(sums[0], |sum, bytes| mix(sum, word(bytes)));
    sums[1..].iter().fold(rest, |sum, other| mix(sum, *other)).to_le_bytes()
}

/// What was found in a database file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    pub count: u64,
    /// The file carries checksums at all.
    pub summed: bool,
    pub damaged: u64,
    /// The numbers of the first of them.
    pub first_damaged: Vec<u64>,
}

impl Pages {
    pub fn check(&self) -> Result<(), StoreError> {
        if self.damaged == 0 {
            return Ok(());
        }
        let named: Vec<_> = self.first_damaged.iter().map(u64::to_string).collect();
        let more = if self.damaged as usize > named.len() { ", …" } else { "" };
        let (damaged_pages, count) = (self.damaged, self.count);
        Err(damaged(
            "check the pages",
            format!("{damaged_pages} of {count} pages do not match their checksum: {}{more}", named.join(", ")),
        ))
    }
}

/// Reads every page of the file behind a connection, whether in use or not, without a transaction: pages that the
/// write-ahead log has newer are looked at as they are in the file.
pub(super) fn scan(conn: &Connection, mut goes_on: impl FnMut() -> bool) -> Result<Pages, StoreError> {
    const STEP: &str = "check the pages";
    let mut pages = Pages::default();
    let mut file: *mut ffi::sqlite3_file = null_mut();
    // SAFETY: the connection is open, and gives out the file of its database, which lives as long as it does.
    let found = unsafe {
        let out: *mut *mut ffi::sqlite3_file = &mut file;
        ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, out.cast())
    };
    // SAFETY: an open file has its methods, and these are ours only where this layer opened it.
    let is_ours = found == ffi::SQLITE_OK && !file.is_null() && unsafe { std::ptr::eq((*file).pMethods, &METHODS) };
    if !is_ours {
        return Ok(pages);
    }
    // Where nothing was read yet the header was not looked at either.
    conn.query_row("PRAGMA schema_version", [], |_| Ok(())).context(STEP)?;
    // SAFETY: the file was opened by this layer.
    pages.summed = unsafe { (*file.cast::<PageFile>()).summed };
    if !pages.summed {
        return Ok(pages);
    }
    let mut bytes: ffi::sqlite3_int64 = 0;
    // SAFETY: an open file of this layer, and a place for the size.
    code(unsafe { file_size(file, &mut bytes) }).context(STEP)?;
    pages.count = (bytes.max(0) as u64).div_ceil(PAGE_BYTES as u64);
    let mut page = vec![0; PAGE_BYTES];
    let mut empty = Vec::new();
    'pages: for at in 0..pages.count {
        if at % 64 == 0 && !goes_on() {
            break;
        }
        let offset = at * PAGE_BYTES as u64;
        if offset == LOCK_PAGE_AT {
            continue;
        }
        let mut tries = 0;
        loop {
            // SAFETY: an open file of this layer, and a buffer of the size that is said.
            let read = unsafe { read(file, page.as_mut_ptr().cast(), PAGE_BYTES as c_int, offset as i64) };
            match read {
                ffi::SQLITE_OK => break,
                ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_SHORT_READ if tries < READ_AGAIN => {
                    tries += 1;
                    std::thread::sleep(READ_AGAIN_AFTER);
                    // SAFETY: as above.
                    code(unsafe { file_size(file, &mut bytes) }).context(STEP)?;
                    if offset >= bytes.max(0) as u64 {
                        // The file was made smaller meanwhile.
                        break 'pages;
                    }
                }
                ffi::SQLITE_IOERR_DATA if page.iter().all(|byte| *byte == 0) => {
                    empty.push(at + 1);
                    break;
                }
                ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_SHORT_READ => {
                    pages.found(at + 1);
                    break;
                }
                other => return Err(code(other).context(STEP).expect_err("it is no success")),
            }
        }
    }
    if !empty.is_empty() {
        pages.look_at_empty(conn, &empty);
    }
    Ok(pages)
}

impl Pages {
    fn found(&mut self, page: u64) {
        self.damaged += 1;
        if self.first_damaged.len() < DAMAGED_NAMED_MAX {
            self.first_damaged.push(page);
        }
    }

    /// A page that was made and given up within one transaction was never written. Any other that is all zeroes was.
    fn look_at_empty(&mut self, conn: &Connection, empty: &[u64]) {
        let in_use = || -> rusqlite::Result<std::collections::BTreeSet<u64>> {
            let mut statement = conn.prepare("SELECT pageno FROM dbstat")?;
            let pages = statement.query_map([], |row| row.get::<_, i64>(0))?;
            pages.map(|page| Ok(page? as u64)).collect()
        };
        // Where the tables cannot be walked, one of these is why, or another damaged one.
        let in_use = in_use().ok();
        let is_used = |page: u64, in_use: &std::collections::BTreeSet<u64>| {
            in_use.contains(&page) || mapped_by(page).is_some_and(|mapped| in_use.range(mapped).next().is_some())
        };
        let mut free = Vec::new();
        for page in empty {
            match in_use.as_ref().is_none_or(|in_use| is_used(*page, in_use)) {
                true => self.found(*page),
                false => free.push(*page),
            }
        }
        // The pages that list the free ones are free themselves, and written all the same.
        if let Some(page) = free.first()
            && !lists_free_pages(conn)
        {
            self.found(*page);
        }
    }
}

/// Whether the list of free pages is whole. SQLite reads it only once it needs one of them.
fn lists_free_pages(conn: &Connection) -> bool {
    let said: rusqlite::Result<String> = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    said.is_ok_and(|said| said == "ok")
}

/// The pages that a pointer map speaks of, where this page is one; no table knows of it. Each has five bytes there, and the
/// map stands before them ("Pointer Map or Ptrmap Pages").
fn mapped_by(page: u64) -> Option<std::ops::Range<u64>> {
    const MAPPED: u64 = ((PAGE_BYTES - SUM_BYTES) / 5) as u64;
    (page >= 2 && (page - 2).is_multiple_of(MAPPED + 1)).then(|| page + 1..page + 1 + MAPPED)
}

/// Whether the pages of a database file have room for checksums, by its header; `None` where it has none.
pub(super) fn has_room(header: &[u8]) -> Option<bool> {
    let reserved = header.get(RESERVED_AT).filter(|_| header.starts_with(MAGIC))?;
    Some(usize::from(*reserved) == SUM_BYTES)
}

/// Has the pages of a new database, or of one that is written anew by `VACUUM`, keep room for checksums.
pub(super) fn make_room(conn: &Connection) -> rusqlite::Result<()> {
    let mut bytes = SUM_BYTES as c_int;
    // SAFETY: the connection is open, and the operation reads and writes one int.
    code(unsafe {
        let bytes: *mut c_int = &mut bytes;
        ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_RESERVE_BYTES, bytes.cast())
    })
}

fn code(code: c_int) -> rusqlite::Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// A database file as SQLite holds it. What the default VFS keeps of it follows in the same memory.
#[repr(C)]
struct PageFile {
    base: ffi::sqlite3_file,
    /// The pages have checksums. True until a header says otherwise: those of a new file are written in any order.
    summed: bool,
}

/// Where the default VFS keeps its part.
///
/// # Safety
/// `file` was opened by [`open`] as a database.
unsafe fn inner(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` of this VFS is the size of both.
    unsafe { file.cast::<u8>().add(size_of::<PageFile>()).cast() }
}

/// Calls a method of the file beneath.
macro_rules! pass_on {
    ($file:ident . $method:ident ( $($argument:expr),* )) => {{
        let file = inner($file);
        match (*(*file).pMethods).$method {
            Some(method) => method(file, $($argument),*),
            None => ffi::SQLITE_IOERR,
        }
    }};
}

fn register() {
    // SAFETY: the default VFS lives as long as the process, and so does the copy. A copy works for everything that is not
    // overridden, because the VFS of the platform keeps what its functions need in `pAppData`, which is copied too.
    unsafe {
        ffi::sqlite3_initialize();
        let original = ffi::sqlite3_vfs_find(null());
        assert!(!original.is_null(), "SQLite has a VFS on every platform it is built for");
        let mut copy = *original;
        copy.pNext = null_mut();
        copy.zName = VFS_NAME.as_ptr();
        copy.szOsFile += size_of::<PageFile>() as c_int;
        copy.xOpen = Some(open);
        let registered = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(copy)), 0);
        assert_eq!(registered, ffi::SQLITE_OK, "a VFS of a new name is always taken");
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of `szOsFile` bytes; the default VFS is asked the way it would have been.
    unsafe {
        let original = ffi::sqlite3_vfs_find(null());
        let Some(open) = (*original).xOpen else { return ffi::SQLITE_CANTOPEN };
        if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
            return open(original, name, file, flags, out_flags);
        }
        let opened = open(original, name, inner(file), flags, out_flags);
        let page_file = file.cast::<PageFile>();
        (*page_file).summed = true;
        // Methods say that there is something to close.
        (*page_file).base.pMethods = if (*inner(file)).pMethods.is_null() { null() } else { &METHODS };
        opened
    }
}

/// Version 2: without memory maps, which would go past this.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The number of the page, from 1, if that is what is read or written.
fn page_of(bytes: c_int, offset: ffi::sqlite3_int64) -> Option<u64> {
    let (size, offset) = (PAGE_BYTES as u64, u64::try_from(offset).ok()?);
    (bytes as u64 == size && offset.is_multiple_of(size)).then(|| offset / size + 1)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: called by SQLite with an open file of this layer and a buffer of that many bytes.
    unsafe {
        let done = pass_on!(file.xRead(buffer, bytes, offset));
        if done != ffi::SQLITE_OK {
            return done;
        }
        let page_file = &mut *file.cast::<PageFile>();
        let read = std::slice::from_raw_parts(buffer.cast::<u8>(), bytes as usize);
        if offset == 0
            && let Some(summed) = has_room(read)
        {
            page_file.summed = summed;
        }
        match page_of(bytes, offset).filter(|_| page_file.summed) {
            Some(page) if sum(page, &read[..PAGE_BYTES - SUM_BYTES]) != read[PAGE_BYTES - SUM_BYTES..] => {
                ffi::SQLITE_IOERR_DATA
            }
            _ => ffi::SQLITE_OK,
        }
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    bytes: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: called by SQLite with an open file of this layer and a buffer of that many bytes.
    unsafe {
        let page_file = &mut *file.cast::<PageFile>();
        let written = std::slice::from_raw_parts(buffer.cast::<u8>(), bytes as usize);
        if offset == 0
            && let Some(summed) = has_room(written)
        {
            page_file.summed = summed;
        }
        let Some(page) = page_of(bytes, offset).filter(|_| page_file.summed) else {
            return pass_on!(file.xWrite(buffer, bytes, offset));
        };
        // What SQLite handed over is its own, and may be a page that others read.
        let mut sealed = [0; PAGE_BYTES];
        sealed.copy_from_slice(written);
        seal(page, &mut sealed);
        pass_on!(file.xWrite(sealed.as_ptr().cast(), bytes, offset))
    }
}

/// Fills in the checksum of a page.
fn seal(page: u64, bytes: &mut [u8]) {
    let (body, place) = bytes.split_at_mut(PAGE_BYTES - SUM_BYTES);
    place.copy_from_slice(&sum(page, body));
}

/// Gives every page of a database the checksum of what stands in it. For a file that has room and no checksums yet, and
/// is not open elsewhere.
pub(super) fn seal_all(path: &std::path::Path) -> std::io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut page = vec![0; PAGE_BYTES];
    for at in 0..file.metadata()?.len() / PAGE_BYTES as u64 {
        let offset = at * PAGE_BYTES as u64;
        if offset == LOCK_PAGE_AT {
            continue;
        }
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut page)?;
        seal(at + 1, &mut page);
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&page)?;
    }
    file.sync_all()
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: called by SQLite with an open file of this layer.
    unsafe { pass_on!(file.xClose()) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: ffi::sqlite3_int64) -> c_int {
    // SAFETY: as for `close`; so it is for all that follow.
    unsafe { pass_on!(file.xTruncate(bytes)) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xSync(flags)) }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, bytes: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xFileSize(bytes)) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xLock(level)) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xUnlock(level)) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xCheckReservedLock(out)) }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xFileControl(op, argument)) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xSectorSize()) }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see `truncate`. Parts of pages are not to be read: there would be nothing to check.
    unsafe { pass_on!(file.xDeviceCharacteristics()) & !ffi::SQLITE_IOCAP_SUBPAGE_READ }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xShmMap(region, bytes, extend, out)) }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xShmLock(offset, count, flags)) }
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: see `truncate`.
    unsafe {
        let file = inner(file);
        if let Some(barrier) = (*(*file).pMethods).xShmBarrier {
            barrier(file);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: see `truncate`.
    unsafe { pass_on!(file.xShmUnmap(delete)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_changes_the_sum() {
        let mut page: Vec<u8> = (0..PAGE_BYTES - SUM_BYTES).map(|at| (at * 7) as u8).collect();
        let sound = sum(3, &page);
        assert_ne!(sum(4, &page), sound, "a page in another's place");
        for at in 0..page.len() {
            page[at] ^= 1 << (at % 8);
            assert_ne!(sum(3, &page), sound, "byte {at}");
            page[at] ^= 1 << (at % 8);
        }
        assert_eq!(sum(3, &page), sound);
        assert_ne!(sum(1, &vec![0; PAGE_BYTES - SUM_BYTES]), [0; SUM_BYTES]);
    }
}
