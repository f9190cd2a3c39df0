//! A shard: the clients of one core, who wants what among them, and how fast.
//!
//! [`run`] is the future; it only chooses when. Everything else is plain functions of what came in and of `now`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Cell, ClientId, SubNumber};
use super::handle::{Published, Tick, Truth};
use super::inbox::{Inbox, Merged, Op, Subscribe};
use super::index::{Hit, Index, Seat, States, Sub, SubKey};
use super::pulses::Pulses;
use super::throttle::{self, Throttle};
use super::watch::Watches;
use crate::task::{Status, TaskId};

/// After this many lines a shard lets the other futures of its core have a turn.
const LINES_PER_TURN: usize = 4_096;

pub(super) struct Shard {
    number: usize,
    truth: Arc<dyn Truth>,
    pulses: Arc<Pulses>,
    /// Only in the first shard.
    watches: Option<Arc<Watches>>,
    max_hz: f64,
    interval: Duration,
    /// Everything up to here is in the outboxes.
    pub rev: u64,
    index: Index,
    seats: Vec<Option<Seated>>,
    free: Vec<Seat>,
    seat_of: HashMap<ClientId, Seat>,
    /// Paces the tasks: the hub's rate.
    tasks: Throttle<TaskId, ()>,
    /// Paces single clients that asked for less.
    clients: Throttle<(ClientId, TaskId), Tick>,
    /// Ticked, but their newest transition has not been handed over yet.
    early: Vec<TaskId>,
    hits: Vec<Hit>,
    /// Seats that got lines since clients were last woken.
    touched: Vec<Seat>,
    /// Lines handed over since the last turn began.
    lines: usize,
}

struct Seated {
    client_id: ClientId,
    cell: Arc<Cell>,
    subs: Vec<(SubNumber, SubKey)>,
    touched: bool,
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
        let Some(waiting) = inbox.take() else { return };
        for op in waiting.ops {
            shard.op(op);
        }
        for batch in waiting.batches {
            shard.batch(&batch);
            shard.wake();
            inbox.set_handed_rev(shard.rev);
            shard.turn().await;
        }
        if let Some(merged) = waiting.merged {
            shard.merged(merged);
            shard.wake();
            inbox.set_handed_rev(shard.rev);
        }
        shard.ticks(waiting.ticks, tokio::time::Instant::now().into_std());
        shard.wake();
        shard.turn().await;
    }
}

