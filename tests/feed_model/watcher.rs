//! A client that believes nothing: it reads the bytes of its socket by itself, keeps a picture by the rules of the
//! contract, and notes what it may believe. On a WebSocket the Rust client's own state machine hears the same bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::Value;
use taskhub::client::{Action, Follower, SubId, Subscribe};
use taskhub::task::{Filter, FilterSpec, TaskId};

use super::ledger::Belief;

/// The one subscription of an event stream.
pub const EVENTS: &str = "events";

pub struct Watcher {
    /// Of a WebSocket.
    pub follower: Option<Follower>,
    pub subs: BTreeMap<String, View>,
    pub connection: Option<Connection>,
    /// What a browser would send as `Last-Event-ID`.
    pub last_event_id: String,
    /// What it believed: of which epoch, and when so much was said.
    pub beliefs: Vec<(String, usize, Belief)>,
    /// Lines in short, for whoever looks for a failure.
    pub said: Vec<String>,
    pub wants_to_open: bool,
    /// `task` lines that came by themselves: task, `rev` and length.
    pub records: Vec<(TaskId, u64, usize)>,
    /// What the last connection was closed with.
    pub close_code: Option<u16>,
    epoch: String,
    now_ms: u64,
    /// Of this connection.
    heard: Heard,
    /// Whether a subscription ever ended.
    has_left: bool,
    subs_made: u64,
    pub counts: Counts,
}

/// What the runs met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub lines: u64,
    pub lags: u64,
    pub resets: u64,
    pub resumes: u64,
    pub connections: u64,
    pub byes: u64,
    pub beliefs: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.lines += other.lines;
        self.lags += other.lags;
        self.resets += other.resets;
        self.resumes += other.resumes;
        self.connections += other.connections;
        self.byes += other.byes;
        self.beliefs += other.beliefs;
    }
}

#[derive(Default)]
struct Heard {
    /// The last live line of each task: `rev`, `tick`, and whether the task ended with it.
    live: HashMap<TaskId, (u64, u64, bool)>,
    received: BTreeSet<u64>,
    rev_max: u64,
    marked: Option<u64>,
    lags: bool,
    /// Ticks of records it has not seen, by their `rev`: a snapshot was read when the task had left the filter again, and
    /// the record that says so is on its way.
    ahead: HashMap<TaskId, u64>,
    /// It ever lagged, or left a subscription.
    is_loose: bool,
    resuming: bool,
}

pub struct View {
    pub filter: Arc<Filter>,
    pub spec: FilterSpec,
    /// Of the follower.
    pub id: Option<SubId>,
    pub known: HashMap<TaskId, Known>,
    /// Told as subscribed on this connection.
    subscribed: bool,
    /// The mark from which on everything came by itself.
    whole_from: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Known {
    pub rev: u64,
    pub tick: u64,
    /// `None`: it is gone.
    pub task: Option<Value>,
}

pub struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    bytes: Vec<u8>,
    has_head: bool,
    /// Of an event stream: what came out of its chunks.
    text: Vec<u8>,
}

