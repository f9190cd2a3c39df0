//! Log lines on their way to those who asked for the log of a task.
//!
//! They go past the shards: a log is asked for by task id, so its readers are found by one look-up, and a task without
//! readers costs no more than that. The hub leaves a note of the lines; a future of the feed delivers them, in the order they
//! were written, so that a log with many readers keeps no other caller waiting. Lines are no transitions: too many of them, and the
//! oldest give way to one line that says how many went. The store keeps them all.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::client::{ClientId, SubNumber};
use super::delivery::DeliveryState;
use crate::task::{Filter, Level, LogLine, Task, TaskId, Timestamp, line_bytes};

/// The most log lines that wait for one client.
pub const LOG_WAITING_LINES_MAX: usize = 1_000;
/// The most bytes of them.
pub const LOG_WAITING_BYTES_MAX: usize = 256 << 10;
/// Lines are sent in events of about this size, so that a flood of them leaves room between for what matters more.
const LOG_EVENT_BYTES: usize = 16 << 10;

/// Some log lines of one task, encoded.
#[derive(Clone, Debug)]
pub struct LogEvent {
    pub task_id: TaskId,
    /// The whole `log` message, without a newline.
    pub line: Bytes,
    /// How many log lines it has.
    pub lines_len: usize,
    /// Of its last log line.
    pub last_seq: u64,
    pub(super) attempt: u32,
    pub(super) at: Timestamp,
}

impl LogEvent {
    fn new(task_id: TaskId, lines: &[LogLine]) -> Option<LogEvent> {
        let last = lines.last()?;
        let text = serde_json::to_string(lines).expect("log lines are JSON");
        Some(LogEvent {
            task_id,
            line: format!(r#"{{"type":"log","task_id":"{task_id}","lines":{text}}}"#).into(),
            lines_len: lines.len(),
            last_seq: last.seq,
            attempt: last.attempt,
            at: last.at,
        })
    }
}

/// These lines of a task as `log` messages of a handy size, in order.
pub fn log_events(task_id: TaskId, lines: &[LogLine]) -> Vec<LogEvent> {
    let mut events = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, line) in lines.iter().enumerate() {
        bytes += line.message.len() + 100;
        if bytes >= LOG_EVENT_BYTES || at + 1 == lines.len() {
            events.extend(LogEvent::new(task_id, &lines[from..=at]));
            (from, bytes) = (at + 1, 0);
        }
    }
    events
}

/// The log lines that wait for one client.
#[derive(Debug, Default)]
pub(super) struct LogQueue {
    waiting: VecDeque<LogEvent>,
    lines_len: usize,
    bytes: usize,
    /// Of each task that lost lines: how many, and the last of them. All of them stood before what still waits.
    skipped: HashMap<TaskId, (usize, LogEvent)>,
}

impl LogQueue {
    pub fn push(&mut self, event: LogEvent) {
        self.lines_len += event.lines_len;
        self.bytes += event.line.len();
        self.waiting.push_back(event);
        while self.waiting.len() > 1
            && (self.lines_len > LOG_WAITING_LINES_MAX || self.bytes > LOG_WAITING_BYTES_MAX)
            && let Some(mut oldest) = self.pop_waiting()
        {
            oldest.line = Bytes::new();
            let skipped = self.skipped.get(&oldest.task_id).map_or(0, |(skipped, _)| *skipped);
            self.skipped.insert(oldest.task_id, (skipped + oldest.lines_len, oldest));
        }
    }

    fn pop_waiting(&mut self) -> Option<LogEvent> {
        let event = self.waiting.pop_front()?;
        self.lines_len -= event.lines_len;
        self.bytes -= event.line.len();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(event)
    }

    pub fn known(&mut self, task_id: TaskId, seq: u64) {
        self.waiting.retain(|event| event.task_id != task_id || event.last_seq > seq);
        self.lines_len = self.waiting.iter().map(|event| event.lines_len).sum();
        self.bytes = self.waiting.iter().map(|event| event.line.len()).sum();
        if self.skipped.get(&task_id).is_some_and(|(_, last)| last.last_seq <= seq) {
            self.skipped.remove(&task_id);
        }
    }

    pub fn pop(&mut self) -> Option<Bytes> {
        if let Some(task_id) = self.skipped.keys().next().copied() {
            return self.skipped.remove(&task_id).map(|(skipped, last)| skipped_line(skipped, &last));
        }
        self.pop_waiting().map(|event| event.line)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.skipped.is_empty()
    }
}

/// Stands in the place of the last line that is missing.
fn skipped_line(skipped: usize, last: &LogEvent) -> Bytes {
    let line =
        LogLine { seq: last.last_seq, at: last.at, attempt: last.attempt, level: Level::Warn, message: String::new() };
    LogEvent::new(last.task_id, &[skipped_lines(skipped, line)]).expect("one line").line
}

