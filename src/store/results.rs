//! Large results: one file each, in a folder beside the database.
//!
//! **What can be relied on.** A record never names a file that is not there whole. A file is written under a name that ends in
//! `.part`, synced, renamed, and its folder is synced; only then is the record that names it committed. No file is written
//! again, and no name is given twice: whoever uploads again makes another file.
//!
//! **Which file counts is decided by the one writer**, in the commit that carries the record: that of the running attempt
//! names what it has uploaded, that of the completed task what it left. So nothing of it stands in memory alone, and a hub
//! that is killed between an upload and the end of its attempt finds it in the record.
//!
//! **A file that no record names is garbage.** It is removed once the commit that dropped its record is on disk: the task was
//! deleted, the attempt was fenced or failed, another upload took its place. What a crash leaves is found when the store is
//! opened: all `.part` files, and those whose task's record does not name them. A store that is damaged keeps all of them.
//! Where a commit failed its outcome is in doubt until the next one (see [`super::sqlite`]); its file stays until then.
//!
//! **The points of a crash**, in order: while `.part` is written, synced or renamed (garbage at the next start); after the
//! rename and before the commit (the same, and the worker was not answered); after the commit (the record names it); after a
//! commit that drops it and before it is removed (garbage at the next start).
//!
//! A large file that is synced at once keeps the commits of the hub waiting, whose log is on the same disk. So it is synced
//! piece by piece while it arrives; and an upload ends before the disk is so full that commits would fail.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::task::{LargeResult, ResultId, TaskId};

/// The folder within the data folder.
pub(super) const FOLDER: &str = "results";
/// The ending of files that are not whole.
const PART: &str = ".part";
/// So much is synced at once at most: a disk takes some tens of milliseconds for it.
const SYNC_EVERY_BYTES: u64 = 8 << 20;
/// So much room is left on the disk for what the hub commits: some thousands of tasks, and time to notice.
const DISK_RESERVE_BYTES: u64 = 64 << 20;

/// The files of a store.
#[derive(Clone, Debug)]
pub struct ResultFiles {
    folder: PathBuf,
}

/// A file that is being written. Dropped before it is finished, it is removed; so that is to be done where blocking is allowed.
#[derive(Debug)]
pub struct NewResult {
    path: PathBuf,
    /// Under which it can be found once it is whole.
    name: PathBuf,
    file: File,
    unsynced: u64,
    is_whole: bool,
}

/// A file that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultName {
    pub task_id: TaskId,
    pub id: ResultId,
}

impl ResultName {
    pub(super) fn of(task_id: TaskId, large: &LargeResult) -> ResultName {
        ResultName { task_id, id: large.id }
    }

    fn parse(name: &str) -> Option<ResultName> {
        let (task_id, id) = name.split_once('.')?;
        Some(ResultName { task_id: task_id.parse().ok()?, id: id.parse().ok()? })
    }
}

impl std::fmt::Display for ResultName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.task_id, self.id)
    }
}

impl ResultFiles {
    /// Those beside the database in this folder. The folder is made with the first of them.
    pub(super) fn within(data: &Path) -> ResultFiles {
        ResultFiles { folder: data.join(FOLDER) }
    }

