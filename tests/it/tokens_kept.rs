//! The token that the command and the Rust client say: where it is kept, that it is said nowhere else, and what becomes of one
//! that the hub does not take. The hub here is a few routes that ask who is calling.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use taskhub::access::Role;
use taskhub::client::{Client, ClientError, Token};

use crate::kit::program;

/// A hub that knows one token, and who it is.
async fn hub(good: &'static str) -> String {
    let answer = move |request: Request| async move {
        let said = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if said.is_none_or(|said| said != format!("Bearer {good}")) {
            let problem = json!({"type": "about:blank", "title": "Who is calling is not known", "status": 401,
                "code": "unauthenticated", "detail": "the token is not known"});
            let known = [(header::CONTENT_TYPE, "application/problem+json"), (header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, known, problem.to_string()).into_response();
        }
        let me = json!({"role": "user", "user_id": "ada", "rights": ["see", "submit"], "token": "api:ada"});
        ([(header::CONTENT_TYPE, "application/json")], me.to_string()).into_response() as Response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

/// Exit code, and all that was said.
async fn told(mut command: Command, stdin: &'static str) -> (i32, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().expect("the program runs");
        // One that does not read has ended by itself.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        child.wait_with_output().expect("it ends")
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}

fn taskhub(url: &str, home: &Path, words: &[&str]) -> Command {
    let mut command = program();
    command.args(words).env("TASKHUB_URL", url).env("XDG_CONFIG_HOME", home).env("TASKHUB_LOG", "trace");
    command.env("RUST_LOG", "trace");
    command
}

#[tokio::test]
async fn a_token_is_kept_for_its_hub_said_to_it_and_to_nobody_else() {
    let (url, other) = (hub("tht_good").await, hub("tht_good").await);
    let home = tempfile::tempdir().unwrap();
    let run = |words: &'static [&'static str]| taskhub(&url, home.path(), words);

    let (code, said) = told(run(&["whoami"]), "").await;
    assert!(code == 4 && said.contains("not known") && said.contains("taskhub login"), "{code} {said}");
    // One that the hub does not know is not kept.
    let (code, said) = told(run(&["login"]), "tht_wrong\n").await;
    assert!(code == 4 && said.contains("the token is not known") && !said.contains("tht_"), "{code} {said}");
    assert_eq!(told(run(&["login"]), "\n").await.0, 2);
    assert_eq!(told(run(&["whoami"]), "").await.0, 4);

    let (code, said) = told(run(&["login"]), "tht_good\n").await;
    assert!(code == 0 && said.contains("ada (user)") && !said.contains("tht_"), "{code} {said}");
    let (code, said) = told(run(&["whoami"]), "").await;
    assert!(code == 0 && said.contains("user     ada") && said.contains("may      see, submit"), "{code} {said}");
    assert!(!said.contains("tht_"), "{said}");
    let (_, said) = told(run(&["whoami", "--json"]), "").await;
    assert!(said.contains(r#""user_id":"ada""#), "{said}");
    // It is that hub's alone.
    assert_eq!(told(taskhub(&other, home.path(), &["whoami"]), "").await.0, 4);

    // The variable goes before the file, and none of them is among the words.
    let mut with_variable = run(&["whoami"]);
    with_variable.env("TASKHUB_TOKEN", "tht_wrong");
    let (code, said) = told(with_variable, "").await;
    assert!(code == 4 && !said.contains("tht_"), "{code} {said}");
    let (code, said) = told(run(&["whoami", "--token", "tht_good"]), "").await;
    assert!(code == 2 && said.contains("--token"), "{code} {said}");

    // A file that others may read is not read, whoever wrote it.
    let folder = home.path().join("taskhub/tokens");
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    for words in [&["whoami"][..], &["submit", "t"], &["run", "--", "true"]] {
        let (code, said) = told(taskhub(&url, home.path(), words), "").await;
        assert!(code == 2 && said.contains("chmod 600"), "{words:?}: {code} {said}");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(told(run(&["logout"]), "").await.0, 0);
    assert!(!file.exists());
    assert_eq!(told(run(&["whoami"]), "").await.0, 4);
}

/// A command that a worker runs is not the worker, and has its token no more than its other secrets.
#[tokio::test]
async fn a_command_that_runs_untracked_has_no_token() {
    let home = tempfile::tempdir().unwrap();
    let mut command = taskhub("http://127.0.0.1:9", home.path(), &["run", "--", "/bin/sh", "-c", "env"]);
    command.env("TASKHUB_TOKEN", "tht_secret");
    let (code, said) = told(command, "").await;
    assert!(code == 0 && said.contains("TASKHUB_URL=") && !said.contains("tht_secret"), "{code} {said}");
}

#[tokio::test]
async fn a_call_that_was_refused_for_its_token_is_made_again_once_with_another() {
    let url = hub("t2").await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = |calls: &Arc<AtomicU64>| {
        let calls = calls.clone();
        Token::fetched(move || {
            let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
            async move { if call < 5 { Ok(format!("t{call}")) } else { Err("the login is down") } }
        })
    };
    let client = Client::new(&url).unwrap().with_token(counted(&calls));
    // All that were refused take the same one.
    let (one, other) = tokio::join!(client.me(), client.me());
    assert_eq!((one.unwrap().role, other.unwrap().role), (Role::User, Role::User));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    client.me().await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2, "it is kept");

    let strict = hub("none of them").await;
    let client = Client::new(&strict).unwrap().with_token(counted(&calls));
    let problem = client.me().await.unwrap_err().problem().cloned().unwrap();
    assert_eq!(problem.status, 401);
    let why = client.me().await.unwrap_err();
    assert!(matches!(&why, ClientError::Token(why) if why.to_string().contains("the login is down")), "{why}");
    assert!(!format!("{client:?}").contains("t3"));
}
