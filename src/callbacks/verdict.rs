//! What follows from a try.
//!
//! Waits grow from a second to an hour, each less a random part of up to half of it, so that receivers that were away are
//! not met by all at once. A delivery is given up once it has waited for a day in all. What counts are the waits as they were
//! meant: a hub that was down, or a clock that was set, takes no chance from a receiver.

use std::time::Duration;

use fastrand::Rng;

use crate::task::{DeliveryState, DeliveryStatus, RetryPolicy, Timestamp};

use super::client::Miss;

/// How long a delivery is tried unless said otherwise.
pub const FOR: Duration = Duration::from_secs(86_400);
/// No wait is longer, whatever a receiver asks for.
const WAIT_MS_MAX: u64 = 3_600_000;

/// How a try went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Arrived,
    /// It is tried again after so many milliseconds.
    Again(DeliveryState, u64),
    GivenUp(DeliveryState),
}

/// What follows from a try of a delivery that stood like this before. It is given up once it has waited for `patience` in all.
pub fn verdict(
    before: &DeliveryState,
    tried: Result<(), &Miss>,
    patience: Duration,
    now: Timestamp,
    random: &mut Rng,
) -> Verdict {
    let Err(miss) = tried else { return Verdict::Arrived };
    let mut state = DeliveryState {
        status: DeliveryStatus::Pending,
        tries: before.tries.saturating_add(1),
        waited_ms: before.waited_ms,
        tried_at: Some(now),
        next_at: None,
        error: Some(miss.to_string().into()),
    };
    let left_ms = (patience.as_millis() as u64).saturating_sub(before.waited_ms);
    if left_ms == 0 || miss.is_last() {
        state.status = DeliveryStatus::Failed;
        return Verdict::GivenUp(state);
    }
    let waits = RetryPolicy { base_ms: 1_000, factor: 2.0, max_ms: WAIT_MS_MAX, jitter: 0.5, delays_ms: Vec::new() };
    let asked_ms = miss.retry_after().map_or(0, |asked| asked.as_secs().saturating_mul(1_000)).min(WAIT_MS_MAX);
    // The last try is made at the end of the time, not after it.
    let wait_ms = waits.delay_ms(state.tries, random).max(asked_ms).clamp(1, left_ms);
    state.waited_ms += wait_ms;
    state.next_at = Some(now.plus_millis(wait_ms));
    Verdict::Again(state, wait_ms)
}

/// A delivery that was given up begins anew; how often it was tried is still known.
pub fn first_try(before: &DeliveryState) -> DeliveryState {
    DeliveryState { status: DeliveryStatus::Pending, waited_ms: 0, next_at: None, ..before.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    fn answered(status: u16, retry_after: Option<u64>) -> Miss {
        Miss::Answered {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_receiver_that_is_away_is_tried_for_a_day_and_then_given_up() {
        for seed in 0..50 {
            let mut random = Rng::with_seed(seed);
            let (mut now, mut state, mut waits) = (Timestamp::from_millis(0), DeliveryState::default(), Vec::new());
            loop {
                match verdict(&state, Err(&answered(500, None)), FOR, now, &mut random) {
                    Verdict::Again(next, wait_ms) => {
                        assert_eq!(next.next_at, Some(now.plus_millis(wait_ms)));
                        waits.push(wait_ms);
                        (state, now) = (next, now.plus_millis(wait_ms));
                    }
                    Verdict::GivenUp(last) => {
                        assert_eq!(now, Timestamp::from_millis(86_400_000), "the last try is at the end of the day");
                        assert_eq!(last.tries as usize, waits.len() + 1);
                        assert_eq!((last.status, last.next_at), (DeliveryStatus::Failed, None));
                        assert_eq!(last.error.as_deref(), Some("answered 500"));
                        break;
                    }
                    Verdict::Arrived => panic!("it did not"),
                }
            }
            assert!((500..=1_000).contains(&waits[0]) && (1_000..=2_000).contains(&waits[1]), "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= WAIT_MS_MAX) && (35..=60).contains(&waits.len()), "{waits:?}");
        }
    }

    #[test]
    fn a_receiver_says_when_to_come_back_and_that_it_wants_no_more() {
        let check = |miss: Miss, waits: std::ops::RangeInclusive<u64>| {
            let it = verdict(&DeliveryState::default(), Err(&miss), FOR, Timestamp::default(), &mut Rng::with_seed(1));
            assert!(matches!(it, Verdict::Again(_, wait) if waits.contains(&wait)), "{miss:?}: {it:?}");
        };
        check(answered(503, Some(120)), 120_000..=120_000);
        check(answered(429, Some(0)), 500..=1_000);
        check(answered(429, Some(u64::MAX / 1_000)), 3_600_000..=3_600_000);
        check(Miss::Unanswered("no answer".into()), 500..=1_000);
        check(Miss::Refused("private".into()), 500..=1_000);
        let gone = verdict(
            &DeliveryState::default(),
            Err(&answered(410, None)),
            FOR,
            Timestamp::default(),
            &mut Rng::with_seed(1),
        );
        assert!(matches!(gone, Verdict::GivenUp(state) if state.tries == 1));
    }

    #[test]
    fn by_hand_a_day_begins_anew() {
        let failed = DeliveryState {
            status: DeliveryStatus::Failed,
            tries: 40,
            waited_ms: 86_400_000,
            ..DeliveryState::default()
        };
        let again = first_try(&failed);
        assert_eq!((again.status, again.tries, again.waited_ms), (DeliveryStatus::Pending, 40, 0));
    }
}
