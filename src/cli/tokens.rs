//! Where the command finds the token that says who is calling: in `TASKHUB_TOKEN`, or in the file that `taskhub login` wrote
//! for this hub.
//!
//! Never among its words: those stand in the history of the shell, and everyone on the machine sees them. A file that others
//! may read is refused for the same reason.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::outcome::Failed;
use crate::dial::{HubUrl, Token};

pub(super) const VARIABLE: &str = "TASKHUB_TOKEN";
/// More than a hub looks at.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// The token for a hub, if there is one. That of a file is read again where the hub does not take it any more, so that a
/// worker goes on with one that was put in its place.
pub(super) fn of(hub: &HubUrl) -> Result<Option<Token>, Failed> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => return Ok(Some(Token::new(text))),
        Err(std::env::VarError::NotUnicode(_)) => return Err(Failed::usage(format!("{VARIABLE} is no text"))),
        _ => {}
    }
    let Some(path) = path(hub) else { return Ok(None) };
    match read(&path) {
        Ok(_) => Ok(Some(Token::fetched(move || std::future::ready(read(&path))))),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(Failed::usage(why.to_string())),
    }
}

/// The file for a hub: one for each, named after its address. None where there is no home to keep it in.
pub(super) fn path(hub: &HubUrl) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    let name: String = form_urlencoded::byte_serialize(hub.to_string().as_bytes()).collect();
    Some(config.join("taskhub").join("tokens").join(name))
}

fn read(path: &Path) -> io::Result<String> {
    let wrong = |kind, why: &str| io::Error::new(kind, format!("{}: {why}", path.display()));
    let told = |why: io::Error| wrong(why.kind(), &why.to_string());
    let file = File::open(path).map_err(told)?;
    let mode = file.metadata().map_err(told)?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!("others may read this token (mode {:o}); make it yours with `chmod 600`", mode & 0o777);
        return Err(wrong(io::ErrorKind::PermissionDenied, &why));
    }
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).map_err(told)?;
    Ok(text)
}

/// Keeps a token, for nobody else to read. What was kept before is replaced at once, or not at all.
pub(super) fn keep(path: &Path, token: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_file_name(format!(".new.{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
        writeln!(file, "{token}")?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_for_nobody_else_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taskhub/tokens/hub");
        keep(&path, "tht_one").unwrap();
        keep(&path, "tht_two").unwrap();
        assert_eq!(read(&path).unwrap(), "tht_two\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        for mode in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let why = read(&path).unwrap_err().to_string();
            assert!(why.contains("chmod 600") && why.contains("hub") && !why.contains("tht_"), "{why}");
        }
        assert_eq!(read(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
