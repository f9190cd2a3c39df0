//! Where running tasks leave what they have to say, and the session takes it from.
//!
//! Tasks run anywhere, the session in one place. A task costs one short lock here when it ends and one when it first
//! says something; what it says after that goes into its own slot until the session has been there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::TaskFailure;
use super::attempt::Attempt;
use super::upload::Uploads;
use crate::task::Json;
use crate::wire::Held;

/// What a task left. There is at most one of each kind of an attempt at a time, so the bound is what the worker runs.
#[derive(Debug)]
pub(crate) enum News {
    /// Something waits in its slot.
    Said(Arc<Attempt>),
    Ended(Held, Ending),
}

/// How a task's function ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Returned(Result<Json, TaskFailure>),
    Panicked(String),
    /// Stopped where it awaited.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    /// Where large results go: past the session, which would have to hold them.
    pub(crate) uploads: Box<dyn Uploads>,
    news: Mutex<Vec<News>>,
    session: AtomicWaker,
    /// The hub can be told things right now.
    up: AtomicBool,
}

impl Outbox {
    pub(crate) fn new(uploads: Box<dyn Uploads>) -> Outbox {
        Outbox { uploads, news: Mutex::default(), session: AtomicWaker::new(), up: AtomicBool::new(false) }
    }

    pub(crate) fn push(&self, news: News) {
        let mut waiting = self.news.lock();
        waiting.push(news);
        let first = waiting.len() == 1;
        drop(waiting);
        // The session takes all there is, so only the first needs to call it.
        if first {
            self.session.wake();
        }
    }

    /// Ready when there is something to take.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.news.lock().is_empty() {
            return Poll::Ready(());
        }
        self.session.register(cx.waker());
        if self.news.lock().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Swaps what waits for the empty `into`, so that neither is allocated again.
    pub(crate) fn take(&self, into: &mut Vec<News>) {
        std::mem::swap(&mut *self.news.lock(), into);
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }
}
