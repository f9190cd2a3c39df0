//! The live stream as a state machine without sockets, clocks or randomness of its own: it is told what happened, and
//! says what to do ([`Action`]) and what is new ([`LiveEvent`]).
//!
//! It promises: what it tells is in order and told once, across cuts, restarts and a hub that starts a new history;
//! after a cut it resumes where it was or starts from a fresh snapshot, never with a hole; it says when what is shown
//! may be old. Two rules carry this. A record counts only when its (`rev`, `tick`) is above what is known of that task.
//! And a subscription resumes only from a `mark` that came after its own `subscribed`; a snapshot or a reset voids the
//! mark it had, because until the next one the hub has not said that all before it was sent.
//!
//! While a snapshot is coming in, its subscription is quiet: what happens in between goes into the picture that is being
//! put together, and is told with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::identity::{Greeting, Identity, Saying};
use super::news::{LiveEvent, LiveStatus, TaskEvent};
use super::outbox::Outbox;
use super::picture::Picture;
use super::subscription::{SubId, Subscribe, Subscription};
use crate::dial::{Backoff, is_refusal};
use crate::task::TaskView;
use crate::wire::{LiveHello, LiveOp, LiveSays};

/// An attempt that has not heard the hub's hello by then is given up.
const HELLO_MS_MAX: u64 = 10_000;
/// Used until the hub has said its own. After one of these without a word it is asked, after two it is left; and after
/// two without a mark, though it says one in each, it talks and does not tell: another connection may fare better.
const PING_MS: u64 = 25_000;
/// Closed for what this client said or cannot take: it would say the same again. Protocol broken, message too big.
const OUR_FAULT: [u16; 2] = [1002, 1009];
/// Records held at once; beyond, the ones that ended longest ago leave.
const TASKS_MAX: usize = 10_000;
/// Refusals of a subscription that mean "not now": it is asked for again.
const NOT_NOW: [&str; 5] = ["rate_limited", "overloaded", "draining", "storage_unavailable", "internal"];

/// What the follower wants done, in order.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a socket: `api/v1/ws` with [`LIVE_PROTOCOL`](crate::wire::LIVE_PROTOCOL). Whatever comes of it is told with
    /// [`Follower::heard`] or [`Follower::lost`].
    Open,
    /// Send this text.
    Send(String),
    /// Let go of the socket, without waiting for it.
    Close,
    /// Fetch a token and tell it with [`Follower::token`], or that there is none with [`Follower::no_token`]; another than the
    /// last one where it is to be had `anew`. Only after [`Follower::use_tokens`].
    Token { anew: bool },
}

/// Without what is sent: a token may be in it.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Open => f.write_str("Open"),
            Action::Send(text) => write!(f, "Send({} bytes)", text.len()),
            Action::Close => f.write_str("Close"),
            Action::Token { anew } => write!(f, "Token {{ anew: {anew} }}"),
        }
    }
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The next attempt.
    Retry,
    /// The hub's first word.
    Hello,
    /// Any word.
    Silence,
}

/// The state machine. Times are milliseconds of any clock that only grows.
pub struct Follower {
    status: LiveStatus,
    /// The hub merged transitions because this client was slow, and not all of them have come.
    behind: bool,
    /// The hub's name for its history since it was last started.
    epoch: Option<String>,
    /// What was known is forgotten, since this connection is on another history.
    begun_anew: bool,
    picture: Picture,
    tasks_max: usize,
    subs: BTreeMap<SubId, Subscription>,
    /// Subscriptions that have not caught up since the socket opened.
    awaited: HashSet<SubId>,
    identity: Identity,
    random: Box<dyn FnMut() -> f64 + Send>,
    backoff: Backoff,
    /// There is a socket, or an attempt at one.
    connected: bool,
    /// Requests may be sent.
    greeted_at: Option<u64>,
    /// As last told.
    now_ms: u64,
    heard_at: u64,
    /// When the hub last said how far it has told, or was asked to tell something.
    marked_at: u64,
    /// The hub has heard a word of this connection.
    said: bool,
    /// A ping is out.
    asked: bool,
    outbox: Outbox,
    ping_ms: u64,
    bye: Option<(u16, Option<[u64; 2]>)>,
    timer: Option<(u64, Timer)>,
    ids: u64,
    names: u64,
    actions: VecDeque<Action>,
    events: VecDeque<LiveEvent>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("status", &self.status).field("subs", &self.subs.len()).finish_non_exhaustive()
    }
}

