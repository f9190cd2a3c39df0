//! Deleting what was kept long enough.
//!
//! Final tasks whose retention is over are deleted by the writer like any others: with a transition that watchers hear of,
//! and a tombstone for those that resume. A million of them may fall due at once. They are deleted in small steps, and after
//! each the writer is left alone for twice as long as it worked on it: so deleting takes a third of its time at most, most
//! requests meet none of it, and the rest wait for one step. A third is also what is needed: to delete a task costs about
//! half of what it cost to take it, run it and end it, so a hub that does nothing else still deletes as fast as tasks come.
//!
//! A queue may have a retention of its own: another age, and how many tasks are kept of it or how many bytes, of which the
//! newest stay. What is beyond is found by a look at all that stay, from the newest on, in an index. So that a queue that keeps a
//! million is not looked through for each few that end, it is looked through again once a twentieth as many have ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{Answer, Command};
use crate::settings::QueueSettings;
use crate::store::{Beyond, EndedAt, Reader, StoreError};
use crate::task::{Name, TaskId, Timestamp};

use super::inbox::Bound;
use super::shared::Shared;
use super::{Hub, HubError};

/// Tasks deleted in one step: some milliseconds of the writer's time.
const EXPIRE_STEP: usize = 256;
/// How many times as long as a step took the writer rests from deleting.
const REST: u32 = 2;
/// A queue of no more tasks than this is looked through each time, one of more once this part of it is new.
const LOOKED_AT_ONCE: usize = 10_000;
const NEW_PART: usize = 20;
/// How often final tasks are looked through, at most.
const EVERY_MIN: Duration = Duration::from_millis(2_500);

/// Deletes tasks for as long as the hub is there.
pub(super) async fn run(hub: Hub, shared: Arc<Shared>) {
    let mut expiry = Expiry::default();
    let (mut rest, mut looked) = (None, Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(rest.unwrap_or(EVERY_MIN)) => {}
            _ = shared.until_stopped() => return,
        }
        shared.clear_doubt();
        // Asked again each time, as another retention may be set meanwhile.
        if rest.is_none() && looked.elapsed() < every(&shared) {
            continue;
        }
        // A hub that cannot delete now tries again later.
        let worked = step(&hub, &shared, &mut expiry).await.unwrap_or(None);
        looked = Instant::now();
        rest = worked.map(|worked| REST * worked);
    }
}

/// Deletes some tasks whose retention is over. Where there may be more, says how long the writer works on it.
async fn step(hub: &Hub, shared: &Shared, expiry: &mut Expiry) -> Result<Option<Duration>, HubError> {
    let rules = Rules::of(shared);
    let mut known = std::mem::take(expiry);
    let (due, known) = shared
        .read(move |reader| {
            let due = known.due(reader, &rules, EXPIRE_STEP)?;
            Ok((due, known))
        })
        .await?;
    *expiry = known;
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

/// How often final tasks are looked through: often enough for the promised tenth of each retention, or 5 s.
fn every(shared: &Shared) -> Duration {
    let own = shared.board.settings.retentions();
    let counts = own.iter().any(|(_, settings)| settings.retain_count.or(settings.retain_bytes).is_some());
    let ages = own.iter().filter_map(|(_, settings)| settings.retain_ms.map(Duration::from_millis));
    let shortest = ages.chain([shared.options.retain]).min().unwrap_or_default();
    if counts { EVERY_MIN } else { (shortest / 20).clamp(EVERY_MIN, Duration::from_secs(60)) }
}

/// What is kept at this moment.
struct Rules {
    /// Of queues without an age of their own, what ended since then.
    before: Timestamp,
    own: HashMap<Name, Own>,
}

struct Own {
    before: Timestamp,
    count_max: Option<u64>,
    bytes_max: Option<u64>,
}

impl Rules {
    fn of(shared: &Shared) -> Rules {
        let before = shared.clock.ago(shared.options.retain);
        let own = |settings: &QueueSettings| Own {
            before: settings.retain_ms.map_or(before, |ms| shared.clock.ago(Duration::from_millis(ms))),
            count_max: settings.retain_count,
            bytes_max: settings.retain_bytes,
        };
        let retentions = shared.board.settings.retentions();
        Rules { before, own: retentions.into_iter().map(|(name, settings)| (name, own(&settings))).collect() }
    }
}

/// What is known of queues of which so many tasks or bytes are kept.
#[derive(Default)]
struct Expiry(HashMap<Name, Looked>);

#[derive(Default)]
struct Looked {
    bounds: (u64, u64),
    beyond: Beyond,
}

impl Expiry {
    /// Tasks whose retention is over, at most `limit`.
    fn due(&mut self, reader: &dyn Reader, rules: &Rules, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        self.0.retain(|queue, _| rules.own.contains_key(queue));
        let mut due = Vec::new();
        for queue in reader.queues_with_ended()? {
            if due.len() == limit {
                break;
            }
            let own = rules.own.get(&queue);
            let before = (own.map_or(rules.before, |own| own.before), TaskId::from_bytes([0; 16]));
            let beyond = match own {
                Some(Own { count_max: None, bytes_max: None, .. }) | None => None,
                Some(own) => self.beyond(reader, &queue, own)?,
            };
            due.extend(reader.ended_before(&queue, before.max(beyond.unwrap_or(before)), limit - due.len())?);
        }
        Ok(due)
    }

    /// What is beyond the tasks or bytes that are kept of a queue, as it was when it was last looked through.
    fn beyond(&mut self, reader: &dyn Reader, queue: &Name, own: &Own) -> Result<Option<EndedAt>, StoreError> {
        let bounds = (own.count_max.unwrap_or(u64::MAX), own.bytes_max.unwrap_or(u64::MAX));
        let looked = self.0.entry(queue.clone()).or_default();
        let enough = looked.beyond.looked / NEW_PART;
        let is_known = looked.bounds == bounds
            && looked.beyond.looked > LOOKED_AT_ONCE
            && reader.ended_since(queue, looked.beyond.newest, enough)? < enough;
        if !is_known {
            *looked = Looked { bounds, beyond: reader.beyond(queue, bounds.0, bounds.1)? };
        }
        Ok(looked.beyond.before)
    }
}
