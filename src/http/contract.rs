//! Holds the served contract against the program: routes, parameters, problems, bodies, messages.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::docs::{ASYNCAPI, OPENAPI};
use super::routes;
use crate::access::NewScoped;
use crate::settings::{Rate, UserLimits};
use crate::task::{
    Defaults, FilterSpec, NewCallback, NewGather, NewTask, NewUnique, NewWorkflow, Progress, RetryPolicy, Status,
    TaskPatch,
};
use crate::wire::{
    ApiTokenBody, BatchBody, BulkBody, CancelBody, ClaimBody, CloseCode, Code, CompleteBody, FailBody, HubSays,
    LimitsBody, LiveOp, LiveSays, LogBody, LogLineBody, NoBody, OtherStats, ProgressBody, QueueBody, RetryBody,
    RevocationBody, ScheduleBody, Stats, TaskTypeBody, WorkerSays,
};

fn openapi() -> Value {
    serde_json::from_str(OPENAPI).expect("openapi.json is JSON")
}

fn asyncapi() -> Value {
    serde_json::from_str(ASYNCAPI).expect("asyncapi.json is JSON")
}

/// Follows a reference within a document; a value that is none is itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(path) => {
            let found = document.pointer(path.strip_prefix('#').expect("a reference within the document"));
            resolve(document, found.unwrap_or_else(|| panic!("{path} leads nowhere")))
        }
        None => value,
    }
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect()
}

/// Every operation as `(METHOD, path)`.
fn operations(document: &Value) -> BTreeMap<(String, String), &Value> {
    let mut all = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "delete", "patch"] {
            if let Some(operation) = item.get(method) {
                all.insert((method.to_uppercase(), path.clone()), operation);
            }
        }
    }
    all
}

#[test]
fn every_route_is_documented_and_every_documented_route_is_there() {
    let document = openapi();
    let documented: BTreeSet<_> = operations(&document).into_keys().collect();
    let there: BTreeSet<_> =
        routes::listed().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(there, documented);
}

#[test]
fn path_parameters_are_documented() {
    let document = openapi();
    for (path, item) in document["paths"].as_object().unwrap() {
        let named: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters = item["parameters"].as_array().cloned().unwrap_or_default();
        let documented: Vec<_> = parameters.iter().map(|parameter| resolve(&document, parameter)).collect();
        let documented: BTreeSet<_> = documented.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(named, documented, "{path}");
    }
}

#[test]
fn every_problem_is_documented_with_its_status() {
    let document = openapi();
    let listed: Vec<_> =
        document["components"]["schemas"]["Code"]["enum"].as_array().unwrap().iter().map(Value::as_str).collect();
    let all: Vec<_> = Code::ALL.iter().map(|code| Some(code.as_str())).collect();
    assert_eq!(listed, all);
    for code in Code::ALL {
        let example = &document["components"]["examples"][code.as_str()]["value"];
        assert_eq!(example["type"], format!("urn:taskhub:problem:{}", code.as_str()));
        assert_eq!((&example["status"], &example["title"]), (&code.status().into(), &code.title().into()), "{code:?}");
    }
    let mut used = BTreeSet::new();
    for ((method, path), operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let problems = &resolve(&document, response)["content"]["application/problem+json"]["examples"];
            for code in keys(problems) {
                let known = Code::ALL.iter().find(|known| known.as_str() == code);
                let known = known.unwrap_or_else(|| panic!("{method} {path}: there is no code {code}"));
                assert_eq!(known.status().to_string(), *status, "{method} {path}: {code}");
                used.insert(code);
            }
        }
    }
    // A wrong method is answered before any operation is known.
    used.insert(Code::MethodNotAllowed.as_str().to_owned());
    assert_eq!(used, Code::ALL.iter().map(|code| code.as_str().to_owned()).collect());
}

