//! What goes on for those who made it: schedules and callbacks act as their maker, and stop with it.
//!
//! A record that acts later says whose it is ([`Author`]), where that is kept: who calls an open hub, and who holds it, is never taken
//! back. An API token ends when it is removed or expires. A token of an application ends each few minutes and is followed by another, so
//! what it made goes on; its subject ends when that is revoked.
//!
//! Callbacks are looked at when they are about to be sent. A schedule would make tasks by itself, so it is looked for: when something was
//! taken back, when a token expires, and when a hub starts, before anything is due. It is then paused by the engine, with the reason in
//! its record, until somebody has it go on, whose it is from then on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{AccessChange, AccessKey, AccessRecord, Revoked};
use crate::engine::Command;
use crate::settings::{SettingKind, SettingValue};
use crate::task::{Author, AuthorEnd, Name, Timestamp};

use super::Hub;
use super::inbox::{Bound, Reply, Request};
use super::shared::Shared;

/// How often it is asked whether a token has expired.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Those who are let in, by what records say of them.
#[derive(Debug, Default)]
pub(super) struct Authors {
    /// When each API token expires.
    tokens: HashMap<u64, Option<Timestamp>>,
    prints: HashMap<Name, u64>,
    /// What subjects were given before these times is in force no longer.
    subjects: HashMap<u64, Timestamp>,
}

impl Authors {
    /// A step that is on disk. Answers whether somebody may have ended by it.
    pub(super) fn apply(&mut self, change: &AccessChange) -> bool {
        match change {
            AccessChange::Put(AccessRecord::ApiToken(token)) => {
                let Author::Token(print) = Author::token(&token.digest) else { return false };
                self.tokens.insert(print, token.expires_at);
                let before = self.prints.insert(token.name.clone(), print);
                before.filter(|before| *before != print).is_some_and(|before| self.tokens.remove(&before).is_some())
            }
            AccessChange::Remove(AccessKey::ApiToken { name }) => {
                self.prints.remove(name).is_some_and(|print| self.tokens.remove(&print).is_some())
            }
            AccessChange::Put(AccessRecord::Revocation(revocation)) => match &revocation.what {
                Revoked::Subject { issuer, subject, before } => {
                    let known = self.subjects.entry(Author::subject_print(issuer, subject)).or_insert(*before);
                    *known = (*known).max(*before);
                    true
                }
                Revoked::Scoped { .. } => false,
            },
            _ => false,
        }
    }

    /// Whether an author is kept here: others are never known to end.
    fn knows(&self, author: Author) -> bool {
        match author {
            Author::Token(print) => self.tokens.contains_key(&print),
            Author::Subject { .. } => true,
        }
    }

    /// Why an author is one no longer; `None` while it is.
    pub(super) fn ended(&self, author: Author, now: Timestamp) -> Option<AuthorEnd> {
        match author {
            Author::Token(print) => match self.tokens.get(&print) {
                None => Some(AuthorEnd::Revoked),
                Some(expires_at) => expires_at.is_some_and(|at| at <= now).then_some(AuthorEnd::Expired),
            },
            Author::Subject { subject, issued_at } => {
                let before = self.subjects.get(&subject);
                before.is_some_and(|before| issued_at < *before).then_some(AuthorEnd::Revoked)
            }
        }
    }

    /// When the next token expires.
    fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.tokens.values().flatten().copied().filter(|at| *at > now).min()
    }
}

impl Hub {
    /// Who makes what this handle submits and sets, where that may end.
    pub(super) fn author(&self) -> Option<Author> {
        let author = self.actor()?.author()?;
        self.shared().ledger.look_authors(|authors| authors.knows(author)).then_some(author)
    }
}

