//! The texts of credentials, and the digest by which a secret one is found.
//!
//! What the hub makes up is a prefix, which says what it is to people and to programs that look for lost secrets, and 256 bits
//! of the system's randomness. Nothing compares such a secret: it is digested, and the digest is looked up. How long a lookup
//! takes tells something of digests that are there, and who could make up texts whose digests begin as they like has
//! broken SHA-256. For the same reason the digest needs no salt, and may be kept.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The longest credential in any form: 8 KiB, what servers commonly take as one header.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The longest that is offered as a subprotocol of a socket.
pub const SUBPROTOCOL_TOKEN_BYTES_MAX: usize = 4 << 10;

const API_PREFIX: &str = "tht_";
pub(super) const SCOPED_PREFIX: &str = "ths_";
const TICKET_PREFIX: &str = "thk_";
const SECRET_BYTES: usize = 32;
/// Those bytes in base64, without padding.
const SECRET_CHARS: usize = 43;

/// What a text looks to be, before it is known whether it is anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind<'a> {
    Api,
    /// With what stands behind its prefix: a JWT of the hub.
    Scoped(&'a str),
    Jwt,
}

impl<'a> TokenKind<'a> {
    /// `None`: none of them, whatever is known.
    pub fn of(text: &'a str) -> Option<TokenKind<'a>> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        if let Some(secret) = text.strip_prefix(API_PREFIX) {
            return is_secret(secret).then_some(TokenKind::Api);
        }
        if let Some(jwt) = text.strip_prefix(SCOPED_PREFIX) {
            return Some(TokenKind::Scoped(jwt));
        }
        // Three parts; what else makes a JWT is looked at when it is read.
        (text.bytes().filter(|byte| *byte == b'.').count() == 2).then_some(TokenKind::Jwt)
    }
}

/// Whether this could be a ticket.
pub fn is_ticket(text: &str) -> bool {
    text.strip_prefix(TICKET_PREFIX).is_some_and(is_secret)
}

fn is_secret(text: &str) -> bool {
    text.len() == SECRET_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A new API token. Fails where the system has no randomness.
pub(super) fn new_api_token() -> io::Result<String> {
    new_secret(API_PREFIX)
}

/// A new ticket. Fails where the system has no randomness.
pub fn new_ticket() -> io::Result<String> {
    new_secret(TICKET_PREFIX)
}

fn new_secret(prefix: &str) -> io::Result<String> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?)))
}

/// Bytes of the system's randomness.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(bytes)
}

/// SHA-256 of a credential's text, or of a public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(bytes: impl AsRef<[u8]>) -> Fingerprint {
        Fingerprint(Sha256::digest(bytes).into())
    }

    /// From 64 digits in hexadecimal.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        from_hex(text).map(Fingerprint)
    }

    /// Any byte of it: to spread credentials evenly.
    pub fn byte(self) -> u8 {
        self.0[0]
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Enough of it to tell which is which.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// So many bytes from lower-case hexadecimal.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower-case hexadecimal.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_looks_to_be() {
        let token = new_api_token().unwrap();
        assert_eq!(TokenKind::of(&token), Some(TokenKind::Api));
        assert_ne!(token, new_api_token().unwrap());
        assert_eq!(TokenKind::of("ths_a.b.c"), Some(TokenKind::Scoped("a.b.c")));
        assert_eq!(TokenKind::of("a.b.c"), Some(TokenKind::Jwt));
        let ticket = new_ticket().unwrap();
        assert!(is_ticket(&ticket) && !is_ticket(&token) && !is_ticket(&ticket[1..]));
        let long = format!("a.b.{}", "c".repeat(TOKEN_BYTES_MAX - 3));
        for none in ["", "tht_", &token[..46], &format!("{token}A"), &token.replace('t', "T"), &ticket, &long, "a.b"] {
            assert_eq!(TokenKind::of(none), None, "{none}");
        }
    }

    #[test]
    fn a_digest_is_that_of_sha_256() {
        let digest = Fingerprint::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Fingerprint::parse(text), Some(digest));
        for wrong in [&text[1..], &text.to_uppercase(), &text.replace("ba", "bg"), ""] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }
}
