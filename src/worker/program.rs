//! Finds the program of a command before it is started.
//!
//! The kernel says one word (`ENOENT`) for a folder, a program, a script's interpreter and a loader that is missing, and a
//! shell is silently put in where a file is in no format it knows. So everything that can be looked at is looked at
//! first, in the order in which it is used, and what is wrong is said of the thing that is wrong, with its path. A program
//! that goes between this look and its start is told by the kernel's word, with the path.
//!
//! Exit codes are those of shells: 127 for a program that is not there, 126 for all else that keeps one from starting.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use super::{CommandSpec, TaskFailure};

/// What is read of a program: a first line that names an interpreter is not longer, nor is what says its machine.
const HEAD_BYTES: u64 = 512;
/// Where programs are looked for when nobody says.
const PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// Why a command cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// As shells tell it.
    pub exit_code: u8,
    /// What is wrong, with its path.
    pub message: String,
}

impl NotStarted {
    fn missing(message: String) -> NotStarted {
        NotStarted { exit_code: 127, message }
    }

    fn unusable(message: String) -> NotStarted {
        NotStarted { exit_code: 126, message }
    }

    /// What becomes of its task.
    pub fn failure(&self) -> TaskFailure {
        let details = serde_json::json!({ "exit_code": self.exit_code });
        TaskFailure::new("exit", self.message.clone()).details(&details)
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for NotStarted {}

/// A program that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// What it is told it was called as.
    pub(super) name: OsString,
}

impl CommandSpec {
    /// Whether it could be started now, or why not.
    pub fn check(&self) -> Result<(), NotStarted> {
        Program::find(self).map(|_| ())
    }
}

impl Program {
    pub(super) fn find(spec: &CommandSpec) -> Result<Program, NotStarted> {
        let name = spec.command.first().ok_or_else(|| NotStarted::missing("no command is named".into()))?;
        let cwd = folder(spec.cwd.as_deref())?;
        let found = if name.contains('/') { at(spec, &cwd, name)? } else { in_path(spec, &cwd, name)? };
        judge(&found)?;
        // A program that was named by a path may look beside itself for what belongs to it.
        let name = if name.contains('/') { found.as_os_str().to_owned() } else { name.into() };
        Ok(Program { path: found, name })
    }

    /// The kernel's word for why it did not start, though everything seemed to be in place.
    pub(super) fn refused(&self, why: &io::Error) -> NotStarted {
        let path = &self.path;
        NotStarted::unusable(match why.raw_os_error() {
            Some(libc::ENOENT) => format!("{path:?} could not be started: its loader is not on this system ({why})"),
            Some(libc::E2BIG) => {
                format!("{path:?} could not be started: its arguments and variables are too large ({why})")
            }
            _ => format!("{path:?} could not be started: {why}"),
        })
    }
}

/// Where the command runs.
fn folder(cwd: Option<&Path>) -> Result<PathBuf, NotStarted> {
    let Some(cwd) = cwd else {
        // A program that is named by its whole path can run in a folder that is gone.
        return Ok(env::current_dir().unwrap_or_default());
    };
    let wrong = |why: &dyn fmt::Display| NotStarted::unusable(format!("cwd {cwd:?}: {why}"));
    let metadata = fs::metadata(cwd).map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => wrong(&"there is no such folder"),
        _ => wrong(&why),
    })?;
    if !metadata.is_dir() {
        return Err(wrong(&"is not a folder"));
    }
    if let Err(why) = may_execute(cwd) {
        return Err(wrong(&format_args!("may not be entered: {why}")));
    }
    std::path::absolute(cwd).map_err(|why| wrong(&why))
}

/// A program that is named by a path: seen from where the command runs, as a shell would, or else from where its name
/// was written down.
fn at(spec: &CommandSpec, cwd: &Path, name: &str) -> Result<PathBuf, NotStarted> {
    let mut places = vec![cwd.join(name)];
    places.extend(spec.folder.as_ref().map(|folder| folder.join(name)).filter(|place| *place != places[0]));
    for place in &places {
        match fs::metadata(place) {
            Ok(_) => return Ok(place.clone()),
            Err(why) if is_absence(&why) => {}
            Err(why) => return Err(NotStarted::unusable(format!("{place:?} cannot be reached: {why}"))),
        }
        if fs::symlink_metadata(place).is_ok() {
            return Err(NotStarted::missing(format!("{place:?} is a link to something that is not there")));
        }
    }
    let places: Vec<String> = places.iter().map(|place| format!("{place:?}")).collect();
    Err(NotStarted::missing(format!("there is no program {}", places.join(", nor "))))
}

