//! What has been committed, for everyone to read.
//!
//! The board holds the newest record of every unfinished task and of those final ones that the store's view does not show
//! yet, and beside them what running tasks say between two transitions: ticks, and the numbers of log lines. Nothing is
//! decided from it. It is written by the writer after each commit, and by workers' ticks.

mod rollups;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::Entry as Slot;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::engine::{Now, Refusal};
use crate::feed::{LatestState, Tick};
use crate::settings::Setting;
use crate::store::Entry;
use crate::task::{
    Cancel, ChangeKind, Filter, IdHasher, Json, Level, LogLine, Name, Progress, Rollup, Status, Task, TaskId, cut_line,
};

use super::HubError;
use super::clock::Clock;
use super::settings::SettingsBoard;
use super::stats::{NameCounts, Rates, Told, UnfinishedCounts, UserCounts, UserRates, unfinished};

/// The longest time left that is worth telling: a year.
const ETA_MS_MAX: u64 = 365 * 86_400_000;

/// How many tasks' log numbers are remembered between two attempts; others are looked up in the store.
const LOG_ENDS_MAX: usize = 10_000;

/// The shared picture.
pub(super) struct Board {
    tasks: DashMap<TaskId, Arc<Task>, IdHasher>,
    /// Running tasks only.
    live: DashMap<TaskId, Live, IdHasher>,
    /// By workflow.
    within: DashMap<TaskId, rollups::Running, IdHasher>,
    /// Where the log of a task whose attempt ended goes on.
    log_ends: Mutex<HashMap<TaskId, u64>>,
    /// Running tasks whose newest tick is not kept yet.
    unkept: Mutex<Vec<TaskId>>,
    rev: AtomicU64,
    counts: Mutex<Counts>,
    running: watch::Sender<usize>,
    /// How many of those in `live` are workflows: nobody waits for these.
    workflows: AtomicUsize,
    pub(super) settings: SettingsBoard,
    clock: Arc<Clock>,
}

/// Numbers that are kept up to date rather than counted.
#[derive(Default)]
struct Counts {
    by_status: BTreeMap<Status, u64>,
    by_queue: NameCounts,
    by_type: NameCounts,
    by_user: UserCounts,
    rates: Rates,
    user_rates: UserRates,
}

/// What a running task says between two transitions.
struct Live {
    rev: u64,
    attempt: u32,
    tick: u64,
    progress: Option<Progress>,
    /// When the attempt began, on the monotonic count of this hub: before 0 where that was another's.
    began: i64,
    cancel_requested: bool,
    /// The worker was told that.
    cancel_delivered: bool,
    /// The tick's event, encoded once for everybody.
    line: Option<Bytes>,
    /// Waits to be kept.
    unkept: bool,
    /// The number of the last log line; `None` where it could not be looked up.
    log_end: Option<u64>,
    /// When the writer was last told that the attempt lives, on the monotonic clock.
    renewed_ms: Option<u64>,
    /// Of a task with `silence_ms`: when the attempt last reported something, in lived time; 0 before.
    spoke: Option<u64>,
    /// The workflow that it is part of.
    workflow_id: Option<TaskId>,
    /// Of a workflow: what its tasks come to.
    rollup: Option<Box<Rollup>>,
}

/// Whether a running task has ticked since its newest transition was decided.
#[derive(PartialEq)]
enum Ticked {
    No,
    Since,
}

/// What the board says to a worker's tick or log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) cancel_requested: bool,
    pub(super) rev: u64,
    /// The workflow that it is part of, for that ticks with it.
    pub(super) workflow_id: Option<TaskId>,
}

