//! The hub's process in small: the inbox, the writer's rounds, the store, the board; and the world around it.
//!
//! A round here is `hub::writer`'s, with the same order: what waits is decided, timers fire, ready tasks are handed out,
//! all of it is committed, and only then shown, handed over and answered. Where the writer has a socket or a caller, this
//! has an actor that may be gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use taskhub::engine::{
    Answer, Batch, Clock, Command, Cx, Engine, HEARING_MS, NotNow, Notice, Now, Refusal, Report, Tasks, Ticks, late_ms,
};
use taskhub::settings::{HandOuts, Setting, SettingId};
use taskhub::task::{Change, ChangeKind, Json, KeyEntry, Links, Name, Outcome, Status, Task, TaskId, Timestamp};

use super::apps::Apps;
use super::check::Checker;
use super::mix::Mix;
use super::ties::is_consequence;
use super::trace::{self, Trace};
use super::watchers::Watcher;
use super::workers::{Actor, Push};

/// Between so many steps of a pause workers say something.
const PAUSE_STEPS: u64 = 40;
/// Timers and hand-outs of a round that is not held short.
const UNBOUNDED: usize = 100_000;

/// What is on disk.
#[derive(Default)]
pub struct Store {
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    pub keys: HashMap<u128, KeyEntry>,
    pub settings: BTreeMap<SettingId, Setting>,
    /// The `rev` of each deletion.
    pub gone: BTreeMap<TaskId, u64>,
    pub rev: u64,
    /// Every id that was ever committed, oldest first.
    pub ids: Vec<TaskId>,
    /// The newest time that is written down.
    pub last_at: Timestamp,
    /// What was handed out under rates, on the count of this start of the machine, and how far that is known to have come.
    pub hand_outs: Vec<HandOuts>,
    count: (u64, u64),
}

impl Store {
    fn append(&mut self, batch: &Batch) {
        let Batch { changes, settings, keys, hand_outs, .. } = batch;
        self.hand_outs.extend(hand_outs.iter().cloned());
        let mut revs: Vec<u64> = settings.iter().map(|change| change.rev).collect();
        revs.extend(changes.iter().map(|change| change.rev));
        revs.sort_unstable();
        assert!(revs.iter().copied().eq(self.rev + 1..self.rev + 1 + revs.len() as u64), "a hole in the log: {revs:?}");
        for change in settings {
            self.rev = self.rev.max(change.rev);
            self.last_at = self.last_at.max(change.at);
            match &change.next {
                Some(setting) => {
                    let read = Setting::parse(&setting.to_json()).expect("the hub reads what it wrote");
                    self.settings.insert(change.id.clone(), read);
                }
                None => _ = self.settings.remove(&change.id),
            }
        }
        for change in changes {
            self.rev = self.rev.max(change.rev);
            self.last_at = self.last_at.max(change.at);
            let task_id = change.task.task_id;
            if change.kind == ChangeKind::Gone {
                assert!(self.tasks.remove(&task_id).is_some(), "{task_id} was deleted twice");
                self.gone.insert(task_id, change.rev);
            } else {
                assert!(!self.gone.contains_key(&task_id), "{task_id} is back from the dead");
                if self.tasks.insert(task_id, change.task.clone()).is_none() {
                    self.ids.push(task_id);
                }
            }
        }
        for key in keys {
            self.keys.insert(key.key, key.clone());
        }
    }

    /// A hub begins: what nobody knows of took no time.
    fn begin(&mut self, (boot, mono): (u64, u64)) {
        let (known, seen) = self.count;
        let newest = self.hand_outs.iter().map(|it| it.at).max().unwrap_or(0).max(seen as i64);
        if known != boot {
            self.hand_outs.iter_mut().for_each(|it| it.at += mono as i64 - newest);
            self.count = (boot, mono);
        }
    }

    /// What does not count any more goes.
    fn sweep(&mut self, longest_ms: u64, mono: u64) {
        self.hand_outs.retain(|it| it.at > mono as i64 - longest_ms as i64);
        self.count.1 = mono;
    }

    /// The final tasks that unfinished ones have to do with.
    fn relatives(&self, unfinished: &[Task]) -> Vec<Task> {
        let waiting = unfinished.iter().filter(|task| task.status == Status::Waiting);
        let mut named: BTreeSet<TaskId> = waiting.flat_map(Task::depends_on).copied().collect();
        let own = unfinished.iter().filter(|task| task.is_workflow()).map(|task| task.task_id);
        let families: BTreeSet<TaskId> = own.chain(unfinished.iter().filter_map(Task::workflow_id)).collect();
        let is_part = |task: &&Arc<Task>| task.workflow_id().is_some_and(|id| families.contains(&id));
        named.extend(self.tasks.values().filter(is_part).map(|task| task.task_id));
        named.extend(families.iter().copied());
        let finals = named.iter().filter_map(|id| self.tasks.get(id)).filter(|task| task.status.is_final());
        finals.map(|task| Store::read(task)).collect()
    }

