//! The digest of a folder: the SHA-256 of every file in it, and one of the list of them.
//!
//! The list is what `sha256sum` prints, sorted as `LC_ALL=C sort` does, so that anyone can compare:
//!
//! ```sh
//! cd FOLDER && find . -type f -printf '%P\0' | xargs -0 sha256sum | LC_ALL=C sort | sha256sum
//! ```
//!
//! Links are not followed, pipes and devices are not opened. What cannot be read is counted, and nothing more.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use taskhub::task::{Counters, Progress};

/// The most files named in a result.
const FILES_NAMED_MAX: usize = 5_000;
/// The most bytes their names and digests may take: a result has room for 1 MiB of JSON text.
const FILES_BYTES_MAX: usize = 900 << 10;
/// Read at once.
const READ_BYTES: usize = 256 << 10;

/// Which files of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Those in it, and in every folder below.
    All,
    /// Only those directly in it.
    Top,
}

/// What comes of a folder.
#[derive(Debug, PartialEq, Serialize)]
pub struct Digest {
    /// By their path within the folder, in order; the first 5,000.
    pub files: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub files_omitted: bool,
    /// Files that were read to their end.
    pub count: u64,
    pub bytes: u64,
    pub manifest_sha256: String,
}

/// Why there is no digest.
#[derive(Debug)]
pub enum Stopped {
    /// Somebody asked for it.
    Asked,
    /// The folder itself cannot be read.
    Folder(io::Error),
}

/// Who is told how it goes, and says whether it should.
pub trait Watch {
    fn tell(&self, progress: Progress);
    fn is_stopped(&self) -> bool;
}

/// Digests a folder.
pub fn digest(folder: &Path, depth: Depth, watch: &impl Watch) -> Result<Digest, Stopped> {
    let mut tally = Tally::default();
    let files = find(folder, depth, watch, &mut tally)?;
    tally.bytes_total = files.iter().map(|file| file.bytes).sum();
    let mut buffer = vec![0; READ_BYTES];
    let mut digests = Vec::new();
    let count = files.len();
    for (n, file) in files.iter().enumerate() {
        tally.file = Some((n + 1, count));
        let before = tally.bytes;
        match read(&folder.join(&file.path), &mut buffer, watch, &mut tally) {
            Ok(hex) => {
                tally.counters.success += 1;
                digests.push((&file.path, hex));
            }
            Err(_) if watch.is_stopped() => return Err(Stopped::Asked),
            Err(_) => {
                tally.counters.failed += 1;
                tally.bytes_lost += tally.bytes - before;
            }
        }
    }
    watch.tell(tally.progress());
    Ok(result(digests, tally.bytes - tally.bytes_lost))
}

struct Found {
    path: PathBuf,
    bytes: u64,
}

/// How far it is.
#[derive(Default)]
struct Tally {
    /// The number of the file that is read, and of all.
    file: Option<(usize, usize)>,
    bytes: u64,
    /// Of these, read from files that failed later.
    bytes_lost: u64,
    bytes_total: u64,
    counters: Counters,
}

impl Tally {
    fn progress(&self) -> Progress {
        let (step, message) = match self.file {
            None => ("looking", String::new()),
            Some((file, files)) => {
                let (bytes, total) = (show_bytes(self.bytes), show_bytes(self.bytes_total));
                ("reading", format!("{file} of {files} files, {bytes} of {total}"))
            }
        };
        // A file may have grown since it was found.
        let total = self.bytes_total.max(self.bytes);
        let measured = self.file.is_some();
        Progress {
            // A folder of empty files is read when its last one is.
            percentage: self.file.filter(|_| total == 0).map(|(file, files)| file as f64 / files as f64 * 100.0),
            current: measured.then_some(self.bytes as f64),
            total: measured.then_some(total as f64),
            step: Some(step.into()),
            message: Some(message).filter(|message| !message.is_empty()),
            counters: Some(self.counters),
            ..Progress::default()
        }
    }
}

