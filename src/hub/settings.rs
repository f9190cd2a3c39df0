//! What is set, as committed: read by everybody, and told to those who watch it.
//!
//! Settings are few beside tasks, so all of them are held here with the text that watchers are sent. Who watches asks now and then for what
//! changed since it last did; what was deleted lately is remembered for that, and who asks for longer ago gets all there is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::engine::{Answer, Command, InUse, Refusal};
use crate::settings::{
    LIMITS_NAME, Limits, QueueSettings, RateBy, Setting, SettingId, SettingKind, SettingValue, TaskTypes,
};
use crate::store::SettingEntry;
use crate::task::{Filter, Name, Pattern, PatternSet};
use crate::wire::{BulkChanged, ME_QUEUES_MAX, QueueInUseView, QueueStats, QueueView};

use super::bulk::BulkAction;
use super::inbox::Bound;
use super::{Hub, HubError};

/// So many deletions are remembered.
const DELETED_MAX: usize = 1_000;

pub(super) struct SettingsBoard {
    state: RwLock<State>,
    /// The declared types, as one value for whoever prepares something with them.
    types: RwLock<Arc<TaskTypes>>,
    /// Whether there are any: all that a hub without them pays for each submission.
    has_types: AtomicBool,
}

#[derive(Default)]
struct State {
    shown: BTreeMap<SettingId, (Arc<Setting>, Bytes)>,
    /// The same by the `rev` of each: who asks what changed meets no more than that.
    by_rev: BTreeMap<u64, SettingId>,
    /// With their `rev`, in that order; and the `rev` of the last that is not remembered any more.
    deleted: VecDeque<(u64, Bytes)>,
    known_from: u64,
    rev: u64,
}

/// What is set, or what changed of it, as text.
pub struct SettingLines {
    pub lines: Vec<Bytes>,
    /// To ask with the next time.
    pub rev: u64,
    /// These are all there are; what is not among them is not set.
    pub all: bool,
}

impl SettingsBoard {
    /// What a store held, that had come to this `rev`. What was deleted before is not known any more.
    pub(super) fn new(settings: Vec<Setting>, rev: u64) -> SettingsBoard {
        let by_rev = settings.iter().map(|setting| (setting.rev, setting.id())).collect();
        let shown = settings.into_iter().map(|setting| {
            let line = Bytes::from(setting.to_json());
            (setting.id(), (Arc::new(setting), line))
        });
        let shown: BTreeMap<SettingId, (Arc<Setting>, Bytes)> = shown.collect();
        let types = TaskTypes::of(shown.values().map(|(setting, _)| setting));
        SettingsBoard {
            has_types: AtomicBool::new(types.version() != Default::default()),
            types: RwLock::new(Arc::new(types)),
            state: RwLock::new(State { shown, by_rev, deleted: VecDeque::new(), known_from: rev, rev }),
        }
    }

    /// Shows a commit.
    pub(super) fn apply(&self, entries: &[SettingEntry]) {
        self.apply_types(entries);
        let mut state = self.state.write();
        for SettingEntry { change, record } in entries {
            let before = match &change.next {
                Some(setting) => {
                    state.by_rev.insert(change.rev, change.id.clone());
                    state.shown.insert(change.id.clone(), (setting.clone(), record.clone()))
                }
                None => {
                    state.deleted.push_back((change.rev, record.clone()));
                    if state.deleted.len() > DELETED_MAX
                        && let Some((rev, _)) = state.deleted.pop_front()
                    {
                        state.known_from = rev;
                    }
                    state.shown.remove(&change.id)
                }
            };
            if let Some((before, _)) = before {
                state.by_rev.remove(&before.rev);
            }
            state.rev = change.rev;
        }
    }

    fn apply_types(&self, entries: &[SettingEntry]) {
        let mut changes =
            entries.iter().map(|entry| &entry.change).filter(|it| it.id.0 == SettingKind::TaskType).peekable();
        if changes.peek().is_none() {
            return;
        }
        let mut types = self.types.write();
        for change in changes {
            Arc::make_mut(&mut types).put(&change.id.1, change.next.as_ref());
        }
        self.has_types.store(types.version() != Default::default(), Ordering::Release);
    }

    /// The declared types; `None` where there are none.
    pub(super) fn types(&self) -> Option<Arc<TaskTypes>> {
        self.has_types.load(Ordering::Acquire).then(|| self.types.read().clone())
    }

    pub(super) fn get(&self, kind: SettingKind, name: &Name) -> Option<Arc<Setting>> {
        self.state.read().shown.get(&(kind, name.clone())).map(|(setting, _)| setting.clone())
    }

    fn of_kind(&self, kind: SettingKind) -> Vec<Arc<Setting>> {
        self.page(kind, None, usize::MAX)
    }

    /// By name, those after this one.
    pub(super) fn page(&self, kind: SettingKind, after: Option<Name>, len_max: usize) -> Vec<Arc<Setting>> {
        let state = self.state.read();
        // No name is empty.
        let after = (kind, after.unwrap_or_else(|| Name::new("")));
        let beyond = state.shown.range((Excluded(after), Unbounded)).take_while(|((of, _), _)| *of == kind);
        beyond.map(|(_, (setting, _))| setting.clone()).take(len_max).collect()
    }

