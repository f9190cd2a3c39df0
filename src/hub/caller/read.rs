//! Looking at tasks, and at what is set.

use std::borrow::Cow;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::access::{Part, Right, redacted, redacted_line, redacted_result};
use crate::feed::{Client, Pipe};
use crate::settings::Limits;
use crate::store::{LogRange, Page, Query, Stored};
use crate::task::{Filter, Json, LargeResult, Links, LogLine, Name, NewTask, Task, TaskId, Transition, WaitsFor};
use crate::wire::{
    QueueView, ScheduleList, ScheduleView, Stats, TaskTypeList, TaskTypeView, gone_line, record_in, stats_line,
};

use super::super::{HubError, Missed, SettingLines, Until, WholeWorkflow};
use super::{CallerHub, Sight};

/// Between the name of a history and what tells of it whose sight it is.
const SIGHT_MARK: char = '~';

fn history_and_sight(epoch: &str) -> (&str, Option<&str>) {
    epoch.split_once(SIGHT_MARK).map_or((epoch, None), |(history, sight)| (history, Some(sight)))
}

impl CallerHub {
    /// A task with its newest tick, its payload and its result. `None`: there is none that the caller sees.
    pub async fn task(&self, task_id: TaskId) -> Result<Option<Stored>, HubError> {
        if !self.is_in_sight(task_id).await? {
            return Ok(None);
        }
        self.seen(self.hub.task(task_id).await?).await
    }

    /// As [`task`](Self::task), once `until` holds or `patience` is over, whichever comes first.
    pub async fn wait_for(
        &self,
        task_id: TaskId,
        until: Until,
        patience: Duration,
    ) -> Result<Option<Stored>, HubError> {
        // What is out of sight is not waited for.
        if !self.is_in_sight(task_id).await? {
            return Ok(None);
        }
        self.seen(self.hub.wait_for(task_id, until, patience).await?).await
    }

    async fn seen(&self, stored: Option<Stored>) -> Result<Option<Stored>, HubError> {
        let Some(stored) = stored.filter(|stored| self.sees_record(&stored.record)) else { return Ok(None) };
        let hidden = &self.who.hidden;
        let links = match stored.links {
            Some(links) if !self.sees_all() => self.seen_links(&links).await?,
            links => links,
        };
        Ok(Some(Stored {
            payload: stored.payload.and_then(|payload| hidden.left_of(Part::Payload, payload)),
            result: stored.result.and_then(|result| redacted_result(&stored.record, result, hidden)),
            record: self.shown_record(stored.record),
            links,
        }))
    }

    /// Of what a task depends on, what the caller sees.
    async fn seen_links(&self, links: &Json) -> Result<Option<Json>, HubError> {
        let Ok(Links { mut depends_on, .. }) = Links::parse(links) else { return Ok(None) };
        let mut sees = self.sees_each(depends_on.clone()).await?.into_iter();
        depends_on.retain(|_| sees.next() == Some(true));
        Ok(Some(Links { depends_on, ..Links::default() }.to_json()))
    }

    /// A record, without what is hidden from the caller.
    pub fn shown_record(&self, record: Bytes) -> Bytes {
        if self.who.hidden.is_nothing() { record } else { redacted(&record, &self.who.hidden) }
    }

    /// Whether lines of the live stream have to be looked at on their way to the caller ([`shown_line`](Self::shown_line)).
    pub fn looks_at_lines(&self) -> bool {
        !self.who.hidden.is_nothing() || self.who.sight.may_be_left()
    }

    /// A line of the live stream as the caller may have it: without what is hidden, and of a task that they see no longer no more than
    /// that it is gone.
    pub fn shown_line(&self, line: &Bytes) -> Option<Bytes> {
        let gone = if self.who.sight.may_be_left() { self.left(line) } else { None };
        redacted_line(gone.as_ref().unwrap_or(line), &self.who.hidden)
    }

    /// Of a line with the record of a task that has left the caller's sight, the line that says so.
    fn left(&self, line: &Bytes) -> Option<Bytes> {
        let task = Task::parse(record_in(line)?).ok()?;
        (!self.sees(&task)).then(|| gone_line(task.task_id, task.rev))
    }

    /// Why a task that the caller sees waits, the nearest reason first; of others, no more than that they are there.
    pub async fn waits_for(&self, task_id: TaskId) -> Option<Vec<WaitsFor>> {
        if !self.is_in_sight(task_id).await.ok()? {
            return None;
        }
        let mut reasons = self.hub.waits_for(task_id).await?;
        if self.sees_all() {
            return Some(reasons);
        }
        for reason in &mut reasons {
            match reason {
                WaitsFor::Dependency { task_ids, count } => {
                    let mut sees = self.sees_each(task_ids.clone()).await.ok()?.into_iter();
                    task_ids.retain(|_| sees.next() == Some(true));
                    *count = task_ids.len();
                }
                // It is reached, or the task would not wait for it.
                WaitsFor::QueueLimit { limit, running }
                | WaitsFor::KeyLimit { limit, running }
                | WaitsFor::UserLimit { limit, running } => *running = *limit,
                WaitsFor::Turn { ahead } => *ahead = None,
                _ => {}
            }
        }
        Some(reasons)
    }

