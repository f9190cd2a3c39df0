//! One progress tick: what a running task says of itself.

use serde::{Deserialize, Serialize, Serializer};

use super::bounds::or_default;
use super::new_task::{Invalid, InvalidKind};
use super::{Json, JsonError};

/// The largest tick, in bytes of its JSON text.
pub const PROGRESS_BYTES_MAX: usize = 8 << 10;

/// How far a task is. Every part is optional, and a tick replaces the one before it whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// 0–100. Derived from `current` and `total` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "short_number")]
    pub percentage: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "short_number")]
    pub current: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "short_number")]
    pub total: Option<f64>,
    /// The name of the step it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Anything more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// The hub's estimate of the time left, in milliseconds. What a worker says here is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
}

/// How the items handled so far ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counters {
    #[serde(deserialize_with = "or_default")]
    pub success: u64,
    #[serde(deserialize_with = "or_default")]
    pub failed: u64,
    #[serde(deserialize_with = "or_default")]
    pub skipped: u64,
}

impl Progress {
    /// A tick of `current` out of `total`.
    pub fn of(current: u64, total: u64) -> Progress {
        Progress { current: Some(current as f64), total: Some(total as f64), ..Progress::default() }
    }

    /// A tick of this percentage.
    pub fn percent(percentage: f64) -> Progress {
        Progress { percentage: Some(percentage), ..Progress::default() }
    }

    /// The tick with a message for people.
    pub fn message(mut self, message: impl Into<String>) -> Progress {
        self.message = Some(message.into());
        self
    }

    /// Checks the bounds, that of the whole text too, and derives `percentage` from `current` and `total` where it is absent.
    pub fn checked(mut self) -> Result<Progress, Invalid> {
        for (field, number) in [("current", self.current), ("total", self.total)] {
            if number.is_some_and(|n| !n.is_finite() || n < 0.0) {
                return Err(Invalid::value(format!("progress.{field}"), "must be a number from 0 up"));
            }
        }
        if self.percentage.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
            return Err(Invalid::value("progress.percentage", "must be from 0 to 100"));
        }
        if let Some(details) = &self.details {
            details.check(PROGRESS_BYTES_MAX).map_err(|refusal| match refusal {
                JsonError::TooLarge { .. } => too_large(),
                other => Invalid::value("progress.details", other.to_string()),
            })?;
        }
        if self.percentage.is_none()
            && let (Some(current), Some(total)) = (self.current, self.total)
            && total > 0.0
        {
            self.percentage = Some(((current / total).min(1.0) * 1_000.0).round() / 10.0);
        }
        self.eta_ms = None;
        // Most ticks are far too small to be worth encoding for this. A character takes six bytes at most, as `\u0001`,
        // and everything that is no text stands in less than the rest.
        const REST: usize = 512;
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| 6 * text.len());
        let longest = text(&self.step) + text(&self.message) + self.details.as_ref().map_or(0, Json::len) + REST;
        if longest > PROGRESS_BYTES_MAX {
            self.encode()?;
        }
        Ok(self)
    }

    /// The JSON text of the tick, refused over [`PROGRESS_BYTES_MAX`].
    pub fn encode(&self) -> Result<Json, Invalid> {
        let json = Json::of(self).map_err(|error| Invalid::value("progress", error.to_string()))?;
        if json.len() > PROGRESS_BYTES_MAX { Err(too_large()) } else { Ok(json) }
    }
}

fn too_large() -> Invalid {
    Invalid {
        kind: InvalidKind::Limit(PROGRESS_BYTES_MAX as u64),
        field: "progress".into(),
        detail: format!("is larger than {PROGRESS_BYTES_MAX} bytes of JSON text"),
    }
}

/// Writes 40, not 40.0.
fn short_number<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match *number {
        Some(n) if n.fract() == 0.0 && n.abs() < EXACT => serializer.serialize_i64(n as i64),
        Some(n) => serializer.serialize_f64(n),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, expected: Result<&str, &str>) {
        let progress: Progress = serde_json::from_str(given).unwrap();
        let got = progress.checked().and_then(|p| p.encode()).map(|json| json.as_str().to_owned());
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(invalid), Err(field)) => assert_eq!(invalid.field, field),
            (got, expected) => panic!("{given}: expected {expected:?}, got {got:?}"),
        }
    }

    #[test]
    fn percentage_is_derived_and_bounds_hold() {
        check(r#"{"current":3,"total":8}"#, Ok(r#"{"percentage":37.5,"current":3,"total":8}"#));
        check(r#"{"current":9,"total":8}"#, Ok(r#"{"percentage":100,"current":9,"total":8}"#));
        check(r#"{"current":0,"total":0}"#, Ok(r#"{"current":0,"total":0}"#));
        check(r#"{"percentage":12.25,"eta_ms":5}"#, Ok(r#"{"percentage":12.25}"#));
        check(r#"{"percentage":100.1}"#, Err("progress.percentage"));
        check(r#"{"current":-1}"#, Err("progress.current"));
        check(&format!(r#"{{"message":"{}"}}"#, "x".repeat(PROGRESS_BYTES_MAX)), Err("progress"));
    }
}
