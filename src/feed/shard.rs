//! A shard: the clients of one core, with their subscriptions and what is pending for them.
//!
//! [`run`] is the future; it chooses when. As long as there is anything to do it [goes on](Shard::go_on): it does what
//! clients asked, matches what was published, in order (each message is enqueued for the clients it is for), sends to the
//! next few clients of the [send queue](super::send_queue), and does what is due by the clock. Each of these depends on what
//! came in and on `now`, and awaits nothing but that other futures are let in.

use std::collections::{HashMap, VecDeque};
use std::mem::take;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;

use super::backlog::{Backlog, News};
use super::client::{ClientId, SubNumber};
use super::delivery::{DeliveryState, End};
use super::handle::{LatestState, Meter, Published, Tick};
use super::inbox::{Inbox, Op, Subscribe, Waiting};
use super::index::{ClientSlot, Hit, Index, States, Sub, SubKey};
use super::keepalive::{Keepalive, MARK_WITH};
use super::outbox::Outbox;
use super::pacing::{DirtyTicks, Pacing};
use super::send_queue::{Delivered, Message, MessageKind, Pending, SendQueue, ping_frame, text_frame};
use super::watch::Watches;
use crate::task::{Status, TaskId};

/// A client from which nothing was received between so many pings is gone.
pub const SILENT_PINGS: u8 = 2;
/// After so much work a shard lets in the other futures of its core: about a millisecond. A unit is what it takes to
/// enqueue a message for a client.
const WORK_AT_ONCE: usize = 16_384;
/// What it takes to write to a client.
const WRITE_WORK: usize = 128;
/// So many clients are sent to before the shard looks at what came in meanwhile: about a tenth of a millisecond.
pub(super) const CLIENTS_AT_ONCE: usize = 16;
/// What it takes to look at something, beside what grows with its audience.
const LOOK_WORK: usize = 8;
/// What it takes to do what a client asks, beside what grows with its filter.
const OP_WORK: usize = 32;

pub(super) struct Shard {
    number: usize,
    latest: Arc<dyn LatestState>,
    meter: Arc<dyn Meter>,
    dirty: Arc<DirtyTicks>,
    /// Only in the first shard.
    watches: Option<Arc<Watches>>,
    pace: Pace,
    backlog: Backlog,
    /// How many backlogs were merged.
    merges: u64,
    /// Every transition up to here was matched, and enqueued for the clients it is for.
    matched_rev: u64,
    /// The last mark that was due, and its `rev`.
    mark: (u64, Bytes),
    index: Index,
    /// By slot.
    entries: Vec<Option<ClientEntry>>,
    free_slots: Vec<ClientSlot>,
    slot_of: HashMap<ClientId, ClientSlot>,
    pacing: Pacing,
    hits: Vec<Hit>,
    send_queue: SendQueue,
    /// Commits of which something is still queued for a client, or not matched: their last `rev`, and when they were
    /// published.
    undelivered: VecDeque<(u64, Instant)>,
    /// Written, and not counted yet.
    delivered: Delivered,
    keepalive: Keepalive,
    /// Since others were let in.
    work: usize,
}

/// How fast messages are sent, and how much at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The most progress ticks of one task that a client is sent in a second.
    pub max_hz: f64,
    /// A ping and a mark for everyone, this often.
    pub ping: Duration,
    /// No message is matched while so many bytes are pending.
    pub pending_bytes_max: usize,
}

struct ClientEntry {
    client_id: ClientId,
    delivery: Arc<DeliveryState>,
    subs: Vec<(SubNumber, SubKey)>,
    pending: Pending,
    marked_at: Instant,
    /// Since when a mark is scheduled for it.
    unmarked: Option<Instant>,
    /// The last merged backlog of which it was sent a part.
    merge: Option<u64>,
    /// Pings since something was received.
    silent: u8,
}

impl ClientEntry {
    /// Whether it was sent some of the tasks that are `merging`, and maybe not all: until then it can resume only from the mark
    /// it had before.
    fn is_midway(&self, merging: Option<u64>) -> bool {
        merging.is_some() && self.merge == merging
    }
}

