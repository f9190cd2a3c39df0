//! A test rig: one engine, clocks that are set by hand, a commit that succeeds or fails when the test says so.

use std::sync::Arc;

use crate::settings::{HandOuts, Setting};
use crate::task::{
    Change, ChangeKind, KeyEntry, Name, NewTask, Pattern, PatternSet, Status, Submission, Task, TaskId, Timestamp,
};

use super::{Accepts, Answer, Batch, Clock, Command, Cx, Engine, Hello, Notice, Now, Options, Refusal, Report, Tasks};

/// When tests begin, in milliseconds since 1970.
const BEGIN: i64 = 1_800_000_000_000;

/// A command that submits these.
pub(super) fn submit(tasks: Vec<NewTask>) -> Command {
    let submission = Submission::check(tasks, 1 << 20).expect("the test's tasks are right");
    Command::Submit { submission, key: None }
}

pub(super) struct EngineRig {
    pub(super) engine: Engine,
    pub(super) now: Now,
    clock: Clock,
    /// What was decided since the last commit.
    pub(super) batch: Batch,
    /// What a store would look up.
    finals: Vec<Arc<Task>>,
    /// What it would know of hand-outs.
    hand_outs: Vec<HandOuts>,
    keys: Vec<KeyEntry>,
    sessions: u64,
}

impl EngineRig {
    /// Leases of 10 s, a grace of 5 s.
    pub(super) fn new() -> EngineRig {
        EngineRig::with(Options::default())
    }

    pub(super) fn with(options: Options) -> EngineRig {
        let begin = Timestamp::from_millis(BEGIN);
        EngineRig {
            engine: Engine::new(options, 0, None, 1),
            now: Now { wall: begin, at: begin, mono: 0, lived: 1 },
            clock: Clock::new(begin, begin, 0, options.lease_ms),
            batch: Batch::default(),
            finals: Vec::new(),
            hand_outs: Vec::new(),
            keys: Vec::new(),
            sessions: 0,
        }
    }

    /// Time passes, on all clocks, and the writer is awake.
    pub(super) fn pass(&mut self, millis: u64) {
        self.clock.sleeps(millis);
        self.away(millis);
    }

    /// Time passes, and nobody is awake.
    pub(super) fn away(&mut self, millis: u64) {
        self.now = self.clock.look(self.now.wall.plus_millis(millis), self.now.mono + millis);
    }

    /// The wall clock is set to another time.
    pub(super) fn set_wall(&mut self, by_millis: i64) {
        let wall = Timestamp::from_millis(self.now.wall.as_millis() + by_millis);
        self.now = self.clock.look(wall, self.now.mono);
    }

    /// Decides as the writer does, with what the store knows at hand. Nothing is committed yet.
    pub(super) fn decide(&mut self, command: Command) -> Result<Answer, Refusal> {
        for _ in 0..8 {
            if let Some(workflow_id) = self.engine.absent_family(&command) {
                let find =
                    |id: TaskId| self.finals.iter().find(|task| task.task_id == id).map(|task| Task::clone(task));
                let parts = self.finals.iter().filter(|task| task.workflow_id() == Some(workflow_id));
                let parts = parts.map(|task| Task::clone(task)).collect();
                self.engine.admit_family(workflow_id, find(workflow_id), parts);
            }
            for key in self.engine.absent_keys(&command) {
                let known = self.keys.iter().rev().find(|entry| entry.key == key && entry.expires_at >= self.now.at);
                if let Some(entry) = known {
                    self.engine.admit_key(entry.clone());
                }
            }
            for task_id in self.engine.absent(&command) {
                if let Some(task) = self.finals.iter().find(|task| task.task_id == task_id) {
                    self.engine.admit(Task::clone(task));
                }
            }
        }
        self.engine.decide(command, &mut Cx { now: self.now, ticks: &(), batch: &mut self.batch })
    }

    /// Fires timers and hands out. Nothing is committed yet.
    pub(super) fn go(&mut self) {
        let cx = &mut Cx { now: self.now, ticks: &(), batch: &mut self.batch };
        self.engine.fire(cx, usize::MAX);
        self.engine.judge(cx, usize::MAX);
        self.engine.assign(cx, usize::MAX);
    }

    /// The commit succeeds; what was told to workers comes back.
    pub(super) fn commit(&mut self) -> Vec<Notice> {
        let mut batch = std::mem::take(&mut self.batch);
        self.keys.append(&mut batch.keys);
        for Change { kind, task, .. } in &batch.changes {
            self.finals.retain(|known| known.task_id != task.task_id);
            if *kind != ChangeKind::Gone && task.status.is_final() {
                self.finals.push(task.clone());
            }
        }
        self.hand_outs.extend(batch.hand_outs);
        self.engine.handed_out(self.now);
        self.engine.shed();
        batch.notices
    }

    /// The commit fails.
    pub(super) fn take_back(&mut self) {
        self.engine.revert(std::mem::take(&mut self.batch), self.now);
        self.engine.shed();
    }