    /// The tasks of a workflow.
    fn family(&self, workflow_id: TaskId) -> (Option<Task>, Vec<Task>) {
        let parts = self.tasks.values().filter(|task| task.workflow_id() == Some(workflow_id));
        (self.tasks.get(&workflow_id).map(|task| Store::read(task)), parts.map(|task| Store::read(task)).collect())
    }

    /// Reads a record as a store would: through its text.
    fn read(task: &Task) -> Task {
        let mut read = Task::parse(&task.to_json()).expect("the hub reads what it wrote");
        if let Some(links) = task.links() {
            let links = Links::parse(&links.to_json()).expect("the hub reads what it wrote");
            let ties = read.detail.as_mut().and_then(|detail| detail.ties.as_mut()).expect("its record says so");
            ties.links = Some(Arc::new(links));
        }
        read
    }
}

/// What running tasks say between two transitions; the board's part that the engine looks at.
#[derive(Default)]
pub struct Live(BTreeMap<TaskId, LiveTask>, BTreeMap<TaskId, Json>);

pub struct LiveTask {
    pub rev: u64,
    pub attempt: u32,
    pub tick: u64,
    /// When it last reported something, in time that the hub lived through.
    pub spoke: u64,
    progress: Option<Json>,
}

impl Live {
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &LiveTask)> {
        self.0.iter().map(|(task_id, live)| (*task_id, live))
    }

    pub fn get(&self, task_id: TaskId) -> Option<&LiveTask> {
        self.0.get(&task_id)
    }

    fn keep_result(&mut self, change: &Change) {
        let large;
        let inline = match change.task.run().and_then(|run| run.outcome.as_ref()) {
            Some(Outcome::Result(result)) => Some(result),
            Some(Outcome::Large(left)) => {
                large = left.told_of(change.task.task_id);
                Some(&large)
            }
            _ => None,
        };
        if let Some(result) = change.result.as_ref().or(inline) {
            self.1.insert(change.task.task_id, result.clone());
        }
    }

    fn show(&mut self, task: &Task) {
        if task.status != Status::Running {
            self.0.remove(&task.task_id);
            return;
        }
        let before = self.0.remove(&task.task_id).filter(|live| live.attempt == task.attempt);
        let (progress, spoke) = match before {
            Some(live) => (live.progress, live.spoke),
            None => (task.run().and_then(|run| run.progress.clone()), 0),
        };
        self.0.insert(task.task_id, LiveTask { rev: task.rev, attempt: task.attempt, tick: 0, spoke, progress });
    }
}

impl Ticks for Live {
    fn result(&self, task_id: TaskId) -> Result<Option<Json>, NotNow> {
        Ok(self.1.get(&task_id).cloned())
    }

    fn newest(&self, task_id: TaskId) -> Option<Json> {
        self.0.get(&task_id)?.progress.clone()
    }

    fn spoke(&self, task_id: TaskId, attempt: u32) -> Option<u64> {
        self.0.get(&task_id).filter(|live| live.attempt == attempt).map(|live| live.spoke)
    }
}

