//! A signed text in three parts (JWS, RFC 7515), read strictly.
//!
//! The text says which algorithm and which key it wants to be checked with. It is not asked: each key has one algorithm, that of its
//! kind, and a text that names another one is not tried with it. So a public key is never taken for a secret, and `none` is
//! no algorithm. Of the header only `alg`, `kid`, `typ` and `crit` are looked at; a key in it, or where to find one, means nothing.
//! What could be read in two ways is refused: base64 with bits to spare, names that stand twice, on any level.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as Derived, Serialize};
use serde_json::{Map, Number, Value};

use super::{TOKEN_BYTES_MAX, Unauthenticated, VerifyKey};

/// How a text is signed. RFC 7518, RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Derived)]
pub enum Alg {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Alg {
    fn parse(word: &str) -> Option<Alg> {
        match word {
            "HS256" => Some(Alg::Hs256),
            "RS256" => Some(Alg::Rs256),
            "ES256" => Some(Alg::Es256),
            // The second is what RFC 9864 calls it.
            "EdDSA" | "Ed25519" => Some(Alg::EdDsa),
            _ => None,
        }
    }
}

/// A signed text that was read, and not verified.
#[derive(Clone, Debug)]
pub struct Jws<'a> {
    alg: Alg,
    /// The name of the key, as the text has it.
    kid: Option<String>,
    /// Header and payload as they are signed.
    signed: &'a str,
    signature: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Reads a text.
    pub fn read(text: &'a str) -> Result<Jws<'a>, Unauthenticated> {
        use Unauthenticated::Malformed;
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Malformed("it is longer than 8 KiB"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed("it has no signature"))?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed("it has no three parts"))?;
        // A dot is none of base64, so more parts than three fail here.
        let part =
            |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed("its parts must be base64url without padding"));
        let (header, payload, signature) = (part(header)?, part(payload)?, part(signature)?);
        let header = object(&header).ok_or(Malformed("its header is no JSON object, or says something twice"))?;
        if header.contains_key("crit") {
            return Err(Malformed("its header has crit, and no extension is known here"));
        }
        if header.get("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
            return Err(Malformed("its payload must be in base64"));
        }
        let alg = header.get("alg").and_then(Value::as_str).and_then(Alg::parse);
        let alg = alg.ok_or(Malformed("its alg must be HS256, RS256, ES256 or EdDSA"))?;
        if header.get("typ").is_some_and(|typ| !is_jwt(typ)) {
            return Err(Malformed("its typ must be JWT or at+jwt"));
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Malformed("its kid must be a text")),
        };
        Ok(Jws { alg, kid, signed, signature, payload })
    }

    /// How it says it is signed.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The key that it names, if it names one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Who it says it is from, before that is known to be true.
    pub fn claimed_issuer(&self) -> Result<String, Unauthenticated> {
        match self.claims()?.remove("iss") {
            Some(Value::String(issuer)) => Ok(issuer),
            _ => Err(Unauthenticated::Malformed("it has no iss that is a text")),
        }
    }

    pub(super) fn claims(&self) -> Result<BTreeMap<String, Value>, Unauthenticated> {
        object(&self.payload)
            .ok_or(Unauthenticated::Malformed("its payload is no JSON object, or says something twice"))
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &VerifyKey) -> bool {
        key.alg() == self.alg && key.verify(self.signed.as_bytes(), &self.signature)
    }
}

/// Media types of tokens that let in. Others are for other things: RFC 8725, section 3.11.
fn is_jwt(typ: &Value) -> bool {
    let Some(typ) = typ.as_str() else { return false };
    let bare = match typ.get(..12) {
        Some(prefix) if prefix.eq_ignore_ascii_case("application/") => &typ[12..],
        _ => typ,
    };
    bare.eq_ignore_ascii_case("jwt") || bare.eq_ignore_ascii_case("at+jwt")
}

/// A text signed by this pair.
pub(super) fn sign(kid: &str, pair: &Ed25519KeyPair, payload: &[u8]) -> String {
    let header = serde_json::json!({"alg": "EdDSA", "kid": kid, "typ": "JWT"}).to_string();
    let mut text = URL_SAFE_NO_PAD.encode(header);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut text);
    let signature = pair.sign(text.as_bytes());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    text
}

