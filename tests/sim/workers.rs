//! Workers: honest ones, and what becomes of honest ones when their process dies, hangs or is cut off; and liars, who
//! report what is not theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use taskhub::engine::{Accepts, Answer, Command, Hello, Report};
use taskhub::task::{Failure, Json, LargeResult, Name, Pattern, PatternSet, Task, TaskId};

use super::mix::Mix;
use super::trace::short;
use super::world::{From, Reply, World};

/// What the hub says to a connected worker.
#[derive(Clone, Debug)]
pub enum Push {
    Run(Arc<Task>),
    Stop(TaskId, u32),
    Ack(TaskId, u32),
    Refused(TaskId, u32),
    Replaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    /// Said hello, and waits for the welcome.
    Asking(u64),
    Up(u64),
}

/// One process that runs tasks.
pub struct Actor {
    name: Name,
    over_http: bool,
    accepts: Accepts,
    concurrency: u32,
    link: Link,
    /// What came over which connection.
    pub mail: Vec<(u64, Push)>,
    held: BTreeMap<(TaskId, u32), Held>,
    /// It does nothing until then.
    stalled_until: u64,
    retiring: bool,
    /// An open claim, and how long it waits.
    claim: Option<(u64, u64)>,
    lies: bool,
    /// The hub has not welcomed this process yet.
    is_new: bool,
    heard_at: u64,
    /// It is gone and does not come back.
    dead: bool,
}

/// An attempt it believes to be its own.
struct Held {
    done_at: u64,
    report: Report,
    /// When it was said last.
    said_at: Option<u64>,
}

impl Actor {
    pub fn some(mix: &Mix, random: &mut Rng) -> Vec<Actor> {
        let mut actors: Vec<Actor> = Vec::new();
        for number in 0..mix.sockets {
            let twin = mix.twins && number == 1;
            let name = Name::new(if twin { "w0".to_owned() } else { format!("w{number}") }.as_str());
            actors.push(Actor::new(name, some_accepts(random, true), random.u32(1..5), false));
        }
        for number in 0..mix.https {
            let name = Name::new(&format!("h{number}"));
            actors.push(Actor::new(name, some_accepts(random, false), random.u32(1..4), true));
        }
        for actor in &mut actors {
            actor.lies = mix.lie > 0 && random.bool();
        }
        actors
    }

    fn new(name: Name, accepts: Accepts, concurrency: u32, over_http: bool) -> Actor {
        Actor {
            name,
            over_http,
            accepts,
            concurrency,
            link: Link::Down,
            mail: Vec::new(),
            held: BTreeMap::new(),
            stalled_until: 0,
            retiring: false,
            claim: None,
            lies: false,
            is_new: true,
            heard_at: 0,
            dead: false,
        }
    }

    /// A worker for everything.
    fn anchor() -> Actor {
        let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
        Actor::new(Name::new("anchor"), accepts, 3, false)
    }

    fn session(&self) -> Option<u64> {
        match self.link {
            Link::Down => None,
            Link::Asking(session) | Link::Up(session) => Some(session),
        }
    }

    /// The hub's process is gone, and every connection with it.
    pub fn hub_gone(&mut self) {
        self.link = Link::Down;
        self.claim = None;
        self.mail.clear();
        self.resend();
    }

    pub fn claim_failed(&mut self, ticket: u64) {
        if self.claim.is_some_and(|(open, _)| open == ticket) {
            self.claim = None;
        }
    }

    pub fn http_replied(&mut self, command: &Command, reply: Reply) {
        let Command::Report { task_id, attempt, report } = command else { return };
        match reply {
            Reply::Answer(Answer::Reported { cancel_requested: true }) if matches!(report, Report::Heartbeat) => {
                self.stop(*task_id, *attempt);
            }
            Reply::Answer(_) if matches!(report, Report::Heartbeat) => {}
            Reply::Answer(_) | Reply::Refused(_) => drop(self.held.remove(&(*task_id, *attempt))),
            Reply::Unavailable | Reply::Unknown => {
                if let Some(held) = self.held.get_mut(&(*task_id, *attempt)) {
                    held.said_at = None;
                }
            }
        }
    }

