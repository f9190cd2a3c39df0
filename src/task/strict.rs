//! How everything that comes from outside is read: bodies, messages, files, records.
//!
//! Serde's derived readers are made for many formats, and take more than a contract in JSON says: an array in place of
//! an object, field by field (`["t"]` as a task of type `t`), and `{"desc":null}` in place of the word `desc`. And they
//! take less: `1000.0` and `1e3` are whole numbers to JSON Schema. Correcting that at each shape would be forgotten at the
//! next one, so it is done once, between the format and the shapes: [`Strict`] is read through a deserializer that hands
//! everything on, on every level, and only
//!
//! * refuses an array where a shape has named fields,
//! * reads a word only from a string,
//! * takes a number without a fraction for a whole one,
//! * says in plain words what was expected.
//!
//! Text that is passed on unread ([`Json`](super::Json)) goes through byte for byte. What a shape itself says holds as
//! before: whether it refuses unknown fields, and how long its lists may be ([`bounds`](super::bounds)).

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Unexpected, Visitor,
};

/// A value that was read strictly. It is a `T`, and stands wherever one is read: `serde_json::from_slice::<Strict<T>>`,
/// `toml::from_str::<Strict<T>>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Strict<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict<T>, D::Error> {
        T::deserialize(Through(deserializer)).map(Strict)
    }
}

/// Reads one JSON value strictly, and nothing behind it.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice::<Strict<T>>(bytes).map(|Strict(value)| value)
}

/// The largest whole number that every reader of JSON holds exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Hands on what is read, to visitors that stand between.
struct Through<D>(D);

/// What may come, where a shape asks for it.
#[derive(Clone, Copy)]
enum Asked {
    /// Whatever the shape says.
    Any,
    /// Fields by name.
    Object,
    /// Any keys.
    Map,
    List,
    Number,
    /// With its bounds, as far as they are worth a word.
    Whole(Bounds),
}

type Bounds = (Option<i64>, Option<u64>);

struct Between<V> {
    visitor: V,
    asked: Asked,
}