impl Shard {
    pub fn new(
        number: usize,
        rev: u64,
        max_hz: f64,
        truth: Arc<dyn Truth>,
        pulses: Arc<Pulses>,
        watches: Option<Arc<Watches>>,
    ) -> Shard {
        Shard {
            number,
            truth,
            pulses,
            watches,
            max_hz,
            interval: throttle::interval(max_hz),
            rev,
            index: Index::default(),
            seats: Vec::new(),
            free: Vec::new(),
            seat_of: HashMap::new(),
            tasks: Throttle::default(),
            clients: Throttle::default(),
            early: Vec::new(),
            hits: Vec::new(),
            touched: Vec::new(),
            lines: 0,
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        [self.tasks.next_at(), self.clients.next_at()].into_iter().flatten().min()
    }

    pub fn op(&mut self, op: Op) {
        match op {
            Op::Attach(client_id, cell) => {
                let seated = Seated { client_id, cell, subs: Vec::new(), touched: false };
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
                    seated.subs.push((sub, self.index.insert(Sub { seat, filter, scope, hz })));
                    seated.cell.outbox.lock().hold();
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
        }
    }

    /// Hands over steps in order.
    pub fn batch(&mut self, batch: &[Published]) {
        for published in batch {
            self.step(published, published.states(), None);
            self.rev = published.rev;
        }
    }

    /// Hands over the newest step of each task, where the shard fell behind.
    pub fn merged(&mut self, merged: Merged) {
        let mut tasks: Vec<_> = merged.tasks.into_values().collect();
        tasks.sort_by_key(|task| task.newest.rev);
        for task in &tasks {
            self.step(&task.newest, task.states, Some(task.len));
        }
        self.rev = merged.rev;
    }

    fn step(&mut self, published: &Published, states: States, merged: Option<u64>) {
        let Published { rev, task, line, .. } = published;
        let task_id = task.task_id;
        if let Some(watches) = &self.watches {
            watches.tell(task_id, *rev);
            if task.status != Status::Running {
                self.pulses.forget(task_id);
            }
        }
        self.index.audience(task, states, &mut self.hits);
        for hit in &self.hits {
            let Some(seated) = &mut self.seats[hit.seat as usize] else { continue };
            // A tick that still waits is older than this record.
            self.clients.forget(&(seated.client_id, task_id));
            let mut outbox = seated.cell.outbox.lock();
            match merged {
                None => outbox.transition(task_id, *rev, line.clone()),
                Some(len) => outbox.merged(task_id, line.clone(), len),
            }
            drop(outbox);
            touch(&mut self.touched, hit.seat, seated);
            self.lines += 1;
        }
    }

    /// Tells progress: of the tasks that just ticked, of those that were early, and of those whose turn has come.
    pub fn ticks(&mut self, ticked: Vec<TaskId>, now: Instant) {
        for task_id in std::mem::take(&mut self.early) {
            // Told now in any case; the offer is for what comes after to be paced from here.
            self.tasks.offer(task_id, (), self.interval, now);
            self.progress(task_id, now);
        }
        for task_id in ticked {
            if self.tasks.offer(task_id, (), self.interval, now).is_some() {
                self.progress(task_id, now);
            }
        }
        while let Some((task_id, ())) = self.tasks.due(now) {
            self.progress(task_id, now);
        }
        while let Some(((client_id, task_id), tick)) = self.clients.due(now) {
            self.late_progress(client_id, task_id, tick);
        }
    }

    /// Tells the newest tick of a task to everyone who wants it.
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
        if tick.rev > self.rev {
            // The transition is on its way, and the look is repeated right after it.
            if !self.early.contains(&task_id) {
                self.early.push(task_id);
            }
            return;
        }
        if !self.tasks.is_news(task_id, (tick.rev, tick.tick)) {
            return;
        }
        for hit in &self.hits {
            let Some(seated) = &mut self.seats[hit.seat as usize] else { continue };
            let key = (seated.client_id, task_id);
            if hit.hz < self.max_hz {
                let Some(tick) = self.clients.offer(key, tick.clone(), throttle::interval(hit.hz), now) else {
                    continue;
                };
                seated.cell.outbox.lock().progress(task_id, tick.line);
            } else {
                self.clients.forget(&key);
                seated.cell.outbox.lock().progress(task_id, tick.line.clone());
            }
            touch(&mut self.touched, hit.seat, seated);
            self.lines += 1;
        }
    }

    /// Tells a tick that waited for the pace of one client, if the client still wants it.
    fn late_progress(&mut self, client_id: ClientId, task_id: TaskId, tick: Tick) {
        let Some(&seat) = self.seat_of.get(&client_id) else { return };
        let Some(seated) = &mut self.seats[seat as usize] else { return };
        // Where a transition followed, its record has the tick.
        let Some(task) = self.truth.task(task_id).filter(|task| task.rev == tick.rev) else { return };
        let keys = seated.subs.iter().map(|(_, key)| *key);
        if self.index.rate(keys, &task).is_none() {
            return;
        }
        seated.cell.outbox.lock().progress(task_id, tick.line);
        touch(&mut self.touched, seat, seated);
        self.lines += 1;
    }

    /// Wakes every client that got lines.
    pub fn wake(&mut self) {
        for seat in self.touched.drain(..) {
            if let Some(seated) = &mut self.seats[seat as usize] {
                seated.touched = false;
                seated.cell.wake();
            }
        }
    }

    async fn turn(&mut self) {
        if self.lines >= LINES_PER_TURN {
            self.lines = 0;
            tokio::task::yield_now().await;
        }
    }
}

fn touch(touched: &mut Vec<Seat>, seat: Seat, seated: &mut Seated) {
    if !std::mem::replace(&mut seated.touched, true) {
        touched.push(seat);
    }
}
