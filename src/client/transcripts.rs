//! Drives the follower through the golden conversations in `tests/transcripts`; the README there says what a line
//! means. The browser's client is driven by the same ones.
//!
//! Two liberties: a task id there is a short word and here a UUID, and records there name only the fields that matter,
//! so the rest is filled in.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::dial::renew_in;
use crate::task::{Event, TaskId};

#[test]
fn golden_conversations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("tests/transcripts can be listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are transcripts in {}", folder.display());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a transcript can be read");
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let mut conversation = Conversation::new(&text);
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            conversation.place = format!("{name}:{}", n + 1);
            let Value::Object(step) = serde_json::from_str(line).expect("a line is JSON") else { panic!("no object") };
            let (verb, value) = step.into_iter().next().expect("a line has a verb");
            conversation.take(&verb, value);
        }
        conversation.nothing_unsaid();
    }
}

struct Conversation {
    follower: Follower,
    now_ms: u64,
    place: String,
    opened: usize,
    opened_expected: usize,
    sent: VecDeque<Value>,
    names: BTreeMap<String, Value>,
    subs: BTreeMap<String, SubId>,
    told: BTreeMap<SubId, Vec<String>>,
    /// What is given when a token is asked for, and what was given last.
    tokens: VecDeque<String>,
    token: Option<String>,
}

impl Conversation {
    fn new(text: &str) -> Conversation {
        let first: Value = serde_json::from_str(text.lines().next().expect("a transcript has lines")).expect("JSON");
        let random = first["random"].as_f64().unwrap_or(0.5);
        let mut conversation = Conversation {
            follower: Follower::new(1_000_000, move || random),
            now_ms: 1_000_000,
            place: String::new(),
            opened: 0,
            opened_expected: 0,
            sent: VecDeque::new(),
            names: BTreeMap::new(),
            subs: BTreeMap::new(),
            told: BTreeMap::new(),
            tokens: VecDeque::new(),
            token: None,
        };
        conversation.listen();
        conversation
    }

    fn take(&mut self, verb: &str, value: Value) {
        if ["recv", "close", "open", "wait_ms", "picture"].contains(&verb) {
            self.nothing_unsaid();
        }
        match verb {
            "note" | "random" => {}
            "tokens" => {
                self.tokens = serde_json::from_value(value).expect("a list of tokens");
                self.follower.use_tokens(true);
            }
            "call" => self.call(value),
            "open" => {
                self.opened_expected += 1;
                assert_eq!(self.opened, self.opened_expected, "{}: sockets opened", self.place);
            }
            "recv" => {
                let messages = if let Value::Array(messages) = value { messages } else { vec![value] };
                let lines: Vec<_> =
                    messages.into_iter().map(|message| whole(self.named(message)).to_string()).collect();
                self.follower.heard(self.now_ms, &lines.join("\n"));
            }
            "send" => {
                let sent = self.sent.pop_front().unwrap_or_else(|| panic!("{}: nothing was sent", self.place));
                self.learn(&value, &sent);
                assert_eq!(sent, whole(self.named(value)), "{}", self.place);
            }
            "close" => {
                let code = value.as_u64().expect("a code") as u16;
                self.follower.lost(self.now_ms, Some(code), "");
            }
            "wait_ms" => {
                let until = self.now_ms + value.as_u64().expect("a time");
                while let Some(deadline) = self.follower.deadline_ms().filter(|at| *at <= until) {
                    self.now_ms = self.now_ms.max(deadline);
                    self.follower.tick(self.now_ms);
                    self.listen();
                }
                self.now_ms = until;
            }
            "picture" => self.picture(value),
            other => panic!("{}: {other} is no verb", self.place),
        }
        self.listen();
    }

    fn call(&mut self, call: Value) {
        if let Some(name) = call["unsubscribe"].as_str() {
            return self.follower.unsubscribe(self.subs[name]);
        }
        let request = whole(call["subscribe"].clone());
        let part = |key: &str| request.get(key).cloned();
        let sub = self.follower.subscribe(Subscribe {
            filter: part("filter").map(|v| serde_json::from_value(v).expect("a filter")).unwrap_or_default(),
            snapshot: part("snapshot").map(|v| serde_json::from_value(v).expect("a snapshot")),
            max_hz: part("max_hz").and_then(|v| v.as_f64()),
            logs: part("logs").map(|v| serde_json::from_value(v).expect("logs")),
            stats: request["stats"] == true,
        });
        self.subs.insert(request["as"].as_str().unwrap_or("main").to_owned(), sub);
    }

    /// Takes what the follower wants done and has to tell.
    fn listen(&mut self) {
        while let Some(action) = self.follower.step() {
            match action {
                Action::Open => self.opened += 1,
                Action::Send(text) => self.sent.push_back(serde_json::from_str(&text).expect("JSON is sent")),
                Action::Close => {}
                Action::Token { anew } => self.give_token(anew),
            }
        }
        while let Some(event) = self.follower.event() {
            if let LiveEvent::Of(sub, event) = event {
                self.told.entry(sub).or_default().push(words(&event));
            }
        }
    }

