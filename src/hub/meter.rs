//! What the feed's shards do, among the numbers of the hub.

use std::time::Duration;

use crate::feed::{Delivered, Meter};
use crate::telemetry::{Delivery, Metrics};

impl Meter for Metrics {
    fn written(&self, delivered: Delivered) {
        let Delivered { transitions, progress, bytes, lags, collapsed } = delivered;
        for (delivery, lines) in [(Delivery::Transition, transitions), (Delivery::Progress, progress)] {
            if lines > 0 {
                self.delivered(delivery, lines, 0);
            }
        }
        if bytes > 0 {
            self.delivered(Delivery::Transition, 0, bytes);
        }
        if lags > 0 {
            self.collapsed(lags, collapsed);
        }
    }

    fn delivered_after(&self, shard: usize, lag: Duration) {
        self.feed_told(shard, lag);
    }
}
