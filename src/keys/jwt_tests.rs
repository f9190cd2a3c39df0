//! Tokens of applications: which are taken, and what becomes of them when keys change.

use std::path::Path;
use std::sync::atomic::AtomicUsize;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::{NOW, now};
use super::*;
use crate::access::{LEEWAY_MS, Role, Sight};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const SECONDS: i64 = NOW / 1_000;

/// Reads `[[jwt]]` of TOML.
fn options(text: &str) -> KeyOptions {
    let config: AuthConfig = toml::from_str(text).unwrap();
    KeyOptions { issuers: config.jwt, ..KeyOptions::default() }
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "taskhub", "sub": "u1", "exp": SECONDS + 600, "iat": SECONDS,
        "taskhub": {"role": "user"},
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value.is_null() {
            true => claims.as_object_mut().unwrap().remove(name),
            false => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn hs256(header: Value, claims: &Value, secret: &[u8]) -> String {
    let text = unsigned(&header, claims);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn by_secret(claims: &Value) -> String {
    hs256(json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

struct Pair {
    kid: String,
    pair: Ed25519KeyPair,
}

impl Pair {
    fn new(n: u8) -> Pair {
        Pair { kid: format!("key {n}"), pair: Ed25519KeyPair::from_seed_unchecked(&[n; 32]).unwrap() }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x})
    }

    fn sign(&self, claims: &Value) -> String {
        let text = unsigned(&json!({"alg": "EdDSA", "kid": self.kid}), claims);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes())))
    }
}

fn set(pairs: &[&Pair]) -> String {
    json!({"keys": pairs.iter().map(|pair| pair.jwk()).collect::<Vec<_>>()}).to_string()
}

fn base(rest: &str) -> String {
    format!("[[jwt]]\niss = \"https://id.example\"\naud = \"taskhub\"\n{rest}\n")
}

fn secret_file(folder: &Path) -> String {
    std::fs::write(folder.join("secret"), SECRET).unwrap();
    format!("key_file = {:?}", folder.join("secret"))
}

fn keys(text: &str) -> Arc<Keys> {
    Keys::new(options(text), Vec::new()).unwrap()
}

#[tokio::test]
async fn what_a_token_keeps_from_its_caller_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(&base(&secret_file(folder.path())));
    let come = async |role: &str, more: Value| {
        let mut taskhub = json!({"role": role});
        taskhub.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        keys.authenticate(&by_secret(&with(json!({"taskhub": taskhub}))), now()).await
    };
    let refused = async |role: &str, more: Value, expected: &str| {
        let told = come(role, more.clone()).await.expect_err(expected).to_string();
        assert!(told.contains(expected), "{more}: {told}");
    };
    // A filter is AND-ed with what the role sees, and leaves nobody a say in what is everybody's.
    let who =
        come("operator", json!({"filter": {"queue": ["a", "b*"]}, "hide": ["logs", "payload/iban"]})).await.unwrap();
    let Sight::Of(sight) = &who.sight else { panic!("{who:?}") };
    assert!(sight.queue.as_ref().is_some_and(|queues| queues.matches("bc") && !queues.matches("c")));
    assert_eq!((who.hidden.words(), who.rights), (vec!["payload/iban".to_owned(), "logs".into()], Role::User.rights()));
    let user = come("user", json!({"filter": {"user_id": ["u2"]}})).await.unwrap();
    assert!(matches!(&user.sight, Sight::Of(sight) if sight.is_nothing()), "another's tasks are none of theirs");
    assert_ne!(come("user", json!({"filter": {"queue": ["a"]}})).await.unwrap().whose(), user.whose());
    let worker = come("worker", json!({"task_types": ["report", "in.*"], "queues": ["q"]})).await.unwrap();
    let (types, queues) = (worker.works.task_types.as_ref().unwrap(), worker.works.queues.as_ref().unwrap());
    assert!(types.matches("in.x") && !queues.matches("default"));
    // What stands there and cannot be meant lets nobody in.
    refused("user", json!({"filter": {"status": ["failed"]}}), "taskhub.filter: status").await;
    refused("user", json!({"filter": {"queue": []}}), "empty list").await;
    refused("user", json!({"filter": {"kueue": ["a"]}}), "unknown field").await;
    refused("user", json!({"filter": "all"}), "taskhub.filter").await;
    refused("user", json!({"hide": ["title"]}), "taskhub.hide").await;
    refused("user", json!({"hide": vec!["payload"; 17]}), "taskhub.hide").await;
    refused("user", json!({"queues": ["q"]}), "worker only").await;
    refused("worker", json!({"queues": []}), "1 to 100").await;
    refused("worker", json!({"queues": "q"}), "list of texts").await;
    refused("worker", json!({"filter": {}}), "not for workers").await;
    refused("worker", json!({"hide": ["payload"]}), "not for workers").await;
}

