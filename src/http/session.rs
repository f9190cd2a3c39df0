//! A live client, whatever carries it: a WebSocket or an event stream.
//!
//! A session turns what was asked for into lines, in the order that the contract promises: `subscribed`, the snapshot or
//! what changed since a mark, `mark`, and then what happens. It holds one reader of the feed. Where a client falls behind is the
//! feed's business; here it only matters that no more is taken from the feed than the carrier takes from us.
//!
//! A mark says that everything up to its `rev` was sent. The feed's client says which, and it holds for the snapshot as well: a
//! snapshot is read after the subscription stands, so what is older than the mark is in it, and what is younger follows.

mod caller;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answers::{Mode, PAGE_BYTES, quoted, reset_line, snapshot_lines, subscribed, with_id};
use super::live_op::{self, TaskSubscription, Topic};
use super::state::{App, LiveLimits};
use crate::feed::{self, End, Pipe, Taken};
use crate::hub::{CallerHub, HubError, LogRange, Missed, Page, Query};
use crate::task::{Task, TaskId};
use crate::telemetry::Delivery;
use crate::wire::{CloseCode, Code, Problem};

/// What is taken from the feed at once: enough to fill packets, and little enough that what waits behind it can still be
/// replaced by something newer.
const TAKE_BYTES: usize = 32 << 10;
/// A mark follows what was sent after this long. The contract says within a second.
const MARK_AFTER: Duration = Duration::from_millis(400);
const STATS_EVERY: Duration = Duration::from_secs(1);
/// How soon those who watch it hear of what was set. Settings change by hand, so a look now and then does.
const SETTINGS_EVERY: Duration = Duration::from_millis(250);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The other side is gone already.
    Gone,
    /// By us, with a reason.
    Close(CloseCode, &'static str),
    /// The other side said that it closes, with this code.
    Answer(Option<u16>),
}

/// Where lines go.
pub(super) trait Carrier: Send {
    /// Sends lines, emptying `lines`. Resolves when there is room for more; ends the connection when there is none for too
    /// long.
    fn send(&mut self, lines: &mut Vec<Bytes>) -> impl Future<Output = Result<(), Ending>> + Send;
}

pub(super) struct Session {
    app: Arc<App>,
    /// The hub, as the caller has it.
    hub: CallerHub,
    /// Where the feed may write by itself, if anywhere; and whether it does. Not to a caller for whom lines have to be looked at.
    pipe: Option<Arc<dyn Pipe>>,
    is_piped: bool,
    client: feed::Client,
    /// By name; few.
    subs: Vec<(Box<str>, Topic)>,
    /// Lines on their way to the carrier; empty between two calls.
    lines: Vec<Bytes>,
    /// When a client is pinged next that the feed does not write to, and for how many pings nothing was heard of it.
    ping_at: Instant,
    silent: u8,
    heard: bool,
    /// When a mark was sent last, and when the next one is.
    marked_at: Instant,
    mark_at: Instant,
    /// Moves when a credential was taken back.
    changes: watch::Receiver<u64>,
    /// When the caller's credential is over.
    expires_at: Option<Instant>,
    /// When counts are sent next, if a subscription asks for them.
    stats_at: Option<Instant>,
    /// What is set is looked at next then, for what changed after this `rev`.
    settings: Option<(Instant, u64)>,
    /// Transitions were merged, and the client has not caught up yet.
    lags: bool,
    /// Something was sent after the last mark.
    needs_mark: bool,
}

impl Session {
    /// For a carrier that the feed may write to by itself, where there is a `pipe`.
    pub(super) fn new(app: Arc<App>, hub: CallerHub, pipe: Option<Arc<dyn Pipe>>) -> Session {
        let (client, is_piped) = caller::attach(&hub, &pipe);
        let marked_at = Instant::now();
        let ping = app.options().feed.ping;
        let mark_at = marked_at + ping;
        let (subs, lines) = (Vec::new(), Vec::new());
        let (changes, expires_at) = (app.keys().changes(), caller::expiry(hub.who()));
        Session {
            app,
            hub,
            pipe,
            is_piped,
            changes,
            expires_at,
            client,
            subs,
            lines,
            ping_at: marked_at + pinged_every(ping),
            silent: 0,
            heard: true,
            marked_at,
            mark_at,
            stats_at: None,
            settings: None,
            lags: false,
            needs_mark: false,
        }
    }

