//! The names that a store hangs on.
//!
//! What was acknowledged is found again under a name: the folder's, the database's, its log's. An open file goes on taking
//! writes after its name was given to another, or to none: `rm -rf`, a mount that went over the folder, a backup that was put
//! back under a running hub. And a lock keeps no other process out once another file has its name. So the hub looks now and then
//! whether each name still means the file that it has open, and takes no writes while one does not.

use std::fs::{File, Metadata, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::failure::ErrorContext as _;
use super::witness::HEAD_NAME;
use super::{FILE_NAME, LOCK_NAME};
use crate::store::{LOCKING, StoreError};

/// How often, at most: a look is half a dozen system calls, and an acknowledgement is never later than this after a loss,
/// plus the length of a commit.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const STEP: &str = "find the data folder";

/// Keeps other hubs out of the folder. Let go of by word and not only by closing the file: a program that was just being
/// started by this one may hold a copy of it for a moment.
pub(super) struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Keeps other hubs out of a folder.
pub(super) fn lock(folder: &Path) -> Result<FolderLock, StoreError> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK_NAME))
        .context("open the lock file")?;
    lock.try_lock().map_err(|error| StoreError {
        step: LOCKING,
        cause: match error {
            TryLockError::WouldBlock => format!("another hub is running on {}", folder.display()),
            TryLockError::Error(error) => error.to_string(),
        },
        lasting: false,
    })?;
    Ok(FolderLock(lock))
}

/// Has a database, and the files that SQLite keeps beside it, be for their owner alone: the keys are in there with which the hub
/// signs tokens. SQLite gives new files the mode of the database.
pub(super) fn keep_private(database: &Path) -> Result<(), StoreError> {
    const STEP: &str = "keep the database from others";
    for ending in ["", "-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(ending);
        let mode = match std::fs::metadata(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            found => found.context(STEP)?.permissions().mode(),
        };
        if mode & 0o077 != 0 {
            std::fs::set_permissions(&name, Permissions::from_mode(mode & 0o700)).context(STEP)?;
        }
    }
    Ok(())
}

/// Names, and what they meant.
pub(super) struct Names {
    list: Vec<(PathBuf, Identity)>,
    looked_at: Instant,
    is_away: bool,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    /// Again, after they were away.
    Back,
}

/// A file, whatever it is called: its device and its number there.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(file: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (file.dev(), file.ino())
}

/// No more than that there is one.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    (0, 0)
}

impl Names {
    /// What the names mean now, while all files are open.
    pub fn of(folder: &Path) -> Result<Names, StoreError> {
        let files = [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal"), format!("{FILE_NAME}-shm")];
        let files = files.iter().map(String::as_str).chain([LOCK_NAME, HEAD_NAME]);
        let paths = std::iter::once(folder.to_owned()).chain(files.map(|name| folder.join(name)));
        let list = paths.map(|path| Ok((path.clone(), identity(&std::fs::metadata(&path).context(STEP)?))));
        let list = list.collect::<Result<_, StoreError>>()?;
        Ok(Names { list, looked_at: Instant::now(), is_away: false })
    }

    /// Looks, unless it did a moment ago and all was well.
    pub fn look(&mut self) -> Result<Look, StoreError> {
        if !self.is_away && self.looked_at.elapsed() < LOOK_EVERY {
            return Ok(Look::Same);
        }
        self.looked_at = Instant::now();
        let looked = self.check();
        let was_away = std::mem::replace(&mut self.is_away, looked.is_err());
        looked.map(|()| if was_away { Look::Back } else { Look::Same })
    }

    /// Looks at the database alone, for a reader that has just opened it by its name.
    pub fn check_database(&self) -> Result<(), StoreError> {
        check(&self.list[1])
    }

    fn check(&self) -> Result<(), StoreError> {
        self.list.iter().try_for_each(check)
    }
}

fn check((path, known): &(PathBuf, Identity)) -> Result<(), StoreError> {
    let cause = match std::fs::metadata(path) {
        Ok(found) if identity(&found) == *known => return Ok(()),
        Ok(_) => format!(
            "{} is another than the one the hub has open; put that one back, or restart the hub",
            path.display()
        ),
        Err(error) => format!("{} cannot be found any more ({error}); put it back, or restart the hub", path.display()),
    };
    Err(StoreError { step: STEP, cause, lasting: false })
}

/// Makes the names in a new folder last. The contents are SQLite's.
#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    const STEP: &str = "sync the data folder";
    File::open(folder).and_then(|folder| folder.sync_all()).context(STEP)?;
    match folder.canonicalize().context(STEP)?.parent() {
        // Of a parent that may not be read, the name was there before.
        Some(parent) => File::open(parent).and_then(|parent| parent.sync_all()).or(Ok(())),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> Result<(), StoreError> {
    Ok(())
}