impl Follower {
    /// A follower that wants its first socket at once. `random` gives numbers from 0 to 1.
    pub fn new(now_ms: u64, random: impl FnMut() -> f64 + Send + 'static) -> Follower {
        let mut follower = Follower {
            status: LiveStatus::Connecting,
            behind: false,
            epoch: None,
            begun_anew: false,
            picture: Picture::default(),
            tasks_max: TASKS_MAX,
            subs: BTreeMap::new(),
            awaited: HashSet::new(),
            identity: Identity::default(),
            random: Box::new(random),
            backoff: Backoff::new(500, 15_000),
            connected: false,
            greeted_at: None,
            now_ms,
            heard_at: now_ms,
            marked_at: now_ms,
            said: false,
            asked: false,
            outbox: Outbox::new(),
            ping_ms: PING_MS,
            bye: None,
            timer: None,
            ids: 0,
            names: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        };
        follower.open(now_ms);
        follower
    }

    /// Says a token on each connection, and asks for it when it is needed. `has_others`: another may be had in place of one
    /// that the hub refuses.
    pub fn use_tokens(&mut self, has_others: bool) {
        self.identity.use_tokens(has_others);
    }

    /// A token that was asked for, and when to ask for the next.
    pub fn token(&mut self, now_ms: u64, token: String, renew_in_ms: Option<u64>) {
        self.now_ms = now_ms;
        let op = match self.identity.fetched(now_ms, renew_in_ms) {
            Saying::Hello => "hello",
            Saying::Refresh => "refresh",
            Saying::Nothing => return,
        };
        if op == "hello" {
            self.timer = Some((now_ms + HELLO_MS_MAX, Timer::Hello));
        }
        let id = self.request(LiveOp { op: op.into(), token: Some(token), ..LiveOp::default() });
        self.identity.said(id);
    }

    /// There is no token for now. A connection on which one is in force goes on.
    pub fn no_token(&mut self, now_ms: u64, why: &str) {
        self.now_ms = now_ms;
        if self.identity.missing(now_ms) {
            tracing::warn!(why, "the token could not be renewed");
        } else if self.identity.has_others() {
            self.lost(now_ms, None, why);
        } else {
            self.refused(why);
        }
    }

    /// Asks for a token at once, and says it: where it was replaced by another.
    pub fn renew_token(&mut self) {
        if self.greeted_at.is_some()
            && let Some(anew) = self.identity.want()
        {
            self.actions.push_back(Action::Token { anew });
        }
    }

    /// Holds at most this many records (10,000).
    pub fn set_tasks_max(&mut self, tasks_max: usize) {
        self.tasks_max = tasks_max;
    }

    /// How the connection stands.
    pub fn status(&self) -> LiveStatus {
        self.status
    }

    /// Whether transitions were merged and not all of them have come.
    pub fn behind(&self) -> bool {
        self.behind
    }

    /// The tasks in the picture of a subscription, oldest first.
    pub fn tasks(&self, sub: SubId) -> Vec<Arc<TaskView>> {
        let members = self.subs.get(&sub).map(|sub| &sub.members);
        members.into_iter().flatten().filter_map(|task_id| self.picture.get(task_id)).cloned().collect()
    }

