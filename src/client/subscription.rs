//! What a live client watches, and how far it has come with it.

use std::collections::{BTreeSet, HashMap};

use crate::task::{FilterSpec, TaskId};
use crate::wire::{LiveOp, LogsSpec, Since, SnapshotSpec};

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    pub filter: FilterSpec,
    /// How much of what exists is told first.
    pub snapshot: Option<SnapshotSpec>,
    /// At most this many progress reports a second of a task.
    pub max_hz: Option<f64>,
    /// Log lines too; the filter must name its tasks.
    pub logs: Option<LogsSpec>,
    /// Not tasks, but the hub's counts and rates, about once a second. Goes alone.
    pub stats: bool,
}

/// A subscription of one [`Follower`](super::Follower).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubId(u64);

impl SubId {
    pub(super) fn of(number: u64) -> SubId {
        SubId(number)
    }

    /// What it is called when speaking with the hub.
    pub(super) fn name(self) -> String {
        format!("s{}", self.0)
    }

    /// The subscription of that name; one that never was for a name that is not ours.
    pub(super) fn named(name: &str) -> SubId {
        SubId(name.strip_prefix('s').and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}

/// A subscription as the follower keeps it.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) request: Subscribe,
    /// The id of its newest request.
    pub(super) asked: Option<u64>,
    /// It was asked for, and no mark has come since: what was missed may be long.
    pub(super) catching_up: bool,
    /// When it asks again, after a refusal that meant "not now".
    pub(super) again_at: Option<u64>,
    /// Where it can resume: a `rev`, under the name that the history had when it was heard.
    pub(super) mark: Option<Since>,
    pub(super) members: BTreeSet<TaskId>,
    /// The snapshot that is coming in.
    pub(super) fresh: Option<BTreeSet<TaskId>>,
    /// `subscribed` has been heard on this socket.
    pub(super) live: bool,
    /// The newest log line told of each task.
    pub(super) seqs: HashMap<TaskId, u64>,
}

impl Subscription {
    /// How it is asked for: with a snapshot, or from its mark.
    pub(super) fn op(&self, sub: SubId) -> LiveOp {
        let request = &self.request;
        let since = self.mark.clone();
        LiveOp {
            op: "subscribe".into(),
            sub: Some(sub.name()),
            filter: (!request.stats).then(|| request.filter.clone()),
            snapshot: request.snapshot.filter(|_| since.is_none()),
            since,
            max_hz: request.max_hz,
            logs: request.logs,
            stats: request.stats.then_some(true),
            ..LiveOp::default()
        }
    }

    /// Where it could resume is no place any more; a snapshot follows.
    pub(super) fn void(&mut self) {
        self.mark = None;
        self.fresh = Some(BTreeSet::new());
    }

    pub(super) fn holds(&self, task_id: &TaskId) -> bool {
        self.members.contains(task_id) || self.fresh.as_ref().is_some_and(|fresh| fresh.contains(task_id))
    }
}