    /// Whether there is a subscription.
    pub(super) fn is_subscribed(&self) -> bool {
        !self.subs.is_empty()
    }

    /// What the client has to keep to.
    pub(super) fn limits(&self) -> &LiveLimits {
        &self.app.live
    }

    fn ping(&self) -> Duration {
        self.app.options().feed.ping
    }

    /// The hub's first word, and its answer to `hello` and `refresh`.
    pub(super) async fn greet(&mut self, id: Option<u64>, out: &mut impl Carrier) -> Result<(), Ending> {
        let limits = live_op::limits(self.limits(), self.app.options().feed.max_hz);
        let line = format!(
            r#"{{"type":"hello"{},"epoch":"{}","rev":{},"ping_ms":{},"limits":{limits}{}}}"#,
            with_id(id),
            self.hub.epoch(),
            self.hub.rev(),
            self.ping().as_millis(),
            self.identity(),
        );
        self.say(line, out).await
    }

    /// Resolves when the feed has something for this client. May be dropped and called again.
    pub(super) async fn ready(&self) {
        self.client.ready().await;
    }

    /// Sends some of what the feed has.
    pub(super) async fn pass_on(&mut self, out: &mut impl Carrier) -> Result<Taken, Ending> {
        let taken = self.client.take(&mut self.lines, TAKE_BYTES);
        match taken {
            Taken::Nothing => self.set_lags(false),
            Taken::Lines => {
                self.count_lines();
                self.redact();
                out.send(&mut self.lines).await?;
                self.needs_mark = true;
                self.mark_at = self.mark_at.min(Instant::now() + MARK_AFTER);
            }
            Taken::Overflowed => self.start_over(out).await?,
        }
        Ok(taken)
    }

    /// Lets the feed write to the pipe by itself, if all was said. Answers whether it does.
    pub(super) async fn flow(&mut self, out: &mut impl Carrier) -> Result<bool, Ending> {
        if self.needs_mark {
            self.mark();
            self.flush(out).await?;
        }
        Ok(!self.is_piped || self.client.flow())
    }

    /// Takes the pipe back. What is left of the feed's last message is to be written first.
    pub(super) fn stop(&self) -> Bytes {
        self.client.stop()
    }

    /// Something came from the other side.
    pub(super) fn set_heard(&mut self) {
        self.client.set_heard();
        self.heard = true;
    }

    /// When something is to be said to a client that the feed does not write to by itself: a mark, or a ping.
    pub(super) fn speaks_at(&self) -> Option<Instant> {
        (!self.is_piped).then(|| self.mark_at.min(self.ping_at))
    }

    /// Whether such a client is to be pinged now; or that it did not answer the last pings.
    pub(super) fn pings(&mut self, now: Instant) -> Result<bool, Ending> {
        if self.is_piped || now < self.ping_at {
            return Ok(false);
        }
        self.ping_at = now + pinged_every(self.ping());
        self.silent = if std::mem::take(&mut self.heard) { 0 } else { self.silent + 1 };
        match self.silent < feed::SILENT_PINGS {
            true => Ok(true),
            false => Err(Ending::Close(CloseCode::NoPong, "nothing was heard")),
        }
    }

    /// Whether the feed wants this client to end.
    pub(super) fn ended(&self) -> Result<(), Ending> {
        match self.client.end() {
            None => Ok(()),
            Some(End::Dismissed | End::Lost) => Err(Ending::Close(CloseCode::Restarting, "restarting")),
            Some(End::Silent) => Err(Ending::Close(CloseCode::NoPong, "nothing was heard")),
        }
    }

    /// When counts are to be sent, or settings to be looked at, if a subscription asks for them.
    pub(super) fn looks_at(&self) -> Option<Instant> {
        let settings_at = self.settings.map(|(at, _)| at);
        self.stats_at.into_iter().chain(settings_at).min()
    }

    /// When [`on_time`](Self::on_time) has something to do.
    pub(super) fn next_at(&self) -> Instant {
        self.looks_at().map_or(self.mark_at, |at| at.min(self.mark_at))
    }

