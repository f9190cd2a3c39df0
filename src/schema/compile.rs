//! Reading a schema: the text becomes nodes, and what is no schema is refused where it stands.
//!
//! Every place of a schema becomes one node, however many references lead there, so what is read is no larger than the text.
//! A place has its node as soon as somebody speaks of it, and is read later, so however deep schemas stand within each other
//! takes no stack. References are resolved when all else is read; one that leads to a place that no keyword calls a schema has
//! it read then.

use std::collections::{BTreeMap, HashMap};

use crate::task::{Json, JsonError};

use super::keywords::{At, Bound, Count, Keyword, Node, Types};
use super::number::{DIVISOR_DIGITS_MAX, Decimal};
use super::pattern::Pattern;
use super::value::Value;
use super::{SCHEMA_BYTES_MAX, SchemaError, below, cut};

/// The one dialect that is read.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// How many schemas may be asked about one value, one through another.
const IN_PLACE_MAX: usize = 64;

pub(super) fn compile(text: &Json) -> Result<Vec<Node>, SchemaError> {
    text.check(SCHEMA_BYTES_MAX).map_err(|why| {
        SchemaError::new(
            "",
            match why {
                JsonError::TooLarge { bytes_max } => format!("must be at most {bytes_max} bytes of JSON text"),
                why => why.to_string(),
            },
        )
    })?;
    let root = Value::of(text).ok_or_else(|| SchemaError::new("", "is nested too deep"))?;
    let mut reader = Reader {
        root: &root,
        id: "",
        nodes: Vec::new(),
        places: HashMap::new(),
        unread: Vec::new(),
        anchors: HashMap::new(),
        refs: Vec::new(),
    };
    if let Some(Value::String(id)) = root.get("$id") {
        reader.id = id.split('#').next().unwrap_or_default();
    }
    reader.node(&root, "");
    reader.read()?;
    reader.resolve()?;
    let Reader { nodes, places, .. } = reader;
    let mut pointers = vec![""; nodes.len()];
    places.iter().for_each(|(pointer, at)| pointers[*at] = pointer);
    check_circles(&nodes, &pointers)?;
    Ok(nodes)
}

struct Reader<'t> {
    root: &'t Value<'t>,
    /// What the document calls itself; references may begin with it.
    id: &'t str,
    nodes: Vec<Node>,
    /// Where each place of the text became a node.
    places: HashMap<String, At>,
    /// Nodes whose places are still to be read.
    unread: Vec<(At, &'t Value<'t>, String)>,
    anchors: HashMap<&'t str, At>,
    /// References to resolve: whose, where it stands, and what it says.
    refs: Vec<(At, String, &'t str)>,
}

type Members<'t> = [(String, Value<'t>)];

impl<'t> Reader<'t> {
    /// The node of this place.
    fn node(&mut self, value: &'t Value<'t>, pointer: &str) -> At {
        if let Some(at) = self.places.get(pointer) {
            return *at;
        }
        let at = self.nodes.len();
        self.places.insert(pointer.to_owned(), at);
        self.nodes.push(Node::All(true));
        self.unread.push((at, value, pointer.to_owned()));
        at
    }

    /// Reads the places that were spoken of, and those that these speak of.
    fn read(&mut self) -> Result<(), SchemaError> {
        while let Some((at, value, pointer)) = self.unread.pop() {
            self.nodes[at] = match value {
                Value::Bool(all) => Node::All(*all),
                Value::Object(members) => Node::Each(self.keywords(members, value, at, &pointer)?),
                _ => return Err(SchemaError::new(pointer, "must be an object or a boolean")),
            };
        }
        Ok(())
    }

    /// What a schema asks for: the cheap first, and what depends on the others last.
    fn keywords(
        &mut self,
        members: &'t Members<'t>,
        schema: &'t Value<'t>,
        at: At,
        pointer: &str,
    ) -> Result<Box<[Keyword]>, SchemaError> {
        let mut keywords = Vec::new();
        for (name, value) in members {
            let here = below(pointer, name);
            if let Some(keyword) = self.keyword(name, value, schema, at, here)? {
                keywords.push(keyword);
            }
        }
        let rank = |keyword: &Keyword| match keyword {
            Keyword::Type(_) | Keyword::Enum(..) | Keyword::Const(..) => 0,
            Keyword::UnevaluatedItems(_) | Keyword::UnevaluatedProperties(_) => 2,
            _ => 1,
        };
        keywords.sort_by_key(rank);
        Ok(keywords.into())
    }

