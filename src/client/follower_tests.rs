//! The follower where a transcript cannot say it: readers that are away, tokens.

use super::*;

const HELLO: &str = r#"{"type":"hello","epoch":"e1","rev":1,"ping_ms":1000}"#;
const ANSWER: &str = r#"{"type":"subscribed","sub":"s1","mode":"snapshot","rev":1}
    {"type":"snapshot","sub":"s1","tasks":[],"more":false} {"type":"mark","rev":1}"#;

fn sent(follower: &mut Follower) -> Vec<String> {
    std::iter::from_fn(|| follower.step())
        .filter_map(|action| if let Action::Send(text) = action { Some(text) } else { None })
        .collect()
}

#[test]
fn a_reader_that_was_away_does_not_take_the_hub_for_deaf() {
    let mut follower = Follower::new(0, || 0.5);
    follower.subscribe(Subscribe::default());
    follower.heard(0, HELLO);
    follower.heard(0, ANSWER);
    // Its marks waited in the socket, behind this.
    follower.awake(1_900);
    follower.heard(1_900, r#"{"type":"lag","collapsed":7}"#);
    follower.awake(60_000);
    follower.heard(60_000, r#"{"type":"lag","collapsed":7}"#);
    assert_eq!(follower.status(), LiveStatus::Live);
    // And now there is none, though it reads.
    for at in [60_900, 61_800] {
        follower.heard(at, r#"{"type":"lag","collapsed":7}"#);
    }
    assert_eq!(follower.status(), LiveStatus::Live);
    follower.heard(62_100, r#"{"type":"lag","collapsed":7}"#);
    assert_eq!(follower.status(), LiveStatus::Offline);
}

#[test]
fn who_only_counts_has_no_marks_to_miss() {
    let mut follower = Follower::new(0, || 0.5);
    follower.subscribe(Subscribe { stats: true, ..Subscribe::default() });
    follower.heard(0, HELLO);
    for second in 1..100 {
        follower.heard(second * 900, r#"{"type":"pong"}"#);
    }
    assert!(follower.greeted_at.is_some());
}

#[test]
fn a_token_that_was_replaced_is_said_at_once_and_with_each_hello() {
    let mut follower = Follower::new(0, || 0.5);
    follower.use_tokens(false);
    let asked = |follower: &mut Follower| {
        std::iter::from_fn(|| follower.step()).filter(|action| matches!(action, Action::Token { anew: false })).count()
    };
    follower.heard(0, HELLO);
    assert_eq!(asked(&mut follower), 1);
    follower.token(0, "old".into(), None);
    assert_eq!(sent(&mut follower), [r#"{"op":"hello","id":1,"token":"old"}"#]);
    follower.renew_token();
    assert_eq!(asked(&mut follower), 0, "nobody is known yet");
    follower.heard(0, &HELLO.replace("}", r#","id":1}"#));
    follower.renew_token();
    follower.renew_token();
    assert_eq!(asked(&mut follower), 1);
    follower.token(0, "new".into(), None);
    assert_eq!(sent(&mut follower), [r#"{"op":"refresh","id":2,"token":"new"}"#]);
    follower.lost(10, Some(4004), "");
    follower.tick(1_000);
    follower.heard(1_000, HELLO);
    assert_eq!(asked(&mut follower), 1);
    follower.token(1_000, "new".into(), None);
    assert_eq!(sent(&mut follower), [r#"{"op":"hello","id":3,"token":"new"}"#]);
    // There is no other, so a refusal is the end.
    follower.lost(1_001, Some(4501), "");
    assert_eq!(follower.status(), LiveStatus::Refused);
}

#[test]
fn no_token_is_shown() {
    let mut follower = Follower::new(0, || 0.5);
    follower.use_tokens(false);
    follower.heard(0, HELLO);
    follower.token(0, "tht_secret".into(), None);
    let actions: Vec<_> = std::iter::from_fn(|| follower.step()).collect();
    let op = LiveOp { op: "hello".into(), token: Some("tht_secret".into()), ..LiveOp::default() };
    let shown = format!("{follower:?} {actions:?} {op:?}");
    assert!(!shown.contains("secret"), "{shown}");
}
