//! A watcher: one subscription of one caller, on a WebSocket or on an event stream, and what it was told.

use std::collections::{HashMap, VecDeque};

use axum::body::BodyDataStream;
use futures::{FutureExt, SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use taskhub::task::TaskId;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::law::{Caller, Law, Scope};

pub enum Wire {
    Socket(Box<WebSocketStream<TcpStream>>),
    /// Nobody shares the body; it only cannot be looked at from two threads.
    Events {
        body: Mutex<BodyDataStream>,
        text: Vec<u8>,
    },
}

/// The newest that was told of a task.
#[derive(Clone, Copy, Debug)]
struct Known {
    rev: u64,
    tick: u64,
    is_gone: bool,
}

pub struct Watcher {
    /// Who watches, as a place among the callers.
    pub caller: usize,
    /// Who it was, until a renewed token is answered.
    pub was: Option<usize>,
    pub scope: Scope,
    pub logs_of: Option<TaskId>,
    pub is_socket: bool,
    pub wire: Option<Wire>,
    /// The name of the history, and the last mark in it: a place to go on from.
    pub mark: Option<(String, u64)>,
    pub last_event_id: String,
    /// With which code it was closed.
    pub code: Option<u16>,
    epoch: String,
    /// The last mark of this connection, and whether the subscription stood when it came.
    marked: Option<u64>,
    subscribed: bool,
    known: HashMap<TaskId, Known>,
    pub log_end: u64,
    pub log_lines: u64,
    pub counts: Counts,
    /// The last lines, for who looks into a failure.
    said: VecDeque<String>,
}

/// How much of what there was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub lines: u64,
    pub resumes: u64,
    pub scope_resets: u64,
    pub refreshes: u64,
    pub lags: u64,
    pub gone: u64,
    pub calls: u64,
    pub not_found: u64,
    pub revocations: u64,
    pub held_ended: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.lines += other.lines;
        self.resumes += other.resumes;
        self.scope_resets += other.scope_resets;
        self.refreshes += other.refreshes;
        self.lags += other.lags;
        self.gone += other.gone;
        self.calls += other.calls;
        self.not_found += other.not_found;
        self.revocations += other.revocations;
        self.held_ended += other.held_ended;
    }
}

impl Watcher {
    pub fn new(caller: usize, scope: Scope, logs_of: Option<TaskId>, is_socket: bool) -> Watcher {
        Watcher {
            caller,
            was: None,
            scope,
            logs_of,
            is_socket,
            wire: None,
            mark: None,
            last_event_id: String::new(),
            code: None,
            epoch: String::new(),
            marked: None,
            subscribed: false,
            known: HashMap::new(),
            log_end: 0,
            log_lines: 0,
            counts: Counts::default(),
            said: VecDeque::new(),
        }
    }

    /// One of another caller that asks for the same and knows the same.
    pub fn heir(&self, caller: usize) -> Watcher {
        let known = self.known.clone();
        Watcher { known, ..Watcher::new(caller, self.scope.clone(), None, self.is_socket) }
    }

    pub fn opened(&mut self, wire: Wire) {
        (self.wire, self.code, self.marked, self.subscribed, self.was) = (Some(wire), None, None, false, None);
        (self.log_end, self.log_lines) = (0, 0);
    }

    pub fn cut(&mut self) {
        self.wire = None;
    }

    /// Whether the hub gave it up because it was not heard of: one that is not read answers no pings. Its last word may
    /// be lost with the connection.
    pub fn is_lost(&self) -> bool {
        self.wire.is_none() && matches!(self.code, None | Some(4003))
    }

    pub async fn say(&mut self, op: Value) {
        if let Some(Wire::Socket(socket)) = &mut self.wire {
            // One that the hub has closed hears nothing.
            let _ = socket.send(Message::text(op.to_string())).await;
        }
    }

    /// What a socket says first: who it is, unless that stood in the handshake, and what it wants.
    pub async fn begin(&mut self, token: Option<&str>, since: Option<(String, u64)>) {
        if let Some(token) = token {
            self.say(json!({"op": "hello", "id": 1, "token": token})).await;
        }
        let mut op = json!({"op": "subscribe", "id": 2, "sub": "a", "filter": self.scope.json()});
        if self.logs_of.is_some() {
            op["logs"] = json!({"tail": 100});
        }
        if let Some((epoch, rev)) = since {
            op["since"] = json!({"epoch": epoch, "rev": rev});
        }
        self.say(op).await;
    }

    /// Reads what is there, up to so many messages.
    pub fn pump(&mut self, law: &Law, callers: &[Caller], messages: usize) {
        for _ in 0..messages {
            if self.wire.is_none() || self.next(law, callers).now_or_never().is_none() {
                return;
            }
        }
    }

