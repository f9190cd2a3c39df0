//! The machine's clocks, read for the engine's [`Clock`](crate::engine::Clock): the one place of the hub that looks at them.
//!
//! The writer [`look`](Clock::look)s; all others [`now`](Clock::now). A lock orders the readings, since times that are
//! written down must not go back whoever reads them; it is held for some nanoseconds.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::{self, Now};
use crate::task::Timestamp;

pub(super) struct Clock {
    started: Instant,
    times: Mutex<engine::Clock>,
}

impl Clock {
    /// `last` is the newest time that the store knows.
    pub(super) fn start(last: Timestamp, lease_ms: u64) -> Clock {
        Clock { started: Instant::now(), times: Mutex::new(engine::Clock::new(last, Timestamp::now(), 0, lease_ms)) }
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
        self.started.elapsed().as_millis() as u64
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
