//! Who the client is to the hub: which token it has said, what came of it, and when it needs another.
//!
//! On each connection the client says `hello` with a token and asks for nothing before that is answered; the hub may not know
//! it until then. A token that is about to expire is replaced on the open connection with `refresh`. One that the hub refuses,
//! or that expired after all, is replaced by one that is fetched anew: once, and if the hub does not take that either, the
//! client is not wanted.

use crate::wire::CloseCode;

/// Another token that could not be fetched, or was not taken, is fetched again after this; the one before is in force.
const RENEW_AGAIN_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Identity {
    /// Tokens are used.
    with_tokens: bool,
    /// Another may be had in place of one that was refused.
    has_others: bool,
    standing: Standing,
    /// One was asked for and has not come.
    wanted: bool,
    /// The one that was said last does not do any more.
    anew: bool,
    /// One was fetched anew because the hub had refused the one before.
    tried_anew: bool,
    /// The `refresh` that is not answered.
    refresh: Option<u64>,
    renew_at: Option<u64>,
}

/// How the client stands with the hub on this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// The hub has not spoken.
    #[default]
    Unheard,
    /// It waits for a token.
    Waiting,
    /// A token was said with this request.
    Said(u64),
    Known,
}

/// What to do with a hub that has spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Go on.
    Known,
    /// Wait for a token; where it is `Some`, ask for it: for another than the last one if that is true.
    Wait(Option<bool>),
    /// It wants a token, and there is none.
    Stranger,
}

/// What to do with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saying {
    Hello,
    Refresh,
    Nothing,
}

/// What an answer was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerTo {
    Hello,
    Refresh,
    Other,
}

impl Identity {
    pub(super) fn use_tokens(&mut self, has_others: bool) {
        (self.with_tokens, self.has_others) = (true, has_others);
    }

    pub(super) fn has_others(&self) -> bool {
        self.has_others
    }

    /// The hub has said its first word.
    pub(super) fn greeted(&mut self, authenticated: bool) -> Greeting {
        if !self.with_tokens {
            self.standing = Standing::Known;
            return if authenticated { Greeting::Known } else { Greeting::Stranger };
        }
        self.standing = Standing::Waiting;
        Greeting::Wait(self.want())
    }

    /// Asks for a token, unless one is on its way: for another than the last one if that is true.
    pub(super) fn want(&mut self) -> Option<bool> {
        self.renew_at = None;
        (!std::mem::replace(&mut self.wanted, true)).then_some(self.anew)
    }

    /// A token came.
    pub(super) fn fetched(&mut self, now_ms: u64, renew_in_ms: Option<u64>) -> Saying {
        (self.wanted, self.anew) = (false, false);
        self.renew_at = renew_in_ms.map(|after_ms| now_ms + after_ms);
        match self.standing {
            Standing::Waiting => Saying::Hello,
            Standing::Known => Saying::Refresh,
            Standing::Unheard | Standing::Said(_) => Saying::Nothing,
        }
    }

    /// None came. Whether the connection can do without.
    pub(super) fn missing(&mut self, now_ms: u64) -> bool {
        self.wanted = false;
        if self.standing == Standing::Known {
            (self.anew, self.renew_at) = (true, Some(now_ms + RENEW_AGAIN_MS));
        }
        self.standing != Standing::Waiting
    }

    /// A token was said with this request.
    pub(super) fn said(&mut self, id: u64) {
        match self.standing {
            Standing::Known => self.refresh = Some(id),
            _ => self.standing = Standing::Said(id),
        }
    }

    /// The hub answered a request with its hello.
    pub(super) fn answered(&mut self, id: u64) -> AnswerTo {
        let of = self.of(id);
        match of {
            AnswerTo::Hello => (self.standing, self.tried_anew) = (Standing::Known, false),
            AnswerTo::Refresh => self.refresh = None,
            AnswerTo::Other => {}
        }
        of
    }

    /// The hub complained of a request. What it did not take in place of a token leaves that one in force.
    pub(super) fn complained(&mut self, now_ms: u64, id: Option<u64>) -> AnswerTo {
        let of = id.map_or(AnswerTo::Other, |id| self.of(id));
        if of == AnswerTo::Refresh {
            self.refresh = None;
            (self.anew, self.renew_at) = (self.has_others, Some(now_ms + RENEW_AGAIN_MS).filter(|_| self.has_others));
        }
        of
    }

    fn of(&self, id: u64) -> AnswerTo {
        match self.standing {
            Standing::Said(hello) if hello == id => AnswerTo::Hello,
            _ if self.refresh == Some(id) => AnswerTo::Refresh,
            _ => AnswerTo::Other,
        }
    }

    /// The connection was closed with this code: whether the client comes back for what it says of a token.
    pub(super) fn comes_back(&mut self, close_code: u16) -> bool {
        let is_unknown = close_code == CloseCode::Unauthenticated as u16;
        if close_code == CloseCode::TokenExpired as u16 {
            self.anew = self.has_others;
        } else if is_unknown && self.standing != Standing::Waiting && self.has_others && !self.tried_anew {
            (self.anew, self.tried_anew) = (true, true);
            return true;
        }
        // A token that took longer than the hub waits was not refused.
        is_unknown && self.standing == Standing::Waiting
    }

    pub(super) fn cut(&mut self) {
        (self.standing, self.refresh) = (Standing::Unheard, None);
    }

    /// When the token is to be replaced.
    pub(super) fn renew_at(&self) -> Option<u64> {
        self.renew_at.filter(|_| self.standing == Standing::Known)
    }

    /// The token is due, or was replaced here: asks for the next.
    pub(super) fn renew(&mut self) -> Option<bool> {
        self.anew |= self.has_others;
        self.want()
    }
}
