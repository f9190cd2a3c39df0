//! Who guesses is answered later and later.
//!
//! A secret of 256 bits is not found by trying. But who tries costs work and log lines, and a JWT's secret may be worse than it
//! should be. So each wrong credential of an address puts the address's next refusal off, and refusals of one address stand in line: many
//! connections guess no faster than one. Only refusals wait. A right credential from the same address, which may be that
//! of a whole company, is answered at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many wrong ones of an address are answered at once: people mistype, and pages try again with what has ended.
pub const GUESSES_FREE: u32 = 5;
/// What the first one after these waits. It doubles with each.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest that a refusal waits.
pub const GUESS_WAIT_MAX: Duration = Duration::from_secs(5);
/// After so long without a wrong one an address is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// The most addresses that are remembered. One more makes the one forgotten that has been quiet for longest.
const ADDRESSES_MAX: usize = 10_000;

/// The addresses that wrong credentials came from.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    addresses: Mutex<HashMap<IpAddr, Wrong>>,
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Instant,
    /// When the last of its refusals is answered.
    answered: Instant,
}

impl Guesses {
    /// Counts a wrong credential. For how long its refusal is to wait.
    pub(super) fn wrong(&self, address: IpAddr, now: Instant) -> Duration {
        let address = network(address);
        let mut addresses = self.addresses.lock();
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            make_room(&mut addresses, now);
        }
        let wrong = addresses.entry(address).or_insert(Wrong { count: 0, last: now, answered: now });
        if now.saturating_duration_since(wrong.last) >= FORGET {
            wrong.count = 0;
        }
        wrong.last = now;
        wrong.count = wrong.count.saturating_add(1);
        let Some(doublings) = wrong.count.checked_sub(GUESSES_FREE + 1) else { return Duration::ZERO };
        let wait = WAIT_FIRST.saturating_mul(1 << doublings.min(16)).min(GUESS_WAIT_MAX);
        wrong.answered = (wrong.answered.max(now) + wait).min(now + GUESS_WAIT_MAX);
        wrong.answered.saturating_duration_since(now)
    }
}

/// Looks at all, and forgets those that are quiet, but at least one in eight: so it is done once in as many.
fn make_room(addresses: &mut HashMap<IpAddr, Wrong>, now: Instant) {
    addresses.retain(|_, wrong| now.saturating_duration_since(wrong.last) < FORGET);
    if addresses.len() < ADDRESSES_MAX {
        return;
    }
    let mut lasts: Vec<Instant> = addresses.values().map(|wrong| wrong.last).collect();
    let (_, median, _) = lasts.select_nth_unstable(ADDRESSES_MAX / 8);
    let oldest = *median;
    addresses.retain(|_, wrong| wrong.last > oldest);
}

/// One who has IPv6 has a network of it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_one_waits_longer_up_to_a_bound() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        let address = "10.0.0.1".parse().unwrap();
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..14 {
            let wait = guesses.wrong(address, now);
            waits.push(wait.as_millis());
            now += wait;
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        assert_eq!(guesses.wrong("10.0.0.2".parse().unwrap(), now), Duration::ZERO, "another one");
        assert_eq!(guesses.wrong(address, now + FORGET), Duration::ZERO, "forgotten");
    }

    #[test]
    fn those_at_once_stand_in_line_and_a_network_is_one() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let address = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, host]);
        let waits: Vec<_> = (0..9).map(|host| guesses.wrong(address(host), now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 300, 700, 1_500]);
    }

    #[test]
    fn many_addresses_are_not_remembered_without_end() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let known: IpAddr = "10.9.9.9".parse().unwrap();
        for n in 0..ADDRESSES_MAX as u32 * 3 {
            let now = now + Duration::from_micros(n.into());
            guesses.wrong(IpAddr::V4(n.into()), now);
            if n % 1_000 == 0 {
                guesses.wrong(known, now);
            }
        }
        let addresses = guesses.addresses.lock();
        assert!(addresses.len() <= ADDRESSES_MAX && addresses.contains_key(&known));
    }
}
