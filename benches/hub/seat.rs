//! One watcher of a [`crowd`](crate::crowd), and what all of them together have seen.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, timeout_at};

use crate::Outcome;
use crate::connection::{authorization, find};
use crate::frames::{Frames, MASKED_PONG, Seen, number_after, push_masked_text};
use crate::roles::now_ns;

/// What has not come by then will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all watchers together have seen.
#[derive(Default)]
pub struct Tally {
    /// Watchers that are past what comes first.
    pub live: Cell<usize>,
    /// The highest that any line told.
    pub rev: Cell<u64>,
    pub transitions: Cell<u64>,
    /// Messages that held a transition.
    pub messages: Cell<u64>,
    pub reads: Cell<u64>,
    pub lags: Cell<u64>,
    pub resumed: Cell<u64>,
    pub resets: Cell<u64>,
    /// Names the history; told in the hub's first line.
    epoch: RefCell<String>,
    pub arrivals: RefCell<Arrivals>,
    /// Why a watcher ended.
    pub broken: RefCell<Option<String>>,
    /// Somebody is live, or an event is with everybody.
    pub changed: Notify,
}

/// Who has which event.
#[derive(Default)]
pub struct Arrivals {
    pub from_rev: u64,
    pub receivers: u32,
    pub counts: Vec<u32>,
    /// All events before this one are with everybody.
    pub whole: usize,
    pub timed: bool,
    /// Event and time of each arrival, if `timed`.
    pub times: Vec<(usize, u64)>,
}

impl Tally {
    pub async fn until(&self, what: &str, done: impl Fn(&Tally) -> bool) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(broken) = &*self.broken.borrow() {
                return Err(broken.clone().into());
            }
            if done(self) {
                return Ok(());
            }
            if timeout_at(deadline, self.changed.notified()).await.is_err() {
                return Err(format!("waited in vain for {what}; {} lag lines came", self.lags.get()).into());
            }
        }
    }

    fn name_history(&self, hello: &[u8]) {
        let key = br#""epoch":""#;
        if let Some(at) = find(hello, key)
            && self.epoch.borrow().is_empty()
        {
            let epoch = hello[at + key.len()..].iter().take_while(|&&byte| byte != b'"');
            self.epoch.replace(epoch.map(|&byte| char::from(byte)).collect());
        }
    }

    fn arrived(&self, rev: u64, at: u64) {
        let mut arrivals = self.arrivals.borrow_mut();
        let Arrivals { from_rev, receivers, counts, whole, timed, times } = &mut *arrivals;
        let Some(event) = rev.checked_sub(*from_rev).map(|event| event as usize) else { return };
        let Some(count) = counts.get_mut(event) else { return };
        *count += 1;
        if *timed {
            times.push((event, at));
        }
        let was = *whole;
        while counts.get(*whole) == Some(receivers) {
            *whole += 1;
        }
        if *whole > was {
            self.changed.notify_waiters();
        }
    }
}

/// Adds one.
fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Who watches what.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Watcher {
    pub filter: String,
    /// Shown when it connects; empty for none.
    pub token: String,
}

impl From<&str> for Watcher {
    fn from(filter: &str) -> Watcher {
        Watcher { filter: filter.to_owned(), token: String::new() }
    }
}

/// One watcher, where it sits.
#[derive(Default)]
pub struct Seat {
    watcher: Watcher,
    /// Its place among those who are joining, until it is live.
    entered: RefCell<Option<OwnedSemaphorePermit>>,
    subscribed: Cell<bool>,
    live: Cell<bool>,
    /// Up to where it has been told everything: what it resumes from.
    mark: Cell<Option<u64>>,
    /// Of the last transition.
    rev: Cell<u64>,
    /// Whether the message that has begun holds a transition.
    told: Cell<bool>,
    /// Whether it stops reading once it is live, until `go` is told.
    stops: Cell<bool>,
    go: Notify,
    watching: RefCell<Option<JoinHandle<()>>>,
}

impl Seat {
    pub fn new(watcher: Watcher) -> Rc<Seat> {
        Rc::new(Seat { watcher, ..Seat::default() })
    }

    /// One that takes nothing more once it is live.
    pub fn stopping(watcher: Watcher) -> Rc<Seat> {
        Rc::new(Seat { watcher, stops: Cell::new(true), ..Seat::default() })
    }