/// Runs a shard until its inbox is closed.
pub(super) async fn run(mut shard: Shard, inbox: Arc<Inbox>) {
    loop {
        if !shard.is_busy() {
            match shard.next_at() {
                None => inbox.woken().await,
                Some(at) => tokio::select! {
                    _ = inbox.woken() => {}
                    _ = tokio::time::sleep_until(at.into()) => {}
                },
            }
        }
        let now = tokio::time::Instant::now().into_std();
        let Some(mut waiting) = shard.take(now, &inbox) else { return };
        if AssertUnwindSafe(shard.go_on(&mut waiting, CLIENTS_AT_ONCE, now, &inbox)).catch_unwind().await.is_err() {
            // What its clients were sent is not known. They reconnect, and resume from their marks.
            tracing::error!(shard = shard.number, "a shard of the feed failed: its clients are sent away");
            let published_rev = shard.undelivered.back().map_or(0, |(rev, _)| *rev);
            let rev = shard.matched_rev.max(published_rev).max(inbox.handed_rev());
            shard = shard.anew(rev);
            waiting.ops.into_iter().for_each(|op| shard.lose(op, now));
            inbox.set_handed(rev, None);
        }
    }
}

impl Shard {
    pub fn new(
        number: usize,
        rev: u64,
        pace: Pace,
        latest: Arc<dyn LatestState>,
        meter: Arc<dyn Meter>,
        dirty: Arc<DirtyTicks>,
        watches: Option<Arc<Watches>>,
    ) -> Shard {
        Shard {
            number,
            latest,
            meter,
            dirty,
            watches,
            pace,
            backlog: Backlog::default(),
            merges: 0,
            matched_rev: rev,
            mark: (rev, mark_line(rev)),
            index: Index::default(),
            entries: Vec::new(),
            free_slots: Vec::new(),
            slot_of: HashMap::new(),
            pacing: Pacing::new(pace.max_hz),
            hits: Vec::new(),
            send_queue: SendQueue::new(pace.pending_bytes_max),
            undelivered: VecDeque::new(),
            delivered: Delivered::default(),
            keepalive: Keepalive::new(pace.ping),
            work: 0,
        }
    }

    /// One without clients, that has handed over everything up to `rev`. Those of this one end.
    pub fn anew(self, rev: u64) -> Shard {
        for entry in self.entries.iter().flatten() {
            entry.delivery.end(End::Lost);
        }
        self.dirty.clear_all(self.number);
        self.watches.iter().for_each(|watches| watches.notify_all());
        let anew = Shard::new(self.number, rev, self.pace, self.latest, self.meter, self.dirty, self.watches);
        Shard { keepalive: self.keepalive.anew(), ..anew }
    }

