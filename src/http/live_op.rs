//! The requests of live clients: parsed and checked, with a problem for what is wrong. No I/O.

use std::sync::Arc;

use serde::Deserialize;

use super::json;
use super::state::LiveLimits;
use crate::hub::Order;
use crate::task::{Filter, LOG_LINES_MAX};
use crate::wire::{Code, LiveOp, LogsSpec, Problem, Since, SnapshotOrder, SnapshotSpec};

/// The longest name of a subscription, in characters.
pub(super) const SUB_CHARS_MAX: usize = 64;
/// Tasks in a snapshot by default.
const SNAPSHOT_LEN: usize = 200;
/// The most tasks in a snapshot: more is a list, and lists have pages.
pub(super) const SNAPSHOT_LEN_MAX: usize = 1_000;
/// Log lines that come first by default.
const LOG_TAIL: usize = 100;

/// What a live client asks for, checked.
#[derive(Debug, PartialEq)]
pub(super) enum LiveRequest {
    /// To be sent the hub's hello again. An open hub needs no token.
    /// Who it is, where it says so.
    Hello(Option<String>),
    Subscribe(String, Topic),
    Unsubscribe(String),
    Ping,
}

/// What a subscription is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Topic {
    Tasks(TaskSubscription),
    /// Counts and rates, once a second.
    Stats,
    /// What is set: queues, limits.
    Settings,
}

/// Which tasks, and what of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TaskSubscription {
    pub(super) filter: Arc<Filter>,
    /// The filter as it was asked for, whatever the caller sees.
    pub(super) asked: Arc<Filter>,
    /// The most tasks in the snapshot.
    pub(super) limit: usize,
    pub(super) order: Order,
    pub(super) since: Option<Since>,
    pub(super) max_hz: Option<f64>,
    /// With log lines, and how many of the newest come first.
    pub(super) log_tail: Option<usize>,
}

impl TaskSubscription {
    /// Checks what is given beside the filter.
    pub(super) fn checked(
        filter: Filter,
        snapshot: SnapshotSpec,
        since: Option<Since>,
        max_hz: Option<f64>,
        logs: Option<LogsSpec>,
    ) -> Result<TaskSubscription, Problem> {
        let limit = snapshot.limit.map_or(SNAPSHOT_LEN, |limit| limit as usize);
        if limit > SNAPSHOT_LEN_MAX {
            return Err(Problem::over("snapshot.limit", SNAPSHOT_LEN_MAX as u64, "tasks"));
        }
        if limit == 0 {
            return Err(Problem::wrong("snapshot.limit", "must be at least 1"));
        }
        if max_hz.is_some_and(|hz| !hz.is_finite() || hz <= 0.0) {
            return Err(Problem::wrong("max_hz", "must be above 0"));
        }
        let log_tail = logs.map(|logs| logs.tail.map_or(LOG_TAIL, |tail| tail as usize));
        if log_tail.is_some() && filter.task_id.is_none() {
            return Err(Problem::wrong("logs", "needs task_id in the filter"));
        }
        if log_tail.is_some_and(|tail| tail > LOG_LINES_MAX) {
            return Err(Problem::over("logs.tail", LOG_LINES_MAX as u64, "lines"));
        }
        let order = match snapshot.order {
            SnapshotOrder::Desc => Order::NewestFirst,
            SnapshotOrder::Asc => Order::OldestFirst,
        };
        let asked = Arc::new(filter);
        Ok(TaskSubscription { filter: asked.clone(), asked, limit, order, since, max_hz, log_tail })
    }
}

/// Checks an operation.
pub(super) fn checked(op: LiveOp, limits: &LiveLimits) -> Result<LiveRequest, Problem> {
    let LiveOp { op: word, id: _, token, sub, filter, snapshot, since, max_hz, logs, stats, settings } = op;
    // A field of another operation is refused like an unknown one: it would have no effect.
    let about_tasks = [
        ("filter", filter.is_some()),
        ("snapshot", snapshot.is_some()),
        ("since", since.is_some()),
        ("max_hz", max_hz.is_some()),
        ("logs", logs.is_some()),
    ];
    let beside = |of_op: &'static [&str]| {
        let all = [
            ("token", token.is_some()),
            ("sub", sub.is_some()),
            ("stats", stats.is_some()),
            ("settings", settings.is_some()),
        ];
        match all.into_iter().chain(about_tasks).find(|(field, there)| *there && !of_op.contains(field)) {
            Some((field, _)) => {
                Err(Problem::new(Code::UnknownField, format!("{field} is no part of {word}")).at(field))
            }
            None => Ok(()),
        }
    };
    match word.as_str() {
        "hello" | "refresh" => beside(&["token"]).map(|()| LiveRequest::Hello(token)),
        "ping" => beside(&[]).map(|()| LiveRequest::Ping),
        "unsubscribe" => {
            beside(&["sub"])?;
            Ok(LiveRequest::Unsubscribe(sub_name(sub)?))
        }
        "subscribe" if stats == Some(true) => {
            beside(&["sub", "stats"])?;
            Ok(LiveRequest::Subscribe(sub_name(sub)?, Topic::Stats))
        }
        "subscribe" if settings == Some(true) => {
            beside(&["sub", "settings"])?;
            Ok(LiveRequest::Subscribe(sub_name(sub)?, Topic::Settings))
        }
        "subscribe" => {
            beside(&["sub", "stats", "settings", "filter", "snapshot", "since", "max_hz", "logs"])?;
            let name = sub_name(sub)?;
            let filter = filter.unwrap_or_default();
            if filter.values_len() > limits.filter_values_max {
                return Err(Problem::over("filter", limits.filter_values_max as u64, "values"));
            }
            let filter = filter.checked().map_err(|invalid| Problem::from(invalid).in_filter())?;
            let tasks = TaskSubscription::checked(filter, snapshot.unwrap_or_default(), since, max_hz, logs)?;
            Ok(LiveRequest::Subscribe(name, Topic::Tasks(tasks)))
        }
        _ => Err(Problem::wrong("op", "must be hello, subscribe, unsubscribe, refresh or ping")),
    }
}

