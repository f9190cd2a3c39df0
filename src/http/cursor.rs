//! The place in a list where the next page begins. Opaque to clients, and good only for the list it came from.

use sha2::{Digest as _, Sha256};

use crate::task::TaskId;
use crate::wire::{Code, Problem};

/// The cursor behind `last` in the list that `list` describes.
pub(super) fn encode(last: TaskId, list: &str) -> String {
    let mut text = String::with_capacity(48);
    for byte in last.as_bytes().iter().chain(&check(last, list)) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The task behind which the page begins.
pub(super) fn decode(cursor: &str, list: &str) -> Result<TaskId, Problem> {
    let wrong =
        || Problem::new(Code::BadCursor, "the cursor is not one of this list; begin again without").at("cursor");
    let digits = |range: std::ops::Range<usize>| {
        cursor.get(range).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    if cursor.len() != 48 {
        return Err(wrong());
    }
    let id = digits(0..32).and_then(|digits| u128::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?;
    let mark = digits(32..48).and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?;
    let last = TaskId::from_bytes(id.to_be_bytes());
    if mark.to_be_bytes() == check(last, list) { Ok(last) } else { Err(wrong()) }
}

/// Ties an id to its list. It guards against mistakes, not against forgery: any id is a legitimate place.
fn check(last: TaskId, list: &str) -> [u8; 8] {
    let digest = Sha256::new().chain_update(last.as_bytes()).chain_update(list).finalize();
    digest[..8].try_into().expect("a SHA-256 has 32 bytes")
}

/// What a list is, in words: its parameters but for those that only choose the page.
pub(super) fn list_of(query: Option<&str>) -> String {
    let mut pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| !matches!(name.as_ref(), "cursor" | "limit"))
        .collect();
    pairs.sort();
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_know_their_list() {
        let last: TaskId = "01890000-0000-7000-8000-00000000002a".parse().unwrap();
        let list = list_of(Some("status=failed&queue=a&limit=10&cursor=x"));
        assert_eq!(list, list_of(Some("queue=a&status=failed")));
        let cursor = encode(last, &list);
        assert_eq!(decode(&cursor, &list).unwrap(), last);
        assert_eq!(decode(&cursor, &list_of(Some("status=failed"))).unwrap_err().code, Code::BadCursor);
    }

    #[test]
    fn damage_is_noticed() {
        let last: TaskId = "01890000-0000-7000-8000-00000000002a".parse().unwrap();
        let cursor = encode(last, "");
        for at in 0..cursor.len() {
            let mut damaged = cursor.clone().into_bytes();
            damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
            assert!(decode(std::str::from_utf8(&damaged).unwrap(), "").is_err(), "at {at}");
        }
        for wrong in ["", "x", "+", &cursor[1..], &format!("{cursor}0"), &"é".repeat(24), &"+0".repeat(24)] {
            assert!(decode(wrong, "").is_err(), "{wrong}");
        }
    }
}
