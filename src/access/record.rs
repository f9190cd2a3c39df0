//! What a hub keeps about access, as records: one for each API token, signing key and revocation.
//!
//! Of an API token its digest is kept, so its text is nowhere. The hub's own signing keys are kept as they are, because it needs them:
//! whoever reads a copy of the database can sign scoped tokens, so database and backups are for their owner alone.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::task::{Name, Timestamp};

/// A record of what is kept about access. It is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AccessRecord {
    /// The hub is closed, since then: it serves those that it knows. Never taken back by itself.
    Closed {
        since: Timestamp,
    },
    ApiToken(ApiToken),
    SigningKey(SigningKey),
    Revocation(Revocation),
}

/// By what a record is found. There is one record of each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AccessKey {
    Closed,
    ApiToken {
        name: Name,
    },
    SigningKey {
        kid: String,
    },
    /// One scoped token.
    Scoped {
        jti: String,
    },
    /// What one subject of an issuer was given.
    Subject {
        issuer: String,
        subject: String,
    },
}

/// A step: a record that is there from now on, or gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessChange {
    Put(AccessRecord),
    Remove(AccessKey),
}

/// An API token, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    pub name: Name,
    /// SHA-256 of the token's text, in hexadecimal.
    pub digest: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Name>,
    /// Of a worker: the task types it takes, names or beginnings of names with a trailing `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_types: Option<Vec<String>>,
    /// Of a worker: the queues it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A key that the hub signs scoped tokens with: Ed25519.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    pub kid: String,
    /// The seed, 32 bytes in hexadecimal.
    pub seed: String,
    pub created_at: Timestamp,
}

/// What was signed and holds no longer. Forgotten once nothing that it means can be in force any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub what: Revoked,
    /// When it may be forgotten.
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// One scoped token.
    Scoped { jti: String },
    /// Every token that this issuer gave this subject before that time.
    Subject { issuer: String, subject: String, before: Timestamp },
}

#[cfg(test)]
impl ApiToken {
    /// One of an admin, for tests of what is kept.
    pub(crate) fn sample(name: &str) -> ApiToken {
        ApiToken {
            name: Name::new(name),
            digest: "0".repeat(64),
            role: Role::Admin,
            user_id: None,
            task_types: None,
            queues: None,
            created_at: Timestamp::from_millis(1),
            expires_at: None,
        }
    }
}

impl AccessRecord {
    /// By what it is found.
    pub fn key(&self) -> AccessKey {
        match self {
            AccessRecord::Closed { .. } => AccessKey::Closed,
            AccessRecord::ApiToken(token) => AccessKey::ApiToken { name: token.name.clone() },
            AccessRecord::SigningKey(key) => AccessKey::SigningKey { kid: key.kid.clone() },
            AccessRecord::Revocation(revocation) => match &revocation.what {
                Revoked::Scoped { jti } => AccessKey::Scoped { jti: jti.clone() },
                Revoked::Subject { issuer, subject, .. } => {
                    AccessKey::Subject { issuer: issuer.clone(), subject: subject.clone() }
                }
            },
        }
    }
}

/// Without the seed: this is printed where things go wrong.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}