fn sub_name(sub: Option<String>) -> Result<String, Problem> {
    match sub {
        None => Err(Problem::wrong("sub", "is missing")),
        Some(sub) if sub.is_empty() => Err(Problem::wrong("sub", "must not be empty")),
        Some(sub) if sub.chars().count() > SUB_CHARS_MAX => {
            Err(Problem::over("sub", SUB_CHARS_MAX as u64, "characters"))
        }
        Some(sub) => Ok(sub),
    }
}

/// The bounds that stand in the hub's hello.
pub(super) fn limits(limits: &LiveLimits, max_hz: f64) -> String {
    let LiveLimits { subscriptions_max, filter_values_max, message_bytes_max, messages_per_s_max, .. } = limits;
    format!(
        r#"{{"subscriptions":{subscriptions_max},"sub_chars":{SUB_CHARS_MAX},"filter_values":{filter_values_max},"snapshot":{SNAPSHOT_LEN_MAX},"log_tail":{LOG_LINES_MAX},"message_bytes":{message_bytes_max},"messages_per_s":{messages_per_s_max},"max_hz":{max_hz}}}"#
    )
}

/// An operation of a message that holds several.
pub(super) struct Parsed<T> {
    /// The number to answer with, as far as it can be read.
    pub(super) id: Option<u64>,
    pub(super) op: Result<T, Problem>,
}

/// Takes the first operation from a text. `None` when what follows is no JSON.
pub(super) fn first(text: &mut &str) -> Option<Parsed<LiveOp>> {
    let before = *text;
    let op = json::first::<LiveOp>(text)?;
    let id = match &op {
        Ok(op) => op.id,
        Err(_) => numbered(before),
    };
    Some(Parsed { id, op })
}

