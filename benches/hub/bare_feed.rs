//! The yardstick of the live feed: a loop that sends what was framed beforehand to every socket there is, one write each.
//! No hub can tell an event for less than this system call.
//!
//! It answers the calls that a [`crowd`](crate::crowd) makes as a hub would, so that the same client, in the same way,
//! takes from both. One task submitted is one message a write; a batch of tasks is as many messages, each in a frame of its
//! own, joined in one write. Every message is a real event of the hub with another `rev`. The sockets are shared out among
//! threads, which send at the same time; the next submission is taken up when all of them are done. Nothing is stored,
//! nothing is looked up, and a socket that takes nothing holds up all others.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::TcpStream as Socket;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::connection::find;
use crate::crowd::raise_file_limit;
use crate::frames::push_text;
use crate::roles::say;

const REV: &str = r#""rev":"#;

struct Feed {
    threads: Vec<Thread>,
    /// How many sockets were shared out.
    sockets: usize,
    /// An event, before and after the number of its transition.
    before_rev: String,
    after_rev: String,
    rev: u64,
}

/// The other end of a thread that writes to a share of the sockets.
struct Thread {
    orders: Sender<Order>,
    done: Receiver<std::io::Result<()>>,
}

enum Order {
    Keep(Socket),
    Tell(Arc<[u8]>),
}

impl Thread {
    fn start() -> Thread {
        let ((orders, to_do), (say_done, done)) = (channel(), channel());
        std::thread::spawn(move || {
            let mut sockets = Vec::new();
            for order in to_do {
                match order {
                    Order::Keep(socket) => sockets.push(socket),
                    Order::Tell(frames) => {
                        let told = sockets.iter_mut().try_for_each(|socket| socket.write_all(&frames));
                        if say_done.send(told).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Thread { orders, done }
    }
}

impl Feed {
    /// Sends so many events, together. Returns when everyone has them.
    fn tell(&mut self, events: usize) -> Outcome {
        let mut frames = Vec::new();
        for _ in 0..events {
            self.rev += 1;
            push_text(&mut frames, format!("{}{}{}", self.before_rev, self.rev, self.after_rev).as_bytes());
        }
        let frames: Arc<[u8]> = frames.into();
        for thread in &self.threads {
            thread.orders.send(Order::Tell(frames.clone()))?;
        }
        for thread in &self.threads {
            thread.done.recv()??;
        }
        Ok(())
    }

    fn keep(&mut self, socket: Socket) -> Outcome {
        let thread = &self.threads[self.sockets % self.threads.len()];
        self.sockets += 1;
        Ok(thread.orders.send(Order::Keep(socket))?)
    }
}

/// The role `bare-feed`: tells a line like `event` to all who connected, for each task that is submitted. So many threads
/// write to the sockets.
pub async fn bare_feed(event: &str, threads: usize) -> Outcome {
    raise_file_limit()?;
    let (before, after) = event.split_once(REV).ok_or("an event without rev")?;
    let feed = Rc::new(RefCell::new(Feed {
        threads: (0..threads).map(|_| Thread::start()).collect(),
        sockets: 0,
        before_rev: format!("{before}{REV}"),
        after_rev: after.trim_start_matches(|digit: char| digit.is_ascii_digit()).to_owned(),
        rev: 0,
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?)?;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let feed = feed.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve(stream, &feed).await {
                        eprintln!("bare feed: {error}");
                    }
                });
            }
        })
        .await
}

/// Serves a submitter, or keeps the socket of a watcher.
async fn serve(mut stream: TcpStream, feed: &RefCell<Feed>) -> Outcome {
    let mut read = Vec::new();
    loop {
        read.clear();
        let body_from = loop {
            if let Some(at) = find(&read, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = std::str::from_utf8(&read[..body_from])?;
        if head.starts_with("GET ") {
            return keep(stream, feed).await;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no content-length")?;
        let whole = body_from + length.parse::<usize>()?;
        while read.len() < whole {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let body = std::str::from_utf8(&read[body_from..])?;
        let events = body.matches(r#""task_type""#).count();
        let answer = format!(r#"{{"rev":{}}}"#, feed.borrow().rev + events as u64);
        let answer = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        // One small write goes out without waiting, so nobody comes between the number and its use.
        if stream.try_write(answer.as_bytes())? < answer.len() {
            return Err("a submitter that does not listen".into());
        }
        feed.borrow_mut().tell(events)?;
    }
}

/// Greets a watcher, and never reads from it again.
async fn keep(mut stream: TcpStream, feed: &RefCell<Feed>) -> Outcome {
    let rev = feed.borrow().rev;
    let mut greeting = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
    push_text(
        &mut greeting,
        format!("{{\"type\":\"subscribed\",\"mode\":\"snapshot\",\"rev\":{rev}}}\n{{\"type\":\"mark\",\"rev\":{rev}}}")
            .as_bytes(),
    );
    stream.write_all(&greeting).await?;
    let socket = stream.into_std()?;
    socket.set_nonblocking(false)?;
    feed.borrow_mut().keep(socket)
}
