//! Applications: they submit, sometimes twice with one key, cancel, retry by hand and delete.

use fastrand::Rng;
use taskhub::engine::{Answer, Command, Fitted, SubmitKey};
use taskhub::settings::{CatchUp, FairBy, Limits, Overlap, QueueSettings, Rate, RateBy, ScheduleSpec, UserLimits};
use taskhub::task::{
    Chord, Event, HeldUntil, Name, NewCallback, NewGather, NewTask, NewUnique, NewWorkflow, OnConflict,
    OnDependencyFailure, OnFailure, OnHeld, RetryPolicy, Submission, TaskId, TaskPatch, Timestamp,
};

use super::mix::Mix;
use super::world::{From, Reply, World};

pub const TYPES: [&str; 4] = ["a", "b.x", "b.y", "c"];
pub const QUEUES: [&str; 3] = ["default", "fast", "slow.1"];

const SCHEDULES: [&str; 4] = ["hourly", "nightly", "often", "s.1"];

/// What applications remember.
#[derive(Default)]
pub struct Apps {
    /// Submissions that carried a key, to be sent again.
    keyed: Vec<(SubmitKey, Submission)>,
    /// Ids they were told of.
    known: Vec<TaskId>,
}

impl Apps {
    pub fn heard(&mut self, command: &Command, reply: &Reply) {
        if let (Command::Submit { .. }, Reply::Answer(answer)) = (command, reply) {
            match answer {
                Answer::Submitted { tasks, .. } => self.known.extend(tasks.iter().map(|task| task.task_id)),
                Answer::Replayed { task_ids, .. } => self.known.extend(task_ids),
                other => panic!("a submission was answered by {other:?}"),
            }
        }
    }
}

impl World {
    pub fn apps_turn(&mut self) {
        match self.random.u32(0..100) {
            0 | 1 if self.mix.workflows => self.submit_workflow(),
            0..20 => self.submit(),
            20..26 => self.submit_again(),
            26..34 => {
                let Some(task_id) = self.some_task() else { return };
                let reason = self.random.bool().then(|| "because".to_owned());
                self.push(Command::Cancel { task_id, reason }, From::App);
            }
            34..40 => {
                let Some(task_id) = self.some_task() else { return };
                let fitted = || Fitted { payload: taskhub::task::Json::null(), types: Default::default() };
                let payload = self.random.bool().then(fitted);
                self.push(Command::Retry { task_id, payload }, From::App);
            }
            40..44 => {
                let Some(task_id) = self.some_task() else { return };
                self.push(Command::Delete { task_id }, From::App);
            }
            44 => {
                let task_ids = (0..4).filter_map(|_| self.some_task()).collect();
                self.push(Command::Expire { task_ids }, From::Nobody);
            }
            45 => self.push(Command::Workers, From::App),
            46 | 47 => self.ask_why(),
            48 | 49 if self.mix.rules => self.set_something(),
            51 | 52 => self.change_something(),
            53 | 54 if self.mix.schedules => self.schedule_something(),
            55 | 56 if self.mix.types => self.declare_something(),
            50 => {
                let Some(task_id) = self.some_task() else { return };
                self.push(Command::CancelWaiting { task_id, reason: "purged".into() }, From::App);
            }
            _ => {}
        }
    }

    /// A task somebody has heard of, more likely a young one; now and then one that never was.
    pub fn some_task(&mut self) -> Option<TaskId> {
        let ids = if self.random.bool() { &self.store.ids } else { &self.apps.known };
        if ids.is_empty() || self.random.u8(0..50) == 0 {
            return Some(TaskId::from_bytes([7; 16]));
        }
        let from = if self.random.u8(0..4) == 0 { 0 } else { ids.len().saturating_sub(12) };
        Some(ids[self.random.usize(from..ids.len())])
    }

    fn ask_why(&mut self) {
        if let Some(task_id) = self.some_task() {
            self.push(Command::WaitsFor { task_id }, From::App);
        }
    }