    /// What was said may not have arrived.
    fn resend(&mut self) {
        for held in self.held.values_mut() {
            held.said_at = None;
        }
    }

    fn stop(&mut self, task_id: TaskId, attempt: u32) {
        if let Some(held) = self.held.get_mut(&(task_id, attempt))
            && held.said_at.is_none()
        {
            held.done_at = 0;
            held.report = Report::Cancelled;
        }
    }

    /// When it does something by itself next.
    pub fn busy_until(&self) -> Option<u64> {
        if self.dead {
            return None;
        }
        let held = self.held.values().filter(|held| held.said_at.is_none()).map(|held| held.done_at);
        held.chain(self.claim.map(|(_, until)| until)).min()
    }

    /// Lets go of everything by the honest way, as soon as it may.
    pub fn idle(&mut self) {
        for held in self.held.values_mut() {
            held.done_at = 0;
        }
    }
}

impl World {
    pub fn actor_turn(&mut self, at: usize) {
        if self.actors[at].dead || self.actors[at].stalled_until > self.time {
            return;
        }
        if self.fault(self.mix.stall) {
            let most = 3 * self.mix.options.lease_ms;
            self.actors[at].stalled_until = self.time + self.random.u64(0..most);
            return;
        }
        if self.fault(self.mix.crash) {
            self.actors[at].held.clear();
            self.actors[at].is_new = true;
            self.cut(at);
            self.claims.retain(|_, actor| *actor != at);
            if self.actors[at].over_http {
                // It cannot say that it holds nothing any more, so whoever takes its place needs a name of its own: under
                // the old one each claim would keep the lost attempts alive.
                let name = format!("h{at}.{}", self.number());
                self.actors[at].name = Name::new(&name);
            }
            return;
        }
        if self.actors[at].lies && self.fault(self.mix.lie) {
            self.lie(at);
        }
        match self.actors[at].over_http {
            true => self.http_turn(at),
            false => self.socket_turn(at),
        }
    }

    fn socket_turn(&mut self, at: usize) {
        let session = match self.actors[at].link {
            Link::Down => return self.hello(at),
            Link::Asking(_) => return,
            Link::Up(session) => session,
        };
        if self.fault(self.mix.cut) {
            return self.cut(at);
        }
        let mail = std::mem::take(&mut self.actors[at].mail);
        for (from, push) in mail {
            self.trace.note(|| format!("{:>8}     {} hears {}", self.time, self.actors[at].name, heard(&push)));
            if from != session {
                continue;
            }
            match push {
                Push::Run(task) => self.begin(at, &task),
                Push::Stop(task_id, attempt) => {
                    self.actors[at].stop(task_id, attempt);
                    self.push(Command::CancelDelivered { task_id, attempt }, From::Nobody);
                }
                Push::Ack(task_id, attempt) | Push::Refused(task_id, attempt) => {
                    self.actors[at].held.remove(&(task_id, attempt));
                }
                Push::Replaced => return self.cut(at),
            }
        }
        self.report(at, From::Socket { session });
        let worker_id = self.actors[at].name.clone();
        if self.calm || self.time >= self.actors[at].heard_at + self.mix.options.lease_ms / 4 {
            self.actors[at].heard_at = self.time;
            self.push(Command::Heard { worker_id }, From::Nobody);
        } else if self.fault(self.mix.retire) {
            self.actors[at].retiring = true;
            self.push(Command::Retire { worker_id, session }, From::Nobody);
        }
    }

