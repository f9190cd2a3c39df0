//! One request and its answer, and what becomes of the connection between them and the next.
//!
//! An answer may be ready before its request was read: the path leads nowhere, the body is not declared as JSON, too many
//! bodies are arriving. On a connection that is used again the rest of the request stands before the next one, and a
//! connection that is closed while bytes arrive is reset, so that the client gets no answer but a broken pipe. So every
//! answer goes one of two ways, decided in this one place, whatever part of the hub gave it:
//!
//! * What is left is little and comes soon: it is read and thrown away, and the connection stays.
//! * It is much, or slow, or held back until the hub says `100 Continue`, which it will not: the answer says
//!   `Connection: close`, and the connection is closed with patience: its [`Linger`] goes on reading after the answer was
//!   sent, within bounds, until the client has sent what it wanted to and reads. By HTTP/2, where each request is a stream of
//!   its own, the answer goes at once and the rest is read after it, within the same bounds: many clients take a stream
//!   that is reset while they send for one without an answer. Only beyond them the stream is reset; the connection stays.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Version, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt as _;

/// The most that is read of a request which is answered already, to keep its connection: more than most
/// bodies that are too large.
const REST_BYTES_MAX: u64 = 16 << 20;
/// How long that may take. The answer waits for it.
const REST_TIME: Duration = Duration::from_secs(2);
/// The most that is still read of a connection after its last answer: twice the largest batch.
const LINGER_BYTES_MAX: usize = 128 << 20;
/// How long that may take. The client has its answer by then, or does not want it.
const LINGER_TIME: Duration = Duration::from_secs(10);

/// Whether a connection is being closed with something of a request unread.
#[derive(Clone, Default)]
pub struct Unread(Arc<AtomicBool>);

/// Answers a request.
pub async fn answer(router: Router, request: Request<Incoming>, unread: Unread) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return call(router, Request::from_parts(parts, Body::empty())).await;
    }
    let waits = parts.headers.get(header::EXPECT).is_some();
    let is_shared = parts.version == Version::HTTP_2;
    let back = Arc::new(Mutex::new(None));
    let lent = Lent { body: Some(body), begun: false, back: back.clone() };
    let mut response = call(router, Request::from_parts(parts, Body::new(lent))).await;
    let rest = back.lock().take();
    match rest {
        None => {}
        Some(Rest { body, .. }) if is_shared => drop(tokio::spawn(discard(body, LINGER_BYTES_MAX as u64, LINGER_TIME))),
        Some(Rest { body, begun }) => {
            let is_much = body.size_hint().lower() > REST_BYTES_MAX;
            if (waits && !begun) || is_much || !discard(body, REST_BYTES_MAX, REST_TIME).await {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                unread.0.store(true, Ordering::Relaxed);
            }
        }
    }
    response
}

async fn call(router: Router, request: Request<Body>) -> Response {
    let Ok(response) = router.oneshot(request).await;
    response
}

/// Reads what is left of a request; `false` where that is too much, or too slow.
async fn discard(mut body: Incoming, bytes_max: u64, time: Duration) -> bool {
    let all = async {
        let mut read = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return false };
            read += frame.data_ref().map_or(0, Bytes::len) as u64;
            if read > bytes_max {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(time, all).await.unwrap_or(false)
}

/// The body of a request while a route has it. Whatever the route leaves of it comes back.
struct Lent {
    body: Option<Incoming>,
    begun: bool,
    back: Arc<Mutex<Option<Rest>>>,
}

struct Rest {
    body: Incoming,
    /// Whether any of it was asked for. Only then a client that expects a `100 Continue` has heard it.
    begun: bool,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.back.lock() = Some(Rest { body, begun: self.begun });
        }
    }
}

/// A connection that is closed with patience where something that was sent is unread: what still comes is thrown away
/// until the other side has closed too, or the bounds are met. One that is idle is closed at once.
pub struct Linger<S> {
    stream: S,
    unread: Unread,
    /// Once our side is closed: how much came since, and until when more may.
    closing: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Linger<S> {
    /// The connection; `unread` is said when its last answer leaves something unread.
    pub fn new(stream: S, unread: Unread) -> Linger<S> {
        Linger { stream, unread, closing: None }
    }

    /// The connection as it is.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Throws away what is there. Ready when nothing more is to be waited for.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (read, time) = self.closing.as_mut().expect("only once our side is closed");
        loop {
            let mut bytes = [MaybeUninit::uninit(); 16 << 10];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut bytes) {
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => *read += bytes.filled().len(),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending if *read == 0 && !self.unread.0.load(Ordering::Relaxed) => return Poll::Ready(()),
                Poll::Pending => return time.as_mut().poll(cx),
            }
            if *read > LINGER_BYTES_MAX || time.deadline() <= Instant::now() {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Linger<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.closing = Some((0, Box::pin(tokio::time::sleep_until(Instant::now() + LINGER_TIME))));
        }
        self.poll_discard(cx).map(Ok)
    }
}
