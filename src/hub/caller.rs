//! The hub as one caller has it: the only handle that is given to those who call from outside.
//!
//! Handlers forget; so they never hold a hub that could show them more than their caller may see. Each method here does one of
//! three things before it does what it is named for:
//!
//! * Where tasks are *looked for*, the caller's sight is AND-ed with the filter before anything is looked up. So pages,
//!   snapshots and resumes of two callers are shared only where both see the same.
//! * Where a task is *named*, it is looked at first, and what is out of sight is answered as what is not there. What a sight
//!   looks at never changes in the life of a task but its labels, and these only while it waits, by a submission that takes its
//!   place; so next to nothing can come between the look and the deed. The answer takes the same reads in both cases, so that it does
//!   not take longer for the one than for the other.
//! * Where tasks are *handed in*, what the caller's sight says of them is filled in, and what contradicts it is refused: nobody
//!   makes a task that they would not see.
//!
//! Which rights a call needs stands at its route; here is only what depends on the task, or on what is said of it.

mod access;
mod actor;
mod change;
mod read;
mod submit;
mod work;

pub(super) use actor::Actor;
pub(super) use work::Holders;

use std::net::IpAddr;
use std::sync::Arc;

use crate::access::{Credential, Part, Principal, Right, Sight};
use crate::engine::Refusal;
use crate::task::{Filter, Task, TaskId};

use super::{Forbidden, Hub, HubError};

/// The hub, as one caller has it. Cheap to clone.
#[derive(Clone)]
pub struct CallerHub {
    hub: Hub,
    who: Arc<Principal>,
    address: Option<IpAddr>,
}

impl Hub {
    /// The hub as this caller has it, who calls from this address, as far as that is known.
    pub fn as_caller(&self, who: Arc<Principal>, address: Option<IpAddr>) -> CallerHub {
        // Who calls an open hub is nobody in particular.
        let is_known = who.credential != Credential::None;
        let actor = is_known.then(|| Arc::new(Actor { who: who.clone(), address }));
        CallerHub { hub: self.acting_for(actor), who, address }
    }
}

impl CallerHub {
    /// Who calls.
    pub fn who(&self) -> &Arc<Principal> {
        &self.who
    }

    /// From where, as far as it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Refuses what the caller has no right to.
    pub fn needs(&self, right: Right) -> Result<(), HubError> {
        match self.who.may(right) {
            true => Ok(()),
            false => Err(self.forbidden(right.word(), Forbidden::lacks(right))),
        }
    }

    /// The refusal of something that the caller may not do, which is written down.
    fn forbidden(&self, action: &str, forbidden: Forbidden) -> HubError {
        if let Some(actor) = self.hub.actor() {
            self.hub.note_refused(actor.row(action, forbidden.field.clone(), "forbidden"));
        }
        HubError::Forbidden(forbidden)
    }

    /// The whole hub, for what is of no task alone: to a caller who sees all and has this right.
    pub fn whole(&self, right: Right) -> Result<&Hub, HubError> {
        self.needs(right)?;
        match self.sees_all() {
            true => Ok(&self.hub),
            false => Err(self.forbidden(right.word(), Forbidden::lacks(right))),
        }
    }

    /// Refuses a part that is hidden from the caller.
    pub fn needs_part(&self, part: Part) -> Result<(), HubError> {
        match self.who.hidden.has(part) {
            false => Ok(()),
            true => Err(self.hidden(part)),
        }
    }

    /// Refuses a part of which something is hidden from the caller: what is in a file is not read to be cut.
    pub fn needs_all_of(&self, part: Part) -> Result<(), HubError> {
        match self.who.hidden.touches(part) {
            false => Ok(()),
            true => Err(self.hidden(part)),
        }
    }

    fn hidden(&self, part: Part) -> HubError {
        let detail = format!("{} are hidden from the caller", part.word());
        self.forbidden("see", Forbidden { detail, field: None })
    }

    /// Whether the caller sees all tasks there are.
    pub fn sees_all(&self) -> bool {
        self.who.sight == Sight::All
    }

    /// A filter of the caller's, with what they see at all.
    pub fn scoped(&self, filter: Filter) -> Filter {
        match &self.who.sight {
            Sight::All => filter,
            Sight::Of(sight) => filter.within(sight),
            // Which tasks workers hold is not for lists to say.
            Sight::Held => Filter { task_id: Some(Default::default()), ..filter },
        }
    }

    /// What a subscription is to be told, of what it asks for. Thousands who each watch what they may see hold one filter each, not
    /// three that are alike.
    pub fn scoped_shared(&self, asked: &mut Arc<Filter>) -> Arc<Filter> {
        let Sight::Of(sight) = &self.who.sight else {
            return if self.sees_all() { asked.clone() } else { Arc::new(self.scoped((**asked).clone())) };
        };
        if asked == sight {
            *asked = sight.clone();
        }
        let filter = self.scoped((**asked).clone());
        match () {
            () if filter == **sight => sight.clone(),
            () if filter == **asked => asked.clone(),
            () => Arc::new(filter),
        }
    }

    /// Whether the caller sees this record.
    fn sees(&self, task: &Task) -> bool {
        match &self.who.sight {
            Sight::Held => self.hub.shared().holders.shows(&self.who.credential, task),
            sight => sight.covers(task),
        }
    }

    /// The same of a record as it is kept.
    fn sees_record(&self, record: &[u8]) -> bool {
        self.sees_all() || Task::parse(record).is_ok_and(|task| self.sees(&task))
    }

    /// Refuses a task that the caller does not see as one that is not there.
    async fn in_sight(&self, task_id: TaskId) -> Result<(), HubError> {
        match self.is_in_sight(task_id).await? {
            true => Ok(()),
            false => Err(HubError::Refused(Refusal::TaskNotFound)),
        }
    }

    async fn is_in_sight(&self, task_id: TaskId) -> Result<bool, HubError> {
        if self.sees_all() || self.hub.shown(task_id).is_some_and(|task| self.sees(&task)) {
            return Ok(true);
        }
        // One that is out of sight is looked for as one that is not there, and takes as long.
        Ok(self.sees_each(vec![task_id]).await? == [true])
    }

    /// Whether there is a task of each of these ids that the caller sees, in one read.
    async fn sees_each(&self, task_ids: Vec<TaskId>) -> Result<Vec<bool>, HubError> {
        let looked = self.hub.shared().read(move |reader| reader.look_for(&task_ids)).await?;
        // Read also where it is another's, for the time it takes.
        let sees = looked.iter().map(|looked| self.sees_record(&looked.record) & looked.is_there);
        Ok(sees.collect())
    }
}
