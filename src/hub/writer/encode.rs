//! Commits as text.

use std::ops::Range;

use bytes::Bytes;

use crate::engine::Batch;
use crate::settings::deleted_json;
use crate::store::{Aside, Commit, Entry, SettingEntry};
use crate::task::{Change, ChangeKind};
use crate::wire::{gone_line, open_task_line};

/// Events are written into buffers of about this size, which live as long as the last event in them is needed.
const EVENT_BUFFER_BYTES: usize = 64 << 10;

/// Writes each change once: as the event that the feed sends, and within it the record that the store keeps.
pub(super) fn encode(batch: &mut Batch, asides: Vec<Aside>) -> (Commit, Vec<Bytes>) {
    let changes = std::mem::take(&mut batch.changes);
    let mut lines = Vec::with_capacity(changes.len());
    let settings = std::mem::take(&mut batch.settings).into_iter().map(|change| {
        let record = match &change.next {
            Some(setting) => setting.to_json(),
            None => deleted_json(&change.id, change.rev),
        };
        SettingEntry { change, record: record.into() }
    });
    let mut commit = Commit {
        changes: Vec::with_capacity(changes.len()),
        settings: settings.collect(),
        keys: std::mem::take(&mut batch.keys),
        hand_outs: std::mem::take(&mut batch.hand_outs),
        asides,
        deliveries: Vec::new(),
        access: Vec::new(),
        audit: Vec::new(),
    };
    let mut buffer = Vec::with_capacity((changes.len() * 640).min(EVENT_BUFFER_BYTES + 8_192));
    let mut waiting: Vec<(Change, Range<usize>, Range<usize>)> = Vec::new();
    let mut left = changes.len();
    for change in changes {
        let from = buffer.len();
        let (line, record) = match change.kind {
            ChangeKind::Transition(event) => {
                open_task_line(&mut buffer, event, change.rev);
                let record_from = buffer.len();
                change.task.write_json(&mut buffer, None);
                let record = record_from..buffer.len();
                buffer.push(b'}');
                (from..buffer.len(), record)
            }
            ChangeKind::Gone => {
                buffer.extend_from_slice(&gone_line(change.task.task_id, change.rev));
                let record_from = buffer.len();
                change.task.write_json(&mut buffer, None);
                (from..record_from, record_from..buffer.len())
            }
        };
        waiting.push((change, line, record));
        left -= 1;
        if buffer.len() >= EVENT_BUFFER_BYTES || left == 0 {
            let bytes = Bytes::from(std::mem::take(&mut buffer));
            for (change, line, record) in waiting.drain(..) {
                lines.push(bytes.slice(line));
                commit.changes.push(Entry { change, record: bytes.slice(record) });
            }
        }
    }
    (commit, lines)
}
