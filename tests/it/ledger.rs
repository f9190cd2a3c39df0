//! What is kept about access, and who did what: over SIGKILL, and by the socket in the hub's own folder.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use taskhub::Hub;
use taskhub::access::{AccessChange, AccessKey, AccessRecord, Allow, ApiToken, AuditRow, NewScoped, Role};
use taskhub::client::{AuditQuery as AuditRows, Client, ClientError};
use taskhub::hub::{AuditQuery, HubOptions};
use taskhub::store::{SqliteOptions, SqliteStore};
use taskhub::task::{Name, Timestamp};

use crate::kit::{HubProcess, Program, eventually, program};

/// Tells the process that is to be killed where to write.
const FOLDER: &str = "TASKHUB_TEST_LEDGER_FOLDER";

fn open(folder: &Path) -> Hub {
    let store = SqliteStore::open(folder, SqliteOptions::default()).expect("the folder is nobody else's");
    Hub::start(Box::new(store), HubOptions::default()).expect("a hub")
}

fn row(action: &str, name: &str) -> AuditRow {
    AuditRow {
        who: None,
        role: Role::Admin,
        token: "local".into(),
        address: None,
        action: action.into(),
        target: Some(name.into()),
        outcome: AuditRow::OK.into(),
    }
}

/// Makes tokens and takes each third of them back, and says so once it is acknowledged. It ends when it is killed.
#[tokio::test]
#[ignore = "run in a process of its own by the test below"]
async fn makes_tokens_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let hub = open(Path::new(&folder));
    let from = hub.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.unwrap().entries;
    let from = from.first().map_or(0, |entry| entry.seq);
    // A line at once: half of one is no acknowledgement.
    let mut out = std::io::stderr();
    for n in from.. {
        let text = format!("token-{n}");
        let name = Name::new(&text);
        let token = ApiToken {
            name: name.clone(),
            digest: format!("{n:064x}"),
            role: Role::Viewer,
            user_id: None,
            task_types: None,
            queues: None,
            created_at: Timestamp::now(),
            expires_at: None,
        };
        let put = vec![AccessChange::Put(AccessRecord::ApiToken(token))];
        hub.change_access(put, Some(row("api_token.create", &text))).await.unwrap();
        out.write_all(format!("made {text}\n").as_bytes()).unwrap();
        if n % 3 == 0 {
            let remove = vec![AccessChange::Remove(AccessKey::ApiToken { name })];
            hub.change_access(remove, Some(row("api_token.revoke", &text))).await.unwrap();
            out.write_all(format!("gone {text}\n").as_bytes()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_token_and_the_row_of_it_are_there_together_or_not_at_all_after_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for round in 1..=3 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "ledger::makes_tokens_until_it_is_killed", "--nocapture"]);
        command.env(FOLDER, folder.path());
        let mut process = Program::start(command);
        eventually("some tokens", async || (process.said().lines().count() > 20 * round).then_some(())).await;
        process.kill();
        said += &process.said();

        let hub = open(folder.path());
        let records = hub.access_records();
        assert!(records.iter().any(|record| matches!(record, AccessRecord::Closed { .. })), "{records:?}");
        let names = records.iter().filter_map(|record| match record {
            AccessRecord::ApiToken(token) => Some(token.name.to_string()),
            _ => None,
        });
        let names: BTreeSet<String> = names.collect();
        let mut entries = hub.audit(AuditQuery { limit: 100_000, ..AuditQuery::default() }).await.unwrap().entries;
        entries.reverse();
        assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64), "no number is missing");
        assert!(entries.is_sorted_by_key(|entry| entry.at), "times do not go back");
        let mut by_rows = BTreeSet::new();
        for entry in &entries {
            let name = entry.row.target.clone().unwrap();
            assert!(if entry.row.action == "api_token.create" { by_rows.insert(name) } else { by_rows.remove(&name) });
        }
        assert_eq!(by_rows, names, "each token by its row");
        let was = |action: &str, name: &str| {
            entries.iter().any(|it| it.row.action == action && it.row.target.as_deref() == Some(name))
        };
        let heard: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once(' ')).collect();
        for (word, name) in heard.iter().filter(|(word, _)| matches!(*word, "made" | "gone")) {
            let action = if *word == "made" { "api_token.create" } else { "api_token.revoke" };
            assert!(was(action, name), "{word} {name} was acknowledged");
            assert!(*word == "made" || !names.contains(*name), "{name} was taken back");
        }
        hub.stop().await;
    }
}

