//! What workers say of themselves and of their attempts, checked; the same on the socket and over plain HTTP.

use crate::access::Works;
use crate::hub::{Accepts, Report};
use crate::task::{DEFAULT_QUEUE, Failure, Invalid, Json, Level, Name, Pattern, PatternSet};
use crate::wire::{FailBody, LogLineBody, PATTERNS_MAX};

/// The name a worker gives itself.
pub(super) fn worker_id(text: &str) -> Result<Name, Invalid> {
    Name::parse(text).map_err(|why| Invalid::value("worker_id", why.to_string()))
}

/// Which tasks a worker takes. Where nothing is said, it is what its token is for; or all types, and the queue `default`.
pub(super) fn accepts(
    task_types: Option<Vec<String>>,
    queues: Option<Vec<String>>,
    works: &Works,
) -> Result<Accepts, Invalid> {
    let task_types = patterns("task_types", task_types)?.or_else(|| works.task_types.clone());
    let queues = patterns("queues", queues)?.or_else(|| works.queues.clone());
    Ok(Accepts {
        task_types: task_types.unwrap_or_else(PatternSet::all),
        queues: queues.unwrap_or_else(|| PatternSet::exactly(&Name::new(DEFAULT_QUEUE))),
    })
}

fn patterns(field: &'static str, texts: Option<Vec<String>>) -> Result<Option<PatternSet>, Invalid> {
    let Some(texts) = texts else { return Ok(None) };
    if texts.is_empty() {
        return Err(Invalid::value(field, "must not be an empty list"));
    }
    if texts.len() > PATTERNS_MAX {
        return Err(Invalid::limit(field, PATTERNS_MAX as u64, "patterns"));
    }
    let parse = |(at, text): (usize, &String)| {
        Pattern::parse(text).map_err(|why| Invalid::value(format!("{field}[{at}]"), why.to_string()))
    };
    texts.iter().enumerate().map(parse).collect::<Result<_, _>>().map(|patterns| Some(PatternSet::new(patterns)))
}

/// A number from 1 to `max`, or 1.
pub(super) fn at_least_one(field: &'static str, number: Option<u32>, max: u32) -> Result<u32, Invalid> {
    match number {
        None => Ok(1),
        Some(0) => Err(Invalid::value(field, "must be at least 1")),
        Some(number) if number > max => {
            Err(Invalid { detail: format!("must be at most {max}"), ..Invalid::limit(field, u64::from(max), "") })
        }
        Some(number) => Ok(number),
    }
}

/// How often a worker should be heard of, so that two lost heartbeats cost no lease.
pub(super) fn heartbeat_ms(lease_ms: u64) -> u64 {
    lease_ms * 3 / 10
}

/// Lines as the hub takes them.
pub(super) fn lines(lines: Vec<LogLineBody>) -> Vec<(Level, String)> {
    lines.into_iter().map(|line| (line.level, line.message)).collect()
}

/// The attempt completed.
pub(super) fn complete(result: Option<Json>) -> Report {
    Report::Complete { result: result.unwrap_or_else(Json::null) }
}

/// The attempt failed.
pub(super) fn fail(FailBody { error, retryable, retry_after_ms }: FailBody) -> Report {
    let error = error.unwrap_or_else(|| Failure::new("error", ""));
    Report::Fail { error, retryable: retryable.unwrap_or(true), retry_after_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_takes() {
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let default = accepts(None, None, &Works::default()).unwrap();
        assert!(default.takes("default", "anything") && !default.takes("other", "anything"));
        let some = accepts(texts(&["ingest.*", "report"]), texts(&["*"]), &Works::default()).unwrap();
        assert!(some.takes("other", "ingest.pdf") && !some.takes("other", "reports"));
        assert_eq!(accepts(texts(&[]), None, &Works::default()).unwrap_err().field, "task_types");
        assert_eq!(accepts(texts(&["a", "b c"]), None, &Works::default()).unwrap_err().field, "task_types[1]");
        assert!(accepts(None, Some(vec!["q".into(); 100]), &Works::default()).is_ok());
        assert_eq!(accepts(None, Some(vec!["q".into(); 101]), &Works::default()).unwrap_err().field, "queues");
        assert_eq!(at_least_one("concurrency", Some(1_000), 1_000), Ok(1_000));
        assert!(at_least_one("concurrency", Some(1_001), 1_000).is_err());
        assert!(at_least_one("concurrency", Some(0), 1_000).is_err());
        assert_eq!(heartbeat_ms(10_000), 3_000);
    }
}
