//! What callbacks are signed with, and the signature.
//!
//! Signatures are those of [Standard Webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`. The
//! secret stands in a file beside the store, which nobody else may read; it is made at first need. It is in no backup, as
//! who holds a backup should not be able to speak for the hub, and in no answer of the hub: who may see it is who may read
//! the file, with `taskhub callback secret`.
//!
//! When it is changed, the one before goes on for a day: each callback then carries both signatures, and receivers may
//! change theirs at any moment of it. The file is written anew whole, under a lock on its folder, so that a hub and commands
//! beside it never make two at once. A hub looks at the file before it signs, so it needs not be told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;

use crate::task::Timestamp;

/// Where it stands, in the folder of the store.
pub const SECRET_FILE: &str = "callbacks.secret";
/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// How long a new one is; Standard Webhooks asks for 24 to 64 bytes.
const SECRET_BYTES: usize = 32;
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// How long the one before is used too: a day.
pub const OLD_SECRET_MS: u64 = 86_400_000;
/// The most that are used at once, whose signatures are in one header; who changes them more often drops the oldest.
const SECRETS_MAX: usize = 4;

/// A secret that callbacks are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    key: Box<[u8]>,
    /// It was changed, and is used no longer than this.
    pub until: Option<Timestamp>,
}

impl Secret {
    fn new() -> io::Result<Secret> {
        let mut key = [0; SECRET_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::from)?;
        Ok(Secret { key: Box::new(key), until: None })
    }

    fn parse(line: &str) -> Option<Secret> {
        let (text, until) = match line.split_once(" until ") {
            Some((text, until)) => (text, Some(Timestamp::parse(until).ok()?)),
            None => (line, None),
        };
        let key = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let fits = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&key.len());
        fits.then(|| Secret { key: key.into(), until })
    }

    /// As receivers know it: `whsec_…`.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.key))
    }

    fn line(&self) -> String {
        match self.until {
            Some(until) => format!("{} until {until}\n", self.text()),
            None => format!("{}\n", self.text()),
        }
    }

    /// One signature, as it stands in the header.
    fn sign(&self, id: &str, at: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// It is never written where somebody may look.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("until", &self.until).finish_non_exhaustive()
    }
}

/// The header `webhook-signature` with each of these secrets; `at` in seconds since 1970.
pub fn signature(secrets: &[Secret], id: &str, at: i64, body: &[u8]) -> String {
    let each: Vec<String> = secrets.iter().map(|secret| secret.sign(id, at, body)).collect();
    each.join(" ")
}

/// The secrets of a hub.
#[derive(Debug)]
pub struct Secrets {
    /// `None` for a hub in memory, whose secret lives as long as it does.
    folder: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    secrets: Vec<Secret>,
    /// How the file looked when it was read.
    seen: Option<Seen>,
}

type Seen = (u64, u64, Option<SystemTime>);

impl Secrets {
    /// Those in this folder; `None`: in memory only.
    pub fn new(folder: Option<PathBuf>) -> Secrets {
        Secrets { folder, known: Mutex::default() }
    }

    /// What is to be signed with now, the newest first. Makes the first one where there is none. Blocks for a look at the
    /// file.
    pub fn current(&self, now: Timestamp) -> io::Result<Vec<Secret>> {
        let mut known = self.known.lock();
        match &self.folder {
            None if known.secrets.is_empty() => known.secrets = vec![Secret::new()?],
            None => {}
            Some(folder) => {
                let seen = seen(folder)?;
                if seen.is_none() || seen != known.seen {
                    known.secrets = read_or_make(folder)?;
                    known.seen = self::seen(folder)?;
                }
            }
        }
        Ok(known.secrets.iter().filter(|secret| is_used(secret, now)).cloned().collect())
    }
}

fn is_used(secret: &Secret, now: Timestamp) -> bool {
    secret.until.is_none_or(|until| now <= until)
}