    /// Somebody changes a task that may wait.
    fn change_something(&mut self) {
        let Some(task_id) = self.some_task() else { return };
        let wall = self.wall();
        let random = &mut self.random;
        let mut patch = TaskPatch::default();
        if random.bool() {
            patch.priority = Some([-100, 0, 1, 100][random.usize(0..4)]);
        }
        if random.u8(0..3) == 0 {
            patch.run_at = Some(Timestamp::from_millis(wall.as_millis() + random.i64(-1_000..2_000)));
        }
        if random.u8(0..3) == 0 {
            patch.title = Some("another title".into());
        }
        if random.u8(0..3) == 0 {
            patch.payload = Some(taskhub::task::Json::null());
        }
        if random.u8(0..3) == 0 {
            patch.max_attempts = Some(random.u32(1..5));
        }
        self.push(Command::Update { task_id, patch, types: Default::default() }, From::App);
    }

    /// Somebody sets a queue, or what users may.
    fn set_something(&mut self) {
        let name = Name::new(QUEUES[self.random.usize(0..QUEUES.len())]);
        let mut some = |max: u32| self.random.bool().then(|| self.random.u32(1..=max));
        let (concurrency, user_concurrency) = (some(4), some(2));
        let user = |some: &mut dyn FnMut(u32) -> Option<u32>| UserLimits {
            running: some(3),
            waiting: some(6),
            submits_per_min: some(60),
        };
        let (all, one) = (user(&mut some), user(&mut some));
        let command = match self.random.u8(0..10) {
            0 => Command::UnsetQueue { name },
            1 | 2 => Command::PauseQueue { name, paused: self.random.bool() },
            3 => Command::SetLimits { limits: Limits { user: all, users: [("u1".to_owned(), one)].into() } },
            4 => Command::SetLimits { limits: Limits::default() },
            _ => {
                let settings = QueueSettings {
                    concurrency,
                    key_concurrency: self.random.u32(1..3),
                    user_concurrency,
                    rate: (self.random.u8(0..3) > 0).then(|| some_rate(&mut self.random)),
                    fair_by: [FairBy::None, FairBy::User, FairBy::Key][self.random.usize(0..3)],
                    ageing_ms: self.random.bool().then(|| self.random.u64(1..2_000)),
                    ..QueueSettings::default()
                };
                Command::SetQueue { name, settings }
            }
        };
        self.push(command, From::App);
    }

    /// Somebody sets a schedule, or does something with one.
    fn schedule_something(&mut self) {
        let name = Name::new(SCHEDULES[self.random.usize(0..SCHEDULES.len())]);
        let wall = self.wall();
        let random = &mut self.random;
        let command = match random.u8(0..10) {
            0 => Command::UnsetSchedule { name },
            1..=3 => Command::PauseSchedule { name, paused: random.bool(), author: None },
            4 => Command::RunSchedule { name },
            _ => {
                let task = NewTask {
                    queue: random.bool().then(|| QUEUES[random.usize(0..QUEUES.len())].to_owned()),
                    user_id: random.bool().then(|| format!("u{}", random.u8(0..3))),
                    max_attempts: Some(random.u32(1..4)),
                    start_by_ms: (random.u8(0..4) == 0).then(|| random.u64(100..3_000)),
                    ..NewTask::new(TYPES[random.usize(0..TYPES.len())])
                };
                let by_cron = random.u8(0..3) == 0;
                let cron = format!("*/{} * * * * *", [1, 2, 5, 30][random.usize(0..4)]);
                let mut near = |within: i64| {
                    let at = wall.as_millis() + random.i64(-within..within);
                    (random.u8(0..4) == 0).then(|| Timestamp::from_millis(at))
                };
                let (start_at, end_at) = (near(5_000), near(20_000));
                let spec = ScheduleSpec {
                    cron: by_cron.then_some(cron),
                    every_ms: (!by_cron).then(|| random.u64(1_000..4_000)),
                    overlap: [Overlap::Allow, Overlap::Skip, Overlap::Queue, Overlap::Replace][random.usize(0..4)],
                    catch_up: [CatchUp::None, CatchUp::Last, CatchUp::All][random.usize(0..3)],
                    catch_up_max: random.u32(1..40),
                    jitter_ms: random.bool().then(|| random.u64(0..3_000)),
                    start_at,
                    end_at: end_at.filter(|end| start_at.is_none_or(|start| start <= *end && !by_cron)),
                    paused: random.u8(0..8) == 0,
                    ..ScheduleSpec::new(task)
                };
                Command::SetSchedule { name, spec }
            }
        };
        self.push(command, From::App);
    }

    /// No task comes from a schedule any more.
    pub fn unset_schedules(&mut self) {
        for name in SCHEDULES {
            self.push(Command::UnsetSchedule { name: Name::new(name) }, From::App);
        }
    }

