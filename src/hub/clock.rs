//! The machine's clocks, read for the engine's [`Clock`](crate::engine::Clock): the one place of the hub that looks at them.
//!
//! The writer [`look`](Clock::look)s; all others [`now`](Clock::now). A lock orders the readings, since times that are
//! written down must not go back whoever reads them; it is held for some nanoseconds.
//!
//! The monotonic count is the machine's own and not the process's, so that what is written down of it can be read by the next
//! hub, as long as the machine is not started anew.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::engine::{self, Now};
use crate::store::Count;
use crate::task::Timestamp;

pub(super) struct Clock {
    started: Instant,
    /// What the machine's count was then, and of which start of the machine.
    began: Duration,
    boot: u128,
    times: Mutex<engine::Clock>,
}

impl Clock {
    /// `last` is the newest time that the store knows.
    pub(super) fn start(last: Timestamp, lease_ms: u64) -> Clock {
        let (began, boot) = count();
        let times = Mutex::new(engine::Clock::new(last, Timestamp::now(), began.as_millis() as u64, lease_ms));
        Clock { started: Instant::now(), began, boot, times }
    }

    pub(super) fn now(&self) -> Now {
        let mut times = self.times.lock();
        times.read(Timestamp::now(), self.mono())
    }

    /// The time, for the writer.
    pub(super) fn look(&self) -> Now {
        let mut times = self.times.lock();
        times.look(Timestamp::now(), self.mono())
    }

    /// The writer sleeps for at most so long, unless it is woken.
    pub(super) fn sleeps(&self, patience: Duration) {
        self.times.lock().sleeps(patience.as_millis() as u64);
    }

    /// What is written down as so long ago.
    pub(super) fn ago(&self, since: Duration) -> Timestamp {
        self.now();
        self.times.lock().ago(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn mono(&self) -> u64 {
        (self.began + self.started.elapsed()).as_millis() as u64
    }

    /// What the machine's count is.
    pub(super) fn count(&self) -> Count {
        Count { boot: self.boot, mono: self.mono() }
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Reads the count that [`Instant`] goes by, which does not show it, and what names this start of the machine.
fn count() -> (Duration, u128) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`, which `time` is.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    let count = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let boot = boot.and_then(|text| Uuid::parse_str(text.trim()).ok()).filter(|_| answer == 0);
    // Where nothing names this start of the machine, nothing is known to be of it.
    (count, boot.unwrap_or_else(Uuid::now_v7).as_u128())
}
