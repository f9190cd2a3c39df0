//! Waits for somebody who is silent, that leave out what this process did not live through.
//!
//! A timer runs on while the process is stopped (Ctrl-Z, `docker pause`, a snapshot of the machine), and when it goes on,
//! the timer may go off before what has arrived in the meantime is read. So a [`Deadline`] that is looked at late is put
//! off: a peer that has spoken is then heard, and one that has not is as silent a moment later. One that is looked at in
//! time is looked at once more a moment later, for it may be in time by chance: the stop ended just then, and the runtime
//! runs its timers before it asks the kernel what can be read. What the hub's engine judges has a clock of its own, with
//! the same idea: `engine/clock.rs`.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// A timer may be so late on a busy machine.
const LATE: Duration = Duration::from_millis(500);
/// For how long a deadline is put off at most; a shorter wait begins anew.
const PUT_OFF_MAX: Duration = Duration::from_secs(5);
/// Between the two looks at a deadline that end a wait.
const HEARING: Duration = Duration::from_millis(100);
/// How often in a row. A machine on which every timer is late is served too.
const PUT_OFFS_MAX: u8 = 4;

/// When a wait is over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    wait: Duration,
    put_offs: u8,
    /// It was over at a look in time; the next one decides.
    is_heard_out: bool,
}

impl Deadline {
    /// So long from now on.
    pub fn after(wait: Duration) -> Deadline {
        Deadline { at: Instant::now() + wait, wait, put_offs: 0, is_heard_out: false }
    }

    /// When to look.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether the wait is over. If not, ask again at the new [`at`](Self::at): each wait is looked at twice, and one that
    /// is looked at late goes on a little.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        if self.put_offs == PUT_OFFS_MAX {
            return true;
        }
        if now >= self.at + LATE {
            self.at = now + self.wait.min(PUT_OFF_MAX);
            self.put_offs += 1;
            self.is_heard_out = false;
            return false;
        }
        let is_over = std::mem::replace(&mut self.is_heard_out, true);
        if !is_over {
            self.at = now + self.wait.min(HEARING);
        }
        is_over
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
        let deadline = || Deadline { at: begun + wait, wait, put_offs: 0, is_heard_out: false };
        assert!(!deadline().is_over(begun + Duration::from_millis(1_999)));
        let mut deadline = deadline();
        for put_off in 0..=PUT_OFFS_MAX {
            let now = deadline.at() + Duration::from_secs(60);
            assert_eq!(deadline.is_over(now), put_off == PUT_OFFS_MAX);
            assert!(put_off == PUT_OFFS_MAX || deadline.at() == now + wait);
        }
    }

    /// Regression: a stop that ended just at the deadline ended the wait, too, with words that could not be read yet.
    #[test]
    fn a_wait_is_over_at_the_second_look_in_time() {
        let mut deadline = Deadline::after(Duration::from_secs(2));
        let first = deadline.at() + Duration::from_millis(499);
        assert!(!deadline.is_over(first), "a little late is in time, and only a first look");
        assert_eq!(deadline.at(), first + HEARING);
        assert!(!deadline.is_over(first + HEARING - Duration::from_millis(1)));
        assert!(deadline.is_over(first + HEARING));
        let mut deadline = Deadline::after(Duration::from_secs(2));
        assert!(!deadline.is_over(deadline.at()));
        assert!(!deadline.is_over(deadline.at() + LATE), "stopped between the two looks");
        assert!(!deadline.is_over(deadline.at()));
        assert!(deadline.is_over(deadline.at()));
    }

    #[tokio::test]
    async fn a_wait_ends_with_what_it_waits_for_or_by_itself() {
        let wait = Duration::from_millis(10);
        assert_eq!(timeout(wait, std::future::ready(7)).await, Ok(7));
        assert_eq!(timeout(wait, std::future::pending::<()>()).await, Err(TooLate));
    }
}
