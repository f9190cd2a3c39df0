//! The handlers of this program at work: a worker whose words go over the hub's own [`WorkerLink`].

use std::sync::Arc;
use std::time::Duration;

use futures::future::poll_fn;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::OpenError;
use super::uploads::Within;
use crate::hub::{Accepts, HandedOut, Hub, HubError, Pushed, Refusal, Report as Reported, SubmitKey, WorkerLink};
use crate::task::{Invalid, InvalidKind, Json, Name, NewTask, Pattern, PatternSet, Spawner, Task, TaskId, TaskView};
use crate::wire::Held;
use crate::worker::attempt::{Attempt, Slot};
use crate::worker::handlers::Handlers;
use crate::worker::outbox::{News, Outbox};
use crate::worker::roster::{Refused, Report, Roster, State, Stop};
use crate::worker::spawn::{Spawn, SpawnError};
use crate::worker::{TaskFailure, Worker};

/// A sign of life is given this often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The pause before a payload that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_millis(250);

/// The handlers of this program at work.
pub(super) struct Local {
    link: WorkerLink,
    handlers: Handlers,
    cancel_grace: Duration,
    roster: Roster<AbortOnDropHandle<()>>,
    outbox: Arc<Outbox>,
    graces: Vec<(Instant, Held)>,
}

impl Local {
    pub(super) async fn attach(hub: &Hub, worker: Worker) -> Result<(), OpenError> {
        let hello = worker.hello().map_err(OpenError::Handlers)?;
        // `hello` has checked every one of these.
        let patterns = |texts: Option<Vec<String>>| {
            PatternSet::new(texts.iter().flatten().filter_map(|text| Pattern::parse(text).ok()).collect())
        };
        let accepts = Accepts { task_types: patterns(hello.task_types), queues: patterns(hello.queues) };
        let welcome = hub
            .attach_worker(Name::new(&hello.worker_id), accepts, worker.concurrency, None)
            .await
            .map_err(OpenError::Hub)?;
        let local = Local {
            link: welcome.link,
            handlers: worker.handlers,
            cancel_grace: worker.cancel_grace,
            roster: Roster::new(),
            outbox: Arc::new(Outbox::new(Box::new(Within(hub.clone())))),
            graces: Vec::new(),
        };
        local.outbox.set_up(true);
        tokio::spawn(local.run());
        Ok(())
    }

