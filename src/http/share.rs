//! Tokens that are asked for beside new tasks: `"token": {"allow": ["read"]}` in a submission, and the answer carries one for
//! that task. So a page that has sent a form can show what becomes of it, without another call.
//!
//! A token is no part of a task: it stands in the answer alone, and a submission that is repeated gets another. What cannot be
//! made is refused before anything is submitted.

use bytes::Bytes;
use serde::Deserialize;

use super::access::not_minted;
use super::gate::unauthenticated;
use super::json::parse;
use super::splice;
use super::state::App;
use crate::access::{AccessChange, Allow, Hide, NewScoped, hides};
use crate::hub::CallerHub;
use crate::task::{FilterSpec, Json, NewTask, TaskId, Timestamp};
use crate::wire::{Code, Problem};

/// What is asked for: a scoped token without a filter, which is the task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    allow: Vec<Allow>,
    #[serde(default, deserialize_with = "hides")]
    hide: Vec<Hide>,
    #[serde(default)]
    ttl_ms: Option<u64>,
}

impl Ask {
    fn of(&self, task_id: TaskId) -> NewScoped {
        let Ask { allow, hide, ttl_ms } = self.clone();
        let filter = FilterSpec { task_id: Some(vec![task_id]), ..FilterSpec::default() };
        NewScoped { allow, filter, hide, ttl_ms, ..NewScoped::default() }
    }
}

/// The tokens that are asked for, by the places of their tasks.
#[derive(Default)]
pub(super) struct Asked(Vec<(usize, Ask)>);

/// Takes what is asked for out of new tasks, and refuses what the caller may not have. `within` is the path to a task.
pub(super) fn asked(
    app: &App,
    hub: &CallerHub,
    tasks: &mut [NewTask],
    within: impl Fn(usize) -> String,
) -> Result<Asked, Problem> {
    let mut asked = Asked::default();
    for (place, new) in tasks.iter_mut().enumerate() {
        let Some(text) = new.token.take() else { continue };
        let at = |problem: Problem| {
            let field = problem.field.as_deref().map_or(String::new(), |field| format!(".{field}"));
            problem.at(format!("{}token{field}", within(place)))
        };
        let ask: Ask = parse(text.bytes()).map_err(at)?;
        // Whatever id the task is given.
        app.keys()
            .mint(hub.who(), ask.of(TaskId::from_bytes([0; 16])), Timestamp::now())
            .map_err(|why| at(not_minted(why)))?;
        asked.0.push((place, ask));
    }
    Ok(asked)
}

/// Submits. A token that is for one submission is spent before, and is good again where nothing came of it: it is never good
/// for two, also where the hub is killed in between.
pub(super) async fn spending<T>(
    app: &App,
    hub: &CallerHub,
    submit: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let Some(change) = app.keys().spend(hub.who(), Timestamp::now()).map_err(|_| unauthenticated())? else {
        return submit.await;
    };
    let AccessChange::Put(record) = &change else { unreachable!("what is spent is put down") };
    let key = record.key();
    let spent = hub.change_access(vec![change], "token.spend", None).await;
    let submitted = match spent {
        Ok(()) => submit.await,
        Err(error) => Err(error.into()),
    };
    if submitted.is_err() {
        // What is not taken back stays spent.
        let _ = hub.change_access(vec![AccessChange::Remove(key)], "token.unspend", None).await;
        app.keys().unspend(hub.who());
    }
    submitted
}

impl Asked {
    /// The record of a task, with its token beside it if one was asked for.
    pub(super) fn put(
        &self,
        app: &App,
        hub: &CallerHub,
        place: usize,
        task_id: TaskId,
        record: Bytes,
    ) -> Result<Bytes, Problem> {
        let Ok(at) = self.0.binary_search_by_key(&place, |(place, _)| *place) else { return Ok(record) };
        let minted = app.keys().mint(hub.who(), self.0[at].1.of(task_id), Timestamp::now()).map_err(not_minted)?;
        let token = Json::of(&minted).map_err(|_| Problem::new(Code::Internal, "the token cannot be written"))?;
        let mut text = record.to_vec();
        splice::with(&mut text, "token", Some(&token));
        Ok(text.into())
    }
}
