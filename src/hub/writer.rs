//! The writer: the one loop that owns the truth.
//!
//! It is a plain thread. A round takes what waits, up to a bound, decides it in order, hands ready tasks to free seats, commits
//! all of it at once, and only then shows it on the board, tells the feed, hands out, and answers. So a commit is as large
//! as the load makes it, one fsync serves everyone who waited, and *nothing is visible before it is durable* holds by the
//! order of five lines in [`Writer::round`].
//!
//! While the disk works nothing else is decided. That costs no throughput, since what arrives meanwhile shares the next
//! commit, and it keeps "decided" and "durable" one batch apart at most, which is what [`Engine::revert`] can take back.
//!
//! Where what is stored is damaged, it stays so until people have decided what is to become of it: no write is tried any
//! more, and reads go on. A panic of this thread ends the hub; see [`Shared::stopped`].
//! When a commit fails, its callers hear `StorageUnavailable`, the engine is put back, and the hub says so on `/readyz`.
//! Reports of workers on sockets are kept and tried again, since there is nobody to hear a refusal. The writer probes the
//! store until it takes writes again.
//!
//! Between rounds it keeps house, in small steps: settling the store's view, keeping ticks, deleting what was retained
//! long enough.

mod encode;
mod housekeeping;
mod ledger;
mod look_up;

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::engine::{Answer, Batch, Command, Cx, Engine, Notice, Now, Refusal, Report};
use crate::feed::Published;
use crate::store::{Aside, Commit, Entry, Store, StoreError};
use crate::task::{Change, ChangeKind, Event, Name, Status, Task, TaskId};

use self::encode::encode;
use self::housekeeping::{SETTLE_STEP, SHRINK_EVERY, SWEEP_EVERY};
use self::ledger::Noted;
use self::look_up::Told;
use super::inbox::{NotTaken, ROUND_BYTES_MAX, Reply, Request, bytes_of_aside, round_len};
use super::payloads::Payloads;
use super::shared::{Body, Ended, Given, Push, Shared};
use super::{HubError, Submitted};

/// Tasks handed out in one round; more wait for the next, so that a flood of ready tasks does not hold up answers.
const HAND_OUTS_MAX: usize = 4_096;
/// Timers that go off in one round.
const TIMERS_MAX: usize = 4_096;
/// Under a flood that never leaves the inbox empty, verdicts wait for so many rounds: more than what can wait at once.
const ROUNDS_UNJUDGED_MAX: u32 = 16;
/// The view is left behind for this long when nothing presses: a task that changes again meanwhile is written once.
const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// Asides that nobody waits for go with the next commit, or after this long, or when they are this many bytes.
const ASIDES_AFTER: Duration = Duration::from_millis(200);
const ASIDES_BYTES_MAX: usize = 1 << 20;
/// How often ticks of running tasks are kept.
const KEEP_TICKS_EVERY: Duration = Duration::from_secs(1);
/// How soon a store that failed is tried again.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// The loop's own state.
pub(super) struct Writer {
    engine: Engine,
    store: Box<dyn Store>,
    shared: Arc<Shared>,
    payloads: Payloads,
    /// The newest connection of each worker on a socket.
    sessions: HashMap<Name, u64>,
    /// What waits for the next commit and for nobody.
    asides: Vec<Aside>,
    asides_bytes: usize,
    asides_since: Option<Instant>,
    /// Since when log lines wait for a commit.
    lines_since: Option<Instant>,
    /// When rows of refusals go by themselves.
    refusals_at: Option<Instant>,
    /// The numbers of the oldest and of the newest entry of the audit.
    audit: (u64, u64),
    /// Reports that a failed commit left unanswered.
    parked: Vec<Request>,
    storage: Storage,
    /// From when on what is not settled is settled though nothing presses.
    settle_at: Option<Instant>,
    /// The last round stopped for a bound: there is more to do at once.
    more: bool,
    /// Rounds since verdicts could be given.
    unjudged: u32,
    ticks_kept: Instant,
    /// When to sweep, and when to give space back.
    sweep_at: Instant,
    shrink_at: Instant,
}

/// Whether the store takes writes.
enum Storage {
    Well,
    /// Not now: it is tried again at this moment.
    Failing(Instant),
    /// Not before somebody has looked at it: what is stored is damaged, and nothing is tried any more.
    Damaged(StoreError),
}