    /// The newest record of an unfinished task that the caller sees, and of a final one for a moment longer.
    pub fn shown(&self, task_id: TaskId) -> Option<Arc<Task>> {
        self.hub.shown(task_id).filter(|task| self.sees(task))
    }

    /// A page of the tasks that the caller sees, running ones with their newest tick.
    pub async fn find(&self, query: Query) -> Result<Arc<Page>, HubError> {
        let filter = self.scoped(query.filter);
        if filter.is_nothing() {
            return Ok(Arc::default());
        }
        let page = self.hub.find(Query { filter, ..query }).await?;
        if self.who.hidden.is_nothing() {
            return Ok(page);
        }
        let tasks = page.tasks.iter().map(|(task_id, record)| (*task_id, self.shown_record(record.clone())));
        Ok(Arc::new(Page { tasks: tasks.collect(), more: page.more }))
    }

    /// The steps of a task, oldest first. `None`: there is none that the caller sees.
    pub async fn history(&self, task_id: TaskId) -> Result<Option<Vec<Transition>>, HubError> {
        match self.is_in_sight(task_id).await? {
            true => self.hub.history(task_id).await,
            false => Ok(None),
        }
    }

    /// Kept log lines of a task, oldest first. `None`: there is none that the caller sees.
    pub async fn logs(&self, task_id: TaskId, range: LogRange) -> Result<Option<Vec<LogLine>>, HubError> {
        match self.is_in_sight(task_id).await? {
            true => {
                self.needs_part(Part::Logs)?;
                self.hub.logs(task_id, range).await
            }
            false => Ok(None),
        }
    }

    /// The number of the newest log line of each of these tasks, 0 where there is none that the caller sees.
    pub async fn log_ends(&self, task_ids: Vec<TaskId>) -> Result<Vec<u64>, HubError> {
        let mut ends = self.hub.log_ends(task_ids.clone()).await?;
        if !self.sees_all() {
            let sees = self.sees_each(task_ids).await?;
            ends.iter_mut().zip(sees).filter(|(_, sees)| !sees).for_each(|(end, _)| *end = 0);
        }
        Ok(ends)
    }

    /// A workflow with those of its tasks that the caller sees. `None`: there is no such task that they see, or it is none.
    pub async fn workflow(&self, task_id: TaskId) -> Result<Option<WholeWorkflow>, HubError> {
        if !self.is_in_sight(task_id).await? {
            return Ok(None);
        }
        let Some(mut whole) = self.hub.workflow(task_id).await? else { return Ok(None) };
        if !self.sees_all() {
            whole.tasks.retain(|record| self.sees_record(record));
            let seen: std::collections::HashSet<TaskId> =
                whole.tasks.iter().filter_map(|record| Some(Task::parse(record).ok()?.task_id)).collect();
            whole.edges.retain(|(from, to)| seen.contains(from) && seen.contains(to));
        }
        whole.record = self.shown_record(whole.record);
        whole.tasks = whole.tasks.into_iter().map(|record| self.shown_record(record)).collect();
        Ok(Some(whole))
    }

    /// The file of a result that stands in this record of a task.
    pub async fn open_result(&self, task_id: TaskId, large: &LargeResult) -> Result<Option<File>, HubError> {
        self.in_sight(task_id).await?;
        self.needs_all_of(Part::Result)?;
        self.hub.open_result(task_id, large).await
    }

    /// What changed after a `rev`; at most a thousand tasks at once. Of all callers': whoever asks looks at each with the filter of
    /// a subscription, which is [`scoped`](Self::scoped).
    pub async fn missed_since(&self, rev: u64) -> Result<Arc<Missed>, HubError> {
        self.hub.missed_since(rev).await
    }

    /// The newest tick's event of each running task that matches a scoped filter, for a client that has every record up to
    /// `rev`.
    pub fn progress_lines(&self, filter: &Filter, rev: u64) -> Vec<Bytes> {
        self.hub.progress_lines(filter, rev)
    }

    /// Attaches a live client, that the feed may write to by itself where there is a `pipe`. Its subscriptions are to be
    /// [`scoped`](Self::scoped).
    pub fn attach(&self, pipe: Option<Arc<dyn Pipe>>) -> Client {
        self.hub.feed().attach(pipe)
    }