/// Who hears the outcome of a command.
#[derive(Clone, Debug)]
pub enum From {
    Nobody,
    App,
    /// A worker's socket. Tried again while the store does not write.
    Socket {
        session: u64,
    },
    /// Nobody hears it, and yet it must be done: tried again while the store does not write.
    Unheard,
    Hello {
        actor: usize,
        session: u64,
    },
    Http {
        actor: usize,
    },
    Claim {
        actor: usize,
        ticket: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Request {
    pub command: Command,
    pub from: From,
}

/// How a command ended for whoever sent it.
#[derive(Debug)]
pub enum Reply {
    Answer(Answer),
    Refused(Refusal),
    /// The store failed: nothing was written.
    Unavailable,
    /// The hub died: who knows.
    Unknown,
}

pub struct World {
    pub random: Rng,
    pub mix: Mix,
    pub trace: Trace,
    /// Milliseconds since the beginning of this world; never goes back.
    pub time: u64,
    /// What the wall clock shows beyond `time`.
    wall_ahead: i64,
    /// When the machine was started, and how often that was.
    booted: u64,
    boots: u64,
    clock: Clock,
    /// How long this process was there since then: what its clock must find out by itself.
    awake: u64,
    /// What of it need not count, since it followed an absence.
    unjudged: u64,
    /// What may count of absences all the same.
    unnoticed: u64,
    /// When it last looked at its clock.
    looked: u64,
    /// How long it was not there since.
    absent: u64,
    /// Its process is stopped: what is said now waits in its sockets.
    stopped: bool,
    /// Until then whatever reaches the hub does so behind what came while it was stopped.
    hears_at: u64,
    /// When each worker last said that it is alive, in the time that the hub may have lived through.
    said: HashMap<Name, u64>,
    engine: Engine,
    pub checker: Checker,
    pub store: Store,
    store_broken: bool,
    pub live: Live,
    inbox: Vec<Request>,
    parked: Vec<Request>,
    /// Requests on their way, with when they arrive.
    late: VecDeque<(u64, Request)>,
    /// The newest connection of each worker.
    sessions: HashMap<Name, u64>,
    /// Which actor is at the other end of a connection.
    pub links: BTreeMap<u64, usize>,
    /// Claims that somebody waits for.
    pub claims: BTreeMap<u64, usize>,
    numbers: u64,
    pub actors: Vec<Actor>,
    pub apps: Apps,
    pub watchers: Vec<Watcher>,
    pub draining: bool,
    /// No faults any more: everything must come to its end.
    pub calm: bool,
    pub steps: u64,
    pub commits: u64,
    pub changes: u64,
}

impl World {
    pub fn new(seed: u64, mix: Mix, trace: Trace) -> World {
        let mut random = Rng::with_seed(seed);
        let engine = Engine::new(mix.options, 0, None, random.u64(..));
        let actors = Actor::some(&mix, &mut random);
        let begin = Timestamp::from_millis(1_800_000_000_000);
        World {
            engine,
            checker: Checker::new(mix.options),
            trace,
            time: 0,
            wall_ahead: begin.as_millis(),
            booted: 0,
            boots: 0,
            clock: Clock::new(begin, begin, 0, mix.options.lease_ms),
            awake: 0,
            unjudged: 0,
            unnoticed: 0,
            looked: 0,
            absent: 0,
            stopped: false,
            hears_at: 0,
            said: HashMap::new(),
            store: Store::default(),
            store_broken: false,
            live: Live::default(),
            inbox: Vec::new(),
            parked: Vec::new(),
            late: VecDeque::new(),
            sessions: HashMap::new(),
            links: BTreeMap::new(),
            claims: BTreeMap::new(),
            numbers: 1,
            actors,
            apps: Apps::default(),
            watchers: (0..3).map(|_| Watcher::default()).collect(),
            draining: false,
            calm: false,
            steps: 0,
            commits: 0,
            changes: 0,
            random,
            mix,
        }
    }

    /// What the wall clock shows.
    pub fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ahead + self.time as i64)
    }

    /// The machine's monotonic count.
    fn mono(&self) -> u64 {
        self.time - self.booted
    }

    /// The writer looks at its clock, and what that says is held against what happened.
    fn look(&mut self) -> Now {
        let passed = self.time - self.looked;
        // It slept until something came.
        self.clock.sleeps(passed - self.absent);
        self.awake += passed - self.absent;
        let late_ms = late_ms(self.mix.options.lease_ms);
        if self.absent > late_ms {
            // The moment to hear, and what passed between the last look and the absence.
            self.unjudged += HEARING_MS + passed - self.absent;
        }
        // What is too short to be noticed counts, and a little of what follows another absence at once.
        self.unnoticed += self.absent.min(late_ms);
        (self.looked, self.absent) = (self.time, 0);
        let now = self.clock.look(self.wall(), self.mono());
        assert_eq!(now.mono, self.mono(), "a wait is of time that passes");
        let (lived, unnoticed) = (now.lived - 1, self.unnoticed);
        assert!(lived <= self.awake + unnoticed, "the hub lived {lived} ms in {} ms", self.awake);
        let unjudged = self.unjudged;
        assert!(lived + unjudged >= self.awake, "it lived {lived} ms in {} ms, {unjudged} to hear", self.awake);
        now
    }

    /// The hub is not there for some time.
    fn is_absent(&mut self, millis: u64) {
        self.time += millis;
        self.absent += millis;
    }

    /// The hub's process is stopped. Workers do not know: what they say is read when it goes on.
    fn pause(&mut self) {
        let millis = if self.random.bool() { self.random.u64(0..2_000) } else { self.random.u64(0..60_000) };
        self.trace.note(|| format!("{:>8} the hub is stopped for {millis} ms", self.time));
        self.hears_at = self.hears_at.max(self.time + millis);
        self.stopped = true;
        for _ in 0..PAUSE_STEPS {
            self.is_absent(millis / PAUSE_STEPS);
            if !self.actors.is_empty() {
                let actor = self.random.usize(0..self.actors.len());
                self.actor_turn(actor);
            }
        }
        self.is_absent(millis % PAUSE_STEPS);
        self.stopped = false;
    }

