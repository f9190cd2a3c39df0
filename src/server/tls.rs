//! TLS: the certificate, which may change while the hub runs, and the handshake, which anyone may begin and leave.
//!
//! * The files of certificate and key are looked at every few seconds. When one changed, both are read again, and
//!   connections that begin from then on get the new certificate. What cannot be used is said once, and the old one stays:
//!   between the writing of two files they do not fit each other, and the next look finds that they do.
//! * A handshake costs some kilobytes and a signature, and who begins one is not known. It has [`HANDSHAKE_TIME`], and there are
//!   [`HANDSHAKES_MAX`] at once; where one more comes, the oldest is given up. So half-open connections push out each other,
//!   and one that goes on as fast as the network does is done long before it is the oldest.
//! * Whoever speaks plain HTTP here is told so in plain HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::{Linger, Unread};

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The most handshakes at once. With a round trip of 100 ms that is 40,000 new connections a second.
const HANDSHAKES_MAX: usize = 4_096;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest file of a certificate or a key. A chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The first byte of a TLS record with a handshake. RFC 8446, section 5.1.
const HANDSHAKE_RECORD: u8 = 22;
/// What plain HTTP is told.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 45\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: begin with https://...\n";

/// What HTTP is called in a handshake, the best first. RFC 7301.
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The files of a certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// What tells that a file is another one, or was written.
type Stamp = [Option<(u64, u64, i64, i64, i64, i64)>; 2];

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            let (changed, written) = ((found.ctime(), found.ctime_nsec()), (found.mtime(), found.mtime_nsec()));
            Some((found.ino(), found.len(), written.0, written.1, changed.0, changed.1))
        })
    }

    fn read(&self) -> Result<CertifiedKey, String> {
        let of = |path: &Path, why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let text = |path: &Path| {
            let read = || {
                let mut text = Vec::new();
                std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
                io::Result::Ok(text)
            };
            read().map_err(|why| of(path, &why))
        };
        let chain = CertificateDer::pem_slice_iter(&text(&self.cert)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|why| of(&self.cert, &why))?;
        if chain.is_empty() {
            return Err(of(&self.cert, &"there is no certificate in it (PEM is expected)"));
        }
        let key = PrivateKeyDer::from_pem_slice(&text(&self.key)?).map_err(|why| match why {
            rustls::pki_types::pem::Error::NoItemsFound => {
                of(&self.key, &"there is no private key in it, or it is encrypted")
            }
            why => of(&self.key, &why),
        })?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|why| format!("{} and {}: {why}", self.cert.display(), self.key.display()))
    }
}

/// The certificate that holds now.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// TLS in front of connections.
#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    handshakes: Arc<Handshakes>,
}

impl Tls {
    /// With the certificate of these files, and those that they have later, for as long as anything of this is there; or
    /// what is wrong with them.
    pub(super) async fn start(files: Files) -> Result<Tls, String> {
        let look = files.clone();
        let (stamp, read) = aside(move || (look.stamp(), look.read())).await;
        let current = Arc::new(Current(RwLock::new(Arc::new(read?))));
        tokio::spawn(renew(Arc::downgrade(&current), files, stamp));
        let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of both versions");
        let mut config = versions.with_no_client_auth().with_cert_resolver(current);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let handshakes = Arc::new(Handshakes::new(HANDSHAKES_MAX));
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), handshakes })
    }

    /// The connection once it is one of TLS; `None` where it does not become one.
    pub(super) async fn shake(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut place = self.handshakes.begin();
        let shaking = async {
            let mut first = [0];
            // A peer that says nothing has no answer, and one that is gone has none either.
            if stream.peek(&mut first).await.ok()? == 0 {
                return None;
            }
            if first[0] != HANDSHAKE_RECORD {
                if first[0].is_ascii_uppercase() {
                    answer_plainly(stream).await;
                }
                return None;
            }
            let shaken = self.acceptor.accept(stream).await;
            shaken.inspect_err(|why| tracing::debug!(%why, "a TLS handshake failed")).ok()
        };
        tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE_TIME, shaking) => shaken.ok().flatten(),
            () = place.given_up() => None,
        }
    }
}

/// Tells plain HTTP that this is not its port, and hears it out, so that the answer is not lost in a reset.
async fn answer_plainly(stream: TcpStream) {
    let mut stream = Linger::new(stream, Unread::default());
    if stream.write_all(PLAIN_ANSWER).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// Looks at the files again and again, and takes what is new in them.
async fn renew(current: std::sync::Weak<Current>, files: Files, mut known: Stamp) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(current) = current.upgrade() else { return };
        let look = files.clone();
        // The stamp is taken first: what is written while the files are read is seen at the next look.
        let (stamp, read) = aside(move || {
            let stamp = look.stamp();
            (stamp, (stamp != known).then(|| look.read()))
        })
        .await;
        known = stamp;
        match read {
            None => {}
            Some(Ok(new)) => {
                *current.0.write() = Arc::new(new);
                tracing::info!(cert = %files.cert.display(), "took the new certificate");
            }
            Some(Err(why)) => tracing::error!("the new certificate cannot be used, and the old one stays: {why}"),
        }
    }
}

/// Does what reads files where blocking is allowed.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Handshakes that have begun, the oldest first.
struct Handshakes {
    begun: Mutex<(u64, BTreeMap<u64, oneshot::Sender<()>>)>,
    max: usize,
}

/// A handshake, until it is dropped.
struct Place<'a> {
    of: &'a Handshakes,
    number: u64,
    kept: oneshot::Receiver<()>,
}

impl Handshakes {
    fn new(max: usize) -> Handshakes {
        Handshakes { begun: Mutex::default(), max }
    }

    fn begin(&self) -> Place<'_> {
        let (keep, kept) = oneshot::channel();
        let mut begun = self.begun.lock();
        let (next, places) = &mut *begun;
        let number = *next;
        *next += 1;
        places.insert(number, keep);
        if places.len() > self.max {
            places.pop_first();
        }
        Place { of: self, number, kept }
    }
}

impl Place<'_> {
    /// Resolves when a newer one needs the place.
    async fn given_up(&mut self) {
        let _ = (&mut self.kept).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.begun.lock().1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_handshake_gives_way() {
        let handshakes = Handshakes::new(2);
        let (mut first, mut second) = (handshakes.begin(), handshakes.begin());
        assert!(first.given_up().now_or_never().is_none());
        let mut third = handshakes.begin();
        assert!(first.given_up().now_or_never().is_some());
        assert!(second.given_up().now_or_never().is_none());
        drop(second);
        let _fourth = handshakes.begin();
        assert!(third.given_up().now_or_never().is_none());
        drop((first, third));
        assert_eq!(handshakes.begun.lock().1.len(), 1);
    }

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