    /// No queue is paused any more, and no user is kept from anything.
    pub fn resume_all(&mut self) {
        for name in QUEUES {
            self.push(Command::PauseQueue { name: Name::new(name), paused: false }, From::App);
        }
    }

    fn submit(&mut self) {
        let wall = self.wall();
        let many = match self.random.u8(0..20) {
            0 => self.random.usize(0..8),
            1 if self.mix.flood => 30,
            _ => 1,
        };
        let mut tasks: Vec<NewTask> = (0..many).map(|_| some_new(&mut self.random, &self.mix, wall)).collect();
        if self.mix.dependencies {
            self.tie(&mut tasks);
        }
        let submission = Submission::check(tasks, self.mix.options.payload_bytes_max);
        let submission = submission.expect("what is wrong never reaches the engine");
        self.submit_this(submission);
    }

    /// Tasks that belong together.
    fn submit_workflow(&mut self) {
        let wall = self.wall();
        let workflow = self.some_workflow(2, wall);
        let submission = Submission::check_workflow(workflow, self.mix.options.payload_bytes_max);
        self.submit_this(submission.expect("what is wrong never reaches the engine"));
    }

    fn some_workflow(&mut self, depth: usize, wall: Timestamp) -> NewWorkflow {
        let count = self.random.usize(1..6);
        let mut tasks: Vec<NewTask> = Vec::new();
        for at in 0..count {
            let mut new = some_new(&mut self.random, &self.mix, wall);
            if depth > 0 && self.random.u8(0..6) == 0 {
                let inner = NewWorkflow { user_id: None, ..self.some_workflow(depth - 1, wall) };
                new = NewTask { workflow: Some(Box::new(inner)), ..NewTask::default() };
            }
            new.user_id = None;
            new.on_conflict = None;
            (new.unique, new.gather) = (None, None);
            new.reference = self.random.bool().then(|| format!("n{at}"));
            new.weight = self.random.bool().then(|| self.random.u32(1..9));
            tasks.push(new);
        }
        let random = &mut self.random;
        let on_failure = random.bool().then(|| if random.bool() { OnFailure::Stop } else { OnFailure::Finish });
        let user_id = random.bool().then(|| "u1".to_owned());
        let mut workflow = NewWorkflow { on_failure, user_id, ..NewWorkflow::default() };
        if random.u8(0..6) == 0 {
            workflow.delay_ms = Some(random.u64(0..2_000));
        }
        if random.u8(0..6) == 0 {
            workflow.deadline_ms = Some(random.u64(2_001..9_000));
        }
        if random.u8(0..6) == 0 {
            workflow.start_by_ms = Some(random.u64(2_001..5_000));
        }
        match random.u8(0..4) {
            0 => workflow.chain = Some(tasks),
            1 => workflow.group = Some(tasks),
            2 => {
                let then = Box::new(tasks.remove(0));
                tasks.push(NewTask::new("a"));
                workflow.chord = Some(Chord { group: tasks, then });
            }
            _ => {
                for at in 1..tasks.len() {
                    let named = (0..at).filter(|at| tasks[*at].reference.is_some());
                    let depends_on: Vec<String> = named.filter(|_| random.bool()).map(|at| format!("@n{at}")).collect();
                    let policies = [OnDependencyFailure::Cancel, OnDependencyFailure::Fail, OnDependencyFailure::Run];
                    let policy = random.bool().then(|| policies[random.usize(0..3)]);
                    tasks[at].on_dependency_failure = policy.filter(|_| !depends_on.is_empty());
                    tasks[at].depends_on = depends_on;
                }
                let last = tasks.last().and_then(|new| new.reference.clone());
                workflow.output = last.filter(|_| random.bool()).map(|name| format!("@{name}"));
                workflow.tasks = Some(tasks);
            }
        }
        workflow
    }

    fn submit_this(&mut self, submission: Submission) {
        let key = (self.random.u8(0..4) == 0).then(|| {
            let key = SubmitKey { key: self.random.u128(..), body: self.random.u128(..) };
            self.apps.keyed.push((key, submission.clone()));
            key
        });
        self.push(Command::Submit { submission: submission.clone(), key }, From::App);
        if key.is_some() && self.random.u8(0..4) == 0 {
            // Sent twice at once.
            self.push(Command::Submit { submission, key }, From::App);
        }
    }

