//! Many watchers in a process of their own, as cheap as they can be, and the submitter that makes what they watch.
//!
//! One thread holds all sockets, so one clock times both ends, and the next submission can wait until everybody has the
//! last one. It reads the heads of frames and of lines, see [`Frames`]; every transition is counted, under its `rev`, for
//! each watcher. Since a watcher's `rev`s must rise, as many arrivals of each `rev` as there are watchers means that every
//! one of them has it, once.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Outcome;
use crate::connection::{Connection, find};
use crate::frames::{Frames, MASKED_PONG, Seen, number_after, push_masked_text};
use crate::process::Process;
use crate::report::quantile;
use crate::roles::{now_ns, say};

/// What is read at once, by whichever watcher's turn it is.
const READ_BYTES: usize = 256 << 10;
/// How many watchers come at the same time, where that is not what is measured.
const JOINING_MAX: usize = 64;
/// How many submit at the same time.
const CONNECTIONS_MAX: usize = 16;
/// What has not come by then will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// The other end of the process.
pub struct Crowd(Process);

impl Crowd {
    pub fn start(address: SocketAddr) -> Outcome<Crowd> {
        Ok(Crowd(Process::role("crowd", &[&address.to_string()])?))
    }

    /// A watcher for each of these filters. All are live when this returns.
    pub fn join(&mut self, filters: Vec<String>) -> Outcome {
        self.order(&Order::Join(filters))
    }

    /// Has events made, and waits until those who watch them have them all.
    pub fn deliver(&mut self, drive: &Drive) -> Outcome<Delivered> {
        self.order(&Order::Deliver(drive.clone()))
    }

    fn order<T: DeserializeOwned>(&mut self, order: &Order) -> Outcome<T> {
        self.0.say(&serde_json::to_string(order)?)?;
        Ok(serde_json::from_str(&self.0.hear()?)?)
    }
}

/// An order is a line on stdin; its answer, once it is done, a line on stdout.
#[derive(Serialize, Deserialize)]
enum Order {
    Join(Vec<String>),
    Deliver(Drive),
}

/// Events to be made by submitting tasks, each an event.
#[derive(Clone, Serialize, Deserialize)]
pub struct Drive {
    /// A task, as JSON.
    pub task: String,
    pub events: usize,
    /// Tasks a call; one at a time goes to `POST /tasks`.
    pub batch: usize,
    /// How many of the crowd watch each event.
    pub receivers: u32,
    /// No more than so many events a second, evenly; else nothing holds them back but the window.
    pub hz: Option<f64>,
    /// No more than so many events that are not yet with everybody.
    pub window: usize,
    /// Whether each arrival is timed.
    pub timed: bool,
}

/// What became of it.
#[derive(Serialize, Deserialize)]
pub struct Delivered {
    pub seconds: f64,
    pub deliveries: u64,
    /// WebSocket messages that held a transition.
    pub messages: u64,
    pub reads: u64,
    /// `lag` lines, where there should be none.
    pub lags: u64,
    /// From the moment a task was submitted to each arrival.
    pub submitted: Times,
    /// From the moment anybody could know of an event, by the answer to its submission or by its first arrival: what this
    /// leaves out is the way to the hub, and its commit.
    pub known: Times,
}

#[derive(Serialize, Deserialize)]
pub struct Times {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The role `crowd`.
pub async fn crowd(address: SocketAddr) -> Outcome {
    raise_file_limit()?;
    let mut here =
        Here { address, tally: Rc::default(), buffer: Rc::new(RefCell::new(vec![0; READ_BYTES])), seats: vec![] };
    let mut orders = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            while let Some(order) = orders.next_line().await? {
                match serde_json::from_str(&order)? {
                    Order::Join(filters) => answer(here.join(filters).await?)?,
                    Order::Deliver(drive) => answer(here.deliver(drive).await?)?,
                }
            }
            Ok(())
        })
        .await
}

fn answer(done: impl Serialize) -> Outcome {
    say(serde_json::to_string(&done)?)
}

/// As many files as the process may have: every socket is one.
pub fn raise_file_limit() -> Outcome {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a valid rlimit of this frame, and keep nothing of it.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if raised { Ok(()) } else { Err("could not raise the limit of open files".into()) }
}

/// The crowd, where it is.
struct Here {
    address: SocketAddr,
    tally: Rc<Tally>,
    buffer: Rc<RefCell<Vec<u8>>>,
    seats: Vec<Rc<Seat>>,
}