    /// Watches something more. At most 64 at a time.
    pub fn subscribe(&mut self, request: Subscribe) -> SubId {
        self.names += 1;
        let sub = SubId::of(self.names);
        if self.status == LiveStatus::Refused {
            self.tell(sub, TaskEvent::ended("refused", "the hub refused the connection"));
            return sub;
        }
        let subscription = Subscription {
            catching_up: false,
            request,
            asked: None,
            again_at: None,
            mark: None,
            members: BTreeSet::new(),
            fresh: None,
            live: false,
            seqs: HashMap::new(),
        };
        self.subs.insert(sub, subscription);
        if self.greeted_at.is_some() {
            self.ask(sub);
        }
        sub
    }

    /// Ends a subscription; nothing more is told of it.
    pub fn unsubscribe(&mut self, sub: SubId) {
        let Some(ended) = self.subs.remove(&sub) else { return };
        self.events.retain(|event| !matches!(event, LiveEvent::Of(of, _) if *of == sub));
        // One that waits to be asked for anew may stand at the hub already.
        if self.greeted_at.is_some() && (!self.outbox.withdraw(&sub.name()) || ended.live) {
            self.request(LiveOp { op: "unsubscribe".into(), sub: Some(sub.name()), ..LiveOp::default() });
        }
        for task_id in &ended.members {
            self.release(task_id);
        }
        self.caught_up(Some(sub));
    }

    /// The next thing to do.
    pub fn step(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that is new.
    pub fn event(&mut self) -> Option<LiveEvent> {
        self.events.pop_front()
    }

    /// When to call [`tick`](Self::tick) at the latest.
    pub fn deadline_ms(&self) -> Option<u64> {
        let again = self.subs.values().filter_map(|sub| sub.again_at).min();
        let all = [self.timer.map(|(at, _)| at), again, self.outbox.due_at(), self.identity.renew_at()];
        all.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.send();
        let due: Vec<_> = self
            .subs
            .iter()
            .filter(|(_, sub)| sub.again_at.is_some_and(|at| at <= now_ms))
            .map(|(id, _)| *id)
            .collect();
        for sub in due {
            self.subs.get_mut(&sub).expect("just found").again_at = None;
            if self.greeted_at.is_some() {
                self.ask(sub);
            }
        }
        if self.identity.renew_at().is_some_and(|at| at <= now_ms)
            && let Some(anew) = self.identity.renew()
        {
            self.actions.push_back(Action::Token { anew });
        }
        match self.timer {
            Some((at, timer)) if at <= now_ms => match timer {
                Timer::Retry => self.open(now_ms),
                Timer::Hello => self.lost(now_ms, None, "no answer"),
                Timer::Silence => self.listen(now_ms),
            },
            _ => {}
        }
    }

    /// The reader was busy elsewhere until now: what it did not read it cannot hold against the hub.
    pub fn awake(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.marked_at += now_ms.saturating_sub(self.heard_at);
        self.heard_at = now_ms;
    }

    /// A text came in: one or more messages, one a line. What is not understood is ignored: a newer hub may say more.
    pub fn heard(&mut self, now_ms: u64, text: &str) {
        self.hear(now_ms);
        // Objects, not lines: a result keeps the line breaks it came with.
        for object in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
            let says = object.and_then(|object| LiveSays::parse(object.get()));
            match says {
                Ok(says) if self.connected => self.take(now_ms, says),
                Ok(_) => return,
                Err(why) => tracing::debug!(%why, "the hub said something that is not understood"),
            }
        }
        self.leave_if_deaf();
    }

    /// A frame came in that is no text: the hub is alive.
    pub fn heard_frame(&mut self, now_ms: u64) {
        self.hear(now_ms);
        self.leave_if_deaf();
    }

    fn hear(&mut self, now_ms: u64) {
        // A machine that slept did not hear the marks that were said.
        if now_ms.saturating_sub(self.heard_at) >= 2 * self.ping_ms {
            self.marked_at = now_ms;
        }
        (self.now_ms, self.heard_at, self.asked) = (now_ms, now_ms, false);
    }