impl Board {
    /// A board that shows what a store held.
    pub(super) fn new(
        rev: u64,
        counts: BTreeMap<Status, u64>,
        user_finals: Vec<(Name, Status, u64)>,
        settings: Vec<Setting>,
        clock: Arc<Clock>,
    ) -> Board {
        let mut by_user = UserCounts::default();
        user_finals.into_iter().for_each(|(user, status, count)| by_user.restore(user, status, count));
        Board {
            tasks: DashMap::default(),
            live: DashMap::default(),
            within: DashMap::default(),
            log_ends: Mutex::default(),
            unkept: Mutex::default(),
            rev: AtomicU64::new(rev),
            counts: Mutex::new(Counts { by_status: counts, by_user, ..Counts::default() }),
            running: watch::Sender::new(0),
            workflows: AtomicUsize::new(0),
            settings: SettingsBoard::new(settings, rev),
            clock,
        }
    }

    /// Shows a task that was there before the hub started, with the number of its last log line where it runs. Its status
    /// is counted by the store already.
    pub(super) fn restore(&self, task: &Arc<Task>, log_end: Option<u64>) {
        self.tasks.insert(task.task_id, task.clone());
        let mut counts = self.counts.lock();
        counts.by_queue.add(&task.queue, task.status, 1);
        counts.by_type.add(&task.task_type, task.status, 1);
        counts.by_user.shift(task, None, Some(task.status));
        drop(counts);
        self.relive(task, None, self.clock.now());
        if let Some(mut live) = self.live.get_mut(&task.task_id) {
            live.log_end = log_end;
        }
    }

    /// Shows a commit. Says which running tasks have ticked since it was decided: that tick is still to be told.
    pub(super) fn apply(&self, entries: &[Entry]) -> Vec<TaskId> {
        let now = self.clock.now();
        let mut ticked = Vec::new();
        for Entry { change, .. } in entries {
            let task = &change.task;
            if change.kind == ChangeKind::Gone {
                self.tasks.remove(&task.task_id);
                continue;
            }
            self.tasks.insert(task.task_id, task.clone());
            if self.relive(task, change.prev.as_deref(), now) == Ticked::Since {
                ticked.push(task.task_id);
            }
        }
        let mut counts = self.counts.lock();
        for Entry { change, .. } in entries {
            counts.count(change.prev.as_deref(), (change.kind != ChangeKind::Gone).then_some(&*change.task));
            if let ChangeKind::Transition(event) = change.kind {
                counts.rates.add(event, now.mono);
                if let Some(user) = &change.task.user_id {
                    counts.user_rates.add(user, event, now.mono);
                }
            }
        }
        drop(counts);
        if let Some(last) = entries.last() {
            self.advance(last.change.rev);
        }
        let running = self.live.len().saturating_sub(self.workflows.load(Ordering::Relaxed));
        self.running.send_if_modified(|known| std::mem::replace(known, running) != running);
        ticked
    }

    /// Begins, renews or ends what a running task says of itself.
    fn relive(&self, task: &Task, prev: Option<&Task>, now: Now) -> Ticked {
        if task.status == Status::Running {
            let run = task.run();
            // In its place: a worker that ticks in between holds its lease all the while.
            let slot = self.live.entry(task.task_id);
            let before = match &slot {
                Slot::Occupied(live) => Some(live.get()),
                Slot::Vacant(_) => None,
            };
            let same = before.is_some_and(|live| live.attempt == task.attempt);
            let log_end = match before {
                Some(live) => live.log_end,
                None if task.attempt == 1 && prev.is_some() => Some(0),
                None => self.log_ends.lock().remove(&task.task_id),
            };
            let began = before.filter(|_| same).map_or_else(
                || {
                    let started_at = run.and_then(|run| run.started_at).unwrap_or(task.updated_at);
                    now.mono as i64 - now.at.millis_since(started_at) as i64
                },
                |live| live.began,
            );
            let recorded = run.and_then(|run| run.progress.as_ref());
            let progress: Option<Progress> = match before {
                Some(live) if same => live.progress.clone(),
                _ => recorded.and_then(|progress| progress.to().ok()),
            };
            let since = same && progress.as_ref().and_then(|progress| progress.encode().ok()).as_ref() != recorded;
            let live = Live {
                rev: task.rev,
                attempt: task.attempt,
                tick: u64::from(since),
                progress,
                began,
                cancel_requested: task.cancel_requested(),
                cancel_delivered: run.is_some_and(|run| run.cancel == Some(Cancel::Delivered)),
                line: None,
                unkept: since,
                log_end,
                renewed_ms: None,
                spoke: task.silence_ms().map(|_| before.filter(|_| same).and_then(|live| live.spoke).unwrap_or(0)),
                workflow_id: task.workflow_id(),
                rollup: before.and_then(|live| live.rollup.clone()),
            };
            let is_new = before.is_none();
            drop(slot.insert(live));
            if is_new {
                self.workflows.fetch_add(task.is_workflow().into(), Ordering::Relaxed);
                self.runs_within(task, true);
            }
            if since {
                self.unkept.lock().push(task.task_id);
                return Ticked::Since;
            }
        } else if prev.is_some_and(|prev| prev.status == Status::Running)
            && let Some((_, live)) = self.live.remove(&task.task_id)
        {
            self.workflows.fetch_sub(task.is_workflow().into(), Ordering::Relaxed);
            self.runs_within(task, false);
            if let Some(end) = live.log_end.filter(|_| !task.status.is_final()) {
                self.remember_log_end(task.task_id, end);
            }
        }
        Ticked::No
    }

