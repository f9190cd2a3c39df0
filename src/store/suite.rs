//! What every store promises, tried on each of them.
//!
//! [`World`] is the store as one would write it if nothing could fail: plain maps. What it says is compared with what a
//! store says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::access::{AccessKey, AccessRecords, ApiToken, AuditRow, Role};
use crate::settings::{HandOuts, QueueSettings, RateBy, SettingId, SettingKind, SettingValue, deleted_json};
use crate::task::{
    ChangeKind, Detail, Event, Failure, IdSource, LOG_BYTES_MAX, LOG_LINES_MAX, Level, Links, Name, Outcome, PassedOn,
    Pattern, PatternSet, Run, Ties,
};

/// All that should be stored.
pub(super) struct World {
    random: fastrand::Rng,
    ids: IdSource,
    pub now: Timestamp,
    pub rev: u64,
    pub tasks: BTreeMap<TaskId, Known>,
    pub gone: Vec<ChangedTask>,
    pub keys: BTreeMap<Digest, KeyEntry>,
    pub settings: BTreeMap<SettingId, Arc<Setting>>,
    pub access: AccessRecords,
    pub audit: Vec<AuditEntry>,
}

/// What should be stored of a task.
#[derive(Clone)]
pub(super) struct Known {
    pub task: Arc<Task>,
    pub record: Bytes,
    pub payload: Option<Json>,
    pub result: Option<Json>,
    pub history: Vec<Transition>,
    pub checkpoint: Option<Json>,
    pub progress: Option<(u64, Json)>,
    pub logs: Vec<LogLine>,
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            random: fastrand::Rng::with_seed(seed),
            ids: IdSource::default(),
            now: Timestamp::from_millis(1_790_000_000_000),
            rev: 0,
            tasks: BTreeMap::new(),
            gone: Vec::new(),
            keys: BTreeMap::new(),
            settings: BTreeMap::new(),
            access: AccessRecords::default(),
            audit: Vec::new(),
        }
    }

    fn change(&mut self, commit: &mut Commit, prev: Option<Arc<Task>>, mut task: Task, event: Event) -> TaskId {
        self.rev += 1;
        self.now = self.now.plus_millis(self.random.u64(0..50));
        let task_id = task.task_id;
        task.rev = self.rev;
        task.updated_at = self.now;
        let known = self.tasks.get(&task_id);
        let payload = (known.is_none() && self.random.bool())
            .then(|| Json::trusted(format!("{{\"payload\":\"{}\"}}", "p".repeat(self.random.usize(0..300)))));
        let big = task.status == Status::Completed && self.random.bool();
        let result = big.then(|| Json::trusted(format!("\"{}\"", "r".repeat(self.random.usize(5_000..20_000)))));
        if task.status.is_final() {
            let run = task.run.get_or_insert_default();
            run.finished_at = Some(self.now);
            run.outcome = Some(match (task.status, big) {
                (Status::Completed, true) => Outcome::ResultOmitted,
                (Status::Completed, false) => Outcome::Result(Json::trusted("{\"ok\":true}")),
                _ => Outcome::Error(Failure::new("exit", "no \"more\"\n")),
            });
        }
        let note = self.random.bool().then(|| "a \"note\"\n".into());
        let record = Bytes::from(task.to_json());
        let task = Arc::new(task);
        let change = Change {
            rev: self.rev,
            at: self.now,
            kind: ChangeKind::Transition(event),
            prev,
            task: task.clone(),
            note,
            payload: payload.clone(),
            result: result.clone(),
        };
        let known = self.tasks.entry(task_id).or_insert_with(|| Known {
            task: task.clone(),
            record: record.clone(),
            payload,
            result: None,
            history: Vec::new(),
            checkpoint: None,
            progress: None,
            logs: Vec::new(),
        });
        known.history.extend(change.transition());
        known.progress = None;
        known.result = result;
        known.record = record.clone();
        known.task = task;
        commit.changes.push(Entry { change, record });
        task_id
    }

    /// A new task: three types, two queues, four users or none, a project or none.
    pub fn create(&mut self, commit: &mut Commit) -> TaskId {
        let at = self.tasks.len() + self.gone.len();
        let depends_on: Vec<TaskId> = self.tasks.keys().rev().take(at % 4).copied().collect();
        self.create_as(commit, |task| {
            task.task_type = Name::new(["report", "ingest.pdf", "ingest.html"][at % 3]);
            task.queue = Name::new(["default", "slow"][at % 2]);
            task.user_id = (!at.is_multiple_of(5)).then(|| Name::new(&format!("user {}", at % 5)));
            let labels = match at % 3 {
                0 => BTreeMap::new(),
                project => [("project".to_owned(), format!("p\"{project}")), ("k'".to_owned(), "v".to_owned())].into(),
            };
            let title = (!at.is_multiple_of(4)).then(|| format!("Größe 100% of_{at}").into());
            let results = PassedOn { names: [(Name::new("first"), (0, 1))].into(), ..PassedOn::default() }.boxed();
            let dependencies = depends_on.len() as u32;
            let ties = Ties { dependencies, links: Some(Arc::new(Links { depends_on, results })), ..Ties::default() };
            let ties = (dependencies > 0).then(|| Box::new(ties));
            let detail = Detail { title, labels, ties, ..Detail::default() };
            task.detail = (detail != Detail::default()).then(|| Box::new(detail));
        })
    }

    pub fn create_as(&mut self, commit: &mut Commit, edit: impl FnOnce(&mut Task)) -> TaskId {
        let mut task = Task {
            task_id: self.ids.next(self.now, &mut self.random),
            task_type: Name::new("report"),
            queue: Name::new("default"),
            user_id: None,
            rev: 0,
            created_at: self.now,
            updated_at: self.now,
            run_at: None,
            delayed: false,
            priority: 0,
            status: Status::Pending,
            attempt: 0,
            tries: 0,
            max_attempts: 3,
            crashes: 0,
            max_crashes: 3,
            detail: None,
            run: None,
        };
        edit(&mut task);
        self.change(commit, None, task, Event::Created)
    }

    /// The next record of a task.
    pub fn step(&mut self, commit: &mut Commit, task_id: TaskId, status: Status, event: Event) {
        let prev = self.tasks[&task_id].task.clone();
        let mut task = Task::clone(&prev);
        task.status = status;
        task.run = None;
        if status == Status::Running {
            task.attempt += 1;
            let worker_id = Some(Name::new("w-1"));
            task.run = Some(Box::new(Run { started_at: Some(self.now), worker_id, ..Run::default() }));
        }
        self.change(commit, Some(prev), task, event);
    }

    /// A record that was changed by hand.
    pub fn put(&mut self, commit: &mut Commit, task: Task, event: Event) -> TaskId {
        let prev = self.tasks[&task.task_id].task.clone();
        self.change(commit, Some(prev), task, event)
    }

    pub fn delete(&mut self, commit: &mut Commit, task_id: TaskId) {
        self.rev += 1;
        self.now = self.now.plus_millis(1);
        let known = self.tasks.remove(&task_id).expect("only known tasks are deleted");
        let change = Change {
            rev: self.rev,
            at: self.now,
            kind: ChangeKind::Gone,
            prev: Some(known.task.clone()),
            task: known.task.clone(),
            note: None,
            payload: None,
            result: None,
        };
        commit.changes.push(Entry { change, record: known.record.clone() });
        self.gone.push(ChangedTask { task_id, rev: self.rev, record: known.record, gone: true });
    }

    /// Somebody sets a queue, or takes that back.
    pub fn set_queue(&mut self, commit: &mut Commit, name: &str, concurrency: Option<u32>) {
        self.rev += 1;
        self.now = self.now.plus_millis(1);
        let (rev, at, name) = (self.rev, self.now, Name::new(name));
        let id = (SettingKind::Queue, name.clone());
        let prev = self.settings.get(&id).cloned();
        let next = concurrency.map(|concurrency| {
            let settings = QueueSettings { concurrency: Some(concurrency), ..QueueSettings::default() };
            Arc::new(Setting { name, rev, updated_at: at, value: SettingValue::Queue(settings) })
        });
        let record = match &next {
            Some(setting) => setting.to_json(),
            None => deleted_json(&id, rev),
        };
        match next.clone() {
            Some(setting) => _ = self.settings.insert(id.clone(), setting),
            None => _ = self.settings.remove(&id),
        }
        commit.settings.push(SettingEntry { change: SettingChange { rev, at, id, prev, next }, record: record.into() });
    }

    /// Somebody makes an API token, or takes it back; that they did is in the audit.
    pub fn access(&mut self, commit: &mut Commit, name: &str) {
        let name = Name::new(name);
        let key = AccessKey::ApiToken { name: name.clone() };
        let (action, change) = match self.access.get(&key) {
            Some(_) => ("token.revoke", AccessChange::Remove(key)),
            None => {
                let token = ApiToken {
                    name: name.clone(),
                    digest: format!("{:016x}", self.random.u64(..)),
                    role: Role::Worker,
                    user_id: None,
                    task_types: Some(vec!["report".into(), "ingest.*".into()]),
                    queues: None,
                    created_at: self.now,
                    expires_at: self.random.bool().then_some(self.now),
                };
                ("token.create", AccessChange::Put(AccessRecord::ApiToken(token)))
            }
        };
        let mut steps = Vec::new();
        self.access.extend(&mut steps, vec![change], self.now).unwrap();
        steps.iter().for_each(|step| self.access.apply(step));
        commit.access.extend(steps);
        self.audit(commit, action, Some(name.as_str()));
    }

    /// Somebody did something.
    pub fn audit(&mut self, commit: &mut Commit, action: &str, target: Option<&str>) {
        self.now = self.now.plus_millis(self.random.u64(0..3));
        let seq = self.audit.len() as u64 + 1;
        let row = AuditRow {
            who: (!seq.is_multiple_of(3)).then(|| Name::new(["ann", "bob \"b\""][seq as usize % 2])),
            role: Role::ALL[seq as usize % 5],
            token: "api:ci".into(),
            address: seq.is_multiple_of(2).then(|| "2001:db8::1".parse().unwrap()),
            action: action.into(),
            target: target.map(str::to_owned),
            outcome: AuditRow::OK.into(),
        };
        let entry = AuditEntry { seq, at: self.now, row };
        self.audit.push(entry.clone());
        commit.audit.push(entry);
    }

    pub fn checkpoint(&mut self, commit: &mut Commit, task_id: TaskId) {
        let checkpoint = Json::trusted(format!("{{\"at\":{}}}", self.random.u32(..)));
        self.tasks.get_mut(&task_id).unwrap().checkpoint = Some(checkpoint.clone());
        commit.asides.push(Aside::Checkpoint { task_id, checkpoint });
    }

    pub fn progress(&mut self, commit: &mut Commit, task_id: TaskId) {
        let progress = Json::trusted(format!("{{\"percentage\":{}}}", self.random.u8(0..100)));
        let known = self.tasks.get_mut(&task_id).unwrap();
        // Now and then a late one, of the record before.
        let late = self.random.u8(..) < 50;
        let rev = if late { known.task.rev - 1 } else { known.task.rev };
        if !late {
            known.progress = Some((rev, progress.clone()));
        }
        commit.asides.push(Aside::Progress { task_id, rev, progress });
    }

    pub fn log(&mut self, commit: &mut Commit, task_id: TaskId, count: usize, len: usize) {
        let known = self.tasks.get_mut(&task_id).unwrap();
        let from = known.logs.last().map_or(0, |line| line.seq);
        let lines: Vec<_> = (1..=count as u64)
            .map(|at| LogLine {
                seq: from + at,
                at: self.now,
                attempt: known.task.attempt,
                level: [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error][at as usize % 5],
                message: "\"é\n".chars().cycle().take(len).collect(),
            })
            .collect();
        known.logs.extend(lines.clone());
        commit.asides.push(Aside::Logs { task_id, lines: lines.into() });
    }

    pub fn key(&mut self, commit: &mut Commit, key: Digest) {
        let tasks: Vec<TaskId> = commit.changes.iter().map(|entry| entry.change.task.task_id).collect();
        let existing = (0..tasks.len() as u32).filter(|place| key.is_multiple_of(2) && *place > 0).collect();
        let expires_at = self.now.plus_millis(1_000);
        let entry = KeyEntry { key, body: u128::MAX - key, tasks, existing, expires_at };
        self.keys.insert(key, entry.clone());
        commit.keys.push(entry);
    }

    pub fn hand_out(&mut self, commit: &mut Commit, queue: &str, name: Option<&str>, at: i64) {
        let by = if name.is_some() { RateBy::User } else { RateBy::Queue };
        let (queue, name) = (Name::new(queue), name.map(Name::new));
        commit.hand_outs.push(HandOuts { rev: self.rev, at, queue, by, name, count: 2 });
    }

    fn any(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<TaskId> {
        let ids: Vec<_> = self.tasks.values().filter(|known| wanted(known)).map(|known| known.task.task_id).collect();
        (!ids.is_empty()).then(|| ids[self.random.usize(..ids.len())])
    }

    /// Reads the audit page by page, by each thing that may be asked.
    pub fn check_audit(&self, reader: &dyn Reader) {
        let at = |part: usize| self.audit.get(self.audit.len() * part / 4).map(|entry| entry.at);
        let any = AuditQuery::default();
        for query in [
            any.clone(),
            AuditQuery { target: Some("a".into()), ..any.clone() },
            AuditQuery { who: Some(Name::new("ann")), ..any.clone() },
            AuditQuery { role: Some(Role::Admin), outcome: Some("ok".into()), ..any.clone() },
            AuditQuery { action: Some("token.revoke".into()), token: Some("api:ci".into()), ..any.clone() },
            AuditQuery { token: Some("none".into()), ..any.clone() },
            AuditQuery { after: at(1), before: at(3), ..any.clone() },
            AuditQuery { after: at(2), target: Some("b".into()), ..any.clone() },
            AuditQuery { before: at(2), ..any.clone() },
        ] {
            let expected: Vec<_> = self.audit.iter().rev().filter(|entry| query.matches(entry)).cloned().collect();
            for limit in [1, 3, 1_000] {
                let (mut found, mut query) = (Vec::new(), AuditQuery { limit, ..query.clone() });
                loop {
                    let page = reader.audit(&query).unwrap();
                    assert!(page.entries.len() == limit || page.beyond.is_none() && page.entries.len() < limit);
                    found.extend(page.entries);
                    query.beyond = page.beyond;
                    if page.beyond.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{query:?}");
            }
        }
    }

    /// What a store must say at any time, settled or not.
    pub fn check_by_id(&self, store: &mut dyn Store) {
        let reader = store.reader();
        let ids: Vec<_> = self.tasks.keys().copied().collect();
        let records = reader.records(&ids).unwrap();
        let looked = reader.look_for(&ids).unwrap();
        let there = looked.iter().map(|looked| Some(&looked.record).filter(|_| looked.is_there));
        assert!(there.eq(records.iter().map(Option::as_ref)));
        let hand_outs = reader.hand_out(&ids).unwrap();
        for ((known, record), (payload, checkpoint)) in self.tasks.values().zip(records).zip(hand_outs) {
            let task_id = known.task.task_id;
            assert_eq!(record.as_ref(), Some(&known.record));
            assert_eq!(payload, known.payload);
            assert_eq!(checkpoint, known.checkpoint);
            let stored = reader.task(task_id).unwrap().expect("a known task is stored");
            assert_eq!(stored.record, known.record);
            assert_eq!(stored.payload, known.payload);
            assert_eq!(stored.result, known.result);
            let links = known.task.links().map(Links::to_json);
            assert_eq!(stored.links, links);
            if let Some(at_hand) = reader.task_at_hand(task_id) {
                let said = (&at_hand.record, &at_hand.payload, &at_hand.result, &at_hand.links);
                assert_eq!(said, (&known.record, &known.payload, &known.result, &links));
            }
            assert_eq!(store.task(task_id).unwrap().as_ref(), Some(&*known.task));
            assert_eq!(reader.history(task_id).unwrap(), known.history);
            let end = known.logs.last().map_or(0, |line| line.seq);
            assert_eq!(reader.log_end(task_id).unwrap(), end);
            for tail in [0, 1, 7, 10_000] {
                let expected = &known.logs[known.logs.len().saturating_sub(tail)..];
                assert_eq!(reader.logs(task_id, LogRange::Tail(tail), &[]).unwrap(), expected);
            }
            for seq in [0, end / 2, end] {
                let expected: Vec<_> = known.logs.iter().filter(|line| line.seq > seq).take(5).cloned().collect();
                assert_eq!(reader.logs(task_id, LogRange::After { seq, limit: 5 }, &[]).unwrap(), expected);
            }
        }
        for gone in &self.gone {
            let task_id = gone.task_id;
            assert!(reader.task(task_id).unwrap().is_none());
            assert!(reader.task_at_hand(task_id).is_none());
            assert!(store.task(task_id).unwrap().is_none());
            assert_eq!(reader.history(task_id).unwrap(), []);
            assert_eq!(reader.logs(task_id, LogRange::Tail(9), &[]).unwrap(), []);
            assert_eq!(reader.log_end(task_id).unwrap(), 0);
            assert_eq!(reader.records(&[task_id]).unwrap(), [None]);
            assert!(!reader.look_for(&[task_id]).unwrap()[0].is_there);
            assert_eq!(reader.hand_out(&[task_id]).unwrap(), [(None, None)]);
        }
        for entry in self.keys.values() {
            assert_eq!(store.key(entry.key, entry.expires_at).unwrap().as_ref(), Some(entry));
            assert_eq!(store.key(entry.key, entry.expires_at.plus_millis(1)).unwrap(), None);
        }
    }

    /// What a read over many tasks must say at any time, settled or not.
    pub fn check_many(&self, store: &dyn Store) {
        let reader = store.reader();
        let status = |list: &[Status]| Some(list.iter().copied().collect());
        let filters = [
            Filter::default(),
            Filter { status: status(&[Status::Running]), ..Filter::default() },
            Filter { status: status(&[Status::Pending, Status::Completed]), ..Filter::default() },
            Filter { user_id: Some([Name::new("user 1"), Name::new("user 3")].into()), ..Filter::default() },
            Filter { labels: [("k'".to_owned(), ["v".to_owned()].into())].into(), ..Filter::default() },
        ];
        for filter in filters {
            self.check_pages(&*reader, &Query { filter, ..all_tasks() }, &[1, 2, 3, 10_000]);
        }

        let mut changed: Vec<_> = self.gone.iter().map(|gone| (gone.rev, gone.task_id, true)).collect();
        changed.extend(self.tasks.values().map(|known| (known.task.rev, known.task.task_id, false)));
        changed.sort();
        for rev in [0, self.rev / 2, self.rev] {
            for limit in [2, 10_000] {
                let (mut after, mut got) = (rev, Vec::new());
                while let ChangedSince::Known { changes, more } = reader.changed_since(after, limit).unwrap() {
                    assert!(changes.len() == limit || !more && changes.len() < limit);
                    after = changes.last().map_or(after, |change| change.rev);
                    got.extend(changes.iter().map(|change| (change.rev, change.task_id, change.gone)));
                    if !more {
                        break;
                    }
                }
                let expected: Vec<_> = changed.iter().filter(|(of, ..)| *of > rev).copied().collect();
                assert_eq!(got, expected, "after {rev}, {limit} at once");
            }
        }

        let run = |known: &Known| known.task.status.is_final().then(|| known.task.run().unwrap().finished_at.unwrap());
        let mut finished: Vec<_> =
            self.tasks.values().filter_map(|known| Some((run(known)?, known.task.task_id))).collect();
        finished.sort();
        let queues: BTreeSet<Name> = self.tasks.values().map(|known| known.task.queue.clone()).collect();
        let middle = finished.get(finished.len() / 2).map_or(self.now, |(at, _)| *at);
        for (before, limit) in [(self.now.plus_millis(1), 10_000), (self.now.plus_millis(1), 2), (middle, 10_000)] {
            let before = (before, TaskId::from_bytes([0; 16]));
            for queue in &queues {
                let of_queue = finished.iter().filter(|(_, task_id)| self.tasks[task_id].task.queue == *queue);
                let expected = of_queue.filter(|ended| **ended < before).take(limit).map(|(_, task_id)| *task_id);
                assert_eq!(reader.ended_before(queue, before, limit).unwrap(), expected.collect::<Vec<_>>());
            }
        }
        for queue in &queues {
            let of_queue: Vec<EndedAt> =
                finished.iter().filter(|(_, task_id)| self.tasks[task_id].task.queue == *queue).copied().collect();
            for kept in [1, 2, of_queue.len()] {
                let beyond = reader.beyond(queue, kept as u64, u64::MAX).unwrap();
                let oldest_kept = of_queue.len().checked_sub(kept).filter(|left| *left > 0).map(|left| of_queue[left]);
                assert_eq!(beyond.before, oldest_kept, "{kept} of {} are kept", of_queue.len());
                assert_eq!(beyond.looked, of_queue.len().min(kept + 1));
            }
        }
    }

    /// Reads a query page by page, in both orders.
    fn check_pages(&self, reader: &dyn Reader, query: &Query, limits: &[usize]) {
        let means = |task: &Task| {
            let text_found = query.text.as_ref().is_none_or(|text| {
                let title = task.detail().and_then(|detail| detail.title.as_deref()).unwrap_or_default();
                [title, task.task_type.as_str(), &task.task_id.to_string()]
                    .iter()
                    .any(|field| field.to_lowercase().contains(&text.to_lowercase()))
            });
            query.filter.matches(task)
                && text_found
                && query.created_after.is_none_or(|after| task.created_at >= after)
                && query.created_before.is_none_or(|before| task.created_at < before)
        };
        let meant = self.tasks.values().filter(|known| means(&known.task));
        let mut expected: Vec<_> = meant.map(|known| (known.task.task_id, known.record.clone())).collect();
        for order in [Order::OldestFirst, Order::NewestFirst] {
            for limit in limits.iter().copied() {
                let mut got = Vec::new();
                let mut beyond = None;
                loop {
                    let page = reader.find(&Query { order, limit, beyond, ..query.clone() }).unwrap();
                    assert!(page.tasks.len() <= limit);
                    assert!(!page.more || page.tasks.len() == limit);
                    beyond = page.tasks.last().map(|(task_id, _)| *task_id);
                    got.extend(page.tasks);
                    if !page.more {
                        break;
                    }
                }
                assert_eq!(got, expected, "{query:?} {order:?} {limit}");
            }
            expected.reverse();
        }
    }

    /// What a store must say once all is settled.
    pub fn check_view(&self, store: &mut dyn Store) {
        assert_eq!(store.unsettled(), (0, 0));
        self.check_many(store);

        let recovered = store.recover().unwrap();
        assert_eq!(recovered.rev, self.rev);
        let unfinished: Vec<_> = self.tasks.values().filter(|known| !known.task.status.is_final()).collect();
        assert_eq!(recovered.unfinished.len(), unfinished.len());
        for (task, known) in recovered.unfinished.iter().zip(unfinished) {
            let mut expected = Task::clone(&known.task);
            if let Some((_, progress)) = &known.progress {
                expected.run.get_or_insert_default().progress = Some(progress.clone());
            }
            assert_eq!(*task, expected);
        }
        let mut counts = BTreeMap::new();
        self.tasks.values().for_each(|known| *counts.entry(known.task.status).or_insert(0) += 1);
        assert_eq!(recovered.counts, counts);
        let mut finals = BTreeMap::new();
        for task in self.tasks.values().map(|known| &known.task).filter(|task| task.status.is_final()) {
            if let Some(user) = &task.user_id {
                *finals.entry((user.clone(), task.status)).or_insert(0) += 1;
            }
        }
        let told = recovered.user_finals.into_iter().map(|(user, status, count)| ((user, status), count));
        assert_eq!(told.collect::<BTreeMap<_, u64>>(), finals);
        let given = self.tasks.keys().copied().chain(self.gone.iter().map(|gone| gone.task_id)).max();
        assert_eq!(recovered.last_id, given);
        let mut settings = recovered.settings;
        settings.sort_by_key(Setting::id);
        assert!(settings.iter().eq(self.settings.values().map(|setting| &**setting)), "{settings:?}");
        self.check_access(recovered.access, recovered.audit);
    }

    fn check_access(&self, recovered: Vec<AccessRecord>, audit: (u64, u64)) {
        let recovered = AccessRecords::of(recovered);
        assert!(recovered.iter().eq(self.access.iter()), "{recovered:?}");
        assert_eq!(audit, (1, self.audit.len() as u64));
    }
}

pub(super) fn all_tasks() -> Query {
    Query {
        filter: Filter::default(),
        text: None,
        created_after: None,
        created_before: None,
        order: Order::NewestFirst,
        beyond: None,
        limit: 50,
    }
}

pub(super) fn settle_all(store: &mut dyn Store, step: usize) {
    while store.unsettled() != (0, 0) {
        store.settle(step).unwrap();
    }
}

/// Runs a test on each kind of store.
fn on_each(test: impl Fn(&mut dyn Store)) {
    test(&mut in_memory().unwrap());
    let folder = tempfile::tempdir().unwrap();
    test(&mut SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap());
}

/// What the files would be if the process were killed now.
pub(super) fn killed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        // The index of the write-ahead log is made anew from the log.
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}

