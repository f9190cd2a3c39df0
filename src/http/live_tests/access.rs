//! Who hears what: sockets of a hub that knows its callers.

use std::sync::Arc;

use super::*;
use crate::access::{AccessChange, AccessKey, AccessRecord, NewApiToken, Role};
use crate::keys::Keys;
use crate::task::Timestamp;

struct Closed {
    test: TestHub,
    keys: Arc<Keys>,
}

impl Closed {
    async fn start() -> Closed {
        Closed::with(FeedOptions::default().ping).await
    }

    async fn with(ping: Duration) -> Closed {
        let keys = Keys::new(Default::default(), vec![AccessRecord::Closed { since: Timestamp::now() }]).unwrap();
        let test = TestHub::with_keys(ServeConfig::for_trial(), keys.clone(), LiveLimits::default(), ping).await;
        Closed { test, keys }
    }

    /// Makes a token of this name and role; a user is called like it.
    fn token(&self, name: &str, role: Role, expires_at: Option<Timestamp>) -> String {
        let user_id = (role == Role::User).then(|| name.to_owned());
        let new = NewApiToken { name: name.into(), role, user_id, task_types: None, queues: None, expires_at };
        let (record, text) = new.make(Timestamp::now()).unwrap();
        self.keys.apply(&AccessChange::Put(AccessRecord::ApiToken(record)));
        text
    }

    fn revoke(&self, name: &str) {
        self.keys.apply(&AccessChange::Remove(AccessKey::ApiToken { name: Name::new(name) }));
    }

    async fn submit_of(&self, user: &str) -> TaskId {
        let mut new = NewTask::new("t");
        new.user_id = Some(user.into());
        self.test.hub.submit_all(vec![new], None).await.unwrap().task_ids[0]
    }

    /// A socket that has said who it is, and what it was told.
    async fn socket_as(&self, token: &str) -> (TestSocket, Value) {
        let mut socket = self.test.socket_of(&[]).await;
        assert_eq!(socket.next().await["authenticated"], false);
        socket.say(json!({"op": "hello", "id": 7, "token": token})).await;
        let hello = socket.next().await;
        assert_eq!((&hello["type"], &hello["id"], &hello["authenticated"]), (&json!("hello"), &json!(7), &Value::Null));
        (socket, hello)
    }
}

