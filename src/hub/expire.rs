//! Deleting what was kept long enough.
//!
//! Final tasks whose retention is over are deleted by the writer like any others: with a transition that watchers hear of,
//! and a tombstone for those that resume. A million of them may fall due at once. They are deleted in small steps, and after
//! each the writer is left alone for twice as long as it worked on it: so deleting takes a third of its time at most, most
//! requests meet none of it, and the rest wait for one step. A third is also what is needed: to delete a task costs about
//! half of what it cost to take it, run it and end it, so a hub that does nothing else still deletes as fast as tasks come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{Answer, Command};

use super::inbox::Bound;
use super::shared::Shared;
use super::{Hub, HubError, HubOptions};

/// Tasks deleted in one step: some milliseconds of the writer's time.
const EXPIRE_STEP: usize = 256;
/// How many times as long as a step took the writer rests from deleting.
const REST: u32 = 2;

/// Deletes tasks for as long as the hub is there.
pub(super) async fn run(hub: Hub, shared: Arc<Shared>) {
    let mut pause = shared.options.expire_every();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shared.until_stopped() => return,
        }
        // A hub that cannot delete now tries again later.
        let worked = step(&hub, &shared).await.unwrap_or(None);
        pause = worked.map_or_else(|| shared.options.expire_every(), |worked| REST * worked);
    }
}

/// Deletes some tasks whose retention is over. Where there may be more, says how long the writer works on it.
async fn step(hub: &Hub, shared: &Shared) -> Result<Option<Duration>, HubError> {
    let before = shared.clock.ago(shared.options.retain);
    let due = shared.read(move |reader| reader.finished_before(before, EXPIRE_STEP)).await?;
    if due.is_empty() {
        return Ok(None);
    }
    // Those of workflows go before these.
    let all_due = due.len() == EXPIRE_STEP;
    let task_ids = hub.innermost(due.clone(), EXPIRE_STEP).await?;
    let (count, more) = (task_ids.len(), all_due || task_ids != due);
    let begun = Instant::now();
    let gone = hub.ask(Command::Expire { task_ids }, Bound::Free).await?;
    // Settling follows, when the writer has time for it.
    let worked = begun.elapsed() + shared.settle_cost.of(count);
    Ok((more && !matches!(gone, Answer::Count(0))).then_some(worked))
}

impl HubOptions {
    /// How often final tasks are looked through: often enough for the promised tenth of the retention, or 5 s.
    fn expire_every(&self) -> Duration {
        (self.retain / 20).clamp(Duration::from_millis(2_500), Duration::from_secs(60))
    }
}
