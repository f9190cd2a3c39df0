//! Log lines that no commit carries yet.
//!
//! They do not stand among the writer's requests: a worker may say a million lines a second, and what waits behind them
//! would wait for all of them. They are gathered here, by task. A round of the writer takes a share of them, from each task
//! in turn ([`LINES_BYTES_A_ROUND`]), and readers find here what the store does not have yet, so whoever reads a log sees
//! every line that was numbered, whether the disk takes it or not.
//!
//! Of one task no more is held than would be kept of it: lines that nobody could read any more are dropped before they are
//! written ([`NewestLines`]). So a single flood costs no more than its bound, five times a second. Many floods together fill
//! the room for all; from then on the sockets that said what waits are not read, and over HTTP lines are turned away.
//!
//! Lines leave only when a commit with them is in the store. Readers look here first, so in between they find them twice,
//! and never not at all; the same lines are told apart by their numbers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::Aside;
use crate::task::{IdHasher, LogLine, NewestLines, TaskId, line_bytes};

use super::inbox::ROUND_BYTES_MAX;

/// Bytes of lines that one commit carries. A disk takes so much about as quickly as a page, so whoever shares the commit
/// does not feel it; and two hundred commits a second are more lines than a disk should be asked to hold.
const LINES_BYTES_A_ROUND: usize = 256 << 10;
/// Bytes of lines that may wait at once: the whole logs of some sixty tasks.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The lines of all tasks that wait.
#[derive(Default)]
pub(super) struct Unwritten {
    tasks: Mutex<Tasks>,
    /// Of all lines here. Changed under the lock; read without.
    bytes: AtomicUsize,
    /// Tells those that wait for [`room`](Self::room).
    emptied: Notify,
}

#[derive(Default)]
struct Tasks {
    lines: HashMap<TaskId, Lines, IdHasher>,
    /// Tasks with waiting lines, in the order of their turns.
    turns: VecDeque<TaskId>,
}

/// The lines of one task.
#[derive(Default)]
struct Lines {
    /// Taken for the commit that is being written.
    taken: Vec<Arc<[LogLine]>>,
    waiting: NewestLines,
}

impl Unwritten {
    /// Keeps lines that follow those before. Answers whether nothing waited: then the writer is to be told.
    pub(super) fn push(&self, task_id: TaskId, part: Arc<[LogLine]>) -> bool {
        let mut tasks = self.tasks.lock();
        let Tasks { lines, turns } = &mut *tasks;
        let was_idle = turns.is_empty();
        let lines = lines.entry(task_id).or_default();
        if lines.waiting.is_empty() {
            turns.push_back(task_id);
        }
        self.bytes.fetch_add(line_bytes(&part), Ordering::Relaxed);
        let dropped = lines.waiting.push(part);
        self.give_room(dropped);
        was_idle
    }

    /// The lines of a task, oldest first.
    pub(super) fn of(&self, task_id: TaskId) -> Vec<Arc<[LogLine]>> {
        let tasks = self.tasks.lock();
        let Some(lines) = tasks.lines.get(&task_id) else { return Vec::new() };
        lines.taken.iter().chain(lines.waiting.parts()).cloned().collect()
    }

    /// The number of the newest line of a task that is here.
    pub(super) fn end(&self, task_id: TaskId) -> Option<u64> {
        self.tasks.lock().lines.get(&task_id)?.end()
    }

    /// Whether lines wait for a commit.
    pub(super) fn waits(&self) -> bool {
        !self.tasks.lock().turns.is_empty()
    }

    /// Takes what the next commit carries: all lines of tasks that `ended` in it, as far as a round may be large, so that
    /// an end is not on disk before what was said ahead of it; and a share of the others'.
    pub(super) fn take(&self, ended: impl Iterator<Item = TaskId>) -> Vec<Aside> {
        let mut tasks = self.tasks.lock();
        if tasks.turns.is_empty() {
            return Vec::new();
        }
        let mut taken = Taken { asides: Vec::new(), bytes: 0 };
        let mut emptied = HashSet::<TaskId, IdHasher>::default();
        for task_id in ended {
            let Some(lines) = tasks.lines.get_mut(&task_id).filter(|lines| !lines.waiting.is_empty()) else { continue };
            while taken.bytes < ROUND_BYTES_MAX && taken.next_of(task_id, lines) {}
            if lines.waiting.is_empty() {
                emptied.insert(task_id);
            }
        }
        if !emptied.is_empty() {
            tasks.turns.retain(|task_id| !emptied.contains(task_id));
        }
        while taken.bytes < LINES_BYTES_A_ROUND
            && let Some(task_id) = tasks.turns.pop_front()
        {
            let lines = tasks.lines.get_mut(&task_id).expect("a task in turn has lines");
            taken.next_of(task_id, lines);
            if !lines.waiting.is_empty() {
                tasks.turns.push_back(task_id);
            }
        }
        taken.asides
    }