#[test]
fn a_new_store_is_empty_and_has_a_name() {
    on_each(|store| {
        let recovered = store.recover().unwrap();
        assert!(!recovered.openings.epoch().is_empty() && recovered.damage.is_none());
        assert_eq!((recovered.rev, recovered.last_id), (0, None));
        assert!(recovered.unfinished.is_empty() && recovered.counts.is_empty());
        assert_eq!(store.settle(10).unwrap(), []);
        store.append(&Commit::default()).unwrap();
        assert_eq!(store.unsettled(), (0, 0));
        store.probe().unwrap();
        let unknown = TaskId::from_bytes([1; 16]);
        let reader = store.reader();
        assert!(reader.task(unknown).unwrap().is_none() && store.task(unknown).unwrap().is_none());
        assert_eq!(reader.history(unknown).unwrap(), []);
        assert_eq!(store.key(7, Timestamp::now()).unwrap(), None);
    });
    let epoch = || in_memory().unwrap().recover().unwrap().openings.epoch().to_owned();
    assert_ne!(epoch(), epoch());
}

#[test]
fn settling_goes_from_the_oldest_and_tells_the_newest_revs() {
    on_each(|store| {
        let mut world = World::new(1);
        let mut commit = Commit::default();
        let (a, b) = (world.create(&mut commit), world.create(&mut commit));
        store.append(&commit).unwrap();
        let mut commit = Commit::default();
        let c = world.create(&mut commit);
        world.step(&mut commit, a, Status::Running, Event::Running);
        store.append(&commit).unwrap();
        let (tasks, bytes) = store.unsettled();
        assert_eq!(tasks, 3);
        let at_hand = |task_id| store.reader().task_at_hand(task_id).is_some();
        assert!(at_hand(a) && at_hand(c));

        assert_eq!(store.settle(1).unwrap(), [(a, 4)]);
        assert_eq!(store.unsettled(), (2, bytes));
        assert_eq!(store.settle(1).unwrap(), [(b, 2)]);
        let (tasks, fewer) = store.unsettled();
        assert!(tasks == 1 && 0 < fewer && fewer < bytes, "the first commit left the log");
        assert_eq!(store.settle(9).unwrap(), [(c, 3)]);
        assert_eq!(store.unsettled(), (0, 0));
        assert!(store.reader().task_at_hand(a).is_none(), "the view has it");
        world.check_by_id(store);
        world.check_view(store);
    });
}

