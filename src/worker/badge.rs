//! Which token a worker says to the hub, and when it needs another.
//!
//! A token is fetched for each connection, and replaced on an open one (`refresh`) before it expires. One that the hub refused,
//! or that expired after all, is fetched anew: once, and if the hub does not take that either, the worker is not wanted.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::dial::{DialError, Issued, Token};
use crate::wire::CloseCode;

/// Where another could not be fetched the one before is in force, and this much later it is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Badge {
    token: Option<Token>,
    /// As it was said last.
    said: Option<Issued>,
    /// It does not do any more.
    anew: bool,
    /// One was fetched anew because the hub had refused the one before.
    tried_anew: bool,
    renew_at: Option<Instant>,
    renewing: Option<Fetching>,
}

pub(super) type Fetching = BoxFuture<'static, Result<Option<Issued>, DialError>>;

impl Badge {
    pub(super) fn new(token: Option<Token>) -> Badge {
        Badge { token, ..Badge::default() }
    }

    /// A token for a connection, if the worker has any.
    pub(super) fn fetch(&self) -> Fetching {
        let (token, old) = (self.token.clone(), self.said.clone().filter(|_| self.anew));
        async move {
            let Some(token) = token else { return Ok(None) };
            let issued = match old {
                Some(old) => token.instead_of(&old).await.map(|other| Some(other.unwrap_or(old))),
                None => token.get().await.map(Some),
            };
            // One that is fetched may be had the next time.
            issued.map_err(|why| match token.has_others() {
                true => DialError::Unreachable(why.to_string()),
                false => DialError::Refused(why.to_string()),
            })
        }
        .boxed()
    }

    /// This one is said now.
    pub(super) fn say(&mut self, issued: Option<Issued>) -> Option<String> {
        self.anew = false;
        self.renew_at = issued.as_ref().and_then(Issued::renew_in).map(|after| Instant::now() + after);
        let text = issued.as_ref().map(|issued| issued.text().to_owned());
        self.said = issued;
        text
    }

    /// The hub has taken it.
    pub(super) fn taken(&mut self) {
        self.tried_anew = false;
    }

    /// When [`tick`](Self::tick) is needed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.renew_at
    }

    /// Begins to fetch the next, where that is due.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew_at = None;
            self.anew = true;
            self.renewing = Some(self.fetch());
        }
    }

    /// The next token, to be said on the open connection. Ready as well where none came, with nothing to say.
    pub(super) fn poll_renewed(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        let Some(renewing) = &mut self.renewing else { return Poll::Pending };
        let renewed = ready!(renewing.poll_unpin(cx));
        self.renewing = None;
        Poll::Ready(match renewed {
            Ok(issued) => self.say(issued),
            Err(why) => {
                tracing::warn!(%why, "the token could not be renewed");
                self.renew_at = Some(Instant::now() + RENEW_AGAIN);
                None
            }
        })
    }

    /// The connection is gone. Whether the worker comes back for what the hub says of its token.
    pub(super) fn comes_back(&mut self, close_code: Option<u16>) -> bool {
        (self.renewing, self.renew_at) = (None, None);
        let has_others = self.token.as_ref().is_some_and(Token::has_others);
        if close_code == Some(CloseCode::TokenExpired as u16) {
            self.anew = has_others;
        }
        if close_code != Some(CloseCode::Unauthenticated as u16) || !has_others {
            return false;
        }
        self.anew = true;
        !std::mem::replace(&mut self.tried_anew, true)
    }
}
