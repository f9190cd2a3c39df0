//! Connections: accepted up to a bound, perhaps put into TLS, served, and ended when the hub ends.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::tls::{HTTP2, Tls};
use crate::http::{AdminDoor, Linger, Peer, TrustedProxies, Unread, answer};
use crate::listen::{Accepted, Listener};
use crate::seldom::Seldom;

/// How long a connection may take to send the head of a request, and may stay silent between two. Proxies keep idle
/// connections for 60 s; a hub that closed them at the same moment would lose requests that are just sent.
const HEAD_READ_TIME: Duration = Duration::from_secs(75);
/// How much of a request's head is read. Cookies of other programs on the same host can take some of it.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much the kernel holds that is not sent yet. What stands there can no longer be replaced by something newer.
const UNSENT_BYTES_MAX: u32 = 32 << 10;
/// The most requests at once on a connection of HTTP/2. One that is reset makes room for another only as far as the `h2` crate
/// lets it: 20 that were reset before they were looked at end the connection (rapid reset, CVE-2023-44487), and so do floods of
/// `CONTINUATION`.
const STREAMS_MAX: u32 = 128;
/// How much of bodies such a connection may send that no route has asked for yet.
const UNREAD_BYTES_MAX: u32 = 512 << 10;
/// How often such a connection is pinged, and how long it may take to answer: its peer may be gone without a word.
const PING_EVERY: Duration = Duration::from_secs(25);
const PONG_TIME: Duration = Duration::from_secs(25);
/// The wait after the machine had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What stands between connections and the hub.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) router: Router,
    pub(super) tls: Option<Tls>,
    pub(super) proxies: Arc<TrustedProxies>,
    /// Whoever comes this way may do everything.
    pub(super) is_admin: bool,
}

impl Front {
    /// Answers a request that came by a connection from `peer`.
    fn answer(
        &self,
        peer: Option<IpAddr>,
        mut request: hyper::Request<Incoming>,
        unread: Unread,
    ) -> impl Future<Output = Response> + use<> {
        if self.is_admin {
            request.extensions_mut().insert(AdminDoor);
        } else if let Some(address) = self.proxies.client(peer, request.headers()) {
            request.extensions_mut().insert(Peer(address));
        }
        answer(self.router.clone(), request, unread)
    }
}

/// What connections are served with.
#[derive(Clone)]
pub(super) struct Connections {
    front: Front,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tracker: TaskTracker,
    /// Turns true when they are to end.
    closing: watch::Receiver<bool>,
}

impl Connections {
    pub(super) fn new(front: Front, tracker: TaskTracker, closing: watch::Receiver<bool>) -> Connections {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(HEAD_READ_TIME).max_buf_size(HEAD_BYTES_MAX);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(UNREAD_BYTES_MAX)
            .initial_connection_window_size(UNREAD_BYTES_MAX)
            .max_send_buf_size(UNSENT_BYTES_MAX as usize)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_TIME);
        Connections { front, http1, http2, tracker, closing }
    }

    /// Accepts connections, `connections_max` at a time, until it is dropped; more wait in the listener's backlog.
    pub(super) async fn accept(self, listener: Listener, connections_max: usize) {
        let room = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        loop {
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok(Accepted::Tcp(stream, peer)) => {
                    tune(&stream);
                    match &self.front.tls {
                        None => drop(self.tracker.spawn(self.serve(stream, Some(peer.ip())).map(|()| drop(permit)))),
                        Some(tls) => {
                            let served = self.clone().shake_and_serve(tls.clone(), stream, peer.ip());
                            self.tracker.spawn(served.map(|()| drop(permit)));
                        }
                    }
                }
                Ok(Accepted::Unix(stream)) => {
                    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(UNSENT_BYTES_MAX as usize);
                    self.tracker.spawn(self.serve(stream, None).map(|()| drop(permit)));
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

    async fn shake_and_serve(mut self, tls: Tls, stream: TcpStream, peer: IpAddr) {
        let closing = async { drop(self.closing.wait_for(|closing| *closing).await) };
        let shaken = tokio::select! {
            shaken = tls.shake(stream) => shaken,
            () = closing => None,
        };
        match shaken {
            Some(stream) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => self.serve2(stream, peer).await,
            Some(stream) => self.serve(stream, Some(peer)).await,
            None => {}
        }
    }

    /// Serves a connection until it ends.
    fn serve<S>(&self, stream: S, peer: Option<IpAddr>) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (front, unread) = (self.front.clone(), Unread::default());
        let stream = Linger::new(stream, unread.clone());
        let service = service_fn(move |request| front.answer(peer, request, unread.clone()).map(Ok::<_, Infallible>));
        let connection = self.http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut closing = self.closing.clone();
        let enough = async move { drop(closing.wait_for(|closing| *closing).await) };
        until_closed(connection, http1::UpgradeableConnection::graceful_shutdown, enough)
    }

    /// The same by HTTP/2.
    async fn serve2<S>(self, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, mut quiet) = watch::channel(0);
        let requests = Arc::new(requests);
        let (front, unread) = (self.front, Unread::default());
        let stream = Linger::new(stream, unread.clone());
        let service = service_fn(move |request| {
            let open = OpenRequest::new(&requests);
            let answering = front.answer(Some(peer), request, unread.clone());
            answering.map(|answer| Ok::<_, Infallible>(answer.map(|body| OpenAnswer { body, _open: open })))
        });
        let connection = self.http2.serve_connection(TokioIo::new(stream), service);
        let mut closing = self.closing;
        let enough = async move {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => {}
                () = idle(&mut quiet) => {}
            }
        };
        until_closed(connection, http2::Connection::graceful_shutdown, enough).await;
    }
}

/// Resolves when no request was open for as long as a connection may be silent.
async fn idle(open: &mut watch::Receiver<usize>) {
    loop {
        if open.wait_for(|open| *open == 0).await.is_err() {
            return std::future::pending().await;
        }
        // Whatever came and went in between has changed it.
        if tokio::time::timeout(HEAD_READ_TIME, open.changed()).await.is_err() {
            return;
        }
    }
}

/// A request of a connection that has many, from its head to the end of its answer.
struct OpenRequest(Arc<watch::Sender<usize>>);

impl OpenRequest {
    fn new(all: &Arc<watch::Sender<usize>>) -> OpenRequest {
        all.send_modify(|open| *open += 1);
        OpenRequest(all.clone())
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// The body of an answer, which holds its request open.
struct OpenAnswer {
    body: Body,
    _open: OpenRequest,
}

impl HttpBody for OpenAnswer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves until the other side has enough, or this side has: then `end` says so to the connection.
async fn until_closed<C: Future>(connection: C, end: fn(Pin<&mut C>), enough: impl Future<Output = ()>) {
    tokio::pin!(connection);
    tokio::select! {
        // How a connection ends is the client's affair.
        _ = connection.as_mut() => {}
        () = enough => {
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