    /// Whether the log of a task whose next attempt is about to be shown goes on at a number that is not known here.
    pub(super) fn lacks_log_end(&self, task: &Task) -> bool {
        task.attempt > 1 && !self.live.contains_key(&task.task_id) && !self.log_ends.lock().contains_key(&task.task_id)
    }

    /// Where the log of a task goes on when its next attempt is shown.
    pub(super) fn remember_log_end(&self, task_id: TaskId, end: u64) {
        let mut ends = self.log_ends.lock();
        if ends.len() >= LOG_ENDS_MAX {
            ends.clear();
        }
        ends.insert(task_id, end);
    }

    /// The number of the last log line of a running task.
    pub(super) fn log_end(&self, task_id: TaskId) -> Option<u64> {
        self.live.get(&task_id)?.log_end
    }

    /// Lets go of a final task that the store's view shows by now.
    pub(super) fn evict(&self, task_id: TaskId, rev: u64) {
        self.tasks.remove_if(&task_id, |_, task| task.rev == rev && task.status.is_final());
    }

    /// Everything up to this `rev` is shown, here or beside.
    pub(super) fn advance(&self, rev: u64) {
        self.rev.fetch_max(rev, Ordering::AcqRel);
    }

    /// How many unfinished tasks a queue has of each status.
    pub(super) fn queue_counts(&self, queue: &Name) -> crate::wire::QueueStats {
        self.counts.lock().by_queue.of(queue)
    }

    /// The last `rev` that is shown.
    pub(super) fn rev(&self) -> u64 {
        self.rev.load(Ordering::Acquire)
    }

    /// How many tasks run; changes wake the receiver.
    pub(super) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    /// The newest record, where the task is here.
    pub(super) fn get(&self, task_id: TaskId) -> Option<Arc<Task>> {
        self.tasks.get(&task_id).map(|task| task.clone())
    }

    /// A stored record with the newest tick, where the task still stands at it. A task that went on in the meantime is left
    /// as it was read: whoever asked for it by its state shall not get another.
    pub(super) fn refresh(&self, task_id: TaskId, record: Bytes) -> Bytes {
        match self.get(task_id).filter(|task| Task::rev_of(&record) == Some(task.rev)) {
            Some(task) => self.record(&task).into(),
            None => record,
        }
    }

    /// A record as JSON, with the newest tick if it is the newest record.
    pub(super) fn record(&self, task: &Task) -> Vec<u8> {
        let task_id = task.task_id;
        if task.is_workflow() {
            self.refresh_workflow(task_id);
        }
        let mut out = Vec::with_capacity(640);
        let live = self.live.get(&task_id).filter(|live| live.rev == task.rev);
        let tick = live.as_ref().and_then(|live| Some((live.encoded(&self.clock)?, live.tick)));
        task.write_json(&mut out, tick.as_ref().map(|(json, tick)| (json, *tick)));
        drop(live);
        out
    }

