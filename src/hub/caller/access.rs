//! Who may do what: looking at it, and changing it, for those who may.

use crate::access::{AccessChange, AccessRecord, ApiToken, AuditRow, Right};
use crate::settings::UserLimits;
use crate::store::{AuditPage, AuditQuery};
use crate::task::Name;

use super::super::HubError;
use super::super::ledger::AccessError;
use super::{Actor, CallerHub};

impl CallerHub {
    /// The API tokens, by name, after this one.
    pub fn api_tokens(&self, after: Option<&Name>) -> Result<Vec<ApiToken>, HubError> {
        let records = self.whole(Right::Administer)?.access_records();
        let tokens = records.into_iter().filter_map(|record| match record {
            AccessRecord::ApiToken(token) => Some(token),
            _ => None,
        });
        Ok(tokens.filter(|token| after.is_none_or(|after| token.name > *after)).collect())
    }

    /// Takes these steps, all or none, and writes down who did. The caller's right to them was looked at by who made them.
    pub async fn change_access(
        &self,
        changes: Vec<AccessChange>,
        action: &str,
        target: Option<String>,
    ) -> Result<(), AccessError> {
        // Also on an open hub: the first token closes it.
        let actor = Actor { who: self.who.clone(), address: self.address };
        self.hub.change_access(changes, Some(actor.row(action, target, AuditRow::OK))).await
    }

    /// A page of the audit, the newest first.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, HubError> {
        self.whole(Right::Administer)?.audit(query).await
    }

    /// What the caller's user may have at once.
    pub fn own_limits(&self) -> Option<UserLimits> {
        let user_id = self.who.user_id.as_ref()?;
        Some(self.hub.limits().of(user_id.as_str()))
    }
}