/// What tells one file from the one that takes its place.
fn seen(folder: &Path) -> io::Result<Option<Seen>> {
    match fs::metadata(folder.join(SECRET_FILE)) {
        Ok(found) => Ok(Some((found.ino(), found.len(), found.modified().ok()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The secrets in a folder, the newest first; the first one is made where there is none.
pub fn read_or_make(folder: &Path) -> io::Result<Vec<Secret>> {
    if let Some(secrets) = read(folder)? {
        return Ok(secrets);
    }
    let _lock = lock(folder)?;
    match read(folder)? {
        Some(secrets) => Ok(secrets),
        None => write(folder, vec![Secret::new()?]),
    }
}

/// Puts a new secret before those in a folder, which are used for another day.
pub fn rotate(folder: &Path, now: Timestamp) -> io::Result<Vec<Secret>> {
    let _lock = lock(folder)?;
    let mut secrets = vec![Secret::new()?];
    let until = now.plus_millis(OLD_SECRET_MS);
    let old = read(folder)?.unwrap_or_default().into_iter().filter(|secret| is_used(secret, now));
    secrets.extend(old.map(|secret| Secret { until: Some(secret.until.unwrap_or(until)), ..secret }));
    secrets.truncate(SECRETS_MAX);
    write(folder, secrets)
}

/// Held until it is dropped.
fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

fn read(folder: &Path) -> io::Result<Option<Vec<Secret>>> {
    let path = folder.join(SECRET_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Option<Vec<Secret>> = lines.map(Secret::parse).collect();
    match secrets {
        Some(secrets) if !secrets.is_empty() => Ok(Some(secrets)),
        // Never made anew over what somebody put there: receivers know that one.
        _ => {
            let what = format!("{}: each line must be whsec_… with 24 to 64 bytes in base64", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

/// Writes the file anew, whole or not at all.
fn write(folder: &Path, secrets: Vec<Secret>) -> io::Result<Vec<Secret>> {
    let (path, new) = (folder.join(SECRET_FILE), folder.join(format!("{SECRET_FILE}.new")));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    secrets.iter().try_for_each(|secret| file.write_all(secret.line().as_bytes()))?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000)
    }

    /// The example of the specification, which its libraries are tested with.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(std::slice::from_ref(&secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let twice = signature(&[secret.clone(), secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(twice, format!("{signed} {signed}"));
    }

    #[test]
    fn the_first_secret_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let made: Vec<_> = std::thread::scope(|scope| {
            let made: Vec<_> = (0..8).map(|_| scope.spawn(|| read_or_make(folder.path()).unwrap())).collect();
            made.into_iter().map(|made| made.join().unwrap()).collect()
        });
        assert!(made.iter().all(|secrets| secrets.len() == 1 && secrets == &made[0]));
        let text = made[0][0].text();
        assert_eq!(STANDARD.decode(text.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
        let mode = fs::metadata(folder.path().join(SECRET_FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{:?}", made[0]).contains(&text[6..]), "not in a log");
    }

    #[test]
    fn a_secret_that_was_changed_is_used_for_another_day() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        let texts = |at: Timestamp| -> Vec<String> { secrets.current(at).unwrap().iter().map(Secret::text).collect() };
        let first = texts(now());
        let rotated = rotate(folder.path(), now()).unwrap();
        let both = texts(now());
        assert_eq!(both, [rotated[0].text(), first[0].clone()], "a hub that runs signs with both");
        assert_eq!(texts(now().plus_millis(OLD_SECRET_MS)), both);
        assert_eq!(texts(now().plus_millis(OLD_SECRET_MS + 1)), both[..1]);
        // Of those that are changed again and again, the newest; none is used for longer than it was to be.
        for hour in 1..=5 {
            rotate(folder.path(), now().plus_millis(hour * 3_600_000)).unwrap();
        }
        assert_eq!(texts(now().plus_millis(5 * 3_600_000)).len(), SECRETS_MAX);
        assert_eq!(texts(now().plus_millis(OLD_SECRET_MS + 4 * 3_600_000)).len(), 3);
        let mode = fs::metadata(folder.path().join(SECRET_FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_none_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SECRET_FILE);
        for wrong in ["", "secret\n", "whsec_c2hvcnQ=\n", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw until soon\n"] {
            fs::write(&path, wrong).unwrap();
            let error = read_or_make(folder.path()).unwrap_err().to_string();
            assert!(error.contains("24 to 64 bytes"), "{error}");
            assert!(rotate(folder.path(), now()).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), wrong);
        }
    }
}