    /// Reads one message. Ends at once where there is no connection.
    pub async fn next(&mut self, law: &Law, callers: &[Caller]) {
        let mut heard = Vec::new();
        match &mut self.wire {
            None => return,
            Some(Wire::Socket(socket)) => match socket.next().await {
                Some(Ok(Message::Text(text))) => heard.extend(text.lines().map(str::to_owned)),
                Some(Ok(Message::Close(frame))) => {
                    self.code = frame.map(|frame| u16::from(frame.code));
                    self.wire = None;
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) => self.wire = None,
            },
            Some(Wire::Events { body, text }) => match body.get_mut().next().await {
                Some(Ok(bytes)) => {
                    text.extend_from_slice(&bytes);
                    while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                        let event = String::from_utf8(text.drain(..end + 2).collect()).expect("events are text");
                        heard.push(event);
                    }
                }
                _ => self.wire = None,
            },
        }
        for line in heard {
            self.hear(law, callers, &line);
        }
    }

    fn hear(&mut self, law: &Law, callers: &[Caller], text: &str) {
        self.counts.lines += 1;
        self.said.push_back(text.to_owned());
        if self.said.len() > 30 {
            self.said.pop_front();
        }
        let mut line = text;
        if !self.is_socket {
            for part in text.lines() {
                match part.split_once(':').unwrap_or((part, "")) {
                    ("id", id) => self.last_event_id = id.trim_start().to_owned(),
                    ("data", data) => line = data,
                    _ => {}
                }
            }
        }
        let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {text}"));
        if line["type"] == "hello" && line["id"] == 5 {
            // What it knew may be void, which is said next.
            (self.was, self.mark) = (None, None);
        }
        if let Some(foreign) = law.foreign(self.caller, &callers[self.caller], text, "") {
            let was_its = |was| law.foreign(was, &callers[was], text, "").is_none();
            assert!(
                self.was.is_some_and(was_its),
                "{:?} (was {:?}) was told {foreign}: {text}\n{}",
                callers[self.caller],
                self.was,
                self.story()
            );
        }
        self.learn(&line);
    }

    fn learn(&mut self, line: &Value) {
        let rev = line["rev"].as_u64();
        match line["type"].as_str().expect("a type") {
            "hello" => self.epoch = line["epoch"].as_str().expect("an epoch").to_owned(),
            "subscribed" => {
                let resumed = line["mode"] == "resumed";
                self.counts.resumes += u64::from(resumed);
                self.subscribed = true;
                self.mark = None;
                if !resumed {
                    self.known.clear();
                }
            }
            "reset" => {
                self.counts.scope_resets += u64::from(line["reason"] == "scope");
                self.mark = None;
                self.known.clear();
            }
            "snapshot" => {
                for task in line["tasks"].as_array().expect("tasks") {
                    self.know(task, task["rev"].as_u64().expect("a rev"), task["tick"].as_u64().unwrap_or(0), false);
                }
            }
            "task" => self.know(&line["task"], rev.expect("a rev"), line["task"]["tick"].as_u64().unwrap_or(0), false),
            "progress" => self.know(line, rev.expect("a rev"), line["tick"].as_u64().expect("a tick"), false),
            "gone" => {
                self.counts.gone += 1;
                self.know(line, rev.expect("a rev"), 0, true);
            }
            "log" => {
                for said in line["lines"].as_array().expect("lines") {
                    self.log_end = self.log_end.max(said["seq"].as_u64().expect("a number"));
                    self.log_lines += 1;
                }
            }
            "mark" => {
                self.marked = rev;
                if self.subscribed {
                    self.mark = Some((self.epoch.clone(), rev.expect("a rev")));
                }
            }
            "lag" => self.counts.lags += 1,
            "error" => {
                // Who is told so goes on with the token of before.
                if line["id"] == 5
                    && let Some(was) = self.was.take()
                {
                    self.caller = was;
                }
            }
            "bye" => self.code = line["code"].as_u64().map(|code| code as u16),
            _ => {}
        }
    }

    fn know(&mut self, task: &Value, rev: u64, tick: u64, is_gone: bool) {
        let task_id = task["task_id"].as_str().expect("an id").parse().expect("an id");
        if self.known.get(&task_id).is_none_or(|known| (known.rev, known.tick) < (rev, tick)) {
            self.known.insert(task_id, Known { rev, tick, is_gone });
        }
    }

    /// Whether it was said that all up to `rev` was sent.
    pub fn has_all(&self, rev: u64) -> bool {
        self.subscribed && self.mark.as_ref().is_some_and(|(_, marked)| *marked >= rev)
    }

    /// What it believes of each task that is there.
    pub fn picture(&self) -> HashMap<TaskId, u64> {
        self.known.iter().filter(|(_, known)| !known.is_gone).map(|(task_id, known)| (*task_id, known.rev)).collect()
    }

    pub fn story(&self) -> String {
        let mut story =
            format!("watching {}, on a socket: {}, marked {:?}\n", self.scope.json(), self.is_socket, self.marked);
        self.said.iter().for_each(|line| story.extend([line.as_str(), "\n"]));
        story
    }
}
