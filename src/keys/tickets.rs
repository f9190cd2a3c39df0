//! Tickets: a credential for one request, where a header cannot be sent.
//!
//! A ticket stands in a URL, which is written into logs and histories on its way. So it is spent by the first request that names
//! it, lives for seconds, and is kept in memory only: after a restart the client asks for another.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::Unauthenticated;
use crate::access::{Credential, Fingerprint, Principal, is_ticket, new_ticket};
use crate::task::Timestamp;

/// How long a ticket can be used.
pub const TICKET_MS: u64 = 30_000;
/// The most tickets of one caller that are not spent: a page that reloads has a few. One more ends the oldest.
pub const TICKETS_PER_CALLER_MAX: usize = 100;
/// The most of all: two thousand callers a second that let theirs lie. Nobody's end for that: one more is refused.
const TICKETS_MAX: usize = 65_536;
/// So many are not worth looking through for those that have ended.
const FEW: usize = 1_024;

/// A ticket that was made.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Ticket {
    #[serde(rename = "ticket")]
    pub text: String,
    pub expires_at: Timestamp,
}

/// Without the text.
impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// No ticket was made.
#[derive(Debug)]
pub enum NoTicket {
    /// There are too many of all callers.
    TooMany,
    /// The system has no randomness.
    Random(io::Error),
}

/// The tickets that can be used.
#[derive(Debug)]
pub(super) struct Tickets {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: HashMap<Fingerprint, Held>,
    /// Those of each caller, the oldest first.
    callers: HashMap<Fingerprint, VecDeque<Fingerprint>>,
    /// With so many, those that have ended are looked for.
    look_at: usize,
}

#[derive(Debug)]
struct Held {
    who: Arc<Principal>,
    caller: Fingerprint,
    expires_at: Timestamp,
}

impl Default for Tickets {
    fn default() -> Tickets {
        Tickets { state: Mutex::new(State { held: HashMap::new(), callers: HashMap::new(), look_at: FEW }) }
    }
}

impl Tickets {
    pub(super) fn make(&self, who: Arc<Principal>, now: Timestamp) -> Result<Ticket, NoTicket> {
        let text = new_ticket().map_err(NoTicket::Random)?;
        let (print, caller) = (Fingerprint::of(&text), caller(&who));
        let expires_at = who.expires_at.into_iter().fold(now.plus_millis(TICKET_MS), Timestamp::min);
        let mut state = self.state.lock();
        if state.held.len() >= state.look_at {
            state.drop_ended(now);
        }
        let oldest = state.callers.get(&caller).filter(|own| own.len() >= TICKETS_PER_CALLER_MAX).map(|own| own[0]);
        match oldest {
            Some(oldest) => drop(state.remove(oldest)),
            None if state.held.len() >= TICKETS_MAX => return Err(NoTicket::TooMany),
            None => {}
        }
        state.callers.entry(caller).or_default().push_back(print);
        state.held.insert(print, Held { who, caller, expires_at });
        Ok(Ticket { text, expires_at })
    }

    /// Whose ticket it is. It is one no longer.
    pub(super) fn take(&self, text: &str, now: Timestamp) -> Result<Arc<Principal>, Unauthenticated> {
        if !is_ticket(text) {
            return Err(Unauthenticated::Malformed("it is no ticket"));
        }
        let held = self.state.lock().remove(Fingerprint::of(text)).ok_or(Unauthenticated::Unknown)?;
        if held.expires_at <= now { Err(Unauthenticated::Expired) } else { Ok(held.who) }
    }
}

impl State {
    fn remove(&mut self, print: Fingerprint) -> Option<Held> {
        let held = self.held.remove(&print)?;
        if let Some(own) = self.callers.get_mut(&held.caller) {
            own.retain(|other| *other != print);
            if own.is_empty() {
                self.callers.remove(&held.caller);
            }
        }
        Some(held)
    }

    /// Looks at all. Done again once there are twice as many as are left, so it costs each ticket a constant.
    fn drop_ended(&mut self, now: Timestamp) {
        self.held.retain(|_, held| held.expires_at > now);
        let held = &self.held;
        self.callers.retain(|_, own| {
            own.retain(|print| held.contains_key(print));
            !own.is_empty()
        });
        self.look_at = (2 * self.held.len()).clamp(FEW, TICKETS_MAX);
    }
}

fn caller(who: &Principal) -> Fingerprint {
    match &who.credential {
        Credential::Jwt(signed) => Fingerprint::of(format!("jwt\n{}\n{}", signed.issuer, signed.subject)),
        other => Fingerprint::of(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::keys::tests::{NOW, now};

    fn who() -> Arc<Principal> {
        Arc::new(Principal::everyone())
    }

    #[test]
    fn a_ticket_is_spent_by_its_first_use() {
        let (tickets, who) = (Tickets::default(), who());
        let ticket = tickets.make(who.clone(), now()).unwrap();
        assert!(Arc::ptr_eq(&tickets.take(&ticket.text, now()).unwrap(), &who));
        assert_eq!(tickets.take(&ticket.text, now()), Err(Unauthenticated::Unknown));
        let ticket = tickets.make(who.clone(), now()).unwrap();
        assert_eq!(ticket.expires_at.as_millis(), NOW + 30_000);
        assert_eq!(tickets.take(&ticket.text, ticket.expires_at), Err(Unauthenticated::Expired));
        assert!(matches!(tickets.take("thk_x", now()), Err(Unauthenticated::Malformed(_))));
        let state = tickets.state.lock();
        assert!(state.held.is_empty() && state.callers.is_empty());
        let soon = Principal { expires_at: Some(now().plus_millis(5)), ..Principal::everyone() };
        drop(state);
        assert_eq!(tickets.make(Arc::new(soon), now()).unwrap().expires_at.as_millis(), NOW + 5);
    }

    #[test]
    fn who_asks_for_many_loses_their_own() {
        let tickets = Tickets::default();
        let owner = Arc::new(Principal::owner());
        let other = tickets.make(owner, now()).unwrap();
        let all: Vec<_> = (0..=TICKETS_PER_CALLER_MAX).map(|_| tickets.make(who(), now()).unwrap()).collect();
        assert_eq!(tickets.take(&all[0].text, now()), Err(Unauthenticated::Unknown), "the oldest");
        assert!(all[1..].iter().chain([&other]).all(|ticket| tickets.take(&ticket.text, now()).is_ok()));
    }

    #[test]
    fn those_of_all_are_bounded_and_what_has_ended_makes_room() {
        let tickets = Tickets::default();
        let of = |n: usize| {
            let signed = crate::access::Signed {
                issuer: "i".into(),
                subject: n.to_string().into(),
                issued_at: now(),
                key: Fingerprint::of(""),
                filter: None,
            };
            Arc::new(Principal::new(Role::Viewer, None, Credential::Jwt(Arc::new(signed))))
        };
        let mut made = 0;
        let full = loop {
            match tickets.make(of(made / TICKETS_PER_CALLER_MAX), now()) {
                Ok(_) => made += 1,
                Err(why) => break why,
            }
        };
        assert!(matches!(full, NoTicket::TooMany) && made == TICKETS_MAX);
        let later = now().plus_millis(TICKET_MS);
        assert!(tickets.make(of(0), later).is_ok());
        assert_eq!(tickets.state.lock().held.len(), 1);
    }
}