    /// A tick of a running attempt. Costs one look-up: it is encoded when somebody is about to see it.
    pub(super) fn tick(&self, task_id: TaskId, attempt: u32, progress: Progress) -> Result<Heard, Refusal> {
        let mut live = self.held(task_id, attempt)?;
        live.progress = Some(progress);
        live.tick += 1;
        live.speaks(&self.clock);
        live.line = None;
        if !std::mem::replace(&mut live.unkept, true) {
            self.unkept.lock().push(task_id);
        }
        Ok(live.heard())
    }

    /// A checkpoint of a running attempt, or a part of its result.
    pub(super) fn checkpoint(&self, task_id: TaskId, attempt: u32) -> Result<Heard, Refusal> {
        let mut live = self.held(task_id, attempt)?;
        live.speaks(&self.clock);
        Ok(live.heard())
    }

    /// Whether an attempt is the running one.
    pub(super) fn check(&self, task_id: TaskId, attempt: u32) -> Result<Heard, Refusal> {
        let live = self.held(task_id, attempt)?;
        Ok(live.heard())
    }

    /// Whether it is news to the writer that a worker was told to stop an attempt; so once.
    pub(super) fn is_first_told(&self, task_id: TaskId, attempt: u32) -> bool {
        let told = self
            .held(task_id, attempt)
            .map(|mut live| live.cancel_requested && !std::mem::replace(&mut live.cancel_delivered, true));
        told.unwrap_or(false)
    }

    /// Whether it is time to tell the writer that an attempt lives, which then counts as done; at most once in `every_ms`.
    pub(super) fn renews(&self, task_id: TaskId, attempt: u32, now_ms: u64, every_ms: u64) -> bool {
        let Ok(mut live) = self.held(task_id, attempt) else { return false };
        let is_due = live.renewed_ms.is_none_or(|renewed_ms| now_ms.saturating_sub(renewed_ms) >= every_ms);
        if is_due {
            live.renewed_ms = Some(now_ms);
        }
        is_due
    }

    /// Numbers log lines of a running attempt and passes them on. Both happen as one, so that lines leave in the order of
    /// their numbers.
    pub(super) fn number_lines(
        &self,
        task_id: TaskId,
        attempt: u32,
        lines: Vec<(Level, String)>,
        pass_on: impl FnOnce(Arc<[LogLine]>),
    ) -> Result<Heard, HubError> {
        let mut live = self.held(task_id, attempt).map_err(HubError::Refused)?;
        let mut end = live.log_end.ok_or(HubError::StorageUnavailable)?;
        // Read while no other line of the task can be numbered, so that times are in the order of numbers.
        let now = self.clock.now().at;
        let lines = lines.into_iter().map(|(level, message)| {
            end += 1;
            LogLine { seq: end, at: now, attempt, level, message: cut_line(message) }
        });
        let lines: Arc<[LogLine]> = lines.collect();
        live.log_end = Some(end);
        if !lines.is_empty() {
            live.speaks(&self.clock);
            pass_on(lines);
        }
        Ok(live.heard())
    }