    /// What was taken is in the store.
    pub(super) fn written(&self, asides: &[Aside]) {
        if tasks_of(asides).next().is_none() {
            return;
        }
        let mut tasks = self.tasks.lock();
        let mut bytes = 0;
        for task_id in tasks_of(asides) {
            if let Some(lines) = tasks.lines.get_mut(&task_id) {
                bytes += lines.taken.drain(..).map(|part| line_bytes(&part)).sum::<usize>();
                if lines.waiting.is_empty() {
                    tasks.lines.remove(&task_id);
                }
            }
        }
        if tasks.lines.is_empty() {
            // After a burst the room goes back.
            *tasks = Tasks::default();
        }
        drop(tasks);
        self.give_room(bytes);
    }

    /// What was taken could not be written, and waits again.
    pub(super) fn take_back(&self, asides: &[Aside]) {
        let mut tasks = self.tasks.lock();
        let Tasks { lines, turns } = &mut *tasks;
        let mut dropped = 0;
        for task_id in tasks_of(asides) {
            let Some(lines) = lines.get_mut(&task_id).filter(|lines| !lines.taken.is_empty()) else { continue };
            if lines.waiting.is_empty() {
                turns.push_back(task_id);
            }
            let mut all = NewestLines::default();
            let newer = std::mem::take(&mut lines.waiting);
            for part in lines.taken.drain(..).chain(newer.parts().cloned()) {
                dropped += all.push(part);
            }
            lines.waiting = all;
        }
        drop(tasks);
        self.give_room(dropped);
    }

    fn give_room(&self, bytes: usize) {
        if bytes > 0 && self.bytes.fetch_sub(bytes, Ordering::Relaxed) >= WAITING_BYTES_MAX && !self.is_full() {
            self.emptied.notify_waiters();
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= WAITING_BYTES_MAX
    }

    /// Whether so many bytes of lines may wait too.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes.load(Ordering::Relaxed).saturating_add(bytes) <= WAITING_BYTES_MAX
    }

    /// Whether a socket that spoke of this task last may say more: there is room, or what fills it is of others.
    pub(super) fn has_room(&self, last: Option<TaskId>) -> bool {
        !self.is_full() || last.is_none_or(|task_id| !self.tasks.lock().lines.contains_key(&task_id))
    }

    /// Resolves once [`has_room`](Self::has_room) holds.
    pub(super) async fn room(&self, last: Option<TaskId>) {
        loop {
            // Made before the look, so that it hears of what is written right after.
            let emptied = self.emptied.notified();
            if self.has_room(last) {
                return;
            }
            emptied.await;
        }
    }
}

impl Lines {
    fn end(&self) -> Option<u64> {
        let taken = || self.taken.last().and_then(|part| part.last()).map(|line| line.seq);
        self.waiting.end().or_else(taken)
    }
}

struct Taken {
    asides: Vec<Aside>,
    bytes: usize,
}

impl Taken {
    /// Takes the oldest part of a task's lines, if there is one.
    fn next_of(&mut self, task_id: TaskId, lines: &mut Lines) -> bool {
        let Some(part) = lines.waiting.pop() else { return false };
        self.bytes += line_bytes(&part);
        lines.taken.push(part.clone());
        self.asides.push(Aside::Logs { task_id, lines: part });
        true
    }
}

