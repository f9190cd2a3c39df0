//! Any bytes as a credential, and as a key to check one with: it is read or refused, and nothing that was altered is signed.

use taskhub::access::{Jws, KeySource, TokenKind, VerifyKey, read_keys};

const SECRET: &[u8] = b"a secret that is long enough for it";
/// Signed with the secret.
const GOOD: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIiwic3ViIjoidSJ9.Vl_AXtO0uqqnpp8d6e_q_pOtoaKCk8LNSkfx_pmuNyQ";

fn secret() -> VerifyKey {
    read_keys(SECRET, KeySource::KeyFile).expect("a key").remove(0)
}

pub fn check(bytes: &[u8]) {
    for source in [KeySource::KeyFile, KeySource::SetFile, KeySource::Public] {
        if let Ok(keys) = read_keys(bytes, source) {
            // What is read again is the same key.
            assert!(keys == read_keys(bytes, source).expect("as before"));
            assert!(keys.iter().all(|key| !read_token(GOOD).is_signed_by(key) || bytes.starts_with(SECRET)));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let kind = TokenKind::of(text);
    let jwt = match kind {
        Some(TokenKind::Scoped(jwt)) => jwt,
        _ => text,
    };
    if let Ok(jws) = Jws::read(jwt) {
        assert_eq!(jwt.split('.').count(), 3);
        let _ = jws.claimed_issuer();
        assert!(!jws.is_signed_by(&secret()) || jwt == GOOD, "{text}");
    }
    altered(bytes);
}

/// A good token, with these bytes in it.
fn altered(bytes: &[u8]) {
    let [at, rest @ ..] = bytes else { return };
    let mut text = GOOD.as_bytes().to_vec();
    let at = usize::from(*at) % text.len();
    let end = (at + rest.len()).min(text.len());
    text[at..end].copy_from_slice(&rest[..end - at]);
    let Ok(text) = String::from_utf8(text) else { return };
    if let Ok(jws) = Jws::read(&text) {
        assert_eq!(jws.is_signed_by(&secret()), text == GOOD, "{text}");
    }
}

fn read_token(text: &str) -> Jws<'_> {
    Jws::read(text).expect("a token")
}
