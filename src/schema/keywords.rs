//! A schema as it is kept: nodes, and what each of them asks for.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::number::Decimal;
use super::pattern::Pattern;
use super::value::Value;

/// The place of a node among all of a schema.
pub(super) type At = usize;

/// A schema within a schema.
#[derive(Debug)]
pub(super) enum Node {
    /// Everything fits, or nothing.
    All(bool),
    /// What meets each of these, in their order, fits.
    Each(Box<[Keyword]>),
}

/// What is asked for.
#[derive(Debug)]
pub(super) enum Keyword {
    Type(Types),
    /// One of these values, by their keys; and how they are shown.
    Enum(HashSet<Box<[u8]>>, String),
    Const(Box<[u8]>, String),

    Compare(Bound, Decimal, String),
    MultipleOf(Decimal, String),

    Length(Count),
    Pattern(Pattern),

    Items(Count),
    UniqueItems,
    EachItem {
        prefix: Vec<At>,
        rest: Option<At>,
    },
    Contains {
        at: At,
        min: u64,
        max: Option<u64>,
    },

    Properties(Count),
    Required(Vec<String>),
    /// What must stand beside a member that stands there.
    DependentRequired(BTreeMap<String, Vec<String>>),
    DependentSchemas(BTreeMap<String, At>),
    PropertyNames(At),
    EachProperty {
        named: BTreeMap<String, At>,
        patterns: Vec<(Pattern, At)>,
        additional: Option<At>,
    },

    Ref(At),
    AllOf(Vec<At>),
    AnyOf(Vec<At>),
    OneOf(Vec<At>),
    Not(At),
    If {
        condition: At,
        then: Option<At>,
        otherwise: Option<At>,
    },

    /// What none of the others has looked at.
    UnevaluatedItems(At),
    UnevaluatedProperties(At),
}

/// A number at most, or at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Min(u64),
    Max(u64),
}

impl Count {
    pub(super) fn holds(self, count: usize) -> bool {
        match self {
            Count::Min(min) => count as u64 >= min,
            Count::Max(max) => count as u64 <= max,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Min(min) => write!(f, "at least {min}"),
            Count::Max(max) => write!(f, "at most {max}"),
        }
    }
}

/// On which side of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
}

impl Bound {
    pub(super) fn holds(self, number: &Decimal, bound: &Decimal) -> bool {
        match self {
            Bound::Minimum => number >= bound,
            Bound::Maximum => number <= bound,
            Bound::ExclusiveMinimum => number > bound,
            Bound::ExclusiveMaximum => number < bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Minimum => "at least",
            Bound::Maximum => "at most",
            Bound::ExclusiveMinimum => "more than",
            Bound::ExclusiveMaximum => "less than",
        })
    }
}

/// Some of the types of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

/// Their names; `integer` is a number without a fraction.
const NAMES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

impl Types {
    pub(super) fn none() -> Types {
        Types(0)
    }

    /// With the type of this name as well.
    pub(super) fn with(self, name: &str) -> Option<Types> {
        NAMES.iter().position(|known| *known == name).map(|at| Types(self.0 | 1 << at))
    }

    pub(super) fn hold(self, value: &Value<'_>) -> bool {
        let has = |name: &str| NAMES.iter().position(|known| *known == name).is_some_and(|at| self.0 & 1 << at != 0);
        match value {
            Value::Null => has("null"),
            Value::Bool(_) => has("boolean"),
            Value::Number(text) => has("number") || has("integer") && Decimal::is_integer(text),
            Value::String(_) => has("string"),
            Value::Array(_) => has("array"),
            Value::Object(_) => has("object"),
        }
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = (0..NAMES.len()).filter(|at| self.0 & 1 << at != 0).map(|at| NAMES[at]).collect();
        f.write_str(&names.join(" or "))
    }
}

impl Keyword {
    /// The schemas that are asked about the same value.
    pub(super) fn in_place(&self) -> Vec<At> {
        match self {
            Keyword::Ref(at) | Keyword::Not(at) => vec![*at],
            Keyword::AllOf(all) | Keyword::AnyOf(all) | Keyword::OneOf(all) => all.clone(),
            Keyword::DependentSchemas(all) => all.values().copied().collect(),
            Keyword::If { condition, then, otherwise } => {
                [Some(*condition), *then, *otherwise].into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    }
}
