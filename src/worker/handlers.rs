//! The functions that are registered, and the call of one for an attempt.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use super::TaskFailure;
use super::attempt::{Attempt, Context};
use super::outbox::{Ending, News, Outbox};
use crate::task::Json;
use crate::wire::Held;

/// What a registered function comes down to.
pub(crate) type Handler = Arc<dyn Fn(Context) -> BoxFuture<'static, Result<Json, TaskFailure>> + Send + Sync>;

/// Functions by the type of the tasks that they run, or the beginning of it with `*` after it.
#[derive(Default)]
pub(crate) struct Handlers(BTreeMap<String, Handler>);

impl Handlers {
    pub(super) fn insert(&mut self, task_type: String, handler: Handler) {
        self.0.insert(task_type, handler);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn task_types(&self) -> impl Iterator<Item = &String> + std::fmt::Debug {
        self.0.keys()
    }

    /// The function for a type: the one of its name, or the one with the longest beginning of it.
    fn of(&self, task_type: &str) -> Option<Handler> {
        if let Some(handler) = self.0.get(task_type) {
            return Some(handler.clone());
        }
        let prefixes = self.0.iter().filter_map(|(pattern, handler)| Some((pattern.strip_suffix('*')?, handler)));
        let matching = prefixes.filter(|(prefix, _)| task_type.starts_with(prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, handler)| handler.clone())
    }

    /// Begins the attempt. It tells its outbox how it ended, also where the handle is aborted or dropped.
    pub(crate) fn start(&self, attempt: &Arc<Attempt>) -> AbortOnDropHandle<()> {
        let handler = self.of(attempt.context().task().task_type.as_str());
        let guard = CompletionGuard { outbox: attempt.outbox().clone(), held: attempt.held, ending: None };
        AbortOnDropHandle::new(tokio::spawn(run(guard, handler, attempt.clone())))
    }
}

/// When dropped, reports how a function ended: as `ending` says, or as dropped, where the function's future was dropped
/// while it awaited, or before it began.
struct CompletionGuard {
    outbox: Arc<Outbox>,
    held: Held,
    ending: Option<Ending>,
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        self.outbox.push(News::Ended(self.held, self.ending.take().unwrap_or(Ending::Dropped)));
    }
}

/// Runs a task's function to its end, whatever that is. `guard` is the first argument, so that it is dropped last: when it
/// reports the ending, nothing of the function is left.
async fn run(mut guard: CompletionGuard, handler: Option<Handler>, attempt: Arc<Attempt>) {
    let ctx = attempt.context();
    let outcome = AssertUnwindSafe(async move {
        match handler {
            Some(handler) => handler(ctx).await,
            None => {
                let message = format!("this worker runs no tasks of type {}", ctx.task().task_type);
                Err(TaskFailure::new("task_type", message))
            }
        }
    });
    let outcome = outcome.catch_unwind().await;
    guard.ending = Some(match outcome {
        Ok(outcome) => Ending::Returned(outcome),
        Err(panic) => Ending::Panicked(words_of(&*panic)),
    });
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the function panicked".into())
}