#[tokio::test]
async fn what_a_maker_does_not_see_its_scoped_tokens_do_not_either() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(&base(&secret_file(folder.path())));
    keys.upkeep(now()).unwrap().iter().for_each(|change| keys.apply(change));
    let taskhub = json!({"role": "operator", "filter": {"queue": ["a", "b"]}, "hide": ["result"]});
    let maker = keys.authenticate(&by_secret(&with(json!({"taskhub": taskhub}))), now()).await.unwrap();
    let new =
        serde_json::from_value(json!({"allow": ["read"], "filter": {"queue": ["b", "c"]}, "hide": ["payload/x"]}));
    let minted = keys.mint(&maker, new.unwrap(), now()).unwrap();
    let who = keys.authenticate(&minted.token, now()).await.unwrap();
    let Sight::Of(sight) = &who.sight else { panic!("{who:?}") };
    assert_eq!(sight.queue.as_ref().unwrap().only().map(|queue| queue.as_str().to_owned()), Some("b".to_owned()));
    assert_eq!(who.hidden.words(), ["payload/x", "result"]);
}

#[tokio::test]
async fn a_token_is_taken_for_what_it_says_and_refused_for_what_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(&base(&secret_file(folder.path())));
    assert!(!keys.is_open(), "an issuer closes the hub");
    let who = keys.authenticate(&by_secret(&claims()), now()).await.unwrap();
    assert_eq!((who.role, who.user_id.as_ref().unwrap().as_str()), (Role::User, "u1"));
    assert_eq!(who.credential.to_string(), "jwt:https://id.example");
    assert_eq!(who.expires_at, Some(now().plus_millis(600_000 + LEEWAY_MS)));
    assert!(Arc::ptr_eq(&who, &keys.authenticate(&by_secret(&claims()), now()).await.unwrap()), "seen before");

    let check = async |changes: Value, expected: Result<Role, &str>| {
        let told = keys.authenticate(&by_secret(&with(changes.clone())), now()).await;
        match (told, expected) {
            (Ok(who), Ok(role)) => assert_eq!(who.role, role, "{changes}"),
            (Err(told), Err(expected)) => assert!(told.to_string().contains(expected), "{changes}: {told}"),
            (told, expected) => panic!("{changes}: {told:?} instead of {expected:?}"),
        }
    };
    let (user, operator) = (Ok(Role::User), Ok(Role::Operator));
    check(json!({"aud": ["other", "taskhub"]}), user).await;
    check(json!({"aud": "other"}), Err("aud")).await;
    check(json!({"aud": ["taskhub", 7]}), Err("aud")).await;
    check(json!({"aud": []}), Err("aud")).await;
    check(json!({"aud": null}), Err("aud")).await;
    check(json!({"aud": {"taskhub": true}}), Err("aud")).await;
    check(json!({"iss": "https://id.example/"}), Err("is not known")).await;
    check(json!({"iss": null}), Err("no iss")).await;
    check(json!({"exp": SECONDS - 29}), user).await;
    check(json!({"exp": SECONDS - 30}), Err("has expired")).await;
    check(json!({"exp": SECONDS as f64 - 29.5}), user).await;
    check(json!({"exp": null}), Err("no exp")).await;
    check(json!({"exp": (SECONDS + 60).to_string()}), Err("exp must be a number")).await;
    check(json!({"exp": 1e300}), user).await;
    check(json!({"exp": -1e300}), Err("has expired")).await;
    check(json!({"nbf": SECONDS + 30}), user).await;
    check(json!({"nbf": SECONDS + 31}), Err("not in force yet")).await;
    check(json!({"nbf": "soon"}), Err("nbf must be")).await;
    check(json!({"iat": SECONDS + 31}), Err("not in force yet")).await;
    check(json!({"iat": null}), user).await;
    check(json!({"sub": 7}), Err("sub must be")).await;
    check(json!({"sub": null}), Err("sub must be")).await;
    check(json!({"sub": ""}), Err("sub must be")).await;
    check(json!({"sub": "x".repeat(129)}), Err("sub: must be at most 128")).await;
    check(json!({"taskhub": null}), Err("no taskhub.role")).await;
    check(json!({"taskhub": "user"}), Err("no taskhub.role")).await;
    check(json!({"taskhub": {"role": 7}}), Err("taskhub.role must be")).await;
    check(json!({"taskhub": {"role": "root"}}), Err("not known")).await;
    check(json!({"taskhub": {"role": "operator"}}), operator).await;
    check(json!({"taskhub": {"role": "admin"}}), Err("more than its issuer may give")).await;
    check(json!({"taskhub": {"role": ["user", "operator"]}}), operator).await;
    check(json!({"taskhub": {"role": ["user", "root"]}}), Err("not known")).await;
    check(json!({"taskhub": {"role": []}}), Err("is empty")).await;
    check(json!({"taskhub.role": "viewer"}), Ok(Role::Viewer)).await;
}