/// Finds the files, sorted by path.
fn find(folder: &Path, depth: Depth, watch: &impl Watch, tally: &mut Tally) -> Result<Vec<Found>, Stopped> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        let entries = match fs::read_dir(folder.join(&inner)) {
            Ok(entries) => entries,
            Err(why) if inner.as_os_str().is_empty() => return Err(Stopped::Folder(why)),
            Err(_) => {
                tally.counters.failed += 1;
                continue;
            }
        };
        for entry in entries {
            let Ok(entry) = entry else {
                tally.counters.failed += 1;
                continue;
            };
            let path = inner.join(entry.file_name());
            // Neither call follows a link.
            match entry
                .file_type()
                .and_then(|kind| Ok((kind, if kind.is_file() { entry.metadata()?.len() } else { 0 })))
            {
                Ok((kind, _)) if kind.is_dir() => match depth {
                    Depth::All => folders.push(path),
                    Depth::Top => {}
                },
                Ok((kind, bytes)) if kind.is_file() => files.push(Found { path, bytes }),
                Ok(_) => tally.counters.skipped += 1,
                Err(_) => tally.counters.failed += 1,
            }
        }
        if watch.is_stopped() {
            return Err(Stopped::Asked);
        }
        watch.tell(tally.progress());
    }
    files.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(files)
}

/// The SHA-256 of a file, in hex.
fn read(path: &Path, buffer: &mut [u8], watch: &impl Watch, tally: &mut Tally) -> io::Result<String> {
    // The file may have become a link or a pipe since it was found: the one is not followed, the other not waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file any more"));
    }
    let mut hash = Sha256::new();
    loop {
        if watch.is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = match file.read(buffer) {
            Ok(count) => count,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(why),
        };
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        tally.bytes += count as u64;
        watch.tell(tally.progress());
    }
    Ok(hex(&hash.finalize()))
}

fn result(digests: Vec<(&PathBuf, String)>, bytes: u64) -> Digest {
    let count = digests.len();
    let mut lines: Vec<Vec<u8>> = digests.iter().map(|(path, hex)| line(path, hex)).collect();
    lines.sort_unstable();
    let mut manifest = Sha256::new();
    lines.iter().for_each(|line| manifest.update(line));
    let mut room = FILES_BYTES_MAX;
    let mut files = BTreeMap::new();
    for (path, hex) in digests.into_iter().take(FILES_NAMED_MAX) {
        let path = path.to_string_lossy().into_owned();
        // As JSON a control character takes six bytes, the rest at most two.
        let wide = path.bytes().map(|byte| if byte < 0x20 { 6 } else { 1 + usize::from(matches!(byte, b'"' | b'\\')) });
        let Some(left) = room.checked_sub(wide.sum::<usize>() + hex.len() + 6) else { break };
        room = left;
        files.insert(path, hex);
    }
    Digest {
        files_omitted: files.len() < count,
        files,
        count: count as u64,
        bytes,
        manifest_sha256: hex(&manifest.finalize()),
    }
}