    fn held(&self, task_id: TaskId, attempt: u32) -> Result<dashmap::mapref::one::RefMut<'_, TaskId, Live>, Refusal> {
        match self.live.get_mut(&task_id) {
            // A workflow runs, and nobody has it.
            Some(live) if live.attempt == attempt && attempt > 0 => Ok(live),
            _ => Err(Refusal::LeaseLost),
        }
    }

    /// Takes the newest tick of each running task that was not kept since the last call.
    pub(super) fn take_unkept(&self) -> Vec<(TaskId, u64, Json)> {
        let task_ids = std::mem::take(&mut *self.unkept.lock());
        let mut ticks = Vec::new();
        for task_id in task_ids {
            if let Some(mut live) = self.live.get_mut(&task_id) {
                live.unkept = false;
                if let Some(json) = live.encoded(&self.clock) {
                    ticks.push((task_id, live.rev, json));
                }
            }
        }
        ticks
    }

    /// The newest tick's event of each running task that matches.
    /// At most of records up to `rev`: a client that has not seen a later one yet would take it for known.
    pub(super) fn progress_lines(&self, filter: &Filter, rev: u64) -> Vec<Bytes> {
        // Who names tasks is answered without a look at the others.
        let running: Vec<TaskId> = match &filter.task_id {
            Some(ids) => ids.iter().copied().collect(),
            None => self.live.iter().map(|live| *live.key()).collect(),
        };
        running
            .into_iter()
            .filter(|id| self.tasks.get(id).is_some_and(|task| filter.matches(&task)))
            .filter_map(|id| self.progress(id).filter(|tick| tick.rev <= rev).map(|tick| tick.line))
            .collect()
    }

    /// Counts of tasks: of each status, and of unfinished ones in each queue and of each type; of the largest where these
    /// are many.
    pub(super) fn stats(&self) -> crate::wire::Stats {
        // Commits take this lock too, so what is made of the numbers is made without it.
        let (by_status, by_queue, by_type, rates) = {
            let mut counts = self.counts.lock();
            let rates = counts.rates.read(self.clock.mono());
            let by_status = counts.by_status.clone();
            let (all, now) = (UnfinishedCounts::of(&by_status), Instant::now());
            (by_status, counts.by_queue.told(all, now), counts.by_type.told(all, now), rates)
        };
        self.told(by_status, (by_queue, by_type), rates)
    }

    /// The same of one user's tasks.
    pub(super) fn stats_of(&self, user: &Name) -> crate::wire::Stats {
        let (by_status, by_queue, by_type, rates) = {
            let mut counts = self.counts.lock();
            let rates = counts.user_rates.read(user, self.clock.mono());
            let (by_status, by_queue, by_type) = counts.by_user.told(user, Instant::now());
            (by_status, by_queue, by_type, rates)
        };
        self.told(by_status, (by_queue, by_type), rates)
    }

    fn told(
        &self,
        by_status: BTreeMap<Status, u64>,
        (by_queue, by_type): (Told, Told),
        rates: crate::wire::Rates,
    ) -> crate::wire::Stats {
        let of = |status| by_status.get(&status).copied().unwrap_or(0);
        let ((queues, queues_other), (types, types_other)) = (by_queue.stats(), by_type.stats());
        crate::wire::Stats {
            tasks: crate::wire::TaskCounts {
                waiting: of(Status::Waiting),
                scheduled: of(Status::Scheduled),
                pending: of(Status::Pending),
                running: of(Status::Running),
                completed: of(Status::Completed),
                failed: of(Status::Failed),
                cancelled: of(Status::Cancelled),
            },
            queues,
            queues_other,
            types,
            types_other,
            rates,
            rev: self.rev(),
            ..Default::default()
        }
    }
}

impl Live {
    fn heard(&self) -> Heard {
        Heard { cancel_requested: self.cancel_requested, rev: self.rev, workflow_id: self.workflow_id }
    }

    /// It reports something.
    fn speaks(&mut self, clock: &Clock) {
        if let Some(spoke) = &mut self.spoke {
            *spoke = clock.now().lived;
        }
    }

    /// The newest tick as JSON, with an estimate of the time left.
    fn encoded(&self, clock: &Clock) -> Option<Json> {
        let mut progress = self.progress.clone()?;
        progress.eta_ms = progress.percentage.filter(|done| *done > 0.0 && *done < 100.0).map(|done| {
            let elapsed = (clock.mono() as i64 - self.began).max(0) as f64;
            (elapsed * (100.0 - done) / done) as u64
        });
        // Beyond this it is no estimate.
        progress.eta_ms = progress.eta_ms.filter(|millis| *millis <= ETA_MS_MAX);
        progress.encode().ok()
    }
}

