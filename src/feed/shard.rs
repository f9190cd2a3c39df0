//! A shard: the clients of one core, who wants what among them, and how fast.
//!
//! [`run`] is the future; it chooses when. A *round* then goes through all that came in, in order: what clients asked, steps,
//! ticks. Each line finds its audience and moves it on in the [`Sweep`]; when the sweep is full, or everything was looked
//! at, it is told: each client gets its message, or has its lines queued. Last comes what is due by the clock. A round
//! depends on what came in and on `now`, and awaits nothing but a turn for other futures.

use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;

use super::cell::{Cell, End};
use super::client::{ClientId, SubNumber};
use super::handle::{Meter, Published, Tick, Truth};
use super::inbox::{Inbox, Op, Subscribe, Waiting};
use super::index::{Hit, Index, Seat, States, Sub, SubKey};
use super::outbox::Outbox;
use super::pulses::Pulses;
use super::rounds::{MARK_WITH, Rounds};
use super::sweep::{Line, LineKind, Node, ROOT, Sweep, Told, ping_message, text_message};
use super::throttle::{self, Throttle};
use super::watch::Watches;
use crate::task::{Status, TaskId};

/// A client of whom nothing was heard between so many pings is gone.
const SILENT_PINGS: u8 = 2;
/// After so much work a shard lets the other futures of its core have a turn: about a millisecond. A unit is what it takes
/// to give a line to a client.
const WORK_PER_TURN: usize = 16_384;
/// What it takes to write to a client.
const WRITE_WORK: usize = 128;
/// What it takes to do what a client asks, beside what grows with its filter.
const OP_WORK: usize = 32;

pub(super) struct Shard {
    number: usize,
    truth: Arc<dyn Truth>,
    meter: Arc<dyn Meter>,
    pulses: Arc<Pulses>,
    /// Only in the first shard.
    watches: Option<Arc<Watches>>,
    pace: Pace,
    /// Everything up to here was handed to the clients.
    rev: u64,
    index: Index,
    seats: Vec<Option<Seated>>,
    free: Vec<Seat>,
    seat_of: HashMap<ClientId, Seat>,
    /// Paces the tasks: the hub's rate.
    tasks: Throttle<TaskId, ()>,
    /// Paces single clients that asked for less.
    clients: Throttle<(ClientId, TaskId), Tick>,
    /// Ticked, but their newest transition has not been handed over yet.
    early: HashSet<TaskId>,
    hits: Vec<Hit>,
    /// What is being handed over now: all of it after `rev`, and up to `sweep_rev`.
    sweep: Sweep,
    sweep_rev: u64,
    /// When the commits that end in this sweep were published.
    sweep_since: Vec<Instant>,
    /// Seats that get something in this sweep.
    touched: Vec<Seat>,
    /// Seats that may be owed a mark.
    owed: Vec<Seat>,
    rounds: Rounds,
    /// Since others had a turn.
    work: usize,
}

/// How fast things are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The most progress ticks of one task that a client is told in a second.
    pub max_hz: f64,
    /// A ping and a mark for everyone, this often.
    pub ping: Duration,
}

struct Seated {
    client_id: ClientId,
    cell: Arc<Cell>,
    subs: Vec<(SubNumber, SubKey)>,
    /// Where it stands in this sweep.
    node: Node,
    marked_at: Instant,
    /// It was told something after its last mark, and stands in `Shard::owed`.
    owed: bool,
    /// Pings since something was heard.
    silent: u8,
}

/// Runs a shard until its inbox is closed.
pub(super) async fn run(mut shard: Shard, inbox: Arc<Inbox>) {
    loop {
        match shard.next_at() {
            None => inbox.woken().await,
            Some(at) => tokio::select! {
                _ = inbox.woken() => {}
                _ = tokio::time::sleep_until(at.into()) => {}
            },
        }
        let Some(mut waiting) = inbox.take() else { return };
        let rev = waiting.rev().unwrap_or(shard.rev);
        let now = tokio::time::Instant::now().into_std();
        if AssertUnwindSafe(shard.round(&mut waiting, now, &inbox)).catch_unwind().await.is_err() {
            // Nobody knows what its clients were told. They come back, and resume.
            tracing::error!(shard = shard.number, "a shard of the feed failed: its clients are sent away");
            shard = shard.anew(rev);
            waiting.ops.into_iter().for_each(|op| shard.lose(op, now));
            inbox.set_handed_rev(rev);
        }
        inbox.set_idle();
    }
}