fn tasks_of(asides: &[Aside]) -> impl Iterator<Item = TaskId> {
    asides.iter().filter_map(|aside| match aside {
        Aside::Logs { task_id, .. } => Some(*task_id),
        Aside::Checkpoint { .. } | Aside::Progress { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::task::{LOG_BYTES_MAX, LOG_LINES_MAX, Level, Timestamp};

    fn id(n: u8) -> TaskId {
        TaskId::from_bytes([n; 16])
    }

    /// So many lines of so many bytes, from this number on.
    fn part(from: u64, count: u64, bytes: usize) -> Arc<[LogLine]> {
        let line = |seq| LogLine {
            seq,
            at: Timestamp::from_millis(0),
            attempt: 1,
            level: Level::Info,
            message: "x".repeat(bytes),
        };
        (from..from + count).map(line).collect()
    }

    fn seqs(parts: &[Arc<[LogLine]>]) -> Vec<u64> {
        parts.iter().flat_map(|part| part.iter()).map(|line| line.seq).collect()
    }

    /// The tasks of these asides and their lines.
    fn taken(asides: &[Aside]) -> Vec<(TaskId, Vec<u64>)> {
        let lines = asides.iter().map(|aside| match aside {
            Aside::Logs { task_id, lines } => (*task_id, lines.iter().map(|line| line.seq).collect()),
            other => panic!("{other:?} are no lines"),
        });
        lines.collect()
    }

    #[test]
    fn lines_are_read_until_they_are_written() {
        let unwritten = Unwritten::default();
        assert!(unwritten.push(id(1), part(1, 2, 10)), "the writer is told of the first");
        assert!(!unwritten.push(id(1), part(3, 1, 10)));
        let asides = unwritten.take(std::iter::empty());
        assert_eq!(taken(&asides), [(id(1), vec![1, 2]), (id(1), vec![3])]);
        assert!(unwritten.push(id(1), part(4, 1, 10)));
        assert_eq!((seqs(&unwritten.of(id(1))), unwritten.end(id(1))), (vec![1, 2, 3, 4], Some(4)));
        unwritten.take_back(&asides);
        assert_eq!((seqs(&unwritten.of(id(1))), unwritten.waits()), (vec![1, 2, 3, 4], true));
        let asides = unwritten.take(std::iter::empty());
        assert_eq!(taken(&asides).len(), 3);
        assert_eq!((seqs(&unwritten.of(id(1))), unwritten.waits()), (vec![1, 2, 3, 4], false));
        unwritten.written(&asides);
        assert_eq!((unwritten.of(id(1)).len(), unwritten.end(id(1))), (0, None));
        assert_eq!(unwritten.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_more_is_held_of_a_task_than_is_kept_of_it() {
        let unwritten = Unwritten::default();
        for n in 0..300 {
            unwritten.push(id(1), part(1 + 100 * n, 100, 10));
        }
        let held = seqs(&unwritten.of(id(1)));
        assert_eq!((held.len(), held[0], held[LOG_LINES_MAX - 1]), (LOG_LINES_MAX, 20_001, 30_000));
        for n in 0..300 {
            unwritten.push(id(2), part(1 + n, 1, 8 << 10));
        }
        let held = seqs(&unwritten.of(id(2)));
        assert_eq!((held.len(), held[0]), (LOG_BYTES_MAX / (8 << 10) + 1, 172), "what goes over the bound stays whole");
    }

    #[test]
    fn a_commit_carries_a_share_of_each_and_all_of_what_ended() {
        let unwritten = Unwritten::default();
        for task in 1..=3 {
            for n in 0..100 {
                unwritten.push(id(task), part(1 + n, 1, 8 << 10));
            }
        }
        let round = taken(&unwritten.take(std::iter::empty()));
        assert_eq!(round.len(), LINES_BYTES_A_ROUND / (8 << 10), "a little more than the bytes of the messages");
        for task in 1..=3 {
            let lines: Vec<u64> = round.iter().filter(|(of, _)| *of == id(task)).map(|(_, seqs)| seqs[0]).collect();
            assert!((10..=11).contains(&lines.len()), "{lines:?} of task {task}");
            assert_eq!(lines, (1..=lines.len() as u64).collect::<Vec<_>>());
        }
        let round = taken(&unwritten.take([id(2), id(9)].into_iter()));
        assert_eq!(round.last().map(|(_, seqs)| seqs[0]), Some(100));
        assert!(round.iter().all(|(of, _)| *of == id(2)), "the rest waits for another round");
    }

    #[test]
    fn who_fills_the_room_waits_and_others_do_not() {
        let unwritten = Unwritten::default();
        let room = |last: Option<TaskId>| unwritten.room(last).now_or_never().is_some();
        for task in 0..80 {
            unwritten.push(id(task), part(1, 110, 8 << 10));
        }
        assert!(!unwritten.has_room_for(1) && !room(Some(id(7))));
        assert!(room(None) && room(Some(id(200))), "a worker whose lines are not among them is heard");
        let mut waiting = Box::pin(unwritten.room(Some(id(7))));
        assert!(waiting.as_mut().now_or_never().is_none());
        while unwritten.waits() {
            unwritten.written(&unwritten.take(std::iter::empty()));
        }
        assert!(waiting.now_or_never().is_some() && unwritten.has_room_for(WAITING_BYTES_MAX));
    }
}