    fn hello(&mut self, at: usize) {
        if !self.calm && self.random.u8(0..4) > 0 {
            return;
        }
        let session = self.number();
        self.links.insert(session, at);
        let lies = self.actors[at].lies && self.fault(200);
        let foreign = if lies { self.some_task().map(|task_id| (task_id, self.random.u32(0..4))) } else { None };
        let actor = &mut self.actors[at];
        actor.link = Link::Asking(session);
        actor.retiring = false;
        let mut holding: Vec<(TaskId, u32)> = actor.held.keys().copied().collect();
        if lies {
            holding.extend(foreign);
            holding.extend(holding.first().copied());
        }
        let hello = Hello {
            worker_id: actor.name.clone(),
            session,
            accepts: actor.accepts.clone(),
            concurrency: actor.concurrency,
            holding: (!actor.is_new || lies).then_some(holding),
        };
        self.push(Command::Hello(hello), From::Hello { actor: at, session });
    }

    pub fn actor_welcomed(&mut self, at: usize, session: u64, reply: Reply) {
        if self.actors[at].link != Link::Asking(session) {
            return;
        }
        match reply {
            Reply::Answer(Answer::Welcome { keep, drop }) => {
                let actor = &mut self.actors[at];
                actor.link = Link::Up(session);
                actor.is_new = false;
                actor.heard_at = self.time;
                actor.held.retain(|held, _| keep.contains(held));
                for held in &drop {
                    assert!(!actor.held.contains_key(held), "{held:?} is to be kept and to be dropped");
                }
                actor.resend();
                let lies: Vec<_> = keep.into_iter().filter(|kept| !actor.held.contains_key(kept)).collect();
                for (task_id, attempt) in lies {
                    // It said it held what it does not. Even a liar must let go of it once, or it is never done.
                    self.push(Command::Report { task_id, attempt, report: Report::Release }, From::Unheard);
                }
            }
            Reply::Answer(other) => panic!("hello was answered by {other:?}"),
            Reply::Refused(refusal) => panic!("hello was refused: {refusal}"),
            Reply::Unavailable | Reply::Unknown => self.cut(at),
        }
    }

    /// The connection ends. The hub may notice late.
    fn cut(&mut self, at: usize) {
        let actor = &mut self.actors[at];
        let session = actor.session();
        actor.link = Link::Down;
        actor.mail.clear();
        actor.resend();
        let (worker_id, claim) = (actor.name.clone(), actor.claim.take());
        if let Some((ticket, _)) = claim {
            self.claims.remove(&ticket);
            let after = self.random.u64(0..500);
            self.push_late(after, Command::Unclaim { ticket }, From::Nobody);
        }
        let Some(session) = session else { return };
        let left = Command::Left { worker_id, session };
        if self.calm || self.random.bool() {
            self.links.remove(&session);
            self.push(left, From::Nobody);
        } else {
            // Half open: what is pushed goes nowhere.
            let after = self.random.u64(0..2 * self.mix.options.lease_ms);
            self.push_late(after, left, From::Nobody);
        }
    }

    fn http_turn(&mut self, at: usize) {
        self.report(at, From::Http { actor: at });
        let actor = &self.actors[at];
        if self.time >= actor.heard_at + self.mix.options.lease_ms / 4 {
            self.actors[at].heard_at = self.time;
            let held: Vec<_> = self.actors[at].held.keys().copied().collect();
            for (task_id, attempt) in held {
                let report = Report::Heartbeat;
                self.push(Command::Report { task_id, attempt, report }, From::Http { actor: at });
            }
        }
        match self.actors[at].claim {
            Some((ticket, until)) if until <= self.time => {
                self.actors[at].claim = None;
                self.push(Command::Unclaim { ticket }, From::Nobody);
                if self.random.bool() {
                    // It hung up; otherwise what comes before the hub hears of it is still taken.
                    self.claims.remove(&ticket);
                }
            }
            Some(_) => {}
            None => self.claim(at),
        }
    }

    fn claim(&mut self, at: usize) {
        let actor = &self.actors[at];
        let room = actor.concurrency.saturating_sub(actor.held.len() as u32);
        if room == 0 || self.draining {
            return;
        }
        let (worker_id, accepts) = (actor.name.clone(), actor.accepts.clone());
        let max = self.random.u32(1..=room);
        let wait = if self.calm { 200 } else { self.random.u64(0..3 * self.mix.options.lease_ms) };
        let lease_ms = self.random.bool().then(|| self.random.u64(0..3 * self.mix.options.lease_ms));
        let ticket = self.number();
        self.actors[at].claim = Some((ticket, self.time + wait));
        self.claims.insert(ticket, at);
        self.push(Command::Claim { worker_id, accepts, max, lease_ms, ticket }, From::Claim { actor: at, ticket });
    }

