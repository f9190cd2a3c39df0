//! One reader of the feed: its subscriptions, and the lines that wait for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::delivery::{DeliveryState, End, Pipe};
use super::inbox::{Inbox, Op, Subscribe};
use super::logs::LogReaders;
use super::outbox::{Outbox, OutboxLimits, Taken};
use crate::task::{Filter, TaskId};

/// Names a client within its feed; never used again.
pub(super) type ClientId = u64;
/// Names a subscription within its client; never used again.
pub(super) type SubNumber = u32;

/// A reader of the feed. Dropping it takes its subscriptions along.
pub struct Client {
    id: ClientId,
    hz_max: f64,
    inbox: Arc<Inbox>,
    delivery: Arc<DeliveryState>,
    log_readers: Arc<LogReaders>,
    /// Few, so looking through them is the quickest way.
    subs: Vec<ClientSub>,
    subs_made: SubNumber,
}

struct ClientSub {
    name: Box<str>,
    number: SubNumber,
    held: bool,
    /// Where it reads logs.
    logs: Option<Arc<Filter>>,
}

impl Client {
    pub(super) fn new(
        id: ClientId,
        hz_max: f64,
        limits: OutboxLimits,
        pipe: Option<Arc<dyn Pipe>>,
        inbox: Arc<Inbox>,
        log_readers: Arc<LogReaders>,
    ) -> Client {
        let delivery = Arc::new(DeliveryState::new(Outbox::new(limits, inbox.handed_rev()), pipe));
        inbox.ask(Op::Attach(id, delivery.clone()));
        Client { id, hz_max, inbox, delivery, log_readers, subs: Vec::new(), subs_made: 0 }
    }

    /// Subscribes under a name, in place of an older subscription of that name. When this returns, everything that is
    /// published from now on and meant by the filter will arrive. But until [`release`](Self::release) only what waited
    /// before can be taken: the caller sends that, then what it reads from the hub now, and then releases. One
    /// subscription at a time.
    ///
    /// To be awaited to its end: a client whose subscribing was given up in the middle is of no more use.
    ///
    /// `max_hz` can only lower the rate of progress. `logs` asks for the log lines of the tasks that `filter.task_id` names.
    pub async fn subscribe(&mut self, name: &str, filter: Arc<Filter>, max_hz: Option<f64>, logs: bool) {
        // No answer comes from a feed that has stopped, and then nothing will follow that could be missed.
        let _ = self.ask_to_subscribe(name, filter, max_hz, logs).await;
    }

    pub(super) fn ask_to_subscribe(
        &mut self,
        name: &str,
        filter: Arc<Filter>,
        max_hz: Option<f64>,
        logs: bool,
    ) -> oneshot::Receiver<()> {
        self.unsubscribe(name);
        self.subs_made += 1;
        let number = self.subs_made;
        let logs = logs.then(|| filter.clone());
        if let Some(filter) = &logs {
            self.log_readers.add(self.id, number, &self.delivery, filter);
        }
        self.subs.reserve_exact(1);
        self.subs.push(ClientSub { name: name.into(), number, held: true, logs });
        let (done, is_done) = oneshot::channel();
        self.inbox.ask(Op::Subscribe(Subscribe {
            client_id: self.id,
            sub: number,
            filter,
            hz: max_hz.map_or(self.hz_max, |hz| self.hz_max.min(hz)),
            done,
        }));
        is_done
    }

    /// The snapshot of this subscription was sent: once the last one is released, lines can be taken.
    pub fn release(&mut self, name: &str) {
        if let Some(sub) = self.subs.iter_mut().find(|sub| *sub.name == *name)
            && std::mem::take(&mut sub.held)
        {
            self.delivery.lock().outbox.release();
        }
    }

    /// Whether there was a subscription of that name.
    pub fn unsubscribe(&mut self, name: &str) -> bool {
        self.release(name);
        let Some(at) = self.subs.iter().position(|sub| *sub.name == *name) else { return false };
        let sub = self.subs.swap_remove(at);
        if let Some(filter) = &sub.logs {
            self.log_readers.remove(self.id, sub.number, filter);
        }
        self.inbox.ask(Op::Unsubscribe(self.id, sub.number));
        true
    }

    /// After [`Taken::Overflowed`]: holds every subscription, for each to get a fresh snapshot and its release.
    pub fn restart(&mut self) {
        let handed_rev = self.inbox.handed_rev();
        let mut state = self.delivery.lock();
        state.outbox.restart(handed_rev);
        for sub in self.subs.iter_mut().filter(|sub| !sub.held) {
            sub.held = true;
            state.outbox.hold();
        }
    }

    /// Drops waiting log lines of a task up to `seq`: they were read from the hub.
    pub fn logs_known(&self, task_id: TaskId, seq: u64) {
        self.log_readers.known(self.id, task_id, seq);
        self.delivery.lock().outbox.logs_known(task_id, seq);
    }

    /// Whether there is something to take; of a client with a pipe, whether it does not flow.
    pub fn is_ready(&self) -> bool {
        self.delivery.is_ready()
    }

    /// Resolves when there is something to take, or the client is to end, or flows no more. May be dropped and called
    /// again.
    pub async fn ready(&self) {
        std::future::poll_fn(|context| self.delivery.poll_ready(context)).await;
    }

    /// Lets the feed write to the pipe by itself from now on, marks and pings too, if nothing waits. Answers whether it
    /// does. Until [`stop`](Self::stop) or until [`ready`](Self::ready) resolves, nothing else may write to it.
    pub fn flow(&self) -> bool {
        self.delivery.flow()
    }

    /// The feed writes no more by itself. What is left of its last message comes back, to be written before anything else.
    pub fn stop(&self) -> Bytes {
        self.delivery.lock().stop()
    }

    /// Something was heard from the other side, or was taken by it.
    pub fn set_heard(&self) {
        self.delivery.set_heard();
    }

    /// Why the client is to end, if it is.
    pub fn end(&self) -> Option<End> {
        self.delivery.lock().why_end()
    }

    /// Moves waiting lines to the end of `out`, about `bytes_max` of them and at least one: transitions first, then
    /// progress, then log lines. What is left behind may still be replaced by something newer, so take no more than can
    /// be sent now.
    pub fn take(&mut self, out: &mut Vec<Bytes>, bytes_max: usize) -> Taken {
        self.delivery.lock().outbox.take(out, bytes_max)
    }

    /// The largest `rev` up to which everything was taken; it never goes back. Once what was taken is sent, and the
    /// snapshots of all subscriptions, the session may send it as a `mark`.
    pub fn mark(&mut self) -> u64 {
        // In this order: what the shard hands over in between is seen in the outbox, and only makes the mark smaller.
        let handed_rev = self.inbox.handed_rev();
        let mut state = self.delivery.lock();
        // What a failed shard handed over is not known.
        let handed_rev = if state.why_end() == Some(End::Lost) { 0 } else { handed_rev };
        state.outbox.mark(handed_rev)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for sub in &self.subs {
            if let Some(filter) = &sub.logs {
                self.log_readers.remove(self.id, sub.number, filter);
            }
        }
        self.inbox.ask(Op::Detach(self.id));
    }
}
