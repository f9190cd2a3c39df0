//! How long a failed try waits for the next.

use serde::{Deserialize, Serialize};

use super::bounds::saturated;

/// Exponential backoff with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "RetryFields")]
pub struct RetryPolicy {
    /// The longest wait before the second try, in milliseconds.
    pub base_ms: u64,
    /// What the wait is multiplied by after each further try; 1 to 10.
    pub factor: f64,
    /// The wait never grows above this, in milliseconds.
    pub max_ms: u64,
    /// The random part of the wait, 0 (none) to 1 (all of it, "full jitter").
    pub jitter: f64,
}

/// The policy as it is read: what is absent is the default's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryFields {
    #[serde(default, deserialize_with = "saturated")]
    base_ms: Option<u64>,
    factor: Option<f64>,
    #[serde(default, deserialize_with = "saturated")]
    max_ms: Option<u64>,
    jitter: Option<f64>,
}

impl From<RetryFields> for RetryPolicy {
    fn from(fields: RetryFields) -> RetryPolicy {
        let usual = RetryPolicy::default();
        RetryPolicy {
            base_ms: fields.base_ms.unwrap_or(usual.base_ms),
            factor: fields.factor.unwrap_or(usual.factor),
            max_ms: fields.max_ms.unwrap_or(usual.max_ms),
            jitter: fields.jitter.unwrap_or(usual.jitter),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { base_ms: 1_000, factor: 2.0, max_ms: 300_000, jitter: 1.0 }
    }
}

impl RetryPolicy {
    /// The longest `max_ms`: thirty days.
    pub const MAX_MS_MAX: u64 = 30 * 86_400_000;

    /// The wait after the `tries`-th failed try (1 is the first), in milliseconds.
    pub fn delay_ms(&self, tries: u32, random: &mut fastrand::Rng) -> u64 {
        let grown = self.base_ms as f64 * self.factor.powi(tries.saturating_sub(1).min(1_000) as i32);
        let ceiling = grown.min(self.max_ms as f64);
        (ceiling * (1.0 - self.jitter * random.f64())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling() {
        let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        let mut random = fastrand::Rng::with_seed(1);
        let delays: Vec<_> = [1, 2, 3, 9, 10, 11, u32::MAX].map(|tries| policy.delay_ms(tries, &mut random)).into();
        assert_eq!(delays, [1_000, 2_000, 4_000, 256_000, 300_000, 300_000, 300_000]);
    }

    #[test]
    fn full_jitter_spreads_over_the_whole_wait() {
        let mut random = fastrand::Rng::with_seed(1);
        let delays: Vec<_> = (0..1_000).map(|_| RetryPolicy::default().delay_ms(1, &mut random)).collect();
        assert!(delays.iter().all(|delay| *delay <= 1_000));
        assert!(delays.iter().any(|delay| *delay < 100) && delays.iter().any(|delay| *delay > 900));
    }
}
