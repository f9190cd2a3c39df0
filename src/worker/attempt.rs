//! One attempt of one task while it runs here: what the function sees of it, and the slot where it leaves what it says.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio::sync::Notify;

use super::TaskFailure;
use super::outbox::{News, Outbox};
use super::spawn::{SpawnError, Spawned, Spawns, text_of};
use super::upload::{UploadError, parts};
use crate::task::{CHECKPOINT_BYTES_MAX, Invalid, Json, Level, NewTask, Progress, TaskId, TaskView, cut_line};
use crate::wire::{Held, LogLineBody};

/// Log lines that wait to be sent, of one task. A hub keeps 1 MiB of a task's lines in all; a function that writes faster
/// than the connection takes loses the oldest, and a line says how many.
const LINES_BYTES_MAX: usize = 256 << 10;
/// The same in lines, for those that are short.
const LINES_MAX: usize = 4_000;
/// Above this many waiting bytes a well-behaved writer pauses.
const LINES_BYTES_ROOM: usize = LINES_BYTES_MAX / 4;

/// What a function has of its task. Clones are the same.
#[derive(Clone)]
pub struct Context {
    attempt: Arc<Attempt>,
}

pub(crate) struct Attempt {
    pub(crate) held: Held,
    task: Box<TaskView>,
    checkpoint: Option<Json>,
    outbox: Arc<Outbox>,
    slot: Mutex<Slot>,
    /// The function is to stop, and perhaps why.
    stop: Mutex<Option<String>>,
    stopped: AtomicBool,
    lost: AtomicBool,
    stop_told: Notify,
    /// The function has looked whether it is to stop: it is trusted to do so.
    looks: AtomicBool,
    /// The slot was emptied.
    room: Notify,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) progress: Option<Progress>,
    pub(crate) checkpoint: Option<Json>,
    pub(crate) lines: VecDeque<LogLineBody>,
    lines_bytes: usize,
    lines_dropped: u64,
    /// In a box, as few tasks add others.
    pub(crate) spawns: Option<Box<Spawns>>,
    /// The session knows that something waits.
    said: bool,
    /// The function has ended: nothing that clones of its context still say counts.
    ended: bool,
}

impl Slot {
    fn push_line(&mut self, line: LogLineBody) {
        self.lines_bytes += line.message.len();
        self.lines.push_back(line);
        while self.lines_bytes > LINES_BYTES_MAX || self.lines.len() > LINES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.lines_bytes -= oldest.message.len();
            self.lines_dropped += 1;
        }
    }

    /// Empties the slot of its lines.
    pub(crate) fn take_lines(&mut self) -> VecDeque<LogLineBody> {
        self.lines_bytes = 0;
        let dropped = std::mem::take(&mut self.lines_dropped);
        if dropped > 0 {
            let message =
                format!("({dropped} lines before this one were not sent: they came faster than the hub took them)");
            self.lines.push_front(LogLineBody { level: Level::Warn, message });
        }
        std::mem::take(&mut self.lines)
    }
}

impl Attempt {
    pub(crate) fn new(held: Held, task: Box<TaskView>, checkpoint: Option<Json>, outbox: Arc<Outbox>) -> Arc<Attempt> {
        Arc::new(Attempt {
            held,
            task,
            checkpoint,
            outbox,
            slot: Mutex::default(),
            stop: Mutex::default(),
            stopped: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            stop_told: Notify::new(),
            looks: AtomicBool::new(false),
            room: Notify::new(),
        })
    }

    pub(crate) fn context(self: &Arc<Attempt>) -> Context {
        Context { attempt: self.clone() }
    }

    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Asks the function to stop. Returns whether it is known to look.
    pub(crate) fn stop(&self, reason: &str, lost: bool) -> bool {
        self.lost.fetch_or(lost, Ordering::SeqCst);
        self.stop.lock().get_or_insert_with(|| reason.to_owned());
        self.stopped.store(true, Ordering::SeqCst);
        self.stop_told.notify_waiters();
        self.looks.load(Ordering::SeqCst)
    }

