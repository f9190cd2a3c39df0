//! A WebSocket as a measuring client needs it: it speaks text and reads what comes.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::Outcome;

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub async fn open(address: SocketAddr, path: &str, protocol: &'static str) -> Outcome<Socket> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Socket(tokio_tungstenite::client_async(request, stream).await?.0))
    }

    pub async fn send(&mut self, text: &str) -> Outcome {
        Ok(self.0.send(Message::text(text)).await?)
    }

    /// Puts a message with those that leave at the next [`flush`](Self::flush).
    pub async fn feed(&mut self, text: String) -> Outcome {
        Ok(self.0.feed(Message::text(text)).await?)
    }

    pub async fn flush(&mut self) -> Outcome {
        Ok(self.0.flush().await?)
    }

    /// The next text.
    pub async fn next(&mut self) -> Outcome<Utf8Bytes> {
        loop {
            match self.0.next().await.ok_or("the socket ended")?? {
                Message::Text(text) => return Ok(text),
                Message::Close(frame) => return Err(format!("the hub closed the socket: {frame:?}").into()),
                _ => {}
            }
        }
    }

    /// Reads until a line holds all of these.
    pub async fn until(&mut self, parts: &[&str]) -> Outcome {
        loop {
            let text = self.next().await?;
            if text.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                return Ok(());
            }
        }
    }

    /// Waits until the other side has read everything said so far: it answers a ping in its turn.
    pub async fn until_heard(&mut self) -> Outcome {
        self.0.send(Message::Ping("all of it".into())).await?;
        loop {
            match self.0.next().await.ok_or("the socket ended")?? {
                Message::Pong(_) => return Ok(()),
                Message::Close(frame) => return Err(format!("the hub closed the socket: {frame:?}").into()),
                _ => {}
            }
        }
    }
}