    async fn run(mut self) {
        let (mut pushed, mut news) = (Vec::new(), Vec::new());
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let grace = self.graces.iter().map(|(at, _)| *at).min();
            let outbox = self.outbox.clone();
            tokio::select! {
                given = self.link.next(&mut pushed) => match given {
                    Ok(()) => {
                        for push in pushed.drain(..) {
                            if self.heard(push) == Connection::Over {
                                return;
                            }
                        }
                    }
                    // The store could not be read. What was handed out waits in the link; it is read again.
                    Err(error) => {
                        tracing::warn!(%error, "could not read what was handed out, trying again");
                        tokio::time::sleep(READ_AGAIN).await;
                    }
                },
                // With too much waiting for the writer handlers wait too; it is looked at again with the next heartbeat.
                () = poll_fn(|cx| outbox.poll(cx)), if self.link.has_room() => {
                    outbox.take(&mut news);
                    for news in news.drain(..) {
                        self.take(news).await;
                    }
                }
                () = until(grace) => self.end_graces(),
                _ = heartbeat.tick() => {
                    self.link.heard();
                    // Those for which there was no room.
                    for entry in self.roster.iter() {
                        self.spawn(&entry.attempt).await;
                    }
                }
            }
        }
    }

    fn heard(&mut self, push: Pushed) -> Connection {
        match push {
            Pushed::Run(given) => self.start(given),
            Pushed::Stop { task_id, attempt, reason } => {
                self.stop(Held { task_id, attempt }, Stop::Cancel, reason.as_deref().unwrap_or("cancelled"));
                self.link.told_to_stop(task_id, attempt);
            }
            Pushed::Ack { task_id, attempt } => self.roster.acknowledged(&Held { task_id, attempt }),
            Pushed::Refused { task_id, attempt, refusal } => {
                let held = Held { task_id, attempt };
                let code = if refusal == Refusal::LeaseLost { "lease_lost" } else { "refused" };
                match self.roster.refused(&held, code, &refusal.to_string()) {
                    Refused::Over => self.stop(held, Stop::Over, "the hub has ended the attempt"),
                    Refused::Report => self.tell(held),
                    Refused::Nothing => {}
                }
            }
            Pushed::Spawned { id, task_id, attempt, outcome } => {
                if let (Some(entry), Some(id)) = (self.roster.get(&Held { task_id, attempt }), id) {
                    told_spawned(&entry.attempt, id, outcome);
                }
            }
            Pushed::Drain => {}
            Pushed::Goodbye | Pushed::Replaced => return Connection::Over,
        }
        Connection::Open
    }

    fn start(&mut self, given: HandedOut) {
        let HandedOut { task, payload, checkpoint } = given;
        let held = Held { task_id: task.task_id, attempt: task.attempt };
        let attempt = Attempt::new(held, Box::new(view(&task, payload)), checkpoint, self.outbox.clone());
        let run = self.handlers.start(&attempt);
        self.roster.add(attempt, run);
    }

    fn stop(&mut self, held: Held, why: Stop, reason: &str) {
        let Some(entry) = self.roster.stop(&held, why, reason) else { return };
        let lost = why >= Stop::Over;
        if entry.attempt.stop(reason, lost) && !lost {
            self.graces.push((Instant::now() + self.cancel_grace, held));
        } else {
            self.abort(&held);
        }
    }

    fn abort(&self, held: &Held) {
        if let Some(State::Running { run, .. }) = self.roster.get(held).map(|entry| &entry.state) {
            run.abort();
        }
    }

    fn end_graces(&mut self) {
        let now = Instant::now();
        let (over, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.graces).into_iter().partition(|(at, _)| *at <= now);
        self.graces = rest;
        for (_, held) in over {
            self.abort(&held);
        }
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Ended(held, ending) => {
                if self.roster.ended(&held, ending) {
                    self.tell(held);
                }
            }
            News::Said(attempt) => {
                self.pass_on(attempt.held, &mut attempt.slot());
                self.spawn(&attempt).await;
                attempt.make_room();
            }
        }
    }

    /// How an attempt ended, after all that was said before.
    fn tell(&self, held: Held) {
        let Some(entry) = self.roster.get(&held) else { return };
        let State::Reported(report) = &entry.state else { return };
        self.pass_on(held, &mut entry.attempt.slot());
        let report = match report {
            Report::Complete(result) => Reported::Complete { result: result.clone() },
            Report::Fail(TaskFailure { failure, retryable, retry_after_ms }) => {
                Reported::Fail { error: failure.clone(), retryable: *retryable, retry_after_ms: *retry_after_ms }
            }
            Report::Cancelled => Reported::Cancelled,
            Report::Release => Reported::Release,
        };
        self.link.report(held.task_id, held.attempt, report);
    }

    /// Makes the calls of an attempt that add tasks.
    async fn spawn(&self, attempt: &Attempt) {
        let Held { task_id, attempt: number } = attempt.held;
        let unsent: Vec<Spawn> = attempt.slot().spawns.iter_mut().flat_map(|spawns| spawns.take_unsent()).collect();
        for Spawn { id, key, tasks } in unsent {
            let key = SubmitKey::new("", &format!("tasks/{task_id}/spawn"), &key, tasks.bytes());
            match tasks.to::<Vec<NewTask>>() {
                Ok(new) if new.is_empty() => {
                    attempt.spawned(id, Err(SpawnError::invalid("tasks must not be empty".into())));
                }
                Ok(new) => {
                    let spawner = Spawner { task_id, attempt: number };
                    if let Err(error) = self.link.spawn(Some(id), spawner, new, Some(key)).await {
                        told_spawned(attempt, id, Err(error));
                    }
                }
                Err(why) => attempt.spawned(id, Err(SpawnError::invalid(format!("tasks: {why}")))),
            }
        }
    }

    fn pass_on(&self, held: Held, slot: &mut Slot) {
        let Held { task_id, attempt } = held;
        let lines: Vec<_> = slot.take_lines().into_iter().map(|line| (line.level, line.message)).collect();
        // A word of an attempt that is over is lost with it: its end is on its way here.
        if !lines.is_empty() {
            let _ = self.link.log(task_id, attempt, lines);
        }
        let (progress, checkpoint) = (slot.progress.take(), slot.checkpoint.take());
        if progress.is_some() || checkpoint.is_some() {
            let _ = self.link.progress(task_id, attempt, progress, checkpoint);
        }
    }
}

#[derive(PartialEq)]
enum Connection {
    Open,
    Over,
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Tells a function what became of a call that adds tasks, unless that is to be made again.
fn told_spawned(attempt: &Attempt, id: u64, outcome: Result<Vec<TaskId>, HubError>) {
    let refused = |code: &str, refusal: &Refusal| SpawnError::Refused {
        code: code.into(),
        field: None,
        detail: refusal.to_string(),
    };
    let error = match outcome {
        Ok(task_ids) => return attempt.spawned(id, Ok(task_ids)),
        Err(HubError::Forbidden(forbidden)) => {
            SpawnError::Refused { code: "forbidden".into(), field: forbidden.field, detail: forbidden.detail }
        }
        Err(HubError::Refused(refusal)) => match &refusal {
            Refusal::Draining | Refusal::Full | Refusal::TypesChanged => return attempt.send_spawn_again(id),
            Refusal::LeaseLost | Refusal::TaskNotFound => SpawnError::Over,
            Refusal::Invalid(Invalid { kind, field, detail }) => SpawnError::Refused {
                code: match kind {
                    InvalidKind::Value => "invalid_field",
                    InvalidKind::Limit(_) => "limit_exceeded",
                    InvalidKind::PayloadTooLarge(_) => "payload_too_large",
                }
                .into(),
                field: Some(field.to_string()),
                detail: format!("{field} {detail}"),
            },
            Refusal::PayloadInvalid(_) => refused("payload_invalid", &refusal),
            Refusal::IdempotencyConflict => refused("idempotency_conflict", &refusal),
            Refusal::Quota(_) => refused("quota_exceeded", &refusal),
            refusal => refused("conflict", refusal),
        },
        Err(HubError::Stopped) => SpawnError::Over,
        Err(HubError::StorageUnavailable | HubError::Overloaded | HubError::CallbacksFull | HubError::Internal) => {
            return attempt.send_spawn_again(id);
        }
    };
    attempt.spawned(id, Err(error));
}

fn view(task: &Task, payload: Option<Json>) -> TaskView {
    let mut view = TaskView::of(&task.to_json());
    view.payload = payload;
    view
}
