//! The messages that wait for one client while the shard cannot write to it.
//!
//! Four kinds of lines wait here, and each has its own answer for when there are too many:
//!
//! * **Transitions** wait in order. Beyond [`OutboxLimits`] they *collapse*: of each task only the newest line is kept,
//!   and a `lag` line says how many transitions were merged. A client that lags for good therefore converges to the
//!   newest records, and holds one line a task however long that takes. Past [`OutboxLimits::collapsed_max`] tasks even
//!   that is too much to hold: the outbox forgets everything and says so ([`Taken::Overflowed`]), and the session
//!   starts the client's subscriptions anew.
//! * **Progress** has one slot a task, replaced in place. A transition of the task empties its slot, so no tick is ever
//!   taken after the final record.
//! * **Log lines** are bounded; the oldest go, and a line in their place says how many.
//!
//! They are taken in that order, a bounded amount at a time: what waits here can still be replaced by something newer,
//! what was taken cannot.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::logs::{LogEvent, LogQueue};
use crate::task::TaskId;

/// How much may wait for one client.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Transitions that wait in order. More than a second of a busy hub for a client that keeps up, and little enough
    /// that ten thousand stuck clients do not matter.
    pub len_max: usize,
    /// Bytes of those.
    pub bytes_max: usize,
    /// Tasks whose newest line is kept once the order was given up.
    pub collapsed_max: usize,
}

impl Default for OutboxLimits {
    fn default() -> OutboxLimits {
        OutboxLimits { len_max: 1_024, bytes_max: 256 << 10, collapsed_max: 100_000 }
    }
}

/// What there was to take from an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing waits, or what waits is held until the next release.
    Nothing,
    Lines,
    /// More tasks changed than can be kept for this client: what waited is forgotten. Its subscriptions need a fresh snapshot.
    Overflowed,
}

/// The lines that wait for one client.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: OutboxLimits,
    /// Subscriptions whose snapshot is not sent yet. While there are any, only what waited before is taken.
    holds: u32,
    /// While held: how many of the first transitions waited before.
    before_hold: usize,
    transitions: VecDeque<Transition>,
    transitions_bytes: usize,
    /// Not empty only while the order is given up; then `transitions` is empty.
    collapsed: Newest,
    /// Transitions that went into `collapsed` and were not announced yet.
    lag: u64,
    overflowed: bool,
    progress: Newest,
    /// In a box, as few clients read logs.
    logs: Option<Box<LogQueue>>,
    /// Every transition up to here that is for the client was taken, or written past this outbox.
    written_rev: u64,
}

#[derive(Debug)]
struct Transition {
    task_id: TaskId,
    rev: u64,
    line: Bytes,
}

impl Outbox {
    /// An empty one, for a client that is to be sent nothing up to `rev`.
    pub fn new(limits: OutboxLimits, rev: u64) -> Outbox {
        Outbox {
            limits,
            holds: 0,
            before_hold: 0,
            transitions: VecDeque::new(),
            transitions_bytes: 0,
            collapsed: Newest::default(),
            lag: 0,
            overflowed: false,
            progress: Newest::default(),
            logs: None,
            written_rev: rev,
        }
    }

    /// A transition, or the deletion of a task.
    pub fn transition(&mut self, task_id: TaskId, rev: u64, line: Bytes) {
        self.progress.remove(task_id);
        if self.overflowed || !self.collapsed.is_empty() {
            return self.collapse_one(task_id, line, 1);
        }
        self.transitions_bytes += line.len();
        self.transitions.push_back(Transition { task_id, rev, line });
        let len = self.transitions.len();
        if len > self.limits.len_max || (len > 1 && self.transitions_bytes > self.limits.bytes_max) {
            self.collapse();
        }
    }

    /// The newest line of a task of which `merged` transitions were merged before they came here.
    pub fn merged(&mut self, task_id: TaskId, line: Bytes, merged: u64) {
        self.progress.remove(task_id);
        self.collapse();
        self.collapse_one(task_id, line, merged);
    }

    fn collapse(&mut self) {
        self.transitions_bytes = 0;
        let mut before_hold = self.before_hold;
        for (at, Transition { task_id, line, .. }) in std::mem::take(&mut self.transitions).into_iter().enumerate() {
            self.collapse_one(task_id, line, 1);
            // Tasks keep the order of their first lines, so what waited before the hold still stands first.
            if at + 1 == self.before_hold {
                before_hold = self.collapsed.len();
            }
        }
        self.before_hold = before_hold;
    }

