//! Bounds that hold while something is read. A list that is counted when it stands in memory has cost what it costs, and
//! five million labels in a body of 60 MB cost gigabytes; so what has a bound is counted item by item, and the first one
//! too many ends the reading.
//!
//! Also the two ways in which a field may be loose: `null` is the same as absent wherever a field may be left out, and a
//! number beyond what its type holds is the largest it does, for the check of the field to refuse with the field's own
//! limit.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// More than a field may have: the words with which reading ends, and how they are told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBound {
    pub max: usize,
    pub unit: &'static str,
}

impl fmt::Display for OverBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be at most {} {}", self.max, self.unit)
    }
}

impl OverBound {
    /// The limit that an error's text names, where it is one of a limit.
    pub fn limit_in(text: &str) -> Option<u64> {
        let (number, _) = text.strip_prefix("must be at most ")?.split_once(' ')?;
        number.parse().ok()
    }
}

/// Reads a list of at most `max` items.
pub fn list<'de, D, T>(deserializer: D, max: usize, unit: &'static str) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Counted::<Vec<T>>::new(max, unit))
}

/// Reads a list of at most `max` items that may be left out, or `null`.
pub fn optional_list<'de, D, T>(deserializer: D, max: usize, unit: &'static str) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_option(Optional(Counted::<Vec<T>>::new(max, unit)))
}

/// Reads an object of at most `max` entries that may be left out, or `null`. A key that stands there twice is refused as
/// a field that does is.
pub fn optional_map<'de, D, T>(
    deserializer: D,
    max: usize,
    unit: &'static str,
) -> Result<Option<BTreeMap<String, T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_option(Optional(Counted::<BTreeMap<String, T>>::new(max, unit)))
}

/// For a field that has a default: `null` is that default, as if the field were absent.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// For a number whose limit is checked afterwards: what its type does not hold is the largest that it does.
pub fn saturated<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64> + Largest,
{
    struct Number;
    impl Visitor<'_> for Number {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a whole number from 0 up")
        }
        fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
        }
        fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
            match number.fract() == 0.0 && number >= 0.0 {
                // Saturates.
                true => Ok(number as u64),
                false => Err(E::invalid_value(serde::de::Unexpected::Float(number), &self)),
            }
        }
    }
    struct Whole;
    impl<'de> serde::de::DeserializeSeed<'de> for Whole {
        type Value = u64;
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
            // Whatever it is: a reader of whole numbers would refuse those that are too large for it.
            deserializer.deserialize_any(Number)
        }
    }
    let number = deserializer.deserialize_option(Optional(Whole))?;
    Ok(number.map(|number| T::try_from(number).unwrap_or(T::LARGEST)))
}

/// The largest number of a type.
pub trait Largest {
    const LARGEST: Self;
}

impl Largest for u32 {
    const LARGEST: u32 = u32::MAX;
}

impl Largest for u64 {
    const LARGEST: u64 = u64::MAX;
}

/// What may be left out, read by `S` where it is not.
struct Optional<S>(S);

impl<'de, S: serde::de::DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// Reads a `C` of at most `max` items.
struct Counted<C> {
    max: usize,
    unit: &'static str,
    of: PhantomData<C>,
}

impl<C> Counted<C> {
    fn new(max: usize, unit: &'static str) -> Counted<C> {
        Counted { max, unit, of: PhantomData }
    }

    fn room<E: Error>(&self, len: usize) -> Result<(), E> {
        if len < self.max { Ok(()) } else { Err(E::custom(OverBound { max: self.max, unit: self.unit })) }
    }
}

impl<'de, T: Deserialize<'de>> serde::de::DeserializeSeed<'de> for Counted<Vec<T>> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Counted<Vec<T>> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            self.room(items.len())?;
            items.push(item);
        }
        Ok(items)
    }
}

impl<'de, T: Deserialize<'de>> serde::de::DeserializeSeed<'de> for Counted<BTreeMap<String, T>> {
    type Value = BTreeMap<String, T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Counted<BTreeMap<String, T>> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            self.room(entries.len())?;
            match entries.entry(key) {
                Entry::Vacant(entry) => entry.insert(map.next_value()?),
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!("duplicate field `{}`", entry.key())));
                }
            };
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Shape {
        #[serde(deserialize_with = "three")]
        list: Vec<String>,
        #[serde(deserialize_with = "two")]
        map: Option<BTreeMap<String, String>>,
        #[serde(deserialize_with = "saturated")]
        number: Option<u32>,
        #[serde(deserialize_with = "or_default")]
        word: String,
    }

    fn three<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        list(deserializer, 3, "words")
    }

    fn two<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
        optional_map(deserializer, 2, "entries")
    }

    fn read(text: &str) -> Result<Shape, String> {
        super::super::strict::from_slice(text.as_bytes()).map_err(|why: serde_json::Error| why.to_string())
    }

    #[test]
    fn the_first_item_too_many_ends_it() {
        let check = |text: &str, expected: Result<(), &str>| match (read(text), expected) {
            (Ok(_), Ok(())) => {}
            (Err(said), Err(expected)) => assert!(said.starts_with(expected), "{text}: {said}"),
            (got, expected) => panic!("{text}: {got:?} instead of {expected:?}"),
        };
        check(r#"{"list":["a","b","c"]}"#, Ok(()));
        // What stands behind is not looked at.
        check(r#"{"list":["a","b","c","d",7"#, Err("must be at most 3 words"));
        check(r#"{"list":["a",7]}"#, Err("invalid type"));
        check(r#"{"list":null}"#, Err("invalid type: null, expected an array"));
        check(r#"{"map":{"a":"1","b":"2"}}"#, Ok(()));
        check(r#"{"map":{"a":"1","b":"2","c":"3",7"#, Err("must be at most 2 entries"));
        check(r#"{"map":{"a":"1","a":"1"}}"#, Err("duplicate field `a`"));
        check(r#"{"map":null,"number":null,"word":null}"#, Ok(()));
        check(r#"{"map":[]}"#, Err("invalid type: sequence, expected an object"));
        check(r#"{"number":-1}"#, Err("invalid value: integer `-1`, expected a whole number from 0 up"));
        check(r#"{"number":0.5}"#, Err("invalid value: floating point `0.5`, expected a whole number from 0 up"));
        check(r#"{"number":"1"}"#, Err("invalid type: string \"1\", expected a whole number from 0 up"));
        for (large, expected) in [("7", 7), ("7e0", 7), ("4294967296", u32::MAX), ("1e30", u32::MAX)] {
            assert_eq!(read(&format!(r#"{{"number":{large}}}"#)).unwrap().number, Some(expected));
        }
    }

    #[test]
    fn a_limit_is_read_out_of_its_words() {
        assert_eq!(OverBound::limit_in(&OverBound { max: 16, unit: "labels" }.to_string()), Some(16));
        assert_eq!(OverBound::limit_in("must be at most 10,000 tasks"), None);
        assert_eq!(OverBound::limit_in("unknown field `must be at most 3 x`"), None);
    }
}
