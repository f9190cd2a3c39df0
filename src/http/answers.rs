//! What the hub says to live clients beside what the feed tells: the lines of its answers, and snapshots in pages.

use bytes::Bytes;

use crate::hub::Page;

/// The most tasks, and about the most bytes, in one message of a snapshot.
const PAGE_LEN_MAX: usize = 100;
pub(super) const PAGE_BYTES: usize = 32 << 10;

/// How a subscription begins.
pub(super) enum Mode {
    Snapshot,
    Resumed,
}

pub(super) fn subscribed(id: Option<u64>, name: &str, mode: Mode, rev: u64) -> Bytes {
    let mode = match mode {
        Mode::Snapshot => "snapshot",
        Mode::Resumed => "resumed",
    };
    let name = quoted(name);
    format!(r#"{{"type":"subscribed"{},"sub":{name},"mode":"{mode}","rev":{rev}}}"#, with_id(id)).into()
}

pub(super) fn reset_line(name: &str, reason: &str) -> Bytes {
    format!(r#"{{"type":"reset","sub":{},"reason":"{reason}"}}"#, quoted(name)).into()
}

pub(super) fn with_id(id: Option<u64>) -> String {
    id.map_or(String::new(), |id| format!(r#","id":{id}"#))
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A snapshot in messages of a handy size; at least one. Each is made when it is asked for, so that a client that is slow
/// to take them holds one.
pub(super) fn snapshot_lines(name: &str, page: &Page) -> impl Iterator<Item = Bytes> {
    let mut rest = Some(&page.tasks[..]);
    std::iter::from_fn(move || {
        let left = rest.take()?;
        let mut bytes = 0;
        let fits = left.iter().take(PAGE_LEN_MAX).take_while(|(_, record)| {
            let room = bytes < PAGE_BYTES;
            bytes += record.len();
            room
        });
        let (now, beyond) = left.split_at(fits.count());
        let mut line = format!(r#"{{"type":"snapshot","sub":{},"tasks":["#, quoted(name)).into_bytes();
        for (at, (_, record)) in now.iter().enumerate() {
            if at > 0 {
                line.push(b',');
            }
            line.extend_from_slice(record);
        }
        let more = !beyond.is_empty();
        line.extend_from_slice(format!(r#"],"more":{more}"#).as_bytes());
        if !more && page.more {
            line.extend_from_slice(br#","truncated":true"#);
        }
        line.push(b'}');
        rest = more.then_some(beyond);
        Some(line.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskId;

    fn page(records: usize, bytes: usize, more: bool) -> Page {
        let id = TaskId::from_bytes([7; 16]);
        let record = Bytes::from(format!("\"{}\"", "x".repeat(bytes - 2)));
        Page { tasks: (0..records).map(|_| (id, record.clone())).collect(), more }
    }

    fn check(page: Page, expected: &[(usize, bool, bool)]) {
        let shapes: Vec<_> = snapshot_lines("a \"b\"", &page)
            .map(|line| {
                let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
                assert_eq!((&value["type"], &value["sub"]), (&"snapshot".into(), &"a \"b\"".into()));
                let truncated = value.get("truncated").is_some_and(|truncated| truncated == true);
                (value["tasks"].as_array().unwrap().len(), value["more"] == true, truncated)
            })
            .collect();
        assert_eq!(shapes, expected);
    }

    #[test]
    fn snapshots_come_in_pages() {
        check(page(0, 10, false), &[(0, false, false)]);
        check(page(100, 10, false), &[(100, false, false)]);
        check(page(101, 10, true), &[(100, true, false), (1, false, true)]);
        check(page(3, PAGE_BYTES, false), &[(1, true, false), (1, true, false), (1, false, false)]);
    }

    #[test]
    fn lines_are_json() {
        for line in [
            subscribed(Some(2), "a\"", Mode::Resumed, 5),
            subscribed(None, "a", Mode::Snapshot, 5),
            reset_line("a", "epoch"),
            crate::wire::gone_line(TaskId::from_bytes([1; 16]), 3),
        ] {
            serde_json::from_slice::<serde_json::Value>(&line).unwrap();
        }
    }
}