/// A program that is only named: the first of its name in `PATH`, that of the command's own variables where it has one.
fn in_path(spec: &CommandSpec, cwd: &Path, name: &str) -> Result<PathBuf, NotStarted> {
    let path = spec.env.get("PATH").map(OsString::from).or_else(|| env::var_os("PATH"));
    let path = path.unwrap_or_else(|| PATH.into());
    let mut unusable = None;
    for folder in env::split_paths(&path) {
        let place = cwd.join(folder).join(name);
        match fs::metadata(&place) {
            Ok(metadata) if metadata.is_file() => match may_execute(&place) {
                Ok(()) => return Ok(place),
                Err(_) => unusable = unusable.or(Some(place)),
            },
            _ => {}
        }
    }
    // What is wrong with it is said where it is judged.
    unusable.ok_or_else(|| NotStarted::missing(format!("there is no program {name:?} in PATH ({})", path.display())))
}

fn judge(path: &Path) -> Result<(), NotStarted> {
    let wrong = |why: &dyn fmt::Display| Err(NotStarted::unusable(format!("{path:?} {why}")));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(why) => return wrong(&format_args!("cannot be reached: {why}")),
    };
    if metadata.is_dir() {
        return wrong(&"is a folder, not a program");
    }
    if !metadata.is_file() {
        return wrong(&"is not a file");
    }
    if let Err(why) = may_execute(path) {
        return wrong(&not_executable(&metadata, &why));
    }
    // One that may be run and not be read is taken as it is.
    let Ok(head) = head(path) else { return Ok(()) };
    if let Some(interpreter) = interpreter(&head) {
        return judge_interpreter(path, interpreter);
    }
    match (machine(&head), own_machine()) {
        (Some(machine), Some(own)) if !runs(own, machine) && !has_emulators() => {
            wrong(&format_args!("is built for another kind of machine (ELF machine {machine}, and this one is {own})"))
        }
        _ => Ok(()),
    }
}

fn not_executable(metadata: &Metadata, why: &io::Error) -> String {
    if metadata.mode() & 0o111 == 0 {
        "is not executable (chmod +x makes it so)".into()
    } else {
        format!("may not be executed by this user, or is on a file system that is mounted noexec: {why}")
    }
}

fn judge_interpreter(script: &Path, interpreter: &OsStr) -> Result<(), NotStarted> {
    let wrong = |why: &dyn fmt::Display| {
        let message = format!("{script:?} names an interpreter in its first line, {interpreter:?}, that {why}");
        Err(NotStarted::unusable(message))
    };
    if interpreter.as_bytes().ends_with(b"\r") {
        return wrong(&"is not there: the line ends as on Windows, and the carriage return is part of the name");
    }
    // Seen from where the command runs, as the kernel sees it; nobody writes a relative one on purpose.
    match fs::metadata(interpreter) {
        Err(why) if is_absence(&why) => wrong(&"is not there"),
        Err(why) => wrong(&format_args!("cannot be reached: {why}")),
        Ok(metadata) => match may_execute(Path::new(interpreter)) {
            Err(why) => wrong(&not_executable(&metadata, &why)),
            Ok(()) => Ok(()),
        },
    }
}

fn is_absence(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether this process may run a file, or enter a folder.
fn may_execute(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: reads a string that ends with a zero and lives until the call returns. The effective ids are asked for:
    // those are what an exec goes by.
    let refused = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) } != 0;
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// The program that a script's first line names.
fn interpreter(head: &[u8]) -> Option<&OsStr> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    words.map(OsStr::from_bytes).find(|word| !word.is_empty())
}

