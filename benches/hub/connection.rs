//! HTTP/1.1 as thin as it can be, so that the hub is what is measured: one connection, one request at a time, answers of a
//! known length.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;

pub struct Connection {
    stream: TcpStream,
    /// The header that says who calls, or nothing.
    caller: String,
    out: Vec<u8>,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Outcome<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, caller: String::new(), out: Vec::new(), read: Vec::with_capacity(16 << 10) })
    }

    /// One that shows this token with each request; with an empty one, none.
    pub async fn open_as(address: SocketAddr, token: &str) -> Outcome<Connection> {
        let mut connection = Connection::open(address).await?;
        connection.show(token);
        Ok(connection)
    }

    /// Shows this token from now on.
    pub fn show(&mut self, token: &str) {
        self.caller = authorization(token);
    }

    pub async fn get(&mut self, path: &str) -> Outcome<&[u8]> {
        self.call("GET", path, b"", 200).await
    }

    /// Submits, and is content with nothing but 201.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Outcome<&[u8]> {
        self.call("POST", path, body, 201).await
    }

    /// Changes what is there, and is content with nothing but 200.
    pub async fn change(&mut self, path: &str, body: &[u8]) -> Outcome<&[u8]> {
        self.call("POST", path, body, 200).await
    }

    /// Sets what was not there, and is content with nothing but 201.
    pub async fn put(&mut self, path: &str, body: &[u8]) -> Outcome<&[u8]> {
        self.call("PUT", path, body, 201).await
    }

    /// The status that a look at this is answered with, whatever that is.
    pub async fn try_get(&mut self, path: &str) -> Outcome<u16> {
        Ok(self.exchange("GET", path, b"").await?.0)
    }

    /// The status that it is answered with, whatever that is.
    pub async fn try_post(&mut self, path: &str, body: &[u8]) -> Outcome<u16> {
        Ok(self.exchange("POST", path, body).await?.0)
    }

    async fn call(&mut self, method: &str, path: &str, body: &[u8], expected: u16) -> Outcome<&[u8]> {
        let (status, body) = self.exchange(method, path, body).await?;
        if status != expected {
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(body)).into());
        }
        Ok(body)
    }

    async fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Outcome<(u16, &[u8])> {
        self.out.clear();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n",
            body.len(),
            self.caller
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;

        self.read.clear();
        let body_from = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the connection was cut".into());
            }
        };
        let head = std::str::from_utf8(&self.read[..body_from])?;
        let status: u16 = head.get(9..12).ok_or("no status")?.parse()?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no content-length")?;
        let whole = body_from + length.parse::<usize>()?;
        while self.read.len() < whole {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the connection was cut".into());
            }
        }
        Ok((status, &self.read[body_from..whole]))
    }
}

/// The line of a request's head that shows this token; nothing for an empty one.
pub fn authorization(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") }
}

/// Where `part` begins in `whole`.
pub fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

/// The last `task_id` in an answer.
pub fn last_task_id(body: &[u8]) -> Outcome<String> {
    let key = br#""task_id":""#;
    let at = body.windows(key.len()).rposition(|window| window == key).ok_or("no task_id")? + key.len();
    let id = body.get(at..at + 36).ok_or("a short task_id")?;
    Ok(String::from_utf8(id.to_vec())?)
}
