//! Short words that many tasks share: types, queues, users, workers; and patterns over them.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize};

/// The longest task type, queue or worker id, in characters.
pub const NAME_CHARS_MAX: usize = 128;

/// A short text that costs 16 bytes wherever it stands: the letters are shared by all tasks that use it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The most names whose letters are shared. More are simply not shared, so that nobody can fill the memory with names.
const SHARED_NAMES_MAX: usize = 16_384;
static SHARED: LazyLock<Mutex<SharedNames>> = LazyLock::new(|| Mutex::new(SharedNames::new(SHARED_NAMES_MAX)));

/// Letters shared across the program.
///
/// Where it is full, names that nothing else holds are dropped: in a program whose names carry ids, those of the past
/// would else keep the ones of today from being shared. That looks at all of them, so it is done once in as many misses.
struct SharedNames {
    names: HashSet<Name>,
    len_max: usize,
    /// Names that were not shared since the last look.
    missed: usize,
}

impl SharedNames {
    fn new(len_max: usize) -> SharedNames {
        // The first miss is a reason to look.
        SharedNames { names: HashSet::new(), len_max, missed: len_max - 1 }
    }

    fn get(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        if self.names.len() >= self.len_max {
            self.missed += 1;
            if self.missed >= self.len_max {
                self.missed = 0;
                self.names.retain(|name| Arc::strong_count(&name.0) > 1);
            }
        }
        let name = Name(text.into());
        if self.names.len() < self.len_max {
            self.names.insert(name.clone());
        }
        name
    }
}

impl Name {
    /// A name with exactly this text, unchecked: for user ids and for what was checked before.
    pub fn new(text: &str) -> Name {
        SHARED.lock().get(text)
    }

    /// A task type, a queue or a worker id: 1–128 of `A-Z a-z 0-9 . _ : -`.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        check_word(text).map(|()| Name::new(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_word(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_CHARS_MAX {
        return Err(NameError::TooLong);
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-'))) {
        Some(wrong) => Err(NameError::Character(wrong)),
        None => Ok(()),
    }
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong,
    Character(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("must not be empty"),
            NameError::TooLong => write!(f, "must be at most {NAME_CHARS_MAX} characters"),
            NameError::Character(c) => write!(f, "must be of A-Z a-z 0-9 . _ : - (found {c:?})"),
        }
    }
}

impl std::error::Error for NameError {}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Reads the text without checking its letters: what comes from outside is checked where its field is known, so that
/// the refusal can name it.
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name::new(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A name, or the beginning of names: `ingest.*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    Exact(Name),
    /// All names that start with this; empty for `*`.
    Prefix(Name),
}

impl Pattern {
    /// A name that may end in `*`.
    pub fn parse(text: &str) -> Result<Pattern, NameError> {
        match text.strip_suffix('*') {
            None => Name::parse(text).map(Pattern::Exact),
            Some("") => Ok(Pattern::Prefix(Name::new(""))),
            Some(prefix) => Name::parse(prefix).map(Pattern::Prefix),
        }
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact.as_str() == name,
            Pattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(name) => write!(f, "{name}"),
            Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Several patterns, any of which may match; sorted, so that equal sets compare equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PatternSet(Box<[Pattern]>);

impl PatternSet {
    /// A set of these patterns.
    pub fn new(mut patterns: Vec<Pattern>) -> PatternSet {
        patterns.sort();
        patterns.dedup();
        PatternSet(patterns.into())
    }

    /// The set that matches every name.
    pub fn all() -> PatternSet {
        PatternSet::new(vec![Pattern::Prefix(Name::new(""))])
    }

    /// The set that matches this name alone.
    pub fn exactly(name: &Name) -> PatternSet {
        PatternSet::new(vec![Pattern::Exact(name.clone())])
    }

    /// The set that matches what both match. It may be empty, and match nothing.
    pub fn and(&self, other: &PatternSet) -> PatternSet {
        // Of two patterns that have a name in common, one means all that the other does.
        let both = |a: &Pattern, b: &Pattern| match (a, b) {
            (Pattern::Exact(name), any) | (any, Pattern::Exact(name)) => {
                any.matches(name.as_str()).then(|| Pattern::Exact(name.clone()))
            }
            (Pattern::Prefix(a), Pattern::Prefix(b)) if a.as_str().starts_with(b.as_str()) => {
                Some(Pattern::Prefix(a.clone()))
            }
            (Pattern::Prefix(a), Pattern::Prefix(b)) => {
                b.as_str().starts_with(a.as_str()).then(|| Pattern::Prefix(b.clone()))
            }
        };
        PatternSet::new(self.iter().flat_map(|a| other.iter().filter_map(move |b| both(a, b))).collect())
    }

    /// The one name that it matches, where it is one.
    pub fn only(&self) -> Option<&Name> {
        match &*self.0 {
            [Pattern::Exact(name)] => Some(name),
            _ => None,
        }
    }

    /// Whether it matches no name at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any pattern matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// The patterns as they are written.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(Pattern::to_string).collect()
    }

    /// The patterns, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_to_the_letter() {
        assert!(Name::parse("media.Transcode_2:hd-x").is_ok());
        assert!(Name::parse(&"x".repeat(128)).is_ok());
        assert_eq!(Name::parse(&"x".repeat(129)), Err(NameError::TooLong));
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(Name::parse("größe"), Err(NameError::Character('ö')));
    }

    #[test]
    fn letters_are_shared() {
        let mut shared = SharedNames::new(4);
        assert!(Arc::ptr_eq(&shared.get("a").0, &shared.get("a").0));
    }

    #[test]
    fn names_of_the_past_make_room() {
        // Regression: once so many names had been seen, no new one was ever shared again.
        let mut shared = SharedNames::new(4);
        let kept: Vec<_> = ["a", "b"].map(|text| shared.get(text)).into();
        for id in 0..100 {
            shared.get(&id.to_string());
            assert!(shared.names.len() <= 4);
        }
        let later = ["c", "d"].map(|text| [(); 8].map(|()| shared.get(text)));
        assert!(later.iter().all(|names| Arc::ptr_eq(&names[6].0, &names[7].0)));
        assert!(kept.iter().all(|name| Arc::ptr_eq(&name.0, &shared.get(name.as_str()).0)));
    }

    #[test]
    fn patterns() {
        let set = PatternSet::new(vec![Pattern::parse("ingest.*").unwrap(), Pattern::parse("report").unwrap()]);
        for (name, expected) in
            [("ingest.pdf", true), ("ingest.", true), ("ingest", false), ("report", true), ("reports", false)]
        {
            assert_eq!(set.matches(name), expected, "{name}");
        }
        assert!(PatternSet::all().matches("anything"));
        let set = |texts: &[&str]| PatternSet::new(texts.iter().map(|text| Pattern::parse(text).unwrap()).collect());
        for (a, b, expected) in [
            (&["*"][..], &["a", "b.*"][..], &["a", "b.*"][..]),
            (&["in.*"], &["in.pdf", "in", "in.x.*", "i*"], &["in.*", "in.pdf", "in.x.*"]),
            (&["a"], &["b"], &[]),
            (&["a.*"], &["b.*"], &[]),
        ] {
            assert_eq!(set(a).and(&set(b)), set(expected), "{a:?} and {b:?}");
            assert_eq!(set(b).and(&set(a)), set(expected), "{b:?} and {a:?}");
        }
        assert!(Pattern::parse("a*b").is_err());
        assert!(Pattern::parse("").is_err());
    }
}
