//! Payloads of tasks that were submitted lately, so that handing them out needs no read.

use std::collections::{HashMap, VecDeque};

use crate::task::{IdHasher, Json, TaskId};

/// Bytes of payloads kept. A task whose payload is not here is read from the store when it is handed out.
const BYTES_MAX: usize = 2 << 20;
/// What an entry costs beside its payload.
const ENTRY_BYTES: usize = 96;

/// The newest payloads, oldest forgotten first.
#[derive(Default)]
pub(super) struct Payloads {
    entries: HashMap<TaskId, Option<Json>, IdHasher>,
    order: VecDeque<TaskId>,
    bytes: usize,
}

impl Payloads {
    /// Keeps what a new task came with; `None` is worth knowing too.
    pub(super) fn insert(&mut self, task_id: TaskId, payload: Option<Json>) {
        self.bytes += cost(&payload);
        self.entries.insert(task_id, payload);
        self.order.push_back(task_id);
        while self.bytes > BYTES_MAX || self.order.len() > 2 * self.entries.len() + 64 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.take(oldest);
        }
    }

    /// The payload, if it is known; it is needed only once.
    pub(super) fn take(&mut self, task_id: TaskId) -> Option<Option<Json>> {
        let payload = self.entries.remove(&task_id)?;
        self.bytes -= cost(&payload);
        Some(payload)
    }
}

fn cost(payload: &Option<Json>) -> usize {
    ENTRY_BYTES + payload.as_ref().map_or(0, Json::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{IdSource, Timestamp};

    #[test]
    fn stays_within_its_bytes_and_forgets_the_oldest() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut ids = IdSource::default();
        let mut payloads = Payloads::default();
        let all: Vec<_> = (0..40).map(|_| ids.next(Timestamp::from_millis(1), &mut random)).collect();
        for id in &all {
            payloads.insert(*id, Some(Json::trusted(vec![b'1'; 1 << 20])));
        }
        assert!(payloads.bytes <= BYTES_MAX);
        assert_eq!(payloads.take(all[0]), None);
        assert!(payloads.take(all[39]).is_some());
        assert_eq!(payloads.take(all[39]), None);
    }

    #[test]
    fn taking_leaves_no_growing_trail() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut ids = IdSource::default();
        let mut payloads = Payloads::default();
        for _ in 0..10_000 {
            let id = ids.next(Timestamp::from_millis(1), &mut random);
            payloads.insert(id, None);
            payloads.take(id);
        }
        assert!(payloads.order.len() <= 130);
        assert_eq!(payloads.bytes, 0);
    }
}
