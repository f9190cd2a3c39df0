//! What somebody did, or was not let do, as it is kept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Principal, Role};
use crate::task::{Name, Timestamp};

/// What somebody did, or was not let do. Nothing of what tasks hold is in it: no payload, and no title.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The user, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Name>,
    pub role: Role,
    /// By which credential: `api:NAME`, `jwt:ISSUER`, `scoped:JTI`, `none`; `owner` for whoever may write to the hub's folder.
    pub token: String,
    /// From where, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// In words of the contract: `submit`, `cancel`, `queue.set`, `api_token.create`.
    pub action: String,
    /// The task, token or setting; of a call on many, how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `ok`, or the code of the problem.
    pub outcome: String,
}

/// The same, as it was written down: numbered without holes, at times that never go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub seq: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub row: AuditRow,
}

impl AuditRow {
    /// The outcome of what was done.
    pub const OK: &'static str = "ok";

    /// What this caller does, or was not let do, from this address.
    pub fn of(
        who: &Principal,
        address: Option<IpAddr>,
        action: &str,
        target: Option<String>,
        outcome: &str,
    ) -> AuditRow {
        AuditRow {
            who: who.user_id.clone(),
            role: who.role,
            token: who.credential.to_string(),
            address,
            action: action.to_owned(),
            target,
            outcome: outcome.to_owned(),
        }
    }

    /// Cuts texts that come from outside to this many bytes each.
    pub fn clip(&mut self, bytes_max: usize) {
        for text in [&mut self.token, &mut self.action, &mut self.outcome].into_iter().chain(&mut self.target) {
            let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
        }
    }
}