    /// Connects, subscribes or resumes, and watches from then on. `entered` goes when it is live.
    pub fn sit(
        self: &Rc<Seat>,
        address: SocketAddr,
        tally: &Rc<Tally>,
        buffer: &Rc<RefCell<Vec<u8>>>,
        entered: Option<OwnedSemaphorePermit>,
    ) {
        self.entered.replace(entered);
        self.subscribed.set(false);
        self.live.set(false);
        let (seat, tally, buffer) = (self.clone(), tally.clone(), buffer.clone());
        let watching = spawn_local(async move {
            if let Err(error) = seat.watch(address, &tally, &buffer).await {
                tally.broken.replace(Some(error.to_string()));
                tally.changed.notify_waiters();
            }
        });
        self.watching.replace(Some(watching));
    }

    /// Cuts its socket.
    pub async fn leave(&self) {
        if let Some(watching) = self.watching.take() {
            watching.abort();
            let _ = watching.await;
        }
    }

    /// Reads again.
    pub fn go_on(&self) {
        self.stops.set(false);
        self.go.notify_one();
    }

    /// Subscribes, and takes what comes. Returns only if it fails.
    async fn watch(&self, address: SocketAddr, tally: &Tally, buffer: &RefCell<Vec<u8>>) -> Outcome {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Leaving is a cut, after which nothing holds the port.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let upgrade = format!(
            "GET /api/v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: taskhub.v1\r\n{}\r\n",
            authorization(&self.watcher.token)
        );
        stream.write_all(upgrade.as_bytes()).await?;
        let mut read = Vec::new();
        let frames_from = loop {
            if let Some(at) = find(&read, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err(format!("no live socket: {}", String::from_utf8_lossy(&read)).into());
            }
        };
        let mut frame = Vec::new();
        push_masked_text(&mut frame, self.subscribe(tally).as_bytes());
        stream.write_all(&frame).await?;

        let mut frames = Frames::new();
        let mut pings = 0;
        frames.take(&read[frames_from..], |seen| self.see(seen, tally, now_ns(), &mut pings));
        drop(read);
        loop {
            if self.stops.get() && self.live.get() {
                self.go.notified().await;
            }
            let len = std::future::poll_fn(|cx| {
                let mut buffer = buffer.borrow_mut();
                let mut room = ReadBuf::new(&mut buffer);
                Pin::new(&mut stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            })
            .await?;
            if len == 0 {
                return Err("a watcher was cut".into());
            }
            count(&tally.reads);
            let now = if tally.arrivals.borrow().timed { now_ns() } else { 0 };
            // Nothing else runs between the read and this.
            frames.take(&buffer.borrow()[..len], |seen| self.see(seen, tally, now, &mut pings));
            while pings > 0 {
                stream.write_all(&MASKED_PONG).await?;
                pings -= 1;
            }
        }
    }

    fn subscribe(&self, tally: &Tally) -> String {
        let filter = &self.watcher.filter;
        let from = match self.mark.get() {
            None => r#""snapshot":{"limit":1}"#.to_owned(),
            Some(rev) => format!(r#""since":{{"epoch":"{}","rev":{rev}}}"#, tally.epoch.borrow()),
        };
        format!(r#"{{"op":"subscribe","id":1,"sub":"a","filter":{filter},{from}}}"#)
    }

    fn see(&self, seen: Seen<'_>, tally: &Tally, now: u64, pings: &mut usize) {
        match seen {
            Seen::Line(line) => self.see_line(line, tally, now),
            Seen::Message if self.told.take() => count(&tally.messages),
            Seen::Message => {}
            Seen::Ping => *pings += 1,
            Seen::Close => drop(tally.broken.replace(Some("a watcher was closed".into()))),
        }
    }

    fn see_line(&self, line: &[u8], tally: &Tally, now: u64) {
        let kind = line.strip_prefix(br#"{"type":""#).unwrap_or_default();
        let rev = number_after(line, br#""rev":"#).unwrap_or_default();
        tally.rev.set(tally.rev.get().max(rev));
        match kind {
            [b't', b'a', b's', b'k', b'"', ..] if rev > self.rev.get() => {
                self.rev.set(rev);
                self.told.set(true);
                count(&tally.transitions);
                tally.arrived(rev, now);
            }
            [b's', b'u', b'b', ..] => {
                self.subscribed.set(true);
                if find(line, br#""mode":"resumed""#).is_some() {
                    count(&tally.resumed);
                }
            }
            [b'm', b'a', b'r', b'k', ..] if self.subscribed.get() => {
                self.mark.set(Some(rev));
                if !self.live.replace(true) {
                    tally.live.set(tally.live.get() + 1);
                    self.entered.take();
                    tally.changed.notify_waiters();
                }
            }
            [b'h', b'e', b'l', b'l', b'o', ..] => tally.name_history(line),
            [b'l', b'a', b'g', ..] => count(&tally.lags),
            [b'r', b'e', b's', b'e', b't', ..] => count(&tally.resets),
            _ => {}
        }
    }
}
