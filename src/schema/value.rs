//! JSON texts as values, with numbers as they were sent.

use crate::task::{Json, Walk};

use super::number::Decimal;

/// How deep a text is followed. A payload nests less deep; one with the results that it takes may nest twice as deep.
const DEPTH_MAX: usize = 320;

/// A value of a JSON text.
#[derive(Debug)]
pub(super) enum Value<'t> {
    Null,
    Bool(bool),
    Number(&'t str),
    String(String),
    Array(Vec<Value<'t>>),
    /// In order of their names. Of a name that stands there twice the last counts, as for most readers.
    Object(Vec<(String, Value<'t>)>),
}

impl<'t> Value<'t> {
    /// The value of a text; nothing where it nests too deep.
    pub(super) fn of(text: &'t Json) -> Option<Value<'t>> {
        value(&mut Walk::of(text), 0)
    }

    /// The member of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Value<'t>> {
        match self {
            Value::Object(members) => {
                let at = members.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
                Some(&members[at].1)
            }
            _ => None,
        }
    }

    /// Appends a form that is the same for values that the standard calls equal, and for no others.
    pub(super) fn write_key(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.push(b'n'),
            Value::Bool(yes) => out.push(if *yes { b't' } else { b'f' }),
            Value::Number(text) => Decimal::of(text).write_key(out),
            Value::String(text) => write_text(text, out),
            Value::Array(items) => {
                out.push(b'[');
                items.iter().for_each(|item| item.write_key(out));
                out.push(b']');
            }
            Value::Object(members) => {
                out.push(b'{');
                for (name, member) in members {
                    write_text(name, out);
                    member.write_key(out);
                }
                out.push(b'}');
            }
        }
    }

    /// That form.
    pub(super) fn key(&self) -> Box<[u8]> {
        let mut out = Vec::new();
        self.write_key(&mut out);
        out.into()
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn value<'t>(walk: &mut Walk<'t>, depth: usize) -> Option<Value<'t>> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match walk.peek() {
        Some(b'{') => {
            let (mut members, mut is_whole) = (Vec::new(), true);
            walk.each_field(|walk, name| match value(walk, depth + 1) {
                Some(member) => members.push((text(name), member)),
                None => {
                    walk.skip();
                    is_whole = false;
                }
            });
            if !is_whole {
                return None;
            }
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            // Keeps the first of each name, so the last goes before the others.
            members.reverse();
            members.dedup_by(|(a, _), (b, _)| a == b);
            members.reverse();
            members.shrink_to_fit();
            Value::Object(members)
        }
        Some(b'[') => {
            let (mut items, mut is_whole) = (Vec::new(), true);
            walk.each_item(|walk, _| {
                match value(walk, depth + 1) {
                    Some(item) => items.push(item),
                    None => is_whole = false,
                }
                is_whole
            });
            if !is_whole {
                return None;
            }
            Value::Array(items)
        }
        Some(b'"') => Value::String(text(walk.string())),
        _ => match walk.plain() {
            b"null" => Value::Null,
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            number => Value::Number(std::str::from_utf8(number).unwrap_or("0")),
        },
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned())
}