/// A reply that waits for the commit.
struct Outcome {
    reply: Reply,
    result: Result<Answer, Refusal>,
    /// The command's own changes in the batch.
    changes: Range<usize>,
    /// What to try again if the commit fails.
    retry: Option<Command>,
}

impl Writer {
    /// `audit` are the numbers of the oldest and of the newest entry of the audit.
    pub(super) fn new(engine: Engine, store: Box<dyn Store>, shared: Arc<Shared>, audit: (u64, u64)) -> Writer {
        let now = Instant::now();
        let writer = Writer {
            engine,
            store,
            shared,
            payloads: Payloads::default(),
            sessions: HashMap::new(),
            asides: Vec::new(),
            asides_bytes: 0,
            asides_since: None,
            lines_since: None,
            refusals_at: None,
            audit,
            parked: Vec::new(),
            storage: Storage::Well,
            settle_at: None,
            more: false,
            unjudged: 0,
            ticks_kept: now,
            sweep_at: now + SWEEP_EVERY,
            shrink_at: now + SHRINK_EVERY,
        };
        writer.show_audit();
        writer
    }

    /// Begins with a store that is not whole: what recovery decided was taken back, and nothing is written.
    pub(super) fn begin_damaged(&mut self, what: String) {
        self.broke(&StoreError { step: "open the store", cause: what, lasting: true });
    }

    /// Commits what recovery decided, before anybody is answered.
    pub(super) fn begin(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        let (commit, lines) = encode(&mut batch, Vec::new());
        if !commit.is_empty() {
            self.store.append(&commit)?;
            self.publish(&commit, lines);
            self.shared.callbacks.owe(commit.owed().map(|(delivery, _)| delivery).collect());
        }
        Ok(())
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        let shared = self.shared.clone();
        // Whatever ends this thread, nobody waits for it in vain.
        let _closing = scopeguard(move || {
            shared.inbox.close();
            shared.stopped(if std::thread::panicking() { Ended::Failed } else { Ended::Well });
        });
        loop {
            let patience = self.patience();
            self.shared.clock.sleeps(patience);
            let requests = self.shared.inbox.take(patience);
            let stop = if requests.is_empty() { None } else { self.round(requests) };
            if self.more || self.due() {
                self.round(Vec::new());
            }
            if stop.is_some() {
                return self.end();
            }
            self.keep_house();
        }
    }

    fn now(&self) -> Now {
        self.shared.clock.look()
    }

    /// How long nothing needs doing.
    fn patience(&self) -> Duration {
        if self.more {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now);
        match self.storage {
            Storage::Well => {}
            Storage::Failing(at) => return until(at),
            Storage::Damaged(_) => return KEEP_TICKS_EVERY,
        }
        let timers = self.engine.next_in(self.now()).map(Duration::from_millis);
        let settle = self.settle_at.map(until);
        let asides = [self.asides_since, self.lines_since].into_iter().flatten().min();
        let asides = asides.map(|since| until(since + ASIDES_AFTER));
        let housekeeping = [until(self.ticks_kept + KEEP_TICKS_EVERY), until(self.sweep_at), until(self.shrink_at)];
        let refusals = self.refusals_at.map(until);
        timers
            .into_iter()
            .chain(settle)
            .chain(asides)
            .chain(refusals)
            .chain(housekeeping)
            .min()
            .unwrap_or(KEEP_TICKS_EVERY)
    }

    /// Whether something must be committed though nobody asked.
    fn due(&self) -> bool {
        match self.storage {
            Storage::Damaged(_) => false,
            Storage::Failing(at) => Instant::now() >= at,
            Storage::Well => {
                self.engine.next_in(self.now()) == Some(0)
                    || self.asides_bytes > ASIDES_BYTES_MAX
                    || self.refusals_at.is_some_and(|at| Instant::now() >= at)
                    || [self.asides_since, self.lines_since]
                        .iter()
                        .flatten()
                        .any(|since| since.elapsed() >= ASIDES_AFTER)
            }
        }
    }