    fn give_token(&mut self, anew: bool) {
        if anew || self.token.is_none() {
            self.token = self.tokens.pop_front();
        }
        let Some(token) = self.token.clone() else { return self.follower.no_token(self.now_ms, "there are no more") };
        let renew_in = renew_in(&token, self.now_ms as f64 / 1_000.0);
        self.follower.token(self.now_ms, token, renew_in.map(|after| after.as_millis() as u64));
    }

    fn nothing_unsaid(&self) {
        assert!(self.sent.is_empty(), "{}: sent without a line that says so: {:?}", self.place, self.sent);
    }

    fn picture(&mut self, picture: Value) {
        assert_eq!(self.opened, self.opened_expected, "{}: sockets opened", self.place);
        let Value::Object(mut picture) = picture else { panic!("{}: a picture is an object", self.place) };
        if let Some(status) = picture.remove("status") {
            let ours = format!("{:?}", self.follower.status()).to_lowercase();
            assert_eq!(ours, status.as_str().expect("a word"), "{}", self.place);
        }
        if let Some(behind) = picture.remove("behind") {
            assert_eq!(self.follower.behind(), behind.as_bool().expect("a boolean"), "{}", self.place);
        }
        let mut main = serde_json::Map::new();
        for key in ["told", "tasks"] {
            main.extend(picture.remove(key).map(|value| (key.to_owned(), value)));
        }
        if !main.is_empty() {
            picture.insert("main".into(), main.into());
        }
        for (name, expected) in picture {
            let sub = self.subs[&name];
            if let Some(told) = expected.get("told") {
                let ours = self.told.remove(&sub).unwrap_or_default();
                assert_eq!(json!(ours), *told, "{}: told", self.place);
            }
            let Some(Value::Object(tasks)) = expected.get("tasks") else { continue };
            let shown: BTreeMap<_, _> =
                self.follower.tasks(sub).into_iter().map(|task| (short(task.task_id), task)).collect();
            assert!(shown.keys().eq(tasks.keys()), "{}: shown {:?}", self.place, shown.keys());
            for (task_id, fields) in tasks {
                let ours = serde_json::to_value(shown[task_id].as_ref()).expect("a task is JSON");
                for (field, value) in fields.as_object().expect("fields") {
                    assert_eq!(ours[field], *value, "{}: {task_id} {field}", self.place);
                }
            }
        }
    }

    /// Gives each `$name` met for the first time the value found in its place.
    fn learn(&mut self, expected: &Value, found: &Value) {
        match expected {
            Value::String(name) if name.starts_with('$') => {
                self.names.entry(name.clone()).or_insert_with(|| found.clone());
            }
            Value::Object(fields) => fields.iter().for_each(|(key, value)| self.learn(value, &found[key])),
            _ => {}
        }
    }

    fn named(&self, value: Value) -> Value {
        match value {
            Value::String(name) if name.starts_with('$') => self.names[&name].clone(),
            Value::Array(values) => values.into_iter().map(|value| self.named(value)).collect(),
            Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, self.named(value))).collect(),
            other => other,
        }
    }
}

const ID_PREFIX: &str = "00000000-0000-7000-8000-";

/// `t7` for the UUID that stands for it.
fn short(task_id: TaskId) -> String {
    let text = task_id.to_string();
    format!("t{}", text[ID_PREFIX.len()..].trim_start_matches('0'))
}

fn long(word: &Value) -> Value {
    match word.as_str().and_then(|word| word.strip_prefix('t')) {
        Some(number) => json!(format!("{ID_PREFIX}{number:0>12}")),
        None => word.clone(),
    }
}

/// The message with UUIDs for short ids, and with whole records.
fn whole(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let of_field = |(key, value): (String, Value)| {
        let value = match (key.as_str(), value) {
            ("task_id", Value::Array(ids)) => ids.iter().map(long).collect(),
            ("task_id", id) => long(&id),
            ("tasks", Value::Array(tasks)) => tasks.into_iter().map(record).collect(),
            ("task", task) => record(task),
            (_, value) => whole(value),
        };
        (key, value)
    };
    fields.into_iter().map(of_field).collect()
}

fn record(named: Value) -> Value {
    let mut task = json!({
        "task_type": "report", "queue": "default", "priority": 0, "attempt": 0, "tries": 0, "max_attempts": 1,
        "crashes": 0, "max_crashes": 3, "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
    });
    let Value::Object(named) = whole(named) else { panic!("a task is an object") };
    task.as_object_mut().expect("just made").extend(named);
    task
}

fn words(event: &TaskEvent) -> String {
    match event {
        TaskEvent::Snapshot { tasks, .. } => format!("snapshot {}", tasks.len()),
        TaskEvent::Task { event, task } => {
            format!("{} {}", event.map_or("unknown", Event::as_str), short(task.task_id))
        }
        TaskEvent::Leave { task, .. } => format!("leave {}", short(task.task_id)),
        TaskEvent::Progress { task } => format!("progress {}", short(task.task_id)),
        TaskEvent::Log { task_id, lines } => {
            let seqs: Vec<_> = lines.iter().map(|line| line.seq.to_string()).collect();
            format!("log {} {}", short(*task_id), seqs.join(" "))
        }
        TaskEvent::Gone { task_id } => format!("gone {}", short(*task_id)),
        TaskEvent::Stats(_) => "stats".into(),
        TaskEvent::Ended { code, .. } => format!("error {code}"),
    }
}