    /// The hub dies with what it has not committed, and another takes up what is on disk, a second later.
    pub(super) fn restart(&mut self) {
        self.take_back();
        let unfinished = self.engine.tasks().filter(|task| !task.status.is_final());
        let mut unfinished: Vec<Task> = unfinished.map(|task| Task::clone(task)).collect();
        unfinished.sort_by_key(|task| task.task_id);
        let (wall, mono) = (self.now.wall.plus_millis(1_000), self.now.mono + 1_000);
        self.clock = Clock::new(self.now.at, wall, mono, self.engine.options().lease_ms);
        self.now = self.clock.look(wall, mono);
        let last_id = unfinished.last().map(|task| task.task_id);
        let (options, rev) = (*self.engine.options(), self.engine.rev());
        let settings = self.engine.settings().map(|setting| Setting::clone(setting)).collect();
        let relatives = self.finals.iter().map(|task| Task::clone(task)).collect();
        let tasks = Tasks { unfinished, relatives };
        (self.engine, self.batch) = Engine::recover(options, rev, last_id, settings, tasks, 1, self.now);
        self.engine.remember_hand_outs(self.hand_outs.clone(), self.now);
        self.commit();
    }

    /// A whole round in which nobody asks anything.
    pub(super) fn round(&mut self) -> Vec<Notice> {
        self.go();
        self.commit()
    }

    /// Steps that were decided and not committed yet.
    pub(super) fn changes(&self) -> &[Change] {
        &self.batch.changes
    }

    pub(super) fn submit(&mut self, new: NewTask) -> TaskId {
        match self.decide(submit(vec![new])) {
            Ok(Answer::Submitted { tasks, .. }) => tasks[0].task_id,
            other => panic!("not submitted: {other:?}"),
        }
    }

    /// A worker for all types in the queue `default` connects. Answers what it may keep.
    pub(super) fn hello(&mut self, worker_id: &str, concurrency: u32, holding: &[(TaskId, u32)]) -> Vec<(TaskId, u32)> {
        self.hello_for(worker_id, "*", "default", concurrency, holding)
    }

    pub(super) fn hello_for(
        &mut self,
        worker_id: &str,
        task_types: &str,
        queues: &str,
        concurrency: u32,
        holding: &[(TaskId, u32)],
    ) -> Vec<(TaskId, u32)> {
        self.greet(worker_id, accepts(task_types, queues), concurrency, Some(holding.to_vec()))
    }

    /// The process of a worker is new.
    pub(super) fn begins(&mut self, worker_id: &str, concurrency: u32) {
        self.greet(worker_id, accepts("*", "default"), concurrency, None);
    }

    fn greet(
        &mut self,
        worker_id: &str,
        accepts: Accepts,
        concurrency: u32,
        holding: Option<Vec<(TaskId, u32)>>,
    ) -> Vec<(TaskId, u32)> {
        self.sessions += 1;
        let hello = Hello { worker_id: Name::new(worker_id), session: self.sessions, accepts, concurrency, holding };
        match self.decide(Command::Hello(hello)) {
            Ok(Answer::Welcome { keep, .. }) => keep,
            other => panic!("not welcomed: {other:?}"),
        }
    }

    /// The newest connection of a worker closes.
    pub(super) fn left(&mut self, worker_id: &str) {
        let session = self.engine.workers[worker_id].session;
        self.decide(Command::Left { worker_id: Name::new(worker_id), session }).expect("it may leave");
    }

    pub(super) fn heard(&mut self, worker_id: &str) {
        self.decide(Command::Heard { worker_id: Name::new(worker_id) }).expect("it may speak");
    }

    pub(super) fn claim(&mut self, worker_id: &str, max: u32, ticket: u64) {
        self.claim_for(worker_id, max, None, ticket);
    }

    /// A claim that asks for leases of this length.
    pub(super) fn claim_for(&mut self, worker_id: &str, max: u32, lease_ms: Option<u64>, ticket: u64) {
        let (worker_id, accepts) = (Name::new(worker_id), accepts("*", "default"));
        let command = Command::Claim { worker_id, accepts, max, lease_ms, ticket };
        self.decide(command).expect("it may claim");
    }

    pub(super) fn report(&mut self, task_id: TaskId, attempt: u32, report: Report) -> Result<Answer, Refusal> {
        self.decide(Command::Report { task_id, attempt, report })
    }

    pub(super) fn task(&self, task_id: TaskId) -> &Task {
        self.engine.task(task_id).expect("the task is at hand")
    }

    pub(super) fn status(&self, task_id: TaskId) -> Status {
        self.task(task_id).status
    }
}

/// Patterns, separated by spaces.
pub(super) fn accepts(task_types: &str, queues: &str) -> Accepts {
    let set = |texts: &str| {
        PatternSet::new(texts.split(' ').map(|text| Pattern::parse(text).expect("a test knows patterns")).collect())
    };
    Accepts { task_types: set(task_types), queues: set(queues) }
}

/// Which tasks went to which worker, in order.
pub(super) fn runs(notices: &[Notice]) -> Vec<(TaskId, String)> {
    notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Run { worker_id, task } => Some((task.task_id, worker_id.to_string())),
            _ => None,
        })
        .collect()
}