    /// The disk takes its time, and meanwhile nothing else is decided.
    fn stall(&mut self) {
        self.trace.note(|| format!("{:>8} the disk stalls", self.time));
        for _ in 0..self.random.u32(0..30) {
            let millis = self.random.u64(0..700);
            self.is_absent(millis);
            if !self.actors.is_empty() {
                let actor = self.random.usize(0..self.actors.len());
                self.actor_turn(actor);
            }
        }
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Whether something of this chance happens now.
    pub fn chance(&mut self, in_a_thousand: u32) -> bool {
        in_a_thousand > 0 && self.random.u32(0..1_000) < in_a_thousand
    }

    pub fn fault(&mut self, in_a_thousand: u32) -> bool {
        !self.calm && self.chance(in_a_thousand)
    }

    pub fn push(&mut self, command: Command, from: From) {
        let command = self.prepared(command);
        if let Command::Heard { worker_id } = &command {
            let lived_at_most = self.awake + self.unnoticed + (self.time - self.looked - self.absent);
            // A lease that ran out before the hub was stopped may be over, whatever is said while nothing is read; or one that
            // ran out in the first moments of that, which may count.
            let lease_ms = self.mix.options.lease_ms;
            let was_over = |said: &u64| lived_at_most + late_ms(lease_ms) - said >= lease_ms;
            if self.time >= self.hears_at || !self.said.get(worker_id).is_none_or(was_over) {
                self.said.insert(worker_id.clone(), lived_at_most);
            }
        }
        if self.time < self.hears_at {
            // Read in the order in which it was said, within the moment that the hub gives itself to hear.
            if self.stopped {
                self.hears_at += self.random.u64(0..3);
            }
            self.late.push_back((self.hears_at, Request { command, from }));
        } else {
            self.inbox.push(Request { command, from });
        }
    }

    pub fn push_late(&mut self, after: u64, command: Command, from: From) {
        // Nothing overtakes what is still to be read.
        let at = self.hears_at.max(self.time) + after;
        self.late.push_back((at, Request { command, from }));
    }

    /// The part of the run with all its faults.
    pub fn live(&mut self) {
        for _ in 0..self.mix.steps {
            self.step();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        self.time += self.random.u64(0..=self.mix.pause_ms);
        let time = self.time;
        let arrived = |late: &mut VecDeque<(u64, Request)>| {
            let at = late.iter().position(|(at, _)| *at <= time)?;
            late.remove(at).map(|(_, request)| request)
        };
        while let Some(request) = arrived(&mut self.late) {
            self.inbox.push(request);
        }
        if self.fault(self.mix.wall_jumps) {
            self.wall_ahead += self.random.i64(-7_200_000..7_200_000);
            self.trace.note(|| format!("{:>8} the wall clock jumps", self.time));
        }
        if self.fault(self.mix.pauses) {
            self.pause();
        }
        if self.fault(self.mix.drain) {
            self.drain();
        }
        self.apps_turn();
        if !self.actors.is_empty() {
            let actor = self.random.usize(0..self.actors.len());
            self.actor_turn(actor);
        }
        self.watchers_turn();
        if self.fault(self.mix.hub_dies) {
            self.restart("was killed");
        }
        if self.chance(self.mix.round) {
            self.round();
        }
    }

    fn watchers_turn(&mut self) {
        let chance = self.random.u32(0..100);
        let which = self.random.usize(0..self.watchers.len());
        match chance {
            0 => self.watchers[which].connected = false,
            1..=3 if !self.watchers[which].connected => {
                let fresh = self.random.u32(0..4) == 0;
                self.watchers[which].connect(&self.store, &self.live, fresh);
            }
            _ => {}
        }
    }

    /// A tick of an attempt, past the writer, as on the board.
    pub fn tick(&mut self, task_id: TaskId, attempt: u32) {
        let lived = self.clock.read(self.wall(), self.mono()).lived;
        let Some(live) = self.live.0.get_mut(&task_id).filter(|live| live.attempt == attempt) else { return };
        live.tick += 1;
        live.spoke = lived;
        live.progress = Some(Json::trusted(format!("{{\"current\":{}}}", live.rev * 1_000 + live.tick)));
        let (rev, tick) = (live.rev, live.tick);
        for watcher in &mut self.watchers {
            watcher.tick(task_id, rev, tick);
        }
        if let Some(worker_id) = self.store.tasks.get(&task_id).and_then(|task| task.worker_id().cloned()) {
            self.push(Command::Heard { worker_id }, From::Nobody);
        }
    }

    /// A round of the writer.
    fn round(&mut self) {
        let now = self.look();
        self.checker.rates.time = self.time;
        let mut requests = std::mem::take(&mut self.parked);
        requests.append(&mut self.inbox);
        let mut batch = Batch::default();
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            self.decide(request, now, &mut batch, &mut outcomes);
        }
        let steps_max = self.bound();
        let (from, noticed, set) = (batch.changes.len(), batch.notices.len(), batch.settings.len());
        let cx = &mut Cx { now, ticks: &self.live, batch: &mut batch };
        self.engine.fire(cx, steps_max);
        self.engine.judge(cx, steps_max);
        let fired = (&batch.changes[from..], &batch.notices[noticed..]);
        for change in fired.0.iter().filter(|change| change.note.as_deref() == Some("its worker fell silent")) {
            let worker_id = change.prev.as_ref().and_then(|prev| prev.worker_id()).expect("it ran");
            let since = self.said.get(worker_id).map_or(u64::MAX, |said| self.awake + self.unnoticed - said);
            assert!(since >= self.mix.options.lease_ms, "{worker_id} had spoken {since} ms before: {change:?}");
        }
        let changed = (fired.0, &batch.settings[set..]);
        self.checker.fired(changed, fired.1, now, &self.live, steps_max == UNBOUNDED);
        let tasks_max = self.bound();
        let (from, noticed) = (batch.changes.len(), batch.notices.len());
        let more = self.engine.assign(&mut Cx { now, ticks: &self.live, batch: &mut batch }, tasks_max);
        let handed_out = batch.changes[from..].iter().filter(|change| !is_consequence(change)).count();
        assert!(!more || handed_out == tasks_max, "it stopped short of its bound");
        self.checker.assigned(&batch.changes[from..], &batch.notices[noticed..], now, &self.live, !more);
        self.checker.sleeps_no_longer_than(self.engine.next_in(now), &self.live, now, steps_max == UNBOUNDED);
        self.note_batch(&batch);

        let nothing = batch.changes.is_empty() && batch.settings.is_empty() && batch.keys.is_empty();
        if !nothing && self.fault(self.mix.stalls) {
            self.stall();
        }
        let fails = !nothing && self.commit_fails();
        if !nothing && self.fault(self.mix.hub_dies / 4) {
            // Killed with the commit under way: all of it is on disk, or nothing; nobody has heard.
            if !fails {
                self.append(&batch);
                self.show(&batch, false);
                self.checker.rates.given(self.checker.rates.time, now.mono);
            }
            for (request, _) in outcomes {
                self.reply(request.from, &request.command, Reply::Unknown);
            }
            return self.restart("was killed while it committed");
        }
        if fails {
            self.trace.note(|| format!("{:>8} the commit fails", self.time));
            for notice in std::mem::take(&mut batch.notices) {
                match notice {
                    Notice::Claimed { ticket, .. } => {
                        if let Some(actor) = self.claims.remove(&ticket) {
                            self.actors[actor].claim_failed(ticket);
                        }
                    }
                    // Connections are not taken back: the newer one stands in the engine, whatever its worker is told.
                    Notice::Replaced { session } => self.replaced(session),
                    Notice::Run { .. } | Notice::Stop { .. } => {}
                }
            }
            self.checker.taken_back(&self.store);
            self.engine.revert(batch, now);
            self.checker.agrees(&self.engine, &self.store);
            for (request, _) in outcomes {
                match request.from {
                    From::Socket { .. } | From::Unheard => self.parked.push(request),
                    from => self.reply(from, &request.command, Reply::Unavailable),
                }
            }
        } else {
            self.append(&batch);
            self.show(&batch, true);
            self.give_notice(std::mem::take(&mut batch.notices));
            if !batch.hand_outs.is_empty() {
                let now = self.clock.read(self.wall(), self.mono());
                self.engine.handed_out(now);
                self.checker.rates.given(self.time, now.mono);
            }
            if self.random.u8(0..40) == 0 {
                self.store.sweep(self.engine.longest_rate_ms(), self.mono());
            }
            for (request, result) in outcomes {
                let reply = match result {
                    Ok(answer) => Reply::Answer(answer),
                    Err(refusal) => Reply::Refused(refusal),
                };
                self.reply(request.from, &request.command, reply);
            }
            if self.random.usize(0..16 + self.store.tasks.len() / 8) == 0 {
                self.checker.agrees(&self.engine, &self.store);
            }
        }
        self.engine.shed();
        self.checker.round_over();
    }

    fn decide(
        &mut self,
        request: Request,
        now: Now,
        batch: &mut Batch,
        outcomes: &mut Vec<(Request, Result<Answer, Refusal>)>,
    ) {
        let absent = self.engine.absent(&request.command);
        if !absent.is_empty() && self.fault(self.mix.look_up_fails) {
            match request.from {
                From::Socket { .. } | From::Unheard => self.parked.push(request),
                from => self.reply(from, &request.command, Reply::Unavailable),
            }
            return;
        }
        // What those name that were looked up may have to be looked up too.
        let mut absent = absent;
        for _ in 0..8 {
            if let Some(workflow_id) = self.engine.absent_family(&request.command) {
                let (workflow, parts) = self.store.family(workflow_id);
                self.engine.admit_family(workflow_id, workflow, parts);
            }
            for key in self.engine.absent_keys(&request.command) {
                if let Some(entry) = self.store.keys.get(&key).filter(|entry| entry.expires_at >= now.at) {
                    self.engine.admit_key(entry.clone());
                }
            }
            for task_id in absent {
                if let Some(task) = self.store.tasks.get(&task_id) {
                    self.engine.admit(Store::read(task));
                }
            }
            absent = self.engine.absent(&request.command);
        }
        let (from, noticed, set) = (batch.changes.len(), batch.notices.len(), batch.settings.len());
        let result = self.engine.decide(request.command.clone(), &mut Cx { now, ticks: &self.live, batch });
        self.trace.note(|| {
            let (asked, answered) = (trace::command(&request.command), trace::result(&result));
            format!("{:>8} {:?}: {asked} => {answered}", self.time, request.from)
        });
        if let Command::Hello(hello) = &request.command {
            self.sessions.insert(hello.worker_id.clone(), hello.session);
        }
        let (changes, notices) = (&batch.changes[from..], &batch.notices[noticed..]);
        let settings = &batch.settings[set..];
        self.checker.decided(&request.command, &result, changes, settings, notices, now, &self.live);
        outcomes.push((request, result));
    }

    /// How many timers or hand-outs a round may take.
    fn bound(&mut self) -> usize {
        if self.fault(self.mix.tight) { self.random.usize(1..4) } else { UNBOUNDED }
    }

    fn commit_fails(&mut self) -> bool {
        let chance = if self.store_broken { self.mix.fails_again } else { self.mix.commit_fails };
        self.store_broken = self.fault(chance);
        self.store_broken
    }

    fn append(&mut self, batch: &Batch) {
        self.commits += 1;
        self.changes += batch.changes.len() as u64;
        self.store.append(batch);
        self.checker.committed(batch);
    }

    /// Shows a commit on the board, and to watchers unless nobody got to tell them.
    fn show(&mut self, batch: &Batch, told: bool) {
        for change in &batch.changes {
            match change.kind {
                ChangeKind::Gone => drop(self.live.0.remove(&change.task.task_id)),
                ChangeKind::Transition(_) => {
                    self.live.keep_result(change);
                    self.live.show(&change.task);
                }
            }
        }
        if told {
            for watcher in &mut self.watchers {
                watcher.changes(batch);
            }
        }
    }

    fn note_batch(&self, batch: &Batch) {
        for change in &batch.changes {
            self.trace.mix(change.rev);
            self.trace.mix(change.task.task_id.as_u128() as u64 ^ change.at.as_millis() as u64);
            self.trace.mix(u64::from(change.task.attempt) << 8 | change.task.status as u64);
            self.trace.note(|| format!("{:>8}     {}", self.time, trace::change(change)));
        }
        for change in &batch.settings {
            self.trace.mix(change.rev);
            self.trace.note(|| format!("{:>8}     rev {} {:?} {:?}", self.time, change.rev, change.id, change.next));
        }
        self.trace.mix(batch.notices.len() as u64);
    }

    fn give_notice(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Run { worker_id, task } => {
                    self.checker.given(&task, &self.store);
                    self.push_to(&worker_id, Push::Run(task));
                }
                Notice::Stop { worker_id, task_id, attempt, .. } => {
                    self.push_to(&worker_id, Push::Stop(task_id, attempt));
                }
                Notice::Replaced { session } => self.replaced(session),
                Notice::Claimed { ticket, tasks } => {
                    for task in &tasks {
                        self.checker.given(task, &self.store);
                    }
                    match self.claims.remove(&ticket) {
                        Some(actor) => self.actor_claimed(actor, ticket, tasks),
                        None => {
                            for task in tasks {
                                let (task_id, attempt) = (task.task_id, task.attempt);
                                let command = Command::Report { task_id, attempt, report: Report::Release };
                                self.parked.push(Request { command, from: From::Unheard });
                            }
                        }
                    }
                }
            }
        }
    }

    fn replaced(&mut self, session: u64) {
        if let Some(actor) = self.links.get(&session).copied() {
            self.actors[actor].mail.push((session, Push::Replaced));
        }
    }

    fn push_to(&mut self, worker_id: &Name, push: Push) {
        if let Some(session) = self.sessions.get(worker_id)
            && let Some(actor) = self.links.get(session)
        {
            self.actors[*actor].mail.push((*session, push));
        }
    }

    fn reply(&mut self, from: From, command: &Command, reply: Reply) {
        if let Reply::Answer(answer) = &reply {
            self.checker.acknowledged(command, answer, &self.store);
        }
        match from {
            From::Nobody | From::Unheard => {}
            // It was prepared with other types than are declared by now.
            From::App if matches!(reply, Reply::Refused(Refusal::TypesChanged)) => {
                if let Command::Submit { .. } = command {
                    self.push(command.clone(), From::App);
                }
            }
            From::App => self.apps.heard(command, &reply),
            From::Socket { session } => {
                let Command::Report { task_id, attempt, .. } = command else { return };
                if let Some(actor) = self.links.get(&session) {
                    match reply {
                        Reply::Answer(_) => self.actors[*actor].mail.push((session, Push::Ack(*task_id, *attempt))),
                        Reply::Refused(_) => {
                            self.actors[*actor].mail.push((session, Push::Refused(*task_id, *attempt)));
                        }
                        Reply::Unavailable | Reply::Unknown => {}
                    }
                }
            }
            From::Hello { actor, session } => self.actor_welcomed(actor, session, reply),
            From::Http { actor } => {
                if let (
                    Command::Report { task_id, attempt, .. },
                    Reply::Answer(Answer::Reported { cancel_requested: true }),
                ) = (command, &reply)
                {
                    let (task_id, attempt) = (*task_id, *attempt);
                    self.push(Command::CancelDelivered { task_id, attempt }, From::Nobody);
                }
                self.actors[actor].http_replied(command, reply);
            }
            From::Claim { actor, ticket } => {
                if !matches!(reply, Reply::Answer(_)) {
                    // The handler gives up, and its guard takes the claim back.
                    self.claims.remove(&ticket);
                    self.actors[actor].claim_failed(ticket);
                    self.push(Command::Unclaim { ticket }, From::Nobody);
                }
            }
        }
    }

    /// SIGTERM: no new work, what runs may finish for a while, the rest is given back, a new hub starts.
    fn drain(&mut self) {
        self.trace.note(|| format!("{:>8} the hub drains", self.time));
        self.draining = true;
        self.push(Command::Drain, From::Nobody);
        for _ in 0..self.random.u32(0..60) {
            self.time += self.random.u64(0..=self.mix.pause_ms);
            self.apps_turn();
            if !self.actors.is_empty() {
                let actor = self.random.usize(0..self.actors.len());
                self.actor_turn(actor);
            }
            if self.chance(self.mix.round) {
                self.round();
            }
        }
        self.push(Command::GiveBack, From::Nobody);
        self.round();
        self.round();
        self.draining = false;
        self.restart("was stopped");
    }

    /// The process is gone with everything in its memory; a new one starts from what is on disk.
    pub fn restart(&mut self, why: &str) {
        self.trace.note(|| format!("{:>8} the hub {why}", self.time));
        self.trace.mix(self.time);
        let lost = std::mem::take(&mut self.parked).into_iter().chain(std::mem::take(&mut self.inbox));
        let lost: Vec<Request> = lost.chain(self.late.drain(..).map(|(_, request)| request)).collect();
        for Request { command, from } in lost {
            self.reply(from, &command, Reply::Unknown);
        }
        self.parked.clear();
        self.inbox.clear();
        for (ticket, actor) in std::mem::take(&mut self.claims) {
            self.actors[actor].claim_failed(ticket);
        }
        self.links.clear();
        self.sessions.clear();
        for actor in &mut self.actors {
            actor.hub_gone();
        }
        for watcher in &mut self.watchers {
            watcher.connected = false;
        }
        loop {
            // A little later, perhaps much later.
            self.time += if self.random.u8(0..8) == 0 { self.random.u64(0..20_000) } else { self.random.u64(0..200) };
            if self.random.u8(0..4) == 0 {
                (self.booted, self.boots) = (self.time, self.boots + 1);
            }
            self.store.begin((self.boots, self.mono()));
            self.clock = Clock::new(self.store.last_at, self.wall(), self.mono(), self.mix.options.lease_ms);
            (self.awake, self.unjudged, self.unnoticed) = (0, 0, 0);
            (self.looked, self.absent, self.hears_at) = (self.time, 0, 0);
            self.said.clear();
            let now = self.look();
            let unfinished: Vec<Task> = self
                .store
                .tasks
                .values()
                .filter(|task| !task.status.is_final())
                .map(|task| Store::read(task))
                .collect();
            self.live = Live(BTreeMap::new(), std::mem::take(&mut self.live.1));
            self.store.tasks.values().for_each(|task| self.live.show(task));
            let last_id = self.store.ids.last().copied();
            let seed = self.random.u64(..);
            let settings = self.store.settings.values().cloned().collect();
            let (options, rev) = (self.mix.options, self.store.rev);
            let tasks = Tasks { relatives: self.store.relatives(&unfinished), unfinished };
            let (engine, batch) = Engine::recover(options, rev, last_id, settings, tasks, seed, now);
            self.engine = engine;
            self.engine.remember_hand_outs(self.store.hand_outs.clone(), now);
            self.checker.restarted(&self.store, now);
            self.checker.confirmed(&batch, now);
            self.note_batch(&batch);
            if !batch.changes.is_empty() && self.commit_fails() {
                self.trace.note(|| format!("{:>8} the hub does not start", self.time));
                continue;
            }
            self.append(&batch);
            self.show(&batch, true);
            self.checker.agrees(&self.engine, &self.store);
            self.checker.round_over();
            return;
        }
    }

    /// A clock that went back by hours is set right, or scheduled tasks would have to be waited for.
    fn set_clock_right(&mut self) {
        let named = self.checker.unfinished_tasks().filter(|task| !task.delayed || task.status == Status::Waiting);
        let latest = named.filter_map(|task| task.run_at).max();
        let behind = latest.map_or(0, |at| at.millis_since(self.wall()));
        self.wall_ahead += behind.saturating_sub(5_000) as i64;
    }

    /// The end of all faults: an honest worker for everything is there, and within bounded time everything is final,
    /// every place of every worker can be filled, and every watcher knows it.
    pub fn end(&mut self) {
        self.calm = true;
        self.store_broken = false;
        self.trace.note(|| format!("{:>8} calm", self.time));
        self.set_clock_right();
        self.actors_calm();
        self.resume_all();
        self.unset_schedules();
        self.unset_types();
        // Under a rate each has to wait for its turn, and a step may be as short as a millisecond.
        let deadline = self.steps + 4_000 + 2_000 * self.checker.unfinished() as u64;
        while self.checker.unfinished() > 0 || !self.inbox.is_empty() {
            if self.steps.is_multiple_of(1_000) {
                // Some were on their way here, or waited for others.
                self.set_clock_right();
            }
            assert!(
                self.steps < deadline,
                "these tasks never end: {:?}",
                self.checker
                    .unfinished_tasks()
                    .map(|task| format!("{} {} {:?}", trace::short(task.task_id), task.status, task.run_at))
                    .collect::<Vec<_>>()
            );
            self.calm_step();
        }
        self.fill_every_place();
        for watcher in &mut self.watchers {
            if !watcher.connected {
                watcher.connect(&self.store, &self.live, false);
            }
            watcher.agrees(&self.store);
        }
        self.checker.finish(&self.engine, &self.store);
    }

    fn calm_step(&mut self) {
        self.steps += 1;
        for actor in 0..self.actors.len() {
            self.actor_turn(actor);
        }
        // As long as the writer would sleep, but never past what an actor is about to do.
        let now = self.look();
        let patience = self.engine.next_in(now).unwrap_or(50);
        let soonest = self.actors.iter().filter_map(Actor::busy_until).min().map(|at| at.saturating_sub(self.time));
        self.time += patience.min(soonest.unwrap_or(u64::MAX)).clamp(1, 60_000);
        let time = self.time;
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= time);
        self.late = late;
        let due: VecDeque<(u64, Request)> = due;
        self.inbox.extend(due.into_iter().map(|(_, request)| request));
        self.round();
    }

    /// Every place of every honest worker is free again: a task for each runs at the same time.
    fn fill_every_place(&mut self) {
        for actor in &mut self.actors {
            actor.idle();
        }
        // Long enough for the hub to notice who is silent.
        let noticed_at = self.time + 4 * self.mix.options.lease_ms;
        while self.time < noticed_at {
            self.calm_step();
        }
        let places = self.actors_places();
        self.submit_for_everyone(places);
        for _ in 0..8 {
            self.calm_step_without_ends();
        }
        let running = self.checker.running();
        assert_eq!(running, places, "some places of workers are lost: {running} of {places} can be filled");
        let deadline = self.steps + 2_000;
        while self.checker.unfinished() > 0 {
            assert!(self.steps < deadline, "the last tasks never end");
            self.calm_step();
        }
    }

    fn calm_step_without_ends(&mut self) {
        self.steps += 1;
        for actor in 0..self.actors.len() {
            self.actor_turn(actor);
        }
        self.round();
    }
}