#[tokio::test]
async fn claims_are_found_where_the_config_says() {
    let folder = tempfile::tempdir().unwrap();
    let rest = "default_role = \"viewer\"\nroles_max = \"user\"\n[jwt.claims]\nuser = \"https://x.example/id\"\n\
        role = \"realm.roles\"\n[jwt.roles]\nstaff = \"user\"";
    let keys = keys(&base(&format!("{}\n{rest}", secret_file(folder.path()))));
    let who = async |changes: Value| {
        let told = keys.authenticate(&by_secret(&with(changes)), now()).await?;
        Ok::<_, Unauthenticated>((told.role, told.user_id.as_ref().map(|user| user.as_str().to_owned())))
    };
    assert_eq!(who(json!({})).await, Ok((Role::Viewer, None)));
    let staff = json!({"realm": {"roles": ["staff"]}, "https://x.example/id": "u7"});
    assert_eq!(who(staff).await, Ok((Role::User, Some("u7".into()))));
    // A user without one would see nothing, and is a mistake.
    assert!(who(json!({"realm": {"roles": "staff"}})).await.unwrap_err().to_string().contains("a user needs"));
    assert!(who(json!({"realm": {"roles": "user"}})).await.unwrap_err().to_string().contains("not known"));
}

#[tokio::test]
async fn a_token_does_not_say_how_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new(1);
    let path = folder.path().join("key.pem");
    let der =
        [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], pair.pair.public_key().as_ref()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    std::fs::write(&path, &pem).unwrap();
    let keys = keys(&base(&format!("key_file = {path:?}")));
    assert!(keys.authenticate(&pair.sign(&claims()), now()).await.is_ok(), "whatever its kid is");
    let told = async |text: String| keys.authenticate(&text, now()).await.unwrap_err();
    // The public key, in each of its forms, as a secret.
    let head = || json!({"alg": "HS256"});
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der, pair.pair.public_key().as_ref()] {
        assert_eq!(told(hs256(head(), &claims(), secret)).await, Unauthenticated::Signature);
    }
    for alg in ["none", "NONE", "HS384", "EDDSA"] {
        let text = unsigned(&json!({"alg": alg}), &claims());
        assert!(matches!(told(format!("{text}.")).await, Unauthenticated::Malformed(_)), "{alg}");
    }
    let other = Pair::new(2);
    assert_eq!(told(other.sign(&claims())).await, Unauthenticated::Signature);
    // A key that comes along means nothing, and neither does where to find one.
    for header in [
        json!({"alg": "EdDSA", "jwk": other.jwk()}),
        json!({"alg": "EdDSA", "jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/keys"}),
        json!({"alg": "EdDSA", "kid": "../../../../dev/null"}),
        json!({"alg": "EdDSA", "kid": "' OR 1=1 --"}),
    ] {
        let text = unsigned(&header, &claims());
        let text = format!("{text}.{}", URL_SAFE_NO_PAD.encode(other.pair.sign(text.as_bytes())));
        assert_eq!(told(text).await, Unauthenticated::Signature);
    }
    let restricted = base(&format!("algs = [\"RS256\"]\nkey_file = {path:?}"));
    let restricted = Keys::new(options(&restricted), Vec::new()).unwrap();
    assert_eq!(restricted.authenticate(&pair.sign(&claims()), now()).await, Err(Unauthenticated::Signature));
}