    /// Says what is due.
    pub(super) async fn on_time(&mut self, now: Instant, out: &mut impl Carrier) -> Result<(), Ending> {
        if !self.client.is_ready() {
            self.set_lags(false);
        }
        // Clients take a mark for having caught up, so one that lags is sent marks only as often as the contract asks.
        if self.lags && now < self.marked_at + self.ping() {
            self.mark_at = self.mark_at.max(now + MARK_AFTER);
        } else if now >= self.mark_at {
            self.mark();
        }
        if self.stats_at.is_some_and(|at| now >= at) {
            self.stats();
        }
        if let Some((at, rev)) = self.settings
            && now >= at
        {
            self.set(Some(rev));
        }
        self.flush(out).await
    }

    /// Begins a subscription. If something is wrong with it, the client gets an error and the session stays.
    pub(super) async fn subscribe(
        &mut self,
        id: Option<u64>,
        name: String,
        topic: Topic,
        out: &mut impl Carrier,
    ) -> Result<(), Ending> {
        self.forget(&name);
        let subscriptions_max = self.limits().subscriptions_max;
        if self.subs.len() >= subscriptions_max {
            let problem = Problem::over("subscriptions", subscriptions_max as u64, "of one connection");
            return self.refuse(id, &problem, out).await;
        }
        if let Err(error) = self.may(&topic) {
            return self.refuse(id, &error.into(), out).await;
        }
        let topic = match topic {
            Topic::Tasks(mut tasks) => {
                let filter = self.hub.scoped_shared(&mut tasks.asked);
                Topic::Tasks(TaskSubscription { filter, ..tasks })
            }
            topic => topic,
        };
        let refusal = match &topic {
            Topic::Stats => {
                self.lines.push(subscribed(id, &name, Mode::Snapshot, self.hub.rev()));
                self.stats();
                None
            }
            Topic::Settings => {
                self.lines.push(subscribed(id, &name, Mode::Snapshot, self.hub.rev()));
                self.set(None);
                None
            }
            Topic::Tasks(tasks) => self.begin(id, &name, tasks, out).await?,
        };
        match refusal {
            Some(problem) => {
                self.client.unsubscribe(&name);
                self.refuse(id, &problem, out).await
            }
            None => {
                // Most clients have one, and ten thousand of them are many.
                self.subs.reserve_exact(1);
                self.subs.push((name.into(), topic));
                self.app.metrics().subscribed(1);
                self.flush(out).await
            }
        }
    }

    async fn begin(
        &mut self,
        id: Option<u64>,
        name: &str,
        tasks: &TaskSubscription,
        out: &mut impl Carrier,
    ) -> Result<Option<Problem>, Ending> {
        self.client.subscribe(name, tasks.filter.clone(), tasks.max_hz, tasks.log_tail.is_some()).await;
        // What waited before belongs before the snapshot.
        while self.pass_on(out).await? != Taken::Nothing {}
        // Here, where lines are on their way already and `subscribed` is not said yet: what is logged after it is sent.
        let log_cuts = match self.log_cuts(tasks).await {
            Ok(cuts) => cuts,
            Err(error) => return refusal(error).map(Some),
        };
        let rev = self.hub.rev();
        let catch_up = match &tasks.since {
            None => Ok(CatchUp::Snapshot(None)),
            Some(since) if since.rev > rev => Ok(CatchUp::Snapshot(Some("epoch"))),
            Some(since) => match self.hub.goes_on_from(&since.epoch, since.rev) {
                Ok(()) => self.changed_since(since.rev).await,
                Err(reason) => Ok(CatchUp::Snapshot(Some(reason))),
            },
        };
        match catch_up {
            Ok(CatchUp::Changed(changed)) => {
                self.lines.push(subscribed(id, name, Mode::Resumed, rev));
                if !self.resume(tasks, changed, rev, out).await? {
                    self.reset(name, tasks, out).await?;
                }
            }
            Ok(CatchUp::Snapshot(reset)) => match self.find(tasks).await {
                Ok(page) => {
                    self.lines.push(subscribed(id, name, Mode::Snapshot, rev));
                    self.lines.extend(reset.map(|reason| reset_line(name, reason)));
                    self.snapshot(name, &page, out).await?;
                }
                Err(error) => return refusal(error).map(Some),
            },
            Err(error) => return refusal(error).map(Some),
        }
        for (task_id, cut) in log_cuts {
            self.log_tail(tasks, task_id, cut, out).await?;
        }
        self.mark();
        self.client.release(name);
        Ok(None)
    }

