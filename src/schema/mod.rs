//! JSON Schema 2020-12 of payloads: read once, and asked about texts.
//!
//! A schema and a payload may both come from people who wish the hub no good, and a validator that does what they say is a
//! program that they wrote: references that fan out make a hundred lines of schema take longer than the universe has, a
//! schema that leads back to itself takes the stack, and a pattern that backtracks takes one string. No library bounds all
//! of that, and none compares numbers that it was sent as text without changing what numbers are for the whole program. So
//! this one is our own, small, and pure:
//!
//! * **Steps are counted.** Each keyword that is looked at costs one, what a pattern does its price; a payload has so many for
//!   each of its bytes, and one that takes more is refused. So a check takes time in proportion to the payload, whatever the
//!   schema says, and the same payload has the same verdict everywhere.
//! * **Depth is bounded.** What leads back to itself without going down in the payload is found when the schema is read; and
//!   what goes down, counted.
//! * **Patterns are linear.** They run on automata; look-around and references back are refused when the schema is read.
//! * **Nothing is fetched.** References stay within the document.
//! * **Numbers are their text**: `1.0` is `1`, `0.3` is three times `0.1`, and no digit is lost, however many there are.
//!
//! `format`, `content…` and `default` say something to people and change nothing, as the standard has it.

mod check;
mod compile;
mod keywords;
mod number;
mod pattern;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use crate::task::Json;

use self::keywords::Node;

/// The largest schema, in bytes of JSON text: it is held in memory, read again, and a hundred times what people write.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// What is told of one payload, or of several that come together; the first are enough to go on with.
pub const FAULTS_MAX: usize = 20;
/// The longest pointer and the longest message of a fault, in bytes. Beyond, they are cut.
const FAULT_TEXT_BYTES_MAX: usize = 512;
/// Steps that a check may take, and for each byte of the payload as many more. At some tens of nanoseconds each a payload of
/// 1 MiB takes a second at most, and a small one a few milliseconds; what people write takes a hundredth of it.
const STEPS_LEAST: u64 = 100_000;
const STEPS_A_BYTE: u64 = 64;
/// How deep schemas may be applied within each other: a payload may nest 128 deep, with some schemas applied at each place. At
/// about a kilobyte of stack each it leaves the smallest thread its half.
const DEPTH_MAX: u32 = 320;

/// A schema, ready to be asked.
#[derive(Debug)]
pub struct Schema {
    /// The first is the whole.
    nodes: Vec<Node>,
}

/// What is wrong with a schema, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// JSON Pointer into the schema.
    pub pointer: String,
    /// What must hold, to be read after a name.
    pub message: String,
}

/// What does not fit of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON Pointer into the payload.
    pub pointer: String,
    /// What must hold, to be read after a name.
    pub message: String,
}

impl SchemaError {
    fn new(pointer: impl Into<String>, message: impl Into<String>) -> SchemaError {
        SchemaError { pointer: pointer.into(), message: message.into() }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => write!(f, "{}", self.message),
            pointer => write!(f, "{} at {pointer}", self.message),
        }
    }
}

impl std::error::Error for SchemaError {}

impl Schema {
    /// Reads a schema. Fails where it is none, or asks for what is not done here. Some milliseconds for the largest.
    pub fn read(text: &Json) -> Result<Schema, SchemaError> {
        compile::compile(text).map(|nodes| Schema { nodes })
    }

    /// What does not fit of a payload, at most so many faults; nothing where it fits.
    pub fn faults(&self, payload: &Json, faults_max: usize) -> Vec<Fault> {
        check::check(&self.nodes, payload, faults_max)
    }
}

/// A pointer one step longer.
fn below(pointer: &str, token: &str) -> String {
    let mut longer = String::with_capacity(pointer.len() + token.len() + 1);
    longer.push_str(pointer);
    push_token(&mut longer, token);
    longer
}

fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    for letter in token.chars() {
        match letter {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            letter => pointer.push(letter),
        }
    }
}

/// A text within its bound.
fn cut(mut text: String) -> String {
    if text.len() > FAULT_TEXT_BYTES_MAX {
        let end = (0..=FAULT_TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}
