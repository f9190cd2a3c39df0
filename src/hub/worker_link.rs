//! A worker's way into the hub: what the hub pushes comes out, what the worker says goes in.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::engine::{Accepts, Answer, Command, Hello, Refusal, Report, SubmitKey};
use crate::task::{Json, Level, Name, NewTask, Progress, Spawner, Submission, Task, TaskId};

use super::inbox::{Bound, Reply, Request};
use super::mailbox::Mailbox;
use super::results::Filled;
use super::shared::{Body, Given, Push, Shared};
use super::{Hub, HubError};

/// A worker is said to be alive at most this often, in milliseconds, and at most twenty times a lease.
const HEARD_EVERY_MS: u64 = 500;

/// The most calls of one worker that add tasks and whose answers it has not taken: with ten thousand ids each they hold some
/// 10 MiB. Answers take milliseconds, so a worker that reads them meets this bound only with so many calls at once.
const SPAWNS_MAX: usize = 64;

/// A task with what its worker needs.
#[derive(Clone, Debug)]
pub struct HandedOut {
    pub task: Arc<Task>,
    pub payload: Option<Json>,
    /// What any earlier attempt left.
    pub checkpoint: Option<Json>,
}

/// What the hub says to a connected worker.
#[derive(Debug)]
pub enum Pushed {
    Run(HandedOut),
    /// Stop this attempt; `cancelled` or any other end is then accepted, or refused where the attempt is over already.
    Stop {
        task_id: TaskId,
        attempt: u32,
        reason: Option<Box<str>>,
    },
    Ack {
        task_id: TaskId,
        attempt: u32,
    },
    Refused {
        task_id: TaskId,
        attempt: u32,
        refusal: Refusal,
    },
    /// The answer to [`WorkerLink::spawn`]: the tasks that an attempt added, in their order.
    Spawned {
        id: Option<u64>,
        task_id: TaskId,
        attempt: u32,
        outcome: Result<Vec<TaskId>, HubError>,
    },
    /// The hub goes down: finish what runs.
    Drain,
    /// Say goodbye now, and close with 4001.
    Goodbye,
    /// A newer connection took this worker's place: close with 4506.
    Replaced,
}

/// How the hub answered a worker's introduction.
pub struct Welcome {
    pub link: WorkerLink,
    /// Attempts it may go on with.
    pub keep: Vec<(TaskId, u32)>,
    /// Attempts that are no longer its own.
    pub drop: Vec<(TaskId, u32)>,
}

/// One connection of a worker. Dropping it is the end of the connection: the worker's grace begins.
pub struct WorkerLink {
    hub: Hub,
    shared: Arc<Shared>,
    worker_id: Name,
    session: u64,
    mailbox: Arc<Mailbox<Push>>,
    taken: Vec<Push>,
    /// Payloads that are being read for what was taken. Kept here, so that a wait that is given up loses nothing.
    reading: Option<JoinHandle<Result<Vec<Filled>, HubError>>>,
    heard_at: AtomicU64,
    /// The task that it said log lines of last.
    logged: Mutex<Option<TaskId>>,
    /// Calls that add tasks, and are not answered yet.
    spawning: AtomicUsize,
}

impl Hub {
    /// Takes a worker's introduction on a new connection.
    pub async fn attach_worker(
        &self,
        worker_id: Name,
        accepts: Accepts,
        concurrency: u32,
        holding: Option<Vec<(TaskId, u32)>>,
    ) -> Result<Welcome, HubError> {
        let shared = self.shared().clone();
        let session = shared.number();
        let mailbox = shared.open_link(session);
        let link = WorkerLink {
            hub: self.clone(),
            worker_id: worker_id.clone(),
            session,
            mailbox,
            taken: Vec::new(),
            reading: None,
            heard_at: AtomicU64::new(shared.clock.mono()),
            logged: Mutex::default(),
            spawning: AtomicUsize::new(0),
            shared,
        };
        let hello = Hello { worker_id, session, accepts, concurrency, holding };
        let answer = self.ask(Command::Hello(hello), Bound::Free).await?;
        if self.is_draining() {
            link.mailbox.push(Push::Drain);
        }
        match answer {
            Answer::Welcome { keep, drop } => Ok(Welcome { link, keep, drop }),
            other => unreachable!("hello is answered by a welcome, not by {other:?}"),
        }
    }
}