    /// It is heard, and has not said for too long how far it has told: what is shown may be old. Counts have no marks.
    fn leave_if_deaf(&mut self) {
        let told = self.now_ms.saturating_sub(self.marked_at) < 2 * self.ping_ms;
        let mut subs = self.subs.values().filter(|sub| !sub.request.stats).peekable();
        if self.greeted_at.is_some() && !told && subs.peek().is_some() && !subs.any(|sub| sub.catching_up) {
            self.lost(self.now_ms, None, "deaf");
        }
    }

    /// The hub will never talk to us, as the attempt to open a socket has shown.
    pub fn refused(&mut self, reason: &str) {
        self.cut();
        self.end(reason);
    }

    /// The socket closed, with this code if there was one; or could not be opened.
    pub fn lost(&mut self, now_ms: u64, close_code: Option<u16>, reason: &str) {
        self.now_ms = now_ms;
        let held_ms = self.greeted_at.map_or(0, |at| now_ms.saturating_sub(at));
        let bye = self.bye.take();
        let close_code = bye.map(|(code, _)| code).or(close_code);
        let comes_back = close_code.is_some_and(|code| self.identity.comes_back(code));
        self.cut();
        let words = [close_code.map(|code| code.to_string()).unwrap_or_default(), reason.to_owned()];
        let reason = words.join(" ").trim().to_owned();
        if !comes_back && close_code.is_some_and(|code| is_refusal(code) || OUR_FAULT.contains(&code)) {
            return self.end(&reason);
        }
        let random = (self.random)();
        let retry_ms = self.backoff.next_ms(held_ms, bye.and_then(|(_, retry_ms)| retry_ms), random);
        self.timer = Some((now_ms + retry_ms, Timer::Retry));
        self.status = LiveStatus::Offline;
        self.say(Some(retry_ms), Some(reason));
    }

    fn open(&mut self, now_ms: u64) {
        self.connected = true;
        (self.now_ms, self.heard_at) = (now_ms, now_ms);
        self.timer = Some((now_ms + HELLO_MS_MAX, Timer::Hello));
        self.actions.push_back(Action::Open);
    }

    /// Lets go of the socket and of what only it meant.
    fn cut(&mut self) {
        self.actions.clear();
        if self.connected {
            self.actions.push_back(Action::Close);
        }
        (self.connected, self.asked, self.behind) = (false, false, false);
        (self.greeted_at, self.timer) = (None, None);
        self.outbox.begin(None);
        self.identity.cut();
        self.said = false;
        for sub in self.subs.values_mut() {
            (sub.live, sub.fresh, sub.again_at) = (false, None, None);
        }
    }

    fn end(&mut self, reason: &str) {
        self.status = LiveStatus::Refused;
        let reason = format!("the hub refused the connection ({reason})");
        self.say(None, Some(reason.clone()));
        for sub in std::mem::take(&mut self.subs).into_keys() {
            self.tell(sub, TaskEvent::ended("refused", &reason));
        }
    }

    fn say(&mut self, retry_ms: Option<u64>, reason: Option<String>) {
        self.events.push_back(LiveEvent::Status { status: self.status, behind: self.behind, retry_ms, reason });
    }

    fn tell(&mut self, sub: SubId, event: TaskEvent) {
        self.events.push_back(LiveEvent::Of(sub, event));
    }

    fn request(&mut self, op: LiveOp) -> u64 {
        self.ids += 1;
        self.outbox.push(LiveOp { id: Some(self.ids), ..op });
        self.send();
        self.ids
    }

    /// Sends what waits and may go.
    fn send(&mut self) {
        while let Some(op) = self.outbox.next(self.now_ms) {
            self.actions.push_back(Action::Send(serde_json::to_string(&op).expect("a request is plain data")));
            self.said = true;
        }
    }

    fn ask(&mut self, sub: SubId) {
        let Some(subscription) = self.subs.get(&sub) else { return };
        let op = subscription.op(sub);
        self.marked_at = self.now_ms;
        let id = self.request(op);
        let subscription = self.subs.get_mut(&sub).expect("just found");
        (subscription.asked, subscription.catching_up) = (Some(id), true);
    }

