//! What signatures of others are checked with: keys as they stand in files (PEM, DER, a bare secret) and in sets of keys (JWK,
//! RFC 7517).
//!
//! The checking is ring's, which is in the program for TLS already; libraries for JWT bring another implementation of all of
//! this along, and read more than is wanted. What is read here of a key is checked when it is read: a key that could verify nothing is
//! told where it is set, not in a log of refused callers. And what may be public is never a secret: a file with a
//! public key in any form that is not understood is refused, not taken as the bytes of an HMAC key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::{agreement, hmac, signature};
use serde_json::{Map, Value};

use super::{Alg, Fingerprint};

/// The shortest secret that HS256 is taken with: RFC 7518, section 3.2.
const SECRET_BYTES_MIN: usize = 32;
const RSA_BITS_MIN: usize = 2_048;
const RSA_BITS_MAX: usize = 8_192;
/// The most keys of one issuer. More in a set is refused as a whole.
pub const KEYS_MAX: usize = 100;

/// Where keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file that holds one key.
    KeyFile,
    /// A file with a set of keys.
    SetFile,
    /// A set of keys that everyone can fetch. There are no secrets in it.
    Public,
}

/// A key that a signature is checked with.
#[derive(Clone)]
pub struct VerifyKey {
    kid: Option<String>,
    print: Fingerprint,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point that is not compressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl VerifyKey {
    /// The one algorithm that it is for.
    pub fn alg(&self) -> Alg {
        match self.material {
            Material::Secret(_) => Alg::Hs256,
            Material::Rsa { .. } => Alg::Rs256,
            Material::P256(_) => Alg::Es256,
            Material::Ed25519(_) => Alg::EdDsa,
        }
    }

    /// Its name, where it has one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Which key it is, whatever it is called.
    pub fn print(&self) -> Fingerprint {
        self.print
    }

    pub(super) fn verify(&self, message: &[u8], signed: &[u8]) -> bool {
        let by = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(message, signed).is_ok()
        };
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signed).is_ok(),
            Material::Rsa { n, e } => signature::RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed)
                .is_ok(),
            Material::P256(point) => by(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::Ed25519(key) => by(&signature::ED25519, key),
        }
    }

    fn secret(bytes: &[u8]) -> Result<VerifyKey, String> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(format!(
                "a secret for HS256 must have at least {SECRET_BYTES_MIN} bytes, and has {}",
                bytes.len()
            ));
        }
        Ok(VerifyKey::of(b"oct", bytes, Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes))))
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<VerifyKey, String> {
        let bare = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (n, e) = (bare(n), bare(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(format!("an RSA key must have {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, and has {bits}"));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        // More than 33 bits are never used, and cost time.
        let is_small = e.len() < 5 || e.len() == 5 && e[0] <= 1;
        if !is_odd(&n) || !is_odd(&e) || e == [1] || !is_small {
            return Err("the numbers of the RSA key are none of an RSA key".into());
        }
        let all = [&n[..], &e[..]].concat();
        Ok(VerifyKey::of(b"rsa", &all, Material::Rsa { n, e }))
    }

    fn p256(point: &[u8]) -> Result<VerifyKey, String> {
        if point.len() != 65 || point[0] != 4 || !is_on_p256(point) {
            return Err("the EC key must be a point of P-256, not compressed".into());
        }
        Ok(VerifyKey::of(b"p256", point, Material::P256(point.to_vec())))
    }

    pub(super) fn ed25519(key: &[u8]) -> Result<VerifyKey, String> {
        if key.len() != 32 {
            return Err(format!("an Ed25519 key has 32 bytes, and this one {}", key.len()));
        }
        Ok(VerifyKey::of(b"ed25519", key, Material::Ed25519(key.to_vec())))
    }

    fn of(kind: &[u8], bytes: &[u8], material: Material) -> VerifyKey {
        VerifyKey { kid: None, print: Fingerprint::of([kind, b":", bytes].concat()), material }
    }

    fn jwk(jwk: &Map<String, Value>, source: KeySource) -> Result<VerifyKey, String> {
        let text = |name: &str| match jwk.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("{name} must be a text")),
        };
        let bytes = |name: &str| {
            let text = text(name)?.ok_or_else(|| format!("it has no {name}"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} must be base64url without padding"))
        };
        if jwk.contains_key("d") {
            return Err("it is a private key, and the hub needs only the public one".into());
        }
        if text("use")?.is_some_and(|used| used != "sig") {
            return Err("it is not for signatures (use)".into());
        }
        if let Some(ops) = jwk.get("key_ops") {
            let verifies = ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
            if !verifies {
                return Err("it is not for verifying (key_ops)".into());
            }
        }
        let curve = |wanted: &str| match text("crv")? {
            Some(curve) if curve == wanted => Ok(()),
            other => Err(format!("its curve must be {wanted}, and is {}", other.unwrap_or("not said"))),
        };
        let key = match text("kty")? {
            Some("RSA") => VerifyKey::rsa(&bytes("n")?, &bytes("e")?),
            Some("EC") => {
                curve("P-256")?;
                VerifyKey::p256(&[&[4][..], &bytes("x")?, &bytes("y")?].concat())
            }
            Some("OKP") => {
                curve("Ed25519")?;
                VerifyKey::ed25519(&bytes("x")?)
            }
            Some("oct") if source == KeySource::Public => {
                Err("it is a secret, and stands where everyone can fetch it".into())
            }
            Some("oct") => VerifyKey::secret(&bytes("k")?),
            other => Err(format!("its kind (kty) is {}", other.unwrap_or("not said"))),
        }?;
        let alg = text("alg")?;
        let is_own = match key.alg() {
            Alg::Hs256 => alg.is_none_or(|alg| alg == "HS256"),
            Alg::Rs256 => alg.is_none_or(|alg| alg == "RS256"),
            Alg::Es256 => alg.is_none_or(|alg| alg == "ES256"),
            Alg::EdDsa => alg.is_none_or(|alg| alg == "EdDSA" || alg == "Ed25519"),
        };
        if !is_own {
            return Err(format!("its alg is {}", alg.unwrap_or_default()));
        }
        Ok(VerifyKey { kid: text("kid")?.map(str::to_owned), ..key })
    }
}