    /// The first page of what changed after `rev`; or that a snapshot is the shorter way, or the only one.
    async fn changed_since(&self, rev: u64) -> Result<CatchUp, HubError> {
        let hub = &self.hub;
        let len_max = self.limits().resume_len_max;
        // A task that changed has at least one `rev` of its own, so mostly there is nothing to count.
        if hub.rev().saturating_sub(rev) > len_max as u64 {
            let (mut after, mut read) = (rev, 0);
            while let Missed::Known { tasks, rev, more } = &*hub.missed_since(after).await? {
                (after, read) = (*rev, read + tasks.len());
                if read > len_max {
                    return Ok(CatchUp::Snapshot(Some("too_old")));
                }
                if !more {
                    break;
                }
            }
        }
        let changed = hub.missed_since(rev).await?;
        Ok(match *changed {
            Missed::TooOld => CatchUp::Snapshot(Some("too_old")),
            Missed::Known { .. } => CatchUp::Changed(changed),
        })
    }

    /// Sends the records that changed, a page at a time, and the newest tick of what runs; not of records after `known`, which the
    /// feed still holds for this client. Answers whether that was all: in the meantime the hub may have forgotten what was
    /// deleted, and more may have changed than a client is told of.
    async fn resume(
        &mut self,
        asked: &TaskSubscription,
        mut changed: Arc<Missed>,
        known: u64,
        out: &mut impl Carrier,
    ) -> Result<bool, Ending> {
        let mut read = 0;
        loop {
            let Missed::Known { tasks, rev, more } = &*changed else { return Ok(false) };
            let (rev, more) = (*rev, *more);
            read += tasks.len();
            if read > self.limits().resume_len_max {
                return Ok(false);
            }
            let meant = tasks.iter().filter(|changed| asked.filter.matches_ever(&changed.task));
            let lines: Vec<Bytes> = meant.filter_map(|changed| self.hub.shown_line(&changed.line)).collect();
            // The read is shared with other sessions: a slow one keeps only the lines that its filter covers, not all of it.
            drop(changed);
            for line in lines {
                self.lines.push(line);
                self.flush_full(out).await?;
            }
            if !more {
                break;
            }
            changed = self.hub.missed_since(rev).await.map_err(cannot_go_on)?;
        }
        for line in self.hub.progress_lines(&asked.filter, known) {
            self.lines.push(line);
            self.flush_full(out).await?;
        }
        self.flush(out).await?;
        Ok(true)
    }

    /// Voids what was sent of this subscription, and sends a fresh snapshot.
    async fn reset(&mut self, name: &str, tasks: &TaskSubscription, out: &mut impl Carrier) -> Result<(), Ending> {
        let page = self.find(tasks).await.map_err(cannot_go_on)?;
        self.lines.push(reset_line(name, "too_old"));
        self.snapshot(name, &page, out).await
    }

    async fn find(&self, tasks: &TaskSubscription) -> Result<Arc<Page>, HubError> {
        let query = Query {
            filter: (*tasks.filter).clone(),
            text: None,
            created_after: None,
            created_before: None,
            order: tasks.order,
            beyond: None,
            limit: tasks.limit,
        };
        self.hub.find(query).await
    }

    async fn snapshot(&mut self, name: &str, page: &Page, out: &mut impl Carrier) -> Result<(), Ending> {
        for line in snapshot_lines(name, page) {
            self.lines.push(line);
            self.flush(out).await?;
        }
        Ok(())
    }

    /// Where the log of each task that the filter names is cut, if logs were asked for: up to here a line belongs to the
    /// tail, of which so many are sent; every line after it is sent.
    async fn log_cuts(&self, tasks: &TaskSubscription) -> Result<Vec<(TaskId, u64)>, HubError> {
        let ids = tasks.filter.task_id.iter().flatten().copied();
        let ids: Vec<TaskId> = tasks.log_tail.map(|_| ids.collect()).unwrap_or_default();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ends = self.hub.log_ends(ids.clone()).await?;
        Ok(ids.into_iter().zip(ends).collect())
    }

