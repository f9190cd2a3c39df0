//! What is in the log and not yet in the view.
//!
//! One entry a task, whatever the number of its changes: the newest record, the history lines since the last settling,
//! and the parts beside it. The writer adds to it after each commit, and takes from it after each settling; readers look
//! here first and in the view second. In that order nothing is missed: what leaves the staging is in the view already.
//! What both know (history lines, log lines) is told apart by `rev` and `seq`.
//!
//! It is bounded by the writer, which settles; see [`Store::unsettled`](crate::store::Store::unsettled).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::items::Items;
use crate::access::{AccessChange, AccessKey, AccessRecord, AuditEntry};
use crate::settings::{HandOuts, SettingId};
use crate::store::{Aside, Digest, KeyEntry, OwedDelivery};
use crate::task::{
    Delivery, DeliveryId, DeliveryState, DeliveryStep, IdHasher, Json, LogLine, NewestLines, Task, TaskId, Timestamp,
};

/// A batch takes no further task once it has so many bytes beside the records: a disk writes them in some milliseconds.
const BATCH_BYTES: usize = 4 << 20;

/// Room for so many tasks is kept when all are settled: some 300 KiB.
const TASKS_KEPT: usize = 1_024;

/// What waits to be settled.
#[derive(Default)]
pub(super) struct Staging {
    /// In the order of their oldest row.
    tasks: VecDeque<Staged>,
    /// The position of each of them, counted from the first that ever was.
    positions: HashMap<TaskId, u64, IdHasher>,
    /// The position of the first in `tasks`.
    first: u64,
    keys: HashMap<Digest, KeyEntry>,
    /// The keys above and their rows, oldest first; a key that was given twice stands here twice.
    key_order: VecDeque<(i64, Digest)>,
    /// The newest of each setting, or that it is not set any more, and in which rows they are: as with keys.
    settings: HashMap<SettingId, StagedSetting>,
    setting_order: VecDeque<(i64, SettingId)>,
    /// What was handed out under rates, and in which rows that is.
    hand_outs: VecDeque<(i64, HandOuts)>,
    /// The newest of each delivery, and in which rows they are: as with keys.
    deliveries: HashMap<DeliveryId, StagedDelivery>,
    delivery_order: VecDeque<(i64, DeliveryId)>,
    /// The newest of each record about access, or that it is gone, and in which rows they are: as with keys.
    access: HashMap<AccessKey, Option<AccessRecord>>,
    access_order: VecDeque<(i64, AccessKey)>,
    /// Entries of the audit, and in which rows they are.
    audit: VecDeque<(i64, AuditEntry)>,
    /// The rows that are in the log, with the bytes that each stands for.
    rows: VecDeque<(i64, usize)>,
    bytes: usize,
}

/// What waits of one task.
pub(super) struct Staged {
    pub task_id: TaskId,
    /// The oldest row of the log that says something of it.
    row: i64,
    /// `None` where only asides wait.
    pub record: Option<StagedRecord>,
    pub payload: Option<Json>,
    /// Items of a payload that is gathered.
    pub items: Option<Box<Items>>,
    pub result: Option<Json>,
    pub links: Option<Json>,
    /// History lines, each after a newline.
    pub lines: Vec<u8>,
    /// The `rev` of the first of them.
    pub lines_from: u64,
    pub checkpoint: Option<Json>,
    /// The newest tick, with the `rev` of the record it is of.
    pub progress: Option<(u64, Json)>,
    /// In a box, as few tasks say much.
    logs: Option<Box<NewestLines>>,
}

/// The newest record of a task.
pub(super) struct StagedRecord {
    pub task: Arc<Task>,
    pub bytes: Bytes,
    /// Of the newest change; above the one in the record where that is a deletion.
    pub rev: u64,
    pub at: Timestamp,
    /// The view knows the task already.
    pub in_view: bool,
    pub gone: bool,
}

impl StagedRecord {
    /// When the task became final, by which its retention is counted. A task of a workflow has none of its own.
    pub fn finished_at(&self) -> Option<Timestamp> {
        let task = &self.task;
        let counts = task.status.is_final() && task.workflow_id().is_none();
        counts.then(|| task.run().and_then(|run| run.finished_at).unwrap_or(task.updated_at))
    }
}

