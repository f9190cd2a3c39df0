//! Why a row of the log cannot be read.

use std::fmt;

/// Why a row cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::sqlite) enum Damage {
    /// Written by a version of the hub that this one does not know.
    Version(u8),
    Checksum,
    Packed,
    Short,
    Number,
    Flags(u8),
    Tag(u8),
    Level(u8),
    Kind(u8),
    Rate(u8),
    Text,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Version(version) => write!(f, "unknown version {version}"),
            Damage::Checksum => f.write_str("wrong checksum"),
            Damage::Packed => f.write_str("cannot be unpacked"),
            Damage::Short => f.write_str("ends too early"),
            Damage::Number => f.write_str("a number is too large"),
            Damage::Flags(flags) => write!(f, "unknown flags {flags:#04x}"),
            Damage::Tag(tag) => write!(f, "unknown item {tag}"),
            Damage::Level(level) => write!(f, "unknown level {level}"),
            Damage::Kind(kind) => write!(f, "unknown kind of setting {kind}"),
            Damage::Rate(by) => write!(f, "unknown kind of rate {by}"),
            Damage::Text => f.write_str("a text is not UTF-8"),
        }
    }
}