    /// Decides, commits, shows, hands out, answers. Returns something if it met a request to stop.
    fn round(&mut self, requests: Vec<Request>) -> Option<()> {
        let now = self.now();
        let shared = self.shared.clone();
        let told = Told { board: &shared.board, reader: &*shared.reader, failed: Cell::default() };
        let (mut batch, mut outcomes, mut aside_replies) = (Batch::default(), Vec::new(), Vec::new());
        let (mut expires, mut stop) = (false, None);
        let (mut deliveries, mut noted) = (Vec::new(), Noted::default());
        let parked: Vec<_> =
            self.parked.drain(..round_len(self.parked.iter().map(Request::bytes), ROUND_BYTES_MAX)).collect();
        for request in parked.into_iter().chain(requests) {
            match request {
                Request::Command { command, reply } => {
                    expires |= matches!(command, Command::Expire { .. });
                    let cx = &mut Cx { now, ticks: &told, batch: &mut batch };
                    if let Some(mut outcome) = self.decide(command, reply, cx) {
                        noted.outcome(&mut outcome.reply, &outcome.result);
                        outcomes.push(outcome);
                    }
                }
                Request::Access { changes, row, reply } => self.take_access(changes, row, reply, &mut noted, now),
                Request::Refusals => self.refusals_at = Some(Instant::now() + ASIDES_AFTER),
                Request::Aside { aside, reply } => {
                    self.keep_aside(aside);
                    aside_replies.extend(reply);
                }
                Request::Deliveries { steps, reply } => {
                    deliveries.extend(steps);
                    aside_replies.push(reply);
                }
                Request::Lines => {}
                Request::Stop => stop = Some(()),
            }
        }
        let has_heard_all = self.has_heard_all();
        let cx = &mut Cx { now, ticks: &told, batch: &mut batch };
        self.engine.fire(cx, TIMERS_MAX);
        if has_heard_all {
            self.engine.judge(cx, TIMERS_MAX);
        }
        let more = self.engine.assign(cx, HAND_OUTS_MAX);
        self.more = more && self.is_well();

        let mut asides = self.take_asides();
        asides.extend(self.shared.unwritten.take(ended(&batch.changes)));
        let (mut commit, lines) = encode(&mut batch, asides);
        commit.deliveries = deliveries;
        self.note(&mut commit, &mut noted, now);
        match self.commit(&commit) {
            Ok(()) => {
                self.wrote_noted(&commit);
                self.shared.unwritten.written(&commit.asides);
                if expires {
                    // What is deleted does not change again: it is of no use to wait.
                    self.settle_at = Some(Instant::now());
                }
                self.look_up_log_ends(&commit);
                self.shared.set_workers(self.engine.workers());
                // The feed before those who asked: whoever has an answer and then looks at the stream finds it there.
                self.publish(&commit, lines);
                self.shared.callbacks.owe(commit.owed().map(|(delivery, _)| delivery).collect());
                self.remember_payloads(&commit);
                self.give_notice(std::mem::take(&mut batch.notices));
                if !commit.hand_outs.is_empty() {
                    self.engine.handed_out(self.shared.clock.now());
                }
                self.answer(outcomes, &commit);
                noted.answer(true);
                self.more |= !self.parked.is_empty() && self.is_well();
                for reply in aside_replies {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => {
                self.shared.metrics.commit_failed();
                self.broke(&error);
                self.lost_noted(&mut commit, noted);
                self.take_back(batch, commit, outcomes, now);
                for reply in aside_replies {
                    let _ = reply.send(Err(HubError::StorageUnavailable));
                }
            }
        }
        if let Some(error) = told.failed.take() {
            // What hangs on it is decided once it can be read.
            self.broke(&error);
        }
        self.lines_since = self.shared.unwritten.waits().then(|| self.lines_since.unwrap_or_else(Instant::now));
        self.engine.shed();
        self.shared.set_workers(self.engine.workers());
        self.shared.inbox.keep(self.asides_bytes + self.parked.iter().map(Request::bytes).sum::<usize>());
        stop
    }

    /// Whether nothing waits that was said before: then whoever is silent is silent. After a stall the inbox holds many
    /// rounds of heartbeats, and the first of them must not end the leases that the last would renew.
    fn has_heard_all(&mut self) -> bool {
        let all = self.parked.is_empty() && self.shared.inbox.is_empty();
        self.unjudged = if all || self.unjudged >= ROUNDS_UNJUDGED_MAX { 0 } else { self.unjudged + 1 };
        self.unjudged == 0
    }

    fn decide(&mut self, command: Command, reply: Reply, cx: &mut Cx<'_>) -> Option<Outcome> {
        let (command, reply) = match (command, reply) {
            // It is of use to whoever sent it, who prepares it again.
            (Command::Submit { submission, .. }, Reply::Submitter(submitter, _))
                if submission.types() != self.engine.types_version() =>
            {
                let _ = submitter.send(Err(NotTaken::TypesChanged(Box::new(submission))));
                return None;
            }
            other => other,
        };
        if let Err(error) = self.look_up(&command, cx.now) {
            self.broke(&error);
            if let Some(reply) = self.fail(reply) {
                self.parked.push(Request::Command { command, reply });
            }
            return None;
        }
        // What nobody can repeat is tried again: reports over sockets, tasks given back, and that a worker was told to
        // stop. A clone shares its bytes.
        let repeats = match &reply {
            Reply::Link { .. } => true,
            Reply::Nobody => matches!(command, Command::Report { .. } | Command::CancelDelivered { .. }),
            Reply::Caller(..) | Reply::Submitter(..) | Reply::Spawner { .. } => false,
        };
        let retry = repeats.then(|| command.clone());
        match &command {
            Command::Hello(hello) => {
                self.sessions.insert(hello.worker_id.clone(), hello.session);
            }
            Command::Left { worker_id, session } if self.sessions.get(worker_id) == Some(session) => {
                self.sessions.remove(worker_id);
            }
            _ => {}
        }
        let from = cx.batch.changes.len();
        let result = self.engine.decide(command, cx);
        Some(Outcome { reply, result, changes: from..cx.batch.changes.len(), retry })
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        if let Storage::Damaged(error) = &self.storage {
            return Err(error.clone());
        }
        if commit.is_empty() {
            // Nothing to write. If the store was broken, find out whether it still is.
            if matches!(self.storage, Storage::Failing(at) if Instant::now() >= at) {
                self.store.probe()?;
                self.mended();
            }
            return Ok(());
        }
        let begun = Instant::now();
        self.store.append(commit)?;
        self.shared.metrics.committed(commit.changes.len(), begun.elapsed());
        self.mended();
        self.settle_at.get_or_insert(begun + SETTLE_AFTER);
        Ok(())
    }

    /// Shows a commit on the board and tells the feed.
    fn publish(&mut self, commit: &Commit, lines: Vec<Bytes>) {
        if !commit.settings.is_empty() {
            self.shared.board.settings.apply(&commit.settings);
        }
        if !commit.changes.is_empty() {
            self.publish_changes(commit, lines);
        }
        // Last: tasks may have changed before a setting did.
        if let Some(last) = commit.settings.last() {
            self.shared.board.advance(last.change.rev);
        }
    }

    fn publish_changes(&mut self, commit: &Commit, lines: Vec<Bytes>) {
        self.shared.results.dropped_by(&commit.changes);
        // Before: in between a worker would see less than before and after.
        self.shared.holders.look_at(&commit.changes);
        let mut ticked = self.shared.board.apply(&commit.changes);
        ticked.extend(self.shared.board.roll_up(&commit.changes, |task_id| self.engine.rollup(task_id)));
        let published: Vec<Published> = commit
            .changes
            .iter()
            .zip(lines)
            .map(|(Entry { change, .. }, line)| Published {
                rev: change.rev,
                kind: change.kind,
                task: change.task.clone(),
                prev: change.prev.clone(),
                line,
            })
            .collect();
        self.shared.metrics.changed(commit.changes.iter().map(|entry| &entry.change));
        self.shared.feed.publish(published.into());
        for task_id in ticked {
            self.shared.feed.tick(task_id);
        }
    }

    fn remember_payloads(&mut self, commit: &Commit) {
        for Entry { change, .. } in &commit.changes {
            // The list that a task gathers is read where it is whole.
            let is_known = change.kind == ChangeKind::Transition(Event::Created) || change.payload.is_some();
            if is_known && change.item().is_none() {
                self.payloads.insert(change.task.task_id, change.payload.clone());
            }
        }
    }

    /// Hands out, and tells workers what concerns them.
    fn give_notice(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Run { worker_id, task } => {
                    let given = self.given(task);
                    self.push_to(&worker_id, Push::Run(given));
                }
                Notice::Stop { worker_id, task_id, attempt, reason } => {
                    self.push_to(&worker_id, Push::Stop { task_id, attempt, reason });
                }
                Notice::Replaced { session } => self.shared.push(session, Push::Replaced),
                Notice::Claimed { ticket, tasks } => {
                    let given: Vec<Given> = tasks.into_iter().map(|task| self.given(task)).collect();
                    if let Err(given) = self.shared.answer_claim(ticket, Ok(given)) {
                        self.give_back(given);
                    }
                }
            }
        }
    }