    pub fn actor_claimed(&mut self, at: usize, ticket: u64, tasks: Vec<Arc<Task>>) {
        self.actors[at].claim_failed(ticket);
        for task in &tasks {
            self.begin(at, task);
        }
        // The handler's guard takes back every claim, answered or not.
        self.push(Command::Unclaim { ticket }, From::Nobody);
    }

    fn begin(&mut self, at: usize, task: &Task) {
        assert_eq!(task.worker_id(), Some(&self.actors[at].name), "handed to the wrong worker");
        assert!(
            self.actors[at].accepts.takes(task.queue.as_str(), task.task_type.as_str()),
            "handed to a worker that does not take it"
        );
        let takes = if self.random.u8(0..20) == 0 { 3_000 } else { self.random.u64(1..400) };
        let report = match self.random.u8(0..10) {
            _ if self.calm => complete(task.task_id, task.attempt, 0),
            0..6 => complete(task.task_id, task.attempt, self.random.u32(0..200)),
            6 => Report::Fail { error: Failure::new("error", "no luck"), retryable: false, retry_after_ms: None },
            7..9 => {
                let retry_after_ms = (self.random.u8(0..4) == 0).then(|| self.random.u64(0..700));
                Report::Fail { error: Failure::new("error", "no luck"), retryable: true, retry_after_ms }
            }
            _ => Report::Release,
        };
        let held = Held { done_at: self.time + takes, report, said_at: None };
        let before = self.actors[at].held.insert((task.task_id, task.attempt), held);
        assert!(before.is_none(), "attempt {} of {} was handed out twice", task.attempt, task.task_id);
    }

    /// Says what there is to say of what it holds.
    fn report(&mut self, at: usize, from: From) {
        let held: Vec<_> = self.actors[at].held.keys().copied().collect();
        for (task_id, attempt) in held {
            if self.random.u8(0..4) == 0 {
                self.tick(task_id, attempt);
            }
            let again = self.random.u8(0..20) == 0;
            let (time, calm) = (self.time, self.calm);
            let Some(held) = self.actors[at].held.get_mut(&(task_id, attempt)) else { continue };
            let forgotten = calm && held.said_at.is_some_and(|said_at| said_at + 500 < time);
            if held.done_at <= time && (held.said_at.is_none() || again || forgotten) {
                held.said_at = Some(time);
                let report = held.report.clone();
                if matches!(&report, Report::Complete { result } if *result == Json::null()) {
                    // Its result is in a file by then.
                    let over_http = self.actors[at].over_http;
                    for _ in 0..self.random.u8(1..3) {
                        let report = Report::Upload(Box::new(self.some_large_result()));
                        let from = if over_http { From::Nobody } else { From::Unheard };
                        self.push(Command::Report { task_id, attempt, report }, from);
                    }
                }
                self.push(Command::Report { task_id, attempt, report }, from.clone());
            }
        }
    }

    fn some_large_result(&mut self) -> LargeResult {
        let id = format!("{:016x}", self.random.u64(..)).parse().expect("sixteen digits");
        LargeResult { id, bytes: self.random.u64(0..1 << 40), content_type: "text/plain".into() }
    }

