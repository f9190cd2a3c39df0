//! How long a task waits after a failed try.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::bounds::{optional_list, saturated};

/// When the next try follows a failed one.
///
/// Either by a formula, exponential backoff: `min(max_ms, base_ms × factor^(tries - 1))`, less a random part of it
/// (`jitter`); or by a list, `delays_ms`, which is taken as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RetryFields", into = "RetryFields")]
pub struct RetryPolicy {
    /// The longest wait before the second try, in milliseconds.
    pub base_ms: u64,
    /// What the wait is multiplied by after each further try; 1 to 10.
    pub factor: f64,
    /// The wait never grows above this, in milliseconds.
    pub max_ms: u64,
    /// The random part of the wait, 0 (none) to 1 (all of it, "full jitter").
    pub jitter: f64,
    /// Where it is not empty, these waits in milliseconds, one after each failed try, and none of the above counts. The
    /// last one repeats.
    pub delays_ms: Vec<u64>,
}

/// The policy as it is written: what is absent is the default's.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryFields {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    base_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "saturated")]
    max_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "delays")]
    delays_ms: Option<Vec<u64>>,
}

/// One of `delays_ms`. One that is far out of the range is refused with it like one that is just out of it.
struct Delay(u64);

impl<'de> Deserialize<'de> for Delay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Delay, D::Error> {
        saturated(deserializer)?.map(Delay).ok_or_else(|| D::Error::custom("must be a number of milliseconds"))
    }
}

fn delays<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u64>>, D::Error> {
    let delays: Option<Vec<Delay>> = optional_list(deserializer, RetryPolicy::DELAYS_MAX, "delays")?;
    Ok(delays.map(|delays| delays.into_iter().map(|Delay(ms)| ms).collect()))
}

impl TryFrom<RetryFields> for RetryPolicy {
    type Error = &'static str;

    fn try_from(fields: RetryFields) -> Result<RetryPolicy, &'static str> {
        let RetryFields { base_ms, factor, max_ms, jitter, delays_ms } = fields;
        let by_formula = base_ms.is_some() || factor.is_some() || max_ms.is_some() || jitter.is_some();
        match &delays_ms {
            Some(_) if by_formula => return Err("must not have base_ms, factor, max_ms or jitter beside delays_ms"),
            Some(delays) if delays.is_empty() => return Err("must have at least one delay in delays_ms"),
            _ => {}
        }
        let usual = RetryPolicy::default();
        Ok(RetryPolicy {
            base_ms: base_ms.unwrap_or(usual.base_ms),
            factor: factor.unwrap_or(usual.factor),
            max_ms: max_ms.unwrap_or(usual.max_ms),
            jitter: jitter.unwrap_or(usual.jitter),
            delays_ms: delays_ms.unwrap_or_default(),
        })
    }
}

impl From<RetryPolicy> for RetryFields {
    fn from(policy: RetryPolicy) -> RetryFields {
        let RetryPolicy { base_ms, factor, max_ms, jitter, delays_ms } = policy;
        if !delays_ms.is_empty() {
            return RetryFields { delays_ms: Some(delays_ms), ..RetryFields::default() };
        }
        let (base_ms, factor, max_ms, jitter) = (Some(base_ms), Some(factor), Some(max_ms), Some(jitter));
        RetryFields { base_ms, factor, max_ms, jitter, delays_ms: None }
    }
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { base_ms: 1_000, factor: 2.0, max_ms: 300_000, jitter: 1.0, delays_ms: Vec::new() }
    }
}

impl RetryPolicy {
    /// The longest `max_ms`: thirty days.
    pub const MAX_MS_MAX: u64 = 30 * 86_400_000;
    /// The most `delays_ms`.
    pub const DELAYS_MAX: usize = 100;

    /// These waits, one after each failed try; the last one repeats.
    pub fn delays_ms(delays_ms: impl Into<Vec<u64>>) -> RetryPolicy {
        RetryPolicy { delays_ms: delays_ms.into(), ..RetryPolicy::default() }
    }

    /// The wait after the `tries`-th failed try (1 is the first), in milliseconds.
    pub fn delay_ms(&self, tries: u32, random: &mut fastrand::Rng) -> u64 {
        if let Some(last) = self.delays_ms.last() {
            return *self.delays_ms.get(tries.saturating_sub(1) as usize).unwrap_or(last);
        }
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

    #[test]
    fn a_list_is_taken_as_it_stands_and_its_last_repeats() {
        let policy: RetryPolicy = serde_json::from_str(r#"{"delays_ms":[5,0,70]}"#).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let delays = [1, 2, 3, 4, u32::MAX].map(|tries| policy.delay_ms(tries, &mut random));
        assert_eq!(delays, [5, 0, 70, 70, 70]);
        assert_eq!(serde_json::to_string(&policy).unwrap(), r#"{"delays_ms":[5,0,70]}"#);
        for (wrong, why) in [
            (r#"{"delays_ms":[]}"#, "at least one"),
            (r#"{"delays_ms":[1],"base_ms":1}"#, "beside delays_ms"),
            (r#"{"delays_ms":[1],"jitter":0}"#, "beside delays_ms"),
        ] {
            let error = serde_json::from_str::<RetryPolicy>(wrong).unwrap_err().to_string();
            assert!(error.starts_with("must") && error.contains(why), "{wrong}: {error}");
        }
    }
}