/// Neither key nor secret.
impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey").field("kid", &self.kid).field("alg", &self.alg()).finish_non_exhaustive()
    }
}

impl PartialEq for VerifyKey {
    fn eq(&self, other: &VerifyKey) -> bool {
        self.print == other.print && self.kid == other.kid
    }
}

/// Agreeing on anything with a point checks first that it is one of the curve.
fn is_on_p256(point: &[u8]) -> bool {
    let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, point);
    let own = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new());
    own.and_then(|own| agreement::agree_ephemeral(own, &peer, |_| ())).is_ok()
}

/// The keys that stand in these bytes; or why there are none. Of a set, those that cannot be used are left out.
pub fn read_keys(bytes: &[u8], source: KeySource) -> Result<Vec<VerifyKey>, String> {
    let trimmed = bytes.trim_ascii();
    if trimmed.starts_with(b"{") {
        let object =
            super::jws::object(trimmed).ok_or("it begins as JSON and is no object, or says something twice")?;
        return match object.get("keys") {
            None if source == KeySource::KeyFile => {
                VerifyKey::jwk(&object.into_iter().collect(), source).map(|key| vec![key])
            }
            None => Err("it has no keys".into()),
            Some(Value::Array(keys)) => key_set(keys, source),
            Some(_) => Err("its keys must be a list".into()),
        };
    }
    if source != KeySource::KeyFile {
        return Err("it is no JSON object, and a set of keys (JWKS) is one".into());
    }
    if let Some(blocks) = pem(trimmed) {
        let (label, der) = blocks?;
        return match label.as_str() {
            "PUBLIC KEY" => public_key(&der),
            "RSA PUBLIC KEY" => rsa_public_key(&der),
            label if label.contains("PRIVATE KEY") => {
                Err("it is a private key, and the hub needs only the public one".into())
            }
            "CERTIFICATE" => Err("it is a certificate; give its public key (openssl x509 -pubkey -noout)".into()),
            label => Err(format!("it is a {label}, and a PUBLIC KEY is expected")),
        }
        .map(|key| vec![key]);
    }
    if trimmed.starts_with(b"ssh-") || trimmed.starts_with(b"ecdsa-sha2-") {
        return Err("it is a key for SSH; give it in PEM (ssh-keygen -e -m PKCS8)".into());
    }
    // In DER it is public as well.
    if let Ok(key) = public_key(bytes).or_else(|_| rsa_public_key(bytes)) {
        return Ok(vec![key]);
    }
    let mut der = Der(bytes);
    if der.take(SEQUENCE).is_some() && der.0.is_empty() {
        return Err("it looks like DER; give the public key in PEM".into());
    }
    // Editors end a file with a line's end, and nobody means it.
    let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    VerifyKey::secret(secret.strip_suffix(b"\r").unwrap_or(secret)).map(|key| vec![key])
}