#[test]
fn a_task_that_is_not_there_is_looked_for_like_one_that_is() {
    on_each(|store| {
        let mut world = World::new(1);
        let mut commit = Commit::default();
        let [a, b] = [world.create(&mut commit), world.create(&mut commit)];
        store.append(&commit).unwrap();
        for settles in [false, true] {
            if settles {
                settle_all(store, 100);
            }
            let missing = TaskId::from_bytes((u128::from_be_bytes(*a.as_bytes()) + 1).to_be_bytes());
            assert!(a < missing && missing < b);
            let reader = store.reader();
            let looked = reader.look_for(&[b, missing, a]).unwrap();
            assert_eq!(looked.iter().map(|looked| looked.is_there).collect::<Vec<_>>(), [true, false, true]);
            let records = reader.records(&[a, b]).unwrap();
            assert_eq!(
                [&looked[2].record, &looked[0].record],
                [&records[0].clone().unwrap(), &records[1].clone().unwrap()]
            );
            assert_eq!(
                looked[1].record == looked[2].record,
                settles,
                "of one that is not there, the one before it is read"
            );
        }
    });
}

#[test]
fn a_commit_out_of_order_is_refused_and_leaves_nothing() {
    on_each(|store| {
        let mut world = World::new(1);
        let mut commit = Commit::default();
        world.create(&mut commit);
        let mut skipped = World::new(2);
        skipped.rev = 1;
        let mut wrong = Commit::default();
        skipped.create(&mut wrong);
        assert!(store.append(&wrong).unwrap_err().lasting);
        assert_eq!(store.unsettled(), (0, 0));
        store.append(&commit).unwrap();
        assert!(store.append(&commit).is_err());
        world.check_by_id(store);
    });
}

