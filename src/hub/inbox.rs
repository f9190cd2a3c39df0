//! What waits for the writer.
//!
//! New work and what workers say of their work have bounds of their own, so that a flood of submissions keeps no result
//! out. Over HTTP either is turned away when it does not fit, and tried again by whoever sent it. What a worker says over
//! its socket has no answer that would make it wait; there the socket itself waits: while there is no room, it is not read
//! ([`Inbox::has_room`], [`Inbox::room`]). That slows the workers that speak, and nobody else.
//!
//! The writer takes a round at a time, and a round too has a bound, by number and by bytes: it is what one commit carries.
//! Large new work waits in a line of its own, so that small requests pass it, and is taken at its own [`Pace`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use crate::access::{AccessChange, AuditRow};
use crate::engine::{Answer, Command, Report};
use crate::store::Aside;
use crate::task::{DeliveryStep, Json, NewCallback, NewGather, NewTask, Submission, TaskId, line_bytes};

use super::ledger::AccessError;
use super::pace::Pace;
use super::{HubError, Submitted};

/// Requests that may wait at once before new work is turned away. At the writer's pace this is well under a second of work.
const REQUESTS_MAX: usize = 16_384;
/// Bytes of new work that may wait at once: two of the largest batches, and then some.
const WORK_BYTES_MAX: usize = 192 << 20;
/// Bytes of what workers say that may wait at once, and of what a broken store left to be said again: some tens of the
/// largest results.
const SAID_BYTES_MAX: usize = 64 << 20;
/// Requests in one round: at a few microseconds each, some milliseconds of work before the next fsync.
const ROUND_LEN_MAX: usize = 4_096;
/// Bytes in one round. A disk writes so much in some tens of milliseconds; more would not make a commit cheaper, only
/// longer for all who wait for it. A request that is larger by itself, a batch, is a round of its own. What a broken store
/// left to be tried again is cut in the same way, and comes on top.
pub(super) const ROUND_BYTES_MAX: usize = 8 << 20;
/// New work from this size on is large: a payload near the largest, and more than a batch of a thousand usual tasks.
const LARGE_BYTES: usize = 768 << 10;
/// Bytes of large work in one round while small work comes: a payload of full size, so that nobody waits for two.
const LARGE_ROUND_BYTES_MAX: usize = 1 << 20;
/// What a request costs beside the texts in it, and a task beside its payload.
const REQUEST_BYTES: usize = 256;
const TASK_BYTES: usize = 512;
/// What a row of the audit costs, and a record about access.
const ROW_BYTES: usize = 512;
/// What a label costs beside its texts.
const LABEL_BYTES: usize = 64;

/// Something the writer is asked to do.
pub(super) enum Request {
    Command {
        command: Command,
        reply: Reply,
    },
    /// Steps of what is kept about access, all or none.
    Access {
        changes: Vec<AccessChange>,
        row: Option<Box<AuditRow>>,
        reply: Option<AccessReply>,
    },
    /// Rows of refusals wait to be written, where none did: see [`super::ledger`].
    Refusals,
    /// Kept beside the records. Without a reply it may wait for the next commit.
    Aside {
        aside: Aside,
        reply: Option<oneshot::Sender<Result<(), HubError>>>,
    },
    /// What became of deliveries; said once it is on disk.
    Deliveries {
        steps: Vec<DeliveryStep>,
        reply: oneshot::Sender<Result<(), HubError>>,
    },
    /// Log lines wait to be written, where none did: see [`super::unwritten`].
    Lines,
    /// Settle and end.
    Stop,
}

/// Hears whether steps about access were taken.
pub(super) type AccessReply = oneshot::Sender<Result<(), AccessError>>;

