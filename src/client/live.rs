//! The live stream on a real socket and a real clock: a [`Follower`] and the future that does what it asks for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::Message;

use super::{Action, Follower, LiveEvent, LiveStatus, SubId, Subscribe};
use crate::dial::{DialError, HubUrl, Issued, NoToken, Socket, Token};
use crate::wire::LIVE_PROTOCOL;

/// A goodbye that is not answered by then is left unsaid.
const CLOSE_MS_MAX: Duration = Duration::from_millis(500);

/// The live stream of a hub: a [`Stream`] of what is new.
///
/// It does nothing unless it is polled, so a reader that is slow lets the hub wait, and the hub's rules for slow clients
/// hold: progress conflates, transitions collapse, and the last record of each task always comes. The stream ends only
/// when the hub refuses it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use taskhub::client::{Client, LiveEvent, Subscribe, TaskEvent};
///
/// let mut live = Client::new("http://127.0.0.1:8080")?.live();
/// live.subscribe(Subscribe::default());
/// while let Some(event) = live.next().await {
///     if let LiveEvent::Of(_, TaskEvent::Progress { task }) = event {
///         println!("{}: {:?}", task.task_id, task.progress);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Live {
    follower: Follower,
    url: HubUrl,
    began: Instant,
    connection: Connection,
    token: Option<Token>,
    /// As it was said last.
    issued: Option<Issued>,
    fetching: Option<BoxFuture<'static, Result<Issued, NoToken>>>,
    /// Texts were given to the socket and not all of them have left.
    unflushed: bool,
    sleep: Pin<Box<Sleep>>,
    /// Told something since the socket was last read: the reader may have been away for long.
    told: bool,
}

enum Connection {
    Down,
    Dialling(BoxFuture<'static, Result<Socket, DialError>>),
    Up(Box<Socket>),
}

impl Live {
    pub(super) fn new(url: HubUrl, token: Option<Token>) -> Live {
        let mut follower = Follower::new(0, fastrand::f64);
        if let Some(token) = &token {
            follower.use_tokens(token.has_others());
        }
        let began = Instant::now();
        let sleep = Box::pin(tokio::time::sleep_until(began));
        Live {
            follower,
            url,
            began,
            connection: Connection::Down,
            token,
            issued: None,
            fetching: None,
            unflushed: false,
            sleep,
            told: false,
        }
    }

    /// Watches something more. At most 64 at a time.
    pub fn subscribe(&mut self, request: Subscribe) -> SubId {
        self.follower.subscribe(request)
    }

    /// Says another token, now and with each connection from now on. A [`Token`] that is fetched is renewed without this.
    pub fn refresh(&mut self, token: impl Into<Token>) {
        let token = token.into();
        self.follower.use_tokens(token.has_others());
        (self.token, self.issued) = (Some(token), None);
        match self.fetching {
            Some(_) => self.fetch(false),
            None => self.follower.renew_token(),
        }
    }

    fn fetch(&mut self, anew: bool) {
        let Some(token) = self.token.clone() else { return };
        let old = self.issued.clone().filter(|_| anew);
        self.fetching = Some(
            async move {
                match old {
                    Some(old) => token.instead_of(&old).await.map(|other| other.unwrap_or(old)),
                    None => token.get().await,
                }
            }
            .boxed(),
        );
    }

    /// Ready when the follower was told of a token, or that there is none.
    fn poll_token(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(fetching) = &mut self.fetching else { return Poll::Pending };
        let fetched = ready!(fetching.poll_unpin(cx));
        self.fetching = None;
        let now_ms = self.now_ms();
        match fetched {
            Ok(issued) => {
                let renew_in_ms = issued.renew_in().map(|after| after.as_millis() as u64);
                self.follower.token(now_ms, issued.text().to_owned(), renew_in_ms);
                self.issued = Some(issued);
            }
            Err(why) => self.follower.no_token(now_ms, &why.to_string()),
        }
        Poll::Ready(())
    }

    /// The next thing that is new; `None` once the hub has refused the connection. Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> Option<LiveEvent> {
        std::future::poll_fn(|cx| self.poll_next_unpin(cx)).await
    }

    /// Ends a subscription; nothing more is told of it.
    pub fn unsubscribe(&mut self, sub: SubId) {
        self.follower.unsubscribe(sub);
    }

    /// How the connection stands.
    pub fn status(&self) -> LiveStatus {
        self.follower.status()
    }

