//! The validator of payloads beside one that is not ours, Python's `jsonschema`: on schemas and payloads that a generator makes up,
//! both say the same.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fastrand::Rng;
use serde_json::{Value, json};
use taskhub::schema::Schema;
use taskhub::task::Json;

/// Pairs of a schema and a payload.
const PAIRS: usize = 6_000;

fn pick<T: Clone>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(0..of.len())].clone()
}

fn payload(random: &mut Rng, depth: u32) -> Value {
    match random.u32(0..if depth == 0 { 6 } else { 10 }) {
        0 => json!(pick(random, &[json!(null), json!(true), json!(false)])),
        1 => json!(random.i32(-3..6)),
        2 => pick(random, &[json!(1.0), json!(2.5), json!(-0.5), json!(12_345_678_901_234_567_890u64)]),
        3..6 => json!(pick(random, &["", "a", "ab", "abc", "é", "b7"])),
        6 | 7 => (0..random.usize(0..5)).map(|_| payload(random, depth - 1)).collect(),
        _ => Value::Object((0..random.usize(0..5)).map(|_| (name(random), payload(random, depth - 1))).collect()),
    }
}

fn name(random: &mut Rng) -> String {
    pick(random, &["a", "b", "ab", "c7"]).to_owned()
}

fn names(random: &mut Rng) -> Value {
    let all = ["a", "b", "ab", "c7"];
    all.into_iter().filter(|_| random.u8(0..3) == 0).collect()
}

fn schema(random: &mut Rng, depth: u32) -> Value {
    if depth == 0 || random.u8(0..12) == 0 {
        return json!(random.u8(0..4) > 0);
    }
    let mut all = serde_json::Map::new();
    for _ in 0..random.usize(0..4) {
        let below = |random: &mut Rng| schema(random, depth - 1);
        let list = |random: &mut Rng| (0..random.usize(1..4)).map(|_| schema(random, depth - 1)).collect::<Value>();
        let map = |random: &mut Rng| {
            let named = (0..random.usize(0..3)).map(|_| (name(random), schema(random, depth - 1)));
            Value::Object(named.collect())
        };
        const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
        let (keyword, value) = match random.u8(0..34) {
            0 | 1 => ("type", json!(pick(random, &TYPES))),
            2 => ("type", json!(["string", pick(random, &["array", "object", "null"])])),
            3 => ("enum", (0..3).map(|_| payload(random, 1)).collect()),
            4 => ("const", payload(random, 1)),
            5 => ("minimum", json!(random.i32(-2..4))),
            6 => ("exclusiveMaximum", pick(random, &[json!(2.5), json!(3)])),
            7 => ("multipleOf", pick(random, &[json!(2), json!(0.5), json!(3)])),
            8 => ("maxLength", json!(random.u8(0..3))),
            9 => ("minLength", json!(random.u8(0..3))),
            10 => ("pattern", json!(pick(random, &["^a", "b$", r"\d", "^.$"]))),
            11 => ("items", below(random)),
            12 => ("prefixItems", list(random)),
            13 => ("contains", below(random)),
            14 => ("minContains", json!(random.u8(0..3))),
            15 => ("maxContains", json!(random.u8(0..3))),
            16 => ("uniqueItems", json!(random.bool())),
            17 => ("maxItems", json!(random.u8(0..4))),
            18 | 19 => ("properties", map(random)),
            20 => {
                let mut patterns = serde_json::Map::new();
                patterns.insert(pick(random, &["^a", "b", r"\d$"]).to_owned(), below(random));
                ("patternProperties", Value::Object(patterns))
            }
            21 => ("additionalProperties", below(random)),
            22 => ("propertyNames", below(random)),
            23 => ("required", names(random)),
            24 => ("dependentRequired", json!({ name(random): names(random) })),
            25 => ("dependentSchemas", map(random)),
            26 => ("allOf", list(random)),
            27 => ("anyOf", list(random)),
            28 => ("oneOf", list(random)),
            29 => ("not", below(random)),
            30 => {
                all.insert("then".to_owned(), below(random));
                all.insert("else".to_owned(), below(random));
                ("if", below(random))
            }
            31 => ("unevaluatedProperties", below(random)),
            32 => ("unevaluatedItems", below(random)),
            // Into what is defined at the root, and never back.
            _ => ("$ref", json!(pick(random, &["#/$defs/x", "#/$defs/y", "#named"]))),
        };
        all.insert(keyword.to_owned(), value);
    }
    // Now and then one that is none.
    if random.u8(0..150) == 0 {
        all.insert(pick(random, &["type", "items", "required", "minLength", "allOf"]).to_owned(), json!("wrong"));
    }
    Value::Object(all)
}

fn whole(random: &mut Rng) -> Value {
    let flat = |random: &mut Rng| loop {
        let defined = schema(random, 1);
        if !defined.to_string().contains("$ref") {
            return defined;
        }
    };
    let (x, y) = (flat(random), flat(random));
    let mut whole = schema(random, 3);
    if let Value::Object(all) = &mut whole {
        let named = json!({"$anchor": "named", "minLength": 1});
        all.insert("$defs".to_owned(), json!({"x": x, "y": y, "named": named}));
    }
    whole
}

#[test]
fn another_validator_says_the_same() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run tests/deps.sh", python.display());
    let mut random = Rng::with_seed(11);
    let pairs: Vec<(Value, Value)> = (0..PAIRS).map(|_| (whole(&mut random), payload(&mut random, 3))).collect();
    let lines: String = pairs.iter().map(|(schema, payload)| format!("{}\n", json!([schema, payload]))).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/json_schema.py");
    let mut other = Command::new(python);
    let mut other = other.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
    let mut stdin = other.stdin.take().expect("it is piped");
    let told = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let said = other.wait_with_output().expect("it ends");
    told.join().unwrap().expect("it reads all");
    let said = String::from_utf8(said.stdout).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), PAIRS);
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for ((schema, payload), theirs) in pairs.iter().zip(said) {
        let text = |value: &Value| Json::parse(&value.to_string()).unwrap();
        let ours = match Schema::read(&text(schema)) {
            Err(_) => "none",
            Ok(it) if it.faults(&text(payload), 20).is_empty() => "fits",
            Ok(_) => "unfit",
        };
        assert_eq!(ours, theirs, "{schema} {payload}");
        *counts.entry(ours).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > PAIRS / 100), "{counts:?}");
}