impl Here {
    async fn join(&mut self, filters: Vec<String>) -> Outcome {
        let room = Arc::new(Semaphore::new(JOINING_MAX));
        let all = self.seats.len() + filters.len();
        for filter in filters {
            // Comes back when the watcher is live.
            let permit = room.clone().acquire_owned().await?;
            let seat = Rc::new(Seat { filter, entered: RefCell::new(Some(permit)), ..Seat::default() });
            self.sit(&seat);
            self.seats.push(seat);
        }
        self.tally.until("all to be live", |tally| tally.live.get() == all).await
    }

    fn sit(&self, seat: &Rc<Seat>) {
        let (address, tally, buffer, taken) = (self.address, self.tally.clone(), self.buffer.clone(), seat.clone());
        let watching = spawn_local(async move {
            if let Err(error) = taken.watch(address, &tally, &buffer).await {
                tally.broken.replace(Some(error.to_string()));
                tally.changed.notify_waiters();
            }
        });
        seat.watching.replace(Some(watching));
    }

    async fn deliver(&self, drive: Drive) -> Outcome<Delivered> {
        let Drive { events, batch, receivers, hz, window, timed, .. } = drive;
        let tally = &self.tally;
        let from_rev = tally.rev.get() + 1;
        tally.arrivals.replace(Arrivals {
            from_rev,
            receivers,
            counts: vec![0; events],
            whole: 0,
            timed,
            times: vec![],
        });
        [&tally.messages, &tally.reads, &tally.lags].into_iter().for_each(|count| count.set(0));

        let (path, body) = match batch {
            1 => ("/api/v1/tasks", drive.task),
            _ => ("/api/v1/tasks/batch", format!(r#"{{"tasks":[{}]}}"#, vec![drive.task.as_str(); batch].join(","))),
        };
        let mut idle = Vec::new();
        for _ in 0..(window / batch).min(CONNECTIONS_MAX) {
            idle.push(Connection::open(self.address).await?);
        }
        let made = Rc::new(Made {
            from_rev,
            next: Cell::new(0),
            submitted: RefCell::new(vec![0; events]),
            answered: RefCell::new(vec![0; events]),
        });
        let begun = Instant::now();
        let submitters = idle.into_iter().map(|mut connection| {
            let (tally, made, body) = (tally.clone(), made.clone(), body.clone());
            spawn_local(async move {
                let submitting = async {
                    while let Some(at) = made.claim(batch) {
                        if let Some(hz) = hz {
                            sleep_until(begun + Duration::from_secs_f64(at as f64 / hz)).await;
                        }
                        tally.until("room", |tally| at + batch <= tally.arrivals.borrow().whole + window).await?;
                        let submitted = now_ns();
                        let answer = connection.post(path, body.as_bytes()).await?;
                        made.note(last_rev(answer)?, batch, submitted)?;
                    }
                    Outcome::Ok(())
                };
                submitting.await.map_err(|error| error.to_string())
            })
        });
        for submitter in submitters.collect::<Vec<_>>() {
            submitter.await??;
        }
        tally.until("every event to reach everybody", |tally| tally.arrivals.borrow().whole == events).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let arrivals = tally.arrivals.take();
        let (submitted, known) = made.times(&arrivals.times);
        Ok(Delivered {
            seconds,
            deliveries: arrivals.counts.iter().map(|&count| u64::from(count)).sum(),
            messages: tally.messages.get(),
            reads: tally.reads.get(),
            lags: tally.lags.get(),
            submitted,
            known,
        })
    }
}

/// The `rev` of the last task in an answer.
fn last_rev(body: &[u8]) -> Outcome<u64> {
    let key = br#""rev":"#;
    let at = body.windows(key.len()).rposition(|window| window == key).ok_or("an answer without rev")?;
    Ok(number_after(&body[at..], key).ok_or("an answer without rev")?)
}

/// When events were made; the first is `from_rev`.
struct Made {
    from_rev: u64,
    next: Cell<usize>,
    submitted: RefCell<Vec<u64>>,
    answered: RefCell<Vec<u64>>,
}

impl Made {
    fn claim(&self, batch: usize) -> Option<usize> {
        let at = self.next.get();
        self.next.set(at + batch);
        (at < self.submitted.borrow().len()).then_some(at)
    }

    fn note(&self, last_rev: u64, batch: usize, submitted: u64) -> Outcome {
        let end = (last_rev + 1).checked_sub(self.from_rev).ok_or("an old rev")? as usize;
        let range = end.checked_sub(batch).ok_or("an old rev")?..end;
        self.submitted.borrow_mut().get_mut(range.clone()).ok_or("transitions of others")?.fill(submitted);
        self.answered.borrow_mut()[range].fill(now_ns());
        Ok(())
    }

    /// From submissions to arrivals, and from the first word of an event to its arrivals.
    fn times(&self, arrivals: &[(usize, u64)]) -> (Times, Times) {
        let (submitted, mut known) = (self.submitted.borrow(), self.answered.borrow().clone());
        for &(event, at) in arrivals {
            known[event] = known[event].min(at);
        }
        let since = |begins: &[u64]| {
            let mut times: Vec<f64> =
                arrivals.iter().map(|&(event, at)| at.saturating_sub(begins[event]) as f64 / 1e6).collect();
            match times.is_empty() {
                true => Times { p50_ms: 0.0, p99_ms: 0.0 },
                false => Times { p50_ms: quantile(&mut times, 0.5), p99_ms: quantile(&mut times, 0.99) },
            }
        };
        (since(&submitted), since(&known))
    }
}

/// What all watchers together have seen.
#[derive(Default)]
struct Tally {
    /// Watchers that are past what comes first.
    live: Cell<usize>,
    /// The highest that any line told.
    rev: Cell<u64>,
    messages: Cell<u64>,
    reads: Cell<u64>,
    lags: Cell<u64>,
    arrivals: RefCell<Arrivals>,
    /// Why a watcher ended.
    broken: RefCell<Option<String>>,
    /// Somebody is live, or an event is with everybody.
    changed: Notify,
}

/// Who has which event.
#[derive(Default)]
struct Arrivals {
    from_rev: u64,
    receivers: u32,
    counts: Vec<u32>,
    /// All events before this one are with everybody.
    whole: usize,
    timed: bool,
    /// Event and time of each arrival, if `timed`.
    times: Vec<(usize, u64)>,
}

impl Tally {
    async fn until(&self, what: &str, done: impl Fn(&Tally) -> bool) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(broken) = &*self.broken.borrow() {
                return Err(broken.clone().into());
            }
            if done(self) {
                return Ok(());
            }
            if timeout_at(deadline, self.changed.notified()).await.is_err() {
                return Err(format!("waited in vain for {what}").into());
            }
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

/// One watcher.
#[derive(Default)]
struct Seat {
    filter: String,
    /// Its place among those who are joining, until it is live.
    entered: RefCell<Option<OwnedSemaphorePermit>>,
    subscribed: Cell<bool>,
    live: Cell<bool>,
    /// Of the last transition.
    rev: Cell<u64>,
    /// Whether the message that has begun holds a transition.
    told: Cell<bool>,
    watching: RefCell<Option<JoinHandle<()>>>,
}

impl Seat {
    /// Subscribes, and takes what comes. Returns only if it fails.
    async fn watch(&self, address: SocketAddr, tally: &Tally, buffer: &RefCell<Vec<u8>>) -> Outcome {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let upgrade = "GET /api/v1/ws HTTP/1.1\r\nhost: hub\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       sec-websocket-protocol: taskhub.v1\r\n\r\n";
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
        push_masked_text(&mut frame, self.subscribe().as_bytes());
        stream.write_all(&frame).await?;

        let mut frames = Frames::new();
        let mut pings = 0;
        frames.take(&read[frames_from..], |seen| self.see(seen, tally, 0, &mut pings));
        drop(read);
        loop {
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

    fn subscribe(&self) -> String {
        format!(r#"{{"op":"subscribe","id":1,"sub":"a","filter":{},"snapshot":{{"limit":1}}}}"#, self.filter)
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
                tally.arrived(rev, now);
            }
            [b's', b'u', b'b', ..] => self.subscribed.set(true),
            [b'm', b'a', b'r', b'k', ..] if self.subscribed.get() && !self.live.replace(true) => {
                tally.live.set(tally.live.get() + 1);
                self.entered.take();
                tally.changed.notify_waiters();
            }
            [b'l', b'a', b'g', ..] => count(&tally.lags),
            _ => {}
        }
    }
}