    fn keyword(
        &mut self,
        name: &str,
        value: &'t Value<'t>,
        schema: &'t Value<'t>,
        at: At,
        here: String,
    ) -> Result<Option<Keyword>, SchemaError> {
        let wrong = |message: &str| Err(SchemaError::new(here.clone(), message));
        Ok(Some(match name {
            "$schema" => match value {
                Value::String(dialect) if dialect.trim_end_matches('#') == DIALECT => return Ok(None),
                _ => return wrong(&format!("must be {DIALECT}")),
            },
            "$id" => match value {
                Value::String(_) if here == "/$id" => return Ok(None),
                Value::String(_) => return wrong("must stand at the beginning only"),
                _ => return wrong("must be a string"),
            },
            "$anchor" | "$dynamicAnchor" => match value {
                Value::String(anchor) => {
                    if self.anchors.insert(anchor, at).is_some_and(|known| known != at) {
                        return wrong("must not stand twice");
                    }
                    return Ok(None);
                }
                _ => return wrong("must be a string"),
            },
            // There is one document, so the outermost anchor of a name is the only one.
            "$ref" | "$dynamicRef" => match value {
                Value::String(to) => {
                    self.refs.push((at, here, to));
                    return Ok(None);
                }
                _ => return wrong("must be a string"),
            },
            "$defs" | "definitions" => {
                self.map(value, &here)?;
                return Ok(None);
            }
            "title" | "description" | "$comment" | "format" => match value {
                Value::String(_) => return Ok(None),
                _ => return wrong("must be a string"),
            },

            "type" => Keyword::Type(types(value, &here)?),
            "enum" => match value {
                Value::Array(values) => {
                    let shown: Vec<String> = values.iter().map(shown).collect();
                    Keyword::Enum(values.iter().map(Value::key).collect(), cut(shown.join(", ")))
                }
                _ => return wrong("must be an array"),
            },
            "const" => Keyword::Const(value.key(), cut(shown(value))),

            "minimum" => compare(Bound::Minimum, value, &here)?,
            "maximum" => compare(Bound::Maximum, value, &here)?,
            "exclusiveMinimum" => compare(Bound::ExclusiveMinimum, value, &here)?,
            "exclusiveMaximum" => compare(Bound::ExclusiveMaximum, value, &here)?,
            "multipleOf" => match value {
                Value::Number(text) => {
                    let divisor = Decimal::of(text);
                    if !divisor.is_positive() {
                        return wrong("must be above 0");
                    }
                    if divisor.digits() > DIVISOR_DIGITS_MAX {
                        return wrong(&format!("must have at most {DIVISOR_DIGITS_MAX} digits"));
                    }
                    Keyword::MultipleOf(divisor, cut((*text).to_owned()))
                }
                _ => return wrong("must be a number"),
            },

            "minLength" => Keyword::Length(Count::Min(count(value, &here)?)),
            "maxLength" => Keyword::Length(Count::Max(count(value, &here)?)),
            "pattern" => match value {
                Value::String(text) => Keyword::Pattern(pattern(text, &here)?),
                _ => return wrong("must be a string"),
            },

            "minItems" => Keyword::Items(Count::Min(count(value, &here)?)),
            "maxItems" => Keyword::Items(Count::Max(count(value, &here)?)),
            "uniqueItems" => match value {
                Value::Bool(true) => Keyword::UniqueItems,
                Value::Bool(false) => return Ok(None),
                _ => return wrong("must be a boolean"),
            },
            "prefixItems" => {
                Keyword::EachItem { prefix: self.list(value, &here)?, rest: self.beside(schema, &here, "items") }
            }
            // What stands beside `prefixItems` is part of that.
            "items" => {
                let at = self.node(value, &here);
                if schema.get("prefixItems").is_some() {
                    return Ok(None);
                }
                Keyword::EachItem { prefix: Vec::new(), rest: Some(at) }
            }
            "contains" => Keyword::Contains {
                at: self.node(value, &here),
                min: counted(schema, &here, "minContains")?.unwrap_or(1),
                max: counted(schema, &here, "maxContains")?,
            },
            "minContains" | "maxContains" => {
                count(value, &here)?;
                return Ok(None);
            }

            "minProperties" => Keyword::Properties(Count::Min(count(value, &here)?)),
            "maxProperties" => Keyword::Properties(Count::Max(count(value, &here)?)),
            "required" => Keyword::Required(strings(value, &here)?),
            "dependentRequired" => {
                let each =
                    |(name, value): &(String, Value<'_>)| Ok((name.clone(), strings(value, &below(&here, name))?));
                Keyword::DependentRequired(members(value, &here)?.iter().map(each).collect::<Result<_, _>>()?)
            }
            "dependentSchemas" => Keyword::DependentSchemas(self.map(value, &here)?),
            "propertyNames" => Keyword::PropertyNames(self.node(value, &here)),
            "properties" | "patternProperties" | "additionalProperties" => {
                let first = ["properties", "patternProperties", "additionalProperties"]
                    .into_iter()
                    .find(|name| schema.get(name).is_some());
                if first != Some(name) {
                    // Part of the first.
                    return Ok(None);
                }
                self.each_property(schema, here.strip_suffix(name).unwrap_or_default().trim_end_matches('/'))?
            }

            "allOf" => Keyword::AllOf(self.some(value, &here)?),
            "anyOf" => Keyword::AnyOf(self.some(value, &here)?),
            "oneOf" => Keyword::OneOf(self.some(value, &here)?),
            "not" => Keyword::Not(self.node(value, &here)),
            "if" => Keyword::If {
                condition: self.node(value, &here),
                then: self.beside(schema, &here, "then"),
                otherwise: self.beside(schema, &here, "else"),
            },
            // Without `if` they say nothing, and are schemas all the same.
            "then" | "else" => {
                self.node(value, &here);
                return Ok(None);
            }
            "unevaluatedItems" => Keyword::UnevaluatedItems(self.node(value, &here)),
            "unevaluatedProperties" => Keyword::UnevaluatedProperties(self.node(value, &here)),
            _ => return Ok(None),
        }))
    }

    fn each_property(&mut self, schema: &'t Value<'t>, pointer: &str) -> Result<Keyword, SchemaError> {
        let here = |name: &str| below(pointer, name);
        let named = match schema.get("properties") {
            Some(value) => self.map(value, &here("properties"))?,
            None => BTreeMap::new(),
        };
        let mut patterns = Vec::new();
        if let Some(value) = schema.get("patternProperties") {
            let here = here("patternProperties");
            for (text, value) in members(value, &here)? {
                let here = below(&here, text);
                patterns.push((pattern(text, &here)?, self.node(value, &here)));
            }
        }
        let additional =
            schema.get("additionalProperties").map(|value| self.node(value, &here("additionalProperties")));
        Ok(Keyword::EachProperty { named, patterns, additional })
    }

    /// A schema that stands beside the keyword at `here`.
    fn beside(&mut self, schema: &'t Value<'t>, here: &str, name: &str) -> Option<At> {
        schema.get(name).map(|value| self.node(value, &sibling(here, name)))
    }

    fn map(&mut self, value: &'t Value<'t>, here: &str) -> Result<BTreeMap<String, At>, SchemaError> {
        let mut map = BTreeMap::new();
        for (name, value) in members(value, here)? {
            map.insert(name.clone(), self.node(value, &below(here, name)));
        }
        Ok(map)
    }

    fn list(&mut self, value: &'t Value<'t>, here: &str) -> Result<Vec<At>, SchemaError> {
        let Value::Array(items) = value else { return Err(SchemaError::new(here, "must be an array of schemas")) };
        Ok(items.iter().enumerate().map(|(at, value)| self.node(value, &format!("{here}/{at}"))).collect())
    }

    fn some(&mut self, value: &'t Value<'t>, here: &str) -> Result<Vec<At>, SchemaError> {
        match self.list(value, here)? {
            list if list.is_empty() => Err(SchemaError::new(here, "must not be empty")),
            list => Ok(list),
        }
    }

    /// Finds what references mean. What is read for one may have more of them.
    fn resolve(&mut self) -> Result<(), SchemaError> {
        while let Some((whose, here, to)) = self.refs.pop() {
            let fragment = match to.strip_prefix(self.id).unwrap_or(to) {
                "" => "",
                rest => rest.strip_prefix('#').ok_or_else(|| {
                    SchemaError::new(
                        here.clone(),
                        cut(format!(
                            "must lead to a place of this schema, such as #/$defs/name: nothing is fetched, not {to}"
                        )),
                    )
                })?,
            };
            let unknown = || SchemaError::new(here.clone(), cut(format!("leads nowhere: {to}")));
            let fragment = percent_decoded(fragment).ok_or_else(unknown)?;
            let target = match fragment.starts_with('/') || fragment.is_empty() {
                true => {
                    let (value, pointer) = self.find(&fragment).ok_or_else(unknown)?;
                    let target = self.node(value, &pointer);
                    self.read()?;
                    target
                }
                false => *self.anchors.get(fragment.as_str()).ok_or_else(unknown)?,
            };
            if let Node::Each(keywords) = &mut self.nodes[whose] {
                let mut all = std::mem::take(keywords).into_vec();
                all.insert(0, Keyword::Ref(target));
                *keywords = all.into();
            }
        }
        Ok(())
    }

    /// What a pointer leads to, and the pointer as all others are written.
    fn find(&self, pointer: &str) -> Option<(&'t Value<'t>, String)> {
        let (mut value, mut path) = (self.root, String::new());
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            value = match value {
                Value::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                value => value.get(&token)?,
            };
            path = below(&path, &token);
        }
        Some((value, path))
    }
}

