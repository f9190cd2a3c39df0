//! What this worker holds: attempts that run, and attempts that ended and whose end the hub has not acknowledged. Plain
//! decisions; the session carries them out.

use std::collections::HashMap;
use std::sync::Arc;

use super::TaskFailure;
use super::attempt::Attempt;
use super::outbox::Ending;
use crate::task::{Failure, Json, RetryPolicy};
use crate::wire::Held;

/// What was decided for an attempt that is to stop, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// The worker is going down: it is given back.
    Release,
    /// The hub asked for it.
    Cancel,
    /// The hub has ended it: nothing that is done counts, but its slot is taken until the hub hears that it is let go.
    Over,
    /// It is not ours any more, and may be another's: nothing is said of it.
    Lost,
}

/// How an attempt ended, as the hub is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    Complete(Json),
    Fail(TaskFailure),
    Cancelled,
    Release,
}

/// One attempt. `R` is the handle on what runs it.
#[derive(Debug)]
pub(crate) struct Entry<R> {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) state: State<R>,
    /// Why it was asked to stop, in the hub's words.
    reason: Option<String>,
    /// The report replaces one that was refused.
    corrected: bool,
}

#[derive(Debug)]
pub(crate) enum State<R> {
    Running { run: R, stop: Option<Stop> },
    Reported(Report),
}

#[derive(Debug)]
pub(crate) struct Roster<R> {
    entries: HashMap<Held, Entry<R>>,
}

impl<R> Roster<R> {
    pub(crate) fn new() -> Roster<R> {
        Roster { entries: HashMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn get(&self, held: &Held) -> Option<&Entry<R>> {
        self.entries.get(held)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<R>> {
        self.entries.values()
    }

    /// All that is held, reported or not: an end the hub has not acknowledged may not have arrived.
    pub(crate) fn holding(&self) -> Vec<Held> {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn running(&self) -> Vec<Held> {
        let running = |(held, entry): (&Held, &Entry<R>)| matches!(entry.state, State::Running { .. }).then_some(*held);
        self.entries.iter().filter_map(running).collect()
    }

    /// Older attempts of a task that was handed out anew.
    pub(crate) fn older(&self, newer: Held) -> Vec<Held> {
        // A worker that was handed a first attempt has no older one, and that is nearly every task.
        if newer.attempt <= 1 {
            return Vec::new();
        }
        let older = |held: &&Held| held.task_id == newer.task_id && held.attempt < newer.attempt;
        self.entries.keys().filter(older).copied().collect()
    }

    pub(crate) fn add(&mut self, attempt: Arc<Attempt>, run: R) {
        let held = attempt.held;
        let state = State::Running { run, stop: None };
        self.entries.insert(held, Entry { attempt, state, reason: None, corrected: false });
    }

    /// Notes that a running attempt is to stop, and returns it; `None` where it does not run, or was told as much.
    pub(crate) fn stop(&mut self, held: &Held, why: Stop, reason: &str) -> Option<&Entry<R>> {
        let entry = self.entries.get_mut(held)?;
        let State::Running { stop, .. } = &mut entry.state else { return None };
        if stop.is_some_and(|stop| stop >= why) {
            return None;
        }
        *stop = Some(why);
        entry.reason.get_or_insert_with(|| reason.to_owned());
        Some(entry)
    }

    /// A function ended. Returns whether there is a report to send.
    pub(crate) fn ended(&mut self, held: &Held, ending: Ending) -> bool {
        let Some(entry) = self.entries.get_mut(held) else { return false };
        entry.attempt.end();
        let State::Running { stop, .. } = &entry.state else { return false };
        let report = match (ending, stop) {
            (_, Some(Stop::Lost)) => {
                self.entries.remove(held);
                return false;
            }
            (_, Some(Stop::Over)) => Report::Cancelled,
            // Work that was done counts, whatever was asked meanwhile.
            (Ending::Returned(Ok(result)), _) => Report::Complete(result),
            (_, Some(Stop::Cancel)) => Report::Cancelled,
            (_, Some(Stop::Release)) | (Ending::Dropped, None) => Report::Release,
            (Ending::Returned(Err(failure)), None) => Report::Fail(failure),
            (Ending::Panicked(message), None) => Report::Fail(TaskFailure::new("panic", message)),
        };
        entry.state = State::Reported(report);
        true
    }

    /// The hub knows how the attempt ended.
    pub(crate) fn acknowledged(&mut self, held: &Held) {
        if self.entries.get(held).is_some_and(|entry| matches!(entry.state, State::Reported(_))) {
            self.entries.remove(held);
        }
    }

    /// The hub refused something we said of the attempt. Returns what follows.
    pub(crate) fn refused(&mut self, held: &Held, code: &str, detail: &str) -> Refused {
        let Some(entry) = self.entries.get_mut(held) else { return Refused::Nothing };
        let over = is_over(code);
        match &entry.state {
            State::Running { .. } if over => Refused::Over,
            State::Running { .. } => Refused::Nothing,
            State::Reported(_) if over || entry.corrected => {
                self.entries.remove(held);
                Refused::Nothing
            }
            State::Reported(report) => {
                let failure = match report {
                    // The hub has forgotten that it asked; without another word the task would stay ours.
                    Report::Cancelled => {
                        let reason = entry.reason.as_deref().unwrap_or_default();
                        let kind = if reason == "timeout" { "timeout" } else { "cancelled" };
                        TaskFailure::new(kind, format!("stopped when asked to: {reason}"))
                    }
                    Report::Complete(_) => {
                        TaskFailure::new("result", format!("the hub refused the result: {detail} ({code})")).permanent()
                    }
                    Report::Fail(failure) => {
                        let Failure { kind, message, .. } = failure.failure.clone().cut();
                        let kind = kind.chars().take(Failure::KIND_CHARS_MAX).collect::<String>();
                        let retry_after_ms = failure.retry_after_ms.map(|ms| ms.min(RetryPolicy::MAX_MS_MAX));
                        TaskFailure { failure: Failure::new(kind, message), retry_after_ms, ..*failure }
                    }
                    Report::Release => TaskFailure::new("released", "the worker went down"),
                };
                entry.state = State::Reported(Report::Fail(failure));
                entry.corrected = true;
                Refused::Report
            }
        }
    }

    /// After a reconnect the hub said that this one is not ours. Returns whether it runs, and is to be dropped.
    pub(crate) fn dropped(&mut self, held: &Held) -> bool {
        self.acknowledged(held);
        self.entries.contains_key(held)
    }
}

/// Whether a refusal says that the attempt is over.
pub(super) fn is_over(code: &str) -> bool {
    matches!(code, "lease_lost" | "task_finished" | "task_not_found")
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Nothing,
    /// The hub has ended the attempt: it is to be stopped as [`Stop::Over`].
    Over,
    /// There is another report to send.
    Report,
}