    /// The state behind the stream: pictures, and whether it is behind.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Says goodbye, so that the hub need not find out.
    pub async fn close(self) {
        if let Connection::Up(mut socket) = self.connection {
            let _ = tokio::time::timeout(CLOSE_MS_MAX, socket.close()).await;
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Does what the follower asks for, as far as the socket takes it.
    fn poll_actions(&mut self, cx: &mut Context<'_>) {
        loop {
            // A socket that is full keeps the next text waiting where it is.
            if let Connection::Up(socket) = &mut self.connection
                && socket.as_mut().poll_ready_unpin(cx).is_pending()
            {
                return;
            }
            let Some(action) = self.follower.step() else { break };
            match action {
                Action::Open => {
                    let url = self.url.clone();
                    self.connection =
                        Connection::Dialling(async move { url.dial("api/v1/ws", LIVE_PROTOCOL).await }.boxed());
                }
                Action::Close => self.connection = Connection::Down,
                Action::Token { anew } => self.fetch(anew),
                Action::Send(text) => {
                    // A socket that fails here says so when it is read.
                    if let Connection::Up(socket) = &mut self.connection {
                        self.unflushed |= Pin::new(socket.as_mut()).start_send(Message::text(text)).is_ok();
                    }
                }
            }
        }
        if self.unflushed
            && let Connection::Up(socket) = &mut self.connection
            && Pin::new(socket.as_mut()).poll_flush(cx).is_ready()
        {
            self.unflushed = false;
        }
    }

    /// One thing that happened outside. Ready when the follower was told of it.
    fn poll_world(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_token(cx).is_ready() {
            return Poll::Ready(());
        }
        let now_ms = self.now_ms();
        match &mut self.connection {
            Connection::Down => {}
            Connection::Dialling(dial) => {
                if let Poll::Ready(outcome) = dial.poll_unpin(cx) {
                    self.connection = Connection::Down;
                    match outcome {
                        Ok(socket) => self.connection = Connection::Up(Box::new(socket)),
                        Err(DialError::Unreachable(why)) => self.follower.lost(now_ms, None, &why),
                        Err(DialError::Refused(why)) => self.follower.refused(&why),
                    }
                    return Poll::Ready(());
                }
            }
            Connection::Up(socket) => {
                if let Poll::Ready(message) = socket.poll_next_unpin(cx) {
                    match message {
                        Some(Ok(Message::Text(text))) => self.follower.heard(now_ms, text.as_str()),
                        Some(Ok(Message::Close(frame))) => {
                            // Our half of the goodbye, as far as the socket takes it at once.
                            let _ = socket.poll_flush_unpin(cx);
                            let code = frame.as_ref().map(|frame| u16::from(frame.code));
                            let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                            self.follower.lost(now_ms, code, &reason);
                        }
                        Some(Ok(_)) => self.follower.heard_frame(now_ms),
                        Some(Err(why)) => self.follower.lost(now_ms, None, &why.to_string()),
                        None => self.follower.lost(now_ms, None, "the connection was cut"),
                    }
                    return Poll::Ready(());
                }
                // Nothing waits to be read: from here on silence is the hub's, not ours.
                if std::mem::take(&mut self.told) {
                    self.follower.awake(now_ms);
                }
            }
        }
        let Some(deadline_ms) = self.follower.deadline_ms() else { return Poll::Pending };
        let deadline = self.began + Duration::from_millis(deadline_ms);
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        ready!(self.sleep.as_mut().poll(cx));
        // The clock that woke us may be a hair ahead of the one we read.
        self.follower.tick(self.now_ms().max(deadline_ms));
        Poll::Ready(())
    }
}

impl Stream for Live {
    type Item = LiveEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LiveEvent>> {
        let live = self.get_mut();
        loop {
            live.poll_actions(cx);
            if let Some(event) = live.follower.event() {
                live.told = true;
                return Poll::Ready(Some(event));
            }
            if live.status() == LiveStatus::Refused {
                return Poll::Ready(None);
            }
            ready!(live.poll_world(cx));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    use super::*;
    use crate::client::{Client, ClientError, TaskEvent};

    async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "the shape of the callback is not ours")]
        let speak = |request: &Request, mut response: Response| {
            assert_eq!(request.headers()["sec-websocket-protocol"], LIVE_PROTOCOL);
            response.headers_mut().insert("sec-websocket-protocol", LIVE_PROTOCOL.parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, speak).await.unwrap();
        say(&mut socket, json!({"type": "hello", "epoch": "e1", "rev": 1, "ping_ms": 25_000})).await;
        socket
    }

    async fn say(socket: &mut WebSocketStream<TcpStream>, says: Value) {
        socket.send(Message::text(says.to_string())).await.unwrap();
    }

    async fn hear(socket: &mut WebSocketStream<TcpStream>) -> Value {
        let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("nothing is said") };
        serde_json::from_str(&text).unwrap()
    }

    /// A hub that cuts the line once: the follower's decisions are tried with the transcripts, the wires here.
    #[tokio::test]
    async fn a_cut_line_is_taken_up_at_the_mark() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut live = Client::new(&listener.local_addr().unwrap().to_string()).unwrap().live();
        let sub = live.subscribe(Subscribe::default());
        let hub = async {
            let mut socket = accept(&listener).await;
            let asked = hear(&mut socket).await;
            assert_eq!(asked, json!({"op": "subscribe", "id": 1, "sub": "s1", "filter": {}}));
            say(&mut socket, json!({"type": "subscribed", "sub": "s1", "mode": "snapshot", "rev": 7})).await;
            say(&mut socket, json!({"type": "snapshot", "sub": "s1", "tasks": [], "more": false})).await;
            say(&mut socket, json!({"type": "mark", "rev": 7})).await;
            drop(socket);
            let mut socket = accept(&listener).await;
            let asked = hear(&mut socket).await;
            assert_eq!(asked["since"], json!({"epoch": "e1", "rev": 7}));
            say(&mut socket, json!({"type": "subscribed", "sub": "s1", "mode": "resumed", "rev": 7})).await;
            say(&mut socket, json!({"type": "mark", "rev": 8})).await;
            let _ = socket.close(Some(closing(4501))).await;
            while let Some(Ok(_)) = socket.next().await {}
        };
        let client = async {
            let mut told = Vec::new();
            while let Some(event) = live.next().await {
                told.push(match event {
                    LiveEvent::Status { status, .. } => format!("{status:?}"),
                    LiveEvent::Of(of, TaskEvent::Snapshot { .. }) if of == sub => "Snapshot".into(),
                    LiveEvent::Of(of, TaskEvent::Ended { code, .. }) if of == sub => format!("Ended {code}"),
                    other => panic!("{other:?}"),
                });
            }
            told
        };
        let both = async { tokio::join!(hub, client) };
        let ((), told) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it comes to an end");
        assert_eq!(told, ["Snapshot", "Live", "Offline", "Resuming", "Live", "Refused", "Ended refused"]);
    }