/// The machine that an ELF program is for.
fn machine(head: &[u8]) -> Option<u16> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let bytes = [*head.get(18)?, *head.get(19)?];
    Some(if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

fn own_machine() -> Option<u16> {
    machine(&head(Path::new("/proc/self/exe")).ok()?)
}

/// Whether a machine runs programs of another: x86-64 those of i386, and 64-bit ARM those of 32-bit ARM.
fn runs(own: u16, other: u16) -> bool {
    const I386: u16 = 3;
    const ARM: u16 = 40;
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    own == other || matches!((own, other), (X86_64, I386) | (AARCH64, ARM))
}

/// Whether the kernel was told of programs that run those of other machines.
fn has_emulators() -> bool {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name != "register" && name != "status")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A folder of programs, good and bad.
    fn programs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8], mode: u32| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good.sh", b"#!/bin/sh\n", 0o755);
        write("jobs/good.sh", b"#! /bin/sh -e\n", 0o755);
        write("jobs/deep/only-here.sh", b"#!/bin/sh\n", 0o755);
        write("plain.txt", b"hello", 0o644);
        write("lost.sh", b"#!/no/such/interpreter -x\n", 0o755);
        write("windows.sh", b"#!/bin/sh\r\necho hello\r\n", 0o755);
        write("alien", &[b"\x7fELF\x02\x01\x01".as_slice(), &[0; 11], &[22, 0, 1, 0, 0, 0]].concat(), 0o755);
        write("no-format", b"echo hello\n", 0o755);
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        folder
    }

    #[test]
    fn what_is_wrong_is_said_of_what_is_wrong() {
        let folder = programs();
        let root = folder.path().to_str().unwrap();
        let check = |cwd: Option<&str>, name: &str, expected: Result<&str, (u8, &str)>| {
            let cwd = cwd.map(|cwd| folder.path().join(cwd));
            let env = BTreeMap::from([("PATH".to_owned(), format!("{root}/none:{root}:/bin"))]);
            let spec = CommandSpec {
                cwd,
                env,
                folder: Some(folder.path().to_owned()),
                ..CommandSpec::new(vec![name.to_owned()])
            };
            let found = Program::find(&spec);
            match expected {
                Ok(path) => assert_eq!(found.unwrap().path, folder.path().join(path), "{name}"),
                Err((code, words)) => {
                    let why = found.unwrap_err();
                    assert_eq!(why.exit_code, code, "{why}");
                    assert!(why.message.contains(&words.replace("ROOT", root)), "{name}: {why}");
                }
            }
        };
        // Where it runs counts first, and then where it was written down.
        check(Some("."), "./good.sh", Ok("./good.sh"));
        check(Some("jobs"), "./good.sh", Ok("jobs/./good.sh"));
        check(Some("jobs"), "jobs/good.sh", Ok("jobs/good.sh"));
        check(None, "jobs/deep/only-here.sh", Ok("jobs/deep/only-here.sh"));
        check(None, &format!("{root}/good.sh"), Ok("good.sh"));
        check(Some("jobs"), "good.sh", Ok("good.sh"));
        check(None, "no-format", Ok("no-format"));

        check(Some("none"), "good.sh", Err((126, "cwd \"ROOT/none\": there is no such folder")));
        check(Some("plain.txt"), "good.sh", Err((126, "cwd \"ROOT/plain.txt\": is not a folder")));
        check(Some("jobs"), "./none.sh", Err((127, "\"ROOT/jobs/./none.sh\", nor \"ROOT/./none.sh\"")));
        check(None, "none-of-that-name", Err((127, "no program \"none-of-that-name\" in PATH (ROOT/none:ROOT:/bin)")));
        check(None, "./dangling", Err((127, "dangling\" is a link to something that is not there")));
        check(None, "good.sh/below", Err((127, "there is no program")));
        check(None, "plain.txt", Err((126, "\"ROOT/plain.txt\" is not executable (chmod +x")));
        check(None, "./plain.txt", Err((126, "is not executable")));
        check(None, "./jobs", Err((126, "is a folder")));
        check(None, "lost.sh", Err((126, "\"/no/such/interpreter\", that is not there")));
        check(None, "windows.sh", Err((126, "ends as on Windows")));
        if !has_emulators() {
            check(None, "alien", Err((126, "\"ROOT/alien\" is built for another kind of machine (ELF machine 22")));
        }
    }

    #[test]
    fn a_program_is_called_as_it_was_named() {
        let find = |name: &str| Program::find(&CommandSpec::new(vec![name.to_owned()])).unwrap();
        assert_eq!(find("sh").name, "sh");
        assert_eq!(find("/bin/sh").name, "/bin/sh");
        assert!(Program::find(&CommandSpec::new(Vec::new())).is_err());
    }
}