impl WorkerLink {
    /// Waits for something to push and moves all of it to `out`, in order. Dropping the future loses nothing.
    pub async fn next(&mut self, out: &mut Vec<Pushed>) -> Result<(), HubError> {
        if self.taken.is_empty() {
            self.mailbox.take(&mut self.taken).await;
        }
        let stored: Vec<Arc<Task>> = self.taken.iter().filter_map(Push::reads).collect();
        let mut read_bodies = Vec::new().into_iter();
        if !stored.is_empty() {
            let shared = &self.shared;
            let reading = self.reading.get_or_insert_with(|| {
                let shared = shared.clone();
                tokio::spawn(async move { shared.bodies(stored).await })
            });
            let read = reading.await;
            self.reading = None;
            read_bodies = read.unwrap_or(Err(HubError::Stopped))?.into_iter();
        }
        let shared = &self.shared;
        out.extend(self.taken.drain(..).filter_map(|push| {
            Some(match push {
                Push::Run(given) => Pushed::Run(given.complete(&mut read_bodies, shared)?),
                Push::Stop { task_id, attempt, reason } => Pushed::Stop { task_id, attempt, reason },
                Push::Ack { task_id, attempt } => Pushed::Ack { task_id, attempt },
                Push::Refused { task_id, attempt, refusal } => Pushed::Refused { task_id, attempt, refusal },
                Push::Spawned { id, task_id, attempt, outcome } => {
                    self.spawning.fetch_sub(1, Ordering::Relaxed);
                    Pushed::Spawned { id, task_id, attempt, outcome }
                }
                Push::Drain => Pushed::Drain,
                Push::Goodbye => Pushed::Goodbye,
                Push::Replaced => Pushed::Replaced,
            })
        }));
        Ok(())
    }

    /// Whether the hub can take more of what this worker says. While it cannot, whoever holds the link takes nothing from
    /// the worker, which so waits; what it has said already is always taken. Log lines that wait to be written keep only
    /// those workers waiting that said them.
    pub fn has_room(&self) -> bool {
        self.shared.inbox.has_room() && self.shared.unwritten.has_room(*self.logged.lock())
    }