/// The line that stands for those after `cut` and before `first`, if there were any.
pub fn skipped_before(task_id: TaskId, first: &LogLine, cut: u64) -> Option<Bytes> {
    let skipped = first.seq.saturating_sub(cut + 1);
    let last = LogLine { seq: first.seq - 1, message: String::new(), ..first.clone() };
    (skipped > 0).then(|| LogEvent::new(task_id, &[skipped_lines(skipped as usize, last)]).expect("one line").line)
}

/// Stands for so many lines, the last of which is `last`.
fn skipped_lines(skipped: usize, last: LogLine) -> LogLine {
    LogLine { level: Level::Warn, message: format!("{skipped} lines skipped"), ..last }
}

/// Notes of log lines that wait to be delivered, and about their bytes. Beyond it the oldest give way to one line that says how
/// many.
const NOTES_LEN_MAX: usize = 1_024;
const NOTES_BYTES_MAX: usize = 8 << 20;
/// Notes delivered before other futures are let in.
const NOTES_AT_ONCE: usize = 16;

/// The readers of logs, by task.
#[derive(Default)]
pub(super) struct LogReaders {
    readers: DashMap<TaskId, Vec<LogReader>>,
    undelivered: Mutex<Undelivered>,
    wake: Notify,
}

/// Lines that are to be delivered, in the order they were written.
#[derive(Default)]
struct Undelivered {
    notes: VecDeque<(Arc<Task>, Arc<[LogLine]>)>,
    bytes: usize,
    /// Of each task that lost lines: how many, and the last of them.
    skipped: HashMap<TaskId, (Arc<Task>, usize, LogLine)>,
    closed: bool,
}

impl Undelivered {
    fn push(&mut self, task: Arc<Task>, lines: Arc<[LogLine]>) {
        self.bytes += line_bytes(&lines);
        self.notes.push_back((task, lines));
        while (self.notes.len() > NOTES_LEN_MAX || self.bytes > NOTES_BYTES_MAX)
            && self.notes.len() > 1
            && let Some((task, lines)) = self.pop_note()
            && let Some(last) = lines.last()
        {
            let before = self.skipped.get(&task.task_id).map_or(0, |(_, skipped, _)| *skipped);
            self.skipped.insert(task.task_id, (task, before + lines.len(), last.clone()));
        }
    }

    /// What is to be delivered next: what stands for lines that were lost comes before those that follow them.
    fn pop(&mut self) -> Option<(Arc<Task>, Arc<[LogLine]>)> {
        let next = self.notes.front().map(|(task, _)| task.task_id);
        let lost = next.or_else(|| self.skipped.keys().next().copied()).and_then(|id| self.skipped.remove(&id));
        match lost {
            Some((task, skipped, last)) => Some((task, [skipped_lines(skipped, last)].into())),
            None => self.pop_note(),
        }
    }

    fn pop_note(&mut self) -> Option<(Arc<Task>, Arc<[LogLine]>)> {
        let note = self.notes.pop_front()?;
        self.bytes -= line_bytes(&note.1);
        Some(note)
    }
}

struct LogReader {
    client_id: ClientId,
    sub: SubNumber,
    delivery: Arc<DeliveryState>,
    filter: Arc<Filter>,
    /// Up to here it has the lines from elsewhere.
    known: u64,
}

impl LogReaders {
    pub fn add(&self, client_id: ClientId, sub: SubNumber, delivery: &Arc<DeliveryState>, filter: &Arc<Filter>) {
        for task_id in filter.task_id.iter().flatten() {
            self.readers.entry(*task_id).or_default().push(LogReader {
                client_id,
                sub,
                delivery: delivery.clone(),
                filter: filter.clone(),
                known: 0,
            });
        }
    }

    pub fn remove(&self, client_id: ClientId, sub: SubNumber, filter: &Filter) {
        for task_id in filter.task_id.iter().flatten() {
            if let Some(mut readers) = self.readers.get_mut(task_id) {
                readers.retain(|reader| (reader.client_id, reader.sub) != (client_id, sub));
            }
            self.readers.remove_if(task_id, |_, readers| readers.is_empty());
        }
    }

    /// A client has the lines of a task up to `seq` from elsewhere.
    pub fn known(&self, client_id: ClientId, task_id: TaskId, seq: u64) {
        if let Some(mut readers) = self.readers.get_mut(&task_id) {
            readers
                .iter_mut()
                .filter(|reader| reader.client_id == client_id)
                .for_each(|reader| reader.known = reader.known.max(seq));
        }
    }

    /// Notes lines that are to be delivered, if this log has readers; `task` is asked for the record only then. Short, for it is
    /// called under the lock that keeps the lines of a task in order.
    pub fn note(&self, task_id: TaskId, lines: &Arc<[LogLine]>, task: impl FnOnce() -> Option<Arc<Task>>) {
        if self.readers.contains_key(&task_id)
            && let Some(task) = task()
        {
            self.undelivered.lock().push(task, lines.clone());
            self.wake.notify_one();
        }
    }

