//! Each bound of a live client: just at it all is well, and just beyond it is not.

use super::*;

fn ping_of(len: usize) -> String {
    let ping = r#"{"op":"ping"}"#;
    format!("{ping}{}", " ".repeat(len - ping.len()))
}

#[tokio::test]
async fn a_message_of_just_the_limit_passes() {
    for message_bytes_max in [125, 126, 4_096, 65_535, 65_536] {
        let test = TestHub::limited(LiveLimits { message_bytes_max, ..LiveLimits::default() }).await;
        let mut socket = test.socket().await;
        socket.say_text(ping_of(message_bytes_max)).await;
        assert_eq!(socket.event().await, json!({"type": "pong"}), "{message_bytes_max}");
        socket.say_text(ping_of(message_bytes_max + 1)).await;
        assert_eq!(socket.event().await, json!({"close": 1009}), "{message_bytes_max}");
    }
}

#[tokio::test]
async fn subscriptions_and_filters_are_bounded() {
    let live = LiveLimits { subscriptions_max: 3, filter_values_max: 4, ..LiveLimits::default() };
    let test = TestHub::limited(live).await;
    let mut socket = test.socket().await;
    let subscribe = |sub: &str, values: usize| {
        let queues: Vec<String> = (0..values).map(|n| format!("q{n}")).collect();
        json!({"op": "subscribe", "sub": sub, "filter": {"queue": queues}})
    };
    for sub in ["a", "b", "c"] {
        socket.say(subscribe(sub, 4)).await;
        assert_eq!(socket.until("mark").await[0]["type"], "subscribed", "as many as may be");
    }
    socket.say(subscribe("d", 4)).await;
    let error = socket.event().await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("limit_exceeded")), "one too many");
    socket.say(subscribe("c", 4)).await;
    assert_eq!(socket.until("mark").await[0]["type"], "subscribed", "in place of another");
    socket.say(subscribe("c", 5)).await;
    assert_eq!(socket.event().await["code"], "limit_exceeded", "one value too many");
    socket.say(json!({"op": "unsubscribe", "sub": "a"})).await;
    assert_eq!(socket.event().await["type"], "unsubscribed");
    socket.say(subscribe("d", 1)).await;
    assert_eq!(socket.until("mark").await[0]["type"], "subscribed", "there is room again");
}

#[tokio::test]
async fn one_caller_has_only_so_many_clients() {
    let test = TestHub::limited(LiveLimits { per_caller_max: 2, ..LiveLimits::default() }).await;
    let events = format!("http://{}/api/v1/events", test.address);
    let first = test.socket().await;
    let stream = reqwest::get(&events).await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(test.socket_of(&[]).await.next().await, json!({"close": 4504}));
    let full = reqwest::get(&events).await.unwrap();
    assert_eq!(full.status(), 200, "a browser never comes back after another");
    assert!(full.text().await.unwrap().contains("event: bye\ndata: {\"type\":\"bye\",\"code\":4504,"));
    drop(first);
    is_let_in(&test).await;
    drop(stream);
    is_let_in(&test).await;
}

#[tokio::test]
async fn the_hub_has_only_so_many_sockets() {
    let config = ServeConfig { sockets_max: 2, ..ServeConfig::for_trial() };
    let test = TestHub::with_config(config, LiveLimits::default(), FeedOptions::default().ping).await;
    let (first, _second) = (test.socket().await, test.socket().await);
    assert_eq!(test.socket_of(&[]).await.next().await, json!({"close": 4006}));
    drop(first);
    is_let_in(&test).await;
}

/// A client is let in once the one that left has been noticed.
async fn is_let_in(test: &TestHub) {
    let knocking = async {
        loop {
            let word = test.socket_of(&[]).await.next().await;
            if word["type"] == "hello" {
                break;
            }
            assert!(word["close"] == 4504 || word["close"] == 4006, "{word}");
        }
    };
    tokio::time::timeout(PATIENCE, knocking).await.expect("there is room again");
}

#[tokio::test]
async fn who_says_too_much_is_closed() {
    let test = TestHub::limited(LiveLimits { messages_per_s_max: 5, ..LiveLimits::default() }).await;
    let mut socket = test.socket().await;
    for _ in 0..5 {
        socket.socket.feed(Message::text(ping_of(20))).await.unwrap();
    }
    socket.socket.flush().await.unwrap();
    for _ in 0..5 {
        assert_eq!(socket.event().await["type"], "pong", "so many at once are no flood");
    }
    // Control frames count as well. Some may have been earned in the meantime, but not so many.
    for _ in 0..200 {
        socket.socket.feed(Message::Ping(Vec::new().into())).await.unwrap();
    }
    socket.socket.flush().await.unwrap();
    assert_eq!(socket.event().await, json!({"close": 4005}));
}

#[tokio::test]
async fn who_never_says_a_word_is_closed() {
    let test = TestHub::limited(LiveLimits { hello_time: Duration::from_millis(200), ..LiveLimits::default() }).await;
    let (mut silent, mut hums) = (test.socket().await, test.socket().await);
    let mut talks = test.socket().await;
    talks.say(json!({"op": "ping"})).await;
    assert_eq!(talks.event().await["type"], "pong");
    // A frame that asks for nothing is no word.
    hums.socket.send(Message::Pong(Vec::new().into())).await.unwrap();
    assert_eq!(silent.event().await, json!({"close": 4003}));
    assert_eq!(hums.event().await, json!({"close": 4003}));
    talks.say(json!({"op": "ping"})).await;
    assert_eq!(talks.event().await["type"], "pong", "whoever has said something stays");
}
