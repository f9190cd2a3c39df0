//! For whom a handle acts, where that is written down.
//!
//! What is done for somebody is a command, and what is written of it follows from the command: here, in one place, so that no
//! call can forget it. What workers say of their attempts is not written: the history of a task has it, with the worker.

use std::net::IpAddr;
use std::sync::Arc;

use crate::access::{AuditRow, Credential, Principal};
use crate::engine::Command;
use crate::task::Author;

/// A caller, and from where it calls.
pub(in super::super) struct Actor {
    pub(super) who: Arc<Principal>,
    pub(super) address: Option<IpAddr>,
}

impl Actor {
    #[cfg(test)]
    pub(in super::super) fn of(who: Arc<Principal>) -> Actor {
        Actor { who, address: None }
    }

    /// As whom it is known later, where that may end. Who has a scoped token acts for its maker.
    pub(in super::super) fn author(&self) -> Option<Author> {
        let credential = match &self.who.credential {
            Credential::Scoped(scoped) => &scoped.maker.credential,
            other => other,
        };
        match credential {
            Credential::ApiToken(token) => Some(Author::token(&token.digest)),
            Credential::Jwt(signed) => Some(Author::subject(&signed.issuer, &signed.subject, signed.issued_at)),
            Credential::None | Credential::Owner | Credential::Scoped(_) => None,
        }
    }

    /// The row of something that this caller does, or was not let do.
    pub(in super::super) fn row(&self, action: &str, target: Option<String>, outcome: &str) -> AuditRow {
        AuditRow::of(&self.who, self.address, action, target, outcome)
    }

    /// The row of a command, if it has one.
    pub(in super::super) fn row_of(&self, command: &Command) -> Option<Box<AuditRow>> {
        let (action, target) = noted(command)?;
        Some(Box::new(self.row(action, target, AuditRow::OK)))
    }
}

/// The word of a command, and what it is done to; where it is done to new tasks, the writer knows to which.
fn noted(command: &Command) -> Option<(&'static str, Option<String>)> {
    let of = |action, target: &dyn ToString| Some((action, Some(target.to_string())));
    match command {
        Command::Submit { .. } => Some(("submit", None)),
        Command::Cancel { task_id, .. } | Command::CancelWaiting { task_id, .. } => of("cancel", task_id),
        Command::Retry { task_id, .. } => of("retry", task_id),
        Command::Update { task_id, .. } => of("update", task_id),
        Command::Delete { task_id } => of("delete", task_id),
        Command::Expire { .. } => Some(("delete", None)),
        Command::SetQueue { name, .. } => of("queue.set", name),
        Command::UnsetQueue { name } => of("queue.unset", name),
        Command::PauseQueue { name, paused } => of(if *paused { "queue.pause" } else { "queue.resume" }, name),
        Command::SetLimits { .. } => Some(("limits.set", None)),
        Command::SetSchedule { name, .. } => of("schedule.set", name),
        Command::UnsetSchedule { name } => of("schedule.delete", name),
        Command::PauseSchedule { name, paused, .. } => {
            of(if *paused { "schedule.pause" } else { "schedule.resume" }, name)
        }
        Command::RunSchedule { name } => of("schedule.run", name),
        Command::SetTaskType { name, .. } => of("task_type.set", name),
        Command::UnsetTaskType { name } => of("task_type.delete", name),
        _ => None,
    }
}