#[test]
fn a_page_holds_what_the_filter_means() {
    // Settled, not settled at all, and the one and the other.
    for (settled, steps_before) in [(120, usize::MAX), (0, 0), (50, 0), (70, 60)] {
        check_filters(settled, steps_before);
    }
}

/// Many queries on a store with so many settled tasks, where all that happened to so many before they were settled.
fn check_filters(settled: usize, steps_before: usize) {
    on_each(|store| {
        let mut world = World::new(3);
        let mut commit = Commit::default();
        let ids: Vec<_> = (0..120).map(|_| world.create(&mut commit)).collect();
        let step = |world: &mut World, commit: &mut Commit, at: usize| {
            let steps = [(Status::Running, Event::Running), (Status::Completed, Event::Completed)];
            for (status, event) in steps.into_iter().take(at % 4) {
                world.step(commit, ids[at], status, event);
            }
        };
        (0..120).filter(|at| *at < steps_before).for_each(|at| step(&mut world, &mut commit, at));
        store.append(&commit).unwrap();
        store.settle(settled).unwrap();
        let mut commit = Commit::default();
        (0..120).filter(|at| *at >= steps_before).for_each(|at| step(&mut world, &mut commit, at));
        for task_id in ids.iter().skip(3).step_by(20) {
            world.delete(&mut commit, *task_id);
        }
        store.append(&commit).unwrap();
        let reader = store.reader();

        let ids: Vec<_> = world.tasks.keys().copied().collect();
        let names =
            |list: &[&str]| Some(PatternSet::new(list.iter().map(|text| Pattern::parse(text).unwrap()).collect()));
        let users = |list: &[&str]| Some(list.iter().map(|user| Name::new(user)).collect());
        let status = |list: &[Status]| Some(list.iter().copied().collect());
        let label = |key: &str, values: &[&str]| -> (String, BTreeSet<String>) {
            (key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
        };
        let all = Filter::default;
        let many: BTreeSet<_> = (0..100).map(|at| Name::new(&format!("user {at}"))).collect();
        let filters = [
            all(),
            Filter { status: status(&[Status::Running]), ..all() },
            Filter { status: status(&[Status::Running, Status::Completed]), ..all() },
            Filter { status: status(&[Status::Failed]), ..all() },
            Filter { user_id: users(&["user 1", "user 3", "nobody"]), ..all() },
            Filter { user_id: Some(many), ..all() },
            Filter { user_id: users(&["user 2"]), status: status(&[Status::Running]), ..all() },
            Filter { user_id: users(&["user 2"]), status: status(&[Status::Pending, Status::Completed]), ..all() },
            Filter { task_type: names(&["ingest.*"]), ..all() },
            Filter { task_type: names(&["report", "ingest.h*"]), queue: names(&["slow"]), ..all() },
            Filter { task_type: names(&["*"]), queue: names(&["s"]), ..all() },
            Filter { labels: [label("project", &["p\"1"])].into(), ..all() },
            Filter { labels: [label("project", &["p\"1", "p\"2", "p3"])].into(), ..all() },
            Filter { labels: [label("project", &["p\"2"]), label("k'", &["v", "w"])].into(), ..all() },
            Filter {
                labels: [label("project", &["p\"2"])].into(),
                status: status(&[Status::Running]),
                user_id: users(&["user 1", "user 2"]),
                ..all()
            },
            Filter { task_id: Some(ids.iter().step_by(7).copied().collect()), queue: names(&["default"]), ..all() },
        ];
        let middle = world.tasks[&ids[60]].task.created_at;
        let text = |text: &str| Some(text.to_owned());
        let queries = filters.into_iter().map(|filter| Query { filter, ..all_tasks() }).chain([
            Query { text: text("gRÖSSE"), ..all_tasks() },
            Query { text: text("grÖßE 100% OF_1"), ..all_tasks() },
            Query { text: text("0_"), ..all_tasks() },
            Query { text: text("INGEST.P"), filter: Filter { user_id: users(&["user 1"]), ..all() }, ..all_tasks() },
            Query { text: Some(ids[3].to_string()[20..].to_uppercase()), ..all_tasks() },
            Query { created_after: Some(middle), ..all_tasks() },
            Query { created_before: Some(middle), ..all_tasks() },
            Query { created_after: Some(middle), created_before: Some(middle.plus_millis(500)), ..all_tasks() },
        ]);
        for query in queries {
            world.check_pages(&*reader, &query, &[1, 7, 1_000]);
        }
    });
}

#[test]
fn changes_come_in_pages_until_tombstones_are_swept() {
    on_each(|store| {
        let mut world = World::new(4);
        let mut commit = Commit::default();
        let ids: Vec<_> = (0..10).map(|_| world.create(&mut commit)).collect();
        for task_id in &ids[..4] {
            world.step(&mut commit, *task_id, Status::Cancelled, Event::Cancelled);
        }
        store.append(&commit).unwrap();
        settle_all(store, 3);
        let mut commit = Commit::default();
        world.delete(&mut commit, ids[1]);
        world.delete(&mut commit, ids[0]);
        store.append(&commit).unwrap();
        let between = world.now.plus_millis(1);
        world.now = between;
        let mut commit = Commit::default();
        world.delete(&mut commit, ids[2]);
        store.append(&commit).unwrap();
        settle_all(store, 3);
        world.check_view(store);

        let reader = store.reader();
        let page = |rev, limit| match reader.changed_since(rev, limit).unwrap() {
            ChangedSince::TooOld => None,
            ChangedSince::Known { changes, more } => {
                Some((changes.into_iter().map(|c| (c.rev, c.gone)).collect::<Vec<_>>(), more))
            }
        };
        assert_eq!(page(13, 2), Some((vec![(14, false), (15, true)], true)));
        assert_eq!(page(15, 2), Some((vec![(16, true), (17, true)], false)));
        assert_eq!(page(17, 2), Some((vec![], false)));

        assert_eq!(store.sweep(world.now, between, 1).unwrap(), 1);
        assert_eq!(page(14, 9), None);
        assert_eq!(page(15, 9), Some((vec![(16, true), (17, true)], false)));
        assert_eq!(store.sweep(world.now, between, 9).unwrap(), 1);
        assert_eq!(store.sweep(world.now, between, 9).unwrap(), 0);
        assert_eq!(page(15, 9), None);
        assert_eq!(page(16, 9), Some((vec![(17, true)], false)));
    });
}

#[test]
fn keys_are_forgotten_after_their_time() {
    on_each(|store| {
        let mut world = World::new(5);
        for key in 0..6 {
            let mut commit = Commit::default();
            world.create(&mut commit);
            world.key(&mut commit, key * 7);
            world.now = world.now.plus_millis(100);
            store.append(&commit).unwrap();
        }
        world.check_by_id(store);
        store.settle(3).unwrap();
        world.check_by_id(store);
        settle_all(store, 3);
        world.check_by_id(store);
        // The same key again, after its time.
        let mut commit = Commit::default();
        world.create(&mut commit);
        world.now = world.now.plus_millis(1_000);
        world.key(&mut commit, 0);
        store.append(&commit).unwrap();
        settle_all(store, 3);
        world.check_by_id(store);
        assert_eq!(store.sweep(world.now, Timestamp::default(), 3).unwrap(), 3);
        assert_eq!(store.sweep(world.now, Timestamp::default(), 9).unwrap(), 2);
        assert_eq!(store.sweep(world.now, Timestamp::default(), 9).unwrap(), 0);
        assert!(store.key(0, world.now).unwrap().is_some());
    });
}

#[test]
fn the_audit_is_forgotten_from_its_oldest_on_and_its_numbers_go_on() {
    on_each(|store| {
        let mut world = World::new(1);
        let mut commit = Commit::default();
        for n in 0..20 {
            world.now = world.now.plus_millis(10);
            world.audit(&mut commit, "cancel", [Some("a"), None][n % 2]);
            if n % 3 == 0 {
                append_to(store, &mut commit);
                store.settle(n % 2).unwrap();
            }
        }
        append_to(store, &mut commit);
        let at = |seq: usize| world.audit[seq - 1].at;
        store.settle(1).unwrap();
        assert_eq!(store.forget_audit(at(1), 100).unwrap(), 0);
        assert_eq!(store.forget_audit(at(8), 3).unwrap(), 3, "no more in one step");
        assert_eq!(store.forget_audit(at(8), 100).unwrap(), 4);
        let seqs = |store: &dyn Store, target: Option<&str>| {
            let target = target.map(str::to_owned);
            let page = store.reader().audit(&AuditQuery { target, limit: 100, ..AuditQuery::default() }).unwrap();
            page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
        };
        assert_eq!(seqs(store, None), (8..=20).rev().collect::<Vec<_>>());
        assert_eq!(seqs(store, Some("a")), [19, 17, 15, 13, 11, 9]);
        assert_eq!(store.recover().unwrap().audit, (8, 20));
        assert_eq!(store.forget_audit(at(20).plus_millis(1), 100).unwrap(), 13);
        assert_eq!(store.recover().unwrap().audit, (21, 20));
        // None is given twice, and none is left out.
        let mut wrong = Commit { audit: vec![world.audit[19].clone()], ..Commit::default() };
        assert!(store.append(&wrong).unwrap_err().lasting);
        wrong.audit[0].seq = 22;
        assert!(store.append(&wrong).unwrap_err().lasting);
        world.audit(&mut commit, "retry", None);
        append_to(store, &mut commit);
        assert_eq!(seqs(store, None), [21]);
    });
}

fn append_to(store: &mut dyn Store, commit: &mut Commit) {
    store.append(&std::mem::take(commit)).unwrap();
}

#[test]
fn the_newest_log_lines_are_kept() {
    // (lines an aside, bytes a line, asides, the first kept)
    for (count, len, asides, kept) in
        [(700, 3, 20, 14_000 - LOG_LINES_MAX), (40, 2_000, 50, 2_000 - LOG_BYTES_MAX / 2_667)]
    {
        on_each(|store| {
            let mut world = World::new(6);
            let mut commit = Commit::default();
            let task_id = world.create(&mut commit);
            store.append(&commit).unwrap();
            for aside in 0..asides {
                let mut commit = Commit::default();
                world.log(&mut commit, task_id, count, len);
                store.append(&commit).unwrap();
                if aside % 3 == 0 {
                    store.settle(9).unwrap();
                }
            }
            for _ in 0..2 {
                let reader = store.reader();
                let logs = &world.tasks[&task_id].logs;
                let tail = reader.logs(task_id, LogRange::Tail(usize::MAX), &[]).unwrap();
                assert_eq!(tail.len(), logs.len() - kept);
                assert_eq!(tail, logs[kept..]);
                let first = reader.logs(task_id, LogRange::After { seq: 0, limit: 10 }, &[]).unwrap();
                assert_eq!(first, logs[kept..kept + 10]);
                assert_eq!(reader.log_end(task_id).unwrap(), logs.len() as u64);
                settle_all(store, 9);
            }
        });
    }
}

#[test]
fn asides_of_a_deleted_task_leave_nothing() {
    on_each(|store| {
        let mut world = World::new(7);
        let mut commit = Commit::default();
        let task_id = world.create(&mut commit);
        world.step(&mut commit, task_id, Status::Cancelled, Event::Cancelled);
        store.append(&commit).unwrap();
        let mut late = Commit::default();
        world.log(&mut late, task_id, 3, 3);
        world.checkpoint(&mut late, task_id);
        world.progress(&mut late, task_id);
        let mut commit = Commit::default();
        world.delete(&mut commit, task_id);
        store.append(&commit).unwrap();
        store.append(&late).unwrap();
        world.check_by_id(store);
        settle_all(store, 1);
        store.append(&late).unwrap();
        settle_all(store, 1);
        world.check_by_id(store);
        world.check_view(store);
    });
}

/// A late tick of the record before came after a tick of the newest one, with nothing but ticks waiting: the late one
/// took its place, and then was ignored itself.
#[test]
fn a_late_tick_does_not_hide_the_newest() {
    on_each(|store| {
        let mut world = World::new(8);
        let mut commit = Commit::default();
        let task_id = world.create(&mut commit);
        world.step(&mut commit, task_id, Status::Running, Event::Running);
        store.append(&commit).unwrap();
        settle_all(store, 1);
        let tick = |rev: u64, percentage: u8| {
            let progress = Json::trusted(format!("{{\"percentage\":{percentage}}}"));
            Commit { asides: vec![Aside::Progress { task_id, rev, progress }], ..Commit::default() }
        };
        let progress = |store: &mut dyn Store| {
            settle_all(store, 1);
            store.recover().unwrap().unfinished.remove(0).run.unwrap().progress.unwrap()
        };
        store.append(&tick(2, 50)).unwrap();
        store.append(&tick(1, 10)).unwrap();
        assert_eq!(progress(store).as_str(), "{\"percentage\":50}");
        store.append(&tick(1, 11)).unwrap();
        assert_eq!(progress(store).as_str(), "{\"percentage\":50}");
        store.append(&tick(2, 60)).unwrap();
        assert_eq!(progress(store).as_str(), "{\"percentage\":60}");
    });
}

#[test]
fn readers_and_the_writer_do_not_keep_each_other_out() {
    on_each(|store| {
        let mut world = World::new(8);
        let mut commit = Commit::default();
        let first = world.create(&mut commit);
        store.append(&commit).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                let reader = store.reader();
                let done = &done;
                scope.spawn(move || {
                    let mut last = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let history = reader.history(first).unwrap();
                        assert!(history.len() >= last, "a history only grows");
                        assert!(history.windows(2).all(|pair| pair[0].rev < pair[1].rev));
                        last = history.len();
                        assert!(reader.task(first).unwrap().is_some());
                        reader.find(&all_tasks()).unwrap();
                    }
                    assert!(last > 0);
                });
            }
            for at in 0..200 {
                let mut commit = Commit::default();
                world.step(&mut commit, first, Status::Running, Event::Running);
                world.create(&mut commit);
                store.append(&commit).unwrap();
                if at % 3 == 0 {
                    store.settle(2).unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        settle_all(store, 100);
        world.check_by_id(store);
        world.check_view(store);
    });
}

/// One thing that happens to a store.
#[derive(Clone, Copy, Debug)]
enum Op {
    Create,
    Transition,
    Delete,
    Checkpoint,
    Progress,
    Log,
    Key,
    Set,
    Access,
    Audit,
    Append,
    Settle(usize),
    Reopen,
    Kill,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Create),
        6 => Just(Op::Transition),
        2 => Just(Op::Delete),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Progress),
        1 => Just(Op::Log),
        1 => Just(Op::Key),
        1 => Just(Op::Set),
        1 => Just(Op::Access),
        1 => Just(Op::Audit),
        4 => Just(Op::Append),
        2 => (0usize..6).prop_map(Op::Settle),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
    ];
    proptest::collection::vec(op, 1..60)
}

