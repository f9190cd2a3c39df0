//! The socket of a worker, and what goes over it. One future: it reads all there is to read, takes what the tasks have
//! said, writes as much as the socket takes, and waits for any of these or for its one timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Sink, SinkExt, StreamExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};
use tokio_util::task::AbortOnDropHandle;

use super::WorkerError;
use super::attempt::Attempt;
use super::badge::Badge;
use super::handlers::Handlers;
use super::outbox::{News, Outbox};
use super::output::Output;
use super::roster::{Refused, Roster, State, Stop};
use super::spawn::SpawnError;
use super::upload::Remote;
use crate::dial::{Backoff, DialError, HubUrl, Issued, Socket, Token, is_refusal};
use crate::task::{Json, Level, TaskView};
use crate::wire::{Held, HubSays, WORKER_PROTOCOL, WorkerHello};

/// A hub that has not welcomed us by then is left.
const WELCOME_MAX: Duration = Duration::from_secs(10);
/// Between two rounds of progress: fifty a second is more than anyone can see.
const PROGRESS_GAP: Duration = Duration::from_millis(20);
/// A call for which the hub had no room is made again after this.
const SPAWN_AGAIN: Duration = Duration::from_millis(250);
/// Messages read before something is written again, so that a hub that talks without end is still answered.
const READS_IN_A_ROW: u32 = 256;
/// Reconnects wait at most this long: a hub gives a worker 5 s to come back before its tasks go to others.
const BACKOFF: Backoff = Backoff::new(100, 3_000);
/// What a stopped worker waits at least for its last words to be acknowledged, once nothing runs any more.
const FAREWELL_MAX: Duration = Duration::from_secs(3);

pub(super) struct Settings {
    pub(super) url: HubUrl,
    pub(super) hello: WorkerHello,
    pub(super) token: Option<Token>,
    pub(super) handlers: Handlers,
    pub(super) cancel_grace: Duration,
    pub(super) drain_limit: Duration,
}

pub(super) struct Session {
    settings: Settings,
    badge: Badge,
    connection: Connection,
    output: Output,
    /// Texts were given to the socket and not all of them have left.
    unflushed: bool,
    roster: Roster<AbortOnDropHandle<()>>,
    outbox: Arc<Outbox>,
    /// Emptied each round; kept for its memory.
    news: Vec<News>,
    /// Attempts whose progress waits for the next round.
    waiting: Vec<Arc<Attempt>>,
    backoff: Backoff,
    /// What the hub asked for with its `bye`.
    bye: Option<(Option<u16>, Option<[u64; 2]>)>,
    draining: bool,
    /// The hub has known this process.
    was_welcomed: bool,
    /// That the hub is away has been logged.
    told_away: bool,
    reads: u32,
    heartbeat: Duration,
    lease: Duration,
    clock: Clock,
    sleep: Pin<Box<Sleep>>,
}

/// When things are due.
struct Clock {
    welcomed_at: Instant,
    heard_at: Instant,
    spoke_at: Instant,
    retry_at: Option<Instant>,
    /// When calls that add tasks, and for which the hub had no room, are made again.
    spawn_at: Option<Instant>,
    /// The next round of progress.
    round_at: Option<Instant>,
    last_round: Instant,
    /// Functions that were asked to stop, and when their grace ends.
    graces: Vec<(Instant, Held)>,
    /// When what still runs is given back.
    release_at: Option<Instant>,
    /// When a worker that is to stop does, whatever is left.
    give_up_at: Option<Instant>,
    /// The same, once nothing runs any more.
    hurry_at: Option<Instant>,
}