    /// The queues whose final tasks are kept otherwise than those of any.
    pub(super) fn retentions(&self) -> Vec<(Name, QueueSettings)> {
        let state = self.state.read();
        let queues = state.shown.values().filter_map(|(setting, _)| match &setting.value {
            SettingValue::Queue(settings) => Some((setting.name.clone(), settings)),
            SettingValue::Limits(_) | SettingValue::Schedule(_) | SettingValue::TaskType(_) => None,
        });
        let own = queues.filter(|(_, it)| it.retain_ms.or(it.retain_count).or(it.retain_bytes).is_some());
        own.map(|(name, settings)| (name, settings.clone())).collect()
    }

    /// What changed after a `rev`, in order; all there is where nothing is known before.
    fn since(&self, since: Option<u64>) -> SettingLines {
        let state = self.state.read();
        let since = since.filter(|rev| *rev >= state.known_from);
        let after = since.unwrap_or(0);
        let mut lines: Vec<(u64, Bytes)> = Vec::new();
        if after < state.rev {
            let changed = state.by_rev.range(after + 1..);
            lines.extend(changed.filter_map(|(rev, id)| Some((*rev, state.shown.get(id)?.1.clone()))));
            if since.is_some() {
                lines.extend(state.deleted.iter().filter(|(rev, _)| *rev > after).cloned());
            }
        }
        lines.sort_unstable_by_key(|(rev, _)| *rev);
        SettingLines { lines: lines.into_iter().map(|(_, line)| line).collect(), rev: state.rev, all: since.is_none() }
    }
}

impl Hub {
    /// Queues that limit each user by themselves, at most [`ME_QUEUES_MAX`] of them.
    pub(super) fn limited_queues(&self) -> BTreeMap<Name, QueueInUseView> {
        let queues = self.shared().board.settings.of_kind(SettingKind::Queue);
        let limited = queues.iter().filter_map(|setting| {
            let SettingValue::Queue(QueueSettings { user_concurrency, rate, .. }) = &setting.value else { return None };
            let rate = rate.filter(|rate| rate.by == RateBy::User);
            let user_concurrency = *user_concurrency;
            let view = QueueInUseView { user_concurrency, running: None, rate, handed_out: None };
            (user_concurrency.is_some() || rate.is_some()).then(|| (setting.name.clone(), view))
        });
        limited.take(ME_QUEUES_MAX).collect()
    }

    /// How much of their limits a user has in use, also in these queues.
    pub(super) async fn in_use(&self, user: Name, queues: Vec<Name>) -> Result<InUse, HubError> {
        match self.ask(Command::InUse { user, queues }, Bound::Held).await? {
            Answer::InUse(in_use) => Ok(in_use),
            other => unreachable!("what is in use is the answer to this command, not {other:?}"),
        }
    }

    /// The newest record of each setting, or what changed after a `rev` that was given by this.
    pub fn setting_lines(&self, since: Option<u64>) -> SettingLines {
        self.shared().board.settings.since(since)
    }

    /// What is set of a queue and what stands in it; `None` where neither is anything.
    pub fn queue(&self, name: &Name) -> Option<QueueView> {
        let set = self.shared().board.settings.get(SettingKind::Queue, name);
        let tasks = self.shared().board.queue_counts(name);
        (set.is_some() || tasks != QueueStats::default()).then(|| queue_view(name, set.as_deref(), tasks))
    }

    /// Every queue that is set, and of those that are not the ones with the most unfinished tasks, by name.
    pub fn queues(&self) -> Vec<QueueView> {
        let board = &self.shared().board;
        let mut queues: BTreeMap<Name, QueueView> = BTreeMap::new();
        for (name, tasks) in board.stats().queues {
            let name = Name::new(&name);
            queues.insert(name.clone(), queue_view(&name, None, tasks));
        }
        for setting in self.shared().board.settings.of_kind(SettingKind::Queue) {
            let tasks = board.queue_counts(&setting.name);
            queues.insert(setting.name.clone(), queue_view(&setting.name, Some(&setting), tasks));
        }
        queues.into_values().collect()
    }

    /// Sets a queue: all of it but whether it is paused. Answers whether nothing was set before.
    pub async fn set_queue(&self, name: Name, settings: QueueSettings) -> Result<(QueueView, bool), HubError> {
        settings.check().map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        let (setting, is_new) = self.set(Command::SetQueue { name: name.clone(), settings }).await?;
        Ok((queue_view(&name, Some(&setting), self.shared().board.queue_counts(&name)), is_new))
    }

    /// Takes back what is set of a queue. A queue that is neither set nor has tasks is not there.
    pub async fn unset_queue(&self, name: Name) -> Result<(), HubError> {
        self.check_queue(&name)?;
        self.ask(Command::UnsetQueue { name }, Bound::Held).await.map(|_| ())
    }

