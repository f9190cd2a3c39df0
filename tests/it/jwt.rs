//! Tokens made by others, PyJWT, jose and openssl: the good ones are taken, the bad ones refused, as RFC 7519 and 8725 want.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use taskhub::keys::{AuthConfig, KeyOptions, Keys, Unauthenticated};
use taskhub::task::Timestamp;

/// Where the keys of each issuer are, which is called as the file is.
const ISSUERS: [(&str, &str); 6] = [
    ("HS256", "key_file"),
    ("RS256", "key_file"),
    ("ES256", "key_file"),
    ("EdDSA", "key_file"),
    ("PKCS1", "key_file"),
    ("SET", "jwks"),
];

type Token = (String, bool, String);

fn lines(command: &mut Command) -> Vec<Token> {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("a token")).collect()
}

fn keys(folder: &Path) -> Arc<Keys> {
    let table = |(name, how): (&str, &str)| {
        format!("[[jwt]]\niss = \"{name}\"\naud = \"taskhub\"\n{how} = {:?}\n", folder.join(name))
    };
    let table: String = ISSUERS.map(table).concat();
    let config = AuthConfig::read(table.parse().unwrap()).unwrap();
    Keys::new(KeyOptions { issuers: config.jwt, ..KeyOptions::default() }, Vec::new()).unwrap()
}

#[tokio::test]
async fn tokens_of_others_are_taken_or_refused_as_the_standards_want() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (python, modules) = (root.join("target/venv/bin/python"), root.join("target/npm/node_modules"));
    assert!(python.is_file() && modules.join("jose").is_dir(), "run tests/deps.sh");
    let folder = tempfile::tempdir().unwrap();
    let mut tokens = lines(Command::new(python).arg(root.join("tests/it/make_tokens.py")).arg(folder.path()));
    tokens.extend(lines(
        Command::new("node").arg(root.join("tests/it/make_tokens.mjs")).arg(folder.path()).arg(&modules),
    ));
    let keys = keys(folder.path());
    // Each waits for a key that is not known, so all at once.
    let asked = tokens.iter().map(|(what, good, token)| {
        let keys = keys.clone();
        async move { (what, *good, keys.authenticate(token, Timestamp::now()).await) }
    });
    let mut wrong = Vec::new();
    for (what, good, told) in futures::future::join_all(asked).await {
        match told {
            Ok(who) if good => assert_eq!(who.user_id.as_ref().map(|user| user.as_str()), Some("u1"), "{what}"),
            Err(Unauthenticated::Unavailable) | Ok(_) => wrong.push(format!("{what}: {told:?}")),
            Err(_) if good => wrong.push(format!("{what}: {told:?}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = tokens.iter().filter(|(_, good, _)| *good).count();
    assert!(good >= 40 && tokens.len() - good >= 160, "{good} of {}", tokens.len());
}
