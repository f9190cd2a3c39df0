//! Why a call has no answer.

use std::fmt;

use crate::dial::{BadUrl, NoToken};
use crate::wire::Problem;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientError {
    /// The address is none; nothing was sent.
    Address(BadUrl),
    /// There is no token to call with; nothing was sent.
    Token(NoToken),
    /// The hub could not be reached, or the connection broke before its answer came. Whether the call took effect is
    /// not known: submit again with the same idempotency key.
    Unreachable { url: String, why: String },
    /// The hub said no.
    Refused(Box<Problem>),
    /// What answered does not speak as the contract says: another version, or no hub at all.
    Protocol { url: String, why: String },
}

impl ClientError {
    /// The problem, where the hub said no.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Address(bad) => bad.fmt(f),
            ClientError::Token(why) => why.fmt(f),
            ClientError::Unreachable { url, why } => write!(f, "the hub at {url} cannot be reached: {why}"),
            ClientError::Refused(problem) => write!(f, "the hub refused: {}", problem.detail),
            ClientError::Protocol { url, why } => write!(f, "what answers at {url} is not a hub we know: {why}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<BadUrl> for ClientError {
    fn from(bad: BadUrl) -> ClientError {
        ClientError::Address(bad)
    }
}