/// Who hears the outcome. A caller's row for the audit, where there is one, is kept in the same commit, if the command is accepted.
pub(super) enum Reply {
    Nobody,
    Caller(oneshot::Sender<Result<Answer, HubError>>, Option<Box<AuditRow>>),
    Submitter(oneshot::Sender<Result<Submitted, NotTaken>>, Option<Box<AuditRow>>),
    /// The socket of a worker: an ack or a refusal. Kept and tried again while the store cannot write.
    Link {
        session: u64,
        task_id: TaskId,
        attempt: u32,
    },
    /// The same, of an attempt that adds tasks: their ids or a refusal. It hears at once where the store cannot write: it
    /// waits for the answer, and asks again.
    Spawner {
        session: u64,
        id: Option<u64>,
        task_id: TaskId,
        attempt: u32,
    },
}

/// Why a submission was not taken.
pub(super) enum NotTaken {
    Failed(HubError),
    /// It was prepared with other task types than are declared by now. Nothing of it was decided.
    TypesChanged(Box<Submission>),
}

/// When a request is turned away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// New work, and what people ask: when too many requests wait, or too many bytes of new work.
    Held,
    /// What a worker says over HTTP: when too many bytes of what workers say wait.
    Said,
    /// Never. What a worker says over a socket, which is not read while there is no room; and what is small and bounded by
    /// the number of sockets and claims: signs of life, and ends. And steps about access, each of whose callers waits for it.
    Free,
}

/// The writer's queue: many push, one takes.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Tells those that wait for [`room`](Inbox::room).
    emptied: Notify,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Waiting>,
    /// New work over [`LARGE_BYTES`]; and the request to stop, which comes after all work.
    large: VecDeque<Waiting>,
    pace: Pace,
    /// Bytes of those that were [`Bound::Held`], and of all others.
    work_bytes: usize,
    said_bytes: usize,
    /// Bytes that the writer took and still keeps.
    kept_bytes: usize,
    /// The writer is gone; nothing is taken any more.
    closed: bool,
}

struct Waiting {
    request: Request,
    bytes: usize,
    bound: Bound,
}

impl Inbox {
    pub(super) fn push(&self, request: Request, bound: Bound) -> Result<(), HubError> {
        let bytes = request.bytes();
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(HubError::Stopped);
        }
        if !queue.takes(bytes, bound) {
            return Err(HubError::Overloaded);
        }
        *queue.bytes_of(bound) += bytes;
        let is_large = bound == Bound::Held && bytes >= LARGE_BYTES || matches!(request, Request::Stop);
        let line = if is_large { &mut queue.large } else { &mut queue.requests };
        line.push_back(Waiting { request, bytes, bound });
        let first = line.len() == 1;
        drop(queue);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes what is one round, waiting up to `patience` for something to come. May be empty.
    pub(super) fn take(&self, patience: Duration) -> Vec<Request> {
        let mut queue = self.queue.lock();
        let now = Instant::now();
        queue.pace.rests(now);
        let pause = if queue.large.is_empty() { Duration::MAX } else { queue.pace.pause(now) };
        let patience = patience.min(pause);
        if queue.requests.is_empty() && !patience.is_zero() {
            self.wake.wait_for(&mut queue, patience);
        }
        let had_room = queue.has_room();
        let round = queue.take_round(Instant::now());
        let emptied = !had_room && queue.has_room();
        drop(queue);
        if emptied {
            self.emptied.notify_waiters();
        }
        round.into_iter().map(|waiting| waiting.request).collect()
    }

    /// The writer keeps so many bytes of what it took, for it could not write them yet.
    pub(super) fn keep(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        let had_room = queue.has_room();
        queue.kept_bytes = bytes;
        if !had_room && queue.has_room() {
            self.emptied.notify_waiters();
        }
    }

    /// Whether a socket may say more.
    pub(super) fn has_room(&self) -> bool {
        self.queue.lock().has_room()
    }

    /// Whether this much of what workers say may wait too.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.queue.lock().takes(bytes, Bound::Said)
    }

    /// Resolves once a socket may say more.
    pub(super) async fn room(&self) {
        loop {
            // Made before the look, so that it hears of what is taken right after.
            let emptied = self.emptied.notified();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// Whether nothing waits that would be taken now.
    pub(super) fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.requests.is_empty() && (queue.large.is_empty() || !queue.pace.pause(Instant::now()).is_zero())
    }

    /// Takes nothing more, and drops what waits: its callers hear that the hub has stopped.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        *queue = Queue { closed: true, ..Queue::default() };
        drop(queue);
        self.emptied.notify_waiters();
    }
}

