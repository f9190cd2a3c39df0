//! What the hub tells becomes what is new: the pictures of subscriptions, and their marks.

use std::sync::Arc;

use super::{Follower, NOT_NOW};
use crate::client::identity::AnswerTo;
use crate::client::news::{LiveEvent, TaskEvent};
use crate::client::picture::matches;
use crate::client::subscription::SubId;
use crate::task::{Event, LogLine, TaskId, TaskView};
use crate::wire::{CloseCode, Code, LiveSays, Since};

impl Follower {
    /// Forgets a task that is in the picture of no subscription.
    pub(super) fn release(&mut self, task_id: &TaskId) {
        if !self.subs.values().any(|sub| sub.holds(task_id)) {
            self.picture.forget(task_id);
        }
    }

    pub(super) fn take(&mut self, now_ms: u64, says: LiveSays) {
        match says {
            LiveSays::Hello(hello) => match hello.id {
                None => self.greet(now_ms, hello),
                Some(id) => match self.identity.answered(id) {
                    AnswerTo::Hello => self.resume(now_ms, hello.epoch),
                    // For another sight the history has another name, and marks from here on are of that.
                    AnswerTo::Refresh => self.epoch = Some(hello.epoch),
                    AnswerTo::Other => {}
                },
            },
            LiveSays::Subscribed { sub, resumed } => self.subscribed(&sub, resumed),
            LiveSays::Snapshot { sub, tasks, more, truncated } => {
                self.marked_at = now_ms; // a long one has no mark before its end
                self.snapshot(&sub, tasks, more, truncated);
                self.make_room();
            }
            LiveSays::Task { event, task } => {
                let Some(task) = self.picture.apply(*task) else { return };
                self.changed(&task, event, None);
                self.release(&task.task_id);
                self.make_room();
            }
            LiveSays::Progress { task_id, rev, tick, progress } => {
                let Some(task) = self.picture.progress(task_id, rev, tick, *progress) else { return };
                for (sub, subscription) in &self.subs {
                    if subscription.fresh.is_none() && subscription.members.contains(&task_id) {
                        self.events.push_back(LiveEvent::Of(*sub, TaskEvent::Progress { task: task.clone() }));
                    }
                }
            }
            LiveSays::Gone { task_id, rev } => {
                if !self.picture.gone(task_id, rev) {
                    return;
                }
                for (sub, subscription) in &mut self.subs {
                    subscription.seqs.remove(&task_id);
                    if let Some(fresh) = &mut subscription.fresh {
                        fresh.remove(&task_id);
                    }
                    if subscription.members.remove(&task_id) {
                        self.events.push_back(LiveEvent::Of(*sub, TaskEvent::Gone { task_id }));
                    }
                }
            }
            LiveSays::Log { task_id, lines } => self.logged(task_id, &lines),
            LiveSays::Stats(stats) => {
                for (sub, _) in self.subs.iter().filter(|(_, sub)| sub.request.stats) {
                    self.events.push_back(LiveEvent::Of(*sub, TaskEvent::Stats(stats.clone())));
                }
            }
            // No subscription of this client asks for it.
            LiveSays::Setting { .. } | LiveSays::Settings { .. } => {}
            LiveSays::Mark { rev } => {
                self.marked_at = now_ms;
                self.marked(rev);
            }
            LiveSays::Lag { collapsed } => {
                self.behind = true;
                self.say(None, None);
                self.events.push_back(LiveEvent::Lag { collapsed });
            }
            LiveSays::Reset { sub, epoch } => self.reset(SubId::named(&sub), epoch),
            LiveSays::Error { id, code, detail } => self.complaint(now_ms, id, code, detail),
            LiveSays::Bye { code, retry_ms } => self.bye = Some((code, retry_ms)),
            LiveSays::Unsubscribed { .. } | LiveSays::Pong | LiveSays::Unknown => {}
        }
    }

    pub(super) fn subscribed(&mut self, sub: &str, resumed: bool) {
        let sub = SubId::named(sub);
        let Some(subscription) = self.subs.get_mut(&sub) else { return };
        subscription.live = true;
        if subscription.request.stats {
            self.caught_up(Some(sub));
        } else if !resumed {
            subscription.void();
        } else if subscription.mark.is_none() {
            // What it was resumed from is void by now.
            self.ask(sub);
        }
    }

    pub(super) fn snapshot(&mut self, sub: &str, tasks: Vec<TaskView>, more: bool, truncated: bool) {
        let sub = SubId::named(sub);
        let Some(subscription) = self.subs.get_mut(&sub) else { return };
        if subscription.fresh.is_none() {
            subscription.void();
        }
        let mut news = Vec::new();
        let fresh = subscription.fresh.as_mut().expect("just made");
        for task in tasks {
            let task_id = task.task_id;
            news.extend(self.picture.apply(task));
            // What is known is perhaps newer than the snapshot, or gone since.
            if self.picture.get(&task_id).is_some_and(|known| matches(&subscription.request.filter, known)) {
                fresh.insert(task_id);
            }
        }
        for task in &news {
            self.changed(task, Some(Event::of(task.status)), Some(sub));
        }
        let subscription = self.subs.get_mut(&sub).expect("it is still there");
        if more {
            return;
        }
        let fresh = subscription.fresh.take().expect("just made");
        let old = std::mem::replace(&mut subscription.members, fresh);
        for task_id in &old {
            self.release(task_id);
        }
        let tasks = self.tasks(sub);
        self.tell(sub, TaskEvent::Snapshot { tasks, truncated });
    }