#[test]
fn references_lead_somewhere() {
    fn walk(document: &Value, value: &Value) {
        resolve(document, value);
        match value {
            Value::Object(object) => object.values().for_each(|value| walk(document, value)),
            Value::Array(items) => items.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    for document in [openapi(), asyncapi()] {
        walk(&document, &document);
    }
}

/// The fields that a closed shape takes, as serde names them when it refuses another.
fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
    let refusal = serde_json::from_str::<T>(r#"{"\u0000":0}"#).err().expect("a closed shape").to_string();
    let (_, expected) = refusal.split_once(',').unwrap_or_default();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn bodies_are_documented_field_by_field() {
    let document = openapi();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    // These stand in tasks of workflows only, and are documented there.
    let of_workflows = ["weight", "workflow"];
    let new_task = fields::<NewTask>().into_iter().filter(|field| !of_workflows.contains(&field.as_str()));
    for (name, expected) in [
        ("NewTask", new_task.collect()),
        (
            "WorkflowTask",
            fields::<NewTask>()
                .into_iter()
                .filter(|field| !["unique", "gather", "token"].contains(&field.as_str()))
                .collect(),
        ),
        ("NewWorkflow", fields::<NewWorkflow>()),
        ("NewCallback", fields::<NewCallback>()),
        ("NewUnique", fields::<NewUnique>()),
        ("NewGather", fields::<NewGather>()),
        ("Retry", fields::<RetryPolicy>()),
        ("Progress", fields::<Progress>()),
        ("BatchBody", fields::<BatchBody>()),
        ("CancelBody", fields::<CancelBody>()),
        ("BulkBody", fields::<BulkBody>()),
        ("NoBody", fields::<NoBody>()),
        ("RetryBody", fields::<RetryBody>()),
        ("TaskPatch", fields::<TaskPatch>()),
        ("QueueBody", fields::<QueueBody>()),
        ("Rate", fields::<Rate>()),
        ("Limits", fields::<LimitsBody>()),
        ("ScheduleBody", fields::<ScheduleBody>()),
        ("TaskTypeBody", fields::<TaskTypeBody>()),
        ("Defaults", fields::<Defaults>()),
        ("UserLimits", fields::<UserLimits>()),
        ("ClaimBody", fields::<ClaimBody>()),
        ("ProgressBody", fields::<ProgressBody>()),
        ("LogBody", fields::<LogBody>()),
        ("LogLineBody", fields::<LogLineBody>()),
        ("CompleteBody", fields::<CompleteBody>()),
        ("FailBody", fields::<FailBody>()),
        ("NewScoped", fields::<NewScoped>()),
        ("ApiTokenBody", fields::<ApiTokenBody>()),
        ("RevocationBody", fields::<RevocationBody>()),
    ] {
        assert_eq!(keys(&schema(name)["properties"]), expected, "{name}");
        if name != "Progress" {
            assert!(schema(name)["additionalProperties"] == false || name == "Retry", "{name} is closed");
        }
    }
    let statuses: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
    assert_eq!(schema("Status")["enum"], serde_json::json!(statuses));
}

#[test]
fn counts_are_documented_field_by_field() {
    let always = keys(&serde_json::to_value(Stats::default()).unwrap());
    let (queues_other, types_other) = (Some(OtherStats::default()), Some(OtherStats::default()));
    let (workers, sockets) = (Some(0), Some(0));
    let all = Stats { queues_other, types_other, workers, sockets, ..Stats::default() };
    let all = keys(&serde_json::to_value(all).unwrap());
    for document in [openapi(), asyncapi()] {
        let schema = &document["components"]["schemas"]["Stats"];
        let required = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned);
        assert_eq!(keys(&schema["properties"]), all);
        assert_eq!(required.collect::<BTreeSet<_>>(), always);
    }
}

#[test]
fn examples_of_bodies_are_taken() {
    fn check<T: DeserializeOwned>(example: &Value) {
        serde_json::from_value::<T>(example.clone()).unwrap_or_else(|why| panic!("{example}: {why}"));
    }
    let document = openapi();
    for ((method, path), operation) in operations(&document) {
        let Some(content) = operation.pointer("/requestBody/content/application~1json") else { continue };
        let several = content["examples"].as_object().into_iter().flat_map(|all| all.values().map(|one| &one["value"]));
        let examples: Vec<_> = content.get("example").into_iter().chain(several).collect();
        assert!(!examples.is_empty(), "{method} {path} has no example");
        for example in examples {
            match content["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap() {
                "NewTask" => check::<NewTask>(example),
                "NewWorkflow" => check::<NewWorkflow>(example),
                "BatchBody" => check::<BatchBody>(example),
                "CancelBody" => check::<CancelBody>(example),
                "BulkBody" => check::<BulkBody>(example),
                "NoBody" => check::<NoBody>(example),
                "RetryBody" => check::<RetryBody>(example),
                "TaskPatch" => check::<TaskPatch>(example),
                "QueueBody" => check::<QueueBody>(example),
                "Limits" => check::<LimitsBody>(example),
                "ScheduleBody" => check::<ScheduleBody>(example),
                "TaskTypeBody" => check::<TaskTypeBody>(example),
                "ClaimBody" => check::<ClaimBody>(example),
                "ProgressBody" => check::<ProgressBody>(example),
                "LogBody" => check::<LogBody>(example),
                "CompleteBody" => check::<CompleteBody>(example),
                "FailBody" => check::<FailBody>(example),
                "NewScoped" => check::<NewScoped>(example),
                "ApiTokenBody" => check::<ApiTokenBody>(example),
                "RevocationBody" => check::<RevocationBody>(example),
                other => panic!("{method} {path}: {other} is not known here"),
            }
        }
    }
}

#[test]
fn messages_are_documented_field_by_field() {
    let document = asyncapi();
    let messages = document["components"]["messages"].as_object().unwrap();
    let mut of_clients = BTreeSet::new();
    let mut of_workers = BTreeSet::new();
    for (key, message) in messages {
        let properties = keys(&message["payload"]["properties"]);
        for example in message["examples"].as_array().into_iter().flatten() {
            let text = example["payload"].to_string();
            if key.starts_with("client") {
                let op: LiveOp = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
                super::live_op::checked(op, &super::LiveLimits::default())
                    .unwrap_or_else(|problem| panic!("{text}: {}", problem.detail));
            } else if key.starts_with("worker") {
                let says: WorkerSays = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
                says.op().unwrap_or_else(|why| panic!("{text}: {why}"));
            } else if key.starts_with("hub") {
                serde_json::from_str::<HubSays>(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
            } else {
                let says = LiveSays::parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
                assert!(!matches!(says, LiveSays::Unknown), "{text}");
            }
        }
        if key.starts_with("client") {
            of_clients.extend(properties);
        } else if key.starts_with("worker") {
            of_workers.extend(properties);
        }
    }
    assert_eq!(of_clients, fields::<LiveOp>());
    assert_eq!(of_workers, fields::<WorkerSays>());
    assert_eq!(keys(&document["components"]["schemas"]["Filter"]["properties"]), fields::<FilterSpec>());
}

#[test]
fn close_codes_are_documented() {
    let document = asyncapi();
    let text = document["info"]["description"].as_str().unwrap();
    for code in [
        CloseCode::BrokenProtocol,
        CloseCode::TooBig,
        CloseCode::Restarting,
        CloseCode::TooSlow,
        CloseCode::NoPong,
        CloseCode::TokenExpired,
        CloseCode::RateLimited,
        CloseCode::Overloaded,
        CloseCode::BadMessage,
        CloseCode::Unauthenticated,
        CloseCode::Forbidden,
        CloseCode::TooManyConnections,
        CloseCode::UnknownProtocol,
        CloseCode::Replaced,
    ] {
        assert!(text.contains(&(code as u16).to_string()), "{code:?}");
    }
}