    /// Drops what was asked of the shard before it failed. A client that was about to attach ends.
    fn lose(&mut self, op: Op, now: Instant) {
        match op {
            Op::Attach(_, delivery) => delivery.end(End::Lost),
            Op::Dismiss(window) => self.keepalive.leave(now, window),
            Op::Subscribe(_) | Op::Unsubscribe(..) | Op::Detach(_) => {}
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        [self.pacing.next_at(), self.keepalive.next_at()].into_iter().flatten().min()
    }

    /// Whether there is something to do now.
    pub fn is_busy(&self) -> bool {
        !self.send_queue.is_empty() || !self.backlog.is_empty() || self.pacing.is_ready()
    }

    /// Every transition up to here has left the send queue, for every client.
    fn handed_rev(&self) -> u64 {
        self.send_queue.handed_rev().unwrap_or(self.matched_rev)
    }

    /// Takes what came in; as long as not everything was looked at that was taken before, no more than what clients ask.
    /// `None` once the inbox is closed.
    pub fn take(&mut self, now: Instant, inbox: &Inbox) -> Option<Waiting> {
        let is_behind = !self.backlog.is_empty() || self.pacing.is_ready();
        let mut waiting = inbox.take(is_behind)?;
        if !is_behind {
            self.undelivered.extend(waiting.published());
            self.merges += u64::from(waiting.merged.is_some());
            self.backlog.fill(take(&mut waiting.batches), waiting.merged.take(), waiting.skipped_rev);
            self.pacing.admit(take(&mut waiting.ticks), now);
        }
        Some(waiting)
    }

    /// Does what clients asked, matches what was published, sends to so many clients, and does what is due.
    pub async fn go_on(&mut self, waiting: &mut Waiting, clients: usize, now: Instant, inbox: &Inbox) {
        while let Some(op) = waiting.ops.pop_front() {
            let places = if let Op::Subscribe(subscribe) = &op { subscribe.filter.values_len() } else { 0 };
            self.op(op, now);
            self.breathe(OP_WORK + 4 * places).await;
        }
        self.look(now).await;
        self.deliver(clients, now, inbox).await;
        self.on_time(now).await;
    }

    /// Matches what was published, as long as there is room in the send queue.
    async fn look(&mut self, now: Instant) {
        while !self.send_queue.is_full()
            && let Some(news) = self.backlog.next()
        {
            match news {
                News::Transition(transitions, at) => {
                    let published = &transitions[at];
                    self.transition(published, published.states(), MessageKind::Transition { rev: published.rev });
                    self.matched_rev = published.rev;
                }
                News::Merged(task) => self.transition(&task.newest, task.states, MessageKind::Merged { len: task.len }),
                News::UpTo(rev) => self.matched_rev = self.matched_rev.max(rev),
            }
            self.breathe(LOOK_WORK + self.hits.len()).await;
        }
        while !self.send_queue.is_full()
            && let Some(task_id) = self.pacing.next()
        {
            self.progress(task_id, now);
            self.breathe(LOOK_WORK + self.hits.len()).await;
        }
        // Also where there is no room: there may never be any.
        for _ in 0..CLIENTS_AT_ONCE {
            let Some(((client_id, task_id), tick)) = self.pacing.due(now) else { break };
            self.late_progress(client_id, task_id, tick);
            self.breathe(LOOK_WORK).await;
        }
    }

    fn op(&mut self, op: Op, now: Instant) {
        match op {
            Op::Attach(client_id, delivery) => {
                if self.keepalive.is_leaving() {
                    delivery.end(End::Dismissed);
                }
                if delivery.has_pipe() {
                    self.keepalive.begin_pings(now);
                }
                let subs = Vec::new();
                let entry = ClientEntry {
                    client_id,
                    delivery,
                    subs,
                    pending: Pending::default(),
                    marked_at: now,
                    unmarked: None,
                    merge: None,
                    silent: 0,
                };
                let slot = self.free_slots.pop().unwrap_or_else(|| {
                    self.entries.push(None);
                    (self.entries.len() - 1) as ClientSlot
                });
                self.entries[slot as usize] = Some(entry);
                self.slot_of.insert(client_id, slot);
            }
            Op::Subscribe(Subscribe { client_id, sub, filter, hz, done }) => {
                if let Some(&slot) = self.slot_of.get(&client_id) {
                    // What is pending so far is not to wait for the snapshot.
                    self.deliver_early(slot, now);
                    if let Some(entry) = &mut self.entries[slot as usize] {
                        entry.subs.reserve_exact(1);
                        entry.subs.push((sub, self.index.insert(Sub { slot, filter, hz })));
                        entry.delivery.put(Outbox::hold);
                    }
                }
                // It fails if the client has left in the meantime, and then there is no one to answer.
                let _ = done.send(());
            }
            Op::Unsubscribe(client_id, sub) => {
                if let Some(&slot) = self.slot_of.get(&client_id)
                    && let Some(entry) = &mut self.entries[slot as usize]
                    && let Some(at) = entry.subs.iter().position(|(number, _)| *number == sub)
                {
                    self.index.remove(entry.subs.swap_remove(at).1);
                }
            }
            Op::Detach(client_id) => {
                if let Some(slot) = self.slot_of.remove(&client_id)
                    && let Some(entry) = self.entries[slot as usize].take()
                {
                    entry.subs.into_iter().for_each(|(_, key)| self.index.remove(key));
                    self.send_queue.release(entry.pending);
                    self.free_slots.push(slot);
                }
            }
            Op::Dismiss(window) => self.keepalive.leave(now, window),
        }
    }

    /// Finds the clients that a transition is for, and enqueues it for them.
    fn transition(&mut self, published: &Published, states: States, kind: MessageKind) {
        let Published { rev, task, line, .. } = published;
        let task_id = task.task_id;
        if let Some(watches) = &self.watches {
            watches.notify(task_id, *rev);
            if task.status != Status::Running {
                self.dirty.forget(task_id);
            }
        }
        self.index.audience(task, states, &mut self.hits);
        if self.hits.is_empty() {
            return;
        }
        self.send_queue.push(Message { task_id, kind, bytes: line.clone() });
        let hits = take(&mut self.hits);
        for hit in &hits {
            // A tick that still waits is older than this record.
            if let Some(entry) = &self.entries[hit.slot as usize] {
                self.pacing.forget(entry.client_id, task_id);
            }
            self.enqueue(hit.slot);
        }
        self.hits = hits;
    }

    /// Enqueues the newest message for the client in this slot.
    fn enqueue(&mut self, slot: ClientSlot) {
        if let Some(entry) = &mut self.entries[slot as usize] {
            self.send_queue.enqueue(slot, &mut entry.pending, self.matched_rev);
        }
    }

    /// Finds the clients that the newest tick of a task is for, and enqueues it for them.
    fn progress(&mut self, task_id: TaskId, now: Instant) {
        // First the bit, then the board: a tick that comes after the look finds the bit clear, and is noted.
        self.dirty.clear(task_id, self.number);
        let Some(task) = self.latest.task(task_id).filter(|task| task.status == Status::Running) else {
            return self.dirty.forget(task_id);
        };
        self.index.audience(&task, States::of(None, &task), &mut self.hits);
        if self.hits.is_empty() {
            return;
        }
        let Some(tick) = self.latest.progress(task_id) else { return };
        if tick.rev > self.matched_rev {
            // The transition is on its way.
            self.pacing.hold_back(task_id);
            return;
        }
        if !self.pacing.is_news(task_id, (tick.rev, tick.tick), now) {
            return;
        }
        self.send_queue.push(Message { task_id, kind: MessageKind::Progress, bytes: tick.line.clone() });
        let hits = take(&mut self.hits);
        for hit in &hits {
            let Some(entry) = &self.entries[hit.slot as usize] else { continue };
            if self.pacing.is_due(entry.client_id, task_id, hit.hz, &tick, now) {
                self.enqueue(hit.slot);
            }
        }
        self.hits = hits;
    }

    /// Enqueues a tick that waited for the rate of one client, if a subscription of the client still covers it.
    fn late_progress(&mut self, client_id: ClientId, task_id: TaskId, tick: Tick) {
        let Some(&slot) = self.slot_of.get(&client_id) else { return };
        let Some(entry) = &self.entries[slot as usize] else { return };
        // Where a transition followed, its record has the tick.
        let Some(task) = self.latest.task(task_id).filter(|task| task.rev == tick.rev) else { return };
        let keys = entry.subs.iter().map(|(_, key)| *key);
        if self.index.rate(keys, &task).is_none() {
            return;
        }
        self.send_queue.push(Message { task_id, kind: MessageKind::Progress, bytes: tick.line });
        self.enqueue(slot);
    }

    /// Sends to the next few clients of the queue.
    async fn deliver(&mut self, clients: usize, now: Instant, inbox: &Inbox) {
        for _ in 0..clients {
            let Some(queued) = self.send_queue.next() else { break };
            if self.entries[queued.slot as usize].as_ref().is_some_and(|entry| queued.is_for(entry.pending)) {
                self.deliver_to(queued.slot, queued.handed_rev, now);
                self.breathe(WRITE_WORK).await;
            }
        }
        let handed_rev = self.handed_rev();
        let handed = self.undelivered.partition_point(|(rev, _)| *rev <= handed_rev);
        for (_, since) in self.undelivered.drain(..handed) {
            self.meter.delivered_after(self.number, since.elapsed());
        }
        inbox.set_handed(handed_rev, self.undelivered.front().map(|(_, since)| *since));
        self.meter.written(take(&mut self.delivered));
    }

    /// Delivers what is pending for the client in this slot; everything up to `handed_rev` was handed to it.
    fn deliver_to(&mut self, slot: ClientSlot, handed_rev: u64, now: Instant) {
        let merging = self.merging();
        let Some(entry) = &mut self.entries[slot as usize] else { return };
        let pending = take(&mut entry.pending);
        if merging.is_some() && self.send_queue.delivered(pending).lags > 0 {
            entry.merge = merging;
        }
        let is_due = now.duration_since(entry.marked_at) >= MARK_WITH && !entry.is_midway(merging);
        if is_due && self.mark.0 != self.matched_rev {
            self.mark = (self.matched_rev, mark_line(self.matched_rev));
        }
        let mark = is_due.then_some(&self.mark.1);
        let delivered = entry.delivery.deliver(&mut self.send_queue, pending, mark, handed_rev, self.matched_rev);
        self.send_queue.release(pending);
        let Some(delivered) = delivered else { return };
        self.delivered.add(&delivered);
        if is_due {
            (entry.unmarked, entry.marked_at) = (None, now);
        } else {
            self.schedule_mark(slot, now);
        }
    }

    /// The merged backlog that is being sent.
    fn merging(&self) -> Option<u64> {
        self.backlog.is_merged().then_some(self.merges)
    }

    /// Delivers to the client in this slot before it comes first in the queue.
    fn deliver_early(&mut self, slot: ClientSlot, now: Instant) {
        if self.entries[slot as usize].as_ref().is_some_and(|entry| !entry.pending.is_empty()) {
            self.deliver_to(slot, self.handed_rev(), now);
        }
    }

    /// The client in this slot is sent a mark soon, unless one is scheduled.
    fn schedule_mark(&mut self, slot: ClientSlot, now: Instant) {
        if let Some(entry) = &mut self.entries[slot as usize]
            && entry.unmarked.is_none()
        {
            entry.unmarked = Some(now);
            self.keepalive.schedule_mark(slot, now);
        }
    }

    /// Lets in the other futures of this core, once enough was done.
    async fn breathe(&mut self, work: usize) {
        self.work += work;
        if self.work >= WORK_AT_ONCE {
            self.work = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Sends the marks, pings and goodbyes that are due.
    async fn on_time(&mut self, now: Instant) {
        let (merging, mut mark) = (self.merging(), None);
        for _ in 0..CLIENTS_AT_ONCE {
            let Some((slot, since)) = self.keepalive.mark_due(now) else { break };
            let Some(entry) = self.entries[slot as usize].as_mut().filter(|entry| entry.unmarked == Some(since)) else {
                continue;
            };
            entry.unmarked = None;
            let mark = mark.get_or_insert_with(|| text_frame([mark_line(self.matched_rev)].iter()));
            // A client with something pending has not been handed everything.
            if entry.pending.is_empty() && !entry.is_midway(merging) && entry.delivery.write_now(mark, self.matched_rev)
            {
                entry.marked_at = now;
            } else {
                self.schedule_mark(slot, now);
            }
            self.breathe(WRITE_WORK).await;
        }
        let (rev, mut ping) = (self.matched_rev, None);
        for slot in self.keepalive.pings(now, self.entries.len()) {
            if self.entries[slot].as_ref().is_none_or(|entry| !entry.delivery.has_pipe()) {
                continue;
            }
            self.deliver_early(slot as ClientSlot, now);
            let Some(entry) = &mut self.entries[slot] else { continue };
            let ping = ping.get_or_insert_with(|| ping_frame(&mark_line(rev)));
            if entry.delivery.write_now(ping, rev) {
                entry.silent = if entry.delivery.take_heard() { 0 } else { entry.silent + 1 };
                if !entry.is_midway(merging) {
                    (entry.unmarked, entry.marked_at) = (None, now);
                }
                if entry.silent >= SILENT_PINGS {
                    entry.delivery.end(End::Silent);
                }
            } else {
                // Its own future writes just now, and sees whether anything is taken.
                entry.silent = 0;
                self.schedule_mark(slot as ClientSlot, now);
            }
            self.breathe(WRITE_WORK).await;
        }
        for slot in self.keepalive.leavers(now, self.entries.len()) {
            self.deliver_early(slot as ClientSlot, now);
            self.entries[slot].iter().for_each(|entry| entry.delivery.end(End::Dismissed));
            self.breathe(WRITE_WORK).await;
        }
    }
}

fn mark_line(rev: u64) -> Bytes {
    format!(r#"{{"type":"mark","rev":{rev}}}"#).into()
}
