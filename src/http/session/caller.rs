//! Who is at the other end of a session: until they say so, nobody; then somebody, for as long as their credential holds.
//!
//! A session begins as nobody's where its hub asks for a token and the handshake brought none. A token that is renewed takes the
//! place of the one before, and one that shows less, or more, begins each subscription anew. What was taken back, or is over, ends
//! the session wherever it waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::answers::{quoted, reset_line};
use super::super::gate;
use super::super::live_op::{TaskSubscription, Topic};
use super::{Carrier, Ending, Session};
use crate::access::{Part, Principal, Right};
use crate::feed::{Client, Pipe};
use crate::hub::{CallerHub, HubError};
use crate::task::Timestamp;
use crate::wire::{CloseCode, Code};

impl Session {
    /// What the hub knows of the caller, for its hello.
    pub(super) fn identity(&self) -> String {
        let who = self.hub.who();
        if who.is_nobody() {
            return r#","authenticated":false"#.to_owned();
        }
        let user =
            who.user_id.as_ref().map_or(String::new(), |user| format!(r#","user_id":{}"#, quoted(user.as_str())));
        let expires = who.expires_at.map_or(String::new(), |at| format!(r#","expires_at":"{at}""#));
        user + &expires
    }

    /// Whether the caller has not said yet who it is.
    pub(in super::super) fn is_of_nobody(&self) -> bool {
        self.hub.who().is_nobody()
    }

    /// A hello or a refresh. Without a token it asks for nothing but the hub's own. A token that is not valid ends a caller who is
    /// nobody, and leaves another the one that it has.
    pub(in super::super) async fn introduce(
        &mut self,
        id: Option<u64>,
        token: Option<String>,
        out: &mut impl Carrier,
    ) -> Result<(), Ending> {
        let Some(token) = token else { return self.greet(id, out).await };
        let who = match gate::authenticated(self.app.keys(), &token, self.hub.address()).await {
            Ok(who) => who,
            Err(problem) if self.is_of_nobody() => {
                let code = match problem.code {
                    Code::Unauthenticated => CloseCode::Unauthenticated,
                    _ => CloseCode::Overloaded,
                };
                return Err(Ending::Close(code, "the token is not valid"));
            }
            Err(problem) => return self.refuse(id, &problem, out).await,
        };
        let was = self.hub.who().clone();
        if !was.is_nobody() && was.user_id != who.user_id {
            return Err(Ending::Close(CloseCode::Unauthenticated, "the token is another user's"));
        }
        self.expires_at = expiry(&who);
        self.hub = self.app.as_caller(who.clone(), self.hub.address());
        let is_as_before = was.sight == who.sight && was.hidden == who.hidden && was.rights == who.rights;
        if !is_as_before {
            // What waits in the feed was matched for the caller as it was: it goes with its client.
            (self.client, self.is_piped) = attach(&self.hub, &self.pipe);
        }
        self.greet(id, out).await?;
        if was.is_nobody() || is_as_before { Ok(()) } else { self.look_anew(out).await }
    }

    /// The caller sees something else: every subscription starts anew, or ends where the caller may not have it any more.
    async fn look_anew(&mut self, out: &mut impl Carrier) -> Result<(), Ending> {
        for (name, topic) in std::mem::take(&mut self.subs) {
            self.app.metrics().subscribed(-1);
            self.lines.push(reset_line(&name, "scope"));
            let topic = match topic {
                Topic::Tasks(tasks) => Topic::Tasks(TaskSubscription { since: None, ..tasks }),
                topic => topic,
            };
            self.subscribe(None, name.into(), topic, out).await?;
        }
        Ok(())
    }

    /// Resolves when a credential was taken back, or that of the caller is over.
    pub(in super::super) async fn credentials_changed(&self) {
        let mut changes = self.changes.clone();
        let over = async {
            match self.expires_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                std::future::pending().await
            },
            () = over => {}
        }
    }

    /// Whether the caller still is who they said.
    pub(in super::super) fn is_still_known(&mut self) -> Result<(), Ending> {
        let now = Instant::now();
        if !self.changes.has_changed().unwrap_or(false) && self.expires_at.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.changes.mark_unchanged();
        if self.is_of_nobody() {
            return Ok(());
        }
        let checked = self.app.keys().check(self.hub.who(), Timestamp::now());
        checked.map_err(|ended| {
            let (code, reason) = gate::ending(ended);
            Ending::Close(code, reason)
        })?;
        // A clock was set back.
        self.expires_at = expiry(self.hub.who());
        Ok(())
    }

    /// Takes what the caller may not see out of the lines.
    pub(super) fn redact(&mut self) {
        if self.hub.looks_at_lines() {
            self.lines = self.lines.drain(..).filter_map(|line| self.hub.shown_line(&line)).collect();
        }
    }

    /// Whether the caller may subscribe to this.
    pub(super) fn may(&self, topic: &Topic) -> Result<(), HubError> {
        match topic {
            Topic::Tasks(tasks) => {
                self.hub.needs(Right::Watch)?;
                if tasks.log_tail.is_some() { self.hub.needs_part(Part::Logs) } else { Ok(()) }
            }
            Topic::Stats => {
                self.hub.needs(Right::Watch)?;
                self.hub.stats_line().map(drop)
            }
            Topic::Settings => self.hub.whole(Right::SeeHub).map(drop),
        }
    }
}

/// A client of the feed for this caller, and whether the feed writes to it by itself: not where each line has to be looked at
/// on its way.
pub(super) fn attach(hub: &CallerHub, pipe: &Option<Arc<dyn Pipe>>) -> (Client, bool) {
    let pipe = pipe.clone().filter(|_| !hub.looks_at_lines());
    let is_piped = pipe.is_some();
    (hub.attach(pipe), is_piped)
}

/// When a caller's credential is over, on the clock of waits.
pub(super) fn expiry(who: &Principal) -> Option<Instant> {
    who.expires_at.map(|at| Instant::now() + Duration::from_millis(at.millis_since(Timestamp::now())))
}