    /// A record is newer than what was known. One that came in the snapshot `of` a subscription is news to the others
    /// as well, if it is from after their marks: their own line of it is still on its way, and will be ignored.
    pub(super) fn changed(&mut self, task: &Arc<TaskView>, event: Option<Event>, of: Option<SubId>) {
        let task_id = task.task_id;
        for (sub, subscription) in &mut self.subs {
            let is_meant = match &subscription.mark {
                _ if of.is_none() => true,
                _ if of == Some(*sub) => false,
                Some(mark) => subscription.holds(&task_id) || task.rev > mark.rev,
                // Either it is caught up with its snapshot, or its snapshot is still to come.
                None => subscription.live,
            };
            if subscription.request.stats || !is_meant {
                continue;
            }
            let inside = matches(&subscription.request.filter, task);
            let told = match (&mut subscription.fresh, inside) {
                // The snapshot that is on its way will tell it.
                (Some(fresh), true) => {
                    fresh.insert(task_id);
                    continue;
                }
                (Some(fresh), false) => {
                    fresh.remove(&task_id);
                    continue;
                }
                (None, true) => {
                    subscription.members.insert(task_id);
                    TaskEvent::Task { event, task: task.clone() }
                }
                (None, false) if subscription.members.remove(&task_id) => {
                    TaskEvent::Leave { event, task: task.clone() }
                }
                (None, false) => continue,
            };
            self.events.push_back(LiveEvent::Of(*sub, told));
        }
    }

    pub(super) fn logged(&mut self, task_id: TaskId, lines: &[LogLine]) {
        for (sub, subscription) in &mut self.subs {
            let request = &subscription.request;
            let meant = request.filter.task_id.as_ref().is_some_and(|ids| ids.contains(&task_id));
            if !subscription.live || request.logs.is_none() || !meant {
                continue;
            }
            let told = subscription.seqs.entry(task_id).or_default();
            let fresh: Vec<_> = lines.iter().filter(|line| line.seq > *told).cloned().collect();
            if let Some(last) = fresh.last() {
                *told = last.seq;
                self.events.push_back(LiveEvent::Of(*sub, TaskEvent::Log { task_id, lines: fresh }));
            }
        }
    }

    pub(super) fn marked(&mut self, rev: u64) {
        let mut caught_up = Vec::new();
        for (sub, subscription) in &mut self.subs {
            if subscription.live && subscription.fresh.is_none() && !subscription.request.stats {
                let epoch = self.epoch.clone().unwrap_or_default();
                (subscription.mark, subscription.catching_up) = (Some(Since { epoch, rev }), false);
                caught_up.push(*sub);
            }
        }
        for sub in caught_up {
            self.caught_up(Some(sub));
        }
        if std::mem::take(&mut self.behind) {
            self.say(None, None);
        }
    }

    pub(super) fn complaint(&mut self, now_ms: u64, request: Option<u64>, code: String, detail: String) {
        if self.identity.complained(now_ms, request) == AnswerTo::Hello {
            let is_unknown = code == Code::Unauthenticated.as_str();
            return self.lost(now_ms, is_unknown.then_some(CloseCode::Unauthenticated as u16), &detail);
        }
        let meant = self.subs.iter_mut().find(|(_, sub)| sub.asked.is_some() && sub.asked == request);
        let Some((&sub, subscription)) = meant else {
            return self.events.push_back(LiveEvent::Complaint { code, detail });
        };
        if NOT_NOW.contains(&code.as_str()) {
            subscription.again_at = Some(now_ms + ((0.5 + (self.random)()) * 1_000.0).round() as u64);
            return;
        }
        let dropped = self.subs.remove(&sub).expect("just found");
        for task_id in &dropped.members {
            self.release(task_id);
        }
        self.tell(sub, TaskEvent::Ended { code, detail });
        self.caught_up(Some(sub));
    }

    pub(super) fn make_room(&mut self) {
        while self.picture.len() > self.tasks_max {
            let Some(task) = self.picture.oldest() else { return };
            self.picture.forget(&task.task_id);
            for (sub, subscription) in &mut self.subs {
                if let Some(fresh) = &mut subscription.fresh {
                    fresh.remove(&task.task_id);
                }
                if subscription.members.remove(&task.task_id) {
                    let left = TaskEvent::Leave { event: None, task: task.clone() };
                    self.events.push_back(LiveEvent::Of(*sub, left));
                }
            }
        }
    }
}
