//! JSON text that passes through the hub unread: payloads, results, checkpoints.
//!
//! Records, events and messages stand one a line, and they carry such texts as they are. So a [`Json`] is one line: line
//! breaks between its tokens become spaces where it is made, whoever makes it. Inside a string a line break is always
//! escaped, so nothing is lost. A payload alone is kept as it came ([`Json::parse_verbatim`], [`Json::present_verbatim`]):
//! it is promised byte for byte, it may be signed, and it stands in no record and no event.

use std::fmt;

use bytes::Bytes;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The deepest nesting of a payload, result or checkpoint. Readers in other languages give up soon after.
pub const PAYLOAD_DEPTH_MAX: usize = 128;

/// One JSON value as the text it came in, on one line. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Bytes);

/// Why a text is refused as a [`Json`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    Malformed,
    TooDeep,
    TooLarge { bytes_max: usize },
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Malformed => f.write_str("is not JSON"),
            JsonError::TooDeep => write!(f, "is nested deeper than {PAYLOAD_DEPTH_MAX}"),
            JsonError::TooLarge { bytes_max } => write!(f, "is larger than {bytes_max} bytes of JSON text"),
        }
    }
}

impl std::error::Error for JsonError {}

impl Json {
    /// The value `null`.
    pub fn null() -> Json {
        Json(Bytes::from_static(b"null"))
    }

    /// Text that is known to be one JSON value on one line: the hub's own, or read from the store.
    pub fn trusted(text: impl Into<Bytes>) -> Json {
        Json(text.into())
    }

    /// Checks that `text` is one JSON value.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        Json::parse_verbatim(text).map(Json::one_line)
    }

    /// As [`parse`](Self::parse), with the line breaks it came with: for a payload.
    pub fn parse_verbatim(text: &str) -> Result<Json, JsonError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| JsonError::Malformed)?;
        Ok(Json(Bytes::copy_from_slice(raw.get().as_bytes())))
    }

    /// The JSON of any value that serde can write. Values that are no JSON (a map with structured keys) are an error.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Json, serde_json::Error> {
        // Serde writes none, but passes on those of a raw value.
        Ok(Json(serde_json::to_vec(value)?.into()).one_line())
    }

    /// For fields in which `null` is a value and not an absence: `deserialize_with` this, and `default`.
    pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
        Json::deserialize(deserializer).map(Some)
    }

    /// As [`present`](Self::present), with the line breaks it came with: for a payload.
    pub fn present_verbatim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
        verbatim(deserializer).map(Some)
    }

    /// The text on one line.
    pub(crate) fn one_line(self) -> Json {
        let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
        if !self.0.iter().any(breaks) {
            return self;
        }
        Json(self.0.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect())
    }

    /// The value, read as `T`.
    pub fn to<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("JSON text was UTF-8 when it came in")
    }

    /// The text as shared bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a JSON value has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses a text over `bytes_max`, or nested deeper than [`PAYLOAD_DEPTH_MAX`].
    pub fn check(&self, bytes_max: usize) -> Result<(), JsonError> {
        if self.len() > bytes_max {
            return Err(JsonError::TooLarge { bytes_max });
        }
        if depth(&self.0) > PAYLOAD_DEPTH_MAX { Err(JsonError::TooDeep) } else { Ok(()) }
    }
}

/// How deep arrays and objects nest in a well-formed JSON text.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `RawValue` is the only way to hand text through serde; borrowing one checks the text again, which is cheaper
        // than copying it. Hot paths write `as_str` straight into their buffer.
        serde_json::from_str::<&RawValue>(self.as_str()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        verbatim(deserializer).map(Json::one_line)
    }
}

fn verbatim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(Json(Bytes::from(Box::<str>::from(raw).into_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_byte_for_byte() {
        #[derive(Serialize, Deserialize)]
        struct Holder {
            payload: Json,
        }
        let text = r#"{"payload":{"b" : 1.0e3,  "a":"é\u00e9"}}"#;
        let holder: Holder = serde_json::from_str(text).unwrap();
        assert_eq!(holder.payload.as_str(), r#"{"b" : 1.0e3,  "a":"é\u00e9"}"#);
        assert_eq!(serde_json::to_string(&holder).unwrap(), text);
    }

    #[test]
    fn a_text_is_one_line_wherever_it_comes_from() {
        // Handlers in the hub's own program gave theirs past the edges where line breaks were taken out, and a result
        // over several lines broke the event stream that carried it.
        let text = "{\r\n \"a\\n\": [1,\n2]}";
        let expected = "{   \"a\\n\": [1, 2]}";
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        let read: Json = serde_json::from_str(text).unwrap();
        for json in [Json::parse(text).unwrap(), Json::of(&raw).unwrap(), read] {
            assert_eq!(json.as_str(), expected);
        }
        assert_eq!(Json::parse_verbatim(text).unwrap().as_str(), text, "a payload is kept as it came");
    }

    #[test]
    fn limits_hold_at_the_edge() {
        let text = format!("\"{}\"", "x".repeat(98));
        let json = Json::parse(&text).unwrap();
        assert_eq!(json.check(100), Ok(()));
        assert_eq!(json.check(99), Err(JsonError::TooLarge { bytes_max: 99 }));
        let nested = |n: usize| Json::trusted(format!("{}{}", "[".repeat(n), "]".repeat(n)));
        assert_eq!(nested(128).check(1000), Ok(()));
        assert_eq!(nested(129).check(1000), Err(JsonError::TooDeep));
        assert_eq!(depth(br#"{"a":"[[[[\"[[","b":[1]}"#), 2);
    }
}