    fn greet(&mut self, now_ms: u64, hello: LiveHello) {
        self.ping_ms = hello.ping_ms.unwrap_or(PING_MS);
        self.outbox.begin(hello.limits.and_then(|limits| limits.messages_per_s));
        match self.identity.greeted(hello.authenticated) {
            Greeting::Known => self.resume(now_ms, hello.epoch),
            Greeting::Wait(wanted) => {
                self.timer = None;
                self.actions.extend(wanted.map(|anew| Action::Token { anew }));
            }
            Greeting::Stranger => self.refused("4501 it wants to know who is calling, and there is no token"),
        }
    }

    /// The hub knows who is calling: subscriptions are asked for. Only now does it say what the history is called for them,
    /// since who sees something else has another.
    fn resume(&mut self, now_ms: u64, epoch: String) {
        // Each start of a hub has a name of its own, so another one says little: subscriptions with a mark ask to resume, and
        // get `reset` where it is another history. Without such a subscription there is nothing to keep.
        let can_ask = self.subs.values().any(|sub| sub.mark.is_some());
        if self.epoch.as_ref().is_some_and(|known| *known != epoch) && !can_ask {
            self.begin_anew();
        }
        self.begun_anew = false;
        self.epoch = Some(epoch);
        self.greeted_at = Some(now_ms);
        self.listen(now_ms);
        self.awaited = self.subs.keys().copied().collect();
        if self.status == LiveStatus::Offline {
            self.status = LiveStatus::Resuming;
            self.say(None, None);
        }
        for sub in self.subs.keys().copied().collect::<Vec<_>>() {
            self.ask(sub);
        }
        self.caught_up(None);
    }

    /// Another history: nothing that was told can be built upon.
    fn begin_anew(&mut self) {
        self.picture.clear();
        for sub in self.subs.values_mut() {
            sub.void();
            sub.seqs.clear();
        }
    }

    /// The hub is on another history than the one that was told here, as when a store was put back to an earlier time: it
    /// says so for each subscription that asks to resume.
    fn reset(&mut self, sub: SubId, epoch: bool) {
        if epoch && !self.begun_anew {
            self.begun_anew = true;
            self.begin_anew();
            // Those that were resumed already are told the rest of a picture that is void.
            let resumed =
                |(id, each): (&SubId, &Subscription)| (*id != sub && each.live && !each.request.stats).then_some(*id);
            for id in self.subs.iter().filter_map(resumed).collect::<Vec<_>>() {
                self.ask(id);
            }
        }
        if let Some(sub) = self.subs.get_mut(&sub) {
            sub.void();
        }
    }

    /// Waits for a word from the hub; asks for one; gives the connection up. A late timer (a machine that slept) asks
    /// first. So does a client that had nothing to say yet: the hub closes connections that never send anything.
    fn listen(&mut self, now_ms: u64) {
        let quiet_ms = now_ms.saturating_sub(self.heard_at);
        let is_mute = !self.said && self.greeted_at.is_some_and(|at| now_ms - at >= self.ping_ms);
        if quiet_ms < self.ping_ms && !is_mute {
            self.timer = Some((self.heard_at + self.ping_ms, Timer::Silence));
        } else if self.asked {
            self.lost(now_ms, None, "silent");
        } else {
            self.asked = true;
            self.request(LiveOp { op: "ping".into(), ..LiveOp::default() });
            self.timer = Some((now_ms + self.ping_ms, Timer::Silence));
        }
    }

    fn caught_up(&mut self, sub: Option<SubId>) {
        if let Some(sub) = sub {
            self.awaited.remove(&sub);
        }
        if self.greeted_at.is_some() && self.awaited.is_empty() && self.status != LiveStatus::Live {
            self.status = LiveStatus::Live;
            self.say(None, None);
        }
    }
}

mod told;

#[cfg(test)]
#[path = "transcripts.rs"]
mod transcripts;

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
