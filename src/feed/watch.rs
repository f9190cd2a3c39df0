//! Waiting for one task to change: no subscription, no outbox, no messages. A counter that moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;

use crate::task::TaskId;

/// The futures that wait for one task, by task.
#[derive(Default)]
pub(super) struct Watches {
    revs: DashMap<TaskId, watch::Sender<u64>>,
    /// How many watches there are, so that without any a transition costs nothing.
    len: AtomicUsize,
}

impl Watches {
    pub fn watch(self: &Arc<Watches>, task_id: TaskId) -> Watch {
        self.len.fetch_add(1, Ordering::AcqRel);
        let rev = self.revs.entry(task_id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Watch { task_id, rev, watches: self.clone() }
    }

    pub fn notify(&self, task_id: TaskId, rev: u64) {
        if self.len.load(Ordering::Acquire) > 0
            && let Some(sender) = self.revs.get(&task_id)
        {
            sender.send_replace(rev);
        }
    }
}

impl Watches {
    /// The shard that notifies failed: all watches are to look again.
    pub fn notify_all(&self) {
        self.revs.iter().for_each(|sender| sender.send_modify(|_| ()));
    }
}

/// Waits for the transitions of one task. Watch first, look at the task second: then no change falls between them.
pub struct Watch {
    task_id: TaskId,
    rev: watch::Receiver<u64>,
    watches: Arc<Watches>,
}

impl Watch {
    /// Resolves when the task had a transition (or was deleted) since the last call, or since the watch was made. May be
    /// dropped and called again.
    pub async fn changed(&mut self) {
        self.rev.changed().await.expect("the sender stays while there is a receiver");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Under the lock of the entry no other watch can be made, and this receiver still counts.
        self.watches.revs.remove_if(&self.task_id, |_, sender| sender.receiver_count() <= 1);
        self.watches.len.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::sample::id;
    use super::*;

    #[test]
    fn a_watch_hears_of_its_task_and_leaves_nothing() {
        let watches = Arc::new(Watches::default());
        let (mut a, mut b) = (watches.watch(id(1)), watches.watch(id(1)));
        assert!(a.changed().now_or_never().is_none());
        watches.notify(id(2), 5);
        assert!(a.changed().now_or_never().is_none());
        watches.notify(id(1), 6);
        assert!(a.changed().now_or_never().is_some() && b.changed().now_or_never().is_some());
        assert!(a.changed().now_or_never().is_none());
        drop(a);
        watches.notify(id(1), 7);
        assert!(b.changed().now_or_never().is_some());
        drop(b);
        assert!(watches.revs.is_empty() && watches.len.load(Ordering::Relaxed) == 0);
    }
}
