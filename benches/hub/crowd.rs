//! Many watchers in a process of their own, as cheap as they can be, and the submitter that makes what they watch.
//!
//! One thread holds all sockets, so one clock times both ends, and the next submission can wait until everybody has the
//! last one. It reads the heads of frames and of lines, see [`frames`](crate::frames); every transition is counted, under its `rev`, for
//! each watcher. Since a watcher's `rev`s must rise, as many arrivals of each `rev` as there are watchers means that every
//! one of them has it, once.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncBufReadExt;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Outcome;
use crate::connection::Connection;
use crate::frames::number_after;
use crate::process::Process;
use crate::report::quantile;
use crate::roles::{now_ns, say};
use crate::seat::{Arrivals, Seat, Tally, Watcher};

/// What is read at once, by whichever watcher's turn it is.
const READ_BYTES: usize = 256 << 10;
/// How many watchers come at the same time, where that is not what is measured.
const JOINING_MAX: usize = 64;
/// How many submit at the same time.
const CONNECTIONS_MAX: usize = 16;

/// The other end of the process.
pub struct Crowd(Process);

impl Crowd {
    pub fn start(address: SocketAddr) -> Outcome<Crowd> {
        Crowd::start_as(address, "")
    }

    /// One whose submitter shows this token.
    pub fn start_as(address: SocketAddr, token: &str) -> Outcome<Crowd> {
        Ok(Crowd(Process::role("crowd", &[&address.to_string(), token])?))
    }

    /// These come to watch. All are live when this returns.
    pub fn join(&mut self, watchers: Vec<Watcher>) -> Outcome {
        self.order(&Order::Join(watchers))
    }

    /// Has events made, and waits until those who watch them have them all.
    pub fn deliver(&mut self, drive: &Drive) -> Outcome<Delivered> {
        self.order(&Order::Deliver(drive.clone()))
    }

    /// One more of everything, who reads nothing once it is live.
    pub fn join_stopped(&mut self) -> Outcome {
        self.order(&Order::JoinStopped)
    }

    /// Lets the one who stopped read what is there, and leave: how many `lag` lines it got, if the hub did not close it.
    pub fn release_stopped(&mut self) -> Outcome<Option<u64>> {
        self.order(&Order::ReleaseStopped)
    }

    /// Cuts all sockets.
    pub fn cut(&mut self) -> Outcome {
        self.order(&Order::Cut)
    }

    /// Has all connect at once, and resume from their last marks.
    pub fn resume(&mut self) -> Outcome<Resumed> {
        self.order(&Order::Resume)
    }

    fn order<T: DeserializeOwned>(&mut self, order: &Order) -> Outcome<T> {
        self.0.say(&serde_json::to_string(order)?)?;
        Ok(serde_json::from_str(&self.0.hear()?)?)
    }
}

/// An order is a line on stdin; its answer, once it is done, a line on stdout.
#[derive(Serialize, Deserialize)]
enum Order {
    Join(Vec<Watcher>),
    Deliver(Drive),
    JoinStopped,
    ReleaseStopped,
    Cut,
    Resume,
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

/// How all came back.
#[derive(Serialize, Deserialize)]
pub struct Resumed {
    /// Until the last was live again.
    pub seconds: f64,
    pub resumed: u64,
    pub resets: u64,
    /// What they had missed.
    pub transitions: u64,
}

/// The role `crowd`.
pub async fn crowd(address: SocketAddr, token: &str) -> Outcome {
    raise_file_limit()?;
    let mut here = Here {
        address,
        token: token.to_owned(),
        tally: Rc::default(),
        buffer: Rc::new(RefCell::new(vec![0; READ_BYTES])),
        seats: Vec::new(),
        stopped: None,
    };
    let mut orders = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            while let Some(order) = orders.next_line().await? {
                match serde_json::from_str(&order)? {
                    Order::Join(watchers) => answer(here.join(watchers).await?)?,
                    Order::Deliver(drive) => answer(here.deliver(drive).await?)?,
                    Order::JoinStopped => answer(here.join_stopped().await?)?,
                    Order::ReleaseStopped => answer(here.release_stopped().await?)?,
                    Order::Cut => answer(here.cut().await)?,
                    Order::Resume => answer(here.resume().await?)?,
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
    /// The submitter's.
    token: String,
    tally: Rc<Tally>,
    buffer: Rc<RefCell<Vec<u8>>>,
    seats: Vec<Rc<Seat>>,
    /// Who stopped reading, with a tally of its own.
    stopped: Option<(Rc<Seat>, Rc<Tally>)>,
}

impl Here {
    async fn join(&mut self, watchers: Vec<Watcher>) -> Outcome {
        let room = Arc::new(Semaphore::new(JOINING_MAX));
        let all = self.seats.len() + watchers.len();
        for watcher in watchers {
            // Comes back when the watcher is live.
            let permit = room.clone().acquire_owned().await?;
            let seat = Seat::new(watcher);
            seat.sit(self.address, &self.tally, &self.buffer, Some(permit));
            self.seats.push(seat);
        }
        self.tally.until("all to be live", |tally| tally.live.get() == all).await
    }

    async fn join_stopped(&mut self) -> Outcome {
        let (seat, tally) = (Seat::stopping("{}".into()), Rc::new(Tally::default()));
        seat.sit(self.address, &tally, &self.buffer, None);
        tally.until("one to be live", |tally| tally.live.get() == 1).await?;
        self.stopped = Some((seat, tally));
        Ok(())
    }

    async fn release_stopped(&mut self) -> Outcome<Option<u64>> {
        let (seat, tally) = self.stopped.take().ok_or("nobody stopped")?;
        seat.go_on();
        // What waited comes at once; the first pause is the end of it.
        for _ in 0..20 {
            let reads = tally.reads.get();
            sleep(Duration::from_millis(500)).await;
            if tally.reads.get() == reads {
                break;
            }
        }
        seat.leave().await;
        Ok(tally.broken.take().is_none().then(|| tally.lags.get()))
    }

    async fn cut(&self) {
        for seat in &self.seats {
            seat.leave().await;
        }
    }

    async fn resume(&self) -> Outcome<Resumed> {
        let Here { address, tally, buffer, seats, .. } = self;
        tally.live.set(0);
        [&tally.resumed, &tally.resets, &tally.transitions].into_iter().for_each(|count| count.set(0));
        let begun = Instant::now();
        seats.iter().for_each(|seat| seat.sit(*address, tally, buffer, None));
        tally.until("all to be live again", |tally| tally.live.get() == seats.len()).await?;
        Ok(Resumed {
            seconds: begun.elapsed().as_secs_f64(),
            resumed: tally.resumed.get(),
            resets: tally.resets.get(),
            transitions: tally.transitions.get(),
        })
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
            idle.push(Connection::open_as(self.address, &self.token).await?);
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
