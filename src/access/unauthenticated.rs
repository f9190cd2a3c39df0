//! Why a credential lets nobody in.

use std::borrow::Cow;
use std::fmt;

/// Why a credential lets nobody in. Its text is for the caller, and says of what the hub knows only what a caller may hear who
/// was let in by nothing: reasons within a token are told once its signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// It is no credential; why.
    Malformed(&'static str),
    /// The hub does not know it: it never was one, or was removed.
    Unknown,
    /// It is not signed by the one who it says it is from, or by a key that is no longer theirs.
    Signature,
    NotYet,
    Expired,
    Revoked,
    /// It is signed right, and what it says is not taken; why.
    Claims(Cow<'static, str>),
    /// The keys of its issuer cannot be fetched. It may be right.
    Unavailable,
}

impl Unauthenticated {
    pub const WORDS: [&str; 8] =
        ["malformed", "unknown", "signature", "not_yet", "expired", "revoked", "claims", "unavailable"];

    /// Its place in [`WORDS`](Self::WORDS).
    pub fn index(&self) -> usize {
        match self {
            Unauthenticated::Malformed(_) => 0,
            Unauthenticated::Unknown => 1,
            Unauthenticated::Signature => 2,
            Unauthenticated::NotYet => 3,
            Unauthenticated::Expired => 4,
            Unauthenticated::Revoked => 5,
            Unauthenticated::Claims(_) => 6,
            Unauthenticated::Unavailable => 7,
        }
    }

    /// The word of the metrics.
    pub fn word(&self) -> &'static str {
        Unauthenticated::WORDS[self.index()]
    }

    /// Whether it may have been made up: then it counts as a guess. What was in force once, or is signed right, was not.
    pub fn is_guess(&self) -> bool {
        matches!(self, Unauthenticated::Malformed(_) | Unauthenticated::Unknown | Unauthenticated::Signature)
    }
}

/// To be read after "the token".
impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unauthenticated::Malformed(why) => write!(f, "cannot be read: {why}"),
            Unauthenticated::Unknown => f.write_str("is not known"),
            Unauthenticated::Signature => f.write_str("is not signed by a key that is known"),
            Unauthenticated::NotYet => f.write_str("is not in force yet"),
            Unauthenticated::Expired => f.write_str("has expired"),
            Unauthenticated::Revoked => f.write_str("was revoked"),
            Unauthenticated::Claims(why) => write!(f, "is not taken: {why}"),
            Unauthenticated::Unavailable => f.write_str("cannot be checked: the keys of its issuer cannot be fetched"),
        }
    }
}

impl std::error::Error for Unauthenticated {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_word() {
        let all = [
            Unauthenticated::Malformed("x"),
            Unauthenticated::Unknown,
            Unauthenticated::Signature,
            Unauthenticated::NotYet,
            Unauthenticated::Expired,
            Unauthenticated::Revoked,
            Unauthenticated::Claims("x".into()),
            Unauthenticated::Unavailable,
        ];
        assert!(all.iter().enumerate().all(|(at, reason)| reason.index() == at));
        assert_eq!(all.iter().filter(|reason| reason.is_guess()).count(), 3);
    }
}