impl Counts {
    fn count(&mut self, old: Option<&Task>, new: Option<&Task>) {
        // Of a task its queue, its type and its user stay as they are.
        let Some(task) = new.or(old) else { return };
        let (from, to) = (old.map(|task| task.status), new.map(|task| task.status));
        for (status, by) in from.map(|status| (status, -1)).into_iter().chain(to.map(|status| (status, 1))) {
            let count = self.by_status.entry(status).or_default();
            *count = count.saturating_add_signed(by);
        }
        self.by_user.shift(task, from, to);
        let (from, to) = (unfinished(from), unfinished(to));
        self.by_queue.shift(&task.queue, from, to);
        self.by_type.shift(&task.task_type, from, to);
    }
}

impl Board {
    /// The newest tick of a running task.
    pub(super) fn newest(&self, task_id: TaskId) -> Option<Json> {
        let live = self.live.get(&task_id)?;
        if live.tick == 0 && live.progress.is_none() {
            return None;
        }
        live.progress.as_ref()?.encode().ok()
    }

    /// When an attempt last reported something, in lived time.
    pub(super) fn spoke(&self, task_id: TaskId, attempt: u32) -> Option<u64> {
        self.live.get(&task_id).filter(|live| live.attempt == attempt)?.spoke
    }
}

impl LatestState for Board {
    fn progress(&self, task_id: TaskId) -> Option<Tick> {
        let mut live = self.live.get_mut(&task_id)?;
        if live.tick == 0 {
            return None;
        }
        if live.rollup.is_some() && live.line.is_none() {
            drop(live);
            self.refresh_workflow(task_id);
            live = self.live.get_mut(&task_id)?;
        }
        let line = match &live.line {
            Some(line) => line.clone(),
            None => {
                let line = progress_line(task_id, &live, &self.clock)?;
                live.line = Some(line.clone());
                line
            }
        };
        Some(Tick { rev: live.rev, tick: live.tick, line })
    }

    fn task(&self, task_id: TaskId) -> Option<Arc<Task>> {
        self.get(task_id)
    }
}

fn progress_line(task_id: TaskId, live: &Live, clock: &Clock) -> Option<Bytes> {
    let json = live.encoded(clock)?;
    let line = format!(
        r#"{{"type":"progress","task_id":"{task_id}","rev":{},"tick":{},"attempt":{},"progress":{}}}"#,
        live.rev,
        live.tick,
        live.attempt,
        json.as_str()
    );
    Some(line.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::engine::Accepts;
    use crate::hub::{Hub, HubOptions};
    use crate::store::in_memory;
    use crate::task::{Name, NewTask, PatternSet, Progress};

    /// Each tick of an attempt without a socket was a command of its own to the writer.
    #[tokio::test]
    async fn an_attempt_that_ticks_without_end_is_renewed_now_and_then() {
        let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
        hub.submit_all(vec![NewTask::new("t")], None).await.unwrap();
        let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
        let handed = hub.claim(Name::new("w"), accepts, 1, Duration::from_secs(60)).await.unwrap();
        let (task_id, attempt) = (handed[0].task.task_id, handed[0].task.attempt);

        hub.progress(task_id, attempt, Some(Progress::percent(1.0)), None).await.unwrap();
        let board = &hub.shared().board;
        let renewed_ms = board.live.get(&task_id).unwrap().renewed_ms.expect("the first tick renews");
        assert!(!board.renews(task_id, attempt, renewed_ms + 499, 500));
        assert!(board.renews(task_id, attempt, renewed_ms + 500, 500));
        assert!(!board.renews(task_id, attempt, renewed_ms + 999, 500));
        assert!(
            !board.renews(task_id, attempt + 1, renewed_ms + 9_000, 500),
            "another attempt is no matter of this one"
        );
    }
}