/// A JSON object in which no name stands twice, on any level.
pub(super) fn object(bytes: &[u8]) -> Option<BTreeMap<String, Value>> {
    match serde_json::from_slice::<Unique>(bytes).ok()?.0 {
        Value::Object(object) => Some(object.into_iter().collect()),
        _ => None,
    }
}

/// A value in which no name stands twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
                Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no number"))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Unique(value)) = seq.next_element()? {
                    list.push(value);
                }
                Ok(list.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((name, Unique(value))) = map.next_entry::<String, Unique>()? {
                    if object.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name stands twice"));
                    }
                }
                Ok(object.into())
            }
        }
        deserializer.deserialize_any(Any).map(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(header: &str, payload: &str) -> String {
        format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload),
            URL_SAFE_NO_PAD.encode("x")
        )
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let good = text(r#"{"alg":"HS256","typ":"jwt","kid":"a"}"#, r#"{"iss":"i"}"#);
        assert_eq!(Jws::read(&good).unwrap().claimed_issuer().unwrap(), "i");
        for typ in ["JWT", "at+jwt", "application/AT+JWT"] {
            assert!(Jws::read(&text(&format!(r#"{{"alg":"Ed25519","typ":"{typ}"}}"#), "{}")).is_ok(), "{typ}");
        }
        let check = |text: &str, expected: &str| match Jws::read(text).and_then(|jws| jws.claimed_issuer()) {
            Err(Unauthenticated::Malformed(why)) => assert!(why.contains(expected), "{text}: {why}"),
            other => panic!("{text}: {other:?}"),
        };
        for alg in ["none", "None", "HS512", "hs256", "RSA-OAEP", ""] {
            check(&text(&format!(r#"{{"alg":"{alg}"}}"#), "{}"), "its alg must be");
        }
        check(&text("{}", "{}"), "its alg must be");
        check(&text(r#"{"alg":["HS256"]}"#, "{}"), "its alg must be");
        check(&text(r#"{"alg":"HS256","crit":[]}"#, "{}"), "crit");
        check(&text(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, "{}"), "crit");
        check(&text(r#"{"alg":"HS256","b64":false}"#, "{}"), "base64");
        check(&text(r#"{"alg":"HS256","typ":"logout+jwt"}"#, "{}"), "its typ");
        check(&text(r#"{"alg":"HS256","typ":7}"#, "{}"), "its typ");
        check(&text(r#"{"alg":"HS256","kid":7}"#, "{}"), "its kid");
        check(&text(r#"{"alg":"HS256","alg":"RS256"}"#, "{}"), "twice");
        check(&text(r#"["alg"]"#, "{}"), "no JSON object");
        check(&text(r#"{"alg":"HS256"} "#, "{} {}"), "payload is no JSON object");
        check(&text(r#"{"alg":"HS256"}"#, r#"{"iss":"a","iss":"b"}"#), "twice");
        check(&text(r#"{"alg":"HS256"}"#, r#"{"iss":"a","x":[{"role":1,"role":2}]}"#), "twice");
        check(&text(r#"{"alg":"HS256"}"#, r#"{"iss":["a"]}"#), "no iss");
        check(&text(r#"{"alg":"HS256"}"#, "{}"), "no iss");
        check("a.b", "no three parts");
        check("", "no signature");
        check("a", "no signature");
        check("..", "no JSON object");
        check(&format!("{good}.a.b"), "its parts");
        check(&format!("{good}="), "its parts");
        // "eA" and "eB" are both "x" to who does not look at the bits that are left.
        assert!(good.ends_with(".eA"));
        check(&format!("{}.eB", &good[..good.len() - 3]), "its parts");
        check(&format!("{}{good}", "a".repeat(TOKEN_BYTES_MAX)), "longer than 8 KiB");
        check(
            &text(r#"{"alg":"HS256"}"#, &format!(r#"{{"iss":"a","x":{}}}"#, "[".repeat(5_000))),
            "payload is no JSON",
        );
    }
}