    /// Pauses a queue, or lets it go on.
    pub async fn pause_queue(&self, name: Name, paused: bool) -> Result<QueueView, HubError> {
        self.check_queue(&name)?;
        let (setting, _) = self.set(Command::PauseQueue { name: name.clone(), paused }).await?;
        Ok(queue_view(&name, Some(&setting), self.shared().board.queue_counts(&name)))
    }

    /// Cancels what does not run of a queue and was there when it was called.
    pub async fn purge_queue(&self, name: Name) -> Result<BulkChanged, HubError> {
        self.check_queue(&name)?;
        let filter = Filter { queue: Some(PatternSet::new(vec![Pattern::Exact(name)])), ..Filter::default() };
        self.bulk(BulkAction::Purge, filter, Some("purged".into()), false, usize::MAX).await
    }

    /// The limits of users.
    pub fn limits(&self) -> Limits {
        let set = self.shared().board.settings.get(SettingKind::Limits, &Name::new(LIMITS_NAME));
        match set.as_deref().map(|setting| &setting.value) {
            Some(SettingValue::Limits(limits)) => limits.clone(),
            _ => Limits::default(),
        }
    }

    /// Sets the limits of users. Answers whether none were set before.
    pub async fn set_limits(&self, limits: Limits) -> Result<bool, HubError> {
        limits.check().map_err(|invalid| HubError::Refused(Refusal::Invalid(invalid)))?;
        self.set(Command::SetLimits { limits }).await.map(|(_, is_new)| is_new)
    }

    pub(super) async fn set(&self, command: Command) -> Result<(Arc<Setting>, bool), HubError> {
        match self.ask(command, Bound::Held).await? {
            Answer::Set { setting, is_new } => Ok((setting, is_new)),
            other => unreachable!("a setting is the answer to this command, not {other:?}"),
        }
    }

    fn check_queue(&self, name: &Name) -> Result<(), HubError> {
        self.queue(name).map(|_| ()).ok_or(HubError::Refused(Refusal::QueueNotFound))
    }
}

fn queue_view(name: &Name, set: Option<&Setting>, tasks: QueueStats) -> QueueView {
    let settings = match set.map(|setting| &setting.value) {
        Some(SettingValue::Queue(settings)) => settings.clone(),
        _ => QueueSettings::default(),
    };
    let rev = set.map(|setting| setting.rev);
    let updated_at = set.map(|setting| setting.updated_at);
    QueueView { name: name.clone(), rev, updated_at, settings, tasks: Some(tasks) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Accepts;
    use crate::hub::HubOptions;
    use crate::settings::{SettingChange, SettingValue};
    use crate::store::in_memory;
    use crate::task::{NewTask, Timestamp};

    fn setting(name: &str, rev: u64) -> Setting {
        let (name, value) = (Name::new(name), SettingValue::Queue(QueueSettings::default()));
        Setting { name, rev, updated_at: Timestamp::from_millis(0), value }
    }

    fn set(name: &str, rev: u64, next: bool) -> SettingEntry {
        let next = next.then(|| Arc::new(setting(name, rev)));
        let id = (SettingKind::Queue, Name::new(name));
        let change = SettingChange { rev, at: Timestamp::from_millis(0), id, prev: None, next };
        SettingEntry { change, record: format!("{name}{rev}").into() }
    }

    #[test]
    fn who_asks_again_hears_what_changed_and_what_was_deleted() {
        let board = SettingsBoard::new(vec![setting("a", 3), setting("b", 5)], 9);
        let said = |since: Option<u64>| {
            let SettingLines { lines, rev, all } = board.since(since);
            (lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>(), rev, all)
        };
        assert_eq!((said(None).0.len(), said(None).1, said(None).2), (2, 9, true));
        assert_eq!(said(Some(9)), (vec![], 9, false));
        // What was deleted before the hub began is known to nobody.
        assert!(said(Some(8)).2);
        board.apply(&[set("c", 10, true), set("b", 11, false), set("c", 12, true)]);
        assert_eq!(said(Some(9)), (vec!["b11".into(), "c12".into()], 12, false));
        assert_eq!(said(Some(11)), (vec!["c12".into()], 12, false));
        // Nor is what was deleted too long ago.
        for rev in 13..13 + DELETED_MAX as u64 {
            board.apply(&[set("d", rev, false)]);
        }
        assert!(said(Some(10)).2);
        assert_eq!(said(Some(11)).0.len(), DELETED_MAX + 1);
    }

    #[tokio::test]
    async fn a_purge_counts_what_it_cancelled() {
        let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
        let ids = hub.submit_all(vec![NewTask::new("t"); 2], None).await.unwrap().task_ids;
        let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
        hub.claim(Name::new("w"), accepts, 1, Duration::ZERO).await.unwrap();
        assert!(!hub.one(BulkAction::Purge, ids[0], None).await.unwrap(), "it runs");
        assert!(hub.one(BulkAction::Purge, ids[1], None).await.unwrap());
        assert!(!hub.one(BulkAction::Purge, ids[1], None).await.unwrap(), "it is cancelled already");
        // What is set takes a number too, which everybody is shown.
        let (queue, _) = hub.set_queue(Name::new("q"), QueueSettings::default()).await.unwrap();
        assert_eq!(queue.rev, Some(hub.rev()));
    }
}
