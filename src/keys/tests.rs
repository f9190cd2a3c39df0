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
    assert!(Keys::new(KeyOptions { open: true, ..KeyOptions::default() }, closed()).unwrap().is_open());
}

/// Keys of a hub that can sign, and a caller for each of these roles.
async fn signing(tokens: &[(&str, Role, Option<&str>)]) -> (Arc<Keys>, Vec<Arc<Principal>>) {
    let keys = Keys::new(KeyOptions::default(), Vec::new()).unwrap();
    keys.upkeep(now()).unwrap().iter().for_each(|change| keys.apply(change));
    let mut callers = Vec::new();
    for (name, role, user) in tokens {
        let (record, text) = new_token(name, *role, *user);
        keys.apply(&put(&record));
        callers.push(keys.authenticate(&text, now()).await.unwrap());
    }
    (keys, callers)
}

fn asked(json: &str) -> NewScoped {
    crate::task::read_strictly(json.as_bytes()).unwrap()
}

fn task(user: &str, queue: &str) -> crate::task::Task {
    use crate::task::{Status, Task, TaskId};
    Task {
        task_id: TaskId::from_bytes([7; 16]),
        task_type: Name::new("t"),
        queue: Name::new(queue),
        user_id: Some(Name::new(user)),
        rev: 1,
        created_at: now(),
        updated_at: now(),
        run_at: None,
        delayed: false,
        priority: 0,
        status: Status::Pending,
        attempt: 0,
        tries: 0,
        max_attempts: 1,
        crashes: 0,
        max_crashes: 3,
        detail: None,
        run: None,
    }
}

