//! No credential and nothing of a payload is in anything that a hub writes of itself: its log at the finest level, in both forms, its
//! audit; and no credential is in its database. Each kind of credential is said rightly and wrongly, in each place that there is for it.
//!
//! What every other test's hub logs is looked through for tokens too, see `HubProcess`.

use reqwest::{Client, Method};
use ring::hmac;
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::kit::{HubProcess, TestSocket, program};

const WORD: &str = "unspeakable";
const KEY: &str = "a secret of the application, long enough for HS256";

fn jwt(key: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": "app", "aud": "taskhub", "sub": "ann", "exp": 4_000_000_000_u64});
    let signed = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A credential that looks right and is not: its last letters are others.
fn spoiled(token: &str) -> String {
    let (most, last) = token.split_at(token.len() - 6);
    format!("{most}{}", if last == "AAAAAA" { "BBBBBB" } else { "AAAAAA" })
}

#[tokio::test]
async fn what_is_secret_is_in_no_log_and_no_audit() {
    for format in ["pretty", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::write(folder.path().join("key"), KEY).unwrap();
        let config = "[[auth.jwt]]\niss = \"app\"\naud = \"taskhub\"\nkey_file = \"key\"\ndefault_role = \"user\"\n";
        std::fs::write(folder.path().join("taskhub.toml"), config).unwrap();
        let made = program().args(["token", "create", "--role", "admin", "--data"]).arg(&data).output().unwrap();
        let admin = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let mut command = program();
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "taskhub.toml",
            "--log-format",
            format,
            "--data",
        ]);
        command.arg(&data).current_dir(folder.path()).env("TASKHUB_LOG", "trace");
        let hub = HubProcess::from(command);
        let client = Client::new();
        let call = async |token: &str, method: Method, path: &str, body: Value| {
            let request = client.request(method, format!("{}/api/v1{path}", hub.url)).bearer_auth(token);
            let answer = request.json(&body).send().await.expect("an answer");
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
        };

        let task = json!({"task_type": "t", "user_id": "ann", "payload": {"iban": WORD}, "callbacks": []});
        let (status, made) = call(&admin, Method::POST, "/tasks", task).await;
        assert_eq!(status, 201, "{made}");
        let path = format!("/tasks/{}", made["task_id"].as_str().unwrap());
        let (status, scoped) = call(&admin, Method::POST, "/tokens", json!({"allow": ["read"]})).await;
        assert_eq!(status, 201, "{scoped}");
        let (status, ticket) = call(&admin, Method::POST, "/tickets", Value::Null).await;
        assert_eq!(status, 201, "{ticket}");
        let text = |value: &Value, name: &str| value[name].as_str().expect("a text").to_owned();
        let (scoped, ticket) = (text(&scoped, "token"), text(&ticket, "ticket"));
        let good = [admin.clone(), scoped.clone(), jwt(KEY)];
        let mut secrets: Vec<String> = good.iter().flat_map(|token| [token.clone(), spoiled(token)]).collect();
        secrets.extend([jwt("another key, which is as long as it has to be"), ticket.clone(), spoiled(&ticket)]);

        // Work that is done, and work that is refused, each with the word in it.
        call(&admin, Method::POST, "/worker/claim", json!({"worker_id": "w", "task_types": ["t"]})).await;
        let attempt = format!("{path}/attempts/1");
        for (end, body) in [
            ("log", json!({"lines": [{"level": "info", "message": WORD}]})),
            ("progress", json!({"progress": {"percentage": 1, "message": WORD}})),
            ("complete", json!({"result": {"left": WORD}, "odd": WORD})),
            ("complete", json!({"result": {"left": WORD}})),
        ] {
            call(&admin, Method::POST, &format!("{attempt}/{end}"), body).await;
        }
        for body in [json!({"task_type": WORD.repeat(20)}), json!({WORD: WORD}), json!([WORD]), json!(WORD)] {
            let (status, told) = call(&admin, Method::POST, "/tasks", body).await;
            assert!(status == 422 || status == 400, "{told}");
        }
        let torn = client.post(format!("{}/api/v1/tasks", hub.url)).bearer_auth(&admin);
        let torn = torn.header("content-type", "application/json").body(format!("{{\"payload\":\"{WORD}")).send().await;
        assert_eq!(torn.expect("an answer").status(), 400);

        // A wrong one is said in one place each, since guesses wait longer and longer.
        for (at, secret) in secrets.iter().enumerate() {
            let is_said = |place: usize| good.contains(secret) || at % 5 == place;
            if is_said(0) {
                call(secret, Method::GET, "/me", Value::Null).await;
                call(secret, Method::GET, &path, Value::Null).await;
            }
            let get = |address: String| client.get(format!("{}/api/v1{address}", hub.url));
            if is_said(1) {
                get(format!("/tasks?token={secret}")).send().await.expect("an answer");
                get(format!("/tasks?ticket={secret}")).send().await.expect("an answer");
                get(format!("/tasks/{secret}")).send().await.expect("an answer");
            }
            if is_said(2) {
                let basic = format!("Basic {}", STANDARD.encode(format!("ann:{secret}")));
                get("/me".into()).header("authorization", basic).send().await.expect("an answer");
                get("/me".into()).header("cookie", format!("token={secret}")).send().await.expect("an answer");
            }
            if is_said(3) {
                let upgrade = get("/ws".into()).header("connection", "upgrade").header("upgrade", "websocket");
                let upgrade = upgrade.header("sec-websocket-version", "13");
                let upgrade = upgrade.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
                let protocols = format!("taskhub.v1, taskhub.token.{secret}");
                upgrade.header("sec-websocket-protocol", protocols).send().await.expect("an answer");
            }
            if is_said(4) {
                for (path, protocol) in [("/api/v1/ws", "taskhub.v1"), ("/api/v1/worker/ws", "taskhub.worker.v1")] {
                    let mut socket = TestSocket::dial(hub.address(), path, &[protocol]).await;
                    socket.say(json!({"op": "hello", "id": 1, "worker_id": "w2", "token": secret})).await;
                    socket.say(json!({"op": "hello", "id": 2, "token": secret})).await;
                    socket.say(json!({"op": secret, "id": 3})).await;
                    // It answers, or closes.
                    let _ = socket.next_or_code().await;
                }
            }
        }

        let audit = program().args(["audit", "--json", "--limit", "500", "--data"]).arg(&data).output().unwrap();
        let audit = String::from_utf8(audit.stdout).unwrap();
        assert!(audit.contains("token.mint"), "{audit}");
        let said = hub.program.said();
        assert!(said.contains("the hub is up"), "{said}");
        drop(hub);
        let mut kept = Vec::new();
        for file in std::fs::read_dir(&data).unwrap() {
            kept.extend(std::fs::read(file.unwrap().path()).unwrap_or_default());
        }
        let is_kept = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(is_kept("token.mint"), "the database was not looked at");
        for secret in &secrets {
            // What is random in it: the whole stands nowhere if this does not.
            let core = &secret[secret.len().saturating_sub(24)..];
            for (what, text) in [("log", &said), ("audit", &audit)] {
                let line = text.lines().find(|line| line.contains(core));
                assert!(line.is_none(), "the {what} tells {secret}: {line:?}");
            }
            assert!(!is_kept(core), "the database holds {secret}");
        }
        for (what, text) in [("log", &said), ("audit", &audit)] {
            let line = text.lines().find(|line| line.contains(WORD));
            assert!(line.is_none(), "the {what} tells of a payload: {line:?}");
        }
    }
}
