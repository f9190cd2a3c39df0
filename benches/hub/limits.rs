//! What limits cost when many wait: the engine alone, a task completed and the next handed out, with a thousand waiting and
//! with a million, of ten thousand users and a thousand keys, all of them limited. No disk is in it.

use taskhub::engine::{Accepts, Batch, Clock, Command, Cx, Engine, Hello, Now, Options, Report as Says};
use taskhub::settings::{FairBy, Limits, QueueSettings, UserLimits};
use taskhub::task::{Json, Name, NewTask, PatternSet, Submission, TaskId, Timestamp};

use crate::Outcome;
use crate::process::cpu_of_this_thread;
use crate::report::{Report, Row};

pub const NAMES: [&str; 2] = ["limits/plain", "limits/users_and_keys"];

const SOME: usize = 1_000;
const MANY: usize = 1_000_000;
const USERS: usize = 10_000;
const KEYS: usize = 1_000;
const PLACES: u32 = 500;
const ROUNDS: usize = 20_000;

fn submit(tasks: Vec<NewTask>) -> Command {
    let submission = Submission::check(tasks, usize::MAX).expect("nothing is wrong with them");
    Command::Submit { submission, key: None }
}

pub fn run(report: &mut Report) -> Outcome {
    for (name, limited) in [(NAMES[0], false), (NAMES[1], true)] {
        if !report.wants(&[name]) {
            continue;
        }
        let (few, many) = (Bench::new(SOME, limited).micros()?, Bench::new(MANY, limited).micros()?);
        report.row(Row {
            name,
            measured: format!(
                "{:.2} ×: {many:.1} µs to complete one and hand out the next with 1,000,000 waiting, {few:.1} with 1,000",
                many / few
            ),
            target: "≤ 2 ×",
            floor: None,
            peers: "",
        });
    }
    Ok(())
}

/// An engine with so many tasks that wait, and a worker that is full.
struct Bench {
    engine: Engine,
    now: Now,
    running: Vec<(TaskId, u32)>,
    random: fastrand::Rng,
    limited: bool,
}

impl Bench {
    fn new(waiting: usize, limited: bool) -> Bench {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let now = Clock::new(at, at, 0, 10_000).look(at, 0);
        let engine = Engine::new(Options::default(), 0, None, 1);
        let random = fastrand::Rng::with_seed(7);
        let mut bench = Bench { engine, now, running: Vec::new(), random, limited };
        if limited {
            let settings = QueueSettings {
                concurrency: Some(PLACES),
                key_concurrency: 3,
                user_concurrency: Some(2),
                fair_by: FairBy::User,
                ageing_ms: Some(60_000),
                ..QueueSettings::default()
            };
            bench.decide(Command::SetQueue { name: Name::new("default"), settings });
            let user = UserLimits { running: Some(4), ..UserLimits::default() };
            bench.decide(Command::SetLimits { limits: Limits { user, ..Limits::default() } });
        }
        let all = || Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
        let (worker_id, concurrency) = (Name::new("w"), PLACES);
        let hello = Hello { worker_id, session: 1, accepts: all(), concurrency, holding: None };
        while bench.engine.unfinished() < waiting {
            let tasks = (0..1_000).map(|_| bench.task()).collect();
            bench.decide(submit(tasks));
        }
        bench.decide(Command::Hello(hello));
        bench
    }

    fn task(&mut self) -> NewTask {
        let mut new = NewTask::new("t");
        if self.limited {
            new.user_id = Some(format!("user-{}", self.random.usize(0..USERS)));
            new.concurrency_key = Some(format!("key-{}", self.random.usize(0..KEYS)));
        }
        new
    }

    /// Decides, hands out, and commits.
    fn decide(&mut self, command: Command) {
        let mut batch = Batch::default();
        let cx = &mut Cx { now: self.now, ticks: &(), batch: &mut batch };
        self.engine.decide(command, cx).expect("it is allowed");
        self.engine.assign(cx, usize::MAX);
        self.engine.shed();
        let runs = batch.changes.iter().filter(|change| change.task.worker_id().is_some());
        self.running.extend(runs.map(|change| (change.task.task_id, change.task.attempt)));
    }

    /// The CPU of a task that is completed, another that is submitted, and one that is handed out.
    fn micros(mut self) -> Outcome<f64> {
        for _ in 0..ROUNDS / 4 {
            self.round();
        }
        let before = cpu_of_this_thread()?;
        for _ in 0..ROUNDS {
            self.round();
        }
        Ok((cpu_of_this_thread()? - before).as_secs_f64() * 1e6 / ROUNDS as f64)
    }

    fn round(&mut self) {
        let at = self.random.usize(..self.running.len());
        let (task_id, attempt) = self.running.swap_remove(at);
        let report = Says::Complete { result: Json::null() };
        self.decide(Command::Report { task_id, attempt, report });
        let tasks = vec![self.task()];
        self.decide(submit(tasks));
    }
}