    /// Nobody took what a claim brought: the tasks are given back before anyone notices.
    fn give_back(&mut self, given: Vec<Given>) {
        for Given { task, .. } in given {
            let command = Command::Report { task_id: task.task_id, attempt: task.attempt, report: Report::Release };
            self.parked.push(Request::Command { command, reply: Reply::Nobody });
        }
        self.more = true;
    }

    fn given(&mut self, task: Arc<Task>) -> Given {
        let payload = self.payloads.take(task.task_id);
        // Only a first attempt can be sure that nobody left a checkpoint.
        let body = match payload {
            Some(payload) if task.attempt == 1 && !task.takes_results() => Body::Ready { payload, checkpoint: None },
            _ => Body::Stored,
        };
        Given { task, body }
    }

    fn push_to(&self, worker_id: &Name, push: Push) {
        if let Some(session) = self.sessions.get(worker_id) {
            self.shared.push(*session, push);
        }
    }

    fn answer(&mut self, outcomes: Vec<Outcome>, commit: &Commit) {
        for Outcome { reply, result, changes, .. } in outcomes {
            match reply {
                Reply::Nobody => {}
                Reply::Caller(caller, _) => {
                    let _ = caller.send(result.map_err(HubError::Refused));
                }
                Reply::Submitter(submitter, _) => {
                    let _ = submitter.send(submitted(result, &commit.changes[changes]).map_err(NotTaken::Failed));
                }
                Reply::Link { session, task_id, attempt } => {
                    let push = match result {
                        Ok(_) => Push::Ack { task_id, attempt },
                        Err(refusal) => Push::Refused { task_id, attempt, refusal },
                    };
                    self.shared.push(session, push);
                }
                Reply::Spawner { session, id, task_id, attempt } => {
                    let outcome = result.map(spawned).map_err(HubError::Refused);
                    self.shared.push(session, Push::Spawned { id, task_id, attempt, outcome });
                }
            }
        }
    }