#[test]
fn keys_that_cannot_be_used_are_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let check = |how: &str, bytes: &[u8], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        let told = Keys::new(options(&base(&format!("{how} = {path:?}"))), Vec::new()).unwrap_err();
        assert!(told.contains(expected) && told.contains("key"), "{told}");
    };
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    check("key_file", b"short", "at least 32 bytes, and has 5");
    check("key_file", b"", "at least 32 bytes");
    check("key_file", &SECRET[1..], "and has 31");
    check("key_file", block("PRIVATE KEY", "AAAA").as_bytes(), "a private key");
    check("key_file", block("CERTIFICATE", "AAAA").as_bytes(), "a certificate");
    check("key_file", block("PUBLIC KEY", "AAAA").as_bytes(), "no public key");
    check("key_file", block("PUBLIC KEY", "!").as_bytes(), "no base64");
    check("key_file", b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "no end");
    check("key_file", [block("PUBLIC KEY", "AAAA"), block("PUBLIC KEY", "AAAA")].concat().as_bytes(), "more than one");
    check("key_file", b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKbb someone@example", "for SSH");
    check("key_file", &[&[0x30, 60][..], &[0; 60]].concat(), "DER");
    check("key_file", b"{\"kty\":\"oct\",\"k\":\"YWJj\"}", "at least 32 bytes, and has 3");
    check("key_file", b"{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"\",\"y\":\"\"}", "its curve must be P-256");
    let point = URL_SAFE_NO_PAD.encode([1; 32]);
    check("key_file", json!({"kty": "EC", "crv": "P-256", "x": point, "y": point}).to_string().as_bytes(), "a point");
    check("key_file", b"{\"kty\":\"RSA\",\"n\":\"sXch\",\"e\":\"AQAB\"}", "2048 to 8192 bits, and has 24");
    check("jwks", b"{}", "no keys");
    check("jwks", b"[]", "no JSON object");
    check("jwks", b"{\"keys\":{}}", "must be a list");
    check("jwks", b"{\"keys\":[],\"keys\":[]}", "twice");
    check("jwks", json!({"keys": vec![Pair::new(1).jwk(); 101]}).to_string().as_bytes(), "at most 100");
    check("jwks", b"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"\"}]}", "none of its keys");
    let mut private = Pair::new(1).jwk();
    private["d"] = json!("AAAA");
    check("jwks", json!({"keys": [private]}).to_string().as_bytes(), "a private key");
    let mut encrypts = Pair::new(1).jwk();
    encrypts["use"] = json!("enc");
    check("jwks", json!({"keys": [encrypts]}).to_string().as_bytes(), "not for signatures");
    std::fs::remove_file(&path).unwrap();
    assert!(
        Keys::new(options(&base(&format!("key_file = {path:?}"))), Vec::new()).unwrap_err().contains("No such file")
    );
}

#[tokio::test]
async fn what_a_subject_was_given_is_revoked_with_all_that_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(&base(&secret_file(folder.path())));
    keys.upkeep(now()).unwrap().iter().for_each(|change| keys.apply(change));
    let who = keys.authenticate(&by_secret(&claims()), now()).await.unwrap();
    let new = crate::task::read_strictly(br#"{"allow":["read"],"ttl_ms":86400000}"#).unwrap();
    let minted = keys.mint(&who, new, now()).unwrap();
    assert_eq!(Some(minted.expires_at), who.expires_at, "never beyond its maker");
    let scoped = keys.authenticate(&minted.token, now()).await.unwrap();
    assert_eq!((scoped.role, scoped.user_id.as_ref()), (Role::User, who.user_id.as_ref()));
    let renewed = keys.authenticate(&by_secret(&with(json!({"iat": SECONDS + 1}))), now()).await.unwrap();
    assert!(keys.revoke_scoped(&renewed, &minted.jti, now()).is_some(), "a later token of the maker");
    let other = keys.authenticate(&by_secret(&with(json!({"sub": "u2"}))), now()).await.unwrap();
    assert!(keys.revoke_scoped(&other, &minted.jti, now()).is_none());

    let mut changes = keys.changes();
    keys.apply(&keys.revoke_subject("https://id.example", "u1", now().plus_millis(1)));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    for gone in [&who, &scoped] {
        assert_eq!(keys.check(gone, now()), Err(Ended::Revoked));
    }
    assert_eq!(keys.authenticate(&by_secret(&claims()), now()).await, Err(Unauthenticated::Revoked));
    assert_eq!(keys.authenticate(&minted.token, now()).await, Err(Unauthenticated::Revoked));
    assert_eq!(keys.check(&renewed, now()), Ok(()), "given later");
    assert_eq!(keys.check(&other, now()), Ok(()));
    // What does not say when it was given may be older than any time.
    let ageless = by_secret(&with(json!({"iat": null})));
    assert_eq!(keys.authenticate(&ageless, now()).await, Err(Unauthenticated::Revoked));
}

/// Answers with a set of keys, whatever is asked, and counts.
struct Publisher {
    url: String,
    body: Arc<Mutex<String>>,
    fetched: Arc<AtomicUsize>,
}

