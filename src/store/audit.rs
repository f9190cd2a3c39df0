//! Reading the audit.

use crate::access::{AuditEntry, Role};
use crate::task::{Name, Timestamp};

/// Which entries, from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    pub who: Option<Name>,
    pub role: Option<Role>,
    pub token: Option<String>,
    pub action: Option<String>,
    pub target: Option<String>,
    pub outcome: Option<String>,
    /// At this time or later.
    pub after: Option<Timestamp>,
    /// Before this time.
    pub before: Option<Timestamp>,
    /// Only those below this number.
    pub beyond: Option<u64>,
    pub limit: usize,
}

impl AuditQuery {
    /// Whether an entry is meant.
    pub(super) fn matches(&self, AuditEntry { seq, at, row }: &AuditEntry) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        self.beyond.is_none_or(|beyond| *seq < beyond)
            && self.after.is_none_or(|after| *at >= after)
            && self.before.is_none_or(|before| *at < before)
            && self.who.as_ref().is_none_or(|who| row.who.as_ref() == Some(who))
            && self.role.is_none_or(|role| row.role == role)
            && self.target.as_ref().is_none_or(|target| row.target.as_ref() == Some(target))
            && is(&self.token, &row.token)
            && is(&self.action, &row.action)
            && is(&self.outcome, &row.outcome)
    }
}

/// What was found, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    pub entries: Vec<AuditEntry>,
    /// Where the next page begins, where there may be more: a page of entries that are rare may be short, for so many others were
    /// looked at.
    pub beyond: Option<u64>,
}