    /// Tells whoever waits that nothing was written. Hands back a reply that nobody waits for, or a report of a socket: what it
    /// belongs to may be tried again.
    fn fail(&self, reply: Reply) -> Option<Reply> {
        let error = HubError::StorageUnavailable;
        match reply {
            Reply::Nobody | Reply::Link { .. } => return Some(reply),
            Reply::Caller(caller, _) => drop(caller.send(Err(error))),
            Reply::Submitter(submitter, _) => drop(submitter.send(Err(NotTaken::Failed(error)))),
            Reply::Spawner { session, id, task_id, attempt } => {
                self.shared.push(session, Push::Spawned { id, task_id, attempt, outcome: Err(error) });
            }
        }
        None
    }

    /// The commit failed: the engine goes back, and whoever waits is told, or tried again.
    fn take_back(&mut self, mut batch: Batch, commit: Commit, outcomes: Vec<Outcome>, now: Now) {
        for notice in std::mem::take(&mut batch.notices) {
            match notice {
                Notice::Claimed { ticket, .. } => {
                    let _ = self.shared.answer_claim(ticket, Err(HubError::StorageUnavailable));
                }
                // A connection is no change, so that it was replaced is not taken back.
                Notice::Replaced { session } => self.shared.push(session, Push::Replaced),
                Notice::Run { .. } | Notice::Stop { .. } => {}
            }
        }
        batch.changes = commit.changes.into_iter().map(|entry| entry.change).collect();
        batch.settings = commit.settings.into_iter().map(|entry| entry.change).collect();
        batch.keys = commit.keys;
        batch.hand_outs = commit.hand_outs;
        self.engine.revert(batch, now);
        self.shared.unwritten.take_back(&commit.asides);
        for aside in commit.asides {
            if !matches!(aside, Aside::Logs { .. }) {
                self.keep_aside(aside);
            }
        }
        for Outcome { reply, retry, .. } in outcomes {
            if let Some(reply) = self.fail(reply)
                && let Some(command) = retry
            {
                self.parked.push(Request::Command { command, reply });
            }
        }
    }

