//! Where a hub listens: an address, or a Unix socket.
//!
//! # A Unix socket
//!
//! A socket is a file, and outlives a hub that was killed. So the one that is there is tried: where something answers, the
//! hub does not start; where nothing does, it is replaced. The new one is made under a name of its own in the same folder,
//! is given its mode before anything can connect, and is then renamed into its place; so there is no moment with another mode,
//! and none in which clients find nothing. From the look to the renaming the folder is locked, so that of two hubs that start
//! at once the second finds the first. At the end the file is removed, if it is still this hub's.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// How many connections may wait to be accepted, as far as the machine lets them: when a hub restarts, everyone comes back
/// within seconds, and who is turned away here tries again only after a second.
const BACKLOG: u32 = 16_384;

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// Where a hub listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At an address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// At a Unix socket of this path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether other machines can reach it.
    pub fn is_reachable(&self) -> bool {
        match self {
            Listen::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => false,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = Path::new(path);
            return match path.file_name() {
                Some(_) => Ok(Listen::Unix(path.to_owned())),
                None => Err("unix:PATH is expected".into()),
            };
        }
        let mut addresses =
            text.to_socket_addrs().map_err(|why| format!("HOST:PORT or unix:PATH is expected: {why}"))?;
        addresses.next().map(Listen::Tcp).ok_or_else(|| "the host has no address".to_owned())
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Listen {
        Listen::Tcp(address)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The mode of a Unix socket's file: who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixMode(u32);

impl Default for UnixMode {
    /// Only the hub's own user.
    fn default() -> UnixMode {
        UnixMode(0o600)
    }
}

impl FromStr for UnixMode {
    type Err = String;

    fn from_str(text: &str) -> Result<UnixMode, String> {
        match u32::from_str_radix(text, 8) {
            // Whoever may not read and write cannot connect.
            Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(UnixMode(mode)),
            _ => Err("an octal mode is expected with which the hub's user can connect, such as 0660".into()),
        }
    }
}

impl fmt::Display for UnixMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// A place where connections arrive.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connection that arrived.
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Begins to listen. Waits a moment where another hub begins to in the same folder.
    pub(crate) fn bind(listen: &Listen, mode: UnixMode) -> io::Result<Listener> {
        match listen {
            Listen::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
            Listen::Unix(path) => bind_unix(path, mode),
        }
    }

    /// Where it listens, with the port that was taken.
    pub(crate) fn place(&self) -> io::Result<Listen> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Listener::Unix(_, file) => Ok(Listen::Unix(file.path.clone())),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else a hub could not come back while connections of the one before it linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path, UnixMode(mode): UnixMode) -> io::Result<Listener> {
    let path = std::path::absolute(path)?;
    let (folder, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    let lock = File::open(folder)?;
    lock.lock()?;
    make_way(&path)?;
    let new = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    // Of a process that was killed at this very place, with the same number.
    let _ = std::fs::remove_file(&new);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    let made = || {
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG as i32)?;
        std::fs::rename(&new, &path)?;
        SocketFile::of(&path)
    };
    let file = made().inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    socket.set_nonblocking(true)?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into())?, file))
}

/// Makes sure that what is at this path may be replaced: nothing, or the socket of a program that is gone.
fn make_way(path: &Path) -> io::Result<()> {
    let in_use = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why.to_owned()));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => in_use("there is a file of this name that is no socket"),
        Ok(_) => {
            let asking = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // A program that is too busy to accept would be waited for.
            asking.set_nonblocking(true)?;
            match asking.connect(&SockAddr::unix(path)?) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => in_use("another program listens there"),
            }
        }
    }
}

/// The file of a socket, until it is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and number: another hub may have put its own there.
    is: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        let is = SocketFile::at(path)?;
        Ok(SocketFile { path: path.to_owned(), is })
    }

    fn at(path: &Path) -> io::Result<(u64, u64)> {
        std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if SocketFile::at(&self.path).is_ok_and(|found| found == self.is) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, shown) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:0", "[::1]:0"),
            ("unix:/run/hub", "unix:/run/hub"),
            ("unix:hub", "unix:hub"),
        ] {
            assert_eq!(Listen::from_str(text).unwrap().to_string(), shown);
        }
        for text in ["8080", "unix:", "unix:/", "unix:..", "/run/hub"] {
            assert!(Listen::from_str(text).is_err(), "{text}");
        }
        for (text, reachable) in
            [("127.0.0.1:1", false), ("[::ffff:127.0.0.1]:1", false), ("10.0.0.1:1", true), ("unix:x", false)]
        {
            assert_eq!(Listen::from_str(text).unwrap().is_reachable(), reachable, "{text}");
        }
    }

    #[test]
    fn modes() {
        for (text, shown) in [("0600", "0600"), ("660", "0660"), ("0777", "0777")] {
            assert_eq!(UnixMode::from_str(text).unwrap().to_string(), shown);
        }
        for text in ["", "0", "0066", "1777", "0o600", "rw", "-1", "0680"] {
            assert!(UnixMode::from_str(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_replaced_when_nothing_answers_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub");
        let at = Listen::Unix(path.clone());
        let first = Listener::bind(&at, UnixMode::default()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(Listener::bind(&at, UnixMode::default()).unwrap_err().to_string().contains("another program"));
        // As a hub that was killed leaves it.
        let Listener::Unix(listener, file) = first else { panic!("no Unix socket") };
        std::mem::forget(file);
        drop(listener);
        let second = Listener::bind(&at, UnixMode(0o660)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(second);
        assert!(!path.exists(), "it goes with its hub");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&at, UnixMode::default()).unwrap_err().to_string().contains("no socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        let long = Listen::Unix(folder.path().join("x".repeat(200)));
        assert!(Listener::bind(&long, UnixMode::default()).is_err());
    }

    #[tokio::test]
    async fn what_another_hub_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub");
        let first = Listener::bind(&Listen::Unix(path.clone()), UnixMode::default()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Listener::bind(&Listen::Unix(path.clone()), UnixMode::default()).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