/// The pointer to what stands beside another.
fn sibling(pointer: &str, name: &str) -> String {
    below(pointer.rsplit_once('/').map_or("", |(parent, _)| parent), name)
}

/// Refuses schemas that ask about the same value again, and those that ask too many others about it.
fn check_circles(nodes: &[Node], pointers: &[&str]) -> Result<(), SchemaError> {
    // The longest way on from each node; `None` while it is on the way that is looked at.
    let mut known: HashMap<At, Option<usize>> = HashMap::new();
    let next = |at: At| match &nodes[at] {
        Node::All(_) => Vec::new(),
        Node::Each(keywords) => keywords.iter().flat_map(Keyword::in_place).collect::<Vec<At>>(),
    };
    for from in 0..nodes.len() {
        let mut way: Vec<(At, Vec<At>, usize)> = Vec::new();
        let mut enter = vec![from];
        while let Some(at) = enter.pop() {
            match known.get(&at) {
                Some(Some(length)) => {
                    if let Some((_, _, longest)) = way.last_mut() {
                        *longest = (*longest).max(length + 1);
                    }
                }
                Some(None) => {
                    return Err(SchemaError::new(pointers[at], "must not refer to itself for the same value"));
                }
                None => {
                    known.insert(at, None);
                    way.push((at, next(at), 0));
                }
            }
            // On to the next of the innermost that has any left.
            while let Some((at, left, longest)) = way.last_mut() {
                if let Some(next) = left.pop() {
                    enter.push(next);
                    break;
                }
                let (at, longest) = (*at, *longest);
                if longest > IN_PLACE_MAX {
                    let message = format!("must ask at most {IN_PLACE_MAX} schemas in a row about one value");
                    return Err(SchemaError::new(pointers[at], message));
                }
                known.insert(at, Some(longest));
                way.pop();
                if let Some((_, _, outer)) = way.last_mut() {
                    *outer = (*outer).max(longest + 1);
                }
            }
        }
    }
    Ok(())
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    let text = text.as_bytes();
    while at < text.len() {
        if text[at] == b'%' {
            let code = std::str::from_utf8(text.get(at + 1..at + 3)?).ok()?;
            bytes.push(u8::from_str_radix(code, 16).ok()?);
            at += 3;
        } else {
            bytes.push(text[at]);
            at += 1;
        }
    }
    String::from_utf8(bytes).ok()
}