impl Publisher {
    async fn start(body: String) -> Publisher {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (body, fetched) = (Arc::new(Mutex::new(body)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (body.clone(), fetched.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4_096];
                let _ = stream.read(&mut asked).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let body = told.lock().clone();
                let status = if body.is_empty() { "500 Broken" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Publisher { url, body, fetched }
    }

    fn keys(&self) -> Arc<Keys> {
        keys(&base(&format!("jwks = {:?}", self.url)))
    }
}

#[tokio::test]
async fn keys_are_fetched_when_a_token_names_one_and_taken_back_when_they_are_gone() {
    let (one, two) = (Pair::new(1), Pair::new(2));
    let publisher = Publisher::start(set(&[&one])).await;
    let keys = publisher.keys();
    let first = keys.authenticate(&one.sign(&claims()), now()).await.unwrap();
    assert_eq!(publisher.fetched.load(Ordering::SeqCst), 1);
    // A set that cannot be read, or does not come, leaves those that are known.
    for broken in ["", "{\"keys\":7}", "<html>"] {
        *publisher.body.lock() = broken.into();
        keys.issuers[0].look_now().await;
        assert_eq!(keys.check(&first, now()), Ok(()), "{broken}");
    }
    *publisher.body.lock() = "x".repeat(300 << 10);
    keys.issuers[0].look_now().await;
    assert_eq!(keys.check(&first, now()), Ok(()), "too large");
    *publisher.body.lock() = set(&[&two]);
    let mut changes = keys.changes();
    changes.mark_unchanged();
    let second = keys.authenticate(&two.sign(&claims()), now()).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(keys.check(&second, now()), Ok(()));
    assert_eq!(keys.check(&first, now()), Err(Ended::Revoked), "its key was taken back");
    assert_eq!(keys.authenticate(&one.sign(&claims()), now()).await, Err(Unauthenticated::Revoked));
    // Secrets are not fetched, so a token by one is no reason to fetch.
    let before = publisher.fetched.load(Ordering::SeqCst);
    assert_eq!(keys.authenticate(&by_secret(&claims()), now()).await, Err(Unauthenticated::Signature));
    assert_eq!(publisher.fetched.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_told_from_a_wrong_token() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    drop(listener);
    let keys = keys(&base(&format!("jwks = {url:?}")));
    assert_eq!(keys.authenticate(&Pair::new(1).sign(&claims()), now()).await, Err(Unauthenticated::Unavailable));
}

/// Regression for what a naive cache does: callers with the new key are refused until the set is due, or each of them fetches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_while_many_verify() {
    const TASKS: usize = 50;
    let pairs: Arc<Vec<Pair>> = Arc::new((1..=4).map(Pair::new).collect());
    let publisher = Publisher::start(set(&[&pairs[0]])).await;
    let keys = publisher.keys();
    for round in 0..pairs.len() {
        // The new key beside the one before.
        let published: Vec<&Pair> = pairs[round.saturating_sub(1)..=round].iter().collect();
        *publisher.body.lock() = set(&published);
        let all = (0..TASKS).map(|task| {
            let (keys, pairs) = (keys.clone(), pairs.clone());
            tokio::spawn(async move {
                for n in 0..4 {
                    // Old and new at once, each token another one.
                    let pair = &pairs[if n % 2 == 0 { round } else { round.saturating_sub(1) }];
                    let token = pair.sign(&with(json!({"jti": format!("{round} {task} {n}")})));
                    keys.authenticate(&token, now()).await.unwrap();
                    keys.authenticate(&token, now()).await.unwrap();
                }
            })
        });
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
    }
    assert_eq!(publisher.fetched.load(Ordering::SeqCst), pairs.len(), "once for each new key");
    let last = pairs[3].sign(&claims());
    let gone = pairs[0].sign(&claims());
    assert!(keys.authenticate(&last, now()).await.is_ok());
    assert_eq!(keys.authenticate(&gone, now()).await, Err(Unauthenticated::Signature));
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let (one, two) = (Pair::new(1), Pair::new(2));
    std::fs::write(&path, set(&[&one])).unwrap();
    let keys = keys(&base(&format!("jwks = {path:?}")));
    let first = keys.authenticate(&one.sign(&claims()), now()).await.unwrap();
    std::fs::write(&path, "half of a file").unwrap();
    keys.issuers[0].look_now().await;
    assert_eq!(keys.check(&first, now()), Ok(()));
    std::fs::write(&path, set(&[&two])).unwrap();
    keys.issuers[0].look_now().await;
    assert_eq!(keys.check(&first, now()), Err(Ended::Revoked));
    assert!(keys.authenticate(&two.sign(&claims()), now()).await.is_ok());
}