#[tokio::test]
async fn whoever_may_open_the_folder_reaches_its_hub_by_a_socket_there() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("admin.sock");
    let mut hub = HubProcess::start(folder.path(), ["--base-path", "/tasks"]);
    let mode = || std::fs::metadata(&place).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let client = || Client::new(&format!("unix:{}", place.display())).unwrap();
    client().stats().await.unwrap();
    // One that was killed leaves its file to the next; one that ends takes it along.
    hub.program.kill();
    assert!(place.exists());
    let hub = HubProcess::start(folder.path(), [""; 0]);
    assert_eq!(mode(), 0o600);
    client().stats().await.unwrap();
    hub.program.signal(libc::SIGTERM);
    eventually("the file goes with the hub", async || (!place.exists()).then_some(())).await;

    // A name that is too long for a socket keeps no hub from starting.
    let deep = folder.path().join("x".repeat(120));
    let hub = HubProcess::start(&deep, [""; 0]);
    let says_so = async || hub.program.said().contains("no socket for the hub's own commands").then_some(());
    eventually("it says so", says_so).await;
    Client::new(&hub.url).unwrap().stats().await.unwrap();
    let mut check = program();
    assert!(check.args(["check", "--json"]).arg(&deep).output().unwrap().status.success());
}

fn run(folder: &Path, words: &[&str]) -> Output {
    let mut command = program();
    command.args(words).current_dir(folder).env_remove("TASKHUB_DATA").env_remove("TASKHUB_TOKEN");
    command.output().unwrap()
}

/// What a command prints, and what it says beside.
#[track_caller]
fn told(folder: &Path, words: &[&str], code: i32) -> (String, String) {
    let output = run(folder, words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {printed}{said}");
    (printed, said)
}

#[test]
fn a_hub_is_set_up_with_a_first_token_that_nobody_else_reads() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (printed, _) = told(at, &["init"], 0);
    assert!(printed.contains("taskhub serve --config taskhub.toml\n"), "{printed}");
    let mode = |name: &str| std::fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("admin.token"), mode("data"), mode("data/taskhub.db")), (0o600, 0o700, 0o600));
    let token = std::fs::read_to_string(at.join("admin.token")).unwrap();
    assert!(token.starts_with("tht_") && token.ends_with('\n') && token.lines().count() == 1);
    let (checked, _) = told(at, &["check"], 0);
    assert!(checked.contains("closed, 1 API tokens, 1 entries in the audit"), "{checked}");
    // Its text is nowhere but in that file.
    for file in std::fs::read_dir(at.join("data")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(token.len() - 1).any(|part| part == token.trim_end().as_bytes()));
    }
    // The settings are those of a hub, whose folder is found from wherever it is started.
    let mut command = program();
    let config = at.join("taskhub.toml");
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config).current_dir("/");
    let hub = HubProcess::from(command);
    assert!(at.join("data/admin.sock").exists());
    let (_, said) = told(at, &["init", "--config", "other.toml"], 4);
    assert!(said.contains("admin.token is there already"), "{said}");
    std::fs::rename(at.join("admin.token"), at.join("kept.token")).unwrap();
    let (_, said) = told(at, &["init", "--config", "other.toml"], 4);
    assert!(said.contains("a hub is running on ./data"), "{said}");
    drop(hub);
    // Nothing is written over, and what a failure made is taken away again.
    let (_, said) = told(at, &["init"], 4);
    assert!(said.contains("taskhub.toml is there already"), "{said}");
    let (_, said) = told(at, &["init", "--config", "other.toml"], 4);
    assert!(said.contains("admin: there is a token of this name"), "{said}");
    assert!(!at.join("other.toml").exists() && !at.join("admin.token").exists());
}

/// The signing key of a folder that was closed without a hub is there before the hub listens.
#[tokio::test]
async fn the_first_call_of_a_hub_may_be_for_a_scoped_token() {
    let folder = tempfile::tempdir().unwrap();
    let (text, _) = told(folder.path(), &["token", "create", "--role", "user", "--user", "ann"], 0);
    let hub = HubProcess::start(&folder.path().join("data"), [""; 0]);
    let ann = Client::new(&hub.url).unwrap().with_token(text.trim());
    let new = NewScoped { allow: vec![Allow::Read], ..NewScoped::default() };
    let minted = ann.create_token(&new).await.expect("a token");
    let link = Client::new(&hub.url).unwrap().with_token(minted.token.as_str());
    link.list(&Default::default()).await.expect("it reads");
    ann.revoke_token(&minted.jti).await.unwrap();
    assert!(
        matches!(link.list(&Default::default()).await, Err(ClientError::Refused(problem)) if problem.status == 401)
    );
}