fn key_set(keys: &[Value], source: KeySource) -> Result<Vec<VerifyKey>, String> {
    if keys.len() > KEYS_MAX {
        return Err(format!("it has {} keys, and at most {KEYS_MAX} are taken", keys.len()));
    }
    let mut why_not = None;
    let read = |key: &Value| match key.as_object() {
        Some(key) => VerifyKey::jwk(key, source),
        None => Err("it is no object".into()),
    };
    let each = keys.iter().filter_map(|key| read(key).inspect_err(|why| why_not = Some(why.clone())).ok());
    let usable: Vec<VerifyKey> = each.collect();
    match (usable.is_empty(), why_not) {
        (true, Some(why)) => Err(format!("none of its keys can be used: {why}")),
        // A set may be empty: whoever publishes it takes all keys back.
        _ => Ok(usable),
    }
}

type Block = (String, Vec<u8>);

/// The one block of PEM that there is; `None` where it is no PEM at all.
fn pem(text: &[u8]) -> Option<Result<Block, String>> {
    const BEGIN: &str = "-----BEGIN ";
    let text = std::str::from_utf8(text).ok()?;
    let (_, after) = text.split_once(BEGIN)?;
    let read = || {
        let (label, after) = after.split_once("-----").ok_or("its PEM has no end")?;
        let (body, after) = after.split_once(&format!("-----END {label}-----")).ok_or("its PEM has no end")?;
        if after.contains(BEGIN) {
            return Err("it has more than one block of PEM; give one key, or a set of keys as JWKS".to_owned());
        }
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| "its PEM is no base64")?;
        Ok((label.to_owned(), der))
    };
    Some(read())
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// The content of AlgorithmIdentifier: rsaEncryption with NULL, ecPublicKey with P-256, Ed25519. RFC 3279, 5480, 8410.
const RSA_ID: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const P256_ID: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const ED25519_ID: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];

/// A SubjectPublicKeyInfo.
fn public_key(der: &[u8]) -> Result<VerifyKey, String> {
    let read = || {
        let mut outer = Der(der);
        let mut info = Der(outer.take(SEQUENCE)?);
        let (id, key) = (info.take(SEQUENCE)?, info.take(BIT_STRING)?);
        let (unused, key) = key.split_first()?;
        (*unused == 0 && outer.0.is_empty() && info.0.is_empty()).then_some((id, key))
    };
    let (id, key) = read().ok_or("its PEM holds no public key")?;
    match id {
        RSA_ID => rsa_public_key(key),
        P256_ID => VerifyKey::p256(key),
        ED25519_ID => VerifyKey::ed25519(key),
        _ => Err("its kind of key is none of RSA, EC on P-256, and Ed25519".into()),
    }
}

/// An RSAPublicKey: RFC 8017, A.1.1.
fn rsa_public_key(der: &[u8]) -> Result<VerifyKey, String> {
    let read = || {
        let mut outer = Der(der);
        let mut numbers = Der(outer.take(SEQUENCE)?);
        let (n, e) = (numbers.take(INTEGER)?, numbers.take(INTEGER)?);
        (outer.0.is_empty() && numbers.0.is_empty()).then_some((n, e))
    };
    let (n, e) = read().ok_or("its PEM holds no RSA key")?;
    VerifyKey::rsa(n, e)
}

/// What is left to read of DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, if it is of this kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
            _ => return None,
        };
        if *found != tag || rest.len() < len {
            return None;
        }
        let (content, rest) = rest.split_at(len);
        self.0 = rest;
        Some(content)
    }
}
