//! The states of a task, the steps between them, and the names those steps carry on the wire.

use serde::{Deserialize, Serialize};

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// For the tasks it depends on.
    Waiting = 0,
    /// For its time: `run_at`, or the next try.
    Scheduled = 1,
    /// Ready for a worker.
    Pending = 2,
    /// Leased to one attempt of one worker.
    Running = 3,
    Completed = 4,
    Failed = 5,
    Cancelled = 6,
}

impl Status {
    /// Every status, in the order of a task's life.
    pub const ALL: [Status; 7] = [
        Status::Waiting,
        Status::Scheduled,
        Status::Pending,
        Status::Running,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];

    /// Nothing follows a final status but a retry by hand, or deletion.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// The table of transitions: whether `next` may follow `self`.
    ///
    /// `running → running` is a lease confirmed: after a restart of the hub, or when its worker came back; or something that is
    /// known of the attempt: that it is asked to stop, what it has uploaded. What waits and
    /// goes on waiting was changed by hand.
    /// A final status is left only by hand (`failed`/`cancelled → pending`, or `→ waiting` for what is run again before it).
    pub fn may_become(self, next: Status) -> bool {
        use Status::*;
        match self {
            // Failed: its time is over, nobody is there to run it, or something that it depends on failed.
            Waiting => matches!(next, Waiting | Scheduled | Pending | Failed | Cancelled),
            Scheduled => matches!(next, Scheduled | Pending | Failed | Cancelled),
            Pending => matches!(next, Scheduled | Pending | Running | Failed | Cancelled),
            Running => matches!(next, Running | Completed | Failed | Scheduled | Pending | Cancelled),
            Failed | Cancelled => matches!(next, Waiting | Pending),
            Completed => false,
        }
    }

    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Waiting => "waiting",
            Status::Scheduled => "scheduled",
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// The status that [`as_str`](Self::as_str) names, if any.
    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// The status with this discriminant, as stored.
    pub fn from_code(code: u8) -> Option<Status> {
        Status::ALL.get(code as usize).copied()
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a transition is called in events and in a task's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    #[serde(rename = "task.created")]
    Created,
    #[serde(rename = "task.scheduled")]
    Scheduled,
    #[serde(rename = "task.pending")]
    Pending,
    #[serde(rename = "task.running")]
    Running,
    #[serde(rename = "task.completed")]
    Completed,
    #[serde(rename = "task.failed")]
    Failed,
    #[serde(rename = "task.cancelled")]
    Cancelled,
    /// A try failed and another follows; or the task was retried by hand.
    #[serde(rename = "task.retrying")]
    Retrying,
    /// A running task was asked to stop.
    #[serde(rename = "task.cancel_requested")]
    CancelRequested,
    /// Somebody changed a task that waits, or the attempt of a running one has uploaded its result.
    #[serde(rename = "task.updated")]
    Updated,
}

impl Event {
    /// Every event, in the order of their discriminants.
    pub const ALL: [Event; 10] = [
        Event::Created,
        Event::Scheduled,
        Event::Pending,
        Event::Running,
        Event::Completed,
        Event::Failed,
        Event::Cancelled,
        Event::Retrying,
        Event::CancelRequested,
        Event::Updated,
    ];

    /// The event of a record that is sent for its state, not for the step that led there.
    pub fn of(status: Status) -> Event {
        match status {
            Status::Waiting => Event::Created,
            Status::Scheduled => Event::Scheduled,
            Status::Pending => Event::Pending,
            Status::Running => Event::Running,
            Status::Completed => Event::Completed,
            Status::Failed => Event::Failed,
            Status::Cancelled => Event::Cancelled,
        }
    }

    /// The event with this discriminant, as stored.
    pub fn from_code(code: u8) -> Option<Event> {
        Event::ALL.get(code as usize).copied()
    }

    /// The event that [`as_str`](Self::as_str) names, if any.
    pub fn parse(name: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Created => "task.created",
            Event::Scheduled => "task.scheduled",
            Event::Pending => "task.pending",
            Event::Running => "task.running",
            Event::Completed => "task.completed",
            Event::Failed => "task.failed",
            Event::Cancelled => "task.cancelled",
            Event::Retrying => "task.retrying",
            Event::CancelRequested => "task.cancel_requested",
            Event::Updated => "task.updated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_codes_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(Status::from_code(status as u8), Some(status));
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
        assert_eq!(Status::from_code(7), None);
    }

    #[test]
    fn final_states_are_left_only_by_hand() {
        for from in Status::ALL.into_iter().filter(|s| s.is_final()) {
            let next: Vec<_> = Status::ALL.into_iter().filter(|to| from.may_become(*to)).collect();
            let expected: &[Status] = if from == Status::Completed { &[] } else { &[Status::Waiting, Status::Pending] };
            assert_eq!(next, expected, "from {from}");
        }
    }
}