enum Connection {
    Down,
    Dialling(BoxFuture<'static, Dialled>),
    /// There is a socket. `welcomed` once the hub has said what is ours.
    Up {
        socket: Box<Socket>,
        welcomed: bool,
    },
}

/// A socket, and the token to say on it.
type Dialled = Result<(Box<Socket>, Option<Issued>), DialError>;

enum Wake {
    Shutdown,
    Dialled(Dialled),
    Renewed(Option<String>),
    Heard(Utf8Bytes),
    Frame,
    Lost(Option<u16>, String),
    News,
    Timer,
}

impl Session {
    pub(super) fn new(settings: Settings) -> Session {
        let now = Instant::now();
        let uploads = Remote { url: settings.url.clone(), token: settings.token.clone() };
        Session {
            badge: Badge::new(settings.token.clone()),
            settings,
            connection: Connection::Down,
            output: Output::default(),
            unflushed: false,
            roster: Roster::new(),
            outbox: Arc::new(Outbox::new(Box::new(uploads))),
            news: Vec::new(),
            waiting: Vec::new(),
            backoff: BACKOFF,
            bye: None,
            draining: false,
            was_welcomed: false,
            told_away: false,
            reads: 0,
            heartbeat: Duration::from_secs(3),
            lease: Duration::from_secs(10),
            clock: Clock {
                welcomed_at: now,
                heard_at: now,
                spoke_at: now,
                retry_at: Some(now),
                spawn_at: None,
                round_at: None,
                last_round: now,
                graces: Vec::new(),
                release_at: None,
                give_up_at: None,
                hurry_at: None,
            },
            sleep: Box::pin(tokio::time::sleep_until(now)),
        }
    }

    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        tokio::pin!(shutdown);
        loop {
            if self.draining {
                if self.roster.is_empty() {
                    self.part().await;
                    return Ok(());
                }
                self.hurry();
            }
            let draining = self.draining;
            let wake = std::future::poll_fn(|cx| {
                if !draining && shutdown.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wake::Shutdown);
                }
                self.poll_wake(cx)
            });
            match wake.await {
                Wake::Shutdown => self.drain(),
                Wake::Dialled(Ok((socket, issued))) => self.greet(socket, issued),
                Wake::Renewed(token) => token.iter().for_each(|token| self.output.refresh(token)),
                Wake::Dialled(Err(DialError::Unreachable(why))) => self.lost(None, &why)?,
                Wake::Dialled(Err(DialError::Refused(reason))) => {
                    return Err(WorkerError::Refused { code: None, reason });
                }
                Wake::Heard(text) => self.heard(&text)?,
                Wake::Frame => self.clock.heard_at = Instant::now(),
                Wake::Lost(code, why) => self.lost(code, &why)?,
                Wake::News => {
                    // The first task that ends wakes us while its neighbours are still to run. Let them: their answers
                    // then leave in the same text.
                    tokio::task::yield_now().await;
                    self.take_news();
                }
                Wake::Timer => {
                    if self.tick()? == Tick::GiveUp {
                        return Err(WorkerError::Unheard { attempts: self.roster.holding().len() });
                    }
                }
            }
        }
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        match &mut self.connection {
            Connection::Down => {}
            Connection::Dialling(dial) => {
                if let Poll::Ready(outcome) = dial.poll_unpin(cx) {
                    return Poll::Ready(Wake::Dialled(outcome));
                }
            }
            Connection::Up { socket, .. } => {
                if self.reads < READS_IN_A_ROW
                    && let Poll::Ready(message) = socket.poll_next_unpin(cx)
                {
                    self.reads += 1;
                    return Poll::Ready(match message {
                        Some(Ok(Message::Text(text))) => Wake::Heard(text),
                        Some(Ok(Message::Close(frame))) => {
                            // Our half of the goodbye, as far as the socket takes it at once.
                            let _ = socket.poll_flush_unpin(cx);
                            let code = frame.as_ref().map(|frame| u16::from(frame.code));
                            Wake::Lost(code, frame.map(|frame| frame.reason.to_string()).unwrap_or_default())
                        }
                        Some(Ok(_)) => Wake::Frame,
                        Some(Err(why)) => Wake::Lost(None, why.to_string()),
                        None => Wake::Lost(None, "the connection was cut".into()),
                    });
                }
            }
        }
        if let Poll::Ready(renewed) = self.badge.poll_renewed(cx) {
            return Poll::Ready(Wake::Renewed(renewed));
        }
        let rested = self.reads < READS_IN_A_ROW;
        self.reads = 0;
        if let Connection::Up { socket, .. } = &mut self.connection {
            if let Err(why) = poll_write(socket, &mut self.output, &mut self.unflushed, cx) {
                return Poll::Ready(Wake::Lost(None, why));
            }
            if !rested {
                cx.waker().wake_by_ref();
            }
        }
        // What the socket has not taken yet is enough to hold: until then the tasks' words wait with them.
        if self.output.is_empty() && self.outbox.poll(cx).is_ready() {
            return Poll::Ready(Wake::News);
        }
        let due = self.due();
        // The timer only ever moves forward by itself: moved for every message it would cost more than the message.
        if due < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(due);
        }
        match self.sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Wake::Timer),
            Poll::Pending => Poll::Pending,
        }
    }

    /// When the timer is needed next.
    fn due(&self) -> Instant {
        let Clock { retry_at, spawn_at, round_at, graces, release_at, give_up_at, .. } = &self.clock;
        let of_connection = match self.connection {
            Connection::Up { welcomed: true, .. } => {
                let silent_at = self.clock.heard_at + self.silence();
                Some(silent_at.min(self.clock.spoke_at + self.heartbeat))
            }
            Connection::Up { welcomed: false, .. } => Some(self.clock.heard_at + WELCOME_MAX),
            Connection::Down | Connection::Dialling(_) => *retry_at,
        };
        let grace = graces.iter().map(|(at, _)| *at).min();
        let all = [of_connection, self.badge.due(), *spawn_at, *round_at, grace, *release_at, *give_up_at];
        all.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))
    }

    /// A hub from which nothing came for this long is not there any more: it was asked at every heartbeat.
    fn silence(&self) -> Duration {
        self.lease.max(self.heartbeat * 3)
    }

    /// Does what is due.
    fn tick(&mut self) -> Result<Tick, WorkerError> {
        let now = Instant::now();
        if self.clock.retry_at.is_some_and(|at| at <= now) {
            self.clock.retry_at = None;
            let (url, fetching) = (self.settings.url.clone(), self.badge.fetch());
            let dialled = async move {
                let issued = fetching.await?;
                let socket = url.dial("api/v1/worker/ws", WORKER_PROTOCOL).await?;
                Ok((Box::new(socket), issued))
            };
            self.connection = Connection::Dialling(dialled.boxed());
        }
        self.badge.tick(now);
        let (quiet, silence) = (now - self.clock.heard_at, self.silence());
        match &mut self.connection {
            Connection::Up { welcomed: false, .. } if quiet >= WELCOME_MAX => {
                self.lost(None, "it did not welcome us")?
            }
            Connection::Up { welcomed: true, .. } if quiet >= silence => self.lost(None, "silent")?,
            Connection::Up { welcomed: true, socket } if now - self.clock.spoke_at >= self.heartbeat => {
                self.output.heartbeat();
                self.clock.spoke_at = now;
                // A hub need not answer a heartbeat; whatever stands between us answers this.
                if quiet >= self.heartbeat {
                    let _ = Pin::new(socket.as_mut()).start_send(Message::Ping(Bytes::new()));
                    self.unflushed = true;
                }
            }
            _ => {}
        }
        if self.clock.round_at.is_some_and(|at| at <= now) {
            self.progress_round(now);
        }
        if self.clock.spawn_at.is_some_and(|at| at <= now) {
            self.clock.spawn_at = None;
            for entry in self.roster.iter() {
                self.output.spawns(entry.attempt.held, &mut entry.attempt.slot());
            }
        }
        let graces = std::mem::take(&mut self.clock.graces);
        let (over, rest): (Vec<_>, Vec<_>) = graces.into_iter().partition(|(at, _)| *at <= now);
        self.clock.graces = rest;
        for (_, held) in over {
            self.abort(&held);
        }
        if self.clock.release_at.is_some_and(|at| at <= now) {
            self.clock.release_at = None;
            for held in self.roster.running() {
                self.stop(&held, Stop::Release, "the worker is going down");
            }
        }
        Ok(if self.clock.give_up_at.is_some_and(|at| at <= now) { Tick::GiveUp } else { Tick::GoOn })
    }

    // The connection.

    fn greet(&mut self, socket: Box<Socket>, issued: Option<Issued>) {
        let now = Instant::now();
        (self.clock.heard_at, self.clock.spoke_at) = (now, now);
        self.connection = Connection::Up { socket, welcomed: false };
        // A hub that never welcomed this process knows nothing that it could hold.
        let holding = self.was_welcomed.then(|| self.roster.holding());
        let hello = WorkerHello { token: self.badge.say(issued), holding, ..self.settings.hello.clone() };
        self.output.hello(&hello);
    }

    /// The hub has said what is ours: now it may be told what happened while it was away.
    fn welcomed(&mut self, says: &HubSays) {
        let Connection::Up { welcomed, .. } = &mut self.connection else { return };
        if std::mem::replace(welcomed, true) {
            return;
        }
        self.badge.taken();
        self.clock.welcomed_at = Instant::now();
        self.was_welcomed = true;
        let millis = |given: Option<u64>, or: Duration| given.map_or(or, |ms| Duration::from_millis(ms.max(10)));
        self.lease = millis(says.lease_ms, self.lease);
        self.heartbeat = millis(says.heartbeat_ms, self.heartbeat);
        tracing::info!(hub = %self.settings.url, worker_id = self.settings.hello.worker_id, "connected");
        self.told_away = false;
        self.outbox.set_up(true);
        for held in &says.drop {
            if self.roster.dropped(held) {
                self.stop(held, Stop::Lost, "the attempt is not this worker's any more");
            }
        }
        if self.draining {
            self.output.drain();
        }
        self.waiting.clear();
        for entry in self.roster.iter() {
            let (held, mut slot) = (entry.attempt.held, entry.attempt.slot());
            self.output.lines(held, &mut slot);
            self.output.progress(held, &mut slot);
            self.output.spawns(held, &mut slot);
            entry.attempt.make_room();
            if let State::Reported(report) = &entry.state {
                self.output.report(held, report);
            }
        }
    }

    fn lost(&mut self, close_code: Option<u16>, reason: &str) -> Result<(), WorkerError> {
        let now = Instant::now();
        let held = match self.connection {
            Connection::Up { welcomed: true, .. } => now - self.clock.welcomed_at,
            _ => Duration::ZERO,
        };
        self.connection = Connection::Down;
        self.output.clear();
        self.unflushed = false;
        self.outbox.set_up(false);
        self.clock.spawn_at = None;
        for entry in self.roster.iter() {
            entry.attempt.make_room();
            entry.attempt.send_spawns_again();
        }
        let (code, asked) = self.bye.take().unwrap_or_default();
        let code = code.or(close_code);
        let comes_back = self.badge.comes_back(code);
        if let Some(code) = code.filter(|code| is_refusal(*code) && !comes_back) {
            return Err(WorkerError::Refused { code: Some(code), reason: reason.to_owned() });
        }
        // A worker that holds attempts has leases to lose, and few such reconnect at once.
        let asked = asked.filter(|_| self.roster.is_empty());
        let wait_ms = self.backoff.next_ms(held.as_millis() as u64, asked, fastrand::f64());
        // Logged once at a level that people read: further tries are of use only when debugging.
        if std::mem::replace(&mut self.told_away, true) {
            tracing::debug!(hub = %self.settings.url, reason, wait_ms, "not connected, trying again");
        } else {
            tracing::warn!(hub = %self.settings.url, worker_id = self.settings.hello.worker_id, reason, "not connected, trying until it is");
        }
        self.clock.retry_at = Some(now + Duration::from_millis(wait_ms));
        Ok(())
    }

    /// Says goodbye, so that the hub need not find out.
    async fn part(&mut self) {
        if let Connection::Up { socket, .. } = &mut self.connection {
            let goodbye = async {
                while let Some(text) = self.output.next() {
                    socket.feed(Message::text(text)).await?;
                }
                socket.close().await
            };
            let _ = tokio::time::timeout(Duration::from_millis(500), goodbye).await;
        }
    }

    fn drain(&mut self) {
        let now = Instant::now();
        self.draining = true;
        let release_at = now + self.settings.drain_limit;
        self.clock.release_at = Some(release_at);
        self.clock.give_up_at = Some(release_at + self.settings.cancel_grace + FAREWELL_MAX);
        self.clock.hurry_at = Some(release_at);
        match self.connection {
            Connection::Up { welcomed: true, .. } => self.output.drain(),
            // There is not much time left to tell the hub how things ended: whatever wait it asked for is over.
            Connection::Down => self.clock.retry_at = Some(now),
            _ => {}
        }
        tracing::info!(running = self.roster.running().len(), "stopping: no new work is taken");
    }

    /// Once nothing runs any more there is no grace to wait for, only for the hub to hear the last words.
    fn hurry(&mut self) {
        if let Some(release_at) = self.clock.hurry_at.filter(|_| self.roster.running().is_empty()) {
            self.clock.hurry_at = None;
            self.clock.give_up_at = Some(release_at.max(Instant::now() + FAREWELL_MAX));
        }
    }

    // What the hub says.

    fn heard(&mut self, text: &str) -> Result<(), WorkerError> {
        self.clock.heard_at = Instant::now();
        // Objects follow each other with any white space between them: usually a line break, and a payload keeps the
        // line breaks it came with.
        for says in serde_json::Deserializer::from_str(text).into_iter::<HubSays>() {
            match says {
                Ok(says) => self.take(says),
                Err(why) => {
                    tracing::warn!(%why, "the hub said something that is not understood");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, says: HubSays) {
        let held = says.task_id.zip(says.attempt).map(|(task_id, attempt)| Held { task_id, attempt });
        match (says.kind.as_str(), held) {
            ("run", _) => {
                if let (Some(task), Some(attempt)) = (says.task, says.attempt) {
                    self.start(task, attempt, says.checkpoint);
                }
            }
            ("ack", Some(held)) => self.roster.acknowledged(&held),
            ("cancel", Some(held)) => {
                let reason = says.reason.as_deref().unwrap_or("cancelled");
                if self.roster.get(&held).is_some() {
                    self.stop(&held, Stop::Cancel, reason);
                } else {
                    // Nothing of it runs here; without a word the hub would wait for its lease to run out.
                    self.output.report(held, &super::roster::Report::Cancelled);
                }
            }
            ("spawned", Some(held)) => {
                let (entry, id) = (self.roster.get(&held), says.id.unwrap_or_default());
                entry.into_iter().for_each(|entry| entry.attempt.spawned(id, Ok(says.task_ids.clone())));
            }
            ("refused", Some(held)) => match says.id {
                Some(id) => self.spawn_refused(held, id, &says),
                None => self.refused(held, &says),
            },
            ("welcome", _) => self.welcomed(&says),
            ("drain", _) => tracing::info!("the hub is going down: it gives no new work"),
            ("bye", _) => self.bye = Some((says.code.and_then(|code| code.parse().ok()), says.retry_ms)),
            (kind, _) => tracing::debug!(kind, code = says.code, detail = says.detail, "the hub said something else"),
        }
    }

    fn refused(&mut self, held: Held, says: &HubSays) {
        let (code, detail) = (says.code.as_deref().unwrap_or_default(), says.detail.as_deref().unwrap_or_default());
        tracing::debug!(task.id = %held.task_id, attempt = held.attempt, code, detail, "refused");
        match self.roster.refused(&held, code, detail) {
            Refused::Over => self.stop(&held, Stop::Over, "the hub has ended the attempt"),
            Refused::Report => self.tell(&held),
            Refused::Nothing => {
                // The hub refused a report of a task that goes on: noted in the task's log, where its readers see it.
                if let Some(entry) = self.roster.get(&held)
                    && matches!(entry.state, State::Running { .. })
                {
                    entry.attempt.context().log(Level::Warn, format!("the hub refused a report: {detail} ({code})"));
                }
            }
        }
    }

    fn spawn_refused(&mut self, held: Held, id: u64, says: &HubSays) {
        let Some(entry) = self.roster.get(&held) else { return };
        let Some(error) = SpawnError::of(says) else {
            self.clock.spawn_at.get_or_insert(Instant::now() + SPAWN_AGAIN);
            return entry.attempt.send_spawn_again(id);
        };
        let is_over = error == SpawnError::Over;
        entry.attempt.spawned(id, Err(error));
        if is_over {
            self.refused(held, says);
        }
    }

    // Tasks.

    fn start(&mut self, task: Box<TaskView>, attempt: u32, checkpoint: Option<Json>) {
        let held = Held { task_id: task.task_id, attempt };
        if self.roster.get(&held).is_some() {
            return;
        }
        for older in self.roster.older(held) {
            self.roster.acknowledged(&older);
            self.stop(&older, Stop::Over, "the hub has ended the attempt");
        }
        let attempt = Attempt::new(held, task, checkpoint, self.outbox.clone());
        let run = self.settings.handlers.start(&attempt);
        self.roster.add(attempt, run);
        if self.draining {
            // It was on its way when we said that we take no more.
            self.stop(&held, Stop::Release, "the worker is going down");
            self.abort(&held);
        }
    }

    fn stop(&mut self, held: &Held, why: Stop, reason: &str) {
        let Some(entry) = self.roster.stop(held, why, reason) else { return };
        let lost = why >= Stop::Over;
        if entry.attempt.stop(reason, lost) && !lost {
            self.clock.graces.push((Instant::now() + self.settings.cancel_grace, *held));
        } else {
            self.abort(held);
        }
    }

    fn abort(&self, held: &Held) {
        if let Some(State::Running { run, .. }) = self.roster.get(held).map(|entry| &entry.state) {
            run.abort();
        }
    }

    fn is_welcomed(&self) -> bool {
        matches!(self.connection, Connection::Up { welcomed: true, .. })
    }

    fn take_news(&mut self) {
        let now = Instant::now();
        let mut news = std::mem::take(&mut self.news);
        self.outbox.take(&mut news);
        let welcomed = self.is_welcomed();
        for news in news.drain(..) {
            match news {
                News::Ended(held, ending) => {
                    if self.roster.ended(&held, ending) {
                        self.tell(&held);
                    }
                }
                // What is said while the hub is away leaves with the next welcome.
                News::Said(attempt) if welcomed => {
                    let mut slot = attempt.slot();
                    self.output.lines(attempt.held, &mut slot);
                    self.output.spawns(attempt.held, &mut slot);
                    attempt.make_room();
                    if slot.progress.is_none() && slot.checkpoint.is_none() {
                        continue;
                    }
                    drop(slot);
                    self.waiting.push(attempt);
                }
                News::Said(_) => {}
            }
        }
        self.news = news;
        // The first report at once, then one round after the other.
        if !self.waiting.is_empty() {
            let round_at = self.clock.last_round + PROGRESS_GAP;
            if round_at <= now { self.progress_round(now) } else { self.clock.round_at = Some(round_at) }
        }
        if !self.output.is_empty() {
            self.clock.spoke_at = now;
        }
    }

    fn progress_round(&mut self, now: Instant) {
        (self.clock.round_at, self.clock.last_round) = (None, now);
        let welcomed = self.is_welcomed();
        for attempt in self.waiting.drain(..).filter(|_| welcomed) {
            let mut slot = attempt.slot();
            self.output.lines(attempt.held, &mut slot);
            self.output.progress(attempt.held, &mut slot);
        }
        self.clock.spoke_at = now;
    }

    /// Tells the hub how an attempt ended, with all that was said before; later, if it is away.
    fn tell(&mut self, held: &Held) {
        let Some(entry) = self.roster.get(held).filter(|_| self.is_welcomed()) else { return };
        let State::Reported(report) = &entry.state else { return };
        let mut slot = entry.attempt.slot();
        self.output.lines(*held, &mut slot);
        self.output.progress(*held, &mut slot);
        self.output.report(*held, report);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tick {
    GoOn,
    GiveUp,
}

/// Gives the socket what it takes. What it does not take stays where it is.
fn poll_write(
    socket: &mut Socket,
    output: &mut Output,
    unflushed: &mut bool,
    cx: &mut Context<'_>,
) -> Result<(), String> {
    let told = |why: tokio_tungstenite::tungstenite::Error| why.to_string();
    while !output.is_empty() {
        match socket.poll_ready_unpin(cx) {
            Poll::Ready(ready) => ready.map_err(told)?,
            Poll::Pending => return Ok(()),
        }
        let Some(text) = output.next() else { break };
        Pin::new(&mut *socket).start_send(Message::text(text)).map_err(told)?;
        *unflushed = true;
    }
    if *unflushed && let Poll::Ready(flushed) = socket.poll_flush_unpin(cx) {
        flushed.map_err(told)?;
        *unflushed = false;
    }
    Ok(())
}