fn ids(lines: &[Value]) -> Vec<String> {
    let snapshots = lines.iter().filter_map(|line| line["tasks"].as_array()).flatten();
    let events = lines.iter().map(|line| &line["task"]).filter(|task| task.is_object());
    snapshots.chain(events).map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn nobody_may_say_nothing_but_who_they_are() {
    let hub = Closed::start().await;
    for op in [json!({"op": "subscribe", "sub": "a"}), json!({"op": "ping"}), json!({"op": "hello", "token": "tht_x"})]
    {
        let mut socket = hub.test.socket_of(&[]).await;
        assert_eq!(socket.next().await["authenticated"], false);
        socket.say(op.clone()).await;
        assert_eq!(socket.next().await, json!({"close": 4501}), "{op}");
    }
}

#[tokio::test]
async fn a_token_is_offered_as_a_protocol() {
    let hub = Closed::start().await;
    let token = hub.token("ann", Role::User, None);
    let mut socket = hub.test.socket_of(&["taskhub.v1", &format!("taskhub.token.{token}")]).await;
    assert_eq!(socket.protocol.as_deref(), Some("taskhub.v1"));
    let hello = socket.next().await;
    assert_eq!((&hello["user_id"], &hello["authenticated"]), (&json!("ann"), &Value::Null));
    assert_eq!(kinds(&socket.subscribe(json!({})).await), ["subscribed", "snapshot", "mark"]);
}

#[tokio::test]
async fn each_hears_of_what_they_see_and_of_nothing_else() {
    let hub = Closed::start().await;
    let (ann, viewer) = (hub.token("ann", Role::User, None), hub.token("eve", Role::Viewer, None));
    let (of_ann, of_bob) = (hub.submit_of("ann").await, hub.submit_of("bob").await);
    let (mut ann, hello) = hub.socket_as(&ann).await;
    assert_eq!(hello["user_id"], "ann");
    let (mut viewer, _) = hub.socket_as(&viewer).await;
    assert_eq!(ids(&ann.subscribe(json!({})).await), [of_ann.to_string()]);
    assert_eq!(ids(&viewer.subscribe(json!({})).await).len(), 2);
    ann.say(json!({"op": "subscribe", "sub": "b", "filter": {"task_id": [of_bob], "user_id": ["bob"]}})).await;
    assert_eq!(ids(&ann.until("mark").await), Vec::<String>::new());

    hub.test.hub.cancel_task(of_bob, None).await.unwrap();
    hub.test.delete(of_bob).await;
    let later = hub.submit_of("ann").await;
    let first = ann.event().await;
    assert_eq!((&first["event"], &first["task"]["task_id"]), (&json!("task.created"), &json!(later)), "{first}");
    let seen: Vec<Value> = vec![viewer.event().await, viewer.event().await, viewer.event().await];
    assert_eq!(kinds(&seen), ["task", "gone", "task"]);
}

#[tokio::test]
async fn counts_are_of_what_the_caller_sees_and_settings_for_those_who_see_all() {
    let hub = Closed::start().await;
    let (ann, viewer) = (hub.token("ann", Role::User, None), hub.token("eve", Role::Viewer, None));
    let (mut socket, _) = hub.socket_as(&ann).await;
    socket.say(json!({"op": "subscribe", "id": 9, "sub": "a", "settings": true})).await;
    let refused = socket.next().await;
    assert_eq!((&refused["type"], &refused["id"], &refused["code"]), (&json!("error"), &json!(9), &json!("forbidden")));
    let (mut socket, _) = hub.socket_as(&viewer).await;
    socket.say(json!({"op": "subscribe", "sub": "a", "settings": true})).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    hub.submit_of("ann").await;
    hub.submit_of("bob").await;
    for (token, pending, workers) in [(&ann, 1, Value::Null), (&viewer, 2, json!(0))] {
        let (mut socket, _) = hub.socket_as(token).await;
        socket.say(json!({"op": "subscribe", "sub": "s", "stats": true})).await;
        let stats = socket.until("stats").await.pop().unwrap();
        assert_eq!((&stats["tasks"]["pending"], &stats["workers"]), (&json!(pending), &workers), "{stats}");
    }
    let (mut worker, _) = hub.socket_as(&hub.token("w", Role::Worker, None)).await;
    for topic in [json!({"op": "subscribe", "sub": "a"}), json!({"op": "subscribe", "sub": "a", "stats": true})] {
        worker.say(topic).await;
        assert_eq!(worker.next().await["code"], "forbidden");
    }
}

#[tokio::test]
async fn a_task_with_other_labels_is_gone_for_those_who_see_it_by_these() {
    // Regression: who saw tasks by a label went on seeing those whose label had been replaced.
    let hub = Closed::start().await;
    hub.keys.upkeep(Timestamp::now()).unwrap().iter().for_each(|change| hub.keys.apply(change));
    let mint = |value: &str| {
        let ask = json!({"allow": ["read"], "filter": {"labels": {"project": [value]}}});
        let maker = Arc::new(crate::access::Principal::owner());
        hub.keys.mint(&maker, serde_json::from_value(ask).unwrap(), Timestamp::now()).unwrap().token
    };
    let submit = async |value: &str, title: &str| {
        let new = json!({"task_type": "t", "delay_ms": 60_000, "title": title, "labels": {"project": value},
            "unique": {"key": "k", "on_conflict": "replace"}});
        let new = serde_json::from_value(new).unwrap();
        hub.test.hub.submit_all(vec![new], None).await.unwrap().task_ids[0]
    };
    let (old, new) = (mint("old"), mint("new"));
    let ((mut here, hello), (mut there, _)) = (hub.socket_as(&old).await, hub.socket_as(&new).await);
    here.subscribe(json!({})).await;
    there.subscribe(json!({})).await;
    let task_id = submit("old", "before").await;
    let created = here.event().await;
    assert_eq!((&created["task"]["task_id"], &created["task"]["title"]), (&json!(task_id), &json!("before")));
    assert_eq!(submit("new", "secret").await, task_id);
    let gone = here.event().await;
    assert_eq!((&gone["type"], &gone["task_id"]), (&json!("gone"), &json!(task_id)), "{gone}");
    assert_eq!(there.event().await["task"]["title"], "secret");
    // What becomes of it is none of theirs.
    hub.test.hub.cancel_task(task_id, None).await.unwrap();
    assert_eq!(there.event().await["event"], "task.cancelled");
    let other = submit("old", "another").await;
    let next = here.event().await;
    assert_eq!(next["task"]["task_id"], json!(other), "{next}");
    // Who comes back is told that it is gone, and whoever begins anew is told nothing of it.
    let (mut again, _) = hub.socket_as(&old).await;
    let since = json!({"epoch": hello["epoch"], "rev": created["rev"]});
    again.say(json!({"op": "subscribe", "sub": "a", "since": since})).await;
    let resumed = again.until("mark").await;
    assert_eq!(kinds(&resumed), ["subscribed", "gone", "task", "mark"], "{resumed:?}");
    let (mut fresh, _) = hub.socket_as(&old).await;
    assert_eq!(ids(&fresh.subscribe(json!({})).await), [other.to_string()]);
    let seen = format!("{resumed:?}");
    assert!(!seen.contains("secret"), "{seen}");
}

#[tokio::test]
async fn what_is_taken_back_ends_while_it_is_used() {
    let hub = Closed::start().await;
    let (ann, bob) = (hub.token("ann", Role::User, None), hub.token("bob", Role::User, None));
    let ((mut first, _), (mut other, _)) = (hub.socket_as(&ann).await, hub.socket_as(&bob).await);
    first.subscribe(json!({})).await;
    other.subscribe(json!({})).await;
    hub.revoke("ann");
    loop {
        let line = first.next().await;
        if line["type"] != "mark" {
            assert_eq!(line, json!({"close": 4501}));
            break;
        }
    }
    let of_bob = hub.submit_of("bob").await;
    assert_eq!(other.event().await["task"]["task_id"], json!(of_bob));
}

#[tokio::test]
async fn what_is_over_ends_with_a_code_of_its_own() {
    let hub = Closed::start().await;
    let token = hub.token("ann", Role::User, Some(Timestamp::now().plus_millis(700)));
    let (mut socket, hello) = hub.socket_as(&token).await;
    assert!(hello["expires_at"].is_string(), "{hello}");
    socket.subscribe(json!({})).await;
    loop {
        let line = socket.next().await;
        if line["type"] != "mark" {
            assert_eq!(line, json!({"close": 4004}));
            break;
        }
    }
}

#[tokio::test]
async fn a_token_is_renewed_without_a_gap() {
    let hub = Closed::start().await;
    let soon = Timestamp::now().plus_millis(1_500);
    let (first, next) = (hub.token("ann", Role::User, Some(soon)), hub.token("ann2", Role::Operator, None));
    let renewed = {
        let new = NewApiToken {
            name: "ann3".into(),
            role: Role::User,
            user_id: Some("ann".into()),
            task_types: None,
            queues: None,
            expires_at: None,
        };
        let (record, text) = new.make(Timestamp::now()).unwrap();
        hub.keys.apply(&AccessChange::Put(AccessRecord::ApiToken(record)));
        text
    };
    let (mut socket, _) = hub.socket_as(&first).await;
    socket.subscribe(json!({})).await;
    socket.say(json!({"op": "refresh", "id": 2, "token": "tht_wrong"})).await;
    let refused = socket.event().await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("unauthenticated")));
    socket.say(json!({"op": "refresh", "id": 3, "token": renewed})).await;
    assert_eq!(socket.event().await["type"], "hello");
    // Beyond the end of the first.
    while Timestamp::now() <= soon {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let of_ann = hub.submit_of("ann").await;
    assert_eq!(socket.event().await["task"]["task_id"], json!(of_ann));
    // One of another user ends it.
    socket.say(json!({"op": "refresh", "token": next})).await;
    assert_eq!(socket.event().await, json!({"close": 4501}));
}

