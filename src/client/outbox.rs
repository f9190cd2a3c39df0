//! Requests that wait for their turn, so that the hub has no reason to close the connection for too many (4005): a
//! second's worth is sent at once, the others at their pace. No clock in here, `now` is an argument.

use std::collections::VecDeque;

use crate::wire::LiveOp;

/// Messages a second that a hub takes, until it has said its own number. A client keeps to half of it: on their way
/// messages gather, and come closer together than they were sent.
const MESSAGES_PER_S: u64 = 200;
/// Requests worth this much time are sent at once.
const BURST_US: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<LiveOp>,
    /// When the requests so far are paid for.
    free_at_us: u64,
    /// What one costs.
    each_us: u64,
    /// When the next of those that wait may go.
    due_at: Option<u64>,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        let mut outbox = Outbox { waiting: VecDeque::new(), free_at_us: 0, each_us: 0, due_at: None };
        outbox.begin(None);
        outbox
    }

    /// For a new connection, to a hub that takes so many messages a second.
    pub(super) fn begin(&mut self, messages_per_s: Option<u64>) {
        let each_us = BURST_US / (messages_per_s.unwrap_or(MESSAGES_PER_S) / 2).max(1);
        *self = Outbox { waiting: VecDeque::new(), free_at_us: 0, each_us, due_at: None };
    }

    pub(super) fn push(&mut self, op: LiveOp) {
        self.waiting.push_back(op);
    }

    /// Takes back the wish for a subscription. Answers whether it was still here.
    pub(super) fn withdraw(&mut self, sub: &str) -> bool {
        let waiting = self.waiting.iter().position(|op| op.op == "subscribe" && op.sub.as_deref() == Some(sub));
        waiting.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// The next that may go now.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<LiveOp> {
        let now_us = now_ms * 1_000;
        let from = self.free_at_us.max(now_us);
        let due = (from + self.each_us).saturating_sub(BURST_US);
        self.due_at = (due > now_us && !self.waiting.is_empty()).then(|| due.div_ceil(1_000));
        if self.due_at.is_some() {
            return None;
        }
        let op = self.waiting.pop_front()?;
        self.free_at_us = from + self.each_us;
        Some(op)
    }

    /// When [`next`](Self::next) has something again, if anything waits.
    pub(super) fn due_at(&self) -> Option<u64> {
        self.due_at
    }
}