    /// Sends the tail of a log and what was logged since the cut, if the filter means the task. Lines that the feed gathered
    /// meanwhile are among them, and so are those that it had to skip.
    async fn log_tail(
        &mut self,
        tasks: &TaskSubscription,
        task_id: TaskId,
        cut: u64,
        out: &mut impl Carrier,
    ) -> Result<(), Ending> {
        let hub = &self.hub;
        let Some(stored) = hub.task(task_id).await.map_err(cannot_go_on)? else { return Ok(()) };
        if !Task::parse(&stored.record).is_ok_and(|task| tasks.filter.matches_unchanging(&task)) {
            return Ok(());
        }
        let range = LogRange::Cut { seq: cut, tail: tasks.log_tail.unwrap_or(0) };
        let lines = hub.logs(task_id, range).await.map_err(cannot_go_on)?.unwrap_or_default();
        self.client.logs_known(task_id, lines.last().map_or(cut, |last| last.seq));
        // Only the newest lines of a task are kept.
        let skipped = lines.first().and_then(|first| feed::skipped_before(task_id, first, cut));
        self.lines.extend(skipped);
        for event in feed::log_events(task_id, &lines) {
            self.lines.push(event.line);
            self.flush_full(out).await?;
        }
        Ok(())
    }

    /// More changed than could be kept for this client: each subscription starts anew.
    async fn start_over(&mut self, out: &mut impl Carrier) -> Result<(), Ending> {
        self.client.restart();
        let subs: Vec<(String, TaskSubscription)> = self
            .subs
            .iter()
            .filter_map(|(name, topic)| match topic {
                Topic::Tasks(tasks) => Some((name.to_string(), tasks.clone())),
                Topic::Stats | Topic::Settings => None,
            })
            .collect();
        // While the first subscription only begins, nothing was sent that a mark could stand for.
        let stands_for_something = !subs.is_empty();
        for (name, tasks) in subs {
            self.reset(&name, &tasks, out).await?;
            self.client.release(&name);
        }
        self.set_lags(false);
        if stands_for_something {
            self.mark();
        }
        self.flush(out).await
    }