impl Shared {
    /// Has schedules stop whose makers have ended. Answers how many there were.
    pub(super) fn stop_orphans(&self) -> usize {
        let now = self.clock.now().wall;
        let settings = self.board.settings.page(SettingKind::Schedule, None, usize::MAX);
        let orphans: Vec<Command> = self.ledger.look_authors(|authors| {
            let orphan = |setting: &Arc<crate::settings::Setting>| {
                let SettingValue::Schedule(schedule) = &setting.value else { return None };
                let author = schedule.spec.author.filter(|_| schedule.state.paused_reason.is_none())?;
                let reason = authors.ended(author, now)?;
                Some(Command::StopSchedule { name: setting.name.clone(), author, reason })
            };
            settings.iter().filter_map(orphan).collect()
        });
        let count = orphans.len();
        for command in orphans {
            // Bounded by how many schedules there are. What cannot be written is found again.
            let _ = self.inbox.push(Request::Command { command, reply: Reply::Nobody }, Bound::Free);
        }
        count
    }
}

/// Looks after schedules for as long as the hub is there.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut again = true;
    let mut expires_at = None;
    loop {
        let now = shared.clock.now().wall;
        if again || expires_at.is_some_and(|at| at <= now) {
            again = shared.stop_orphans() > 0;
            expires_at = shared.ledger.look_authors(|authors| authors.next_expiry(now));
        }
        tokio::select! {
            () = shared.ledger.someone_ended() => again = true,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = shared.until_stopped() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{ApiToken, Credential, Principal, Role, Signed};
    use crate::hub::HubOptions;
    use crate::settings::ScheduleSpec;
    use crate::store::{SqliteOptions, SqliteStore, in_memory};
    use crate::task::NewTask;
    use crate::wire::ScheduleView;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn token(name: &str, expires_at: Option<Timestamp>) -> ApiToken {
        ApiToken { role: Role::Operator, digest: format!("{name:0>64}"), expires_at, ..ApiToken::sample(name) }
    }

    async fn let_in(hub: &Hub, token: &ApiToken) -> Hub {
        let put = AccessChange::Put(AccessRecord::ApiToken(token.clone()));
        hub.change_access(vec![put], None).await.unwrap();
        of(hub, token)
    }

    fn of(hub: &Hub, token: &ApiToken) -> Hub {
        let credential = Credential::ApiToken(Arc::new(token.clone()));
        let caller = hub.as_caller(Arc::new(Principal::new(Role::Operator, None, credential)), None);
        caller.whole(crate::access::Right::ChangeSettings).unwrap().clone()
    }

    fn every_second() -> ScheduleSpec {
        ScheduleSpec::new(NewTask::new("t")).every(Duration::from_secs(1))
    }

    async fn set(hub: &Hub, name: &str) {
        hub.set_schedule(Name::new(name), every_second()).await.unwrap();
    }

    async fn shown(hub: &Hub, name: &str) -> ScheduleView {
        hub.schedule(&Name::new(name)).await.unwrap().unwrap()
    }

    async fn stopped(hub: &Hub, name: &str) -> AuthorEnd {
        let wait = async {
            loop {
                if let Some(reason) = shown(hub, name).await.paused_reason {
                    return reason;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it stops")
    }

    #[tokio::test]
    async fn a_schedule_stops_with_its_maker_and_goes_on_for_who_says_so() {
        let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
        let soon = Timestamp::now().plus_millis(1_200);
        let (ann, bob, eve) = (token("ann", None), token("bob", None), token("eve", Some(soon)));
        let (of_ann, of_bob, of_eve) = (let_in(&hub, &ann).await, let_in(&hub, &bob).await, let_in(&hub, &eve).await);
        set(&of_ann, "a").await;
        set(&of_bob, "b").await;
        set(&of_eve, "e").await;
        set(&hub, "own").await;
        hub.change_access(vec![AccessChange::Remove(AccessKey::ApiToken { name: ann.name.clone() })], None)
            .await
            .unwrap();
        assert_eq!(stopped(&hub, "a").await, AuthorEnd::Revoked);
        let a = shown(&hub, "a").await;
        assert_eq!((a.paused, a.next.len()), (true, 0));
        assert_eq!(stopped(&hub, "e").await, AuthorEnd::Expired);
        // Others go on, and so does what nobody's token made.
        for name in ["b", "own"] {
            let view = shown(&hub, name).await;
            assert_eq!((view.paused, view.paused_reason, view.next.len()), (false, None, 5), "{name}");
        }
        // A token of the same name is another.
        let again = ApiToken { digest: "f".repeat(64), ..token("ann", None) };
        let_in(&hub, &again).await;
        assert_eq!(shown(&hub, "a").await.paused_reason, Some(AuthorEnd::Revoked));
        // Whoever lets it go on has it go on as theirs: it stops with them.
        let a = of_bob.pause_schedule(Name::new("a"), false).await.unwrap();
        assert_eq!((a.paused, a.paused_reason, a.next.len()), (false, None, 5));
        hub.change_access(vec![AccessChange::Remove(AccessKey::ApiToken { name: bob.name.clone() })], None)
            .await
            .unwrap();
        assert_eq!((stopped(&hub, "a").await, stopped(&hub, "b").await), (AuthorEnd::Revoked, AuthorEnd::Revoked));
        // And so does who sets it again.
        set(&hub, "a").await;
        assert_eq!(shown(&hub, "a").await.paused_reason, None);
        hub.stop().await;
    }

    #[tokio::test]
    async fn one_whose_maker_ended_while_no_hub_was_there_makes_nothing_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let start = |steps: Vec<AccessChange>| {
            let mut store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
            if !steps.is_empty() {
                let commit = crate::store::Commit { access: steps, ..Default::default() };
                crate::store::Store::recover(&mut store).unwrap();
                crate::store::Store::append(&mut store, &commit).unwrap();
                drop(store);
                store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
            }
            Hub::start(Box::new(store), HubOptions::default()).unwrap()
        };
        let hub = start(Vec::new());
        let ann = token("ann", None);
        set(&let_in(&hub, &ann).await, "a").await;
        hub.stop().await;
        drop(hub);
        // Something is due by the time that a hub is there again.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let hub = start(vec![AccessChange::Remove(AccessKey::ApiToken { name: ann.name.clone() })]);
        assert_eq!(stopped(&hub, "a").await, AuthorEnd::Revoked);
        assert_eq!(shown(&hub, "a").await.last, None);
        hub.stop().await;
    }

    #[tokio::test]
    async fn callbacks_are_not_sent_for_those_who_ended() {
        let hub = Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap();
        let ann = token("ann", None);
        let of_ann = let_in(&hub, &ann).await;
        let new = NewTask::new("t").callback("https://app.invalid/");
        let task_id = of_ann.submit_all(vec![new], None).await.unwrap().task_ids[0];
        hub.change_access(vec![AccessChange::Remove(AccessKey::ApiToken { name: ann.name.clone() })], None)
            .await
            .unwrap();
        hub.cancel_task(task_id, None).await.unwrap();
        let query = || crate::store::DeliveryQuery { limit: 10, ..Default::default() };
        let wait = async {
            loop {
                let page = hub.deliveries(query()).await.unwrap();
                if let Some(delivery) = page.deliveries.first().filter(|it| it.state.error.is_some()) {
                    return delivery.state.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let state = tokio::time::timeout(PATIENCE, wait).await.expect("it is given up");
        assert_eq!(state.status, crate::task::DeliveryStatus::Failed);
        assert!(state.error.as_deref().unwrap().starts_with("not sent: the token"), "{:?}", state.error);
        hub.stop().await;
    }

    #[test]
    fn subjects_end_by_being_revoked_and_by_nothing_else() {
        let at = Timestamp::from_millis;
        let mut authors = Authors::default();
        let jwt = |issued_at| Signed {
            issuer: "i".into(),
            subject: "s".into(),
            issued_at,
            key: crate::access::Fingerprint::of("k"),
            filter: None,
        };
        let author = |issued_at| {
            let who = Arc::new(Principal::new(Role::User, None, Credential::Jwt(Arc::new(jwt(issued_at)))));
            crate::hub::caller::Actor::of(who).author().unwrap()
        };
        assert_eq!(authors.ended(author(at(5)), at(i64::MAX)), None);
        let what = Revoked::Subject { issuer: "i".into(), subject: "s".into(), before: at(7) };
        let revocation = crate::access::Revocation { what, until: at(i64::MAX) };
        assert!(authors.apply(&AccessChange::Put(AccessRecord::Revocation(revocation))));
        assert_eq!(authors.ended(author(at(6)), at(8)), Some(AuthorEnd::Revoked));
        assert_eq!(authors.ended(author(at(7)), at(8)), None, "it was given after that");
    }
}
