//! What a worker says, as text: many messages, one a line, gathered into few.

use std::collections::VecDeque;
use std::io::Write;

use serde::Serialize;

use super::TaskFailure;
use super::attempt::Slot;
use super::roster::Report;
use super::spawn::Spawn;
use crate::task::{Failure, Json};
use crate::wire::{Held, LogLineBody, WorkerHello, WorkerOp};

/// A text is closed when it is this long: large enough that a message costs next to nothing, small enough that the hub
/// reads the first while the next is written.
const TEXT_BYTES: usize = 64 << 10;
/// Lines that go as one message, in bytes.
const LINES_BYTES: usize = 32 << 10;

/// Texts that wait for the socket.
#[derive(Default)]
pub(super) struct Output {
    texts: VecDeque<String>,
    open: Vec<u8>,
}

impl Output {
    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.open.is_empty()
    }

    /// The next text to send.
    pub(super) fn next(&mut self) -> Option<String> {
        if self.texts.is_empty() {
            self.close();
        }
        self.texts.pop_front()
    }

    /// Forgets what the socket has not taken.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.open.clear();
    }

    pub(super) fn hello(&mut self, hello: &WorkerHello) {
        self.op(&WorkerOp::Hello(hello.clone()));
    }

    /// Another token in place of the one that was said.
    pub(super) fn refresh(&mut self, token: &str) {
        #[derive(Serialize)]
        struct Refresh<'a> {
            op: &'a str,
            token: &'a str,
        }
        self.line(|out| Ok(serde_json::to_writer(out, &Refresh { op: "refresh", token })?));
    }

    pub(super) fn heartbeat(&mut self) {
        self.op(&WorkerOp::Heartbeat);
    }

    pub(super) fn drain(&mut self) {
        self.op(&WorkerOp::Drain);
    }

    /// The lines that wait in a slot.
    pub(super) fn lines(&mut self, held: Held, slot: &mut Slot) {
        if slot.lines.is_empty() {
            return;
        }
        let mut lines = slot.take_lines();
        while !lines.is_empty() {
            let mut bytes = 0;
            let fitting = lines.iter().take_while(|line| {
                bytes += line.message.len();
                bytes <= LINES_BYTES
            });
            let count = fitting.count().max(1);
            let lines: Vec<LogLineBody> = lines.drain(..count).collect();
            self.op(&WorkerOp::Log { task_id: held.task_id, attempt: held.attempt, lines });
        }
    }

    /// The progress and checkpoint that wait in a slot.
    pub(super) fn progress(&mut self, held: Held, slot: &mut Slot) {
        let (progress, checkpoint) = (slot.progress.take(), slot.checkpoint.take());
        if progress.is_some() || checkpoint.is_some() {
            self.op(&WorkerOp::Progress { task_id: held.task_id, attempt: held.attempt, progress, checkpoint });
        }
    }

    /// The calls that wait in a slot and add tasks.
    pub(super) fn spawns(&mut self, held: Held, slot: &mut Slot) {
        let Held { task_id, attempt } = held;
        for Spawn { id, key, tasks } in slot.spawns.iter_mut().flat_map(|spawns| spawns.take_unsent()) {
            self.op(&WorkerOp::Spawn { id: Some(id), task_id, attempt, key: Some(key), tasks });
        }
    }

    /// How an attempt ended.
    pub(super) fn report(&mut self, held: Held, report: &Report) {
        match report {
            Report::Complete(result) => self.complete(held, result),
            Report::Cancelled => self.plain("cancelled", held),
            Report::Release => self.plain("release", held),
            Report::Fail(TaskFailure { failure, retryable, retry_after_ms }) => {
                let mut error = failure.clone().cut();
                if error.kind.chars().count() > Failure::KIND_CHARS_MAX {
                    error.kind = error.kind.chars().take(Failure::KIND_CHARS_MAX).collect();
                }
                let Held { task_id, attempt } = held;
                let (retryable, retry_after_ms) = (*retryable, *retry_after_ms);
                self.op(&WorkerOp::Fail { task_id, attempt, error, retryable, retry_after_ms });
            }
        }
    }

    /// The one message that is written without serde: it is sent once for every task, and serde would read the result
    /// again only to know that it is JSON.
    fn complete(&mut self, held: Held, result: &Json) {
        if *result == Json::null() {
            // Which is the same, and what an attempt says that has uploaded its result.
            return self.plain("complete", held);
        }
        self.line(|out| {
            write!(out, r#"{{"op":"complete","task_id":"{}","attempt":{},"result":"#, held.task_id, held.attempt)?;
            out.extend_from_slice(result.bytes());
            out.push(b'}');
            Ok(())
        });
    }

    fn plain(&mut self, op: &str, held: Held) {
        self.line(|out| write!(out, r#"{{"op":"{op}","task_id":"{}","attempt":{}}}"#, held.task_id, held.attempt));
    }

    fn op(&mut self, op: &WorkerOp) {
        self.line(|out| Ok(serde_json::to_writer(out, op)?));
    }

    fn line(&mut self, write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) {
        if !self.open.is_empty() {
            self.open.push(b'\n');
        }
        write(&mut self.open).expect("plain data is written to memory");
        if self.open.len() >= TEXT_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let text = std::mem::take(&mut self.open);
            self.texts.push_back(String::from_utf8(text).expect("JSON is UTF-8"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WorkerSays;

    fn held(attempt: u32) -> Held {
        Held { task_id: "0190a0b0-0000-7000-8000-000000000001".parse().unwrap(), attempt }
    }

    fn all(output: &mut Output) -> Vec<String> {
        std::iter::from_fn(|| output.next()).collect()
    }

    #[test]
    fn many_messages_are_one_text_and_each_is_one_line() {
        let mut output = Output::default();
        let result = Json::parse("{\n  \"a\": \"x\\ny\",\r\n  \"b\": 1e400\n}").unwrap();
        output.report(held(1), &Report::Complete(result));
        output.report(held(2), &Report::Cancelled);
        output.report(held(3), &Report::Release);
        output.report(held(4), &Report::Fail(TaskFailure::new("k".repeat(200), "m").permanent()));
        output.heartbeat();
        let texts = all(&mut output);
        assert_eq!(texts.len(), 1);
        let ops: Vec<WorkerSays> = texts[0].split('\n').map(|line| serde_json::from_str(line).unwrap()).collect();
        let words: Vec<_> = ops.iter().map(|says| says.op.as_str()).collect();
        assert_eq!(words, ["complete", "cancelled", "release", "fail", "heartbeat"]);
        assert_eq!(ops[0].result.as_ref().unwrap().as_str(), "{   \"a\": \"x\\ny\",    \"b\": 1e400 }");
        assert_eq!(ops[3].error.as_ref().unwrap().kind.len(), Failure::KIND_CHARS_MAX);
        assert_eq!(ops[3].retryable, Some(false));
        assert!(output.is_empty());
    }

    #[test]
    fn a_text_has_an_end() {
        let mut output = Output::default();
        let result = Json::of(&"x".repeat(TEXT_BYTES / 2)).unwrap();
        for attempt in 0..4 {
            output.report(held(attempt), &Report::Complete(result.clone()));
        }
        let texts = all(&mut output);
        assert_eq!(texts.len(), 2);
        assert!(texts.iter().all(|text| text.lines().count() == 2));
    }
}