    /// The name of the history that the hub is on, as the caller sees it: with another sight it is another.
    pub fn epoch(&self) -> Cow<'_, str> {
        match &self.who.sight {
            Sight::Of(sight) => format!("{}{SIGHT_MARK}{:016x}", self.hub.epoch(), sight.digest()).into(),
            _ => self.hub.epoch().into(),
        }
    }

    /// Whether a client that heard all up to `rev`, when the epoch was called so, can go on from there; else why it cannot, in the
    /// word of the contract.
    pub fn goes_on_from(&self, epoch: &str, rev: u64) -> Result<(), &'static str> {
        let ((epoch, sight), own) = (history_and_sight(epoch), self.epoch());
        let (_, own) = history_and_sight(&own);
        match (self.hub.includes(epoch, rev), sight == own) {
            (false, _) => Err("epoch"),
            (true, false) => Err("scope"),
            (true, true) => Ok(()),
        }
    }

    /// The last `rev` that is committed and shown.
    pub fn rev(&self) -> u64 {
        self.hub.rev()
    }

    /// Counts and rates: of all tasks, for those who may look at the hub's numbers; for whoever sees the tasks of one user, of those.
    pub fn stats(&self) -> Result<Stats, HubError> {
        match self.who.only_user() {
            Some(user) => Ok(Stats { epoch: self.epoch().into_owned(), ..self.hub.stats_of(user) }),
            None => Ok(self.whole(Right::SeeHub)?.stats()),
        }
    }

    /// The line of the same.
    pub fn stats_line(&self) -> Result<Bytes, HubError> {
        match self.who.only_user() {
            Some(_) => Ok(stats_line(&self.stats()?)),
            None => Ok(self.whole(Right::SeeHub)?.stats_line()),
        }
    }

    /// The newest record of each setting, or what changed of them.
    pub fn setting_lines(&self, since: Option<u64>) -> SettingLines {
        self.hub.setting_lines(since)
    }

    /// What is set of a queue, and what stands in it. A caller who does not see all is told of queues that are set, and not how
    /// much stands in them.
    pub fn queue(&self, name: &Name) -> Option<QueueView> {
        self.hub.queue(name).and_then(|queue| self.shown_queue(queue))
    }

    /// The queues.
    pub fn queues(&self) -> Vec<QueueView> {
        self.hub.queues().into_iter().filter_map(|queue| self.shown_queue(queue)).collect()
    }

    fn shown_queue(&self, queue: QueueView) -> Option<QueueView> {
        match self.sees_all() {
            true => Some(queue),
            false => queue.rev.is_some().then_some(QueueView { tasks: None, ..queue }),
        }
    }

    /// The limits of users; to a caller who does not see all, what holds for everybody and for them.
    pub fn limits(&self) -> Limits {
        let mut limits = self.hub.limits();
        if !self.sees_all() {
            let own = |user: &String| self.who.user_id.as_ref().is_some_and(|own| own.as_str() == user);
            limits.users.retain(|user, _| own(user));
        }
        limits
    }

    /// A task type.
    pub fn task_type(&self, name: &Name) -> Option<TaskTypeView> {
        self.hub.task_type(name)
    }

    /// Task types by name, at most so many of those after this one.
    pub fn task_types(&self, after: Option<Name>, len_max: usize) -> TaskTypeList {
        self.hub.task_types(after, len_max)
    }

    /// A schedule whose tasks the caller sees.
    pub async fn schedule(&self, name: &Name) -> Result<Option<ScheduleView>, HubError> {
        let schedule = self.hub.schedule(name).await?.filter(|schedule| self.sees_made(&schedule.task));
        Ok(schedule.map(|schedule| self.shown_schedule(schedule)))
    }

    /// Schedules whose tasks the caller sees, by name, at most so many of those after this one.
    pub async fn schedules(&self, after: Option<Name>, len_max: usize) -> Result<ScheduleList, HubError> {
        if self.sees_all() && self.who.hidden.is_nothing() {
            return self.hub.schedules(after, len_max).await;
        }
        let (mut after, mut seen) = (after, Vec::new());
        loop {
            let page = self.hub.schedules(after, len_max).await?;
            let more = page.next_cursor.is_some();
            after = page.schedules.last().map(|last| last.name.clone());
            seen.extend(page.schedules.into_iter().filter(|schedule| self.sees_made(&schedule.task)));
            if seen.len() > len_max || !more {
                let more = seen.len() > len_max;
                seen.truncate(len_max);
                let next_cursor = seen.last().filter(|_| more).map(|last| last.name.to_string());
                let schedules = seen.into_iter().map(|schedule| self.shown_schedule(schedule)).collect();
                return Ok(ScheduleList { schedules, next_cursor });
            }
        }
    }

    /// A schedule, without what is hidden from the caller of the tasks that it makes.
    fn shown_schedule(&self, mut schedule: ScheduleView) -> ScheduleView {
        let hidden = &self.who.hidden;
        if hidden.touches(Part::Payload) && schedule.task.payload.is_some() {
            let mut task = NewTask::clone(&schedule.task);
            task.payload = task.payload.and_then(|payload| hidden.left_of(Part::Payload, payload));
            schedule.task = Arc::new(task);
        }
        schedule
    }

    /// Whether the caller would see what is made of this.
    fn sees_made(&self, new: &NewTask) -> bool {
        match &self.who.sight {
            Sight::All => true,
            Sight::Of(sight) => super::submit::fits(sight, new),
            Sight::Held => false,
        }
    }
}
