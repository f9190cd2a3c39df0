//! A WebSocket to a hub, spoken by a client that is not the crate's own.

use std::collections::VecDeque;
use std::fmt::Display;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{TestHub, in_time};

/// A socket that reads one JSON object at a time, however many a message holds.
pub struct TestSocket {
    stream: WebSocketStream<TcpStream>,
    waiting: VecDeque<Value>,
    /// The subprotocol that was agreed on.
    pub protocol: Option<String>,
}

impl TestSocket {
    pub async fn open(hub: &TestHub, path: &str, protocols: &[&str]) -> TestSocket {
        TestSocket::dial(hub.address(), path, protocols).await
    }

    /// A socket at `address`, `HOST:PORT`.
    pub async fn dial(address: &str, path: &str, protocols: &[&str]) -> TestSocket {
        TestSocket::dial_with(address, path, protocols, &format!("Host: {address}")).await
    }

    /// The same with these headers, `Host` among them.
    pub async fn dial_with(address: &str, path: &str, protocols: &[&str], heads: &str) -> TestSocket {
        let mut tcp = TcpStream::connect(address).await.expect("the hub is there");
        let offered = match protocols {
            [] => String::new(),
            some => format!("Sec-WebSocket-Protocol: {}\r\n", some.join(", ")),
        };
        // By hand, because libraries refuse an answer that takes up none of the protocols offered.
        let head = format!(
            "GET {path} HTTP/1.1\r\n{heads}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offered}\r\n"
        );
        tcp.write_all(head.as_bytes()).await.expect("the hub reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(in_time("the handshake", tcp.read_u8()).await.expect("an answer to the handshake"));
        }
        let answer = String::from_utf8(answer).expect("a head is text");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let protocol = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: ").map(str::to_owned));
        let stream = WebSocketStream::from_raw_socket(tcp, Role::Client, None).await;
        TestSocket { stream, waiting: VecDeque::new(), protocol }
    }

    pub async fn say(&mut self, words: Value) {
        self.say_text(words.to_string()).await;
    }

    pub async fn say_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.stream.send(message).await.expect("the socket takes a message");
    }

    /// The next object, or the code the socket was closed with (1006: without a word).
    pub async fn next_or_code(&mut self) -> Result<Value, u16> {
        self.next_or_end().await.map_err(|(code, _)| code)
    }

    /// The next object, or the code and the reason of the end.
    async fn next_or_end(&mut self) -> Result<Value, (u16, String)> {
        let unsaid = |code| Err((code, String::new()));
        loop {
            if let Some(value) = self.waiting.pop_front() {
                return Ok(value);
            }
            match in_time("the hub says something", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let values = serde_json::Deserializer::from_str(&text).into_iter();
                    self.waiting.extend(values.map(|value| value.expect("the hub says JSON")));
                }
                Some(Ok(Message::Close(Some(frame)))) => return Err((frame.code.into(), frame.reason.to_string())),
                Some(Ok(Message::Close(None))) => return unsaid(1005),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return unsaid(1006),
            }
        }
    }

    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        async move {
            self.next_or_code().await.unwrap_or_else(|code| panic!("{place}: the hub closed the socket with {code}"))
        }
    }

    /// The next object, which must be of this type.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        async move {
            let value = self.next().await;
            assert_eq!(value["type"], kind, "{place}: {value}");
            value
        }
    }

    /// The next object that `wanted` holds of; those before it are passed over.
    pub async fn until(&mut self, what: impl Display, wanted: impl Fn(&Value) -> bool) -> Value {
        self.through(what, wanted).await.pop().expect("the one that was wanted")
    }

    /// Everything up to and with the first object that `wanted` holds of.
    pub async fn through(&mut self, what: impl Display, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        let read = async {
            loop {
                match self.next_or_code().await {
                    Ok(value) => {
                        let found = wanted(&value);
                        seen.push(value);
                        if found {
                            return Ok(());
                        }
                    }
                    Err(code) => return Err(code),
                }
            }
        };
        match tokio::time::timeout(super::PATIENCE, read).await {
            Ok(Ok(())) => seen,
            Ok(Err(code)) => panic!("closed with {code} before: {what}; there was {seen:#?}"),
            Err(_) => panic!("waited in vain: {what}; there was {seen:#?}"),
        }
    }

    /// The next object of this type; marks, progress and whatever else is passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        self.until(kind, |value| value["type"] == kind).await
    }

    /// The next object of one of two types.
    pub async fn next_of_either(&mut self, one: &str, two: &str) -> Value {
        self.until(format_args!("{one} or {two}"), |value| value["type"] == one || value["type"] == two).await
    }

    /// The next event of this name.
    pub async fn event(&mut self, event: &str) -> Value {
        self.until(event, |value| value["event"] == event).await
    }

    /// The code the hub closes with, whatever it says before.
    pub async fn close_code(&mut self) -> u16 {
        self.closed().await.0
    }

    /// The same with the reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(end) = self.next_or_end().await {
                return end;
            }
        }
    }

    /// Whether something was said already that was not read.
    pub fn has_unread(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Cuts the connection, without a word.
    pub fn cut(self) {
        drop(self.stream);
    }

    /// Closes the connection as WebSockets do.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}