#[test]
fn tokens_are_made_listed_and_revoked_without_a_hub_and_all_of_it_is_in_the_audit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (_, said) = told(at, &["token", "list"], 2);
    assert!(said.contains("./data is no folder of a hub") && !at.join("data").exists(), "{said}");
    let (text, said) = told(at, &["token", "create", "--role", "user", "--user", "ann", "--expires", "90d"], 0);
    assert!(text.starts_with("tht_") && said.contains("asks everyone for a token from now on"), "{said}");
    let worker = ["token", "create", "--role", "worker", "--name", "w", "--type", "a.*", "--type", "b", "--queue", "q"];
    let (made, said) = told(at, &[&worker[..], &["--json"]].concat(), 0);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&made["task_types"], &made["queues"]), (&serde_json::json!(["a.*", "b"]), &serde_json::json!(["q"])));
    assert!(!said.contains("from now on"), "{said}");
    for (words, code, why) in [
        (&worker[..], 4, "w: there is a token of this name"),
        (&["token", "create", "--role", "root"], 2, "must be viewer, user, worker, operator or admin"),
        (&["token", "create", "--role", "user"], 2, "user_id must be given"),
        (&["token", "create", "--role", "admin", "--type", "a"], 2, "task_types is for the role worker only"),
        (&["token", "create", "--role", "admin", "--expires", "soon"], 2, "such as 12h, 90d"),
        (&["token", "revoke", "x"], 4, "x: there is no such token"),
    ] {
        let (printed, said) = told(at, words, code);
        assert!(printed.is_empty() && said.contains(why), "{words:?}: {said}");
    }
    let (list, _) = told(at, &["token", "list"], 0);
    assert!(list.lines().count() == 3 && list.contains("a.*, b") && !list.contains("tht_"), "{list}");
    told(at, &["token", "revoke", "w"], 0);
    let (list, _) = told(at, &["token", "list", "--json"], 0);
    assert!(list.lines().count() == 1 && !list.contains("digest"), "{list}");
    let (rows, _) = told(at, &["audit", "--json"], 0);
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |row: &serde_json::Value| format!("{} {} {}", row["seq"], row["action"], row["token"]);
    let expected =
        [r#"3 "api_token.revoke" "owner""#, r#"2 "api_token.create" "owner""#, r#"1 "api_token.create" "owner""#];
    assert_eq!(rows.iter().map(line).collect::<Vec<_>>(), expected, "what was refused did nothing");
    let (rows, _) = told(at, &["audit", "--target", "w", "--action", "api_token.create"], 0);
    assert_eq!(rows.lines().count(), 2, "{rows}");
    let (rows, _) = told(at, &["audit", "--limit", "1"], 0);
    assert!(rows.lines().count() == 2 && rows.contains("api_token.revoke"), "{rows}");
}

/// The same commands, while a hub runs on the folder: what they do holds at once.
#[tokio::test]
async fn with_a_hub_on_the_folder_its_socket_does_what_the_files_did() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let hub = HubProcess::start(&at.join("data"), [""; 0]);
    let anyone = Client::new(&hub.url).unwrap();
    anyone.stats().await.expect("it is open to whoever reaches it");
    let (text, said) = told(at, &["token", "create", "--role", "viewer", "--name", "v", "--expires", "1h"], 0);
    assert!(said.contains("the token v, viewer, good until 2"), "{said}");
    let refused = |error: ClientError| match error {
        ClientError::Refused(problem) => problem.status,
        other => panic!("{other}"),
    };
    assert_eq!(refused(anyone.stats().await.unwrap_err()), 401, "it asks who calls from now on");
    let viewer = Client::new(&hub.url).unwrap().with_token(text.trim());
    viewer.stats().await.unwrap();
    assert_eq!(refused(viewer.api_tokens().await.unwrap_err()), 403);
    for (words, why) in [
        (&["token", "create", "--role", "viewer", "--name", "v"][..], "there is a token of this name"),
        (&["token", "create", "--role", "user"], "user_id must be given"),
        (&["token", "revoke", "x"], "there is no such token"),
    ] {
        let (printed, said) = told(at, words, 4);
        assert!(printed.is_empty() && said.contains(why), "{words:?}: {said}");
    }
    let (list, _) = told(at, &["token", "list"], 0);
    assert!(list.lines().count() == 2 && list.contains("viewer"), "{list}");
    told(at, &["token", "revoke", "v"], 0);
    assert_eq!(refused(viewer.stats().await.unwrap_err()), 401);
    let rows = eventually("the refusal is written", async || {
        let (rows, _) = told(at, &["audit", "--json"], 0);
        rows.contains("\"forbidden\"").then_some(rows)
    });
    let rows = rows.await;
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |token: &str| rows.iter().filter(|row| row["token"] == token).count();
    assert_eq!((of("owner"), of("api:v"), rows.len()), (2, 1, 3), "{rows:?}");
    let (rows, _) = told(at, &["audit", "--token", "api:v", "--outcome", "forbidden", "--json"], 0);
    assert_eq!(rows.lines().count(), 1, "{rows}");
    // Page by page, all of it.
    let owner = Client::new(&format!("unix:{}", at.join("data/admin.sock").display())).unwrap();
    let (mut query, mut seqs) = (AuditRows { limit: Some(1), ..AuditRows::default() }, Vec::new());
    loop {
        let page = owner.audit(&query).await.unwrap();
        seqs.extend(page.rows.iter().map(|row| row.seq));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seqs, [3, 2, 1]);
    let limit = AuditRows { limit: Some(501), ..AuditRows::default() };
    assert_eq!(refused(owner.audit(&limit).await.unwrap_err()), 422);
}
