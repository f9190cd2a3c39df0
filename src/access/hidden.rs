//! What is kept from a caller of the tasks that it sees.
//!
//! A part of a task as a whole is named by its word: `payload`, `result`, `logs`. A place within a payload or a result is named by
//! the word and the path of a JSON Pointer, as in `unique`: `payload/customer/iban`. What is within the result is also kept from where
//! results go: the details of an error, and the results of its tasks that a workflow has.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::task::{Json, pointer_path, pointer_steps, without, without_anywhere};

/// The most that one credential hides.
pub const HIDES_MAX: usize = 16;
/// The longest of them as it stands on the wire.
const HIDE_BYTES_MAX: usize = 256;
/// The deepest place.
const STEPS_MAX: usize = 16;

/// A part of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Payload,
    Result,
    Logs,
}

/// A part that is hidden, or a place within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hide {
    part: Part,
    /// None: the whole.
    steps: Vec<String>,
}

/// All that a caller does not see of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden(BTreeSet<Hide>);

impl Part {
    pub const ALL: [Part; 3] = [Part::Payload, Part::Result, Part::Logs];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Part::Payload => "payload",
            Part::Result => "result",
            Part::Logs => "logs",
        }
    }
}

impl From<Part> for Hide {
    fn from(part: Part) -> Hide {
        Hide { part, steps: Vec::new() }
    }
}

impl FromStr for Hide {
    type Err = String;

    fn from_str(text: &str) -> Result<Hide, String> {
        if text.len() > HIDE_BYTES_MAX {
            return Err(format!("must have at most {HIDE_BYTES_MAX} bytes"));
        }
        let (word, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let part = Part::ALL.into_iter().find(|part| part.word() == word && (path.is_empty() || *part != Part::Logs));
        let steps = pointer_steps(path).filter(|steps| steps.len() <= STEPS_MAX);
        let known = part.zip(steps).map(|(part, steps)| Hide { part, steps });
        known.ok_or_else(|| {
            format!(
                "must be payload, result, logs, or a place such as payload/customer/iban, of at most {STEPS_MAX} steps"
            )
        })
    }
}

impl fmt::Display for Hide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.part.word(), pointer_path(&self.steps))
    }
}

impl Serialize for Hide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hide, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Hidden {
    /// Whether the whole part is hidden.
    pub fn has(&self, part: Part) -> bool {
        self.0.contains(&Hide::from(part))
    }

    /// Whether the part, or something within it, is hidden.
    pub fn touches(&self, part: Part) -> bool {
        self.0.iter().any(|hide| hide.part == part)
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and one more.
    pub fn with(mut self, hide: impl Into<Hide>) -> Hidden {
        self.0.insert(hide.into());
        self
    }

    /// Each of them, as on the wire.
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(Hide::to_string).collect()
    }

    /// Each of them.
    pub fn list(&self) -> impl Iterator<Item = &Hide> {
        self.0.iter()
    }

    /// What is left of a part to the caller. `None`: nothing.
    pub fn left_of(&self, part: Part, value: Json) -> Option<Json> {
        if !self.touches(part) {
            return Some(value);
        }
        (!self.has(part)).then(|| without(&value, &self.places(part)))
    }

    /// The same of the result of a workflow, which is made of the results of others: wherever in it those may stand.
    pub(super) fn left_of_results(&self, results: Json) -> Json {
        without_anywhere(&results, &self.places(Part::Result))
    }

    fn places(&self, part: Part) -> Vec<&[String]> {
        self.0.iter().filter(|hide| hide.part == part).map(|hide| &*hide.steps).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Add as _;

    use super::*;

    #[test]
    fn words_and_places() {
        for text in ["payload", "result", "logs", "payload/a", "result/a~1b/0", "payload/"] {
            assert_eq!(text.parse::<Hide>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "title",
            "logs/0",
            "payload#/a",
            &"payload".to_owned().add(&"/".repeat(17)),
            "payload/~2",
            "/payload",
            "payload.a",
        ] {
            assert!(text.parse::<Hide>().is_err(), "{text}");
        }
        let longest = format!("payload/{}", "x".repeat(HIDE_BYTES_MAX - 8));
        assert!(longest.parse::<Hide>().is_ok() && format!("{longest}x").parse::<Hide>().is_err());
    }

    #[test]
    fn what_is_left() {
        let hidden = Hidden::default().with("payload/a".parse::<Hide>().unwrap()).with(Part::Result);
        let value = || Json::trusted(r#"{"a":1,"b":2}"#);
        assert_eq!(hidden.left_of(Part::Payload, value()).unwrap().as_str(), r#"{"b":2}"#);
        assert_eq!(hidden.left_of(Part::Result, value()), None);
        assert_eq!(hidden.left_of(Part::Logs, value()), Some(value()));
        assert_eq!(hidden.words(), ["payload/a", "result"]);
        assert!(hidden.touches(Part::Payload) && !hidden.has(Part::Payload) && !hidden.touches(Part::Logs));
    }
}