    /// Some of the new tasks depend on others, of this call or of before.
    fn tie(&mut self, tasks: &mut [NewTask]) {
        let count = tasks.len();
        for (at, new) in tasks.iter_mut().enumerate() {
            new.reference = (count > 1).then(|| format!("n{at}"));
            if self.random.bool() {
                continue;
            }
            let mut depends_on: Vec<String> = Vec::new();
            for _ in 0..self.random.usize(1..4) {
                // Later ones depend on earlier ones only, in an order that changes with each call.
                let known = match self.random.bool() && at > 0 {
                    true => Some(format!("@n{}", self.random.usize(0..at))),
                    false => self.some_task().map(|task_id| task_id.to_string()),
                };
                depends_on.extend(known.filter(|known| !depends_on.contains(known)));
            }
            let policies = [OnDependencyFailure::Cancel, OnDependencyFailure::Fail, OnDependencyFailure::Run];
            let policy = self.random.bool().then(|| policies[self.random.usize(0..3)]);
            new.on_dependency_failure = policy.filter(|_| !depends_on.is_empty());
            new.depends_on = depends_on;
        }
        // Those that others count on are made whatever is there.
        let named: Vec<String> = tasks.iter().flat_map(|new| new.depends_on.clone()).collect();
        for new in tasks.iter_mut() {
            let is_named = new.reference.as_ref().is_some_and(|name| named.contains(&format!("@{name}")));
            if is_named || !new.depends_on.is_empty() {
                (new.unique, new.gather) = (None, None);
            }
        }
        if self.random.bool() {
            tasks.reverse();
        }
    }

    fn submit_again(&mut self) {
        if self.apps.keyed.is_empty() {
            return;
        }
        let from = self.apps.keyed.len().saturating_sub(5);
        let (mut key, submission) = self.apps.keyed[self.random.usize(from..self.apps.keyed.len())].clone();
        if self.random.u8(0..4) == 0 {
            key.body ^= 1;
        }
        self.push(Command::Submit { submission, key: Some(key) }, From::App);
    }

    /// Tasks for those workers who take every queue.
    pub fn submit_for_everyone(&mut self, count: usize) {
        let task = NewTask { queue: Some("only".into()), ..NewTask::new("a") };
        let submission = Submission::check(vec![task; count], 1_000).expect("nothing is wrong with it");
        self.push(Command::Submit { submission, key: None }, From::App);
    }
}

fn some_rate(random: &mut Rng) -> Rate {
    let per_ms_max = [10, 300, 3_000][random.usize(0..3)];
    let by = [RateBy::Queue, RateBy::Key, RateBy::User][random.usize(0..3)];
    Rate { limit: random.u32(1..5), per_ms: random.u64(1..per_ms_max), by }
}

/// What is told of tasks decides nothing, and shifts nothing either: its randomness is made from what there is.
fn some_callbacks(random: &Rng) -> Vec<NewCallback> {
    let mut random = Rng::with_seed(random.get_seed() ^ 0x6361_6c6c);
    let callback = |random: &mut Rng| match random.bool() {
        true => NewCallback::new("https://app.example/"),
        false => {
            let words = Event::ALL.map(|event| event.as_str().replace("task.", ""));
            let some: Vec<_> = words.iter().filter(|_| random.bool()).cloned().collect();
            NewCallback::on("https://app.example/", if some.is_empty() { words.to_vec() } else { some })
        }
    };
    let count = if random.u8(0..4) == 0 { random.usize(1..=4) } else { 0 };
    (0..count).map(|_| callback(&mut random)).collect()
}