#[tokio::test]
async fn a_mark_of_another_sight_is_no_place_to_go_on_from() {
    let hub = Closed::start().await;
    let (ann, bob) = (hub.token("ann", Role::User, None), hub.token("bob", Role::User, None));
    let (of_ann, of_bob) = (hub.submit_of("ann").await, hub.submit_of("bob").await);
    let (mut socket, hello) = hub.socket_as(&ann).await;
    socket.subscribe(json!({})).await;
    let resume = json!({"op": "subscribe", "sub": "a", "since": {"epoch": hello["epoch"], "rev": 2}});
    let (mut again, _) = hub.socket_as(&ann).await;
    again.say(resume.clone()).await;
    let lines = again.until("mark").await;
    assert_eq!((kinds(&lines), &lines[0]["mode"]), (vec!["subscribed", "mark"], &json!("resumed")));
    let (mut other, _) = hub.socket_as(&bob).await;
    other.say(resume).await;
    let lines = other.until("mark").await;
    assert_eq!(kinds(&lines), ["subscribed", "reset", "snapshot", "mark"]);
    assert_eq!((&lines[1]["reason"], ids(&lines)), (&json!("scope"), vec![of_bob.to_string()]));
    assert_ne!(of_ann, of_bob);
}

#[tokio::test]
async fn what_is_hidden_is_in_no_line() {
    // Regression: a socket of such a token was never told anything, and its task never slept.
    let hub = Closed::start().await;
    for change in hub.keys.upkeep(Timestamp::now()).unwrap() {
        hub.keys.apply(&change);
    }
    let maker = hub.keys.authenticate(&hub.token("eve", Role::Operator, None), Timestamp::now()).await.unwrap();
    let ask = json!({"allow": ["read"], "hide": ["result", "logs"]});
    let minted = hub.keys.mint(&maker, serde_json::from_value(ask).unwrap(), Timestamp::now()).unwrap();
    for (n, protocols) in
        [vec![], vec!["taskhub.v1".to_owned(), format!("taskhub.token.{}", minted.token)]].iter().enumerate()
    {
        let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
        let mut socket = hub.test.socket_of(&protocols).await;
        socket.next().await;
        if protocols.is_empty() {
            socket.say(json!({"op": "hello", "token": minted.token})).await;
            assert_eq!(socket.next().await["type"], "hello");
        }
        socket.subscribe(json!({})).await;
        hub.submit_of("ann").await;
        let attempt = hub.test.claim().await;
        let result = Json::of(&json!({"secret": n})).unwrap();
        hub.test.hub.report(attempt.0, attempt.1, Report::Complete { result }).await.unwrap();
        let completed = loop {
            let line = socket.event().await;
            assert!(!line.to_string().contains("secret"), "{line}");
            if line["event"] == "task.completed" {
                break line;
            }
        };
        assert_eq!(completed["task"]["hidden"], json!(["result", "logs"]));
        socket.say(json!({"op": "subscribe", "sub": "l", "filter": {"task_id": [attempt.0]}, "logs": {}})).await;
        assert_eq!(socket.event().await["code"], "forbidden");
    }
}