#[tokio::test]
async fn a_scoped_token_is_its_maker_and_less() {
    use crate::access::{Part, Sight};
    let (keys, callers) = signing(&[("u1", Role::User, Some("u1")), ("op", Role::Operator, None)]).await;
    let body = r#"{"allow":["read","cancel","read"],"filter":{"queue":["a","b"]},"hide":["payload"],"ttl_ms":60000}"#;
    let minted = keys.mint(&callers[0], asked(body), now()).unwrap();
    assert!(minted.token.starts_with("ths_") && minted.token.len() < 900, "{}", minted.token.len());
    assert_eq!(minted.expires_at, now().plus_millis(60_000));
    let who = keys.authenticate(&minted.token, now()).await.unwrap();
    assert!(Arc::ptr_eq(&who, &keys.authenticate(&minted.token, now()).await.unwrap()));
    assert_eq!((who.role, who.user_id.as_ref().map(Name::as_str)), (Role::User, Some("u1")));
    let may = |right| who.may(right);
    assert!(may(Right::See) && may(Right::Watch) && may(Right::Cancel));
    assert!(!may(Right::Retry) && !may(Right::Submit) && !may(Right::Mint) && !may(Right::SeeSettings));
    assert!(who.hidden.has(Part::Payload) && !who.hidden.has(Part::Result));
    assert!(who.sight.covers(&task("u1", "a")));
    assert!(!who.sight.covers(&task("u2", "a")) && !who.sight.covers(&task("u1", "c")));
    assert_eq!(keys.authenticate(&minted.token, minted.expires_at).await, Err(Unauthenticated::Expired));
    assert_eq!(who.credential.to_string(), format!("scoped:{}", minted.jti));

    // Of somebody who sees all: what is said, and nothing else.
    let of = async |body: &str| {
        let minted = keys.mint(&callers[1], asked(body), now()).unwrap();
        keys.authenticate(&minted.token, now()).await.unwrap()
    };
    let all = of(r#"{"allow":["read"]}"#).await;
    assert_eq!((&all.sight, &all.user_id, all.expires_at), (&Sight::All, &None, Some(now().plus_millis(600_000))));
    let own = of(r#"{"allow":["read"],"user_id":"u2"}"#).await;
    assert!(own.sight.covers(&task("u2", "a")) && !own.sight.covers(&task("u1", "a")));
    let both = of(r#"{"allow":["read"],"user_id":"u2","filter":{"user_id":["u1"]}}"#).await;
    assert!(!both.sight.covers(&task("u2", "a")) && !both.sight.covers(&task("u1", "a")));
    // A filter beyond the maker's sight sees nothing.
    let beyond = keys.mint(&callers[0], asked(r#"{"allow":["read"],"filter":{"user_id":["u2"]}}"#), now()).unwrap();
    let beyond = keys.authenticate(&beyond.token, now()).await.unwrap();
    assert!(matches!(&beyond.sight, Sight::Of(filter) if filter.is_nothing()));
}

#[tokio::test]
async fn what_may_not_be_made_is_refused() {
    let people = [
        ("u1", Role::User, Some("u1")),
        ("op", Role::Operator, None),
        ("v", Role::Viewer, None),
        ("w", Role::Worker, None),
    ];
    let (keys, callers) = signing(&people).await;
    let check = |who: usize, body: &str, expected: &str| {
        let told = match keys.mint(&callers[who], asked(body), now()) {
            Ok(_) => "made".to_owned(),
            Err(MintError::Forbidden { field, why }) => format!("403 {} {why}", field.unwrap_or("-")),
            Err(MintError::Invalid(invalid)) => format!("422 {invalid}"),
            Err(MintError::Open) => "409".to_owned(),
            Err(MintError::Unavailable) => "503".to_owned(),
        };
        assert!(told.starts_with(expected), "{body}: {told}");
    };
    check(0, r#"{"allow":["read","submit","cancel","retry"],"user_id":"u1"}"#, "made");
    check(0, r#"{"allow":["read"],"user_id":"u2"}"#, "403 user_id");
    check(1, r#"{"allow":["read"],"user_id":"u2"}"#, "made");
    check(1, r#"{"allow":["read"],"user_id":""}"#, "422 user_id");
    check(2, r#"{"allow":["read"]}"#, "made");
    for more in ["cancel", "retry", "submit"] {
        check(2, &format!(r#"{{"allow":["read","{more}"]}}"#), &format!("403 allow {more}"));
    }
    check(3, r#"{"allow":["read"]}"#, "403 -");
    check(1, "{}", "422 allow must name");
    check(1, r#"{"allow":["read"],"filter":{"status":["failed"]}}"#, "422 filter.status");
    check(1, r#"{"allow":["read"],"filter":{"queue":[]}}"#, "422 filter.queue");
    check(1, r#"{"allow":["read"],"ttl_ms":86400000}"#, "made");
    check(1, r#"{"allow":["read"],"ttl_ms":86400001}"#, "422 ttl_ms must be at most 86400000");
    check(1, r#"{"allow":["read"],"ttl_ms":0}"#, "422 ttl_ms");
    check(1, r#"{"allow":["submit"],"once":true}"#, "made");
    check(1, r#"{"allow":["read","submit"],"once":true}"#, "422 once");
    let ids: Vec<String> = (0..300).map(|n| format!("\"user-{n:030}\"")).collect();
    check(
        1,
        &format!(r#"{{"allow":["read"],"filter":{{"user_id":[{}]}}}}"#, ids.join(",")),
        "422 filter must be at most 8192",
    );
    for wrong in
        [r#"{"allow":["write"]}"#, r#"{"allow":["read"],"hide":["title"]}"#, r#"{"allow":["read"],"hidden":[]}"#]
    {
        assert!(crate::task::read_strictly::<NewScoped>(wrong.as_bytes()).is_err(), "{wrong}");
    }
    // Scoped tokens make no others.
    let minted = keys.mint(&callers[1], asked(r#"{"allow":["read"]}"#), now()).unwrap();
    let scoped = keys.authenticate(&minted.token, now()).await.unwrap();
    assert!(matches!(keys.mint(&scoped, asked(r#"{"allow":["read"]}"#), now()), Err(MintError::Forbidden { .. })));
    let unsigned = Keys::new(KeyOptions::default(), Vec::new()).unwrap();
    let made = unsigned.mint(&Arc::new(Principal::owner()), asked(r#"{"allow":["read"]}"#), now());
    assert_eq!(made, Err(MintError::Unavailable));
    let made = unsigned.mint(&Arc::new(Principal::everyone()), asked(r#"{"allow":["read"]}"#), now());
    assert_eq!(made, Err(MintError::Open));
}

#[tokio::test]
async fn a_scoped_token_ends_with_its_maker_its_key_and_by_its_name() {
    let people = [("op", Role::Operator, None), ("other", Role::Operator, None), ("root", Role::Admin, None)];
    let (keys, callers) = signing(&people).await;
    let read = || asked(r#"{"allow":["read"]}"#);
    let [one, two, three] = [(); 3].map(|()| keys.mint(&callers[0], read(), now()).unwrap());
    let who = keys.authenticate(&one.token, now()).await.unwrap();

    assert_eq!(keys.revoke_scoped(&callers[1], &one.jti, now()), None, "not theirs");
    assert_eq!(keys.revoke_scoped(&who, &one.jti, now()), None);
    assert_eq!(keys.revoke_scoped(&callers[2], "any", now()), None, "no such name");
    keys.apply(&keys.revoke_scoped(&callers[0], &one.jti, now()).unwrap());
    assert_eq!(keys.check(&who, now()), Err(Ended::Revoked));
    assert_eq!(keys.authenticate(&one.token, now()).await, Err(Unauthenticated::Revoked));
    keys.apply(&keys.revoke_scoped(&callers[2], &two.jti, now()).unwrap());
    assert_eq!(keys.authenticate(&two.token, now()).await, Err(Unauthenticated::Revoked));

    let who = keys.authenticate(&three.token, now()).await.unwrap();
    let removed = AccessKey::ApiToken { name: Name::new("op") };
    keys.apply(&AccessChange::Remove(removed));
    assert_eq!(keys.check(&who, now()), Err(Ended::Revoked));
    assert_eq!(keys.authenticate(&three.token, now()).await, Err(Unauthenticated::Revoked));
    keys.apply(&put(&new_token("op", Role::Operator, None).0));
    assert_eq!(keys.authenticate(&three.token, now()).await, Err(Unauthenticated::Revoked), "another of that name");

    let minted = keys.mint(&callers[1], read(), now()).unwrap();
    let who = keys.authenticate(&minted.token, now()).await.unwrap();
    let Credential::Scoped(scoped) = &who.credential else { unreachable!() };
    keys.apply(&AccessChange::Remove(AccessKey::SigningKey { kid: scoped.kid.to_string() }));
    assert_eq!(keys.check(&who, now()), Err(Ended::Revoked));
    assert_eq!(keys.authenticate(&minted.token, now()).await, Err(Unauthenticated::Revoked));
    // What was altered, on any byte, is no token.
    let (keys, callers) = signing(&people).await;
    let minted = keys.mint(&callers[0], read(), now()).unwrap();
    for at in 4..minted.token.len() {
        let mut bytes = minted.token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).unwrap();
        assert!(keys.authenticate(&altered, now()).await.is_err(), "at {at}");
    }
    assert!(keys.authenticate(&minted.token, now()).await.is_ok());
}

#[tokio::test]
async fn tokens_of_the_open_time_end_with_it_and_those_of_the_owner_do_not() {
    let (keys, _) = signing(&[]).await;
    let read = || asked(r#"{"allow":["read"]}"#);
    let of_anyone = keys.mint(&Arc::new(Principal::everyone()), read(), now()).unwrap();
    let of_owner = keys.mint(&Arc::new(Principal::owner()), read(), now()).unwrap();
    assert!(keys.authenticate(&of_anyone.token, now()).await.is_ok());
    keys.apply(&AccessChange::Put(AccessRecord::Closed { since: now() }));
    assert_eq!(keys.authenticate(&of_anyone.token, now()).await, Err(Unauthenticated::Revoked));
    assert!(keys.authenticate(&of_owner.token, now()).await.is_ok());
}

#[tokio::test]
async fn a_token_for_one_submission_is_spent_by_one() {
    let (keys, callers) = signing(&[("op", Role::Operator, None)]).await;
    let minted = keys.mint(&callers[0], asked(r#"{"allow":["submit"],"once":true}"#), now()).unwrap();
    let who = keys.authenticate(&minted.token, now()).await.unwrap();
    assert!(matches!(keys.spend(&who, now()), Ok(Some(AccessChange::Put(AccessRecord::Revocation(_))))));
    assert_eq!(keys.spend(&who, now()), Err(Ended::Revoked), "by another at the same time");
    keys.unspend(&who);
    let change = keys.spend(&who, now()).unwrap().unwrap();
    keys.apply(&change);
    assert_eq!(keys.authenticate(&minted.token, now()).await, Err(Unauthenticated::Revoked));
    assert_eq!(keys.spend(&callers[0], now()), Ok(None), "others are not spent");
}

#[tokio::test]
async fn the_hubs_own_keys_follow_each_other() {
    const DAY: u64 = 86_400_000;
    let (keys, callers) = signing(&[("op", Role::Operator, None)]).await;
    assert_eq!(keys.upkeep(now().plus_millis(30 * DAY - 1)).unwrap(), []);
    let later = now().plus_millis(30 * DAY);
    let day = || asked(r#"{"allow":["read"],"ttl_ms":86400000}"#);
    let old = keys.mint(&callers[0], day(), later).unwrap();
    keys.upkeep(later).unwrap().iter().for_each(|change| keys.apply(change));
    let new = keys.mint(&callers[0], day(), later).unwrap();
    assert_ne!(old.token.split('.').next(), new.token.split('.').next(), "by the new key");
    assert_eq!(keys.upkeep(old.expires_at).unwrap(), [], "the old key is kept as long as what it signed");
    assert!(keys.authenticate(&old.token, later.plus_millis(DAY - 1)).await.is_ok());
    let changes = keys.upkeep(later.plus_millis(DAY + 3_600_000)).unwrap();
    assert!(matches!(&changes[..], [AccessChange::Remove(AccessKey::SigningKey { .. })]), "{changes:?}");
}