impl Shard {
    pub fn new(
        number: usize,
        rev: u64,
        pace: Pace,
        truth: Arc<dyn Truth>,
        meter: Arc<dyn Meter>,
        pulses: Arc<Pulses>,
        watches: Option<Arc<Watches>>,
    ) -> Shard {
        Shard {
            number,
            truth,
            meter,
            pulses,
            watches,
            pace,
            rev,
            index: Index::default(),
            seats: Vec::new(),
            free: Vec::new(),
            seat_of: HashMap::new(),
            tasks: Throttle::default(),
            clients: Throttle::default(),
            early: HashSet::new(),
            hits: Vec::new(),
            sweep: Sweep::default(),
            sweep_rev: rev,
            sweep_since: Vec::new(),
            touched: Vec::new(),
            owed: Vec::new(),
            rounds: Rounds::new(pace.ping),
            work: 0,
        }
    }

    /// One without clients, that has handed over everything up to `rev`. Those of this one end.
    fn anew(self, rev: u64) -> Shard {
        for seated in self.seats.iter().flatten() {
            seated.cell.end(End::Lost);
        }
        self.pulses.clear_all(self.number);
        self.watches.iter().for_each(|watches| watches.tell_all());
        let anew = Shard::new(self.number, rev, self.pace, self.truth, self.meter, self.pulses, self.watches);
        Shard { rounds: self.rounds, ..anew }
    }

