//! The signals that ask a program to end.
//!
//! The first asks for an orderly end; another one insists on an end at once. `SIGHUP` asks but never insists: when a
//! terminal is closed it comes several times (from the shell, then from the kernel) and together with `SIGTERM` (from a
//! session manager), and none of that is somebody in a hurry.
//!
//! `SIGHUP` and `SIGQUIT` that were ignored when the program was started stay ignored: that is what `nohup` asks for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for the signals that ask a program to end.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
    quit: Option<Signal>,
    heard: Heard,
}

impl Signals {
    /// From now on none of them ends the program by itself.
    pub fn listen() -> io::Result<Signals> {
        let unless_ignored = |number| if is_ignored(number) { Ok(None) } else { signal(number.into()).map(Some) };
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: unless_ignored(libc::SIGHUP)?,
            quit: unless_ignored(libc::SIGQUIT)?,
            heard: Heard::default(),
        })
    }

    /// Waits until the program is to end, and answers the signal's number; called again, until it is to end at once.
    pub async fn next(&mut self) -> u8 {
        loop {
            let number = tokio::select! {
                _ = self.interrupt.recv() => libc::SIGINT,
                _ = self.terminate.recv() => libc::SIGTERM,
                () = received(&mut self.hang_up) => libc::SIGHUP,
                () = received(&mut self.quit) => libc::SIGQUIT,
            };
            if self.heard.tells(number) {
                return number as u8;
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: an action of zeroes is a valid value to be overwritten, and with no new action the call only reads.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// What came so far.
#[derive(Debug, Default)]
struct Heard {
    any: bool,
    /// Signals that may insist.
    firm: u32,
}

impl Heard {
    /// Whether this one asks for something new: the first for an end, a second firm one for an end at once.
    fn tells(&mut self, number: i32) -> bool {
        self.firm += u32::from(number != libc::SIGHUP);
        let first = !std::mem::replace(&mut self.any, true);
        first || (number != libc::SIGHUP && self.firm > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_a_terminal_asks_and_does_not_insist() {
        let check = |signals: &[i32], expected: &[bool]| {
            let mut heard = Heard::default();
            let told: Vec<bool> = signals.iter().map(|number| heard.tells(*number)).collect();
            assert_eq!(told, expected, "{signals:?}");
        };
        use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        check(&[SIGINT, SIGINT], &[true, true]);
        check(&[SIGTERM, SIGQUIT], &[true, true]);
        // The shell, the kernel and the session's end, in any order.
        check(&[SIGHUP, SIGHUP, SIGTERM, SIGHUP], &[true, false, false, false]);
        check(&[SIGTERM, SIGHUP, SIGHUP], &[true, false, false]);
        check(&[SIGHUP, SIGTERM, SIGTERM], &[true, false, true]);
    }
}