/// How many bytes a task left in a file. Those of an upload count once it is that.
pub(super) fn bytes_in_file(task: &Task) -> u64 {
    let left = task.large_result().filter(|_| task.status.is_final());
    left.map_or(0, |large| large.bytes)
}

/// A change on its way into the staging.
pub(super) struct NewRecord<'a> {
    pub record: StagedRecord,
    pub line: &'a [u8],
    pub payload: Option<&'a Json>,
    /// The place of the payload in the list of which it is an item.
    pub item: Option<u32>,
    pub result: Option<&'a Json>,
    pub links: Option<Json>,
}

/// The newest record of a setting; none where it is not set any more.
pub(super) struct StagedSetting {
    pub rev: u64,
    pub record: Option<Bytes>,
}

/// A delivery that the view knows not yet, or otherwise.
pub(super) struct StagedDelivery {
    /// What it is, where the view knows nothing of it.
    pub owed: Option<Box<OwedDelivery>>,
    /// `None`: it has arrived.
    pub state: Option<DeliveryState>,
}

impl StagedDelivery {
    /// All of it, as it is now, where nothing of it is in the view, and it has not arrived.
    pub fn whole(&self) -> Option<Delivery> {
        let state = self.state.clone()?;
        Some(Delivery { state, ..self.owed.as_ref()?.delivery.clone() })
    }
}

/// What is settled in one transaction.
pub(super) struct SettleBatch<'a> {
    pub tasks: Vec<&'a Staged>,
    pub keys: Vec<&'a KeyEntry>,
    pub settings: Vec<(&'a SettingId, &'a StagedSetting)>,
    pub hand_outs: Vec<&'a HandOuts>,
    pub deliveries: Vec<(&'a DeliveryId, &'a StagedDelivery)>,
    pub access: Vec<(&'a AccessKey, &'a Option<AccessRecord>)>,
    pub audit: Vec<&'a AuditEntry>,
    /// Rows of the log below this hold nothing any more, once the batch is settled.
    pub rows_below: i64,
    keys_len: usize,
    settings_len: usize,
    deliveries_len: usize,
    access_len: usize,
}

/// How much of the staging a [`SettleBatch`] was, once it is in the view.
pub(super) struct SettledBatch {
    tasks: usize,
    keys: usize,
    settings: usize,
    hand_outs: usize,
    deliveries: usize,
    access: usize,
    audit: usize,
    rows_below: i64,
}

impl Staging {
    /// A row was written.
    pub fn row(&mut self, row: i64, bytes: usize) {
        self.rows.push_back((row, bytes));
        self.bytes += bytes;
    }

    pub fn change(&mut self, row: i64, change: NewRecord<'_>) {
        let NewRecord { mut record, line, payload, item, result, links } = change;
        let staged = self.entry(row, record.task.task_id);
        if let Some(before) = &staged.record {
            record.in_view = before.in_view;
        }
        if record.gone {
            // All that was kept beside it goes with it.
            *staged = Staged::new(staged.task_id, staged.row);
        } else {
            if staged.lines.is_empty() {
                staged.lines_from = record.rev;
                staged.lines.reserve_exact(1 + line.len());
            }
            staged.lines.push(b'\n');
            staged.lines.extend_from_slice(line);
            match (payload, item) {
                (Some(payload), Some(place)) => staged.items.get_or_insert_default().push(place, payload.clone()),
                (Some(payload), None) => staged.payload = Some(payload.clone()),
                (None, _) => {}
            }
            if let Some(result) = result {
                staged.result = Some(result.clone());
            }
            staged.links = links.or(staged.links.take());
            if staged.progress.as_ref().is_some_and(|(of, _)| *of < record.rev) {
                staged.progress = None;
            }
        }
        staged.record = Some(record);
    }

    pub fn aside(&mut self, row: i64, aside: &Aside) {
        let (Aside::Checkpoint { task_id, .. } | Aside::Progress { task_id, .. } | Aside::Logs { task_id, .. }) = aside;
        let staged = self.entry(row, *task_id);
        if staged.gone() {
            return;
        }
        match aside {
            Aside::Checkpoint { checkpoint, .. } => staged.checkpoint = Some(checkpoint.clone()),
            Aside::Progress { rev, progress, .. } => {
                let newest = staged.record.as_ref().map_or(0, |record| record.rev);
                let ticked = staged.progress.as_ref().map_or(0, |(of, _)| *of);
                if *rev >= newest.max(ticked) {
                    staged.progress = Some((*rev, progress.clone()));
                }
            }
            Aside::Logs { lines, .. } => _ = staged.logs.get_or_insert_default().push(lines.clone()),
        }
    }

