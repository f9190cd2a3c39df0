//! What a hub asks of its keys.

use super::*;
use crate::access::{AccessKey, NewApiToken, Role};
use crate::task::Name;

pub(super) const NOW: i64 = 1_790_000_000_000;

pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(NOW)
}

pub(super) fn new_token(name: &str, role: Role, user: Option<&str>) -> (AccessRecord, String) {
    let new = NewApiToken {
        name: name.into(),
        role,
        user_id: user.map(str::to_owned),
        task_types: None,
        queues: None,
        expires_at: None,
    };
    let (token, text) = new.make(now()).unwrap();
    (AccessRecord::ApiToken(token), text)
}

pub(super) fn put(record: &AccessRecord) -> AccessChange {
    AccessChange::Put(record.clone())
}

#[tokio::test]
async fn a_token_is_in_force_until_it_is_removed() {
    let keys = Keys::new(KeyOptions::default(), Vec::new()).unwrap();
    let mut changes = keys.changes();
    assert!(keys.is_open());
    assert_eq!(keys.check(&Principal::everyone(), now()), Ok(()));
    let (record, text) = new_token("ci", Role::Operator, None);
    assert_eq!(keys.authenticate(&text, now()).await, Err(Unauthenticated::Unknown), "also on an open hub");
    keys.apply(&put(&record));
    assert!(!keys.is_open() && changes.has_changed().unwrap(), "the first token closes the hub");
    assert_eq!(keys.check(&Principal::everyone(), now()), Err(Ended::Revoked));
    assert_eq!(keys.check(&Principal::owner(), now()), Ok(()));
    changes.mark_unchanged();
    let who = keys.authenticate(&text, now()).await.unwrap();
    assert!(Arc::ptr_eq(&who, &keys.authenticate(&text, now()).await.unwrap()));
    keys.apply(&put(&new_token("other", Role::Admin, None).0));
    assert!(!changes.has_changed().unwrap(), "a token more ends nothing");

    let ci = Name::new("ci");
    keys.apply(&AccessChange::Remove(AccessKey::ApiToken { name: ci.clone() }));
    assert!(changes.has_changed().unwrap());
    assert_eq!(keys.check(&who, now()), Err(Ended::Revoked));
    assert_eq!(keys.authenticate(&text, now()).await, Err(Unauthenticated::Unknown));
    assert!(!keys.is_open(), "it is not opened by itself again");
    // One of the same name is another one.
    let (again, new_text) = new_token("ci", Role::Operator, None);
    keys.apply(&put(&again));
    assert_eq!(keys.check(&who, now()), Err(Ended::Revoked));
    let who = keys.authenticate(&new_text, now()).await.unwrap();
    keys.apply(&put(&new_token("ci", Role::Operator, None).0));
    assert_eq!(keys.check(&who, now()), Err(Ended::Revoked), "replaced");
    assert_eq!(keys.refused().find(|(word, _)| *word == "unknown"), Some(("unknown", 2)));
}

#[tokio::test]
async fn a_token_ends_at_its_time() {
    let (AccessRecord::ApiToken(token), text) = new_token("ci", Role::Viewer, None) else { unreachable!() };
    let token = crate::access::ApiToken { expires_at: Some(now().plus_millis(10)), ..token };
    let keys = Keys::new(KeyOptions::default(), vec![AccessRecord::ApiToken(token)]).unwrap();
    let who = keys.authenticate(&text, now().plus_millis(9)).await.unwrap();
    assert_eq!(keys.check(&who, now().plus_millis(10)), Err(Ended::Expired));
    assert_eq!(keys.authenticate(&text, now().plus_millis(10)).await, Err(Unauthenticated::Expired));
}

#[test]
fn records_that_cannot_be_used_are_said_at_the_start() {
    let (AccessRecord::ApiToken(token), _) = new_token("ci", Role::Viewer, None) else { unreachable!() };
    let wrong = crate::access::ApiToken { digest: "abc".into(), ..token };
    let told = Keys::new(KeyOptions::default(), vec![AccessRecord::ApiToken(wrong)]).unwrap_err();
    assert_eq!(told, "the digest of the API token ci is none");
}

#[test]
fn a_hub_that_was_closed_stays_closed_unless_it_is_told_otherwise() {
    let closed = || vec![AccessRecord::Closed { since: now() }];
    assert!(!Keys::new(KeyOptions::default(), closed()).unwrap().is_open());
    assert!(Keys::new(KeyOptions { open: true }, closed()).unwrap().is_open());
}
