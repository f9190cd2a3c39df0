//! Who a worker says it is, and what it does where the hub does not believe it.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// `t1`, `t2`, …, each when one is asked for; or the same as signed tokens that live this long.
fn counted(life: Option<Duration>) -> Token {
    let calls = AtomicU64::new(0);
    Token::fetched(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let text = match life {
            None => format!("t{call}"),
            Some(life) => {
                let claims = json!({"exp": (now + life).as_secs_f64()}).to_string();
                format!("t{call}.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
            }
        };
        async move { Ok::<_, TaskFailure>(text) }
    })
}

fn idle(hub: &Hub, token: impl Into<Token>) -> Worker {
    hub.worker().token(token).register("t", |_| async { Ok::<_, TaskFailure>(()) })
}

#[tokio::test]
async fn a_token_that_the_hub_does_not_take_is_fetched_anew_once() {
    let hub = Hub::new().await;
    let working = work(idle(&hub, counted(None)));
    let (line, hello) = hub.accept().await;
    assert_eq!(hello["token"], "t1");
    line.close(4501).await;
    let (mut line, hello) = hub.accept().await;
    assert_eq!(hello["token"], "t2");
    line.say(json!({"type": "welcome", "lease_ms": NEVER_MS, "heartbeat_ms": NEVER_MS, "keep": [], "drop": []})).await;
    // It was good once; so is the next.
    line.close(4501).await;
    let (line, hello) = hub.accept().await;
    assert_eq!((&hello["token"], &hello["holding"]), (&json!("t3"), &json!([])));
    line.close(4501).await;
    let why = working.done().await.unwrap_err();
    assert_eq!(why, WorkerError::Refused { code: Some(4501), reason: String::new() });
}

#[tokio::test]
async fn a_token_that_expired_is_not_said_again() {
    let hub = Hub::new().await;
    let mut working = work(idle(&hub, counted(None)));
    hub.welcome().await.close(4004).await;
    let (line, hello) = hub.accept().await;
    assert_eq!(hello["token"], "t2");
    working.stop();
    line.close(1006).await;
    working.done().await.unwrap();
}

#[tokio::test]
async fn a_fixed_token_that_is_refused_is_the_end() {
    let hub = Hub::new().await;
    let working = work(idle(&hub, "t1"));
    let (line, hello) = hub.accept().await;
    assert_eq!(hello["token"], "t1");
    line.close(4501).await;
    let why = working.done().await.unwrap_err();
    assert!(matches!(why, WorkerError::Refused { code: Some(4501), .. }), "{why}");
    let why = work(idle(&hub, "no token at all")).done().await.unwrap_err();
    assert!(matches!(why, WorkerError::Refused { code: None, .. }), "{why}");
}

#[tokio::test]
async fn a_token_is_replaced_on_the_open_connection_before_it_expires() {
    let hub = Hub::new().await;
    let (started, mut running) = tokio::sync::mpsc::channel(1);
    let worker = hub.worker().token(counted(Some(Duration::from_millis(1_500)))).register("t", move |ctx: Context| {
        let started = started.clone();
        async move {
            started.send(()).await.unwrap();
            ctx.cancelled().await;
            Ok::<_, TaskFailure>(())
        }
    });
    let mut working = work(worker);
    let mut line = hub.welcome().await;
    line.run(ID_1, 1, json!(null)).await;
    running.recv().await.unwrap();
    let refresh = line.until("refresh").await;
    assert!(refresh["token"].as_str().unwrap().starts_with("t2."), "{refresh}");
    // What runs has not heard of it.
    line.cancel(ID_1, "enough").await;
    line.until("complete").await;
    line.ack(ID_1, 1).await;
    working.stop();
    working.done().await.unwrap();
}

#[test]
fn no_token_is_shown() {
    let worker = Worker::new("http://hub").token("tht_secret");
    let hello = WorkerHello { token: Some("tht_secret".into()), ..WorkerHello::default() };
    let shown = format!("{worker:?} {hello:?} {:?}", crate::wire::WorkerOp::Hello(hello.clone()));
    assert!(!shown.contains("secret"), "{shown}");
}