impl Connection {
    /// `head` is the request.
    pub fn new(stream: TcpStream, head: String) -> Connection {
        stream.set_nonblocking(true).expect("a socket");
        Connection { stream, out: head.into(), bytes: Vec::new(), has_head: false, text: Vec::new() }
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match text.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    // A mask of nothing.
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

impl Watcher {
    pub fn on_socket(mut random: fastrand::Rng) -> Watcher {
        let follower = Follower::new(0, move || random.f64());
        Watcher { follower: Some(follower), ..Watcher::new() }
    }

    pub fn on_events(spec: FilterSpec) -> Watcher {
        let mut watcher = Watcher::new();
        watcher.subs.insert(EVENTS.into(), View::new(spec, None));
        watcher
    }

    fn new() -> Watcher {
        Watcher {
            follower: None,
            subs: BTreeMap::new(),
            connection: None,
            last_event_id: String::new(),
            beliefs: Vec::new(),
            said: Vec::new(),
            wants_to_open: true,
            records: Vec::new(),
            close_code: None,
            epoch: String::new(),
            now_ms: 0,
            heard: Heard::default(),
            has_left: false,
            subs_made: 0,
            counts: Counts::default(),
        }
    }

    pub fn subscribe(&mut self, spec: FilterSpec) {
        let follower = self.follower.as_mut().expect("a WebSocket");
        let id = follower.subscribe(Subscribe { filter: spec.clone(), ..Subscribe::default() });
        // The names that the follower gives: the first is s1.
        self.subs_made += 1;
        self.subs.insert(format!("s{}", self.subs_made), View::new(spec, Some(id)));
        self.do_steps();
    }

    pub fn unsubscribe(&mut self, name: &str) {
        let Some(view) = self.subs.remove(name) else { return };
        self.follower.as_mut().expect("a WebSocket").unsubscribe(view.id.expect("one of the follower's"));
        self.heard.is_loose = true;
        self.has_left = true;
        self.do_steps();
    }

    pub fn opened(&mut self, connection: Connection) {
        self.wants_to_open = false;
        self.connection = Some(connection);
        self.counts.connections += 1;
    }

    /// The connection is cut, or was.
    pub fn cut(&mut self, code: Option<u16>) {
        if self.connection.take().is_none() {
            return;
        }
        let heard = std::mem::take(&mut self.heard);
        if !heard.is_loose && !heard.received.is_empty() {
            let filters = self.subs.values().map(|view| view.filter.clone()).collect();
            self.believe(Belief::Meant { filters, received: heard.received });
        }
        self.said.push(format!("cut {code:?}"));
        for view in self.subs.values_mut() {
            (view.subscribed, view.whole_from) = (false, None);
        }
        match &mut self.follower {
            Some(follower) => {
                follower.lost(self.now_ms, code, "");
                self.do_steps();
            }
            None => self.wants_to_open = true,
        }
    }

    /// The last lines it heard.
    pub fn said(&self) -> String {
        let state = (self.connection.is_some(), self.wants_to_open, self.heard.lags, self.subs.keys());
        format!("{state:?}; it heard\n{}", self.said[self.said.len().saturating_sub(60)..].join("\n"))
    }

    fn believe(&mut self, belief: Belief) {
        self.beliefs.push((self.epoch.clone(), self.said.len(), belief));
    }

    /// Time passes until the next attempt.
    pub fn retry(&mut self) {
        if self.connection.is_none()
            && !self.wants_to_open
            && let Some(follower) = &mut self.follower
        {
            self.now_ms = follower.deadline_ms().expect("it tries again").max(self.now_ms);
            follower.tick(self.now_ms);
            self.do_steps();
        }
    }

    fn do_steps(&mut self) {
        let follower = self.follower.as_mut().expect("a WebSocket");
        while follower.event().is_some() {}
        while let Some(step) = follower.step() {
            match step {
                Action::Open => self.wants_to_open = true,
                Action::Send(text) => {
                    if let Some(connection) = &mut self.connection {
                        connection.out.extend(frame(&text));
                    }
                }
                Action::Close => self.connection = None,
                Action::Token { .. } => unreachable!("no watcher here has a token"),
            }
        }
    }

    /// That every tick had its record, or one that came after that.
    pub fn check_ahead(&self) {
        assert!(self.has_left || self.heard.ahead.is_empty(), "ticks without a record: {:?}", self.heard.ahead);
    }

    /// Whether every subscription stands, and a mark came after all that was told.
    pub fn has_all(&self) -> bool {
        let Heard { marked, rev_max, lags, .. } = self.heard;
        self.subs.values().all(|view| view.subscribed) && marked.is_some_and(|marked| marked >= rev_max) && !lags
    }

    /// Reads up to `bytes_max`, and writes what waits. Answers whether anything came.
    pub fn pump(&mut self, bytes_max: usize) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        while !connection.out.is_empty() {
            match connection.stream.write(&connection.out) {
                Ok(len) => drop(connection.out.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.cut(None);
                    return false;
                }
            }
        }
        let mut buffer = vec![0; bytes_max];
        match connection.stream.read(&mut buffer) {
            Ok(0) => self.cut(None),
            Ok(len) => {
                connection.bytes.extend(&buffer[..len]);
                self.look();
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.cut(None),
        }
        false
    }

    fn look(&mut self) {
        while let Some(connection) = &mut self.connection {
            let bytes = &mut connection.bytes;
            if !connection.has_head {
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return };
                let head = String::from_utf8(bytes.drain(..end + 4).collect()).expect("a head is text");
                let expected = if self.follower.is_some() { "HTTP/1.1 101" } else { "HTTP/1.1 200" };
                assert!(head.starts_with(expected), "{head}");
                connection.has_head = true;
            }
            let went_on = if self.follower.is_some() { self.look_for_frame() } else { self.look_for_event() };
            if !went_on {
                return;
            }
        }
    }

    fn look_for_frame(&mut self) -> bool {
        let connection = self.connection.as_mut().expect("there is one");
        let bytes = &mut connection.bytes;
        let [first, short, rest @ ..] = &bytes[..] else { return false };
        let (head, len) = match (*short, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (126, _) => return false,
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize),
            (127, _) => return false,
            (short, _) => (2, usize::from(short)),
        };
        if bytes.len() < head + len {
            return false;
        }
        let first = *first;
        let payload: Vec<u8> = bytes.drain(..head + len).skip(head).collect();
        match first {
            0x81 => {
                let text = String::from_utf8(payload).expect("text is UTF-8");
                for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
                    self.hear(value.expect("the hub says JSON"));
                }
                if let Some(follower) = &mut self.follower {
                    follower.heard(self.now_ms, &text);
                    self.do_steps();
                }
            }
            0x89 => connection.out.extend([0x8A, 0x80, 0, 0, 0, 0]),
            0x88 => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                assert!(matches!(code, Some(4001 | 4002)), "closed with {code:?}");
                self.close_code = code;
                self.cut(code);
            }
            other => panic!("a frame of kind {other:x}"),
        }
        true
    }

    fn look_for_event(&mut self) -> bool {
        let connection = self.connection.as_mut().expect("there is one");
        let bytes = &mut connection.bytes;
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return false };
        let len = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).expect("a size"), 16).expect("a size");
        if bytes.len() < end + 2 + len + 2 {
            return false;
        }
        connection.text.extend(bytes.drain(..end + 2 + len + 2).skip(end + 2).take(len));
        if len == 0 {
            self.cut(None);
            return false;
        }
        while let Some(connection) = &mut self.connection
            && let Some(end) = connection.text.windows(2).position(|two| two == b"\n\n")
        {
            let event = String::from_utf8(connection.text.drain(..end + 2).collect()).expect("events are text");
            let mut data = None;
            for line in event.lines() {
                match line.split_once(':').unwrap_or((line, "")) {
                    ("id", id) => self.last_event_id = id.trim_start().to_owned(),
                    ("data", text) => data = Some(serde_json::from_str(text).expect("the hub says JSON")),
                    _ => {}
                }
            }
            self.hear(data.expect("every event has data"));
        }
        true
    }

    fn hear(&mut self, says: Value) {
        self.counts.lines += 1;
        self.said.push(short(&says));
        let rev = says["rev"].as_u64();
        let sub = says["sub"].as_str();
        match says["type"].as_str().expect("a type") {
            "hello" => {
                let epoch = says["epoch"].as_str().expect("an epoch");
                self.epoch = epoch.to_owned();
            }
            "subscribed" => {
                // Also where it was given up in the meantime.
                let resumes = says["mode"] == "resumed";
                self.heard.resuming |= resumes;
                self.counts.resumes += u64::from(resumes);
                let Some(view) = self.subs.get_mut(sub.expect("a name")) else { return };
                view.subscribed = true;
                if !resumes {
                    view.known.clear();
                }
            }
            "reset" => {
                self.counts.resets += 1;
                let Some(view) = self.subs.get_mut(sub.expect("a name")) else { return };
                view.known.clear();
                view.whole_from = None;
                self.heard.ahead.clear();
                self.heard.is_loose = true;
            }
            "snapshot" => {
                assert!(says.get("truncated").is_none(), "too many tasks for this test");
                let Some(view) = self.subs.get_mut(sub.expect("a name")) else { return };
                for task in says["tasks"].as_array().expect("tasks") {
                    view.learn(task["rev"].as_u64().expect("a rev"), task["tick"].as_u64().expect("a tick"), task);
                }
            }
            "task" => {
                let (rev, task) = (rev.expect("a rev"), &says["task"]);
                assert_eq!((task["rev"].as_u64(), task["tick"].as_u64().map(|_| ())), (Some(rev), Some(())));
                let is_final = matches!(task["status"].as_str(), Some("completed" | "failed" | "cancelled"));
                self.live(id(task), rev, 0, is_final, &says);
                self.records.push((id(task), rev, says.to_string().len()));
                self.subs.values_mut().for_each(|view| {
                    view.learn(rev, task["tick"].as_u64().expect("a tick"), task);
                });
            }
            "gone" => {
                let (rev, task_id) = (rev.expect("a rev"), id(&says));
                self.live(task_id, rev, 0, true, &says);
                for view in self.subs.values_mut() {
                    if view.known.get(&task_id).is_none_or(|known| known.rev < rev) {
                        view.known.insert(task_id, Known { rev, tick: 0, task: None });
                    }
                }
            }
            "progress" => {
                let (rev, tick, task_id) = (rev.expect("a rev"), says["tick"].as_u64().expect("a tick"), id(&says));
                self.live(task_id, rev, tick, false, &says);
                let knows = |view: &View| view.known.get(&task_id).is_some_and(|known| known.rev >= rev);
                if !self.subs.values().any(knows) {
                    self.heard.ahead.insert(task_id, rev);
                }
                for known in self.subs.values_mut().filter_map(|view| view.known.get_mut(&task_id)) {
                    if let Some(task) = &mut known.task
                        && known.rev == rev
                        && known.tick < tick
                    {
                        known.tick = tick;
                        task["tick"] = tick.into();
                        task["progress"] = says["progress"].clone();
                    }
                }
            }
            "mark" => self.mark(rev.expect("a rev")),
            "lag" => {
                self.counts.lags += 1;
                (self.heard.lags, self.heard.is_loose) = (true, true);
                self.subs.values_mut().for_each(|view| view.whole_from = None);
            }
            "bye" => self.counts.byes += 1,
            "unsubscribed" => {}
            _ => panic!("{says}"),
        }
    }

    /// A line that comes by itself, unless it is one of those that were missed.
    fn live(&mut self, task_id: TaskId, rev: u64, tick: u64, is_final: bool, line: &Value) {
        if tick == 0 && self.heard.ahead.get(&task_id).is_some_and(|ahead| *ahead <= rev) {
            self.heard.ahead.remove(&task_id);
        }
        if self.heard.resuming {
            return;
        }
        self.heard.rev_max = self.heard.rev_max.max(rev);
        if tick == 0 {
            self.heard.received.insert(rev);
        }
        if let Some((last_rev, last_tick, ended)) = self.heard.live.insert(task_id, (rev, tick, is_final)) {
            assert!((rev, tick) > (last_rev, last_tick), "{line} after {last_rev} {last_tick}");
            assert!(!ended || tick == 0 || rev > last_rev, "{line} after the end");
        }
    }

    fn mark(&mut self, rev: u64) {
        // A browser resumes from any mark, so none may come before what it marks.
        assert!(self.follower.is_some() || self.subs[EVENTS].subscribed, "a mark of nothing: {rev}");
        let heard = &mut self.heard;
        assert!(heard.marked.is_none_or(|marked| marked <= rev), "mark {rev} after {:?}", heard.marked);
        (heard.marked, heard.resuming) = (Some(rev), false);
        if heard.lags && rev >= heard.rev_max {
            heard.lags = false;
        }
        let mut beliefs = Vec::new();
        for view in self.subs.values_mut().filter(|view| view.subscribed) {
            let known = view.known.iter().map(|(task_id, known)| (*task_id, known.rev)).collect();
            beliefs.push(Belief::Mark { rev, filter: view.filter.clone(), known });
            if heard.lags {
                continue;
            }
            if let Some(from) = view.whole_from.replace(rev).filter(|from| *from < rev) {
                let received = heard.received.range(from..=rev).copied().collect();
                beliefs.push(Belief::Whole { from, to: rev, filter: view.filter.clone(), received });
            }
        }
        beliefs.into_iter().for_each(|belief| self.believe(belief));
    }
}

/// A line without what is long.
fn short(line: &Value) -> String {
    let mut words: Vec<String> = ["type", "sub", "mode", "event", "rev", "tick", "task_id"]
        .iter()
        .filter_map(|key| line.get(key).map(Value::to_string))
        .collect();
    words.extend(line.get("task").map(|task| format!("{} tick {}", task["task_id"], task["tick"])));
    for task in line["tasks"].as_array().into_iter().flatten() {
        words.push(format!("{} rev {}", task["task_id"], task["rev"]));
    }
    words.join(" ")
}

impl View {
    fn new(spec: FilterSpec, id: Option<SubId>) -> View {
        let filter = Arc::new(spec.clone().checked().expect("a filter"));
        View { filter, spec, id, known: HashMap::new(), subscribed: false, whole_from: None }
    }

    fn learn(&mut self, rev: u64, tick: u64, task: &Value) {
        let task_id = id(task);
        if self.known.get(&task_id).is_none_or(|known| (known.rev, known.tick) < (rev, tick)) {
            self.known.insert(task_id, Known { rev, tick, task: Some(task.clone()) });
        }
    }
}

pub fn id(value: &Value) -> TaskId {
    value["task_id"].as_str().expect("an id").parse().expect("an id")
}