    /// Tells what is noted, until [`close`](Self::close).
    pub async fn run(self: Arc<LogReaders>) {
        loop {
            self.wake.notified().await;
            let mut delivered = 0;
            loop {
                let next = {
                    let mut undelivered = self.undelivered.lock();
                    if undelivered.closed {
                        return;
                    }
                    undelivered.pop()
                };
                let Some((task, lines)) = next else { break };
                self.deliver(&task, &lines);
                delivered += 1;
                if delivered % NOTES_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    pub fn close(&self) {
        self.undelivered.lock().closed = true;
        self.wake.notify_one();
    }

    /// Hands the lines to every reader of this log.
    fn deliver(&self, task: &Task, lines: &[LogLine]) {
        let task_id = task.task_id;
        let Some(readers) = self.readers.get(&task_id) else { return };
        let events = log_events(task_id, lines);
        let mut delivered: HashSet<ClientId> = HashSet::new();
        for reader in readers.iter() {
            let may_read = reader.filter.matches_unchanging(task);
            if !may_read || !delivered.insert(reader.client_id) {
                continue;
            }
            let news = events.iter().filter(|event| event.last_seq > reader.known);
            if news.clone().next().is_some() {
                reader.delivery.put(|outbox| news.for_each(|event| outbox.log(event.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, log_event};
    use super::*;

    fn take(queue: &mut LogQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn too_many_lines_become_one_that_says_so() {
        let mut queue = LogQueue::default();
        for seq in 1..=1_100 {
            queue.push(log_event(id(1), seq, 1, &format!("line {seq}")));
        }
        let lines = take(&mut queue);
        assert_eq!(lines.len(), 1_001);
        assert!(lines[0].contains(r#""seq":100,"#) && lines[0].contains("100 lines skipped"), "{}", lines[0]);
        assert_eq!(lines[1], "line 101");
        assert!(queue.is_empty());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut queue = LogQueue::default();
        let long = "x".repeat(LOG_WAITING_BYTES_MAX);
        queue.push(log_event(id(1), 1, 1, &long));
        queue.push(log_event(id(2), 7, 3, "short"));
        let lines = take(&mut queue);
        assert!(lines[0].contains("1 lines skipped"), "{}", lines[0]);
        assert_eq!(lines[1], "short");
    }

    #[test]
    fn lines_known_from_the_tail_are_not_delivered_again() {
        let mut queue = LogQueue::default();
        for seq in 1..=4 {
            queue.push(log_event(id(1), seq, 1, &format!("a{seq}")));
            queue.push(log_event(id(2), seq, 1, &format!("b{seq}")));
        }
        queue.known(id(1), 3);
        assert_eq!(take(&mut queue), ["b1", "b2", "b3", "a4", "b4"]);
    }

    #[test]
    fn a_long_tail_comes_in_pieces() {
        let line = |seq| LogLine {
            seq,
            at: Timestamp::from_millis(0),
            attempt: 1,
            level: Level::Info,
            message: "x".repeat(5_000),
        };
        let lines: Vec<_> = (1..=7).map(line).collect();
        let events = log_events(id(1), &lines);
        assert_eq!(events.iter().map(|e| (e.lines_len, e.last_seq)).collect::<Vec<_>>(), [(4, 4), (3, 7)]);
        assert!(log_events(id(1), &[]).is_empty());
    }

    #[test]
    fn notes_are_bounded_and_what_went_is_said() {
        let task = |n| Arc::new(super::super::sample::task(id(n), crate::task::Status::Running));
        let line = |seq| LogLine {
            seq,
            at: Timestamp::from_millis(0),
            attempt: 1,
            level: Level::Info,
            message: "line".into(),
        };
        let mut undelivered = Undelivered::default();
        undelivered.push(task(2), [line(1)].into());
        for seq in 0..NOTES_LEN_MAX as u64 {
            undelivered.push(task(1), [line(2 * seq + 1), line(2 * seq + 2)].into());
        }
        undelivered.push(task(1), [line(9_999)].into());
        let mut delivered = Vec::new();
        while let Some((task, lines)) = undelivered.pop() {
            delivered.push((task.task_id, lines[0].seq, lines[0].message.clone()));
        }
        assert_eq!(delivered.len(), NOTES_LEN_MAX + 2);
        assert_eq!(delivered[0], (id(1), 2, "2 lines skipped".into()));
        assert_eq!((delivered[1].1, delivered[NOTES_LEN_MAX].1), (3, 9_999), "the others follow in order");
        assert_eq!(delivered[NOTES_LEN_MAX + 1], (id(2), 1, "1 lines skipped".into()), "of a task that said no more");
    }
}