fn members<'v, 't>(value: &'v Value<'t>, here: &str) -> Result<&'v Members<'t>, SchemaError> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(SchemaError::new(here, "must be an object")),
    }
}

fn count(value: &Value<'_>, here: &str) -> Result<u64, SchemaError> {
    let number = match value {
        Value::Number(text) => Some(Decimal::of(text)).filter(|_| Decimal::is_integer(text)),
        _ => None,
    };
    let number = number.filter(|number| *number >= Decimal::of("0"));
    let number = number.ok_or_else(|| SchemaError::new(here, "must be a whole number from 0 up"))?;
    // More than can be is as much as can be.
    Ok(number.to_count().unwrap_or(u64::MAX))
}

/// A count that stands beside the keyword at `here`.
fn counted(schema: &Value<'_>, here: &str, name: &str) -> Result<Option<u64>, SchemaError> {
    schema.get(name).map(|value| count(value, &sibling(here, name))).transpose()
}

fn compare(bound: Bound, value: &Value<'_>, here: &str) -> Result<Keyword, SchemaError> {
    match value {
        Value::Number(text) => Ok(Keyword::Compare(bound, Decimal::of(text), cut((*text).to_owned()))),
        _ => Err(SchemaError::new(here, "must be a number")),
    }
}

fn pattern(text: &str, here: &str) -> Result<Pattern, SchemaError> {
    Pattern::read(text).map_err(|why| SchemaError::new(here, cut(why)))
}

fn types(value: &Value<'_>, here: &str) -> Result<Types, SchemaError> {
    let wrong =
        || SchemaError::new(here, "must be null, boolean, integer, number, string, array or object, or a list of them");
    let add = |types: Types, value: &Value<'_>| match value {
        Value::String(name) => types.with(name).ok_or_else(wrong),
        _ => Err(wrong()),
    };
    match value {
        Value::Array(names) if !names.is_empty() => names.iter().try_fold(Types::none(), add),
        value => add(Types::none(), value),
    }
}

fn strings(value: &Value<'_>, here: &str) -> Result<Vec<String>, SchemaError> {
    let wrong = || SchemaError::new(here, "must be an array of strings, no two of them alike");
    let Value::Array(items) = value else { return Err(wrong()) };
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::String(name) => names.push(name.clone()),
            _ => return Err(wrong()),
        }
    }
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(wrong());
    }
    Ok(names)
}

/// A value as it is shown in a message.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(text) => cut((*text).to_owned()),
        Value::String(text) => cut(format!("{text:?}")),
        Value::Array(_) => "[…]".to_owned(),
        Value::Object(_) => "{…}".to_owned(),
    }
}