    /// The slot, for the session. `said` is reset: the next word of the function is news again.
    pub(crate) fn slot(&self) -> parking_lot::MutexGuard<'_, Slot> {
        let mut slot = self.slot.lock();
        slot.said = false;
        slot
    }

    /// Nothing counts any more that is said after this.
    pub(crate) fn end(&self) {
        let mut slot = self.slot.lock();
        slot.ended = true;
        slot.spawns = None;
        drop(slot);
        self.make_room();
    }

    /// The connection is gone: calls that add tasks are made again.
    pub(crate) fn send_spawns_again(&self) {
        if let Some(spawns) = &mut self.slot.lock().spawns {
            spawns.send_all_again();
        }
    }

    /// The hub had no room for a call that adds tasks.
    pub(crate) fn send_spawn_again(&self, id: u64) {
        if let Some(spawns) = &mut self.slot.lock().spawns {
            spawns.send_again(id);
        }
    }

    /// The hub has answered a call that adds tasks.
    pub(crate) fn spawned(&self, id: u64, spawned: Spawned) {
        if let Some(spawns) = &mut self.slot.lock().spawns {
            spawns.answer(id, spawned);
        }
    }

    pub(crate) fn make_room(&self) {
        self.room.notify_waiters();
    }

    fn say(self: &Arc<Attempt>, into: impl FnOnce(&mut Slot)) {
        let mut slot = self.slot.lock();
        if slot.ended {
            return;
        }
        into(&mut slot);
        if !std::mem::replace(&mut slot.said, true) {
            drop(slot);
            self.outbox.push(News::Said(self.clone()));
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("held", &self.held).finish_non_exhaustive()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("held", &self.attempt.held).finish_non_exhaustive()
    }
}

impl Context {
    /// The task as it was handed out.
    pub fn task(&self) -> &TaskView {
        &self.attempt.task
    }

