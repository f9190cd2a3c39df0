//! What the writer does between rounds, in small steps: settling the store's view, keeping ticks, sweeping what has expired,
//! giving space back.
//!
//! Nothing of it is urgent, and everything waits while a step runs. So a step is short beside an fsync, and what there may
//! be much of at once rests for longer than it took.

use std::time::{Duration, Instant};

use super::{KEEP_TICKS_EVERY, Writer};
use crate::hub::couriers::FAILED_KEPT;
use crate::store::{Aside, Store, StoreError};

/// The view may be this many tasks, or bytes of what was committed, behind before settling is done under load too. Much of
/// what a flood brings has run by then, and is written to the view once; what waits for it, some 10 MiB, stays in memory.
const UNSETTLED_TASKS_MAX: usize = 5_000;
const UNSETTLED_BYTES_MAX: usize = 32 << 20;
/// Tasks settled in one step, about a millisecond of work.
pub(super) const SETTLE_STEP: usize = 128;
/// How often expired keys and tombstones are swept, and how many of each in one step.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(30);
const SWEEP_STEP: usize = 512;
/// How often the writer looks whether space can be given back.
pub(super) const SHRINK_EVERY: Duration = Duration::from_secs(5);
/// How many times as long as a step of sweeping or shrinking took it rests from it, where there is more.
const CHORE_REST: u32 = 3;

impl Writer {
    /// Settling, keeping ticks, deleting, sweeping: each in a step that is short beside an fsync.
    pub(super) fn keep_house(&mut self) {
        if !self.is_well() {
            return;
        }
        // As much as a round brought too much, so that these are bounds: it takes about as long as the round did.
        while self.pressed() && self.is_well() {
            self.settle_step(8 * SETTLE_STEP);
        }
        let rested = self.settle_at.is_some_and(|at| Instant::now() >= at);
        if rested && self.shared.inbox.is_empty() {
            self.settle_step(SETTLE_STEP);
        }
        self.shared.metrics.set_unsettled(self.store.unsettled().0);
        if self.ticks_kept.elapsed() >= KEEP_TICKS_EVERY {
            self.ticks_kept = Instant::now();
            if let Err(error) = self.store.look() {
                return self.broke(&error);
            }
            for (task_id, rev, progress) in self.shared.board.take_unkept() {
                self.keep_aside(Aside::Progress { task_id, rev, progress });
            }
        }
        if Instant::now() >= self.sweep_at {
            let now = self.now();
            let before = self.shared.clock.ago(self.shared.options.tombstones);
            let handed_out_until = now.mono as i64 - self.engine.longest_rate_ms() as i64;
            let (shared, tried_before) = (self.shared.clone(), self.shared.clock.ago(FAILED_KEPT));
            let (audit_before, mut audit_gone) = (self.shared.clock.ago(self.shared.options.audit), 0);
            self.sweep_at = self.chore(SWEEP_EVERY, |store| {
                let swept = store.sweep(now.at, before, SWEEP_STEP)?;
                let given_up = store.forget_deliveries(tried_before, SWEEP_STEP)?;
                shared.callbacks.forgot(given_up);
                let forgotten = store.forget_hand_outs(handed_out_until, now.mono, SWEEP_STEP)?;
                audit_gone = store.forget_audit(audit_before, SWEEP_STEP)?;
                Ok(swept.max(forgotten).max(given_up).max(audit_gone) >= SWEEP_STEP)
            });
            self.forgot_audit(audit_gone);
            self.forget_revocations(now);
        }
        if Instant::now() >= self.shrink_at {
            self.shrink_at = self.chore(SHRINK_EVERY, |store| store.shrink());
        }
    }

    /// Does a step of what is never urgent, which says whether there is more to do. Answers when the next is due: soon where
    /// there is more, but not before the writer has rested for longer than it took.
    fn chore(&mut self, every: Duration, step: impl FnOnce(&mut dyn Store) -> Result<bool, StoreError>) -> Instant {
        let begun = Instant::now();
        match step(&mut *self.store) {
            Ok(true) => Instant::now() + CHORE_REST * begun.elapsed(),
            Ok(false) => begun + every,
            Err(error) => {
                self.broke(&error);
                begun + every
            }
        }
    }

    fn pressed(&self) -> bool {
        let (tasks, bytes) = self.store.unsettled();
        tasks > UNSETTLED_TASKS_MAX || bytes > UNSETTLED_BYTES_MAX
    }

    pub(super) fn settle_step(&mut self, tasks_max: usize) {
        let begun = Instant::now();
        match self.store.settle(tasks_max) {
            Ok(settled) => {
                self.shared.settle_cost.add(settled.len(), begun.elapsed());
                for (task_id, rev) in settled {
                    self.shared.board.evict(task_id, rev);
                }
                if self.store.unsettled().0 == 0 {
                    self.settle_at = None;
                }
            }
            Err(error) => self.broke(&error),
        }
    }
}