    fn path(&self, name: ResultName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// Begins a file; `declared` is how long it is said to become.
    pub fn begin(&self, name: ResultName, declared: u64) -> io::Result<NewResult> {
        match fs::create_dir(&self.folder) {
            Ok(()) => sync_folder(self.folder.parent().unwrap_or(Path::new(".")))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        self.check_room(declared)?;
        let name = self.path(name);
        let path = with_ending(&name, PART);
        let file = File::create_new(&path)?;
        Ok(NewResult { path, name, file, unsynced: 0, is_whole: false })
    }

    /// Opens a file to be read. It must be as long as its record says.
    pub fn open(&self, task_id: TaskId, large: &LargeResult) -> io::Result<File> {
        let file = File::open(self.path(ResultName::of(task_id, large)))?;
        let bytes = file.metadata()?.len();
        match bytes == large.bytes {
            true => Ok(file),
            false => Err(io::Error::other(format!("the file has {bytes} bytes, its record says {}", large.bytes))),
        }
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: ResultName) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what was never whole, and lists the rest. Nothing may be written meanwhile.
    pub fn tidy(&self) -> io::Result<Vec<ResultName>> {
        let mut whole = Vec::new();
        for (path, name) in files(&self.folder)? {
            match ResultName::parse(&name) {
                Some(name) => whole.push(name),
                None if name.ends_with(PART) => fs::remove_file(path)?,
                // Not ours.
                None => {}
            }
        }
        Ok(whole)
    }

    /// Refuses to begin, or go on, where too little would be left for the hub itself.
    fn check_room(&self, bytes: u64) -> io::Result<()> {
        match free_bytes(&self.folder) {
            Some(free) if free < bytes.saturating_add(DISK_RESERVE_BYTES) => {
                Err(io::Error::new(io::ErrorKind::StorageFull, format!("{free} bytes are free on the disk")))
            }
            _ => Ok(()),
        }
    }
}

impl NewResult {
    /// Appends to it.
    pub fn write(&mut self, files: &ResultFiles, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
            files.check_room(0)?;
        }
        Ok(())
    }

    /// It is whole: from now on it is found under its name, also after a crash.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.name)?;
        self.is_whole = true;
        // A name that may get lost is found by nobody else: what is not synced is garbage.
        sync_folder(self.name.parent().unwrap_or(Path::new("."))).inspect_err(|_| _ = fs::remove_file(&self.name))
    }
}

impl Drop for NewResult {
    fn drop(&mut self) {
        if !self.is_whole {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The files of a folder and their names; none where it is not there.
pub(super) fn files(folder: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let named = entries.map(|entry| {
        let entry = entry?;
        Ok((entry.path(), entry.file_name().to_string_lossy().into_owned()))
    });
    named.collect()
}

/// The names of a folder with results, of those that are whole.
pub(super) fn names(folder: &Path) -> io::Result<Vec<ResultName>> {
    Ok(files(folder)?.iter().filter_map(|(_, name)| ResultName::parse(name)).collect())
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// How much room there is on the disk of a folder for programs without privileges; nothing where that cannot be told.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut room = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the call fills in what it is given where it answers with 0.
    let room = unsafe {
        if libc::statvfs(path.as_ptr(), room.as_mut_ptr()) != 0 {
            return None;
        }
        room.assume_init()
    };
    Some(room.f_bavail as u64 * room.f_frsize as u64)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(id: ResultId, bytes: u64) -> LargeResult {
        LargeResult { id, bytes, content_type: "text/plain".into() }
    }

    fn name() -> ResultName {
        ResultName { task_id: "01890000-0000-7000-8000-00000000002a".parse().unwrap(), id: ResultId::random() }
    }

    #[test]
    fn a_file_is_found_once_it_is_whole() {
        let data = tempfile::tempdir().unwrap();
        let files = ResultFiles::within(data.path());
        assert_eq!(files.tidy().unwrap(), []);
        let (one, two, three) = (name(), name(), name());
        let mut new = files.begin(one, 3).unwrap();
        new.write(&files, b"abc").unwrap();
        assert!(files.open(one.task_id, &large(one.id, 3)).is_err(), "it is not whole yet");
        assert!(files.begin(one, 3).is_err(), "a name is given once");
        new.finish().unwrap();
        let text = io::read_to_string(files.open(one.task_id, &large(one.id, 3)).unwrap()).unwrap();
        assert_eq!(text, "abc");
        assert!(files.open(one.task_id, &large(one.id, 4)).is_err(), "another length than its record says");
        // One that is given up leaves nothing; one that a crash cut short goes at the next start.
        drop(files.begin(two, 0).unwrap());
        assert_eq!(super::files(&files.folder).unwrap().len(), 1);
        std::mem::forget(files.begin(three, 0).unwrap());
        std::fs::write(files.folder.join("notes.txt"), "not ours").unwrap();
        assert_eq!(files.tidy().unwrap(), [one]);
        assert_eq!(super::files(&files.folder).unwrap().len(), 2);
        files.remove(one).unwrap();
        files.remove(one).unwrap();
        assert_eq!(files.tidy().unwrap(), []);
    }

    #[test]
    fn room_is_left_for_the_hub() {
        let data = tempfile::tempdir().unwrap();
        let files = ResultFiles::within(data.path());
        let refused = files.begin(name(), u64::MAX / 2).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
        assert_eq!(files.tidy().unwrap(), []);
    }
}