impl Queue {
    fn takes(&self, bytes: usize, bound: Bound) -> bool {
        match bound {
            Bound::Held => {
                self.requests.len() + self.large.len() < REQUESTS_MAX
                    && self.work_bytes.saturating_add(bytes) <= WORK_BYTES_MAX
            }
            Bound::Said => self.all_said().saturating_add(bytes) <= SAID_BYTES_MAX,
            Bound::Free => true,
        }
    }

    fn has_room(&self) -> bool {
        self.all_said() < SAID_BYTES_MAX
    }

    fn all_said(&self) -> usize {
        self.said_bytes.saturating_add(self.kept_bytes)
    }

    fn bytes_of(&mut self, bound: Bound) -> &mut usize {
        match bound {
            Bound::Held => &mut self.work_bytes,
            Bound::Said | Bound::Free => &mut self.said_bytes,
        }
    }

    fn take_round(&mut self, now: Instant) -> VecDeque<Waiting> {
        if !self.requests.is_empty() {
            self.pace.saw_small(now);
        }
        if self.large.is_empty()
            && self.requests.len() <= ROUND_LEN_MAX
            && self.work_bytes + self.said_bytes <= ROUND_BYTES_MAX
        {
            (self.work_bytes, self.said_bytes) = (0, 0);
            return std::mem::take(&mut self.requests);
        }
        let len = round_len(self.requests.iter().map(|waiting| waiting.bytes), ROUND_BYTES_MAX);
        let all = len == self.requests.len();
        let mut round: VecDeque<Waiting> = self.requests.drain(..len).collect();
        if all && self.pace.pause(now).is_zero() {
            let bytes_max = if self.pace.has_small(now) { LARGE_ROUND_BYTES_MAX } else { ROUND_BYTES_MAX };
            let len = round_len(self.large.iter().map(|waiting| waiting.bytes), bytes_max);
            round.extend(self.large.drain(..len));
            self.pace.took_large(now);
        }
        for waiting in &round {
            *self.bytes_of(waiting.bound) -= waiting.bytes;
        }
        round
    }
}

/// How many of these, from the first, make one round: at least one.
pub(super) fn round_len(bytes: impl Iterator<Item = usize>, bytes_max: usize) -> usize {
    let mut sum = 0;
    let fits = bytes.take(ROUND_LEN_MAX).take_while(|bytes| {
        let first = sum == 0;
        sum += bytes;
        first || sum <= bytes_max
    });
    fits.count()
}

impl Request {
    /// About what it holds in memory, and what it brings to a commit.
    pub(super) fn bytes(&self) -> usize {
        let texts = match self {
            Request::Command { command: Command::Submit { submission, .. }, .. } => {
                submission.tasks().iter().map(bytes_of_task).sum()
            }
            Request::Command { command: Command::Retry { payload, .. }, .. } => {
                payload.as_ref().map_or(0, |it| it.payload.len())
            }
            Request::Command { command: Command::Report { report, .. }, .. } => match report {
                Report::Complete { result } => result.len(),
                Report::Fail { error, .. } => error.message.len() + error.details.as_ref().map_or(0, Json::len),
                Report::Heartbeat | Report::Upload(_) | Report::Cancelled | Report::Release => 0,
            },
            Request::Access { changes, row, .. } => (changes.len() + row.iter().len()) * ROW_BYTES,
            Request::Aside { aside, .. } => bytes_of_aside(aside),
            Request::Deliveries { steps, .. } => steps.len() * size_of::<DeliveryStep>(),
            Request::Command { .. } | Request::Lines | Request::Refusals | Request::Stop => 0,
        };
        texts + REQUEST_BYTES
    }
}

