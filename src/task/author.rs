//! Who made a task with callbacks, or a schedule, as far as it matters later: so that it can be told whether they are still let in.
//!
//! It stands in records that others see, so it names nobody: it is a digest, by which only those who know all that it could be
//! find out which it is. What is kept about access is enough for that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Timestamp;

/// Who made something, and acts by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Author {
    /// The API token that this is the digest of.
    Token(u64),
    /// The subject of an issuer, whose token was issued then. They are the same with each token that follows it.
    Subject { subject: u64, issued_at: Timestamp },
}

/// Why an author is one no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorEnd {
    #[serde(rename = "token_revoked")]
    Revoked,
    #[serde(rename = "token_expired")]
    Expired,
}

impl Author {
    /// An API token, by the text that is kept in its place.
    pub fn token(digest: &str) -> Author {
        Author::Token(print(&["token", digest]))
    }

    /// The subject of an issuer, as its tokens name it.
    pub fn subject(issuer: &str, subject: &str, issued_at: Timestamp) -> Author {
        Author::Subject { subject: Author::subject_print(issuer, subject), issued_at }
    }

    /// By which a subject is known.
    pub fn subject_print(issuer: &str, subject: &str) -> u64 {
        print(&["subject", issuer, subject])
    }
}

fn print(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    u64::from_be_bytes(hash.finalize()[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

impl AuthorEnd {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorEnd::Revoked => "token_revoked",
            AuthorEnd::Expired => "token_expired",
        }
    }

    /// What has become of the token of who made it, for people.
    pub fn words(self) -> &'static str {
        match self {
            AuthorEnd::Revoked => "was revoked",
            AuthorEnd::Expired => "has expired",
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Author::Token(print) => write!(f, "t.{print:016x}"),
            Author::Subject { subject, issued_at } => write!(f, "s.{subject:016x}.{}", issued_at.as_millis()),
        }
    }
}

impl From<Author> for String {
    fn from(author: Author) -> String {
        author.to_string()
    }
}

impl FromStr for Author {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Author, &'static str> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut parts = text.split('.');
        let read = match (parts.next(), parts.next(), parts.next()) {
            (Some("t"), Some(print), None) => hex(print).map(Author::Token),
            (Some("s"), Some(subject), Some(ms)) => hex(subject).zip(ms.parse().ok()).map(|(subject, ms)| {
                let issued_at = Timestamp::from_millis(ms);
                Author::Subject { subject, issued_at }
            }),
            _ => None,
        };
        read.ok_or("is no author")
    }
}

impl TryFrom<String> for Author {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Author, &'static str> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_read_as_it_was_written_and_names_nobody() {
        let subject = Author::subject("https://login.example", "ann", Timestamp::from_millis(1_790_000_000_123));
        for author in [Author::token("0123abcd"), subject] {
            let text = serde_json::to_string(&author).unwrap();
            assert!(!text.contains("ann") && !text.contains("0123abcd"), "{text}");
            assert_eq!(serde_json::from_str::<Author>(&text).unwrap(), author);
        }
        assert_ne!(Author::subject_print("a", "bc"), Author::subject_print("ab", "c"));
        for wrong in ["", "t", "t.x", "s.0", "s.0.y", "u.0"] {
            assert!(wrong.parse::<Author>().is_err(), "{wrong}");
        }
    }
}