/// Does it to the world and to a store, which lives in a folder or in memory.
fn play(seed: u64, ops: &[Op], mut folder: Option<tempfile::TempDir>) {
    let open = |folder: &Option<tempfile::TempDir>| match folder {
        Some(folder) => SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap(),
        None => in_memory().unwrap(),
    };
    let mut store = open(&folder);
    let epoch = store.recover().unwrap().openings.epoch().to_owned();
    let mut world = World::new(seed);
    let mut commit = Commit::default();
    for op in ops.iter().copied().chain([Op::Append, Op::Reopen, Op::Settle(1_000)]) {
        match op {
            Op::Create => {
                world.create(&mut commit);
            }
            Op::Transition => {
                let Some(task_id) = world.any(|known| known.task.status != Status::Completed) else { continue };
                let (status, event) = match world.tasks[&task_id].task.status {
                    Status::Pending => (Status::Running, Event::Running),
                    Status::Running if world.random.bool() => (Status::Completed, Event::Completed),
                    Status::Running if world.random.bool() => (Status::Failed, Event::Failed),
                    Status::Running => (Status::Running, Event::Running),
                    _ => (Status::Pending, Event::Retrying),
                };
                world.step(&mut commit, task_id, status, event);
            }
            Op::Delete => {
                let Some(task_id) = world.any(|known| known.task.status.is_final()) else { continue };
                // The asides of a commit follow its changes, and nothing follows a deletion.
                append(&mut store, &mut commit);
                world.delete(&mut commit, task_id);
                append(&mut store, &mut commit);
            }
            Op::Checkpoint | Op::Progress | Op::Log => {
                let running = |known: &Known| known.task.status == Status::Running;
                let Some(task_id) = world.any(running) else { continue };
                append(&mut store, &mut commit);
                match op {
                    Op::Checkpoint => world.checkpoint(&mut commit, task_id),
                    Op::Progress => world.progress(&mut commit, task_id),
                    _ => {
                        let (count, len) = (world.random.usize(1..40), world.random.usize(0..800));
                        world.log(&mut commit, task_id, count, len);
                    }
                }
                append(&mut store, &mut commit);
            }
            Op::Key => {
                let key = u128::from(world.random.u8(0..4));
                world.key(&mut commit, key);
            }
            Op::Set => {
                // Between changes to tasks, with a number of the same order.
                let (name, concurrency) = (["a", "b"][world.random.usize(..2)], world.random.u32(0..4));
                world.set_queue(&mut commit, name, (concurrency > 0).then_some(concurrency));
            }
            Op::Access => {
                let name = ["a", "b", "c"][world.random.usize(..3)];
                world.access(&mut commit, name);
            }
            Op::Audit => {
                let target = [None, Some("a"), Some("b")][world.random.usize(..3)];
                world.audit(&mut commit, "cancel", target);
            }
            Op::Append => append(&mut store, &mut commit),
            Op::Settle(tasks_max) => {
                append(&mut store, &mut commit);
                let before = store.unsettled().0;
                store.settle(tasks_max).unwrap();
                assert_eq!(store.unsettled().0, before.saturating_sub(tasks_max));
            }
            Op::Reopen | Op::Kill if folder.is_none() => {}
            Op::Reopen => {
                append(&mut store, &mut commit);
                drop(store);
                store = open(&folder);
                assert_eq!(store.unsettled(), (0, 0));
                let recovered = store.recover().unwrap();
                world.check_access(recovered.access, recovered.audit);
            }
            Op::Kill => {
                append(&mut store, &mut commit);
                let image = killed(folder.as_ref().unwrap().path());
                drop(store);
                folder = Some(image);
                store = open(&folder);
                assert_eq!(store.unsettled(), (0, 0));
            }
        }
        if commit.is_empty() {
            world.check_by_id(&mut store);
            world.check_many(&store);
            world.check_audit(&*store.reader());
        }
    }
    settle_all(&mut store, 1_000);
    assert!(store.recover().unwrap().openings.include(&epoch, 0, world.rev));
    world.check_by_id(&mut store);
    world.check_view(&mut store);
}

fn append(store: &mut SqliteStore, commit: &mut Commit) {
    store.append(commit).unwrap();
    *commit = Commit::default();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_in_a_folder_says_what_was_done(seed in any::<u64>(), ops in ops()) {
        play(seed, &ops, Some(tempfile::tempdir().unwrap()));
    }

    #[test]
    fn a_store_in_memory_says_what_was_done(seed in any::<u64>(), ops in ops()) {
        play(seed, &ops, None);
    }
}