/// About what a submission holds in memory.
fn bytes_of_task(task: &NewTask) -> usize {
    let texts = [&task.title, &task.description].into_iter().flatten().map(String::len).sum::<usize>();
    let labels = task.labels.iter().map(|(key, value)| key.len() + value.len() + LABEL_BYTES).sum::<usize>();
    let unique = task.unique.as_ref().map_or(0, |unique| unique.bytes());
    let unique = unique + task.gather.as_ref().map_or(0, |gather| gather.key.len() + size_of::<NewGather>());
    let dependencies = task.depends_on.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>();
    let words = |callback: &NewCallback| {
        callback.events.iter().flatten().map(|word| word.len() + size_of::<String>()).sum::<usize>()
    };
    let callbacks = task.callbacks.iter().map(|it| it.url.len() + words(it) + size_of::<NewCallback>()).sum::<usize>();
    task.payload.as_ref().map_or(0, Json::len) + texts + callbacks + labels + unique + dependencies + TASK_BYTES
}

/// The bytes of what is kept beside the records.
pub(super) fn bytes_of_aside(aside: &Aside) -> usize {
    match aside {
        Aside::Checkpoint { checkpoint, .. } => checkpoint.len(),
        Aside::Progress { progress, .. } => progress.len(),
        Aside::Logs { lines, .. } => line_bytes(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Submission;

    const MIB: usize = 1 << 20;

    fn id() -> TaskId {
        TaskId::from_bytes([7; 16])
    }

    fn json(bytes: usize) -> Json {
        Json::trusted(format!("\"{}\"", "x".repeat(bytes - 2)))
    }

    fn report(bytes: usize) -> Request {
        let report = Report::Complete { result: json(bytes) };
        Request::Command { command: Command::Report { task_id: id(), attempt: 1, report }, reply: Reply::Nobody }
    }

    fn work(bytes: usize) -> Request {
        let tasks = vec![NewTask { payload: Some(json(bytes)), ..NewTask::new("t") }];
        let submission = Submission::check(tasks, usize::MAX).unwrap();
        Request::Command { command: Command::Submit { submission, key: None }, reply: Reply::Nobody }
    }

    /// Pushes until something is turned away; answers how many were taken.
    fn fill(inbox: &Inbox, make: fn(usize) -> Request, bound: Bound) -> usize {
        let taken = (0..1_000).take_while(|_| inbox.push(make(MIB), bound).is_ok()).count();
        assert!(taken < 1_000, "there is no bound");
        taken
    }

    #[test]
    fn what_workers_say_is_bounded_in_bytes_apart_from_new_work() {
        // Reports and checkpoints were always taken, however much waited.
        let inbox = Inbox::default();
        assert_eq!(fill(&inbox, report, Bound::Said), 63);
        assert_eq!(inbox.push(report(MIB), Bound::Said), Err(HubError::Overloaded));
        assert_eq!(fill(&inbox, work, Bound::Held), 191, "new work has a bound of its own");
        // A socket has spoken already; it is not read again before there is room.
        assert!(inbox.has_room());
        inbox.push(report(MIB), Bound::Free).unwrap();
        assert!(!inbox.has_room());
        let mut rounds = 0;
        let waits = || !inbox.queue.lock().requests.is_empty() || !inbox.queue.lock().large.is_empty();
        while waits() {
            inbox.take(Duration::from_secs(60));
            rounds += 1;
        }
        assert!(rounds > 30 && inbox.has_room() && inbox.has_room_for(SAID_BYTES_MAX));
        assert_eq!(fill(&inbox, work, Bound::Held), 191, "all of it is free again");
    }

    #[test]
    fn new_work_keeps_no_result_out() {
        let inbox = Inbox::default();
        fill(&inbox, work, Bound::Held);
        inbox.push(report(MIB), Bound::Said).unwrap();
        for _ in 0..REQUESTS_MAX {
            inbox.push(report(2), Bound::Free).unwrap();
        }
        assert_eq!(inbox.push(work(2), Bound::Held), Err(HubError::Overloaded));
        inbox.push(report(2), Bound::Said).unwrap();
    }

    #[test]
    fn a_round_is_cut_by_number_and_by_bytes() {
        // Everything that waited went into one commit, up to 4,096 results of a MiB each.
        let check = |requests: Vec<Request>, expected: &[usize]| {
            let inbox = Inbox::default();
            for request in requests {
                inbox.push(request, Bound::Free).unwrap();
            }
            let rounds = std::iter::from_fn(|| Some(inbox.take(Duration::ZERO).len()).filter(|len| *len > 0));
            assert_eq!(rounds.collect::<Vec<_>>(), expected);
        };
        check((0..4_096).map(|_| report(2)).collect(), &[4_096]);
        check((0..5_000).map(|_| report(2)).collect(), &[4_096, 904]);
        check((0..20).map(|_| report(MIB)).collect(), &[7, 7, 6]);
        check(vec![report(2), work(9 * MIB), report(2), report(2)], &[1, 1, 2]);
    }

    /// Regression: small requests waited for all large work that had come before them.
    #[test]
    fn small_requests_pass_large_ones() {
        let inbox = Inbox::default();
        let start = Instant::now();
        let round = |ms: u64| {
            let mut queue = inbox.queue.lock();
            let now = start + Duration::from_millis(ms);
            queue.pace.rests(now);
            queue.take_round(now).iter().map(|waiting| waiting.request.bytes() / MIB).collect::<Vec<_>>()
        };
        for _ in 0..3 {
            inbox.push(work(2 * MIB), Bound::Held).unwrap();
        }
        inbox.push(work(2), Bound::Held).unwrap();
        inbox.push(report(MIB), Bound::Said).unwrap();
        assert_eq!(round(0), [0, 1, 2], "no more than one beside small ones");
        // It took a while, and so the next is not taken before three times as long.
        inbox.push(work(2), Bound::Held).unwrap();
        assert_eq!(round(50), [0]);
        assert_eq!(round(199), [0; 0]);
        assert_eq!(round(200), [2]);
        inbox.push(Request::Stop, Bound::Free).unwrap();
        // Nothing small has come for long.
        assert_eq!(round(1_000), [2, 0], "the end comes after all work");
        assert_eq!(fill(&inbox, work, Bound::Held), 191, "all of it is free again");
    }

    #[test]
    fn who_takes_is_woken_when_large_work_is_due() {
        let inbox = Inbox::default();
        inbox.push(work(2), Bound::Held).unwrap();
        inbox.push(work(2 * MIB), Bound::Held).unwrap();
        assert_eq!(inbox.take(Duration::ZERO).len(), 2);
        std::thread::sleep(Duration::from_millis(5));
        inbox.push(work(2 * MIB), Bound::Held).unwrap();
        let begun = Instant::now();
        while inbox.take(Duration::from_secs(600)).is_empty() {}
        assert!(begun.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn all_texts_of_a_submission_count() {
        let text = "x".repeat(100);
        let new = NewTask {
            title: Some(text.clone()),
            description: Some(text.clone()),
            labels: [(text.clone(), text.clone())].into(),
            payload: Some(json(100)),
            ..NewTask::new("t")
        };
        assert_eq!(bytes_of_task(&new) - bytes_of_task(&NewTask::new("t")), 500 + LABEL_BYTES);
    }

    #[tokio::test]
    async fn a_socket_waits_for_room_and_hears_of_it() {
        let inbox = Inbox::default();
        let room = |inbox: &Inbox| {
            use futures::FutureExt;
            inbox.room().now_or_never().is_some()
        };
        assert!(room(&inbox));
        for _ in 0..64 {
            inbox.push(report(MIB), Bound::Free).unwrap();
        }
        assert!(!room(&inbox));
        let take = || std::thread::scope(|scope| drop(scope.spawn(|| inbox.take(Duration::ZERO)).join()));
        let (_, ()) = futures::join!(inbox.room(), async { take() });
        // What the writer took and could not write still counts.
        inbox.keep(SAID_BYTES_MAX);
        assert!(!room(&inbox) && inbox.push(report(2), Bound::Said).is_err());
        let (_, ()) = futures::join!(inbox.room(), async { inbox.keep(0) });
        inbox.keep(SAID_BYTES_MAX);
        let (_, ()) = futures::join!(inbox.room(), async { inbox.close() });
        assert_eq!(inbox.push(report(2), Bound::Free), Err(HubError::Stopped));
    }
}