    /// Who is calling is said before anything is asked, and said anew after it expired.
    #[tokio::test]
    async fn a_token_is_said_first_and_fetched_anew_when_it_expired() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let calls = std::sync::atomic::AtomicU64::new(0);
        let token = Token::fetched(move || {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            async move { if call < 3 { Ok(format!("t{call}")) } else { Err("there are no more") } }
        });
        let mut live = Client::new(&listener.local_addr().unwrap().to_string()).unwrap().with_token(token).live();
        live.subscribe(Subscribe::default());
        let hub = async {
            for (token, code) in [("t1", 4004), ("t2", 4501)] {
                let mut socket = accept(&listener).await;
                let said = hear(&mut socket).await;
                assert_eq!((&said["op"], &said["token"]), (&json!("hello"), &json!(token)));
                say(&mut socket, json!({"type": "hello", "id": said["id"], "epoch": "e1", "rev": 1})).await;
                assert_eq!(hear(&mut socket).await["op"], "subscribe");
                let _ = socket.close(Some(closing(code))).await;
                while let Some(Ok(_)) = socket.next().await {}
            }
            // No other can be had: it comes back until there is one.
            accept(&listener).await.next().await
        };
        let client = async {
            loop {
                if let LiveEvent::Status { status: LiveStatus::Offline, reason: Some(reason), .. } = live.next().await?
                    && reason.contains("no token could be fetched: there are no more")
                {
                    return Some(());
                }
            }
        };
        let both = async { tokio::join!(hub, client) };
        let (_, told) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it comes to an end");
        assert_eq!(told, Some(()));
    }

    fn closing(code: u16) -> tokio_tungstenite::tungstenite::protocol::CloseFrame {
        tokio_tungstenite::tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() }
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_a_no() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&listener.local_addr().unwrap().to_string()).unwrap();
        drop(listener);
        assert!(matches!(client.stats().await, Err(ClientError::Unreachable { .. })));
        assert!(matches!(Client::new("ftp://hub"), Err(ClientError::Address(_))));
    }
}