    fn collapse_one(&mut self, task_id: TaskId, line: Bytes, merged: u64) {
        if self.overflowed {
            return;
        }
        self.lag += merged;
        // A copy: lines share the buffer of their commit, and one that waits for long must not hold on to all of it.
        self.collapsed.put(task_id, Bytes::copy_from_slice(&line));
        if self.collapsed.len() > self.limits.collapsed_max {
            self.collapsed = Newest::default();
            self.progress = Newest::default();
            self.transitions = VecDeque::new();
            self.lag = 0;
            self.before_hold = 0;
            self.overflowed = true;
        }
    }

    /// The newest tick of a task.
    pub fn progress(&mut self, task_id: TaskId, line: Bytes) {
        if !self.overflowed {
            self.progress.put(task_id, line);
        }
    }

    /// Lines that a task wrote.
    pub fn log(&mut self, event: LogEvent) {
        self.logs.get_or_insert_default().push(event);
    }

    /// Drops waiting log lines of a task up to `seq`: the client has them from elsewhere.
    pub fn logs_known(&mut self, task_id: TaskId, seq: u64) {
        if let Some(logs) = &mut self.logs {
            logs.known(task_id, seq);
        }
        self.logs.take_if(|logs| logs.is_empty());
    }

    /// A subscription begins: what waits now can still be taken, and is to be sent before its snapshot. All else waits
    /// for as many [`release`](Self::release)s.
    ///
    /// A line from before must not follow the snapshot: the next transition may concern none of the subscriptions that
    /// there were, so that nothing would ever take back what it says.
    pub fn hold(&mut self) {
        self.holds += 1;
        self.before_hold = self.transitions.len() + self.collapsed.len();
    }

    pub fn release(&mut self) {
        self.holds = self.holds.saturating_sub(1);
    }

    /// The shard wrote every transition up to `rev` directly, while nothing waited here.
    pub fn set_written(&mut self, rev: u64) {
        self.written_rev = self.written_rev.max(rev);
    }

    /// Whether anything waits, held or not.
    pub fn waits(&self) -> bool {
        self.holds > 0 || self.is_ready()
    }

    /// Ends the overflow: what comes after `rev` is kept again.
    pub fn restart(&mut self, rev: u64) {
        self.overflowed = false;
        self.written_rev = self.written_rev.max(rev);
    }

    /// Whether [`take`](Self::take) would find anything.
    pub fn is_ready(&self) -> bool {
        if self.holds > 0 {
            return self.overflowed || self.before_hold > 0;
        }
        self.overflowed
            || !self.transitions.is_empty()
            || !self.collapsed.is_empty()
            || !self.progress.is_empty()
            || self.logs.is_some()
    }

    /// Moves lines into `out` until they have `bytes_max` bytes together, but at least one line where there is one.
    pub fn take(&mut self, out: &mut Vec<Bytes>, bytes_max: usize) -> Taken {
        if self.overflowed {
            return Taken::Overflowed;
        }
        let before = out.len();
        let mut room = bytes_max as isize;
        let is_held = self.holds > 0;
        if self.lag > 0 && !self.collapsed.is_empty() && !(is_held && self.before_hold == 0) {
            out.push(lag_line(std::mem::take(&mut self.lag)));
        }
        while room > 0 {
            if is_held {
                let Some(left) = self.before_hold.checked_sub(1) else { break };
                self.before_hold = left;
            }
            let line = if let Some(transition) = self.transitions.pop_front() {
                self.transitions_bytes -= transition.line.len();
                self.written_rev = self.written_rev.max(transition.rev - 1);
                transition.line
            } else if let Some((_, line)) = self.collapsed.pop() {
                line
            } else if is_held {
                break;
            } else if let Some((_, line)) = self.progress.pop() {
                line
            } else if let Some(line) = self.logs.as_mut().and_then(|logs| logs.pop()) {
                self.logs.take_if(|logs| logs.is_empty());
                line
            } else {
                break;
            };
            // The newline that joins it to the next.
            room -= line.len() as isize + 1;
            out.push(line);
        }
        if out.len() == before { Taken::Nothing } else { Taken::Lines }
    }

    /// The largest `rev` up to which the client has taken everything, when the shard has handed over everything up to
    /// `handed_rev`. It never goes back.
    pub fn mark(&mut self, handed_rev: u64) -> u64 {
        if !self.overflowed && self.collapsed.is_empty() {
            let complete = self.transitions.front().map_or(handed_rev, |first| handed_rev.min(first.rev - 1));
            self.written_rev = self.written_rev.max(complete);
        }
        self.written_rev
    }
}