#[tokio::test]
async fn a_caller_from_whom_parts_are_hidden_is_marked_and_pinged_as_all_are() {
    // Regression: such a socket was told no mark but behind an event, and an idle one was never pinged: it had no place to go on
    // from, and proxies cut it off.
    let ping = Duration::from_millis(400);
    let hub = Closed::with(ping).await;
    for change in hub.keys.upkeep(Timestamp::now()).unwrap() {
        hub.keys.apply(&change);
    }
    let maker = hub.keys.authenticate(&hub.token("eve", Role::Operator, None), Timestamp::now()).await.unwrap();
    let ask = json!({"allow": ["read"], "hide": ["result"], "filter": {"user_id": ["ann"]}});
    let minted = hub.keys.mint(&maker, serde_json::from_value(ask).unwrap(), Timestamp::now()).unwrap();
    let (mut socket, _) = hub.socket_as(&minted.token).await;
    socket.subscribe(json!({})).await;
    hub.submit_of("bob").await;
    let rev = hub.test.hub.rev();
    while socket.next().await != json!({"type": "mark", "rev": rev}) {}
    // One that is not read answers no ping, and is given up.
    tokio::time::sleep(ping * 4).await;
    let last = loop {
        let line = socket.next().await;
        if line["type"] != "mark" {
            break line;
        }
    };
    assert_eq!(last, json!({"close": 4003}));
}

/// What a worker's socket is told first, after this hello.
async fn worker_hello(hub: &Closed, hello: Value) -> Value {
    let url = format!("ws://{}/api/v1/worker/ws", hub.test.address);
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.send(Message::text(hello.to_string())).await.unwrap();
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(text.lines().next().unwrap()).unwrap(),
            Message::Close(frame) => return json!({"close": u16::from(frame.unwrap().code)}),
            _ => {}
        }
    }
}

#[tokio::test]
async fn workers_take_what_their_tokens_are_for() {
    let hub = Closed::start().await;
    let (ann, eve) = (hub.token("ann", Role::User, None), hub.token("eve", Role::Viewer, None));
    let worker = hub.token("w", Role::Worker, None);
    let hello = |token: &str, queue: &str| json!({"op": "hello", "worker_id": format!("w-{}", queue.replace('*', "any")), "queues": [queue], "concurrency": 1, "token": token});
    assert_eq!(worker_hello(&hub, hello(&worker, "default")).await["type"], "welcome");
    assert_eq!(worker_hello(&hub, hello(&eve, "default")).await, json!({"close": 4503}));
    assert_eq!(worker_hello(&hub, hello("tht_x", "default")).await, json!({"close": 4501}));
    assert_eq!(worker_hello(&hub, json!({"op": "hello", "worker_id": "x"})).await, json!({"close": 4501}));
    // A user works on commands of their own, and on nothing else.
    assert_eq!(worker_hello(&hub, hello(&ann, "run.0123")).await["type"], "welcome");
    for queue in ["default", "run.*", "*"] {
        assert_eq!(worker_hello(&hub, hello(&ann, queue)).await, json!({"close": 4503}), "{queue}");
    }
}
