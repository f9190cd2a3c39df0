//! Open claims over HTTP: a worker without a socket asks for tasks, and waits.
//!
//! A claim is a free slot while it is open. It is answered as soon as it was given something, with all that it was given
//! in that round; its ticket names it outside of the engine.

use std::sync::Arc;

use crate::task::{Name, Task};

use super::core::Engine;
use super::groups::{FreeSlot, GroupId, Slot};
use super::workers::Worker;
use super::{Accepts, Answer, Cx, Link, Notice, Now, Refusal};

/// An open claim over HTTP.
pub(super) struct Claim {
    pub(super) worker_id: Name,
    pub(super) group: GroupId,
    pub(super) wanted: u32,
    /// How long the leases last that it gets, where it asked for more than the hub's own.
    pub(super) lease_ms: Option<u64>,
    pub(super) free: FreeSlot,
    pub(super) given: Vec<Arc<Task>>,
}

impl Claim {
    /// How many more it takes.
    pub(super) fn open(&self) -> u32 {
        self.wanted - self.given.len() as u32
    }
}

impl Engine {
    pub(super) fn claim(
        &mut self,
        worker_id: Name,
        accepts: Accepts,
        max: u32,
        lease_ms: Option<u64>,
        ticket: u64,
        now: Now,
    ) -> Result<Answer, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let group = self.groups.join(&accepts, &mut self.lanes);
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.comes_by_http(now);
        } else {
            let member = self.groups.join(&accepts, &mut self.lanes);
            let worker = Worker::new(worker_id.clone(), accepts, member, Link::Http, now);
            self.workers.insert(worker_id.clone(), worker);
        }
        let free = self.groups.add_slot(group, Slot::Claim(ticket), 0);
        let lease_ms = lease_ms.filter(|asked_ms| *asked_ms > self.options.lease_ms);
        let claim = Claim { worker_id: worker_id.clone(), group, wanted: max, lease_ms, free, given: Vec::new() };
        self.claims.insert(ticket, claim);
        self.present(&worker_id, now);
        Ok(Answer::Done)
    }

    pub(super) fn unclaim(&mut self, ticket: u64) {
        self.take_claim(ticket);
    }

    /// Takes a claim out of the engine. It may have been all that was left of its worker.
    fn take_claim(&mut self, ticket: u64) -> Option<Claim> {
        let claim = self.claims.remove(&ticket)?;
        self.groups.remove_slot(claim.group, &claim.free);
        self.groups.leave(claim.group, &mut self.lanes);
        self.leaving.push(claim.worker_id.clone());
        Some(claim)
    }

    pub(super) fn give_to_claim(&mut self, ticket: u64, task: Arc<Task>, now: Now) {
        let Some(claim) = self.claims.get_mut(&ticket) else { return };
        claim.given.push(task);
        self.groups.remove_slot(claim.group, &claim.free);
        let load = claim.given.len() as u32;
        if load < claim.wanted {
            claim.free = self.groups.add_slot(claim.group, Slot::Claim(ticket), load);
        }
        // Whoever holds a claim open is there, though it may have said nothing for longer than a lease.
        let worker_id = claim.worker_id.clone();
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.comes_by_http(now);
        }
        self.present(&worker_id, now);
    }

    /// Every open claim is answered with what it has: nothing more will come.
    pub(super) fn dismiss_claims(&mut self, cx: &mut Cx<'_>) {
        let mut tickets: Vec<_> = self.claims.keys().copied().collect();
        tickets.sort_unstable();
        for ticket in tickets {
            self.close_claim(ticket, cx);
        }
    }

    fn close_claim(&mut self, ticket: u64, cx: &mut Cx<'_>) {
        if let Some(claim) = self.take_claim(ticket) {
            cx.batch.notices.push(Notice::Claimed { ticket, tasks: claim.given });
        }
    }

    /// Claims that got something are over.
    pub(super) fn answer_claims(&mut self, cx: &mut Cx<'_>) {
        if self.claims.is_empty() {
            return;
        }
        let mut answered: Vec<_> =
            self.claims.iter().filter(|(_, claim)| !claim.given.is_empty()).map(|(ticket, _)| *ticket).collect();
        answered.sort_unstable();
        for ticket in answered {
            self.close_claim(ticket, cx);
        }
    }
}
