//! Waits for somebody who is silent, that leave out what this process did not live through.
//!
//! A timer runs on while the process is stopped (Ctrl-Z, `docker pause`, a snapshot of the machine), and when it goes on,
//! the timer may go off before what has arrived in the meantime is read. So a [`Deadline`] that is looked at late is put
//! off: whoever has spoken is then heard, and whoever has not is as silent a moment later. What the hub's engine judges
//! has a clock of its own, with the same idea: `engine/clock.rs`.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// A timer may be so late on a busy machine.
const LATE: Duration = Duration::from_millis(500);
/// For how long a deadline is put off at most; a shorter wait begins anew.
const PUT_OFF_MAX: Duration = Duration::from_secs(5);
/// How often in a row. A machine on which every timer is late is served too.
const PUT_OFFS_MAX: u8 = 4;

/// When a wait is over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    wait: Duration,
    put_offs: u8,
}

impl Deadline {
    /// So long from now on.
    pub fn after(wait: Duration) -> Deadline {
        Deadline { at: Instant::now() + wait, wait, put_offs: 0 }
    }

    /// When to look.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether the wait is over. One that is looked at late goes on a little: ask again at the new [`at`](Self::at).
    pub fn is_over(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        if now < self.at + LATE || self.put_offs == PUT_OFFS_MAX {
            return true;
        }
        self.at = now + self.wait.min(PUT_OFF_MAX);
        self.put_offs += 1;
        false
    }
}

/// Sleeps for so long.
pub async fn sleep(wait: Duration) {
    let mut deadline = Deadline::after(wait);
    loop {
        tokio::time::sleep_until(deadline.at()).await;
        if deadline.is_over(Instant::now()) {
            return;
        }
    }
}

/// It did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

/// Waits for so long for `future`.
pub async fn timeout<F: Future>(wait: Duration, future: F) -> Result<F::Output, TooLate> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = sleep(wait) => Err(TooLate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: timers went off before what had arrived while the process was stopped was read.
    #[test]
    fn a_deadline_that_was_slept_through_is_put_off_and_not_for_ever() {
        let wait = Duration::from_secs(2);
        let begun = Instant::now();
        let deadline = || Deadline { at: begun + wait, wait, put_offs: 0 };
        assert!(!deadline().is_over(begun + Duration::from_millis(1_999)));
        assert!(deadline().is_over(begun + Duration::from_millis(2_499)), "a little late is in time");
        let mut deadline = deadline();
        for put_off in 0..=PUT_OFFS_MAX {
            let now = deadline.at() + Duration::from_secs(60);
            assert_eq!(deadline.is_over(now), put_off == PUT_OFFS_MAX);
            assert!(put_off == PUT_OFFS_MAX || deadline.at() == now + wait);
        }
    }

    #[tokio::test]
    async fn a_wait_ends_with_what_it_waits_for_or_by_itself() {
        let wait = Duration::from_millis(10);
        assert_eq!(timeout(wait, std::future::ready(7)).await, Ok(7));
        assert_eq!(timeout(wait, std::future::pending::<()>()).await, Err(TooLate));
    }
}
