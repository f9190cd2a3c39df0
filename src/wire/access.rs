//! Tokens, the audit, and who somebody is, as they are shown and asked for.
//!
//! The body of `POST /tokens` and the answers to it and to `POST /tickets` are values of the keys themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access::{ApiToken, AuditEntry, NewApiToken, Role};
use crate::settings::{Rate, UserLimits};
use crate::task::{Name, Timestamp};

/// The most API tokens, or rows of the audit, in one answer.
pub const ACCESS_PAGE_LEN_MAX: usize = 500;

/// `POST /api-tokens`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTokenBody {
    /// By it the token is listed and revoked. Made up where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Of a worker: the types it takes, names or beginnings of names with a trailing `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_types: Option<Vec<String>>,
    /// Of a worker: the queues it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// In place of `expires_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl ApiTokenBody {
    /// What is to be made; or the field that is wrong, and why.
    pub fn read(self, now: Timestamp) -> Result<NewApiToken, (&'static str, &'static str)> {
        let expires_at = match (self.expires_at, self.ttl_ms) {
            (Some(_), Some(_)) => return Err(("ttl_ms", "has no place beside expires_at")),
            (_, Some(0)) => return Err(("ttl_ms", "must be at least 1")),
            (expires_at, None) => expires_at,
            (None, Some(ttl_ms)) => Some(now.plus_millis(ttl_ms)),
        };
        let name = self.name.unwrap_or_else(|| format!("{}-{:06x}", self.role, fastrand::u32(..1 << 24)));
        let ApiTokenBody { role, user_id, task_types, queues, .. } = self;
        Ok(NewApiToken { name, role, user_id, task_types, queues, expires_at })
    }
}

/// An API token, without anything that tells its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiTokenView {
    pub name: Name,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_types: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl From<ApiToken> for ApiTokenView {
    fn from(token: ApiToken) -> ApiTokenView {
        let ApiToken { name, digest: _, role, user_id, task_types, queues, created_at, expires_at } = token;
        ApiTokenView { name, role, user_id, task_types, queues, created_at, expires_at }
    }
}

/// The answer to `POST /api-tokens`: the only one that ever has the text.
#[derive(Clone, Serialize, Deserialize)]
pub struct ApiTokenMade {
    #[serde(flatten)]
    pub api_token: ApiTokenView,
    pub token: String,
}

/// Without the text.
impl std::fmt::Debug for ApiTokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiTokenMade").field("api_token", &self.api_token).finish_non_exhaustive()
    }
}

/// `GET /api-tokens`, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiTokenList {
    pub api_tokens: Vec<ApiTokenView>,
    /// Where there are more: what to ask with for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `POST /revocations`: what this issuer gave this subject is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationBody {
    pub iss: String,
    pub sub: String,
    /// What was given before this time. Now where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
}

/// `GET /audit`, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditList {
    pub rows: Vec<AuditEntry>,
    /// Where there are more: what to ask with for those. A page of rows that are rare may be short, or empty, and have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `GET /me`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MeView {
    pub role: Role,
    /// Whose tasks they submit. None: a program that acts for everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Name>,
    /// `see`, `watch`, `submit`, …
    pub rights: Vec<String>,
    /// By which credential, as the audit has it.
    pub token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Parts of tasks that are kept from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// What their user may have at once, over all queues. Absent, with what is below, for a caller who does not see all tasks of
    /// their user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<UserLimits>,
    /// How much of that is in use.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub in_use: Option<InUseView>,
    /// Queues that have limits for each user, at most [`ME_QUEUES_MAX`] of them, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queues: BTreeMap<Name, QueueInUseView>,
}

/// The most queues that `GET /me` tells of.
pub const ME_QUEUES_MAX: usize = 200;

/// What a user has of what they may have at once. What nothing limits is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUseView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// Within the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submits: Option<u32>,
}

/// What a queue allows each user, and how much of it is in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueInUseView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Within the time of the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_out: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> Result<ApiTokenBody, String> {
        crate::task::read_strictly(json.as_bytes()).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn a_token_is_asked_for_with_a_role_and_shown_without_its_digest() {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let new = body(r#"{"role":"worker","task_types":["a.*"],"ttl_ms":60000}"#).unwrap().read(now).unwrap();
        assert_eq!(new.expires_at, Some(now.plus_millis(60_000)));
        assert!(new.name.starts_with("worker-") && Name::parse(&new.name).is_ok(), "{}", new.name);
        let at = body(r#"{"role":"user","expires_at":"2026-12-01T00:00:00Z","ttl_ms":5}"#).unwrap();
        assert_eq!(at.read(now).unwrap_err().0, "ttl_ms");
        assert!(
            body(r#"{"role":"root"}"#).is_err() && body("{}").is_err() && body(r#"{"role":"user","rolle":1}"#).is_err()
        );

        let (token, text) = new.make(now).unwrap();
        let digest = token.digest.clone();
        let made = ApiTokenMade { api_token: token.into(), token: text.clone() };
        assert!(!format!("{made:?}").contains(&text));
        let json = serde_json::to_string(&made).unwrap();
        assert!(json.contains(&text) && !json.contains(&digest), "{json}");
    }

    #[test]
    fn a_row_of_the_audit_is_flat() {
        let row = r#"{"seq":7,"at":"2026-12-01T00:00:00.000Z","who":"ann","role":"user","token":"api:ann","address":"::1","action":"cancel","target":"x","outcome":"ok"}"#;
        let entry: AuditEntry = serde_json::from_str(row).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), row);
    }
}
