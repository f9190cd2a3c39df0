//! Who may do what: looking at it, and changing it, for those who may.

use std::collections::BTreeMap;

use crate::access::{AccessChange, AccessRecord, ApiToken, AuditRow, Right};
use crate::engine::QueueInUse;
use crate::store::{AuditPage, AuditQuery};
use crate::task::Name;
use crate::wire::{InUseView, MeView};

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

    /// The caller; with what their user may have at once, and how much of it is in use, where they see all tasks of that user.
    pub async fn me(&self) -> Result<MeView, HubError> {
        let who = &self.who;
        let mut me = MeView {
            role: who.role,
            user_id: who.user_id.clone(),
            rights: who.rights.list().map(|right| right.word().to_owned()).collect(),
            token: who.credential.to_string(),
            expires_at: who.expires_at,
            hidden: who.hidden.words(),
            limits: None,
            in_use: None,
            queues: BTreeMap::new(),
        };
        let Some(user) = who.user_id.as_ref().filter(|_| self.sees_all() || who.sees_its_user()) else { return Ok(me) };
        let limits = self.hub.limits().of(user.as_str());
        me.queues = self.hub.limited_queues();
        let in_use = self.hub.in_use(user.clone(), me.queues.keys().cloned().collect()).await?;
        me.in_use = Some(InUseView {
            running: limits.running.map(|_| in_use.running),
            waiting: limits.waiting.map(|_| in_use.waiting),
            submits: limits.submits_per_min.map(|_| in_use.submitted),
        });
        for (queue, QueueInUse { running, handed_out }) in me.queues.values_mut().zip(in_use.queues) {
            queue.running = queue.user_concurrency.map(|_| running);
            queue.handed_out = queue.rate.map(|_| handed_out);
        }
        me.limits = Some(limits);
        Ok(me)
    }
}