fn some_new(random: &mut Rng, mix: &Mix, wall: Timestamp) -> NewTask {
    let callbacks = some_callbacks(random);
    let mut new = NewTask { callbacks, ..NewTask::new(TYPES[random.usize(0..TYPES.len())]) };
    new.queue = random.bool().then(|| QUEUES[random.usize(0..QUEUES.len())].to_owned());
    new.priority = [None, None, None, Some(0), Some(1), Some(-1), Some(100), Some(-100)][random.usize(0..8)];
    new.max_attempts = random.bool().then(|| random.u32(1..5));
    new.max_crashes = random.bool().then(|| random.u32(1..4));
    if random.bool() {
        new.user_id = Some(format!("u{}", random.u8(0..3)));
        new.title = Some("a title".into());
        new.labels.insert("project_id".into(), if random.bool() { "p1" } else { "p2" }.into());
        new.payload = Some(taskhub::task::Json::null());
    }
    if mix.keys && random.bool() {
        new.concurrency_key = Some(format!("k{}", random.u8(0..4)));
        let strategies = [OnConflict::Queue, OnConflict::Reject, OnConflict::ReplaceWaiting, OnConflict::CancelRunning];
        new.on_conflict = (random.u8(0..3) == 0).then(|| strategies[random.usize(0..4)]);
    }
    if mix.timeouts && random.u8(0..3) == 0 {
        new.timeout_ms = Some(random.u64(1..1_500));
    }
    if mix.timeouts && random.u8(0..4) == 0 {
        new.silence_ms = Some(random.u64(1..1_500));
    }
    if random.u8(0..3) == 0 {
        new.cancel_grace_ms = Some(random.u64(0..800));
    }
    if mix.timeouts && random.u8(0..6) == 0 {
        new.unserved_ms = Some(random.u64(1..3_000));
    }
    if mix.delays {
        match random.u8(0..8) {
            0 => new.delay_ms = Some(random.u64(0..3_000)),
            1 => {
                let at = wall.as_millis() + random.i64(-1_000..3_000);
                new.run_at = Some(Timestamp::from_millis(at));
            }
            _ => {}
        }
    }
    if mix.timeouts {
        let mut at = || Timestamp::from_millis(wall.as_millis() + random.i64(-100..6_000));
        let (deadline_at, start_by_at) = (at(), at());
        let later = new.delay_ms.map_or(1, |delay_ms| delay_ms + 1);
        match random.u8(0..16) {
            0 if new.run_at.is_none_or(|run_at| run_at < deadline_at) => new.deadline_at = Some(deadline_at),
            1 => new.deadline_ms = Some(random.u64(later..later + 5_000)),
            2 if new.run_at.is_none_or(|run_at| run_at < start_by_at) => new.start_by_at = Some(start_by_at),
            3 => new.start_by_ms = Some(random.u64(later..later + 3_000)),
            4 => {
                new.deadline_ms = Some(random.u64(later..later + 5_000));
                new.start_by_ms = Some(random.u64(later..later + 3_000));
            }
            _ => {}
        }
    }
    if mix.unique && random.bool() {
        new.unique = Some(Box::new(some_unique(random, new.delay_ms)));
    }
    if mix.gather && random.bool() && new.unique.is_none() && new.delay_ms.is_none() && new.run_at.is_none() {
        new.gather = Some(Box::new(NewGather {
            key: format!("k{}", random.u8(0..2)),
            max_count: random.bool().then(|| random.u32(1..5)),
            // So that all come to their end.
            max_wait_ms: Some(random.u64(1..3_000)),
            max_bytes: random.bool().then(|| random.u64(1..30)),
        }));
    }
    if random.u8(0..8) == 0 {
        new.retry = Some(RetryPolicy::delays_ms(vec![random.u64(0..500); random.usize(1..4)]));
    } else if random.u8(0..8) > 0 {
        new.retry = Some(RetryPolicy {
            base_ms: random.u64(0..400),
            factor: [1.0, 1.5, 2.0, 3.0][random.usize(0..4)],
            max_ms: random.u64(0..3_000),
            jitter: [0.0, 0.5, 1.0][random.usize(0..3)],
            ..RetryPolicy::default()
        });
    }
    new
}

/// Few keys, so that tasks meet.
fn some_unique(random: &mut Rng, delay_ms: Option<u64>) -> NewUnique {
    let mut unique = match random.u8(0..6) {
        0 => NewUnique::by(["queue"]),
        1 => NewUnique::by(["payload", "labels/project_id"]),
        2 => NewUnique::by(["labels/project_id", "payload"]),
        _ => NewUnique::key(format!("k{}", random.u8(0..2))),
    };
    match random.u8(0..4) {
        0 => unique.until = Some(HeldUntil::Started),
        1 => unique.within_ms = Some(random.u64(1..6_000)),
        2 => unique.until = Some(HeldUntil::Finished),
        _ => {}
    }
    let ways = [OnHeld::Return, OnHeld::Reject, OnHeld::Replace, OnHeld::Replace];
    unique.on_conflict = random.bool().then(|| ways[random.usize(0..4)]);
    if unique.on_conflict == Some(OnHeld::Replace) && random.bool() {
        unique.max_wait_ms = delay_ms.map(|delay_ms| delay_ms.max(1) + random.u64(0..2_000));
    }
    unique
}
