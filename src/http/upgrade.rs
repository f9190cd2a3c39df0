//! From a request to a socket of our own: the WebSocket handshake (RFC 6455, section 4.2), and the connection taken back
//! from the HTTP server.
//!
//! A plain connection, by TCP or a Unix socket, is taken as it is, so that the feed can write to it. Whatever else carried the
//! request (TLS, a wrapper that somebody put around the stream) is joined to one end of a pair of sockets of this process; the other end
//! is then served like any other connection, and costs a copy.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::exchange::Linger;
use crate::feed::Pipe;
use crate::wire::Problem;

/// A request that may become a WebSocket.
pub(super) struct Upgrade {
    on_upgrade: OnUpgrade,
    accept: HeaderValue,
    /// What was offered, if anything.
    protocols: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Upgrade, Problem> {
        let wrong = |why: &str| Problem::wrong("Upgrade", &format!("must be a WebSocket handshake: {why}"));
        let names = |name, word| {
            let values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
        };
        if parts.method != Method::GET {
            return Err(wrong("the method is not GET"));
        }
        if !names(header::CONNECTION, "upgrade") || !names(header::UPGRADE, "websocket") {
            return Err(wrong("Connection: upgrade and Upgrade: websocket are missing"));
        }
        if parts.headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(wrong("Sec-WebSocket-Version is not 13"));
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| wrong("Sec-WebSocket-Key is missing"))?;
        let accept = derive_accept_key(key.as_bytes()).parse().expect("base64 is a header value");
        let protocols = protocols(&parts.headers);
        let on_upgrade = parts.extensions.remove().ok_or_else(|| wrong("this connection cannot be upgraded"))?;
        Ok(Upgrade { on_upgrade, accept, protocols })
    }
}

fn protocols(headers: &HeaderMap) -> Option<String> {
    let offered: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().flat_map(|v| v.to_str()).collect();
    (!offered.is_empty()).then(|| offered.join(","))
}

impl Upgrade {
    /// Whether the other side offers `protocol`, or leaves the choice to us.
    pub(super) fn allows(&self, protocol: &str) -> bool {
        self.protocols.as_ref().is_none_or(|offered| offers(offered, protocol))
    }

    /// Answers the handshake, and runs `serve` with the socket and what it brought already.
    pub(super) fn accept<F>(
        self,
        protocol: &'static str,
        serve: impl FnOnce(Arc<Wire>, Bytes) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let is_known = self.allows(protocol);
        let Upgrade { on_upgrade, accept, protocols } = self;
        tokio::spawn(async move {
            // Whoever gave up before the answer arrived has nobody to be told.
            let Ok((wire, early)) = on_upgrade.await.map_err(io::Error::other).and_then(Wire::take) else { return };
            tokio::spawn(serve(Arc::new(wire), early));
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        // A browser that offers protocols and hears of none breaks off, and never learns why it was refused.
        let offered = protocols.as_ref().and_then(|offered| offered.split(',').next()).unwrap_or_default().trim();
        let chosen = if is_known { protocol } else { offered };
        if let (Some(_), Ok(chosen)) = (&protocols, HeaderValue::from_str(chosen)) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        response
    }
}

fn offers(offered: &str, protocol: &str) -> bool {
    offered.split(',').any(|name| name.trim() == protocol)
}

/// The connection of a socket.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// With what ends the copying when it is dropped.
    Joined(UnixStream, #[expect(dead_code, reason = "only to be dropped")] oneshot::Sender<()>),
}

impl Wire {
    /// Takes the connection from the HTTP server, with what it has read of what comes after the handshake.
    fn take(upgraded: Upgraded) -> io::Result<(Wire, Bytes)> {
        // Even an empty buffer of the server's may hold on to a large one.
        let plain = |wire, early: Bytes| Ok((wire, Bytes::copy_from_slice(&early)));
        let upgraded = match upgraded.downcast::<TokioIo<Linger<TcpStream>>>() {
            Ok(parts) => return plain(Wire::Tcp(parts.io.into_inner().into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        let upgraded = match upgraded.downcast::<TokioIo<Linger<UnixStream>>>() {
            Ok(parts) => return plain(Wire::Unix(parts.io.into_inner().into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => plain(Wire::Tcp(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => Wire::join(upgraded),
        }
    }

    fn join(upgraded: Upgraded) -> io::Result<(Wire, Bytes)> {
        /// What stands in between can no longer be replaced by something newer.
        const BETWEEN_BYTES: usize = 16 << 10;
        /// How long the other side may take for our last words.
        const LAST_WORDS: Duration = Duration::from_secs(2);
        let (ours, mut theirs) = UnixStream::pair()?;
        let _ = SockRef::from(&ours).set_send_buffer_size(BETWEEN_BYTES);
        let (held, dropped) = oneshot::channel();
        let mut carried = TokioIo::new(upgraded);
        tokio::spawn(async move {
            let ended = async {
                let _ = dropped.await;
                tokio::time::sleep(LAST_WORDS).await;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut carried, &mut theirs) => {}
                () = ended => {}
            }
        });
        Ok((Wire::Joined(ours, held), Bytes::new()))
    }

    pub(super) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.try_read(bytes),
            Wire::Unix(stream) | Wire::Joined(stream, _) => stream.try_read(bytes),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.try_write(bytes),
            Wire::Unix(stream) | Wire::Joined(stream, _) => stream.try_write(bytes),
        }
    }

    /// Says that nothing more follows.
    pub(super) fn shut(&self) {
        let _ = match self {
            Wire::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Wire::Unix(stream) | Wire::Joined(stream, _) => SockRef::from(stream).shutdown(Shutdown::Write),
        };
    }

    /// Ready when there may be something to read. For one future only.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(stream) => stream.poll_read_ready(context),
            Wire::Unix(stream) | Wire::Joined(stream, _) => stream.poll_read_ready(context),
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.writable().await,
            Wire::Unix(stream) | Wire::Joined(stream, _) => stream.writable().await,
        }
    }
}

impl Pipe for Wire {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Past the runtime's own note of whether there is room: one more place in memory to look at for each of
            // thousands of clients. Only the second try lets it know that there is none.
            Wire::Tcp(stream) => match SockRef::from(stream).send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.try_write(bytes),
                taken => taken,
            },
            Wire::Unix(stream) | Wire::Joined(stream, _) => stream.try_write(bytes),
        }
    }
}
