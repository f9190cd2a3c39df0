//! What the fuzz targets check (`make fuzz`), tried on their corpus and on made-up input.

use std::path::Path;

use proptest::prelude::*;
use taskhub::feed::{FrameHead, Opcode};
use taskhub::http::inside::Heard;

#[path = "../fuzz/checks/auth_config.rs"]
mod auth_config;
#[path = "../fuzz/checks/claims.rs"]
mod claims;
#[path = "../fuzz/checks/filter_json.rs"]
mod filter_json;
#[path = "../fuzz/checks/filter_query.rs"]
mod filter_query;
#[path = "../fuzz/checks/inbound.rs"]
mod inbound;
#[path = "../fuzz/checks/submission.rs"]
mod submission;
#[path = "../fuzz/checks/token.rs"]
mod token;

/// Checks every file of a target's corpus. What once failed is kept there.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("an entry").path();
        // Shown when the check fails.
        println!("{}", path.display());
        check(&std::fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 10, "the corpus in {} was not found", folder.display());
}

#[test]
fn the_corpus_of_inbound() {
    replay("inbound", inbound::check);
}

#[test]
fn the_corpus_of_filter_json() {
    replay("filter_json", filter_json::check);
}

#[test]
fn the_corpus_of_filter_query() {
    replay("filter_query", filter_query::check);
}

#[test]
fn the_corpus_of_submission() {
    replay("submission", submission::check);
}

#[test]
fn the_corpus_of_token() {
    replay("token", token::check);
}

#[test]
fn the_corpus_of_claims() {
    replay("claims", claims::check);
}

#[test]
fn the_corpus_of_auth_config() {
    replay("auth_config", auth_config::check);
}

/// A client's frame.
fn frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = FrameHead::new(Opcode::Text, payload.len()).to_vec();
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A message with the places where it is cut into frames, or a control frame.
#[derive(Clone, Debug)]
struct Say {
    heard: Heard,
    cuts: Vec<prop::sample::Index>,
    /// Control frames that stand before each frame but the first.
    between: Vec<Option<Vec<u8>>>,
    key: [u8; 4],
}

const MESSAGE_BYTES_MAX: usize = 70_000;

fn say() -> impl Strategy<Value = Say> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let heard = prop_oneof![
        4 => "\\PC{0,50}".prop_map(Heard::Text),
        1 => "[aä€😀]{0,17000}".prop_map(Heard::Text),
        2 => bytes(300).prop_map(Heard::Binary),
        1 => (65_530..MESSAGE_BYTES_MAX).prop_map(|len| Heard::Binary(vec![7; len])),
        1 => bytes(126).prop_map(|payload| Heard::Ping(payload.into())),
        1 => Just(Heard::Pong),
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    let between = prop::collection::vec(prop::option::of(bytes(126)), 6);
    (heard, cuts, between, any::<[u8; 4]>()).prop_map(|(heard, cuts, between, key)| Say { heard, cuts, between, key })
}

/// What goes over the wire, and what is to be heard.
fn said(says: &[Say], close: Option<u16>) -> (Vec<u8>, Vec<Heard>) {
    let (mut wire, mut heard) = (Vec::new(), Vec::new());
    for say in says {
        let (first, payload) = match &say.heard {
            Heard::Text(text) => (1, text.as_bytes()),
            Heard::Binary(bytes) => (2, &bytes[..]),
            Heard::Ping(payload) => {
                wire.extend(frame(0x89, payload, say.key));
                heard.push(say.heard.clone());
                continue;
            }
            _ => {
                wire.extend(frame(0x8A, b"any", say.key));
                heard.push(Heard::Pong);
                continue;
            }
        };
        let mut cuts: Vec<usize> = say.cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut opcode, mut from) = (first, 0);
        for (cut, between) in cuts.into_iter().zip(&say.between) {
            wire.extend(frame(opcode, &payload[from..cut], say.key));
            (opcode, from) = (0, cut);
            if let Some(ping) = between {
                wire.extend(frame(0x89, ping, say.key));
                heard.push(Heard::Ping(ping.clone().into()));
            }
        }
        wire.extend(frame(0x80 | opcode, &payload[from..], say.key));
        heard.push(say.heard.clone());
    }
    if let Some(code) = close {
        wire.extend(frame(0x88, &[&code.to_be_bytes(), "tschüß".as_bytes()].concat(), [1, 2, 3, 4]));
        heard.push(Heard::Close(Some(code)));
    }
    (wire, heard)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_heard_however_it_is_cut(
        says in prop::collection::vec(say(), 0..6),
        close in prop::option::of(prop_oneof![1000u16..=1003, 1007u16..=1014, 3000u16..=4999]),
        lens in prop::collection::vec(1..2_000usize, 1..50),
        seed: u8,
    ) {
        let (wire, heard) = said(&says, close);
        let mut lens = lens.iter().copied().cycle();
        let outcome = inbound::hear(&wire, MESSAGE_BYTES_MAX, || lens.next().expect("for ever"));
        prop_assert_eq!(outcome.broken, None);
        prop_assert!(outcome.heard == heard);
        inbound::check_stream(&wire, MESSAGE_BYTES_MAX, seed);
    }

    #[test]
    fn what_was_damaged_on_its_way_is_heard_alike(
        says in prop::collection::vec(say(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        max in prop_oneof![Just(200), Just(MESSAGE_BYTES_MAX)],
        seed: u8,
    ) {
        let (mut wire, _) = said(&says, None);
        for (at, byte) in damage {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        inbound::check_stream(&wire, max, seed);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        inbound::check(&bytes);
        filter_query::check(&bytes);
        filter_json::check(&bytes);
        token::check(&bytes);
        claims::check(&bytes);
        auth_config::check(&bytes);
    }
}
