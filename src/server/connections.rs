//! Connections: accepted up to a bound, served, and ended when the hub ends.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::http::{Linger, Peer, Unread, answer};
use crate::listen::{Accepted, Listener};
use crate::seldom::Seldom;

/// How long a connection may take to send the head of a request, and may stay silent between two. Proxies keep idle
/// connections for 60 s; a hub that closed them at the same moment would lose requests that are just sent.
const HEAD_READ_TIME: Duration = Duration::from_secs(75);
/// How much of a request's head is read. Cookies of other programs on the same host can take some of it.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much the kernel holds that is not sent yet. What stands there can no longer be replaced by something newer.
const UNSENT_BYTES_MAX: u32 = 32 << 10;
/// The wait after the machine had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What connections are served with.
#[derive(Clone)]
pub(super) struct Connections {
    router: Router,
    http1: http1::Builder,
    tracker: TaskTracker,
    /// Turns true when they are to end.
    closing: watch::Receiver<bool>,
}

impl Connections {
    pub(super) fn new(router: Router, tracker: TaskTracker, closing: watch::Receiver<bool>) -> Connections {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(HEAD_READ_TIME).max_buf_size(HEAD_BYTES_MAX);
        Connections { router, http1, tracker, closing }
    }

    /// Accepts connections, `connections_max` at a time, until it is dropped; more wait in the listener's backlog.
    pub(super) async fn accept(self, listener: Listener, connections_max: usize) {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        loop {
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok(Accepted::Tcp(stream, peer)) => {
                    tune(&stream);
                    self.begin(stream, Some(peer.ip()), permit);
                }
                Ok(Accepted::Unix(stream)) => {
                    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(UNSENT_BYTES_MAX as usize);
                    self.begin(stream, None, permit);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    static REFUSED: Seldom = Seldom::new();
                    if let Some(unsaid) = REFUSED.happened() {
                        tracing::warn!(%error, unsaid, "could not accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection in a future of its own.
    fn begin<S>(&self, stream: S, peer: Option<IpAddr>, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, unread) = (self.router.clone(), Unread::default());
        let stream = Linger::new(stream, unread.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            if let Some(address) = peer {
                request.extensions_mut().insert(Peer(address));
            }
            answer(router.clone(), request, unread.clone()).map(Ok::<_, Infallible>)
        });
        let connection = self.http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let end = http1::UpgradeableConnection::graceful_shutdown;
        let served = until_closed(connection, end, self.closing.clone());
        self.tracker.spawn(served.map(|()| drop(permit)));
    }
}

/// Serves until the other side has enough, or the hub ends: then `end` says so to the connection.
async fn until_closed<C: Future>(connection: C, end: fn(Pin<&mut C>), mut closing: watch::Receiver<bool>) {
    tokio::pin!(connection);
    let closing = async { drop(closing.wait_for(|closing| *closing).await) };
    tokio::select! {
        // How a connection ends is the client's affair.
        _ = connection.as_mut() => {}
        () = closing => {
            end(connection.as_mut());
            let _ = connection.await;
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    // A connection that cannot be tuned works nevertheless.
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    // A peer that vanished without a word is noticed where nothing else would.
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    let _ = socket.set_tcp_keepalive(&keepalive);
}
