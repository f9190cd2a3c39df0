//! Query parameters: each is taken once and checked; what nobody took is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::task::{
    Filter, LABEL_KEY_CHARS_MAX, LABEL_VALUE_CHARS_MAX, Name, Pattern, PatternSet, Status, TaskId, Timestamp,
    USER_ID_CHARS_MAX,
};
use crate::wire::{Code, Problem};

/// The most `task_id`s in a query.
pub(super) const TASK_IDS_MAX: usize = 100;
/// The longest that a call may ask to be held open, in milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 60_000;
/// The longest that it is. Most proxies give up after 60 s without a byte, so the answer has to be on its way before.
const HOLD_MS_MAX: u64 = 55_000;

/// Reads a query that is a filter and nothing else.
pub fn query_filter(query: &str) -> Result<Filter, Problem> {
    let mut params = Params::of(Some(query))?;
    let filter = params.filter()?;
    params.finish()?;
    Ok(filter)
}

/// For a call that has no parameters: refuses whatever stands there. Every call of the API takes this or [`Params`];
/// probes and files ignore what is added to their addresses.
pub(super) struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<NoQuery, Problem> {
        match parts.uri.query() {
            None => Ok(NoQuery),
            Some(query) => Params::of(Some(query))?.finish().map(|()| NoQuery),
        }
    }
}

/// Which page of a list by names is asked for: after which name, and how many.
pub(super) fn page_of_names(query: Option<&str>, len_max: usize) -> Result<(Option<Name>, usize), Problem> {
    let mut params = Params::of(query)?;
    let limit = params.number("limit", 1, len_max as u64)?.unwrap_or(len_max as u64) as usize;
    let cursor = params.text("cursor");
    params.finish()?;
    let bad = |_| Problem::new(Code::BadCursor, "the cursor is not one of this list; begin again without").at("cursor");
    let after = cursor.map(|text| Name::parse(&text)).transpose().map_err(bad)?;
    Ok((after, limit))
}

/// How long an answer is held for which a call waits so many milliseconds.
pub(super) fn held(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms.min(HOLD_MS_MAX))
}

/// The parameters of a request that were not taken yet.
pub(super) struct Params {
    pairs: BTreeMap<String, String>,
}

impl Params {
    /// Reads `name=value&…`. A parameter that stands there twice is refused.
    pub(super) fn of(query: Option<&str>) -> Result<Params, Problem> {
        let mut pairs = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if pairs.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Problem::wrong(&name, "stands there twice"));
            }
        }
        Ok(Params { pairs })
    }

    /// Takes a parameter as text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.pairs.remove(name)
    }

    /// Takes a whole number from `min` to `max`. Below is a wrong value, above is over the limit.
    pub(super) fn number(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if number > max => Err(Problem::over(name, max, "").trimmed()),
            Ok(number) if number < min => Err(Problem::wrong(name, &format!("must be at least {min}"))),
            Ok(number) => Ok(Some(number)),
            // More digits than a number holds.
            Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(Problem::over(name, max, "").trimmed())
            }
            Err(_) => Err(Problem::wrong(name, "must be a whole number")),
        }
    }

    /// Takes a time.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        Timestamp::parse(&text).map(Some).map_err(|why| Problem::wrong(name, &why.to_string()))
    }

    /// Takes how long to hold the answer.
    pub(super) fn wait(&mut self) -> Result<Duration, Problem> {
        Ok(held(self.number("wait_ms", 0, WAIT_MS_MAX)?.unwrap_or(0)))
    }

    /// Takes everything that says which tasks are meant: `status`, `task_id`, `task_type`, `queue`, `user_id`,
    /// `label.KEY`, `workflow_id`.
    pub(super) fn filter(&mut self) -> Result<Filter, Problem> {
        let id = |word: &str| word.parse::<TaskId>().map_err(|_| "must be task ids with commas between".to_owned());
        let task_id = self.list("task_id", TASK_IDS_MAX, id)?;
        let workflow_id = self.list("workflow_id", TASK_IDS_MAX, id)?;
        let statuses = self.list("status", Status::ALL.len(), |word| {
            Status::parse(word).ok_or_else(|| {
                format!("must be of {}, with commas between", Status::ALL.map(Status::as_str).join(", "))
            })
        })?;
        let mut patterns = |name: &str| -> Result<Option<PatternSet>, Problem> {
            let list = self.list(name, TASK_IDS_MAX, |word| Pattern::parse(word).map_err(|why| why.to_string()))?;
            Ok(list.map(|patterns| PatternSet::new(patterns.into_iter().collect())))
        };
        let task_type = patterns("task_type")?;
        let queue = patterns("queue")?;
        let user_id = self.bounded("user_id", USER_ID_CHARS_MAX)?.map(|id| BTreeSet::from([Name::new(&id)]));
        let mut labels = BTreeMap::new();
        let keys: Vec<String> = self.pairs.keys().filter(|name| name.starts_with("label.")).cloned().collect();
        for name in keys {
            let key = name["label.".len()..].to_owned();
            if key.is_empty() || key.chars().count() > LABEL_KEY_CHARS_MAX {
                return Err(Problem::wrong(&name, "must name a label").in_filter());
            }
            // An empty value is one like others.
            let value = self.text(&name).unwrap_or_default();
            if value.chars().count() > LABEL_VALUE_CHARS_MAX {
                return Err(Problem::over(&name, LABEL_VALUE_CHARS_MAX as u64, "characters"));
            }
            labels.insert(key, BTreeSet::from([value]));
        }
        Ok(Filter { task_id, task_type, queue, status: statuses, user_id, workflow_id, labels, ..Filter::default() })
    }

    fn bounded(&mut self, name: &str, chars_max: usize) -> Result<Option<String>, Problem> {
        match self.text(name) {
            Some(text) if text.is_empty() => Err(Problem::wrong(name, "must not be empty").in_filter()),
            Some(text) if text.chars().count() > chars_max => Err(Problem::over(name, chars_max as u64, "characters")),
            text => Ok(text),
        }
    }

    /// Takes words with commas between, as a set.
    fn list<T: Ord>(
        &mut self,
        name: &str,
        len_max: usize,
        word: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<BTreeSet<T>>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        if text.split(',').count() > len_max {
            return Err(Problem::over(name, len_max as u64, "values"));
        }
        let set = text.split(',').map(word).collect::<Result<_, _>>();
        set.map(Some).map_err(|why| Problem::wrong(name, &why).in_filter())
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.pairs.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Problem::new(Code::UnknownField, format!("{name} is not a parameter of this call")).at(name))
            }
        }
    }
}