    /// Resolves once [`has_room`](Self::has_room) holds.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<> {
        let (shared, logged) = (self.shared.clone(), *self.logged.lock());
        async move {
            shared.inbox.room().await;
            shared.unwritten.room(logged).await;
        }
    }

    /// A report on an attempt; its answer comes as [`Pushed::Ack`] or [`Pushed::Refused`].
    pub fn report(&self, task_id: TaskId, attempt: u32, report: Report) {
        let command = Command::Report { task_id, attempt, report };
        let reply = Reply::Link { session: self.session, task_id, attempt };
        // Refused only once the hub has stopped; then the connection ends too.
        let _ = self.shared.inbox.push(Request::Command { command, reply }, Bound::Free);
    }

    /// A running attempt adds tasks, all or none. The answer comes as [`Pushed::Spawned`], with the same `id`, and what the
    /// attempt reports once this returned is decided after it. An error is the answer: then none comes. Payloads that are
    /// held against a schema, and large, are waited for.
    pub async fn spawn(
        &self,
        id: Option<u64>,
        spawner: Spawner,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
    ) -> Result<(), HubError> {
        let checked = Submission::check_spawned(spawner, tasks, self.shared.options.engine.payload_bytes_max);
        let mut submission = checked.map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        self.hub.check_callbacks(&submission)?;
        if let Some(types) = self.hub.other_types(submission.types()) {
            submission = Box::pin(self.hub.prepare(submission, types)).await?;
        }
        self.hub.sign(&mut submission);
        self.hub.check_prepared(&submission, key.is_some())?;
        let room = |spawning: usize| (spawning < SPAWNS_MAX).then_some(spawning + 1);
        self.spawning.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map_err(|_| HubError::Overloaded)?;
        let Spawner { task_id, attempt } = spawner;
        let reply = Reply::Spawner { session: self.session, id, task_id, attempt };
        let command = Command::Submit { submission, key };
        // As reports are taken, and in their line: large work that is held waits in one of its own.
        let pushed = self.shared.inbox.push(Request::Command { command, reply }, Bound::Free);
        pushed.inspect_err(|_| _ = self.spawning.fetch_sub(1, Ordering::Relaxed))
    }

    /// What the hub has to say to it; gone when the link is.
    pub(super) fn mailbox(&self) -> Weak<Mailbox<Push>> {
        Arc::downgrade(&self.mailbox)
    }

    /// A sign of life. Cheap: call it for every message.
    pub fn heard(&self) {
        let now = self.shared.clock.mono();
        let before = self.heard_at.load(Ordering::Relaxed);
        if now >= before + HEARD_EVERY_MS.min(self.shared.options.engine.lease_ms / 20) {
            self.heard_at.store(now, Ordering::Relaxed);
            self.tell(Command::Heard { worker_id: self.worker_id.clone() });
        }
    }

    /// [`Pushed::Stop`] has reached the worker.
    pub fn told_to_stop(&self, task_id: TaskId, attempt: u32) {
        self.shared.told(task_id, attempt, true);
    }

    /// The worker wants no new work.
    pub fn retire(&self) {
        self.tell(Command::Retire { worker_id: self.worker_id.clone(), session: self.session });
    }

    /// A tick and a checkpoint of a running attempt, neither waited for.
    pub fn progress(
        &self,
        task_id: TaskId,
        attempt: u32,
        progress: Option<Progress>,
        checkpoint: Option<Json>,
    ) -> Result<(), HubError> {
        self.shared.progress(task_id, attempt, progress, checkpoint, None, Bound::Free).map(|_| ())
    }

    /// Log lines of a running attempt.
    pub fn log(&self, task_id: TaskId, attempt: u32, lines: Vec<(Level, String)>) -> Result<(), HubError> {
        self.shared.log(task_id, attempt, lines, Bound::Free)?;
        *self.logged.lock() = Some(task_id);
        Ok(())
    }

    fn tell(&self, command: Command) {
        let _ = self.shared.inbox.push(Request::Command { command, reply: Reply::Nobody }, Bound::Free);
    }
}

impl Drop for WorkerLink {
    fn drop(&mut self) {
        self.shared.close_link(self.session);
        self.tell(Command::Left { worker_id: self.worker_id.clone(), session: self.session });
    }
}

impl Push {
    /// The task whose payload must be read first.
    fn reads(&self) -> Option<Arc<Task>> {
        match self {
            Push::Run(Given { task, body: Body::Stored }) => Some(task.clone()),
            _ => None,
        }
    }
}

impl Given {
    /// The task with its payload, taking it from `bodies` where it had to be read. One that lacks a result that it takes has
    /// failed.
    pub(super) fn complete(self, bodies: &mut impl Iterator<Item = Filled>, shared: &Shared) -> Option<HandedOut> {
        let (payload, checkpoint) = match self.body {
            Body::Ready { payload, checkpoint } => (payload, checkpoint),
            Body::Stored => match bodies.next().unwrap_or_else(|| Ok(Default::default())) {
                Ok(body) => body,
                Err(error) => {
                    shared.fail_unfilled(&self.task, error);
                    return None;
                }
            },
        };
        Some(HandedOut { task: self.task, payload, checkpoint })
    }
}
