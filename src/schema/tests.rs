//! Schemas and payloads: what is said of what does not fit, what is no schema, and the bounds. That the verdicts are those of
//! the standard is held by another validator beside this one (`tests/it/json_schema.rs`).

use super::*;

fn json(text: &str) -> Json {
    Json::parse_verbatim(text).unwrap()
}

fn faults(schema: &str, payload: &str) -> Vec<String> {
    let schema = Schema::read(&json(schema)).unwrap();
    schema
        .faults(&json(payload), FAULTS_MAX)
        .iter()
        .map(|fault| format!("{} {}", fault.pointer, fault.message))
        .collect()
}

#[test]
fn what_does_not_fit_is_said_where_it_stands() {
    let check = |schema: &str, payload: &str, expected: &[&str]| {
        assert_eq!(faults(schema, payload), expected, "{schema} {payload}");
    };
    let order = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["id","lines"],
        "properties":{"id":{"type":"integer","minimum":1},"lines":{"type":"array","minItems":1,"items":{"$ref":"#/$defs/line"}},
            "a/b~c":{"const":1}},
        "additionalProperties":false,
        "$defs":{"line":{"type":"object","properties":{"sku":{"type":"string","pattern":"^[A-Z]{3}$"},"n":{"enum":[1,2]}}}}}"##;
    check(order, r#"{"id":7,"lines":[{"sku":"ABC","n":1.0}]}"#, &[]);
    check(order, "null", &[" must be object"]);
    check(
        order,
        r#"{"id":0,"lines":[{"sku":"abc"},{"n":3}],"more":1,"a/b~c":2}"#,
        &[
            "/a~1b~0c must be 1",
            "/id must be at least 1",
            "/lines/0/sku must match ^[A-Z]{3}$",
            "/lines/1/n must be one of 1, 2",
            r#" must not have a property "more""#,
        ],
    );
    check(order, "{}", &[r#" must have the property "id""#, r#" must have the property "lines""#]);
    check(r#"{"anyOf":[{"type":"string"},{"minimum":2}]}"#, "1", &[" must fit one of the schemas of anyOf"]);
    check(r#"{"oneOf":[{"minimum":1},{"minimum":2}]}"#, "3", &[" must fit one of the schemas of oneOf only"]);
    check(r#"{"not":{"type":"string"}}"#, r#""a""#, &[" must not fit the schema of not"]);
    check(
        r#"{"items":{"if":{"type":"string"},"then":{"maxLength":1},"else":{"type":"null"}}}"#,
        r#"["a","bc",1]"#,
        &["/1 must have at most 1 characters", "/2 must be null"],
    );
    check(
        r#"{"uniqueItems":true}"#,
        r#"[{"a":1,"b":2},{"b":2.0,"a":1}]"#,
        &[" must not have an item twice: the one at 1 is there before"],
    );
    check(
        r#"{"properties":{"a":true},"unevaluatedProperties":false}"#,
        r#"{"a":1,"b":2}"#,
        &[r#" must not have a property "b""#],
    );
    check("false", "1", &[" must not be there"]);
    check(r#"{"properties":{"a":false}}"#, r#"{"a":1}"#, &["/a must not be there"]);
    check(r#"{"format":"email","default":1,"x-more":{}}"#, r#""nobody""#, &[]);
}

#[test]
fn numbers_are_all_of_their_digits() {
    assert_eq!(faults(r#"{"maximum":12345678901234567890}"#, "12345678901234567891").len(), 1);
    assert_eq!(faults(r#"{"type":"integer","exclusiveMinimum":1e399}"#, "1e400"), Vec::<String>::new());
    assert_eq!(faults(r#"{"const":0.1}"#, "0.1000000000000000000000001").len(), 1);
    assert_eq!(faults(r#"{"multipleOf":0.01}"#, "19.99"), Vec::<String>::new());
    // Of a name that stands there twice the last counts.
    assert_eq!(faults(r#"{"properties":{"a":{"type":"string"}}}"#, r#"{"a":1,"a":"x"}"#), Vec::<String>::new());
}

#[test]
fn what_is_no_schema_is_said_where_it_stands() {
    let check = |schema: &str, expected: &str| {
        let why = Schema::read(&json(schema)).map(|_| ()).unwrap_err().to_string();
        assert!(why.starts_with(expected), "{schema}: {why}");
    };
    check("[]", "must be an object or a boolean");
    check(r#"{"properties":{"a":{"type":"strin"}}}"#, "must be null, boolean, integer");
    check(
        r#"{"properties":{"a/b":{"minLength":-1}}}"#,
        "must be a whole number from 0 up at /properties/a~1b/minLength",
    );
    check(r#"{"required":["a","a"]}"#, "must be an array of strings, no two of them alike at /required");
    check(r#"{"allOf":[]}"#, "must not be empty at /allOf");
    check(r#"{"items":[{}]}"#, "must be an object or a boolean at /items");
    check(r#"{"multipleOf":0}"#, "must be above 0 at /multipleOf");
    check(r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#, "must be https://json-schema.org/draft/2020-12/");
    check(r#"{"items":{"$id":"https://example.com/a"}}"#, "must stand at the beginning only at /items/$id");
    check(r#"{"pattern":"(?=a)"}"#, "must be a regular expression without look-around");
    check(r#"{"patternProperties":{"(":true}}"#, "must be a regular expression without look-around");
    // What would be fetched, and what is not there.
    for remote in ["https://example.com/s.json", "file:///etc/passwd", "other.json#/a", "//example.com"] {
        check(&format!(r#"{{"items":{{"$ref":"{remote}"}}}}"#), "must lead to a place of this schema");
    }
    check(r##"{"$ref":"#/$defs/a"}"##, "leads nowhere: #/$defs/a at /$ref");
    check(r##"{"$ref":"#name"}"##, "leads nowhere: #name at /$ref");
    // What leads back to itself without going down.
    check(r##"{"$ref":"#"}"##, "must not refer to itself for the same value");
    check(r##"{"items":{"anyOf":[{"not":{"$ref":"#/items"}}]}}"##, "must not refer to itself for the same value");
    let tree = r##"{"$id":"https://example.com/tree","properties":{"left":{"$ref":"#"},"right":{"$ref":"https://example.com/tree#"}}}"##;
    assert!(Schema::read(&json(tree)).is_ok());
}

#[test]
fn a_schema_has_its_bounds() {
    let deep = |depth: usize| format!("{}true{}", r#"{"items":"#.repeat(depth), "}".repeat(depth));
    assert!(Schema::read(&json(&deep(128))).is_ok());
    let why = Schema::read(&json(&deep(129))).unwrap_err().to_string();
    assert_eq!(why, "is nested deeper than 128");
    let long = |bytes: usize| format!(r#"{{"title":"{}"}}"#, "x".repeat(bytes - 12));
    assert!(Schema::read(&json(&long(SCHEMA_BYTES_MAX))).is_ok());
    let why = Schema::read(&json(&long(SCHEMA_BYTES_MAX + 1))).unwrap_err().to_string();
    assert_eq!(why, "must be at most 65536 bytes of JSON text");
}

/// A schema is a program, and its payload the input: whatever they are, a check ends soon, and the stack holds.
#[test]
fn no_schema_takes_long() {
    let steps = " takes too many steps to be checked against the schema";
    let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    // Twice as often with each reference, and with each level of the payload.
    let doubling: Vec<String> = (0..30)
        .map(|n| format!(r##""a{n}":{{"allOf":[{{"$ref":"#/$defs/a{0}"}},{{"$ref":"#/$defs/a{0}"}}]}}"##, n + 1))
        .collect();
    let doubling = format!(r##"{{"$ref":"#/$defs/a0","$defs":{{{},"a30":true}}}}"##, doubling.join(","));
    assert_eq!(faults(&doubling, "1"), [steps]);
    assert_eq!(faults(r##"{"allOf":[{"items":{"$ref":"#"}},{"items":{"$ref":"#"}}]}"##, &deep), [steps]);
    assert_eq!(
        faults(r##"{"anyOf":[{"items":{"$ref":"#"}},{"not":{"items":{"$ref":"#"}}},false]}"##, &deep),
        Vec::<String>::new()
    );
    let depth = " goes too deep to be checked against the schema";
    let chain: Vec<String> = (0..40).map(|n| format!(r##""a{n}":{{"$ref":"#/$defs/a{}"}}"##, n + 1)).collect();
    let chain =
        format!(r##"{{"$ref":"#/$defs/a0","$defs":{{{},"a40":{{"items":{{"$ref":"#"}}}}}}}}"##, chain.join(","));
    assert_eq!(faults(&chain, &deep), [depth]);
    let mut random = fastrand::Rng::with_seed(1);
    let mixed: String = (0..200_000).map(|_| if random.bool() { 'a' } else { 'b' }).collect();
    assert_eq!(faults(r#"{"pattern":"a[ab]{40}c"}"#, &format!("{mixed:?}")), [steps]);
    // All that is wrong of a long list is told no further than it is read.
    let many = format!("[{}]", vec!["1"; 100_000].join(","));
    assert_eq!(faults(r#"{"items":{"type":"string"}}"#, &many).len(), FAULTS_MAX);
    // What people write has room.
    let kinds: Vec<String> = (0..50)
        .map(|n| {
            format!(r#"{{"properties":{{"kind":{{"const":"k{n}"}},"v":{{"type":"string"}}}},"required":["kind","v"]}}"#)
        })
        .collect();
    let union = format!(r#"{{"items":{{"oneOf":[{}]}}}}"#, kinds.join(","));
    let items = format!("[{}]", vec![r#"{"kind":"k49","v":"some text"}"#; 5_000].join(","));
    assert_eq!(faults(&union, &items), Vec::<String>::new());
}

#[test]
fn what_is_told_is_bounded() {
    let name = "é/".repeat(100_000);
    let payload = format!(r#"{{"{name}":{{"a":1}}}}"#);
    let schema = Schema::read(&json(r#"{"additionalProperties":{"additionalProperties":{"type":"string"}}}"#)).unwrap();
    let faults = schema.faults(&json(&payload), FAULTS_MAX);
    assert!(faults.len() == 1 && faults[0].pointer.len() <= FAULT_TEXT_BYTES_MAX + 3, "{}", faults[0].pointer.len());
    let none = Schema::read(&json(r#"{"additionalProperties":false}"#)).unwrap();
    assert!(none.faults(&json(&payload), FAULTS_MAX)[0].message.len() <= FAULT_TEXT_BYTES_MAX + 3);
}

/// Whatever stands where keywords do, a schema is read or refused, and any payload fits or does not: nothing of it ends the
/// program, and a schema that is read twice says the same.
#[test]
fn whatever_stands_there_is_read_or_refused() {
    fn value(random: &mut fastrand::Rng, depth: u32) -> String {
        const KEYWORDS: [&str; 36] = [
            "type",
            "enum",
            "const",
            "minimum",
            "exclusiveMaximum",
            "multipleOf",
            "minLength",
            "pattern",
            "items",
            "prefixItems",
            "contains",
            "minContains",
            "maxContains",
            "uniqueItems",
            "maxItems",
            "properties",
            "patternProperties",
            "additionalProperties",
            "propertyNames",
            "required",
            "dependentRequired",
            "dependentSchemas",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "if",
            "then",
            "else",
            "$ref",
            "$defs",
            "$anchor",
            "unevaluatedItems",
            "unevaluatedProperties",
            "a",
            "b",
        ];
        const TEXTS: [&str; 12] =
            ["a", "b", "object", "array", "string", "integer", "#", "#/$defs/a", "#a", "^a+$", "[", "#/allOf/0"];
        let list = |random: &mut fastrand::Rng| -> Vec<String> {
            (0..random.usize(0..4)).map(|_| value(random, depth - 1)).collect()
        };
        match random.u32(0..if depth == 0 { 5 } else { 12 }) {
            0 => ["true", "false", "null"][random.usize(0..3)].to_owned(),
            1 => ["0", "1", "-1", "2.5", "1e400", "0.1", "3.0"][random.usize(0..7)].to_owned(),
            2..=4 => format!("{:?}", TEXTS[random.usize(0..TEXTS.len())]),
            5 | 6 => format!("[{}]", list(random).join(",")),
            _ => {
                let member = |random: &mut fastrand::Rng| {
                    format!("{:?}:{}", KEYWORDS[random.usize(0..KEYWORDS.len())], value(random, depth - 1))
                };
                let members: Vec<String> = (0..random.usize(0..5)).map(|_| member(random)).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
    let mut random = fastrand::Rng::with_seed(7);
    let (mut read, mut fit) = (0, 0);
    for _ in 0..60_000 {
        let (schema, payload) = (json(&value(&mut random, 4)), json(&value(&mut random, 3)));
        let Ok(it) = Schema::read(&schema) else { continue };
        let faults = it.faults(&payload, FAULTS_MAX);
        assert_eq!(Schema::read(&schema).unwrap().faults(&payload, FAULTS_MAX), faults, "{schema:?} {payload:?}");
        (read, fit) = (read + 1, fit + usize::from(faults.is_empty()));
    }
    assert!(read > 2_000 && fit > 200 && fit < read, "{read} were read, and {fit} payloads fit");
}
