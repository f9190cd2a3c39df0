//! How much of what a user may have at once is in use, asked for one user at a time.
//!
//! Nothing is kept for it: limits and quotas count what they limit anyway, and what nothing limits is not counted.

use crate::task::Name;

use super::Now;
use super::core::Engine;
use super::lanes::Lanes;
use super::limits::LimitId;

/// What a user has of what is limited; each number is of now, and 0 where nothing limits it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Tasks that run, over all queues.
    pub running: u32,
    /// Unfinished tasks that do not.
    pub waiting: u32,
    /// Tasks that were submitted within the last minute.
    pub submitted: u32,
    /// In each of the queues that were asked for.
    pub queues: Vec<QueueInUse>,
}

/// The same in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueInUse {
    pub running: u32,
    /// Within the time of the queue's rate.
    pub handed_out: u32,
}

impl Engine {
    pub(super) fn in_use(&self, user: &Name, queues: &[Name], now: Now) -> InUse {
        InUse {
            running: self.lanes.running_of(&LimitId::User(user.clone())),
            waiting: self.quotas.waiting_of(user),
            submitted: self.quotas.submitted_by(user, now),
            queues: queues.iter().map(|queue| self.lanes.in_use(user, queue)).collect(),
        }
    }
}

impl Lanes {
    fn in_use(&self, user: &Name, queue: &Name) -> QueueInUse {
        let Some(&id) = self.queue_ids.get(queue) else { return QueueInUse::default() };
        QueueInUse {
            running: self.running_of(&LimitId::QueueUser(id, user.clone())),
            handed_out: self.running_of(&LimitId::RateUser(id, user.clone())),
        }
    }

    fn running_of(&self, limit: &LimitId) -> u32 {
        self.limits.running(limit)
    }
}