    pub fn key(&mut self, row: i64, entry: KeyEntry) {
        self.key_order.push_back((row, entry.key));
        self.keys.insert(entry.key, entry);
    }

    pub fn setting(&mut self, row: i64, id: SettingId, setting: StagedSetting) {
        self.setting_order.push_back((row, id.clone()));
        self.settings.insert(id, setting);
    }

    pub fn hand_outs(&mut self, row: i64, hand_outs: HandOuts) {
        self.hand_outs.push_back((row, hand_outs));
    }

    /// A callback is owed something.
    pub fn owe(&mut self, row: i64, owed: OwedDelivery) {
        let (id, state) = (owed.delivery.id, Some(owed.delivery.state.clone()));
        self.delivery_order.push_back((row, id));
        self.deliveries.insert(id, StagedDelivery { owed: Some(Box::new(owed)), state });
    }

    /// Something became of a delivery.
    pub fn delivery(&mut self, row: i64, DeliveryStep { id, state }: DeliveryStep) {
        self.delivery_order.push_back((row, id));
        self.deliveries.entry(id).or_insert(StagedDelivery { owed: None, state: None }).state = state;
    }

    /// A step of what is kept about access.
    pub fn access(&mut self, row: i64, change: AccessChange) {
        let (key, record) = match change {
            AccessChange::Put(record) => (record.key(), Some(record)),
            AccessChange::Remove(key) => (key, None),
        };
        self.access_order.push_back((row, key.clone()));
        self.access.insert(key, record);
    }

    /// What waits of records about access, in no order.
    pub fn access_records(&self) -> impl Iterator<Item = (&AccessKey, &Option<AccessRecord>)> {
        self.access.iter()
    }

    pub fn audit(&mut self, row: i64, entry: AuditEntry) {
        self.audit.push_back((row, entry));
    }

    /// Entries of the audit that wait, the newest first.
    pub fn audit_entries(&self) -> impl ExactSizeIterator<Item = &AuditEntry> {
        self.audit.iter().rev().map(|(_, entry)| entry)
    }

    pub fn get_delivery(&self, id: DeliveryId) -> Option<&StagedDelivery> {
        self.deliveries.get(&id)
    }

    /// What waits of deliveries, in no order.
    pub fn deliveries(&self) -> impl Iterator<Item = (&DeliveryId, &StagedDelivery)> {
        self.deliveries.iter()
    }

    /// What waits of settings, in no order.
    pub fn settings(&self) -> impl Iterator<Item = (&SettingId, &StagedSetting)> {
        self.settings.iter()
    }

    fn entry(&mut self, row: i64, task_id: TaskId) -> &mut Staged {
        let next = self.first + self.tasks.len() as u64;
        let position = *self.positions.entry(task_id).or_insert(next);
        if position == next {
            self.tasks.push_back(Staged::new(task_id, row));
        }
        &mut self.tasks[(position - self.first) as usize]
    }

    pub fn get(&self, task_id: TaskId) -> Option<&Staged> {
        let position = self.positions.get(&task_id)?;
        self.tasks.get((position - self.first) as usize)
    }

    /// The newest record of each task that waits, in no order that means anything.
    pub fn records(&self) -> impl Iterator<Item = &StagedRecord> {
        self.tasks.iter().filter_map(|staged| staged.record.as_ref())
    }

    pub fn get_key(&self, key: Digest) -> Option<&KeyEntry> {
        self.keys.get(&key)
    }

    /// Tasks that wait, and bytes of what was committed of them.
    pub fn size(&self) -> (usize, usize) {
        (self.tasks.len(), self.bytes)
    }

