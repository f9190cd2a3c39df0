//! Tasks that a running one adds.
//!
//! A call is kept until the hub has answered it, and sent again on a new connection and where the hub had no room for it just
//! then: under the same key, so that tasks which the hub has taken already are not added twice. It leaves before the report
//! that ends the attempt, if it leaves at all: a call that nobody waits for any more is forgotten unless it was sent.

use std::collections::BTreeMap;
use std::fmt;

use tokio::sync::oneshot;

use super::roster::is_over;
use crate::task::{Json, NewTask, TaskId};
use crate::wire::HubSays;

/// What one call may hold, in bytes of JSON text. A hub takes messages of a MiB and a quarter, and others may stand before
/// this in the same one.
const SPAWN_BYTES_MAX: usize = (1 << 20) + (128 << 10);

/// Why no tasks were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// The hub does not take these tasks, and would not if they were sent again.
    Refused {
        /// One of the hub's codes, such as `invalid_field`.
        code: String,
        /// The field that is wrong, where one is, such as `tasks[3].queue`.
        field: Option<String>,
        detail: String,
    },
    /// The attempt is over, or is not this worker's any more.
    Over,
}

impl SpawnError {
    /// What a refusal of the hub means. `None`: nothing is wrong with the tasks, and they are to be sent again.
    pub(crate) fn of(says: &HubSays) -> Option<SpawnError> {
        let (code, detail) = (says.code.clone().unwrap_or_default(), says.detail.clone().unwrap_or_default());
        match code.as_str() {
            "overloaded" | "storage_unavailable" | "draining" => None,
            code if is_over(code) => Some(SpawnError::Over),
            _ => Some(SpawnError::Refused { code, field: says.field.clone(), detail }),
        }
    }

    pub(crate) fn invalid(detail: String) -> SpawnError {
        SpawnError::Refused { code: "invalid_field".into(), field: Some("tasks".into()), detail }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Refused { code, detail, .. } => write!(f, "the hub refused the tasks: {detail} ({code})"),
            SpawnError::Over => f.write_str("the attempt is over: it adds no tasks any more"),
        }
    }
}

impl std::error::Error for SpawnError {}

/// What becomes of a call.
pub(crate) type Spawned = Result<Vec<TaskId>, SpawnError>;

/// The calls of one attempt that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Spawns {
    last_id: u64,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    spawn: Spawn,
    sent: bool,
    answer: oneshot::Sender<Spawned>,
}

/// A call as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Spawn {
    /// Counted from 1 in each attempt.
    pub(crate) id: u64,
    pub(crate) key: String,
    /// The list of tasks, with line breaks as they stand in payloads.
    pub(crate) tasks: Json,
}

/// Tasks as they are sent.
pub(crate) fn text_of(tasks: &[NewTask]) -> Result<Json, SpawnError> {
    let text = serde_json::to_vec(tasks).map_err(|why| SpawnError::invalid(format!("tasks {why}")))?;
    if text.len() > SPAWN_BYTES_MAX {
        let detail = format!("tasks must be at most {SPAWN_BYTES_MAX} bytes of JSON text in one call");
        return Err(SpawnError::Refused { code: "payload_too_large".into(), field: Some("tasks".into()), detail });
    }
    Ok(Json::trusted(text))
}

impl Spawns {
    /// A new call.
    pub(crate) fn add(&mut self, key: String, tasks: Json) -> oneshot::Receiver<Spawned> {
        let (answer, answered) = oneshot::channel();
        self.last_id += 1;
        let spawn = Spawn { id: self.last_id, key, tasks };
        self.waiting.insert(self.last_id, Waiting { spawn, sent: false, answer });
        answered
    }

    /// The calls that are to be sent, in their order. They count as sent.
    pub(crate) fn take_unsent(&mut self) -> Vec<Spawn> {
        self.waiting.retain(|_, waiting| waiting.sent || !waiting.answer.is_closed());
        let unsent = self.waiting.values_mut().filter(|waiting| !waiting.sent);
        unsent
            .map(|waiting| {
                waiting.sent = true;
                waiting.spawn.clone()
            })
            .collect()
    }

    /// The connection is gone, and so may be what was sent.
    pub(crate) fn send_all_again(&mut self) {
        self.waiting.values_mut().for_each(|waiting| waiting.sent = false);
    }

    /// The hub had no room for this one just now.
    pub(crate) fn send_again(&mut self, id: u64) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.sent = false;
        }
    }

    pub(crate) fn answer(&mut self, id: u64, spawned: Spawned) {
        if let Some(waiting) = self.waiting.remove(&id) {
            let _ = waiting.answer.send(spawned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_sent_until_it_is_answered() {
        let mut spawns = Spawns::default();
        let mut one = spawns.add("k1".into(), Json::trusted("[1]"));
        let two = spawns.add("k2".into(), Json::trusted("[2]"));
        let ids = |spawns: &mut Spawns| spawns.take_unsent().iter().map(|spawn| spawn.id).collect::<Vec<_>>();
        assert_eq!(ids(&mut spawns), [1, 2]);
        assert_eq!(ids(&mut spawns), [0; 0]);
        spawns.send_again(2);
        assert_eq!(ids(&mut spawns), [2]);
        spawns.answer(1, Ok(vec![]));
        spawns.answer(1, Err(SpawnError::Over));
        assert_eq!(one.try_recv(), Ok(Ok(vec![])));
        let three = spawns.add("k3".into(), Json::trusted("[3]"));
        // Whoever waited for it has gone: the one that was sent is answered to nobody, the other is never sent.
        drop((two, three));
        spawns.send_all_again();
        assert_eq!(ids(&mut spawns), [0; 0]);
    }

    #[test]
    fn what_no_message_holds_is_refused_here() {
        let task = |bytes: usize| NewTask::new("t").payload(&"x".repeat(bytes)).unwrap();
        assert!(text_of(&[task(1 << 20)]).is_ok());
        let SpawnError::Refused { code, .. } = text_of(&[task(1 << 20), task(1 << 20)]).unwrap_err() else { panic!() };
        assert_eq!(code, "payload_too_large");
        // A payload is kept byte for byte.
        let lines = NewTask { payload: Some(Json::parse_verbatim("[1,\n2]").unwrap()), ..NewTask::new("t") };
        assert!(text_of(&[lines]).unwrap().as_str().contains("[1,\n2]"));
    }
}
