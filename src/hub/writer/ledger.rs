//! Steps about access, and the audit, on their way into a commit.

use std::time::Instant;

use super::{ASIDES_AFTER, Writer};
use crate::access::{AccessChange, AccessRefusal, AuditEntry, AuditRow};
use crate::engine::{Answer, Now, Refusal};
use crate::hub::HubError;
use crate::hub::inbox::{AccessReply, Bound, Reply, Request};
use crate::hub::ledger::AccessError;
use crate::store::Commit;

/// Revocations that are forgotten at once.
const FORGOTTEN_STEP: usize = 512;

/// What a round has of it.
#[derive(Default)]
pub(super) struct Noted {
    steps: Vec<AccessChange>,
    rows: Vec<AuditRow>,
    /// So many of the commit's rows, the last, are refusals.
    refusals: usize,
    replies: Vec<(AccessReply, Result<(), AccessRefusal>)>,
}

impl Noted {
    /// The row of a command that was decided. One that did nothing leaves none: whoever was refused is told, and notes it.
    pub(super) fn outcome(&mut self, reply: &mut Reply, result: &Result<Answer, Refusal>) {
        let (Reply::Caller(_, row) | Reply::Submitter(_, row)) = reply else { return };
        let (Some(mut row), Ok(answer)) = (row.take(), result) else { return };
        let about = match answer {
            // It was noted when it was done.
            Answer::Replayed { .. } => return,
            Answer::Submitted { tasks, .. } => match &tasks[..] {
                [task] => Some(task.task_id.to_string()),
                tasks => Some(tasks.len().to_string()),
            },
            Answer::Task(task) => Some(task.task_id.to_string()),
            Answer::Count(count) => Some(count.to_string()),
            Answer::Set { setting, .. } => Some(setting.name.to_string()),
            _ => None,
        };
        if row.target.is_none() {
            row.target = about;
        }
        self.rows.push(*row);
    }
}

impl Writer {
    pub(super) fn take_access(
        &self,
        changes: Vec<AccessChange>,
        row: Option<Box<AuditRow>>,
        reply: Option<AccessReply>,
        noted: &mut Noted,
        now: Now,
    ) {
        let taken = self.shared.ledger.look(|records| records.extend(&mut noted.steps, changes, now.at));
        if taken.is_ok() {
            noted.rows.extend(row.map(|row| *row));
        }
        noted.replies.extend(reply.map(|reply| (reply, taken)));
    }

    /// Puts what was noted into a commit; with the refusals that wait, if there is one anyway or their time has come.
    pub(super) fn note(&self, commit: &mut Commit, noted: &mut Noted, now: Now) {
        commit.access = std::mem::take(&mut noted.steps);
        let mut rows = std::mem::take(&mut noted.rows);
        if !rows.is_empty() || !commit.is_empty() || self.refusals_at.is_some_and(|at| Instant::now() >= at) {
            let refusals = self.shared.ledger.take_refusals();
            noted.refusals = refusals.len();
            rows.extend(refusals);
        }
        let rows = rows.into_iter().zip(self.audit.1 + 1..);
        commit.audit = rows.map(|(row, seq)| AuditEntry { seq, at: now.at, row }).collect();
    }

    /// The commit is on disk: its steps hold.
    pub(super) fn wrote_noted(&mut self, commit: &Commit) {
        self.shared.ledger.apply(&commit.access);
        if let Some(last) = commit.audit.last() {
            self.refusals_at = None;
            self.audit.1 = last.seq;
            self.show_audit();
        }
    }

    /// The commit failed: none of the steps was taken, and refusals wait again.
    pub(super) fn lost_noted(&mut self, commit: &mut Commit, noted: Noted) {
        let refusals = commit.audit.split_off(commit.audit.len() - noted.refusals);
        if !refusals.is_empty() {
            let dropped = self.shared.ledger.put_back(refusals.into_iter().map(|entry| entry.row));
            self.shared.metrics.audit_dropped(dropped as u64);
            self.refusals_at = Some(Instant::now() + ASIDES_AFTER);
        }
        noted.answer(false);
    }

    /// Entries of the audit went, the oldest.
    pub(super) fn forgot_audit(&mut self, count: usize) {
        self.audit.0 += count as u64;
        self.show_audit();
    }

    pub(super) fn show_audit(&self) {
        let (first, last) = self.audit;
        self.shared.metrics.set_audit_entries((last + 1).saturating_sub(first));
    }

    /// Has revocations be forgotten that mean nothing any more.
    pub(super) fn forget_revocations(&self, now: Now) {
        let changes = self.shared.ledger.look(|records| records.forgettable(now.at, FORGOTTEN_STEP));
        if !changes.is_empty() {
            let _ = self.shared.inbox.push(Request::Access { changes, row: None, reply: None }, Bound::Free);
        }
    }
}

impl Noted {
    /// Tells those who asked for steps.
    pub(super) fn answer(self, written: bool) {
        for (reply, taken) in self.replies {
            let _ = reply.send(match written {
                true => taken.map_err(AccessError::Refused),
                false => Err(AccessError::Failed(HubError::StorageUnavailable)),
            });
        }
    }
}
