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

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_slept_through_is_put_off_and_not_for_ever() {
        let wait = Duration::from_secs(2);
        let mut deadline = Deadline::after(wait);
        let mut now = Instant::now();
        assert!(!deadline.is_over(now + Duration::from_millis(1_999)));
        assert!(deadline.is_over(now + Duration::from_millis(2_499)), "a little late is in time");
        for put_off in 0..=PUT_OFFS_MAX {
            now = deadline.at() + Duration::from_secs(60);
            assert_eq!(deadline.is_over(now), put_off == PUT_OFFS_MAX);
            assert!(put_off == PUT_OFFS_MAX || deadline.at() == now + wait);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_while_the_process_was_stopped_is_taken() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(timeout(Duration::from_secs(2), receiver));
        tokio::task::yield_now().await;
        // The timer is over, and what was said is read only after it went off.
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::task::yield_now().await;
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(Ok(7)));
        let begun = Instant::now();
        assert_eq!(timeout(Duration::from_secs(2), std::future::pending::<()>()).await, Err(TooLate));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }
}