    /// What was asked of the shard before it failed. Who would have become a client by it, ends.
    fn lose(&mut self, op: Op, now: Instant) {
        match op {
            Op::Attach(_, cell) => cell.end(End::Lost),
            Op::Dismiss(window) => self.rounds.leave(now, window),
            Op::Subscribe(_) | Op::Unsubscribe(..) | Op::Detach(_) => {}
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        [self.tasks.next_at(), self.clients.next_at(), self.rounds.next_at()].into_iter().flatten().min()
    }

    /// Does all that came in, and what is due.
    pub async fn round(&mut self, waiting: &mut Waiting, now: Instant, inbox: &Inbox) {
        while let Some(op) = waiting.ops.pop_front() {
            let places = if let Op::Subscribe(subscribe) = &op { subscribe.filter.values_len() } else { 0 };
            self.op(op, now);
            self.breathe(OP_WORK + 4 * places).await;
        }
        for batch in take(&mut waiting.batches) {
            for published in batch.steps.iter() {
                self.step(published, published.states(), LineKind::Transition { rev: published.rev });
                self.sweep_rev = published.rev;
                self.breathe(self.hits.len()).await;
                self.tell_if_full(now, inbox).await;
            }
            self.sweep_since.push(batch.since);
        }
        if let Some(merged) = waiting.merged.take() {
            let mut tasks: Vec<_> = merged.tasks.into_values().collect();
            tasks.sort_by_key(|task| task.newest.rev);
            for task in &tasks {
                self.step(&task.newest, task.states, LineKind::Merged { len: task.len });
                self.breathe(self.hits.len()).await;
                self.tell_if_full(now, inbox).await;
            }
            self.sweep_rev = merged.rev;
            self.sweep_since.extend(merged.since);
        }
        self.sweep_rev = self.sweep_rev.max(waiting.passed_rev.unwrap_or(0));
        for task_id in self.ticks(take(&mut waiting.ticks), now) {
            self.progress(task_id, now);
            self.breathe(self.hits.len()).await;
            self.tell_if_full(now, inbox).await;
        }
        while let Some(((client_id, task_id), tick)) = self.clients.due(now) {
            self.late_progress(client_id, task_id, tick);
            self.tell_if_full(now, inbox).await;
        }
        self.tell(now, inbox).await;
        self.on_time(now).await;
    }

    fn op(&mut self, op: Op, now: Instant) {
        match op {
            Op::Attach(client_id, cell) => {
                if self.rounds.is_leaving() {
                    cell.end(End::Dismissed);
                }
                if cell.has_pipe() {
                    self.rounds.begin_pings(now);
                }
                let subs = Vec::new();
                let seated = Seated { client_id, cell, subs, node: ROOT, marked_at: now, owed: false, silent: 0 };
                let seat = self.free.pop().unwrap_or_else(|| {
                    self.seats.push(None);
                    (self.seats.len() - 1) as Seat
                });
                self.seats[seat as usize] = Some(seated);
                self.seat_of.insert(client_id, seat);
            }
            Op::Subscribe(Subscribe { client_id, sub, filter, scope, hz, done }) => {
                if let Some(&seat) = self.seat_of.get(&client_id)
                    && let Some(seated) = &mut self.seats[seat as usize]
                {
                    seated.subs.reserve_exact(1);
                    seated.subs.push((sub, self.index.insert(Sub { seat, filter, scope, hz })));
                    seated.cell.put(Outbox::hold);
                }
                // Nobody minds if the client has left in the meantime.
                let _ = done.send(());
            }
            Op::Unsubscribe(client_id, sub) => {
                if let Some(&seat) = self.seat_of.get(&client_id)
                    && let Some(seated) = &mut self.seats[seat as usize]
                    && let Some(at) = seated.subs.iter().position(|(number, _)| *number == sub)
                {
                    self.index.remove(seated.subs.swap_remove(at).1);
                }
            }
            Op::Detach(client_id) => {
                if let Some(seat) = self.seat_of.remove(&client_id)
                    && let Some(seated) = self.seats[seat as usize].take()
                {
                    seated.subs.into_iter().for_each(|(_, key)| self.index.remove(key));
                    self.free.push(seat);
                }
            }
            Op::Dismiss(window) => self.rounds.leave(now, window),
        }
    }

    /// Finds out who is told of a step.
    fn step(&mut self, published: &Published, states: States, kind: LineKind) {
        let Published { rev, task, line, .. } = published;
        let task_id = task.task_id;
        if let Some(watches) = &self.watches {
            watches.tell(task_id, *rev);
            if task.status != Status::Running {
                self.pulses.forget(task_id);
            }
        }
        self.index.audience(task, states, &mut self.hits);
        if self.hits.is_empty() {
            return;
        }
        self.sweep.push(Line { task_id, kind, bytes: line.clone() });
        let hits = take(&mut self.hits);
        for hit in &hits {
            // A tick that still waits is older than this record.
            if let Some(seated) = &self.seats[hit.seat as usize] {
                self.clients.forget(&(seated.client_id, task_id));
            }
            self.give(hit.seat);
        }
        self.hits = hits;
    }

    /// Gives the newest line of the sweep to the client in this seat.
    fn give(&mut self, seat: Seat) {
        let Some(seated) = &mut self.seats[seat as usize] else { return };
        if seated.node == ROOT {
            self.touched.push(seat);
        }
        seated.node = self.sweep.step(seated.node);
    }

    /// The tasks whose progress is to be told: those that just ticked, those that were early, and those whose turn has
    /// come.
    fn ticks(&mut self, ticked: Vec<TaskId>, now: Instant) -> Vec<TaskId> {
        let mut ready: Vec<TaskId> = take(&mut self.early).into_iter().collect();
        for task_id in &ready {
            // Told now in any case; the offer is for what comes after to be paced from here.
            self.tasks.offer(*task_id, (), self.interval(), now);
        }
        for task_id in ticked {
            if self.tasks.offer(task_id, (), self.interval(), now).is_some() {
                ready.push(task_id);
            }
        }
        ready.extend(std::iter::from_fn(|| self.tasks.due(now)).map(|(task_id, ())| task_id));
        ready
    }

    fn interval(&self) -> Duration {
        throttle::interval(self.pace.max_hz)
    }

    /// Finds out who is told the newest tick of a task.
    fn progress(&mut self, task_id: TaskId, now: Instant) {
        // First the bit, then the board: a tick that comes after the look finds the bit clear, and is noted.
        self.pulses.clear(task_id, self.number);
        let Some(task) = self.truth.task(task_id).filter(|task| task.status == Status::Running) else {
            return self.pulses.forget(task_id);
        };
        self.index.audience(&task, States::of(None, &task), &mut self.hits);
        if self.hits.is_empty() {
            return;
        }
        let Some(tick) = self.truth.progress(task_id) else { return };
        if tick.rev > self.sweep_rev {
            // The transition is on its way, and the look is repeated right after it.
            self.early.insert(task_id);
            return;
        }
        if !self.tasks.is_news(task_id, (tick.rev, tick.tick)) {
            return;
        }
        self.sweep.push(Line { task_id, kind: LineKind::Progress, bytes: tick.line.clone() });
        let hits = take(&mut self.hits);
        for hit in &hits {
            let Some(seated) = &self.seats[hit.seat as usize] else { continue };
            let key = (seated.client_id, task_id);
            if hit.hz < self.pace.max_hz {
                if self.clients.offer(key, tick.clone(), throttle::interval(hit.hz), now).is_none() {
                    continue;
                }
            } else {
                self.clients.forget(&key);
            }
            self.give(hit.seat);
        }
        self.hits = hits;
    }

    /// Tells a tick that waited for the pace of one client, if the client still wants it.
    fn late_progress(&mut self, client_id: ClientId, task_id: TaskId, tick: Tick) {
        let Some(&seat) = self.seat_of.get(&client_id) else { return };
        let Some(seated) = &self.seats[seat as usize] else { return };
        // Where a transition followed, its record has the tick.
        let Some(task) = self.truth.task(task_id).filter(|task| task.rev == tick.rev) else { return };
        let keys = seated.subs.iter().map(|(_, key)| *key);
        if self.index.rate(keys, &task).is_none() {
            return;
        }
        self.sweep.push(Line { task_id, kind: LineKind::Progress, bytes: tick.line });
        self.give(seat);
    }

    async fn tell_if_full(&mut self, now: Instant, inbox: &Inbox) {
        if self.sweep.is_full() {
            self.tell(now, inbox).await;
        }
    }

    /// Hands over what was found out.
    async fn tell(&mut self, now: Instant, inbox: &Inbox) {
        let (before, rev) = (self.rev, self.sweep_rev);
        let mark = mark_line(rev);
        let mut all = Told::default();
        let mut touched = take(&mut self.touched);
        for seat in touched.drain(..) {
            self.breathe(WRITE_WORK).await;
            let Some(seated) = &mut self.seats[seat as usize] else { continue };
            let node = std::mem::replace(&mut seated.node, ROOT);
            let with_mark = now.duration_since(seated.marked_at) >= MARK_WITH;
            let Some(told) = seated.cell.tell(&mut self.sweep, node, with_mark.then_some(&mark), before, rev) else {
                continue;
            };
            all.add(&told);
            if with_mark {
                (seated.owed, seated.marked_at) = (false, now);
            } else {
                self.owe_mark(seat, now);
            }
        }
        self.touched = touched;
        self.sweep.clear();
        self.rev = rev;
        inbox.set_handed_rev(rev);
        self.meter.told(all);
        for since in self.sweep_since.drain(..) {
            self.meter.told_after(self.number, since.elapsed());
        }
    }

    /// The client in this seat is told a mark soon.
    fn owe_mark(&mut self, seat: Seat, now: Instant) {
        if let Some(seated) = &mut self.seats[seat as usize]
            && !std::mem::replace(&mut seated.owed, true)
        {
            self.owed.push(seat);
            self.rounds.owe_mark(now);
        }
    }

    /// Lets the other futures of this core have a turn, once enough was done.
    async fn breathe(&mut self, work: usize) {
        self.work += work;
        if self.work >= WORK_PER_TURN {
            self.work = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Says marks, pings and goodbyes that are due.
    async fn on_time(&mut self, now: Instant) {
        if self.rounds.mark_is_due(now) {
            let mark = text_message([mark_line(self.rev)].iter());
            for seat in take(&mut self.owed) {
                let Some(seated) = self.seats[seat as usize].as_mut().filter(|seated| seated.owed) else { continue };
                seated.owed = false;
                if seated.cell.mention(&mark, self.rev) {
                    seated.marked_at = now;
                } else {
                    self.owe_mark(seat, now);
                }
                self.breathe(WRITE_WORK).await;
            }
        }
        let (rev, mut ping) = (self.rev, None);
        for seat in self.rounds.pings(now, self.seats.len()) {
            let Some(seated) = self.seats[seat].as_mut().filter(|seated| seated.cell.has_pipe()) else { continue };
            let ping = ping.get_or_insert_with(|| ping_message(&mark_line(rev)));
            if seated.cell.mention(ping, rev) {
                seated.silent = if seated.cell.take_heard() { 0 } else { seated.silent + 1 };
                (seated.owed, seated.marked_at) = (false, now);
                if seated.silent >= SILENT_PINGS {
                    seated.cell.end(End::Silent);
                }
            } else {
                // Its holder writes just now, and sees whether anything is taken.
                seated.silent = 0;
                self.owe_mark(seat as Seat, now);
            }
            self.breathe(WRITE_WORK).await;
        }
        let leavers = self.rounds.leavers(now, self.seats.len());
        for seated in self.seats.get(leavers).into_iter().flatten().flatten() {
            seated.cell.end(End::Dismissed);
        }
    }
}

fn mark_line(rev: u64) -> Bytes {
    format!(r#"{{"type":"mark","rev":{rev}}}"#).into()
}