/// The number of an operation that is wrong, where it has one.
fn numbered(mut text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        id: Option<u64>,
    }
    json::first::<Numbered>(&mut text)?.ok()?.id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<LiveRequest, (Code, Option<String>)> {
        let mut text = text;
        let parsed = first(&mut text).unwrap();
        parsed.op.and_then(|op| checked(op, &LiveLimits::default())).map_err(|problem| (problem.code, problem.field))
    }

    fn tasks(text: &str) -> TaskSubscription {
        match check(text) {
            Ok(LiveRequest::Subscribe(_, Topic::Tasks(tasks))) => tasks,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn good_operations() {
        assert_eq!(check(r#"{"op":"hello","id":1,"token":"t"}"#), Ok(LiveRequest::Hello(Some("t".into()))));
        assert_eq!(check(r#"{"op":"refresh","id":5,"token":"t"}"#), Ok(LiveRequest::Hello(Some("t".into()))));
        assert_eq!(check(r#"{"op":"ping"}"#), Ok(LiveRequest::Ping));
        assert_eq!(check(r#"{"op":"unsubscribe","sub":"a"}"#), Ok(LiveRequest::Unsubscribe("a".into())));
        let stats = r#"{"op":"subscribe","id":3,"sub":"s","stats":true}"#;
        assert_eq!(check(stats), Ok(LiveRequest::Subscribe("s".into(), Topic::Stats)));

        let settings = r#"{"op":"subscribe","sub":"s","settings":true}"#;
        assert_eq!(check(settings), Ok(LiveRequest::Subscribe("s".into(), Topic::Settings)));

        let plain = tasks(r#"{"op":"subscribe","sub":"a","filter":{}}"#);
        assert_eq!((plain.limit, plain.order, plain.log_tail), (200, Order::NewestFirst, None));
        let full = tasks(
            r#"{"op":"subscribe","id":2,"sub":"a","filter":{"task_id":["01890000-0000-7000-8000-000000000001"]},
                "snapshot":{"limit":1000,"order":"asc"},"since":{"epoch":"e","rev":1042},"max_hz":0.5,"logs":{}}"#,
        );
        assert_eq!((full.limit, full.order, full.log_tail), (1_000, Order::OldestFirst, Some(100)));
        assert_eq!((full.since.unwrap().rev, full.max_hz), (1_042, Some(0.5)));
    }

    #[test]
    fn wrong_operations_are_told_where() {
        let long = "x".repeat(65);
        for (text, code, field) in [
            (r#"{"op":"dance"}"#, Code::InvalidField, Some("op")),
            (r#"{"op":"subscribe","filter":{}}"#, Code::InvalidField, Some("sub")),
            (r#"{"op":"subscribe","sub":"","filter":{}}"#, Code::InvalidField, Some("sub")),
            (&format!(r#"{{"op":"subscribe","sub":"{long}"}}"#), Code::LimitExceeded, Some("sub")),
            (r#"{"op":"subscribe","sub":"a","filter":{"status":[]}}"#, Code::BadFilter, Some("status")),
            (r#"{"op":"subscribe","sub":"a","filter":{"queue":["a b"]}}"#, Code::BadFilter, Some("queue")),
            (r#"{"op":"subscribe","sub":"a","snapshot":{"limit":1001}}"#, Code::LimitExceeded, Some("snapshot.limit")),
            (r#"{"op":"subscribe","sub":"a","snapshot":{"limit":0}}"#, Code::InvalidField, Some("snapshot.limit")),
            (r#"{"op":"subscribe","sub":"a","max_hz":0}"#, Code::InvalidField, Some("max_hz")),
            (r#"{"op":"subscribe","sub":"a","logs":{}}"#, Code::InvalidField, Some("logs")),
            (r#"{"op":"subscribe","sub":"a","stats":true,"filter":{}}"#, Code::UnknownField, Some("filter")),
            (r#"{"op":"subscribe","sub":"a","settings":true,"since":{}}"#, Code::InvalidField, Some("since.epoch")),
            (r#"{"op":"subscribe","sub":"a","settings":true,"stats":true}"#, Code::UnknownField, Some("settings")),
            (r#"{"op":"ping","sub":"a"}"#, Code::UnknownField, Some("sub")),
            (r#"{"op":"unsubscribe"}"#, Code::InvalidField, Some("sub")),
            (r#"{"op":"ping","colour":"red"}"#, Code::UnknownField, Some("colour")),
            (r#"{"op":"subscribe","sub":"a","filter":{"colour":["red"]}}"#, Code::UnknownField, Some("filter.colour")),
            (r#"{"op":"subscribe","sub":"a","filter":[]}"#, Code::InvalidField, Some("filter")),
            (r#"{"op":"subscribe","sub":"a","snapshot":[]}"#, Code::InvalidField, Some("snapshot")),
            (r#"{"op":"subscribe","sub":"a","since":["e",1]}"#, Code::InvalidField, Some("since")),
            (r#"{"op":"subscribe","sub":"a","logs":[]}"#, Code::InvalidField, Some("logs")),
            (r#"{"op":"subscribe","sub":"a","filter":{"labels":[]}}"#, Code::InvalidField, Some("filter.labels")),
            (
                r#"{"op":"subscribe","sub":"a","snapshot":{"order":{"asc":null}}}"#,
                Code::InvalidField,
                Some("snapshot.order"),
            ),
            (r#"["ping"]"#, Code::InvalidField, None),
            (r#"{"op":7}"#, Code::InvalidField, Some("op")),
            ("[1,2]", Code::InvalidField, None),
        ] {
            assert_eq!(check(text), Err((code, field.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn filters_are_bounded() {
        let filter = |len: usize| {
            let users: Vec<String> = (0..len).map(|n| format!("\"u{n}\"")).collect();
            check(&format!(r#"{{"op":"subscribe","sub":"a","filter":{{"user_id":[{}]}}}}"#, users.join(",")))
        };
        assert!(filter(1_000).is_ok());
        assert_eq!(filter(1_001), Err((Code::LimitExceeded, Some("filter.user_id".into()))));
        let both = format!(r#""a"{}"#, r#","a""#.repeat(500));
        let both =
            check(&format!(r#"{{"op":"subscribe","sub":"a","filter":{{"user_id":[{both}],"queue":[{both}]}}}}"#));
        assert_eq!(both, Err((Code::LimitExceeded, Some("filter".into()))));
    }

    #[test]
    fn a_message_may_hold_several() {
        let mut text = "{\"op\":\"ping\",\"id\":1}\n {\"op\":\"pong\",\"id\":2}\n7 nonsense";
        let mut next = || first(&mut text).map(|parsed| (parsed.id, parsed.op.is_ok()));
        assert_eq!(next(), Some((Some(1), true)));
        assert_eq!(next(), Some((Some(2), true)));
        assert_eq!(next(), Some((None, false)));
        assert_eq!(next(), None);
    }

    #[test]
    fn limits_are_json() {
        let limits: serde_json::Value = serde_json::from_str(&limits(&LiveLimits::default(), 10.0)).unwrap();
        assert_eq!(limits["subscriptions"], 64);
        assert_eq!(limits["max_hz"], 10.0);
    }
}