    /// The payload, read as `T`; `null` where the task has none. An error is final: another try would read the same.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, TaskFailure> {
        let read = match &self.attempt.task.payload {
            Some(payload) => payload.to(),
            None => Json::null().to(),
        };
        read.map_err(|why| {
            TaskFailure::new("payload", format!("the payload is not what is expected: {why}")).permanent()
        })
    }

    /// Which hand-out of the task this is, 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.attempt.held.attempt
    }

    /// The newest checkpoint that any earlier attempt left.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, TaskFailure> {
        let read = self.attempt.checkpoint.as_ref().map(Json::to).transpose();
        read.map_err(|why| TaskFailure::new("checkpoint", format!("the checkpoint is not what is expected: {why}")))
    }

    /// The same as its JSON text.
    pub fn checkpoint_json(&self) -> Option<&Json> {
        self.attempt.checkpoint.as_ref()
    }

    /// Leaves a checkpoint for the attempt after this one, should there be one: up to 64 KiB of JSON text. It replaces
    /// the one before, and leaves with the next progress report.
    pub fn set_checkpoint<T: Serialize + ?Sized>(&self, checkpoint: &T) -> Result<(), TaskFailure> {
        let json = Json::of(checkpoint).map_err(|why| TaskFailure::new("checkpoint", why.to_string()).permanent())?;
        self.set_checkpoint_json(json).map_err(|why| TaskFailure::new("checkpoint", why).permanent())
    }

    pub(crate) fn set_checkpoint_json(&self, checkpoint: Json) -> Result<(), String> {
        checkpoint.check(CHECKPOINT_BYTES_MAX).map_err(|why| format!("the checkpoint {why}"))?;
        self.attempt.say(|slot| slot.checkpoint = Some(checkpoint));
        Ok(())
    }

    /// Says how far the task is. Say it as often as you like: the latest is sent some fifty times a second. A report the
    /// hub would not take (over 8 KiB, or with a percentage over 100) becomes a warning in the task's log.
    pub fn progress(&self, progress: Progress) {
        if let Err(invalid) = self.try_progress(progress) {
            self.log(Level::Warn, format!("a progress report was left out: {invalid}"));
        }
    }

    pub(crate) fn try_progress(&self, progress: Progress) -> Result<(), Invalid> {
        let progress = progress.checked()?;
        self.attempt.say(|slot| slot.progress = Some(progress));
        Ok(())
    }

    /// Adds tasks to this one, all or none: they are its children, and part of its workflow where it is in one. They may depend
    /// on each other by their `ref`s, and on this task as `@self`. Answers with their ids, in their order, once they are on the
    /// hub's disk; while the hub cannot be reached, that waits.
    ///
    /// A cut on the way adds nothing twice. Another attempt of this task knows nothing of it: see
    /// [`spawn_once`](Self::spawn_once).
    ///
    /// ```no_run
    /// # use taskhub::worker::{Context, TaskFailure};
    /// use taskhub::task::NewTask;
    ///
    /// async fn fan_out(ctx: Context) -> Result<(), TaskFailure> {
    ///     let files: Vec<String> = ctx.payload()?;
    ///     let tasks = files.iter().map(|file| NewTask::new("convert").payload(file));
    ///     let task_ids = ctx.spawn(&tasks.collect::<Result<Vec<_>, _>>()?).await?;
    ///     ctx.set_checkpoint(&task_ids)
    /// }
    /// ```
    pub async fn spawn(&self, tasks: &[NewTask]) -> Result<Vec<TaskId>, SpawnError> {
        self.spawn_once(format!("{:032x}", fastrand::u128(..)), tasks).await
    }

    /// The same under a key (≤ 255 characters): the same tasks and key again, within 24 hours and by whatever attempt of this
    /// task, answer with the ids of the first ones. Other tasks under the same key are refused.
    pub async fn spawn_once(&self, key: impl Into<String>, tasks: &[NewTask]) -> Result<Vec<TaskId>, SpawnError> {
        let text = text_of(tasks)?;
        let mut answered = None;
        self.attempt.say(|slot| answered = Some(slot.spawns.get_or_insert_default().add(key.into(), text)));
        match answered {
            Some(answered) => answered.await.unwrap_or(Err(SpawnError::Over)),
            None => Err(SpawnError::Over),
        }
    }

    /// Uploads the result of the task, for one that is large or no JSON: whatever can be read, up to the hub's `--result-max`
    /// (1 GiB). A function that has done so returns `()`. Uploaded again, it replaces the one before; of an attempt that does not
    /// complete it is gone. A hub in memory, or one that has it turned off, refuses it.
    ///
    /// ```no_run
    /// # use taskhub::worker::{Context, TaskFailure};
    /// async fn render(ctx: Context) -> Result<(), TaskFailure> {
    ///     let film = tokio::fs::File::open("film.mp4").await?;
    ///     Ok(ctx.put_result("video/mp4", film).await?)
    /// }
    /// ```
    pub async fn put_result(
        &self,
        content_type: impl Into<String>,
        result: impl AsyncRead + Send + 'static,
    ) -> Result<(), UploadError> {
        self.attempt.outbox.uploads.put(self.attempt.held, content_type.into(), parts(result)).await
    }

    /// Adds a line to the task's log; it is cut at 8 KiB.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        let line = LogLineBody { level, message: cut_line(message.into()) };
        self.attempt.say(|slot| slot.push_line(line));
    }

    /// Waits until the lines that were written have mostly been sent, so that none is lost. Does not wait for a hub that
    /// cannot be reached: then the newest lines are kept.
    pub async fn log_room(&self) {
        loop {
            let room = self.attempt.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let full = {
                let slot = self.attempt.slot.lock();
                !slot.ended && (slot.lines_bytes > LINES_BYTES_ROOM || slot.lines.len() > LINES_MAX / 4)
            };
            if !full || !self.attempt.outbox.is_up() {
                return;
            }
            room.await;
        }
    }

    /// Ready once the task is to stop: it was cancelled, ran out of time, is not this worker's any more, or the worker
    /// is going down. A function that has called this is given a grace to end by itself.
    pub async fn cancelled(&self) {
        loop {
            let told = self.attempt.stop_told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            told.await;
        }
    }

    /// Whether the task is to stop; for loops and threads that do not await.
    pub fn is_cancelled(&self) -> bool {
        self.attempt.looks.store(true, Ordering::SeqCst);
        self.attempt.stopped.load(Ordering::SeqCst)
    }

    /// Whether it is to stop because the attempt is not this worker's any more: nothing that is done counts.
    pub fn is_lost(&self) -> bool {
        self.attempt.lost.load(Ordering::SeqCst)
    }

    /// Why it is to stop, in the words of whoever asked.
    pub fn cancel_reason(&self) -> Option<String> {
        self.attempt.stop.lock().clone()
    }
}