    /// Nothing is left to do, not even a row to take away.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The next batch: the tasks that have waited longest, fewer where they are large, and the keys of the rows that become
    /// free with them.
    pub fn next_batch(&self, tasks_max: usize) -> SettleBatch<'_> {
        let mut bytes = 0;
        let fits = self.tasks.iter().take(tasks_max).take_while(|staged| {
            let room = bytes < BATCH_BYTES;
            bytes += staged.bytes();
            room
        });
        let tasks: Vec<_> = fits.collect();
        let rows_below = self.tasks.get(tasks.len()).map_or(i64::MAX, |next| next.row);
        let keys_len = self.key_order.iter().take_while(|(row, _)| *row < rows_below).count();
        let keys = self.key_order.iter().take(keys_len).filter_map(|(_, key)| self.keys.get(key)).collect();
        let settings_len = self.setting_order.iter().take_while(|(row, _)| *row < rows_below).count();
        let settings = self.setting_order.iter().take(settings_len);
        let settings = settings.filter_map(|(_, id)| self.settings.get_key_value(id)).collect();
        let hand_outs = self.hand_outs.iter().take_while(|(row, _)| *row < rows_below).map(|(_, it)| it).collect();
        let deliveries_len = self.delivery_order.iter().take_while(|(row, _)| *row < rows_below).count();
        let deliveries = self.delivery_order.iter().take(deliveries_len);
        let deliveries = deliveries.filter_map(|(_, id)| self.deliveries.get_key_value(id)).collect();
        let access_len = self.access_order.iter().take_while(|(row, _)| *row < rows_below).count();
        let access = self.access_order.iter().take(access_len);
        let access = access.filter_map(|(_, key)| self.access.get_key_value(key)).collect();
        let audit = self.audit.iter().take_while(|(row, _)| *row < rows_below).map(|(_, it)| it).collect();
        SettleBatch {
            tasks,
            keys,
            settings,
            hand_outs,
            deliveries,
            access,
            audit,
            rows_below,
            keys_len,
            settings_len,
            deliveries_len,
            access_len,
        }
    }

    /// The batch is in the view.
    pub fn settled(&mut self, batch: SettledBatch) {
        for staged in self.tasks.drain(..batch.tasks) {
            self.positions.remove(&staged.task_id);
        }
        self.first += batch.tasks as u64;
        for (_, key) in self.key_order.drain(..batch.keys) {
            self.keys.remove(&key);
        }
        for (_, id) in self.setting_order.drain(..batch.settings) {
            self.settings.remove(&id);
        }
        self.hand_outs.drain(..batch.hand_outs);
        for (_, id) in self.delivery_order.drain(..batch.deliveries) {
            self.deliveries.remove(&id);
        }
        for (_, key) in self.access_order.drain(..batch.access) {
            self.access.remove(&key);
        }
        self.audit.drain(..batch.audit);
        while let Some((row, bytes)) = self.rows.front().copied()
            && row < batch.rows_below
        {
            self.rows.pop_front();
            self.bytes -= bytes;
        }
        // After a burst the room goes back.
        if self.tasks.is_empty() && self.tasks.capacity() > TASKS_KEPT {
            self.tasks = VecDeque::new();
            self.positions = HashMap::default();
            self.audit.shrink_to(TASKS_KEPT);
        }
    }
}

impl SettleBatch<'_> {
    pub fn done(&self) -> SettledBatch {
        SettledBatch {
            tasks: self.tasks.len(),
            keys: self.keys_len,
            settings: self.settings_len,
            hand_outs: self.hand_outs.len(),
            deliveries: self.deliveries_len,
            access: self.access_len,
            audit: self.audit.len(),
            rows_below: self.rows_below,
        }
    }
}

impl Staged {
    fn new(task_id: TaskId, row: i64) -> Staged {
        Staged {
            task_id,
            row,
            record: None,
            payload: None,
            items: None,
            result: None,
            links: None,
            lines: Vec::new(),
            lines_from: u64::MAX,
            checkpoint: None,
            progress: None,
            logs: None,
        }
    }

    /// What is to be written beside the record.
    fn bytes(&self) -> usize {
        let parts = [&self.payload, &self.result, &self.checkpoint, &self.links].into_iter().flatten().map(Json::len);
        let lines = self.logs.as_ref().map_or(0, |logs| logs.bytes());
        let items = self.items.as_ref().map_or(0, |items| items.bytes());
        parts.sum::<usize>() + items + lines
    }

    /// Log lines, in the parts in which they came, oldest first. Those that would not be kept anyway are not among them.
    pub fn logs(&self) -> impl DoubleEndedIterator<Item = &Arc<[LogLine]>> {
        self.logs.iter().flat_map(|logs| logs.parts())
    }

    /// The number of the newest log line.
    pub fn log_end(&self) -> Option<u64> {
        self.logs.as_ref()?.end()
    }

    /// The task was deleted.
    pub fn gone(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.gone)
    }
}