pub(super) fn lag_line(collapsed: u64) -> Bytes {
    format!(r#"{{"type":"lag","collapsed":{collapsed}}}"#).into()
}

/// One line a task, oldest task first; a newer line takes the place of the older.
///
/// Most clients need none of it, and a burst must not cost its memory for the rest of the connection: it stands in a box
/// that goes when it is empty.
#[derive(Debug, Default)]
struct Newest(Option<Box<NewestLines>>);

#[derive(Debug, Default)]
struct NewestLines {
    lines: HashMap<TaskId, Bytes>,
    /// Ids in `lines`, and some that were removed since.
    order: VecDeque<TaskId>,
}

impl Newest {
    fn put(&mut self, task_id: TaskId, line: Bytes) {
        let NewestLines { lines, order } = &mut **self.0.get_or_insert_default();
        if lines.insert(task_id, line).is_some() {
            return;
        }
        // Removed ids stay behind in the order; swept when they are the larger part, so each costs one look.
        if order.len() > 16 + 2 * lines.len() {
            let mut seen = std::collections::HashSet::with_capacity(lines.len());
            order.retain(|id| *id != task_id && lines.contains_key(id) && seen.insert(*id));
        }
        order.push_back(task_id);
    }

    fn remove(&mut self, task_id: TaskId) {
        if let Some(newest) = &mut self.0 {
            newest.lines.remove(&task_id);
            if newest.lines.is_empty() {
                self.0 = None;
            }
        }
    }

    fn pop(&mut self) -> Option<(TaskId, Bytes)> {
        let newest = self.0.as_mut()?;
        let (task_id, line) = loop {
            let task_id = newest.order.pop_front().expect("every line has its place in the order");
            if let Some(line) = newest.lines.remove(&task_id) {
                break (task_id, line);
            }
        };
        if newest.lines.is_empty() {
            self.0 = None;
        }
        Some((task_id, line))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |newest| newest.lines.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, log_event};
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { len_max: 4, bytes_max: 100, collapsed_max: 6 };

    fn outbox() -> Outbox {
        Outbox::new(LIMITS, 0)
    }

    fn take(outbox: &mut Outbox) -> Vec<String> {
        let mut out = Vec::new();
        outbox.take(&mut out, usize::MAX >> 1);
        out.into_iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn transitions_then_progress_then_logs() {
        let mut outbox = outbox();
        outbox.log(log_event(id(1), 1, 1, "log"));
        outbox.progress(id(1), "p1".into());
        outbox.progress(id(2), "p2".into());
        outbox.transition(id(3), 1, "t3".into());
        outbox.transition(id(4), 2, "t4".into());
        outbox.progress(id(1), "p1 newer".into());
        assert!(outbox.is_ready());
        assert_eq!(take(&mut outbox), ["t3", "t4", "p1 newer", "p2", "log"]);
        assert!(!outbox.is_ready());
        assert_eq!(take(&mut outbox), [""; 0]);
    }

    #[test]
    fn a_transition_empties_the_progress_slot() {
        let mut outbox = outbox();
        outbox.progress(id(1), "tick".into());
        outbox.transition(id(1), 5, "final".into());
        assert_eq!(take(&mut outbox), ["final"]);
        outbox.progress(id(1), "tick".into());
        outbox.merged(id(1), "final".into(), 3);
        assert_eq!(take(&mut outbox), [r#"{"type":"lag","collapsed":3}"#, "final"]);
    }

    #[test]
    fn too_many_transitions_collapse_to_the_newest_of_each_task() {
        let mut outbox = outbox();
        for (rev, (task, line)) in [(1, "a1"), (2, "b1"), (1, "a2"), (3, "c1")].into_iter().enumerate() {
            outbox.transition(id(task), rev as u64 + 1, line.into());
        }
        outbox.transition(id(2), 5, "b2".into());
        // Collapsed now: what follows goes the same way, until all of it was taken.
        outbox.transition(id(1), 6, "a3".into());
        assert_eq!(take(&mut outbox), [r#"{"type":"lag","collapsed":6}"#, "a3", "b2", "c1"]);
        outbox.transition(id(1), 7, "a4".into());
        outbox.transition(id(1), 8, "a5".into());
        assert_eq!(take(&mut outbox), ["a4", "a5"]);
    }

    #[test]
    fn bytes_collapse_too_but_never_a_single_line() {
        let mut outbox = outbox();
        let long = "x".repeat(101);
        outbox.transition(id(1), 1, long.clone().into());
        assert_eq!(take(&mut outbox), [long.as_str()]);
        outbox.transition(id(1), 2, long.clone().into());
        outbox.transition(id(1), 3, "short".into());
        assert_eq!(take(&mut outbox), [r#"{"type":"lag","collapsed":2}"#, "short"]);
    }

    #[test]
    fn what_is_left_behind_can_still_be_replaced() {
        let mut outbox = outbox();
        for task in 0..5 {
            outbox.transition(id(task), u64::from(task) + 1, format!("old {task}").into());
        }
        let mut out = Vec::new();
        assert_eq!(outbox.take(&mut out, 1), Taken::Lines);
        assert_eq!(out, [r#"{"type":"lag","collapsed":5}"#, "old 0"]);
        outbox.transition(id(3), 6, "new 3".into());
        let rest = take(&mut outbox);
        assert_eq!(rest, [r#"{"type":"lag","collapsed":1}"#, "old 1", "old 2", "new 3", "old 4"]);
    }

    #[test]
    fn more_tasks_than_can_be_kept_overflow_until_restarted() {
        let mut outbox = outbox();
        for task in 0..4 {
            outbox.transition(id(task), u64::from(task) + 1, "x".into());
        }
        outbox.limits.collapsed_max = 2;
        for task in 4..8 {
            outbox.transition(id(task), u64::from(task) + 1, "x".into());
        }
        outbox.progress(id(1), "tick".into());
        assert!(outbox.is_ready());
        assert_eq!(outbox.take(&mut Vec::new(), 100), Taken::Overflowed);
        assert_eq!(outbox.mark(8), 0);
        outbox.restart(8);
        assert!(!outbox.is_ready());
        outbox.transition(id(1), 9, "again".into());
        assert_eq!(take(&mut outbox), ["again"]);
        assert_eq!(outbox.mark(9), 9);
    }

    #[test]
    fn held_lines_wait_for_the_last_release() {
        let mut outbox = outbox();
        outbox.hold();
        outbox.hold();
        outbox.transition(id(1), 1, "t".into());
        outbox.release();
        assert!(!outbox.is_ready());
        assert_eq!(take(&mut outbox), [""; 0]);
        outbox.release();
        assert_eq!(take(&mut outbox), ["t"]);
    }

    #[test]
    fn what_waited_before_a_hold_goes_before_the_snapshot() {
        let mut outbox = outbox();
        outbox.transition(id(1), 1, "a1".into());
        outbox.transition(id(1), 2, "a2".into());
        outbox.transition(id(2), 3, "b1".into());
        outbox.hold();
        outbox.transition(id(3), 4, "c1".into());
        outbox.progress(id(4), "tick".into());
        assert!(outbox.is_ready());
        let mut out = Vec::new();
        outbox.take(&mut out, 1);
        assert_eq!(out, ["a1"]);
        // It collapses in the middle of it, and still the same two tasks stand first.
        outbox.transition(id(5), 5, "d1".into());
        outbox.transition(id(6), 6, "e1".into());
        assert_eq!(take(&mut outbox), [r#"{"type":"lag","collapsed":5}"#, "a2", "b1"]);
        assert!(!outbox.is_ready());
        assert_eq!(take(&mut outbox), [""; 0]);
        outbox.release();
        assert_eq!(take(&mut outbox), ["c1", "d1", "e1", "tick"]);
    }

    #[test]
    fn a_mark_names_only_what_was_taken() {
        let mut outbox = outbox();
        assert_eq!(outbox.mark(3), 3);
        outbox.transition(id(1), 5, "a".into());
        outbox.transition(id(2), 7, "b".into());
        assert_eq!(outbox.mark(9), 4, "5 waits");
        outbox.take(&mut Vec::new(), 1);
        assert_eq!(outbox.mark(9), 6, "7 waits");
        outbox.take(&mut Vec::new(), 1);
        assert_eq!(outbox.mark(9), 9);
        for rev in 10..=15 {
            outbox.transition(id(1), rev, "x".into());
        }
        assert_eq!(outbox.mark(15), 9, "collapsed");
        outbox.take(&mut Vec::new(), 100);
        assert_eq!(outbox.mark(15), 15);
        assert_eq!(outbox.mark(14), 15, "never back");
    }

    #[test]
    fn the_order_of_slots_stays_as_small_as_the_slots() {
        let mut newest = Newest::default();
        for round in 0..10_000u32 {
            newest.put(id(round % 10), "x".into());
            newest.remove(id((round + 5) % 10));
        }
        let order = newest.0.as_ref().map_or(0, |newest| newest.order.len());
        assert!(order <= 64, "{order}");
        let mut seen = Vec::new();
        while let Some((task_id, _)) = newest.pop() {
            seen.push(task_id);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }
}