/// A line as `sha256sum` prints it: a name with a line break or a backslash is escaped, and the line begins with one.
fn line(path: &Path, hex: &str) -> Vec<u8> {
    let name = path.as_os_str().as_bytes();
    let mut line = Vec::with_capacity(name.len() + 68);
    if name.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r')) {
        line.push(b'\\');
    }
    line.extend_from_slice(hex.as_bytes());
    line.extend_from_slice(b"  ");
    for byte in name {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `3.2 MB`.
pub fn show_bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if amount < 999.95 {
            break;
        }
        (amount, unit) = (amount / 1_000.0, larger);
    }
    if unit == "B" { format!("{amount:.0} {unit}") } else { format!("{amount:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::process::Command;

    use super::*;

    #[derive(Default)]
    struct Told {
        progress: RefCell<Vec<Progress>>,
        stop_after: Option<usize>,
    }

    impl Watch for Told {
        fn tell(&self, progress: Progress) {
            self.progress.borrow_mut().push(progress);
        }
        fn is_stopped(&self) -> bool {
            self.stop_after.is_some_and(|most| self.progress.borrow().len() > most)
        }
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        fs::write(root.join("top.txt"), "top").unwrap();
        fs::write(root.join("a/none"), "").unwrap();
        fs::write(root.join("a/b/large"), vec![7; 3 * READ_BYTES + 1]).unwrap();
        fs::write(root.join("a/b/c/line\nbreak"), "1").unwrap();
        fs::write(root.join("a/back\\slash"), "2").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"a/not utf-8 \xff")), "3").unwrap();
        std::os::unix::fs::symlink("top.txt", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("a/loop")).unwrap();
        assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
        folder
    }

    fn sha256sum(folder: &Path, find: &str) -> String {
        let script = format!("find . {find} -type f -printf '%P\\0' | xargs -0 sha256sum | LC_ALL=C sort | sha256sum");
        let printed = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
        assert!(printed.status.success());
        String::from_utf8(printed.stdout).unwrap()[..64].to_owned()
    }

    #[test]
    fn the_manifest_is_what_sha256sum_prints() {
        let folder = tree();
        let told = Told::default();
        let all = digest(folder.path(), Depth::All, &told).unwrap();
        assert_eq!(all.manifest_sha256, sha256sum(folder.path(), ""));
        assert_eq!((all.count, all.bytes), (6, 3 + 3 * READ_BYTES as u64 + 1 + 3));
        assert_eq!(all.files["top.txt"], "28720365c5e7476a011e4f43ac003ee5f16247a263b9d623aa85ed311d73bf39");
        assert!(all.files.contains_key("a/b/c/line\nbreak") && !all.files_omitted);
        let progress = told.progress.borrow();
        let last = progress.last().unwrap();
        assert_eq!(last.counters, Some(Counters { success: 6, failed: 0, skipped: 3 }));
        assert_eq!((last.current, last.total), (Some(all.bytes as f64), Some(all.bytes as f64)));
        assert!(progress.iter().all(|progress| progress.clone().checked().is_ok()));
        let top = digest(folder.path(), Depth::Top, &Told::default()).unwrap();
        assert_eq!(top.manifest_sha256, sha256sum(folder.path(), "-maxdepth 1"));
        assert_eq!(top.count, 1);
    }

    #[test]
    fn an_empty_folder_has_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let none = digest(folder.path(), Depth::All, &Told::default()).unwrap();
        assert_eq!((none.count, none.manifest_sha256), (0, hex(&Sha256::digest(b""))));
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let missing = digest(Path::new("/does/not/exist"), Depth::All, &Told::default());
        assert!(matches!(missing, Err(Stopped::Folder(_))));
        let mut tally = Tally::default();
        let mut buffer = vec![0; 16];
        let folder = tree();
        for not_a_file in ["gone", "link", "pipe", "a"] {
            assert!(read(&folder.path().join(not_a_file), &mut buffer, &Told::default(), &mut tally).is_err());
        }
    }

    #[test]
    fn it_stops_when_asked() {
        let folder = tree();
        for stop_after in 0..8 {
            let told = Told { stop_after: Some(stop_after), ..Told::default() };
            assert!(matches!(digest(folder.path(), Depth::All, &told), Err(Stopped::Asked)), "{stop_after}");
        }
    }

    #[test]
    fn a_result_has_room_for_so_many_names() {
        let named = |count: usize, name: &str| {
            let paths: Vec<_> = (0..count).map(|n| PathBuf::from(format!("{n:05}{name}"))).collect();
            let digest = result(paths.iter().map(|path| (path, "0".repeat(64))).collect(), 0);
            assert!(serde_json::to_string(&digest).unwrap().len() < 1 << 20);
            assert_eq!(digest.count, count as u64);
            (digest.files.len(), digest.files_omitted)
        };
        assert_eq!(named(5_000, ""), (5_000, false));
        assert_eq!(named(5_001, ""), (5_000, true));
        let (count, omitted) = named(5_000, &"\u{1}\"".repeat(100));
        assert!(count < 5_000 && omitted);
    }

    #[test]
    fn bytes_as_people_read_them() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (999_960, "1.0 MB"), (3_210_000_000, "3.2 GB")]
        {
            assert_eq!(show_bytes(bytes), text);
        }
    }
}