impl Problem {
    fn trimmed(mut self) -> Problem {
        self.detail.truncate(self.detail.trim_end().len());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890000-0000-7000-8000-000000000001";

    #[test]
    fn filters_of_a_query() {
        let all =
            format!("status=pending,running&task_id={ID}&task_type=ingest.*&queue=a,b&user_id=u1&label.project=p%201");
        let got = query_filter(&all).unwrap();
        assert_eq!(got.status, Some(BTreeSet::from([Status::Pending, Status::Running])));
        assert_eq!(got.task_id, Some(BTreeSet::from([ID.parse().unwrap()])));
        assert!(got.task_type.unwrap().matches("ingest.pdf"));
        assert!(got.queue.unwrap().matches("b"));
        assert_eq!(got.labels["project"], BTreeSet::from(["p 1".to_owned()]));
        assert_eq!(query_filter("label.k=").unwrap().labels["k"], BTreeSet::from([String::new()]));
        assert_eq!(query_filter("").unwrap(), Filter::default());
        let of_one = query_filter(&format!("workflow_id={ID}")).unwrap();
        assert_eq!(of_one.workflow_id, Some(BTreeSet::from([ID.parse().unwrap()])));
    }

    #[test]
    fn wrong_parameters_are_named() {
        let many = vec![ID; 101].join(",");
        for (query, code, field) in [
            ("status=done", Code::BadFilter, "status"),
            ("status=", Code::BadFilter, "status"),
            ("task_id=x", Code::BadFilter, "task_id"),
            (&format!("task_id={many}"), Code::LimitExceeded, "task_id"),
            ("queue=a/b", Code::BadFilter, "queue"),
            ("user_id=", Code::BadFilter, "user_id"),
            ("label.=x", Code::BadFilter, "label."),
            ("statuses=pending", Code::UnknownField, "statuses"),
            ("status=pending&status=running", Code::InvalidField, "status"),
        ] {
            let problem = query_filter(query).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (code, Some(field)), "{query}");
        }
    }

    /// Regression: a call that asked for all of 60 s lost a race against the proxy's own 60 s, and was answered 504.
    #[test]
    fn answers_come_before_a_proxy_gives_up() {
        for (asked, held) in [("60000", 55), ("55001", 55), ("55000", 55), ("54000", 54), ("0", 0)] {
            let mut params = Params::of(Some(&format!("wait_ms={asked}"))).unwrap();
            assert_eq!(params.wait().unwrap(), Duration::from_secs(held), "{asked}");
        }
    }

    #[test]
    fn numbers_over_their_limit_are_refused_not_clamped() {
        let number = |text: &str| Params::of(Some(&format!("limit={text}"))).unwrap().number("limit", 1, 500);
        assert_eq!(number("500").unwrap(), Some(500));
        for (text, code) in [
            ("501", Code::LimitExceeded),
            ("99999999999999999999999", Code::LimitExceeded),
            ("0", Code::InvalidField),
            ("-1", Code::InvalidField),
            ("ten", Code::InvalidField),
            ("", Code::InvalidField),
        ] {
            assert_eq!(number(text).unwrap_err().code, code, "{text}");
        }
        assert_eq!(number("501").unwrap_err().limit, Some(500));
    }
}