macro_rules! hand_on {
    ($($method:ident $asked:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Between { visitor, asked: $asked })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Through<D> {
    type Error = D::Error;

    hand_on! {
        deserialize_any Asked::Any;
        deserialize_bool Asked::Any;
        deserialize_i8 Asked::Whole((Some(-128), Some(127)));
        deserialize_i16 Asked::Whole((Some(-32_768), Some(32_767)));
        deserialize_i32 Asked::Whole((Some(-2_147_483_648), Some(2_147_483_647)));
        deserialize_i64 Asked::Whole((None, None));
        deserialize_u8 Asked::Whole((Some(0), Some(255)));
        deserialize_u16 Asked::Whole((Some(0), Some(65_535)));
        deserialize_u32 Asked::Whole((Some(0), Some(4_294_967_295)));
        deserialize_u64 Asked::Whole((Some(0), None));
        deserialize_f32 Asked::Number;
        deserialize_f64 Asked::Number;
        deserialize_char Asked::Any;
        deserialize_str Asked::Any;
        deserialize_string Asked::Any;
        deserialize_bytes Asked::Any;
        deserialize_byte_buf Asked::Any;
        deserialize_option Asked::Any;
        deserialize_unit Asked::Any;
        deserialize_seq Asked::List;
        deserialize_map Asked::Map;
        deserialize_identifier Asked::Any;
        deserialize_ignored_any Asked::Any;
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Between { visitor, asked: Asked::Any })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Between { visitor, asked: Asked::Any })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, Between { visitor, asked: Asked::List })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, Between { visitor, asked: Asked::List })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Between { visitor, asked: Asked::Object })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_str(Word { visitor, variants })
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Between<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.asked {
            Asked::Any => self.visitor.expecting(f),
            Asked::Object | Asked::Map => f.write_str("an object"),
            Asked::List => f.write_str("an array"),
            Asked::Number => f.write_str("a number"),
            Asked::Whole((Some(min), Some(max))) => write!(f, "a whole number from {min} to {max}"),
            Asked::Whole((Some(min), None)) => write!(f, "a whole number from {min} up"),
            Asked::Whole((None, _)) => f.write_str("a whole number"),
        }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<V::Value, E> {
        match self.asked {
            Asked::Any => self.visitor.visit_bool(value),
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<V::Value, E> {
        match self.asked {
            Asked::Whole((Some(min), _)) if value < min => Err(E::invalid_value(Unexpected::Signed(value), &self)),
            Asked::Whole((_, Some(max))) if i128::from(value) > i128::from(max) => {
                Err(E::invalid_value(Unexpected::Signed(value), &self))
            }
            _ => self.visitor.visit_i64(value),
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<V::Value, E> {
        match self.asked {
            Asked::Whole((_, Some(max))) if value > max => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
            _ => self.visitor.visit_u64(value),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<V::Value, E> {
        match self.asked {
            Asked::Whole(_) if value.fract() != 0.0 || value.abs() > EXACT_MAX => {
                Err(E::invalid_value(Unexpected::Float(value), &self))
            }
            Asked::Whole(_) if value < 0.0 => self.visit_i64(value as i64),
            Asked::Whole(_) => self.visit_u64(value as u64),
            _ => self.visitor.visit_f64(value),
        }
    }

    fn visit_char<E: de::Error>(self, value: char) -> Result<V::Value, E> {
        self.visitor.visit_char(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<V::Value, E> {
        match self.asked {
            Asked::Any => self.visitor.visit_str(value),
            _ => Err(E::invalid_type(Unexpected::Str(value), &self)),
        }
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<V::Value, E> {
        match self.asked {
            Asked::Any => self.visitor.visit_borrowed_str(value),
            _ => Err(E::invalid_type(Unexpected::Str(value), &self)),
        }
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<V::Value, E> {
        match self.asked {
            Asked::Any => self.visitor.visit_string(value),
            _ => Err(E::invalid_type(Unexpected::Str(&value), &self)),
        }
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<V::Value, E> {
        self.visitor.visit_bytes(value)
    }

    fn visit_borrowed_bytes<E: de::Error>(self, value: &'de [u8]) -> Result<V::Value, E> {
        self.visitor.visit_borrowed_bytes(value)
    }

    fn visit_byte_buf<E: de::Error>(self, value: Vec<u8>) -> Result<V::Value, E> {
        self.visitor.visit_byte_buf(value)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Through(deserializer))
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Through(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        match self.asked {
            Asked::Any | Asked::List => self.visitor.visit_seq(Inside(seq)),
            _ => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        match self.asked {
            Asked::Any | Asked::Object | Asked::Map => self.visitor.visit_map(Inside(map)),
            _ => Err(A::Error::invalid_type(Unexpected::Map, &self)),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(data)
    }
}

/// A word out of a few.
struct Word<V> {
    visitor: V,
    variants: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Word<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "one of {}", self.variants.join(", "))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<V::Value, E> {
        if !self.variants.contains(&word) {
            return Err(E::invalid_value(Unexpected::Str(word), &self));
        }
        self.visitor.visit_enum(StrDeserializer::new(word))
    }
}

/// What stands inside an array or an object.
struct Inside<A>(A);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Inside<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Inside(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Inside<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Inside(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Inside<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Through(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::task::Json;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        DarkBlue,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Shape {
        name: Option<String>,
        small: i8,
        count: Option<u32>,
        large: u64,
        signed: i64,
        ratio: f64,
        colour: Option<Colour>,
        inner: Option<Box<Shape>>,
        list: Vec<Shape>,
        map: BTreeMap<String, Shape>,
        raw: Option<Json>,
        pair: Option<(u8, u8)>,
    }

    fn read(text: &str) -> Result<Shape, String> {
        from_slice(text.as_bytes()).map_err(|why| why.to_string())
    }

    #[test]
    fn what_is_meant_is_read() {
        let text = r#"{"name":"a","small":-3.0,"count":1e3,"large":1000.0,"signed":-2e2,"ratio":1,"colour":"dark_blue",
            "inner":{"small":1},"list":[{},{"small":2}],"map":{"k":{"small":3}},"raw":{"b" : 1.0e3,"a":[]},"pair":[1,2]}"#;
        let small = |small| Shape { small, ..Shape::default() };
        let expected = Shape {
            name: Some("a".into()),
            small: -3,
            count: Some(1_000),
            large: 1_000,
            signed: -200,
            ratio: 1.0,
            colour: Some(Colour::DarkBlue),
            inner: Some(Box::new(small(1))),
            list: vec![small(0), small(2)],
            map: BTreeMap::from([("k".to_owned(), small(3))]),
            raw: Some(Json::trusted(r#"{"b" : 1.0e3,"a":[]}"#)),
            pair: Some((1, 2)),
        };
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read(r#"{"large":9007199254740992.0}"#).unwrap().large, 1 << 53);
        assert_eq!(read(r#"{"large":18446744073709551615}"#).unwrap().large, u64::MAX);
    }

    /// Regression: a derived reader takes an array for its fields in order, on every level.
    #[test]
    fn what_is_not_meant_is_refused_in_plain_words() {
        let check = |text: &str, expected: &str| {
            let said = read(text).expect_err(text);
            assert!(said.starts_with(expected), "{text}: {said}");
            for word in ["i8", "u32", "u64", "f64", "struct", "sequence,"] {
                assert!(!said.contains(&format!("expected {word}")), "{text}: {said}");
            }
        };
        for array in ["[]", r#"["a"]"#] {
            check(array, "invalid type: sequence, expected an object");
            for place in ["inner", "map"] {
                check(&format!(r#"{{"{place}":{array}}}"#), "invalid type: sequence, expected an object");
            }
            check(&format!(r#"{{"list":[{{}},{array}]}}"#), "invalid type: sequence, expected an object");
            check(&format!(r#"{{"map":{{"k":{array}}}}}"#), "invalid type: sequence, expected an object");
            check(&format!(r#"{{"inner":{{"inner":{array}}}}}"#), "invalid type: sequence, expected an object");
        }
        check(r#"{"list":{}}"#, "invalid type: map, expected an array");
        check(r#"{"inner":"a"}"#, "invalid type: string \"a\", expected an object");
        check(r#"{"small":128}"#, "invalid value: integer `128`, expected a whole number from -128 to 127");
        check(r#"{"small":1.5}"#, "invalid value: floating point `1.5`, expected a whole number from -128 to 127");
        check(r#"{"count":-1}"#, "invalid value: integer `-1`, expected a whole number from 0 to 4294967295");
        check(r#"{"count":-1.0}"#, "invalid value: integer `-1`, expected a whole number from 0 to 4294967295");
        check(r#"{"large":"7"}"#, "invalid type: string \"7\", expected a whole number from 0 up");
        check(
            r#"{"large":9007199254740994.0}"#,
            "invalid value: floating point `9007199254740994.0`, expected a whole",
        );
        check(r#"{"large":true}"#, "invalid type: boolean `true`, expected a whole number from 0 up");
        check(r#"{"ratio":"7"}"#, "invalid type: string \"7\", expected a number");
        check(r#"{"colour":"green"}"#, "invalid value: string \"green\", expected one of red, dark_blue");
        check(r#"{"colour":{"red":null}}"#, "invalid type: map, expected one of red, dark_blue");
        check(r#"{"colour":7}"#, "invalid type: integer `7`, expected one of red, dark_blue");
        check(r#"{"nome":"a"}"#, "unknown field `nome`");
        check(r#"{} {}"#, "trailing characters");
    }

    #[test]
    fn a_file_is_read_as_strictly() {
        let read = |text: &str| toml::from_str::<Strict<Shape>>(text).map_err(|why| why.to_string());
        assert_eq!(read("small = 3\n[map.k]\nsmall = 4").unwrap().0.map["k"].small, 4);
        for wrong in ["inner = []", "inner = [\"a\"]", "list = [[\"a\"]]", "map = { k = [] }"] {
            let why = read(wrong).unwrap_err();
            assert!(why.contains("expected an object"), "{wrong}: {why}");
        }
    }
}