    pub(super) async fn unsubscribe(
        &mut self,
        id: Option<u64>,
        name: &str,
        out: &mut impl Carrier,
    ) -> Result<(), Ending> {
        if self.forget(name) {
            return self.say(format!(r#"{{"type":"unsubscribed"{},"sub":{}}}"#, with_id(id), quoted(name)), out).await;
        }
        let problem = Problem::new(Code::NotFound, "there is no subscription of this name");
        self.refuse(id, &problem, out).await
    }

    fn forget(&mut self, name: &str) -> bool {
        let at = self.subs.iter().position(|(known, _)| **known == *name);
        if let Some(at) = at {
            self.subs.remove(at);
            self.client.unsubscribe(name);
            self.app.metrics().subscribed(-1);
        }
        if !self.subs.iter().any(|(_, topic)| *topic == Topic::Stats) {
            self.stats_at = None;
        }
        if !self.subs.iter().any(|(_, topic)| *topic == Topic::Settings) {
            self.settings = None;
        }
        at.is_some()
    }

    pub(super) async fn pong(&mut self, id: Option<u64>, out: &mut impl Carrier) -> Result<(), Ending> {
        self.say(format!(r#"{{"type":"pong"{}}}"#, with_id(id)), out).await
    }

    pub(super) async fn refuse(
        &mut self,
        id: Option<u64>,
        problem: &Problem,
        out: &mut impl Carrier,
    ) -> Result<(), Ending> {
        let detail = quoted(&problem.detail);
        let field = problem.field.as_ref().map_or(String::new(), |field| format!(r#","field":{}"#, quoted(field)));
        let code = problem.code.as_str();
        self.say(format!(r#"{{"type":"error"{},"code":"{code}","detail":{detail}{field}}}"#, with_id(id)), out).await
    }

    fn mark(&mut self) {
        let rev = self.client.mark();
        self.lines.push(format!(r#"{{"type":"mark","rev":{rev}}}"#).into());
        self.marked_at = Instant::now();
        self.mark_at = self.marked_at + self.ping();
        self.needs_mark = false;
    }

    fn stats(&mut self) {
        // Who may not have it has no such subscription.
        self.lines.extend(self.hub.stats_line());
        self.stats_at = Some(Instant::now() + STATS_EVERY);
    }

    /// What is set, or what changed of it after a `rev`. The line behind it says that the picture is whole.
    fn set(&mut self, since: Option<u64>) {
        let set = self.hub.setting_lines(since);
        if set.all || !set.lines.is_empty() {
            self.lines.extend(set.lines);
            let all = if set.all { r#","all":true"# } else { "" };
            self.lines.push(format!(r#"{{"type":"settings","rev":{}{all}}}"#, set.rev).into());
        }
        self.settings = Some((Instant::now() + SETTINGS_EVERY, set.rev));
    }

    async fn say(&mut self, line: String, out: &mut impl Carrier) -> Result<(), Ending> {
        self.lines.push(line.into());
        self.flush(out).await
    }

    async fn flush(&mut self, out: &mut impl Carrier) -> Result<(), Ending> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let bytes = self.lines.iter().map(Bytes::len).sum::<usize>();
        self.app.metrics().delivered(Delivery::Other, self.lines.len() as u64, bytes as u64);
        out.send(&mut self.lines).await
    }

    /// Flushes once there is a message's worth.
    async fn flush_full(&mut self, out: &mut impl Carrier) -> Result<(), Ending> {
        let bytes: usize = self.lines.iter().map(Bytes::len).sum();
        if bytes >= PAGE_BYTES || self.lines.len() >= 256 { self.flush(out).await } else { Ok(()) }
    }

    /// Counts what the feed gave.
    fn count_lines(&mut self) {
        let mut counts = [(Delivery::Transition, 0, 0), (Delivery::Progress, 0, 0), (Delivery::Log, 0, 0)];
        let mut merged = None;
        for line in &self.lines {
            // Every line begins with its type.
            let at = match &line[9..] {
                [b'p', ..] => 1,
                [b'l', b'o', ..] => 2,
                [b'l', b'a', ..] => {
                    let number = line.rsplit(|byte| *byte == b':').next().and_then(|rest| rest.strip_suffix(b"}"));
                    merged = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                    continue;
                }
                _ => 0,
            };
            counts[at].1 += 1;
            counts[at].2 += line.len() as u64;
        }
        for (delivery, lines, bytes) in counts.into_iter().filter(|(_, lines, _)| *lines > 0) {
            self.app.metrics().delivered(delivery, lines, bytes);
        }
        if let Some(merged) = merged {
            self.app.metrics().collapsed(1, merged);
            self.set_lags(true);
        }
    }

    fn set_lags(&mut self, lags: bool) {
        if std::mem::replace(&mut self.lags, lags) != lags {
            self.app.metrics().lagging(if lags { 1 } else { -1 });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.set_lags(false);
        self.app.metrics().subscribed(-(self.subs.len() as i64));
    }
}

/// Clients count on a ping within `ping`.
fn pinged_every(ping: Duration) -> Duration {
    ping * 4 / 5
}

/// How a subscription catches up.
enum CatchUp {
    /// With what changed since its mark, of which this is the first page.
    Changed(Arc<Missed>),
    /// With a snapshot; and why, where the client had hoped for less.
    Snapshot(Option<&'static str>),
}

/// What the client gets when the hub could not read: an error, or the goodbye of a hub that has stopped.
fn refusal(error: HubError) -> Result<Problem, Ending> {
    match error {
        HubError::Stopped => Err(Ending::Close(CloseCode::Restarting, "restarting")),
        error => Ok(error.into()),
    }
}

/// Where something was said already that the hub cannot complete.
fn cannot_go_on(error: HubError) -> Ending {
    match error {
        HubError::Stopped => Ending::Close(CloseCode::Restarting, "restarting"),
        _ => Ending::Close(CloseCode::Overloaded, "overloaded"),
    }
}