    /// Keeps an aside for the next commit. While the store is broken their number is bounded: the oldest ticks go.
    fn keep_aside(&mut self, aside: Aside) {
        self.asides_bytes += bytes_of_aside(&aside);
        self.asides_since.get_or_insert_with(Instant::now);
        self.asides.push(aside);
        if !self.is_well() && self.asides_bytes > 16 * ASIDES_BYTES_MAX {
            let (half, mut at) = (self.asides.len() / 2, 0);
            tracing::warn!(asides = half, "dropped ticks that could not be written");
            self.asides.retain(|aside| {
                at += 1;
                at > half || matches!(aside, Aside::Checkpoint { .. })
            });
            self.asides_bytes /= 2;
        }
    }

    fn take_asides(&mut self) -> Vec<Aside> {
        self.asides_bytes = 0;
        self.asides_since = None;
        std::mem::take(&mut self.asides)
    }

    fn is_well(&self) -> bool {
        matches!(self.storage, Storage::Well)
    }

    fn broke(&mut self, error: &StoreError) {
        self.more = false;
        if matches!(self.storage, Storage::Damaged(_)) {
            return;
        }
        if error.lasting {
            tracing::error!(
                step = error.step,
                cause = error.cause,
                "the store is damaged: it takes no writes until it is restored or accepted, and the hub started again"
            );
            self.storage = Storage::Damaged(error.clone());
        } else {
            if self.is_well() {
                tracing::error!(step = error.step, cause = error.cause, "the store does not take writes");
            }
            self.storage = Storage::Failing(Instant::now() + PROBE_EVERY);
        }
        self.shared.set_broken(Some(error.to_string()));
    }

    fn mended(&mut self) {
        if let Storage::Failing(_) = self.storage {
            tracing::info!("the store takes writes again");
            self.storage = Storage::Well;
            self.shared.set_broken(None);
        }
    }

    /// Writes what is left and closes the store.
    fn end(mut self) {
        self.refusals_at = Some(Instant::now());
        self.round(Vec::new());
        while self.is_well() && self.shared.unwritten.waits() {
            self.round(Vec::new());
        }
        while self.is_well() && self.store.unsettled().0 > 0 {
            self.settle_step(8 * SETTLE_STEP);
        }
    }
}

/// The tasks whose attempt ended with these changes.
fn ended(changes: &[Change]) -> impl Iterator<Item = TaskId> {
    let ran = |change: &&Change| change.prev.as_ref().is_some_and(|prev| prev.status == Status::Running);
    changes.iter().filter(ran).filter(|change| change.task.status != Status::Running).map(|change| change.task.task_id)
}

/// The answer to a submission. What a key brought back is read by whoever asked, not here.
fn submitted(result: Result<Answer, Refusal>, decided: &[Entry]) -> Result<Submitted, HubError> {
    match result {
        Err(refusal) => Err(HubError::Refused(refusal)),
        Ok(Answer::Replayed { task_ids, existing }) => {
            Ok(Submitted { task_ids, records: Vec::new(), existing, replayed: true })
        }
        Ok(Answer::Submitted { tasks, existing }) => {
            // Others may have had to make way, or have become what was submitted.
            let is_new = |entry: &&Entry| entry.change.kind == ChangeKind::Transition(Event::Created);
            let mut created = decided.iter().filter(is_new).map(|entry| entry.record.clone());
            let record = |(place, task): (usize, &Arc<Task>)| match existing.binary_search(&(place as u32)) {
                Ok(_) => task.to_json().into(),
                Err(_) => created.next().expect("what was not there was made"),
            };
            let records = tasks.iter().enumerate().map(record).collect();
            let task_ids = tasks.iter().map(|task| task.task_id).collect();
            Ok(Submitted { task_ids, records, existing, replayed: false })
        }
        Ok(other) => unreachable!("a submission is not answered by {other:?}"),
    }
}

/// The tasks that an attempt added, or had added before under the same key: also those that are deleted by now, for they were.
fn spawned(answer: Answer) -> Vec<TaskId> {
    match answer {
        Answer::Submitted { tasks, .. } => tasks.iter().map(|task| task.task_id).collect(),
        Answer::Replayed { task_ids, .. } => task_ids,
        other => unreachable!("a submission is not answered by {other:?}"),
    }
}

/// Runs `f` when dropped.
fn scopeguard(f: impl FnOnce()) -> impl Drop {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(f) = self.0.take() {
                f();
            }
        }
    }
    Guard(Some(f))
}