    /// Says something that is not true.
    fn lie(&mut self, at: usize) {
        let Some(task_id) = self.some_task() else { return };
        let newest = self.store.tasks.get(&task_id).map_or(0, |task| task.attempt);
        // Mostly of attempts that are over; sometimes of a foreign one, which nobody can tell from the worker's own.
        let attempt = if self.random.u8(0..6) == 0 { newest } else { self.random.u32(0..newest + 3) };
        let report = match self.random.u8(0..5) {
            0 => Report::Heartbeat,
            1 => complete(task_id, attempt, 1),
            2 => {
                let retryable = self.random.bool();
                Report::Fail { error: Failure::new("lie", "it is not so"), retryable, retry_after_ms: None }
            }
            3 => Report::Cancelled,
            _ => Report::Release,
        };
        let from = if self.actors[at].over_http { From::Nobody } else { From::Unheard };
        self.push(Command::Report { task_id, attempt, report }, from);
        let worker_id = self.actors[at].name.clone();
        match self.random.u8(0..12) {
            0 => self.push(Command::Heard { worker_id: Name::new("nobody") }, From::Nobody),
            1 => self.push(Command::Left { worker_id, session: 1 }, From::Nobody),
            2 => self.push(Command::Retire { worker_id, session: 1 }, From::Nobody),
            3 => self.push(Command::Unclaim { ticket: 1 }, From::Nobody),
            4 if !self.draining => {
                // A worker on a socket that claims as well.
                let accepts = self.actors[at].accepts.clone();
                let ticket = self.number();
                self.push(Command::Claim { worker_id, accepts, max: 2, lease_ms: None, ticket }, From::Nobody);
                self.push_late(self.mix.options.lease_ms, Command::Unclaim { ticket }, From::Nobody);
            }
            _ => {}
        }
    }

    /// Ends all faults. Some workers never speak again, though their connections stay open; for what they do not do,
    /// there is always one honest worker for everything.
    pub fn actors_calm(&mut self) {
        for at in 0..self.actors.len() {
            let twin = (0..at).any(|other| self.actors[other].name == self.actors[at].name);
            let gone = twin || self.random.u8(0..4) == 0;
            self.actors[at].stalled_until = 0;
            self.actors[at].dead = gone;
            if gone {
                // Sockets of the dead are found out, and closed.
                self.cut(at);
            }
        }
        self.actors.push(Actor::anchor());
    }

    /// How many tasks of a queue that only some take can run at once.
    pub fn actors_places(&self) -> usize {
        let open = self.actors.iter().filter(|actor| !actor.dead && !actor.over_http && !actor.retiring);
        let places =
            open.filter(|actor| actor.accepts.takes("only", "a")).map(|actor| actor.concurrency as usize).sum();
        self.mix.options.tasks_max.min(places)
    }
}

fn complete(task_id: TaskId, attempt: u32, which: u32) -> Report {
    // Now and then a result that does not stand in the record.
    let padding = if which == 7 { "x".repeat(5_000) } else { String::new() };
    // Or one that was uploaded.
    if which % 16 == 5 {
        return Report::Complete { result: Json::null() };
    }
    Report::Complete { result: Json::trusted(format!("\"{task_id}/{attempt}/{which}{padding}\"")) }
}

fn some_accepts(random: &mut Rng, may_take_every_queue: bool) -> Accepts {
    let set = |texts: &[&str]| PatternSet::new(texts.iter().map(|text| Pattern::parse(text).unwrap()).collect());
    let task_types = match random.u8(0..4) {
        0 => set(&["a"]),
        1 => set(&["b.*", "c"]),
        2 => set(&["a", "b.x"]),
        _ => PatternSet::all(),
    };
    let queues = match random.u8(0..4) {
        0 if may_take_every_queue => PatternSet::all(),
        1 => set(&["fast", "slow.*"]),
        2 => set(&["default"]),
        _ => set(&["default", "fast"]),
    };
    Accepts { task_types, queues }
}

/// What a worker hears, in few words.
fn heard(push: &Push) -> String {
    match push {
        Push::Run(task) => format!("run {} attempt {}", short(task.task_id), task.attempt),
        Push::Stop(task_id, attempt) => format!("stop {} attempt {attempt}", short(*task_id)),
        Push::Ack(task_id, attempt) => format!("ack {} attempt {attempt}", short(*task_id)),
        Push::Refused(task_id, attempt) => format!("refused {} attempt {attempt}", short(*task_id)),
        Push::Replaced => "replaced".to_owned(),
    }
}
