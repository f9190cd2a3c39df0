//! JSON texts as values: whether two say the same, and what stands at a place in one.
//!
//! The hub passes texts on unread, so it compares them without making values of them: it walks over a text once and writes
//! down its *canonical form*, in which keys are in order, white space is gone, and a string is what it says however it is
//! escaped. A number stays the text that it came as: `1`, `1.0` and `1e0` are three, since no reader of them would be surprised
//! by less than all of its digits.
//!
//! What is walked over is well-formed, or it would be no [`Json`]. Where it were not, the walk would end with the text.

use super::Json;

impl Json {
    /// Appends the canonical form: bytes that are equal where the values are, and not itself JSON.
    pub(super) fn write_canonical(&self, out: &mut Vec<u8>) {
        Walk::of(self).value(out);
    }

    /// What stands at the end of this path of a JSON Pointer, `/customer/id`; nothing where it leads nowhere. `pointer` is
    /// empty or begins with a slash.
    pub(super) fn at_pointer(&self, pointer: &str) -> Option<Json> {
        let mut found = Walk::of(self);
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            found.step_into(&token)?;
        }
        let start = found.at_value();
        found.skip();
        Some(Json::trusted(self.bytes().slice(start..found.at)))
    }
}

/// Whether this is the path of a JSON Pointer below the first word: after each `~` comes 0 or 1.
pub(super) fn is_pointer(text: &str) -> bool {
    text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

/// Appends a text as the canonical form has strings.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    // Its length and not an end: whatever it says, nothing that follows can be taken for a part of it.
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

/// A walk over a JSON text.
pub(crate) struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// One that begins with the text.
    pub(crate) fn of(text: &'a Json) -> Walk<'a> {
        Walk { text: text.bytes(), at: 0 }
    }

    /// The next byte that is no white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Passes over this byte, if it is the next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Where the next value begins.
    fn at_value(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// Appends the canonical form of the next value. It nests no deeper than a payload may.
    fn value(&mut self, out: &mut Vec<u8>) {
        match self.peek() {
            Some(b'{') => {
                let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
                self.each_field(|walk, key| {
                    let mut value = Vec::new();
                    walk.value(&mut value);
                    fields.push((key, value));
                });
                // Of a key that stands there twice the last one counts, as for most readers.
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                out.push(b'{');
                for (at, (key, value)) in fields.iter().enumerate() {
                    if fields.get(at + 1).is_none_or(|(next, _)| next != key) {
                        write_string(key, out);
                        out.extend_from_slice(value);
                    }
                }
                out.push(b'}');
            }
            Some(b'[') => {
                out.push(b'[');
                self.each_item(|walk, _| {
                    walk.value(out);
                    out.push(b',');
                    true
                });
                out.push(b']');
            }
            Some(b'"') => write_string(&self.string(), out),
            _ => out.extend_from_slice(self.plain()),
        }
    }

    /// Passes over the next value.
    pub(crate) fn skip(&mut self) {
        match self.peek() {
            Some(b'{' | b'[') => {
                let mut depth = 0usize;
                while let Some(byte) = self.text.get(self.at).copied() {
                    match byte {
                        b'"' => {
                            self.raw_string();
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            Some(b'"') => _ = self.raw_string(),
            _ => _ = self.plain(),
        }
    }

    /// Goes to the value of a key, or of a place in an array.
    fn step_into(&mut self, token: &str) -> Option<()> {
        let mut found = None;
        match self.peek()? {
            b'{' => self.each_field(|walk, key| {
                if key == token.as_bytes() {
                    found = Some(walk.at_value());
                }
                walk.skip();
            }),
            b'[' => {
                let is_number = token == "0" || !token.starts_with('0') && token.bytes().all(|it| it.is_ascii_digit());
                let place: usize = token.parse().ok().filter(|_| is_number)?;
                self.each_item(|walk, at| {
                    if at == place {
                        found = Some(walk.at_value());
                    }
                    walk.skip();
                    found.is_none()
                });
            }
            _ => {}
        }
        self.at = found?;
        Some(())
    }

    /// Goes over the fields of the next object. `each` passes over the value.
    pub(crate) fn each_field(&mut self, mut each: impl FnMut(&mut Walk<'a>, Vec<u8>)) {
        self.take(b'{');
        while self.peek() == Some(b'"') {
            let key = self.string();
            self.take(b':');
            each(self, key);
            self.take(b',');
        }
        self.take(b'}');
    }

    /// The same with the items of an array and their places, for as long as `each` wants more.
    pub(crate) fn each_item(&mut self, mut each: impl FnMut(&mut Walk<'a>, usize) -> bool) {
        self.take(b'[');
        let mut place = 0;
        while self.peek().is_some_and(|byte| byte != b']') {
            let from = self.at;
            if !each(self, place) || self.at == from {
                return;
            }
            self.take(b',');
            place += 1;
        }
        self.take(b']');
    }

    /// A number, `true`, `false` or `null`, as it stands there.
    pub(crate) fn plain(&mut self) -> &'a [u8] {
        let from = self.at_value();
        let rest = &self.text[from..];
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
        &self.text[from..self.at]
    }

    /// A string with its quotes, as it stands there.
    fn raw_string(&mut self) -> &'a [u8] {
        let from = self.at_value();
        self.at = (from + 1).min(self.text.len());
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    break;
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(self.text.len());
        &self.text[from..self.at]
    }

    /// What a string says. One with half a surrogate pair says nothing that could be written down: it is taken as it stands.
    pub(crate) fn string(&mut self) -> Vec<u8> {
        let raw = self.raw_string();
        let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        if !inner.contains(&b'\\') {
            return inner.to_vec();
        }
        serde_json::from_slice::<String>(raw).map_or_else(|_| raw.to_vec(), String::into_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn canonical(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Json::parse_verbatim(text).unwrap().write_canonical(&mut out);
        out
    }

    #[test]
    fn values_are_compared_and_not_texts() {
        for (a, b) in [
            (r#"{"a":1,"b":[true,null]}"#, " { \"b\" : [ true , null ],\n\"a\" : 1 } "),
            (r#"{"x":{"b":{},"a":[]}}"#, r#"{"x":{"a":[ ],"b":{ }}}"#),
            (r#""é/""#, r#""\u00e9\/""#),
            (r#"{"é":1}"#, r#"{"\u00e9":1}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\ud83d\ude00""#, "\"😀\""),
        ] {
            assert_eq!(canonical(a), canonical(b), "{a} {b}");
        }
        let all = [
            "1",
            "1.0",
            "1e0",
            "1E0",
            "-0",
            "0",
            "\"1\"",
            "null",
            "\"null\"",
            "true",
            "[]",
            "{}",
            "[[]]",
            "[1,2]",
            "[12]",
            "[2,1]",
            r#"["1,2"]"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":1,"b":1}"#,
            r#""\ud800""#,
            r#""\ud801""#,
            "\"\"",
        ];
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                assert_ne!(canonical(a), canonical(b), "{a} {b}");
            }
        }
    }

    #[test]
    fn pointers_lead_to_places_or_nowhere() {
        let text = r#"{"a":{"b":[1,{"c": "x" }]},"":{"":7},"d/e":8,"m~n":9,"k":null,"a":{"b":[1.50,{"c":"y"}]}}"#;
        let json = Json::parse_verbatim(text).unwrap();
        for (pointer, expected) in [
            ("", Some(text)),
            ("/a/b/0", Some("1.50")),
            ("/a/b/1/c", Some("\"y\"")),
            ("/a/b/01", None),
            ("/a/b/2", None),
            ("/a/b/-", None),
            ("/a/b/99999999999999999999999", None),
            ("/a/x", None),
            ("/k", Some("null")),
            ("/k/x", None),
            ("//", Some("7")),
            ("/d~1e", Some("8")),
            ("/m~0n", Some("9")),
        ] {
            let found = json.at_pointer(pointer);
            assert_eq!(found.as_ref().map(Json::as_str), expected, "{pointer}");
        }
        assert!(is_pointer("a~0b~1") && is_pointer("") && !is_pointer("a~") && !is_pointer("~2"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3i64..3).prop_map(Value::from),
            "[a\"\\\\é,:{\\[]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab\"/~]{0,2}", inner, 0..4)
                    .prop_map(|fields| Value::from(fields.into_iter().collect::<serde_json::Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn equal_values_have_one_form_and_others_another(a in values(), b in values()) {
            let (plain, pretty) = (serde_json::to_string(&a).unwrap(), serde_json::to_string_pretty(&a).unwrap());
            prop_assert_eq!(canonical(&plain), canonical(&pretty));
            let other = serde_json::to_string(&b).unwrap();
            prop_assert_eq!(canonical(&plain) == canonical(&other), a == b);
        }

        #[test]
        fn pointers_find_what_another_reader_finds(value in values(), tokens in prop::collection::vec("[ab\"/~0-2]{0,2}", 0..4)) {
            let pointer: String =
                tokens.iter().map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1"))).collect();
            let json = Json::of(&value).unwrap();
            let found = json.at_pointer(&pointer).map(|found| found.to::<Value>().unwrap());
            prop_assert_eq!(found.as_ref(), value.pointer(&pointer));
        }

        /// What is no JSON leads to no panic and no endless walk.
        #[test]
        fn anything_ends(text in "[{}\\[\\]\":,a1\\\\ ]{0,20}", pointer in "(/[a1]?){0,3}") {
            let json = Json::trusted(text);
            json.write_canonical(&mut Vec::new());
            let _ = json.at_pointer(&pointer);
        }
    }
}
